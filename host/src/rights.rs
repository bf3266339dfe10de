//! Root's hand in somebody else's folder: what root does there, it does with his rights and not with its own.
//!
//! Whoever owns a folder can put a link into it, or in its place, at any moment: also between a look and the act. A write
//! that goes through such a link goes, with root's rights, wherever he likes. With his own it goes nowhere that he could
//! not have gone himself, and so nothing has to be looked at.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::{
    Gid, Uid, User, geteuid, getgroups, getresuid, initgroups, setfsgid, setfsuid, setgroups, setresgid,
    setresuid,
};

use crate::file::at;

/// Does `act` with the rights of whom `folder` belongs to, if this process is root and he is not; otherwise with its own.
///
/// `folder` must stand in a folder in which only root can replace it, or he could put one of root's in its place.
///
/// # Errors
/// `NotADirectory` if `folder` is a link or anything else, whoever put it there; those of `act`; if the kernel does not
/// change the rights.
pub fn with_rights_of<T>(folder: &Path, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let _lowered = somebody_else(folder)?.map(|(user, group)| Lowered::to(user, group)).transpose()?;
    act()
}

/// Whose `folder` is, if this process is root and he is not.
fn somebody_else(folder: &Path) -> io::Result<Option<(Uid, Gid)>> {
    // A slash at its end would have the kernel follow a link.
    let folder: PathBuf = folder.components().collect();
    let meta = at(&folder, fs::symlink_metadata(&folder))?;
    if !meta.is_dir() {
        let text = format!("{}: not a folder", folder.display());
        return Err(io::Error::new(io::ErrorKind::NotADirectory, text));
    }
    let is_own = !geteuid().is_root() || meta.uid() == 0;
    Ok((!is_own).then(|| (Uid::from_raw(meta.uid()), Gid::from_raw(meta.gid()))))
}

/// Does `act` as whom `folder` belongs to, if this process is root and he is not: the whole process, and what it starts
/// meanwhile, as a service manager would have started it for him. For a step that is somebody else's from beginning to
/// end, called by root; [`with_rights_of`] is for a single hand.
///
/// `folder` as there. The process must have no other threads that need root meanwhile.
///
/// # Errors
/// `NotADirectory` if `folder` is a link or anything else; if the kernel does not change the user, or back.
pub fn as_owner_of<T>(folder: &Path, act: impl FnOnce() -> T) -> io::Result<T> {
    let disguise = somebody_else(folder)?.map(|(user, group)| Disguise::put_on(user, group)).transpose()?;
    let result = act();
    disguise.map_or(Ok(()), Disguise::take_off)?;
    Ok(result)
}

/// Does `act` with root's rights on files, inside [`as_owner_of`]: to read what root has named. Outside, and for whoever
/// was not root, it changes nothing.
///
/// # Errors
/// Those of `act`.
pub fn with_own_rights<T>(act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let is_disguised = getresuid().is_ok_and(|ids| ids.saved.is_root() && !ids.effective.is_root());
    if !is_disguised {
        return act();
    }
    // With root's id come its capabilities to overrule the modes of files (capabilities(7), "Effect of user ID changes").
    let before = setfsuid(Uid::from_raw(0));
    let result = act();
    setfsuid(before);
    result
}

/// Somebody else's user and groups; root's id is kept as the saved one, which a program that is started does not get.
struct Disguise {
    groups: Vec<Gid>,
    is_on: bool,
}

impl Disguise {
    fn put_on(user: Uid, group: Gid) -> io::Result<Self> {
        let mut disguise = Disguise { groups: getgroups()?, is_on: true };
        let named = User::from_uid(user)?.and_then(|user| CString::new(user.name).ok());
        let root = Uid::from_raw(0);
        let put_on = || {
            match &named {
                Some(name) => initgroups(name, group)?,
                None => setgroups(&[group])?,
            }
            setresgid(group, group, Gid::from_raw(0))?;
            setresuid(user, user, root)
        };
        match put_on() {
            Ok(()) => Ok(disguise),
            Err(error) => {
                disguise.undo()?;
                Err(error.into())
            }
        }
    }

    fn undo(&mut self) -> nix::Result<()> {
        let (root, group) = (Uid::from_raw(0), Gid::from_raw(0));
        setresuid(root, root, root)?;
        setresgid(group, group, group)?;
        setgroups(&self.groups)?;
        self.is_on = false;
        Ok(())
    }

    fn take_off(mut self) -> io::Result<()> {
        Ok(self.undo()?)
    }
}

impl Drop for Disguise {
    fn drop(&mut self) {
        // Only after a panic: the message of that is the one to be seen.
        if self.is_on {
            let _ = self.undo();
        }
    }
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
    use std::os::unix::fs::PermissionsExt as _;

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
    fn a_step_of_somebody_else_is_done_as_he_and_root_is_root_again() {
        // Changes the whole process: in one of its own, as nextest gives each test, and cargo test does not.
        if !geteuid().is_root() || std::env::var_os("NEXTEST").is_none() {
            return;
        }
        let folder = std::env::temp_dir().join(format!("prestage-owner-{}", std::process::id()));
        crate::file::remove(&folder).unwrap();
        fs::create_dir_all(folder.join("his")).unwrap();
        fs::write(folder.join("secret"), "root's").unwrap();
        fs::set_permissions(folder.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::chown(folder.join("his"), Some(65534), Some(65534)).unwrap();
        let groups = getgroups().unwrap();
        as_owner_of(&folder.join("his"), || {
            fs::write(folder.join("his/own"), "x").unwrap();
            assert!(fs::read(folder.join("secret")).is_err());
            assert_eq!(with_own_rights(|| fs::read(folder.join("secret"))).unwrap(), b"root's");
            assert!(fs::read(folder.join("secret")).is_err());
            // What is started has nothing left of root.
            let status = ["-E", "^(Uid|Gid|CapEff|CapPrm)", "/proc/self/status"];
            let said = std::process::Command::new("grep").args(status).output().unwrap().stdout;
            let said = String::from_utf8(said).unwrap();
            assert!(said.contains("Uid:\t65534\t65534\t65534\t65534\n"), "{said}");
            assert!(said.contains("CapPrm:\t0000000000000000"), "{said}");
        })
        .unwrap();
        assert_eq!(fs::metadata(folder.join("his/own")).unwrap().uid(), 65534);
        fs::write(folder.join("roots"), "x").unwrap();
        assert_eq!(getgroups().unwrap(), groups);
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
