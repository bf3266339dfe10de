//! What publishing policies comes to: the policies and the plans of their rollouts, out of what is published now and what Git
//! says. Pure.
//!
//! A rollout that is under way is not begun anew because somebody published again: as long as a policy names the same bundle
//! and spreads it in the same way, its plan stays, and so does a halt. Another bundle is another rollout. What was decided on
//! the published repository since (`policy rollback`) stays until Git says something else, and what is overridden is said.

use std::collections::BTreeMap;

use format::policy::PatchPolicy;
use format::rollout::{Action, PlanState, RolloutPlan};
use format::time::UnixTime;

use super::fleet::Fleet;
use super::rollout::{self, Begun};

/// A policy as it is published, and the plan of its rollout, if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The policy.
    pub policy: PatchPolicy,
    /// Its plan, whatever version of the bundle that is about.
    pub plan: Option<RolloutPlan>,
}

/// What is to be published.
#[derive(Debug, Default)]
pub struct Publication {
    /// The policies, and the plans of those that have one.
    pub policies: Vec<Published>,
    /// What a person should know.
    pub notes: Vec<String>,
    /// Why a plan cannot be made, by policy.
    pub problems: Vec<String>,
}

/// Makes of what Git says (`wanted`) and what is published what is to be published.
pub fn prepare(
    wanted: Vec<PatchPolicy>,
    published: &[Published],
    fleet: Option<&Fleet>,
    by: &str,
    now: UnixTime,
) -> Publication {
    let before: BTreeMap<String, &Published> = published.iter().map(|p| (p.policy.id(), p)).collect();
    let mut out = Publication::default();
    for mut policy in wanted {
        let id = policy.id();
        let plan = one(&mut policy, before.get(&id).copied(), fleet, by, now, &mut out.notes);
        let plan = plan.unwrap_or_else(|why| {
            out.problems.push(format!("{id}: spec.rolloutStrategy: {why}"));
            None
        });
        out.policies.push(Published { policy, plan });
    }
    out
}

/// The plan of one policy, if it has one; and the policy as it is to be published.
fn one(
    policy: &mut PatchPolicy,
    before: Option<&Published>,
    fleet: Option<&Fleet>,
    by: &str,
    now: UnixTime,
    notes: &mut Vec<String>,
) -> Result<Option<RolloutPlan>, String> {
    let id = policy.id();
    let old = before.map(|before| &before.policy);
    let plan = before.and_then(|before| before.plan.as_ref());
    let mut git_has_caught_up = false;
    if let (Some(old), Some(plan)) = (old, plan)
        && let Some(left) = &plan.rolled_back_from
    {
        let act = plan.history.iter().rfind(|act| act.action == Action::Rollback);
        let who = act.map(|act| format!(" by {} at {} ({})", act.by, act.at, act.reason)).unwrap_or_default();
        match &policy.bundle.version {
            version if version == left && *left != old.bundle.version => {
                notes.push(format!(
                    "{id}: stays at bundle {}: it was rolled back from {left}{who}, and Git still names {left}: revert that \
                     commit, or name a new bundle; policy resume {id} lets {left} be published again",
                    old.bundle.version
                ));
                policy.bundle = old.bundle.clone();
            }
            version if *version == old.bundle.version => git_has_caught_up = true,
            version => notes.push(format!("{id}: bundle {version} overrides the rollback from {left}{who}")),
        }
    }
    let is_same_rollout = plan.is_some_and(|plan| plan.is_of(policy));
    if let Some(before) = plan.filter(|_| is_same_rollout).and_then(|plan| plan.released) {
        release(policy, before);
    }
    let is_same_way = old.is_some_and(|old| old.rollout == policy.rollout);
    if let Some(plan) = plan.filter(|_| is_same_rollout && is_same_way) {
        let mut plan = plan.clone();
        if git_has_caught_up {
            plan.rolled_back_from = None;
        }
        if old.is_some_and(|old| old.schedule != policy.schedule) && plan.state == PlanState::Running {
            rollout::retime(&mut plan, policy, now, now)?;
            let begun = Begun { now, by, reason: "the maintenance window was changed".into() };
            plan.record(begun.act(Action::Retime));
            notes
                .push(format!("{id}: batches that have not begun get new times, for the window was changed"));
        }
        if plan.state != PlanState::Running {
            notes.push(format!("{id}: stays {}{}; policy resume lets it go on", plan.state, said(&plan)));
        }
        return Ok(Some(plan));
    }
    if policy.rollout.is_none() {
        return Ok(None);
    }
    // Who does not say how many nodes there are means as many as before.
    let as_before = plan.and_then(|plan| plan.nodes).map(Fleet::Count);
    let fleet = fleet.or(as_before.as_ref());
    let version = &policy.bundle.version;
    let reason = match old.map(|old| &old.bundle.version) {
        Some(old) if old != version => format!("bundle {old} → {version}"),
        Some(_) if is_same_rollout => format!("bundle {version}, in another way"),
        _ => format!("bundle {version}"),
    };
    let mut new = rollout::plan(policy, fleet, &Begun { now, by, reason })?;
    let older = old.map(|old| old.bundle.version.clone()).filter(|old| old != version);
    new.previous = older.or_else(|| plan.filter(|_| is_same_rollout).and_then(|plan| plan.previous.clone()));
    if let Some(plan) = plan {
        match is_same_rollout {
            // The same bundle in another way: who stopped it has not been asked.
            true => {
                new.state = plan.state;
                new.released = plan.released;
                let act = new.history.pop();
                new.history = plan.history.clone();
                act.into_iter().for_each(|act| new.record(act));
                notes.push(format!(
                    "{id}: its rolloutStrategy was changed: the batches of bundle {} begin anew, and nodes that have it keep it",
                    new.bundle_version
                ));
            }
            false if plan.state != PlanState::Running => notes.push(format!(
                "{id}: the rollout of bundle {} was {}{}; bundle {} is another one, and begins",
                plan.bundle_version,
                plan.state,
                said(plan),
                new.bundle_version
            )),
            false => {}
        }
    }
    notes.push(format!("{id}: {}", in_words(&new)));
    Ok(Some(new))
}

/// What was released on the published repository stays so as long as the bundle is the same; Git may say a later time.
fn release(policy: &mut PatchPolicy, before: UnixTime) {
    let released = policy.release.entry(policy.bundle.version.clone()).or_insert(before);
    *released = before.max(*released);
}

/// Who stopped it, and why.
fn said(plan: &RolloutPlan) -> String {
    plan.last_control()
        .map(|act| format!(" by {} at {} ({})", act.by, act.at, act.reason))
        .unwrap_or_default()
}

/// When a plan's batches begin.
pub fn in_words(plan: &RolloutPlan) -> String {
    let zone = if plan.local_time { ", each on its node's own clock" } else { "" };
    let nodes = plan.nodes.map(|n| format!(" of {n} nodes")).unwrap_or_default();
    let canaries = if plan.canary.is_some() { "the canaries first, then " } else { "" };
    let batches = match plan.steps.len() - usize::from(plan.canary.is_some()) {
        1 => "everybody at once".to_owned(),
        n => format!("{n} batches"),
    };
    match (plan.steps.first(), plan.steps.last()) {
        (Some(first), Some(last)) if plan.steps.len() > 1 => format!(
            "{canaries}{batches}{nodes}, the first from {}, the last from {}{zone}",
            first.not_before, last.not_before
        ),
        (first, _) => {
            format!("{batches}{nodes}, from {}{zone}", first.map_or(plan.started_at, |step| step.not_before))
        }
    }
}

#[cfg(test)]
#[path = "publication_tests.rs"]
mod tests;
