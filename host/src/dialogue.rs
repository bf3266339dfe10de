//! Another program that is asked one thing on its standard input and answers on its standard output, within a time.
//!
//! It is the operator's own, and may talk to him: it keeps his environment, writes to his standard error, and gets his
//! terminal while it runs. For what runs without a person, see [`crate::command`].

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal, killpg};
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};

/// How often it is looked whether a program has ended that has closed its output: it mostly has.
const LOOK: Duration = Duration::from_millis(5);

/// Why there is no answer. Each reads on after "the program".
#[derive(Debug)]
pub enum NoAnswer {
    /// It could not be started.
    Start(io::Error),
    /// It had not ended within the time, and was killed with all that it had started.
    Late(Duration),
    /// It wrote more than this many bytes, and was killed.
    Endless(u64),
    /// It ended with another code than 0, or by a signal.
    Failed(ExitStatus),
    /// Its output could not be read.
    Output(io::Error),
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoAnswer::Start(error) => write!(f, "could not be started: {error}"),
            NoAnswer::Late(time) => write!(f, "had not ended after {} s and was killed", time.as_secs_f32()),
            NoAnswer::Endless(limit) => write!(f, "wrote more than {limit} bytes and was killed"),
            NoAnswer::Failed(status) => write!(f, "ended with {status}"),
            NoAnswer::Output(error) => write!(f, "could not be read from: {error}"),
        }
    }
}

impl std::error::Error for NoAnswer {}

/// Runs `command`, writes `question` to its standard input, and returns what it has written when it has ended with
/// code 0. It may leave some or all of the question unread. Its standard error is ours unless `command` says otherwise.
///
/// # Errors
/// If it does not start, writes more than `limit` bytes, has not ended after `time`, or fails.
pub fn ask(mut command: Command, question: Vec<u8>, limit: u64, time: Duration) -> Result<Vec<u8>, NoAnswer> {
    let end = Instant::now() + time;
    // A process group of its own, so that all of it can be killed.
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(NoAnswer::Start)?;
    let _terminal = Terminal::lend(group(&child));
    // Both pipes are served by threads: a program may answer before it reads, or do neither.
    if let Some(mut pipe) = child.stdin.take() {
        thread::spawn(move || pipe.write_all(&question));
    }
    let (sender, answers) = mpsc::channel();
    if let Some(pipe) = child.stdout.take() {
        thread::spawn(move || {
            let mut answer = Vec::new();
            // If nobody waits any more, it has been said why.
            let _ = sender.send(pipe.take(limit + 1).read_to_end(&mut answer).map(|_| answer));
        });
    }
    let answer = match answers.recv_timeout(time) {
        Ok(Ok(answer)) if answer.len() as u64 <= limit => answer,
        Ok(Ok(_)) => return Err(kill(&mut child, NoAnswer::Endless(limit))),
        Ok(Err(error)) => return Err(kill(&mut child, NoAnswer::Output(error))),
        Err(_) => return Err(kill(&mut child, NoAnswer::Late(time))),
    };
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(answer),
            Ok(Some(status)) => return Err(NoAnswer::Failed(status)),
            Ok(None) if Instant::now() < end => thread::sleep(LOOK),
            Ok(None) => return Err(kill(&mut child, NoAnswer::Late(time))),
            Err(error) => return Err(kill(&mut child, NoAnswer::Output(error))),
        }
    }
}

/// Kills a program that has not been waited for, and what it has started.
fn kill(child: &mut Child, why: NoAnswer) -> NoAnswer {
    // Nothing but "there is no such process" can come of either, and then there is nothing left to do.
    let _ = killpg(group(child), Signal::SIGKILL);
    let _ = child.wait();
    why
}

fn group(child: &Child) -> Pid {
    // The kernel's pid_t is an i32, which std shows as u32.
    Pid::from_raw(child.id().cast_signed())
}

/// The operator's terminal while it is another group's. A program in a group of its own that asks for a PIN on
/// /dev/tty would be stopped by the kernel (SIGTTIN) unless that group is the terminal's foreground one.
struct Terminal {
    terminal: File,
    own: Pid,
}

impl Terminal {
    /// Gives the terminal to `group`, if there is one and it is ours to give.
    fn lend(group: Pid) -> Option<Self> {
        let terminal = File::options().read(true).write(true).open("/dev/tty").ok()?;
        let own = getpgrp();
        if tcgetpgrp(&terminal).ok()? != own {
            return None;
        }
        give(&terminal, group).ok()?;
        // It may have asked, and been stopped, before the terminal was its own.
        let _ = killpg(group, Signal::SIGCONT);
        Some(Terminal { terminal, own })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A terminal that has gone away meanwhile needs nobody in its foreground.
        let _ = give(&self.terminal, self.own);
    }
}

/// tcsetpgrp(3), which stops a caller that is in the background unless it blocks SIGTTOU.
fn give(terminal: &File, group: Pid) -> nix::Result<()> {
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGTTOU);
    let before = blocked.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK)?;
    let given = tcsetpgrp(terminal, group);
    before.thread_set_mask()?;
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    fn ask_shell(script: &str, time: Duration) -> Result<Vec<u8>, NoAnswer> {
        ask(shell(script), b"question".to_vec(), 100, time)
    }

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(200);

    #[test]
    fn the_question_is_read_and_the_answer_returned() {
        assert_eq!(ask_shell("tr a-z A-Z", LONG).unwrap(), b"QUESTION");
    }

    #[test]
    fn a_large_question_need_not_be_read() {
        let answer = ask(shell("echo no"), vec![b' '; 10_000_000], 100, LONG);
        assert_eq!(answer.unwrap(), b"no\n");
    }

    #[test]
    fn a_failure_counts_whatever_was_answered() {
        assert!(matches!(ask_shell("cat; exit 3", LONG), Err(NoAnswer::Failed(s)) if s.code() == Some(3)));
    }

    #[test]
    fn what_never_ends_its_answer_is_killed() {
        assert!(matches!(ask_shell("exec yes", LONG), Err(NoAnswer::Endless(100))));
    }

    #[test]
    fn what_never_answers_is_killed() {
        assert!(matches!(ask_shell("sleep 1000", SHORT), Err(NoAnswer::Late(_))));
        // Also if it has closed its output.
        assert!(matches!(ask_shell("exec sleep 1000 >&-", SHORT), Err(NoAnswer::Late(_))));
    }

    #[test]
    fn what_it_has_started_is_killed_with_it() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut command = shell("sleep 30 & wait");
        command.stderr(writer);
        let begun = Instant::now();
        assert!(matches!(ask(command, Vec::new(), 100, SHORT), Err(NoAnswer::Late(_))));
        // Whoever is alive of the group still holds the pipe open.
        reader.read_to_end(&mut Vec::new()).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
}
