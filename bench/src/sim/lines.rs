//! How fast each transfer is at a moment: shares of a store's line, of the data centre's line, and its own cap. Pure.
//!
//! Transfers are taken as fluids that share a bottleneck evenly, which is what many TCP connections come to on average
//! (max-min fairness: Bertsekas and Gallager, Data Networks, section 6.5.2).

/// What a tree of lines can carry, in bytes a second.
#[derive(Clone, Copy, Debug)]
pub struct Lines {
    /// Each store's line.
    pub store: f64,
    /// The data centre's.
    pub uplink: f64,
    /// What one transfer may take.
    pub cap: f64,
}

impl Lines {
    /// The rate of each transfer in a store that has `n` of them at work, for `n` from 0 on. `stores_with[n]`: how many
    /// stores have so many.
    pub fn rates(&self, stores_with: &[usize]) -> Vec<f64> {
        let mut rates: Vec<f64> =
            (0..stores_with.len()).map(|n| self.cap.min(self.store / n.max(1) as f64)).collect();
        // The slowest first, which are those of the fullest stores: each takes what it can, and what it leaves is
        // shared by the rest.
        let mut left = self.uplink;
        let mut waiting: f64 = stores_with.iter().enumerate().map(|(n, stores)| (n * stores) as f64).sum();
        for n in (1..stores_with.len()).rev() {
            let transfers = (n * stores_with[n]) as f64;
            if transfers > 0.0 {
                rates[n] = rates[n].min(left / waiting);
                left -= rates[n] * transfers;
                waiting -= transfers;
            }
        }
        rates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scarcest_line_decides() {
        let lines = Lines { store: 500.0, uplink: 12_500.0, cap: 1e9 };
        // One store with five: its own line.
        assert_eq!(lines.rates(&[0, 0, 0, 0, 0, 1])[5], 100.0);
        // Sixty stores with five each: the data centre's line.
        assert_eq!(lines.rates(&[0, 0, 0, 0, 0, 60])[5], 12_500.0 / 300.0);
        // A cap below both.
        assert_eq!(Lines { cap: 10.0, ..lines }.rates(&[0, 0, 0, 0, 0, 60])[5], 10.0);
    }

    #[test]
    fn what_a_full_store_cannot_take_goes_to_the_others_and_nothing_is_carried_that_no_line_carries() {
        let lines = Lines { store: 500.0, uplink: 12_500.0, cap: 1e9 };
        let stores_with = [0, 20, 0, 0, 0, 30];
        let rates = lines.rates(&stores_with);
        for n in [1, 5] {
            assert!((rates[n] - 12_500.0 / 170.0).abs() < 1e-9, "{rates:?}");
        }
        let rates = lines.rates(&[0, 20, 0, 0, 0, 1]);
        assert_eq!((rates[5], rates[1]), (100.0, 500.0));
        let sum: f64 = rates.iter().zip(&stores_with).enumerate().map(|(n, (r, s))| r * (n * s) as f64).sum();
        assert!(sum <= 500.0 * 50.0);
    }
}
