//! The bundle file: an ordinary `.tar.gz` in which every tar entry is a gzip member of its own.
//!
//! `tar -tzf` lists it, and any one entry can be fetched by its byte range and decoded alone. What is already
//! compressed (packages) goes in *stored* (deflate blocks of type 0, RFC 1951 section 3.2.4); repository metadata is
//! deflated. Every byte of a stored member but its content is known beforehand from its path and size: so a fetch can
//! go on at any byte, and any flipped byte is seen even where it would do no harm.
//!
//! What is not here: which members there are and where ([`crate::index`]), files and sockets (the callers').

use std::fmt;
use std::io::{self, Read, Write};

use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZError, MZFlush, MZStatus};

use crate::digest::{Hasher, Sha256};
use crate::name::MemberPath;
use crate::time::UnixTime;

/// Size of a tar header and of the unit that tar pads to (POSIX.1-2017, pax, "ustar Interchange Format").
const RECORD: u64 = 512;

/// gzip header (RFC 1952): deflate, no flags, no time, no extra flags, unknown system. Always the same bytes.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// gzip trailer: CRC-32 and size modulo 2^32, both little endian.
const GZIP_TRAILER: u64 = 8;

/// Of which the CRC-32.
const CRC: u64 = 4;

/// Content bytes in one stored block: the largest that RFC 1951 allows.
const BLOCK: u64 = 65_535;

/// A stored block's header: one byte of flags, the length, and its complement.
const BLOCK_HEADER: u64 = 5;

/// The largest content that a member may have: lengths and positions made of it still fit 64 bits.
pub const MAX_SIZE: u64 = u64::MAX / 2;

/// deflate level for metadata members.
const LEVEL: u8 = 9;

/// How a whole member stands in the bundle file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Stored blocks: for what is already compressed.
    Stored,
    /// Deflated.
    Deflate,
}

/// A bundle's bytes are not what they must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Which part of the member, in words.
    pub what: &'static str,
    /// Where, counted from the member's first byte.
    pub at: u64,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at byte {} of the member)", self.what, self.at)
    }
}

impl std::error::Error for Damage {}

/// A decoder stopped: because of the bytes, or because its sink could not take them.
#[derive(Debug)]
pub enum DecodeError {
    /// The bytes are wrong.
    Damage(Damage),
    /// The sink failed.
    Sink(io::Error),
}

impl From<Damage> for DecodeError {
    fn from(damage: Damage) -> Self {
        DecodeError::Damage(damage)
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Damage(damage) => damage.fmt(f),
            DecodeError::Sink(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Where decoded content goes.
pub type Sink<'s> = &'s mut dyn FnMut(&[u8]) -> io::Result<()>;

/// One tar entry: the header that it must have, and its size.
#[derive(Clone)]
pub struct Entry {
    header: [u8; RECORD as usize],
    size: u64,
}

impl Entry {
    /// The entry of a regular file of mode 0644, owner 0, changed at `mtime`. Nothing else is ever in a bundle, so no
    /// link, device, set-uid bit or sparse map needs to be judged: a different header is damage. A `size` over
    /// [`MAX_SIZE`], which no validated index has, counts as that.
    pub fn new(path: &MemberPath, size: u64, mtime: UnixTime) -> Self {
        let size = size.min(MAX_SIZE);
        let mut header = tar::Header::new_ustar();
        // A MemberPath always fits a ustar header: at most 100 bytes in its last component and 255 in all. Where no
        // split leaves the directory within its 155 bytes, the index is refused (`fits`) before it comes to this.
        let _ = header.set_path(path.as_str());
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(u64::try_from(mtime.0).unwrap_or(0));
        header.set_size(size);
        header.set_cksum();
        Entry { header: *header.as_bytes(), size }
    }

    /// Whether a ustar header can hold `path`.
    pub fn fits(path: &MemberPath) -> bool {
        tar::Header::new_ustar().set_path(path.as_str()).is_ok()
    }

    /// Length of header, content and padding.
    fn padded(&self) -> u64 {
        RECORD + self.size.next_multiple_of(RECORD)
    }

    /// Length of the stored gzip member.
    pub fn stored_length(&self) -> u64 {
        let padded = self.padded();
        GZIP_HEADER.len() as u64 + padded + BLOCK_HEADER * padded.div_ceil(BLOCK) + GZIP_TRAILER
    }

    /// Where, in the stored gzip member, the content's byte `offset` stands. For `offset` = size: the first byte after
    /// the content.
    pub fn stored_position(&self, offset: u64) -> u64 {
        match offset {
            0 => 0, // from the beginning, so that the headers are checked too
            _ => {
                // The last byte before `offset` decides the block, so that a position is never before a block header
                // that would then have to be skipped without a content byte in front of it.
                let before = RECORD + offset - 1;
                GZIP_HEADER.len() as u64 + BLOCK_HEADER * (before / BLOCK + 1) + before + 1
            }
        }
    }
}

/// Checks an entry's bytes as they come out of their framing, and passes the content on.
struct EntryChecker {
    entry: Entry,
    /// How many bytes of header, content and padding were seen.
    seen: u64,
    /// None: somebody else checks the content ([`StoredFraming`]).
    sums: Option<Sums>,
}

/// What is made of what was seen.
#[derive(Default)]
struct Sums {
    /// Of the content.
    digest: Hasher,
    /// Of everything.
    crc: crc32fast::Hasher,
}

impl EntryChecker {
    fn new(entry: Entry) -> Self {
        EntryChecker { entry, seen: 0, sums: Some(Sums::default()) }
    }

    fn push(&mut self, mut bytes: &[u8], sink: Sink<'_>) -> Result<(), DecodeError> {
        if let Some(sums) = &mut self.sums {
            sums.crc.update(bytes);
        }
        while !bytes.is_empty() {
            let content_end = RECORD + self.entry.size;
            let (part_end, what) = if self.seen < RECORD {
                (RECORD, "the tar header is not the one of this member")
            } else if self.seen < content_end {
                (content_end, "")
            } else if self.seen < self.entry.padded() {
                (self.entry.padded(), "the padding after the content is not zero")
            } else {
                return Err(Damage { what: "there is more data than the index says", at: self.seen }.into());
            };
            let n = bytes.len().min(usize::try_from(part_end - self.seen).unwrap_or(usize::MAX));
            let (part, rest) = bytes.split_at(n);
            if self.seen < RECORD {
                let from = self.seen as usize; // below 512
                if part != &self.entry.header[from..from + n] {
                    return Err(Damage { what, at: self.seen }.into());
                }
            } else if self.seen < content_end {
                if let Some(sums) = &mut self.sums {
                    sums.digest.update(part);
                }
                sink(part).map_err(DecodeError::Sink)?;
            } else if part.iter().any(|b| *b != 0) {
                return Err(Damage { what, at: self.seen }.into());
            }
            self.seen += n as u64;
            bytes = rest;
        }
        Ok(())
    }

    fn is_whole(&self) -> bool {
        self.seen == self.entry.padded()
    }

    /// The SHA-256 of the content.
    fn digest(self) -> Sha256 {
        self.sums.unwrap_or_default().digest.finish()
    }

    /// CRC32 of the gzip trailer that belongs to what was seen; none: somebody else checks the content.
    fn crc(&self) -> Option<[u8; 4]> {
        Some(self.sums.as_ref()?.crc.clone().finalize().to_le_bytes())
    }

    /// ISIZE of that trailer (RFC 1952: modulo 2^32).
    fn isize(&self) -> [u8; 4] {
        (self.seen as u32).to_le_bytes()
    }

    /// The whole trailer.
    fn trailer(&self) -> [u8; GZIP_TRAILER as usize] {
        let mut out = [0; 8];
        out[..4].copy_from_slice(&self.crc().unwrap_or_default());
        out[4..].copy_from_slice(&self.isize());
        out
    }
}

/// Decodes a member, chunk by chunk as it arrives, in fixed memory.
pub enum Decoder {
    /// For [`Encoding::Stored`].
    Stored(StoredDecoder),
    /// For [`Encoding::Deflate`].
    Deflate(DeflateDecoder),
}

impl Decoder {
    /// A decoder for the whole member `entry`.
    pub fn new(entry: Entry, encoding: Encoding) -> Self {
        match encoding {
            Encoding::Stored => Decoder::Stored(StoredDecoder::new(entry)),
            Encoding::Deflate => Decoder::Deflate(DeflateDecoder::new(entry)),
        }
    }

    /// Takes the next bytes of the member; content goes to `sink`.
    ///
    /// # Errors
    /// At the first byte that cannot belong to this member, or when `sink` fails.
    pub fn push(&mut self, bytes: &[u8], sink: Sink<'_>) -> Result<(), DecodeError> {
        match self {
            Decoder::Stored(decoder) => decoder.push(bytes, sink),
            Decoder::Deflate(decoder) => decoder.push(bytes, sink),
        }
    }

    /// Ends the member: the SHA-256 of its content, for the caller to compare with the index.
    ///
    /// # Errors
    /// If the member is not complete.
    pub fn finish(self) -> Result<Sha256, Damage> {
        match self {
            Decoder::Stored(decoder) => decoder.finish(),
            Decoder::Deflate(decoder) => decoder.finish(),
        }
    }
}

/// What stands at a place of a stored member.
enum Part {
    /// Header, content or padding of the entry.
    Entry,
    /// Framing bytes that are known beforehand.
    Framing {
        expected: Vec<u8>,
        /// How many of them were seen.
        from: usize,
        /// What it means if they differ.
        what: &'static str,
    },
    /// The checksum of content that somebody else checks.
    Passed,
}

/// Decodes a stored member, from its beginning or from where an interrupted fetch left off.
pub struct StoredDecoder {
    checker: EntryChecker,
    /// Position in the gzip member.
    position: u64,
    length: u64,
}

impl StoredDecoder {
    /// Begins at the member's first byte.
    pub fn new(entry: Entry) -> Self {
        let length = entry.stored_length();
        StoredDecoder { checker: EntryChecker::new(entry), position: 0, length }
    }

    /// Begins behind `offset` content bytes that are already there: `prefix` yields them and is hashed again. The
    /// bytes to push next are those from [`Entry::stored_position`] on.
    ///
    /// # Errors
    /// Those of `prefix`, `UnexpectedEof` if it yields fewer, and `InvalidInput` if the member has not that many.
    pub fn resume(entry: Entry, offset: u64, prefix: &mut dyn Read) -> io::Result<Self> {
        let mut decoder = StoredDecoder::new(entry);
        decoder.skip(offset, prefix)?;
        Ok(decoder)
    }

    /// Goes behind `offset` content bytes, which `prefix` yields.
    fn skip(&mut self, offset: u64, prefix: &mut dyn Read) -> io::Result<()> {
        self.go_behind(offset)?;
        if offset > 0 {
            self.checker.seen = 0;
            let header = self.checker.entry.header;
            let mut discard = |_: &[u8]| Ok(());
            self.absorb(&header, &mut discard)?;
            let mut buffer = vec![0; 64 * 1024];
            let mut left = offset;
            while left > 0 {
                let n = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                prefix.read_exact(&mut buffer[..n])?;
                self.absorb(&buffer[..n], &mut discard)?;
                left -= n as u64;
            }
        }
        Ok(())
    }

    /// Goes behind `offset` content bytes that somebody else has checked.
    fn go_behind(&mut self, offset: u64) -> io::Result<()> {
        let size = self.checker.entry.size;
        if offset > size {
            let text = format!("{offset} bytes are there already of a member of {size}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        if offset > 0 {
            self.checker.seen = RECORD + offset;
            self.position = self.checker.entry.stored_position(offset);
        }
        Ok(())
    }

    /// Position in the gzip member of the next byte to push.
    pub fn position(&self) -> u64 {
        self.position
    }

    fn absorb(&mut self, bytes: &[u8], sink: Sink<'_>) -> io::Result<()> {
        self.checker.push(bytes, sink).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))
    }

    /// As [`Decoder::push`].
    ///
    /// # Errors
    /// As [`Decoder::push`].
    pub fn push(&mut self, mut bytes: &[u8], sink: Sink<'_>) -> Result<(), DecodeError> {
        while !bytes.is_empty() {
            let (n, what_it_is) = self.next_part();
            let n = bytes.len().min(usize::try_from(n).unwrap_or(usize::MAX));
            let (part, rest) = bytes.split_at(n);
            match what_it_is {
                Part::Entry => self.checker.push(part, &mut *sink)?,
                Part::Framing { expected, from, what } => {
                    let expected = expected.get(from..from + n);
                    if expected != Some(part) {
                        return Err(Damage { what, at: self.position }.into());
                    }
                }
                Part::Passed => {}
            }
            self.position += n as u64;
            bytes = rest;
        }
        Ok(())
    }

    /// What stands at the current position, and how many bytes of it are left.
    fn next_part(&self) -> (u64, Part) {
        let framing = |expected: &[u8], from: u64, what| {
            let left = expected.len() as u64 - from;
            // `from` is below 10.
            (left, Part::Framing { expected: expected.to_vec(), from: from as usize, what })
        };
        let header = GZIP_HEADER.len() as u64;
        if self.position < header {
            return framing(&GZIP_HEADER, self.position, "the gzip header is damaged");
        }
        let padded = self.checker.entry.padded();
        let body_end = self.length - GZIP_TRAILER;
        if self.position < body_end {
            let (block, within) = (
                (self.position - header) / (BLOCK + BLOCK_HEADER),
                (self.position - header) % (BLOCK + BLOCK_HEADER),
            );
            let block_size = BLOCK.min(padded - block * BLOCK);
            if within < BLOCK_HEADER {
                return framing(
                    &block_header(block_size as u16, (block + 1) * BLOCK >= padded),
                    within,
                    "a block header is damaged",
                );
            }
            return (block_size + BLOCK_HEADER - within, Part::Entry);
        }
        let (seen, differs) = (self.position - body_end, "the gzip checksum does not match");
        match self.checker.crc() {
            None if seen < CRC => (CRC - seen, Part::Passed),
            Some(crc) if seen < CRC => framing(&crc, seen, differs),
            _ if seen < GZIP_TRAILER => framing(&self.checker.isize(), seen - CRC, differs),
            _ => {
                let what = "there is more data than the index says";
                (u64::MAX, Part::Framing { expected: Vec::new(), from: 0, what })
            }
        }
    }

    /// As [`Decoder::finish`].
    ///
    /// # Errors
    /// As [`Decoder::finish`].
    pub fn finish(self) -> Result<Sha256, Damage> {
        self.whole()?;
        Ok(self.checker.digest())
    }

    fn whole(&self) -> Result<(), Damage> {
        let is_whole = self.position == self.length && self.checker.is_whole();
        if is_whole { Ok(()) } else { Err(Damage { what: "the member ends too early", at: self.position }) }
    }
}

/// A [`StoredDecoder`] for whoever checks the content itself, block by block: everything but the content and its CRC32 is
/// checked here.
pub struct StoredFraming(StoredDecoder);

impl StoredFraming {
    /// Begins behind `offset` content bytes that are there and checked. The bytes to push next are those from
    /// [`Entry::stored_position`] on.
    ///
    /// # Errors
    /// `InvalidInput` if the member has not that many.
    pub fn resume(entry: Entry, offset: u64) -> io::Result<Self> {
        let mut decoder = StoredDecoder::new(entry);
        decoder.checker.sums = None;
        decoder.go_behind(offset)?;
        Ok(StoredFraming(decoder))
    }

    /// As [`Decoder::push`].
    ///
    /// # Errors
    /// As [`Decoder::push`].
    pub fn push(&mut self, bytes: &[u8], sink: Sink<'_>) -> Result<(), DecodeError> {
        self.0.push(bytes, sink)
    }

    /// Ends the member.
    ///
    /// # Errors
    /// If it is not complete.
    pub fn finish(self) -> Result<(), Damage> {
        self.0.whole()
    }
}

/// RFC 1951 section 3.2.4: BFINAL and BTYPE 00 in the first byte, LEN, NLEN. `size` is at most [`BLOCK`].
fn block_header(size: u16, last: bool) -> [u8; BLOCK_HEADER as usize] {
    let (len, complement) = (size.to_le_bytes(), (!size).to_le_bytes());
    [u8::from(last), len[0], len[1], complement[0], complement[1]]
}

/// Decodes a deflated member.
pub struct DeflateDecoder {
    checker: EntryChecker,
    position: u64,
    state: Box<InflateState>,
    body_done: bool,
    trailer_seen: usize,
    output: Vec<u8>,
}

impl DeflateDecoder {
    /// Begins at the member's first byte.
    pub fn new(entry: Entry) -> Self {
        DeflateDecoder {
            checker: EntryChecker::new(entry),
            position: 0,
            state: InflateState::new_boxed(DataFormat::Raw),
            body_done: false,
            trailer_seen: 0,
            output: vec![0; 32 * 1024],
        }
    }

    fn push(&mut self, mut bytes: &[u8], sink: Sink<'_>) -> Result<(), DecodeError> {
        while !bytes.is_empty() {
            let at = self.position;
            let damage = |what| DecodeError::Damage(Damage { what, at });
            let used = if let Some(expected) = GZIP_HEADER.get(at as usize..).filter(|e| !e.is_empty()) {
                let n = bytes.len().min(expected.len());
                if bytes[..n] != expected[..n] {
                    return Err(damage("the gzip header is damaged"));
                }
                n
            } else if !self.body_done {
                let result = inflate(&mut self.state, bytes, &mut self.output, MZFlush::None);
                // More content than the index says is refused by the checker, so a gzip bomb costs one buffer.
                self.checker.push(&self.output[..result.bytes_written], &mut *sink)?;
                match result.status {
                    Ok(MZStatus::StreamEnd) => self.body_done = true,
                    Ok(_) | Err(MZError::Buf) if result.bytes_consumed + result.bytes_written > 0 => {}
                    _ => return Err(damage("the compressed data is damaged")),
                }
                result.bytes_consumed
            } else {
                let expected = self.checker.trailer();
                let n = bytes.len().min(expected.len() - self.trailer_seen);
                if n == 0 {
                    return Err(damage("there is more data than the index says"));
                }
                if bytes[..n] != expected[self.trailer_seen..self.trailer_seen + n] {
                    return Err(damage("the gzip checksum does not match"));
                }
                self.trailer_seen += n;
                n
            };
            self.position += used as u64;
            bytes = &bytes[used..];
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Sha256, Damage> {
        let at = self.position;
        let mut overrun = false;
        // miniz may still hold output for which there was no room in the last call.
        while !self.body_done && !overrun {
            let result = inflate(&mut self.state, &[], &mut self.output, MZFlush::None);
            overrun = result.bytes_written > 0 || !matches!(result.status, Ok(MZStatus::StreamEnd));
            self.body_done = matches!(result.status, Ok(MZStatus::StreamEnd));
        }
        if self.body_done && !overrun && self.trailer_seen == GZIP_TRAILER as usize && self.checker.is_whole()
        {
            Ok(self.checker.digest())
        } else {
            Err(Damage { what: "the member ends too early", at })
        }
    }
}

/// Writes `content` as a stored member and returns its length and the SHA-256 of the content.
///
/// # Errors
/// Those of reader and writer; `InvalidData` if the content is not of the entry's size.
pub fn write_stored(entry: &Entry, content: &mut dyn Read, out: &mut dyn Write) -> io::Result<(u64, Sha256)> {
    let padded = entry.padded();
    let mut digest = Hasher::new();
    let mut crc = crc32fast::Hasher::new();
    out.write_all(&GZIP_HEADER)?;
    let mut block = vec![0u8; BLOCK as usize];
    let mut done = 0u64;
    while done < padded {
        let size = BLOCK.min(padded - done);
        let block = &mut block[..size as usize];
        block.fill(0);
        let header = RECORD.saturating_sub(done).min(size) as usize;
        if header > 0 {
            block[..header].copy_from_slice(&entry.header[..header]);
        }
        let content_left =
            (RECORD + entry.size).saturating_sub(done.max(RECORD)).min(size - header as u64) as usize;
        let part = &mut block[header..header + content_left];
        content.read_exact(part).map_err(|e| wrong_size(e, entry.size))?;
        digest.update(part);
        crc.update(block);
        done += size;
        out.write_all(&block_header(size as u16, done == padded))?;
        out.write_all(block)?;
    }
    expect_end(content, entry.size)?;
    out.write_all(&crc.finalize().to_le_bytes())?;
    out.write_all(&(padded as u32).to_le_bytes())?;
    Ok((entry.stored_length(), digest.finish()))
}

/// Writes `content` as a deflated member and returns its length and the SHA-256 of the content. For repository
/// metadata: it is compressed as a whole in memory.
///
/// # Errors
/// Those of the writer; `InvalidData` if the content is not of the entry's size.
pub fn write_deflated(entry: &Entry, content: &[u8], out: &mut dyn Write) -> io::Result<(u64, Sha256)> {
    if content.len() as u64 != entry.size {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("content is not {} bytes long", entry.size),
        ));
    }
    let mut plain = entry.header.to_vec();
    plain.extend_from_slice(content);
    plain.resize(usize::try_from(entry.padded()).map_err(io::Error::other)?, 0);
    let length = write_gzip(&plain, out)?;
    Ok((length, Sha256::of(content)))
}

/// Writes the end-of-archive mark (two zero records) as the bundle's last gzip member and returns its length.
///
/// # Errors
/// Those of the writer.
pub fn write_end(out: &mut dyn Write) -> io::Result<u64> {
    write_gzip(&[0; 2 * RECORD as usize], out)
}

/// `content` as a gzip file of its own, always the same bytes: for metadata whose readers want it compressed.
///
/// # Errors
/// None that a writer into memory could have.
pub fn gzip(content: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    write_gzip(content, &mut out)?;
    Ok(out)
}

fn write_gzip(plain: &[u8], out: &mut dyn Write) -> io::Result<u64> {
    let body = miniz_oxide::deflate::compress_to_vec(plain, LEVEL);
    out.write_all(&GZIP_HEADER)?;
    out.write_all(&body)?;
    out.write_all(&crc32fast::hash(plain).to_le_bytes())?;
    out.write_all(&(plain.len() as u32).to_le_bytes())?; // RFC 1952: modulo 2^32
    Ok(GZIP_HEADER.len() as u64 + body.len() as u64 + GZIP_TRAILER)
}

fn wrong_size(error: io::Error, size: u64) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            io::Error::new(io::ErrorKind::InvalidData, format!("the content is shorter than {size} bytes"))
        }
        _ => error,
    }
}

fn expect_end(content: &mut dyn Read, size: u64) -> io::Result<()> {
    match content.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the content is longer than {size} bytes"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TIME: UnixTime = UnixTime(1_700_000_000);

    fn entry(size: usize) -> Entry {
        Entry::new(&"pool/a_1_all.deb".parse().unwrap(), size as u64, TIME)
    }

    fn encode(content: &[u8], encoding: Encoding) -> Vec<u8> {
        let mut out = Vec::new();
        let (length, digest) = match encoding {
            Encoding::Stored => write_stored(&entry(content.len()), &mut &content[..], &mut out).unwrap(),
            Encoding::Deflate => write_deflated(&entry(content.len()), content, &mut out).unwrap(),
        };
        assert_eq!((length, digest), (out.len() as u64, Sha256::of(content)));
        out
    }

    fn decode(
        size: usize,
        encoding: Encoding,
        member: &[u8],
        chunk: usize,
    ) -> Result<(Vec<u8>, Sha256), String> {
        let mut out = Vec::new();
        let mut decoder = Decoder::new(entry(size), encoding);
        let mut sink = |bytes: &[u8]| {
            out.extend_from_slice(bytes);
            Ok(())
        };
        for chunk in member.chunks(chunk) {
            decoder.push(chunk, &mut sink).map_err(|e| e.to_string())?;
        }
        let digest = decoder.finish().map_err(|e| e.to_string())?;
        Ok((out, digest))
    }

    fn content(size: usize) -> Vec<u8> {
        (0..size).map(|i| (i * 31 % 251) as u8).collect()
    }

    #[test]
    fn what_is_written_is_read_back_at_every_block_boundary() {
        for size in [0, 1, 511, 512, 513, 65_022, 65_023, 65_024, 65_535, 65_536, 131_070 - 512, 200_000] {
            for encoding in [Encoding::Stored, Encoding::Deflate] {
                let content = content(size);
                let member = encode(&content, encoding);
                for chunk in [7, 4096, 1 << 20] {
                    let (out, digest) = decode(size, encoding, &member, chunk).unwrap();
                    assert!(out == content && digest == Sha256::of(&content), "{size} {encoding:?} {chunk}");
                }
            }
        }
    }

    #[test]
    fn a_fetch_goes_on_at_any_byte() {
        let content = content(140_000);
        let member = encode(&content, Encoding::Stored);
        for offset in [0, 1, 65_022, 65_023, 65_024, 70_000, 130_557, 130_558, 130_559, 139_999, 140_000] {
            let mut decoder = StoredDecoder::resume(entry(content.len()), offset, &mut &content[..]).unwrap();
            assert_eq!(decoder.position(), entry(content.len()).stored_position(offset));
            let mut rest = Vec::new();
            let from = decoder.position() as usize;
            decoder
                .push(&member[from..], &mut |b| {
                    rest.extend_from_slice(b);
                    Ok(())
                })
                .unwrap();
            assert_eq!(rest, &content[offset as usize..], "{offset}");
            assert_eq!(decoder.finish().unwrap(), Sha256::of(&content));
        }
    }

    #[test]
    fn whoever_checks_the_content_gets_it_and_has_everything_around_it_checked() {
        let content = content(140_000);
        let member = encode(&content, Encoding::Stored);
        let decode = |offset: u64, member: &[u8]| -> Result<Vec<u8>, String> {
            let mut framing =
                StoredFraming::resume(entry(content.len()), offset).map_err(|e| e.to_string())?;
            let mut out = Vec::new();
            let from = entry(content.len()).stored_position(offset) as usize;
            for chunk in member[from..].chunks(1000) {
                let mut sink = |bytes: &[u8]| {
                    out.extend_from_slice(bytes);
                    Ok(())
                };
                framing.push(chunk, &mut sink).map_err(|e| e.to_string())?;
            }
            framing.finish().map(|()| out).map_err(|e| e.to_string())
        };
        for offset in [0, 1, 65_023, 130_558, 139_999, 140_000] {
            assert_eq!(decode(offset, &member).unwrap(), &content[offset as usize..], "{offset}");
        }
        assert!(decode(140_001, &member).is_err());
        let header = GZIP_HEADER.len() + BLOCK_HEADER as usize;
        let (crc, isize) = (member.len() - 8, member.len() - 4);
        // gzip header, block header, tar header, second block's header, padding, ISIZE.
        let second = header + BLOCK as usize + 1;
        for at in [0, GZIP_HEADER.len(), header, header + 511, second, crc - 1, isize, isize + 3] {
            let mut member = member.clone();
            member[at] ^= 1;
            assert!(decode(0, &member).is_err(), "byte {at}");
        }
        let mut damaged = member.clone();
        (damaged[header + 600], damaged[crc]) = (!damaged[header + 600], !damaged[crc]);
        assert_eq!(decode(0, &damaged).unwrap().len(), content.len(), "the content is somebody else's");
        assert!(decode(0, &member[..member.len() - 1]).is_err(), "too short");
        assert!(decode(0, &[&member[..], &[0]].concat()).is_err(), "too long");
    }

    #[test]
    fn a_prefix_longer_than_the_member_is_refused() {
        // Zeros, which would pass as the padding behind the content.
        let prefix = [content(700), vec![0; 400]].concat();
        assert!(StoredDecoder::resume(entry(700), 700, &mut &prefix[..]).is_ok());
        for offset in [701, 1024, 1100, u64::MAX] {
            let error = StoredDecoder::resume(entry(700), offset, &mut &prefix[..]).err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{offset}");
        }
    }

    #[test]
    fn a_size_that_no_index_may_have_does_not_overflow() {
        for size in [MAX_SIZE, MAX_SIZE + 1, u64::MAX - 511, u64::MAX] {
            let entry = Entry::new(&"x".parse().unwrap(), size, TIME);
            assert!(entry.stored_position(MAX_SIZE) < entry.stored_length());
            for encoding in [Encoding::Stored, Encoding::Deflate] {
                let mut decoder = Decoder::new(entry.clone(), encoding);
                assert!(decoder.push(&[0; 100], &mut |_| Ok(())).is_err());
            }
        }
    }

    #[test]
    fn ordinary_tools_read_it() {
        use std::process::{Command, Stdio};
        let mut bundle = encode(&content(100_000), Encoding::Stored);
        bundle.extend(encode(&content(1000), Encoding::Deflate));
        write_end(&mut bundle).unwrap();
        let mut tar = Command::new("tar")
            .args(["-tzvf", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        tar.stdin.take().unwrap().write_all(&bundle).unwrap();
        let listed = tar.wait_with_output().unwrap();
        assert!(listed.status.success());
        assert_eq!(String::from_utf8(listed.stdout).unwrap().lines().count(), 2);
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        for encoding in [Encoding::Stored, Encoding::Deflate] {
            let content = content(1500);
            let member = encode(&content, encoding);
            for at in 0..member.len() {
                let mut bad = member.clone();
                bad[at] ^= 1 << (at % 8);
                let result = decode(content.len(), encoding, &bad, 4096);
                assert!(
                    result.is_err() || result.unwrap().1 != Sha256::of(&content),
                    "{encoding:?} byte {at}"
                );
            }
        }
    }

    #[test]
    fn a_member_that_is_cut_or_goes_on_is_refused() {
        for encoding in [Encoding::Stored, Encoding::Deflate] {
            let member = encode(&content(70_000), encoding);
            for end in [0, 5, 10, 600, member.len() - 9, member.len() - 1] {
                assert!(decode(70_000, encoding, &member[..end], 4096).is_err(), "{encoding:?} {end}");
            }
            let long = [member.as_slice(), &[0]].concat();
            assert!(decode(70_000, encoding, &long, 4096).is_err());
        }
    }

    #[test]
    fn a_gzip_bomb_stops_at_the_size_that_the_index_says() {
        let member = encode(&vec![0; 50_000_000], Encoding::Deflate);
        let mut written = 0;
        let mut decoder = Decoder::new(entry(1000), Encoding::Deflate);
        let result = decoder.push(&member, &mut |b| {
            written += b.len();
            Ok(())
        });
        assert!(result.is_err() && written <= 1000);
    }

    #[test]
    fn sizes_over_four_gibibytes_have_their_length_and_position() {
        let size = 5 * 1024 * 1024 * 1024 + 7;
        let entry = Entry::new(&"pool/big_1_all.deb".parse().unwrap(), size, TIME);
        let padded = 512 + size.next_multiple_of(512);
        assert_eq!(entry.stored_length(), 10 + padded + 5 * padded.div_ceil(65_535) + 8);
        assert_eq!(entry.stored_position(size), 10 + 512 + size + 5 * ((512 + size - 1) / 65_535 + 1));
        let header = tar::Header::from_byte_slice(&entry.header);
        assert_eq!(header.entry_size().unwrap(), size);
    }

    proptest! {
        #[test]
        fn any_content_survives(content in prop::collection::vec(any::<u8>(), 0..3000), chunk in 1usize..700) {
            for encoding in [Encoding::Stored, Encoding::Deflate] {
                let member = encode(&content, encoding);
                prop_assert_eq!(&decode(content.len(), encoding, &member, chunk).unwrap().0, &content);
            }
        }

        #[test]
        fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000), size in 0usize..3000) {
            for encoding in [Encoding::Stored, Encoding::Deflate] {
                let mut member = GZIP_HEADER.to_vec();
                member.extend_from_slice(&bytes);
                let _ = decode(size, encoding, &member, 100);
            }
        }
    }
}
