//! What a peer may ask, read from bytes: pure, bounded, and so strict that no part of what was sent ever becomes a
//! path. A request is `GET` or `HEAD` of `/content/HASH`, or `GET` of `/have/HASH,HASH,…`, or it is refused.
//!
//! HTTP/1.1 by RFC 9112, of which a client of ours, curl and wget need no more than this.

use std::ops::Range;

use format::digest::Sha256;

/// The longest request, in bytes: a question for [`MAX_ASKED`] hashes and its headers.
pub const MAX_HEAD: usize = 6 * 1024;

/// The most hashes in one question.
pub const MAX_ASKED: usize = 64;

/// What the bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a request: more is needed.
    Incomplete,
    /// A whole one.
    Request(Request),
    /// Not one of ours.
    Refused(Refusal),
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Content, or a part of it.
    Content {
        /// Its name.
        digest: Sha256,
        /// Whether the bytes are wanted, or only how many there are.
        body: bool,
        /// The part; none: all.
        part: Option<Part>,
    },
    /// What is here of these.
    Have(Vec<Sha256>),
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not HTTP as we read it.
    Malformed,
    /// A target that does not exist.
    NotFound,
    /// A method that would change something, or that we do not have.
    Method,
    /// More than [`MAX_HEAD`] bytes.
    TooLarge,
    /// Another version of HTTP.
    Version,
}

impl Refusal {
    /// The status line's code and words (RFC 9110 section 15).
    pub fn status(self) -> &'static str {
        match self {
            Refusal::Malformed => "400 Bad Request",
            Refusal::NotFound => "404 Not Found",
            Refusal::Method => "405 Method Not Allowed",
            Refusal::TooLarge => "431 Request Header Fields Too Large",
            Refusal::Version => "505 HTTP Version Not Supported",
        }
    }
}

/// A part of a file, as a Range header words it (RFC 9110 section 14.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// From this byte on.
    From(u64),
    /// From the first to the last, both included.
    Between(u64, u64),
    /// So many at the end.
    Last(u64),
}

impl Part {
    /// The bytes that it means in a file of `size`; none, if there are none such.
    pub fn of(self, size: u64) -> Option<Range<u64>> {
        let (from, to) = match self {
            Part::From(from) => (from, size),
            Part::Between(from, last) => (from, last.saturating_add(1).min(size)),
            Part::Last(count) => (size.saturating_sub(count), size),
        };
        (from < to).then_some(from..to)
    }
}

/// Reads a request from what has been received so far. What follows a whole one is not looked at.
pub fn parse(bytes: &[u8]) -> Parsed {
    let head = &bytes[..bytes.len().min(MAX_HEAD)];
    match head.windows(4).position(|w| w == b"\r\n\r\n") {
        Some(end) => read(&head[..end]).map_or_else(Parsed::Refused, Parsed::Request),
        None if bytes.len() >= MAX_HEAD => Parsed::Refused(Refusal::TooLarge),
        None => Parsed::Incomplete,
    }
}

/// Reads a head without the empty line at its end.
fn read(head: &[u8]) -> Result<Request, Refusal> {
    // Whatever is not printable ASCII (RFC 9112 section 2.2 lets a bare LF pass: we do not).
    let is_plain = |line: &str| line.bytes().all(|b| matches!(b, b'\t' | b' '..=b'~'));
    let text = std::str::from_utf8(head).map_err(|_| Refusal::Malformed)?;
    let mut lines = text.split("\r\n");
    let line = lines.next().filter(|line| is_plain(line)).ok_or(Refusal::Malformed)?;
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Refusal::Malformed);
    };
    let is_new = match version {
        "HTTP/1.1" => true,
        "HTTP/1.0" => false,
        other if other.starts_with("HTTP/") => return Err(Refusal::Version),
        _ => return Err(Refusal::Malformed),
    };
    let (mut host, mut range, mut if_range) = (None, None, None);
    for line in lines {
        let (name, value) = line.split_once(':').filter(|_| is_plain(line)).ok_or(Refusal::Malformed)?;
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(Refusal::Malformed);
        }
        let value = value.trim_matches([' ', '\t']);
        let slot = match name.to_ascii_lowercase().as_str() {
            "host" => &mut host,
            "range" => &mut range,
            "if-range" => &mut if_range,
            // A body has no place in any of our requests, and two ideas of where one ends are how requests are smuggled.
            "content-length" if value == "0" => continue,
            "content-length" | "transfer-encoding" | "upgrade" => return Err(Refusal::Malformed),
            _ => continue,
        };
        if slot.replace(value).is_some() {
            return Err(Refusal::Malformed);
        }
    }
    if is_new && host.is_none() {
        return Err(Refusal::Malformed);
    }
    let body = match method {
        "GET" => true,
        "HEAD" => false,
        _ => return Err(Refusal::Method),
    };
    if let Some(name) = target.strip_prefix("/content/") {
        let digest: Sha256 = name.parse().map_err(|_| Refusal::NotFound)?;
        // Content never changes under its name, so a validator is right if it is that name.
        let holds = if_range.is_none_or(|tag| tag == format!("\"{digest}\""));
        // A Range that is none, or more than one, is as if it were not there (RFC 9110 section 14.2).
        return Ok(Request::Content { digest, body, part: range.filter(|_| holds).and_then(part) });
    }
    let list = target.strip_prefix("/have/").filter(|_| body).ok_or(Refusal::NotFound)?;
    let asked: Option<Vec<Sha256>> = list.split(',').take(MAX_ASKED + 1).map(|d| d.parse().ok()).collect();
    asked.filter(|asked| asked.len() <= MAX_ASKED).map(Request::Have).ok_or(Refusal::NotFound)
}

/// One range of bytes.
fn part(range: &str) -> Option<Part> {
    let number =
        |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    match (first, last) {
        ("", last) => number(last).map(Part::Last),
        (first, "") => number(first).map(Part::From),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Part::Between(first, last))
        }
    }
}

/// A character of a header's name (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest() -> Sha256 {
        Sha256::of(b"content")
    }

    fn ask(target: &str, headers: &str) -> Parsed {
        parse(format!("GET {target} HTTP/1.1\r\nHost: till\r\n{headers}\r\n").as_bytes())
    }

    fn part_of(headers: &str) -> Option<Part> {
        match ask(&format!("/content/{}", digest()), headers) {
            Parsed::Request(Request::Content { part, .. }) => part,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn content_is_asked_by_its_hash_whole_or_in_part() {
        let expected = Request::Content { digest: digest(), body: true, part: None };
        assert_eq!(ask(&format!("/content/{}", digest()), ""), Parsed::Request(expected));
        assert_eq!(part_of("Range: bytes=5-\r\n"), Some(Part::From(5)));
        assert_eq!(part_of("range:bytes=5-9 \r\n"), Some(Part::Between(5, 9)));
        assert_eq!(part_of("Range: bytes=-9\r\n"), Some(Part::Last(9)));
        assert_eq!(
            part_of(&format!("Range: bytes=5-\r\nIf-Range: \"{}\"\r\n", digest())),
            Some(Part::From(5))
        );
        for whole in [
            "Range: bytes=9-5\r\n",
            "Range: bytes=1-2,4-5\r\n",
            "Range: lines=1-2\r\n",
            "Range: bytes=+1-2\r\n",
        ] {
            assert_eq!(part_of(whole), None, "{whole}");
        }
        assert_eq!(part_of("Range: bytes=5-\r\nIf-Range: \"another\"\r\n"), None);
    }

    #[test]
    fn a_part_is_within_the_file_or_nothing() {
        assert_eq!(Part::From(5).of(10), Some(5..10));
        assert_eq!(Part::Between(5, u64::MAX).of(10), Some(5..10));
        assert_eq!(Part::Last(3).of(10), Some(7..10));
        assert_eq!(Part::Last(30).of(10), Some(0..10));
        for (part, size) in
            [(Part::From(10), 10), (Part::Last(0), 10), (Part::From(0), 0), (Part::Last(1), 0)]
        {
            assert_eq!(part.of(size), None, "{part:?}");
        }
    }

    #[test]
    fn no_target_but_a_hash_exists() {
        let hash = digest().to_string();
        for target in [
            "/",
            "/content/",
            "/content",
            "*",
            "/metadata/timestamp.json",
            "/../../etc/passwd",
            "//content/x",
            &format!("/content/../content/{hash}"),
            &format!("/content/{hash}/"),
            &format!("/content/{hash}.partial"),
            &format!("/content/{}", hash.to_uppercase()),
            &format!("/content/%2e%2e/{hash}"),
            &format!("/content/{hash}?x"),
            &format!("/content/{hash}#x"),
            &format!("/content/{}", &hash[1..]),
            &format!("http://till/content/{hash}"),
            "/have/",
            &format!("/have/{hash},"),
            &format!("/have/{hash},.."),
            &format!("/content/{}\0", &hash[1..]),
        ] {
            assert!(matches!(ask(target, ""), Parsed::Refused(_)), "{target}");
        }
    }

    #[test]
    fn what_is_no_request_of_ours_is_refused() {
        let target = format!("/content/{}", digest());
        for (request, why) in [
            (format!("POST {target} HTTP/1.1\r\nHost: x\r\n\r\n"), Refusal::Method),
            (format!("DELETE {target} HTTP/1.1\r\nHost: x\r\n\r\n"), Refusal::Method),
            (format!("GET {target} HTTP/2.0\r\nHost: x\r\n\r\n"), Refusal::Version),
            (format!("GET {target} HTTP/1.1\r\n\r\n"), Refusal::Malformed),
            (format!("GET {target} HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n"), Refusal::Malformed),
            (format!("GET {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"), Refusal::Malformed),
            (
                format!("GET {target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"),
                Refusal::Malformed,
            ),
            (format!("GET {target} HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n"), Refusal::Malformed),
            (
                format!("GET {target} HTTP/1.1\r\nHost: x\r\nA: b\nRange: bytes=1-\r\n\r\n"),
                Refusal::Malformed,
            ),
            (
                format!("GET {target} HTTP/1.1\r\nHost: x\r\nRange: bytes=1-\r\nRange: bytes=2-\r\n\r\n"),
                Refusal::Malformed,
            ),
            (format!("GET  {target} HTTP/1.1\r\nHost: x\r\n\r\n"), Refusal::Malformed),
            ("\r\n\r\n".into(), Refusal::Malformed),
            (format!("GET {target}\r\n\r\n"), Refusal::Malformed),
            ("\u{16}\u{3}\u{1}\r\n\r\n".into(), Refusal::Malformed),
        ] {
            assert_eq!(parse(request.as_bytes()), Parsed::Refused(why), "{request}");
        }
        assert!(matches!(parse(format!("GET {target} HTTP/1.0\r\n\r\n").as_bytes()), Parsed::Request(_)));
    }

    #[test]
    fn a_request_has_a_bound_and_its_beginning_is_waited_for() {
        let longest: Vec<String> = (0..MAX_ASKED).map(|_| digest().to_string()).collect();
        let request = format!("GET /have/{} HTTP/1.1\r\nHost: till\r\n\r\n", longest.join(","));
        for end in 0..request.len() {
            assert_eq!(parse(&request.as_bytes()[..end]), Parsed::Incomplete);
        }
        assert!(
            matches!(parse(request.as_bytes()), Parsed::Request(Request::Have(asked)) if asked.len() == MAX_ASKED)
        );
        let one_more = request.replace(" HTTP/1.1", &format!(",{} HTTP/1.1", digest()));
        assert_eq!(parse(one_more.as_bytes()), Parsed::Refused(Refusal::NotFound));
        let endless = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &[b'x'; MAX_HEAD]].concat();
        assert_eq!(parse(&endless), Parsed::Refused(Refusal::TooLarge));
        assert_eq!(parse(&[endless.as_slice(), b"\r\n\r\n"].concat()), Parsed::Refused(Refusal::TooLarge));
    }
}
