//! A plan as a tree.

use super::{Act, KIND, PlanStep, RolloutPlan};
use crate::API_VERSION;
use crate::json::Json;
use crate::policy::write::{amount, object, selector, text};

pub(super) fn plan(plan: &RolloutPlan) -> Json<'static> {
    let steps = plan.steps.iter().map(step).collect();
    let history = Json::Array(plan.history.iter().map(act).collect());
    object([
        ("apiVersion", Some(text(API_VERSION))),
        ("kind", Some(text(KIND))),
        ("policy", Some(text(plan.policy()))),
        ("bundleVersion", Some(text(&plan.bundle_version))),
        ("previous", plan.previous.as_ref().map(text)),
        ("rolledBackFrom", plan.rolled_back_from.as_ref().map(text)),
        ("released", plan.released.map(text)),
        ("startedAt", Some(text(plan.started_at))),
        ("nodes", plan.nodes.map(number)),
        ("localTime", plan.local_time.then_some(Json::Bool(true))),
        ("canary", plan.canary.as_ref().map(selector)),
        ("steps", Some(Json::Array(steps))),
        ("maxUnavailablePerSite", plan.max_unavailable_per_site.map(amount)),
        ("siteTurns", plan.site_turns.map(|n| number(n.into()))),
        ("failureThreshold", plan.failure_threshold.map(text)),
        ("state", Some(text(plan.state))),
        ("history", (!plan.history.is_empty()).then_some(history)),
    ])
}

fn step(step: &PlanStep) -> Json<'static> {
    object([("upTo", Some(number(step.up_to.into()))), ("notBefore", Some(text(step.not_before)))])
}

fn act(act: &Act) -> Json<'static> {
    object([
        ("at", Some(text(act.at))),
        ("action", Some(text(act.action.as_str()))),
        ("by", Some(text(&act.by))),
        ("reason", Some(text(&act.reason))),
    ])
}

fn number(n: u64) -> Json<'static> {
    i64::try_from(n).map_or(Json::Large(n), Json::Integer)
}
