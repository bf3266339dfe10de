//! A TCP connection with a bounded receive buffer that counts its bytes.
//!
//! What the kernel has received and nobody has read is lost when the agent is killed and must be sent again. On a thin
//! link the kernel would let megabytes pile up in front of a throttled reader; the bound keeps an interruption cheap.
//! The counter sees what the link sees: headers and TLS included. Built on ureq's unversioned transport interface,
//! which is why ureq is pinned.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use host::clock::{Clock as _, SystemClock};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike as _};
use ureq::unversioned::transport::{
    Buffers, ConnectProxyConnector, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
};
use ureq::{Error, Timeout};

use super::throttle::receive_buffer;

/// A tunnel through an http proxy (CONNECT, RFC 9110 section 9.3.6), for https. What is http goes through the proxy as
/// a request that names its target whole (RFC 9112 section 3.2.2): most proxies refuse tunnels to port 80.
#[derive(Debug, Default)]
pub struct Tunnel(ConnectProxyConnector);

impl<In: Transport> Connector<In> for Tunnel {
    type Out = Either<In, Box<dyn Transport>>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        if details.needs_tls() { self.0.connect(details, chained) } else { Ok(chained.map(Either::A)) }
    }
}

/// Opens [`Socket`]s.
pub struct SocketConnector {
    /// Bytes that may wait unread in the kernel.
    pub receive_buffer: usize,
    /// Bytes a second that will be read; 0: as many as come. With a cap the kernel takes in less ahead of the reader.
    pub rate: Arc<AtomicU64>,
    /// Grows by every byte received.
    pub received: Arc<AtomicU64>,
    /// Microseconds from what was sent last to the first byte after it; 0: there is none yet.
    pub answered_in: Arc<AtomicU64>,
}

impl SocketConnector {
    /// What may wait in the kernel of a connection that is opened now.
    fn buffer(&self) -> usize {
        buffer_for(self.receive_buffer, self.rate.load(Ordering::Relaxed))
    }
}

fn buffer_for(limit: usize, rate: u64) -> usize {
    if rate > 0 { receive_buffer(limit, rate).min(TUNED - 1) } else { limit }
}

impl fmt::Debug for SocketConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SocketConnector")
    }
}

impl<In: Transport> Connector<In> for SocketConnector {
    type Out = Either<In, Socket>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        if let Some(through_proxy) = chained {
            return Ok(Some(Either::A(through_proxy)));
        }
        // A proxy is only left here where there is no tunnel through it.
        let proxy = details.config.proxy().filter(|_| !details.needs_tls());
        let through_proxy = match proxy {
            Some(proxy) => Some(details.resolver.resolve(proxy.uri(), details.config, details.timeout)?),
            None => None,
        };
        let absolute = proxy.and_then(|proxy| Absolute::of(details.uri, proxy));
        let addrs = through_proxy.as_ref().unwrap_or(&details.addrs);
        let receive_buffer = self.buffer();
        // Each address gets an equal share of the time for connecting.
        let count = i64::try_from(addrs.len()).unwrap_or(1).max(1);
        let milliseconds = details
            .timeout
            .not_zero()
            .map_or(0, |t| i64::try_from(t.as_millis()).unwrap_or(i64::MAX) / count);
        let mut last = Error::HostNotFound;
        for addr in addrs {
            match connect(*addr, milliseconds, receive_buffer) {
                Ok(stream) => {
                    let buffers = LazyBuffers::new(
                        details.config.input_buffer_size(),
                        details.config.output_buffer_size(),
                    );
                    return Ok(Some(Either::B(Socket {
                        stream,
                        read_timeout: None,
                        buffers,
                        received: self.received.clone(),
                        answered_in: self.answered_in.clone(),
                        asked: None,
                        limit: self.receive_buffer,
                        rate: self.rate.clone(),
                        receive_buffer,
                        absolute,
                    })));
                }
                Err(e) if e.kind() == io::ErrorKind::TimedOut => last = Error::Timeout(Timeout::Connect),
                Err(e) => last = Error::Io(e),
            }
        }
        Err(last)
    }
}

/// From here on somebody wants speed, and the kernel finds out by itself what a connection needs (tcp(7), `tcp_rmem`); a
/// bound would be cut to `net.core.rmem_max`. Never with a cap: the kernel would take in megabytes ahead of it.
const TUNED: usize = 1024 * 1024;

/// Connects with the receive buffer set beforehand, as tcp(7) wants it. `milliseconds` of 0: the kernel's own timeout.
fn connect(addr: SocketAddr, milliseconds: i64, receive_buffer: usize) -> io::Result<TcpStream> {
    let family = if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // The kernel doubles the value to account for its own overhead (socket(7)).
    if receive_buffer < TUNED {
        setsockopt(&fd, sockopt::RcvBuf, &(receive_buffer / 2))?;
    }
    // The send timeout is also that of connect(2), which then fails with EINPROGRESS (socket(7)).
    setsockopt(&fd, sockopt::SendTimeout, &TimeVal::milliseconds(milliseconds.max(0)))?;
    match socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(addr)) {
        Ok(()) => {}
        Err(nix::errno::Errno::EINPROGRESS) => return Err(io::ErrorKind::TimedOut.into()),
        Err(e) => return Err(e.into()),
    }
    let stream = TcpStream::from(fd);
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A connection.
pub struct Socket {
    stream: TcpStream,
    /// As it was set last; none: not yet.
    read_timeout: Option<Option<Duration>>,
    buffers: LazyBuffers,
    received: Arc<AtomicU64>,
    answered_in: Arc<AtomicU64>,
    /// Since when an answer is waited for.
    asked: Option<SystemClock>,
    /// The receive buffer that it was opened with, and what says whether it still fits.
    receive_buffer: usize,
    limit: usize,
    rate: Arc<AtomicU64>,
    absolute: Option<Absolute>,
}

/// What makes a request one to a proxy.
struct Absolute {
    /// `http://host:port`
    target: String,
    /// A header line for the proxy, or nothing.
    authorization: String,
}

impl Absolute {
    fn of(target: &ureq::http::Uri, proxy: &ureq::Proxy) -> Option<Self> {
        let authorization = match (proxy.username(), proxy.password()) {
            (None, None) => String::new(),
            (user, password) => {
                let secret = format!("{}:{}", user.unwrap_or_default(), password.unwrap_or_default());
                format!("Proxy-Authorization: Basic {}\r\n", super::http::base64(secret.as_bytes()))
            }
        };
        Some(Absolute { target: format!("http://{}", target.authority()?), authorization })
    }

    /// The same output, if it does not begin a request; else with a target that names the host. ureq writes the head of
    /// a request in one piece, and no body of ours begins like one.
    fn rewrite(&self, output: &[u8]) -> Option<Vec<u8>> {
        let method = [&b"GET "[..], b"POST "].into_iter().find(|m| output.starts_with(m))?;
        let path = output.get(method.len()..).filter(|rest| rest.starts_with(b"/"))?;
        let line = path.windows(2).position(|w| w == b"\r\n")? + 2;
        let (line, rest) = path.split_at(line);
        Some([method, self.target.as_bytes(), line, self.authorization.as_bytes(), rest].concat())
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Socket({:?})", self.stream.peer_addr().ok())
    }
}

impl Transport for Socket {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let timeout = timeout.for_write();
        self.stream.set_write_timeout(timeout.not_zero().map(|t| *t))?;
        let output = &self.buffers.output()[..amount];
        let rewritten = self.absolute.as_ref().and_then(|absolute| absolute.rewrite(output));
        self.asked = Some(SystemClock::new());
        (&self.stream).write_all(rewritten.as_deref().unwrap_or(output)).map_err(|e| explain(e, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let timeout = timeout.for_read();
        let wanted = timeout.not_zero().map(|t| whole_seconds(*t));
        if self.read_timeout != Some(wanted) {
            self.stream.set_read_timeout(wanted)?;
            self.read_timeout = Some(wanted);
        }
        let input = self.buffers.input_append_buf();
        let n = loop {
            match (&self.stream).read(input) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => break result.map_err(|e| explain(e, timeout))?,
            }
        };
        if let Some(asked) = self.asked.take().filter(|_| n > 0) {
            let took = u64::try_from(asked.instant().as_micros()).unwrap_or(u64::MAX);
            self.answered_in.store(took.max(1), Ordering::Relaxed);
        }
        self.buffers.input_appended(n);
        self.received.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n > 0)
    }

    fn is_open(&mut self) -> bool {
        // One that was opened for another cap: the kernel would take in more ahead of the reader than the cap allows, or less.
        if self.receive_buffer != buffer_for(self.limit, self.rate.load(Ordering::Relaxed)) {
            return false;
        }
        // Bytes that nobody asked for, or the end: either way this connection is of no use any more.
        let probe = self.stream.set_nonblocking(true).and_then(|()| (&self.stream).read(&mut [0]));
        let quiet = matches!(&probe, Err(e) if e.kind() == io::ErrorKind::WouldBlock);
        quiet && self.stream.set_nonblocking(false).is_ok()
    }
}

/// Rounded up: what is left of a time-out is a little less at each read, and telling the kernel so costs as much as reading.
fn whole_seconds(timeout: Duration) -> Duration {
    Duration::from_secs(timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0))
}

fn explain(error: io::Error, timeout: NextTimeout) -> Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Timeout(timeout.reason),
        _ => Error::Io(error),
    }
}
