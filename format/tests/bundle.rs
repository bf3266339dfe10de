//! A bundle of several members, as a whole: what an attacker or a bad disk can change in it, and what then happens.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use format::container::{Decoder, Encoding, Entry, write_deflated, write_end, write_stored};
use format::digest::Sha256;
use format::name::MemberPath;
use format::time::UnixTime;
use proptest::prelude::*;

const TIME: UnixTime = UnixTime(1_795_411_753);

/// A member as its index describes it: all that a reader goes by.
struct Listed {
    path: MemberPath,
    size: u64,
    sha256: Sha256,
    encoding: Encoding,
    extent: std::ops::Range<usize>,
}

impl Listed {
    fn entry(&self) -> Entry {
        Entry::new(&self.path, self.size, TIME)
    }

    /// Its content, if every byte was what it has to be.
    fn read(&self, bundle: &[u8]) -> Option<Vec<u8>> {
        let mut content = Vec::new();
        let mut decoder = Decoder::new(self.entry(), self.encoding);
        let mut sink = |bytes: &[u8]| {
            content.extend_from_slice(bytes);
            Ok(())
        };
        decoder.push(bundle.get(self.extent.clone())?, &mut sink).ok()?;
        (decoder.finish().ok()? == self.sha256).then_some(content)
    }
}

fn bundle(contents: &[(Vec<u8>, bool)]) -> (Vec<u8>, Vec<Listed>) {
    let (mut file, mut listed) = (Vec::new(), Vec::new());
    for (n, (content, stored)) in contents.iter().enumerate() {
        let path: MemberPath = format!("pool/{n}_1_all.deb").parse().unwrap();
        let entry = Entry::new(&path, content.len() as u64, TIME);
        let start = file.len();
        let (encoding, (length, sha256)) = if *stored {
            (Encoding::Stored, write_stored(&entry, &mut content.as_slice(), &mut file).unwrap())
        } else {
            (Encoding::Deflate, write_deflated(&entry, content, &mut file).unwrap())
        };
        let extent = start..start + length as usize;
        listed.push(Listed { path, size: content.len() as u64, sha256, encoding, extent });
    }
    write_end(&mut file).unwrap();
    (file, listed)
}

/// What a flipped bit does: in a stored member it is refused; in a deflated one too, unless deflate leaves that bit
/// unused; and every other member is untouched.
fn check_flip(file: &mut [u8], listed: &[Listed], contents: &[(Vec<u8>, bool)], bit: usize) {
    let whole = Sha256::of(file);
    file[bit / 8] ^= 1 << (bit % 8);
    assert_ne!(Sha256::of(file), whole, "bit {bit}");
    for (member, (content, stored)) in listed.iter().zip(contents) {
        match member.read(file) {
            None => assert!(member.extent.contains(&(bit / 8)), "bit {bit} is not in {}", member.path),
            Some(read) => {
                assert!(read == *content, "bit {bit} altered {} unnoticed", member.path);
                assert!(!stored || !member.extent.contains(&(bit / 8)), "bit {bit} was not noticed");
            }
        }
    }
    file[bit / 8] ^= 1 << (bit % 8);
}

#[test]
fn every_single_flipped_bit_of_a_bundle_is_refused_or_in_no_member() {
    let text = b"Package: a\nVersion: 1\n\n".repeat(20);
    let contents = [
        (text, false),
        (b"!<arch>\ndebian-binary".to_vec(), true),
        (Vec::new(), true),
        (vec![9; 300], false),
    ];
    let (mut file, listed) = bundle(&contents);
    for bit in 0..file.len() * 8 {
        check_flip(&mut file, &listed, &contents, bit);
    }
}

#[test]
fn a_member_is_not_taken_for_its_neighbour() {
    // Same size, same encoding, only the name differs: the tar header tells.
    let contents = [(vec![1; 700], true), (vec![1; 700], true), (vec![1; 700], false)];
    let (file, mut listed) = bundle(&contents);
    let extents: Vec<_> = listed.iter().map(|member| member.extent.clone()).collect();
    listed[0].extent = extents[1].clone();
    assert_eq!(listed[0].read(&file), None);
    // Nor is the other encoding accepted, nor an extent that is off by one.
    listed[0].extent = extents[2].clone();
    assert_eq!(listed[0].read(&file), None);
    for extent in [extents[1].start + 1..extents[1].end + 1, extents[1].start..extents[1].end + 1] {
        listed[1].extent = extent;
        assert_eq!(listed[1].read(&file), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_flipped_bit_of_any_bundle_is_refused_or_in_no_member(
        contents in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..2000), any::<bool>()), 1..6),
        bits in prop::collection::vec(any::<prop::sample::Index>(), 32),
    ) {
        let (mut file, listed) = bundle(&contents);
        for (member, (content, _)) in listed.iter().zip(&contents) {
            let read = member.read(&file);
            prop_assert_eq!(read.as_ref(), Some(content));
        }
        for bit in bits {
            let bit = bit.index(file.len() * 8);
            check_flip(&mut file, &listed, &contents, bit);
        }
    }
}
