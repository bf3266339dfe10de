//! Collecting: from an upstream archive and inventories, exactly the packages that a bundle needs.
//!
//! What was collected is a folder with `collected.json` and `pool/`; a bundle is made from that alone, without a
//! network and on another machine if need be. How an archive is asked is its family's business ([`apt`], [`dnf`]).

pub mod advisories; // what a package repairs, from its changelog
pub mod apt; // Debian archives, by apt's own resolver
pub mod control; // stanzas
pub mod dnf; // RPM repositories, by dnf's own resolver
pub mod inventory; // what nodes have installed
pub mod run; // the order of a collection from Debian archives
pub mod sources; // sources.list files
pub mod version; // the order of Debian versions

use std::path::Path;

use format::API_VERSION;
use format::digest::Sha256;
use format::index::{Advisory, Family};
use format::name::Variant;
use format::time::UnixTime;

use crate::error::{During, Error, Kind, Result};

/// The `kind` of a collection.
pub const KIND: &str = "CollectedPackages";

/// The file that describes a collection.
pub const FILE: &str = "collected.json";

/// As large as 50,000 packages with their stanzas can be; more is not ours.
const MAX_FILE: u64 = 512 * 1024 * 1024;

/// A collection. Written in sorted order and without times or paths of this machine: same archive, same inventories,
/// same bytes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Collected {
    /// Always [`API_VERSION`].
    pub api_version: String,
    /// Always [`KIND`].
    pub kind: String,
    /// What it is for.
    pub variant: Variant,
    /// Which package manager it is for.
    pub family: Family,
    /// Main architecture, as the family spells it.
    pub architecture: String,
    /// When the newest of its sources was published upstream.
    pub created: UnixTime,
    /// Whether only security sources were asked for updates.
    pub security_only: bool,
    /// Where it comes from.
    pub releases: Vec<Release>,
    /// For whom it was resolved.
    pub inventories: Vec<ResolvedInventory>,
    /// Sorted by name, architecture, version.
    pub packages: Vec<CollectedPackage>,
    /// RPM: documents of module metadata (YAML) that say something of these packages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<String>,
}

/// An upstream release that was asked, as its Release file calls itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Release {
    /// Origin.
    pub origin: String,
    /// Label.
    pub label: String,
    /// Suite, such as `stable-security`.
    pub suite: String,
    /// Codename, such as `bookworm-security`.
    pub codename: String,
    /// When it was published.
    pub date: UnixTime,
}

impl Release {
    /// Whether it is a source of security updates.
    pub fn is_security(&self) -> bool {
        [&self.label, &self.suite, &self.codename]
            .iter()
            .any(|field| field.to_ascii_lowercase().contains("security"))
    }
}

/// What the resolver said for one inventory.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedInventory {
    /// File name, without its folder.
    pub name: String,
    /// Digest of the file.
    pub sha256: Sha256,
    /// How many packages it has.
    pub installed: usize,
    /// How many packages this inventory needs of the collection.
    pub needed: usize,
    /// Packages with an update that apt cannot install there: held, or its dependencies are not met.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept_back: Vec<String>,
    /// Packages that the updates would remove.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
}

/// One package.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CollectedPackage {
    /// File name in `pool/`, which is also its name in the bundle.
    pub file: String,
    /// Name.
    pub name: String,
    /// Whole version.
    pub version: String,
    /// Architecture.
    pub arch: String,
    /// Source package.
    pub source: String,
    /// Its version.
    pub source_version: String,
    /// `ORIGIN:CODENAME` of the release that it comes from.
    pub origin: String,
    /// Size in bytes.
    pub size: u64,
    /// As the upstream archive says it, and as verified.
    pub sha256: Sha256,
    /// What it repairs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub advisories: Vec<Advisory>,
    /// Debian: its stanza in the upstream Packages file. RPM: its element in primary.xml.
    pub stanza: String,
    /// RPM: its element in filelists.xml.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub files: String,
}

impl Collected {
    /// Reads the collection in `folder`.
    ///
    /// # Errors
    /// If there is none, or one of another version.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let what = "the collection cannot be read";
        let wrong =
            |why: &dyn std::fmt::Display| Error::new(Kind::Data, what, format!("{}: {why}", path.display()));
        let bytes = host::file::read_limited(&path, MAX_FILE)
            .during(what)?
            .ok_or_else(|| wrong(&"there is no such file").cure("make one with collect"))?;
        let collected: Collected = format::json::read(&bytes).map_err(|e| wrong(&e))?;
        if (collected.api_version.as_str(), collected.kind.as_str()) != (API_VERSION, KIND) {
            return Err(wrong(&format_args!(
                "it is a {:?} of version {:?}; this program reads {KIND} of {API_VERSION}",
                collected.kind, collected.api_version
            )));
        }
        Ok(collected)
    }

    /// Writes it into `folder`.
    ///
    /// # Errors
    /// If that fails.
    pub fn write(&self, folder: &Path) -> Result<()> {
        // Not canonical JSON, in which the newlines of stanzas would stand raw; but one order of fields all the same.
        let mut bytes = serde_json::to_vec_pretty(self)
            .map_err(|e| Error::new(Kind::Data, "the collection cannot be written", e))?;
        bytes.push(b'\n');
        host::file::replace(&folder.join(FILE), &bytes, 0o644).during("the collection cannot be written")
    }
}

/// The name of a package's file: `NAME_VERSION_ARCH.deb` without the epoch, whose colon no file name here may have.
pub fn file_name(name: &str, version: &str, arch: &str) -> String {
    let without_epoch = version.split_once(':').map_or(version, |(_, rest)| rest);
    format!("{name}_{without_epoch}_{arch}.deb")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Collected {
        let date = UnixTime(1_795_222_382);
        Collected {
            api_version: API_VERSION.into(),
            kind: KIND.into(),
            variant: "debian-12-amd64".parse().unwrap(),
            family: Family::Apt,
            architecture: "amd64".into(),
            created: date,
            security_only: true,
            releases: vec![Release {
                origin: "Debian".into(),
                label: "Debian-Security".into(),
                suite: "oldstable-security".into(),
                codename: "bookworm-security".into(),
                date,
            }],
            inventories: vec![ResolvedInventory {
                name: "kiosk.status".into(),
                sha256: Sha256::of(b"inventory"),
                installed: 619,
                needed: 1,
                kept_back: vec!["held".into()],
                removed: Vec::new(),
            }],
            packages: vec![CollectedPackage {
                file: file_name("openssl", "1:3.0.17-1", "amd64"),
                name: "openssl".into(),
                version: "1:3.0.17-1".into(),
                arch: "amd64".into(),
                source: "openssl".into(),
                source_version: "1:3.0.17-1".into(),
                origin: "Debian:bookworm-security".into(),
                size: 3,
                sha256: Sha256::of(b"deb"),
                advisories: vec![Advisory { id: "CVE-2026-0001".into(), severity: "high".into() }],
                stanza: "Package: openssl\nDescription: tool\n and more\n".into(),
                files: String::new(),
            }],
            modules: Vec::new(),
        }
    }

    #[test]
    fn version_1_of_the_format_stays_readable_and_writable() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/v1");
        let folder = tempfile::TempDir::new().unwrap();
        example().write(folder.path()).unwrap();
        let written = std::fs::read_to_string(folder.path().join(FILE)).unwrap();
        assert_eq!(written, std::fs::read_to_string(golden.join(FILE)).unwrap());
        assert_eq!(Collected::read(&golden).unwrap(), example());
    }

    #[test]
    fn another_version_is_named_and_refused() {
        let folder = tempfile::TempDir::new().unwrap();
        let mut newer = example();
        newer.api_version = "patchmgmt.io/v9".into();
        newer.write(folder.path()).unwrap();
        let error = Collected::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("patchmgmt.io/v9"), "{error}");
    }
}
