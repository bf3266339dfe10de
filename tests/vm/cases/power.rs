//! The power goes at random moments of a patch: over fetch and stage, verification, restore point, install, check, commit,
//! report and rollback. What was not flushed to the disk is gone. Afterwards the node must boot, tell the truth, and end
//! patched or as it was, with nothing lost of what it has to tell.
//!
//! A round is one node from its saved state, one cut, and its recovery. Rounds that were done are kept and not done again
//! while node, seed and plan are the same, so that a run can be continued.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use format::report::{Outcome, Report};
use format::status::{NodeStatus, State};
use lab::random::Random;
use serde_json::{Value, json};

use super::AGENT_HAS_RESTORE_POINTS;
use crate::log::Log;
use crate::machine::{Disks, SOON, Silence};
use crate::packages::{Till, goods, till};
use crate::ready::Ready;
use crate::world::{STEP, World};

/// How many cuts, unless `PRESTAGE_VM_CUTS` says otherwise.
const CUTS: usize = 40;

/// Where they fall, unless `PRESTAGE_SEED` says otherwise.
const SEED: u64 = 20_261_123;

const BUNDLE: &str = "20261123-1";

/// So slow that fetching takes as long as the other steps, and a cut has something to hit.
const RATE: &str = "rate = \"1Mbit/s\"\n";

/// How often the agent may be called after a cut until it has ended.
const RUNS: usize = 8;

/// What is going on when the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scenario {
    Good,
    Unhealthy,
}

impl Scenario {
    fn name(self) -> &'static str {
        if self == Scenario::Good { "good bundle" } else { "unhealthy bundle" }
    }
}

/// The steps that are aimed at, by what the node says when each begins.
const STEPS: [(&str, &str); 10] = [
    ("fetch", "LAB fetch"),
    ("verify", "LAB install"),
    ("restore point", "→ Snapshotting"),
    ("install", "→ Installing"),
    ("check", "→ Checking"),
    ("commit", "→ Committing"),
    ("roll back", "→ RollingBack"),
    ("wait for the boot", "→ AwaitingReboot"),
    ("report", "LAB report"),
    ("boot back", BOOT_BACK),
];

const END: &str = "LAB end";
const BOOT_BACK: &str = "LAB boot";

/// One line of the table.
struct Row {
    scenario: Scenario,
    aim: String,
    fell: String,
    found: String,
    end: String,
    faults: Vec<String>,
}

pub fn cuts(ready: &Ready, log: &Log) -> Vec<String> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seed = number("PRESTAGE_SEED").unwrap_or(SEED);
    let wanted = number("PRESTAGE_VM_CUTS").map_or(CUTS, |n| usize::try_from(n).expect("a number of cuts"));
    let scenarios: &[Scenario] =
        if AGENT_HAS_RESTORE_POINTS { &[Scenario::Good, Scenario::Unhealthy] } else { &[Scenario::Good] };

    let rounds = log.folder().with_file_name(format!("power-cut-rounds-{}-{seed}", ready.key));
    fs::create_dir_all(&rounds).expect("a folder for rounds");
    let mut table = String::from(
        "| cut | of | aimed at | fell after | found after the boot | ended | faults |\n| ---: | --- | --- | --- | --- | --- | --- |\n",
    );
    let (mut faults, mut ends) = (Vec::new(), BTreeMap::<String, usize>::new());
    for round in 0..wanted {
        let file = rounds.join(format!("{:02}.json", round + 1));
        let line = match fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).expect("a round that was kept"),
            Err(_) => {
                let scenario = scenarios[round % scenarios.len()];
                let rehearsal = rehearse(ready, scenario, &rounds);
                log.say(&format!("{}, uncut: {rehearsal:?}", scenario.name()));
                let mut random = Random::new(seed ^ (round as u64 + 1) << 20);
                random.next_u64();
                let round_log = Log::begin(&rounds.join(format!("{:02}", round + 1)), false);
                let row = cut(ready, scenario, round / scenarios.len(), &rehearsal, &mut random, &round_log);
                let line = row.to_json();
                // Replaced whole: the laboratory can be cut too.
                fs::write(file.with_extension("new"), line.to_string()).expect("a round");
                fs::rename(file.with_extension("new"), &file).expect("a round");
                line
            }
        };
        let text = table_line(round + 1, &line);
        log.say(text.trim());
        table.push_str(&text);
        *ends.entry(line["end"].as_str().unwrap_or("?").to_owned()).or_default() += 1;
        faults.extend(
            line["faults"].as_array().into_iter().flatten().map(|f| format!("cut {}: {f}", round + 1)),
        );
        log.keep("table.md", table.as_bytes());
    }
    assert!(faults.is_empty(), "{} faults: {}", faults.len(), faults.join("; "));
    let mut facts = vec![format!("{wanted} cuts, 0 faults")];
    facts.extend(ends.iter().map(|(end, count)| format!("{count} ended {end}")));
    facts
}

/// Moments of an uncut run: the step, and seconds from its beginning to the next one's.
type Moments = Vec<(String, f64)>;

/// One run without a cut, for how long each step takes; kept.
fn rehearse(ready: &Ready, scenario: Scenario, rounds: &Path) -> Moments {
    let file = rounds.join(format!("rehearsal-{}.json", scenario.name().replace(' ', "-")));
    if let Ok(bytes) = fs::read(&file) {
        return serde_json::from_slice(&bytes).expect("a rehearsal that was kept");
    }
    let log = Log::begin(&rounds.join(format!("rehearsal-{}", scenario.name().replace(' ', "-"))), false);
    let mut world = world(ready, scenario, &log);
    let mut watch = begin(&mut world);
    let mut moments: Vec<(String, Instant)> = Vec::new();
    let deadline = Instant::now() + STEP;
    loop {
        if let Some(line) = watch.next(&mut world) {
            if line.contains(END) {
                break;
            }
            if let Some((step, _)) = STEPS.iter().find(|(_, mark)| line.contains(mark)) {
                moments.push(((*step).to_owned(), Instant::now()));
            }
        }
        assert!(Instant::now() < deadline, "the rehearsal does not end");
        if moments.last().is_some_and(|(step, _)| step == "boot back") {
            world.node().wait_for_boot().expect("the node boots");
            break;
        }
    }
    let ends = moments.iter().skip(1).map(|(_, at)| *at).chain([Instant::now()]);
    let spans: Moments =
        moments.iter().zip(ends).map(|((step, at), end)| (step.clone(), (end - *at).as_secs_f64())).collect();
    assert!(spans.len() >= 5, "a rehearsal has more steps than {spans:?}");
    fs::write(file, serde_json::to_vec(&spans).expect("JSON")).expect("a rehearsal");
    spans
}

fn world(ready: &Ready, scenario: Scenario, log: &Log) -> World {
    let mut world = World::new(ready, Disks::Volatile, log);
    let kind = if scenario == Scenario::Good { Till::Healthy } else { Till::Unhealthy };
    world.release(BUNDLE, &[till("2.0", kind), goods("2.0", 120)]);
    let points =
        if AGENT_HAS_RESTORE_POINTS { "[restore]\nkind = \"lvm-thin\"\nrequired = true\n" } else { "" };
    world.configure_fetch(RATE, points);
    // What the laboratory itself has written is on the disk.
    world.node().sh("sync");
    world
}

/// The console, line by line, from now on.
struct Watch {
    position: usize,
}

impl Watch {
    fn next(&mut self, world: &mut World) -> Option<String> {
        let bytes = fs::read(world.log.file("console")).unwrap_or_default();
        let rest = bytes.get(self.position..).unwrap_or_default();
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            std::thread::sleep(Duration::from_millis(20));
            return None;
        };
        self.position += end + 1;
        Some(String::from_utf8_lossy(&rest[..end]).trim().to_owned())
    }
}

/// Starts fetch, install and report, one after the other, with what they say on the console.
fn begin(world: &mut World) -> Watch {
    let position = fs::metadata(world.log.file("console")).map_or(0, |meta| meta.len() as usize);
    world.node().sh("cat >/run/lab-round <<'ROUND'\n\
         exec >/dev/ttyS0 2>&1\n\
         journalctl -q -f -n 0 -o cat -u prestage-fetch -u prestage-install -u prestage-report -u prestage-recover &\n\
         sleep 1\n\
         for step in fetch install report; do echo \"LAB $step\"; systemctl start prestage-$step; done\n\
         sleep 1\n\
         if grep -q -s awaitingReboot /var/lib/prestage/private/journal.json; then\n\
         echo 'LAB boot'; systemctl reboot --no-block; sleep 1000; fi\n\
         echo 'LAB end'\n\
         ROUND\n\
         systemd-run --quiet --unit=lab-round bash /run/lab-round");
    Watch { position }
}

/// One round.
fn cut(
    ready: &Ready,
    scenario: Scenario,
    turn: usize,
    rehearsal: &Moments,
    random: &mut Random,
    log: &Log,
) -> Row {
    // Every step in turn, at a random moment of it.
    let (step, span) = &rehearsal[turn % rehearsal.len()];
    let mark = STEPS.iter().find(|(name, _)| name == step).map_or(END, |(_, mark)| mark);
    let delay = span * random.below(1000) as f64 / 1000.0;
    let aim = format!("{step} + {delay:.1} s");
    log.say(&format!("== {}, {aim}", scenario.name()));

    let mut world = world(ready, scenario, log);
    let mut watch = begin(&mut world);
    let deadline = Instant::now() + STEP;
    let (mut fell, mut at) = ("nothing".to_owned(), None);
    loop {
        if let Some(line) = watch.next(&mut world) {
            log.say(&format!("  | {line}"));
            if line.contains(mark) && at.is_none() {
                at = Some(Instant::now() + Duration::from_secs_f64(delay));
            }
            if STEPS.iter().any(|(_, mark)| line.contains(mark)) || line.contains(END) {
                fell = line;
            }
        }
        if at.is_some_and(|at| Instant::now() >= at) || (at.is_none() && fell.contains(END)) {
            break;
        }
        assert!(Instant::now() < deadline, "the step {step} does not begin");
    }
    world.cut_power();
    let mut row = Row { scenario, aim, fell, found: String::new(), end: String::new(), faults: Vec::new() };
    recover(&mut world, &mut row);
    log.say(&format!("== {}: {:?}", row.end, row.faults));
    row
}

/// Boots, looks, lets the agent go on until it has ended, and looks again.
fn recover(world: &mut World, row: &mut Row) {
    if let Err(silence) = world.boot() {
        row.end = "dead".into();
        row.faults.push(format!("the node does not boot: {silence}"));
        return;
    }
    let seen = match look(world) {
        Ok(seen) => seen,
        Err(silence) => {
            row.end = "dead".into();
            return row.faults.push(format!("the node does not answer: {silence}"));
        }
    };
    row.found = seen.in_words();
    row.faults.extend(seen.lies());

    let mut last = seen.clone();
    for _ in 0..RUNS {
        for verb in ["fetch", "install", "report"] {
            // A node that goes back boots by itself.
            if let Err(silence) = world.step(verb)
                && (silence == Silence::Off || world.node().wait_for_boot().is_err())
            {
                row.end = "dead".into();
                return row.faults.push(format!("in {verb}: {silence}"));
            }
        }
        match look(world) {
            Ok(now) => last = now,
            Err(silence) => return row.faults.push(format!("the node does not answer: {silence}")),
        }
        row.faults.extend(last.lies());
        if last.journal.contains("AwaitingReboot") || last.journal.contains("awaitingReboot") {
            if let Err(silence) = world.node().reboot() {
                row.end = "dead".into();
                return row.faults.push(format!("the node does not boot after going back: {silence}"));
            }
            continue;
        }
        if last.is_settled() {
            break;
        }
    }
    judge(world, row, &seen, &last);
}

/// What is to be seen of a node at one moment.
#[derive(Clone, Debug)]
struct Seen {
    status: Option<NodeStatus>,
    /// What is wrong with the status file, if anything.
    broken: Option<String>,
    journal: String,
    packages: Vec<String>,
    audit: String,
    verify: String,
    health: String,
    /// Reports that wait to be sent.
    queue: Vec<String>,
}

fn look(world: &mut World) -> Result<Seen, Silence> {
    let said = world.node().shell(
        "cat /var/lib/prestage/status.json 2>/dev/null; printf '\\n=====\\n'\n\
         cat /var/lib/prestage/private/journal.json 2>/dev/null; printf '\\n=====\\n'\n\
         dpkg-query -W -f '${Package} ${Version} ${db:Status-Abbrev}\\n' till till-goods; printf '\\n=====\\n'\n\
         dpkg --audit; printf '\\n=====\\n'\n\
         dpkg --verify till till-goods; printf '\\n=====\\n'\n\
         curl -s -m 10 http://localhost:8080/health; printf '\\n=====\\n'\n\
         cat /var/lib/prestage/reports/*.json 2>/dev/null",
        SOON,
    )?;
    let mut parts = said.text.split("\n=====\n").map(|part| part.trim().to_owned());
    let mut part = || parts.next().unwrap_or_default();
    let status = part();
    let (status, broken) = match status.as_str() {
        "" => (None, None),
        text => match NodeStatus::parse(text.as_bytes()) {
            Ok(status) => (Some(status), None),
            Err(why) => (None, Some(why.to_string())),
        },
    };
    Ok(Seen {
        status,
        broken,
        journal: part(),
        packages: part().lines().map(|line| line.trim().to_owned()).collect(),
        audit: part(),
        verify: part(),
        health: part(),
        queue: ids(&part()),
    })
}

/// The ids of the reports in a text of several.
fn ids(text: &str) -> Vec<String> {
    let values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    values.flatten().filter_map(|report| Some(report["id"].as_str()?.to_owned())).collect()
}

impl Seen {
    /// All packages have this version, whole.
    fn has(&self, version: &str) -> bool {
        let expected = ["till", "till-goods"].map(|name| format!("{name} {version} ii"));
        self.packages == expected && self.audit.is_empty() && self.verify.is_empty()
    }

    fn in_words(&self) -> String {
        let journal: Option<Value> = serde_json::from_str(&self.journal).ok();
        let state = journal.as_ref().and_then(|j| j["state"]["name"].as_str());
        let journal = match (self.journal.is_empty(), state) {
            (true, _) => "no journal".to_owned(),
            (false, Some(state)) => format!("journal: {state}"),
            (false, None) => "a broken journal".to_owned(),
        };
        let packages = match (self.has("1.0"), self.has("2.0")) {
            (true, _) => "all old",
            (_, true) => "all new",
            _ if !self.audit.is_empty() => "packages half done",
            _ => "packages mixed",
        };
        let status = self.status.as_ref().map_or("none".to_owned(), |s| format!("{:?}", s.status.state));
        format!("{packages}; {journal}; status: {status}")
    }

    /// What the status says that is not so.
    fn lies(&self) -> Vec<String> {
        let mut lies = Vec::new();
        if let Some(why) = &self.broken {
            lies.push(format!("the status cannot be read: {why}"));
        }
        let Some(status) = self.status.as_ref().map(|s| &s.status) else { return lies };
        let claims_new = status.installed.as_ref().is_some_and(|i| i.bundle.version.as_str() == BUNDLE)
            || status.install.as_ref().is_some_and(|i| i.outcome == Outcome::Installed);
        if claims_new && status.state != State::Installing && !self.has("2.0") {
            lies.push(format!("the status says installed, and there is {:?} {}", self.packages, self.audit));
        }
        let claims_old = status.state == State::Failed
            && status
                .install
                .as_ref()
                .is_some_and(|i| matches!(i.outcome, Outcome::InstallFailed | Outcome::RolledBack));
        if claims_old && !self.has("1.0") {
            lies.push(format!("the status says as before, and there is {:?} {}", self.packages, self.audit));
        }
        lies
    }

    /// Nothing is left to do, and everything is told.
    fn is_settled(&self) -> bool {
        let ended = |status: &NodeStatus| {
            let status = &status.status;
            let is_final = matches!(status.state, State::UpToDate | State::Failed | State::NeedsPerson);
            is_final && status.reports_queued == 0
        };
        self.journal.is_empty() && self.queue.is_empty() && self.status.as_ref().is_some_and(ended)
    }
}

fn judge(world: &World, row: &mut Row, seen: &Seen, last: &Seen) {
    let mut fault = |what: String| row.faults.push(what);
    if !last.is_settled() {
        fault(format!("after {RUNS} runs it has not ended: {}", last.in_words()));
    }
    let told = |outcomes: &[Outcome]| world.has_report(BUNDLE, outcomes);
    let failed = [Outcome::InstallFailed, Outcome::RolledBack];
    row.end = if last.has("2.0") && row.scenario == Scenario::Good {
        if last.health != "till 2.0" {
            fault(format!("patched, and not healthy: {}", last.health));
        }
        if !told(&[Outcome::Installed]) {
            fault("patched, and the centre has not heard of it".into());
        }
        "patched".into()
    } else if last.has("1.0") {
        if last.health != "till 1.0" {
            fault(format!("as it was, and not healthy: {}", last.health));
        }
        if !told(&failed) {
            fault("as it was, and the centre has not heard why".into());
        }
        "as it was".into()
    } else {
        fault(format!("neither patched nor as it was: {:?} {} {}", last.packages, last.audit, last.verify));
        "between".into()
    };
    let accepted: Vec<String> = world.receiver.accepted().iter().map(|r: &Report| r.id.to_string()).collect();
    for id in seen.queue.iter().filter(|id| !accepted.contains(id)) {
        fault(format!("the report {id} was in the queue after the boot and never came"));
    }
    for why in world.receiver.refused() {
        fault(format!("a report was refused: {why}"));
    }
}

impl Row {
    fn to_json(&self) -> Value {
        json!({
            "scenario": self.scenario.name(), "aim": self.aim, "fell": self.fell, "found": self.found,
            "end": self.end, "faults": self.faults,
        })
    }
}

fn table_line(number: usize, row: &Value) -> String {
    let field = |name: &str| row[name].as_str().unwrap_or_default().replace('|', "/");
    let faults: Vec<&str> =
        row["faults"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    format!(
        "| {number} | {} | {} | {} | {} | {} | {} |\n",
        field("scenario"),
        field("aim"),
        short(&field("fell")),
        field("found"),
        field("end"),
        faults.join("; ").replace('|', "/")
    )
}

/// `transaction 0123: A → B` without the transaction.
fn short(line: &str) -> &str {
    line.split_once(": ").filter(|_| line.contains('→')).map_or(line, |(_, states)| states)
}
