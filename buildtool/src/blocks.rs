//! The digests of a member's blocks, from its content as it streams by.
//!
//! Which members have them is the index's rule ([`format::index::BLOCK`]).

use format::digest::{Hasher, Sha256};
use format::index::BLOCK;

/// A running list of block digests.
pub struct Blocks {
    /// Whether the content is larger than one block.
    wanted: bool,
    in_block: u64,
    digest: Hasher,
    done: Vec<Sha256>,
}

impl Blocks {
    /// For content of `size` bytes.
    pub fn new(size: u64) -> Self {
        Blocks { wanted: size > BLOCK, in_block: 0, digest: Hasher::new(), done: Vec::new() }
    }

    /// The next bytes of the content.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while self.wanted && !bytes.is_empty() {
            let part = bytes.len().min((BLOCK - self.in_block) as usize); // at most a block
            self.digest.update(&bytes[..part]);
            self.in_block += part as u64;
            if self.in_block == BLOCK {
                self.done.push(std::mem::take(&mut self.digest).finish());
                self.in_block = 0;
            }
            bytes = &bytes[part..];
        }
    }

    /// The digests; none if the content fits one block.
    pub fn finish(mut self) -> Vec<Sha256> {
        if self.in_block > 0 {
            self.done.push(self.digest.finish());
        }
        self.done
    }

    /// Those of `content`.
    pub fn of(content: &[u8]) -> Vec<Sha256> {
        let mut blocks = Blocks::new(content.len() as u64);
        blocks.update(content);
        blocks.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_the_same_however_they_stream_by() {
        let content: Vec<u8> = (0..BLOCK * 2 + 5).map(|i| (i % 251) as u8).collect();
        let mut blocks = Blocks::new(content.len() as u64);
        content.chunks(65_023).for_each(|chunk| blocks.update(chunk));
        let expected: Vec<Sha256> = content.chunks(BLOCK as usize).map(Sha256::of).collect();
        assert_eq!(blocks.finish(), expected);
        assert!(Blocks::of(&vec![1; BLOCK as usize]).is_empty());
        assert_eq!(Blocks::of(&vec![1; 2 * BLOCK as usize]).len(), 2);
    }
}
