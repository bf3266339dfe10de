//! Whose a document is, and whether its key has signed it. What is not true is refused by itself; the rest of its batch counts.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use format::digest::{Sha256, hex};
use format::envelope::{Document, MAX_REASON, Sealed, read_batch};
use format::json::{Json, JsonError};
use format::name::NodeId;
use format::node_key::NodePublicKey;

use super::{Received, Said};
use crate::store::keys::NodeKeys;
use crate::store::{Result, Store};

/// How long a key that was looked up is believed without another look: so long a revocation at another server takes to
/// count here. What is written is looked at again in its transaction, so nothing is stored for a node that is revoked.
const KEY_LIFE: Duration = Duration::from_secs(5);

/// Keys that are remembered; with so many, all are forgotten: they are one query.
const MAX_KEYS: usize = 250_000;

/// What became of the documents of a request.
#[derive(Debug, Default)]
pub struct Checked {
    /// Those that are true.
    pub received: Vec<Received>,
    /// Id and reason of those that are not and never will be.
    pub refused: Vec<(String, String)>,
    /// Ids of those whose node is not enrolled.
    pub unknown: Vec<String>,
    /// Ids of those whose node is revoked.
    pub revoked: Vec<String>,
}

/// Keys of nodes that were looked up a moment ago.
#[derive(Default)]
pub struct KeyCache(Mutex<HashMap<String, (Instant, NodeKeys)>>);

impl KeyCache {
    /// Forgets what is known of a node: its key was changed here.
    pub fn forget(&self, node: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(node);
    }

    /// The keys of these nodes; of one that nobody knows, none.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn look_up(&self, store: &Store, nodes: BTreeSet<String>) -> Result<HashMap<String, NodeKeys>> {
        let now = Instant::now();
        let mut found = HashMap::new();
        let mut missing = Vec::new();
        {
            let cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            for node in nodes {
                match cache.get(&node) {
                    Some((at, keys)) if now.duration_since(*at) < KEY_LIFE => {
                        found.insert(node, keys.clone());
                    }
                    _ => missing.push(node),
                }
            }
        }
        if !missing.is_empty() {
            let fresh = store.read(move |sql| crate::store::keys::of(sql, &missing)).await?;
            let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if cache.len() + fresh.len() > MAX_KEYS {
                cache.clear();
            }
            for (node, keys) in fresh {
                cache.insert(node.clone(), (now, keys.clone()));
                found.insert(node, keys);
            }
        }
        Ok(found)
    }
}

/// The nodes that a batch is said to be of; for looking up, not for believing.
///
/// # Errors
/// If it is no batch.
pub fn speakers(body: &[u8]) -> std::result::Result<BTreeSet<String>, JsonError> {
    let name = |document: &Json<'_>| -> Option<String> {
        let signed = document.member("signed")?;
        let name = match signed.member("node") {
            None => signed.member("metadata")?.member("name")?,
            Some(name) => name,
        };
        match name {
            Json::String(name) => name.parse::<NodeId>().ok().map(|node| node.to_string()),
            _ => None,
        }
    };
    Ok(read_batch(body)?.iter().filter_map(name).collect())
}

/// Judges each document of a batch by the key of the node that it is said to be of.
///
/// # Errors
/// If it is no batch.
pub fn batch(
    body: &[u8],
    keys: &HashMap<String, NodeKeys>,
    at: i64,
    carried: bool,
) -> std::result::Result<Checked, JsonError> {
    let mut checked = Checked::default();
    for (n, document) in read_batch(body)?.into_iter().enumerate() {
        let sealed = match Sealed::take(document) {
            Ok(sealed) => sealed,
            Err(why) => {
                // What is no envelope has no name of its own.
                let name = Sha256::of(format!("document {n}").as_bytes()).to_string();
                checked.refused.push((name, short(&format!("document {n}: {why}"))));
                continue;
            }
        };
        let id = sealed.id().to_string();
        match judge(sealed, keys, at, carried) {
            Ok(received) => checked.received.push(received),
            Err(Verdict::Refused(why)) => checked.refused.push((id, short(&why))),
            Err(Verdict::Unknown) => checked.unknown.push(id),
            Err(Verdict::Revoked) => checked.revoked.push(id),
        }
    }
    Ok(checked)
}

enum Verdict {
    Refused(String),
    Unknown,
    Revoked,
}

fn judge(
    sealed: Sealed<'_>,
    keys: &HashMap<String, NodeKeys>,
    at: i64,
    carried: bool,
) -> std::result::Result<Received, Verdict> {
    let node = sealed.node().map_err(|e| Verdict::Refused(e.to_string()))?;
    let known = keys.get(node.as_str()).ok_or(Verdict::Unknown)?;
    let key: &NodePublicKey = match known {
        NodeKeys::Active(key) => key,
        NodeKeys::Revoked => return Err(Verdict::Revoked),
        NodeKeys::Expected => return Err(Verdict::Unknown),
    };
    let opened = sealed.open(&node, key).map_err(|e| Verdict::Refused(e.to_string()))?;
    let said = match opened.document {
        Document::Report(report) => Said::Report(report),
        Document::Status(status) => Said::Status(status),
        Document::Enrollment(_) | Document::Inventory(_) => {
            return Err(Verdict::Refused("this kind of document goes to an address of its own".into()));
        }
    };
    let message = String::from_utf8(opened.message)
        .ok()
        .filter(|text| !text.contains('\0'))
        .ok_or_else(|| Verdict::Refused("it has a NUL character in it".into()))?;
    Ok(Received {
        id: opened.id.to_string(),
        node: opened.node.to_string(),
        at,
        carried,
        message,
        signature: hex(&opened.signature),
        said,
    })
}

/// The beginning of a reason, within what an answer may hold.
fn short(text: &str) -> String {
    let mut end = text.len().min(MAX_REASON);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
