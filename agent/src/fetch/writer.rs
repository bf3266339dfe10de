//! Where bytes go, and the check of each block as it comes.
//!
//! A partial file is a prefix of what it is to become, synced now and then; whatever a power cut tears is found by the
//! digests of its blocks and costs a block.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use format::container::{DecodeError, StoredDecoder, StoredFraming};
use format::digest::{Hasher, Sha256};
use format::index::{BLOCK, Member};
use host::clock::Clock;

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
pub(super) struct Writer {
    file: File,
    path: PathBuf,
    check: Option<Check>,
    unsynced: u64,
    synced: Duration,
}

/// How the bytes of a stored member are checked.
pub(super) enum Check {
    /// Each block as it comes.
    Blocks(StoredFraming, BlockCheck),
    /// The whole, at its end.
    Whole(StoredDecoder),
}

/// Checks content block by block as it comes, so that a damaged block costs a block and not the member behind it.
pub(super) struct BlockCheck {
    blocks: Vec<Sha256>,
    /// Content bytes seen.
    seen: u64,
    hasher: Hasher,
}

impl BlockCheck {
    /// For a member of these blocks, of which `have` bytes are in `path`.
    pub(super) fn resume(blocks: &[Sha256], have: u64, path: &Path) -> io::Result<Self> {
        let mut check =
            BlockCheck { blocks: blocks.to_vec(), seen: have / BLOCK * BLOCK, hasher: Hasher::new() };
        if check.seen < have {
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
    fn push(&mut self, mut content: &[u8]) -> io::Result<()> {
        while !content.is_empty() {
            let left = BLOCK - self.seen % BLOCK;
            let (part, rest) =
                content.split_at(content.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
            self.hasher.update(part);
            self.seen += part.len() as u64;
            if part.len() as u64 == left {
                self.compare().map_err(|text| io::Error::new(io::ErrorKind::InvalidData, text))?;
            }
            content = rest;
        }
        Ok(())
    }

    /// Compares the block that has ended.
    fn compare(&mut self) -> std::result::Result<(), String> {
        let block = (self.seen.div_ceil(BLOCK) - 1) as usize; // no larger than the number of blocks in memory
        let digest = std::mem::take(&mut self.hasher).finish();
        let is_right = self.blocks.get(block) == Some(&digest);
        if is_right { Ok(()) } else { Err(format!("block {block} does not have its sha256")) }
    }

    /// Compares the last block, if it is shorter than the others.
    fn finish(mut self) -> std::result::Result<(), String> {
        if self.seen.is_multiple_of(BLOCK) { Ok(()) } else { self.compare() }
    }
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
            // Only the block check makes such an error.
            DecodeError::Sink(error) if error.kind() == io::ErrorKind::InvalidData => {
                WriteError::Damage(error.to_string())
            }
            DecodeError::Sink(error) => WriteError::Here(Error::file(path, &error)),
        }
    }
}

impl Writer {
    /// Appends to `file`, which is `path`. Without a `check` bytes are written as they come.
    pub(super) fn new(file: File, path: PathBuf, check: Option<Check>, now: Duration) -> Self {
        Writer { file, path, check, unsynced: 0, synced: now }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn push(&mut self, bytes: &[u8], clock: &dyn Clock) -> std::result::Result<(), WriteError> {
        let (mut file, path) = (&self.file, &self.path);
        match &mut self.check {
            Some(Check::Blocks(framing, blocks)) => {
                let mut sink = |content: &[u8]| {
                    file.write_all(content)?;
                    blocks.push(content)
                };
                framing.push(bytes, &mut sink).map_err(|e| WriteError::from_decoder(e, path))?;
            }
            Some(Check::Whole(decoder)) => {
                let mut sink = |content: &[u8]| file.write_all(content);
                decoder.push(bytes, &mut sink).map_err(|e| WriteError::from_decoder(e, path))?;
            }
            None => file.write_all(bytes).map_err(|e| WriteError::Here(Error::file(path, &e)))?,
        }
        self.unsynced += bytes.len() as u64;
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
            Some(Check::Blocks(framing, blocks)) => {
                framing.finish().map_err(|e| damage(e.to_string()))?;
                blocks.finish().map_err(damage)?;
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
