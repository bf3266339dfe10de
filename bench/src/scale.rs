//! How large the bench is: from the environment, with defaults that keep the proportions.
//!
//! A fleet of 60 stores on lines of 4 Mbit/s asks two and a half times what a data centre with 100 Mbit/s can give. A
//! smaller fleet gets a smaller data centre, so that the same thing is scarce.

use std::time::Duration;

use agent::spread::Pace;

use crate::Result;
use crate::sim::Way;
use crate::sim::fleet::Timer;

/// What a bench is made of.
#[derive(Clone, Debug)]
pub struct Scale {
    /// `STORES`.
    pub stores: usize,
    /// `NODES`: in each store.
    pub nodes_per_store: usize,
    /// `SEED`: of packages, faults and losses.
    pub seed: u64,
    /// `WINDOW`: seconds that each contender has, from the release to the deadline.
    pub window: Duration,
    /// `STORE_RATE`: of each store's line towards the store, in bit/s.
    pub store_rate: u64,
    /// `UPLINK`: of the data centre's line, in bit/s.
    pub uplink: u64,
    /// `DELAY_MS`: from a store to the data centre and back, in milliseconds.
    pub round_trip: Duration,
    /// `LOSS_PPM`: frames of a million that the wire drops, each way.
    pub loss_ppm: u32,
    /// `BUNDLE`: size of the bundle, in bytes.
    pub bundle: u64,
    /// `CONTENDERS`: who takes part, by name.
    pub contenders: Vec<String>,
    /// `SIMULATED`: the sizes of the fleets to simulate, in nodes.
    pub simulated: Vec<usize>,
}

/// The part of its line that a store has for sending; as DSL lines have it.
const UPSTREAM_SHARE: u64 = 4;

/// Part of the window that one whole bundle for everybody would take if the data centre's line were always full and
/// nothing failed: tight, and possible.
const ALL_AT_ONCE_SHARE: f64 = 0.7;

impl Scale {
    /// Reads it from variables such as the environment's.
    ///
    /// # Errors
    /// If one is not a number, or out of range.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Scale> {
        let number = |name: &str, default: u64, least: u64, most: u64| -> Result<u64> {
            let value = match variable(name) {
                None => default,
                Some(text) => text.parse().map_err(|e| format!("{name}={text}: {e}"))?,
            };
            if (least..=most).contains(&value) {
                Ok(value)
            } else {
                Err(format!("{name}={value}: from {least} to {most} is possible").into())
            }
        };
        let stores = number("STORES", 60, 1, 1000)?;
        let nodes = number("NODES", 5, 1, 50)?;
        let all = stores * nodes;
        let window = number("WINDOW", (all * 4 / 5).clamp(15, 240), 5, 3600)?;
        let store_rate = number("STORE_RATE", 4_000_000, 100_000, 1_000_000_000)?;
        let uplink =
            number("UPLINK", (stores * store_rate * 5 / 12).max(store_rate), 100_000, 1_000_000_000)?;
        let bundle = (uplink / 8 * window) as f64 * ALL_AT_ONCE_SHARE / all as f64;
        // A small bench is for trying things out.
        let sizes = if all < 100 { "10000" } else { "10000 100000" };
        let simulated = variable("SIMULATED").unwrap_or_else(|| sizes.into());
        let simulated = simulated.split_whitespace().map(str::parse).collect::<std::result::Result<_, _>>();
        let mut known: Vec<&str> = Way::ALL.iter().map(|way| way.name()).collect();
        known.push("prestage-sharing");
        let contenders = variable("CONTENDERS").unwrap_or_else(|| known.join(" "));
        let contenders: Vec<String> = contenders.split_whitespace().map(str::to_owned).collect();
        if let Some(unknown) = contenders.iter().find(|name| !known.contains(&name.as_str())) {
            return Err(format!("CONTENDERS: there is no {unknown}; there are {}", known.join(", ")).into());
        }
        Ok(Scale {
            contenders,
            stores: usize::try_from(stores)?,
            nodes_per_store: usize::try_from(nodes)?,
            seed: number("SEED", 1, 0, u64::MAX)?,
            window: Duration::from_secs(window),
            store_rate,
            uplink,
            round_trip: Duration::from_millis(number("DELAY_MS", 40, 0, 2000)?),
            loss_ppm: u32::try_from(number("LOSS_PPM", 1000, 0, 500_000)?)?,
            bundle: number("BUNDLE", bundle as u64, 100_000, 100_000_000)?,
            simulated: simulated.map_err(|e| format!("SIMULATED: {e}: numbers of nodes are wanted"))?,
        })
    }

    /// Nodes in all.
    pub fn nodes(&self) -> usize {
        self.stores * self.nodes_per_store
    }

    /// The store of a node.
    pub fn store_of(&self, node: usize) -> usize {
        node / self.nodes_per_store
    }

    /// What a store can send, in bit/s.
    pub fn store_upstream(&self) -> u64 {
        self.store_rate / UPSTREAM_SHARE
    }

    /// `[fetch] rate` of the agents, in bit/s: at it, a node's own transfer takes an eighth of the window.
    pub fn rate(&self, needs: f64) -> f64 {
        needs * 8.0 / (self.window.as_secs_f64() / 8.0)
    }

    /// `[fetch] stall-timeout-seconds` of the agents: ten seconds in a window of four minutes.
    pub fn stall(&self) -> Duration {
        Duration::from_secs((self.window.as_secs() / 24).max(2))
    }

    /// How the agents are paced: as they are shipped, for a window that is hundreds of times shorter; but polls come
    /// only ten times in it, for hundreds of agents share two cores here.
    pub fn pace(&self) -> Pace {
        let part = |divisor: u64| i64::try_from((self.window.as_secs() / divisor).max(1)).unwrap_or(1);
        Pace {
            poll_every: part(10),
            spread_over: part(2),
            retry_first: part(80),
            retry_cap: part(10),
            ..Pace::default()
        }
    }

    /// The agents' timer: four times as often as they poll.
    pub fn timer(&self) -> Timer {
        let window = self.window.as_secs_f64();
        Timer { boot: window / 80.0, every: window / 60.0, jitter: window / 80.0 }
    }

    /// Before a script tries again: five seconds in a window of four minutes.
    pub fn pause(&self) -> Duration {
        self.window / 48
    }

    /// A node's id, which decides its place in the fleet.
    pub fn id(&self, node: usize) -> String {
        format!("store-{}-node-{}", self.store_of(node), node % self.nodes_per_store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &'static [(&str, &str)]) -> Result<Scale> {
        let variables = move |name: &str| variables.iter().find(|v| v.0 == name).map(|v| v.1.to_owned());
        Scale::read(variables)
    }

    #[test]
    fn a_small_fleet_has_a_small_data_centre() {
        let (large, small) = (read(&[]).unwrap(), read(&[("STORES", "6"), ("NODES", "2")]).unwrap());
        assert_eq!((large.nodes(), large.uplink, large.window.as_secs()), (300, 100_000_000, 240));
        assert_eq!((small.nodes(), small.uplink, small.window.as_secs()), (12, 10_000_000, 15));
        for scale in [large, small] {
            let seconds = scale.bundle as f64 * 8.0 * scale.nodes() as f64 / scale.uplink as f64;
            assert!((seconds / scale.window.as_secs_f64() - ALL_AT_ONCE_SHARE).abs() < 0.01, "{seconds}");
        }
    }

    #[test]
    fn what_is_no_number_or_too_large_is_refused_by_name() {
        for (name, value) in [
            ("STORES", "many"),
            ("NODES", "0"),
            ("WINDOW", "-1"),
            ("SIMULATED", "1e4"),
            ("CONTENDERS", "scp"),
        ] {
            let error = Scale::read(|n| (n == name).then(|| value.to_owned())).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
