//! The install as a transaction: one step, record, the next step, until it is finished.
//!
//! The states are in [`state`], their durable record in [`journal`]; here are the acts. Each can be done again: what an
//! interruption has left is found and gone on with, or made anew.

pub mod carry;
pub mod health;
pub mod journal;
pub mod pace;
pub mod state;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use format::inventory::Inventory;
use format::policy::Reboot;
use host::clock::Clock as _;
use host::inhibit::Inhibitor;
use host::isolation::Seen;

use crate::error::{Error, Exit, Result};
use crate::node::Node;
use crate::packages::PackageManager;
use crate::reboot;
use crate::restore::{Boot, Keepsake, RestorePoints, Restored};
use crate::stage::StagedRepo;
use journal::Journal;
use state::{Cause, End, Event, State, Step};

/// How often it is looked after the restore point while a package manager works.
const WATCH_EVERY: Duration = Duration::from_secs(5);

/// How often a watcher looks whether it is needed any more.
const WATCH_TICK: Duration = Duration::from_millis(100);

/// A restore that did not come to its end in so many boots is a person's business: one that boots the machine by itself
/// would do so for ever. Whoever is killed in the middle of it, without a boot, only begins it again.
const MAX_RESTORES: u32 = 4;

/// Everything that an install needs, verified.
pub struct Transaction<'n> {
    /// The node.
    pub node: &'n Node,
    /// Its package manager.
    pub packages: &'n dyn PackageManager,
    /// Its restore points.
    pub restore_points: &'n dyn RestorePoints,
    /// What to install from; none on the way back.
    pub repo: Option<StagedRepo>,
    /// The inventory before.
    pub before: Inventory,
    /// What is done about an update that needs a boot.
    pub reboot: Reboot,
    /// What the package manager saw of the network.
    pub seen: Option<Seen>,
    /// What was mended on the way, for people and for counting.
    pub healed: Vec<&'static str>,
    /// What must be told beside how it ended.
    pub notes: Vec<String>,
}

impl Transaction<'_> {
    /// Goes on from whatever state the journal is in to the end, or to where a boot is needed.
    ///
    /// # Errors
    /// If the journal cannot be written. What goes wrong with the install is not an error here but the state it ends in.
    pub fn run(&mut self, journal: &mut Journal) -> Result<State> {
        let (began, before) = (self.node.clock.instant(), journal.seconds);
        loop {
            checkpoint(journal.state, "before");
            let event = match journal.state.step() {
                Step::Begin => Event::Begin,
                Step::Snapshot => self.outcome(journal, Self::snapshot),
                Step::Install => self.outcome(journal, Self::install),
                Step::Check => self.check(journal),
                Step::Recheck => self.outcome(journal, Self::judge),
                Step::Commit => self.commit(journal),
                Step::RollBack => self.roll_back(journal)?,
                Step::Prove => self.outcome(journal, Self::prove_return),
                Step::Wait | Step::Stop => return Ok(journal.state),
            };
            checkpoint(journal.state, "after");
            journal.seconds = before + (self.node.clock.instant() - began).as_secs();
            if matches!(journal.state.next(event), Ok(State::Finished { .. })) {
                journal.ended = Some(self.node.now());
            }
            if let Err(error) = journal.record(event) {
                self.go_on_unrecorded(journal, error)?;
            }
        }
    }

    /// The journal could not be written. Where that is so because nothing can be written any more (a full pool below the root
    /// makes it read-only, and it may not even be mounted at the next boot), the node goes back at once, if the way back needs
    /// no file of its own.
    fn go_on_unrecorded(&self, journal: &mut Journal, error: Error) -> Result<()> {
        let has_way = journal.restore_point.is_some()
            && journal.may_go_back
            && self.restore_points.needs_no_file()
            && self.is_dead();
        let state = match journal.state {
            state @ (State::RollingBack { .. } | State::AwaitingReboot { .. }) if has_way => state,
            State::Installed | State::Checking | State::Rebooting | State::Rechecking if has_way => {
                State::RollingBack { cause: Cause::Install }
            }
            _ => return Err(error),
        };
        log::error!("transaction {}: going back without a journal: {error}", journal.id);
        journal.message.get_or_insert(error.to_string());
        journal.exit.get_or_insert(Exit::InstallFailed as u8);
        journal.state = state;
        Ok(())
    }

    /// Whether the file system of the agent's own files takes nothing any more.
    fn is_dead(&self) -> bool {
        let path = self.node.private("probe");
        let Err(error) = std::fs::write(&path, b"").and_then(|()| std::fs::remove_file(&path)) else {
            return false;
        };
        error.kind() == std::io::ErrorKind::ReadOnlyFilesystem || error.raw_os_error() == Some(nix::libc::EIO)
    }

    /// Runs an act and keeps why it failed, durably with the next record. The first reason stays.
    fn outcome(&mut self, journal: &mut Journal, act: fn(&mut Self, &mut Journal) -> Result<()>) -> Event {
        match act(self, journal) {
            Ok(()) => Event::Done,
            Err(error) => {
                log::error!("transaction {}: {error}", journal.id);
                journal.message = Some(match (&journal.message, journal.state) {
                    // Why it went back is what it was about; that it did not come back is added.
                    (Some(first), State::RollingBack { .. } | State::Proving { .. }) => {
                        format!("{first}; and then: {error}")
                    }
                    _ => error.to_string(),
                });
                journal.exit = Some(error.exit as u8);
                Event::Failed
            }
        }
    }

    fn snapshot(&mut self, journal: &mut Journal) -> Result<()> {
        if self.restore_points.kind() != "none" {
            Boot::of(self.node).save(&journal.id)?;
        }
        journal.restore_point = self.restore_points.create(&journal.id, journal.disk_bytes)?;
        if let Some(point) = &journal.restore_point {
            log::info!("transaction {}: the restore point is {} ({})", journal.id, point.id, point.kind);
        }
        Ok(())
    }

    /// Lets the package manager work, and proves that it did what was planned: its exit code alone proves nothing.
    fn install(&mut self, journal: &mut Journal) -> Result<()> {
        let fail = |what: &str| Error::new(Exit::InstallFailed, what, "report this as a fault of prestage");
        let repo =
            self.repo.as_ref().ok_or_else(|| fail("there is nothing to install from"))?.folder().to_owned();
        health::run_hooks(self.node, "pre-install", journal.bundle.version.as_str())?;
        let _nobody_powers_off = (self.node.root == std::path::Path::new("/"))
            .then(|| Inhibitor::take("patches are being installed"));
        if self.mend(&repo)? {
            self.healed.push("interrupted-packages");
        }
        let scratch = self.node.private("packages");
        let (packages, points, done) = (self.packages, self.restore_points, AtomicBool::new(false));
        let (point, mut lost) = (journal.restore_point.clone(), None);
        let seen = std::thread::scope(|scope| {
            let watcher = point.as_ref().map(|point| {
                scope.spawn(|| {
                    let mut waited = Duration::ZERO;
                    while !done.load(Ordering::Relaxed) {
                        std::thread::sleep(WATCH_TICK);
                        waited += WATCH_TICK;
                        if waited >= WATCH_EVERY {
                            waited = Duration::ZERO;
                            points.watch(point)?;
                        }
                    }
                    Ok::<(), Error>(())
                })
            });
            let seen = packages.install(&repo, &scratch);
            done.store(true, Ordering::Relaxed);
            lost = watcher.and_then(|w| w.join().ok()).and_then(Result::err);
            seen
        });
        if let Some(error) = lost {
            log::error!("transaction {}: {error}", journal.id);
            self.notes.push(error.to_string());
            journal.restore_point = None;
        }
        self.seen = Some(seen?);
        self.prove(journal)
    }

    /// Finishes what an interruption left half done: with the package manager's own means, and where these do not mend it,
    /// by installing those packages again. Whether there was anything.
    fn mend(&self, repo: &std::path::Path) -> Result<bool> {
        if self.packages.audit()?.is_empty() {
            return Ok(false);
        }
        // What of them still waits for a package that was cut off in the middle, the next steps finish, or the proof finds.
        match self.packages.repair() {
            Err(error) if error.exit == Exit::Deferred => return Err(error),
            Err(error) => log::warn!("{error}"),
            Ok(()) => {}
        }
        if !self.packages.audit()?.is_empty() {
            self.packages.reinstall(repo)?;
        }
        Ok(true)
    }

    /// The inventory is the planned one and no package is half configured.
    fn prove(&self, journal: &Journal) -> Result<()> {
        let fail = |what: String| Err(Error::new(Exit::InstallFailed, what, self.packages.words().log));
        let expected = self.before.after(&journal.changes);
        let wrong = expected.changes_to(&self.packages.inventory()?);
        if let Some(first) = wrong.first() {
            return fail(format!(
                "after the install {} packages are not as planned, such as {}: {} instead of {}",
                wrong.len(),
                first.name,
                version(&first.to),
                version(&first.from)
            ));
        }
        match self.packages.audit()?.as_slice() {
            [] => Ok(()),
            broken => {
                fail(format!("after the install these packages are half configured: {}", broken.join("; ")))
            }
        }
    }

    fn judge(&mut self, journal: &mut Journal) -> Result<()> {
        self.prove(journal)?;
        health::check(self.node, &journal.health, journal.bundle.version.as_str())
    }

    fn check(&mut self, journal: &mut Journal) -> Event {
        let event = self.outcome(journal, Self::judge);
        let is_needed = || self.packages.reboot_required();
        if event == Event::Done && reboot::follows(self.reboot, is_needed()) {
            journal.boot = Some(reboot::boot_id(self.node));
            return Event::NeedsReboot;
        }
        event
    }

    fn commit(&mut self, journal: &mut Journal) -> Event {
        let version = journal.bundle.version.as_str();
        let inventory = self.before.to_text();
        let kept = host::file::replace(&self.node.private("last-before"), inventory.as_bytes(), 0o600)
            .map_err(Error::from)
            .and_then(|()| journal.keep(&self.node.private("last.json")));
        let pruned =
            self.restore_points.prune(self.node.settings.restore.keep, journal.restore_point.as_ref());
        // The packages are taken out of the copy that was installed from; the weaker way, where there is no other.
        let packages = self.node.kept().keep(self.packages, &self.node.private("staged"), &self.before);
        for result in [health::run_hooks(self.node, "post-install", version), kept, pruned, packages] {
            if let Err(error) = result {
                log::warn!("transaction {}: {error}", journal.id);
                self.notes.push(error.to_string());
            }
        }
        reboot::steady(self.node);
        Event::Done
    }

    /// A way back that only has to wait (for another package manager, say) is gone by the next run.
    fn roll_back(&mut self, journal: &mut Journal) -> Result<Event> {
        Ok(match self.bring_back(journal) {
            Ok(Restored::Now) => Event::Done,
            Ok(Restored::OnNextBoot) => Event::NeedsReboot,
            Err(error) if error.exit == Exit::Deferred => return Err(error),
            Err(error) => self.outcome_of(journal, error),
        })
    }

    fn outcome_of(&self, journal: &mut Journal, error: Error) -> Event {
        log::error!("transaction {}: {error}", journal.id);
        let first = journal.message.take().map_or(String::new(), |first| format!("{first}; and then: "));
        journal.message = Some(format!("{first}{error}"));
        journal.exit = Some(Exit::NeedsPerson as u8);
        Event::Failed
    }

    /// Brings the node back: to the restore point, or without one as far as the package manager can.
    fn bring_back(&mut self, journal: &mut Journal) -> Result<Restored> {
        let State::RollingBack { cause } = journal.state else { return Ok(Restored::Now) };
        let boot = reboot::boot_id(self.node);
        // A restore that boots the machine by itself does not come back; whether it came to its end is seen now.
        if let Some(point) = &journal.restore_point
            && journal.boot.as_ref().is_some_and(|before| *before != boot)
            && self.restore_points.has_returned(point)?
        {
            return Ok(Restored::Now);
        }
        let version = journal.bundle.version.to_string();
        if let Err(error) = health::run_hooks(self.node, "pre-rollback", &version) {
            log::warn!("transaction {}: {error}", journal.id);
        }
        let is_by_itself = matches!(cause, Cause::Install | Cause::HealthCheck);
        if cause == Cause::Install {
            // What was interrupted may only need to be finished, or nothing may have been touched at all.
            if let Err(error) = self.packages.audit().and_then(|broken| match broken.as_slice() {
                [] => Ok(()),
                _ => self.packages.repair(),
            }) {
                log::warn!("transaction {}: {error}", journal.id);
            }
            // What a file system that takes nothing any more shows need not be what is on the disk.
            if !self.is_dead() && self.is_before()?.is_none() {
                return Ok(Restored::Now);
            }
        }
        if is_by_itself && !journal.may_go_back {
            return Err(Error::new(
                Exit::NeedsPerson,
                "the node was left as it is, for the policy says rollback.enabled: false",
                "`prestage rollback` takes it back",
            ));
        }
        let Some(point) = journal.restore_point.clone() else {
            return self.go_back_by_packages(journal).map(|()| Restored::Now);
        };
        let was_begun_in_this_boot = journal.restores > 0 && journal.boot.as_ref() == Some(&boot);
        if !was_begun_in_this_boot {
            if journal.restores >= MAX_RESTORES {
                let what = format!(
                    "going back to {} was begun in {} boots and has not happened",
                    point.id, journal.restores
                );
                return Err(Error::new(Exit::NeedsPerson, what, ""));
            }
            journal.restores += 1;
            journal.boot = Some(boot.clone());
        }
        if let Err(error) = journal.write() {
            self.go_on_unrecorded(journal, error)?;
        }
        Boot::of(self.node).bring_back(&journal.id)?;
        let message = journal.message.clone().unwrap_or_default();
        let keepsake = Keepsake::new(
            &journal.id,
            journal.bundle.clone(),
            journal.previous.clone(),
            journal.started,
            cause,
            &message,
            journal.exit.unwrap_or(Exit::RolledBack as u8),
            boot,
            point.clone(),
        );
        self.restore_points.leave(&point, &keepsake)?;
        let (node, awaiting) = (self.node, journal.to_bytes_awaiting(cause)?);
        let carried = self.restore_points.carry(&point, &mut |root| carry::carry(node, root, &awaiting));
        if let Err(error) = carried {
            // What was left outside is enough not to try the same again; reports that wait would be lost.
            log::warn!("transaction {}: {error}", journal.id);
        }
        log::warn!("transaction {}: going back to the restore point {}", journal.id, point.id);
        self.restore_points.restore(&point)
    }

    /// Without a restore point: the packages that are kept from before, in place of the new ones. The weaker way.
    fn go_back_by_packages(&mut self, journal: &Journal) -> Result<()> {
        log::warn!(
            "transaction {}: there is no restore point; packages alone go back, and what their scripts did stays",
            journal.id
        );
        self.node.kept().go_back(self.packages, &self.before, &self.node.private("packages"))
    }

    /// What is not as it was before; none if all is.
    fn is_before(&self) -> Result<Option<String>> {
        let wrong = self.packages.inventory()?.changes_to(&self.before);
        if let Some(first) = wrong.first() {
            return Ok(Some(format!(
                "{} packages are not as before, such as {}: {} instead of {}",
                wrong.len(),
                first.name,
                version(&first.from),
                version(&first.to)
            )));
        }
        let broken = self.packages.audit()?;
        Ok((!broken.is_empty()).then(|| format!("these packages are half configured: {}", broken.join("; "))))
    }

    /// The node is as it was before the install: inventory, audit, and /boot byte for byte.
    fn prove_return(&mut self, journal: &mut Journal) -> Result<()> {
        let State::Proving { .. } = journal.state else { return Ok(()) };
        let not_back = |what: String| Err(Error::new(Exit::NeedsPerson, what, ""));
        if let Some(point) = &journal.restore_point
            && journal.restores > 0
        {
            if !self.restore_points.has_returned(point)? && self.restore_points.kind() == point.kind {
                return not_back(format!(
                    "the node was booted, and the restore point {} was not gone back to",
                    point.id
                ));
            }
            let boot = Boot::of(self.node);
            if boot.differs(&journal.id)?.is_some() {
                boot.bring_back(&journal.id)?;
            }
        }
        if let Some(what) = self.is_before()? {
            return not_back(what);
        }
        // Where nothing was touched, nothing can have become better or worse.
        if journal.restores > 0
            && let Err(error) = health::check(self.node, &journal.health, journal.bundle.version.as_str())
        {
            let what = format!("the node is as before, and still not healthy: {error}");
            log::error!("transaction {}: {what}", journal.id);
            self.notes.push(what);
        }
        // Whatever the site lets it do, it is done with it.
        reboot::steady(self.node);
        // What was made for this install is of no use any more; that of the last one that went well counts.
        let newest = Journal::kept(&self.node.private("last.json")).and_then(|last| last.restore_point);
        if let Err(error) = self.restore_points.prune(self.node.settings.restore.keep, newest.as_ref()) {
            log::warn!("transaction {}: {error}", journal.id);
        }
        Ok(())
    }
}

fn version(version: &Option<String>) -> String {
    version.clone().unwrap_or_else(|| "absent".into())
}

/// Where tests kill this program: `PRESTAGE_KILL=STATE:before`, or `after` the act and before its record. Not in what is
/// shipped.
#[cfg(debug_assertions)]
pub fn checkpoint(state: State, moment: &str) {
    let name = state.to_string();
    let name = name.split('(').next().unwrap_or_default();
    if std::env::var("PRESTAGE_KILL").is_ok_and(|wanted| wanted == format!("{name}:{moment}")) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
    }
}

/// See above.
#[cfg(not(debug_assertions))]
pub fn checkpoint(_state: State, _moment: &str) {}

/// The exit code and the sentence that belong to an end. `way`: how the node went back.
pub fn conclude(end: End, journal: &Journal, by_hand: &str) -> Result<()> {
    let why = journal.message.clone().unwrap_or_default();
    let deferred = journal.exit == Some(Exit::Deferred as u8);
    match end {
        End::Installed | End::Returned => Ok(()),
        End::NotStarted => Err(Error::new(if deferred { Exit::Deferred } else { Exit::Io }, why, "")),
        // A failure that deferred (a held lock, a full disk) and left the node as it was is a deferral. One that a restore point
        // had to undo would be undone so every night.
        End::Unchanged if deferred && journal.restores == 0 => Err(Error::new(Exit::Deferred, why, "")),
        End::Unchanged => Err(Error::new(
            Exit::InstallFailed,
            format!("the install failed and the node is as it was: {why}"),
            "this bundle is not tried again; correct the cause, then run `prestage install --now`",
        )),
        End::RolledBack => Err(Error::new(
            Exit::RolledBack,
            match journal.restore_point {
                Some(_) => format!("rolled back: {why}"),
                None => format!("rolled back by its packages alone, which is the weaker way: {why}"),
            },
            "this bundle is not tried again until a newer one is published",
        )),
        End::NeedsPerson => Err(Error::new(
            Exit::NeedsPerson,
            format!(
                "the install went wrong and the node could not be brought back: {why}; log in and {by_hand}"
            ),
            "then run `prestage install --now`",
        )),
    }
}
