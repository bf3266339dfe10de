//! Many documents, one transaction: whoever waits while one is written goes into the next. So a slow disk makes larger
//! transactions, not a longer queue. What is answered is durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::Received;
use crate::store::reports::{self, Written};
use crate::store::{Store, StoreError};

/// The most documents of a transaction: more would make everybody wait for the last.
const MAX_BATCH: usize = 2000;

/// The most documents that wait; then nodes are told to come again.
const MAX_WAITING: usize = 20_000;

/// What waits.
struct Job {
    documents: Vec<Received>,
    done: oneshot::Sender<Result<Arc<Written>, Failed>>,
}

/// Why something was not stored.
#[derive(Clone, Debug)]
pub enum Failed {
    /// Too much waits, or the database is away: again later.
    Busy(String),
    /// The database refuses it.
    Broken(String),
}

/// What the queue has done, for metrics.
#[derive(Debug, Default)]
pub struct Counts {
    /// Documents that wait.
    pub waiting: AtomicUsize,
    /// Transactions.
    pub commits: AtomicU64,
    /// Transactions that failed.
    pub failures: AtomicU64,
    /// Documents in transactions.
    pub documents: AtomicU64,
    /// Reports that were new.
    pub reports: AtomicU64,
    /// Microseconds in transactions.
    pub microseconds: AtomicU64,
}

/// Takes documents, and says when they are durable.
#[derive(Clone)]
pub struct Queue {
    jobs: mpsc::UnboundedSender<Job>,
    counts: Arc<Counts>,
}

impl Queue {
    /// Starts `lanes` writers: one for SQLite, which has one writer; more hide the way to PostgreSQL. `heard` is called
    /// after each transaction. The writers end when the last clone of the queue has gone and all is written.
    pub fn start(
        store: &Store,
        lanes: usize,
        heard: Arc<dyn Fn() + Send + Sync>,
    ) -> (Queue, Vec<tokio::task::JoinHandle<()>>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let receiver = Arc::new(tokio::sync::Mutex::new(receiver));
        let counts = Arc::new(Counts::default());
        let lanes = (0..lanes.max(1))
            .map(|_| tokio::spawn(lane(store.clone(), receiver.clone(), counts.clone(), heard.clone())));
        let lanes = lanes.collect();
        (Queue { jobs: sender, counts }, lanes)
    }

    /// What it has done.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Stores documents; when it returns they are durable.
    ///
    /// # Errors
    /// If they are not.
    pub async fn store(&self, documents: Vec<Received>) -> Result<Arc<Written>, Failed> {
        let count = documents.len();
        // So that many who come at once do not all pass.
        if self.counts.waiting.fetch_add(count, Ordering::Relaxed) + count > MAX_WAITING {
            self.counts.waiting.fetch_sub(count, Ordering::Relaxed);
            return Err(Failed::Busy("too many reports wait to be written".into()));
        }
        let (done, answer) = oneshot::channel();
        let ended = || Failed::Busy("the server is ending".into());
        self.jobs.send(Job { documents, done }).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

async fn lane(
    store: Store,
    jobs: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<Job>>>,
    counts: Arc<Counts>,
    heard: Arc<dyn Fn() + Send + Sync>,
) {
    loop {
        let mut waiting: Vec<(usize, oneshot::Sender<_>)> = Vec::new();
        let mut documents: Vec<Received> = Vec::new();
        {
            let mut jobs = jobs.lock().await;
            let Some(first) = jobs.recv().await else { return };
            let mut next = Some(first);
            while let Some(job) = next {
                waiting.push((job.documents.len(), job.done));
                documents.extend(job.documents);
                next = if documents.len() < MAX_BATCH { jobs.try_recv().ok() } else { None };
            }
        }
        let count = documents.len();
        let started = std::time::Instant::now();
        let writer = store.clone();
        let written = tokio::task::spawn_blocking(move || {
            let result = reports::write(&writer, &documents);
            match result {
                // One document that the database refuses must not cost the others: each request by itself.
                Err(StoreError::Broken(_)) if waiting.len() > 1 => one_by_one(&writer, &documents, waiting),
                result => answer_all(result, waiting),
            }
        })
        .await;
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        counts.waiting.fetch_sub(count, Ordering::Relaxed);
        counts.commits.fetch_add(1, Ordering::Relaxed);
        counts.documents.fetch_add(count as u64, Ordering::Relaxed);
        counts.microseconds.fetch_add(micros, Ordering::Relaxed);
        match written {
            Ok(Ok(new)) => {
                counts.reports.fetch_add(new, Ordering::Relaxed);
                heard();
            }
            Ok(Err(why)) => {
                counts.failures.fetch_add(1, Ordering::Relaxed);
                log::error!("reports were not stored: {why}");
            }
            Err(why) => {
                counts.failures.fetch_add(1, Ordering::Relaxed);
                log::error!("the writer of reports has failed: {why}");
            }
        }
    }
}

type Waiting = Vec<(usize, oneshot::Sender<Result<Arc<Written>, Failed>>)>;

fn answer_all(result: Result<Written, StoreError>, waiting: Waiting) -> Result<u64, String> {
    let result = match result {
        Ok(written) => Ok(Arc::new(written)),
        Err(StoreError::Away(why)) => Err(Failed::Busy(why)),
        Err(StoreError::Broken(why)) => Err(Failed::Broken(why)),
    };
    for (_, done) in waiting {
        // Whoever has gone away meanwhile will ask again.
        let _ = done.send(result.clone());
    }
    match result {
        Ok(written) => Ok(written.new_reports),
        Err(Failed::Busy(why) | Failed::Broken(why)) => Err(why),
    }
}

fn one_by_one(store: &Store, documents: &[Received], waiting: Waiting) -> Result<u64, String> {
    let (mut new, mut rest, mut failed) = (0, documents, None);
    for (count, done) in waiting {
        let (own, others) = rest.split_at(count);
        rest = others;
        match answer_all(reports::write(store, own), vec![(count, done)]) {
            Ok(count) => new += count,
            Err(why) => failed = Some(why),
        }
    }
    match failed {
        Some(why) => Err(why),
        None => Ok(new),
    }
}
