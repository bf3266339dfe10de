//! What is written as a member is read back, from any byte on where it is stored; and a member with one byte changed is
//! refused, or its digest is another, or (in the bits that deflate leaves unused) its content is the same.
#![no_main]

use format::container::{Decoder, Encoding, Entry, StoredDecoder, write_deflated, write_stored};
use format::digest::Sha256;
use format::time::UnixTime;
use prestage_fuzz::fuzz_target;

#[derive(arbitrary::Arbitrary, Debug)]
struct Case {
    /// The content is this, repeated up to `size`: large contents from small inputs.
    pattern: Vec<u8>,
    size: u32,
    mtime: i64,
    stored: bool,
    chunk: u16,
    resume_at: u32,
    change_at: u32,
    change: u8,
}

/// Enough for a third stored block; what is deflated, in no blocks of ours, is small because that is slow.
const MAX_STORED: u32 = 140_000;
const MAX_DEFLATED: u32 = 10_000;

fn decode(mut decoder: Decoder, member: &[u8], chunk: usize) -> Result<(Vec<u8>, Sha256), String> {
    let mut content = Vec::new();
    let mut sink = |bytes: &[u8]| {
        content.extend_from_slice(bytes);
        Ok(())
    };
    for bytes in member.chunks(chunk) {
        decoder.push(bytes, &mut sink).map_err(|e| e.to_string())?;
    }
    let digest = decoder.finish().map_err(|e| e.to_string())?;
    Ok((content, digest))
}

fuzz_target!(|case: Case| {
    let pattern = if case.pattern.is_empty() { &[0] } else { case.pattern.as_slice() };
    let size = case.size % if case.stored { MAX_STORED } else { MAX_DEFLATED };
    let content: Vec<u8> = pattern.iter().copied().cycle().take(size as usize).collect();
    let entry =
        Entry::new(&"pool/a_1_all.deb".parse().expect("a path"), content.len() as u64, UnixTime(case.mtime));
    let (encoding, mut member) = (if case.stored { Encoding::Stored } else { Encoding::Deflate }, Vec::new());
    let (length, digest) = match encoding {
        Encoding::Stored => write_stored(&entry, &mut content.as_slice(), &mut member),
        Encoding::Deflate => write_deflated(&entry, &content, &mut member),
    }
    .expect("it cannot be written");
    assert_eq!((length, digest), (member.len() as u64, Sha256::of(&content)));

    // Bytes one by one where the content is small, a few hundred chunks where it is large.
    let chunk = usize::from(case.chunk) + 1 + content.len() / 256;
    let whole = decode(Decoder::new(entry.clone(), encoding), &member, chunk);
    assert!(whole.as_ref() == Ok(&(content.clone(), digest)), "what was written is not read back");

    if encoding == Encoding::Stored {
        let offset = case.resume_at as usize % (content.len() + 1);
        let decoder = StoredDecoder::resume(entry.clone(), offset as u64, &mut content.as_slice())
            .expect("it does not go on");
        let position = decoder.position() as usize;
        assert_eq!(position as u64, entry.stored_position(offset as u64));
        let rest = decode(Decoder::Stored(decoder), &member[position..], chunk);
        assert!(rest == Ok((content[offset..].to_vec(), digest)), "going on is not the same as reading on");
    }

    if case.change != 0 {
        let at = case.change_at as usize % member.len();
        member[at] ^= case.change;
        if let Ok((changed, found)) = decode(Decoder::new(entry, encoding), &member, chunk) {
            assert!(found != digest || changed == content, "byte {at}: other content, same digest");
            assert!(found != digest || encoding == Encoding::Deflate, "byte {at} was not noticed");
        }
    }
});
