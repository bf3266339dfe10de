//! The API: which request is answered by whom, and who may ask. `openapi.yaml` says the same to others; a test compares them.

mod answer;
mod compliance; // the compliance question
mod control; // what changes something
mod events; // server-sent events
mod fleetlock; // who may restart now
mod guard; // what happens to every request
mod nodes; // nodes
mod nodes_in; // what nodes send
pub mod problem; // what went wrong
mod rollouts; // rollouts
mod server; // health, metrics, dashboard
mod summary; // the fleet in numbers
pub mod times;
mod tokens; // tokens and sessions

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::http::Method;
use axum::middleware;
use axum::routing::{MethodRouter, delete, get, post, put};

pub use compliance::{Format, export};
pub use nodes_in::take;
pub use summary::of as summary_of;
pub use tokens::{Wanted, design};

use crate::app::App;
use crate::auth::Role;

/// Who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Nobody,
    /// Nodes: what they send is judged by its signature.
    Node,
    /// Whoever has this role.
    Role(Role),
}

impl Access {
    /// As `x-role` says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Access::Nobody => "nobody",
            Access::Node => "node",
            Access::Role(role) => role.as_str(),
        }
    }
}

/// One request that is answered.
pub struct Route {
    /// How.
    pub method: Method,
    /// Which.
    pub path: &'static str,
    /// To whom.
    pub access: Access,
    handler: MethodRouter<App>,
}

/// Every request that is answered.
pub fn routes() -> Vec<Route> {
    use Access::{Nobody, Node};
    const VIEWER: Access = Access::Role(Role::Viewer);
    const OPERATOR: Access = Access::Role(Role::Operator);
    const ADMIN: Access = Access::Role(Role::Admin);
    let mut routes = Vec::new();
    let mut add = |method: Method, path: &'static str, access: Access, handler: MethodRouter<App>| {
        routes.push(Route { method, path, access, handler });
    };
    add(Method::POST, "/api/v1/enrollments", Node, post(nodes_in::enroll));
    add(Method::GET, "/api/v1/enrollments", VIEWER, get(nodes::enrollments));
    add(Method::POST, "/api/v1/reports", Node, post(nodes_in::reports));
    add(Method::PUT, "/api/v1/inventories/{sha256}", Node, put(nodes_in::inventory));
    add(Method::GET, "/api/v1/session", VIEWER, get(tokens::me));
    add(Method::POST, "/api/v1/session", Nobody, post(tokens::log_in));
    add(Method::DELETE, "/api/v1/session", Nobody, delete(tokens::log_out));
    add(Method::GET, "/api/v1/summary", VIEWER, get(summary::summary));
    add(Method::GET, "/api/v1/summary/history", VIEWER, get(summary::history));
    add(Method::GET, "/api/v1/nodes", VIEWER, get(nodes::list));
    add(Method::GET, "/api/v1/nodes/{id}", VIEWER, get(nodes::one));
    add(Method::GET, "/api/v1/nodes/{id}/reports", VIEWER, get(nodes::reports));
    add(Method::GET, "/api/v1/nodes/{id}/inventory", VIEWER, get(nodes::inventory));
    add(Method::PUT, "/api/v1/nodes/{id}/key", ADMIN, put(control::register_key));
    add(Method::POST, "/api/v1/nodes/{id}/revoke", OPERATOR, post(control::revoke));
    add(Method::GET, "/api/v1/drift", VIEWER, get(summary::drift));
    add(Method::GET, "/api/v1/rollouts", VIEWER, get(rollouts::list));
    add(Method::GET, "/api/v1/rollouts/{namespace}/{name}", VIEWER, get(rollouts::one));
    add(Method::POST, "/api/v1/rollouts/{namespace}/{name}/{action}", OPERATOR, post(control::rollout));
    add(Method::GET, "/api/v1/compliance", VIEWER, get(compliance::compliance));
    add(Method::GET, "/api/v1/quarantine", VIEWER, get(nodes::quarantine));
    add(Method::POST, "/api/v1/quarantine/release", OPERATOR, post(control::release));
    add(Method::GET, "/api/v1/audit", VIEWER, get(control::audit));
    add(Method::GET, "/api/v1/tokens", ADMIN, get(tokens::list));
    add(Method::POST, "/api/v1/tokens", OPERATOR, post(tokens::make));
    add(Method::DELETE, "/api/v1/tokens/{id}", ADMIN, delete(tokens::revoke));
    add(Method::GET, "/api/v1/repository", VIEWER, get(rollouts::repository));
    add(Method::GET, "/api/v1/events", VIEWER, get(events::events));
    add(Method::GET, "/api/v1/openapi.yaml", Nobody, get(server::openapi));
    add(Method::GET, "/metrics", VIEWER, get(server::metrics));
    add(Method::GET, "/healthz", Nobody, get(server::alive));
    add(Method::GET, "/readyz", Nobody, get(server::ready));
    add(Method::POST, "/v1/pre-reboot", Nobody, post(fleetlock::pre_reboot));
    add(Method::POST, "/v1/steady-state", Nobody, post(fleetlock::steady_state));
    routes
}

/// Everything behind one address.
pub fn router(app: App) -> Router {
    let mut router = Router::new();
    let mut access = HashMap::new();
    for route in routes() {
        access.insert((route.method, route.path), route.access);
        router = router.route(route.path, route.handler);
    }
    let guard = guard::Guard { app: app.clone(), access: Arc::new(access) };
    router
        .fallback(server::dashboard)
        .method_not_allowed_fallback(server::not_allowed)
        .layer(axum::extract::DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(guard, guard::guard))
        .with_state(app)
}

/// What is given without a token, on an address of its own: metrics and health.
pub fn metrics_router(app: App) -> Router {
    Router::new()
        .route("/metrics", get(server::metrics))
        .route("/healthz", get(server::alive))
        .route("/readyz", get(server::ready))
        .with_state(app)
}
