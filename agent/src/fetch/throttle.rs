//! A cap on the rate that may change by the hour: a reader around a reader that waits.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{self, Read};
use std::time::Duration;

use format::time::UnixTime;
use host::clock::Clock;

use super::CHUNK;
use super::background::Background;
use super::bucket::Bucket;
use super::pipe::BUFFERS;

/// How often the rule is asked: windows open and close by the minute.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Less is not read at once where more is there.
const LEAST_PORTION: usize = 8 * 1024;

/// What may wait in the kernel of a connection at this rate: a quarter of a second's worth, which keeps a line of that rate
/// full at any usual delay; but at least a packet or two, and never more than `limit`.
pub fn receive_buffer(limit: usize, rate: u64) -> usize {
    const LEAST: usize = 4096;
    let ahead = usize::try_from(rate / 4).unwrap_or(usize::MAX);
    limit.min(ahead.max(LEAST))
}

/// What may flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flow {
    /// So many bytes a second; none: as many as come.
    Rate(Option<u64>),
    /// Nothing; why.
    Stop(String),
}

/// Why a throttled reader ends before its reader does; inside an [`io::Error`].
#[derive(Clone, Debug)]
pub enum Halt {
    /// The cap has changed: a new connection is wanted, with a receive buffer that fits the new cap.
    Again,
    /// Nothing may flow any more; why.
    Stop(String),
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Halt::Again => "the cap has changed",
            Halt::Stop(why) => why,
        })
    }
}

impl std::error::Error for Halt {}

/// The halt in an error of a throttled reader.
pub fn halted(error: &io::Error) -> Option<Halt> {
    error.get_ref()?.downcast_ref::<Halt>().cloned()
}

/// A bucket of permissions to read, refilled at the rate of the cap. One for all connections of a run.
pub struct Throttle<'c> {
    clock: &'c dyn Clock,
    rule: Box<dyn Fn(UnixTime) -> Flow + 'c>,
    /// Bytes a second; none: no cap.
    rate: Cell<Option<u64>>,
    /// See [`Throttle::buffered`].
    buffer: usize,
    /// When the rule was asked last.
    asked: Cell<Option<Duration>>,
    /// See [`Throttle::yielding`].
    background: Option<RefCell<Background>>,
    /// What the transfer that runs asks for in the background, in bytes a second; none: it does not.
    yields_to: Cell<Option<u64>>,
    bucket: RefCell<Bucket>,
}

impl<'c> Throttle<'c> {
    /// A throttle by this rule.
    pub fn new(clock: &'c dyn Clock, rule: impl Fn(UnixTime) -> Flow + 'c) -> Self {
        let rate = Cell::new(None);
        Throttle {
            clock,
            rule: Box::new(rule),
            rate,
            buffer: 0,
            asked: Cell::new(None),
            background: None,
            yields_to: Cell::new(None),
            bucket: RefCell::default(),
        }
    }

    /// No throttle at all.
    pub fn none(clock: &'c dyn Clock) -> Self {
        Throttle::new(clock, |_| Flow::Rate(None))
    }

    /// The cap, as the rule said last.
    pub fn rate(&self) -> Option<u64> {
        self.rate.get()
    }

    /// The same, where up to `bytes` may wait in the kernel, before they are read: they have come over the link all the
    /// same, so they are counted when they can have come.
    #[must_use]
    pub fn buffered(self, bytes: usize) -> Self {
        Throttle { buffer: bytes, ..self }
    }

    /// The same, which makes way for others on the line, as far as the transfers let that be seen.
    #[must_use]
    pub fn yielding(self, background: Option<Background>) -> Self {
        Throttle { background: background.map(RefCell::new), ..self }
    }

    /// What sees the others on the line; none, if nobody is to be made way for.
    pub fn background(&self) -> Option<&RefCell<Background>> {
        self.background.as_ref()
    }

    /// From now on it asks for so much; none: the mode is not in force, for nothing can be seen.
    pub fn set_yields_to(&self, rate: Option<u64>) {
        self.yields_to.set(rate);
    }

    /// Bytes a second that may be read now.
    fn now(&self) -> Option<u64> {
        [self.rate.get(), self.yields_to.get()].into_iter().flatten().min()
    }

    /// `reader`, slowed down. It yields `length` bytes.
    pub fn reader<'t, R: Read>(&'t self, reader: R, length: u64) -> Throttled<'t, 'c, R> {
        Throttled { throttle: self, reader, length, read: 0, counted: 0 }
    }

    /// How many bytes are best read at once: together, what waits between reading and writing is about as much as may
    /// wait in the kernel.
    pub(super) fn portion_size(&self) -> usize {
        (self.buffer / BUFFERS).clamp(LEAST_PORTION, CHUNK)
    }

    /// How far the kernel may be ahead of the reader.
    fn ahead(&self) -> u64 {
        match self.rate.get() {
            Some(rate) if self.buffer > 0 => receive_buffer(self.buffer, rate) as u64,
            _ => 0,
        }
    }

    /// Asks the rule, now and then.
    ///
    /// # Errors
    /// A [`Halt`], if nothing may flow, or if another cap holds than did before.
    pub fn ask(&self) -> io::Result<()> {
        let now = self.clock.instant();
        let before = self.asked.get();
        if before.is_some_and(|asked| now < asked + ASK_EVERY) {
            return Ok(());
        }
        match (self.rule)(self.clock.now()) {
            Flow::Stop(why) => Err(io::Error::other(Halt::Stop(why))),
            Flow::Rate(rate) => {
                self.asked.set(Some(now));
                if self.rate.replace(rate) != rate && before.is_some() {
                    Err(io::Error::other(Halt::Again))
                } else {
                    Ok(())
                }
            }
        }
    }

    /// How many bytes may be read in one call.
    fn portion(&self, wanted: usize) -> usize {
        match self.now() {
            None => wanted,
            Some(rate) => Bucket::portion(rate, wanted),
        }
    }

    /// Waits until `n` bytes that were read are within the cap.
    fn account(&self, n: usize) {
        let Some(rate) = self.now().filter(|_| n > 0) else {
            return;
        };
        let wait = self.bucket.borrow_mut().take(self.clock.instant(), n, rate);
        if !wait.is_zero() {
            self.clock.sleep(wait);
        }
    }
}

/// A reader with a cap on its rate.
pub struct Throttled<'t, 'c, R> {
    throttle: &'t Throttle<'c>,
    reader: R,
    length: u64,
    read: u64,
    /// Bytes that the throttle has been told of: those that can have come over the link.
    counted: u64,
}

impl<R> Throttled<'_, '_, R> {
    /// Tells the throttle what can have come by now, and waits until that is within the cap.
    fn count(&mut self) {
        let come = self.read.saturating_add(self.throttle.ahead()).min(self.length).max(self.counted);
        self.throttle.account(usize::try_from(come - self.counted).unwrap_or(usize::MAX));
        self.counted = come;
    }
}

impl<R: Read> Read for Throttled<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.throttle.ask()?;
        if self.read == 0 {
            self.count();
        }
        let portion = self.throttle.portion(buffer.len());
        let n = self.reader.read(&mut buffer[..portion])?;
        self.read += n as u64;
        self.count();
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_clock::TestClock;

    #[test]
    fn in_any_ten_seconds_the_cap_is_kept_to_five_percent_and_used_to_ninety_five() {
        for rate in [1_000u64, 32_000, 250_000] {
            let clock = TestClock::default();
            let throttle = Throttle::new(&clock, move |_| Flow::Rate(Some(rate)));
            let mut reader = throttle.reader(io::repeat(0), u64::MAX);
            let mut buffer = vec![0; 16 * 1024];
            let mut log: Vec<(Duration, u64)> = Vec::new();
            let mut total = 0;
            while clock.instant() < Duration::from_secs(60) {
                // A pause in the middle must not be made up for by a burst.
                if log.len() == 50 {
                    clock.sleep(Duration::from_secs(7));
                }
                let before = clock.instant();
                total += reader.read(&mut buffer).unwrap() as u64;
                log.push((before, total));
            }
            for (i, (from, before)) in log.iter().enumerate() {
                let upto = log[i..]
                    .iter()
                    .take_while(|(t, _)| *t < *from + Duration::from_secs(10))
                    .last()
                    .unwrap()
                    .1;
                assert!(upto - before <= rate * 10 * 105 / 100, "{rate}: {} in 10 s", upto - before);
            }
            assert!(total >= rate * 53 * 95 / 100, "{rate}: {total}");
        }
    }

    #[test]
    fn no_cap_reads_as_asked() {
        let clock = TestClock::default();
        let mut buffer = vec![0; 100_000];
        assert_eq!(Throttle::none(&clock).reader(io::repeat(0), 100_000).read(&mut buffer).unwrap(), 100_000);
        assert_eq!(clock.instant(), Duration::ZERO);
    }

    #[test]
    fn another_hour_another_cap_and_at_the_end_nothing() {
        let clock = TestClock::default();
        let throttle = Throttle::new(&clock, |now| match now.0 {
            0..10 => Flow::Rate(Some(1000)),
            10..20 => Flow::Rate(Some(9000)),
            _ => Flow::Stop("the night is over".into()),
        });
        let mut reader = throttle.reader(io::repeat(0), u64::MAX);
        let (mut slow, mut fast, mut changes) = (0, 0, 0);
        let why = loop {
            let is_slow = clock.instant() < Duration::from_secs(10);
            match reader.read(&mut [0; 4096]) {
                Ok(n) if is_slow => slow += n,
                Ok(n) => fast += n,
                Err(e) => match halted(&e) {
                    Some(Halt::Again) => changes += 1,
                    Some(Halt::Stop(why)) => break why,
                    None => panic!("{e}"),
                },
            }
        };
        assert_eq!((changes, why.as_str()), (1, "the night is over"));
        assert!((9_500..=10_500).contains(&slow) && (85_000..=100_000).contains(&fast), "{slow} {fast}");
    }

    #[test]
    fn what_the_kernel_takes_in_ahead_of_the_reader_is_within_the_cap_too() {
        let (rate, length, buffer) = (100_000u64, 60_000u64, 25_000u64);
        let clock = TestClock::default();
        let throttle = Throttle::new(&clock, move |_| Flow::Rate(Some(rate))).buffered(32 * 1024);
        let mut come = Vec::new();
        // One request after the other; at each moment the kernel has all that it can hold.
        let mut before = 0;
        for _ in 0..50 {
            let mut reader = throttle.reader(io::repeat(0).take(length), length);
            let mut read = 0;
            loop {
                come.push((clock.instant(), before + (read + buffer).min(length)));
                match reader.read(&mut [0; 8192]).unwrap() {
                    0 => break,
                    n => read += n as u64,
                }
            }
            before += length;
        }
        for (i, (from, before)) in come.iter().enumerate() {
            // What had come by the moment before.
            let before = i.checked_sub(1).map_or(0, |i| come[i].1).min(*before);
            let inside = come[i..].iter().take_while(|(t, _)| *t < *from + Duration::from_secs(10));
            let most = inside.last().unwrap().1 - before;
            assert!(most <= rate * 10 * 105 / 100, "{most} bytes from {from:?}");
        }
        let seconds = clock.instant().as_secs_f64();
        assert!(before as f64 / seconds >= 0.95 * rate as f64, "{before} bytes in {seconds} s");
    }
}
