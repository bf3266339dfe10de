//! The fleet in numbers, counted by the database in one walk.

use std::collections::BTreeMap;

use super::nodes::effective_state;
use super::sql::{Result, Row, Sql, first};

/// Silence is counted from so many hours on.
pub const AGES: [i64; 5] = [24, 72, 168, 336, 720];

const DAY: i64 = 86_400;

/// Numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Nodes by effective state.
    pub states: BTreeMap<String, i64>,
    /// Nodes by variant.
    pub variants: BTreeMap<String, i64>,
    /// Nodes by installed bundle.
    pub bundles: BTreeMap<String, i64>,
    /// Failing nodes by what fails.
    pub failures: BTreeMap<String, i64>,
    /// Nodes that refuse a bundle.
    pub quarantined: i64,
    /// Nodes whose clock is wrong.
    pub clock_off: i64,
    /// Bytes that nodes received today, from mirrors and from nodes of their site, and reports.
    pub today: Traffic,
    /// Who was silent longest, and when it was heard of last.
    pub oldest: Option<(String, i64)>,
    /// For each of [`AGES`], nodes that have been silent for at least so long.
    pub silent: Vec<(i64, i64)>,
    /// Keys that are revoked.
    pub revoked: i64,
    /// Keys that are registered.
    pub expected: i64,
}

/// What went over the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes from mirrors.
    pub received: i64,
    /// Bytes from nodes of the same site.
    pub from_site: i64,
    /// Reports.
    pub reports: i64,
}

/// Counts. Today is the day in UTC.
///
/// # Errors
/// If the database is away or refuses.
pub fn count(sql: &mut dyn Sql, silent_before: i64, now: i64) -> Result<Numbers> {
    let mut numbers = Numbers::default();
    let statement = format!(
        "SELECT {} AS effective, n.variant, n.bundle, n.cause, COUNT(*),
         CAST(SUM(CASE WHEN n.quarantined > 0 THEN 1 ELSE 0 END) AS BIGINT),
         CAST(SUM(CASE WHEN n.clock_off <> 0 THEN 1 ELSE 0 END) AS BIGINT)
         FROM nodes n WHERE n.key_state = 'active' GROUP BY 1, 2, 3, 4",
        effective_state(silent_before)
    );
    for mut row in sql.query(&statement, &[])? {
        let nodes = row.int(4)?;
        *numbers.states.entry(row.text(0)?).or_default() += nodes;
        *numbers.variants.entry(row.text(1)?).or_default() += nodes;
        *numbers.bundles.entry(row.text(2)?).or_default() += nodes;
        if let Some(cause) = row.maybe_text(3)? {
            *numbers.failures.entry(cause).or_default() += nodes;
        }
        numbers.quarantined += row.int(5)?;
        numbers.clock_off += row.int(6)?;
    }
    numbers.today = traffic(sql, now - now.rem_euclid(DAY), now + 1)?;
    let heard = "FROM nodes WHERE last_seen > 0 AND key_state = 'active'";
    let oldest = format!("SELECT id, last_seen {heard} ORDER BY last_seen, id LIMIT 1");
    if let Some(mut row) = first(sql, &oldest, &[])? {
        numbers.oldest = Some((row.text(0)?, row.int(1)?));
    }
    for hours in AGES {
        let statement = format!("SELECT COUNT(*) {heard} AND last_seen < $1");
        let silent = first(sql, &statement, &[(now - hours * 3600).into()])?;
        numbers.silent.push((hours, silent.map_or(Ok(0), |row| row.int(0))?));
    }
    for (state, number) in [("revoked", &mut numbers.revoked), ("expected", &mut numbers.expected)] {
        let statement = "SELECT COUNT(*) FROM nodes WHERE key_state = $1";
        *number = first(sql, statement, &[state.into()])?.map_or(Ok(0), |row| row.int(0))?;
    }
    Ok(numbers)
}

/// What went over the wire from one time to another, in whole slots of five minutes.
///
/// # Errors
/// If the database is away or refuses.
pub fn traffic(sql: &mut dyn Sql, from: i64, to: i64) -> Result<Traffic> {
    let row = first(
        sql,
        "SELECT CAST(COALESCE(SUM(received), 0) AS BIGINT), CAST(COALESCE(SUM(from_site), 0) AS BIGINT),
         CAST(COALESCE(SUM(reports), 0) AS BIGINT) FROM traffic WHERE slot >= $1 AND slot < $2",
        &[from.into(), to.into()],
    )?;
    match row {
        Some(row) => Ok(Traffic { received: row.int(0)?, from_site: row.int(1)?, reports: row.int(2)? }),
        None => Ok(Traffic::default()),
    }
}

/// Nodes that should be alike: of one variant, with one bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Their variant.
    pub variant: String,
    /// Their bundle.
    pub bundle: String,
    /// Their value of the label that was asked for.
    pub label: Option<String>,
    /// Digest of each set of packages that some of them have, and how many; largest first.
    pub sets: Vec<(String, i64)>,
}

/// The installed sets by group, larger groups first.
///
/// # Errors
/// If the database is away or refuses.
pub fn drift(sql: &mut dyn Sql, label: Option<&str>) -> Result<Vec<Group>> {
    let statement = "SELECT n.variant, n.bundle, COALESCE(l.value, ''), n.inventory, COUNT(*)
         FROM nodes n LEFT JOIN node_labels l ON l.node = n.id AND l.name = $1
         WHERE n.key_state = 'active' AND n.inventory <> ''
         GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 5 DESC, 4";
    let mut groups: Vec<Group> = Vec::new();
    for mut row in sql.query(statement, &[label.unwrap_or_default().into()])? {
        let (variant, bundle, value) = (row.text(0)?, row.text(1)?, row.text(2)?);
        let value = label.map(|_| value);
        let set = (row.text(3)?, row.int(4)?);
        match groups.last_mut() {
            Some(group) if (&group.variant, &group.bundle, &group.label) == (&variant, &bundle, &value) => {
                group.sets.push(set);
            }
            _ => groups.push(Group { variant, bundle, label: value, sets: vec![set] }),
        }
    }
    let size = |group: &Group| std::cmp::Reverse(group.sets.iter().map(|set| set.1).sum::<i64>());
    groups.sort_by_key(size);
    Ok(groups)
}

/// A row of the past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// When.
    pub at: i64,
    /// Nodes by state, a JSON object.
    pub states: String,
    /// In the time that the row stands for.
    pub traffic: Traffic,
}

/// Rows of so many seconds each, oldest first.
///
/// # Errors
/// If the database is away or refuses.
pub fn history(sql: &mut dyn Sql, step: i64, from: i64) -> Result<Vec<Past>> {
    let rows = sql.query(
        "SELECT at, states, received, from_site, reports FROM history WHERE step = $1 AND at >= $2 ORDER BY at",
        &[step.into(), from.into()],
    )?;
    let past = |mut row: Row| {
        let traffic = Traffic { received: row.int(2)?, from_site: row.int(3)?, reports: row.int(4)? };
        Ok(Past { at: row.int(0)?, states: row.text(1)?, traffic })
    };
    rows.into_iter().map(past).collect()
}

/// Writes a row; of two for the same time the first one stays.
///
/// # Errors
/// If the database is away or refuses.
pub fn remember(sql: &mut dyn Sql, step: i64, past: &Past) -> Result<()> {
    sql.execute(
        "INSERT INTO history (step, at, states, received, from_site, reports) VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (step, at) DO NOTHING",
        &[
            step.into(),
            past.at.into(),
            (&past.states).into(),
            past.traffic.received.into(),
            past.traffic.from_site.into(),
            past.traffic.reports.into(),
        ],
    )?;
    Ok(())
}
