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

/// A search that loads each role from `files`, by name.
fn search_with<'s>(
    set: &'s mut TrustedMetadataSet,
    target: &str,
    files: &BTreeMap<&str, Vec<u8>>,
) -> Result<(Option<&'s format::metadata::TargetFile>, Vec<String>), TrustError> {
    let mut search = set.search(target);
    while let SearchStep::Load { role, delegator } = search.step(set) {
        set.update_targets(&role, &delegator, &files[role.as_str()])?;
    }
    let visited = search.visited().to_vec();
    let found = match set.search(target).step(set) {
        SearchStep::Found(file) => Some(file),
        _ => None,
    };
    Ok((found, visited))
}

fn targets_role(targets: Value, delegations: Value) -> Value {
    json!({
        "_type": "targets", "spec_version": "1.0.34", "version": 1, "expires": in_days(30),
        "targets": targets, "delegations": delegations,
    })
}

fn delegation(name: &str, key: u8, rest: Value) -> Value {
    let mut role = json!({"name": name, "keyids": [key_id(key)], "threshold": 1, "terminating": false});
    role.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    role
}

/// A repository whose top-level targets role, and those below it, are the given ones: name, content, key.
fn delegating(roles: &[(&'static str, Value, u8)]) -> (TrustedMetadataSet, BTreeMap<&'static str, Vec<u8>>) {
    let mut repository = Repository::new();
    for (name, ..) in roles {
        repository.snapshot["meta"][format!("{name}.json")] = json!({"version": 1});
    }
    let mut set = TrustedMetadataSet::new(&repository.file("root"), NOW).unwrap();
    set.finish_root().unwrap();
    set.update_timestamp(&repository.file("timestamp")).unwrap();
    set.update_snapshot(&repository.file("snapshot")).unwrap();
    let files = roles.iter().map(|(name, content, key)| (*name, signed(content, &[*key])));
    (set, files.collect())
}

#[test]
fn delegations_are_followed_depth_first_and_a_terminating_one_ends_everything() {
    let to = |names: &[(&str, bool)]| {
        let roles = names.iter().map(|(n, t)| delegation(n, 7, json!({"paths": ["*"], "terminating": t})));
        json!({"keys": keys(&[7]), "roles": roles.collect::<Vec<_>>()})
    };
    let none = || targets_role(json!({}), to(&[]));
    let (mut set, files) = delegating(&[
        ("targets", targets_role(json!({}), to(&[("a", false), ("b", false)])), 6),
        ("a", targets_role(json!({}), to(&[("c", false), ("d", false)])), 7),
        ("b", none(), 7),
        ("c", none(), 7),
        ("d", none(), 7),
    ]);
    let (found, visited) = search_with(&mut set, "x", &files).unwrap();
    assert!(found.is_none());
    assert_eq!(visited, ["targets", "a", "c", "d", "b"]);
    let (mut set, files) = delegating(&[
        ("targets", targets_role(json!({}), to(&[("a", false), ("b", false)])), 6),
        ("a", targets_role(json!({}), to(&[("c", true), ("d", false)])), 7),
        ("c", none(), 7),
    ]);
    assert_eq!(search_with(&mut set, "x", &files).unwrap().1, ["targets", "a", "c"]);
}

#[test]
fn a_role_reached_by_another_delegator_is_verified_by_that_one() {
    let file = json!({"length": 3, "hashes": {"sha256": Sha256::of(b"abc").to_string()}});
    let to_c = |key: u8, pattern: &str| json!({"keys": keys(&[key]), "roles": [delegation("c", key, json!({"paths": [pattern]}))]});
    let (mut set, mut files) = delegating(&[
        (
            "targets",
            targets_role(
                json!({}),
                json!({"keys": keys(&[7]), "roles": [delegation("a", 7, json!({"paths": ["*"]})), delegation("b", 7, json!({"paths": ["*"]}))]}),
            ),
            6,
        ),
        ("a", targets_role(json!({}), to_c(8, "*.py")), 7),
        ("b", targets_role(json!({}), to_c(9, "*")), 7),
        ("c", targets_role(json!({"x.py": file, "x.md": file}), json!({"keys": {}, "roles": []})), 8),
    ]);
    assert!(search_with(&mut set, "x.py", &files).unwrap().0.is_some());
    // Through b another key counts, whatever has been loaded through a.
    assert!(matches!(search_with(&mut set, "x.md", &files), Err(TrustError::Signatures { .. })));
    let c = targets_role(json!({"x.md": file}), json!({"keys": {}, "roles": []}));
    files.insert("c", signed(&c, &[9]));
    assert!(search_with(&mut set, "x.md", &files).unwrap().0.is_some());
}

#[test]
fn no_more_roles_are_loaded_than_the_limit() {
    // A chain without end: role n delegates to n+1.
    let mut repository = Repository::new();
    for n in 0..100 {
        repository.snapshot["meta"][format!("r{n}.json")] = json!({"version": 1});
    }
    let mut set = TrustedMetadataSet::new(&repository.file("root"), NOW).unwrap();
    set.finish_root().unwrap();
    set.update_timestamp(&repository.file("timestamp")).unwrap();
    set.update_snapshot(&repository.file("snapshot")).unwrap();
    let next = |n: usize| {
        let role = delegation(&format!("r{n}"), 7, json!({"paths": ["*"]}));
        targets_role(json!({}), json!({"keys": keys(&[7]), "roles": [role]}))
    };
    let mut search = set.search("x");
    let mut loaded = 0;
    while let SearchStep::Load { role, delegator } = search.step(&set) {
        let (content, key) = match role.strip_prefix('r') {
            Some(n) => (next(n.parse::<usize>().unwrap() + 1), 7),
            None => (next(0), 6),
        };
        set.update_targets(&role, &delegator, &signed(&content, &[key])).unwrap();
        loaded += 1;
    }
    assert_eq!(loaded, 1 + format::trust::MAX_DELEGATIONS);
}

#[test]
fn hash_prefixes_delegate_by_the_digest_of_the_path() {
    let file = json!({"length": 3, "hashes": {"sha256": Sha256::of(b"abc").to_string()}});
    let digest = Sha256::of(b"some/path").to_string();
    let world = |prefix: &str| {
        let role = delegation("bin", 7, json!({"path_hash_prefixes": [prefix]}));
        delegating(&[
            ("targets", targets_role(json!({}), json!({"keys": keys(&[7]), "roles": [role]})), 6),
            ("bin", targets_role(json!({"some/path": file}), json!({"keys": {}, "roles": []})), 7),
        ])
    };
    let (mut set, files) = world(&digest[..4]);
    assert!(search_with(&mut set, "some/path", &files).unwrap().0.is_some());
    let (mut set, files) = world("0123456789");
    assert!(search_with(&mut set, "some/path", &files).unwrap().0.is_none());
}

#[test]
fn a_delegation_that_is_ambiguous_makes_the_role_malformed() {
    let both = json!({"paths": ["*"], "path_hash_prefixes": ["00"]});
    for (why, roles) in [
        (
            "twice",
            vec![delegation("a", 7, json!({"paths": ["x"]})), delegation("a", 7, json!({"paths": ["*"]}))],
        ),
        ("a top-level role's name", vec![delegation("root", 7, json!({"paths": ["*"]}))]),
        ("both kinds of paths", vec![delegation("a", 7, both)]),
        ("no paths", vec![delegation("a", 7, json!({}))]),
    ] {
        let content = targets_role(json!({}), json!({"keys": keys(&[7]), "roles": roles}));
        let (mut set, files) = delegating(&[("targets", content, 6)]);
        assert!(matches!(search_with(&mut set, "x", &files), Err(TrustError::Malformed { .. })), "{why}");
    }
}

#[test]
fn every_known_digest_must_match_and_one_must_be_known() {
    let sha256 = |bytes: &[u8]| Sha256::of(bytes).to_string();
    let sha512 = |bytes: &[u8]| hex(&format::digest::sha512(bytes));
    for (hashes, good) in [
        (json!({"sha256": sha256(b"abc")}), true),
        (json!({"sha512": sha512(b"abc")}), true),
        (json!({"sha256": sha256(b"abc"), "sha512": sha512(b"abc"), "blake3": 7}), true),
        (json!({"sha256": sha256(b"abc"), "sha512": sha512(b"other")}), false),
        (json!({"sha256": sha256(b"other"), "sha512": sha512(b"abc")}), false),
        (json!({"blake3": "00"}), false),
    ] {
        let none = json!({"keys": {}, "roles": []});
        let content = targets_role(json!({"d/x": {"length": 3, "hashes": hashes}}), none);
        let (mut set, files) = delegating(&[("targets", content, 6)]);
        let file = search_with(&mut set, "d/x", &files).unwrap().0.unwrap().clone();
        assert_eq!(file.check(b"abc").is_ok(), good, "{hashes}");
        assert!(file.check(b"abcd").is_err());
        let prefix = hashes["sha256"].as_str().or(hashes["sha512"].as_str());
        assert_eq!(set.any_target_file("d/x", &file), prefix.map(|p| format!("targets/d/{p}.x")));
        // The same of a metadata file.
        let mut repository = Repository::new();
        let snapshot = repository.file("snapshot");
        repository.timestamp["meta"]["snapshot.json"]["hashes"] = json!({"sha512": sha512(&snapshot)});
        assert!(repository.refresh().is_ok());
        repository.timestamp["meta"]["snapshot.json"]["hashes"]["sha256"] = sha256(b"other").into();
        assert!(matches!(repository.refresh(), Err(TrustError::Content { .. })));
        repository.timestamp["meta"]["snapshot.json"]["hashes"] = json!({"blake3": "00"});
        assert!(matches!(repository.refresh(), Err(TrustError::Content { .. })));
    }
}

#[test]
fn one_key_under_two_ids_counts_once() {
    // A field that means nothing makes another id of the same key.
    let mut twin = PublicKey::ed25519_object(&public(1));
    twin["note"] = "again".into();
    let twin_id = Sha256::of(&canonical(&twin).unwrap()).to_string();
    let mut repository = Repository::new();
    repository.root["keys"][&twin_id] = twin;
    repository.root["roles"]["root"] = json!({"keyids": [key_id(1), twin_id], "threshold": 2});
    let message = canonical(&repository.root).unwrap();
    let signature = hex(key(1).sk.sign(&message, None).as_ref());
    let file = json!({
        "signed": repository.root,
        "signatures": [{"keyid": key_id(1), "sig": signature}, {"keyid": twin_id, "sig": signature}],
    });
    let refused = TrustedMetadataSet::new(&serde_json::to_vec(&file).unwrap(), NOW).map(|_| ());
    assert!(matches!(refused, Err(TrustError::Signatures { valid: 1, threshold: 2, .. })), "{refused:?}");
}

#[test]
fn keyid_hash_algorithms_of_any_shape_mean_nothing_but_count_in_the_id() {
    for shape in [json!(["sha256", "sha512"]), json!("sha256"), json!({"a": [1]}), Value::Null] {
        let mut object = PublicKey::ed25519_object(&public(4));
        object["keyid_hash_algorithms"] = shape;
        let id = Sha256::of(&canonical(&object).unwrap()).to_string();
        let mut repository = Repository::new();
        repository.root["keys"][&id] = object;
        repository.root["roles"]["timestamp"] = json!({"keyids": [id], "threshold": 1});
        let message = canonical(&repository.timestamp).unwrap();
        let signature = hex(key(4).sk.sign(&message, None).as_ref());
        let file = json!({"signed": repository.timestamp, "signatures": [{"keyid": id, "sig": signature}]});
        let mut set = TrustedMetadataSet::new(&repository.file("root"), NOW).unwrap();
        set.finish_root().unwrap();
        assert!(set.update_timestamp(&serde_json::to_vec(&file).unwrap()).is_ok());
    }
}

#[test]
fn without_consistent_snapshots_names_carry_neither_version_nor_digest() {
    let mut repository = Repository::new();
    repository.root["consistent_snapshot"] = false.into();
    let set = repository.refresh().unwrap();
    assert_eq!(set.wanted_snapshot().unwrap().file, "snapshot.json");
    assert_eq!(set.wanted_targets("targets").unwrap().file, "targets.json");
    assert_eq!(set.wanted_root().file, "2.root.json");
    let SearchStep::Found(file) = set.search("bundles/v/1/index.json").step(&set) else { panic!() };
    assert_eq!(
        set.any_target_file("bundles/v/1/index.json", file).unwrap(),
        "targets/bundles/v/1/index.json"
    );
    repository.root.as_object_mut().unwrap().remove("consistent_snapshot");
    assert_eq!(repository.refresh().unwrap().wanted_snapshot().unwrap().file, "snapshot.json");
}

#[test]
fn a_signed_length_lowers_the_limit_and_never_raises_it() {
    let mut repository = Repository::new();
    repository.snapshot["meta"]["targets.json"]["length"] = u64::MAX.into();
    repository.snapshot["meta"]["bundles.json"]["length"] = 7.into();
    let mut set = TrustedMetadataSet::new(&repository.file("root"), NOW).unwrap();
    set.finish_root().unwrap();
    set.update_timestamp(&repository.file("timestamp")).unwrap();
    set.update_snapshot(&repository.file("snapshot")).unwrap();
    assert_eq!(set.wanted_targets("targets").unwrap().limit, format::trust::MAX_TARGETS);
    assert_eq!(set.wanted_targets("bundles").unwrap().limit, 7);
}

#[test]
fn a_role_that_says_something_else_now_takes_back_what_it_delegated() {
    let file = json!({"length": 3, "hashes": {"sha256": Sha256::of(b"abc").to_string()}});
    let to = |role: &str, key: u8, pattern: &str| json!({"keys": keys(&[key]), "roles": [delegation(role, key, json!({"paths": [pattern]}))]});
    // a and b delegate to c with different keys; there are two files of c, which give d different keys.
    let both = json!({"keys": keys(&[7]), "roles": [delegation("a", 7, json!({"paths": ["*"]})), delegation("b", 7, json!({"paths": ["*"]}))]});
    let (mut set, mut files) = delegating(&[
        ("targets", targets_role(json!({}), both), 6),
        ("a", targets_role(json!({}), to("c", 8, "*.py")), 7),
        ("b", targets_role(json!({}), to("c", 9, "*.md")), 7),
        ("c", targets_role(json!({}), to("d", 7, "*")), 8),
        ("d", targets_role(json!({"x.py": file, "x.md": file}), json!({"keys": {}, "roles": []})), 7),
    ]);
    assert!(search_with(&mut set, "x.py", &files).unwrap().0.is_some());
    files.insert("c", signed(&targets_role(json!({}), to("d", 10, "*")), &[9]));
    assert!(matches!(search_with(&mut set, "x.md", &files), Err(TrustError::Signatures { .. })));
}
