//! How fast the mirrors answer when nobody else is on the line, from one run to the next: what the background mode
//! compares with. A run that begins while somebody else fills the line would take that for the usual.

use std::path::Path;
use std::time::Duration;

use format::time::UnixTime;
use host::file;

use crate::error::{Error, Result};

/// So long a delay counts that was never reached again: a night's must be good for the next day, and a way that has
/// become longer for good costs a day at the floor.
const KEPT_SECONDS: i64 = 86_400;

/// A delay that is longer by a quarter at most is the same one.
const SAME: u32 = 4;

const MAX_FILE: u64 = 64 * 1024;

/// What is known of one mirror.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Least {
    /// The mirror's name.
    pub mirror: String,
    micros: u64,
    /// When it was reached last.
    at: UnixTime,
}

/// Each mirror once.
pub type Delays = Vec<Least>;

/// Those of the last day; none, if the file cannot be read, for it is only a help.
pub fn load(path: &Path, now: UnixTime) -> Delays {
    let bytes = file::read_limited(path, MAX_FILE).ok().flatten().unwrap_or_default();
    let mut delays: Delays = format::json::read(&bytes).unwrap_or_default();
    delays.retain(|least| (0..KEPT_SECONDS).contains(&now.since(least.at)));
    delays
}

/// Keeps what a run has measured.
///
/// # Errors
/// If it cannot be written.
pub fn save<'m>(
    path: &Path,
    mut delays: Delays,
    measured: impl Iterator<Item = (&'m str, Duration)>,
    now: UnixTime,
) -> Result<()> {
    let before = delays.clone();
    for (mirror, took) in measured {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let place = delays.iter().position(|least| least.mirror == mirror);
        let known = place.map_or(u64::MAX, |place| delays[place].micros);
        if micros <= known.saturating_add(known / u64::from(SAME)) {
            let least = Least { mirror: mirror.to_owned(), micros: micros.min(known), at: now };
            match place {
                Some(place) => delays[place] = least,
                None => delays.push(least),
            }
        }
    }
    if delays == before {
        return Ok(());
    }
    let bytes = serde_json::to_vec(&delays).map_err(|e| Error::io("delays", &e.into()))?;
    Ok(file::replace(path, &bytes, 0o644)?)
}

impl Least {
    /// As a time.
    pub fn time(&self) -> Duration {
        Duration::from_micros(self.micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_is_kept_for_a_day_after_it_was_reached_last() {
        let folder = std::env::temp_dir().join(format!("prestage-delays-{}", std::process::id()));
        file::make_folder(&folder, 0o755).unwrap();
        let path = folder.join("delays.json");
        let ms = Duration::from_millis;
        let measure = |took, now: i64| {
            let now = UnixTime(now);
            save(&path, load(&path, now), std::iter::once(("http://m/", took)), now).unwrap();
            load(&path, now)[0].time()
        };
        assert_eq!(measure(ms(30), 0), ms(30));
        assert_eq!(measure(ms(200), 40_000), ms(30), "somebody else was on the line");
        assert_eq!(measure(ms(35), 80_000), ms(30), "about the same");
        assert_eq!(measure(ms(200), 160_000), ms(30));
        assert_eq!(measure(ms(200), 170_000), ms(200), "a day later");
        std::fs::write(&path, "{").unwrap();
        assert!(load(&path, UnixTime(0)).is_empty());
        file::remove(&folder).unwrap();
    }
}
