//! What the centre has signed for this node: its policy, read anew from the repository's own words by each step.
//!
//! A repository that lists no policy at all leaves it to its nodes: each takes the newest bundle of its variant. Once it
//! lists one, a node does what the one policy for its labels says, and nothing where none is for it. What a policy means
//! is decided in [`crate::decide`] and obeyed in [`crate::run`]; here it is only found, verified and read.

use std::collections::BTreeMap;
use std::io::Read as _;

use format::digest::Sha256;
use format::index::Index;
use format::metadata::Blob;
use format::name::TargetPath;
use format::policy::{MAX_POLICY, PatchPolicy, select};
use format::release::Release as Manifest;
use format::rollout::{MAX_PLAN, RolloutPlan};
use format::trust::{SearchStep, TrustedMetadataSet};
use host::file;

use crate::error::{Error, Exit, Result};
use crate::fetch::Fetcher;
use crate::quarantine::Release;
use crate::store::Store;

/// A target path that no policy can have, but that every role that may speak of policies covers: a namespace never
/// begins with an underscore.
pub const PROBE: &str = "policies/_/_/policy.json";

/// How this node's bundle is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// There is no policy: the newest one.
    Newest,
    /// There are policies, and none is for this node.
    NotSelected,
    /// By this policy.
    Policy(Box<PatchPolicy>),
}

impl Rule {
    /// The policy, if there is one.
    pub fn policy(&self) -> Option<&PatchPolicy> {
        match self {
            Rule::Policy(policy) => Some(policy),
            Rule::Newest | Rule::NotSelected => None,
        }
    }

    /// The bundles that the centre releases from this node's quarantine.
    pub fn releases(&self) -> Vec<Release> {
        let release = self.policy().map(|policy| &policy.release).into_iter().flatten();
        release.map(|(version, before)| Release { version: version.clone(), before: *before }).collect()
    }

    /// Whether the bundle of `index` is the one that the policy approves, where it says which: this bundle's very bytes, or
    /// the release that it is one of.
    ///
    /// # Errors
    /// Integrity, if it is another.
    pub fn check(&self, set: &TrustedMetadataSet, index: &Index) -> Result<()> {
        let Some(policy) = self.policy() else { return Ok(()) };
        let Some(checksum) = &policy.bundle.checksum else { return Ok(()) };
        if checksum.matches(&index.bundle.sha256) {
            return Ok(());
        }
        let release = release(set, index);
        let digest = release.as_ref().filter(|release| release.has(index)).map(Manifest::digest);
        if digest.is_some_and(|digest| checksum.matches(&digest)) {
            return Ok(());
        }
        let of_release =
            digest.map(|digest| format!(", that of its release sha256:{digest}")).unwrap_or_default();
        Err(Error::new(
            Exit::Integrity,
            format!(
                "policy {}: it approves a bundle {} with the checksum {checksum}, and the repository's is sha256:{}\
                 {of_release}",
                policy.id(),
                policy.bundle.version,
                index.bundle.sha256
            ),
            "correct the policy's bundleRef.checksum, or find out who replaced the bundle",
        ))
    }
}

/// The release that a bundle is one of: all bundles of its version that the role with the say over it has signed.
fn release(set: &TrustedMetadataSet, index: &Index) -> Option<Manifest> {
    let path = format::index::index_path(&index.variant, &index.version).ok()?;
    let mut search = set.search(path.as_str());
    let SearchStep::Found(_) = search.step(set) else { return None };
    let role = search.visited().last()?;
    Manifest::of(&set.targets(role)?.targets, &index.version)
}

/// A policy that the repository lists.
struct Listed {
    path: TargetPath,
    content: Blob,
}

/// The policies that the role `policies` lists, each found by the search for its own path, as every target must be.
fn listed(set: &TrustedMetadataSet) -> Vec<Listed> {
    let mut search = set.search(PROBE);
    let _ = search.step(set);
    let paths = search.visited().iter().filter_map(|role| set.targets(role)).flat_map(|t| t.targets.keys());
    let mut out: Vec<Listed> = paths
        // Plans of rollouts are found by their policies; what else is there is not known yet.
        .filter(|path| path.starts_with("policies/") && path.ends_with("/policy.json"))
        .filter_map(|path| path.parse().ok())
        .filter_map(|path: TargetPath| match set.search(path.as_str()).step(set) {
            SearchStep::Found(file) => Some(Listed { content: file.blob()?, path }),
            _ => None,
        })
        .collect();
    out.sort_by(|a, b| a.path.cmp(&b.path));
    out.dedup_by(|a, b| a.path == b.path);
    out
}

/// Fetches the policies that are not here yet.
///
/// # Errors
/// As [`Fetcher::members`].
pub fn fetch(set: &TrustedMetadataSet, fetcher: &Fetcher<'_, '_>) -> Result<()> {
    for Listed { path, content } in &listed(set) {
        too_long(path, content, MAX_POLICY)?;
        fetcher.target(&set.target_file(path, content.sha256), content.sha256, content.length)?;
    }
    Ok(())
}

/// Fetches the rollout plan of this node's policy, if it is not here yet; those of others are none of its business. Forgets
/// policies and plans that are not listed any more.
///
/// # Errors
/// As [`fetch`].
pub fn fetch_plan(set: &TrustedMetadataSet, fetcher: &Fetcher<'_, '_>, rule: &Rule) -> Result<()> {
    let plan = rule.policy().and_then(|policy| listed_plan(set, policy));
    if let Some(Listed { path, content }) = &plan {
        too_long(path, content, MAX_PLAN)?;
        fetcher.target(&set.target_file(path, content.sha256), content.sha256, content.length)?;
    }
    let kept = listed(set).into_iter().chain(plan);
    fetcher.store.prune(&kept.map(|l| l.content.sha256).collect())
}

/// The plan that is listed beside a policy.
fn listed_plan(set: &TrustedMetadataSet, policy: &PatchPolicy) -> Option<Listed> {
    let path: TargetPath = format!("policies/{}/rollout.json", policy.id()).parse().ok()?;
    match set.search(path.as_str()).step(set) {
        SearchStep::Found(file) => Some(Listed { content: file.blob()?, path }),
        _ => None,
    }
}

/// The rollout plan of this node's policy, verified again; none, if there is none for the bundle that the policy names.
///
/// # Errors
/// As [`read`].
pub fn plan(set: &TrustedMetadataSet, store: &Store, rule: &Rule) -> Result<Option<RolloutPlan>> {
    let Some(policy) = rule.policy() else { return Ok(None) };
    let Some(Listed { path, content }) = listed_plan(set, policy) else { return Ok(None) };
    let plan = RolloutPlan::from_json(&read_one(&path, &content, store, MAX_PLAN)?)
        .map_err(|e| unusable(&path, &e.to_string()))?;
    match plan.target_path() {
        Ok(own) if own == path => Ok(Some(plan).filter(|plan| plan.is_of(policy))),
        _ => Err(unusable(&path, &format!("it says that it is the plan of {}", plan.policy()))),
    }
}

/// The rule for a node with `labels`, of policies that were fetched: verified again, whoever could write there.
///
/// # Errors
/// Deferred, if one is missing, cannot be understood, or more than one is for this node; integrity, if one is not what
/// was signed.
pub fn read(set: &TrustedMetadataSet, store: &Store, labels: &BTreeMap<String, String>) -> Result<Rule> {
    let listed = listed(set);
    if listed.is_empty() {
        return Ok(Rule::Newest);
    }
    // Only what is for this node is kept in memory.
    let mut mine = Vec::new();
    for Listed { path, content } in &listed {
        let policy = parse(path, &read_one(path, content, store, MAX_POLICY)?)?;
        if policy.selector.matches(labels) {
            mine.push(policy);
        }
    }
    let one = select(&mine, labels).map_err(|e| Error::new(Exit::Deferred, e, ""))?;
    Ok(one.map_or(Rule::NotSelected, |policy| Rule::Policy(Box::new(policy.clone()))))
}

fn read_one(path: &TargetPath, content: &Blob, store: &Store, limit: usize) -> Result<Vec<u8>> {
    too_long(path, content, limit)?;
    let file = store.path(&content.sha256);
    let opened = match file::open_regular(&file) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::deferred(format!(
                "{path} is not here any more; the next fetch gets it again"
            )));
        }
        Err(e) if e.kind() == std::io::ErrorKind::InvalidInput => {
            return Err(altered(path, content, store, "it is not a regular file"));
        }
        other => other?,
    };
    let mut bytes = Vec::new();
    opened.take(content.length + 1).read_to_end(&mut bytes).map_err(|e| Error::file(&file, &e))?;
    if Sha256::of(&bytes) == content.sha256 {
        return Ok(bytes);
    }
    Err(altered(path, content, store, "it has another sha256"))
}

/// What was altered goes, so that the next fetch gets it again.
fn altered(path: &TargetPath, content: &Blob, store: &Store, why: &str) -> Error {
    store.discard(&content.sha256);
    let file = store.path(&content.sha256);
    let what = format!("{}: {path} was altered after it had been verified: {why}", file.display());
    Error::new(Exit::Integrity, what, "the next fetch replaces it. Find out who can write there")
}

fn unusable(path: &TargetPath, why: &str) -> Error {
    Error::new(
        Exit::Deferred,
        format!("{path}: {why}"),
        "nothing is begun on half of a policy: update prestage on this node, or correct the policy",
    )
}

fn parse(path: &TargetPath, bytes: &[u8]) -> Result<PatchPolicy> {
    let policy = PatchPolicy::from_json(bytes).map_err(|e| unusable(path, &e.to_string()))?;
    match policy.target_path() {
        Ok(own) if own == *path => Ok(policy),
        _ => Err(unusable(path, &format!("it says that it is {}", policy.id()))),
    }
}

fn too_long(path: &TargetPath, content: &Blob, limit: usize) -> Result<()> {
    if content.length <= limit as u64 {
        return Ok(());
    }
    let what = format!("{path}: {} bytes are too long for it", content.length);
    Err(Error::new(Exit::Deferred, what, "correct the policy"))
}
