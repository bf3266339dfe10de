//! A node with old packages, an archive with newer ones, a centre that has published a bundle of them, a mirror, and
//! a receiver of reports: what most cases begin with, and then break one thing in.

use std::fs;
use std::path::PathBuf;

use crate::debs::Deb;
use crate::node::Node;
use crate::receiver::Receiver;
use crate::repository::{Archive, Centre};
use crate::sandbox::{Sandbox, succeed};
use crate::server::Server;

/// The version of the first bundle.
pub const VERSION: &str = "20261123-1";

/// Content of the largest package that the node needs: more than two blocks of the index.
pub const LARGE: usize = 3 * 1024 * 1024;

/// Everything.
pub struct World {
    /// The mirror that the node reads.
    pub mirror: Server,
    /// Where its reports go.
    pub receiver: Receiver,
    /// The node.
    pub node: Node,
    /// The centre.
    pub centre: Centre,
    /// Where the centre's packages come from.
    pub archive: Archive,
    /// Where all of it is; last, so that it goes last.
    pub sandbox: Sandbox,
}

/// The packages that the node has: `till-app` needs `till-lib`, which has a conffile.
pub fn old_packages() -> Vec<Deb> {
    vec![
        Deb::new("till-lib", "1.0").conffile("/etc/till.conf", "currency = DM\n"),
        Deb::new("till-app", "1.0").depends("till-lib"),
        Deb::new("till-data", "1.0").payload(10_000),
    ]
}

/// The packages that the archive has: updates of all three, a new dependency, and one that only another node needs.
pub fn new_packages() -> Vec<Deb> {
    vec![
        Deb::new("till-lib", "2.0").conffile("/etc/till.conf", "currency = EUR\n"),
        Deb::new("till-app", "2.0")
            .depends("till-lib (>= 2.0), till-new")
            .script("postinst", "cat /proc/net/dev >/var/log/network-seen"),
        Deb::new("till-data", "2.0").payload(LARGE),
        Deb::new("till-new", "1.0-3").payload(20_000),
        Deb::new("till-other", "2.0").payload(LARGE),
        Deb::new("nobody-has-this", "2.0").payload(10_000),
    ]
}

impl World {
    /// The standard world; nothing has been fetched yet.
    pub fn new() -> World {
        World::with(&old_packages(), &new_packages())
    }

    /// A world with other packages on the node and in the archive.
    pub fn with(old: &[Deb], new: &[Deb]) -> World {
        World::with_signers(old, new, 1)
    }

    /// The same, in which so many keys must sign root, bundles and policies.
    pub fn with_signers(old: &[Deb], new: &[Deb], signers: usize) -> World {
        let sandbox = Sandbox::new();
        let node = Node::new(&sandbox, "node");
        node.install(old);
        let archive = Archive::new(&sandbox);
        archive.publish(new);
        let centre = Centre::with_signers(&sandbox, "centre", signers);
        let mirror = Server::start(&centre.repository()).expect("a port");
        let receiver = Receiver::start(None).expect("a port");
        let world = World { mirror, receiver, node, centre, archive, sandbox };
        world.release(VERSION);
        world.node.trust(&world.centre.repository());
        world.configure("");
        world
    }

    /// An export of what is for its node, a folder or, if `name` ends with `.tar`, one file.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn export(&self, name: &str) -> PathBuf {
        let path = self.sandbox.path().join(name);
        let mut export = self.centre.build(["export"]);
        export
            .arg(self.centre.repository())
            .args(["--variant", self.node.variant().as_str(), "--output"])
            .arg(&path);
        succeed(&mut export);
        path
    }

    /// Configures the node for the mirror and the receiver, and whatever more a case needs (TOML).
    pub fn configure(&self, more: &str) {
        let report = format!("[report]\nurl = \"{}\"\n", self.receiver.url());
        self.node.configure(&[&self.mirror.url()], &format!("{report}{more}"));
    }

    /// Collects, bundles and publishes what the archive has for this node and for the other one.
    pub fn release(&self, version: &str) {
        let bundle = self.bundle(version);
        self.centre.publish(&bundle);
    }

    /// Collects and bundles, and does not publish.
    pub fn bundle(&self, version: &str) -> PathBuf {
        let status = self.node.path("/var/lib/dpkg/status");
        let other = self.other_inventory();
        let collected = self.centre.collect(&self.archive, &self.node.variant(), &[&status, &other]);
        self.centre.bundle(&collected, version)
    }

    /// The dpkg status file of another node of the same variant, which has `till-other` alone.
    fn other_inventory(&self) -> PathBuf {
        let path = self.sandbox.path().join("other-status");
        let text = "Package: till-other\nStatus: install ok installed\nVersion: 1.0\nArchitecture: all\n\
                    Maintainer: Nobody <nobody@example.org>\nDescription: made for a test\n";
        fs::write(&path, text).expect("an inventory");
        path
    }

    /// The packages in the staged repository, by file name, sorted.
    pub fn staged(&self) -> Vec<String> {
        let mut out = Vec::new();
        for bundle in
            fs::read_dir(self.node.path("/var/lib/prestage/fetch/staged")).into_iter().flatten().flatten()
        {
            for deb in fs::read_dir(bundle.path().join("pool")).into_iter().flatten().flatten() {
                out.push(deb.file_name().to_string_lossy().into_owned());
            }
        }
        out.sort();
        out
    }

    /// Whether the node has all that the first bundle brings, and nothing half-done.
    ///
    /// # Panics
    /// If not: which package.
    #[track_caller]
    pub fn assert_patched(&self) {
        let inventory = self.node.inventory();
        for (name, version) in
            [("till-lib", "2.0"), ("till-app", "2.0"), ("till-data", "2.0"), ("till-new", "1.0-3")]
        {
            assert_eq!(inventory.get(name).map(String::as_str), Some(version), "{name}");
        }
        assert!(inventory.values().all(|v| !v.contains(' ')), "half-done: {inventory:?}");
    }

    /// Bytes of the bundle file that a fetch without any disturbance takes in the standard world.
    pub fn bytes_needed(&self) -> u64 {
        let index = self.centre.index();
        let needed = ["till-app", "till-lib", "till-data", "till-new"].map(|n| self.centre.member(n));
        let members = index.metadata().chain(needed.iter());
        members.filter_map(|m| m.whole()).map(|e| e.length).sum()
    }

    /// The content of every staged package is that of the index, in the standard world.
    ///
    /// # Panics
    /// If not: which package.
    #[track_caller]
    pub fn assert_staged_is_right(&self) {
        let staged = self.node.path("/var/lib/prestage/fetch/staged");
        let folder = fs::read_dir(staged).expect("a staged repo").flatten().next().expect("a staged repo");
        for name in ["till-app", "till-lib", "till-data", "till-new"] {
            let member = self.centre.member(name);
            let mut file =
                fs::File::open(folder.path().join(member.path.as_str())).expect("a staged package");
            let (digest, size) = format::digest::Sha256::of_reader(&mut file).expect("a staged package");
            assert_eq!((digest, size), (member.sha256, member.size), "{name}");
        }
    }

    /// Body bytes that the mirror has sent of bundle files.
    pub fn bundle_bytes_sent(&self) -> u64 {
        let exchanges = self.mirror.exchanges();
        exchanges.iter().filter(|e| e.path.ends_with(".bundle.tar.gz")).map(|e| e.sent).sum()
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}
