//! What only RPM nodes and RPM repositories have: kernels side by side, obsoletes, vendor signatures, excludes, inventories of
//! several kinds, security advisories.

use std::path::{Path, PathBuf};

use lab::backend::{Backend, Package, World};
use lab::sandbox::{command, run, succeed};

fn old() -> Vec<Package> {
    vec![Package::new("till-app", "1.0"), Package::new("till-lib", "1.0")]
}

fn new() -> Vec<Package> {
    vec![Package::new("till-app", "2.0"), Package::new("till-lib", "2.0")]
}

fn world() -> World {
    World::with(Backend::Dnf, &old(), &[], &new())
}

#[test]
fn kernels_stay_side_by_side_up_to_the_nodes_limit() {
    let kernel = |version| Package::new("kernel", version).tag("Provides", "installonlypkg(kernel)");
    let old = [kernel("5.1"), kernel("5.2"), kernel("5.3")];
    let world = World::with(Backend::Dnf, &old, &[], &[kernel("5.4")]);
    // dnf keeps the kernel that runs, and may not know which that is on a test machine.
    run(&mut world.node.prestage(["run"])).expect(0);
    // installonly_limit is 3, as Enterprise Linux has it.
    assert_eq!(world.version("kernel"), "5.2 5.3 5.4");
    assert_eq!(world.complaints(), "");
    run(&mut world.node.prestage(["run"])).expect(0);
    assert_eq!(world.node.status().status.state, format::status::State::UpToDate);
}

#[test]
fn an_obsoleted_package_goes() {
    let world = World::with(
        Backend::Dnf,
        &[Package::new("till-old", "1.0"), Package::new("till-app", "1.0")],
        &[],
        &[Package::new("till-new", "1.0").tag("Obsoletes", "till-old"), Package::new("till-app", "2.0")],
    );
    run(&mut world.node.prestage(["run"])).expect(0);
    assert_eq!(
        (
            world.version("till-old").as_str(),
            world.version("till-new").as_str(),
            world.version("till-app").as_str()
        ),
        ("", "1.0", "2.0")
    );
}

#[test]
fn a_package_that_the_node_excludes_is_kept_back_and_named() {
    let world = world();
    let conf = world.node.read("/etc/dnf/dnf.conf");
    world.node.write("/etc/dnf/dnf.conf", format!("{conf}exclude=till-lib*\n"));
    run(&mut world.node.prestage(["fetch"])).expect(0);
    let plan = world.node.status().status.plan.expect("a plan");
    assert!(
        plan.kept_back.iter().any(|k| k.contains("till-lib") && k.contains("operator")),
        "{:?}",
        plan.kept_back
    );
    run(&mut world.node.prestage(["install", "--now"])).expect(0);
    assert_eq!((world.version("till-app").as_str(), world.version("till-lib").as_str()), ("2.0", "1.0"));
}

/// Takes the vendor's key out of the node's keyring.
fn forget_the_vendor(world: &World) {
    let keys = succeed(world.node.chroot("rpm").args(["-q", "gpg-pubkey"]));
    succeed(world.node.chroot("rpm").arg("-e").args(keys.split_whitespace()));
}

#[test]
fn a_package_whose_vendor_the_node_does_not_know_is_not_installed_unless_it_is_told_so() {
    let world = world();
    forget_the_vendor(&world);
    run(&mut world.node.prestage(["fetch"])).expect(0);
    let before = world.inventory();
    run(&mut world.node.prestage(["install", "--now"])).expect(4).says(&["keyring", "rpm --import"]);
    assert_eq!(world.inventory(), before);
    // What the node's dnf.conf says counts where nothing else is said.
    world.configure("[install]\ngpgcheck = false\n");
    run(&mut world.node.prestage(["install", "--now"])).expect(0);
    assert_eq!(world.version("till-app"), "2.0");
}

#[test]
fn a_package_that_no_given_key_has_signed_is_not_collected() {
    let world = world();
    world.rpm_archive().publish(&[Package::new("till-app", "3.0")], false);
    let output = world.sandbox.path().join("again");
    let mut collect = world.collector(&output);
    run(collect.arg("--inventory").arg(world.database()))
        .expect(65)
        .says(&["till-app-3.0-1.noarch.rpm", "not signed"]);
    assert!(!output.join("collected.json").exists());
}

/// The packages of a collection, sorted.
fn pool(collected: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(collected.join("pool"))
        .expect("a pool")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn an_inventory_may_be_a_database_an_export_or_a_list_and_gives_the_same() {
    let world = world();
    let path = |name: &str| world.sandbox.path().join(name);
    let write = |path: &PathBuf, script: &str| {
        let text = run(world.node.chroot("sh").args(["-c", script])).expect(0);
        std::fs::write(path, text.stdout).expect("an inventory");
    };
    let (list, own_list, export) = (path("list"), path("own-list"), path("export"));
    write(&list, "rpm -qa");
    write(&own_list, "rpm -qa --qf '%{NAME} %{ARCH} %{VERSION}-%{RELEASE}\\n'");
    succeed(world.node.chroot("sh").args(["-c", "rpmdb --exportdb >/tmp/export"]));
    std::fs::copy(world.node.path("/tmp/export"), &export).expect("an export");
    let wanted = ["till-app-2.0-1.noarch.rpm", "till-lib-2.0-1.noarch.rpm"];
    for (number, inventory) in [list, own_list, export, world.node.root().to_owned()].iter().enumerate() {
        let output = path(&format!("collected-{number}"));
        succeed(world.collector(&output).arg("--inventory").arg(inventory));
        assert_eq!(pool(&output), wanted, "{}", inventory.display());
    }
}

#[test]
fn the_same_collection_again_is_the_same_bytes() {
    let world = world();
    let collect = |name: &str| {
        let output = world.sandbox.path().join(name);
        succeed(world.collector(&output).arg("--inventory").arg(world.database()));
        let bundle = world.centre.bundle(&output, name);
        std::fs::read(bundle.join("bundle.tar.gz")).expect("a bundle")
    };
    // The same content; when it was made is no part of it.
    let (first, again) = (collect("a"), collect("b"));
    assert!(first == again, "{} and {} bytes", first.len(), again.len());
}

/// An advisory file of one security and one other update.
const UPDATEINFO: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<updates>
<update from="vendor" status="final" type="security" version="1"><id>TEST-2026:0001</id><title>app</title>
<severity>Important</severity><issued date="2026-11-01 00:00:00"/><updated date="2026-11-01 00:00:00"/>
<references><reference href="http://example.org/" id="CVE-2026-12345" title="x" type="cve"/></references>
<description>x</description><pkglist><collection short="x"><name>x</name>
<package name="till-app" version="2.0" release="1" epoch="0" arch="noarch" src="till-app-2.0-1.src.rpm">
<filename>till-app-2.0-1.noarch.rpm</filename></package></collection></pkglist></update>
<update from="vendor" status="final" type="bugfix" version="1"><id>TEST-2026:0002</id><title>lib</title>
<severity>None</severity><issued date="2026-11-01 00:00:00"/><updated date="2026-11-01 00:00:00"/><references/>
<description>x</description><pkglist><collection short="x"><name>x</name>
<package name="till-lib" version="2.0" release="1" epoch="0" arch="noarch" src="till-lib-2.0-1.src.rpm">
<filename>till-lib-2.0-1.noarch.rpm</filename></package></collection></pkglist></update>
</updates>
"#;

#[test]
fn security_alone_is_what_an_advisory_names_and_the_index_tells_which() {
    let world = world();
    world.rpm_archive().describe("updateinfo", UPDATEINFO);
    let output = world.sandbox.path().join("security");
    succeed(world.collector(&output).arg("--security").arg("--inventory").arg(world.database()));
    assert_eq!(pool(&output), ["till-app-2.0-1.noarch.rpm"]);
    let bundle = world.centre.bundle(&output, "security");
    let index = std::fs::read(bundle.join("index.json")).expect("an index");
    let index = format::index::Index::parse(&index).expect("a valid index");
    let told: Vec<_> =
        index.advisories["till-app"].iter().map(|a| (a.id.as_str(), a.severity.as_str())).collect();
    assert_eq!(told, [("CVE-2026-12345", "important"), ("TEST-2026:0001", "important")]);
}

/// A stream of the module `till` and its packages, as the repository describes it.
fn stream(stream: &str, package: &str) -> String {
    format!(
        "---\ndocument: modulemd\nversion: 2\ndata:\n  name: till\n  stream: \"{stream}\"\n  version: 1\n  context: 01234567\n\
         \x20 arch: x86_64\n  summary: x\n  description: x\n  license:\n    module: [MIT]\n  api:\n    rpms: [till-app]\n\
         \x20 artifacts:\n    rpms: [\"{package}\"]\n...\n"
    )
}

#[test]
fn a_node_stays_in_its_module_stream_and_the_bundle_has_what_each_stream_needs() {
    let app = |version, label| Package::new("till-app", version).tag("ModularityLabel", label);
    let (first, second) = ("till:1:1:01234567", "till:2:1:01234567");
    let old = [app("1.0", first), Package::new("till-lib", "1.0")];
    let world = World::with(Backend::Dnf, &old, &[], &[Package::new("till-lib", "2.0")]);
    world
        .node
        .write("/etc/dnf/modules.d/till.module", "[till]\nname=till\nstream=1\nprofiles=\nstate=enabled\n");
    let archive = world.rpm_archive();
    archive.publish(&[app("1.1", first), app("2.1", second)], true);
    let streams = stream("1", "till-app-0:1.1-1.noarch") + &stream("2", "till-app-0:2.1-1.noarch");
    let unneeded = stream("3", "till-app-0:3.1-1.noarch");
    let default =
        "---\ndocument: modulemd-defaults\nversion: 1\ndata:\n  module: till\n  stream: \"2\"\n...\n";
    archive.describe("modules", &format!("{streams}{unneeded}{default}"));
    // A database says of each package of which stream it is; so nobody must send the node's configuration along.
    let other = world.other_inventory(&[app("2.0", second)]);
    let collected = world.collect(&[&world.database(), &other]);
    assert_eq!(
        pool(&collected),
        ["till-app-1.1-1.noarch.rpm", "till-app-2.1-1.noarch.rpm", "till-lib-2.0-1.noarch.rpm"]
    );
    let text = std::fs::read_to_string(collected.join("collected.json")).expect("a collection");
    assert!(
        text.contains("modulemd-defaults")
            && text.contains("till-app-0:2.1")
            && !text.contains("till-app-0:3.1")
    );
    world.centre.publish(&world.centre.bundle(&collected, "20261123-2"));
    assert!(world.centre.index().metadata().any(|m| m.path.as_str().starts_with("repodata/modules")));
    run(&mut world.node.prestage(["run"])).expect(0);
    // 2.1 is the newer one, and of the other stream.
    assert_eq!((world.version("till-app").as_str(), world.version("till-lib").as_str()), ("1.1", "2.0"));
}

#[test]
fn weak_dependencies_come_unless_the_node_has_said_no_or_the_archive_has_none() {
    let app =
        || Package::new("till-app", "2.0").tag("Recommends", "till-weak").tag("Recommends", "till-nowhere");
    let new = [app(), Package::new("till-weak", "1.0")];
    let world = World::with(Backend::Dnf, &old(), &[], &new);
    let conf = world.node.read("/etc/dnf/dnf.conf");
    world.node.write("/etc/dnf/dnf.conf", format!("{conf}install_weak_deps=0\n"));
    run(&mut world.node.prestage(["fetch"])).expect(0);
    assert_eq!(world.node.status().status.plan.expect("a plan").packages, 1);
    world.node.write("/etc/dnf/dnf.conf", conf);
    run(&mut world.node.prestage(["run"])).expect(0);
    assert_eq!((world.version("till-app").as_str(), world.version("till-weak").as_str()), ("2.0", "1.0"));
}

#[test]
fn a_reboot_is_asked_for_when_the_distribution_does() {
    for (name, wanted) in [("glibc", true), ("till-app", false)] {
        let new = [Package::new(name, "2.0")];
        let world = World::with(Backend::Dnf, &[Package::new(name, "1.0")], &[], &new);
        run(&mut world.node.prestage(["run"])).expect(0);
        assert_eq!(world.version(name), "2.0");
        assert_eq!(world.node.status().status.reboot_required, wanted, "{name}");
    }
}

#[test]
fn kernels_and_obsoleted_packages_come_back_too() {
    let kernel = |version| Package::new("kernel", version).tag("Provides", "installonlypkg(kernel)");
    let old = [kernel("5.1"), kernel("5.2"), kernel("5.3"), Package::new("till-old", "1.0")];
    let new = [kernel("5.4"), Package::new("till-new", "1.0").tag("Obsoletes", "till-old")];
    let world = World::with(Backend::Dnf, &old, &[], &new);
    world.fill_cache(&old, true);
    let before = world.inventory();
    let hook = "#!/bin/sh\nrpm -q till-new >/run/asked || exit 0\nmv /run/asked /run/seen; exit 1\n";
    world.node.script("/etc/prestage/hooks.d/health/10-new", hook);
    run(&mut world.node.prestage(["run"])).expect(5);
    assert_eq!(world.node.read("/run/seen"), "till-new-1.0-1.noarch\n", "it was installed once");
    assert_eq!(world.inventory(), before);
    assert_eq!(world.complaints(), "");
}

#[test]
fn what_is_put_back_is_signed_by_a_vendor_that_the_node_knows() {
    let world = world();
    world.fill_cache(&old(), false);
    world.node.script("/etc/prestage/hooks.d/health/10-new", "#!/bin/sh\n! rpm -q till-app-2.0\n");
    run(&mut world.node.prestage(["run"])).expect(6).says(&["till-app-1.0-1.noarch.rpm is not signed"]);
    assert_eq!((world.version("till-app").as_str(), world.version("till-lib").as_str()), ("2.0", "2.0"));
}

#[test]
fn a_node_with_dnf_5_alone_is_refused_with_words_and_not_touched() {
    let world = world();
    for program in ["dnf", "dnf-3", "yum"] {
        let _ = std::fs::remove_file(world.node.path(&format!("/usr/bin/{program}")));
    }
    world.node.script("/usr/bin/dnf5", "#!/bin/sh\ntouch /was-run\n");
    let before = world.node.image();
    run(&mut world.node.prestage(["run"])).expect(78).says(&["dnf 5", "install dnf 4 beside it"]);
    world.node.assert_is(&before);
}

#[test]
fn every_yum_can_read_the_staged_repodata() {
    let world = world();
    let index = world.centre.index();
    let names: Vec<&str> = index.metadata().map(|m| m.path.as_str()).collect();
    assert_eq!(names, ["repodata/primary.xml.gz", "repodata/filelists.xml.gz", "repodata/repomd.xml"]);
    run(&mut world.node.prestage(["fetch"])).expect(0);
    let staged = world.node.path("/var/lib/prestage/fetch/staged");
    let repo =
        std::fs::read_dir(staged).expect("a staged repo").flatten().next().expect("a staged repo").path();
    // A reader that is neither dnf nor ours.
    let script = "import sys, createrepo_c as cr\nm = cr.Metadata()\nm.locate_and_load_xml(sys.argv[1])\n\
                  print(sorted(m.get(k).nevra() for k in m.keys()))";
    let read = succeed(command("/usr/bin/python3").args(["-c", script]).arg(repo));
    assert_eq!(read.trim(), "['till-app-0:2.0-1.noarch', 'till-lib-0:2.0-1.noarch']");
}

#[test]
fn one_command_builds_every_variant_of_a_build_file_and_one_that_fails_holds_up_no_other() {
    let rpm = world();
    let apt = World::with(Backend::Apt, &old(), &[], &new());
    let folder = rpm.sandbox.path().join("cycle");
    std::fs::create_dir_all(folder.join("tills")).expect("a folder");
    std::fs::copy(apt.database(), folder.join("tills/till-1.status")).expect("an inventory");
    let archive = apt.sandbox.path().join("archive");
    let text = format!(
        "output = \"out\"\ncache = \"cache\"\n\
         [[variant]]\nname = \"{}\"\nfamily = \"apt\"\nsources = {:?}\nkeys = [{:?}]\ninventories = [\"tills/*\"]\n\
         [[variant]]\nname = \"{}\"\nfamily = \"rpm\"\nsources = {:?}\nkeys = [{:?}]\ninventories = [{:?}]\n\
         [[variant]]\nname = \"nowhere-1-x86_64\"\nfamily = \"rpm\"\nsources = \"missing.repo\"\nkeys = [{:?}]\ninventories = [{:?}]\n",
        apt.variant(),
        archive.join("sources.list"),
        archive.join("keyring.gpg"),
        rpm.variant(),
        rpm.rpm_archive().sources(),
        rpm.rpm_archive().key(),
        rpm.database(),
        rpm.rpm_archive().key(),
        rpm.database(),
    );
    std::fs::write(folder.join("prestage.toml"), text).expect("a build file");
    let build = || {
        let mut build = rpm.centre.build(["build"]);
        build.arg(folder.join("prestage.toml")).args(["--version", "20261201-1", "--cycle", "2026-12"]);
        run(&mut build).expect(1).says(&["nowhere-1-x86_64", "missing.repo"])
    };
    build();
    let digest = |world: &World| {
        let bundle = folder.join("out").join(world.variant().as_str()).join("bundle");
        let index = format::index::Index::parse(&std::fs::read(bundle.join("index.json")).expect("an index"));
        let index = index.expect("a valid index");
        assert_eq!(index.packages().count(), 2);
        index.bundle.sha256
    };
    let first = [digest(&apt), digest(&rpm)];
    // Again, with what was kept of the first time: the same bytes, and no package is downloaded twice.
    let packages = |asked: Vec<String>| asked.iter().filter(|p| p.ends_with(".rpm")).count();
    let before = packages(rpm.rpm_archive().asked());
    assert!(before > 0);
    build();
    assert_eq!([digest(&apt), digest(&rpm)], first);
    assert_eq!(packages(rpm.rpm_archive().asked()), before);
}
