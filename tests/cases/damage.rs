//! One byte is wrong, anywhere in the chain: exit 2 or 3, in words that name the file and what to do; nothing is
//! staged, nothing installed; the bundle is quarantined where it is known; and it ends by itself when the repository is
//! right again.

use std::os::unix::fs::FileExt as _;

use format::report::Step;
use format::status::State;
use lab::random::Random;
use lab::repository::Part;
use lab::sandbox::run;
use lab::world::World;

/// Breaks one byte of `part`, sees it refused, puts it right and sees the node recover. `words` are in the message.
fn a_flipped_byte_is_refused(part: Part, words: &[&str]) {
    let world = World::new();
    let node = &world.node;
    let mut random = Random::from_environment(&format!("{part:?}"));
    let length = std::fs::metadata(world.centre.file(part)).expect("a file of the repository").len();
    let at = match part {
        // Not the file's last byte: a newline at the end of a JSON text says nothing.
        Part::Timestamp | Part::Snapshot | Part::Targets | Part::Bundles | Part::Index => {
            random.below(length - 1)
        }
        // RFC 1952: ten bytes, each of which is known beforehand.
        Part::BundleHeader => random.below(10),
        Part::BundleData => world.centre.offset_of("till-data", random.below(lab::world::LARGE as u64)),
    };
    eprintln!("byte {at} of {}", world.centre.file(part).display());
    let before = node.image();

    world.centre.flip(part, at);
    let refused = run(&mut node.prestage(["fetch"]));
    assert!(matches!(refused.code, Some(2 | 3)), "{refused}");
    let refused = refused.says(words);
    let code = refused.code;
    assert_eq!(world.staged(), Vec::<String>::new(), "{refused}");
    let status = node.status().status;
    assert_eq!(status.state, State::Quarantined, "{}", status.summary);
    assert_eq!(status.fetch.map(|f| i32::from(f.exit_code)), code);
    let known = matches!(part, Part::Index | Part::BundleHeader | Part::BundleData);
    assert_eq!(status.quarantine.len(), usize::from(known), "{:?}", status.quarantine);
    if let Some(quarantined) = status.quarantine.first() {
        assert_eq!(quarantined.bundle.version.as_str(), lab::world::VERSION);
        assert!(!quarantined.reason.is_empty() && !quarantined.way_out.is_empty());
    }

    // An install now does nothing, and says why.
    let install = run(&mut node.prestage(["install", "--now"]));
    assert!(matches!(install.code, Some(1..=3)), "{install}");
    node.assert_is(&before);

    // The repository is right again; so is the node, with no hand laid on it.
    world.centre.flip(part, at);
    run(&mut node.prestage(["run"])).expect(0);
    world.assert_patched();
    let status = node.status().status;
    assert_eq!((status.state, status.quarantine), (State::UpToDate, Vec::new()), "{}", status.summary);
}

#[test]
fn a_flipped_byte_in_timestamp_is_refused() {
    a_flipped_byte_is_refused(Part::Timestamp, &["timestamp.json"]);
}

#[test]
fn a_flipped_byte_in_snapshot_is_refused() {
    a_flipped_byte_is_refused(Part::Snapshot, &["snapshot.json"]);
}

#[test]
fn a_flipped_byte_in_targets_is_refused() {
    a_flipped_byte_is_refused(Part::Targets, &["targets.json"]);
}

#[test]
fn a_flipped_byte_in_bundles_is_refused() {
    a_flipped_byte_is_refused(Part::Bundles, &["bundles.json"]);
}

#[test]
fn a_flipped_byte_in_the_index_is_refused() {
    a_flipped_byte_is_refused(Part::Index, &["index.json"]);
}

#[test]
fn a_flipped_byte_in_the_bundle_header_is_refused() {
    a_flipped_byte_is_refused(Part::BundleHeader, &["bundle.tar.gz", "Packages"]);
}

#[test]
fn a_flipped_byte_in_the_bundle_data_is_refused() {
    a_flipped_byte_is_refused(Part::BundleData, &["bundle.tar.gz", "till-data"]);
}

#[test]
fn any_byte_of_the_signed_metadata_counts() {
    // Cheap for one node, for nothing is fetched behind the damage: many bytes of each file.
    let world = World::new();
    let mut random = Random::from_environment("any_byte");
    for part in [Part::Timestamp, Part::Snapshot, Part::Targets, Part::Bundles] {
        let length = std::fs::metadata(world.centre.file(part)).expect("a file of the repository").len();
        for _ in 0..8 {
            let at = random.below(length - 1);
            world.centre.flip(part, at);
            let refused = run(&mut world.node.prestage(["fetch"]));
            assert!(matches!(refused.code, Some(2 | 3)), "byte {at} of {part:?}: {refused}");
            world.centre.flip(part, at);
        }
    }
    assert_eq!(world.staged(), Vec::<String>::new());
}

/// The file of a staged package.
fn staged_deb(world: &World, name: &str) -> std::path::PathBuf {
    let staged = world.node.path("/var/lib/prestage/fetch/staged");
    let folder = std::fs::read_dir(staged).expect("a staged repo").flatten().next().expect("a staged repo");
    folder.path().join(world.centre.member(name).path.as_str())
}

#[test]
fn a_staged_package_altered_before_the_install_is_caught() {
    let world = World::new();
    let node = &world.node;
    run(&mut node.prestage(["fetch"])).expect(0);
    let before = node.image();
    let deb = staged_deb(&world, "till-data");
    let file = std::fs::File::options().read(true).write(true).open(&deb).expect("a staged package");
    let mut byte = [0];
    file.read_exact_at(&mut byte, 1_000_000).expect("a byte");
    file.write_all_at(&[byte[0] ^ 1], 1_000_000).expect("a byte");
    drop(file);
    run(&mut node.prestage(["install", "--now"])).expect(2).says(&["till-data"]);
    node.assert_is(&before);
    // Whoever did it may still be at work: no later run tries again by itself, not even by hand, whatever is fetched.
    for verb in [&["run"][..], &["install", "--now"], &["fetch"]] {
        let again = run(node.prestage([]).args(verb));
        assert!(again.code == Some(if verb == ["fetch"] { 0 } else { 2 }), "{again}");
        let status = node.status().status;
        assert_eq!((status.state, status.quarantine.len()), (State::Quarantined, 1), "{}", status.summary);
        assert_eq!((status.quarantine[0].step, status.quarantine[0].exit_code), (Step::Install, 2));
        node.assert_is(&before);
    }
    run(&mut node.prestage(["status"])).expect(0).says(&["till-data", "prestage release"]);
    run(&mut node.prestage(["doctor"])).expect(0).says(&["is refused", "prestage release"]);
    // Until somebody has looked.
    run(&mut node.prestage(["release", "20990101-1"])).expect(0).says(&["is not refused"]);
    run(&mut node.prestage(["release", lab::world::VERSION])).expect(0).says(&["is released"]);
    run(&mut node.prestage(["run"])).expect(0);
    world.assert_patched();
    assert_eq!(node.status().status.quarantine, Vec::new());
}

#[test]
fn what_was_altered_on_the_node_does_not_hold_up_another_bundle() {
    let world = World::new();
    run(&mut world.node.prestage(["fetch"])).expect(0);
    std::fs::write(staged_deb(&world, "till-data"), "altered").expect("a staged package");
    run(&mut world.node.prestage(["install", "--now"])).expect(2).says(&["till-data"]);
    world.release("20261201-1");
    run(&mut world.node.prestage(["run"])).expect(0);
    world.assert_patched();
    assert_eq!(world.node.status().status.quarantine, Vec::new());
}

#[test]
fn where_the_operator_wants_it_a_damaged_bundle_is_refused_until_it_is_released() {
    let world = World::new();
    let node = &world.node;
    world.configure("[fetch]\nquarantine = \"until-released\"\n");
    let at = world.centre.offset_of("till-data", 1000);
    world.centre.flip(Part::BundleData, at);
    run(&mut node.prestage(["fetch"])).expect(2).says(&["till-data"]);
    world.centre.flip(Part::BundleData, at);
    let sent = world.bundle_bytes_sent();
    for _ in 0..2 {
        run(&mut node.prestage(["run"])).expect(2).says(&["till-data", "refused"]);
    }
    assert_eq!(world.bundle_bytes_sent(), sent, "what is refused is not fetched");
    assert_eq!(node.status().status.state, State::Quarantined);
    run(&mut node.prestage(["release", lab::world::VERSION])).expect(0);
    run(&mut node.prestage(["run"])).expect(0);
    world.assert_patched();
}

#[test]
fn a_staged_package_removed_before_the_install_defers_it() {
    let world = World::new();
    let node = &world.node;
    run(&mut node.prestage(["fetch"])).expect(0);
    let before = node.image();
    let digest = world.centre.member("till-data").sha256;
    std::fs::remove_file(staged_deb(&world, "till-data")).expect("a staged package");
    let _ = std::fs::remove_file(node.path(&format!("/var/lib/prestage/fetch/store/{digest}")));
    let refused = run(&mut node.prestage(["install", "--now"]));
    assert!(matches!(refused.code, Some(1 | 2)), "{refused}");
    refused.says(&["till-data"]);
    node.assert_is(&before);
    run(&mut node.prestage(["run"])).expect(0);
    world.assert_patched();
}

#[test]
fn a_missing_staged_repo_defers_the_install() {
    let world = World::new();
    let before = world.node.image();
    run(&mut world.node.prestage(["install", "--now"])).expect(1).says(&["fetch"]);
    run(&mut world.node.prestage(["fetch"])).expect(0);
    std::fs::remove_dir_all(world.node.path("/var/lib/prestage/fetch/staged")).expect("a staged repo");
    run(&mut world.node.prestage(["install", "--now"])).expect(1).says(&["staged"]);
    world.node.assert_is(&before);
    // The packages themselves are still there: nothing is fetched again.
    let sent = world.bundle_bytes_sent();
    run(&mut world.node.prestage(["run"])).expect(0);
    assert_eq!(world.bundle_bytes_sent(), sent);
    world.assert_patched();
}
