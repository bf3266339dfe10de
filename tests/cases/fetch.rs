//! A fetch over a bad line, and from a mirror that misbehaves: it finishes, and hardly a byte comes twice.

use std::time::Instant;

use format::index::BLOCK;
use format::status::State;
use lab::random::Random;
use lab::repository::Part;
use lab::sandbox::{Running, run};
use lab::server::{Behaviour, Cut, CutKind, PATIENCE};
use lab::wait::until;
use lab::world::{World, old_packages};

/// What may be fetched twice for each interruption.
const TWICE: u64 = 64 * 1024;

/// How often the fetch is interrupted.
const INTERRUPTIONS: u64 = 20;

const BUNDLE: &str = ".bundle.tar.gz";

#[test]
fn twenty_interruptions_cost_at_most_64_kib_each() {
    let mut world = World::new();
    let mut random = Random::from_environment("twenty_interruptions");
    let undisturbed = world.bytes_needed();
    // Each somewhere in its twentieth of the file, so that all of them are met.
    let step = undisturbed / (INTERRUPTIONS + 1);
    let how =
        |random: &mut Random| [CutKind::Stall, CutKind::Stall, CutKind::Reset][random.below(3) as usize];
    let cuts = (0..INTERRUPTIONS).map(|_| Cut {
        suffix: BUNDLE.into(),
        after: 1 + random.below(step),
        how: how(&mut random),
    });
    world.mirror.behave(Behaviour { cuts: cuts.collect(), ..Behaviour::default() });
    let mut agents = vec![Running::start(&mut world.node.prestage(["fetch"]))];
    let mut killed = 0;
    until("all cuts are over", PATIENCE * 2, || {
        if world.mirror.is_stalled() {
            if random.below(2) == 0 {
                // kill -9 in the middle of the transfer.
                agents.drain(..).for_each(|agent| drop(agent.kill()));
                killed += 1;
                world.mirror.release();
                agents.push(Running::start(&mut world.node.prestage(["fetch"])));
            } else {
                // The mirror goes away in the middle of the transfer and comes back.
                world.mirror.restart().expect("the same port");
            }
        } else if agents[0].has_ended() {
            // It gave up, for now: the timer comes again.
            agents.drain(..).for_each(|agent| drop(agent.wait().expect(69)));
            agents.push(Running::start(&mut world.node.prestage(["fetch"])));
        }
        world.mirror.cuts_left() == 0 && !world.mirror.is_stalled()
    });
    eprintln!("{killed} times kill -9");
    let ended = agents.remove(0).wait();
    assert!(matches!(ended.code, Some(0 | 1 | 69)), "{ended}");
    world.mirror.behave(Behaviour::default());
    run(&mut world.node.prestage(["fetch"])).expect(0);
    world.assert_staged_is_right();
    let sent = world.bundle_bytes_sent();
    let twice = sent - undisturbed;
    eprintln!("{INTERRUPTIONS} interruptions, {twice} bytes twice ({} each)", twice / INTERRUPTIONS);
    assert!(twice <= TWICE * INTERRUPTIONS, "{twice} bytes twice in {INTERRUPTIONS} interruptions");
    run(&mut world.node.prestage(["install", "--now"])).expect(0);
    world.assert_patched();
}

#[test]
fn twenty_kills_while_bytes_are_flowing_cost_at_most_64_kib_each() {
    let world = World::new();
    // Slow enough that bytes wait in every buffer on the way when the kill comes.
    world.node.configure(&[&world.mirror.url()], "[fetch]\nrate = \"1MB/s\"\n");
    let mut random = Random::from_environment("twenty_kills");
    let step = world.bytes_needed() / (INTERRUPTIONS + 1);
    for _ in 0..INTERRUPTIONS {
        let enough = world.bundle_bytes_sent() + 1 + random.below(step);
        let mut agent = Running::start(&mut world.node.prestage(["fetch"]));
        let come = || world.bundle_bytes_sent() >= enough || agent.has_ended();
        until(&format!("{enough} bytes"), PATIENCE, come);
        agent.kill();
    }
    world.node.configure(&[&world.mirror.url()], "");
    run(&mut world.node.prestage(["fetch"])).expect(0);
    world.assert_staged_is_right();
    let twice = world.bundle_bytes_sent() - world.bytes_needed();
    eprintln!("{INTERRUPTIONS} kills, {twice} bytes twice ({} each)", twice / INTERRUPTIONS);
    assert!(twice <= TWICE * INTERRUPTIONS, "{twice} bytes twice in {INTERRUPTIONS} kills");
}

#[test]
fn a_mirror_that_fails_every_second_request_is_good_enough() {
    let world = World::new();
    world.mirror.behave(Behaviour { every_second_fails: true, ..Behaviour::default() });
    // Either it gets through by itself, or by being run again as the timer does.
    let ended =
        (0..10).map(|_| run(&mut world.node.prestage(["fetch"]))).find(|o| !matches!(o.code, Some(1 | 69)));
    ended.expect("ten runs get through").expect(0);
    world.assert_staged_is_right();
}

#[test]
fn the_next_mirror_is_taken_where_one_does_not_answer() {
    let world = World::new();
    world.node.configure(&["http://127.0.0.1:1/", &world.mirror.url()], "");
    run(&mut world.node.prestage(["fetch"])).expect(0);
    world.assert_staged_is_right();
}

#[test]
fn no_mirror_at_all_is_code_69_and_named() {
    let world = World::new();
    world.node.configure(&["http://127.0.0.1:1/"], "");
    run(&mut world.node.prestage(["fetch"])).expect(69).says(&["127.0.0.1:1"]);
    assert_eq!(world.node.inventory().get("till-app").map(String::as_str), Some("1.0"));
}

#[test]
fn a_mirror_that_ignores_ranges_does_not_spoil_what_is_fetched() {
    let world = World::new();
    world.mirror.behave(Behaviour { ignore_range: true, ..Behaviour::default() });
    let ended = run(&mut world.node.prestage(["fetch"]));
    assert!(matches!(ended.code, Some(0 | 1 | 69)), "{ended}");
    world.mirror.behave(Behaviour::default());
    run(&mut world.node.prestage(["fetch"])).expect(0);
    world.assert_staged_is_right();
}

#[test]
fn a_mirror_that_answers_with_another_range_is_not_believed() {
    let world = World::new();
    world.mirror.behave(Behaviour { shift_range: 7, ..Behaviour::default() });
    let ended = run(&mut world.node.prestage(["fetch"]));
    assert!(matches!(ended.code, Some(1 | 2 | 69)), "{ended}");
    assert_eq!(world.staged(), Vec::<String>::new());
    world.mirror.behave(Behaviour::default());
    run(&mut world.node.prestage(["fetch"])).expect(0);
    world.assert_staged_is_right();
}

#[test]
fn a_redirect_to_another_host_is_not_followed() {
    let world = World::new();
    let elsewhere = lab::server::Server::start(&world.centre.repository()).expect("a port");
    world.mirror.behave(Behaviour {
        // Another name of the same machine is another host.
        redirect_to: Some(elsewhere.url().replace("127.0.0.1", "localhost")),
        ..Behaviour::default()
    });
    let ended = run(&mut world.node.prestage(["fetch"]));
    assert!(!matches!(ended.code, Some(0)), "{ended}");
    assert_eq!(elsewhere.exchanges().len(), 0, "the agent went where it was sent");
    assert_eq!(world.staged(), Vec::<String>::new());
}

#[test]
fn a_byte_damaged_on_the_way_is_fetched_again_and_nothing_else_is() {
    let world = World::new();
    let at = world.centre.offset_of("till-data", 2_000_000);
    world.mirror.behave(Behaviour { flip: Some((BUNDLE.into(), at)), ..Behaviour::default() });
    run(&mut world.node.prestage(["fetch"])).expect(2).says(&["till-data"]);
    assert_eq!(world.staged(), Vec::<String>::new());
    assert_eq!(world.node.status().status.state, State::Quarantined);
    world.mirror.behave(Behaviour::default());
    run(&mut world.node.prestage(["fetch"])).expect(0);
    world.assert_staged_is_right();
    // A block and not the member, each time that the damage came over the line: block hashes stand in the index.
    let exchanges = world.mirror.exchanges();
    let covers = |e: &&lab::server::Exchange| {
        let from = e.from.unwrap_or(0);
        e.path.ends_with(BUNDLE) && (from..from + e.sent).contains(&at)
    };
    let damaged = exchanges.iter().filter(covers).count() as u64 - 1;
    let twice = world.bundle_bytes_sent() - world.bytes_needed();
    assert!(twice <= damaged * (BLOCK + TWICE), "{twice} bytes twice for a block damaged {damaged} times");
}

#[test]
fn the_rate_limit_holds() {
    let mut old = old_packages();
    old.truncate(3);
    let world = World::with(&old, &lab::world::new_packages());
    world.configure("[fetch]\nrate = \"1MiB/s\"\n");
    let start = Instant::now();
    run(&mut world.node.prestage(["fetch"])).expect(0);
    let seconds = start.elapsed().as_secs_f64();
    let sent = world.bundle_bytes_sent() as f64 / (1024.0 * 1024.0);
    assert!(sent / seconds <= 1.05, "{sent:.2} MiB in {seconds:.2} s with a limit of 1 MiB/s");
}

#[test]
fn a_bundle_that_is_not_for_this_node_is_not_fetched() {
    let world = World::new();
    let os_release = world.node.read("/etc/os-release");
    let version = os_release.lines().find(|l| l.starts_with("VERSION_ID=")).expect("a version");
    world.node.write("/etc/os-release", os_release.replace(version, "VERSION_ID=\"1\""));
    run(&mut world.node.prestage(["fetch"])).expect(0).says(&["variant"]);
    assert_eq!(world.bundle_bytes_sent(), 0);
    assert!(world.centre.file(Part::Index).exists());
}
