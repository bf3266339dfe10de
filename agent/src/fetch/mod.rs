//! Bytes in: exactly those that are missing, in few requests, resumable at any byte, checked as they come.
//!
//! Here: which mirror is asked for what. What is missing and whether what comes is right: [`content`].

mod background;
mod bucket;
mod check;
mod content;
mod http;
mod local;
mod origin;
mod patience;
mod pipe;
mod rule;
mod socket;
#[cfg(test)]
mod tests;
mod throttle;
mod tls;
mod transport;
mod tries;
mod writer;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io::Read;
use std::time::Duration;

use format::digest::Sha256;
use format::index::{Index, Member};
use host::clock::Clock;

pub use background::Background;
pub use bucket::Bucket;
pub use http::{Client, HttpMirror, Reply, authorization};
pub use local::{Folder, open_export};
pub use origin::origin;
pub use rule::Rule;
pub use throttle::{Flow, Throttle};
pub use transport::{Changed, Range, Traffic, Transport, TransportError, read_all, read_limited};
pub use tries::Tries;

use crate::aside::Aside;
use crate::error::{Error, Exit, Result};
use crate::progress::Progress;
use crate::space;
use crate::store::Store;
use content::{Content, Job};
use pipe::Pipe;
use throttle::Halt;

/// Two extents with at most this many bytes between them are one request: about what a second request and its answer
/// would cost in headers.
const MERGE_GAP: u64 = 1024;

/// Read at once: large enough that a local import is as fast as the disk, small enough to go unnoticed in memory.
const CHUNK: usize = 128 * 1024;

/// From a server that does not do ranges so much that is not needed is taken, or half of what is needed; more is not worth
/// it, and another mirror may do better.
const MAX_WASTE: u64 = 4 * 1024 * 1024;

/// A try that brings less is none that helped: or a server that sends a few bytes a minute would be tried for ever.
pub const LEAST_PROGRESS: u64 = 8 * 1024;

/// Fetches into a store, from the first mirror that works.
#[derive(Clone, Copy)]
pub struct Fetcher<'a, 'p> {
    /// In order of preference.
    pub mirrors: &'a [Box<dyn Transport + 'a>],
    /// Where content goes.
    pub store: &'a Store,
    /// The cap for remote mirrors.
    pub throttle: &'a Throttle<'a>,
    /// For pauses.
    pub clock: &'a dyn Clock,
    /// Who watches.
    pub progress: &'a Progress<'p>,
    /// Where a mirror goes that serves wrong bytes; none: nowhere beyond this run.
    pub aside: Option<&'a Aside>,
}

/// Why a run of jobs stopped.
enum Stop {
    /// The mirror; trying again or another one may help.
    Mirror(TransportError),
    /// The bytes of this job are wrong.
    Damage { job: String, digest: Sha256, resumed: bool, why: String },
    /// This machine; trying again does not help.
    Here(Error),
    /// Nothing: the same again over a new connection, because the cap has changed.
    Again,
}

/// What was asked for at once, and where it ends in the file.
struct Piece<'r> {
    end: u64,
    reader: Box<dyn Read + 'r>,
}

/// A reader that tells the background mode when a piece has come.
struct Watched<'r, R> {
    reader: R,
    left: u64,
    bytes: u64,
    began: Duration,
    clock: &'r dyn Clock,
    background: &'r RefCell<Background>,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.reader.read(buffer)?;
        self.left = self.left.saturating_sub(n as u64);
        if n > 0 && self.left == 0 {
            let took = self.clock.instant().saturating_sub(self.began);
            self.background.borrow_mut().brought(self.bytes, took);
        }
        Ok(n)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Here(error)
    }
}

impl Fetcher<'_, '_> {
    /// Fetches one target file whole, under its digest.
    ///
    /// # Errors
    /// As [`Fetcher::members`].
    pub fn target(&self, remote: &str, digest: Sha256, length: u64) -> Result<()> {
        self.until_done(remote, &mut || self.content().target(remote, digest, length))
    }

    fn content(&self) -> Content<'_> {
        Content { store: self.store, clock: self.clock }
    }

    /// Fetches those of `members` that are not here yet, from the bundle file `remote`.
    ///
    /// # Errors
    /// Unavailable, if no mirror delivers; integrity, if what they deliver is wrong; I/O. What was fetched
    /// stays.
    pub fn members(&self, remote: &str, index: &Index, members: &[&Member]) -> Result<()> {
        // Before the first byte: a small file may inflate to a large one.
        let missing = members.iter().filter(|m| !self.store.has(&m.sha256, m.size));
        let bytes = missing.fold(0u64, |sum, m| sum.saturating_add(m.size));
        if bytes > 0 {
            space::enough(self.store.folder(), bytes, "to fetch")?;
        }
        self.until_done(remote, &mut || self.content().jobs(index, members))?;
        self.store.sync()
    }

    /// Asks what is missing and gets it, again and again, until nothing is.
    fn until_done<'m>(&self, remote: &str, missing: &mut dyn FnMut() -> Result<Vec<Job<'m>>>) -> Result<()> {
        let mut tries = Tries::new(self.mirrors.len());
        let mut forgiven: BTreeSet<Sha256> = BTreeSet::new();
        let mut away = Error::new(Exit::Config, "no mirror is configured", "set [repository] mirrors");
        let mut damaged = None;
        let mut before: Option<(usize, usize, u64)> = None;
        let mut waste = 0;
        loop {
            let jobs = missing()?;
            if jobs.is_empty() {
                return Ok(());
            }
            let left: u64 = jobs.iter().map(|job| job.to - job.from).sum();
            self.progress.left(left);
            if let Some((mirror, jobs_before, left_before)) = before
                && (left.saturating_add(LEAST_PROGRESS) <= left_before || jobs.len() < jobs_before)
            {
                tries.progressed(mirror);
            }
            // That somebody serves wrong bytes is the graver news.
            let Some(chosen) = tries.choose() else { return Err(damaged.unwrap_or(away)) };
            before = Some((chosen, jobs.len(), left));
            let mirror = self.mirrors[chosen].as_ref();
            self.progress.source(mirror.name());
            match self.get(mirror, remote, jobs, &mut waste) {
                Ok(()) | Err(Stop::Again) => {}
                Err(Stop::Here(error)) => return Err(error),
                Err(Stop::Mirror(error)) => {
                    log::warn!("{}: {remote}: {error}", mirror.name());
                    let what = format!("{remote} is not complete yet: {}: {error}", mirror.name());
                    away = Error::new(Exit::Unavailable, what, "the next run goes on where this one stopped");
                    self.clock.sleep(tries.failed(chosen, &error));
                }
                Err(Stop::Damage { job, digest, resumed, why }) => {
                    log::error!("{}: {job}: {why}", mirror.name());
                    // What was here before a power cut may be torn, so the first time the mirror is not blamed.
                    if !resumed || !forgiven.insert(digest) {
                        tries.set_aside(chosen);
                        if let Some(aside) = self.aside {
                            aside.put(mirror.name(), &format!("{job}: {why}"), self.clock.now())?;
                        }
                        before = None;
                        damaged = Some(Error::new(
                            Exit::Integrity,
                            format!("{job} is damaged on {}: {why}", mirror.name()),
                            "nothing of it is used; repair that copy of the repository and it is fetched again by itself",
                        ));
                    }
                }
            }
        }
    }

    /// Gets `jobs`, neighbours in one request; all of them in one, where the server cannot begin in the middle anyway.
    /// `waste`: bytes of this run that were or will be got for nothing from such a server.
    fn get(
        &self,
        mirror: &dyn Transport,
        remote: &str,
        jobs: Vec<Job<'_>>,
        waste: &mut u64,
    ) -> std::result::Result<(), Stop> {
        let gap = if mirror.serves_ranges() { MERGE_GAP } else { u64::MAX };
        if !mirror.serves_ranges() {
            let wanted: u64 = jobs.iter().map(|job| job.to - job.from).sum();
            *waste += jobs.last().map_or(0, |last| last.to).saturating_sub(wanted);
            if *waste > MAX_WASTE.max(wanted / 2) {
                return Err(Stop::Mirror(TransportError::Refused(format!(
                    "the server does not serve ranges, and {waste} bytes that are not needed would have to be fetched to get {wanted} that are"
                ))));
            }
        }
        let mut jobs = jobs.into_iter().peekable();
        while let Some(first) = jobs.next() {
            let mut run = vec![first];
            while let Some(next) =
                jobs.next_if(|next| run.last().is_some_and(|last| next.from <= last.to.saturating_add(gap)))
            {
                run.push(next);
            }
            self.get_run(mirror, remote, run)?;
        }
        Ok(())
    }

    /// Gets neighbouring jobs with one request.
    fn get_run(
        &self,
        mirror: &dyn Transport,
        remote: &str,
        run: Vec<Job<'_>>,
    ) -> std::result::Result<(), Stop> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            return Ok(());
        };
        let range = Range { from: first.from, to: last.to };
        if mirror.is_remote() {
            self.throttle.ask().map_err(|e| self.broken(&e))?;
            self.progress.cap(self.throttle.rate());
            mirror.expect_rate(self.throttle.rate());
        }
        let size = if mirror.is_remote() { self.throttle.portion_size() } else { CHUNK };
        let reached = Cell::new((0, range.from));
        let (content, is_remote) = (self.content(), mirror.is_remote());
        // Bytes are checked and written while the next ones come.
        let (received, taken) = pipe::through(
            size,
            |pipe| self.receive(mirror, remote, range, &run, &reached, pipe),
            |portions| content.take(&run, is_remote, portions),
        )
        .map_err(|e| content::no_thread(&e))?;
        if let Err(Stop::Mirror(TransportError::Replaced)) = received {
            taken?;
            let (place, position) = reached.get();
            return Err(self.content().replaced(&run[place..], position));
        }
        // Whoever takes no more is why no more was received.
        taken.and(received)
    }

    /// Passes on what belongs to these jobs, asked for from `range`. `reached`: the job and the byte that was asked for last.
    fn receive(
        &self,
        mirror: &dyn Transport,
        remote: &str,
        range: Range,
        run: &[Job<'_>],
        reached: &Cell<(usize, u64)>,
        pipe: &mut Pipe,
    ) -> std::result::Result<(), Stop> {
        let mut position = range.from;
        // Nothing is asked for when all bytes are here and only the name is missing.
        let mut piece = Piece { end: position, reader: Box::new(std::io::empty()) };
        for (place, job) in run.iter().enumerate() {
            while position < job.to {
                if position == piece.end {
                    reached.set((place, position));
                    let left = Range { from: position, to: range.to };
                    piece = self.piece(mirror, remote, left).map_err(Stop::Mirror)?;
                }
                // Up to the job's first byte: the gap between neighbours. Then up to its last.
                let is_gap = position < job.from;
                let end = if is_gap { job.from } else { job.to };
                let end = end.min(piece.end);
                let buffer = pipe.buffer();
                let wanted = buffer.len().min(usize::try_from(end - position).unwrap_or(usize::MAX));
                let n = piece.reader.read(&mut buffer[..wanted]).map_err(|e| self.broken(&e))?;
                if n == 0 {
                    return Err(Stop::Mirror(TransportError::failed("the connection ended too early")));
                }
                position += n as u64;
                self.progress.moved(n as u64);
                if !is_gap && !pipe.send(n) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Asks for the beginning of `range`, or for all of it where nobody is to be made way for or nothing can be seen of
    /// others.
    fn piece<'r>(
        &'r self,
        mirror: &'r dyn Transport,
        remote: &str,
        range: Range,
    ) -> std::result::Result<Piece<'r>, TransportError> {
        if !mirror.is_remote() {
            return Ok(Piece { end: range.to, reader: mirror.get(remote, Some(range))? });
        }
        let background = self.throttle.background().filter(|_| mirror.serves_ranges());
        let rate = background.map(|background| {
            background.borrow_mut().ask(mirror.name());
            background.borrow().rate()
        });
        self.throttle.set_yields_to(rate);
        self.progress.background(rate);
        let to = background.map_or(range.to, |b| range.to.min(range.from.saturating_add(b.borrow().piece())));
        let range = Range { from: range.from, to };
        let reader = mirror.get(remote, Some(range))?;
        let reader = self.throttle.reader(reader, range.to - range.from);
        let Some(background) = background else { return Ok(Piece { end: to, reader: Box::new(reader) }) };
        let began = self.clock.instant();
        if let Some(took) = mirror.answered_in() {
            background.borrow_mut().answered(began, took);
        }
        let bytes = range.to - range.from;
        let reader = Watched { reader, left: bytes, bytes, began, clock: self.clock, background };
        Ok(Piece { end: to, reader: Box::new(reader) })
    }

    /// Why reading has ended.
    fn broken(&self, error: &std::io::Error) -> Stop {
        match throttle::halted(error) {
            Some(Halt::Again) => Stop::Again,
            Some(Halt::Stop(why)) => Stop::Here(Error::deferred(why)),
            None => Stop::Mirror(TransportError::failed(error)),
        }
    }
}
