//! Packages as deltas: what saves bytes, what is installed in the end, and all the ways in which it comes to nothing but time.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use format::index::Delta;
use format::status::State;
use lab::debs::Deb;
use lab::node::Node;
use lab::random::Random;
use lab::repository::Part;
use lab::sandbox::{run, succeed};
use lab::world::{VERSION, World};

/// Bytes of the program that changes a little.
const PROGRAM: usize = 400_000;

const PATH: &str = "/usr/lib/till/program";

/// A program, and the next version of it: something moved, something new, addresses changed all over.
fn program(version: u8) -> Vec<u8> {
    let mut program = Random::new(7).bytes(PROGRAM);
    if version > 1 {
        program.rotate_left(5000);
        program.splice(100_000..100_000, Random::new(u64::from(version)).bytes(3000));
        program.iter_mut().step_by(97).for_each(|byte| *byte = byte.wrapping_add(version));
    }
    program
}

fn app(version: u8) -> Deb {
    Deb::new("till-app", &format!("{version}.0"))
        .file(PATH, program(version))
        .file("/usr/share/till/empty", "")
        .file("/usr/share/till/notes", format!("version {version}\n"))
        .conffile("/etc/till.conf", "currency = EUR\n")
        .script("postinst", "echo configured >>/var/log/till")
}

/// A package that no older version of is known: it comes whole beside the other.
fn lib(version: u8) -> Deb {
    Deb::new("till-lib", &format!("{version}.0")).payload(20_000)
}

/// A world whose bundle has a delta from the version of `till-app` that the node has.
fn world() -> World {
    let world = World::with(&[app(1), lib(1)], &[app(2), lib(2)]);
    publish(&world, "20261123-2", &[]);
    world
}

/// Publishes the same packages again, with deltas from version 1 of the application.
fn publish(world: &World, version: &str, more: &[&str]) -> String {
    let bases = world.sandbox.path().join("bases");
    app(1).build(&bases);
    let status = world.node.path("/var/lib/dpkg/status");
    let collected = world.centre.collect(&world.archive, &world.node.variant(), &[&status]);
    let out = world.sandbox.path().join(format!("bundle-{version}"));
    let mut bundle = world.centre.build(["bundle"]);
    bundle.arg(&collected).args(["--version", version, "--cycle", "2026-11", "--output"]).arg(&out);
    let said = succeed(bundle.arg("--bases").arg(&bases).args(more));
    world.centre.publish(&out);
    said
}

fn delta(world: &World) -> Delta {
    world.centre.member("till-app").deltas().next().expect("a delta to till-app").clone()
}

/// The files and the inventory of a node that was patched with whole packages.
fn patched_whole() -> (Vec<u8>, Vec<u8>, String) {
    let world = World::with(&[app(1), lib(1)], &[app(2), lib(2)]);
    run(&mut world.node.prestage(["fetch"])).expect(0);
    run(&mut world.node.prestage(["install", "--now"])).expect(0);
    assert!(world.node.status().status.plan.expect("a plan").deltas.is_none());
    (fs::read(world.node.path(PATH)).expect("the program"), kept_by_dpkg(&world.node), dpkg(&world.node))
}

/// What dpkg says of the application, as installed.
fn dpkg(node: &Node) -> String {
    succeed(node.chroot("dpkg-query").args(["-W", "-f", "${Package} ${Version} ${Status}\n${Conffiles}\n"]))
        + &succeed(node.chroot("dpkg").args(["-V", "till-app"]))
}

fn kept_by_dpkg(node: &Node) -> Vec<u8> {
    ["list", "conffiles", "postinst"]
        .iter()
        .flat_map(|end| {
            fs::read(node.path(&format!("/var/lib/dpkg/info/till-app.{end}"))).expect("a file of dpkg")
        })
        .collect()
}

/// Fetches and installs, and compares with a node that was patched whole; says how many packages came as deltas.
fn patch_and_compare(world: &World, whole: &(Vec<u8>, Vec<u8>, String)) -> u64 {
    run(&mut world.node.prestage(["fetch"])).expect(0);
    let status = world.node.status().status;
    assert_eq!(status.state, State::Staged, "{}", status.summary);
    run(&mut world.node.prestage(["install", "--now"])).expect(0);
    assert_eq!(world.node.status().status.state, State::UpToDate);
    let program = fs::read(world.node.path(PATH)).expect("the program");
    assert!(program == whole.0, "the program is not the one of the package");
    assert!(kept_by_dpkg(&world.node) == whole.1, "dpkg keeps something else of the package");
    assert_eq!(dpkg(&world.node), whole.2);
    status.plan.expect("a plan").deltas.map_or(0, |deltas| deltas.packages)
}

/// Why the application came whole.
fn why(world: &World) -> String {
    let deltas = world.node.status().status.plan.expect("a plan").deltas.expect("deltas in the bundle");
    assert_eq!((deltas.packages, deltas.bytes_saved, deltas.whole), (0, 0, 1));
    deltas.not_used[0].why.clone()
}

#[test]
fn a_package_is_made_of_what_is_installed_and_installed_like_a_whole_one() {
    let (whole, world) = (patched_whole(), world());
    let (member, delta) = (world.centre.member("till-app"), delta(&world));
    assert!(delta.size * 4 < member.size, "{} of {}", delta.size, member.size);
    assert_eq!(patch_and_compare(&world, &whole), 1);
    let bytes: u64 = world.bundle_bytes_sent();
    let lib = world.centre.member("till-lib").whole().expect("a place").length;
    let metadata: u64 = world.centre.index().metadata().filter_map(|m| m.whole()).map(|e| e.length).sum();
    assert_eq!(bytes, delta.length + lib + metadata, "bytes of the bundle file that went over the wire");
    let saved = member.size - delta.size;
    let status = world.node.status().status;
    assert_eq!(status.plan.expect("a plan").deltas.expect("deltas").bytes_saved, saved);
    run(&mut world.node.prestage(["status"])).expect(0).says(&[&format!("{saved} bytes saved")]);
    run(&mut world.node.prestage(["doctor"])).expect(0).says(&[&format!("saved {saved} bytes")]);
    run(&mut world.node.prestage(["report"])).expect(0);
    assert_eq!(world.receiver.accepted()[0].bytes_saved, saved);
    // And then there is nothing more to do.
    world.mirror.forget();
    run(&mut world.node.prestage(["run"])).expect(0);
    assert_eq!(world.bundle_bytes_sent(), 0);
}

#[test]
fn a_base_that_is_not_as_it_was_installed_costs_the_saving_and_nothing_else() {
    let whole = patched_whole();
    type Spoil = fn(&Node);
    let cases: [(&str, Spoil, &str); 5] = [
        (
            "one byte is another",
            |node| {
                let mut program = fs::read(node.path(PATH)).expect("the program");
                program[1234] ^= 1;
                fs::write(node.path(PATH), program).expect("the program");
            },
            "not as they were packed",
        ),
        (
            "one file is shorter",
            |node| fs::write(node.path(PATH), b"x").expect("the program"),
            "not as they were",
        ),
        ("one file is gone", |node| fs::remove_file(node.path(PATH)).expect("the program"), PATH),
        (
            "one file is a link to another",
            |node| {
                fs::rename(node.path(PATH), node.path("/usr/lib/till/elsewhere")).expect("the program");
                std::os::unix::fs::symlink("elsewhere", node.path(PATH)).expect("a link");
            },
            "not as they were packed",
        ),
        (
            "one file is not for everybody any more",
            |node| {
                let mode = fs::Permissions::from_mode(0o600);
                fs::set_permissions(node.path(PATH), mode).expect("the program");
            },
            "not as they were packed",
        ),
    ];
    for (name, spoil, words) in cases {
        let world = world();
        spoil(&world.node);
        assert_eq!(patch_and_compare(&world, &whole), 0, "{name}");
        let why = why(&world);
        assert!(why.contains(words), "{name}: {why}");
        let patch = delta(&world).length;
        let index = world.centre.index();
        let all: u64 = index.members.iter().filter_map(|m| m.whole()).map(|e| e.length).sum();
        assert_eq!(world.bundle_bytes_sent(), all, "{name}: not one byte of the patch ({patch} bytes)");
    }
}

#[test]
fn an_edited_conffile_is_no_part_of_it() {
    let (whole, world) = (patched_whole(), world());
    world.node.write("/etc/till.conf", "currency = DM\n");
    run(&mut world.node.prestage(["run"])).expect(0);
    assert_eq!(world.node.status().status.plan.expect("a plan").deltas.expect("deltas").packages, 1);
    assert_eq!(world.node.read("/etc/till.conf"), "currency = DM\n");
    assert!(fs::read(world.node.path(PATH)).expect("the program") == whole.0);
}

#[test]
fn a_flipped_byte_in_the_patch_is_told_and_the_package_comes_whole() {
    let (whole, world) = (patched_whole(), world());
    let delta = delta(&world);
    let at = delta.offset + delta.length / 2;
    world.centre.flip(Part::BundleData, at);
    assert_eq!(patch_and_compare(&world, &whole), 0);
    assert!(why(&world).contains("damaged"), "{}", why(&world));
    // That the mirror serves wrong bytes is told like any other damage.
    let aside = world.node.status().status.mirrors_aside;
    assert!(aside.iter().any(|mirror| mirror.why.contains("delta/till-app")), "{aside:?}");
}

#[test]
fn a_patch_that_was_altered_on_the_node_or_lies_is_dropped_and_the_package_comes_whole() {
    let (whole, world) = (patched_whole(), world());
    let delta = delta(&world);
    // The node has it already under its name, and other content: the disk, or somebody on the node.
    let store = world.node.path("/var/lib/prestage/fetch/store");
    run(&mut world.node.prestage(["fetch"])).expect(0);
    let plain = world.centre.member("till-app").plain.expect("a plain form");
    fs::remove_file(store.join(plain.sha256.to_string())).expect("what was made");
    let staged = world.node.path("/var/lib/prestage/fetch/staged");
    fs::remove_dir_all(&staged).expect("what was staged");
    let mut damaged = Random::new(3).bytes(delta.size as usize);
    damaged[..8].copy_from_slice(b"PSDELTA1");
    fs::write(store.join(delta.sha256.to_string()), damaged).expect("a patch");
    assert_eq!(patch_and_compare(&world, &whole), 1, "what the first run has made stays told");
    let deltas = world.node.status().status.plan.expect("a plan").deltas.expect("deltas");
    assert!(deltas.not_used[0].why.contains("patch"), "{deltas:?}");
    let staged = world.centre.member("till-app").sha256;
    assert!(store.join(staged.to_string()).exists(), "the whole package was fetched");
}

#[test]
fn deltas_are_not_used_where_they_do_not_fit_or_are_not_wanted() {
    let whole = patched_whole();
    let world = world();
    world.configure("[fetch]\ndeltas = false\n");
    assert_eq!(patch_and_compare(&world, &whole), 0);
    assert!(why(&world).contains("[fetch] deltas is false"));

    let world = self::world();
    // Room for the whole packages, and not for more.
    let needed: u64 = world.centre.index().members.iter().map(|m| m.size).sum();
    world.configure(&format!("[fetch]\ndisk-quota = \"{}\"\n", needed + 40_000));
    assert_eq!(patch_and_compare(&world, &whole), 0);
    assert!(why(&world).contains("no room"), "{}", why(&world));
}

#[test]
fn an_install_that_was_cut_off_goes_on_with_what_was_made() {
    let (whole, world) = (patched_whole(), world());
    run(&mut world.node.prestage(["fetch"])).expect(0);
    let mut killed = world.node.prestage(["install", "--now"]);
    killed.env("PRESTAGE_KILL", "installing:before");
    assert_eq!(run(&mut killed).signal, Some(9), "it was to be killed");
    // The store is empty: what root has is all there is.
    fs::remove_dir_all(world.node.path("/var/lib/prestage/fetch/store")).expect("the store");
    run(&mut world.node.prestage(["install", "--now"])).expect(0);
    assert!(fs::read(world.node.path(PATH)).expect("the program") == whole.0);
    assert_eq!(dpkg(&world.node), whole.2);
}

#[test]
fn a_bundle_is_explained_for_the_fleet_and_made_the_same_from_the_cache() {
    let world = World::with(&[app(1), lib(1)], &[app(2), lib(2)]);
    let cache = world.sandbox.path().join("cache");
    let status = world.node.path("/var/lib/dpkg/status");
    let (cache_arg, status_arg) = (cache.to_string_lossy(), status.to_string_lossy());
    let more = ["--delta-cache", &*cache_arg, "--inventory", &*status_arg, "--explain"];
    let said = publish(&world, "20261123-2", &more);
    let (member, delta) = (world.centre.member("till-app"), delta(&world));
    let lib = world.centre.member("till-lib").size;
    let line =
        format!("1 nodes fetch {} bytes of packages instead of {}", delta.size + lib, member.size + lib);
    assert!(said.contains(&line), "{said}");
    let first = fs::read(world.centre.file(Part::BundleData)).expect("the bundle");
    publish(&world, "20261123-3", &more);
    assert!(first == fs::read(world.centre.file(Part::BundleData)).expect("the bundle"), "other bytes");
    // An inventory without that version: no delta is made for nobody.
    let other = world.sandbox.path().join("other");
    fs::write(&other, "till-app 0.9\ntill-lib 1.0\n").expect("an inventory");
    publish(&world, "20261123-4", &["--inventory", &other.to_string_lossy()]);
    assert_eq!(world.centre.index().deltas().count(), 0);
    assert_ne!(VERSION, "20261123-4");
}
