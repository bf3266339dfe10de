//! A line between a centre and a node: network namespaces of this process and what joins them, which the kernel
//! takes away with the value.

use std::fs::File;
use std::os::fd::AsRawFd as _;

use nix::sched::{CloneFlags, setns, unshare};

use crate::sandbox::{command, succeed};

/// The centre's address.
pub const CENTRE: &str = "10.64.0.1";

/// The node's address.
pub const NODE: &str = "10.64.1.2";

/// A network namespace, kept by its file.
pub struct Namespace(File);

impl Namespace {
    fn new() -> Namespace {
        let thread = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
            ip("link set lo up");
            File::open("/proc/thread-self/ns/net").expect("a namespace has a file")
        });
        Namespace(thread.join().expect("a network namespace"))
    }

    /// Does something in it, in a thread of its own; programs that are started there stay there.
    ///
    /// # Panics
    /// If it cannot be entered.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).expect("a namespace of ours");
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// Both ends, and the router between them.
pub struct Line {
    /// Where servers are.
    pub centre: Namespace,
    /// Where the node is.
    pub node: Namespace,
    /// What is between.
    pub router: Namespace,
}

impl Line {
    /// A line that carries `rate` (as tc(8) writes it) to the node, with a queue of a quarter of a second before it, as a
    /// cheap router has.
    ///
    /// # Panics
    /// If the kernel has no veth or tbf.
    pub fn new(rate: &str) -> Line {
        let line = Line { centre: Namespace::new(), node: Namespace::new(), router: Namespace::new() };
        // The queue is not where the sender is: a sender of Linux sees its own machine's queue and keeps it short. And
        // segments are made where they are sent, or tbf would see packets of 64 KiB.
        line.router.within(|| {
            for (there, near, far) in
                [(&line.centre, "10.64.0.254", CENTRE), (&line.node, "10.64.1.254", NODE)]
            {
                let name = if far == CENTRE { "to-centre" } else { "to-node" };
                ip(&format!(
                    "link add {name} gso_max_segs 1 type veth peer name line netns {} gso_max_segs 1",
                    there.path()
                ));
                ip(&format!("addr add {near}/24 dev {name}"));
                ip(&format!("link set {name} up"));
                there.within(|| {
                    ip(&format!("addr add {far}/24 dev line"));
                    ip("link set line up");
                    ip(&format!("route add default via {near}"));
                });
            }
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("a router");
            let shape = format!("qdisc add dev to-node root tbf rate {rate} burst 5kb latency 250ms");
            succeed(command("tc").args(shape.split(' ')));
        });
        line
    }

    /// A network of one link, on which both are; without a router.
    ///
    /// # Panics
    /// If the kernel has no veth.
    pub fn direct() -> Line {
        let line = Line { centre: Namespace::new(), node: Namespace::new(), router: Namespace::new() };
        let there = line.node.path();
        line.centre.within(|| {
            ip(&format!("link add line type veth peer name line netns {there}"));
            ip(&format!("addr add {CENTRE}/16 dev line"));
            ip("link set line up");
        });
        line.node.within(|| {
            ip(&format!("addr add {NODE}/16 dev line"));
            ip("link set line up");
        });
        line
    }
}

fn ip(line: &str) {
    succeed(command("ip").args(line.split(' ')));
}
