//! A node's row as a value: what is known of it, apart from its key.
//!
//! Read, changed by pure functions (`ingest::apply`), written back in the same transaction.

use super::sql::{Result, Row, Sql, Value, many, places};

/// What is known of a node. Times are seconds since 1970, 0 for never; what is not known is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeState {
    /// Its id.
    pub id: String,
    /// Its label `site`.
    pub site: String,
    /// What its bundles are built for.
    pub variant: String,
    /// Its labels, a JSON object with sorted keys.
    pub labels: String,
    /// The state it said last: a word of `format::status::State`.
    pub state: String,
    /// Its sentence for people.
    pub summary: String,
    /// The policy it follows, `NAMESPACE/NAME`.
    pub policy: String,
    /// The version of its agent.
    pub agent_version: String,
    /// Version of the bundle that is installed.
    pub bundle: String,
    /// Digest of that bundle's index.
    pub bundle_index: String,
    /// When it was installed.
    pub bundle_at: i64,
    /// Version of the bundle that is staged whole.
    pub staged: String,
    /// Outcome of the last report.
    pub outcome: String,
    /// The bundle that it was about.
    pub outcome_bundle: String,
    /// When.
    pub outcome_at: i64,
    /// Since when it fails; 0: it does not.
    pub failing_since: i64,
    /// What fails: the outcome.
    pub cause: String,
    /// Digest of the installed set.
    pub inventory: String,
    /// When the repository's metadata expires on it.
    pub metadata_expires: i64,
    /// How many bundles it refuses.
    pub quarantined: i64,
    /// Seconds that its clock is ahead; 0: it is right.
    pub clock_off: i64,
    /// When, by its own clock, it sent what counts.
    pub sent: i64,
    /// When the server heard of it last.
    pub last_seen: i64,
    /// When this row changed last, in milliseconds.
    pub changed: i64,
}

/// The columns, in the order of [`NodeState::read`] and [`NodeState::values`].
const COLUMNS: [(&str, &str); 24] = [
    ("id", "TEXT"),
    ("site", "TEXT"),
    ("variant", "TEXT"),
    ("labels", "TEXT"),
    ("state", "TEXT"),
    ("summary", "TEXT"),
    ("policy", "TEXT"),
    ("agent_version", "TEXT"),
    ("bundle", "TEXT"),
    ("bundle_index", "TEXT"),
    ("bundle_at", "BIGINT"),
    ("staged", "TEXT"),
    ("outcome", "TEXT"),
    ("outcome_bundle", "TEXT"),
    ("outcome_at", "BIGINT"),
    ("failing_since", "BIGINT"),
    ("cause", "TEXT"),
    ("inventory", "TEXT"),
    ("metadata_expires", "BIGINT"),
    ("quarantined", "BIGINT"),
    ("clock_off", "BIGINT"),
    ("sent", "BIGINT"),
    ("last_seen", "BIGINT"),
    ("changed", "BIGINT"),
];

impl NodeState {
    /// Number of columns of [`NodeState::columns`].
    pub const WIDTH: usize = COLUMNS.len();

    /// What to select, separated by commas, for [`NodeState::read`].
    pub fn columns() -> String {
        COLUMNS.map(|(name, _)| name).join(", ")
    }

    /// The node of a row that begins with these columns.
    ///
    /// # Errors
    /// If it does not.
    pub fn read(row: &mut Row) -> Result<Self> {
        Ok(NodeState {
            id: row.text(0)?,
            site: row.text(1)?,
            variant: row.text(2)?,
            labels: row.text(3)?,
            state: row.text(4)?,
            summary: row.text(5)?,
            policy: row.text(6)?,
            agent_version: row.text(7)?,
            bundle: row.text(8)?,
            bundle_index: row.text(9)?,
            bundle_at: row.int(10)?,
            staged: row.text(11)?,
            outcome: row.text(12)?,
            outcome_bundle: row.text(13)?,
            outcome_at: row.int(14)?,
            failing_since: row.int(15)?,
            cause: row.text(16)?,
            inventory: row.text(17)?,
            metadata_expires: row.int(18)?,
            quarantined: row.int(19)?,
            clock_off: row.int(20)?,
            sent: row.int(21)?,
            last_seen: row.int(22)?,
            changed: row.int(23)?,
        })
    }

    fn values(&self) -> Vec<Value<'_>> {
        vec![
            (&self.id).into(),
            (&self.site).into(),
            (&self.variant).into(),
            (&self.labels).into(),
            (&self.state).into(),
            (&self.summary).into(),
            (&self.policy).into(),
            (&self.agent_version).into(),
            (&self.bundle).into(),
            (&self.bundle_index).into(),
            self.bundle_at.into(),
            (&self.staged).into(),
            (&self.outcome).into(),
            (&self.outcome_bundle).into(),
            self.outcome_at.into(),
            self.failing_since.into(),
            (&self.cause).into(),
            (&self.inventory).into(),
            self.metadata_expires.into(),
            self.quarantined.into(),
            self.clock_off.into(),
            self.sent.into(),
            self.last_seen.into(),
            self.changed.into(),
        ]
    }
}

/// The nodes of these ids whose key counts, locked until the transaction ends.
///
/// # Errors
/// If the database is away or refuses.
pub fn lock(sql: &mut dyn Sql, ids: &[String]) -> Result<Vec<NodeState>> {
    let mut out = Vec::with_capacity(ids.len());
    // In one order everywhere, or two servers could wait for each other.
    let mut ids: Vec<&String> = ids.iter().collect();
    ids.sort_unstable();
    for piece in super::sql::pieces(&ids) {
        let statement = format!(
            "SELECT {} FROM nodes WHERE id IN ({}) AND key_state = 'active' ORDER BY id{}",
            NodeState::columns(),
            places(1, piece.len()),
            sql.dialect().for_update()
        );
        let values: Vec<Value<'_>> = piece.iter().map(|id| Value::from(*id)).collect();
        for mut row in sql.query(&statement, &values)? {
            out.push(NodeState::read(&mut row)?);
        }
    }
    // As Rust orders them, whatever the database's collation is.
    out.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(out)
}

/// Writes nodes back that were locked.
///
/// # Errors
/// If the database is away or refuses.
pub fn write(sql: &mut dyn Sql, nodes: &[NodeState]) -> Result<()> {
    let names = COLUMNS.map(|(name, _)| name);
    let set = names[1..].iter().map(|name| format!("{name} = v.{name}")).collect::<Vec<_>>().join(", ");
    let rows: Vec<Vec<Value<'_>>> = nodes.iter().map(NodeState::values).collect();
    many(
        sql,
        &format!("WITH v ({}) AS (VALUES", names.join(", ")),
        &COLUMNS.map(|(_, kind)| kind),
        &rows,
        &format!(") UPDATE nodes SET {set} FROM v WHERE nodes.id = v.id"),
    )?;
    Ok(())
}
