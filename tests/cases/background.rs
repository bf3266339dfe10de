//! The background mode on a real line: what somebody else takes is his, and what he leaves is used.

use std::path::PathBuf;
use std::time::Instant;

use lab::debs::Deb;
use lab::line::{CENTRE, Line};
use lab::sandbox::{Running, command, run, succeed};
use lab::server::PATIENCE;
use lab::services::Nginx;
use lab::wait::until;
use lab::world::World;

/// Bytes a second of the line, heads of packets included.
const RATE: f64 = 1_000_000.0;

/// Of a packet of 1514 bytes 1448 are content.
const CONTENT: f64 = 0.95;

const BUNDLE: usize = 9_000_000;
const FOREGROUND: usize = 10_000_000;

/// Of the rate that it has alone, what a transfer of ten seconds keeps (docs/usage/background.md).
const KEPT: f64 = 2.0 / 3.0;

struct Store {
    line: Line,
    nginx: Nginx,
    world: World,
}

impl Store {
    fn new() -> Store {
        let (old, new) = (Deb::new("till-data", "1.0"), Deb::new("till-data", "2.0").payload(BUNDLE));
        let world = World::with(&[old], &[new]);
        let line = Line::new("8mbit");
        let root = world.centre.repository();
        std::fs::write(root.join("foreground"), vec![7; FOREGROUND]).expect("a file");
        let nginx = line.centre.within(|| Nginx::also_at(&world.sandbox, &root, CENTRE));
        world.node.configure(&[&nginx.url_at(CENTRE)], "[fetch]\nbackground = true\n");
        Store { line, nginx, world }
    }

    /// Somebody else: the seconds that his transfer takes.
    fn foreground(&self) -> f64 {
        let begun = Instant::now();
        let url = format!("{}foreground", self.nginx.url_at(CENTRE));
        let _ = std::fs::remove_file(self.theirs());
        self.line.node.within(|| succeed(command("curl").args(["-sSf", "-o"]).arg(self.theirs()).arg(&url)));
        begun.elapsed().as_secs_f64()
    }

    /// Where his bytes go.
    fn theirs(&self) -> PathBuf {
        self.world.sandbox.path().join("theirs")
    }

    fn fetch(&self) -> Running {
        let _ = std::fs::remove_dir_all(self.world.node.path("/var/lib/prestage/fetch/store"));
        let _ = std::fs::remove_dir_all(self.world.node.path("/var/lib/prestage/fetch/staged"));
        let _ = std::fs::remove_file(self.world.node.path("/var/lib/prestage/fetch/plan.json"));
        self.line.node.within(|| Running::start(&mut self.world.node.prestage(["fetch", "--now"])))
    }

    /// Bytes of the package that are here by now.
    fn here(&self) -> u64 {
        let digest = self.world.centre.member("till-data").sha256;
        let store = self.world.node.path("/var/lib/prestage/fetch/store");
        let length = |name: String| std::fs::metadata(store.join(name)).map(|meta| meta.len());
        length(format!("{digest}.partial")).or_else(|_| length(digest.to_string())).unwrap_or(0)
    }

    fn wait_for(&self, bytes: u64) {
        until(&format!("{bytes} bytes"), PATIENCE, || self.here() >= bytes);
    }
}

#[test]
#[ignore = "a minute on a thin line, and a transfer's rate: make test-long"]
fn somebody_else_has_the_line_and_what_he_leaves_is_used() {
    let store = Store::new();
    let alone = store.foreground();

    // Nobody else: from half a megabyte on, when the agent has planned and has found out what the line gives.
    let agent = store.fetch();
    store.wait_for(500_000);
    let (before, begun) = (store.here(), Instant::now());
    store.wait_for(BUNDLE as u64);
    let idle = (BUNDLE as u64 - before) as f64 / begun.elapsed().as_secs_f64();
    agent.wait().expect(0);
    eprintln!("an idle line: {idle:.0} bytes a second, {:.0} % of it", 100.0 * idle / (RATE * CONTENT));
    assert!(idle >= 0.7 * RATE * CONTENT, "{idle:.0} bytes a second");

    // Somebody comes while the agent is at it.
    let agent = store.fetch();
    store.wait_for(2_000_000);
    let before = store.here();
    let meanwhile = store.foreground();
    let ours = store.here() - before;
    eprintln!(
        "somebody comes: {meanwhile:.1} s, alone {alone:.1} s: {:.0} % of his rate; {ours} bytes meanwhile",
        100.0 * alone / meanwhile
    );
    assert!(alone / meanwhile >= KEPT, "{meanwhile:.1} s, alone {alone:.1} s");
    assert!(ours > 0, "it starves");
    // What it asks for is seen from outside.
    let is_in_background =
        || store.world.node.status().status.transfer.is_some_and(|t| t.background.is_some());
    until("the status says that it is in the background", PATIENCE, is_in_background);
    run(&mut store.world.node.prestage(["status"])).expect(0).says(&["in the background"]);
    agent.wait().expect(0);

    // The agent comes while somebody is at it: what it knows of the line is from the runs before.
    std::thread::scope(|scope| {
        let foreground = scope.spawn(|| store.foreground());
        let theirs = || std::fs::metadata(store.theirs()).map_or(0, |meta| meta.len());
        until("somebody is at it", PATIENCE, || theirs() >= 500_000);
        let agent = store.fetch();
        let meanwhile = foreground.join().expect("curl");
        eprintln!("the agent comes: {meanwhile:.1} s, alone {alone:.1} s");
        assert!(alone / meanwhile >= KEPT, "{meanwhile:.1} s, alone {alone:.1} s");
        agent.kill();
    });
}

#[test]
fn a_server_without_ranges_lets_nothing_be_seen_and_is_fetched_from_all_the_same() {
    let world = World::new();
    world.configure("[fetch]\nbackground = true\n");
    world.mirror.behave(lab::server::Behaviour { ignore_range: true, ..Default::default() });
    run(&mut world.node.prestage(["fetch", "--now"])).expect(0);
    world.assert_staged_is_right();
}

#[test]
fn pieces_are_asked_for_one_after_the_other_and_cost_no_byte_twice() {
    let world = World::new();
    world.configure("[fetch]\nbackground = true\n");
    run(&mut world.node.prestage(["fetch", "--now"])).expect(0);
    world.assert_staged_is_right();
    let asked = world.mirror.exchanges().iter().filter(|e| e.path.ends_with(".bundle.tar.gz")).count();
    assert!((5..100).contains(&asked), "{asked} requests for 3 MB");
    let over = world.bundle_bytes_sent() - world.bytes_needed();
    assert!(over <= 64 * 1024, "{over} bytes too many");
}
