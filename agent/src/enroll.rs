//! `prestage enroll`: which repository this node belongs to, and where trust begins.
//!
//! The root that a repository publishes is believed because its digest came over another way: with the image, the
//! kickstart file, a person. From it the chain of roots leads to today's (TUF 1.0.34, 5.3), so the digest of the first one
//! stays right however often keys are rotated.

use std::fmt;
use std::path::Path;

use format::digest::{Sha256, hex};
use format::trust::{MAX_ROOT, TrustedMetadataSet};
use host::file;

use crate::cli::{Enrol, Options};
use crate::config::{self, TOKEN_FILE};
use crate::error::{Error, Exit, Result};
use crate::fetch::read_all;
use crate::node::Node;
use crate::{fleet, key};

/// The first root, relative to the repository.
const FIRST_ROOT: &str = "metadata/1.root.json";

/// What an enrolment writes beside the root: a drop-in, so that agent.toml stays the administrator's.
const DROP_IN: &str = "etc/prestage/agent.d/50-enrolled.toml";

/// What an enrolment at a fleet server writes.
const FLEET_DROP_IN: &str = "etc/prestage/agent.d/51-fleet.toml";

/// Enrols the node; what to say about it.
///
/// # Errors
/// Usage, if something is missing; trust, if the repository's root is another one, or this node trusts another already;
/// unavailable, if the repository cannot be read. Nothing has been written then. If the fleet server does not enrol the
/// node, the rest has been done.
pub fn enroll(options: &Options, enrol: &Enrol) -> Result<String> {
    let usage = |what| Error::new(Exit::Usage, what, "`prestage enroll --help` shows all of it");
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::new(Exit::Io, "an enrolment needs root", "run it as root"));
    }
    if enrol.key_only {
        return show_key(options);
    }
    if enrol.token_file.is_some() && enrol.fleet.is_none() {
        return Err(usage("--token-file belongs to --fleet"));
    }
    let mut said = String::new();
    match (enrol.repository.as_deref(), enrol.fingerprint) {
        (Some(repository), Some(expected)) => said.push_str(&pin(options, enrol, repository, expected)?),
        (None, None) if enrol.fleet.is_some() => {}
        (None, _) => return Err(usage("--repository is missing")),
        (_, None) => return Err(usage("--root-fingerprint is missing")),
    }
    if let Some(url) = &enrol.fleet {
        said.push_str(&join_fleet(options, enrol, url)?);
    }
    Ok(said)
}

/// Pins the repository's first root.
fn pin(options: &Options, enrol: &Enrol, repository: &str, expected: Sha256) -> Result<String> {
    // As the node will be, with its proxy, its certificates, its secrets.
    let mut node = Node::unidentified(options)?;
    let text = drop_in(repository, enrol);
    let with_fleet = format!("{text}{}", enrol.fleet.as_deref().map(fleet_drop_in).unwrap_or_default());
    node.settings = config::load_with(&node.root, options.config.as_deref(), &with_fleet)?;
    let token = token_of(enrol)?;
    let root = first_root(&node, expected)?;
    let path = node.initial_root();
    if file::read_limited(&path, MAX_ROOT)?.is_some_and(|pinned| pinned != root) {
        let what = format!("{} is another root already", path.display());
        return Err(Error::new(
            Exit::Trust,
            what,
            "if this node is to change its fleet, remove that file and /var/lib/prestage, and enrol again",
        ));
    }
    file::make_folder(&node.root.join("etc/prestage/agent.d"), 0o755)?;
    key::of(&node)?;
    if let Some(token) = token {
        key::keep(&node, &key::below(&node.root, Path::new(TOKEN_FILE)), token.as_bytes())?;
    }
    // The root last: until it is there, the timers do nothing.
    file::replace(&node.root.join(DROP_IN), text.as_bytes(), 0o644)?;
    file::replace(&path, &root, 0o644)?;
    let enrolled = Node::load(options)?;
    Ok(format!(
        "this is node {} of {repository}; trust begins with sha256:{expected}\n\
         next: `prestage doctor`; the timers do the rest (where they are not on: systemctl enable --now \
         prestage-fetch.timer prestage-install.timer prestage-report.timer)\n",
        enrolled.id
    ))
}

/// Has the node's key enrolled by a fleet server.
fn join_fleet(options: &Options, enrol: &Enrol, url: &str) -> Result<String> {
    let text = fleet_drop_in(url);
    let mut node = Node::load(options)?;
    node.settings = config::load_with(&node.root, options.config.as_deref(), &text)?;
    let own = key::below(&node.root, Path::new(TOKEN_FILE));
    if let Some(token) = token_of(enrol)? {
        key::keep(&node, &own, token.as_bytes())?;
    }
    file::make_folder(&node.root.join("etc/prestage/agent.d"), 0o755)?;
    file::replace(&node.root.join(FLEET_DROP_IN), text.as_bytes(), 0o644)?;
    let Some(fleet) = &node.settings.fleet else { return Ok(String::new()) };
    fleet::enroll(&node, fleet)?;
    // It has been used.
    file::remove(&own)?;
    Ok(format!(
        "the fleet server {} knows this node by its key {}\n",
        fleet.url,
        key::of(&node)?.public().id()
    ))
}

/// `--key-only`: what an operator registers, for a node that then needs no token.
fn show_key(options: &Options) -> Result<String> {
    let node = Node::load(options)?;
    let public = key::of(&node)?.public();
    Ok(format!("node        {}\npublic key  {}\nkey id      {}\n", node.id, hex(&public.0), public.id()))
}

/// What is in the file with the token, as it will be kept; a file that cannot be used is an error before anything is done.
fn token_of(enrol: &Enrol) -> Result<Option<String>> {
    let Some(path) = &enrol.token_file else { return Ok(None) };
    let missing = || Error::file(path, &std::io::ErrorKind::NotFound.into());
    Ok(Some(format!("{}\n", key::token(path)?.ok_or_else(missing)?.as_str())))
}

/// JSON's strings are TOML's basic strings.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

fn fleet_drop_in(url: &str) -> String {
    format!("# Written by `prestage enroll`.\n[fleet]\nurl = {}\n", quoted(url))
}

/// What is kept of the command line.
fn drop_in(repository: &str, enrol: &Enrol) -> String {
    let mut text = "# Written by `prestage enroll`.\n".to_owned();
    if enrol.id.is_some() || !enrol.labels.is_empty() {
        text.push_str("[node]\n");
    }
    if let Some(id) = &enrol.id {
        text.push_str(&format!("id = {}\n", quoted(id.as_str())));
    }
    if !enrol.labels.is_empty() {
        let pairs: Vec<_> =
            enrol.labels.iter().map(|(key, value)| format!("{} = {}", quoted(key), quoted(value))).collect();
        text.push_str(&format!("labels = {{ {} }}\n", pairs.join(", ")));
    }
    text.push_str(&format!("[repository]\nmirrors = [{}]\n", quoted(repository)));
    if let Some(file) = &enrol.ca_file {
        text.push_str(&format!("ca-file = {}\n", quoted(&file.to_string_lossy())));
    }
    text
}

/// The repository's first root, if it is the one that is expected.
fn first_root(node: &Node, expected: Sha256) -> Result<Vec<u8>> {
    let client = node.client()?;
    let mirrors = node.mirrors(&client)?;
    let mirror = mirrors.first().ok_or_else(|| Error::config("[repository] mirrors is empty"))?;
    let unavailable = |why: &dyn fmt::Display| {
        let what = format!("{}: {FIRST_ROOT}: {why}", mirror.name());
        Error::new(Exit::Unavailable, what, "check the address, and that this node may reach it")
    };
    let refused = |why: &dyn fmt::Display| {
        let what = format!("{}: {FIRST_ROOT}: {why}", mirror.name());
        Error::new(
            Exit::Trust,
            what,
            "ask the centre for the address and the fingerprint, over a way that you trust",
        )
    };
    let bytes = read_all(mirror.as_ref(), FIRST_ROOT, MAX_ROOT)
        .map_err(|e| unavailable(&e))?
        .map_err(|limit| refused(&format!("more than {limit} bytes")))?;
    let digest = Sha256::of(&bytes);
    if digest != expected {
        return Err(refused(&format!("its fingerprint is sha256:{digest}, not sha256:{expected}")));
    }
    TrustedMetadataSet::new(&bytes, node.now()).map_err(|e| refused(&e))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_was_said_whatever_letters_are_in_it() {
        let odd = "a\"b\\c = [x]\u{7}é";
        let enrol = Enrol {
            labels: [("region".to_owned(), odd.to_owned()), (odd.to_owned(), "1".to_owned())].into(),
            id: "till-1".parse().ok(),
            ca_file: Some("/etc/ssl/a b\".pem".into()),
            ..Enrol::default()
        };
        let root = tempfile::tempdir().unwrap();
        let settings = config::load_with(root.path(), None, &drop_in("https://p.example", &enrol)).unwrap();
        assert_eq!(settings.labels, enrol.labels);
        assert_eq!(settings.id, enrol.id);
        assert_eq!(settings.ca_file, enrol.ca_file);
        assert_eq!(settings.mirrors, [config::Mirror::Http("https://p.example/".into())]);
    }
}
