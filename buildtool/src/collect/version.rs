//! Debian versions: their order and their parts (deb-version(7)).

use std::cmp::Ordering;

/// Epoch, upstream version and revision.
pub fn split(version: &str) -> (u32, &str, &str) {
    let (epoch, rest) = match version.split_once(':') {
        Some((epoch, rest)) => (epoch.parse().unwrap_or(0), rest),
        None => (0, version),
    };
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch, upstream, revision)
}

/// The order of two versions.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (split(a), split(b));
    a.0.cmp(&b.0).then_with(|| compare_part(a.1, b.1)).then_with(|| compare_part(a.2, b.2))
}

/// In turn a run of non-digits and a run of digits, until one differs.
fn compare_part(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while !a.is_empty() || !b.is_empty() {
        let words = (take(&mut a, |c| !c.is_ascii_digit()), take(&mut b, |c| !c.is_ascii_digit()));
        let longest = words.0.len().max(words.1.len());
        for i in 0..=longest {
            let order = weight(words.0.get(i)).cmp(&weight(words.1.get(i)));
            if order.is_ne() {
                return order;
            }
        }
        let numbers = (take(&mut a, u8::is_ascii_digit), take(&mut b, u8::is_ascii_digit));
        let (x, y) = (without_zeros(numbers.0), without_zeros(numbers.1));
        let order = x.len().cmp(&y.len()).then_with(|| x.cmp(y));
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

fn take<'t>(text: &mut &'t [u8], of: impl Fn(&u8) -> bool) -> &'t [u8] {
    let end = text.iter().position(|c| !of(c)).unwrap_or(text.len());
    let (head, tail) = text.split_at(end);
    *text = tail;
    head
}

fn without_zeros(digits: &[u8]) -> &[u8] {
    let start = digits.iter().position(|c| *c != b'0').unwrap_or(digits.len());
    &digits[start..]
}

/// A tilde sorts before the end, the end before letters, letters before everything else.
fn weight(c: Option<&u8>) -> i32 {
    match c {
        Some(b'~') => -1,
        None => 0,
        Some(c) if c.is_ascii_alphabetic() => i32::from(*c),
        Some(c) => i32::from(*c) + 256,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_order_is_dpkgs() {
        let ascending = [
            "0~",
            "0",
            "1.0~rc1-1",
            "1.0-1~deb12u1",
            "1.0-1",
            "1.0-1+b1",
            "1.0-1.1",
            "1.0-2",
            "1.0-10",
            "1.0a",
            "1.0+x",
            "1.1",
            "1:0",
            "2:0.1",
        ];
        for (i, a) in ascending.iter().enumerate() {
            for (j, b) in ascending.iter().enumerate() {
                assert_eq!(compare(a, b), i.cmp(&j), "{a} {b}");
                let asked =
                    std::process::Command::new("dpkg").args(["--compare-versions", a, "lt", b]).status();
                assert_eq!(asked.unwrap().success(), i < j, "dpkg: {a} {b}");
            }
        }
        assert_eq!(compare("1.00", "1.0"), Ordering::Equal);
        assert_eq!(compare("1.0-0", "1.0"), Ordering::Equal);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn the_order_of_any_two_is_dpkgs(
            a in "[0-9][0-9a-z.+~]{0,6}(-[0-9a-z.+~]{1,4})?",
            b in "[0-9][0-9a-z.+~]{0,6}(-[0-9a-z.+~]{1,4})?",
        ) {
            let asked = std::process::Command::new("dpkg").args(["--compare-versions", &a, "lt", &b]).status();
            prop_assert_eq!(asked.unwrap().success(), compare(&a, &b).is_lt());
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
        }
    }

    #[test]
    fn a_version_has_three_parts() {
        assert_eq!(split("1:3.0.17-1~deb12u3"), (1, "3.0.17", "1~deb12u3"));
        assert_eq!(split("2024a"), (0, "2024a", ""));
        assert_eq!(split("1-2-3"), (0, "1-2", "3"));
    }
}
