//! The power goes at random moments of a patch: over fetch and stage, verification, restore point, install, check, commit,
//! report and rollback. What was not flushed to the disk is gone. Afterwards the node must boot, tell the truth, and end
//! patched or as it was, with nothing lost of what it has to tell.
//!
//! A life is one node from its saved state. Its power is cut at a moment that is aimed at; while it goes on after the boot,
//! and has not ended, it is cut again: in what it does by itself at the boot, or later. Then it is left in peace, and judged.
//! So nearly every boot, which is what takes the time, is the end of one cut and the beginning of the next. Lives that were
//! lived are kept and not lived again while node and seed are the same, so that a run can be continued.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

use format::report::{Outcome, Report};
use format::status::{NodeStatus, State};
use lab::random::Random;
use serde_json::{Value, json};

use crate::log::Log;
use crate::machine::{BOOT, Disks, SOON, Silence};
use crate::packages::{Till, goods, till};
use crate::ready::Ready;
use crate::world::{STEP, World};

/// How many cuts, unless `PRESTAGE_VM_CUTS` says otherwise.
const CUTS: usize = 40;

/// Where they fall, unless `PRESTAGE_SEED` says otherwise.
const SEED: u64 = 20_261_123;

/// Cuts in one life, at most: a node whose power never holds for as long as an install takes is never patched.
const CUTS_OF_A_LIFE: usize = 4;

/// A cut in what a node does by itself at a boot falls within this time of the first word of it.
const RECOVERY: Duration = Duration::from_secs(20);

const BUNDLE: &str = "20261123-1";

/// So slow that fetching takes as long as the other steps, and a cut has something to hit.
const RATE: &str = "rate = \"1Mbit/s\"\n";

/// How often the agent may be called after the last cut until it has ended.
const RUNS: usize = 8;

/// What is going on when the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scenario {
    Good,
    Unhealthy,
}

impl Scenario {
    const ALL: [Scenario; 2] = [Scenario::Good, Scenario::Unhealthy];

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
    ("boot back", "]: booting"),
];

/// What the agent says where it goes on with what was interrupted.
const GOES_ON: [&str; 2] = ["was interrupted in", "→ Proving"];

const END: &str = "LAB end";
const BOOTED: &str = "LAB booted";

/// One cut.
struct Row {
    life: usize,
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

    let lives = log.folder().with_file_name(format!("power-cut-lives-{}-{seed}", ready.key));
    fs::create_dir_all(&lives).expect("a folder for lives");
    let mut table = String::from(
        "| cut | life | of | aimed at | fell after | found after the boot | ended | faults |\n\
         | ---: | ---: | --- | --- | --- | --- | --- | --- |\n",
    );
    let (mut faults, mut ends, mut count, mut life) = (Vec::new(), BTreeMap::<String, usize>::new(), 0, 0);
    while count < wanted {
        life += 1;
        let file = lives.join(format!("{life:02}.json"));
        let rows = match fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).expect("a life that was kept"),
            Err(_) => {
                let scenario = Scenario::ALL[(life - 1) % 2];
                let rehearsal = rehearse(ready, scenario, &lives);
                log.say(&format!("{}, uncut: {rehearsal:?}", scenario.name()));
                let mut random = Random::new(seed ^ (life as u64) << 20);
                random.next_u64();
                let life_log = Log::begin(&lives.join(format!("{life:02}")), false);
                let rows = live(ready, scenario, life, &rehearsal, &mut random, &life_log);
                let rows: Vec<Value> = rows.iter().map(Row::to_json).collect();
                // Replaced whole: the laboratory can be cut too.
                fs::write(file.with_extension("new"), Value::from(rows.clone()).to_string()).expect("a life");
                fs::rename(file.with_extension("new"), &file).expect("a life");
                rows
            }
        };
        for row in &rows {
            count += 1;
            let text = table_line(count, row);
            log.say(text.trim());
            table.push_str(&text);
            let list = row["faults"].as_array().into_iter().flatten();
            faults.extend(list.map(|f| format!("cut {count}: {f}")));
        }
        *ends
            .entry(rows.last().map_or("uncut", |r: &Value| r["end"].as_str().unwrap_or("?")).to_owned())
            .or_default() += 1;
        log.keep("table.md", table.as_bytes());
    }
    assert!(faults.is_empty(), "{} faults: {}", faults.len(), faults.join("; "));
    let mut facts = vec![format!("{count} cuts in {life} lives, 0 faults")];
    facts.extend(ends.iter().map(|(end, count)| format!("{count} ended {end}")));
    facts
}

/// Moments of an uncut run: the step, and seconds from its beginning to the next one's.
type Moments = Vec<(String, f64)>;

/// One run without a cut, for how long each step takes; kept.
fn rehearse(ready: &Ready, scenario: Scenario, lives: &Path) -> Moments {
    let name = format!("rehearsal-{}", scenario.name().replace(' ', "-"));
    let file = lives.join(format!("{name}.json"));
    if let Ok(bytes) = fs::read(&file) {
        return serde_json::from_slice(&bytes).expect("a rehearsal that was kept");
    }
    let log = Log::begin(&lives.join(name), false);
    let mut world = world(ready, scenario, &log);
    let mut watch = begin(&mut world);
    let mut moments: Vec<(String, Instant)> = Vec::new();
    let deadline = Instant::now() + STEP;
    loop {
        if let Some(line) = watch.next(&mut world) {
            if line.contains(END) || line.contains(BOOTED) {
                break;
            }
            if let Some((step, _)) = STEPS.iter().find(|(_, mark)| line.contains(mark)) {
                moments.push(((*step).to_owned(), Instant::now()));
            }
        }
        assert!(Instant::now() < deadline, "the rehearsal does not end");
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
    world.configure_fetch(RATE, super::THIN);
    // What the laboratory itself has written is on the disk.
    world.node().sh("sync");
    world
}

/// The console, line by line, from now on.
struct Watch {
    position: u64,
}

impl Watch {
    fn begin(world: &World) -> Watch {
        Watch { position: fs::metadata(world.log.file("console")).map_or(0, |meta| meta.len()) }
    }

    fn next(&mut self, world: &mut World) -> Option<String> {
        let mut rest = Vec::new();
        let mut file = fs::File::open(world.log.file("console")).ok()?;
        file.seek(SeekFrom::Start(self.position))
            .and_then(|_| file.take(65536).read_to_end(&mut rest))
            .ok()?;
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            std::thread::sleep(Duration::from_millis(20));
            return None;
        };
        self.position += end as u64 + 1;
        Some(String::from_utf8_lossy(&rest[..end]).trim().to_owned())
    }
}

/// Starts fetch, install and report, one after the other, with what they say on the console.
fn begin(world: &mut World) -> Watch {
    let watch = Watch::begin(world);
    world.node().sh(
        "cat >/run/lab-round <<'ROUND'\n\
         for step in fetch install report; do echo \"LAB $step\" >/dev/ttyS0; systemctl start prestage-$step; done\n\
         if [ \"$(systemctl is-system-running)\" = stopping ]; then exit; fi\n\
         echo 'LAB end' >/dev/ttyS0\n\
         ROUND\n\
         systemctl reset-failed lab-round 2>/dev/null; systemd-run --quiet --unit=lab-round bash /run/lab-round",
    );
    watch
}

/// What the console shows until a moment.
enum Until {
    /// Where the power is to be cut.
    Cut,
    /// This was said before.
    Said,
    /// Neither came in time.
    Nothing,
}

/// Watches until `delay` has passed after a line that `begins` says is where it counts from, or until a line with one of
/// `ends`. `fell` becomes the last line that tells where the node is.
fn watch_until(
    world: &mut World,
    watch: &mut Watch,
    begins: impl Fn(&str) -> bool,
    delay: Duration,
    ends: &[&str],
    fell: &mut String,
) -> Until {
    let deadline = Instant::now() + BOOT;
    let mut at = None;
    loop {
        if let Some(line) = watch.next(world) {
            if begins(&line) && at.is_none() {
                at = Some(Instant::now() + delay);
            }
            let is_end = ends.iter().any(|end| line.contains(end));
            let tells = STEPS.iter().any(|(_, mark)| line.contains(mark)) || line.contains("→");
            if tells || is_end || GOES_ON.iter().any(|mark| line.contains(mark)) {
                world.log.say(&format!("  | {line}"));
                *fell = short(&line).to_owned();
            }
            if is_end {
                return Until::Said;
            }
        }
        match at {
            Some(at) if Instant::now() >= at => return Until::Cut,
            _ if Instant::now() > deadline => return Until::Nothing,
            _ => {}
        }
    }
}

/// A part of a time span, at random.
fn part(random: &mut Random, seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds * random.below(1000) as f64 / 1000.0)
}

/// One life, a row for each of its cuts.
fn live(
    ready: &Ready,
    scenario: Scenario,
    life: usize,
    rehearsal: &Moments,
    random: &mut Random,
    log: &Log,
) -> Vec<Row> {
    // Every step in turn, at a random moment of it.
    let (step, span) = &rehearsal[(life - 1) / 2 % rehearsal.len()];
    let mark = STEPS.iter().find(|(name, _)| name == step).map_or(END, |(_, mark)| mark);
    let delay = part(random, *span);
    let mut aim = format!("{step} + {:.1} s", delay.as_secs_f64());
    let mut world = world(ready, scenario, log);
    let mut watch = begin(&mut world);
    let mut fell = "nothing".to_owned();
    let first = watch_until(&mut world, &mut watch, |line| line.contains(mark), delay, &[END], &mut fell);
    assert!(!matches!(first, Until::Nothing), "the step {step} does not begin");

    let mut rows: Vec<Row> = Vec::new();
    let mut queued: Vec<String> = Vec::new();
    loop {
        log.say(&format!("== {}, cut at {aim}, after: {fell}", scenario.name()));
        world.cut_power();
        rows.push(Row {
            life,
            scenario,
            aim,
            fell,
            found: String::new(),
            end: String::new(),
            faults: Vec::new(),
        });
        let may_again = rows.len() < CUTS_OF_A_LIFE;
        let row = rows.last_mut().expect("it was just put there");
        fell = "nothing".to_owned();

        // In what it does by itself at the boot.
        watch = Watch::begin(&world);
        world.power_on();
        let delay = part(random, RECOVERY.as_secs_f64());
        let is_aimed = may_again && random.below(2) == 0;
        let goes_on = |line: &str| is_aimed && GOES_ON.iter().any(|mark| line.contains(mark));
        match watch_until(&mut world, &mut watch, goes_on, delay, &[BOOTED], &mut fell) {
            Until::Cut => {
                (row.found, row.end) = (format!("it went on: {fell}"), "cut again".into());
                aim = format!("going on + {:.1} s", delay.as_secs_f64());
                continue;
            }
            Until::Said => {}
            Until::Nothing => {
                row.die("it does not boot");
                return rows;
            }
        }
        let seen = match world.node().wait_for_boot().and_then(|()| look(&mut world)) {
            Ok(seen) => seen,
            Err(silence) => {
                row.die(&format!("after the boot: {silence}"));
                return rows;
            }
        };
        row.found = seen.in_words();
        row.faults.extend(seen.lies());
        queued.extend(seen.queue.iter().cloned());

        // Later, if there is anything left to do.
        if may_again && !seen.is_settled() {
            let delay = part(random, rehearsal.iter().map(|(_, span)| span).sum());
            watch = begin(&mut world);
            let starts = |line: &str| line.contains("LAB fetch");
            if let Until::Cut = watch_until(&mut world, &mut watch, starts, delay, &[END, BOOTED], &mut fell)
            {
                row.end = "cut again".into();
                aim = format!("later + {:.1} s", delay.as_secs_f64());
                continue;
            }
        }
        settle(&mut world, row, &mut queued);
        log.say(&format!("== {}: {:?}", row.end, row.faults));
        return rows;
    }
}

/// In peace: lets the agent go on until it has ended, and judges.
fn settle(world: &mut World, row: &mut Row, queued: &mut Vec<String>) {
    for _ in 0..RUNS {
        let seen = match look(world) {
            Ok(seen) => seen,
            Err(silence) => return row.die(&format!("it does not answer: {silence}")),
        };
        row.faults.extend(seen.lies());
        queued.extend(seen.queue.iter().cloned());
        if seen.is_settled() {
            return judge(world, row, queued, &seen);
        }
        for verb in ["fetch", "install", "report"] {
            // A node that goes back boots by itself.
            if let Err(silence) = world.step(verb)
                && (silence != Silence::Rebooted || world.node().wait_for_boot().is_err())
            {
                return row.die(&format!("in {verb}: {silence}"));
            }
        }
    }
    match look(world) {
        Ok(last) => judge(world, row, queued, &last),
        Err(silence) => row.die(&format!("it does not answer: {silence}")),
    }
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
    match look_once(world) {
        // By itself, to go back.
        Err(Silence::Rebooted) => world.node().wait_for_boot().and_then(|()| look_once(world)),
        other => other,
    }
}

fn look_once(world: &mut World) -> Result<Seen, Silence> {
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

fn judge(world: &World, row: &mut Row, queued: &[String], last: &Seen) {
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
    for id in queued.iter().filter(|id| !accepted.contains(id)) {
        fault(format!("the report {id} was in the queue after the boot and never came"));
    }
    for why in world.receiver.refused() {
        fault(format!("a report was refused: {why}"));
    }
}

impl Row {
    fn die(&mut self, why: &str) {
        self.end = "dead".into();
        self.faults.push(why.to_owned());
    }

    fn to_json(&self) -> Value {
        json!({
            "life": self.life, "scenario": self.scenario.name(), "aim": self.aim, "fell": self.fell, "found": self.found,
            "end": self.end, "faults": self.faults,
        })
    }
}

fn table_line(number: usize, row: &Value) -> String {
    let field = |name: &str| row[name].as_str().unwrap_or_default().replace('|', "/");
    let faults: Vec<&str> =
        row["faults"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    format!(
        "| {number} | {} | {} | {} | {} | {} | {} | {} |\n",
        row["life"],
        field("scenario"),
        field("aim"),
        field("fell"),
        field("found"),
        field("end"),
        faults.join("; ").replace('|', "/")
    )
}

/// `[  12.3] prestage[310]: transaction 0123: A → B` without all that is before the states.
fn short(line: &str) -> &str {
    let line = line.split_once("]: ").map_or(line, |(_, said)| said);
    line.split_once(": ").filter(|_| line.contains('→')).map_or(line, |(_, states)| states)
}
