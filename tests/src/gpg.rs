//! A key of its own for each archive, with the real gpg.

use std::path::{Path, PathBuf};

use crate::sandbox::{Sandbox, command, succeed};

/// A home of gpg with one secret key. Its agent ends with the value.
pub(crate) struct Gpg {
    home: PathBuf,
}

impl Gpg {
    /// A new key of this algorithm for `name`.
    pub(crate) fn new(sandbox: &Sandbox, name: &str, algorithm: &str) -> Gpg {
        let gpg = Gpg { home: sandbox.path().join("gpg") };
        std::fs::create_dir_all(&gpg.home).expect("a folder for gpg");
        succeed(command("chmod").arg("700").arg(&gpg.home));
        gpg.run(&["--passphrase", "", "--quick-gen-key", name, algorithm, "sign", "never"]);
        gpg
    }

    pub(crate) fn run(&self, args: &[&str]) {
        succeed(command("gpg").arg("--homedir").arg(&self.home).args(["--batch", "--yes"]).args(args));
    }

    pub(crate) fn home(&self) -> &Path {
        &self.home
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let _ = command("gpgconf").arg("--homedir").arg(&self.home).args(["--kill", "all"]).status();
    }
}
