//! Which packages a node has, in which versions: the value that a plan starts from and a success is proved by.
//!
//! How it is read from dpkg or rpm belongs to the agent; here is what both sides compare.

use std::collections::BTreeMap;

use crate::digest::Sha256;

/// Name and architecture of an installed package. Two architectures of one name are two packages.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackageId {
    /// Name.
    pub name: String,
    /// Architecture.
    pub arch: String,
}

/// The installed packages, each with its version; with all of them, joined by commas, where more than one is installed
/// (kernels of an RPM node).
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
            let id = PackageId { name: change.name.clone(), arch: change.arch.clone() };
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

    /// One line for each package: `NAME ARCH VERSION`, none of which can hold a space or a newline.
    pub fn to_text(&self) -> String {
        self.0.iter().map(|(id, version)| format!("{} {} {version}\n", id.name, id.arch)).collect()
    }

    /// Reads [`Inventory::to_text`]; lines of another form are passed over.
    pub fn from_text(text: &str) -> Inventory {
        let packages = text.lines().filter_map(|line| {
            let mut fields = line.split(' ');
            let (name, arch, version) = (fields.next()?, fields.next()?, fields.next()?);
            Some((PackageId { name: name.to_owned(), arch: arch.to_owned() }, version.to_owned()))
        });
        Inventory(packages.collect())
    }

    /// A digest of the whole inventory: equal for two nodes exactly when they have the same packages.
    pub fn digest(&self) -> Sha256 {
        Sha256::of(self.to_text().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory(list: &[(&str, &str)]) -> Inventory {
        Inventory(
            list.iter()
                .map(|(n, v)| (PackageId { name: (*n).into(), arch: "amd64".into() }, (*v).into()))
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
        assert_eq!(Inventory::from_text(&after.to_text()), after);
    }
}
