//! `make bench-api`: what one server takes, on SQLite and on PostgreSQL, in one run on one machine, with ratios.
//!
//! The server is the real program and the load real documents, each signed by its node's key, over loopback. Whoever makes the
//! load is on the same machine and takes its share of it: documents are signed before anything is measured, and what sends
//! them does little else. Everything has an end: so many requests or seconds.

#[allow(dead_code)]
#[path = "../tests/api/postgres.rs"]
mod postgres;
#[allow(dead_code)]
#[path = "../tests/api/server.rs"]
mod server;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fleet::store::{Location, Store};
use postgres::Cluster;
use server::{Fleet, TestNode, now};

/// Nodes that are registered and report.
const NODES: usize = 10_000;

/// Nodes of the large table.
const MANY: usize = 100_000;

/// Connections that send at the same time.
const CONNECTIONS: usize = 32;

/// How long a steady load lasts.
const STEADY: Duration = Duration::from_secs(20);

/// Documents that a saturated server gets, at most, and for how long.
const FLOOD: usize = 60_000;
const FLOOD_TIME: Duration = Duration::from_secs(15);

/// A connection that is kept open.
struct Line(BufReader<TcpStream>);

impl Line {
    fn open(url: &str) -> Line {
        let stream = TcpStream::connect(url.trim_start_matches("http://")).expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
        Line(BufReader::new(stream))
    }

    /// Sends a request; status and length of the answer.
    fn ask(&mut self, head: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let request = format!("{head}\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        let bytes = [request.as_bytes(), body].concat();
        self.0.get_mut().write_all(&bytes).expect("a request is sent");
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).expect("an answer");
            if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
                status = rest[..3].parse().expect("a status");
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).expect("a body");
        (status, body)
    }

    fn report(&mut self, body: &[u8]) -> u16 {
        self.ask("POST /api/v1/reports HTTP/1.1", body).0
    }
}

/// Times, sorted.
struct Times(Vec<Duration>);

impl Times {
    fn of(mut times: Vec<Duration>) -> Times {
        times.sort_unstable();
        Times(times)
    }

    fn at(&self, percent: usize) -> f64 {
        let at = (self.0.len() * percent / 100).min(self.0.len().saturating_sub(1));
        self.0.get(at).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    }
}

/// What was found, in the order of the table; higher is better for those with `true`.
type Figures = Vec<(&'static str, f64, &'static str)>;

fn nodes() -> Vec<TestNode> {
    let site = |n: usize| format!("{:04}", n / 8);
    (0..NODES)
        .map(|n| TestNode::new(&format!("till-{n:05}"), &[("site", &site(n)), ("role", "till")]))
        .collect()
}

/// Calls `act` with a line and each number below `count`, on many lines at the same time, until `time` is over; how often.
fn spread(
    url: &str,
    count: usize,
    time: Duration,
    act: &(dyn Fn(&mut Line, usize) + Sync),
) -> (usize, Duration) {
    let (next, started) = (AtomicUsize::new(0), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                let mut line = Line::open(url);
                while started.elapsed() < time {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        break;
                    }
                    act(&mut line, n);
                }
            });
        }
    });
    (next.load(Ordering::Relaxed).min(count), started.elapsed())
}

fn measure(fleet: &Fleet, database: &Location, nodes: &[TestNode]) -> Figures {
    let mut figures = Figures::new();
    let url = fleet.url.as_str();
    eprintln!("  enrolling {NODES} nodes");
    let token = fleet.enrollment_token(NODES as u32);
    let enrollments: Vec<Vec<u8>> = nodes.iter().map(|node| node.enrollment(Some(&token))).collect();
    let (_, took) = spread(url, NODES, Duration::from_secs(300), &|line, n| {
        assert_eq!(line.ask("POST /api/v1/enrollments HTTP/1.1", &enrollments[n]).0, 201);
    });
    figures.push(("enrolments, a second", NODES as f64 / took.as_secs_f64(), "/s"));

    eprintln!("  every node once a minute, with somebody looking");
    steady(fleet, nodes, &mut figures);

    eprintln!("  as much as it takes, a document in a request");
    let start = now();
    let batches: Vec<Vec<u8>> = (0..FLOOD)
        .map(|n| {
            let at = start - 1_000_000 + (n / NODES) as i64;
            format::envelope::write_batch(&[nodes[n % NODES].report(at, "upToDate", "v1")])
        })
        .collect();
    let (sent, took) = spread(url, FLOOD, FLOOD_TIME, &|line, n| assert_eq!(line.report(&batches[n]), 200));
    figures.push(("reports, each by itself, a second", sent as f64 / took.as_secs_f64(), "/s"));
    drop(batches);

    eprintln!("  as much as it takes, fifty documents in a request");
    let batches: Vec<Vec<u8>> = (0..FLOOD / 50)
        .map(|n| {
            let of = |k: usize| {
                let n = n * 50 + k;
                nodes[n % NODES].report(start - 2_000_000 + (n / NODES) as i64, "upToDate", "v1")
            };
            format::envelope::write_batch(&(0..50).map(of).collect::<Vec<_>>())
        })
        .collect();
    let (sent, took) = spread(url, batches.len(), FLOOD_TIME, &|line, n| {
        assert_eq!(line.report(&batches[n]), 200);
    });
    figures.push(("reports, in batches of 50, a second", (sent * 50) as f64 / took.as_secs_f64(), "/s"));

    figures.push(("node table of 10,000, first view, median", view(fleet), "ms"));
    eprintln!("  {MANY} nodes");
    fill(database);
    figures.push(("node table of 100,000, first view, median", view(fleet), "ms"));
    let worst = ["sort=-lastSeen", "sort=state", "q=till-1", "state=silent", "label=site%3D0815"];
    let worst = worst.map(|query| Times::of(ask(fleet, &format!("/api/v1/nodes?{query}"), 5)).at(50));
    figures.push(("... the slowest of five sorts and filters", worst.into_iter().fold(0.0, f64::max), "ms"));
    figures.push(("peak memory of the server", fleet.peak_kib() as f64 / 1024.0, "MiB"));
    figures
}

/// A sixtieth of the nodes each second, at even distances, while somebody looks at the overview once a second.
fn steady(fleet: &Fleet, nodes: &[TestNode], figures: &mut Figures) {
    let count = (NODES as f64 / 60.0 * STEADY.as_secs_f64()) as usize;
    let sent = now();
    let batches: Vec<Vec<u8>> = (0..count)
        .map(|n| {
            let node = &nodes[n % NODES];
            let mut envelopes = vec![node.status(sent + (n / NODES) as i64, "upToDate")];
            // One in ten has something to report.
            if n % 10 == 0 {
                envelopes.push(node.report(sent, "installed", "v1"));
            }
            format::envelope::write_batch(&envelopes)
        })
        .collect();
    let (next, started, over) = (AtomicUsize::new(0), Instant::now(), AtomicBool::new(false));
    let (mut ingestion, mut overview) = (Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        let senders: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                scope.spawn(|| {
                    let (mut line, mut times) = (Line::open(&fleet.url), Vec::new());
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        if n >= count {
                            return times;
                        }
                        let due = STEADY.mul_f64(n as f64 / count as f64);
                        std::thread::sleep(due.saturating_sub(started.elapsed()));
                        // From when it was due: a server that stalls makes the next ones late too.
                        assert_eq!(line.report(&batches[n]), 200);
                        times.push(started.elapsed() - due);
                    }
                })
            })
            .collect();
        let looker = scope.spawn(|| {
            let mut times = Vec::new();
            while !over.load(Ordering::Relaxed) {
                times.extend(ask(fleet, "/api/v1/summary", 1));
                std::thread::sleep(Duration::from_millis(300));
            }
            times
        });
        for sender in senders {
            ingestion.extend(sender.join().expect("a sender"));
        }
        over.store(true, Ordering::Relaxed);
        overview = looker.join().expect("a looker");
    });
    let (ingestion, overview) = (Times::of(ingestion), Times::of(overview));
    figures.push(("10,000 once a minute: ingestion, median", ingestion.at(50), "ms"));
    figures.push(("10,000 once a minute: ingestion, p99", ingestion.at(99), "ms"));
    figures.push(("meanwhile the overview, p99", overview.at(99), "ms"));
}

/// How long a GET takes, several times.
fn ask(fleet: &Fleet, path: &str, times: usize) -> Vec<Duration> {
    let mut line = Line::open(&fleet.url);
    let head = format!("GET {path} HTTP/1.1\r\nAuthorization: Bearer {}", fleet.tokens["viewer"]);
    (0..times)
        .map(|_| {
            let started = Instant::now();
            assert_eq!(line.ask(&head, b"").0, 200);
            started.elapsed()
        })
        .collect()
}

fn view(fleet: &Fleet) -> f64 {
    Times::of(ask(fleet, "/api/v1/nodes?limit=100", 21)).at(50)
}

/// Nodes up to [`MANY`], written as enrolment and reports would have left them.
fn fill(database: &Location) {
    use fleet::store::sql::many;
    let store = Store::open(database, 2).expect("the database");
    let now = now();
    for piece in (NODES..MANY).collect::<Vec<_>>().chunks(5000) {
        let names: Vec<String> = piece.iter().map(|n| format!("till-{n:06}")).collect();
        let sites: Vec<String> = piece.iter().map(|n| format!("{:05}", n / 8)).collect();
        let rows = piece.iter().zip(&names).zip(&sites).map(|((n, name), site)| {
            let state = ["upToDate", "staged", "deferred", "failed"][n % 4];
            vec![
                name.into(),
                name.into(),
                "00".into(),
                "active".into(),
                now.into(),
                "bench".into(),
                site.into(),
                "debian-12-amd64".into(),
                format!("{{\"role\":\"till\",\"site\":\"{site}\"}}").into(),
                state.into(),
                "the last bundle is installed, the next is expected on Tuesday at 02:00".into(),
                "20261123-42".into(),
                (now - (*n as i64 % 200_000)).into(),
            ]
        });
        let rows: Vec<_> = rows.collect();
        let labels: Vec<_> = names
            .iter()
            .zip(&sites)
            .flat_map(|(name, site)| {
                [
                    vec![name.into(), "role".into(), "till".into()],
                    vec![name.into(), "site".into(), site.into()],
                ]
            })
            .collect();
        let types = [
            "TEXT", "TEXT", "TEXT", "TEXT", "BIGINT", "TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "TEXT",
            "BIGINT",
        ];
        let before =
            "INSERT INTO nodes (id, key_id, public_key, key_state, enrolled, enrolled_how, site, variant,
                      labels, state, summary, bundle, last_seen) VALUES";
        let written = store.write_now(|sql| {
            many(sql, before, &types, &rows, "")?;
            let before = "INSERT INTO node_labels (node, name, value) VALUES";
            many(sql, before, &["TEXT"; 3], &labels, "").map(drop)
        });
        written.expect("the database");
    }
    // As its own housekeeping would have done by then.
    store.write_now(|sql| sql.batch("ANALYZE")).expect("the database");
    store.close();
}

fn main() {
    // `cargo bench` says --bench; `cargo test --benches` says nothing, and must not take minutes.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let nodes = nodes();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    eprintln!(
        "on {cores} cores, which were busy with {} others before",
        load.split(' ').next().unwrap_or("?")
    );
    eprintln!("SQLite");
    let fleet = Fleet::start(None, "");
    let file = Location::File(fleet.folder.path().join("fleet.db"));
    let sqlite = measure(&fleet, &file, &nodes);
    drop(fleet);
    eprintln!("PostgreSQL");
    let cluster = Cluster::start();
    let url = cluster.database("fleet");
    let fleet = Fleet::start(Some(&url), "");
    let postgres = measure(&fleet, &Location::Server { url, ca_file: None }, &nodes);
    drop(fleet);
    println!("\n| {:<45} | {:>14} | {:>14} | {:>10} |", "", "SQLite", "PostgreSQL", "ratio");
    println!("| {:-<45} | {:->13}: | {:->13}: | {:->9}: |", "", "", "", "");
    for ((what, one, unit), (_, other, _)) in sqlite.into_iter().zip(postgres) {
        let digits = usize::from(one < 100.0);
        let ratio = other / one;
        println!(
            "| {what:<45} | {one:>9.digits$} {unit:<4} | {other:>9.digits$} {unit:<4} | {ratio:>10.2} |"
        );
    }
}
