//! What two pieces of content have in common: the search of bsdiff (Colin Percival, "Naive differences of executable code",
//! 2003) over a suffix array, which finds code that was moved and whose addresses have changed all over.
//!
//! Pure. Memory: four bytes for each byte of the old content, and the bucket table.

/// A stretch of the new content that is like one of the old; what lies between two of them is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alike {
    /// Where it begins in the old content.
    pub old: usize,
    /// Where it begins in the new content.
    pub new: usize,
    /// How long it is. Not all of its bytes are the same.
    pub length: usize,
}

/// A match must be so much longer than what goes on as before, to be worth a new place: what bsdiff takes.
const BETTER_BY: i64 = 8;

/// After so many places without a match, the search takes longer steps: nothing is alike here, as in what is compressed.
const BARREN: u32 = 16 * 1024;

/// The longest such step.
const MAX_STRIDE: u32 = 64;

/// Old content, sorted.
pub struct Sorted<'o> {
    /// It.
    pub old: &'o [u8],
    suffixes: Vec<i32>,
    /// Where the suffixes with these first two bytes begin.
    buckets: Vec<u32>,
}

impl<'o> Sorted<'o> {
    /// Sorts. `old` is shorter than 2 GiB.
    pub fn new(old: &'o [u8]) -> Self {
        let mut suffixes = vec![0; old.len()];
        // One suffix, or none, is sorted.
        if old.len() > 1 {
            divsufsort::sort_in_place(old, &mut suffixes);
        }
        // A suffix of one byte counts as followed by nothing, which sorts first.
        let key = |at: i32| {
            let at = at as usize;
            usize::from(old[at]) << 8 | usize::from(old.get(at + 1).copied().unwrap_or(0))
        };
        let mut buckets = vec![0u32; (1 << 16) + 1];
        for suffix in &suffixes {
            buckets[key(*suffix) + 1] += 1;
        }
        for n in 1..buckets.len() {
            buckets[n] += buckets[n - 1];
        }
        Sorted { old, suffixes, buckets }
    }

    /// Where the longest piece stands that is the beginning of `wanted`, and how long it is.
    fn longest(&self, wanted: &[u8]) -> (usize, usize) {
        let [first, second, ..] = wanted else { return (0, 0) };
        let key = usize::from(*first) << 8 | usize::from(*second);
        let (mut low, mut high) = (self.buckets[key] as usize, self.buckets[key + 1] as usize);
        if low == high {
            return (0, 0);
        }
        let suffix = |n: usize| &self.old[self.suffixes[n] as usize..];
        let common = |n: usize| common(suffix(n), wanted);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if suffix(middle) <= wanted { low = middle } else { high = middle }
        }
        // The one before and the one behind; the longer of the two.
        let mut best = (self.suffixes[low] as usize, common(low));
        if high < self.buckets[key + 1] as usize && common(high) > best.1 {
            best = (self.suffixes[high] as usize, common(high));
        }
        best
    }
}

fn common(a: &[u8], b: &[u8]) -> usize {
    let n = a.len().min(b.len());
    let (a, b) = (&a[..n], &b[..n]);
    let words = a.chunks_exact(8).zip(b.chunks_exact(8)).take_while(|(a, b)| a == b).count() * 8;
    words + a[words..].iter().zip(&b[words..]).take_while(|(a, b)| a == b).count()
}

/// Hands over what of `new` is like the old content, from its beginning to its end.
pub fn alike(sorted: &Sorted<'_>, new: &[u8], found: &mut dyn FnMut(Alike)) {
    let old = sorted.old;
    // `scan`: where it is looked now. What was found last begins at `last_new` and `last_old`.
    let (mut scan, mut length, mut position) = (0usize, 0usize, 0usize);
    let (mut last_new, mut last_old, mut offset) = (0usize, 0usize, 0isize);
    let goes_on = |at: usize, offset: isize| {
        at.checked_add_signed(offset).and_then(|o| old.get(o)) == new.get(at) && at < new.len()
    };
    while scan < new.len() {
        let (mut score, mut barren) = (0i64, 0u32);
        scan += length;
        let mut counted = scan;
        while scan < new.len() {
            (position, length) = sorted.longest(&new[scan..]);
            while counted < scan + length {
                score += i64::from(goes_on(counted, offset));
                counted += 1;
            }
            if (length as i64 == score && length != 0) || length as i64 > score + BETTER_BY {
                break;
            }
            barren += 1;
            let stride = (1 + barren / BARREN).min(MAX_STRIDE);
            for _ in 0..stride.min((new.len() - scan) as u32) {
                score -= i64::from(goes_on(scan, offset));
                scan += 1;
            }
        }
        if length as i64 == score && scan < new.len() {
            continue;
        }
        // Forward from what was found last, as far as more than half of the bytes are the same.
        let mut forward = 0;
        let (mut same, mut best) = (0i64, 0i64);
        for i in 0..(scan - last_new).min(old.len() - last_old) {
            same += i64::from(old[last_old + i] == new[last_new + i]);
            let value = 2 * same - (i as i64 + 1);
            if value > best {
                (best, forward) = (value, i + 1);
            }
        }
        // Backward from what is found now.
        let mut backward = 0;
        if scan < new.len() {
            let (mut same, mut best) = (0i64, 0i64);
            for i in 1..=(scan - last_new).min(position) {
                same += i64::from(old[position - i] == new[scan - i]);
                let value = 2 * same - i as i64;
                if value > best {
                    (best, backward) = (value, i);
                }
            }
        }
        // Where the two meet, the better of them for each byte.
        if last_new + forward > scan - backward {
            let overlap = (last_new + forward) - (scan - backward);
            let (mut value, mut best, mut keep) = (0i64, 0i64, 0);
            for i in 0..overlap {
                let ahead = new[last_new + forward - overlap + i] == old[last_old + forward - overlap + i];
                let back = new[scan - backward + i] == old[position - backward + i];
                value += i64::from(ahead) - i64::from(back);
                if value > best {
                    (best, keep) = (value, i + 1);
                }
            }
            forward = forward - overlap + keep;
            backward -= keep;
        }
        if forward > 0 {
            found(Alike { old: last_old, new: last_new, length: forward });
        }
        if scan < new.len() {
            (last_new, last_old) = (scan - backward, position - backward);
            offset = position as isize - scan as isize;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn find(old: &[u8], new: &[u8]) -> Vec<Alike> {
        let (sorted, mut out) = (Sorted::new(old), Vec::new());
        alike(&sorted, new, &mut |found| out.push(found));
        out
    }

    #[test]
    fn code_that_moved_and_whose_addresses_changed_is_found() {
        let old: Vec<u8> = (0..4000u32).flat_map(|i| (i.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
        let mut new = b"something new in front of it".to_vec();
        new.extend(&old[8000..]);
        new.extend(&old[..8000]);
        new.iter_mut().skip(100).step_by(40).for_each(|byte| *byte = byte.wrapping_add(3));
        let found = find(&old, &new);
        let covered: usize = found.iter().map(|a| a.length).sum();
        assert!(covered >= old.len() - 100, "{covered} of {}", old.len());
        assert!(found.len() < 10, "{found:?}");
    }

    proptest! {
        #[test]
        fn what_is_found_is_within_both_and_in_order(
            old in prop::collection::vec(0u8..4, 0..600), new in prop::collection::vec(0u8..4, 0..600)
        ) {
            let mut at = 0;
            for alike in find(&old, &new) {
                prop_assert!(alike.new >= at && alike.length > 0);
                prop_assert!(alike.old + alike.length <= old.len());
                at = alike.new + alike.length;
                prop_assert!(at <= new.len());
            }
        }
    }
}
