use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn node(n: u32) -> NodeId {
    format!("store-{n:05}").parse().unwrap()
}

fn version(text: &str) -> BundleVersion {
    text.parse().unwrap()
}

/// Batches of `size` of `nodes`, a quarter of an hour apart.
fn plan(nodes: u64, size: u64, canary: bool) -> RolloutPlan {
    let batches = nodes.div_ceil(size).max(1);
    let start = UnixTime(1_795_392_000);
    let up_to =
        |k: u64| u32::try_from((k * size * u64::from(POSITIONS) / nodes).min(POSITIONS.into())).unwrap();
    let offset = i64::from(canary);
    let mut steps: Vec<PlanStep> = (1..=batches)
        .map(|k| PlanStep {
            up_to: up_to(k),
            not_before: start.plus((i64::try_from(k).unwrap() - 1 + offset) * 900),
        })
        .collect();
    if canary {
        steps.insert(0, PlanStep { up_to: 0, not_before: start });
    }
    RolloutPlan {
        namespace: "operations".parse().unwrap(),
        name: "edge".parse().unwrap(),
        bundle_version: version("20261123-42"),
        previous: Some(version("20261116-41")),
        rolled_back_from: None,
        released: None,
        started_at: start,
        nodes: Some(nodes),
        local_time: false,
        canary: canary.then(|| Selector {
            labels: BTreeMap::from([("ring".parse().unwrap(), "canary".parse().unwrap())]),
            expressions: Vec::new(),
        }),
        steps,
        max_unavailable_per_site: Some(Amount::Nodes(1)),
        site_turns: Some(4),
        failure_threshold: Some("5%".parse().unwrap()),
        state: PlanState::Running,
        history: vec![Act {
            at: start,
            action: Action::Publish,
            by: "git".into(),
            reason: "bundle 20261116-41 → 20261123-42".into(),
        }],
    }
}

fn maximal() -> RolloutPlan {
    let mut plan = plan(1000, 250, true);
    plan.rolled_back_from = Some(version("20261130-43"));
    plan.local_time = true;
    plan.state = PlanState::Halted;
    plan.record(Act {
        at: plan.started_at.plus(1800),
        action: Action::Halt,
        by: "fleet.example.org: ann".into(),
        reason: "6 of 60 nodes failed: more than 5%".into(),
    });
    plan
}

#[test]
fn version_1_of_the_format_stays_readable_and_writable() {
    let golden = include_str!("../../tests/data/rollout-v1.json").trim_end();
    assert_eq!(String::from_utf8(maximal().to_json()).unwrap(), golden);
    assert_eq!(RolloutPlan::from_json(golden.as_bytes()), Ok(maximal()));
    assert_eq!(maximal().target_path().unwrap().as_str(), "policies/operations/edge/rollout.json");
}

#[test]
fn ten_thousand_nodes_are_spread_evenly_over_the_batches() {
    let plan = plan(10_000, 100, false);
    let mut sizes = vec![0u32; plan.steps.len()];
    for n in 0..10_000 {
        sizes[plan.step_of(&node(n), &BTreeMap::new())] += 1;
    }
    assert_eq!((sizes.len(), sizes.iter().sum::<u32>()), (100, 10_000));
    // Binomial: 100 with a standard deviation of 10.
    assert!(sizes.iter().all(|size| (55..=145).contains(size)), "{sizes:?}");
    // Positions are uniform: chi² of 99 degrees of freedom is above 148 once in a thousand.
    let chi: f64 = sizes.iter().map(|size| (f64::from(*size) - 100.0).powi(2) / 100.0).sum();
    assert!(chi < 148.0, "{chi}");
}

#[test]
fn it_is_not_the_same_nodes_that_are_first_in_the_next_rollout() {
    let first = |version: &str| -> BTreeSet<u32> {
        let version = self::version(version);
        (0..1000).filter(|n| position("operations/edge", &version, &node(*n)) < POSITIONS / 10).collect()
    };
    let (one, other) = (first("20261123-42"), first("20261130-43"));
    let again = one.intersection(&other).count();
    assert!(one.len() > 60 && other.len() > 60 && again < 30, "{} {} {again}", one.len(), other.len());
    assert_ne!(
        position("operations/edge", &version("1"), &node(1)),
        position("operations/till", &version("1"), &node(1))
    );
}

#[test]
fn a_fleet_that_grows_after_publishing_has_every_node_in_one_batch() {
    let plan = plan(100, 10, false);
    let sizes = (0..1000).fold(vec![0; plan.steps.len()], |mut sizes: Vec<u32>, n| {
        sizes[plan.step_of(&node(n), &BTreeMap::new())] += 1;
        sizes
    });
    assert_eq!((sizes.len(), sizes.iter().sum::<u32>()), (10, 1000));
    assert!(sizes.iter().all(|size| (60..=140).contains(size)), "{sizes:?}");
}

#[test]
fn canaries_go_first_wherever_they_stand_and_nobody_else_with_them() {
    let plan = plan(400, 100, true);
    let canary = BTreeMap::from([("ring".to_owned(), "canary".to_owned())]);
    for n in 0..400 {
        assert_eq!(plan.step_of(&node(n), &canary), 0);
        assert!(plan.step_of(&node(n), &BTreeMap::new()) > 0);
    }
    let start = plan.started_at;
    assert_eq!(plan.standing(&node(1), &canary, start), Standing::Go { step: 0 });
    assert!(matches!(plan.standing(&node(1), &canary, start.plus(-1)), Standing::Wait { step: 0, .. }));
    assert!(matches!(plan.standing(&node(1), &BTreeMap::new(), start), Standing::Wait { .. }));
    assert_eq!(["the canaries", "batch 1 of 4"], [plan.step_name(0).as_str(), plan.step_name(1).as_str()]);
}

#[test]
fn who_may_begin_is_cumulative_and_a_stopped_plan_lets_nobody_begin() {
    let mut plan = plan(40, 10, false);
    let may = |plan: &RolloutPlan, at: i64| -> BTreeSet<u32> {
        let now = plan.started_at.plus(at);
        let go = |n: &u32| matches!(plan.standing(&node(*n), &BTreeMap::new(), now), Standing::Go { .. });
        (0..40).filter(go).collect()
    };
    let times = [-1, 0, 900, 1800, 2700, 1_000_000].map(|at| may(&plan, at));
    assert!(times.windows(2).all(|pair| pair[0].is_subset(&pair[1])));
    assert_eq!([times[0].len(), times[4].len(), times[5].len()], [0, 40, 40]);
    assert!(times[1].len() < times[2].len() && times[2].len() < times[3].len());
    for state in [PlanState::Paused, PlanState::Halted] {
        plan.state = state;
        assert!(may(&plan, 1_000_000).is_empty());
    }
}

#[test]
fn a_site_takes_turns_and_every_node_gets_one() {
    let day = 86_400;
    let start = UnixTime(1_795_392_000);
    let turns = 4;
    let mut taken = vec![0u32; 4];
    for n in 0..400 {
        let turn = site_turn("store-7", &node(n), start, turns);
        taken[turn as usize] += 1;
        // Its turn comes within one round, and is on when it says so.
        let begins = turn_begins(turn, turns, start);
        assert!(begins.since(start) < SITE_TURN * 4 && begins.since(start) > -SITE_TURN, "{begins}");
        assert_eq!(turn_begins(turn, turns, begins.plus(SITE_TURN - 1)), begins);
        // In a window of one turn a day, each node comes to it before long.
        assert!((0..60).any(|d| {
            let now = start.plus(d * day);
            turn_begins(site_turn("store-7", &node(n), now, turns), turns, now) <= now
        }));
    }
    assert!(taken.iter().all(|n| (60..=140).contains(n)), "{taken:?}");
}

#[test]
fn of_too_many_acts_the_first_and_the_newest_are_kept() {
    let mut plan = plan(10, 10, false);
    for n in 0..100 {
        plan.record(Act {
            at: plan.started_at.plus(n),
            action: Action::Pause,
            by: "ann".into(),
            reason: n.to_string(),
        });
    }
    assert_eq!(plan.history.len(), MAX_HISTORY);
    assert_eq!(plan.history[0].action, Action::Publish);
    assert_eq!(plan.last_control().map(|act| act.reason.as_str()), Some("99"));
    assert_eq!(RolloutPlan::from_json(&plan.to_json()), Ok(plan));
}

#[test]
fn the_longest_plan_fits_its_limit() {
    let mut plan = plan(10_000_000, 10_000, false);
    assert_eq!(plan.steps.len(), 1000);
    for _ in 0..MAX_HISTORY {
        let (by, reason) = ("é".repeat(MAX_BY), "é".repeat(MAX_REASON));
        plan.record(Act { at: plan.started_at, action: Action::Resume, by, reason });
    }
    assert!(plan.to_json().len() < MAX_PLAN, "{}", plan.to_json().len());
    assert_eq!(RolloutPlan::from_json(&plan.to_json()), Ok(plan));
}

#[test]
fn what_a_plan_may_not_say_is_refused_with_its_place() {
    let good = String::from_utf8(maximal().to_json()).unwrap();
    let steps = |text: &str| {
        let from = good.find("\"steps\":").unwrap();
        let to = from + good[from..].find(']').unwrap() + 1;
        format!("{}\"steps\":{text}{}", &good[..from], &good[to..])
    };
    let at = "2026-11-23T00:00:00Z";
    for (text, place) in [
        (good.replace("RolloutPlan", "PatchPolicy"), "kind"),
        (good.replace("\"nodes\":1000", "\"nodes\":0"), "nodes"),
        (good.replace("\"nodes\":1000", "\"nodes\":1e3"), ""),
        (good.replace("\"localTime\"", "\"localtime\""), "localtime"),
        (good.replace("operations/edge", "operations"), "policy"),
        (good.replace("operations/edge", "../edge"), "policy"),
        (good.replace("\"halted\"", "\"stopped\""), "state"),
        (good.replace("6 of 60", "6\\nof 60"), "history[1].reason"),
        (good.replace("\"siteTurns\":4", "\"siteTurns\":0"), "siteTurns"),
        (steps("[]"), "steps"),
        (steps(&format!("[{{\"upTo\":0,\"notBefore\":\"{at}\"}}]")), "steps"),
        (steps(&format!("[{{\"upTo\":1000000,\"notBefore\":\"{at}\"}}]")), "steps"),
        (
            steps(&format!(
                "[{{\"upTo\":0,\"notBefore\":\"{at}\"}},{{\"upTo\":1000000,\"notBefore\":\"2026-11-22T00:00:00Z\"}}]"
            )),
            "steps",
        ),
        (
            steps(&format!(
                "[{{\"upTo\":0,\"notBefore\":\"{at}\"}},{{\"upTo\":1000001,\"notBefore\":\"{at}\"}}]"
            )),
            "steps[1].upTo",
        ),
        (
            steps(&format!("[{}]", vec![format!("{{\"upTo\":0,\"notBefore\":\"{at}\"}}"); 1025].join(","))),
            "steps",
        ),
    ] {
        assert_ne!(text, good, "{place}");
        match RolloutPlan::from_json(text.as_bytes()) {
            Err(PolicyError::Problems(problems)) => assert_eq!(problems[0].at.to_string(), place, "{text}"),
            Err(_) => assert_eq!(place, "", "{text}"),
            Ok(_) => panic!("{place}: {text}"),
        }
    }
    assert_eq!(RolloutPlan::from_json(&vec![b' '; MAX_PLAN + 1]), Err(PolicyError::TooLong));
}

#[test]
fn what_people_type_becomes_one_line() {
    assert_eq!(one_line(" a\nb\u{7}c ", 100), "a b c");
    assert_eq!(one_line(&"x".repeat(500), MAX_REASON).len(), MAX_REASON);
}

proptest! {
    #[test]
    fn every_node_is_in_exactly_one_batch_whatever_the_sizes(
        nodes in 1u64..100_000, size in 1u64..1000, canary in any::<bool>(), id in 0u32..100_000, seconds in -1000i64..2_000_000,
    ) {
        prop_assume!(nodes.div_ceil(size) < 1000);
        let plan = plan(nodes, size, canary);
        prop_assert_eq!(RolloutPlan::from_json(&plan.to_json()), Ok(plan.clone()));
        let (node, none) = (node(id), BTreeMap::new());
        let step = plan.step_of(&node, &none);
        let position = position(&plan.policy(), &plan.bundle_version, &node);
        let first_of_all = plan.steps.iter().position(|s| s.up_to > position);
        prop_assert_eq!(Some(step), first_of_all);
        let now = plan.started_at.plus(seconds);
        let may = matches!(plan.standing(&node, &none, now), Standing::Go { .. });
        prop_assert_eq!(may, plan.begun(now) > step);
    }

    #[test]
    fn whatever_is_read_does_not_panic(text in ".{0,200}", cut in any::<prop::sample::Index>()) {
        let _ = RolloutPlan::from_json(text.as_bytes());
        let golden = maximal().to_json();
        let _ = RolloutPlan::from_json(&golden[..cut.index(golden.len())]);
    }
}
