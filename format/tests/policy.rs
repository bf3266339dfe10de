//! The policies of the golden files: those that are accepted stay what they are, and each refusal says what it said.
//!
//! The files in `data/policy/refused` each break one thing; `refused.txt` has a line for each with the whole message.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use format::policy::{Amount, PatchPolicy, Reboot, RolloutType, select};

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/policy")
}

fn read(name: &str) -> PatchPolicy {
    PatchPolicy::from_json(&fs::read(data().join(name)).unwrap()).unwrap()
}

#[test]
fn the_accepted_ones_are_written_byte_for_byte_as_they_are() {
    for name in ["design.json", "maximal.json"] {
        let bytes = fs::read(data().join(name)).unwrap();
        let policy = PatchPolicy::from_json(&bytes).unwrap();
        assert_eq!(String::from_utf8(policy.to_json()).unwrap(), String::from_utf8(bytes).unwrap(), "{name}");
    }
}

#[test]
fn the_same_policy_has_the_same_bytes_however_it_was_written() {
    let text = fs::read_to_string(data().join("maximal.json")).unwrap();
    let mut other: serde_json::Value = serde_json::from_str(&text).unwrap();
    let spec = &mut other["spec"];
    for list in ["/schedule/maintenanceWindow", "/targets/selector/matchExpressions"] {
        let list = spec.pointer_mut(list).unwrap().as_array_mut().unwrap();
        list.reverse();
        list.push(list[0].clone());
    }
    spec["schedule"]["maintenanceWindow"][0] = "mon,tue-FRI 22:00-05:30".into();
    spec["transfer"] = serde_json::json!({
        "rate": "250 kB/s", "timezone": "Europe/Berlin", "windows": ["Mon-Sun 20:00-06:00", "20:00-06:00"]
    });
    let policy = PatchPolicy::from_json(other.to_string().as_bytes()).unwrap();
    assert_eq!(String::from_utf8(policy.to_json()).unwrap(), text);
}

#[test]
fn the_design_document_means_what_it_says() {
    let policy = read("design.json");
    assert_eq!(policy.id(), "operations/edge-fleet-q4-2024");
    assert_eq!(policy.target_path().unwrap().as_str(), "policies/operations/edge-fleet-q4-2024/policy.json");
    assert_eq!(policy.bundle.version.as_str(), "20241105-build-42");
    let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    };
    assert!(policy.selector.matches(&labels(&[("role", "edge-node"), ("region", "us-east"), ("site", "7")])));
    assert!(!policy.selector.matches(&labels(&[("role", "edge-node"), ("region", "us-west")])));
    let schedule = policy.schedule.as_ref().unwrap();
    assert_eq!(schedule.windows.iter().map(ToString::to_string).collect::<Vec<_>>(), ["Tue 02:00-04:00"]);
    assert_eq!(schedule.timezone.as_ref().unwrap().as_str(), "America/New_York");
    let batches = RolloutType::RollingUpdate { batch_size: Amount::Nodes(100), batch_delay_minutes: 15 };
    assert_eq!(policy.rollout.as_ref().unwrap().kind, batches);
    let rollback = policy.rollback.as_ref().unwrap();
    assert!(rollback.enabled);
    assert_eq!(rollback.health_check_url.as_ref().unwrap().as_str(), "http://localhost:8080/health");
    assert_eq!(rollback.health_check_timeout_seconds, Some(120));
    assert_eq!((policy.reboot, policy.paused, policy.transfer.is_none()), (None, false, true));
}

#[test]
fn the_shortest_policy_has_the_defaults() {
    let policy = read("minimal.json");
    assert_eq!(policy.id(), "default/a");
    assert!(policy.selector.matches(&BTreeMap::new()));
    assert!(policy.schedule.is_none() && policy.rollout.is_none() && policy.rollback.is_none());
}

#[test]
fn the_longest_policy_has_everything() {
    let policy = read("maximal.json");
    assert_eq!(policy.reboot, Some(Reboot::IfNeeded));
    assert_eq!(policy.transfer.as_ref().unwrap().rate.unwrap().bytes_per_second(), Some(250_000));
    assert_eq!(policy.release[&"20261120-41".parse().unwrap()].to_string(), "2026-11-23T12:00:00Z");
    assert!(policy.paused);
}

#[test]
fn two_policies_for_one_node_are_an_error_that_names_both() {
    let policies = [read("design.json"), read("minimal.json")];
    let labels = [("role", "edge-node"), ("region", "us-east")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let error = select(&policies, &BTreeMap::from(labels)).unwrap_err();
    assert_eq!(error.names, ["default/a", "operations/edge-fleet-q4-2024"]);
    assert_eq!(select(&policies, &BTreeMap::new()).unwrap(), Some(&policies[1]));
    assert_eq!(select(&policies[..1], &BTreeMap::new()).unwrap(), None);
}

#[test]
fn each_refusal_says_where_and_why() {
    let mut said = String::new();
    let mut files: Vec<PathBuf> =
        fs::read_dir(data().join("refused")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let error = match PatchPolicy::from_json(&fs::read(&file).unwrap()) {
            Ok(_) => "ACCEPTED".to_owned(),
            Err(error) => error.to_string(),
        };
        said += &format!("{name}: {error}\n");
    }
    let golden = data().join("refused.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&golden, &said).unwrap();
    }
    assert_eq!(said, fs::read_to_string(&golden).unwrap());
}

#[test]
fn a_policy_that_is_too_long_is_refused_before_it_is_read() {
    let long =
        format!("{}{}", fs::read_to_string(data().join("design.json")).unwrap(), " ".repeat(64 * 1024));
    assert_eq!(PatchPolicy::from_json(long.as_bytes()).unwrap_err().to_string(), "it is longer than 64 KiB");
}
