//! Tokens of operators and for enrolment, and sessions of browsers. Of a secret only the digest is kept: it has 256 random
//! bits, so nobody finds it by trying.

use std::collections::BTreeMap;

use super::sql::{Result, Row, Sql, first};
use crate::auth::Role;
use crate::ingest::apply::{read_labels, write_labels};

/// A token without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is called by.
    pub id: String,
    /// `operator` or `enrollment`.
    pub kind: String,
    /// Whose it is, or what it is for.
    pub name: String,
    /// Of an operator's.
    pub role: Option<Role>,
    /// Only for this node; empty: for any.
    pub node: String,
    /// Only for nodes with these labels.
    pub labels: BTreeMap<String, String>,
    /// How often it counts.
    pub uses: i64,
    /// How often it has been used.
    pub used: i64,
    /// When it was made.
    pub made: i64,
    /// By whom.
    pub made_by: String,
    /// Until when it counts.
    pub expires: i64,
    /// When it was revoked; 0: it was not.
    pub revoked: i64,
    /// When it was used last; 0: never.
    pub last_used: i64,
}

const COLUMNS: &str =
    "id, kind, name, role, node, labels, uses, used, made, made_by, expires, revoked, last_used";

fn token(mut row: Row) -> Result<Token> {
    Ok(Token {
        id: row.text(0)?,
        kind: row.text(1)?,
        name: row.text(2)?,
        role: row.text(3)?.parse().ok(),
        node: row.text(4)?,
        labels: read_labels(&row.text(5)?),
        uses: row.int(6)?,
        used: row.int(7)?,
        made: row.int(8)?,
        made_by: row.text(9)?,
        expires: row.int(10)?,
        revoked: row.int(11)?,
        last_used: row.int(12)?,
    })
}

/// Stores a token whose secret has this digest.
///
/// # Errors
/// If the database is away or refuses.
pub fn insert(sql: &mut dyn Sql, token: &Token, hash: &str) -> Result<()> {
    sql.execute(
        "INSERT INTO tokens (id, kind, name, role, hash, node, labels, uses, made, made_by, expires)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        &[
            (&token.id).into(),
            (&token.kind).into(),
            (&token.name).into(),
            token.role.map_or("", Role::as_str).into(),
            hash.into(),
            (&token.node).into(),
            write_labels(&token.labels).into(),
            token.uses.into(),
            token.made.into(),
            (&token.made_by).into(),
            token.expires.into(),
        ],
    )?;
    Ok(())
}

/// All of them, newest first, at most 1,000.
///
/// # Errors
/// If the database is away or refuses.
pub fn list(sql: &mut dyn Sql) -> Result<Vec<Token>> {
    let statement = format!("SELECT {COLUMNS} FROM tokens ORDER BY made DESC, id LIMIT 1000");
    sql.query(&statement, &[])?.into_iter().map(token).collect()
}

/// The operator's token whose secret has this digest, if it counts.
///
/// # Errors
/// If the database is away or refuses.
pub fn operator(sql: &mut dyn Sql, hash: &str, now: i64) -> Result<Option<Token>> {
    let statement = format!(
        "SELECT {COLUMNS} FROM tokens WHERE hash = $1 AND kind = 'operator' AND revoked = 0 AND expires > $2"
    );
    first(sql, &statement, &[hash.into(), now.into()])?.map(token).transpose()
}

/// Writes down that a token was used; its callers do so once a minute at most.
///
/// # Errors
/// If the database is away or refuses.
pub fn used(sql: &mut dyn Sql, id: &str, now: i64) -> Result<()> {
    sql.execute("UPDATE tokens SET last_used = $1 WHERE id = $2", &[now.into(), id.into()])?;
    Ok(())
}

/// The token counts no more, nor do its sessions. Whether there was one that did.
///
/// # Errors
/// If the database is away or refuses.
pub fn revoke(sql: &mut dyn Sql, id: &str, now: i64) -> Result<bool> {
    sql.execute("DELETE FROM sessions WHERE token = $1", &[id.into()])?;
    let statement = "UPDATE tokens SET revoked = $1 WHERE id = $2 AND revoked = 0";
    Ok(sql.execute(statement, &[now.into(), id.into()])? == 1)
}

/// Opens a session with a token.
///
/// # Errors
/// If the database is away or refuses.
pub fn open_session(sql: &mut dyn Sql, hash: &str, token: &str, expires: i64, now: i64) -> Result<()> {
    sql.execute("DELETE FROM sessions WHERE expires <= $1", &[now.into()])?;
    let statement = "INSERT INTO sessions (hash, token, expires) VALUES ($1, $2, $3)";
    sql.execute(statement, &[hash.into(), token.into(), expires.into()])?;
    Ok(())
}

/// The token that a session was opened with, if both count, and until when the session does.
///
/// # Errors
/// If the database is away or refuses.
pub fn session(sql: &mut dyn Sql, hash: &str, now: i64) -> Result<Option<(Token, i64)>> {
    let columns = COLUMNS.split(", ").map(|name| format!("t.{name}")).collect::<Vec<_>>().join(", ");
    let statement = format!(
        "SELECT {columns}, s.expires FROM sessions s JOIN tokens t ON t.id = s.token
         WHERE s.hash = $1 AND s.expires > $2 AND t.revoked = 0 AND t.expires > $2"
    );
    let Some(row) = first(sql, &statement, &[hash.into(), now.into()])? else { return Ok(None) };
    let expires = row.int(13)?;
    Ok(Some((token(row)?, expires)))
}

/// Ends a session.
///
/// # Errors
/// If the database is away or refuses.
pub fn close_session(sql: &mut dyn Sql, hash: &str) -> Result<()> {
    sql.execute("DELETE FROM sessions WHERE hash = $1", &[hash.into()])?;
    Ok(())
}
