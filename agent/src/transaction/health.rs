//! Whether the node does its work: the operator's hooks and the health URL. Runs with the host's network: the health
//! check must reach the host's own loopback, while the package manager reaches nothing.

use std::path::Path;
use std::time::Duration;

use format::policy::PatchPolicy;
use host::clock::Clock;
use host::command::Command;
use host::isolation::Isolation;

use crate::error::{Error, Result};
use crate::fetch::Client;
use crate::node::Node;

/// Between two tries of the health URL.
const PAUSE: Duration = Duration::from_secs(2);

/// Runs the hooks of `phase` in `/etc/prestage/hooks.d/PHASE`, in order of their names.
///
/// # Errors
/// Deferred, with the hook and the end of its stderr, at the first that fails.
pub fn run_hooks(node: &Node, phase: &str, bundle: &str) -> Result<()> {
    let folder = Path::new("etc/prestage/hooks.d").join(phase);
    let entries = std::fs::read_dir(node.root.join(&folder)).into_iter().flatten().flatten();
    let mut names: Vec<_> =
        entries.map(|e| e.file_name()).filter(|n| !n.to_string_lossy().starts_with('.')).collect();
    names.sort();
    for name in names {
        let hook = Path::new("/").join(&folder).join(name);
        log::debug!("hook {}", hook.display());
        let mut command = Command::new(&hook).env("PRESTAGE_PHASE", phase).env("PRESTAGE_BUNDLE", bundle);
        if node.root != Path::new("/") {
            command = command.isolated(Isolation { no_network: false, root: Some(node.root.clone()) });
        }
        command.output().map_err(|e| Error::deferred(format!("hook {e}")))?;
    }
    Ok(())
}

/// What must answer, and within what time.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HealthCheck {
    /// An http or https URL; without one the hooks alone judge.
    pub url: Option<String>,
    /// Seconds after an install until it must have answered.
    pub timeout_seconds: u64,
}

impl HealthCheck {
    /// What the node's policy says, and where it says nothing, the node's own configuration.
    pub fn of(node: &Node, policy: Option<&PatchPolicy>) -> Self {
        let rollback = policy.and_then(|policy| policy.rollback.as_ref());
        let url = rollback.and_then(|r| r.health_check_url.as_ref()).map(ToString::to_string);
        let timeout = rollback.and_then(|r| r.health_check_timeout_seconds).map(u64::from);
        HealthCheck {
            url: url.or_else(|| node.settings.health_url.clone()),
            timeout_seconds: timeout.unwrap_or(node.settings.health_timeout.as_secs()),
        }
    }
}

/// Asks the health URL until it answers with 2xx or the time is over. No URL: healthy.
///
/// # Errors
/// Deferred, with the last answer.
pub fn ask_url(node: &Node, check: &HealthCheck, timeout: Duration) -> Result<()> {
    let Some(url) = &check.url else {
        return Ok(());
    };
    let client = Client::new(&node.settings, &node.root, url.starts_with("https://"))?;
    let end = node.clock.instant() + timeout;
    loop {
        let left = end.saturating_sub(node.clock.instant()).max(Duration::from_millis(100));
        let answer = match client.status(url, left) {
            Ok(status) if (200..300).contains(&status) => return Ok(()),
            Ok(status) => format!("it answered {status}"),
            Err(why) => why,
        };
        if node.clock.instant() + PAUSE >= end {
            return Err(Error::deferred(format!("health check {url}: {answer}")));
        }
        node.clock.sleep(PAUSE);
    }
}
