//! What this node needs of a bundle, and why: the package manager's own resolution, mapped to members.
//!
//! Kept beside the staged repository, so that an idle poll does not resolve again: the plan holds as long as the index
//! and the node's own package state are the same.

use std::collections::BTreeMap;
use std::path::Path;

use format::digest::Sha256;
use format::index::{Index, Member};
use format::inventory::PackageChange;
use format::report::BundleRef;
use format::status::{DeltaStatus, PlanStatus};

use crate::decide::Offer;
use crate::error::{Error, Exit, Result};
use crate::node::Node;
use crate::packages::Resolution;
use crate::stage;
use crate::store::Store;

/// Version of the plan file; another one is made anew.
const VERSION: u32 = 2;

/// A plan.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Plan {
    version: u32,
    /// Of which bundle.
    pub bundle: BundleRef,
    /// The package manager's fingerprint that it was made for.
    pub fingerprint: Sha256,
    /// Whether every package of the bundle is wanted, needed here or not.
    pub everything: bool,
    /// The packages needed, by digest, sorted.
    pub packages: Vec<Sha256>,
    /// Their sizes, together.
    pub bytes_needed: u64,
    /// The size of the bundle file.
    pub bundle_bytes: u64,
    /// Space that the install takes for a while.
    pub disk_bytes: u64,
    /// What will change.
    pub changes: Vec<PackageChange>,
    /// What stays although there is an update.
    pub kept_back: Vec<String>,
    /// What an earlier run of the package manager has left half done, as it words it.
    pub half_done: Vec<String>,
}

/// The kept plan, if it was made for this bundle and nothing on the node has changed that it depends on.
///
/// # Errors
/// If there is no package manager that this program knows.
pub fn still_valid(node: &Node, offer: &Offer) -> Result<Option<Plan>> {
    let Some(plan) = Plan::load(&node.fetched("plan.json")) else { return Ok(None) };
    let fingerprint = node.package_manager()?.fingerprint()?;
    Ok(Some(plan).filter(|plan| (plan.bundle.index, plan.fingerprint) == (offer.bundle.index, fingerprint)))
}

/// The plan, kept or made anew.
///
/// # Errors
/// Deferred, if the package manager cannot plan; those of [`Plan::new`].
pub fn make(node: &Node, store: &Store, offer: &Offer, index: &Index, everything: bool) -> Result<Plan> {
    if let Some(plan) = still_valid(node, offer)?.filter(|plan| plan.everything || !everything) {
        return Ok(plan);
    }
    let packages = node.package_manager()?;
    let fingerprint = packages.fingerprint()?;
    let repo = node.fetched("planning");
    stage::link(store, &index.metadata().collect::<Vec<_>>(), &repo)?;
    let resolution = packages.resolve(&repo, &node.fetched("packages"))?;
    let mut plan = Plan::new(&offer.bundle, index, fingerprint, resolution, everything)?;
    plan.half_done = packages.audit()?;
    plan.save(&node.fetched("plan.json"))?;
    log::info!(
        "bundle {}: {} of {} packages are needed here",
        offer.bundle.version,
        plan.packages.len(),
        index.packages().count()
    );
    Ok(plan)
}

/// The plan as status.json shows it.
pub fn status(
    store: &Store,
    plan: &Plan,
    index: &Index,
    complete: bool,
    deltas: &Option<DeltaStatus>,
) -> PlanStatus {
    let present = plan.members(index).iter().filter(|m| store.has_form(m)).map(|m| m.size).sum();
    PlanStatus {
        bundle: plan.bundle.clone(),
        packages: plan.changes.len() as u64,
        bytes_needed: plan.bytes_needed,
        bytes_present: present,
        bundle_bytes: plan.bundle_bytes,
        kept_back: plan.kept_back.clone(),
        complete,
        deltas: deltas.clone(),
    }
}

impl Plan {
    /// Maps a resolution to the members of the index.
    ///
    /// # Errors
    /// If the package manager wants a file that the bundle does not have.
    pub fn new(
        bundle: &BundleRef,
        index: &Index,
        fingerprint: Sha256,
        resolution: Resolution,
        everything: bool,
    ) -> Result<Plan> {
        let by_digest: BTreeMap<Sha256, &Member> = index.packages().map(|m| (m.sha256, m)).collect();
        // Whoever made Packages may have named another file than the index does, which would then be looked for in vain
        // when it is too late, or found where nobody verified it.
        for file in &resolution.files {
            let Some(path) = &file.path else { continue };
            let is_member = |m: &Member| m.sha256 == file.sha256 && m.path.as_str() == path;
            // Mostly the first look finds it; only content that stands there twice takes another.
            let found = by_digest.get(&file.sha256);
            if found.is_some_and(|m| !is_member(m)) && !index.packages().any(is_member) {
                let what = format!(
                    "the bundle's Packages has the package with sha256 {} at {path}, its index has it elsewhere",
                    file.sha256
                );
                return Err(Error::new(Exit::Integrity, what, "build and publish the bundle again"));
            }
        }
        let mut packages: Vec<Sha256> = resolution.files.into_iter().map(|file| file.sha256).collect();
        if everything {
            packages.extend(by_digest.keys());
        }
        packages.sort();
        packages.dedup();
        let mut bytes_needed = 0;
        for digest in &packages {
            let member = by_digest.get(digest).ok_or_else(|| {
                Error::new(Exit::Integrity, format!("the bundle's Packages file names a package with sha256 {digest} that its index does not list"), "build and publish the bundle again")
            })?;
            bytes_needed += member.size;
        }
        Ok(Plan {
            version: VERSION,
            bundle: bundle.clone(),
            fingerprint,
            everything,
            packages,
            bytes_needed,
            bundle_bytes: index.bundle.length,
            disk_bytes: resolution.disk_bytes,
            changes: resolution.changes,
            kept_back: resolution.kept_back,
            half_done: Vec::new(),
        })
    }

    /// The members that it needs, in the order of the file.
    pub fn members<'i>(&self, index: &'i Index) -> Vec<&'i Member> {
        index.packages().filter(|m| self.packages.binary_search(&m.sha256).is_ok()).collect()
    }

    /// Whether there is nothing to stage.
    pub fn is_empty(&self) -> bool {
        self.packages.is_empty() && self.changes.is_empty()
    }

    /// Whether there is nothing to do at all: nothing to stage, and nothing half done.
    pub fn is_done(&self) -> bool {
        self.is_empty() && self.half_done.is_empty()
    }

    /// Reads a kept plan; one that is missing or cannot be read is made anew, so it is none.
    pub fn load(path: &Path) -> Option<Plan> {
        Plan::parse(&host::file::read_limited(path, 64 * 1024 * 1024).ok()??)
    }

    /// Reads a plan's content.
    pub fn parse(bytes: &[u8]) -> Option<Plan> {
        format::json::read(bytes).ok().filter(|plan: &Plan| plan.version == VERSION)
    }

    /// Keeps it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let bytes = serde_json::to_vec(self).map_err(|e| Error::io("plan", &e.into()))?;
        Ok(host::file::replace(path, &bytes, 0o644)?)
    }
}
