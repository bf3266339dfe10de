//! Bytes in: exactly those that are missing, in few requests, resumable at any byte, checked as they come.
//!
//! What a run has to do is read from the disk each time ([`Fetcher::jobs`]), so there is no state that could be lost:
//! an interrupted fetch, a failed mirror and a damaged block are all just "look again what is missing".

mod http;
mod local;
mod socket;
#[cfg(test)]
mod tests;
mod throttle;
mod transport;
mod tries;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use format::container::{DecodeError, Decoder, Encoding, StoredDecoder};
use format::digest::{Hasher, Sha256};
use format::index::{BLOCK, Index, Member};
use host::clock::Clock;

pub use http::{Client, HttpMirror};
pub use local::{Archive, Folder};
pub use throttle::Throttle;
pub use transport::{Changed, Range, Traffic, Transport, TransportError, read_all, read_limited};
pub use tries::Tries;

use crate::error::{Error, Exit, Result};
use crate::store::Store;

/// Two extents with at most this many bytes between them are one request: about what a second request and its answer
/// would cost in headers.
const MERGE_GAP: u64 = 1024;

/// Read at once: large enough that a local import is as fast as the disk, small enough to go unnoticed in memory.
const CHUNK: usize = 128 * 1024;

/// After this many bytes of one file they are put on the disk, so that a power cut costs at most these.
const SYNC_EVERY: u64 = 8 * 1024 * 1024;

/// Fetches into a store, from the first mirror that works.
#[derive(Clone, Copy)]
pub struct Fetcher<'a> {
    /// In order of preference.
    pub mirrors: &'a [Box<dyn Transport + 'a>],
    /// Where content goes.
    pub store: &'a Store,
    /// The cap for remote mirrors.
    pub throttle: &'a Throttle<'a>,
    /// For pauses.
    pub clock: &'a dyn Clock,
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
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Here(error)
    }
}

impl Fetcher<'_> {
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
        let mut before: Option<(usize, u64)> = None;
        loop {
            let jobs = missing()?;
            if jobs.is_empty() {
                return Ok(());
            }
            let left: u64 = jobs.iter().map(|job| job.to - job.from).sum();
            if let Some((mirror, left_before)) = before
                && left < left_before
            {
                tries.progressed(mirror);
            }
            // That somebody serves wrong bytes is the graver news.
            let Some(chosen) = tries.choose() else { return Err(damaged.unwrap_or(away)) };
            before = Some((chosen, left));
            let mirror = self.mirrors[chosen].as_ref();
            match self.get(mirror, remote, jobs) {
                Ok(()) => {}
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

    /// Gets `jobs`, neighbours in one request.
    fn get(&self, mirror: &dyn Transport, remote: &str, jobs: Vec<Job<'_>>) -> std::result::Result<(), Stop> {
        let mut jobs = jobs.into_iter().peekable();
        while let Some(first) = jobs.next() {
            let mut run = vec![first];
            while let Some(next) =
                jobs.next_if(|next| run.last().is_some_and(|last| next.from <= last.to + MERGE_GAP))
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
        // Nothing to ask for when all bytes are here and only the name is missing.
        let reader: Box<dyn Read> = if range.from < range.to {
            mirror.get(remote, Some(range)).map_err(Stop::Mirror)?
        } else {
            Box::new(std::io::empty())
        };
        let reader: Box<dyn Read> =
            if mirror.is_remote() { Box::new(self.throttle.reader(reader)) } else { reader };
        let mut reader = reader;
        let mut buffer = vec![0; CHUNK];
        for job in run {
            let mut writer = self.open(&job, mirror.is_remote())?;
            while position < job.to {
                // Up to the job's first byte: the gap between neighbours. Then up to its last.
                let end = if position < job.from { job.from } else { job.to };
                let wanted = buffer.len().min(usize::try_from(end - position).unwrap_or(usize::MAX));
                let n = reader
                    .read(&mut buffer[..wanted])
                    .map_err(|e| Stop::Mirror(TransportError::failed(format!("{remote}: {e}"))))?;
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
            }
            self.finish(&job, writer)?;
        }
        Ok(())
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
    fn inflate(
        &self,
        index: &Index,
        member: &Member,
        encoded: &PathBuf,
    ) -> std::result::Result<(), WriteError> {
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
            WriteError::Damage(why) => {
                let dropped = match &job.kind {
                    // Whole blocks that are right stay; the block that is not is fetched again.
                    Kind::Stored(_, member) => self.drop_damaged(member),
                    Kind::Deflated(..) => {
                        host::file::remove(&self.store.encoded(&job.digest)).map_err(Error::from)
                    }
                    Kind::Plain => host::file::remove(&self.store.partial(&job.digest)).map_err(Error::from),
                };
                match dropped {
                    Err(error) => Stop::Here(error),
                    Ok(()) => {
                        Stop::Damage { job: job.name.clone(), digest: job.digest, resumed: job.resumed, why }
                    }
                }
            }
        }
    }

    /// Length of a partial file; one that is longer than it can be is begun anew.
    fn length_of(&self, path: &PathBuf, limit: u64) -> Result<u64> {
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

/// Length of the prefix in which no whole block is wrong.
fn good_blocks(path: &PathBuf, member: &Member, have: u64) -> std::io::Result<u64> {
    let mut file = File::open(path)?;
    for (i, expected) in member.blocks.iter().enumerate() {
        let start = i as u64 * BLOCK;
        let length = BLOCK.min(member.size - start);
        if start + length > have {
            break;
        }
        let (digest, _) = Sha256::of_reader(&mut Read::by_ref(&mut file).take(length))?;
        if digest != *expected {
            return Ok(start);
        }
    }
    Ok(have)
}

fn truncate(path: &PathBuf, length: u64) -> Result<()> {
    let file = File::options().write(true).open(path);
    file.and_then(|f| f.set_len(length)).map_err(|e| Error::file(path, &e))
}

fn digest_of(path: &PathBuf) -> Result<Sha256> {
    let digest = File::open(path).and_then(|mut f| Sha256::of_reader(&mut f));
    digest.map(|(digest, _)| digest).map_err(|e| Error::file(path, &e))
}

/// Where a job's bytes go.
struct Writer {
    file: File,
    path: PathBuf,
    decoder: Option<(Decoder, BlockCheck)>,
    unsynced: u64,
}

/// Checks content block by block as it comes, so that a damaged block costs a block and not the member behind it.
struct BlockCheck {
    blocks: Vec<Sha256>,
    /// Content bytes seen.
    seen: u64,
    hasher: Hasher,
}

impl BlockCheck {
    /// For a member of these blocks, of which `have` bytes are in `path`. Without blocks nothing is checked here.
    fn resume(blocks: &[Sha256], have: u64, path: &Path) -> std::io::Result<Self> {
        let mut check =
            BlockCheck { blocks: blocks.to_vec(), seen: have / BLOCK * BLOCK, hasher: Hasher::new() };
        if !check.blocks.is_empty() && check.seen < have {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(check.seen))?;
            let mut rest = Vec::new();
            file.take(have - check.seen).read_to_end(&mut rest)?;
            check.hasher.update(&rest);
        }
        check.seen = have;
        Ok(check)
    }

    /// Takes the next content; an error at the end of the first block that is wrong.
    fn push(&mut self, mut content: &[u8]) -> std::io::Result<()> {
        if self.blocks.is_empty() {
            return Ok(());
        }
        while !content.is_empty() {
            let left = BLOCK - self.seen % BLOCK;
            let (part, rest) =
                content.split_at(content.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
            self.hasher.update(part);
            self.seen += part.len() as u64;
            if part.len() as u64 == left {
                let block = (self.seen / BLOCK - 1) as usize; // no larger than the number of blocks in memory
                if self.blocks.get(block) != Some(&std::mem::take(&mut self.hasher).finish()) {
                    let text = format!("block {block} does not have its sha256");
                    return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, text));
                }
            }
            content = rest;
        }
        Ok(())
    }
}

/// Why bytes could not be taken.
enum WriteError {
    /// They are wrong.
    Damage(String),
    /// This machine.
    Here(Error),
}

impl WriteError {
    fn from_decoder(error: DecodeError, path: &std::path::Path) -> Self {
        match error {
            DecodeError::Damage(damage) => WriteError::Damage(damage.to_string()),
            // Only the block check makes such an error.
            DecodeError::Sink(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                WriteError::Damage(error.to_string())
            }
            DecodeError::Sink(error) => WriteError::Here(Error::file(path, &error)),
        }
    }
}

impl Writer {
    fn push(&mut self, bytes: &[u8]) -> std::result::Result<(), WriteError> {
        let (file, path) = (&mut self.file, &self.path);
        match &mut self.decoder {
            Some((decoder, blocks)) => {
                let mut sink = |content: &[u8]| {
                    file.write_all(content)?;
                    blocks.push(content)
                };
                decoder.push(bytes, &mut sink).map_err(|e| WriteError::from_decoder(e, path))?;
            }
            None => file.write_all(bytes).map_err(|e| WriteError::Here(Error::file(path, &e)))?,
        }
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= SYNC_EVERY {
            self.file.sync_data().map_err(|e| WriteError::Here(Error::file(&self.path, &e)))?;
            self.unsynced = 0;
        }
        Ok(())
    }
}
