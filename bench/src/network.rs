//! Stores, a wide-area network and a data centre, as network namespaces joined by shaped links.
//!
//! ```text
//!  centre ══ tbf: uplink ══ wire: delay, loss ══ wan ══ tbf: a store's line ══ store 0: its nodes
//!                                                    ══ tbf: a store's line ══ store 1 …
//! ```
//!
//! All of it is in namespaces of this process, which the kernel takes away with it, whatever ends it.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::Result;
use crate::scale::Scale;
use crate::wire;

/// The data centre's address.
pub const CENTRE: &str = "10.64.0.1";

/// The data centre's interface, whose counters are those of the uplink.
pub const UPLINK: &str = "uplink";

/// How much a queue in front of a bottleneck holds, as the time that it takes to send it: a cheap router's, and a data
/// centre's.
const STORE_QUEUE: &str = "250ms";
const UPLINK_QUEUE: &str = "60ms";

/// The private world that the network is in: nothing here is seen from outside, and nothing outlives this process.
///
/// # Errors
/// If the machine does not allow it: root is needed.
pub fn enter_own_world(work: &Path) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).map_err(|e| {
        format!("no namespaces of its own: {e}; run it as root, where containers may be nested")
    })?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    fs::create_dir_all("/run/netns")?;
    for (target, kind) in [(work, "tmpfs"), (Path::new("/run/netns"), "tmpfs"), (Path::new("/sys"), "sysfs")]
    {
        mount(Some(kind), target, Some(kind), MsFlags::empty(), None::<&str>)
            .map_err(|e| format!("{kind} on {}: {e}", target.display()))?;
    }
    ip(None, "link set lo up\n")
}

/// A network namespace.
pub struct Namespace {
    name: String,
    file: File,
}

impl Namespace {
    fn new(name: &str) -> Result<Namespace> {
        run(Command::new("ip").args(["netns", "add", name]), "")?;
        let file = File::open(Path::new("/run/netns").join(name))?;
        let namespace = Namespace { name: name.to_owned(), file };
        ip(Some(&namespace), "link set lo up\n")?;
        namespace.within(|| -> Result<()> {
            // What most servers use, or what is nearest to it: a kernel with another default lets a namespace have no
            // other one but Reno, which on lines as thin as these does the same.
            let control = "/proc/sys/net/ipv4/tcp_congestion_control";
            fs::write(control, "cubic").or_else(|_| fs::write(control, "reno"))?;
            // No memory from one contender to the next.
            Ok(fs::write("/proc/sys/net/ipv4/tcp_no_metrics_save", "1")?)
        })??;
        Ok(namespace)
    }

    /// Moves the calling thread into it; what it starts is in it too.
    ///
    /// # Errors
    /// If the kernel does not let it.
    pub fn enter(&self) -> Result<()> {
        setns(&self.file, CloneFlags::CLONE_NEWNET)
            .map_err(|e| format!("namespace {}: {e}", self.name).into())
    }

    /// Does something in it, in a thread of its own.
    ///
    /// # Errors
    /// If it cannot be entered.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| self.enter().map(|()| work()));
            thread.join().unwrap_or_else(|_| Err("a thread in a namespace died".into()))
        })
    }
}

/// The network.
pub struct Network {
    /// Where the servers are.
    pub centre: Namespace,
    /// What is between.
    pub wan: Namespace,
    /// Where the nodes are.
    pub stores: Vec<Namespace>,
}

impl Network {
    /// Builds it. `folder`: for the device files of the wire.
    ///
    /// # Errors
    /// If the kernel has no veth, macvtap or tbf.
    pub fn build(scale: &Scale, folder: &Path) -> Result<Network> {
        let (centre, wan) = (Namespace::new("centre")?, Namespace::new("wan")?);

        // Two cables that end in this process, and the wire between their ends. Segments are made where they are sent,
        // or a single loss would be that of 64 KiB.
        ip(
            None,
            &format!(
                "link add {UPLINK} gso_max_segs 1 netns centre type veth peer name near\n\
                 link add downlink gso_max_segs 1 netns wan type veth peer name far\n\
                 link add link near name tap-near txqueuelen 4000 type macvtap mode passthru\n\
                 link add link far name tap-far txqueuelen 4000 type macvtap mode passthru\n\
                 link set near up\nlink set far up\nlink set tap-near up\nlink set tap-far up\n"
            ),
        )?;
        let rate = scale.uplink;
        for (at, name) in [(&centre, UPLINK), (&wan, "downlink")] {
            ip(Some(at), &format!("link set {name} up\n"))?;
            tc(
                at,
                &format!("qdisc add dev {name} root tbf rate {rate}bit burst 16kb latency {UPLINK_QUEUE}\n"),
            )?;
        }
        ip(Some(&centre), &format!("addr add {CENTRE}/24 dev {UPLINK}\nroute add default via 10.64.0.2\n"))?;
        ip(Some(&wan), "addr add 10.64.0.2/24 dev downlink\n")?;
        wan.within(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1"))??;
        wire::join(
            [tap(folder, "tap-near")?, tap(folder, "tap-far")?],
            scale.round_trip / 2,
            scale.loss_ppm,
            scale.seed,
        )?;

        let mut stores = Vec::new();
        let (mut links, mut shapes) = (String::new(), String::new());
        for store in 0..scale.stores {
            stores.push(Namespace::new(&format!("store-{store}"))?);
            let line = line(store);
            links += &format!(
                "link add {line} gso_max_segs 1 type veth peer name line netns store-{store} gso_max_segs 1\n\
                 addr add {} dev {line}\nlink set {line} up\nroute add {} dev {line}\n",
                gateway(store),
                subnet(store),
            );
            shapes += &format!(
                "qdisc add dev {line} root tbf rate {}bit burst 5kb latency {STORE_QUEUE}\n",
                scale.store_rate
            );
        }
        ip(Some(&wan), &links)?;
        tc(&wan, &shapes)?;
        for (store, namespace) in stores.iter().enumerate() {
            let mut lines = String::from("link set line up\n");
            for node in 0..scale.nodes_per_store {
                lines += &format!("addr add {}/24 dev line\n", address(store, node));
            }
            ip(Some(namespace), &(lines + &format!("route add default via {}\n", gateway(store))))?;
            let rate = scale.store_upstream();
            tc(
                namespace,
                &format!("qdisc add dev line root tbf rate {rate}bit burst 5kb latency {STORE_QUEUE}\n"),
            )?;
        }
        Ok(Network { centre, wan, stores })
    }

    /// Cuts a store's line, or joins it again. What is sent to it meanwhile vanishes.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn set_line(&self, store: usize, whole: bool) -> Result<()> {
        let route = match whole {
            true => format!("route replace {} dev {}\n", subnet(store), line(store)),
            false => format!("route replace blackhole {}\n", subnet(store)),
        };
        ip(Some(&self.wan), &route)
    }

    /// Resets every connection between a store and the data centre.
    ///
    /// # Errors
    /// If `ss` cannot.
    pub fn reset(&self, store: usize) -> Result<()> {
        let kill = || run(Command::new("ss").args(["--kill", "--tcp", "--no-header", "dst", CENTRE]), "");
        self.stores[store].within(kill)?
    }
}

/// The wide-area network's end of a store's line.
pub fn line(store: usize) -> String {
    format!("store{store}")
}

/// A node's address.
pub fn address(store: usize, node: usize) -> String {
    format!("{}.{}", network(store), 10 + node)
}

fn network(store: usize) -> String {
    format!("10.{}.{}", 65 + store / 250, store % 250)
}

fn gateway(store: usize) -> String {
    format!("{}.1", network(store))
}

fn subnet(store: usize) -> String {
    format!("{}.0/24", network(store))
}

/// The device of a macvtap interface. Not the one in /dev: names there are shared with other namespaces.
fn tap(folder: &Path, interface: &str) -> Result<PathBuf> {
    let classes = PathBuf::from("/sys/class/net").join(interface).join("macvtap");
    let class = fs::read_dir(&classes)?.next().ok_or_else(|| format!("{}: empty", classes.display()))??;
    let number = fs::read_to_string(class.path().join("dev"))?;
    let (major, minor) = number.trim().split_once(':').ok_or("a device has a number")?;
    let path = folder.join(interface);
    mknod(&path, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, makedev(major.parse()?, minor.parse()?))?;
    Ok(path)
}

fn ip(namespace: Option<&Namespace>, lines: &str) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(namespace) = namespace {
        command.args(["-netns", &namespace.name]);
    }
    run(command.args(["-batch", "-"]), lines)
}

fn tc(namespace: &Namespace, lines: &str) -> Result<()> {
    run(Command::new("tc").args(["-netns", &namespace.name, "-batch", "-"]), lines)
}

/// Runs a short program that must succeed.
pub fn run(command: &mut Command, input: &str) -> Result<()> {
    let line = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("{line}: {e}; `make setup` installs what is needed"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{line}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()).into())
}
