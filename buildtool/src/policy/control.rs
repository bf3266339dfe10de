//! What can be done with a rollout that is published: stop it, let it go on, take it back, let nodes that
//! refused the bundle try it again. Pure.
//!
//! One act, one publication: so that the fleet server can halt a rollout by calling one command. Git stays what counts: the
//! next publication from there says what it finds ([`super::publication`]).

use format::name::BundleVersion;
use format::policy::MAX_ENTRIES;
use format::rollout::{Action, PlanState, RolloutPlan};
use format::time::UnixTime;

use super::diff::is_older;
use super::fleet::Fleet;
use super::publication::Published;
use super::rollout::{self, Begun};
use crate::export;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Nobody begins, for now.
    Pause,
    /// Nobody begins, because something is wrong.
    Halt,
    /// Who was stopped goes on.
    Resume,
    /// Back to this bundle; without one, to the one before.
    Rollback(Option<BundleVersion>),
    /// Who refused the bundle may try it again.
    Release {
        /// The policy's bundle.
        version: BundleVersion,
        /// If it was refused before this time.
        before: UnixTime,
    },
}

impl Control {
    fn action(&self) -> Action {
        match self {
            Control::Pause => Action::Pause,
            Control::Halt => Action::Halt,
            Control::Resume => Action::Resume,
            Control::Rollback(_) => Action::Rollback,
            Control::Release { .. } => Action::Release,
        }
    }
}

/// What came of it: the policy and its plan as they are to be published, and what to tell. Nothing to publish where it is so
/// already.
pub type Controlled = (Option<Published>, String);

/// Does it with one policy.
///
/// # Errors
/// Why it cannot be done.
pub fn control(
    published: &Published,
    what: &Control,
    begun: &Begun<'_>,
    bundles: &[export::Published],
) -> Result<Controlled, String> {
    let id = published.policy.id();
    let state = match what {
        Control::Pause => PlanState::Paused,
        Control::Halt => PlanState::Halted,
        Control::Resume => PlanState::Running,
        Control::Rollback(to) => return roll_back(published, to.as_ref(), begun, bundles),
        Control::Release { version, before } => return release(published, version, *before, begun),
    };
    let mut plan = current(published, begun)?;
    let was = plan.state;
    let left = plan.rolled_back_from.clone();
    // A halt says more than a pause.
    let is_so = was == state || (was, state) == (PlanState::Halted, PlanState::Paused);
    if is_so && (state != PlanState::Running || left.is_none()) {
        let who = plan.last_control().map(|act| format!(" since {}, by {} ({})", act.at, act.by, act.reason));
        return Ok((None, format!("{id}: is {was} already{}", who.unwrap_or_default())));
    }
    if state == PlanState::Running {
        if was != PlanState::Running {
            let stopped = plan.last_control().map_or(plan.started_at, |act| act.at);
            rollout::retime(&mut plan, &published.policy, stopped, begun.now)?;
        }
        plan.rolled_back_from = None;
    }
    plan.state = state;
    plan.record(begun.act(what.action()));
    let mut said = format!("{id}: {was} → {state} ({}, {})", begun.by, begun.reason);
    if let Some(left) = left.filter(|_| state == PlanState::Running) {
        said += &format!("; what Git says of it counts again, bundle {left} included");
    }
    Ok((Some(Published { policy: published.policy.clone(), plan: Some(plan) }), said))
}

/// The plan of a policy as it is; one in which everybody may begin, where it has none.
fn current(published: &Published, begun: &Begun<'_>) -> Result<RolloutPlan, String> {
    match &published.plan {
        Some(plan) if plan.is_of(&published.policy) => Ok(plan.clone()),
        _ => {
            let mut plain = published.policy.clone();
            // Batches of nobody knows how many nodes cannot be made here: who has lost the plan publishes from Git.
            if plain.rollout.take().is_some() {
                return Err(format!(
                    "{} has a rolloutStrategy and no plan, so its nodes wait: publish the policies again, with --nodes or \
                     --inventory",
                    plain.id()
                ));
            }
            rollout::plan(&plain, None, begun)
        }
    }
}

/// Lets nodes try the policy's bundle again. What Git says of releases is not touched: the plan remembers this one.
fn release(
    published: &Published,
    version: &BundleVersion,
    before: UnixTime,
    begun: &Begun<'_>,
) -> Result<Controlled, String> {
    let mut policy = published.policy.clone();
    let id = policy.id();
    if *version != policy.bundle.version {
        return Err(format!(
            "{id}: its nodes are to have bundle {}: releasing {version} would change nothing",
            policy.bundle.version
        ));
    }
    // What will be refused has not been looked at by anybody.
    let before = before.min(begun.now);
    if policy.release.get(version).is_some_and(|released| *released >= before) {
        return Ok((None, format!("{id}: who refused bundle {version} before {before} is released already")));
    }
    let mut plan = current(published, begun)?;
    plan.released = Some(before);
    plan.record(begun.act(Action::Release));
    policy.release.insert(version.clone(), before);
    if policy.release.len() > MAX_ENTRIES {
        return Err(format!("{id}: its quarantine.release is full: take old bundles out of it in Git"));
    }
    let said = format!(
        "{id}: nodes that refused bundle {version} before {before} may try it again ({}, {})",
        begun.by, begun.reason
    );
    Ok((Some(Published { policy, plan: Some(plan) }), said))
}

fn roll_back(
    published: &Published,
    to: Option<&BundleVersion>,
    begun: &Begun<'_>,
    bundles: &[export::Published],
) -> Result<Controlled, String> {
    let old = &published.policy;
    let id = old.id();
    let from = &old.bundle.version;
    let plan = published.plan.as_ref().filter(|plan| plan.is_of(old));
    let to = match (to, plan.and_then(|plan| plan.previous.as_ref())) {
        (Some(version), _) | (None, Some(version)) => version.clone(),
        (None, None) => before(from, bundles).ok_or_else(|| {
            format!("{id}: which bundle it had before {from} is not known: say it with --to VERSION")
        })?,
    };
    if to == *from {
        return Ok((None, format!("{id}: has bundle {to} already")));
    }
    if !bundles.iter().any(|bundle| bundle.version == to) {
        return Err(format!("{id}: no bundle {to} is published"));
    }
    if !is_older(&to, from, bundles) {
        return Err(format!("{id}: bundle {to} is not older than {from}: raising it is a commit's business"));
    }
    let mut policy = old.clone();
    policy.bundle.version = to.clone();
    // It was for the other one.
    policy.bundle.checksum = None;
    let fleet = plan.and_then(|plan| plan.nodes).map(Fleet::Count);
    let mut new = match rollout::plan(&policy, fleet.as_ref(), begun) {
        Ok(new) => new,
        // How many nodes there are is not known; who goes back does not wait for a batch in any case.
        Err(_) => {
            let mut plain = policy.clone();
            plain.rollout = None;
            rollout::plan(&plain, None, begun)?
        }
    };
    new.history = plan.map(|plan| plan.history.clone()).unwrap_or_default();
    new.record(begun.act(Action::Rollback));
    new.rolled_back_from = Some(from.clone());
    let said = format!(
        "{id}: bundle {from} → {to}, rolled back ({}, {}); now revert it in Git",
        begun.by, begun.reason
    );
    Ok((Some(Published { policy, plan: Some(new) }), said))
}

/// The bundle before this one, where every variant that has this one has the same.
fn before(version: &BundleVersion, bundles: &[export::Published]) -> Option<BundleVersion> {
    let mut found: Option<BundleVersion> = None;
    for bundle in bundles.iter().filter(|bundle| bundle.version == *version) {
        let older =
            bundles.iter().filter(|b| b.variant == bundle.variant && b.custom.serial < bundle.custom.serial);
        let older = older.max_by_key(|b| b.custom.serial)?;
        if found.as_ref().is_some_and(|found| *found != older.version) {
            return None;
        }
        found = Some(older.version.clone());
    }
    found
}

/// When an act is done, and by whom, for the plan.
pub fn act<'a>(by: &'a str, reason: &str, now: UnixTime) -> Begun<'a> {
    Begun { now, by, reason: reason.to_owned() }
}
