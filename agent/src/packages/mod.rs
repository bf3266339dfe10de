//! The package manager, behind one trait: what the steps ask of it, in their order.

mod apt;

use std::path::Path;

use format::digest::Sha256;
use format::inventory::{Inventory, PackageChange};
use host::isolation::Seen;

pub use apt::Apt;
#[cfg(fuzzing)]
pub use apt::read_everything;

use crate::error::Result;

/// What the package manager would do with a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolution {
    /// The package files that it needs, by the digest of their content.
    pub files: Vec<Sha256>,
    /// What would change.
    pub changes: Vec<PackageChange>,
    /// Space that the install takes for a while, in bytes: growth, and the largest package twice.
    pub disk_bytes: u64,
    /// Packages that have an update here and stay as they are, with the reason where there is one.
    pub kept_back: Vec<String>,
}

/// A package manager of a node. `repo` is always a folder with a local package repository.
pub trait PackageManager {
    /// The packages that are installed. Before planning, before and after the install.
    fn inventory(&self) -> Result<Inventory>;

    /// A digest of everything local that a plan depends on: as long as it is the same, so is the plan. At each fetch.
    fn fingerprint(&self) -> Result<Sha256>;

    /// What it would do with `repo`, from the repository's metadata alone. `scratch` is a folder for its own files. At
    /// each fetch that has something new, and again before the install.
    fn resolve(&self, repo: &Path, scratch: &Path) -> Result<Resolution>;

    /// Packages that are not completely installed, as the package manager words it; empty if all is well. Before and
    /// after the install.
    fn audit(&self) -> Result<Vec<String>>;

    /// Finishes what an interruption left half done, as far as it can. Before the install, and after one that failed.
    fn repair(&self) -> Result<()>;

    /// Does what [`PackageManager::resolve`] said, without a network. Returns what it saw of the network.
    fn install(&self, repo: &Path, scratch: &Path) -> Result<Seen>;

    /// Whether the distribution asks for a reboot. After the install.
    fn reboot_required(&self) -> bool;
}
