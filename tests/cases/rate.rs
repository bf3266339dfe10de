//! The rate as the wire sees it: never over the cap, and not far below it; by the hour; and not at all where the link
//! costs by the byte or the window is closed.

use lab::bench_fetch::most;
use lab::debs::Deb;
use lab::sandbox::{Running, run};
use lab::server::PATIENCE;
use lab::services::Nginx;
use lab::tap::Meter;
use lab::wait::until;
use lab::world::World;

fn capped(cap: u64, bytes: usize, config: &str) {
    let world = World::with(&[Deb::new("till-data", "1.0")], &[Deb::new("till-data", "2.0").payload(bytes)]);
    let nginx = Nginx::start(&world.sandbox, &world.centre.repository());
    // What waits in the meter is a tenth of what may be over the cap.
    let meter = Meter::start(nginx.address(), (cap / 20) as usize).expect("a port");
    world.node.configure(&[&meter.url()], config);
    run(&mut world.node.prestage(["fetch"])).expect(0);
    let seen = meter.seen();
    let total: u64 = seen.iter().map(|(_, n)| n).sum();
    let seconds = seen.last().expect("bytes").0.saturating_sub(seen[0].0).as_secs_f64();
    let (most, average) = (most(&seen), total as f64 / seconds);
    eprintln!(
        "cap {cap} B/s: at most {most} bytes in 10 s ({:.1} %), {average:.0} B/s over {seconds:.1} s ({:.1} %)",
        most as f64 * 100.0 / (cap * 10) as f64,
        average * 100.0 / cap as f64
    );
    assert!(seconds > 11.0, "it took {seconds:.1} s: too short to say anything");
    assert!(most <= cap * 10 * 105 / 100, "{most} bytes in 10 s");
    assert!(average >= cap as f64 * 0.95, "{average:.0} bytes a second");
}

#[test]
fn a_thin_cap_holds_on_the_wire_and_is_used() {
    capped(32_000, 500_000, "[fetch]\nrate = \"256kbit/s\"\n");
}

#[test]
fn a_cap_holds_on_the_wire_and_is_used() {
    capped(1_000_000, 14_000_000, "[fetch]\nrate = \"8Mbit/s\"\n");
}

#[test]
fn a_cap_by_the_hour_counts_before_the_general_one() {
    let config =
        "[fetch]\nrate = \"unlimited\"\nrates = [{ window = \"00:00-24:00\", rate = \"100kB/s\" }]\n";
    capped(100_000, 1_400_000, config);
}

#[test]
fn a_metered_link_carries_no_bundle_and_says_so() {
    let world = World::new();
    world.configure("[fetch]\npaced = true\nspread-over = \"0\"\n");
    world.node.write("/run/prestage/agent.d/metered.toml", "[fetch]\nmetered = \"pause\"\n");
    run(&mut world.node.prestage(["fetch"])).expect(1).says(&["metered"]);
    assert_eq!(world.bundle_bytes_sent(), 0);
    run(&mut world.node.prestage(["doctor"])).expect(0).says(&["metered"]);
    // The link is another one now.
    std::fs::remove_file(world.node.path("/run/prestage/agent.d/metered.toml")).expect("a drop-in");
    run(&mut world.node.prestage(["fetch", "--now"])).expect(0);
    world.assert_staged_is_right();
}

#[test]
fn progress_is_in_the_status_while_bytes_come_and_gone_afterwards() {
    let world = World::new();
    world.configure("[fetch]\nrate = \"400kB/s\"\n");
    let mut agent = Running::start(&mut world.node.prestage(["fetch"]));
    let path = world.node.path("/var/lib/prestage/status.json");
    let mut transfer = None;
    until("a transfer in the status", PATIENCE, || {
        assert!(!agent.has_ended(), "no progress was to be seen");
        let status = std::fs::read(&path).ok().and_then(|b| format::status::NodeStatus::parse(&b).ok());
        transfer = status.and_then(|s| s.status.transfer);
        transfer.is_some()
    });
    let transfer = transfer.expect("it was there");
    assert_eq!((transfer.source, transfer.cap), (world.mirror.url(), Some(400_000)));
    assert!(transfer.bytes_done > 0 && transfer.bytes_total >= transfer.bytes_done);
    agent.wait().expect(0);
    assert_eq!(world.node.status().status.transfer, None);
}
