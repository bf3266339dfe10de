//! The listing of an export, on arbitrary bytes: every file that it finds lies whole within the tar file, behind its
//! header, and no read is asked for behind its end.
#![no_main]

use std::io;

use format::export;
use prestage_fuzz::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let length = bytes.len() as u64;
    let listed = export::list(length, &mut |buffer, at| {
        let part = usize::try_from(at).ok().and_then(|at| bytes.get(at..at + buffer.len()));
        buffer.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    });
    for (name, place) in listed.into_iter().flatten() {
        let end = place.offset.checked_add(place.length).expect("a file beyond 2^64");
        assert!(place.offset >= 512 && place.offset % 512 == 0 && end <= length, "{name:?}");
    }
});
