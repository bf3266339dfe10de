//! Key ceremonies: from the given key files to a first root, and what people must know about the keys.
//!
//! The edits themselves are [`crate::editor`]'s.

use std::path::{Path, PathBuf};

use format::digest::Sha256;
use format::metadata::RoleKeys;
use serde_json::{Value, json};

use crate::cli::RootInitArgs;
use crate::delegated::{BUNDLES, POLICIES};
use crate::editor::{RepositoryEditor, read_root};
use crate::error::Result;
use crate::keys::{self, Key, Secret};
use crate::publish::OnlineKeys;
use crate::repository::TOP_LEVEL;
use crate::roles::{FirstRoot, RoleSpec};

/// Said whenever keys of these roles are made or used.
pub const OFFLINE: &str = "the keys of root and targets must stay offline: on media in a safe, never on a build server \
or web server. Who has a threshold of root keys owns every node; the nodes need only 1.root.json";

/// What `root init` read.
pub struct Ceremony {
    /// The first root.
    pub first: FirstRoot,
    /// All private keys of root, targets and the delegated roles that were given.
    pub secrets: Vec<Secret>,
    /// The online keys, if both can sign.
    pub online: Option<OnlineKeys>,
}

/// Reads the keys of `root init`.
///
/// # Errors
/// If one cannot be read.
pub fn read_ceremony(args: &RootInitArgs) -> Result<Ceremony> {
    let passphrase = args.passphrase_file.as_deref().map(keys::read_passphrase).transpose()?;
    let read = |role, files: &[PathBuf], threshold| read_role(role, files, threshold, passphrase.as_deref());
    let (root, mut secrets) = read("root", &args.root_keys, args.root_threshold)?;
    let (targets, of_targets) = read("targets", &args.targets_keys, args.targets_threshold)?;
    let (bundles, of_bundles) = read("bundles", &args.bundles_keys, args.bundles_threshold)?;
    secrets.extend(of_targets);
    secrets.extend(of_bundles);
    let mut delegated = vec![(&BUNDLES, bundles, args.bundles_days)];
    if !args.policies_keys.is_empty() {
        let (policies, of_policies) = read("policies", &args.policies_keys, args.policies_threshold)?;
        secrets.extend(of_policies);
        delegated.push((&POLICIES, policies, args.policies_days));
    }
    // Whoever runs a repository can give these two roles more keys later; one is where everybody begins.
    let (snapshot, of_snapshot) = read("snapshot", &args.snapshot_keys, 1)?;
    let (timestamp, of_timestamp) = read("timestamp", &args.timestamp_keys, 1)?;
    let online = (!of_snapshot.is_empty() && !of_timestamp.is_empty()).then_some(OnlineKeys {
        snapshot: of_snapshot,
        timestamp: of_timestamp,
        snapshot_days: args.online.snapshot_days,
        timestamp_days: args.online.timestamp_days,
    });
    let days = [args.root_days, args.targets_days];
    let first = FirstRoot { top_level: vec![root, targets, snapshot, timestamp], days, delegated };
    Ok(Ceremony { first, secrets, online })
}

/// Reads the keys of one role: which count, and those of them that can sign here.
fn read_role(
    role: &'static str,
    files: &[PathBuf],
    threshold: u64,
    passphrase: Option<&[u8]>,
) -> Result<(RoleSpec, Vec<Secret>)> {
    let (mut keys, mut secrets) = (Vec::new(), Vec::new());
    for file in files {
        let key = keys::read(file, passphrase)?;
        keys.push(key.public().clone());
        if let Key::Secret(secret) = key {
            secrets.push(secret);
        }
    }
    Ok((RoleSpec { role, keys, threshold }, secrets))
}

/// The id that `--old` means: of a key file if it is one, else as it stands.
///
/// # Errors
/// If it is a file but not a key.
pub fn old_key_id(old: &str) -> Result<String> {
    let path = Path::new(old);
    // The public file beside a private one is enough, and needs no passphrase.
    let public = PathBuf::from(format!("{old}.pub"));
    match (public.is_file(), path.is_file()) {
        (true, _) => Ok(keys::read(&public, None)?.public().id.0.clone()),
        (false, true) => Ok(keys::read(path, None)?.public().id.0.clone()),
        (false, false) => Ok(old.to_owned()),
    }
}

/// Which keys count, published and pending.
///
/// # Errors
/// If a pending document cannot be read.
pub fn show(editor: &RepositoryEditor) -> Result<(Value, Vec<String>)> {
    let mut lines = Vec::new();
    let mut roles = Vec::new();
    let mut add = |state: &str, role: &str, keys: &RoleKeys, lines: &mut Vec<String>| {
        let ids: Vec<&str> = keys.keys.iter().map(|(id, _)| id.0.as_str()).collect();
        lines.push(format!("  {role:10} {} of {}", keys.threshold, ids.len()));
        lines.extend(ids.iter().map(|id| format!("             {id}")));
        roles.push(json!({"state": state, "role": role, "threshold": keys.threshold, "keyids": ids}));
    };
    if let Some(view) = editor.published() {
        lines.push(format!("published root {}:", view.set.root().header.version));
        let delegated = view.delegated().map(|role| role.name);
        for role in TOP_LEVEL.iter().map(|kind| kind.as_str()).chain(delegated) {
            if let Some(keys) = view.keys_of(role) {
                add("published", role, keys, &mut lines);
            }
        }
    }
    if let Some(pending) = editor.pending().documents().get("root") {
        let root = read_root(pending)?;
        lines.push(format!("pending root {}:", root.header.version));
        for kind in TOP_LEVEL {
            add("pending", kind.as_str(), root.keys_of(kind), &mut lines);
        }
    }
    if editor.pending().documents().contains_key("targets") {
        lines.push("pending targets:".into());
        for role in editor.delegated()? {
            add("pending", role.name, &editor.keys_of_delegated(role.name)?, &mut lines);
        }
    }
    let approvals = editor.approvals()?;
    if !approvals.is_empty() {
        lines.push("signatures on what is pending:".into());
        lines.extend(approvals.iter().map(|a| format!("  {a}")));
    }
    // What a node is enrolled with. The first root's, for the chain leads from it to every later one.
    let first = std::fs::read(editor.repository().metadata().join("1.root.json")).ok();
    let fingerprint = first.map(|bytes| format!("sha256:{}", Sha256::of(&bytes)));
    if let Some(fingerprint) = &fingerprint {
        lines.push(format!("prestage enroll --root-fingerprint {fingerprint}"));
    }
    Ok((json!({"roles": roles, "pending": approvals, "fingerprint": fingerprint}), lines))
}
