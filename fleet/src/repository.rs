//! The published repository as this server reads it: plans and policies to show, advisories to answer with, expiry to warn of.
//!
//! It is read as a node reads it (`format::trust`), from a folder or over HTTP, so that nobody in between makes this server
//! halt a rollout or show another. Nothing is kept on disk; of a bundle's index only what it carries, in the database.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use format::digest::Sha256;
use format::index::{Index, IndexCustom, MAX_INDEX};
use format::json::Json;
use format::metadata::RoleKeys;
use format::name::{BundleVersion, TargetPath, Variant};
use format::policy::{MAX_POLICY, PatchPolicy};
use format::rollout::{MAX_PLAN, RolloutPlan};
use format::time::UnixTime;
use format::trust::{MAX_ROOT_ROTATIONS, TrustedMetadataSet};
use serde_json::{Value, json};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::config::RepositorySettings;
use crate::rollout::Rollout;
use crate::store::rollouts::Bundle;

/// How long a mirror may take for one file.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A role as it is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// When it expires.
    pub expires: i64,
    /// How many keys must sign.
    pub threshold: u64,
    /// Ids of its keys.
    pub keys: Vec<String>,
}

/// What is published.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// When it was read; none: never.
    pub read_at: Option<i64>,
    /// Why it could not be.
    pub problem: Option<String>,
    /// When the first of its files expires.
    pub expires: Option<i64>,
    /// When it was signed.
    pub issued: Option<i64>,
    /// Its roles.
    pub roles: Vec<Role>,
    /// Its bundles; without what they carry, but for those that are new.
    pub bundles: Vec<Bundle>,
    /// Its policies.
    pub policies: Vec<PatchPolicy>,
    /// Plans by policy.
    pub plans: BTreeMap<String, RolloutPlan>,
    /// How far each policy's bundle had come when it was counted last.
    pub rollouts: Arc<Vec<Rollout>>,
}

impl Published {
    /// The policies whose rollout is stuck.
    pub fn stuck(&self) -> Vec<String> {
        self.rollouts.iter().filter(|it| it.stuck.is_some()).map(Rollout::policy).collect()
    }

    /// For the API.
    pub fn answer(&self) -> Value {
        let time = |seconds: i64| UnixTime(seconds).to_string();
        json!({
            "readAt": self.read_at.map(time),
            "problem": self.problem,
            "expires": self.expires.map(time),
            "issued": self.issued.map(time),
            "roles": self.roles.iter().map(|role| json!({
                "role": role.name,
                "version": role.version,
                "expires": time(role.expires),
                "threshold": role.threshold,
                "keys": role.keys,
            })).collect::<Vec<_>>(),
            "bundles": self.bundles.iter().map(|it| json!({
                "variant": it.variant,
                "version": it.version,
                "cycle": it.cycle,
                "serial": it.serial,
                "index": it.id,
            })).collect::<Vec<_>>(),
        })
    }
}

/// Where files are read.
enum Source {
    Folder(std::path::PathBuf),
    Http { agent: ureq::Agent, base: String },
}

impl Source {
    fn open(settings: &RepositorySettings) -> Result<Source, String> {
        if settings.location.starts_with('/') {
            return Ok(Source::Folder(settings.location.clone().into()));
        }
        Ok(Source::Http {
            agent: client(&settings.location, &settings.ca_file)?,
            base: settings.location.clone(),
        })
    }

    /// A file, if there is one.
    fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, String> {
        match self {
            Source::Folder(folder) => {
                host::file::read_limited(&folder.join(path), limit).map_err(|e| e.to_string())
            }
            Source::Http { agent, base } => {
                let url = format!("{base}{path}");
                let mut response = agent.get(&url).call().map_err(|e| format!("{url}: {e}"))?;
                match response.status().as_u16() {
                    200 => {}
                    // Object stores say 403 of what is not there.
                    403 | 404 | 410 => return Ok(None),
                    other => return Err(format!("{url}: it answered {other}")),
                }
                let read = response.body_mut().with_config().limit(limit).read_to_vec();
                read.map(Some).map_err(|e| format!("{url}: {e}"))
            }
        }
    }

    fn need(&self, path: &str, limit: u64) -> Result<Vec<u8>, String> {
        self.read(path, limit)?.ok_or_else(|| format!("there is no {path}"))
    }
}

/// Who asks the server at `url`: an http or https URL, for which the certificates of a file are believed.
///
/// # Errors
/// If that file is needed and there is none.
pub fn client(url: &str, ca_file: &Path) -> Result<ureq::Agent, String> {
    let mut config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(TIMEOUT))
        .user_agent(concat!("prestage-fleet/", env!("CARGO_PKG_VERSION")));
    if url.starts_with("https:") {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(provider)
            .root_certs(RootCerts::new_with_certs(&certificates(ca_file)?))
            .build();
        config = config.tls_config(tls);
    }
    Ok(ureq::Agent::new_with_config(config.build()))
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, String> {
    let bytes = host::file::read_limited(path, MAX_INDEX).map_err(|e| e.to_string())?;
    let bytes = bytes.ok_or_else(|| format!("{}: there is no such file", path.display()))?;
    let items = parse_pem(&bytes).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    let found: Vec<_> = items.collect();
    if found.is_empty() {
        return Err(format!("{}: there is no certificate in it", path.display()));
    }
    Ok(found)
}

/// Reads the repository. `known` are digests of indexes whose content is remembered. Blocks. What cannot be read is told in
/// the answer, beside what could.
pub fn read(settings: &RepositorySettings, known: &[String], now: i64) -> Published {
    let mut published = Published { read_at: Some(now), ..Published::default() };
    if let Err(why) = read_into(&mut published, settings, known, UnixTime(now)) {
        published.problem = Some(why);
    }
    published
}

fn read_into(
    published: &mut Published,
    settings: &RepositorySettings,
    known: &[String],
    now: UnixTime,
) -> Result<(), String> {
    let source = Source::open(settings)?;
    let root =
        host::file::read_limited(&settings.root, format::trust::MAX_ROOT).map_err(|e| e.to_string())?;
    let root = root.ok_or_else(|| format!("[repository] root: there is no {}", settings.root.display()))?;
    let mut set = TrustedMetadataSet::new(&root, now).map_err(|e| e.to_string())?;
    for _ in 0..MAX_ROOT_ROTATIONS {
        let wanted = set.wanted_root();
        match source.read(&format!("metadata/{}", wanted.file), wanted.limit)? {
            Some(bytes) => set.update_root(&bytes).map_err(|e| e.to_string())?,
            None => break,
        }
    }
    published.roles.push(role(
        "root",
        set.root().header.version,
        set.root().header.expires,
        &set.root().root,
    ));
    published.expires = Some(set.root().header.expires.0);
    set.finish_root().map_err(|e| e.to_string())?;

    let timestamp = source.need("metadata/timestamp.json", set.wanted_timestamp().limit)?;
    let (version, expires) = header(&timestamp)?;
    // Said before it is judged, for one that has expired is what there is to warn of.
    published.expires = published.expires.map(|earlier| earlier.min(expires.0));
    published.roles.push(role("timestamp", version, expires, &set.root().timestamp));
    set.update_timestamp(&timestamp).map_err(|e| e.to_string())?;
    published.issued = set.issued().map(|time| time.0);

    let wanted = set.wanted_snapshot().map_err(|e| e.to_string())?;
    let snapshot = source.need(&format!("metadata/{}", wanted.file), wanted.limit)?;
    let (version, expires) = header(&snapshot)?;
    published.roles.push(role("snapshot", version, expires, &set.root().snapshot));
    set.update_snapshot(&snapshot).map_err(|e| e.to_string())?;

    let keys = set.root().targets.clone();
    load(&source, &mut set, published, "targets", "root", &keys)?;
    let delegations = set.targets("targets").map(|targets| targets.delegations.clone()).unwrap_or_default();
    for delegation in &delegations {
        load(&source, &mut set, published, &delegation.role, "targets", &delegation.keys)?;
    }
    for delegation in &delegations {
        targets(&source, &set, published, &delegation.role, known)?;
    }
    published.expires = Some(set.expires().0);
    Ok(())
}

fn load(
    source: &Source,
    set: &mut TrustedMetadataSet,
    published: &mut Published,
    name: &str,
    delegator: &str,
    keys: &RoleKeys,
) -> Result<(), String> {
    let wanted = set.wanted_targets(name).map_err(|e| e.to_string())?;
    let bytes = source.need(&format!("metadata/{}", wanted.file), wanted.limit)?;
    let (version, expires) = header(&bytes)?;
    published.roles.push(role(name, version, expires, keys));
    set.update_targets(name, delegator, &bytes).map_err(|e| e.to_string())
}

/// Policies, plans and bundles of a role. One that is damaged is passed over, and said.
fn targets(
    source: &Source,
    set: &TrustedMetadataSet,
    published: &mut Published,
    name: &str,
    known: &[String],
) -> Result<(), String> {
    let Some(role) = set.targets(name) else { return Ok(()) };
    for (path, file) in &role.targets {
        let Some(blob) = file.blob() else { continue };
        let Ok(target) = path.parse::<TargetPath>() else { continue };
        let parts: Vec<&str> = path.split('/').collect();
        let stored = set.target_file(&target, blob.sha256);
        let get = |limit: u64| -> Result<Vec<u8>, String> {
            let bytes = source.need(&stored, limit.min(blob.length))?;
            match Sha256::of(&bytes) == blob.sha256 {
                true => Ok(bytes),
                false => Err(format!("{stored} is not what was signed")),
            }
        };
        let done = match parts[..] {
            ["policies", _, _, "policy.json"] => get(MAX_POLICY as u64)
                .and_then(|bytes| PatchPolicy::from_json(&bytes).map_err(|e| format!("{path}: {e}")))
                .map(|policy| published.policies.push(policy)),
            ["policies", _, _, "rollout.json"] => get(MAX_PLAN as u64)
                .and_then(|bytes| RolloutPlan::from_json(&bytes).map_err(|e| format!("{path}: {e}")))
                .map(|plan| drop(published.plans.insert(plan.policy(), plan))),
            ["bundles", variant, version, "index.json"] => {
                let known = known.iter().any(|id| *id == blob.sha256.to_string());
                let carried =
                    if known { Ok("[]".to_owned()) } else { get(MAX_INDEX).and_then(|it| carried(&it)) };
                carried.and_then(|it| bundle(variant, version, blob.sha256, &file.custom, it)).map(|bundle| {
                    published.bundles.push(bundle);
                })
            }
            _ => Ok(()),
        };
        if let Err(why) = done {
            published.problem.get_or_insert(why);
        }
    }
    published.bundles.sort_by_key(|bundle| (bundle.variant.clone(), std::cmp::Reverse(bundle.serial)));
    Ok(())
}

fn bundle(
    variant: &str,
    version: &str,
    id: Sha256,
    custom: &Json<'_>,
    advisories: String,
) -> Result<Bundle, String> {
    let variant: Variant = variant.parse().map_err(|e| format!("{e}"))?;
    let version: BundleVersion = version.parse().map_err(|e| format!("{e}"))?;
    let custom: IndexCustom = serde_json::from_slice(&custom.to_text()).map_err(|e| e.to_string())?;
    Ok(Bundle {
        id: id.to_string(),
        variant: variant.to_string(),
        version: version.to_string(),
        cycle: custom.cycle.to_string(),
        serial: i64::try_from(custom.serial).unwrap_or(i64::MAX),
        advisories,
    })
}

/// What an index says it repairs, with the names of the packages of each source.
fn carried(bytes: &[u8]) -> Result<String, String> {
    let index = Index::parse(bytes).map_err(|e| e.to_string())?;
    let mut packages: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in index.packages().filter_map(|member| member.package.as_ref()) {
        packages.entry(&package.source).or_default().push(&package.name);
    }
    let all = index.advisories.iter().flat_map(|(source, advisories)| {
        let of = packages.get(source.as_str()).cloned().unwrap_or_default();
        advisories
            .iter()
            .map(move |it| json!({"id": it.id, "severity": it.severity, "source": source, "packages": of}))
    });
    serde_json::to_string(&all.collect::<Vec<_>>()).map_err(|e| e.to_string())
}

fn role(name: &str, version: u64, expires: UnixTime, keys: &RoleKeys) -> Role {
    Role {
        name: name.to_owned(),
        version,
        expires: expires.0,
        threshold: keys.threshold,
        keys: keys.keys.iter().map(|(id, _)| id.0.clone()).collect(),
    }
}

/// Version and expiry of a metadata file, which is verified by others.
fn header(bytes: &[u8]) -> Result<(u64, UnixTime), String> {
    let tree = Json::parse(bytes).map_err(|e| e.to_string())?;
    let signed = tree.member("signed").ok_or("no signed part")?;
    let version = match signed.member("version") {
        Some(Json::Integer(n)) => u64::try_from(*n).map_err(|e| e.to_string())?,
        _ => return Err("no version".into()),
    };
    match signed.member("expires") {
        Some(Json::String(text)) => Ok((version, text.parse()?)),
        _ => Err("no expiry".into()),
    }
}
