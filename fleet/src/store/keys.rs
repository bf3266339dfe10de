//! Keys of nodes: expected, active, revoked.
//!
//! A node has one key. Another one needs an operator: a token after the first was revoked, or a registration.

use std::collections::BTreeMap;

use format::digest::{Sha256, hex, unhex};
use format::envelope::Enrollment;
use format::node_key::NodePublicKey;

use super::reports::replace_labels;
use super::sql::{Result, Row, Sql, StoreError, Value, first, pieces, places};
use crate::ingest::apply::{read_labels, write_labels};

/// What a node may sign with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeKeys {
    /// This key.
    Active(NodePublicKey),
    /// It is registered and has not enrolled.
    Expected,
    /// Nothing any more.
    Revoked,
}

/// How an enrolment ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Enrolled {
    /// It is enrolled now.
    New,
    /// It was, with this key.
    Same,
    /// Its token does not do, or it has none, or it was revoked.
    Forbidden(String),
    /// Another key is enrolled for this node, or this key for another.
    Conflict(String),
}

/// What is known of these nodes' keys.
///
/// # Errors
/// If the database is away or refuses.
pub fn of(sql: &mut dyn Sql, nodes: &[String]) -> Result<Vec<(String, NodeKeys)>> {
    let mut out = Vec::new();
    for piece in pieces(nodes) {
        let places = places(1, piece.len());
        let statement = format!("SELECT id, public_key, key_state FROM nodes WHERE id IN ({places})");
        let values: Vec<Value<'_>> = piece.iter().map(Value::from).collect();
        for mut row in sql.query(&statement, &values)? {
            let keys = match row.text(2)?.as_str() {
                "active" => NodeKeys::Active(public_key(&row.text(1)?)?),
                "expected" => NodeKeys::Expected,
                _ => NodeKeys::Revoked,
            };
            out.push((row.text(0)?, keys));
        }
    }
    Ok(out)
}

fn public_key(text: &str) -> Result<NodePublicKey> {
    let bytes = unhex(text).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    bytes.map(NodePublicKey).ok_or_else(|| StoreError::Broken("a public key is damaged".into()))
}

/// Enrols a node whose envelope was signed by the key that it names.
///
/// # Errors
/// If the database is away or refuses.
pub fn enroll(sql: &mut dyn Sql, enrollment: &Enrollment, now: i64) -> Result<Enrolled> {
    let (node, key) = (enrollment.node.as_str(), enrollment.public_key);
    let key_id = key.id().0;
    let taken = "SELECT id FROM nodes WHERE key_id = $1 AND id <> $2 AND key_state <> 'revoked'";
    if let Some(mut row) = first(sql, taken, &[(&key_id).into(), node.into()])? {
        return Ok(Enrolled::Conflict(format!(
            "this key is that of {}: was an image made of an enrolled node? Remove node.key here and enrol again",
            row.text(0)?
        )));
    }
    let known = format!("SELECT key_id, key_state FROM nodes WHERE id = $1{}", sql.dialect().for_update());
    let known = match first(sql, &known, &[node.into()])? {
        Some(mut row) => Some((row.text(0)?, row.text(1)?)),
        None => None,
    };
    let how = match &known {
        Some((id, state)) if state == "active" && *id == key_id => return Ok(Enrolled::Same),
        Some((_, state)) if state == "active" => {
            return Ok(Enrolled::Conflict(format!(
                "another key is enrolled for {node}: revoke it first, if the node was set up anew"
            )));
        }
        Some((id, state)) if state == "expected" && *id == key_id => "registered key".to_owned(),
        Some((id, state)) if state == "revoked" && *id == key_id => {
            return Ok(Enrolled::Forbidden(format!("this key of {node} was revoked")));
        }
        _ => match use_token(sql, enrollment, now)? {
            Some(id) => format!("token {id}"),
            None => return Ok(Enrolled::Forbidden(no_token(enrollment))),
        },
    };
    write(sql, node, &key, "active", &how, now, known.is_some())?;
    sql.execute(
        "UPDATE nodes SET variant = $1, labels = $2, site = $3 WHERE id = $4",
        &[
            enrollment.variant.as_str().into(),
            write_labels(&enrollment.labels).into(),
            enrollment.site.as_deref().unwrap_or_default().into(),
            node.into(),
        ],
    )?;
    replace_labels(sql, node, &enrollment.labels)?;
    Ok(Enrolled::New)
}

/// One sentence for all, so that nobody learns which tokens there are.
fn no_token(enrollment: &Enrollment) -> String {
    match enrollment.token {
        Some(_) => {
            "the token does not count: it is unknown, used, expired or revoked, or is for another node or \
                    for other labels"
                .into()
        }
        None => "its key is not registered, and it has no token".into(),
    }
}

fn write(
    sql: &mut dyn Sql,
    node: &str,
    key: &NodePublicKey,
    state: &str,
    how: &str,
    now: i64,
    known: bool,
) -> Result<()> {
    let (id, public) = (key.id().0, hex(&key.0));
    let changed = Value::from(now * 1000);
    let mut values = vec![node.into(), id.into(), public.into(), state.into(), how.into(), changed];
    let statement = if known {
        // Since when it is in the fleet stays; what an earlier key said about its time does not.
        "UPDATE nodes SET key_id = $2, public_key = $3, key_state = $4, enrolled_how = $5, revoked = 0,
         revoked_why = '', sent = 0, changed = $6 WHERE id = $1"
    } else {
        values.push(now.into());
        "INSERT INTO nodes (id, key_id, public_key, key_state, enrolled_how, changed, enrolled)
         VALUES ($1, $2, $3, $4, $5, $6, $7)"
    };
    sql.execute(statement, &values)?;
    Ok(())
}

fn use_token(sql: &mut dyn Sql, enrollment: &Enrollment, now: i64) -> Result<Option<String>> {
    let Some(token) = &enrollment.token else { return Ok(None) };
    let hash = Sha256::of(token.as_str().as_bytes()).to_string();
    let found = first(
        sql,
        "SELECT id, node, labels FROM tokens
         WHERE hash = $1 AND kind = 'enrollment' AND revoked = 0 AND expires > $2 AND used < uses",
        &[hash.into(), now.into()],
    )?;
    let Some(mut row) = found else { return Ok(None) };
    let (id, node) = (row.text(0)?, row.text(1)?);
    let labels: BTreeMap<String, String> = read_labels(&row.text(2)?);
    let fits = (node.is_empty() || node == enrollment.node.as_str())
        && labels.iter().all(|(name, value)| enrollment.labels.get(name) == Some(value));
    if !fits {
        return Ok(None);
    }
    // Of two who use the last one at the same time, one.
    let used = "UPDATE tokens SET used = used + 1, last_used = $1 WHERE id = $2 AND used < uses";
    let used = sql.execute(used, &[now.into(), (&id).into()])?;
    Ok((used == 1).then_some(id))
}

/// Registers a key before its node enrols, or lets an enrolled node have another one.
///
/// # Errors
/// If the database is away or refuses.
pub fn register(sql: &mut dyn Sql, node: &str, key: &NodePublicKey, by: &str, now: i64) -> Result<Enrolled> {
    let taken = "SELECT id FROM nodes WHERE key_id = $1 AND id <> $2";
    if let Some(mut row) = first(sql, taken, &[key.id().0.into(), node.into()])? {
        return Ok(Enrolled::Conflict(format!("this key is that of {}", row.text(0)?)));
    }
    let known = match first(sql, "SELECT key_id, key_state FROM nodes WHERE id = $1", &[node.into()])? {
        Some(mut row) => {
            if row.text(0)? == key.id().0 && row.text(1)? != "revoked" {
                return Ok(Enrolled::Same);
            }
            true
        }
        None => false,
    };
    write(sql, node, key, "expected", &format!("registered by {by}"), now, known)?;
    Ok(Enrolled::New)
}

/// The node's key counts no more. Whether it did.
///
/// # Errors
/// If the database is away or refuses.
pub fn revoke(sql: &mut dyn Sql, node: &str, reason: &str, now: i64) -> Result<bool> {
    let statement = "UPDATE nodes SET key_state = 'revoked', revoked = $1, revoked_why = $2, changed = $3
                     WHERE id = $4 AND key_state <> 'revoked'";
    Ok(sql.execute(statement, &[now.into(), reason.into(), (now * 1000).into(), node.into()])? == 1)
}

/// A node's key, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrollments {
    /// Whose.
    pub node: String,
    /// Its id.
    pub key_id: String,
    /// `expected`, `active` or `revoked`.
    pub state: String,
    /// Since when the node is known.
    pub since: i64,
    /// By what.
    pub how: String,
    /// When it was revoked; 0: it was not.
    pub revoked: i64,
    /// Why.
    pub revoked_why: String,
}

const COLUMNS: &str = "id, key_id, key_state, enrolled, enrolled_how, revoked, revoked_why";

fn listed(mut row: Row) -> Result<Enrollments> {
    Ok(Enrollments {
        node: row.text(0)?,
        key_id: row.text(1)?,
        state: row.text(2)?,
        since: row.int(3)?,
        how: row.text(4)?,
        revoked: row.int(5)?,
        revoked_why: row.text(6)?,
    })
}

/// The key of one node.
///
/// # Errors
/// If the database is away or refuses.
pub fn one(sql: &mut dyn Sql, node: &str) -> Result<Option<Enrollments>> {
    let statement = format!("SELECT {COLUMNS} FROM nodes WHERE id = $1");
    first(sql, &statement, &[node.into()])?.map(listed).transpose()
}

/// All of them, those that are known longest last, behind the one with this time and node.
///
/// # Errors
/// If the database is away or refuses.
pub fn list(sql: &mut dyn Sql, after: Option<(i64, String)>, limit: i64) -> Result<Vec<Enrollments>> {
    let (at, node) = after.unwrap_or((i64::MAX, String::new()));
    let statement = format!(
        "SELECT {COLUMNS} FROM nodes WHERE enrolled < $1 OR (enrolled = $1 AND id > $2)
         ORDER BY enrolled DESC, id LIMIT $3"
    );
    let rows = sql.query(&statement, &[at.into(), node.into(), limit.into()])?;
    rows.into_iter().map(listed).collect()
}
