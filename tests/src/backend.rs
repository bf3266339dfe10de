//! One node, one archive and one centre for each package manager, under one face: what the common suite runs on.
//!
//! A package is ordered once ([`Package`]) and made as a .deb or an .rpm. Everything is real but the packages: apt and dpkg in
//! a root of the distribution, dnf 4 and rpm in the root that `scripts/rpm-root.sh` makes and describes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use format::name::Variant;

use crate::debs::Deb;
use crate::node::Node;
use crate::receiver::Receiver;
use crate::repository::{Archive, Centre};
use crate::rpm_archive::RpmArchive;
use crate::rpms::Rpm;
use crate::sandbox::{Sandbox, command, succeed};
use crate::server::Server;

/// A package manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// apt and dpkg.
    Apt,
    /// dnf 4 and rpm.
    Dnf,
}

impl Backend {
    /// All of them.
    pub const ALL: [Backend; 2] = [Backend::Apt, Backend::Dnf];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Apt => "apt",
            Backend::Dnf => "dnf",
        }
    }
}

/// A package, in the words of neither.
#[derive(Clone, Debug)]
pub struct Package {
    name: &'static str,
    version: &'static str,
    /// Name, and the least version where one is needed.
    needs: Vec<(&'static str, Option<&'static str>)>,
    payload: usize,
    config: Option<(&'static str, &'static str)>,
    /// Before (true) or after its files are there; what the shell does.
    scripts: Vec<(bool, &'static str)>,
    /// RPM only: further tags.
    tags: Vec<(&'static str, &'static str)>,
}

impl Package {
    /// An empty one.
    pub fn new(name: &'static str, version: &'static str) -> Package {
        Package {
            name,
            version,
            needs: Vec::new(),
            payload: 0,
            config: None,
            scripts: Vec::new(),
            tags: Vec::new(),
        }
    }

    /// It needs another one.
    #[must_use]
    pub fn needs(mut self, name: &'static str, least: Option<&'static str>) -> Self {
        self.needs.push((name, least));
        self
    }

    /// So many bytes that do not compress.
    #[must_use]
    pub fn payload(mut self, size: usize) -> Self {
        self.payload = size;
        self
    }

    /// A configuration file.
    #[must_use]
    pub fn config(mut self, path: &'static str, content: &'static str) -> Self {
        self.config = Some((path, content));
        self
    }

    /// Runs before its files are there: preinst or %pre.
    #[must_use]
    pub fn before(mut self, body: &'static str) -> Self {
        self.scripts.push((true, body));
        self
    }

    /// Runs after its files are there: postinst or %post.
    #[must_use]
    pub fn after(mut self, body: &'static str) -> Self {
        self.scripts.push((false, body));
        self
    }

    /// A tag that only RPM has, such as `Obsoletes`.
    #[must_use]
    pub fn tag(mut self, name: &'static str, value: &'static str) -> Self {
        self.tags.push((name, value));
        self
    }

    fn deb(&self) -> Deb {
        let mut deb = Deb::new(self.name, self.version);
        if !self.needs.is_empty() {
            let one = |(name, least): &(&str, Option<&str>)| match least {
                Some(least) => format!("{name} (>= {least})"),
                None => (*name).to_owned(),
            };
            deb = deb.depends(&self.needs.iter().map(one).collect::<Vec<_>>().join(", "));
        }
        if self.payload > 0 {
            deb = deb.payload(self.payload);
        }
        if let Some((path, content)) = self.config {
            deb = deb.conffile(path, content);
        }
        for (before, body) in &self.scripts {
            deb = deb.script(if *before { "preinst" } else { "postinst" }, body);
        }
        deb
    }

    pub(crate) fn rpm(&self) -> Rpm {
        let mut rpm = Rpm::new(self.name, self.version);
        for (name, least) in &self.needs {
            rpm =
                rpm.tag("Requires", &least.map_or((*name).to_owned(), |least| format!("{name} >= {least}")));
        }
        for (name, value) in &self.tags {
            rpm = rpm.tag(name, value);
        }
        if self.payload > 0 {
            rpm = rpm.payload(self.payload);
        }
        if let Some((path, content)) = self.config {
            rpm = rpm.config(path, content);
        }
        for (before, body) in &self.scripts {
            rpm = rpm.script(if *before { "pre" } else { "post" }, body);
        }
        rpm
    }
}

enum Upstream {
    Apt(Archive),
    Rpm(RpmArchive),
}

/// A node, an archive, a centre that has published, a mirror and a receiver of reports.
pub struct World {
    /// Of which package manager.
    pub backend: Backend,
    /// The mirror that the node reads.
    pub mirror: Server,
    /// Where its reports go.
    pub receiver: Receiver,
    /// The node.
    pub node: Node,
    /// The centre.
    pub centre: Centre,
    upstream: Upstream,
    /// Where all of it is; last, so that it goes last.
    pub sandbox: Sandbox,
}

/// The version of the bundle.
pub const VERSION: &str = "20261123-1";

impl World {
    /// A node with `old`, and a published bundle of what it and a node with `other` need of `new`.
    ///
    /// # Panics
    /// If a tool fails.
    pub fn with(backend: Backend, old: &[Package], other: &[Package], new: &[Package]) -> World {
        let sandbox = Sandbox::new();
        let centre = Centre::new(&sandbox);
        let (node, upstream) = match backend {
            Backend::Apt => {
                let node = Node::new(&sandbox, "node");
                node.install(&old.iter().map(Package::deb).collect::<Vec<_>>());
                let archive = Archive::new(&sandbox);
                archive.publish(&new.iter().map(Package::deb).collect::<Vec<_>>());
                (node, Upstream::Apt(archive))
            }
            Backend::Dnf => {
                let node = Node::of_rpm(&sandbox, "node");
                let archive = RpmArchive::new(&sandbox);
                fs::copy(archive.key(), node.path("/tmp/vendor.asc")).expect("the key");
                succeed(node.chroot("rpm").args(["--import", "/tmp/vendor.asc"]));
                install_rpms(node.root(), &node.path("/var/cache/test-rpms"), old, false);
                archive.publish(new, true);
                (node, Upstream::Rpm(archive))
            }
        };
        let mirror = Server::start(&centre.repository()).expect("a port");
        let receiver = Receiver::start(None).expect("a port");
        let world = World { backend, mirror, receiver, node, centre, upstream, sandbox };
        let mut inventories = vec![world.database()];
        if !other.is_empty() {
            inventories.push(world.other_inventory(other));
        }
        let inventories: Vec<&Path> = inventories.iter().map(PathBuf::as_path).collect();
        let collected = world.collect(&inventories);
        let bundle = world.centre.bundle(&collected, VERSION);
        world.centre.publish(&bundle);
        world.node.trust(&world.centre.repository());
        world.configure("");
        world
    }

    /// The next bundle: `new` joins the archive, and what the node needs of it is collected and published as `version`.
    pub fn publish(&self, new: &[Package], version: &str) {
        match &self.upstream {
            Upstream::Apt(archive) => archive.publish(&new.iter().map(Package::deb).collect::<Vec<_>>()),
            Upstream::Rpm(archive) => archive.publish(new, true),
        }
        let collected = self.collect(&[&self.database()]);
        self.centre.publish(&self.centre.bundle(&collected, version));
    }

    /// Puts packages where the node's package manager keeps those that it has installed. RPM only: signed by the vendor or not.
    pub fn fill_cache(&self, packages: &[Package], signed: bool) {
        match &self.upstream {
            Upstream::Apt(_) => {
                let cache = self.node.path("/var/cache/apt/archives");
                packages.iter().for_each(|p| drop(p.deb().build(&cache)));
            }
            Upstream::Rpm(archive) => {
                let cache = self.node.path("/var/cache/dnf/vendor-0123456789abcdef/packages");
                let files: Vec<PathBuf> = packages.iter().map(|p| p.rpm().build(&cache)).collect();
                if signed {
                    archive.sign(&files);
                }
            }
        }
    }

    /// What its bundles are built for.
    pub fn variant(&self) -> Variant {
        match self.backend {
            Backend::Apt => self.node.variant(),
            Backend::Dnf => "rpmlab-9-x86_64".parse().expect("a variant"),
        }
    }

    /// Configures the node for the mirror and the receiver, and whatever more a case needs (TOML).
    pub fn configure(&self, more: &str) {
        let report = format!("[report]\nurl = \"{}\"\n", self.receiver.url());
        self.node.configure(&[&self.mirror.url()], &format!("{report}{more}"));
    }

    /// The node's package database.
    pub fn database(&self) -> PathBuf {
        self.node.path(match self.backend {
            Backend::Apt => "/var/lib/dpkg/status",
            Backend::Dnf => "/var/lib/rpm",
        })
    }

    /// The inventory of another node, which has these packages.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn other_inventory(&self, other: &[Package]) -> PathBuf {
        let path = self.sandbox.path().join("other");
        match self.backend {
            Backend::Apt => {
                let stanza = |p: &Package| {
                    format!(
                        "Package: {}\nStatus: install ok installed\nVersion: {}\nArchitecture: all\n\
                         Maintainer: Nobody <nobody@example.org>\nDescription: made for a test\n\n",
                        p.name, p.version
                    )
                };
                fs::write(&path, other.iter().map(stanza).collect::<String>()).expect("an inventory");
            }
            Backend::Dnf => {
                fs::create_dir_all(path.join("var/lib/rpm")).expect("a folder");
                install_rpms(&path, &self.sandbox.path().join("other-rpms"), other, true);
            }
        }
        path
    }

    /// Collects from the archive what nodes with these inventories need.
    pub fn collect(&self, inventories: &[&Path]) -> PathBuf {
        match &self.upstream {
            Upstream::Apt(archive) => self.centre.collect(archive, &self.variant(), inventories),
            Upstream::Rpm(archive) => {
                let collected = self.sandbox.path().join("collected");
                let mut collect = self.collect_dnf(archive, &collected);
                for inventory in inventories {
                    collect.arg("--inventory").arg(inventory);
                }
                succeed(&mut collect);
                collected
            }
        }
    }

    fn collect_dnf(&self, archive: &RpmArchive, output: &Path) -> std::process::Command {
        let mut collect = self.centre.build(["collect", "dnf", "--variant", self.variant().as_str()]);
        collect
            .arg("--sources")
            .arg(archive.sources())
            .arg("--key")
            .arg(archive.key())
            .arg("--output")
            .arg(output);
        collect
    }

    /// The RPM repository.
    ///
    /// # Panics
    /// If this world has none.
    pub fn rpm_archive(&self) -> &RpmArchive {
        match &self.upstream {
            Upstream::Rpm(archive) => archive,
            Upstream::Apt(_) => panic!("an apt world has no RPM repository"),
        }
    }

    /// `collect dnf` of this world's repository, without inventories.
    pub fn collector(&self, output: &Path) -> std::process::Command {
        self.collect_dnf(self.rpm_archive(), output)
    }

    /// Installed packages and their versions; what is not complete has a space in its version: dpkg's state, or rpm's two
    /// versions of one package.
    pub fn inventory(&self) -> BTreeMap<String, String> {
        match self.backend {
            Backend::Apt => self.node.inventory(),
            Backend::Dnf => {
                let out = succeed(self.node.chroot("rpm").args(["-qa", "--qf", "%{NAME} %{VERSION}\n"]));
                let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
                for (name, version) in out.lines().filter_map(|line| line.split_once(' ')) {
                    found.entry(name.to_owned()).or_default().push(version.to_owned());
                }
                found
                    .into_iter()
                    .map(|(name, mut versions)| {
                        versions.sort();
                        (name, versions.join(" "))
                    })
                    .collect()
            }
        }
    }

    /// The version of one package; empty if it is not there.
    pub fn version(&self, package: &str) -> String {
        self.inventory().remove(package).unwrap_or_default()
    }

    /// Holds a package, as an operator does: `apt-mark hold`, or versionlock.
    pub fn hold(&self, package: &str) {
        match self.backend {
            Backend::Apt => self.node.hold(package),
            Backend::Dnf => {
                succeed(
                    self.node
                        .chroot("dnf")
                        .args(["-q", "--disablerepo=*", "versionlock", "add", "--raw"])
                        .arg(format!("{package}-0:1.0-1.*")),
                );
            }
        }
    }

    /// Takes the package manager's own lock, as another run of it does, until [`World::unlock`].
    ///
    /// # Panics
    /// If it cannot be taken.
    pub fn lock(&self) -> Vec<fs::File> {
        match self.backend {
            Backend::Apt => ["/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock"]
                .map(|path| {
                    let path = self.node.path(path);
                    let file = fs::File::options()
                        .create(true)
                        .truncate(false)
                        .write(true)
                        .open(path)
                        .expect("a lock file");
                    let lock = nix::libc::flock {
                        l_type: nix::libc::F_WRLCK as i16,
                        l_whence: nix::libc::SEEK_SET as i16,
                        l_start: 0,
                        l_len: 0,
                        l_pid: 0,
                    };
                    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETLK(&lock)).expect("the lock");
                    file
                })
                .into(),
            Backend::Dnf => {
                // dnf's lock is the process id of a process that lives: this one.
                let path = self.node.path("/var/lib/dnf/rpmdb_lock.pid");
                fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
                fs::write(&path, std::process::id().to_string()).expect("a lock file");
                vec![fs::File::open(&path).expect("a lock file")]
            }
        }
    }

    /// Gives it back.
    pub fn unlock(&self, lock: Vec<fs::File>) {
        drop(lock);
        let _ = fs::remove_file(self.node.path("/var/lib/dnf/rpmdb_lock.pid"));
    }

    /// What the package manager finds wrong with the node; empty if nothing.
    pub fn complaints(&self) -> String {
        let mut audit = match self.backend {
            Backend::Apt => self.node.chroot("dpkg"),
            Backend::Dnf => self.node.chroot("dnf"),
        };
        let args: &[&str] = match self.backend {
            Backend::Apt => &["--audit"],
            Backend::Dnf => &["-q", "--disablerepo=*", "check"],
        };
        crate::sandbox::run(audit.args(args)).stdout
    }

    /// Programs whose root is this world's node: what an agent started and left behind.
    pub fn left_behind(&self) -> Vec<i32> {
        let root = fs::canonicalize(self.node.root()).expect("the node's root");
        let processes = fs::read_dir("/proc").expect("/proc").flatten();
        let pids = processes.filter_map(|p| p.file_name().to_str()?.parse::<i32>().ok());
        // The whole path, which holds the name of this case's own folder: others run at the same time.
        pids.filter(|pid| fs::read_link(format!("/proc/{pid}/root")).is_ok_and(|at| at == root)).collect()
    }
}

/// Makes packages in `folder`, below `root` where rpm runs inside, and installs them.
fn install_rpms(root: &Path, folder: &Path, packages: &[Package], only_database: bool) {
    let files: Vec<PathBuf> = packages.iter().map(|p| p.rpm().build(folder)).collect();
    if only_database {
        let mut install = command("rpm");
        install.arg("--root").arg(root).args([
            "--dbpath",
            "/var/lib/rpm",
            "-i",
            "--justdb",
            "--nodeps",
            "--noscripts",
        ]);
        succeed(install.args(&files));
    } else {
        let inside =
            files.iter().map(|f| Path::new("/").join(f.strip_prefix(root).expect("made on the node")));
        succeed(command("chroot").arg(root).args(["rpm", "-i", "--nosignature"]).args(inside));
        fs::remove_dir_all(folder).expect("the packages were there");
    }
}
