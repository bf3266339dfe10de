//! The one kind of error of this program: what failed, on what, why, and what to do about it, on one line.
//!
//! What is not here: the words themselves, which stand where the error is made and the reason is known.

use std::fmt;
use std::io;
use std::path::Path;

pub use host::exit::Kind;

/// A failure. Displays as `WHAT: WHY: CURE`, the last only where there is one.
#[derive(Debug)]
pub struct Error {
    /// Decides the exit code.
    pub kind: Kind,
    what: String,
    why: String,
    cure: Option<String>,
}

/// What everything here returns.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// `what` names the act and the thing that it was done to; `why` is the reason.
    pub fn new(kind: Kind, what: impl fmt::Display, why: impl fmt::Display) -> Self {
        Error { kind, what: what.to_string(), why: why.to_string(), cure: None }
    }

    /// Says what to do about it.
    #[must_use]
    pub fn cure(mut self, cure: impl fmt::Display) -> Self {
        self.cure = Some(cure.to_string());
        self
    }

    /// An I/O error whose text names the path already, as those of `host::file` do.
    pub fn io(what: impl fmt::Display, error: &io::Error) -> Self {
        Error::new(Kind::Io, what, error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)?;
        if let Some(cure) = &self.cure {
            write!(f, ": {cure}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Says which path a plain I/O error was about.
pub trait AtPath<T> {
    /// `what` is the act, in the form "the key cannot be read".
    ///
    /// # Errors
    /// The I/O error, with act and path.
    fn at(self, what: &str, path: &Path) -> Result<T>;
}

impl<T> AtPath<T> for io::Result<T> {
    fn at(self, what: &str, path: &Path) -> Result<T> {
        self.map_err(|e| Error::new(Kind::Io, what, format!("{}: {e}", path.display())))
    }
}

/// Says what an I/O error of `host::file` stopped; its text names the path already.
pub trait During<T> {
    /// `what` is the act, in the form "the key cannot be written".
    ///
    /// # Errors
    /// The I/O error, with the act.
    fn during(self, what: &str) -> Result<T>;
}

impl<T> During<T> for io::Result<T> {
    fn during(self, what: &str) -> Result<T> {
        self.map_err(|e| Error::io(what, &e))
    }
}
