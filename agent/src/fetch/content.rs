//! What is here of the content that a run wants: what of it is missing, where its bytes go, and whether they are right.
//!
//! What is missing is read from the disk each time ([`Content::jobs`]), so there is no state that could be lost: an
//! interrupted fetch, a failed mirror and a damaged block are all just "look again what is missing".
//!
//! Not here: where the bytes come from.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;

use format::container::{Decoder, Encoding, StoredDecoder, StoredFraming};
use format::digest::Sha256;
use format::index::{BLOCK, Index, Member};
use host::clock::Clock;

use super::check::{self, BlockCheck, Checker};
use super::pipe::Portions;
use super::transport::TransportError;
use super::writer::{Check, WriteError, Writer, good_blocks, truncate};
use super::{CHUNK, Stop};
use crate::error::{Error, Exit, Result};
use crate::store::Store;

/// Where content goes.
#[derive(Clone, Copy)]
pub(super) struct Content<'s> {
    pub(super) store: &'s Store,
    /// For when to sync.
    pub(super) clock: &'s dyn Clock,
}

/// One piece of content that is missing, and where the rest of it stands in the file.
pub(super) struct Job<'m> {
    /// The name for messages.
    pub(super) name: String,
    pub(super) digest: Sha256,
    /// First and last byte (exclusive) still needed, in the remote file.
    pub(super) from: u64,
    pub(super) to: u64,
    /// Whether a part of it was here already.
    pub(super) resumed: bool,
    pub(super) kind: Kind<'m>,
}

pub(super) enum Kind<'m> {
    /// A stored member of this index: content goes straight into its partial file.
    Stored(&'m Index, &'m Member),
    /// A compressed member: fetched as it is, then decoded.
    Deflated(&'m Index, &'m Member),
    /// A whole target.
    Plain,
}

impl Content<'_> {
    /// What is still missing of a whole target.
    pub(super) fn target<'m>(&self, remote: &str, digest: Sha256, length: u64) -> Result<Vec<Job<'m>>> {
        if self.store.has(&digest, length) {
            return Ok(Vec::new());
        }
        let have = self.length_of(&self.store.partial(&digest), length)?;
        let name = remote.to_owned();
        Ok(vec![Job { name, digest, from: have, to: length, resumed: have > 0, kind: Kind::Plain }])
    }

    /// What is still missing, in the order of the file.
    pub(super) fn jobs<'m>(&self, index: &'m Index, members: &[&'m Member]) -> Result<Vec<Job<'m>>> {
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

    /// Takes the bytes of these jobs as they come, in their order, until they are whole or no more come.
    pub(super) fn take(
        &self,
        run: &[Job<'_>],
        remote: bool,
        portions: &Portions,
    ) -> std::result::Result<(), Stop> {
        let taken = check::beside(|checker| {
            for job in run {
                let mut writer = self.open(job, remote, checker)?;
                let mut left = job.to - job.from;
                while left > 0 {
                    let Some(portion) = portions.next() else { return Ok(()) };
                    left = left.saturating_sub(portion.bytes().len() as u64);
                    writer.push(portion, self.clock).map_err(|e| self.stop(job, e))?;
                }
                self.finish(job, writer)?;
            }
            Ok(())
        });
        taken.map_err(|e| no_thread(&e))?
    }

    /// Opens where a job's bytes go. From a remote mirror they are checked block by block, so that a damaged one costs
    /// no more than itself; where reading again costs nothing, by the digest at the end. Once is enough: the index that
    /// vouches for both is signed, and whoever stages or installs checks the digest of the whole again.
    fn open<'c, 'p>(&self, job: &Job<'_>, remote: bool, checker: &'c Checker<'p>) -> Result<Writer<'c, 'p>> {
        let (path, check) = match &job.kind {
            Kind::Plain => (self.store.partial(&job.digest), None),
            Kind::Deflated(..) => (self.store.encoded(&job.digest), None),
            Kind::Stored(index, member) => {
                let path = self.store.partial(&job.digest);
                let mut file = self.store.open_partial(&path)?;
                let have = file.metadata().map_err(|e| Error::file(&path, &e))?.len();
                let decoder = if remote && !member.blocks.is_empty() {
                    let framing = || StoredFraming::resume(index.entry(member), have);
                    let blocks = BlockCheck::resume(&member.blocks, have, &path);
                    blocks.and_then(|blocks| {
                        checker.begin(framing()?, blocks);
                        Ok(Check::Blocks(framing()?, checker))
                    })
                } else {
                    StoredDecoder::resume(index.entry(member), have, &mut file).map(Check::Whole)
                };
                (path.clone(), Some(decoder.map_err(|e| Error::file(&path, &e))?))
            }
        };
        Ok(Writer::new(self.store.open_partial(&path)?, path, check, self.clock.instant()))
    }

    /// Checks a complete job and gives its content its name.
    fn finish(&self, job: &Job<'_>, writer: Writer<'_, '_>) -> std::result::Result<(), Stop> {
        match &job.kind {
            Kind::Stored(..) | Kind::Plain => {
                let (file, path) = writer.finish(&job.digest).map_err(|e| self.stop(job, e))?;
                self.store.finish(&file, &path, &job.digest)?;
            }
            Kind::Deflated(index, member) => {
                self.inflate(index, member, writer.path()).map_err(|e| self.stop(job, e))?;
                host::file::remove(writer.path()).map_err(Error::from)?;
            }
        }
        host::detail!("complete: {}", job.name);
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
    pub(super) fn replaced(&self, run: &[Job<'_>], position: u64) -> Stop {
        let dropped = run
            .iter()
            .filter(|job| job.resumed || job.from < position)
            .try_for_each(|job| self.drop_unproved(job));
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

/// There is no thread for what is done beside receiving.
pub(super) fn no_thread(why: &std::io::Error) -> Error {
    Error::new(Exit::Io, format!("a thread to check and write what comes: {why}"), "try again later")
}
