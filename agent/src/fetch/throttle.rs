//! A cap on the rate: a reader around a reader that waits.

use std::cell::RefCell;
use std::io::{self, Read};
use std::time::Duration;

use host::clock::Clock;

/// How much may be read at once after a pause: an eighth of a second's worth, so that no ten seconds ever hold more
/// than 1.25 % above the cap.
const BURST: Duration = Duration::from_millis(125);

/// The smallest read: below this, calls would cost more than the bytes.
const MIN_READ: usize = 256;

/// A bucket of permissions to read, refilled at the rate of the cap. One for all connections of a run.
pub struct Throttle<'c> {
    clock: &'c dyn Clock,
    /// Bytes a second; none: no cap.
    rate: Option<u64>,
    /// When the bytes read so far would have arrived at exactly the rate.
    due: RefCell<Duration>,
}

impl<'c> Throttle<'c> {
    /// A throttle of `rate` bytes a second.
    pub fn new(clock: &'c dyn Clock, rate: Option<u64>) -> Self {
        Throttle { clock, rate, due: RefCell::new(Duration::ZERO) }
    }

    /// `reader`, slowed down.
    pub fn reader<'t, R: Read>(&'t self, reader: R) -> Throttled<'t, 'c, R> {
        Throttled { throttle: self, reader }
    }

    /// How many bytes may be read in one call.
    fn portion(&self, wanted: usize) -> usize {
        match self.rate {
            None => wanted,
            Some(rate) => {
                let burst = u128::from(rate) * BURST.as_millis() / 1000;
                wanted.min(usize::try_from(burst).unwrap_or(usize::MAX).max(MIN_READ))
            }
        }
    }

    /// Waits until `n` bytes that were read are within the cap.
    fn account(&self, n: usize) {
        let Some(rate) = self.rate.filter(|_| n > 0) else {
            return;
        };
        let now = self.clock.instant();
        let mut due = self.due.borrow_mut();
        // An idle time is not saved up beyond the burst.
        let start = (*due).max(now.saturating_sub(BURST));
        *due = start
            + Duration::from_nanos(
                u64::try_from(n as u128 * 1_000_000_000 / u128::from(rate)).unwrap_or(u64::MAX),
            );
        if *due > now {
            self.clock.sleep(*due - now);
        }
    }
}

/// A reader with a cap on its rate.
pub struct Throttled<'t, 'c, R> {
    throttle: &'t Throttle<'c>,
    reader: R,
}

impl<R: Read> Read for Throttled<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let portion = self.throttle.portion(buffer.len());
        let n = self.reader.read(&mut buffer[..portion])?;
        self.throttle.account(n);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use format::time::UnixTime;
    use std::sync::Mutex;

    /// A clock that moves only when somebody sleeps, or by hand.
    struct TestClock(Mutex<Duration>);

    impl Clock for TestClock {
        fn now(&self) -> UnixTime {
            UnixTime(0)
        }
        fn instant(&self) -> Duration {
            *self.0.lock().unwrap()
        }
        fn sleep(&self, duration: Duration) {
            *self.0.lock().unwrap() += duration;
        }
    }

    #[test]
    fn in_any_ten_seconds_the_cap_is_kept_to_five_percent_and_used_to_ninety_five() {
        for rate in [1_000u64, 32_000, 250_000] {
            let clock = TestClock(Mutex::new(Duration::ZERO));
            let throttle = Throttle::new(&clock, Some(rate));
            let mut reader = throttle.reader(io::repeat(0));
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
        let clock = TestClock(Mutex::new(Duration::ZERO));
        let mut buffer = vec![0; 100_000];
        assert_eq!(Throttle::new(&clock, None).reader(io::repeat(0)).read(&mut buffer).unwrap(), 100_000);
        assert_eq!(clock.instant(), Duration::ZERO);
    }
}
