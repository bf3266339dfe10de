//! `prestage share`: what it gives, to whom, and what it does not.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use format::digest::Sha256;
use lab::measure::peak_kib;
use lab::sandbox::{Sandbox, command, program, run};
use lab::site::Sharer;

/// What the agent may take, twice of that for the one that is not optimised.
const MEMORY_KIB: u64 = 12 * 1024;

/// A node that shares, and its store.
struct Sharing {
    sharer: Sharer,
    store: std::path::PathBuf,
    sandbox: Sandbox,
}

impl Sharing {
    fn start(more: &str) -> Sharing {
        let sandbox = Sandbox::new();
        let store = sandbox.path().join("var/lib/prestage/fetch/store");
        fs::create_dir_all(&store).expect("a store");
        fs::create_dir_all(sandbox.path().join("etc/prestage")).expect("a folder");
        let text =
            format!("node = {{ id = 'till-1', variant = 'debian-12-amd64' }}\n[share]\nserve = true\n{more}");
        fs::write(sandbox.path().join("etc/prestage/agent.toml"), text).expect("a configuration");
        let listener = TcpListener::bind("127.0.0.2:0").expect("a port");
        Sharing { sharer: Sharer::start(sandbox.path(), listener), store, sandbox }
    }

    fn put(&self, content: &[u8]) -> Sha256 {
        let digest = Sha256::of(content);
        fs::write(self.store.join(digest.to_string()), content).expect("content");
        digest
    }
}

#[test]
fn whole_content_is_given_by_its_hash_and_in_parts() {
    let node = Sharing::start("");
    let content: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    let digest = node.put(&content);
    let target = format!("/content/{digest}");
    let (status, head, body) = node.sharer.get(&target, "");
    assert!(status == 200 && body == content, "{head}");
    assert!(
        head.contains(&format!("ETag: \"{digest}\"")) && head.contains("application/octet-stream"),
        "{head}"
    );
    let (status, head, body) = node.sharer.get(&target, "Range: bytes=700000-\r\n");
    assert!(status == 206 && body == content[700_000..], "{head}");
    assert!(head.contains("Content-Range: bytes 700000-799999/800000"), "{head}");
    assert_eq!(node.sharer.get(&target, "Range: bytes=800000-\r\n").0, 416);
    let answer = node.sharer.ask(format!("HEAD {target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.contains("Content-Length: 800000") && answer.ends_with("\r\n\r\n"), "{answer}");
    let other = Sha256::of(b"nobody has this");
    let (status, _, body) = node.sharer.get(&format!("/have/{digest},{other}"), "");
    let text = String::from_utf8_lossy(&body).into_owned();
    assert!(status == 200 && text.ends_with("\nwhole\nnone\n"), "{text}");
    assert!(peak_kib(&node.sharer.child) <= MEMORY_KIB, "{} KiB", peak_kib(&node.sharer.child));
}

#[test]
fn nothing_is_given_that_is_not_whole_and_nothing_else_of_the_node() {
    let node = Sharing::start("");
    let partial = Sha256::of(b"partial");
    for name in ["partial", "peer.partial", "gz.partial"] {
        fs::write(node.store.join(format!("{partial}.{name}")), "part").expect("a file");
    }
    let secret = node.sandbox.path().join("secret");
    fs::write(&secret, "secret").expect("a file");
    let link = Sha256::of(b"link");
    std::os::unix::fs::symlink(&secret, node.store.join(link.to_string())).expect("a link");
    fs::create_dir(node.store.join(Sha256::of(b"folder").to_string())).expect("a folder");
    for target in [
        "/".to_owned(),
        "/content/".to_owned(),
        format!("/content/{partial}"),
        format!("/content/{partial}.partial"),
        format!("/content/{link}"),
        format!("/content/{}", Sha256::of(b"folder")),
        "/content/../../../../etc/prestage/agent.toml".to_owned(),
        "/../../../../../../../../etc/passwd".to_owned(),
        "/content/%2e%2e%2f%2e%2e%2fquarantine.json".to_owned(),
        "/etc/passwd".to_owned(),
    ] {
        let (status, _, body) = node.sharer.get(&target, "");
        assert!(status == 404 && body.is_empty(), "{target}: {status}");
    }
    let (_, _, have) = node.sharer.get(&format!("/have/{partial},{link}"), "");
    assert!(String::from_utf8_lossy(&have).ends_with("\nnone\nnone\n"));
}

#[test]
fn what_is_no_request_of_ours_is_refused_and_the_next_one_answered() {
    let node = Sharing::start("");
    let digest = node.put(b"content");
    let status = |bytes: &[u8]| {
        let answer = String::from_utf8_lossy(&node.sharer.ask(bytes)).into_owned();
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(20_000));
    assert_eq!(status(long.as_bytes()), "431");
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(2000));
    assert_eq!(status(many.as_bytes()), "431");
    assert_eq!(status(b"\x16\x03\x01\x02\x00\r\n\r\n"), "400");
    assert_eq!(status(format!("PUT /content/{digest} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()), "405");
    assert_eq!(
        status(
            format!("GET /content/{digest} HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody").as_bytes()
        ),
        "400"
    );
    assert_eq!(node.sharer.get(&format!("/content/{digest}"), "").2, b"content");
}

#[test]
fn a_stranger_is_not_answered() {
    let node = Sharing::start("allow = ['10.0.0.0/8', '127.0.0.9']");
    let digest = node.put(b"content");
    assert_eq!(node.sharer.ask(format!("GET /content/{digest} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()), b"");
}

#[test]
fn whoever_says_nothing_or_reads_nothing_holds_no_place_for_long() {
    let node = Sharing::start("max-clients = 3");
    let digest = node.put(&vec![7; 20_000_000]);
    let target = format!("/content/{digest}");
    let connect = |request: &str| {
        let mut stream = TcpStream::connect(node.sharer.address).expect("a connection");
        stream.write_all(request.as_bytes()).expect("it is taken");
        stream
    };
    let mut held =
        [connect(""), connect("GET /con"), connect(&format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"))];
    // The reader that does not read has got its answer's beginning: all three have their places now.
    held[2].read_exact(&mut [0; 100]).expect("a head");
    let (status, head, _) = node.sharer.get(&target, "");
    assert!(status == 503 && head.contains("Retry-After"), "{head}");
    // Those that said nothing are let go in time, which this waits for, and their places are free.
    for stream in &mut held[..2] {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert_eq!(rest, b"");
    }
    assert_eq!(node.sharer.get(&format!("/content/{}", Sha256::of(b"none")), "").0, 404);
    // And the one that reads nothing does not get its answer to the end.
    let begun = std::time::Instant::now();
    while node.sharer.get(&target, "Range: bytes=0-0\r\n").0 != 206 {
        assert!(begun.elapsed().as_secs() < 60);
    }
    assert!(peak_kib(&node.sharer.child) <= MEMORY_KIB, "{} KiB", peak_kib(&node.sharer.child));
}

#[test]
fn it_ends_when_nobody_asks_and_is_not_started_where_it_is_off() {
    let mut node = Sharing::start("idle-seconds = 1");
    let ended = node.sharer.child.wait().expect("it ends");
    assert_eq!(ended.code(), Some(0));
    fs::write(
        node.sandbox.path().join("etc/prestage/agent.toml"),
        "node = { id = 'till-1', variant = 'debian-12-amd64' }",
    )
    .expect("a configuration");
    let mut share = command(program("prestage"));
    let ended = run(share.arg("--root").arg(node.sandbox.path()).args(["share", "--listen", "127.0.0.2:0"]));
    let _ = ended.expect(78).says(&["[share] serve"]);
}

#[test]
fn the_rate_is_for_all_peers_together() {
    let node = Sharing::start("rate = '500kB/s'");
    let digest = node.put(&vec![7; 500_000]);
    let begun = std::time::Instant::now();
    let address: SocketAddr = node.sharer.address;
    let request = format!("GET /content/{digest} HTTP/1.1\r\nHost: x\r\n\r\n");
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| assert!(lab::site::ask(address, request.as_bytes()).len() > 500_000));
        }
    });
    let seconds = begun.elapsed().as_secs_f64();
    assert!(seconds >= 3.0 * 0.95, "1.5 MB in {seconds} s");
}
