//! Ingestion: many documents of many nodes in one transaction. When it has committed, all of them are durable; a report
//! that was there already changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::node_state::{self, NodeState};
use super::sql::{Result, Row, Sql, Value, many, places};
use super::{Store, compliance};
use crate::ingest::apply;
use crate::ingest::{Received, Said};

/// What went over the wire is kept for so many seconds each.
const SLOT: i64 = 300;

/// What became of a batch.
#[derive(Debug, Default)]
pub struct Written {
    /// Nodes that no longer count when the batch was written: their documents are not stored.
    pub unknown: BTreeSet<String>,
    /// Reports that were new.
    pub new_reports: u64,
    /// Inventories that documents of this batch name and nobody has sent.
    pub wanted: BTreeSet<String>,
}

/// Stores a batch. To do it twice is to do it once.
///
/// # Errors
/// If the database is away or refuses; then nothing is stored.
pub fn write(store: &Store, batch: &[Received]) -> Result<Written> {
    store.write_now(|sql| write_in(sql, batch))
}

fn write_in(sql: &mut dyn Sql, batch: &[Received]) -> Result<Written> {
    let ids: Vec<String> =
        batch.iter().map(|r| r.node.clone()).collect::<BTreeSet<_>>().into_iter().collect();
    let before = node_state::lock(sql, &ids)?;
    let mut nodes: BTreeMap<String, NodeState> =
        before.iter().map(|node| (node.id.clone(), node.clone())).collect();
    let unknown = ids.into_iter().filter(|id| !nodes.contains_key(id)).collect();
    let mut written = Written { unknown, ..Written::default() };
    let known: Vec<&Received> = batch.iter().filter(|r| nodes.contains_key(&r.node)).collect();

    let fresh = insert_reports(sql, &known)?;
    let mut traffic: BTreeMap<i64, (i64, i64, i64)> = BTreeMap::new();
    let mut statuses: BTreeMap<&str, &Received> = BTreeMap::new();
    let mut installs: Vec<compliance::Install> = Vec::new();
    let mut seen = BTreeSet::new();
    for received in &known {
        let Some(node) = nodes.get_mut(&received.node) else { continue };
        match &received.said {
            // Twice in one batch is once.
            Said::Report(report) => {
                if fresh.contains(&received.id) && seen.insert(received.id.as_str()) {
                    written.new_reports += 1;
                    let slot = traffic.entry(received.at - received.at.rem_euclid(SLOT)).or_default();
                    slot.0 += report.bytes_received.min(i64::MAX as u64 / 2) as i64;
                    slot.1 += report.bytes_from_site.min(i64::MAX as u64 / 2) as i64;
                    slot.2 += 1;
                    installs.extend(apply::report(node, report, received));
                }
            }
            Said::Status(status) => {
                if let Some(install) = apply::status(node, status, received) {
                    statuses.insert(&received.node, received);
                    installs.extend(install);
                }
            }
        }
    }
    let changed: Vec<&NodeState> = before
        .iter()
        .zip(nodes.values())
        .filter(|(before, after)| before != after)
        .map(|(_, after)| after)
        .collect();
    write_statuses(sql, &statuses)?;
    write_labels(sql, &before, &nodes)?;
    write_quarantine(sql, &before, &statuses)?;
    for install in &installs {
        compliance::record(sql, install)?;
    }
    for (slot, (bytes, from_site, reports)) in traffic {
        sql.execute(
            "INSERT INTO traffic (slot, received, from_site, reports) VALUES ($1, $2, $3, $4)
             ON CONFLICT (slot) DO UPDATE SET received = traffic.received + excluded.received,
             from_site = traffic.from_site + excluded.from_site, reports = traffic.reports + excluded.reports",
            &[slot.into(), bytes.into(), from_site.into(), reports.into()],
        )?;
    }
    node_state::write(sql, &changed.into_iter().cloned().collect::<Vec<_>>())?;
    written.wanted = wanted_inventories(sql, &known)?;
    Ok(written)
}

/// The ids of those reports that were not there.
fn insert_reports(sql: &mut dyn Sql, received: &[&Received]) -> Result<BTreeSet<String>> {
    let mut rows: BTreeMap<&str, Vec<Value<'_>>> = BTreeMap::new();
    for it in received {
        let Said::Report(report) = &it.said else { continue };
        let row = vec![
            (&it.id).into(),
            (&it.node).into(),
            apply::event_time(report.at.0, it.at).into(),
            it.at.into(),
            apply::word(&report.step).into(),
            apply::word(&report.outcome).into(),
            report.bundle.as_ref().map_or("", |bundle| bundle.version.as_str()).into(),
            (&it.message).into(),
            (&it.signature).into(),
        ];
        rows.insert(&it.id, row);
    }
    let rows: Vec<_> = rows.into_values().collect();
    let types = ["TEXT", "TEXT", "BIGINT", "BIGINT", "TEXT", "TEXT", "TEXT", "TEXT", "TEXT"];
    let before =
        "INSERT INTO reports (id, node, at, received, step, outcome, bundle, body, signature) VALUES";
    let fresh = many(sql, before, &types, &rows, "ON CONFLICT (id) DO NOTHING RETURNING id")?;
    fresh.into_iter().map(|mut row: Row| row.text(0)).collect()
}

fn write_statuses(sql: &mut dyn Sql, statuses: &BTreeMap<&str, &Received>) -> Result<()> {
    let rows: Vec<Vec<Value<'_>>> = statuses
        .values()
        .map(|it| {
            vec![
                (&it.node).into(),
                (&it.id).into(),
                it.at.into(),
                (&it.message).into(),
                (&it.signature).into(),
            ]
        })
        .collect();
    let before = "INSERT INTO statuses (node, id, received, body, signature) VALUES";
    let after = "ON CONFLICT (node) DO UPDATE SET id = excluded.id, received = excluded.received,
                 body = excluded.body, signature = excluded.signature";
    many(sql, before, &["TEXT", "TEXT", "BIGINT", "TEXT", "TEXT"], &rows, after)?;
    Ok(())
}

/// Writes down a node's labels one by one, for whoever filters by them.
///
/// # Errors
/// If the database is away or refuses.
pub fn replace_labels(sql: &mut dyn Sql, node: &str, labels: &BTreeMap<String, String>) -> Result<()> {
    sql.execute("DELETE FROM node_labels WHERE node = $1", &[node.into()])?;
    let rows: Vec<Vec<Value<'_>>> =
        labels.iter().map(|(name, value)| vec![node.into(), name.into(), value.into()]).collect();
    many(sql, "INSERT INTO node_labels (node, name, value) VALUES", &["TEXT", "TEXT", "TEXT"], &rows, "")?;
    Ok(())
}

fn write_labels(sql: &mut dyn Sql, before: &[NodeState], nodes: &BTreeMap<String, NodeState>) -> Result<()> {
    for (before, after) in before.iter().zip(nodes.values()) {
        if before.labels != after.labels {
            replace_labels(sql, &after.id, &apply::read_labels(&after.labels))?;
        }
    }
    Ok(())
}

fn write_quarantine(
    sql: &mut dyn Sql,
    before: &[NodeState],
    statuses: &BTreeMap<&str, &Received>,
) -> Result<()> {
    for (node, received) in statuses {
        let Said::Status(sent) = &received.said else { continue };
        let refused = &sent.status.status.quarantine;
        let had = before.iter().find(|it| it.id == **node).map_or(0, |it| it.quarantined);
        if had == 0 && refused.is_empty() {
            continue;
        }
        sql.execute("DELETE FROM quarantine WHERE node = $1", &[(*node).into()])?;
        for it in refused {
            sql.execute(
                "INSERT INTO quarantine (node, bundle_index, step, bundle, since, exit_code, reason, ends)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (node, bundle_index, step) DO NOTHING",
                &[
                    (*node).into(),
                    it.bundle.index.to_string().into(),
                    apply::word(&it.step).into(),
                    it.bundle.version.as_str().into(),
                    it.since.0.into(),
                    i64::from(it.exit_code).into(),
                    (&it.reason).into(),
                    apply::word(&it.ends).into(),
                ],
            )?;
        }
    }
    Ok(())
}

fn wanted_inventories(sql: &mut dyn Sql, received: &[&Received]) -> Result<BTreeSet<String>> {
    let mut wanted: BTreeSet<String> =
        received.iter().filter_map(|it| it.said.inventory()).map(|digest| digest.to_string()).collect();
    let named: Vec<String> = wanted.iter().cloned().collect();
    for piece in super::sql::pieces(&named) {
        let statement = format!("SELECT id FROM inventories WHERE id IN ({})", places(1, piece.len()));
        let values: Vec<Value<'_>> = piece.iter().map(Value::from).collect();
        for mut row in sql.query(&statement, &values)? {
            wanted.remove(&row.text(0)?);
        }
    }
    Ok(wanted)
}
