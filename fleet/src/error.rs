//! The one kind of error of this program at its command line: what failed, why, what to do; and its exit code.

use std::fmt;
use std::process::ExitCode;

use crate::store::StoreError;

/// What kind of failure it is; codes as in sysexits(3), as everywhere in Prestage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The answer is no. Exit 1.
    No,
    /// The command line asks for what cannot be. Exit 64.
    Usage,
    /// An input is not what it must be. Exit 65.
    Data,
    /// The database or an address is not available. Exit 69.
    Unavailable,
    /// Reading or writing failed. Exit 74.
    Io,
    /// The configuration is wrong. Exit 78.
    Config,
}

impl Kind {
    /// The process's exit code.
    pub fn exit_code(self) -> ExitCode {
        ExitCode::from(match self {
            Kind::No => 1,
            Kind::Usage => 64,
            Kind::Data => 65,
            Kind::Unavailable => 69,
            Kind::Io => 74,
            Kind::Config => 78,
        })
    }
}

/// A failure, in one line.
#[derive(Debug)]
pub struct Error {
    /// Decides the exit code.
    pub kind: Kind,
    text: String,
}

/// What everything at the command line returns.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// `text` says what, where, why and what to do.
    pub fn new(kind: Kind, text: impl fmt::Display) -> Self {
        Error { kind, text: text.to_string() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Error::new(Kind::Unavailable, error)
    }
}
