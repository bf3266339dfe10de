//! status.json and its faces: JSON for machines, text for people, metrics for Prometheus.
//!
//! Written after every step, replaced whole. Each step changes its own part and leaves the others as they were; nothing
//! is ever decided by what stands here.

mod check;
mod prometheus;

pub use check::check;

use std::path::PathBuf;

use format::API_VERSION;
use format::json::Json;
use format::report::Step;
use format::status::{KIND, Metadata, NodeStatus, State, Status, StepStatus};
use minijinja::Value;

use crate::error::{Error, Result, one_line};
use crate::node::Node;

/// The largest status that is read back.
const MAX_STATUS: u64 = 16 * 1024 * 1024;

/// The status as the last step left it, or the first one ever.
pub fn load(node: &Node) -> NodeStatus {
    let mut status = host::file::read_limited(&path(node), MAX_STATUS)
        .ok()
        .flatten()
        .and_then(|bytes| {
            NodeStatus::parse(&bytes).map_err(|e| log::warn!("status.json is begun anew: {e}")).ok()
        })
        .unwrap_or_else(|| empty(node));
    // Who this is comes from the configuration, not from the past.
    status.metadata = Metadata { name: node.id.clone(), labels: node.settings.labels.clone() };
    status.status.variant = node.variant.clone();
    status.status.agent_version = env!("CARGO_PKG_VERSION").into();
    status
}

fn empty(node: &Node) -> NodeStatus {
    NodeStatus {
        api_version: API_VERSION.into(),
        kind: KIND.into(),
        metadata: Metadata { name: node.id.clone(), labels: node.settings.labels.clone() },
        status: Status {
            updated_at: node.now(),
            agent_version: env!("CARGO_PKG_VERSION").into(),
            variant: node.variant.clone(),
            state: State::Unknown,
            summary: "prestage has not run yet".into(),
            fetch: None,
            install: None,
            plan: None,
            installed: None,
            policy: None,
            rollout: None,
            quarantine: Vec::new(),
            metadata_expires: None,
            reboot_required: false,
            reports_queued: 0,
            fleet: None,
            next_fetch: None,
            mirrors_aside: Vec::new(),
            transfer: None,
            peers_aside: Vec::new(),
            restore_point: None,
            healed: std::collections::BTreeMap::new(),
        },
    }
}

/// Writes status.json and the metrics.
///
/// # Errors
/// If they cannot be written.
pub fn save(node: &Node, status: &mut NodeStatus) -> Result<()> {
    status.status.updated_at = node.now();
    status.status.fleet = crate::fleet::standing(node);
    status.status.reports_queued = crate::queue::files(node).len() as u64;
    let json = format::json::pretty(status).map_err(|e| Error::io("status", &e.into()))?;
    let metrics = prometheus::render(status);
    // What root writes must stay replaceable by the fetch step's user. The metrics are made of the status at the next step.
    let like = node.fetched("");
    host::file::rewrite_like(&node.state().join("prestage.prom"), metrics.as_bytes(), 0o644, &like)?;
    host::file::replace_like(&path(node), &json, 0o644, &like)?;
    Ok(())
}

/// Whether it says something else of this node's reports than is so now.
pub fn reports_differ(node: &Node, status: &NodeStatus) -> bool {
    let (fleet, queued) = (crate::fleet::standing(node), crate::queue::files(node).len() as u64);
    (&fleet, queued) != (&status.status.fleet, status.status.reports_queued)
}

/// The status for people, by the template `status.txt`.
///
/// # Errors
/// If the operator's template is wrong.
pub fn text(node: &Node, status: &NodeStatus) -> Result<String> {
    let json = serde_json::to_vec(&status.status).map_err(|e| Error::io("status", &e.into()))?;
    let json = Json::parse(&json).map_err(|e| Error::io("status", &std::io::Error::other(e)))?;
    let mut values = vec![("node".into(), Value::from(status.metadata.name.as_str()))];
    if let Json::Object(fields) = json {
        values.extend(fields.into_iter().map(|(name, value)| (name, printable(&value))));
    }
    node.renderer().render("status.txt", Value::from_pairs(values))
}

/// A value for the template, every text of it one line: the status belongs to the fetch user, and is shown to root.
fn printable(value: &Json<'_>) -> Value {
    match value {
        Json::Null => Value::from(()),
        Json::Bool(truth) => Value::from(*truth),
        Json::Integer(number) => Value::from(*number),
        Json::Large(number) => Value::from(*number),
        Json::String(text) => Value::from(one_line(text)),
        Json::Array(items) => items.iter().map(printable).collect(),
        Json::Object(fields) => {
            Value::from_pairs(fields.iter().map(|(name, value)| (name.clone(), printable(value))))
        }
    }
}

/// One line for a step that ended.
pub fn set_step(status: &mut NodeStatus, step: StepStatus) {
    match step.step {
        Step::Fetch => status.status.fetch = Some(step),
        Step::Install => status.status.install = Some(step),
    }
}

fn path(node: &Node) -> PathBuf {
    node.state().join("status.json")
}
