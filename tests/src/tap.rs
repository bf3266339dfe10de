//! A tap on the wire: a TCP relay that counts bytes and writes down requests, so that what a server and a client say
//! of their traffic can be checked by a third.
//!
//! It writes a line `GET /path` for each request, and `closed down=N up=N` when a connection has ended.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;

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

fn say(log: &Mutex<impl Write>, line: &str) {
    if let Ok(mut log) = log.lock() {
        let _ = writeln!(log, "{line}").and_then(|()| log.flush());
    }
}
