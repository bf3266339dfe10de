//! The decoders on arbitrary bytes, for an entry of arbitrary size: no panic; never more content than the entry's size;
//! success only for exactly that size; and what comes out does not depend on how the bytes were cut.
//!
//! Input: 8 bytes of size, 1 of encoding, 1 of chunk length, then the member.
#![no_main]

use format::container::{Decoder, Encoding, Entry, MAX_SIZE};
use format::digest::Sha256;
use format::time::UnixTime;
use prestage_fuzz::fuzz_target;

fn decode(
    entry: &Entry,
    size: u64,
    encoding: Encoding,
    member: &[u8],
    chunk: usize,
) -> (Vec<u8>, Option<Sha256>) {
    let mut content = Vec::new();
    let mut decoder = Decoder::new(entry.clone(), encoding);
    let mut sink = |bytes: &[u8]| {
        content.extend_from_slice(bytes);
        assert!(content.len() as u64 <= size, "more content than the index says");
        Ok(())
    };
    for bytes in member.chunks(chunk) {
        if decoder.push(bytes, &mut sink).is_err() {
            return (content, None);
        }
    }
    let digest = decoder.finish().ok();
    (content, digest)
}

fuzz_target!(|input: &[u8]| {
    let Some((size, [encoding, chunk, member @ ..])) = input.split_first_chunk::<8>() else { return };
    let size = u64::from_le_bytes(*size).min(MAX_SIZE);
    let encoding = if encoding % 2 == 0 { Encoding::Stored } else { Encoding::Deflate };
    let entry = Entry::new(&"pool/a_1_all.deb".parse().expect("a path"), size, UnixTime(1_700_000_000));

    let (content, digest) = decode(&entry, size, encoding, member, usize::MAX);
    let (content_of_chunks, digest_of_chunks) =
        decode(&entry, size, encoding, member, usize::from(*chunk) + 1);
    assert_eq!(digest, digest_of_chunks, "cutting decides whether it is accepted");
    if let Some(digest) = digest {
        assert_eq!((content.len() as u64, digest), (size, Sha256::of(&content)));
        assert_eq!(content, content_of_chunks);
    }
});
