//! Files that are there whole or not at all, locks, and free space.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

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
    let aside = aside(path);
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&aside)?;
        // `mode` above is subject to the umask and to what was there before.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&aside, path)
    };
    at(path, write())?;
    sync_folder_of(path)
}

/// The name under which a file is written before it is renamed: beside it, hidden, so that nothing that lists the
/// folder takes it for the file.
fn aside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
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
    let file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => at(path, other)?,
    };
    let mut bytes = Vec::new();
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
    let flags = (nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK).bits();
    let file = at(path, OpenOptions::new().read(true).custom_flags(flags).open(path))?;
    if at(path, file.metadata())?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{}: not a regular file", path.display())))
    }
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
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o644).open(path);
        match Flock::lock(at(path, file)?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Lock(lock))),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, e)) => at(path, Err(e.into())),
        }
    }
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

/// Gives `path` to the user and group that own `other`, if this process may: so that what root writes for the fetch
/// user stays the fetch user's.
///
/// # Errors
/// With the path in the text.
pub fn give_to_owner_of(path: &Path, other: &Path) -> io::Result<()> {
    let (wanted, own) = (at(other, fs::metadata(other))?, at(path, fs::symlink_metadata(path))?);
    if (wanted.uid(), wanted.gid()) != (own.uid(), own.gid()) && nix::unistd::geteuid().is_root() {
        at(path, std::os::unix::fs::lchown(path, Some(wanted.uid()), Some(wanted.gid())))?;
    }
    Ok(())
}

/// Gives `path` to the owner of the folder it is in, as [`give_to_owner_of`].
///
/// # Errors
/// With the path in the text.
pub fn give_to_folder_owner(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| give_to_owner_of(path, folder))
}
