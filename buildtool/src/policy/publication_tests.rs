use super::*;
use crate::export;
use crate::policy::control::{Control, control};
use format::digest::Sha256;
use format::index::IndexCustom;
use format::metadata::Blob;

fn policy(version: &str, more: &str) -> PatchPolicy {
    let text = format!(
        r#"{{"apiVersion":"patchmgmt.io/v1","kind":"PatchPolicy","metadata":{{"name":"edge","namespace":"ops"}},
        "spec":{{"bundleRef":{{"version":"{version}"}},"targets":{{"selector":{{}}}}{more}}}}}"#
    );
    PatchPolicy::from_json(text.as_bytes()).unwrap()
}

const BATCHES: &str =
    r#","rolloutStrategy":{"type":"RollingUpdate","batchSize":"25%","batchDelayMinutes":60}"#;

fn at(hour: i64) -> UnixTime {
    UnixTime(1_795_392_000 + hour * 3600)
}

fn publish(wanted: PatchPolicy, before: &[Published], hour: i64) -> (Vec<Published>, String) {
    let next = prepare(vec![wanted], before, None, "git", at(hour));
    assert_eq!(next.problems, Vec::<String>::new());
    (next.policies, next.notes.join("\n"))
}

fn plan(published: &[Published]) -> &RolloutPlan {
    published[0].plan.as_ref().unwrap()
}

fn bundles() -> Vec<export::Published> {
    let blob = Blob { length: 1, sha256: Sha256::of(b"") };
    let bundle = |(version, serial): (&str, u64)| export::Published {
        variant: "debian-12-amd64".parse().unwrap(),
        version: version.parse().unwrap(),
        custom: IndexCustom { serial, cycle: "c".parse().unwrap() },
        index: ("i".parse().unwrap(), blob),
        bundle: ("b".parse().unwrap(), blob),
    };
    [("41", 1), ("42", 2), ("43", 3)].map(bundle).to_vec()
}

fn act(published: &[Published], what: &Control, hour: i64) -> (Vec<Published>, String) {
    let begun = Begun { now: at(hour), by: "ann", reason: "tills are slow".into() };
    let (changed, said) = control(&published[0], what, &begun, &bundles()).unwrap();
    (changed.map_or_else(|| published.to_vec(), |changed| vec![changed]), said)
}

#[test]
fn publishing_again_does_not_begin_a_rollout_again() {
    let (first, said) = publish(policy("42", BATCHES), &[], 0);
    assert!(said.contains("4 batches"), "{said}");
    let (again, _) = publish(policy("42", BATCHES), &first, 5);
    assert_eq!(again, first);
    // Something else of the policy is not about its rollout.
    let more = format!("{BATCHES},\"reboot\":\"never\"");
    let (other, _) = publish(policy("42", &more), &first, 5);
    assert_eq!(plan(&other), plan(&first));
    // Another bundle is another rollout, and it is known what it replaced.
    let (next, _) = publish(policy("43", BATCHES), &first, 5);
    assert_eq!((plan(&next).started_at, plan(&next).previous.clone()), (at(5), Some("42".parse().unwrap())));
}

#[test]
fn a_halt_stays_until_somebody_resumes_or_another_bundle_comes() {
    let (first, _) = publish(policy("42", BATCHES), &[], 0);
    let (halted, said) = act(&first, &Control::Halt, 1);
    assert!(said.contains("running → halted (ann, tills are slow)"), "{said}");
    assert_eq!(act(&halted, &Control::Halt, 2).0, halted);
    assert!(act(&halted, &Control::Pause, 2).1.contains("is halted already"));
    let (again, said) = publish(policy("42", BATCHES), &halted, 2);
    assert_eq!(again, halted);
    assert!(said.contains("stays halted by ann"), "{said}");
    // The same bundle in another way is still halted.
    let wider = BATCHES.replace("25%", "50%");
    let (wider, _) = publish(policy("42", &wider), &halted, 2);
    assert_eq!((plan(&wider).state, plan(&wider).steps.len()), (PlanState::Halted, 2));
    assert_eq!(plan(&wider).last_control().unwrap().by, "ann");
    let (next, said) = publish(policy("43", BATCHES), &halted, 2);
    assert_eq!(plan(&next).state, PlanState::Running);
    assert!(said.contains("the rollout of bundle 42 was halted by ann"), "{said}");
    // Two batches had begun; the others begin an hour after the resumption, and an hour after that.
    let (resumed, _) = act(&halted, &Control::Resume, 100);
    let times: Vec<UnixTime> = plan(&resumed).steps.iter().map(|step| step.not_before).collect();
    assert_eq!(times, [at(0), at(1), at(101), at(102)]);
    assert_eq!(plan(&resumed).history.len(), 3);
}

#[test]
fn a_rollback_stays_while_git_still_names_what_was_left() {
    let (first, _) = publish(policy("42", BATCHES), &[], 0);
    let (second, _) = publish(policy("43", BATCHES), &first, 10);
    let (back, said) = act(&second, &Control::Rollback(None), 11);
    assert!(said.contains("bundle 43 → 42"), "{said}");
    assert_eq!(back[0].policy.bundle.version.as_str(), "42");
    assert_eq!(plan(&back).rolled_back_from, Some("43".parse().unwrap()));
    // Somebody merges something else: CI publishes all of Git, which still has 43.
    let (still, said) = publish(policy("43", BATCHES), &back, 12);
    assert_eq!(still, back);
    assert!(
        said.contains("stays at bundle 42") && said.contains("by ann") && said.contains("revert"),
        "{said}"
    );
    // The commit is reverted: now Git and the repository agree, and 43 may come again another day.
    let (caught_up, said) = publish(policy("42", BATCHES), &still, 13);
    assert_eq!((plan(&caught_up).rolled_back_from.clone(), said.as_str()), (None, ""));
    let (again, _) = publish(policy("43", BATCHES), &caught_up, 14);
    assert_eq!(again[0].policy.bundle.version.as_str(), "43");
    // Or somebody says on the repository that Git is right.
    let (resumed, _) = act(&still, &Control::Resume, 13);
    let (again, _) = publish(policy("43", BATCHES), &resumed, 14);
    assert_eq!(again[0].policy.bundle.version.as_str(), "43");
    // A third bundle overrides it, and says so.
    let (_, said) = publish(policy("41", BATCHES), &still, 13);
    assert!(said.contains("bundle 41 overrides the rollback from 43 by ann"), "{said}");
}

#[test]
fn a_release_stays_as_long_as_the_bundle_is_the_same_whatever_git_says_of_it() {
    let released = |published: &[Published]| published[0].policy.release.clone();
    let release =
        |version: &str, before: UnixTime| Control::Release { version: version.parse().unwrap(), before };
    for strategy in [BATCHES, ""] {
        let (first, _) = publish(policy("42", strategy), &[], 0);
        // Not of what is still to come.
        let (now, said) = act(&first, &release("42", at(900)), 5);
        assert!(said.contains("bundle 42 before") && said.contains("(ann, tills are slow)"), "{said}");
        assert_eq!(released(&now), BTreeMap::from([("42".parse().unwrap(), at(5))]));
        assert_eq!(plan(&now).state, PlanState::Running);
        assert_eq!(act(&now, &release("42", at(4)), 6).0, now);
        // Somebody merges something else, and Git knows nothing of it.
        assert_eq!(publish(policy("42", strategy), &now, 7).0, now);
        let wider = BATCHES.replace("25%", "50%");
        assert_eq!(released(&publish(policy("42", &wider), &now, 7).0), released(&now));
        // Stopping and going on is another matter.
        let (halted, _) = act(&now, &Control::Halt, 8);
        assert_eq!(plan(&act(&halted, &release("42", at(8)), 9).0).state, PlanState::Halted);
        assert_eq!(released(&publish(policy("43", strategy), &now, 9).0), BTreeMap::new());
    }
}

#[test]
fn a_policy_without_a_strategy_has_no_plan_until_it_is_stopped() {
    let (first, _) = publish(policy("42", ""), &[], 0);
    assert_eq!(first[0].plan, None);
    let (halted, _) = act(&first, &Control::Halt, 1);
    assert_eq!((plan(&halted).state, plan(&halted).steps.len()), (PlanState::Halted, 1));
    let (again, _) = publish(policy("42", ""), &halted, 2);
    assert_eq!(again, halted);
    let (next, _) = publish(policy("43", ""), &halted, 2);
    assert_eq!(next[0].plan, None);
    // Without a plan it is not known what was before: the bundle before it in the repository.
    let (back, _) = act(&next, &Control::Rollback(None), 3);
    assert_eq!(back[0].policy.bundle.version.as_str(), "42");
}

#[test]
fn a_rollback_goes_to_an_older_bundle_that_there_is() {
    let (first, _) = publish(policy("42", BATCHES), &[], 0);
    let begun = Begun { now: at(1), by: "ann", reason: "r".into() };
    let to = |version: &str| {
        control(&first[0], &Control::Rollback(Some(version.parse().unwrap())), &begun, &bundles())
    };
    assert!(to("43").unwrap_err().contains("not older"));
    assert!(to("40").unwrap_err().contains("no bundle 40 is published"));
    assert!(to("42").unwrap().0.is_none());
    assert_eq!(to("41").unwrap().0.unwrap().policy.bundle.version.as_str(), "41");
}

#[test]
fn a_window_that_is_changed_moves_what_has_not_begun() {
    let (first, _) = publish(policy("42", BATCHES), &[], 0);
    let window = format!(r#"{BATCHES},"schedule":{{"maintenanceWindow":"02:00-04:00","timezone":"UTC"}}"#);
    let (moved, said) = publish(policy("42", &window), &first, 1);
    let times: Vec<UnixTime> = plan(&moved).steps.iter().map(|step| step.not_before).collect();
    assert_eq!(times, [at(0), at(1), at(3), at(26)]);
    assert_eq!(plan(&moved).started_at, at(0));
    assert!(said.contains("get new times"), "{said}");
}

#[test]
fn how_many_nodes_there_are_is_known_from_before() {
    let batches = BATCHES.replace("\"25%\"", "10");
    let next = prepare(vec![policy("42", &batches)], &[], None, "git", at(0));
    assert!(
        next.problems[0].starts_with("ops/edge: spec.rolloutStrategy: batchSize 10"),
        "{:?}",
        next.problems
    );
    let fleet = Fleet::Count(40);
    let first = prepare(vec![policy("42", &batches)], &[], Some(&fleet), "git", at(0)).policies;
    let (next, _) = publish(policy("43", &batches), &first, 1);
    assert_eq!((plan(&next).nodes, plan(&next).steps.len()), (Some(40), 4));
}
