//! A policy as a tree, with everything that has a default written out, so that it has one form.

use std::borrow::Cow;

use super::{Amount, KIND, PatchPolicy, Rollback, Rollout, RolloutType, Schedule, Selector, Transfer};
use crate::API_VERSION;
use crate::json::Json;
use crate::policy::selector::{Expression, Operator};
use crate::window::Window;

pub(super) fn policy(policy: &PatchPolicy) -> Json<'static> {
    object([
        ("apiVersion", Some(text(API_VERSION))),
        ("kind", Some(text(KIND))),
        (
            "metadata",
            Some(object([("name", Some(text(&policy.name))), ("namespace", Some(text(&policy.namespace)))])),
        ),
        ("spec", Some(spec(policy))),
    ])
}

fn spec(policy: &PatchPolicy) -> Json<'static> {
    let bundle = object([
        ("version", Some(text(&policy.bundle.version))),
        ("checksum", policy.bundle.checksum.as_ref().map(|c| text(c))),
    ]);
    let release = policy
        .release
        .iter()
        .map(|(version, before)| object([("version", Some(text(version))), ("before", Some(text(before)))]));
    let quarantine = object([("release", Some(Json::Array(release.collect())))]);
    object([
        ("bundleRef", Some(bundle)),
        ("targets", Some(object([("selector", Some(selector(&policy.selector)))]))),
        ("schedule", policy.schedule.as_ref().map(|s| schedule(s, "maintenanceWindow"))),
        ("rolloutStrategy", policy.rollout.as_ref().map(rollout)),
        ("rollback", policy.rollback.as_ref().map(rollback)),
        ("transfer", policy.transfer.as_ref().map(transfer)),
        ("reboot", policy.reboot.map(|r| text(r.as_str()))),
        ("quarantine", (!policy.release.is_empty()).then_some(quarantine)),
        ("paused", policy.paused.then_some(Json::Bool(true))),
    ])
}

pub(crate) fn selector(selector: &Selector) -> Json<'static> {
    let labels = selector.labels.iter().map(|(key, value)| (Cow::Owned(key.to_string()), text(value)));
    let expressions = selector.expressions.iter().map(expression);
    object([
        ("matchLabels", (!selector.labels.is_empty()).then(|| Json::Object(labels.collect()))),
        ("matchExpressions", (!selector.expressions.is_empty()).then(|| Json::Array(expressions.collect()))),
    ])
}

fn expression(expression: &Expression) -> Json<'static> {
    let values = match &expression.operator {
        Operator::In(values) | Operator::NotIn(values) => {
            Some(Json::Array(values.iter().map(|value| text(value)).collect()))
        }
        Operator::Exists | Operator::DoesNotExist => None,
    };
    object([
        ("key", Some(text(&expression.key))),
        ("operator", Some(text(expression.operator.as_str()))),
        ("values", values),
    ])
}

fn schedule(schedule: &Schedule, key: &'static str) -> Json<'static> {
    object(schedule_members(schedule, key))
}

fn schedule_members(schedule: &Schedule, key: &'static str) -> [(&'static str, Option<Json<'static>>); 2] {
    [(key, Some(windows(&schedule.windows))), ("timezone", schedule.timezone.as_ref().map(|z| text(z)))]
}

/// One window is text, as in the shortest policy.
fn windows(windows: &[Window]) -> Json<'static> {
    match windows {
        [window] => text(window),
        windows => Json::Array(windows.iter().map(|w| text(w)).collect()),
    }
}

fn rollout(rollout: &Rollout) -> Json<'static> {
    let (kind, size, delay) = match rollout.kind {
        RolloutType::AllAtOnce => ("AllAtOnce", None, None),
        RolloutType::RollingUpdate { batch_size, batch_delay_minutes } => {
            ("RollingUpdate", Some(amount(batch_size)), Some(number(batch_delay_minutes)))
        }
    };
    object([
        ("type", Some(text(kind))),
        ("batchSize", size),
        ("batchDelayMinutes", delay),
        ("canary", rollout.canary.as_ref().map(selector)),
        ("failureThreshold", rollout.failure_threshold.map(text)),
        ("maxUnavailablePerSite", rollout.max_unavailable_per_site.map(amount)),
    ])
}

fn rollback(rollback: &Rollback) -> Json<'static> {
    object([
        ("enabled", Some(Json::Bool(rollback.enabled))),
        ("healthCheckUrl", rollback.health_check_url.as_ref().map(|url| text(url))),
        ("healthCheckTimeoutSeconds", rollback.health_check_timeout_seconds.map(number)),
    ])
}

fn transfer(transfer: &Transfer) -> Json<'static> {
    let members = transfer.schedule.as_ref().map(|s| schedule_members(s, "windows"));
    object(members.into_iter().flatten().chain([("rate", transfer.rate.map(text))]))
}

pub(crate) fn amount(amount: Amount) -> Json<'static> {
    match amount {
        Amount::Nodes(n) => number(n),
        Amount::Share(share) => text(share),
    }
}

fn number(n: u32) -> Json<'static> {
    Json::Integer(n.into())
}

pub(crate) fn text(value: impl std::fmt::Display) -> Json<'static> {
    Json::String(Cow::Owned(value.to_string()))
}

/// Those members that there are, sorted as [`Json`] wants them.
pub(crate) fn object(
    members: impl IntoIterator<Item = (&'static str, Option<Json<'static>>)>,
) -> Json<'static> {
    let there = members.into_iter().filter_map(|(key, value)| Some((Cow::Borrowed(key), value?)));
    let mut members: Vec<_> = there.collect();
    members.sort_by(|a, b| a.0.cmp(&b.0));
    Json::Object(members)
}
