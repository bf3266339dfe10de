//! Root's hand in somebody else's folder: what root does there, it does with his rights and not with its own.
//!
//! Whoever owns a folder can put a link into it, or in its place, at any moment: also between a look and the act. A write
//! that goes through such a link goes, with root's rights, wherever he likes. With his own it goes nowhere that he could
//! not have gone himself, and so nothing has to be looked at.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, geteuid, setfsgid, setfsuid};

use crate::file::at;

/// Does `act` with the rights of whom `folder` belongs to, if this process is root and he is not; otherwise with its own.
///
/// `folder` must stand in a folder in which only root can replace it, or he could put one of root's in its place.
///
/// # Errors
/// `NotADirectory` if `folder` is a link or anything else, whoever put it there; those of `act`; if the kernel does not
/// change the rights.
pub fn with_rights_of<T>(folder: &Path, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    // A slash at its end would have the kernel follow a link.
    let folder: PathBuf = folder.components().collect();
    let meta = at(&folder, fs::symlink_metadata(&folder))?;
    if !meta.is_dir() {
        let text = format!("{}: not a folder", folder.display());
        return Err(io::Error::new(io::ErrorKind::NotADirectory, text));
    }
    if !geteuid().is_root() || meta.uid() == 0 {
        return act();
    }
    let _lowered = Lowered::to(Uid::from_raw(meta.uid()), Gid::from_raw(meta.gid()))?;
    act()
}

/// This thread's rights on files are somebody else's for as long as the value lives (setfsuid(2)): with root's user id go
/// its capabilities to overrule the modes of files.
struct Lowered(Uid, Gid);

impl Lowered {
    fn to(user: Uid, group: Gid) -> io::Result<Self> {
        let lowered = Lowered(setfsuid(user), setfsgid(group));
        // The call says nothing of its success, but what was in force before; asked for nobody, it changes nothing.
        let nobody = u32::MAX;
        if (setfsuid(Uid::from_raw(nobody)), setfsgid(Gid::from_raw(nobody))) == (user, group) {
            Ok(lowered)
        } else {
            Err(io::Error::other(format!(
                "the kernel does not lend the rights of user {user}, group {group}"
            )))
        }
    }
}

impl Drop for Lowered {
    fn drop(&mut self) {
        setfsuid(self.0);
        setfsgid(self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_in_place_of_the_folder_is_refused_with_and_without_a_slash() {
        let folder = std::env::temp_dir().join(format!("prestage-rights-{}", std::process::id()));
        crate::file::remove(&folder).unwrap();
        fs::create_dir_all(folder.join("real")).unwrap();
        std::os::unix::fs::symlink("real", folder.join("link")).unwrap();
        for name in ["link", "link/"] {
            let refused = with_rights_of(&folder.join(name), || Ok(())).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::NotADirectory, "{refused}");
        }
        with_rights_of(&folder.join("real/"), || Ok(())).unwrap();
        crate::file::remove(&folder).unwrap();
    }

    #[test]
    fn the_rights_of_somebody_else_end_with_the_act() {
        // Only root can have other rights than its own; the table of attacks has this under root.
        if !geteuid().is_root() {
            return;
        }
        let folder = std::env::temp_dir().join(format!("prestage-rights-of-{}", std::process::id()));
        crate::file::remove(&folder).unwrap();
        fs::create_dir_all(folder.join("his")).unwrap();
        std::os::unix::fs::chown(folder.join("his"), Some(65534), Some(65534)).unwrap();
        with_rights_of(&folder.join("his"), || {
            fs::write(folder.join("his/own"), "x")?;
            let refused = fs::write(folder.join("roots"), "x").unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied, "{refused}");
            Ok(())
        })
        .unwrap();
        assert_eq!(fs::metadata(folder.join("his/own")).unwrap().uid(), 65534);
        fs::write(folder.join("roots"), "x").unwrap();
        crate::file::remove(&folder).unwrap();
    }
}
