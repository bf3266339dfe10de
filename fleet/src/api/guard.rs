//! What happens to every request: it is counted, limited, its sender found out, its body read in time and within bounds, its
//! answer given the headers that keep a browser from doing anything with it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use format::envelope::{MAX_BATCH, MAX_DOCUMENT};

use super::Access;
use super::problem::Problem;
use crate::app::App;
use crate::auth::{self, Identity};
use crate::ingest::inflate::{self, NotInflated};

/// The most bytes of a body that is no batch and no inventory.
const MAX_BODY: usize = 64 * 1024;

/// What the guard needs.
#[derive(Clone)]
pub struct Guard {
    /// Everything.
    pub app: App,
    /// Who may ask for what.
    pub access: Arc<HashMap<(Method, &'static str), Access>>,
}

/// Who asks, and from where.
#[derive(Clone, Debug)]
pub struct Who {
    /// The address that limits and the audit log know.
    pub address: IpAddr,
    /// Somebody with a role.
    pub identity: Option<Identity>,
}

impl Who {
    /// Somebody with a role.
    ///
    /// # Errors
    /// 401, if there is none.
    pub fn identity(&self) -> Result<&Identity, Problem> {
        self.identity.as_ref().ok_or_else(|| Problem::unauthenticated("this needs a token"))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Who {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Who>().cloned().ok_or_else(|| Problem::internal("a request without a guard"))
    }
}

/// The middleware.
pub async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("other", |path| path.as_str()).to_owned();
    let under_api = request.uri().path().starts_with("/api/");
    let response = match pass(&guard, request, next, &route).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    };
    let response = secured(as_problem(response).await, under_api);
    guard.app.answered.note(&method, &route, response.status(), started.elapsed());
    response
}

async fn pass(guard: &Guard, request: Request, next: Next, route: &str) -> Result<Response, Problem> {
    let app = &guard.app;
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let peer = peer.ok_or_else(|| Problem::internal("a request from nowhere"))?.to_canonical();
    let address = client(request.headers(), peer, &app.settings.proxy.addresses);
    app.within(&app.requests, address).map_err(Problem::too_many)?;

    let method = if request.method() == Method::HEAD { Method::GET } else { request.method().clone() };
    // Without a route it is a file of the dashboard, or nothing: everybody may be told so.
    let access = guard.access.iter().find(|((m, path), _)| *m == method && *path == route);
    let access = access.map_or(Access::Nobody, |(_, access)| *access);
    let now = app.now();
    let headers = request.headers();
    let proxy = &app.settings.proxy;
    let known = auth::identify(&app.store, &app.remembered, proxy, headers, peer, now).await;
    let identity = match (access, known) {
        (_, Ok(identity)) => identity,
        // Whoever comes to log in may have an old token about them.
        (Access::Nobody, Err(_)) => None,
        (_, Err(problem)) => return Err(problem),
    };
    if let Access::Role(role) = access {
        let identity = identity.as_ref().ok_or_else(|| {
            Problem::unauthenticated("this needs a token (Authorization: Bearer …) or a session")
        })?;
        if identity.role < role {
            return Err(Problem::forbidden(format!(
                "this needs the role {role}, and {} is {}",
                identity.name, identity.role
            )));
        }
    }
    if let Some(identity) = &identity {
        auth::check_origin(&method, headers, identity)?;
    }
    let mut request = request;
    request.extensions_mut().insert(Who { address, identity });
    if matches!(method, Method::GET) {
        return Ok(next.run(request).await);
    }
    let request = with_body(app, request, route).await?;
    Ok(next.run(request).await)
}

/// The address of whoever asks: what a proxy of ours says, or where the connection is from. Of several, the last that is no
/// proxy of ours: what stands before it anybody can have written.
fn client(headers: &HeaderMap, peer: IpAddr, proxies: &[IpAddr]) -> IpAddr {
    if !proxies.contains(&peer) {
        return peer;
    }
    let said = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let addresses: Vec<IpAddr> =
        said.flat_map(|value| value.split(',')).filter_map(|part| part.trim().parse().ok()).collect();
    addresses.into_iter().rev().find(|address| !proxies.contains(address)).unwrap_or(peer)
}

/// The request with its body read: in time, within bounds, inflated.
async fn with_body(app: &App, request: Request, route: &str) -> Result<Request, Problem> {
    let limit = match route {
        "/api/v1/reports" => MAX_BATCH,
        "/api/v1/inventories/{sha256}" | "/api/v1/enrollments" => MAX_DOCUMENT,
        _ => MAX_BODY,
    };
    let too_long =
        || Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is longer than {limit} bytes"));
    let (mut parts, body) = request.into_parts();
    let claimed = parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if claimed.and_then(|text| text.parse::<u64>().ok()).is_some_and(|length| length > limit as u64) {
        return Err(too_long());
    }
    let read = tokio::time::timeout(app.settings.request_timeout, axum::body::to_bytes(body, limit)).await;
    let bytes = match read {
        Ok(Ok(bytes)) => bytes,
        // The body that is too long and the connection that breaks are one error; to the latter nobody listens.
        Ok(Err(_)) => return Err(too_long()),
        Err(_) => return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
    };
    let encoding = parts.headers.remove(header::CONTENT_ENCODING);
    let bytes = match encoding.as_ref().map(HeaderValue::as_bytes) {
        None | Some(b"identity") => bytes,
        Some(b"gzip") => {
            let inflated = tokio::task::spawn_blocking(move || inflate::gzip(&bytes, limit)).await;
            match inflated.map_err(Problem::internal)? {
                Ok(inflated) => Bytes::from(inflated),
                Err(NotInflated::TooLong) => return Err(too_long()),
                Err(NotInflated::Damaged(why)) => {
                    return Err(Problem::bad_request(format!("the body is no gzip: {why}")));
                }
            }
        }
        Some(_) => {
            let why = "Content-Encoding is neither gzip nor identity";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
        }
    };
    Ok(Request::from_parts(parts, Body::from(bytes)))
}

/// Errors of the framework in our own form.
async fn as_problem(response: Response) -> Response {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let ours = kind.is_some_and(|kind| kind.ends_with(b"json"));
    if ours || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let text = axum::body::to_bytes(response.into_body(), MAX_BODY).await.unwrap_or_default();
    Problem::new(status, String::from_utf8_lossy(&text).into_owned()).into_response()
}

/// Nothing here is to be guessed at, framed, kept, or run from elsewhere.
fn secured(mut response: Response, under_api: bool) -> Response {
    let headers = response.headers_mut();
    let policy = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'; \
                  require-trusted-types-for 'script'";
    for (name, value) in [
        ("content-security-policy", policy),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if under_api {
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("private, no-cache"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_anybody_could_have_written_does_not_count() {
        let proxies: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_static("1.1.1.1, 2.2.2.2, 10.0.0.2"));
        assert_eq!(client(&headers, proxies[0], &proxies).to_string(), "2.2.2.2");
        assert_eq!(client(&headers, "3.3.3.3".parse().unwrap(), &proxies).to_string(), "3.3.3.3");
        assert_eq!(client(&HeaderMap::new(), proxies[0], &proxies), proxies[0]);
    }
}
