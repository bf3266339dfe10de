//! What rpm's database holds, read from what `rpm -qa` prints.

use std::collections::{BTreeMap, BTreeSet};

use format::inventory::{Inventory, PackageId};

use super::plan::Entry;

/// One line for each package, in every rpm since EL6 (`EPOCHNUM` is younger).
pub(super) const QUERY: &str = "%{NAME}\\t%{ARCH}\\t%|EPOCH?{%{EPOCH}}:{0}|:%{VERSION}-%{RELEASE}\\n";

/// What rpm's database holds: of some packages more than one version, and of one that is to be removed none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Packages(pub(super) BTreeMap<PackageId, BTreeSet<String>>);

impl Packages {
    pub(super) fn has(&self, entry: &Entry) -> bool {
        self.0.get(&entry.id()).is_some_and(|versions| versions.contains(&entry.evr()))
    }

    /// Names of those with more than one version.
    pub(super) fn twice(&self) -> BTreeSet<String> {
        self.0.iter().filter(|(_, versions)| versions.len() > 1).map(|(id, _)| id.name.clone()).collect()
    }

    /// As the fleet compares it: several versions of one package are one version text, joined by commas.
    pub(super) fn inventory(&self) -> Inventory {
        let join =
            |versions: &BTreeSet<String>| versions.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        let there = self.0.iter().filter(|(_, versions)| !versions.is_empty());
        Inventory(there.map(|(id, versions)| (id.clone(), join(versions))).collect())
    }
}

/// Reads what [`QUERY`] prints. Keys in the keyring look like packages and are none.
pub(super) fn parse_inventory(text: &str) -> Packages {
    let mut packages = Packages::default();
    for line in text.lines() {
        let mut fields = line.split('\t');
        if let (Some(name), Some(arch), Some(evr)) = (fields.next(), fields.next(), fields.next())
            && name != "gpg-pubkey"
        {
            let id = PackageId { name: name.to_owned(), arch: arch.to_owned() };
            packages.0.entry(id).or_default().insert(canonical(evr));
        }
    }
    packages
}

/// An epoch of 0 may be written or left out.
pub(super) fn canonical(evr: &str) -> String {
    evr.strip_prefix("0:").unwrap_or(evr).to_owned()
}

/// What dnf takes for a package of which more than one version may be installed (its default `installonlypkgs`).
pub(super) fn is_install_only(provided: &str) -> bool {
    let base = provided.split('(').next().unwrap_or(provided);
    matches!(base, "kernel" | "kernel-PAE" | "installonlypkg" | "multiversion")
        || base.starts_with("kernel-uname")
}
