//! How far a policy's bundle has come, and whether it must be stopped or has got stuck. Pure.
//!
//! A node is in the batch that the signed plan gives it (`format::rollout`); a policy without a plan has one batch.

use std::collections::BTreeMap;

use format::digest::Sha256;
use format::policy::{PatchPolicy, RolloutType, select};
use format::rollout::{PlanState, RolloutPlan};
use format::time::UnixTime;
use serde_json::{Value, json};

use crate::ingest::apply::{read_labels, word};
use crate::store::rollouts::{Member, Seen};

/// How nodes of a batch are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All of them.
    pub nodes: u64,
    /// Have neither staged nor begun it.
    pub waiting: u64,
    /// Have it staged.
    pub staged: u64,
    /// Are at it.
    pub installing: u64,
    /// Have it.
    pub installed: u64,
    /// Could not verify or install it, or need a person.
    pub failed: u64,
    /// Had it, and went back.
    pub rolled_back: u64,
    /// Have not been heard of, and did not have it then.
    pub silent: u64,
}

/// A batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// `canary`, or its number.
    pub name: String,
    /// Millionths, cumulative.
    pub up_to: u32,
    /// When it begins.
    pub not_before: Option<i64>,
    /// Its nodes.
    pub counts: Counts,
}

/// A policy's bundle on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// The policy's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What exactly is published: of the policy in canonical form.
    pub policy_sha256: Sha256,
    /// The bundle.
    pub bundle: String,
    /// `running`, `paused`, `halted`, `done`, `unplanned`.
    pub state: &'static str,
    /// The signed plan.
    pub plan: Option<RolloutPlan>,
    /// `RollingUpdate` or `AllAtOnce`.
    pub strategy: Option<&'static str>,
    /// Percent.
    pub failure_threshold: Option<u8>,
    /// Nodes of a site.
    pub max_unavailable_per_site: Option<String>,
    /// Its batches.
    pub batches: Vec<Batch>,
    /// All of them together.
    pub all: Counts,
    /// Nodes that have ended, well or badly.
    pub finished: u64,
    /// Of these, badly.
    pub failed: u64,
    /// Why it does not go on.
    pub stuck: Option<String>,
    /// Why it must be halted.
    pub must_halt: Option<String>,
}

/// What it is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Now.
    pub now: i64,
    /// Who was not heard of since then is silent.
    pub silent_before: i64,
    /// Without progress for so many seconds it is stuck.
    pub stuck_after: i64,
    /// So many must have finished before a share of failures is believed.
    pub smallest_sample: u64,
}

/// Which policy each node has: the one that it says it follows, if there is such a one; otherwise the one for its labels.
pub fn members<'m>(policies: &[PatchPolicy], nodes: &'m [Member]) -> BTreeMap<String, Vec<&'m Member>> {
    let mut out: BTreeMap<String, Vec<&Member>> = BTreeMap::new();
    let ids: Vec<String> = policies.iter().map(PatchPolicy::id).collect();
    for node in nodes {
        let id = match ids.iter().find(|id| **id == node.policy) {
            Some(id) => id.clone(),
            None => match select(policies, &read_labels(&node.labels)) {
                Ok(Some(policy)) => policy.id(),
                _ => continue,
            },
        };
        out.entry(id).or_default().push(node);
    }
    out
}

/// Counts a policy's nodes and judges whether it must be halted; whether it is stuck, [`Rollout::judge_progress`] does.
pub fn look(policy: &PatchPolicy, plan: Option<&RolloutPlan>, nodes: &[&Member], rules: Rules) -> Rollout {
    // A plan of an older bundle says nothing about this one.
    let plan = plan.filter(|plan| plan.is_of(policy));
    let bundle = policy.bundle.version.to_string();
    let mut batches: Vec<Batch> = match plan {
        Some(plan) => plan.steps.iter().enumerate().map(|(at, step)| batch(plan, at, step)).collect(),
        None => {
            vec![Batch { name: "1".into(), up_to: 1_000_000, not_before: None, counts: Counts::default() }]
        }
    };
    let mut all = Counts::default();
    for node in nodes {
        let step = plan.map_or(0, |plan| match node.id.parse() {
            Ok(id) if plan.canary.is_some() => plan.step_of(&id, &read_labels(&node.labels)),
            Ok(id) => plan.step_of(&id, &BTreeMap::new()),
            Err(_) => 0,
        });
        let started = plan.map_or(0, |plan| plan.started_at.0);
        if let Some(batch) = batches.get_mut(step) {
            count(&mut batch.counts, node, &bundle, started, rules.silent_before);
        }
        count(&mut all, node, &bundle, started, rules.silent_before);
    }
    let failed = all.failed + all.rolled_back;
    let finished = all.installed + failed;
    let threshold = policy.rollout.as_ref().and_then(|rollout| rollout.failure_threshold).map(|p| p.get());
    let threshold = plan.and_then(|plan| plan.failure_threshold).map(|p| p.get()).or(threshold);
    let running = plan.is_some_and(|plan| plan.state == PlanState::Running) && !policy.paused;
    let done = all.nodes > 0 && all.installed == all.nodes;
    let state = match plan {
        _ if policy.paused => "paused",
        Some(plan) if plan.state != PlanState::Running => plan.state.as_str(),
        _ if done => "done",
        Some(_) => "running",
        None => "unplanned",
    };
    let canaries =
        plan.filter(|plan| plan.canary.is_some()).and_then(|_| batches.first()).map(|it| it.counts);
    let must_halt = threshold
        .filter(|_| running)
        .and_then(|percent| crossed(percent, failed, finished, canaries, rules.smallest_sample));
    Rollout {
        namespace: policy.namespace.to_string(),
        name: policy.name.to_string(),
        policy_sha256: Sha256::of(&policy.to_json()),
        bundle,
        state,
        plan: plan.cloned(),
        strategy: policy.rollout.as_ref().map(|rollout| match rollout.kind {
            RolloutType::AllAtOnce => "AllAtOnce",
            RolloutType::RollingUpdate { .. } => "RollingUpdate",
        }),
        failure_threshold: threshold,
        max_unavailable_per_site: policy
            .rollout
            .as_ref()
            .and_then(|rollout| rollout.max_unavailable_per_site)
            .map(|amount| amount.to_string()),
        batches,
        all,
        finished,
        failed,
        stuck: None,
        must_halt,
    }
}

fn batch(plan: &RolloutPlan, at: usize, step: &format::rollout::PlanStep) -> Batch {
    let name = match (&plan.canary, at) {
        (Some(_), 0) => "canary".to_owned(),
        (Some(_), n) => n.to_string(),
        (None, n) => (n + 1).to_string(),
    };
    Batch { name, up_to: step.up_to, not_before: Some(step.not_before.0), counts: Counts::default() }
}

/// Where a node is in it. What happened before the rollout began is no part of it.
fn count(counts: &mut Counts, node: &Member, bundle: &str, started: i64, silent_before: i64) {
    counts.nodes += 1;
    let ended = node.outcome_bundle == bundle && node.outcome_at >= started;
    if ended && node.outcome == "rolledBack" {
        counts.rolled_back += 1;
    } else if ended
        && ["installFailed", "needsPerson", "integrityFailure", "trustFailure"]
            .contains(&node.outcome.as_str())
    {
        counts.failed += 1;
    } else if node.bundle == bundle || (ended && node.outcome == "upToDate") {
        counts.installed += 1;
    } else if node.last_seen < silent_before {
        counts.silent += 1;
    } else if node.state == word(&format::status::State::Installing)
        || node.state == word(&format::status::State::AwaitingReboot)
    {
        counts.installing += 1;
    } else if node.staged == bundle {
        counts.staged += 1;
    } else {
        counts.waiting += 1;
    }
}

/// Why the threshold is crossed. Of few finished nodes a share says little, but canaries are there to be believed: one
/// that fails is enough, if more than the threshold of them did.
fn crossed(percent: u8, failed: u64, finished: u64, canaries: Option<Counts>, sample: u64) -> Option<String> {
    let over = |failed: u64, of: u64| of > 0 && failed * 100 > of * u64::from(percent);
    if let Some(canaries) = canaries {
        let failed = canaries.failed + canaries.rolled_back;
        let finished = failed + canaries.installed;
        if over(failed, finished) {
            return Some(format!(
                "{failed} of {finished} finished canaries failed; the threshold is {percent}%"
            ));
        }
    }
    (finished >= sample && over(failed, finished))
        .then(|| format!("{failed} of {finished} finished nodes failed; the threshold is {percent}%"))
}

impl Rollout {
    /// Finds out whether it is stuck: batches whose time has come have nodes that could go on, and none has finished for too
    /// long. `seen` says when one did last.
    pub fn judge_progress(&mut self, seen: Seen, rules: Rules) {
        let (mut since, mut waiting) = (seen.progress, 0);
        for batch in self.batches.iter().filter(|it| it.not_before.is_some_and(|time| time <= rules.now)) {
            since = since.max(batch.not_before.unwrap_or(0));
            waiting += batch.counts.waiting + batch.counts.staged + batch.counts.installing;
        }
        let late = self.state == "running" && waiting > 0 && rules.now - since > rules.stuck_after;
        self.stuck = late.then(|| {
            format!(
                "{waiting} nodes of batches that have begun could go on, and none has finished since {}",
                UnixTime(since)
            )
        });
    }

    /// `NAMESPACE/NAME`.
    pub fn policy(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// For the API, with what was done to it.
    pub fn answer(&self, actions: &[crate::store::audit::Entry]) -> Value {
        let time = |seconds: i64| UnixTime(seconds).to_string();
        let last = self.plan.as_ref().and_then(RolloutPlan::last_control);
        let batches = self.batches.iter().map(|batch| {
            let counts = batch.counts;
            json!({
                "batch": batch.name,
                "upTo": batch.up_to,
                "notBefore": batch.not_before.map(time),
                "nodes": counts.nodes,
                "waiting": counts.waiting,
                "staged": counts.staged,
                "installing": counts.installing,
                "installed": counts.installed,
                "failed": counts.failed,
                "rolledBack": counts.rolled_back,
                "silent": counts.silent,
            })
        });
        let plan: Option<Value> =
            self.plan.as_ref().and_then(|it| serde_json::from_slice(&it.to_json()).ok());
        json!({
            "namespace": self.namespace,
            "name": self.name,
            "policySha256": self.policy_sha256,
            "bundle": self.bundle,
            "state": self.state,
            "reason": last.map(|act| &act.reason),
            "by": last.map(|act| &act.by),
            "at": last.map(|act| act.at),
            "startedAt": self.plan.as_ref().map(|plan| plan.started_at),
            "strategy": self.strategy,
            "failureThreshold": self.failure_threshold,
            "maxUnavailablePerSite": self.max_unavailable_per_site,
            "nodes": self.all.nodes,
            "finished": self.finished,
            "failed": self.failed,
            "stuck": self.stuck,
            "batches": batches.collect::<Vec<_>>(),
            "plan": plan,
            "actions": actions,
        })
    }
}

#[cfg(test)]
mod tests;
