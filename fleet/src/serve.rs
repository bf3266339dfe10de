//! Listening: connections in, with an end to how many there are and how long they may take to say what they want; TLS by
//! itself; and an end that loses nothing.

use std::fs::File;
use std::io::BufReader;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower::Service as _;

use crate::api;
use crate::app::{App, Shared};
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::events::{self, Event};
use crate::ingest::queue::Queue;
use crate::limits::Limits;
use crate::metrics::Requests;
use crate::store::{Location, Store};
use crate::watch as chores;

/// The head of a request, and a TLS handshake, must be here in this time; an idle connection is closed after it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// The most bytes of a head.
const MAX_HEAD: usize = 32 * 1024;

/// The most headers of a request.
const MAX_HEADERS: usize = 64;

/// Requests that are being answered at the end have so long.
const GRACE: Duration = Duration::from_secs(20);

/// Events that wait for a slow browser.
const EVENTS: usize = 64;

/// Writers of reports to PostgreSQL: while one waits for the disk, another collects.
const LANES: usize = 2;

/// The chain and key of a TLS server, read again when it is told to.
struct Certificate {
    files: (PathBuf, PathBuf),
    config: RwLock<Arc<rustls::ServerConfig>>,
}

impl Certificate {
    fn load(files: (PathBuf, PathBuf)) -> Result<Certificate> {
        let config = RwLock::new(Arc::new(server_config(&files)?));
        Ok(Certificate { files, config })
    }

    fn reload(&self) {
        match server_config(&self.files) {
            Ok(config) => {
                *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
                log::info!("the certificate was read again");
            }
            Err(why) => log::error!("the certificate stays as it is: {why}"),
        }
    }

    fn acceptor(&self) -> TlsAcceptor {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone().into()
    }
}

fn server_config((certificate, key): &(PathBuf, PathBuf)) -> Result<rustls::ServerConfig> {
    let wrong = |path: &PathBuf, why: &dyn std::fmt::Display| {
        Error::new(Kind::Config, format!("[tls] {}: {why}", path.display()))
    };
    let open = |path: &PathBuf| File::open(path).map(BufReader::new).map_err(|e| wrong(path, &e));
    let chain =
        CertificateDer::pem_reader_iter(open(certificate)?).collect::<std::result::Result<Vec<_>, _>>();
    let chain = chain.map_err(|e| wrong(certificate, &e))?;
    let secret = PrivateKeyDer::from_pem_reader(open(key)?).map_err(|e| wrong(key, &e))?;
    let mut config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(|e| wrong(certificate, &e))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Serves until it is told to end (SIGTERM, SIGINT). Says where on standard output when it is ready.
///
/// # Errors
/// If the address, the certificate or the database is not to be had.
pub fn serve(settings: Settings) -> Result<()> {
    // Twice in one process is no matter: whoever was first has chosen the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let store = Store::open(&settings.database, settings.connections)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Error::new(Kind::Unavailable, format!("no threads: {e}")))?;
    let result = runtime.block_on(run(settings, store.clone()));
    runtime.shutdown_timeout(GRACE);
    store.close();
    result
}

async fn run(settings: Settings, store: Store) -> Result<()> {
    let listener = listen(settings.listen).await?;
    let metrics = match settings.metrics {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let certificate = settings.tls.clone().map(Certificate::load).transpose()?.map(Arc::new);
    let (ending, mut ended) = watch::channel(false);
    let (events, _) = tokio::sync::broadcast::channel(EVENTS);
    let lanes = if matches!(settings.database, Location::File(_)) { 1 } else { LANES };
    let (queue, writers) = Queue::start(&store, lanes, Arc::new(|| {}));
    let limits =
        Limited { places: settings.max_connections, head: HEAD_TIMEOUT.min(settings.request_timeout) };
    let app: App = Arc::new(Shared {
        requests: Limits::new(settings.requests).into(),
        enrollments: Limits::new(settings.enrollments).into(),
        logins: Limits::new(settings.logins).into(),
        settings,
        store,
        queue,
        keys: Default::default(),
        remembered: Default::default(),
        published: Default::default(),
        counted: Default::default(),
        events,
        wake: Default::default(),
        answered: Requests::default(),
        started: Instant::now(),
    });
    let name = crate::auth::new_id().map_err(|e| Error::new(Kind::Unavailable, e))?;
    let mut tasks = vec![
        tokio::spawn(chores::repository(app.clone(), name.clone())),
        tokio::spawn(chores::past(app.clone(), name)),
        tokio::spawn(events::watch(app.clone())),
    ];
    let scheme = if certificate.is_some() { "https" } else { "http" };
    let address = listener.local_addr().map_err(|e| Error::new(Kind::Unavailable, e))?;
    println!("listening on {scheme}://{address}");
    if let Some(metrics) = &metrics {
        let address = metrics.local_addr().map_err(|e| Error::new(Kind::Unavailable, e))?;
        println!("metrics on http://{address}/metrics");
    }
    let router = api::router(app.clone());
    let mut serving =
        vec![tokio::spawn(accept(listener, router, certificate.clone(), limits, ended.clone()))];
    if let Some(metrics) = metrics {
        let router = api::metrics_router(app.clone());
        serving.push(tokio::spawn(accept(metrics, router, None, limits, ended.clone())));
    }
    tasks.push(tokio::spawn(reload(certificate)));

    stop_signal().await?;
    log::info!("ending: what is being answered is answered");
    let _ = app.events.send(Event::Ending);
    let _ = ending.send(true);
    for server in serving {
        // Its own end has a limit.
        let _ = server.await;
    }
    for task in &tasks {
        task.abort();
    }
    for task in tasks {
        let _ = task.await;
    }
    drop(app);
    // Whoever was answered has been written; whoever waited for the queue has too.
    for writer in writers {
        let _ = tokio::time::timeout(GRACE, writer).await;
    }
    let _ = ended.changed().await;
    Ok(())
}

async fn listen(address: SocketAddr) -> Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|e| Error::new(Kind::Unavailable, format!("{address} cannot be listened on: {e}")))
}

async fn stop_signal() -> Result<()> {
    let failed = |e: std::io::Error| Error::new(Kind::Unavailable, format!("no signals: {e}"));
    let mut term = signal(SignalKind::terminate()).map_err(failed)?;
    let mut int = signal(SignalKind::interrupt()).map_err(failed)?;
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

async fn reload(certificate: Option<Arc<Certificate>>) {
    let Ok(mut hangups) = signal(SignalKind::hangup()) else { return };
    while hangups.recv().await.is_some() {
        if let Some(certificate) = &certificate {
            certificate.reload();
        }
    }
}

/// What connections may have.
#[derive(Clone, Copy)]
struct Limited {
    /// At the same time.
    places: usize,
    /// For a handshake, and for the head of a request.
    head: Duration,
}

/// Takes connections until the end, each in a task of its own.
async fn accept(
    listener: TcpListener,
    router: Router,
    certificate: Option<Arc<Certificate>>,
    limits: Limited,
    mut ended: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(limits.places));
    let graceful = GracefulShutdown::new();
    loop {
        let place = tokio::select! {
            place = places.clone().acquire_owned() => place,
            _ = ended.changed() => break,
        };
        let Ok(place) = place else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = ended.changed() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(why) => {
                // No file descriptors: those that end give theirs back.
                log::warn!("a connection was not accepted: {why}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (router, watcher) = (router.clone(), graceful.watcher());
        let acceptor = certificate.as_ref().map(|certificate| certificate.acceptor());
        tokio::spawn(async move {
            connection(stream, peer, router, acceptor, limits.head, watcher).await;
            drop(place);
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    acceptor: Option<TlsAcceptor>,
    head: Duration,
    watcher: Watcher,
) {
    // Small answers at once.
    let _ = stream.set_nodelay(true);
    match acceptor {
        None => http(stream, peer, router, head, watcher).await,
        Some(acceptor) => match tokio::time::timeout(head, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => http(stream, peer, router, head, watcher).await,
            Ok(Err(why)) => log::debug!("{peer}: no TLS: {why}"),
            Err(_) => log::debug!("{peer}: the handshake did not end in time"),
        },
    }
}

async fn http<S>(stream: S, peer: SocketAddr, router: Router, head: Duration, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().call(request.map(axum::body::Body::new))
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    if let Err(why) = watcher.watch(connection).await {
        log::debug!("{peer}: {why}");
    }
}
