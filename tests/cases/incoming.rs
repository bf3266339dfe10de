//! Exports that are pushed to a node, by somebody who may stop half-way.

use std::fs;
use std::path::{Path, PathBuf};

use format::report::Outcome;
use lab::sandbox::{command, run, succeed};
use lab::world::World;

/// An export, and the folder of the node that it is pushed to.
fn export(world: &World, name: &str) -> (PathBuf, PathBuf) {
    (world.export(name), world.node.path("/var/lib/prestage/incoming"))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    succeed(command("cp").arg("-a").arg(from.join(".")).arg(to));
}

fn bundle(folder: &Path) -> PathBuf {
    let found = succeed(command("find").arg(folder).args(["-name", "*.bundle.tar.gz"]));
    found.trim().into()
}

#[test]
fn a_push_is_taken_when_it_is_whole_and_stays_for_the_next_one() {
    let world = World::new();
    run(&mut world.node.prestage(["import", "--incoming"])).expect(0).says(&["nothing was pushed"]);
    let (export, incoming) = export(&world, "export");
    copy(&export, &incoming);
    run(&mut world.node.prestage(["import", "--incoming"])).expect(0);
    assert_eq!(world.staged().len(), 4);
    assert!(bundle(&incoming).is_file());
    run(&mut world.node.prestage(["install", "--now"])).expect(0);
    world.assert_patched();
    assert_eq!(world.mirror.exchanges().len(), 0, "the network was used");
}

#[test]
fn a_partial_push_is_known_as_partial_and_says_what_is_missing() {
    let world = World::new();
    let (export, incoming) = export(&world, "export");
    copy(&export, &incoming);
    let whole = bundle(&incoming);
    let content = fs::read(&whole).expect("a bundle");
    let name = whole.file_name().expect("a name").to_string_lossy().into_owned();
    let partial = |says: &str| {
        let out =
            run(&mut world.node.prestage(["import", "--incoming"])).expect(1).says(&["not whole yet", says]);
        assert!(!out.stderr.contains("error:"), "{out}");
        let status = world.node.status().status;
        assert_eq!(status.fetch.map(|fetch| (fetch.outcome, fetch.exit_code)), Some((Outcome::Deferred, 1)));
        assert!(status.quarantine.is_empty() && world.staged().is_empty());
    };
    // Not even all metadata, of which the node has none yet.
    let snapshot = succeed(command("find").arg(&incoming).args(["-name", "*snapshot.json"]));
    let aside = PathBuf::from(snapshot.trim()).with_extension("aside");
    fs::rename(snapshot.trim(), &aside).expect("a snapshot");
    partial("snapshot.json");
    fs::rename(&aside, snapshot.trim()).expect("a snapshot");
    // Metadata is there, the bundle is not; and rsync is at work on it.
    fs::remove_file(&whole).expect("a bundle");
    partial(&name);
    let temporary = whole.with_file_name(format!(".{name}.Ab12Cd"));
    fs::write(&temporary, &content[..1000]).expect("a file");
    partial("being pushed");
    fs::remove_file(temporary).expect("a file");
    // Written in place, and cut.
    fs::write(&whole, &content[..content.len() / 2]).expect("a bundle");
    partial(&name);
    // And at last all of it.
    fs::write(&whole, &content).expect("a bundle");
    run(&mut world.node.prestage(["import", "--incoming"])).expect(0);
    assert_eq!(world.staged().len(), 4);
}

#[test]
fn one_file_is_pushed_and_half_of_it_is_partial() {
    let world = World::new();
    let (export, incoming) = export(&world, "export.tar");
    let content = fs::read(export).expect("an export");
    fs::create_dir_all(&incoming).expect("a folder");
    fs::write(incoming.join("2026-11.tar"), &content[..content.len() / 2]).expect("a file");
    run(&mut world.node.prestage(["import", "--incoming"])).expect(1).says(&["not whole yet", "2026-11.tar"]);
    fs::write(incoming.join("2026-11.tar"), content).expect("a file");
    run(&mut world.node.prestage(["import", "--incoming"])).expect(0);
    assert_eq!(world.staged().len(), 4);
}

#[test]
fn what_was_pushed_long_ago_and_has_stayed_is_no_attack() {
    let world = World::new();
    let (old, incoming) = export(&world, "old");
    let (tar, _) = export(&world, "old.tar");
    world.release("20261124-2");
    run(&mut world.node.prestage(["fetch"])).expect(0);
    let before = world.node.status().status;
    copy(&old, &incoming.join("2026-10"));
    fs::copy(tar, incoming.join("2026-10.tar")).expect("a file");
    run(&mut world.node.prestage(["import", "--incoming"])).expect(0).says(&[
        "newer",
        "2026-10",
        "2026-10.tar",
    ]);
    let after = world.node.status().status;
    assert_eq!((after.state, after.fetch, after.quarantine.len()), (before.state, before.fetch, 0));
    // Nor does it stand in the way of what is new.
    world.release("20261125-3");
    let (new, _) = export(&world, "new");
    copy(&new, &incoming.join("2026-11"));
    run(&mut world.node.prestage(["import", "--incoming"])).expect(0).says(&["20261125-3"]);
}
