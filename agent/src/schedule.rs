//! Maintenance windows in the node's time zone. Pure: the time and the zone are arguments.

use std::fmt;
use std::str::FromStr;

use format::time::UnixTime;
use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

/// A window that comes back every week: `Tue 02:00-04:00`, `Mon-Fri 22:00-05:30` (over midnight: the days name its
/// beginning), `Sat,Sun 00:00-24:00`, or without days for every day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    text: String,
    days: [bool; 7],
    start: Time,
    /// Minutes from start to end.
    minutes: i64,
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

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text).ok_or_else(|| format!("{text:?} is not a window such as \"Tue 02:00-04:00\", \"Mon-Fri 22:00-05:30\" or \"02:00-04:00\""))
    }
}

fn parse(text: &str) -> Option<Window> {
    let (days, hours) = match text.trim().rsplit_once(' ') {
        Some((days, hours)) => (parse_days(days)?, hours),
        None => ([true; 7], text.trim()),
    };
    let (start, end) = hours.split_once('-')?;
    let (start, end) = (parse_minutes(start)?, parse_minutes(end)?);
    // An end at or before the start is on the next day; 24:00 is midnight.
    let minutes = if end > start { end - start } else { end + 24 * 60 - start };
    let time = Time::new(i8::try_from(start / 60).ok()?, i8::try_from(start % 60).ok()?, 0, 0).ok()?;
    Some(Window { text: text.trim().to_owned(), days, start: time, minutes })
}

/// Minutes after midnight of `HH:MM`.
fn parse_minutes(text: &str) -> Option<i64> {
    let (hours, minutes) = text.split_once(':')?;
    let digits = |s: &str| s.len() == 2 && s.bytes().all(|b| b.is_ascii_digit());
    let (h, m): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
    (digits(hours) && digits(minutes) && m < 60 && (h < 24 || (h, m) == (24, 0))).then(|| h * 60 + m)
}

/// `Tue`, `Mon-Fri`, `Sat,Sun`, and mixtures.
fn parse_days(text: &str) -> Option<[bool; 7]> {
    let day = |name: &str| DAYS.iter().position(|d| d.eq_ignore_ascii_case(name.trim()));
    let mut days = [false; 7];
    for part in text.split(',') {
        let (from, to) = match part.split_once('-') {
            Some((from, to)) => (day(from)?, day(to)?),
            None => (day(part)?, day(part)?),
        };
        let mut d = from;
        days[d] = true;
        while d != to {
            d = (d + 1) % 7;
            days[d] = true;
        }
    }
    Some(days)
}

/// Whether `now` is in one of `windows`. No windows at all: always open. An empty list: never, which is said as
/// closed for a year.
pub fn gate(windows: Option<&[Window]>, zone: &TimeZone, now: UnixTime) -> Gate {
    let Some(windows) = windows else {
        return Gate::Open { until: None };
    };
    let never = now.plus(365 * 86_400);
    let mut next = never;
    let mut until: Option<UnixTime> = None;
    for window in windows {
        for (start, end) in occurrences(window, zone, now) {
            if start <= now && now < end {
                until = until.max(Some(end));
            } else if start > now {
                next = next.min(start);
            }
        }
    }
    match until {
        Some(_) => Gate::Open { until },
        None => Gate::Closed { until: next },
    }
}

/// The window's occurrences from yesterday to a week ahead. A start that daylight saving skips is moved forward by
/// the gap, one that comes twice is the first (jiff's "compatible" rule, RFC 5545); the length is counted in real
/// minutes, so a window is never shorter or longer than written.
fn occurrences(window: &Window, zone: &TimeZone, now: UnixTime) -> Vec<(UnixTime, UnixTime)> {
    let Ok(timestamp) = Timestamp::from_second(now.0) else {
        return Vec::new();
    };
    let today = timestamp.to_zoned(zone.clone()).date();
    let mut out = Vec::new();
    for offset in -1..=7 {
        let Ok(date) = today.checked_add(offset.days()) else {
            continue;
        };
        if !window.days[weekday(date.weekday())] {
            continue;
        }
        if let Ok(start) = date.to_datetime(window.start).to_zoned(zone.clone()) {
            let start = UnixTime(start.timestamp().as_second());
            out.push((start, start.plus(window.minutes * 60)));
        }
    }
    out
}

fn weekday(day: Weekday) -> usize {
    usize::try_from(day.to_monday_zero_offset()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> UnixTime {
        text.parse().unwrap()
    }

    fn gate_of(window: &str, zone: &str, now: &str) -> Gate {
        gate(Some(&[window.parse().unwrap()]), &TimeZone::get(zone).unwrap(), at(now))
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
    }

    #[test]
    fn no_window_is_always_open_and_nonsense_is_refused() {
        assert_eq!(gate(None, &TimeZone::UTC, UnixTime(0)), Gate::Open { until: None });
        assert!(matches!(gate(Some(&[]), &TimeZone::UTC, UnixTime(0)), Gate::Closed { .. }));
        for bad in [
            "",
            "Tue",
            "Tue 2-4",
            "Foo 02:00-04:00",
            "Tue 02:00-25:00",
            "Tue 02:60-04:00",
            "24:30-25:00",
            "9223372036854775807:00-01:00",
        ] {
            assert!(bad.parse::<Window>().is_err(), "{bad}");
        }
        assert!("Sat,Sun 00:00-24:00".parse::<Window>().is_ok());
    }
}
