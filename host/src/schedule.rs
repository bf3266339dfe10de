//! Windows as moments: what the clock on a wall makes of them, in a zone. Pure: the time and the zone are arguments.
//!
//! Nodes ask whether a window is open; the centre counts the time in which one is, to say when a batch begins.

use format::policy::Schedule;
use format::time::UnixTime;
use format::window::Window;

use crate::zone::Zone;

const DAY: i64 = 86_400;

/// What the clock on a wall in `zone` shows at a moment, written as if that were UTC.
pub fn on_the_wall(now: UnixTime, zone: &Zone) -> UnixTime {
    UnixTime(zone.clock(now))
}

/// Whether something may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Until then.
    Open {
        /// When the window closes; none if there is no window.
        until: Option<UnixTime>,
    },
    /// Not before then.
    Closed {
        /// When the next window opens.
        until: UnixTime,
    },
}

/// Windows, and the zone that their hours are in: resolved once, for whoever asks.
#[derive(Clone, Debug)]
pub struct Hours {
    windows: Vec<Window>,
    zone: Zone,
}

impl Hours {
    /// Those of a policy; in the node's own zone where it names none.
    ///
    /// # Errors
    /// If the node does not know the zone. Nothing is begun in hours that nobody knows.
    pub fn resolve(schedule: &Schedule, own: &Zone) -> Result<Hours, String> {
        let zone = match &schedule.timezone {
            None => own.clone(),
            Some(name) => Zone::named(name.as_str())?,
        };
        Ok(Hours { windows: schedule.windows.clone(), zone })
    }

    /// The windows.
    pub fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// Their zone.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// Whether one of them is open.
    pub fn gate(&self, now: UnixTime) -> Gate {
        gate(Some(&self.windows), &self.zone, now)
    }
}

/// Whether `now` is in one of `windows`. No windows at all: always open. An empty list: never, which is said as
/// closed for a year.
pub fn gate(windows: Option<&[Window]>, zone: &Zone, now: UnixTime) -> Gate {
    let Some(windows) = windows else {
        return Gate::Open { until: None };
    };
    let mut spans: Vec<(UnixTime, UnixTime)> =
        windows.iter().flat_map(|window| occurrences(window, zone, now)).collect();
    spans.sort_unstable();
    // Windows that touch are one: a weekend of two days closes on Sunday, not on Saturday.
    let mut open: Option<UnixTime> = None;
    for (start, end) in &spans {
        if *start <= open.unwrap_or(now) && *end > now {
            open = open.max(Some(*end));
        }
    }
    match open {
        Some(_) => Gate::Open { until: open },
        None => {
            let next = spans.iter().map(|(start, _)| *start).find(|start| *start > now);
            Gate::Closed { until: next.unwrap_or(now.plus(365 * 86_400)) }
        }
    }
}

/// Whether something may begin that needs both to be open. If one is closed, both may still not be open at the time that
/// is said: then it is asked again.
pub fn both(one: Gate, other: Gate) -> Gate {
    match (one, other) {
        (Gate::Open { until: None }, open @ Gate::Open { .. }) => open,
        (open @ Gate::Open { .. }, Gate::Open { until: None }) => open,
        (Gate::Open { until: one }, Gate::Open { until: other }) => Gate::Open { until: one.min(other) },
        (Gate::Closed { until: one }, Gate::Closed { until: other }) => {
            Gate::Closed { until: one.max(other) }
        }
        (closed @ Gate::Closed { .. }, _) | (_, closed @ Gate::Closed { .. }) => closed,
    }
}

/// The window's occurrences from two days ago, which can still be open where daylight saving moved them, to eight days
/// ahead, of which one can have been moved out of sight.
fn occurrences(window: &Window, zone: &Zone, now: UnixTime) -> Vec<(UnixTime, UnixTime)> {
    let today = zone.clock(now).div_euclid(DAY);
    let days =
        (-2..=8).map(|offset| today.saturating_add(offset)).filter(|day| window.begins_on(weekday(*day)));
    days.filter_map(|day| occurrence(window, zone, day)).collect()
}

/// The moments from which and to which the clock on the wall shows a time in the window that begins on `day`, counted
/// from 1970-01-01.
///
/// It ends when that clock says so, not after so many minutes: at 05:30 the shop opens, whatever happened to the clock in
/// the night. What daylight saving does to either end goes by RFC 5545, as [`Zone::moment`] has it. Where that skips the
/// beginning, the end moves with it: an hour that does not exist must not cost a week's patches.
fn occurrence(window: &Window, zone: &Zone, day: i64) -> Option<(UnixTime, UnixTime)> {
    let moment = |minutes: u16| zone.moment(day.saturating_mul(DAY).saturating_add(i64::from(minutes) * 60));
    let start = moment(window.start());
    let end = match start.is_skipped {
        true => start.at.plus(i64::from(window.end() - window.start()) * 60),
        false => moment(window.end()).at,
    };
    (start.at < end).then_some((start.at, end))
}

/// The day of the week of a day since 1970-01-01, which was a Thursday; Monday is 0.
fn weekday(day: i64) -> usize {
    usize::try_from(day.saturating_add(3).rem_euclid(7)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> UnixTime {
        text.parse().unwrap()
    }

    fn gate_of(window: &str, zone: &str, now: &str) -> Gate {
        gate(Some(&[window.parse().unwrap()]), &Zone::named(zone).unwrap(), at(now))
    }

    #[test]
    fn a_window_is_open_from_its_first_minute_to_before_its_last() {
        let window = "Tue 02:00-04:00"; // 2026-11-24 is a Tuesday; New York is UTC-5
        let closed = Gate::Closed { until: at("2026-11-24T07:00:00Z") };
        let open = Gate::Open { until: Some(at("2026-11-24T09:00:00Z")) };
        assert_eq!(gate_of(window, "America/New_York", "2026-11-24T06:59:59Z"), closed);
        assert_eq!(gate_of(window, "America/New_York", "2026-11-24T07:00:00Z"), open);
        assert_eq!(gate_of(window, "America/New_York", "2026-11-24T08:59:59Z"), open);
        assert_eq!(
            gate_of(window, "America/New_York", "2026-11-24T09:00:00Z"),
            Gate::Closed { until: at("2026-12-01T07:00:00Z") }
        );
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_it_begins() {
        let open = Gate::Open { until: Some(at("2026-11-28T05:30:00Z")) };
        assert_eq!(gate_of("Mon-Fri 22:00-05:30", "UTC", "2026-11-28T01:00:00Z"), open); // Saturday, from Friday
        assert!(matches!(gate_of("Mon-Fri 22:00-05:30", "UTC", "2026-11-29T01:00:00Z"), Gate::Closed { .. }));
    }

    #[test]
    fn a_skipped_hour_moves_the_window_and_keeps_its_length() {
        // Berlin, 2026-03-29: 02:00 does not exist and becomes 03:00 CEST, 01:00 UTC.
        assert_eq!(
            gate_of("Sun 02:30-03:30", "Europe/Berlin", "2026-03-29T01:45:00Z"),
            Gate::Open { until: Some(at("2026-03-29T02:30:00Z")) }
        );
        // All of it is in the hour that is skipped: it comes all the same.
        assert_eq!(
            gate_of("Sun 02:00-03:00", "Europe/Berlin", "2026-03-29T00:59:59Z"),
            Gate::Closed { until: at("2026-03-29T01:00:00Z") }
        );
        assert_eq!(
            gate_of("Sun 02:00-03:00", "Europe/Berlin", "2026-03-29T01:00:00Z"),
            Gate::Open { until: Some(at("2026-03-29T02:00:00Z")) }
        );
    }

    #[test]
    fn a_window_ends_when_the_clock_on_the_wall_says_so() {
        let night = "22:00-05:30";
        // Berlin goes from UTC+1 to UTC+2 in the night to 2026-03-29, and back in the night to 2026-10-25.
        assert_eq!(
            gate_of(night, "Europe/Berlin", "2026-03-28T21:00:00Z"),
            Gate::Open { until: Some(at("2026-03-29T03:30:00Z")) }
        );
        assert_eq!(
            gate_of(night, "Europe/Berlin", "2026-10-24T20:00:00Z"),
            Gate::Open { until: Some(at("2026-10-25T04:30:00Z")) }
        );
        // An end that is skipped comes at the same moment as in any other night.
        assert_eq!(
            gate_of("Sun 01:00-02:30", "Europe/Berlin", "2026-03-29T00:00:00Z"),
            Gate::Open { until: Some(at("2026-03-29T01:30:00Z")) }
        );
    }

    #[test]
    fn an_hour_that_comes_twice_begins_once_and_ends_once() {
        // Berlin, 2026-10-25: from 03:00 CEST (01:00 UTC) back to 02:00 CET.
        let window = "Sun 02:15-02:45";
        assert_eq!(
            gate_of(window, "Europe/Berlin", "2026-10-25T00:15:00Z"),
            Gate::Open { until: Some(at("2026-10-25T00:45:00Z")) }
        );
        assert_eq!(
            gate_of(window, "Europe/Berlin", "2026-10-25T01:20:00Z"),
            Gate::Closed { until: at("2026-11-01T01:15:00Z") }
        );
        // The clock shows a time between 02:00 and 03:00 for two hours.
        assert_eq!(
            gate_of("Sun 02:00-03:00", "Europe/Berlin", "2026-10-25T00:00:00Z"),
            Gate::Open { until: Some(at("2026-10-25T02:00:00Z")) }
        );
    }

    #[test]
    fn windows_that_touch_are_one() {
        assert_eq!(
            gate_of("Sat,Sun 00:00-24:00", "UTC", "2026-11-28T12:00:00Z"),
            Gate::Open { until: Some(at("2026-11-30T00:00:00Z")) }
        );
        let windows = ["Tue 04:00-05:00", "Tue 02:00-04:00"].map(|w| w.parse().unwrap());
        assert_eq!(
            gate(Some(&windows), &Zone::UTC, at("2026-11-24T03:00:00Z")),
            Gate::Open { until: Some(at("2026-11-24T05:00:00Z")) }
        );
    }

    #[test]
    fn a_day_that_a_zone_skipped_costs_nothing() {
        // Apia had no 30 December 2011, a Friday: the window comes a day later.
        assert_eq!(
            gate_of("Fri 02:00-04:00", "Pacific/Apia", "2011-12-30T10:00:00Z"),
            Gate::Closed { until: at("2011-12-30T12:00:00Z") }
        );
    }

    #[test]
    fn a_zone_that_this_node_does_not_know_is_an_error_and_not_another_zone() {
        let schedule = |zone: Option<&str>| Schedule {
            windows: vec!["02:00-04:00".parse().unwrap()],
            timezone: zone.map(|zone| zone.parse().unwrap()),
        };
        let own = Zone::named("Europe/Berlin").unwrap();
        assert!(Hours::resolve(&schedule(Some("Mars/Olympus")), &own).is_err());
        let now = at("2026-11-23T01:30:00Z"); // 02:30 in Berlin
        assert!(matches!(Hours::resolve(&schedule(None), &own).unwrap().gate(now), Gate::Open { .. }));
        let utc = Hours::resolve(&schedule(Some("UTC")), &own).unwrap();
        assert_eq!(utc.gate(now), Gate::Closed { until: at("2026-11-23T02:00:00Z") });
    }

    #[test]
    fn what_a_wall_shows_follows_the_zone_and_the_season() {
        let berlin = Zone::named("Europe/Berlin").unwrap();
        assert_eq!(on_the_wall(at("2026-11-23T01:00:00Z"), &berlin), at("2026-11-23T02:00:00Z"));
        assert_eq!(on_the_wall(at("2026-07-23T01:00:00Z"), &berlin), at("2026-07-23T03:00:00Z"));
        assert_eq!(on_the_wall(UnixTime(7), &Zone::UTC), UnixTime(7));
    }

    #[test]
    fn no_window_is_always_open_and_an_empty_list_never() {
        assert_eq!(gate(None, &Zone::UTC, UnixTime(0)), Gate::Open { until: None });
        assert!(matches!(gate(Some(&[]), &Zone::UTC, UnixTime(0)), Gate::Closed { .. }));
    }
}
