//! Inventories: what nodes have installed, as a dpkg status file or as a plain list of packages.
//!
//! apt resolves against a status file. For a plain list one is made: each package as installed, with the version that
//! the list names (or the lowest possible, so that the archive's is an update), with what the archive says it
//! *provides*, but without what it needs and refuses: those may have changed since its version, and a wrong guess
//! would have apt call the node broken. Of what is installed only the versions matter for finding updates.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use format::digest::Sha256;

use super::control::{Stanza, for_each_stanza};
use super::version;
use crate::error::{During, Error, Kind, Result};

/// The status file of a full desktop is about 5 MiB.
const MAX_FILE: u64 = 256 * 1024 * 1024;

/// Lower than every version of a distribution: what a list without versions means.
pub const UNKNOWN_VERSION: &str = "0~~";

/// A package in a plain list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Name.
    pub name: String,
    /// Architecture, where the list names it.
    pub arch: Option<String>,
    /// Version, where the list names it.
    pub version: Option<String>,
}

/// What an inventory file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A dpkg status file, as it is.
    Status(String),
    /// A plain list.
    List(Vec<Listed>),
}

/// An inventory file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InventoryFile {
    /// Where it was.
    pub path: PathBuf,
    /// File name, for people and for the collection.
    pub name: String,
    /// Digest of the file.
    pub sha256: Sha256,
    /// What it holds.
    pub content: Content,
}

impl InventoryFile {
    /// Reads an inventory of either kind.
    ///
    /// # Errors
    /// If it is neither.
    pub fn read(path: &Path) -> Result<Self> {
        let what = "the inventory cannot be used";
        let wrong = |why: String| Error::new(Kind::Config, what, format!("{}: {why}", path.display()));
        let bytes = host::file::read_limited(path, MAX_FILE)
            .during(what)?
            .ok_or_else(|| wrong("there is no such file".into()))?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let is_status =
            text.lines().find(|l| !l.trim().is_empty()).is_some_and(|l| l.starts_with("Package:"));
        let content =
            if is_status { Content::Status(text) } else { Content::List(parse_list(&text).map_err(wrong)?) };
        Ok(InventoryFile {
            path: path.to_owned(),
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            sha256: Sha256::of(&bytes),
            content,
        })
    }

    /// The architectures that it names, `all` apart.
    pub fn architectures(&self) -> BTreeSet<String> {
        let mut out = BTreeSet::new();
        match &self.content {
            Content::List(list) => out.extend(list.iter().filter_map(|l| l.arch.clone())),
            Content::Status(text) => {
                out.extend(installed(text).into_iter().map(|i| i.arch));
            }
        }
        out.remove("all");
        out
    }
}

/// An installed package, as a status file tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Name.
    pub name: String,
    /// Architecture.
    pub arch: String,
    /// Source package.
    pub source: String,
    /// Its version.
    pub source_version: String,
}

/// The installed packages of a status file.
pub fn installed(status: &str) -> Vec<Installed> {
    let mut out = Vec::new();
    // A reader of memory and a closure that does not fail: no error can come.
    let _ = for_each_stanza(&mut status.as_bytes(), &mut |text| {
        let stanza = Stanza::parse(text);
        let state = stanza.field("Status").unwrap_or_default();
        if let (Some(name), Some(arch)) = (stanza.field("Package"), stanza.field("Architecture"))
            && state.ends_with(" installed")
        {
            let (source, source_version) = source_of(&stanza);
            out.push(Installed { name: name.to_owned(), arch: arch.to_owned(), source, source_version });
        }
        Ok(())
    });
    out
}

/// Source package and its version; a field `Source: NAME (VERSION)` only stands where they differ.
pub fn source_of(stanza: &Stanza) -> (String, String) {
    let own = |field| stanza.field(field).unwrap_or_default().to_owned();
    match stanza.field("Source").map(|s| s.split_once(" (").unwrap_or((s, ""))) {
        None => (own("Package"), own("Version")),
        Some((name, "")) => (name.to_owned(), own("Version")),
        Some((name, version)) => (name.to_owned(), version.trim_end_matches(')').to_owned()),
    }
}

/// For each source package the oldest version that any of the inventories has.
pub fn oldest_sources<'s>(statuses: impl Iterator<Item = &'s str>) -> BTreeMap<String, String> {
    let mut oldest: BTreeMap<String, String> = BTreeMap::new();
    for package in statuses.flat_map(installed) {
        let known = oldest.entry(package.source).or_insert_with(|| package.source_version.clone());
        if version::compare(&package.source_version, known).is_lt() {
            *known = package.source_version;
        }
    }
    oldest
}

/// The status file of a plain list. `known` gives the stanza of the archive for a name and architecture: that of the
/// listed version if the archive has it, else the newest.
pub fn synthesise(list: &[Listed], architecture: &str, known: &dyn Fn(&Listed) -> Option<Stanza>) -> String {
    let mut out = String::new();
    for listed in list {
        let mut stanza = known(listed).unwrap_or_default();
        for field in [
            "Depends",
            "Pre-Depends",
            "Recommends",
            "Suggests",
            "Enhances",
            "Conflicts",
            "Breaks",
            "Replaces",
            "Filename",
            "Size",
            "MD5sum",
            "SHA1",
            "SHA256",
            "SHA512",
            "Description",
            "Description-md5",
            "Tag",
        ] {
            stanza.remove(field);
        }
        let mut status = Stanza::default();
        status.set("Package", &listed.name);
        status.set("Status", "install ok installed");
        let mut text = status.to_string();
        stanza.remove("Package");
        if stanza.field("Architecture").is_none() {
            stanza.set("Architecture", listed.arch.as_deref().unwrap_or(architecture));
        }
        let version = listed.version.as_deref().unwrap_or(UNKNOWN_VERSION);
        stanza.set("Version", version);
        for (field, value) in [("Maintainer", "unknown"), ("Description", "listed in an inventory")] {
            if stanza.field(field).is_none() {
                stanza.set(field, value);
            }
        }
        text.push_str(&stanza.to_string());
        out.push_str(&text);
        out.push('\n');
    }
    out
}

fn parse_list(text: &str) -> std::result::Result<Vec<Listed>, String> {
    let mut out = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let bad = || {
            format!(
                "line {}: {line:?} is not \"name\", \"name:arch\" or one of them and a version",
                number + 1
            )
        };
        let mut words = line.split_whitespace();
        let (package, version) = (words.next().ok_or_else(bad)?, words.next());
        let (name, arch) = match package.split_once(':') {
            Some((name, arch)) => (name, Some(arch)),
            None => (package, None),
        };
        let is_word =
            |w: &str| !w.is_empty() && w.bytes().all(|c| c.is_ascii_alphanumeric() || b".+-~:".contains(&c));
        if words.next().is_some() || ![Some(name), arch, version].into_iter().flatten().all(is_word) {
            return Err(bad());
        }
        out.push(Listed {
            name: name.to_owned(),
            arch: arch.map(str::to_owned),
            version: version.map(str::to_owned),
        });
    }
    out.sort();
    out.dedup();
    if out.is_empty() {
        return Err("it lists no package".into());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_list_may_name_architecture_and_version() {
        let list = parse_list("# kiosk\nbash\nlibc6:i386 2.36-9\ncurl 7.88\n").unwrap();
        assert_eq!(list.len(), 3);
        assert_eq!(list[2].arch.as_deref(), Some("i386"));
        assert_eq!(list[1].version.as_deref(), Some("7.88"));
        for bad in ["", "a b c", "bash;rm", "x: y z"] {
            assert!(parse_list(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_list_becomes_a_status_file_that_needs_nothing() {
        let list = parse_list("bash\n").unwrap();
        let stanza =
            Stanza::parse("Package: bash\nVersion: 5\nArchitecture: amd64\nDepends: x\nProvides: sh\n");
        let status = synthesise(&list, "amd64", &|_| Some(stanza.clone()));
        let installed = installed(&status);
        assert_eq!((installed.len(), installed[0].source_version.as_str()), (1, UNKNOWN_VERSION));
        assert!(status.contains("Provides: sh") && !status.contains("Depends"));
    }

    #[test]
    fn only_what_is_installed_counts_and_sources_have_their_own_version() {
        let status = "Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1+b1\nSource: s (1)\n\n\
                      Package: b\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n\n\
                      Package: c\nStatus: hold ok installed\nArchitecture: all\nVersion: 2\nSource: s (0.9)\n";
        assert_eq!(oldest_sources([status].into_iter()), BTreeMap::from([("s".into(), "0.9".into())]));
    }
}
