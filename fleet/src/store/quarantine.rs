//! Bundles that nodes refuse, as they said in their last status.

use super::sql::{Result, Row, Sql, Value, first};

/// A node refuses a bundle.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// Who.
    pub node: String,
    /// Which: its version.
    pub bundle: String,
    /// The digest of its index.
    pub index: String,
    /// Which step.
    pub step: String,
    /// Since when.
    #[serde(serialize_with = "crate::api::times::time")]
    pub since: i64,
    /// The exit code that put it there.
    pub exit_code: i64,
    /// What was wrong.
    pub reason: String,
    /// What ends it.
    pub ends: String,
}

/// Where a page begins: behind this one.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Behind(pub i64, pub String, pub String, pub String);

/// A page of them, newest first, and how many there are.
///
/// # Errors
/// If the database is away or refuses.
pub fn list(
    sql: &mut dyn Sql,
    bundle: Option<&str>,
    behind: Option<&Behind>,
    limit: i64,
) -> Result<(Vec<Refused>, i64)> {
    let from = "FROM quarantine q JOIN nodes n ON n.id = q.node AND n.key_state = 'active'
                WHERE ($1 = '' OR q.bundle = $1)";
    let bundle = Value::from(bundle.unwrap_or_default());
    let total = first(sql, &format!("SELECT COUNT(*) {from}"), std::slice::from_ref(&bundle))?;
    let total = total.map_or(Ok(0), |row| row.int(0))?;
    let start = Behind(i64::MAX, String::new(), String::new(), String::new());
    let Behind(since, node, index, step) = behind.unwrap_or(&start);
    let statement = format!(
        "SELECT q.node, q.bundle, q.bundle_index, q.step, q.since, q.exit_code, q.reason, q.ends {from}
         AND (q.since < $2 OR (q.since = $2 AND (q.node, q.bundle_index, q.step) > ($3, $4, $5)))
         ORDER BY q.since DESC, q.node, q.bundle_index, q.step LIMIT $6"
    );
    let values = [bundle, (*since).into(), node.into(), index.into(), step.into(), limit.into()];
    let refused = |mut row: Row| {
        Ok(Refused {
            node: row.text(0)?,
            bundle: row.text(1)?,
            index: row.text(2)?,
            step: row.text(3)?,
            since: row.int(4)?,
            exit_code: row.int(5)?,
            reason: row.text(6)?,
            ends: row.text(7)?,
        })
    };
    let page = sql.query(&statement, &values)?.into_iter().map(refused).collect::<Result<_>>()?;
    Ok((page, total))
}
