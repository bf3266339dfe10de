//! Whether there is enough space, asked before anything is written: a full disk must never be our doing.

use std::path::Path;

use crate::error::{Error, Exit, Result};
use crate::node::Node;
use crate::plan::Plan;
use crate::store::Store;
use format::index::Index;
use host::file;

/// Space that is left alone on every file system.
const RESERVE: u64 = 32 * 1024 * 1024;

/// There is room for `needed` bytes and the reserve.
///
/// # Errors
/// Deferred, with the numbers.
pub fn enough(folder: &Path, needed: u64, what_for: &str) -> Result<()> {
    let (free, mib) = (file::free_space(folder)?, |bytes: u64| bytes.div_ceil(1024 * 1024));
    let needed = needed.saturating_add(RESERVE);
    if needed <= free {
        return Ok(());
    }
    let what = format!(
        "{}: {} MiB are needed {what_for} ({} MiB stay free), but only {} MiB are free",
        folder.display(),
        mib(needed),
        mib(RESERVE),
        mib(free)
    );
    Err(Error::new(Exit::Deferred, what, "free some space; it is tried again by itself"))
}

/// Room for what `plan` still needs, and for the install of it: there is no sense in fetching what cannot be installed.
/// Where room or the quota is short, what is of no use any more goes first.
///
/// # Errors
/// Deferred, with the numbers.
pub fn make_room(node: &Node, store: &Store, index: &Index, plan: &Plan) -> Result<()> {
    let needed = plan.members(index);
    let missing: u64 = needed.iter().filter(|m| !store.has(&m.sha256, m.size)).map(|m| m.size).sum();
    if missing == 0 {
        return Ok(());
    }
    let check = || {
        within_quota(node, missing)?;
        enough(&node.state(), missing + plan.bytes_needed + plan.disk_bytes, "to fetch and install")
    };
    if check().is_ok() {
        return Ok(());
    }
    let keep =
        index.metadata().map(|m| m.sha256).chain([plan.bundle.index]).chain(needed.iter().map(|m| m.sha256));
    let freed = store.evict(&keep.collect())?;
    if freed > 0 {
        log::info!("{freed} bytes of earlier bundles were removed to make room");
    }
    check()
}

/// With `more` bytes the fetch step's folder stays within `[fetch] disk-quota`.
fn within_quota(node: &Node, more: u64) -> Result<()> {
    let Some(quota) = node.settings.fetch.disk_quota else { return Ok(()) };
    let folder = node.fetched("");
    let used = file::used_space(&folder)?;
    if used.saturating_add(more) <= quota {
        return Ok(());
    }
    let what = format!(
        "{}: {used} bytes are used and {more} more are needed, but [fetch] disk-quota is {quota}",
        folder.display()
    );
    Err(Error::new(Exit::Deferred, what, "raise the quota; it is tried again by itself"))
}

/// Room for root's own copy and for what the packages unpack.
///
/// # Errors
/// As [`enough`].
pub fn for_install(node: &Node, plan: &Plan) -> Result<()> {
    enough(&node.state(), plan.bytes_needed + plan.disk_bytes, "to install")
}
