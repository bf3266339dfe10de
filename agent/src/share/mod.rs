//! Site sharing: the nodes of a site (a store, a branch) give each other what one of them has fetched, so that the thin
//! line to the centre carries it once.
//!
//! Two halves that meet only on the network. [`server`] gives out whole content by its hash (`prestage share`, started
//! by the service manager for the first peer that calls). [`site`] asks the peers in a fetch, before the mirrors.
//! Nobody is believed: a hash decides what is taken, and all that a peer can cost is time, of which there is a bound.

mod choose; // the line, a peer, or wait: pure
mod discover; // who shares on this link: a multicast question, and a pure parser of answers
mod have; // what a node says of its content: pure
mod net; // who is answered: pure
mod peer; // one question to a peer
mod request; // bytes to a request or a refusal: pure
mod server; // gives out
mod site; // takes
mod wanted; // what a running fetch is after, for the server to tell

pub use net::Net;
pub use server::serve;
pub use site::Site;

#[cfg(fuzzing)]
pub mod fuzzing {
    //! What a stranger on the LAN may send, in both directions.
    pub use super::discover::ports;
    pub use super::have::{parse, write};
    pub use super::peer::parse_head;
    pub use super::request::{MAX_ASKED, MAX_HEAD, Parsed, Request, parse as parse_request};
}

/// Where nodes listen, unless told otherwise: a port that IANA has given to nobody.
pub const PORT: u16 = 8571;
