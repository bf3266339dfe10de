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

    /// Whether the bundle of `index` is the one that the policy approves: the very bytes, where it says which.
    ///
    /// # Errors
    /// Integrity, if it is another.
    pub fn check(&self, index: &Index) -> Result<()> {
        let Some(policy) = self.policy() else { return Ok(()) };
        match &policy.bundle.checksum {
            Some(checksum) if !checksum.matches(&index.bundle.sha256) => Err(Error::new(
                Exit::Integrity,
                format!(
                    "policy {}: it approves a bundle {} with the checksum {checksum}, and the repository's is \
                     sha256:{}",
                    policy.id(),
                    policy.bundle.version,
                    index.bundle.sha256
                ),
                "correct the policy's bundleRef.checksum, or find out who replaced the bundle",
            )),
            _ => Ok(()),
        }
    }
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
        .filter_map(|path| path.starts_with("policies/").then(|| path.parse().ok())?)
        .filter_map(|path: TargetPath| match set.search(path.as_str()).step(set) {
            SearchStep::Found(file) => Some(Listed { content: file.blob()?, path }),
            _ => None,
        })
        .collect();
    out.sort_by(|a, b| a.path.cmp(&b.path));
    out.dedup_by(|a, b| a.path == b.path);
    out
}

/// Fetches the policies that are not here yet, and forgets those that are not listed any more.
///
/// # Errors
/// As [`Fetcher::members`].
pub fn fetch(set: &TrustedMetadataSet, fetcher: &Fetcher<'_, '_>) -> Result<()> {
    let listed = listed(set);
    for Listed { path, content } in &listed {
        too_long(path, content)?;
        fetcher.target(&set.target_file(path, content.sha256), content.sha256, content.length)?;
    }
    fetcher.store.prune(&listed.iter().map(|l| l.content.sha256).collect())
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
        let policy = parse(path, &read_one(path, content, store)?)?;
        if policy.selector.matches(labels) {
            mine.push(policy);
        }
    }
    let one = select(&mine, labels).map_err(|e| Error::new(Exit::Deferred, e, ""))?;
    Ok(one.map_or(Rule::NotSelected, |policy| Rule::Policy(Box::new(policy.clone()))))
}

fn read_one(path: &TargetPath, content: &Blob, store: &Store) -> Result<Vec<u8>> {
    too_long(path, content)?;
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

fn parse(path: &TargetPath, bytes: &[u8]) -> Result<PatchPolicy> {
    let unusable = |why: String| {
        Error::new(
            Exit::Deferred,
            format!("{path}: {why}"),
            "nothing is begun on half of a policy: update prestage on this node, or correct the policy",
        )
    };
    let policy = PatchPolicy::from_json(bytes).map_err(|e| unusable(e.to_string()))?;
    match policy.target_path() {
        Ok(own) if own == *path => Ok(policy),
        _ => Err(unusable(format!("it says that it is {}", policy.id()))),
    }
}

fn too_long(path: &TargetPath, content: &Blob) -> Result<()> {
    if content.length <= MAX_POLICY as u64 {
        return Ok(());
    }
    let what = format!("{path}: {} bytes are too long for a policy", content.length);
    Err(Error::new(Exit::Deferred, what, "correct the policy"))
}
