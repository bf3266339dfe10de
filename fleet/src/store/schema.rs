//! The tables, and how a database of an older version becomes one of this.
//!
//! A migration that was released is never changed: another one is put behind it.

use super::sql::{Dialect, Result, Sql, StoreError, first};

/// Each is run once, in order. `{serial}` is a column that numbers the rows.
const MIGRATIONS: &[&str] = &[FIRST];

/// Names are what they are in the API. Times are seconds since 1970, 0 for never; `changed` is milliseconds. What is not
/// known is empty: an index over a column without NULL can be walked in both directions on both databases.
const FIRST: &str = "
CREATE TABLE nodes (
    id TEXT PRIMARY KEY,
    key_id TEXT NOT NULL, public_key TEXT NOT NULL, key_state TEXT NOT NULL,
    enrolled BIGINT NOT NULL, enrolled_how TEXT NOT NULL,
    revoked BIGINT NOT NULL DEFAULT 0, revoked_why TEXT NOT NULL DEFAULT '',
    site TEXT NOT NULL DEFAULT '', variant TEXT NOT NULL DEFAULT '', labels TEXT NOT NULL DEFAULT '{}',
    state TEXT NOT NULL DEFAULT 'unknown', summary TEXT NOT NULL DEFAULT '', policy TEXT NOT NULL DEFAULT '',
    agent_version TEXT NOT NULL DEFAULT '',
    bundle TEXT NOT NULL DEFAULT '', bundle_index TEXT NOT NULL DEFAULT '', bundle_at BIGINT NOT NULL DEFAULT 0,
    staged TEXT NOT NULL DEFAULT '',
    outcome TEXT NOT NULL DEFAULT '', outcome_bundle TEXT NOT NULL DEFAULT '', outcome_at BIGINT NOT NULL DEFAULT 0,
    failing_since BIGINT NOT NULL DEFAULT 0, cause TEXT NOT NULL DEFAULT '',
    inventory TEXT NOT NULL DEFAULT '', metadata_expires BIGINT NOT NULL DEFAULT 0,
    quarantined BIGINT NOT NULL DEFAULT 0, clock_off BIGINT NOT NULL DEFAULT 0,
    sent BIGINT NOT NULL DEFAULT 0, last_seen BIGINT NOT NULL DEFAULT 0, changed BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX nodes_key ON nodes (key_id);
CREATE INDEX nodes_state ON nodes (state, id);
CREATE INDEX nodes_site ON nodes (site, id);
CREATE INDEX nodes_variant ON nodes (variant, id);
CREATE INDEX nodes_bundle ON nodes (bundle, id);
CREATE INDEX nodes_seen ON nodes (last_seen, id);
CREATE INDEX nodes_failing ON nodes (failing_since, id);
CREATE INDEX nodes_changed ON nodes (changed);
CREATE TABLE node_labels (
    node TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (node, name)
);
CREATE INDEX node_labels_value ON node_labels (name, value, node);
CREATE TABLE statuses (
    node TEXT PRIMARY KEY, id TEXT NOT NULL, received BIGINT NOT NULL, body TEXT NOT NULL, signature TEXT NOT NULL
);
CREATE TABLE reports (
    id TEXT PRIMARY KEY, node TEXT NOT NULL, at BIGINT NOT NULL, received BIGINT NOT NULL,
    step TEXT NOT NULL, outcome TEXT NOT NULL, bundle TEXT NOT NULL, body TEXT NOT NULL, signature TEXT NOT NULL
);
CREATE INDEX reports_node ON reports (node, at, id);
CREATE INDEX reports_received ON reports (received);
CREATE TABLE installs (
    node TEXT NOT NULL, since BIGINT NOT NULL, until BIGINT NOT NULL,
    bundle TEXT NOT NULL, cycle TEXT NOT NULL, bundle_index TEXT NOT NULL, inventory TEXT NOT NULL,
    PRIMARY KEY (node, since)
);
CREATE TABLE inventories (
    id TEXT PRIMARY KEY, received BIGINT NOT NULL, packages TEXT NOT NULL, count BIGINT NOT NULL
);
CREATE TABLE quarantine (
    node TEXT NOT NULL, bundle_index TEXT NOT NULL, step TEXT NOT NULL, bundle TEXT NOT NULL, since BIGINT NOT NULL,
    exit_code BIGINT NOT NULL, reason TEXT NOT NULL, ends TEXT NOT NULL, PRIMARY KEY (node, bundle_index, step)
);
CREATE INDEX quarantine_since ON quarantine (since, node, bundle_index, step);
CREATE TABLE traffic (
    slot BIGINT PRIMARY KEY, received BIGINT NOT NULL, from_site BIGINT NOT NULL, reports BIGINT NOT NULL
);
CREATE TABLE history (
    step BIGINT NOT NULL, at BIGINT NOT NULL, states TEXT NOT NULL, received BIGINT NOT NULL, from_site BIGINT NOT NULL,
    reports BIGINT NOT NULL, PRIMARY KEY (step, at)
);
CREATE TABLE tokens (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, role TEXT NOT NULL, hash TEXT NOT NULL UNIQUE,
    node TEXT NOT NULL, labels TEXT NOT NULL, uses BIGINT NOT NULL, used BIGINT NOT NULL DEFAULT 0,
    made BIGINT NOT NULL, made_by TEXT NOT NULL, expires BIGINT NOT NULL, revoked BIGINT NOT NULL DEFAULT 0,
    last_used BIGINT NOT NULL DEFAULT 0
);
CREATE TABLE sessions (
    hash TEXT PRIMARY KEY, token TEXT NOT NULL, expires BIGINT NOT NULL
);
CREATE INDEX sessions_token ON sessions (token);
CREATE TABLE audit (
    id {serial}, at BIGINT NOT NULL, who TEXT NOT NULL, role TEXT NOT NULL, address TEXT NOT NULL,
    action TEXT NOT NULL, target TEXT NOT NULL, reason TEXT NOT NULL, outcome TEXT NOT NULL
);
CREATE INDEX audit_target ON audit (target, id);
CREATE TABLE bundles (
    id TEXT PRIMARY KEY, variant TEXT NOT NULL, version TEXT NOT NULL, cycle TEXT NOT NULL, serial BIGINT NOT NULL,
    advisories TEXT NOT NULL
);
CREATE TABLE rollouts (
    policy TEXT NOT NULL, bundle TEXT NOT NULL, first_seen BIGINT NOT NULL, finished BIGINT NOT NULL DEFAULT 0,
    progress BIGINT NOT NULL DEFAULT 0, halted BIGINT NOT NULL DEFAULT 0, PRIMARY KEY (policy, bundle)
);
CREATE TABLE leases (
    name TEXT PRIMARY KEY, holder TEXT NOT NULL, until BIGINT NOT NULL
);
CREATE TABLE reboot_locks (
    site TEXT NOT NULL, holder TEXT NOT NULL, since BIGINT NOT NULL, PRIMARY KEY (site, holder)
);
";

/// Which number the two servers that start at the same time agree on; nobody else's.
const MIGRATION_LOCK: i64 = 0x7072_6573;

/// Brings the database up to date.
///
/// # Errors
/// If it is of a later version than this program, or refuses.
pub fn migrate(sql: &mut dyn Sql) -> Result<()> {
    if sql.dialect() == Dialect::Postgres {
        sql.batch(&format!("SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))?;
    }
    sql.batch("CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BIGINT NOT NULL)")?;
    let version = first(sql, "SELECT value FROM meta WHERE name = 'schema'", &[])?;
    let version = version.map_or(Ok(0), |row| row.int(0))?;
    let known = MIGRATIONS.len() as i64;
    if version > known {
        return Err(StoreError::Broken(format!(
            "its schema has version {version}, and this program knows {known}: it was used by a later one"
        )));
    }
    for migration in MIGRATIONS.iter().skip(version as usize) {
        let serial = sql.dialect().serial();
        sql.batch(&migration.replace("{serial}", serial))?;
    }
    if version < known {
        sql.execute(
            "INSERT INTO meta (name, value) VALUES ('schema', $1)
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            &[known.into()],
        )?;
    }
    Ok(())
}
