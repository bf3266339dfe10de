//! The index: the signed list of a bundle's members, and all that a node knows of a bundle before it fetches a byte
//! of it.
//!
//! Written by `prestage-build bundle`, published as a TUF target, read by the agent. Version 1 of the format is
//! `apiVersion: patchmgmt.io/v1`, `kind: BundleIndex`; the file is canonical JSON, so the same bundle always has the
//! same index. A member may be had from more than one *source*; a reader passes over kinds that it does not know, so
//! deltas can join without breaking old nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::API_VERSION;
use crate::container::{Encoding, Entry};
use crate::digest::Sha256;
use crate::json;
use crate::name::{BundleVersion, CycleId, MemberPath, TargetPath, Variant};
use crate::time::UnixTime;

/// The `kind` of an index.
pub const KIND: &str = "BundleIndex";

/// The most members that a bundle may have: ten times what a full desktop distribution has installed. Keeps a
/// hostile index from costing memory.
pub const MAX_MEMBERS: usize = 50_000;

/// An index file is refused above this size: about 1 KiB for each of [`MAX_MEMBERS`], and block digests.
pub const MAX_INDEX: u64 = 64 * 1024 * 1024;

/// Members larger than this carry a digest for each block of this many content bytes, so that a torn or damaged
/// block costs a block and not the member.
pub const BLOCK: u64 = 1024 * 1024;

/// Everything that is in one bundle.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always [`API_VERSION`].
    pub api_version: String,
    /// Always [`KIND`].
    pub kind: String,
    /// What the bundle is for.
    pub variant: Variant,
    /// The operator's name for it.
    pub version: BundleVersion,
    /// The patch cycle it belongs to.
    pub cycle: CycleId,
    /// Which package manager installs it.
    pub family: Family,
    /// When the newest of its sources was published upstream; also the mtime of every tar entry. Never the time of
    /// the build: same input, same bytes.
    pub created: UnixTime,
    /// The bundle file.
    pub bundle: BundleFile,
    /// In the order of the file.
    pub members: Vec<Member>,
    /// Source package → what this bundle's version of it repairs, where the archive tells. By source and not by package,
    /// because all packages of a source repair the same: otherwise this would be most of the index.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub advisories: BTreeMap<String, Vec<Advisory>>,
}

/// A family of package managers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// apt and dpkg.
    Apt,
    /// dnf, yum and rpm.
    Rpm,
}

/// The bundle file that an index describes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BundleFile {
    /// Its target path.
    pub path: TargetPath,
    /// Its exact length in bytes.
    pub length: u64,
    /// The digest of the whole file; a node that fetches members alone never needs it.
    pub sha256: Sha256,
}

/// One file in a bundle.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Member {
    /// Path in the tar file and in the staged repository.
    pub path: MemberPath,
    /// What it is for.
    pub kind: MemberKind,
    /// Size of the content in bytes.
    pub size: u64,
    /// Digest of the content.
    pub sha256: Sha256,
    /// Digests of each [`BLOCK`] of the content, for members larger than one block.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocks: Vec<Sha256>,
    /// For packages: which one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<Package>,
    /// The ways to get the content; at least one of kind `whole`.
    pub sources: Vec<Source>,
}

/// What a member is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberKind {
    /// Package-repository metadata: small, every node needs it, and plans with it before any package is there.
    Metadata,
    /// A package.
    Package,
}

/// A package as its distribution names it. For Debian, `version` is the upstream version and `release` the Debian
/// revision (deb-version(7)).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Epoch; 0 where there is none.
    pub epoch: u32,
    /// Version without epoch and release.
    pub version: String,
    /// Release or revision; empty for a native Debian package.
    pub release: String,
    /// Architecture, `all` or `noarch` included.
    pub arch: String,
    /// Source package.
    pub source: String,
    /// The archive it came from, such as `Debian:bookworm-security`.
    pub origin: String,
}

impl Package {
    /// The whole version: `[EPOCH:]VERSION[-RELEASE]`.
    pub fn full_version(&self) -> String {
        let epoch = if self.epoch > 0 { format!("{}:", self.epoch) } else { String::new() };
        let release = if self.release.is_empty() { String::new() } else { format!("-{}", self.release) };
        format!("{epoch}{}{release}", self.version)
    }
}

/// A published weakness that a source package repairs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Advisory {
    /// Such as `CVE-2026-1234` or `DSA-5678-1`.
    pub id: String,
    /// As the archive words it; empty where it says none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub severity: String,
}

/// One way to get a member's content.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Source {
    /// The whole content, as a gzip member of the bundle file.
    Whole {
        /// Where it begins in the bundle file.
        offset: u64,
        /// How long it is there.
        length: u64,
        /// How it stands there.
        encoding: Encoding,
    },
    /// A kind that this program does not know.
    #[serde(other)]
    Unknown,
}

/// A member's place in the bundle file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
    /// How the content is encoded.
    pub encoding: Encoding,
}

impl Member {
    /// Where the whole member stands. Every member of a validated index has one.
    pub fn whole(&self) -> Option<Extent> {
        self.sources.iter().find_map(|source| match *source {
            Source::Whole { offset, length, encoding } => Some(Extent { offset, length, encoding }),
            Source::Unknown => None,
        })
    }
}

/// An index was refused: the member, if it is about one, and the rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexError(String);

impl fmt::Display for IndexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for IndexError {}

impl Index {
    /// Reads and validates an index.
    ///
    /// # Errors
    /// If it is not strict JSON, of another version, or breaks a rule of [`Index::validate`].
    pub fn parse(bytes: &[u8]) -> Result<Self, IndexError> {
        // First who it is, so that a newer format is named as such instead of failing on some field.
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version<'a> {
            api_version: std::borrow::Cow<'a, str>,
            kind: std::borrow::Cow<'a, str>,
        }
        let version: Version<'_> = json::read(bytes).map_err(|e| IndexError(e.to_string()))?;
        if (version.api_version.as_ref(), version.kind.as_ref()) != (API_VERSION, KIND) {
            return Err(IndexError(format!(
                "it is a {:?} of version {:?}; this program reads {KIND} of {API_VERSION}",
                version.kind, version.api_version
            )));
        }
        let index: Index = serde_json::from_slice(bytes).map_err(|e| IndexError(e.to_string()))?;
        index.validate()?;
        Ok(index)
    }

    /// The bytes of the index file.
    ///
    /// # Errors
    /// If a rule of [`Index::validate`] is broken.
    pub fn to_bytes(&self) -> Result<Vec<u8>, IndexError> {
        self.validate()?;
        json::canonical(self).map_err(|e| IndexError(e.to_string()))
    }

    /// The tar entry of a member.
    pub fn entry(&self, member: &Member) -> Entry {
        Entry::new(&member.path, member.size, self.created)
    }

    /// Checks what types alone cannot: unique paths, extents that lie in the file, in order and without overlap,
    /// lengths that fit their encoding, a digest for every block.
    ///
    /// # Errors
    /// The first rule that is broken, with the member's path.
    pub fn validate(&self) -> Result<(), IndexError> {
        let fail = |path: &MemberPath, rule: &str| Err(IndexError(format!("member {path}: {rule}")));
        if self.members.len() > MAX_MEMBERS {
            return Err(IndexError(format!(
                "it has {} members; the limit is {MAX_MEMBERS}",
                self.members.len()
            )));
        }
        let mut paths = BTreeSet::new();
        let mut free_from = 0u64;
        for member in &self.members {
            let path = &member.path;
            if !paths.insert(path.as_str()) {
                return fail(path, "listed twice");
            }
            if !Entry::fits(path) {
                return fail(path, "its directory is too long for a tar header (155 bytes)");
            }
            let Some(extent) = member.whole() else {
                return fail(path, "no source of kind whole");
            };
            let Some(end) = extent.offset.checked_add(extent.length) else {
                return fail(path, "its extent is beyond 2^64");
            };
            if extent.offset < free_from {
                return fail(path, "its extent overlaps the member before it");
            }
            if end > self.bundle.length {
                return fail(path, "its extent ends behind the bundle file");
            }
            if member.size > u64::MAX / 2 || extent.length > u64::MAX / 2 {
                return fail(path, "its size is beyond 2^63");
            }
            if extent.encoding == Encoding::Stored && extent.length != self.entry(member).stored_length() {
                return fail(path, "its length is not that of a stored member of its size");
            }
            let blocks = if member.size > BLOCK { member.size.div_ceil(BLOCK) } else { 0 };
            if member.blocks.len() as u64 != blocks {
                return fail(path, "it does not have one digest for each block");
            }
            if (member.kind == MemberKind::Package) != member.package.is_some() {
                return fail(path, "a package, and only a package, says which package it is");
            }
            free_from = end;
        }
        Ok(())
    }

    /// The package-repository metadata.
    pub fn metadata(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|m| m.kind == MemberKind::Metadata)
    }

    /// The packages.
    pub fn packages(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|m| m.kind == MemberKind::Package)
    }
}

/// The target path of the index of a bundle.
///
/// # Errors
/// Never for a parsed variant and version; the type says so only because paths are parsed in one place.
pub fn index_path(
    variant: &Variant,
    version: &BundleVersion,
) -> Result<TargetPath, crate::name::InvalidName> {
    format!("bundles/{variant}/{version}/index.json").parse()
}

/// The target path of a bundle file.
///
/// # Errors
/// As [`index_path`].
pub fn bundle_path(
    variant: &Variant,
    version: &BundleVersion,
) -> Result<TargetPath, crate::name::InvalidName> {
    format!("bundles/{variant}/{version}/bundle.tar.gz").parse()
}

/// What the `bundles` role says of an index, in `custom` of its target: enough to choose a bundle without fetching
/// its index.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct IndexCustom {
    /// Counts up with each bundle released for a variant: the order of bundles, whatever their versions are called.
    /// Given when the bundle is signed, so the bundle's own bytes do not depend on it.
    pub serial: u64,
    /// The patch cycle.
    pub cycle: CycleId,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(path: &str, offset: u64, size: u64) -> Member {
        let created = UnixTime(1_795_411_753);
        let length = Entry::new(&path.parse().unwrap(), size, created).stored_length();
        let package = Package {
            name: "openssl".into(),
            epoch: 1,
            version: "3.0.17".into(),
            release: "1~deb12u3".into(),
            arch: "amd64".into(),
            source: "openssl".into(),
            origin: "Debian:bookworm-security".into(),
        };
        Member {
            path: path.parse().unwrap(),
            kind: MemberKind::Package,
            size,
            sha256: Sha256::of(b"x"),
            blocks: if size > BLOCK { vec![Sha256::of(b"b"); size.div_ceil(BLOCK) as usize] } else { vec![] },
            package: Some(package),
            sources: vec![Source::Whole { offset, length, encoding: Encoding::Stored }],
        }
    }

    fn index() -> Index {
        let variant: Variant = "debian-12-amd64".parse().unwrap();
        let version: BundleVersion = "20261123-42".parse().unwrap();
        let first = member("pool/a_1_all.deb", 0, 700);
        let next = first.whole().unwrap().length;
        let second = member("pool/b_1_all.deb", next, 3 * BLOCK + 1);
        let length = next + second.whole().unwrap().length + 34;
        Index {
            api_version: API_VERSION.into(),
            kind: KIND.into(),
            cycle: "2026-11".parse().unwrap(),
            family: Family::Apt,
            created: UnixTime(1_795_411_753),
            bundle: BundleFile {
                path: bundle_path(&variant, &version).unwrap(),
                length,
                sha256: Sha256::of(b"bundle"),
            },
            members: vec![first, second],
            advisories: BTreeMap::from([(
                "openssl".into(),
                vec![Advisory { id: "CVE-2026-0001".into(), severity: String::new() }],
            )]),
            variant,
            version,
        }
    }

    #[test]
    fn version_1_of_the_format_stays_readable_and_writable() {
        let golden = include_bytes!("../tests/data/index-v1.json");
        let written = index().to_bytes().unwrap();
        assert_eq!(String::from_utf8_lossy(&written), String::from_utf8_lossy(golden).trim_end());
        assert_eq!(Index::parse(golden).unwrap(), index());
    }

    #[test]
    fn an_unknown_source_is_passed_over() {
        let text = String::from_utf8(index().to_bytes().unwrap()).unwrap();
        let text = text.replacen("\"sources\":[", "\"sources\":[{\"kind\":\"delta\",\"base\":\"1\"},", 1);
        assert_eq!(Index::parse(text.as_bytes()).unwrap().members[0].whole(), index().members[0].whole());
    }

    #[test]
    fn another_version_is_named_and_refused() {
        let text = String::from_utf8(index().to_bytes().unwrap())
            .unwrap()
            .replace("patchmgmt.io/v1", "patchmgmt.io/v9");
        assert!(Index::parse(text.as_bytes()).unwrap_err().to_string().contains("patchmgmt.io/v9"));
    }

    #[test]
    fn hostile_offsets_sizes_and_paths_are_refused() {
        type Break = fn(&mut Index);
        let cases: [(&str, &str, Break); 8] = [
            ("overlap", "overlaps", |i| i.members[1].sources = i.members[0].sources.clone()),
            ("overflow", "2^64", |i| {
                i.members[1].sources =
                    vec![Source::Whole { offset: u64::MAX, length: 2, encoding: Encoding::Deflate }]
            }),
            ("behind the end", "behind", |i| i.bundle.length = 10),
            ("lying length", "stored member", |i| i.members[0].size += 512),
            ("missing block digests", "each block", |i| i.members[1].blocks.clear()),
            ("twice", "twice", |i| i.members[1].path = i.members[0].path.clone()),
            ("no whole source", "whole", |i| i.members[0].sources = vec![Source::Unknown]),
            ("huge", "2^63", |i| {
                i.bundle.length = u64::MAX;
                i.members[1].sources = vec![Source::Whole {
                    offset: 9_000_000,
                    length: u64::MAX - 9_000_000,
                    encoding: Encoding::Deflate,
                }];
            }),
        ];
        for (name, words, break_it) in cases {
            let mut bad = index();
            break_it(&mut bad);
            let error = bad.validate().unwrap_err().to_string();
            assert!(error.contains(words), "{name}: {error}");
        }
        let text = String::from_utf8(index().to_bytes().unwrap())
            .unwrap()
            .replace("pool/a_1_all.deb", "../../etc/cron.d/x");
        assert!(Index::parse(text.as_bytes()).is_err());
    }
}
