//! What the server remembers: one interface over SQLite and PostgreSQL, and the questions that are asked of it.
//!
//! Statements stand in the module of their subject. Nothing here knows HTTP, and nothing decides.

pub mod audit; // who did what
pub mod compliance; // what was installed when
pub mod health; // leases, history, housekeeping
pub mod keys; // enrolment: keys of nodes
pub mod node_state; // a node's row as a value
pub mod nodes; // the node table and one node
mod postgres;
pub mod quarantine; // bundles that nodes refuse
pub mod reports; // ingestion: one transaction for many documents
pub mod rollouts; // bundles and rollouts as far as they were seen
mod schema;
pub mod sql;
mod sqlite;
pub mod summary; // the fleet in numbers
pub mod tokens; // tokens and sessions

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Semaphore;

pub use self::sql::{Dialect, Result, Sql, StoreError};

/// A database: what both have in common.
#[derive(Clone)]
pub struct Store {
    database: Arc<Database>,
    /// So many transactions at a time; the others wait without a thread.
    places: Arc<Semaphore>,
}

enum Database {
    Sqlite(sqlite::Sqlite),
    Postgres(postgres::Postgres),
}

/// Where a database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A file.
    File(PathBuf),
    /// A server, and the certificates that it is believed by.
    Server {
        /// `postgres://…`
        url: String,
        /// Certificates, for `sslmode=require`.
        ca_file: Option<PathBuf>,
    },
}

impl Store {
    /// Opens a database, and brings it up to date. Blocks.
    ///
    /// # Errors
    /// If it is not there, or not ours.
    pub fn open(location: &Location, connections: usize) -> Result<Store> {
        let database = match location {
            Location::File(path) => Database::Sqlite(sqlite::Sqlite::open(path)?),
            Location::Server { url, ca_file } => Database::Postgres(
                postgres::Postgres::new(url, ca_file.as_deref()).map_err(StoreError::Broken)?,
            ),
        };
        let places = Arc::new(Semaphore::new(connections.max(2)));
        let store = Store { database: Arc::new(database), places };
        store.write_now(schema::migrate)?;
        Ok(store)
    }

    /// A transaction that reads, on this thread.
    ///
    /// # Errors
    /// Those of `act`; and if the database is away or refuses.
    pub fn read_now<T>(&self, act: impl FnOnce(&mut dyn Sql) -> Result<T>) -> Result<T> {
        match &*self.database {
            Database::Sqlite(sqlite) => sqlite.read(act),
            Database::Postgres(postgres) => postgres.transaction(act),
        }
    }

    /// A transaction that writes, on this thread.
    ///
    /// # Errors
    /// Those of `act`, which then has changed nothing; and if the database is away or refuses.
    pub fn write_now<T>(&self, act: impl FnOnce(&mut dyn Sql) -> Result<T>) -> Result<T> {
        match &*self.database {
            Database::Sqlite(sqlite) => sqlite.write(act),
            Database::Postgres(postgres) => postgres.transaction(act),
        }
    }

    /// A transaction that reads, without holding up this thread.
    ///
    /// # Errors
    /// As [`Store::read_now`].
    pub async fn read<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut dyn Sql) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = self.clone();
        self.apart(move || store.read_now(act)).await
    }

    /// A transaction that writes, without holding up this thread.
    ///
    /// # Errors
    /// As [`Store::write_now`].
    pub async fn write<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut dyn Sql) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = self.clone();
        self.apart(move || store.write_now(act)).await
    }

    async fn apart<T: Send + 'static>(&self, act: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let gone = |why: &dyn std::fmt::Display| StoreError::Away(why.to_string());
        let place = self.places.clone().acquire_owned().await.map_err(|e| gone(&e))?;
        let done = tokio::task::spawn_blocking(move || {
            let result = act();
            drop(place);
            result
        });
        done.await.map_err(|e| gone(&e))?
    }

    /// Copies a SQLite database into a file while it is in use.
    ///
    /// # Errors
    /// If it is not SQLite (PostgreSQL has pg_dump), or the copy cannot be written.
    pub fn backup(&self, target: &Path) -> Result<()> {
        match &*self.database {
            Database::Sqlite(sqlite) => sqlite.backup(target),
            Database::Postgres(_) => {
                Err(StoreError::Broken("this is PostgreSQL, whose backups pg_dump makes".into()))
            }
        }
    }

    /// Closes the connections that nobody uses; for the end.
    pub fn close(&self) {
        if let Database::Postgres(postgres) = &*self.database {
            postgres.close();
        }
    }
}
