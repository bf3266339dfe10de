use super::*;
use format::rollout::Standing;

fn policy(more: &str) -> PatchPolicy {
    let text = format!(
        r#"{{"apiVersion":"patchmgmt.io/v1","kind":"PatchPolicy","metadata":{{"name":"edge","namespace":"operations"}},
        "spec":{{"bundleRef":{{"version":"42"}},"targets":{{"selector":{{"matchLabels":{{"role":"edge"}}}}}}{more}}}}}"#
    );
    PatchPolicy::from_json(text.as_bytes()).unwrap()
}

fn rolling(size: &str, delay: u32, more: &str) -> PatchPolicy {
    policy(&format!(
        r#","rolloutStrategy":{{"type":"RollingUpdate","batchSize":{size},"batchDelayMinutes":{delay}{more}}}"#
    ))
}

fn at(text: &str) -> UnixTime {
    text.parse().unwrap()
}

/// A Monday.
const MONDAY: &str = "2026-11-23T12:00:00Z";

fn begun() -> Begun<'static> {
    Begun { now: at(MONDAY), by: "ann", reason: "bundle 41 → 42".into() }
}

fn planned(policy: &PatchPolicy, fleet: Option<&Fleet>) -> RolloutPlan {
    let plan = plan(policy, fleet, &begun()).unwrap();
    assert_eq!(RolloutPlan::from_json(&plan.to_json()), Ok(plan.clone()));
    plan
}

fn times(plan: &RolloutPlan) -> Vec<String> {
    plan.steps.iter().map(|step| step.not_before.to_string()).collect()
}

fn fleet(count: u32) -> Fleet {
    let labels = |n: u32| {
        let mut labels = Labels::from([
            ("role".to_owned(), "edge".to_owned()),
            ("site".to_owned(), format!("s{}", n / 8)),
        ]);
        if n < 5 {
            labels.insert("ring".to_owned(), "canary".to_owned());
        }
        labels
    };
    Fleet::Nodes((0..count).map(|n| (format!("node-{n}").parse().unwrap(), labels(n))).collect())
}

#[test]
fn a_number_of_nodes_makes_cumulative_shares() {
    let plan = planned(&rolling("100", 15, ""), Some(&Fleet::Count(950)));
    let up_to: Vec<u32> = plan.steps.iter().map(|step| step.up_to).collect();
    assert_eq!(up_to.len(), 10);
    assert_eq!((up_to[0], up_to[8], up_to[9]), (105_263, 947_368, POSITIONS));
    assert_eq!(times(&plan)[..2], [MONDAY.to_owned(), "2026-11-23T12:15:00Z".to_owned()]);
    assert_eq!((plan.nodes, plan.state), (Some(950), PlanState::Running));
}

#[test]
fn a_share_needs_no_number_and_a_number_needs_one() {
    let plan = planned(&rolling("\"30%\"", 60, ""), None);
    assert_eq!(
        plan.steps.iter().map(|s| s.up_to).collect::<Vec<_>>(),
        [300_000, 600_000, 900_000, POSITIONS]
    );
    assert_eq!(plan.nodes, None);
    let why = super::plan(&rolling("100", 15, ""), None, &begun()).unwrap_err();
    assert!(why.contains("--nodes N or --inventory FILE"), "{why}");
    let nobody = Fleet::Nodes(vec![("till-1".parse().unwrap(), Labels::new())]);
    let why = super::plan(&rolling("100", 15, ""), Some(&nobody), &begun()).unwrap_err();
    assert!(why.contains("no node of the inventory"), "{why}");
    let why = super::plan(&rolling("1", 15, ""), Some(&Fleet::Count(10_000)), &begun()).unwrap_err();
    assert!(why.contains("10000 batches"), "{why}");
}

#[test]
fn with_an_inventory_each_batch_has_as_many_nodes_as_it_was_to_have() {
    let policy =
        rolling("25", 15, r#","canary":{"matchLabels":{"ring":"canary"}},"maxUnavailablePerSite":2"#);
    let fleet = fleet(205);
    let plan = planned(&policy, Some(&fleet));
    let Fleet::Nodes(nodes) = &fleet else { panic!() };
    let mut sizes = vec![0; plan.steps.len()];
    for (node, labels) in nodes {
        sizes[plan.step_of(node, labels)] += 1;
    }
    assert_eq!(sizes, [5, 25, 25, 25, 25, 25, 25, 25, 25]);
    // The largest site has 8 nodes, of which two at a time.
    assert_eq!((plan.nodes, plan.site_turns), (Some(205), Some(4)));
    let Standing::Wait { step, .. } = plan.standing(&nodes[100].0, &nodes[100].1, at(MONDAY)) else {
        panic!()
    };
    assert!(step > 0);
}

#[test]
fn batches_are_counted_while_the_window_is_open() {
    let window = r#","schedule":{"maintenanceWindow":"Tue 02:00-04:00","timezone":"America/New_York"}"#;
    let mut policy = rolling("\"10%\"", 45, "");
    policy.schedule = self::policy(window).schedule;
    let plan = planned(&policy, None);
    // 02:00 in New York is 07:00 UTC: three begin in each window, and none of them comes due in between.
    let times = times(&plan);
    assert_eq!(
        times[..4],
        ["2026-11-24T07:00:00Z", "2026-11-24T07:45:00Z", "2026-11-24T08:30:00Z", "2026-12-01T07:15:00Z"]
    );
    assert_eq!((times.len(), plan.local_time), (10, false));
    // A batch at the very end of a window has no time left: it begins with the next.
    let mut hourly = rolling("\"50%\"", 120, "");
    hourly.schedule = policy.schedule.clone();
    assert_eq!(self::times(&planned(&hourly, None))[1], "2026-12-01T07:00:00Z");
    // The clocks of New York change in between: 02:00 is 06:00 UTC.
    let summer = Begun { now: at("2027-03-12T00:00:00Z"), ..begun() };
    let plan = super::plan(&hourly, None, &summer).unwrap();
    assert_eq!(self::times(&plan), ["2027-03-16T06:00:00Z", "2027-03-23T06:00:00Z"]);
}

#[test]
fn a_window_without_a_zone_is_counted_on_each_nodes_own_clock() {
    let mut policy = rolling("\"50%\"", 30, "");
    policy.schedule = self::policy(r#","schedule":{"maintenanceWindow":"22:00-05:30"}"#).schedule;
    let plan = planned(&policy, None);
    assert!(plan.local_time);
    assert_eq!(times(&plan), ["2026-11-23T22:00:00Z", "2026-11-23T22:30:00Z"]);
}

#[test]
fn canaries_are_one_delay_ahead_and_a_day_where_there_are_no_batches() {
    let canary = r#","canary":{"matchLabels":{"ring":"canary"}}"#;
    let plan = planned(&rolling("\"50%\"", 30, canary), None);
    assert_eq!(plan.steps.iter().map(|s| s.up_to).collect::<Vec<_>>(), [0, 500_000, POSITIONS]);
    assert_eq!(times(&plan), [MONDAY, "2026-11-23T12:30:00Z", "2026-11-23T13:00:00Z"]);
    let all = policy(&format!(r#","rolloutStrategy":{{"type":"AllAtOnce"{canary}}}"#));
    assert_eq!(times(&planned(&all, None)), [MONDAY, "2026-11-24T12:00:00Z"]);
    let all = policy(r#","rolloutStrategy":{"type":"AllAtOnce"}"#);
    assert_eq!(times(&planned(&all, None)), [MONDAY]);
    // Without a delay all batches would begin at once: they are one.
    assert_eq!(planned(&rolling("\"10%\"", 0, ""), None).steps.len(), 1);
}

#[test]
fn a_rollout_that_would_take_years_is_refused() {
    let mut policy = rolling("\"1%\"", 600, "");
    policy.schedule =
        self::policy(r#","schedule":{"maintenanceWindow":"Tue 02:00-04:00","timezone":"UTC"}"#).schedule;
    let why = super::plan(&policy, None, &begun()).unwrap_err();
    assert!(why.contains("two years"), "{why}");
}

#[test]
fn after_a_stop_what_has_not_begun_is_spread_anew_and_nothing_piles_up() {
    let policy = rolling("\"25%\"", 60, "");
    let mut plan = planned(&policy, None);
    // Stopped at 13:30, two batches in; resumed a week later.
    let (stopped, now) = (at("2026-11-23T13:30:00Z"), at("2026-11-30T09:00:00Z"));
    retime(&mut plan, &policy, stopped, now).unwrap();
    assert_eq!(
        times(&plan),
        [MONDAY, "2026-11-23T13:00:00Z", "2026-11-30T10:00:00Z", "2026-11-30T11:00:00Z"]
    );
    // Before anything began, all of it moves.
    let mut plan = planned(&policy, None);
    retime(&mut plan, &policy, at("2026-11-23T11:00:00Z"), now).unwrap();
    assert_eq!(times(&plan)[..2], ["2026-11-30T09:00:00Z", "2026-11-30T10:00:00Z"]);
    // And when everything has, nothing does.
    let mut plan = planned(&policy, None);
    let before = plan.clone();
    retime(&mut plan, &policy, now, now).unwrap();
    assert_eq!(plan, before);
}

#[test]
fn a_site_takes_turns_by_share_or_by_its_largest_size() {
    assert_eq!(turns(Amount::Share("34%".parse().unwrap()), None), Some(3));
    assert_eq!(turns(Amount::Share("100%".parse().unwrap()), None), None);
    assert_eq!(turns(Amount::Nodes(1), None), None);
    assert_eq!(turns(Amount::Nodes(2), Some(9)), Some(5));
    assert_eq!(turns(Amount::Nodes(1), Some(100_000)), Some(MAX_SITE_TURNS));
}
