//! What a document means for what is known of its node. Pure.
//!
//! **Whose clock.** A node's clock may be wrong, and a report may be days under way. Of two statuses the one that the node sent
//! later, by its own clock, counts: one that is older or the same again is a replay and changes nothing, not even when the
//! node was last heard of. Only where the server's own record lies more than a day in the future was that clock wrong, and
//! then what comes now counts. What a report says happened when the node says, but never after it came.

use std::collections::BTreeMap;

use format::envelope::{SITE_LABEL, SentStatus};
use format::report::{BundleRef, Outcome, Report, Step};

use super::Received;
use crate::store::compliance::Install;
use crate::store::node_state::NodeState;

/// Beyond this a node's clock is worth a word.
pub const CLOCK_TOLERANCE: i64 = 5 * 60;

/// Beyond this a node's clock is not believed.
const CLOCK_LIE: i64 = 86_400;

/// A word as it is written in JSON: of an enumeration without content.
pub fn word<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// When something was that a node says was at `claimed`, and that was heard of at `received`.
pub fn event_time(claimed: i64, received: i64) -> i64 {
    // A moment that no calendar has would break every sort.
    claimed.max(0).min(received)
}

/// A node's labels as they are stored.
pub fn write_labels(labels: &BTreeMap<String, String>) -> String {
    serde_json::to_string(labels).unwrap_or_else(|_| "{}".into())
}

/// What [`write_labels`] wrote.
pub fn read_labels(text: &str) -> BTreeMap<String, String> {
    serde_json::from_str(text).unwrap_or_default()
}

/// A report that is new. What was installed by it, if anything was.
pub fn report(node: &mut NodeState, report: &Report, received: &Received) -> Option<Install> {
    let at = event_time(report.at.0, received.at);
    touch(node, received, at);
    if at >= node.outcome_at {
        let bundle = report.bundle.as_ref().map(|bundle| bundle.version.to_string()).unwrap_or_default();
        // A node that failed says at each run that it refuses that bundle now: it is still the failure that counts.
        let is_still_that = node.failing_since != 0
            && node.outcome_bundle == bundle
            && matches!(report.outcome, Outcome::Deferred | Outcome::Staged)
            && !ends_failure(node, report);
        if !is_still_that {
            node.outcome = word(&report.outcome);
            node.outcome_bundle = bundle;
        }
        node.outcome_at = at;
        if is_failure(report.outcome) {
            if node.failing_since == 0 {
                node.failing_since = at;
            }
            node.cause = word(&report.outcome);
        } else if ends_failure(node, report) {
            node.failing_since = 0;
            node.cause = String::new();
        }
        if let Some(inventory) = &report.inventory {
            node.inventory = inventory.to_string();
        }
    }
    let bundle = report.bundle.as_ref()?;
    let installed = report.step == Step::Install && report.outcome == Outcome::Installed;
    if !installed {
        return None;
    }
    if at >= node.bundle_at {
        node.bundle = bundle.version.to_string();
        node.bundle_index = bundle.index.to_string();
        node.bundle_at = at;
    }
    Some(install(node, at, bundle, report.inventory.map(|i| i.to_string()).unwrap_or_default()))
}

/// What a report is about ended badly.
pub fn is_failure(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Staged | Outcome::Installed | Outcome::UpToDate | Outcome::Deferred => false,
        Outcome::IntegrityFailure
        | Outcome::TrustFailure
        | Outcome::InstallFailed
        | Outcome::RolledBack
        | Outcome::NeedsPerson => true,
    }
}

/// A fetch that goes well does not heal an install that failed; a deferral heals nothing.
fn ends_failure(node: &NodeState, report: &Report) -> bool {
    match report.outcome {
        Outcome::Installed | Outcome::UpToDate => true,
        Outcome::Staged => {
            [Outcome::IntegrityFailure, Outcome::TrustFailure].iter().any(|failed| node.cause == word(failed))
        }
        _ => false,
    }
}

/// A status. `None` if it changes nothing: a newer one is known. Otherwise what it shows to be installed, where that was
/// not known.
pub fn status(node: &mut NodeState, sent: &SentStatus, received: &Received) -> Option<Vec<Install>> {
    let clock = sent.sent_at.0.max(0);
    let was_wrong = node.sent > received.at + CLOCK_LIE;
    if clock <= node.sent && !was_wrong {
        return None;
    }
    let said = &sent.status.status;
    node.sent = clock;
    let off = clock - received.at;
    if !received.carried {
        node.clock_off = if off.abs() > CLOCK_TOLERANCE { off } else { 0 };
    }
    touch(node, received, clock.min(received.at));
    let labels = &sent.status.metadata.labels;
    node.labels = write_labels(labels);
    node.site = labels.get(SITE_LABEL).cloned().unwrap_or_default();
    node.variant = said.variant.to_string();
    node.state = word(&said.state);
    node.summary.clone_from(&said.summary);
    node.policy = said.policy.clone().unwrap_or_default();
    node.agent_version.clone_from(&said.agent_version);
    node.metadata_expires = said.metadata_expires.map_or(0, |time| time.0);
    node.quarantined = said.quarantine.len() as i64;
    let staged = said.plan.as_ref().filter(|plan| plan.complete);
    node.staged = staged.map(|plan| plan.bundle.version.to_string()).unwrap_or_default();
    let Some(installed) = &said.installed else {
        return Some(Vec::new());
    };
    let (index, inventory) = (installed.bundle.index.to_string(), installed.inventory.to_string());
    if node.bundle_index == index {
        return Some(Vec::new());
    }
    // What it says is older than what is known: it went back, and when it did is no later than now.
    let at = event_time(installed.at.0, received.at);
    let at = if at <= node.bundle_at { clock.min(received.at).max(node.bundle_at + 1) } else { at };
    node.bundle = installed.bundle.version.to_string();
    node.bundle_index = index;
    node.bundle_at = at;
    if node.inventory.is_empty() || at >= node.outcome_at {
        node.inventory.clone_from(&inventory);
    }
    let found = install(node, at, &installed.bundle, inventory);
    Some(vec![found])
}

fn install(node: &NodeState, at: i64, bundle: &BundleRef, inventory: String) -> Install {
    Install {
        node: node.id.clone(),
        since: at,
        bundle: bundle.version.to_string(),
        cycle: bundle.cycle.to_string(),
        index: bundle.index.to_string(),
        inventory,
    }
}

/// It was heard of: now, or when what was carried here was written.
fn touch(node: &mut NodeState, received: &Received, written: i64) {
    let seen = if received.carried { written } else { received.at };
    node.last_seen = node.last_seen.max(seen);
    node.changed = received.at * 1000;
}

#[cfg(test)]
mod tests;
