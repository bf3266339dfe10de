//! What the fuzz targets share: a limit for memory, and a small valid world of signed metadata.
//!
//! A target is one file in `fuzz_targets/`, begins with the property that it checks, and has its seeds in
//! `seeds/TARGET/`.

use std::alloc::System;
use std::sync::LazyLock;

use ed25519_compact::{KeyPair, Seed};
use format::digest::{Sha256, hex};
use format::json::canonical;
use format::key::PublicKey;
use format::time::UnixTime;
pub use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

/// The most heap that a target may have at any moment; one allocation more aborts, which is a crash for libFuzzer. Its
/// own corpus and tables are not in it: they come from C++'s allocator.
const HEAP: usize = 64 * 1024 * 1024;

#[global_allocator]
static ALLOCATOR: cap::Cap<System> = cap::Cap::new(System, HEAP);

/// The time of every check.
pub const NOW: UnixTime = UnixTime(1_800_000_000);

/// The one target that the world lists.
pub const TARGET: &str = "bundles/v/1/index.json";

fn key() -> KeyPair {
    KeyPair::from_seed(Seed::new([1; 32]))
}

fn key_object() -> Value {
    PublicKey::ed25519_object(key().pk.as_ref().try_into().expect("a public key has 32 bytes"))
}

/// The id of the one key that all roles share.
pub fn key_id() -> String {
    Sha256::of(&canonical(&key_object()).expect("a key has no floating point number")).to_string()
}

/// A metadata file: `signed` as it is written, and the key's signature of its canonical form, which is of nothing
/// where `signed` has none.
pub fn sign(signed: &[u8]) -> Vec<u8> {
    let message = format::json::Json::parse(signed).map(|json| json.canonical()).unwrap_or_default();
    let signature = hex(key().sk.sign(&message, None).as_ref());
    let key_id = key_id();
    let end = format!(r#","signatures":[{{"keyid":"{key_id}","sig":"{signature}"}}]}}"#);
    [br#"{"signed":"#, signed, end.as_bytes()].concat()
}

/// A role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are TUF's")]
pub enum Role {
    Root,
    Timestamp,
    Snapshot,
    Targets,
    Bundles,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 5] = [Role::Root, Role::Timestamp, Role::Snapshot, Role::Targets, Role::Bundles];

    /// The part of this role's file that is signed, in a repository where all is well.
    pub fn document(self) -> Value {
        let header = |kind: &str, fields: Value| {
            let mut all =
                json!({"_type": kind, "spec_version": "1.0.34", "version": 1, "expires": NOW.plus(86_400)});
            if let (Value::Object(all), Value::Object(fields)) = (&mut all, fields) {
                all.extend(fields);
            }
            all
        };
        let keys = json!({ key_id(): key_object() });
        let by = json!({"keyids": [key_id()], "threshold": 1});
        match self {
            Role::Root => header(
                "root",
                json!({
                    "consistent_snapshot": true, "keys": keys,
                    "roles": {"root": by, "timestamp": by, "snapshot": by, "targets": by}
                }),
            ),
            Role::Timestamp => header(
                "timestamp",
                json!({"meta": {"snapshot.json": {"version": 1}}, "issued": NOW.plus(-60)}),
            ),
            Role::Snapshot => header(
                "snapshot",
                json!({"meta": {"targets.json": {"version": 1}, "bundles.json": {"version": 1}}}),
            ),
            Role::Targets => header(
                "targets",
                json!({
                    "targets": {},
                    "delegations": {"keys": keys, "roles": [{
                        "name": "bundles", "keyids": [key_id()], "threshold": 1,
                        "paths": ["bundles/*/*/*"], "terminating": true
                    }]}
                }),
            ),
            Role::Bundles => header(
                "targets",
                json!({"targets": {TARGET: {
                    "length": 3, "hashes": {"sha256": Sha256::of(b"abc").to_string()}, "custom": {"serial": 1}
                }}}),
            ),
        }
    }

    /// The whole file, signed once.
    pub fn file(self) -> &'static [u8] {
        static FILES: LazyLock<[Vec<u8>; 5]> =
            LazyLock::new(|| Role::ALL.map(|role| sign(role.document().to_string().as_bytes())));
        &FILES[self as usize]
    }
}
