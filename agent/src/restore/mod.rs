//! Restore points, behind one trait: a way back to the node as it was before an install.
//!
//! Which kind a node has is found out by looking ([`find`]), and `doctor` says why it is not another one. What must not go
//! back with the node (why it went back, and which bundle not to try again) is a [`Keepsake`], left where the kind's own
//! restore does not reach.

mod boot;
mod btrfs;
mod keepsake;
mod lvm;
mod mounts;
mod timeshift;

use std::path::Path;

use crate::config::RestoreKind;
use crate::error::{Error, Exit, Result};
use crate::node::Node;

pub use boot::Boot;
pub use keepsake::Keepsake;
pub use mounts::Mounts;

/// What every restore point of ours is named with, before the transaction's id.
const PREFIX: &str = "prestage_";

/// A restore point that was made.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RestorePoint {
    /// Which kind made it.
    pub kind: String,
    /// Its name there.
    pub id: String,
}

/// A way to make and use restore points.
pub trait RestorePoints: Sync {
    /// Its name, as in `[restore] kind`.
    fn kind(&self) -> &'static str;

    /// Whether one can be made, with room for `needed` bytes that an install writes. Before anything is touched.
    fn ready(&self, needed: u64) -> Result<()>;

    /// Makes one, or finds the one that an interrupted run made under the same label. Before the install. None, if
    /// this node has no restore points.
    fn create(&self, label: &str, needed: u64) -> Result<Option<RestorePoint>>;

    /// Whether it can still be gone back to. Before a rollback by hand.
    fn is_there(&self, point: &RestorePoint) -> Result<bool>;

    /// Looks after it while the node changes: makes room where it can. While a package manager works, every few seconds.
    /// An error: it, or the volumes beside it, would not survive if it stayed.
    fn watch(&self, _point: &RestorePoint) -> Result<()> {
        Ok(())
    }

    /// Leaves `keepsake` where a restore does not reach. Before a restore. Not needed, as the next three, where the agent's
    /// own files do not go back.
    fn leave(&self, _point: &RestorePoint, _keepsake: &Keepsake) -> Result<()> {
        Ok(())
    }

    /// Whether leaving a keepsake and going back need no file of the node's: then it can go back from a root that has become
    /// read-only, too.
    fn needs_no_file(&self) -> bool {
        false
    }

    /// What was left, if anything. At the beginning of every run as root.
    fn keepsake(&self) -> Result<Option<Keepsake>> {
        Ok(None)
    }

    /// Takes the keepsake away. When everything it says stands on the node.
    fn forget(&self) -> Result<()> {
        Ok(())
    }

    /// Lets `write` change the files that the node will have after the restore, below the folder that it is given.
    /// Before a restore.
    fn carry(&self, _point: &RestorePoint, _write: &mut dyn FnMut(&Path) -> Result<()>) -> Result<()> {
        Ok(())
    }

    /// Brings the node back to it. After a failed install or health check, or where somebody wants it. Done again, it
    /// goes on with what an interruption has left, or finds that it is done.
    fn restore(&self, point: &RestorePoint) -> Result<Restored>;

    /// Whether a restore that a boot was needed for has happened. After that boot.
    fn has_returned(&self, point: &RestorePoint) -> Result<bool>;

    /// Removes all but the newest `keep`; `newest` is the one that counts as the newest. After a commit; a failure is
    /// only a warning.
    fn prune(&self, keep: usize, newest: Option<&RestorePoint>) -> Result<()>;

    /// Between installs: where a restore point has become a danger to the volumes beside it, it goes. What was done, for
    /// people.
    fn tend(&self) -> Result<Option<String>>;
}

/// How far a restore got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// The node is as it was.
    Now,
    /// It will be, after the next boot.
    OnNextBoot,
}

/// No restore points.
pub struct NoRestorePoints;

impl RestorePoints for NoRestorePoints {
    fn kind(&self) -> &'static str {
        "none"
    }

    fn ready(&self, _needed: u64) -> Result<()> {
        Ok(())
    }

    fn create(&self, _label: &str, _needed: u64) -> Result<Option<RestorePoint>> {
        Ok(None)
    }

    fn is_there(&self, _point: &RestorePoint) -> Result<bool> {
        Ok(false)
    }

    fn restore(&self, point: &RestorePoint) -> Result<Restored> {
        let what =
            format!("restore point {} {}: this node has no restore points any more", point.kind, point.id);
        Err(Error::new(Exit::NeedsPerson, what, "`prestage doctor` says which kinds there are and why not"))
    }

    fn has_returned(&self, _point: &RestorePoint) -> Result<bool> {
        Ok(false)
    }

    fn prune(&self, _keep: usize, _newest: Option<&RestorePoint>) -> Result<()> {
        Ok(())
    }

    fn tend(&self) -> Result<Option<String>> {
        Ok(None)
    }
}

/// Whether a kind applies to this node, and why or why not, in words for an operator.
pub struct Verdict {
    /// The kind's name.
    pub kind: &'static str,
    /// What was found, or what is missing for it.
    pub finding: std::result::Result<String, String>,
}

/// The restore points of a node, and why it has no others.
pub struct Found {
    /// How they are made.
    pub points: Box<dyn RestorePoints>,
    /// All kinds that were looked at, in the order of preference; the first that applies is taken.
    pub verdicts: Vec<Verdict>,
}

/// Makes restore points of one kind, or says why that is not possible here.
type Detect = fn(&Node, &Mounts) -> std::result::Result<(Box<dyn RestorePoints>, String), String>;

/// Every kind, the best first: what costs least while it is kept and what is quickest to go back to.
const KINDS: [(RestoreKind, &str, Detect); 4] = [
    (RestoreKind::LvmThin, "lvm-thin", lvm::detect_thin),
    (RestoreKind::Btrfs, "btrfs", btrfs::detect),
    (RestoreKind::Lvm, "lvm", lvm::detect_classic),
    (RestoreKind::Timeshift, "timeshift", timeshift::detect),
];

/// Finds out how this node can make restore points: the configured kind, or the best that there is.
pub fn find(node: &Node) -> Found {
    let wanted = node.settings.restore.kind;
    let mut verdicts = Vec::new();
    let mut points: Option<Box<dyn RestorePoints>> = None;
    let mounts = Mounts::read(&node.root);
    for (kind, name, detect) in KINDS {
        let finding = match wanted {
            RestoreKind::Auto => detect(node, &mounts),
            one if one == kind => detect(node, &mounts),
            _ => Err("[restore] kind says otherwise".to_owned()),
        };
        let finding = finding.map(|(found, what)| {
            points.get_or_insert(found);
            what
        });
        verdicts.push(Verdict { kind: name, finding });
    }
    Found { points: points.unwrap_or_else(|| Box::new(NoRestorePoints)), verdicts }
}

impl Found {
    /// Whether the node may be changed with the restore points that it has.
    ///
    /// # Errors
    /// Deferred, if one is wanted and none can be made, or if there is no room for it.
    pub fn check(&self, node: &Node, needed: u64) -> Result<()> {
        let wanted = &node.settings.restore;
        let must = wanted.required || !matches!(wanted.kind, RestoreKind::Auto | RestoreKind::None);
        if must && self.points.kind() == "none" {
            let why: Vec<String> = self
                .verdicts
                .iter()
                .filter_map(|v| Some(format!("{}: {}", v.kind, v.finding.as_ref().err()?)))
                .filter(|line| !line.ends_with("says otherwise"))
                .collect();
            let what = format!("no restore point can be made ({})", why.join("; "));
            return Err(Error::new(
                Exit::Deferred,
                what,
                "see [restore] in agent.toml and `prestage doctor`",
            ));
        }
        // No room is a deferral, not an install without a way back: who wants that says kind = "none".
        self.points.ready(needed)
    }
}

/// `prestage_LABEL`: the name of a restore point. Labels are hexadecimal.
fn name_of(label: &str) -> String {
    format!("{PREFIX}{label}")
}

/// A failure to make one, before anything was touched.
fn not_made(kind: &str, why: impl std::fmt::Display) -> Error {
    let what = format!("the restore point ({kind}) could not be made: {why}");
    Error::new(Exit::Deferred, what, "nothing was changed; it is tried again by itself")
}

/// A failure to go back.
fn not_restored(point: &RestorePoint, why: impl std::fmt::Display) -> Error {
    let what = format!("going back to the restore point {} ({}) failed: {why}", point.id, point.kind);
    Error::new(Exit::NeedsPerson, what, "")
}
