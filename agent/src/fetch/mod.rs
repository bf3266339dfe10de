//! Bytes in: exactly those that are missing, in few requests, resumable at any byte, checked as they come.
//!
//! Here: which mirror is asked for what. What is missing and whether what comes is right: [`content`].

mod bucket;
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
mod transport;
mod tries;
mod writer;

use std::collections::BTreeSet;
use std::io::Read;

use format::digest::Sha256;
use format::index::{Index, Member};
use host::clock::Clock;

pub use bucket::Bucket;
pub use http::{Client, HttpMirror, authorization};
pub use local::{Archive, Folder};
pub use origin::origin;
pub use rule::{Rule, zone_of};
pub use throttle::Throttle;
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
                    log::warn!("{}: {error}", mirror.name());
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
            self.throttle.ask().map_err(|e| self.broken(remote, &e))?;
            self.progress.cap(self.throttle.rate());
            mirror.expect_rate(self.throttle.rate());
        }
        // Nothing to ask for when all bytes are here and only the name is missing.
        let reader: Box<dyn Read> = if range.from < range.to {
            match mirror.get(remote, Some(range)) {
                Err(TransportError::Replaced) => return Err(self.content().replaced(&run)),
                other => other.map_err(Stop::Mirror)?,
            }
        } else {
            Box::new(std::io::empty())
        };
        let reader: Box<dyn Read + '_> = if mirror.is_remote() {
            Box::new(self.throttle.reader(reader, range.to - range.from))
        } else {
            reader
        };
        let size = if mirror.is_remote() { self.throttle.portion_size() } else { CHUNK };
        let (content, is_remote) = (self.content(), mirror.is_remote());
        // Bytes are checked and written while the next ones come.
        let (received, taken) = pipe::through(
            size,
            |pipe| self.receive(reader, range.from, &run, remote, pipe),
            |portions| content.take(&run, is_remote, portions),
        )
        .map_err(|e| Error::new(Exit::Io, format!("a thread to write what comes: {e}"), "try again later"))?;
        // Whoever takes no more is why no more was received.
        taken.and(received)
    }

    /// Passes on what belongs to these jobs, from a reader that begins at `position`.
    fn receive(
        &self,
        mut reader: Box<dyn Read + '_>,
        mut position: u64,
        run: &[Job<'_>],
        remote: &str,
        pipe: &mut Pipe,
    ) -> std::result::Result<(), Stop> {
        for job in run {
            while position < job.to {
                // Up to the job's first byte: the gap between neighbours. Then up to its last.
                let is_gap = position < job.from;
                let end = if is_gap { job.from } else { job.to };
                let buffer = pipe.buffer();
                let wanted = buffer.len().min(usize::try_from(end - position).unwrap_or(usize::MAX));
                let n = reader.read(&mut buffer[..wanted]).map_err(|e| self.broken(remote, &e))?;
                if n == 0 {
                    return Err(Stop::Mirror(TransportError::failed(format!(
                        "{remote}: the connection ended too early"
                    ))));
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

    /// Why reading has ended.
    fn broken(&self, remote: &str, error: &std::io::Error) -> Stop {
        match throttle::halted(error) {
            Some(Halt::Again) => Stop::Again,
            Some(Halt::Stop(why)) => Stop::Here(Error::deferred(why)),
            None => Stop::Mirror(TransportError::failed(format!("{remote}: {error}"))),
        }
    }
}
