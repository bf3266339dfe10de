//! Content-Range: what is accepted is a range of at least one byte within the length that it names, and is what the
//! same numbers would be written as.
#![no_main]

use format::range::sent_range;
use prestage_fuzz::fuzz_target;

fuzz_target!(|text: &str| {
    if let Some(sent) = sent_range(text) {
        let (first, last) = (*sent.start(), *sent.end());
        assert!(first <= last);
        let number = |text: &str| text.trim_start_matches('0').parse::<u64>().unwrap_or(0);
        let (range, length) = text["bytes ".len()..].split_once('/').expect("a length");
        let (from, to) = range.split_once('-').expect("two ends");
        assert_eq!((number(from), number(to)), (first, last));
        assert!(length == "*" || number(length) > last);
    }
});
