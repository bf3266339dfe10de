//! Bundles and rollouts, as far as the published repository and the nodes have shown them.

use super::sql::{Result, Row, Sql, first};

/// A bundle of the repository, and what it brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// Digest of its index.
    pub id: String,
    /// What it is for.
    pub variant: String,
    /// Its version.
    pub version: String,
    /// Its cycle.
    pub cycle: String,
    /// Its place in the order.
    pub serial: i64,
    /// What it carries: JSON, as `repository` writes it.
    pub advisories: String,
}

/// Remembers a bundle. Its advisories are those of the first time: a digest has one content.
///
/// # Errors
/// If the database is away or refuses.
pub fn remember_bundle(sql: &mut dyn Sql, bundle: &Bundle) -> Result<()> {
    sql.execute(
        "INSERT INTO bundles (id, variant, version, cycle, serial, advisories) VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (id) DO NOTHING",
        &[
            (&bundle.id).into(),
            (&bundle.variant).into(),
            (&bundle.version).into(),
            (&bundle.cycle).into(),
            bundle.serial.into(),
            (&bundle.advisories).into(),
        ],
    )?;
    Ok(())
}

/// Digests of the bundles that are remembered.
///
/// # Errors
/// If the database is away or refuses.
pub fn known_bundles(sql: &mut dyn Sql) -> Result<Vec<String>> {
    sql.query("SELECT id FROM bundles", &[])?.into_iter().map(|mut row| row.text(0)).collect()
}

/// What a bundle carries, if it is remembered.
///
/// # Errors
/// If the database is away or refuses.
pub fn advisories(sql: &mut dyn Sql, id: &str) -> Result<Option<String>> {
    let row = first(sql, "SELECT advisories FROM bundles WHERE id = $1", &[id.into()])?;
    row.map(|mut row| row.text(0)).transpose()
}

/// A node as a rollout sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: String,
    /// The policy that it says it follows; empty: it has said nothing.
    pub policy: String,
    /// Its labels, JSON.
    pub labels: String,
    /// Its state.
    pub state: String,
    /// The bundle that it has.
    pub bundle: String,
    /// The bundle that it has staged whole.
    pub staged: String,
    /// How its last step ended.
    pub outcome: String,
    /// The bundle of that step.
    pub outcome_bundle: String,
    /// When it was heard of last.
    pub last_seen: i64,
    /// When the bundle was installed.
    pub bundle_at: i64,
    /// When its last step ended.
    pub outcome_at: i64,
}

/// All nodes whose key counts.
///
/// # Errors
/// If the database is away or refuses.
pub fn members(sql: &mut dyn Sql) -> Result<Vec<Member>> {
    let rows = sql.query(
        "SELECT id, policy, labels, state, bundle, staged, outcome, outcome_bundle, last_seen, bundle_at, outcome_at
         FROM nodes WHERE key_state = 'active'",
        &[],
    )?;
    let member = |mut row: Row| {
        Ok(Member {
            id: row.text(0)?,
            policy: row.text(1)?,
            labels: row.text(2)?,
            state: row.text(3)?,
            bundle: row.text(4)?,
            staged: row.text(5)?,
            outcome: row.text(6)?,
            outcome_bundle: row.text(7)?,
            last_seen: row.int(8)?,
            bundle_at: row.int(9)?,
            outcome_at: row.int(10)?,
        })
    };
    rows.into_iter().map(member).collect()
}

/// How far a rollout had come when it was looked at last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// When it was seen first.
    pub first_seen: i64,
    /// Nodes that were finished.
    pub finished: i64,
    /// When that changed last.
    pub progress: i64,
    /// When this server asked for a halt because too much failed; 0: it did not.
    pub halted: i64,
}

/// Writes down how many nodes of a rollout are finished; what is remembered of it.
///
/// # Errors
/// If the database is away or refuses.
pub fn see(sql: &mut dyn Sql, policy: &str, bundle: &str, finished: i64, now: i64) -> Result<Seen> {
    sql.execute(
        "INSERT INTO rollouts (policy, bundle, first_seen, finished, progress) VALUES ($1, $2, $3, $4, $3)
         ON CONFLICT (policy, bundle) DO UPDATE SET finished = excluded.finished, progress = excluded.progress
         WHERE rollouts.finished <> excluded.finished",
        &[policy.into(), bundle.into(), now.into(), finished.into()],
    )?;
    Ok(seen(sql, policy, bundle)?.unwrap_or_default())
}

/// What is remembered of a rollout.
///
/// # Errors
/// If the database is away or refuses.
pub fn seen(sql: &mut dyn Sql, policy: &str, bundle: &str) -> Result<Option<Seen>> {
    let row = first(
        sql,
        "SELECT first_seen, finished, progress, halted FROM rollouts WHERE policy = $1 AND bundle = $2",
        &[policy.into(), bundle.into()],
    )?;
    let seen = |row: Row| {
        Ok(Seen {
            first_seen: row.int(0)?,
            finished: row.int(1)?,
            progress: row.int(2)?,
            halted: row.int(3)?,
        })
    };
    row.map(seen).transpose()
}

/// Writes down that a halt was asked for, if nobody has; whether this was the first.
///
/// # Errors
/// If the database is away or refuses.
pub fn halting(sql: &mut dyn Sql, policy: &str, bundle: &str, now: i64) -> Result<bool> {
    let statement = "UPDATE rollouts SET halted = $1 WHERE policy = $2 AND bundle = $3 AND halted = 0";
    Ok(sql.execute(statement, &[now.into(), policy.into(), bundle.into()])? == 1)
}

/// Takes that back: the halt could not be published, or somebody went on.
///
/// # Errors
/// If the database is away or refuses.
pub fn not_halted(sql: &mut dyn Sql, policy: &str, bundle: &str) -> Result<()> {
    let statement = "UPDATE rollouts SET halted = 0 WHERE policy = $1 AND bundle = $2";
    sql.execute(statement, &[policy.into(), bundle.into()])?;
    Ok(())
}
