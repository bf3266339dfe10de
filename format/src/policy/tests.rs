use proptest::collection::{btree_map, btree_set};
use proptest::option;
use proptest::prelude::*;

use super::*;

/// What `T` reads from texts of a pattern.
fn named<T: std::str::FromStr + fmt::Debug>(pattern: &'static str) -> impl Strategy<Value = T>
where
    T::Err: fmt::Debug,
{
    pattern.prop_map(|text| text.parse().unwrap())
}

fn values() -> impl Strategy<Value = std::collections::BTreeSet<LabelValue>> {
    btree_set(named("[a-c]"), 1..3)
}

/// Over few keys and values, so that two of them have something to do with each other.
fn selector() -> impl Strategy<Value = Selector> {
    let operator = prop_oneof![
        values().prop_map(Operator::In),
        values().prop_map(Operator::NotIn),
        Just(Operator::Exists),
        Just(Operator::DoesNotExist),
    ];
    let expression = (named("[xyz]"), operator).prop_map(|(key, operator)| Expression { key, operator });
    (btree_map(named("[xyz]"), named("[a-c]"), 0..2), btree_set(expression, 0..4))
        .prop_map(|(labels, expressions)| Selector { labels, expressions: expressions.into_iter().collect() })
}

fn schedule() -> impl Strategy<Value = Schedule> {
    let window = named("(Mon|Tue,Thu|Fri-Sun) (0[0-9]|2[0-3]):[0-5][0-9]-1[0-9]:[0-5][0-9]");
    (btree_set(window, 1..4), option::of(named("(UTC|Europe/Berlin|Etc/GMT[+]5)")))
        .prop_map(|(windows, timezone)| Schedule { windows: windows.into_iter().collect(), timezone })
}

fn amount() -> impl Strategy<Value = Amount> {
    prop_oneof![(1u32..1000).prop_map(Amount::Nodes), (1u8..=100).prop_map(|n| Amount::Share(Percent(n)))]
}

fn rollout() -> impl Strategy<Value = Rollout> {
    let batches = (amount(), 0u32..40_000).prop_map(|(batch_size, batch_delay_minutes)| {
        RolloutType::RollingUpdate { batch_size, batch_delay_minutes }
    });
    let kind = prop_oneof![Just(RolloutType::AllAtOnce), batches];
    let canary = option::of(selector().prop_filter("some", |s| !s.is_empty()));
    (kind, canary, option::of(0u8..=100), option::of(amount())).prop_map(
        |(kind, canary, threshold, max_unavailable_per_site)| Rollout {
            kind,
            canary,
            failure_threshold: threshold.map(Percent),
            max_unavailable_per_site,
        },
    )
}

fn rollback() -> impl Strategy<Value = Rollback> {
    (any::<bool>(), option::of(named("https?://[a-z.]{1,9}(:80)?(/[a-z%?=]{0,9})?")), option::of(1u32..3600))
        .prop_map(|(enabled, health_check_url, health_check_timeout_seconds)| Rollback {
            enabled,
            health_check_url,
            health_check_timeout_seconds,
        })
}

fn policy() -> impl Strategy<Value = PatchPolicy> {
    let transfer = (option::of(schedule()), option::of(named("[1-9][0-9]{0,4}(kbit|MB|KiB)/s")))
        .prop_map(|(schedule, rate)| Transfer { schedule, rate });
    let bundle = (
        named("[0-9A-Za-z][0-9A-Za-z._+~-]{0,9}"),
        option::of(named("sha256:([0-9a-f]{6,63}([.]{3})?|[0-9a-f]{64})")),
    )
        .prop_map(|(version, checksum)| BundleRef { version, checksum });
    let release = btree_map(named("[a-z]{1,3}"), (0i64..4_000_000_000).prop_map(UnixTime), 0..4);
    (
        (
            named("[a-z]([a-z0-9-]{0,8}[a-z])?([.][a-z]{1,3}){0,2}"),
            named("[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?"),
        ),
        bundle,
        selector(),
        (option::of(schedule()), option::of(rollout()), option::of(rollback()), option::of(transfer)),
        (option::of(prop::sample::select(&Reboot::ALL[..])), release, any::<bool>()),
    )
        .prop_map(
            |(
                (name, namespace),
                bundle,
                selector,
                (schedule, rollout, rollback, transfer),
                (reboot, release, paused),
            )| {
                PatchPolicy {
                    name,
                    namespace,
                    bundle,
                    selector,
                    schedule,
                    rollout,
                    rollback,
                    transfer,
                    reboot,
                    release,
                    paused,
                }
            },
        )
}

/// Every way to label a node with the keys and values of [`selector`], and one value that no selector names.
fn all_labels() -> Vec<BTreeMap<String, String>> {
    let values = [None, Some("a"), Some("b"), Some("c"), Some("other")];
    let mut all = vec![BTreeMap::new()];
    for key in ["x", "y", "z"] {
        all = all
            .iter()
            .flat_map(|labels| {
                values.map(|value| {
                    let mut labels = labels.clone();
                    labels.extend(value.map(|value| (key.to_owned(), value.to_owned())));
                    labels
                })
            })
            .collect();
    }
    all
}

proptest! {
    #[test]
    fn written_and_read_back(policy in policy()) {
        let written = policy.to_json();
        prop_assert_eq!(PatchPolicy::from_json(&written), Ok(policy.clone()), "{}", String::from_utf8_lossy(&written));
        prop_assert_eq!(policy.target_path().unwrap().to_string(), format!("policies/{}/policy.json", policy.id()));
    }

    #[test]
    fn two_selectors_overlap_exactly_if_some_node_could_match_both(a in selector(), b in selector()) {
        match a.overlap(&b) {
            Some(labels) => prop_assert!(a.matches(&labels) && b.matches(&labels), "{labels:?}"),
            None => prop_assert!(!all_labels().iter().any(|labels| a.matches(labels) && b.matches(labels))),
        }
        prop_assert_eq!(a.overlap(&b).is_some(), b.overlap(&a).is_some());
    }

    #[test]
    fn whatever_is_read_does_not_panic(text in ".{0,200}", cut in any::<prop::sample::Index>()) {
        let _ = PatchPolicy::from_json(text.as_bytes());
        let golden = include_bytes!("../../tests/data/policy/maximal.json");
        let _ = PatchPolicy::from_json(&golden[..cut.index(golden.len())]);
        for read in [text.parse::<Percent>().map(|p| p.to_string()).ok(), text.parse::<Checksum>().map(|c| c.to_string()).ok()] {
            prop_assert!(read.is_none_or(|shown| !shown.is_empty()));
        }
    }
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

fn expression(key: &str, operator: Operator) -> Selector {
    Selector {
        labels: BTreeMap::new(),
        expressions: vec![Expression { key: key.parse().unwrap(), operator }],
    }
}

fn set(values: &[&str]) -> std::collections::BTreeSet<LabelValue> {
    values.iter().map(|v| v.parse().unwrap()).collect()
}

#[test]
fn expressions_mean_what_they_mean_in_kubernetes() {
    let nodes = [labels(&[]), labels(&[("ring", "1")]), labels(&[("ring", "2")])];
    for (operator, matching) in [
        (Operator::In(set(&["1", "3"])), [false, true, false]),
        (Operator::NotIn(set(&["1", "3"])), [true, false, true]),
        (Operator::Exists, [false, true, true]),
        (Operator::DoesNotExist, [true, false, false]),
    ] {
        let selector = expression("ring", operator);
        assert_eq!([0, 1, 2].map(|n| selector.matches(&nodes[n])), matching, "{selector:?}");
    }
    assert!(nodes.iter().all(|node| Selector::default().matches(node)));
}

#[test]
fn an_overlap_names_a_node_that_would_have_two_policies() {
    let both = expression("ring", Operator::In(set(&["1", "2"])))
        .overlap(&expression("ring", Operator::NotIn(set(&["1"]))));
    assert_eq!(both, Some(labels(&[("ring", "2")])));
    let apart =
        expression("ring", Operator::In(set(&["1"]))).overlap(&expression("ring", Operator::In(set(&["2"]))));
    assert_eq!(apart, None);
    assert_eq!(expression("a", Operator::Exists).overlap(&expression("a", Operator::DoesNotExist)), None);
    let free =
        expression("a", Operator::Exists).overlap(&expression("a", Operator::NotIn(set(&["value-0"]))));
    assert_eq!(free, Some(labels(&[("a", "value-1")])));
}

#[test]
fn a_checksum_may_be_the_beginning_of_one() {
    let digest = crate::digest::Sha256::of(b"abc"); // ba7816bf…
    for (text, matches, shown) in [
        ("sha256:ba7816...", true, "sha256:ba7816..."),
        ("sha256:ba7816b", true, "sha256:ba7816b..."),
        ("sha256:ba7817", false, "sha256:ba7817..."),
        (&format!("sha256:{digest}"), true, &format!("sha256:{digest}")),
    ] {
        let checksum: Checksum = text.parse().unwrap();
        assert_eq!((checksum.matches(&digest), checksum.to_string().as_str()), (matches, shown));
    }
    for bad in [
        "sha256:",
        "sha256:ba781",
        "sha256:BA7816",
        "ba7816",
        "sha256:ba7816....",
        &format!("sha256:{digest}..."),
    ] {
        assert!(bad.parse::<Checksum>().is_err(), "{bad}");
    }
}

#[test]
fn names_are_those_of_kubernetes_and_harmless() {
    for good in ["a", "edge-fleet-q4-2024", "a.b-c.d", "0"] {
        assert!(good.parse::<PolicyName>().is_ok(), "{good}");
    }
    for bad in ["", "A", "a..b", "-a", "a-", "a_b", "a/b", ".a"] {
        assert!(bad.parse::<PolicyName>().is_err(), "{bad}");
    }
    assert!("a".repeat(63).parse::<Namespace>().is_ok() && "a".repeat(64).parse::<Namespace>().is_err());
    assert!("a".repeat(253).parse::<PolicyName>().is_ok() && "a".repeat(254).parse::<PolicyName>().is_err());
    for good in ["role", "example.com/role", "A_b.c-d", "1"] {
        assert!(good.parse::<LabelKey>().is_ok(), "{good}");
    }
    for bad in ["", "/a", "a/", "a/b/c", "Example.com/a", "-a", "a b", "ä"] {
        assert!(bad.parse::<LabelKey>().is_err(), "{bad}");
    }
    for good in ["UTC", "America/Argentina/Buenos_Aires", "Etc/GMT+5", "EST5EDT", "America/Port-au-Prince"] {
        assert!(good.parse::<ZoneName>().is_ok(), "{good}");
    }
    for bad in ["", "/UTC", "..", "Europe/..", "Europe//Berlin", "posix/../x", "+5", "UTC\n"] {
        assert!(bad.parse::<ZoneName>().is_err(), "{bad}");
    }
    for good in ["http://localhost:8080/health", "https://h", "http://[::1]/?a@b"] {
        assert!(good.parse::<HttpUrl>().is_ok(), "{good}");
    }
    for bad in [
        "http://",
        "ftp://h",
        "http:///x",
        "http://:80/",
        "http://a@b/",
        "http://h/#f",
        "http://h/ x",
        "HTTP://h",
    ] {
        assert!(bad.parse::<HttpUrl>().is_err(), "{bad}");
    }
}

#[test]
fn an_amount_is_at_least_one_node_and_at_most_all() {
    let share = |n| Amount::Share(Percent(n));
    for (amount, all, nodes) in [
        (Amount::Nodes(100), 40, 40),
        (Amount::Nodes(100), 400, 100),
        (share(10), 101, 11),
        (share(1), 3, 1),
        (share(100), u64::MAX, u64::MAX),
        (share(50), 0, 1),
    ] {
        assert_eq!(amount.of(all), nodes, "{amount} of {all}");
    }
}

#[test]
fn everything_that_is_wrong_is_said_with_its_place() {
    let text = br#"{"apiVersion":"patchmgmt.io/v1","kind":"PatchPolicy","metadata":{"name":"A"},"spec":{
        "bundleRef":{"version":7},"targets":{"selector":{"matchExpressions":[{"key":"x y","operator":"Exists"}]}},
        "reboots":1,"rolloutStrategy":{"type":"RollingUpdate"}}}"#;
    let Err(PolicyError::Problems(problems)) = PatchPolicy::from_json(text) else { panic!() };
    let places: Vec<String> = problems.iter().map(|problem| problem.at.to_string()).collect();
    assert_eq!(
        places,
        [
            "metadata.name",
            "spec.reboots",
            "spec.bundleRef.version",
            "spec.targets.selector.matchExpressions[0].key",
            "spec.rolloutStrategy"
        ]
    );
}
