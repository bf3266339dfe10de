//! What `prestage share` takes while it serves a site.

use std::fs;
use std::net::TcpListener;
use std::sync::Barrier;

use format::digest::Sha256;

use crate::measure::peak_kib;
use crate::sandbox::Sandbox;
use crate::site::{Sharer, ask};

/// Nodes that ask at once.
const PEERS: usize = 10;

const MIB: usize = 1024 * 1024;

/// What each of them asks for: more than any buffer on the way holds.
const CONTENT: usize = 64 * MIB;

/// Prints the table.
///
/// # Panics
/// If a peer does not get what it asked for.
pub fn print() {
    let sandbox = Sandbox::new();
    let store = sandbox.path().join("var/lib/prestage/fetch/store");
    fs::create_dir_all(&store).expect("a store");
    fs::create_dir_all(sandbox.path().join("etc/prestage")).expect("a folder");
    let text = format!(
        "node = {{ id = 'till-1', variant = 'debian-12-amd64' }}\n[share]\nserve = true\nmax-clients = {PEERS}\n"
    );
    fs::write(sandbox.path().join("etc/prestage/agent.toml"), text).expect("a configuration");
    let content = vec![7; CONTENT];
    let digest = Sha256::of(&content);
    fs::write(store.join(digest.to_string()), content).expect("content");
    let sharer = Sharer::start(sandbox.path(), TcpListener::bind("127.0.0.2:0").expect("a port"));
    let idle = {
        sharer.get(&format!("/have/{digest}"), "");
        peak_kib(&sharer.child)
    };
    let (address, together) = (sharer.address, Barrier::new(PEERS));
    let request = format!("GET /content/{digest} HTTP/1.1\r\nHost: x\r\n\r\n");
    std::thread::scope(|scope| {
        for _ in 0..PEERS {
            scope.spawn(|| {
                together.wait();
                let answer = ask(address, request.as_bytes());
                assert!(
                    answer.len() > CONTENT && answer.starts_with(b"HTTP/1.1 200"),
                    "{} bytes",
                    answer.len()
                );
            });
        }
    });
    println!("| peak memory of `prestage share` | |\n| --- | ---: |");
    let mib = |kib: u64| kib as f64 / 1024.0;
    println!("| after one question | {:.1} MiB |", mib(idle));
    println!(
        "| {PEERS} peers at once, {} MiB each | {:.1} MiB |",
        CONTENT / MIB,
        mib(peak_kib(&sharer.child))
    );
}
