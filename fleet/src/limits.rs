//! So many requests a minute from one address. Each bucket holds a minute's worth, so that a site whose nodes all come
//! at once after an outage is not turned away. The clock is a value.

use std::collections::HashMap;
use std::hash::Hash;

/// Buckets that are remembered; when there are so many, full ones go.
const MAX_BUCKETS: usize = 100_000;

/// A limit for each key.
#[derive(Debug)]
pub struct Limits<K> {
    per_minute: f64,
    buckets: HashMap<K, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: f64,
}

impl<K: Eq + Hash> Limits<K> {
    /// `per_minute` requests, and as many at once; 0: no limit.
    pub fn new(per_minute: u32) -> Self {
        Limits { per_minute: f64::from(per_minute), buckets: HashMap::new() }
    }

    /// A request of `key` at `now`, in seconds of any clock that only goes on.
    ///
    /// # Errors
    /// In how many seconds to come again, if there are too many.
    pub fn take(&mut self, key: K, now: f64) -> Result<(), u64> {
        if self.per_minute == 0.0 {
            return Ok(());
        }
        if self.buckets.len() >= MAX_BUCKETS && !self.buckets.contains_key(&key) {
            self.forget_full(now);
        }
        let full = self.per_minute;
        let bucket = self.buckets.entry(key).or_insert(Bucket { tokens: full, at: now });
        bucket.tokens = (bucket.tokens + (now - bucket.at) * full / 60.0).min(full);
        bucket.at = now;
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            return Ok(());
        }
        Err(((1.0 - bucket.tokens) * 60.0 / full).ceil() as u64)
    }

    fn forget_full(&mut self, now: f64) {
        let full = self.per_minute;
        self.buckets.retain(|_, bucket| bucket.tokens + (now - bucket.at) * full / 60.0 < full);
        if self.buckets.len() >= MAX_BUCKETS {
            // Whoever has so many addresses is not stopped by this; memory is.
            self.buckets.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minutes_worth_at_once_then_as_it_flows() {
        let mut limits = Limits::new(60);
        for _ in 0..60 {
            assert_eq!(limits.take("a", 0.0), Ok(()));
        }
        assert_eq!(limits.take("a", 0.0), Err(1));
        assert_eq!(limits.take("b", 0.0), Ok(()));
        assert_eq!(limits.take("a", 1.0), Ok(()));
        assert!(limits.take("a", 1.5).is_err());
    }

    #[test]
    fn memory_has_an_end() {
        let mut limits = Limits::new(60);
        for n in 0..MAX_BUCKETS * 2 {
            let _ = limits.take(n, 0.0);
        }
        assert!(limits.buckets.len() <= MAX_BUCKETS);
    }
}
