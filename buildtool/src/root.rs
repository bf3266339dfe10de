//! Key ceremonies: from the given key files to a first root, and what people must know about the keys.
//!
//! The edits themselves are [`crate::editor`]'s.

use std::path::{Path, PathBuf};

use format::metadata::{RoleKeys, RoleKind};
use serde_json::{Value, json};

use crate::cli::RootInitArgs;
use crate::editor::{RepositoryEditor, read_root};
use crate::error::Result;
use crate::keys::{self, Key, Public};
use crate::publish::OnlineKeys;
use crate::roles::{FirstRoot, RoleSpec};

/// Said whenever keys of these roles are made or used.
pub const OFFLINE: &str = "the keys of root and targets must stay offline: on media in a safe, never on a build server \
or web server. Who has a threshold of root keys owns every node; the nodes need only 1.root.json";

/// What `root init` read.
pub struct Ceremony {
    /// The first root.
    pub first: FirstRoot,
    /// All private keys of root, targets and bundles that were given.
    pub secrets: Vec<keys::Secret>,
    /// The online keys, if both can sign.
    pub online: Option<OnlineKeys>,
}

/// Reads the keys of `root init`.
///
/// # Errors
/// If one cannot be read.
pub fn read_ceremony(args: &RootInitArgs) -> Result<Ceremony> {
    let passphrase = args.passphrase_file.as_deref().map(keys::read_passphrase).transpose()?;
    let mut secrets = Vec::new();
    let mut read = |files: &[PathBuf]| -> Result<Vec<Public>> {
        let mut publics = Vec::new();
        for key in keys::read_all(files, passphrase.as_deref())? {
            publics.push(key.public().clone());
            if let Key::Secret(secret) = key {
                secrets.push(secret);
            }
        }
        Ok(publics)
    };
    let root = read(&args.root_keys)?;
    let targets = read(&args.targets_keys)?;
    let bundles = read(&args.bundles_keys)?;
    let (mut snapshot, mut timestamp) = (Vec::new(), Vec::new());
    let mut online_publics = Vec::new();
    for (files, secrets) in [(&args.snapshot_keys, &mut snapshot), (&args.timestamp_keys, &mut timestamp)] {
        let mut publics = Vec::new();
        for key in keys::read_all(files, passphrase.as_deref())? {
            publics.push(key.public().clone());
            if let Key::Secret(secret) = key {
                secrets.push(secret);
            }
        }
        online_publics.push(publics);
    }
    let spec = |role, keys, threshold| RoleSpec { role, keys, threshold };
    let timestamp_publics = online_publics.pop().unwrap_or_default();
    let snapshot_publics = online_publics.pop().unwrap_or_default();
    let online = (!snapshot.is_empty() && !timestamp.is_empty()).then_some(OnlineKeys {
        snapshot,
        timestamp,
        snapshot_days: args.online.snapshot_days,
        timestamp_days: args.online.timestamp_days,
    });
    Ok(Ceremony {
        first: FirstRoot {
            top_level: vec![
                spec("root", root, args.root_threshold),
                spec("targets", targets, args.targets_threshold),
                spec("snapshot", snapshot_publics, 1),
                spec("timestamp", timestamp_publics, 1),
            ],
            bundles: spec("bundles", bundles, args.bundles_threshold),
            days: [args.root_days, args.targets_days, args.bundles_days],
        },
        secrets,
        online,
    })
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
    let kinds = [RoleKind::Root, RoleKind::Targets, RoleKind::Snapshot, RoleKind::Timestamp];
    if let Some(view) = editor.published() {
        lines.push(format!("published root {}:", view.set.root().header.version));
        for kind in kinds {
            add("published", kind.as_str(), view.set.root().keys_of(kind), &mut lines);
        }
        if let Some(keys) = view.keys_of_bundles() {
            add("published", "bundles", keys, &mut lines);
        }
    }
    if let Some(pending) = editor.pending().documents().get("root") {
        let root = read_root(pending)?;
        lines.push(format!("pending root {}:", root.header.version));
        for kind in kinds {
            add("pending", kind.as_str(), root.keys_of(kind), &mut lines);
        }
    }
    if editor.pending().documents().contains_key("targets") {
        lines.push("pending targets:".into());
        add("pending", "bundles", &editor.keys_of_bundles()?, &mut lines);
    }
    let approvals = editor.approvals()?;
    if !approvals.is_empty() {
        lines.push("signatures on what is pending:".into());
        lines.extend(approvals.iter().map(|a| format!("  {a}")));
    }
    Ok((json!({"roles": roles, "pending": approvals}), lines))
}
