//! Files that are there whole or not at all, locks, and free space.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};

use crate::rights::with_rights_of;

/// Says which file an I/O error was about: "PATH: reason".
pub fn at<T>(path: &Path, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
}

/// Replaces `path` by `bytes`: written aside, synced, renamed, folder synced. A reader sees the old file or the new
/// one, and after a power cut it is one of the two.
///
/// # Errors
/// With the path in the text.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    replace_with_owner(path, bytes, mode, None, Durable::Yes)
}

/// Whether a file must be on the disk when the call returns.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Durable {
    Yes,
    No,
}

/// As [`replace`]; the file then belongs to whom `other` belongs to, if this process may give it away: so that what
/// root writes for the fetch user stays the fetch user's. In a folder that is not root's, root writes with its owner's
/// rights; `path` must then stand right below it, and it where [`with_rights_of`] says.
///
/// # Errors
/// With the path in the text; `NotADirectory` if the folder, or `other`, is a link.
pub fn replace_like(path: &Path, bytes: &[u8], mode: u32, other: &Path) -> io::Result<()> {
    replace_as_owner_of(other, path, bytes, mode, Durable::Yes)
}

/// As [`replace_like`], for what is written again soon: a reader sees the old file or the new one, but after a power cut it
/// may be either, or on some file systems empty. Nothing waits for the disk.
///
/// # Errors
/// As [`replace_like`].
pub fn rewrite_like(path: &Path, bytes: &[u8], mode: u32, other: &Path) -> io::Result<()> {
    replace_as_owner_of(other, path, bytes, mode, Durable::No)
}

fn replace_as_owner_of(
    other: &Path,
    path: &Path,
    bytes: &[u8],
    mode: u32,
    durable: Durable,
) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let owner = |of: &Path| {
        // A slash at its end would have the kernel follow a link.
        let of: PathBuf = of.components().collect();
        at(&of, fs::symlink_metadata(&of)).map(|meta| (meta.uid(), meta.gid()))
    };
    if !nix::unistd::geteuid().is_root() {
        replace_with_owner(path, bytes, mode, None, durable)
    } else if owner(folder)?.0 != 0 {
        with_rights_of(folder, || replace_with_owner(path, bytes, mode, None, durable))
    } else {
        replace_with_owner(path, bytes, mode, Some(owner(other)?), durable)
    }
}

/// As [`replace`], for a file that root keeps and a group may read: nobody else may, at no moment.
///
/// # Errors
/// With the path in the text.
pub fn replace_for_group(path: &Path, bytes: &[u8], group: u32) -> io::Result<()> {
    replace_with_owner(path, bytes, 0o640, Some((0, group)), Durable::Yes)
}

fn replace_with_owner(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    owner: Option<(u32, u32)>,
    durable: Durable,
) -> io::Result<()> {
    let aside = aside(path);
    let write = || {
        // Somebody with fewer rights may be able to write in the folder, and have put a link or a folder here: what is
        // there goes, and O_EXCL creates and follows nothing.
        remove(&aside)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&aside)?;
        // `mode` above is subject to the umask.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        if let Some((user, group)) = owner {
            std::os::unix::fs::fchown(&file, Some(user), Some(group))?;
        }
        file.write_all(bytes)?;
        if durable == Durable::Yes {
            file.sync_all()?;
        }
        match fs::rename(&aside, path) {
            Err(e) if e.kind() == io::ErrorKind::IsADirectory => {
                remove(path)?;
                fs::rename(&aside, path)
            }
            other => other,
        }
    };
    at(path, write())?;
    if durable == Durable::Yes { sync_folder_of(path) } else { Ok(()) }
}

/// The name under which a file is written before it is renamed: beside it, hidden, so that nothing that lists the
/// folder takes it for the file.
fn aside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

/// Exchanges what two names on one file system stand for.
///
/// In one step with glibc (renameat2(2)); musl has no such call, so there it is two renames, right after everything before
/// them was made durable: on a file system that writes in transactions both are in the same one, unless it ends within
/// these microseconds.
///
/// # Errors
/// With the first path in the text.
pub fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    #[cfg(target_env = "gnu")]
    let done = nix::fcntl::renameat2(
        nix::fcntl::AT_FDCWD,
        one,
        nix::fcntl::AT_FDCWD,
        other,
        nix::fcntl::RenameFlags::RENAME_EXCHANGE,
    )
    .map_err(io::Error::from);
    #[cfg(not(target_env = "gnu"))]
    let done = sync_folder_of(other).and_then(|()| {
        let between = aside(one);
        fs::rename(other, &between)?;
        fs::rename(one, other)?;
        fs::rename(&between, one)
    });
    at(one, done)?;
    sync_folder_of(other)
}

/// Makes a rename or removal in the folder of `path` durable.
///
/// # Errors
/// With the folder in the text.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    at(folder, File::open(folder).and_then(|f| f.sync_all()))
}

/// Reads a file of at most `limit` bytes; `None` if there is none.
///
/// # Errors
/// With the path in the text; `FileTooLarge` above the limit.
pub fn read_limited(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    use io::Read as _;
    let file = match open_followed(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    // In one piece, where the kernel knows how long it is.
    let length = file.metadata().map_or(0, |meta| meta.len().min(limit));
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    at(path, file.take(limit.saturating_add(1)).read_to_end(&mut bytes))?;
    if bytes.len() as u64 > limit {
        let text = format!("{}: larger than {limit} bytes", path.display());
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(Some(bytes))
}

/// Opens a file for reading, and only a file: no link is followed, no pipe or device waited for. For paths in folders
/// that somebody with fewer rights can write.
///
/// # Errors
/// With the path in the text; `InvalidInput` if it is something else.
pub fn open_regular(path: &Path) -> io::Result<File> {
    open_with(path, OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK)
}

/// The same for a file that may be behind a link, as in a copy of a repository.
///
/// # Errors
/// As [`open_regular`].
pub fn open_followed(path: &Path) -> io::Result<File> {
    open_with(path, OFlag::O_NONBLOCK)
}

fn open_with(path: &Path, flags: OFlag) -> io::Result<File> {
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits()).open(path) {
        // A link, where none is followed (open(2)).
        Err(e) if e.raw_os_error() == Some(Errno::ELOOP as i32) => return Err(not_regular(path)),
        other => at(path, other)?,
    };
    if at(path, file.metadata())?.is_file() { Ok(file) } else { Err(not_regular(path)) }
}

fn not_regular(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{}: not a regular file", path.display()))
}

/// Removes a file or a folder with all that is in it; nothing there is no error.
///
/// # Errors
/// With the path in the text.
pub fn remove(path: &Path) -> io::Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => at(path, other),
    }
}

/// Makes a folder, with those above it, of the given mode; one that is there keeps its mode.
///
/// # Errors
/// With the path in the text.
pub fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    at(path, fs::DirBuilder::new().recursive(true).mode(mode).create(path))
}

/// An exclusive lock, held until it is dropped. The kernel gives it back when the process dies, however it dies, so
/// there are no stale locks.
pub struct Lock(#[expect(dead_code, reason = "holding it is the point")] Flock<File>);

impl Lock {
    /// Takes the lock; `None` if another process has it.
    ///
    /// # Errors
    /// With the path in the text.
    pub fn take(path: &Path) -> io::Result<Option<Lock>> {
        Lock::take_made(path, 0o660)
    }

    /// The same for a lock that others look at ([`is_locked`]), whose file anybody may read. Whoever may read it may hold it
    /// too, so nobody waits for it.
    ///
    /// # Errors
    /// With the path in the text.
    pub fn take_seen(path: &Path) -> io::Result<Option<Lock>> {
        Lock::take_made(path, 0o644)
    }

    fn take_made(path: &Path, mode: u32) -> io::Result<Option<Lock>> {
        match Flock::lock(Lock::open(path, mode)?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Lock(lock))),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, e)) => at(path, Err(e.into())),
        }
    }

    /// Takes the lock as soon as it is free: one that others only look at ([`is_locked`]), so that it soon is. Anybody
    /// may read the file.
    ///
    /// # Errors
    /// With the path in the text.
    pub fn wait(path: &Path) -> io::Result<Lock> {
        match Flock::lock(Lock::open(path, 0o644)?, FlockArg::LockExclusive) {
            Ok(lock) => Ok(Lock(lock)),
            Err((_, e)) => at(path, Err(e.into())),
        }
    }

    fn open(path: &Path, mode: u32) -> io::Result<File> {
        // Not waiting for the other end of a pipe.
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(mode)
            .custom_flags(flags)
            .open(path);
        at(path, file)
    }
}

/// Whether some process holds the lock on `path`. Looking takes a shared lock for a moment, which needs no more than the
/// right to read; so it is only for locks that are taken with [`Lock::wait`] or
/// [`Lock::take_seen`].
pub fn is_locked(path: &Path) -> bool {
    let Ok(file) = open_regular(path) else { return false };
    matches!(Flock::lock(file, FlockArg::LockSharedNonblock), Err((_, Errno::EWOULDBLOCK)))
}

/// Bytes that an unprivileged program may still write on the file system of `path`.
///
/// # Errors
/// With the path in the text.
pub fn free_space(path: &Path) -> io::Result<u64> {
    let stat = at(path, nix::sys::statvfs::statvfs(path).map_err(io::Error::from))?;
    // Both are u64 on 64-bit machines and smaller elsewhere.
    #[allow(clippy::unnecessary_cast)]
    Ok(stat.blocks_available() as u64 * stat.fragment_size() as u64)
}

/// Bytes that the files below `folder` take on the disk; one with several names counts once.
///
/// # Errors
/// With the path in the text.
pub fn used_space(folder: &Path) -> io::Result<u64> {
    let mut seen = std::collections::BTreeSet::new();
    let (mut folders, mut used) = (vec![folder.to_owned()], 0);
    while let Some(folder) = folders.pop() {
        for entry in at(&folder, fs::read_dir(&folder))? {
            let path = at(&folder, entry)?.path();
            // What goes away meanwhile takes nothing.
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            if meta.is_dir() {
                folders.push(path);
            } else if seen.insert((meta.dev(), meta.ino())) {
                used += meta.blocks() * 512; // st_blocks counts these (inode(7))
            }
        }
    }
    Ok(used)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("prestage-file-{name}-{}", std::process::id()));
        remove(&folder).unwrap();
        make_folder(&folder, 0o755).unwrap();
        folder
    }

    #[test]
    fn a_link_left_by_another_user_is_not_written_through() {
        let folder = folder("link");
        fs::write(folder.join("victim"), "mine").unwrap();
        std::os::unix::fs::symlink(folder.join("victim"), folder.join(".status.new")).unwrap();
        replace(&folder.join("status"), b"new", 0o644).unwrap();
        assert_eq!(fs::read(folder.join("victim")).unwrap(), b"mine");
        assert_eq!(fs::read(folder.join("status")).unwrap(), b"new");
        remove(&folder).unwrap();
    }

    #[test]
    fn a_pipe_in_place_of_a_file_is_refused_and_not_waited_for() {
        let folder = folder("pipe");
        let pipe = folder.join("plan.json");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(open_regular(&pipe).is_err());
        assert!(open_followed(&pipe).is_err());
        assert!(Lock::take(&pipe).is_err());
        assert!(read_limited(&pipe, 10).is_err());
        remove(&folder).unwrap();
    }

    #[test]
    fn a_link_is_no_regular_file() {
        let folder = folder("regular");
        fs::write(folder.join("secret"), "x").unwrap();
        std::os::unix::fs::symlink("secret", folder.join("link")).unwrap();
        let refused = open_regular(&folder.join("link")).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{refused}");
        assert!(open_followed(&folder.join("link")).is_ok());
        remove(&folder).unwrap();
    }

    #[test]
    fn a_folder_left_by_another_user_is_in_nobodys_way() {
        let folder = folder("folder");
        for name in ["status", ".status.new"] {
            make_folder(&folder.join(name).join("deep"), 0o755).unwrap();
        }
        replace(&folder.join("status"), b"new", 0o644).unwrap();
        assert_eq!(fs::read(folder.join("status")).unwrap(), b"new");
        remove(&folder).unwrap();
    }

    #[test]
    fn a_lock_is_held_until_it_is_dropped() {
        let folder = folder("lock");
        let lock = Lock::take(&folder.join("lock")).unwrap();
        assert!(lock.is_some() && Lock::take(&folder.join("lock")).unwrap().is_none());
        drop(lock);
        assert!(Lock::take(&folder.join("lock")).unwrap().is_some());
        remove(&folder).unwrap();
    }
}
