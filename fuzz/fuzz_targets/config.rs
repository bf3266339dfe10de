//! Configuration files: four bytes of time, then the files, with a line `###` between them. Property: in
//! `agent::fuzzing::config`.
#![no_main]

use prestage_fuzz::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((now, text)) = bytes.split_first_chunk::<4>() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let files: Vec<&str> = text.split("\n###\n").collect();
    agent::fuzzing::config(&files, i64::from(u32::from_le_bytes(*now)) * 2);
});
