//! What publishing policies would change, in words that a person who approves it can judge.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use format::json::Json;
use format::name::BundleVersion;
use format::policy::PatchPolicy;
use serde::Serialize;

use super::fleet::Fleet;
use super::publication;
use crate::export::Published;

/// What becomes of one policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Which ([`PatchPolicy::id`]).
    pub policy: String,
    /// What.
    #[serde(flatten)]
    pub kind: ChangeKind,
    /// Of how many nodes, where the fleet's are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<Affected>,
}

/// How many nodes a change is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Affected {
    /// The policy's nodes, once it is published.
    pub selected: usize,
    /// Of these, nodes that it was not for before.
    pub joining: usize,
    /// Nodes that it was for and is not any more.
    pub leaving: usize,
}

impl Affected {
    fn of(fleet: Option<&Fleet>, before: Option<&PatchPolicy>, after: Option<&PatchPolicy>) -> Option<Self> {
        let names = |policy: Option<&PatchPolicy>| -> Option<BTreeSet<_>> {
            let Some(policy) = policy else { return Some(BTreeSet::new()) };
            Some(fleet?.matching(&policy.selector)?.into_iter().map(|(node, _)| node).collect())
        };
        let (before, after) = (names(before)?, names(after)?);
        fleet.filter(|fleet| matches!(fleet, Fleet::Nodes(_)))?;
        Some(Affected {
            selected: after.len(),
            joining: after.difference(&before).count(),
            leaving: before.difference(&after).count(),
        })
    }
}

/// What can become of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "change")]
pub enum ChangeKind {
    /// It is new.
    Added {
        /// Its bundle.
        bundle: BundleVersion,
    },
    /// It goes.
    Removed {
        /// The bundle that it was for.
        bundle: BundleVersion,
    },
    /// It says something else.
    Changed {
        /// What, at least one thing.
        fields: Vec<Field>,
    },
}

/// One thing that a policy says differently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Field {
    /// The path to it, such as `spec.schedule.maintenanceWindow`.
    pub at: String,
    /// What it said, if anything.
    pub before: Option<String>,
    /// What it says, if anything.
    pub after: Option<String>,
    /// The new bundle is older than the one before: nodes go back.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub rollback: bool,
}

/// Where a policy names its bundle.
const VERSION: &str = "spec.bundleRef.version";

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.policy)?;
        match &self.kind {
            ChangeKind::Added { bundle } => write!(f, "new, with bundle {bundle}"),
            ChangeKind::Removed { bundle } => {
                write!(f, "removed; it had bundle {bundle}, which its nodes keep")
            }
            ChangeKind::Changed { fields } => {
                for (n, field) in fields.iter().enumerate() {
                    f.write_str(if n > 0 { "; " } else { "" })?;
                    field.fmt(f)?;
                }
                Ok(())
            }
        }?;
        match (&self.nodes, &self.kind) {
            (None, _) => Ok(()),
            (Some(nodes), ChangeKind::Added { .. }) => write!(f, " ({} nodes)", nodes.selected),
            (Some(nodes), ChangeKind::Removed { .. }) => write!(f, " ({} nodes)", nodes.leaving),
            (Some(Affected { selected, joining: 0, leaving: 0 }), _) => write!(f, " ({selected} nodes)"),
            (Some(Affected { selected, joining, leaving }), _) => {
                write!(f, " ({selected} nodes: {joining} join, {leaving} leave)")
            }
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at.strip_prefix("spec.").unwrap_or(&self.at);
        let at = if self.at == VERSION { "bundle" } else { at };
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => write!(f, "{at} {before} → {after}")?,
            (None, Some(after)) => write!(f, "{at} {after} (new)")?,
            (Some(before), None) => write!(f, "{at} {before} (taken out)")?,
            (None, None) => f.write_str(at)?,
        }
        f.write_str(if self.rollback { " (ROLLBACK: an older bundle)" } else { "" })
    }
}

/// What `after` changes of `before`, by policy. Which bundle is older is told by the serials of `bundles`.
pub fn diff(
    before: &[publication::Published],
    after: &[publication::Published],
    bundles: &[Published],
    fleet: Option<&Fleet>,
) -> Vec<Change> {
    let by_id = |policies: &'_ [publication::Published]| -> BTreeMap<String, PatchPolicy> {
        policies.iter().map(|published| (published.policy.id(), published.policy.clone())).collect()
    };
    let (before, after) = (by_id(before), by_id(after));
    let ids: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let kind = |id: &String| match (before.get(id), after.get(id)) {
        (None, Some(new)) => Some(ChangeKind::Added { bundle: new.bundle.version.clone() }),
        (Some(old), None) => Some(ChangeKind::Removed { bundle: old.bundle.version.clone() }),
        (Some(old), Some(new)) if old != new => {
            Some(ChangeKind::Changed { fields: fields(old, new, bundles) })
        }
        _ => None,
    };
    let change = |id: &String| {
        let nodes = Affected::of(fleet, before.get(id), after.get(id));
        Some(Change { policy: id.clone(), kind: kind(id)?, nodes })
    };
    ids.into_iter().filter_map(change).collect()
}

fn fields(old: &PatchPolicy, new: &PatchPolicy, bundles: &[Published]) -> Vec<Field> {
    let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
    flatten(&old.to_tree(), String::new(), &mut before);
    flatten(&new.to_tree(), String::new(), &mut after);
    let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let mut fields: Vec<Field> = paths
        .into_iter()
        .filter(|at| before.get(*at) != after.get(*at))
        .map(|at| Field {
            at: at.clone(),
            before: before.get(at).cloned(),
            after: after.get(at).cloned(),
            rollback: at == VERSION && is_older(&new.bundle.version, &old.bundle.version, bundles),
        })
        .collect();
    // The bundle is what people look for.
    fields.sort_by_key(|field| field.at != VERSION);
    fields
}

/// Every leaf by its path; a list is a leaf, because a place in it says nothing.
fn flatten(json: &Json<'_>, at: String, out: &mut BTreeMap<String, String>) {
    match json {
        Json::Object(members) if !members.is_empty() => {
            for (key, value) in members {
                let dot = if at.is_empty() { "" } else { "." };
                flatten(value, format!("{at}{dot}{key}"), out);
            }
        }
        Json::String(text) => {
            out.insert(at, text.to_string());
        }
        other => {
            out.insert(at, String::from_utf8_lossy(&other.canonical()).into_owned());
        }
    }
}

/// Whether for some variant the bundle `new` came before `old`.
pub(super) fn is_older(new: &BundleVersion, old: &BundleVersion, bundles: &[Published]) -> bool {
    let of = |version: &BundleVersion| -> BTreeMap<_, u64> {
        let listed = bundles.iter().filter(|bundle| bundle.version == *version);
        listed.map(|bundle| (bundle.variant.clone(), bundle.custom.serial)).collect()
    };
    let old = of(old);
    of(new).iter().any(|(variant, serial)| old.get(variant).is_some_and(|old| serial < old))
}

#[cfg(test)]
mod tests {
    use super::*;
    use format::digest::Sha256;
    use format::index::IndexCustom;
    use format::metadata::Blob;

    fn policy(name: &str, version: &str, more: &str) -> PatchPolicy {
        let text = format!(
            r#"{{"apiVersion":"patchmgmt.io/v1","kind":"PatchPolicy","metadata":{{"name":"{name}"}},"spec":{{
            "bundleRef":{{"version":"{version}"}},"targets":{{"selector":{{"matchLabels":{{"ring":"{name}"}}}}}}{more}}}}}"#
        );
        PatchPolicy::from_json(text.as_bytes()).unwrap()
    }

    fn bundle(version: &str, serial: u64) -> Published {
        let blob = Blob { length: 1, sha256: Sha256::of(b"") };
        Published {
            variant: "debian-12-amd64".parse().unwrap(),
            version: version.parse().unwrap(),
            custom: IndexCustom { serial, cycle: "2026-11".parse().unwrap() },
            index: ("i".parse().unwrap(), blob),
            bundle: ("b".parse().unwrap(), blob),
        }
    }

    fn plain(policies: &[PatchPolicy]) -> Vec<publication::Published> {
        policies.iter().map(|policy| publication::Published { policy: policy.clone(), plan: None }).collect()
    }

    fn said(before: &[PatchPolicy], after: &[PatchPolicy]) -> Vec<String> {
        said_of(before, after, None)
    }

    fn said_of(before: &[PatchPolicy], after: &[PatchPolicy], fleet: Option<&Fleet>) -> Vec<String> {
        let bundles = [bundle("42", 7), bundle("43", 8)];
        diff(&plain(before), &plain(after), &bundles, fleet).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_new_bundle_is_said_and_an_older_one_is_a_rollback() {
        let (old, new) = ([policy("a", "42", "")], [policy("a", "43", "")]);
        assert_eq!(said(&old, &new), ["default/a: bundle 42 → 43"]);
        assert_eq!(said(&new, &old), ["default/a: bundle 43 → 42 (ROLLBACK: an older bundle)"]);
        assert!(said(&old, &old).is_empty());
    }

    #[test]
    fn what_comes_goes_and_changes_is_said_policy_by_policy() {
        let before = [policy("a", "42", ""), policy("b", "42", r#","reboot":"never","paused":true"#)];
        let after = [
            policy(
                "b",
                "43",
                r#","reboot":"always","schedule":{"maintenanceWindow":["02:00-04:00","Sun 00:00-24:00"]}"#,
            ),
            policy("c", "43", ""),
        ];
        assert_eq!(
            said(&before, &after),
            [
                "default/a: removed; it had bundle 42, which its nodes keep",
                "default/b: bundle 42 → 43; paused true (taken out); reboot never → always; schedule.maintenanceWindow \
                 [\"Sun 00:00-24:00\",\"02:00-04:00\"] (new)",
                "default/c: new, with bundle 43",
            ]
        );
    }

    #[test]
    fn where_the_fleet_is_known_it_is_said_how_many_nodes_a_change_is_about() {
        let node = |n: u32| {
            let labels = BTreeMap::from([("ring".to_owned(), if n < 30 { "a" } else { "b" }.to_owned())]);
            (format!("n{n}").parse().unwrap(), labels)
        };
        let fleet = Fleet::Nodes((0..100).map(node).collect());
        let said = |before: &[PatchPolicy], after: &[PatchPolicy]| said_of(before, after, Some(&fleet));
        let a = policy("a", "42", "");
        assert_eq!(
            said(std::slice::from_ref(&a), &[policy("a", "43", "")]),
            ["default/a: bundle 42 → 43 (30 nodes)"]
        );
        assert_eq!(said(&[], std::slice::from_ref(&a)), ["default/a: new, with bundle 42 (30 nodes)"]);
        assert_eq!(
            said(std::slice::from_ref(&a), &[]),
            ["default/a: removed; it had bundle 42, which its nodes keep (30 nodes)"]
        );
        let mut wider = a.clone();
        wider.selector = policy("b", "42", "").selector;
        let moved = said(std::slice::from_ref(&a), &[wider]);
        assert!(moved[0].ends_with("(70 nodes: 70 join, 30 leave)"), "{moved:?}");
        assert_eq!(said_of(&[], &[a], Some(&Fleet::Count(100))), ["default/a: new, with bundle 42"]);
    }

    #[test]
    fn for_machines_the_change_has_a_name() {
        let json = serde_json::to_value(diff(
            &plain(&[policy("a", "43", "")]),
            &plain(&[policy("a", "42", "")]),
            &[bundle("42", 7), bundle("43", 8)],
            None,
        ))
        .unwrap();
        assert_eq!(json[0]["policy"], "default/a");
        assert_eq!(json[0]["change"], "changed");
        assert_eq!(json[0]["fields"][0]["rollback"], true);
    }
}
