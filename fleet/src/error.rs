//! The one kind of error of this program at its command line: what failed, why, what to do; and its exit code.

use std::fmt;

use crate::store::StoreError;

pub use host::exit::Kind;

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
