//! A site that shares: its line carries a bundle once, whoever dies, lies or stalls.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use format::index::Index;
use lab::debs::Deb;
use lab::line::{CENTRE, Line};
use lab::node::Node;
use lab::sandbox::{Running, command, run};
use lab::server::PATIENCE;
use lab::services::Nginx;
use lab::site::{False, FalsePeer, Sharer};
use lab::wait::until;
use lab::world::World;

/// Packages of the bundle, and the size of each: large enough that what every node gets for itself, the repository's
/// metadata, is as small a part as it is of a real bundle.
const PACKAGES: usize = 40;
const SIZE: usize = 250_000;

/// Nodes with nothing fetched, a mirror, and a process for each node that shares.
struct Site {
    nodes: Vec<Node>,
    sharers: Vec<Option<Sharer>>,
    world: World,
}

impl Site {
    /// So many nodes, which know each other and `strangers`.
    fn new(count: usize, packages: usize, strangers: &[&FalsePeer]) -> Site {
        let name = |n: usize| format!("till-{n}");
        let old: Vec<Deb> = (0..packages).map(|n| Deb::new(&name(n), "1.0")).collect();
        let new: Vec<Deb> = (0..packages).map(|n| Deb::new(&name(n), "2.0").payload(SIZE)).collect();
        let world = World::with(&old, &new);
        let mut site = Site { nodes: Vec::new(), sharers: Vec::new(), world };
        let listeners: Vec<TcpListener> =
            (0..count).map(|n| TcpListener::bind(format!("127.0.0.{}:0", 10 + n)).expect("a port")).collect();
        let mut peers: Vec<String> =
            listeners.iter().map(|l| l.local_addr().expect("it is bound").to_string()).collect();
        peers.extend(strangers.iter().map(|peer| peer.address.to_string()));
        for (n, listener) in listeners.into_iter().enumerate() {
            let node = Node::new(&site.world.sandbox, &format!("node-{n}"));
            node.install(&old);
            node.trust(&site.world.centre.repository());
            let text = format!(
                "[node]\nid = \"node-{n}\"\n[repository]\nmirrors = [{:?}]\n[fetch]\nrate = \"500kB/s\"\n\
                 [share]\nserve = true\npeers = {peers:?}\npatience-seconds = 10\nmax-clients = 32\n",
                site.world.mirror.url()
            );
            node.write("/etc/prestage/agent.toml", text);
            site.sharers.push(Some(Sharer::start(node.root(), listener)));
            site.nodes.push(node);
        }
        site
    }

    /// Body bytes that the mirror has sent.
    fn line(&self) -> u64 {
        self.world.mirror.exchanges().iter().map(|e| e.sent).sum()
    }

    /// What one node alone costs the line. Forgets it.
    fn one_alone(&self) -> u64 {
        run(&mut self.world.node.prestage(["fetch", "--now"])).expect(0);
        let alone = self.line();
        self.world.mirror.forget();
        alone
    }

    fn start(&self) -> Vec<Running> {
        self.nodes.iter().map(|node| Running::start(&mut node.prestage(["fetch", "--now"]))).collect()
    }

    fn row(&self, n: usize) -> (u64, u64) {
        let fetch = self.nodes[n].status().status.fetch.expect("a fetch");
        (fetch.bytes_received, fetch.bytes_from_site)
    }
}

/// The bundle's members by hash.
fn sizes(index: &Index) -> impl Fn(&str) -> u64 + Send + Sync + 'static {
    let sizes: std::collections::BTreeMap<String, u64> =
        index.members.iter().map(|m| (m.sha256.to_string(), m.size)).collect();
    move |digest| sizes.get(digest).copied().unwrap_or_default()
}

#[test]
fn three_nodes_cost_the_line_one() {
    let site = Site::new(3, PACKAGES, &[]);
    let alone = site.one_alone();
    for agent in site.start() {
        agent.wait().expect(0);
    }
    let line = site.line();
    let from_site: u64 = (0..3).map(|n| site.row(n).1).sum();
    println!("alone {alone}, three {line} ({:.3}), from the site {from_site}", line as f64 / alone as f64);
    assert!(line as f64 <= 1.15 * alone as f64, "{line} of {alone}");
    assert!(from_site >= 2 * (PACKAGES * SIZE) as u64, "{from_site}");
    // A fourth that comes when all is done takes nothing but metadata from the line.
    let late = &site.world.node;
    late.write(
        "/etc/prestage/agent.toml",
        site.nodes[0].read("/etc/prestage/agent.toml").replace("node-0", "late"),
    );
    std::fs::remove_dir_all(late.path("/var/lib/prestage")).expect("it had fetched");
    site.world.mirror.forget();
    run(&mut late.prestage(["fetch", "--now"])).expect(0);
    assert!(site.world.bundle_bytes_sent() < 50_000, "{}", site.world.bundle_bytes_sent());
}

#[test]
fn a_node_among_peers_that_lie_stall_promise_and_are_gone_is_patched_all_the_same() {
    let world = World::new();
    let liars = [False::Garbage, False::Stalls, False::Promises]
        .map(|how| FalsePeer::start(how, sizes(&world.centre.index())));
    let gone = TcpListener::bind("127.0.0.77:0").expect("a port").local_addr().expect("it is bound");
    let mut peers: Vec<String> = liars.iter().map(|liar| liar.address.to_string()).collect();
    peers.push(gone.to_string());
    world.configure(&format!("[share]\npeers = {peers:?}\npatience-seconds = 5\n"));
    let begun = Instant::now();
    run(&mut world.node.prestage(["fetch", "--now"])).expect(0);
    // A stall, a promise and a turn: not the two and a half minutes of the last resort.
    assert!(begun.elapsed() < Duration::from_secs(140), "{:?}", begun.elapsed());
    assert_eq!(world.staged().len(), 4);
    assert!(liars[..2].iter().all(|liar| liar.asked.load(std::sync::atomic::Ordering::Relaxed) == 1));
    let aside = world.node.status().status.peers_aside;
    for (liar, why) in liars.iter().zip(["sha256", "wait"]) {
        let entry = aside.iter().find(|entry| entry.name == liar.address.to_string());
        assert!(entry.is_some_and(|entry| entry.why.contains(why)), "{aside:?}");
    }
    // Nor are they asked in the next runs.
    std::fs::remove_dir_all(world.node.path("/var/lib/prestage/fetch/store")).expect("a store");
    std::fs::remove_file(world.node.path("/var/lib/prestage/fetch/plan.json")).expect("a plan");
    run(&mut world.node.prestage(["fetch", "--now"])).expect(0);
    assert!(liars[..2].iter().all(|liar| liar.asked.load(std::sync::atomic::Ordering::Relaxed) == 1));
    run(&mut world.node.prestage(["install", "--now"])).expect(0);
    world.assert_patched();
}

#[test]
#[ignore = "ten nodes: make test-long"]
fn ten_nodes_cost_the_line_one_with_one_killed_and_one_that_serves_garbage() {
    // The garbage is of the length that is asked for: every package of this world is as long as its neighbours.
    let lengths = std::sync::Arc::new(std::sync::OnceLock::<Box<dyn Fn(&str) -> u64 + Send + Sync>>::new());
    let for_liar = lengths.clone();
    let liar = FalsePeer::start(False::Garbage, move |d| for_liar.get().map_or(0, |size| size(d)));
    let mut site = Site::new(10, PACKAGES, &[&liar]);
    let _ = lengths.set(Box::new(sizes(&site.world.centre.index())));
    let alone = site.one_alone();
    let mut agents = site.start();
    // One dies, with the process that shares, when the site has half of what it needs.
    until("half of what the site needs", PATIENCE * 5, || {
        assert!(!agents[0].has_ended(), "too early");
        site.line() >= alone / 2
    });
    agents.remove(0).kill();
    site.sharers[0] = None;
    for agent in agents {
        agent.wait().expect(0);
    }
    let line = site.line();
    println!("node      from the line   from the site");
    for n in 1..10 {
        let (line, site) = site.row(n);
        println!("node-{n}  {line:>13}  {site:>13}");
    }
    println!("one alone {alone:>13}\nten       {line:>13}   {:.3} of one", line as f64 / alone as f64);
    assert!(liar.asked.load(std::sync::atomic::Ordering::Relaxed) >= 9);
    assert!((1..10).all(|n| site.nodes[n].status().status.peers_aside.len() == 1), "everybody has found out");
    assert!(line as f64 <= 1.15 * alone as f64, "{line} of {alone}");
}

/// A node that has fetched everything and shares it on `listener`.
fn sharing(world: &World, listener: TcpListener, name: &str) -> (Node, Sharer) {
    let node = Node::new(&world.sandbox, name);
    node.install(&lab::world::old_packages());
    node.trust(&world.centre.repository());
    let text = format!(
        "[node]\nid = \"{name}\"\n[repository]\nmirrors = [{:?}]\n[share]\nserve = true\n",
        world.mirror.url()
    );
    node.write("/etc/prestage/agent.toml", text);
    run(&mut node.prestage(["fetch", "--now"])).expect(0);
    let sharer = Sharer::start(node.root(), listener);
    world.mirror.forget();
    (node, sharer)
}

#[test]
fn a_name_with_several_addresses_is_all_of_them() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.31:0").expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    let (_node, _sharer) = sharing(&world, listener, "till-31");
    // One of the name's addresses is a node that is switched off, and one that is not there any more.
    let hosts = world.sandbox.path().join("hosts");
    std::fs::write(&hosts, "127.0.0.30 store.example\n127.0.0.31 store.example\n").expect("a file");
    world.configure(&format!("[share]\npeers = [\"store.example:{port}\"]\npatience-seconds = 5\n"));
    let agent = world.node.prestage(["fetch", "--now"]);
    let mut unshare = command("unshare");
    unshare.args(["--mount", "sh", "-c", "mount --bind \"$1\" /etc/hosts && shift && exec \"$@\"", "sh"]);
    unshare.arg(&hosts).arg(agent.get_program()).args(agent.get_args());
    run(&mut unshare).expect(0);
    world.assert_staged_is_right();
    let fetch = world.node.status().status.fetch.expect("a fetch");
    assert!(fetch.bytes_from_site >= lab::world::LARGE as u64, "{}", fetch.bytes_from_site);
    assert!(world.bundle_bytes_sent() < 50_000, "{}", world.bundle_bytes_sent());
}

#[test]
fn nodes_find_each_other_by_multicast_where_they_are_told_to() {
    let world = World::new();
    let line = Line::direct();
    let repository = world.centre.repository();
    let mirror = line.centre.within(|| Nginx::also_at(&world.sandbox, &repository, CENTRE));
    let listener = line.centre.within(|| TcpListener::bind((CENTRE, 0)).expect("a port"));
    let port = listener.local_addr().expect("it is bound").port();
    let (_node, _sharer) = sharing(&world, listener, "till-1");
    let _avahi = line.centre.within(|| lab::services::Avahi::start(&world.sandbox, port));
    let fetch = |discover: bool| {
        let _ = std::fs::remove_dir_all(world.node.path("/var/lib/prestage"));
        let share = format!("[share]\ndiscover = {discover}\npatience-seconds = 5\n");
        world.node.configure(&[&mirror.url_at(CENTRE)], &share);
        line.node.within(|| run(&mut world.node.prestage(["fetch", "--now"])).expect(0));
        world.assert_staged_is_right();
        world.node.status().status.fetch.expect("a fetch").bytes_from_site
    };
    assert_eq!(fetch(false), 0);
    // Avahi first makes sure that nobody else has its names (RFC 6762 section 8.1), and answers nobody meanwhile.
    assert!((0..10).any(|_| fetch(true) >= lab::world::LARGE as u64));
}
