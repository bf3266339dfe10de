//! Writing a patch: each file of the new package against what was there before, in fixed memory.
//!
//! How a patch is read is [`format::delta`]; what two files have in common, [`super::alike`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use format::delta::{Header, Stream, WINDOW, put_number, zigzag};
use lzma_rust2::{EncodeMode, LzmaOptions, LzmaWriter, MfType};

use super::alike::{Sorted, alike};
use super::deb::{Content, Deb, Installed};
use super::{WHAT, read_part};
use crate::error::{AtPath, Error, Result};

/// Of a large file so much is compared at once.
const BLOCK: u64 = 16 * 1024 * 1024;

/// ... with so much of what was there before, at most: its suffix array takes 192 MiB. Of a larger base, with the file that
/// it was, around the same place.
const AROUND: u64 = 48 * 1024 * 1024;

/// So many bytes that are the same are copied without differences; fewer cost more as a step than as zeros.
const COPY: usize = 64;

/// Makes the patch from `installed` to the plain form of `new`, which is in `plain` and has `size` bytes; none if it would
/// have more than `limit` bytes, which is given up as soon as it shows.
///
/// # Errors
/// If one of them cannot be read.
pub fn make(
    installed: &Installed,
    new: &Deb,
    plain: &Path,
    size: u64,
    limit: u64,
) -> Result<Option<Vec<u8>>> {
    let mut writer = Writer::new(WINDOW).map_err(|e| Error::io(WHAT, &e))?;
    let counterparts = Counterparts::of(installed);
    let file = File::open(plain).at(WHAT, plain)?;
    let read = |from: u64, to: u64| read_part(&file, plain, from, to - from);
    let failed = |e: io::Error| Error::io(WHAT, &e);
    // A base that is small enough is compared as a whole: content also moves from one file to another.
    let whole = (installed.size <= AROUND).then(|| installed.read_all()).transpose()?;
    let whole = whole.as_deref().map(|old| (old, Sorted::new(old)));
    let mut at = 0;
    let mut files: Vec<&Content> = new.files.iter().filter(|content| content.size > 0).collect();
    files.sort_by_key(|content| content.offset);
    for content in files {
        let begins = new.data_starts() + content.offset;
        // What is between two files: headers and padding.
        writer.new_bytes(&read(at, begins)?).map_err(failed)?;
        at = begins;
        let ends = begins + content.size;
        let counterpart = counterparts.of_file(content);
        while at < ends {
            if writer.packed() > limit {
                return Ok(None);
            }
            let to = ends.min(at + BLOCK);
            let bytes = read(at, to)?;
            match (&whole, counterpart) {
                (Some((old, sorted)), counterpart) => {
                    let place = counterpart.map_or(0, |(base_at, _)| base_at + (at - begins));
                    match old.get(place as usize..).is_some_and(|old| old.starts_with(&bytes)) {
                        true => writer.copy(place, bytes.len()),
                        false => writer.like(0, sorted, &bytes),
                    }
                }
                (None, Some((base_at, old))) => {
                    let (from, length) = around(at - begins, to - at, content.size, old.size);
                    let old = installed.read(old, from, length)?;
                    match old == bytes {
                        true => writer.copy(base_at + from, bytes.len()),
                        false => writer.like(base_at + from, &Sorted::new(&old), &bytes),
                    }
                }
                (None, None) => writer.new_bytes(&bytes),
            }
            .map_err(failed)?;
            at = to;
        }
    }
    while at < size {
        let to = size.min(at + BLOCK);
        writer.new_bytes(&read(at, to)?).map_err(failed)?;
        at = to;
    }
    let patch = writer.finish(size, installed.size).map_err(failed)?;
    Ok(Some(patch).filter(|patch| patch.len() as u64 <= limit))
}

/// The part of an old file, of `old` bytes, with which the `length` bytes from `from` on of its successor of `new` bytes are
/// compared: where it begins, and how long it is.
fn around(from: u64, length: u64, new: u64, old: u64) -> (u64, u64) {
    if old <= AROUND {
        return (0, old);
    }
    // The same place in proportion, and as much on either side of it. In 128 bits, which no file comes near.
    let middle = u128::from(from + length / 2) * u128::from(old) / u128::from(new.max(1));
    let begins = u64::try_from(middle).unwrap_or(old).saturating_sub(AROUND / 2).min(old - AROUND);
    (begins, AROUND)
}

/// The old file that a new one is compared with.
struct Counterparts<'i> {
    by_path: BTreeMap<&'i [u8], &'i (u64, Content)>,
    /// By the path with the numbers taken out of it: what is called after its version.
    by_pattern: BTreeMap<Vec<u8>, Vec<&'i (u64, Content)>>,
}

impl<'i> Counterparts<'i> {
    fn of(installed: &'i Installed) -> Self {
        let mut by_pattern: BTreeMap<Vec<u8>, Vec<&(u64, Content)>> = BTreeMap::new();
        for file in &installed.files {
            by_pattern.entry(pattern(&file.1.path)).or_default().push(file);
        }
        let by_path = installed.files.iter().map(|file| (file.1.path.as_slice(), file)).collect();
        Counterparts { by_path, by_pattern }
    }

    fn of_file(&self, new: &Content) -> Option<(u64, &'i Content)> {
        let same = self.by_path.get(new.path.as_slice()).copied();
        let (at, old) = same.or_else(|| {
            let alike = self.by_pattern.get(&pattern(&new.path))?;
            let name = |path: &[u8]| path.rsplit(|b| *b == b'/').next().map(<[u8]>::to_vec);
            let wanted = name(&new.path);
            alike
                .iter()
                .copied()
                .min_by_key(|(_, old)| (name(&old.path) != wanted, old.size.abs_diff(new.size)))
        })?;
        (old.size > 0).then_some((*at, old))
    }
}

/// A path or name with `#` for each number in it.
pub(super) fn pattern(path: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    for byte in path {
        match byte {
            b'0'..=b'9' if out.last() == Some(&b'#') => {}
            b'0'..=b'9' => out.push(b'#'),
            other => out.push(*other),
        }
    }
    out
}

/// A step that may still grow.
#[derive(Default)]
struct Step {
    from: u64,
    copied: u64,
    changed: u64,
    new: u64,
}

/// The three streams of a patch as they grow.
struct Writer {
    steps: Packed,
    differences: Packed,
    new: Packed,
    step: Step,
    /// Where the step before ended in the base.
    position: u64,
}

impl Writer {
    /// `window`: at most that of the format.
    fn new(window: u32) -> io::Result<Self> {
        let packed = |lc, lp, pb| Packed::new(window, lc, lp, pb);
        let (steps, differences, new) = (packed(0, 0, 0)?, packed(1, 0, 0)?, packed(3, 0, 2)?);
        Ok(Writer { steps, differences, new, step: Step::default(), position: 0 })
    }

    /// So many bytes has the patch at least, when it is finished.
    fn packed(&self) -> u64 {
        [&self.steps, &self.differences, &self.new]
            .iter()
            .map(|stream| stream.writer.inner().len() as u64)
            .sum()
    }

    /// `new` goes on, and is compared with `sorted`, which stands at `base_at` in the base.
    fn like(&mut self, base_at: u64, sorted: &Sorted<'_>, new: &[u8]) -> io::Result<()> {
        let old = sorted.old;
        let (mut done, mut result) = (0, Ok(()));
        alike(sorted, new, &mut |found| {
            if result.is_err() {
                return;
            }
            let (old, same) =
                (&old[found.old..found.old + found.length], &new[found.new..found.new + found.length]);
            result = self
                .new_bytes(&new[done..found.new])
                .and_then(|()| self.changed(base_at + found.old as u64, old, same));
            done = found.new + found.length;
        });
        result?;
        self.new_bytes(&new[done..])
    }

    /// Bytes that are like those of the base, in runs that are the same and runs that are not.
    fn changed(&mut self, base_at: u64, old: &[u8], new: &[u8]) -> io::Result<()> {
        let mut at = 0;
        while at < new.len() {
            let same = |from: usize| {
                old[from..].iter().zip(&new[from..]).take_while(|(old, new)| old == new).count()
            };
            let copied = same(at);
            if copied >= COPY || copied == new.len() - at {
                self.copy(base_at + at as u64, copied)?;
                at += copied;
                continue;
            }
            // To where the next run begins that is worth a copy.
            let begin = at;
            at += copied;
            while at < new.len() {
                match same(at) {
                    run if run >= COPY => break,
                    run => at = (at + run + 1).min(new.len()),
                }
            }
            self.change(base_at + begin as u64, &old[begin..at], &new[begin..at])?;
        }
        Ok(())
    }

    fn copy(&mut self, from: u64, length: usize) -> io::Result<()> {
        let step = &self.step;
        let goes_on = step.changed == 0 && step.new == 0 && step.from + step.copied == from;
        if !goes_on {
            self.end_step()?;
            self.step.from = from;
        }
        self.step.copied += length as u64;
        Ok(())
    }

    fn change(&mut self, from: u64, old: &[u8], new: &[u8]) -> io::Result<()> {
        let step = &self.step;
        if step.new > 0 || step.from + step.copied + step.changed != from {
            self.end_step()?;
            self.step.from = from;
        }
        self.step.changed += new.len() as u64;
        let differences: Vec<u8> = new.iter().zip(old).map(|(new, old)| new.wrapping_sub(*old)).collect();
        self.differences.put(&differences)
    }

    fn new_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.step.new += bytes.len() as u64;
        self.new.put(bytes)
    }

    fn end_step(&mut self) -> io::Result<()> {
        let step = std::mem::take(&mut self.step);
        let reads = step.copied + step.changed;
        if reads + step.new > 0 {
            let seek = if reads > 0 { step.from.wrapping_sub(self.position) as i64 } else { 0 };
            let mut bytes = Vec::new();
            for number in [zigzag(seek), step.copied, step.changed, step.new] {
                put_number(&mut bytes, number);
            }
            self.steps.put(&bytes)?;
            self.position = if reads > 0 { step.from + reads } else { self.position };
        }
        self.step.from = self.position;
        Ok(())
    }

    fn finish(mut self, target: u64, base: u64) -> io::Result<Vec<u8>> {
        self.end_step()?;
        let Writer { steps, differences, new, .. } = self;
        let (steps, differences, new) = (steps.finish()?, differences.finish()?, new.finish()?);
        let header = Header { target, base, streams: [steps.0, differences.0, new.0] };
        Ok([header.to_bytes(), steps.1, differences.1, new.1].concat())
    }
}

/// A stream that is compressed as it grows.
struct Packed {
    writer: LzmaWriter<Vec<u8>>,
    properties: u8,
    open: u64,
}

impl Packed {
    fn new(window: u32, lc: u8, lp: u8, pb: u8) -> io::Result<Self> {
        // The strongest search that there is: it is done once, and fetched by many.
        let (mode, finder, nice) = (EncodeMode::Normal, MfType::Bt4, LzmaOptions::NICE_LEN_MAX);
        let (clc, clp, cpb) = (lc.into(), lp.into(), pb.into());
        let options = LzmaOptions::new(window, clc, clp, cpb, mode, nice, finder, 0);
        let writer = LzmaWriter::new_no_header(Vec::new(), &options, false)?;
        Ok(Packed { writer, properties: (pb * 5 + lp) * 9 + lc, open: 0 })
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.open += bytes.len() as u64;
        self.writer.write_all(bytes)
    }

    fn finish(self) -> io::Result<(Stream, Vec<u8>)> {
        let Packed { writer, properties, open } = self;
        let bytes = if open == 0 { Vec::new() } else { writer.finish()? };
        Ok((Stream { properties, packed: bytes.len() as u64, open }, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use format::delta::apply;
    use proptest::prelude::*;

    fn patch(old: &[u8], new: &[u8]) -> Vec<u8> {
        // A small window costs little to begin with.
        let mut writer = Writer::new(4096).unwrap();
        writer.like(0, &Sorted::new(old), new).unwrap();
        writer.finish(new.len() as u64, old.len() as u64).unwrap()
    }

    fn applied(patch: &[u8], mut old: &[u8], size: usize) -> Vec<u8> {
        let (length, base) = (patch.len() as u64, old.len() as u64);
        let header = Header::read(&mut &*patch, length, base, size as u64).unwrap();
        let parts = header.places().map(|(at, n)| &patch[at as usize..(at + n) as usize]);
        let mut out = Vec::new();
        apply(&header, parts, &mut old, &mut |bytes| {
            out.extend_from_slice(bytes);
            Ok(())
        })
        .unwrap();
        out
    }

    /// Content with long repeats, as programs have, and an edited copy of it.
    fn edited() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
        let word = prop::collection::vec(any::<u8>(), 1..80);
        let old = prop::collection::vec(word, 0..40).prop_map(|words| words.concat());
        let edit = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>(), 0..4u8);
        (old, prop::collection::vec(edit, 0..12)).prop_map(|(old, edits)| {
            let mut new = old.clone();
            for (one, other, byte, what) in edits {
                let (one, other) = (one.index(new.len() + 1), other.index(new.len() + 1));
                let (from, to) = (one.min(other), one.max(other));
                match what {
                    0 => drop(new.drain(from..to)),
                    1 => new.insert(from, byte),
                    2 => new[from..to].iter_mut().step_by(9).for_each(|b| *b = b.wrapping_add(byte)),
                    _ => new.rotate_left(from),
                }
            }
            (old, new)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_applied_is_what_was_compared((old, new) in edited()) {
            prop_assert_eq!(applied(&patch(&old, &new), &old, new.len()), new);
        }

        #[test]
        fn whatever_is_flipped_is_refused_or_gives_no_more_than_was_signed(
            (old, new) in edited(), at in any::<prop::sample::Index>(), bit in 0..8u32
        ) {
            let mut patch = patch(&old, &new);
            let at = at.index(patch.len());
            patch[at] ^= 1 << bit;
            let (length, base, size) = (patch.len() as u64, old.len() as u64, new.len() as u64);
            let Ok(header) = Header::read(&mut patch.as_slice(), length, base, size) else { return Ok(()) };
            let parts = header.places().map(|(at, n)| &patch[at as usize..(at + n) as usize]);
            let mut made = 0;
            let _ = apply(&header, parts, &mut old.as_slice(), &mut |bytes| {
                made += bytes.len() as u64;
                Ok(())
            });
            prop_assert!(made <= size);
        }
    }

    #[test]
    fn nothing_and_the_same_are_cheap() {
        let old = vec![7; 500_000];
        assert!(patch(&old, &old).len() < 120);
        assert_eq!(applied(&patch(&old, &[]), &old, 0), b"");
        assert_eq!(applied(&patch(&[], &old), &[], old.len()), old);
    }

    #[test]
    fn a_large_file_is_compared_around_the_same_place() {
        assert_eq!(around(0, BLOCK, 100, 100), (0, 100));
        let (new, old) = (400 * 1024 * 1024, 380 * 1024 * 1024);
        assert_eq!(around(0, BLOCK, new, old), (0, AROUND));
        let (from, length) = around(new / 2, BLOCK, new, old);
        assert!(from < old / 2 && from + length > old / 2 && length == AROUND);
        assert_eq!(around(new - BLOCK, BLOCK, new, old), (old - AROUND, AROUND));
    }

    #[test]
    fn a_file_that_is_named_after_its_version_is_known() {
        assert_eq!(
            pattern(b"lib/modules/6.1.0-37-amd64/a16.ko"),
            pattern(b"lib/modules/6.1.0-40-amd64/a16.ko")
        );
        assert_ne!(pattern(b"usr/lib/liba.so.1"), pattern(b"usr/lib/libb.so.1"));
    }
}
