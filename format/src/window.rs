//! Windows that come back every week, as an operator writes them: `Tue 02:00-04:00`.
//!
//! The grammar alone. Which moments a window holds depends on a time zone and its daylight saving, so that is decided by
//! those who have a time zone database (`host/src/schedule.rs`).

use std::fmt;
use std::str::FromStr;

/// The days as they are written, Monday first.
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// Minutes in a day.
const DAY: u16 = 24 * 60;

/// The longest text that is looked at, in bytes: every day with its name takes 40.
const MAX_TEXT: usize = 128;

/// A weekly window: `Tue 02:00-04:00`, `Mon-Fri 22:00-05:30` (over midnight: the days name its beginning),
/// `Sat,Sun 00:00-24:00`, or without days for every day.
///
/// Displays in one spelling, whichever was read, so that the same window is the same text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// Monday first; at least one.
    days: [bool; 7],
    /// Minutes after midnight, before 24:00.
    start: u16,
    /// From start to end by the clock on the wall: 1 to 24 hours' minutes.
    minutes: u16,
}

impl Window {
    /// Whether it begins on this day of the week; 0 is Monday. False for what is no day.
    pub fn begins_on(&self, day: usize) -> bool {
        self.days.get(day).is_some_and(|begins| *begins)
    }

    /// When it begins: minutes after midnight, from 0 to 1439.
    pub fn start(&self) -> u16 {
        self.start
    }

    /// When it ends: minutes after the midnight that its day began with, so over 1440 where it ends on the next day.
    pub fn end(&self) -> u16 {
        self.start + self.minutes
    }

    fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_TEXT {
            return None;
        }
        let (days, hours) = match text.trim().rsplit_once(' ') {
            Some((days, hours)) => (parse_days(days)?, hours),
            None => ([true; 7], text.trim()),
        };
        let (start, end) = hours.split_once('-')?;
        let (start, end) = (parse_minutes(start)?, parse_minutes(end)?);
        if start == DAY {
            return None;
        }
        // An end at or before the start is on the next day.
        let minutes = if end > start { end - start } else { end + DAY - start };
        Some(Window { days, start, minutes })
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.days.iter().all(|day| *day) {
            f.write_str(&days_text(&self.days))?;
            f.write_str(" ")?;
        }
        let end = match self.end() % DAY {
            0 => DAY,
            end => end,
        };
        write!(f, "{:02}:{:02}-{:02}:{:02}", self.start / 60, self.start % 60, end / 60, end % 60)
    }
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Window::parse(text).ok_or_else(|| {
            let shown: String = text.chars().take(MAX_TEXT).collect();
            format!(
                "{shown:?} is not a window such as \"Tue 02:00-04:00\", \"Mon-Fri 22:00-05:30\" or \"02:00-04:00\""
            )
        })
    }
}

/// Minutes after midnight of `HH:MM`; 24:00 is the midnight that ends the day.
fn parse_minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |s: &str| {
        let digits = s.len() == 2 && s.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| s.parse::<u16>().ok())?
    };
    let (h, m) = (number(hours)?, number(minutes)?);
    (m < 60 && (h < 24 || (h, m) == (24, 0))).then_some(h * 60 + m)
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

/// Days in the order of the week; three or more in a row as `FIRST-LAST`.
fn days_text(days: &[bool; 7]) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut day = 0;
    while day < 7 {
        let run = days[day..].iter().take_while(|begins| **begins).count();
        match run {
            0 => day += 1,
            1 | 2 => {
                parts.extend(DAYS[day..day + run].iter().map(ToString::to_string));
                day += run;
            }
            _ => {
                parts.push(format!("{}-{}", DAYS[day], DAYS[day + run - 1]));
                day += run;
            }
        }
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Window {
        text.parse().unwrap()
    }

    #[test]
    fn the_same_window_has_one_text() {
        for (written, text) in [
            ("Tue 02:00-04:00", "Tue 02:00-04:00"),
            (" tue  02:00-04:00 ", "Tue 02:00-04:00"),
            ("Mon-Fri 22:00-05:30", "Mon-Fri 22:00-05:30"),
            ("Mon,Tue,Wed 02:00-04:00", "Mon-Wed 02:00-04:00"),
            ("Sun,Sat 00:00-24:00", "Sat,Sun 00:00-24:00"),
            ("Sat, Sun 00:00-00:00", "Sat,Sun 00:00-24:00"),
            ("Fri-Mon 01:00-02:00", "Mon,Fri-Sun 01:00-02:00"),
            ("Mon-Sun 02:00-04:00", "02:00-04:00"),
            ("22:00-00:00", "22:00-24:00"),
            ("03:00-03:00", "03:00-03:00"),
        ] {
            assert_eq!(read(written).to_string(), text, "{written}");
        }
        assert_ne!(read("Tue 02:00-04:00"), read("Wed 02:00-04:00"));
    }

    #[test]
    fn a_window_over_midnight_ends_on_the_next_day() {
        let window = read("Fri 22:00-05:30");
        assert_eq!((window.start(), window.end()), (22 * 60, 29 * 60 + 30));
        assert!(window.begins_on(4) && !window.begins_on(5) && !window.begins_on(7));
        assert_eq!(read("03:00-03:00").end(), 27 * 60);
        assert_eq!(read("22:00-24:00").end(), 24 * 60);
    }

    #[test]
    fn nonsense_is_refused() {
        let long = format!("{} 02:00-04:00", ["Mon"; 40].join(","));
        for bad in [
            "",
            " ",
            "Tue",
            "Tue 2-4",
            "Foo 02:00-04:00",
            "Tuesday 02:00-04:00",
            ",Tue 02:00-04:00",
            "Tue- 02:00-04:00",
            "Tue 02:00-25:00",
            "Tue 02:60-04:00",
            "02:00 - 04:00",
            "02:00-04:00 Tue",
            "24:00-01:00",
            "24:30-25:00",
            "+2:00-04:00",
            "9223372036854775807:00-01:00",
            &long,
        ] {
            assert!(bad.parse::<Window>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn written_and_read_back(days in 1u8..128, start in 0u16..DAY, minutes in 1u16..=DAY) {
            let days = std::array::from_fn(|day| days >> day & 1 == 1);
            let window = Window { days, start, minutes };
            prop_assert_eq!(window.to_string().parse(), Ok(window));
        }
    }
}
