//! A site: nodes that give each other what one of them has fetched, each at an address of its own on loopback.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::sandbox::{command, program};

/// `prestage share` of one node, with its socket passed as a service manager does. It ends with the value.
pub struct Sharer {
    /// Where it is asked.
    pub address: SocketAddr,
    /// The process.
    pub child: Child,
}

impl Sharer {
    /// Starts it for the node below `root`, on this socket, which ends with the process.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(root: &Path, listener: TcpListener) -> Sharer {
        let address = listener.local_addr().expect("it is bound");
        let mut share = command(program("prestage"));
        share.arg("--root").arg(root).arg("share").stdin(Stdio::from(OwnedFd::from(listener)));
        share.stdout(Stdio::null()).stderr(Stdio::inherit());
        Sharer { address, child: share.spawn().expect("the agent can be started") }
    }

    /// What it answers to these bytes, up to the end of the connection.
    pub fn ask(&self, bytes: &[u8]) -> Vec<u8> {
        ask(self.address, bytes)
    }

    /// Status code, head and body of the answer to a GET.
    pub fn get(&self, target: &str, headers: &str) -> (u16, String, Vec<u8>) {
        let answer = self.ask(format!("GET {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n").as_bytes());
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        (status, head, answer[end..].to_vec())
    }
}

impl Drop for Sharer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends `bytes` and reads to the end; a connection that is reset ends too.
pub fn ask(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    if let Ok(mut stream) = TcpStream::connect(address) {
        let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
        let _ = stream.write_all(bytes);
        let _ = stream.read_to_end(&mut answer);
    }
    answer
}

/// How a false peer is false.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum False {
    /// It has everything, and gives garbage of the right length.
    Garbage,
    /// It has everything, and never sends a byte of it.
    Stalls,
    /// It has everything coming, for ever.
    Promises,
}

/// A peer that claims to have everything. Ends with the process.
pub struct FalsePeer {
    /// Where it is asked.
    pub address: SocketAddr,
    /// How often content was asked.
    pub asked: Arc<AtomicU64>,
}

impl FalsePeer {
    /// Starts one. `size` tells how long a content is.
    ///
    /// # Panics
    /// If there is no port.
    pub fn start(how: False, size: impl Fn(&str) -> u64 + Send + Sync + 'static) -> FalsePeer {
        let listener = TcpListener::bind("127.0.0.66:0").expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let asked = Arc::new(AtomicU64::new(0));
        let (count, size) = (asked.clone(), Arc::new(size));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (count, size) = (count.clone(), size.clone());
                std::thread::spawn(move || answer(stream, how, &count, size.as_ref()));
            }
        });
        FalsePeer { address, asked }
    }
}

fn answer(mut stream: TcpStream, how: False, count: &AtomicU64, size: &dyn Fn(&str) -> u64) {
    let mut bytes = Vec::new();
    let mut buffer = [0; 8192];
    while !bytes.windows(4).any(|w| w == b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(n) if n > 0 => bytes.extend_from_slice(&buffer[..n]),
            _ => return,
        }
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let target = text.split(' ').nth(1).unwrap_or_default();
    if let Some(asked) = target.strip_prefix("/have/") {
        let each = if how == False::Promises { "coming 5\n" } else { "whole\n" };
        // A token that is high in no particular order.
        let body = format!("prestage-site 1 00000000000000ff\n{}", each.repeat(asked.split(',').count()));
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        return;
    }
    count.fetch_add(1, Ordering::Relaxed);
    let length = size(target.trim_start_matches("/content/"));
    if how == False::Stalls {
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        // Until the other side has enough.
        let _ = stream.read(&mut buffer);
        return;
    }
    let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    let _ = std::io::copy(&mut std::io::repeat(b'x').take(length), &mut stream);
}
