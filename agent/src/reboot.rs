//! The boot that an install or a rollback needs: whether, when, and one node of a site at a time.
//!
//! Whether is decided here, purely; the window is [`crate::run`]'s business. The lock of the site is FleetLock, the protocol
//! of Zincati and its servers (<https://coreos.github.io/zincati/development/fleetlock/protocol/>): `pre-reboot` before the
//! boot, `steady-state` when the node is well again after it. A server that is away keeps a node from booting, as it must.

use std::path::Path;
use std::time::Duration;

use format::json::Json;
use format::policy::{PatchPolicy, Reboot};
use host::command::Command;

use crate::error::{Error, Exit, Result};
use crate::fetch::Client;
use crate::node::Node;

/// The lock's server must answer within this.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a boot is asked for on a node below another root, which this machine's service manager does not boot.
const ASKED: &str = "run/prestage/reboot";

/// What boot this is: another text after each one.
pub fn boot_id(node: &Node) -> String {
    let read = |root: &Path| std::fs::read_to_string(root.join("proc/sys/kernel/random/boot_id")).ok();
    // A node below another root has a /proc of its own, or the machine's.
    read(&node.root).or_else(|| read(Path::new("/"))).unwrap_or_default().trim().to_owned()
}

/// What is done about an update that needs a boot: the policy's word, then the node's; and where nobody has said anything,
/// a node that has a maintenance window boots in it, and one without never boots by itself.
pub fn policy(node: &Node, policy: Option<&PatchPolicy>) -> Reboot {
    let has_window = node.settings.windows.is_some() || policy.is_some_and(|p| p.schedule.is_some());
    let default = if has_window { Reboot::IfNeeded } else { Reboot::Never };
    policy.and_then(|p| p.reboot).or(node.settings.reboot.policy).unwrap_or(default)
}

/// Whether an install that changed something is followed by a boot. `is_needed`: what the distribution says.
pub fn follows(policy: Reboot, is_needed: bool) -> bool {
    match policy {
        Reboot::Never => false,
        Reboot::IfNeeded => is_needed,
        Reboot::Always => true,
    }
}

/// Boots, if the site lets this node. Comes back when the boot has been asked for.
///
/// # Errors
/// Deferred, if another node of the site is booting, or the boot could not be asked for.
pub fn boot(node: &Node) -> Result<()> {
    lock(node, "pre-reboot")?;
    if node.root != Path::new("/") {
        log::warn!("{} is to be booted", node.root.display());
        return Ok(host::file::replace(&node.root.join(ASKED), b"", 0o644)?);
    }
    log::warn!("booting");
    Command::new("systemctl").arg("reboot").output().map(|_| ()).map_err(|e| {
        Error::new(Exit::Deferred, format!("the boot could not be asked for: {e}"), "boot it by hand")
    })
}

/// Asks the site whether this node may begin an install, where it must not be one too many at a time; nothing to ask, where
/// there is no lock server.
///
/// # Errors
/// Deferred, if enough nodes of the site are at it.
pub fn take_slot(node: &Node) -> Result<()> {
    lock(node, "pre-reboot")
}

/// Tells the site that this node is well again. A failure is only a warning: the lock is given back at the next run.
pub fn steady(node: &Node) {
    if let Err(error) = lock(node, "steady-state") {
        log::warn!("{error}");
    }
}

/// One request of the protocol.
fn lock(node: &Node, what: &str) -> Result<()> {
    let settings = &node.settings.reboot;
    let Some(base) = &settings.lock_url else { return Ok(()) };
    let url = format!("{base}/v1/{what}");
    let quoted = |text: &str| serde_json::to_string(text).unwrap_or_default();
    let (id, group) = (quoted(node.id.as_str()), quoted(&settings.lock_group));
    let body = format!("{{\"client_params\":{{\"id\":{id},\"group\":{group}}}}}");
    let client = Client::new(&node.settings, &node.root, url.starts_with("https://"))?;
    let answer = client.ask_json(&url, ("fleet-lock-protocol", "true"), body.as_bytes(), PATIENCE);
    let why = match answer {
        Ok((status, _)) if (200..300).contains(&status) => return Ok(()),
        Ok((status, body)) => refusal(status, &body),
        Err(why) => why,
    };
    Err(Error::new(Exit::Deferred, format!("the site's lock ({url}): {why}"), "it is asked again by itself"))
}

/// What the server says: `{"kind": …, "value": …}`.
fn refusal(status: u16, body: &str) -> String {
    let answer = Json::parse(body.as_bytes()).unwrap_or(Json::Null);
    let field = |name: &str| answer.member(name).and_then(Json::as_str);
    match (field("kind"), field("value")) {
        (Some(kind), Some(value)) => format!("{kind}: {value}"),
        _ => format!("it answered {status}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_follows_where_the_policy_and_the_distribution_say_so() {
        for (policy, needed, follows_) in [
            (Reboot::Never, true, false),
            (Reboot::IfNeeded, true, true),
            (Reboot::IfNeeded, false, false),
            (Reboot::Always, false, true),
        ] {
            assert_eq!(follows(policy, needed), follows_, "{policy:?} {needed}");
        }
    }

    #[test]
    fn a_refusal_of_the_lock_is_quoted() {
        let body = r#"{"kind":"failed_lock","value":"all slots are taken"}"#;
        assert_eq!(refusal(409, body), "failed_lock: all slots are taken");
        assert_eq!(refusal(500, "oops"), "it answered 500");
    }
}
