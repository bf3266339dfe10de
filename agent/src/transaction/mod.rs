//! The install as a transaction: one step, record, the next step, until it is finished.
//!
//! The states are in [`state`], their durable record in [`journal`]; here are the acts.

pub mod health;
pub mod journal;
pub mod state;

use std::time::Duration;

use format::inventory::Inventory;
use host::isolation::Seen;

use crate::error::{Error, Exit, Result};
use crate::node::Node;
use crate::packages::PackageManager;
use crate::restore::{RestorePoints, Restored};
use crate::stage::StagedRepo;
use health::HealthCheck;
use journal::Journal;
use state::{End, Event, State, Step};

/// Everything that an install needs, verified.
pub struct Transaction<'n> {
    /// The node.
    pub node: &'n Node,
    /// Its package manager.
    pub packages: &'n dyn PackageManager,
    /// Its restore points.
    pub restore_points: &'n dyn RestorePoints,
    /// What to install from.
    pub repo: StagedRepo,
    /// The inventory before.
    pub before: Inventory,
    /// What the package manager saw of the network.
    pub seen: Option<Seen>,
    /// What went wrong, with its exit code.
    pub failure: Option<Error>,
}

impl Transaction<'_> {
    /// Goes on from whatever state the journal is in to the end, or to where a boot is needed.
    ///
    /// # Errors
    /// If the journal cannot be written. What goes wrong with the install is not an error here but the state it ends in.
    pub fn run(&mut self, journal: &mut Journal) -> Result<State> {
        loop {
            let event = match journal.state.step() {
                Step::Begin => Event::Begin,
                Step::Snapshot => self.snapshot(journal),
                Step::Install => self.outcome(journal, Self::install),
                Step::Check => self.outcome(journal, Self::check),
                Step::Commit => self.commit(journal),
                Step::RollBack => self.roll_back(journal),
                Step::Wait | Step::Stop => return Ok(journal.state),
            };
            journal.record(event)?;
        }
    }

    /// Runs an act and keeps why it failed.
    fn outcome(&mut self, journal: &mut Journal, act: fn(&mut Self, &Journal) -> Result<()>) -> Event {
        match act(self, journal) {
            Ok(()) => Event::Done,
            Err(error) => {
                log::error!("transaction {}: {error}", journal.id);
                journal.message = Some(error.to_string());
                self.failure = Some(error);
                Event::Failed
            }
        }
    }

    fn snapshot(&mut self, journal: &mut Journal) -> Event {
        match self.restore_points.create(&journal.id) {
            Ok(point) => {
                journal.restore_point = point;
                Event::Done
            }
            Err(error) => {
                journal.message = Some(error.to_string());
                self.failure = Some(error);
                Event::Failed
            }
        }
    }

    /// Lets the package manager work, and proves that it did what was planned: its exit code alone proves nothing.
    fn install(&mut self, journal: &Journal) -> Result<()> {
        health::run_hooks(self.node, "pre-install", journal.bundle.version.as_str())?;
        if !self.packages.audit()?.is_empty() {
            self.packages.repair()?;
        }
        let scratch = self.node.private("packages");
        self.seen = Some(self.packages.install(self.repo.folder(), &scratch)?);
        self.prove(journal)
    }

    /// The inventory is the planned one and no package is half configured.
    fn prove(&self, journal: &Journal) -> Result<()> {
        let fail = |what: String| Err(Error::new(Exit::InstallFailed, what, self.packages.words().log));
        let expected = self.before.after(&journal.changes);
        let wrong = expected.changes_to(&self.packages.inventory()?);
        if let Some(first) = wrong.first() {
            let describe = |version: &Option<String>| version.clone().unwrap_or_else(|| "absent".into());
            return fail(format!(
                "after the install {} packages are not as planned, such as {}: {} instead of {}",
                wrong.len(),
                first.name,
                describe(&first.to),
                describe(&first.from)
            ));
        }
        match self.packages.audit()?.as_slice() {
            [] => Ok(()),
            broken => {
                fail(format!("after the install these packages are half configured: {}", broken.join("; ")))
            }
        }
    }

    fn check(&mut self, journal: &Journal) -> Result<()> {
        let unhealthy = |e: Error| Error::new(Exit::RolledBack, e, "");
        self.prove(journal)?;
        health::run_hooks(self.node, "health", journal.bundle.version.as_str()).map_err(unhealthy)?;
        let timeout = Duration::from_secs(journal.health.timeout_seconds);
        health::ask_url(self.node, &journal.health, timeout).map_err(unhealthy)
    }

    fn commit(&mut self, journal: &Journal) -> Event {
        let hooks = health::run_hooks(self.node, "post-install", journal.bundle.version.as_str());
        let keep = || self.node.kept().keep(self.packages, self.repo.folder(), &self.before);
        for done in [hooks.and_then(|()| self.restore_points.prune()), keep()] {
            if let Err(error) = done {
                log::warn!("transaction {}: {error}", journal.id);
            }
        }
        Event::Done
    }

    /// Brings the node back and proves it: without a restore point by the package manager's own repair, and by the packages
    /// that are kept from before.
    fn roll_back(&mut self, journal: &mut Journal) -> Event {
        if let Err(error) = health::run_hooks(self.node, "pre-rollback", journal.bundle.version.as_str()) {
            log::warn!("transaction {}: {error}", journal.id);
        }
        let restored = match &journal.restore_point {
            Some(point) => self.restore_points.restore(point),
            None => {
                if let Err(error) = self
                    .packages
                    .audit()
                    .and_then(|broken| if broken.is_empty() { Ok(()) } else { self.packages.repair() })
                {
                    log::warn!("transaction {}: {error}", journal.id);
                }
                let back =
                    self.node.kept().go_back(self.packages, &self.before, &self.node.private("packages"));
                back.map(|()| Restored::Now).map_err(|error| {
                    let why = journal.message.take().unwrap_or_default();
                    Error::new(error.exit, format!("{why}; {error}"), "")
                })
            }
        };
        match restored {
            Ok(Restored::OnNextBoot) => return Event::NeedsReboot,
            Ok(Restored::Now) => {}
            Err(error) => {
                journal.message = Some(error.to_string());
                return Event::Failed;
            }
        }
        let is_before = self.packages.inventory().is_ok_and(|now| now == self.before)
            && self.packages.audit().is_ok_and(|a| a.is_empty());
        if is_before { Event::Done } else { Event::Failed }
    }
}

/// Before anything is touched: an unhealthy node is deferred and reported, not patched and blamed.
///
/// # Errors
/// Deferred, with what is unhealthy.
pub fn check_baseline(node: &Node, check: &HealthCheck) -> Result<()> {
    health::ask_url(node, check, Duration::from_secs(10)).map_err(|e| {
        Error::new(Exit::Deferred, format!("the node is not healthy before the install: {e}"), "")
    })
}

/// The exit code and the sentence that belong to an end.
pub fn conclude(end: End, journal: &Journal, failure: Option<Error>, by_hand: &str) -> Result<()> {
    let why = journal.message.clone().unwrap_or_default();
    match end {
        End::Installed => Ok(()),
        End::NotStarted => Err(failure.unwrap_or_else(|| Error::deferred(why))),
        // A failure that deferred (a held lock, a full disk) and left the node as it was is a deferral.
        End::Unchanged => Err(match failure {
            Some(error) if error.exit == Exit::Deferred => error,
            _ => Error::new(
                Exit::InstallFailed,
                format!("the install failed and the node is as it was: {why}"),
                "this bundle is not tried again; correct the cause, then run `prestage install --now`",
            ),
        }),
        End::RolledBack => Err(Error::new(
            Exit::RolledBack,
            format!("rolled back: {why}"),
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
