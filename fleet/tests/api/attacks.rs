//! Every attack on the API that must fail, and the table of how each of them ended: `make attacks-api`.
//!
//! The server has one node and its report. An attack is made; the server must answer as said, and afterwards the node table,
//! the numbers and the audit log must be what they were, and an honest node must be heard.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::server::{Fleet, Reply, TestNode, now};

/// A slow client must be cut off by then.
const CUT_OFF: Duration = Duration::from_secs(25);

/// What is attacked.
struct Stage {
    fleet: Fleet,
    node: TestNode,
    other: TestNode,
    /// A report of `node` that was accepted, and its time.
    report: Vec<u8>,
    at: i64,
}

/// What the attacker saw.
enum Seen {
    /// An answer.
    Reply(Reply),
    /// The connection was closed without one, after so long.
    Closed(Duration),
}

impl From<Reply> for Seen {
    fn from(reply: Reply) -> Self {
        Seen::Reply(reply)
    }
}

/// One attack: by whom, how, the statuses of which one must be answered (0: the connection is closed), and words of the
/// answer.
struct Attack {
    name: &'static str,
    how: &'static str,
    status: u16,
    says: &'static str,
    act: fn(&Stage) -> Seen,
}

const fn attack(
    name: &'static str,
    how: &'static str,
    status: u16,
    says: &'static str,
    act: fn(&Stage) -> Seen,
) -> Attack {
    Attack { name, how, status, says, act }
}

fn attacks() -> Vec<Attack> {
    let mut all = forgeries();
    all.extend(floods());
    all.extend(outsiders());
    all.extend(injections());
    all
}

fn forgeries() -> Vec<Attack> {
    vec![
        attack("replay", "a report that was accepted, again", 200, "accepted", |s| {
            s.fleet.send(std::slice::from_ref(&s.report)).into()
        }),
        attack("replay", "an old status, to make a node look well", 200, "accepted", |s| {
            s.fleet.send(&[s.node.status(s.at - 90_000, "upToDate")]).into()
        }),
        attack("replay", "a revoked node's enrolment", 403, "revoked", |s| {
            let gone = s.fleet.enrolled("gone", &[]);
            let reason = json!({"reason": "a test"});
            s.fleet.post("/api/v1/nodes/gone/revoke").with("operator").json(&reason).send().expect(200);
            s.fleet.post("/api/v1/enrollments").bytes(gone.enrollment(None)).send().into()
        }),
        attack("forged", "a bit of a signed report changed", 200, "\"accepted\":[]", |s| {
            let report = s.node.report(s.at + 1, "installed", "v9");
            let text = String::from_utf8(report).expect("UTF-8").replace("installed v9", "installed v8");
            s.fleet.send(&[text.into_bytes()]).into()
        }),
        attack("forged", "no signature at all", 200, "exactly one signature", |s| {
            let document =
                json!({"signed": s.node.report_document(s.at, "installed", "v9"), "signatures": []});
            s.fleet.send(&[document.to_string().into_bytes()]).into()
        }),
        attack(
            "forged",
            "the id that another report will have",
            200,
            "its id is not that of its content",
            |s| {
                let mut document = s.node.report_document(s.at + 5, "installed", "v9");
                document["id"] = s.other.report_document(s.at + 9, "installed", "v9")["id"].clone();
                s.fleet.send(&[s.node.seal(&document)]).into()
            },
        ),
        attack(
            "forged",
            "an enrolment signed by another key than it names",
            400,
            "signed by another key",
            |s| {
                let mut document: Value = serde_json::from_slice(&s.other.enrollment(None)).expect("JSON");
                document["signed"]["node"] = "till-7".into();
                s.fleet.post("/api/v1/enrollments").bytes(s.node.seal(&document["signed"])).send().into()
            },
        ),
        attack(
            "wrong node",
            "a node speaks for another, with its own key",
            200,
            "another key than that of",
            |s| {
                let document = s.node.status_document(s.at + 5, "needsPerson");
                s.fleet.send(&[s.other.seal(&document)]).into()
            },
        ),
        attack("wrong node", "another key for a node that has one", 409, "another key is enrolled", |s| {
            let mut thief = TestNode::new("thief", &[]);
            thief.name = s.node.name.clone();
            let token = s.fleet.enrollment_token(1);
            s.fleet.post("/api/v1/enrollments").bytes(thief.enrollment(Some(&token))).send().into()
        }),
        attack("wrong node", "a set of packages that the node does not have", 403, "has not said", |s| {
            let empty = format::inventory::Inventory::default();
            let name = s.other.name.parse().expect("a name");
            let sent = format::envelope::NodeInventory::new(name, &empty, format::time::UnixTime(s.at));
            let sealed = s.other.key.seal(&serde_json::to_vec(&sent).expect("JSON")).expect("JSON");
            s.fleet.put(&format!("/api/v1/inventories/{}", empty.digest())).bytes(sealed).send().into()
        }),
        attack("unknown node", "a report of a key that nobody enrolled", 401, "is enrolled here", |s| {
            s.fleet.send(&[TestNode::new("till-7", &[]).status(s.at, "upToDate")]).into()
        }),
    ]
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(content).expect("memory");
    encoder.finish().expect("memory")
}

fn floods() -> Vec<Attack> {
    vec![
        attack("oversized", "a body that says 5 GiB", 413, "longer than", |s| {
            raw(s, b"POST /api/v1/reports HTTP/1.1\r\nHost: x\r\nContent-Length: 5368709120\r\n\r\n{")
        }),
        attack("oversized", "5 MiB in chunks, of no said length", 413, "longer than", |s| {
            let mut request =
                b"POST /api/v1/reports HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            for _ in 0..5 {
                request.extend(b"100000\r\n");
                request.extend(vec![b' '; 1024 * 1024]);
                request.extend(b"\r\n");
            }
            raw(s, &request)
        }),
        attack("oversized", "501 documents", 400, "more than 500", |s| {
            s.fleet.send(&vec![b"{}".to_vec(); 501]).into()
        }),
        attack("oversized", "a head without end", 431, "", |s| {
            let mut request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n".to_vec();
            for n in 0..4000 {
                request.extend(format!("X-{n}: xxxxxxxxxxxxxxxx\r\n").into_bytes());
            }
            raw(s, &request)
        }),
        attack("gzip bomb", "1 GiB of zeros in 1 MiB", 413, "longer than", |s| {
            let bomb = gzip(&vec![0; 1024 * 1024 * 1024]);
            s.fleet.post("/api/v1/reports").header("Content-Encoding", "gzip").bytes(bomb).send().into()
        }),
        attack("malformed", "gzip that is none", 400, "gzip", |s| {
            s.fleet
                .post("/api/v1/reports")
                .header("Content-Encoding", "gzip")
                .bytes(b"x".to_vec())
                .send()
                .into()
        }),
        attack("malformed", "no JSON", 400, "no batch", |s| {
            s.fleet.post("/api/v1/reports").bytes(b"\xff\xfe{".to_vec()).send().into()
        }),
        attack("malformed", "a key that stands twice", 400, "twice", |s| {
            s.fleet
                .post("/api/v1/reports")
                .bytes(br#"{"documents":[],"documents":[]}"#.to_vec())
                .send()
                .into()
        }),
        attack("malformed", "a hundred thousand brackets", 400, "recursion", |s| {
            let body = format!("{{\"documents\":{}", "[".repeat(100_000));
            s.fleet.post("/api/v1/reports").bytes(body).send().into()
        }),
        attack("malformed", "a NUL, which PostgreSQL cannot hold, in a signed report", 200, "NUL", |s| {
            let mut document = s.node.status_document(s.at + 60, "failed");
            document["status"]["summary"] = "a\0b".into();
            s.fleet.send(&[s.node.seal(&document)]).into()
        }),
        attack("malformed", "no HTTP", 400, "", |s| raw(s, b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")),
        attack("smuggled", "two lengths", 400, "", |s| {
            let request = b"POST /api/v1/reports HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 9\r\n\r\n{}";
            raw(s, request)
        }),
        attack("slow", "a head, a byte a second", 0, "", |s| {
            slow(s, b"GET /api/v1/summary HTTP/1.1\r\nHost: x\r\nX: ")
        }),
        attack("slow", "a body that never comes", 408, "in time", |s| {
            raw(s, b"POST /api/v1/reports HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        }),
    ]
}

fn outsiders() -> Vec<Attack> {
    vec![
        attack("unauthenticated", "the node table without a token", 401, "needs a token", |s| {
            s.fleet.get("/api/v1/nodes").send().into()
        }),
        attack("unauthenticated", "metrics without a token", 401, "needs a token", |s| {
            s.fleet.get("/metrics").send().into()
        }),
        attack("unauthenticated", "a guessed token", 401, "does not count", |s| {
            let token = format!("Bearer pf_{}", "0".repeat(64));
            s.fleet.get("/api/v1/nodes").header("Authorization", &token).send().into()
        }),
        attack("unauthenticated", "the digest of a token as the token", 401, "does not count", |s| {
            let digest = format::digest::Sha256::of(s.fleet.tokens["admin"].as_bytes());
            let token = format!("Bearer {digest}");
            s.fleet.get("/api/v1/nodes").header("Authorization", &token).send().into()
        }),
        attack("unauthenticated", "a token for enrolment as an operator's", 401, "does not count", |s| {
            let token = format!("Bearer {}", s.fleet.enrollment_token(1));
            s.fleet.get("/api/v1/nodes").header("Authorization", &token).send().into()
        }),
        attack("unauthenticated", "a proxy's headers, from nobody's proxy", 401, "needs a token", |s| {
            let request = s.fleet.get("/api/v1/nodes").header("X-Forwarded-User", "root");
            request.header("X-Forwarded-Groups", "admin").send().into()
        }),
        attack("viewer", "halts a rollout", 403, "needs the role operator", |s| {
            let reason = json!({"reason": "for fun"});
            s.fleet.post("/api/v1/rollouts/ops/tills/halt").with("viewer").json(&reason).send().into()
        }),
        attack("viewer", "revokes a node", 403, "needs the role operator", |s| {
            let reason = json!({"reason": "for fun"});
            s.fleet.post("/api/v1/nodes/till-1/revoke").with("viewer").json(&reason).send().into()
        }),
        attack("operator", "makes itself an admin", 403, "made by an admin", |s| {
            let wanted = json!({"kind": "operator", "name": "me", "role": "admin"});
            s.fleet.post("/api/v1/tokens").with("operator").json(&wanted).send().into()
        }),
        attack("CSRF", "another site's page, with the operator's cookie", 403, "X-Prestage-Csrf", |s| {
            let reason = json!({"reason": "for fun"});
            s.fleet
                .post("/api/v1/nodes/till-1/revoke")
                .header("Cookie", &cookie(s))
                .json(&reason)
                .send()
                .into()
        }),
        attack("CSRF", "the same, with the header and the browser's word", 403, "own page", |s| {
            let reason = json!({"reason": "for fun"});
            let request = s.fleet.post("/api/v1/nodes/till-1/revoke").header("Cookie", &cookie(s));
            let request = request.header("X-Prestage-Csrf", "1").header("Sec-Fetch-Site", "cross-site");
            request.json(&reason).send().into()
        }),
        attack("CSRF", "may another origin send the header?", 405, "", |s| {
            let request = b"OPTIONS /api/v1/nodes/till-1/revoke HTTP/1.1\r\nHost: x\r\nOrigin: https://evil.example\r\n\
                            Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: x-prestage-csrf\r\n\
                            Connection: close\r\n\r\n";
            raw(s, request)
        }),
    ]
}

fn cookie(stage: &Stage) -> String {
    let login =
        stage.fleet.post("/api/v1/session").json(&json!({"token": stage.fleet.tokens["operator"]})).send();
    login.headers["set-cookie"].split(';').next().expect("a cookie").to_owned()
}

fn injections() -> Vec<Attack> {
    const SCRIPT: &str = "<script>alert(1)</script><img src=x onerror=alert(2)>";
    vec![
        attack("XSS", "a script for a node's name", 400, "node id", |s| {
            let mut evil = TestNode::new("evil", &[]);
            evil.name = SCRIPT.into();
            let token = s.fleet.enrollment_token(1);
            s.fleet.post("/api/v1/enrollments").bytes(evil.enrollment(Some(&token))).send().into()
        }),
        attack("XSS", "a script in a message: JSON that no browser takes for a page", 200, "alert(1)", |s| {
            let evil = s.fleet.enrolled("gone-2", &[("note", SCRIPT)]);
            let mut status = evil.status_document(s.at, "failed");
            status["status"]["summary"] = SCRIPT.into();
            s.fleet.send(&[evil.seal(&status)]).expect(200);
            let reply = s.fleet.get("/api/v1/nodes/gone-2").with("viewer").send();
            assert_eq!(reply.headers["content-type"], "application/json");
            assert_eq!(reply.headers["x-content-type-options"], "nosniff");
            assert!(reply.headers["content-security-policy"].starts_with("default-src 'self';"));
            let reason = json!({"reason": "a test"});
            s.fleet.post("/api/v1/nodes/gone-2/revoke").with("operator").json(&reason).send().expect(200);
            reply.into()
        }),
        attack("XSS", "a script in an address", 404, "", |s| {
            let reply = s.fleet.get("/%3Cscript%3Ealert(1)%3C/script%3E").send();
            assert_eq!(reply.headers["content-type"], "application/problem+json");
            reply.into()
        }),
        attack("SQL", "in the search", 200, "\"total\":0", |s| {
            s.fleet
                .get("/api/v1/nodes?q='%20OR%201=1;%20DROP%20TABLE%20nodes;--")
                .with("viewer")
                .send()
                .into()
        }),
        attack("SQL", "in a column to sort by", 400, "no column", |s| {
            s.fleet.get("/api/v1/nodes?sort=id;DROP%20TABLE%20nodes").with("viewer").send().into()
        }),
        attack("SQL", "in a cursor", 200, "\"total\":2", |s| {
            let cursor = format::digest::hex(br#"["' OR 1=1 --","zzz"]"#);
            s.fleet.get(&format!("/api/v1/nodes?cursor={cursor}")).with("viewer").send().into()
        }),
        attack("SQL", "in a label", 200, "\"total\":0", |s| {
            s.fleet.get("/api/v1/nodes?label=x'%20OR%20''='%3Dy").with("viewer").send().into()
        }),
        attack("SQL", "in a node's id", 404, "", |s| {
            s.fleet.get("/api/v1/nodes/x'%20OR%20'1'='1").with("viewer").send().into()
        }),
        attack("path traversal", "out of the dashboard", 404, "", |s| {
            raw(s, b"GET /../../../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        }),
        attack("path traversal", "the same, in disguise", 404, "", |s| {
            s.fleet.get("/..%2f..%2f..%2fetc%2fpasswd").send().into()
        }),
        attack("path traversal", "a policy's name that is a path", 404, "", |s| {
            let reason = json!({"reason": "for fun"});
            let path = "/api/v1/rollouts/ops/..%2f..%2fetc/halt";
            s.fleet.post(path).with("operator").json(&reason).send().into()
        }),
        attack("argument injection", "a policy's name that is an option", 404, "", |s| {
            let reason = json!({"reason": "for fun"});
            s.fleet.post("/api/v1/rollouts/--keys/x/halt").with("operator").json(&reason).send().into()
        }),
    ]
}

/// Sends bytes as they are, and reads what comes until the end.
fn raw(stage: &Stage, request: &[u8]) -> Seen {
    let started = Instant::now();
    let address = stage.fleet.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(CUT_OFF)).expect("a socket");
    // It may close before it has read everything.
    let _ = stream.write_all(request);
    let mut piece = [0; 1024];
    let length = stream.read(&mut piece).unwrap_or(0);
    let mut answer = piece[..length].to_vec();
    // Not before it answers: who says no more may be taken for one who has gone.
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.read_to_end(&mut answer);
    parse(&answer, started.elapsed())
}

/// A byte a second, until it is cut off.
fn slow(stage: &Stage, begin: &[u8]) -> Seen {
    let started = Instant::now();
    let address = stage.fleet.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(1))).expect("a socket");
    let mut answer = Vec::new();
    let mut open = stream.write_all(begin).is_ok();
    while open && started.elapsed() < CUT_OFF {
        open = stream.write_all(b"x").is_ok();
        let mut piece = [0; 1024];
        match stream.read(&mut piece) {
            Ok(0) => open = false,
            Ok(length) => answer.extend_from_slice(&piece[..length]),
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => open = false,
        }
    }
    assert!(!open, "it was not cut off in {CUT_OFF:?}");
    parse(&answer, started.elapsed())
}

fn parse(answer: &[u8], took: Duration) -> Seen {
    let text = String::from_utf8_lossy(answer).into_owned();
    let status =
        text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
    let Some(status) = status else { return Seen::Closed(took) };
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let headers = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    Seen::Reply(Reply { status, headers, body: body.as_bytes().to_vec() })
}

/// What must be the same afterwards.
fn image(fleet: &Fleet) -> Value {
    let mut nodes = fleet.look("/api/v1/nodes")["items"].clone();
    for node in nodes.as_array_mut().expect("a list") {
        // Being heard of is no change; what was heard is.
        node.as_object_mut().expect("a row").remove("lastSeen");
    }
    let summary = fleet.look("/api/v1/summary");
    json!([nodes, summary["states"], summary["reportsToday"], summary["quarantined"]])
}

#[test]
fn every_attack_on_the_api_is_refused_and_changes_nothing() {
    let fleet = Fleet::start(None, "");
    let node = fleet.enrolled("till-1", &[("site", "0815")]);
    let other = fleet.enrolled("till-2", &[]);
    let at = now();
    let report = node.report(at, "installed", "v1");
    fleet.send(&[report.clone(), node.status(at, "failed")]).expect(200);
    let stage = Stage { fleet, node, other, report, at };
    let mut faults = Vec::new();
    println!("{:<20} {:<62} {:>8}  answer", "attack", "how", "ended");
    for (n, attack) in attacks().into_iter().enumerate() {
        let before = image(&stage.fleet);
        let seen = (attack.act)(&stage);
        let (status, said) = match &seen {
            Seen::Reply(reply) => (reply.status, String::from_utf8_lossy(&reply.body).into_owned()),
            Seen::Closed(took) => (0, format!("closed after {:.0} s", took.as_secs_f64())),
        };
        let ended = if status == 0 { "closed".to_owned() } else { status.to_string() };
        let short: String = said.chars().take(90).collect();
        println!("{:<20} {:<62} {ended:>8}  {short}", attack.name, attack.how);
        let mut fault = |why: String| faults.push(format!("{}: {}: {why}", attack.name, attack.how));
        if status != attack.status || !said.contains(attack.says) {
            fault(format!("{ended} {said}; expected {} with {:?}", attack.status, attack.says));
        }
        if said.contains("root:x:") || said.to_lowercase().contains("sqlite") || said.contains("SELECT") {
            fault(format!("it tells too much: {said}"));
        }
        let after = image(&stage.fleet);
        if before != after {
            fault(format!("the fleet has changed:\n{before}\n{after}"));
        }
        // The honest are heard as before.
        let honest = stage.other.status(stage.at + n as i64, "upToDate");
        stage.fleet.send(&[honest]).expect(200);
    }
    assert!(stage.fleet.log().lines().all(|line| !line.contains("panicked")), "{}", stage.fleet.log());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    // A bomb that was inflated would be seen here.
    assert!(stage.fleet.peak_kib() < 400_000, "{} KiB", stage.fleet.peak_kib());
}

#[test]
fn too_many_requests_of_one_address_are_told_to_come_again() {
    let fleet = Fleet::start(None, "");
    let config = std::fs::read_to_string(fleet.config()).expect("a file");
    let mut fleet = fleet;
    fleet.kill();
    std::fs::write(fleet.config(), config.replace("requests = 0", "requests = 30")).expect("a file");
    fleet.up();
    let replies: Vec<Reply> = (0..40).map(|_| fleet.get("/healthz").send()).collect();
    let refused = replies.iter().find(|reply| reply.status == 429).expect("a limit");
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(replies[0].status, 200);
}
