//! What every request may use. Nothing in here must outlive the process: all that counts is in the database, so that
//! several servers stand beside each other.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::broadcast;

use crate::auth::Remembered;
use crate::config::Settings;
use crate::events::Event;
use crate::ingest::check::KeyCache;
use crate::ingest::queue::Queue;
use crate::limits::Limits;
use crate::metrics::Requests;
use crate::repository::Published;
use crate::store::summary::Numbers;
use crate::store::{Result, Store};

/// Shared by all requests.
pub type App = Arc<Shared>;

/// See [`App`].
pub struct Shared {
    /// The configuration.
    pub settings: Settings,
    /// The database.
    pub store: Store,
    /// Where reports go.
    pub queue: Queue,
    /// Keys of nodes, for a moment.
    pub keys: KeyCache,
    /// Tokens, for a moment.
    pub remembered: Remembered,
    /// Requests of each address.
    pub requests: Mutex<Limits<IpAddr>>,
    /// Enrolments of each address.
    pub enrollments: Mutex<Limits<IpAddr>>,
    /// Logins of each address.
    pub logins: Mutex<Limits<IpAddr>>,
    /// What the repository was when it was read last.
    pub published: RwLock<Arc<Published>>,
    /// The fleet in numbers, for a moment.
    pub counted: tokio::sync::Mutex<Option<(Instant, Arc<Numbers>)>>,
    /// What browsers are told.
    pub events: broadcast::Sender<Event>,
    /// Something was published: read the repository at once.
    pub wake: tokio::sync::Notify,
    /// How requests were answered.
    pub answered: Requests,
    /// Since when.
    pub started: Instant,
}

impl Shared {
    /// This server's clock, in seconds since 1970.
    pub fn now(&self) -> i64 {
        now()
    }

    /// Nodes that were heard of last before this are silent.
    pub fn silent_before(&self) -> i64 {
        now() - self.settings.silent_after
    }

    /// A request from an address.
    ///
    /// # Errors
    /// In how many seconds to come again.
    pub fn within(&self, limits: &Mutex<Limits<IpAddr>>, address: IpAddr) -> std::result::Result<(), u64> {
        let elapsed = self.started.elapsed().as_secs_f64();
        limits.lock().unwrap_or_else(PoisonError::into_inner).take(address, elapsed)
    }

    /// What the repository was when it was read last.
    pub fn published(&self) -> Arc<Published> {
        self.published.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The fleet in numbers, not older than the settings allow: with a hundred operators looking, it is counted once.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn numbers(&self) -> Result<Arc<Numbers>> {
        let mut counted = self.counted.lock().await;
        if let Some((at, numbers)) = &*counted
            && at.elapsed() < self.settings.numbers
        {
            return Ok(numbers.clone());
        }
        let (silent_before, now) = (self.silent_before(), self.now());
        let numbers =
            self.store.read(move |sql| crate::store::summary::count(sql, silent_before, now)).await?;
        let numbers = Arc::new(numbers);
        *counted = Some((Instant::now(), numbers.clone()));
        Ok(numbers)
    }
}

/// Seconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
}
