//! Public keys, their ids, and the verification of one signature.
//!
//! There is no signing and no private key here: what runs on a node can only verify.

use std::fmt;

use crate::digest::{Sha256, hex, unhex};
use crate::json::{Json, JsonError};

/// A TUF key id: the SHA-256 of the canonical form of the whole key object, unknown fields included
/// (specification section 4.2, "keyid").
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct KeyId(pub String);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A public key that can verify. What this build cannot use is `Unsupported`: it stays in the metadata and counts
/// for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKey {
    /// Ed25519 (RFC 8032), keytype and scheme `ed25519`.
    Ed25519([u8; 32]),
    /// ECDSA over NIST P-256 with SHA-256 (FIPS 186-5), keytype `ecdsa` or `ecdsa-sha2-nistp256`, scheme
    /// `ecdsa-sha2-nistp256`. Only with the feature `ecdsa`, which no shipped program enables: our repositories are
    /// Ed25519, and this is for judging the client against the repositories of others.
    #[cfg(feature = "ecdsa")]
    EcdsaP256(Box<p256::ecdsa::VerifyingKey>),
    /// Another type or scheme, or a value that does not fit its type.
    Unsupported,
}

impl PublicKey {
    /// Whether `signature` is this key's signature of `message`.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            PublicKey::Ed25519(public) => {
                let public = ed25519_compact::PublicKey::new(*public);
                ed25519_compact::Signature::from_slice(signature)
                    .is_ok_and(|s| public.verify(message, &s).is_ok())
            }
            #[cfg(feature = "ecdsa")]
            PublicKey::EcdsaP256(public) => {
                use p256::ecdsa::signature::Verifier as _;
                p256::ecdsa::DerSignature::from_bytes(signature)
                    .is_ok_and(|s| public.verify(message, &s).is_ok())
            }
            PublicKey::Unsupported => false,
        }
    }

    /// The TUF key object of an Ed25519 key.
    pub fn ed25519_object(public: &[u8; 32]) -> serde_json::Value {
        serde_json::json!({"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": hex(public)}})
    }
}

/// The id that belongs to a key object.
pub fn key_id(object: &Json<'_>) -> KeyId {
    KeyId(Sha256::of(&object.canonical()).to_string())
}

/// Reads a TUF key object: its id, which is computed and never believed, and what can verify with it.
///
/// # Errors
/// If the object lacks a field that every key has.
pub fn read_key(object: &Json<'_>) -> Result<(KeyId, PublicKey), JsonError> {
    let text = |value: Option<&Json<'_>>, field: &str| match value {
        Some(Json::String(s)) => Ok(s.to_string()),
        _ => Err(JsonError(format!("a key has no {field}"))),
    };
    let keytype = text(object.member("keytype"), "keytype")?;
    let scheme = text(object.member("scheme"), "scheme")?;
    let public = text(object.member("keyval").and_then(|v| v.member("public")), "keyval.public")?;
    let key = match (keytype.as_str(), scheme.as_str()) {
        ("ed25519", "ed25519") => {
            unhex(&public).and_then(|b| b.try_into().ok()).map_or(PublicKey::Unsupported, PublicKey::Ed25519)
        }
        #[cfg(feature = "ecdsa")]
        ("ecdsa" | "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256") => {
            use p256::pkcs8::DecodePublicKey as _;
            // PEM of a SubjectPublicKeyInfo (RFC 5280 section 4.1).
            p256::ecdsa::VerifyingKey::from_public_key_pem(&public)
                .map_or(PublicKey::Unsupported, |key| PublicKey::EcdsaP256(Box::new(key)))
        }
        _ => PublicKey::Unsupported,
    };
    Ok((key_id(object), key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_id_covers_unknown_fields() {
        let plain = br#"{"keytype":"ed25519","scheme":"ed25519","keyval":{"public":"00"}}"#;
        let extra = br#"{"keytype":"ed25519","scheme":"ed25519","x":1,"keyval":{"public":"00"}}"#;
        assert_ne!(key_id(&Json::parse(plain).unwrap()), key_id(&Json::parse(extra).unwrap()));
    }

    #[test]
    fn rfc_8032_test_1() {
        let public = unhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a").unwrap();
        let signature = unhex(
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        )
        .unwrap();
        let key = PublicKey::Ed25519(public.try_into().unwrap());
        assert!(key.verifies(b"", &signature));
        assert!(!key.verifies(b"x", &signature));
        assert!(!key.verifies(b"", &signature[..63]));
        assert!(!PublicKey::Unsupported.verifies(b"", &signature));
    }

    #[cfg(feature = "ecdsa")]
    #[test]
    fn rfc_6979_a_2_5() {
        let pem = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEYP7UuiVanTHJYet0xjVtaMBJuJI7\nYfps5mliLmDyn7Z5A/4QCLi8maQa6elWKLxk8vGyDC1+n1F3o8KU1EYimQ==\n-----END PUBLIC KEY-----\n";
        let object = |keytype: &str, pem: &str| {
            let object = serde_json::json!({"keytype": keytype, "scheme": "ecdsa-sha2-nistp256", "keyval": {"public": pem}});
            read_key(&Json::parse(object.to_string().as_bytes()).unwrap()).unwrap().1
        };
        let signature = unhex("3046022100efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716022100f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8").unwrap();
        for keytype in ["ecdsa", "ecdsa-sha2-nistp256"] {
            let key = object(keytype, pem);
            assert!(key.verifies(b"sample", &signature));
            assert!(!key.verifies(b"test", &signature));
            assert!(!key.verifies(b"sample", &signature[..signature.len() - 1]));
            assert!(!key.verifies(b"sample", b""));
        }
        assert_eq!(object("ecdsa", "no key"), PublicKey::Unsupported);
        assert_eq!(object("rsa", pem), PublicKey::Unsupported);
    }
}
