//! Which older versions a package is compared with: those that are there, and of these the ones that nodes have.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use format::digest::Sha256;

use super::WHAT;
use super::deb::Fields;
use super::patch::pattern;
use crate::collect::control::{Stanza, for_each_stanza};
use crate::collect::inventory::{Content, InventoryFile};
use crate::collect::{Collected, CollectedPackage, version};
use crate::error::{AtPath, Result};

/// An older package, and its file.
#[derive(Clone, Debug)]
pub struct Base {
    /// Which.
    pub deb: Fields,
    /// Where.
    pub file: PathBuf,
}

impl Base {
    /// The digest of its file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn sha256(&self) -> Result<Sha256> {
        let mut file = fs::File::open(&self.file).at(WHAT, &self.file)?;
        Ok(Sha256::of_reader(&mut file).at(WHAT, &self.file)?.0)
    }
}

/// What the nodes have installed: name, architecture and version, and on how many nodes.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    /// Each node's packages: name and architecture → version.
    pub nodes: Vec<BTreeMap<(String, String), String>>,
}

impl Fleet {
    /// Reads inventories: dpkg status files or lists.
    ///
    /// # Errors
    /// If one is neither.
    pub fn read(paths: &[PathBuf], architecture: &str) -> Result<Fleet> {
        let mut nodes = Vec::new();
        for path in paths {
            nodes.push(match InventoryFile::read(path)?.content {
                Content::Status(text) => of_status(&text),
                Content::List(list) => list
                    .into_iter()
                    .filter_map(|l| {
                        Some(((l.name, l.arch.unwrap_or_else(|| architecture.to_owned())), l.version?))
                    })
                    .collect(),
            });
        }
        Ok(Fleet { nodes })
    }

    /// On how many nodes exactly this is installed.
    pub fn count(&self, deb: &Fields) -> usize {
        let key = (deb.name.clone(), deb.arch.clone());
        self.nodes.iter().filter(|node| node.get(&key) == Some(&deb.version)).count()
    }
}

fn of_status(text: &str) -> BTreeMap<(String, String), String> {
    let mut out = BTreeMap::new();
    // A reader of memory and a closure that does not fail: no error can come.
    let _ = for_each_stanza(&mut text.as_bytes(), &mut |text| {
        let stanza = Stanza::parse(text);
        let field = |name| stanza.field(name).map(str::to_owned);
        if field("Status").is_some_and(|status| status.ends_with(" installed"))
            && let (Some(name), Some(arch), Some(version)) =
                (field("Package"), field("Architecture"), field("Version"))
        {
            out.insert((name, arch), version);
        }
        Ok(())
    });
    out
}

/// Whether one package may follow another: the same name, or the same but for its numbers (a kernel is called after its
/// version), of the same architecture.
pub fn may_follow(new: (&str, &str), old: (&str, &str)) -> bool {
    new.1 == old.1 && (new.0 == old.0 || pattern(new.0.as_bytes()) == pattern(old.0.as_bytes()))
}

/// The packages in these folders, or in the pool of collections there, that something in `collected` may follow.
///
/// # Errors
/// If a folder cannot be listed, or a package is none.
pub fn find(folders: &[PathBuf], collected: &Collected) -> Result<Vec<Base>> {
    let wanted: BTreeSet<Vec<u8>> =
        collected.packages.iter().map(|package| pattern(package.name.as_bytes())).collect();
    let mut out = Vec::new();
    for folder in folders {
        let pool = folder.join("pool");
        for file in list(if pool.is_dir() { &pool } else { folder })? {
            // By the name of the file first: a folder may be a whole archive, and each look inside costs a process.
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let name = name.split('_').next().unwrap_or_default();
            if wanted.contains(&pattern(name.as_bytes())) {
                out.push(Base { deb: Fields::of(&file)?, file });
            }
        }
    }
    out.sort_by(|a, b| (&a.deb.name, &a.deb.arch, &a.file).cmp(&(&b.deb.name, &b.deb.arch, &b.file)));
    out.dedup_by(|a, b| a.deb == b.deb);
    Ok(out)
}

fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut out = Vec::new();
    for entry in fs::read_dir(folder).at(WHAT, folder)? {
        let path = entry.at(WHAT, folder)?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            out.push(path);
        }
    }
    out.sort();
    Ok(out)
}

/// The bases of one package, at most `limit`: those that most nodes have, and without inventories the newest.
pub fn choose(target: &CollectedPackage, found: &[Base], fleet: &Fleet, limit: usize) -> Vec<Base> {
    let mut bases: Vec<(usize, &Base)> = found
        .iter()
        .filter(|base| {
            let same = (&base.deb.name, &base.deb.version) == (&target.name, &target.version);
            !same && may_follow((&target.name, &target.arch), (&base.deb.name, &base.deb.arch))
        })
        .filter(|base| {
            base.deb.name != target.name || version::compare(&base.deb.version, &target.version).is_lt()
        })
        .map(|base| (fleet.count(&base.deb), base))
        .filter(|(nodes, _)| fleet.nodes.is_empty() || *nodes > 0)
        .collect();
    bases.sort_by(|(a_nodes, a), (b_nodes, b)| {
        let same_name = |base: &Base| base.deb.name == target.name;
        b_nodes
            .cmp(a_nodes)
            .then_with(|| same_name(b).cmp(&same_name(a)))
            .then_with(|| version::compare(&b.deb.version, &a.deb.version))
    });
    bases.into_iter().take(limit).map(|(_, base)| base.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(name: &str, version: &str) -> Base {
        let deb = Fields { name: name.into(), version: version.into(), arch: "amd64".into() };
        Base { deb, file: PathBuf::from(format!("{name}_{version}")) }
    }

    fn target(name: &str, version: &str) -> CollectedPackage {
        CollectedPackage {
            file: format!("{name}_{version}_amd64.deb"),
            name: name.into(),
            version: version.into(),
            arch: "amd64".into(),
            source: name.into(),
            source_version: version.into(),
            origin: "Debian:bookworm".into(),
            size: 1,
            sha256: Sha256::of(b"x"),
            advisories: Vec::new(),
            stanza: String::new(),
            files: String::new(),
        }
    }

    fn node(packages: &[(&str, &str)]) -> BTreeMap<(String, String), String> {
        packages.iter().map(|(n, v)| (((*n).into(), "amd64".into()), (*v).into())).collect()
    }

    fn chosen(target: &CollectedPackage, found: &[Base], fleet: &Fleet, limit: usize) -> Vec<String> {
        choose(target, found, fleet, limit).into_iter().map(|base| base.deb.version).collect()
    }

    #[test]
    fn the_bases_that_most_nodes_have_are_chosen_and_none_that_is_newer() {
        let found =
            [base("app", "1"), base("app", "2"), base("app", "3"), base("app", "5"), base("other", "1")];
        let new = target("app", "4");
        assert_eq!(chosen(&new, &found, &Fleet::default(), 2), ["3", "2"]);
        let fleet = Fleet {
            nodes: vec![node(&[("app", "1")]), node(&[("app", "1")]), node(&[("app", "3"), ("b", "1")])],
        };
        assert_eq!(chosen(&new, &found, &fleet, 3), ["1", "3"]);
        assert_eq!(chosen(&new, &found, &fleet, 1), ["1"]);
    }

    #[test]
    fn a_kernel_follows_the_one_before_whose_name_is_another() {
        let found = [base("linux-image-6.1.0-37-amd64", "6.1.140-1"), base("linux-image-amd64", "6.1.140-1")];
        let new = target("linux-image-6.1.0-40-amd64", "6.1.153-1");
        assert_eq!(chosen(&new, &found, &Fleet::default(), 3), ["6.1.140-1"]);
        assert!(!may_follow(("a1", "amd64"), ("a2", "i386")));
    }
}
