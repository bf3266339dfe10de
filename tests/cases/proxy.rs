//! Through a proxy, and from a real web server: tinyproxy and nginx, as distributions ship them.

use lab::sandbox::run;
use lab::services::{Authority, Nginx, Tinyproxy};
use lab::world::World;

#[test]
fn nginx_serves_a_fetch_a_resumed_one_and_an_idle_poll() {
    let world = World::new();
    let nginx = Nginx::start(&world.sandbox, &world.centre.repository());
    world.node.configure(&[&nginx.url()], "");
    run(&mut world.node.prestage(["fetch"])).expect(0);
    world.assert_staged_is_right();
    let asked = nginx.log();
    assert!(asked.iter().any(|line| line.contains(".bundle.tar.gz") && line.contains(" 206 ")), "{asked:?}");
    // Resumed in the middle of a member.
    let digest = world.centre.member("till-data").sha256;
    let store = world.node.path(&format!("/var/lib/prestage/fetch/store/{digest}"));
    let partial = store.with_file_name(format!("{digest}.partial"));
    let content = std::fs::read(&store).expect("a member");
    std::fs::remove_dir_all(world.node.path("/var/lib/prestage/fetch/staged")).expect("a staged repo");
    std::fs::remove_file(&store).expect("a member");
    std::fs::write(&partial, &content[..2_222_222]).expect("a partial member");
    let before = nginx.log().len();
    run(&mut world.node.prestage(["fetch"])).expect(0);
    world.assert_staged_is_right();
    let sent: u64 = nginx.log()[before..].iter().filter(|l| l.contains(".bundle.")).map(|l| bytes(l)).sum();
    assert!(sent < content.len() as u64 - 2_222_222 + 10_000, "{sent} bytes");
    run(&mut world.node.prestage(["run"])).expect(0);
    run(&mut world.node.prestage(["fetch"])).expect(0);
    let before = nginx.log().len();
    run(&mut world.node.prestage(["fetch"])).expect(0);
    let poll = nginx.log().split_off(before);
    assert!(poll.len() <= 2 && poll.iter().any(|line| line.contains(" 304 ")), "{poll:?}");
}

/// Body bytes of a line of nginx's log: the word behind the status.
fn bytes(line: &str) -> u64 {
    line.split_whitespace().last().and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[test]
fn a_proxy_carries_http_as_requests_and_https_through_a_tunnel() {
    let world = World::new();
    let proxy = Tinyproxy::start(&world.sandbox, ("till", "secret"));
    let host = proxy.address();
    let with = |user: &str| format!("proxy = \"http://{user}{host}\"\n");
    world.node.configure(&[&world.mirror.url()], &with(""));
    run(&mut world.node.prestage(["fetch"])).expect(69).says(&["407"]);
    assert!(world.mirror.exchanges().is_empty(), "it went past the proxy");
    world.node.configure(&[&world.mirror.url()], &with("till:secret@"));
    run(&mut world.node.prestage(["fetch"])).expect(0);
    world.assert_staged_is_right();
    let there = world.mirror.exchanges();
    assert!(there.iter().all(|e| e.headers.iter().any(|(n, _)| n == "via")), "it went past the proxy");
    assert!(there.iter().all(|e| e.headers.iter().all(|(n, _)| n != "proxy-authorization")));

    let authority = Authority::new(&world.sandbox, "ca");
    let front = Nginx::tls(&authority, &world.centre.repository(), false);
    world.node.write("/etc/prestage/ca.pem", std::fs::read(authority.certificate()).expect("a certificate"));
    let _ = std::fs::remove_dir_all(world.node.path("/var/lib/prestage"));
    let config = format!("{}ca-file = \"/etc/prestage/ca.pem\"\n", with("till:secret@"));
    world.node.configure(&[&front.url()], &config);
    run(&mut world.node.prestage(["fetch"])).expect(0);
    world.assert_staged_is_right();
    assert!(proxy.log().contains("CONNECT"), "{}", proxy.log());
}
