//! Killed while it writes: what was acknowledged is there, and nothing counts twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::postgres::Cluster;
use crate::server::{Fleet, TestNode, now};

/// Nodes that send at the same time.
const NODES: usize = 6;

/// How often it is killed.
const ROUNDS: usize = 3;

/// So many acknowledgements between two kills.
const BETWEEN: usize = 40;

/// What a node has sent: id → envelope, and which of them was acknowledged.
#[derive(Default)]
struct Sent {
    all: BTreeMap<String, Vec<u8>>,
    acknowledged: BTreeSet<String>,
}

/// Sends until it is told to stop; what is not answered it would send again, as a node does.
fn send(fleet: &Fleet, node: &TestNode, sent: &mut Sent, stop: &AtomicBool, count: &AtomicUsize) {
    while !stop.load(Ordering::Relaxed) {
        let at = now() - 1_000_000 + sent.all.len() as i64;
        let report = node.report(at, "installed", &format!("v{}", sent.all.len()));
        let id = format::envelope::Sealed::parse(&report).expect("an envelope").id().to_string();
        sent.all.insert(id.clone(), report.clone());
        let batch = format::envelope::write_batch(&[report]);
        if let Ok(reply) = fleet.post("/api/v1/reports").bytes(batch).try_send()
            && reply.status == 200
        {
            let answer: format::envelope::Answer = serde_json::from_slice(&reply.body).expect("an answer");
            for id in answer.accepted {
                sent.acknowledged.insert(id.to_string());
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Kills in the middle, several times; then compares.
fn survives(fleet: &mut Fleet, kill: &mut dyn FnMut(&mut Fleet), up: &mut dyn FnMut(&mut Fleet)) {
    let nodes: Vec<TestNode> = (0..NODES).map(|n| fleet.enrolled(&format!("till-{n}"), &[])).collect();
    let mut sent: Vec<Sent> = nodes.iter().map(|_| Sent::default()).collect();
    for _ in 0..ROUNDS {
        let (stop, count) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for (node, sent) in nodes.iter().zip(&mut sent) {
                let (fleet, stop, count) = (&*fleet, &stop, &count);
                scope.spawn(move || send(fleet, node, sent, stop, count));
            }
            let end = Instant::now() + Duration::from_secs(120);
            while count.load(Ordering::Relaxed) < BETWEEN {
                assert!(Instant::now() < end, "nothing is acknowledged: {}", fleet.log());
                std::thread::yield_now();
            }
            // While they send: the kill is seen by whoever waits for an answer.
            fleet.strike();
            stop.store(true, Ordering::Relaxed);
        });
        kill(fleet);
        up(fleet);
    }
    let acknowledged: usize = sent.iter().map(|it| it.acknowledged.len()).sum();
    assert!(acknowledged >= ROUNDS * BETWEEN);
    for (node, sent) in nodes.iter().zip(&sent) {
        let stored = stored(fleet, &node.name);
        let lost: Vec<&String> = sent.acknowledged.difference(&stored).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    }
    // Everything once more, as nodes that did not hear the answer do.
    for sent in &sent {
        let all: Vec<Vec<u8>> = sent.all.values().cloned().collect();
        for piece in all.chunks(100) {
            // A database that has just come back may send one away, who comes again.
            let end = Instant::now() + Duration::from_secs(60);
            let mut reply = fleet.send(piece);
            while reply.status == 503 && Instant::now() < end {
                reply = fleet.send(piece);
            }
            reply.expect(200);
        }
    }
    let total: usize = sent.iter().map(|it| it.all.len()).sum();
    let today = fleet.look("/api/v1/summary")["reportsToday"].as_u64().expect("a number");
    assert_eq!(today, total as u64, "counted as often as they were sent, or not at all");
    for (node, sent) in nodes.iter().zip(&sent) {
        assert_eq!(stored(fleet, &node.name).len(), sent.all.len());
    }
}

/// The reports that the server has of a node.
fn stored(fleet: &Fleet, node: &str) -> BTreeSet<String> {
    let (mut cursor, mut out) = (String::new(), BTreeSet::new());
    loop {
        let page = fleet.look(&format!("/api/v1/nodes/{node}/reports?limit=500{cursor}"));
        for item in page["items"].as_array().expect("a list") {
            out.insert(item["report"]["id"].as_str().expect("an id").to_owned());
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return out,
        }
    }
}

#[test]
fn a_killed_server_has_lost_nothing_that_it_acknowledged_on_sqlite() {
    let mut fleet = Fleet::start(None, "");
    survives(&mut fleet, &mut |fleet| fleet.kill(), &mut |fleet| fleet.up());
}

#[test]
fn a_killed_server_and_a_killed_postgresql_have_lost_nothing_that_was_acknowledged() {
    let mut cluster = Cluster::start();
    let url = cluster.database("server_killed");
    survives(&mut Fleet::start(Some(&url), ""), &mut |fleet| fleet.kill(), &mut |fleet| fleet.up());
    let url = cluster.database("database_killed");
    let mut fleet = Fleet::start(Some(&url), "");
    let id = cluster.id();
    fleet.victim = Some(id);
    let cluster = std::cell::RefCell::new(&mut cluster);
    survives(&mut fleet, &mut |_| cluster.borrow_mut().kill(), &mut |fleet| {
        cluster.borrow_mut().up();
        fleet.victim = Some(cluster.borrow().id());
    });
}
