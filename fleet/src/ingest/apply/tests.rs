use super::*;
use crate::ingest::Said;
use format::digest::Sha256;
use format::status::{InstalledStatus, Metadata, NodeStatus, State, Status};
use format::time::UnixTime;

const NOW: i64 = 1_795_411_753;

fn bundle(version: &str) -> BundleRef {
    BundleRef {
        version: version.parse().unwrap(),
        cycle: "2026-11".parse().unwrap(),
        serial: 1,
        index: Sha256::of(version.as_bytes()),
    }
}

fn a_report(at: i64, outcome: Outcome, step: Step) -> Report {
    let node: format::name::NodeId = "till-1".parse().unwrap();
    Report {
        api_version: format::API_VERSION.into(),
        kind: format::report::KIND.into(),
        id: Report::make_id(&node, UnixTime(at), None, step, ""),
        node,
        at: UnixTime(at),
        variant: "debian-12-amd64".parse().unwrap(),
        step,
        outcome,
        exit_code: 0,
        message: String::new(),
        bundle: Some(bundle("v1")),
        transaction: None,
        changes: Vec::new(),
        inventory: Some(Sha256::of(b"set")),
        seconds: 1,
        bytes_received: 10,
        bytes_from_site: 0,
        bytes_saved: 0,
        restore_point: None,
        healed: Vec::new(),
        omitted: None,
    }
}

fn a_status(sent: i64, installed: Option<(&str, i64)>) -> SentStatus {
    let status = NodeStatus {
        api_version: format::API_VERSION.into(),
        kind: format::status::KIND.into(),
        metadata: Metadata {
            name: "till-1".parse().unwrap(),
            labels: [("site".to_owned(), "0815".to_owned())].into(),
        },
        status: Status {
            updated_at: UnixTime(sent),
            agent_version: "1".into(),
            variant: "debian-12-amd64".parse().unwrap(),
            state: State::UpToDate,
            summary: "patched".into(),
            fetch: None,
            install: None,
            plan: None,
            installed: installed.map(|(version, at)| InstalledStatus {
                bundle: bundle(version),
                at: UnixTime(at),
                packages: 1,
                inventory: Sha256::of(b"set"),
            }),
            policy: None,
            rollout: None,
            quarantine: Vec::new(),
            metadata_expires: None,
            reboot_required: false,
            reports_queued: 0,
            fleet: None,
            next_fetch: None,
            mirrors_aside: Vec::new(),
            transfer: None,
            peers_aside: Vec::new(),
            restore_point: None,
            healed: BTreeMap::new(),
        },
    };
    SentStatus { status, sent_at: UnixTime(sent), inventory: None }
}

fn received(at: i64, carried: bool, said: Said) -> Received {
    Received {
        id: String::new(),
        node: "till-1".into(),
        at,
        carried,
        message: String::new(),
        signature: String::new(),
        said,
    }
}

fn tell(node: &mut NodeState, sent: i64, at: i64, carried: bool) -> bool {
    let it = a_status(sent, None);
    status(node, &it, &received(at, carried, Said::Status(Box::new(it.clone())))).is_some()
}

fn run(node: &mut NodeState, it: &Report, at: i64) -> Option<Install> {
    report(node, it, &received(at, false, Said::Report(Box::new(it.clone()))))
}

#[test]
fn an_old_status_sent_again_changes_nothing_not_even_when_the_node_was_heard_of() {
    let mut node = NodeState::default();
    assert!(tell(&mut node, NOW, NOW, false));
    let before = node.clone();
    assert!(!tell(&mut node, NOW, NOW + 50_000, false));
    assert!(!tell(&mut node, NOW - 200_000, NOW + 50_000, false));
    assert_eq!(node, before);
}

#[test]
fn a_clock_that_was_years_ahead_does_not_silence_a_node_for_years() {
    let mut node = NodeState::default();
    assert!(tell(&mut node, NOW + 100_000_000, NOW, false));
    assert_eq!(node.clock_off, 100_000_000);
    assert_eq!(node.last_seen, NOW);
    assert!(tell(&mut node, NOW + 60, NOW + 60, false));
    assert_eq!((node.clock_off, node.sent), (0, NOW + 60));
}

#[test]
fn what_was_carried_here_was_heard_of_when_it_was_written_and_says_nothing_about_the_clock() {
    let mut node = NodeState::default();
    assert!(tell(&mut node, NOW - 500_000, NOW, true));
    assert_eq!((node.last_seen, node.clock_off), (NOW - 500_000, 0));
}

#[test]
fn a_failure_lasts_until_the_step_that_failed_goes_well() {
    let mut node = NodeState::default();
    run(&mut node, &a_report(NOW, Outcome::InstallFailed, Step::Install), NOW);
    run(&mut node, &a_report(NOW + 1, Outcome::RolledBack, Step::Install), NOW + 1);
    assert_eq!((node.failing_since, node.cause.as_str()), (NOW, "rolledBack"));
    // It says at each run that it refuses that bundle, and may fetch it once more: it counts as failed in its rollout.
    run(&mut node, &a_report(NOW + 2, Outcome::Deferred, Step::Install), NOW + 2);
    run(&mut node, &a_report(NOW + 2, Outcome::Staged, Step::Fetch), NOW + 2);
    assert_eq!((node.failing_since, node.outcome.as_str()), (NOW, "rolledBack"));
    let install = run(&mut node, &a_report(NOW + 3, Outcome::Installed, Step::Install), NOW + 3).unwrap();
    assert_eq!((install.bundle.as_str(), install.since), ("v1", NOW + 3));
    assert_eq!((node.failing_since, node.cause.as_str()), (0, ""));
}

#[test]
fn a_report_that_comes_late_does_not_undo_a_later_one() {
    let mut node = NodeState::default();
    run(&mut node, &a_report(NOW, Outcome::Installed, Step::Install), NOW);
    run(&mut node, &a_report(NOW - 100, Outcome::InstallFailed, Step::Install), NOW + 5);
    assert_eq!((node.outcome.as_str(), node.failing_since), ("installed", 0));
}

#[test]
fn a_report_from_the_future_happened_when_it_came() {
    let mut node = NodeState::default();
    let install = run(&mut node, &a_report(i64::MAX, Outcome::Installed, Step::Install), NOW).unwrap();
    assert_eq!((install.since, node.outcome_at), (NOW, NOW));
}

#[test]
fn a_node_that_went_back_by_hand_has_the_older_bundle_from_then_on() {
    let mut node = NodeState { bundle_index: "newer".into(), bundle_at: NOW, ..NodeState::default() };
    let it = a_status(NOW + 60, Some(("v1", NOW - 1000)));
    let found =
        status(&mut node, &it, &received(NOW + 60, false, Said::Status(Box::new(it.clone())))).unwrap();
    assert_eq!((found[0].bundle.as_str(), found[0].since), ("v1", NOW + 60));
    assert_eq!(node.bundle, "v1");
}
