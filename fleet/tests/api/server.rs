//! A fleet server, as its users see it: the real program with a configuration of its own, asked over HTTP. Or several of
//! them at one database, which are asked in turn.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use format::digest::Sha256;
use format::node_key::NodeKey;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A request may take so long on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_prestage-fleet");

/// A running server.
pub struct Fleet {
    /// What it has for itself.
    pub folder: TempDir,
    servers: Vec<(Child, String)>,
    /// How many there are to be.
    count: usize,
    /// Whose turn it is.
    turn: AtomicUsize,
    /// Where it listens; the first, of several.
    pub url: String,
    /// Tokens by role.
    pub tokens: BTreeMap<&'static str, String>,
    /// What asks.
    pub agent: ureq::Agent,
    /// The process that [`Fleet::strike`] kills, if it is not the server.
    pub victim: Option<u32>,
    /// Everything that was asked and answered, for whoever compares it with the description.
    pub exchanges: Mutex<Vec<Value>>,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    /// Status.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Body.
    pub body: Vec<u8>,
}

impl Reply {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {} {}", self.status, String::from_utf8_lossy(&self.body)))
    }

    /// The body as JSON, of an answer with this status.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        if self.body.is_empty() { Value::Null } else { self.json() }
    }
}

/// A request in the making.
pub struct Ask<'f> {
    fleet: &'f Fleet,
    url: String,
    method: &'static str,
    path: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl Ask<'_> {
    /// With a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With a token of this role.
    pub fn with(self, role: &str) -> Self {
        let token = format!("Bearer {}", self.fleet.tokens[role]);
        self.header("Authorization", &token)
    }

    /// With a JSON body.
    pub fn json(self, body: &Value) -> Self {
        self.header("Content-Type", "application/json").bytes(body.to_string().into_bytes())
    }

    /// With a body.
    pub fn bytes(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// To this server, and no other.
    pub fn at(mut self, server: usize) -> Self {
        self.url.clone_from(&self.fleet.servers[server].1);
        self
    }

    /// Sends it.
    pub fn send(self) -> Reply {
        self.try_send().unwrap_or_else(|e| panic!("no answer: {e}"))
    }

    /// Sends it to a server that may not be there.
    pub fn try_send(self) -> Result<Reply, ureq::Error> {
        let mut request =
            ureq::http::Request::builder().method(self.method).uri(format!("{}{}", self.url, self.path));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let body = self.body.unwrap_or_default();
        let mut response = if matches!(self.method, "GET" | "DELETE") {
            self.fleet.agent.run(request.body(()).expect("a request"))?
        } else {
            self.fleet.agent.run(request.body(body).expect("a request"))?
        };
        let headers = response
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()));
        let headers: BTreeMap<String, String> = headers.collect();
        let body = response.body_mut().with_config().limit(256 * 1024 * 1024).read_to_vec()?;
        let reply = Reply { status: response.status().as_u16(), headers, body };
        let path = self.path.split('?').next().unwrap_or_default().to_owned();
        self.fleet.exchanges.lock().expect("no panic").push(json!({
            "method": self.method,
            "path": path,
            "status": reply.status,
            "type": reply.headers.get("content-type"),
            "body": serde_json::from_slice::<Value>(&reply.body).ok(),
        }));
        Ok(reply)
    }
}

impl Fleet {
    /// A server with a database at `url`, or SQLite in its own folder, and this in its configuration.
    pub fn start(database: Option<&str>, more: &str) -> Fleet {
        Fleet::start_several(1, database, more)
    }

    /// So many at one database, which requests go to in turn, as a load balancer has it.
    pub fn start_several(count: usize, database: Option<&str>, more: &str) -> Fleet {
        let folder = tempfile::Builder::new().prefix("prestage-fleet-").tempdir().expect("a folder");
        let sqlite = format!("sqlite:{}", folder.path().join("fleet.db").display());
        let url = database.unwrap_or(&sqlite);
        let config = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nrequest-timeout-seconds = 5\nnumbers-seconds = 0\n[limits]\nrequests = 0\nenrollments = 0\n[database]\nurl = \"{url}\"\n{more}"
        );
        std::fs::write(folder.path().join("fleet.toml"), config).expect("a file");
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(PATIENCE))
            .build();
        let mut fleet = Fleet {
            folder,
            servers: Vec::new(),
            count,
            turn: AtomicUsize::new(0),
            url: String::new(),
            tokens: BTreeMap::new(),
            agent: ureq::Agent::new_with_config(agent),
            victim: None,
            exchanges: Mutex::default(),
        };
        for role in ["viewer", "operator", "admin"] {
            let token = fleet.run(&["token", "new", "--name", role, "--role", role]);
            fleet.tokens.insert(role, token.trim().to_owned());
        }
        fleet.up();
        fleet
    }

    /// Its configuration.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("fleet.toml")
    }

    /// A command of the program beside the server, that must succeed; what it printed.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("prestage-fleet");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// A command of the program.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("--config").arg(self.config()).args(arguments);
        command
    }

    /// Starts the server, and waits until it listens.
    pub fn up(&mut self) {
        while self.servers.len() < self.count {
            let server = self.start_one();
            self.servers.push(server);
        }
        self.url.clone_from(&self.servers[0].1);
    }

    fn start_one(&self) -> (Child, String) {
        let path = self.folder.path().join("log");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(path).expect("a log");
        let mut server =
            self.command(&["serve"]).stdout(Stdio::piped()).stderr(log).spawn().expect("prestage-fleet");
        let mut line = String::new();
        let stdout = server.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let url = line.trim().strip_prefix("listening on ");
        let url = url.unwrap_or_else(|| panic!("{line:?}: {}", self.log())).to_owned();
        (server, url)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Kills it as a power cut would.
    pub fn kill(&mut self) {
        for (mut server, _) in self.servers.drain(..) {
            server.kill().expect("kill");
            server.wait().expect("wait");
        }
    }

    /// Kills the first of several; the others go on.
    pub fn drop_first(&mut self) {
        self.signal("KILL", self.id());
        self.servers.remove(0).0.wait().expect("wait");
        self.url.clone_from(&self.servers[0].1);
    }

    /// The process of the first one.
    pub fn id(&self) -> u32 {
        self.servers.first().expect("a server").0.id()
    }

    /// Kills the victim while others are using the server.
    pub fn strike(&self) {
        self.signal("KILL", self.victim.unwrap_or_else(|| self.id()));
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str, process: u32) {
        let sent =
            Command::new("kill").args([&format!("-{name}"), &process.to_string()]).status().expect("kill");
        assert!(sent.success());
    }

    /// Tells it to end, and waits until it has.
    pub fn end(&mut self) -> std::process::ExitStatus {
        self.signal("TERM", self.id());
        let (mut server, _) = self.servers.remove(0);
        server.wait().expect("wait")
    }

    /// Its peak memory, in KiB.
    pub fn peak_kib(&self) -> u64 {
        let status = std::fs::read_to_string(Path::new("/proc").join(self.id().to_string()).join("status"));
        let status = status.expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
        line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
    }

    fn ask(&self, method: &'static str, path: &str) -> Ask<'_> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let url =
            self.servers.get(turn % self.servers.len().max(1)).map_or(&self.url, |(_, url)| url).clone();
        Ask { fleet: self, url, method, path: path.into(), headers: Vec::new(), body: None }
    }

    /// GET
    pub fn get(&self, path: &str) -> Ask<'_> {
        self.ask("GET", path)
    }

    /// POST
    pub fn post(&self, path: &str) -> Ask<'_> {
        self.ask("POST", path)
    }

    /// PUT
    pub fn put(&self, path: &str) -> Ask<'_> {
        self.ask("PUT", path)
    }

    /// DELETE
    pub fn delete(&self, path: &str) -> Ask<'_> {
        self.ask("DELETE", path)
    }

    /// A GET of a viewer that must succeed.
    #[track_caller]
    pub fn look(&self, path: &str) -> Value {
        self.get(path).with("viewer").send().expect(200)
    }

    /// Envelopes as a node sends them.
    pub fn send(&self, envelopes: &[Vec<u8>]) -> Reply {
        self.post("/api/v1/reports").bytes(format::envelope::write_batch(envelopes)).send()
    }

    /// A token for enrolment, made by an operator.
    pub fn enrollment_token(&self, uses: u32) -> String {
        let wanted = json!({"kind": "enrollment", "name": "test", "uses": uses});
        let made = self.post("/api/v1/tokens").with("operator").json(&wanted).send().expect(201);
        made["token"].as_str().expect("a token").to_owned()
    }

    /// A node that has enrolled.
    #[track_caller]
    pub fn enrolled(&self, name: &str, labels: &[(&str, &str)]) -> TestNode {
        let node = TestNode::new(name, labels);
        let token = self.enrollment_token(1);
        self.post("/api/v1/enrollments").bytes(node.enrollment(Some(&token))).send().expect(201);
        node
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A node's words and key, without a node.
pub struct TestNode {
    /// Its id.
    pub name: String,
    /// Its key.
    pub key: NodeKey,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A time for documents: the present, so that no clock is wrong.
pub fn now() -> i64 {
    fleet::app::now()
}

fn time(seconds: i64) -> String {
    format::time::UnixTime(seconds).to_string()
}

impl TestNode {
    /// A node whose key follows from its name.
    pub fn new(name: &str, labels: &[(&str, &str)]) -> TestNode {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let key = NodeKey::from_seed(Sha256::of(name.as_bytes()).0);
        TestNode { name: name.into(), key, labels }
    }

    /// An envelope around a document.
    pub fn seal(&self, document: &Value) -> Vec<u8> {
        self.key.seal(document.to_string().as_bytes()).expect("strict JSON")
    }

    /// Its enrolment.
    pub fn enrollment(&self, token: Option<&str>) -> Vec<u8> {
        let mut document = json!({
            "apiVersion": "patchmgmt.io/v1",
            "kind": "NodeEnrollment",
            "node": self.name,
            "publicKey": self.key.public(),
            "variant": "debian-12-amd64",
            "labels": self.labels,
            "sentAt": time(now()),
        });
        if let Some(site) = self.labels.get("site") {
            document["site"] = site.as_str().into();
        }
        if let Some(token) = token {
            document["token"] = token.into();
        }
        self.seal(&document)
    }

    /// A report, as a document.
    pub fn report_document(&self, at: i64, outcome: &str, bundle: &str) -> Value {
        let step = match outcome {
            "staged" | "upToDate" | "integrityFailure" | "trustFailure" => "fetch",
            _ => "install",
        };
        let message = format!("{outcome} {bundle} at {at}");
        let parsed =
            if step == "fetch" { format::report::Step::Fetch } else { format::report::Step::Install };
        let node = self.name.parse().expect("a name");
        let id = format::report::Report::make_id(&node, format::time::UnixTime(at), None, parsed, &message);
        json!({
            "apiVersion": "patchmgmt.io/v1",
            "kind": "NodeReport",
            "id": id,
            "node": self.name,
            "at": time(at),
            "variant": "debian-12-amd64",
            "step": step,
            "outcome": outcome,
            "exitCode": 0,
            "message": message,
            "bundle": bundle_ref(bundle),
            "changes": [],
            "inventory": Sha256::of(bundle.as_bytes()),
            "seconds": 10,
            "bytesReceived": 1000,
            "bytesFromSite": 10,
        })
    }

    /// A report.
    pub fn report(&self, at: i64, outcome: &str, bundle: &str) -> Vec<u8> {
        self.seal(&self.report_document(at, outcome, bundle))
    }

    /// A status, as a document.
    pub fn status_document(&self, sent: i64, state: &str) -> Value {
        json!({
            "apiVersion": "patchmgmt.io/v1",
            "kind": "NodeStatus",
            "metadata": {"name": self.name, "labels": self.labels},
            "status": {
                "updatedAt": time(sent),
                "agentVersion": "0.1.0",
                "variant": "debian-12-amd64",
                "state": state,
                "summary": format!("it is {state}"),
                "quarantine": [],
                "rebootRequired": false,
                "reportsQueued": 0,
            },
            "sentAt": time(sent),
        })
    }

    /// A status.
    pub fn status(&self, sent: i64, state: &str) -> Vec<u8> {
        self.seal(&self.status_document(sent, state))
    }
}

/// A bundle, as documents name it.
pub fn bundle_ref(version: &str) -> Value {
    json!({
        "version": version,
        "cycle": "2026-11",
        "serial": 1,
        "index": Sha256::of(format!("index of {version}").as_bytes()),
    })
}
