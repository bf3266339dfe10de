//! Keys, thresholds, rotation, publication and export, each judged by the code that nodes run.
#![allow(clippy::unwrap_used, reason = "a test that cannot make its world fails")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use common::{VARIANT, World, files, tool};
use format::digest::Sha256;
use format::trust::SearchStep;

/// The policy NAMESPACE/edge for the bundle 1.
fn policy(namespace: &str) -> String {
    format!(
        r#"{{"apiVersion":"patchmgmt.io/v1","kind":"PatchPolicy","metadata":{{"name":"edge","namespace":"{namespace}"}},"#
    ) + r#""spec":{"bundleRef":{"version":"1"},"targets":{"selector":{}}}}"#
}

fn serial(world: &World, version: &str) -> u64 {
    let listed = world.ok(&["--json", "bundles", "list", "repo"]).json();
    let bundles = listed["bundles"].as_array().unwrap();
    bundles.iter().find(|b| b["version"] == version).unwrap()["serial"].as_u64().unwrap()
}

#[test]
fn a_published_bundle_is_found_and_accepted_by_a_node() {
    let world = World::new();
    world.repository();
    world.release("1");
    world.release("2");
    let set = world.node(1).unwrap();
    let path = format!("bundles/{VARIANT}/2/index.json");
    let mut search = set.search(&path);
    assert!(matches!(search.step(&set), SearchStep::Found(_)));
    assert!(set.issued().is_some());
    assert_eq!((serial(&world, "1"), serial(&world, "2")), (1, 2));
    let check = world.ok(&["--json", "check", "repo", "--full"]).json();
    assert_eq!(check["problems"].as_array().unwrap().len(), 0, "{check}");
}

#[test]
fn a_bundle_counts_only_when_two_of_three_approvers_have_signed() {
    let world = World::new();
    world.keys(&["root", "targets", "builder", "approver", "second", "snapshot", "timestamp"]);
    world.ok(&[
        "root",
        "init",
        "repo",
        "--root-key",
        "keys/root",
        "--targets-key",
        "keys/targets",
        "--bundles-key",
        "keys/builder",
        "--bundles-key",
        "keys/approver",
        "--bundles-key",
        "keys/second.pub",
        "--bundles-threshold",
        "2",
        "--snapshot-key",
        "keys/snapshot",
        "--timestamp-key",
        "keys/timestamp",
    ]);
    world.bundle("out", "1");
    let one = world.ok(&["--json", "sign", "repo", "out", "--key", "keys/builder"]).json();
    assert_eq!(one["state"], "pending");
    let before = files(&world.path("repo"));
    let publish =
        ["publish", "repo", "out", "--snapshot-key", "keys/snapshot", "--timestamp-key", "keys/timestamp"];
    let words = world.fails(1, &publish);
    assert!(words.contains("1 of 2") && words.contains("signed by"), "{words}");
    assert_eq!(files(&world.path("repo")), before, "nothing was published");
    // The same key again is still one.
    world.ok(&["sign", "repo", "out", "--key", "keys/builder"]);
    world.fails(1, &publish);
    // A second approver checks what it signs: another bundle of that name is refused.
    world.collection("forged", &[("evil", 10)]);
    world.ok(&["bundle", "forged", "--version", "1", "--cycle", "2026-11", "--output", "evil"]);
    let words = world.fails(65, &["sign", "repo", "evil", "--key", "keys/second"]);
    assert!(words.contains("other content"), "{words}");
    let two = world.ok(&["--json", "sign", "repo", "out", "--key", "keys/second"]).json();
    assert_eq!(two["state"], "ready");
    world.ok(&publish);
    assert_eq!(world.node(1).unwrap().targets("bundles").unwrap().targets.len(), 2);
    let check = world.ok(&["--json", "check", "repo"]).json();
    let bundles =
        check["signers"].as_array().unwrap().iter().find(|s| s["role"] == "bundles").unwrap().clone();
    assert_eq!(
        (bundles["signed"].as_array().unwrap().len(), bundles["open"].as_array().unwrap().len()),
        (2, 1)
    );
}

#[test]
fn a_root_of_two_holders_waits_for_the_second_and_is_never_served_before() {
    let world = World::new();
    world.keys(&["a", "b", "targets", "bundles", "snapshot", "timestamp"]);
    let init = world.ok(&[
        "--json",
        "root",
        "init",
        "repo",
        "--root-key",
        "keys/a",
        "--root-key",
        "keys/b.pub",
        "--root-threshold",
        "2",
        "--targets-key",
        "keys/targets",
        "--bundles-key",
        "keys/bundles",
        "--snapshot-key",
        "keys/snapshot",
        "--timestamp-key",
        "keys/timestamp",
    ]);
    assert_eq!(init.json()["state"], "pending");
    assert!(!world.path("repo").exists());
    let publish = ["publish", "repo", "--snapshot-key", "keys/snapshot", "--timestamp-key", "keys/timestamp"];
    world.fails(1, &publish);
    // A key that belongs to no role signs nothing.
    world.keys(&["stranger"]);
    world.fails(64, &["root", "sign", "repo", "--key", "keys/stranger"]);
    world.ok(&["root", "sign", "repo", "--key", "keys/b"]);
    world.ok(&publish);
    world.node(1).unwrap();
}

#[test]
fn every_role_can_be_rotated_and_a_node_with_the_first_root_follows() {
    let world = World::new();
    world.repository();
    world.release("1");
    let new = ["root2", "targets2", "bundles2", "snapshot2", "timestamp2"];
    world.keys(&new);
    // With the old online keys given once beside the new ones, no node is turned away at any moment.
    for (role, key) in [("snapshot", "snapshot2"), ("timestamp", "timestamp2")] {
        let (old, new) = (format!("keys/{role}"), format!("keys/{key}"));
        world.ok(&["root", "rotate", "repo", "--role", role, "--old", &old, "--new", &new]);
    }
    world.ok(&["root", "sign", "repo", "--key", "keys/root"]);
    let run = world.ok(&[
        "--json",
        "publish",
        "repo",
        "--snapshot-key",
        "keys/snapshot",
        "--snapshot-key",
        "keys/snapshot2",
        "--timestamp-key",
        "keys/timestamp",
        "--timestamp-key",
        "keys/timestamp2",
    ]);
    assert_eq!(run.json()["notes"].as_array().unwrap().len(), 0);
    let online = ["--snapshot-key", "keys/snapshot2", "--timestamp-key", "keys/timestamp2"];
    for root in [1, 2] {
        world.node(root).unwrap();
    }

    for (role, signers) in [
        ("bundles", &["keys/targets", "keys/bundles2"][..]),
        ("targets", &["keys/root", "keys/targets2"]),
        ("root", &["keys/root", "keys/root2"]),
    ] {
        let (old, new) = (format!("keys/{role}"), format!("keys/{role}2"));
        world.ok(&["root", "rotate", "repo", "--role", role, "--old", &old, "--new", &new]);
        for signer in signers {
            world.fails(1, &[&["publish", "repo"][..], &online].concat());
            world.ok(&["root", "sign", "repo", "--key", signer]);
        }
        world.ok(&[&["publish", "repo"][..], &online].concat());
        world.node(1).unwrap_or_else(|e| panic!("{role}: {e}"));
    }
    assert_eq!(world.node(1).unwrap().root().header.version, 4);
    world.ok(&["check", "repo", "--full"]);

    // The old keys count no more.
    world.bundle("out-2", "2");
    world.fails(64, &["sign", "repo", "out-2", "--key", "keys/bundles"]);
    world.ok(&["sign", "repo", "out-2", "--key", "keys/bundles2"]);
    world.fails(
        65,
        &["publish", "repo", "out-2", "--snapshot-key", "keys/snapshot", "--timestamp-key", "keys/timestamp"],
    );
    world.ok(&[&["publish", "repo", "out-2"][..], &online].concat());
    world.node(1).unwrap();
}

#[test]
fn the_policies_role_begins_with_the_repository_if_it_is_given_keys() {
    let world = World::new();
    world.keys(&["root", "targets", "bundles", "git", "lead", "snapshot", "timestamp"]);
    let mut init =
        vec!["--json", "root", "init", "repo", "--policies-threshold", "2", "--policies-days", "30"];
    for (option, key) in [
        ("--root-key", "keys/root"),
        ("--targets-key", "keys/targets"),
        ("--bundles-key", "keys/bundles"),
        ("--policies-key", "keys/git"),
        ("--policies-key", "keys/lead.pub"),
        ("--snapshot-key", "keys/snapshot"),
        ("--timestamp-key", "keys/timestamp"),
    ] {
        init.extend([option, key]);
    }
    assert_eq!(world.ok(&init).json()["state"], "pending");
    world.ok(&["root", "sign", "repo", "--key", "keys/lead"]);
    world.publish(&[]);
    let set = world.node(1).unwrap();
    let policies = set.targets("policies").unwrap();
    assert!(policies.targets.is_empty());
    let expires = policies.header.expires.since(common::now());
    assert!((29 * 86_400..=30 * 86_400).contains(&expires), "{expires}");
    let targets = set.targets("targets").unwrap();
    let [bundles, policies] = &targets.delegations[..] else { panic!("{targets:?}") };
    assert_eq!((bundles.keys.threshold, policies.keys.threshold), (1, 2));
    assert!(policies.terminating && policies.paths.matches("policies/operations/edge/policy.json"));
    assert!(
        !policies.paths.matches("policies/edge.json") && !policies.paths.matches("bundles/v/1/index.json")
    );
}

#[test]
fn a_running_repository_gets_the_policies_role_whose_keys_say_nothing_of_bundles() {
    let world = World::new();
    world.repository();
    world.release("1");
    world.keys(&["policies", "policies2"]);
    let before = fs::read(world.path("repo/metadata/2.bundles.json")).unwrap();
    let words = world.fails(64, &["root", "renew", "repo", "--role", "policies"]);
    assert!(words.contains("root add-key --role policies"), "{words}");
    world.ok(&["root", "add-key", "repo", "--role", "policies", "--key", "keys/policies.pub"]);
    let show = world.ok(&["root", "show", "repo"]).stdout;
    assert!(show.contains("policies: 0 of 1") && show.contains("targets: 0 of 1"), "{show}");
    world.ok(&["root", "sign", "repo", "--key", "keys/targets"]);
    let online = ["--snapshot-key", "keys/snapshot", "--timestamp-key", "keys/timestamp"];
    world.fails(1, &[&["publish", "repo"][..], &online].concat());
    world.ok(&["root", "sign", "repo", "--key", "keys/policies"]);
    let said = world.publish(&[]).stdout;
    assert!(said.contains("1.policies.json") && said.contains("0 policies"), "{said}");
    assert_eq!(fs::read(world.path("repo/metadata/2.bundles.json")).unwrap(), before, "bundles is as it was");

    let policy = policy("testing");
    world.policies(&[
        ("policies/operations/edge/policy.json", &self::policy("operations")),
        ("policies/testing/edge/policy.json", &policy),
    ]);
    world.fails(64, &["root", "sign", "repo", "--key", "keys/bundles"]);
    world.ok(&["root", "sign", "repo", "--key", "keys/policies"]);
    world.publish(&["policies-out"]);
    let published =
        world.find(&format!("policies/testing/edge/{}.policy.json", Sha256::of(policy.as_bytes())));
    assert_eq!(fs::read(published).unwrap(), policy.as_bytes());

    // Its key goes as every other, without a node being touched.
    let rotate = ["root", "rotate", "repo", "--role", "policies", "--old", "keys/policies", "--new"];
    world.ok(&[&rotate[..], &["keys/policies2"]].concat());
    for key in ["keys/targets", "keys/policies2"] {
        world.ok(&["root", "sign", "repo", "--key", key]);
    }
    world.publish(&[]);
    let set = world.node(1).unwrap();
    assert_eq!((set.targets("policies").unwrap().header.version, set.root().header.version), (3, 1));
    world.fails(64, &["root", "sign", "repo", "--key", "keys/policies"]);
    let signers = world.ok(&["--json", "check", "repo", "--full"]).json()["signers"].to_string();
    assert!(signers.contains("\"role\":\"policies\""), "{signers}");
    world.ok(&["refresh-timestamp", "repo", "--timestamp-key", "keys/timestamp"]);
    let refresh = ["--snapshot-days", "60", "--timestamp-days", "1"];
    world.ok(&[&["refresh-timestamp", "repo"][..], &online, &refresh].concat());
    assert_eq!(world.node(1).unwrap().targets("policies").unwrap().targets.len(), 2);
    world.bundle("out-2", "2");
    world.fails(64, &["sign", "repo", "out-2", "--key", "keys/policies2"]);
    assert!(!world.path("repo.pending/bundles.json").exists(), "nothing waits for the right key");
}

#[test]
fn check_and_export_know_policies() {
    let world = World::new();
    world.repository();
    world.release("1");
    world.keys(&["policies"]);
    world.ok(&["root", "add-key", "repo", "--role", "policies", "--key", "keys/policies"]);
    world.ok(&["root", "sign", "repo", "--key", "keys/targets", "--key", "keys/policies"]);
    world.publish(&[]);
    world.policies(&[("policies/operations/edge/policy.json", &policy("operations"))]);
    world.ok(&["root", "sign", "repo", "--key", "keys/policies"]);
    world.publish(&["policies-out"]);
    let check = world.ok(&["--json", "check", "repo", "--full"]).json();
    assert_eq!(check["problems"].as_array().unwrap().len(), 0, "{check}");

    for output in ["stick", "stick.tar"] {
        world.ok(&["export", "repo", "--variant", VARIANT, "--output", output]);
    }
    let names = |folder: &str| -> Vec<String> {
        files(&world.path(folder)).iter().map(|f| f.display().to_string()).collect()
    };
    assert!(names("stick/metadata").iter().any(|f| f.ends_with("/2.policies.json")));
    assert!(names("stick/targets/policies/operations/edge").iter().all(|f| f.ends_with(".policy.json")));
    common::node(&world.path("stick"), 1).unwrap();
    let listed = String::from_utf8(tool("tar", &["-tf", "stick.tar"], &world.path("")).stdout).unwrap();
    assert!(listed.lines().last().unwrap().ends_with(".bundle.tar.gz"), "the large one last: {listed}");

    for (content, why) in [
        (policy("operations").replace("\"version\":\"1\"", "\"version\":\"9\""), "there is no bundle 9"),
        (policy("testing"), "it calls itself testing/edge"),
        ("{}".to_owned(), "kind is missing"),
    ] {
        world.policies(&[("policies/operations/edge/policy.json", &content)]);
        world.ok(&["root", "sign", "repo", "--key", "keys/policies"]);
        world.publish(&["policies-out"]);
        let problems = world.fails(1, &["check", "repo"]);
        assert!(problems.contains(why) && problems.contains("1 problems, 0 warnings"), "{problems}");
    }

    let policy = world.find(&format!("{}.policy.json", Sha256::of(b"{}")));
    fs::write(&policy, "[]").unwrap();
    world.fails(65, &["export", "repo", "--variant", VARIANT, "--output", "damaged"]);
    for (kind, break_it) in [("target-damaged", false), ("target-missing", true)] {
        if break_it {
            fs::remove_file(&policy).unwrap();
        }
        let run = world.run(&["--json", "check", "repo"]);
        let problems = run.json()["problems"].to_string();
        assert!(
            run.code == 1 && problems.contains(kind) && problems.contains("policies/operations"),
            "{problems}"
        );
    }
}

#[test]
fn a_key_that_was_stolen_goes_at_once_and_the_operator_is_told_of_the_gap() {
    let world = World::new();
    world.repository();
    world.release("1");
    world.keys(&["timestamp2"]);
    world.ok(&[
        "root",
        "rotate",
        "repo",
        "--role",
        "timestamp",
        "--old",
        "keys/timestamp",
        "--new",
        "keys/timestamp2",
    ]);
    world.ok(&["root", "sign", "repo", "--key", "keys/root"]);
    let run = world.ok(&[
        "--json",
        "publish",
        "repo",
        "--snapshot-key",
        "keys/snapshot",
        "--timestamp-key",
        "keys/timestamp2",
    ]);
    assert_eq!(run.json()["notes"].as_array().unwrap().len(), 1);
    world.node(1).unwrap();
}

#[test]
fn keys_and_thresholds_can_be_added() {
    let world = World::new();
    world.repository();
    world.keys(&["approver"]);
    world.ok(&["root", "add-key", "repo", "--role", "bundles", "--key", "keys/approver.pub"]);
    let words = world.fails(64, &["root", "set-threshold", "repo", "--role", "bundles", "--threshold", "3"]);
    assert!(words.contains("threshold of 3"), "{words}");
    world.ok(&["root", "set-threshold", "repo", "--role", "bundles", "--threshold", "2"]);
    world.ok(&["root", "sign", "repo", "--key", "keys/targets"]);
    let show = world.ok(&["root", "show", "repo"]).stdout;
    assert!(show.contains("2 of 2"), "{show}");
    // The bundles role itself must now be signed by both.
    world.ok(&["root", "sign", "repo", "--key", "keys/bundles", "--key", "keys/approver"]);
    world.publish(&[]);
    let set = world.node(1).unwrap();
    assert_eq!(set.targets("targets").unwrap().delegations[0].keys.threshold, 2);
}

#[test]
fn a_role_is_renewed_in_time_by_its_own_keys() {
    let world = World::new();
    world.repository();
    let expiry = |world: &World| world.node(1).unwrap().targets("targets").unwrap().header.expires;
    let before = expiry(&world);
    world.ok(&["root", "renew", "repo", "--role", "targets", "--days", "700"]);
    world.ok(&["root", "sign", "repo", "--key", "keys/targets"]);
    world.publish(&[]);
    assert!(expiry(&world) > before);
    world.fails(64, &["root", "renew", "repo", "--role", "timestamp"]);
    // Where there is no repository, none is begun by accident.
    world.fails(64, &["root", "renew", "nowhere", "--role", "targets"]);
    assert!(!world.path("nowhere.pending").exists());
}

#[test]
fn a_publication_that_is_killed_at_any_moment_leaves_a_whole_repository_and_completes_when_run_again() {
    let world = World::new();
    world.repository();
    world.release("0");
    for round in 1..=20u64 {
        let (version, out) = (round.to_string(), format!("out-{round}"));
        world.bundle(&out, &version);
        world.ok(&["sign", "repo", &out, "--key", "keys/bundles"]);
        let mut publish = Command::new(env!("CARGO_BIN_EXE_prestage-build"))
            .args(["-q", "publish", "repo", &out, "--snapshot-key", "keys/snapshot"])
            .args(["--timestamp-key", "keys/timestamp"])
            .current_dir(world.path(""))
            .spawn()
            .unwrap();
        // Not waiting for anything: a publication takes some tens of milliseconds, and each round cuts it elsewhere.
        std::thread::sleep(Duration::from_millis(round * 3));
        publish.kill().unwrap();
        publish.wait().unwrap();
        let set = world.node(1).unwrap_or_else(|e| panic!("killed in round {round}: {e}"));
        let bundles = set.targets("bundles").unwrap().targets.len() as u64 / 2;
        assert!(bundles == round || bundles == round + 1);
        world.publish(&[&out]);
        let set = world.node(1).unwrap_or_else(|e| panic!("run again in round {round}: {e}"));
        assert_eq!(set.targets("bundles").unwrap().targets.len() as u64 / 2, round + 1);
    }
    world.ok(&["check", "repo", "--full"]);
}

#[test]
fn a_version_that_is_published_cannot_get_other_content() {
    let world = World::new();
    world.repository();
    world.release("1");
    let again = world.ok(&["--json", "sign", "repo", "out-1", "--key", "keys/bundles"]).json();
    assert_eq!(again["state"], "published");
    world.collection("other", &[("other", 10)]);
    world.ok(&["bundle", "other", "--version", "1", "--cycle", "2026-11", "--output", "out-other"]);
    let words = world.fails(65, &["sign", "repo", "out-other", "--key", "keys/bundles"]);
    assert!(words.contains("new version"), "{words}");
}

#[test]
fn a_bundle_that_was_changed_after_it_was_made_is_neither_signed_nor_published() {
    let world = World::new();
    world.repository();
    world.bundle("out", "1");
    let file = world.path("out/bundle.tar.gz");
    let good = fs::read(&file).unwrap();
    let mut bad = good.clone();
    bad[100_000] ^= 1;
    fs::write(&file, &bad).unwrap();
    world.fails(65, &["sign", "repo", "out", "--key", "keys/bundles"]);
    fs::write(&file, &good).unwrap();
    world.ok(&["sign", "repo", "out", "--key", "keys/bundles"]);
    fs::write(&file, &bad).unwrap();
    let before = files(&world.path("repo"));
    let publish =
        ["publish", "repo", "out", "--snapshot-key", "keys/snapshot", "--timestamp-key", "keys/timestamp"];
    world.fails(64, &publish);
    assert_eq!(files(&world.path("repo")), before);
    fs::write(&file, &good).unwrap();
    world.ok(&publish);
    world.node(1).unwrap();
}

#[test]
fn a_package_that_was_changed_after_it_was_collected_is_not_bundled() {
    let world = World::new();
    world.collection("col", &[("alpha", 3000)]);
    fs::write(world.path("col/pool/alpha_1.0-1_amd64.deb"), vec![0; 3000]).unwrap();
    let bundle = ["bundle", "col", "--version", "1", "--cycle", "c", "--output", "out"];
    let words = world.fails(65, &bundle);
    assert!(words.contains("alpha_1.0-1_amd64.deb"), "{words}");
    assert!(!world.path("out/index.json").exists());
    fs::write(world.path("col/pool/alpha_1.0-1_amd64.deb"), vec![0; 2999]).unwrap();
    world.fails(65, &bundle);
}

#[test]
fn refreshing_signs_the_timestamp_anew_and_leaves_a_young_snapshot() {
    let world = World::new();
    world.repository();
    world.release("1");
    let before = world.node(1).unwrap().expires();
    let refresh =
        ["refresh-timestamp", "repo", "--snapshot-key", "keys/snapshot", "--timestamp-key", "keys/timestamp"];
    let run = world.ok(&[&["--json"][..], &refresh, &["--timestamp-days", "3"]].concat()).json();
    assert!(run["files"].to_string().contains("\"2.snapshot.json\""), "{run}");
    let set = world.node(1).unwrap();
    assert!(set.expires() < before);
    // A snapshot of which less than half is left is signed anew.
    let run = world.ok(&[&["--json"][..], &refresh, &["--snapshot-days", "40"]].concat()).json();
    assert!(run["files"].to_string().contains("\"3.snapshot.json\""), "{run}");
    world.node(1).unwrap();
}

#[test]
fn check_finds_each_planted_problem() {
    /// The kind of problem, the exit code, and what brings it about.
    type Plant<'p> = (&'p str, i32, &'p dyn Fn(&World));
    let plant: [Plant<'_>; 9] = [
        ("target-missing", 1, &|w| fs::remove_file(w.find(".index.json")).unwrap()),
        ("target-damaged", 1, &|w| {
            let bundle = w.find(".bundle.tar.gz");
            let bytes = fs::read(&bundle).unwrap();
            fs::write(bundle, &bytes[1..]).unwrap();
        }),
        ("member", 1, &|w| {
            let bundle = w.find(".bundle.tar.gz");
            let mut bytes = fs::read(&bundle).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(bundle, bytes).unwrap();
        }),
        ("target-damaged", 1, &|w| {
            let index = w.find(".index.json");
            let text = fs::read_to_string(&index).unwrap().replace("alpha", "alphb");
            fs::write(index, text).unwrap();
        }),
        ("refused", 1, &|w| {
            let file = w.path("repo/metadata/2.bundles.json");
            let text = fs::read_to_string(&file).unwrap().replace("\"serial\":1", "\"serial\":9");
            fs::write(file, text).unwrap();
        }),
        ("refused", 1, &|w| fs::remove_file(w.path("repo/metadata/2.snapshot.json")).unwrap()),
        ("stray", 0, &|w| fs::write(w.path("repo/metadata/99.bundles.json"), "{}").unwrap()),
        ("stray", 0, &|w| fs::write(w.path("repo/targets/notes.txt"), "x").unwrap()),
        ("expires-soon", 0, &|w| {
            w.ok(&[
                "refresh-timestamp",
                "repo",
                "--timestamp-key",
                "keys/timestamp",
                "--timestamp-days",
                "2",
            ]);
        }),
    ];
    for (kind, code, plant) in plant {
        let world = World::new();
        world.repository();
        world.release("1");
        plant(&world);
        let run = world.run(&["--json", "check", "repo", "--full"]);
        assert_eq!(run.code, code, "{kind}: {}{}", run.stdout, run.stderr);
        let problems = run.json()["problems"].clone();
        assert!(problems.to_string().contains(&format!("\"kind\":\"{kind}\"")), "{kind}: {problems}");
    }
}

#[test]
fn an_export_is_all_that_a_node_needs_as_a_folder_and_as_the_same_tar_twice() {
    let world = World::new();
    world.repository();
    world.release("1");
    world.release("2");
    world.ok(&["export", "repo", "--variant", VARIANT, "--output", "stick"]);
    let metadata: Vec<String> = files(&world.path("stick/metadata"))
        .iter()
        .map(|f| f.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        metadata,
        ["1.root.json", "1.targets.json", "3.bundles.json", "3.snapshot.json", "timestamp.json"]
    );
    for file in files(&world.path("stick")) {
        let same = world.path("repo").join(file.strip_prefix(world.path("stick")).unwrap());
        assert_eq!(Sha256::of(&fs::read(&file).unwrap()), Sha256::of(&fs::read(same).unwrap()));
    }
    assert!(files(&world.path("stick/targets")).iter().all(|f| f.to_string_lossy().contains("/2/")));

    for tar in ["one.tar", "two.tar"] {
        world.ok(&["export", "repo", "--variant", VARIANT, "--output", tar]);
    }
    assert!(fs::read(world.path("one.tar")).unwrap() == fs::read(world.path("two.tar")).unwrap());
    fs::create_dir(world.path("unpacked")).unwrap();
    tool("tar", &["-xf", "../one.tar"], &world.path("unpacked"));
    tool("diff", &["-r", "stick", "unpacked"], &world.path(""));
    let listed = String::from_utf8(tool("tar", &["-tf", "one.tar"], &world.path("")).stdout).unwrap();
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines.iter().filter(|l| l.starts_with("metadata/")).count(), 5);
    assert!(lines[..5].iter().all(|l| l.starts_with("metadata/")), "{lines:?}");
    assert!(lines[5].ends_with(".index.json") && lines[6].ends_with(".bundle.tar.gz"));

    world.ok(&["export", "repo", "--variant", VARIANT, "--bundle-version", "1", "--output", "old"]);
    assert!(files(&world.path("old/targets")).iter().all(|f| f.to_string_lossy().contains("/1/")));
    world.fails(64, &["export", "repo", "--variant", "rocky-9-x86_64", "--output", "x"]);
}

#[test]
fn keys_are_private_openssl_reads_them_and_nothing_is_overwritten() {
    let world = World::new();
    let made = world.ok(&["--json", "key", "new", "plain"]).json();
    let key = world.path("plain");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let public = tool("openssl", &["pkey", "-in", "plain", "-pubout"], &world.path(""));
    assert_eq!(public.stdout, fs::read(world.path("plain.pub")).unwrap());
    world.fails(64, &["key", "new", "plain"]);

    fs::write(world.path("pass"), "correct horse\n").unwrap();
    fs::write(world.path("wrong"), "battery\n").unwrap();
    let made2 = world.ok(&["--json", "key", "new", "locked", "--passphrase-file", "pass"]).json();
    assert!(fs::read_to_string(world.path("locked")).unwrap().contains("ENCRYPTED PRIVATE KEY"));
    let public = tool(
        "openssl",
        &["pkey", "-in", "locked", "-passin", "pass:correct horse", "-pubout"],
        &world.path(""),
    );
    assert_eq!(public.stdout, fs::read(world.path("locked.pub")).unwrap());
    let shown = world.ok(&["--json", "key", "show", "locked", "--passphrase-file", "pass"]).json();
    assert_eq!(shown["keyid"], made2["keyid"]);
    world.fails(78, &["key", "show", "locked"]);
    let words = world.fails(78, &["key", "show", "locked", "--passphrase-file", "wrong"]);
    assert!(words.contains("passphrase"), "{words}");

    // One that openssl made works as well; one that others may read does not.
    tool("openssl", &["genpkey", "-algorithm", "ed25519", "-out", "theirs"], &world.path(""));
    world.ok(&["key", "show", "theirs"]);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let words = world.fails(78, &["key", "show", "plain"]);
    assert!(words.contains("chmod 600"), "{words}");
    let public = world.ok(&["--json", "key", "show", "plain.pub"]).json();
    assert_eq!(public["public"], made["public"]);
    tool("openssl", &["genpkey", "-algorithm", "x25519", "-out", "x25519"], &world.path(""));
    world.fails(78, &["key", "show", "x25519"]);
}

#[test]
fn a_wrong_command_line_is_exit_code_64_and_help_is_none() {
    let world = World::new();
    world.fails(64, &["bundle"]);
    world.fails(64, &["sign", "repo", "--passphrase"]);
    world.ok(&["--help"]);
    world.ok(&["--version"]);
    world.fails(64, &["bundle", "col", "--version", "../1", "--cycle", "c", "--output", "out"]);
}
