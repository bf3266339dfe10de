//! Finding the peers of a site by DNS-SD over multicast DNS (RFC 6763, RFC 6762).
//!
//! A question of one datagram (RFC 6762 section 5.1, one-shot queries). Who answers is the responder that a node has
//! anyway, Avahi or systemd-resolved, told by a file of four lines that this node shares: `prestage share` runs only while
//! somebody calls it, so it could not answer for itself. Whoever answers is asked over the LAN like a peer from the list,
//! and is believed as little.
//!
//! Only IPv4: where there is none, the list of peers does it.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use host::clock::Clock;

use super::net::LOCAL;

/// Multicast DNS (RFC 6762 section 3).
const GROUP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(224, 0, 0, 251)), 5353);

/// What a node that shares is called (RFC 6763 section 4.1.2).
pub const SERVICE: [&str; 3] = ["_prestage", "_tcp", "local"];

/// Answers are waited for so long: a responder may take 120 ms to begin (RFC 6762 section 6), and one that sleeps a little
/// more. The question is sent twice in this time, for a datagram may be lost.
const WAIT: Duration = Duration::from_millis(1000);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const ASK_EVERY: Duration = Duration::from_millis(400);

/// The longest message (RFC 6762 section 17).
const MAX_MESSAGE: usize = 9000;

/// More records than an answer has that means us.
const MAX_RECORDS: usize = 256;

/// More answers than a site has nodes.
const MAX_ANSWERS: usize = 400;

const PTR: u16 = 12;
const SRV: u16 = 33;

/// The addresses of nodes that share, on every link of this node.
pub fn peers(clock: &dyn Clock) -> BTreeSet<SocketAddr> {
    let addresses = host::link::multicast_addresses().unwrap_or_else(|error| {
        log::warn!("peers cannot be looked for: {error}");
        Vec::new()
    });
    // A socket that is bound to a link's own address sends its multicast over that link (ip(7)).
    let open = |address: Ipv4Addr| {
        let socket = UdpSocket::bind((address, 0))?;
        socket.set_multicast_ttl_v4(255)?;
        socket.set_nonblocking(true)?;
        Ok::<_, std::io::Error>(socket)
    };
    let sockets: Vec<UdpSocket> = addresses
        .into_iter()
        .filter_map(|address| open(address).map_err(|e| host::detail!("{address}: {e}")).ok())
        .collect();
    let mut found = BTreeSet::new();
    if sockets.is_empty() {
        return found;
    }
    let question = question();
    let (end, mut ask_at) = (clock.instant() + WAIT, Duration::ZERO);
    let mut buffer = vec![0; MAX_MESSAGE];
    let mut answers = 0;
    while clock.instant() < end {
        if clock.instant() >= ask_at {
            ask_at = clock.instant() + ASK_EVERY;
            for socket in &sockets {
                if let Err(error) = socket.send_to(&question, GROUP) {
                    host::detail!("multicast: {error}");
                }
            }
        }
        for socket in &sockets {
            while let Ok((n, from)) = socket.recv_from(&mut buffer) {
                answers += 1;
                if answers > MAX_ANSWERS {
                    return found;
                }
                // Responders answer from their own port, and only on the link (RFC 6762 sections 6 and 11).
                if from.port() == GROUP.port() && LOCAL.iter().any(|net| net.holds(from.ip())) {
                    found
                        .extend(ports(&buffer[..n]).into_iter().map(|port| SocketAddr::new(from.ip(), port)));
                }
            }
        }
        clock.sleep(LOOK_EVERY);
    }
    found
}

/// Who is of this service?
fn question() -> Vec<u8> {
    // Id, flags, one question, no records.
    let mut out = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in SERVICE {
        out.extend(u8::try_from(label.len())); // 9 at most
        out.extend(label.as_bytes());
    }
    out.push(0);
    out.extend(PTR.to_be_bytes());
    out.extend(1u16.to_be_bytes()); // IN
    out
}

/// The ports at which the sender of this message says that it shares; none, if it is no answer or one about something
/// else. What it says of addresses is passed over: its own is the one that it sent from.
pub fn ports(message: &[u8]) -> BTreeSet<u16> {
    parse(message).unwrap_or_default()
}

fn parse(message: &[u8]) -> Option<BTreeSet<u16>> {
    let number = |at: usize| Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?));
    // An answer, to a query, without an error (RFC 1035 section 4.1.1).
    if number(2)? & 0xf80f != 0x8000 {
        return None;
    }
    let mut at = 12;
    for _ in 0..number(4)? {
        (_, at) = name(message, at)?;
        at += 4;
    }
    let records = usize::from(number(6)?) + usize::from(number(8)?) + usize::from(number(10)?);
    let mut ports = BTreeSet::new();
    for _ in 0..records.min(MAX_RECORDS) {
        let (owner, after) = name(message, at)?;
        let (kind, length) = (number(after)?, usize::from(number(after + 8)?));
        let data = after + 10;
        message.get(data..data + length)?;
        // `INSTANCE._prestage._tcp.local`
        let is_ours = owner.len() == SERVICE.len() + 1
            && owner[1..]
                .iter()
                .zip(SERVICE)
                .all(|(label, ours)| label.eq_ignore_ascii_case(ours.as_bytes()));
        if kind == SRV && is_ours && length >= 7 {
            ports.insert(number(data + 4)?);
        }
        at = data + length;
    }
    ports.remove(&0);
    Some(ports)
}

/// The labels of the name at `at`, and what is behind it (RFC 1035 section 4.1.4). Pointers must lead back, so it ends.
fn name(message: &[u8], at: usize) -> Option<(Vec<&[u8]>, usize)> {
    let (mut labels, mut at, mut after, mut limit) = (Vec::new(), at, None, at);
    loop {
        let length = usize::from(*message.get(at)?);
        match length {
            0 => return Some((labels, after.unwrap_or(at + 1))),
            1..=63 => {
                labels.push(message.get(at + 1..at + 1 + length)?);
                at += 1 + length;
            }
            0xc0..=0xff => {
                let to = (length & 0x3f) << 8 | usize::from(*message.get(at + 1)?);
                after.get_or_insert(at + 2);
                if to >= limit {
                    return None;
                }
                (at, limit) = (to, to);
            }
            _ => return None,
        }
        if labels.len() > 127 {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer as Avahi writes it: PTR in the answer, SRV and A behind it, names compressed.
    fn answer(port: u16) -> Vec<u8> {
        let mut out = question();
        (out[2], out[7], out[11]) = (0x84, 1, 2);
        let (service, instance) = ([0xc0, 12], [0xc0, 50]);
        let record = |out: &mut Vec<u8>, owner: &[u8], kind: u16, data: &[u8]| {
            out.extend(owner);
            out.extend(kind.to_be_bytes());
            out.extend([0, 1, 0, 0, 0, 10]);
            out.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            out.extend(data);
        };
        record(&mut out, &service, PTR, &[&[6][..], b"till-1", &service].concat());
        let port = port.to_be_bytes();
        let target = [&[0, 0, 0, 0][..], &port, &[6], b"till-1", &[5], b"local", &[0]].concat();
        record(&mut out, &instance, SRV, &target);
        record(&mut out, &[&[6][..], b"till-1", &[5], b"local", &[0]].concat(), 1, &[10, 0, 0, 1]);
        out
    }

    #[test]
    fn a_node_that_shares_says_at_which_port() {
        assert_eq!(answer(8571)[50], 6, "the instance's name");
        assert_eq!(ports(&answer(8571)), BTreeSet::from([8571]));
        // A question is no answer, whoever asks it.
        assert_eq!(ports(&question()), BTreeSet::new());
        let mut other = answer(8571);
        other[13..22].copy_from_slice(b"_somebody");
        assert_eq!(ports(&other), BTreeSet::new());
        assert_eq!(ports(&answer(0)), BTreeSet::new());
    }

    #[test]
    fn whatever_a_stranger_sends_is_read_to_an_end() {
        let good = answer(8571);
        for end in 0..good.len() {
            assert_eq!(ports(&good[..end]), BTreeSet::new(), "{end}");
        }
        for at in 0..good.len() {
            for byte in [0, 1, 0x3f, 0x40, 0x80, 0xc0, 0xff] {
                let mut bad = good.clone();
                bad[at] = byte;
                assert!(ports(&bad).len() <= 1);
            }
        }
        // A name that points at itself, and two that point at each other.
        for pointer in [[0xc0, 12, 0xc0, 12], [0xc0, 14, 0xc0, 12]] {
            let header = [0, 0, 0x84, 0, 0, 0, 0, 1, 0, 0, 0, 0];
            assert_eq!(ports(&[&header[..], &pointer, &[0; 20]].concat()), BTreeSet::new());
        }
    }
}
