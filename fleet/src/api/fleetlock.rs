//! FleetLock: so many nodes of a group restart at a time. Two requests, as Zincati and others make them.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::answer::{json_with, plain};
use super::problem::{Answer, Problem};
use crate::app::App;
use crate::config::FleetLockSettings;
use crate::store::health;

/// The longest id or group.
const MAX_NAME: usize = 255;

#[derive(serde::Deserialize)]
struct Asked {
    client_params: Params,
}

#[derive(serde::Deserialize)]
struct Params {
    id: String,
    group: String,
}

fn no(status: StatusCode, kind: &str, value: &str) -> Response {
    // Their own form of error, which their clients read.
    json_with(status, &json!({"kind": kind, "value": value})).unwrap_or_else(IntoResponse::into_response)
}

fn refuse(status: StatusCode, kind: &str, value: &str) -> Box<Response> {
    Box::new(no(status, kind, value))
}

/// Who asks for which group, if this is on.
fn asked(app: &App, headers: &HeaderMap, body: &Bytes) -> Result<(FleetLockSettings, Params), Box<Response>> {
    let Some(settings) = app.settings.fleetlock else {
        return Err(refuse(
            StatusCode::NOT_FOUND,
            "not_enabled",
            "[fleetlock] enabled is false on this server",
        ));
    };
    if headers.get("fleet-lock-protocol").is_none_or(|value| value != "true") {
        return Err(refuse(
            StatusCode::BAD_REQUEST,
            "bad_request",
            "the header fleet-lock-protocol: true is missing",
        ));
    }
    let Ok(Asked { client_params }) = serde_json::from_slice::<Asked>(body) else {
        return Err(refuse(
            StatusCode::BAD_REQUEST,
            "bad_request",
            "the body has no client_params with id and group",
        ));
    };
    for (what, text) in [("id", &client_params.id), ("group", &client_params.group)] {
        if plain(what, text, MAX_NAME).is_err() {
            return Err(refuse(StatusCode::BAD_REQUEST, "bad_request", "id or group is empty, or too long"));
        }
    }
    Ok((settings, client_params))
}

/// `POST /v1/pre-reboot`
pub async fn pre_reboot(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Answer {
    let (settings, Params { id, group }) = match asked(&app, &headers, &body) {
        Ok(asked) => asked,
        Err(response) => return Ok(*response),
    };
    let now = app.now();
    let taken = app
        .store
        .write(move |sql| health::take_place(sql, &group, &id, settings.per_group, now - settings.hold, now));
    match taken.await? {
        true => Ok(StatusCode::OK.into_response()),
        false => {
            Ok(no(StatusCode::CONFLICT, "failed_lock", "as many of this group as may be are restarting"))
        }
    }
}

/// `POST /v1/steady-state`
pub async fn steady_state(
    State(app): State<App>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let (_, Params { id, group }) = match asked(&app, &headers, &body) {
        Ok(asked) => asked,
        Err(response) => return Ok(*response),
    };
    app.store.write(move |sql| health::give_place(sql, &group, &id)).await?;
    Ok(StatusCode::OK.into_response())
}
