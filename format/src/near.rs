//! What somebody may have meant by a word that is not known.

/// The word of `known` that is nearest to `word`, if one is near enough to be meant.
pub fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    // A third of it wrong is another word.
    let limit = (word.chars().count() / 3).max(1);
    let with_distance = known.into_iter().map(|candidate| (distance(word, candidate), candidate));
    with_distance
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(d, _)| *d)
        .map(|(_, candidate)| candidate)
}

/// Letters to insert, take out or replace, or neighbours to swap, between two words whatever their case (optimal string
/// alignment). Words of unlike length are not looked at closely.
fn distance(a: &str, b: &str) -> usize {
    let letters = |text: &str| text.chars().map(|c| c.to_ascii_lowercase()).collect::<Vec<char>>();
    let (a, b) = (letters(a), letters(b));
    if a.len().abs_diff(b.len()) > a.len() / 3 + 1 {
        return usize::MAX;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1; b.len() + 1];
        for j in 0..b.len() {
            let replaced = last[j] + usize::from(a[i] != b[j]);
            row[j + 1] = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                row[j + 1] = row[j + 1].min(before[j - 1] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_understood_and_another_word_is_not() {
        let known = ["batchSize", "batchDelayMinutes", "canary", "type"];
        for (word, meant) in [
            ("batchsize", Some("batchSize")),
            ("batchSiez", Some("batchSize")),
            ("bacthDelayMinuts", Some("batchDelayMinutes")),
            ("typ", Some("type")),
            ("parallelism", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), meant, "{word}");
        }
    }

    #[test]
    fn the_distance_is_the_number_of_slips() {
        for (a, b, slips) in
            [("", "", 0), ("abc", "abc", 0), ("abc", "acb", 1), ("abc", "ab", 1), ("ABC", "xbcd", 2)]
        {
            assert_eq!((distance(a, b), distance(b, a)), (slips, slips), "{a} {b}");
        }
    }
}
