//! Chunks sorted by what can be allocated from them.
//!
//! A shelf is a set of chunks; its next one from any place on is found in steps of 64 to the power of the
//! level, so that nothing here takes longer the more chunks there are, and nothing allocates.
//! Invariant: a chunk with room is on one shelf, a full one on none.

use super::{CHUNK_BLOCKS, Chunk, Kind, PAGE_BLOCKS};

/// Shelves of one class of data, by eighths of a chunk that are free.
pub(super) const LEVELS: usize = 8;
/// Blocks from one level to the next.
const LEVEL_BLOCKS: u64 = CHUNK_BLOCKS / LEVELS as u64;
/// Chunks of which nothing is in use.
pub(super) const FREE: usize = 2 * LEVELS;
/// Chunks of pages.
pub(super) const PAGES: usize = FREE + 1;

/// The shelf of chunks with small, or large, pieces of data, and at least this level of free blocks.
pub(super) fn shelf_of(kind: Kind, level: usize) -> usize {
    if kind == Kind::Small { level } else { LEVELS + level }
}

/// The level of a chunk with so many free blocks.
pub(super) fn level(free: u64) -> usize {
    ((free / LEVEL_BLOCKS) as usize).min(LEVELS - 1)
}

impl Chunk {
    /// Where it belongs.
    pub(super) fn shelf(&self) -> Option<usize> {
        match (self.free(), self.kind) {
            (0, _) => None,
            (free, Kind::Page) => (free >= PAGE_BLOCKS).then_some(PAGES),
            (CHUNK_BLOCKS, _) => Some(FREE),
            (free, kind) => Some(shelf_of(kind, level(free))),
        }
    }
}

/// A set of chunks.
pub(super) struct Shelf {
    /// Bits of the first level are chunks, of the others words of the level before that are not zero.
    levels: Vec<Vec<u64>>,
}

impl Shelf {
    /// An empty set of chunks below `chunks`.
    pub(super) fn new(chunks: usize) -> Shelf {
        let (mut levels, mut len) = (Vec::new(), chunks);
        loop {
            len = len.div_ceil(64).max(1);
            levels.push(vec![0; len]);
            if len == 1 {
                return Shelf { levels };
            }
        }
    }

    pub(super) fn insert(&mut self, chunk: usize) {
        let mut at = chunk;
        for words in &mut self.levels {
            let before = words[at / 64];
            words[at / 64] |= 1 << (at % 64);
            if before != 0 {
                return;
            }
            at /= 64;
        }
    }

    pub(super) fn remove(&mut self, chunk: usize) {
        let mut at = chunk;
        for words in &mut self.levels {
            words[at / 64] &= !(1 << (at % 64));
            if words[at / 64] != 0 {
                return;
            }
            at /= 64;
        }
    }

    /// The first chunk from `from` on.
    pub(super) fn next(&self, from: usize) -> Option<usize> {
        let mut at = from;
        for level in 0..self.levels.len() {
            let word = self.levels[level].get(at / 64)? & (u64::MAX << (at % 64));
            if word != 0 {
                let found = at / 64 * 64 + word.trailing_zeros() as usize;
                return Some(self.first_below(level, found));
            }
            at = at / 64 + 1;
        }
        None
    }

    /// All chunks, from `from` on and then those before it.
    pub(super) fn around(&self, from: usize) -> impl Iterator<Item = usize> {
        let (mut at, mut wrapped) = (from, false);
        std::iter::from_fn(move || {
            loop {
                match self.next(at) {
                    Some(chunk) if !wrapped || chunk < from => {
                        at = chunk + 1;
                        return Some(chunk);
                    }
                    None if !wrapped => (at, wrapped) = (0, true),
                    _ => return None,
                }
            }
        })
    }

    /// The first chunk below a bit of a level.
    fn first_below(&self, level: usize, at: usize) -> usize {
        let down = |at: usize, words: &Vec<u64>| at * 64 + words[at].trailing_zeros() as usize;
        self.levels[..level].iter().rev().fold(at, down)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_shelf_is_a_set(
            size in 1usize..20_000,
            steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..200),
        ) {
            let (mut shelf, mut model) = (Shelf::new(size), BTreeSet::new());
            for (inserts, index) in steps {
                let chunk = index.index(size);
                match inserts {
                    true => {
                        shelf.insert(chunk);
                        model.insert(chunk);
                    }
                    false => {
                        shelf.remove(chunk);
                        model.remove(&chunk);
                    }
                }
                for from in [0, chunk, chunk + 1, size, size * 64, usize::MAX] {
                    prop_assert_eq!(shelf.next(from), model.range(from..).next().copied());
                }
                let around: Vec<usize> = shelf.around(chunk).collect();
                let wanted = model.range(chunk..).chain(model.range(..chunk)).copied();
                prop_assert_eq!(around, wanted.collect::<Vec<_>>());
            }
        }
    }
}
