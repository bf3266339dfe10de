//! A signed metadata file as the centre handles it: what is to be signed, and who has signed it so far.
//!
//! `Unsigned` → `Signed`: only what has been through [`Unsigned::sign`] or was read from a file can be written. Whether
//! it may be trusted is decided elsewhere, by the same code as on a node ([`format::trust`]).

use std::collections::BTreeMap;

use format::digest::{hex, unhex};
use format::json::{self, Json};
use format::key::KeyId;
use format::metadata::{Envelope, RoleKeys};
use format::time::UnixTime;
use serde_json::{Value, json};

use crate::error::{Error, Kind, Result};
use crate::keys::Secret;
use crate::signer::Statement;

/// The version of the TUF specification that we write.
pub const SPEC_VERSION: &str = "1.0.34";

/// Seconds in a day.
const DAY: i64 = 86_400;

/// `days` from `now`.
pub fn expiry(now: UnixTime, days: u32) -> UnixTime {
    now.plus(i64::from(days) * DAY)
}

/// Content that nobody has signed yet. Changing it is only possible here, so a signature cannot outlive a change.
#[derive(Clone, Debug, PartialEq)]
pub struct Unsigned {
    /// Role name.
    pub role: String,
    /// What signatures will cover.
    pub signed: Value,
}

impl Unsigned {
    /// A new version of a role with the fields that every role has; `fields` are the role's own.
    pub fn new(role: &str, kind: &str, version: u64, expires: UnixTime, fields: Value) -> Self {
        let mut signed = json!({
            "_type": kind,
            "spec_version": SPEC_VERSION,
            "version": version,
            "expires": expires.to_string(),
        });
        if let (Value::Object(signed), Value::Object(fields)) = (&mut signed, fields) {
            signed.extend(fields);
        }
        Unsigned { role: role.to_owned(), signed }
    }

    /// Signs it with each of `keys`.
    ///
    /// # Errors
    /// If it has no canonical form, or a program that holds a key does not sign.
    pub fn sign(self, keys: &[&Secret]) -> Result<Signed> {
        let mut signed = Signed { role: self.role, signed: self.signed, signatures: BTreeMap::new() };
        for key in keys {
            signed.add(key)?;
        }
        Ok(signed)
    }
}

/// Content with the signatures that it has so far; perhaps none.
#[derive(Clone, Debug, PartialEq)]
pub struct Signed {
    /// Role name.
    pub role: String,
    signed: Value,
    /// By key id, so that the file does not depend on who signed first.
    signatures: BTreeMap<KeyId, String>,
}

impl Signed {
    /// Reads a metadata file, strictly.
    ///
    /// # Errors
    /// If it is not one.
    pub fn parse(role: &str, bytes: &[u8]) -> Result<Self> {
        let wrong =
            |e: &dyn std::fmt::Display| Error::new(Kind::Data, format_args!("{role}.json cannot be read"), e);
        let envelope = Envelope::parse(bytes).map_err(|e| wrong(&e))?;
        let whole: Value = serde_json::from_slice(bytes).map_err(|e| wrong(&e))?;
        let signatures = envelope.signatures.into_iter().map(|(id, sig)| (id, hex(&sig)));
        Ok(Signed {
            role: role.to_owned(),
            signed: whole.get("signed").cloned().unwrap_or_default(),
            signatures: signatures.collect(),
        })
    }

    /// What the signatures cover.
    pub fn signed(&self) -> &Value {
        &self.signed
    }

    /// Version of the role.
    pub fn version(&self) -> u64 {
        self.signed.get("version").and_then(Value::as_u64).unwrap_or(0)
    }

    /// Adds or renews one signature.
    ///
    /// # Errors
    /// If the content has no canonical form, or a program that holds the key does not sign.
    pub fn add(&mut self, key: &Secret) -> Result<()> {
        let message = canonical(&self.signed, &self.role)?;
        let statement = Statement { role: &self.role, version: self.version(), message: &message };
        let signature = key.sign(&statement)?;
        self.signatures.insert(key.public().id.clone(), hex(&signature));
        Ok(())
    }

    /// Whether there is any signature on it.
    pub fn is_signed(&self) -> bool {
        !self.signatures.is_empty()
    }

    /// Goes back to content alone, to be changed.
    pub fn into_unsigned(self) -> Unsigned {
        Unsigned { role: self.role, signed: self.signed }
    }

    /// The file's bytes: canonical JSON of the whole envelope.
    ///
    /// # Errors
    /// If there is no such form.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let signatures: Vec<Value> =
            self.signatures.iter().map(|(id, sig)| json!({"keyid": id, "sig": sig})).collect();
        canonical(&json!({"signatures": signatures, "signed": self.signed}), &self.role)
    }

    /// How far the signatures are from what `keys` ask for.
    ///
    /// # Errors
    /// If the content has no canonical form.
    pub fn approval(&self, keys: &RoleKeys) -> Result<Approval> {
        let message = canonical(&self.signed, &self.role)?;
        let valid = |id: &KeyId, key: &format::key::PublicKey| {
            let signature = self.signatures.get(id).and_then(|s| unhex(s));
            signature.is_some_and(|s| key.verifies(&message, &s))
        };
        let (signed, open): (Vec<_>, Vec<_>) = keys.keys.iter().partition(|(id, key)| valid(id, key));
        let ids = |list: Vec<&(KeyId, _)>| list.into_iter().map(|(id, _)| id.clone()).collect();
        Ok(Approval {
            role: self.role.clone(),
            threshold: keys.threshold,
            signed: ids(signed),
            open: ids(open),
        })
    }
}

/// Who has signed a role, and who still can.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Approval {
    /// Role name.
    pub role: String,
    /// How many must sign.
    pub threshold: u64,
    /// Keys of the role that have signed validly.
    pub signed: Vec<KeyId>,
    /// Keys of the role that have not.
    pub open: Vec<KeyId>,
}

impl Approval {
    /// Whether enough keys have signed.
    pub fn is_met(&self) -> bool {
        self.signed.len() as u64 >= self.threshold
    }
}

impl std::fmt::Display for Approval {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |ids: &[KeyId]| match ids {
            [] => "nobody".to_owned(),
            ids => ids.iter().map(crate::keys::short).collect::<Vec<_>>().join(", "),
        };
        write!(
            f,
            "{}: {} of {} signatures (signed by {}; can still sign: {})",
            self.role,
            self.signed.len(),
            self.threshold,
            list(&self.signed),
            list(&self.open)
        )
    }
}

fn canonical(value: &Value, role: &str) -> Result<Vec<u8>> {
    json::canonical(value)
        .map_err(|e| Error::new(Kind::Data, format_args!("{role}.json has no canonical form"), e))
}

/// Whether `bytes` hold nothing but canonical JSON, as everything that we write does.
pub fn is_canonical(bytes: &[u8]) -> bool {
    Json::parse(bytes).is_ok_and(|json| json.canonical() == bytes)
}
