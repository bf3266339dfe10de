//! When to come again after a failure: pure, like [`crate::spread`], of which this is the part for bad days.
//!
//! Waits grow with *decorrelated jitter*: each is drawn between the first wait and three times the one before, up to a
//! cap. Nodes that failed together, because their data centre was away, so drift apart instead of knocking together.
//! A server's Retry-After is a lower bound. And a day has a budget: a repository that is broken for everybody is not
//! asked by everybody all day long. A try that brought something new costs nothing of all this.

use format::name::NodeId;
use format::time::UnixTime;

use crate::spread::{Pace, State, Why, place};

/// The longest Retry-After that is obeyed: a server that says "next year" has a bug.
const LONGEST_ASKED: i64 = 86_400;

const DAY: i64 = 86_400;

impl State {
    /// A run has failed. `asked`: how many seconds a server wants to be left alone. `progress`: whether the run brought
    /// anything new, however little; a thin line that breaks off all the time is not to be punished for it.
    #[must_use]
    pub fn failed(
        mut self,
        node: &NodeId,
        pace: &Pace,
        asked: Option<i64>,
        progress: bool,
        now: UnixTime,
    ) -> Self {
        if progress {
            (self.failures, self.delay) = (0, 0);
        } else {
            self.failures = self.failures.saturating_add(1);
            let day = day_of(node, now);
            self.tries = if day == self.day { self.tries.saturating_add(1) } else { 1 };
            self.day = day;
        }
        let first = pace.retry_first.max(1);
        let dice = |span| place(node, &format!("retry {} {now}", self.failures), span);
        let longest = self.delay.max(first).saturating_mul(3);
        let delay = if progress {
            first / 2 + dice(first)
        } else {
            (first + dice(longest - first)).min(pace.retry_cap.max(first))
        };
        self.delay = delay;
        (self.retry_at, self.retry_why) = (Some(now.plus(delay)), Some(Why::Failed));
        if let Some(asked) = asked {
            // The same answer goes to many, so each adds a bit of its own.
            let until =
                now.plus(asked.clamp(0, LONGEST_ASKED) + dice(first.max(asked / 4).min(pace.retry_cap)));
            if self.retry_at < Some(until) {
                (self.retry_at, self.retry_why) = (Some(until), Some(Why::Asked));
            }
        }
        let tomorrow = UnixTime((self.day + 1) * DAY + place(node, "day", DAY));
        if !progress && self.tries >= pace.tries_per_day.max(1) && self.retry_at < Some(tomorrow) {
            (self.retry_at, self.retry_why) = (Some(tomorrow), Some(Why::Budget));
        }
        self
    }
}

/// The number of the day, in days that begin at the node's own time: or midnight would be when everybody comes.
fn day_of(node: &NodeId, now: UnixTime) -> i64 {
    now.0.saturating_sub(place(node, "day", DAY)).div_euclid(DAY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spread::Decision;

    const START: UnixTime = UnixTime(1_795_000_000);

    fn node(i: usize) -> NodeId {
        format!("node-{i}").parse().unwrap()
    }

    /// Fails at every try; the times of the tries.
    fn tries(node: &NodeId, pace: &Pace, seconds: i64) -> Vec<UnixTime> {
        let (mut state, mut now, mut out) = (State::new(), START, Vec::new());
        while now.since(START) < seconds {
            out.push(now);
            state = state.failed(node, pace, None, false, now);
            let Decision::Wait { until, .. } = state.poll(now) else { panic!("a failure is waited after") };
            now = until;
        }
        out
    }

    #[test]
    fn waits_grow_up_to_the_cap_and_a_day_has_a_budget() {
        let pace = Pace { tries_per_day: 10, ..Pace::default() };
        for i in 0..200 {
            let times = tries(&node(i), &pace, 5 * DAY);
            for pair in times.windows(2) {
                let pause = pair[1].since(pair[0]);
                assert!(pause >= pace.retry_first && pause <= DAY, "{pause}");
            }
            assert!(times.len() <= 6 * 10, "{} tries in 5 days", times.len());
            assert!(times.len() >= 5, "{} tries in 5 days", times.len());
        }
    }

    #[test]
    fn a_fleet_that_failed_together_does_not_come_again_together() {
        let pace = Pace::default();
        // The data centre is away for six hours; every node asks for the first time within the same minute.
        let mut later: Vec<i64> = Vec::new();
        for i in 0..5000 {
            later.extend(
                tries(&node(i), &pace, 12 * 3600).iter().map(|t| t.since(START)).find(|t| *t >= 6 * 3600),
            );
        }
        let mut minutes = std::collections::BTreeMap::new();
        for time in &later {
            *minutes.entry(time / 60).or_insert(0) += 1;
        }
        let peak = minutes.values().max().copied().unwrap_or(0);
        assert!(peak <= 5000 / 50, "{peak} of 5000 in one minute");
    }

    #[test]
    fn retry_after_is_obeyed_and_bounded_and_each_adds_its_own() {
        let pace = Pace::default();
        let until =
            |i, asked| match State::new().failed(&node(i), &pace, Some(asked), false, START).poll(START) {
                Decision::Wait { until, why } => (until.since(START), why),
                Decision::Go => panic!("it must wait"),
            };
        let times: std::collections::BTreeSet<i64> = (0..100).map(|i| until(i, 7200).0).collect();
        assert!(times.iter().all(|t| (7200..7200 + 1800).contains(t)) && times.len() > 50, "{times:?}");
        assert_eq!(until(1, 7200).1, Why::Asked);
        assert!(until(1, i64::MAX).0 <= DAY + pace.retry_cap);
        assert!(until(1, -5).0 >= pace.retry_first, "an answer of nonsense shortens nothing");
    }

    #[test]
    fn progress_costs_no_budget_and_no_growing_wait() {
        let (pace, node) = (Pace { tries_per_day: 3, ..Pace::default() }, node(1));
        let (mut state, mut now) = (State::new(), START);
        for _ in 0..50 {
            state = state.failed(&node, &pace, None, true, now);
            let Decision::Wait { until, why } = state.poll(now) else { panic!("it must wait") };
            assert!(until.since(now) <= pace.retry_first * 3 / 2 && why == Why::Failed);
            now = until;
        }
        assert_eq!(state.failures, 0);
    }

    #[test]
    fn a_success_forgets_the_failures() {
        let (pace, node) = (Pace::default(), node(1));
        let state = State::new().failed(&node, &pace, None, false, START).polled(&node, &pace, None, START);
        assert_eq!((state.failures, state.delay, state.retry_at), (0, 0, None));
    }
}
