//! Which addresses are a site's own: pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network in CIDR notation (RFC 4632, RFC 4291): `10.0.0.0/8`, `fd00::/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net {
    address: IpAddr,
    prefix: u8,
}

/// Answered where `[share] allow` is not set: this machine, private networks (RFC 1918), link-local addresses (RFC 3927,
/// RFC 4291) and unique local ones (RFC 4193). Not the shared space of providers (RFC 6598): that is other people.
pub const LOCAL: [Net; 8] = [
    v4([127, 0, 0, 0], 8),
    v4([10, 0, 0, 0], 8),
    v4([172, 16, 0, 0], 12),
    v4([192, 168, 0, 0], 16),
    v4([169, 254, 0, 0], 16),
    Net { address: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix: 128 },
    Net { address: IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), prefix: 10 },
    Net { address: IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)), prefix: 7 },
];

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> Net {
    Net { address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix }
}

impl Net {
    /// Whether `address` is in it. An IPv4 address that came through an IPv6 socket is an IPv4 address.
    pub fn holds(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(address)) => {
                (net.to_bits() ^ address.to_bits()).checked_shr(32 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            (IpAddr::V6(net), IpAddr::V6(address)) => {
                (net.to_bits() ^ address.to_bits()).checked_shr(128 - u32::from(self.prefix)).unwrap_or(0)
                    == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Net {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (address, prefix) = text.split_once('/').unwrap_or((text, ""));
            let address: IpAddr = address.parse().ok()?;
            let longest = if address.is_ipv4() { 32 } else { 128 };
            let prefix = if text.contains('/') { prefix.parse().ok()? } else { longest };
            (prefix <= longest).then_some(Net { address, prefix })
        };
        parse().ok_or_else(|| format!("{text:?} is neither an address nor a network such as 10.0.0.0/8"))
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_local(address: &str) -> bool {
        let address = address.parse().unwrap();
        LOCAL.iter().any(|net| net.holds(address))
    }

    #[test]
    fn a_site_is_private_and_link_local_and_nobody_else() {
        for ours in [
            "127.0.0.9",
            "10.200.3.4",
            "172.31.0.1",
            "192.168.255.1",
            "169.254.7.7",
            "::1",
            "fe80::1",
            "fd12::9",
            "::ffff:10.0.0.1",
        ] {
            assert!(is_local(ours), "{ours}");
        }
        for stranger in [
            "128.0.0.1",
            "11.0.0.1",
            "172.32.0.1",
            "172.15.0.1",
            "192.169.0.1",
            "100.64.0.1",
            "8.8.8.8",
            "0.0.0.0",
            "2001:db8::1",
            "fec0::1",
            "::ffff:8.8.8.8",
            "::",
        ] {
            assert!(!is_local(stranger), "{stranger}");
        }
    }

    #[test]
    fn a_network_is_read_and_bounds_itself() {
        let all: Net = "0.0.0.0/0".parse().unwrap();
        assert!(all.holds("203.0.113.9".parse().unwrap()) && !all.holds("2001:db8::1".parse().unwrap()));
        let one: Net = "203.0.113.9".parse().unwrap();
        assert!(one.holds("203.0.113.9".parse().unwrap()) && !one.holds("203.0.113.8".parse().unwrap()));
        for bad in ["", "10.0.0.0/33", "10.0.0/8", "fd00::/129", "10.0.0.0/", "10.0.0.0/-1", "till"] {
            assert!(bad.parse::<Net>().is_err(), "{bad}");
        }
    }
}
