//! Reading a plan, with the walk that reads policies.

use super::{
    Act, Action, KIND, MAX_BY, MAX_HISTORY, MAX_NODES, MAX_REASON, MAX_SITE_TURNS, MAX_STEPS, POSITIONS,
    PlanState, PlanStep, RolloutPlan,
};
use crate::API_VERSION;
use crate::json::Json;
use crate::policy::read::{Problem, Walk};
use crate::policy::{Namespace, PolicyName};

/// What a plan may say.
const KEYS: [&str; 17] = [
    "apiVersion",
    "kind",
    "policy",
    "bundleVersion",
    "previous",
    "rolledBackFrom",
    "released",
    "startedAt",
    "nodes",
    "localTime",
    "canary",
    "steps",
    "maxUnavailablePerSite",
    "siteTurns",
    "failureThreshold",
    "state",
    "history",
];

/// Reads a plan.
///
/// # Errors
/// Everything that is wrong with it.
pub(super) fn plan(tree: &Json<'_>) -> Result<RolloutPlan, Vec<Problem>> {
    Walk::whole(|walk| document(walk, tree))
}

fn document(walk: &mut Walk, json: &Json<'_>) -> Option<RolloutPlan> {
    walk.object(json)?;
    let version = walk.required(json, "apiVersion", |w, j| w.one_of(j, &[API_VERSION]));
    let kind = walk.required(json, "kind", |w, j| w.one_of(j, &[KIND]));
    version.and(kind)?;
    walk.keys(json, || KEYS.into_iter())?;
    let policy = walk.required(json, "policy", policy);
    let bundle_version = walk.required(json, "bundleVersion", Walk::parsed);
    let previous = walk.optional(json, "previous", Walk::parsed);
    let rolled_back_from = walk.optional(json, "rolledBackFrom", Walk::parsed);
    let released = walk.optional(json, "released", Walk::parsed);
    let started_at = walk.required(json, "startedAt", Walk::parsed);
    let nodes = walk.optional(json, "nodes", |w, j| w.number(j, 1..=MAX_NODES as u32)).map(u64::from);
    let local_time = walk.optional(json, "localTime", Walk::truth).unwrap_or(false);
    let canary = walk.optional(json, "canary", Walk::canary);
    let steps = walk.required(json, "steps", |w, j| {
        let steps = w.list_of(j, MAX_STEPS, step)?;
        match wrong_order(&steps, json.member("canary").is_some()) {
            Some(why) => w.rule(why),
            None => Some(steps),
        }
    });
    let max_unavailable_per_site = walk.optional(json, "maxUnavailablePerSite", Walk::amount);
    let site_turns = walk.optional(json, "siteTurns", |w, j| w.number(j, 1..=MAX_SITE_TURNS));
    let failure_threshold = walk.optional(json, "failureThreshold", Walk::parsed);
    let state = walk.required(json, "state", |w, j| {
        let word = w.one_of(j, &PlanState::ALL.map(PlanState::as_str))?;
        PlanState::ALL.into_iter().find(|state| state.as_str() == word)
    });
    let history = walk.optional(json, "history", |w, j| w.list_of(j, MAX_HISTORY, act)).unwrap_or_default();
    let (namespace, name) = policy?;
    Some(RolloutPlan {
        namespace,
        name,
        bundle_version: bundle_version?,
        previous,
        rolled_back_from,
        released,
        started_at: started_at?,
        nodes,
        local_time,
        canary,
        steps: steps?,
        max_unavailable_per_site,
        site_turns,
        failure_threshold,
        state: state?,
        history,
    })
}

/// `NAMESPACE/NAME`.
fn policy(walk: &mut Walk, json: &Json<'_>) -> Option<(Namespace, PolicyName)> {
    let text = walk.text(json)?;
    let parts = text.split_once('/').map(|(namespace, name)| (namespace.parse(), name.parse()));
    match parts {
        Some((Ok(namespace), Ok(name))) => Some((namespace, name)),
        _ => walk.rule("it must be the NAMESPACE/NAME of a policy".into()),
    }
}

fn step(walk: &mut Walk, json: &Json<'_>) -> Option<PlanStep> {
    walk.keys(json, || ["upTo", "notBefore"].into_iter())?;
    let up_to = walk.required(json, "upTo", |w, j| w.number(j, 0..=POSITIONS));
    let not_before = walk.required(json, "notBefore", Walk::parsed);
    Some(PlanStep { up_to: up_to?, not_before: not_before? })
}

fn wrong_order(steps: &[PlanStep], has_canaries: bool) -> Option<String> {
    let (Some(first), Some(last)) = (steps.first(), steps.last()) else {
        return Some("there must be at least one".into());
    };
    if last.up_to != POSITIONS {
        return Some(format!("the last one must be up to {POSITIONS}, or some nodes would never begin"));
    }
    if has_canaries != (first.up_to == 0) {
        return Some("the first one is up to 0 where there are canaries, and only there".into());
    }
    let falls = |pair: &[PlanStep]| pair[0].up_to >= pair[1].up_to || pair[0].not_before > pair[1].not_before;
    steps.windows(2).any(falls).then(|| "each must be up to more than the one before, and not sooner".into())
}

fn act(walk: &mut Walk, json: &Json<'_>) -> Option<Act> {
    walk.keys(json, || ["at", "action", "by", "reason"].into_iter())?;
    let at = walk.required(json, "at", Walk::parsed);
    let action = walk.required(json, "action", |w, j| {
        let word = w.one_of(j, &Action::ALL.map(Action::as_str))?;
        Action::ALL.into_iter().find(|action| action.as_str() == word)
    });
    let by = walk.required(json, "by", |w, j| line(w, j, MAX_BY));
    let reason = walk.required(json, "reason", |w, j| line(w, j, MAX_REASON));
    Some(Act { at: at?, action: action?, by: by?, reason: reason? })
}

/// Text that is shown to people as it is.
fn line(walk: &mut Walk, json: &Json<'_>, longest: usize) -> Option<String> {
    let text = walk.text(json)?;
    match text.chars().count() <= longest && !text.chars().any(char::is_control) {
        true => Some(text.to_owned()),
        false => walk.rule(format!("it must be one line of at most {longest} characters")),
    }
}
