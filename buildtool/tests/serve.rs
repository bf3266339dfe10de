//! `serve` with a plain HTTP client: ranges are what resumed fetches live on.
#![allow(clippy::unwrap_used, reason = "a test that cannot make its world fails")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use common::World;

#[test]
fn files_are_served_whole_and_in_ranges_and_nothing_else_is() {
    let world = World::new();
    world.repository();
    world.release("1");
    let mut server = Command::new(env!("CARGO_BIN_EXE_prestage-build"))
        .args(["serve", "repo", "--listen", "127.0.0.1:0"])
        .current_dir(world.path(""))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on http://").unwrap().to_owned();

    let bundle = world.find(".bundle.tar.gz");
    let path = format!("/{}", bundle.strip_prefix(world.path("repo")).unwrap().display());
    let (head, body) = get(&address, &path, "Range: bytes=1000-1999\r\n");
    assert!(head.starts_with("HTTP/1.1 206"), "{head}");
    assert!(body == fs::read(&bundle).unwrap()[1000..2000]);
    let (head, body) = get(&address, "/metadata/timestamp.json", "");
    assert!(head.starts_with("HTTP/1.1 200") && head.to_lowercase().contains("content-length"), "{head}");
    assert_eq!(body, fs::read(world.path("repo/metadata/timestamp.json")).unwrap());
    for outside in ["/metadata/2.root.json", "/../keys/root", "/%2e%2e/keys/root", "/metadata/"] {
        assert!(!get(&address, outside, "").0.starts_with("HTTP/1.1 2"), "{outside}");
    }
    server.kill().unwrap();
    server.wait().unwrap();
}

fn get(address: &str, path: &str, header: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    (String::from_utf8(answer[..end].to_vec()).unwrap(), answer[end + 4..].to_vec())
}
