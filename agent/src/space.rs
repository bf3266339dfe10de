//! Whether there is enough space, asked before anything is written: a full disk must never be our doing.

use std::path::Path;

use crate::error::{Error, Exit, Result};
use crate::node::Node;
use crate::plan::Plan;
use crate::store::Store;
use format::digest::Sha256;
use format::index::{Index, Member};
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
    let missing: u64 = needed.iter().filter(|m| !store.has_form(m)).map(|m| m.size).sum();
    if missing == 0 {
        return Ok(());
    }
    let check = || {
        within_quota(node, missing)?;
        enough(&node.state(), missing + copied(store, &needed) + plan.disk_bytes, "to fetch and install")
    };
    if check().is_ok() {
        return Ok(());
    }
    let keep = index
        .metadata()
        .map(|m| m.sha256)
        .chain([plan.bundle.index])
        .chain(needed.iter().flat_map(|member| digests(member)));
    let freed = store.evict(&keep.collect())?;
    if freed > 0 {
        log::info!("{freed} bytes of earlier bundles were removed to make room");
    }
    check()
}

/// The digests under which a package, or a patch to it, may be here.
pub fn digests(member: &Member) -> impl Iterator<Item = Sha256> {
    let plain = member.plain.map(|plain| plain.sha256);
    [member.sha256].into_iter().chain(plain).chain(member.deltas().map(|delta| delta.sha256))
}

/// Bytes of root's copy of these packages, in the form in which they are here.
fn copied(store: &Store, members: &[&Member]) -> u64 {
    members.iter().map(|member| store.form_of(member).size).sum()
}

/// Room that is left beside what a plan needs if all of it comes whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// On the disk.
    disk: u64,
    /// In the fetch step's quota.
    quota: u64,
}

impl Room {
    /// Takes the room that a package needs as a delta and does not need whole: the patch, and what it makes, which is not
    /// compressed and is copied once more by root. Whether it was there.
    pub fn take(&mut self, whole: u64, patch: u64, plain: u64) -> bool {
        let (disk, quota) = more(whole, patch, plain);
        match (self.disk.checked_sub(disk), self.quota.checked_sub(quota)) {
            (Some(disk), Some(quota)) => {
                *self = Room { disk, quota };
                true
            }
            _ => false,
        }
    }

    /// What was taken is not needed.
    pub fn give_back(&mut self, whole: u64, patch: u64, plain: u64) {
        let (disk, quota) = more(whole, patch, plain);
        *self = Room { disk: self.disk.saturating_add(disk), quota: self.quota.saturating_add(quota) };
    }
}

/// How much more a delta takes than the whole package, on the disk and in the quota.
fn more(whole: u64, patch: u64, plain: u64) -> (u64, u64) {
    let in_store = patch.saturating_add(plain).saturating_sub(whole);
    (in_store.saturating_add(plain.saturating_sub(whole)), in_store)
}

/// The room beside what `plan` still needs whole.
///
/// # Errors
/// If the file system cannot say.
pub fn beside(node: &Node, store: &Store, plan: &Plan, needed: &[&Member]) -> Result<Room> {
    let missing: u64 = needed.iter().filter(|m| !store.has_form(m)).map(|m| m.size).sum();
    let whole = missing + copied(store, needed) + plan.disk_bytes + RESERVE;
    let disk = file::free_space(&node.state())?.saturating_sub(whole);
    let quota = match node.settings.fetch.disk_quota {
        None => u64::MAX,
        Some(quota) => quota.saturating_sub(file::used_space(&node.fetched(""))?).saturating_sub(missing),
    };
    Ok(Room { disk, quota })
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
pub fn for_install(node: &Node, store: &Store, index: &Index, plan: &Plan) -> Result<()> {
    enough(&node.state(), copied(store, &plan.members(index)) + plan.disk_bytes, "to install")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delta_takes_the_room_that_it_needs_beside_the_whole_package_and_gives_it_back() {
        let mut room = Room { disk: 1000, quota: 500 };
        // 300 whole, 20 of a patch, 700 that are not compressed: 420 more in the store, 400 more in root's copy.
        assert!(room.take(300, 20, 700));
        assert_eq!(room, Room { disk: 180, quota: 80 });
        assert!(!room.take(300, 20, 700));
        room.give_back(300, 20, 700);
        assert_eq!(room, Room { disk: 1000, quota: 500 });
        assert!(!room.take(1, u64::MAX, u64::MAX));
        assert!(room.take(300, 20, 250));
        assert_eq!(room, Room { disk: 1000, quota: 500 });
    }
}
