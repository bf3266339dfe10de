//! What dnf, yum and rpm print, and what it means: pure but for the reading of a log.

use std::path::Path;

use host::command::CommandError;

use crate::error::{Error, Exit};

/// dnf's exit code for a lock that somebody else has, with `exit_on_lock`.
pub(super) const LOCKED: i32 = 200;

/// What the log of a transaction may be at most; a %post that talks more is cut.
pub(super) const MAX_LOG: u64 = 16 * 1024 * 1024;

/// What a program wrote into its log; empty if it wrote none.
pub(super) fn read_log(path: &Path) -> String {
    let bytes = host::file::read_limited(path, MAX_LOG).ok().flatten().unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(super) fn is_locked(error: &CommandError, said: &str) -> bool {
    error.code() == Some(LOCKED)
        || said.contains("can't create transaction lock")
        || said.contains("Existing lock ")
        || said.contains("Another app is currently holding the yum lock")
}

pub(super) fn is_script_failure(line: &str) -> bool {
    line.contains("scriptlet failed, exit status")
        || line.starts_with("Error in ") && line.contains(" scriptlet in rpm package")
        || line.starts_with("Non-fatal ") && line.contains(" scriptlet failure in rpm package")
}

/// The package of such a line: `Error in POSTIN scriptlet in rpm package NAME`, or
/// `warning: %post(NAME-VERSION-RELEASE.ARCH) scriptlet failed, exit status 1`.
pub(super) fn failed_package(line: &str) -> Option<&str> {
    if let Some((_, name)) = line.rsplit_once("in rpm package ") {
        return name.split_whitespace().next();
    }
    let (_, nevra) = line.split_once("%")?.1.split_once('(')?;
    nevra.split_once(')')?.0.rsplitn(3, '-').nth(2)
}

/// What an error of dnf or rpm means for the node; `said` is what it wrote.
pub(super) fn explain(error: &CommandError, said: &str) -> Error {
    let CommandError::Failed { status, .. } = error else {
        let cure = match error {
            CommandError::Isolation { .. } => {
                "nothing was installed: run it as root where namespaces are allowed, or set [install] allow-network = true"
            }
            _ => "repair this node's rpm and dnf",
        };
        return Error::new(Exit::Deferred, error, cure);
    };
    let what = format!("the package manager ended with {status}: {}", essence(said));
    if is_locked(error, said) {
        let what = format!("another package manager is at work and has the lock: {what}");
        Error::new(Exit::Deferred, what, "it is tried again by itself")
    } else if ["NOKEY", "do not have any GPG public keys", "GPG check FAILED", "is not signed"]
        .iter()
        .any(|t| said.contains(t))
    {
        let what = format!("a package is not signed by a key in this node's keyring: {what}");
        Error::new(
            Exit::InstallFailed,
            what,
            "import its vendor's key with `rpm --import`, or set [install] gpgcheck = false",
        )
    } else if said.contains("No space left on device") || said.contains("more space needed on") {
        Error::new(Exit::Deferred, what, "free some space; it is tried again by itself")
    } else {
        Error::new(Exit::InstallFailed, what, "see /var/log/dnf.log on the node")
    }
}

/// The lines that say what went wrong first, and not what came of it.
pub(super) fn essence(said: &str) -> String {
    let is_cause = |line: &&str| {
        ["Error", "error:", "Problem", "Failed to", "Public key for", "Package "]
            .iter()
            .any(|p| line.starts_with(p))
            && (!line.starts_with("Package ") || line.contains("is not signed"))
            || is_script_failure(line)
            || line.contains("more space needed on")
    };
    let causes: Vec<&str> = said.lines().map(str::trim).filter(is_cause).take(4).collect();
    if causes.is_empty() {
        said.lines().map(str::trim).rfind(|l| !l.is_empty()).unwrap_or_default().to_owned()
    } else {
        causes.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_that_failed_are_found_in_what_dnf_and_yum_print() {
        for (line, package) in [
            ("Error in POSTIN scriptlet in rpm package till-data", "till-data"),
            (
                "Non-fatal POSTIN scriptlet failure in rpm package till-data-2.0-1.noarch",
                "till-data-2.0-1.noarch",
            ),
            ("warning: %post(till-data-2.0-1.noarch) scriptlet failed, exit status 1", "till-data"),
        ] {
            assert!(is_script_failure(line), "{line}");
            assert_eq!(failed_package(line), Some(package), "{line}");
        }
        assert!(!is_script_failure("  Running scriptlet: till-data-2.0-1.noarch    1/1"));
    }
}
