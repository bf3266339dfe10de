//! A node's own key: what the centre knows that node's words by, and nothing else.
//!
//! It signs reports, status, inventories and the node's enrolment ([`crate::envelope`]). It is in no role of the
//! repository: nobody installs anything because of it, and what is stolen with it is the word of one node.

use std::fmt;

use crate::digest::{Sha256, hex, unhex};
use crate::json::{Json, JsonError};
use crate::key::{KeyId, PublicKey};

/// Bytes of the file that a private key is kept in: 64 hexadecimal digits and a newline.
pub const KEY_FILE: usize = 65;

/// The public half. Written as the key object of TUF (specification section 4.2), with no other field, so that it has
/// one id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(into = "Object", try_from = "Object")]
pub struct NodePublicKey(pub [u8; 32]);

impl NodePublicKey {
    /// Its id.
    pub fn id(&self) -> KeyId {
        // The canonical form of the key object.
        let object =
            format!(r#"{{"keytype":"ed25519","keyval":{{"public":"{}"}},"scheme":"ed25519"}}"#, hex(&self.0));
        KeyId(Sha256::of(object.as_bytes()).to_string())
    }

    /// Whether `signature` is this key's signature of `message`.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        PublicKey::Ed25519(self.0).verifies(message, signature)
    }
}

impl fmt::Debug for NodePublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodePublicKey({})", self.id())
    }
}

/// How a public key is written.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Object {
    keytype: String,
    keyval: Value,
    scheme: String,
}

#[derive(Clone, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Value {
    public: String,
}

impl From<NodePublicKey> for Object {
    fn from(key: NodePublicKey) -> Self {
        let ed25519 = || "ed25519".to_owned();
        Object { keytype: ed25519(), keyval: Value { public: hex(&key.0) }, scheme: ed25519() }
    }
}

impl TryFrom<Object> for NodePublicKey {
    type Error = &'static str;

    fn try_from(object: Object) -> Result<Self, Self::Error> {
        if (object.keytype.as_str(), object.scheme.as_str()) != ("ed25519", "ed25519") {
            return Err("a node's key is of keytype and scheme ed25519");
        }
        unhex(&object.keyval.public)
            .and_then(|bytes| bytes.try_into().ok())
            .map(NodePublicKey)
            .ok_or("keyval.public is not 64 lower-case hexadecimal digits")
    }
}

/// The private half.
pub struct NodeKey(ed25519_compact::KeyPair);

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({})", self.public().id())
    }
}

impl NodeKey {
    /// The key that belongs to a seed, which must be 32 random bytes.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        NodeKey(ed25519_compact::KeyPair::from_seed(ed25519_compact::Seed::new(seed)))
    }

    /// Reads what [`NodeKey::to_text`] has written; `None` if it is anything else.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let seed = unhex(text.strip_suffix('\n').unwrap_or(text))?;
        Some(NodeKey::from_seed(seed.try_into().ok()?))
    }

    /// The file's content: the seed in hexadecimal (RFC 8032 section 5.1.5 makes all else of it).
    pub fn to_text(&self) -> String {
        format!("{}\n", hex(&*self.0.sk.seed()))
    }

    /// Its public half.
    pub fn public(&self) -> NodePublicKey {
        NodePublicKey(*self.0.pk)
    }

    /// The envelope around a document: what is sent.
    ///
    /// # Errors
    /// If `document` is not strict JSON, in which case nobody could verify a signature of it.
    pub fn seal(&self, document: &[u8]) -> Result<Vec<u8>, JsonError> {
        let message = Json::parse(document)?.canonical();
        let signature = hex(self.0.sk.sign(&message, None).as_ref());
        let head =
            format!(r#"{{"signatures":[{{"keyid":"{}","sig":"{signature}"}}],"signed":"#, self.public().id());
        Ok([head.as_bytes(), document, b"}"].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::read_key;

    #[test]
    fn a_public_key_is_a_tuf_key_object_of_the_same_id() {
        let public = NodeKey::from_seed([7; 32]).public();
        let text = serde_json::to_vec(&public).unwrap();
        let (id, key) = read_key(&Json::parse(&text).unwrap()).unwrap();
        assert_eq!((id, key), (public.id(), PublicKey::Ed25519(public.0)));
        assert_eq!(serde_json::from_slice::<NodePublicKey>(&text).unwrap(), public);
    }

    #[test]
    fn a_public_key_has_one_spelling() {
        let good = serde_json::to_string(&NodeKey::from_seed([7; 32]).public()).unwrap();
        for bad in [
            good.replace("\"scheme\":\"ed25519\"", "\"scheme\":\"rsa\""),
            good.replace("\"keytype\":\"ed25519\"", "\"keytype\":\"ecdsa\""),
            good.replace("{\"keytype\"", "{\"x\":1,\"keytype\""),
            good.replace("{\"public\"", "{\"x\":1,\"public\""),
            good.replace("\"public\":\"", "\"public\":\"00"),
            good.replace(&hex(&NodeKey::from_seed([7; 32]).public().0), &"A0".repeat(32)),
        ] {
            assert!(serde_json::from_str::<NodePublicKey>(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_file_is_read_as_it_was_written_and_nothing_else_is() {
        let key = NodeKey::from_seed([9; 32]);
        let text = key.to_text();
        assert_eq!(text.len(), KEY_FILE);
        assert_eq!(NodeKey::parse(text.as_bytes()).unwrap().public(), key.public());
        for bad in ["", "\n", &text[1..], &text.to_uppercase().replace('0', "A"), &format!("{text}\n")] {
            assert!(NodeKey::parse(bad.as_bytes()).is_none(), "{bad:?}");
        }
        assert!(!format!("{key:?}").contains("0909"), "a log must not have the private half");
    }
}
