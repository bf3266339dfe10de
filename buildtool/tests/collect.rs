//! Collecting from a real, small, signed archive with real apt, and a bundle of it with real tar and apt.
#![allow(clippy::unwrap_used, reason = "a test that cannot make its world fails")]

mod common;

use std::fs;
use std::process::Command;

use common::{Archive, Deb, VARIANT, World, collected, deb, files, status, tool};

const CHANGELOG: &str = "tool (1.0-1+deb12u1) bookworm-security; urgency=high

  * Fix CVE-2026-1111.

 -- T <t@example.org>  Tue, 03 Nov 2026 20:00:00 +0000

tool (1.0-1) unstable; urgency=medium

  * Fix CVE-2020-2222.

 -- T <t@example.org>  Tue, 01 Aug 2023 20:00:00 +0000
";

fn archive() -> Archive {
    let main = [
        deb("base", "1.0", ""),
        deb("app", "2:1.1-1", ""),
        deb("held", "2.0", ""),
        deb("unrelated", "1.0", ""),
        deb("fresh", "1.0", "Architecture: all\nPhased-Update-Percentage: 10\n"),
        deb("stuck", "2.0", "Depends: nowhere\n"),
    ];
    let security =
        [Deb { name: "tool", version: "1.0-1+deb12u1", fields: "Depends: fresh\n", changelog: CHANGELOG }];
    Archive::new(&main, &security)
}

fn node_status() -> String {
    status(&[
        ("base", "1.0", ""),
        ("app", "2:1.0-1", ""),
        ("tool", "1.0-1", ""),
        ("held", "1.0", "Status: hold ok installed\n"),
        ("stuck", "1.0", ""),
    ])
}

/// The arguments of `collect apt`; the archive's keyring unless another is named.
fn collect(world: &World, archive: &Archive, more: &[&str]) -> common::Run {
    fs::write(world.path("upstream.list"), archive.sources()).unwrap();
    let keyring = archive.path("keyring.gpg");
    let mut args = vec!["--json", "collect", "apt", "--variant", VARIANT, "--output", "col"];
    args.extend(["--sources", "upstream.list"]);
    if !more.contains(&"--keyring") {
        args.extend(["--keyring", keyring.to_str().unwrap()]);
    }
    args.extend(more);
    world.run(&args)
}

#[test]
fn exactly_updates_and_their_new_dependencies_are_collected() {
    let (world, archive) = (World::new(), archive());
    fs::write(world.path("status"), node_status()).unwrap();
    let run = collect(&world, &archive, &["--inventory", "status"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let packages = collected(&world.path("col"));
    assert_eq!(packages.keys().collect::<Vec<_>>(), ["app", "fresh", "tool"]);
    let pool: Vec<String> = files(&world.path("col/pool"))
        .iter()
        .map(|f| f.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(pool, ["app_1.1-1_amd64.deb", "fresh_1.0_all.deb", "tool_1.0-1+deb12u1_amd64.deb"]);
    let tool = &packages["tool"];
    assert_eq!(tool["origin"], "Test:bookworm-security");
    assert_eq!(tool["advisories"], serde_json::json!([{"id": "CVE-2026-1111", "severity": "high"}]));
    assert_eq!(packages["app"]["origin"], "Test:bookworm");
    let mut kept = run.json()["inventories"][0]["keptBack"].as_array().unwrap().clone();
    kept.sort_by_key(|name| name.to_string());
    assert_eq!(kept, ["held", "stuck"]);
}

#[test]
fn with_security_only_other_updates_stay_out_but_dependencies_come_along() {
    let (world, archive) = (World::new(), archive());
    fs::write(world.path("status"), node_status()).unwrap();
    let run = collect(&world, &archive, &["--inventory", "status", "--security-only"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(collected(&world.path("col")).keys().collect::<Vec<_>>(), ["fresh", "tool"]);
}

#[test]
fn several_inventories_of_both_kinds_give_their_union() {
    let (world, archive) = (World::new(), archive());
    fs::write(world.path("one"), status(&[("tool", "1.0-1", ""), ("base", "1.0", "")])).unwrap();
    fs::write(world.path("two"), "app 2:1.0-1\nbase:amd64 1.0\n# and nothing else\n").unwrap();
    let run = collect(&world, &archive, &["--inventory", "one", "--inventory", "two", "--cache", "cache"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(collected(&world.path("col")).keys().collect::<Vec<_>>(), ["app", "fresh", "tool"]);
    let needed: Vec<u64> =
        run.json()["inventories"].as_array().unwrap().iter().map(|i| i["needed"].as_u64().unwrap()).collect();
    assert_eq!(needed, [2, 1]);
    // A list without versions asks for the archive's version of each.
    fs::write(world.path("two"), "base\n").unwrap();
    let run = collect(&world, &archive, &["--inventory", "two", "--cache", "cache"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(collected(&world.path("col")).keys().collect::<Vec<_>>(), ["base"]);
    assert_eq!(files(&world.path("col/pool")).len(), 1, "what belongs to no collection any more is gone");
}

#[test]
fn an_archive_that_is_signed_by_another_key_is_refused() {
    let (world, archive, other) = (World::new(), archive(), Archive::new(&[], &[]));
    fs::write(world.path("status"), node_status()).unwrap();
    let keyring = other.path("keyring.gpg");
    let run = collect(&world, &archive, &["--inventory", "status", "--keyring", keyring.to_str().unwrap()]);
    assert_eq!(run.code, 65, "{}", run.stderr);
    assert!(run.stderr.contains("keyring"), "{}", run.stderr);
    assert!(!world.path("col/collected.json").exists());
}

#[test]
fn an_archive_that_was_changed_after_signing_is_refused() {
    let (world, archive) = (World::new(), archive());
    fs::write(world.path("status"), node_status()).unwrap();
    let packages = archive.path("main/Packages");
    let text = fs::read_to_string(&packages).unwrap().replace("Version: 2:1.1-1", "Version: 2:9.9-1");
    fs::write(&packages, text).unwrap();
    assert_ne!(collect(&world, &archive, &["--inventory", "status"]).code, 0);
    assert!(!world.path("col/collected.json").exists());
}

#[test]
fn a_package_that_was_changed_in_the_archive_is_refused() {
    let (world, archive) = (World::new(), archive());
    fs::write(world.path("status"), node_status()).unwrap();
    let deb =
        files(&archive.path("security")).into_iter().find(|f| f.extension().is_some_and(|e| e == "deb"));
    let deb = deb.unwrap();
    let mut bytes = fs::read(&deb).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&deb, bytes).unwrap();
    let run = collect(&world, &archive, &["--inventory", "status"]);
    assert_eq!(run.code, 65, "{}", run.stderr);
    assert!(!world.path("col/collected.json").exists());
}

#[test]
fn sources_that_switch_off_signatures_are_refused() {
    let (world, archive) = (World::new(), archive());
    fs::write(world.path("status"), node_status()).unwrap();
    fs::write(world.path("trusting.list"), archive.sources().replace("deb ", "deb [trusted=yes] ")).unwrap();
    let run = collect(&world, &archive, &["--inventory", "status"]);
    assert_eq!(run.code, 0);
    let keyring = archive.path("keyring.gpg");
    let words = world.fails(
        78,
        &[
            "collect",
            "apt",
            "--variant",
            VARIANT,
            "--output",
            "col",
            "--sources",
            "trusting.list",
            "--keyring",
            keyring.to_str().unwrap(),
            "--inventory",
            "status",
        ],
    );
    assert!(words.contains("trusted"), "{words}");
}

#[test]
fn an_inventory_that_a_node_sent_cannot_smuggle_settings_into_apt() {
    let (world, archive) = (World::new(), archive());
    let mark = world.path("mark");
    let hostile =
        format!("amd64\"; }}; APT::Update::Pre-Invoke {{ \"touch {}\"; }}; X {{ \"", mark.display());
    let text = node_status().replacen("Architecture: amd64", &format!("Architecture: {hostile}"), 1);
    fs::write(world.path("status"), text).unwrap();
    let run = collect(&world, &archive, &["--inventory", "status"]);
    assert_eq!(run.code, 78, "{}", run.stderr);
    assert!(run.stderr.contains("architecture") && !mark.exists(), "{}", run.stderr);
}

#[test]
fn a_bundle_is_the_same_twice_and_ordinary_tools_read_it() {
    let (world, archive) = (World::new(), archive());
    fs::write(world.path("status"), node_status()).unwrap();
    assert_eq!(collect(&world, &archive, &["--inventory", "status"]).code, 0);
    for out in ["one", "two"] {
        world.ok(&["bundle", "col", "--version", "20261123-42", "--cycle", "2026-11", "--output", out]);
    }
    // A collection made anew, in another place, gives the same bundle too.
    fs::rename(world.path("col"), world.path("moved")).unwrap();
    assert_eq!(collect(&world, &archive, &["--inventory", "status"]).code, 0);
    world.ok(&["bundle", "col", "--version", "20261123-42", "--cycle", "2026-11", "--output", "three"]);
    for file in ["bundle.tar.gz", "index.json"] {
        let one = fs::read(world.path("one").join(file)).unwrap();
        assert!(one == fs::read(world.path("two").join(file)).unwrap(), "{file}");
        assert!(one == fs::read(world.path("three").join(file)).unwrap(), "{file}");
    }

    let listed = tool("tar", &["-tzf", "one/bundle.tar.gz"], &world.path(""));
    let listed = String::from_utf8(listed.stdout).unwrap();
    let expected = "Packages\nRelease\npool/app_1.1-1_amd64.deb\npool/fresh_1.0_all.deb\npool/tool_1.0-1+deb12u1_amd64.deb\n";
    assert_eq!(listed, expected);

    // apt resolves a node against the unpacked repository, with no network and none of the packages there.
    let repo = world.path("unpacked");
    fs::create_dir(&repo).unwrap();
    tool("tar", &["-xzf", world.path("one/bundle.tar.gz").to_str().unwrap()], &repo);
    let packages = fs::read_to_string(repo.join("Packages")).unwrap();
    assert!(!packages.contains("MD5sum") && !packages.contains("Phased-Update-Percentage"), "{packages}");
    fs::remove_dir_all(repo.join("pool")).unwrap();
    let uris = node_apt(&world, &repo);
    for file in ["app_1.1-1_amd64.deb", "fresh_1.0_all.deb", "tool_1.0-1%2bdeb12u1_amd64.deb"] {
        assert!(uris.to_lowercase().contains(file), "{file}: {uris}");
    }
    assert_eq!(uris.lines().count(), 3, "{uris}");
}

/// `apt-get update` and `--print-uris dist-upgrade` of a node against a flat repository.
fn node_apt(world: &World, repo: &std::path::Path) -> String {
    let root = world.path("apt");
    for folder in ["state/lists/partial", "cache/archives/partial", "etc", "log"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::write(root.join("sources.list"), format!("deb [trusted=yes] file:{} ./\n", repo.display())).unwrap();
    fs::write(
        root.join("apt.conf"),
        format!(
            "Dir \"{r}/\"; Dir::State \"{r}/state/\"; Dir::State::status \"{s}\"; Dir::Cache \"{r}/cache/\"; Dir::Etc \"{r}/etc/\";\n\
             Dir::Etc::sourcelist \"{r}/sources.list\"; Dir::Etc::sourceparts \"-\"; Dir::Log \"{r}/log/\"; APT::Architecture \"amd64\";\n\
             APT::Architectures {{\"amd64\";}}; Debug::NoLocking \"1\"; APT::Sandbox::User \"root\"; Acquire::Languages \"none\";\n",
            r = root.display(),
            s = world.path("status").display()
        ),
    )
    .unwrap();
    let apt = |args: &[&str]| {
        let output =
            Command::new("apt-get").args(args).env("APT_CONFIG", root.join("apt.conf")).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    apt(&["update", "-qq", "--error-on=any"]);
    apt(&["-qq", "--print-uris", "dist-upgrade"])
}
