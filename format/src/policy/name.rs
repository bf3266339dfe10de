//! The names in a policy, each parsed once into a type that cannot hold anything else.
//!
//! Kubernetes' rules where Kubernetes has them ("Object Names and IDs", "Labels and Selectors"), so that a document that
//! is valid here is valid there.

use std::fmt;
use std::str::FromStr;

use crate::digest::Sha256;
use crate::name::{InvalidName, string_like};

/// The longest DNS name (RFC 1123), in bytes.
const MAX_SUBDOMAIN: usize = 253;

/// The longest part of one, and the longest label value of Kubernetes, in bytes.
const MAX_LABEL: usize = 63;

/// The longest URL that is taken, in bytes.
const MAX_URL: usize = 2048;

/// The longest zone name, in bytes; the longest of the database has 32.
const MAX_ZONE: usize = 64;

/// The fewest digits of a checksum, as many as tell commits apart for people.
const MIN_CHECKSUM: usize = 6;

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $valid:expr, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);
        string_like!($name);

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                let valid: fn(&str) -> bool = $valid;
                match valid(text) {
                    true => Ok($name(text.to_owned())),
                    false => Err(InvalidName::new($what, text, $rule)),
                }
            }
        }
    };
}

name_type!(
    /// `metadata.name`: a DNS subdomain (RFC 1123).
    PolicyName,
    "policy name",
    is_subdomain,
    "at most 253 small letters, digits, - and ., each part beginning and ending with a letter or digit (RFC 1123)"
);
name_type!(
    /// `metadata.namespace`: a DNS label (RFC 1123).
    Namespace,
    "namespace",
    is_dns_label,
    "at most 63 small letters, digits and -, beginning and ending with a letter or digit (RFC 1123)"
);
name_type!(
    /// A label's key: `NAME`, or `PREFIX/NAME` with a DNS subdomain as its prefix.
    LabelKey,
    "label key",
    |text| match text.rsplit_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_label_word(name),
        None => is_label_word(text),
    },
    "at most 63 letters, digits, -, _ and ., beginning and ending with a letter or digit; before it perhaps a DNS name \
     and /"
);
name_type!(
    /// A label's value, which may be empty.
    LabelValue,
    "label value",
    |text| text.is_empty() || is_label_word(text),
    "at most 63 letters, digits, -, _ and ., beginning and ending with a letter or digit; or nothing"
);
name_type!(
    /// The name of a time zone in the IANA database, such as `America/New_York`. Whether there is such a zone is for those
    /// to say who have the database; that it names no file outside of it is said here.
    ZoneName,
    "time zone name",
    |text| text.len() <= MAX_ZONE && text.split('/').all(is_zone_part),
    "words of letters, digits, _, + and -, joined by /, such as America/New_York"
);
name_type!(
    /// An http or https URL without user, white space or fragment.
    HttpUrl,
    "http or https URL",
    is_http_url,
    "http:// or https://, a host, and at most 2048 printable ASCII characters, without a user and without #"
);

impl Default for Namespace {
    /// `default`, as in Kubernetes.
    fn default() -> Self {
        Namespace("default".to_owned())
    }
}

fn is_dns_label(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.len() <= MAX_LABEL
        && text.bytes().all(|c| inner(c) || c == b'-')
        && text.bytes().next().is_some_and(inner)
        && text.bytes().next_back().is_some_and(inner)
}

fn is_subdomain(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    // Kubernetes does not limit the parts.
    let part = |part: &str| {
        part.bytes().all(|c| inner(c) || c == b'-')
            && part.bytes().next().is_some_and(inner)
            && part.bytes().next_back().is_some_and(inner)
    };
    text.len() <= MAX_SUBDOMAIN && text.split('.').all(part)
}

fn is_label_word(text: &str) -> bool {
    text.len() <= MAX_LABEL
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c))
        && text.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric())
        && text.bytes().next_back().is_some_and(|c| c.is_ascii_alphanumeric())
}

fn is_zone_part(text: &str) -> bool {
    text.bytes().next().is_some_and(|c| c.is_ascii_alphabetic())
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"_+-".contains(&c))
}

fn is_http_url(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let Some(rest) = rest.filter(|_| text.len() <= MAX_URL) else {
        return false;
    };
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    !host.is_empty()
        && !host.starts_with(':')
        && !host.contains('@')
        && rest.bytes().all(|c| c.is_ascii_graphic() && c != b'#')
}

/// What a SHA-256 begins with: `sha256:` and 64 hexadecimal digits, or the first of them (at least 6), then perhaps
/// `...`, as Git takes the beginning of a commit's id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Checksum(String);

impl Checksum {
    /// Whether `digest` begins so.
    pub fn matches(&self, digest: &Sha256) -> bool {
        digest.to_string().starts_with(&self.0)
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rest = if self.0.len() < 64 { "..." } else { "" };
        write!(f, "sha256:{}{rest}", self.0)
    }
}

impl FromStr for Checksum {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let digits = text.strip_prefix("sha256:").map(|rest| rest.strip_suffix("...").unwrap_or(rest));
        let hexadecimal = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        let valid = |digits: &&str| {
            let whole = digits.len() == 64 && !text.ends_with("...");
            (whole || (MIN_CHECKSUM..64).contains(&digits.len())) && digits.bytes().all(hexadecimal)
        };
        match digits.filter(valid) {
            Some(digits) => Ok(Checksum(digits.to_owned())),
            None => Err(InvalidName::new(
                "checksum",
                text,
                "sha256: and the 64 small hexadecimal digits of the bundle's SHA-256, or at least the first 6 of them \
                 and ...",
            )),
        }
    }
}
