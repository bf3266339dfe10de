//! Waiting for what other programs do: looked at again and again, with an end.

use std::time::{Duration, Instant};

/// From one look to the next.
const LOOK: Duration = Duration::from_millis(2);

/// Waits until `done`.
///
/// # Panics
/// If it is not within `limit`.
#[track_caller]
pub fn until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !done() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(LOOK);
    }
}
