//! Rollouts and the repository, as they were read and counted last.

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde_json::{Value, json};

use super::answer::{Query, json};
use super::problem::{Answer, Problem};
use crate::app::App;
use crate::store::audit;

/// Actions on the page of a rollout.
const ACTIONS: i64 = 100;

/// `GET /api/v1/rollouts`
pub async fn list(State(app): State<App>, headers: HeaderMap, query: Query) -> Answer {
    query.only(&[], &[])?;
    let published = app.published();
    let items: Vec<Value> = published.rollouts.iter().map(|rollout| rollout.answer(&[])).collect();
    json(&headers, &json!({"items": items}))
}

/// `GET /api/v1/rollouts/{namespace}/{name}`
pub async fn one(
    State(app): State<App>,
    Path((namespace, name)): Path<(String, String)>,
    headers: HeaderMap,
    query: Query,
) -> Answer {
    query.only(&[], &[])?;
    let published = app.published();
    let found = published.rollouts.iter().find(|it| it.namespace == namespace && it.name == name);
    let rollout =
        found.ok_or_else(|| Problem::not_found(format!("no policy {namespace}/{name} is published")))?;
    let asked = audit::Asked { target: Some(rollout.policy()), limit: ACTIONS, ..audit::Asked::default() };
    let actions = app.store.read(move |sql| audit::list(sql, &asked)).await?;
    json(&headers, &rollout.answer(&actions))
}

/// `GET /api/v1/repository`
pub async fn repository(State(app): State<App>, headers: HeaderMap, query: Query) -> Answer {
    query.only(&[], &[])?;
    json(&headers, &app.published().answer())
}
