//! Changing a repository: published state and pending next versions, and the edits that lead from one to the other.
//!
//! Every edit makes or changes a *pending* document; a change drops the signatures that the pending one had, because
//! they were given to something else. Nothing here writes into the repository: that is [`crate::publish`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use format::index::IndexCustom;
use format::json::{Json, JsonError};
use format::key::KeyId;
use format::metadata::{RoleKeys, Root};
use format::time::UnixTime;
use format::trust;
use serde_json::{Value, json};

use crate::document::{Approval, Signed, Unsigned};
use crate::error::{During, Error, Kind, Result};
use crate::keys::{Public, Secret};
use crate::repository::{self, BUNDLES, BUNDLES_PATTERN, Repository, View};

/// The roles that wait for signatures in the pending folder, in the order in which they depend on each other.
pub const PENDING_ROLES: [&str; 3] = ["root", "targets", BUNDLES];

/// Seconds in a day.
const DAY: i64 = 86_400;

/// `days` from `now`.
pub fn expiry(now: UnixTime, days: u32) -> UnixTime {
    now.plus(i64::from(days) * DAY)
}

/// One bundle as the `bundles` role will list it.
#[derive(Clone, Debug)]
pub struct Release {
    /// Target path → entry without `custom`, index first.
    pub index: (String, Value),
    /// The bundle file.
    pub bundle: (String, Value),
    /// `bundles/VARIANT/`: bundles below it share their serials.
    pub prefix: String,
    /// The patch cycle.
    pub cycle: format::name::CycleId,
}

/// What is published and what is pending.
pub struct RepositoryEditor {
    repository: Repository,
    pending_folder: PathBuf,
    published: Option<View>,
    pending: BTreeMap<String, Signed>,
    /// What happened to earlier signatures, for people.
    pub notes: Vec<String>,
    _lock: host::file::Lock,
}

impl RepositoryEditor {
    /// Opens the repository, verifying what is published, and takes the lock that keeps two runs apart.
    ///
    /// # Errors
    /// If something published or pending is damaged, or another run holds the lock.
    pub fn open(repository: Repository) -> Result<Self> {
        let pending_folder = repository.pending()?;
        host::file::make_folder(&pending_folder, 0o755).during("the pending folder cannot be made")?;
        let lock = host::file::Lock::take(&pending_folder.join("lock"))
            .during("the repository cannot be locked")?
            .ok_or_else(|| {
                Error::new(
                    Kind::Unavailable,
                    "the repository cannot be locked",
                    format!("{}: another prestage-build works on it", repository.folder().display()),
                )
                .cure("wait until it has ended")
            })?;
        let mut pending = BTreeMap::new();
        for role in PENDING_ROLES {
            let path = pending_folder.join(format!("{role}.json"));
            let bytes = host::file::read_limited(&path, trust::MAX_TARGETS)
                .during("pending metadata cannot be read")?;
            if let Some(bytes) = bytes {
                pending.insert(role.to_owned(), Signed::parse(role, &bytes)?);
            }
        }
        let published = repository::published(&repository, pending.get("root").map(Signed::version))?;
        // What an interrupted run published, and could not take away any more, is pending no longer.
        let is_published = |role: &str, document: &Signed| {
            let view = published.as_ref()?;
            let there = match role {
                "root" => view.root().map(|(_, bytes)| bytes),
                other => view.bytes(other),
            };
            let there = Signed::parse(role, there?).ok()?;
            Some(there.signed() == document.signed())
        };
        let done: Vec<String> = pending
            .iter()
            .filter(|(role, document)| is_published(role, document) == Some(true))
            .map(|(role, _)| role.to_owned())
            .collect();
        for role in done {
            host::file::remove(&pending_folder.join(format!("{role}.json")))
                .during("pending metadata cannot be removed")?;
            pending.remove(&role);
        }
        Ok(RepositoryEditor {
            repository,
            pending_folder,
            published,
            pending,
            notes: Vec::new(),
            _lock: lock,
        })
    }

    /// The repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Where pending documents wait.
    pub fn pending_folder(&self) -> &std::path::Path {
        &self.pending_folder
    }

    /// What is published.
    pub fn published(&self) -> Option<&View> {
        self.published.as_ref()
    }

    /// The pending documents.
    pub fn pending(&self) -> &BTreeMap<String, Signed> {
        &self.pending
    }

    /// Makes the first version of everything (`root init`).
    ///
    /// # Errors
    /// If there is a repository already.
    pub fn create(&mut self, first: &FirstRoot, now: UnixTime) -> Result<()> {
        if self.published.is_some() || !self.pending.is_empty() {
            return Err(Error::new(
                Kind::Usage,
                "no repository was made",
                format!("{} has one, published or pending", self.repository.folder().display()),
            )
            .cure("change it with root add-key and root rotate"));
        }
        let mut keys = serde_json::Map::new();
        let mut roles = serde_json::Map::new();
        for (role, of_role) in &first.top_level {
            roles.insert((*role).to_owned(), role_value(of_role, &mut keys)?);
        }
        let root = json!({"consistent_snapshot": true, "keys": keys, "roles": roles});
        let mut delegated = serde_json::Map::new();
        let mut delegation = role_value(&first.bundles, &mut delegated)?;
        delegation["name"] = json!(BUNDLES);
        delegation["paths"] = json!([BUNDLES_PATTERN]);
        delegation["terminating"] = json!(true);
        let targets = json!({"targets": {}, "delegations": {"keys": delegated, "roles": [delegation]}});
        let [root_days, targets_days, bundles_days] = first.days;
        let documents = [
            Unsigned::new("root", "root", 1, expiry(now, root_days), root),
            Unsigned::new("targets", "targets", 1, expiry(now, targets_days), targets),
            Unsigned::new(BUNDLES, "targets", 1, expiry(now, bundles_days), json!({"targets": {}})),
        ];
        for document in documents {
            self.set_pending(document)?;
        }
        Ok(())
    }

    /// Adds `key` to a role. Its threshold stays.
    ///
    /// # Errors
    /// If there is no repository yet, no such role, or the role has the key.
    pub fn add_key(&mut self, role: &str, key: &Public, days: u32, now: UnixTime) -> Result<()> {
        self.edit_role(role, days, now, &|keys, entry| {
            let ids = key_ids(entry);
            if ids.contains(&key.id.0) {
                return Err(refused(role, format!("it has the key {} already", key.id)));
            }
            keys.insert(key.id.0.clone(), key.object());
            entry["keyids"] = json!([ids, vec![key.id.0.clone()]].concat());
            Ok(())
        })
    }

    /// Replaces the key `old` of a role by `new`.
    ///
    /// # Errors
    /// As [`RepositoryEditor::add_key`], and if the role does not have `old`.
    pub fn rotate(&mut self, role: &str, old: &str, new: &Public, days: u32, now: UnixTime) -> Result<()> {
        self.edit_role(role, days, now, &|keys, entry| {
            let mut ids = key_ids(entry);
            let matching: Vec<usize> = (0..ids.len()).filter(|i| ids[*i].starts_with(old)).collect();
            let [at] = matching[..] else {
                let why = format!("{} of its keys have an id that begins with {old}", matching.len());
                return Err(refused(role, why).cure("root show lists the ids"));
            };
            if ids.contains(&new.id.0) {
                return Err(refused(role, format!("it has the key {} already", new.id)));
            }
            ids[at] = new.id.0.clone();
            keys.insert(new.id.0.clone(), new.object());
            entry["keyids"] = json!(ids);
            Ok(())
        })
    }

    /// Changes how many keys of a role must sign.
    ///
    /// # Errors
    /// If the role does not have that many keys, or none would be needed.
    pub fn set_threshold(&mut self, role: &str, threshold: u64, days: u32, now: UnixTime) -> Result<()> {
        self.edit_role(role, days, now, &|_, entry| {
            check_threshold(role, threshold, key_ids(entry).len())?;
            entry["threshold"] = json!(threshold);
            Ok(())
        })
    }

    /// Lists a bundle in the pending next `bundles`. True if that changed it; false if it stands there already.
    ///
    /// # Errors
    /// If the version exists with other content.
    pub fn add_release(&mut self, release: &Release, days: u32, now: UnixTime) -> Result<bool> {
        let current = self.effective(BUNDLES)?;
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
        let mut next = self.next_version(BUNDLES, days, now)?;
        next.signed["targets"][path] = entry;
        next.signed["targets"][&release.bundle.0] = release.bundle.1.clone();
        self.set_pending(next)?;
        Ok(true)
    }

    /// Signs every pending document of `roles` with each of `keys` that belongs to its role. Returns the roles that
    /// were signed.
    ///
    /// # Errors
    /// If a key belongs to no role that is pending: then it is the wrong key, and nothing is signed.
    pub fn sign(&mut self, roles: &[&str], keys: &[&Secret]) -> Result<Vec<String>> {
        let mut of_role: BTreeMap<&str, Vec<RoleKeys>> = BTreeMap::new();
        for role in roles {
            if self.pending.contains_key(*role) {
                of_role.insert(role, self.required(role)?);
            }
        }
        let belongs =
            |keys: &[RoleKeys], id: &KeyId| keys.iter().any(|k| k.keys.iter().any(|(i, _)| i == id));
        if let Some(key) = keys.iter().find(|key| !of_role.values().any(|k| belongs(k, &key.public().id))) {
            let pending: Vec<&str> = of_role.keys().copied().collect();
            return Err(Error::new(
                Kind::Usage,
                "nothing was signed",
                format!(
                    "the key {} belongs to none of the pending roles ({})",
                    key.public().id,
                    if pending.is_empty() { "there are none".to_owned() } else { pending.join(", ") }
                ),
            )
            .cure("root show lists the keys of each role"));
        }
        let mut signed = Vec::new();
        for (role, required) in of_role {
            let Some(document) = self.pending.get_mut(role) else {
                continue;
            };
            for key in keys.iter().filter(|key| belongs(&required, &key.public().id)) {
                document.add(key)?;
                signed.push(role.to_owned());
            }
        }
        signed.dedup();
        self.save()?;
        Ok(signed)
    }

    /// Who has signed each pending document, measured by each set of keys that must agree (for a root: the old root's
    /// and its own).
    ///
    /// # Errors
    /// If a document cannot be read.
    pub fn approvals(&self) -> Result<Vec<Approval>> {
        let mut out = Vec::new();
        for (role, document) in &self.pending {
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
        // bundles first and root last: whatever is left after an interruption is a prefix that still makes sense.
        for role in PENDING_ROLES.iter().rev() {
            host::file::remove(&self.pending_folder.join(format!("{role}.json")))
                .during("pending metadata cannot be removed")?;
            self.pending.remove(*role);
        }
        Ok(())
    }

    /// The newest version of a document, pending or published.
    ///
    /// # Errors
    /// If there is none.
    pub fn effective(&self, role: &str) -> Result<Signed> {
        if let Some(pending) = self.pending.get(role) {
            return Ok(pending.clone());
        }
        let published = self.published.as_ref().and_then(|view| match role {
            "root" => view.root().map(|(_, bytes)| bytes),
            other => view.bytes(other),
        });
        match published {
            Some(bytes) => Signed::parse(role, bytes),
            None => Err(Error::new(
                Kind::Usage,
                "there is nothing to change",
                format!("{} holds no repository", self.repository.folder().display()),
            )
            .cure("make one with root init")),
        }
    }

    /// The keys that count for `bundles`, once what is pending is published.
    ///
    /// # Errors
    /// If the targets role cannot be read.
    pub fn keys_of_bundles(&self) -> Result<RoleKeys> {
        delegated_keys(&self.effective("targets")?)
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
            "targets" => Ok(vec![root.targets]),
            _ => Ok(vec![delegated_keys(&self.effective("targets")?)?]),
        }
    }

    /// Changes the entry of a role where its keys stand (root, or targets for `bundles`), then makes new versions of
    /// what the changed keys would no longer accept.
    fn edit_role(&mut self, role: &str, days: u32, now: UnixTime, edit: RoleEdit<'_>) -> Result<()> {
        let holder = match role {
            "root" | "targets" | "snapshot" | "timestamp" => "root",
            BUNDLES => "targets",
            _ => {
                return Err(refused(role, "there is no such role")
                    .cure("the roles are root, targets, bundles, snapshot and timestamp"));
            }
        };
        let mut next = self.next_version(holder, days, now)?;
        let place = if holder == "root" { &mut next.signed } else { &mut next.signed["delegations"] };
        let mut keys = match place["keys"].take() {
            Value::Object(keys) => keys,
            _ => serde_json::Map::new(),
        };
        let entry = match (&mut place["roles"], holder) {
            (Value::Object(roles), "root") => roles.get_mut(role),
            (Value::Array(roles), _) => roles.iter_mut().find(|r| r["name"] == BUNDLES),
            _ => None,
        };
        edit(&mut keys, entry.ok_or_else(|| refused(role, "the repository has no such role"))?)?;
        // A key that no role uses any more says nothing and goes.
        let used = match &place["roles"] {
            Value::Object(roles) => roles.values().flat_map(key_ids).collect::<Vec<_>>(),
            Value::Array(roles) => roles.iter().flat_map(key_ids).collect(),
            _ => Vec::new(),
        };
        keys.retain(|id, _| used.contains(id));
        place["keys"] = Value::Object(keys);
        self.set_pending(next)?;
        for dependent in ["targets", BUNDLES] {
            let keys = &self.required(dependent)?[0];
            if !self.pending.contains_key(dependent) && !self.effective(dependent)?.approval(keys)?.is_met() {
                let next = self.next_version(dependent, days, now)?;
                self.set_pending(next)?;
                self.notes.push(format!("{dependent} must be signed anew, by the keys that count now"));
            }
        }
        Ok(())
    }

    /// The next version of a document, to be changed: the pending one, or a copy of the published one. Its version is
    /// above every file of that role that is or was published, so that no name ever gets a second content.
    fn next_version(&self, role: &str, days: u32, now: UnixTime) -> Result<Unsigned> {
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
        let there = repository::MetadataSource::metadata_file(
            &self.repository,
            &format!("{version}.root.json"),
            trust::MAX_ROOT,
        )?;
        if role == "root" && there.is_some() {
            return Err(refused(
                role,
                format!("{version}.root.json is there already, from an interrupted publication"),
            )
            .cure("run publish again first"));
        }
        next.signed["version"] = json!(version);
        next.signed["expires"] = json!(expiry(now, days).to_string());
        Ok(next)
    }

    fn set_pending(&mut self, document: Unsigned) -> Result<()> {
        let role = document.role.clone();
        let document = document.sign(&[])?;
        if let Some(before) = self.pending.get(&role)
            && before.signed() != document.signed()
            && *before != before.clone().into_unsigned().sign(&[])?
        {
            self.notes.push(format!(
                "the signatures on the pending {role} were for other content and are gone: all must sign again"
            ));
        }
        self.pending.insert(role, document);
        self.save()
    }

    /// Writes the pending documents.
    fn save(&self) -> Result<()> {
        for (role, document) in &self.pending {
            host::file::replace(
                &self.pending_folder.join(format!("{role}.json")),
                &document.to_bytes()?,
                0o644,
            )
            .during("pending metadata cannot be written")?;
        }
        Ok(())
    }
}

type RoleEdit<'e> = &'e dyn Fn(&mut serde_json::Map<String, Value>, &mut Value) -> Result<()>;

/// The keys of a role and how many must sign, as given for `root init`.
#[derive(Debug)]
pub struct RoleSpec {
    /// Role name, for messages.
    pub role: &'static str,
    /// Its keys.
    pub keys: Vec<Public>,
    /// How many must sign.
    pub threshold: u64,
}

/// What `root init` is given.
#[derive(Debug)]
pub struct FirstRoot {
    /// root, targets, snapshot, timestamp.
    pub top_level: Vec<(&'static str, RoleSpec)>,
    /// The delegated role.
    pub bundles: RoleSpec,
    /// Days until root, targets and bundles expire.
    pub days: [u32; 3],
}

fn role_value(spec: &RoleSpec, keys: &mut serde_json::Map<String, Value>) -> Result<Value> {
    let mut ids: Vec<&str> = spec.keys.iter().map(|k| k.id.0.as_str()).collect();
    ids.sort_unstable();
    if ids.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(refused(spec.role, "one key is given twice"));
    }
    check_threshold(spec.role, spec.threshold, ids.len())?;
    for key in &spec.keys {
        keys.insert(key.id.0.clone(), key.object());
    }
    Ok(json!({"keyids": ids, "threshold": spec.threshold}))
}

fn check_threshold(role: &str, threshold: u64, keys: usize) -> Result<()> {
    if threshold == 0 || threshold > keys as u64 {
        return Err(refused(
            role,
            format!("a threshold of {threshold} cannot be met by {keys} keys, or asks for none"),
        ));
    }
    Ok(())
}

fn refused(role: &str, why: impl std::fmt::Display) -> Error {
    Error::new(Kind::Usage, format_args!("the role {role} was not changed"), why)
}

fn key_ids(entry: &Value) -> Vec<String> {
    let ids = entry["keyids"].as_array().map(Vec::as_slice).unwrap_or_default();
    ids.iter().filter_map(|id| id.as_str().map(str::to_owned)).collect()
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
        other => crate::error::AtPath::at(other, "the repository cannot be read", &repository.metadata())?,
    };
    let versions = entries.filter_map(|entry| {
        let name = entry.ok()?.file_name();
        name.to_str()?.strip_suffix(&suffix)?.parse().ok()
    });
    Ok(versions.max().unwrap_or(0))
}

/// Reads a root that may not be signed by enough keys yet.
///
/// # Errors
/// If it is no root.
pub fn read_root(document: &Signed) -> Result<Root> {
    read(document, format::metadata::read_root)
}

/// The keys that a targets role, which may not be signed by enough keys yet, gives to `bundles`.
fn delegated_keys(targets: &Signed) -> Result<RoleKeys> {
    let read = read(targets, format::metadata::read_targets)?;
    repository::keys_of_bundles(&read).cloned().ok_or_else(|| {
        Error::new(Kind::Data, "targets.json cannot be used", "it does not delegate to the role bundles")
    })
}

fn read<T>(document: &Signed, read: impl Fn(&Json<'_>) -> std::result::Result<T, JsonError>) -> Result<T> {
    let text = document.signed().to_string();
    Json::parse(text.as_bytes())
        .and_then(|json| read(&json))
        .map_err(|e| Error::new(Kind::Data, format_args!("{}.json cannot be read", document.role), e))
}
