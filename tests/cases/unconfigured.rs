//! A node that nobody has configured yet, or wrongly: it does no harm, and says what is missing.

use lab::node::Node;
use lab::sandbox::{Sandbox, command, run};
use lab::world::World;

#[test]
fn run_without_a_configuration_is_no_failure_and_gives_a_hint() {
    let sandbox = Sandbox::new();
    let node = Node::new(&sandbox, "node");
    let before = node.image();
    run(&mut node.prestage(["run"])).expect(0).says(&["doctor"]);
    node.assert_is(&before);
}

#[test]
fn doctor_says_what_is_missing_and_what_comes_next() {
    let sandbox = Sandbox::new();
    let node = Node::new(&sandbox, "node");
    run(&mut node.prestage(["doctor"])).expect(0).says(&["mirrors", "root.json"]);
    // One thing that is missing hides no other.
    std::fs::remove_file(node.path("/etc/machine-id")).expect("a machine id");
    run(&mut node.prestage(["doctor"])).expect(0).says(&["mirrors", "root.json", "machine-id"]);
    let world = World::new();
    run(&mut world.node.prestage(["doctor"])).expect(0).says(&[&world.mirror.url()]);
}

#[test]
fn an_unknown_key_in_the_configuration_is_78_and_named() {
    let sandbox = Sandbox::new();
    let node = Node::new(&sandbox, "node");
    node.configure(&["http://127.0.0.1:1/"], "[fetch]\nratte = \"1MiB/s\"\n");
    for verb in ["fetch", "run", "install", "status"] {
        run(&mut node.prestage([verb])).expect(78).says(&["ratte", "agent.toml"]);
    }
}

#[test]
fn a_missing_root_of_trust_is_said() {
    let world = World::new();
    std::fs::remove_file(world.node.path("/etc/prestage/root.json")).expect("a root");
    let refused = run(&mut world.node.prestage(["fetch"]));
    assert!(matches!(refused.code, Some(3 | 78)), "{refused}");
    refused.says(&["root.json"]);
}

#[test]
fn the_root_of_another_fleet_is_refused() {
    let world = World::new();
    let other = Sandbox::new();
    let centre = lab::repository::Centre::new(&other);
    world.node.trust(&centre.repository());
    let before = world.node.image();
    run(&mut world.node.prestage(["fetch"])).expect(3);
    assert_eq!(world.staged(), Vec::<String>::new());
    world.node.assert_is(&before);
}

#[test]
fn wrong_usage_is_64() {
    let sandbox = Sandbox::new();
    let node = Node::new(&sandbox, "node");
    run(&mut node.prestage(["fech"])).expect(64).says(&["fech"]);
    run(&mut node.prestage(["report", "--json"])).expect(64).says(&["--json"]);
}

#[test]
fn status_is_valid_for_machines_and_readable_for_people() {
    let world = World::new();
    run(&mut world.node.prestage(["fetch"])).expect(0);
    let json = run(&mut world.node.prestage(["status", "--json"])).expect(0).stdout;
    let status = format::status::NodeStatus::parse(json.as_bytes()).expect("a valid status");
    assert_eq!(status.metadata.name.as_str(), "test-node");
    run(&mut world.node.prestage(["status"])).expect(0).says(&["test-node", lab::world::VERSION]);
    let metrics = world.node.read("/var/lib/prestage/prestage.prom");
    assert!(metrics.contains("prestage_"), "{metrics}");
}

#[test]
fn utc_needs_no_zone_data_and_any_other_zone_says_what_is_missing() {
    let world = World::new();
    let without = |zone: &str| {
        world.configure(&format!("[schedule]\ntimezone = \"{zone}\"\n"));
        let agent = world.node.prestage(["status"]);
        let mut unshare = command("unshare");
        let script = "mount -t tmpfs none /usr/share/zoneinfo && exec \"$@\"";
        unshare.args(["--mount", "sh", "-c", script, "sh"]).arg(agent.get_program()).args(agent.get_args());
        run(&mut unshare)
    };
    for zone in ["UTC", "Etc/UTC"] {
        without(zone).expect(0);
    }
    without("Europe/Berlin").expect(78).says(&["[schedule] timezone", "tzdata"]);
}

#[test]
fn a_node_that_has_a_root_and_no_mirror_takes_what_is_brought_and_is_quiet_meanwhile() {
    let world = World::new();
    world.node.configure(&[], "");
    for verb in ["fetch", "run", "fetch"] {
        let quiet = run(&mut world.node.prestage([verb])).expect(0);
        assert!(!quiet.stderr.contains("error"), "{quiet}");
    }
    run(&mut world.node.prestage(["doctor"])).expect(0).says(&["no mirror", "import"]);
    run(world.node.prestage(["import"]).arg(world.centre.repository())).expect(0);
    // And `run` installs it, as it does what was fetched.
    run(&mut world.node.prestage(["run"])).expect(0);
    let status = world.node.status().status;
    assert_eq!(status.installed.expect("installed").bundle.version.as_str(), lab::world::VERSION);
}

#[test]
fn a_mirror_that_is_away_is_named_once() {
    let world = World::new();
    world.node.configure(&["http://127.0.0.1:1/repository/"], "");
    let away = run(&mut world.node.prestage(["fetch"])).expect(69);
    let message = away.stderr.lines().find(|line| line.contains("no mirror delivers")).expect("an error");
    assert_eq!(message.matches("127.0.0.1:1").count(), 1, "{message}");
    assert_eq!(
        message.matches("timestamp.json").count() + message.matches("root.json").count(),
        1,
        "{message}"
    );
}
