//! The files of the zone database (tzfile(5), RFC 9636), into offsets. Pure.

use super::Offsets;
use super::rule::Rule;

/// Changes and types of one file: no zone has a tenth of it.
const MAX_CHANGES: usize = 20_000;

/// The bytes that are left to read.
struct Bytes<'b>(&'b [u8]);

impl<'b> Bytes<'b> {
    fn take(&mut self, length: usize) -> Option<&'b [u8]> {
        let (taken, left) = self.0.split_at_checked(length)?;
        self.0 = left;
        Some(taken)
    }

    /// A big-endian number of two's complement.
    fn number(&mut self, length: usize) -> Option<i64> {
        let bytes = self.take(length)?;
        let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
        Some(bytes.iter().fold(if negative { -1 } else { 0 }, |n, byte| n << 8 | i64::from(*byte)))
    }
}

/// How many there are of what.
struct Counts {
    is_utc: usize,
    is_standard: usize,
    leaps: usize,
    changes: usize,
    types: usize,
    letters: usize,
}

impl Counts {
    /// Bytes of the block that follows, with times of `width` bytes.
    fn block(&self, width: usize) -> usize {
        self.changes * (width + 1) + self.types * 6 + self.letters + self.leaps * (width + 4) + self.after()
    }

    /// Bytes at its end that say how the file was made.
    fn after(&self) -> usize {
        self.is_standard + self.is_utc
    }
}

/// The version and the counts of a header.
fn header(bytes: &mut Bytes<'_>) -> Option<(u8, Counts)> {
    (bytes.take(4)? == b"TZif").then_some(())?;
    let version = *bytes.take(16)?.first()?;
    let mut count = || usize::try_from(bytes.number(4)?).ok().filter(|count| *count <= MAX_CHANGES);
    let (is_utc, is_standard, leaps) = (count()?, count()?, count()?);
    Some((
        version,
        Counts { is_utc, is_standard, leaps, changes: count()?, types: count()?, letters: count()? },
    ))
}

/// The zone of a file. Leap seconds are not counted: no clock of a node does.
pub(super) fn zone(file: &[u8]) -> Option<Offsets> {
    let mut bytes = Bytes(file);
    let (version, mut counts) = header(&mut bytes)?;
    // From version 2 on, the block of short times is there for readers of version 1.
    let width = if version >= b'2' { 8 } else { 4 };
    if width == 8 {
        bytes.take(counts.block(4))?;
        counts = header(&mut bytes)?.1;
    }
    let mut moments = Bytes(bytes.take(counts.changes * width)?);
    let of_type = bytes.take(counts.changes)?;
    let mut offsets = Vec::new();
    for _ in 0..counts.types {
        offsets.push(bytes.number(4)?);
        bytes.take(2)?;
    }
    bytes.take(counts.letters + counts.leaps * (width + 4) + counts.after())?;
    let mut changes: Vec<(i64, i64)> = Vec::new();
    for kind in of_type {
        let moment = moments.number(width)?;
        changes.last().is_none_or(|(last, _)| *last < moment).then_some(())?;
        changes.push((moment, *offsets.get(usize::from(*kind))?));
    }
    let first = *offsets.first()?;
    let is_sane = |offset: &i64| (-26 * 3600..=26 * 3600).contains(offset);
    offsets.iter().all(is_sane).then_some(())?;
    let then = if width == 8 {
        let line = bytes.0.strip_prefix(b"\n")?.strip_suffix(b"\n")?;
        let line = std::str::from_utf8(line).ok()?;
        if line.is_empty() { None } else { Some(Rule::parse(line)?) }
    } else {
        None
    };
    Some(Offsets { first, changes, then })
}
