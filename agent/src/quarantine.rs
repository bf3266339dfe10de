//! Bundles that this node refuses, until they are right again or replaced.
//!
//! The fetch step's list: a bundle whose bytes could not be verified (exit code 2 or 3). It leaves by itself when a
//! later fetch verifies all of it, or when the centre publishes another bundle: what was wrong was a copy, not the
//! bundle. The install step's list, which only root writes: a bundle whose install failed here (4 to 6). It leaves
//! when another bundle is published or somebody installs it by hand. Neither is installed meanwhile.

use std::path::PathBuf;

use format::digest::Sha256;
use format::report::BundleRef;
use format::status::Quarantined;
use format::time::UnixTime;

use crate::error::{Error, Result};

/// How a quarantine by the fetch step ends.
pub const UNTIL_VERIFIED: &str =
    "it ends by itself as soon as a fetch verifies all that this node needs, or another bundle is published";

/// How a refusal by the install step ends.
pub const UNTIL_REPLACED: &str = "it ends when another bundle is published, or with `prestage install --now`";

/// The list, in a file.
pub struct Quarantine {
    path: PathBuf,
    list: Vec<Quarantined>,
}

impl Quarantine {
    /// Reads the list. One that cannot be read is kept aside and begun anew.
    ///
    /// # Errors
    /// If it cannot be moved aside.
    pub fn open(path: PathBuf) -> Result<Self> {
        let bytes = host::file::read_limited(&path, 1024 * 1024).unwrap_or_default();
        let list = match bytes.map(|bytes| serde_json::from_slice(&bytes)) {
            None => Vec::new(),
            Some(Ok(list)) => list,
            Some(Err(e)) => {
                log::warn!("{}: {e}; it is kept aside", path.display());
                std::fs::rename(&path, path.with_extension("json.broken"))
                    .map_err(|e| Error::file(&path, &e))?;
                Vec::new()
            }
        };
        Ok(Quarantine { path, list })
    }

    /// The bundles that are refused.
    pub fn list(&self) -> &[Quarantined] {
        &self.list
    }

    /// The entry of the bundle with this index.
    pub fn of(&self, index: &Sha256) -> Option<&Quarantined> {
        self.list.iter().find(|q| q.bundle.index == *index)
    }

    /// Refuses `bundle` from now on.
    ///
    /// # Errors
    /// If the list cannot be written.
    pub fn put(&mut self, bundle: &BundleRef, error: &Error, now: UnixTime, way_out: &str) -> Result<()> {
        let since = self.of(&bundle.index).map_or(now, |q| q.since);
        self.list.retain(|q| q.bundle.index != bundle.index);
        self.list.push(Quarantined {
            bundle: bundle.clone(),
            since,
            exit_code: error.exit as u8,
            reason: error.to_string(),
            way_out: way_out.to_owned(),
        });
        self.write()
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
        let bytes = serde_json::to_vec_pretty(&self.list).map_err(|e| Error::io("quarantine", &e.into()))?;
        let folder = self.path.parent().unwrap_or(&self.path);
        Ok(host::file::replace_like(&self.path, &bytes, 0o644, folder)?)
    }
}
