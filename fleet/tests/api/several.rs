//! Several servers at one PostgreSQL are one: whatever is asked, whichever of them answers.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::cases;
use crate::postgres::Cluster;
use crate::server::{Fleet, TestNode, now};

/// What is about one process: its end, and what it believes for five seconds after it was revoked at another
/// (docs/usage/fleet.md).
const OF_ONE: [&str; 4] =
    ["a token enrols once", "keys are registered, revoked, replaced", "roles and sessions", "restart"];

#[test]
fn several_servers_on_one_postgresql_keep_its_promises_in_turn() {
    let cluster = Cluster::start();
    for (name, case) in cases::CASES.iter().filter(|(name, _)| !OF_ONE.contains(name)) {
        eprintln!("{name}");
        let database = cluster.database(&name.replace([' ', ',', '-'], "_"));
        case(&mut Fleet::start_several(2, Some(&database), cases::CONFIGURATION));
    }
}

#[test]
fn a_login_at_one_server_counts_at_another_and_what_is_revoked_there_ends_here() {
    let cluster = Cluster::start();
    let fleet = Fleet::start_several(2, Some(&cluster.database("sessions")), "");
    let wanted = serde_json::json!({"kind": "operator", "name": "ann", "role": "viewer"});
    let made = fleet.post("/api/v1/tokens").at(0).with("admin").json(&wanted).send().expect(201);
    let token = serde_json::json!({"token": made["token"]});
    let login = fleet.post("/api/v1/session").at(0).json(&token).send();
    login.expect(200);
    let cookie = login.headers["set-cookie"].split(';').next().expect("a cookie").to_owned();
    let ask = |server| fleet.get("/api/v1/session").at(server).header("Cookie", &cookie).send().status;
    assert_eq!([ask(0), ask(1)], [200, 200]);
    let path = format!("/api/v1/tokens/{}", made["id"].as_str().expect("an id"));
    fleet.delete(&path).at(0).with("admin").send().expect(204);
    assert_eq!(ask(0), 401);
    // The other one believes what it has just seen for a moment, and no longer.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while ask(1) == 200 {
        assert!(std::time::Instant::now() < end, "it still counts");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn a_token_for_one_node_enrols_one_however_many_ask_at_several_servers_at_once() {
    let cluster = Cluster::start();
    let fleet = Fleet::start_several(3, Some(&cluster.database("race")), "");
    for round in 0..5 {
        let token = fleet.enrollment_token(1);
        let enrolled = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for n in 0..6 {
                let (fleet, token, enrolled) = (&fleet, &token, &enrolled);
                scope.spawn(move || {
                    let node = TestNode::new(&format!("till-{round}-{n}"), &[]);
                    let ask = fleet.post("/api/v1/enrollments").at(n % 3);
                    match ask.bytes(node.enrollment(Some(token))).send().status {
                        201 => drop(enrolled.fetch_add(1, Ordering::Relaxed)),
                        status => assert_eq!(status, 403),
                    }
                });
            }
        });
        assert_eq!(enrolled.into_inner(), 1);
    }
}

#[test]
fn a_report_that_several_servers_get_at_once_counts_once_and_one_that_dies_takes_nothing_along() {
    let cluster = Cluster::start();
    let mut fleet = Fleet::start_several(3, Some(&cluster.database("reports")), "");
    let node = fleet.enrolled("till-1", &[]);
    let reports: Vec<Vec<u8>> =
        (0..60).map(|n| node.report(now() - 1000 + n, "installed", &format!("v{n}"))).collect();
    std::thread::scope(|scope| {
        for server in 0..3 {
            let (fleet, reports) = (&fleet, &reports);
            scope.spawn(move || {
                for piece in reports.chunks(7) {
                    let batch = format::envelope::write_batch(piece);
                    fleet.post("/api/v1/reports").at(server).bytes(batch).send().expect(200);
                }
            });
        }
    });
    assert_eq!(fleet.look("/api/v1/summary")["reportsToday"], 60);
    // One is killed; what it acknowledged is at the others, and they go on.
    fleet.drop_first();
    let last = node.report(now(), "rolledBack", "v60");
    fleet.send(std::slice::from_ref(&last)).expect(200);
    fleet.send(&[last]).expect(200);
    assert_eq!(fleet.look("/api/v1/summary")["reportsToday"], 61);
    let stored = fleet.look("/api/v1/nodes/till-1/reports?limit=500");
    assert_eq!(stored["items"].as_array().expect("a list").len(), 61);
}
