//! From an archive to a patched node, and then nothing more to do.

use format::report::{Outcome, Step};
use format::status::State;
use lab::sandbox::{run, succeed};
use lab::world::{VERSION, World};

#[test]
fn a_node_is_patched_from_archive_to_report_without_a_network() {
    let world = World::new();
    let node = &world.node;

    run(&mut node.prestage(["fetch"])).expect(0);
    let status = node.status().status;
    assert_eq!(status.state, State::Staged, "{}", status.summary);
    let plan = status.plan.expect("a plan");
    assert!(plan.complete);
    assert_eq!((plan.packages, plan.bundle.version.as_str()), (4, VERSION));
    assert_eq!(plan.bytes_present, plan.bytes_needed);
    assert_eq!(
        world.staged(),
        ["till-app_2.0_all.deb", "till-data_2.0_all.deb", "till-lib_2.0_all.deb", "till-new_1.0-3_all.deb"]
    );

    run(&mut node.prestage(["install", "--now"])).expect(0);
    world.assert_patched();
    let status = node.status().status;
    assert_eq!(status.state, State::UpToDate, "{}", status.summary);
    assert_eq!(status.installed.expect("what was installed").packages, 4);
    let install = status.install.expect("the install step");
    assert_eq!(install.outcome, Outcome::Installed);
    assert_eq!(install.network_seen.expect("what the package manager saw"), ["lo down"]);

    run(&mut node.prestage(["report"])).expect(0);
    let reports = world.receiver.accepted();
    assert_eq!(world.receiver.refused(), Vec::<String>::new());
    let told: Vec<_> = reports.iter().map(|r| (r.step, r.outcome)).collect();
    assert_eq!(told, [(Step::Fetch, Outcome::Staged), (Step::Install, Outcome::Installed)]);
    assert_eq!(reports[1].changes.len(), 4);
    assert_eq!(node.status().status.reports_queued, 0);
}

#[test]
fn only_what_the_node_needs_is_fetched_and_not_the_bundle() {
    let world = World::new();
    run(&mut world.node.prestage(["fetch"])).expect(0);
    let index = world.centre.index();
    let needed: u64 = ["till-app", "till-lib", "till-data", "till-new"]
        .iter()
        .map(|name| world.centre.member(name).whole().map_or(0, |e| e.length))
        .sum();
    let metadata: u64 = index.metadata().filter_map(|m| m.whole()).map(|e| e.length).sum();
    let sent = world.bundle_bytes_sent();
    assert_eq!(sent, needed + metadata, "bytes of the bundle file that went over the wire");
    assert!(sent < index.bundle.length * 6 / 10, "{sent} of {}", index.bundle.length);
    assert!(
        !index.packages().any(|m| m.path.as_str().contains("nobody-has-this")),
        "a package that no inventory has is in the bundle"
    );
    let status = world.node.status().status;
    let fetch = status.fetch.expect("the fetch step");
    let bodies: u64 = world.mirror.exchanges().iter().map(|e| e.sent).sum();
    assert!(fetch.bytes_received >= bodies, "{} < {bodies}: headers count too", fetch.bytes_received);
    assert_eq!(fetch.requests, world.mirror.exchanges().len() as u64);
}

#[test]
fn a_second_run_does_nothing_and_makes_at_most_two_requests() {
    let world = World::new();
    let node = &world.node;
    run(&mut node.prestage(["run"])).expect(0);
    world.assert_patched();
    let before = node.image();
    world.mirror.forget();
    let reports = world.receiver.accepted().len();
    run(&mut node.prestage(["run"])).expect(0);
    node.assert_is(&before);
    let exchanges = world.mirror.exchanges();
    assert!(exchanges.len() <= 2, "{exchanges:#?}");
    assert_eq!(exchanges.iter().map(|e| e.sent).sum::<u64>(), 0, "{exchanges:#?}");
    assert_eq!(world.receiver.accepted().len(), reports, "nothing happened, so nothing is to be reported");
    assert_eq!(node.status().status.state, State::UpToDate);
}

#[test]
fn the_package_manager_sees_no_network_but_a_lo_that_is_down() {
    let world = World::new();
    world.node.write(
        "/etc/apt/apt.conf.d/99-look",
        "DPkg::Pre-Invoke { \"{ ip -o link; readlink /proc/self/ns/net; } >/var/log/hook-saw\"; };\n",
    );
    run(&mut world.node.prestage(["fetch"])).expect(0);
    run(&mut world.node.prestage(["install", "--now"])).expect(0);
    // From a maintainer script: the header's two lines, and lo.
    let seen = world.node.read("/var/log/network-seen");
    let interfaces: Vec<&str> =
        seen.lines().skip(2).filter_map(|l| l.split(':').next()).map(str::trim).collect();
    assert_eq!(interfaces, ["lo"], "{seen}");
    // From dpkg's hook: lo is down, and the namespace is not ours.
    let seen = world.node.read("/var/log/hook-saw");
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines.len(), 2, "{seen}");
    assert!(lines[0].contains("lo:") && lines[0].contains("state DOWN"), "{seen}");
    let ours = std::fs::read_link("/proc/self/ns/net").expect("this process has a network namespace");
    assert_ne!(lines[1], ours.to_string_lossy());
}

#[test]
fn the_bundle_and_the_staged_repository_open_with_ordinary_tools() {
    let world = World::new();
    let bundle = world.centre.file(lab::repository::Part::BundleData);
    let listed = succeed(lab::sandbox::command("tar").arg("-tzf").arg(&bundle));
    let index = world.centre.index();
    let members: Vec<&str> = index.members.iter().map(|m| m.path.as_str()).collect();
    assert_eq!(listed.lines().collect::<Vec<_>>(), members);
    let unpacked = world.sandbox.path().join("unpacked");
    std::fs::create_dir(&unpacked).expect("a folder");
    succeed(lab::sandbox::command("tar").arg("-xzf").arg(&bundle).arg("-C").arg(&unpacked));

    run(&mut world.node.prestage(["fetch"])).expect(0);
    let staged = "/var/lib/prestage/fetch/staged";
    let folder = std::fs::read_dir(world.node.path(staged)).expect("a staged repo").flatten().next();
    let folder = folder.expect("a staged repo").file_name();
    let source = format!("deb [trusted=yes] file:{staged}/{} ./\n", folder.to_string_lossy());
    world.node.write("/tmp/staged.list", source);
    std::fs::create_dir_all(world.node.path("/tmp/lists/partial")).expect("a folder for apt's lists");
    let apt = |args: &[&str]| {
        let lists = "Dir::State::lists=/tmp/lists";
        let list = "Dir::Etc::sourcelist=/tmp/staged.list";
        let mut command = world.node.chroot("apt-get");
        command.args([
            "-o",
            list,
            "-o",
            "Dir::Etc::sourceparts=-",
            "-o",
            lists,
            "-o",
            "APT::Sandbox::User=root",
        ]);
        run(command.args(args)).expect(0)
    };
    apt(&["update"]);
    apt(&["-s", "dist-upgrade"]).says(&["Inst till-app [1.0] (2.0", "Inst till-new (1.0-3"]);
}

#[test]
fn the_same_collection_gives_the_same_bytes() {
    let world = World::new();
    let first = world.centre.index();
    // Collected again, of the same archive and inventories, and bundled under the same name.
    let again = world.sandbox.path().join("again");
    let collected = world.sandbox.path().join("centre/collected");
    let mut bundle = world.centre.build(["bundle", "--version", VERSION, "--cycle", "2026-11"]);
    succeed(bundle.arg(&collected).arg("--output").arg(&again));
    let digest = |path: &std::path::Path| {
        let mut file = std::fs::File::open(path).expect("a bundle");
        format::digest::Sha256::of_reader(&mut file).expect("a bundle").0
    };
    let files: Vec<_> = std::fs::read_dir(&again).expect("a bundle").flatten().map(|e| e.path()).collect();
    let bundle = files.iter().find(|p| p.to_string_lossy().ends_with(".tar.gz")).expect("a bundle file");
    assert_eq!(digest(bundle), first.bundle.sha256);
}

#[test]
fn an_epoch_of_zero_that_is_written_out_is_no_other_version() {
    let old = [lab::debs::Deb::new("till-app", "0:1.0-1")];
    let new = [lab::debs::Deb::new("till-app", "0:1.0-2")];
    let world = World::with(&old, &new);
    run(&mut world.node.prestage(["run"])).expect(0);
    assert_eq!(world.node.version("till-app"), "1.0-2");
    run(&mut world.node.prestage(["run"])).expect(0);
}
