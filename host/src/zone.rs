//! Time zones, as the system's database has them: how far a zone's clocks are from UTC at a moment, and which moment a
//! time on them is. No calendar and no names of zones beyond what is asked for; hours and windows are [`crate::schedule`].
//!
//! Own code, because the smallest library is a tenth of the agent and reads the whole database to find one name. The tests
//! compare it with that library, over every zone of the database and all years that matter.

mod read;
mod rule;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use format::time::UnixTime;

use rule::Rule;

/// Where systems have the database.
const DATABASES: [&str; 3] = ["/usr/share/zoneinfo", "/usr/lib/zoneinfo", "/etc/zoneinfo"];

/// The system's own zone (localtime(5)).
const LOCAL: &str = "/etc/localtime";

/// The names of UTC in the zone database: they need none, and a small node may have none.
const UTC: [&str; 8] = ["UTC", "Etc/UTC", "Etc/UCT", "UCT", "Etc/Universal", "Universal", "Etc/Zulu", "Zulu"];

/// The largest file of a zone that is read; those of the database have up to 4 KiB.
const MAX_FILE: u64 = 256 * 1024;

/// No two places on earth differ by more, and what happens to clocks is looked for so far around a time.
const DAY: i64 = 86_400;

/// A time zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone(Option<Arc<Offsets>>);

/// Seconds east of UTC, by moment.
#[derive(Debug, PartialEq, Eq)]
struct Offsets {
    /// Before the first change.
    first: i64,
    /// Moments in ascending order, each with what counts from then on.
    changes: Vec<(i64, i64)>,
    /// What counts after the last of them, where that is known.
    then: Option<Rule>,
}

/// The moment of a time on a zone's clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// When it is. Of a time that comes twice, the first; one that is skipped is as long after midnight as if nothing had
    /// been skipped (RFC 5545, section 3.3.5).
    pub at: UnixTime,
    /// Whether the clocks skip it.
    pub is_skipped: bool,
}

impl Zone {
    /// Coordinated universal time.
    pub const UTC: Zone = Zone(None);

    /// The zone of an IANA name.
    ///
    /// # Errors
    /// If this system's database has none of that name; what to do about it.
    pub fn named(name: &str) -> Result<Zone, String> {
        if UTC.contains(&name) {
            return Ok(Zone::UTC);
        }
        let is_name = !name.is_empty()
            && name.split('/').all(|part| !part.is_empty() && !part.starts_with('.'))
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_+-.".contains(&b));
        let files = DATABASES.iter().map(|folder| Path::new(folder).join(name));
        match files.filter(|_| is_name).find(|file| file.is_file()) {
            Some(file) => Zone::of_file(&file).map_err(|e| format!("time zone {name:?}: {e}")),
            None => Err(format!(
                "there is no time zone {name:?}; is this node's time zone data (tzdata) installed?"
            )),
        }
    }

    /// The system's own: that of `$TZ`, where it is set and is a zone, otherwise that of /etc/localtime, otherwise UTC.
    pub fn system() -> Zone {
        let named = |value: String| {
            let value = value.strip_prefix(':').unwrap_or(&value);
            match value.starts_with('/') {
                true => Zone::of_file(Path::new(value)).ok(),
                false => Zone::named(value).ok().or_else(|| Rule::parse(value).map(Zone::by_rule)),
            }
        };
        let of_environment = std::env::var("TZ").ok().and_then(named);
        of_environment.or_else(|| Zone::of_file(Path::new(LOCAL)).ok()).unwrap_or(Zone::UTC)
    }

    fn of_file(path: &Path) -> Result<Zone, String> {
        let path: PathBuf = path.to_owned();
        let bytes = crate::file::read_limited(&path, MAX_FILE).map_err(|e| e.to_string())?;
        Zone::parse(&bytes.unwrap_or_default()).ok_or_else(|| format!("{} is no zone file", path.display()))
    }

    /// What a file of the database says (RFC 9636); none, if it is no such file.
    pub fn parse(bytes: &[u8]) -> Option<Zone> {
        read::zone(bytes).map(|offsets| Zone(Some(Arc::new(offsets))))
    }

    fn by_rule(rule: Rule) -> Zone {
        Zone(Some(Arc::new(Offsets { first: 0, changes: Vec::new(), then: Some(rule) })))
    }

    /// The time that the zone's clocks show at `moment`, as seconds since they showed 1970-01-01 00:00.
    pub fn clock(&self, moment: UnixTime) -> i64 {
        let offset = self.0.as_ref().map_or(0, |offsets| offsets.at(moment.0));
        moment.0.saturating_add(offset)
    }

    /// The moment at which the zone's clocks show `clock`, seconds since they showed 1970-01-01 00:00.
    pub fn moment(&self, clock: i64) -> Moment {
        let of = |offset: i64, is_skipped| Moment { at: UnixTime(clock.saturating_sub(offset)), is_skipped };
        let Some(offsets) = &self.0 else { return of(0, false) };
        // Every moment that `clock` can be is in here, whatever the offset: the zones' own go to 14 hours, those that a rule
        // can name to 25.
        let (from, to) = (clock.saturating_sub(2 * DAY), clock.saturating_add(2 * DAY));
        let mut offset = offsets.at(from);
        for (change, next) in offsets.changes_within(from, to) {
            if clock.saturating_sub(offset) < change {
                return of(offset, false);
            }
            if clock.saturating_sub(next) < change {
                return of(offset, true);
            }
            offset = next;
        }
        of(offset, false)
    }
}

impl Offsets {
    fn at(&self, moment: i64) -> i64 {
        let before = self.changes.partition_point(|(change, _)| *change <= moment);
        match &self.then {
            Some(rule) if before == self.changes.len() => rule.at(moment),
            _ => before.checked_sub(1).map_or(self.first, |last| self.changes[last].1),
        }
    }

    /// The changes after `from` and up to `to`, in order.
    fn changes_within(&self, from: i64, to: i64) -> impl Iterator<Item = (i64, i64)> {
        let after = |moment: i64| self.changes.partition_point(|(change, _)| *change <= moment);
        let known = self.changes.get(after(from)..after(to)).unwrap_or_default();
        // Where the rule begins, it may say something else than the last change that is listed.
        let last = self.changes.last().map_or(i64::MIN, |(change, _)| *change);
        let rule = self.then.as_ref().filter(|_| to > last);
        let ruled = rule.and_then(|rule| rule.changes_around(to)).into_iter().flatten();
        let begin = last.max(from);
        known.iter().copied().chain(ruled.filter(move |(change, _)| begin < *change && *change <= to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files of the database of this machine, each content once, with one of its names.
    fn database() -> Vec<(String, Vec<u8>)> {
        fn walk(folder: &Path, prefix: &str, found: &mut Vec<(String, Vec<u8>)>) {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
                // These count leap seconds, which no clock of a node does.
                if name == "right" {
                    continue;
                }
                match entry.path() {
                    path if path.is_dir() => walk(&path, &format!("{name}/"), found),
                    path => {
                        let bytes = std::fs::read(path).unwrap();
                        if bytes.starts_with(b"TZif") {
                            found.push((name, bytes));
                        }
                    }
                }
            }
        }
        let mut found = Vec::new();
        walk(Path::new(DATABASES[0]), "", &mut found);
        found.sort_by(|one, other| one.1.cmp(&other.1));
        found.dedup_by(|one, other| one.1 == other.1);
        assert!(found.len() > 200, "this machine's tzdata has {} zones", found.len());
        found
    }

    /// What jiff says of the same file.
    fn agrees(name: &str, bytes: &[u8]) {
        let own = Zone::parse(bytes).unwrap_or_else(|| panic!("{name} is not read"));
        let other = jiff::tz::TimeZone::tzif(name, bytes).unwrap();
        let offset =
            |moment: i64| i64::from(other.to_offset(jiff::Timestamp::from_second(moment).unwrap()).seconds());
        // From 1970 to 2200 in steps that fall on any hour and day; and around every change that is listed, and those of
        // some years that are not.
        let steps = (0..230 * 366 * DAY).step_by(193 * 86_400 + 5 * 3600 + 1801);
        let changes = own.0.iter().flat_map(|offsets| offsets.changes_within(-DAY, 180 * 366 * DAY));
        let ruled = (2026..2100).step_by(25).flat_map(|year| {
            let middle = (year - 1970) * 31_556_952;
            own.0.iter().flat_map(move |o| o.changes_within(middle, middle + 366 * DAY)).collect::<Vec<_>>()
        });
        let near = changes.chain(ruled).flat_map(|(at, _)| [at - 7200, at - 1, at, at + 1800]);
        for moment in steps.chain(near) {
            assert_eq!(own.clock(UnixTime(moment)), moment + offset(moment), "{name} at {moment}");
            // The same moment, an hour earlier and later, as times on the clock.
            for clock in [moment, moment + offset(moment), moment + offset(moment) + 3599] {
                let civil = jiff::tz::Offset::UTC.to_datetime(jiff::Timestamp::from_second(clock).unwrap());
                let found = other.to_ambiguous_timestamp(civil);
                let is_skipped = matches!(found.offset(), jiff::tz::AmbiguousOffset::Gap { .. });
                let at = UnixTime(found.compatible().unwrap().as_second());
                assert_eq!(own.moment(clock), Moment { at, is_skipped }, "{name} when it shows {clock}");
            }
        }
    }

    #[test]
    fn every_zone_of_the_database_is_understood_as_the_library_does() {
        for (name, bytes) in database() {
            agrees(&name, &bytes);
        }
    }

    #[test]
    fn a_damaged_file_is_refused_or_is_some_zone() {
        for (name, bytes) in database().into_iter().step_by(60) {
            for length in 0..bytes.len() {
                let _ = Zone::parse(&bytes[..length]);
            }
            for at in 0..bytes.len() {
                for value in [0, 1, 0x7f, 0x80, 0xff] {
                    let mut damaged = bytes.clone();
                    damaged[at] = value;
                    if let Some(zone) = Zone::parse(&damaged) {
                        let clock = zone.clock(UnixTime(1_795_411_753));
                        let _ = (zone.moment(clock), zone.moment(i64::MAX), zone.clock(UnixTime(i64::MIN)));
                    }
                }
            }
            assert!(Zone::parse(&bytes[..bytes.len() - 1]).is_none(), "{name} without its end");
        }
    }

    #[test]
    fn a_name_leads_nowhere_but_into_the_database() {
        for name in [
            "",
            "/etc/localtime",
            "../../../etc/localtime",
            "Europe/../Europe/Berlin",
            "Mars/Olympus",
            "Europe",
        ] {
            let why = Zone::named(name).unwrap_err();
            assert!(why.contains("tzdata") && why.contains(name), "{why}");
        }
        assert_eq!(Zone::named("Etc/UTC"), Ok(Zone::UTC));
        assert_ne!(Zone::named("Europe/Berlin"), Ok(Zone::UTC));
    }
}
