//! Time, CPU and peak memory of a program.
//!
//! What GNU time calls the maximum resident set is that of the largest process of the tree; a node's verbs start apt,
//! which is larger than they are. So the program's own peak is read from `/proc/PID/status` while it runs: VmHWM only
//! grows, so that the last reading before the end is its peak.

use std::io;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

/// How often the program's memory is read.
const INTERVAL: Duration = Duration::from_millis(2);

/// What a program needed.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// How it ended.
    pub status: ExitStatus,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// CPU seconds, user and system, children included.
    pub cpu_seconds: f64,
    /// Peak memory of the largest process of the tree, in KiB.
    pub tree_kib: u64,
    /// Peak memory of the program itself, in KiB.
    pub own_kib: u64,
}

/// Runs `command` to its end. CPU time is what this process's children have used meanwhile: run one at a time.
///
/// # Errors
/// If it cannot be started.
pub fn measure(command: &mut Command) -> io::Result<Measured> {
    let before = cpu_of_children()?;
    let start = Instant::now();
    let mut child = command.spawn()?;
    let mut own_kib = 0;
    let status = loop {
        own_kib = own_kib.max(peak_kib(&child));
        if let Some(status) = child.try_wait()? {
            break status;
        }
        std::thread::sleep(INTERVAL);
    };
    let seconds = start.elapsed().as_secs_f64();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    Ok(Measured {
        status,
        seconds,
        cpu_seconds: cpu_of_children()? - before,
        tree_kib: u64::try_from(usage.max_rss()).unwrap_or(0),
        own_kib,
    })
}

/// The child's peak memory so far; 0 once it is gone.
pub fn peak_kib(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}

fn cpu_of_children() -> io::Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    Ok((usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_own_peak_is_not_that_of_its_children() {
        // The child of the shell holds 64 MiB; the shell does not.
        let script = "dd if=/dev/zero of=/dev/null bs=64M count=1 2>/dev/null; sleep 0.05";
        let measured = measure(Command::new("sh").args(["-c", script])).unwrap();
        assert!(measured.status.success());
        assert!(measured.own_kib > 100 && measured.own_kib < 32 * 1024, "{measured:?}");
        assert!(measured.tree_kib > 64 * 1024, "{measured:?}");
    }
}
