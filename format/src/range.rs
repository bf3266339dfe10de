//! Which bytes of a file a mirror says that it sends: the Content-Range of an HTTP answer.
//!
//! What is not here: requests and answers, which are the agent's `fetch/http.rs`.

use std::ops::RangeInclusive;

/// The first and last byte of `bytes FIRST-LAST/LENGTH`, where the length may be `*` (RFC 9110 section 14.4). None for
/// anything else: other units, an unsatisfied range, and what contradicts itself, which section 14.4 calls invalid.
pub fn sent_range(content_range: &str) -> Option<RangeInclusive<u64>> {
    let (range, length) = content_range.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    let fits = length == "*" || number(length)? > last;
    (first <= last && fits).then_some(first..=last)
}

/// Digits alone: `u64::from_str` would take a sign too.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_sends_is_read() {
        assert_eq!(sent_range("bytes 10-19/100"), Some(10..=19));
        assert_eq!(sent_range("bytes 10-19/*"), Some(10..=19));
        assert_eq!(sent_range("bytes 0-0/1"), Some(0..=0));
        assert_eq!(sent_range("bytes 5368709120-5368709127/5368709128"), Some(5_368_709_120..=5_368_709_127));
    }

    #[test]
    fn a_range_that_is_none_or_contradicts_itself_is_refused() {
        for bad in [
            "",
            "bytes */100",
            "10-19/100",
            "bytes x-19/100",
            "bytes -1-19/100",
            "bytes 10-/100",
            "bytes 10-19",
            "bytes 10-19/",
            "bytes +10-19/100",
            "bytes  10-19/100",
            "bytes 19-10/100",
            "bytes 10-100/100",
            "bytes 10-19/100, 30-39/100",
            "bytes 10-18446744073709551616/*",
        ] {
            assert_eq!(sent_range(bad), None, "{bad}");
        }
    }
}
