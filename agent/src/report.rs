//! Outcomes on their way to the centre: what a step has to say, and the plain way to send it. With the fleet server it
//! is [`crate::fleet`].

use format::API_VERSION;
use format::report::{KIND, Outcome, Report, Step};

use crate::error::{Error, Exit, Result};
use crate::node::Node;
use crate::queue;

/// What a step has to say.
pub struct Said {
    /// How it ended.
    pub outcome: Outcome,
    /// What, where, why, what to do.
    pub message: String,
    /// The rest.
    pub details: Details,
}

/// What belongs to some outcomes only.
#[derive(Default)]
pub struct Details {
    /// Which bundle.
    pub bundle: Option<format::report::BundleRef>,
    /// Which install.
    pub transaction: Option<String>,
    /// What changed.
    pub changes: Vec<format::inventory::PackageChange>,
    /// The digest of the inventory afterwards.
    pub inventory: Option<format::digest::Sha256>,
    /// The restore point that was made or used.
    pub restore_point: Option<String>,
    /// What was cured without hands.
    pub healed: Vec<String>,
    /// Bytes that deltas have saved.
    pub bytes_saved: u64,
    /// When it ended; none: now.
    pub at: Option<format::time::UnixTime>,
}

/// Puts a report into the queue.
///
/// # Errors
/// If it cannot be written.
pub fn queue(
    node: &Node,
    step: Step,
    exit: Exit,
    said: Said,
    seconds: u64,
    bytes_received: u64,
    bytes_from_site: u64,
) -> Result<()> {
    let Said { outcome, message, details } = said;
    let at = details.at.unwrap_or_else(|| node.now());
    let message = queue::message(message);
    let report = Report {
        api_version: API_VERSION.into(),
        kind: KIND.into(),
        id: Report::make_id(&node.id, at, details.transaction.as_deref(), step, &message),
        node: node.id.clone(),
        at,
        variant: node.variant.clone(),
        step,
        outcome,
        exit_code: exit as u8,
        message,
        bundle: details.bundle,
        transaction: details.transaction,
        changes: details.changes,
        inventory: details.inventory,
        seconds,
        bytes_received,
        bytes_from_site,
        bytes_saved: details.bytes_saved,
        restore_point: details.restore_point,
        healed: details.healed,
        omitted: None,
    };
    queue::put(node, report)
}

/// Sends what waits to `[report] url`, oldest first; each is removed when the centre has accepted it. Says how many were
/// sent.
///
/// # Errors
/// Unavailable, if the centre cannot be reached or refuses; what was not accepted stays.
pub fn send(node: &Node) -> Result<u64> {
    let waiting = queue::files(node);
    let Some(url) = node.settings.report_url.as_ref().filter(|_| !waiting.is_empty()) else {
        return Ok(0);
    };
    let client = node.client()?;
    let mut sent = 0;
    for path in waiting {
        let Some(waiting) = queue::take(node, path)? else { continue };
        let refused = |why: String| {
            Error::new(
                Exit::Unavailable,
                format!("{url} did not take a report: {why}"),
                "it stays in the queue and is sent again",
            )
        };
        match client.post_json(url, &waiting.bytes) {
            Ok(status) if (200..300).contains(&status) => queue::remove(node, &waiting.path)?,
            Ok(status) => return Err(refused(format!("it answered {status}"))),
            Err(why) => return Err(refused(why)),
        }
        sent += 1;
    }
    Ok(sent)
}
