//! RolloutPlan: how one bundle spreads over the nodes of one policy, signed beside the policy, decided on each node.
//!
//! The build tool makes the plan out of a policy's `rolloutStrategy` when it publishes the policy; each node finds its own
//! place in it, from nothing but its id, its labels and the signed bytes, so that a rollout goes on (and stops) while the
//! centre is away. The fleet server reads the same plan to count nodes by batch. Here are the values, their rules and that
//! arithmetic. What is not here: windows and time zones (whoever makes a plan has counted them into the times), and who may
//! sign.
//!
//! **Positions.** A node stands at a place from 0 to 999,999 that is a hash of policy, bundle version and node id: another
//! order for each rollout, so that it is not the same nodes that are always first. A step lets everybody go whose position
//! is below its `upTo`; steps are cumulative, and the last one is everybody. So each node is in exactly one batch, a node
//! that joins the fleet later is in one too, and a fleet that has grown has larger batches, not more. Canaries, chosen by
//! label, are in the first step whatever their position.
//!
//! A document that says anything unknown is refused: half of a plan is another plan.

mod read;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeMap;
use std::fmt;

use crate::digest::Sha256;
use crate::json::Json;
use crate::name::{BundleVersion, InvalidName, NodeId, TargetPath};
use crate::policy::{Amount, Namespace, PatchPolicy, Percent, PolicyError, PolicyName, Selector};
use crate::time::UnixTime;

/// The `kind` of a plan.
pub const KIND: &str = "RolloutPlan";

/// The longest plan, in bytes, both as it is read and in canonical form.
pub const MAX_PLAN: usize = 128 * 1024;

/// The most steps: as many as 100,000 nodes in batches of 100 need. Every node fetches all of them.
pub const MAX_STEPS: usize = 1024;

/// The most entries of [`RolloutPlan::history`]; the oldest go first, but never the first of all.
pub const MAX_HISTORY: usize = 32;

/// The longest reason, and the longest name of whoever gave it, in characters.
pub const MAX_REASON: usize = 400;
/// See [`MAX_REASON`].
pub const MAX_BY: usize = 100;

/// Positions are from 0 to one less than this: parts per million.
pub const POSITIONS: u32 = 1_000_000;

/// The most nodes that a plan is made for.
pub const MAX_NODES: u64 = 10_000_000;

/// The most turns of a site ([`RolloutPlan::site_turns`]): one node of a hundred at a time.
pub const MAX_SITE_TURNS: u32 = 100;

/// How long a turn of a site takes, in seconds: about what an install takes.
pub const SITE_TURN: i64 = 15 * 60;

/// How one bundle spreads over one policy's nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutPlan {
    /// `policy`, before the stroke.
    pub namespace: Namespace,
    /// `policy`, after it.
    pub name: PolicyName,
    /// The bundle that it is about: that of the policy beside it.
    pub bundle_version: BundleVersion,
    /// What the policy's nodes had before: where `policy rollback` goes back to.
    pub previous: Option<BundleVersion>,
    /// The version that was left by `policy rollback`. As long as Git still names it, publishing leaves the policy where it is.
    pub rolled_back_from: Option<BundleVersion>,
    /// Who refused the bundle before this time may try it again (`policy release`). Publishing from Git writes it into the
    /// policy, which is where nodes read it.
    pub released: Option<UnixTime>,
    /// When this version was first published; a republication keeps it.
    pub started_at: UnixTime,
    /// The number of nodes that it was made for, canaries included; none, where only shares of them were needed.
    pub nodes: Option<u64>,
    /// Whether [`PlanStep::not_before`] is a time of the clock on each node's own wall, written as if it were UTC: the policy
    /// has windows and names no time zone.
    pub local_time: bool,
    /// Those who are in the first step, wherever they stand.
    pub canary: Option<Selector>,
    /// At least one. `upTo` rises and the times do not fall; with canaries the first `upTo` is 0, and the last is
    /// [`POSITIONS`].
    pub steps: Vec<PlanStep>,
    /// As many nodes of one site may be patching at a time.
    pub max_unavailable_per_site: Option<Amount>,
    /// Where a node has no lock server to ask: of how many turns the nodes of a site take one each ([`site_turn`]).
    pub site_turns: Option<u32>,
    /// The fleet server halts the rollout once more than this share of the finished nodes failed.
    pub failure_threshold: Option<Percent>,
    /// Whether nodes may begin.
    pub state: PlanState,
    /// What was done with this rollout, the oldest first; the last one that changed `state` says why.
    pub history: Vec<Act>,
}

/// From then on, these nodes may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanStep {
    /// All whose position is below this.
    pub up_to: u32,
    /// Not before.
    pub not_before: UnixTime,
}

/// Whether nodes may begin. An install that has begun is never interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PlanState {
    /// `running`: as the steps say.
    Running,
    /// `paused`: by somebody, for now.
    Paused,
    /// `halted`: because too much failed, or somebody says so. To nodes it is the same as paused.
    Halted,
}

impl PlanState {
    /// All of them.
    pub const ALL: [PlanState; 3] = [PlanState::Running, PlanState::Paused, PlanState::Halted];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            PlanState::Running => "running",
            PlanState::Paused => "paused",
            PlanState::Halted => "halted",
        }
    }
}

impl fmt::Display for PlanState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something that was done with a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    /// When.
    pub at: UnixTime,
    /// What.
    pub action: Action,
    /// By whom: as they or the server that asked for it gave the name.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// What can be done with a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// `publish`: the plan was made.
    Publish,
    /// `retime`: the policy's windows changed, and what had not begun was given new times.
    Retime,
    /// `pause`
    Pause,
    /// `halt`
    Halt,
    /// `resume`
    Resume,
    /// `rollback`: the policy was taken back to an older bundle.
    Rollback,
    /// `release`: nodes that refused the bundle may try it again.
    Release,
}

impl Action {
    /// All of them.
    pub const ALL: [Action; 7] = [
        Action::Publish,
        Action::Retime,
        Action::Pause,
        Action::Halt,
        Action::Resume,
        Action::Rollback,
        Action::Release,
    ];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Publish => "publish",
            Action::Retime => "retime",
            Action::Pause => "pause",
            Action::Halt => "halt",
            Action::Resume => "resume",
            Action::Rollback => "rollback",
            Action::Release => "release",
        }
    }
}

/// What a plan says to one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its step has begun.
    Go {
        /// Which, from 0.
        step: usize,
    },
    /// Its step has not begun.
    Wait {
        /// Which, from 0.
        step: usize,
        /// When it begins.
        not_before: UnixTime,
    },
    /// Nobody may begin.
    Stopped,
}

/// Where a node stands in the order of one rollout: from 0 to [`POSITIONS`] − 1, even over a fleet, and in another order
/// for each policy and bundle version.
pub fn position(policy: &str, version: &BundleVersion, node: &NodeId) -> u32 {
    number(&format!("prestage rollout\n{policy}@{version}\n{node}"), POSITIONS)
}

/// Which of `turns` turns (of [`SITE_TURN`] seconds each, one after the other, over and over) is a node's: another one
/// each day (counted in UTC), so that no node is for ever behind the end of a short window. On average as many nodes
/// of a site are in one turn as may be; chance makes it more or less. An exact bound needs a lock server.
pub fn site_turn(site: &str, node: &NodeId, now: UnixTime, turns: u32) -> u32 {
    let day = now.0.div_euclid(86_400);
    number(&format!("prestage site\n{site}\n{node}\n{day}"), turns.max(1))
}

/// When that turn is on, or comes next: its beginning, not after `now` if it is on.
pub fn turn_begins(turn: u32, turns: u32, now: UnixTime) -> UnixTime {
    let turns = i64::from(turns.max(1));
    let slot = now.0.div_euclid(SITE_TURN);
    let ahead = (i64::from(turn) - slot).rem_euclid(turns);
    UnixTime(slot.saturating_add(ahead).saturating_mul(SITE_TURN))
}

fn number(what: &str, span: u32) -> u32 {
    let digest = Sha256::of(what.as_bytes());
    let number = digest.0.iter().take(8).fold(0u64, |n, byte| n << 8 | u64::from(*byte));
    // Below `span`.
    ((u128::from(number) * u128::from(span)) >> 64) as u32
}

impl RolloutPlan {
    /// Reads a published plan.
    ///
    /// # Errors
    /// If it is too long, no strict JSON, or says anything that is unknown, missing or wrong.
    pub fn from_json(bytes: &[u8]) -> Result<Self, PolicyError> {
        if bytes.len() > MAX_PLAN {
            return Err(PolicyError::TooLong);
        }
        read::plan(&Json::parse(bytes).map_err(PolicyError::Json)?).map_err(PolicyError::Problems)
    }

    /// The plan as it is published: canonical JSON.
    pub fn to_json(&self) -> Vec<u8> {
        write::plan(self).canonical()
    }

    /// The policy's `NAMESPACE/NAME`.
    pub fn policy(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Where it is published: `policies/NAMESPACE/NAME/rollout.json`.
    ///
    /// # Errors
    /// Never for a valid plan: its names are words and short enough.
    pub fn target_path(&self) -> Result<TargetPath, InvalidName> {
        format!("policies/{}/rollout.json", self.policy()).parse()
    }

    /// Whether it is the plan of this policy as it is now.
    pub fn is_of(&self, policy: &PatchPolicy) -> bool {
        (&self.namespace, &self.name, &self.bundle_version)
            == (&policy.namespace, &policy.name, &policy.bundle.version)
    }

    /// The step, from 0, with which a node may begin.
    pub fn step_of(&self, node: &NodeId, labels: &BTreeMap<String, String>) -> usize {
        if self.canary.as_ref().is_some_and(|canary| canary.matches(labels)) {
            return 0;
        }
        let position = position(&self.policy(), &self.bundle_version, node);
        // The last step is everybody.
        self.steps.iter().position(|step| position < step.up_to).unwrap_or(self.steps.len().saturating_sub(1))
    }

    /// What it says to a node with these labels. `now` is the time on the node's wall, as if it were UTC, where the plan is
    /// in [local time](Self::local_time).
    pub fn standing(&self, node: &NodeId, labels: &BTreeMap<String, String>, now: UnixTime) -> Standing {
        if self.state != PlanState::Running {
            return Standing::Stopped;
        }
        let step = self.step_of(node, labels);
        match self.steps.get(step) {
            Some(it) if it.not_before > now => Standing::Wait { step, not_before: it.not_before },
            _ => Standing::Go { step },
        }
    }

    /// How many steps have begun.
    pub fn begun(&self, now: UnixTime) -> usize {
        self.steps.iter().filter(|step| step.not_before <= now).count()
    }

    /// A step in words: `the canaries`, `batch 2 of 12`.
    pub fn step_name(&self, step: usize) -> String {
        match (&self.canary, step) {
            (Some(_), 0) => "the canaries".to_owned(),
            (Some(_), n) => format!("batch {n} of {}", self.steps.len().saturating_sub(1)),
            (None, n) => format!("batch {} of {}", n.saturating_add(1), self.steps.len()),
        }
    }

    /// The act that brought the present state, if one did: who stopped it, when and why.
    pub fn last_control(&self) -> Option<&Act> {
        self.history
            .iter()
            .rfind(|act| !matches!(act.action, Action::Publish | Action::Retime | Action::Release))
    }

    /// Writes down what was done; of too many acts the oldest go.
    pub fn record(&mut self, act: Act) {
        self.history.push(act);
        if self.history.len() > MAX_HISTORY {
            // The first one says who began it.
            self.history.remove(1);
        }
    }
}

/// Makes of what somebody typed a reason, or a name, that can stand in a plan and be shown anywhere: one line, not too long.
pub fn one_line(text: &str, longest: usize) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.trim().chars().take(longest).collect()
}
