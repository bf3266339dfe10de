//! A report: how a step ended on a node, on its way to the centre.
//!
//! Written by the agent into its queue, kept there until the centre has accepted it, identified by `id` so that one
//! that arrives twice counts once.

use crate::API_VERSION;
use crate::digest::Sha256;
use crate::inventory::PackageChange;
use crate::name::{BundleVersion, CycleId, NodeId, Variant};
use crate::time::UnixTime;

/// The `kind` of a report.
pub const KIND: &str = "NodeReport";

/// One report.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Always [`API_VERSION`].
    pub api_version: String,
    /// Always [`KIND`].
    pub kind: String,
    /// Unique; the digest of node, time, transaction and step.
    pub id: Sha256,
    /// Who reports.
    pub node: NodeId,
    /// When the step ended, by the node's clock.
    pub at: UnixTime,
    /// What the node's bundles are built for.
    pub variant: Variant,
    /// Which step ended.
    pub step: Step,
    /// How.
    pub outcome: Outcome,
    /// The exit code of the program that belongs to it.
    pub exit_code: u8,
    /// One sentence for people: what, where, why, what to do.
    pub message: String,
    /// Which bundle it was about, if one was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<BundleRef>,
    /// The transaction, for an install.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction: Option<String>,
    /// What changed on the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<PackageChange>,
    /// The digest of the node's inventory afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventory: Option<Sha256>,
    /// How long the step took, in seconds.
    pub seconds: u64,
    /// Bytes that came over the network in this step, protocol included.
    pub bytes_received: u64,
    /// Bytes that came from other nodes of the site.
    #[serde(default)]
    pub bytes_from_site: u64,
    /// Bytes that were not fetched because packages came as deltas.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes_saved: u64,
    /// The restore point that the install made or went back to, as `KIND:NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_point: Option<String>,
    /// What was cured without hands in this step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub healed: Vec<String>,
    /// What did not fit into the node's queue and is not known any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omitted: Option<Omitted>,
}

/// What a node that could not reach the centre for long, or whose disk was full, had to drop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Omitted {
    /// How many changes this report had.
    #[serde(default)]
    pub changes: u64,
    /// How many whole reports, made before this one, were dropped for it.
    #[serde(default)]
    pub reports: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde asks
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Which bundle.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BundleRef {
    /// Its version.
    pub version: BundleVersion,
    /// Its cycle.
    pub cycle: CycleId,
    /// Its place in the order of bundles.
    pub serial: u64,
    /// The digest of its index: its identity.
    pub index: Sha256,
}

/// A step of the node's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Step {
    /// Refresh, plan, fetch, verify, stage.
    Fetch,
    /// Restore point, install, check, commit or roll back.
    Install,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// Everything that the node needs of the bundle is staged.
    Staged,
    /// The node is patched and healthy.
    Installed,
    /// There was nothing to do.
    UpToDate,
    /// Something was not ready; it will be tried again by itself.
    Deferred,
    /// Checksum or length did not match; nothing was used.
    IntegrityFailure,
    /// Signature, threshold, expiry or version was refused; nothing was used.
    TrustFailure,
    /// The install failed; the node is in its pre-patch state.
    InstallFailed,
    /// The node was unhealthy after the install and was rolled back.
    RolledBack,
    /// A person must look: the node could not be brought back by itself.
    NeedsPerson,
}

impl Outcome {
    /// Whether it only says that the node waits, or has nothing to do: what is dropped before anything else.
    pub fn is_waiting(self) -> bool {
        matches!(self, Outcome::Staged | Outcome::UpToDate | Outcome::Deferred)
    }
}

impl Report {
    /// Drops the list of changes, and says so.
    pub fn omit_changes(&mut self) {
        let changes = std::mem::take(&mut self.changes).len() as u64;
        if changes > 0 {
            self.omitted.get_or_insert_default().changes += changes;
        }
    }

    /// The id that belongs to a report's content.
    pub fn make_id(
        node: &NodeId,
        at: UnixTime,
        transaction: Option<&str>,
        step: Step,
        message: &str,
    ) -> Sha256 {
        let transaction = transaction.unwrap_or_default();
        Sha256::of(format!("{node}\n{at}\n{transaction}\n{step:?}\n{message}").as_bytes())
    }

    /// Reads a report.
    ///
    /// # Errors
    /// If it is not strict JSON, or a document of another kind or version.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let report: Report = crate::json::read(bytes).map_err(|e| e.to_string())?;
        if (report.api_version.as_str(), report.kind.as_str()) != (API_VERSION, KIND) {
            return Err(format!(
                "it is a {} of version {}; this program reads {KIND} of {API_VERSION}",
                report.kind, report.api_version
            ));
        }
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let node: NodeId = "store-0815-till-2".parse().unwrap();
        let at = UnixTime(1_795_411_753);
        Report {
            api_version: API_VERSION.into(),
            kind: KIND.into(),
            id: Report::make_id(&node, at, Some("t1"), Step::Install, "patched"),
            node,
            at,
            variant: "debian-12-amd64".parse().unwrap(),
            step: Step::Install,
            outcome: Outcome::Installed,
            exit_code: 0,
            message: "patched".into(),
            bundle: Some(BundleRef {
                version: "20261123-42".parse().unwrap(),
                cycle: "2026-11".parse().unwrap(),
                serial: 7,
                index: Sha256::of(b"index"),
            }),
            transaction: Some("t1".into()),
            changes: vec![PackageChange {
                name: "openssl".into(),
                arch: "amd64".into(),
                from: Some("1".into()),
                to: Some("2".into()),
            }],
            inventory: Some(Sha256::of(b"inventory")),
            seconds: 41,
            bytes_received: 0,
            bytes_from_site: 0,
            bytes_saved: 0,
            restore_point: Some("lvm-thin:vg0/prestage_ab12".into()),
            healed: vec!["interrupted-packages".into()],
            omitted: Some(Omitted { changes: 0, reports: 2 }),
        }
    }

    #[test]
    fn version_1_of_the_format_stays_readable_and_writable() {
        let golden = include_bytes!("../tests/data/report-v1.json");
        assert_eq!(Report::parse(golden).unwrap(), report());
        assert_eq!(
            serde_json::to_string_pretty(&report()).unwrap(),
            String::from_utf8_lossy(golden).trim_end()
        );
    }
}
