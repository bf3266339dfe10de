//! Sizes beyond 32 bits. Takes minutes and about 25 GB of disk, so only `make test-long` runs it.

use std::time::Duration;

use lab::debs::Deb;
use lab::sandbox::{Running, run};
use lab::server::{Behaviour, Cut, CutKind};
use lab::wait::until;
use lab::world::World;

const GIB: u64 = 1024 * 1024 * 1024;

/// What the agent may take for any bundle: twice what the shipped program may, for this is the one that is not
/// optimised.
const MEMORY_KIB: u64 = 12 * 1024;

#[test]
#[ignore = "minutes, and 25 GB of disk: make test-long"]
fn a_bundle_over_4_gib_with_members_over_2_gib_is_fetched_resumed_and_staged() {
    let old = ["till-a", "till-b"].map(|name| Deb::new(name, "1.0"));
    let new = [
        Deb::new("till-a", "2.0").zeros(2 * GIB + 300_000_000),
        Deb::new("till-b", "2.0").zeros(2 * GIB + 100_000_000),
    ];
    let world = World::with(&old, &new);
    let index = world.centre.index();
    assert!(index.bundle.length > 4 * GIB, "{} bytes", index.bundle.length);
    assert!(index.packages().all(|m| m.size > 2 * GIB));

    // Interrupted beyond 4 GiB.
    world.mirror.behave(Behaviour {
        cuts: [Cut { suffix: ".bundle.tar.gz".into(), after: 4 * GIB + 123_456, how: CutKind::Stall }].into(),
        ..Behaviour::default()
    });
    let mut agent = Running::start(&mut world.node.prestage(["fetch"]));
    until("the agent is beyond 4 GiB", Duration::from_secs(600), || {
        assert!(!agent.has_ended(), "the agent never came so far");
        world.mirror.is_stalled()
    });
    agent.kill();
    world.mirror.release();
    let ended = run(&mut world.node.prestage(["fetch"])).expect(0);
    assert!(ended.own_kib <= MEMORY_KIB, "{} KiB", ended.own_kib);
    let whole: u64 = index.members.iter().filter_map(|m| m.whole()).map(|e| e.length).sum();
    let twice = world.bundle_bytes_sent() - whole;
    assert!(twice <= 64 * 1024, "{twice} bytes twice");
    assert_eq!(world.staged().len(), 2);

    // As root reads it again: identical to the last byte, or it would be refused. The packages are not unpacked.
    world.node.write("/etc/apt/apt.conf.d/99-stop", "DPkg::Pre-Invoke { \"exit 1\"; };\n");
    let install = run(&mut world.node.prestage(["install", "--now"]));
    assert!(matches!(install.code, Some(4 | 6)), "{install}");
    assert!(install.own_kib <= MEMORY_KIB, "{} KiB", install.own_kib);
}
