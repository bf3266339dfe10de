//! What dnf would do, as the planners say it, and what that means for the node: pure.

use format::digest::Sha256;
use format::inventory::PackageId;

use super::database::{Packages, canonical};
use crate::packages::{Resolution, WantedFile};

/// What the planner says.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Plan {
    pub(super) install: Vec<Entry>,
    pub(super) remove: Vec<Entry>,
    pub(super) kept_back: Vec<(String, String)>,
}

/// A package that comes or goes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Entry {
    name: String,
    epoch: u32,
    version: String,
    release: String,
    arch: String,
    installed_size: u64,
    /// The digest of the file; of a package that comes.
    #[serde(default)]
    sha256: String,
}

impl Entry {
    /// As rpm takes it on the command line: unlike dnf, with no epoch in front of the version.
    pub(super) fn nvra(&self) -> String {
        format!("{}-{}-{}.{}", self.name, self.version, self.release, self.arch)
    }

    pub(super) fn id(&self) -> PackageId {
        PackageId { name: self.name.clone(), arch: self.arch.clone() }
    }

    pub(super) fn evr(&self) -> String {
        canonical(&format!("{}:{}-{}", self.epoch, self.version, self.release))
    }

    /// As rpm and dnf take it on the command line.
    pub(super) fn nevra(&self) -> String {
        format!("{}-{}:{}-{}.{}", self.name, self.epoch, self.version, self.release, self.arch)
    }
}

/// A transaction that was begun, on the disk until it has ended: rpm marks no package as half-configured, so this is how
/// the next run knows what to do again.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct Begun {
    /// Digest of the repository's repomd.xml.
    pub(super) repo: Sha256,
    pub(super) plan: Plan,
}

/// What a plan means for a node that has `installed`.
pub(super) fn resolution(plan: &Plan, installed: &Packages) -> std::result::Result<Resolution, String> {
    let mut after = installed.clone();
    let (mut growth, mut shrink, mut largest) = (0u64, 0u64, 0u64);
    for entry in &plan.remove {
        if let Some(versions) = after.0.get_mut(&entry.id()) {
            versions.remove(&entry.evr());
        }
        shrink = shrink.saturating_add(entry.installed_size);
    }
    let mut files = Vec::new();
    for entry in &plan.install {
        after.0.entry(entry.id()).or_default().insert(entry.evr());
        growth = growth.saturating_add(entry.installed_size);
        largest = largest.max(entry.installed_size);
        let digest = entry.sha256.parse();
        let sha256 =
            digest.map_err(|_| format!("the bundle's repodata has no SHA-256 of {}", entry.nevra()))?;
        files.push(WantedFile { sha256, path: None });
    }
    Ok(Resolution {
        files,
        changes: installed.inventory().changes_to(&after.inventory()),
        disk_bytes: growth.saturating_sub(shrink).saturating_add(largest),
        kept_back: plan.kept_back.iter().map(|(name, why)| format!("{name}: {why}")).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packages::dnf::database::parse_inventory;

    fn entry(name: &str, version: &str, size: u64, digest: &str) -> Entry {
        Entry {
            name: name.into(),
            epoch: 0,
            version: version.into(),
            release: "1".into(),
            arch: "noarch".into(),
            installed_size: size,
            sha256: digest.into(),
        }
    }

    #[test]
    fn a_kernel_that_comes_beside_another_is_one_package_with_two_versions() {
        let installed =
            parse_inventory("kernel\tnoarch\t0:5-1\nold\tnoarch\t2:1-1\ngpg-pubkey\t(none)\t0:1-2\n");
        let digest = Sha256::of(b"kernel");
        let plan = Plan {
            install: vec![entry("kernel", "6", 70, &digest.to_string())],
            remove: vec![Entry { epoch: 2, ..entry("old", "1", 10, "") }],
            kept_back: vec![("held".into(), "why".into())],
        };
        let made = resolution(&plan, &installed).unwrap();
        assert_eq!(made.files, [WantedFile { sha256: digest, path: None }]);
        let changes: Vec<_> =
            made.changes.iter().map(|c| (c.name.as_str(), c.from.as_deref(), c.to.as_deref())).collect();
        assert_eq!(changes, [("kernel", Some("5-1"), Some("5-1,6-1")), ("old", Some("2:1-1"), None)]);
        assert_eq!((made.disk_bytes, made.kept_back), (60 + 70, vec!["held: why".into()]));
        assert!(resolution(&Plan { install: vec![entry("x", "1", 0, "md5")], ..plan }, &installed).is_err());
    }
}
