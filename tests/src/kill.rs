//! kill -9 at random moments of a node's night, from the fetch to the way back, hundreds of times; and where each fell and
//! how that night ended.
//!
//! A night is one node, of the real apt or the real dnf, on btrfs, with a bundle that does it good or one that makes it ill.
//! The agent is called as its timers call it, and killed again and again, with all that it has started or alone. Then it is
//! left in peace. The night must end with the node patched, or as it was; no status may say what is not so, at any moment;
//! and the centre must hear of the end, once.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use format::report::{Outcome, Step};
use format::status::State;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::backend::{Backend, Package, World};
use crate::node::Node;
use crate::random::Random;
use crate::sandbox::{Output, Running, run};

/// Kills in one night, at most.
const KILLS_OF_A_NIGHT: u64 = 8;

/// Calls until a night that is left in peace must have ended.
const CALLS: usize = 12;

/// What is in the package databases.
const NAMES: [&str; 3] = ["till-app", "till-data", "till-lib"];

/// Where kills fell, and what came of their nights.
#[derive(Default)]
struct Tally {
    with_children: u64,
    alone: u64,
    patched: u64,
    as_before: u64,
}

/// Everything that was seen.
#[derive(Default)]
struct Table {
    places: BTreeMap<String, Tally>,
    faults: Vec<String>,
    kills: u64,
    nights: u64,
}

/// Runs until so many kills have fallen, and prints the table. Fails if one promise did not hold.
pub fn print(kills: &str, only: &[&str]) -> ExitCode {
    let Ok(wanted) = kills.parse::<u64>() else {
        eprintln!("prestage-lab: {kills:?} is no number of kills");
        return ExitCode::from(64);
    };
    let mut random = Random::from_environment("kill");
    let mut table = Table::default();
    let backends: Vec<Backend> =
        Backend::ALL.into_iter().filter(|b| only.is_empty() || only.contains(&b.name())).collect();
    let labs: Vec<Lab> = backends.into_iter().map(Lab::new).collect();
    while table.kills < wanted {
        for lab in &labs {
            for is_bad in [false, true] {
                lab.night(is_bad, &mut random, &mut table);
            }
        }
        eprintln!("{} kills in {} nights, {} faults", table.kills, table.nights, table.faults.len());
    }
    println!("| killed in | with all it started | the agent alone | nights that ended patched | as before |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    for (place, t) in &table.places {
        println!("| {place} | {} | {} | {} | {} |", t.with_children, t.alone, t.patched, t.as_before);
    }
    println!(
        "\n{} kills in {} nights; false statuses, lost reports and nodes in between: {}",
        table.kills,
        table.nights,
        table.faults.len()
    );
    for fault in &table.faults {
        println!("- {fault}");
    }
    ExitCode::from(u8::from(!table.faults.is_empty()))
}

/// A world of one package manager, and a node that is made anew for each night.
struct Lab {
    world: World,
    node: Node,
    /// How long an undisturbed call takes.
    call: Duration,
}

impl Lab {
    fn new(backend: Backend) -> Lab {
        let old = [
            Package::new("till-lib", "1.0").config("/etc/till.conf", "currency = DM\n"),
            Package::new("till-app", "1.0").needs("till-lib", None),
            Package::new("till-data", "1.0").payload(1000),
        ];
        let new = [
            Package::new("till-lib", "2.0").config("/etc/till.conf", "currency = EUR\n").after("sleep 0.1"),
            Package::new("till-app", "2.0").needs("till-lib", Some("2.0")),
            Package::new("till-data", "2.0").payload(3_000_000).before("sleep 0.1"),
        ];
        let world = World::with(backend, &old, &[], &new);
        let report = format!("[report]\nurl = \"{}\"\n", world.receiver.url());
        // Slowly enough that kills fall into the fetch as well.
        let more = format!("{report}[fetch]\nrate = \"6MB/s\"\n[reboot]\npolicy = \"if-needed\"\n");
        world.node.configure(&[&world.mirror.url()], &more);
        let node = Node::like(&world.node, &world.sandbox, "night");
        node.configure(&[&world.mirror.url()], &more);
        node.keep();
        let mut lab = Lab { world, node, call: Duration::ZERO };
        lab.node.reset();
        let began = Instant::now();
        lab.agent("run").expect(0);
        lab.call = began.elapsed();
        eprintln!("{}: an undisturbed night takes {:?}", backend.name(), lab.call);
        lab
    }

    fn agent(&self, verb: &str) -> Output {
        run(&mut self.node.prestage([verb]))
    }

    /// The versions of the node's packages; with dpkg's state, or both versions, where one is not complete.
    fn versions(&self) -> [String; 3] {
        let inventory = self.inventory();
        NAMES.map(|name| inventory.get(name).cloned().unwrap_or_default())
    }

    fn inventory(&self) -> BTreeMap<String, String> {
        match self.world.backend {
            Backend::Apt => self.node.inventory(),
            Backend::Dnf => {
                let out = run(self.node.chroot("rpm").args(["-qa", "--qf", "%{NAME} %{VERSION}\n"])).stdout;
                let mut found: BTreeMap<String, String> = BTreeMap::new();
                for (name, version) in out.lines().filter_map(|line| line.split_once(' ')) {
                    let entry = found.entry(name.to_owned()).or_default();
                    *entry = format!("{entry} {version}").trim().to_owned();
                }
                found
            }
        }
    }

    /// What the node was doing: the state of its journal, or how far its fetch is.
    fn place(&self) -> String {
        let private = self.node.read("/var/lib/prestage/private/journal.json");
        if let Ok(journal) = serde_json::from_str::<serde_json::Value>(&private) {
            let word = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
            return format!("install: {}", word(&journal["state"]["name"]));
        }
        let exists = |path: &str| self.node.path(path).exists();
        let has_any =
            |path: &str| std::fs::read_dir(self.node.path(path)).is_ok_and(|mut d| d.next().is_some());
        match () {
            () if has_any("/var/lib/prestage/private/staged") => "install: verifying".into(),
            () if has_any("/var/lib/prestage/fetch/staged") => "fetch: staged".into(),
            () if exists("/var/lib/prestage/fetch/plan.json") => "fetch: packages".into(),
            () if exists("/var/lib/prestage/fetch/metadata/timestamp") => "fetch: planning".into(),
            () => "fetch: metadata".into(),
        }
    }

    /// What a status says must be so.
    fn is_false(&self, is_bad: bool) -> Option<String> {
        let path = self.node.path("/var/lib/prestage/status.json");
        let status = format::status::NodeStatus::parse(&std::fs::read(path).ok()?);
        let status = match status {
            Ok(status) => status.status,
            Err(why) => return Some(format!("status.json cannot be read: {why}")),
        };
        let says_patched = status.state == State::UpToDate && status.installed.is_some();
        let says_before = status.state == State::Failed;
        if says_patched && (is_bad || self.versions() != ["2.0", "2.0", "2.0"]) {
            return Some(format!("it says that it is patched, and has {:?}", self.versions()));
        }
        if says_before && self.versions() != ["1.0", "1.0", "1.0"] {
            return Some(format!("it says that it is as before, and has {:?}", self.versions()));
        }
        None
    }

    /// Ends what a killed agent has left at work.
    fn end_the_rest(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let root = std::fs::canonicalize(self.node.root()).expect("the node's root");
            let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
            let pids = processes.filter_map(|p| p.file_name().to_str()?.parse::<i32>().ok());
            let left: Vec<i32> = pids
                .filter(|pid| std::fs::read_link(format!("/proc/{pid}/root")).is_ok_and(|at| at == root))
                .collect();
            if left.is_empty() || Instant::now() > deadline {
                return;
            }
            for pid in left {
                // It may have ended meanwhile.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn has_ended(&self) -> bool {
        !self.node.path("/var/lib/prestage/private/journal.json").exists()
            && std::fs::read(self.node.path("/var/lib/prestage/status.json"))
                .ok()
                .and_then(|bytes| format::status::NodeStatus::parse(&bytes).ok())
                .is_some_and(|s| match s.status.state {
                    State::UpToDate => s.status.installed.is_some(),
                    State::Failed | State::NeedsPerson => true,
                    _ => false,
                })
    }

    fn night(&self, is_bad: bool, random: &mut Random, table: &mut Table) {
        self.node.reset();
        if is_bad {
            let hook = "/etc/prestage/hooks.d/health/required.d/10-till";
            self.node.write(hook, "#!/bin/sh\n! grep -q EUR /etc/till.conf\n");
            std::fs::set_permissions(self.node.path(hook), std::fs::Permissions::from_mode(0o755))
                .expect("a mode");
        }
        let told = self.world.receiver.accepted().len();
        let mut fell: Vec<(String, bool)> = Vec::new();
        let fault = |what: String, fell: &[(String, bool)], faults: &mut Vec<String>| {
            let kind = if is_bad { "ill" } else { "good" };
            let line = format!("{} ({kind} bundle), killed in {fell:?}: {what}", self.world.backend.name());
            eprintln!("{line}");
            faults.push(line);
        };
        for _ in 0..1 + random.below(KILLS_OF_A_NIGHT) {
            if self.node.is_to_boot() {
                self.node.boot();
            }
            if self.has_ended() {
                break;
            }
            let mut command = self.node.prestage(["run"]);
            command.process_group(0);
            let mut agent = Running::start(&mut command);
            let group = Pid::from_raw(agent.id().cast_signed());
            let most = u64::try_from(self.call.as_millis()).unwrap_or(1000);
            // Of two draws the earlier: what a night has left becomes less with each call.
            let end = Instant::now() + Duration::from_millis(random.below(most).min(random.below(most)));
            while Instant::now() < end && !agent.has_ended() {
                std::thread::sleep(Duration::from_millis(1));
            }
            if agent.has_ended() {
                agent.wait();
                continue;
            }
            let with_children = random.below(3) > 0;
            if with_children {
                let _ = killpg(group, Signal::SIGKILL);
            }
            agent.kill();
            if with_children {
                self.end_the_rest();
            }
            fell.push((self.place(), with_children));
            table.kills += 1;
            if let Some(what) = self.is_false(is_bad) {
                fault(what, &fell, &mut table.faults);
            }
        }
        // In peace.
        let mut last = String::new();
        for _ in 0..CALLS {
            if self.node.is_to_boot() {
                self.node.boot();
            }
            if self.has_ended() {
                break;
            }
            last = self.agent("run").to_string();
            if let Some(what) = self.is_false(is_bad) {
                fault(what, &fell, &mut table.faults);
            }
        }
        self.agent("report");
        let versions = self.versions();
        let wanted = if is_bad { ["1.0"; 3] } else { ["2.0"; 3] };
        if !self.has_ended() || versions != wanted {
            fault(format!("it ended with {versions:?}; last: {last}"), &fell, &mut table.faults);
        }
        let mut seen = BTreeSet::new();
        let reports = self.world.receiver.accepted();
        let reports: Vec<Outcome> = reports[told..]
            .iter()
            .filter(|r| r.step == Step::Install && seen.insert(r.id))
            .map(|r| r.outcome)
            .collect();
        let end = if is_bad { Outcome::RolledBack } else { Outcome::Installed };
        if reports.iter().filter(|o| **o == end).count() != 1 {
            let said: Vec<String> =
                self.world.receiver.accepted()[told..].iter().map(|r| r.message.clone()).collect();
            fault(format!("the centre heard {reports:?}: {}", said.join(" / ")), &fell, &mut table.faults);
        }
        table.nights += 1;
        for (place, with_children) in fell {
            let tally = table.places.entry(place).or_default();
            *if with_children { &mut tally.with_children } else { &mut tally.alone } += 1;
            *if is_bad { &mut tally.as_before } else { &mut tally.patched } += 1;
        }
    }
}
