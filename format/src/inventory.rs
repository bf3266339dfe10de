//! Which packages a node has, in which versions: the value that a plan starts from and a success is proved by.
//!
//! How it is read from dpkg or rpm belongs to the agent; here is what both sides compare.

use std::collections::BTreeMap;

use crate::digest::{Hasher, Sha256};

/// Name and architecture of an installed package. Two architectures of one name are two packages.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackageId {
    /// Name.
    pub name: String,
    /// Architecture.
    pub arch: String,
}

/// The installed packages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory(pub BTreeMap<PackageId, String>);

/// One change that a plan makes and a report tells.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PackageChange {
    /// Name.
    pub name: String,
    /// Architecture.
    pub arch: String,
    /// Version before; absent for a new package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Version after; absent for a package that goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

impl Inventory {
    /// This inventory after `changes`.
    pub fn after(&self, changes: &[PackageChange]) -> Inventory {
        let mut out = self.clone();
        for change in changes {
            let id = PackageId {
                name: change.name.clone(),
                arch: change.arch.clone(),
            };
            match &change.to {
                Some(version) => out.0.insert(id, version.clone()),
                None => out.0.remove(&id),
            };
        }
        out
    }

    /// The changes that lead from this inventory to `later`, sorted by name.
    pub fn changes_to(&self, later: &Inventory) -> Vec<PackageChange> {
        let mut ids: Vec<&PackageId> = self.0.keys().chain(later.0.keys()).collect();
        ids.sort();
        ids.dedup();
        ids.into_iter()
            .map(|id| (id, self.0.get(id), later.0.get(id)))
            .filter(|(_, from, to)| from != to)
            .map(|(id, from, to)| PackageChange {
                name: id.name.clone(),
                arch: id.arch.clone(),
                from: from.cloned(),
                to: to.cloned(),
            })
            .collect()
    }

    /// A digest of the whole inventory: equal for two nodes exactly when they have the same packages.
    pub fn digest(&self) -> Sha256 {
        let mut hasher = Hasher::new();
        for (id, version) in &self.0 {
            // None of the three can hold a space or a newline, so lines cannot run into each other.
            hasher.update(format!("{} {} {version}\n", id.name, id.arch).as_bytes());
        }
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory(list: &[(&str, &str)]) -> Inventory {
        Inventory(
            list.iter()
                .map(|(n, v)| {
                    (
                        PackageId {
                            name: (*n).into(),
                            arch: "amd64".into(),
                        },
                        (*v).into(),
                    )
                })
                .collect(),
        )
    }

    #[test]
    fn changes_lead_from_one_inventory_to_the_other() {
        let before = inventory(&[("a", "1"), ("b", "1"), ("c", "1")]);
        let after = inventory(&[("a", "1"), ("b", "2"), ("d", "1")]);
        let changes = before.changes_to(&after);
        assert_eq!(changes.len(), 3);
        assert_eq!(before.after(&changes), after);
        assert_eq!(before.after(&changes).digest(), after.digest());
        assert_ne!(before.digest(), after.digest());
    }
}
