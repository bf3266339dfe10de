//! Another program: run with a fixed environment, its output read while it runs, the end of its stderr in the error.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use crate::isolation::{Isolation, Seen};

/// How much of a failed program's stderr is kept, for whoever knows what to look for in it.
const STDERR_KEPT: usize = 16 * 1024;

/// How many of its last lines an error quotes.
const STDERR_QUOTED: usize = 4;

/// How much output [`Command::output`] keeps: a full `dpkg-query` of a large desktop is below 1 MiB.
const MAX_OUTPUT: u64 = 16 * 1024 * 1024;

/// A program and its arguments, with nothing inherited but what is said here.
#[derive(Clone, Debug)]
pub struct Command {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    isolation: Option<Isolation>,
}

/// Why a program did not succeed.
#[derive(Debug)]
pub enum CommandError {
    /// It could not be started.
    Start {
        /// The program.
        program: String,
        /// Why.
        error: io::Error,
    },
    /// The namespace that it must run in could not be made.
    Isolation {
        /// The program.
        program: String,
        /// Why.
        error: io::Error,
    },
    /// It ended with another code than 0, or by a signal.
    Failed {
        /// The program and its arguments.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote to stderr.
        stderr: String,
    },
    /// Its output could not be read.
    Output {
        /// The program.
        program: String,
        /// Why.
        error: io::Error,
    },
}

impl CommandError {
    /// The exit code, if the program ran and ended by itself.
    pub fn code(&self) -> Option<i32> {
        match self {
            CommandError::Failed { status, .. } => status.code(),
            _ => None,
        }
    }

    /// The end of stderr, if the program ran.
    pub fn stderr(&self) -> &str {
        match self {
            CommandError::Failed { stderr, .. } => stderr,
            _ => "",
        }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommandError::Start { program, error } => write!(f, "{program} could not be started: {error}"),
            CommandError::Isolation { program, error } => {
                write!(f, "{program} was not started, because it could not be isolated: {error}")
            }
            CommandError::Failed { command, status, stderr } => {
                write!(f, "{command} ended with {status}")?;
                let lines: Vec<&str> = stderr.lines().filter(|l| !l.trim().is_empty()).collect();
                if !lines.is_empty() {
                    write!(f, ": {}", lines[lines.len().saturating_sub(STDERR_QUOTED)..].join("; "))?;
                }
                Ok(())
            }
            CommandError::Output { program, error } => {
                write!(f, "the output of {program} could not be read: {error}")
            }
        }
    }
}

impl std::error::Error for CommandError {}

/// What a program that succeeded wrote.
#[derive(Debug, Default)]
pub struct Output {
    /// Standard output.
    pub stdout: String,
    /// What the namespace looked like, if it was isolated.
    pub seen: Option<Seen>,
}

impl Command {
    /// A program, looked up in the system's standard directories.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let env = [
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("LC_ALL", "C.UTF-8"),
            ("HOME", "/root"),
        ];
        Command {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: env.iter().map(|(k, v)| (k.into(), v.into())).collect(),
            isolation: None,
        }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// One environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Run it in this root directory and, if `isolation` says so, without a network.
    #[must_use]
    pub fn isolated(mut self, isolation: Isolation) -> Self {
        self.isolation = Some(isolation);
        self
    }

    /// The command line, for messages.
    pub fn line(&self) -> String {
        let words = std::iter::once(&self.program).chain(&self.args);
        words.map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    /// Runs it to its end; its output in full, for what is small.
    ///
    /// # Errors
    /// If it does not start, fails, or writes more than 16 MiB or other than UTF-8.
    pub fn output(&self) -> Result<Output, CommandError> {
        let mut stdout = String::new();
        let seen = self.lines(&mut |line| {
            if stdout.len() as u64 + line.len() as u64 > MAX_OUTPUT {
                return Err(io::Error::new(
                    io::ErrorKind::FileTooLarge,
                    format!("more than {MAX_OUTPUT} bytes"),
                ));
            }
            stdout.push_str(line);
            stdout.push('\n');
            Ok(())
        })?;
        Ok(Output { stdout, seen })
    }

    /// Runs it to its end and hands over each line of its standard output as it comes, without the newline. What is
    /// not UTF-8 is replaced. An error of `line` does not stop the program (a package manager must never be killed
    /// half-way) but is returned after it has ended.
    ///
    /// # Errors
    /// If it does not start, fails, or `line` failed.
    pub fn lines(&self, line: &mut dyn FnMut(&str) -> io::Result<()>) -> Result<Option<Seen>, CommandError> {
        let program = self.program.to_string_lossy().into_owned();
        let mut command = std::process::Command::new(&self.program);
        command.args(&self.args).env_clear().envs(self.env.iter().map(|(k, v)| (k, v)));
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (child, seen) = match &self.isolation {
            None => (command.spawn(), None),
            Some(isolation) => match isolation.spawn(command) {
                Ok((child, seen)) => (child, Some(seen)),
                Err(error) => return Err(CommandError::Isolation { program, error }),
            },
        };
        let mut child = child.map_err(|error| CommandError::Start { program: program.clone(), error })?;
        let stderr = child.stderr.take().map(|pipe| std::thread::spawn(move || tail(pipe)));
        let mut result = Ok(());
        if let Some(pipe) = child.stdout.take() {
            let mut pipe = BufReader::new(pipe);
            let mut bytes = Vec::new();
            loop {
                bytes.clear();
                match pipe.read_until(b'\n', &mut bytes) {
                    Ok(0) => break,
                    Ok(_) => {
                        let text = String::from_utf8_lossy(&bytes);
                        if result.is_ok() {
                            result = line(text.trim_end_matches('\n'));
                        }
                    }
                    Err(error) => {
                        result = Err(error);
                        break;
                    }
                }
            }
        }
        let status =
            child.wait().map_err(|error| CommandError::Output { program: program.clone(), error })?;
        let stderr = stderr.and_then(|t| t.join().ok()).unwrap_or_default();
        if !status.success() {
            return Err(CommandError::Failed { command: self.line(), status, stderr });
        }
        result.map_err(|error| CommandError::Output { program, error })?;
        Ok(seen)
    }

    /// Whether `program` exists in one of the standard directories below `root`.
    pub fn exists(root: &Path, program: &str) -> bool {
        ["usr/bin", "usr/sbin", "bin", "sbin", "usr/local/bin"]
            .iter()
            .any(|dir| root.join(dir).join(program).exists())
    }
}

/// Reads a pipe to its end and keeps the last [`STDERR_KEPT`] bytes.
fn tail(mut pipe: impl Read) -> String {
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(n) = pipe.read(&mut buffer) {
        if n == 0 {
            break;
        }
        kept.extend_from_slice(&buffer[..n]);
        if kept.len() > STDERR_KEPT {
            kept.drain(..kept.len() - STDERR_KEPT);
        }
    }
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_program_brings_the_end_of_its_stderr() {
        let error = Command::new("sh").args(["-c", "echo no space left >&2; exit 7"]).output().unwrap_err();
        assert_eq!(error.code(), Some(7));
        assert!(error.to_string().contains("no space left"), "{error}");
    }

    #[test]
    fn nothing_is_inherited_from_the_environment() {
        let output = Command::new("env").env("X", "1").output().unwrap().stdout;
        let mut names: Vec<&str> = output.lines().filter_map(|l| l.split('=').next()).collect();
        names.sort_unstable();
        assert_eq!(names, ["HOME", "LC_ALL", "PATH", "X"]);
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = Command::new("no-such-program").output().unwrap_err();
        assert!(error.to_string().contains("no-such-program"));
    }
}
