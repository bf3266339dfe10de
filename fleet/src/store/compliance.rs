//! What was installed on which node from when to when.
//!
//! An interval of a node begins with an install and ends with the next one. Reports may come in any order: one that comes late
//! is put where it belongs. So "which bundle had node X on date D" is one interval, found by an index.

use super::sql::{Result, Row, Sql, Value, first};

/// The end of an interval that has none yet: 9999-12-31T23:59:59Z, the last moment of RFC 3339.
pub const FOREVER: i64 = 253_402_300_799;

/// Something was installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Install {
    /// Where.
    pub node: String,
    /// When.
    pub since: i64,
    /// Version of the bundle.
    pub bundle: String,
    /// Its cycle.
    pub cycle: String,
    /// Digest of its index.
    pub index: String,
    /// Digest of the installed set afterwards; empty: not known.
    pub inventory: String,
}

/// Puts an install where it belongs. Twice is once.
///
/// # Errors
/// If the database is away or refuses.
pub fn record(sql: &mut dyn Sql, install: &Install) -> Result<()> {
    let node = Value::from(&install.node);
    let before = first(
        sql,
        "SELECT since, until, bundle_index, inventory FROM installs WHERE node = $1 AND since <= $2
         ORDER BY since DESC LIMIT 1",
        &[node.clone(), install.since.into()],
    )?;
    let mut since = install.since;
    let until = match before {
        Some(mut row) => {
            let (began, until, index, inventory) = (row.int(0)?, row.int(1)?, row.text(2)?, row.text(3)?);
            if index == install.index && (install.inventory.is_empty() || install.inventory == inventory) {
                return Ok(());
            }
            if index == install.index && (inventory.is_empty() || began == since) {
                let changed = [(&install.inventory).into(), node, began.into()];
                let statement = "UPDATE installs SET inventory = $1 WHERE node = $2 AND since = $3";
                return sql.execute(statement, &changed).map(drop);
            }
            // Two installs of one second: one after the other.
            if began == since {
                since += 1;
                if since >= until {
                    return Ok(());
                }
            }
            let ended = [since.into(), node.clone(), began.into()];
            sql.execute("UPDATE installs SET until = $1 WHERE node = $2 AND since = $3", &ended)?;
            until
        }
        None => {
            let next = "SELECT MIN(since) FROM installs WHERE node = $1 AND since > $2";
            let next = first(sql, next, &[node.clone(), since.into()])?;
            next.map_or(Ok(None), |row| row.maybe_int(0))?.unwrap_or(FOREVER)
        }
    };
    sql.execute(
        "INSERT INTO installs (node, since, until, bundle, cycle, bundle_index, inventory)
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (node, since) DO NOTHING",
        &[
            node,
            since.into(),
            until.into(),
            (&install.bundle).into(),
            (&install.cycle).into(),
            (&install.index).into(),
            (&install.inventory).into(),
        ],
    )?;
    Ok(())
}

/// What one node had from when to when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interval {
    /// What.
    pub install: Install,
    /// Until when; [`FOREVER`]: it still has it.
    pub until: i64,
}

/// All intervals of a node, newest first, at most 200.
///
/// # Errors
/// If the database is away or refuses.
pub fn of_node(sql: &mut dyn Sql, node: &str) -> Result<Vec<Interval>> {
    let rows = sql.query(
        "SELECT since, until, bundle, cycle, bundle_index, inventory FROM installs WHERE node = $1
         ORDER BY since DESC LIMIT 200",
        &[node.into()],
    )?;
    let interval = |mut row: Row| {
        let install = Install {
            node: node.to_owned(),
            since: row.int(0)?,
            bundle: row.text(2)?,
            cycle: row.text(3)?,
            index: row.text(4)?,
            inventory: row.text(5)?,
        };
        Ok(Interval { install, until: row.int(1)? })
    };
    rows.into_iter().map(interval).collect()
}

/// A node at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Which.
    pub node: String,
    /// Its site.
    pub site: String,
    /// Its variant.
    pub variant: String,
    /// What it had; nothing of ours was installed before.
    pub had: Option<Install>,
    /// Outcome of its last report until then, and when; empty and 0: there was none.
    pub outcome: String,
    /// See there.
    pub outcome_at: i64,
}

/// Which nodes.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// At which time.
    pub at: i64,
    /// Only this node.
    pub node: Option<String>,
    /// Only those with all of these labels.
    pub labels: Vec<(String, String)>,
    /// Only those behind this one, in the order of ids.
    pub after: String,
    /// So many.
    pub limit: i64,
}

/// Nodes that were enrolled and not revoked at that time, in the order of their ids.
///
/// # Errors
/// If the database is away or refuses.
pub fn at(sql: &mut dyn Sql, asked: &Asked) -> Result<Vec<Line>> {
    let mut statement = String::from(
        "SELECT n.id, n.site, n.variant, i.since, i.bundle, i.cycle, i.bundle_index, i.inventory,
         (SELECT r.outcome FROM reports r WHERE r.node = n.id AND r.at <= $1 ORDER BY r.at DESC, r.id DESC LIMIT 1),
         (SELECT r.at FROM reports r WHERE r.node = n.id AND r.at <= $1 ORDER BY r.at DESC, r.id DESC LIMIT 1)
         FROM nodes n LEFT JOIN installs i ON i.node = n.id AND i.since <= $1 AND i.until > $1
         WHERE n.key_state <> 'expected' AND n.enrolled <= $1 AND (n.revoked = 0 OR n.revoked > $1) AND n.id > $2",
    );
    let mut values: Vec<Value<'_>> = vec![asked.at.into(), (&asked.after).into()];
    if let Some(node) = &asked.node {
        values.push(node.into());
        statement += &format!(" AND n.id = ${}", values.len());
    }
    for (name, value) in &asked.labels {
        values.extend([Value::from(name), Value::from(value)]);
        let (name, value) = (values.len() - 1, values.len());
        statement += &format!(
            " AND EXISTS (SELECT 1 FROM node_labels l WHERE l.node = n.id AND l.name = ${name} AND l.value = ${value})"
        );
    }
    values.push(asked.limit.into());
    statement += &format!(" ORDER BY n.id LIMIT ${}", values.len());
    let rows = sql.query(&statement, &values)?;
    rows.into_iter().map(line).collect()
}

fn line(mut row: Row) -> Result<Line> {
    let node = row.text(0)?;
    let had = match row.maybe_int(3)? {
        None => None,
        Some(since) => Some(Install {
            node: node.clone(),
            since,
            bundle: row.text(4)?,
            cycle: row.text(5)?,
            index: row.text(6)?,
            inventory: row.text(7)?,
        }),
    };
    Ok(Line {
        node,
        site: row.text(1)?,
        variant: row.text(2)?,
        had,
        outcome: row.text(8)?,
        outcome_at: row.int(9)?,
    })
}

/// A set of installed packages: `NAME ARCH VERSION` lines, as `format::inventory` writes them.
///
/// # Errors
/// If the database is away or refuses.
pub fn inventory(sql: &mut dyn Sql, id: &str) -> Result<Option<String>> {
    match first(sql, "SELECT packages FROM inventories WHERE id = $1", &[id.into()])? {
        Some(mut row) => row.text(0).map(Some),
        None => Ok(None),
    }
}

/// Stores a set of installed packages; whether it is new.
///
/// # Errors
/// If the database is away or refuses.
pub fn store_inventory(sql: &mut dyn Sql, id: &str, packages: &str, count: i64, now: i64) -> Result<bool> {
    let statement = "INSERT INTO inventories (id, received, packages, count) VALUES ($1, $2, $3, $4)
                     ON CONFLICT (id) DO NOTHING";
    Ok(sql.execute(statement, &[id.into(), now.into(), packages.into(), count.into()])? == 1)
}

/// Whether some node that counts says that it has this set.
///
/// # Errors
/// If the database is away or refuses.
pub fn is_wanted(sql: &mut dyn Sql, node: &str, id: &str) -> Result<bool> {
    let of_node = "SELECT 1 FROM nodes WHERE id = $1 AND inventory = $2
                   UNION ALL SELECT 1 FROM installs WHERE node = $1 AND inventory = $2 LIMIT 1";
    Ok(first(sql, of_node, &[node.into(), id.into()])?.is_some())
}
