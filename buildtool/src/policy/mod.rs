//! Policies from YAML, as operators keep them in Git: [`check`] them, [`diff`] them with what is published, publish them.
//!
//! What a policy may say is [`format::policy`]'s; here is what only the centre can know: where in which file it is said,
//! whether there is such a time zone and such a bundle, and how policies fit together.

mod check; // everything that is wrong with policies
mod diff; // what publishing them would change
mod yaml; // YAML with places

pub use check::{Checked, check};
pub use diff::diff;

use std::collections::BTreeMap;

use format::digest::Sha256;
use format::metadata::TargetFile;
use format::policy::{MAX_POLICY, PatchPolicy};
use format::time::UnixTime;

use crate::delegated::POLICIES;
use crate::editor::RepositoryEditor;
use crate::error::{During, Error, Kind, Result};
use crate::export;
use crate::repository::{Repository, View};

/// The published policies, each verified by length and digest.
///
/// # Errors
/// If one is missing, damaged, or no policy.
pub fn published(repository: &Repository, view: &View) -> Result<Vec<PatchPolicy>> {
    let targets = view.set.targets(POLICIES.name).map(|t| &t.targets).into_iter().flatten();
    targets.map(|(path, file)| read_published(repository, path, file)).collect()
}

fn read_published(repository: &Repository, path: &str, file: &TargetFile) -> Result<PatchPolicy> {
    let what = "a published policy cannot be read";
    let wrong = |why: &dyn std::fmt::Display| Error::new(Kind::Data, what, format!("{path}: {why}"));
    let blob = file.blob().ok_or_else(|| wrong(&"it is listed without a sha256"))?;
    let target = path.parse().map_err(|e| wrong(&e))?;
    let content = repository.targets().join(export::published_name(&(target, blob)));
    let bytes = host::file::read_limited(&content, MAX_POLICY as u64)
        .during(what)?
        .ok_or_else(|| wrong(&format_args!("{} is missing", content.display())))?;
    file.check(&bytes).map_err(|e| wrong(&e))?;
    PatchPolicy::from_json(&bytes).map_err(|e| wrong(&e))
}

/// Lists exactly `policies` in the pending next version of their role, their canonical form beside it. True if that
/// changed anything.
///
/// # Errors
/// If the repository has no such role, or writing fails.
pub fn list(
    editor: &mut RepositoryEditor,
    policies: &[PatchPolicy],
    days: u32,
    now: UnixTime,
) -> Result<bool> {
    let mut files = BTreeMap::new();
    for policy in policies {
        let path =
            policy.target_path().map_err(|e| Error::new(Kind::Data, "the policies were not listed", e))?;
        let bytes = policy.to_json();
        // The content before what refers to it: an interruption leaves nothing that cannot be published.
        editor.pending().put_content(&path, &bytes)?;
        files.insert(path, (bytes.len() as u64, Sha256::of(&bytes)));
    }
    editor.set_policies(&files, days, now)
}
