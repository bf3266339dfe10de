//! Bundles that this node refuses, until they are right again, replaced or released.
//!
//! Two lists, each written by one step only: the fetch step's, of bundles that it could not verify, and root's own, of
//! bundles that were no longer what the fetch step had verified, or whose install failed here. A bundle on either is
//! not installed. What is decided here is only how an entry comes and goes; [`crate::run`] asks and obeys.

use std::path::PathBuf;

use format::digest::Sha256;
use format::name::BundleVersion;
use format::report::{BundleRef, Step};
use format::status::{QuarantineEnd, Quarantined};
use format::time::UnixTime;

use crate::error::{Error, Exit, Result};

/// A release: whoever refused this bundle before that time may have it again. With a time, because a release stays
/// where it is published: what is refused after it stays refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// The bundle's name.
    pub version: BundleVersion,
    /// What was refused before is released.
    pub before: UnixTime,
}

/// The list of one step, in a file.
pub struct Quarantine {
    path: PathBuf,
    step: Step,
    list: Vec<Quarantined>,
}

impl Quarantine {
    /// Reads the list. One that cannot be read is kept aside and begun anew.
    ///
    /// # Errors
    /// If it cannot be moved aside.
    pub fn open(path: PathBuf, step: Step) -> Result<Self> {
        let bytes = host::file::read_limited(&path, 1024 * 1024).unwrap_or_default();
        let list = match bytes.map(|bytes| format::json::read(&bytes)) {
            None => Vec::new(),
            Some(Ok(list)) => list,
            Some(Err(e)) => {
                log::warn!("{}: {e}; it is kept aside", path.display());
                std::fs::rename(&path, path.with_extension("json.broken"))
                    .map_err(|e| Error::file(&path, &e))?;
                Vec::new()
            }
        };
        Ok(Quarantine { path, step, list })
    }

    /// The bundles that are refused.
    pub fn list(&self) -> &[Quarantined] {
        &self.list
    }

    /// The entry of the bundle with this index.
    pub fn of(&self, index: &Sha256) -> Option<&Quarantined> {
        self.list.iter().find(|q| q.bundle.index == *index)
    }

    /// Refuses `bundle` from now on, until what [`Quarantined::ends`] says. A bundle that is refused already because it
    /// could not be verified stays so, for the reason that it was given first.
    ///
    /// # Errors
    /// If the list cannot be written.
    pub fn put(
        &mut self,
        bundle: &BundleRef,
        error: &Error,
        now: UnixTime,
        ends: QuarantineEnd,
    ) -> Result<()> {
        let before = self.of(&bundle.index);
        if before.is_some() && is_unverified(error.exit as u8) {
            return Ok(());
        }
        let since = before.map_or(now, |q| q.since);
        self.list.retain(|q| q.bundle.index != bundle.index);
        self.list.push(Quarantined {
            bundle: bundle.clone(),
            step: self.step,
            since,
            exit_code: error.exit as u8,
            reason: error.to_string(),
            ends,
            way_out: way_out(ends).to_owned(),
        });
        self.write()
    }

    /// Releases what the centre, or root by hand, says. Returns what was released.
    ///
    /// # Errors
    /// If the list cannot be written.
    pub fn release(&mut self, releases: &[Release]) -> Result<Vec<Quarantined>> {
        let is_released =
            |q: &Quarantined| releases.iter().any(|r| r.version == q.bundle.version && q.since < r.before);
        let released: Vec<Quarantined> = self.list.iter().filter(|q| is_released(q)).cloned().collect();
        for q in &released {
            log::warn!("bundle {}, refused since {}, is released: {}", q.bundle.version, q.since, q.reason);
        }
        self.retain(|q| !is_released(q))?;
        Ok(released)
    }

    /// Keeps only what `is_refused` says.
    ///
    /// # Errors
    /// If the list cannot be written.
    pub fn retain(&mut self, is_refused: impl Fn(&Quarantined) -> bool) -> Result<()> {
        let before = self.list.len();
        self.list.retain(is_refused);
        if self.list.len() == before { Ok(()) } else { self.write() }
    }

    fn write(&self) -> Result<()> {
        let bytes = format::json::pretty(&self.list).map_err(|e| Error::io("quarantine", &e.into()))?;
        let folder = self.path.parent().unwrap_or(&self.path);
        Ok(host::file::replace_like(&self.path, &bytes, 0o644, folder)?)
    }
}

/// Whether an exit code says that a bundle could not be verified, and not that its install failed.
pub fn is_unverified(exit_code: u8) -> bool {
    [Exit::Integrity as u8, Exit::Trust as u8].contains(&exit_code)
}

/// How a refusal ends, for whoever reads the status.
fn way_out(ends: QuarantineEnd) -> &'static str {
    match ends {
        QuarantineEnd::Verified => {
            "it ends by itself as soon as a fetch verifies all that this node needs, or another bundle is published"
        }
        QuarantineEnd::ByHand => {
            "it ends when another bundle is published, when a policy releases it, or with `prestage install --now`"
        }
        QuarantineEnd::Released => {
            "find out why; it ends when another bundle is published, when a policy releases it, or with `prestage release` here"
        }
    }
}

/// The refusal as an error, with the exit code that the bundle was refused with.
pub fn refusal(q: &Quarantined) -> Error {
    let exit = match q.exit_code {
        code if code == Exit::Integrity as u8 => Exit::Integrity,
        code if code == Exit::Trust as u8 => Exit::Trust,
        _ => Exit::Deferred,
    };
    let what = format!("bundle {} is refused on this node since {}: {}", q.bundle.version, q.since, q.reason);
    Error::new(exit, what, "`prestage status` says how it ends")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(name: &str) -> (PathBuf, Quarantine) {
        let folder = std::env::temp_dir().join(format!("prestage-quarantine-{name}-{}", std::process::id()));
        host::file::make_folder(&folder, 0o700).unwrap();
        let list = Quarantine::open(folder.join("quarantine.json"), Step::Fetch).unwrap();
        (folder, list)
    }

    fn bundle(version: &str) -> BundleRef {
        BundleRef {
            version: version.parse().unwrap(),
            cycle: "c".parse().unwrap(),
            serial: 1,
            index: Sha256::of(version.as_bytes()),
        }
    }

    #[test]
    fn a_release_counts_for_what_was_refused_before_it_and_not_after() {
        let (folder, mut list) = list("release");
        let damaged = Error::new(Exit::Integrity, "damaged", "");
        list.put(&bundle("1"), &damaged, UnixTime(10), QuarantineEnd::Released).unwrap();
        list.put(&bundle("2"), &damaged, UnixTime(10), QuarantineEnd::Released).unwrap();
        let release = |before| [Release { version: "1".parse().unwrap(), before: UnixTime(before) }];
        assert_eq!(list.release(&release(10)).unwrap().len(), 0);
        assert_eq!(list.release(&release(11)).unwrap().len(), 1);
        assert!(list.of(&bundle("1").index).is_none() && list.of(&bundle("2").index).is_some());
        // Refused again afterwards: the release that is still published does not count for it.
        list.put(&bundle("1"), &damaged, UnixTime(12), QuarantineEnd::Released).unwrap();
        assert_eq!(list.release(&release(11)).unwrap().len(), 0);
        // And all of it is on the disk.
        let again = Quarantine::open(folder.join("quarantine.json"), Step::Fetch).unwrap();
        assert_eq!(again.list(), list.list());
        host::file::remove(&folder).unwrap();
    }

    #[test]
    fn the_first_reason_stays_while_a_bundle_is_refused_again_and_again() {
        let (folder, mut list) = list("reason");
        let put = |list: &mut Quarantine, what: &str, exit, now| {
            list.put(&bundle("1"), &Error::new(exit, what, ""), UnixTime(now), QuarantineEnd::Released)
                .unwrap();
            list.of(&bundle("1").index).unwrap().clone()
        };
        put(&mut list, "damaged", Exit::Integrity, 1);
        let q = put(&mut list, "bundle 1 is refused", Exit::Integrity, 2);
        assert_eq!((q.reason.as_str(), q.since), ("damaged", UnixTime(1)));
        assert_eq!(refusal(&q).exit, Exit::Integrity);
        // An install that was tried by hand and failed says what is wrong now.
        let q = put(&mut list, "dpkg failed", Exit::InstallFailed, 3);
        assert_eq!((q.reason.as_str(), refusal(&q).exit), ("dpkg failed", Exit::Deferred));
        host::file::remove(&folder).unwrap();
    }
}
