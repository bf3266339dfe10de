//! A node whose systemd is running, in a container of systemd-nspawn. `make test-packages` installs that.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::node::Node;
use crate::sandbox::{Output, Running, command, run};
use crate::wait::until;

/// The longest that a boot may take.
const BOOT: Duration = Duration::from_secs(60);

/// A booted node. It is ended with the value.
pub struct Booted {
    nspawn: Option<Running>,
    /// The container's init, as this machine numbers it.
    leader: u32,
    group: u32,
}

impl Booted {
    /// Boots it, with nspawn's options beside, and waits until systemd says that it is up.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn start(node: &Node, options: &[&str]) -> Booted {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/boot-container.sh");
        let nspawn = Running::start(command(script).arg(node.root()).args(options));
        let group = nspawn.id();
        let mut booted = Booted { nspawn: Some(nspawn), leader: 0, group };
        let deadline = Instant::now() + BOOT;
        loop {
            booted.leader = child_of(group);
            if booted.leader != 0 {
                let state = run(&mut booted.command("systemctl", &["is-system-running"])).stdout;
                if matches!(state.trim(), "running" | "degraded") {
                    return booted;
                }
            }
            let ended = booted.nspawn.as_mut().is_none_or(Running::has_ended);
            if ended || Instant::now() > deadline {
                panic!(
                    "the container does not boot: {}",
                    booted.nspawn.take().map(|n| n.kill().to_string()).unwrap_or_default()
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// A program of the container, in it.
    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = command("nsenter");
        command.args([
            "--target",
            &self.leader.to_string(),
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
            "--cgroup",
        ]);
        command.args(["--root", "--wd", "--", program]).args(args);
        command
    }

    /// Runs it to its end.
    pub fn run(&self, program: &str, args: &[&str]) -> Output {
        run(&mut self.command(program, args))
    }

    /// A property of a unit.
    pub fn property(&self, unit: &str, name: &str) -> String {
        let shown = self.run("systemctl", &["show", "--property", name, unit]).expect(0).stdout;
        shown.trim().strip_prefix(&format!("{name}=")).unwrap_or_default().to_owned()
    }

    /// What the journal has of a unit.
    pub fn journal(&self, unit: &str) -> String {
        self.run("journalctl", &["--no-pager", "--output", "short", "--unit", unit]).stdout
    }

    /// Waits until `done` is true.
    ///
    /// # Panics
    /// If it is not within a minute.
    #[track_caller]
    pub fn until(&self, what: &str, done: impl Fn(&Booted) -> bool) {
        until(what, BOOT, || done(self));
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        if self.leader != 0 {
            // SIGRTMIN+3 to systemd: halt.
            let _ = command("kill").args(["-37", &self.leader.to_string()]).status();
        }
        if let Some(nspawn) = self.nspawn.take() {
            nspawn.wait_for(Duration::from_secs(20));
        }
        // What it left of control groups, wherever this machine has the unified ones.
        for base in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
            let group = format!("{base}/prestage-container-{}", self.group);
            let _ =
                command("find").args([&group, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";"]).output();
        }
    }
}

/// The first child of a process; 0 if it has none yet.
fn child_of(process: u32) -> u32 {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    children.split_whitespace().next().and_then(|c| c.parse().ok()).unwrap_or(0)
}
