//! What a node costs that has nothing to do, and when it comes: its own time, and not that of all others.

use format::time::UnixTime;
use lab::sandbox::run;
use lab::server::{Behaviour, Refusal};
use lab::world::World;

/// What an idle poll may move, both ways, TCP's and IP's own headers apart.
const BYTES: u64 = 4 * 1024;

/// What `[fetch]` says where a case is about pacing.
fn paced(more: &str) -> String {
    format!("[fetch]\npaced = true\n{more}")
}

fn requests(world: &World) -> usize {
    world.mirror.exchanges().len()
}

#[test]
fn an_idle_poll_is_at_most_two_requests_and_four_kib() {
    let world = World::new();
    run(&mut world.node.prestage(["run"])).expect(0);
    run(&mut world.node.prestage(["install", "--now"])).expect(0);
    run(&mut world.node.prestage(["fetch"])).expect(0);
    world.mirror.forget();
    run(&mut world.node.prestage(["fetch"])).expect(0);
    let exchanges = world.mirror.exchanges();
    assert!(exchanges.len() <= 2, "{exchanges:?}");
    let fetch = world.node.status().status.fetch.expect("the fetch step");
    assert!(fetch.requests <= 2 && fetch.bytes_received > 0, "{fetch:?}");
    let asked: usize = exchanges
        .iter()
        .map(|e| e.path.len() + e.headers.iter().map(|(n, v)| n.len() + v.len() + 4).sum::<usize>() + 16)
        .sum();
    let moved = fetch.bytes_received + asked as u64;
    eprintln!("{} requests, {moved} bytes both ways", exchanges.len());
    assert!(moved <= BYTES, "{moved} bytes");
}

#[test]
fn a_call_before_its_time_costs_no_request_and_a_person_does_not_wait() {
    let world = World::new();
    world.configure(&paced("spread-over = \"0\"\n"));
    run(&mut world.node.prestage(["fetch"])).expect(0);
    assert_eq!(world.staged().len(), 4, "a node that has never run does not wait");
    let next = world.node.status().status.next_fetch.expect("it has looked");
    assert!(next.at > world.node.status().status.updated_at && next.why.contains("looked"), "{next:?}");
    world.mirror.forget();
    for verb in ["fetch", "run", "fetch"] {
        run(&mut world.node.prestage([verb])).expect(0);
    }
    assert_eq!(requests(&world), 0, "it asked before its time");
    run(&mut world.node.prestage(["doctor"])).expect(0).says(&[&next.at.to_string(), "--now"]);
    run(&mut world.node.prestage(["status"])).expect(0).says(&[&next.at.to_string()]);
    run(&mut world.node.prestage(["fetch", "--now"])).expect(0);
    assert!(requests(&world) > 0);
}

#[test]
fn a_new_bundle_is_fetched_at_this_nodes_own_turn() {
    let world = World::new();
    world.configure(&paced("spread-over = \"7d\"\n"));
    let now = world.node.clock();
    run(&mut world.node.prestage(["fetch"])).expect(1).says(&["turn"]);
    assert_eq!(world.bundle_bytes_sent(), 0);
    // Faked days: what is kept is when the bundle was seen, and that is moved into the past.
    let mut state = world.node.pace();
    let seen: UnixTime = state["bundle"]["at"].as_str().expect("seen").parse().expect("a time");
    assert!(seen.since(now) < 60);
    state["bundle"]["at"] = UnixTime(seen.0 - 7 * 86_400).to_string().into();
    state["next_poll"] = serde_json::Value::Null;
    world.node.set_pace(&state);
    run(&mut world.node.prestage(["fetch"])).expect(0);
    assert_eq!(world.staged().len(), 4);
}

#[test]
fn failures_are_waited_after_and_a_servers_wish_is_obeyed() {
    let world = World::new();
    world.configure(&paced("spread-over = \"0\"\n"));
    let busy = Refusal { retry_after: Some("7200".into()), ..Refusal::always("", 503) };
    world.mirror.behave(Behaviour { refusals: vec![busy], ..Behaviour::default() });
    let before = world.node.clock();
    run(&mut world.node.prestage(["fetch"])).expect(69);
    let next = world.node.status().status.next_fetch.expect("it waits");
    assert!(next.at.since(before) >= 7200 && next.why.contains("asked"), "{next:?}");
    world.mirror.behave(Behaviour::default());
    world.mirror.forget();
    run(&mut world.node.prestage(["fetch"])).expect(1).says(&[&next.at.to_string()]);
    assert_eq!(requests(&world), 0);
    // The install and the reports of `run` do not wait with it.
    run(&mut world.node.prestage(["run"])).expect(1);
    run(&mut world.node.prestage(["fetch", "--now"])).expect(0);
    assert_eq!(world.staged().len(), 4);
}

#[test]
fn outside_the_transfer_window_a_node_looks_but_does_not_fetch() {
    let world = World::new();
    world.configure(&paced(&format!(
        "spread-over = \"0\"\ntransfer-windows = [\"{}\"]\n",
        world.node.not_today()
    )));
    run(&mut world.node.prestage(["fetch"])).expect(1).says(&["window"]);
    assert!(requests(&world) > 0 && world.bundle_bytes_sent() == 0);
    run(&mut world.node.prestage(["fetch", "--now"])).expect(0);
    assert_eq!(world.staged().len(), 4);
}
