//! Attacks on one node, and the table of how each of them ended.
//!
//! An attack begins in a world where everything is as it should be, breaks one thing, and runs the one command that
//! must refuse. The node's files are hashed before and after; then everything is put back for the next one.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use format::digest::Sha256;
use format::index::Index;
use nix::sys::ptrace;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::debs::Deb;
use crate::forge::Forge;
use crate::node::{Image, Node, User};
use crate::repository::Centre;
use crate::sandbox::{Output, Running, command, succeed};
use crate::server::{Behaviour, Server};
use crate::world::{World, new_packages, old_packages};

/// The version of the second bundle, the one that is attacked. The first is [`crate::world::VERSION`].
pub const VERSION: &str = "20261130-2";

/// An attack must be over by then: whoever only keeps a node waiting has won.
const PATIENCE: Duration = Duration::from_secs(40);

/// The longest message in the table; the whole of it is in the agent's log.
const MESSAGE: usize = 110;

/// The verbs that attacks are made on.
const VERBS: [&str; 6] = ["fetch", "install", "import", "verify", "report", "status"];

/// So much of a program's output is shown where an attack did not end as promised.
const LINES: usize = 30;

/// Makes only the attacks that have this in their name or that of their attacker, where it is set.
const ONLY: &str = "PRESTAGE_ATTACKS";

/// Where the agent is on the node.
const AGENT: &str = "/usr/bin/prestage";

/// What its operator has written.
const CONFIGURATION: &str = "/etc/prestage";

/// The operator's hooks: whatever is there runs as root.
pub const HOOKS: &str = "/etc/prestage/hooks.d";

/// What the agent may have staged for the package manager.
const STAGED: &str = "/var/lib/prestage/fetch/staged";

/// Root's own copy of it.
const PRIVATE: &str = "/var/lib/prestage/private/staged";

/// What dpkg believes.
const DPKG: &str = "/var/lib/dpkg/status";

/// Where in its work the node is when the attack begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It has fetched nothing yet.
    Enrolled,
    /// The bundle is staged.
    Fetched,
}

/// Makes an attack, and runs what must refuse. A panic is a fault of the case, which costs it its line and not the table.
pub type Act = fn(&Stage) -> Ended;

/// One attack and what must come of it.
pub struct Attack {
    name: &'static str,
    how: &'static str,
    code: i32,
    says: &'static [&'static str],
    act: Act,
    start: Start,
    arrange: Option<fn(&Stage)>,
    because: &'static str,
    stages: bool,
}

impl Attack {
    /// An attack on a node that has fetched nothing yet.
    ///
    /// `name`: by which SECURITY.md calls it. `how`: how it is made, in a few words. `code` and `says`: the exit code,
    /// and words of the message.
    pub fn new(
        name: &'static str,
        how: &'static str,
        code: i32,
        says: &'static [&'static str],
        act: Act,
    ) -> Attack {
        Attack {
            name,
            how,
            code,
            says,
            act,
            start: Start::Enrolled,
            arrange: None,
            because: "",
            stages: false,
        }
    }

    /// Why the exit code is not 2 or 3.
    #[must_use]
    pub fn because(self, because: &'static str) -> Attack {
        Attack { because, ..self }
    }

    /// The attack does not keep the node from what is right, and what is staged must be that: why the exit code is 0.
    #[must_use]
    pub fn stages_what_is_right(self, because: &'static str) -> Attack {
        Attack { stages: true, ..self.because(because) }
    }

    /// On a node that has the bundle staged.
    #[must_use]
    pub fn when_fetched(self) -> Attack {
        Attack { start: Start::Fetched, ..self }
    }

    /// On a node that its operator has changed so before.
    #[must_use]
    pub fn arranged(self, arrange: fn(&Stage)) -> Attack {
        Attack { arrange: Some(arrange), ..self }
    }
}

/// How the command that must refuse ended.
pub struct Ended {
    /// What it was.
    verb: String,
    output: Output,
}

impl Ended {
    /// All that it wrote.
    pub fn all(&self) -> String {
        format!("{}{}", self.output.stdout, self.output.stderr)
    }

    /// Its exit code.
    pub fn code(&self) -> Option<i32> {
        self.output.code
    }

    /// Its own peak memory, in KiB.
    pub fn own_kib(&self) -> u64 {
        self.output.own_kib
    }
}

/// A whole valid world, made once and put back after each attack.
pub struct Stage {
    /// The world. Its mirror serves the centre's repository itself.
    pub world: World,
    /// Another host, which nobody has a reason to ask.
    pub elsewhere: Server,
    /// Where reports go.
    pub fleet: Server,
    /// Copies of what an attack changes, as it was.
    kept: PathBuf,
    /// The members of all bundles that were really released.
    members: BTreeSet<Sha256>,
    /// What was found to be wrong in the attack that is being made.
    faults: RefCell<Vec<String>>,
}

impl Stage {
    /// A node as its packages make it, a centre where two must sign root and bundles, and two bundles.
    ///
    /// # Panics
    /// If the world cannot be made.
    pub fn new() -> Stage {
        let world = World::with_signers(&old_packages(), &new_packages(), 2);
        let kept = world.sandbox.path().join("kept");
        fs::create_dir_all(&kept).expect("a folder");
        let nowhere = world.sandbox.path().join("nowhere");
        fs::create_dir_all(&nowhere).expect("a folder");
        let elsewhere = Server::start(&world.centre.repository()).expect("a port");
        let fleet = Server::start(&nowhere).expect("a port");
        let mut stage =
            Stage { world, elsewhere, fleet, kept, members: BTreeSet::new(), faults: RefCell::default() };
        stage.remember();
        copy(&stage.world.centre.repository(), &stage.first());
        stage
            .world
            .archive
            .publish(&[Deb::new("till-lib", "2.1").conffile("/etc/till.conf", "currency = EUR\n")]);
        stage.world.release(VERSION);
        stage.remember();
        copy(&stage.world.centre.repository(), &stage.kept.join("current"));

        let node = &stage.world.node;
        node.deploy();
        for phase in ["pre-install", "health", "post-install", "pre-rollback"] {
            fs::create_dir_all(node.path(HOOKS).join(phase)).expect("a folder for hooks");
        }
        stage.configure("");
        copy(&node.path(CONFIGURATION), &stage.kept.join("configuration"));
        stage.keep_state(Start::Enrolled);
        let fetched = stage.fetch().output;
        assert_eq!(fetched.code, Some(0), "the valid world: {fetched}");
        stage.keep_state(Start::Fetched);
        stage
    }

    /// The repository as it was when it had one bundle.
    pub fn first(&self) -> PathBuf {
        self.kept.join("first")
    }

    /// The node.
    pub fn node(&self) -> &Node {
        &self.world.node
    }

    /// The centre.
    pub fn centre(&self) -> &Centre {
        &self.world.centre
    }

    /// The repository and all of its keys.
    pub fn forge(&self) -> Forge<'_> {
        Forge::new(&self.world.centre)
    }

    /// How the mirror behaves.
    pub fn mirror(&self, behaviour: Behaviour) {
        self.world.mirror.behave(behaviour);
    }

    /// A path in the repository.
    pub fn repository(&self, path: &str) -> PathBuf {
        self.centre().repository().join(path)
    }

    /// Puts a file of the first repository where its counterpart of the second is: what a mirror kept.
    pub fn replay(&self, path: &str) {
        fs::copy(self.first().join(path), self.repository(path)).expect("a file of the first repository");
    }

    /// Writes the node's configuration, with more in it.
    pub fn configure(&self, more: &str) {
        let fleet = self.fleet.url();
        let labels = "[node.labels]\nrole = \"till\"\n";
        let more = format!("[report]\nurl = \"{fleet}api/v1/reports\"\n{labels}{more}");
        self.node().configure(&[&self.world.mirror.url()], &more);
    }

    /// A configuration that is not on the node, for `--config`: the standard one and more.
    pub fn configuration(&self, more: &str) -> PathBuf {
        let path = self.world.sandbox.path().join("agent.toml");
        let standard = self.node().read("/etc/prestage/agent.toml");
        fs::write(&path, format!("{standard}[fetch]\npaced = false\n{more}")).expect("a file");
        path
    }

    /// Runs the agent as somebody, in the node's root.
    pub fn agent(&self, user: User, args: &[&str]) -> Ended {
        let output = self.within_patience(self.node().run_as(user, AGENT).args(args));
        Ended { verb: by(args[0], user), output }
    }

    /// The fetch step, as its unit runs it.
    pub fn fetch(&self) -> Ended {
        self.agent(User::Prestage, &["fetch"])
    }

    /// The install step as its unit runs it, but whatever the window says.
    pub fn install(&self) -> Ended {
        self.agent(User::Root, &["install", "--now"])
    }

    /// The agent from outside the node, as root: for what is not on it.
    pub fn outside(&self, args: &[&str]) -> Ended {
        let output = self.within_patience(self.node().prestage([]).args(args));
        let verb = args.iter().find(|arg| VERBS.contains(arg)).unwrap_or(&"");
        Ended { verb: (*verb).to_owned(), output }
    }

    /// The same as the first process of a process namespace, and with `tmp` for its temporary files.
    pub fn alone(&self, args: &[&str], tmp: &Path) -> Ended {
        let agent = self.node().prestage([]);
        let mut unshare = command("unshare");
        unshare.args(["--pid", "--fork", "--kill-child"]).arg(agent.get_program()).args(agent.get_args());
        Ended {
            verb: args[0].to_owned(),
            output: self.within_patience(unshare.args(args).env("TMPDIR", tmp)),
        }
    }

    /// The install step; as soon as it has read `bytes` of a file of the node, `meanwhile` is done while it is halted.
    ///
    /// # Panics
    /// If it never reads so much of it.
    pub fn installing_when_read(&self, path: &str, bytes: u64, meanwhile: impl FnOnce(&Path)) -> Ended {
        let running = self.start(User::Root, &["install", "--now"]);
        let file = fs::canonicalize(self.node().path(path)).expect("a file of the node");
        halt_when_read(&running, &file, bytes, || meanwhile(&file));
        self.end("install", running)
    }

    /// A program of the fetch user's that holds something, for as long as the value lives; it says `held` when it does.
    pub fn holding(&self, program: &str, script: &str) -> impl Drop {
        let option = if program.ends_with("perl") { "-e" } else { "-c" };
        Holder::start(self.node().run_as(User::Prestage, program).args([option, script]))
    }

    /// The same with an export or a copy of the repository: `import` and `verify`.
    pub fn carried(&self, verb: &str, path: &Path) -> Ended {
        self.outside(&[verb, &path.to_string_lossy()])
    }

    /// A copy of the repository to be carried, which `edit` changes.
    pub fn stick(&self, edit: impl FnOnce(&Path)) -> PathBuf {
        let stick = self.world.sandbox.path().join("stick");
        copy(&self.centre().repository(), &stick);
        edit(&stick);
        stick
    }

    /// What somebody does on the node, in the shell.
    pub fn shell(&self, user: User, script: &str) -> Ended {
        let output = self.within_patience(self.node().run_as(user, "/bin/sh").args(["-c", script]));
        Ended { verb: by("sh", user), output }
    }

    /// What the attacker does, in the shell. It must succeed: an attack that was not made proves nothing.
    pub fn attacker(&self, user: User, script: &str) {
        let ended = self.shell(user, script);
        if ended.output.code != Some(0) {
            self.faults.borrow_mut().push(format!("the attack was not made: {}", ended.output));
        }
    }

    /// What an attack found to be wrong beside the node's files.
    pub fn fault(&self, what: impl Into<String>) {
        self.faults.borrow_mut().push(what.into());
    }

    /// Starts the agent as somebody, and leaves it running.
    pub fn start(&self, user: User, args: &[&str]) -> Running {
        Running::start(self.node().run_as(user, AGENT).args(args))
    }

    /// How what [`Stage::start`] started ends.
    pub fn end(&self, verb: &str, running: Running) -> Ended {
        Ended { verb: verb.to_owned(), output: running.wait_for(PATIENCE) }
    }

    fn within_patience(&self, command: &mut Command) -> Output {
        Running::start(command).wait_for(PATIENCE)
    }

    fn remember(&mut self) {
        let index: Index = self.centre().index();
        self.members.extend(index.members.iter().map(|member| member.sha256));
    }

    fn keep_state(&self, start: Start) {
        for folder in ["var/lib/prestage", "run/prestage"] {
            copy(&self.node().path(folder), &self.kept.join(format!("{start:?}/{folder}")));
        }
    }

    /// Everything as it was: repository, mirror, and what the agent keeps.
    fn put_back(&self, start: Start) {
        for server in [&self.world.mirror, &self.elsewhere, &self.fleet] {
            server.behave(Behaviour::default());
            server.release();
            server.hang_up();
            server.forget();
        }
        copy(&self.kept.join("current"), &self.centre().repository());
        for folder in ["var/lib/prestage", "run/prestage"] {
            copy(&self.kept.join(format!("{start:?}/{folder}")), &self.node().path(folder));
        }
    }

    /// What of the agent's own files the package manager could see, and whether all of it was verified: the staged
    /// repositories by name, and everything in root's own copy; where the attack `stages`, everything in the former too.
    fn visible(&self, stages: bool) -> Visible {
        let staged = fs::read_dir(self.node().path(STAGED)).into_iter().flatten().flatten();
        let staged = staged.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        let mut unverified = Vec::new();
        self.find_unverified(&self.node().path(PRIVATE), &mut unverified);
        if stages {
            self.find_unverified(&self.node().path(STAGED), &mut unverified);
        }
        let dpkg = Sha256::of(&fs::read(self.node().path(DPKG)).expect("dpkg's status"));
        Visible { staged, unverified, dpkg }
    }

    fn find_unverified(&self, folder: &Path, out: &mut Vec<String>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let meta = fs::symlink_metadata(&path).expect("a staged file");
            let digest = || {
                let mut file = fs::File::open(&path).expect("a staged file");
                Sha256::of_reader(&mut file).expect("a staged file").0
            };
            if meta.is_dir() {
                self.find_unverified(&path, out);
            } else if !meta.is_file() || !self.members.contains(&digest()) {
                out.push(path.display().to_string());
            }
        }
    }

    /// Makes one attack on a node whose files are `base`, and keeps there what they are afterwards, so that an attack
    /// which succeeded is not held against the next one.
    fn run(&self, attack: &Attack, base: &mut Image) -> Row {
        let start = Instant::now();
        self.put_back(attack.start);
        let before = match attack.arrange {
            None => base.clone(),
            Some(arrange) => {
                arrange(self);
                self.node().image()
            }
        };
        let visible = self.visible(attack.stages);
        let ended = catch_unwind(AssertUnwindSafe(|| (attack.act)(self)));
        let ended = ended.unwrap_or_else(|_| {
            self.fault("the case itself failed");
            Ended { verb: String::new(), output: Output::default() }
        });
        let mut faults = before.differences(&self.node().image());
        faults.extend(visible.faults(&self.visible(attack.stages), attack.stages));
        faults.append(&mut self.faults.borrow_mut());
        if attack.arrange.is_some() || !faults.is_empty() {
            copy(&self.kept.join("configuration"), &self.node().path(CONFIGURATION));
        }
        if !faults.is_empty() {
            *base = self.node().image();
        }
        let message = message(&ended.output, self);
        let is_named = attack.says.iter().all(|word| message.to_lowercase().contains(&word.to_lowercase()));
        let is_refused = ended.output.code == Some(attack.code) && is_named;
        Row { ended, message, faults, is_refused, seconds: start.elapsed().as_secs_f64() }
    }
}

impl Default for Stage {
    fn default() -> Self {
        Self::new()
    }
}

/// A program that holds something, and says so in a line. It is killed with the value.
struct Holder(Child);

impl Holder {
    fn start(command: &mut Command) -> Holder {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("a program");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        assert_eq!(line.trim(), "held", "it does not hold it");
        Holder(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Lets a program run from system call to system call until it has read `bytes` of a file, does `then`, and lets it go.
fn halt_when_read(running: &Running, file: &Path, bytes: u64, then: impl FnOnce()) {
    let pid = Pid::from_raw(running.id().cast_signed());
    ptrace::seize(pid, ptrace::Options::empty()).expect("a program that may be traced");
    ptrace::interrupt(pid).expect("a running program");
    loop {
        let stopped = waitpid(pid, None).expect("a stopped program");
        assert!(
            !matches!(stopped, WaitStatus::Exited(..) | WaitStatus::Signaled(..)),
            "it read less of {}",
            file.display()
        );
        if position(pid, file).is_some_and(|position| position >= bytes) {
            break;
        }
        ptrace::syscall(pid, None).expect("a stopped program");
    }
    then();
    ptrace::detach(pid, None).expect("a stopped program");
}

/// How far a program has read a file that it has open (proc(5), `fdinfo`).
fn position(pid: Pid, file: &Path) -> Option<u64> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    let it = open.map(|e| e.path()).find(|link| fs::read_link(link).is_ok_and(|target| target == file))?;
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", it.file_name()?.to_str()?)).ok()?;
    info.lines().find_map(|line| line.strip_prefix("pos:")?.trim().parse().ok())
}

/// What the package manager could see.
struct Visible {
    staged: BTreeSet<String>,
    unverified: Vec<String>,
    dpkg: Sha256,
}

impl Visible {
    /// What there is now and should not be. `stages`: a new staged repository may be there, if all of it is right.
    fn faults(&self, after: &Visible, stages: bool) -> Vec<String> {
        let new = after.staged.difference(&self.staged).filter(|_| !stages);
        let staged = new.map(|name| format!("{STAGED}/{name} is staged"));
        let unverified = after.unverified.iter().map(|path| format!("{path} was never verified"));
        let dpkg = (self.dpkg != after.dpkg).then(|| format!("{DPKG} has changed"));
        staged.chain(unverified).chain(dpkg).collect()
    }
}

/// How one attack ended.
struct Row {
    ended: Ended,
    message: String,
    faults: Vec<String>,
    is_refused: bool,
    seconds: f64,
}

impl Row {
    fn is_as_promised(&self) -> bool {
        self.is_refused && self.faults.is_empty()
    }
}

/// A verb, and who runs it if that is not who should.
fn by(verb: &str, user: User) -> String {
    match (verb, user) {
        ("fetch" | "report", User::Prestage) | ("install" | "import" | "verify" | "status", User::Root) => {
            verb.to_owned()
        }
        _ => format!("{verb} as {}", format!("{user:?}").to_lowercase()),
    }
}

/// The line in which the program says why it ended, without what is different in every run.
fn message(output: &Output, stage: &Stage) -> String {
    let lines: Vec<&str> = output.stderr.lines().chain(output.stdout.lines()).collect();
    let own = lines
        .iter()
        .find_map(|line| line.strip_prefix("error: ").or_else(|| line.strip_prefix("deferred: ")));
    let line = own.or_else(|| lines.last().copied()).unwrap_or("(nothing)").to_owned();
    let places = [
        (stage.world.mirror.url(), "MIRROR/"),
        (stage.elsewhere.url(), "ELSEWHERE/"),
        (stage.fleet.url(), "FLEET/"),
        (format!("{}/", stage.world.sandbox.path().display()), ""),
    ];
    let line = places.iter().fold(line, |line, (from, to)| line.replace(from, to));
    shorten_digests(&line)
}

/// The end of what a program wrote: some attacks make it write without end.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// Digests by their first eight digits.
fn shorten_digests(line: &str) -> String {
    let mut out = String::new();
    let mut run = String::new();
    for c in line.chars().chain(['\0']) {
        if c.is_ascii_hexdigit() {
            run.push(c);
            continue;
        }
        out.push_str(if run.len() == 64 { &run[..8] } else { &run });
        if run.len() == 64 {
            out.push('…');
        }
        run.clear();
        out.push(c);
    }
    out.pop();
    out
}

/// Makes `to` a copy of the folder or file `from`.
pub fn copy(from: &Path, to: &Path) {
    succeed(command("rm").arg("-rf").arg(to));
    fs::create_dir_all(to.parent().expect("a parent")).expect("a folder");
    succeed(command("cp").arg("-a").arg(from).arg(to));
}

/// Makes all attacks, in so many worlds at the same time, prints the table to standard output, and fails if one did not
/// end as promised. `groups`: by attacker.
///
/// # Panics
/// If an attack did not end as promised, with all that is known of it.
pub fn hold(groups: &[(&str, Vec<Attack>)], lanes: usize) {
    let only = std::env::var(ONLY).unwrap_or_default();
    let all = groups.iter().flat_map(|(who, attacks)| attacks.iter().map(move |attack| (who, attack)));
    let is_wanted = |who: &str, attack: &Attack| who.contains(&only) || attack.name.contains(&only);
    let attacks: Vec<&Attack> = all.filter(|(who, a)| is_wanted(who, a)).map(|(_, attack)| attack).collect();
    for attack in &attacks {
        assert!(
            [2, 3].contains(&attack.code) == attack.because.is_empty(),
            "{}: give the reason",
            attack.name
        );
    }
    let names: BTreeSet<&str> = attacks.iter().map(|attack| attack.name).collect();
    assert_eq!(names.len(), attacks.len(), "two attacks of one name");
    let (next, rows) = (Mutex::new(0), Mutex::new(BTreeMap::new()));
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..lanes {
            scope.spawn(|| {
                let stage = Stage::new();
                let mut base = stage.node().image();
                loop {
                    let number = {
                        let mut next = next.lock().expect("no thread panics with it");
                        *next += 1;
                        *next - 1
                    };
                    let Some(attack) = attacks.get(number) else { break };
                    let row = stage.run(attack, &mut base);
                    rows.lock().expect("no thread panics with it").insert(number, row);
                }
                // Once more, with every file read: that what was remembered of them was right.
                stage.node().forget_digests();
                stage.node().assert_is(&base);
            });
        }
    });
    let rows = rows.into_inner().expect("no thread panics with it");
    print!("{}", table(groups, &attacks, &rows));
    let mut slowest: Vec<_> = rows.iter().map(|(number, row)| (row.seconds, attacks[*number].name)).collect();
    slowest.sort_by(|a, b| b.0.total_cmp(&a.0));
    let slowest: Vec<String> = slowest.iter().take(3).map(|(s, name)| format!("{name} {s:.1} s")).collect();
    println!(
        "{} attacks in {:.0} s; the longest: {}",
        rows.len(),
        begin.elapsed().as_secs_f64(),
        slowest.join(", ")
    );
    let failed: Vec<String> = rows
        .iter()
        .filter(|(_, row)| !row.is_as_promised())
        .map(|(number, row)| {
            let attack = attacks[*number];
            format!(
                "--- {}: expected exit code {} and {:?}\n{}\n{}",
                attack.name,
                attack.code,
                attack.says,
                tail(&row.ended.output.to_string()),
                row.faults.join("\n")
            )
        })
        .collect();
    assert!(failed.is_empty(), "{} attacks did not end as promised:\n{}", failed.len(), failed.join("\n"));
}

fn table(groups: &[(&str, Vec<Attack>)], attacks: &[&Attack], rows: &BTreeMap<usize, Row>) -> String {
    let rows: BTreeMap<&str, &Row> = rows.iter().map(|(number, row)| (attacks[*number].name, row)).collect();
    let head = ["attack", "how it is made", "verb", "exit", "message", "node unchanged"].map(str::to_owned);
    let mut tables = Vec::new();
    for (who, attacks) in groups {
        let lines = attacks.iter().filter_map(|attack| Some(cells(attack, rows.get(attack.name)?)));
        tables.push((who, [head.clone()].into_iter().chain(lines).collect::<Vec<_>>()));
    }
    tables.retain(|(_, lines)| lines.len() > 1);
    let width = |column: usize| {
        let cells =
            tables.iter().flat_map(|(_, lines)| lines.iter().map(move |line| line[column].chars().count()));
        cells.max().unwrap_or_default()
    };
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut out = String::new();
    for (who, lines) in tables {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "\n{who}\n");
        for (i, line) in lines.iter().enumerate() {
            let cells = line.iter().zip(widths).map(|(cell, width)| format!(" {cell:<width$} |"));
            let _ = writeln!(out, "|{}", cells.collect::<String>());
            if i == 0 {
                let rule = widths.map(|width| format!("{}|", "-".repeat(width + 2)));
                let _ = writeln!(out, "|{}", rule.concat());
            }
        }
    }
    out.push('\n');
    out
}

/// A message without what to do about it, and without its middle where it is too long: what was refused stands at its
/// beginning, and why at its end.
fn shorten(message: &str) -> String {
    let what: Vec<char> = message.rsplit_once("; ").map_or(message, |(what, _)| what).chars().collect();
    if what.len() <= MESSAGE {
        return what.into_iter().collect();
    }
    let (head, tail) = (&what[..MESSAGE / 2], &what[what.len() - MESSAGE / 2..]);
    [head, &['…'], tail].concat().into_iter().collect()
}

fn cells(attack: &Attack, row: &Row) -> [String; 6] {
    let code = row.ended.output.code.map_or_else(|| "killed".to_owned(), |code| code.to_string());
    let mark = if row.is_refused { "" } else { " NOT AS PROMISED" };
    let because = if attack.because.is_empty() { String::new() } else { format!(" ({})", attack.because) };
    let unchanged = match row.faults.first() {
        None => "yes".to_owned(),
        Some(first) => {
            format!("NO: {} files, {}", row.faults.len(), first.split(':').next().unwrap_or_default())
        }
    };
    // A bar would end the cell.
    let message = format!("{}{because}", shorten(&row.message)).replace('|', "/");
    [
        attack.name.to_owned(),
        attack.how.to_owned(),
        row.ended.verb.clone(),
        format!("{code}{mark}"),
        message,
        unchanged,
    ]
}
