use super::*;

const NOW: i64 = 1_795_411_753;

fn policy(threshold: &str) -> PatchPolicy {
    let text = format!(
        r#"{{"apiVersion":"patchmgmt.io/v1","kind":"PatchPolicy","metadata":{{"name":"tills","namespace":"ops"}},
        "spec":{{"bundleRef":{{"version":"v2"}},"targets":{{"selector":{{"matchLabels":{{"role":"till"}}}}}},
        "rolloutStrategy":{{"type":"RollingUpdate","batchSize":1,"batchDelayMinutes":15,"failureThreshold":"{threshold}"}}}}}}"#
    );
    PatchPolicy::from_json(text.as_bytes()).unwrap()
}

fn plan(state: &str) -> RolloutPlan {
    let golden = include_str!("../../../format/tests/data/rollout-v1.json");
    let mut plan = RolloutPlan::from_json(golden.trim().as_bytes()).unwrap();
    let of = policy("10%");
    plan.namespace = of.namespace.clone();
    plan.name = of.name.clone();
    plan.bundle_version = of.bundle.version.clone();
    plan.canary = None;
    plan.started_at = UnixTime(NOW - 1000);
    plan.failure_threshold = Some("10%".parse().unwrap());
    plan.steps = vec![
        format::rollout::PlanStep { up_to: 500_000, not_before: UnixTime(NOW - 900) },
        format::rollout::PlanStep { up_to: 1_000_000, not_before: UnixTime(NOW + 900) },
    ];
    plan.state = PlanState::ALL.into_iter().find(|it| it.as_str() == state).unwrap();
    plan
}

fn node(n: usize, outcome: &str, bundle: &str) -> Member {
    Member {
        id: format!("till-{n}"),
        policy: "ops/tills".into(),
        labels: r#"{"role":"till"}"#.into(),
        state: "upToDate".into(),
        bundle: bundle.into(),
        staged: String::new(),
        outcome: outcome.into(),
        outcome_bundle: "v2".into(),
        last_seen: NOW,
        bundle_at: NOW - 10,
        outcome_at: NOW - 10,
    }
}

const RULES: Rules = Rules { now: NOW, silent_before: NOW - 1000, stuck_after: 600, smallest_sample: 5 };

fn judged(good: usize, bad: usize, state: &str) -> Rollout {
    let nodes: Vec<Member> = (0..good)
        .map(|n| node(n, "installed", "v2"))
        .chain((good..good + bad).map(|n| node(n, "rolledBack", "v1")))
        .collect();
    look(&policy("10%"), Some(&plan(state)), &nodes.iter().collect::<Vec<_>>(), RULES)
}

#[test]
fn a_rollout_is_halted_when_more_than_the_threshold_failed_and_not_before() {
    assert_eq!(judged(18, 2, "running").must_halt, None);
    assert!(judged(17, 2, "running").must_halt.unwrap().contains("2 of 19"));
    // Of few nothing is concluded.
    assert_eq!(judged(3, 1, "running").must_halt, None);
    assert!(judged(4, 1, "running").must_halt.is_some());
    // What has been stopped is not stopped again.
    assert_eq!(judged(0, 20, "halted").must_halt, None);
    assert_eq!(judged(0, 20, "paused").must_halt, None);
}

#[test]
fn one_failed_canary_is_enough() {
    let canaries = |failed, installed| Some(Counts { failed, installed, ..Counts::default() });
    assert!(crossed(10, 1, 1, canaries(1, 0), 5).unwrap().contains("canaries"));
    assert_eq!(crossed(50, 1, 2, canaries(1, 1), 5), None);
}

#[test]
fn every_node_is_in_one_batch_and_in_one_count() {
    let rollout = judged(30, 12, "running");
    let sum: u64 = rollout.batches.iter().map(|batch| batch.counts.nodes).sum();
    assert_eq!((sum, rollout.all.nodes, rollout.finished, rollout.failed), (42, 42, 42, 12));
    assert!(rollout.batches.iter().all(|batch| batch.counts.nodes > 0));
    for batch in &rollout.batches {
        let c = batch.counts;
        let parts = c.waiting + c.staged + c.installing + c.installed + c.failed + c.rolled_back + c.silent;
        assert_eq!(parts, c.nodes);
    }
}

#[test]
fn what_failed_before_the_rollout_began_is_no_part_of_it() {
    let mut old = node(1, "rolledBack", "v1");
    old.outcome_at = NOW - 5000;
    let rollout = look(&policy("10%"), Some(&plan("running")), &[&old], RULES);
    assert_eq!((rollout.failed, rollout.all.waiting), (0, 1));
}

#[test]
fn a_rollout_that_should_go_on_and_does_not_is_stuck() {
    let mut waiting: Vec<Member> = (0..20).map(|n| node(n, "", "v1")).collect();
    waiting.iter_mut().for_each(|it| it.outcome_bundle.clear());
    let nodes: Vec<&Member> = waiting.iter().collect();
    let of = |state: &str, progress| {
        let mut rollout = look(&policy("10%"), Some(&plan(state)), &nodes, RULES);
        rollout.judge_progress(Seen { first_seen: 0, finished: 0, progress, halted: 0 }, RULES);
        rollout.stuck
    };
    assert!(of("running", NOW - 5000).unwrap().contains("could go on"));
    assert_eq!(of("running", NOW - 100), None);
    assert_eq!(of("paused", NOW - 5000), None);
}

#[test]
fn a_node_that_has_said_nothing_is_found_by_its_labels() {
    let mut silent = node(1, "", "");
    silent.policy.clear();
    let mut other = silent.clone();
    other.labels = r#"{"role":"kiosk"}"#.into();
    let nodes = [silent, other];
    let found = members(&[policy("10%")], &nodes);
    assert_eq!(found["ops/tills"].len(), 1);
}
