//! Whatever a server answers has one defined end: the table in `agent/src/fetch/http.rs`, row by row.
//!
//! For each: how the fetch ends, in words that name what was wrong; what it costs; that nothing wrong is staged; and that
//! it ends by itself when the server behaves again.

use std::time::{Duration, Instant};

use lab::debs::Deb;
use lab::repository::Part;
use lab::sandbox::{Output, run};
use lab::server::{Behaviour, Cut, CutKind, Refusal, Server, Validator, date};
use lab::world::World;

const BUNDLE: &str = ".bundle.tar.gz";

/// A fetch by a node that has nothing yet, from a server that behaves so.
fn fetch(world: &World, behaviour: Behaviour) -> Output {
    let _ = std::fs::remove_dir_all(world.node.path("/var/lib/prestage"));
    world.mirror.forget();
    world.mirror.behave(behaviour);
    run(&mut world.node.prestage(["fetch"]))
}

/// Requests for the bundle file.
fn asked(world: &World) -> usize {
    world.mirror.exchanges().iter().filter(|e| e.path.ends_with(BUNDLE)).count()
}

/// The server behaves again, and the node goes on where it stopped.
#[track_caller]
fn assert_recovers(world: &World) {
    assert_eq!(world.staged(), Vec::<String>::new(), "something is staged");
    world.mirror.behave(Behaviour::default());
    run(&mut world.node.prestage(["fetch"])).expect(0);
    assert_whole(world);
}

#[track_caller]
fn assert_whole(world: &World) {
    assert_eq!(world.staged().len(), 4);
    world.assert_staged_is_right();
}

#[test]
fn each_refusal_by_status_has_its_end() {
    let world = World::new();
    // Status; what is said; how often the bundle is asked for.
    for (status, says, times) in [
        (401, "401", 1),
        (403, "not found", 1),
        (404, "not found", 1),
        (410, "not found", 1),
        (416, "416", 1),
        (429, "429", 3),
        (500, "500", 3),
        (503, "503", 3),
    ] {
        let refusals = vec![Refusal::always(BUNDLE, status)];
        fetch(&world, Behaviour { refusals, ..Behaviour::default() }).expect(69).says(&[says]);
        assert_eq!(asked(&world), times, "{status}");
        assert_recovers(&world);
    }
}

#[test]
fn retry_after_is_waited_for_when_it_is_short_and_ends_the_run_when_it_is_long() {
    let world = World::new();
    let soon = world.node.clock().plus(3);
    for short in ["2".to_owned(), date(soon.0 as u128 * 1_000_000_000)] {
        let busy = Refusal { retry_after: Some(short.clone()), times: 1, ..Refusal::always(BUNDLE, 503) };
        let start = Instant::now();
        fetch(&world, Behaviour { refusals: vec![busy], ..Behaviour::default() }).expect(0);
        assert!(short.len() > 2 || start.elapsed() >= Duration::from_secs(2), "it did not wait");
        assert_whole(&world);
    }
    for long in ["3600".to_owned(), date((soon.0 as u128 + 3600) * 1_000_000_000)] {
        let busy = Refusal { retry_after: Some(long), ..Refusal::always(BUNDLE, 429) };
        let start = Instant::now();
        fetch(&world, Behaviour { refusals: vec![busy], ..Behaviour::default() }).expect(69);
        assert!(start.elapsed() < Duration::from_secs(60) && asked(&world) == 1, "it was asked again");
        assert_recovers(&world);
    }
}

#[test]
fn bodies_in_unusual_but_allowed_form_are_used() {
    let world = World::new();
    for behaviour in [
        Behaviour { chunked: true, ..Behaviour::default() },
        Behaviour { trailing_garbage: true, ..Behaviour::default() },
    ] {
        let what = format!("{behaviour:?}");
        let ended = fetch(&world, behaviour);
        assert_eq!(ended.code, Some(0), "{what}\n{ended}");
        assert_whole(&world);
    }
}

#[test]
fn an_answer_that_is_not_what_was_asked_for_is_not_used() {
    let world = World::new();
    let lie = |text: &str| Behaviour { content_range: Some(text.into()), ..Behaviour::default() };
    for (behaviour, says) in [
        (Behaviour { extra: 1000, ..Behaviour::default() }, "another range"),
        (Behaviour { shift_range: 7, ..Behaviour::default() }, "another range"),
        (lie("bytes */1000"), "another range"),
        (lie("lines 0-9/10"), "another range"),
        (lie("bytes 9-0/10"), "another range"),
        (lie("bytes 0-18446744073709551615/*"), "another range"),
        (Behaviour { encoding: Some("gzip"), ..Behaviour::default() }, "encoding"),
    ] {
        let what = format!("{behaviour:?}");
        let ended = fetch(&world, behaviour);
        assert_eq!(ended.code, Some(69), "{what}\n{ended}");
        ended.says(&[says]);
        assert!(asked(&world) <= 3, "{what}: asked {} times", asked(&world));
        assert_recovers(&world);
    }
}

#[test]
fn a_body_that_ends_early_is_gone_on_with() {
    let world = World::new();
    let cut = |after, how| Cut { suffix: BUNDLE.into(), after, how };
    let cuts = [cut(900_000, CutKind::Close), cut(700_000, CutKind::Reset), cut(1, CutKind::Close)].into();
    fetch(&world, Behaviour { cuts, ..Behaviour::default() }).expect(0);
    assert_whole(&world);
    let twice = world.bundle_bytes_sent() - world.bytes_needed();
    assert!(twice <= 3 * 64 * 1024, "{twice} bytes twice");
}

#[test]
fn a_server_without_ranges_is_read_through_once() {
    let world = World::new();
    fetch(&world, Behaviour { ignore_range: true, ..Behaviour::default() }).expect(0);
    assert_whole(&world);
    // The metadata, and then all the rest in one go.
    assert!(asked(&world) <= 2, "{} requests", asked(&world));
    assert!(world.bundle_bytes_sent() <= world.bytes_needed() * 3 / 2, "{}", world.bundle_bytes_sent());
}

#[test]
fn a_server_without_ranges_is_left_where_reading_past_is_too_dear() {
    // What the node needs is at the end of the bundle, behind 12 MB for others.
    let old = [Deb::new("till-z", "1.0")];
    let new = [Deb::new("till-other", "2.0").payload(12_000_000), Deb::new("till-z", "2.0").payload(20_000)];
    let world = World::with(&old, &new);
    world.mirror.behave(Behaviour { ignore_range: true, ..Behaviour::default() });
    run(&mut world.node.prestage(["fetch"])).expect(69).says(&["ranges"]);
    assert!(world.bundle_bytes_sent() < 1_500_000, "{} bytes", world.bundle_bytes_sent());
    // Another mirror does better.
    let other = Server::start(&world.centre.repository()).expect("a port");
    world.node.configure(&[&world.mirror.url(), &other.url()], "");
    run(&mut world.node.prestage(["fetch"])).expect(0);
    assert_eq!(world.staged().len(), 1);
}

/// Stops the first transfer in the middle of the large package, does something to the file, and lets it go on.
fn changed_in_the_middle(world: &World, validator: Validator, change: impl FnOnce()) -> Output {
    let _ = std::fs::remove_dir_all(world.node.path("/var/lib/prestage"));
    world.mirror.forget();
    let cut = Cut { suffix: BUNDLE.into(), after: 1_700_000, how: CutKind::Stall };
    world.mirror.behave(Behaviour { cuts: [cut].into(), validator, ..Behaviour::default() });
    let agent = lab::sandbox::Running::start(&mut world.node.prestage(["fetch"]));
    assert!(world.mirror.wait_for_stall());
    change();
    world.mirror.release();
    agent.wait()
}

/// The If-Range of each request for a part of the bundle.
fn if_ranges(world: &World) -> Vec<Option<String>> {
    let exchanges = world.mirror.exchanges();
    let of_bundle = exchanges.iter().filter(|e| e.path.ends_with(BUNDLE) && e.from.is_some());
    of_bundle.map(|e| e.headers.iter().find(|(n, _)| n == "if-range").map(|(_, v)| v.clone())).collect()
}

#[test]
fn a_file_that_was_replaced_meanwhile_is_not_mixed_with_what_it_was() {
    not_mixed("");
}

#[test]
fn nor_is_one_that_was_replaced_between_two_pieces_in_the_background() {
    not_mixed("[fetch]\nbackground = true\n");
}

fn not_mixed(settings: &str) {
    let world = World::new();
    world.configure(settings);
    let file = world.centre.file(Part::BundleData);
    let right = std::fs::read(&file).expect("the bundle");
    // Another file of the same length and name: as when a mirror is rebuilt from a broken disk.
    let wrong: Vec<u8> = right.iter().map(|byte| byte ^ 0x55).collect();
    let ended = changed_in_the_middle(&world, Validator::Strong, || {
        std::fs::write(&file, &wrong).expect("the bundle");
    });
    assert_eq!(ended.code, Some(2), "{ended}");
    ended.says(&["replaced", "till-data"]);
    assert!(if_ranges(&world).iter().flatten().count() >= 1, "{:?}", if_ranges(&world));
    std::fs::write(&file, &right).expect("the bundle");
    assert_recovers(&world);
}

#[test]
fn a_file_with_a_new_date_and_the_same_content_costs_a_block() {
    let world = World::new();
    let file = world.centre.file(Part::BundleData);
    let touch = || {
        let file = std::fs::File::options().append(true).open(&file).expect("the bundle");
        file.set_modified(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000))
            .expect("a date");
    };
    changed_in_the_middle(&world, Validator::Strong, touch).expect(0).says(&["replaced"]);
    assert_whole(&world);
    let twice = world.bundle_bytes_sent() - world.bytes_needed();
    // The whole file was begun once, because that is what If-Range means.
    assert!(twice <= format::index::BLOCK + 2 * 64 * 1024, "{twice} bytes twice");
}

#[test]
fn ranges_are_asked_for_under_a_strong_validator_alone() {
    let world = World::new();
    for (validator, is_sent) in [
        (Validator::Strong, true),
        (Validator::Date, true),
        (Validator::Weak, false),
        (Validator::Nothing, false),
    ] {
        changed_in_the_middle(&world, validator, || {}).expect(0);
        assert_whole(&world);
        let sent = if_ranges(&world);
        assert_eq!(sent.iter().flatten().count() > 0, is_sent, "{validator:?}: {sent:?}");
    }
    // Unequal servers behind one name: found out once, and then the hashes decide alone.
    changed_in_the_middle(&world, Validator::Unsteady, || {}).expect(0);
    assert_whole(&world);
    assert_eq!(if_ranges(&world).iter().flatten().count(), 1, "{:?}", if_ranges(&world));
}

#[test]
fn a_redirect_within_the_mirrors_origin_is_followed() {
    let world = World::new();
    let repository = world.centre.repository();
    std::os::unix::fs::symlink(".", repository.join("elsewhere")).expect("a link");
    for status in [301, 302, 303, 307, 308] {
        let to = if status == 308 {
            format!("{}elsewhere/targets/", world.mirror.url())
        } else {
            "/elsewhere/targets/".into()
        };
        let moved = Some((status, "/targets/".to_owned(), to));
        fetch(&world, Behaviour { moved, ..Behaviour::default() }).expect(0);
        assert_whole(&world);
    }
}

#[test]
fn a_redirect_elsewhere_is_followed_where_it_is_listed_and_takes_no_secret_along() {
    let world = World::new();
    let elsewhere = Server::start(&world.centre.repository()).expect("a port");
    world.node.write("/etc/prestage/token", "secret\n");
    let mirror = world.mirror.url();
    let credentials =
        format!("credentials = [{{ mirror = \"{mirror}\", bearer-file = \"/etc/prestage/token\" }}]\n");
    let moved = || Behaviour {
        moved: Some((302, "/targets/".into(), format!("{}targets/", elsewhere.url()))),
        authorization: Some("Bearer secret".into()),
        ..Behaviour::default()
    };
    world.node.configure(&[&mirror], &credentials);
    fetch(&world, moved()).expect(69).says(&["redirects"]);
    assert_eq!(elsewhere.exchanges().len(), 0, "the agent went where it was sent");
    world.node.configure(&[&mirror], &format!("{credentials}redirects = [\"{}\"]\n", elsewhere.url()));
    fetch(&world, moved()).expect(0);
    assert_whole(&world);
    let there = elsewhere.exchanges();
    assert!(!there.is_empty() && there.iter().all(|e| e.headers.iter().all(|(n, _)| n != "authorization")));
}

#[test]
fn redirects_without_end_and_to_nowhere_are_refused() {
    let world = World::new();
    for to in ["/targets/targets/", "ftp://127.0.0.1/", ""] {
        let moved = Some((302, "/targets/".to_owned(), to.to_owned()));
        fetch(&world, Behaviour { moved, ..Behaviour::default() }).expect(69).says(&["redirected"]);
        let followed = world.mirror.exchanges().iter().filter(|e| e.path.starts_with("/targets/")).count();
        assert!(followed <= 6, "{to:?}: {followed} requests");
        assert_recovers(&world);
    }
}

#[test]
fn a_byte_now_and_then_and_silence_are_given_up() {
    let world = World::new();
    world.configure("[fetch]\nstall-timeout-seconds = 1\n");
    // Of the metadata, where there is no throttle, and of the bundle.
    for suffix in ["timestamp.json", BUNDLE] {
        let dribble = Some((suffix.to_owned(), Duration::from_millis(100)));
        let start = Instant::now();
        fetch(&world, Behaviour { dribble, ..Behaviour::default() }).expect(69).says(&["slow"]);
        assert!(start.elapsed() < Duration::from_secs(60), "{suffix}: {:?}", start.elapsed());
        assert_recovers(&world);
    }
    let cut = || Cut { suffix: BUNDLE.into(), after: 100_000, how: CutKind::Stall };
    let ended = fetch(&world, Behaviour { cuts: [cut()].into(), ..Behaviour::default() });
    world.mirror.release();
    assert_eq!(ended.code, Some(0), "silence once is only a try: {ended}");
    assert_whole(&world);
}
