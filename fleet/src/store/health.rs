//! What keeps the server well: one of several does what must be done once, and what is old goes.

use super::sql::{Result, Sql, first};

/// So many rows go in one transaction, for nobody to wait long behind it.
const PIECE: i64 = 2000;

/// Takes or prolongs a lease until `until`; whether `holder` has it. Of several servers one does what must be done once, and
/// another goes on when it has died.
///
/// # Errors
/// If the database is away or refuses.
pub fn lease(sql: &mut dyn Sql, name: &str, holder: &str, until: i64, now: i64) -> Result<bool> {
    let statement = "INSERT INTO leases (name, holder, until) VALUES ($1, $2, $3)
         ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
         WHERE leases.holder = excluded.holder OR leases.until < $4";
    Ok(sql.execute(statement, &[name.into(), holder.into(), until.into(), now.into()])? == 1)
}

/// Whether the database answers.
///
/// # Errors
/// If it does not.
pub fn ping(sql: &mut dyn Sql) -> Result<()> {
    first(sql, "SELECT value FROM meta WHERE name = 'schema'", &[])?;
    Ok(())
}

/// Until when what is kept.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// Reports received before this go.
    pub reports: i64,
    /// Lines of the audit log before this go.
    pub audit: i64,
    /// Rows of five minutes before this go.
    pub minutes: i64,
    /// Rows of an hour, and traffic, before this go.
    pub hours: i64,
}

/// Removes a piece of what is old; how many rows that were. 0: there is nothing left to remove.
///
/// # Errors
/// If the database is away or refuses.
pub fn prune(sql: &mut dyn Sql, kept: Kept) -> Result<u64> {
    let mut gone = sql.execute(
        "DELETE FROM reports WHERE id IN (SELECT id FROM reports WHERE received < $1 ORDER BY received LIMIT $2)",
        &[kept.reports.into(), PIECE.into()],
    )?;
    gone += sql.execute(
        "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < $1 ORDER BY id LIMIT $2)",
        &[kept.audit.into(), PIECE.into()],
    )?;
    gone += sql.execute("DELETE FROM history WHERE step = 300 AND at < $1", &[kept.minutes.into()])?;
    gone += sql.execute("DELETE FROM history WHERE step = 3600 AND at < $1", &[kept.hours.into()])?;
    gone += sql.execute("DELETE FROM traffic WHERE slot < $1", &[kept.hours.into()])?;
    Ok(gone)
}

/// A place among the `places` of a group that may restart (FleetLock). Whether `holder` has one now.
///
/// # Errors
/// If the database is away or refuses.
pub fn take_place(
    sql: &mut dyn Sql,
    group: &str,
    holder: &str,
    places: i64,
    oldest: i64,
    now: i64,
) -> Result<bool> {
    // One at a time for a group: its row is locked.
    sql.execute(
        "INSERT INTO leases (name, holder, until) VALUES ($1, '', 0)
         ON CONFLICT (name) DO UPDATE SET until = excluded.until",
        &[format!("reboot {group}").into()],
    )?;
    // Whoever never came back must not block its site for ever.
    sql.execute("DELETE FROM reboot_locks WHERE site = $1 AND since < $2", &[group.into(), oldest.into()])?;
    let has = "SELECT 1 FROM reboot_locks WHERE site = $1 AND holder = $2";
    if first(sql, has, &[group.into(), holder.into()])?.is_some() {
        return Ok(true);
    }
    let taken = first(sql, "SELECT COUNT(*) FROM reboot_locks WHERE site = $1", &[group.into()])?;
    if taken.map_or(Ok(0), |row| row.int(0))? >= places {
        return Ok(false);
    }
    let statement = "INSERT INTO reboot_locks (site, holder, since) VALUES ($1, $2, $3)";
    sql.execute(statement, &[group.into(), holder.into(), now.into()])?;
    Ok(true)
}

/// Gives a place back.
///
/// # Errors
/// If the database is away or refuses.
pub fn give_place(sql: &mut dyn Sql, group: &str, holder: &str) -> Result<()> {
    sql.execute("DELETE FROM reboot_locks WHERE site = $1 AND holder = $2", &[group.into(), holder.into()])?;
    Ok(())
}
