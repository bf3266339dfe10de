//! Restore points, behind one trait. In this version there is one kind: none, which means that an install which fails
//! half-way is repaired by the package manager's own means, and that the outcome says so when that is not enough.

use crate::error::Result;

/// A restore point that was made.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RestorePoint {
    /// Which kind made it.
    pub kind: String,
    /// Its name there.
    pub id: String,
}

/// A way to make and use restore points.
pub trait RestorePoints {
    /// Makes one, or finds the one that an interrupted run made under the same label. Before the install. None, if
    /// this node has no restore points.
    fn create(&self, label: &str) -> Result<Option<RestorePoint>>;

    /// Brings the node back to it. After a failed install or health check.
    fn restore(&self, point: &RestorePoint) -> Result<Restored>;

    /// Removes those that are not needed any more. After a commit; a failure is only a warning.
    fn prune(&self) -> Result<()>;
}

/// How far a restore got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// The node is as it was.
    Now,
    /// It will be, after the next boot.
    #[expect(dead_code, reason = "the kinds that need a boot join with the install-safety work")]
    OnNextBoot,
}

/// No restore points.
pub struct NoRestorePoints;

impl RestorePoints for NoRestorePoints {
    fn create(&self, _label: &str) -> Result<Option<RestorePoint>> {
        Ok(None)
    }

    fn restore(&self, _point: &RestorePoint) -> Result<Restored> {
        Ok(Restored::Now)
    }

    fn prune(&self) -> Result<()> {
        Ok(())
    }
}
