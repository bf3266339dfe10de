//! Nodes: the table, one of them, its reports and packages; keys; what is in quarantine.

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use format::inventory::Inventory;
use format::status::{NodeStatus, State as NodeWord};
use serde_json::{Value, json};

use super::answer::{Query, json, next, readable};
use super::problem::{Answer, Problem};
use super::times;
use crate::app::App;
use crate::ingest::apply::{read_labels, word};
use crate::store::keys::{self, Enrollments};
use crate::store::node_state::NodeState;
use crate::store::nodes::{self, Asked, Sort, Stored};
use crate::store::{compliance, quarantine};

/// Reports on the page of a node.
const REPORTS: i64 = 50;

/// `GET /api/v1/nodes`
pub async fn list(State(app): State<App>, headers: HeaderMap, query: Query) -> Answer {
    let names = ["state", "variant", "site", "q", "policy", "bundle", "inventory", "sort", "limit", "cursor"];
    query.only(&names, &["label"])?;
    let states: Vec<String> =
        query.text("state").map(|text| text.split(',').map(str::to_owned).collect()).unwrap_or_default();
    let known = |state: &String| {
        NodeWord::ALL.iter().any(|it| word(it) == *state) || state == "silent" || state == "never-reported"
    };
    if let Some(unknown) = states.iter().find(|state| !known(state)) {
        return Err(Problem::bad_request(format!("state={unknown:?} is no state")));
    }
    let sort = match query.text("sort") {
        None => (Sort::Name, false),
        Some(text) => {
            Sort::parse(text).ok_or_else(|| Problem::bad_request(format!("sort={text:?} is no column")))?
        }
    };
    let columns = ["variant", "site", "policy", "bundle", "inventory"];
    let equal = columns.into_iter().filter_map(|name| Some((name, query.text(name)?.to_owned())));
    let limit = query.limit()?;
    let silent_before = app.silent_before();
    let asked = Asked {
        states,
        equal: equal.collect(),
        labels: query.labels()?,
        text: query.text("q").map(str::to_owned),
        silent_before,
        sort: Some(sort),
        behind: query.cursor()?,
        limit,
    };
    let page = app.store.read(move |sql| nodes::list(sql, &asked)).await?;
    let behind = next(page.rows.len(), limit, || page.rows.last().map(|(node, value)| (value, &node.id)));
    let rows: Vec<Value> = page.rows.iter().map(|(node, _)| row(node, silent_before)).collect();
    json(&headers, &json!({"items": rows, "total": page.total, "next": behind}))
}

/// A row of the table.
fn row(node: &NodeState, silent_before: i64) -> Value {
    json!({
        "node": node.id,
        "site": node.site,
        "state": effective(node, silent_before),
        "reportedState": node.state,
        "summary": node.summary,
        "variant": node.variant,
        "bundle": node.bundle,
        "policy": node.policy,
        "lastSeen": times::maybe(node.last_seen),
        "agentVersion": node.agent_version,
        "failingSince": times::maybe(node.failing_since),
        "clockOff": (node.clock_off != 0).then_some(node.clock_off),
        "quarantined": node.quarantined,
        "labels": read_labels(&node.labels),
    })
}

/// The same as `nodes::effective_state`, of a value.
fn effective(node: &NodeState, silent_before: i64) -> &str {
    match node.last_seen {
        0 => "never-reported",
        seen if seen < silent_before => "silent",
        _ => &node.state,
    }
}

/// `GET /api/v1/nodes/{id}`
pub async fn one(State(app): State<App>, Path(id): Path<String>, headers: HeaderMap, query: Query) -> Answer {
    query.only(&[], &[])?;
    let known = known(&id)?.to_owned();
    let found = app
        .store
        .read(move |sql| {
            let (Some(node), Some(key)) = (nodes::one(sql, &known)?, keys::one(sql, &known)?) else {
                return Ok(None);
            };
            let status = nodes::status(sql, &known)?;
            let reports = nodes::reports(sql, &known, None, REPORTS)?;
            Ok(Some((node, key, status, reports, compliance::of_node(sql, &known)?)))
        })
        .await?;
    let (node, key, status, reports, installed) =
        found.ok_or_else(|| Problem::not_found(format!("there is no node {id:?}")))?;
    let status = status.map(|body| readable(&body));
    let parsed = status.as_ref().and_then(|value| serde_json::from_value::<NodeStatus>(value.clone()).ok());
    let installed: Vec<Value> = installed
        .into_iter()
        .map(|it| {
            json!({
                "since": times::text(it.install.since),
                "until": (it.until != compliance::FOREVER).then(|| times::text(it.until)),
                "bundle": it.install.bundle,
                "cycle": it.install.cycle,
                "index": it.install.index,
                "inventory": Some(it.install.inventory).filter(|it| !it.is_empty()),
            })
        })
        .collect();
    let silent_before = app.silent_before();
    json(
        &headers,
        &json!({
            "node": row(&node, silent_before),
            "key": enrollment(key),
            "why": why(&node, parsed.as_ref(), silent_before),
            "restorePoint": parsed.and_then(|status| status.status.restore_point),
            "status": status,
            "reports": reports.into_iter().map(report).collect::<Vec<_>>(),
            "installed": installed,
            "metadataExpires": times::maybe(node.metadata_expires),
            "inventory": Some(node.inventory).filter(|it| !it.is_empty()),
        }),
    )
}

/// Why a node is not patched, in a sentence; none, if it is.
fn why(node: &NodeState, status: Option<&NodeStatus>, silent_before: i64) -> Option<String> {
    if node.last_seen == 0 {
        return Some("It was enrolled and has never reported: look at prestage-report.timer on it.".into());
    }
    if node.last_seen < silent_before {
        return Some(format!(
            "It has not been heard of since {}; it said then: {}",
            times::text(node.last_seen),
            node.summary
        ));
    }
    if node.state == word(&NodeWord::UpToDate) {
        return None;
    }
    let Some(status) = status else { return Some(node.summary.clone()) };
    if let Some(refused) = status.status.quarantine.first() {
        return Some(format!(
            "It refuses bundle {}: {}. {}",
            refused.bundle.version, refused.reason, refused.way_out
        ));
    }
    let next = status.status.next_fetch.as_ref().map(|it| format!(" Next: {} ({}).", it.at, it.why));
    Some(format!("{}{}", node.summary, next.unwrap_or_default()))
}

/// `GET /api/v1/nodes/{id}/reports`
pub async fn reports(
    State(app): State<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
    query: Query,
) -> Answer {
    query.only(&["limit", "cursor"], &[])?;
    let (limit, behind) = (query.limit()?, query.cursor()?);
    let known = known(&id)?.to_owned();
    let found = app
        .store
        .read(move |sql| match keys::one(sql, &known)? {
            Some(_) => nodes::reports(sql, &known, behind, limit).map(Some),
            None => Ok(None),
        })
        .await?;
    let found = found.ok_or_else(|| Problem::not_found(format!("there is no node {id:?}")))?;
    let behind = next(found.len(), limit, || found.last().map(|it| (it.at, it.id.clone())));
    json(&headers, &json!({"items": found.into_iter().map(report).collect::<Vec<_>>(), "next": behind}))
}

fn report(stored: Stored) -> Value {
    json!({"received": times::text(stored.received), "report": readable(&stored.body)})
}

/// `GET /api/v1/nodes/{id}/inventory`
pub async fn inventory(
    State(app): State<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
    query: Query,
) -> Answer {
    query.only(&["at"], &[])?;
    let now = app.now();
    let at = query.at(now)?;
    let known = known(&id)?.to_owned();
    let found = app
        .store
        .read(move |sql| {
            let Some(node) = nodes::one(sql, &known)? else { return Ok(None) };
            let digest = if at >= now {
                node.inventory
            } else {
                let intervals = compliance::of_node(sql, &known)?;
                let then = intervals.into_iter().find(|it| it.install.since <= at && at < it.until);
                then.map(|it| it.install.inventory).unwrap_or_default()
            };
            let packages = compliance::inventory(sql, &digest)?;
            Ok(Some((digest, packages)))
        })
        .await?;
    let (digest, text) = found.ok_or_else(|| Problem::not_found(format!("there is no node {id:?}")))?;
    json(
        &headers,
        &json!({
            "node": id,
            "at": times::text(at),
            "inventory": Some(digest).filter(|it| !it.is_empty()),
            "packages": text.map(|text| packages(&text)),
        }),
    )
}

/// The packages of a stored set.
pub fn packages(text: &str) -> Vec<Value> {
    let all = Inventory::from_text(text).0;
    all.iter().map(|(id, version)| json!({"name": id.name, "arch": id.arch, "version": version})).collect()
}

/// A name that can be a node's; whatever else it is, there is no such node.
pub fn known(id: &str) -> Result<&str, Problem> {
    match id.parse::<format::name::NodeId>() {
        Ok(_) => Ok(id),
        Err(why) => Err(Problem::not_found(why.to_string())),
    }
}

/// `GET /api/v1/enrollments`
pub async fn enrollments(State(app): State<App>, headers: HeaderMap, query: Query) -> Answer {
    query.only(&["limit", "cursor"], &[])?;
    let (limit, behind) = (query.limit()?, query.cursor()?);
    let found = app.store.read(move |sql| keys::list(sql, behind, limit)).await?;
    let behind = next(found.len(), limit, || found.last().map(|it| (it.since, it.node.clone())));
    let items: Vec<Value> = found.into_iter().map(enrollment).collect();
    json(&headers, &json!({"items": items, "next": behind}))
}

fn enrollment(it: Enrollments) -> Value {
    json!({
        "node": it.node,
        "keyid": it.key_id,
        "state": it.state,
        "since": times::text(it.since),
        "how": it.how,
        "revokedAt": times::maybe(it.revoked),
        "revokedWhy": Some(it.revoked_why).filter(|why| !why.is_empty()),
    })
}

/// `GET /api/v1/quarantine`
pub async fn quarantine(State(app): State<App>, headers: HeaderMap, query: Query) -> Answer {
    query.only(&["bundle", "limit", "cursor"], &[])?;
    let limit = query.limit()?;
    let behind: Option<quarantine::Behind> = query.cursor()?;
    let bundle = query.text("bundle").map(str::to_owned);
    let (items, total) =
        app.store.read(move |sql| quarantine::list(sql, bundle.as_deref(), behind.as_ref(), limit)).await?;
    let behind = next(items.len(), limit, || {
        items.last().map(|it| (it.since, it.node.clone(), it.index.clone(), it.step.clone()))
    });
    json(&headers, &json!({"items": items, "total": total, "next": behind}))
}
