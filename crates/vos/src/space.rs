//! Which blocks of the device are in use.
//!
//! Two bitmaps: `data` has the blocks that array extents occupy and is kept by checkpoints; `used` adds
//! metadata pages (known from the page map), and freed blocks that may not be reused yet. Chunks of
//! 1 MiB are either for data or for pages, so that pages are written in runs and data in whatever
//! pieces remain never leaves pages without room.
//!
//! Invariants: a block freed by a transaction stays in `used` until [`Space::release`]; pages always
//! find room while [`Space::page_slots`] says so; nothing here depends on anything but its calls.

mod shelves;
mod streams;

use std::collections::BTreeSet;

use crate::page::HEADER_LEN;
use crate::types::{BlockAddr, PAGE_BLOCKS, PAGE_SIZE};
use shelves::{FREE, PAGES, Shelf};
use streams::{STREAMS, class, stream_of};

/// Blocks in one page of the space map.
pub(crate) const GROUP_BLOCKS: u64 = ((PAGE_SIZE - HEADER_LEN) * 8) as u64;
/// Blocks in one chunk.
pub(crate) const CHUNK_BLOCKS: u64 = 256;
const GROUP_WORDS: usize = (GROUP_BLOCKS / 64) as usize;

/// A run of blocks: first block and count.
pub type Run = (BlockAddr, u64);

/// How free space is divided into runs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fragmentation {
    /// Runs of free blocks.
    pub runs: u64,
    /// Free blocks.
    pub blocks: u64,
    /// Blocks of the longest run.
    pub longest: u64,
    /// Runs, and blocks in them, of 2^i up to 2^(i+1) - 1 blocks.
    pub classes: Vec<(u64, u64)>,
}

impl Fragmentation {
    fn add(&mut self, len: u64) {
        self.runs += 1;
        self.blocks += len;
        self.longest = self.longest.max(len);
        let class = len.ilog2() as usize;
        if self.classes.len() <= class {
            self.classes.resize(class + 1, (0, 0));
        }
        self.classes[class].0 += 1;
        self.classes[class].1 += len;
    }

    /// 0 if all free blocks are one run, 1 if no two are neighbours.
    pub fn score(&self) -> f64 {
        match self.blocks {
            0 | 1 => 0.0,
            blocks => (self.runs - 1) as f64 / (blocks - 1) as f64,
        }
    }
}

/// A run of blocks as numbers.
type Place = (u64, u64);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Data, in small runs if anything.
    Small,
    /// Data in large runs.
    Large,
    Page,
}

#[derive(Clone, Copy)]
struct Chunk {
    used: u16,
    kind: Kind,
    /// Written since the device was last told that nothing lies here.
    touched: bool,
}

const FREE_CHUNK: Chunk = Chunk { used: 0, kind: Kind::Small, touched: false };

impl Chunk {
    fn free(&self) -> u64 {
        CHUNK_BLOCKS - u64::from(self.used)
    }

    /// Whether nothing is in it.
    fn is_free(&self) -> bool {
        self.used == 0 && self.kind != Kind::Page
    }
}

/// See the module text.
pub(crate) struct Space {
    first: u64,
    end: u64,
    /// Blocks between the two are nowhere; from the second on there are only pages.
    pages: Option<(u64, u64)>,
    used: Vec<u64>,
    data: Vec<u64>,
    chunks: Vec<Chunk>,
    /// Free blocks in data chunks that hold something.
    partial_free: u64,
    free_chunks: u64,
    /// Blocks in use, and free ones, in chunks of small runs.
    small_used: u64,
    small_free: u64,
    page_slots: u64,
    shelves: Vec<Shelf>,
    /// Where each stream goes on.
    cursors: [u64; STREAMS],
    free_chunk_cursor: usize,
    /// Free chunks that are touched.
    trimmable: u64,
    trim_cursor: usize,
    dirty_groups: BTreeSet<u64>,
    data_blocks: u64,
    aging: u64,
    /// Blocks from here on were never written: the first write to them is slow on files.
    written_upto: u64,
    /// Blocks held by [`Space::take_unwritten`].
    held: u64,
    /// Blocks that data is going to take, wherever they are.
    promised: u64,
    undo: Vec<Run>,
    freed: Vec<Run>,
    /// As `freed`, but they wait for a checkpoint.
    freed_shared: Vec<Run>,
    /// Such blocks of committed transactions.
    waiting: Vec<Run>,
}

impl Space {
    /// Blocks `first..end` are ours, but for those between the two of `pages`, after which only pages lie.
    pub(crate) fn new(first: u64, end: u64, pages: Option<(u64, u64)>) -> Space {
        let chunk_count = end.div_ceil(CHUNK_BLOCKS);
        let words =
            (end.div_ceil(GROUP_BLOCKS) * GROUP_BLOCKS).max(chunk_count * CHUNK_BLOCKS) / 64;
        let mut space = Space {
            first,
            end,
            pages,
            used: vec![0; words as usize],
            data: vec![0; words as usize],
            chunks: vec![FREE_CHUNK; chunk_count as usize],
            partial_free: 0,
            free_chunks: chunk_count,
            small_used: 0,
            small_free: 0,
            page_slots: 0,
            shelves: (0..=PAGES).map(|_| Shelf::new(chunk_count as usize)).collect(),
            cursors: [first; STREAMS],
            free_chunk_cursor: 0,
            trimmable: 0,
            trim_cursor: 0,
            dirty_groups: BTreeSet::new(),
            data_blocks: 0,
            aging: 0,
            written_upto: end,
            held: 0,
            promised: 0,
            undo: Vec::new(),
            freed: Vec::new(),
            freed_shared: Vec::new(),
            waiting: Vec::new(),
        };
        (0..chunk_count as usize).for_each(|chunk| space.shelves[FREE].insert(chunk));
        space.set_used(0, first);
        space.set_used(end, chunk_count * CHUNK_BLOCKS - end);
        if let Some((from, to)) = pages {
            space.set_used(from, to - from);
            for chunk in space.first_page_chunk()..chunk_count as usize {
                if space.chunks[chunk].used < CHUNK_BLOCKS as u16 {
                    space.make_page_chunk(chunk);
                }
            }
        }
        space
    }

    /// From this chunk on there are only pages.
    fn first_page_chunk(&self) -> usize {
        self.pages.map_or(usize::MAX, |(_, first)| (first / CHUNK_BLOCKS) as usize)
    }

    /// The block after the last for data.
    fn data_end(&self) -> u64 {
        self.pages.map_or(self.end, |(end, _)| end)
    }

    /// Pages of the space map of a device with blocks up to `end`.
    pub(crate) fn group_count(end: u64) -> u64 {
        end.div_ceil(GROUP_BLOCKS)
    }

    /// First block, and the one after the last.
    pub(crate) fn bounds(&self) -> (u64, u64) {
        (self.first, self.end)
    }

    /// Blocks that exist for data and pages.
    pub(crate) fn total(&self) -> u64 {
        self.end - self.first - self.pages.map_or(0, |(from, to)| to - from)
    }

    /// Blocks that data occupies.
    pub(crate) fn data_blocks(&self) -> u64 {
        self.data_blocks
    }

    /// Blocks in use for whatever reason.
    pub(crate) fn used_blocks(&self) -> u64 {
        let set: u64 = self.used.iter().map(|w| u64::from(w.count_ones())).sum();
        let outside: u64 = (0..self.chunks.len()).map(|c| u64::from(self.outside(c))).sum();
        set - outside
    }

    /// Blocks held for a moment by whoever writes zeros.
    pub(crate) fn held_blocks(&self) -> u64 {
        self.held
    }

    /// Up to where the device was written before.
    pub(crate) fn written_upto(&self) -> u64 {
        self.written_upto
    }

    pub(crate) fn set_written_upto(&mut self, block: u64) {
        self.written_upto = block.min(self.end);
    }

    /// Holds the next run that was never written, if the allocator is within `ahead` blocks of it.
    pub(crate) fn take_unwritten(&mut self, ahead: u64) -> Option<Run> {
        let end = self.data_end();
        while self.written_upto < end && self.written_upto < self.front() + ahead {
            let chunk = (self.written_upto / CHUNK_BLOCKS) as usize;
            let start = self.written_upto.max(self.first);
            let upto = ((chunk as u64 + 1) * CHUNK_BLOCKS).min(end);
            let untouched = self.chunks[chunk].used == self.outside(chunk)
                && self.chunks[chunk].kind != Kind::Page;
            if untouched && start < upto {
                self.set_used(start, upto - start);
                self.held += upto - start;
                return Some((BlockAddr(start), upto - start));
            }
            self.written_upto = upto;
        }
        None
    }

    /// Ends what [`Space::take_unwritten`] began.
    pub(crate) fn return_unwritten(&mut self, (addr, len): Run) {
        self.clear_used(addr.0, len);
        self.held -= len;
        self.written_upto = self.written_upto.max(addr.0 + len);
        self.set_untouched((addr, len));
    }

    /// Says that all chunks below a block may have been written.
    pub(crate) fn touch_upto(&mut self, block: u64) {
        let chunks = (block / CHUNK_BLOCKS) as usize;
        for chunk in self.chunks.iter_mut().take(chunks).filter(|c| !c.touched) {
            chunk.touched = true;
            self.trimmable += u64::from(chunk.is_free());
        }
    }

    /// Holds a run of up to `max` free chunks, which the device is then told of.
    pub(crate) fn take_trim(&mut self, max: usize) -> Option<Run> {
        if self.trimmable == 0 {
            return None;
        }
        let n = self.chunks.len();
        let is_free = |c: &Chunk| c.is_free() && c.touched;
        let start =
            (0..n).map(|i| (self.trim_cursor + i) % n).find(|&i| is_free(&self.chunks[i]))?;
        let count = self.chunks[start..].iter().take(max).take_while(|c| is_free(c)).count();
        self.trim_cursor = start + count;
        let (first, len) = (start as u64 * CHUNK_BLOCKS, count as u64 * CHUNK_BLOCKS);
        self.set_used(first, len);
        self.held += len;
        Some((BlockAddr(first), len))
    }

    /// Ends what [`Space::take_trim`] began.
    pub(crate) fn return_trimmed(&mut self, (addr, len): Run) {
        self.clear_used(addr.0, len);
        self.held -= len;
        self.set_untouched((addr, len));
    }

    /// Nothing that was ever written lies in the run.
    fn set_untouched(&mut self, (addr, len): Run) {
        for index in addr.0 / CHUNK_BLOCKS..=(addr.0 + len - 1) / CHUNK_BLOCKS {
            let chunk = &mut self.chunks[index as usize];
            let was = std::mem::replace(&mut chunk.touched, false);
            self.trimmable -= u64::from(was && chunk.is_free());
        }
    }

    /// How the free space is divided.
    pub(crate) fn fragmentation(&self) -> Fragmentation {
        let mut out = Fragmentation::default();
        let mut at = self.first;
        while let Some((start, len)) = self.next_clear(at, self.data_end()) {
            out.add(len);
            at = start + len;
        }
        out
    }

    /// Freed blocks waiting for [`Space::release`].
    pub(crate) fn aging_blocks(&self) -> u64 {
        self.aging
    }

    /// Blocks that data can get while `reserve` chunks stay free for pages, beside what is promised.
    pub(crate) fn available(&self, reserve: u64) -> u64 {
        let free = self.free_chunks.saturating_sub(reserve) * CHUNK_BLOCKS;
        (self.partial_free + free).saturating_sub(self.promised)
    }

    /// Pages that can still be placed.
    pub(crate) fn page_slots(&self) -> u64 {
        let promised = self.promised.saturating_sub(self.partial_free).div_ceil(CHUNK_BLOCKS);
        self.page_slots + self.free_chunks.saturating_sub(promised) * (CHUNK_BLOCKS / PAGE_BLOCKS)
    }

    /// Whether there is room for what is promised while `reserve` chunks stay free for pages.
    pub(crate) fn keeps_promises(&self, reserve: u64) -> bool {
        let free = self.free_chunks.saturating_sub(reserve) * CHUNK_BLOCKS;
        self.partial_free + free >= self.promised
    }

    /// Keeps blocks for data that is still to come; whoever takes them calls [`Space::redeem`] first.
    pub(crate) fn promise(&mut self, blocks: u64) {
        self.promised += blocks;
    }

    /// Ends what [`Space::promise`] began.
    pub(crate) fn redeem(&mut self, blocks: u64) {
        self.promised -= blocks;
    }

    /// Pages that fit chunks already given to pages.
    pub(crate) fn open_page_slots(&self) -> u64 {
        self.page_slots
    }

    /// Allocates `count` blocks, in as few runs as it can; `None` leaves everything as it was. Large runs
    /// with the same hint lie next to each other as a rule.
    pub(crate) fn allocate(&mut self, count: u64, reserve: u64, hint: u64) -> Option<Vec<Run>> {
        if self.available(reserve) < count {
            return None;
        }
        let stream = stream_of(count, hint);
        let mut runs: Vec<Run> = Vec::with_capacity(1);
        let mut left = count;
        while left > 0 {
            let (start, len) = self.find_run(left, reserve, stream)?;
            self.set_class(start, class(count));
            self.set_used(start, len);
            self.set_data(start, len);
            self.undo.push((BlockAddr(start), len));
            self.cursors[stream] = start + len;
            left -= len;
            match runs.last_mut() {
                Some((at, n)) if at.0 + *n == start => *n += len,
                _ => runs.push((BlockAddr(start), len)),
            }
        }
        Some(runs)
    }

    /// Allocates exactly these blocks, as a replayed record says; false if one is taken.
    pub(crate) fn claim(&mut self, (addr, len): Run) -> bool {
        let inside = addr.0 >= self.first && addr.0.checked_add(len).is_some_and(|e| e <= self.end);
        if !inside || !self.is_clear(addr.0, len) {
            return false;
        }
        let mut at = addr.0;
        while at < addr.0 + len {
            if self.chunks[(at / CHUNK_BLOCKS) as usize].kind == Kind::Page {
                return false;
            }
            self.set_class(at, class(len));
            at = (at / CHUNK_BLOCKS + 1) * CHUNK_BLOCKS;
        }
        self.set_used(addr.0, len);
        self.set_data(addr.0, len);
        self.undo.push((addr, len));
        true
    }

    /// Gives up data blocks when the transaction commits.
    pub(crate) fn free(&mut self, run: Run) {
        self.freed.push(run);
    }

    /// As [`Space::free`], but the blocks are available only after the next checkpoint.
    pub(crate) fn free_shared(&mut self, run: Run) {
        self.freed_shared.push(run);
    }

    /// What the transaction has given up so far.
    pub(crate) fn take_freed(&mut self) -> Vec<Run> {
        std::mem::take(&mut self.freed)
    }

    /// Blocks that the checkpoint that begins now lets go.
    pub(crate) fn take_waiting(&mut self) -> Vec<Run> {
        std::mem::take(&mut self.waiting)
    }

    /// Ends a transaction; the blocks it freed, which the caller releases later.
    pub(crate) fn commit(&mut self) -> Vec<Run> {
        self.undo.clear();
        let freed = std::mem::take(&mut self.freed);
        let shared = std::mem::take(&mut self.freed_shared);
        for &(addr, len) in freed.iter().chain(&shared) {
            self.clear_data(addr.0, len);
            self.aging += len;
        }
        self.waiting.extend(shared);
        freed
    }

    pub(crate) fn rollback(&mut self) {
        self.freed.clear();
        self.freed_shared.clear();
        while let Some((addr, len)) = self.undo.pop() {
            self.clear_data(addr.0, len);
            self.clear_used(addr.0, len);
            self.rewind((addr.0, len));
        }
    }

    /// Makes freed blocks available again.
    pub(crate) fn release(&mut self, runs: &[Run]) {
        for &(addr, len) in runs {
            self.clear_used(addr.0, len);
            self.aging -= len;
        }
    }

    /// A place for a page.
    pub(crate) fn allocate_page(&mut self) -> Option<BlockAddr> {
        let open = &self.shelves[PAGES];
        let chunk = match open.next(self.first_page_chunk()).or_else(|| open.next(0)) {
            Some(chunk) => chunk,
            None => self.open_page_chunk()?,
        };
        let start = chunk as u64 * CHUNK_BLOCKS;
        let at = (start..start + CHUNK_BLOCKS)
            .step_by(PAGE_BLOCKS as usize)
            .find(|&at| self.is_clear(at, PAGE_BLOCKS))?;
        self.set_used(at, PAGE_BLOCKS);
        Some(BlockAddr(at))
    }

    /// Gives up the place of a page: what is to be released later.
    pub(crate) fn retire_page(&mut self, addr: BlockAddr) -> Run {
        self.aging += PAGE_BLOCKS;
        (addr, PAGE_BLOCKS)
    }

    /// Marks the place of an existing page, at open; false if it overlaps something.
    pub(crate) fn mark_page(&mut self, addr: BlockAddr) -> bool {
        let inside = addr.0 >= self.first && addr.0 + PAGE_BLOCKS <= self.end;
        if !inside || !addr.0.is_multiple_of(PAGE_BLOCKS) || !self.is_clear(addr.0, PAGE_BLOCKS) {
            return false;
        }
        let chunk = (addr.0 / CHUNK_BLOCKS) as usize;
        if self.chunks[chunk].kind != Kind::Page {
            // Only a chunk without data becomes one for pages.
            if self.chunks[chunk].used != self.outside(chunk) {
                return false;
            }
            self.make_page_chunk(chunk);
        }
        self.set_used(addr.0, PAGE_BLOCKS);
        true
    }

    /// Takes over one page of the space map; call after [`Space::mark_page`] for all pages.
    pub(crate) fn load_group(&mut self, group: u64, body: &[u8]) -> bool {
        let base = group * GROUP_BLOCKS;
        for (i, word) in body.as_chunks::<8>().0.iter().take(GROUP_WORDS).enumerate() {
            let mut bits = u64::from_le_bytes(*word);
            while bits != 0 {
                let start = bits.trailing_zeros();
                let len = (bits >> start).trailing_ones();
                bits &= !(u64::MAX >> (64 - len) << start);
                let (block, len) = (base + i as u64 * 64 + u64::from(start), u64::from(len));
                if block < self.first || block + len > self.end || !self.is_clear(block, len) {
                    return false;
                }
                if self.chunks[(block / CHUNK_BLOCKS) as usize].kind == Kind::Page {
                    return false;
                }
                self.set_used(block, len);
                self.set_data(block, len);
            }
        }
        self.dirty_groups.remove(&group);
        true
    }

    /// Writes the body of one page of the space map.
    pub(crate) fn store_group(&self, group: u64, body: &mut [u8]) {
        let first = group as usize * GROUP_WORDS;
        for (out, word) in
            body.as_chunks_mut::<8>().0.iter_mut().zip(&self.data[first..][..GROUP_WORDS])
        {
            *out = word.to_le_bytes();
        }
    }

    /// Groups changed since the last call.
    pub(crate) fn take_dirty_groups(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.dirty_groups).into_iter().collect()
    }

    pub(crate) fn dirty_group_count(&self) -> usize {
        self.dirty_groups.len()
    }

    /// Whether data occupies the block.
    pub(crate) fn is_data(&self, block: u64) -> bool {
        self.data.get((block / 64) as usize).is_some_and(|w| w >> (block % 64) & 1 == 1)
    }

    /// The first run of clear bits of `used` in `[from, end)`.
    fn next_clear(&self, from: u64, end: u64) -> Option<Place> {
        let start = self.scan(from, end, true);
        (start < end).then(|| (start, self.scan(start, end, false) - start))
    }

    /// First block in `[at, end)` that is clear (or set), or `end`.
    fn scan(&self, mut at: u64, end: u64, clear: bool) -> u64 {
        while at < end {
            let word = self.used[(at / 64) as usize];
            let wanted = if clear { !word } else { word } >> (at % 64);
            if wanted != 0 {
                return (at + u64::from(wanted.trailing_zeros())).min(end);
            }
            at = (at / 64 + 1) * 64;
        }
        end
    }

    fn is_clear(&self, start: u64, len: u64) -> bool {
        self.scan(start, start + len, false) == start + len
    }

    fn open_page_chunk(&mut self) -> Option<usize> {
        let chunk = self.shelves[FREE].around(self.free_chunk_cursor).next()?;
        self.free_chunk_cursor = chunk;
        self.make_page_chunk(chunk);
        Some(chunk)
    }

    fn make_page_chunk(&mut self, chunk: usize) {
        self.change(chunk, |c| (c.kind, c.touched) = (Kind::Page, true));
    }

    /// Gives a chunk without anything in it to a class of data.
    fn set_class(&mut self, block: u64, kind: Kind) {
        let chunk = &mut self.chunks[(block / CHUNK_BLOCKS) as usize];
        if chunk.is_free() {
            chunk.kind = kind;
        }
    }

    /// Changes a chunk, and what is counted of it.
    fn change(&mut self, index: usize, f: impl FnOnce(&mut Chunk)) {
        let before = self.chunks[index];
        f(&mut self.chunks[index]);
        let after = self.chunks[index];
        for (c, sign) in [(before, -1i64), (after, 1)] {
            let add = |counter: &mut u64, n: u64| {
                *counter = counter.wrapping_add_signed(sign * n as i64);
            };
            match (c.kind, c.used) {
                (Kind::Page, _) => add(&mut self.page_slots, c.free() / PAGE_BLOCKS),
                (_, 0) => {
                    add(&mut self.free_chunks, 1);
                    add(&mut self.trimmable, u64::from(c.touched));
                }
                _ => add(&mut self.partial_free, c.free()),
            }
            if c.kind == Kind::Small && c.used > 0 {
                add(&mut self.small_used, c.used.into());
                add(&mut self.small_free, c.free());
            }
        }
        let (from, to) = (before.shelf(), after.shelf());
        if from != to {
            from.into_iter().for_each(|s| self.shelves[s].remove(index));
            to.into_iter().for_each(|s| self.shelves[s].insert(index));
        }
    }

    /// Blocks of the chunk outside the region.
    fn outside(&self, chunk: usize) -> u16 {
        let start = chunk as u64 * CHUNK_BLOCKS;
        let inside = |block: u64| block.clamp(start, start + CHUNK_BLOCKS);
        let before = inside(self.first) - start;
        let after = start + CHUNK_BLOCKS - inside(self.end);
        let between = self.pages.map_or(0, |(from, to)| inside(to) - inside(from));
        (before + between + after) as u16
    }

    fn set_used(&mut self, start: u64, len: u64) {
        self.each_chunk(start, len, |space, chunk, from, count| {
            set_bits(&mut space.used, from, count);
            space.change(chunk, |c| {
                c.touched |= c.is_free();
                c.used += count as u16;
            });
        });
    }

    fn clear_used(&mut self, start: u64, len: u64) {
        let pages_from = self.first_page_chunk();
        self.each_chunk(start, len, |space, chunk, from, count| {
            clear_bits(&mut space.used, from, count);
            let outside = space.outside(chunk);
            space.change(chunk, |c| {
                c.used -= count as u16;
                if c.kind == Kind::Page && c.used == outside && chunk < pages_from {
                    c.kind = Kind::Small;
                }
            });
        });
    }

    fn set_data(&mut self, start: u64, len: u64) {
        set_bits(&mut self.data, start, len);
        self.data_blocks += len;
        self.touch_groups(start, len);
    }

    fn clear_data(&mut self, start: u64, len: u64) {
        clear_bits(&mut self.data, start, len);
        self.data_blocks -= len;
        self.touch_groups(start, len);
    }

    fn touch_groups(&mut self, start: u64, len: u64) {
        for group in start / GROUP_BLOCKS..=(start + len - 1) / GROUP_BLOCKS {
            self.dirty_groups.insert(group);
        }
    }

    fn each_chunk(&mut self, start: u64, len: u64, f: impl Fn(&mut Space, usize, u64, u64)) {
        let (mut at, end) = (start, start + len);
        while at < end {
            let chunk = at / CHUNK_BLOCKS;
            let upto = ((chunk + 1) * CHUNK_BLOCKS).min(end);
            f(self, chunk as usize, at, upto - at);
            at = upto;
        }
    }
}

fn set_bits(words: &mut [u64], start: u64, len: u64) {
    for_words(start, len, |word, mask| {
        debug_assert_eq!(words[word] & mask, 0);
        words[word] |= mask;
    });
}

fn clear_bits(words: &mut [u64], start: u64, len: u64) {
    for_words(start, len, |word, mask| {
        debug_assert_eq!(words[word] & mask, mask);
        words[word] &= !mask;
    });
}

fn for_words(start: u64, len: u64, mut f: impl FnMut(usize, u64)) {
    let (mut at, end) = (start, start + len);
    while at < end {
        let upto = ((at / 64 + 1) * 64).min(end);
        let mask = (u64::MAX >> (64 - (upto - at))) << (at % 64);
        f((at / 64) as usize, mask);
        at = upto;
    }
}

#[cfg(test)]
mod tests;
