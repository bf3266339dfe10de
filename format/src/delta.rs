//! Deltas: a package's *plain form*, made of the files that an older version of it has installed, and a patch.
//!
//! The plain form of a .deb is the same package with its two archives not compressed. What is signed of it, in the index,
//! is its size and SHA-256, so a node proves what it has made as it proves what it has fetched, and a patch that is wrong
//! can only cost time. The *base* is the content of installed files, one after the other in the order of their paths; its
//! digest is in the index too, so that a node knows before it fetches a patch whether it has what the patch needs.
//!
//! A patch is a header and three streams, each compressed by itself (raw LZMA): what to do, the differences, and what is
//! new. It is applied in fixed memory, whatever the sizes: two windows of at most [`WINDOW`] bytes and some buffers.
//! Every size in it is bounded by what the index has signed before anything is read of it.
//!
//! ```text
//! header   8 bytes  "PSDELTA1"
//!          3 bytes  LZMA properties of the streams; 5 bytes zero
//!          8 × u64  size of the target, size of the base, then packed and open size of each stream (little endian)
//! streams  steps, differences, new bytes
//! a step   five numbers (LEB128): where to in the base, from where the last step ended (zigzag); bytes to copy; bytes to
//!          copy with the next differences added; bytes to take from what is new
//! ```
//!
//! Not here: finding what is alike (the build tool), and which files are the base (who asks the package manager).

use std::fmt;
use std::io::{self, Read};

use lzma_rust2::LzmaReader;

use crate::digest::{Hasher, Sha256};

/// The first bytes of a patch, with the version.
const MAGIC: &[u8; 8] = b"PSDELTA1";

/// Length of the header.
pub const HEADER: u64 = 80;

/// The window of a stream's compression, at most: what a node has to hold of it.
pub const WINDOW: u32 = 512 * 1024;

/// Bytes handled at once.
const CHUNK: usize = 32 * 1024;

/// A step in the longest form: four numbers of ten bytes.
const MAX_STEP: u64 = 40;

/// What the streams are for, in their order.
const NAMES: [&str; 3] = ["steps", "differences", "new bytes"];

/// A delta could not be applied.
#[derive(Debug)]
pub enum DeltaError {
    /// The patch is damaged, or for something else.
    Patch(String),
    /// The base could not be read.
    Base(io::Error),
    /// What came of it could not be written.
    Sink(io::Error),
}

impl fmt::Display for DeltaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeltaError::Patch(why) => write!(f, "the patch is not right: {why}"),
            DeltaError::Base(e) => write!(f, "what is installed cannot be read: {e}"),
            DeltaError::Sink(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for DeltaError {}

fn wrong(why: impl Into<String>) -> DeltaError {
    DeltaError::Patch(why.into())
}

/// A stream of a patch, as its header describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// LZMA properties: `(pb × 5 + lp) × 9 + lc`.
    pub properties: u8,
    /// Bytes in the patch.
    pub packed: u64,
    /// Bytes when open.
    pub open: u64,
}

/// The header of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Size of what comes of it.
    pub target: u64,
    /// Size of the base.
    pub base: u64,
    /// The three streams.
    pub streams: [Stream; 3],
}

impl Header {
    /// The bytes of the header.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(self.streams.map(|stream| stream.properties));
        out.extend([0; 5]);
        out.extend(self.target.to_le_bytes());
        out.extend(self.base.to_le_bytes());
        for stream in self.streams {
            out.extend(stream.packed.to_le_bytes());
            out.extend(stream.open.to_le_bytes());
        }
        out
    }

    /// Reads the header of a patch of `length` bytes that must lead from a base of `base` bytes to a target of `target`
    /// bytes; both are signed, and whatever the patch claims beyond them is refused here.
    ///
    /// # Errors
    /// [`DeltaError::Patch`], with the rule that is broken.
    pub fn read(reader: &mut dyn Read, length: u64, base: u64, target: u64) -> Result<Header, DeltaError> {
        let mut bytes = [0; HEADER as usize];
        reader.read_exact(&mut bytes).map_err(|e| wrong(format!("its header cannot be read: {e}")))?;
        if !bytes.starts_with(MAGIC) || bytes[11..16] != [0; 5] {
            return Err(wrong("it does not begin as one of version 1"));
        }
        let number = |at: usize| {
            let at = 16 + at * 8;
            u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default())
        };
        let stream = |n: usize| Stream {
            properties: bytes[8 + n],
            packed: number(2 + 2 * n),
            open: number(3 + 2 * n),
        };
        let header =
            Header { target: number(0), base: number(1), streams: [stream(0), stream(1), stream(2)] };
        if (header.target, header.base) != (target, base) {
            return Err(wrong(format!(
                "it leads from {} bytes to {}, and {base} to {target} is signed",
                header.base, header.target
            )));
        }
        let packed = header.streams.iter().try_fold(HEADER, |sum, stream| sum.checked_add(stream.packed));
        if packed != Some(length) {
            return Err(wrong("its streams are not as long as the patch"));
        }
        let [steps, differences, new] = header.streams.map(|stream| stream.open);
        // A step yields a byte at least, and every byte of the others goes into the target once.
        if differences.checked_add(new).is_none_or(|sum| sum > target) || steps / MAX_STEP > target {
            return Err(wrong("its streams hold more than comes of it"));
        }
        for (stream, name) in header.streams.iter().zip(NAMES) {
            let (lc, lp) = (stream.properties % 9, stream.properties / 9 % 5);
            // The literal model of LZMA takes 1.5 KiB for each state: 48 KiB with four bits of context.
            if stream.properties >= 9 * 5 * 5 || lc + lp > 4 {
                return Err(wrong(format!("the {name} are compressed in a way that is not used here")));
            }
        }
        Ok(header)
    }

    /// Where each stream begins in the patch, and how long it is there.
    pub fn places(&self) -> [(u64, u64); 3] {
        let [steps, differences, new] = self.streams.map(|stream| stream.packed);
        [(HEADER, steps), (HEADER + steps, differences), (HEADER + steps + differences, new)]
    }
}

/// The bytes of a base.
pub trait Base {
    /// Fills `buffer` with the bytes from `offset` on, which are all within the base.
    ///
    /// # Errors
    /// If they are not to be had.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

impl Base for &[u8] {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).ok();
        let part = from.and_then(|from| self.get(from..)?.get(..buffer.len()));
        buffer.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// The digest of a base: of each file its path, its size and its content, in the order of the paths.
#[derive(Default)]
pub struct BaseDigest(Hasher);

impl BaseDigest {
    /// A file follows: its path without a leading slash, and its size. Then its content by [`BaseDigest::content`].
    pub fn file(&mut self, path: &[u8], size: u64) {
        self.0.update(&(path.len() as u64).to_le_bytes());
        self.0.update(path);
        self.0.update(&size.to_le_bytes());
    }

    /// The next bytes of the file.
    pub fn content(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest.
    pub fn finish(self) -> Sha256 {
        self.0.finish()
    }
}

/// Applies a patch. `streams` yield the three parts of it that [`Header::places`] names; what comes of it goes to `sink`,
/// and is `header.target` bytes. Whether they are the right ones, their digest says.
///
/// # Errors
/// At the first step that cannot be right.
pub fn apply<R: Read>(
    header: &Header,
    streams: [R; 3],
    base: &mut dyn Base,
    sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), DeltaError> {
    let [steps, differences, new] = streams;
    let [of_steps, of_differences, of_new] = header.streams;
    let mut steps = Unpacked::open(steps, of_steps, 0)?;
    let mut differences = Unpacked::open(differences, of_differences, 1)?;
    let mut new = Unpacked::open(new, of_new, 2)?;
    let (mut buffer, mut added) = (vec![0; CHUNK], vec![0; CHUNK]);
    let (mut made, mut position) = (0u64, 0u64);
    while made < header.target {
        let seek = unzigzag(steps.number()?);
        let (copied, changed, literal) = (steps.number()?, steps.number()?, steps.number()?);
        let size = copied.checked_add(changed).and_then(|sum| sum.checked_add(literal));
        let Some(size) = size.filter(|size| (1..=header.target - made).contains(size)) else {
            return Err(wrong("a step makes nothing, or more than there is to make"));
        };
        let from = position.checked_add_signed(seek);
        let end = from.and_then(|from| from.checked_add(copied)?.checked_add(changed));
        let (Some(from), Some(end)) = (from, end.filter(|end| *end <= header.base)) else {
            return Err(wrong("a step reads outside of the base"));
        };
        let mut at = from;
        while at < end {
            // To the end of what is copied as it is, then to the end of what is changed.
            let is_changed = at >= from + copied;
            let stop = if is_changed { end } else { from + copied };
            let n = CHUNK.min(usize::try_from(stop - at).unwrap_or(CHUNK));
            base.read_at(at, &mut buffer[..n]).map_err(DeltaError::Base)?;
            if is_changed {
                differences.fill(&mut added[..n])?;
                buffer[..n].iter_mut().zip(&added).for_each(|(byte, add)| *byte = byte.wrapping_add(*add));
            }
            sink(&buffer[..n]).map_err(DeltaError::Sink)?;
            at += n as u64;
        }
        let mut left = literal;
        while left > 0 {
            let n = CHUNK.min(usize::try_from(left).unwrap_or(CHUNK));
            new.fill(&mut buffer[..n])?;
            sink(&buffer[..n]).map_err(DeltaError::Sink)?;
            left -= n as u64;
        }
        (position, made) = (end, made + size);
    }
    match [steps.left, differences.left, new.left] {
        [0, 0, 0] => Ok(()),
        _ => Err(wrong("there is more in it than is needed")),
    }
}

/// A stream, opened.
struct Unpacked<R> {
    /// None: the stream is empty, and nothing is there to be read.
    reader: Option<LzmaReader<R>>,
    /// Open bytes that were not read yet.
    left: u64,
    name: &'static str,
}

impl<R: Read> Unpacked<R> {
    fn open(reader: R, stream: Stream, n: usize) -> Result<Self, DeltaError> {
        let (left, name) = (stream.open, NAMES[n]);
        let reader = match left {
            0 => None,
            _ => Some(
                LzmaReader::new_with_props(reader, left, stream.properties, WINDOW, None)
                    .map_err(|e| wrong(format!("the {name} cannot be unpacked: {e}")))?,
            ),
        };
        Ok(Unpacked { reader, left, name })
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), DeltaError> {
        let short = |name| wrong(format!("the {name} end too early"));
        let left = self.left.checked_sub(buffer.len() as u64).ok_or_else(|| short(self.name))?;
        let reader = self.reader.as_mut().ok_or_else(|| short(self.name))?;
        reader.read_exact(buffer).map_err(|e| wrong(format!("the {} cannot be unpacked: {e}", self.name)))?;
        self.left = left;
        Ok(())
    }

    /// The next number.
    fn number(&mut self) -> Result<u64, DeltaError> {
        let mut out = 0u64;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            self.fill(&mut byte)?;
            let part = u64::from(byte[0] & 0x7f);
            if part << shift >> shift != part {
                break;
            }
            out |= part << shift;
            if byte[0] < 0x80 {
                return Ok(out);
            }
        }
        Err(wrong("a number in it is beyond 2^64"))
    }
}

/// Writes a number as [`apply`] reads it.
pub fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A signed number as one without a sign, small if it is near zero.
pub fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let stream = |open| Stream { properties: 0, packed: 10, open };
        Header { target: 1000, base: 500, streams: [stream(9), stream(400), stream(600)] }
    }

    fn read(header: &Header) -> Result<Header, DeltaError> {
        let length = header.streams.iter().fold(HEADER, |sum, stream| sum.saturating_add(stream.packed));
        Header::read(&mut header.to_bytes().as_slice(), length, 500, 1000)
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        assert_eq!(header().to_bytes().len() as u64, HEADER);
        assert_eq!(read(&header()).unwrap(), header());
        assert_eq!(header().places(), [(80, 10), (90, 10), (100, 10)]);
    }

    #[test]
    fn a_patch_that_claims_gigabytes_is_refused_before_anything_is_unpacked() {
        type Break = fn(&mut Header);
        let cases: [(&str, Break); 8] = [
            ("is signed", |h| h.target = 8 << 30),
            ("is signed", |h| h.base = u64::MAX),
            ("more than comes of it", |h| h.streams[1].open = 8 << 30),
            ("more than comes of it", |h| h.streams[2].open = u64::MAX),
            ("more than comes of it", |h| h.streams[0].open = u64::MAX),
            ("as long as the patch", |h| h.streams[0].packed = u64::MAX),
            // 4 GiB of probabilities, were it believed.
            ("not used here", |h| h.streams[1].properties = 8 + 4 * 9),
            ("not used here", |h| h.streams[2].properties = 255),
        ];
        for (words, break_it) in cases {
            let mut bad = header();
            break_it(&mut bad);
            let error = read(&bad).unwrap_err().to_string();
            assert!(error.contains(words), "{words}: {error}");
        }
        let mut bytes = header().to_bytes();
        bytes[7] = b'2';
        assert!(Header::read(&mut bytes.as_slice(), 110, 500, 1000).is_err(), "another version");
        assert!(Header::read(&mut &bytes[..40], 110, 500, 1000).is_err(), "cut off");
    }

    #[test]
    fn numbers_are_read_as_they_were_written() {
        for number in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            put_number(&mut bytes, number);
            assert!(bytes.len() <= 10);
        }
        for number in [0, 1, -1, 63, -64, i64::MAX, i64::MIN] {
            assert_eq!(unzigzag(zigzag(number)), number);
        }
        assert_eq!([zigzag(0), zigzag(-1), zigzag(1)], [0, 1, 2]);
    }
}
