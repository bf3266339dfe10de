//! A file server on loopback, with ranges and kept-alive connections, that records every request and misbehaves on
//! order.
//!
//! Its send buffer is small, so that what it has "sent" is what a client has got, but for a few KiB.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use crate::http::{self, Request};

/// What a client may have in flight. The kernel doubles it; smaller is not taken.
const SEND_BUFFER: usize = 4 * 1024;

/// How long a test waits for another process before it says so.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One request, as it was answered.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Method.
    pub method: String,
    /// Path, with its leading `/`.
    pub path: String,
    /// First byte asked for, if a range was.
    pub from: Option<u64>,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Status of the answer.
    pub status: u16,
    /// Body bytes that were written to the connection.
    pub sent: u64,
    /// Whether the body was sent to its end.
    pub whole: bool,
}

/// How to misbehave. The default is to behave.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    /// End the connection early, once for each, in this order.
    pub cuts: VecDeque<Cut>,
    /// Answer 500 to every second request.
    pub every_second_fails: bool,
    /// Answer 200 and the whole file to a range request.
    pub ignore_range: bool,
    /// Answer a range request with bytes that begin so much later than asked for, and say so.
    pub shift_range: u64,
    /// Send this byte of a file wrong: path's end, offset in the file.
    pub flip: Option<(String, u64)>,
    /// Send everything to this other address.
    pub redirect_to: Option<String>,
    /// Send these bytes for paths that end so, instead of the file.
    pub instead: Option<(String, Vec<u8>)>,
    /// Refuse requests, in this order where several fit.
    pub refusals: Vec<Refusal>,
    /// Send what begins with the first to the second instead, with this status.
    pub moved: Option<(u16, String, String)>,
    /// What stands for a file's content.
    pub validator: Validator,
    /// Say this in Content-Range, whatever is sent.
    pub content_range: Option<String>,
    /// Send so many bytes more than the range that was asked for, and say so.
    pub extra: u64,
    /// Send garbage behind every body of a file, beyond its Content-Length.
    pub trailing_garbage: bool,
    /// Send bodies in chunks and say no length.
    pub chunked: bool,
    /// Say that bodies are encoded so. They are not.
    pub encoding: Option<&'static str>,
    /// For paths that end so: a byte, then this pause, and so on.
    pub dribble: Option<(String, Duration)>,
    /// Refuse with 401 what does not bring this Authorization.
    pub authorization: Option<String>,
    /// Send no answer of HTTP's making at all.
    pub raw: Option<Raw>,
}

/// Bytes on the connection, whatever they mean.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    /// For paths that end with this.
    pub suffix: String,
    /// What comes first.
    pub first: Vec<u8>,
    /// What comes then, again and again until the client hangs up; nothing: the connection is closed.
    pub then: Vec<u8>,
    /// How long to wait before each time.
    pub pause: Duration,
}

/// A refusal.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// For paths that end with this.
    pub suffix: String,
    /// With this status.
    pub status: u16,
    /// With this in Retry-After.
    pub retry_after: Option<String>,
    /// So many times.
    pub times: u32,
}

impl Refusal {
    /// For ever.
    pub fn always(suffix: &str, status: u16) -> Self {
        Refusal { suffix: suffix.to_owned(), status, retry_after: None, times: u32::MAX }
    }
}

/// What stands for a file's content, and is compared for If-Range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Validator {
    /// A strong entity tag.
    #[default]
    Strong,
    /// A weak one: never good enough for a range (RFC 9110, section 13.1.5).
    Weak,
    /// Last-Modified alone.
    Date,
    /// A strong entity tag that is another one for each request, as behind a balancer with unequal servers.
    Unsteady,
    /// Nothing.
    Nothing,
}

/// One cut.
#[derive(Clone, Debug)]
pub struct Cut {
    /// For paths that end with this.
    pub suffix: String,
    /// After so many body bytes, counted over requests from when the cut before it was made.
    pub after: u64,
    /// How.
    pub how: CutKind,
}

/// How a connection ends too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutKind {
    /// Closed.
    Close,
    /// Reset.
    Reset,
    /// Neither: silence until [`Server::release`], then closed.
    Stall,
}

/// A server. It ends with the value.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    root: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    behaviour: Behaviour,
    exchanges: Vec<Exchange>,
    requests: u64,
    connections: Vec<(SocketAddr, TcpStream)>,
    stopping: bool,
    stalled: bool,
}

impl Server {
    /// Serves the files below `root` on a free port.
    ///
    /// # Errors
    /// If there is no port.
    pub fn start(root: &Path) -> io::Result<Server> {
        Server::listen(root, TcpListener::bind("127.0.0.1:0")?)
    }

    fn listen(root: &Path, listener: TcpListener) -> io::Result<Server> {
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { root: root.to_owned(), ..Shared::default() });
        let for_thread = shared.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if for_thread.lock().stopping {
                    return;
                }
                if let Ok(stream) = stream {
                    let shared = for_thread.clone();
                    std::thread::spawn(move || shared.talk(stream));
                }
            }
        });
        Ok(Server { address, shared, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL, with a `/` at the end.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// How to behave from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        self.shared.lock().behaviour = behaviour;
    }

    /// Every request that has been answered so far.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.shared.lock().exchanges.clone()
    }

    /// Ends every connection, as if nobody had come yet.
    pub fn hang_up(&self) {
        for (_, connection) in &self.shared.lock().connections {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Forgets what was recorded.
    pub fn forget(&self) {
        let mut state = self.shared.lock();
        state.exchanges.clear();
        state.requests = 0;
    }

    /// How many cuts are still to be made.
    pub fn cuts_left(&self) -> usize {
        self.shared.lock().behaviour.cuts.len()
    }

    /// Whether a cut of kind [`CutKind::Stall`] has been reached, and not released.
    pub fn is_stalled(&self) -> bool {
        self.shared.lock().stalled
    }

    /// Waits until a cut of kind [`CutKind::Stall`] has been reached.
    pub fn wait_for_stall(&self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.shared.lock();
        while !state.stalled {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return false;
            };
            state = self.shared.changed.wait_timeout(state, left).expect("no thread panics with it").0;
        }
        true
    }

    /// Ends every stalled connection.
    pub fn release(&self) {
        self.shared.lock().stalled = false;
        self.shared.changed.notify_all();
    }

    /// Stops, with all connections, and starts again on the same port, with what it has recorded.
    ///
    /// # Errors
    /// If the port cannot be had again.
    pub fn restart(&mut self) -> io::Result<()> {
        let (address, root) = (self.address, self.shared.root.clone());
        let (behaviour, exchanges) = {
            let state = self.shared.lock();
            (state.behaviour.clone(), state.exchanges.clone())
        };
        self.stop();
        *self = Server::listen(&root, TcpListener::bind(address)?)?;
        let mut state = self.shared.lock();
        state.behaviour = behaviour;
        state.exchanges = exchanges;
        Ok(())
    }

    fn stop(&mut self) {
        {
            let mut state = self.shared.lock();
            state.stopping = true;
            state.stalled = false;
            for (_, connection) in state.connections.drain(..) {
                let _ = connection.shutdown(Shutdown::Both);
            }
        }
        self.shared.changed.notify_all();
        // Wakes the thread out of accept(2).
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What to send.
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Option<(File, u64, u64)>,
    text: Vec<u8>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics with it")
    }

    fn talk(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        setsockopt(&stream, sockopt::SndBuf, &SEND_BUFFER)?;
        let peer = stream.peer_addr()?;
        self.lock().connections.push((peer, stream.try_clone()?));
        let result = self.answer_all(&mut stream);
        // Every handle to the connection must go, or it stays open.
        self.lock().connections.retain(|(p, _)| *p != peer);
        result
    }

    fn answer_all(&self, stream: &mut TcpStream) -> io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        while let Some(request) = Request::read(&mut reader)? {
            let raw = self.lock().behaviour.raw.clone().filter(|raw| request.path.ends_with(&raw.suffix));
            if let Some(raw) = raw {
                self.record(&request, 0);
                return self.send_raw(&raw, stream);
            }
            let answer = self.answer(&request)?;
            let index = self.record(&request, answer.status);
            self.send(&request, answer, index, stream)?;
        }
        Ok(())
    }

    /// Writes a request down; its place in the list.
    fn record(&self, request: &Request, status: u16) -> usize {
        let mut state = self.lock();
        state.exchanges.push(Exchange {
            method: request.method.clone(),
            path: request.path.clone(),
            from: request.range().map(|(from, _)| from),
            headers: request.headers.clone(),
            status,
            sent: 0,
            whole: false,
        });
        state.exchanges.len() - 1
    }

    fn send_raw(&self, raw: &Raw, stream: &mut TcpStream) -> io::Result<()> {
        stream.write_all(&raw.first)?;
        while !raw.then.is_empty() {
            self.pause(raw.pause)?;
            stream.write_all(&raw.then)?;
        }
        Ok(())
    }

    fn answer(&self, request: &Request) -> io::Result<Answer> {
        let (behaviour, number) = {
            let mut state = self.lock();
            state.requests += 1;
            (state.behaviour.clone(), state.requests)
        };
        let plain = |status: u16, text: &str| Answer {
            status,
            headers: vec![("Content-Length", text.len().to_string())],
            body: None,
            text: text.as_bytes().to_vec(),
        };
        if let Some(to) = &behaviour.redirect_to {
            let mut answer = plain(302, "");
            answer.headers.push(("Location", format!("{}{}", to.trim_end_matches('/'), request.path)));
            return Ok(answer);
        }
        if let Some((status, from, to)) = &behaviour.moved
            && let Some(rest) = request.path.strip_prefix(from.as_str())
        {
            let mut answer = plain(*status, "");
            answer.headers.push(("Location", format!("{to}{rest}")));
            return Ok(answer);
        }
        if behaviour
            .authorization
            .as_deref()
            .is_some_and(|wanted| request.header("authorization") != Some(wanted))
        {
            return Ok(plain(401, "who are you?"));
        }
        if let Some(refusal) = self.refusal(&request.path) {
            let mut answer = plain(refusal.status, "on order");
            answer.headers.extend(refusal.retry_after.map(|value| ("Retry-After", value)));
            return Ok(answer);
        }
        if behaviour.every_second_fails && number.is_multiple_of(2) {
            return Ok(plain(500, "on order"));
        }
        if let Some((suffix, bytes)) = &behaviour.instead
            && request.path.ends_with(suffix)
        {
            let mut answer = plain(200, "");
            answer.headers = vec![("Content-Length", bytes.len().to_string())];
            answer.text = bytes.clone();
            return Ok(answer);
        }
        let Some((file, length)) = self.open(&request.path) else {
            return Ok(plain(404, "no such file"));
        };
        let changed = modified(&file)?;
        let mut headers = vec![("Accept-Ranges", "bytes".to_owned())];
        let strong = match behaviour.validator {
            Validator::Strong => Some(format!("\"{length}-{changed}\"")),
            Validator::Unsteady => Some(format!("\"{length}-{changed}-{number}\"")),
            Validator::Date => Some(date(changed)),
            Validator::Weak | Validator::Nothing => None,
        };
        match (&strong, behaviour.validator) {
            (Some(date), Validator::Date) => {
                headers.push(("Last-Modified", date.clone()));
                // A minute later: it can stand for the content (RFC 9110, section 8.8.2.2).
                headers.push(("Date", self::date(changed + 60_000_000_000)));
            }
            (Some(etag), _) => headers.push(("ETag", etag.clone())),
            (None, Validator::Weak) => headers.push(("ETag", format!("W/\"{length}\""))),
            (None, _) => {}
        }
        let known = request.header("if-none-match").or(request.header("if-modified-since"));
        if known.is_some() && known == strong.as_deref() {
            return Ok(Answer { status: 304, headers, body: None, text: Vec::new() });
        }
        // RFC 9110, section 13.1.5: a range of another file than the one meant is not sent.
        let is_meant = request.header("if-range").is_none_or(|meant| Some(meant) == strong.as_deref());
        let range = request.range().filter(|_| !behaviour.ignore_range && is_meant);
        let (status, from, to) = match range {
            None => (200, 0, length),
            Some((from, _)) if from >= length => {
                let mut answer = plain(416, "");
                answer.headers.push(("Content-Range", format!("bytes */{length}")));
                return Ok(answer);
            }
            Some((from, to)) => (206, from, to.map_or(length, |to| length.min(to + 1 + behaviour.extra))),
        };
        let (from, to) = if status == 206 && behaviour.shift_range > 0 {
            ((from + behaviour.shift_range).min(length - 1), (to + behaviour.shift_range).min(length))
        } else {
            (from, to)
        };
        if behaviour.chunked {
            headers.push(("Transfer-Encoding", "chunked".to_owned()));
        } else {
            headers.push(("Content-Length", (to - from).to_string()));
        }
        headers.extend(behaviour.encoding.map(|encoding| ("Content-Encoding", encoding.to_owned())));
        if status == 206 {
            let said = behaviour.content_range.unwrap_or(format!("bytes {from}-{}/{length}", to - 1));
            headers.push(("Content-Range", said));
        }
        Ok(Answer { status, headers, body: Some((file, from, to)), text: Vec::new() })
    }

    /// The refusal that a request for `path` gets.
    fn refusal(&self, path: &str) -> Option<Refusal> {
        let mut state = self.lock();
        let fits = |r: &&mut Refusal| r.times > 0 && path.ends_with(&r.suffix);
        let refusal = state.behaviour.refusals.iter_mut().find(fits)?;
        refusal.times -= u32::from(refusal.times < u32::MAX);
        Some(refusal.clone())
    }

    fn open(&self, path: &str) -> Option<(File, u64)> {
        let path = decode(path.split('?').next()?);
        let path = Path::new(path.trim_start_matches('/'));
        if !path.components().all(|c| matches!(c, Component::Normal(_))) {
            return None;
        }
        let file = File::open(self.root.join(path)).ok()?;
        let meta = file.metadata().ok()?;
        meta.is_file().then_some((file, meta.len()))
    }

    fn send(
        &self,
        request: &Request,
        answer: Answer,
        index: usize,
        stream: &mut TcpStream,
    ) -> io::Result<()> {
        http::write_head(stream, answer.status, &answer.headers)?;
        if request.method == "HEAD" {
            return Ok(());
        }
        stream.write_all(&answer.text)?;
        let behaviour = self.lock().behaviour.clone();
        let dribble = behaviour.dribble.filter(|(suffix, _)| request.path.ends_with(suffix));
        if let Some((mut file, from, to)) = answer.body {
            file.seek(SeekFrom::Start(from))?;
            let mut buffer = [0; 4096];
            let mut at = from;
            while at < to {
                let most = if dribble.is_some() { 1 } else { buffer.len() as u64 };
                let n = (to - at).min(most) as usize;
                file.read_exact(&mut buffer[..n])?;
                let n = match self.may_send(&request.path, at, &mut buffer[..n]) {
                    Ok(()) => n,
                    Err((n, how)) => {
                        stream.write_all(&buffer[..n])?;
                        self.sent(index, n);
                        return self.end(how, stream);
                    }
                };
                if behaviour.chunked {
                    write!(stream, "{n:x}\r\n")?;
                }
                stream.write_all(&buffer[..n])?;
                if behaviour.chunked {
                    stream.write_all(b"\r\n")?;
                }
                self.sent(index, n);
                at += n as u64;
                if let Some((_, pause)) = &dribble {
                    self.pause(*pause)?;
                }
            }
            if behaviour.chunked {
                stream.write_all(b"0\r\n\r\n")?;
            }
            if behaviour.trailing_garbage {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\ngarbage")?;
            }
        }
        if let Some(exchange) = self.lock().exchanges.get_mut(index) {
            exchange.whole = true;
        }
        Ok(())
    }

    /// Counts bytes that were sent; of an exchange that was not forgotten meanwhile.
    fn sent(&self, index: usize, bytes: usize) {
        if let Some(exchange) = self.lock().exchanges.get_mut(index) {
            exchange.sent += bytes as u64;
        }
    }

    /// Waits, unless the server is to end.
    fn pause(&self, pause: Duration) -> io::Result<()> {
        let state = self.lock();
        let is_up = |state: &mut State| !state.stopping;
        let waited = self.changed.wait_timeout_while(state, pause, is_up).expect("no thread panics with it");
        if waited.0.stopping { Err(io::Error::other("stopped")) } else { Ok(()) }
    }

    /// Spoils bytes that are to be spoiled. Where the connection is to be cut: how many of the bytes still go out.
    fn may_send(&self, path: &str, at: u64, bytes: &mut [u8]) -> Result<(), (usize, CutKind)> {
        let mut state = self.lock();
        if let Some((suffix, offset)) = &state.behaviour.flip
            && path.ends_with(suffix)
            && let Some(byte) = offset.checked_sub(at).and_then(|i| bytes.get_mut(i as usize))
        {
            *byte ^= 1;
        }
        if let Some(cut) = state.behaviour.cuts.front_mut()
            && path.ends_with(&cut.suffix)
        {
            if cut.after <= bytes.len() as u64 {
                let end = (cut.after as usize, cut.how);
                state.behaviour.cuts.pop_front();
                return Err(end);
            }
            cut.after -= bytes.len() as u64;
        }
        Ok(())
    }

    fn end(&self, how: CutKind, stream: &TcpStream) -> io::Result<()> {
        match how {
            CutKind::Close => {}
            CutKind::Reset => {
                // Not to linger means to reset: what is not yet delivered is lost.
                let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
                setsockopt(stream, sockopt::Linger, &linger)?;
            }
            CutKind::Stall => {
                let mut state = self.lock();
                state.stalled = true;
                self.changed.notify_all();
                while state.stalled && !state.stopping {
                    state = self.changed.wait(state).expect("no thread panics with it");
                }
            }
        }
        Err(io::Error::other("cut on order"))
    }
}

fn modified(file: &File) -> io::Result<u128> {
    let time = file.metadata()?.modified()?;
    Ok(time.duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos()))
}

/// An HTTP date (RFC 9110, section 5.6.7) of nanoseconds since 1970.
pub fn date(nanoseconds: u128) -> String {
    let seconds = i64::try_from(nanoseconds / 1_000_000_000).unwrap_or(0);
    let text = format::time::UnixTime(seconds).to_string();
    let number = |from: usize, to: usize| text[from..to].parse::<usize>().unwrap_or(0);
    let day = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][(seconds / 86_400 % 7) as usize];
    let month = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    format!("{day}, {:02} {} {} {} GMT", number(8, 10), month[number(5, 7) - 1], number(0, 4), &text[11..19])
}

fn decode(path: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = path.bytes();
    while let Some(b) = bytes.next() {
        if b == b'%' {
            let hex: Vec<u8> = bytes.by_ref().take(2).collect();
            let code = std::str::from_utf8(&hex).ok().and_then(|h| u8::from_str_radix(h, 16).ok());
            out.push(code.unwrap_or(b'?'));
        } else {
            out.push(b);
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(server: &Server, path: &str, headers: &str) -> io::Result<(String, Vec<u8>)> {
        let mut stream = TcpStream::connect(server.address)?;
        write!(stream, "GET {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n")?;
        stream.shutdown(Shutdown::Write)?;
        let mut all = Vec::new();
        let result = stream.read_to_end(&mut all);
        let split = all.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(0);
        let head = String::from_utf8_lossy(&all[..split]).into_owned();
        result.map(|_| (head, all.split_off((split + 4).min(all.len()))))
    }

    fn served() -> (tempfile::TempDir, Server, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let content = crate::random::Random::new(1).bytes(100_000);
        std::fs::write(folder.path().join("a+b"), &content).unwrap();
        let server = Server::start(folder.path()).unwrap();
        (folder, server, content)
    }

    #[test]
    fn ranges_are_served_and_recorded() {
        let (_folder, server, content) = served();
        let (head, body) = get(&server, "/a%2bb", "Range: bytes=10-19\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 206") && head.contains("bytes 10-19/100000"), "{head}");
        assert_eq!(body, &content[10..20]);
        let exchange = &server.exchanges()[0];
        assert_eq!((exchange.from, exchange.sent, exchange.whole), (Some(10), 10, true));
        assert!(get(&server, "/../etc/passwd", "").unwrap().0.starts_with("HTTP/1.1 404"));
    }

    #[test]
    fn it_cuts_resets_and_then_behaves_again() {
        let (_folder, server, content) = served();
        for (how, ok) in [(CutKind::Close, true), (CutKind::Reset, false)] {
            server.behave(Behaviour {
                cuts: [Cut { suffix: "a+b".into(), after: 50_000, how }].into(),
                ..Behaviour::default()
            });
            let result = get(&server, "/a+b", "");
            assert_eq!(result.is_ok(), ok, "{how:?}");
            if let Ok((_, body)) = result {
                assert_eq!(body, &content[..50_000]);
            }
            assert_eq!(server.exchanges().last().unwrap().sent, 50_000);
        }
        assert_eq!(get(&server, "/a+b", "").unwrap().1, content);
    }

    #[test]
    fn it_flips_one_byte_wherever_the_range_begins() {
        let (_folder, server, content) = served();
        server.behave(Behaviour { flip: Some(("a+b".into(), 5_000)), ..Behaviour::default() });
        let (_, body) = get(&server, "/a+b", "Range: bytes=4999-5001\r\n").unwrap();
        assert_eq!(body, [content[4999], content[5000] ^ 1, content[5001]]);
    }

    #[test]
    fn a_range_of_a_file_that_was_replaced_is_not_sent() {
        let (folder, server, content) = served();
        let (head, _) = get(&server, "/a+b", "Range: bytes=0-9\r\n").unwrap();
        let etag = head.lines().find_map(|l| l.strip_prefix("ETag: ")).unwrap();
        let ranged = format!("Range: bytes=10-19\r\nIf-Range: {etag}\r\n");
        assert_eq!(get(&server, "/a+b", &ranged).unwrap().1, &content[10..20]);
        std::fs::write(folder.path().join("a+b"), b"another").unwrap();
        let (head, body) = get(&server, "/a+b", &ranged).unwrap();
        assert!(head.starts_with("HTTP/1.1 200") && body == b"another", "{head}");
    }

    #[test]
    fn dates_are_those_of_http() {
        assert_eq!(date(784_111_777_000_000_000), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn it_restarts_on_its_port() {
        let (_folder, mut server, content) = served();
        let url = server.url();
        get(&server, "/a+b", "").unwrap();
        server.restart().unwrap();
        assert_eq!((server.url(), server.exchanges().len()), (url, 1));
        assert_eq!(get(&server, "/a+b", "").unwrap().1, content);
    }
}
