//! An install that has begun: to its end, or on its way back; and what is done with one that is found unfinished.
//!
//! The order of a node's work stands in [`crate::run`]; from the first record of a transaction on, it goes on here, whoever
//! found it: the install itself, the next one after a power cut, `prestage recover` at boot, or `prestage rollback`.

use format::index::MAX_INDEX;
use format::inventory::Inventory;
use format::policy::Reboot;
use format::report::{BundleRef, Outcome};
use format::status::{InstalledStatus, QuarantineEnd, RestorePointStatus, State as NodeState};
use host::file;

use crate::account::Account;
use crate::bundle::reread_index;
use crate::error::{Error, Exit, Result};
use crate::node::Node;
use crate::quarantine::Quarantine;
use crate::reboot;
use crate::report::Said;
use crate::restore;
use crate::stage::StagedRepo;
use crate::store::Store;
use crate::transaction::journal::{Found, Journal};
use crate::transaction::pace::{self, Run};
use crate::transaction::state::{Cause, End, Event, State, Step};
use crate::transaction::{self, Transaction};
use host::schedule::Gate;

/// What an earlier run has left.
pub enum Left {
    /// Nothing.
    Nothing,
    /// An install that has not ended, or whose end is not told yet.
    Open(Box<Journal>),
    /// A journal that cannot be read, and where it is now.
    Damaged(String),
}

/// The journal of a node.
fn path(node: &Node) -> std::path::PathBuf {
    node.private("journal.json")
}

/// The journal of the last install that went well, for a rollback that somebody may want later.
pub fn last(node: &Node) -> Option<Journal> {
    Journal::kept(&node.private("last.json"))
}

/// Looks what an earlier run has left: a journal, or where the node went back and has forgotten it, what was left outside.
///
/// # Errors
/// If it cannot be read.
pub fn left_over(node: &Node, restore: &restore::Found) -> Result<Left> {
    let found = match Journal::open(&path(node))? {
        Found::Damaged(what) => return Ok(Left::Damaged(what)),
        Found::Open(journal) => Some(journal),
        Found::Nothing => None,
    };
    let Some(keepsake) = restore.points.keepsake()? else {
        return Ok(found.map_or(Left::Nothing, Left::Open));
    };
    let knows = found.as_ref().is_some_and(|journal| {
        journal.id == keepsake.id
            && matches!(
                journal.state,
                State::RollingBack { .. }
                    | State::AwaitingReboot { .. }
                    | State::Proving { .. }
                    | State::Finished { .. }
            )
    });
    if knows {
        return Ok(found.map_or(Left::Nothing, Left::Open));
    }
    if keepsake.boot == reboot::boot_id(node) {
        log::warn!(
            "transaction {}: its journal could not be written; the node goes back at the next boot",
            keepsake.id
        );
        return Ok(Left::Open(Box::new(Journal::awaiting(&path(node), keepsake))));
    }
    if restore.points.has_returned(&keepsake.point)? {
        log::warn!("transaction {}: the node went back to {}", keepsake.id, keepsake.point.id);
        return Ok(Left::Open(Box::new(Journal::returned(&path(node), keepsake)?)));
    }
    // Of a rollback that was told already, or never came to it.
    log::warn!("what transaction {} has left outside is of no use any more", keepsake.id);
    restore.points.forget()?;
    Ok(found.map_or(Left::Nothing, Left::Open))
}

/// What surrounds a transaction.
pub struct Around<'a> {
    /// The node.
    pub node: &'a Node,
    /// Its restore points.
    pub restore: &'a restore::Found,
    /// Whether a boot may be asked for now.
    pub gate: Gate,
    /// Whether a person does not want to wait for the window.
    pub now: bool,
}

impl Around<'_> {
    fn may_boot(&self) -> bool {
        self.now || matches!(self.gate, Gate::Open { .. })
    }

    /// Goes on with an install that was interrupted, or that a boot was waited for. Everything it needs was verified and is
    /// in root's own folder.
    ///
    /// # Errors
    /// How it ended.
    pub fn go_on(&self, mut journal: Journal, account: &mut Account<'_>) -> Result<Said> {
        let node = self.node;
        account.about(&journal.bundle);
        let rebooted = journal.boot.as_ref().is_some_and(|before| *before != reboot::boot_id(node));
        if journal.state.step() == Step::Wait && !rebooted {
            return self.wait_for_boot(&journal, account);
        }
        if journal.end().is_none() && journal.state.step() != Step::Wait {
            log::warn!("transaction {} was interrupted in {}; going on", journal.id, journal.state);
            journal.interruptions += 1;
            account.healed("interrupted-attempt");
        }
        // What the agent that died has left at work is waited for, and if it takes longer, another run goes on. After a
        // boot on the way back nothing is at work, and the files may be those of the restore point: they stay so.
        let may_be_at_work = match journal.state.step() {
            Step::Install => true,
            Step::RollBack => !rebooted,
            _ => false,
        };
        if may_be_at_work
            && let Err(error) = node.package_manager()?.repair()
            && error.exit == Exit::Deferred
        {
            return Err(error);
        }
        let before = file::read_limited(&node.private("before"), MAX_INDEX)?.unwrap_or_default();
        let before = Inventory::from_text(&String::from_utf8_lossy(&before));
        let needs_repo = matches!(
            journal.state,
            State::Staged | State::Snapshotting | State::Snapshotted | State::Installing
        );
        let repo = if needs_repo { self.copy_again(&journal)? } else { None };
        journal.record(Event::Restarted { rebooted })?;
        self.transact(repo, before, journal, account)
    }

    /// Root's copy of the packages, read again: a file that was being written when the power went may be torn, and comes from
    /// the store once more; a fetch since then may have taken it from there. None, if it cannot be had any more: then the
    /// install fails, and the node goes back.
    fn copy_again(&self, journal: &Journal) -> Result<Option<StagedRepo>> {
        let copy = || -> Result<StagedRepo> {
            let index = reread_index(&self.node.private("index.json"))?;
            let repo = StagedRepo::again(self.node.private("staged"))?;
            let store = Store::open(self.node.fetched("store"))?;
            let members: Vec<_> = index
                .metadata()
                .chain(index.packages().filter(|m| journal.packages.contains(&m.sha256)))
                .collect();
            repo.copy_verified(&store, &index, &members, self.node.package_manager()?.as_ref())?;
            Ok(repo)
        };
        match copy() {
            Ok(repo) => Ok(Some(repo)),
            // A full disk may be empty again at the next run.
            Err(error) if error.exit == Exit::Io => Err(error),
            Err(error) => {
                log::error!(
                    "transaction {}: what it was installing is not here any more: {error}",
                    journal.id
                );
                Ok(None)
            }
        }
    }

    /// restore point → install → check → commit | roll back.
    ///
    /// # Errors
    /// How it ended.
    pub fn transact(
        &self,
        repo: Option<StagedRepo>,
        before: Inventory,
        mut journal: Journal,
        account: &mut Account<'_>,
    ) -> Result<Said> {
        let node = self.node;
        account.transaction(&journal.id);
        let what = match journal.state {
            State::RollingBack { .. } | State::AwaitingReboot { .. } | State::Proving { .. } => {
                "going back from"
            }
            _ => "installing",
        };
        if journal.end().is_none() {
            let text = format!("{what} bundle {} (transaction {})", journal.bundle.version, journal.id);
            // The journal is what counts: an install whose status cannot be written is not stuck for that.
            if let Err(error) = account.now(NodeState::Installing, text) {
                log::warn!("{error}");
            }
        }
        let packages = node.package_manager()?;
        let mut transaction = Transaction {
            node,
            packages: packages.as_ref(),
            restore_points: self.restore.points.as_ref(),
            repo,
            before,
            reboot: journal.reboot().unwrap_or_else(|| reboot::policy(node, None)),
            seen: None,
            healed: Vec::new(),
            notes: Vec::new(),
        };
        let state = transaction.run(&mut journal)?;
        account.seen(transaction.seen.take());
        transaction.healed.iter().for_each(|what| account.healed(what));
        if let Some(point) = &journal.restore_point {
            account.restore_point(format!("{}:{}", point.kind, point.id));
        }
        account.status().reboot_required = packages.reboot_required();
        let State::Finished { end } = state else {
            return self.wait_for_boot(&journal, account);
        };
        transaction::checkpoint(state, "before");
        let now = packages.inventory()?;
        account.changed(transaction.before.changes_to(&now), now.digest());
        account.ended(journal.ended);
        if let Some(repo) = &transaction.repo {
            file::remove(repo.folder())?;
        }
        let notes = std::mem::take(&mut transaction.notes);
        self.conclude(end, &journal, notes, account, packages.words().by_hand, now.digest())
    }

    fn conclude(
        &self,
        end: End,
        journal: &Journal,
        mut notes: Vec<String>,
        account: &mut Account<'_>,
        by_hand: &str,
        inventory: format::digest::Sha256,
    ) -> Result<Said> {
        let node = self.node;
        let (bundle, changes) = (journal.bundle.clone(), journal.changes.len() as u64);
        let is_back = matches!(end, End::Unchanged | End::RolledBack | End::Returned);
        if is_back && journal.restores > 0 {
            // The restore point was used; what was installed before it counts again.
            account.status().restore_point = None;
        }
        if matches!(end, End::Returned) {
            file::remove(&node.private("last.json"))?;
            file::remove(&node.private("last-before"))?;
            account.status().installed = journal.previous.clone().map(|bundle| InstalledStatus {
                bundle,
                at: node.now(),
                packages: 0,
                inventory,
            });
            account.status().plan = None;
        }
        if let (Some(point), true) = (&journal.restore_point, end == End::Installed) {
            account.status().restore_point = Some(RestorePointStatus {
                kind: point.kind.clone(),
                id: point.id.clone(),
                before: bundle.clone(),
            });
        }
        if end == End::Installed
            && let (Some(closed), Some(ended)) = (journal.window_ends, journal.ended)
            && ended > closed
        {
            notes.push(format!(
                "it ended {} min after its window had closed",
                ended.since(closed).max(0) / 60 + 1
            ));
        }
        let notes: String = notes.iter().map(|note| format!("; {note}")).collect();
        let id = &journal.id;
        if let Err(error) = transaction::conclude(end, journal, by_hand) {
            return Err(if notes.is_empty() { error } else { error.with(&notes) });
        }
        if end == End::Returned {
            let way = match &journal.restore_point {
                Some(point) => format!("by the restore point {} ({})", point.id, point.kind),
                None => {
                    "by its packages alone, which is the weaker way: what their scripts did stays".to_owned()
                }
            };
            let why = journal.message.clone().unwrap_or_default();
            let message = format!(
                "the node is as it was before bundle {}, {way}: {why} (transaction {id}){notes}",
                bundle.version
            );
            return Ok(account.said(Outcome::RolledBack, NodeState::UpToDate, message));
        }
        let run = Run { seconds: journal.seconds, packages: changes };
        if let Err(error) = pace::remember(&node.private("runs.json"), run) {
            log::warn!("{error}");
        }
        let message =
            format!("bundle {}: {changes} packages changed (transaction {id}){notes}", bundle.version);
        account.status().installed =
            Some(InstalledStatus { bundle, at: node.now(), packages: changes, inventory });
        account.status().plan = None;
        Ok(account.said(Outcome::Installed, NodeState::UpToDate, message))
    }

    /// What there is to say while a boot is waited for.
    fn wait_for_boot(&self, journal: &Journal, account: &mut Account<'_>) -> Result<Said> {
        account.awaits_boot();
        let what = match journal.state {
            State::Rebooting => format!(
                "bundle {} is installed and takes effect at the next boot, after which the node is judged once more",
                journal.bundle.version
            ),
            _ => format!(
                "the node goes back from bundle {} at the next boot: {}",
                journal.bundle.version,
                journal.message.clone().unwrap_or_default()
            ),
        };
        let when = match self.gate {
            _ if self.may_boot() && self.boots_by_itself(journal.reboot()) => "it is booted now".to_owned(),
            _ if !self.boots_by_itself(journal.reboot()) => {
                "somebody must boot it, for [reboot] policy is never".to_owned()
            }
            Gate::Closed { until } => format!("it is booted when the maintenance window opens, at {until}"),
            Gate::Open { .. } => "it is booted in the maintenance window".to_owned(),
        };
        Err(Error::new(Exit::Deferred, format!("{what}; {when} (transaction {})", journal.id), ""))
    }

    /// `wanted`: what the journal says about it.
    fn boots_by_itself(&self, wanted: Option<Reboot>) -> bool {
        self.now || wanted.unwrap_or_else(|| reboot::policy(self.node, None)) != Reboot::Never
    }

    /// Everything is done but the telling: refusals, status and report first, and only then is the journal forgotten, so
    /// that whatever fails in between is told by the next run. Then the boot, where one is needed and may be.
    ///
    /// # Errors
    /// Those of the step; or if something could not be written.
    pub fn close(&self, refused: &mut Quarantine, account: Account<'_>, result: Result<Said>) -> Result<()> {
        let node = self.node;
        match (&result, account.bundle()) {
            (Ok(said), _) if said.outcome == Outcome::Installed => refused.retain(|_| false)?,
            (Err(error), Some(bundle))
                if matches!(error.exit, Exit::InstallFailed | Exit::RolledBack | Exit::NeedsPerson) =>
            {
                refused.put(bundle, error, node.now(), QuarantineEnd::ByHand)?;
            }
            (Ok(said), _) if said.outcome == Outcome::RolledBack => {
                // Who took the node back by hand does not want the same bundle again at the next timer.
                if let Found::Open(journal) = Journal::open(&path(node))?
                    && journal.end() == Some(End::Returned)
                    && journal.wanted_by == Some(Cause::Operator)
                {
                    let why = Error::new(Exit::RolledBack, &said.message, "");
                    refused.put(&journal.bundle, &why, node.now(), QuarantineEnd::ByHand)?;
                }
            }
            _ => {}
        }
        let awaits_boot = account.is_awaiting_boot();
        let (result, is_told) = account.close_told(result);
        let journal = match Journal::open(&path(node))? {
            Found::Open(journal) if journal.end().is_some() => {
                if is_told {
                    transaction::checkpoint(journal.state, "after");
                    self.restore.points.forget()?;
                    journal.close()?;
                }
                return result;
            }
            Found::Open(journal) => Some(*journal),
            Found::Nothing | Found::Damaged(_) => None,
        };
        // That a boot is waited for may not have been written.
        let waits = awaits_boot || journal.as_ref().is_some_and(|j| j.state.step() == Step::Wait);
        let before = journal.as_ref().and_then(|j| j.boot.as_ref());
        let was_booted = before.is_some_and(|before| *before != reboot::boot_id(node));
        let wanted = journal.as_ref().and_then(Journal::reboot);
        if waits && !was_booted && self.may_boot() && self.boots_by_itself(wanted) {
            reboot::boot(node)?;
        }
        result
    }

    /// Takes the node back from the last install that went well.
    ///
    /// # Errors
    /// Deferred, if there is nothing to go back to; how it ended.
    pub fn undo(&self, last: Journal, cause: Cause, why: String, account: &mut Account<'_>) -> Result<Said> {
        account.about(&last.bundle);
        if let Some(point) = &last.restore_point
            && !self.restore.points.is_there(point)?
        {
            let what = format!(
                "the restore point {} from before bundle {} is not there any more",
                point.id, last.bundle.version
            );
            return Err(Error::new(Exit::Deferred, what, "nothing was changed"));
        }
        // Another install may have been begun since, and not have come to its end.
        let bytes = file::read_limited(&self.node.private("last-before"), MAX_INDEX)?.unwrap_or_default();
        file::replace(&self.node.private("before"), &bytes, 0o600)?;
        let before = Inventory::from_text(&String::from_utf8_lossy(&bytes));
        let journal = last.undo(&path(self.node), cause, why, self.node.now())?;
        self.transact(None, before, journal, account)
    }
}

/// Whether the policy's bundle is older than the last one that was installed here, and the way back leads there: the
/// journal to undo. `wanted`: what the policy names.
///
/// # Errors
/// Deferred, if it is older and there is no way.
pub fn goes_back(node: &Node, wanted: &BundleRef, refused: &Quarantine) -> Result<Option<Journal>> {
    let Some(last) = last(node).filter(|last| last.bundle.serial > wanted.serial) else { return Ok(None) };
    let no_way = |why: String| {
        let what = format!(
            "the policy has gone back to bundle {}, and this node has {}: {why}",
            wanted.version, last.bundle.version
        );
        Err(Error::new(Exit::Deferred, what, "nothing was changed"))
    };
    if let Some(q) = refused.of(&last.bundle.index) {
        return no_way(format!("an earlier try to go back did not succeed ({})", q.reason));
    }
    match &last.previous {
        Some(previous) if previous.serial > wanted.serial => {
            no_way(format!("its way back leads to {} only", previous.version))
        }
        _ => Ok(Some(last)),
    }
}
