//! Canonical JSON: what is read strictly is read by every reader of ours, as the same value; its canonical form is one
//! and the same however it was spelled, and reading that form gives the value back.
#![no_main]

use format::json::{self, Json};
use prestage_fuzz::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let read = json::read::<serde_json::Value>(bytes);
    let Ok(value) = Json::parse(bytes) else { return };
    let canonical = value.canonical();
    // The other reader agrees, and so does what it writes.
    let read = read.expect("a document is refused whose tree is read");
    assert_eq!(json::canonical(&read).as_ref(), Ok(&canonical));
    assert_eq!(value.clone().into_owned(), value);
    // The canonical form escapes no control characters, so a text with one in it is signed but never written so.
    if canonical.iter().all(|b| *b >= b' ') {
        let again = Json::parse(&canonical).expect("a canonical form without control characters is JSON");
        assert_eq!((&again, &again.canonical()), (&value, &canonical));
    } else {
        assert!(Json::parse(&canonical).is_err(), "a control character was read in a string");
    }
});
