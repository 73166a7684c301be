//! Where new data goes: streams, and classes of sizes.
//!
//! Small runs and large ones come from different chunks, so that what is left of small ones never cuts up
//! the room of large ones. All small runs are one stream: what is staged together lies together, and the
//! data of a batch is written by few requests. Large ones have several, chosen by the object, each with a
//! chunk of its own: what is written to one array one after the other lies one after the other, whoever else
//! is writing.
//!
//! A stream goes on behind its last run. A new chunk for small runs is one that is nearly empty; else one
//! without anything in it, while there are many and those of small runs are more than half full; else the
//! emptiest, where most can follow each other. A new place for a large run is a hole that
//! fits it between large ones, else a chunk without anything in it. Whatever the classes are, a run is found
//! while there is room at all.
//!
//! Classes are in memory only: after opening, chunks in part in use count as those of small runs.

use super::shelves::{FREE, LEVELS, level, shelf_of};
use super::{CHUNK_BLOCKS, Chunk, Kind, Place, Space};

/// Runs up to this many blocks are small. Data of this size is written beside its batch.
pub(super) const SMALL_BLOCKS_MAX: u64 = 16;
/// Streams of large runs; the first stream is the one of small runs.
const LARGE_STREAMS: usize = 7;
pub(super) const STREAMS: usize = LARGE_STREAMS + 1;
const SMALL: usize = 0;
/// Larger runs may as well be in pieces of this size: so long is the longest extent.
const RUN_WANTED_MAX: u64 = 64;
/// Chunks looked at for an unbroken run before pieces are taken.
const SEARCH_MAX: usize = 64;
/// One chunk in so many is left to large runs while small ones find another place.
const LEFT_FRACTION: u64 = 8;

/// The class of a run.
pub(super) fn class(blocks: u64) -> Kind {
    if blocks <= SMALL_BLOCKS_MAX { Kind::Small } else { Kind::Large }
}

/// The stream of a run of an object that `hint` stands for.
pub(super) fn stream_of(blocks: u64, hint: u64) -> usize {
    match class(blocks) {
        Kind::Large => 1 + (hint % LARGE_STREAMS as u64) as usize,
        _ => SMALL,
    }
}

impl Space {
    /// A free run of up to `want` blocks within one chunk, for a stream; `reserve` free chunks stay.
    pub(super) fn find_run(&self, want: u64, reserve: u64, stream: usize) -> Option<Place> {
        self.next_in_stream(want, reserve, stream).or_else(|| match stream {
            SMALL => self.new_small(want, reserve),
            _ => self.new_large(want, reserve, stream),
        })
    }

    /// Up to where allocation has come lately.
    pub(super) fn front(&self) -> u64 {
        self.cursors.iter().copied().max().unwrap_or(self.first)
    }

    /// Puts streams back that ended behind a run which is free again.
    pub(super) fn rewind(&mut self, (start, len): Place) {
        self.cursors.iter_mut().filter(|at| **at == start + len).for_each(|at| *at = start);
    }

    /// The next run in the chunk of the stream.
    fn next_in_stream(&self, want: u64, reserve: u64, stream: usize) -> Option<Place> {
        let at = self.cursors[stream];
        let index = (at / CHUNK_BLOCKS) as usize;
        let chunk = self.chunks.get(index)?;
        let small = stream == SMALL;
        let open = match (at % CHUNK_BLOCKS, chunk.used) {
            // Only large runs go on from one chunk to the next, if that is free.
            (0, 0) => !small && self.may_open(index, reserve),
            (0, _) => false,
            (_, used) => used > 0 && (chunk.kind == Kind::Small) == small,
        };
        if !open || chunk.kind == Kind::Page {
            return None;
        }
        let (end, ideal) = ((index as u64 + 1) * CHUNK_BLOCKS, want.min(RUN_WANTED_MAX));
        let mut from = at;
        while let Some((start, len)) = self.next_clear(from, end) {
            let goes_on = !small && start + len == end && self.may_open(index + 1, reserve);
            if len >= ideal || goes_on {
                return Some((start, len.min(want)));
            }
            from = start + len;
        }
        None
    }

    fn new_small(&self, want: u64, reserve: u64) -> Option<Place> {
        let mut search = Search::new(self, SMALL, want.min(RUN_WANTED_MAX));
        let left = reserve.max(self.chunks.len() as u64 / LEFT_FRACTION);
        let grows = self.free_chunks > left && self.small_free <= self.small_used;
        let small = |level| shelf_of(Kind::Small, level);
        let found = search
            .shelf(small(LEVELS - 1))
            .or_else(|| if grows { self.free_written(SMALL) } else { None })
            .or_else(|| (0..LEVELS - 1).rev().find_map(|level| search.shelf(small(level))))
            .or_else(|| (0..LEVELS).find_map(|l| search.shelf(shelf_of(Kind::Large, l))))
            .or_else(|| self.free_chunk(SMALL, reserve))
            .or_else(|| search.anywhere(want));
        found.or(search.best).map(|(start, len)| (start, len.min(want)))
    }

    fn new_large(&self, want: u64, reserve: u64, stream: usize) -> Option<Place> {
        let mut search = Search::new(self, stream, want.min(CHUNK_BLOCKS));
        let found = (level(search.ideal)..LEVELS)
            .find_map(|level| search.shelf(shelf_of(Kind::Large, level)))
            .or_else(|| self.free_chunk(stream, reserve))
            .or_else(|| search.anywhere(want));
        found.or(search.best).map(|(start, len)| (start, len.min(want)))
    }

    /// A chunk without anything in it, while more than `reserve` are left.
    fn free_chunk(&self, stream: usize, reserve: u64) -> Option<Place> {
        if self.free_chunks <= reserve {
            return None;
        }
        let next = || self.shelves[FREE].around(self.chunk_of(stream)).next();
        self.free_written(stream).or_else(|| next().map(whole))
    }

    /// Such a chunk where the device was written before.
    fn free_written(&self, stream: usize) -> Option<Place> {
        let from = self.chunk_of(stream);
        let written = |chunk: &usize| whole(*chunk).0 < self.written_upto;
        let shelf = &self.shelves[FREE];
        shelf.next(from).filter(written).or_else(|| shelf.next(0).filter(written)).map(whole)
    }

    fn may_open(&self, index: usize, reserve: u64) -> bool {
        self.free_chunks > reserve && self.chunks.get(index).is_some_and(Chunk::is_free)
    }

    fn chunk_of(&self, stream: usize) -> usize {
        (self.cursors[stream] / CHUNK_BLOCKS) as usize
    }
}

fn whole(chunk: usize) -> Place {
    (chunk as u64 * CHUNK_BLOCKS, CHUNK_BLOCKS)
}

/// A search for a run of at least `ideal` blocks, which notes the best one seen.
struct Search<'a> {
    space: &'a Space,
    stream: usize,
    ideal: u64,
    best: Option<Place>,
    /// Chunks still to be looked at.
    left: usize,
    /// Leaves alone the chunks in which streams of large runs are.
    skips_open: bool,
}

impl<'a> Search<'a> {
    fn new(space: &'a Space, stream: usize, ideal: u64) -> Search<'a> {
        let skips_open = true;
        Search { space, stream, ideal, best: None, left: SEARCH_MAX, skips_open }
    }

    /// A run that fits in a chunk of a shelf; one chunk is looked at if there is nothing yet.
    fn shelf(&mut self, shelf: usize) -> Option<Place> {
        let space = self.space;
        for index in space.shelves[shelf].around(space.chunk_of(self.stream)) {
            if self.left == 0 && self.best.is_some() {
                return None;
            }
            if self.skips_open && self.is_open(index) {
                continue;
            }
            self.left = self.left.saturating_sub(1);
            let end = whole(index).0 + CHUNK_BLOCKS;
            let mut at = whole(index).0;
            while let Some((start, len)) = space.next_clear(at, end) {
                if len >= self.ideal {
                    return Some((start, len));
                }
                if self.best.is_none_or(|(_, l)| len > l) {
                    self.best = Some((start, len));
                }
                at = start + len;
            }
        }
        None
    }

    /// A run in whatever is left: whose it is does not matter any more.
    fn anywhere(&mut self, want: u64) -> Option<Place> {
        self.ideal = want.min(RUN_WANTED_MAX);
        self.skips_open = false;
        let shelves = |kind| (0..LEVELS).rev().map(move |level| shelf_of(kind, level));
        let mut all = shelves(Kind::Large).chain(shelves(Kind::Small));
        all.find_map(|shelf| self.shelf(shelf))
    }

    fn is_open(&self, index: usize) -> bool {
        let cursors = &self.space.cursors[1..];
        cursors.iter().any(|&at| at / CHUNK_BLOCKS == index as u64 && at % CHUNK_BLOCKS != 0)
    }
}
