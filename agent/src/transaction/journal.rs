//! What an install is doing, on the disk: written before each act and after it, replaced whole, versioned.

use std::path::{Path, PathBuf};

use format::digest::Sha256;
use format::inventory::PackageChange;
use format::policy::Reboot;
use format::report::BundleRef;
use format::time::UnixTime;

use super::health::HealthCheck;
use super::state::{Cause, End, Event, State};
use crate::error::{Error, Exit, Result};
use crate::restore::{Keepsake, RestorePoint};

/// Version of the file. Another one is kept aside and reported.
const VERSION: u32 = 1;

/// One install, from beginning to end.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Journal {
    version: u32,
    /// Identifies the install in log, status and report, and names its restore point. Hexadecimal.
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
    /// What must be so afterwards.
    pub health: HealthCheck,
    /// How to go back.
    pub restore_point: Option<RestorePoint>,
    /// Why it is going back, or what a person must know.
    pub message: Option<String>,
    /// The exit code that belongs to the message.
    #[serde(default)]
    pub exit: Option<u8>,
    /// What the bundle that was installed before it was.
    #[serde(default)]
    pub previous: Option<BundleRef>,
    /// Whether a failed node goes back by itself.
    #[serde(default = "yes")]
    pub may_go_back: bool,
    /// Space that it takes for a while, in bytes.
    #[serde(default)]
    pub disk_bytes: u64,
    /// What boot it was when a boot was waited for, or a restore begun.
    #[serde(default)]
    pub boot: Option<String>,
    /// Who wanted the node back; none: nobody, it went by itself.
    #[serde(default)]
    pub wanted_by: Option<Cause>,
    /// In how many boots a restore was begun.
    #[serde(default)]
    pub restores: u32,
    /// How often the program began anew in the middle of it.
    #[serde(default)]
    pub interruptions: u32,
    /// Seconds of work, waiting for boots and windows apart.
    #[serde(default)]
    pub seconds: u64,
    /// When the window closes in which it began.
    #[serde(default)]
    pub window_ends: Option<UnixTime>,
    /// What is done about an update that needs a boot, as a policy writes it.
    #[serde(default)]
    reboot: Option<String>,
    /// When it ended: a report that is made again has the same time, and so the same id.
    #[serde(default)]
    pub ended: Option<UnixTime>,
    #[serde(skip)]
    path: PathBuf,
}

fn yes() -> bool {
    true
}

/// What is known before an install begins.
#[derive(Clone, Debug)]
pub struct Intent {
    /// Of what.
    pub bundle: BundleRef,
    /// When.
    pub started: UnixTime,
    /// The packages that it needs.
    pub packages: Vec<Sha256>,
    /// What it changes.
    pub changes: Vec<PackageChange>,
    /// What must be so afterwards.
    pub health: HealthCheck,
    /// What was installed before.
    pub previous: Option<BundleRef>,
    /// Whether a failed node goes back by itself.
    pub may_go_back: bool,
    /// Space that it takes for a while, in bytes.
    pub disk_bytes: u64,
    /// When the window closes.
    pub window_ends: Option<UnixTime>,
    /// What is done about an update that needs a boot.
    pub reboot: Reboot,
}

/// What stands where a journal is kept.
#[derive(Debug)]
pub enum Found {
    /// No install is under way.
    Nothing,
    /// One that has not ended, or whose end is not told yet.
    Open(Box<Journal>),
    /// Something that cannot be read. It is kept aside under the name that is said, and why.
    Damaged(String),
}

impl Journal {
    /// Begins a journal, in the state `Staged`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn begin(path: &Path, intent: Intent) -> Result<Journal> {
        let Intent {
            bundle,
            started,
            packages,
            changes,
            health,
            previous,
            may_go_back,
            disk_bytes,
            window_ends,
            reboot,
        } = intent;
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
            exit: None,
            previous,
            may_go_back,
            disk_bytes,
            boot: None,
            wanted_by: None,
            restores: 0,
            interruptions: 0,
            seconds: 0,
            window_ends,
            reboot: Some(reboot.as_str().to_owned()),
            ended: None,
            path: path.to_owned(),
        };
        journal.write()?;
        Ok(journal)
    }

    /// Begins to undo what this journal did: the same transaction once more, going back.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn undo(self, path: &Path, cause: Cause, why: String, now: UnixTime) -> Result<Journal> {
        let journal = Journal {
            state: State::RollingBack { cause },
            started: now,
            message: Some(why),
            exit: None,
            boot: None,
            wanted_by: Some(cause),
            restores: 0,
            interruptions: 0,
            seconds: 0,
            window_ends: None,
            ended: None,
            path: path.to_owned(),
            ..self
        };
        journal.write()?;
        Ok(journal)
    }

    /// The journal of an install that went back, where the node itself has forgotten it: of what was left outside.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn returned(path: &Path, keepsake: Keepsake) -> Result<Journal> {
        let journal = Journal::awaiting(path, keepsake);
        journal.write()?;
        Ok(journal)
    }

    /// The journal of an install that goes back at the next boot, where the node's own could not be written: the same, in
    /// memory only.
    pub fn awaiting(path: &Path, keepsake: Keepsake) -> Journal {
        let Keepsake { id, bundle, previous, started, cause, message, exit, boot, point, .. } = keepsake;
        Journal {
            version: VERSION,
            id,
            bundle,
            started,
            state: State::AwaitingReboot { cause },
            packages: Vec::new(),
            changes: Vec::new(),
            health: HealthCheck::default(),
            restore_point: Some(point),
            message: Some(message),
            exit: Some(exit),
            previous,
            may_go_back: true,
            disk_bytes: 0,
            boot: Some(boot),
            wanted_by: matches!(cause, Cause::Operator | Cause::Policy).then_some(cause),
            restores: 1,
            interruptions: 0,
            seconds: 0,
            window_ends: None,
            reboot: None,
            ended: None,
            path: path.to_owned(),
        }
    }

    /// Looks for the journal of an install that has not ended. A damaged one is kept aside.
    ///
    /// # Errors
    /// If it cannot be read at all, or not be kept aside.
    pub fn open(path: &Path) -> Result<Found> {
        let Some(bytes) = host::file::read_limited(path, 64 * 1024 * 1024)? else {
            return Ok(Found::Nothing);
        };
        match Journal::parse(&bytes) {
            Ok(journal) => Ok(Found::Open(Box::new(Journal { path: path.to_owned(), ..journal }))),
            Err(why) => {
                let aside = path.with_extension("json.broken");
                let what =
                    format!("{} cannot be read ({why}); it is kept as {}", path.display(), aside.display());
                log::error!("{what}");
                std::fs::rename(path, &aside).map_err(|e| Error::file(path, &e))?;
                host::file::sync_folder_of(path)?;
                Ok(Found::Damaged(what))
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

    /// The same as it will be read once the node is back.
    ///
    /// # Errors
    /// As [`Journal::to_bytes`].
    pub fn to_bytes_awaiting(&self, cause: Cause) -> Result<Vec<u8>> {
        Journal { state: State::AwaitingReboot { cause }, ..self.clone() }.to_bytes()
    }

    /// What is done about an update that needs a boot; none: what the node's own configuration says.
    pub fn reboot(&self) -> Option<Reboot> {
        let word = self.reboot.as_deref()?;
        [Reboot::Never, Reboot::IfNeeded, Reboot::Always].into_iter().find(|reboot| reboot.as_str() == word)
    }

    /// How it ended, if it has.
    pub fn end(&self) -> Option<End> {
        match self.state {
            State::Finished { end } => Some(end),
            _ => None,
        }
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
            log::info!("transaction {}: {} → {next}", self.id, self.state);
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

    /// Writes it as it is.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self) -> Result<()> {
        Ok(host::file::replace(&self.path, &self.to_bytes()?, 0o600)?)
    }

    /// Keeps it beside, for a rollback that somebody may want later.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep(&self, path: &Path) -> Result<()> {
        Ok(host::file::replace(path, &self.to_bytes()?, 0o600)?)
    }

    /// The one that was kept; none if there is none that can be read.
    pub fn kept(path: &Path) -> Option<Journal> {
        let bytes = host::file::read_limited(path, 64 * 1024 * 1024).ok()??;
        Journal::parse(&bytes).map_err(|e| log::warn!("{}: {e}", path.display())).ok()
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
        let intent = Intent {
            bundle,
            started: UnixTime(1),
            packages: vec![],
            changes: vec![],
            health: HealthCheck::default(),
            previous: None,
            may_go_back: true,
            disk_bytes: 0,
            window_ends: None,
            reboot: Reboot::IfNeeded,
        };
        let mut journal = Journal::begin(&path, intent).unwrap();
        journal.record(Event::Begin).unwrap();
        let Found::Open(found) = Journal::open(&path).unwrap() else { panic!("it is not found") };
        assert_eq!(*found, journal);
        std::fs::write(&path, b"{\"version\":1,").unwrap();
        assert!(matches!(Journal::open(&path).unwrap(), Found::Damaged(why) if why.contains(".broken")));
        assert!(path.with_extension("json.broken").exists());
        assert!(matches!(Journal::open(&path).unwrap(), Found::Nothing));
        host::file::remove(&folder).unwrap();
    }

    #[test]
    fn a_journal_of_an_older_program_is_read() {
        let text = r#"{"version":1,"id":"ab","bundle":{"version":"1","cycle":"c","serial":1,"index":
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},"started":"1970-01-01T00:00:01Z",
            "state":{"name":"installing"},"packages":[],"changes":[],"health":{"url":null,"timeout_seconds":120},
            "restore_point":null,"message":null}"#;
        let journal = Journal::parse(text.as_bytes()).unwrap();
        assert_eq!((journal.state, journal.may_go_back), (State::Installing, true));
    }
}
