//! The index: the signed list of a bundle's members, and all that a node knows of a bundle before it fetches a byte
//! of it.
//!
//! Written by `prestage-build bundle`, published as a TUF target, read by the agent. Version 1 of the format is
//! `apiVersion: patchmgmt.io/v1`, `kind: BundleIndex`; the file is canonical JSON, so the same bundle always has the
//! same index. A member may be had from more than one *source*: whole, or as deltas; a reader passes over kinds that it
//! does not know, so that more can join without breaking old nodes.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{BufReader, Read, Seek};

use crate::API_VERSION;
use crate::container::{Encoding, Entry, MAX_SIZE};
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

/// What can be written as a tar entry's mtime and, in RFC 3339, as four digits of a year.
const CREATED: std::ops::RangeInclusive<i64> = 0..=253_402_300_799;

/// Such a text could forge lines in a log and commands to a terminal; and canonical JSON leaves it as it is, so that an
/// index with one could be written and signed, and then be read by nobody.
const CONTROL: &str = "a control character in one of its texts";

fn is_line(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

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
    /// What deltas make: the same package with its parts not compressed. A package that has deltas has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain: Option<Plain>,
}

/// The plain form of a package ([`crate::delta`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Plain {
    /// Its size in bytes.
    pub size: u64,
    /// Its digest.
    pub sha256: Sha256,
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

    fn texts(&self) -> [&str; 6] {
        [&self.name, &self.version, &self.release, &self.arch, &self.source, &self.origin]
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
    /// The plain form, made of what is installed and a patch.
    Delta(Box<Delta>),
    /// A kind that this program does not know.
    #[serde(other)]
    Unknown,
}

/// A patch in the bundle file, behind all members, and what it needs.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Delta {
    /// Path of the patch in the tar file.
    pub path: MemberPath,
    /// Where its stored gzip member begins in the bundle file.
    pub offset: u64,
    /// How long that is.
    pub length: u64,
    /// Size of the patch.
    pub size: u64,
    /// Digest of the patch.
    pub sha256: Sha256,
    /// Digests of each [`BLOCK`] of it, if it is larger than one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocks: Vec<Sha256>,
    /// What must be installed.
    pub base: DeltaBase,
}

/// The installed content that a patch starts from.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DeltaBase {
    /// Package; mostly, but not always, the one that comes of it.
    pub name: String,
    /// Its architecture.
    pub arch: String,
    /// Its whole version.
    pub version: String,
    /// Bytes of its files, together.
    pub size: u64,
    /// Their digest ([`crate::delta::BaseDigest`]).
    pub sha256: Sha256,
}

impl Delta {
    /// The patch as something that is fetched like a member.
    pub fn patch(&self) -> Member {
        let Delta { offset, length, size, sha256, .. } = *self;
        Member {
            path: self.path.clone(),
            kind: MemberKind::Package,
            size,
            sha256,
            blocks: self.blocks.clone(),
            package: None,
            sources: vec![Source::Whole { offset, length, encoding: Encoding::Stored }],
            plain: None,
        }
    }
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
            Source::Delta(_) | Source::Unknown => None,
        })
    }

    /// The deltas that lead to it.
    pub fn deltas(&self) -> impl Iterator<Item = &Delta> {
        self.sources.iter().filter_map(|source| match source {
            Source::Delta(delta) => Some(delta.as_ref()),
            Source::Whole { .. } | Source::Unknown => None,
        })
    }

    /// The same package in its plain form, as a member that stands nowhere in the bundle file.
    pub fn as_plain(&self) -> Option<Member> {
        let Plain { size, sha256 } = self.plain?;
        let (path, package) = (self.path.clone(), self.package.clone());
        Some(Member {
            path,
            kind: self.kind,
            size,
            sha256,
            blocks: Vec::new(),
            package,
            sources: Vec::new(),
            plain: None,
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

/// Says that an index of another version is one, instead of failing on some field of it.
fn refuse_other_versions(reader: impl Read) -> Result<(), IndexError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        api_version: String,
        kind: String,
    }
    let version: Version = serde_json::from_reader(reader).map_err(|e| IndexError(e.to_string()))?;
    if (version.api_version.as_str(), version.kind.as_str()) == (API_VERSION, KIND) {
        return Ok(());
    }
    Err(IndexError(format!(
        "it is a {:?} of version {:?}; this program reads {KIND} of {API_VERSION}",
        version.kind, version.api_version
    )))
}

/// The fields of an [`Index`] that a node reads, each by way of a tree: one member's at a time is little memory, and the
/// types of a member are compiled once and not for each kind of reader.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct WithoutAdvisories {
    api_version: String,
    kind: String,
    #[serde(deserialize_with = "json::by_tree")]
    variant: Variant,
    #[serde(deserialize_with = "json::by_tree")]
    version: BundleVersion,
    #[serde(deserialize_with = "json::by_tree")]
    cycle: CycleId,
    #[serde(deserialize_with = "json::by_tree")]
    family: Family,
    #[serde(deserialize_with = "json::by_tree")]
    created: UnixTime,
    #[serde(deserialize_with = "json::by_tree")]
    bundle: BundleFile,
    #[serde(deserialize_with = "json::each_by_tree")]
    members: Vec<Member>,
}

impl From<WithoutAdvisories> for Index {
    fn from(read: WithoutAdvisories) -> Self {
        let WithoutAdvisories {
            api_version,
            kind,
            variant,
            version,
            cycle,
            family,
            created,
            bundle,
            members,
        } = read;
        let advisories = BTreeMap::new();
        Index { api_version, kind, variant, version, cycle, family, created, bundle, members, advisories }
    }
}

impl Index {
    /// Reads and validates an index.
    ///
    /// # Errors
    /// If it is not strict JSON, of another version, or breaks a rule of [`Index::validate`].
    pub fn parse(bytes: &[u8]) -> Result<Self, IndexError> {
        json::refuse_duplicates(bytes).map_err(|e| IndexError(e.to_string()))?;
        refuse_other_versions(bytes)?;
        let index: Index = serde_json::from_slice(bytes).map_err(|e| IndexError(e.to_string()))?;
        index.validate()?;
        Ok(index)
    }

    /// As [`Index::parse`], in the memory that a small machine has: the file is walked and never held, and the
    /// advisories, which only the centre reads and which can be most of it, are left out.
    ///
    /// # Errors
    /// As [`Index::parse`], and those of `file`.
    pub fn read_for_node(mut file: impl Read + Seek) -> Result<Self, IndexError> {
        let again = |file: &mut dyn Seek| file.rewind().map_err(|e| IndexError(e.to_string()));
        json::refuse_duplicates(BufReader::new(&mut file)).map_err(|e| IndexError(e.to_string()))?;
        again(&mut file)?;
        refuse_other_versions(BufReader::new(&mut file))?;
        again(&mut file)?;
        let index: WithoutAdvisories =
            serde_json::from_reader(BufReader::new(&mut file)).map_err(|e| IndexError(e.to_string()))?;
        let index = Index::from(index);
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

    /// Checks what types alone cannot: unique paths, none of which is a folder of another; extents that lie in the
    /// file, in order and without overlap; lengths that fit their encoding; a digest for every block; texts that can
    /// stand in a line.
    ///
    /// # Errors
    /// The first rule that is broken, with the member's path.
    pub fn validate(&self) -> Result<(), IndexError> {
        let fail = |path: &MemberPath, rule: &str| Err(IndexError(format!("member {path}: {rule}")));
        if !CREATED.contains(&self.created.0) {
            return Err(IndexError("it was not created in one of the years 1970 to 9999".into()));
        }
        for (source, advisories) in &self.advisories {
            let texts = advisories.iter().flat_map(|a| [&a.id, &a.severity]).chain([source]);
            if !texts.into_iter().all(|text| is_line(text)) {
                return Err(IndexError(format!("an advisory of source {source:?} has {CONTROL}")));
            }
        }
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
            if member.size > MAX_SIZE || extent.length > MAX_SIZE {
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
            if !member.package.iter().flat_map(Package::texts).all(is_line) {
                return fail(path, &format!("its package has {CONTROL}"));
            }
            if member.plain.is_some_and(|plain| plain.size > MAX_SIZE) {
                return fail(path, "its size is beyond 2^63");
            }
            if member.deltas().next().is_some() && (member.plain.is_none() || member.package.is_none()) {
                return fail(path, "a delta leads to the plain form of a package, and there is none");
            }
            free_from = end;
        }
        for (member, delta) in self.deltas() {
            let path = &delta.path;
            if !paths.insert(path.as_str()) {
                return fail(path, "listed twice");
            }
            if !Entry::fits(path) {
                return fail(path, "its directory is too long for a tar header (155 bytes)");
            }
            if delta.size > MAX_SIZE || delta.base.size > MAX_SIZE {
                return fail(path, "its size is beyond 2^63");
            }
            if delta.length != Entry::new(path, delta.size, self.created).stored_length() {
                return fail(path, "its length is not that of a stored member of its size");
            }
            let Some(end) = delta.offset.checked_add(delta.length).filter(|end| *end <= self.bundle.length)
            else {
                return fail(path, "its extent ends behind the bundle file");
            };
            if delta.offset < free_from {
                return fail(path, "its extent overlaps what is before it");
            }
            let blocks = if delta.size > BLOCK { delta.size.div_ceil(BLOCK) } else { 0 };
            if delta.blocks.len() as u64 != blocks {
                return fail(path, "it does not have one digest for each block");
            }
            let base = &delta.base;
            if ![&base.name, &base.arch, &base.version].into_iter().all(|text| is_line(text)) {
                return fail(&member.path, &format!("its delta has {CONTROL}"));
            }
            free_from = end;
        }
        // Staged as files, one of the two could not be there.
        let all = self.members.iter().map(|member| &member.path);
        let folders = all.chain(self.deltas().map(|(_, delta)| &delta.path)).flat_map(|path| {
            path.as_str().match_indices('/').map(move |(end, _)| (path, &path.as_str()[..end]))
        });
        for (path, folder) in folders {
            if paths.contains(folder) {
                return fail(path, &format!("member {folder} is a file, and would be its folder"));
            }
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

    /// All that stands in the bundle file, in its order: the members, then the patches.
    pub fn entries(&self) -> impl Iterator<Item = Cow<'_, Member>> {
        let patches = self.deltas().map(|(_, delta)| Cow::Owned(delta.patch()));
        self.members.iter().map(Cow::Borrowed).chain(patches)
    }

    /// The deltas in the order of the file, each with the member that it leads to.
    pub fn deltas(&self) -> impl Iterator<Item = (&Member, &Delta)> {
        self.members.iter().flat_map(|member| member.deltas().map(move |delta| (member, delta)))
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
    use proptest::prelude::*;

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
            plain: None,
        }
    }

    /// An index whose first member can be made of two older versions.
    fn with_deltas() -> Index {
        let mut index = index();
        index.members[0].plain = Some(Plain { size: 4096, sha256: Sha256::of(b"plain") });
        for (n, size) in [300, BLOCK + 1].into_iter().enumerate() {
            let path: MemberPath = format!("delta/a_{n}.delta").parse().unwrap();
            let length = Entry::new(&path, size, index.created).stored_length();
            let delta = Delta {
                path,
                offset: index.bundle.length,
                length,
                size,
                sha256: Sha256::of(b"patch"),
                blocks: if size > BLOCK { vec![Sha256::of(b"b"); 2] } else { vec![] },
                base: DeltaBase {
                    name: "openssl".into(),
                    arch: "amd64".into(),
                    version: format!("1:3.0.{n}-1"),
                    size: 9000,
                    sha256: Sha256::of(b"base"),
                },
            };
            index.bundle.length += length;
            index.members[0].sources.push(Source::Delta(Box::new(delta)));
        }
        index
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
        let for_node = Index { advisories: BTreeMap::new(), ..index() };
        assert_eq!(Index::read_for_node(std::io::Cursor::new(golden)).unwrap(), for_node);
    }

    #[test]
    fn an_unknown_source_is_passed_over() {
        let text = String::from_utf8(index().to_bytes().unwrap()).unwrap();
        let text = text.replacen("\"sources\":[", "\"sources\":[{\"kind\":\"torrent\",\"base\":\"1\"},", 1);
        assert_eq!(Index::parse(text.as_bytes()).unwrap().members[0].whole(), index().members[0].whole());
    }

    #[test]
    fn deltas_are_read_back_and_none_that_is_not_right_is() {
        let good = with_deltas();
        let golden = include_bytes!("../tests/data/index-v1-deltas.json");
        let written = good.to_bytes().unwrap();
        assert_eq!(String::from_utf8_lossy(&written), String::from_utf8_lossy(golden).trim_end());
        assert_eq!(Index::parse(golden).unwrap(), good);
        let paths: Vec<_> = good.deltas().map(|(m, d)| (m.path.as_str(), d.path.as_str())).collect();
        assert_eq!(paths, [("pool/a_1_all.deb", "delta/a_0.delta"), ("pool/a_1_all.deb", "delta/a_1.delta")]);
        type Break = fn(&mut Delta);
        let cases: [(&str, Break); 8] = [
            ("overlaps", |d| d.offset = 0),
            ("behind", |d| d.offset = u64::MAX),
            ("stored member", |d| d.size += 512),
            ("2^63", |d| d.size = u64::MAX),
            ("2^63", |d| d.base.size = u64::MAX),
            ("each block", |d| d.blocks.push(Sha256::of(b"more"))),
            ("control", |d| d.base.version = "1\n2".into()),
            ("twice", |d| d.path = "pool/b_1_all.deb".parse().unwrap()),
        ];
        for (words, break_it) in cases {
            let mut bad = with_deltas();
            let Some(Source::Delta(delta)) = bad.members[0].sources.get_mut(1) else { panic!() };
            break_it(delta);
            let error = bad.validate().unwrap_err().to_string();
            assert!(error.contains(words), "{words}: {error}");
        }
        let mut bad = with_deltas();
        bad.members[0].plain = None;
        assert!(bad.validate().unwrap_err().to_string().contains("plain form"));
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
        let cases: [(&str, &str, Break); 10] = [
            ("overlap", "overlaps", |i| i.members[1].sources = i.members[0].sources.clone()),
            ("overflow", "2^64", |i| {
                i.members[1].sources =
                    vec![Source::Whole { offset: u64::MAX, length: 2, encoding: Encoding::Deflate }]
            }),
            ("behind the end", "behind", |i| i.bundle.length = 10),
            ("lying length", "stored member", |i| i.members[0].size += 512),
            ("missing block digests", "each block", |i| i.members[1].blocks.clear()),
            ("twice", "twice", |i| i.members[1].path = i.members[0].path.clone()),
            ("a file that would be a folder", "folder", |i| i.members[1].path = "pool".parse().unwrap()),
            ("a year of five digits", "1970 to 9999", |i| i.created = UnixTime(253_402_300_800)),
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

    #[test]
    fn a_text_that_would_forge_a_log_line_or_a_terminal_command_is_refused() {
        type Break = fn(&mut Index, String);
        let cases: [(&str, Break); 4] = [
            ("version", |i, text| i.members[0].package.as_mut().unwrap().version = text),
            ("origin", |i, text| i.members[1].package.as_mut().unwrap().origin = text),
            ("advisory", |i, text| i.advisories.values_mut().next().unwrap()[0].id = text),
            ("source", |i, text| i.advisories = BTreeMap::from([(text, vec![])])),
        ];
        for (name, break_it) in cases {
            for text in ["1\n2", "\u{1b}[2J", "\0", "\u{9b}2J", "\u{7f}"] {
                let mut bad = index();
                break_it(&mut bad, text.into());
                // Refused when it is written, and by a reader whom that writer did not ask.
                assert!(bad.to_bytes().unwrap_err().to_string().contains("control"), "{name} {text:?}");
                assert!(Index::parse(&serde_json::to_vec(&bad).unwrap()).is_err(), "{name} {text:?}");
            }
        }
    }

    fn any_text() -> impl Strategy<Value = String> {
        "[^\\p{Cc}]{0,12}"
    }

    prop_compose! {
        fn any_package()(
            name in any_text(), epoch in any::<u32>(), version in any_text(), release in any_text(),
            arch in any_text(), source in any_text(), origin in any_text(),
        ) -> Package {
            Package { name, epoch, version, release, arch, source, origin }
        }
    }

    /// What a member is besides its place: content, package or not, stored or not, gap in front of it, deflated length.
    fn any_content() -> impl Strategy<Value = (u64, Option<Package>, bool, u64, u64)> {
        let size = prop_oneof![0..3 * BLOCK, Just(BLOCK), Just(BLOCK + 1), Just(0)];
        (size, prop::option::of(any_package()), any::<bool>(), 0..100u64, 0..u64::MAX / 100)
    }

    prop_compose! {
        fn any_index()(
            contents in prop::collection::vec(any_content(), 0..12),
            advisories in prop::collection::btree_map(any_text(), prop::collection::vec((any_text(), any_text()), 0..3), 0..3),
            created in CREATED,
            apt in any::<bool>(),
            extra in 0..1000u64,
            unknown in any::<bool>(),
        ) -> Index {
            let mut index = index();
            index.created = UnixTime(created);
            index.family = if apt { Family::Apt } else { Family::Rpm };
            index.advisories = advisories
                .into_iter()
                .map(|(source, list)| {
                    (source, list.into_iter().map(|(id, severity)| Advisory { id, severity }).collect())
                })
                .collect();
            let mut end = 0;
            index.members = Vec::new();
            for (n, (size, package, stored, gap, deflated)) in contents.into_iter().enumerate() {
                let mut member = member(&format!("pool/{n}.deb"), end + gap, size);
                member.kind = if package.is_some() { MemberKind::Package } else { MemberKind::Metadata };
                member.package = package;
                let (encoding, length) = if stored {
                    (Encoding::Stored, index.entry(&member).stored_length())
                } else {
                    (Encoding::Deflate, deflated)
                };
                member.sources = vec![Source::Whole { offset: end + gap, length, encoding }];
                if unknown {
                    member.sources.insert(0, Source::Unknown);
                }
                end += gap + length;
                index.members.push(member);
            }
            index.bundle.length = end + extra;
            index
        }
    }

    proptest! {
        #[test]
        fn any_valid_index_is_read_back_as_it_was_written(index in any_index()) {
            let written = index.to_bytes().unwrap();
            let read = Index::parse(&written).unwrap();
            prop_assert_eq!(&read, &index);
            prop_assert_eq!(read.to_bytes().unwrap(), written);
        }
    }
}
