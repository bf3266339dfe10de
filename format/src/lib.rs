//! What one Prestage program writes and another reads.
//!
//! Everything that crosses from the centre to a node or back is defined here once, with its version and its
//! limits, so that the two sides cannot drift apart. The crate is pure: bytes and values in, values out. It
//! opens no file, no socket, reads no clock and starts no process; whoever calls it passes `now`.
//!
//! Signing is not here but in the build tool: what runs on a node can only verify. The one exception is what a node itself
//! says, which it signs with a key that counts for nothing else.

pub mod container; // the bundle file: gzip member for each tar entry, and how to find one byte in it
pub mod delta; // a package made of what is installed, and a patch
pub mod digest; // SHA-256
pub mod envelope; // what a node says, signed by its own key, and what the centre answers
pub mod export; // one tar file that holds a repository
pub mod index; // the signed list of a bundle's members
pub mod inventory; // which packages a node has
pub mod json; // strict reading, and the canonical form that is signed
pub mod key; // public keys, key ids, signatures: verification only
pub mod metadata; // the TUF roles as documents
pub mod name; // names that are parsed once and cannot be wrong afterwards
pub mod near; // what somebody may have meant by an unknown word
pub mod node_key; // the key that a node is known by
pub mod policy; // which bundle goes to which nodes, when and how
pub mod range; // which bytes an HTTP answer says it holds
pub mod rate; // how fast something may be fetched
pub mod release; // all bundles of one version, under one digest
pub mod report; // what a node tells the centre
pub mod rollout; // how a bundle spreads over the nodes of a policy
pub mod status; // what a node tells its own machine: status.json
pub mod time; // seconds since the epoch, and RFC 3339
pub mod trust; // the TUF client workflow as a state without I/O
pub mod window; // windows that come back every week

/// The `apiVersion` of every document of ours (index, policy, report, status).
///
/// A reader refuses a document whose version it does not know, by name, instead of guessing.
pub const API_VERSION: &str = "patchmgmt.io/v1";
