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
struct Place {
    leaf: PageId,
    index: u32,
    /// Tells most other keys of the slot apart, whose leaf would be a look at cold memory for nothing.
    tag: u32,
}

/// One place for each key, until another key with the same slot takes it.
pub(crate) struct Hints {
    places: Box<[Cell<Place>]>,
    hasher: FixedState,
}

/// Where the place of a key is kept.
pub(crate) struct Slot<'a> {
    place: &'a Cell<Place>,
    tag: u32,
}

impl Hints {
    pub(crate) fn new() -> Hints {
        let nowhere = Place { leaf: PageId(u64::MAX), index: 0, tag: 0 };
        Hints {
            places: vec![Cell::new(nowhere); HINTS].into(),
            hasher: FixedState::with_seed(SEED),
        }
    }

    pub(crate) fn slot(&self, key: &[u8]) -> Slot<'_> {
        let hash = self.hasher.hash_one(key);
        Slot { place: &self.places[hash as usize % HINTS], tag: (hash >> 32) as u32 }
    }
}

impl Slot<'_> {
    /// Leaf and entry, if the key was looked for last.
    pub(crate) fn recall(&self) -> Option<(PageId, usize)> {
        let Place { leaf, index, tag } = self.place.get();
        (tag == self.tag).then_some((leaf, index as usize))
    }

    pub(crate) fn remember(&self, leaf: PageId, index: usize) {
        self.place.set(Place { leaf, index: index as u32, tag: self.tag });
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
