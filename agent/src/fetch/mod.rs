//! Bytes in: exactly those that are missing, in few requests, resumable at any byte, checked as they come.
//!
//! What a run has to do is read from the disk each time ([`Fetcher::jobs`]), so there is no state that could be lost:
//! an interrupted fetch, a failed mirror and a damaged block are all just "look again what is missing".

mod bucket;
mod http;
mod local;
mod origin;
mod patience;
mod rule;
mod socket;
#[cfg(test)]
mod tests;
mod throttle;
mod transport;
mod tries;
mod writer;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write as _};
use std::path::Path;

use format::container::{Decoder, Encoding, StoredDecoder};
use format::digest::Sha256;
use format::index::{BLOCK, Index, Member};
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
use throttle::Halt;
use writer::{BlockCheck, WriteError, Writer, digest_of, good_blocks, truncate};

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

/// One piece of content that is missing, and where the rest of it stands in the file.
struct Job<'m> {
    /// The name for messages.
    name: String,
    digest: Sha256,
    /// First and last byte (exclusive) still needed, in the remote file.
    from: u64,
    to: u64,
    /// Whether a part of it was here already.
    resumed: bool,
    kind: Kind<'m>,
}

enum Kind<'m> {
    /// A stored member of this index: content goes straight into its partial file.
    Stored(&'m Index, &'m Member),
    /// A compressed member: fetched as it is, then decoded.
    Deflated(&'m Index, &'m Member),
    /// A whole target.
    Plain,
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
        self.until_done(remote, &mut || {
            if self.store.has(&digest, length) {
                return Ok(Vec::new());
            }
            let partial = self.store.partial(&digest);
            let have = self.length_of(&partial, length)?;
            let kind = Kind::Plain;
            Ok(vec![Job { name: remote.to_owned(), digest, from: have, to: length, resumed: have > 0, kind }])
        })
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
        self.until_done(remote, &mut || self.jobs(index, members))?;
        self.store.sync()
    }

    /// What is still missing, in the order of the file.
    fn jobs<'m>(&self, index: &'m Index, members: &[&'m Member]) -> Result<Vec<Job<'m>>> {
        let mut jobs = Vec::new();
        for &member in members.iter().filter(|m| !self.store.has(&m.sha256, m.size)) {
            let extent = member.whole().ok_or_else(|| {
                Error::new(
                    Exit::Integrity,
                    format!("member {}: no source that this agent knows", member.path),
                    "update prestage",
                )
            })?;
            let (have, kind) = match extent.encoding {
                Encoding::Stored => {
                    let have = self.good_prefix(member)?;
                    (index.entry(member).stored_position(have), Kind::Stored(index, member))
                }
                Encoding::Deflate => (
                    self.length_of(&self.store.encoded(&member.sha256), extent.length)?,
                    Kind::Deflated(index, member),
                ),
            };
            jobs.push(Job {
                name: format!("{} in {}", member.path, index.bundle.path),
                digest: member.sha256,
                from: extent.offset + have,
                to: extent.offset + extent.length,
                resumed: have > 0,
                kind,
            });
        }
        jobs.sort_by_key(|job| job.from);
        Ok(jobs)
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
        let mut position = range.from;
        if mirror.is_remote() {
            self.throttle.ask().map_err(|e| self.broken(remote, &e))?;
            self.progress.cap(self.throttle.rate());
            mirror.expect_rate(self.throttle.rate());
        }
        // Nothing to ask for when all bytes are here and only the name is missing.
        let reader: Box<dyn Read> = if range.from < range.to {
            match mirror.get(remote, Some(range)) {
                Err(TransportError::Replaced) => return Err(self.replaced(&run)),
                other => other.map_err(Stop::Mirror)?,
            }
        } else {
            Box::new(std::io::empty())
        };
        let reader: Box<dyn Read> = if mirror.is_remote() {
            Box::new(self.throttle.reader(reader, range.to - range.from))
        } else {
            reader
        };
        let mut reader = reader;
        let mut buffer = vec![0; CHUNK];
        for job in run {
            let mut writer = self.open(&job, mirror.is_remote())?;
            while position < job.to {
                // Up to the job's first byte: the gap between neighbours. Then up to its last.
                let end = if position < job.from { job.from } else { job.to };
                let wanted = buffer.len().min(usize::try_from(end - position).unwrap_or(usize::MAX));
                let n = reader.read(&mut buffer[..wanted]).map_err(|e| self.broken(remote, &e))?;
                if n == 0 {
                    return Err(Stop::Mirror(TransportError::failed(format!(
                        "{remote}: the connection ended too early"
                    ))));
                }
                if position >= job.from {
                    let pushed = writer.push(&buffer[..n]);
                    pushed.map_err(|e| self.stop(&job, e))?;
                }
                position += n as u64;
                self.progress.moved(n as u64);
            }
            self.finish(&job, writer)?;
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

    /// Opens where a job's bytes go. From a remote mirror they are checked block by block; where reading again costs
    /// nothing, the digest at the end is enough.
    fn open(&self, job: &Job<'_>, remote: bool) -> Result<Writer> {
        let (path, decoder) = match &job.kind {
            Kind::Plain => (self.store.partial(&job.digest), None),
            Kind::Deflated(..) => (self.store.encoded(&job.digest), None),
            Kind::Stored(index, member) => {
                let path = self.store.partial(&job.digest);
                let mut file = self.store.open_partial(&path)?;
                let have = file.metadata().map_err(|e| Error::file(&path, &e))?.len();
                let decoder = StoredDecoder::resume(index.entry(member), have, &mut file)
                    .map_err(|e| Error::file(&path, &e))?;
                let blocks = if remote { member.blocks.as_slice() } else { &[] };
                let blocks = BlockCheck::resume(blocks, have, &path).map_err(|e| Error::file(&path, &e))?;
                (path, Some((Decoder::Stored(decoder), blocks)))
            }
        };
        Ok(Writer { file: self.store.open_partial(&path)?, path, decoder, unsynced: 0 })
    }

    /// Checks a complete job and gives its content its name.
    fn finish(&self, job: &Job<'_>, writer: Writer) -> std::result::Result<(), Stop> {
        match &job.kind {
            Kind::Stored(..) | Kind::Plain => {
                let digest = match writer.decoder.map(|(decoder, _)| decoder.finish()) {
                    Some(digest) => digest.map_err(|e| self.stop(job, WriteError::Damage(e.to_string())))?,
                    None => digest_of(&writer.path)?,
                };
                if digest != job.digest {
                    return Err(self.stop(job, WriteError::Damage(format!("its sha256 is {digest}"))));
                }
                self.store.finish(&writer.file, &writer.path, &job.digest)?;
            }
            Kind::Deflated(index, member) => {
                self.inflate(index, member, &writer.path).map_err(|e| self.stop(job, e))?;
                host::file::remove(&writer.path).map_err(Error::from)?;
            }
        }
        log::debug!("complete: {}", job.name);
        Ok(())
    }

    /// Decodes a compressed member that is here whole.
    fn inflate(&self, index: &Index, member: &Member, encoded: &Path) -> std::result::Result<(), WriteError> {
        let partial = self.store.partial(&member.sha256);
        host::file::remove(&partial).map_err(|e| WriteError::Here(e.into()))?;
        let mut out = self.store.open_partial(&partial).map_err(WriteError::Here)?;
        let mut input = File::open(encoded).map_err(|e| WriteError::Here(Error::file(encoded, &e)))?;
        let mut decoder = Decoder::new(index.entry(member), Encoding::Deflate);
        let mut buffer = vec![0; CHUNK];
        loop {
            match input.read(&mut buffer).map_err(|e| WriteError::Here(Error::file(encoded, &e)))? {
                0 => break,
                n => decoder
                    .push(&buffer[..n], &mut |content| out.write_all(content))
                    .map_err(|e| WriteError::from_decoder(e, &partial))?,
            }
        }
        let digest = decoder.finish().map_err(|e| WriteError::Damage(e.to_string()))?;
        if digest != member.sha256 {
            return Err(WriteError::Damage(format!("its sha256 is {digest}")));
        }
        self.store.finish(&out, &partial, &digest).map_err(WriteError::Here)
    }

    /// Turns an error in a job's bytes into the reason to stop, and drops what cannot be used.
    fn stop(&self, job: &Job<'_>, error: WriteError) -> Stop {
        match error {
            WriteError::Here(error) => Stop::Here(error),
            WriteError::Damage(why) => match self.drop_unproved(job) {
                Err(error) => Stop::Here(error),
                Ok(()) => {
                    Stop::Damage { job: job.name.clone(), digest: job.digest, resumed: job.resumed, why }
                }
            },
        }
    }

    /// The mirror has another file now: of what came before, only what is proved is kept.
    fn replaced(&self, run: &[Job<'_>]) -> Stop {
        let dropped = run.iter().filter(|job| job.resumed).try_for_each(|job| self.drop_unproved(job));
        dropped.map_or_else(Stop::Here, |()| Stop::Mirror(TransportError::Replaced))
    }

    /// Whole blocks that are right stay; what no digest vouches for goes.
    fn drop_unproved(&self, job: &Job<'_>) -> Result<()> {
        match &job.kind {
            Kind::Stored(_, member) => self.drop_damaged(member),
            Kind::Deflated(..) => Ok(host::file::remove(&self.store.encoded(&job.digest))?),
            Kind::Plain => Ok(host::file::remove(&self.store.partial(&job.digest))?),
        }
    }

    /// Length of a partial file; one that is longer than it can be is begun anew.
    fn length_of(&self, path: &Path, limit: u64) -> Result<u64> {
        match std::fs::metadata(path) {
            Ok(meta) if meta.len() <= limit => Ok(meta.len()),
            Ok(_) => host::file::remove(path).map(|()| 0).map_err(Error::from),
            Err(_) => Ok(0),
        }
    }

    /// How much of a stored member's content is here and can be kept: all, unless a block is wrong (a torn write after
    /// a power cut); then up to that block.
    fn good_prefix(&self, member: &Member) -> Result<u64> {
        let path = self.store.partial(&member.sha256);
        let have = self.length_of(&path, member.size)?;
        if have < BLOCK || member.blocks.is_empty() {
            return Ok(have);
        }
        let good = good_blocks(&path, member, have).map_err(|e| Error::file(&path, &e))?;
        if good < have { truncate(&path, good).map(|()| good) } else { Ok(have) }
    }

    /// Keeps only whole blocks that are right.
    fn drop_damaged(&self, member: &Member) -> Result<()> {
        let path = self.store.partial(&member.sha256);
        let have = self.length_of(&path, member.size)?;
        let good = good_blocks(&path, member, have).map_err(|e| Error::file(&path, &e))?;
        truncate(&path, good / BLOCK * BLOCK)
    }
}
