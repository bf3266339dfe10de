//! SQLite: embedded, in one file, with a write-ahead log. One writer at a time, readers beside it.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, ToSql};

use super::sql::{Cell, Dialect, Result, Row, Sql, StoreError, Value};

/// Another process (a backup, an import) may hold the database for a moment.
const PATIENCE: Duration = Duration::from_secs(10);

/// Statements that stay prepared.
const PREPARED: usize = 256;

/// Page cache of a connection, in KiB.
const CACHE_KIB: i64 = 16 * 1024;

/// A database file.
pub struct Sqlite {
    path: PathBuf,
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
}

impl Sqlite {
    /// Opens the file, and makes it if it is not there.
    ///
    /// # Errors
    /// If it cannot be opened or is no database.
    pub fn open(path: &Path) -> Result<Self> {
        let writer = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
        // FULL: what is acknowledged is on the disk. NORMAL may lose the last commits when power fails.
        writer
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")
            .map_err(error)?;
        Ok(Sqlite { path: path.to_owned(), writer: Mutex::new(writer), readers: Mutex::default() })
    }

    /// A transaction that may write. It waits for the one before.
    ///
    /// # Errors
    /// Those of `act`, which then has changed nothing; and if the database refuses.
    pub fn write<T>(&self, act: impl FnOnce(&mut dyn Sql) -> Result<T>) -> Result<T> {
        let connection = held(&self.writer);
        in_transaction(&connection, "BEGIN IMMEDIATE", act)
    }

    /// A transaction that reads one state of the database.
    ///
    /// # Errors
    /// Those of `act`; and if the database refuses.
    pub fn read<T>(&self, act: impl FnOnce(&mut dyn Sql) -> Result<T>) -> Result<T> {
        let idle = held(&self.readers).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => connect(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?,
        };
        let result = in_transaction(&connection, "BEGIN", act);
        if result.is_ok() {
            held(&self.readers).push(connection);
        }
        result
    }

    /// Copies the database, as it is at one moment, into the file `target`, while it is in use.
    ///
    /// # Errors
    /// If it cannot be read, or the copy not written.
    pub fn backup(&self, target: &Path) -> Result<()> {
        let source = connect(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let mut copy = Connection::open(target).map_err(error)?;
        let backup = rusqlite::backup::Backup::new(&source, &mut copy).map_err(error)?;
        // All pages in one step: in between, a writer would make it begin again.
        backup.run_to_completion(i32::MAX, Duration::from_millis(1), None).map_err(error)
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic in a transaction has rolled it back.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection> {
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)
        .map_err(|e| StoreError::Away(format!("{}: {e}", path.display())))?;
    connection.busy_timeout(PATIENCE).map_err(error)?;
    connection.set_prepared_statement_cache_capacity(PREPARED);
    connection.pragma_update(None, "cache_size", -CACHE_KIB).map_err(error)?;
    connection.pragma_update(None, "temp_store", "MEMORY").map_err(error)?;
    Ok(connection)
}

/// Ends a transaction that is dropped without an end, also by a panic.
struct Open<'c>(&'c Connection);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if !self.0.is_autocommit()
            && let Err(why) = self.0.execute_batch("ROLLBACK")
        {
            log::error!("a transaction could not be undone: {why}");
        }
    }
}

fn in_transaction<T>(
    connection: &Connection,
    begin: &str,
    act: impl FnOnce(&mut dyn Sql) -> Result<T>,
) -> Result<T> {
    connection.execute_batch(begin).map_err(error)?;
    let open = Open(connection);
    let result = act(&mut Session(connection))?;
    connection.execute_batch("COMMIT").map_err(error)?;
    drop(open);
    Ok(result)
}

struct Session<'c>(&'c Connection);

impl Session<'_> {
    fn bound(&mut self, sql: &str, values: &[Value<'_>]) -> Result<rusqlite::CachedStatement<'_>> {
        // What PostgreSQL calls $1 is ?1 here; no statement of ours has a $ elsewhere.
        let mut statement = self.0.prepare_cached(&sql.replace('$', "?")).map_err(error)?;
        for (at, value) in values.iter().enumerate() {
            statement.raw_bind_parameter(at + 1, value).map_err(error)?;
        }
        Ok(statement)
    }
}

impl Sql for Session<'_> {
    fn query(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>> {
        let mut statement = self.bound(sql, values)?;
        let columns = statement.column_count();
        let mut rows = statement.raw_query();
        let mut out = Vec::new();
        while let Some(row) = rows.next().map_err(error)? {
            let cells = (0..columns).map(|at| row.get_ref(at).map_err(error).and_then(cell));
            out.push(Row(cells.collect::<Result<_>>()?));
        }
        Ok(out)
    }

    fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64> {
        let mut statement = self.bound(sql, values)?;
        statement.raw_execute().map(|rows| rows as u64).map_err(error)
    }

    fn batch(&mut self, sql: &str) -> Result<()> {
        self.0.execute_batch(sql).map_err(error)
    }

    fn dialect(&self) -> Dialect {
        Dialect::Sqlite
    }
}

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Null => ValueRef::Null,
            Value::Int(n) => ValueRef::Integer(*n),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

fn cell(value: ValueRef<'_>) -> Result<Cell> {
    match value {
        ValueRef::Null => Ok(Cell::Null),
        ValueRef::Integer(n) => Ok(Cell::Int(n)),
        ValueRef::Text(text) => String::from_utf8(text.to_vec())
            .map(Cell::Text)
            .map_err(|_| StoreError::Broken("text that is not UTF-8".into())),
        other => Err(StoreError::Broken(format!("a value of the type {}", other.data_type()))),
    }
}

fn error(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::ReadOnly,
        ) => StoreError::Away(error.to_string()),
        _ => StoreError::Broken(error.to_string()),
    }
}
