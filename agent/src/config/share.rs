//! `[share]`: giving to and taking from the other nodes of the site.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use format::rate::Rate;

use super::keys::Keys;
use crate::share::{Net, PORT};

/// As typed.
#[derive(Debug)]
pub struct ShareFragment {
    serve: Option<bool>,
    listen: Option<String>,
    rate: Option<String>,
    max_clients: Option<usize>,
    allow: Option<Vec<String>>,
    idle_seconds: Option<u64>,
    peers: Vec<String>,
    discover: Option<bool>,
    patience_seconds: Option<u64>,
}

impl ShareFragment {
    pub(super) fn read(keys: &mut Keys<'_>) -> Self {
        ShareFragment {
            serve: keys.truth("serve"),
            listen: keys.text("listen"),
            rate: keys.text("rate"),
            max_clients: keys.number("max-clients"),
            allow: keys.texts("allow"),
            idle_seconds: keys.number("idle-seconds"),
            peers: keys.texts("peers").unwrap_or_default(),
            discover: keys.truth("discover"),
            patience_seconds: keys.number("patience-seconds"),
        }
    }
}

/// The valid settings.
#[derive(Debug)]
pub struct ShareSettings {
    /// `serve`: whether this node gives.
    pub serve: bool,
    /// `listen`: where, if the service manager does not say it.
    pub listen: SocketAddr,
    /// `rate`, in bytes a second, for all peers together.
    pub rate: Option<u64>,
    /// `max-clients`: connections at a time.
    pub max_clients: usize,
    /// `allow`: who is answered; none: the site's own addresses.
    pub allow: Option<Vec<Net>>,
    /// `idle-seconds`: without a question for so long, a process that the service manager started ends.
    pub idle: Duration,
    /// `peers`: who is asked.
    pub peers: Vec<PeerName>,
    /// `discover`: whether peers are looked for by multicast as well.
    pub discover: bool,
    /// `patience-seconds`: how long another node's turn to fetch from the mirror is waited for.
    pub patience: Duration,
}

/// The most connections that a node may be told to serve: what each takes in memory is bounded, and so is all of it.
const MAX_CLIENTS: usize = 32;

/// More nodes than a site has.
const MAX_PEERS: usize = 100;

impl ShareFragment {
    /// The settings, or which key is wrong and why.
    pub fn validate(self) -> Result<ShareSettings, String> {
        let rate = self.rate.as_deref().map(str::parse::<Rate>).transpose();
        let allow =
            self.allow.map(|nets| nets.iter().map(|net| net.parse()).collect::<Result<Vec<Net>, _>>());
        let peers: Result<Vec<PeerName>, String> = self.peers.iter().map(|peer| peer.parse()).collect();
        Ok(ShareSettings {
            serve: self.serve.unwrap_or(false),
            listen: match &self.listen {
                None => SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), PORT),
                Some(text) => text.parse().map_err(|_| {
                    format!("[share] listen: {text:?} is not an address and port such as \"0.0.0.0:{PORT}\"")
                })?,
            },
            rate: rate.map_err(|e| format!("[share] rate: {e}"))?.and_then(Rate::bytes_per_second),
            max_clients: match self.max_clients.unwrap_or(8) {
                clients @ 1..=MAX_CLIENTS => clients,
                _ => return Err(format!("[share] max-clients: from 1 to {MAX_CLIENTS}")),
            },
            allow: allow.transpose().map_err(|e| format!("[share] allow: {e}"))?,
            idle: Duration::from_secs(self.idle_seconds.unwrap_or(60).max(1)),
            peers: match peers.map_err(|e| format!("[share] peers: {e}"))? {
                peers if peers.len() <= MAX_PEERS => peers,
                _ => return Err(format!("[share] peers: more than {MAX_PEERS}")),
            },
            discover: self.discover.unwrap_or(false),
            patience: match self.patience_seconds.unwrap_or(60) {
                seconds @ 1..=3600 => Duration::from_secs(seconds),
                _ => return Err("[share] patience-seconds: from 1 to 3600".into()),
            },
        })
    }
}

/// A peer, or several under one name: `http://till-1.local:8571/`, `till-1.local`, `10.0.0.12`, `[fd00::12]:8571`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerName {
    /// A name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl FromStr for PeerName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let name = text.strip_prefix("http://").unwrap_or(text);
            let name = name.strip_suffix('/').unwrap_or(name);
            if let Ok(address) = name.parse::<IpAddr>() {
                return Some(PeerName { host: address.to_string(), port: PORT });
            }
            if let Ok(address) = name.parse::<SocketAddr>() {
                return Some(PeerName { host: address.ip().to_string(), port: address.port() });
            }
            let (host, port) = match name.split_once(':') {
                Some((host, port)) => (host, port.parse().ok()?),
                None => (name, PORT),
            };
            let is_name = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
            let fits = (1..=253).contains(&host.len()) && host.bytes().all(is_name);
            fits.then(|| PeerName { host: host.to_owned(), port })
        };
        parse().ok_or_else(|| format!("{text:?} is not a host, an address or http://HOST:PORT/"))
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_a_name_or_an_address() {
        for (text, expected) in [
            ("http://till-1.local:8571/", "till-1.local:8571"),
            ("till-1.local", "till-1.local:8571"),
            ("10.0.0.12", "10.0.0.12:8571"),
            ("10.0.0.12:99", "10.0.0.12:99"),
            ("fd00::12", "[fd00::12]:8571"),
            ("http://[fd00::12]:99", "[fd00::12]:99"),
        ] {
            assert_eq!(text.parse::<PeerName>().map(|p| p.to_string()), Ok(expected.to_owned()), "{text}");
        }
        for bad in
            ["", "https://till/", "http://till/path", "till:port", "till:99999", "a b", "user@till", "/"]
        {
            assert!(bad.parse::<PeerName>().is_err(), "{bad}");
        }
    }
}
