//! Seconds as they are written in answers.

use format::time::UnixTime;
use serde::Serializer;

/// `2026-11-23T05:29:13Z`.
pub fn text(seconds: i64) -> String {
    UnixTime(seconds).to_string()
}

/// The same; null for 0: never.
pub fn maybe(seconds: i64) -> Option<String> {
    (seconds != 0).then(|| text(seconds))
}

/// For `serialize_with`.
///
/// # Errors
/// Those of the serializer.
pub fn time<S: Serializer>(seconds: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text(*seconds))
}

/// For `serialize_with`: null for 0.
///
/// # Errors
/// Those of the serializer.
pub fn maybe_time<S: Serializer>(seconds: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    match maybe(*seconds) {
        Some(text) => serializer.serialize_str(&text),
        None => serializer.serialize_none(),
    }
}
