//! Several mirrors: whichever works is used, the first comes back, a liar is put aside and reported; and those that want
//! to know who asks are told.

use lab::sandbox::{Running, run};
use lab::server::{Behaviour, Cut, CutKind, Refusal, Server};
use lab::services::{Authority, Nginx};
use lab::world::World;

const BUNDLE: &str = ".bundle.tar.gz";

fn two(world: &World) -> Server {
    let second = Server::start(&world.centre.repository()).expect("a port");
    world.node.configure(&[&world.mirror.url(), &second.url()], "");
    second
}

fn forget(world: &World) {
    std::fs::remove_dir_all(world.node.path("/var/lib/prestage/fetch/store")).expect("a store");
    std::fs::remove_dir_all(world.node.path("/var/lib/prestage/fetch/staged")).expect("a staged repo");
}

#[test]
fn the_next_mirror_takes_over_in_the_middle_and_the_first_is_used_again_when_it_is_back() {
    let world = World::new();
    let second = two(&world);
    // The first breaks off after a megabyte and is away from then on.
    let cut = Cut { suffix: BUNDLE.into(), after: 1_000_000, how: CutKind::Stall };
    world.mirror.behave(Behaviour { cuts: [cut].into(), ..Behaviour::default() });
    let agent = Running::start(&mut world.node.prestage(["fetch"]));
    assert!(world.mirror.wait_for_stall());
    world.mirror.behave(Behaviour { refusals: vec![Refusal::always("", 500)], ..Behaviour::default() });
    world.mirror.release();
    agent.wait().expect(0);
    world.assert_staged_is_right();
    let sent = |server: &Server| {
        server.exchanges().iter().filter(|e| e.path.ends_with(BUNDLE)).map(|e| e.sent).sum::<u64>()
    };
    assert!(
        sent(&world.mirror) >= 1_000_000 && sent(&second) > 1_000_000,
        "{} {}",
        sent(&world.mirror),
        sent(&second)
    );
    assert!(sent(&world.mirror) + sent(&second) <= world.bytes_needed() + 64 * 1024, "hardly a byte twice");
    // A run later the first is the first again.
    forget(&world);
    second.forget();
    world.mirror.behave(Behaviour::default());
    run(&mut world.node.prestage(["fetch"])).expect(0);
    assert_eq!(second.exchanges().len(), 0);
}

#[test]
fn a_mirror_that_serves_wrong_bytes_is_put_aside_and_reported() {
    let world = World::new();
    let second = two(&world);
    let at = world.centre.offset_of("till-data", 2_000_000);
    world.mirror.behave(Behaviour { flip: Some((BUNDLE.into(), at)), ..Behaviour::default() });
    world.node.configure(
        &[&world.mirror.url(), &second.url()],
        &format!("[report]\nurl = \"{}\"\n", world.receiver.url()),
    );
    run(&mut world.node.prestage(["fetch"])).expect(0);
    world.assert_staged_is_right();
    let aside = world.node.status().status.mirrors_aside;
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert!(aside[0].name == world.mirror.url() && aside[0].why.contains("till-data"), "{aside:?}");
    run(&mut world.node.prestage(["status"])).expect(0).says(&["aside", &world.mirror.url()]);
    run(&mut world.node.prestage(["report"])).expect(0);
    let reports = world.receiver.accepted();
    assert!(reports.iter().any(|r| r.message.contains("put aside")), "{reports:?}");
    // It comes last in the next run, even though it is repaired: that is not known yet.
    forget(&world);
    world.mirror.forget();
    world.mirror.behave(Behaviour::default());
    run(&mut world.node.prestage(["fetch"])).expect(0);
    assert_eq!(world.mirror.exchanges().len(), 0);
    // Last is not never.
    forget(&world);
    second.behave(Behaviour { refusals: vec![Refusal::always("", 500)], ..Behaviour::default() });
    run(&mut world.node.prestage(["fetch"])).expect(0);
    assert!(!world.mirror.exchanges().is_empty());
}

#[test]
fn a_mirror_that_asks_who_we_are_is_told_and_no_other_one_is() {
    let world = World::new();
    let second = Server::start(&world.centre.repository()).expect("a port");
    world.node.write("/etc/prestage/token", "s3cret\n");
    world.node.write("/etc/prestage/password", "till:p\u{e4}ss\n");
    for (key, file, wanted) in [
        ("bearer-file", "/etc/prestage/token", "Bearer s3cret"),
        ("basic-file", "/etc/prestage/password", "Basic dGlsbDpww6Rzcw=="),
    ] {
        let _ = std::fs::remove_dir_all(world.node.path("/var/lib/prestage"));
        world.mirror.behave(Behaviour { authorization: Some(wanted.into()), ..Behaviour::default() });
        let mirror = world.mirror.url();
        world.node.configure(&[&mirror], "");
        run(&mut world.node.prestage(["fetch"])).expect(69).says(&["401", "credentials"]);
        let credentials = format!("credentials = [{{ mirror = \"{mirror}\", {key} = \"{file}\" }}]\n");
        world.node.configure(&[&second.url(), &mirror], &credentials);
        second.behave(Behaviour { refusals: vec![Refusal::always(BUNDLE, 404)], ..Behaviour::default() });
        run(&mut world.node.prestage(["fetch"])).expect(0);
        world.assert_staged_is_right();
        let there = second.exchanges();
        assert!(
            !there.is_empty() && there.iter().all(|e| e.headers.iter().all(|(n, _)| n != "authorization"))
        );
    }
    std::fs::remove_file(world.node.path("/etc/prestage/password")).expect("a secret");
    run(&mut world.node.prestage(["fetch"])).expect(78).says(&["/etc/prestage/password"]);
}

#[test]
fn a_private_authority_is_trusted_where_it_is_configured_and_a_client_certificate_is_shown() {
    let world = World::new();
    let authority = Authority::new(&world.sandbox, "ca");
    let front = Nginx::tls(&authority, &world.centre.repository(), true);
    let (certificate, key) = authority.issue("till-1");
    world.node.write("/etc/prestage/ca.pem", std::fs::read(authority.certificate()).expect("a certificate"));
    world.node.write("/etc/prestage/node.crt", std::fs::read(certificate).expect("a certificate"));
    world.node.write("/etc/prestage/node.key", std::fs::read(key).expect("a key"));
    let ours = "client-cert = \"/etc/prestage/node.crt\"\nclient-key = \"/etc/prestage/node.key\"\n";
    let ca = "ca-file = \"/etc/prestage/ca.pem\"\n";
    // Without the authority; without a certificate; with both.
    world.node.configure(&[&front.url()], "");
    let refused = run(&mut world.node.prestage(["fetch"]));
    assert!(matches!(refused.code, Some(69 | 78)), "{refused}");
    world.node.configure(&[&front.url()], ca);
    run(&mut world.node.prestage(["fetch"])).expect(69);
    world.node.configure(&[&front.url()], &format!("{ca}{ours}"));
    run(&mut world.node.prestage(["fetch"])).expect(0);
    world.assert_staged_is_right();
    // One that another authority has issued is as good as none.
    let other = Authority::new(&world.sandbox, "other");
    let (certificate, key) = other.issue("till-1");
    world.node.write("/etc/prestage/node.crt", std::fs::read(certificate).expect("a certificate"));
    world.node.write("/etc/prestage/node.key", std::fs::read(key).expect("a key"));
    run(&mut world.node.prestage(["fetch"])).expect(69);
}
