//! Packages as deltas: what saves bytes, what is installed in the end, and all the ways in which it comes to nothing but time.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use format::index::Delta;
use format::status::{DeltaStatus, State};
use lab::debs::Deb;
use lab::node::Node;
use lab::random::Random;
use lab::repository::Part;
use lab::sandbox::{run, succeed};
use lab::world::World;

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
        // What compresses well: the plain form is much larger than the package.
        .file("/usr/share/till/table", "nothing\n".repeat(100_000))
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

/// What is on the node of the application: its program, what dpkg keeps of it, and what dpkg says of it.
fn installed(node: &Node) -> (Vec<u8>, Vec<u8>, String) {
    let kept = ["list", "conffiles", "postinst"].iter().flat_map(|end| {
        fs::read(node.path(&format!("/var/lib/dpkg/info/till-app.{end}"))).expect("a file of dpkg")
    });
    let said = succeed(node.chroot("dpkg-query").args([
        "-W",
        "-f",
        "${Package} ${Version} ${Status}\n${Conffiles}\n",
    ])) + &succeed(node.chroot("dpkg").arg("--audit"));
    (fs::read(node.path(PATH)).expect("the program"), kept.collect(), said)
}

/// The node as it was before: the old packages, and an agent that never ran.
fn again(world: &World) {
    world.node.install(&[app(1), lib(1)]);
    fs::remove_dir_all(world.node.path("/var/lib/prestage")).expect("the agent's files");
    world.mirror.forget();
}

/// Fetches and installs; says what came of the deltas.
#[track_caller]
fn patch(world: &World) -> DeltaStatus {
    run(&mut world.node.prestage(["fetch"])).expect(0);
    let status = world.node.status().status;
    assert_eq!(status.state, State::Staged, "{}", status.summary);
    run(&mut world.node.prestage(["install", "--now"])).expect(0);
    assert_eq!(world.node.status().status.state, State::UpToDate);
    assert!(fs::read(world.node.path(PATH)).expect("the program") == program(2), "another program");
    status.plan.expect("a plan").deltas.expect("deltas in the bundle")
}

/// Why the application came whole.
#[track_caller]
fn why(deltas: &DeltaStatus) -> &str {
    assert_eq!((deltas.packages, deltas.bytes_saved, deltas.whole), (0, 0, 1));
    &deltas.not_used[0].why
}

/// Bytes of the bundle file that a node takes which needs all of it whole.
fn all_whole(world: &World) -> u64 {
    world.centre.index().members.iter().filter_map(|m| m.whole()).map(|e| e.length).sum()
}

#[test]
fn a_package_is_made_of_what_is_installed_and_installed_like_a_whole_one() {
    let world = world();
    world.node.write("/etc/till.conf", "currency = DM\n");
    world.configure("[fetch]\ndeltas = false\n");
    assert!(why(&patch(&world)).contains("[fetch] deltas is false"));
    let whole = installed(&world.node);
    assert_eq!(world.bundle_bytes_sent(), all_whole(&world));

    again(&world);
    world.configure("");
    run(&mut world.node.prestage(["fetch"])).expect(0);
    let (member, delta) = (world.centre.member("till-app"), delta(&world));
    let saved = member.size - delta.size;
    assert!(saved > member.size / 2, "{saved} of {}", member.size);
    run(&mut world.node.prestage(["status"])).expect(0).says(&["deltas:      1 packages"]);
    run(&mut world.node.prestage(["doctor"])).expect(0).says(&["1 packages were made of deltas"]);
    let deltas = patch(&world);
    assert_eq!((deltas.packages, deltas.bytes_saved, deltas.whole), (1, saved, 0));
    let extent = member.whole().expect("a place");
    let expected = all_whole(&world) - extent.length + delta.length;
    assert_eq!(world.bundle_bytes_sent(), expected, "bytes of the bundle file that went over the wire");
    assert!(installed(&world.node) == whole, "another node than with whole packages");
    assert_eq!(world.node.read("/etc/till.conf"), "currency = DM\n", "a conffile is no part of the base");
    run(&mut world.node.prestage(["report"])).expect(0);
    let reports = world.receiver.accepted();
    assert!(reports.iter().any(|report| report.bytes_saved == saved), "{reports:?}");
    // And then there is nothing more to do.
    world.mirror.forget();
    run(&mut world.node.prestage(["run"])).expect(0);
    assert_eq!(world.bundle_bytes_sent(), 0);
}

#[test]
fn a_base_that_is_not_as_it_was_installed_costs_the_saving_and_nothing_else() {
    type Spoil = fn(&Node);
    let cases: [(&str, Spoil, &str); 4] = [
        (
            "one byte is another",
            |node| {
                let mut program = fs::read(node.path(PATH)).expect("the program");
                program[1234] ^= 1;
                fs::write(node.path(PATH), program).expect("the program");
            },
            "not as they were packed",
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
    let world = world();
    for (name, spoil, words) in cases {
        spoil(&world.node);
        let deltas = patch(&world);
        assert!(why(&deltas).contains(words), "{name}: {deltas:?}");
        assert_eq!(world.bundle_bytes_sent(), all_whole(&world), "{name}: not one byte of the patch");
        again(&world);
    }
    // Room for the whole packages, and not for what is not compressed: what a fetch says that it has and needs, and a bit.
    world.configure("[fetch]\ndisk-quota = \"1 KiB\"\n");
    let said = run(&mut world.node.prestage(["fetch"])).expect(1).stderr;
    let words: Vec<&str> = said.split_whitespace().collect();
    let before = |text: &str| {
        let at =
            words.windows(3).position(|three| three.join(" ").starts_with(text)).expect("the quota in it");
        words[at - 1].parse::<u64>().expect("a number")
    };
    let quota = (before("bytes are used") + before("more are needed")) / 1024 + 300;
    world.configure(&format!("[fetch]\ndisk-quota = \"{quota} KiB\"\n"));
    let deltas = patch(&world);
    assert!(why(&deltas).contains("no room"), "{deltas:?}");
}

#[test]
fn a_patch_that_is_damaged_or_lies_is_dropped_and_the_package_comes_whole() {
    let world = world();
    let delta = delta(&world);
    let at = delta.offset + delta.length / 2;
    let check = || {
        let mut check = world.centre.build(["check"]);
        check.arg(world.centre.repository()).arg("--full");
        run(&mut check)
    };
    check().expect(0);
    world.centre.flip(Part::BundleData, at);
    check().expect(1).says(&["delta/till-app"]);
    let deltas = patch(&world);
    assert!(why(&deltas).contains("damaged"), "{deltas:?}");
    // That the mirror serves wrong bytes is told like any other damage.
    let aside = world.node.status().status.mirrors_aside;
    assert!(aside.iter().any(|mirror| mirror.why.contains("delta/till-app")), "{aside:?}");
    world.centre.flip(Part::BundleData, at);

    // The node has the patch already under its name, and it is something else: the disk, or somebody on the node.
    again(&world);
    run(&mut world.node.prestage(["fetch"])).expect(0);
    let store = world.node.path("/var/lib/prestage/fetch/store");
    let member = world.centre.member("till-app");
    let plain = member.plain.expect("a plain form");
    fs::remove_file(store.join(plain.sha256.to_string())).expect("what was made");
    fs::remove_dir_all(world.node.path("/var/lib/prestage/fetch/staged")).expect("what was staged");
    let mut lie = Random::new(3).bytes(delta.size as usize);
    lie[..8].copy_from_slice(b"PSDELTA1");
    fs::write(store.join(delta.sha256.to_string()), lie).expect("a patch");
    let deltas = patch(&world);
    assert_eq!(deltas.packages, 1, "what the first run has made stays told");
    assert!(deltas.not_used[0].why.contains("patch"), "{deltas:?}");
}

#[test]
fn an_install_that_was_cut_off_goes_on_with_what_was_made() {
    let world = world();
    run(&mut world.node.prestage(["fetch"])).expect(0);
    let mut killed = world.node.prestage(["install", "--now"]);
    killed.env("PRESTAGE_KILL", "Installing:before");
    assert_eq!(run(&mut killed).signal, Some(9), "it was to be killed");
    // The store is empty: what root has is all there is.
    fs::remove_dir_all(world.node.path("/var/lib/prestage/fetch/store")).expect("the store");
    run(&mut world.node.prestage(["install", "--now"])).expect(0);
    assert!(installed(&world.node).0 == program(2));
    assert_eq!(world.node.version("till-app"), "2.0");
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
}
