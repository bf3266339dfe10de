//! The status as a Prometheus textfile: names `prestage_<what>_<unit>`, no timestamps, one series for each state.

use std::fmt::Write as _;

use format::status::{NodeStatus, State, StepStatus};

/// A figure of a step.
type StepValue = fn(&StepStatus) -> i64;

/// Renders all metrics.
pub fn render(status: &NodeStatus) -> String {
    let mut out = Metrics(String::new());
    let s = &status.status;
    let info = format!(
        "version=\"{}\",variant=\"{}\",node=\"{}\"",
        escape(&s.agent_version),
        s.variant,
        status.metadata.name
    );
    out.family("prestage_info", "gauge", "The agent, its variant and its node.");
    out.sample("prestage_info", &info, 1);
    out.family("prestage_state", "gauge", "1 for the state that the node is in.");
    for state in State::ALL {
        out.sample("prestage_state", &format!("state=\"{}\"", word(state)), u64::from(state == s.state));
    }
    out.family("prestage_updated_timestamp_seconds", "gauge", "When the agent last wrote its status.");
    out.sample("prestage_updated_timestamp_seconds", "", s.updated_at.0);
    out.family("prestage_quarantined_bundles", "gauge", "Bundles that the node refuses.");
    out.sample("prestage_quarantined_bundles", "", s.quarantine.len());
    out.family("prestage_peers_aside", "gauge", "Nodes of the site that lied or stalled and are not asked.");
    out.sample("prestage_peers_aside", "", s.peers_aside.len());
    out.family("prestage_reports_queued", "gauge", "Reports that the centre has not accepted yet.");
    out.sample("prestage_reports_queued", "", s.reports_queued);
    out.family("prestage_reboot_required", "gauge", "Whether the distribution asks for a reboot.");
    out.sample("prestage_reboot_required", "", u64::from(s.reboot_required));
    if !s.healed.is_empty() {
        out.family("prestage_healed_total", "counter", "What was cured without hands, and how often.");
        for (what, times) in &s.healed {
            out.sample("prestage_healed_total", &format!("what=\"{}\"", escape(what)), times);
        }
    }
    if let Some(expires) = s.metadata_expires {
        out.family(
            "prestage_metadata_expiry_timestamp_seconds",
            "gauge",
            "When the repository's metadata on this node expires.",
        );
        out.sample("prestage_metadata_expiry_timestamp_seconds", "", expires.0);
    }
    if let Some(rollout) = &s.rollout {
        let state = |word: &str| u64::from(rollout.state == word);
        out.family(
            "prestage_rollout_stopped",
            "gauge",
            "1 while the rollout of this node's policy is stopped, by how.",
        );
        for word in ["paused", "halted"] {
            out.sample("prestage_rollout_stopped", &format!("state=\"{word}\""), state(word));
        }
        if !rollout.local_time {
            out.family(
                "prestage_rollout_not_before_timestamp_seconds",
                "gauge",
                "When this node's batch begins, or began.",
            );
            out.sample("prestage_rollout_not_before_timestamp_seconds", "", rollout.not_before.0);
        }
    }
    let steps: Vec<(&str, &StepStatus)> = [("fetch", &s.fetch), ("install", &s.install)]
        .iter()
        .filter_map(|(n, s)| Some((*n, s.as_ref()?)))
        .collect();
    let families: [(&str, &str, StepValue); 5] = [
        ("prestage_last_step_timestamp_seconds", "When the step last ended.", |s| s.at.0),
        ("prestage_last_step_exit_code", "The exit code that the step last ended with.", |s| {
            s.exit_code.into()
        }),
        ("prestage_last_step_duration_seconds", "How long the step took.", |s| {
            i64::try_from(s.seconds).unwrap_or(i64::MAX)
        }),
        ("prestage_last_step_received_bytes", "Bytes that came from mirrors in the step.", |s| {
            i64::try_from(s.bytes_received).unwrap_or(i64::MAX)
        }),
        ("prestage_last_step_site_bytes", "Bytes that came from other nodes of the site in the step.", |s| {
            i64::try_from(s.bytes_from_site).unwrap_or(i64::MAX)
        }),
    ];
    for (name, help, value) in families {
        out.family(name, "gauge", help);
        for (step, status) in &steps {
            out.sample(name, &format!("step=\"{step}\""), value(status));
        }
    }
    if let Some(plan) = &s.plan {
        out.family("prestage_plan_packages", "gauge", "Packages that will change.");
        out.sample("prestage_plan_packages", "", plan.packages);
        out.family("prestage_plan_needed_bytes", "gauge", "Size of the packages that this node needs.");
        out.sample("prestage_plan_needed_bytes", "", plan.bytes_needed);
        out.family("prestage_plan_present_bytes", "gauge", "Of these, already here and verified.");
        out.sample("prestage_plan_present_bytes", "", plan.bytes_present);
        if let Some(deltas) = &plan.deltas {
            out.family("prestage_delta_packages", "gauge", "Packages of the plan that were made of deltas.");
            out.sample("prestage_delta_packages", "", deltas.packages);
            out.family("prestage_delta_saved_bytes", "gauge", "Bytes by which these deltas were smaller.");
            out.sample("prestage_delta_saved_bytes", "", deltas.bytes_saved);
            out.family(
                "prestage_delta_whole_packages",
                "gauge",
                "Packages that came whole although there are deltas.",
            );
            out.sample("prestage_delta_whole_packages", "", deltas.whole);
        }
    }
    if let Some(installed) = &s.installed {
        out.family(
            "prestage_installed_timestamp_seconds",
            "gauge",
            "When a bundle was last installed to its end.",
        );
        out.sample("prestage_installed_timestamp_seconds", "", installed.at.0);
        out.family("prestage_installed_serial", "gauge", "The serial of that bundle.");
        out.sample("prestage_installed_serial", "", installed.bundle.serial);
    }
    out.0
}

struct Metrics(String);

impl Metrics {
    // Writing to a String cannot fail.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}

/// The word that status.json uses.
fn word(state: State) -> String {
    let json = serde_json::to_string(&state).unwrap_or_default();
    json.trim_matches('"').to_owned()
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metrics_of_a_known_status_stay_the_same() {
        let status = NodeStatus::parse(include_bytes!("../../../format/tests/data/status-v1.json")).unwrap();
        assert_eq!(render(&status), include_str!("../../tests/data/prestage.prom"));
    }
}
