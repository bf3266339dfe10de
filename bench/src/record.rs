//! What was seen of one contender, real or simulated, and the figures that are read from it. Pure.

/// What was seen.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Record {
    /// Who.
    pub name: String,
    /// Seconds from the release to the deadline.
    pub window: f64,
    /// What the data centre's line can carry, in bit/s.
    pub uplink: f64,
    /// Seconds that each of `sent` stands for.
    pub interval: f64,
    /// Bytes that left the data centre in each interval, headers and repetitions included.
    pub sent: Vec<f64>,
    /// Bytes that came to it.
    pub received: f64,
    /// Bytes that went to each store.
    pub stores: Vec<f64>,
    /// For each node: when it had everything, verified, in seconds.
    pub done: Vec<Option<f64>>,
    /// For each node: how often it, or somebody for it, tried to fetch. What a program does over within one run is not
    /// counted.
    pub tries: Vec<u32>,
    /// For each node: whether a fault fell on it while something was fetched for it, or took its power before it had
    /// everything.
    pub hit: Vec<bool>,
    /// For each node: the bytes of what it must have, as packages.
    pub needs: Vec<f64>,
}

/// What is read from it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// The busiest slice of the window, in bit/s.
    pub peak: f64,
    /// Bytes from the data centre.
    pub sent: f64,
    /// Nodes that had everything at the deadline, as part of all.
    pub success: f64,
    /// Nodes that a fault had hit, as part of all.
    pub hit: f64,
    /// Nodes that had everything at the deadline, as part of those that a fault had hit; none was hit: none.
    pub recovered: Option<f64>,
    /// When half of all nodes had everything, in seconds; none if never.
    pub half: Option<f64>,
    /// When 95 of 100 had.
    pub most: Option<f64>,
    /// When the last of those who ever did.
    pub last: f64,
    /// Bytes to a node on average, for each byte that it needed.
    pub bytes_per_needed: f64,
    /// Tries beyond the first, on average.
    pub retries: f64,
}

/// The window is cut into so many slices, and the busiest is the peak: for a window of two days, half an hour.
const SLICES: f64 = 96.0;

/// The shortest slice, in seconds: in less than that, queues and buckets show, not loads.
const SHORTEST: f64 = 1.0;

impl Record {
    /// The figures.
    pub fn figures(&self) -> Figures {
        let nodes = self.done.len().max(1) as f64;
        let mut done: Vec<f64> = self.done.iter().flatten().copied().collect();
        done.sort_by(f64::total_cmp);
        let hit = self.hit.iter().filter(|hit| **hit).count() as f64;
        let recovered = self.done.iter().zip(&self.hit).filter(|(done, hit)| **hit && done.is_some()).count();
        let sent = self.sent.iter().fold(0.0, |sum, bytes| sum + bytes);
        let at = |part: f64| done.get(((nodes * part).ceil() as usize).max(1) - 1).copied();
        Figures {
            peak: self.peak((self.window / SLICES).max(SHORTEST)),
            sent,
            success: done.len() as f64 / nodes,
            hit: hit / nodes,
            recovered: (hit > 0.0).then(|| recovered as f64 / hit),
            half: at(0.5),
            most: at(0.95),
            last: done.last().copied().unwrap_or(0.0),
            bytes_per_needed: sent / self.needs.iter().sum::<f64>().max(1.0),
            retries: self.tries.iter().map(|t| f64::from(t.saturating_sub(1))).sum::<f64>() / nodes,
        }
    }

    /// The largest rate over any `slice` of seconds, in bit/s.
    pub fn peak(&self, slice: f64) -> f64 {
        if self.sent.is_empty() {
            return 0.0;
        }
        let n = ((slice / self.interval).round() as usize).max(1);
        let sum = |bytes: &[f64]| bytes.iter().sum::<f64>();
        let most = self.sent.windows(n.min(self.sent.len())).map(sum).fold(0.0, f64::max);
        most * 8.0 / (n as f64 * self.interval)
    }

    /// Rate over time: pairs of seconds and bit/s, of so many slices.
    pub fn load(&self, slices: usize) -> Vec<(f64, f64)> {
        let n = self.sent.len().div_ceil(slices.max(1)).max(1);
        let chunks = self.sent.chunks(n).enumerate();
        chunks
            .map(|(i, bytes)| {
                let seconds = bytes.len() as f64 * self.interval;
                let middle = (i * n) as f64 * self.interval + seconds / 2.0;
                (middle.min(self.window), bytes.iter().sum::<f64>() * 8.0 / seconds)
            })
            .collect()
    }

    /// Part of the nodes that had everything, over time.
    pub fn completion(&self) -> Vec<(f64, f64)> {
        let mut done: Vec<f64> = self.done.iter().flatten().copied().collect();
        done.sort_by(f64::total_cmp);
        let nodes = self.done.len().max(1) as f64;
        let mut out = vec![(0.0, 0.0)];
        out.extend(done.iter().enumerate().map(|(i, at)| (*at, (i + 1) as f64 / nodes)));
        out.push((self.window, done.len() as f64 / nodes));
        thin(out)
    }
}

/// At most some hundred of the points of a curve: a picture shows no more.
pub fn thin(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    const MOST: usize = 400;
    let (each, last) = (points.len().div_ceil(MOST), points.len().saturating_sub(1));
    points.into_iter().enumerate().filter(|(i, _)| i % each == 0 || *i == last).map(|(_, p)| p).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_what_they_are_called() {
        let record = Record {
            name: "x".into(),
            window: 96.0,
            uplink: 8000.0,
            interval: 0.5,
            sent: vec![100.0, 300.0, 500.0, 100.0],
            received: 0.0,
            stores: vec![1000.0],
            done: vec![Some(10.0), Some(2.0), None, Some(4.0)],
            tries: vec![1, 3, 1, 1],
            hit: vec![false, true, true, false],
            needs: vec![200.0; 4],
        };
        let figures = record.figures();
        assert_eq!(figures.peak, 6400.0); // 300 + 500 bytes in one second
        assert_eq!((figures.success, figures.hit, figures.recovered), (0.75, 0.5, Some(0.5)));
        assert_eq!((figures.half, figures.most, figures.last), (Some(4.0), None, 10.0));
        assert_eq!((figures.bytes_per_needed, figures.retries), (1.25, 0.5));
        assert_eq!(record.completion().last(), Some(&(96.0, 0.75)));
        assert_eq!(thin((0..1001).map(|i| (f64::from(i), 0.0)).collect()).last(), Some(&(1000.0, 0.0)));
        assert_eq!(record.load(2), vec![(0.5, 3200.0), (1.5, 4800.0)]);
    }
}
