//! Putting what has been signed where nodes read it: targets first, timestamp last, judged as a whole before.
//!
//! First everything is planned and verified in memory ([`plan`]), then written ([`perform`]). The plan depends only on
//! what is there, so a run that was cut off is simply run again. Files that a timestamp refers to are never changed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use format::digest::Sha256;
use format::metadata::Blob;
use format::name::TargetPath;
use format::time::UnixTime;
use serde_json::{Value, json};

use crate::document::{Signed, Unsigned, expiry};
use crate::editor::{RepositoryEditor, highest_version};
use crate::error::{AtPath, During, Error, Kind, Result};
use crate::keys::Secret;
use crate::progress::Progress;
use crate::repository::{self, IGNORE_EXPIRY, Overlay, Repository, TARGETS, View};

/// The keys of the roles that a publication signs itself, and how long what they sign is valid.
pub struct OnlineKeys {
    /// Keys of `snapshot`; with none, the published snapshot must do.
    pub snapshot: Vec<Secret>,
    /// Keys of `timestamp`.
    pub timestamp: Vec<Secret>,
    /// Days until a new snapshot expires.
    pub snapshot_days: u32,
    /// Days until the new timestamp expires.
    pub timestamp_days: u32,
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Put a target file in its place, below `targets/`.
    Target {
        /// Where its content is.
        from: PathBuf,
        /// Its published path.
        to: String,
        /// What it must be.
        sha256: Sha256,
        /// Its length, for progress.
        length: u64,
    },
    /// Put a metadata file in its place, below `metadata/`.
    Metadata {
        /// File name.
        name: String,
        /// Content.
        bytes: Vec<u8>,
    },
}

/// What will be written, in this order, and what that leads to.
#[derive(Debug)]
pub struct Plan {
    /// The writes.
    pub steps: Vec<Step>,
    /// What a node sees afterwards.
    pub after: View,
    /// What an operator should know.
    pub notes: Vec<String>,
}

/// Where a plan's writes go: the repository, or a test's failing one.
pub trait Store {
    /// Does one write; a reader sees it whole or not at all.
    ///
    /// # Errors
    /// If it fails; then nothing has changed for a reader.
    fn put(&mut self, step: &Step) -> Result<()>;
}

impl Store for Repository {
    fn put(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Target { from, to, sha256, .. } => {
                put_target(self.folder(), from, &Path::new("targets").join(to), sha256)
            }
            Step::Metadata { name, bytes } => {
                host::file::make_folder(&self.metadata(), 0o755)
                    .during("the repository cannot be written")?;
                host::file::replace(&self.metadata().join(name), bytes, 0o644)
                    .during("the repository cannot be written")
            }
        }
    }
}

/// Plans the publication of everything that is pending, with the contents of new targets taken from `outs`.
///
/// # Errors
/// If signatures or target files are missing, or if a node would not accept the result.
pub fn plan(editor: &RepositoryEditor, outs: &[PathBuf], keys: &OnlineKeys, now: UnixTime) -> Result<Plan> {
    for approval in editor.approvals()? {
        if !approval.is_met() {
            return Err(Error::new(Kind::No, "nothing was published", &approval)
                .cure("have the missing keys sign (sign for bundles, root sign for all others)"));
        }
    }
    let root = editor.effective("root")?;
    // Delegated roles after the one that delegates to them.
    let mut listing = vec![editor.effective(TARGETS)?];
    for role in editor.delegated()? {
        listing.push(editor.effective(role.name)?);
    }
    let repository = editor.repository();

    let mut files = BTreeMap::new();
    let root_name = format!("{}.root.json", root.version());
    let mut roles = BTreeMap::new();
    let mut names = Vec::new();
    for document in &listing {
        let bytes = document.to_bytes()?;
        roles.insert(format!("{}.json", document.role), meta(document.version(), &bytes));
        names.push(format!("{}.{}.json", document.version(), document.role));
        files.insert(names[names.len() - 1].clone(), bytes);
    }
    files.insert(root_name.clone(), root.to_bytes()?);

    let current = editor.published();
    let snapshot = next_snapshot(repository, current, &roles, keys, now, false)?;
    let snapshot_bytes = snapshot.to_bytes()?;
    files.insert(format!("{}.snapshot.json", snapshot.version()), snapshot_bytes.clone());
    let timestamp = next_timestamp(current, &snapshot, &snapshot_bytes, keys, now)?;
    files.insert("timestamp.json".to_owned(), timestamp.to_bytes()?);

    let (after, root_last, mut notes) = judge(repository, &files, &root_name, editor.published(), now)?;
    notes.extend(editor.notes.iter().cloned());

    let mut steps = target_steps(editor, &after, outs)?;
    let mut metadata = |name: &str| {
        if let Some(bytes) = files.remove(name) {
            steps.push(Step::Metadata { name: name.to_owned(), bytes });
        }
    };
    names.extend([format!("{}.snapshot.json", snapshot.version()), "timestamp.json".to_owned()]);
    if !root_last {
        metadata(&root_name);
    }
    names.iter().for_each(|name| metadata(name));
    if root_last {
        metadata(&root_name);
    }
    steps.retain(|step| !is_there(repository, step));
    Ok(Plan { steps, after, notes })
}

/// Plans new signatures on what is published: timestamp always, snapshot when half of its time is over and its key is
/// given. For cron.
///
/// # Errors
/// As [`plan`].
pub fn plan_refresh(editor: &RepositoryEditor, keys: &OnlineKeys, now: UnixTime) -> Result<Plan> {
    let Some(current) = editor.published() else {
        return Err(Error::new(
            Kind::Usage,
            "nothing was refreshed",
            format!("{} is not published yet", editor.repository().folder().display()),
        ));
    };
    let repository = editor.repository();
    let mut roles = BTreeMap::new();
    for role in std::iter::once(TARGETS).chain(current.delegated().map(|role| role.name)) {
        let bytes = current.bytes(role).unwrap_or_default();
        roles.insert(format!("{role}.json"), meta(Signed::parse(role, bytes)?.version(), bytes));
    }
    let snapshot = next_snapshot(repository, Some(current), &roles, keys, now, true)?;
    let snapshot_bytes = snapshot.to_bytes()?;
    let timestamp = next_timestamp(Some(current), &snapshot, &snapshot_bytes, keys, now)?;
    let snapshot_name = format!("{}.snapshot.json", snapshot.version());
    let files = BTreeMap::from([
        (snapshot_name.clone(), snapshot_bytes),
        ("timestamp.json".to_owned(), timestamp.to_bytes()?),
    ]);
    let overlay = Overlay { base: repository, files: files.clone(), hidden: Vec::new() };
    let after = repository::load(&overlay, 1, now).map_err(|e| e.during("nothing was refreshed"))?;
    let mut steps = Vec::new();
    for name in [snapshot_name, "timestamp.json".to_owned()] {
        if let Some(bytes) = files.get(&name).cloned() {
            steps.push(Step::Metadata { name, bytes });
        }
    }
    steps.retain(|step| !is_there(repository, step));
    let mut notes = Vec::new();
    if after.set.expires() < expiry(now, keys.timestamp_days) {
        notes.push(format!(
            "nodes take this only until {}, when another role expires: check says which",
            after.set.expires()
        ));
    }
    Ok(Plan { steps, after, notes })
}

/// Does what a plan says.
///
/// # Errors
/// At the first write that fails. Run the verb again: it goes on where this one stopped.
pub fn perform(plan: &Plan, store: &mut dyn Store, progress: Progress) -> Result<()> {
    let bytes = plan.steps.iter().map(|step| match step {
        Step::Target { length, .. } => *length,
        Step::Metadata { .. } => 0,
    });
    let bar = progress.bytes("publishing", bytes.sum());
    for step in &plan.steps {
        store.put(step)?;
        if let Step::Target { length, .. } = step {
            bar.add(*length);
        }
    }
    bar.done();
    Ok(())
}

/// Reads the result as nodes will, and decides whether the new root goes first or last.
///
/// A root counts for nodes as soon as it is there, before any timestamp; so what they find around it must fit both
/// before and after. If everything new is also acceptable to the old root, the new root goes last. Otherwise it goes
/// first, and if what is published now does not fit it, nodes that come between the two steps are turned away once.
fn judge(
    repository: &Repository,
    files: &BTreeMap<String, Vec<u8>>,
    root_name: &str,
    current: Option<&View>,
    now: UnixTime,
) -> Result<(View, bool, Vec<String>)> {
    let look = |files: BTreeMap<String, Vec<u8>>, hidden: Vec<String>, now| {
        let overlay = Overlay { base: repository, files, hidden };
        repository::load(&overlay, 1, now)
    };
    let after = look(files.clone(), Vec::new(), now).map_err(|e| {
        e.during("nothing was published, because nodes would refuse it")
            .cure("mend that first; an expired role needs a new version, signed by its keys")
    })?;
    let root_is_new =
        current.is_some_and(|view| view.root().map(|(_, b)| b) != files.get(root_name).map(Vec::as_slice));
    if !root_is_new {
        return Ok((after, false, Vec::new()));
    }
    if look(files.clone(), vec![root_name.to_owned()], now).is_ok() {
        return Ok((after, true, Vec::new()));
    }
    let only_root = BTreeMap::from_iter(files.get_key_value(root_name).map(|(n, b)| (n.clone(), b.clone())));
    let mut notes = Vec::new();
    if look(only_root, Vec::new(), IGNORE_EXPIRY).is_err() {
        notes.push(
            "between the new root and the new timestamp, nodes refuse the repository for a moment and try again; \
             giving the old online keys beside the new ones once avoids that"
                .to_owned(),
        );
    }
    Ok((after, false, notes))
}

/// A snapshot that lists `roles`: the published one if it does and may stay, otherwise the next version.
fn next_snapshot(
    repository: &Repository,
    current: Option<&View>,
    roles: &BTreeMap<String, Value>,
    keys: &OnlineKeys,
    now: UnixTime,
    refresh: bool,
) -> Result<Signed> {
    let published = current.and_then(|view| view.bytes("snapshot"));
    let published = published.map(|bytes| Signed::parse("snapshot", bytes)).transpose()?;
    let version = published.as_ref().map_or(0, Signed::version);
    if let Some(published) = published
        && refresh
    {
        let expires = published.signed()["expires"].as_str().and_then(|t| t.parse::<UnixTime>().ok());
        let half = i64::from(keys.snapshot_days) * 86_400 / 2;
        if keys.snapshot.is_empty() || expires.is_some_and(|e| e.since(now) > half) {
            return Ok(published);
        }
    }
    if keys.snapshot.is_empty() {
        return Err(Error::new(Kind::Usage, "nothing was published", "a new snapshot must be signed")
            .cure("give --snapshot-key"));
    }
    // Above every snapshot that is there: one that an interrupted run left may be in a cache already.
    let version = version.max(highest_version(repository, "snapshot")?) + 1;
    let expires = expiry(now, keys.snapshot_days);
    let secrets: Vec<&Secret> = keys.snapshot.iter().collect();
    Unsigned::new("snapshot", "snapshot", version, expires, json!({"meta": roles})).sign(&secrets)
}

fn next_timestamp(
    current: Option<&View>,
    snapshot: &Signed,
    snapshot_bytes: &[u8],
    keys: &OnlineKeys,
    now: UnixTime,
) -> Result<Signed> {
    let published = current.and_then(|view| view.bytes("timestamp"));
    let version = match published {
        Some(bytes) => Signed::parse("timestamp", bytes)?.version(),
        None => 0,
    };
    let fields = json!({
        "meta": {"snapshot.json": meta(snapshot.version(), snapshot_bytes)},
        "issued": now.to_string(),
    });
    let secrets: Vec<&Secret> = keys.timestamp.iter().collect();
    let expires = expiry(now, keys.timestamp_days);
    Unsigned::new("timestamp", "timestamp", version + 1, expires, fields).sign(&secrets)
}

fn meta(version: u64, bytes: &[u8]) -> Value {
    json!({"version": version, "length": bytes.len(), "hashes": {"sha256": Sha256::of(bytes)}})
}

/// One step for each target that is listed and not there yet.
fn target_steps(editor: &RepositoryEditor, after: &View, outs: &[PathBuf]) -> Result<Vec<Step>> {
    let (repository, pending) = (editor.repository(), editor.pending().contents());
    let mut steps = Vec::new();
    for (_, path, file) in after.listed() {
        let path: TargetPath =
            path.parse().map_err(|e| Error::new(Kind::Data, "nothing was published", e))?;
        let file = file.blob().ok_or_else(|| {
            Error::new(Kind::Data, "nothing was published", format!("{path} is listed without a sha256"))
        })?;
        let to = path.with_digest(&file.sha256.to_string());
        let there = fs::metadata(repository.targets().join(&to)).is_ok_and(|m| m.len() == file.length);
        if there {
            continue;
        }
        let from = find_content(&pending.join(&to), outs, &path, &file)?.ok_or_else(|| {
            Error::new(
                Kind::Usage,
                "nothing was published",
                format!(
                    "the content of {path} (sha256 {}) is in none of the given folders",
                    file.sha256.short()
                ),
            )
            .cure(
                "name the folder that it was written to (by bundle), after the repository; policy publish keeps its own",
            )
        })?;
        steps.push(Step::Target { from, to, sha256: file.sha256, length: file.length });
    }
    Ok(steps)
}

/// The content of a target: where it is `kept`, or in one of `outs`, under its own path, or the end of it, down to the
/// file name alone. What bundle writes has the shortest form.
fn find_content(
    kept: &Path,
    outs: &[PathBuf],
    target: &TargetPath,
    wanted: &Blob,
) -> Result<Option<PathBuf>> {
    let what = "a target cannot be read";
    let whole = target.as_str();
    let ends: Vec<&str> =
        std::iter::successors(Some(whole), |end| end.split_once('/').map(|(_, end)| end)).collect();
    let given = outs.iter().flat_map(|out| ends.iter().rev().map(|end| out.join(end)));
    for path in std::iter::once(kept.to_owned()).chain(given) {
        match fs::File::open(&path) {
            Ok(mut file) if file.metadata().is_ok_and(|m| m.is_file() && m.len() == wanted.length) => {
                let (found, _) = Sha256::of_reader(&mut file).at(what, &path)?;
                if found == wanted.sha256 {
                    return Ok(Some(path));
                }
            }
            Err(e) if !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(e).at(what, &path);
            }
            _ => {}
        }
    }
    Ok(None)
}

/// Whether a step has been done already, by an earlier run.
fn is_there(repository: &Repository, step: &Step) -> bool {
    match step {
        Step::Target { .. } => false, // not planned if it is there
        Step::Metadata { name, bytes } => {
            fs::read(repository.metadata().join(name)).is_ok_and(|there| there == *bytes)
        }
    }
}

/// Puts the target `to` into the repository `root`: links or copies it to a name aside, makes sure that it is what it must be and durable, and renames it.
fn put_target(root: &Path, from: &Path, to: &Path, sha256: &Sha256) -> Result<()> {
    let what = "a target cannot be published";
    let to = &root.join(to);
    let folder = to.parent().unwrap_or(to);
    host::file::make_folder(folder, 0o755).during(what)?;
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let aside = folder.join(format!(".{name}.new"));
    host::file::remove(&aside).during(what)?;
    // A link costs neither time nor space; `bundle` replaces its files by rename, so a later run does not write into it.
    if fs::hard_link(from, &aside).is_err() {
        fs::copy(from, &aside).at(what, &aside)?;
    }
    let mut file = fs::File::open(&aside).at(what, &aside)?;
    let (found, _) = Sha256::of_reader(&mut file).at(what, &aside)?;
    if found != *sha256 {
        host::file::remove(&aside).during(what)?;
        return Err(Error::new(
            Kind::Data,
            what,
            format!("{}: its sha256 is {found}, but {sha256} was signed", from.display()),
        ));
    }
    fs::set_permissions(&aside, fs::Permissions::from_mode(0o644)).at(what, &aside)?;
    file.sync_all().at(what, &aside)?;
    fs::rename(&aside, to).at(what, to)?;
    // The new folders above it too: a timestamp must not outlive a power cut that its targets do not.
    for path in to.ancestors().take_while(|path| *path != root) {
        host::file::sync_folder_of(path).during(what)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
