//! A vendor's RPM repository, made by the real createrepo_c, rpmsign and gpg.

use std::fs;
use std::path::PathBuf;

use crate::backend::Package;
use crate::gpg::Gpg;
use crate::sandbox::{Sandbox, command, succeed};
use crate::server::Server;

/// An RPM repository, each package of it signed by a key of its own, served over HTTP.
pub struct RpmArchive {
    folder: PathBuf,
    gpg: Gpg,
    server: Server,
}

impl RpmArchive {
    pub(crate) fn new(sandbox: &Sandbox) -> RpmArchive {
        let folder = sandbox.path().join("archive");
        fs::create_dir_all(folder.join("Packages")).expect("a folder for the archive");
        let gpg = Gpg::new(sandbox, "Test Vendor", "rsa2048");
        let archive = RpmArchive { server: Server::start(&folder).expect("a port"), folder, gpg };
        archive.gpg.run(&["--armor", "--output", &archive.key().to_string_lossy(), "--export"]);
        archive
    }

    /// The vendor's key.
    pub fn key(&self) -> PathBuf {
        self.folder.join("vendor.asc")
    }

    /// Signs packages.
    pub fn sign(&self, files: &[PathBuf]) {
        let mut sign = command("rpmsign");
        sign.args([
            "--define",
            "__gpg /usr/bin/gpg",
            "--define",
            "_gpg_name Test Vendor",
            "--define",
            &format!("_gpg_path {}", self.gpg.home().display()),
        ]);
        succeed(sign.arg("--addsign").args(files));
    }

    /// Adds packages and publishes.
    pub fn publish(&self, packages: &[Package], signed: bool) {
        let files: Vec<PathBuf> =
            packages.iter().map(|p| p.rpm().build(&self.folder.join("Packages"))).collect();
        if signed && !files.is_empty() {
            self.sign(&files);
        }
        self.index();
    }

    /// Adds a file of metadata of a type that dnf knows, such as `updateinfo` or `modules`, to what was published last.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn describe(&self, kind: &str, text: &str) {
        let file = self.folder.join(format!("{kind}.in"));
        fs::write(&file, text).expect("a file of metadata");
        let mut modify = command("modifyrepo_c");
        succeed(modify.arg(format!("--mdtype={kind}")).arg(&file).arg(self.folder.join("repodata")));
    }

    /// What was asked of it: paths, in order.
    pub fn asked(&self) -> Vec<String> {
        self.server.exchanges().into_iter().map(|e| e.path).collect()
    }

    /// Writes the repository's metadata anew.
    pub fn index(&self) {
        succeed(command("createrepo_c").args(["--quiet", "--no-database"]).arg(&self.folder));
    }

    /// A .repo file that names it.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn sources(&self) -> PathBuf {
        let path = self.folder.join("vendor.repo");
        let text = format!("[vendor]\nname=Test Vendor\nbaseurl={}\nenabled=1\n", self.server.url());
        fs::write(&path, text).expect("a .repo file");
        path
    }
}
