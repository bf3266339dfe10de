//! The key that this node signs its reports with, and the token that it enrols with: root's files, which the report step's
//! group may read, and nobody else.
//!
//! Made once, by `prestage enroll` or the first `prestage report` that root runs. Who has the key can speak for this node
//! to the fleet server, and do nothing else.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use format::envelope::Token;
use format::node_key::{KEY_FILE, NodeKey};
use host::file;
use nix::unistd::{Group, geteuid};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::error::{Error, Exit, Result};
use crate::node::Node;

/// The private half, relative to the root.
pub const FILE: &str = "etc/prestage/node.key";

/// Whose group may read what is kept here.
const GROUP: &str = "prestage";

/// The node's key. Where there is none, root makes it; and where others than the report step could read it, or the report
/// step could not, root mends that.
///
/// # Errors
/// With exit code 78, if there is none and this is not root, or what is there is no key.
pub fn of(node: &Node) -> Result<NodeKey> {
    let path = node.root.join(FILE);
    let Some(text) = file::read_limited(&path, KEY_FILE as u64)? else {
        if !geteuid().is_root() {
            let what = format!("this node has no key yet ({})", path.display());
            return Err(Error::new(Exit::Config, what, "root makes it: `prestage enroll --key-only`"));
        }
        let key = NodeKey::from_seed(random()?);
        keep(node, &path, key.to_text().as_bytes())?;
        return Ok(key);
    };
    let key = NodeKey::parse(&text).ok_or_else(|| {
        let what = format!("{} is not a node's key", path.display());
        Error::new(Exit::Config, what, "put back the right file; or remove it, and have the old key revoked")
    })?;
    if geteuid().is_root() {
        let meta = std::fs::metadata(&path).map_err(|e| Error::file(&path, &e))?;
        if (meta.uid(), meta.gid(), meta.mode() & 0o7777) != (0, group(node), 0o640) {
            keep(node, &path, &text)?;
        }
    }
    Ok(key)
}

/// Keeps a secret so that the report step can read it.
///
/// # Errors
/// If it cannot be written.
pub fn keep(node: &Node, path: &Path, secret: &[u8]) -> Result<()> {
    file::make_folder(path.parent().unwrap_or(path), 0o755)?;
    Ok(file::replace_for_group(path, secret, group(node))?)
}

/// What an operator gave to enrol with; none, if there is nothing.
///
/// # Errors
/// With exit code 78, if it cannot be read or is no token.
pub fn token(path: &Path) -> Result<Option<Token>> {
    /// The longest token, and the end of its line.
    const MAX_TOKEN: u64 = 258;
    let wrong = |why: &dyn std::fmt::Display| Error::config(format!("{}: {why}", path.display()));
    let Some(text) = file::read_limited(path, MAX_TOKEN).map_err(Error::config)? else { return Ok(None) };
    let text = std::str::from_utf8(&text).map_err(|e| wrong(&e))?;
    text.trim().parse().map(Some).map_err(|e: &str| wrong(&e))
}

/// A path that the configuration names, below the node's root.
pub fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// The group of whoever runs the report step: that of his folder; or, before there is one, by its name on this machine.
fn group(node: &Node) -> u32 {
    let folder =
        std::fs::symlink_metadata(node.fetched("")).map(|meta| meta.gid()).ok().filter(|gid| *gid != 0);
    let named = || {
        let group = (node.root == Path::new("/")).then(|| Group::from_name(GROUP).ok().flatten());
        group.flatten().map(|group| group.gid.as_raw())
    };
    folder.or_else(named).unwrap_or(0)
}

/// 32 bytes from the kernel (getrandom(2)), which also gives them where there is no /dev.
fn random() -> Result<[u8; 32]> {
    let mut seed = [0; 32];
    let failed = |_| Error::new(Exit::Io, "the kernel gives no random bytes", "look at its log");
    SystemRandom::new().fill(&mut seed).map_err(failed)?;
    Ok(seed)
}
