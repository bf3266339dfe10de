//! Who asks, and what they may: tokens, sessions of browsers, a reverse proxy that has asked already.
//!
//! A node is none of these: what it sends is judged by its signature (`ingest::check`).

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, Method, header};
use format::digest::{Sha256, hex};

use crate::api::problem::Problem;
use crate::config::Proxy;
use crate::store::tokens::{self, Token};
use crate::store::{Result as StoreResult, Store};

/// The cookie of a session.
pub const COOKIE: &str = "prestage-session";

/// The header that a request with a cookie must have: no page of another origin can send it without asking first, and it
/// would be told no.
pub const CSRF: &str = "x-prestage-csrf";

/// How long a token or session is believed without another look; so long a revocation at another server takes to count here.
const LIFE: Duration = Duration::from_secs(5);

/// Remembered tokens and sessions; with so many, all are forgotten.
const MAX_REMEMBERED: usize = 10_000;

/// How often it is written down that a token was used.
const USED_EVERY: i64 = 60;

/// What somebody may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look.
    Viewer,
    /// Pause, resume, roll back, release, revoke, and let nodes enrol.
    Operator,
    /// Also give and take tokens and keys.
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 3] = [Role::Viewer, Role::Operator, Role::Admin];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Role::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| format!("{text:?} is not viewer, operator or admin"))
    }
}

/// How somebody showed who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// A bearer token.
    Token,
    /// A cookie.
    Session,
    /// A proxy says so.
    Proxy,
}

/// Somebody who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Their name.
    pub name: String,
    /// What they may.
    pub role: Role,
    /// How that is known.
    pub by: By,
    /// Until when; none: the proxy knows.
    pub expires: Option<i64>,
    /// Their token's id; empty through a proxy.
    pub token: String,
}

/// Tokens and sessions that were looked up a moment ago.
#[derive(Default)]
pub struct Remembered(Mutex<HashMap<String, (Instant, Identity)>>);

impl Remembered {
    /// Forgets all: something was revoked here.
    pub fn forget(&self) {
        self.held().clear();
    }

    fn held(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Instant, Identity)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, hash: &str, now: i64) -> Option<Identity> {
        let held = self.held();
        let (at, identity) = held.get(hash)?;
        let fresh = at.elapsed() < LIFE && identity.expires.is_none_or(|expires| expires > now);
        fresh.then(|| identity.clone())
    }

    fn put(&self, hash: String, identity: Identity) {
        let mut held = self.held();
        if held.len() >= MAX_REMEMBERED {
            held.clear();
        }
        held.insert(hash, (Instant::now(), identity));
    }
}

/// A secret and its digest: `pf_` and 64 hexadecimal digits, so that scanners for leaked secrets know it.
///
/// # Errors
/// If the kernel has no random numbers.
pub fn new_secret() -> Result<(String, String), String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|e| format!("no random numbers: {e}"))?;
    let secret = format!("pf_{}", hex(&bytes));
    let hash = digest(&secret);
    Ok((secret, hash))
}

/// A short name for a new thing.
///
/// # Errors
/// If the kernel has no random numbers.
pub fn new_id() -> Result<String, String> {
    let mut bytes = [0; 6];
    getrandom::fill(&mut bytes).map_err(|e| format!("no random numbers: {e}"))?;
    Ok(hex(&bytes))
}

/// What is kept of a secret.
pub fn digest(secret: &str) -> String {
    Sha256::of(secret.as_bytes()).to_string()
}

/// The secret of a `Authorization: Bearer` header.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// The value of our cookie.
pub fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value)
}

/// Who asks; none: nobody says so.
///
/// # Errors
/// 401, if they say so and it does not count; 503, if the database is away.
pub async fn identify(
    store: &Store,
    remembered: &Remembered,
    proxy: &Proxy,
    headers: &HeaderMap,
    peer: IpAddr,
    now: i64,
) -> Result<Option<Identity>, Problem> {
    if let Some(secret) = bearer(headers) {
        let hash = digest(secret);
        if let Some(identity) = remembered.get(&hash, now) {
            return Ok(Some(identity));
        }
        let key = hash.clone();
        let found = store.read(move |sql| tokens::operator(sql, &hash, now)).await?;
        let Some(token) = found else {
            return Err(Problem::unauthenticated(
                "the token does not count: it is unknown, expired or revoked",
            ));
        };
        note_use(store, &token, now).await?;
        let expires = token.expires;
        let identity = of_token(token, By::Token, expires);
        remembered.put(key, identity.clone());
        return Ok(Some(identity));
    }
    if let Some(secret) = cookie(headers) {
        let hash = digest(secret);
        if let Some(identity) = remembered.get(&hash, now) {
            return Ok(Some(identity));
        }
        let key = hash.clone();
        let found = store.read(move |sql| tokens::session(sql, &hash, now)).await?;
        // An old cookie is no offence: behind a proxy, the proxy's word counts.
        if let Some((token, expires)) = found {
            let identity = of_token(token, By::Session, expires);
            remembered.put(key, identity.clone());
            return Ok(Some(identity));
        }
    }
    Ok(by_proxy(proxy, headers, peer))
}

async fn note_use(store: &Store, token: &Token, now: i64) -> StoreResult<()> {
    if now - token.last_used < USED_EVERY {
        return Ok(());
    }
    let id = token.id.clone();
    store.write(move |sql| tokens::used(sql, &id, now)).await
}

fn of_token(token: Token, by: By, expires: i64) -> Identity {
    Identity {
        name: token.name,
        role: token.role.unwrap_or(Role::Viewer),
        by,
        expires: Some(expires),
        token: token.id,
    }
}

/// The word of a proxy, if it is one of ours: its user, with the highest role of the groups.
fn by_proxy(proxy: &Proxy, headers: &HeaderMap, peer: IpAddr) -> Option<Identity> {
    if !proxy.addresses.contains(&peer) {
        return None;
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let user = text(&proxy.user_header).map(str::trim).filter(|user| !user.is_empty())?;
    let groups: Vec<&str> =
        text(&proxy.groups_header).unwrap_or_default().split([',', ';']).map(str::trim).collect();
    let roles = Role::ALL.into_iter().filter(|role| {
        let members = proxy.roles.get(role);
        members.is_some_and(|members| members.iter().any(|m| m == "*" || groups.contains(&m.as_str())))
    });
    let role = roles.max()?;
    // One line in the audit log, whatever the proxy lets through.
    let name = user.chars().filter(|c| !c.is_control()).take(100).collect();
    Some(Identity { name, role, by: By::Proxy, expires: None, token: String::new() })
}

/// Whether a request that changes something comes from our own page, or from a program.
///
/// # Errors
/// 403, if it may come from another site's page in the operator's browser.
pub fn check_origin(method: &Method, headers: &HeaderMap, identity: &Identity) -> Result<(), Problem> {
    if matches!(*method, Method::GET | Method::HEAD) || identity.by == By::Token {
        return Ok(());
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let foreign = text("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none");
    if foreign || !headers.contains_key(CSRF) {
        return Err(Problem::forbidden(
            "a request with a cookie needs the header X-Prestage-Csrf and must come from this server's own page",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy() -> Proxy {
        Proxy {
            addresses: vec!["10.0.0.1".parse().unwrap()],
            user_header: "x-forwarded-user".into(),
            groups_header: "x-forwarded-groups".into(),
            roles: [(Role::Viewer, vec!["*".into()]), (Role::Admin, vec!["ops".into()])].into(),
        }
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_word_of_a_proxy_counts_from_its_own_address_alone() {
        let said = headers(&[("x-forwarded-user", "ann"), ("x-forwarded-groups", "dev, ops")]);
        let found = by_proxy(&proxy(), &said, "10.0.0.1".parse().unwrap()).unwrap();
        assert_eq!((found.name.as_str(), found.role), ("ann", Role::Admin));
        assert_eq!(by_proxy(&proxy(), &said, "10.0.0.2".parse().unwrap()), None);
        let other = headers(&[("x-forwarded-user", "bob"), ("x-forwarded-groups", "opsx")]);
        assert_eq!(by_proxy(&proxy(), &other, "10.0.0.1".parse().unwrap()).unwrap().role, Role::Viewer);
        let nobody = headers(&[("x-forwarded-user", " ")]);
        assert_eq!(by_proxy(&proxy(), &nobody, "10.0.0.1".parse().unwrap()), None);
    }

    #[test]
    fn a_cookie_changes_nothing_without_the_header_that_another_site_cannot_send() {
        let mut identity = Identity {
            name: "ann".into(),
            role: Role::Admin,
            by: By::Session,
            expires: None,
            token: String::new(),
        };
        let check = |identity: &Identity, pairs: &[(&'static str, &'static str)]| {
            check_origin(&Method::POST, &headers(pairs), identity).is_ok()
        };
        assert!(!check(&identity, &[]));
        assert!(check(&identity, &[("x-prestage-csrf", "1")]));
        assert!(!check(&identity, &[("x-prestage-csrf", "1"), ("sec-fetch-site", "cross-site")]));
        assert!(check_origin(&Method::GET, &headers(&[]), &identity).is_ok());
        identity.by = By::Proxy;
        assert!(!check(&identity, &[]));
        identity.by = By::Token;
        assert!(check(&identity, &[]));
    }

    #[test]
    fn our_cookie_is_found_among_others() {
        let found = headers(&[("cookie", "a=b; prestage-session=xyz; c=d")]);
        assert_eq!(cookie(&found), Some("xyz"));
        assert_eq!(cookie(&headers(&[("cookie", "xprestage-session=1")])), None);
    }
}
