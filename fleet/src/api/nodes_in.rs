//! What nodes send: enrolments, reports and status, inventories. No token is needed and none helps: what counts is signed.

use std::collections::BTreeSet;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use format::digest::Sha256;
use format::envelope::{Answer as Receipt, Document, Refusal, Sealed};
use serde_json::json;

use super::answer::json_with;
use super::guard::Who;
use super::problem::{Answer, Problem};
use crate::app::App;
use crate::ingest::check::{self, Checked};
use crate::store::audit::{self, Entry};
use crate::store::keys::{self, Enrolled, NodeKeys};
use crate::store::{compliance, sql::Sql};

/// A batch of so many bytes is verified where the request is; a larger one by a thread of its own.
const FEW: usize = 16 * 1024;

/// `POST /api/v1/enrollments`
pub async fn enroll(State(app): State<App>, who: Who, body: Bytes) -> Answer {
    app.within(&app.enrollments, who.address).map_err(Problem::too_many)?;
    let unreadable = |why: &dyn std::fmt::Display| Problem::bad_request(format!("no enrolment: {why}"));
    let sealed = Sealed::parse(&body).map_err(|e| unreadable(&e))?;
    let (enrollment, opened) = sealed.open_enrollment().map_err(|e| unreadable(&e))?;
    if opened.message.contains(&0) {
        return Err(unreadable(&"it has a NUL character in it"));
    }
    let (node, key_id) = (enrollment.node.to_string(), enrollment.public_key.id().0);
    let now = app.now();
    let address = who.address.to_string();
    let outcome = app
        .store
        .write(move |sql| {
            let outcome = keys::enroll(sql, &enrollment, now)?;
            // Refusals go to the log alone: anybody can cause them, and the database must not grow by that.
            if outcome != Enrolled::New {
                return Ok(outcome);
            }
            audit::record(
                sql,
                &Entry {
                    at: now,
                    who: enrollment.node.to_string(),
                    role: "node".into(),
                    from: address,
                    action: "enroll".into(),
                    target: enrollment.node.to_string(),
                    outcome: "done".into(),
                    ..Entry::default()
                },
            )?;
            Ok(outcome)
        })
        .await?;
    app.keys.forget(&node);
    let answer = json!({"node": node, "keyid": key_id, "state": "active"});
    match outcome {
        Enrolled::New => json_with(StatusCode::CREATED, &answer),
        Enrolled::Same => json_with(StatusCode::OK, &answer),
        Enrolled::Forbidden(why) => {
            log::warn!("{node} at {} was not enrolled: {why}", who.address);
            Err(Problem::forbidden(why))
        }
        Enrolled::Conflict(why) => Err(Problem::new(StatusCode::CONFLICT, why)),
    }
}

/// `POST /api/v1/reports`
pub async fn reports(State(app): State<App>, who: Who, body: Bytes) -> Answer {
    // An operator brings what others have carried here.
    let carried = who.identity.as_ref().is_some_and(|it| it.role >= crate::auth::Role::Operator);
    let receipt = take(&app, body, carried).await?;
    json_with(StatusCode::OK, &receipt)
}

/// Verifies and stores a batch.
///
/// # Errors
/// 400, 401, 403, 503.
pub async fn take(app: &App, body: Bytes, carried: bool) -> Result<Receipt, Problem> {
    let unreadable = |e: format::json::JsonError| Problem::bad_request(format!("no batch: {e}"));
    let many = body.len() > FEW;
    let speakers = check::speakers(&body).map_err(unreadable)?;
    let keys = app.keys.look_up(&app.store, speakers).await?;
    let now = app.now();
    let judge = move || check::batch(&body, &keys, now, carried);
    let checked = if many {
        // Five hundred signatures are a tenth of a second, in which nobody else would be served.
        tokio::task::spawn_blocking(judge).await.map_err(Problem::internal)?
    } else {
        judge()
    };
    let checked = checked.map_err(unreadable)?;
    app.answered.refused_documents(checked.refused.len());
    if checked.received.is_empty() && checked.refused.is_empty() {
        if !checked.unknown.is_empty() {
            return Err(Problem::unauthenticated(
                "no node of these documents is enrolled here: prestage enroll",
            ));
        }
        if !checked.revoked.is_empty() {
            return Err(Problem::forbidden("the key of this node was revoked"));
        }
    }
    let Checked { received, refused, .. } = checked;
    let mut accepted: Vec<(String, String)> =
        received.iter().map(|it| (it.id.clone(), it.node.clone())).collect();
    let mut wanted = BTreeSet::new();
    if !received.is_empty() {
        let written = app.queue.store(received).await?;
        // Revoked between the look at the key and the writing.
        accepted.retain(|(_, node)| !written.unknown.contains(node));
        wanted = written.wanted.clone();
    }
    let digest = |text: &str| text.parse::<Sha256>().map_err(Problem::internal);
    let refusal = |(id, reason): (String, String)| Ok::<_, Problem>(Refusal { id: digest(&id)?, reason });
    Ok(Receipt {
        accepted: accepted.iter().map(|(id, _)| digest(id)).collect::<Result<_, _>>()?,
        refused: refused.into_iter().map(refusal).collect::<Result<_, _>>()?,
        wants_inventory: wanted.iter().map(|id| digest(id)).collect::<Result<_, _>>()?,
    })
}

/// `PUT /api/v1/inventories/{sha256}`
pub async fn inventory(State(app): State<App>, Path(named): Path<String>, body: Bytes) -> Answer {
    let named: Sha256 = named.parse().map_err(Problem::bad_request)?;
    let unreadable = |why: &dyn std::fmt::Display| Problem::bad_request(format!("no inventory: {why}"));
    let sealed = Sealed::parse(&body).map_err(|e| unreadable(&e))?;
    let node = sealed.node().map_err(|e| unreadable(&e))?;
    let keys = app.keys.look_up(&app.store, BTreeSet::from([node.to_string()])).await?;
    let key = match keys.get(node.as_str()) {
        Some(NodeKeys::Active(key)) => *key,
        Some(NodeKeys::Revoked) => return Err(Problem::forbidden("the key of this node was revoked")),
        _ => return Err(Problem::unauthenticated("this node is not enrolled here: prestage enroll")),
    };
    let opened = sealed.open(&node, &key).map_err(|e| Problem::forbidden(e.to_string()))?;
    let Document::Inventory(inventory) = opened.document else {
        return Err(unreadable(&"it is another kind of document"));
    };
    if inventory.inventory != named {
        return Err(unreadable(&"its digest is not that of the address"));
    }
    let (text, count) = (inventory.packages().to_text(), inventory.packages.len() as i64);
    let (id, now) = (named.to_string(), app.now());
    let stored = app
        .store
        .write(move |sql: &mut dyn Sql| {
            // Nobody fills the disk with sets that no node has said to have.
            if !compliance::is_wanted(sql, node.as_str(), &id)? {
                return Ok(None);
            }
            compliance::store_inventory(sql, &id, &text, count, now).map(Some)
        })
        .await?;
    let answer = json!({"inventory": named, "packages": count});
    match stored {
        Some(true) => json_with(StatusCode::CREATED, &answer),
        Some(false) => json_with(StatusCode::OK, &answer),
        None => Err(Problem::forbidden("this node has not said that it has this set: report it first")),
    }
}
