//! An empty network namespace, and another root directory, for one child process.
//!
//! A namespace belongs to a thread: a short-lived thread enters a new one and starts the program from there, while the
//! rest of the agent (health checks on the host's loopback) stays where it is. So no program of ours has to be started
//! again inside, and nothing here is unsafe. See unshare(2), network_namespaces(7), mount_namespaces(7).

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use nix::ifaddrs::getifaddrs;
use nix::mount::{MsFlags, mount};
use nix::net::if_::InterfaceFlags;
use nix::sched::{CloneFlags, unshare};

/// Where and with what network a program runs.
#[derive(Clone, Debug)]
pub struct Isolation {
    /// Enter a network namespace that holds nothing but a `lo` that is down.
    pub no_network: bool,
    /// Use this directory as `/`, with the kernel's own file systems mounted in it for as long as the program runs.
    pub root: Option<PathBuf>,
}

/// What the program's thread saw of the network just before the program started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Each interface with `up` or `down`.
    pub interfaces: Vec<String>,
}

impl Isolation {
    /// Starts `command` inside. The outer result is the isolation's, the inner one the start of the program.
    ///
    /// # Errors
    /// If a namespace cannot be made, the root cannot be prepared, or the new namespace is not empty.
    pub(crate) fn spawn(&self, mut command: Command) -> io::Result<(io::Result<Child>, Seen)> {
        let isolation = self.clone();
        let thread = std::thread::Builder::new().name("isolation".into()).spawn(move || {
            let seen = isolation.enter()?;
            Ok((command.spawn(), seen))
        })?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the isolation thread died")))
    }

    /// Enters the namespaces, in this thread only.
    fn enter(&self) -> io::Result<Seen> {
        if self.no_network {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|e| failed("no network namespace could be made", e))?;
        }
        let seen = Seen { interfaces: interfaces()? };
        // Proof, not trust: what cannot be shown to be empty is not used.
        if self.no_network && seen.interfaces != ["lo down"] {
            return Err(io::Error::other(format!("the new network namespace holds {:?}", seen.interfaces)));
        }
        if let Some(root) = &self.root {
            // Implies CLONE_FS, so that the chroot below is this thread's alone.
            unshare(CloneFlags::CLONE_NEWNS).map_err(|e| failed("no mount namespace could be made", e))?;
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)?;
            mount_kernel_file_systems(root)?;
            nix::unistd::chroot(root)?;
            nix::unistd::chdir("/")?;
        }
        Ok(seen)
    }
}

fn failed(what: &str, error: nix::errno::Errno) -> io::Error {
    io::Error::new(io::Error::from(error).kind(), format!("{what}: {error}"))
}

/// Mounts /proc, /sys and /dev into `root`; they go with the namespace.
fn mount_kernel_file_systems(root: &Path) -> io::Result<()> {
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    for name in ["proc", "sys", "dev"] {
        let target = root.join(name);
        if target.is_dir() {
            let source = Path::new("/").join(name);
            crate::file::at(
                &target,
                mount(Some(&source), &target, None::<&str>, bind, None::<&str>).map_err(io::Error::from),
            )?;
        }
    }
    Ok(())
}

/// The network interfaces of this thread's namespace, each with `up` or `down`, sorted.
fn interfaces() -> io::Result<Vec<String>> {
    let mut out: Vec<String> = getifaddrs()?
        .map(|i| {
            let up = i.flags.contains(InterfaceFlags::IFF_UP);
            format!("{} {}", i.interface_name, if up { "up" } else { "down" })
        })
        .collect();
    out.sort();
    out.dedup();
    Ok(out)
}
