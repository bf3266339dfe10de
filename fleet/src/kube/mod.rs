//! PatchPolicies that a Kubernetes API server keeps: what stands in their status. Pure; [`bridge`] asks and writes.
//!
//! A status is about what is published, as the fleet server has heard of it, and says so: it counts as observed only where
//! the published policy is the object's, byte for byte in canonical form. Publishing is not done from here: whoever may
//! write objects in a cluster has no key that a node believes.

#[cfg(feature = "kube")]
pub mod bridge;

use format::digest::Sha256;
use format::policy::PatchPolicy;
use format::rollout::RolloutPlan;
use format::time::UnixTime;
use serde_json::{Map, Value, json};

/// What the fleet server says of a policy.
#[derive(Clone, Copy, Debug)]
pub enum Heard<'a> {
    /// It could not be asked, for this reason.
    Away(&'a str),
    /// No such policy is published.
    Nothing,
    /// How its rollout goes, as `GET /api/v1/rollouts` has it.
    Rollout(&'a Value),
}

/// Counts of nodes in a status, and of which counts of a batch each is the sum.
const COUNTS: [(&str, &[&str]); 7] = [
    ("nodes", &["nodes"]),
    ("waiting", &["waiting"]),
    ("staged", &["staged", "installing"]),
    ("installed", &["installed"]),
    ("failed", &["failed"]),
    ("rolledBack", &["rolledBack"]),
    ("silent", &["silent"]),
];

/// A condition, but for its time. It always says something: API servers before 1.21 take an empty message for none.
struct Condition {
    kind: &'static str,
    status: &'static str,
    reason: &'static str,
    message: String,
}

/// The status that an object is to have, out of what it is, has and what was heard; the one that it has where nothing
/// changes. Times of conditions are those of their last change.
pub fn status(object: &Value, heard: Heard<'_>, now: UnixTime) -> Value {
    let old = &object["status"];
    let (mut new, conditions) = match heard {
        // What was known of it stays, but nobody should believe that it is so now.
        Heard::Away(why) => {
            let known = old.as_object().cloned().unwrap_or_default();
            (known, vec![ready("Unknown", "FleetServerAway", why.into())])
        }
        Heard::Nothing => (Map::new(), unpublished(object)),
        Heard::Rollout(rollout) => published(object, rollout),
    };
    if !new.contains_key("observedGeneration")
        && let Some(generation) = old.get("observedGeneration")
    {
        new.insert("observedGeneration".into(), generation.clone());
    }
    let mut conditions = with_times(&old["conditions"], conditions, now);
    if matches!(heard, Heard::Away(_)) {
        let had = old["conditions"].as_array().into_iter().flatten();
        conditions.extend(had.filter(|it| it["type"] != "Ready").cloned());
    }
    new.insert("conditions".into(), Value::Array(conditions));
    Value::Object(new)
}

/// Nothing is published of it: perhaps because it cannot be.
fn unpublished(object: &Value) -> Vec<Condition> {
    match own(object) {
        Ok(_) => {
            vec![ready(
                "False",
                "NotPublished",
                "no such policy is published: prestage-build policy publish".into(),
            )]
        }
        Err(why) => vec![ready("False", "Invalid", why)],
    }
}

fn published(object: &Value, rollout: &Value) -> (Map<String, Value>, Vec<Condition>) {
    let text = |key: &str| rollout[key].as_str().unwrap_or_default();
    let (bundle, state) = (text("bundle"), text("state"));
    let plan = serde_json::to_vec(&rollout["plan"]).ok().and_then(|plan| RolloutPlan::from_json(&plan).ok());
    let counts = COUNTS.map(|(name, parts)| (name, sum(rollout, parts)));
    let of = |wanted: &str| counts.iter().find(|(name, _)| *name == wanted).map_or(0, |(_, count)| *count);
    let (nodes, installed, bad) = (of("nodes"), of("installed"), of("failed") + of("rolledBack"));
    let mut summary = format!("{installed} of {nodes} nodes have bundle {bundle}");
    if bad > 0 {
        summary += &format!(", {bad} failed");
    }
    let why = match text("reason") {
        "" => String::new(),
        reason => format!(" by {}: {reason}", text("by")),
    };
    if ["halted", "paused"].contains(&state) {
        summary += &format!("; {state}{why}");
    }
    let standing = match own(object) {
        Err(why) => Err(("Invalid", format!("{why}; what was published before stays"))),
        Ok(policy) => is_published(policy, rollout, plan.as_ref()),
    };
    let mut out = Map::new();
    out.insert("state".into(), json!(state));
    out.insert("summary".into(), json!(summary));
    out.extend(counts.map(|(name, count)| (name.to_owned(), json!(count))));
    let is_ready = match &standing {
        Err((reason, why)) => ready("False", reason, why.clone()),
        Ok(()) => match state {
            "done" => ready("True", "Done", summary),
            "paused" => ready("False", "Paused", summary),
            "halted" => ready("False", "Halted", summary),
            "running" => ready("False", "Running", summary),
            _ => ready("False", "Unplanned", summary),
        },
    };
    if standing.is_ok() {
        out.insert("observedGeneration".into(), object["metadata"]["generation"].clone());
    }
    let truth = |is: bool| if is { "True" } else { "False" };
    let halted = state == "halted";
    let stuck = text("stuck");
    let degraded = match (bad, stuck) {
        (0, "") => ("AsExpected", "no node failed".to_owned()),
        (0, why) => ("Stuck", why.to_owned()),
        (bad, why) => (
            "NodesFailed",
            format!("{bad} of {nodes} nodes failed or were rolled back. {why}").trim_end().into(),
        ),
    };
    let conditions = vec![
        is_ready,
        Condition {
            kind: "Halted",
            status: truth(halted),
            reason: if halted { "Halted" } else { "NotHalted" },
            message: if halted { format!("halted{why}") } else { "it was not halted".into() },
        },
        Condition {
            kind: "Degraded",
            status: truth(degraded.0 != "AsExpected"),
            reason: degraded.0,
            message: degraded.1,
        },
    ];
    (out, conditions)
}

/// Whether what is published is this policy; otherwise why not, in one word and in words.
fn is_published(
    mut policy: PatchPolicy,
    rollout: &Value,
    plan: Option<&RolloutPlan>,
) -> Result<(), (&'static str, String)> {
    let version = &policy.bundle.version;
    if let Some(plan) = plan.filter(|plan| plan.rolled_back_from.as_ref() == Some(version)) {
        let by = plan.last_control().map(|act| format!(" by {}: {}", act.by, act.reason)).unwrap_or_default();
        return Err((
            "RolledBack",
            format!("bundle {version} was taken back to {}{by}", plan.bundle_version),
        ));
    }
    // A release on the published repository is beside what the object says.
    if let Some(before) = plan.filter(|plan| plan.is_of(&policy)).and_then(|plan| plan.released) {
        let released = policy.release.entry(version.clone()).or_insert(before);
        *released = before.max(*released);
    }
    let digest = Sha256::of(&policy.to_json()).to_string();
    match rollout["policySha256"].as_str() == Some(digest.as_str()) {
        true => Ok(()),
        false => {
            let bundle = rollout["bundle"].as_str().unwrap_or_default();
            let why =
                format!("another state of this policy is published, with bundle {bundle}: publish it again");
            Err(("AnotherPublished", why))
        }
    }
}

/// The object as a policy.
fn own(object: &Value) -> Result<PatchPolicy, String> {
    let metadata = &object["metadata"];
    let document = json!({
        "apiVersion": object["apiVersion"],
        "kind": object["kind"],
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
        "spec": object["spec"],
    });
    PatchPolicy::from_json(document.to_string().as_bytes()).map_err(|why| why.to_string())
}

fn sum(rollout: &Value, parts: &[&str]) -> u64 {
    let batches = rollout["batches"].as_array().map(Vec::as_slice).unwrap_or_default();
    batches.iter().flat_map(|batch| parts.iter().map(|part| batch[*part].as_u64().unwrap_or(0))).sum()
}

fn ready(status: &'static str, reason: &'static str, message: String) -> Condition {
    Condition { kind: "Ready", status, reason, message }
}

/// Conditions as an object has them; one whose status stays keeps its time.
fn with_times(old: &Value, conditions: Vec<Condition>, now: UnixTime) -> Vec<Value> {
    let had = old.as_array().map(Vec::as_slice).unwrap_or_default();
    let one = |condition: Condition| {
        let before = had.iter().find(|it| it["type"] == condition.kind && it["status"] == condition.status);
        let since = before.map_or_else(|| json!(now.to_string()), |it| it["lastTransitionTime"].clone());
        json!({
            "type": condition.kind,
            "status": condition.status,
            "reason": condition.reason,
            "message": condition.message,
            "lastTransitionTime": since,
        })
    };
    conditions.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests;
