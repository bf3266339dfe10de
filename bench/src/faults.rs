//! What goes wrong, and when: drawn once from the seed, the same for every contender and for the simulation. Pure.
//!
//! Amounts and lengths are parts of the window, so that a window of minutes sees as much trouble as one of days.

use std::time::Duration;

use lab::random::Random;

/// Of a hundred stores: how many lose their line once.
const LINES_CUT: u64 = 20;
/// For how long: thousandths of the window, from and to.
const LINE_OUTAGE: (u64, u64) = (40, 120);

/// Of a hundred nodes: how many lose their power once.
const POWER_CUTS: u64 = 15;
/// For how long, in thousandths of the window.
const POWER_OUTAGE: (u64, u64) = (30, 80);

/// How often the server is killed and started again.
const SERVER_RESTARTS: u64 = 3;
/// How long it is away, in thousandths of the window.
const SERVER_OUTAGE: (u64, u64) = (8, 12);

/// Of a hundred stores: how many times all connections of one are reset.
const RESETS: u64 = 100;

/// Faults fall into this part of the window, in thousandths: early enough that there is something to disturb, and a
/// chance left to recover.
const BEGIN: (u64, u64) = (20, 850);

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A store's line is cut.
    LineCut(usize),
    /// And whole again.
    LineWhole(usize),
    /// Every connection of a store is reset.
    Reset(usize),
    /// The server dies.
    ServerDown,
    /// And is started again.
    ServerUp,
    /// A node's power is cut.
    PowerCut(usize),
    /// And back: the node boots.
    PowerBack(usize),
}

/// The faults of a window, in order of time.
pub fn schedule(
    stores: usize,
    nodes_per_store: usize,
    window: Duration,
    seed: u64,
) -> Vec<(Duration, Fault)> {
    let mut random = Random::new(seed ^ 0xfa_0175);
    let mut part = |(from, to): (u64, u64)| {
        let thousandths = from * 1000 + random.below((to - from) * 1000);
        window.mul_f64(thousandths as f64 / 1e6)
    };
    let mut out = Vec::new();
    for _ in 0..SERVER_RESTARTS {
        let (at, length) = (part(BEGIN), part(SERVER_OUTAGE));
        out.extend([(at, Fault::ServerDown), (at + length, Fault::ServerUp)]);
    }
    let times: Vec<Duration> = (0..share(stores, RESETS)).map(|_| part(BEGIN)).collect();
    let outages: Vec<_> = (0..share(stores, LINES_CUT)).map(|_| (part(BEGIN), part(LINE_OUTAGE))).collect();
    let cuts: Vec<_> =
        (0..share(stores * nodes_per_store, POWER_CUTS)).map(|_| (part(BEGIN), part(POWER_OUTAGE))).collect();
    for at in times {
        out.push((at, Fault::Reset(random.below(stores as u64) as usize)));
    }
    for ((at, length), store) in outages.into_iter().zip(choose(stores, &mut random)) {
        out.extend([(at, Fault::LineCut(store)), (at + length, Fault::LineWhole(store))]);
    }
    for ((at, length), node) in cuts.into_iter().zip(choose(stores * nodes_per_store, &mut random)) {
        out.extend([(at, Fault::PowerCut(node)), (at + length, Fault::PowerBack(node))]);
    }
    out.sort();
    out
}

/// So many of a hundred, and at least one.
fn share(of: usize, hundredths: u64) -> usize {
    (of * hundredths as usize / 100).max(1)
}

/// All numbers below `n`, in an order of chance.
pub fn choose(n: usize, random: &mut Random) -> Vec<usize> {
    let mut out: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        out.swap(i, random.below(i as u64 + 1) as usize);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outage_ends_within_the_window_and_nobody_is_hit_twice_by_the_same() {
        let window = Duration::from_secs(240);
        let faults = schedule(60, 5, window, 1);
        assert_eq!(faults, schedule(60, 5, window, 1));
        assert_ne!(faults, schedule(60, 5, window, 2));
        assert!(faults.is_sorted() && faults.iter().all(|f| f.0 < window));
        let count = |wanted: fn(&Fault) -> bool| faults.iter().filter(|f| wanted(&f.1)).count();
        assert_eq!(count(|f| matches!(f, Fault::LineCut(_))), 12);
        assert_eq!(count(|f| matches!(f, Fault::PowerCut(_))), 45);
        assert_eq!(count(|f| matches!(f, Fault::PowerCut(_))), count(|f| matches!(f, Fault::PowerBack(_))));
        let mut cut: Vec<Fault> =
            faults.iter().map(|f| f.1).filter(|f| matches!(f, Fault::PowerCut(_))).collect();
        cut.sort();
        cut.dedup();
        assert_eq!(cut.len(), 45);
    }

    #[test]
    fn a_single_node_has_its_share_too() {
        assert!(schedule(1, 1, Duration::from_secs(15), 1).iter().any(|f| f.1 == Fault::PowerCut(0)));
    }
}
