//! Who served wrong bytes, or stalled, is put aside for a while, from run to run: mirrors, and nodes of the site.
//!
//! What "aside" means is for whoever asks: a mirror comes behind the others, a node of the site is not asked. The hashes
//! decide anyway; this saves time, and says who is to be repaired.

use std::cell::RefCell;
use std::path::PathBuf;

use format::status::Aside as Entry;
use format::time::UnixTime;

use crate::error::{Error, Result};

/// More than a node has mirrors, or a site has nodes.
const MAX: usize = 100;

/// The list, in a file.
pub struct Aside {
    path: PathBuf,
    seconds: i64,
    list: RefCell<Vec<Entry>>,
}

impl Aside {
    /// Reads the list at `path`, whose entries last for `seconds`, without those whose time is over. One that cannot be
    /// read is begun anew.
    pub fn open(path: PathBuf, seconds: i64, now: UnixTime) -> Self {
        let bytes = host::file::read_limited(&path, 256 * 1024).ok().flatten();
        let list = bytes.and_then(|bytes| format::json::read(&bytes).ok());
        let mut list: Vec<Entry> = list.unwrap_or_default();
        // One that ends later than any can was put down by a clock that was wrong.
        list.retain(|aside| aside.until > now && aside.until.since(now) <= seconds);
        Aside { path, seconds, list: RefCell::new(list) }
    }

    /// Who is aside.
    pub fn list(&self) -> Vec<Entry> {
        self.list.borrow().clone()
    }

    /// Whether this one is.
    pub fn holds(&self, name: &str) -> bool {
        self.list.borrow().iter().any(|aside| aside.name == name)
    }

    /// Puts somebody aside.
    ///
    /// # Errors
    /// If the list cannot be written.
    pub fn put(&self, name: &str, why: &str, now: UnixTime) -> Result<()> {
        let mut list = self.list.borrow_mut();
        list.retain(|aside| aside.name != name);
        list.push(Entry { name: name.to_owned(), until: now.plus(self.seconds), why: why.to_owned() });
        list.truncate(MAX);
        let bytes = format::json::pretty(&*list).map_err(|e| Error::io("aside", &e.into()))?;
        let folder = self.path.parent().unwrap_or(&self.path);
        Ok(host::file::replace_like(&self.path, &bytes, 0o644, folder)?)
    }
}
