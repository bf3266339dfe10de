//! What changes something. Each is written down with who, from where, why, and how it ended; also what was refused.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use format::digest::unhex;
use format::node_key::NodePublicKey;
use format::time::UnixTime;
use serde_json::json;

use super::answer::{Query, json, json_with, next, plain, read};
use super::guard::Who;
use super::nodes::known;
use super::problem::{Answer, Problem};
use crate::app::{App, Shared};
use crate::auth::Identity;
use crate::control::{self, Asked, NotDone};
use crate::store::audit::{self, Entry};
use crate::store::keys::{self, Enrolled};

/// The longest reason, in bytes: what a plan can hold.
const MAX_REASON: usize = format::rollout::MAX_REASON;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Reason {
    reason: String,
}

/// Writes down what somebody did.
///
/// # Errors
/// If the database is away.
pub async fn audited(
    app: &Shared,
    who: &Who,
    identity: &Identity,
    action: &str,
    target: &str,
    reason: &str,
    outcome: &str,
) -> Result<(), Problem> {
    let entry = Entry {
        id: 0,
        at: app.now(),
        who: identity.name.clone(),
        role: identity.role.to_string(),
        from: who.address.to_string(),
        action: action.into(),
        target: target.into(),
        reason: reason.into(),
        outcome: outcome.into(),
    };
    Ok(app.store.write(move |sql| audit::record(sql, &entry)).await?)
}

/// `POST /api/v1/nodes/{id}/revoke`
pub async fn revoke(State(app): State<App>, who: Who, Path(id): Path<String>, body: Bytes) -> Answer {
    let identity = who.identity()?.clone();
    let Reason { reason } = read(&body)?;
    let reason = plain("reason", &reason, MAX_REASON)?.to_owned();
    let (node, why, now) = (known(&id)?.to_owned(), reason.clone(), app.now());
    let revoked = app.store.write(move |sql| keys::revoke(sql, &node, &why, now)).await?;
    if !revoked {
        return Err(Problem::not_found(format!("there is no node {id:?} whose key counts")));
    }
    app.keys.forget(&id);
    audited(&app, &who, &identity, "revoke", &id, &reason, "done").await?;
    let message = "its key counts no more; with a new token it can enrol with another one";
    json_with(StatusCode::OK, &json!({"action": "revoke", "target": id, "message": message}))
}

/// `PUT /api/v1/nodes/{id}/key`
pub async fn register_key(State(app): State<App>, who: Who, Path(id): Path<String>, body: Bytes) -> Answer {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Key {
        public_key: String,
        #[serde(default)]
        reason: String,
    }
    let identity = who.identity()?.clone();
    let key: Key = read(&body)?;
    let reason = if key.reason.is_empty() { "" } else { plain("reason", &key.reason, MAX_REASON)? };
    let bytes = unhex(&key.public_key).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    let bytes =
        bytes.ok_or_else(|| Problem::bad_request("publicKey is not 64 lower-case hexadecimal digits"))?;
    let public = NodePublicKey(bytes);
    let (node, by, now) = (known(&id)?.to_owned(), identity.name.clone(), app.now());
    let outcome = app.store.write(move |sql| keys::register(sql, &node, &public, &by, now)).await?;
    if let Enrolled::Conflict(why) | Enrolled::Forbidden(why) = outcome {
        return Err(Problem::new(StatusCode::CONFLICT, why));
    }
    app.keys.forget(&id);
    audited(&app, &who, &identity, "register key", &id, reason, "done").await?;
    let state = if outcome == Enrolled::Same { "active" } else { "expected" };
    json_with(StatusCode::CREATED, &json!({"node": id, "keyid": public.id().0, "state": state}))
}

/// `POST /api/v1/rollouts/{namespace}/{name}/{action}`
pub async fn rollout(
    State(app): State<App>,
    who: Who,
    Path((namespace, name, action)): Path<(String, String, String)>,
    body: Bytes,
) -> Answer {
    let identity = who.identity()?.clone();
    if !["pause", "halt", "resume", "rollback"].contains(&action.as_str()) {
        return Err(Problem::not_found("an action is pause, halt, resume or rollback"));
    }
    let Reason { reason } = read(&body)?;
    let reason = plain("reason", &reason, MAX_REASON)?.to_owned();
    let policy = policy(&namespace, &name)?;
    let asked = Asked {
        action: action.clone(),
        policy: policy.clone(),
        reason: reason.clone(),
        by: identity.name.clone(),
        ..Asked::default()
    };
    let result = control::run(&app, asked).await;
    finish(&app, &who, &identity, &action, &policy, &reason, result).await
}

/// `POST /api/v1/quarantine/release`
pub async fn release(State(app): State<App>, who: Who, body: Bytes) -> Answer {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Release {
        policy: String,
        bundle: format::name::BundleVersion,
        before: Option<UnixTime>,
        reason: String,
    }
    let identity = who.identity()?.clone();
    let release: Release = read(&body)?;
    let reason = plain("reason", &release.reason, MAX_REASON)?.to_owned();
    let (namespace, name) =
        release.policy.split_once('/').ok_or_else(|| Problem::bad_request("policy is not NAMESPACE/NAME"))?;
    let asked = Asked {
        action: "release".into(),
        policy: policy(namespace, name)?,
        reason: reason.clone(),
        by: identity.name.clone(),
        bundle: release.bundle.to_string(),
        before: release.before.unwrap_or(UnixTime(app.now())).to_string(),
    };
    let target = format!("{} in {}", asked.bundle, asked.policy);
    let result = control::run(&app, asked).await;
    finish(&app, &who, &identity, "release", &target, &reason, result).await
}

/// A name that a policy may have: it becomes an argument of a command.
fn policy(namespace: &str, name: &str) -> Result<String, Problem> {
    let wrong = |why: &dyn std::fmt::Display| Problem::not_found(why.to_string());
    let namespace: format::policy::Namespace = namespace.parse().map_err(|e| wrong(&e))?;
    let name: format::policy::PolicyName = name.parse().map_err(|e| wrong(&e))?;
    Ok(format!("{namespace}/{name}"))
}

async fn finish(
    app: &App,
    who: &Who,
    identity: &Identity,
    action: &str,
    target: &str,
    reason: &str,
    result: Result<String, NotDone>,
) -> Answer {
    let outcome = match &result {
        Ok(_) => "done".to_owned(),
        Err(why) => why.to_string(),
    };
    audited(app, who, identity, action, target, reason, &outcome).await?;
    match result {
        Ok(message) => {
            let message = if message.is_empty() { "published".to_owned() } else { message };
            json_with(StatusCode::OK, &json!({"action": action, "target": target, "message": message}))
        }
        Err(why @ NotDone::NotConfigured(_)) => {
            Err(Problem::new(StatusCode::NOT_IMPLEMENTED, why.to_string()))
        }
        Err(why @ NotDone::Failed(_)) => Err(Problem::new(StatusCode::BAD_GATEWAY, why.to_string())),
    }
}

/// `GET /api/v1/audit`
pub async fn audit(State(app): State<App>, headers: HeaderMap, query: Query) -> Answer {
    query.only(&["who", "action", "target", "limit", "cursor"], &[])?;
    let text = |name: &str| query.text(name).map(str::to_owned);
    let asked = audit::Asked {
        who: text("who"),
        action: text("action"),
        target: text("target"),
        before: query.cursor()?,
        limit: query.limit()?,
    };
    let limit = asked.limit;
    let entries = app.store.read(move |sql| audit::list(sql, &asked)).await?;
    let behind = next(entries.len(), limit, || entries.last().map(|entry| entry.id));
    json(&headers, &json!({"items": entries, "next": behind}))
}
