//! Outcomes on their way to the centre: a queue of files, kept until the centre has accepted each.

use std::path::{Path, PathBuf};

use format::API_VERSION;
use format::report::{KIND, Outcome, Report, Step};
use host::file;
use host::rights::with_rights_of;

use crate::error::{Error, Exit, Result};
use crate::node::Node;

/// The most reports that wait; beyond it the oldest goes, so that a centre that is away for a year costs nothing.
const MAX_QUEUED: usize = 500;

/// The largest number that a report's name begins with: what is written with fifteen digits, so that names stay in the
/// order of numbers.
const MAX_NUMBER: i64 = 999_999_999_999_999;

/// The largest report that is read back.
const MAX_REPORT: u64 = 4 * 1024 * 1024;

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
        restore_point: details.restore_point,
        healed: details.healed,
    };
    let bytes = serde_json::to_vec(&report).map_err(|e| Error::io("report", &e.into()))?;
    // Milliseconds first, so that names are in the order of events; and never before what is queued already, whatever
    // the clock does.
    let after_last = files(node).last().and_then(|last| number_of(last)).map_or(0, |last| last + 1);
    let number = after_last.max(at.0.max(0).saturating_mul(1000)).min(MAX_NUMBER);
    let path = node.reports().join(format!("{number:015}-{}.json", report.id.short()));
    file::replace_like(&path, &bytes, 0o644, &node.fetched(""))?;
    for old in files(node).iter().rev().skip(MAX_QUEUED) {
        log::warn!("more than {MAX_QUEUED} reports wait; {} is dropped", old.display());
        remove(node, old)?;
    }
    Ok(())
}

/// Removes a report, with no more rights than whoever the queue belongs to has.
fn remove(node: &Node, report: &Path) -> Result<()> {
    Ok(with_rights_of(&node.reports(), || file::remove(report))?)
}

/// The number that a queued report's name begins with. The queue belongs to the fetch user: another name is no number.
fn number_of(path: &Path) -> Option<i64> {
    let number = path.file_name()?.to_str()?.split('-').next()?.parse().ok()?;
    (0..MAX_NUMBER).contains(&number).then_some(number)
}

/// How many reports wait.
pub fn queued(node: &Node) -> u64 {
    files(node).len() as u64
}

/// The queue, oldest first.
fn files(node: &Node) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(node.reports()).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> =
        entries.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "json")).collect();
    files.sort();
    files
}

/// Sends what waits, oldest first; each is removed when the centre has accepted it. Says how many were sent.
///
/// # Errors
/// Unavailable, if the centre cannot be reached or refuses; what was not accepted stays.
pub fn send(node: &Node) -> Result<u64> {
    let waiting = files(node);
    let Some(url) = node.settings.report_url.as_ref().filter(|_| !waiting.is_empty()) else {
        return Ok(0);
    };
    let client = node.client()?;
    let mut sent = 0;
    for path in waiting {
        let Some(bytes) = file::read_limited(&path, MAX_REPORT)? else {
            continue;
        };
        if let Err(why) = Report::parse(&bytes) {
            log::warn!("{}: {why}; it is kept aside", path.display());
            std::fs::rename(&path, path.with_extension("broken")).map_err(|e| Error::file(&path, &e))?;
            continue;
        }
        let refused = |why: String| {
            Error::new(
                Exit::Unavailable,
                format!("{url} did not take a report: {why}"),
                "it stays in the queue and is sent again",
            )
        };
        match client.post_json(url, &bytes) {
            Ok(status) if (200..300).contains(&status) => remove(node, &path)?,
            Ok(status) => return Err(refused(format!("it answered {status}"))),
            Err(why) => return Err(refused(why)),
        }
        sent += 1;
    }
    Ok(sent)
}
