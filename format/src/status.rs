//! status.json: what a node tells its own machine and whoever monitors it.
//!
//! Written by the agent after every step, replaced whole. The field names are a contract: a monitoring system reads
//! them. Version 1 is `apiVersion: patchmgmt.io/v1`, `kind: NodeStatus`; fields may join, none changes its meaning.

use std::collections::BTreeMap;

use crate::API_VERSION;
use crate::digest::Sha256;
use crate::name::{BundleVersion, NodeId, Variant};
use crate::report::{BundleRef, Outcome, Step};
use crate::time::UnixTime;

/// The `kind` of a status.
pub const KIND: &str = "NodeStatus";

/// The whole document.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Always [`API_VERSION`].
    pub api_version: String,
    /// Always [`KIND`].
    pub kind: String,
    /// Who.
    pub metadata: Metadata,
    /// How it is.
    pub status: Status,
}

/// Who the node is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Metadata {
    /// The node's id.
    pub name: NodeId,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// How the node is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// When this was written, by the node's clock.
    pub updated_at: UnixTime,
    /// The program that wrote it.
    pub agent_version: String,
    /// What the node's bundles are built for.
    pub variant: Variant,
    /// One word for machines.
    pub state: State,
    /// One sentence for people: what is, and what comes next.
    pub summary: String,
    /// How the last fetch ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetch: Option<StepStatus>,
    /// How the last install ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub install: Option<StepStatus>,
    /// What is staged or being fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanStatus>,
    /// The last bundle that was installed to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installed: Option<InstalledStatus>,
    /// The policy that this node follows, as `NAMESPACE/NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Where the node stands in the rollout of that policy's bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
    /// Bundles that the node refuses, and why.
    pub quarantine: Vec<Quarantined>,
    /// When the repository's metadata on this node expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata_expires: Option<UnixTime>,
    /// Whether the distribution asks for a reboot.
    pub reboot_required: bool,
    /// Reports that the centre has not accepted yet.
    pub reports_queued: u64,
    /// How it stands with the fleet server, where the node has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetStatus>,
    /// When the node looks or fetches next; none: whenever it is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_fetch: Option<NextFetch>,
    /// Mirrors that served wrong bytes and come last for a while.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrors_aside: Vec<Aside>,
    /// The transfer that is under way; replaced every few seconds, and gone when the step has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<Transfer>,
    /// Nodes of the site that lied or stalled and are not asked for a while.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers_aside: Vec<Aside>,
    /// The restore point that `prestage rollback` would go back to, or that an install under way would.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_point: Option<RestorePointStatus>,
    /// What was cured without hands, and how often, since the node was set up.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub healed: BTreeMap<String, u64>,
}

/// How it stands between a node and the fleet server.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FleetStatus {
    /// The server.
    pub url: String,
    /// When it last accepted something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_at: Option<UnixTime>,
    /// Why it did not, the last time that the node tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Not before this does the node try again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<UnixTime>,
    /// Reports that it refused, and that are kept aside on the node.
    pub refused: u64,
}

/// A restore point.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestorePointStatus {
    /// What made it: `lvm-thin`, `lvm`, `btrfs`, `timeshift`.
    pub kind: String,
    /// Its name there.
    pub id: String,
    /// The node as it was before this bundle.
    pub before: BundleRef,
}

/// Where a node stands in a rollout, as the signed plan has it ([`crate::rollout`]).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// The bundle that it is about.
    pub bundle: BundleVersion,
    /// `running`, `paused` or `halted`.
    pub state: String,
    /// The node's step in words: `the canaries`, `batch 2 of 12`.
    pub batch: String,
    /// When that step begins, or began.
    pub not_before: UnixTime,
    /// Whether that is a time of the clock on the node's own wall, written as if it were UTC.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub local_time: bool,
    /// Who has stopped the rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_by: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// When a node fetches next.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NextFetch {
    /// Not before.
    pub at: UnixTime,
    /// Why not.
    pub why: String,
}

/// A mirror that has served wrong bytes, or a node of the site that has lied or stalled.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Aside {
    /// A mirror's URL or folder, a node's address and port.
    pub name: String,
    /// Until then a mirror comes last, and a node of the site is not asked.
    pub until: UnixTime,
    /// What was wrong.
    pub why: String,
}

/// A transfer under way.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Transfer {
    /// Where from.
    pub source: String,
    /// Bytes that are here, of what this run is to get.
    pub bytes_done: u64,
    /// Bytes that this run is to get.
    pub bytes_total: u64,
    /// Bytes a second over the last seconds.
    pub rate: u64,
    /// The cap at this hour, in bytes a second; none: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap: Option<u64>,
    /// Bytes a second that the background mode asks for now; none: it is not in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background: Option<u64>,
}

/// One word for what the node is doing or waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// Never ran, or not configured.
    Unknown,
    /// Patched as far as the repository goes.
    UpToDate,
    /// Parts of a bundle are still missing.
    Fetching,
    /// Everything is here and proved; waiting for the maintenance window, or for what put the install off.
    Staged,
    /// An install began and has not ended.
    Installing,
    /// An install, or a rollback, takes effect at the next boot.
    AwaitingReboot,
    /// Something was not ready before there was anything to fetch; it will be tried again.
    Deferred,
    /// A bundle or the repository was refused.
    Quarantined,
    /// The last install failed or was rolled back; the node is in its pre-patch state.
    Failed,
    /// A person must look.
    NeedsPerson,
}

impl State {
    /// Every state, for metrics that show one series each.
    pub const ALL: [State; 10] = [
        State::Unknown,
        State::UpToDate,
        State::Fetching,
        State::Staged,
        State::Installing,
        State::AwaitingReboot,
        State::Deferred,
        State::Quarantined,
        State::Failed,
        State::NeedsPerson,
    ];
}

/// How a step ended last time.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepStatus {
    /// Which.
    pub step: Step,
    /// When it ended.
    pub at: UnixTime,
    /// How.
    pub outcome: Outcome,
    /// The exit code that belongs to it.
    pub exit_code: u8,
    /// What, where, why, what to do.
    pub message: String,
    /// How long it took, in seconds.
    pub seconds: u64,
    /// Bytes that came from mirrors over the network, protocol included.
    pub bytes_received: u64,
    /// Bytes that came from other nodes of the site.
    #[serde(default)]
    pub bytes_from_site: u64,
    /// Requests made to mirrors.
    pub requests: u64,
    /// For an install: the network interfaces that the package manager saw, each with `up` or `down`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_seen: Option<Vec<String>>,
}

/// What the node needs of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanStatus {
    /// Which bundle.
    pub bundle: BundleRef,
    /// Packages that will change.
    pub packages: u64,
    /// Size of the packages needed, in bytes.
    pub bytes_needed: u64,
    /// Of these, already here and verified.
    pub bytes_present: u64,
    /// Size of the whole bundle file, in bytes.
    pub bundle_bytes: u64,
    /// Packages that the package manager keeps back, each with the reason if it gives one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept_back: Vec<String>,
    /// Whether everything is staged.
    pub complete: bool,
    /// What deltas have saved; none where the bundle has none for this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deltas: Option<DeltaStatus>,
}

/// Packages that came as deltas, and why others did not.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeltaStatus {
    /// Packages that were made of a patch and of what was installed.
    pub packages: u64,
    /// Bytes by which the patches are smaller than these packages.
    pub bytes_saved: u64,
    /// Packages that have deltas and came whole all the same.
    pub whole: u64,
    /// Some of these, with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_used: Vec<NotUsed>,
}

/// A package that came whole although there are deltas to it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct NotUsed {
    /// Its name.
    pub package: String,
    /// Why.
    pub why: String,
}

/// What was installed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstalledStatus {
    /// Which bundle.
    pub bundle: BundleRef,
    /// When.
    pub at: UnixTime,
    /// How many packages changed.
    pub packages: u64,
    /// The digest of the inventory afterwards.
    pub inventory: Sha256,
}

/// What ends a refusal, beside another bundle that is published and installed, or a release by name in a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum QuarantineEnd {
    /// A fetch that verifies all of it: what was wrong was a copy, not the bundle.
    Verified,
    /// `prestage install --now` on the node: its install failed there.
    ByHand,
    /// Nothing else but `prestage release` on the node: somebody may be at work there.
    Released,
}

/// A bundle that the node refuses.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quarantined {
    /// Which bundle.
    pub bundle: BundleRef,
    /// Which step refuses it.
    pub step: Step,
    /// Since when.
    pub since: UnixTime,
    /// The exit code that put it here: 2 or 3 where it could not be verified, 4 to 6 where its install failed.
    pub exit_code: u8,
    /// What was wrong.
    pub reason: String,
    /// What ends it.
    pub ends: QuarantineEnd,
    /// The same in words.
    pub way_out: String,
}

impl NodeStatus {
    /// Reads a status.
    ///
    /// # Errors
    /// If it is not strict JSON, or a document of another kind or version.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let status: NodeStatus = crate::json::read(bytes).map_err(|e| e.to_string())?;
        if (status.api_version.as_str(), status.kind.as_str()) != (API_VERSION, KIND) {
            return Err(format!(
                "it is a {} of version {}; this program reads {KIND} of {API_VERSION}",
                status.kind, status.api_version
            ));
        }
        Ok(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> NodeStatus {
        let bundle = BundleRef {
            version: "20261123-42".parse().unwrap(),
            cycle: "2026-11".parse().unwrap(),
            serial: 7,
            index: Sha256::of(b"index"),
        };
        let at = UnixTime(1_795_411_753);
        NodeStatus {
            api_version: API_VERSION.into(),
            kind: KIND.into(),
            metadata: Metadata {
                name: "store-0815-till-2".parse().unwrap(),
                labels: BTreeMap::from([("role".into(), "till".into())]),
            },
            status: Status {
                updated_at: at,
                agent_version: "0.1.0".into(),
                variant: "debian-12-amd64".parse().unwrap(),
                state: State::Quarantined,
                summary: "bundle 20261123-42 is refused".into(),
                fetch: Some(StepStatus {
                    step: Step::Fetch,
                    at,
                    outcome: Outcome::IntegrityFailure,
                    exit_code: 2,
                    message: "damaged".into(),
                    seconds: 3,
                    bytes_received: 1000,
                    bytes_from_site: 5000,
                    requests: 4,
                    network_seen: None,
                }),
                install: Some(StepStatus {
                    step: Step::Install,
                    at,
                    outcome: Outcome::Installed,
                    exit_code: 0,
                    message: "patched".into(),
                    seconds: 30,
                    bytes_received: 0,
                    bytes_from_site: 0,
                    requests: 0,
                    network_seen: Some(vec!["lo down".into()]),
                }),
                plan: Some(PlanStatus {
                    bundle: bundle.clone(),
                    packages: 12,
                    bytes_needed: 5000,
                    bytes_present: 4000,
                    bundle_bytes: 90_000,
                    kept_back: vec!["vim: held".into()],
                    complete: false,
                    deltas: None,
                }),
                installed: Some(InstalledStatus {
                    bundle: bundle.clone(),
                    at,
                    packages: 3,
                    inventory: Sha256::of(b"inventory"),
                }),
                policy: Some("operations/edge".into()),
                rollout: Some(RolloutStatus {
                    bundle: "20261123-42".parse().unwrap(),
                    state: "halted".into(),
                    batch: "batch 2 of 12".into(),
                    not_before: at,
                    local_time: true,
                    stopped_by: Some("ann".into()),
                    reason: Some("6 of 60 nodes failed".into()),
                }),
                quarantine: vec![Quarantined {
                    bundle: bundle.clone(),
                    step: Step::Fetch,
                    since: at,
                    exit_code: 2,
                    reason: "damaged".into(),
                    ends: QuarantineEnd::Verified,
                    way_out: "nothing to do here".into(),
                }],
                metadata_expires: Some(at),
                reboot_required: false,
                reports_queued: 1,
                fleet: Some(FleetStatus {
                    url: "https://fleet.example".into(),
                    accepted_at: Some(at),
                    problem: Some("it answered 503".into()),
                    next: Some(at),
                    refused: 1,
                }),
                next_fetch: Some(NextFetch { at, why: "the last try failed".into() }),
                mirrors_aside: vec![Aside { name: "http://lan/".into(), until: at, why: "damaged".into() }],
                transfer: Some(Transfer {
                    source: "https://patches.example/".into(),
                    bytes_done: 4000,
                    bytes_total: 5000,
                    rate: 32_000,
                    cap: Some(32_000),
                    background: Some(16_000),
                }),
                peers_aside: vec![Aside { name: "10.0.0.12:8571".into(), until: at, why: "damaged".into() }],
                restore_point: Some(RestorePointStatus {
                    kind: "lvm-thin".into(),
                    id: "vg0/prestage_ab12".into(),
                    before: bundle.clone(),
                }),
                healed: BTreeMap::from([("interrupted-packages".into(), 2)]),
            },
        }
    }

    #[test]
    fn version_1_of_the_format_stays_readable_and_writable() {
        let golden = include_bytes!("../tests/data/status-v1.json");
        assert_eq!(NodeStatus::parse(golden).unwrap(), status());
        assert_eq!(
            serde_json::to_string_pretty(&status()).unwrap(),
            String::from_utf8_lossy(golden).trim_end()
        );
    }
}
