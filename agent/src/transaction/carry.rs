//! What of the agent's own state does not go back with the node: it is copied into the files that the node will have.
//!
//! A restored root restores the journal, the queue of reports and the list of refused bundles too: the node would install
//! the same bad bundle in a circle, and reports that nobody has sent would be lost. The rollback floor of root's trusted
//! metadata must not go back either.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, chown};
use std::path::Path;

use host::file;

use crate::error::{Error, Exit, Result};
use crate::key;
use crate::node::Node;

/// Files and folders below `/var/lib/prestage` that are carried over; each takes the place of what is there.
const CARRIED: [&str; 12] = [
    "status.json",
    "prestage.prom",
    "reports",
    "fetch/metadata",
    "fetch/policies",
    "fetch/quarantine.json",
    "fetch/pace.json",
    "fetch/mirrors.json",
    "fetch/fleet.json",
    "private/metadata",
    "private/refused.json",
    "private/runs.json",
];

/// Carries the state of `node` into the root at `target`, with this content for its journal.
///
/// # Errors
/// If something cannot be written, or is not what it must be: nobody but root may say where root writes.
pub fn carry(node: &Node, target: &Path, journal: &[u8]) -> Result<()> {
    let (from, to) = (node.state(), target.join("var/lib/prestage"));
    for folder in [to.clone(), to.join("private"), to.join("fetch")] {
        if !fs::symlink_metadata(&folder).is_ok_and(|meta| meta.is_dir()) {
            let what = format!("{} is not a folder", folder.display());
            return Err(Error::new(Exit::Trust, what, "find out who put it there"));
        }
    }
    for name in CARRIED {
        let target = to.join(name);
        file::remove(&target)?;
        copy(&from.join(name), &target)?;
    }
    // A node that goes back is known by the same key.
    let (key, etc) = (node.root.join(key::FILE), target.join(key::FILE));
    if key.exists() && etc.parent().is_some_and(|folder| folder.is_dir()) {
        file::remove(&etc)?;
        copy(&key, &etc)?;
    }
    Ok(file::replace(&to.join("private/journal.json"), journal, 0o600)?)
}

/// Copies files and folders with their owners and modes; links and whatever else there is are left out.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let Ok(meta) = fs::symlink_metadata(from) else { return Ok(()) };
    if meta.is_dir() {
        file::make_folder(to, meta.mode() & 0o7777)?;
        for entry in fs::read_dir(from).map_err(|e| Error::file(from, &e))? {
            let name = entry.map_err(|e| Error::file(from, &e))?.file_name();
            copy(&from.join(&name), &to.join(&name))?;
        }
    } else if meta.is_file() {
        let mut input = file::open_regular(from)?;
        let write = || {
            let mut output =
                fs::File::options().write(true).create_new(true).mode(meta.mode() & 0o7777).open(to)?;
            std::io::copy(&mut input, &mut output)?;
            output.sync_all()
        };
        let mut write = write;
        write().map_err(|e| Error::file(to, &e))?;
    } else {
        return Ok(());
    }
    chown(to, Some(meta.uid()), Some(meta.gid())).map_err(|e| Error::file(to, &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_follows_no_link_and_keeps_modes() {
        let top = std::env::temp_dir().join(format!("prestage-carry-{}", std::process::id()));
        file::remove(&top).unwrap();
        file::make_folder(&top.join("reports/deep"), 0o755).unwrap();
        fs::write(top.join("reports/deep/1.json"), "told").unwrap();
        fs::write(top.join("secret"), "x").unwrap();
        std::os::unix::fs::symlink(top.join("secret"), top.join("reports/link")).unwrap();
        copy(&top.join("reports"), &top.join("copy")).unwrap();
        copy(&top.join("nothing"), &top.join("nothing-either")).unwrap();
        assert_eq!(fs::read_to_string(top.join("copy/deep/1.json")).unwrap(), "told");
        assert!(!top.join("copy/link").exists() && !top.join("nothing-either").exists());
        file::remove(&top).unwrap();
    }
}
