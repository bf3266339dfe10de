//! What the server says of itself is true: every route is described and every description is a route, and what is answered
//! fits its schema.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};

use crate::server::{Fleet, now};

/// Reads the description, and compares: Python's jsonschema, which is not ours.
const CHECK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openapi.py");

#[test]
fn the_description_is_what_the_server_does() {
    let mut fleet = Fleet::start(None, crate::cases::CONFIGURATION);
    let inventories = crate::cases::CASES.iter().find(|(name, _)| *name == "inventories are shared");
    inventories.expect("a case").1(&mut fleet);
    walk(&fleet);
    let routes: BTreeSet<(String, String, String)> = fleet::api::routes()
        .iter()
        .map(|it| (it.method.to_string(), it.path.to_owned(), it.access.as_str().to_owned()))
        .collect();
    let given = json!({"routes": routes, "exchanges": *fleet.exchanges.lock().expect("no panic")});
    let input = fleet.folder.path().join("given.json");
    std::fs::write(&input, given.to_string()).expect("a file");
    let output = Command::new("/usr/bin/python3")
        .args([CHECK, concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.yaml")])
        .stdin(std::fs::File::open(&input).expect("a file"))
        .output()
        .expect("python3 with yaml and jsonschema: run scripts/setup.sh");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
}

/// Asks once for everything.
fn walk(fleet: &Fleet) {
    let node = fleet.enrolled("walker", &[("site", "0815")]);
    let mut status = node.status_document(now(), "failed");
    status["status"]["quarantine"] = json!([{
        "bundle": crate::server::bundle_ref("v1"), "step": "install", "since": "2026-11-23T00:00:00Z",
        "exitCode": 4, "reason": "dpkg", "ends": "byHand", "wayOut": "install --now",
    }]);
    fleet.send(&[node.seal(&status), node.report(now(), "installed", "v1")]).expect(200);
    for path in [
        "enrollments?limit=1",
        "session",
        "summary",
        "summary/history?hours=24",
        "nodes?limit=1",
        "nodes/walker",
        "nodes/walker/reports",
        "nodes/walker/inventory",
        "drift?label=site",
        "rollouts",
        "compliance",
        "compliance?format=csv",
        "compliance?format=ndjson",
        "quarantine",
        "audit?limit=2",
        "repository",
        "openapi.yaml",
    ] {
        let reply = fleet.get(&format!("/api/v1/{path}")).with("viewer").send();
        assert_eq!(reply.status, 200, "{path}");
    }
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(fleet.get(path).with("viewer").send().status, 200, "{path}");
    }
    fleet.get("/api/v1/tokens").with("admin").send().expect(200);
    fleet.get("/api/v1/nodes/nobody").with("viewer").send().expect(404);
    fleet.get("/api/v1/rollouts/ops/tills").with("viewer").send().expect(404);
    let login = fleet.post("/api/v1/session").json(&json!({"token": fleet.tokens["viewer"]})).send();
    login.expect(200);
    fleet.delete("/api/v1/session").send().expect(204);
    let reason = json!({"reason": "a test"});
    fleet.post("/api/v1/rollouts/ops/tills/pause").with("operator").json(&reason).send().expect(501);
    let made = json!({"kind": "enrollment", "name": "walk"});
    let made: Value = fleet.post("/api/v1/tokens").with("admin").json(&made).send().expect(201);
    let id = made["id"].as_str().expect("an id");
    fleet.delete(&format!("/api/v1/tokens/{id}")).with("admin").send().expect(204);
    let key = json!({"publicKey": "00".repeat(32), "reason": "a test"});
    fleet.put("/api/v1/nodes/expected/key").with("admin").json(&key).send().expect(201);
    fleet.post("/api/v1/nodes/walker/revoke").with("operator").json(&reason).send().expect(200);
    for what in ["pre-reboot", "steady-state"] {
        let body = json!({"client_params": {"id": "walker", "group": "0815"}});
        fleet
            .post(&format!("/v1/{what}"))
            .header("fleet-lock-protocol", "true")
            .json(&body)
            .send()
            .expect(200);
    }
}
