//! Permissions to move bytes, refilled at a rate: pure, so that one bucket can serve a reader, or many writers under a lock.

use std::time::Duration;

/// How much may be moved at once after a pause: an eighth of a second's worth, so that no ten seconds ever hold more
/// than 1.25 % above the cap.
const BURST: Duration = Duration::from_millis(125);

/// The smallest portion: below this, calls would cost more than the bytes.
const MIN_PORTION: usize = 256;

/// What has been moved, as the time at which it would have arrived at exactly the rate.
#[derive(Debug, Default)]
pub struct Bucket {
    due: Duration,
}

impl Bucket {
    /// How many of `wanted` bytes may be moved in one call at `rate` bytes a second.
    pub fn portion(rate: u64, wanted: usize) -> usize {
        let burst = u128::from(rate) * BURST.as_millis() / 1000;
        wanted.min(usize::try_from(burst).unwrap_or(usize::MAX).max(MIN_PORTION))
    }

    /// Takes `n` bytes at `now`. Says how long to wait until they are within the cap.
    #[must_use]
    pub fn take(&mut self, now: Duration, n: usize, rate: u64) -> Duration {
        // An idle time is not saved up beyond the burst.
        let start = self.due.max(now.saturating_sub(BURST));
        let took = n as u128 * 1_000_000_000 / u128::from(rate.max(1));
        self.due = start + Duration::from_nanos(u64::try_from(took).unwrap_or(u64::MAX));
        self.due.saturating_sub(now)
    }
}
