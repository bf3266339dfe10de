//! Rollout plans: what is read is written in one form and read again as the same; whatever it says, every node is in exactly one
//! of its batches, and whoever may begin may begin later. The input is a plan, and behind a NUL perhaps the id of a node.
#![no_main]

use std::collections::BTreeMap;

use format::name::NodeId;
use format::rollout::{PlanState, RolloutPlan, Standing, position, site_turn, turn_begins};
use format::time::UnixTime;
use prestage_fuzz::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (text, node) = match bytes.iter().position(|byte| *byte == 0) {
        Some(at) => (&bytes[..at], std::str::from_utf8(&bytes[at + 1..]).unwrap_or_default()),
        None => (bytes, ""),
    };
    let Ok(plan) = RolloutPlan::from_json(text).map_err(|error| error.to_string()) else {
        return;
    };
    let written = plan.to_json();
    let again = RolloutPlan::from_json(&written).expect("a plan that was written cannot be read");
    assert_eq!(again, plan);
    assert_eq!(again.to_json(), written);
    let path = plan.target_path().expect("a plan that was read has no place");
    assert_eq!(path.as_str(), format!("policies/{}/rollout.json", plan.policy()));

    let node: NodeId = node.parse().unwrap_or_else(|_| "node-1".parse().expect("a node id"));
    let none = BTreeMap::new();
    let step = plan.step_of(&node, &none);
    let position = position(&plan.policy(), &plan.bundle_version, &node);
    let is_canary = plan.canary.as_ref().is_some_and(|canary| canary.matches(&none));
    assert!(
        is_canary
            || (position < plan.steps[step].up_to && (step == 0 || position >= plan.steps[step - 1].up_to))
    );
    assert!(!plan.step_name(step).is_empty());
    let at = plan.steps[step].not_before;
    let running = plan.state == PlanState::Running;
    for (now, begun) in
        [(UnixTime(i64::MIN), false), (at.plus(-1), false), (at, true), (UnixTime(i64::MAX), true)]
    {
        let standing = plan.standing(&node, &none, now);
        assert_eq!(matches!(standing, Standing::Go { .. }), running && begun, "{standing:?} at {now:?}");
        let turns = plan.site_turns.unwrap_or(1);
        let _ = turn_begins(site_turn("site", &node, now, turns), turns, now);
    }
});
