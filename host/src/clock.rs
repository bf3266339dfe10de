//! What time it is, and waiting. Everything that depends on time takes a `&dyn Clock`, so that tests give the time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use format::time::UnixTime;

/// A source of time.
pub trait Clock: Sync {
    /// The time of day.
    fn now(&self) -> UnixTime;
    /// A time that only grows, for measuring and throttling.
    fn instant(&self) -> Duration;
    /// Waits.
    fn sleep(&self, duration: Duration);
}

/// The machine's clock.
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// Starts to count.
    pub fn new() -> Self {
        SystemClock { started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> UnixTime {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixTime(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
    }

    fn instant(&self) -> Duration {
        self.started.elapsed()
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}
