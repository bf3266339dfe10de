//! How fast something may be fetched, as an operator writes it: `2Mbit/s`.

use std::fmt;
use std::str::FromStr;

/// Unit, and the bytes a second of 8 of it: so that bits are whole numbers too.
const UNITS: [(&str, u64); 7] = [
    ("kbit/s", 1000),
    ("Mbit/s", 1_000_000),
    ("Gbit/s", 1_000_000_000),
    ("kB/s", 8 * 1000),
    ("MB/s", 8 * 1_000_000),
    ("KiB/s", 8 * 1024),
    ("MiB/s", 8 * 1024 * 1024),
];

/// Bytes a second of the slowest rate, 1 kbit/s: below it a fetch never ends.
const SLOWEST: u64 = 125;

/// A cap on the rate of fetching, or none.
///
/// The unit must be written: a mistaken factor of eight is how a store's link is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(Option<u64>);

impl Rate {
    /// No cap: `unlimited`.
    pub const UNLIMITED: Rate = Rate(None);

    /// The cap in bytes a second; none if there is none.
    pub fn bytes_per_second(self) -> Option<u64> {
        self.0
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "unlimited" {
            return Ok(Rate::UNLIMITED);
        }
        let rate = UNITS.iter().find_map(|(unit, eight)| {
            let number = text.strip_suffix(unit)?.trim();
            let digits = number.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| number.parse::<u64>().ok()?.checked_mul(*eight))?
        });
        match rate.map(|eight| eight / 8) {
            Some(rate) if rate >= SLOWEST => Ok(Rate(Some(rate))),
            Some(_) => Err(format!("{text:?} is slower than 1kbit/s")),
            None => {
                let shown: String = text.chars().take(80).collect();
                Err(format!(
                    "{shown:?} is not a number with kbit/s, Mbit/s, Gbit/s, kB/s, MB/s, KiB/s or MiB/s, nor \
                     \"unlimited\""
                ))
            }
        }
    }
}

impl fmt::Display for Rate {
    /// In the largest unit that gives a whole number; in bits where bytes give none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(rate) = self.0 else {
            return f.write_str("unlimited");
        };
        let eight = u128::from(rate) * 8;
        let fits = UNITS.iter().filter(|(_, unit)| eight.is_multiple_of(u128::from(*unit)));
        match fits.max_by_key(|(_, unit)| *unit) {
            Some((unit, size)) => write!(f, "{}{unit}", eight / u128::from(*size)),
            // Not reached by what was read: every unit is a multiple of one of these two.
            None => write!(f, "{rate}B/s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rates_say_bits_or_bytes() {
        for (text, bytes, shown) in [
            ("2Mbit/s", 250_000, "2Mbit/s"),
            ("2000 kbit/s", 250_000, "2Mbit/s"),
            ("1kbit/s", 125, "1kbit/s"),
            ("256KiB/s", 262_144, "256KiB/s"),
            ("1MB/s", 1_000_000, "1MB/s"),
            ("8Mbit/s", 1_000_000, "1MB/s"),
            ("1MiB/s", 1_048_576, "1MiB/s"),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(
                (rate.bytes_per_second(), rate.to_string()),
                (Some(bytes), shown.to_owned()),
                "{text}"
            );
        }
        assert_eq!("unlimited".parse::<Rate>().unwrap().bytes_per_second(), None);
        for bad in
            ["2048", "2 Mbps", "0kB/s", "0kbit/s", "-1MB/s", "+1MB/s", "MB/s", "99999999999999999999MB/s"]
        {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn written_and_read_back(number in 1u64..1_000_000_000, unit in 0..UNITS.len()) {
            let rate: Rate = format!("{number}{}", UNITS[unit].0).parse().unwrap();
            prop_assert_eq!(rate.to_string().parse(), Ok(rate));
        }
    }
}
