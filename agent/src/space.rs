//! Whether there is enough space, asked before anything is written: a full disk must never be our doing.

use std::path::Path;

use crate::error::{Error, Exit, Result};
use crate::node::Node;
use crate::plan::Plan;
use host::file;

/// Space that is left alone on every file system.
const RESERVE: u64 = 32 * 1024 * 1024;

/// There is room for `needed` bytes and the reserve.
///
/// # Errors
/// Deferred, with the numbers.
pub fn enough(folder: &Path, needed: u64, what_for: &str) -> Result<()> {
    let (free, mib) = (file::free_space(folder)?, |bytes: u64| bytes.div_ceil(1024 * 1024));
    if needed + RESERVE <= free {
        return Ok(());
    }
    let what = format!(
        "{}: {} MiB are needed {what_for} ({} MiB stay free), but only {} MiB are free",
        folder.display(),
        mib(needed + RESERVE),
        mib(RESERVE),
        mib(free)
    );
    Err(Error::new(Exit::Deferred, what, "free some space; it is tried again by itself"))
}

/// Room for root's own copy and for what the packages unpack.
///
/// # Errors
/// As [`enough`].
pub fn for_install(node: &Node, plan: &Plan) -> Result<()> {
    enough(&node.state(), plan.bytes_needed + plan.disk_bytes, "to install")
}
