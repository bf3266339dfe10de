//! The status as a plug-in of Nagios, Icinga and their kin sees it (monitoring-plugins.org, guidelines): one line, and one
//! of four codes. Pure.

use format::status::{NodeStatus, State};
use format::time::UnixTime;

use crate::error::{Exit, one_line};

/// A status that is older says that the agent does not run.
const SILENT: i64 = 86_400;

/// Metadata that expires sooner was to be renewed long ago.
const EXPIRES_SOON: i64 = 2 * 86_400;

/// OK, WARNING, CRITICAL, UNKNOWN.
type Level = (Exit, &'static str);

// These are a plug-in's codes, 0 to 3; that our own have the same numbers is chance, and documented.
const OK: Level = (Exit::Done, "OK");
const WARNING: Level = (Exit::Deferred, "WARNING");
const CRITICAL: Level = (Exit::Integrity, "CRITICAL");
const UNKNOWN: Level = (Exit::Trust, "UNKNOWN");

/// The plug-in's code and its line.
pub fn check(status: &NodeStatus, now: UnixTime) -> (Exit, String) {
    let s = &status.status;
    let age = now.0.saturating_sub(s.updated_at.0);
    let left = s.metadata_expires.map_or(i64::MAX, |at| at.0.saturating_sub(now.0));
    let ((exit, word), what) = match (s.state, s.quarantine.first()) {
        (State::Unknown, _) => (UNKNOWN, s.summary.clone()),
        (State::NeedsPerson, _) => (CRITICAL, s.summary.clone()),
        (_, Some(q)) => (CRITICAL, format!("bundle {} is refused: {}", q.bundle.version, q.reason)),
        (State::Failed, None) => (WARNING, s.summary.clone()),
        _ if age > SILENT => (WARNING, format!("the agent has not run since {}", s.updated_at)),
        _ if left < EXPIRES_SOON => (WARNING, "what is known of the repository expires soon".to_owned()),
        _ => (OK, s.summary.clone()),
    };
    let figures = format!(
        "quarantined={} queued={} age={}s reboot={}",
        s.quarantine.len(),
        s.reports_queued,
        age.max(0),
        u8::from(s.reboot_required)
    );
    // What is after the bar is for machines.
    (exit, format!("PRESTAGE {word} - {} | {figures}\n", one_line(&what).replace('|', "/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wants_attention_is_told_by_the_code_that_plug_ins_have_for_it() {
        let golden = NodeStatus::parse(include_bytes!("../../../format/tests/data/status-v1.json")).unwrap();
        let now = golden.status.updated_at;
        let mut calm = golden.clone();
        calm.status.quarantine.clear();
        calm.status.state = State::Staged;
        calm.status.metadata_expires = Some(now.plus(EXPIRES_SOON));
        let with = |change: fn(&mut NodeStatus)| {
            let mut status = calm.clone();
            change(&mut status);
            status
        };
        for (status, at, code, word) in [
            (golden.clone(), now, 2, "refused"),
            (calm.clone(), now, 0, "OK"),
            (calm.clone(), now.plus(1), 1, "expires"),
            (with(|s| s.status.metadata_expires = None), now.plus(SILENT + 1), 1, "not run"),
            (with(|s| s.status.state = State::Failed), now, 1, "WARNING"),
            (with(|s| s.status.state = State::NeedsPerson), now, 2, "CRITICAL"),
            (with(|s| s.status.state = State::Unknown), now, 3, "UNKNOWN"),
            (with(|s| s.status.summary = "a|b\nc".into()), now, 0, "a/b"),
        ] {
            let (exit, line) = check(&status, at);
            assert_eq!((exit as u8, line.contains(word), line.lines().count()), (code, true, 1), "{line}");
        }
    }
}
