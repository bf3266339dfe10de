//! `prestage-fleet kube`: writes into the status of PatchPolicies how their rollouts go.
//!
//! By the level, not by the edge: each turn lists the objects, asks the fleet server once, and writes what is not so yet.
//! Whatever was missed or went wrong, the next turn finds it. A change of an object begins a turn at once; the watch is
//! for nothing else.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use format::API_VERSION;
use format::policy::KIND;
use format::time::UnixTime;
use futures_util::StreamExt as _;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, PostParams, WatchParams};
use kube::core::WatchEvent;
use kube::{Client, ResourceExt as _};
use serde_json::Value;

use super::{Heard, status};
use crate::app::now;
use crate::error::{Error, Kind, Result};
use crate::repository;

/// The longest answer of the fleet server: some thousand policies.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;

/// The longest file with a token.
const MAX_TOKEN: u64 = 4096;

/// Between two turns, however much changes.
const LEAST: Duration = Duration::from_secs(1);

/// Objects of one page of a list.
const PAGE: u32 = 500;

/// What the bridge is between. The API server is found as kubectl finds it: `KUBECONFIG`, `~/.kube/config`, or from within
/// a pod.
#[derive(Clone, Debug)]
pub struct Bridge {
    /// The fleet server: an http or https URL.
    pub server: String,
    /// The token of a viewer.
    pub token_file: PathBuf,
    /// Certificates for https.
    pub ca_file: PathBuf,
    /// Objects of this namespace; of all, without one.
    pub namespace: Option<String>,
    /// How often at the least.
    pub every: Duration,
    /// One turn, and no more.
    pub once: bool,
}

/// Goes on until it is killed, whatever goes wrong meanwhile; or does one turn.
///
/// # Errors
/// If it cannot begin; or its one turn failed.
pub fn run(bridge: &Bridge) -> Result<()> {
    // Twice in one process is no matter: whoever was first has chosen the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    token(bridge)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Error::new(Kind::Unavailable, format!("no threads: {e}")))?;
    runtime.block_on(async {
        let client = Client::try_default().await;
        let client =
            client.map_err(|e| Error::new(Kind::Config, format!("no Kubernetes API server: {e}")))?;
        if bridge.once {
            return turn(bridge, &client).await.map(drop).map_err(|why| Error::new(Kind::Unavailable, why));
        }
        loop {
            let begun = tokio::time::Instant::now();
            match turn(bridge, &client).await {
                Ok(version) => changed(bridge, &client, &version).await,
                Err(why) => {
                    log::warn!("{why}");
                    tokio::time::sleep(bridge.every).await;
                }
            }
            tokio::time::sleep_until(begun + LEAST).await;
        }
    })
}

/// Objects of the namespace, or of all.
fn objects(client: &Client, namespace: Option<&str>) -> Api<DynamicObject> {
    let (group, version) = API_VERSION.split_once('/').unwrap_or((API_VERSION, ""));
    let resource =
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, KIND), "patchpolicies");
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

/// Makes every status what it is to be; the version of the list that it was made from.
///
/// # Errors
/// If the API server cannot be asked, or the fleet server; of that, the status says so too.
async fn turn(bridge: &Bridge, client: &Client) -> std::result::Result<String, String> {
    let (listed, version) = list(&objects(client, bridge.namespace.as_deref())).await?;
    let asked = bridge.clone();
    let rollouts = tokio::task::spawn_blocking(move || rollouts(&asked)).await.map_err(|e| e.to_string())?;
    for mut object in listed {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let heard = match &rollouts {
            Err(why) => Heard::Away(why),
            Ok(rollouts) => {
                rollouts.get(&format!("{namespace}/{name}")).map_or(Heard::Nothing, Heard::Rollout)
            }
        };
        let whole = serde_json::to_value(&object).map_err(|e| e.to_string())?;
        let new = status(&whole, heard, UnixTime(now()));
        if whole["status"] == new {
            continue;
        }
        object.data["status"] = new;
        let written =
            objects(client, Some(&namespace)).replace_status(&name, &PostParams::default(), &object).await;
        match written {
            Ok(_) => log::info!("{namespace}/{name}: {}", object.data["status"]["conditions"][0]["message"]),
            // Somebody has written to it since it was listed, or removed it: the next turn sees.
            Err(kube::Error::Api(why)) if [404, 409].contains(&why.code) => {}
            Err(why) => log::warn!("{namespace}/{name}: its status cannot be written: {why}"),
        }
    }
    rollouts.map(|_| version).map_err(|why| format!("the fleet server: {why}"))
}

async fn list(api: &Api<DynamicObject>) -> std::result::Result<(Vec<DynamicObject>, String), String> {
    let (mut listed, mut asked) = (Vec::new(), ListParams::default().limit(PAGE));
    loop {
        let page = api.list(&asked).await;
        let page = page.map_err(|e| format!("PatchPolicies cannot be listed: {e}"))?;
        listed.extend(page.items);
        let version = page.metadata.resource_version.unwrap_or_default();
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => asked = asked.continue_token(&token),
            None => return Ok((listed, version)),
        }
    }
}

/// Waits until an object has changed since that version, or it is time in any case.
async fn changed(bridge: &Bridge, client: &Client, version: &str) {
    let seen = async {
        let api = objects(client, bridge.namespace.as_deref());
        // A watch that cannot be had, or breaks, is no reason to turn more often.
        let Ok(stream) = api.watch(&WatchParams::default(), version).await else {
            return std::future::pending().await;
        };
        let mut stream = std::pin::pin!(stream);
        while let Some(event) = stream.next().await {
            if matches!(event, Ok(WatchEvent::Added(_) | WatchEvent::Modified(_) | WatchEvent::Deleted(_))) {
                return;
            }
        }
        std::future::pending().await
    };
    let _ = tokio::time::timeout(bridge.every, seen).await;
}

fn token(bridge: &Bridge) -> Result<String> {
    let wrong = |why: String| Error::new(Kind::Config, format!("the token of a viewer: {why}"));
    let bytes = host::file::read_limited(&bridge.token_file, MAX_TOKEN).map_err(|e| wrong(e.to_string()))?;
    let bytes = bytes.ok_or_else(|| wrong(format!("{} is not there", bridge.token_file.display())))?;
    let text = String::from_utf8(bytes).map_err(|e| wrong(e.to_string()))?;
    Ok(text.trim().to_owned())
}

/// What the fleet server says of every policy, by `NAMESPACE/NAME`. The token is read each time: it may be a new one.
fn rollouts(bridge: &Bridge) -> std::result::Result<BTreeMap<String, Value>, String> {
    let agent = repository::client(&bridge.server, &bridge.ca_file)?;
    let token = token(bridge).map_err(|e| e.to_string())?;
    let url = format!("{}/api/v1/rollouts", bridge.server.trim_end_matches('/'));
    let answer = agent.get(&url).header("Authorization", format!("Bearer {token}")).call();
    let mut answer = answer.map_err(|e| format!("{url}: {e}"))?;
    if answer.status() != 200 {
        return Err(format!("{url}: it answered {}", answer.status()));
    }
    let body = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_vec();
    let body = body.map_err(|e| format!("{url}: {e}"))?;
    let mut list: Value = serde_json::from_slice(&body).map_err(|e| format!("{url}: {e}"))?;
    let items = list["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
    let id = |item: &Value| Some(format!("{}/{}", item["namespace"].as_str()?, item["name"].as_str()?));
    Ok(items.into_iter().filter_map(|item| Some((id(&item)?, item))).collect())
}
