//! Policies from YAML, as operators keep them in Git: [`check`] them, [`diff`] them with what is published, publish them
//! with the plans of their rollouts ([`prepare`]), and [`control`] a rollout that is published.
//!
//! What a policy and a plan may say is [`format::policy`]'s and [`format::rollout`]'s; here is what only the centre can know:
//! where in which file it is said, whether there is such a time zone and such a bundle, how policies fit together, how many
//! nodes there are, and when each batch begins.

mod check; // everything that is wrong with policies
mod control; // stop a rollout, let it go on, take it back
mod crd; // the same for Kubernetes
mod diff; // what publishing them would change
mod fleet; // how many nodes there are
mod publication; // policies and plans, out of Git and what is published
mod rollout; // batches and their times
mod yaml; // YAML with places

pub use check::{Checked, check};
pub use control::{Control, act, control};
pub use crd::crd;
pub use diff::diff;
pub use fleet::Fleet;
pub use publication::{Publication, Published, prepare};

use std::collections::BTreeMap;

use format::digest::Sha256;
use format::metadata::TargetFile;
use format::name::TargetPath;
use format::policy::{MAX_POLICY, PatchPolicy, PolicyError};
use format::rollout::{MAX_PLAN, RolloutPlan};
use format::time::UnixTime;

use crate::delegated::POLICIES;
use crate::editor::RepositoryEditor;
use crate::error::{During, Error, Kind, Result};
use crate::export;
use crate::repository::{Repository, View};

/// The file names of a policy's targets.
pub const POLICY_FILE: &str = "/policy.json";
/// See [`POLICY_FILE`].
pub const PLAN_FILE: &str = "/rollout.json";

/// The published policies with their plans, each verified by length and digest.
///
/// # Errors
/// If one is missing, damaged, or no policy or plan.
pub fn published(repository: &Repository, view: &View) -> Result<Vec<Published>> {
    let targets = view.set.targets(POLICIES.name).map(|t| &t.targets).into_iter().flatten();
    let mut out = Vec::new();
    for (path, file) in targets.filter(|(path, _)| path.ends_with(POLICY_FILE)) {
        let policy = read_published(repository, path, file, MAX_POLICY, PatchPolicy::from_json)?;
        let plan = plan_of(repository, view, &policy)?;
        out.push(Published { policy, plan });
    }
    Ok(out)
}

/// The plan that is published beside a policy, if there is one.
///
/// # Errors
/// If it is missing, damaged, or no plan.
pub fn plan_of(repository: &Repository, view: &View, policy: &PatchPolicy) -> Result<Option<RolloutPlan>> {
    let path = format!("policies/{}{PLAN_FILE}", policy.id());
    let file = view.set.targets(POLICIES.name).and_then(|t| t.targets.get(&path));
    let read = |file| read_published(repository, &path, file, MAX_PLAN, RolloutPlan::from_json);
    file.map(read).transpose()
}

fn read_published<T>(
    repository: &Repository,
    path: &str,
    file: &TargetFile,
    limit: usize,
    parse: fn(&[u8]) -> std::result::Result<T, PolicyError>,
) -> Result<T> {
    let what = "a published policy cannot be read";
    let wrong = |why: &dyn std::fmt::Display| Error::new(Kind::Data, what, format!("{path}: {why}"));
    let blob = file.blob().ok_or_else(|| wrong(&"it is listed without a sha256"))?;
    let target = path.parse().map_err(|e| wrong(&e))?;
    let content = repository.targets().join(export::published_name(&(target, blob)));
    let bytes = host::file::read_limited(&content, limit as u64)
        .during(what)?
        .ok_or_else(|| wrong(&format_args!("{} is missing", content.display())))?;
    file.check(&bytes).map_err(|e| wrong(&e))?;
    parse(&bytes).map_err(|e| wrong(&e))
}

/// Lists exactly these policies and plans in the pending next version of their role, their canonical form beside it. True if
/// that changed anything.
///
/// # Errors
/// If the repository has no such role, or writing fails.
pub fn list(editor: &mut RepositoryEditor, policies: &[Published], days: u32, now: UnixTime) -> Result<bool> {
    let what = "the policies were not listed";
    let wrong = |e| Error::new(Kind::Data, what, e);
    let mut contents: Vec<(TargetPath, Vec<u8>)> = Vec::new();
    for Published { policy, plan } in policies {
        contents.push((policy.target_path().map_err(wrong)?, policy.to_json()));
        if let Some(plan) = plan {
            let bytes = plan.to_json();
            // What was made here is read as a node does, before anybody else has to.
            RolloutPlan::from_json(&bytes)
                .map_err(|e| Error::new(Kind::Data, what, format!("the plan of {}: {e}", plan.policy())))?;
            contents.push((plan.target_path().map_err(wrong)?, bytes));
        }
    }
    let mut files = BTreeMap::new();
    for (path, bytes) in contents {
        // The content before what refers to it: an interruption leaves nothing that cannot be published.
        editor.pending().put_content(&path, &bytes)?;
        files.insert(path, (bytes.len() as u64, Sha256::of(&bytes)));
    }
    editor.set_policies(&files, days, now)
}
