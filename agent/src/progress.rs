//! How a transfer is going: counted where bytes arrive, told now and then to whoever watches.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use format::status::Transfer;
use host::clock::Clock;

/// The rate is that of about so long.
const SMOOTH_OVER: f64 = 5.0;

/// The transfer of one run, and its watchers.
pub struct Progress<'p> {
    clock: Option<&'p dyn Clock>,
    watchers: RefCell<Vec<Watcher<'p>>>,
    source: RefCell<String>,
    done: Cell<u64>,
    left: Cell<u64>,
    cap: Cell<Option<u64>>,
    background: Cell<Option<u64>>,
    /// When the rate was reckoned last, how many bytes there were then, and the rate in bytes a second.
    rate: Cell<(Duration, u64, f64)>,
}

/// Somebody who is told.
struct Watcher<'p> {
    every: Duration,
    last: Option<Duration>,
    tell: Box<dyn FnMut(&Transfer) + 'p>,
}

impl<'p> Progress<'p> {
    /// Counts by this clock.
    pub fn new(clock: &'p dyn Clock) -> Self {
        let progress = Progress::none();
        progress.rate.set((clock.instant(), 0, 0.0));
        Progress { clock: Some(clock), ..progress }
    }

    /// Nobody watches.
    pub fn none() -> Self {
        Progress {
            clock: None,
            watchers: RefCell::default(),
            source: RefCell::default(),
            done: Cell::new(0),
            left: Cell::new(0),
            cap: Cell::new(None),
            background: Cell::new(None),
            rate: Cell::new((Duration::ZERO, 0, 0.0)),
        }
    }

    /// Tells `tell` about every so often while bytes come.
    #[must_use]
    pub fn watched(self, every: Duration, tell: impl FnMut(&Transfer) + 'p) -> Self {
        self.watchers.borrow_mut().push(Watcher { every, last: None, tell: Box::new(tell) });
        self
    }

    /// So many bytes are still to come.
    pub fn left(&self, bytes: u64) {
        self.left.set(bytes);
    }

    /// They come from here.
    pub fn source(&self, name: &str) {
        if *self.source.borrow() != name {
            name.clone_into(&mut self.source.borrow_mut());
        }
    }

    /// This cap holds.
    pub fn cap(&self, cap: Option<u64>) {
        self.cap.set(cap);
    }

    /// The background mode asks for so many bytes a second; none: it is not in force.
    pub fn background(&self, rate: Option<u64>) {
        self.background.set(rate);
    }

    /// Bytes that have come in this run.
    pub fn done(&self) -> u64 {
        self.done.get()
    }

    /// So many bytes have come.
    pub fn moved(&self, bytes: u64) {
        self.done.set(self.done.get() + bytes);
        self.left.set(self.left.get().saturating_sub(bytes));
        let Some(clock) = self.clock else { return };
        let now = clock.instant();
        let mut transfer = None;
        for watcher in self.watchers.borrow_mut().iter_mut() {
            if watcher.last.is_none_or(|last| now >= last + watcher.every) {
                watcher.last = Some(now);
                (watcher.tell)(transfer.get_or_insert_with(|| self.transfer(now)));
            }
        }
    }

    fn transfer(&self, now: Duration) -> Transfer {
        let (then, before, rate) = self.rate.get();
        let seconds = now.saturating_sub(then).as_secs_f64();
        let rate = if seconds > 0.0 {
            let current = (self.done.get() - before) as f64 / seconds;
            // The first measurement counts alone; later ones by how long they are.
            let weight = if before == 0 { 1.0 } else { 1.0 - (-seconds / SMOOTH_OVER).exp() };
            let rate = rate + (current - rate) * weight;
            self.rate.set((now, self.done.get(), rate));
            rate
        } else {
            rate
        };
        Transfer {
            source: self.source.borrow().clone(),
            bytes_done: self.done.get(),
            bytes_total: self.done.get() + self.left.get(),
            rate: rate as u64,
            cap: self.cap.get(),
            background: self.background.get(),
        }
    }
}

/// One line for people: `[=====>    ] 45 %  1.2 of 2.7 MiB  31.3 KiB/s (cap 31.3 KiB/s)  47 s left  from https://…/`.
pub fn line(transfer: &Transfer) -> String {
    const WIDTH: u64 = 24;
    let Transfer { source, bytes_done, bytes_total, rate, cap, background } = transfer;
    let (done, total) = (u128::from(*bytes_done), u128::from((*bytes_total).max(1)));
    let filled = usize::try_from(done * u128::from(WIDTH) / total).unwrap_or(0).min(WIDTH as usize);
    let bar = format!("{}{}", "=".repeat(filled), " ".repeat(WIDTH as usize - filled));
    let cap = cap.map(|cap| format!(" (cap {})", per_second(cap))).unwrap_or_default();
    let background = background.map(|rate| format!(" (background {})", per_second(rate))).unwrap_or_default();
    let left = match (bytes_total - bytes_done).checked_div(*rate) {
        Some(seconds) if *rate > 0 => format!("{} left", duration(seconds)),
        _ => "waiting".to_owned(),
    };
    let percent = done * 100 / total;
    format!(
        "[{bar}] {percent:3} %  {} of {}  {}{cap}{background}  {left}  from {source}",
        mib(*bytes_done),
        mib(*bytes_total),
        per_second(*rate)
    )
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0))
}

fn per_second(rate: u64) -> String {
    format!("{:.1} KiB/s", rate as f64 / 1024.0)
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_clock::TestClock;

    #[test]
    fn watchers_are_told_each_at_their_own_pace_and_what_is_true() {
        let clock = TestClock::default();
        let (seen, rare) = (RefCell::new(Vec::new()), Cell::new(0));
        let progress = Progress::new(&clock)
            .watched(Duration::from_secs(1), |t| seen.borrow_mut().push(t.clone()))
            .watched(Duration::from_secs(5), |_| rare.set(rare.get() + 1));
        progress.left(100_000);
        progress.source("https://m/");
        progress.cap(Some(1000));
        for _ in 0..100 {
            clock.sleep(Duration::from_millis(500));
            progress.moved(500);
        }
        let seen = seen.borrow();
        assert_eq!((seen.len(), rare.get()), (50, 10));
        let last = seen.last().unwrap();
        assert_eq!((last.bytes_done, last.bytes_total, last.cap), (49_500, 100_000, Some(1000)));
        assert!((990..=1010).contains(&last.rate), "{}", last.rate);
        let line = line(last);
        assert!(line.contains("49 %") && line.contains("https://m/") && line.contains("50 s left"), "{line}");
    }

    #[test]
    fn a_line_can_be_made_of_anything() {
        for (bytes_done, bytes_total, rate) in
            [(0, 0, 0), (5, 5, 0), (u64::MAX, u64::MAX, 1), (0, u64::MAX, 1)]
        {
            let source = String::new();
            line(&Transfer { source, bytes_done, bytes_total, rate, cap: None, background: Some(rate) });
        }
    }
}
