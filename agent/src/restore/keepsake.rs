//! What a node must still know after it went back: why, and which bundle not to try again.
//!
//! Small, because some kinds have only a few tags to put it in. Everything else of the agent's own state is carried into
//! the restore point where that is possible; this is what keeps a node from trying the same bundle for ever where it is not.

use format::report::BundleRef;
use format::time::UnixTime;

use super::RestorePoint;
use crate::transaction::state::Cause;

/// Version of the content. Another one is not understood, and said so.
const VERSION: u32 = 1;

/// The longest message that is kept.
const MAX_MESSAGE: usize = 600;

/// What stays.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Keepsake {
    version: u32,
    /// The transaction.
    pub id: String,
    /// The bundle that it undid.
    pub bundle: BundleRef,
    /// The bundle that was installed before.
    #[serde(default)]
    pub previous: Option<BundleRef>,
    /// When the transaction began.
    pub started: UnixTime,
    /// Why the node went back.
    pub cause: Cause,
    /// The same in words.
    pub message: String,
    /// The exit code that belongs to it.
    pub exit: u8,
    /// The boot in which the restore was asked for (/proc/sys/kernel/random/boot_id).
    pub boot: String,
    /// Where to.
    pub point: RestorePoint,
}

impl Keepsake {
    /// One of the version that is written today.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a field, and a half-filled keepsake must not exist"
    )]
    pub fn new(
        id: &str,
        bundle: BundleRef,
        previous: Option<BundleRef>,
        started: UnixTime,
        cause: Cause,
        message: &str,
        exit: u8,
        boot: String,
        point: RestorePoint,
    ) -> Self {
        let message = message.chars().take(MAX_MESSAGE).collect();
        Keepsake {
            version: VERSION,
            id: id.to_owned(),
            bundle,
            previous,
            started,
            cause,
            message,
            exit,
            boot,
            point,
        }
    }

    /// As JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        // It has no part that has no JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads one.
    ///
    /// # Errors
    /// If it is none, or one of another version.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let keepsake: Keepsake = format::json::read(bytes).map_err(|e| e.to_string())?;
        match keepsake.version {
            VERSION => Ok(keepsake),
            other => Err(format!("it has version {other}")),
        }
    }
}

/// Hexadecimal digits: the one alphabet that every kind of label can hold.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of hexadecimal digits; none if they are others, or an odd number.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use format::digest::Sha256;

    pub fn keepsake(message: &str) -> Keepsake {
        let bundle = BundleRef {
            version: "20261123-42".parse().unwrap(),
            cycle: "2026-11".parse().unwrap(),
            serial: 7,
            index: Sha256::of(b"index"),
        };
        let point = RestorePoint { kind: "lvm-thin".into(), id: "vg0/prestage_1".into() };
        Keepsake::new("1", bundle, None, UnixTime(1), Cause::HealthCheck, message, 5, "boot".into(), point)
    }

    #[test]
    fn what_is_left_is_found_again_and_another_version_is_refused() {
        let keepsake = keepsake(&"long ".repeat(1000));
        assert!(keepsake.to_bytes().len() < 1600, "{}", keepsake.to_bytes().len());
        assert_eq!(Keepsake::parse(&keepsake.to_bytes()).unwrap(), keepsake);
        let other =
            String::from_utf8(keepsake.to_bytes()).unwrap().replace("\"version\":1,", "\"version\":2,");
        assert!(Keepsake::parse(other.as_bytes()).unwrap_err().contains("version 2"));
        assert_eq!(from_hex(&to_hex(&[0, 255, 16])), Some(vec![0, 255, 16]));
        assert_eq!((from_hex("0"), from_hex("0g"), from_hex("é")), (None, None, None));
    }
}
