//! Where keys were found last, so that who looks for the same key again need not come down from the root.
//!
//! A transaction looks for most of its keys twice or more: to see what is there, then to change it.
//! Invariant: a hint is only a place to look at first. What the leaf itself shows decides: the key
//! is there, or two neighbours in one leaf leave no other place for it.

use std::cell::Cell;
use std::hash::BuildHasher as _;

use foldhash::fast::FixedState;

use crate::page::Page;
use crate::types::PageId;

/// Places that are remembered: some transactions in flight times their keys.
const HINTS: usize = 512;
/// Gives hints the same order in each run.
const SEED: u64 = 0x5eed;

/// A leaf, and the entry that a key has there, or would have.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) leaf: PageId,
    pub(crate) index: u32,
}

/// One place for each key, until another key with the same slot takes it.
pub(crate) struct Hints {
    places: Box<[Cell<Place>]>,
    hasher: FixedState,
}

impl Hints {
    pub(crate) fn new() -> Hints {
        let nowhere = Place { leaf: PageId(u64::MAX), index: 0 };
        Hints {
            places: vec![Cell::new(nowhere); HINTS].into(),
            hasher: FixedState::with_seed(SEED),
        }
    }

    /// Where the place of `key` is kept.
    pub(crate) fn slot(&self, key: &[u8]) -> &Cell<Place> {
        &self.places[self.hasher.hash_one(key) as usize % HINTS]
    }
}

/// Where `key` is in `leaf`, or would be; `None` if `index` does not tell.
pub(crate) fn confirm(leaf: &Page, index: usize, key: &[u8]) -> Option<Result<usize, usize>> {
    if !leaf.is_leaf() || index >= leaf.count() {
        return None;
    }
    match leaf.key(index).cmp(key) {
        std::cmp::Ordering::Equal => Some(Ok(index)),
        std::cmp::Ordering::Greater if index > 0 && leaf.key(index - 1) < key => Some(Err(index)),
        _ => None,
    }
}
