//! gzip with an end: what inflates to more than the limit is refused as soon as it does.

use std::io::Read as _;

use flate2::bufread::MultiGzDecoder;

/// Why something is not inflated.
#[derive(Debug, PartialEq, Eq)]
pub enum NotInflated {
    /// There is more than the limit.
    TooLong,
    /// It is no gzip.
    Damaged(String),
}

/// The content of `bytes`, which may be `limit` bytes long. Memory is needed for what comes out, never for what is claimed.
///
/// # Errors
/// If it is damaged, or longer.
pub fn gzip(bytes: &[u8], limit: usize) -> Result<Vec<u8>, NotInflated> {
    let mut out = Vec::new();
    let read = MultiGzDecoder::new(bytes).take(limit as u64 + 1).read_to_end(&mut out);
    read.map_err(|e| NotInflated::Damaged(e.to_string()))?;
    if out.len() > limit { Err(NotInflated::TooLong) } else { Ok(out) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn deflated(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let bomb = deflated(&vec![0; 100_000_000]);
        assert!(bomb.len() < 200_000);
        assert_eq!(gzip(&bomb, 1_000_000), Err(NotInflated::TooLong));
    }

    #[test]
    fn what_fits_is_itself_and_what_is_damaged_is_refused() {
        let whole = deflated(b"hello");
        assert_eq!(gzip(&whole, 5).unwrap(), b"hello");
        assert_eq!(gzip(&whole, 4), Err(NotInflated::TooLong));
        assert!(matches!(gzip(&whole[..whole.len() - 1], 5), Err(NotInflated::Damaged(_))));
        assert!(matches!(gzip(b"{}", 5), Err(NotInflated::Damaged(_))));
    }
}
