//! The fleet in numbers, now and over time, and where nodes that should be alike are not.

use axum::extract::State;
use axum::http::HeaderMap;
use serde_json::{Map, Value, json};

use super::answer::{Query, json, json_tagged};
use super::problem::{Answer, Problem};
use super::times;
use crate::app::{App, Shared};
use crate::store::summary::{self, Past};

/// Rows of five minutes are given for so many hours; beyond that, hours.
const FINE_HOURS: i64 = 48;

/// The longest history, in hours.
const MAX_HOURS: i64 = 9600;

/// Sets of a group that are shown.
const MAX_SETS: usize = 20;

/// `GET /api/v1/summary`
pub async fn summary(State(app): State<App>, headers: HeaderMap, query: Query) -> Answer {
    query.only(&[], &[])?;
    let mut value = of(&app).await?;
    // The time alone is no news.
    let content = serde_json::to_vec(&value).map_err(Problem::internal)?;
    value["at"] = times::text(app.now()).into();
    json_tagged(&headers, &value, Some(&content))
}

/// The summary but for its time: also what browsers are told.
///
/// # Errors
/// If the database is away.
pub async fn of(app: &Shared) -> Result<Value, Problem> {
    let numbers = app.numbers().await?;
    let published = app.published();
    let list = |name: &str, map: &std::collections::BTreeMap<String, i64>| -> Vec<Value> {
        map.iter().map(|(key, nodes)| json!({name: key, "nodes": nodes})).collect()
    };
    let silent_before = app.silent_before();
    let oldest = numbers.oldest.as_ref().filter(|(_, seen)| *seen < silent_before);
    Ok(json!({
        "total": numbers.states.values().sum::<i64>(),
        "states": numbers.states,
        "variants": list("variant", &numbers.variants),
        "bundles": list("bundle", &numbers.bundles),
        "bytesToday": {"received": numbers.today.received, "fromSite": numbers.today.from_site},
        "reportsToday": numbers.today.reports,
        "failures": list("cause", &numbers.failures),
        "oldestSilence": oldest.map(|(node, seen)| json!({"node": node, "lastSeen": times::text(*seen)})),
        "silentByAge": numbers.silent.iter()
            .map(|(hours, nodes)| json!({"hours": hours, "nodes": nodes})).collect::<Vec<_>>(),
        "metadata": app.settings.repository.as_ref()
            .map(|_| json!({"expires": published.expires.map(times::text), "problem": published.problem})),
        "quarantined": numbers.quarantined,
        "clockOff": numbers.clock_off,
        "stuckRollouts": published.stuck(),
        "revoked": numbers.revoked,
        "expected": numbers.expected,
    }))
}

/// `GET /api/v1/summary/history`
pub async fn history(State(app): State<App>, headers: HeaderMap, query: Query) -> Answer {
    query.only(&["hours"], &[])?;
    let hours = query.number("hours", 1, MAX_HOURS, 24)?;
    let from = app.now() - hours * 3600;
    let step = if hours <= FINE_HOURS { 300 } else { 3600 };
    let rows = app.store.read(move |sql| summary::history(sql, step, from)).await?;
    let row = |past: Past| -> Value {
        let states: Map<String, Value> = serde_json::from_str(&past.states).unwrap_or_default();
        json!({
            "at": times::text(past.at),
            "states": states,
            "bytes": {"received": past.traffic.received, "fromSite": past.traffic.from_site},
            "reports": past.traffic.reports,
        })
    };
    json(&headers, &json!({"rows": rows.into_iter().map(row).collect::<Vec<_>>()}))
}

/// `GET /api/v1/drift`
pub async fn drift(State(app): State<App>, headers: HeaderMap, query: Query) -> Answer {
    query.only(&["label"], &[])?;
    let label = query.text("label").map(str::to_owned);
    let groups = app.store.read(move |sql| summary::drift(sql, label.as_deref())).await?;
    let group = |group: summary::Group| -> Value {
        let sets: Vec<Value> = group
            .sets
            .iter()
            .take(MAX_SETS)
            .map(|(inventory, nodes)| json!({"inventory": inventory, "nodes": nodes}))
            .collect();
        json!({
            "variant": group.variant,
            "bundle": group.bundle,
            "label": group.label,
            "nodes": group.sets.iter().map(|set| set.1).sum::<i64>(),
            "sets": sets,
        })
    };
    json(&headers, &json!({"items": groups.into_iter().map(group).collect::<Vec<_>>()}))
}
