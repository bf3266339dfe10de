//! The package manager, behind one trait: what the steps ask of it, in their order.

mod apt;
mod dnf;
mod kept;

use std::path::{Path, PathBuf};

use format::digest::{Hasher, Sha256};
use format::index::Member;
use format::inventory::{Inventory, PackageChange, PackageId};
use host::command::Command;
use host::isolation::{Isolation, Seen};

pub use apt::Apt;
#[cfg(fuzzing)]
pub use apt::read_everything as read_everything_of_apt;
#[cfg(fuzzing)]
pub use dnf::read_everything as read_everything_of_dnf;
pub use dnf::{DNF5_ALONE, Dnf, Flavour};
pub use kept::{Kept, WayBack};

use crate::error::Result;

/// What the package manager would do with a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolution {
    /// The package files that it needs.
    pub files: Vec<WantedFile>,
    /// What would change.
    pub changes: Vec<PackageChange>,
    /// Space that the install takes for a while, in bytes: growth, and the largest package twice.
    pub disk_bytes: u64,
    /// Packages that have an update here and stay as they are, with the reason where there is one.
    pub kept_back: Vec<String>,
}

/// A package file that a package manager would read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedFile {
    /// The digest of its content.
    pub sha256: Sha256,
    /// Where it would look for it, relative to the repository; none, if it does not say.
    pub path: Option<String>,
}

/// What an operator is told of a package manager.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    /// Its name.
    pub name: &'static str,
    /// Where to read what it did.
    pub log: &'static str,
    /// How to repair by hand what it could not.
    pub by_hand: &'static str,
}

/// A package manager of a node. `repo` is always a folder with a local package repository.
pub trait PackageManager {
    /// What an operator is told of it. Whenever it failed, and by `doctor`.
    fn words(&self) -> Words;

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

    /// Installs again from `repo` what [`PackageManager::repair`] could not finish, because not all of its files are there.
    /// Before the install, and never where there was nothing to repair.
    fn reinstall(&self, repo: &Path) -> Result<()>;

    /// Removes kernels that the distribution itself would remove: not the running one, not the newest ones. How many.
    /// Where /boot is too full for an install.
    fn remove_old_kernels(&self) -> Result<u64>;

    /// The files that a package has installed, conffiles apart; none, if it does not know of deltas. Where a delta starts
    /// from that package.
    fn installed_files(&self, id: &PackageId) -> Result<Option<Vec<PathBuf>>>;

    /// Writes into `repo` the metadata that is in `signed`, changed so that it describes the packages `plain`, which stand
    /// there in their plain form, as they are; nothing else. Before the install, where there are any.
    fn describe(&self, signed: &Path, repo: &Path, plain: &[Member]) -> Result<()>;

    /// Does what [`PackageManager::resolve`] said, without a network. Returns what it saw of the network.
    fn install(&self, repo: &Path, scratch: &Path) -> Result<Seen>;

    /// The file of one package in one version: in `kept`, under the name that it has in a bundle, or in the package
    /// manager's own cache. By its name alone; what comes of it is proved by inventory. After a commit, and on the way back.
    fn file_of(&self, kept: &Path, id: &PackageId, version: &str) -> Option<PathBuf>;

    /// Does what `back` says, and nothing else, without a network. After a failed install or health check, on a node
    /// without a restore point. `scratch` as in [`PackageManager::resolve`].
    fn put_back(&self, back: &WayBack, scratch: &Path) -> Result<()>;

    /// Whether the distribution asks for a reboot. After the install.
    fn reboot_required(&self) -> bool;
}

/// `path` of this machine as it is called inside `root`.
fn inside(root: &Path, path: &Path) -> String {
    let path = path.strip_prefix(root).unwrap_or(path);
    format!("/{}", path.display().to_string().trim_start_matches('/'))
}

/// Runs `command` with the node's root as `/`; if asked, without a network.
pub(crate) fn in_root(root: &Path, command: Command, no_network: bool) -> Command {
    let other_root = (root != Path::new("/")).then(|| root.to_owned());
    if other_root.is_some() || no_network {
        command.isolated(Isolation { no_network, root: other_root })
    } else {
        command
    }
}

/// Adds a file to a digest; one that is not there or not readable counts as empty.
fn hash_file(hasher: &mut Hasher, path: &Path) {
    let digest = std::fs::File::open(path).and_then(|mut f| Sha256::of_reader(&mut f));
    hasher.update(path.as_os_str().as_encoded_bytes());
    hasher.update(&digest.map(|(d, _)| d.0).unwrap_or_default());
}

/// Adds the files of a folder to a digest, sorted.
fn hash_folder(hasher: &mut Hasher, folder: &Path) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|e| e.path()).collect();
    files.sort();
    files.iter().for_each(|file| hash_file(hasher, file));
}
