//! What an install is doing, on the disk: written before each act and after it, replaced whole, versioned.

use std::path::{Path, PathBuf};

use format::digest::Sha256;
use format::inventory::PackageChange;
use format::report::BundleRef;
use format::time::UnixTime;

use super::health::HealthCheck;
use super::state::{Event, State};
use crate::error::{Error, Exit, Result};
use crate::restore::RestorePoint;

/// Version of the file. Another one is kept aside and reported.
const VERSION: u32 = 1;

/// One install, from beginning to end.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Journal {
    version: u32,
    /// Identifies the install in log, status and report.
    pub id: String,
    /// Of what.
    pub bundle: BundleRef,
    /// When it began.
    pub started: UnixTime,
    /// Where it is.
    pub state: State,
    /// The packages that it needs.
    pub packages: Vec<Sha256>,
    /// What it changes.
    pub changes: Vec<PackageChange>,
    /// What must answer afterwards.
    pub health: HealthCheck,
    /// How to go back.
    pub restore_point: Option<RestorePoint>,
    /// Why it is going back, or what a person must know.
    pub message: Option<String>,
    #[serde(skip)]
    path: PathBuf,
}

impl Journal {
    /// Begins a journal, in the state `Staged`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn begin(
        path: &Path,
        bundle: BundleRef,
        started: UnixTime,
        packages: Vec<Sha256>,
        changes: Vec<PackageChange>,
        health: HealthCheck,
    ) -> Result<Journal> {
        let id = Sha256::of(format!("{started} {} {}", bundle.index, std::process::id()).as_bytes()).short();
        let journal = Journal {
            version: VERSION,
            id,
            bundle,
            started,
            state: State::Staged,
            packages,
            changes,
            health,
            restore_point: None,
            message: None,
            path: path.to_owned(),
        };
        journal.write()?;
        Ok(journal)
    }

    /// The journal of an install that has not ended. A damaged one is kept aside and reported.
    ///
    /// # Errors
    /// If it cannot be read at all.
    pub fn open(path: &Path) -> Result<Option<Journal>> {
        let Some(bytes) = host::file::read_limited(path, 64 * 1024 * 1024)? else {
            return Ok(None);
        };
        match Journal::parse(&bytes) {
            Ok(journal) => Ok(Some(Journal { path: path.to_owned(), ..journal })),
            Err(why) => {
                log::error!("{} cannot be read ({why}); it is kept as .broken", path.display());
                std::fs::rename(path, path.with_extension("json.broken"))
                    .map_err(|e| Error::file(path, &e))?;
                Ok(None)
            }
        }
    }

    /// Reads a journal's content.
    ///
    /// # Errors
    /// If it is none, or one of another version.
    pub fn parse(bytes: &[u8]) -> std::result::Result<Journal, String> {
        let journal: Journal = format::json::read(bytes).map_err(|e| e.to_string())?;
        if journal.version == VERSION {
            Ok(journal)
        } else {
            Err(format!("it has version {}", journal.version))
        }
    }

    /// Its content as it is written.
    ///
    /// # Errors
    /// If it has no JSON form, which none has.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|e| Error::io("journal", &e.into()))
    }

    /// Goes to the state after `event`, durably.
    ///
    /// # Errors
    /// If the event is illegal or the journal cannot be written.
    pub fn record(&mut self, event: Event) -> Result<()> {
        let next = self.state.next(event).map_err(|e| {
            Error::new(
                Exit::NeedsPerson,
                format!("{}: {e}", self.path.display()),
                "report this as a fault of prestage",
            )
        })?;
        if next != self.state {
            log::info!("transaction {}: {:?} → {:?}", self.id, self.state, next);
        }
        self.state = next;
        self.write()
    }

    /// Ends: nothing is left to recover.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub fn close(self) -> Result<()> {
        host::file::remove(&self.path)?;
        Ok(host::file::sync_folder_of(&self.path)?)
    }

    fn write(&self) -> Result<()> {
        Ok(host::file::replace(&self.path, &self.to_bytes()?, 0o600)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_is_found_again_and_damage_is_kept_aside() {
        let folder = std::env::temp_dir().join(format!("prestage-journal-{}", std::process::id()));
        host::file::make_folder(&folder, 0o700).unwrap();
        let path = folder.join("journal.json");
        let bundle = BundleRef {
            version: "1".parse().unwrap(),
            cycle: "c".parse().unwrap(),
            serial: 1,
            index: Sha256::of(b""),
        };
        let health = HealthCheck { url: None, timeout_seconds: 120 };
        let mut journal = Journal::begin(&path, bundle, UnixTime(1), vec![], vec![], health).unwrap();
        journal.record(Event::Begin).unwrap();
        assert_eq!(Journal::open(&path).unwrap(), Some(journal));
        std::fs::write(&path, b"{\"version\":1,").unwrap();
        assert_eq!(Journal::open(&path).unwrap(), None);
        assert!(path.with_extension("json.broken").exists());
        host::file::remove(&folder).unwrap();
    }
}
