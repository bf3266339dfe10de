//! Which mirror to try next, and how long to wait before: pure.
//!
//! The first mirror in the list is preferred until it fails; whichever works is kept. A run gives a mirror a few tries
//! without progress and then ends: the timer's next run goes on where this one stopped, spread over the fleet.

use std::time::Duration;

use super::transport::TransportError;

/// How often in a row a mirror may fail without a single new byte.
const TRIES: u32 = 3;

/// First pause after a failure; doubled for each further one without progress.
const PAUSE: Duration = Duration::from_millis(500);

/// The longest time that a server's Retry-After keeps a run waiting; for longer, the run ends.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// The tries of one run.
pub struct Tries {
    /// For each mirror: failures in a row.
    failures: Vec<u32>,
}

impl Tries {
    /// For so many mirrors.
    pub fn new(mirrors: usize) -> Self {
        Tries { failures: vec![0; mirrors] }
    }

    /// The mirror to try: the one that failed least, of equal ones the first. None, if all have had their tries.
    pub fn choose(&self) -> Option<usize> {
        (0..self.failures.len()).filter(|i| self.failures[*i] < TRIES).min_by_key(|i| self.failures[*i])
    }

    /// The mirror brought something new.
    pub fn progressed(&mut self, mirror: usize) {
        self.failures[mirror] = 0;
    }

    /// The mirror is of no more use in this run.
    pub fn set_aside(&mut self, mirror: usize) {
        self.failures[mirror] = TRIES;
    }

    /// The mirror failed. Says how long to wait before the next try; not at all, if another mirror is fresher.
    pub fn failed(&mut self, mirror: usize, error: &TransportError) -> Duration {
        let pause = match error {
            TransportError::NotFound | TransportError::Refused(_) => None,
            TransportError::Replaced => Some(Duration::ZERO),
            TransportError::Failed { retry_after: Some(wait), .. } => {
                Some(*wait).filter(|w| *w <= MAX_RETRY_AFTER)
            }
            TransportError::Failed { retry_after: None, .. } => Some(PAUSE * 2u32.pow(self.failures[mirror])),
        };
        match pause {
            Some(_) => self.failures[mirror] += 1,
            None => self.set_aside(mirror),
        }
        if self.choose() == Some(mirror) { pause.unwrap_or_default() } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken() -> TransportError {
        TransportError::failed("reset")
    }

    #[test]
    fn a_mirror_gets_three_tries_with_growing_pauses_and_progress_gives_them_back() {
        let mut tries = Tries::new(1);
        assert_eq!(tries.failed(0, &broken()), PAUSE);
        assert_eq!(tries.failed(0, &broken()), PAUSE * 2);
        tries.progressed(0);
        assert_eq!(tries.failed(0, &broken()), PAUSE);
        tries.failed(0, &broken());
        tries.failed(0, &broken());
        assert_eq!(tries.choose(), None);
    }

    #[test]
    fn the_next_mirror_is_tried_at_once_and_kept_while_it_works() {
        let mut tries = Tries::new(2);
        assert_eq!(tries.failed(0, &broken()), Duration::ZERO);
        assert_eq!(tries.choose(), Some(1));
        tries.progressed(1);
        assert_eq!(tries.choose(), Some(1));
    }

    #[test]
    fn a_missing_file_and_a_long_retry_after_end_a_mirrors_run() {
        let mut tries = Tries::new(2);
        tries.failed(0, &TransportError::NotFound);
        let busy = |seconds| TransportError::Failed {
            why: "503".into(),
            retry_after: Some(Duration::from_secs(seconds)),
        };
        assert_eq!(tries.failed(1, &busy(5)), Duration::from_secs(5));
        tries.failed(1, &busy(3600));
        assert_eq!(tries.choose(), None);
    }
}
