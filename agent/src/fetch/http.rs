//! A mirror behind http or https, and the sending of reports. The only `ureq`.
//!
//! What a server can answer, and what becomes of it. Whatever it sends, every byte is hashed by whoever asked.
//!
//! | the server | then |
//! | --- | --- |
//! | 206 with the range asked for, or the beginning of it | it is used; what is missing is asked for again |
//! | 206 with another range, more than was asked for, or none that can be read | not used; the mirror has failed |
//! | 200 instead of 206, first time | what comes before is read past, up to 1 MiB; beyond that the mirror has failed |
//! | 200 from a server known not to do ranges | one request for everything wanted, gaps read past; too dear: refused |
//! | 200 to a range with If-Range, or 206 with another validator | replaced: what is not proved by a block hash goes |
//! | a body that ends early, a reset | what came stays; it goes on from there |
//! | a body that is too long | not read beyond what was asked for; the connection is closed |
//! | chunked | as any other body |
//! | Content-Encoding | not used: offsets would mean something else |
//! | a byte a minute, or silence | given up after the stall timeout |
//! | 301, 302, 303, 307, 308 | followed five times, within the mirror's origin or to one that is listed; else refused |
//! | 401, 407 | refused: the operator must look |
//! | 403, 404, 410 | it does not have the file (object stores say 403): the next mirror |
//! | 416 | refused: the file there is shorter than the signed one |
//! | 429, 503, other 4xx and 5xx | failed; Retry-After, in seconds or as a date, is obeyed: up to a minute within a run, |
//! | | otherwise by ending it |
//!
//! If-Range is sent with a strong entity tag, or with a Last-Modified that is older than the answer's Date (RFC 9110,
//! sections 8.8.2.2 and 13.1.5). A mirror whose validators change from answer to answer (unequal servers behind one
//! name) is caught once in a run and then asked without: the hashes decide.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use format::envelope::MAX_ANSWER;
use format::range::sent_range;
use format::time::UnixTime;
use host::clock::{Clock as _, SystemClock};
use ureq::tls::{Certificate, ClientCert, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector as _, RustlsConnector};

use super::origin::{origin, resolve};
use super::patience::Patience;
use super::socket::{SocketConnector, Tunnel};
use super::transport::{Changed, Range, Traffic, Transport, TransportError};
use crate::config::{Credential, Settings};
use crate::error::{Error, Result};

/// For one connection to come up, name look-up and TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// ureq's own buffers; the default of 128 KiB each would be most of the agent's memory. Where more may wait in the kernel
/// than this, somebody wants speed.
const INPUT_BUFFER: usize = 16 * 1024;
const OUTPUT_BUFFER: usize = 4 * 1024;

/// Where distributions keep the certificates that the system trusts.
const SYSTEM_CA_FILES: [&str; 3] =
    ["etc/ssl/certs/ca-certificates.crt", "etc/pki/tls/certs/ca-bundle.crt", "etc/ssl/ca-bundle.pem"];

/// A server that turns out not to do ranges may send this much from the beginning to get at a later part. Whether it is
/// worth going on with such a server is decided by who knows how much is wanted.
const MAX_SKIP: u64 = 1024 * 1024;

/// More would be a loop, or somebody's game.
const MAX_REDIRECTS: usize = 5;

/// Connections to any http or https server, with the node's settings.
pub struct Client {
    agent: ureq::Agent,
    received: Arc<AtomicU64>,
    requests: AtomicU64,
    /// Origins beside a mirror's own that it may redirect to.
    redirects: Vec<String>,
    stall_timeout: Duration,
    min_rate: u64,
    clock: SystemClock,
    /// Seconds; the longest Retry-After so far.
    asked: AtomicU64,
    /// Bytes a second that will be taken; 0: as many as come.
    rate: Arc<AtomicU64>,
    /// Microseconds from the last question to its answer; 0: there is none yet.
    answered_in: Arc<AtomicU64>,
}

impl Client {
    /// A client for the node below `root`.
    ///
    /// # Errors
    /// With exit code 78, if the proxy or the CA file cannot be used.
    pub fn new(settings: &Settings, root: &Path, needs_tls: bool) -> Result<Self> {
        Client::trusting(settings, settings.ca_file.as_deref(), root, needs_tls)
    }

    /// The same, trusting the certificates in `ca_file`; none: the system's.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn trusting(
        settings: &Settings,
        ca_file: Option<&Path>,
        root: &Path,
        needs_tls: bool,
    ) -> Result<Self> {
        let received = Arc::new(AtomicU64::new(0));
        let proxy = settings.proxy.as_deref().map(ureq::Proxy::new).transpose();
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(proxy.map_err(|e| Error::config(format!("[repository] proxy: {e}")))?)
            .user_agent(concat!("prestage/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(settings.stall_timeout))
            .timeout_per_read(Some(settings.stall_timeout))
            .input_buffer_size((settings.receive_buffer / 4).clamp(INPUT_BUFFER, super::CHUNK))
            .output_buffer_size(OUTPUT_BUFFER)
            .max_response_header_size(16 * 1024);
        if needs_tls {
            config = config.tls_config(
                TlsConfig::builder()
                    .unversioned_rustls_crypto_provider(Arc::new(super::tls::provider()))
                    .root_certs(RootCerts::new_with_certs(&certificates(ca_file, root)?))
                    .client_cert(client_certificate(settings, root)?)
                    .build(),
            );
        }
        let rate = Arc::new(AtomicU64::new(0));
        let answered_in = Arc::new(AtomicU64::new(0));
        let sockets = SocketConnector {
            receive_buffer: settings.receive_buffer,
            rate: rate.clone(),
            received: received.clone(),
            answered_in: answered_in.clone(),
        };
        let connector = ().chain(Tunnel::default()).chain(sockets).chain(RustlsConnector::default());
        let agent = ureq::Agent::with_parts(config.build(), connector, DefaultResolver::default());
        Ok(Client {
            agent,
            received,
            requests: AtomicU64::new(0),
            redirects: settings.redirects.clone(),
            stall_timeout: settings.stall_timeout,
            min_rate: settings.fetch.min_rate,
            clock: SystemClock::new(),
            asked: AtomicU64::new(0),
            rate,
            answered_in,
        })
    }

    /// Sends a JSON document; the status code of the answer.
    ///
    /// # Errors
    /// If the server cannot be reached.
    pub fn post_json(&self, url: &str, body: &[u8]) -> std::result::Result<u16, String> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let response = self.agent.post(url).header("Content-Type", "application/json").send(body);
        response.map(|r| r.status().as_u16()).map_err(|e| explain(&e))
    }

    /// The status code of a GET and the first 64 KiB of its body, over a fresh connection. What is not UTF-8 is replaced.
    ///
    /// # Errors
    /// If the server cannot be reached, or has not answered in `timeout`.
    pub fn answer(&self, url: &str, timeout: Duration) -> std::result::Result<(u16, String), String> {
        let request =
            self.agent.get(url).config().timeout_global(Some(timeout)).build().header("Connection", "close");
        small_answer(request.call().map_err(|e| explain(&e))?)
    }

    /// The same for a POST of a JSON document with one more header.
    ///
    /// # Errors
    /// As [`Client::answer`].
    pub fn ask_json(
        &self,
        url: &str,
        header: (&str, &str),
        body: &[u8],
        timeout: Duration,
    ) -> std::result::Result<(u16, String), String> {
        let reply = self.send(false, url, header, body, timeout)?;
        Ok((reply.status, String::from_utf8_lossy(&reply.body).into_owned()))
    }

    /// The same for a document that is posted or put, whatever is answered.
    ///
    /// # Errors
    /// As [`Client::answer`].
    pub fn send(
        &self,
        is_put: bool,
        url: &str,
        header: (&str, &str),
        body: &[u8],
        timeout: Duration,
    ) -> std::result::Result<Reply, String> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let request = if is_put { self.agent.put(url) } else { self.agent.post(url) };
        let request = request.config().timeout_global(Some(timeout)).build();
        let request = request.header("Content-Type", "application/json").header(header.0, header.1);
        let response = request.send(body).map_err(|e| explain(&e))?;
        let (status, retry_after) = (response.status().as_u16(), retry_after(&response, &self.clock));
        Ok(Reply { status, retry_after, body: small_body(response, MAX_ANSWER as u64)? })
    }

    fn traffic(&self) -> Traffic {
        Traffic {
            received: self.received.load(Ordering::Relaxed),
            requests: self.requests.load(Ordering::Relaxed),
        }
    }
}

/// What a server has answered to something that was sent.
pub struct Reply {
    /// The status.
    pub status: u16,
    /// How long it wants to be left alone.
    pub retry_after: Option<Duration>,
    /// The beginning of the body.
    pub body: Vec<u8>,
}

/// Status and the beginning of the body of an answer that is small, or of no interest beyond that.
fn small_answer(response: ureq::http::Response<ureq::Body>) -> std::result::Result<(u16, String), String> {
    const MOST: u64 = 64 * 1024;
    let status = response.status().as_u16();
    Ok((status, String::from_utf8_lossy(&small_body(response, MOST)?).into_owned()))
}

fn small_body(response: ureq::http::Response<ureq::Body>, most: u64) -> std::result::Result<Vec<u8>, String> {
    let mut body = Vec::new();
    let mut reader = response.into_body().into_reader().take(most);
    reader.read_to_end(&mut body).map_err(|e| format!("its answer breaks off: {e}"))?;
    Ok(body)
}

/// How long the server wants to be left alone (RFC 9110 section 10.2.3): seconds, or a date, which is meant by the
/// server's clock.
fn retry_after(response: &ureq::http::Response<ureq::Body>, clock: &SystemClock) -> Option<Duration> {
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let value = header("retry-after")?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let now = header("date").and_then(http_date).unwrap_or_else(|| clock.now());
    u64::try_from(http_date(value)?.since(now)).ok().map(Duration::from_secs)
}

/// A file that the configuration names, below the node's root.
fn below(root: &Path, file: &Path) -> PathBuf {
    root.join(file.strip_prefix("/").unwrap_or(file))
}

/// Reads a PEM file that the configuration names.
fn pem_items(file: &Path) -> Result<Vec<PemItem<'static>>> {
    let pem = std::fs::read(file).map_err(|e| Error::config(format!("{}: {e}", file.display())))?;
    parse_pem(&pem)
        .collect::<std::result::Result<_, _>>()
        .map_err(|e| Error::config(format!("{}: {e}", file.display())))
}

/// Who we are, for servers that ask.
fn client_certificate(settings: &Settings, root: &Path) -> Result<Option<ClientCert>> {
    let Some((certificate, key)) = &settings.client_cert else { return Ok(None) };
    let (certificate, key) = (below(root, certificate), below(root, key));
    let chain = pem_items(&certificate)?.into_iter().filter_map(|item| match item {
        PemItem::Certificate(certificate) => Some(certificate),
        _ => None,
    });
    let chain: Vec<_> = chain.collect();
    let private = pem_items(&key)?.into_iter().find_map(|item| match item {
        PemItem::PrivateKey(key) => Some(key),
        _ => None,
    });
    match private {
        Some(private) if !chain.is_empty() => Ok(Some(ClientCert::new_with_certs(&chain, private))),
        Some(_) => Err(Error::config(format!("{}: there is no certificate in it", certificate.display()))),
        None => Err(Error::config(format!("{}: there is no private key in it", key.display()))),
    }
}

/// What goes into Authorization. The file is read now, so that a token that is renewed is used.
///
/// # Errors
/// With exit code 78, if it cannot be read or is no token.
pub fn authorization(credential: &Credential, root: &Path) -> Result<String> {
    let (Credential::Bearer(file) | Credential::Basic(file)) = credential;
    let file = below(root, file);
    let wrong = |why: &dyn std::fmt::Display| Error::config(format!("{}: {why}", file.display()));
    let text = std::fs::read_to_string(&file).map_err(|e| wrong(&e))?;
    let text = text.trim();
    // Also what could begin another header.
    if text.is_empty() || text.bytes().any(|b| b.is_ascii_control()) {
        return Err(wrong(&"one line with the secret is expected"));
    }
    match credential {
        Credential::Bearer(_) => Ok(format!("Bearer {text}")),
        Credential::Basic(_) if text.contains(':') => Ok(format!("Basic {}", base64(text.as_bytes()))),
        Credential::Basic(_) => Err(wrong(&"user:password is expected")),
    }
}

/// RFC 4648 section 4.
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let number = group.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - group.len()));
        for i in 0..4 {
            let digit = DIGITS[(number >> (18 - 6 * i) & 63) as usize]; // 63 at most
            out.push(if i <= group.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

/// The certificates to trust: those in `ca_file`, or the system's.
fn certificates(ca_file: Option<&Path>, root: &Path) -> Result<Vec<Certificate<'static>>> {
    let file = match ca_file {
        Some(file) => below(root, file),
        None => SYSTEM_CA_FILES
            .iter()
            .map(|file| root.join(file))
            .find(|file| file.exists())
            .ok_or_else(|| Error::config("an https URL is configured, but there is no CA bundle on this system and [repository] ca-file is not set"))?,
    };
    let pem = std::fs::read(&file).map_err(|e| Error::config(format!("{}: {e}", file.display())))?;
    // Of a whole system's bundle, what one cannot read is no reason to trust none.
    let certificates: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(Error::config(format!("{}: there is no certificate in it", file.display())));
    }
    Ok(certificates)
}

/// One mirror.
pub struct HttpMirror<'c> {
    client: &'c Client,
    /// Ends in `/`.
    base: String,
    /// What goes into Authorization, on the mirror's own origin only.
    authorization: Option<String>,
    /// What stands for the content of the files that ranges were got of.
    validators: RefCell<BTreeMap<String, String>>,
    /// Whether its validators can be relied on.
    is_steady: Cell<bool>,
    serves_ranges: Cell<bool>,
}

impl<'c> HttpMirror<'c> {
    /// The mirror at `base`, which ends in `/`.
    pub fn new(client: &'c Client, base: &str) -> Self {
        HttpMirror {
            client,
            base: base.to_owned(),
            authorization: None,
            validators: RefCell::default(),
            is_steady: Cell::new(true),
            serves_ranges: Cell::new(true),
        }
    }

    /// The same, saying who asks.
    #[must_use]
    pub fn authorized(self, authorization: Option<String>) -> Self {
        HttpMirror { authorization, ..self }
    }
}

/// A server's answer of 200, 206 or 304.
struct Answer<'c> {
    client: &'c Client,
    /// Where a redirect has led; none: where it was asked, which whoever asked knows.
    elsewhere: Option<String>,
    response: ureq::http::Response<ureq::Body>,
}

impl<'c> Answer<'c> {
    fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name).and_then(|value| value.to_str().ok())
    }

    /// Whether its head says that exactly so many bytes come.
    fn announces(&self, bytes: u64) -> bool {
        self.header("content-length").and_then(|length| length.parse().ok()) == Some(bytes)
    }

    fn body(self) -> Patience<'c, ureq::BodyReader<'static>> {
        let reader = self.response.into_body().into_reader();
        Patience::new(reader, &self.client.clock, self.client.stall_timeout, self.client.min_rate)
    }

    /// When the file was changed last, if that can stand for this content: a second before the answer at least, or the
    /// file may have changed once more within that second (RFC 9110 section 8.8.2.2).
    fn strong_date(&self) -> Option<&str> {
        let (date, changed) = (self.header("date")?, self.header("last-modified")?);
        (http_date(date)?.since(http_date(changed)?) >= 1).then_some(changed)
    }

    /// What stands for exactly these bytes, so that a range of them can be asked for (RFC 9110 section 13.1.5).
    fn strong_validator(&self) -> Option<&str> {
        match self.header("etag") {
            Some(tag) => Some(tag).filter(|tag| tag.starts_with('"') && tag.len() > 1),
            None => self.strong_date(),
        }
    }

    fn at(&self, why: impl std::fmt::Display) -> String {
        at(self.elsewhere.as_deref(), why)
    }

    /// The failure to use this answer.
    fn unusable(&self, why: impl std::fmt::Display) -> TransportError {
        TransportError::failed(self.at(why))
    }

    /// The refusal to give anything.
    fn refused(&self, why: impl std::fmt::Display) -> TransportError {
        TransportError::Refused(self.at(why))
    }

    fn retry_after(&self) -> Option<Duration> {
        retry_after(&self.response, &self.client.clock)
    }
}

/// The part of a file that was asked for.
struct Part<R> {
    body: R,
    left: u64,
    /// Nothing comes behind it.
    is_whole: bool,
}

impl<R: Read> Read for Part<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = self.body.read(&mut buffer[..most])?;
        self.left -= n as u64;
        if n > 0 && self.left == 0 && self.is_whole {
            // ureq keeps a connection for the next question only when it has been asked for more and said that it was all.
            let _ = self.body.read(&mut [0]);
        }
        Ok(n)
    }
}

/// Why something failed, and where, if that is not where it was asked: mirror and path are said by whoever asked.
fn at(elsewhere: Option<&str>, why: impl std::fmt::Display) -> String {
    match elsewhere {
        Some(url) => format!("redirected to {url}: {why}"),
        None => why.to_string(),
    }
}

/// A date as HTTP writes it (RFC 9110, section 5.6.7); the two obsolete forms are not read.
fn http_date(text: &str) -> Option<UnixTime> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let [_, day, month, year, time, "GMT" | "UTC" | "+0000"] = words[..] else { return None };
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    format!("{year}-{month:02}-{day:0>2}T{time}Z").parse().ok()
}

impl<'c> HttpMirror<'c> {
    /// Asks, and goes where it is sent as far as that is allowed.
    fn ask(&self, path: &str, headers: &[(&str, &str)]) -> std::result::Result<Answer<'c>, TransportError> {
        let first = format!("{}{path}", self.base);
        let mut url = first.clone();
        let own = origin(&self.base);
        for _ in 0..=MAX_REDIRECTS {
            let elsewhere = Some(url.clone()).filter(|url| *url != first);
            let answer = self.ask_once(&url, elsewhere, own == origin(&url), headers)?;
            if !matches!(answer.status(), 301 | 302 | 303 | 307 | 308) {
                return self.judge(answer);
            }
            let location = answer.header("location").unwrap_or_default();
            let next = resolve(&url, location)
                .ok_or_else(|| answer.refused(format_args!("redirected to {location:?}, which is no URL")))?;
            let to = origin(&next);
            if to != own && !to.is_some_and(|to| self.client.redirects.contains(&to)) {
                return Err(answer.refused(format_args!(
                    "redirected to {next}, which is neither this mirror's own nor listed in [repository] redirects"
                )));
            }
            url = next;
        }
        Err(TransportError::Refused(format!("redirected more than {MAX_REDIRECTS} times")))
    }

    fn ask_once(
        &self,
        url: &str,
        elsewhere: Option<String>,
        is_own: bool,
        headers: &[(&str, &str)],
    ) -> std::result::Result<Answer<'c>, TransportError> {
        let request = self.client.agent.get(url).header("Accept-Encoding", "identity");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = match self.authorization.as_deref().filter(|_| is_own) {
            Some(value) => request.header("Authorization", value),
            None => request,
        };
        self.client.requests.fetch_add(1, Ordering::Relaxed);
        let response =
            request.call().map_err(|e| TransportError::failed(at(elsewhere.as_deref(), explain(&e))))?;
        Ok(Answer { client: self.client, elsewhere, response })
    }

    fn judge(&self, answer: Answer<'c>) -> std::result::Result<Answer<'c>, TransportError> {
        match answer.status() {
            // Compressed or not would be the server's choice, and offsets would mean something else.
            200 | 206 if answer.header("content-encoding").is_some_and(|e| e != "identity") => {
                Err(answer.unusable("sent with a content encoding that was not asked for"))
            }
            200 | 206 | 304 => Ok(answer),
            // Object stores answer 403 for what is not there.
            403 | 404 | 410 => Err(TransportError::NotFound),
            401 => Err(answer.refused(
                "the server wants to know who asks (401); see [repository] credentials, client-cert",
            )),
            407 => Err(answer.refused("the proxy wants to know who asks (407); see [repository] proxy")),
            416 => Err(answer.refused("the file there is shorter than the signed one (416)")),
            status => {
                let retry_after = answer.retry_after();
                if let Some(wait) = retry_after {
                    self.client.asked.fetch_max(wait.as_secs(), Ordering::Relaxed);
                }
                let why = answer.at(format_args!("the server answered {status}"));
                Err(TransportError::Failed { why, retry_after })
            }
        }
    }

    /// Whether the answer is of the file that the ranges before were of. What stands for it is remembered.
    fn is_same_file(&self, path: &str, asked: Option<&str>, answer: &Answer<'_>) -> bool {
        let is_same = match (asked, answer.strong_validator()) {
            (Some(asked), Some(now)) => asked == now,
            // To a range the validator need not be repeated; the whole file means that it is another.
            (Some(_), None) => answer.status() == 206,
            (None, _) => true,
        };
        let mut validators = self.validators.borrow_mut();
        if !is_same {
            validators.remove(path);
            self.is_steady.set(false);
        } else if let Some(validator) = answer.strong_validator() {
            validators.insert(path.to_owned(), validator.to_owned());
        }
        is_same
    }
}

impl Transport for HttpMirror<'_> {
    fn name(&self) -> &str {
        &self.base
    }

    fn get(
        &self,
        path: &str,
        range: Option<Range>,
    ) -> std::result::Result<Box<dyn Read + '_>, TransportError> {
        let Some(Range { from, to }) = range else {
            let answer = self.ask(path, &[])?;
            return if answer.status() == 200 {
                Ok(Box::new(answer.body()))
            } else {
                Err(answer.unusable("sent a part that was not asked for"))
            };
        };
        let wanted = format!("bytes={from}-{}", to - 1);
        let known = self.validators.borrow().get(path).cloned().filter(|_| self.is_steady.get());
        let headers: Vec<(&str, &str)> = match &known {
            _ if !self.serves_ranges() => Vec::new(),
            Some(validator) => vec![("Range", &wanted), ("If-Range", validator)],
            None => vec![("Range", &wanted)],
        };
        let answer = self.ask(path, &headers)?;
        if !self.is_same_file(path, known.as_deref(), &answer) {
            return Err(TransportError::Replaced);
        }
        match answer.status() {
            206 if answer
                .header("content-range")
                .and_then(sent_range)
                .is_some_and(|sent| *sent.start() == from && *sent.end() < to) =>
            {
                Ok(Box::new(Part {
                    left: to - from,
                    is_whole: answer.announces(to - from),
                    body: answer.body(),
                }))
            }
            206 => Err(answer.unusable(format_args!("the server sent another range than {wanted}"))),
            200 => {
                let is_news = self.serves_ranges.replace(false);
                if is_news && from > MAX_SKIP {
                    return Err(answer.unusable("the server does not serve ranges"));
                }
                let mut body = answer.body();
                match io::copy(&mut body.by_ref().take(from), &mut io::sink()) {
                    Ok(n) if n == from => Ok(Box::new(body.take(to - from))),
                    Ok(_) => Err(TransportError::failed("shorter than announced")),
                    Err(e) => Err(TransportError::failed(e)),
                }
            }
            status => Err(answer.unusable(format_args!("the server answered {status}"))),
        }
    }

    fn get_if_changed(
        &self,
        path: &str,
        validator: Option<&str>,
    ) -> std::result::Result<Option<Changed<'_>>, TransportError> {
        // RFC 9110 section 13.1: by entity tag where the server gave one, otherwise by date.
        let condition =
            validator.map(|v| (if v.contains('"') { "If-None-Match" } else { "If-Modified-Since" }, v));
        let answer = self.ask(path, condition.as_slice())?;
        let validator = answer.header("etag").or_else(|| answer.strong_date()).map(str::to_owned);
        match answer.status() {
            304 if condition.is_some() => Ok(None),
            200 => Ok(Some(Changed { reader: Box::new(answer.body()), validator })),
            status => Err(answer.unusable(format_args!("the server answered {status}"))),
        }
    }

    fn traffic(&self) -> Traffic {
        self.client.traffic()
    }

    fn serves_ranges(&self) -> bool {
        self.serves_ranges.get()
    }

    fn answered_in(&self) -> Option<Duration> {
        Some(self.client.answered_in.load(Ordering::Relaxed)).filter(|t| *t > 0).map(Duration::from_micros)
    }

    fn expect_rate(&self, rate: Option<u64>) {
        self.client.rate.store(rate.unwrap_or(0), Ordering::Relaxed);
    }

    fn asked(&self) -> Option<Duration> {
        Some(Duration::from_secs(self.client.asked.load(Ordering::Relaxed))).filter(|wait| !wait.is_zero())
    }

    fn is_remote(&self) -> bool {
        true
    }
}

/// ureq's error in one line, without what only a programmer understands.
fn explain(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => "no answer in time".into(),
        ureq::Error::HostNotFound => "host not found".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (plain, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("a:\u{fc}?", "YTrDvD8="),
        ] {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn dates_are_read_as_http_writes_them() {
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(UnixTime(784_111_777)));
        for bad in ["", "7200", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun, 31 Feb 1994 08:49:37 GMT"] {
            assert_eq!(http_date(bad), None, "{bad}");
        }
    }
}
