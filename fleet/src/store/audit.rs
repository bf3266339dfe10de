//! Who did what, when, from where, why, and how it ended. Nothing here changes or removes a line but the end of its time.

use super::sql::{Result, Row, Sql, Value};

/// A line.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Entry {
    /// Its number; later ones are higher.
    pub id: i64,
    /// When.
    #[serde(serialize_with = "crate::api::times::time")]
    pub at: i64,
    /// Who; `prestage-fleet` for what the server does by itself.
    pub who: String,
    /// In which role.
    pub role: String,
    /// From which address.
    pub from: String,
    /// What.
    pub action: String,
    /// To what.
    pub target: String,
    /// Why, as they said.
    pub reason: String,
    /// How it ended.
    pub outcome: String,
}

/// Writes a line.
///
/// # Errors
/// If the database is away or refuses.
pub fn record(sql: &mut dyn Sql, entry: &Entry) -> Result<()> {
    sql.execute(
        "INSERT INTO audit (at, who, role, address, action, target, reason, outcome)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        &[
            entry.at.into(),
            (&entry.who).into(),
            (&entry.role).into(),
            (&entry.from).into(),
            (&entry.action).into(),
            (&entry.target).into(),
            (&entry.reason).into(),
            (&entry.outcome).into(),
        ],
    )?;
    Ok(())
}

/// Which lines.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Only theirs.
    pub who: Option<String>,
    /// Only of this action.
    pub action: Option<String>,
    /// Only of this target.
    pub target: Option<String>,
    /// Only those before this number.
    pub before: Option<i64>,
    /// So many.
    pub limit: i64,
}

/// Lines, newest first.
///
/// # Errors
/// If the database is away or refuses.
pub fn list(sql: &mut dyn Sql, asked: &Asked) -> Result<Vec<Entry>> {
    let mut statement = String::from(
        "SELECT id, at, who, role, address, action, target, reason, outcome FROM audit WHERE id < $1",
    );
    let mut values: Vec<Value<'_>> = vec![asked.before.unwrap_or(i64::MAX).into()];
    for (column, wanted) in [("who", &asked.who), ("action", &asked.action), ("target", &asked.target)] {
        if let Some(wanted) = wanted {
            values.push(wanted.into());
            statement += &format!(" AND {column} = ${}", values.len());
        }
    }
    values.push(asked.limit.into());
    statement += &format!(" ORDER BY id DESC LIMIT ${}", values.len());
    let entry = |mut row: Row| {
        Ok(Entry {
            id: row.int(0)?,
            at: row.int(1)?,
            who: row.text(2)?,
            role: row.text(3)?,
            from: row.text(4)?,
            action: row.text(5)?,
            target: row.text(6)?,
            reason: row.text(7)?,
            outcome: row.text(8)?,
        })
    };
    sql.query(&statement, &values)?.into_iter().map(entry).collect()
}
