use super::*;

fn object(version: &str, more: &str) -> Value {
    let spec = format!(r#"{{"bundleRef":{{"version":"{version}"}},"targets":{{"selector":{{}}}}{more}}}"#);
    json!({
        "apiVersion": "patchmgmt.io/v1",
        "kind": "PatchPolicy",
        "metadata": {"name": "tills", "namespace": "ops", "generation": 3, "uid": "u", "managedFields": []},
        "spec": serde_json::from_str::<Value>(&spec).unwrap(),
    })
}

fn rollout(object: &Value, state: &str, [installed, failed]: [u64; 2]) -> Value {
    let policy = own(object).unwrap();
    json!({
        "namespace": "ops", "name": "tills", "state": state,
        "policySha256": Sha256::of(&policy.to_json()),
        "bundle": policy.bundle.version, "reason": null, "by": null, "stuck": null, "plan": null,
        "batches": [
            {"nodes": 4, "installed": installed, "failed": failed, "waiting": 0, "staged": 0, "installing": 0, "rolledBack": 0, "silent": 0},
            {"nodes": 6, "installed": 0, "failed": 0, "waiting": 3, "staged": 1, "installing": 1, "rolledBack": 0, "silent": 1},
        ],
    })
}

const NOW: UnixTime = UnixTime(1_795_392_000);

fn condition<'s>(status: &'s Value, kind: &str) -> (&'s str, &'s str) {
    let found = status["conditions"].as_array().unwrap().iter().find(|it| it["type"] == kind).unwrap();
    (found["status"].as_str().unwrap(), found["reason"].as_str().unwrap())
}

#[test]
fn a_rollout_under_way_is_counted_over_its_batches() {
    let object = object("42", "");
    let status = status(&object, Heard::Rollout(&rollout(&object, "running", [3, 1])), NOW);
    let counts = COUNTS.map(|(name, _)| status[name].as_u64().unwrap());
    assert_eq!(counts, [10, 3, 2, 3, 1, 0, 1]);
    assert_eq!((&status["observedGeneration"], &status["state"]), (&json!(3), &json!("running")));
    assert_eq!(status["summary"], "3 of 10 nodes have bundle 42, 1 failed");
    assert_eq!(condition(&status, "Ready"), ("False", "Running"));
    assert_eq!(condition(&status, "Halted"), ("False", "NotHalted"));
    assert_eq!(condition(&status, "Degraded"), ("True", "NodesFailed"));
}

#[test]
fn what_does_not_change_is_not_written_and_a_condition_keeps_its_time() {
    let mut object = object("42", "");
    let heard = rollout(&object, "running", [3, 0]);
    let first = status(&object, Heard::Rollout(&heard), NOW);
    object["status"] = first.clone();
    assert_eq!(status(&object, Heard::Rollout(&heard), NOW.plus(60)), first);
    let more = rollout(&object, "running", [4, 0]);
    let second = status(&object, Heard::Rollout(&more), NOW.plus(60));
    assert_ne!(second, first);
    assert_eq!(second["conditions"][1], first["conditions"][1]);
    let done = status(&object, Heard::Rollout(&rollout(&object, "done", [4, 0])), NOW.plus(60));
    assert_eq!(condition(&done, "Ready"), ("True", "Done"));
    assert_ne!(done["conditions"][0]["lastTransitionTime"], first["conditions"][0]["lastTransitionTime"]);
}

#[test]
fn what_is_not_published_is_not_observed() {
    let mut old = object("42", "");
    old["status"] = status(&old, Heard::Rollout(&rollout(&old, "done", [4, 0])), NOW);
    // The object is changed; what is published is not.
    let mut new = object("43", "");
    new["metadata"]["generation"] = json!(4);
    new["status"] = old["status"].clone();
    let told = status(&new, Heard::Rollout(&rollout(&old, "done", [4, 0])), NOW);
    assert_eq!(
        (condition(&told, "Ready"), &told["observedGeneration"]),
        (("False", "AnotherPublished"), &json!(3))
    );
    let nothing = status(&object("42", ""), Heard::Nothing, NOW);
    assert_eq!(
        (condition(&nothing, "Ready"), &nothing["observedGeneration"]),
        (("False", "NotPublished"), &Value::Null)
    );
    // What the schema of the cluster let through, and the reader of policies does not.
    let wrong = object("42", r#","schedule":{"maintenanceWindow":"never"}"#);
    let told = status(&wrong, Heard::Nothing, NOW);
    assert_eq!(condition(&told, "Ready"), ("False", "Invalid"));
    assert!(told["conditions"][0]["message"].as_str().unwrap().contains("maintenanceWindow"), "{told}");
}

#[test]
fn a_rollback_and_a_release_on_the_published_repository_are_told_from_a_forgotten_publication() {
    let git = object("42", "");
    let plan = |more: &str, bundle: &str| -> Value {
        let text = format!(
            r#"{{"apiVersion":"patchmgmt.io/v1","kind":"RolloutPlan","policy":"ops/tills","bundleVersion":"{bundle}",
            "startedAt":"2026-11-23T00:00:00Z","state":"running","steps":[{{"notBefore":"2026-11-23T00:00:00Z","upTo":1000000}}],
            "history":[{{"action":"rollback","at":"2026-11-23T01:00:00Z","by":"ann","reason":"slow"}}]{more}}}"#
        );
        assert!(RolloutPlan::from_json(text.as_bytes()).is_ok());
        serde_json::from_str(&text).unwrap()
    };
    let released =
        object("42", r#","quarantine":{"release":[{"version":"42","before":"2026-11-23T02:00:00Z"}]}"#);
    let mut heard = rollout(&released, "running", [1, 0]);
    heard["plan"] = plan(r#","released":"2026-11-23T02:00:00Z""#, "42");
    let told = status(&git, Heard::Rollout(&heard), NOW);
    assert_eq!((condition(&told, "Ready"), &told["observedGeneration"]), (("False", "Running"), &json!(3)));
    let mut heard = rollout(&object("41", ""), "running", [1, 0]);
    heard["plan"] = plan(r#","rolledBackFrom":"42""#, "41");
    let told = status(&git, Heard::Rollout(&heard), NOW);
    assert_eq!(condition(&told, "Ready"), ("False", "RolledBack"));
    assert!(told["conditions"][0]["message"].as_str().unwrap().contains("by ann: slow"), "{told}");
}

#[test]
fn a_fleet_server_that_is_away_leaves_what_was_known_and_says_that_it_is_old() {
    let mut object = object("42", "");
    object["status"] = status(&object, Heard::Rollout(&rollout(&object, "done", [4, 0])), NOW);
    let told = status(&object, Heard::Away("no answer"), NOW.plus(60));
    assert_eq!(condition(&told, "Ready"), ("Unknown", "FleetServerAway"));
    assert_eq!((&told["installed"], &told["observedGeneration"]), (&json!(4), &json!(3)));
    assert_eq!(
        told["conditions"].as_array().unwrap()[1..],
        object["status"]["conditions"].as_array().unwrap()[1..]
    );
    object["status"] = told.clone();
    assert_eq!(status(&object, Heard::Away("no answer"), NOW.plus(120)), told);
}
