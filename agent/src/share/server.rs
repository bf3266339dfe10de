//! `prestage share`: gives whole content of this node's store to its site, by hash.
//!
//! A thread for each connection, one request on each, and a bound for everything: connections in all and for one address,
//! the size of a request and the time for it, how long an answer may be waited for by whoever does not read it. What is
//! asked never becomes a path: it is a hash, or it is refused ([`super::request`]).
//!
//! The socket comes from the service manager as standard input (`StandardInput=socket` of systemd.exec(5), or `wait` of
//! inetd(8)): the standard library hands that out without unsafe code, which descriptor 3 would need.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use format::digest::Sha256;
use host::clock::Clock;
use host::file;
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike as _};

use super::have::{self, Holding, Token};
use super::net::{self, Net};
use super::request::{self, Parsed, Part, Refusal, Request};
use super::wanted::{self, Want};
use crate::error::{Error, Exit, Result};
use crate::fetch::Bucket;
use crate::node::Node;
use crate::print;

/// For a request to be here whole.
const REQUEST_TIME: Duration = Duration::from_secs(5);

/// A peer may keep an answer waiting for so long in all ...
const WRITE_TIME: Duration = Duration::from_secs(10);

/// ... and for what its bytes take at this rate, in bytes a second: slower than any LAN, faster than who is after our
/// connections and nothing else.
const SLOWEST: u64 = 16 * 1024;

/// Connections of one address: a node asks one thing at a time, and no machine alone shall use them up. This machine
/// itself may: it has other ways to be a nuisance to itself.
const FOR_ONE: usize = 2;

/// Read from the disk and written at once.
const CHUNK: usize = 32 * 1024;

/// A connection's thread needs little.
const STACK: usize = 128 * 1024;

/// How often it is looked whether the last question was long ago.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is read, and thrown away, of a request that was refused: so that its sender gets to read why.
const DRAIN: usize = 64 * 1024;

/// Serves until nobody has asked for a while, if the service manager started it; otherwise for ever.
///
/// # Errors
/// Configuration, if sharing is off; I/O, if there is no address to listen on.
pub fn serve(node: &Node, listen: Option<SocketAddr>) -> Result<()> {
    let settings = &node.settings.share;
    if !settings.serve {
        let what = "this node does not share: [share] serve is not set";
        return Err(Error::new(Exit::Config, what, "set it to true, or disable prestage-share.socket"));
    }
    let server = Server {
        store: node.fetched("store"),
        wanted: node.fetched("wanted"),
        token: Token::of(&node.id),
        allow: settings.allow.as_deref().unwrap_or(&net::LOCAL),
        rate: settings.rate,
        max_clients: settings.max_clients,
        clock: &node.clock,
        bucket: Mutex::default(),
        clients: Mutex::default(),
    };
    let passed = if listen.is_none() { passed_socket()? } else { None };
    let served = match passed {
        Some(listener) => server.accept(&listener, Some(settings.idle)),
        None => {
            let address = listen.unwrap_or(settings.listen);
            let bound = TcpListener::bind(address).and_then(|l| Ok((l.local_addr()?, l)));
            let (address, listener) = bound.map_err(|e| Error::io(format!("listening on {address}"), &e))?;
            print(&format!("listening on {address}\n"));
            server.accept(&listener, None)
        }
    };
    served.map_err(|e| Error::io("the socket that peers call", &e))
}

/// The listening socket that the service manager has passed; none, if there is none.
fn passed_socket() -> Result<Option<TcpListener>> {
    let stdin = io::stdin();
    if !getsockopt(&stdin, sockopt::AcceptConn).unwrap_or(false) {
        return Ok(None);
    }
    let fd = stdin.as_fd().try_clone_to_owned().map_err(|e| Error::io("the socket on standard input", &e))?;
    Ok(Some(TcpListener::from(fd)))
}

struct Server<'n> {
    store: PathBuf,
    wanted: PathBuf,
    token: Token,
    allow: &'n [Net],
    /// Bytes a second for all; none: as fast as it goes.
    rate: Option<u64>,
    max_clients: usize,
    clock: &'n dyn Clock,
    bucket: Mutex<Bucket>,
    /// The address of each connection.
    clients: Mutex<Vec<IpAddr>>,
}

/// A place among the clients; free again when it is dropped.
struct Place<'s> {
    server: &'s Server<'s>,
    address: IpAddr,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut clients = lock(&self.server.clients);
        if let Some(place) = clients.iter().position(|address| *address == self.address) {
            clients.swap_remove(place);
        }
    }
}

/// A thread that panicked has left nothing half-done behind these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server<'_> {
    /// Takes connections. `idle`: ends after so long without one.
    fn accept(&self, listener: &TcpListener, idle: Option<Duration>) -> io::Result<()> {
        listener.set_nonblocking(false)?;
        if idle.is_some() {
            // A receive timeout is also that of accept(2) (socket(7)).
            let look_every = TimeVal::milliseconds(i64::try_from(LOOK_EVERY.as_millis()).unwrap_or(1000));
            setsockopt(listener, sockopt::ReceiveTimeout, &look_every)?;
        }
        let mut last = self.clock.instant();
        std::thread::scope(|scope| {
            loop {
                match listener.accept() {
                    Ok((stream, from)) => {
                        last = self.clock.instant();
                        let address = from.ip().to_canonical();
                        if !self.allow.iter().any(|net| net.holds(address)) {
                            host::detail!("{address} is not of this site: not answered");
                            continue;
                        }
                        let Some(place) = self.enter(address) else {
                            // Fits into the socket's buffer, so it waits for nobody.
                            let _ = answer_shortly(&stream, "503 Service Unavailable", "Retry-After: 1\r\n");
                            continue;
                        };
                        let thread = std::thread::Builder::new().stack_size(STACK);
                        let spawned = thread.spawn_scoped(scope, move || {
                            if let Err(error) = place.server.talk(&stream) {
                                host::detail!("{address}: {error}");
                            }
                            drop(place);
                        });
                        if let Err(error) = spawned {
                            log::warn!("no thread for {address}: {error}");
                        }
                    }
                    Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                        let now = self.clock.instant();
                        if !lock(&self.clients).is_empty() {
                            last = now;
                        } else if idle.is_some_and(|idle| now.saturating_sub(last) >= idle) {
                            return Ok(());
                        }
                    }
                    Err(e)
                        if matches!(
                            e.kind(),
                            io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
                        ) => {}
                    Err(e) => return Err(e),
                }
            }
        })
    }

    /// A place for a client; none, if there are too many.
    fn enter(&self, address: IpAddr) -> Option<Place<'_>> {
        let mut clients = lock(&self.clients);
        let of_it = clients.iter().filter(|client| **client == address).count();
        if clients.len() >= self.max_clients || (of_it >= FOR_ONE && !address.is_loopback()) {
            return None;
        }
        clients.push(address);
        Some(Place { server: self, address })
    }

    /// One request and its answer.
    fn talk(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WRITE_TIME))?;
        let Some(parsed) = self.read(stream)? else { return Ok(()) };
        match parsed {
            Parsed::Request(Request::Content { digest, body, part }) => {
                self.content(stream, digest, body, part)
            }
            Parsed::Request(Request::Have(asked)) => {
                let wants = wanted::read(&self.wanted);
                let holdings: Vec<Holding> = asked.iter().map(|d| self.holding(d, wants.get(d))).collect();
                let text = have::write(self.token, &holdings);
                let more = "Content-Type: text/plain\r\nCache-Control: no-store\r\n";
                let answer = head("200 OK", text.len() as u64, more) + &text;
                self.write(stream, answer.as_bytes(), &mut Duration::default(), 0)
            }
            Parsed::Refused(refusal) => self.refuse(stream, refusal),
            Parsed::Incomplete => Ok(()),
        }
    }

    /// Reads a request; none, if its sender goes away before it is whole.
    fn read(&self, mut stream: &TcpStream) -> io::Result<Option<Parsed>> {
        let deadline = self.clock.instant() + REQUEST_TIME;
        let mut buffer = vec![0; request::MAX_HEAD];
        let mut have = 0;
        loop {
            let left = deadline.saturating_sub(self.clock.instant());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            stream.set_read_timeout(Some(left))?;
            match stream.read(&mut buffer[have..]) {
                Ok(0) => return Ok(None),
                Ok(n) => have += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            }
            match request::parse(&buffer[..have]) {
                Parsed::Incomplete => {}
                parsed => return Ok(Some(parsed)),
            }
        }
    }

    fn refuse(&self, mut stream: &TcpStream, refusal: Refusal) -> io::Result<()> {
        let more = if refusal == Refusal::Method { "Allow: GET, HEAD\r\n" } else { "" };
        answer_shortly(stream, refusal.status(), more)?;
        // What is still on its way would make the kernel reset the connection and take the answer with it.
        stream.shutdown(Shutdown::Write)?;
        stream.set_read_timeout(Some(LOOK_EVERY))?;
        let mut buffer = [0; 4096];
        for _ in 0..DRAIN / buffer.len() {
            if stream.read(&mut buffer)? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// What is here of `digest`, which the running fetch wants or does not.
    fn holding(&self, digest: &Sha256, want: Option<&Want>) -> Holding {
        let length = |name: String| {
            let meta = std::fs::symlink_metadata(self.store.join(name)).ok()?;
            meta.is_file().then_some(meta.len())
        };
        match want {
            _ if length(digest.to_string()).is_some() => Holding::Whole,
            None => Holding::Nothing,
            Some(Want::Wanted) => Holding::Wanted,
            Some(Want::Coming) => Holding::Coming(length(format!("{digest}.partial")).unwrap_or(0)),
        }
    }

    /// Whole content, or a part of it.
    fn content(&self, stream: &TcpStream, digest: Sha256, body: bool, part: Option<Part>) -> io::Result<()> {
        // The store gives a file this name when it is whole, and not before.
        let Ok(file) = file::open_regular(&self.store.join(digest.to_string())) else {
            return self.refuse(stream, Refusal::NotFound);
        };
        let size = file.metadata()?.len();
        let range = match part.map(|part| part.of(size)) {
            None => 0..size,
            Some(Some(range)) => range,
            Some(None) => {
                let more = format!("Content-Range: bytes */{size}\r\n");
                return answer_shortly(stream, "416 Range Not Satisfiable", &more);
            }
        };
        let mut more = format!(
            "Content-Type: application/octet-stream\r\nAccept-Ranges: bytes\r\nETag: \"{digest}\"\r\n\
             Cache-Control: immutable\r\n"
        );
        let mut status = "200 OK";
        if part.is_some() {
            status = "206 Partial Content";
            more += &format!("Content-Range: bytes {}-{}/{size}\r\n", range.start, range.end - 1);
        }
        let head = head(status, range.end - range.start, &more);
        self.write(stream, head.as_bytes(), &mut Duration::default(), 0)?;
        if body { self.body(stream, &file, range) } else { Ok(()) }
    }

    fn body(&self, stream: &TcpStream, file: &File, range: std::ops::Range<u64>) -> io::Result<()> {
        let mut buffer = vec![0; self.rate.map_or(CHUNK, |rate| Bucket::portion(rate, CHUNK))];
        let (mut at, mut waited) = (range.start, Duration::ZERO);
        while at < range.end {
            let wanted = buffer.len().min(usize::try_from(range.end - at).unwrap_or(usize::MAX));
            let n = file.read_at(&mut buffer[..wanted], at)?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(rate) = self.rate {
                let wait = lock(&self.bucket).take(self.clock.instant(), n, rate);
                self.clock.sleep(wait);
            }
            self.write(stream, &buffer[..n], &mut waited, at - range.start)?;
            at += n as u64;
        }
        Ok(())
    }

    /// Writes all of `bytes`, unless the reader takes too long: `waited` is the time that it has taken so far, for `sent`
    /// bytes.
    fn write(
        &self,
        mut stream: &TcpStream,
        bytes: &[u8],
        waited: &mut Duration,
        sent: u64,
    ) -> io::Result<()> {
        let mut written = 0;
        while written < bytes.len() {
            let before = self.clock.instant();
            match stream.write(&bytes[written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => written += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
            *waited += self.clock.instant().saturating_sub(before);
            if *waited > WRITE_TIME + Duration::from_secs((sent + written as u64) / SLOWEST) {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "it reads too slowly"));
            }
        }
        Ok(())
    }
}

/// A response's head. Every connection ends with its answer: one question to one thread.
///
/// Off-spec: no Date (RFC 9110 section 6.6.1), which nobody here asks for.
fn head(status: &str, length: u64, more: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{more}\r\n")
}

fn answer_shortly(mut stream: &TcpStream, status: &str, more: &str) -> io::Result<()> {
    stream.write_all(head(status, 0, more).as_bytes())
}
