//! `prestage enroll`: which repository this node belongs to, and where trust begins.
//!
//! The root that a repository publishes is believed because its digest came over another way: with the image, the
//! kickstart file, a person. From it the chain of roots leads to today's (TUF 1.0.34, 5.3), so the digest of the first one
//! stays right however often keys are rotated.

use std::fmt;

use format::digest::Sha256;
use format::trust::{MAX_ROOT, TrustedMetadataSet};
use host::file;

use crate::cli::{Enrol, Options};
use crate::config;
use crate::error::{Error, Exit, Result};
use crate::fetch::read_all;
use crate::node::Node;

/// The first root, relative to the repository.
const FIRST_ROOT: &str = "metadata/1.root.json";

/// What an enrolment writes beside the root: a drop-in, so that agent.toml stays the administrator's.
const DROP_IN: &str = "etc/prestage/agent.d/50-enrolled.toml";

/// Enrols the node; what to say about it.
///
/// # Errors
/// Usage, if something is missing; trust, if the repository's root is another one, or this node trusts another already;
/// unavailable, if the repository cannot be read. Nothing has been written then.
pub fn enroll(options: &Options, enrol: &Enrol) -> Result<String> {
    let usage = |what| Error::new(Exit::Usage, what, "`prestage enroll --help` shows all of it");
    let repository = enrol.repository.as_deref().ok_or_else(|| usage("--repository is missing"))?;
    let expected = enrol.fingerprint.ok_or_else(|| usage("--root-fingerprint is missing"))?;
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::new(Exit::Io, "an enrolment needs root", "run it as root"));
    }
    // As the node will be, with its proxy, its certificates, its secrets.
    let mut node = Node::unidentified(options)?;
    let text = drop_in(repository, enrol);
    node.settings = config::load_with(&node.root, options.config.as_deref(), &text)?;
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

/// What is kept of the command line. JSON's strings are TOML's basic strings.
fn drop_in(repository: &str, enrol: &Enrol) -> String {
    let quoted = |text: &str| serde_json::to_string(text).unwrap_or_default();
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
