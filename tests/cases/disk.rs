//! Disks that are too small: said before anything is fetched, never filled to the brim, and nothing lost.

use lab::debs::Deb;
use lab::sandbox::run;
use lab::world::World;

const MIB: u64 = 1024 * 1024;

const STATE: &str = "/var/lib/prestage";

#[test]
fn room_for_the_install_is_asked_for_before_anything_is_fetched() {
    let world = World::with(
        &[Deb::new("till-data", "1.0")],
        &[Deb::new("till-data", "2.0").payload(8 * MIB as usize)],
    );
    // Room for the reserve and the download, but neither for root's own copy nor for what it unpacks to.
    world.node.small_disk(STATE, 32 * MIB + 14 * MIB);
    run(&mut world.node.prestage(["fetch"])).expect(1).says(&["to fetch and install", "MiB"]);
    let digest = world.centre.member("till-data").sha256;
    assert!(
        !world.node.path(&format!("{STATE}/fetch/store/{digest}.partial")).exists(),
        "it began all the same"
    );
    world.node.normal_disk(STATE);
    run(&mut world.node.prestage(["fetch"])).expect(0);
}

#[test]
fn a_disk_that_fills_up_meanwhile_defers_and_loses_nothing() {
    let world = World::new();
    world.node.small_disk(STATE, 64 * MIB);
    // Somebody else writes while the bytes come: the check before has seen room.
    world.mirror.behave(lab::server::Behaviour {
        cuts: [lab::server::Cut {
            suffix: ".bundle.tar.gz".into(),
            after: 1_500_000,
            how: lab::server::CutKind::Stall,
        }]
        .into(),
        ..Default::default()
    });
    world.node.configure(&[&world.mirror.url()], "[fetch]\nstall-timeout-seconds = 2\n");
    let agent = lab::sandbox::Running::start(&mut world.node.prestage(["fetch"]));
    assert!(world.mirror.wait_for_stall());
    let filler = world.node.path(&format!("{STATE}/filler"));
    let _ = std::fs::write(&filler, vec![1; 64 * MIB as usize]); // to the last byte
    world.mirror.release();
    agent.wait().expect(1).says(&["space"]);
    assert_eq!(world.staged(), Vec::<String>::new());
    std::fs::remove_file(&filler).expect("the filler");
    let before = world.bundle_bytes_sent();
    run(&mut world.node.prestage(["fetch"])).expect(0);
    world.assert_staged_is_right();
    let twice = world.bundle_bytes_sent() - world.bytes_needed();
    assert!(before >= 1_500_000 && twice <= 64 * 1024, "{twice} bytes twice");
}

#[test]
fn the_quota_is_kept_and_what_is_of_no_use_any_more_goes_first() {
    let world = World::new();
    let quota = |mib: u64| world.configure(&format!("[fetch]\ndisk-quota = \"{mib}MiB\"\n"));
    quota(2);
    run(&mut world.node.prestage(["fetch"])).expect(1).says(&["disk-quota"]);
    assert_eq!(world.staged(), Vec::<String>::new());
    // What an earlier bundle has left behind, half fetched.
    let store = world.node.path(&format!("{STATE}/fetch/store"));
    let left = store.join(format!("{}.partial", format::digest::Sha256::of(b"earlier")));
    std::fs::write(&left, vec![7; 4 * MIB as usize]).expect("a partial file");
    quota(8);
    run(&mut world.node.prestage(["fetch"])).expect(0);
    world.assert_staged_is_right();
    assert!(!left.exists());
}

#[test]
fn a_bundle_that_is_staged_survives_when_there_is_no_room_for_its_successor() {
    let world = World::new();
    run(&mut world.node.prestage(["fetch"])).expect(0);
    let staged = world.staged();
    world.archive.publish(&[Deb::new("till-data", "3.0").payload(6 * MIB as usize)]);
    world.release("20261124-2");
    world.configure("[fetch]\ndisk-quota = \"5MiB\"\n");
    run(&mut world.node.prestage(["fetch"])).expect(1).says(&["disk-quota"]);
    assert_eq!(world.staged(), staged);
}
