//! One contender's run: every node at once, the same faults at the same times, until all have everything or the window
//! is over.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use crate::Result;
use crate::contender::Contender;
use crate::faults::{self, Fault};
use crate::machine::{Ended, Machine};
use crate::meter::{self, Reading};
use crate::network::Network;
use crate::record::Record;
use crate::scale::Scale;
use crate::server::Server;
use crate::stock::Stock;

/// How often in a window the lines are read.
const READINGS: u32 = 480;

/// Until what is still on the way has arrived, between two contenders.
const SETTLE: Duration = Duration::from_secs(1);

/// What all contenders have in common.
pub struct Bench {
    /// How large.
    pub scale: Scale,
    /// What is distributed.
    pub stock: Stock,
    /// Over what.
    pub network: Network,
    /// From where.
    pub server: Server,
    /// Where every node has its root, in a mount namespace of its own.
    pub root: PathBuf,
    /// Where what the nodes' programs said is kept.
    pub logs: PathBuf,
    /// Where nodes have their files: a file system in memory, for on real nodes each has a disk of its own.
    pub work: PathBuf,
}

/// A run.
pub struct Run<'b> {
    /// What it runs on.
    pub bench: &'b Bench,
    /// The nodes.
    nodes: Vec<Machine>,
    /// Where the nodes of this contender are.
    folder: PathBuf,
    /// When it began.
    start: Instant,
    log: Mutex<Log>,
    changed: Condvar,
}

/// What has been seen of each node.
struct Log {
    done: Vec<Option<Duration>>,
    tries: Vec<u32>,
    /// Whether something is being fetched for it.
    busy: Vec<bool>,
    hit: Vec<bool>,
    /// The first failure of the bench itself.
    failure: Option<String>,
}

/// One node of a run.
pub struct Seat<'r> {
    /// The run.
    pub run: &'r Run<'r>,
    /// Which node.
    pub node: usize,
    /// Its power.
    pub machine: &'r Machine,
    /// Its files.
    pub folder: PathBuf,
}

impl Seat<'_> {
    /// Runs a program on the node, at the lowest priority: so many nodes share so few cores.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn run(&self, program: &mut Command) -> Result<Ended> {
        let mut nice = Command::new("nice");
        nice.arg("-n10").arg(program.get_program()).args(program.get_args());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => nice.env(name, value),
                None => nice.env_remove(name),
            };
        }
        let log = fs::File::options().create(true).append(true).open(self.folder.join("log"))?;
        self.machine.run(nice.current_dir(&self.folder).stdout(log.try_clone()?).stderr(log))
    }

    /// Something is being fetched for it from now on, or not any more: a fault hits it only meanwhile.
    pub fn busy(&self, busy: bool) {
        self.run.log().busy[self.node] = busy;
    }

    /// It, or somebody for it, has tried to fetch.
    pub fn tried(&self) {
        self.run.log().tries[self.node] += 1;
    }

    /// It says that it has everything.
    pub fn done(&self) {
        let at = self.run.start.elapsed();
        self.run.log().done[self.node].get_or_insert(at);
        self.run.changed.notify_all();
    }
}

impl<'b> Run<'b> {
    /// One node of it.
    pub fn seat<'r>(&'r self, node: usize) -> Seat<'r>
    where
        'b: 'r,
    {
        let folder = self.folder.join(self.bench.scale.id(node));
        Seat { run: self, node, machine: &self.nodes[node], folder }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A fault hits those of these nodes that are at work.
    fn hit(&self, nodes: impl Fn(usize) -> bool) {
        let mut log = self.log();
        for node in (0..log.hit.len()).filter(|node| nodes(*node)) {
            log.hit[node] |= log.busy[node] && log.done[node].is_none();
        }
    }

    /// Notes a failure of the bench itself, which ends it.
    fn note(&self, result: Result<()>) {
        if let Err(error) = result {
            self.log().failure.get_or_insert(error.to_string());
            self.changed.notify_all();
        }
    }
}

/// Who takes part, and whether anything goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// Everybody, with all faults.
    Fleet,
    /// The first node alone, on idle lines, and nothing fails but the frames that the wire loses.
    Alone,
}

/// Runs a contender.
///
/// # Errors
/// If the bench itself fails; what becomes of the nodes is the result.
pub fn run(bench: &Bench, contender: &dyn Contender, course: Course) -> Result<Record> {
    let scale = &bench.scale;
    let nodes = if course == Course::Fleet { scale.nodes() } else { 1 };
    let log = Log {
        done: vec![None; nodes],
        tries: vec![0; nodes],
        busy: vec![false; nodes],
        hit: vec![false; nodes],
        failure: None,
    };
    let mut run = Run {
        bench,
        nodes: (0..nodes).map(|_| Machine::default()).collect(),
        folder: bench.work.join(contender.name()),
        start: Instant::now(),
        log: Mutex::new(log),
        changed: Condvar::new(),
    };
    for node in 0..nodes {
        let seat = run.seat(node);
        fs::create_dir_all(&seat.folder)?;
        contender.furnish(&seat)?;
    }

    let server = Machine::default();
    let senders: Vec<Machine> = (0..contender.senders()).map(|_| Machine::default()).collect();
    let conductor = Machine::default();
    let stop = AtomicBool::new(false);
    let interval = scale.window / READINGS;
    let readings = std::thread::scope(|scope| -> Result<_> {
        let mut threads: Vec<ScopedJoinHandle<'_, ()>> = Vec::new();
        let serve = || bench.network.centre.enter().and_then(|()| bench.server.serve(&server));
        let served = scope.spawn(serve);
        bench.server.wait(&bench.network.centre).inspect_err(|_| server.end())?;
        run.start = Instant::now();
        let run = &run;
        let meter = scope.spawn(|| meter::watch(&bench.network, scale.stores, run.start, interval, &stop));
        for machine in &senders {
            let send = move || bench.network.centre.enter().and_then(|()| contender.send(run, machine));
            threads.extend(spawn(scope, run, send));
        }
        for node in 0..nodes {
            let namespace = &bench.network.stores[scale.store_of(node)];
            let live = move || namespace.enter().and_then(|()| contender.live(&run.seat(node)));
            threads.extend(spawn(scope, run, live));
        }
        if course == Course::Fleet {
            let conduct = || run.note(cause(run, &conductor, &server, &senders));
            threads.push(scope.spawn(conduct));
        }

        wait_for_the_end(run);
        for machine in run.nodes.iter().chain(&senders).chain([&conductor, &server]) {
            machine.end();
        }
        for thread in threads {
            let _ = thread.join();
        }
        stop.store(true, Ordering::Release);
        run.note(served.join().unwrap_or_else(|_| Err("the server's thread died".into())));
        for store in 0..scale.stores {
            bench.network.set_line(store, true)?;
        }
        let readings = meter.join().unwrap_or_else(|_| Err("the meter died".into()));
        std::thread::sleep(SETTLE);
        readings
    })?;

    let done = verified(&run, contender)?;
    let log = run.log.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(failure) = log.failure {
        return Err(format!("{}: {failure}", contender.name()).into());
    }
    fs::remove_dir_all(&run.folder)?;
    let sent = evenly(&readings, interval.as_secs_f64());
    let (first, last) =
        (readings.first().cloned().unwrap_or_default(), readings.last().cloned().unwrap_or_default());
    Ok(Record {
        name: contender.name().to_owned(),
        window: scale.window.as_secs_f64(),
        uplink: scale.uplink as f64,
        interval: interval.as_secs_f64(),
        sent,
        received: (last.received - first.received) as f64,
        stores: last.stores.iter().zip(&first.stores).map(|(b, a)| (b - a) as f64).collect(),
        done,
        tries: log.tries,
        hit: log.hit,
        needs: (0..nodes).map(|node| bench.stock.kind(node).bytes as f64).collect(),
    })
}

/// When each node had everything. What a node says of itself is not enough: every byte is looked at. Keeps what its
/// programs said.
fn verified(run: &Run<'_>, contender: &dyn Contender) -> Result<Vec<Option<f64>>> {
    let (scale, logs) = (&run.bench.scale, run.bench.logs.join(contender.name()));
    fs::create_dir_all(&logs)?;
    let mut done = Vec::new();
    for node in 0..run.nodes.len() {
        let seat = run.seat(node);
        if let Ok(log) = fs::read(seat.folder.join("log")) {
            fs::write(logs.join(scale.id(node)), log)?;
        }
        if let Some(tries) = contender.tries_of(&seat) {
            run.log().tries[node] = tries;
        }
        let said = run.log().done[node];
        if said.is_some() && !contender.holds(&seat)? {
            let (id, logs) = (scale.id(node), logs.display());
            let name = contender.name();
            return Err(format!("{name}: {id} says that it has everything, and has not; see {logs}").into());
        }
        done.push(said.map(|at| at.as_secs_f64()));
    }
    Ok(done)
}

/// Bytes from the data centre in intervals of equal length, from readings that a busy machine takes late.
fn evenly(readings: &[Reading], interval: f64) -> Vec<f64> {
    let mut out = Vec::new();
    let (mut pairs, mut before) = (readings.windows(2).peekable(), 0.0);
    for tick in 1.. {
        let at = interval * f64::from(tick);
        while pairs.next_if(|pair| pair[1].at.as_secs_f64() < at).is_some() {}
        let Some(pair) = pairs.peek() else { break };
        let (from, to) = (pair[0].at.as_secs_f64(), pair[1].at.as_secs_f64());
        let part = ((at - from) / (to - from)).clamp(0.0, 1.0);
        let sum = (pair[0].sent - readings[0].sent) as f64 + part * (pair[1].sent - pair[0].sent) as f64;
        out.push(sum - before);
        before = sum;
    }
    out
}

/// A thread of a node or a sender: they need little stack, and there are many. If there are too many, the bench ends.
fn spawn<'s, 'e>(
    scope: &'s Scope<'s, 'e>,
    run: &'s Run<'_>,
    work: impl FnOnce() -> Result<()> + Send + 's,
) -> Option<ScopedJoinHandle<'s, ()>> {
    let thread = Builder::new().stack_size(256 * 1024).spawn_scoped(scope, move || run.note(work()));
    thread
        .map_err(|e| run.note(Err(format!("a thread for each node: {e}; fewer NODES or STORES").into())))
        .ok()
}

/// Until every node has everything, the window is over, or the bench has failed.
fn wait_for_the_end(run: &Run<'_>) {
    let end = run.start + run.bench.scale.window;
    let mut log = run.log();
    while log.failure.is_none() && log.done.iter().any(Option::is_none) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        log = run.changed.wait_timeout(log, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// Causes the faults, each at its time.
fn cause(run: &Run<'_>, conductor: &Machine, server: &Machine, senders: &[Machine]) -> Result<()> {
    let (scale, network) = (&run.bench.scale, &run.bench.network);
    for (at, fault) in faults::schedule(scale.stores, scale.nodes_per_store, scale.window, scale.seed) {
        if !conductor.wait((run.start + at).saturating_duration_since(Instant::now())) {
            return Ok(());
        }
        match fault {
            Fault::LineCut(store) => {
                network.set_line(store, false)?;
                run.hit(|node| scale.store_of(node) == store);
            }
            Fault::LineWhole(store) => network.set_line(store, true)?,
            Fault::Reset(store) => {
                run.hit(|node| scale.store_of(node) == store);
                network.reset(store)?;
            }
            // What a contender sends from the data centre is its server.
            Fault::ServerDown => {
                run.hit(|_| true);
                [server].into_iter().chain(senders).for_each(Machine::cut);
            }
            Fault::ServerUp => [server].into_iter().chain(senders).for_each(Machine::restore),
            Fault::PowerCut(node) => {
                let mut log = run.log();
                log.hit[node] |= log.done[node].is_none();
                drop(log);
                run.nodes[node].cut();
            }
            Fault::PowerBack(node) => run.nodes[node].restore(),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_readings_are_spread_over_the_intervals_that_they_stand_for() {
        let reading = |at, sent| Reading { at: Duration::from_millis(at), sent, ..Reading::default() };
        // The reading at two seconds came half a second late.
        let readings = [reading(0, 1000), reading(1000, 1100), reading(2500, 1400), reading(3000, 1400)];
        assert_eq!(evenly(&readings, 1.0), [100.0, 200.0, 100.0]);
        assert!(evenly(&readings[..1], 1.0).is_empty());
    }
}
