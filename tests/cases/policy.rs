//! What a policy in the repository makes of a node: which bundle it takes, when, what must answer, what is released;
//! and what nobody can do with the keys of the policies role.

use std::fs;

use format::status::State;
use format::time::UnixTime;
use lab::debs::Deb;
use lab::forge::Forge;
use lab::node::Node;
use lab::sandbox::{Output, run, succeed};
use lab::world::{VERSION, World, new_packages};

/// A second bundle, newer than [`VERSION`].
pub(crate) const SECOND: &str = "20261201-1";

/// A day.
const DAY: i64 = 86_400;

pub(crate) fn now() -> UnixTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    UnixTime(i64::try_from(since.expect("a clock after 1970").as_secs()).expect("a time"))
}

/// A world whose node has the label `role: till`, and whose repository has the role `policies`.
pub(crate) fn world() -> World {
    let world = World::new();
    world.configure("[node.labels]\nrole = \"till\"\n");
    let centre = &world.centre;
    succeed(centre.build(["key", "new"]).arg(centre.key("policies")));
    let mut add = centre.build(["root", "add-key"]);
    succeed(add.arg(centre.repository()).args(["--role", "policies", "--key"]).arg(centre.key("policies")));
    let mut sign = centre.build(["root", "sign"]);
    sign.arg(centre.repository());
    for role in ["targets", "policies"] {
        sign.arg("--key").arg(centre.key(role));
    }
    succeed(&mut sign);
    publish(&world);
    world
}

pub(crate) fn publish(world: &World) {
    let mut publish = world.centre.build(["publish"]);
    publish.arg(world.centre.repository());
    for role in ["snapshot", "timestamp"] {
        publish.arg(format!("--{role}-key")).arg(world.centre.key(role));
    }
    succeed(&mut publish);
}

/// A policy in the words of an operator: for nodes with `role: ROLE`, and with `more` of its `spec`.
pub(crate) fn policy(name: &str, role: &str, version: &str, more: &str) -> String {
    format!(
        "apiVersion: patchmgmt.io/v1\nkind: PatchPolicy\nmetadata:\n  name: {name}\n  namespace: operations\nspec:\n  \
         bundleRef:\n    version: \"{version}\"\n  targets:\n    selector:\n      matchLabels:\n        role: {role}\n{more}"
    )
}

/// Publishes these policies and no others.
pub(crate) fn publish_policies(world: &World, policies: &[String]) {
    publish_policies_with(world, policies, &[]);
}

/// The same, with more arguments; what was said.
pub(crate) fn publish_policies_with(world: &World, policies: &[String], more: &[&str]) -> String {
    let folder = world.sandbox.path().join("policies");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder of policies");
    for (n, policy) in policies.iter().enumerate() {
        fs::write(folder.join(format!("{n}.yaml")), policy).expect("a policy");
    }
    let mut command = world.centre.build(["policy", "publish"]);
    let command = command.arg(world.centre.repository()).arg(&folder);
    let said = succeed(command.arg("--key").arg(world.centre.key("policies")).args(more));
    publish(world);
    said
}

fn prestage<const N: usize>(world: &World, args: [&str; N]) -> Output {
    run(&mut world.node.prestage(args))
}

#[test]
fn a_node_takes_the_bundle_that_its_policy_names_and_not_the_newest() {
    let world = world();
    world.release(SECOND);
    publish_policies(
        &world,
        &[policy("tills", "till", VERSION, ""), policy("servers", "server", SECOND, "")],
    );
    prestage(&world, ["run"]).expect(0);
    world.assert_patched();
    let status = world.node.status().status;
    assert_eq!(status.policy.as_deref(), Some("operations/tills"));
    assert_eq!(status.installed.expect("an install").bundle.version.as_str(), VERSION);
    prestage(&world, ["status"]).expect(0).says(&["operations/tills", VERSION]);
    // The commit that raises the version is all it takes.
    publish_policies(&world, &[policy("tills", "till", SECOND, "")]);
    prestage(&world, ["fetch"]).expect(0);
    let fetch = world.node.status().status.fetch.expect("a fetch");
    assert!(fetch.message.contains(SECOND), "{}", fetch.message);
}

#[test]
fn a_policy_that_goes_back_to_an_older_bundle_takes_the_node_back() {
    let mut world = world();
    world.node = Node::like(&world.node, &world.sandbox, "btrfs");
    world.configure("[node.labels]\nrole = \"till\"\n[reboot]\npolicy = \"if-needed\"\n");
    publish_policies(&world, &[policy("tills", "till", VERSION, "")]);
    prestage(&world, ["run"]).expect(0);
    let first = world.node.image();
    let mut newer = new_packages();
    newer.push(Deb::new("till-data", "3.0").payload(1000));
    world.archive.publish(&newer);
    world.release(SECOND);
    publish_policies(&world, &[policy("tills", "till", SECOND, "")]);
    prestage(&world, ["run"]).expect(0);
    assert_eq!(world.node.version("till-data"), "3.0");
    // The commit is reverted.
    publish_policies(&world, &[policy("tills", "till", VERSION, "")]);
    prestage(&world, ["fetch"]).expect(0);
    prestage(&world, ["install"]).expect(1).says(&["goes back from bundle", SECOND, VERSION]);
    assert!(world.node.is_to_boot());
    world.node.boot();
    prestage(&world, ["recover"]).expect(0);
    world.node.forget_digests();
    world.node.assert_is(&first);
    let status = world.node.status().status;
    assert_eq!(status.installed.expect("the bundle from before").bundle.version.as_str(), VERSION);
    // And that is where it stays, until the policy says otherwise.
    prestage(&world, ["run"]).expect(0);
    world.node.forget_digests();
    world.node.assert_is(&first);
    publish_policies(&world, &[policy("tills", "till", SECOND, "")]);
    prestage(&world, ["run"]);
    prestage(&world, ["install", "--now"]);
    assert_eq!(world.node.version("till-data"), "3.0");
}

#[test]
fn a_node_for_which_no_policy_is_stays_as_it_is_and_says_so() {
    let world = world();
    publish_policies(&world, &[policy("servers", "server", VERSION, "")]);
    let before = world.node.image();
    prestage(&world, ["run"]).expect(0);
    world.node.assert_is(&before);
    assert_eq!(world.staged(), Vec::<String>::new());
    let status = world.node.status().status;
    assert!(status.summary.contains("no policy is for this node"), "{}", status.summary);
}

#[test]
fn a_policy_that_is_paused_defers() {
    let world = world();
    let before = world.node.image();
    publish_policies(&world, &[policy("tills", "till", VERSION, "  paused: true\n")]);
    prestage(&world, ["run"]).expect(1).says(&["operations/tills", "paused"]);
    world.node.assert_is(&before);
    assert_eq!(world.staged(), Vec::<String>::new());
}

#[test]
fn the_policys_window_holds_even_where_the_node_has_none() {
    let world = world();
    // Three days from now: Thursday was the first of January 1970.
    let days = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let day = days[usize::try_from((now().0 / DAY + 3) % 7).expect("a weekday")];
    let schedule =
        format!("  schedule:\n    maintenanceWindow: \"{day} 02:00-04:00\"\n    timezone: \"UTC\"\n");
    publish_policies(&world, &[policy("tills", "till", VERSION, &schedule)]);
    let before = world.node.image();
    prestage(&world, ["fetch"]).expect(0);
    prestage(&world, ["install"]).expect(1).says(&["next maintenance window", "T02:00:00Z"]);
    world.node.assert_is(&before);
    assert_eq!(world.node.status().status.state, State::Staged);
    prestage(&world, ["install", "--now"]).expect(0);
    world.assert_patched();
}

#[test]
fn what_the_policy_says_must_answer_is_asked_before_anything_is_touched() {
    let world = world();
    // Nobody listens on the discard port.
    let rollback = "  rollback:\n    enabled: true\n    healthCheckUrl: \"http://127.0.0.1:9/health\"\n    \
                    healthCheckTimeoutSeconds: 5\n";
    publish_policies(&world, &[policy("tills", "till", VERSION, rollback)]);
    let before = world.node.image();
    prestage(&world, ["run"]).expect(1).says(&["not healthy before the install", "127.0.0.1:9"]);
    world.node.assert_is(&before);
}

#[test]
fn a_checksum_ties_a_policy_to_the_very_bundle() {
    let world = world();
    let digest = world.centre.index().bundle.sha256.to_string();
    publish_policies(&world, &[with_checksum(&digest)]);
    prestage(&world, ["run"]).expect(0);
    world.assert_patched();
}

fn with_checksum(digest: &str) -> String {
    let checksum = format!("    checksum: \"sha256:{digest}\"\n  targets:");
    policy("tills", "till", VERSION, "").replace("  targets:", &checksum)
}

#[test]
fn a_policy_releases_what_a_node_refuses_and_only_what_it_refused_before() {
    let world = world();
    publish_policies(&world, &[policy("tills", "till", VERSION, "")]);
    let release = |before: UnixTime| {
        let more = format!(
            "  quarantine:\n    release:\n    - version: \"{VERSION}\"\n      before: \"{before}\"\n"
        );
        policy("tills", "till", VERSION, &more)
    };
    prestage(&world, ["fetch"]).expect(0);
    alter_what_is_staged(&world);
    prestage(&world, ["install"]).expect(2).says(&["till-data"]);
    prestage(&world, ["run"]).expect(2).says(&["is refused"]);
    // A release that is older than the refusal is of another one.
    publish_policies(&world, &[release(UnixTime(now().0 - DAY))]);
    prestage(&world, ["run"]).expect(2).says(&["is refused"]);
    publish_policies(&world, &[release(UnixTime(now().0 + 60))]);
    prestage(&world, ["run"]).expect(0).says(&["is released"]);
    world.assert_patched();
    assert_eq!(world.node.status().status.quarantine, Vec::new());
}

fn alter_what_is_staged(world: &World) {
    let staged = world.node.path("/var/lib/prestage/fetch/staged");
    let folder = fs::read_dir(staged).expect("a staged repo").flatten().next().expect("a staged repo").path();
    fs::write(folder.join(world.centre.member("till-data").path.as_str()), "altered").expect("a package");
}

#[test]
fn a_policy_that_was_altered_on_the_node_is_not_obeyed() {
    let world = world();
    publish_policies(&world, &[policy("tills", "till", VERSION, "  paused: true\n")]);
    prestage(&world, ["fetch"]).expect(1).says(&["paused"]);
    // The unprivileged user opens what the centre has closed.
    let folder = world.node.path("/var/lib/prestage/fetch/policies");
    let file = fs::read_dir(folder).expect("policies").flatten().next().expect("a policy").path();
    let text = fs::read_to_string(&file).expect("a policy").replace("\"paused\":true", "\"paused\":false");
    fs::write(&file, text).expect("a policy");
    let before = world.node.image();
    prestage(&world, ["install", "--now"]).expect(2).says(&["altered after it had been verified"]);
    world.node.assert_is(&before);
    prestage(&world, ["fetch"]).expect(1).says(&["paused"]);
}

#[test]
fn two_policies_for_one_node_defer_and_both_are_named() {
    let world = world();
    // The tool refuses two that could both be for one node; a stolen key, or another tool, need not.
    let forge = Forge::new(&world.centre);
    let mut targets = serde_json::Map::new();
    for text in [
        policy("tills", "till", VERSION, ""),
        policy("berlin", "till", VERSION, "").replace("role: till", "city: berlin"),
    ] {
        publish_policies(&world, &[text]);
        let listed = forge.read("policies")["signed"]["targets"].take();
        targets.extend(listed.as_object().cloned().expect("targets"));
    }
    forge.next("policies", &["policies"], |signed| signed["targets"] = targets.into());
    forge.publish();
    world.configure("[node.labels]\nrole = \"till\"\ncity = \"berlin\"\n");
    let before = world.node.image();
    prestage(&world, ["run"]).expect(1).says(&["operations/berlin and operations/tills"]);
    world.node.assert_is(&before);
    assert_eq!(world.staged(), Vec::<String>::new());
}
