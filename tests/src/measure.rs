//! Time, CPU and peak memory of a program.
//!
//! What GNU time calls the maximum resident set is that of the largest process of the tree; a node's verbs start apt,
//! which is larger than they are. So the program is stopped at its end, while it still has its memory, and its own peak is
//! read from `/proc/PID/status` (VmHWM; `PTRACE_O_TRACEEXIT` of ptrace(2)). It runs at its own speed until then.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus};
use std::time::Instant;

use nix::sys::ptrace;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

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
    /// Peak memory of the program itself, in KiB; 0 if it ended before it could be looked at, within microseconds.
    pub own_kib: u64,
}

/// Runs `command` to its end. CPU time is what this process's children have used meanwhile: run one at a time.
///
/// # Errors
/// If it cannot be started or waited for.
pub fn measure(command: &mut Command) -> io::Result<Measured> {
    let before = cpu_of_children()?;
    let start = Instant::now();
    let child = command.spawn()?;
    let (status, own_kib) = traced_to_its_end(&child)?;
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

/// The same by a [`prestage-lab`](../bin/lab.rs), which this program is: the largest process of the tree is then one of this
/// command's, and not of what ran before it.
///
/// # Errors
/// As [`measure`]; or if that program says nothing.
pub fn measure_apart(command: &Command) -> io::Result<Measured> {
    let said = tempfile::NamedTempFile::new()?;
    let mut apart = Command::new(std::env::current_exe()?);
    apart.arg("measure").arg(said.path()).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => apart.env(name, value),
            None => apart.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        apart.current_dir(folder);
    }
    let status = apart.stdout(std::process::Stdio::null()).status()?;
    let text = std::fs::read_to_string(said.path())?;
    let words: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let &[seconds, cpu_seconds, tree_kib, own_kib] = words.as_slice() else {
        return Err(io::Error::other(format!("it says {text:?}")));
    };
    Ok(Measured { status, seconds, cpu_seconds, tree_kib: tree_kib as u64, own_kib: own_kib as u64 })
}

/// How it ended, and its peak memory in KiB.
fn traced_to_its_end(child: &Child) -> io::Result<(ExitStatus, u64)> {
    let pid = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    // Not of one that has ended; how it did is told all the same.
    let _ = ptrace::seize(pid, ptrace::Options::PTRACE_O_TRACEEXIT);
    let mut own_kib = 0;
    loop {
        match waitpid(pid, None)? {
            WaitStatus::Exited(_, code) => return Ok((ExitStatus::from_raw(code << 8), own_kib)),
            WaitStatus::Signaled(_, signal, _) => return Ok((ExitStatus::from_raw(signal as i32), own_kib)),
            WaitStatus::PtraceEvent(..) => {
                own_kib = own_kib.max(peak_kib(child));
                ptrace::cont(pid, None)?;
            }
            WaitStatus::Stopped(_, signal) => ptrace::cont(pid, signal)?,
            _ => {}
        }
    }
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
        let script = "dd if=/dev/zero of=/dev/null bs=64M count=1 2>/dev/null; true";
        let measured = measure(Command::new("sh").args(["-c", script])).unwrap();
        assert!(measured.status.success());
        assert!(measured.own_kib > 100 && measured.own_kib < 32 * 1024, "{measured:?}");
        assert!(measured.tree_kib > 64 * 1024, "{measured:?}");
    }

    #[test]
    fn the_peak_of_a_program_that_ends_at_once_is_known_and_its_end_is_told() {
        let measured = measure(Command::new("sh").args(["-c", "ls / >/dev/null; exit 7"])).unwrap();
        assert_eq!(measured.status.code(), Some(7));
        assert!(measured.own_kib > 100, "{measured:?}");
        let killed = measure(Command::new("sh").args(["-c", "kill -9 $$"])).unwrap();
        assert_eq!(killed.status.signal(), Some(9));
    }
}
