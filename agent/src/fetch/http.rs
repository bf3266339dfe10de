//! A mirror behind http or https, and the sending of reports. The only `ureq`.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use format::range::sent_range;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector as _, RustlsConnector};

use super::socket::SocketConnector;
use super::transport::{Changed, Range, Traffic, Transport, TransportError};
use crate::config::Settings;
use crate::error::{Error, Result};

/// For one connection to come up, name look-up and TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// ureq's own buffers; the default of 128 KiB each would be most of the agent's memory.
const INPUT_BUFFER: usize = 16 * 1024;
const OUTPUT_BUFFER: usize = 4 * 1024;

/// Where distributions keep the certificates that the system trusts.
const SYSTEM_CA_FILES: [&str; 3] =
    ["etc/ssl/certs/ca-certificates.crt", "etc/pki/tls/certs/ca-bundle.crt", "etc/ssl/ca-bundle.pem"];

/// A server that does not do ranges may send this much from the beginning to get at a later part; beyond it, paying
/// for the same bytes again and again is worse than failing.
const MAX_SKIP: u64 = 1024 * 1024;

/// Connections to any http or https server, with the node's settings.
pub struct Client {
    agent: ureq::Agent,
    received: Arc<AtomicU64>,
    requests: AtomicU64,
}

impl Client {
    /// A client for the node below `root`.
    ///
    /// # Errors
    /// With exit code 78, if the proxy or the CA file cannot be used.
    pub fn new(settings: &Settings, root: &Path, needs_tls: bool) -> Result<Self> {
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
            .input_buffer_size(INPUT_BUFFER)
            .output_buffer_size(OUTPUT_BUFFER)
            .max_response_header_size(16 * 1024);
        if needs_tls {
            config = config.tls_config(
                TlsConfig::builder()
                    .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
                    .root_certs(RootCerts::new_with_certs(&certificates(settings, root)?))
                    .build(),
            );
        }
        let sockets = SocketConnector { receive_buffer: settings.receive_buffer, received: received.clone() };
        let connector =
            ().chain(ConnectProxyConnector::default()).chain(sockets).chain(RustlsConnector::default());
        let agent = ureq::Agent::with_parts(config.build(), connector, DefaultResolver::default());
        Ok(Client { agent, received, requests: AtomicU64::new(0) })
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

    /// The status code of a GET, over a fresh connection.
    ///
    /// # Errors
    /// If the server cannot be reached in `timeout`.
    pub fn status(&self, url: &str, timeout: Duration) -> std::result::Result<u16, String> {
        let request =
            self.agent.get(url).config().timeout_global(Some(timeout)).build().header("Connection", "close");
        request.call().map(|r| r.status().as_u16()).map_err(|e| explain(&e))
    }

    fn traffic(&self) -> Traffic {
        Traffic {
            received: self.received.load(Ordering::Relaxed),
            requests: self.requests.load(Ordering::Relaxed),
        }
    }
}

/// The certificates to trust: those of `[repository] ca-file`, or the system's.
fn certificates(settings: &Settings, root: &Path) -> Result<Vec<Certificate<'static>>> {
    let file = match &settings.ca_file {
        Some(file) => root.join(file.strip_prefix("/").unwrap_or(file)),
        None => SYSTEM_CA_FILES
            .iter()
            .map(|file| root.join(file))
            .find(|file| file.exists())
            .ok_or_else(|| Error::config("an https URL is configured, but there is no CA bundle on this system and [repository] ca-file is not set"))?,
    };
    let pem = std::fs::read(&file).map_err(|e| Error::config(format!("{}: {e}", file.display())))?;
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
}

impl<'c> HttpMirror<'c> {
    /// The mirror at `base`, which ends in `/`.
    pub fn new(client: &'c Client, base: &str) -> Self {
        HttpMirror { client, base: base.to_owned() }
    }
}

/// A server's answer of 200, 206 or 304.
struct Answer {
    url: String,
    response: ureq::http::Response<ureq::Body>,
}

impl Answer {
    fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name).and_then(|value| value.to_str().ok())
    }

    fn body(self) -> ureq::BodyReader<'static> {
        self.response.into_body().into_reader()
    }

    /// When the file was changed last, if that can stand for this content: not in the second of the answer itself, in
    /// which the file may change once more (RFC 9110 section 8.8.2.2).
    fn strong_date(&self) -> Option<&str> {
        let date = self.header("date")?;
        self.header("last-modified").filter(|changed| *changed != date)
    }

    /// The failure to use this answer.
    fn unusable(&self, why: impl std::fmt::Display) -> TransportError {
        TransportError::failed(format!("{}: {why}", self.url))
    }
}

impl HttpMirror<'_> {
    fn ask(&self, path: &str, headers: &[(&str, &str)]) -> std::result::Result<Answer, TransportError> {
        let url = format!("{}{path}", self.base);
        let request = self.client.agent.get(&url).header("Accept-Encoding", "identity");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        self.client.requests.fetch_add(1, Ordering::Relaxed);
        let response =
            request.call().map_err(|e| TransportError::failed(format!("{url}: {}", explain(&e))))?;
        let answer = Answer { url, response };
        match answer.status() {
            // Compressed or not would be the server's choice, and offsets would mean something else.
            200 | 206 if answer.header("content-encoding").is_some_and(|e| e != "identity") => {
                Err(answer.unusable("sent with a content encoding that was not asked for"))
            }
            200 | 206 | 304 => Ok(answer),
            // Object stores answer 403 for what is not there.
            403 | 404 | 410 => Err(TransportError::NotFound),
            301 | 302 | 303 | 307 | 308 => Err(answer
                .unusable("redirected, which is not followed; configure the final address as the mirror")),
            status => Err(TransportError::Failed {
                why: format!("{}: the server answered {status}", answer.url),
                retry_after: answer
                    .header("retry-after")
                    .and_then(|v| v.trim().parse().ok())
                    .map(Duration::from_secs),
            }),
        }
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
        let answer = self.ask(path, &[("Range", &format!("bytes={from}-{}", to - 1))])?;
        match answer.status() {
            206 if answer
                .header("content-range")
                .and_then(sent_range)
                .is_some_and(|r| *r.start() == from) =>
            {
                Ok(Box::new(answer.body().take(to - from)))
            }
            206 => {
                Err(answer
                    .unusable(format_args!("the server sent another range than bytes {from}-{}", to - 1)))
            }
            200 if from <= MAX_SKIP => {
                let mut body = answer.body();
                match io::copy(&mut body.by_ref().take(from), &mut io::sink()) {
                    Ok(n) if n == from => Ok(Box::new(body.take(to - from))),
                    Ok(_) => Err(TransportError::failed(format!("{path}: shorter than announced"))),
                    Err(e) => Err(TransportError::failed(format!("{path}: {e}"))),
                }
            }
            _ => Err(answer.unusable("the server does not serve ranges")),
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
