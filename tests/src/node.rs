//! A throw-away node: an overlay over a real root of this machine's distribution.
//!
//! The root below is made once by `scripts/node-root.sh` and never written to; each node has its own layer above it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use format::digest::Sha256;
use format::name::Variant;
use format::status::NodeStatus;
use format::time::UnixTime;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::debs::Deb;
use crate::sandbox::{Sandbox, command, program, succeed};

/// What the agent itself may change at any time, relative to the root.
const OWN_FOLDERS: [&str; 2] = ["var/lib/prestage", "run/prestage"];

/// How old a change of a file must be before its digest is remembered: times of the file system have ticks of a few
/// milliseconds, and in the tick of the reading it may change once more.
const SETTLED: Duration = Duration::from_millis(100);

/// What a package manager writes whenever it is asked something: its logs and caches, and SQLite's shared memory.
const TALK: [&str; 5] = [
    "var/log/dnf",
    "var/log/hawkey.log",
    "var/cache/dnf/",
    "var/lib/dnf/history.sqlite",
    "var/lib/rpm/rpmdb.sqlite-shm",
];

/// The files of a node: each path with what is there. Times do not count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image(BTreeMap<PathBuf, Entry>);

/// One file. The mode holds the type (inode(7)).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    mode: u32,
    user: u32,
    group: u32,
    content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Folder,
    /// Another file system: not looked into.
    Mount,
    Link(PathBuf),
    File(u64, Sha256),
    /// A device, by its number, a pipe or a socket.
    Special(u64),
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:o} {}:{} ", self.mode, self.user, self.group)?;
        match &self.content {
            Content::Folder => f.write_str("folder"),
            Content::Mount => f.write_str("mount"),
            Content::Link(target) => write!(f, "→ {}", target.display()),
            Content::File(length, digest) => write!(f, "{length} bytes {digest}"),
            Content::Special(number) => write!(f, "special {number:x}"),
        }
    }
}

impl Image {
    /// What is not the same in `after`: each path with what it was and what it is.
    pub fn differences(&self, after: &Image) -> Vec<String> {
        let paths: BTreeSet<&PathBuf> = self.0.keys().chain(after.0.keys()).collect();
        let differs = |path: &&PathBuf| self.0.get(*path) != after.0.get(*path);
        let at = |image: &Image, path: &PathBuf| {
            image.0.get(path).map_or_else(|| "absent".to_owned(), ToString::to_string)
        };
        let line =
            |path: &PathBuf| format!("/{}: {} is now {}", path.display(), at(self, path), at(after, path));
        paths.into_iter().filter(differs).map(line).collect()
    }
}

/// Somebody on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// Who installs.
    Root,
    /// Who fetches: the user `prestage`.
    Prestage,
    /// Anybody else.
    Nobody,
}

impl User {
    /// User and group id.
    pub fn id(self) -> u32 {
        match self {
            User::Root => 0,
            User::Prestage => 990,
            User::Nobody => 65534,
        }
    }
}

impl Image {
    /// How many files it has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A node. Its mounts go with the value.
pub struct Node {
    root: PathBuf,
    folder: PathBuf,
    /// Digests by file and time of change, which no program can set: so that of 12,000 files only those are read again
    /// that were touched.
    digests: Mutex<HashMap<FileState, Sha256>>,
    /// Where the root is a subvolume of btrfs: where all of that file system is mounted.
    btrfs: Option<PathBuf>,
}

/// Device, inode, size and time of the last change of a file.
type FileState = (u64, u64, u64, i64, i64);

impl Node {
    /// A new node in the sandbox, with nothing configured.
    ///
    /// # Panics
    /// If the root below cannot be made: the machine needs `make setup` and its archive.
    pub fn new(sandbox: &Sandbox, name: &str) -> Node {
        Node::over(minimal_root(), sandbox, name)
    }

    /// The same with dnf and rpm in place of apt and dpkg.
    ///
    /// # Panics
    /// As [`Node::new`].
    pub fn of_rpm(sandbox: &Sandbox, name: &str) -> Node {
        Node::over(rpm_root(), sandbox, name)
    }

    /// The same with systemd.
    ///
    /// # Panics
    /// As [`Node::new`].
    pub fn of_rpm_and_systemd(sandbox: &Sandbox, name: &str) -> Node {
        static ROOT: OnceLock<PathBuf> = OnceLock::new();
        let below = ROOT.get_or_init(|| {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/rpm-root.sh");
            succeed(Command::new(script).arg("booted")).trim().into()
        });
        Node::over(below, sandbox, name)
    }

    /// The same with systemd, to be booted in a container ([`crate::container`]).
    ///
    /// # Panics
    /// As [`Node::new`].
    pub fn of_systemd(sandbox: &Sandbox, name: &str) -> Node {
        static ROOT: OnceLock<PathBuf> = OnceLock::new();
        let below = ROOT.get_or_init(|| {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/node-root.sh");
            succeed(Command::new(script).arg("booted")).trim().into()
        });
        Node::over(below, sandbox, name)
    }

    /// A node above another one, which must not change any more and goes after it.
    ///
    /// # Panics
    /// As [`Node::new`].
    pub fn above(below: &Node, sandbox: &Sandbox, name: &str) -> Node {
        Node::over(&below.root, sandbox, name)
    }

    fn over(below: &Path, sandbox: &Sandbox, name: &str) -> Node {
        let folder = sandbox.path().join(name);
        let (root, upper, work) = (folder.join("root"), folder.join("upper"), folder.join("work"));
        for path in [&root, &upper, &work] {
            fs::create_dir_all(path).expect("folders for a node");
        }
        let options =
            format!("lowerdir={},upperdir={},workdir={}", below.display(), upper.display(), work.display());
        let overlay =
            mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_str()));
        if overlay.is_err() {
            // A container whose own root is an overlay takes no other one above it.
            succeed(command("cp").arg("-a").arg(below.join(".")).arg(&root));
        }
        let node = Node { root, folder, digests: Mutex::default(), btrfs: None };
        node.settle();
        node
    }

    /// A node with apt whose root is the subvolume `@` of a btrfs, as an installer lays it out: it can go back.
    ///
    /// # Panics
    /// As [`Node::new`]; or if this machine has no btrfs.
    pub fn on_btrfs(sandbox: &Sandbox, name: &str) -> Node {
        Node::copied_to_btrfs(minimal_root(), sandbox, name)
    }

    /// The same with all that is on another node.
    ///
    /// # Panics
    /// As [`Node::on_btrfs`].
    pub fn like(other: &Node, sandbox: &Sandbox, name: &str) -> Node {
        Node::copied_to_btrfs(&other.root, sandbox, name)
    }

    fn copied_to_btrfs(from: &Path, sandbox: &Sandbox, name: &str) -> Node {
        /// Sparse, and a few times what the root takes.
        const SIZE: u64 = 2 << 30;
        let folder = sandbox.path().join(name);
        let (root, top, image) = (folder.join("root"), folder.join("top"), folder.join("image"));
        for path in [&root, &top] {
            fs::create_dir_all(path).expect("folders for a node");
        }
        fs::File::create(&image).and_then(|file| file.set_len(SIZE)).expect("an image");
        succeed(command("mkfs.btrfs").arg("-q").arg(&image));
        succeed(command("mount").args(["-o", "loop"]).arg(&image).arg(&top));
        succeed(command("btrfs").args(["-q", "subvolume", "create"]).arg(top.join("@")));
        succeed(command("cp").arg("-ax").arg(from.join(".")).arg(top.join("@")));
        let node = Node { root, folder, digests: Mutex::default(), btrfs: Some(top) };
        node.mount_subvolume();
        node.settle();
        node
    }

    fn settle(&self) {
        // A case says when a node fetches, unless pacing is what it is about.
        self.write("/usr/lib/prestage/agent.d/00-lab.toml", "[fetch]\npaced = false\n");
        self.write("/etc/machine-id", "0123456789abcdef0123456789abcdef\n");
        self.new_boot();
    }

    fn mount_subvolume(&self) {
        let Some(top) = &self.btrfs else { return };
        let device = succeed(command("findmnt").args(["-n", "-o", "SOURCE"]).arg(top));
        let device = device.trim().split('[').next().unwrap_or_default();
        succeed(command("mount").args(["-o", "subvol=@", device]).arg(&self.root));
    }

    /// Another boot, as the node's kernel would say it.
    fn new_boot(&self) {
        let proc = self.path("/proc");
        let _ = umount2(&proc, MntFlags::MNT_DETACH);
        mount(Some("tmpfs"), &proc, Some("tmpfs"), MsFlags::empty(), Some("size=64k")).expect("a tmpfs");
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        self.write("/proc/sys/kernel/random/boot_id", format!("boot-{}\n", since.as_nanos()));
    }

    /// Boots it, as far as that can be seen from inside: what is mounted as its root is looked up anew, what lay in memory
    /// is gone.
    ///
    /// # Panics
    /// If something on it is still in use.
    pub fn boot(&self) {
        if self.btrfs.is_some() {
            // With what a killed agent has left mounted.
            succeed(command("umount").arg("-R").arg(&self.root));
            self.mount_subvolume();
        }
        let _ = fs::remove_dir_all(self.path("/run/prestage"));
        self.new_boot();
    }

    /// Keeps a node on btrfs as it is now, for [`Node::reset`].
    ///
    /// # Panics
    /// If it is on none, or was kept already.
    pub fn keep(&self) {
        let top = self.btrfs.as_ref().expect("a node on btrfs");
        succeed(
            command("btrfs").args(["-q", "subvolume", "snapshot"]).arg(top.join("@")).arg(top.join("kept")),
        );
    }

    /// Makes it again what it was when [`Node::keep`] was called, and boots it.
    ///
    /// # Panics
    /// If something on it is still in use.
    pub fn reset(&self) {
        let top = self.btrfs.as_ref().expect("a node on btrfs");
        succeed(command("umount").arg("-R").arg(&self.root));
        for entry in fs::read_dir(top).expect("the whole file system").flatten() {
            if entry.file_name() == "kept" {
                continue;
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                succeed(command("btrfs").args(["-q", "subvolume", "delete"]).arg(entry.path()));
            } else {
                fs::remove_file(entry.path()).expect("a file beside the subvolumes");
            }
        }
        succeed(
            command("btrfs").args(["-q", "subvolume", "snapshot"]).arg(top.join("kept")).arg(top.join("@")),
        );
        self.mount_subvolume();
        self.new_boot();
    }

    /// Whether the agent has asked for a boot since the last one.
    pub fn is_to_boot(&self) -> bool {
        self.path("/run/prestage/reboot").exists()
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

    /// Writes a file that can be run.
    ///
    /// # Panics
    /// If it cannot.
    pub fn script(&self, path: &str, text: &str) {
        self.write(path, text);
        fs::set_permissions(self.path(path), fs::Permissions::from_mode(0o755)).expect("a mode");
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

    /// Mounts /proc, which maintainer scripts of packages expect. It goes with the node.
    ///
    /// # Panics
    /// If it cannot be mounted.
    pub fn with_proc(self) -> Node {
        let proc = self.path("/proc");
        mount(Some("proc"), &proc, Some("proc"), MsFlags::empty(), None::<&str>).expect("/proc on the node");
        self
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

    /// Puts the agent on it as its packages and units would: the program, the user `prestage`, and the folders of
    /// `systemd/prestage.tmpfiles`.
    ///
    /// # Panics
    /// If that file has a line of a kind that is not known here.
    pub fn deploy(&self) {
        self.write("/usr/bin/prestage", fs::read(program("prestage")).expect("the program"));
        fs::set_permissions(self.path("/usr/bin/prestage"), fs::Permissions::from_mode(0o755))
            .expect("a mode");
        let id = User::Prestage.id();
        let passwd = self.read("/etc/passwd");
        self.write(
            "/etc/passwd",
            format!("{passwd}prestage:x:{id}:{id}::/var/lib/prestage:/usr/sbin/nologin\n"),
        );
        self.write("/etc/group", format!("{}prestage:x:{id}:\n", self.read("/etc/group")));
        for line in include_str!("../../systemd/prestage.tmpfiles").lines().filter(|l| !l.starts_with('#')) {
            let [kind, path, mode, user, group, _] = line.split_whitespace().collect::<Vec<_>>()[..] else {
                panic!("prestage.tmpfiles: {line}");
            };
            let path = self.path(path);
            match kind {
                "d" => fs::create_dir_all(&path).expect("a folder of prestage.tmpfiles"),
                "f" => drop(fs::File::create(&path).expect("a file of prestage.tmpfiles")),
                other => panic!("prestage.tmpfiles: {other} is not known here"),
            }
            let owner = |name| if name == "prestage" { id } else { User::Root.id() };
            chown(&path, Some(owner(user)), Some(owner(group))).expect("an owner");
            let mode = u32::from_str_radix(mode, 8).expect("a mode in octal");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
        }
    }

    /// A program of the node's own, in its root, with a user's rights and no others.
    pub fn run_as(&self, user: User, program: &str) -> Command {
        let (id, mut command) = (user.id(), command("chroot"));
        command.arg(format!("--userspec=+{id}:+{id}")).arg(format!("--groups=+{id}"));
        command.arg(&self.root).arg(program);
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

    /// Every file of the node but the agent's own, and what a package manager writes when it is only asked.
    ///
    /// # Panics
    /// If it cannot be read.
    pub fn image(&self) -> Image {
        let mut image = Image::default();
        let device = fs::metadata(&self.root).expect("the node's root").dev();
        self.add_folder(Path::new(""), device, &mut image);
        image
    }

    fn add_folder(&self, folder: &Path, device: u64, image: &mut Image) {
        for entry in fs::read_dir(self.root.join(folder)).expect("a folder of the node") {
            let entry = entry.expect("an entry");
            let path = folder.join(entry.file_name());
            let is_talk = TALK.iter().any(|talk| path.to_string_lossy().starts_with(talk));
            if is_talk || OWN_FOLDERS.iter().any(|own| path == Path::new(own)) {
                continue;
            }
            let meta = entry.metadata().expect("a file of the node");
            let kind = meta.file_type();
            let content = if kind.is_dir() && meta.dev() != device {
                Content::Mount
            } else if kind.is_dir() {
                self.add_folder(&path, device, image);
                Content::Folder
            } else if kind.is_symlink() {
                Content::Link(fs::read_link(entry.path()).expect("a link of the node"))
            } else if kind.is_file() {
                Content::File(meta.len(), self.digest(&entry.path(), &meta))
            } else {
                Content::Special(meta.rdev())
            };
            let entry = Entry { mode: meta.mode(), user: meta.uid(), group: meta.gid(), content };
            image.0.insert(path, entry);
        }
    }

    fn digest(&self, path: &Path, meta: &fs::Metadata) -> Sha256 {
        let state = (meta.dev(), meta.ino(), meta.len(), meta.ctime(), meta.ctime_nsec());
        let changed =
            UNIX_EPOCH + Duration::new(meta.ctime().unsigned_abs(), meta.ctime_nsec().unsigned_abs() as u32);
        let settled = SystemTime::now().duration_since(changed).is_ok_and(|age| age > SETTLED);
        let mut digests = self.digests.lock().expect("no thread panics with it");
        if let Some(digest) = digests.get(&state) {
            return *digest;
        }
        let mut file = fs::File::open(path).expect("a file of the node");
        let (digest, _) = Sha256::of_reader(&mut file).expect("a file of the node");
        if settled {
            digests.insert(state, digest);
        }
        digest
    }

    /// Reads every file again the next time.
    pub fn forget_digests(&self) {
        self.digests.lock().expect("no thread panics with it").clear();
    }

    /// Fails the case unless every file is as it was.
    ///
    /// # Panics
    /// With the files that are not.
    #[track_caller]
    pub fn assert_is(&self, before: &Image) {
        let different = before.differences(&self.image());
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
        let _ = umount2(&self.path("/proc"), MntFlags::MNT_DETACH);
        let _ = umount2(&self.root, MntFlags::MNT_DETACH);
        if let Some(top) = &self.btrfs {
            let _ = umount2(top, MntFlags::MNT_DETACH);
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The root that nodes with dnf lie over.
fn rpm_root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/rpm-root.sh");
        succeed(&mut Command::new(script)).trim().into()
    })
}

/// The root that nodes with apt lie over.
fn minimal_root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/node-root.sh");
        succeed(Command::new(script).arg("minimal")).trim().into()
    })
}
