//! `prestage doctor`: what is configured, what is missing, what the next step is and when, in plain words.
//!
//! It never fails: what it cannot find out is part of what it says.

use std::fmt::Write as _;
use std::path::Path;

use format::policy::Reboot;
use format::rollout::PlanState;
use format::status::RolloutStatus;

use crate::cli::Options;
use crate::config::{Metered, Mirror};
use crate::error::one_line;
use crate::node::Node;
use crate::restore::{self, Boot, Mounts};
use crate::{pace, reboot, recover, status};
use host::schedule::{self, Gate};

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
    match node.settings.mirrors.is_empty() {
        true if node.is_configured() => say.note(
            "no mirror: this node fetches nothing, and takes what comes on a stick or is pushed (`prestage import`); where it \
             has a line, set [repository] mirrors = [\"https://…/\"] in /etc/prestage/agent.toml",
        ),
        true => {
            say.missing("no mirror: set [repository] mirrors = [\"https://…/\"] in /etc/prestage/agent.toml")
        }
        false => {}
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
            "{}: enrol this node (`prestage enroll --help`), or copy the repository's metadata/1.root.json there, over a way that you trust",
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
    let health = &node.settings.health;
    match &health.url {
        Some(url) => say.ok(format!("after an install {url} must answer within {} s", health.timeout.as_secs())),
        None => say.note(
            "no [health] url: after an install only packages, the hooks in /etc/prestage/hooks.d/health and the units of \
             systemd are checked",
        ),
    }
    for (key, url) in [("[health] url", &health.url), ("[reboot] lock-url", &node.settings.reboot.lock_url)] {
        if url.as_ref().is_some_and(|url| is_elsewhere(url)) {
            say.note(format!(
                "{key} is on another machine, and the install's unit reaches this one alone: allow that address in a \
                 drop-in (packaging/examples/systemd/other-machine.conf; docs/usage/systemd.md)"
            ));
        }
    }
    way_back(node, say);
    match (&node.settings.fleet, &node.settings.report_url) {
        (Some(fleet), _) => telling(node, &fleet.url, say),
        (None, Some(url)) => say.ok(format!("reports go to {url}")),
        (None, None) => say.note("no [fleet] url: outcomes stay in the status file and the queue"),
    }
    for folder in ["var/lib/prestage", "var/lib"] {
        let folder = node.root.join(folder);
        if let Ok(free) = host::file::free_space(&folder) {
            say.ok(format!("{} MiB are free in {}", free / 1024 / 1024, folder.display()));
            break;
        }
    }
}

/// Whether a URL is of another machine.
fn is_elsewhere(url: &str) -> bool {
    let host = url.split_once("://").map_or("", |(_, rest)| rest);
    !["localhost", "127.", "[::1]"].iter().any(|own| host.starts_with(own))
}

/// How it stands with the fleet server.
fn telling(node: &Node, url: &str, say: &mut Says) {
    if !node.root.join(crate::key::FILE).exists() {
        say.missing("this node has no key to sign its reports with; `prestage enroll --key-only` makes one");
    }
    let standing = crate::fleet::standing(node).unwrap_or_default();
    match (standing.problem, standing.accepted_at) {
        (Some(problem), _) => say.missing(format!("reports go to {problem}")),
        (None, Some(at)) => say.ok(format!("reports go to {url}, which took the last one at {at}")),
        (None, None) => say.ok(format!("reports go to {url}, which has had none yet")),
    }
}

/// How this node would go back, and what would go back with it.
fn way_back(node: &Node, say: &mut Says) {
    let found = restore::find(node);
    let mut is_taken = false;
    for verdict in &found.verdicts {
        match &verdict.finding {
            Ok(what) if !is_taken => {
                is_taken = true;
                say.ok(format!("restore points are made by {}: {what}", verdict.kind));
            }
            Ok(what) => say.note(format!("{} would do as well: {what}", verdict.kind)),
            Err(why) => say.note(format!("no restore points by {}: {why}", verdict.kind)),
        }
    }
    if !is_taken {
        say.note(
            "no restore points: what an install breaks, packages alone can undo, which is the weaker way",
        );
    }
    if let Err(error) = found.check(node, 0) {
        say.missing(error);
    }
    let places = Boot::of(node);
    if is_taken && !places.places().is_empty() {
        let list: Vec<String> = places.places().iter().map(|place| format!("/{place}")).collect();
        say.ok(format!(
            "{} is copied with each restore point, for it is not on the root's volume",
            list.join(" and ")
        ));
    }
    let mounts = Mounts::read(&node.root);
    let of_root = mounts.root().map(|mount| mount.device.clone());
    for path in &node.settings.restore.data {
        let on_root = mounts.holding(&path.display().to_string()).map(|m| m.device.clone()) == of_root;
        match found.points.kind() {
            "timeshift" => say.ok(format!("{} does not go back: timeshift leaves it alone", path.display())),
            "none" => {}
            kind if on_root => say.missing(format!(
                "{} is on the root's volume, and a rollback by {kind} would take its data back too: give it a file system \
                 of its own",
                path.display()
            )),
            _ => say.ok(format!("{} does not go back: it is on a file system of its own", path.display())),
        }
    }
    if is_taken && node.settings.restore.data.is_empty() {
        say.note("what applications write on the root's volume goes back with it: [restore] data names what must not");
    }
    match reboot::policy(node, None) {
        Reboot::Never => say.note("this node is never booted by itself: [reboot] policy"),
        policy => say.ok(format!("it is booted by itself in the maintenance window: {}", policy.as_str())),
    }
    if let Some(last) = recover::last(node) {
        let way = match &last.restore_point {
            Some(point) => match found.points.is_there(point) {
                Ok(true) => format!("by the restore point {} ({})", point.id, point.kind),
                _ => format!("but its restore point {} is gone", point.id),
            },
            None => "by packages alone".to_owned(),
        };
        say.ok(format!("`prestage rollback` goes back to before bundle {}, {way}", last.bundle.version));
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
        if let Some(deltas) = &plan.deltas {
            say.ok(format!(
                "{} packages were made of deltas, which saved {} bytes",
                deltas.packages, deltas.bytes_saved
            ));
            for entry in &deltas.not_used {
                say.note(format!("{} came whole: {}", entry.package, entry.why));
            }
        }
    }
    if let Some(rollout) = &status.rollout {
        let clock = if rollout.local_time { " on this node's clock" } else { "" };
        let which = format!("the rollout of bundle {}", rollout.bundle);
        match &rollout.stopped_by {
            Some(by) => say.note(format!(
                "{which} is {} by {by}: {}",
                rollout.state,
                rollout.reason.as_deref().unwrap_or("no reason was given")
            )),
            None => say.note(format!(
                "{which} is {}; this node's place in it: {}, from {}{clock}",
                rollout.state, rollout.batch, rollout.not_before
            )),
        }
    }
    for q in &status.quarantine {
        say.missing(format!("bundle {} is refused: {}; {}", q.bundle.version, q.reason, q.way_out));
    }
    if journal_exists(node) {
        say.next("an install was interrupted: the next `prestage install` goes on with it");
    } else if !node.is_configured() {
        say.next("configure what is MISSING above (`prestage enroll` does both), then run `prestage fetch`");
    } else if status
        .plan
        .as_ref()
        .is_some_and(|plan| status.quarantine.iter().any(|q| q.bundle.index == plan.bundle.index))
    {
        say.next("nothing is installed while that bundle is refused");
    } else if status.plan.as_ref().is_some_and(|plan| plan.complete)
        && let Some(why) = rollout_holds(node, status.rollout.as_ref())
    {
        say.next(why);
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

/// Why the install does not begin by the rollout, as the last step found it.
fn rollout_holds(node: &Node, rollout: Option<&RolloutStatus>) -> Option<String> {
    let rollout = rollout?;
    if rollout.state != PlanState::Running.as_str() {
        return Some(format!(
            "the staged bundle waits until its rollout, which is {}, goes on",
            rollout.state
        ));
    }
    let now = match rollout.local_time {
        true => schedule::on_the_wall(node.now(), &node.zone()),
        false => node.now(),
    };
    (now < rollout.not_before).then(|| {
        format!(
            "the staged bundle waits for this node's batch ({}), from {}",
            rollout.batch, rollout.not_before
        )
    })
}

fn journal_exists(node: &Node) -> bool {
    Path::new(&node.private("journal.json")).exists()
}
