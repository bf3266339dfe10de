//! A throw-away node: an overlay over a real root of this machine's distribution.
//!
//! The root below is made once by `scripts/node-root.sh` and never written to; each node has its own layer above it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use format::digest::Sha256;
use format::name::Variant;
use format::status::NodeStatus;
use format::time::UnixTime;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::debs::Deb;
use crate::sandbox::{Sandbox, command, program, succeed};

/// What the agent itself may change at any time, relative to the root.
const OWN_FOLDERS: [&str; 2] = ["var/lib/prestage", "run/prestage"];

/// The files of a node: each path with its mode, owner and content; without times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image(BTreeMap<String, String>);

/// A node. Its mounts go with the value.
pub struct Node {
    root: PathBuf,
    folder: PathBuf,
}

impl Node {
    /// A new node in the sandbox, with nothing configured.
    ///
    /// # Panics
    /// If the root below cannot be made: the machine needs `make setup` and its archive.
    pub fn new(sandbox: &Sandbox, name: &str) -> Node {
        let folder = sandbox.path().join(name);
        let (root, upper, work) = (folder.join("root"), folder.join("upper"), folder.join("work"));
        for path in [&root, &upper, &work] {
            fs::create_dir_all(path).expect("folders for a node");
        }
        let below = minimal_root();
        let options =
            format!("lowerdir={},upperdir={},workdir={}", below.display(), upper.display(), work.display());
        let overlay =
            mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_str()));
        if overlay.is_err() {
            // A container whose own root is an overlay takes no other one above it.
            succeed(command("cp").arg("-a").arg(below.join(".")).arg(&root));
        }
        let node = Node { root, folder };
        // A case says when a node fetches, unless pacing is what it is about.
        node.write("/usr/lib/prestage/agent.d/00-lab.toml", "[fetch]\npaced = false\n");
        node.write("/etc/machine-id", "0123456789abcdef0123456789abcdef\n");
        node
    }

    /// Its root directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path on the node.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// What its bundles are built for.
    pub fn variant(&self) -> Variant {
        let os_release = self.read("/etc/os-release");
        let field = |name: &str| {
            let line = os_release.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('='));
            line.unwrap_or_default().trim_matches('"').to_owned()
        };
        let arch = succeed(command("dpkg").arg("--print-architecture"));
        format!("{}-{}-{}", field("ID"), field("VERSION_ID"), arch.trim()).parse().expect("a variant")
    }

    /// Writes its configuration: these mirrors, and whatever else a case needs (TOML).
    pub fn configure(&self, mirrors: &[&str], more: &str) {
        let text = format!("[node]\nid = \"test-node\"\n[repository]\nmirrors = {mirrors:?}\n{more}");
        self.write("/etc/prestage/agent.toml", text);
    }

    /// Gives it the root of trust of a repository.
    ///
    /// # Panics
    /// If there is none.
    pub fn trust(&self, repository: &Path) {
        let root = fs::read(repository.join("metadata/1.root.json")).expect("the repository has a root");
        self.write("/etc/prestage/root.json", root);
    }

    /// Writes a file, and the folders above it.
    ///
    /// # Panics
    /// If it cannot.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap_or(&self.root)).expect("a folder on the node");
        fs::write(path, content).expect("a file on the node");
    }

    /// Reads a file; empty if there is none.
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    /// A program of the node's own, to be run in its root.
    pub fn chroot(&self, program: &str) -> Command {
        let mut command = command("chroot");
        command.arg(&self.root).arg(program);
        command
    }

    /// Makes and installs packages, with its dpkg.
    pub fn install(&self, debs: &[Deb]) {
        let folder = self.path("/var/cache/test-debs");
        let inside = debs.iter().map(|deb| {
            let path = deb.build(&folder);
            Path::new("/").join(path.strip_prefix(&self.root).expect("it was made on the node"))
        });
        let inside: Vec<PathBuf> = inside.collect();
        succeed(self.chroot("dpkg").arg("-i").args(inside));
        fs::remove_dir_all(folder).expect("the packages were there");
    }

    /// Holds a package, as an operator does.
    pub fn hold(&self, package: &str) {
        succeed(self.chroot("apt-mark").args(["hold", package]));
    }

    /// The agent on this node.
    pub fn prestage<const N: usize>(&self, args: [&str; N]) -> Command {
        let mut command = command(program("prestage"));
        command.arg("--root").arg(&self.root).args(args);
        command
    }

    /// Installed packages and their versions; with the state behind the version where it is not `ii` or `hi`.
    pub fn inventory(&self) -> BTreeMap<String, String> {
        let out =
            succeed(
                command("dpkg-query")
                    .arg(format!("--admindir={}", self.path("/var/lib/dpkg").display()))
                    .args(["-W", "-f", "${Package} ${Version} ${db:Status-Abbrev}\n"]),
            );
        out.lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                let (name, version, state) = (words.next()?, words.next()?, words.next()?);
                let version = match state {
                    "ii" | "hi" => version.to_owned(),
                    _ => format!("{version} {state}"),
                };
                Some((name.to_owned(), version))
            })
            .collect()
    }

    /// The version of one package; empty if it is not there.
    pub fn version(&self, package: &str) -> String {
        self.inventory().remove(package).unwrap_or_default()
    }

    /// What the agent says of itself.
    ///
    /// # Panics
    /// If there is no valid status file.
    pub fn status(&self) -> NodeStatus {
        let path = self.path("/var/lib/prestage/status.json");
        let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        NodeStatus::parse(&bytes).expect("a valid status")
    }

    /// What time it is, for the node too.
    ///
    /// # Panics
    /// If it is before 1970.
    pub fn clock(&self) -> UnixTime {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        UnixTime(i64::try_from(since.as_secs()).expect("a time"))
    }

    /// A window that is neither open now nor opens within a day.
    pub fn not_today(&self) -> String {
        let day = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
        let in_three_days = (self.clock().0 / 86_400 + 3).rem_euclid(7); // 1970-01-01 was a Thursday
        format!("{} 12:00-13:00", day[usize::try_from(in_three_days).unwrap_or(0)])
    }

    /// What it keeps of its pacing.
    ///
    /// # Panics
    /// If it keeps nothing.
    pub fn pace(&self) -> serde_json::Value {
        serde_json::from_str(&self.read("/var/lib/prestage/fetch/pace.json")).expect("it has been paced")
    }

    /// Puts something else in its place, as if time had passed.
    pub fn set_pace(&self, pace: &serde_json::Value) {
        self.write("/var/lib/prestage/fetch/pace.json", pace.to_string());
    }

    /// Every file of the node but the agent's own.
    ///
    /// # Panics
    /// If it cannot be read.
    pub fn image(&self) -> Image {
        let mut image = Image::default();
        self.add_folder(Path::new(""), &mut image);
        image
    }

    fn add_folder(&self, folder: &Path, image: &mut Image) {
        for entry in fs::read_dir(self.root.join(folder)).expect("a folder of the node") {
            let path = folder.join(entry.expect("an entry").file_name());
            if OWN_FOLDERS.iter().any(|own| path == Path::new(own)) {
                continue;
            }
            let full = self.root.join(&path);
            let meta = fs::symlink_metadata(&full).expect("a file of the node");
            let kind = meta.file_type();
            let content = if kind.is_dir() {
                self.add_folder(&path, image);
                "folder".to_owned()
            } else if kind.is_symlink() {
                format!("→ {}", fs::read_link(&full).expect("a link of the node").display())
            } else if kind.is_file() {
                let mut file = fs::File::open(&full).expect("a file of the node");
                let (digest, length) = Sha256::of_reader(&mut file).expect("a file of the node");
                format!("{length} bytes {digest}")
            } else {
                "special".to_owned()
            };
            let line = format!("{:o} {} {} {content}", meta.mode(), meta.uid(), meta.gid());
            image.0.insert(path.to_string_lossy().into_owned(), line);
        }
    }

    /// Fails the case unless every file is as it was.
    ///
    /// # Panics
    /// With the files that are not.
    #[track_caller]
    pub fn assert_is(&self, before: &Image) {
        let after = self.image();
        let paths: std::collections::BTreeSet<_> = before.0.keys().chain(after.0.keys()).collect();
        let different: Vec<String> = paths
            .into_iter()
            .filter(|path| before.0.get(*path) != after.0.get(*path))
            .map(|path| format!("{path}: {:?} is now {:?}", before.0.get(path), after.0.get(path)))
            .collect();
        assert!(different.is_empty(), "the node is not as it was:\n{}", different.join("\n"));
    }

    /// Puts a file system of so many bytes, in memory, at a path of the node.
    ///
    /// # Panics
    /// If it cannot be mounted.
    pub fn small_disk(&self, path: &str, bytes: u64) {
        let path = self.path(path);
        fs::create_dir_all(&path).expect("a mount point");
        let options = format!("size={bytes}");
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
            .expect("a tmpfs");
    }

    /// Takes away what [`Node::small_disk`] put there.
    ///
    /// # Panics
    /// If it is not mounted.
    pub fn normal_disk(&self, path: &str) {
        umount2(&self.path(path), MntFlags::MNT_DETACH).expect("a mounted tmpfs");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = umount2(&self.root, MntFlags::MNT_DETACH);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The root that all nodes lie over.
fn minimal_root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/node-root.sh");
        succeed(Command::new(script).arg("minimal")).trim().into()
    })
}
