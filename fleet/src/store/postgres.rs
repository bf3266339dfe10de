//! PostgreSQL, and databases that speak as it does: for several servers beside each other. Connections are kept and used
//! again; over TLS where the URL says `sslmode=require`.

use std::collections::HashMap;
use std::error::Error as _;
use std::str::FromStr as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use postgres::types::private::BytesMut;
use postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use postgres::{Client, Config, NoTls, Statement};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::sql::{Cell, Dialect, Result, Row, Sql, StoreError, Value};

/// For a connection to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Statements that stay prepared on a connection.
const PREPARED: usize = 256;

/// A server that has gone without a word is found out by this.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Said on each new connection: a statement that hangs must not hold locks for ever.
const SESSION: &str = "SET statement_timeout = '60s'; SET lock_timeout = '20s'; \
                       SET idle_in_transaction_session_timeout = '60s'";

/// A database on a server.
pub struct Postgres {
    config: Config,
    tls: tokio_postgres_rustls::MakeRustlsConnect,
    idle: Mutex<Vec<Connection>>,
}

struct Connection {
    client: Client,
    prepared: HashMap<String, Statement>,
}

impl Postgres {
    /// The database that `url` names. Nothing is connected yet.
    ///
    /// # Errors
    /// If the URL cannot be understood, or the file of certificates not be read.
    pub fn new(url: &str, ca_file: Option<&std::path::Path>) -> std::result::Result<Self, String> {
        // Its error names the key, never the value: a password may be in the URL.
        let mut config = Config::from_str(url).map_err(|e| describe(&e))?;
        config.connect_timeout(CONNECT_TIMEOUT).keepalives_idle(KEEPALIVE).application_name("prestage-fleet");
        let mut roots = rustls::RootCertStore::empty();
        if let Some(path) = ca_file {
            let unreadable = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
            for certificate in CertificateDer::pem_file_iter(path).map_err(|e| unreadable(&e))? {
                roots.add(certificate.map_err(|e| unreadable(&e))?).map_err(|e| unreadable(&e))?;
            }
        }
        let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Ok(Postgres {
            config,
            tls: tokio_postgres_rustls::MakeRustlsConnect::new(tls),
            idle: Mutex::default(),
        })
    }

    fn connect(&self) -> Result<Connection> {
        let client = match self.config.get_ssl_mode() {
            postgres::config::SslMode::Require => self.config.connect(self.tls.clone()),
            _ => self.config.connect(NoTls),
        };
        let mut client = client.map_err(|e| StoreError::Away(describe(&e)))?;
        client.batch_execute(SESSION).map_err(|e| error(&e))?;
        Ok(Connection { client, prepared: HashMap::new() })
    }

    /// A transaction. One that only reads sees the committed state at each statement.
    ///
    /// # Errors
    /// Those of `act`, which then has changed nothing; and if the database is away or refuses. If it goes away while it
    /// commits, nobody knows: whoever tries again must be able to do it twice.
    pub fn transaction<T>(&self, act: impl FnOnce(&mut dyn Sql) -> Result<T>) -> Result<T> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let mut connection = loop {
            let kept = idle().pop();
            let is_kept = kept.is_some();
            let mut connection = match kept {
                Some(connection) => connection,
                None => self.connect()?,
            };
            match connection.client.batch_execute("BEGIN") {
                Ok(()) => break connection,
                // Those of a server that has gone are found out only when they are used; nothing was asked of them yet.
                Err(_) if is_kept => {}
                Err(why) => return Err(error(&why)),
            }
        };
        // One that has failed is closed, which undoes what it did.
        let result = act(&mut connection)?;
        connection.client.batch_execute("COMMIT").map_err(|e| error(&e))?;
        idle().push(connection);
        Ok(result)
    }

    /// Closes the connections that nobody uses.
    pub fn close(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Connection {
    fn prepare(&mut self, sql: &str) -> Result<Statement> {
        if let Some(statement) = self.prepared.get(sql) {
            return Ok(statement.clone());
        }
        if self.prepared.len() >= PREPARED {
            self.prepared.clear();
        }
        let statement = self.client.prepare(sql).map_err(|e| error(&e))?;
        self.prepared.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

fn parameters<'v>(values: &'v [Value<'_>]) -> Vec<&'v (dyn ToSql + Sync)> {
    values.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}

impl Sql for Connection {
    fn query(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>> {
        let statement = self.prepare(sql)?;
        let rows = self.client.query(&statement, &parameters(values)).map_err(|e| error(&e))?;
        rows.iter()
            .map(|row| (0..row.len()).map(|at| cell(row, at)).collect::<Result<_>>().map(Row))
            .collect()
    }

    fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64> {
        let statement = self.prepare(sql)?;
        self.client.execute(&statement, &parameters(values)).map_err(|e| error(&e))
    }

    fn batch(&mut self, sql: &str) -> Result<()> {
        self.client.batch_execute(sql).map_err(|e| error(&e))
    }

    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }
}

impl ToSql for Value<'_> {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Value::Null => Ok(IsNull::Yes),
            Value::Int(n) if *ty == Type::INT4 => i32::try_from(*n)?.to_sql(ty, out),
            Value::Int(n) => n.to_sql(ty, out),
            Value::Text(text) => text.as_ref().to_sql(ty, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

fn cell(row: &postgres::Row, at: usize) -> Result<Cell> {
    let kind = row.columns()[at].type_();
    let got = match *kind {
        Type::INT8 => row.try_get::<_, Option<i64>>(at).map(|n| n.map(Cell::Int)),
        Type::INT4 => row.try_get::<_, Option<i32>>(at).map(|n| n.map(|n| Cell::Int(i64::from(n)))),
        Type::TEXT | Type::VARCHAR | Type::UNKNOWN => {
            row.try_get::<_, Option<String>>(at).map(|t| t.map(Cell::Text))
        }
        _ => return Err(StoreError::Broken(format!("a value of the type {kind}"))),
    };
    got.map(|cell| cell.unwrap_or(Cell::Null)).map_err(|e| error(&e))
}

/// With what the server said, which the error alone keeps to itself.
fn describe(error: &postgres::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn error(error: &postgres::Error) -> StoreError {
    let Some(code) = error.code() else {
        // Not the server's word: the connection.
        return StoreError::Away(describe(error));
    };
    // 08 connection, 40 serialization and deadlock, 53 resources, 55P03 lock timeout, 57 shut down or cancelled.
    let passing = ["08", "40", "53", "55P03", "57"].iter().any(|class| code.code().starts_with(class));
    match passing {
        true => StoreError::Away(describe(error)),
        false => StoreError::Broken(describe(error)),
    }
}
