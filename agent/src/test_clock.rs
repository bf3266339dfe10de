//! The clock of tests: it moves only when somebody sleeps.

use std::sync::Mutex;
use std::time::Duration;

use format::time::UnixTime;
use host::clock::Clock;

/// Begins at zero, of both times.
#[derive(Default)]
pub struct TestClock(Mutex<Duration>);

impl Clock for TestClock {
    fn now(&self) -> UnixTime {
        UnixTime(i64::try_from(self.instant().as_secs()).unwrap())
    }

    fn instant(&self) -> Duration {
        *self.0.lock().unwrap()
    }

    fn sleep(&self, duration: Duration) {
        *self.0.lock().unwrap() += duration;
    }
}
