//! Nodes as they are: held packages, edited files, locks, full disks, interrupted and failing packages.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use format::report::Outcome;
use format::status::State;
use lab::debs::Deb;
use lab::node::User;
use lab::sandbox::{command, run};
use lab::world::{World, new_packages, old_packages};

#[test]
fn a_held_package_is_kept_back_and_named() {
    let world = World::new();
    let node = &world.node;
    node.hold("till-data");
    run(&mut node.prestage(["fetch"])).expect(0);
    let plan = node.status().status.plan.expect("a plan");
    assert!(plan.kept_back.iter().any(|k| k.contains("till-data")), "{:?}", plan.kept_back);
    assert!(world.bundle_bytes_sent() < 1_000_000, "the held package was fetched");
    run(&mut node.prestage(["install", "--now"])).expect(0);
    let versions = ["till-app", "till-lib", "till-data"].map(|p| node.version(p));
    assert_eq!(versions, ["2.0", "2.0", "1.0"]);
    run(&mut node.prestage(["run"])).expect(0);
    assert_eq!(node.version("till-data"), "1.0");
}

#[test]
fn an_edited_conffile_is_kept() {
    let world = World::new();
    world.node.write("/etc/till.conf", "currency = GBP # ours\n");
    run(&mut world.node.prestage(["run"])).expect(0);
    world.assert_patched();
    assert_eq!(world.node.read("/etc/till.conf"), "currency = GBP # ours\n");
}

#[test]
fn an_untouched_conffile_is_replaced() {
    let world = World::new();
    run(&mut world.node.prestage(["run"])).expect(0);
    assert_eq!(world.node.read("/etc/till.conf"), "currency = EUR\n");
}

/// `size`: of the file system that the agent's state is on, in MiB.
fn a_full_disk_defers_the_fetch_with_numbers(size: u64) {
    let world = World::new();
    let node = &world.node;
    node.small_disk("/var/lib/prestage", size * 1024 * 1024);
    let refused = run(&mut node.prestage(["fetch"])).expect(1).says(&["free", "MiB"]);
    assert!(refused.stderr.chars().any(|c| c.is_ascii_digit()), "{refused}");
    let fetch = node.status().status.fetch.expect("the fetch step");
    assert_eq!((fetch.outcome, fetch.exit_code), (Outcome::Deferred, 1));
    node.normal_disk("/var/lib/prestage");
    run(&mut node.prestage(["run"])).expect(0);
    world.assert_patched();
}

#[test]
fn a_disk_with_room_for_a_plan_alone_defers_the_fetch_with_numbers() {
    a_full_disk_defers_the_fetch_with_numbers(16);
}

#[test]
fn a_disk_without_room_for_a_plan_defers_the_fetch_with_numbers() {
    a_full_disk_defers_the_fetch_with_numbers(1);
}

#[test]
fn a_disk_that_is_full_to_the_last_byte_gives_no_false_status() {
    let world = World::new();
    let node = &world.node;
    node.small_disk("/var/lib/prestage", 1024 * 1024);
    let filler = node.path("/var/lib/prestage/filler");
    let _ = std::fs::write(&filler, vec![1; 2 * 1024 * 1024]);
    let refused = run(&mut node.prestage(["fetch"]));
    assert!(matches!(refused.code, Some(1 | 74)), "{refused}");
    let _ = refused.says(&["space"]);
    node.normal_disk("/var/lib/prestage");
    run(&mut node.prestage(["run"])).expect(0);
    world.assert_patched();
}

#[test]
fn an_interrupted_dpkg_is_repaired_first() {
    let mut old = old_packages();
    // Its configuration waits for a file: as if the power had gone in the middle.
    old.push(Deb::new("till-half", "1.0"));
    let world = World::with(&old, &new_packages());
    let node = &world.node;
    let deb = Deb::new("till-half", "1.1")
        .script("postinst", "test -e /etc/till-half-may-go-on")
        .build(&node.path("/tmp"));
    let inside = format!("/tmp/{}", deb.file_name().unwrap_or_default().to_string_lossy());
    run(node.chroot("dpkg").args(["-i", &inside])).expect(1);
    assert!(node.version("till-half").starts_with("1.1 "), "it is half-configured");
    node.write("/etc/till-half-may-go-on", "");
    run(&mut node.prestage(["run"])).expect(0);
    world.assert_patched();
    assert_eq!(node.version("till-half"), "1.1");
}

/// A world whose `till-data` fails in a maintainer script.
fn failing(script: &'static str) -> World {
    let mut new = new_packages();
    new.retain(|deb| !format!("{deb:?}").contains("till-data"));
    new.push(Deb::new("till-data", "2.0").script(script, "echo the till is on fire >&2; exit 1"));
    World::with(&old_packages(), &new)
}

fn assert_failure_is_told(world: &World) {
    let node = &world.node;
    let failed = run(&mut node.prestage(["install", "--now"]));
    assert!(matches!(failed.code, Some(4 | 6)), "{failed}");
    let status = node.status().status;
    let install = status.install.expect("the install step");
    assert_eq!(Some(i32::from(install.exit_code)), failed.code);
    match failed.code {
        // 4 says that the node is in its pre-patch state: then it must be.
        Some(4) => {
            assert_eq!((status.state, install.outcome), (State::Failed, Outcome::InstallFailed));
            let versions = ["till-app", "till-lib", "till-data"].map(|p| node.version(p));
            assert_eq!(versions, ["1.0", "1.0", "1.0"]);
        }
        _ => assert_eq!((status.state, install.outcome), (State::NeedsPerson, Outcome::NeedsPerson)),
    }
    let failed = failed.says(&["till-data"]);
    assert!(status.installed.is_none(), "a false status after {failed}");
    run(&mut node.prestage(["report"])).expect(0);
    let reports = world.receiver.accepted();
    assert_eq!(reports.last().expect("a report").outcome, install.outcome);
    // The timer does not install the same bundle again and again.
    let terminal = node.read("/var/log/dpkg.log");
    let again = run(&mut node.prestage(["install"]));
    assert!(again.code != Some(0), "{again}");
    assert_eq!(node.read("/var/log/dpkg.log"), terminal, "dpkg ran again: {again}");
    // And what comes after does not hide it.
    run(&mut node.prestage(["run"]));
    let later = node.status().status;
    assert_eq!(later.state, status.state, "{}", later.summary);
    assert_eq!(later.install.expect("the install step").outcome, install.outcome);
}

#[test]
fn a_failing_postinst_is_4_or_6_and_told_and_not_repeated() {
    let world = failing("postinst");
    run(&mut world.node.prestage(["fetch"])).expect(0);
    assert_failure_is_told(&world);
}

#[test]
fn a_failing_preinst_is_4_or_6_and_told_and_not_repeated() {
    let world = failing("preinst");
    run(&mut world.node.prestage(["fetch"])).expect(0);
    assert_failure_is_told(&world);
}

#[test]
fn a_package_manager_that_stops_before_it_changes_anything_is_4_and_not_6() {
    let world = World::new();
    let node = &world.node;
    node.write("/etc/apt/apt.conf.d/99-stop", "DPkg::Pre-Invoke { \"exit 1\"; };\n");
    run(&mut node.prestage(["fetch"])).expect(0);
    let before = node.inventory();
    let failed = run(&mut node.prestage(["install", "--now"]));
    assert_eq!(node.inventory(), before);
    failed.expect(4).says(&["Pre-Invoke"]);
    assert_eq!(node.status().status.state, State::Failed);
    // What was wrong is put right, and the operator says so.
    std::fs::remove_file(node.path("/etc/apt/apt.conf.d/99-stop")).expect("the hook");
    run(&mut node.prestage(["install", "--now"])).expect(0);
    world.assert_patched();
}

#[test]
fn an_install_is_refused_where_no_network_namespace_can_be_made() {
    let world = World::new();
    let node = &world.node;
    run(&mut node.prestage(["fetch"])).expect(0);
    // Said and not asked of dpkg, which could not be run in the node's root either.
    let variant = format!("id = \"test-node\"\nvariant = \"{}\"", node.variant());
    let config = node.read("/etc/prestage/agent.toml").replace("id = \"test-node\"", &variant);
    node.write("/etc/prestage/agent.toml", config);
    let before = node.image();
    let install = node.prestage(["install", "--now"]);
    // As in a container without CAP_SYS_ADMIN.
    let mut unprivileged = command("setpriv");
    unprivileged.args(["--bounding-set=-sys_admin", "--inh-caps=-sys_admin", "--"]);
    unprivileged.arg(install.get_program()).args(install.get_args());
    run(&mut unprivileged).expect(1).says(&["namespace"]);
    node.assert_is(&before);
    run(&mut node.prestage(["install", "--now"])).expect(0);
    world.assert_patched();
}

#[test]
fn outside_the_maintenance_window_nothing_is_installed() {
    let world = World::new();
    // One minute a week, which is not the one of now: the day after tomorrow.
    let day = run(command("date").args(["-u", "-d", "+2 days", "+%a"])).expect(0).stdout;
    let windows =
        format!("[schedule]\nmaintenance-window = [\"{} 03:00-03:01\"]\ntimezone = \"UTC\"\n", day.trim());
    world.configure(&windows);
    let before = world.node.image();
    run(&mut world.node.prestage(["run"])).expect(1).says(&["window"]);
    assert_eq!(world.staged().len(), 4, "the fetch does not wait for the window");
    world.node.assert_is(&before);
    assert_eq!(world.node.status().status.state, State::Staged);
    run(&mut world.node.prestage(["install", "--now"])).expect(0);
    world.assert_patched();
}

#[test]
fn reports_wait_for_a_receiver_that_is_down() {
    let world = World::new();
    world.receiver.set_down(true);
    let ended = run(&mut world.node.prestage(["run"]));
    assert!(matches!(ended.code, Some(0 | 69)), "{ended}");
    world.assert_patched();
    assert_eq!(world.node.status().status.reports_queued, 2);
    world.receiver.set_down(false);
    run(&mut world.node.prestage(["report"])).expect(0);
    assert_eq!(world.receiver.accepted().len(), 2);
    assert_eq!(world.node.status().status.reports_queued, 0);
}

#[test]
fn two_agents_do_not_work_at_once() {
    let world = World::new();
    world.mirror.behave(lab::server::Behaviour {
        cuts: [lab::server::Cut {
            suffix: ".bundle.tar.gz".into(),
            after: 1_000_000,
            how: lab::server::CutKind::Stall,
        }]
        .into(),
        ..lab::server::Behaviour::default()
    });
    let first = lab::sandbox::Running::start(&mut world.node.prestage(["fetch"]));
    assert!(world.mirror.wait_for_stall(), "the agent never came so far");
    run(&mut world.node.prestage(["fetch"])).expect(1);
    first.kill();
    world.mirror.release();
    run(&mut world.node.prestage(["fetch"])).expect(0);
}

#[test]
fn what_root_fetches_by_hand_is_the_fetch_users() {
    let world = World::new();
    let node = &world.node;
    node.deploy();
    let by = |user, args: &[&str]| run(node.run_as(user, "/usr/bin/prestage").args(args));
    by(User::Root, &["fetch", "--now"]).expect(0);
    let fetched = node.path("/var/lib/prestage/fetch");
    let of_root = |folder: &std::path::Path| {
        lab::sandbox::succeed(command("find").arg(folder).args(["!", "-user", "990"]))
    };
    assert_eq!(of_root(&fetched), "");
    // So the service goes on with it, and root installs it.
    by(User::Prestage, &["fetch", "--now"]).expect(0);
    run(&mut node.prestage(["install", "--now"])).expect(0);
    world.assert_patched();
    assert_eq!(of_root(&fetched), "");
    // What only root can read can be imported by root alone, and is the fetch user's then.
    fs::remove_dir_all(fetched.join("store")).expect("a store");
    let stick = node.path("/root/stick");
    lab::sandbox::succeed(command("cp").arg("-r").arg(world.centre.repository()).arg(&stick));
    fs::set_permissions(&stick, fs::Permissions::from_mode(0o700)).expect("a mode");
    assert_ne!(by(User::Prestage, &["import", "/root/stick"]).code, Some(0));
    by(User::Root, &["import", "/root/stick", "--everything"]).expect(0);
    assert_eq!(of_root(&fetched), "");
}

#[test]
fn an_install_says_whether_nothing_was_fetched_or_what_was_cannot_be_used() {
    let world = World::new();
    run(&mut world.node.prestage(["install", "--now"])).expect(1).says(&["nothing has been fetched yet"]);
    run(&mut world.node.prestage(["fetch"])).expect(0);
    let metadata = world.node.path("/var/lib/prestage/fetch/metadata");
    fs::remove_file(metadata.join("snapshot.json")).expect("a snapshot");
    let ended = run(&mut world.node.prestage(["install", "--now"])).expect(1).says(&["snapshot.json"]);
    assert!(!ended.stderr.contains("nothing has been fetched"), "{ended}");
}
