//! The server itself: is it alive, metrics, its own description, and the dashboard's files.

use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use format::digest::{Sha256, hex};
use serde_json::json;

use super::answer::json_with;
use super::problem::{Answer, Problem};
use crate::app::App;
use crate::store::health;

/// The description of the API.
const OPENAPI: &str = include_str!("../../openapi.yaml");

/// The dashboard, compiled in: name and content.
const DASHBOARD: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/dashboard.rs"));

/// `GET /healthz`
pub async fn alive() -> Answer {
    json_with(StatusCode::OK, &json!({"status": "alive"}))
}

/// `GET /readyz`
pub async fn ready(State(app): State<App>) -> Answer {
    app.store.read(health::ping).await?;
    json_with(StatusCode::OK, &json!({"status": "ready"}))
}

/// `GET /metrics`
pub async fn metrics(State(app): State<App>) -> Answer {
    let text = crate::metrics::text(&app).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

/// `GET /api/v1/openapi.yaml`
pub async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/yaml")], OPENAPI).into_response()
}

/// What no route has.
pub async fn not_allowed() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this address does not do that; see /api/v1/openapi.yaml")
}

fn kind(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("json") => "application/json",
        Some("woff2") => "font/woff2",
        _ => "application/octet-stream",
    }
}

/// Everything else: a file of the dashboard, by its exact name.
pub async fn dashboard(method: Method, uri: Uri, headers: HeaderMap) -> Answer {
    let name = match uri.path() {
        "/" => "index.html",
        path => path.trim_start_matches('/'),
    };
    let found = DASHBOARD.iter().find(|(known, _)| *known == name);
    let Some((name, content)) = found else {
        return Err(Problem::not_found("there is nothing here; see /api/v1/openapi.yaml"));
    };
    if method != Method::GET && method != Method::HEAD {
        return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "a file can only be read"));
    }
    let tag = format!("\"{}\"", hex(&Sha256::of(content).0[..12]));
    let cached = [(header::ETAG, tag.clone()), (header::CACHE_CONTROL, "no-cache".to_owned())];
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        return Ok((StatusCode::NOT_MODIFIED, cached).into_response());
    }
    Ok((cached, [(header::CONTENT_TYPE, kind(name))], *content).into_response())
}
