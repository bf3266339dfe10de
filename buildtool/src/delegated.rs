//! The roles that `targets` delegates to, one entry each: whatever treats them alike goes through this table.
//!
//! What a role lists is not here: bundles are [`crate::bundle`]'s, and the edits of both [`crate::editor`]'s.

use format::metadata::{DelegatedPaths, RoleKeys, Targets};
use serde_json::{Value, json};

/// One delegated role.
#[derive(Debug, PartialEq, Eq)]
pub struct Delegated {
    /// Its name.
    pub name: &'static str,
    /// The target paths that are its own, and nobody else's.
    pub pattern: &'static str,
    /// Days until it expires, unless the operator says otherwise.
    pub days: u32,
    /// Whether a repository may do without it.
    pub optional: bool,
}

/// Which bundles exist: `bundles/VARIANT/VERSION/FILE`.
pub const BUNDLES: Delegated =
    Delegated { name: "bundles", pattern: "bundles/*/*/*", days: 90, optional: false };

/// Which of them goes where and when: `policies/NAMESPACE/NAME/policy.json`.
pub const POLICIES: Delegated =
    Delegated { name: "policies", pattern: "policies/*/*/*", days: 90, optional: true };

/// All of them, in the order in which nodes look through them.
pub const DELEGATED: [&Delegated; 2] = [&BUNDLES, &POLICIES];

impl Delegated {
    /// The role of this name.
    pub fn named(name: &str) -> Option<&'static Delegated> {
        DELEGATED.into_iter().find(|role| role.name == name)
    }

    /// The keys that `targets` gives it; `None` if it has no such role.
    pub fn keys_in<'t>(&self, targets: &'t Targets) -> Option<&'t RoleKeys> {
        targets.delegations.iter().find(|d| d.role == self.name).map(|d| &d.keys)
    }

    /// Whether a target of this path is its own.
    pub fn may_list(&self, path: &str) -> bool {
        DelegatedPaths::Patterns(vec![self.pattern.to_owned()]).matches(path)
    }

    /// The delegation (specification section 4.5) that gives it these keys.
    pub fn delegation(&self, keyids: &[&str], threshold: u64) -> Value {
        json!({
            "name": self.name,
            "paths": [self.pattern],
            // Nothing else may speak of these paths, whatever is delegated later.
            "terminating": true,
            "keyids": keyids,
            "threshold": threshold,
        })
    }

    /// What it says before it lists anything.
    pub fn empty() -> Value {
        json!({"targets": {}})
    }
}
