//! The one door to the repository: a range of a file, from a mirror of any kind.

use std::fmt;
use std::io::{self, Read};
use std::time::Duration;

/// Bytes `from..to` of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first byte.
    pub from: u64,
    /// The byte after the last.
    pub to: u64,
}

/// What a transport has moved so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes received from the network, protocol included; 0 for folders and files.
    pub received: u64,
    /// Requests made over the network.
    pub requests: u64,
}

/// Why a mirror did not deliver.
#[derive(Debug)]
pub enum TransportError {
    /// It does not have the file.
    NotFound,
    /// The file there is not the one that the bytes before came from: nothing of both may be mixed.
    Replaced,
    /// It will not, however often it is asked: not this file, or not us.
    Refused(String),
    /// It could not be reached, broke off, or answered what cannot be used.
    Failed {
        /// Why.
        why: String,
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
    },
}

impl TransportError {
    /// Failed, without a wish about when to come again.
    pub fn failed(why: impl fmt::Display) -> Self {
        TransportError::Failed { why: why.to_string(), retry_after: None }
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TransportError::NotFound => f.write_str("not found"),
            TransportError::Replaced => f.write_str("the file was replaced meanwhile"),
            TransportError::Refused(why) | TransportError::Failed { why, .. } => f.write_str(why),
        }
    }
}

/// A file that is not the one that was known.
pub struct Changed<'t> {
    /// Its content.
    pub reader: Box<dyn Read + 't>,
    /// What to ask with next time.
    pub validator: Option<String>,
}

/// A mirror of the repository. Nothing that it says is believed: every byte is checked by whoever asked for it.
pub trait Transport {
    /// The mirror's address, for messages and reports.
    fn name(&self) -> &str;

    /// Opens `path`, relative to the repository, at `range`, or the whole file. The reader begins exactly at
    /// `range.from`; it may end early, and yields nothing behind `range.to`.
    ///
    /// # Errors
    /// If the mirror does not deliver. Called for every metadata file and every run of members.
    fn get(&self, path: &str, range: Option<Range>) -> Result<Box<dyn Read + '_>, TransportError>;

    /// Opens the whole of `path`, unless it is still what `validator` (an earlier answer's) stands for: then `None`.
    /// Called for the timestamp, so that an idle poll moves no content.
    ///
    /// # Errors
    /// As [`Transport::get`].
    fn get_if_changed(
        &self,
        path: &str,
        _validator: Option<&str>,
    ) -> Result<Option<Changed<'_>>, TransportError> {
        Ok(Some(Changed { reader: self.get(path, None)?, validator: None }))
    }

    /// What has been moved over the network so far.
    fn traffic(&self) -> Traffic {
        Traffic::default()
    }

    /// Whether it can begin in the middle of a file. Where it cannot, [`Transport::get`] reads past what comes before,
    /// so whoever has many ranges to get does well to get them in one go.
    fn serves_ranges(&self) -> bool {
        true
    }

    /// How long the last question was on its way: until the first byte of an answer came over the same connection. None,
    /// if that cannot be said. Called after [`Transport::get`].
    fn answered_in(&self) -> Option<Duration> {
        None
    }

    /// So many bytes a second will be taken from it: what the kernel receives beyond would be over the cap.
    fn expect_rate(&self, _rate: Option<u64>) {}

    /// The longest that it has asked to be left alone for, in this run. Called when the run has failed.
    fn asked(&self) -> Option<Duration> {
        None
    }

    /// Whether bytes from here use the link that the rate limit protects.
    fn is_remote(&self) -> bool {
        false
    }
}

/// Reads all of a small file.
///
/// # Errors
/// As [`Transport::get`], and `Ok(Err(_))`, the number of bytes allowed, if it is larger than `limit` (endless data).
pub fn read_all(
    transport: &dyn Transport,
    path: &str,
    limit: u64,
) -> Result<Result<Vec<u8>, u64>, TransportError> {
    read_limited(transport.get(path, None)?, limit)
}

/// As [`read_all`], for a reader that is open already.
///
/// # Errors
/// As [`read_all`].
pub fn read_limited(reader: Box<dyn Read + '_>, limit: u64) -> Result<Result<Vec<u8>, u64>, TransportError> {
    let mut bytes = Vec::new();
    reader
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|e: io::Error| TransportError::failed(e))?;
    Ok(if bytes.len() as u64 > limit { Err(limit) } else { Ok(bytes) })
}
