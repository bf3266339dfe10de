//! What must hold, whatever the database.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::server::{Fleet, PROGRAM, TestNode, bundle_ref, now};

/// A promise, and who holds the server to it.
type Case = (&'static str, fn(&mut Fleet));

/// All of them.
pub const CASES: &[Case] = &[
    ("a token enrols once", a_token_enrols_once),
    ("keys are registered, revoked, replaced", keys_are_registered_revoked_and_replaced),
    ("a report counts once", a_report_counts_once),
    ("a batch is judged one by one", a_batch_is_judged_one_by_one),
    ("the table is whole", the_table_is_whole_however_it_is_sorted),
    ("the past is told", the_past_is_told_whatever_order_it_came_in),
    ("inventories are shared", inventories_are_asked_for_once),
    ("roles and sessions", roles_and_sessions),
    ("numbers", numbers_are_right),
    ("quarantine", quarantine_is_what_nodes_said_last),
    ("events", browsers_are_told),
    ("carried", what_is_carried_here_counts_as_if_it_had_come),
    ("restart", nothing_is_lost_by_a_restart),
    ("fleetlock", so_many_of_a_site_restart_at_a_time),
];

/// What the cases need.
pub const CONFIGURATION: &str = "[fleetlock]\nenabled = true\nper-group = 2\n";

fn id_of(envelope: &[u8]) -> String {
    format::envelope::Sealed::parse(envelope).expect("an envelope").id().to_string()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().expect("a list").iter().map(|it| it.as_str().expect("text").to_owned()).collect()
}

fn a_token_enrols_once(fleet: &mut Fleet) {
    let token = fleet.enrollment_token(1);
    let first = TestNode::new("till-1", &[("site", "0815")]);
    let enroll = |node: &TestNode, token: Option<&str>| {
        fleet.post("/api/v1/enrollments").bytes(node.enrollment(token)).send().status
    };
    assert_eq!(enroll(&first, None), 403);
    assert_eq!(enroll(&first, Some("pf_wrong")), 403);
    assert_eq!(enroll(&first, Some(&token)), 201);
    // Again, for the answer may have been lost; and the token is used up.
    assert_eq!(enroll(&first, Some(&token)), 200);
    assert_eq!(enroll(&first, None), 200);
    assert_eq!(enroll(&TestNode::new("till-2", &[]), Some(&token)), 403);

    let bound = json!({"kind": "enrollment", "name": "one site", "labels": {"site": "0815"}, "uses": 5});
    let made = fleet.post("/api/v1/tokens").with("operator").json(&bound).send().expect(201);
    let bound = made["token"].as_str().expect("a token");
    assert_eq!(enroll(&TestNode::new("till-3", &[("site", "4711")]), Some(bound)), 403);
    assert_eq!(enroll(&TestNode::new("till-4", &[("site", "0815")]), Some(bound)), 201);
    fleet
        .delete(&format!("/api/v1/tokens/{}", made["id"].as_str().expect("an id")))
        .with("admin")
        .send()
        .expect(204);
    assert_eq!(enroll(&TestNode::new("till-5", &[("site", "0815")]), Some(bound)), 403);

    let page = fleet.look("/api/v1/nodes?sort=name");
    assert_eq!(page["total"], 2);
    assert_eq!(page["items"][0]["state"], "never-reported");
    assert_eq!(page["items"][0]["labels"]["site"], "0815");
    let audit = fleet.look("/api/v1/audit?action=enroll");
    assert_eq!(audit["items"].as_array().expect("a list").len(), 2);
}

fn keys_are_registered_revoked_and_replaced(fleet: &mut Fleet) {
    let node = TestNode::new("till-1", &[]);
    let public = format::digest::hex(&node.key.public().0);
    let register = |name: &str| {
        let key = json!({"publicKey": public});
        fleet.put(&format!("/api/v1/nodes/{name}/key")).with("admin").json(&key).send().status
    };
    assert_eq!(register("till-1"), 201);
    assert_eq!(register("till-2"), 409);
    // Expected is not enrolled.
    assert_eq!(fleet.send(&[node.status(now(), "upToDate")]).status, 401);
    assert_eq!(fleet.look("/api/v1/summary")["expected"], 1);
    fleet.post("/api/v1/enrollments").bytes(node.enrollment(None)).send().expect(201);
    fleet.send(&[node.status(now(), "upToDate")]).expect(200);

    // A cloned image has the key of another node.
    let mut clone = TestNode::new("till-1", &[]);
    clone.name = "till-9".into();
    let token = fleet.enrollment_token(5);
    let cloned = fleet.post("/api/v1/enrollments").bytes(clone.enrollment(Some(&token))).send();
    assert!(cloned.expect(409)["detail"].as_str().expect("text").contains("image"));
    // Another key for a node that has one.
    let mut other = TestNode::new("another key", &[]);
    other.name = "till-1".into();
    fleet.post("/api/v1/enrollments").bytes(other.enrollment(Some(&token))).send().expect(409);

    let revoke = json!({"reason": "stolen"});
    fleet.post("/api/v1/nodes/till-1/revoke").with("operator").json(&revoke).send().expect(200);
    fleet.send(&[node.status(now() + 1, "failed")]).expect(403);
    fleet.post("/api/v1/enrollments").bytes(node.enrollment(Some(&token))).send().expect(403);
    assert_eq!(fleet.look("/api/v1/nodes")["total"], 0);
    let page = fleet.look("/api/v1/nodes/till-1");
    assert_eq!((&page["key"]["state"], &page["key"]["revokedWhy"]), (&json!("revoked"), &json!("stolen")));
    assert_eq!(page["node"]["reportedState"], "upToDate");
    // Set up anew, with a token, it is the same node.
    fleet.post("/api/v1/enrollments").bytes(other.enrollment(Some(&token))).send().expect(201);
    fleet.send(&[other.status(now() + 2, "staged")]).expect(200);
    assert_eq!(fleet.look("/api/v1/nodes")["items"][0]["state"], "staged");
}

fn a_report_counts_once(fleet: &mut Fleet) {
    let node = fleet.enrolled("till-1", &[]);
    let report = node.report(now(), "installed", "v1");
    for _ in 0..3 {
        let receipt = fleet.send(&[report.clone(), report.clone()]).expect(200);
        assert_eq!(texts(&receipt["accepted"]), [id_of(&report), id_of(&report)]);
    }
    let summary = fleet.look("/api/v1/summary");
    assert_eq!((&summary["reportsToday"], &summary["bytesToday"]["received"]), (&json!(1), &json!(1000)));
    let page = fleet.look("/api/v1/nodes/till-1");
    assert_eq!(page["reports"].as_array().expect("a list").len(), 1);
    assert_eq!(page["installed"].as_array().expect("a list").len(), 1);
    assert_eq!(page["node"]["bundle"], "v1");
}

fn a_batch_is_judged_one_by_one(fleet: &mut Fleet) {
    let node = fleet.enrolled("till-1", &[]);
    let stranger = TestNode::new("till-2", &[]);
    let good = node.report(now(), "staged", "v1");
    let mut forged = node.report(now() - 1, "installed", "v1");
    let at = forged.iter().rposition(|byte| *byte == b'1').expect("a digit");
    forged[at] = b'2';
    let unknown = stranger.report(now(), "installed", "v1");
    let receipt = fleet.send(&[good.clone(), forged, unknown, b"{}".to_vec()]).expect(200);
    assert_eq!(texts(&receipt["accepted"]), [id_of(&good)]);
    assert_eq!(receipt["refused"].as_array().expect("a list").len(), 2, "{receipt}");
    // Of the one that is not enrolled nothing is said: it keeps its report.
    assert_eq!(fleet.look("/api/v1/summary")["reportsToday"], 1);
}

fn the_table_is_whole_however_it_is_sorted(fleet: &mut Fleet) {
    let states = ["upToDate", "staged", "failed", "deferred"];
    let sites = ["berlin", "prague", "zürich"];
    let mut sent = Vec::new();
    let token = fleet.enrollment_token(40);
    for n in 0..37 {
        let node = TestNode::new(&format!("till-{n}"), &[("site", sites[n % 3]), ("role", "till")]);
        fleet.post("/api/v1/enrollments").bytes(node.enrollment(Some(&token))).send().expect(201);
        if n % 5 > 0 {
            sent.push(node.status(now() + n as i64, states[n % 4]));
        }
    }
    fleet.send(&sent).expect(200);
    for sort in ["name", "state", "site", "variant", "bundle", "lastSeen", "failingSince"] {
        for direction in ["", "-"] {
            let (mut cursor, mut seen) = (String::new(), Vec::new());
            loop {
                let page = fleet.look(&format!("/api/v1/nodes?sort={direction}{sort}&limit=7{cursor}"));
                assert_eq!(page["total"], 37);
                for row in page["items"].as_array().expect("a list") {
                    seen.push(row["node"].as_str().expect("text").to_owned());
                }
                match page["next"].as_str() {
                    Some(next) => cursor = format!("&cursor={next}"),
                    None => break,
                }
            }
            let all: BTreeSet<&String> = seen.iter().collect();
            assert_eq!((seen.len(), all.len()), (37, 37), "{direction}{sort}");
        }
    }
    let count =
        |query: &str| fleet.look(&format!("/api/v1/nodes?{query}"))["total"].as_i64().expect("a number");
    assert_eq!(count("state=never-reported"), 8);
    assert_eq!(count("state=failed,staged,upToDate,deferred"), 29);
    assert_eq!(count("site=z%C3%BCrich"), 12);
    assert_eq!(count("label=site%3Dprague&label=role%3Dtill"), 12);
    assert_eq!(count("label=site%3Dprague&label=role%3Dkiosk"), 0);
    assert_eq!(count("q=TILL-3"), 8);
    // What means something in a pattern means itself.
    assert_eq!(count("q=%25"), 0);
    assert_eq!(count("q=till_1"), 0);
    for bad in [
        "nots=1",
        "sort=colour",
        "state=purple",
        "limit=0",
        "limit=501",
        "cursor=zz",
        "label=x",
        "site=a&site=b",
    ] {
        fleet.get(&format!("/api/v1/nodes?{bad}")).with("viewer").send().expect(400);
    }
    // The same page again is not sent again.
    let page = fleet.get("/api/v1/nodes").with("viewer").send();
    let again =
        fleet.get("/api/v1/nodes").with("viewer").header("If-None-Match", &page.headers["etag"]).send();
    assert_eq!((again.status, again.body.len()), (304, 0));
}

fn the_past_is_told_whatever_order_it_came_in(fleet: &mut Fleet) {
    let node = fleet.enrolled("till-1", &[("site", "0815")]);
    fleet.enrolled("till-2", &[]);
    let start = now() - 10;
    // Last, first, middle: what a queue that was dropped and carried looks like.
    for (at, version) in [(start + 6, "v3"), (start, "v1"), (start + 3, "v2"), (start + 3, "v2")] {
        fleet.send(&[node.report(at, "installed", version)]).expect(200);
    }
    let installed = fleet.look("/api/v1/nodes/till-1")["installed"].clone();
    let versions: Vec<&str> =
        installed.as_array().expect("a list").iter().filter_map(|it| it["bundle"].as_str()).collect();
    assert_eq!(versions, ["v3", "v2", "v1"]);
    assert_eq!(installed[0]["until"], Value::Null);
    assert_eq!(
        (&installed[1]["until"], &installed[2]["until"]),
        (&installed[0]["since"], &installed[1]["since"])
    );
    // The node was enrolled a moment ago: the question is asked of then and of now.
    let page = fleet.look("/api/v1/compliance");
    assert_eq!(page["items"].as_array().expect("a list").len(), 2);
    assert_eq!(
        (&page["items"][0]["bundle"], &page["items"][0]["outcome"]),
        (&json!("v3"), &json!("installed"))
    );
    assert_eq!(page["items"][1]["bundle"], Value::Null);
    let of_label = fleet.look("/api/v1/compliance?label=site%3D0815");
    assert_eq!(of_label["items"].as_array().expect("a list").len(), 1);
    assert_eq!(fleet.look("/api/v1/compliance?at=2020-01-01T00:00:00Z")["items"], json!([]));
    let csv = fleet.get("/api/v1/compliance?format=csv").with("viewer").send();
    let text = String::from_utf8(csv.body).expect("UTF-8");
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.lines().nth(1).expect("a line").contains(",till-1,0815,debian-12-amd64,v3,"), "{text}");
    let lines = fleet.run(&["export", "--format", "ndjson"]);
    assert_eq!(lines.lines().count(), 2);
    // A node that went back says so in its status.
    let mut status = node.status_document(now() + 1, "upToDate");
    status["status"]["installed"] = json!({"bundle": bundle_ref("v2"), "at": format::time::UnixTime(start + 3).to_string(), "packages": 1,
               "inventory": format::digest::Sha256::of(b"v2")});
    fleet.send(&[node.seal(&status)]).expect(200);
    assert_eq!(fleet.look("/api/v1/nodes/till-1")["installed"][0]["bundle"], "v2");
}

fn inventories_are_asked_for_once(fleet: &mut Fleet) {
    use format::inventory::{Inventory, PackageId};
    let (one, other) = (fleet.enrolled("till-1", &[]), fleet.enrolled("till-2", &[]));
    let packages = [("openssl", "3.0"), ("bash", "5.2")]
        .map(|(name, version)| (PackageId { name: name.into(), arch: "amd64".into() }, version.to_owned()));
    let inventory = Inventory(packages.into());
    let digest = inventory.digest().to_string();
    let report = |node: &TestNode| {
        let mut document = node.report_document(now(), "installed", "v1");
        document["inventory"] = digest.clone().into();
        texts(&fleet.send(&[node.seal(&document)]).expect(200)["wantsInventory"])
    };
    assert_eq!(report(&one), std::slice::from_ref(&digest));
    let document = |node: &TestNode| {
        let node_id = node.name.parse().expect("a name");
        let sent = format::envelope::NodeInventory::new(node_id, &inventory, format::time::UnixTime(now()));
        node.key.seal(&serde_json::to_vec(&sent).expect("JSON")).expect("strict JSON")
    };
    let path = format!("/api/v1/inventories/{digest}");
    // Not what anybody has.
    fleet.put(&path).bytes(document(&other)).send().expect(403);
    fleet.put(&path).bytes(document(&one)).send().expect(201);
    fleet.put(&path).bytes(document(&one)).send().expect(200);
    assert_eq!(report(&other), Vec::<String>::new());
    let had = fleet.look("/api/v1/nodes/till-2/inventory");
    assert_eq!(had["packages"][0], json!({"name": "bash", "arch": "amd64", "version": "5.2"}));
    let with = fleet.look("/api/v1/compliance?packages=true&node=till-1");
    assert_eq!(with["items"][0]["packages"].as_array().expect("a list").len(), 2);
    let drift = fleet.look("/api/v1/drift");
    assert_eq!((&drift["items"][0]["nodes"], &drift["items"][0]["sets"][0]["nodes"]), (&json!(2), &json!(2)));
}

fn roles_and_sessions(fleet: &mut Fleet) {
    fleet.get("/api/v1/summary").send().expect(401);
    fleet.get("/api/v1/summary").header("Authorization", "Bearer pf_0").send().expect(401);
    fleet.get("/api/v1/tokens").with("operator").send().expect(403);
    let login = fleet.post("/api/v1/session").json(&json!({"token": fleet.tokens["admin"]})).send();
    assert_eq!(login.expect(200)["role"], "admin");
    let cookie = &login.headers["set-cookie"];
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().expect("a cookie").to_owned();
    let me = fleet.get("/api/v1/session").header("Cookie", &cookie).send().expect(200);
    assert_eq!((&me["by"], &me["name"]), (&json!("session"), &json!("admin")));
    let wanted = json!({"kind": "operator", "name": "ann", "role": "viewer"});
    fleet.post("/api/v1/tokens").header("Cookie", &cookie).json(&wanted).send().expect(403);
    let with = |cookie: &str| {
        fleet
            .post("/api/v1/tokens")
            .header("Cookie", cookie)
            .header("X-Prestage-Csrf", "1")
            .json(&wanted)
            .send()
    };
    with(&cookie).expect(201);
    fleet
        .delete("/api/v1/session")
        .header("Cookie", &cookie)
        .header("X-Prestage-Csrf", "1")
        .send()
        .expect(204);
    with(&cookie).expect(401);
    // A revoked token takes its sessions along.
    let made = fleet.post("/api/v1/tokens").with("admin").json(&wanted).send().expect(201);
    let token = made["token"].as_str().expect("a token");
    let login = fleet.post("/api/v1/session").json(&json!({"token": token})).send();
    let cookie = login.headers["set-cookie"].split(';').next().expect("a cookie").to_owned();
    fleet.get("/api/v1/session").header("Cookie", &cookie).send().expect(200);
    let id = made["id"].as_str().expect("an id");
    fleet.delete(&format!("/api/v1/tokens/{id}")).with("admin").send().expect(204);
    fleet.get("/api/v1/session").header("Cookie", &cookie).send().expect(401);
    fleet.get("/api/v1/session").header("Authorization", &format!("Bearer {token}")).send().expect(401);
    let listed = fleet.get("/api/v1/tokens").with("admin").send();
    let listed = String::from_utf8(listed.body).expect("UTF-8");
    assert!(!listed.contains("pf_") && listed.contains("\"revoked\":true"), "{listed}");
}

fn numbers_are_right(fleet: &mut Fleet) {
    let (one, two, _three) =
        (fleet.enrolled("till-1", &[]), fleet.enrolled("till-2", &[]), fleet.enrolled("till-3", &[]));
    fleet
        .send(&[
            one.status(now(), "upToDate"),
            one.report(now(), "installed", "v1"),
            two.status(now() - 400, "failed"),
            two.report(now(), "installFailed", "v1"),
        ])
        .expect(200);
    let summary = fleet.look("/api/v1/summary");
    assert_eq!(summary["states"], json!({"failed": 1, "never-reported": 1, "upToDate": 1}));
    assert_eq!((&summary["total"], &summary["clockOff"]), (&json!(3), &json!(1)));
    assert_eq!(summary["failures"], json!([{"cause": "installFailed", "nodes": 1}]));
    assert_eq!(summary["reportsToday"], 2);
    let row = &fleet.look("/api/v1/nodes?sort=-failingSince&limit=1")["items"][0];
    assert_eq!(row["node"], "till-2");
    assert!(row["clockOff"].as_i64().expect("a number") <= -390, "{row}");
    let page = fleet.look("/api/v1/nodes/till-3");
    assert!(page["why"].as_str().expect("text").contains("never reported"));
    let metrics = fleet.get("/metrics").with("viewer").send();
    let metrics = String::from_utf8(metrics.body).expect("UTF-8");
    for line in [
        "prestage_fleet_nodes{state=\"failed\"} 1",
        "prestage_fleet_reports_total 2",
        "prestage_fleet_clock_off_nodes 1",
    ] {
        assert!(metrics.lines().any(|it| it == line), "{line}\n{metrics}");
    }
    fleet.get("/readyz").send().expect(200);
}

fn quarantine_is_what_nodes_said_last(fleet: &mut Fleet) {
    let node = fleet.enrolled("till-1", &[]);
    let mut status = node.status_document(now(), "quarantined");
    status["status"]["quarantine"] = json!([{
        "bundle": bundle_ref("v1"), "step": "fetch", "since": format::time::UnixTime(now()).to_string(),
        "exitCode": 2, "reason": "a checksum", "ends": "verified", "wayOut": "it is fetched again",
    }]);
    fleet.send(&[node.seal(&status)]).expect(200);
    let page = fleet.look("/api/v1/quarantine?bundle=v1");
    assert_eq!((&page["total"], &page["items"][0]["reason"]), (&json!(1), &json!("a checksum")));
    assert!(fleet.look("/api/v1/nodes/till-1")["why"].as_str().expect("text").contains("a checksum"));
    fleet.send(&[node.status(now() + 1, "upToDate")]).expect(200);
    assert_eq!(fleet.look("/api/v1/quarantine")["total"], 0);
    // Nobody has said how it is published.
    let release = json!({"policy": "ops/tills", "bundle": "v1", "reason": "it was a cache"});
    fleet.post("/api/v1/quarantine/release").with("operator").json(&release).send().expect(501);
    let audit = fleet.look("/api/v1/audit?action=release");
    assert_eq!(audit["items"][0]["reason"], "it was a cache");
}

fn browsers_are_told(fleet: &mut Fleet) {
    let node = fleet.enrolled("till-1", &[]);
    let agent = ureq::Agent::config_builder().timeout_recv_body(Some(Duration::from_secs(60))).build();
    let request = ureq::Agent::new_with_config(agent)
        .get(format!("{}/api/v1/events", fleet.url))
        .header("Authorization", format!("Bearer {}", fleet.tokens["viewer"]));
    let mut stream = request.call().expect("a stream").into_body().into_reader();
    let mut text = String::new();
    let mut wait_for = |what: &str| {
        let end = Instant::now() + Duration::from_secs(60);
        while !text.contains(what) {
            assert!(Instant::now() < end, "{what}: {text}");
            let mut piece = [0; 4096];
            let length = stream.read(&mut piece).expect("a piece");
            assert!(length > 0, "the stream ended: {text}");
            text += &String::from_utf8_lossy(&piece[..length]);
        }
    };
    wait_for("event: summary");
    fleet.send(&[node.status(now(), "needsPerson")]).expect(200);
    wait_for("event: node\ndata: {\"ids\":[\"till-1\"],\"more\":false}");
    wait_for("\"needsPerson\":1");
}

fn what_is_carried_here_counts_as_if_it_had_come(fleet: &mut Fleet) {
    let node = fleet.enrolled("till-1", &[]);
    let written = now() - 5 * 86_400;
    let export = [node.status(written, "staged"), node.report(written, "installed", "v1"), b"{}".to_vec()];
    let file = fleet.folder.path().join("export");
    std::fs::write(&file, export.join(&b'\n')).expect("a file");
    let receipt: Value =
        serde_json::from_str(&fleet.run(&["import", file.to_str().expect("UTF-8")])).expect("JSON");
    assert_eq!(receipt["accepted"].as_array().expect("a list").len(), 2);
    assert_eq!(receipt["refused"].as_array().expect("a list").len(), 1);
    let row = fleet.look("/api/v1/nodes")["items"][0].clone();
    assert_eq!(
        (&row["state"], &row["reportedState"], &row["clockOff"]),
        (&json!("silent"), &json!("staged"), &Value::Null)
    );
    assert_eq!(row["lastSeen"], format::time::UnixTime(written).to_string());
    // A batch is another form of the same, and an operator may send it.
    std::fs::write(&file, format::envelope::write_batch(&export[..2])).expect("a file");
    fleet.run(&["import", file.to_str().expect("UTF-8")]);
    let batch = format::envelope::write_batch(&export[..2]);
    fleet.post("/api/v1/reports").with("operator").bytes(batch).send().expect(200);
    assert_eq!(fleet.look("/api/v1/summary")["reportsToday"], 1);
}

fn nothing_is_lost_by_a_restart(fleet: &mut Fleet) {
    let node = fleet.enrolled("till-1", &[]);
    fleet.send(&[node.report(now(), "installed", "v1")]).expect(200);
    let status = fleet.end();
    assert!(status.success(), "{status}: {}", fleet.log());
    fleet.up();
    assert_eq!(fleet.look("/api/v1/nodes/till-1")["node"]["bundle"], "v1");
    if fleet.run(&["config", "show"]).contains("sqlite:") {
        let copy = fleet.folder.path().join("copy.db");
        fleet.run(&["backup", copy.to_str().expect("UTF-8")]);
        assert!(
            !fleet.command(&["backup", copy.to_str().expect("UTF-8")]).status().expect("it runs").success()
        );
        let config = fleet.folder.path().join("copy.toml");
        std::fs::write(&config, format!("[database]\nurl = \"sqlite:{}\"\n", copy.display()))
            .expect("a file");
        let export = std::process::Command::new(PROGRAM).arg("--config").arg(&config).arg("export").output();
        let export = String::from_utf8(export.expect("it runs").stdout).expect("UTF-8");
        assert!(export.contains("till-1"), "{export}");
    }
}

fn so_many_of_a_site_restart_at_a_time(fleet: &mut Fleet) {
    let ask = |what: &str, id: &str| {
        let body = json!({"client_params": {"id": id, "group": "0815"}});
        fleet.post(&format!("/v1/{what}")).header("fleet-lock-protocol", "true").json(&body).send().status
    };
    assert_eq!([ask("pre-reboot", "a"), ask("pre-reboot", "b"), ask("pre-reboot", "a")], [200, 200, 200]);
    assert_eq!(ask("pre-reboot", "c"), 409);
    assert_eq!(ask("steady-state", "a"), 200);
    assert_eq!(ask("pre-reboot", "c"), 200);
    fleet.post("/v1/pre-reboot").json(&json!({})).send().expect(400);
}
