//! Whether the node does its work: its health URL, the operator's hooks, the units of systemd. Runs with the host's
//! network: the health check must reach the host's own loopback, while the package manager reaches nothing.
//!
//! The same is asked before an install ([`baseline`]) and after it ([`check`]): a node that was unhealthy before is put off
//! and reported, not patched and blamed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use format::policy::PatchPolicy;
use host::clock::Clock;
use host::command::Command;
use host::isolation::Isolation;

use crate::error::{Error, Exit, Result};
use crate::fetch::Client;
use crate::node::Node;
use crate::packages::in_root;

/// Between two tries of the health URL.
const PAUSE: Duration = Duration::from_secs(2);

/// One try of the health URL may take so long; one that hangs is tried again.
const ONE_TRY: Duration = Duration::from_secs(15);

/// How long a node that is healthy may take to say so before an install.
const BASELINE: Duration = Duration::from_secs(10);

/// Where the operator's programs are.
const HOOKS: &str = "etc/prestage/hooks.d";

/// Something is not as it must be. What follows from it is said by whoever asked.
fn sick(what: impl std::fmt::Display) -> Error {
    Error::new(Exit::Deferred, what, "")
}

/// The programs of a folder, in order of their names.
fn programs(node: &Node, folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(node.root.join(folder)).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries
        .filter(|e| !e.file_name().to_string_lossy().starts_with('.'))
        .filter(|e| std::fs::metadata(e.path()).is_ok_and(|meta| meta.is_file()))
        .map(|e| Path::new("/").join(folder).join(e.file_name()))
        .collect();
    paths.sort();
    paths
}

/// Runs one hook, no longer than it may.
fn run_hook(node: &Node, hook: &Path, phase: &str, bundle: &str) -> Result<()> {
    host::detail!("hook {}", hook.display());
    // timeout(1): killed 10 s after it was asked to end. It says 124 or 137 then.
    let seconds = node.settings.health.hook_timeout.as_secs();
    let mut command = Command::new("timeout")
        .args(["--kill-after=10", &seconds.to_string()])
        .arg(hook)
        .env("PRESTAGE_PHASE", phase)
        .env("PRESTAGE_BUNDLE", bundle);
    if node.root != Path::new("/") {
        command = command.isolated(Isolation { no_network: false, root: Some(node.root.clone()) });
    }
    command.output().map(|_| ()).map_err(|e| match e.code() {
        Some(124 | 137) => sick(format!("hook {} had not ended after {seconds} s", hook.display())),
        _ => sick(format!("hook {e}")),
    })
}

/// Runs the hooks of `phase` in `/etc/prestage/hooks.d/PHASE`, in order of their names.
///
/// # Errors
/// Deferred, with the hook and the end of its stderr, at the first that fails.
pub fn run_hooks(node: &Node, phase: &str, bundle: &str) -> Result<()> {
    let folder = Path::new(HOOKS).join(phase);
    programs(node, &folder).iter().try_for_each(|hook| run_hook(node, hook, phase, bundle))
}

/// What must be so, and within what time.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HealthCheck {
    /// An http or https URL; without one hooks and units judge.
    pub url: Option<String>,
    /// Seconds after an install until it must have answered.
    pub timeout_seconds: u64,
    /// What it must answer with; none: any of 200 to 299.
    #[serde(default)]
    pub status: Option<u16>,
    /// What must be in the answer.
    #[serde(default)]
    pub body: Option<String>,
    /// Units of systemd that had failed before the install; none: nobody has looked.
    #[serde(default)]
    pub failed_before: Option<Vec<String>>,
}

impl HealthCheck {
    /// What the node's policy says, and where it says nothing, the node's own configuration.
    pub fn of(node: &Node, policy: Option<&PatchPolicy>) -> Self {
        let rollback = policy.and_then(|policy| policy.rollback.as_ref());
        let url = rollback.and_then(|r| r.health_check_url.as_ref()).map(ToString::to_string);
        let timeout = rollback.and_then(|r| r.health_check_timeout_seconds).map(u64::from);
        let own = &node.settings.health;
        HealthCheck {
            url: url.or_else(|| own.url.clone()),
            timeout_seconds: timeout.unwrap_or(own.timeout.as_secs()),
            status: own.status,
            body: own.body.clone(),
            failed_before: None,
        }
    }

    /// What is wrong with an answer; none if nothing is.
    fn objection(&self, status: u16, body: &str) -> Option<String> {
        match self.status {
            Some(wanted) if status != wanted => {
                return Some(format!("it answered {status} instead of {wanted}"));
            }
            None if !(200..300).contains(&status) => return Some(format!("it answered {status}")),
            _ => {}
        }
        let wanted = self.body.as_ref()?;
        (!body.contains(wanted.as_str())).then(|| format!("{wanted:?} is not in its answer"))
    }
}

/// Asks the health URL until it answers as it must or the time is over; over a new connection each time. No URL: healthy.
///
/// # Errors
/// Deferred, with the last answer.
fn ask_url(node: &Node, check: &HealthCheck, timeout: Duration) -> Result<()> {
    let Some(url) = &check.url else {
        return Ok(());
    };
    let client = Client::new(&node.settings, &node.root, url.starts_with("https://"))?;
    let end = node.clock.instant() + timeout;
    loop {
        let left = end.saturating_sub(node.clock.instant()).max(Duration::from_millis(100));
        let objection = match client.answer(url, left.min(ONE_TRY)) {
            Ok((status, body)) => check.objection(status, &body),
            Err(why) => Some(why),
        };
        let Some(objection) = objection else { return Ok(()) };
        if node.clock.instant() + PAUSE >= end {
            return Err(sick(format!("health check {url}: {objection}")));
        }
        node.clock.sleep(PAUSE);
    }
}

/// The units of systemd that have failed; none where systemd does not run.
fn failed_units(node: &Node) -> Option<Vec<String>> {
    // sd_booted(3).
    if !node.settings.health.units || !node.root.join("run/systemd/system").is_dir() {
        return None;
    }
    let command =
        Command::new("systemctl").args(["list-units", "--state=failed", "--no-legend", "--plain", "--full"]);
    match in_root(&node.root, command, false).output() {
        Ok(output) => Some(parse_units(&output.stdout)),
        Err(error) => {
            log::warn!("which units have failed cannot be found out: {error}");
            None
        }
    }
}

/// Reads `systemctl list-units --plain --no-legend`: the first word of each line.
fn parse_units(text: &str) -> Vec<String> {
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// Health hooks: those of `required.d`, and for what is not in either folder the same; then those of `wanted.d`.
///
/// # Errors
/// Deferred, at the first of the required ones that fails.
fn run_health_hooks(node: &Node, bundle: &str) -> Result<()> {
    for folder in ["health/required.d", "health"] {
        for hook in programs(node, &Path::new(HOOKS).join(folder)) {
            run_hook(node, &hook, "health", bundle)?;
        }
    }
    for hook in programs(node, &Path::new(HOOKS).join("health/wanted.d")) {
        if let Err(error) = run_hook(node, &hook, "health", bundle) {
            log::warn!("{error}");
        }
    }
    Ok(())
}

/// Before anything is touched: an unhealthy node is put off and reported. Completes `check` with what had failed before.
///
/// # Errors
/// Deferred, with what is unhealthy.
pub fn baseline(node: &Node, check: &mut HealthCheck, bundle: &str) -> Result<()> {
    let unhealthy = |e: Error| {
        let what = format!("the node is not healthy before the install: {e}");
        Error::new(Exit::Deferred, what, "nothing was changed")
    };
    let timeout = BASELINE.min(Duration::from_secs(check.timeout_seconds.max(1)));
    ask_url(node, check, timeout).map_err(unhealthy)?;
    run_health_hooks(node, bundle).map_err(unhealthy)?;
    check.failed_before = failed_units(node);
    Ok(())
}

/// After an install, and once more after the boot that it needs.
///
/// # Errors
/// Rolled back, with what is unhealthy.
pub fn check(node: &Node, check: &HealthCheck, bundle: &str) -> Result<()> {
    let unhealthy = |e: Error| Error::new(Exit::RolledBack, e, "");
    ask_url(node, check, Duration::from_secs(check.timeout_seconds)).map_err(unhealthy)?;
    run_health_hooks(node, bundle).map_err(unhealthy)?;
    let (Some(before), Some(now)) = (&check.failed_before, failed_units(node)) else { return Ok(()) };
    let new: Vec<&str> = now.iter().filter(|unit| !before.contains(unit)).map(String::as_str).collect();
    if new.is_empty() {
        return Ok(());
    }
    let what = format!("these units of systemd have failed since the install: {}", new.join(", "));
    Err(Error::new(Exit::RolledBack, what, "see `systemctl status` of each"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_by_its_status_and_its_body() {
        let any = HealthCheck::default();
        assert_eq!((any.objection(204, ""), any.objection(200, "x")), (None, None));
        assert!(any.objection(503, "").unwrap().contains("503"));
        let exact = HealthCheck { status: Some(418), body: Some("up".into()), ..any };
        assert_eq!(exact.objection(418, "{state: up}"), None);
        assert!(exact.objection(200, "up").is_some() && exact.objection(418, "down").is_some());
    }

    #[test]
    fn failed_units_are_read_by_their_names() {
        let text =
            "till.service loaded failed failed The till\nmnt-x.mount    loaded failed failed /mnt/x\n\n";
        assert_eq!(parse_units(text), ["till.service", "mnt-x.mount"]);
    }
}
