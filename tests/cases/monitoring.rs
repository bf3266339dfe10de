//! What monitoring sees: the schemas that are published, and a real Prometheus with our alert rules and dashboard.

use std::fs;
use std::path::{Path, PathBuf};

use lab::monitoring::{NodeExporter, Prometheus};
use lab::repository::Part;
use lab::sandbox::{Sandbox, command, run, succeed};
use lab::world::{VERSION, World};
use serde_json::Value;

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Checks documents against a schema, by python3-jsonschema; with `strict`, a field that the schema does not have is wrong
/// too. How it ended.
fn check(schema: &Path, document: &Path, strict: bool) -> lab::sandbox::Output {
    let script = "import json, sys, jsonschema\n\
        def strict(node):\n\
        \x20   if isinstance(node, dict):\n\
        \x20       if 'properties' in node: node.setdefault('additionalProperties', False)\n\
        \x20       for value in node.values(): strict(value)\n\
        schema = json.load(open(sys.argv[1]))\n\
        jsonschema.Draft202012Validator.check_schema(schema)\n\
        if sys.argv[3] == 'true': strict(schema)\n\
        jsonschema.Draft202012Validator(schema).validate(json.load(open(sys.argv[2])))\n";
    run(command("/usr/bin/python3").args(["-c", script]).arg(schema).arg(document).arg(strict.to_string()))
}

#[test]
fn status_documents_are_as_the_published_schema_says() {
    let world = World::new();
    let schema = project("packaging/schema/status.schema.json");
    check(&schema, &project("format/tests/data/status-v1.json"), true).expect(0);
    // It has every state that there is: the metrics have a series for each.
    let text: Value = serde_json::from_slice(&fs::read(&schema).expect("a schema")).expect("JSON");
    let states = text["properties"]["status"]["properties"]["state"]["enum"].as_array().expect("states");
    let series: Vec<_> = states
        .iter()
        .filter_map(Value::as_str)
        .map(|s| format!("prestage_state{{state=\"{s}\"}} "))
        .collect();
    let golden = fs::read_to_string(project("agent/tests/data/prestage.prom")).expect("metrics");
    let written = golden.lines().filter(|line| line.starts_with("prestage_state{"));
    assert!(written.clone().count() == series.len());
    written
        .zip(&series)
        .for_each(|(line, series)| assert!(line.starts_with(series), "{line} is not {series}"));
    let path = world.sandbox.path().join("status.json");
    let now = || {
        fs::write(&path, run(&mut world.node.prestage(["status", "--json"])).expect(0).stdout)
            .expect("a file");
        check(&schema, &path, true).expect(0);
    };
    now();
    run(&mut world.node.prestage(["fetch"])).expect(0);
    now();
    run(&mut world.node.prestage(["install", "--now"])).expect(0);
    now();
    // It can say no, and a field that joins is no reason to.
    let text = fs::read_to_string(&path).expect("a status");
    fs::write(&path, text.replacen("\"rebootRequired\": false", "\"rebootRequired\": \"no\"", 1))
        .expect("a file");
    check(&schema, &path, false).expect(1).says(&["rebootRequired"]);
    fs::write(&path, text.replacen("\"state\":", "\"later\": 1, \"state\":", 1)).expect("a file");
    check(&schema, &path, false).expect(0);
    check(&schema, &path, true).expect(1).says(&["later"]);
}

/// Every query of the dashboard, with its variables as a person sees them first.
fn queries(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().cloned().unwrap_or_default();
    let targets = panels.iter().flat_map(|p| p["targets"].as_array().cloned().unwrap_or_default());
    targets.filter_map(|t| Some(t["expr"].as_str()?.replace("$variant", ".*"))).collect()
}

#[test]
#[ignore = "make test-monitoring"]
fn an_alert_fires_for_a_quarantined_node_and_is_resolved_after_its_release() {
    let world = World::new();
    // As on a node: a link in the textfile collector's folder.
    let textfiles = world.sandbox.path().join("textfiles");
    fs::create_dir_all(&textfiles).expect("a folder");
    let metrics = world.node.path("/var/lib/prestage/prestage.prom");
    std::os::unix::fs::symlink(&metrics, textfiles.join("prestage.prom")).expect("a link");
    let exporter = NodeExporter::start(&world.sandbox, &textfiles);
    let rules = project("packaging/monitoring/prestage.rules.yml");
    let prometheus = Prometheus::start(&world.sandbox, &exporter, &rules);

    world.node.configure(&[&world.mirror.url()], "[fetch]\nquarantine = \"until-released\"\n");
    world.centre.flip(Part::BundleData, world.centre.offset_of("till-data", 5));
    run(&mut world.node.prestage(["fetch"])).expect(2);
    prometheus.until("the alert fires", |p| p.firing().contains(&"PrestageBundleQuarantined".to_owned()));
    assert_eq!(prometheus.query("node_textfile_scrape_error")[0]["value"][1], "0");

    // The mirror is mended; the node still refuses the bundle, as it was told to, until it is released.
    world.centre.flip(Part::BundleData, world.centre.offset_of("till-data", 5));
    run(&mut world.node.prestage(["fetch"]));
    assert!(prometheus.firing().contains(&"PrestageBundleQuarantined".to_owned()));
    run(&mut world.node.prestage(["release", VERSION])).expect(0);
    run(&mut world.node.prestage(["fetch"])).expect(0);
    prometheus.until("the alert is resolved", |p| p.firing().is_empty());
    run(&mut world.node.prestage(["install", "--now"])).expect(0);
    prometheus
        .until("the node is up to date", |p| p.query("prestage_state{state=\"upToDate\"} == 1").len() == 1);

    // Each panel of the dashboard has something to show of this node, or nothing because there is nothing wrong with it.
    let dashboard = fs::read(project("packaging/monitoring/grafana-dashboard.json")).expect("a dashboard");
    let queries = queries(&serde_json::from_slice(&dashboard).expect("JSON"));
    assert!(queries.len() >= 15, "{}", queries.len());
    for query in queries {
        let found = prometheus.query(&query);
        let only_if_wrong =
            query.contains("quarantined|failed|needsPerson") || query.contains("prestage_plan_");
        assert!(only_if_wrong || !found.is_empty(), "nothing to show: {query}");
    }
}

#[test]
#[ignore = "make test-monitoring"]
fn names_and_rules_are_as_prometheus_wants_them() {
    let sandbox = Sandbox::new();
    let golden = project("agent/tests/data/prestage.prom");
    let checked = command("sh")
        .arg("-c")
        .arg(format!("promtool check metrics <{}", golden.display()))
        .output()
        .expect("promtool");
    let said =
        format!("{}{}", String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
    assert!(checked.status.success() && said.trim().is_empty(), "{said}");
    let rules = project("packaging/monitoring/prestage.rules.yml");
    succeed(command("promtool").args(["check", "rules"]).arg(&rules));
    let tests = project("packaging/monitoring/prestage.rules.test.yml");
    succeed(command("promtool").args(["test", "rules"]).arg(&tests));
    // The tests of the rules can fail: a rule that never fires is seen.
    let folder = sandbox.path();
    let text = fs::read_to_string(&rules).expect("rules");
    fs::write(
        folder.join("prestage.rules.yml"),
        text.replace("prestage_quarantined_bundles > 0", "prestage_quarantined_bundles > 9"),
    )
    .expect("rules");
    fs::copy(&tests, folder.join("tests.yml")).expect("tests");
    run(command("promtool").args(["test", "rules"]).arg(folder.join("tests.yml"))).expect(1);
    // Each rule has a test, and each metric that a rule names is one that the agent writes.
    let (tested, written) =
        (fs::read_to_string(&tests).expect("tests"), fs::read_to_string(&golden).expect("metrics"));
    for line in text.lines() {
        if let Some(name) = line.trim().strip_prefix("- alert: ") {
            assert!(
                tested.contains(&format!("alertname: {name}\n        exp_alerts:\n")),
                "no test in which {name} fires"
            );
        }
        for word in line
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .filter(|w| line.contains("expr:") && w.starts_with("prestage_"))
        {
            assert!(written.contains(&format!("# TYPE {word} ")), "{word} is no metric of the agent");
        }
    }
}
