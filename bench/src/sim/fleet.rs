//! The fleet that is simulated: its size, its lines, its habits. Made of a bench's scale, or as large as one likes.

use std::time::Duration;

use agent::spread::Pace;
use format::digest::Sha256;

use crate::faults::{self, Fault};
use crate::scale::Scale;
use crate::stock::Stock;

/// When a timer fires, in seconds: after boot, and after the program that it started has ended; each with a random
/// delay of up to `jitter` more (systemd.timer(5)).
#[derive(Clone, Copy, Debug)]
pub struct Timer {
    /// `OnBootSec`.
    pub boot: f64,
    /// `OnUnitInactiveSec`.
    pub every: f64,
    /// `RandomizedDelaySec`.
    pub jitter: f64,
}

/// What was measured of single transfers on idle lines, and is taken as given.
#[derive(Clone, Copy, Debug)]
pub struct Calibration {
    /// Bytes on the line for each byte of content: headers, and what the wire loses.
    pub wire: f64,
    /// The part of a line that a transfer fills.
    pub usable: f64,
    /// What the agent fetches beside packages, in bytes on the line.
    pub metadata: f64,
    /// Seconds from the agent's start to its first package, and from the last to its end.
    pub run: f64,
}

/// A fleet. Times in seconds, sizes in bytes, rates in bit/s.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// Stores.
    pub stores: usize,
    /// Nodes in each.
    pub nodes_per_store: usize,
    /// From the release to the deadline.
    pub window: f64,
    /// Each store's line.
    pub store_rate: f64,
    /// The data centre's line.
    pub uplink: f64,
    /// The whole bundle.
    pub bundle: f64,
    /// What a node needs of it: node `n` as the entry `n` modulo their number.
    pub needs: Vec<f64>,
    /// `[fetch] rate` of the agents.
    pub rate: f64,
    /// `[fetch] stall-timeout-seconds`.
    pub stall: f64,
    /// How the agents are paced.
    pub pace: Pace,
    /// Their timer.
    pub timer: Timer,
    /// Before a script tries again.
    pub pause: f64,
    /// What goes wrong.
    pub faults: Vec<(f64, Fault)>,
    /// Of everything that is drawn.
    pub seed: u64,
    /// The bundle's index, by which nodes know it: their turns depend on it.
    pub index: Sha256,
    /// What is taken as given.
    pub calibration: Calibration,
}

impl Fleet {
    /// The fleet of a bench.
    pub fn of_bench(scale: &Scale, stock: &Stock, calibration: Calibration) -> Fleet {
        Fleet {
            stores: scale.stores,
            nodes_per_store: scale.nodes_per_store,
            window: scale.window.as_secs_f64(),
            store_rate: scale.store_rate as f64,
            uplink: scale.uplink as f64,
            bundle: stock.bundle_bytes as f64,
            needs: stock.kinds.iter().map(|kind| kind.bytes as f64).collect(),
            rate: scale.rate(stock.needs()),
            stall: scale.stall().as_secs_f64(),
            pace: scale.pace(),
            timer: scale.timer(),
            pause: scale.pause().as_secs_f64(),
            faults: faults(scale.stores, scale.nodes_per_store, scale.window, scale.seed),
            seed: scale.seed,
            index: stock.index,
            calibration,
        }
    }

    /// A fleet as it might be: stores of five on 4 Mbit/s, 0.1 Mbit/s of a data centre's line for each node, a bundle
    /// of 500 MB of which a node needs what was measured on a kiosk, three days, and agents as they are shipped.
    pub fn of(nodes: usize, calibration: Calibration, seed: u64) -> Fleet {
        const HOUR: f64 = 3600.0;
        let (nodes_per_store, window) = (5, 72.0 * HOUR);
        let stores = nodes.div_ceil(nodes_per_store);
        Fleet {
            stores,
            nodes_per_store,
            window,
            store_rate: 4e6,
            uplink: 1e5 * (stores * nodes_per_store) as f64,
            bundle: 500e6,
            needs: vec![48.4e6],
            rate: 1e6,
            stall: 60.0,
            pace: Pace::default(),
            timer: Timer { boot: 300.0, every: 600.0, jitter: 300.0 },
            pause: 60.0,
            faults: faults(stores, nodes_per_store, Duration::from_secs_f64(window), seed),
            seed,
            index: Sha256::of(b"a bundle"),
            calibration,
        }
    }

    /// Nodes in all.
    pub fn nodes(&self) -> usize {
        self.stores * self.nodes_per_store
    }

    /// What a node needs.
    pub fn needs_of(&self, node: usize) -> f64 {
        self.needs[node % self.needs.len()]
    }
}

fn faults(stores: usize, nodes_per_store: usize, window: Duration, seed: u64) -> Vec<(f64, Fault)> {
    let faults = faults::schedule(stores, nodes_per_store, window, seed);
    faults.into_iter().map(|(at, fault)| (at.as_secs_f64(), fault)).collect()
}
