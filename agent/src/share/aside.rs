//! Peers that lied or stalled: not asked for some minutes, from run to run.

use std::net::SocketAddr;
use std::path::PathBuf;

use format::status::PeerAside;
use format::time::UnixTime;

use crate::error::{Error, Result};

/// For so long, in seconds: this run and the next ones, and back by itself before the next cycle.
const FOR: i64 = 15 * 60;

/// More than a site has nodes.
const MAX: usize = 100;

/// The list, in a file.
pub struct Aside {
    path: PathBuf,
    list: Vec<PeerAside>,
}

impl Aside {
    /// Reads the list at `path`, without those whose time is over. One that cannot be read is begun anew.
    pub fn open(path: PathBuf, now: UnixTime) -> Self {
        let bytes = host::file::read_limited(&path, 256 * 1024).ok().flatten();
        let list = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let mut list: Vec<PeerAside> = list.unwrap_or_default();
        // One that ends later than any can was put down by a clock that was wrong.
        list.retain(|aside| aside.until > now && aside.until <= now.plus(FOR));
        Aside { path, list }
    }

    /// The peers that are aside.
    pub fn list(&self) -> &[PeerAside] {
        &self.list
    }

    /// Whether this one is.
    pub fn holds(&self, peer: SocketAddr) -> bool {
        let name = peer.to_string();
        self.list.iter().any(|aside| aside.peer == name)
    }

    /// Puts a peer aside.
    ///
    /// # Errors
    /// If the list cannot be written.
    pub fn put(&mut self, peer: SocketAddr, why: &str, now: UnixTime) -> Result<()> {
        let name = peer.to_string();
        self.list.retain(|aside| aside.peer != name);
        self.list.push(PeerAside { peer: name, until: now.plus(FOR), why: why.to_owned() });
        self.list.truncate(MAX);
        let bytes = serde_json::to_vec_pretty(&self.list).map_err(|e| Error::io("peers", &e.into()))?;
        let folder = self.path.parent().unwrap_or(&self.path);
        Ok(host::file::replace_like(&self.path, &bytes, 0o644, folder)?)
    }
}
