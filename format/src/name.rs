//! Names that come from outside, each parsed once into a type that cannot hold a dangerous value.
//!
//! A name becomes part of a path, a URL, a log line or a command line; here is the only place that decides which
//! characters that may be.

use std::fmt;
use std::str::FromStr;

/// The longest name of any kind, in bytes: what one path component can hold (NAME_MAX of POSIX file systems).
pub const MAX_NAME: usize = 255;

/// A name was refused: which, and the rule that it breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidName {
    what: &'static str,
    text: String,
    rule: &'static str,
}

impl InvalidName {
    /// `text` is no `what`, for it breaks `rule`.
    pub(crate) fn new(what: &'static str, text: &str, rule: &'static str) -> Self {
        InvalidName { what, text: text.to_owned(), rule }
    }
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Debug form of the text, shortened: it is hostile until it has been parsed.
        let shown: String = self.text.chars().take(80).collect();
        write!(f, "{shown:?} is not a valid {}: {}", self.what, self.rule)
    }
}

impl std::error::Error for InvalidName {}

/// Letters, digits and `._+~-`, beginning with a letter or digit: safe as a path component, in a URL and in a shell.
fn is_word(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= MAX_NAME
        && bytes.next().is_some_and(|c| c.is_ascii_alphanumeric())
        && bytes.all(|c| c.is_ascii_alphanumeric() || b"._+~-".contains(&c))
}

const WORD_RULE: &str = "1 to 255 letters, digits and . _ + ~ -, beginning with a letter or digit";

macro_rules! word_type {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                if is_word(text) {
                    Ok($name(text.to_owned()))
                } else {
                    Err(InvalidName { what: $what, text: text.to_owned(), rule: WORD_RULE })
                }
            }
        }
        string_like!($name);
    };
}

macro_rules! string_like {
    ($name:ident) => {
        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use string_like;

word_type!(
    /// What a bundle is built for: `ID-VERSION_ID-arch` of os-release(5), such as `debian-12-amd64`.
    Variant,
    "variant"
);
word_type!(
    /// A bundle's version, chosen by the operator, such as `20261123-42`. Not ordered: a bundle's *serial* is.
    BundleVersion,
    "bundle version"
);
word_type!(
    /// A patch cycle, chosen by the operator, such as `2026-11`.
    CycleId,
    "cycle id"
);
word_type!(
    /// A node's identity, unique in its fleet.
    NodeId,
    "node id"
);

/// A member's path inside its bundle and inside the staged repository: relative, of words joined by `/`.
///
/// No component is `.` or `..` or begins with a dot, none is empty, there is no backslash, NUL or control
/// character, and the whole fits a ustar header (POSIX.1-2017, pax: 255 bytes, of which the last component
/// up to 100).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberPath(String);
string_like!(MemberPath);

impl FromStr for MemberPath {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let last = text.rsplit('/').next().unwrap_or_default();
        if text.len() <= MAX_NAME && last.len() <= 100 && text.split('/').all(is_word) {
            Ok(MemberPath(text.to_owned()))
        } else {
            Err(InvalidName {
                what: "member path",
                text: text.to_owned(),
                rule: "a relative path of letters, digits and . _ + ~ -, no component beginning with a dot, at \
                       most 255 bytes and 100 in the last component",
            })
        }
    }
}

/// What [`TargetPath::with_digest`] puts in front of the last component: 64 digits and a dot.
const DIGEST_PREFIX: usize = 65;

/// The path of a TUF target, as metadata names it: relative to `targets/`, without a digest prefix.
///
/// The specification leaves target paths open (section 4.5); ours follow the rule of [`MemberPath`], but a client
/// must be able to *read* metadata that lists stranger ones, so metadata keeps plain strings and only what is
/// fetched becomes a `TargetPath`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetPath(String);
string_like!(TargetPath);

impl FromStr for TargetPath {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let last = text.rsplit('/').next().unwrap_or_default();
        if text.len() <= 1024 && last.len() <= MAX_NAME - DIGEST_PREFIX && text.split('/').all(is_word) {
            Ok(TargetPath(text.to_owned()))
        } else {
            Err(InvalidName {
                what: "target path",
                text: text.to_owned(),
                rule: "a relative path of letters, digits and . _ + ~ -, no component beginning with a dot, at \
                       most 1024 bytes and 190 in the last component",
            })
        }
    }
}

impl TargetPath {
    /// The path below `targets/` under which a repository with consistent snapshots keeps this target's content:
    /// `DIR/DIGEST.NAME` (specification section 6.2).
    pub fn with_digest(&self, digest: &str) -> String {
        match self.0.rsplit_once('/') {
            Some((dir, name)) => format!("{dir}/{digest}.{name}"),
            None => format!("{digest}.{}", self.0),
        }
    }
}

/// A role name as a file name: everything but unreserved characters percent-encoded (RFC 3986 section 2.3), so that
/// a role called `../root` stays one component.
pub fn encode_role(role: &str) -> String {
    use fmt::Write as _;
    let mut out = String::with_capacity(role.len());
    for b in role.bytes() {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(char::from(b));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{b:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dangerous_member_paths_are_refused() {
        for path in [
            "",
            "/etc/passwd",
            "../x",
            "a/../b",
            "a//b",
            "a/",
            "./a",
            ".hidden",
            "a/.b",
            "a\\b",
            "a\0b",
            "a\nb",
            "a b",
            "-rf",
            "pool/-x.deb",
        ] {
            assert!(path.parse::<MemberPath>().is_err(), "{path:?}");
        }
        assert!("x".repeat(101).parse::<MemberPath>().is_err());
        assert!(format!("{0}/{0}/{0}", "x".repeat(90)).parse::<MemberPath>().is_err());
    }

    #[test]
    fn package_file_names_are_accepted() {
        for path in [
            "Packages",
            "pool/libstdc++6_12.2.0-14+deb12u1_amd64.deb",
            "pool/a_1~rc1_all.deb",
            "repodata/repomd.xml",
        ] {
            assert!(path.parse::<MemberPath>().is_ok(), "{path:?}");
        }
    }

    #[test]
    fn a_target_whose_file_name_would_be_too_long_with_its_digest_is_refused() {
        let digest = crate::digest::Sha256::of(b"").to_string();
        let longest: TargetPath = format!("bundles/{}", "x".repeat(190)).parse().unwrap();
        assert_eq!(longest.with_digest(&digest).len(), "bundles/".len() + MAX_NAME);
        assert!(format!("bundles/{}", "x".repeat(191)).parse::<TargetPath>().is_err());
    }

    #[test]
    fn the_digest_stands_before_the_last_component() {
        let path: TargetPath = "bundles/debian-12-amd64/1/index.json".parse().unwrap();
        assert_eq!(path.with_digest("ab"), "bundles/debian-12-amd64/1/ab.index.json");
        assert_eq!("x".parse::<TargetPath>().unwrap().with_digest("ab"), "ab.x");
    }

    #[test]
    fn a_role_name_stays_one_path_component() {
        assert_eq!(encode_role("../root"), "..%2Froot");
        assert_eq!(encode_role("?#/ü"), "%3F%23%2F%C3%BC");
        assert_eq!(encode_role("bundles"), "bundles");
    }
}
