//! Patches: whatever stands in one, applying it makes no more than the target that is signed, reads nothing outside of the
//! base, ends, and stays within the memory that a node has for it; and it makes the same each time.
//!
//! Input: 2 bytes of the target's size, 2 of the base's, then the patch.
#![no_main]

use std::io;

use format::delta::{Base, Header, apply};
use format::digest::{Hasher, Sha256};
use prestage_fuzz::fuzz_target;

struct Counted {
    size: u64,
}

impl Base for Counted {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64).expect("a read beyond 2^64");
        assert!(end <= self.size, "a read outside of the base");
        buffer.iter_mut().zip(offset..).for_each(|(byte, at)| *byte = (at % 251) as u8);
        Ok(())
    }
}

fn applied(patch: &[u8], base: u64, target: u64) -> Option<Sha256> {
    let mut reader = patch;
    let header = Header::read(&mut reader, patch.len() as u64, base, target).ok()?;
    let part = |(from, length): (u64, u64)| &patch[from as usize..(from + length) as usize];
    let (mut digest, mut made) = (Hasher::new(), 0);
    let mut sink = |bytes: &[u8]| {
        made += bytes.len() as u64;
        assert!(made <= target, "more than is signed");
        digest.update(bytes);
        Ok(())
    };
    apply(&header, header.places().map(part), &mut Counted { size: base }, &mut sink).ok()?;
    assert_eq!(made, target, "less than is signed, and no error");
    Some(digest.finish())
}

fuzz_target!(|input: &[u8]| {
    let [a, b, c, d, patch @ ..] = input else { return };
    let (target, base) = (u16::from_le_bytes([*a, *b]).into(), u16::from_le_bytes([*c, *d]).into());
    assert_eq!(applied(patch, base, target), applied(patch, base, target));
});
