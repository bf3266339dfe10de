//! A minimum speed: a reader around a reader that loses patience.
//!
//! The time-out of a single read does not help against a server that sends a byte a minute. Only the time spent waiting
//! for the network counts, not what a throttle sleeps: a slow node is no slow server.

use std::io::{self, Read};
use std::time::Duration;

use host::clock::Clock;

/// Expects `min_rate` bytes a second on average over each `period` of waiting.
pub struct Patience<'c, R> {
    reader: R,
    clock: &'c dyn Clock,
    period: Duration,
    min_rate: u64,
    waited: Duration,
    got: u64,
}

impl<'c, R> Patience<'c, R> {
    /// Around `reader`.
    pub fn new(reader: R, clock: &'c dyn Clock, period: Duration, min_rate: u64) -> Self {
        Patience { reader, clock, period, min_rate, waited: Duration::ZERO, got: 0 }
    }
}

impl<R: Read> Read for Patience<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let began = self.clock.instant();
        let n = self.reader.read(buffer)?;
        self.waited += self.clock.instant().saturating_sub(began);
        self.got += n as u64;
        if self.waited >= self.period {
            if n > 0 && self.got < self.min_rate.saturating_mul(self.waited.as_secs()) {
                let text = format!("{} bytes in {} s of waiting: too slow", self.got, self.waited.as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            (self.waited, self.got) = (Duration::ZERO, 0);
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_clock::TestClock;

    /// Brings `n` bytes after each pause.
    struct Slow<'c>(&'c TestClock, Duration, usize);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.sleep(self.1);
            Ok(self.2.min(buffer.len()))
        }
    }

    fn reads_until_lost(pause: u64, n: usize) -> Option<usize> {
        let clock = TestClock::default();
        let slow = Slow(&clock, Duration::from_secs(pause), n);
        let mut reader = Patience::new(slow, &clock, Duration::from_secs(60), 100);
        (0..1000).find(|_| reader.read(&mut [0; 8192]).is_err())
    }

    #[test]
    fn a_byte_now_and_then_is_not_enough_and_a_thin_line_is() {
        assert_eq!(reads_until_lost(30, 1), Some(1));
        assert_eq!(reads_until_lost(10, 900), Some(5));
        assert_eq!(reads_until_lost(10, 1100), None, "110 bytes a second");
        assert_eq!(reads_until_lost(55, 8192), None, "a burst a minute");
    }
}
