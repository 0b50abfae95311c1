//! The keyed hash.

use std::hash::Hasher;

use foldhash::{SharedSeed, quality::FoldHasher};

use crate::sql::Lexing;

/// A secret that makes hashes unpredictable to clients: nobody can make two texts meet. Two
/// independent 64-bit hashes of one pass over the bytes each.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    halves: [(SharedSeed, u64); 2],
}

impl Key {
    /// From random bits that clients can't know.
    pub(crate) fn new(random: [u64; 4]) -> Self {
        let [a, b, c, d] = random;
        Self {
            halves: [(SharedSeed::from_u64(a), b), (SharedSeed::from_u64(c), d)],
        }
    }

    /// The hash of `bytes`, read as `lexing` says.
    #[inline]
    pub(crate) fn hash(&self, bytes: &[u8], lexing: Lexing) -> u128 {
        let [first, second] = &self.halves;
        let half = |(shared, seed): &(SharedSeed, u64)| {
            let mut hasher = FoldHasher::with_seed(*seed, shared);
            hasher.write(bytes);
            hasher.write_u64(bytes.len() as u64);
            hasher.write_u8(u8::from(lexing.standard_conforming_strings));
            hasher.write_u8(u8::from(lexing.ascii_safe_encoding));
            hasher.finish()
        };
        u128::from(half(first)) << 64 | u128::from(half(second))
    }
}
