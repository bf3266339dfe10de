//! `prestage doctor`: what is configured, what is missing, what the next step is and when, in plain words.
//!
//! It never fails: what it cannot find out is part of what it says.

use std::fmt::Write as _;
use std::path::Path;

use crate::cli::Options;
use crate::config::{Metered, Mirror};
use crate::error::one_line;
use crate::node::Node;
use crate::pace;
use crate::schedule::{self, Gate};
use crate::status;

/// The explanation.
pub fn explain(options: &Options) -> String {
    let mut say = Says(String::new());
    let node = match Node::load(options) {
        Ok(node) => {
            identity(&node, &mut say);
            Ok(node)
        }
        // One thing that is missing hides no other.
        Err(error) => {
            say.missing(error);
            Node::unidentified(options)
        }
    };
    if let Ok(node) = node {
        repository(&node, &mut say);
        installing(&node, &mut say);
        next(&node, &mut say);
    }
    say.0
}

/// The text as it grows. Writing to a String cannot fail.
struct Says(String);

impl Says {
    fn ok(&mut self, what: impl std::fmt::Display) {
        self.line("ok", &what);
    }
    fn missing(&mut self, what: impl std::fmt::Display) {
        self.line("MISSING", &what);
    }
    fn note(&mut self, what: impl std::fmt::Display) {
        self.line("note", &what);
    }
    fn next(&mut self, what: impl std::fmt::Display) {
        self.line("next", &what);
    }
    /// What stands in the status was written by the fetch user, and is shown to root.
    fn line(&mut self, kind: &str, what: &dyn std::fmt::Display) {
        let _ = writeln!(self.0, "{kind:<8} {}", one_line(&what.to_string()));
    }
}

fn identity(node: &Node, say: &mut Says) {
    say.ok(format!("this is node {}, variant {}", node.id, node.variant));
    match node.package_manager() {
        Ok(packages) => say.ok(format!("the package manager is {}", packages.words().name)),
        Err(error) => say.missing(error),
    }
}

fn repository(node: &Node, say: &mut Says) {
    if node.settings.mirrors.is_empty() {
        say.missing("no mirror: set [repository] mirrors = [\"https://…/\"] in /etc/prestage/agent.toml");
    }
    for mirror in &node.settings.mirrors {
        match mirror {
            Mirror::Http(url) => say.ok(format!("mirror {url}")),
            Mirror::Folder(path) if path.is_dir() => say.ok(format!("mirror {}", path.display())),
            Mirror::Folder(path) => {
                say.missing(format!("mirror {}: there is no such folder", path.display()))
            }
        }
    }
    let root = node.initial_root();
    match host::file::read_limited(&root, format::trust::MAX_ROOT) {
        Ok(Some(bytes)) => match format::trust::TrustedMetadataSet::new(&bytes, node.now()) {
            Ok(set) => say.ok(format!(
                "trust begins with root version {} ({})",
                set.root().header.version,
                root.display()
            )),
            Err(error) => say.missing(format!(
                "{}: {error}; copy the repository's metadata/1.root.json there again",
                root.display()
            )),
        },
        Ok(None) => say.missing(format!(
            "{}: copy the repository's metadata/1.root.json there, over a way that you trust",
            root.display()
        )),
        Err(error) => say.missing(error),
    }
    match node.settings.rate {
        Some(rate) => say.ok(format!("fetches at most {rate} bytes a second")),
        None if node.settings.fetch.rates.is_empty() => {
            say.note("fetches without a limit: set [fetch] rate = \"2Mbit/s\" to protect the site's link")
        }
        None => {}
    }
    for (window, rate) in &node.settings.fetch.rates {
        match rate {
            Some(rate) => say.ok(format!("fetches at most {rate} bytes a second in {window}")),
            None => say.ok(format!("fetches without a limit in {window}")),
        }
    }
    match node.settings.fetch.metered {
        Metered::No => {}
        Metered::Pause => say.note("[fetch] metered = \"pause\": no bundle is fetched over this link"),
        Metered::Slow => say.note(format!(
            "[fetch] metered = \"slow\": fetches {} bytes a second over this link",
            node.settings.fetch.floor
        )),
    }
}

fn installing(node: &Node, say: &mut Says) {
    if node.settings.allow_network {
        say.note("[install] allow-network is on: the package manager is not cut off from the network");
    } else {
        say.ok("the package manager is cut off from the network while it installs");
    }
    match &node.settings.health_url {
        Some(url) => say.ok(format!(
            "after an install {url} must answer within {} s",
            node.settings.health_timeout.as_secs()
        )),
        None => say.note(
            "no [health] url: after an install only the package state and the health hooks are checked",
        ),
    }
    match &node.settings.report_url {
        Some(url) => say.ok(format!("reports go to {url}")),
        None => say.note("no [report] url: outcomes stay in the status file and the queue"),
    }
    for folder in ["var/lib/prestage", "var/lib"] {
        let folder = node.root.join(folder);
        if let Ok(free) = host::file::free_space(&folder) {
            say.ok(format!("{} MiB are free in {}", free / 1024 / 1024, folder.display()));
            break;
        }
    }
}

fn next(node: &Node, say: &mut Says) {
    let status = status::load(node).status;
    if let Some(plan) = &status.plan {
        say.note(format!(
            "bundle {}: {} of {} bytes needed here are fetched",
            plan.bundle.version, plan.bytes_present, plan.bytes_needed
        ));
        for package in &plan.kept_back {
            say.note(format!("kept back: {package}"));
        }
    }
    for q in &status.quarantine {
        say.missing(format!("bundle {} is refused: {}; {}", q.bundle.version, q.reason, q.way_out));
    }
    if journal_exists(node) {
        say.next("an install was interrupted: the next `prestage install` goes on with it");
    } else if !node.is_configured() {
        say.next("configure what is MISSING above, then run `prestage fetch`");
    } else if status
        .plan
        .as_ref()
        .is_some_and(|plan| status.quarantine.iter().any(|q| q.bundle.index == plan.bundle.index))
    {
        say.next("nothing is installed while that bundle is refused");
    } else if status.plan.is_some_and(|plan| plan.complete) {
        match schedule::gate(node.settings.windows.as_deref(), &node.zone(), node.now()) {
            Gate::Open { .. } => say.next("the staged bundle is installed by the next `prestage install`: the maintenance window is open"),
            Gate::Closed { until } => say.next(format!("the staged bundle is installed when the maintenance window opens, at {until}")),
        }
    } else {
        say.next("`prestage fetch`, by its timer or by hand, looks for a bundle");
    }
    if let Some(next) = pace::next_fetch(node) {
        say.next(format!(
            "the next fetch is at {}: {}; `prestage fetch --now` does not wait",
            next.at, next.why
        ));
    }
}

fn journal_exists(node: &Node) -> bool {
    Path::new(&node.private("journal.json")).exists()
}
