//! Which bundle this node should have, and whether it may begin to install it. Pure: trusted metadata, the node's rule and the
//! time in, a choice with its reason out.

use std::collections::BTreeMap;

use format::digest::Sha256;
use format::index::IndexCustom;
use format::json::Json;
use format::name::{BundleVersion, NodeId, TargetPath, Variant};
use format::policy::PatchPolicy;
use format::report::BundleRef;
use format::rollout::{PlanState, RolloutPlan, SITE_TURN, Standing, site_turn, turn_begins};
use format::status::RolloutStatus;
use format::time::UnixTime;
use format::trust::{Search, SearchStep, TrustedMetadataSet};
use serde::Deserialize as _;

use crate::policy::Rule;

/// A bundle that the repository offers to this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Which.
    pub bundle: BundleRef,
    /// The index's target path.
    pub path: TargetPath,
    /// The index's exact length.
    pub length: u64,
}

/// What the repository means for this node.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// Have this bundle.
    Take {
        /// The one to have.
        offer: Offer,
        /// Those that will do as long as it is not here, the best first.
        otherwise: Vec<Offer>,
    },
    /// There is none for it, and that is as it should be; why, in words for an operator.
    Nothing(String),
    /// It should have one that it cannot have yet; why, in words for an operator.
    Wait(String),
}

/// The node as a rollout sees it.
#[derive(Clone, Copy, Debug)]
pub struct Place<'n> {
    /// Its id.
    pub node: &'n NodeId,
    /// Its labels.
    pub labels: &'n BTreeMap<String, String>,
    /// What time it is.
    pub now: UnixTime,
    /// What the clock on its wall shows, as if it were UTC.
    pub wall: UnixTime,
    /// Whether it has a lock server to ask, and so needs no turn of its own.
    pub has_lock: bool,
}

/// Why an install may not begin, as a rollout sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Nobody may, whoever asks: it was stopped, or there is no plan.
    Stopped(String),
    /// This node may later; a person on it need not wait.
    Wait(String),
}

/// Whether an install may begin by the rollout of the policy of this node, and how it stands.
///
/// Only the install waits: the bundle is fetched before, so that it is here when the node's batch begins, and a rollout that
/// is stopped costs no day.
pub fn may_begin(
    policy: &PatchPolicy,
    plan: Option<&RolloutPlan>,
    place: &Place<'_>,
) -> (std::result::Result<(), Hold>, Option<RolloutStatus>) {
    let (id, version) = (policy.id(), &policy.bundle.version);
    let Some(plan) = plan else {
        if !policy.needs_plan() {
            return (Ok(()), None);
        }
        let why = format!(
            "policy {id} has a rolloutStrategy, and the repository has no plan for its bundle {version}: publish the policies \
             again"
        );
        return (Err(Hold::Stopped(why)), None);
    };
    let time = if plan.local_time { place.wall } else { place.now };
    let step = plan.step_of(place.node, place.labels);
    let not_before = plan.steps.get(step).map_or(plan.started_at, |step| step.not_before);
    let by = plan.last_control().filter(|_| plan.state != PlanState::Running);
    let status = RolloutStatus {
        bundle: version.clone(),
        state: plan.state.to_string(),
        batch: plan.step_name(step),
        not_before,
        local_time: plan.local_time,
        stopped_by: by.map(|act| act.by.clone()),
        reason: by.map(|act| act.reason.clone()),
    };
    let held = match plan.standing(place.node, place.labels, time) {
        Standing::Stopped => {
            let by =
                by.map(|act| format!(" since {} by {}: {}", act.at, act.by, act.reason)).unwrap_or_default();
            Err(Hold::Stopped(format!(
                "the rollout of bundle {version} by policy {id} is {}{by}",
                plan.state
            )))
        }
        Standing::Wait { step, not_before } => {
            let when = match plan.local_time {
                // The clock on the wall is nobody's UTC.
                true => format!(
                    "{} by this node's clock",
                    not_before.to_string().replace('T', " ").replace('Z', "")
                ),
                false => not_before.to_string(),
            };
            let who = match plan.step_name(step) {
                name if plan.canary.is_some() && step == 0 => format!("this node is one of {name}"),
                name => format!("this node is in {name}"),
            };
            Err(Hold::Wait(format!("by policy {id}, {who} of bundle {version}, and that begins at {when}")))
        }
        Standing::Go { .. } => turn_at_site(plan, place).map_err(Hold::Wait),
    };
    (held, Some(status))
}

/// Where a site's nodes take turns and there is no lock server: whether it is this one's turn.
fn turn_at_site(plan: &RolloutPlan, place: &Place<'_>) -> std::result::Result<(), String> {
    let (Some(turns), Some(site)) = (plan.site_turns, place.labels.get("site")) else { return Ok(()) };
    if place.has_lock {
        return Ok(());
    }
    let turn = site_turn(site, place.node, place.now, turns);
    match turn_begins(turn, turns, place.now) {
        begins if begins <= place.now => Ok(()),
        // Without the time, which is another one each round: the centre need not hear of each.
        _ => Err(format!(
            "policy {} has the nodes of site {site} take {turns} turns of {} minutes, and it is not this node's yet",
            plan.policy(),
            SITE_TURN / 60
        )),
    }
}

/// A target path that no bundle can have, but that every role that may speak of `variant`'s bundles covers: a version
/// never begins with an underscore.
pub fn probe(variant: &Variant) -> String {
    format!("bundles/{variant}/_/index.json")
}

/// What `rule` makes of the bundles for `variant`. Without a policy every bundle may be had, the newest first; a policy
/// names one.
pub fn decide(set: &TrustedMetadataSet, variant: &Variant, rule: &Rule) -> Decision {
    choose(offers(set, variant), variant, rule)
}

fn choose(mut offers: Vec<Offer>, variant: &Variant, rule: &Rule) -> Decision {
    match rule {
        Rule::Newest if offers.is_empty() => {
            Decision::Nothing(format!("the repository has no bundle for the variant {variant}"))
        }
        Rule::Newest => Decision::Take { offer: offers.remove(0), otherwise: offers },
        Rule::NotSelected => Decision::Nothing("no policy is for this node (see its labels)".to_owned()),
        Rule::Policy(policy) if policy.paused => Decision::Wait(format!("policy {} is paused", policy.id())),
        Rule::Policy(policy) => {
            let version = &policy.bundle.version;
            match offers.into_iter().find(|offer| offer.bundle.version == *version) {
                Some(offer) => Decision::Take { offer, otherwise: Vec::new() },
                None => Decision::Wait(format!(
                    "policy {} names the bundle {version}, and the repository has none of that name for the variant \
                     {variant}",
                    policy.id()
                )),
            }
        }
    }
}

/// All bundles for `variant`, the newest first: that with the highest serial.
pub fn offers(set: &TrustedMetadataSet, variant: &Variant) -> Vec<Offer> {
    let mut search = set.search(&probe(variant));
    let _ = search.step(set);
    let mut offers: Vec<Offer> =
        search.visited().iter().flat_map(|role| offers_of(set, role, variant)).collect();
    // What a role lists counts only if the search for that very path ends there (a delegation's paths, and priority).
    offers.retain(|offer| search_finds(&mut set.search(offer.path.as_str()), set, offer.bundle.index));
    // The serial orders bundles; of two with the same, which a centre never makes, the digest decides the same everywhere.
    offers.sort_by_key(|offer| std::cmp::Reverse((offer.bundle.serial, offer.bundle.index)));
    offers
}

fn search_finds(search: &mut Search, set: &TrustedMetadataSet, digest: Sha256) -> bool {
    matches!(search.step(set), SearchStep::Found(file) if file.hashes.sha256 == Some(digest))
}

fn offers_of<'s>(
    set: &'s TrustedMetadataSet,
    role: &str,
    variant: &'s Variant,
) -> impl Iterator<Item = Offer> + 's {
    let targets = set.targets(role).map(|t| &t.targets);
    targets.into_iter().flatten().filter_map(move |(path, file)| {
        let version = path
            .strip_prefix("bundles/")?
            .strip_prefix(variant.as_str())?
            .strip_prefix('/')?
            .strip_suffix("/index.json")?;
        let version: BundleVersion = version.parse().ok()?;
        let custom = custom_of(&file.custom)?;
        let index = file.blob()?;
        let bundle = BundleRef { version, cycle: custom.cycle, serial: custom.serial, index: index.sha256 };
        Some(Offer { bundle, path: path.parse().ok()?, length: index.length })
    })
}

/// Reads the `custom` of an index; another shape is not a bundle of ours.
fn custom_of(custom: &Json<'_>) -> Option<IndexCustom> {
    IndexCustom::deserialize(custom.clone()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_index_with_serial_and_cycle_is_a_bundle() {
        let read = |text: &str| custom_of(&Json::parse(text.as_bytes()).unwrap());
        assert_eq!(read(r#"{"serial":7,"cycle":"2026-11","more":1}"#).unwrap().serial, 7);
        for bad in [
            "null",
            "{}",
            r#"{"serial":"7","cycle":"2026-11"}"#,
            r#"{"serial":-1,"cycle":"c"}"#,
            r#"{"serial":1,"cycle":"../c"}"#,
        ] {
            assert!(read(bad).is_none(), "{bad}");
        }
    }

    fn offer(version: &str, serial: u64) -> Offer {
        let index = Sha256::of(version.as_bytes());
        let (version, cycle) = (version.parse().unwrap(), "c".parse().unwrap());
        let path = "bundles/v/1/index.json".parse().unwrap();
        Offer { bundle: BundleRef { version, cycle, serial, index }, path, length: 1 }
    }

    fn policy(version: &str, paused: bool) -> Rule {
        let text = format!(
            r#"{{"apiVersion":"patchmgmt.io/v1","kind":"PatchPolicy","metadata":{{"name":"p"}},"spec":{{
            "bundleRef":{{"version":"{version}"}},"targets":{{"selector":{{}}}},"paused":{paused}}}}}"#
        );
        Rule::Policy(Box::new(format::policy::PatchPolicy::from_json(text.as_bytes()).unwrap()))
    }

    #[test]
    fn without_a_policy_the_newest_bundle_is_taken_and_with_one_the_bundle_that_it_names() {
        let variant: Variant = "v".parse().unwrap();
        let offers = || vec![offer("2", 2), offer("1", 1)];
        let chosen = |rule: &Rule| choose(offers(), &variant, rule);
        let take = |offer, otherwise| Decision::Take { offer, otherwise };
        assert_eq!(chosen(&Rule::Newest), take(offer("2", 2), vec![offer("1", 1)]));
        assert_eq!(chosen(&policy("1", false)), take(offer("1", 1), Vec::new()));
        assert!(
            matches!(chosen(&policy("3", false)), Decision::Wait(why) if why.contains("names the bundle 3"))
        );
        assert!(matches!(chosen(&policy("1", true)), Decision::Wait(why) if why.contains("paused")));
        assert!(matches!(chosen(&Rule::NotSelected), Decision::Nothing(_)));
        assert!(matches!(choose(Vec::new(), &variant, &Rule::Newest), Decision::Nothing(_)));
    }

    fn rolling(state: &str, more: &str) -> (PatchPolicy, RolloutPlan) {
        let policy = r#"{"apiVersion":"patchmgmt.io/v1","kind":"PatchPolicy","metadata":{"name":"p"},"spec":{
            "bundleRef":{"version":"1"},"targets":{"selector":{}},"rolloutStrategy":{"type":"RollingUpdate",
            "batchSize":10,"batchDelayMinutes":15,"canary":{"matchLabels":{"ring":"canary"}}}}}"#;
        let step = |n: i64| format!(r#"{{"upTo":{},"notBefore":"{}"}}"#, n * 250_000, UnixTime(900 * n));
        let steps: Vec<String> = (0..5).map(step).collect();
        let plan = format!(
            r#"{{"apiVersion":"patchmgmt.io/v1","kind":"RolloutPlan","policy":"default/p","bundleVersion":"1",
            "startedAt":"1970-01-01T00:00:00Z","nodes":40,"canary":{{"matchLabels":{{"ring":"canary"}}}},
            "steps":[{}],"state":"{state}"{more}}}"#,
            steps.join(",")
        );
        let policy = PatchPolicy::from_json(policy.as_bytes()).unwrap();
        (policy, RolloutPlan::from_json(plan.as_bytes()).unwrap())
    }

    /// Which of forty nodes may begin at a time; two of them are canaries.
    fn begun(rolling: &(PatchPolicy, RolloutPlan), now: i64) -> Vec<usize> {
        let may = |n: &usize| {
            let ring = if *n < 2 { "canary" } else { "rest" };
            let labels = BTreeMap::from([("ring".to_owned(), ring.to_owned())]);
            let node: NodeId = format!("node-{n}").parse().unwrap();
            let now = UnixTime(now);
            let place = Place { node: &node, labels: &labels, now, wall: now.plus(7200), has_lock: false };
            may_begin(&rolling.0, Some(&rolling.1), &place).0.is_ok()
        };
        (0..40).filter(may).collect()
    }

    #[test]
    fn forty_nodes_begin_batch_by_batch_and_canaries_before_them() {
        let rolling = rolling("running", "");
        assert_eq!(begun(&rolling, -1), Vec::<usize>::new());
        assert_eq!(begun(&rolling, 0), [0, 1]);
        assert_eq!(begun(&rolling, 899), [0, 1]);
        let sizes: Vec<usize> = (0..=4).map(|n| begun(&rolling, 900 * n).len()).collect();
        assert!(sizes.windows(2).all(|pair| pair[0] < pair[1]), "{sizes:?}");
        assert_eq!(sizes[4], 40);
        // Whoever may begin may begin later, too.
        let (one, two) = (begun(&rolling, 900), begun(&rolling, 1800));
        assert!(one.iter().all(|n| two.contains(n)));
    }

    fn held(rolling: &(PatchPolicy, RolloutPlan), plan: bool, labels: &[(&str, &str)], now: i64) -> Hold {
        let labels = labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let node: NodeId = "node-7".parse().unwrap();
        let now = UnixTime(now);
        let place = Place { node: &node, labels: &labels, now, wall: now.plus(7200), has_lock: false };
        may_begin(&rolling.0, Some(&rolling.1).filter(|_| plan), &place).0.unwrap_err()
    }

    #[test]
    fn why_not_names_the_batch_and_the_time_or_who_has_stopped_it_and_why() {
        let canary = [("ring", "canary")];
        let Hold::Wait(why) = held(&rolling("running", ""), true, &[], 0) else { panic!() };
        assert!(why.contains("default/p") && why.contains("in batch") && why.contains(" of 4"), "{why}");
        assert!(why.contains("1970-01-01T00:"), "{why}");
        let Hold::Wait(why) = held(&rolling("running", ""), true, &canary, -60) else { panic!() };
        assert!(why.contains("one of the canaries"), "{why}");
        let act =
            r#","history":[{"at":"2026-11-23T12:00:00Z","action":"halt","by":"ann","reason":"6 failed"}]"#;
        let Hold::Stopped(why) = held(&rolling("halted", act), true, &canary, 9000) else { panic!() };
        assert!(why.contains("is halted since 2026-11-23T12:00:00Z by ann: 6 failed"), "{why}");
        let Hold::Stopped(why) = held(&rolling("paused", ""), true, &canary, 9000) else { panic!() };
        assert!(why.contains("is paused"), "{why}");
        let Hold::Stopped(why) = held(&rolling("running", ""), false, &canary, 9000) else { panic!() };
        assert!(why.contains("no plan for its bundle 1"), "{why}");
    }

    #[test]
    fn a_plan_in_local_time_goes_by_the_clock_on_the_wall() {
        // Two hours ahead of UTC, all batches have begun.
        let rolling = rolling("running", r#","localTime":true"#);
        assert_eq!(begun(&rolling, -3600).len(), 40);
        let Hold::Wait(why) = held(&rolling, true, &[], -7200) else { panic!() };
        assert!(why.contains("by this node's clock") && !why.contains('Z'), "{why}");
    }

    #[test]
    fn nodes_of_a_site_take_turns_where_there_is_no_lock_server() {
        let rolling = rolling("running", r#","siteTurns":4"#);
        let site = [("site", "0815")];
        let turns: Vec<bool> = (0..4)
            .map(|n| {
                let now = UnixTime(90_000 + n * 900);
                let labels = site.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
                let node: NodeId = "node-7".parse().unwrap();
                let place = Place { node: &node, labels: &labels, now, wall: now, has_lock: false };
                may_begin(&rolling.0, Some(&rolling.1), &place).0.is_ok()
            })
            .collect();
        assert_eq!(turns.iter().filter(|turn| **turn).count(), 1, "{turns:?}");
        let off = 90_000 + 900 * turns.iter().position(|turn| !turn).unwrap() as i64;
        let Hold::Wait(why) = held(&rolling, true, &site, off) else { panic!() };
        assert!(why.contains("site 0815 take 4 turns"), "{why}");
        // With a lock server, and without a site, there is nothing to wait for.
        let node: NodeId = "node-7".parse().unwrap();
        let labels = site.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        for (labels, has_lock) in [(labels, true), (BTreeMap::new(), false)] {
            let place =
                Place { node: &node, labels: &labels, now: UnixTime(off), wall: UnixTime(off), has_lock };
            assert_eq!(may_begin(&rolling.0, Some(&rolling.1), &place).0, Ok(()));
        }
    }

    #[test]
    fn no_version_can_be_the_probe() {
        let variant: Variant = "debian-12-amd64".parse().unwrap();
        assert!(probe(&variant).split('/').nth(2).unwrap().parse::<BundleVersion>().is_err());
    }
}
