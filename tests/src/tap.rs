//! A tap on the wire: a TCP relay that counts bytes and writes down requests, so that what a server and a client say
//! of their traffic can be checked by a third.
//!
//! It writes a line `GET /path` for each request, and `closed down=N up=N` when a connection has ended.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

/// Relays every connection to `upstream`, until the process ends. Lines go to `log`.
///
/// # Errors
/// If it cannot listen.
pub fn relay(listener: &TcpListener, upstream: SocketAddr, log: &Mutex<impl Write + Send>) -> io::Result<()> {
    std::thread::scope(|scope| {
        for stream in listener.incoming() {
            let client = stream?;
            scope.spawn(move || {
                say(log, "opened");
                let (down, up) = connection(&client, upstream, log).unwrap_or((0, 0));
                say(log, &format!("closed down={down} up={up}"));
            });
        }
        Ok(())
    })
}

/// One connection, to its end: bytes to the client, and from it.
fn connection(
    client: &TcpStream,
    upstream: SocketAddr,
    log: &Mutex<impl Write + Send>,
) -> io::Result<(u64, u64)> {
    let server = TcpStream::connect(upstream)?;
    server.set_nodelay(true)?;
    client.set_nodelay(true)?;
    std::thread::scope(|scope| {
        let up = scope.spawn(|| {
            copy(client, &server, |bytes| {
                // A client that keeps its connection sends a request only after the answer to the one before, so each
                // begins a read.
                let line = String::from_utf8_lossy(bytes.split(|b| *b == b'\r').next().unwrap_or_default());
                if let Some(request) = line.strip_suffix(" HTTP/1.1") {
                    say(log, request);
                }
            })
        });
        let down = copy(&server, client, |_| {});
        Ok((down, up.join().unwrap_or(0)))
    })
}

/// Copies until either side ends, and tells the other side.
fn copy(mut from: &TcpStream, mut to: &TcpStream, mut look: impl FnMut(&[u8])) -> u64 {
    let mut buffer = [0; 64 * 1024];
    let mut total = 0;
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        look(&buffer[..n]);
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
        total += n as u64;
    }
    // Either end is the end: no client of ours half-closes.
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
    total
}

/// A tap that measures: when how many bytes went to clients. It relays until the process ends.
pub struct Meter {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<(Duration, u64)>>>,
}

impl Meter {
    /// Relays to `upstream` from a free port, with about `buffer` bytes between the count and the client's kernel.
    ///
    /// # Errors
    /// If there is none.
    pub fn start(upstream: SocketAddr, buffer: usize) -> io::Result<Meter> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let meter = Meter { address: listener.local_addr()?, seen: Arc::default() };
        let (seen, began) = (meter.seen.clone(), Instant::now());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let seen = seen.clone();
                std::thread::spawn(move || measured(&client, upstream, buffer, began, &seen));
            }
        });
        Ok(meter)
    }

    /// Its URL, with a `/` at the end.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Each write to a client: when, since the start, and how many bytes.
    pub fn seen(&self) -> Vec<(Duration, u64)> {
        self.seen.lock().map(|seen| seen.clone()).unwrap_or_default()
    }
}

/// One connection. A small buffer to the client, so that a byte counts when the client's kernel has taken it and not when
/// it is queued here.
fn measured(
    client: &TcpStream,
    upstream: SocketAddr,
    buffer: usize,
    began: Instant,
    seen: &Mutex<Vec<(Duration, u64)>>,
) -> io::Result<()> {
    let server = TcpStream::connect(upstream)?;
    server.set_nodelay(true)?;
    client.set_nodelay(true)?;
    setsockopt(client, sockopt::SndBuf, &(buffer / 2))?; // the kernel doubles it (socket(7))
    std::thread::scope(|scope| {
        scope.spawn(|| copy(client, &server, |_| {}));
        let mut buffer = [0; 4096];
        let mut to = client;
        while let Ok(n @ 1..) = (&server).read(&mut buffer) {
            if to.write_all(&buffer[..n]).is_err() {
                break;
            }
            if let Ok(mut seen) = seen.lock() {
                seen.push((began.elapsed(), n as u64));
            }
        }
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    });
    Ok(())
}

fn say(log: &Mutex<impl Write>, line: &str) {
    if let Ok(mut log) = log.lock() {
        let _ = writeln!(log, "{line}").and_then(|()| log.flush());
    }
}
