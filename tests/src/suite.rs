//! The cases that every package manager must pass: one set, run for each back-end by `cases/common.rs`, and printed as a
//! table by `prestage-lab failure-table`.
//!
//! Each case makes its own world, breaks one thing, and proves the node's state itself: by the package database as the
//! package manager reads it, and by the digest, mode and owner of every file where the node must be untouched.

use std::fs;
use std::os::unix::fs::FileExt as _;

use format::report::Outcome;
use format::status::State;

use crate::backend::{Backend, Package, World};
use crate::node::Image;
use crate::repository::Part;
use crate::sandbox::{Output, Running, run};
use crate::server::PATIENCE;
use crate::wait::until;

/// What came of a case.
#[derive(Clone, Debug)]
pub struct Row {
    /// Which step failed or was looked at.
    pub step: &'static str,
    /// Its exit code.
    pub exit: i32,
    /// What the node is like after it.
    pub state: &'static str,
    /// How that was proved.
    pub proof: String,
}

/// A case: its name, and what makes the world, breaks it and proves the end.
pub type Case = (&'static str, fn(Backend) -> Row);

/// All of them, in the order of the table.
pub const CASES: [Case; 18] = [
    ("nothing is wrong", nothing_is_wrong),
    ("second run", second_run),
    ("missing dependency", missing_dependency),
    ("failing pre script", failing_pre),
    ("failing post script", failing_post),
    ("corrupt package on the mirror", corrupt_on_the_mirror),
    ("corrupt package on the node", corrupt_on_the_node),
    ("missing file on the node", missing_file),
    ("held package", held),
    ("changed config file", changed_config),
    ("lock held", lock_held),
    ("kill -9 of everything", killed),
    ("kill -9 of the agent alone", agent_killed),
    ("way back: failing post script", back_after_post),
    ("way back: unhealthy afterwards", back_after_check),
    ("way back: killed half-way back", back_after_kill),
    ("way back: from the package manager's cache", back_from_the_cache),
    ("way back: a version is not kept", no_way_back),
];

const UNTOUCHED: &str = "untouched";
const PATCHED: &str = "patched";

/// Content of the largest package.
const LARGE: usize = 300_000;

fn old() -> Vec<Package> {
    vec![
        Package::new("till-lib", "1.0").config("/etc/till.conf", "currency = DM\n"),
        Package::new("till-app", "1.0").needs("till-lib", None),
        Package::new("till-data", "1.0").payload(1000),
    ]
}

fn new() -> Vec<Package> {
    vec![
        Package::new("till-lib", "2.0").config("/etc/till.conf", "currency = EUR\n"),
        Package::new("till-app", "2.0").needs("till-lib", Some("2.0")).needs("till-new", None),
        Package::new("till-data", "2.0").payload(LARGE),
        Package::new("till-new", "1.0").payload(2000),
        Package::new("nobody-has-this", "2.0").payload(2000),
    ]
}

fn world(backend: Backend) -> World {
    World::with(backend, &old(), &[], &new())
}

/// A world with one package of the archive in place of its namesake.
fn world_with(backend: Backend, replaced: Package, name: &str) -> World {
    let mut packages = new();
    packages.retain(|p| !format!("{p:?}").contains(&format!("name: \"{name}\"")));
    packages.push(replaced);
    World::with(backend, &old(), &[], &packages)
}

fn agent(world: &World, args: &[&str]) -> Output {
    run(world.node.prestage([]).args(args))
}

fn fetch(world: &World) {
    agent(world, &["fetch"]).expect(0);
}

fn install(world: &World) -> Output {
    agent(world, &["install", "--now"])
}

/// The versions of the four packages: app, lib, data, new.
#[track_caller]
fn assert_versions(world: &World, wanted: [&str; 4]) -> String {
    let inventory = world.inventory();
    let found = ["till-app", "till-lib", "till-data", "till-new"]
        .map(|name| inventory.get(name).map_or("", String::as_str).to_owned());
    assert_eq!(found, wanted.map(str::to_owned), "app, lib, data, new");
    assert!(!inventory.values().any(|v| v.contains(' ')), "not complete: {inventory:?}");
    format!("inventory {}", found.map(|v| if v.is_empty() { "-".into() } else { v }).join(" "))
}

#[track_caller]
fn assert_patched(world: &World) -> String {
    let proof = assert_versions(world, ["2.0", "2.0", "2.0", "1.0"]);
    assert_eq!(world.complaints(), "", "the package manager's own check");
    assert_eq!(world.node.read("/usr/share/till-data/payload").len().min(1), 0, "the payload is no text");
    let payload = fs::read(world.node.path("/usr/share/till-data/payload")).expect("the payload");
    assert_eq!(payload.len(), LARGE, "the payload of the new version is there");
    format!("{proof}; its own check: clean")
}

#[track_caller]
fn assert_untouched(world: &World, before: &Image) -> String {
    world.node.assert_is(before);
    assert_versions(world, ["1.0", "1.0", "1.0", ""]);
    format!("{} files identical", before.len())
}

fn row(step: &'static str, output: &Output, state: &'static str, proof: String) -> Row {
    Row { step, exit: output.code.unwrap_or(-1), state, proof }
}

fn nothing_is_wrong(backend: Backend) -> Row {
    let world = world(backend);
    fetch(&world);
    let plan = world.node.status().status.plan.expect("a plan");
    assert_eq!(plan.packages, 4);
    let index = world.centre.index();
    assert!(!index.packages().any(|m| m.path.as_str().contains("nobody-has-this")));
    let done = install(&world).expect(0);
    let status = world.node.status().status;
    assert_eq!(status.state, State::UpToDate, "{}", status.summary);
    let seen = status.install.expect("the install step").network_seen.expect("what it saw of the network");
    assert_eq!(seen, ["lo down"]);
    assert_eq!(world.node.read("/etc/till.conf"), "currency = EUR\n");
    row("install", &done, PATCHED, assert_patched(&world))
}

fn second_run(backend: Backend) -> Row {
    let world = world(backend);
    agent(&world, &["run"]).expect(0);
    agent(&world, &["run"]).expect(0);
    let (before, requests) = (world.node.image(), world.mirror.exchanges().len());
    let again = agent(&world, &["run"]).expect(0);
    world.node.assert_is(&before);
    let requests = world.mirror.exchanges().len() - requests;
    assert!(requests <= 2, "{requests} requests");
    row("run", &again, PATCHED, format!("{} files identical, {requests} requests", before.len()))
}

/// `till-app` needs what another node of the variant has and this one has not, and the bundle has it neither.
fn missing_dependency(backend: Backend) -> Row {
    let mut packages = new();
    packages.retain(|p| !format!("{p:?}").contains("name: \"till-app\""));
    packages.push(Package::new("till-app", "2.0").needs("till-elsewhere", None));
    let mut other = old();
    other.push(Package::new("till-elsewhere", "1.0"));
    let world = World::with(backend, &old(), &other, &packages);
    assert!(
        world.centre.index().packages().any(|m| m.path.as_str().contains("till-app")),
        "nothing to keep back"
    );
    fetch(&world);
    let plan = world.node.status().status.plan.expect("a plan");
    assert!(plan.kept_back.iter().any(|k| k.contains("till-app")), "{:?}", plan.kept_back);
    let done = install(&world).expect(0);
    assert_eq!(world.complaints(), "");
    row("install", &done, "patched but one, named", assert_versions(&world, ["1.0", "2.0", "2.0", ""]))
}

fn failing_pre(backend: Backend) -> Row {
    failing(backend, Package::new("till-data", "2.0").before("echo the till is on fire >&2; exit 1"))
}

fn failing_post(backend: Backend) -> Row {
    failing(backend, Package::new("till-data", "2.0").after("echo the till is on fire >&2; exit 1"))
}

fn failing(backend: Backend, package: Package) -> Row {
    let world = world_with(backend, package, "till-data");
    fetch(&world);
    let before = world.inventory();
    let failed = install(&world);
    assert!(matches!(failed.code, Some(4 | 6)), "{failed}");
    let status = world.node.status().status;
    assert!(status.installed.is_none(), "a false status after {failed}");
    let after = world.inventory();
    let state = match failed.code {
        Some(4) => {
            assert_eq!(status.state, State::Failed);
            assert_eq!(after, before, "4 says that the node is as it was");
            "as before"
        }
        _ => {
            assert_eq!(status.state, State::NeedsPerson);
            "needs a person, said so"
        }
    };
    let failed = failed.says(&["till-data"]);
    // The timer does not try the same bundle again and again, and what comes after does not hide it.
    let now = world.inventory();
    let again = agent(&world, &["install"]);
    assert!(again.code != Some(0), "{again}");
    assert_eq!(world.inventory(), now);
    agent(&world, &["run"]);
    assert_eq!(world.node.status().status.state, status.state);
    let versions = ["till-app", "till-lib", "till-data", "till-new"]
        .map(|name| after.get(name).cloned().unwrap_or_else(|| "-".into()));
    row("install", &failed, state, format!("inventory {}", versions.join(" ")))
}

fn corrupt_on_the_mirror(backend: Backend) -> Row {
    let world = world(backend);
    let before = world.node.image();
    let at = world.centre.offset_of("till-data", LARGE as u64 / 2);
    world.centre.flip(Part::BundleData, at);
    let refused = agent(&world, &["fetch"]).expect(2).says(&["till-data"]);
    let proof = assert_untouched(&world, &before);
    world.centre.flip(Part::BundleData, at);
    agent(&world, &["run"]).expect(0);
    assert_patched(&world);
    row("fetch", &refused, UNTOUCHED, proof)
}

/// The staged file of a package.
fn staged(world: &World, name: &str) -> std::path::PathBuf {
    let staged = world.node.path("/var/lib/prestage/fetch/staged");
    let folder = fs::read_dir(staged).expect("a staged repo").flatten().next().expect("a staged repo");
    folder.path().join(world.centre.member(name).path.as_str())
}

fn corrupt_on_the_node(backend: Backend) -> Row {
    let world = world(backend);
    fetch(&world);
    let before = world.node.image();
    let file =
        fs::File::options().read(true).write(true).open(staged(&world, "till-data")).expect("a package");
    let mut byte = [0];
    file.read_exact_at(&mut byte, LARGE as u64 / 2).expect("a byte");
    file.write_all_at(&[byte[0] ^ 1], LARGE as u64 / 2).expect("a byte");
    let refused = install(&world).expect(2).says(&["till-data"]);
    row("install", &refused, UNTOUCHED, assert_untouched(&world, &before))
}

fn missing_file(backend: Backend) -> Row {
    let world = world(backend);
    fetch(&world);
    let before = world.node.image();
    let digest = world.centre.member("till-data").sha256;
    fs::remove_file(staged(&world, "till-data")).expect("a staged package");
    let _ = fs::remove_file(world.node.path(&format!("/var/lib/prestage/fetch/store/{digest}")));
    let refused = install(&world).expect(1).says(&["till-data"]);
    let proof = assert_untouched(&world, &before);
    agent(&world, &["run"]).expect(0);
    assert_patched(&world);
    row("install", &refused, UNTOUCHED, proof)
}

fn held(backend: Backend) -> Row {
    let world = world(backend);
    world.hold("till-data");
    fetch(&world);
    let plan = world.node.status().status.plan.expect("a plan");
    assert!(
        plan.kept_back.iter().any(|k| k.contains("till-data") && k.contains("operator")),
        "{:?}",
        plan.kept_back
    );
    let done = install(&world).expect(0);
    let proof = assert_versions(&world, ["2.0", "2.0", "1.0", "1.0"]);
    agent(&world, &["run"]).expect(0);
    assert_versions(&world, ["2.0", "2.0", "1.0", "1.0"]);
    row("install", &done, "patched but one, named", proof)
}

fn changed_config(backend: Backend) -> Row {
    let world = world(backend);
    world.node.write("/etc/till.conf", "currency = GBP # ours\n");
    let done = agent(&world, &["run"]).expect(0);
    let proof = assert_patched(&world);
    assert_eq!(world.node.read("/etc/till.conf"), "currency = GBP # ours\n");
    row("run", &done, PATCHED, format!("{proof}; the operator's file kept"))
}

fn lock_held(backend: Backend) -> Row {
    let world = world(backend);
    world.configure("[install]\nlock-timeout-seconds = 1\n");
    fetch(&world);
    // Not while the lock is held: reading the file that it is on would give it back (fcntl(2)).
    let before = world.node.image();
    let lock = world.lock();
    let refused = install(&world).expect(1).says(&["lock"]);
    world.unlock(lock);
    let told = world.node.status().status.install.expect("the install step");
    assert_eq!((told.outcome, told.exit_code), (Outcome::Deferred, 1));
    let proof = assert_untouched(&world, &before);
    install(&world).expect(0);
    assert_patched(&world);
    row("install", &refused, UNTOUCHED, proof)
}

/// A world in which the agent has been killed while a script of a package waits for `/go`.
fn interrupted(backend: Backend) -> World {
    let wait = "touch /reached; while [ ! -e /go ]; do sleep 0.05; done; touch /ran-to-its-end";
    let package = Package::new("till-lib", "2.0").config("/etc/till.conf", "currency = EUR\n").after(wait);
    let world = world_with(backend, package, "till-lib");
    fetch(&world);
    let agent = Running::start(&mut world.node.prestage(["install", "--now"]));
    until("the script to begin", PATIENCE, || world.node.path("/reached").exists());
    agent.kill();
    assert_eq!(world.node.status().status.state, State::Installing, "no false status");
    world
}

/// Kills what the agent started.
fn kill_left_behind(world: &World) {
    until("everything to be dead", PATIENCE, || {
        let left = world.left_behind();
        for pid in &left {
            // It may have ended meanwhile.
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), nix::sys::signal::Signal::SIGKILL);
        }
        left.is_empty()
    });
}

/// The next run after an interruption brings the install to its end.
fn goes_on(world: &World) -> Row {
    let done = run(&mut world.node.prestage(["install"])).expect(0);
    let proof = assert_patched(world);
    assert!(world.node.path("/ran-to-its-end").exists(), "the script did not come to its end");
    assert_eq!(world.node.status().status.state, State::UpToDate);
    row("install, next", &done, PATCHED, format!("{proof}; the script came to its end"))
}

/// The agent, the package manager and the script that it runs die together, as when the power goes.
fn killed(backend: Backend) -> Row {
    let world = interrupted(backend);
    kill_left_behind(&world);
    assert!(!world.node.path("/ran-to-its-end").exists());
    world.node.write("/go", "");
    goes_on(&world)
}

/// The package manager lives on, is not disturbed, and is waited for.
fn agent_killed(backend: Backend) -> Row {
    let world = interrupted(backend);
    assert!(!world.left_behind().is_empty(), "the package manager died with the agent");
    world.configure("[install]\nlock-timeout-seconds = 1\n");
    agent(&world, &["install"]).expect(1).says(&["another package manager"]);
    assert!(!world.left_behind().is_empty(), "the package manager was disturbed");
    world.configure("");
    world.node.write("/go", "");
    goes_on(&world)
}

/// A world that was patched once, so that the packages of its bundle are kept, and to which the next bundle is offered:
/// `till-app` comes with a new package, and `last` is the third update.
fn patched_once(backend: Backend, last: Package) -> World {
    patched_with(world(backend), last)
}

fn patched_with(world: World, last: Package) -> World {
    agent(&world, &["run"]).expect(0);
    assert_patched(&world);
    let next = [
        Package::new("till-lib", "3.0").config("/etc/till.conf", "currency = XXX\n"),
        Package::new("till-app", "3.0").needs("till-lib", Some("3.0")).needs("till-more", Some("3.0")),
        Package::new("till-more", "3.0").needs("till-lib", Some("3.0")),
        last,
    ];
    world.publish(&next, "20261123-2");
    fetch(&world);
    let plan = world.node.status().status.plan.expect("a plan");
    assert_eq!(plan.packages, 4, "{:?}", plan.kept_back);
    world
}

/// The node is as the first bundle left it, by inventory and by the files of its packages.
#[track_caller]
fn assert_back(world: &World, before: &Image) -> String {
    let proof = assert_patched(world);
    assert_eq!(world.version("till-more"), "", "what came with the install has gone");
    assert_files(world, before);
    proof
}

/// What the packages of the cases own is as it was. Databases and logs have grown.
#[track_caller]
fn assert_files(world: &World, before: &Image) {
    let of_packages = |path: &str| path.starts_with("/etc/till") || path.starts_with("/usr/share/till");
    let different: Vec<String> =
        before.differences(&world.node.image()).into_iter().filter(|line| of_packages(line)).collect();
    assert!(different.is_empty(), "{different:?}");
}

fn back_after_post(backend: Backend) -> Row {
    let broken = Package::new("till-data", "3.0").payload(1000).after("echo the till is on fire >&2; exit 1");
    let world = patched_once(backend, broken);
    let before = world.node.image();
    let failed = install(&world).expect(4).says(&["till-data", "as it was"]);
    let proof = assert_back(&world, &before);
    assert_eq!(world.node.status().status.state, State::Failed);
    // It is not tried again, and the node is not half done.
    let again = agent(&world, &["install"]);
    assert!(again.code != Some(0), "{again}");
    assert_back(&world, &before);
    row("install", &failed, "put back", proof)
}

/// A health hook that says no to the new version alone.
const UNHEALTHY: &str =
    "#!/bin/sh\nif grep -q XXX /etc/till.conf; then echo no such currency >&2; exit 1; fi\n";

fn back_after_check(backend: Backend) -> Row {
    let world = patched_once(backend, Package::new("till-data", "3.0").payload(1000));
    world.node.script("/etc/prestage/hooks.d/health/10-currency", UNHEALTHY);
    let before = world.node.image();
    let failed = install(&world).expect(5).says(&["no such currency", "rolled back"]);
    let proof = assert_back(&world, &before);
    assert_eq!(world.node.status().status.state, State::Failed);
    row("install", &failed, "put back", proof)
}

/// The power goes while the packages from before are put back, in a script of one of them.
fn back_after_kill(backend: Backend) -> Row {
    let wait = "if [ -e /slow ]; then touch /reached; while [ -e /slow ]; do sleep 0.05; done; touch /ran-to-its-end; fi";
    let slow = Package::new("till-data", "2.0").payload(LARGE).after(wait);
    let world =
        patched_with(world_with(backend, slow, "till-data"), Package::new("till-data", "3.0").payload(1000));
    world.node.script("/etc/prestage/hooks.d/health/10-currency", UNHEALTHY);
    let before = world.node.image();
    world.node.write("/slow", "");
    let agent = Running::start(&mut world.node.prestage(["install", "--now"]));
    until("the script to begin", PATIENCE, || world.node.path("/reached").exists());
    agent.kill();
    kill_left_behind(&world);
    fs::remove_file(world.node.path("/slow")).expect("it was there");
    assert!(!world.node.path("/ran-to-its-end").exists());
    let done = run(&mut world.node.prestage(["install"])).expect(5);
    let proof = assert_back(&world, &before);
    row("install, next", &done, "put back", proof)
}

/// The first install of a node: nothing is kept yet, but its package manager has what it installed.
fn back_from_the_cache(backend: Backend) -> Row {
    let broken = Package::new("till-data", "2.0").payload(1000).after("echo the till is on fire >&2; exit 1");
    let world = world_with(backend, broken, "till-data");
    world.fill_cache(&old(), true);
    fetch(&world);
    let before = world.node.image();
    let failed = install(&world).expect(4).says(&["till-data", "as it was"]);
    assert_files(&world, &before);
    assert_eq!(world.complaints(), "");
    row("install", &failed, "put back", assert_versions(&world, ["1.0", "1.0", "1.0", ""]))
}

fn no_way_back(backend: Backend) -> Row {
    let broken = Package::new("till-data", "3.0").payload(1000).after("echo the till is on fire >&2; exit 1");
    let world = patched_once(backend, broken);
    let kept = world.node.path("/var/lib/prestage/private/kept");
    let lib = fs::read_dir(&kept).expect("kept packages").flatten().map(|e| e.path());
    let lib =
        lib.into_iter().find(|p| p.to_string_lossy().contains("till-lib")).expect("the library is kept");
    fs::remove_file(lib).expect("a kept package");
    let failed = install(&world).expect(6).says(&["till-data", "no file is kept", "till-lib 2.0"]);
    // Half a way back is none: what had succeeded stays.
    let inventory = world.inventory();
    assert_eq!((inventory["till-lib"].as_str(), inventory["till-app"].as_str()), ("3.0", "3.0"));
    assert_eq!(world.node.status().status.state, State::NeedsPerson);
    row("install", &failed, "needs a person, said so", "till-lib and till-app 3.0".into())
}
