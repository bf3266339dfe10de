//! A transfer that makes way for others, by what the line lets be seen: pure, times are arguments.
//!
//! LEDBAT (RFC 6817) at the side that receives. A congestion control of low priority in this node's kernel would be of no
//! use, for it belongs to the sender; a receiver can only ask for less. So a file is asked for in pieces of about a
//! quarter of a second each. Between two of them nothing of ours is in the line's queue: the time from a question to the first byte of
//! its answer is that of the way, and what others have in the queue. Is it much longer than it can be, somebody else
//! needs the line, and less is asked for; otherwise more, until as much comes as the line has.
//!
//! What it cannot see: others behind a router that keeps its queues short (CoDel, FQ), where it takes a fair share and no
//! more; and a queue that is never empty while it watches, for which the least delay of earlier runs is remembered.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Others are at it when the queue takes longer than this. RFC 6817 section 2.5 allows 100 ms, LEDBAT++
/// (draft-irtf-iccrg-ledbat-plus-plus, section 4.2) has 60: more than the jitter of a radio link, less than what people
/// or payments notice.
const TARGET: f64 = 0.060;

/// What is asked for first, in bytes a second: hardly felt on any line, and four doublings from 256 KiB/s.
const START: u64 = 16 * 1024;

/// A piece is what comes in a quarter of a second at this rate, but not so small that the heads of question and answer cost more than a
/// few percent, and not so large that nobody looks at the line for long.
const LEAST_PIECE: u64 = 16 * 1024;
const MOST_PIECE: u64 = 8 * 1024 * 1024;

/// The most that is ever asked for, in bytes a second.
const MOST: u64 = 1 << 30;

/// Less than this part of what was asked for has come: the line gives no more.
const LIMITED: f64 = 0.9;

/// The line gives less than this part of what it gave: somebody else has come, or it has become slower, which is found out
/// in a few pieces more.
const SHARED: f64 = 0.75;

/// After it has made way it asks for no more for so long: a TCP that has just been given room takes a while to fill it, and
/// an empty queue says nothing meanwhile.
const HOLD: Duration = Duration::from_secs(5);

/// Growth for each piece near what the line is known to give: a look whether it gives more now.
const PROBE: f64 = 0.25;

/// The least delays of so many minutes count: a route may become longer (RFC 6817 section 4.2, BASE_HISTORY).
const HISTORY: usize = 10;
const MINUTE: Duration = Duration::from_secs(60);

/// The controller of one line.
#[derive(Debug)]
pub struct Background {
    floor: u64,
    /// Bytes a second that are asked for.
    rate: f64,
    /// What the line is known to give; none: it always gave what was asked for.
    gives: Option<f64>,
    /// The shortest times of an answer, by mirror.
    bases: BTreeMap<String, Base>,
    /// The mirror that is asked.
    mirror: String,
    /// When the last answer began, and until when there is no growth.
    now: Duration,
    hold_until: Duration,
    /// The time in the queue, as the last piece found it; in seconds.
    queue: f64,
}

impl Background {
    /// Never asks for less than `floor` bytes a second. `known`: the shortest times of an answer of earlier runs, by
    /// mirror.
    pub fn new(floor: u64, known: impl Iterator<Item = (String, Duration)>) -> Self {
        let base = |least| Base { remembered: Some(least), minutes: VecDeque::new() };
        let bases = known.map(|(mirror, least)| (mirror, base(least))).collect();
        let (floor, mirror) = (floor.max(1), String::new());
        let (now, hold_until) = (Duration::ZERO, Duration::ZERO);
        let rate = START.max(floor) as f64;
        Background { floor, rate, gives: None, bases, mirror, now, hold_until, queue: 0.0 }
    }

    /// From now on this mirror is asked: another one may be behind another line.
    pub fn ask(&mut self, mirror: &str) {
        if self.mirror != mirror {
            mirror.clone_into(&mut self.mirror);
            (self.rate, self.gives, self.queue) = (START.max(self.floor) as f64, None, 0.0);
        }
    }

    /// Bytes a second to ask for now.
    pub fn rate(&self) -> u64 {
        // Between floor and MOST.
        self.rate as u64
    }

    /// Bytes to ask for at once.
    pub fn piece(&self) -> u64 {
        (self.rate() / 4).clamp(LEAST_PIECE, MOST_PIECE)
    }

    /// Whether the rate is about what the line is known to give.
    fn is_near(&self) -> bool {
        self.gives.is_some_and(|gives| self.rate >= gives / 2.0)
    }

    /// The shortest time of an answer that was measured, for each mirror.
    pub fn measured(&self) -> impl Iterator<Item = (&str, Duration)> {
        self.bases.iter().filter_map(|(mirror, base)| Some((mirror.as_str(), base.measured()?)))
    }

    /// At `now` the first byte of an answer has come, `took` after the question.
    pub fn answered(&mut self, now: Duration, took: Duration) {
        self.now = now;
        let base = self.bases.entry(self.mirror.clone()).or_default();
        base.add(now, took);
        let least = base.measured().into_iter().chain(base.remembered).min().unwrap_or(took);
        self.queue = took.saturating_sub(least).as_secs_f64();
    }

    /// A piece of `bytes` has come in `took`, the reader's own pauses included.
    pub fn brought(&mut self, bytes: u64, took: Duration) {
        // As RFC 6817 has it: 1 for an empty queue, 0 at the target, and less beyond.
        let off = (TARGET - self.queue) / TARGET;
        let came = bytes as f64 / took.as_secs_f64().max(0.001);
        if off < 0.0 {
            // LEDBAT++ never more than halves for one sample; here one is a second, and others wait.
            self.rate *= (1.0 + off / 2.0).max(0.25);
            self.hold_until = self.now + HOLD;
        } else if bytes < LEAST_PIECE {
            // A file of a few bytes says nothing of what the line gives.
        } else if came < LIMITED * self.rate {
            // One piece that came slowly may be a server's fault.
            self.rate = came.max(self.rate / 2.0);
            let gave = self.gives.unwrap_or(0.0);
            if came < SHARED * gave {
                // It gave more before: somebody takes his share, and is to have ours before his queue shows.
                self.rate /= 2.0;
                self.hold_until = self.now + HOLD;
            }
            self.gives = Some(came.max(SHARED * gave));
        } else if self.now >= self.hold_until {
            self.rate *= 1.0 + if self.is_near() { PROBE } else { 1.0 } * off;
        }
        self.rate = self.rate.clamp(self.floor as f64, MOST as f64);
    }
}

/// The shortest time of an answer: of a way with nobody on it.
#[derive(Debug, Default)]
struct Base {
    remembered: Option<Duration>,
    /// Of each of the last minutes in which something was measured: which, and the least.
    minutes: VecDeque<(u64, Duration)>,
}

impl Base {
    fn add(&mut self, now: Duration, took: Duration) {
        let minute = now.as_secs() / MINUTE.as_secs();
        match self.minutes.back_mut().filter(|(last, _)| *last == minute) {
            Some((_, least)) => *least = took.min(*least),
            None => self.minutes.push_back((minute, took)),
        }
        while self.minutes.len() > HISTORY {
            self.minutes.pop_front();
        }
    }

    fn measured(&self) -> Option<Duration> {
        self.minutes.iter().map(|(_, least)| *least).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOR: u64 = 2000;
    const WAY: f64 = 0.030;

    fn new() -> Background {
        Background::new(FLOOR, std::iter::empty())
    }

    /// A line of `rate` bytes a second with a queue of `queue` seconds, on which somebody else, if `busy` says so, sends as
    /// a TCP does that only losses stop: the queue goes up and down between half full and full, and both get what their
    /// share of it is.
    struct Line {
        rate: f64,
        queue: f64,
        now: f64,
        ours: f64,
        theirs: f64,
    }

    impl Line {
        fn new(rate: f64, queue: f64) -> Line {
            Line { rate, queue, now: 0.0, ours: 0.0, theirs: 0.0 }
        }

        /// One piece.
        fn piece(&mut self, background: &mut Background, busy: bool) {
            let saw = 0.5 + 0.5 * (self.now / 3.0).fract();
            let queued = if busy { self.queue * saw } else { 0.0 };
            let delay = WAY + queued;
            background.answered(Duration::from_secs_f64(self.now + delay), Duration::from_secs_f64(delay));
            let share = if busy { self.rate / 2.0 } else { self.rate };
            let came = share.min(background.rate() as f64);
            let bytes = background.piece() as f64;
            let took = bytes / came;
            self.now += delay + took;
            self.ours += bytes;
            if busy {
                self.theirs += (self.rate - came) * took + self.rate * delay;
            }
            background.brought(bytes as u64, Duration::from_secs_f64(took));
        }

        /// Until `end`; bytes of ours and of theirs, and the seconds that it took.
        fn until(&mut self, end: f64, background: &mut Background, busy: bool) -> (f64, f64, f64) {
            let before = (self.ours, self.theirs, self.now);
            while self.now < end {
                self.piece(background, busy);
            }
            (self.ours - before.0, self.theirs - before.1, self.now - before.2)
        }
    }

    #[test]
    fn an_idle_line_is_used_whatever_its_rate() {
        for rate in [8_000.0, 32_000.0, 250_000.0, 5_000_000.0, 50_000_000.0] {
            let mut background = new();
            let (ours, _, took) = Line::new(rate, 0.25).until(60.0, &mut background, false);
            assert!(ours >= 0.7 * rate * took, "{rate}: {ours} bytes in {took} s");
        }
    }

    #[test]
    fn somebody_who_comes_has_the_line_and_when_he_goes_it_is_used_again() {
        for rate in [32_000.0, 250_000.0, 5_000_000.0] {
            let mut background = new();
            let mut line = Line::new(rate, 0.25);
            line.until(60.0, &mut background, false);
            let (_, theirs, took) = line.until(120.0, &mut background, true);
            assert!(theirs >= 0.8 * rate * took, "{rate}: {theirs} bytes in {took} s");
            line.until(150.0, &mut background, false);
            let (ours, _, took) = line.until(180.0, &mut background, false);
            assert!(ours >= 0.7 * rate * took, "{rate}: {ours} bytes in {took} s after it");
        }
    }

    #[test]
    fn somebody_who_was_there_before_is_seen_by_what_an_earlier_run_remembers() {
        let known = ("http://m/".to_owned(), Duration::from_secs_f64(WAY));
        let mut background = Background::new(FLOOR, std::iter::once(known));
        background.ask("http://m/");
        let (ours, theirs, took) = Line::new(250_000.0, 0.25).until(60.0, &mut background, true);
        assert!(theirs >= 0.9 * 250_000.0 * took, "{theirs} bytes in {took} s");
        // And it does not starve meanwhile.
        assert!(ours >= 0.9 * FLOOR as f64 * took, "{ours} bytes in {took} s");
    }

    #[test]
    fn nothing_goes_below_the_floor_or_out_of_bounds_whatever_is_measured() {
        let mut background = new();
        for n in 0..1000u64 {
            let took = Duration::from_millis((n * 7919) % 100_000);
            background.answered(Duration::from_secs(n), took);
            background.brought(background.piece(), took);
            assert!((FLOOR..=MOST).contains(&background.rate()));
            assert!((LEAST_PIECE..=MOST_PIECE).contains(&background.piece()));
        }
        for _ in 0..100 {
            background.answered(Duration::from_secs(2000), Duration::ZERO);
            background.brought(u64::MAX, Duration::ZERO);
        }
        assert_eq!(background.rate(), MOST);
    }

    #[test]
    fn a_way_that_became_longer_is_the_way_after_ten_minutes() {
        let mut background = new();
        background.answered(Duration::ZERO, Duration::from_millis(10));
        for second in 1..700 {
            background.answered(Duration::from_secs(second), Duration::from_millis(200));
        }
        assert_eq!(background.measured().next(), Some(("", Duration::from_millis(200))));
    }

    #[test]
    fn a_few_bytes_say_nothing_of_the_line() {
        let mut background = new();
        let before = background.rate();
        background.answered(Duration::ZERO, Duration::from_millis(10));
        background.brought(500, Duration::from_millis(100));
        assert_eq!((background.rate(), background.gives), (before, None));
    }

    #[test]
    fn one_slow_piece_is_made_up_for_in_a_few_seconds() {
        let mut background = new();
        let mut line = Line::new(250_000.0, 0.25);
        line.until(30.0, &mut background, false);
        background.brought(background.piece(), Duration::from_secs(60));
        let (ours, _, took) = line.until(90.0, &mut background, false);
        assert!(ours >= 0.7 * 250_000.0 * took, "{ours} bytes in {took} s");
    }
}
