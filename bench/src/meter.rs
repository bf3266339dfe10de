//! What goes over the lines, read from the kernel's own counters of the interfaces, headers and repetitions included.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::Result;
use crate::network::{Namespace, Network, UPLINK, line};

/// Bytes that went over the lines so far.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// When, since the meter was started.
    pub at: Duration,
    /// From the data centre.
    pub sent: u64,
    /// To the data centre.
    pub received: u64,
    /// To each store.
    pub stores: Vec<u64>,
}

/// Reads the counters now.
///
/// # Errors
/// If the kernel does not show them.
fn read(network: &Network, stores: usize) -> Result<Reading> {
    let centre = counters(&network.centre)?;
    let wan = counters(&network.wan)?;
    let of =
        |counters: &HashMap<String, (u64, u64)>, name: &str| counters.get(name).copied().unwrap_or_default();
    let (received, sent) = of(&centre, UPLINK);
    let stores = (0..stores).map(|store| of(&wan, &line(store)).1).collect();
    Ok(Reading { at: Duration::ZERO, sent, received, stores })
}

/// Bytes received and sent by each interface of a namespace.
fn counters(namespace: &Namespace) -> Result<HashMap<String, (u64, u64)>> {
    let text = namespace.within(|| std::fs::read_to_string("/proc/thread-self/net/dev"))??;
    Ok(parse(&text))
}

/// proc_pid_net(5): two lines of headings, then `name: received-bytes … (8 fields) sent-bytes …`.
fn parse(text: &str) -> HashMap<String, (u64, u64)> {
    let line = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let mut fields = rest.split_whitespace();
        let received = fields.next()?.parse().ok()?;
        let sent = fields.nth(7)?.parse().ok()?;
        Some((name.trim().to_owned(), (received, sent)))
    };
    text.lines().skip(2).filter_map(line).collect()
}

/// Reads every `interval` until it is told to stop.
///
/// # Errors
/// As [`read`].
pub fn watch(
    network: &Network,
    stores: usize,
    start: Instant,
    interval: Duration,
    stop: &AtomicBool,
) -> Result<Vec<Reading>> {
    let mut out = vec![read(network, stores)?];
    for tick in 1.. {
        std::thread::sleep((start + interval * tick).saturating_duration_since(Instant::now()));
        let last = stop.load(Ordering::Acquire);
        let reading = read(network, stores)?;
        out.push(Reading { at: start.elapsed(), ..reading });
        if last {
            break;
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
                    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs\n    \
                    lo:      11    12    0    0    0     0          0         0       19      12    0\n\
                    store7: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n";
        let counters = parse(text);
        assert_eq!((counters["lo"], counters["store7"]), ((11, 19), (1, 9)));
        assert_eq!(counters.len(), 2);
    }
}
