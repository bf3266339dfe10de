//! `make demo-fleet`: a fleet that is patched by pull request, hurt, stopped by itself, and taken back by a revert.
//!
//! Real: prestage-fleet, the repository and its keys, a git repository with the policy, and on every node a root of its own
//! with dpkg and apt, in which the real agent plans, fetches, installs, checks its health and goes back. Pressed together:
//! the delay between batches is a minute, and the agents are called by a loop and not by timers. The packages are small ones
//! made here, and so is the fault: on a tenth of the nodes the new version of one does not start.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use format::digest::Sha256;
use serde_json::Value;

use crate::debs::Deb;
use crate::node::Node;
use crate::repository::{Archive, Centre};
use crate::sandbox::{Output, Running, Sandbox, command, program, run, succeed};
use crate::server::Server;
use crate::wait::until;

/// What all nodes have in the beginning, and what is good; and what is not.
const GOOD: &str = "20261105-41";
const BAD: &str = "20261123-42";

/// The policy.
const POLICY: &str = "operations/tills";

/// One in so many nodes has the hardware that the new version does not know.
const ONE_IN: usize = 10;

/// Agents at a time.
const AT_A_TIME: usize = 3;

/// Whatever is waited for comes within this, or never.
const PATIENCE: Duration = Duration::from_secs(1800);

/// What the server is given to answer.
const MINUTE: Duration = Duration::from_secs(60);

/// The fleet, its centre and everything around.
struct Fleet {
    nodes: Vec<Node>,
    server: Option<Running>,
    url: String,
    token: String,
    pictures: PathBuf,
    git: PathBuf,
    centre: Centre,
    _mirror: Server,
    began: Instant,
    rows: Vec<(String, String)>,
    /// What the nodes are layers above: goes after them.
    base: Node,
    _sandbox: Sandbox,
}

/// Runs the demo; says with its exit code whether everything held.
pub fn print(pictures: &str, nodes: &str) -> ExitCode {
    let Some(count) = nodes.parse().ok().filter(|count| (10..=500).contains(count)) else {
        eprintln!("demo-fleet: {nodes:?} is no number of nodes from 10 to 500");
        return ExitCode::from(64);
    };
    // Whatever does not hold unwinds, so that mounts and servers go.
    match std::panic::catch_unwind(|| demo(Path::new(pictures), count)) {
        Ok(()) => {
            eprintln!("done: everything that had to hold did; pictures are in {pictures}");
            ExitCode::SUCCESS
        }
        Err(_) => ExitCode::FAILURE,
    }
}

fn demo(pictures: &Path, count: usize) {
    let mut fleet = Fleet::new(pictures, count);

    fleet.says("every node enrols, with a one-time token, and gets the good bundle");
    fleet.commit("tills: begin", &policy(GOOD, ""));
    fleet.publish();
    fleet.until("all nodes have the good bundle", |fleet| fleet.having(GOOD) == count);
    let before: Vec<_> = fleet.nodes.iter().map(Node::inventory).collect();
    assert!(
        before.iter().all(|inventory| inventory["till-app"] == "1.1"),
        "the good bundle was not installed"
    );
    fleet.picture("1-before", &["#/", "#/nodes"]);

    fleet.says(
        "a pull request raises the version: canaries, then a quarter each minute, halted above 5 % failures",
    );
    let strategy = "  rolloutStrategy:\n    type: RollingUpdate\n    batchSize: 25%\n    batchDelayMinutes: 1\n    canary:\n      \
                    matchLabels: { ring: canary }\n    failureThreshold: 5%\n";
    fleet.pull_request("tills: 2.0", &policy(BAD, strategy));
    fleet.publish();
    fleet.until("the canaries have it", |fleet| fleet.having(BAD) >= 2);
    fleet.picture("2-canaries", &["#/", "#/rollouts/operations/tills"]);
    fleet.until("some nodes did not stand it", |fleet| fleet.failed() > 0);
    fleet.picture("3-failures", &["#/rollouts/operations/tills", "#/nodes?state=failed"]);
    fleet.until("the server has halted it", |fleet| fleet.rollout()["state"] == "halted");
    let halted = fleet.rollout();
    fleet.row("halted by", &format!("{}: {}", halted["by"], halted["reason"]));
    // What had begun comes to its end; nobody else begins.
    fleet.round();
    fleet.round();
    let (have, failed) = (fleet.having(BAD), fleet.failed());
    fleet.row("nodes with the new bundle when it was halted", &have.to_string());
    fleet.row("nodes that did not stand it, and had gone back by themselves", &failed.to_string());
    assert!(have + failed < count, "the halt came when all nodes had begun");
    fleet.round();
    assert_eq!((fleet.having(BAD), fleet.failed()), (have, failed), "nodes began after the halt");
    for (node, before) in fleet.nodes.iter().zip(&before).filter(|(node, _)| is_old_hardware(node)) {
        assert_eq!(node.inventory(), *before, "a node that did not stand it is not as it was");
    }
    fleet.picture("4-halted", &["#/", "#/rollouts/operations/tills", "#/quarantine"]);

    fleet.says("git revert: the policy names the good bundle again");
    fleet.revert();
    fleet.publish();
    fleet.until("all nodes are back", |fleet| fleet.having(GOOD) == count);
    for (node, before) in fleet.nodes.iter().zip(&before) {
        assert_eq!(node.inventory(), *before, "a node is not as it was before");
    }
    fleet.picture("5-after", &["#/", "#/rollouts/operations/tills", "#/audit"]);
    fleet.end(count);
}

fn policy(version: &str, more: &str) -> String {
    format!(
        "apiVersion: patchmgmt.io/v1\nkind: PatchPolicy\nmetadata:\n  name: tills\n  namespace: operations\nspec:\n  \
         bundleRef:\n    version: \"{version}\"\n  targets:\n    selector:\n      matchLabels:\n        role: till\n{more}"
    )
}

fn is_old_hardware(node: &Node) -> bool {
    node.path("/etc/old-hardware").exists()
}

impl Fleet {
    fn new(pictures: &Path, count: usize) -> Fleet {
        let began = Instant::now();
        let sandbox = Sandbox::new();
        let base = Node::new(&sandbox, "base");
        base.install(&[Deb::new("till-lib", "1.0"), Deb::new("till-app", "1.0").depends("till-lib")]);

        let (archive, centre) = (Archive::new(&sandbox), Centre::with_signers(&sandbox, "centre", 2));
        for (bundle, version) in [(GOOD, "1.1"), (BAD, "2.0")] {
            archive
                .publish(&[Deb::new("till-lib", version), Deb::new("till-app", version).depends("till-lib")]);
            let status = base.path("/var/lib/dpkg/status");
            centre.publish(&centre.bundle(&centre.collect(&archive, &base.variant(), &[&status]), bundle));
        }
        let mirror = Server::start(&centre.repository()).expect("a port");

        let (url, config) = configure_server(&sandbox, &centre);
        let fleet = |args: &[&str]| command_of_fleet(&config, args);
        let token = succeed(&mut fleet(&["token", "new", "--name", "demo", "--role", "operator"]));
        let uses = count.to_string();
        let enrol = succeed(&mut fleet(&["token", "enroll", "--name", "demo", "--uses", &uses]));
        let server = Running::start(&mut fleet(&["serve"]));
        let enrol_file = sandbox.path().join("enrol-token");
        fs::write(&enrol_file, last_word(&enrol)).expect("a token");

        let git = sandbox.path().join("policies");
        fs::create_dir_all(&git).expect("a folder");
        let fleet = Fleet {
            nodes: Vec::new(),
            server: Some(server),
            url,
            token: last_word(&token),
            pictures: pictures.to_owned(),
            git,
            centre,
            _mirror: mirror,
            began,
            rows: Vec::new(),
            base,
            _sandbox: sandbox,
        };
        fleet.git(&["init", "--quiet", "--initial-branch=main"]);
        until("the server answers", MINUTE, || fleet.get("/api/v1/summary")["total"] == 0);
        fleet.furnish(count, &enrol_file)
    }

    /// The nodes: above one root, each with labels, hardware and a key of its own.
    fn furnish(mut self, count: usize, token: &Path) -> Fleet {
        let root = fs::read(self.centre.repository().join("metadata/1.root.json")).expect("a root");
        let fingerprint = format!("sha256:{}", Sha256::of(&root));
        let mirror = self._mirror.url();
        for n in 0..count {
            let (site, ring) = (format!("store-{:02}", n / 5), if n < 2 { "canary" } else { "main" });
            let node = Node::above(&self.base, &self._sandbox, &format!("node-{n:03}"));
            node.write("/usr/lib/prestage/agent.d/10-demo.toml", "[fleet]\npaced = false\n");
            if n % ONE_IN == ONE_IN / 2 {
                node.write("/etc/old-hardware", "");
            }
            node.script(
                "/etc/prestage/hooks.d/health/required.d/till",
                "#!/bin/sh\nversion=$(dpkg-query -W -f '${Version}' till-app)\n\
                 [ ! -e /etc/old-hardware ] || [ \"$version\" != 2.0 ] || { echo 'till-app 2.0 does not know this printer' >&2; exit 1; }\n",
            );
            let id = format!("till-{:02}-{}", n / 5, n % 5);
            let (site, ring) = (format!("site={site}"), format!("ring={ring}"));
            let mut enroll =
                node.prestage(["enroll", "--repository", &mirror, "--root-fingerprint", &fingerprint]);
            enroll.args(["--id", &id, "--label", "role=till", "--label", &site, "--label", &ring]);
            succeed(enroll.args(["--fleet", &self.url, "--token-file"]).arg(token));
            self.nodes.push(node);
        }
        self.row("nodes, each with dpkg and apt in a root of its own", &count.to_string());
        self
    }

    /// Every agent once, as timers would: fetch, install, report.
    fn round(&self) {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..AT_A_TIME {
                scope.spawn(|| {
                    while let Some(node) = self.nodes.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let ended = run(&mut node.prestage(["run"]));
                        // 0 done, 1 not its turn, 5 gone back: what the rollout is about. Anything else is not.
                        assert!(matches!(ended.code, Some(0 | 1 | 5)), "{ended}");
                    }
                });
            }
        });
    }

    /// Rounds until something holds.
    fn until(&mut self, what: &str, holds: impl Fn(&Fleet) -> bool) {
        let began = Instant::now();
        let mut rounds = 0;
        while !holds(self) {
            assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}\n{:#}", self.rollout());
            self.round();
            rounds += 1;
        }
        self.row(what, &format!("{rounds} rounds, {} s", began.elapsed().as_secs()));
    }

    /// How many nodes have a bundle, as the server knows.
    fn having(&self, bundle: &str) -> usize {
        let page = self.get(&format!("/api/v1/nodes?bundle={bundle}&limit=1"));
        page["total"].as_u64().map_or(0, |total| total as usize)
    }

    /// How many nodes say that their install failed or was taken back.
    fn failed(&self) -> usize {
        let page = self.get("/api/v1/nodes?state=failed&limit=1");
        page["total"].as_u64().map_or(0, |total| total as usize)
    }

    fn rollout(&self) -> Value {
        self.get(&format!("/api/v1/rollouts/{POLICY}"))
    }

    /// What the server answers; null, if it does not.
    fn get(&self, path: &str) -> Value {
        let mut curl = command("curl");
        curl.args([
            "--silent",
            "--max-time",
            "20",
            "--header",
            &format!("Authorization: Bearer {}", self.token),
        ]);
        let answer = run(curl.arg(format!("{}{path}", self.url)));
        serde_json::from_str(&answer.stdout).unwrap_or(Value::Null)
    }

    fn git(&self, args: &[&str]) -> Output {
        let mut git = command("git");
        for who in ["AUTHOR", "COMMITTER"] {
            git.env(format!("GIT_{who}_NAME"), "Operator")
                .env(format!("GIT_{who}_EMAIL"), "operator@example.org");
        }
        run(git.arg("-C").arg(&self.git).args(args)).expect(0)
    }

    fn commit(&self, message: &str, policy: &str) {
        fs::write(self.git.join("tills.yaml"), policy).expect("a policy");
        self.git(&["add", "tills.yaml"]);
        self.git(&["commit", "--quiet", "-m", message]);
    }

    /// A branch, looked at as a pipeline would, and merged.
    fn pull_request(&mut self, message: &str, policy: &str) {
        self.git(&["switch", "--quiet", "--create", "change"]);
        self.commit(message, policy);
        succeed(self.centre.build(["policy", "check"]).arg(&self.git));
        let repository = self.centre.repository();
        let nodes = self.nodes.len().to_string();
        let diff = succeed(
            self.centre.build(["policy", "diff"]).arg(repository).arg(&self.git).args(["--nodes", &nodes]),
        );
        self.row("what the pull request says", diff.lines().next().unwrap_or_default());
        self.git(&["switch", "--quiet", "main"]);
        self.git(&["merge", "--quiet", "--no-ff", "-m", &format!("Merge: {message}"), "change"]);
    }

    fn revert(&self) {
        self.git(&["revert", "--no-edit", "-m", "1", "HEAD"]);
    }

    /// What the pipeline does with main.
    fn publish(&self) {
        let repository = self.centre.repository();
        let mut policy = self.centre.build(["policy", "publish"]);
        policy.arg(&repository).arg(&self.git).args([
            "--nodes",
            &self.nodes.len().to_string(),
            "--by",
            "pipeline",
        ]);
        for key in self.centre.keys("policies") {
            policy.arg("--key").arg(self.centre.key(&key));
        }
        succeed(&mut policy);
        let mut publish = self.centre.build(["publish"]);
        publish.arg(&repository);
        for role in ["snapshot", "timestamp"] {
            publish.arg(format!("--{role}-key")).arg(self.centre.key(role));
        }
        succeed(&mut publish);
    }

    /// The dashboard as an operator sees it now.
    fn picture(&mut self, stage: &str, routes: &[&str]) {
        // The server reads the repository once a second.
        until("the server shows the rollout", MINUTE, || self.rollout().is_object());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo-fleet/pictures.py");
        let mut pictures = command("/usr/bin/python3");
        pictures.arg(script).args([&self.url, &self.token]).arg(&self.pictures);
        for route in routes {
            let name =
                route.trim_start_matches("#/").split(['/', '?']).next().filter(|name| !name.is_empty());
            pictures.arg(format!("{stage}-{}={}", name.unwrap_or("overview"), route.trim_start_matches('#')));
        }
        succeed(&mut pictures);
    }

    fn says(&self, what: &str) {
        eprintln!("[{:4} s] {what}", self.began.elapsed().as_secs());
    }

    fn row(&mut self, what: &str, value: &str) {
        self.says(&format!("{what}: {value}"));
        self.rows.push((what.to_owned(), value.to_owned()));
    }

    /// Nothing was lost and nothing counted twice; then everything ends.
    fn end(mut self, count: usize) {
        let summary = self.get("/api/v1/summary");
        assert_eq!(summary["total"], count as u64, "{summary:#}");
        let mut states: BTreeMap<String, usize> = BTreeMap::new();
        for node in &self.nodes {
            let status = node.status().status;
            assert_eq!(status.reports_queued, 0, "{}: reports wait", status.summary);
            *states.entry(format!("{:?}", status.state)).or_default() += 1;
        }
        self.row("states in the end", &format!("{states:?}"));
        self.row("reports that the server has counted", &summary["reportsToday"].to_string());
        if let Some(server) = self.server.take() {
            let _ = server.kill();
        }
        println!("| the fleet | |\n| --- | --- |");
        for (what, value) in &self.rows {
            println!("| {what} | {value} |");
        }
    }
}

/// Writes the configuration of the server; its URL and the file.
fn configure_server(sandbox: &Sandbox, centre: &Centre) -> (String, PathBuf) {
    // A port that was free a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    drop(listener);
    let mut control = vec![program("prestage-build").to_string_lossy().into_owned()];
    control.extend(["policy", "{action}"].map(str::to_owned));
    control.push(centre.repository().to_string_lossy().into_owned());
    control.extend(["{policy}", "--reason", "{reason}", "--by", "{by}"].map(str::to_owned));
    for key in centre.keys("policies") {
        control.extend(["--key".to_owned(), centre.key(&key).to_string_lossy().into_owned()]);
    }
    for role in ["snapshot", "timestamp"] {
        control.extend([format!("--{role}-key"), centre.key(role).to_string_lossy().into_owned()]);
    }
    let config = sandbox.path().join("fleet.toml");
    let text = format!(
        "[server]\nlisten = \"{address}\"\n[database]\nurl = \"sqlite:{}\"\n[repository]\nlocation = {:?}\nroot = {:?}\n\
         every-seconds = 1\n[control]\ncommand = {control:?}\nsmallest-sample = 5\n[limits]\nrequests = 100000\n\
         enrollments = 100000\n",
        sandbox.path().join("fleet.db").display(),
        centre.repository(),
        centre.repository().join("metadata/1.root.json"),
    );
    fs::write(&config, text).expect("a configuration");
    (format!("http://{address}"), config)
}

fn command_of_fleet(config: &Path, args: &[&str]) -> Command {
    let mut fleet = command(program("prestage-fleet"));
    fleet.arg("--config").arg(config).args(args);
    fleet
}

fn last_word(text: &str) -> String {
    text.split_whitespace().last().unwrap_or_default().to_owned()
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            let _ = server.kill();
        }
    }
}
