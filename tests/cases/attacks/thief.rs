//! The thief of a key. He signs what he likes with the keys that he has, and the mirror serves it.

use std::fs;

use lab::attack::{Attack, Ended, Stage};
use lab::node::User;
use serde_json::{Value, json};

/// Long ago.
const PAST: &str = "2026-01-01T00:00:00Z";

/// Both keys of a role of which two must sign.
const BUNDLES: [&str; 2] = ["bundles", "bundles-2"];
const ROOT: [&str; 2] = ["root", "root-2"];

/// What a bundles role says that lists a bundle of the thief's own.
fn with_another_bundle(bundles: &mut Value) {
    let targets = bundles["targets"].as_object_mut().expect("targets");
    let ours: Vec<(String, Value)> =
        targets.iter().map(|(path, file)| (path.clone(), file.clone())).collect();
    for (path, mut file) in ours {
        if let Some(serial) = file["custom"].get_mut("serial") {
            *serial = 99.into();
        }
        file["hashes"]["sha256"] = "e".repeat(64).into();
        targets.insert(path.replace("20261130-2", "evil-1"), file);
    }
}

/// Both keys of policies.
const POLICIES: [&str; 2] = ["policies", "policies-2"];

/// A policy for nodes with the label `role`, changed by `edit`, signed by all who must, and published with both online
/// keys.
fn with_policy(stage: &Stage, role: &str, edit: impl FnOnce(&mut Value)) -> Ended {
    publish_policy(stage, role, edit);
    stage.fetch()
}

fn publish_policy(stage: &Stage, role: &str, edit: impl FnOnce(&mut Value)) {
    let mut policy = json!({
        "apiVersion": "patchmgmt.io/v1",
        "kind": "PatchPolicy",
        "metadata": { "name": "evil", "namespace": "operations" },
        "spec": {
            "bundleRef": { "version": lab::attack::VERSION },
            "targets": { "selector": { "matchLabels": { "role": role } } },
        },
    });
    edit(&mut policy);
    stage.forge().policy(&POLICIES, &policy);
}

/// The same with a strategy of batches, and a plan that `edit` has changed: without that, everybody has begun.
fn with_plan(stage: &Stage, edit: impl FnOnce(&mut Value)) -> Ended {
    publish_policy(stage, "till", batches);
    let mut plan = json!({
        "apiVersion": "patchmgmt.io/v1",
        "kind": "RolloutPlan",
        "policy": "operations/evil",
        "bundleVersion": lab::attack::VERSION,
        "startedAt": PAST,
        "steps": [{ "upTo": 1_000_000, "notBefore": PAST }],
        "state": "running",
    });
    edit(&mut plan);
    let bytes = format::json::canonical(&plan).expect("a canonical form");
    stage.forge().policies_list(&POLICIES, PLAN, &bytes);
    stage.fetch()
}

/// Where it is.
const PLAN: &str = "policies/operations/evil/rollout.json";

fn batches(policy: &mut Value) {
    policy["spec"]["rolloutStrategy"] =
        json!({ "type": "RollingUpdate", "batchSize": 1, "batchDelayMinutes": 60 });
}

/// The next root, in which the thief's own keys count for everything, signed by `by`.
fn coup(stage: &Stage, by: &[&str]) -> Ended {
    stage.centre().make_key("thief");
    let thief = stage.centre().key_object("thief");
    stage.forge().next("root", by, |root| {
        root["keys"] = json!({ (thief.0.as_str()): thief.1 });
        for role in ["root", "targets", "snapshot", "timestamp"] {
            root["roles"][role] = json!({ "keyids": [thief.0], "threshold": 1 });
        }
    });
    stage.fetch()
}

/// A role that has expired, in a repository that is otherwise whole: what a mirror has that never asks for news.
fn expired(stage: &Stage, role: &str, by: &[&str]) -> Ended {
    stage.forge().next(role, by, |signed| signed["expires"] = PAST.into());
    match role {
        "root" | "timestamp" => {}
        "snapshot" => stage.forge().next("timestamp", &["timestamp"], |timestamp| {
            timestamp["meta"]["snapshot.json"] = stage.forge().describe("snapshot");
        }),
        _ => stage.forge().publish(),
    }
    stage.fetch()
}

pub fn attacks() -> Vec<Attack> {
    vec![
        Attack::new(
            "wrong key",
            "a timestamp signed by a key of nobody's",
            3,
            &["timestamp.json", "signatures"],
            |s| {
                s.centre().make_key("thief");
                s.forge().next("timestamp", &["thief"], |_| {});
                s.fetch()
            },
        ),
        Attack::new(
            "key of another role",
            "a snapshot signed with the timestamp key",
            3,
            &["snapshot.json", "signatures"],
            |s| {
                s.forge().next("snapshot", &["timestamp"], |_| {});
                s.forge().next("timestamp", &["timestamp"], |timestamp| {
                    timestamp["meta"]["snapshot.json"] = s.forge().describe("snapshot");
                });
                s.fetch()
            },
        ),
        Attack::new(
            "root: below threshold",
            "the next root, signed by one of two root keys",
            3,
            &["root.json has 1 valid", "needs 2"],
            |s| coup(s, &["root"]),
        ),
        Attack::new(
            "root: signed by itself alone",
            "the next root, signed by the keys that it names",
            3,
            &["root.json has 0 valid"],
            |s| {
                s.centre().make_key("thief");
                coup(s, &["thief"])
            },
        ),
        Attack::new(
            "root: a version left out",
            "3.root.json, well signed, as 2.root.json",
            3,
            &["root.json", "version"],
            |s| {
                s.forge().next("root", &ROOT, |root| root["version"] = 3.into());
                fs::rename(s.repository("metadata/3.root.json"), s.repository("metadata/2.root.json"))
                    .expect("a root");
                s.fetch()
            },
        ),
        Attack::new(
            "bundles: below threshold",
            "a new bundle, signed by one of two, and both online keys",
            3,
            &["bundles.json has 1 valid", "needs 2"],
            |s| {
                s.forge().next("bundles", &["bundles"], with_another_bundle);
                s.forge().publish();
                s.fetch()
            },
        ),
        Attack::new(
            "bundles: one signature twice",
            "the same key id twice in one file",
            3,
            &["bundles.json", "twice"],
            |s| {
                s.forge().next("bundles", &["bundles", "bundles"], with_another_bundle);
                s.forge().publish();
                s.fetch()
            },
        ),
        Attack::new(
            "bundles: one signature under two names",
            "the first key's signature under the second's id",
            3,
            &["bundles.json has 1 valid"],
            |s| {
                s.forge().next("bundles", &BUNDLES, with_another_bundle);
                let mut file = s.forge().read("bundles");
                file["signatures"][1]["sig"] = file["signatures"][0]["sig"].clone();
                s.forge().write("bundles", &file);
                s.forge().publish();
                s.fetch()
            },
        ),
        Attack::new(
            "bundles: neither key",
            "a new bundle, signed with both online keys",
            3,
            &["bundles.json has 0 valid"],
            |s| {
                s.forge().next("bundles", &["snapshot", "timestamp"], with_another_bundle);
                s.forge().publish();
                s.fetch()
            },
        ),
        Attack::new(
            "targets: alone",
            "targets.json delegates to the thief; no other key",
            2,
            &["targets.json"],
            |s| {
                s.centre().make_key("thief");
                let thief = s.centre().key_object("thief");
                s.forge().edit("targets", &["targets"], |targets| {
                    targets["delegations"]["keys"] = json!({ (thief.0.as_str()): thief.1 });
                    targets["delegations"]["roles"][0]["keyids"] = json!([thief.0]);
                    targets["delegations"]["roles"][0]["threshold"] = 1.into();
                });
                s.fetch()
            },
        ),
        Attack::new(
            "policies: below threshold",
            "a policy, signed by one of two, and both online keys",
            3,
            &["policies.json has 1 valid", "needs 2"],
            |s| {
                s.forge().next("policies", &["policies"], |_| {});
                s.forge().publish();
                s.fetch()
            },
        ),
        Attack::new(
            "policies: a bundle of their own",
            "policies.json lists one, with a higher serial",
            0,
            &["staged"],
            |s| {
                let bundles = s.forge().read("bundles")["signed"].take();
                s.forge().next("policies", &POLICIES, |policies| {
                    policies["targets"] = bundles["targets"].clone();
                    with_another_bundle(policies);
                });
                s.forge().publish();
                s.fetch()
            },
        )
        .stages_what_is_right(
            "targets lets policies speak of policies only: what bundles released is staged",
        ),
        Attack::new(
            "policies: a bundle that does not exist",
            "a version that bundles never released",
            1,
            &["20270101-1"],
            |s| with_policy(s, "till", |p| p["spec"]["bundleRef"]["version"] = "20270101-1".into()),
        )
        .because("nothing is there to be installed"),
        Attack::new(
            "policies: other bytes",
            "a checksum that is not that of the bundle",
            2,
            &["checksum"],
            |s| {
                with_policy(s, "till", |p| {
                    p["spec"]["bundleRef"]["checksum"] = format!("sha256:{}", "e".repeat(64)).into()
                })
            },
        ),
        Attack::new("policies: half understood", "a field that no node knows", 1, &["policy.json"], |s| {
            with_policy(s, "till", |p| p["spec"]["runAsRoot"] = "rm -rf /".into())
        })
        .because("nothing is begun on half of a policy"),
        Attack::new("policies: a plan that lets all begin", "at once, at all hours", 0, &["staged"], |s| {
            with_plan(s, |_| {})
        })
        .stages_what_is_right("who may begin is theirs to say; what is installed is what bundles released"),
        Attack::new(
            "policies: a plan of a bundle of their own",
            "the plan names a version that bundles never released",
            0,
            &["no plan for its bundle"],
            |s| with_plan(s, |plan| plan["bundleVersion"] = "evil-1".into()),
        )
        .stages_what_is_right("a plan chooses nothing: the node waits for that of its own bundle"),
        Attack::new(
            "policies: the plan of another policy",
            "published in the place of this one's",
            1,
            &["it says that it is the plan of operations/other"],
            |s| with_plan(s, |plan| plan["policy"] = "operations/other".into()),
        )
        .because("a plan counts for the policy that it names"),
        Attack::new("policies: half a plan", "a field that no node knows", 1, &["rollout.json"], |s| {
            with_plan(s, |plan| plan["skipChecks"] = true.into())
        })
        .because("nothing is begun on half of a plan"),
        Attack::new("policies: an endless plan", "20,000 steps", 1, &["rollout.json", "too long"], |s| {
            with_plan(s, |plan| {
                let step = |n| json!({ "upTo": n, "notBefore": PAST });
                plan["steps"] = (1..=20_000).map(step).collect::<Vec<_>>().into();
            })
        })
        .because("no more than a plan can have is fetched"),
        Attack::new(
            "rollback of a halt",
            "the next snapshot names the policies.json before it",
            3,
            &["policies.json", "older"],
            |s| {
                if with_plan(s, |_| {}).code() != Some(0) {
                    s.fault("the plan was refused");
                }
                let running = s.forge().describe("policies");
                s.forge().policies_list(&POLICIES, "policies/operations/evil/note.json", b"{}");
                if s.fetch().code() != Some(0) {
                    s.fault("the newer policies.json was refused");
                }
                s.forge().publish_with(|snapshot| snapshot["meta"]["policies.json"] = running);
                s.fetch()
            },
        )
        .when_fetched(),
        Attack::new("wrong node: a policy for others", "a policy for servers, on a till", 0, &[], |s| {
            with_policy(s, "server", |_| {})
        })
        .because("nothing is for this node: nothing is fetched"),
        Attack::new(
            "freeze: expired timestamp",
            "well signed, and past its expiry",
            3,
            &["timestamp.json expired"],
            |s| expired(s, "timestamp", &["timestamp"]),
        ),
        Attack::new(
            "freeze: expired snapshot",
            "well signed, and past its expiry",
            3,
            &["snapshot.json expired"],
            |s| expired(s, "snapshot", &["snapshot"]),
        ),
        Attack::new(
            "freeze: expired targets",
            "well signed, and past its expiry",
            3,
            &["targets.json expired"],
            |s| expired(s, "targets", &["targets"]),
        ),
        Attack::new(
            "freeze: expired bundles",
            "well signed, and past its expiry",
            3,
            &["bundles.json expired"],
            |s| expired(s, "bundles", &BUNDLES),
        ),
        Attack::new(
            "freeze: expired root",
            "well signed, and past its expiry",
            3,
            &["root.json expired"],
            |s| expired(s, "root", &ROOT),
        ),
        Attack::new(
            "freeze: 304 for ever",
            "not changed, says the mirror, of what has expired",
            3,
            &["timestamp.json expired"],
            |s| {
                // What the node has kept since it was valid.
                s.forge().edit("timestamp", &["timestamp"], |timestamp| timestamp["expires"] = PAST.into());
                let bytes = fs::read(s.repository("metadata/timestamp.json")).expect("a timestamp");
                let mark =
                    format!("{} {}\n\"tag\"", s.world.mirror.url(), format::digest::Sha256::of(&bytes));
                s.node().write("/var/lib/prestage/fetch/metadata/timestamp.json", &bytes);
                s.node().write("/var/lib/prestage/fetch/metadata/.timestamp.validator", mark);
                let raw = lab::server::Raw {
                    suffix: "timestamp.json".into(),
                    first: b"HTTP/1.1 304 Not Modified\r\nETag: \"tag\"\r\n\r\n".to_vec(),
                    ..lab::server::Raw::default()
                };
                s.mirror(lab::server::Behaviour { raw: Some(raw), ..lab::server::Behaviour::default() });
                s.fetch()
            },
        )
        .when_fetched(),
        Attack::new(
            "rollback of the snapshot",
            "the next timestamp names the snapshot before",
            3,
            &["snapshot.json", "older"],
            |s| {
                let old = s.forge().read("snapshot")["signed"]["version"].as_u64().expect("a version") - 1;
                let bytes =
                    fs::read(s.repository(&format!("metadata/{old}.snapshot.json"))).expect("a snapshot");
                s.forge().next("timestamp", &["timestamp"], |timestamp| {
                    let digest = format::digest::Sha256::of(&bytes);
                    timestamp["meta"]["snapshot.json"] =
                        json!({ "version": old, "length": bytes.len(), "hashes": { "sha256": digest } });
                });
                s.fetch()
            },
        )
        .when_fetched(),
        Attack::new(
            "rollback of bundles",
            "the next snapshot names the bundles.json before",
            3,
            &["bundles.json", "older"],
            |s| {
                s.forge().publish_with(|snapshot| {
                    let old = snapshot["meta"]["bundles.json"]["version"].as_u64().expect("a version") - 1;
                    let bytes =
                        fs::read(s.repository(&format!("metadata/{old}.bundles.json"))).expect("a role");
                    let digest = format::digest::Sha256::of(&bytes);
                    snapshot["meta"]["bundles.json"] =
                        json!({ "version": old, "length": bytes.len(), "hashes": { "sha256": digest } });
                });
                s.fetch()
            },
        )
        .when_fetched(),
        Attack::new(
            "rollback of targets",
            "the next snapshot names the targets.json before",
            3,
            &["targets.json", "older"],
            |s| {
                let old = s.forge().describe("targets");
                s.forge().next("targets", &["targets"], |_| {});
                s.forge().publish();
                if s.fetch().code() != Some(0) {
                    s.fault("the new targets.json was refused");
                }
                s.forge().publish_with(|snapshot| snapshot["meta"]["targets.json"] = old);
                s.fetch()
            },
        )
        .when_fetched(),
        Attack::new(
            "a role taken away",
            "the next snapshot does not list bundles",
            3,
            &["bundles.json", "not listed"],
            |s| {
                s.forge().publish_with(|snapshot| {
                    snapshot["meta"].as_object_mut().expect("meta").remove("bundles.json");
                });
                s.fetch()
            },
        )
        .when_fetched(),
        Attack::new(
            "mixed versions",
            "bundles.json says another version than the snapshot",
            3,
            &["bundles.json", "version"],
            |s| {
                s.forge().publish_with(|snapshot| snapshot["meta"]["bundles.json"]["version"] = 9.into());
                fs::copy(s.forge().file("bundles"), s.repository("metadata/9.bundles.json")).expect("a role");
                s.fetch()
            },
        ),
        Attack::new(
            "the end of the numbers",
            "a timestamp of version 2^64-1",
            3,
            &["timestamp.json", "version"],
            |s| {
                s.forge()
                    .edit("timestamp", &["timestamp"], |timestamp| timestamp["version"] = u64::MAX.into());
                s.fetch()
            },
        ),
        Attack::new(
            "signed nonsense",
            "a snapshot whose lists are numbers",
            3,
            &["snapshot.json", "malformed"],
            |s| {
                s.forge().publish_with(|snapshot| snapshot["meta"] = 7.into());
                s.fetch()
            },
        ),
        Attack::new(
            "another kind of role",
            "a timestamp that says it is a snapshot",
            3,
            &["timestamp.json", "_type"],
            |s| {
                s.forge()
                    .next("timestamp", &["timestamp"], |timestamp| timestamp["_type"] = "snapshot".into());
                s.fetch()
            },
        ),
        Attack::new(
            "a role in another's place",
            "targets delegates to a role called timestamp",
            3,
            &["targets.json", "top-level"],
            |s| {
                s.forge().next("targets", &["targets"], |targets| {
                    targets["delegations"]["roles"][0]["name"] = "timestamp".into();
                });
                s.forge().publish();
                s.fetch()
            },
        ),
        Attack::new(
            "rollback behind root's back",
            "the fetch step's copies are older than root's own",
            3,
            &["timestamp.json", "older"],
            |s| {
                // Root has seen the newest, and installed nothing.
                s.attacker(
                    User::Root,
                    "rm -r /var/lib/prestage/fetch/staged && prestage install --now; test $? = 1",
                );
                for role in ["timestamp", "snapshot", "bundles"] {
                    let mut found = Vec::new();
                    lab::repository::find(&s.first().join("metadata"), &format!("{role}.json"), &mut found);
                    found.sort();
                    let old = fs::read(found.last().expect("a role")).expect("a role");
                    s.node().write(&format!("/var/lib/prestage/fetch/metadata/{role}.json"), old);
                }
                s.install()
            },
        )
        .when_fetched(),
    ]
}
