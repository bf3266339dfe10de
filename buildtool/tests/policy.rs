//! Policies as operators keep them: everything wrong is said at once, each thing with its place.
#![allow(clippy::unwrap_used, reason = "a test that cannot make its world fails")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::World;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/policy").join(name)
}

/// A policy for nodes with `ring=NAME`, with `more` of `spec`.
fn policy(name: &str, version: &str, more: &str) -> String {
    format!(
        "apiVersion: patchmgmt.io/v1\nkind: PatchPolicy\nmetadata: {{ name: {name} }}\nspec:\n  \
         bundleRef: {{ version: \"{version}\" }}\n  targets: {{ selector: {{ matchLabels: {{ ring: {name} }} }} }}\n{more}"
    )
}

fn write(world: &World, file: &str, text: &str) {
    let path = world.path(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn every_mistake_of_a_folder_is_one_line_with_its_place() {
    let world = World::new();
    for file in ["edge.yaml", "kiosks.yml", "more/broken.yaml"] {
        let text = fs::read_to_string(data("mistakes").join(file)).unwrap();
        write(&world, &format!("mistakes/{file}"), &text);
    }
    write(&world, "mistakes/.git/ignored.yaml", "kind: Nothing\n");
    write(&world, "mistakes/README.md", "not looked at\n");
    let said = world.fails(1, &["policy", "check", "mistakes"]);
    let golden = data("mistakes.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&golden, &said).unwrap();
    }
    assert_eq!(said, fs::read_to_string(&golden).unwrap());
    let run = world.run(&["--json", "policy", "check", "mistakes"]);
    let json = run.json();
    assert_eq!((run.code, &json["ok"]), (1, &false.into()));
    assert_eq!(json["problems"].as_array().unwrap().len(), said.lines().count() - 1);
    assert_eq!(json["problems"][0]["file"], "mistakes/edge.yaml");
    assert_eq!(json["problems"][0]["line"], 4);
}

#[test]
fn the_examples_are_valid_and_the_design_document_is_among_them() {
    let world = World::new();
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let examples = project.join("packaging/examples/policies");
    let run = world.ok(&["policy", "check", examples.to_str().unwrap()]);
    assert_eq!(run.stdout, "3 policies, 0 problems\n");
    let golden = project.join("format/tests/data/policy");
    let example = fs::read_to_string(examples.join("edge-fleet.yaml")).unwrap();
    let design = fs::read_to_string(golden.join("design.yaml")).unwrap();
    assert_eq!(example.split_once('\n').unwrap().1, design);
    let files = ["design.yaml", "maximal.yaml"].map(|name| golden.join(name));
    world.ok(&["policy", "check", files[0].to_str().unwrap(), files[1].to_str().unwrap()]);
}

#[test]
fn a_bundle_that_is_not_published_or_not_the_one_that_was_approved_is_a_problem() {
    let world = World::new();
    world.repository();
    world.release("42");
    write(&world, "p/a.yaml", &policy("a", "42", ""));
    world.ok(&["policy", "check", "p", "--repo", "repo"]);
    write(&world, "p/a.yaml", &policy("a", "24", ""));
    let said = world.fails(1, &["policy", "check", "p", "--repo", "repo"]);
    assert!(
        said.contains(
            "p/a.yaml:5:25: spec.bundleRef.version: no bundle \"24\" is published: did you mean \"42\"?"
        ),
        "{said}"
    );
    let sum = world.ok(&["--json", "bundles", "list", "repo"]).json()["bundles"][0]["sha256"]
        .as_str()
        .unwrap()
        .to_owned();
    let with_sum =
        |sum: &str| policy("a", "42", "").replace("\"42\"", &format!("\"42\", checksum: \"sha256:{sum}\""));
    for right in [sum.clone(), format!("{}...", &sum[..6])] {
        write(&world, "p/a.yaml", &with_sum(&right));
        world.ok(&["policy", "check", "p", "--repo", "repo"]);
    }
    write(&world, "p/a.yaml", &with_sum(&"0".repeat(64)));
    let said = world.fails(1, &["policy", "check", "p", "--repo", "repo"]);
    assert!(said.contains("spec.bundleRef.checksum") && said.contains(&sum), "{said}");
}

#[test]
fn a_folder_without_a_policy_is_a_mistake() {
    let world = World::new();
    fs::create_dir(world.path("empty")).unwrap();
    assert!(world.fails(64, &["policy", "check", "empty"]).contains("there is no policy"));
    assert!(world.fails(74, &["policy", "check", "absent"]).contains("absent"));
    fs::create_dir(world.path("circle")).unwrap();
    std::os::unix::fs::symlink(".", world.path("circle/again.yaml")).unwrap();
    let said = world.fails(74, &["policy", "check", "circle"]);
    assert!(said.contains("circle/again.yaml") && !said.contains("again.yaml/"), "{said}");
    fs::write(world.path("bad.yaml"), b"a: \xff").unwrap();
    assert!(world.fails(65, &["policy", "check", "bad.yaml"]).contains("UTF-8"));
}

/// A repository with the bundles 42 and 43 and a key for policies.
fn with_policies_role() -> World {
    let world = World::new();
    world.repository();
    world.release("42");
    world.release("43");
    world.keys(&["policies"]);
    world.ok(&["root", "add-key", "repo", "--role", "policies", "--key", "keys/policies"]);
    world.ok(&["root", "sign", "repo", "--key", "keys/targets", "--key", "keys/policies"]);
    world.publish(&[]);
    world
}

fn publish(world: &World) -> String {
    let publish = ["policy", "publish", "repo", "policies", "--nodes", "1000", "--key", "keys/policies"];
    let said = world.ok(&publish).stdout;
    world.publish(&[]);
    let check = world.ok(&["--json", "check", "repo", "--full"]).json();
    assert_eq!(check["problems"].as_array().unwrap().len(), 0, "{check}");
    said
}

/// The published policies, as file names below `targets/policies`.
fn published(world: &World) -> Vec<String> {
    let listed = fs::read_dir(world.path("repo/metadata"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap());
    let version = |name: &String| name.strip_suffix(".policies.json").map(|v| v.parse::<u64>().unwrap());
    let newest = listed.filter(|name| version(name).is_some()).max_by_key(|name| version(name)).unwrap();
    let bytes = fs::read(world.path("repo/metadata").join(newest)).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    json["signed"]["targets"].as_object().unwrap().keys().cloned().collect()
}

#[test]
fn published_policies_are_those_of_the_folder_and_no_others() {
    let world = with_policies_role();
    write(&world, "policies/a.yaml", &format!("{}---\n{}", policy("a", "42", ""), policy("b", "42", "")));
    assert!(publish(&world).starts_with("default/a: new, with bundle 42\ndefault/b: new, with bundle 42\n"));
    assert_eq!(published(&world), ["policies/default/a/policy.json", "policies/default/b/policy.json"]);
    assert!(!world.path("repo.pending/targets").exists(), "what is published waits no more");

    // The same again changes nothing, however it is written.
    write(&world, "policies/a.yaml", &policy("b", "42", ""));
    write(&world, "policies/z.yml", &format!("# other words\n{}", policy("a", "42", "")));
    assert_eq!(world.ok(&["policy", "diff", "repo", "policies"]).stdout, "no policy changes\n");
    let again = world.ok(&["policy", "publish", "repo", "policies", "--key", "keys/policies"]);
    let nothing = "no policy changes\nthese policies are published already; nothing to sign\n";
    assert_eq!(again.stdout, nothing);

    // A commit that raises a bundle, and the one that reverts it.
    fs::remove_file(world.path("policies/z.yml")).unwrap();
    write(&world, "policies/a.yaml", &policy("b", "43", "  paused: true\n"));
    let said = "default/a: removed; it had bundle 42, which its nodes keep\ndefault/b: bundle 42 → 43; paused true (new)\n";
    assert_eq!(world.ok(&["policy", "diff", "repo", "policies"]).stdout, said);
    assert!(publish(&world).starts_with(said));
    assert_eq!(published(&world), ["policies/default/b/policy.json"]);
    write(&world, "policies/a.yaml", &policy("b", "42", ""));
    let said = publish(&world);
    assert!(
        said.starts_with("default/b: bundle 43 → 42 (ROLLBACK: an older bundle); paused true (taken out)\n"),
        "{said}"
    );
}

#[test]
fn the_published_bytes_are_the_canonical_form_of_what_was_written() {
    let world = with_policies_role();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../format/tests/data/policy");
    let with_bundle =
        |name: &str| fs::read_to_string(golden.join(name)).unwrap().replace("20241105-build-42", "42");
    let yaml = with_bundle("design.yaml").replace("    checksum: \"sha256:abc123...\"\n", "");
    write(&world, "policies/edge.yaml", &yaml);
    publish(&world);
    let folder = world.path("repo/targets/policies/operations/edge-fleet-q4-2024");
    // Beside it is the plan of its rollout.
    let files = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    let files: Vec<PathBuf> = files.filter(|path| path.to_string_lossy().ends_with(".policy.json")).collect();
    let json = with_bundle("design.json").replace("\"checksum\":\"sha256:abc123...\",", "");
    assert_eq!(files.len(), 1);
    assert_eq!(fs::read_to_string(&files[0]).unwrap(), json);
    assert_eq!(
        format::policy::PatchPolicy::from_json(json.as_bytes()).unwrap().id(),
        "operations/edge-fleet-q4-2024"
    );
}

#[test]
fn policies_that_are_wrong_are_not_published_and_nothing_is_begun() {
    let world = with_policies_role();
    write(&world, "policies/a.yaml", &policy("a", "44", "  reboot: sometimes\n"));
    let publish = ["policy", "publish", "repo", "policies", "--key", "keys/policies"];
    assert!(world.fails(1, &publish).contains("policies/a.yaml:7:11: spec.reboot"));
    write(&world, "policies/a.yaml", &policy("a", "44", ""));
    assert!(world.fails(1, &publish).contains("no bundle \"44\" is published"));
    assert!(
        world.fails(1, &["policy", "diff", "repo", "policies"]).contains("no bundle \"44\" is published")
    );
    fs::remove_file(world.path("policies/a.yaml")).unwrap();
    assert!(
        world.fails(64, &publish).contains("there is no policy"),
        "a folder that was not there must not stop a fleet"
    );
    assert!(!world.path("repo.pending/policies.json").exists());
    // Nor by a key of another role.
    write(&world, "policies/a.yaml", &policy("a", "43", ""));
    let wrong = ["policy", "publish", "repo", "policies", "--key", "keys/bundles"];
    assert!(world.fails(64, &wrong).contains("does not belong to policies"));
    assert!(!world.path("repo.pending/policies.json").exists(), "nothing waits for the right key");
}

#[test]
fn without_the_role_policies_the_cure_is_said() {
    let world = World::new();
    world.repository();
    world.release("42");
    world.keys(&["policies"]);
    write(&world, "policies/a.yaml", &policy("a", "42", ""));
    let said = world.fails(65, &["policy", "publish", "repo", "policies", "--key", "keys/policies"]);
    assert!(said.contains("root add-key"), "{said}");
    assert_eq!(world.ok(&["policy", "diff", "repo", "policies"]).stdout, "default/a: new, with bundle 42\n");
}
