//! TLS by the server itself.

use std::io::Read as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::server::Fleet;

/// A certificate for 127.0.0.1 that vouches for itself, and its key.
fn certificate(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    let (certificate, key) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args([
            "-days",
            "2",
            "-subj",
            &format!("/CN={name}"),
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-addext",
            "basicConstraints=CA:FALSE",
        ])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    (certificate, key)
}

/// Who believes this certificate, and no other.
fn believer(certificate: &Path) -> ureq::Agent {
    let pem = std::fs::read(certificate).expect("a certificate");
    let root = Certificate::from_pem(&pem).expect("a certificate");
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&[root]))
        .unversioned_rustls_crypto_provider(provider)
        .build();
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .tls_config(tls)
        .timeout_global(Some(Duration::from_secs(20)))
        .build()
        .into()
}

/// A server of its own certificate, asked by somebody who believes it.
fn start() -> (Fleet, tempfile::TempDir) {
    let folder = tempfile::Builder::new().prefix("prestage-tls-").tempdir().expect("a folder");
    let (certificate, key) = certificate(folder.path(), "server");
    let tls = format!("[tls]\ncertificate = {certificate:?}\nkey = {key:?}\n");
    let mut fleet = Fleet::start(None, &tls);
    assert!(fleet.url.starts_with("https://"), "{}", fleet.url);
    fleet.agent = believer(&certificate);
    (fleet, folder)
}

#[test]
fn nodes_and_operators_are_served_over_tls_and_nobody_without() {
    let (mut fleet, folder) = start();
    let node = fleet.enrolled("till-1", &[]);
    fleet.send(&[node.status(crate::server::now(), "idle")]).expect(200);
    assert_eq!(fleet.look("/api/v1/nodes?sort=name")["total"], 1);
    let login = fleet.post("/api/v1/session").json(&json!({"token": fleet.tokens["admin"]})).send();
    assert!(login.headers["set-cookie"].contains("Secure"), "{:?}", login.headers);
    let plain = fleet.url.replacen("https", "http", 1);
    assert!(fleet.agent.get(format!("{plain}/healthz")).call().is_err(), "answered without TLS");
    let (other, _) = certificate(folder.path(), "other");
    fleet.agent = believer(&other);
    assert!(fleet.get("/healthz").try_send().is_err(), "believed by somebody who knows another certificate");
}

#[test]
fn who_connects_and_says_nothing_is_not_waited_for_long() {
    let (fleet, _folder) = start();
    let address = fleet.url.trim_start_matches("https://");
    let mut silent = TcpStream::connect(address).expect("a connection");
    silent.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
    let begun = Instant::now();
    assert_eq!(silent.read(&mut [0; 1]).expect("the server closes it"), 0);
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_new_certificate_is_taken_without_a_restart_and_a_broken_one_is_not() {
    let (mut fleet, folder) = start();
    let (new, key) = certificate(folder.path(), "new");
    let file = |name: &str| folder.path().join(name);
    std::fs::copy(&new, file("server.crt")).expect("a copy");
    std::fs::copy(&key, file("server.key")).expect("a copy");
    // Nothing changes until it is told.
    fleet.get("/healthz").send();
    fleet.signal("HUP", fleet.id());
    let logged = |fleet: &Fleet, what: &str| {
        let end = Instant::now() + Duration::from_secs(20);
        while !fleet.log().contains(what) {
            assert!(Instant::now() < end, "{what}: {}", fleet.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    logged(&fleet, "the certificate was read again");
    // Who is connected stays so.
    assert_eq!(fleet.get("/healthz").send().status, 200);
    fleet.agent = believer(&new);
    assert_eq!(fleet.get("/healthz").send().status, 200);
    std::fs::write(file("server.key"), "no key").expect("a file");
    fleet.signal("HUP", fleet.id());
    logged(&fleet, "the certificate stays as it is");
    fleet.agent = believer(&new);
    assert_eq!(fleet.get("/healthz").send().status, 200);
}
