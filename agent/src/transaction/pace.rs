//! How long installs take on this node, and whether one more fits into what is left of a window. Pure but for the file.

use std::path::Path;

use crate::error::{Error, Result};

/// Runs that count: a machine changes.
const REMEMBERED: usize = 8;

/// What an install takes on a machine that has not shown it yet: a slow till with a slow disk.
const GUESS: Run = Run { seconds: 120, packages: 20 };

/// One install that went to its end, waiting for boots and windows apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Run {
    /// How long it took: restore point, install and check.
    pub seconds: u64,
    /// Packages that it changed.
    pub packages: u64,
}

/// Seconds that an install of `packages` takes: as the slowest of `runs` did, by the package where it had fewer, and a
/// quarter more.
pub fn estimate(runs: &[Run], packages: u64) -> u64 {
    let by = |run: &Run| {
        let had = run.packages.max(1);
        match packages > had {
            true => u64::try_from(u128::from(run.seconds) * u128::from(packages) / u128::from(had))
                .unwrap_or(u64::MAX),
            // A restore point and a health check take their time whatever there is to install.
            false => run.seconds,
        }
    };
    let slowest = if runs.is_empty() { by(&GUESS) } else { runs.iter().map(by).max().unwrap_or_default() };
    slowest.saturating_add(slowest / 4)
}

/// The runs that are remembered; none, if they cannot be read.
pub fn load(path: &Path) -> Vec<Run> {
    let bytes = host::file::read_limited(path, 64 * 1024).ok().flatten();
    bytes.and_then(|bytes| format::json::read(&bytes).ok()).unwrap_or_default()
}

/// Remembers one more.
///
/// # Errors
/// If it cannot be written.
pub fn remember(path: &Path, run: Run) -> Result<()> {
    let mut runs = load(path);
    runs.push(run);
    let from = runs.len().saturating_sub(REMEMBERED);
    let bytes = serde_json::to_vec(&runs[from..]).map_err(|e| Error::io("runs", &e.into()))?;
    Ok(host::file::replace(path, &bytes, 0o600)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_install_takes_what_the_slowest_of_the_earlier_ones_took_and_a_quarter_more() {
        let runs = [Run { seconds: 100, packages: 10 }, Run { seconds: 40, packages: 2 }];
        assert_eq!(estimate(&runs, 5), 125); // the second, by the package; the first, as it was
        assert_eq!(estimate(&runs, 10), 250); // 40 s for two: 200 s for ten
        assert_eq!(estimate(&runs, 1), 125);
        assert_eq!(estimate(&[], 10), 150);
        assert_eq!(estimate(&[Run { seconds: u64::MAX, packages: 0 }], u64::MAX), u64::MAX);
    }

    #[test]
    fn the_latest_runs_are_remembered() {
        let path = std::env::temp_dir().join(format!("prestage-runs-{}", std::process::id()));
        for seconds in 0..12 {
            remember(&path, Run { seconds, packages: 1 }).unwrap();
        }
        let runs = load(&path);
        assert_eq!((runs.len(), runs[0].seconds, runs[7].seconds), (8, 4, 11));
        std::fs::write(&path, "nonsense").unwrap();
        assert_eq!(load(&path), []);
        host::file::remove(&path).unwrap();
    }
}
