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
    write(&world, "bad.yaml", "a: \"\\xff\"");
    fs::write(world.path("bad.yaml"), b"a: \xff").unwrap();
    assert!(world.fails(65, &["policy", "check", "bad.yaml"]).contains("UTF-8"));
}
