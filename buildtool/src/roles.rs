//! Which keys count for a role, as root and targets say it: the first version, and the edits of an entry.
//!
//! Values in, values out; what becomes of them is [`crate::editor`]'s business.

use format::time::UnixTime;
use serde_json::{Map, Value, json};

use crate::document::{Unsigned, expiry};
use crate::error::{Error, Kind, Result};
use crate::keys::Public;
use crate::repository::{BUNDLES, BUNDLES_PATTERN};

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
    /// The delegated role.
    pub bundles: RoleSpec,
    /// Days until root, targets and bundles expire.
    pub days: [u32; 3],
}

impl FirstRoot {
    /// The first version of root, targets and bundles.
    ///
    /// # Errors
    /// If a role has a key twice or a threshold that its keys cannot meet.
    pub fn documents(&self, now: UnixTime) -> Result<[Unsigned; 3]> {
        let (mut keys, mut roles) = (Map::new(), Map::new());
        for spec in &self.top_level {
            roles.insert(spec.role.to_owned(), spec.entry(&mut keys)?);
        }
        let root = json!({"consistent_snapshot": true, "keys": keys, "roles": roles});
        let mut keys = Map::new();
        let mut delegation = self.bundles.entry(&mut keys)?;
        delegation["name"] = json!(BUNDLES);
        delegation["paths"] = json!([BUNDLES_PATTERN]);
        // Nothing else may speak of bundles, whatever is delegated later.
        delegation["terminating"] = json!(true);
        let targets = json!({"targets": {}, "delegations": {"keys": keys, "roles": [delegation]}});
        let [root_days, targets_days, bundles_days] = self.days;
        Ok([
            Unsigned::new("root", "root", 1, expiry(now, root_days), root),
            Unsigned::new("targets", "targets", 1, expiry(now, targets_days), targets),
            Unsigned::new(BUNDLES, "targets", 1, expiry(now, bundles_days), json!({"targets": {}})),
        ])
    }
}

impl RoleSpec {
    /// The role's entry; its keys join `keys`.
    fn entry(&self, keys: &mut Map<String, Value>) -> Result<Value> {
        let mut ids: Vec<&str> = self.keys.iter().map(|k| k.id.0.as_str()).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(refused(self.role, "one key is given twice"));
        }
        check_threshold(self.role, self.threshold, ids.len())?;
        for key in &self.keys {
            keys.insert(key.id.0.clone(), key.object());
        }
        Ok(json!({"keyids": ids, "threshold": self.threshold}))
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
        "root" | "targets" | "snapshot" | "timestamp" => Ok("root"),
        BUNDLES => Ok("targets"),
        _ => Err(refused(role, "there is no such role")
            .cure("the roles are root, targets, bundles, snapshot and timestamp")),
    }
}

impl RoleEdit {
    /// Changes the entry of `role` in the next version of its holder.
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
            Value::Array(roles) => roles.iter_mut().find(|r| r["name"] == role),
            _ => None,
        };
        self.apply_to_entry(
            role,
            entry.ok_or_else(|| refused(role, "the repository has no such role"))?,
            &mut keys,
        )?;
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

/// An edit of a role that cannot be made.
pub fn refused(role: &str, why: impl std::fmt::Display) -> Error {
    Error::new(Kind::Usage, format_args!("the role {role} was not changed"), why)
}

fn key_ids(entry: &Value) -> Vec<String> {
    let ids = entry["keyids"].as_array().map(Vec::as_slice).unwrap_or_default();
    ids.iter().filter_map(|id| id.as_str().map(str::to_owned)).collect()
}
