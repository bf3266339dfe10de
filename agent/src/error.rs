//! How the program ends: its exit codes, which monitoring depends on, and errors that name the thing and the cure.

use std::fmt;
use std::io;
use std::path::Path;

use format::report::Outcome;

/// The exit codes of `prestage`. Documented; never renumbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or nothing to do.
    Done = 0,
    /// Deferred: bundle missing or incomplete, outside the window, preflight not met, busy. Tried again by itself.
    Deferred = 1,
    /// Checksum or length does not match; the bundle is quarantined.
    Integrity = 2,
    /// Signature, threshold, expiry or version was refused.
    Trust = 3,
    /// The install failed; the node is in its pre-patch state.
    InstallFailed = 4,
    /// The health check failed; rolled back.
    RolledBack = 5,
    /// A person must look: the node could not be brought back by itself.
    NeedsPerson = 6,
    /// Wrong arguments (EX_USAGE of sysexits.h).
    Usage = 64,
    /// No mirror or centre could be reached (EX_UNAVAILABLE).
    Unavailable = 69,
    /// A file could not be read or written (EX_IOERR).
    Io = 74,
    /// The configuration is wrong or missing (EX_CONFIG).
    Config = 78,
}

impl Exit {
    /// How a step that ended with this code is reported.
    pub fn outcome(self) -> Outcome {
        match self {
            Exit::Done => Outcome::UpToDate,
            Exit::Integrity => Outcome::IntegrityFailure,
            Exit::Trust => Outcome::TrustFailure,
            Exit::InstallFailed => Outcome::InstallFailed,
            Exit::RolledBack => Outcome::RolledBack,
            Exit::NeedsPerson => Outcome::NeedsPerson,
            Exit::Deferred | Exit::Usage | Exit::Unavailable | Exit::Io | Exit::Config => Outcome::Deferred,
        }
    }
}

/// Why a verb did not do what it is for. Boxed, for it is what almost every function may return and hardly ever does.
#[derive(Debug)]
pub struct Error(Box<Why>);

/// What an [`Error`] says.
#[derive(Debug)]
pub struct Why {
    /// The exit code.
    pub exit: Exit,
    /// What, where, why.
    what: String,
    /// What to do; empty where the message says it already.
    cure: &'static str,
}

impl std::ops::Deref for Error {
    type Target = Why;

    fn deref(&self) -> &Why {
        &self.0
    }
}

/// What almost everything here returns.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with what to do about it.
    pub fn new(exit: Exit, what: impl fmt::Display, cure: &'static str) -> Self {
        Error::say(exit, &what, cure)
    }

    /// Compiled once, and not for each kind of `what`.
    fn say(exit: Exit, what: &dyn fmt::Display, cure: &'static str) -> Self {
        Error(Box::new(Why { exit, what: one_line(&what.to_string()), cure }))
    }

    /// The same with more to say.
    #[must_use]
    pub fn with(self, more: &str) -> Self {
        let Why { exit, what, cure } = *self.0;
        Error(Box::new(Why { exit, what: what + &one_line(more), cure }))
    }

    /// Not ready; it will be tried again.
    pub fn deferred(what: impl fmt::Display) -> Self {
        Error::new(Exit::Deferred, what, "it is tried again by itself")
    }

    /// A wrong or missing setting.
    pub fn config(what: impl fmt::Display) -> Self {
        Error::new(Exit::Config, what, "`prestage doctor` explains the configuration")
    }

    /// A file that could not be read or written. A full disk is a deferral: nothing is lost, and it is tried again.
    pub fn io(what: impl fmt::Display, error: &io::Error) -> Self {
        Error::io_of(&what, error)
    }

    fn io_of(what: &dyn fmt::Display, error: &io::Error) -> Self {
        let what = format!("{what}: {error}");
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Error::new(Exit::Deferred, what, "free some space; it is tried again by itself")
            }
            // Not waited for: somebody has a lease on the file (fcntl(2)), which ends by itself.
            io::ErrorKind::WouldBlock => {
                Error::new(Exit::Deferred, what, "find out who holds it; it is tried again by itself")
            }
            io::ErrorKind::PermissionDenied => {
                Error::new(Exit::Io, what, "run it as the user that the systemd unit names, or as root")
            }
            _ => Error::new(Exit::Io, what, "see the file system and the kernel's log"),
        }
    }

    /// As [`Error::io`], for a path.
    pub fn file(path: &Path, error: &io::Error) -> Self {
        Error::io(path.display(), error)
    }
}

/// The text without what a terminal would obey and a log would take for a line of its own: parts of it may come from
/// whoever wrote a file or sent an answer.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if self.cure.is_empty() { Ok(()) } else { write!(f, "; {}", self.cure) }
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    /// For the functions of `host::file`, whose errors name their path.
    fn from(error: io::Error) -> Self {
        Error::io("file", &error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_that_no_terminal_obeys() {
        let error = Error::deferred("the bundle says: \u{1b}[2J\nerror: none\u{9b}31m");
        assert!(!error.to_string().chars().any(char::is_control), "{error:?}");
        assert!(error.to_string().contains("error: none"));
    }
}
