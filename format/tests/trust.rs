//! The TUF client workflow against a whole valid repository in which each test breaks one thing.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::BTreeMap;

use ed25519_compact::{KeyPair, Seed};
use format::digest::{Sha256, hex};
use format::json::canonical;
use format::key::PublicKey;
use format::time::UnixTime;
use format::trust::{SearchStep, TimestampUpdate, TrustError, TrustedMetadataSet};
use serde_json::{Value, json};

const NOW: UnixTime = UnixTime(1_800_000_000);

fn key(n: u8) -> KeyPair {
    KeyPair::from_seed(Seed::new([n; 32]))
}

fn public(n: u8) -> [u8; 32] {
    key(n).pk.as_ref().try_into().unwrap()
}

fn key_id(n: u8) -> String {
    Sha256::of(&canonical(&PublicKey::ed25519_object(&public(n))).unwrap()).to_string()
}

fn keys(list: &[u8]) -> Value {
    list.iter()
        .map(|n| (key_id(*n), PublicKey::ed25519_object(&public(*n))))
        .collect::<BTreeMap<_, _>>()
        .into_iter()
        .collect()
}

fn role(list: &[u8], threshold: u64) -> Value {
    json!({"keyids": list.iter().map(|n| key_id(*n)).collect::<Vec<_>>(), "threshold": threshold})
}

fn signed(signed: &Value, by: &[u8]) -> Vec<u8> {
    let message = canonical(signed).unwrap();
    let signatures: Vec<Value> = by
        .iter()
        .map(|n| json!({"keyid": key_id(*n), "sig": hex(key(*n).sk.sign(&message, None).as_ref())}))
        .collect();
    serde_json::to_vec(&json!({"signed": signed, "signatures": signatures})).unwrap()
}

fn in_days(days: i64) -> String {
    NOW.plus(days * 86_400).to_string()
}

/// Keys: root 1, 2 and 3 (two needed), timestamp 4, snapshot 5, targets 6, bundles 7.
struct Repository {
    root: Value,
    timestamp: Value,
    snapshot: Value,
    targets: Value,
    bundles: Value,
    /// Role → who signs.
    signers: BTreeMap<&'static str, Vec<u8>>,
}

impl Repository {
    fn new() -> Self {
        let header = |kind: &str, version: u64, days| json!({"_type": kind, "spec_version": "1.0.34", "version": version, "expires": in_days(days)});
        let with = |mut header: Value, fields: Value| {
            header.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            header
        };
        Repository {
            root: with(
                header("root", 1, 365),
                json!({
                    "consistent_snapshot": true, "keys": keys(&[1, 2, 3, 4, 5, 6]),
                    "roles": {"root": role(&[1, 2, 3], 2), "timestamp": role(&[4], 1), "snapshot": role(&[5], 1), "targets": role(&[6], 1)}
                }),
            ),
            timestamp: with(header("timestamp", 1, 7), json!({"meta": {"snapshot.json": {"version": 1}}})),
            snapshot: with(
                header("snapshot", 1, 7),
                json!({"meta": {"targets.json": {"version": 1}, "bundles.json": {"version": 1}}}),
            ),
            targets: with(
                header("targets", 1, 90),
                json!({
                    "targets": {},
                    "delegations": {"keys": keys(&[7]), "roles": [{"name": "bundles", "keyids": [key_id(7)], "threshold": 1, "paths": ["bundles/*/*/*"], "terminating": true}]}
                }),
            ),
            bundles: with(
                header("targets", 1, 30),
                json!({"targets": {"bundles/v/1/index.json": {"length": 3, "hashes": {"sha256": Sha256::of(b"abc").to_string()}}}}),
            ),
            signers: BTreeMap::from([
                ("root", vec![1, 2]),
                ("timestamp", vec![4]),
                ("snapshot", vec![5]),
                ("targets", vec![6]),
                ("bundles", vec![7]),
            ]),
        }
    }

    fn file(&self, name: &str) -> Vec<u8> {
        let document = match name {
            "root" => &self.root,
            "timestamp" => &self.timestamp,
            "snapshot" => &self.snapshot,
            "targets" => &self.targets,
            _ => &self.bundles,
        };
        signed(document, &self.signers[name])
    }

    /// A client without a past, up to the search for the one target.
    fn refresh(&self) -> Result<TrustedMetadataSet, TrustError> {
        let mut set = TrustedMetadataSet::new(&self.file("root"), NOW)?;
        set.finish_root()?;
        self.refresh_below_root(set)
    }

    fn refresh_below_root(&self, mut set: TrustedMetadataSet) -> Result<TrustedMetadataSet, TrustError> {
        set.update_timestamp(&self.file("timestamp"))?;
        set.update_snapshot(&self.file("snapshot"))?;
        let mut search = set.search("bundles/v/1/index.json");
        while let SearchStep::Load { role, delegator } = search.step(&set) {
            set.update_targets(&role, &delegator, &self.file(&role))?;
        }
        Ok(set)
    }

    fn finds(&self, target: &str) -> bool {
        let set = self.refresh().unwrap();
        matches!(set.search(target).step(&set), SearchStep::Found(_))
    }
}

/// A client that trusts `old` and is given what `new` publishes, under the same root.
fn after(old: &Repository, new: &Repository) -> Result<TrustedMetadataSet, TrustError> {
    old.refresh()?;
    let mut set = TrustedMetadataSet::new(&old.file("root"), NOW)?;
    set.finish_root()?;
    set.local_timestamp(&old.file("timestamp"));
    set.update_timestamp(&new.file("timestamp"))?;
    if !set.local_snapshot(&old.file("snapshot")) {
        set.update_snapshot(&new.file("snapshot"))?;
    }
    Ok(set)
}

#[test]
fn a_valid_repository_is_accepted_and_its_target_found() {
    let repository = Repository::new();
    assert!(repository.finds("bundles/v/1/index.json"));
    assert!(!repository.finds("bundles/v/2/index.json"));
    assert!(!repository.finds("policies/x.json"));
}

#[test]
fn a_wrong_key_and_too_few_keys_are_refused_for_every_role() {
    for name in ["root", "timestamp", "snapshot", "targets", "bundles"] {
        for signers in [vec![], vec![9], vec![1, 9]] {
            let mut repository = Repository::new();
            repository.signers.insert(name, signers.clone());
            assert!(
                matches!(repository.refresh(), Err(TrustError::Signatures { .. })),
                "{name} signed by {signers:?}"
            );
        }
    }
}

#[test]
fn one_key_listed_twice_counts_once() {
    let mut repository = Repository::new();
    repository.root["roles"]["root"] = role(&[1, 1], 2);
    repository.signers.insert("root", vec![1]);
    assert!(matches!(repository.refresh(), Err(TrustError::Signatures { valid: 1, threshold: 2, .. })));
}

#[test]
fn a_flipped_byte_anywhere_is_refused() {
    let repository = Repository::new();
    let good = repository.file("timestamp");
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        let mut set = TrustedMetadataSet::new(&repository.file("root"), NOW).unwrap();
        set.finish_root().unwrap();
        // The envelope may be spelled differently without changing what is signed; then it is the same document.
        let same = serde_json::from_slice::<Value>(&bad).is_ok_and(|v| {
            v["signed"] == repository.timestamp
                && v["signatures"] == serde_json::from_slice::<Value>(&good).unwrap()["signatures"]
        });
        assert_eq!(set.update_timestamp(&bad).is_ok(), same, "byte {at}: {}", String::from_utf8_lossy(&bad));
    }
}

#[test]
fn expired_metadata_is_a_freeze_attack_and_refused() {
    for name in ["root", "timestamp", "snapshot", "targets", "bundles"] {
        let mut repository = Repository::new();
        let document = match name {
            "root" => &mut repository.root,
            "timestamp" => &mut repository.timestamp,
            "snapshot" => &mut repository.snapshot,
            "targets" => &mut repository.targets,
            _ => &mut repository.bundles,
        };
        document["expires"] = in_days(0).into();
        assert!(matches!(repository.refresh(), Err(TrustError::Expired { .. })), "{name}");
    }
}

#[test]
fn a_signed_time_of_issue_is_a_floor_for_a_clock_that_lags() {
    let mut old = Repository::new();
    old.timestamp["issued"] = in_days(5).into();
    let mut frozen = Repository::new();
    frozen.timestamp["version"] = 2.into();
    frozen.timestamp["expires"] = in_days(4).into(); // in the future by the lagging clock
    assert!(matches!(after(&old, &frozen), Err(TrustError::Expired { .. })));
}

#[test]
fn older_versions_are_a_rollback_attack_and_refused() {
    let mut old = Repository::new();
    old.timestamp["version"] = 3.into();
    old.timestamp["meta"]["snapshot.json"]["version"] = 2.into();
    old.snapshot["version"] = 2.into();
    let mut new = Repository::new();
    new.timestamp["version"] = 2.into();
    assert!(matches!(after(&old, &new), Err(TrustError::Rollback { offered: 2, trusted: 3, .. })));
    new.timestamp["version"] = 4.into(); // names snapshot 1, after 2
    assert!(matches!(after(&old, &new), Err(TrustError::Rollback { offered: 1, trusted: 2, .. })));
}

#[test]
fn a_role_neither_goes_back_nor_away_in_a_new_snapshot() {
    let mut old = Repository::new();
    old.snapshot["meta"]["bundles.json"]["version"] = 5.into();
    old.bundles["version"] = 5.into();
    let next = |change: fn(&mut Value)| {
        let mut new = Repository::new();
        new.timestamp["version"] = 2.into();
        new.timestamp["meta"]["snapshot.json"]["version"] = 2.into();
        new.snapshot["version"] = 2.into();
        change(&mut new.snapshot["meta"]);
        new
    };
    assert!(matches!(
        after(&old, &next(|m| m["bundles.json"]["version"] = 4.into())),
        Err(TrustError::Rollback { .. })
    ));
    let gone = next(|m| drop(m.as_object_mut().unwrap().remove("bundles.json")));
    assert!(matches!(after(&old, &gone), Err(TrustError::NotListed { .. })));
    assert!(after(&old, &next(|m| m["bundles.json"]["version"] = 6.into())).is_ok());
}

#[test]
fn mixed_versions_and_wrong_digests_are_refused() {
    let mut mixed = Repository::new();
    mixed.snapshot["version"] = 2.into();
    assert!(matches!(mixed.refresh(), Err(TrustError::Version { found: 2, expected: 1, .. })));
    let mut wrong = Repository::new();
    wrong.timestamp["meta"]["snapshot.json"]["hashes"] = json!({"sha256": Sha256::of(b"other").to_string()});
    let error = wrong.refresh().unwrap_err();
    assert!(matches!(error, TrustError::Content { .. }) && error.is_integrity());
    let mut long = Repository::new();
    long.timestamp["meta"]["snapshot.json"]["length"] = 10.into();
    assert!(matches!(long.refresh(), Err(TrustError::Content { .. })));
}

#[test]
fn an_interrupted_update_goes_on_from_the_same_timestamp() {
    // The timestamp was stored, the snapshot was not.
    let repository = Repository::new();
    let mut set = TrustedMetadataSet::new(&repository.file("root"), NOW).unwrap();
    set.finish_root().unwrap();
    set.local_timestamp(&repository.file("timestamp"));
    assert_eq!(set.update_timestamp(&repository.file("timestamp")), Ok(TimestampUpdate::Unchanged));
    assert!(set.update_snapshot(&repository.file("snapshot")).is_ok());
}

#[test]
fn a_root_is_rotated_only_by_the_thresholds_of_both_and_one_version_at_a_time() {
    let old = Repository::new();
    let rotated = |version: u64, by: &[u8]| {
        let mut root = old.root.clone();
        root["version"] = version.into();
        root["keys"] = keys(&[2, 3, 8, 4, 5, 6]);
        root["roles"]["root"] = role(&[2, 3, 8], 2);
        signed(&root, by)
    };
    let update = |bytes: &[u8]| TrustedMetadataSet::new(&old.file("root"), NOW).unwrap().update_root(bytes);
    assert_eq!(update(&rotated(2, &[2, 3])), Ok(()));
    assert!(matches!(update(&rotated(2, &[2, 8])), Err(TrustError::Signatures { .. }))); // only one old key
    assert!(matches!(update(&rotated(2, &[1, 2])), Err(TrustError::Signatures { .. }))); // only one new key
    assert!(matches!(update(&rotated(3, &[2, 3])), Err(TrustError::Version { .. })));
    assert!(matches!(update(&rotated(1, &[2, 3])), Err(TrustError::Version { .. })));
}

#[test]
fn after_a_rotation_of_their_keys_lower_versions_are_accepted_again() {
    // Fast-forward recovery: an attacker with the timestamp key had raised the version to the sky.
    let mut attacked = Repository::new();
    attacked.timestamp["version"] = u64::MAX.into();
    let mut root = attacked.root.clone();
    root["version"] = 2.into();
    root["keys"] = keys(&[1, 2, 3, 14, 5, 6]);
    root["roles"]["timestamp"] = role(&[14], 1);
    let mut set = TrustedMetadataSet::new(&attacked.file("root"), NOW).unwrap();
    set.update_root(&signed(&root, &[1, 2])).unwrap();
    set.finish_root().unwrap();
    set.local_timestamp(&attacked.file("timestamp"));
    let mut healed = Repository::new();
    healed.timestamp["version"] = 2.into();
    healed.signers.insert("timestamp", vec![14]);
    assert_eq!(set.update_timestamp(&healed.file("timestamp")), Ok(TimestampUpdate::New));
}

#[test]
fn the_order_of_roles_is_enforced() {
    let repository = Repository::new();
    let mut set = TrustedMetadataSet::new(&repository.file("root"), NOW).unwrap();
    assert!(matches!(set.update_timestamp(&repository.file("timestamp")), Err(TrustError::Order { .. })));
    set.finish_root().unwrap();
    assert!(matches!(set.update_snapshot(&repository.file("snapshot")), Err(TrustError::Order { .. })));
    assert!(matches!(
        set.update_targets("targets", "root", &repository.file("targets")),
        Err(TrustError::Order { .. })
    ));
    assert!(matches!(set.update_root(&repository.file("root")), Err(TrustError::Order { .. })));
}

#[test]
fn a_delegated_role_speaks_only_of_its_paths() {
    let mut repository = Repository::new();
    let file = repository.bundles["targets"]["bundles/v/1/index.json"].clone();
    repository.bundles["targets"]["policies/p/x"] = file.clone();
    repository.bundles["targets"]["bundles/v/index.json"] = file;
    assert!(!repository.finds("policies/p/x"));
    assert!(!repository.finds("bundles/v/index.json"));
}

#[test]
fn a_cycle_of_delegations_ends() {
    let mut repository = Repository::new();
    repository.bundles["delegations"] = repository.targets["delegations"].clone();
    repository.bundles["targets"] = json!({});
    assert!(!repository.finds("bundles/v/1/index.json"));
}

#[test]
fn a_key_under_a_false_id_makes_the_root_malformed() {
    let mut repository = Repository::new();
    repository.root["keys"][key_id(9)] = repository.root["keys"][key_id(1)].clone();
    assert!(matches!(repository.refresh(), Err(TrustError::Malformed { .. })));
}

#[test]
fn another_type_and_another_specification_are_refused() {
    for (field, value) in [
        ("_type", json!("snapshot")),
        ("spec_version", json!("2.0")),
        ("version", json!(0)),
        ("expires", json!("soon")),
    ] {
        let mut repository = Repository::new();
        repository.timestamp[field] = value;
        assert!(TrustedMetadataSet::new(&repository.file("root"), NOW).is_ok());
        assert!(matches!(repository.refresh(), Err(TrustError::Malformed { .. })), "{field}");
    }
}
