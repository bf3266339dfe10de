//! Tokens and sessions.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use serde_json::json;

use super::answer::{Query, json, json_with, plain, read};
use super::control::audited;
use super::guard::Who;
use super::nodes::known;
use super::problem::{Answer, Problem};
use super::times;
use crate::app::App;
use crate::auth::{self, COOKIE, Identity, Role};
use crate::store::tokens::{self, Token};

/// How long a token for enrolment counts, if nothing is said, in hours.
const ENROLLMENT_HOURS: i64 = 24;

/// How long an operator's token counts, if nothing is said, in hours.
const OPERATOR_HOURS: i64 = 8760;

/// The longest life of a token, in hours.
const MAX_HOURS: i64 = 87_600;

/// The most uses of a token for enrolment.
const MAX_USES: i64 = 100_000;

fn about(identity: &Identity) -> serde_json::Value {
    json!({
        "name": identity.name,
        "role": identity.role,
        "by": identity.by,
        "expires": identity.expires.map(times::text),
    })
}

/// `GET /api/v1/session`
pub async fn me(who: Who, headers: HeaderMap) -> Answer {
    json(&headers, &about(who.identity()?))
}

/// `POST /api/v1/session`
pub async fn log_in(State(app): State<App>, who: Who, body: Bytes) -> Answer {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct LogIn {
        token: String,
    }
    app.within(&app.logins, who.address).map_err(Problem::too_many)?;
    let LogIn { token } = read(&body)?;
    let (hash, now) = (auth::digest(token.trim()), app.now());
    let (secret, session) = auth::new_secret().map_err(Problem::internal)?;
    let life = app.settings.session;
    let opened = app
        .store
        .write(move |sql| {
            let Some(token) = tokens::operator(sql, &hash, now)? else { return Ok(None) };
            let expires = token.expires.min(now + life);
            tokens::used(sql, &token.id, now)?;
            tokens::open_session(sql, &session, &token.id, expires, now)?;
            Ok(Some((token, expires)))
        })
        .await?;
    let Some((token, expires)) = opened else {
        log::warn!("a login from {} with a token that does not count", who.address);
        return Err(Problem::unauthenticated("the token does not count: it is unknown, expired or revoked"));
    };
    let identity = Identity {
        name: token.name,
        role: token.role.unwrap_or(Role::Viewer),
        by: auth::By::Session,
        expires: Some(expires),
        token: token.id,
    };
    audited(&app, &who, &identity, "login", "", "", "done").await?;
    let mut response = json_with(StatusCode::OK, &about(&identity))?;
    let cookie = set_cookie(&app, &secret, expires - now)?;
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}

fn set_cookie(app: &App, value: &str, seconds: i64) -> Result<HeaderValue, Problem> {
    let secure = if app.settings.secure_cookies { "; Secure" } else { "" };
    let cookie = format!("{COOKIE}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}");
    HeaderValue::from_str(&cookie).map_err(Problem::internal)
}

/// `DELETE /api/v1/session`
pub async fn log_out(State(app): State<App>, headers: HeaderMap) -> Answer {
    if let Some(secret) = auth::cookie(&headers) {
        let hash = auth::digest(secret);
        app.store.write(move |sql| tokens::close_session(sql, &hash)).await?;
        app.remembered.forget();
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.headers_mut().insert(header::SET_COOKIE, set_cookie(&app, "", 0)?);
    Ok(response)
}

/// `GET /api/v1/tokens`
pub async fn list(State(app): State<App>, headers: HeaderMap, query: Query) -> Answer {
    query.only(&[], &[])?;
    let found = app.store.read(tokens::list).await?;
    let token = |it: Token| {
        json!({
            "id": it.id,
            "kind": it.kind,
            "name": it.name,
            "role": it.role,
            "node": Some(it.node).filter(|node| !node.is_empty()),
            "labels": it.labels,
            "uses": it.uses,
            "used": it.used,
            "made": times::text(it.made),
            "madeBy": it.made_by,
            "expires": times::text(it.expires),
            "revoked": it.revoked != 0,
            "lastUsed": times::maybe(it.last_used),
        })
    };
    json(&headers, &json!({"items": found.into_iter().map(token).collect::<Vec<_>>()}))
}

/// What a new token is to be.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Wanted {
    /// `operator` or `enrollment`.
    pub kind: String,
    /// Whose it is, or what it is for.
    pub name: String,
    /// Of an operator's.
    pub role: Option<Role>,
    /// Only for this node.
    pub node: Option<String>,
    /// Only for nodes with these labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How often it counts; once, if nothing is said.
    pub uses: Option<i64>,
    /// How long, in hours.
    pub expires_in_hours: Option<i64>,
}

/// A token as it is wanted, and its secret and that one's digest.
///
/// # Errors
/// In words, what of it cannot be.
pub fn design(wanted: Wanted, by: &str, now: i64) -> Result<(Token, String, String), Problem> {
    let is_operator = match wanted.kind.as_str() {
        "operator" => true,
        "enrollment" => false,
        other => return Err(Problem::bad_request(format!("kind {other:?} is not operator or enrollment"))),
    };
    let of_enrollment = wanted.node.is_some() || !wanted.labels.is_empty() || wanted.uses.is_some();
    if is_operator && (wanted.role.is_none() || of_enrollment) {
        return Err(Problem::bad_request("an operator's token has a role, and no node, labels or uses"));
    }
    if !is_operator && wanted.role.is_some() {
        return Err(Problem::bad_request("a token for enrolment has no role"));
    }
    if wanted.labels.iter().any(|(key, value)| key.contains('\0') || value.contains('\0')) {
        return Err(Problem::bad_request("a label has a NUL in it"));
    }
    let within = |name: &str, value: Option<i64>, most: i64, without: i64| match value.unwrap_or(without) {
        n if (1..=most).contains(&n) => Ok(n),
        n => Err(Problem::bad_request(format!("{name} {n} is not from 1 to {most}"))),
    };
    let usual = if is_operator { OPERATOR_HOURS } else { ENROLLMENT_HOURS };
    let hours = within("expiresInHours", wanted.expires_in_hours, MAX_HOURS, usual)?;
    let (secret, hash) = auth::new_secret().map_err(Problem::internal)?;
    let token = Token {
        id: auth::new_id().map_err(Problem::internal)?,
        name: plain("name", &wanted.name, 100)?.to_owned(),
        role: wanted.role,
        node: wanted.node.as_deref().map(known).transpose()?.unwrap_or_default().to_owned(),
        labels: wanted.labels,
        uses: within("uses", wanted.uses, MAX_USES, 1)?,
        used: 0,
        made: now,
        made_by: by.to_owned(),
        expires: now + hours * 3600,
        revoked: 0,
        last_used: 0,
        kind: wanted.kind,
    };
    Ok((token, secret, hash))
}

/// `POST /api/v1/tokens`
pub async fn make(State(app): State<App>, who: Who, body: Bytes) -> Answer {
    let identity = who.identity()?.clone();
    let wanted: Wanted = read(&body)?;
    if wanted.kind == "operator" && identity.role < Role::Admin {
        return Err(Problem::forbidden("tokens of operators are made by an admin"));
    }
    let (token, secret, hash) = design(wanted, &identity.name, app.now())?;
    let answer = json!({"id": token.id, "token": secret, "expires": times::text(token.expires)});
    let target = format!("{} {} ({})", token.kind, token.id, token.name);
    app.store.write(move |sql| tokens::insert(sql, &token, &hash)).await?;
    audited(&app, &who, &identity, "token made", &target, "", "done").await?;
    json_with(StatusCode::CREATED, &answer)
}

/// `DELETE /api/v1/tokens/{id}`
pub async fn revoke(State(app): State<App>, who: Who, Path(id): Path<String>) -> Answer {
    let identity = who.identity()?.clone();
    let (target, now) = (id.clone(), app.now());
    if id.contains('\0') || !app.store.write(move |sql| tokens::revoke(sql, &target, now)).await? {
        return Err(Problem::not_found(format!("there is no token {id:?} that counts")));
    }
    app.remembered.forget();
    audited(&app, &who, &identity, "token revoked", &id, "", "done").await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
