//! A node without any network at all: everything comes on a stick.

use lab::sandbox::{run, succeed};
use lab::world::World;

#[test]
fn a_node_is_patched_from_a_folder() {
    let world = World::new();
    let export = world.export("export");
    let path = export.to_string_lossy();
    run(&mut world.node.prestage(["import", &path])).expect(0);
    run(&mut world.node.prestage(["install", "--now"])).expect(0);
    world.assert_patched();
    assert_eq!(world.mirror.exchanges().len(), 0, "the network was used");
}

#[test]
fn a_node_is_patched_from_one_file() {
    let world = World::new();
    let export = world.export("export.tar");
    assert!(export.is_file());
    let path = export.to_string_lossy();
    run(&mut world.node.prestage(["import", &path])).expect(0);
    assert_eq!(world.staged().len(), 4);
    run(&mut world.node.prestage(["install", "--now"])).expect(0);
    world.assert_patched();
    assert_eq!(world.mirror.exchanges().len(), 0, "the network was used");
}

#[test]
fn everything_can_be_staged_for_others() {
    let world = World::new();
    let export = world.export("export.tar");
    let path = export.to_string_lossy();
    run(&mut world.node.prestage(["import", &path, "--everything"])).expect(0);
    assert_eq!(world.staged().len(), 5, "till-other is needed by another node");
    run(&mut world.node.prestage(["install", "--now"])).expect(0);
    world.assert_patched();
    assert_eq!(world.node.version("till-other"), "");
}

#[test]
fn a_folder_is_a_mirror_too() {
    let world = World::new();
    let repository = world.centre.repository();
    world.node.configure(&[&repository.to_string_lossy()], "");
    run(&mut world.node.prestage(["run"])).expect(0);
    world.assert_patched();
}

#[test]
fn verify_says_that_an_export_is_whole_and_names_what_is_not() {
    let world = World::new();
    for name in ["export", "export.tar"] {
        let export = world.export(name);
        let path = export.to_string_lossy();
        let before = world.node.image();
        run(&mut world.node.prestage(["verify", &path])).expect(0).says(&[lab::world::VERSION]);
        world.node.assert_is(&before);
        // One byte of a package, wherever the bundle stands in the export.
        let file = if export.is_dir() { find_bundle(&export) } else { export.clone() };
        let needle = {
            let deb = world.sandbox.path().join("archive/pool/till-data_2.0_all.deb");
            std::fs::read(deb).expect("a package")[1_000_000..1_000_064].to_vec()
        };
        let mut bytes = std::fs::read(&file).expect("an export");
        let at = bytes.windows(64).position(|w| w == needle).expect("the package is stored as it is");
        bytes[at] ^= 1;
        std::fs::write(&file, bytes).expect("an export");
        let refused = run(&mut world.node.prestage(["verify", &path])).expect(2);
        let _ = refused.says(&["till-data"]);
        let refused = run(&mut world.node.prestage(["import", &path]));
        assert!(matches!(refused.code, Some(2 | 3)), "{refused}");
        assert_eq!(world.staged(), Vec::<String>::new());
    }
}

fn find_bundle(folder: &std::path::Path) -> std::path::PathBuf {
    let found = succeed(lab::sandbox::command("find").arg(folder).args(["-name", "*.bundle.tar.gz"]));
    found.trim().into()
}
