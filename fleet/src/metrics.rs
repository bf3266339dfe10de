//! Metrics of the server and of the fleet, in Prometheus' text format. By route, never by address, so that their number has
//! an end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::{Method, StatusCode};

use crate::api::problem::Problem;
use crate::app::Shared;

/// Upper ends of the histogram's buckets, in seconds.
const BUCKETS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.3, 1.0, 10.0];

/// How requests were answered.
#[derive(Default)]
pub struct Requests {
    by_route: Mutex<BTreeMap<(String, String), Times>>,
    by_status: Mutex<BTreeMap<(String, u16), u64>>,
    refused: AtomicU64,
}

#[derive(Clone, Copy, Default)]
struct Times {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    seconds: f64,
}

impl Requests {
    /// One more.
    pub fn note(&self, method: &Method, route: &str, status: StatusCode, took: Duration) {
        // Whoever makes up methods shall not make up series.
        let known = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE];
        let method = if known.contains(method) { method.as_str() } else { "other" };
        let seconds = took.as_secs_f64();
        let mut routes = self.by_route.lock().unwrap_or_else(PoisonError::into_inner);
        let times = routes.entry((method.to_owned(), route.to_owned())).or_default();
        times.count += 1;
        times.seconds += seconds;
        for (bucket, end) in times.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(seconds <= end);
        }
        drop(routes);
        let mut statuses = self.by_status.lock().unwrap_or_else(PoisonError::into_inner);
        *statuses.entry((route.to_owned(), status.as_u16())).or_default() += 1;
    }

    /// Documents that were not true.
    pub fn refused_documents(&self, count: usize) {
        self.refused.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// A label's value: quotes, backslashes and newlines would end it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(self.0, "# HELP prestage_fleet_{name} {help}\n# TYPE prestage_fleet_{name} {kind}");
    }

    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let labels: Vec<String> =
            labels.iter().map(|(key, text)| format!("{key}=\"{}\"", escaped(text))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "prestage_fleet_{name}{labels} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, "gauge", help);
        self.value(name, &[], value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "counter", help);
        self.value(name, &[], value);
    }
}

/// All of them.
///
/// # Errors
/// If the database is away.
pub async fn text(app: &Shared) -> Result<String, Problem> {
    let numbers = app.numbers().await?;
    let published = app.published();
    let mut page = Page(String::new());
    page.head("info", "gauge", "The server that answers.");
    page.value("info", &[("version", env!("CARGO_PKG_VERSION"))], 1);

    page.head("nodes", "gauge", "Nodes by state; silent and never-reported are states too.");
    for (state, nodes) in &numbers.states {
        page.value("nodes", &[("state", state)], nodes);
    }
    page.head("failing_nodes", "gauge", "Nodes whose last step failed, by its outcome.");
    for (cause, nodes) in &numbers.failures {
        page.value("failing_nodes", &[("cause", cause)], nodes);
    }
    page.head("silent_nodes", "gauge", "Nodes that have not been heard of for at least so many hours.");
    for (hours, nodes) in &numbers.silent {
        page.value("silent_nodes", &[("hours", &hours.to_string())], nodes);
    }
    page.gauge("quarantining_nodes", "Nodes that refuse a bundle.", numbers.quarantined);
    page.gauge("clock_off_nodes", "Nodes whose clock is wrong by more than five minutes.", numbers.clock_off);
    page.gauge("expected_keys", "Keys that are registered and have not enrolled.", numbers.expected);
    page.gauge("revoked_keys", "Keys that were revoked.", numbers.revoked);
    if let Some((_, seen)) = &numbers.oldest {
        page.gauge(
            "oldest_seen_timestamp_seconds",
            "When the node that is silent longest was heard of.",
            seen,
        );
    }

    if app.settings.repository.is_some() {
        let readable = i32::from(published.problem.is_none() && published.read_at.is_some());
        page.gauge("repository_readable", "Whether the repository was read and verified.", readable);
        if let Some(expires) = published.expires {
            page.gauge("metadata_expiry_timestamp_seconds", "When its first metadata file expires.", expires);
        }
        page.head("role_expiry_timestamp_seconds", "gauge", "When the metadata of each role expires.");
        for role in &published.roles {
            page.value("role_expiry_timestamp_seconds", &[("role", &role.name)], role.expires);
        }
        page.head("rollout_nodes", "gauge", "Nodes of each policy, by how far they are with its bundle.");
        page.head("rollout_stuck", "gauge", "Whether a rollout should go on and does not.");
        page.head("rollout_halted", "gauge", "Whether a rollout is halted.");
        for rollout in published.rollouts.iter() {
            let policy = rollout.policy();
            let all = rollout.all;
            for (how, nodes) in [
                ("waiting", all.waiting),
                ("staged", all.staged),
                ("installing", all.installing),
                ("installed", all.installed),
                ("failed", all.failed),
                ("rolledBack", all.rolled_back),
                ("silent", all.silent),
            ] {
                page.value("rollout_nodes", &[("policy", &policy), ("is", how)], nodes);
            }
            page.value("rollout_stuck", &[("policy", &policy)], i32::from(rollout.stuck.is_some()));
            page.value("rollout_halted", &[("policy", &policy)], i32::from(rollout.state == "halted"));
        }
    }

    let counts = app.queue.counts();
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    page.counter("reports_total", "Reports that were new.", load(&counts.reports));
    page.counter("documents_total", "Documents that were written, or were known.", load(&counts.documents));
    page.counter("documents_refused_total", "Documents that were not true.", load(&app.answered.refused));
    page.counter("commits_total", "Transactions of ingestion.", load(&counts.commits));
    page.counter("commit_failures_total", "Of these, those that failed.", load(&counts.failures));
    page.head("commit_seconds_total", "counter", "Seconds in these transactions.");
    page.value("commit_seconds_total", &[], load(&counts.microseconds) as f64 / 1e6);
    let waiting = counts.waiting.load(Ordering::Relaxed);
    page.gauge("documents_waiting", "Documents that wait to be written.", waiting);

    page.head("requests_total", "counter", "Requests by route and status.");
    let statuses = app.answered.by_status.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for ((route, status), count) in statuses {
        page.value("requests_total", &[("route", &route), ("status", &status.to_string())], count);
    }
    page.head("request_seconds", "histogram", "How long requests took, by route.");
    let routes = app.answered.by_route.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for ((method, route), times) in routes {
        let of: [(&str, &str); 2] = [("method", &method), ("route", &route)];
        for (count, end) in times.buckets.iter().zip(BUCKETS) {
            page.value("request_seconds_bucket", &[of[0], of[1], ("le", &end.to_string())], count);
        }
        page.value("request_seconds_bucket", &[of[0], of[1], ("le", "+Inf")], times.count);
        page.value("request_seconds_sum", &of, times.seconds);
        page.value("request_seconds_count", &of, times.count);
    }
    Ok(page.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_write_lines_of_its_own() {
        let mut page = Page(String::new());
        page.value("nodes", &[("state", "x\"} 1\nprestage_fleet_up 1")], 2);
        assert_eq!(page.0.lines().count(), 1);
        assert_eq!(page.0, "prestage_fleet_nodes{state=\"x\\\"} 1\\nprestage_fleet_up 1\"} 2\n");
    }
}
