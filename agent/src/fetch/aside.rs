//! Mirrors that have served wrong bytes: put aside for a while, from run to run.
//!
//! "Aside" is behind all others, not away: a node whose every mirror is aside goes on asking them, because the hashes
//! decide anyway and a repaired copy should be found soon.

use std::cell::RefCell;
use std::path::PathBuf;

use format::status::MirrorAside;
use format::time::UnixTime;

use crate::error::{Error, Result};

/// For so long, in seconds: long enough for a person to repair a copy, short enough to come back by itself.
const FOR: i64 = 6 * 3600;

/// More than a node has mirrors.
const MAX: usize = 100;

/// The list, in a file.
pub struct Aside {
    path: PathBuf,
    list: RefCell<Vec<MirrorAside>>,
}

impl Aside {
    /// Reads the list at `path`, without those whose time is over. One that cannot be read is begun anew.
    pub fn open(path: PathBuf, now: UnixTime) -> Self {
        let bytes = host::file::read_limited(&path, 256 * 1024).ok().flatten();
        let list = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let mut list: Vec<MirrorAside> = list.unwrap_or_default();
        // One that ends later than any can was put down by a clock that was wrong.
        list.retain(|aside| aside.until > now && aside.until.since(now) <= FOR);
        Aside { path, list: RefCell::new(list) }
    }

    /// The mirrors that are aside.
    pub fn list(&self) -> Vec<MirrorAside> {
        self.list.borrow().clone()
    }

    /// Whether this one is.
    pub fn holds(&self, mirror: &str) -> bool {
        self.list.borrow().iter().any(|aside| aside.mirror == mirror)
    }

    /// Puts a mirror aside.
    ///
    /// # Errors
    /// If the list cannot be written.
    pub fn put(&self, mirror: &str, why: &str, now: UnixTime) -> Result<()> {
        let mut list = self.list.borrow_mut();
        list.retain(|aside| aside.mirror != mirror);
        list.push(MirrorAside { mirror: mirror.to_owned(), until: now.plus(FOR), why: why.to_owned() });
        list.truncate(MAX);
        let bytes = serde_json::to_vec_pretty(&*list).map_err(|e| Error::io("mirrors", &e.into()))?;
        let folder = self.path.parent().unwrap_or(&self.path);
        Ok(host::file::replace_like(&self.path, &bytes, 0o644, folder)?)
    }
}
