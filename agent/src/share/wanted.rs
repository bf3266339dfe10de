//! What a fetch that is running is after: a file that the fetch step writes and holds locked, and `prestage share` reads.
//!
//! The kernel gives the lock back however the fetch ends, so that peers never wait for a node on the word of a run that
//! is over.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use format::digest::Sha256;
use host::file::{self, Lock};

use crate::error::{Error, Result};

/// What is read of a file at most: more members than any node needs.
const MAX: u64 = 256 * 1024;

/// Behind the hash of what is being fetched from a mirror now.
const COMING: &str = " coming";

/// Whether something is wanted, or already on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Needed here.
    Wanted,
    /// Being fetched from a mirror now.
    Coming,
}

/// A fetch that has said what it is after. What it said ends with the value.
pub struct Announcement {
    path: PathBuf,
    _lock: Lock,
}

impl Announcement {
    /// Takes the lock on `path`.
    ///
    /// # Errors
    /// If it cannot be made or locked.
    pub fn open(path: PathBuf) -> Result<Self> {
        let announcement = Announcement { _lock: Lock::wait(&path)?, path };
        // What an earlier run has said is not this one's.
        announcement.say(std::iter::empty())?;
        Ok(announcement)
    }

    /// Says what is wanted. Not synced: nobody needs it after a power cut.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn say(&self, wants: impl Iterator<Item = (Sha256, Want)>) -> Result<()> {
        let mut text = String::new();
        for (digest, want) in wants {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{digest}{}", if want == Want::Coming { COMING } else { "" });
        }
        // In place, for the lock is the file's; a reader passes over a line that is not whole.
        std::fs::write(&self.path, text).map_err(|e| Error::file(&self.path, &e))
    }
}

/// What the fetch that is running here has said; nothing, if none is running.
pub fn read(path: &Path) -> BTreeMap<Sha256, Want> {
    if !file::is_locked(path) {
        return BTreeMap::new();
    }
    let bytes = file::read_limited(path, MAX).ok().flatten().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let want = |line: &str| match line.strip_suffix(COMING) {
        Some(digest) => Some((digest.parse().ok()?, Want::Coming)),
        None => Some((line.parse().ok()?, Want::Wanted)),
    };
    text.lines().filter_map(want).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_fetch_is_after_is_told_while_it_runs_and_no_longer() {
        let folder = std::env::temp_dir().join(format!("prestage-wanted-{}", std::process::id()));
        file::make_folder(&folder, 0o755).unwrap();
        let path = folder.join("wanted");
        assert!(read(&path).is_empty());
        let announcement = Announcement::open(path.clone()).unwrap();
        let (a, b) = (Sha256::of(b"a"), Sha256::of(b"b"));
        announcement.say([(a, Want::Wanted), (b, Want::Coming)].into_iter()).unwrap();
        assert_eq!(read(&path), BTreeMap::from([(a, Want::Wanted), (b, Want::Coming)]));
        drop(announcement);
        assert!(path.exists() && read(&path).is_empty());
        file::remove(&folder).unwrap();
    }
}
