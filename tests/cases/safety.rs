//! An unattended node ends every night patched and healthy, or as it was: restore points, health, going back, boots; and
//! the agent killed before and after every act.
//!
//! Restore points here are those of btrfs, which needs nothing but a file: everything about them is real but the boot,
//! which is the root mounted anew and another boot id. LVM and Timeshift are shown in virtual machines (`make test-vm`), and
//! what they cannot give on order in `lvm.rs`.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};

use format::report::Outcome;
use format::status::State;
use lab::debs::Deb;
use lab::node::Node;
use lab::sandbox::{Output, run};
use lab::server::Behaviour;
use lab::world::{VERSION, World, new_packages, old_packages};

/// The world's node exchanged for one that can go back.
fn on_btrfs(mut world: World) -> World {
    world.node = Node::on_btrfs(&world.sandbox, "btrfs");
    world.node.install(&old_packages());
    world.node.trust(&world.centre.repository());
    world.configure("");
    world
}

pub(super) fn agent(world: &World, args: &[&str]) -> Output {
    run(world.node.prestage([]).args(args))
}

/// Writes a hook that fails.
fn hook(world: &World, path: &str, body: &str) {
    let path = format!("/etc/prestage/hooks.d/{path}");
    world.node.write(&path, format!("#!/bin/sh\n{body}\n"));
    std::fs::set_permissions(world.node.path(&path), std::fs::Permissions::from_mode(0o755)).expect("a mode");
}

/// The reports that the centre has, each once.
fn outcomes(world: &World) -> Vec<Outcome> {
    agent(world, &["report"]).expect(0);
    let mut seen = BTreeSet::new();
    let reports = world.receiver.accepted();
    let reports = reports.iter().filter(|r| r.step == format::report::Step::Install && seen.insert(r.id));
    reports.map(|r| r.outcome).collect()
}

/// Runs the agent, killed at this point, and asserts that it was.
fn killed_at(world: &World, args: &[&str], state: &str, moment: &str) {
    let mut command = world.node.prestage([]);
    command.args(args).env("PRESTAGE_KILL", format!("{state}:{moment}"));
    let output = run(&mut command);
    assert_eq!(output.signal, Some(9), "killed at {state}:{moment}: {output}");
    let status = world.node.status().status;
    assert!(
        status.state != State::UpToDate || status.installed.is_some(),
        "a false status after {state}:{moment}: {}",
        status.summary
    );
}

/// A node of the same world with everything as it was before the first install, staged.
fn fresh(world: &mut World, name: &str) {
    world.node = Node::new(&world.sandbox, name);
    world.node.install(&old_packages());
    world.node.trust(&world.centre.repository());
    world.configure("");
    agent(world, &["fetch"]).expect(0);
}

#[test]
fn an_agent_killed_before_and_after_every_act_of_an_install_brings_it_to_its_end() {
    let mut world = World::new();
    for state in [
        "Staged",
        "Snapshotting",
        "Snapshotted",
        "Installing",
        "Installed",
        "Checking",
        "Committing",
        "Finished",
    ] {
        for moment in ["before", "after"] {
            fresh(&mut world, &format!("{state}-{moment}"));
            let before = outcomes(&world).len();
            killed_at(&world, &["install", "--now"], state, moment);
            agent(&world, &["install"]).expect(0);
            world.assert_patched();
            let status = world.node.status().status;
            assert_eq!(status.state, State::UpToDate, "{state}:{moment}");
            assert_eq!(status.installed.expect("an install").bundle.version.as_str(), VERSION);
            assert_eq!(outcomes(&world)[before..], [Outcome::Installed], "{state}:{moment}");
            assert!(!world.node.path("/var/lib/prestage/private/journal.json").exists());
        }
    }
}

#[test]
fn an_agent_killed_on_either_side_of_a_boot_judges_the_node_once_more_and_ends() {
    let mut world = World::new();
    for (state, moment) in [("Rebooting", "before"), ("Rechecking", "before"), ("Rechecking", "after")] {
        fresh(&mut world, &format!("{state}-{moment}"));
        world.configure("[reboot]\npolicy = \"always\"\n");
        if state == "Rebooting" {
            killed_at(&world, &["install", "--now"], state, moment);
        }
        agent(&world, &["install", "--now"]).expect(1).says(&["takes effect at the next boot", "booted now"]);
        assert!(world.node.is_to_boot());
        assert_eq!(world.node.status().status.state, State::AwaitingReboot);
        // Not twice, and nothing else, before it was booted.
        agent(&world, &["recover"]).expect(1).says(&["next boot"]);
        world.node.boot();
        if state == "Rechecking" {
            killed_at(&world, &["recover"], state, moment);
        }
        agent(&world, &["recover"]).expect(0);
        assert_eq!(world.node.status().status.state, State::UpToDate);
        world.assert_patched();
        agent(&world, &["recover"]).expect(0).says(&["nothing was interrupted"]);
    }
}

#[test]
fn a_node_that_is_not_healthy_after_an_install_goes_back_and_does_not_try_again() {
    let world = on_btrfs(World::new());
    agent(&world, &["doctor"]).expect(0).says(&["restore points are made by btrfs"]);
    agent(&world, &["fetch"]).expect(0);
    let before = world.node.image();
    // Healthy before, and not with the new version.
    hook(&world, "health/required.d/10-till", "! grep -q EUR /etc/till.conf");
    let before_hook = world.node.image();
    agent(&world, &["install", "--now"]).expect(1).says(&["goes back from bundle", "next boot"]);
    assert_eq!(world.node.version("till-app"), "2.0", "until the boot all is as it is");
    assert!(world.node.is_to_boot());
    assert_eq!(world.node.status().status.state, State::AwaitingReboot);
    world.node.boot();
    agent(&world, &["recover"]).expect(5).says(&["rolled back", "10-till"]);
    world.node.forget_digests();
    world.node.assert_is(&before_hook);
    assert!(!before.is_empty());
    let status = world.node.status().status;
    assert_eq!((status.state, status.quarantine.len()), (State::Failed, 1));
    // The same bundle is not tried again, by whatever timer.
    agent(&world, &["run"]).expect(1).says(&["refused"]);
    agent(&world, &["install"]).expect(1);
    world.node.forget_digests();
    world.node.assert_is(&before_hook);
    let told = outcomes(&world);
    assert!(told.contains(&Outcome::RolledBack), "{told:?}");
    let report = world.receiver.accepted().into_iter().find(|r| r.outcome == Outcome::RolledBack);
    assert!(
        report.expect("the report").restore_point.expect("a restore point").starts_with("btrfs:prestage_")
    );
    // A better bundle goes through.
    let better: Vec<Deb> = new_packages()
        .into_iter()
        .filter(|deb| !format!("{deb:?}").contains("\"till-lib\""))
        .chain([Deb::new("till-lib", "2.1").conffile("/etc/till.conf", "currency = EURO\n")])
        .collect();
    world.node.write("/etc/till.conf", "currency = DM\n");
    hook(&world, "health/required.d/10-till", "true");
    world.archive.publish(&better);
    world.release("20261124-1");
    agent(&world, &["fetch"]).expect(0);
    agent(&world, &["install", "--now"]).expect(0);
    assert_eq!(world.node.version("till-lib"), "2.1");
    world.configure("");
}

#[test]
fn an_agent_killed_before_and_after_every_act_on_the_way_back_comes_back() {
    let world = on_btrfs(World::new());
    hook(&world, "health/required.d/10-till", "! grep -q EUR /etc/till.conf");
    agent(&world, &["fetch"]).expect(0);
    let before = world.node.image();
    for (state, moment) in [
        ("RollingBack", "before"),
        ("RollingBack", "after"),
        ("AwaitingReboot", "before"),
        ("Proving", "before"),
        ("Proving", "after"),
        ("Finished", "before"),
        ("Finished", "after"),
    ] {
        let told = outcomes(&world).len();
        // However often: only boots that have not brought it back count against a way back.
        for _ in 0..if state == "RollingBack" { 3 } else { 1 } {
            if matches!(state, "RollingBack" | "AwaitingReboot") {
                killed_at(&world, &["install", "--now"], state, moment);
            }
        }
        agent(&world, &["install", "--now"]).expect(1).says(&["next boot"]);
        world.node.boot();
        if matches!(state, "Proving" | "Finished") {
            killed_at(&world, &["recover"], state, moment);
        }
        agent(&world, &["recover"]).expect(5).says(&["rolled back"]);
        world.node.forget_digests();
        world.node.assert_is(&before);
        assert_eq!(outcomes(&world)[told..].iter().filter(|o| **o == Outcome::RolledBack).count(), 1);
        // The next round tries it again, as a person can.
        agent(&world, &["release", VERSION]).expect(0);
        agent(&world, &["fetch"]).expect(0);
    }
}

/// As when the agent's own state could not be carried into the restore point: all that is left is outside.
#[test]
fn a_node_that_has_forgotten_why_it_went_back_is_told_by_what_was_left_outside() {
    let world = on_btrfs(World::new());
    hook(&world, "health/required.d/10-till", "! grep -q EUR /etc/till.conf");
    agent(&world, &["fetch"]).expect(0);
    agent(&world, &["install", "--now"]).expect(1).says(&["next boot"]);
    world.node.boot();
    let journal = world.node.path("/var/lib/prestage/private/journal.json");
    std::fs::remove_file(journal).expect("the journal that was carried");
    std::fs::remove_dir_all(world.node.path("/var/lib/prestage/reports")).expect("the reports");
    agent(&world, &["install"]).expect(5).says(&["rolled back", "10-till"]);
    assert_eq!(world.node.status().status.quarantine.len(), 1);
    assert!(outcomes(&world).contains(&Outcome::RolledBack));
    // And it is not said twice.
    agent(&world, &["install"]).expect(1).says(&["refused"]);
}

#[test]
fn a_node_goes_back_where_somebody_wants_it_and_stays_there() {
    let world = on_btrfs(World::new());
    agent(&world, &["rollback"]).expect(1).says(&["nothing to go back from"]);
    agent(&world, &["fetch"]).expect(0);
    let before = world.node.image();
    agent(&world, &["install", "--now"]).expect(0);
    world.assert_patched();
    let point = world.node.status().status.restore_point.expect("a restore point");
    assert_eq!(point.kind, "btrfs");
    agent(&world, &["doctor"]).expect(0).says(&["`prestage rollback` goes back", &point.id]);
    agent(&world, &["rollback", "--now"]).expect(1).says(&["next boot", "booted now"]);
    world.node.boot();
    agent(&world, &["recover"]).expect(0);
    world.node.forget_digests();
    world.node.assert_is(&before);
    let status = world.node.status().status;
    assert!(status.installed.is_none() && status.restore_point.is_none(), "{status:?}");
    agent(&world, &["install"]).expect(1).says(&["refused"]);
    agent(&world, &["rollback"]).expect(1).says(&["nothing to go back from"]);
    let told = outcomes(&world);
    assert!(told.contains(&Outcome::Installed) && told.contains(&Outcome::RolledBack), "{told:?}");
}

#[test]
fn an_unhealthy_node_is_put_off_and_not_patched_and_blamed() {
    let world = World::new();
    agent(&world, &["fetch"]).expect(0);
    world.configure("[health]\nurl = \"http://127.0.0.1:9/health\"\ntimeout-seconds = 1\n");
    let before = world.node.image();
    agent(&world, &["install", "--now"]).expect(1).says(&["not healthy before the install", "127.0.0.1:9"]);
    world.node.assert_is(&before);
    world.configure("[health]\nhook-timeout-seconds = 1\n");
    hook(&world, "health/required.d/10-hangs", "sleep 60");
    agent(&world, &["install", "--now"]).expect(1).says(&["10-hangs", "had not ended after 1 s"]);
    // What is only wanted keeps nothing back.
    hook(&world, "health/required.d/10-hangs", "true");
    hook(&world, "health/wanted.d/10-fails", "exit 1");
    agent(&world, &["install", "--now"]).expect(0).says(&["10-fails"]);
    world.assert_patched();
}

/// A server that answers what it is told, one request on each connection; what was asked, and how many connections.
pub(super) fn server(
    answers: impl Fn(usize, &str) -> String + Send + 'static,
) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("a port"));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = asked.clone();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            let mut stream = stream;
            let mut bytes = Vec::new();
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = stream.read(&mut buffer) {
                bytes.extend_from_slice(&buffer[..n]);
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let length = head.lines().find_map(|l| {
                    l.to_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok()
                });
                if body.len() >= length.unwrap_or(0) {
                    break;
                }
            }
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let answer = answers(number, &text);
            log.lock().expect("no thread panics with it").push(text);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (url, asked)
}

pub(super) fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn the_health_url_counts_by_status_and_body_and_is_asked_again_over_a_new_connection() {
    let world = World::new();
    agent(&world, &["fetch"]).expect(0);
    // The first is the baseline; then it is still starting, says the wrong thing, and is well.
    let (url, asked) = server(|number, _| match number {
        0 => answer("200 OK", "state: up"),
        1 => answer("503 Service Unavailable", "state: up"),
        2 => answer("200 OK", "state: starting"),
        _ => answer("200 OK", "state: up"),
    });
    world.configure(&format!("[health]\nurl = \"{url}/health\"\nstatus = 200\nbody = \"state: up\"\n"));
    agent(&world, &["install", "--now"]).expect(0);
    world.assert_patched();
    assert_eq!(asked.lock().expect("no thread panics with it").len(), 4);
}

#[test]
fn a_site_that_does_not_let_a_node_boot_keeps_it_from_booting_and_is_told_when_it_is_well() {
    let world = World::new();
    agent(&world, &["fetch"]).expect(0);
    let (url, asked) = server(|number, text| {
        match (number, text.starts_with("POST /v1/pre-reboot "), text.starts_with("POST /v1/steady-state ")) {
            (0, true, _) => answer("409 Conflict", r#"{"kind":"failed_lock","value":"till-1 boots"}"#),
            (_, true, _) | (_, _, true) => answer("200 OK", ""),
            _ => answer("400 Bad Request", ""),
        }
    });
    world.configure(&format!(
        "[reboot]\npolicy = \"always\"\nlock-url = \"{url}/\"\nlock-group = \"store-0815\"\n"
    ));
    agent(&world, &["install", "--now"]).expect(1).says(&["failed_lock: till-1 boots"]);
    assert!(!world.node.is_to_boot());
    agent(&world, &["install", "--now"]).expect(1).says(&["booted now"]);
    assert!(world.node.is_to_boot());
    world.node.boot();
    agent(&world, &["recover"]).expect(0);
    let asked = asked.lock().expect("no thread panics with it");
    assert_eq!(asked.len(), 3);
    assert!(asked[2].starts_with("POST /v1/steady-state "), "{}", asked[2]);
    for request in asked.iter() {
        assert!(request.to_lowercase().contains("fleet-lock-protocol: true"), "{request}");
        let body = request.lines().last().unwrap_or_default();
        let said: serde_json::Value = serde_json::from_str(body).expect("the body is JSON");
        let params = serde_json::json!({"client_params": {"group": "store-0815", "id": "test-node"}});
        assert_eq!(said, params, "{request}");
    }
}

#[test]
fn not_more_nodes_of_a_site_than_its_policy_says_install_at_a_time() {
    let world = crate::policy::world();
    let (url, asked) = server(|number, text| {
        match (number, text.starts_with("POST /v1/pre-reboot "), text.starts_with("POST /v1/steady-state ")) {
            (0, true, _) => answer("409 Conflict", r#"{"kind":"failed_lock","value":"till-1 installs"}"#),
            (_, true, _) | (_, _, true) => answer("200 OK", ""),
            _ => answer("400 Bad Request", ""),
        }
    });
    world.configure(&format!(
        "[node.labels]\nrole = \"till\"\nsite = \"0815\"\n[reboot]\nlock-url = \"{url}\"\n"
    ));
    let strategy = "  rolloutStrategy:\n    type: AllAtOnce\n    maxUnavailablePerSite: 1\n";
    crate::policy::publish_policies(
        &world,
        &[crate::policy::policy("tills", "till", lab::world::VERSION, strategy)],
    );
    agent(&world, &["fetch"]).expect(0);
    let before = world.node.image();
    agent(&world, &["install"]).expect(1).says(&["failed_lock: till-1 installs"]);
    world.node.assert_is(&before);
    agent(&world, &["install"]).expect(0);
    world.assert_patched();
    let asked = asked.lock().expect("no thread panics with it");
    assert_eq!(asked.len(), 3);
    assert!(asked[2].starts_with("POST /v1/steady-state "), "{}", asked[2]);
}

#[test]
fn an_install_that_would_not_fit_into_its_window_is_not_begun() {
    let world = World::new();
    agent(&world, &["fetch"]).expect(0);
    // Open until midnight of tomorrow at the latest, and an install takes a week here.
    world.node.write("/var/lib/prestage/private/runs.json", r#"[{"seconds":604800,"packages":4}]"#);
    let private = world.node.path("/var/lib/prestage/private");
    std::fs::set_permissions(private, std::fs::Permissions::from_mode(0o700)).expect("a mode");
    world.configure(
        "[schedule]\nmaintenance-window = [\"Mon,Wed,Fri,Sun 00:00-24:00\", \"Tue,Thu,Sat 00:00-23:59\"]\n",
    );
    let before = world.node.image();
    agent(&world, &["install"]).expect(1).says(&["4 packages take about 12600 min", "closes in"]);
    world.node.assert_is(&before);
    agent(&world, &["install", "--now"]).expect(0);
    world.assert_patched();
}

#[test]
fn a_fetch_from_a_slow_mirror_makes_way_for_an_install() {
    let world = World::new();
    agent(&world, &["fetch"]).expect(0);
    // Something newer is on its way, slowly.
    let mut packages = new_packages();
    packages.push(Deb::new("till-data", "3.0").payload(4_000_000));
    world.archive.publish(&packages);
    world.release("20261124-1");
    world.configure("[fetch]\nrate = \"64kB/s\"\n");
    let fetch = lab::sandbox::Running::start(&mut world.node.prestage(["fetch"]));
    let transfers = || world.node.status().status.transfer.is_some();
    lab::wait::until("a transfer has begun", lab::server::PATIENCE, transfers);
    agent(&world, &["install", "--now"]).expect(0);
    world.assert_patched();
    fetch.wait().expect(1).says(&["makes way"]);
    // It goes on from there.
    world.configure("");
    agent(&world, &["fetch"]).expect(0);
    agent(&world, &["install", "--now"]).expect(0);
    assert_eq!(world.node.version("till-data"), "3.0");
}

#[test]
fn a_damaged_journal_is_kept_aside_and_told_and_the_next_install_begins_anew() {
    let world = World::new();
    agent(&world, &["fetch"]).expect(0);
    killed_at(&world, &["install", "--now"], "Installing", "after");
    world.node.write("/var/lib/prestage/private/journal.json", "{\"version\":1,\"id\":");
    agent(&world, &["install"]).expect(1).says(&["journal was damaged", "journal.json.broken"]);
    assert!(world.node.path("/var/lib/prestage/private/journal.json.broken").exists());
    agent(&world, &["install", "--now"]).expect(0);
    world.assert_patched();
    let told = world.node.status().status.healed;
    assert_eq!(told.get("damaged-journal"), Some(&1), "{told:?}");
}

#[test]
fn a_status_that_cannot_be_written_does_not_stick_an_install_and_loses_no_report() {
    let world = World::new();
    agent(&world, &["fetch"]).expect(0);
    // A folder with something in it cannot be replaced by the queue's owner; a queue that is a file takes no report.
    let reports = world.node.path("/var/lib/prestage/reports");
    std::fs::remove_dir_all(&reports).expect("the queue");
    std::fs::create_dir(&reports).expect("the queue");
    world.node.small_disk("/var/lib/prestage/reports", 4096);
    let _ = std::fs::write(reports.join("filler"), vec![1; 8192]);
    let first = agent(&world, &["install", "--now"]);
    assert!(matches!(first.code, Some(1 | 74)), "{first}");
    world.assert_patched();
    world.node.normal_disk("/var/lib/prestage/reports");
    agent(&world, &["install"]).expect(0);
    assert_eq!(outcomes(&world), [Outcome::Installed]);
    assert_eq!(world.node.status().status.state, State::UpToDate);
}

#[test]
fn a_way_back_that_fails_is_loud_and_not_tried_again() {
    let world = on_btrfs(World::new());
    hook(&world, "health/required.d/10-till", "! grep -q EUR /etc/till.conf");
    // What was to be gone back to disappears meanwhile.
    hook(&world, "post-install/10", "true");
    agent(&world, &["fetch"]).expect(0);
    killed_at(&world, &["install", "--now"], "RollingBack", "before");
    let top = world.sandbox.path().join("btrfs/top");
    for entry in std::fs::read_dir(&top).expect("the whole file system").flatten() {
        if entry.file_name().to_string_lossy().starts_with("prestage_") {
            lab::sandbox::succeed(
                lab::sandbox::command("btrfs").args(["-q", "subvolume", "delete"]).arg(entry.path()),
            );
        }
    }
    agent(&world, &["install"]).expect(6).says(&["10-till", "could not be brought back"]);
    let status = world.node.status().status;
    assert_eq!(status.state, State::NeedsPerson);
    assert!(!world.node.is_to_boot());
    agent(&world, &["install"]).expect(1).says(&["refused"]);
    assert_eq!(world.node.status().status.state, State::NeedsPerson);
    assert_eq!(outcomes(&world).iter().filter(|o| **o == Outcome::NeedsPerson).count(), 1);
    world.mirror.behave(Behaviour::default());
}
