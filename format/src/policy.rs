//! PatchPolicy: which bundle goes to which nodes, when, how fast, and what to do on failure.
//!
//! Operators write it as YAML in Git; the build tool checks it and publishes it as canonical JSON, a signed target; nodes
//! and the fleet server read that. Here are the values, the rules they obey, and the choice of a node's policy by its
//! labels. What is not here: YAML, time zone data (a zone's *name* is checked, not whether there is such a zone), and what
//! a node makes of its policy.
//!
//! A document that says anything unknown is refused: half of a policy is another policy.

mod name;
pub(crate) mod read;
mod selector;
pub mod table;
pub(crate) mod write;

use std::collections::BTreeMap;
use std::fmt;

pub use name::{Checksum, HttpUrl, LabelKey, LabelValue, Namespace, PolicyName, ZoneName};
pub use read::{Fault, Path, Problem, Step};
pub use selector::{Expression, Operator, Selector};

use crate::json::{Json, JsonError};
use crate::name::{BundleVersion, InvalidName, TargetPath};
use crate::rate::Rate;
use crate::time::UnixTime;
use crate::window::Window;

/// The `kind` of a policy.
pub const KIND: &str = "PatchPolicy";

/// The longest policy, in bytes, both as it is read and in canonical form.
pub const MAX_POLICY: usize = 64 * 1024;

/// The longest list, and the most members of a map, in a policy.
pub const MAX_ENTRIES: usize = 64;

/// Which bundle goes to which nodes, when and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatchPolicy {
    /// `metadata.name`; unique in its namespace.
    pub name: PolicyName,
    /// `metadata.namespace`; without one, `default`.
    pub namespace: Namespace,
    /// `spec.bundleRef`.
    pub bundle: BundleRef,
    /// `spec.targets.selector`: the nodes.
    pub selector: Selector,
    /// `spec.schedule`: when to install. Without one, when the node's own configuration says.
    pub schedule: Option<Schedule>,
    /// `spec.rolloutStrategy`: how many nodes at a time. Without one, all of them.
    pub rollout: Option<Rollout>,
    /// `spec.rollback`: what is healthy, and what to do if a node is not. Without one, what its own configuration says.
    pub rollback: Option<Rollback>,
    /// `spec.transfer`: when and how fast to fetch. Without one, what the node's own configuration says.
    pub transfer: Option<Transfer>,
    /// `spec.reboot`. Without it, what the node's own configuration says.
    pub reboot: Option<Reboot>,
    /// `spec.quarantine.release`: bundles that a node may try again if it refused them before that time.
    pub release: BTreeMap<BundleVersion, UnixTime>,
    /// `spec.paused`: nothing new begins under this policy.
    pub paused: bool,
}

/// A bundle, of whichever variant a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleRef {
    /// Its version.
    pub version: BundleVersion,
    /// What the SHA-256 of the bundle file begins with. It ties a commit to the very bytes that were approved; what keeps
    /// other bytes out is the signed index, with or without it.
    pub checksum: Option<Checksum>,
}

/// When something may be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// At least one; sorted, each once.
    pub windows: Vec<Window>,
    /// Where the windows' hours are. Without it, where the node is.
    pub timezone: Option<ZoneName>,
}

/// How a bundle spreads over the nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// `type`, and what belongs to it.
    pub kind: RolloutType,
    /// `canary`: those of the policy's nodes that go first.
    pub canary: Option<Selector>,
    /// `failureThreshold`: no further node begins once more than this share of those that have finished failed.
    pub failure_threshold: Option<Percent>,
    /// `maxUnavailablePerSite`: as many nodes of one site may be patching at a time.
    pub max_unavailable_per_site: Option<Amount>,
}

/// How many nodes begin at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RolloutType {
    /// `AllAtOnce`: all of them.
    AllAtOnce,
    /// `RollingUpdate`: in batches.
    RollingUpdate {
        /// Nodes of a batch.
        batch_size: Amount,
        /// From the beginning of one batch to that of the next.
        batch_delay_minutes: u32,
    },
}

/// What is healthy, and whether a node that is not goes back by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollback {
    /// Whether a failed node goes back by itself.
    pub enabled: bool,
    /// What must answer with success after an install.
    pub health_check_url: Option<HttpUrl>,
    /// How long it may take until it does.
    pub health_check_timeout_seconds: Option<u32>,
}

/// When and how fast a bundle may be fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// `windows` and `timezone`. Without them, always.
    pub schedule: Option<Schedule>,
    /// `rate`. Without it, what the node's own configuration says.
    pub rate: Option<Rate>,
}

/// What to do about an installed update that needs a restart to take effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reboot {
    /// `never`: somebody else does it.
    Never,
    /// `if-needed`
    IfNeeded,
    /// `always`: after every install that changed anything.
    Always,
}

impl Reboot {
    const ALL: [Reboot; 3] = [Reboot::Never, Reboot::IfNeeded, Reboot::Always];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Reboot::Never => "never",
            Reboot::IfNeeded => "if-needed",
            Reboot::Always => "always",
        }
    }
}

/// Hundredths, from 0 to 100; written `5%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u8);

impl Percent {
    /// The number.
    pub fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl std::str::FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix('%').filter(|n| n.len() <= 3 && n.bytes().all(|b| b.is_ascii_digit()));
        match number.and_then(|n| n.parse().ok()) {
            Some(n) if n <= 100 => Ok(Percent(n)),
            _ => {
                let shown: String = text.chars().take(80).collect();
                Err(format!("{shown:?} is not a share such as \"5%\", from 0% to 100%"))
            }
        }
    }
}

/// A number of nodes, or a share of them; never none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So many; at least 1.
    Nodes(u32),
    /// This share, rounded up; at least 1 %.
    Share(Percent),
}

impl Amount {
    /// How many nodes that is of `all`: at least 1, at most `all` (but 1 of none).
    pub fn of(self, all: u64) -> u64 {
        let wanted = match self {
            Amount::Nodes(n) => u64::from(n),
            Amount::Share(share) => (u128::from(all) * u128::from(share.0)).div_ceil(100) as u64,
        };
        wanted.min(all).max(1)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Amount::Nodes(n) => n.fmt(f),
            Amount::Share(share) => share.fmt(f),
        }
    }
}

/// Why a policy was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyError {
    /// It is longer than [`MAX_POLICY`].
    TooLong,
    /// It is not strict JSON.
    Json(JsonError),
    /// Everything that is wrong with it; at least one thing.
    Problems(Vec<Problem>),
}

impl fmt::Display for PolicyError {
    /// On one line; of many problems the first three.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PolicyError::TooLong => write!(f, "it is longer than {} KiB", MAX_POLICY / 1024),
            PolicyError::Json(error) => error.fmt(f),
            PolicyError::Problems(problems) => {
                for (i, problem) in problems.iter().take(3).enumerate() {
                    f.write_str(if i > 0 { "; " } else { "" })?;
                    problem.fmt(f)?;
                }
                match problems.len().saturating_sub(3) {
                    0 => Ok(()),
                    more => write!(f, "; and {more} more"),
                }
            }
        }
    }
}

impl std::error::Error for PolicyError {}

impl PatchPolicy {
    /// Reads a published policy.
    ///
    /// # Errors
    /// If it is too long, no strict JSON, or says anything that is unknown, missing or wrong.
    pub fn from_json(bytes: &[u8]) -> Result<Self, PolicyError> {
        if bytes.len() > MAX_POLICY {
            return Err(PolicyError::TooLong);
        }
        PatchPolicy::from_tree(&Json::parse(bytes).map_err(PolicyError::Json)?)
    }

    /// Reads a policy of a tree, wherever that came from.
    ///
    /// # Errors
    /// Everything that is wrong with it, not the first thing alone; or that it is too long in canonical form.
    pub fn from_tree(tree: &Json<'_>) -> Result<Self, PolicyError> {
        let policy = read::policy(tree).map_err(PolicyError::Problems)?;
        match policy.to_json().len() <= MAX_POLICY {
            true => Ok(policy),
            false => Err(PolicyError::TooLong),
        }
    }

    /// The policy as it is published: canonical JSON. The same policy has the same bytes, however it was written.
    pub fn to_json(&self) -> Vec<u8> {
        self.to_tree().canonical()
    }

    /// The same as a tree.
    pub fn to_tree(&self) -> Json<'static> {
        write::policy(self)
    }

    /// `NAMESPACE/NAME`: what tells it from every other.
    pub fn id(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Whether its nodes wait for the plan of a rollout before they begin: it has batches, or canaries that go first.
    pub fn needs_plan(&self) -> bool {
        self.rollout.as_ref().is_some_and(|r| r.kind != RolloutType::AllAtOnce || r.canary.is_some())
    }

    /// Where it is published: `policies/NAMESPACE/NAME/policy.json`.
    ///
    /// # Errors
    /// Never for a valid policy: its names are words and short enough.
    pub fn target_path(&self) -> Result<TargetPath, InvalidName> {
        format!("policies/{}/{}/policy.json", self.namespace, self.name).parse()
    }
}

/// More than one policy is for one node, and nothing says which counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ambiguous {
    /// Their ids ([`PatchPolicy::id`]), sorted; at least two.
    pub names: Vec<String>,
}

impl fmt::Display for Ambiguous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the policies {} are all for this node: narrow their selectors until one is",
            self.names.join(" and ")
        )
    }
}

impl std::error::Error for Ambiguous {}

/// The policy for a node with `labels`; none if there is none.
///
/// # Errors
/// If more than one matches.
pub fn select<'p>(
    policies: &'p [PatchPolicy],
    labels: &BTreeMap<String, String>,
) -> Result<Option<&'p PatchPolicy>, Ambiguous> {
    let matching: Vec<&PatchPolicy> = policies.iter().filter(|p| p.selector.matches(labels)).collect();
    match matching[..] {
        [] => Ok(None),
        [policy] => Ok(Some(policy)),
        _ => {
            let mut names: Vec<String> = matching.into_iter().map(PatchPolicy::id).collect();
            names.sort_unstable();
            Err(Ambiguous { names })
        }
    }
}

#[cfg(test)]
mod tests;
