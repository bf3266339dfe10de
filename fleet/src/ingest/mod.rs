//! What nodes send, from its bytes to the disk: inflated, taken apart, verified, stored with others in one transaction.
//!
//! `check` believes nothing that a node's key has not signed, `apply` decides what a document means for its node,
//! `queue` commits many at a time. HTTP is not here.

pub mod apply; // what a document means: pure
pub mod check; // whose it is, and whether it is true
pub mod inflate; // gzip with an end
pub mod queue; // many documents, one transaction

use format::digest::Sha256;
use format::envelope::SentStatus;
use format::report::Report;

/// A document that the key of its node has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// What the answer calls it.
    pub id: String,
    /// Whose it is.
    pub node: String,
    /// When it came, by this server's clock, in seconds.
    pub at: i64,
    /// Whether somebody carried it here: its age then says nothing about the node's clock.
    pub carried: bool,
    /// What was signed; without NUL.
    pub message: String,
    /// The signature, in hexadecimal.
    pub signature: String,
    /// What it says.
    pub said: Said,
}

/// What a document says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// How a step ended.
    Report(Box<Report>),
    /// How the node is.
    Status(Box<SentStatus>),
}

impl Said {
    /// The installed set that it names.
    pub fn inventory(&self) -> Option<Sha256> {
        match self {
            Said::Report(report) => report.inventory,
            Said::Status(sent) => sent.status.status.installed.as_ref().map(|installed| installed.inventory),
        }
    }
}
