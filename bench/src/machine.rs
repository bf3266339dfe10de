//! A machine's power: what runs on it dies with it, and is not there again until somebody starts it.

use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, Stdio};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::Result;

/// How a program on it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this code.
    Code(i32),
    /// With the power.
    Cut,
    /// The bench is over.
    Over,
}

/// A machine, on which programs run.
#[derive(Default)]
pub struct Machine {
    power: Mutex<Power>,
    changed: Condvar,
}

#[derive(Default)]
struct Power {
    off: bool,
    over: bool,
    /// How often it was cut.
    cuts: u32,
    /// The process groups of what runs.
    groups: Vec<Pid>,
}

impl Machine {
    /// Runs a program to its end, as soon as there is power.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn run(&self, command: &mut Command) -> Result<Ended> {
        let mut power = self.power();
        while power.off && !power.over {
            power = self.changed.wait(power).unwrap_or_else(PoisonError::into_inner);
        }
        if power.over {
            return Ok(Ended::Over);
        }
        command.stdin(Stdio::null()).process_group(0);
        let mut child = command.spawn().map_err(|e| format!("{command:?}: {e}"))?;
        let id = Pid::from_raw(i32::try_from(child.id())?);
        let cuts = power.cuts;
        power.groups.push(id);
        drop(power);
        // Not reaped yet: its number stays its own until nobody can kill it by that number any more.
        while waitid(Id::Pid(id), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).is_err() {}
        let mut power = self.power();
        let _ = killpg(id, Signal::SIGKILL); // what it has left behind
        power.groups.retain(|group| *group != id);
        let status = child.wait()?;
        Ok(match (power.over, power.cuts > cuts) {
            (true, _) => Ended::Over,
            (false, true) => Ended::Cut,
            (false, false) => Ended::Code(status.code().or(status.signal().map(|s| 128 + s)).unwrap_or(-1)),
        })
    }

    /// Waits; less long, if the power is cut or the bench is over meanwhile. Returns whether it was the whole time.
    pub fn wait(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        let mut power = self.power();
        let cuts = power.cuts;
        loop {
            if power.over || power.cuts > cuts {
                return false;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            power = self.changed.wait_timeout(power, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until there is power. Returns whether the bench goes on.
    pub fn boot(&self) -> bool {
        let mut power = self.power();
        while power.off && !power.over {
            power = self.changed.wait(power).unwrap_or_else(PoisonError::into_inner);
        }
        !power.over
    }

    /// Cuts its power: `kill -9`.
    pub fn cut(&self) {
        let mut power = self.power();
        power.off = true;
        power.cuts += 1;
        self.kill(&power);
    }

    /// Gives it power again.
    pub fn restore(&self) {
        self.power().off = false;
        self.changed.notify_all();
    }

    /// Ends everything on it, for good.
    pub fn end(&self) {
        let mut power = self.power();
        power.over = true;
        self.kill(&power);
    }

    fn kill(&self, power: &Power) {
        for group in &power.groups {
            let _ = killpg(*group, Signal::SIGKILL);
        }
        self.changed.notify_all();
    }

    fn power(&self) -> MutexGuard<'_, Power> {
        self.power.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    /// Whether anything of a process group is left; a zombie may be until init has seen it.
    fn lives(group: Pid) -> bool {
        std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            // proc_pid_stat(5): pid (comm) state ppid pgrp …
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let fields: Vec<&str> = stat.rsplit_once(") ").map_or(vec![], |s| s.1.split(' ').collect());
            fields.get(2) == Some(&group.to_string().as_str()) && fields[0] != "Z"
        })
    }

    fn group(machine: &Machine) -> Pid {
        loop {
            if let Some(group) = machine.power().groups.first() {
                return *group;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_power_cut_ends_a_program_and_its_children() {
        let machine = Machine::default();
        std::thread::scope(|scope| {
            let ended = scope.spawn(|| machine.run(&mut shell("sleep 600 & sleep 600")).unwrap());
            let group = group(&machine);
            machine.cut();
            assert_eq!(ended.join().unwrap(), Ended::Cut);
            while lives(group) {
                std::thread::yield_now();
            }
        });
    }

    #[test]
    fn what_a_program_leaves_behind_ends_with_it() {
        let machine = Machine::default();
        let folder = tempfile::tempdir().unwrap();
        let script = format!("sleep 600 & echo $$ >{}/group", folder.path().display());
        assert_eq!(machine.run(&mut shell(&script)).unwrap(), Ended::Code(0));
        let group = std::fs::read_to_string(folder.path().join("group")).unwrap();
        while lives(Pid::from_raw(group.trim().parse().unwrap())) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn nothing_starts_without_power_and_nothing_at_all_when_the_bench_is_over() {
        let machine = Machine::default();
        machine.cut();
        std::thread::scope(|scope| {
            let next = scope.spawn(|| machine.run(&mut shell("exit 3")).unwrap());
            for _ in 0..10_000 {
                assert!(machine.power().groups.is_empty());
                std::thread::yield_now();
            }
            machine.restore();
            assert_eq!(next.join().unwrap(), Ended::Code(3));
        });
        machine.end();
        assert_eq!(machine.run(&mut shell("exit 0")).unwrap(), Ended::Over);
        assert!(!machine.boot() && !machine.wait(Duration::from_secs(600)));
    }
}
