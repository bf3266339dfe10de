//! The simulation: the same ways, faults and lines as the bench, for fleets that no machine can run.
//!
//! Discrete events decide (timers, tries, faults), fluids flow in between. *When* an agent acts is not modelled: the
//! simulated nodes call the agent's own functions for turns, polls, backoff and budget, with the simulated time. What is
//! modelled is TCP ([`lines`]) and how the ordinary tools meet a fault.

pub mod fleet; // what is simulated
mod lines; // how fast transfers are

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use agent::spread::{Decision, State};
use format::digest::Sha256;
use format::name::NodeId;
use format::time::UnixTime;
use host::zone::Zone;
use lab::random::Random;

use crate::Result;
use crate::faults::{Fault, choose};
use crate::record::Record;
use fleet::Fleet;
use lines::Lines;

/// A way to bring a fleet its patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The agent.
    Prestage,
    /// The whole bundle to all at once, with a loop that goes on where it stopped.
    Curl,
    /// The whole bundle, pushed to twenty at a time, three passes.
    Rsync,
    /// What each needs, to all at once.
    Apt,
}

impl Way {
    /// All of them.
    pub const ALL: [Way; 4] = [Way::Prestage, Way::Curl, Way::Rsync, Way::Apt];

    /// As in the bench.
    pub fn name(self) -> &'static str {
        match self {
            Way::Prestage => "prestage",
            Way::Curl => "curl",
            Way::Rsync => "rsync",
            Way::Apt => "apt",
        }
    }
}

/// The window is cut into so many steps, within which rates do not change.
const STEPS: i64 = 9600;

/// As many steps as make an interval of the record.
const STEPS_PER_INTERVAL: i64 = 20;

/// A run of the agent: failures in a row without a new byte before it ends, and the first pause (agent: fetch/tries.rs).
const TRIES: u32 = 3;
const FIRST_PAUSE: f64 = 0.5;

/// What an interruption costs the agent, in bytes: on average half of its receive buffer.
const WASTE: f64 = 16.0 * 1024.0;

/// What a poll costs at most, in bytes.
const POLL: f64 = 4096.0;

/// TCP's first wait before it sends again what was not answered, in seconds; doubled each time up to the largest
/// (RFC 6298; the kernel's bounds).
const RETRANSMIT: f64 = 0.25;
const RETRANSMIT_MOST: f64 = 120.0;

/// curl's and apt's time to connect, in seconds.
const CONNECT: f64 = 10.0;

/// Transfers that rsync's script has at a time, their limit in bytes a second, and its passes.
const PARALLEL: usize = 20;
const RSYNC_LIMIT: f64 = 2048.0 * 1024.0;
const PASSES: u32 = 3;

/// `--timeout=300` of a window of days, as part of the window that the bench has.
const RSYNC_TIMEOUT: f64 = 1.0 / 12.0;

/// When the simulated release is: any time does.
const RELEASE: UnixTime = UnixTime(1_795_000_000);

/// Milliseconds since the release.
type Millis = i64;

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// No power.
    Off,
    /// Nothing, until it is woken.
    Idle,
    /// It connects.
    Connecting,
    /// Bytes come.
    Moving,
    /// They do not, since then.
    Stalled(Millis),
    /// It has everything, or nobody cares for it any more.
    Over,
}

/// A node.
struct Node {
    id: NodeId,
    phase: Phase,
    /// Bytes on the line that are still to come.
    left: f64,
    /// Bytes left when the present try began.
    began_with: f64,
    /// Failures in a row within a run of the agent, and whether the run brought anything.
    failures: u32,
    progress: bool,
    /// Whether the run of the agent has yet to see what is offered.
    polling: bool,
    /// The agent's own memory.
    state: State,
    /// Which wake-up call is the valid one.
    call: u32,
    /// Where in the list of those at work it is, if it is.
    slot: usize,
    /// rsync's pass.
    pass: u32,
    done: Option<f64>,
    tries: u32,
    hit: bool,
}

/// What happens at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Fault(usize),
    Wake(usize, u32),
}

struct Simulation<'f> {
    fleet: &'f Fleet,
    way: Way,
    nodes: Vec<Node>,
    events: BinaryHeap<Reverse<(Millis, Event)>>,
    moving: Vec<usize>,
    cut: Vec<bool>,
    server: bool,
    /// rsync: who is next, and how many senders have nothing to do.
    list: VecDeque<usize>,
    idle_senders: usize,
    index: Sha256,
    random: Random,
    record: Record,
}

/// Simulates a way.
///
/// # Errors
/// If a node's name cannot be one.
pub fn simulate(fleet: &Fleet, way: Way) -> Result<Record> {
    let mut nodes = Vec::with_capacity(fleet.nodes());
    for node in 0..fleet.nodes() {
        let id = format!("store-{}-node-{}", node / fleet.nodes_per_store, node % fleet.nodes_per_store);
        nodes.push(Node {
            id: id.parse()?,
            phase: Phase::Idle,
            left: content(fleet, way, node) * fleet.calibration.wire,
            began_with: 0.0,
            failures: 0,
            progress: false,
            polling: false,
            state: State::new(),
            call: 0,
            slot: 0,
            pass: 1,
            done: None,
            tries: 0,
            hit: false,
        });
    }
    let mut random = Random::new(fleet.seed);
    let intervals = (STEPS / STEPS_PER_INTERVAL) as usize;
    let record = Record {
        name: way.name().to_owned(),
        window: fleet.window,
        uplink: fleet.uplink,
        interval: fleet.window / intervals as f64,
        sent: vec![0.0; intervals],
        stores: vec![0.0; fleet.stores],
        needs: (0..fleet.nodes()).map(|node| fleet.needs_of(node)).collect(),
        ..Record::default()
    };
    let mut simulation = Simulation {
        fleet,
        way,
        events: BinaryHeap::new(),
        moving: Vec::new(),
        cut: vec![false; fleet.stores],
        server: true,
        list: choose(nodes.len(), &mut Random::new(fleet.seed)).into(),
        idle_senders: PARALLEL,
        index: fleet.index,
        nodes,
        record,
        random: Random::new(random.next_u64()),
    };
    simulation.run();
    let mut record = simulation.record;
    record.done = simulation.nodes.iter().map(|node| node.done).collect();
    record.tries = simulation.nodes.iter().map(|node| node.tries).collect();
    record.hit = simulation.nodes.iter().map(|node| node.hit).collect();
    Ok(record)
}

/// Bytes of content that a way brings to a node.
fn content(fleet: &Fleet, way: Way, node: usize) -> f64 {
    match way {
        Way::Prestage | Way::Apt => fleet.needs_of(node),
        Way::Curl | Way::Rsync => fleet.bundle,
    }
}

fn millis(seconds: f64) -> Millis {
    (seconds * 1000.0).round() as Millis
}

impl Simulation<'_> {
    fn run(&mut self) {
        for (i, (at, _)) in self.fleet.faults.iter().enumerate() {
            self.events.push(Reverse((millis(*at), Event::Fault(i))));
        }
        match self.way {
            // A fleet's polls have long been spread.
            Way::Prestage => {
                for node in 0..self.nodes.len() {
                    let wait = self.draw(self.fleet.pace.poll_every as f64);
                    self.wake(node, 0, wait);
                }
            }
            Way::Curl | Way::Apt => {
                for node in 0..self.nodes.len() {
                    self.nodes[node].tries = 1;
                    self.connect(node, 0);
                }
            }
            Way::Rsync => self.send_next(0),
        }
        let window = millis(self.fleet.window);
        for step in 0..STEPS {
            let (from, to) = (window * step / STEPS, window * (step + 1) / STEPS);
            while let Some(Reverse((at, _))) = self.events.peek()
                && *at < to
            {
                let Some(Reverse((at, event))) = self.events.pop() else { break };
                match event {
                    Event::Fault(i) => self.fault(self.fleet.faults[i].1, at),
                    Event::Wake(node, call) if self.nodes[node].call == call => self.woken(node, at),
                    Event::Wake(..) => {}
                }
            }
            self.flow(from, to, (step / STEPS_PER_INTERVAL) as usize);
            if self.moving.is_empty() && self.nodes.iter().all(|n| n.phase == Phase::Over) {
                break;
            }
        }
    }

    /// Lets bytes flow for a step.
    fn flow(&mut self, from: Millis, to: Millis, interval: usize) {
        if self.moving.is_empty() {
            return;
        }
        let (fleet, given) = (self.fleet, self.fleet.calibration);
        let mut at_work = vec![0usize; fleet.stores];
        for node in &self.moving {
            at_work[node / fleet.nodes_per_store] += 1;
        }
        let mut stores_with = vec![0usize; fleet.nodes_per_store + 1];
        for n in &at_work {
            stores_with[*n] += 1;
        }
        let cap = match self.way {
            Way::Prestage => fleet.rate / 8.0 * given.wire,
            Way::Rsync => RSYNC_LIMIT * given.wire,
            Way::Curl | Way::Apt => f64::INFINITY,
        };
        let lines = Lines {
            store: fleet.store_rate / 8.0 * given.usable,
            uplink: fleet.uplink / 8.0 * given.usable,
            cap,
        };
        let rates = lines.rates(&stores_with);
        let seconds = (to - from) as f64 / 1000.0;
        let mut finished = Vec::new();
        for node in &self.moving {
            let store = node / fleet.nodes_per_store;
            let rate = rates[at_work[store]];
            let bytes = (rate * seconds).min(self.nodes[*node].left);
            self.nodes[*node].left -= bytes;
            self.record.sent[interval] += bytes;
            self.record.stores[store] += bytes;
            if self.nodes[*node].left <= 0.0 {
                finished.push((*node, from as f64 / 1000.0 + bytes / rate));
            }
        }
        for (node, at) in finished {
            self.finish(node, at);
        }
    }

    /// A node has everything, at that second.
    fn finish(&mut self, node: usize, at: f64) {
        self.phase(node, Phase::Over);
        self.nodes[node].tries += u32::from(self.way == Way::Prestage);
        // The agent syncs, links and accounts; half of what a run takes beside the transfer.
        let more = if self.way == Way::Prestage { self.fleet.calibration.run / 2.0 } else { 0.0 };
        if at + more <= self.fleet.window {
            self.nodes[node].done = Some(at + more);
        }
        if self.way == Way::Rsync {
            self.idle_senders += 1;
            self.send_next(millis(at));
        }
    }

    /// Sets what a node does; whatever was to wake it does not any more.
    fn phase(&mut self, node: usize, phase: Phase) {
        let before = std::mem::replace(&mut self.nodes[node].phase, phase);
        self.nodes[node].call += 1;
        match (before == Phase::Moving, phase == Phase::Moving) {
            (true, false) => {
                let slot = self.nodes[node].slot;
                self.moving.swap_remove(slot);
                if let Some(moved) = self.moving.get(slot) {
                    self.nodes[*moved].slot = slot;
                }
            }
            (false, true) => {
                self.nodes[node].slot = self.moving.len();
                self.moving.push(node);
            }
            _ => {}
        }
    }

    /// Wakes a node after so many seconds, if nothing else happens to it before.
    fn wake(&mut self, node: usize, now: Millis, seconds: f64) {
        let call = self.nodes[node].call;
        self.events.push(Reverse((now + millis(seconds).max(1), Event::Wake(node, call))));
    }

    /// A number of seconds below `span`.
    fn draw(&mut self, span: f64) -> f64 {
        self.random.below(1 << 30) as f64 / f64::from(1 << 30) * span
    }

    fn store_is_cut(&self, node: usize) -> bool {
        self.cut[node / self.fleet.nodes_per_store]
    }

    fn woken(&mut self, node: usize, now: Millis) {
        match self.nodes[node].phase {
            Phase::Idle if self.way == Way::Prestage => self.timer(node, now),
            Phase::Idle => {
                self.nodes[node].tries += 1;
                self.connect(node, now);
            }
            Phase::Connecting if self.store_is_cut(node) || !self.server => self.failed(node, now),
            Phase::Connecting if self.nodes[node].polling => self.offered(node, now),
            Phase::Connecting => self.move_on(node),
            // TCP has got through again, to a server that may be another one by now; or the patience is at its end.
            Phase::Stalled(_) if self.store_is_cut(node) || !self.server => self.failed(node, now),
            Phase::Stalled(_) => self.phase(node, Phase::Moving),
            Phase::Off | Phase::Moving | Phase::Over => {}
        }
    }

    /// Bytes begin to come.
    fn move_on(&mut self, node: usize) {
        self.nodes[node].began_with = self.nodes[node].left;
        self.phase(node, Phase::Moving);
    }

    /// The agent's timer fires: what the agent does then is the agent's own code.
    fn timer(&mut self, node: usize, now: Millis) {
        let (time, pace) = (self.unix(now), self.fleet.pace);
        let n = &mut self.nodes[node];
        n.state = std::mem::take(&mut n.state).awake(&n.id, &pace, time);
        if n.state.poll(time) != Decision::Go {
            return self.wait_for_timer(node, now);
        }
        (n.failures, n.progress, n.polling) = (0, false, true);
        self.connect(node, now);
    }

    /// A run of the agent sees what is offered.
    fn offered(&mut self, node: usize, now: Millis) {
        let (time, pace) = (self.unix(now), self.fleet.pace);
        self.nodes[node].polling = false;
        let interval = (now as f64 / 1000.0 / self.record.interval) as usize;
        let interval = interval.min(self.record.sent.len() - 1);
        self.record.sent[interval] += POLL;
        let n = &mut self.nodes[node];
        n.state = std::mem::take(&mut n.state).sees(self.index, time);
        match n.state.turn(&n.id, &pace, None, &Zone::UTC, time) {
            Decision::Wait { until, .. } => {
                n.state = std::mem::take(&mut n.state).polled(&n.id, &pace, Some(until), time);
                self.wait_for_timer(node, now);
            }
            Decision::Go => {
                n.state = std::mem::take(&mut n.state).takes_turn(None, &Zone::UTC, time);
                if n.began_with == 0.0 {
                    n.left += self.fleet.calibration.metadata; // once; later runs have it
                }
                self.move_on(node);
            }
        }
    }

    fn unix(&self, now: Millis) -> UnixTime {
        RELEASE.plus(now / 1000)
    }

    fn wait_for_timer(&mut self, node: usize, now: Millis) {
        self.phase(node, Phase::Idle);
        let wait = self.fleet.timer.every + self.draw(self.fleet.timer.jitter);
        self.wake(node, now, wait);
    }

    /// A node begins to connect; the answer comes after a while, or never.
    fn connect(&mut self, node: usize, now: Millis) {
        self.phase(node, Phase::Connecting);
        let wait = match (self.store_is_cut(node), self.way) {
            (true, Way::Prestage) => self.fleet.stall,
            (true, Way::Rsync) => self.fleet.window * RSYNC_TIMEOUT,
            (true, Way::Curl | Way::Apt) => CONNECT,
            (false, Way::Prestage) if self.server => self.fleet.calibration.run / 2.0,
            (false, Way::Rsync) if self.nodes[node].pass > 1 => self.fleet.pause,
            (false, _) => 0.1,
        };
        self.wake(node, now, wait);
    }

    /// A fault falls on a node, if something is being fetched for it.
    fn hit(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        // A script is at work from its first try to its last.
        let waits = n.phase == Phase::Idle && matches!(self.way, Way::Curl | Way::Apt);
        n.hit |= waits || matches!(n.phase, Phase::Connecting | Phase::Moving | Phase::Stalled(_));
    }

    /// A try of a node has failed.
    fn failed(&mut self, node: usize, now: Millis) {
        match self.way {
            Way::Curl | Way::Apt => {
                self.phase(node, Phase::Idle);
                self.wake(node, now, self.fleet.pause);
            }
            Way::Rsync => {
                self.phase(node, Phase::Idle);
                self.nodes[node].pass += 1;
                if self.nodes[node].pass <= PASSES {
                    self.list.push_back(node);
                }
                self.idle_senders += 1;
                self.send_next(now);
            }
            Way::Prestage => {
                let n = &mut self.nodes[node];
                if n.left < n.began_with {
                    (n.failures, n.progress) = (0, true);
                    n.left += WASTE.min(n.began_with - n.left);
                    n.began_with = n.left;
                }
                n.failures += 1;
                if n.failures < TRIES {
                    let pause = FIRST_PAUSE * f64::from(1 << (n.failures - 1));
                    let silence = if self.store_is_cut(node) { self.fleet.stall } else { 0.0 };
                    self.phase(node, Phase::Connecting);
                    return self.wake(node, now, pause + silence);
                }
                let (time, pace) = (self.unix(now), self.fleet.pace);
                let n = &mut self.nodes[node];
                n.tries += 1;
                n.state = std::mem::take(&mut n.state).failed(&n.id, &pace, None, n.progress, time);
                self.wait_for_timer(node, now);
            }
        }
    }

    /// rsync's senders take whom they find in the list.
    fn send_next(&mut self, now: Millis) {
        while self.server
            && self.idle_senders > 0
            && let Some(node) = self.list.pop_front()
        {
            self.idle_senders -= 1;
            self.nodes[node].tries += 1;
            if self.nodes[node].phase == Phase::Off {
                // Refused at once, and tried again after the rest of the list.
                self.idle_senders += 1;
                self.nodes[node].pass += 1;
                if self.nodes[node].pass <= PASSES {
                    self.list.push_back(node);
                }
                continue;
            }
            self.connect(node, now);
        }
    }

    fn fault(&mut self, fault: Fault, now: Millis) {
        let of = |store: usize| store * self.fleet.nodes_per_store..(store + 1) * self.fleet.nodes_per_store;
        match fault {
            Fault::LineCut(store) => {
                self.cut[store] = true;
                for node in of(store) {
                    self.hit(node);
                    if self.nodes[node].phase == Phase::Moving {
                        self.phase(node, Phase::Stalled(now));
                        match self.way {
                            Way::Prestage => self.wake(node, now, self.fleet.stall),
                            Way::Rsync => self.wake(node, now, self.fleet.window * RSYNC_TIMEOUT),
                            Way::Curl | Way::Apt => {}
                        }
                    }
                }
            }
            Fault::LineWhole(store) => {
                self.cut[store] = false;
                for node in of(store) {
                    if let Phase::Stalled(since) = self.nodes[node].phase {
                        let again =
                            retransmission((now - since) as f64 / 1000.0) - (now - since) as f64 / 1000.0;
                        self.nodes[node].call += 1;
                        self.wake(node, now, again);
                    }
                }
            }
            Fault::Reset(store) => {
                for node in of(store) {
                    self.hit(node);
                    if matches!(self.nodes[node].phase, Phase::Moving | Phase::Stalled(_)) {
                        self.failed(node, now);
                    }
                }
            }
            Fault::ServerDown => {
                self.server = false;
                (0..self.nodes.len()).for_each(|node| self.hit(node));
                for node in std::mem::take(&mut self.moving) {
                    // Taken out of the list already, which would take long one by one.
                    self.nodes[node].phase = Phase::Connecting;
                    self.failed(node, now);
                }
            }
            Fault::ServerUp => {
                self.server = true;
                if self.way == Way::Rsync {
                    self.send_next(now);
                }
            }
            Fault::PowerCut(node) => {
                if self.nodes[node].phase == Phase::Over {
                    return;
                }
                self.nodes[node].hit = true;
                let was_sent_to =
                    matches!(self.nodes[node].phase, Phase::Connecting | Phase::Moving | Phase::Stalled(_));
                match self.way {
                    Way::Rsync if was_sent_to => self.failed(node, now),
                    Way::Prestage if was_sent_to => self.nodes[node].tries += 1,
                    _ => {}
                }
                self.phase(node, Phase::Off);
            }
            Fault::PowerBack(node) if self.nodes[node].phase == Phase::Off => match self.way {
                Way::Prestage => {
                    self.phase(node, Phase::Idle);
                    let wait = self.fleet.timer.boot + self.draw(self.fleet.timer.jitter);
                    self.wake(node, now, wait);
                }
                Way::Rsync => self.phase(node, Phase::Idle),
                // Nobody starts the script again.
                Way::Curl | Way::Apt => self.phase(node, Phase::Over),
            },
            Fault::PowerBack(_) => {}
        }
    }
}

/// After how many seconds TCP sends again, if nothing has come through for `silence` seconds.
fn retransmission(silence: f64) -> f64 {
    let (mut at, mut wait) = (RETRANSMIT, RETRANSMIT);
    while at < silence {
        wait = (wait * 2.0).min(RETRANSMIT_MOST);
        at += wait;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet::Calibration;

    const PLAIN: Calibration = Calibration { wire: 1.05, usable: 0.97, metadata: 40_000.0, run: 1.0 };

    fn fleet(nodes: usize) -> Fleet {
        Fleet::of(nodes, PLAIN, 1)
    }

    fn without_faults(fleet: Fleet) -> Fleet {
        Fleet { faults: Vec::new(), ..fleet }
    }

    #[test]
    fn a_node_alone_takes_as_long_as_its_line_and_the_same_seed_takes_as_long_again() {
        let mut fleet = without_faults(fleet(1));
        (fleet.nodes_per_store, fleet.uplink) = (1, 1e9);
        let curl = simulate(&fleet, Way::Curl).unwrap();
        let seconds = fleet.bundle * PLAIN.wire / (fleet.store_rate / 8.0 * PLAIN.usable);
        let half = curl.figures().half.unwrap();
        assert!((half - seconds).abs() < 2.0, "{half} s, not {seconds} s");
        assert_eq!(curl.done, simulate(&fleet, Way::Curl).unwrap().done);
    }

    #[test]
    fn what_is_sent_is_what_is_needed_and_its_overhead_in_every_way() {
        let fleet = without_faults(fleet(200));
        for way in Way::ALL {
            let record = simulate(&fleet, way).unwrap();
            if record.figures().success < 1.0 {
                continue; // what did not arrive was not sent
            }
            let content: f64 = (0..fleet.nodes()).map(|node| content(&fleet, way, node)).sum();
            let ratio = record.figures().sent / (content * PLAIN.wire);
            assert!((0.999..1.01).contains(&ratio), "{way:?}: {ratio}");
            assert!((record.stores.iter().sum::<f64>() / record.figures().sent - 1.0).abs() < 0.01);
        }
    }

    #[test]
    fn no_line_carries_more_than_it_can() {
        let fleet = fleet(500);
        for way in Way::ALL {
            let record = simulate(&fleet, way).unwrap();
            assert!(record.peak(record.interval) <= fleet.uplink, "{way:?}");
        }
    }

    #[test]
    fn agents_recover_from_every_fault_without_hands_and_stay_far_below_all_at_once() {
        let fleet = fleet(2000);
        let (agents, curl) = (
            simulate(&fleet, Way::Prestage).unwrap().figures(),
            simulate(&fleet, Way::Curl).unwrap().figures(),
        );
        assert!(agents.success >= 0.999 && agents.hit > 0.02, "{agents:?}");
        assert!(agents.peak <= curl.peak * 0.08, "{} of {}", agents.peak, curl.peak);
        assert!(
            curl.success < 1.0,
            "a script that nobody starts again stays where the power left it: {curl:?}"
        );
    }

    #[test]
    fn a_poll_that_met_a_dead_server_does_not_make_it_the_nodes_turn() {
        let mut fleet = without_faults(fleet(2000));
        let begun = |fleet: &Fleet| {
            let record = simulate(fleet, Way::Prestage).unwrap();
            record.done.iter().flatten().filter(|at| **at < 7200.0).count()
        };
        let even = begun(&fleet);
        // Away for moments, again and again, while every node polls for the first time.
        let moments = (0..720).map(|i| f64::from(i) * 5.0);
        fleet.faults =
            moments.flat_map(|at| [(at, Fault::ServerDown), (at + 1.0, Fault::ServerUp)]).collect();
        assert!(begun(&fleet) <= even * 5 / 4, "{} instead of {even}", begun(&fleet));
    }

    #[test]
    fn a_repository_that_is_away_for_a_day_is_not_asked_all_day() {
        let mut fleet = without_faults(fleet(500));
        fleet.faults = vec![(3600.0, Fault::ServerDown), (31.0 * 3600.0, Fault::ServerUp)];
        let figures = simulate(&fleet, Way::Prestage).unwrap().figures();
        assert!(figures.success == 1.0 && figures.retries > 5.0 && figures.retries < 20.0, "{figures:?}");
    }

    #[test]
    fn a_data_centre_that_was_away_is_not_run_over_when_it_is_back() {
        let mut fleet = without_faults(fleet(2000));
        let even = simulate(&fleet, Way::Prestage).unwrap().figures().peak;
        fleet.faults = vec![(8.0 * 3600.0, Fault::ServerDown), (10.0 * 3600.0, Fault::ServerUp)];
        let after = simulate(&fleet, Way::Prestage).unwrap().figures();
        assert_eq!(after.success, 1.0);
        assert!(after.peak <= even * 3.0, "{} after the outage, {even} without one", after.peak);
    }
}
