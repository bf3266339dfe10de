//! When this node acts, so that ten thousand of them never act at once: pure.
//!
//! Timers fire often and on every node alike; whether it is *this* node's time is decided here, from its id, the
//! bundle, the time and what is kept in [`State`]. The same functions decide in the agent and in the simulation of a
//! whole fleet, so the clock is a value and chance is a hash: the same node decides the same way twice.
//!
//! - A **poll** comes about once in [`Pace::poll_every`], never sooner than three quarters of it. No window makes it come
//!   sooner: the centre's load does not depend on when the windows open.
//! - A node that **was away** (switched off, or its site without power) comes back at a place of its own within one
//!   interval, and not at the minute in which the light goes on.
//! - A new bundle is fetched at the node's own **turn**: a stable place in [`Pace::spread_over`], counted from when
//!   the node first saw the bundle, or in the transfer window if there are windows.
//! - After failures [`crate::backoff`] says when to come again.

use std::fmt;

use format::digest::Sha256;
use format::name::NodeId;
use format::time::UnixTime;
use format::window::Window;

use host::schedule::{self, Gate};
use host::zone::Zone;

/// Version of the state file; another one is begun anew.
const VERSION: u32 = 1;

/// A wait that is longer comes from a clock that was wrong when it was decided, or is wrong now: no decision here makes
/// a node wait longer than a week and a day.
const LONGEST_WAIT: i64 = 8 * 86_400;

/// Which part of a transfer window is handed out as turns: what begins in the last quarter would hardly get anything.
const TURNS_NUMERATOR: i64 = 3;
const TURNS_DENOMINATOR: i64 = 4;

/// The longest transfer window.
const DAY: i64 = 86_400;

/// How a node is paced: part of its settings. All times in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// `[fetch] poll-every`: from one look at the repository to the next, on average.
    pub poll_every: i64,
    /// `[fetch] spread-over`: within what time all nodes begin to fetch a new bundle; 0: at once, windows or not.
    pub spread_over: i64,
    /// `[fetch] retry-first`: about how long to wait after a first failure.
    pub retry_first: i64,
    /// `[fetch] retry-cap`: the longest wait between two tries.
    pub retry_cap: i64,
    /// `[fetch] tries-per-day`: how many failures a day a node may cost its mirrors.
    pub tries_per_day: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            poll_every: 3600,
            spread_over: 2 * DAY,
            retry_first: 5 * 60,
            retry_cap: 6 * 3600,
            tries_per_day: 24,
        }
    }
}

/// What is kept from one run to the next. Losing it costs a poll, nothing else.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    version: u32,
    /// When to look at the repository next; none: now.
    pub next_poll: Option<UnixTime>,
    /// The bundle that this node is to fetch, or has fetched.
    pub bundle: Option<Sighting>,
    /// Failures in a row without a byte of progress.
    pub failures: u32,
    /// The last wait after a failure, in seconds: the next one is drawn from it.
    pub delay: i64,
    /// Not before this, after a failure.
    pub retry_at: Option<UnixTime>,
    /// Why not before.
    pub retry_why: Option<Why>,
    /// The day that the tries are counted for, numbered in this node's own days.
    pub day: i64,
    /// Failures of that day.
    pub tries: u32,
}

/// A bundle as this node met it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sighting {
    /// Its index's digest.
    pub index: Sha256,
    /// When this node first saw it.
    pub at: UnixTime,
    /// The end of the last transfer window in which it had a turn.
    pub window: Option<UnixTime>,
    /// In how many windows it had one before that.
    pub windows: u32,
}

/// Whether to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Now.
    Go,
    /// Not before.
    Wait {
        /// The first second at which the answer can be another one.
        until: UnixTime,
        /// Why.
        why: Why,
    },
}

/// Why a node waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// It has looked not long ago.
    Polled,
    /// It was away and comes back at a place of its own.
    Back,
    /// It has failed.
    Failed,
    /// A server has asked for it.
    Asked,
    /// It has failed too often today.
    Budget,
    /// It is another node's turn.
    Turn,
    /// The transfer window is closed.
    Window,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Polled => "it has looked not long ago",
            Why::Back => "it was away, and the fleet does not come back all at once",
            Why::Failed => "the last try failed",
            Why::Asked => "a server asked to be left alone until then",
            Why::Budget => "today's tries are used up",
            Why::Turn => "that is its own turn, so that not all nodes fetch at once",
            Why::Window => "the transfer window opens then",
        })
    }
}

/// A number in `0..span` that depends on the node and on `what` alone: even over the fleet, the same every time.
pub fn place(node: &NodeId, what: &str, span: i64) -> i64 {
    let digest = Sha256::of(format!("prestage spread\n{node}\n{what}").as_bytes());
    let number = digest.0.iter().take(8).fold(0u64, |n, byte| n << 8 | u64::from(*byte));
    let span = u128::try_from(span).unwrap_or(0);
    i64::try_from((u128::from(number) * span) >> 64).unwrap_or(0) // below `span`, which is an i64
}

impl State {
    /// As for a node that has never run.
    pub fn new() -> Self {
        State {
            version: VERSION,
            next_poll: None,
            bundle: None,
            failures: 0,
            delay: 0,
            retry_at: None,
            retry_why: None,
            day: 0,
            tries: 0,
        }
    }

    /// Whether this program can go by it.
    pub fn is_current(&self) -> bool {
        self.version == VERSION
    }

    /// To be asked before [`State::poll`]: a node whose poll is long overdue was away, with its whole site perhaps. It
    /// gets a new place within one interval from now.
    #[must_use]
    pub fn awake(mut self, node: &NodeId, pace: &Pace, now: UnixTime) -> Self {
        let due = self.retry_at.max(self.next_poll);
        if let Some(due) = due
            && now.since(due) > pace.poll_every / 2
        {
            self.next_poll = Some(now.plus(place(node, &format!("back {now}"), pace.poll_every)));
            self.retry_at = None;
            self.retry_why = Some(Why::Back);
        }
        self
    }

    /// Whether to ask a mirror for anything at all.
    pub fn poll(&self, now: UnixTime) -> Decision {
        if let Some(until) = self.retry_at {
            return wait(until, self.retry_why.unwrap_or(Why::Failed), now);
        }
        match self.next_poll {
            Some(until) => wait(until, self.retry_why.unwrap_or(Why::Polled), now),
            None => Decision::Go,
        }
    }

    /// The repository offers this bundle.
    #[must_use]
    pub fn sees(mut self, index: Sha256, now: UnixTime) -> Self {
        if self.bundle.as_ref().is_none_or(|b| b.index != index || b.at > now) {
            self.bundle = Some(Sighting { index, at: now, window: None, windows: 0 });
        }
        self
    }

    /// Whether to fetch the bundle that it [`sees`](State::sees). `windows`: the transfer windows, if there are any.
    pub fn turn(
        &self,
        node: &NodeId,
        pace: &Pace,
        windows: Option<&[Window]>,
        zone: &Zone,
        now: UnixTime,
    ) -> Decision {
        let Some(bundle) = &self.bundle else { return Decision::Go };
        let what = format!("turn {}", bundle.index);
        let Some(windows) = windows else {
            return wait(bundle.at.plus(place(node, &what, pace.spread_over)), Why::Turn, now);
        };
        match schedule::gate(Some(windows), zone, now) {
            Gate::Closed { until } => {
                let Gate::Open { until: Some(end) } = schedule::gate(Some(windows), zone, until) else {
                    return Decision::Wait { until, why: Why::Window };
                };
                let until = if pace.spread_over == 0 {
                    until
                } else {
                    turn_in_window(node, &what, bundle, until, end)
                };
                Decision::Wait { until, why: Why::Window }
            }
            Gate::Open { until: Some(end) } if pace.spread_over > 0 => {
                let start = opening(windows, zone, now, end);
                match wait(turn_in_window(node, &what, bundle, start, end), Why::Turn, now) {
                    // What was seen in the middle of a window has missed its place: it takes another in what is left.
                    Decision::Go if bundle.at > start && bundle.windows == 0 => {
                        wait(turn_in_window(node, &what, bundle, bundle.at, end), Why::Turn, now)
                    }
                    other => other,
                }
            }
            Gate::Open { .. } => Decision::Go,
        }
    }

    /// It has its turn, in the window that ends then.
    #[must_use]
    pub fn takes_turn(mut self, windows: Option<&[Window]>, zone: &Zone, now: UnixTime) -> Self {
        if let Gate::Open { until: Some(end) } = schedule::gate(windows, zone, now)
            && let Some(bundle) = &mut self.bundle
            && bundle.window != Some(end)
        {
            bundle.windows += u32::from(bundle.window.is_some());
            bundle.window = Some(end);
        }
        self
    }

    /// A mirror has answered as it should. `turn`: when there is more to do, if that is known.
    #[must_use]
    pub fn polled(mut self, node: &NodeId, pace: &Pace, turn: Option<UnixTime>, now: UnixTime) -> Self {
        let jitter = place(node, &format!("poll {now}"), pace.poll_every / 2);
        let next = now.plus(pace.poll_every - pace.poll_every / 4 + jitter);
        self.next_poll = Some(turn.map_or(next, |turn| turn.min(next).max(now)));
        self.retry_why = turn.filter(|turn| *turn < next).map(|_| Why::Turn);
        (self.failures, self.delay, self.retry_at) = (0, 0, None);
        self
    }
}

impl Default for State {
    fn default() -> Self {
        State::new()
    }
}

/// The node's place in one window. The later windows of a bundle are for the few that did not get through: they begin
/// ever earlier, so that a place near the end does not starve anybody.
fn turn_in_window(node: &NodeId, what: &str, bundle: &Sighting, start: UnixTime, end: UnixTime) -> UnixTime {
    let had = bundle.windows + u32::from(bundle.window.is_some_and(|window| window < end));
    let span = end.since(start) * TURNS_NUMERATOR / TURNS_DENOMINATOR;
    // A window that it has begun in is not left again.
    let place = if bundle.window == Some(end) { 0 } else { place(node, what, span) >> had.min(16) };
    start.plus(place)
}

/// When the window that is open now and ends at `end` was opened: searched for, because windows overlap.
fn opening(windows: &[Window], zone: &Zone, now: UnixTime, end: UnixTime) -> UnixTime {
    let is_same = |t| schedule::gate(Some(windows), zone, t) == Gate::Open { until: Some(end) };
    let (mut closed, mut open) = (now.plus(-DAY), now);
    while open.since(closed) > 1 {
        let middle = closed.plus(open.since(closed) / 2);
        if is_same(middle) {
            open = middle;
        } else {
            closed = middle;
        }
    }
    open
}

fn wait(until: UnixTime, why: Why, now: UnixTime) -> Decision {
    if until <= now || until.since(now) > LONGEST_WAIT { Decision::Go } else { Decision::Wait { until, why } }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: UnixTime = UnixTime(1_795_000_000);
    const HOUR: i64 = 3600;

    fn node(i: usize) -> NodeId {
        format!("store-{}-till-{}", i / 8, i % 8).parse().unwrap()
    }

    fn bundle() -> Sha256 {
        Sha256::of(b"bundle")
    }

    /// The most nodes that any `step` seconds hold, of these times.
    fn peak(times: &[UnixTime], step: i64) -> usize {
        let mut counts = std::collections::BTreeMap::new();
        for time in times {
            *counts.entry(time.0.div_euclid(step)).or_insert(0) += 1;
        }
        counts.into_values().max().unwrap_or(0)
    }

    fn until(decision: Decision, now: UnixTime) -> UnixTime {
        match decision {
            Decision::Go => now,
            Decision::Wait { until, .. } => until,
        }
    }

    #[test]
    fn the_turns_of_a_fleet_are_even_stable_and_within_the_horizon() {
        let pace = Pace::default();
        let turn = |i| {
            let state = State::new().sees(bundle(), START);
            until(state.turn(&node(i), &pace, None, &Zone::UTC, START), START)
        };
        let turns: Vec<UnixTime> = (0..10_000).map(turn).collect();
        assert!(turns.iter().all(|t| t.since(START) >= 0 && t.since(START) < pace.spread_over));
        // 10,000 in 48 hours are 208 an hour; six standard deviations of a binomial are 86 more.
        assert!(peak(&turns, HOUR) <= 208 + 86, "{}", peak(&turns, HOUR));
        assert_eq!(turns[77], turn(77), "a node's turn is always the same");
        // Another bundle, another order: nobody is always the last.
        let other = State::new().sees(Sha256::of(b"other"), START);
        assert_ne!(until(other.turn(&node(77), &pace, None, &Zone::UTC, START), START), turns[77]);
    }

    #[test]
    fn a_turn_that_has_come_stays_and_a_new_bundle_gets_a_new_one() {
        let (pace, node) = (Pace::default(), node(3));
        let state = State::new().sees(bundle(), START);
        let turn = until(state.turn(&node, &pace, None, &Zone::UTC, START), START);
        // Seen again, by every poll until then and after.
        let state = state.sees(bundle(), START.plus(5 * HOUR));
        for now in [turn, turn.plus(HOUR), turn.plus(3 * 86_400)] {
            assert_eq!(state.turn(&node, &pace, None, &Zone::UTC, now), Decision::Go);
        }
        let now = START.plus(2 * 86_400);
        let state = state.sees(Sha256::of(b"next"), now);
        assert!(matches!(
            state.turn(&node, &pace, None, &Zone::UTC, now),
            Decision::Wait { why: Why::Turn, .. }
        ));
    }

    #[test]
    fn turns_lie_in_the_transfer_window_and_leave_its_last_quarter_for_the_transfer() {
        let windows: Vec<Window> = vec!["Mon-Fri 20:00-06:00".parse().unwrap()];
        let zone = Zone::named("Europe/Berlin").unwrap();
        let pace = Pace::default();
        let seen: UnixTime = "2026-11-24T09:00:00Z".parse().unwrap(); // Tuesday
        let (open, close): (UnixTime, UnixTime) =
            ("2026-11-24T19:00:00Z".parse().unwrap(), "2026-11-25T05:00:00Z".parse().unwrap());
        let mut turns = Vec::new();
        for i in 0..2000 {
            let state = State::new().sees(bundle(), seen);
            let Decision::Wait { until, why } = state.turn(&node(i), &pace, Some(&windows), &zone, seen)
            else {
                panic!("the window is closed");
            };
            assert_eq!(why, Why::Window);
            assert!(open <= until && until < open.plus(close.since(open) * 3 / 4), "{until}");
            // Asked again in the open window, the answer is the same.
            let inside = open.plus(60);
            let again = state.turn(&node(i), &pace, Some(&windows), &zone, inside);
            assert_eq!(self::until(again, inside).max(inside), until.max(inside));
            assert_eq!(state.turn(&node(i), &pace, Some(&windows), &zone, until), Decision::Go);
            turns.push(until);
        }
        assert!(peak(&turns, HOUR) <= 2000 / 7 + 100, "{}", peak(&turns, HOUR));
    }

    #[test]
    fn who_did_not_get_through_begins_earlier_in_the_next_window_and_is_not_sent_away_in_this_one() {
        let windows: Vec<Window> = vec!["20:00-06:00".parse().unwrap()];
        let (zone, pace) = (Zone::UTC, Pace::default());
        let seen: UnixTime = "2026-11-24T09:00:00Z".parse().unwrap();
        let late = (0..100)
            .map(node)
            .max_by_key(|n| {
                until(State::new().sees(bundle(), seen).turn(n, &pace, Some(&windows), &zone, seen), seen)
            })
            .unwrap();
        let mut state = State::new().sees(bundle(), seen);
        let mut now = seen;
        let mut begins = Vec::new();
        for _ in 0..4 {
            now = until(state.turn(&late, &pace, Some(&windows), &zone, now), now);
            begins.push((now.0 - 20 * HOUR).rem_euclid(DAY));
            state = state.takes_turn(Some(&windows), &zone, now);
            assert_eq!(
                state.turn(&late, &pace, Some(&windows), &zone, now.plus(10)),
                Decision::Go,
                "it is at work"
            );
            now = now.plus(11 * HOUR); // closed again
        }
        assert!(begins.windows(2).all(|b| b[1] <= b[0] / 2 + 1), "{begins:?}");
    }

    #[test]
    fn polls_come_once_an_interval_whatever_the_windows_say() {
        let pace = Pace::default();
        let mut polls = Vec::new();
        for i in 0..50 {
            let (node, mut state, mut now) = (node(i), State::new(), START);
            let mut last: Option<UnixTime> = None;
            for _ in 0..400 {
                let state_now = state.clone().awake(&node, &pace, now);
                if state_now.poll(now) == Decision::Go {
                    if let Some(last) = last {
                        let pause = now.since(last);
                        assert!(pause >= pace.poll_every * 3 / 4, "{pause} s");
                        assert!(pause <= pace.poll_every * 5 / 4 + 600, "{pause} s");
                    }
                    last = Some(now);
                    polls.push(now);
                    state = state_now.polled(&node, &pace, None, now);
                } else {
                    state = state_now;
                }
                now = now.plus(600);
            }
        }
        assert!(polls.len() > 50 * 400 / 8, "{}", polls.len());
    }

    #[test]
    fn a_fleet_that_was_switched_off_does_not_come_back_at_once() {
        let pace = Pace::default();
        let back = START.plus(8 * HOUR);
        let times: Vec<UnixTime> = (0..5000)
            .map(|i| {
                let state = State::new().polled(&node(i), &pace, None, START.plus(i as i64 % HOUR));
                let state = state.awake(&node(i), &pace, back);
                // The decision is kept, so that it is the same when the timer fires again.
                assert_eq!(
                    state.clone().awake(&node(i), &pace, back.plus(60)),
                    state,
                    "the place does not move"
                );
                until(state.poll(back), back)
            })
            .collect();
        assert!(times.iter().all(|t| t.since(back) < pace.poll_every));
        assert!(peak(&times, 60) <= 5000 / 60 + 60, "{} in a minute", peak(&times, 60));
    }

    #[test]
    fn a_clock_that_was_in_the_future_holds_nobody_back() {
        let (pace, node) = (Pace::default(), node(1));
        let future = START.plus(400 * 86_400);
        let state = State::new().polled(&node, &pace, None, future).sees(bundle(), future);
        assert_eq!(state.poll(START), Decision::Go);
        let state = state.sees(bundle(), START);
        assert_eq!(state.bundle.as_ref().map(|b| b.at), Some(START));
    }

    #[test]
    fn a_turn_that_comes_before_the_next_poll_is_not_slept_through() {
        let (pace, node) = (Pace::default(), node(1));
        let turn = START.plus(120);
        let state = State::new().polled(&node, &pace, Some(turn), START);
        assert_eq!(state.poll(START), Decision::Wait { until: turn, why: Why::Turn });
        let state = State::new().polled(&node, &pace, Some(START.plus(DAY)), START);
        assert!(until(state.poll(START), START).since(START) <= pace.poll_every * 5 / 4);
    }
}
