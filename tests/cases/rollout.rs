//! A policy's rollout as real nodes obey it: batch by batch, stopped, resumed and taken back, by nothing but what is signed;
//! and the document of the design, as it stands there, from the folder of policies to a patched node.

use std::fs;
use std::path::Path;
use std::time::Duration;

use format::digest::{Hasher, Sha256};
use format::rollout::RolloutPlan;
use format::status::State;
use lab::debs::Deb;
use lab::forge::Forge;
use lab::node::Node;
use lab::repository::Part;
use lab::sandbox::{Output, command, program, run, succeed};
use lab::services::FleetServer;
use lab::world::{VERSION, World, new_packages, old_packages};
use serde_json::{Value, json};

use crate::policy::{SECOND, policy, publish_policies, publish_policies_with, world};

/// Batches of one node, an hour apart, canaries first.
pub(crate) const BATCHES: &str = "  rolloutStrategy:\n    type: RollingUpdate\n    batchSize: 1\n    batchDelayMinutes: 60\n    canary:\n      \
                       matchLabels:\n        ring: canary\n    failureThreshold: \"5%\"\n";

/// A till of its own, ready to fetch.
fn till(world: &World, name: &str, ring: &str) -> Node {
    let node = Node::new(&world.sandbox, name);
    node.install(&old_packages());
    node.trust(&world.centre.repository());
    set_up(world, &node, name, ring);
    node
}

fn set_up(world: &World, node: &Node, name: &str, ring: &str) {
    node.write(
        "/etc/prestage/agent.toml",
        format!(
            "[node]\nid = \"{name}\"\n[node.labels]\nrole = \"till\"\nring = \"{ring}\"\n[repository]\nmirrors = [\"{}\"]\n",
            world.mirror.url()
        ),
    );
}

fn on<const N: usize>(node: &Node, args: [&str; N]) -> Output {
    run(&mut node.prestage(args))
}

/// `policy VERB` on the published repository, by ann.
pub(crate) fn control(world: &World, verb: &str, more: &[&str]) -> Output {
    let centre = &world.centre;
    let mut command = centre.build(["policy", verb]);
    command.arg(centre.repository()).args([
        "operations/tills",
        "--by",
        "ann",
        "--reason",
        "receipts stay blank",
    ]);
    for (option, key) in
        [("--key", "policies"), ("--snapshot-key", "snapshot"), ("--timestamp-key", "timestamp")]
    {
        command.arg(option).arg(centre.key(key));
    }
    run(command.args(more))
}

fn plan(world: &World) -> RolloutPlan {
    let mut show = world.centre.build(["--json", "policy", "show"]);
    let shown: Value = serde_json::from_str(&succeed(show.arg(world.centre.repository()))).expect("JSON");
    let plan = serde_json::to_vec(&shown["policies"][0]["plan"]).expect("JSON");
    RolloutPlan::from_json(&plan).expect("a plan")
}

/// So many seconds go by, as far as a plan is concerned: all of it is that much earlier, signed with the policies' own key.
fn later(world: &World, seconds: i64) {
    let mut plan = plan(world);
    plan.steps.iter_mut().for_each(|step| step.not_before = step.not_before.plus(-seconds));
    let path = plan.target_path().expect("a path").to_string();
    Forge::new(&world.centre).policies_list(&["policies"], &path, &plan.to_json());
}

#[test]
fn three_nodes_begin_batch_by_batch_and_nobody_begins_what_was_halted() {
    let mut world = world();
    set_up(&world, &world.node, "till-1", "canary");
    let (second, third) = (till(&world, "till-2", "rest"), till(&world, "till-3", "rest"));
    // The first batch is that of whoever of the two comes first.
    let positions = ["till-2", "till-3"].map(|name| {
        format::rollout::position("operations/tills", &VERSION.parse().unwrap(), &name.parse().unwrap())
    });
    let (first, last) = if positions[0] < positions[1] { (second, third) } else { (third, second) };
    let nodes = world.sandbox.path().join("nodes.csv");
    fs::write(
        &nodes,
        "node,role,ring\ntill-1,till,canary\ntill-2,till,rest\ntill-3,till,rest\nserver-1,server,rest\n",
    )
    .expect("an inventory");
    let inventory = ["--inventory", nodes.to_str().expect("a path")];
    let said = publish_policies_with(&world, &[policy("tills", "till", VERSION, BATCHES)], &inventory);
    assert!(
        said.contains("(3 nodes") && said.contains("the canaries first, then 2 batches of 3 nodes"),
        "{said}"
    );
    assert_eq!(plan(&world).steps.len(), 3);

    // Everybody fetches; only the canary installs.
    on(&world.node, ["run"]).expect(0);
    world.assert_patched();
    for (node, batch) in [(&first, "batch 1 of 2"), (&last, "batch 2 of 2")] {
        let before = node.image();
        on(node, ["fetch"]).expect(0).says(&["staged", "this node is in", batch, "begins at"]);
        on(node, ["install"]).expect(1).says(&["operations/tills", batch, "begins at"]);
        node.assert_is(&before);
        let status = node.status().status;
        assert_eq!(status.state, State::Staged);
        assert_eq!(status.rollout.expect("a rollout").batch, batch);
        on(node, ["status"]).expect(0).says(&["rollout:", "running", batch]);
        on(node, ["doctor"]).expect(0).says(&["waits for this node's batch"]);
    }

    // An hour later it is the first batch's turn. Before that, somebody looks at the canary, and halts.
    later(&world, 3600);
    control(&world, "halt", &[]).expect(0).says(&["running → halted (ann, receipts stay blank)"]);
    control(&world, "halt", &[]).expect(0).says(&["is halted already", "ann"]);
    on(&first, ["run"]).expect(1).says(&["is halted since", "ann: receipts stay blank"]);
    on(&first, ["install", "--now"]).expect(1).says(&["is halted"]);
    assert_eq!(first.version("till-app"), "1.0");
    on(&first, ["status"]).expect(0).says(&["halted by ann (receipts stay blank)"]);
    on(&first, ["doctor"]).expect(0).says(&["which is halted"]);
    assert!(
        first
            .read("/var/lib/prestage/prestage.prom")
            .contains("prestage_rollout_stopped{state=\"halted\"} 1")
    );
    // Somebody merges something else, and CI publishes all there is: a halt is a halt.
    let said = publish_policies_with(&world, &[policy("tills", "till", VERSION, BATCHES)], &inventory);
    assert!(said.contains("stays halted by ann"), "{said}");
    on(&first, ["run"]).expect(1).says(&["is halted"]);

    // It goes on: who had begun may, and the next batch begins an hour from now.
    control(&world, "resume", &[]).expect(0).says(&["halted → running"]);
    on(&first, ["run"]).expect(0);
    assert_eq!(first.version("till-app"), "2.0");
    on(&last, ["run"]).expect(1).says(&["batch 2 of 2"]);
    // A person on the node need not wait for a batch.
    on(&last, ["install", "--now"]).expect(0);
    assert_eq!(last.version("till-app"), "2.0");
    let shown =
        world.centre.build(["policy", "show"]).arg(world.centre.repository()).output().expect("it runs");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    for act in ["publish by policy publish", "halt by ann: receipts stay blank", "resume by ann"] {
        assert!(shown.contains(act), "{shown}");
    }
    // What is published so is whole.
    succeed(world.centre.build(["check"]).arg(world.centre.repository()));
    world.node = first;
}

#[test]
fn a_rollback_on_the_repository_takes_nodes_back_at_once_and_git_does_not_undo_it_by_chance() {
    let mut world = world();
    world.node = Node::like(&world.node, &world.sandbox, "btrfs");
    world.configure("[node.labels]\nrole = \"till\"\nring = \"canary\"\n[reboot]\npolicy = \"if-needed\"\n");
    let of = |version: &str| policy("tills", "till", version, BATCHES);
    publish_policies_with(&world, &[of(VERSION)], &["--nodes", "100"]);
    on(&world.node, ["run"]).expect(0);
    let first = world.node.image();
    let mut newer = new_packages();
    newer.push(Deb::new("till-data", "3.0").payload(1000));
    world.archive.publish(&newer);
    world.release(SECOND);
    // How many nodes there are is known from before.
    publish_policies(&world, &[of(SECOND)]);
    on(&world.node, ["run"]).expect(0);
    assert_eq!(world.node.version("till-data"), "3.0");

    // The node is in no batch of the older bundle's new rollout that has begun; back it goes all the same.
    world.configure("[node.labels]\nrole = \"till\"\n[reboot]\npolicy = \"if-needed\"\n");
    control(&world, "rollback", &[]).expect(0).says(&[SECOND, VERSION, "now revert it in Git"]);
    // Git still names the newer one.
    let folder = world.sandbox.path().join("policies");
    let mut again = world.centre.build(["policy", "publish"]);
    again.arg(world.centre.repository()).arg(&folder).arg("--key").arg(world.centre.key("policies"));
    let said = succeed(&mut again);
    assert!(said.contains(&format!("stays at bundle {VERSION}")) && said.contains("by ann"), "{said}");
    on(&world.node, ["fetch"]).expect(0);
    on(&world.node, ["install"]).expect(1).says(&["goes back from bundle", SECOND, VERSION]);
    world.node.boot();
    on(&world.node, ["recover"]).expect(0);
    world.node.forget_digests();
    world.node.assert_is(&first);
}

#[test]
fn a_rollout_without_a_plan_is_not_begun_and_both_ends_say_so() {
    let world = world();
    publish_policies_with(&world, &[policy("tills", "till", VERSION, BATCHES)], &["--nodes", "10"]);
    // Whoever publishes policies with another tool may know nothing of plans.
    let forge = Forge::new(&world.centre);
    forge.next("policies", &["policies"], |signed| {
        signed["targets"].as_object_mut().expect("targets").retain(|path, _| !path.ends_with("rollout.json"));
    });
    forge.publish();
    let before = world.node.image();
    on(&world.node, ["fetch"]).expect(0).says(&["no plan for its bundle"]);
    on(&world.node, ["install", "--now"]).expect(1).says(&[
        "operations/tills",
        "no plan",
        "publish the policies again",
    ]);
    world.node.assert_is(&before);
    let check = run(world.centre.build(["check"]).arg(world.centre.repository()));
    check.expect(1).says(&["its rolloutStrategy has no plan"]);
}

#[test]
fn a_halt_does_not_wait_for_whatever_else_waits_for_a_signature() {
    let world = world();
    publish_policies_with(&world, &[policy("tills", "till", VERSION, BATCHES)], &["--nodes", "10"]);
    // A change of keys is pending, and not signed.
    let centre = &world.centre;
    let mut change = centre.build(["root", "renew"]);
    succeed(change.arg(centre.repository()).args(["--role", "bundles"]));
    control(&world, "halt", &[]).expect(0);
    assert_eq!(plan(&world).state.as_str(), "halted");
    let shown = succeed(centre.build(["root", "show"]).arg(centre.repository()));
    assert!(shown.contains("bundles"), "{shown}");
    let pending = centre.repository().with_extension("pending");
    let pending =
        if pending.is_dir() { pending } else { centre.repository().with_file_name("repository.pending") };
    assert!(pending.join("bundles.json").is_file(), "what waited is gone from {}", pending.display());
}

#[test]
fn a_policy_approves_a_release_of_several_variants_by_one_checksum() {
    let world = world();
    // Another variant's bundle of the same version: the same packages, collected for another name.
    let status = world.node.path("/var/lib/dpkg/status");
    let variant = "debian-99-amd64".parse().expect("a variant");
    let collected = world.centre.collect(&world.archive, &variant, &[&status]);
    let out = world.sandbox.path().join("other-variant");
    let mut bundle = world.centre.build(["bundle"]);
    bundle.arg(collected).args(["--version", VERSION, "--cycle", "2026-11", "--output"]).arg(&out);
    succeed(&mut bundle);
    world.centre.publish(&out);
    let mut release = world.centre.build(["--json", "bundles", "release"]);
    let release = succeed(release.arg(world.centre.repository()).arg(VERSION));
    let release: Value = serde_json::from_str(&release).expect("JSON");
    assert_eq!(release["release"]["bundles"].as_array().map(Vec::len), Some(2));
    let with = |checksum: &str| {
        let checksum = format!("    checksum: \"{checksum}\"\n  targets:");
        policy("tills", "till", VERSION, "").replace("  targets:", &checksum)
    };
    let checksum = release["checksum"].as_str().expect("a checksum").to_owned();
    publish_policies(&world, &[with(&checksum)]);
    on(&world.node, ["run"]).expect(0);
    world.assert_patched();
    // One more variant is another release, which nobody has approved.
    let variant = "debian-98-amd64".parse().expect("a variant");
    let collected = world.centre.collect(&world.archive, &variant, &[&status]);
    let out = world.sandbox.path().join("third-variant");
    let mut bundle = world.centre.build(["bundle"]);
    bundle.arg(collected).args(["--version", VERSION, "--cycle", "2026-11", "--output"]).arg(&out);
    succeed(&mut bundle);
    world.centre.publish(&out);
    let folder = world.sandbox.path().join("policies");
    let mut check = world.centre.build(["policy", "check"]);
    let check = run(check.arg(&folder).arg("--repo").arg(world.centre.repository()));
    check.expect(1).says(&["bundleRef.checksum", "for the release"]);
}

/// Section 4 of the design, letter by letter: the example that the documents show and the packages bring.
fn document() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let example =
        fs::read_to_string(root.join("packaging/examples/policies/edge-fleet.yaml")).expect("the example");
    let document =
        example.split_once("apiVersion").map(|(_, rest)| format!("apiVersion{rest}")).expect("a document");
    let page = fs::read_to_string(root.join("docs/usage/policy.md")).expect("the page");
    assert!(page.contains(&document), "the page and the example are not the same document");
    document
}

#[test]
fn the_document_of_the_design_goes_unchanged_from_git_to_a_node() {
    const NAMED: &str = "20241105-build-42";
    let world = world();
    let document = document();
    // The bundle that it names, whose checksum begins as it says.
    let out = world.bundle(NAMED);
    begin_with_abc123(&out);
    world.centre.publish(&out);
    world.configure("[node.labels]\nrole = \"edge-node\"\nregion = \"us-east\"\n");
    let said = publish_policies_with(&world, &[document], &["--nodes", "10000"]);
    assert!(said.contains("100 batches of 10000 nodes"), "{said}");
    let rollout = plan(&world);
    let tuesday = |at: &format::time::UnixTime| (at.0.div_euclid(86_400) + 3).rem_euclid(7) == 1;
    // Two hours in which eight batches begin: 02:00 to 04:00 in New York is on a Tuesday in UTC, too.
    assert!(rollout.steps.iter().all(|step| tuesday(&step.not_before)));
    on(&world.node, ["fetch"]).expect(0).says(&[NAMED, "staged", "operations/edge-fleet-q4-2024", "of 100"]);
    on(&world.node, ["install"]).expect(1).says(&["of 100", "begins at"]);
    // A person does not wait; what must answer at http://localhost:8080/health does, in a network of its own.
    let health = world.sandbox.path().join("health");
    fs::create_dir_all(&health).expect("a folder");
    fs::write(health.join("health"), "up").expect("an answer");
    let script = "ip link set lo up; python3 -m http.server 8080 --bind 127.0.0.1 -d \"$1\" >/dev/null 2>&1 & server=$!; \
                  trap 'kill $server' EXIT; \
                  for i in $(seq 200); do curl -sf -o /dev/null http://localhost:8080/health && break; read -rt 0.1 <> <(:); done; \
                  \"$2\" --root \"$3\" install --now";
    let mut install = command("unshare");
    install.args(["--net", "bash", "-c", script, "bash"]);
    install.arg(&health).arg(program("prestage")).arg(world.node.root());
    run(&mut install).expect(0);
    world.assert_patched();
    let status = world.node.status().status;
    assert_eq!(status.policy.as_deref(), Some("operations/edge-fleet-q4-2024"));
    assert_eq!(status.installed.expect("an install").bundle.version.as_str(), NAMED);
}

/// Appends an empty gzip member, whose comment makes the bundle's SHA-256 begin with `abc123`: an ordinary .tar.gz still.
fn begin_with_abc123(out: &Path) {
    let file = out.join("bundle.tar.gz");
    let mut bytes = fs::read(&file).expect("a bundle");
    // RFC 1952: a header with a comment; an empty deflate block, the CRC and the length of nothing.
    bytes.extend([0x1f, 0x8b, 8, 0x10, 0, 0, 0, 0, 0, 0xff]);
    let end = [0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut begun = Hasher::new();
    begun.update(&bytes);
    let digest_of = |nonce: u64| {
        let mut hasher = begun.clone();
        hasher.update(format!("{nonce:016x}").as_bytes());
        hasher.update(&end);
        hasher.finish()
    };
    let nonce = (0..).find(|nonce| digest_of(*nonce).0[..3] == [0xab, 0xc1, 0x23]).expect("one in 2^24");
    bytes.extend(format!("{nonce:016x}").bytes());
    bytes.extend(end);
    fs::write(&file, &bytes).expect("a bundle");
    let path = out.join("index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&path).expect("an index")).expect("JSON");
    index["bundle"]["length"] = bytes.len().into();
    index["bundle"]["sha256"] = Sha256::of(&bytes).to_string().into();
    fs::write(&path, format::json::canonical(&index).expect("a canonical form")).expect("an index");
    succeed(command("tar").arg("-tzf").arg(&file));
}

#[test]
fn a_document_that_was_valid_before_there_were_plans_still_is() {
    let text = policy("tills", "till", VERSION, "");
    let world = world();
    publish_policies(&world, &[text]);
    let targets = Forge::new(&world.centre).read("policies")["signed"]["targets"].take();
    assert_eq!(targets.as_object().map(serde_json::Map::len), Some(1));
    on(&world.node, ["run"]).expect(0);
    world.assert_patched();
}

/// `[control]` as the shipped configuration proposes it, for this world's repository and keys.
fn shipped_control(world: &World) -> String {
    let shipped = include_str!("../../packaging/config/fleet.toml");
    let from = shipped.split_once("[control]").expect("a section").1;
    let section = from.split_once("\n[").expect("another section").0;
    // From the beginning of each command to the end of its list.
    let (mut out, mut inside) = (String::from("[control]\n"), false);
    for line in section.lines().filter_map(|line| line.strip_prefix("# ")) {
        inside |= line.starts_with("command = [") || line.starts_with("release-command = [");
        if inside {
            out += &format!("{line}\n");
        }
        inside &= !line.ends_with(']');
    }
    let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    out = out
        .replace("/usr/bin/prestage-build", &path(&program("prestage-build")))
        .replace("/srv/prestage/repository", &path(&world.centre.repository()));
    for role in ["policies", "snapshot", "timestamp"] {
        out = out.replace(&format!("/etc/prestage-build/{role}.key"), &path(&world.centre.key(role)));
    }
    out
}

#[test]
fn a_bundle_that_a_whole_fleet_refuses_is_released_by_one_command_and_no_node_is_visited() {
    let world = world();
    world.configure("[node.labels]\nrole = \"till\"\n[fetch]\nquarantine = \"until-released\"\n");
    publish_policies(&world, &[policy("tills", "till", VERSION, "")]);
    let at = world.centre.offset_of("till-data", 1000);
    world.centre.flip(Part::BundleData, at);
    on(&world.node, ["fetch"]).expect(2).says(&["till-data"]);
    world.centre.flip(Part::BundleData, at);
    on(&world.node, ["run"]).expect(2).says(&["refused"]);
    // It is released for whoever refused it before now.
    let since = world.node.status().status.quarantine[0].since;
    lab::wait::until("the next second", Duration::from_secs(5), || world.node.clock() > since);
    // A bundle that is not the policy's has nothing to be released for.
    control(&world, "release", &["--bundle", SECOND]).expect(1).says(&[VERSION, "would change nothing"]);
    // By an operator of the fleet server, whose configuration is the shipped one but for where things are.
    let fleet = FleetServer::start(&world.sandbox, &world.centre.repository(), &shipped_control(&world));
    let token = fleet.administer(&["token", "new", "--name", "ann", "--role", "operator"]);
    let asked = json!({"policy": "operations/tills", "bundle": VERSION, "reason": "receipts stay blank"});
    let mut curl = command("curl");
    curl.args(["-sS", "--fail-with-body", "-H", &format!("Authorization: Bearer {token}"), "-H"]);
    curl.args(["Content-Type: application/json", "-d", &asked.to_string()]);
    let url = format!("{}/api/v1/quarantine/release", fleet.url());
    run(curl.arg(url)).expect(0).says(&["may try it again", "ann, receipts stay blank"]);
    // Git, which knows nothing of it, is published again before the node hears of it.
    publish_policies(&world, &[policy("tills", "till", VERSION, "")]);
    on(&world.node, ["run"]).expect(0);
    world.assert_patched();
}
