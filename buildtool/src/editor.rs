//! Changing a repository: published state and pending next versions, and the edits that lead from one to the other.
//!
//! Every edit makes or changes a *pending* document; a change drops the signatures that the pending one had, because
//! they were given to something else. Nothing here writes into the repository: that is [`crate::publish`].

use std::collections::BTreeMap;

use format::digest::Sha256;
use format::index::IndexCustom;
use format::json::{Json, JsonError};
use format::key::KeyId;
use format::metadata::{RoleKeys, Root};
use format::name::TargetPath;
use format::time::UnixTime;
use format::trust;
use serde_json::{Map, Value, json};

use crate::delegated::{BUNDLES, DELEGATED, Delegated, POLICIES};
use crate::document::{Approval, Signed, Unsigned, expiry};
use crate::error::{AtPath, Error, Kind, Result};
use crate::keys::Secret;
use crate::pending::Pending;
use crate::repository::{self, MetadataSource, Repository, TARGETS, View};
use crate::roles::{self, FirstRoot, RoleEdit, not_there, refused};

/// One bundle as the `bundles` role will list it.
#[derive(Clone, Debug)]
pub struct Release {
    /// Target path and entry without `custom` of the index.
    pub index: (String, Value),
    /// Target path and entry of the bundle file.
    pub bundle: (String, Value),
    /// `bundles/VARIANT/`: bundles below it share their serials.
    pub prefix: String,
    /// The patch cycle.
    pub cycle: format::name::CycleId,
}

/// What is published and what is pending.
pub struct RepositoryEditor {
    repository: Repository,
    published: Option<View>,
    pending: Pending,
    /// What people must know of the edits made.
    pub notes: Vec<String>,
}

impl RepositoryEditor {
    /// Opens a repository that is there, published or pending, and verifies what is published.
    ///
    /// # Errors
    /// If there is none, something of it is damaged, or another run works on it.
    pub fn open(repository: Repository) -> Result<Self> {
        if !repository.metadata().is_dir() && !repository.pending()?.is_dir() {
            return Err(none_there(&repository));
        }
        RepositoryEditor::open_or_begin(repository)
    }

    fn open_or_begin(repository: Repository) -> Result<Self> {
        let mut pending = Pending::open(repository.pending()?)?;
        let published =
            repository::published(&repository, pending.documents().get("root").map(Signed::version))?;
        if let Some(view) = &published {
            pending.drop_published(view)?;
        }
        Ok(RepositoryEditor { repository, published, pending, notes: Vec::new() })
    }

    /// Makes the first version of everything (`root init`), all of it pending.
    ///
    /// # Errors
    /// If there is a repository already.
    pub fn create(repository: Repository, first: &FirstRoot, now: UnixTime) -> Result<Self> {
        let documents = first.documents(now)?;
        let mut editor = RepositoryEditor::open_or_begin(repository)?;
        if editor.published.is_some() || !editor.pending.documents().is_empty() {
            return Err(Error::new(
                Kind::Usage,
                "no repository was made",
                format!("{} has one, published or pending", editor.repository.folder().display()),
            )
            .cure("change it with root add-key and root rotate"));
        }
        for document in documents {
            editor.pending.set(document)?;
        }
        Ok(editor)
    }

    /// The repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// What is published.
    pub fn published(&self) -> Option<&View> {
        self.published.as_ref()
    }

    /// What is pending.
    pub fn pending(&self) -> &Pending {
        &self.pending
    }

    /// Changes which keys count for a role, and makes new versions of what the keys that count then would not accept.
    /// A delegated role that gets its first key by this begins, listing nothing, with its usual time to live.
    ///
    /// # Errors
    /// If there is no repository yet or no such role, or the edit makes no sense for it.
    pub fn edit_role(&mut self, role: &str, edit: &RoleEdit, days: u32, now: UnixTime) -> Result<()> {
        let mut next = self.next_version(roles::holder(role)?, Some(expiry(now, days)))?;
        edit.apply(role, &mut next)?;
        if let Some(delegated) = Delegated::named(role)
            && self.find(role)?.is_none()
        {
            // Before the delegation to it: of an edit that is cut off between the two, nothing remains to be mended.
            let version = 1 + highest_version(&self.repository, role)?;
            let expires = expiry(now, delegated.days);
            self.set_pending(Unsigned::new(role, TARGETS, version, expires, Delegated::empty()))?;
            self.notes
                .push(format!("the role {role} is new, and lists nothing yet: its keys must sign that"));
        }
        self.set_pending(next)?;
        let delegated = self.delegated()?.into_iter().map(|role| role.name);
        for dependent in std::iter::once(TARGETS).chain(delegated) {
            let is_pending = self.pending.documents().contains_key(dependent);
            let keys = &self.required(dependent)?[0];
            if !is_pending && !self.effective(dependent)?.approval(keys)?.is_met() {
                let next = self.next_version(dependent, None)?;
                self.set_pending(next)?;
                self.notes.push(format!("{dependent} must be signed anew, by the keys that count now"));
            }
        }
        Ok(())
    }

    /// Makes a new version of root, targets, bundles or policies that differs in nothing but its expiry.
    ///
    /// # Errors
    /// If it is another role; snapshot and timestamp are renewed by every publication.
    pub fn renew(&mut self, role: &str, days: u32, now: UnixTime) -> Result<()> {
        if !crate::pending::PENDING_ROLES.contains(&role) {
            return Err(refused(role, "only root, targets, bundles and policies are renewed so")
                .cure("refresh-timestamp renews snapshot and timestamp"));
        }
        let next = self.next_version(role, Some(expiry(now, days)))?;
        self.set_pending(next)
    }

    /// Lists a bundle in the pending next `bundles`. True if that changed it; false if it stands there already.
    ///
    /// # Errors
    /// If the version exists with other content.
    pub fn add_release(&mut self, release: &Release, days: u32, now: UnixTime) -> Result<bool> {
        let current = self.effective(BUNDLES.name)?;
        let targets = current.signed().get("targets").cloned().unwrap_or_else(|| json!({}));
        let (path, entry) = &release.index;
        match targets.get(path) {
            Some(there) if same_content(there, entry) => return Ok(false),
            Some(_) => {
                return Err(Error::new(
                    Kind::Data,
                    "the bundle was not signed",
                    format!("{path} is already there with other content"),
                )
                .cure("give the new bundle a new version; nodes must be able to rely on a name"));
            }
            None => {}
        }
        let serial = 1 + highest_serial(&targets, &release.prefix);
        let mut entry = entry.clone();
        entry["custom"] = serde_json::to_value(IndexCustom { serial, cycle: release.cycle.clone() })
            .map_err(|e| Error::new(Kind::Data, "the bundle was not signed", e))?;
        let mut next = self.next_version(BUNDLES.name, Some(expiry(now, days)))?;
        next.signed["targets"][path] = entry;
        next.signed["targets"][&release.bundle.0] = release.bundle.1.clone();
        self.set_pending(next)?;
        Ok(true)
    }

    /// Makes the pending next `policies` list exactly these targets, each with its length and SHA-256. True if that
    /// changed anything; false if it, or what is published, lists them already.
    ///
    /// # Errors
    /// If the repository has no such role, or a path is not the role's own.
    pub fn set_policies(
        &mut self,
        files: &BTreeMap<TargetPath, (u64, Sha256)>,
        days: u32,
        now: UnixTime,
    ) -> Result<bool> {
        let role = POLICIES.name;
        if let Some(path) = files.keys().find(|path| !POLICIES.may_list(path.as_str())) {
            return Err(refused(role, format!("{path} is not of the form {}", POLICIES.pattern)));
        }
        let current = self.find(role)?.ok_or_else(|| not_there(role))?;
        let targets: Map<String, Value> = files
            .iter()
            .map(|(path, (length, sha256))| {
                (path.to_string(), json!({"length": length, "hashes": {"sha256": sha256}}))
            })
            .collect();
        let targets = Value::Object(targets);
        if current.signed()["targets"] == targets {
            return Ok(false);
        }
        let mut next = self.next_version(role, Some(expiry(now, days)))?;
        next.signed["targets"] = targets;
        self.set_pending(next)?;
        Ok(true)
    }

    /// From here on it is about what is published and the role policies alone: a halt does not wait for the approver of a
    /// bundle. Policies that wait to be published are forgotten, for they were made without knowing of it.
    ///
    /// # Errors
    /// If that fails.
    pub fn set_aside_but_policies(&mut self) -> Result<()> {
        if self.pending.set_aside_but(POLICIES.name)? {
            self.notes.push(
                "policies that waited to be published are forgotten: give policy publish again after this"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// Whether every one of `keys` may sign for `role`; asked before anything is listed, so that a wrong key leaves
    /// nothing behind that waits for the right one.
    ///
    /// # Errors
    /// If one may not.
    pub fn may_sign(&self, role: &str, keys: &[Secret]) -> Result<()> {
        let required = self.required(role)?;
        match keys.iter().find(|key| !belongs(&required, &key.public().id)) {
            None => Ok(()),
            Some(key) => Err(wrong_key(key, role)),
        }
    }

    /// Signs every pending document of `roles` with each of `keys` that belongs to its role. Returns the roles that
    /// were signed.
    ///
    /// # Errors
    /// If a key belongs to no role that is pending: then it is the wrong key, and nothing is signed.
    pub fn sign(&mut self, roles: &[&str], keys: &[&Secret]) -> Result<Vec<String>> {
        let mut of_role: BTreeMap<&str, Vec<RoleKeys>> = BTreeMap::new();
        for role in roles {
            if self.pending.documents().contains_key(*role) {
                of_role.insert(role, self.required(role)?);
            }
        }
        if let Some(key) = keys.iter().find(|key| !of_role.values().any(|k| belongs(k, &key.public().id))) {
            let pending: Vec<&str> = of_role.keys().copied().collect();
            let pending = if pending.is_empty() { "there are none".to_owned() } else { pending.join(", ") };
            return Err(wrong_key(key, &format!("any of the pending roles ({pending})")));
        }
        let mut signed = Vec::new();
        for (role, required) in of_role {
            let Some(document) = self.pending.document_mut(role) else {
                continue;
            };
            for key in keys.iter().filter(|key| belongs(&required, &key.public().id)) {
                document.add(key)?;
                signed.push(role.to_owned());
            }
        }
        signed.dedup();
        self.pending.save()?;
        Ok(signed)
    }

    /// Who has signed each pending document, measured by each set of keys that must agree (for a root: the old root's
    /// and its own).
    ///
    /// # Errors
    /// If a document cannot be read.
    pub fn approvals(&self) -> Result<Vec<Approval>> {
        let mut out = Vec::new();
        for (role, document) in self.pending.documents() {
            for (i, keys) in self.required(role)?.iter().enumerate() {
                let mut approval = document.approval(keys)?;
                if i > 0 {
                    approval.role = format!("{role} (by the keys before this change)");
                }
                out.push(approval);
            }
        }
        Ok(out)
    }

    /// Forgets what is pending, after it has been published.
    ///
    /// # Errors
    /// If a file cannot be removed.
    pub fn clear(&mut self) -> Result<()> {
        self.pending.clear()
    }

    /// The newest version of a document, pending or published.
    ///
    /// # Errors
    /// If there is none.
    pub fn effective(&self, role: &str) -> Result<Signed> {
        match (self.find(role)?, Delegated::named(role)) {
            (Some(document), _) => Ok(document),
            (None, Some(delegated)) if self.published.is_some() && delegated.optional => Err(not_there(role)),
            (None, _) => Err(none_there(&self.repository)),
        }
    }

    /// The newest version of a document, pending or published, if there is one.
    fn find(&self, role: &str) -> Result<Option<Signed>> {
        if let Some(pending) = self.pending.documents().get(role) {
            return Ok(Some(pending.clone()));
        }
        let published = self.published.as_ref().and_then(|view| view.newest(role));
        published.map(|bytes| Signed::parse(role, bytes)).transpose()
    }

    /// The delegated roles that there are, once what is pending is published.
    ///
    /// # Errors
    /// If the targets role cannot be read.
    pub fn delegated(&self) -> Result<Vec<&'static Delegated>> {
        let targets = read(&self.effective(TARGETS)?, format::metadata::read_targets)?;
        Ok(DELEGATED.into_iter().filter(|role| role.keys_in(&targets).is_some()).collect())
    }

    /// The keys that count for a delegated role, once what is pending is published.
    ///
    /// # Errors
    /// If the targets role cannot be read, or does not delegate to it.
    pub fn keys_of_delegated(&self, role: &str) -> Result<RoleKeys> {
        let targets = read(&self.effective(TARGETS)?, format::metadata::read_targets)?;
        Delegated::named(role).and_then(|role| role.keys_in(&targets)).cloned().ok_or_else(|| {
            Error::new(
                Kind::Data,
                "targets.json cannot be used",
                format!("it does not delegate to the role {role}"),
            )
            .cure(format_args!("root add-key --role {role} --key FILE makes the delegation"))
        })
    }

    /// The sets of keys of which each must have signed the pending document of `role`.
    fn required(&self, role: &str) -> Result<Vec<RoleKeys>> {
        let root = read_root(&self.effective("root")?)?;
        match role {
            "root" => {
                let mut sets = vec![root.root];
                if let Some(view) = &self.published
                    && view.set.root().root != sets[0]
                {
                    sets.push(view.set.root().root.clone());
                }
                Ok(sets)
            }
            TARGETS => Ok(vec![root.targets]),
            _ => Ok(vec![self.keys_of_delegated(role)?]),
        }
    }

    /// The next version of a document, to be changed: the pending one, or a copy of the published one. Its version is
    /// above every file of that role that is or was published, so that no name ever gets a second content.
    /// It expires when the copied one does unless `expires` says otherwise.
    fn next_version(&self, role: &str, expires: Option<UnixTime>) -> Result<Unsigned> {
        let mut next = self.effective(role)?.into_unsigned();
        let published = match (&self.published, role) {
            (None, _) => 0,
            (Some(view), "root") => view.root().map_or(0, |(version, _)| version),
            (Some(view), _) => {
                let published = view.set.targets(role).map_or(0, |t| t.header.version);
                published.max(highest_version(&self.repository, role)?)
            }
        };
        let version = published + 1;
        // Nodes take a root as soon as it is there: it must never be replaced by another of the same version.
        let root = format!("{version}.root.json");
        if role == "root" && self.repository.metadata_file(&root, trust::MAX_ROOT)?.is_some() {
            return Err(refused(role, format!("{root} is there already, from an interrupted publication"))
                .cure("run publish again first"));
        }
        next.signed["version"] = json!(version);
        if let Some(expires) = expires {
            next.signed["expires"] = json!(expires.to_string());
        }
        Ok(next)
    }

    fn set_pending(&mut self, document: Unsigned) -> Result<()> {
        let role = document.role.clone();
        if self.pending.set(document)? {
            self.notes.push(format!(
                "the signatures on the pending {role} were for other content and are gone: all must sign again"
            ));
        }
        Ok(())
    }
}

fn same_content(there: &Value, entry: &Value) -> bool {
    there["length"] == entry["length"] && there["hashes"] == entry["hashes"]
}

fn highest_serial(targets: &Value, prefix: &str) -> u64 {
    let targets = targets.as_object().into_iter().flatten();
    targets
        .filter(|(path, _)| path.starts_with(prefix))
        .filter_map(|(_, entry)| entry["custom"]["serial"].as_u64())
        .max()
        .unwrap_or(0)
}

/// The highest V of the files `V.ROLE.json`, referred to or not.
pub fn highest_version(repository: &Repository, role: &str) -> Result<u64> {
    let suffix = format!(".{role}.json");
    let entries = match std::fs::read_dir(repository.metadata()) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        other => other.at("the repository cannot be read", &repository.metadata())?,
    };
    let versions = entries.filter_map(|entry| {
        let name = entry.ok()?.file_name();
        name.to_str()?.strip_suffix(&suffix)?.parse().ok()
    });
    Ok(versions.max().unwrap_or(0))
}

fn none_there(repository: &Repository) -> Error {
    Error::new(
        Kind::Usage,
        "there is nothing to change",
        format!("{} holds no repository", repository.folder().display()),
    )
    .cure("make one with root init")
}

/// Reads a root that may not be signed by enough keys yet.
///
/// # Errors
/// If it is no root.
pub fn read_root(document: &Signed) -> Result<Root> {
    read(document, format::metadata::read_root)
}

fn read<T>(document: &Signed, read: impl Fn(&Json<'_>) -> std::result::Result<T, JsonError>) -> Result<T> {
    let text = document.signed().to_string();
    Json::parse(text.as_bytes())
        .and_then(|json| read(&json))
        .map_err(|e| Error::new(Kind::Data, format_args!("{}.json cannot be read", document.role), e))
}

fn belongs(keys: &[RoleKeys], id: &KeyId) -> bool {
    keys.iter().any(|k| k.keys.iter().any(|(i, _)| i == id))
}

fn wrong_key(key: &Secret, roles: &str) -> Error {
    let why = format!("the key {} does not belong to {roles}", key.public().id);
    Error::new(Kind::Usage, "nothing was signed", why).cure("root show lists the keys of each role")
}
