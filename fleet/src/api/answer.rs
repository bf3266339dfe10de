//! Requests taken apart and answers put together: JSON with an entity tag, queries without surprises, cursors.

use axum::body::Bytes;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use format::digest::{Sha256, hex, unhex};
use format::time::UnixTime;

use super::problem::{Answer, Problem};

/// Rows of a page, if nothing is said.
const LIMIT: i64 = 100;

/// The most rows of a page.
pub const MAX_LIMIT: i64 = 500;

/// The longest text that is searched for.
const MAX_TEXT: usize = 1000;

/// JSON with a status.
pub fn json_with(status: StatusCode, value: &impl serde::Serialize) -> Answer {
    let body = serde_json::to_vec(value).map_err(Problem::internal)?;
    Ok((status, [(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// JSON with an entity tag; 304, if the client has it. `same_as` is what the tag is made of, where that is not the whole.
pub fn json_tagged(headers: &HeaderMap, value: &impl serde::Serialize, same_as: Option<&[u8]>) -> Answer {
    let body = serde_json::to_vec(value).map_err(Problem::internal)?;
    let digest = Sha256::of(same_as.unwrap_or(&body));
    // Weak: compressed by a proxy it is another sequence of bytes.
    let tag = format!("W/\"{}\"", hex(&digest.0[..12]));
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let known = known.flat_map(|value| value.split(',')).any(|it| it.trim() == tag || it.trim() == "*");
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, "application/json")], body).into_response()
    };
    let tag = HeaderValue::from_str(&tag).map_err(Problem::internal)?;
    response.headers_mut().insert(header::ETAG, tag);
    Ok(response)
}

/// JSON with an entity tag.
pub fn json(headers: &HeaderMap, value: &impl serde::Serialize) -> Answer {
    json_tagged(headers, value, None)
}

/// A body that must be strict JSON of one type.
///
/// # Errors
/// 400, with what is wrong.
pub fn read<T: serde::de::DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    let value: T = format::json::read(body).map_err(|e| Problem::bad_request(format!("the body: {e}")))?;
    Ok(value)
}

/// Refuses NUL, which databases cannot hold, and what is too long.
///
/// # Errors
/// 400.
pub fn plain<'t>(what: &str, text: &'t str, longest: usize) -> Result<&'t str, Problem> {
    let text = text.trim();
    if text.is_empty() || text.len() > longest || text.contains('\0') {
        return Err(Problem::bad_request(format!(
            "{what} is empty, longer than {longest} bytes, or has a NUL"
        )));
    }
    Ok(text)
}

/// The query of a URL: every name is known, or the request is refused.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        let pairs = form_urlencoded::parse(query.as_bytes()).into_owned().collect::<Vec<_>>();
        if pairs.iter().any(|(_, value)| value.contains('\0') || value.len() > MAX_TEXT) {
            return Err(Problem::bad_request("a value of the query is too long, or has a NUL in it"));
        }
        Ok(Query(pairs))
    }
}

impl Query {
    /// Refuses names that are not among these, and those that stand twice but for `many`.
    ///
    /// # Errors
    /// 400, with the name.
    pub fn only(&self, names: &[&str], many: &[&str]) -> Result<(), Problem> {
        for (at, (name, _)) in self.0.iter().enumerate() {
            let known = names.contains(&name.as_str());
            if !known && !many.contains(&name.as_str()) {
                let all: Vec<&str> = names.iter().chain(many).copied().collect();
                let shown: String = name.chars().take(80).collect();
                return Err(Problem::bad_request(format!(
                    "the query has {shown:?}; known here: {}",
                    all.join(", ")
                )));
            }
            if known && self.0[..at].iter().any(|(other, _)| other == name) {
                return Err(Problem::bad_request(format!("the query has {name:?} twice")));
            }
        }
        Ok(())
    }

    /// A value that is not empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str()).filter(|v| !v.is_empty())
    }

    /// All values of a name that must be `KEY=VALUE`.
    ///
    /// # Errors
    /// 400.
    pub fn labels(&self) -> Result<Vec<(String, String)>, Problem> {
        let values = self.0.iter().filter(|(name, _)| name == "label");
        let split = |(_, value): &(String, String)| {
            let (key, value) = value
                .split_once('=')
                .ok_or_else(|| Problem::bad_request(format!("label: {value:?} is not KEY=VALUE")))?;
            Ok((key.to_owned(), value.to_owned()))
        };
        values.map(split).collect()
    }

    /// A number between two.
    ///
    /// # Errors
    /// 400.
    pub fn number(&self, name: &str, least: i64, most: i64, without: i64) -> Result<i64, Problem> {
        let Some(text) = self.text(name) else { return Ok(without) };
        let number = text.parse().ok().filter(|n| (least..=most).contains(n));
        number.ok_or_else(|| Problem::bad_request(format!("{name}={text:?} is not from {least} to {most}")))
    }

    /// `limit`.
    ///
    /// # Errors
    /// 400.
    pub fn limit(&self) -> Result<i64, Problem> {
        self.number("limit", 1, MAX_LIMIT, LIMIT)
    }

    /// `at`, or `now`.
    ///
    /// # Errors
    /// 400.
    pub fn at(&self, now: i64) -> Result<i64, Problem> {
        match self.text("at") {
            None => Ok(now),
            Some(text) => {
                let time: UnixTime = text.parse().map_err(Problem::bad_request)?;
                Ok(time.0)
            }
        }
    }

    /// Yes or no.
    ///
    /// # Errors
    /// 400.
    pub fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.text(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(Problem::bad_request(format!("{name}={other:?} is not true or false"))),
        }
    }

    /// Where a page begins, as [`next`] wrote it.
    ///
    /// # Errors
    /// 400.
    pub fn cursor<T: serde::de::DeserializeOwned>(&self) -> Result<Option<T>, Problem> {
        let Some(text) = self.text("cursor") else { return Ok(None) };
        let value = unhex(text).and_then(|bytes| serde_json::from_slice(&bytes).ok());
        value.map(Some).ok_or_else(|| Problem::bad_request("the cursor is not one of this list"))
    }
}

/// The cursor of the page behind `last`; none, if the page was not full.
pub fn next<T: serde::Serialize>(
    rows: usize,
    limit: i64,
    last: impl FnOnce() -> Option<T>,
) -> Option<String> {
    if (rows as i64) < limit {
        return None;
    }
    serde_json::to_vec(&last()?).ok().map(|bytes| hex(&bytes))
}

/// Canonical JSON, in which control characters stand as they are, as JSON that everybody reads.
pub fn readable(canonical: &str) -> serde_json::Value {
    let mut escaped = String::with_capacity(canonical.len());
    for c in canonical.chars() {
        // They stand in strings alone: the canonical form has no white space.
        match c {
            '\0'..='\x1f' => escaped += &format!("\\u{:04x}", u32::from(c)),
            c => escaped.push(c),
        }
    }
    serde_json::from_str(&escaped).unwrap_or(serde_json::Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canonical_text_with_a_newline_is_readable() {
        let canonical = "{\"a\":\"x\ny\\\"\u{1b}\"}";
        assert_eq!(readable(canonical), serde_json::json!({"a": "x\ny\"\u{1b}"}));
    }

    #[test]
    fn a_cursor_comes_back_as_it_went() {
        let cursor = next(1, 1, || Some((5i64, "é\"".to_owned()))).unwrap();
        let query = Query(vec![("cursor".into(), cursor)]);
        assert_eq!(query.cursor::<(i64, String)>().unwrap(), Some((5, "é\"".into())));
        assert!(Query(vec![("cursor".into(), "zz".into())]).cursor::<(i64, String)>().is_err());
        assert!(Query(vec![("nots".into(), "1".into())]).only(&["note"], &[]).is_err());
    }
}
