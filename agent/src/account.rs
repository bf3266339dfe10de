//! Accounting for a step: what it was about, how long it took, how it ended; into status.json and the report queue.

use std::time::Duration;

use format::digest::Sha256;
use format::inventory::PackageChange;
use format::report::{BundleRef, Outcome, Step};
use format::status::{NodeStatus, PlanStatus, Quarantined, State, Status, StepStatus};
use format::time::UnixTime;
use host::clock::Clock as _;
use host::isolation::Seen;

use crate::error::{Error, Exit, Result};
use crate::fetch::{Traffic, Transport};
use crate::node::Node;
use crate::quarantine::{Quarantine, is_unverified};
use crate::report::{Details, Said};
use crate::share::Site;
use crate::{report, status};

/// The account of one run of one step.
pub struct Account<'n> {
    node: &'n Node,
    step: Step,
    began: Duration,
    status: NodeStatus,
    traffic: Traffic,
    from_site: u64,
    details: Details,
    seen: Option<Seen>,
    is_news: bool,
    awaits_boot: bool,
}

impl<'n> Account<'n> {
    /// Opens one.
    pub fn open(node: &'n Node, step: Step) -> Self {
        Account {
            node,
            step,
            began: node.clock.instant(),
            status: status::load(node),
            traffic: Traffic::default(),
            from_site: 0,
            details: Details::default(),
            seen: None,
            is_news: true,
            awaits_boot: false,
        }
    }

    /// The step is about this bundle.
    pub fn about(&mut self, bundle: &BundleRef) {
        self.details.bundle = Some(bundle.clone());
    }

    /// Which bundle the step is about.
    pub fn bundle(&self) -> Option<&BundleRef> {
        self.details.bundle.as_ref()
    }

    /// The status as it will be written.
    pub fn status(&mut self) -> &mut Status {
        &mut self.status.status
    }

    /// What the node needs of the bundle.
    pub fn plan(&mut self, plan: PlanStatus) {
        self.status.status.plan = Some(plan);
    }

    /// What was moved over the network. All http mirrors share one counter.
    pub fn traffic(&mut self, mirrors: &[Box<dyn Transport + '_>]) {
        self.traffic = mirrors.iter().find(|m| m.is_remote()).map(|m| m.traffic()).unwrap_or_default();
    }

    /// What the other nodes of the site gave, and which of them are not asked any more.
    pub fn site(&mut self, site: &Site<'_>) {
        self.from_site = site.received();
        self.status.status.peers_aside = site.aside();
    }

    /// The install's id.
    pub fn transaction(&mut self, id: &str) {
        self.details.transaction = Some(id.to_owned());
    }

    /// The restore point that the install made or went back to.
    pub fn restore_point(&mut self, point: String) {
        self.details.restore_point = Some(point);
    }

    /// Something was cured without hands: counted in the status, told in the report.
    pub fn healed(&mut self, what: &str) {
        *self.status.status.healed.entry(what.to_owned()).or_default() += 1;
        self.details.healed.push(what.to_owned());
    }

    /// Bytes that deltas have saved.
    pub fn saved(&mut self, bytes: u64) {
        self.details.bytes_saved = bytes;
    }

    /// When the transaction ended: told again, it has the same time.
    pub fn ended(&mut self, at: Option<UnixTime>) {
        self.details.at = at;
    }

    /// What was begun takes effect at the next boot.
    pub fn awaits_boot(&mut self) {
        self.awaits_boot = true;
    }

    /// Whether it does.
    pub fn is_awaiting_boot(&self) -> bool {
        self.awaits_boot
    }

    /// What changed on the node.
    pub fn changed(&mut self, changes: Vec<PackageChange>, inventory: Sha256) {
        self.details.changes = changes;
        self.details.inventory = Some(inventory);
    }

    /// What the package manager saw of the network.
    pub fn seen(&mut self, seen: Option<Seen>) {
        self.seen = seen;
    }

    /// The step found what it found before: the status is written, but the centre need not hear it again.
    pub fn nothing_new(&mut self) {
        self.is_news = false;
    }

    /// Writes the status in the middle of a step.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn now(&mut self, state: State, summary: String) -> Result<()> {
        log::info!("{summary}");
        self.status.status.state = state;
        self.status.status.summary = summary;
        status::save(self.node, &mut self.status)
    }

    /// The step's last word.
    pub fn said(&mut self, outcome: Outcome, state: State, message: String) -> Said {
        self.status.status.state = state;
        Said { outcome, message, details: std::mem::take(&mut self.details) }
    }

    /// Closes the account: status, metrics, report. Hands on how the step ended.
    ///
    /// # Errors
    /// That of the step; or, if it had none, that of writing the account.
    pub fn close(self, result: Result<Said>) -> Result<()> {
        self.close_told(result).0
    }

    /// The same, and whether the account was written: if not, whoever can must tell it again.
    pub fn close_told(mut self, result: Result<Said>) -> (Result<()>, bool) {
        let seconds = (self.node.clock.instant() - self.began).as_secs();
        let (exit, said, result) = match result {
            Ok(said) => (Exit::Done, said, Ok(())),
            Err(error) => {
                self.status.status.state = match self.awaits_boot {
                    true => State::AwaitingReboot,
                    false => state_after(&error, &self.status.status),
                };
                let details = std::mem::take(&mut self.details);
                (
                    error.exit,
                    Said { outcome: error.exit.outcome(), message: error.to_string(), details },
                    Err(error),
                )
            }
        };
        self.status.status.quarantine = self.refused();
        // A bundle whose install failed here stays that until something else happens: that it is staged, or not tried
        // again, hides nothing.
        let failed = said
            .details
            .bundle
            .as_ref()
            .and_then(|bundle| failed_install(&self.status.status.quarantine, bundle));
        let is_only_refused = failed.is_some() && said.outcome == Outcome::Deferred;
        if let Some(state) = failed
            && matches!(self.status.status.state, State::Staged | State::Fetching | State::Deferred)
        {
            self.status.status.state = state;
        }
        let before = match self.step {
            Step::Fetch => self.status.status.fetch.as_ref(),
            Step::Install => self.status.status.install.as_ref(),
        };
        // A poll that finds the same as the last one is no news.
        let is_transaction = said.details.transaction.is_some() && !self.awaits_boot;
        // What a transaction came to is news each time, in whatever words.
        let same =
            !is_transaction && before.is_some_and(|b| b.outcome == said.outcome && b.message == said.message);
        let is_news = self.is_news && !same;
        match &result {
            Ok(()) if is_news => log::info!("{}", said.message),
            Ok(()) => host::detail!("{}", said.message),
            Err(_) => {}
        }
        self.status.status.summary = said.message.clone();
        // An install that found nothing to do says nothing about the last one that did something.
        if self.step == Step::Fetch || (is_news && !is_only_refused) {
            status::set_step(
                &mut self.status,
                StepStatus {
                    step: self.step,
                    at: self.node.now(),
                    outcome: said.outcome,
                    exit_code: exit as u8,
                    message: said.message.clone(),
                    seconds,
                    bytes_received: self.traffic.received,
                    bytes_from_site: self.from_site,
                    requests: self.traffic.requests,
                    network_seen: self.seen.take().map(|s| s.interfaces),
                },
            );
        }
        let written = self.write(exit, said, is_news, seconds);
        let is_told = written.is_ok();
        // A step's own error is the one to be seen; that it could not be written down as well is only logged.
        let result = match (result, written) {
            (Ok(()), written) => written,
            (Err(error), written) => {
                if let Err(second) = written {
                    log::error!("{second}");
                }
                Err(error)
            }
        };
        (result, is_told)
    }

    /// The bundles that this node refuses: the fetch step's list, and the install's, which only root can read; for anyone
    /// else that is what the install has last written into the status.
    fn refused(&self) -> Vec<Quarantined> {
        let list = |path, step| {
            Quarantine::open(path, step)
                .map(|q| q.list().to_vec())
                .map_err(|e| log::error!("{e}"))
                .unwrap_or_default()
        };
        let mut refused = list(self.node.fetched("quarantine.json"), Step::Fetch);
        if nix::unistd::geteuid().is_root() {
            refused.extend(list(self.node.private("refused.json"), Step::Install));
        } else {
            let known = self.status.status.quarantine.iter();
            refused.extend(known.filter(|q| q.step == Step::Install).cloned());
        }
        refused
    }

    fn write(&mut self, exit: Exit, said: Said, is_news: bool, seconds: u64) -> Result<()> {
        if is_news {
            report::queue(self.node, self.step, exit, said, seconds, self.traffic.received, self.from_site)?;
        }
        status::save(self.node, &mut self.status)
    }
}

/// The state that an install of `bundle` which was refused or failed has left.
fn failed_install(refused: &[Quarantined], bundle: &BundleRef) -> Option<State> {
    let entry = refused.iter().find(|q| q.bundle.index == bundle.index && q.step == Step::Install)?;
    Some(match entry.exit_code {
        code if is_unverified(code) => State::Quarantined,
        code if code == Exit::NeedsPerson as u8 => State::NeedsPerson,
        _ => State::Failed,
    })
}

/// The node's state after a step that failed.
fn state_after(error: &Error, status: &Status) -> State {
    let staged = status.plan.as_ref().is_some_and(|plan| plan.complete);
    match error.exit {
        Exit::Integrity | Exit::Trust => State::Quarantined,
        Exit::InstallFailed | Exit::RolledBack => State::Failed,
        Exit::NeedsPerson => State::NeedsPerson,
        // A mirror that is away takes nothing from what is staged.
        _ if staged => State::Staged,
        Exit::Deferred | Exit::Unavailable if status.plan.is_some() => State::Fetching,
        _ => State::Deferred,
    }
}
