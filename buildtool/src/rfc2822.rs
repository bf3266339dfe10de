//! The dates of Release files: `Sat, 21 Nov 2026 00:53:02 UTC` (RFC 2822, with the zone that Debian writes).

use format::time::UnixTime;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// 1970-01-01 was a Thursday.
const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];

/// Reads such a date; `None` if it is something else.
pub fn parse(text: &str) -> Option<UnixTime> {
    let text = text.split_once(',').map_or(text, |(_, rest)| rest);
    let mut words = text.split_whitespace();
    let (day, month, year) = (words.next()?, words.next()?, words.next()?);
    let (time, zone) = (words.next()?, words.next().unwrap_or("UTC"));
    let day: u8 = day.parse().ok()?;
    let month = MONTHS.iter().position(|m| *m == month)? + 1;
    // Hours may have one digit; the strict reader below judges the rest.
    let time = if time.find(':') == Some(1) { format!("0{time}") } else { time.to_owned() };
    let at: UnixTime = format!("{year}-{month:02}-{day:02}T{time}Z").parse().ok()?;
    Some(UnixTime(at.0 - offset(zone)?))
}

fn offset(zone: &str) -> Option<i64> {
    if ["UTC", "GMT", "UT", "Z"].contains(&zone) {
        return Some(0);
    }
    let (sign, digits) = match zone.as_bytes().first()? {
        b'+' => (1, &zone[1..]),
        b'-' => (-1, &zone[1..]),
        _ => return None,
    };
    let number: i64 = (digits.len() == 4).then(|| digits.parse().ok()).flatten()?;
    Some(sign * (number / 100 * 3600 + number % 100 * 60))
}

/// Writes such a date, in UTC.
pub fn format(at: UnixTime) -> String {
    let text = at.to_string(); // YYYY-MM-DDTHH:MM:SSZ
    let month: usize = text[5..7].parse().unwrap_or(1);
    let weekday = at.0.div_euclid(86_400).rem_euclid(7) as usize; // 0 to 6
    format!(
        "{}, {} {} {} {} UTC",
        DAYS[weekday],
        &text[8..10],
        MONTHS[(month - 1) % 12],
        &text[..4],
        &text[11..19]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dates_of_release_files_are_read_and_written() {
        let text = "Sat, 21 Nov 2026 00:53:02 UTC";
        let at = parse(text).unwrap();
        assert_eq!(at.to_string(), "2026-11-21T00:53:02Z");
        assert_eq!(format(at), text);
        assert_eq!(parse("Sat, 21 Nov 2026 02:53:02 +0200"), Some(at));
        assert_eq!(parse("Mon, 7 Jun 2021 9:05:00 GMT").unwrap().to_string(), "2021-06-07T09:05:00Z");
        assert_eq!(parse("yesterday"), None);
        assert_eq!(parse("Sat, 31 Feb 2026 00:00:00 UTC"), None);
    }
}
