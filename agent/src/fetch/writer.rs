//! Where bytes go.
//!
//! A partial file is a prefix of what it is to become, synced now and then; whatever a power cut tears is found by the
//! digests of its blocks and costs a block.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use format::container::{DecodeError, StoredDecoder, StoredFraming};
use format::digest::Sha256;
use format::index::{BLOCK, Member};
use host::clock::Clock;

use super::check::Checker;
use super::pipe::Portion;
use crate::error::{Error, Result};

/// After this many bytes of one file they are put on the disk, so that a power cut costs at most these ...
const SYNC_EVERY: u64 = 8 * 1024 * 1024;

/// ... or those of this time, where they come so fast that waiting for the disk would be what takes the time.
const SYNC_PAUSE: Duration = Duration::from_secs(1);

/// Length of the prefix in which no whole block is wrong.
pub(super) fn good_blocks(path: &Path, member: &Member, have: u64) -> io::Result<u64> {
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

pub(super) fn truncate(path: &Path, length: u64) -> Result<()> {
    let file = File::options().write(true).open(path);
    file.and_then(|f| f.set_len(length)).map_err(|e| Error::file(path, &e))
}

pub(super) fn digest_of(path: &Path) -> Result<Sha256> {
    let digest = File::open(path).and_then(|mut f| Sha256::of_reader(&mut f));
    digest.map(|(digest, _)| digest).map_err(|e| Error::file(path, &e))
}

/// Where a job's bytes go.
pub(super) struct Writer<'c, 'p> {
    file: File,
    path: PathBuf,
    check: Option<Check<'c, 'p>>,
    unsynced: u64,
    synced: Duration,
}

/// How the bytes of a stored member are checked.
pub(super) enum Check<'c, 'p> {
    /// Each block as it comes, beside the writing.
    Blocks(StoredFraming, &'c Checker<'p>),
    /// The whole, at its end.
    Whole(StoredDecoder),
}

/// Why bytes could not be taken.
pub(super) enum WriteError {
    /// They are wrong.
    Damage(String),
    /// This machine.
    Here(Error),
}

impl WriteError {
    pub(super) fn from_decoder(error: DecodeError, path: &Path) -> Self {
        match error {
            DecodeError::Damage(damage) => WriteError::Damage(damage.to_string()),
            DecodeError::Sink(error) => WriteError::Here(Error::file(path, &error)),
        }
    }
}

impl<'c, 'p> Writer<'c, 'p> {
    /// Appends to `file`, which is `path`. Without a `check` bytes are written as they come.
    pub(super) fn new(file: File, path: PathBuf, check: Option<Check<'c, 'p>>, now: Duration) -> Self {
        Writer { file, path, check, unsynced: 0, synced: now }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn push(
        &mut self,
        portion: Portion<'p>,
        clock: &dyn Clock,
    ) -> std::result::Result<(), WriteError> {
        let (mut file, path) = (&self.file, &self.path);
        let mut sink = |content: &[u8]| file.write_all(content);
        let length = portion.bytes().len() as u64;
        match &mut self.check {
            Some(Check::Blocks(framing, checker)) => {
                let portion = Arc::new(portion);
                checker.push(portion.clone()).map_err(WriteError::Damage)?;
                framing.push(portion.bytes(), &mut sink).map_err(|e| WriteError::from_decoder(e, path))?;
            }
            Some(Check::Whole(decoder)) => {
                decoder.push(portion.bytes(), &mut sink).map_err(|e| WriteError::from_decoder(e, path))?;
            }
            None => sink(portion.bytes()).map_err(|e| WriteError::Here(Error::file(path, &e)))?,
        }
        self.unsynced += length;
        if self.unsynced >= SYNC_EVERY && clock.instant() >= self.synced + SYNC_PAUSE {
            self.file.sync_data().map_err(|e| WriteError::Here(Error::file(&self.path, &e)))?;
            (self.unsynced, self.synced) = (0, clock.instant());
        }
        Ok(())
    }

    /// The file and its path, once it is proved to be what has this digest.
    pub(super) fn finish(self, digest: &Sha256) -> std::result::Result<(File, PathBuf), WriteError> {
        let damage = |text: String| WriteError::Damage(text);
        let found = match self.check {
            Some(Check::Blocks(framing, checker)) => {
                framing.finish().map_err(|e| damage(e.to_string()))?;
                checker.finish().map_err(damage)?;
                None
            }
            Some(Check::Whole(decoder)) => Some(decoder.finish().map_err(|e| damage(e.to_string()))?),
            None => Some(digest_of(&self.path).map_err(WriteError::Here)?),
        };
        match found {
            Some(found) if found != *digest => Err(damage(format!("its sha256 is {found}"))),
            _ => Ok((self.file, self.path)),
        }
    }
}
