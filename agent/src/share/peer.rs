//! One question to a peer and its answer, each over a connection of its own. HTTP/1.1 as [`super::server`] speaks it.
//!
//! Not by the client that talks to mirrors: that one knows proxies, certificates and a line to protect, and none of it has
//! a place between two nodes of a site. Times here are those of a LAN.

use std::io::{self, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use format::digest::Sha256;
use format::range::sent_range;
use host::clock::Clock;

use super::have::{self, Holding, Token};

/// For a connection to come up: a node that is switched off is found out in this time.
const CONNECT_TIME: Duration = Duration::from_secs(2);

/// For a question to be sent and the head of its answer to be here, and for any one read: longer than a peer that shares
/// its rate among many makes one wait.
const STALL_TIME: Duration = Duration::from_secs(10);

/// And that in all, beside what the bytes take at this rate, in bytes a second.
const SLOWEST: u64 = 16 * 1024;

/// The longest head of an answer.
const MAX_HEAD: usize = 4 * 1024;

/// Why there is no answer.
#[derive(Debug)]
pub enum PeerError {
    /// It could not be reached, or broke off: switched off, restarted, killed. Nobody's fault.
    Away(io::Error),
    /// It let us wait too long.
    Stalled(String),
    /// It has no time for us now.
    Busy,
    /// It does not have it.
    NotFound,
    /// What it says is not what a peer says.
    Nonsense(String),
}

impl From<io::Error> for PeerError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                PeerError::Stalled(format!("it let us wait for {} s", STALL_TIME.as_secs()))
            }
            _ => PeerError::Away(error),
        }
    }
}

/// What an answer begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The status code.
    pub status: u16,
    /// Bytes in the body.
    pub length: u64,
    /// The first byte of the part that is sent.
    pub from: Option<u64>,
    /// Where the body begins.
    pub end: usize,
}

/// Reads the head of an answer from what has been received so far.
///
/// # Errors
/// `None`, if more is needed; otherwise, what is wrong with it.
pub fn parse_head(bytes: &[u8]) -> Result<Head, Option<&'static str>> {
    let known = &bytes[..bytes.len().min(MAX_HEAD)];
    let Some(end) = known.windows(4).position(|w| w == b"\r\n\r\n") else {
        return Err((bytes.len() >= MAX_HEAD).then_some("an endless head"));
    };
    let text = std::str::from_utf8(&known[..end]).map_err(|_| Some("a head that is not text"))?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse::<u16>().ok());
    let status = status.filter(|s| (200..600).contains(s)).ok_or(Some("not HTTP/1.1"))?;
    let (mut length, mut from) = (None, None);
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(Some("a header without a name"))?;
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" if length.is_none() && value.bytes().all(|b| b.is_ascii_digit()) => {
                length = value.parse::<u64>().ok();
            }
            "content-range" if status == 206 && from.is_none() => {
                from = sent_range(value).map(|r| *r.start())
            }
            "content-length" | "transfer-encoding" | "content-encoding" => {
                return Err(Some("a length in doubt"));
            }
            _ => {}
        }
    }
    Ok(Head { status, length: length.ok_or(Some("no length"))?, from, end: end + 4 })
}

/// A body that is being read, from its first byte. A peer that is slower than [`SLOWEST`] is one that stalls.
pub struct Body<'c> {
    clock: &'c dyn Clock,
    began: Duration,
    got: u64,
    /// What came with the head.
    early: io::Cursor<Vec<u8>>,
    stream: TcpStream,
    /// Bytes to come.
    pub length: u64,
    /// The first byte of the content that it holds.
    pub from: u64,
}

impl Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = match self.early.read(buffer)? {
            0 => self.stream.read(buffer)?,
            n => n,
        };
        self.got += n as u64;
        let took = self.clock.instant().saturating_sub(self.began);
        if took > STALL_TIME + Duration::from_secs(self.got / SLOWEST) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(n)
    }
}

/// What a peer has of `asked`, and who it is. Adds what it sent to `received`.
///
/// # Errors
/// If it does not answer, or with something else.
pub fn have(
    peer: SocketAddr,
    asked: &[Sha256],
    received: &mut u64,
    clock: &dyn Clock,
) -> Result<(Token, Vec<Holding>), PeerError> {
    let names: Vec<String> = asked.iter().map(Sha256::to_string).collect();
    let body = ask(peer, &format!("/have/{}", names.join(",")), 0, clock)?;
    let mut bytes = Vec::new();
    let length = body.length;
    body.take(have::MAX_ANSWER as u64).read_to_end(&mut bytes)?;
    *received += bytes.len() as u64;
    if (bytes.len() as u64) < length.min(have::MAX_ANSWER as u64) {
        return Err(PeerError::Away(io::ErrorKind::UnexpectedEof.into()));
    }
    have::parse(&bytes, asked.len()).ok_or_else(|| PeerError::Nonsense("it does not say what it has".into()))
}

/// Opens a content at byte `from`. The body may begin at 0 all the same.
///
/// # Errors
/// If the peer does not deliver.
pub fn content<'c>(
    peer: SocketAddr,
    digest: &Sha256,
    from: u64,
    clock: &'c dyn Clock,
) -> Result<Body<'c>, PeerError> {
    ask(peer, &format!("/content/{digest}"), from, clock)
}

fn ask<'c>(peer: SocketAddr, target: &str, from: u64, clock: &'c dyn Clock) -> Result<Body<'c>, PeerError> {
    let mut stream = TcpStream::connect_timeout(&peer, CONNECT_TIME).map_err(PeerError::Away)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(STALL_TIME))?;
    let deadline = clock.instant() + STALL_TIME;
    let range = if from > 0 { format!("Range: bytes={from}-\r\n") } else { String::new() };
    let request = format!("GET {target} HTTP/1.1\r\nHost: {peer}\r\n{range}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 1024];
    let head = loop {
        let left = deadline.saturating_sub(clock.instant());
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        match stream.read(&mut buffer)? {
            0 => return Err(PeerError::Away(io::ErrorKind::UnexpectedEof.into())),
            n => bytes.extend_from_slice(&buffer[..n]),
        }
        match parse_head(&bytes) {
            Ok(head) => break head,
            Err(None) => {}
            Err(Some(what)) => return Err(PeerError::Nonsense(what.into())),
        }
    };
    let from = match (head.status, head.from) {
        (200, _) => 0,
        (206, Some(sent)) if sent == from && from > 0 => from,
        (404, _) => return Err(PeerError::NotFound),
        (503, _) => return Err(PeerError::Busy),
        (status, _) => return Err(PeerError::Nonsense(format!("it answered {status}"))),
    };
    stream.set_read_timeout(Some(STALL_TIME))?;
    let early = io::Cursor::new(bytes.split_off(head.end));
    Ok(Body { clock, began: clock.instant(), got: 0, early, stream, length: head.length, from })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_one_in_doubt_refused() {
        let good =
            b"HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\nContent-Range: bytes 5-9/10\r\n\r\nhello";
        let head = Head { status: 206, length: 5, from: Some(5), end: good.len() - 5 };
        assert_eq!(parse_head(good), Ok(head));
        for end in 0..good.len() - 5 {
            assert_eq!(parse_head(&good[..end]), Err(None));
        }
        for bad in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n",
            "SSH-2.0-OpenSSH\r\n\r\n",
        ] {
            assert!(matches!(parse_head(bad.as_bytes()), Err(Some(_))), "{bad}");
        }
        assert!(matches!(parse_head(&[b'x'; MAX_HEAD]), Err(Some(_))));
    }
}
