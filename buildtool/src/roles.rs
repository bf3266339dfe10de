//! Which keys count for a role, as root and targets say it: the first version, and the edits of an entry.
//!
//! Values in, values out; what becomes of them is [`crate::editor`]'s business.

use format::time::UnixTime;
use serde_json::{Map, Value, json};

use crate::delegated::Delegated;
use crate::document::{Unsigned, expiry};
use crate::error::{Error, Kind, Result};
use crate::keys::Public;
use crate::repository::TARGETS;

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
    pub top_level: Vec<RoleSpec>,
    /// Days until root and targets expire.
    pub days: [u32; 2],
    /// The delegated roles, and the days until each expires.
    pub delegated: Vec<(&'static Delegated, RoleSpec, u32)>,
}

impl FirstRoot {
    /// The first version of root, targets and the delegated roles.
    ///
    /// # Errors
    /// If a role has a key twice or a threshold that its keys cannot meet.
    pub fn documents(&self, now: UnixTime) -> Result<Vec<Unsigned>> {
        let (mut keys, mut roles) = (Map::new(), Map::new());
        for spec in &self.top_level {
            let ids = spec.key_ids(&mut keys)?;
            roles.insert(spec.role.to_owned(), json!({"keyids": ids, "threshold": spec.threshold}));
        }
        let root = json!({"consistent_snapshot": true, "keys": keys, "roles": roles});
        let (mut keys, mut delegations) = (Map::new(), Vec::new());
        for (role, spec, _) in &self.delegated {
            let ids = spec.key_ids(&mut keys)?;
            delegations.push(role.delegation(&ids, spec.threshold));
        }
        let targets = json!({"targets": {}, "delegations": {"keys": keys, "roles": delegations}});
        let [root_days, targets_days] = self.days;
        let mut documents = vec![
            Unsigned::new("root", "root", 1, expiry(now, root_days), root),
            Unsigned::new(TARGETS, TARGETS, 1, expiry(now, targets_days), targets),
        ];
        for (role, _, days) in &self.delegated {
            documents.push(Unsigned::new(role.name, TARGETS, 1, expiry(now, *days), Delegated::empty()));
        }
        Ok(documents)
    }
}

impl RoleSpec {
    /// The ids of its keys, which join `keys`.
    fn key_ids(&self, keys: &mut Map<String, Value>) -> Result<Vec<&str>> {
        let mut ids: Vec<&str> = self.keys.iter().map(|k| k.id.0.as_str()).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(refused(self.role, "one key is given twice"));
        }
        check_threshold(self.role, self.threshold, ids.len())?;
        for key in &self.keys {
            keys.insert(key.id.0.clone(), key.object());
        }
        Ok(ids)
    }
}

/// One change of which keys count for a role.
#[derive(Debug)]
pub enum RoleEdit {
    /// One more key; the threshold stays.
    Add(Public),
    /// One key for another: the beginning of the id of the old one, and the new one.
    Rotate(String, Public),
    /// How many must sign.
    Threshold(u64),
}

/// The document in which the keys of `role` stand.
///
/// # Errors
/// If there is no such role.
pub fn holder(role: &str) -> Result<&'static str> {
    match role {
        "root" | TARGETS | "snapshot" | "timestamp" => Ok("root"),
        _ if Delegated::named(role).is_some() => Ok(TARGETS),
        _ => Err(refused(role, "there is no such role")
            .cure("the roles are root, targets, bundles, policies, snapshot and timestamp")),
    }
}

impl RoleEdit {
    /// Changes the entry of `role` in the next version of its holder. The first key of a delegated role that is not
    /// there yet makes its delegation, with a threshold of one.
    ///
    /// # Errors
    /// If the role has the new key already, does not have the old one, or cannot meet its threshold.
    pub fn apply(&self, role: &str, document: &mut Unsigned) -> Result<()> {
        let in_root = document.role == "root";
        let place = if in_root { &mut document.signed } else { &mut document.signed["delegations"] };
        let mut keys = match place["keys"].take() {
            Value::Object(keys) => keys,
            _ => Map::new(),
        };
        let entry = match &mut place["roles"] {
            Value::Object(roles) => roles.get_mut(role),
            Value::Array(roles) => {
                if let (RoleEdit::Add(_), Some(new)) = (self, Delegated::named(role))
                    && roles.iter().all(|r| r["name"] != role)
                {
                    roles.push(new.delegation(&[], 1));
                }
                roles.iter_mut().find(|r| r["name"] == role)
            }
            _ => None,
        };
        self.apply_to_entry(role, entry.ok_or_else(|| not_there(role))?, &mut keys)?;
        // A key that no role uses any more says nothing and goes.
        let used: Vec<String> = match &place["roles"] {
            Value::Object(roles) => roles.values().flat_map(key_ids).collect(),
            Value::Array(roles) => roles.iter().flat_map(key_ids).collect(),
            _ => Vec::new(),
        };
        keys.retain(|id, _| used.contains(id));
        place["keys"] = Value::Object(keys);
        Ok(())
    }

    fn apply_to_entry(&self, role: &str, entry: &mut Value, keys: &mut Map<String, Value>) -> Result<()> {
        let mut ids = key_ids(entry);
        let mut join = |ids: &[String], key: &Public| {
            if ids.contains(&key.id.0) {
                return Err(refused(role, format!("it has the key {} already", key.id)));
            }
            keys.insert(key.id.0.clone(), key.object());
            Ok(key.id.0.clone())
        };
        match self {
            RoleEdit::Add(key) => {
                let id = join(&ids, key)?;
                ids.push(id);
            }
            RoleEdit::Rotate(old, new) => {
                let matching: Vec<usize> = (0..ids.len()).filter(|i| ids[*i].starts_with(old)).collect();
                let [at] = matching[..] else {
                    let why = format!("{} of its keys have an id that begins with {old}", matching.len());
                    return Err(refused(role, why).cure("root show lists the ids"));
                };
                ids[at] = join(&ids, new)?;
            }
            RoleEdit::Threshold(threshold) => {
                check_threshold(role, *threshold, ids.len())?;
                entry["threshold"] = json!(threshold);
            }
        }
        entry["keyids"] = json!(ids);
        Ok(())
    }
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

/// An edit of a delegated role that the repository does not have.
pub fn not_there(role: &str) -> Error {
    refused(role, "the repository has no such role")
        .cure(format_args!("root add-key --role {role} --key FILE makes it"))
}

/// An edit of a role that cannot be made.
pub fn refused(role: &str, why: impl std::fmt::Display) -> Error {
    Error::new(Kind::Usage, format_args!("the role {role} was not changed"), why)
}

fn key_ids(entry: &Value) -> Vec<String> {
    let ids = entry["keyids"].as_array().map(Vec::as_slice).unwrap_or_default();
    ids.iter().filter_map(|id| id.as_str().map(str::to_owned)).collect()
}
