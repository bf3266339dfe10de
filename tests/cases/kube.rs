//! Policies that a Kubernetes API server keeps: it refuses what cannot be right, and says in their status how their rollouts
//! go, as the fleet server has heard of it.

use std::fs;
use std::time::Duration;

use lab::kube::KubeApi;
use lab::sandbox::{Running, command, run, succeed};
use lab::services::FleetServer;
use lab::world::VERSION;
use serde_json::Value;

use crate::policy::{SECOND, policy, publish_policies, publish_policies_with, world};
use crate::rollout::{BATCHES, control};

const POLICIES: &str = "/apis/patchmgmt.io/v1/namespaces/operations/patchpolicies";

/// How soon a status says what is so.
const SOON: Duration = Duration::from_secs(60);

#[test]
#[ignore = "needs Kubernetes' API server: make test-kube"]
fn the_status_of_a_policy_in_kubernetes_says_how_its_rollout_goes() {
    let of_environment =
        |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name}: run make test-kube"));
    let world = world();
    let kube = KubeApi::start(&world.sandbox, &of_environment("KUBE_APISERVER"));
    let definition = succeed(&mut world.centre.build(["policy", "crd"]));
    kube.define(&definition, POLICIES);

    // It refuses what cannot be right.
    let wrong = policy("tills", "till", VERSION, BATCHES).replace("batchSize: 1", "batchSize: \"many\"");
    let refused = kube.create(POLICIES, &wrong);
    assert_eq!(refused.code, 422, "{refused:?}");
    let yaml = policy("tills", "till", VERSION, BATCHES);
    let created = kube.create(POLICIES, &yaml);
    assert_eq!(created.code, 201, "{created:?}");

    world.release(SECOND);
    let fleet = FleetServer::start(&world.sandbox, &world.centre.repository(), "");
    let token = world.sandbox.path().join("viewer.token");
    fs::write(&token, fleet.administer(&["token", "new", "--name", "bridge", "--role", "viewer"]))
        .expect("a file");
    let start = |more: &[&str]| {
        let mut bridge = command(of_environment("PRESTAGE_FLEET_KUBE"));
        bridge
            .args(["kube", "--every", "1", "--server", &fleet.url(), "--token-file"])
            .arg(&token)
            .args(more);
        bridge.env("KUBECONFIG", &kube.kubeconfig);
        bridge
    };
    let bridge = Running::start(&mut start(&[]));

    let object = || kube.ask("GET", &format!("{POLICIES}/tills"), "application/json", None).body;
    let is = |what: &str, status: &dyn Fn(&Value) -> bool| {
        let mut last = Value::Null;
        let mut looked = || {
            last = object()["status"].clone();
            status(&last)
        };
        let begun = std::time::Instant::now();
        while !looked() {
            let heard = || {
                let header =
                    format!("Authorization: Bearer {}", fs::read_to_string(&token).expect("a token"));
                let mut curl = command("curl");
                run(curl.args(["-sS", "-H", &header, &format!("{}/api/v1/repository", fleet.url())])).stdout
            };
            assert!(
                begun.elapsed() < SOON,
                "not {what}: {:#}; the fleet server: {}",
                object()["status"],
                heard()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let condition = |status: &Value, kind: &str| -> (String, String) {
        let all = status["conditions"].as_array().cloned().unwrap_or_default();
        let found = all.into_iter().find(|it| it["type"] == kind).unwrap_or_default();
        let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
        (text("status"), text("reason"))
    };
    let ready = |status: &Value, truth: &str, reason: &str| {
        condition(status, "Ready") == (truth.into(), reason.into())
    };

    is("unpublished", &|status| {
        ready(status, "False", "NotPublished") && status["observedGeneration"].is_null()
    });
    publish_policies_with(&world, std::slice::from_ref(&yaml), &["--nodes", "1"]);
    is("running", &|status| ready(status, "False", "Running") && status["observedGeneration"] == 1);

    // A node is patched and reports: that is all there is to wait for.
    let secret = fleet.administer(&["token", "enroll", "--name", "test"]);
    world.node.write("/etc/prestage/fleet.token", format!("{secret}\n"));
    let labels = "[node.labels]\nrole = \"till\"\nring = \"canary\"\n";
    let text = format!("{labels}[fleet]\nurl = \"{}\"\npaced = false\n", fleet.url());
    world.node.configure(&[&world.mirror.url()], &text);
    run(&mut world.node.prestage(["run"])).expect(0);
    run(&mut world.node.prestage(["report"])).expect(0);
    is("done", &|status| ready(status, "True", "Done") && status["installed"] == 1 && status["nodes"] == 1);

    // What `kubectl get patchpolicies` shows.
    let table = kube.ask("GET", POLICIES, "application/json;as=Table;g=meta.k8s.io;v=v1", None).body;
    let columns: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .expect("columns")
        .iter()
        .filter_map(|column| column["name"].as_str())
        .collect();
    assert_eq!(columns, ["Name", "Bundle", "State", "Installed", "Failed", "Nodes", "Window", "Age"]);
    let cells = &table["rows"][0]["cells"];
    assert_eq!((&cells[1], &cells[2], &cells[3]), (&VERSION.into(), &"done".into(), &1.into()));

    // The object is changed, and what is published is not.
    let change = format!(r#"{{"spec":{{"bundleRef":{{"version":"{SECOND}"}}}}}}"#);
    let path = format!("{POLICIES}/tills");
    let changed =
        kube.ask("PATCH", &path, "application/json", Some(("application/merge-patch+json", &change)));
    assert_eq!(changed.code, 200, "{changed:?}");
    is("behind", &|status| ready(status, "False", "AnotherPublished") && status["observedGeneration"] == 1);
    publish_policies(&world, &[yaml.replace(VERSION, SECOND)]);
    is("caught up", &|status| ready(status, "False", "Running") && status["observedGeneration"] == 2);
    control(&world, "halt", &[]).expect(0);
    is("halted", &|status| condition(status, "Halted").0 == "True" && status["state"] == "halted");
    control(&world, "rollback", &["--to", VERSION]).expect(0);
    is("rolled back", &|status| {
        ready(status, "False", "RolledBack") && condition(status, "Halted").0 == "False"
    });

    // What is not known any more is not told as if it were.
    fleet.kill();
    is("unknown", &|status| ready(status, "Unknown", "FleetServerAway") && status["installed"].is_u64());

    // Nothing is written where nothing changes; and who asks for one turn hears that it failed.
    bridge.kill();
    let version = || object()["metadata"]["resourceVersion"].clone();
    let before = version();
    run(&mut start(&["--once"])).expect(69).says(&["the fleet server"]);
    assert_eq!(version(), before);
}
