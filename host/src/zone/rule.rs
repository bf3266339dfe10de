//! Rules for all years to come, as POSIX writes them for `$TZ` and zone files end with: `CET-1CEST,M3.5.0,M10.5.0/3`
//! (RFC 9636, section 3.3.1). Pure.

use format::time::{civil_from_days, days_from_civil};

const DAY: i64 = 86_400;

/// Standard time, and for a part of each year another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// Seconds east of UTC.
    standard: i64,
    summer: Option<Summer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Summer {
    /// Seconds east of UTC.
    offset: i64,
    /// By the clocks before the change.
    begins: Date,
    ends: Date,
}

/// A moment of each year, on the clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Date {
    day: Day,
    /// Seconds after that day's midnight; may be before it or days later.
    time: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Day {
    /// `J1` to `J365`: 29 February is never counted.
    Julian(i64),
    /// `0` to `365`: it is.
    FromZero(i64),
    /// `M3.5.0`: month, week (5: the last), day of the week from Sunday.
    Weekday(i64, i64, i64),
}

impl Rule {
    /// The offset at a moment.
    pub(super) fn at(&self, moment: i64) -> i64 {
        let changes = self.changes_around(moment).into_iter().flatten();
        changes.take_while(|(change, _)| *change <= moment).last().map_or(self.standard, |(_, offset)| offset)
    }

    /// The changes of the year before the one of `moment`, of that year and of the next, in order; none if there is one
    /// offset for all the year.
    pub(super) fn changes_around(&self, moment: i64) -> Option<[(i64, i64); 6]> {
        let summer = self.summer?;
        // Beyond any calendar, there is no year to ask for.
        let days = moment.clamp(-(1 << 40), 1 << 40).div_euclid(DAY);
        let year = civil_from_days(days).0;
        let mut changes = [(0, 0); 6];
        for (pair, year) in changes.chunks_exact_mut(2).zip(year - 1..) {
            pair[0] = (summer.begins.clock(year) - self.standard, summer.offset);
            pair[1] = (summer.ends.clock(year) - summer.offset, self.standard);
        }
        // A summer that ends when the next begins never ends (RFC 9636 writes such zones so).
        changes.sort_by_key(|(change, offset)| (*change, *offset == summer.offset));
        Some(changes)
    }

    /// Reads a rule.
    pub(super) fn parse(text: &str) -> Option<Rule> {
        let mut text = Text(text);
        text.name()?;
        // POSIX counts west of Greenwich.
        let standard = -text.time(24)?;
        if text.0.is_empty() {
            return Some(Rule { standard, summer: None });
        }
        text.name()?;
        let offset = if text.0.starts_with(',') { standard + 3600 } else { -text.time(24)? };
        let begins = text.date()?;
        let ends = text.date()?;
        text.0.is_empty().then_some(Rule { standard, summer: Some(Summer { offset, begins, ends }) })
    }
}

impl Date {
    /// That moment of `year`, as seconds since the clocks showed 1970-01-01 00:00.
    fn clock(&self, year: i64) -> i64 {
        let day = match self.day {
            Day::FromZero(day) => days_from_civil(year, 1, 1) + day,
            Day::Julian(day) => {
                // Counted from 1 March, no leap day is in the way.
                let (from, days) = if day < 60 {
                    (days_from_civil(year, 1, 1), day - 1)
                } else {
                    (days_from_civil(year, 3, 1), day - 60)
                };
                from + days
            }
            Day::Weekday(month, week, weekday) => {
                let first = days_from_civil(year, month, 1);
                let next = if month == 12 {
                    days_from_civil(year + 1, 1, 1)
                } else {
                    days_from_civil(year, month + 1, 1)
                };
                // 1970-01-01 was a Thursday.
                let first_weekday = (first + 4).rem_euclid(7);
                let day = first + (weekday - first_weekday).rem_euclid(7) + (week - 1) * 7;
                if day < next { day } else { day - 7 }
            }
        };
        day * DAY + self.time
    }
}

/// What is left to read.
struct Text<'t>(&'t str);

impl<'t> Text<'t> {
    fn skip(&mut self, word: char) -> Option<()> {
        self.0 = self.0.strip_prefix(word)?;
        Some(())
    }

    /// The name of a time, which nobody here asks for: letters, or anything in angle brackets.
    fn name(&mut self) -> Option<()> {
        let length = match self.0.strip_prefix('<') {
            Some(quoted) => quoted.find('>')? + 2,
            None => self.0.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(self.0.len()),
        };
        self.0 = self.0.get(length..)?;
        (length >= 3).then_some(())
    }

    fn number(&mut self, most: i64) -> Option<i64> {
        let length = self.0.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.0.len());
        let (digits, left) = self.0.split_at(length.min(3));
        self.0 = left;
        digits.parse().ok().filter(|number| *number <= most)
    }

    /// `[+-]HH[:MM[:SS]]`, in seconds.
    fn time(&mut self, most_hours: i64) -> Option<i64> {
        let sign = match self.0.as_bytes().first()? {
            b'-' => self.skip('-').map(|()| -1)?,
            b'+' => self.skip('+').map(|()| 1)?,
            _ => 1,
        };
        let mut seconds = self.number(most_hours)? * 3600;
        for unit in [60, 1] {
            if self.skip(':').is_some() {
                seconds += self.number(59)? * unit;
            } else {
                break;
            }
        }
        Some(sign * seconds)
    }

    /// `,DAY[/TIME]`: at two in the morning where no time is said.
    fn date(&mut self) -> Option<Date> {
        self.skip(',')?;
        let day = if self.skip('J').is_some() {
            Day::Julian(self.number(365).filter(|day| *day >= 1)?)
        } else if self.skip('M').is_some() {
            let month = self.number(12).filter(|month| *month >= 1)?;
            self.skip('.')?;
            let week = self.number(5).filter(|week| *week >= 1)?;
            self.skip('.')?;
            Day::Weekday(month, week, self.number(6)?)
        } else {
            Day::FromZero(self.number(365)?)
        };
        // A week and more either way is what version 3 of zone files allows.
        let time = if self.skip('/').is_some() { self.time(167)? } else { 2 * 3600 };
        Some(Date { day, time })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_says_when_clocks_change() {
        let rule = Rule::parse("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        // 2026-03-29T01:00:00Z and 2026-10-25T01:00:00Z.
        for (moment, offset) in
            [(1_774_746_000, 7200), (1_774_745_999, 3600), (1_792_890_000, 3600), (1_792_889_999, 7200)]
        {
            assert_eq!(rule.at(moment), offset, "{moment}");
        }
        // A summer over the turn of the year, and one that never ends.
        assert_eq!(Rule::parse("AEST-10AEDT,M10.1.0,M4.1.0/3").unwrap().at(1_798_761_600), 39_600);
        let ever = Rule::parse("XXX3EDT4,0/0,J365/23").unwrap();
        assert!(
            [1_798_761_600, 1_798_772_400, 1_798_776_000, 1_780_000_000]
                .iter()
                .all(|at| ever.at(*at) == -14_400)
        );
        // Days by their number: 1 March, whether there is a 29 February or not.
        let with = Rule::parse("AAA0BBB,J60,J365");
        let summer = with.unwrap().summer.unwrap();
        assert_eq!(summer.begins.clock(2024), days_from_civil(2024, 3, 1) * DAY + 7200);
        assert_eq!(summer.begins.clock(2026), days_from_civil(2026, 3, 1) * DAY + 7200);
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for text in [
            "",
            "C",
            "CET",
            "CET-1CEST",
            "CET-1CEST,M3.5.0",
            "CET-1CEST,M13.5.0,M10.5.0",
            "CET-1CEST,M3.6.0,M10.5.0",
            "CET-1CEST,M3.5.7,M10.5.0",
            "CET-1CEST,J0,J365",
            "CET-25",
            "CET-1x",
            "<+01-1",
            "CET-1:60",
            "CET-1CEST,366,1",
            "CET-1CEST,M3.5.0/168,M10.5.0",
            "CET-99999999999999999999",
        ] {
            assert_eq!(Rule::parse(text), None, "{text:?}");
        }
    }
}
