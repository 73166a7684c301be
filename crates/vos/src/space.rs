//! Which blocks of the device are in use.
//!
//! Two bitmaps: `data` has the blocks that array extents occupy and is kept by checkpoints; `used` adds
//! metadata pages (known from the page map), and freed blocks that may not be reused yet. Chunks of
//! 1 MiB are either for data or for pages, so that pages are written in runs and data in whatever
//! pieces remain never leaves pages without room.
//!
//! Invariants: a block freed by a transaction stays in `used` until [`Space::release`]; pages always
//! find room while [`Space::page_slots`] says so; nothing here depends on anything but its calls.

use std::collections::BTreeSet;

use crate::page::HEADER_LEN;
use crate::types::{BlockAddr, PAGE_BLOCKS, PAGE_SIZE};

/// Blocks in one page of the space map.
pub(crate) const GROUP_BLOCKS: u64 = ((PAGE_SIZE - HEADER_LEN) * 8) as u64;
/// Blocks in one chunk.
pub(crate) const CHUNK_BLOCKS: u64 = 256;
const GROUP_WORDS: usize = (GROUP_BLOCKS / 64) as usize;
/// Chunks with room that are searched for an unbroken run before pieces are taken.
const RUN_SEARCH_MAX: usize = 64;
/// Runs up to this many blocks are preferably unbroken.
const RUN_WANTED_MAX: u64 = 64;

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

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Data,
    Page,
}

#[derive(Clone, Copy)]
struct Chunk {
    used: u16,
    kind: Kind,
    /// Written since the device was last told that nothing lies here.
    touched: bool,
}

const FREE_CHUNK: Chunk = Chunk { used: 0, kind: Kind::Data, touched: false };

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
    page_slots: u64,
    open_page_chunks: BTreeSet<usize>,
    data_cursor: u64,
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
            page_slots: 0,
            open_page_chunks: BTreeSet::new(),
            data_cursor: first,
            free_chunk_cursor: 0,
            trimmable: 0,
            trim_cursor: 0,
            dirty_groups: BTreeSet::new(),
            data_blocks: 0,
            aging: 0,
            written_upto: end,
            held: 0,
            undo: Vec::new(),
            freed: Vec::new(),
            freed_shared: Vec::new(),
            waiting: Vec::new(),
        };
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
        while self.written_upto < end && self.written_upto < self.data_cursor + ahead {
            let chunk = (self.written_upto / CHUNK_BLOCKS) as usize;
            let start = self.written_upto.max(self.first);
            let upto = ((chunk as u64 + 1) * CHUNK_BLOCKS).min(end);
            let untouched = self.chunks[chunk].used == self.outside(chunk)
                && self.chunks[chunk].kind == Kind::Data;
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
            self.trimmable += u64::from(chunk.used == 0 && chunk.kind == Kind::Data);
        }
    }

    /// Holds a run of up to `max` free chunks, which the device is then told of.
    pub(crate) fn take_trim(&mut self, max: usize) -> Option<Run> {
        if self.trimmable == 0 {
            return None;
        }
        let n = self.chunks.len();
        let is_free = |c: &Chunk| c.used == 0 && c.kind == Kind::Data && c.touched;
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
            self.trimmable -= u64::from(was && chunk.used == 0 && chunk.kind == Kind::Data);
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

    /// Blocks that data can get while `reserve` chunks stay free for pages.
    pub(crate) fn available(&self, reserve: u64) -> u64 {
        self.partial_free + self.free_chunks.saturating_sub(reserve) * CHUNK_BLOCKS
    }

    /// Pages that can still be placed.
    pub(crate) fn page_slots(&self) -> u64 {
        self.page_slots + self.free_chunks * (CHUNK_BLOCKS / PAGE_BLOCKS)
    }

    /// Pages that fit chunks already given to pages.
    pub(crate) fn open_page_slots(&self) -> u64 {
        self.page_slots
    }

    /// Allocates `count` blocks, in as few runs as it can; `None` leaves everything as it was.
    pub(crate) fn allocate(&mut self, count: u64, reserve: u64) -> Option<Vec<Run>> {
        if self.available(reserve) < count {
            return None;
        }
        let mut runs: Vec<Run> = Vec::with_capacity(1);
        let mut left = count;
        while left > 0 {
            let upto = self.written_upto;
            let run = self.find_run(left, reserve, upto);
            let run = run.or_else(|| self.find_run(left, reserve, self.end))?;
            let (start, len) = run;
            self.set_used(start, len);
            self.set_data(start, len);
            self.undo.push((BlockAddr(start), len));
            self.data_cursor = start + len;
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
        for (addr, len) in std::mem::take(&mut self.undo) {
            self.clear_data(addr.0, len);
            self.clear_used(addr.0, len);
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
        let own = self.open_page_chunks.range(self.first_page_chunk()..).next();
        let chunk = match own.or(self.open_page_chunks.first()) {
            Some(&chunk) => chunk,
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
        if self.chunks[chunk].kind == Kind::Data {
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
                let block = base + i as u64 * 64 + u64::from(bits.trailing_zeros());
                bits &= bits - 1;
                if block < self.first || block >= self.end || !self.is_clear(block, 1) {
                    return false;
                }
                if self.chunks[(block / CHUNK_BLOCKS) as usize].kind == Kind::Page {
                    return false;
                }
                self.set_used(block, 1);
                self.set_data(block, 1);
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

    /// A free run of up to `want` blocks within one chunk that begins below `upto`.
    fn find_run(&self, want: u64, reserve: u64, upto: u64) -> Option<Run2> {
        let ideal = want.min(RUN_WANTED_MAX);
        let n = upto.div_ceil(CHUNK_BLOCKS) as usize;
        if n == 0 {
            return None;
        }
        let cursor = if self.data_cursor < upto { self.data_cursor } else { self.first };
        let start = (cursor / CHUNK_BLOCKS) as usize;
        let (mut best, mut seen): (Option<Run2>, usize) = (None, 0);
        // The cursor's chunk comes twice: first what is behind the cursor, last what is before it.
        for step in 0..=n {
            let index = (start + step) % n;
            let chunk = self.chunks[index];
            let closed = chunk.used == CHUNK_BLOCKS as u16
                || chunk.kind == Kind::Page
                || (chunk.used == 0 && self.free_chunks <= reserve);
            if closed {
                continue;
            }
            let base = index as u64 * CHUNK_BLOCKS;
            let mut at = if step == 0 { cursor } else { base };
            while let Some((s, len)) = self.next_clear(at, base + CHUNK_BLOCKS) {
                if len >= ideal {
                    return Some((s, len.min(want)));
                }
                if best.is_none_or(|(_, l)| len > l) {
                    best = Some((s, len));
                }
                at = s + len;
            }
            seen += 1;
            if seen >= RUN_SEARCH_MAX && best.is_some() {
                break;
            }
        }
        best
    }

    /// The first run of clear bits of `used` in `[from, end)`.
    fn next_clear(&self, from: u64, end: u64) -> Option<Run2> {
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
        let n = self.chunks.len();
        let from = self.free_chunk_cursor;
        let chunk = (0..n)
            .map(|i| (from + i) % n)
            .find(|&c| self.chunks[c].used == 0 && self.chunks[c].kind == Kind::Data)?;
        self.free_chunk_cursor = chunk;
        self.make_page_chunk(chunk);
        Some(chunk)
    }

    fn make_page_chunk(&mut self, chunk: usize) {
        let c = &mut self.chunks[chunk];
        let free = CHUNK_BLOCKS - u64::from(c.used);
        if c.used == 0 {
            self.free_chunks -= 1;
            self.trimmable -= u64::from(c.touched);
        } else {
            self.partial_free -= free;
        }
        c.kind = Kind::Page;
        c.touched = true;
        self.page_slots += free / PAGE_BLOCKS;
        self.open_page_chunks.insert(chunk);
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
            let c = &mut space.chunks[chunk];
            let was = c.used;
            c.used += count as u16;
            if c.kind == Kind::Page {
                space.page_slots -= count / PAGE_BLOCKS;
                if c.used == CHUNK_BLOCKS as u16 {
                    space.open_page_chunks.remove(&chunk);
                }
            } else if was == 0 {
                space.free_chunks -= 1;
                space.partial_free += CHUNK_BLOCKS - count;
                space.trimmable -= u64::from(c.touched);
                c.touched = true;
            } else {
                space.partial_free -= count;
            }
        });
    }

    fn clear_used(&mut self, start: u64, len: u64) {
        let pages_from = self.first_page_chunk();
        self.each_chunk(start, len, |space, chunk, from, count| {
            clear_bits(&mut space.used, from, count);
            let outside = space.outside(chunk);
            let c = &mut space.chunks[chunk];
            let was = c.used;
            c.used -= count as u16;
            if c.kind == Kind::Page {
                space.page_slots += count / PAGE_BLOCKS;
                space.open_page_chunks.insert(chunk);
                if c.used == outside && chunk < pages_from {
                    c.kind = Kind::Data;
                    let free = CHUNK_BLOCKS - u64::from(c.used);
                    space.page_slots -= free / PAGE_BLOCKS;
                    space.open_page_chunks.remove(&chunk);
                    if c.used == 0 {
                        space.free_chunks += 1;
                        space.trimmable += 1;
                    } else {
                        space.partial_free += free;
                    }
                }
            } else if c.used == 0 {
                space.free_chunks += 1;
                space.trimmable += u64::from(c.touched);
                space.partial_free -= CHUNK_BLOCKS - u64::from(was);
            } else {
                space.partial_free += count;
            }
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

type Run2 = (u64, u64);

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
mod tests {
    use super::*;

    #[test]
    fn free_chunks_are_trimmed_once_and_the_runs_are_reported() {
        let mut space = Space::new(300, 256 * 20 + 37, None);
        let whole = space.fragmentation();
        assert_eq!((whole.runs, whole.longest, whole.score()), (1, space.total(), 0.0));
        assert_eq!(space.take_trim(16), None, "nothing was written");
        let runs = space.allocate(256 * 6, 0).unwrap();
        space.commit();
        assert_eq!(space.take_trim(16), None, "nothing is free again");
        let page = space.allocate_page().unwrap();
        for &run in &runs {
            space.free(run);
        }
        let freed = space.commit();
        space.release(&freed);
        let mut trimmed = 0;
        while let Some(run) = space.take_trim(2) {
            assert!(run.1 <= 2 * CHUNK_BLOCKS && run.0.0.is_multiple_of(CHUNK_BLOCKS));
            assert!(run.0.0 / CHUNK_BLOCKS != page.0 / CHUNK_BLOCKS);
            trimmed += run.1;
            space.return_trimmed(run);
        }
        assert!((256 * 4..=256 * 6).contains(&trimmed), "{trimmed}");
        let run = space.retire_page(page);
        space.release(&[run]);
        assert_eq!(space.take_trim(9).map(|r| r.1), Some(256), "the chunk of the page");
        let all = Space::new(0, 256 * 2, None);
        assert_eq!(all.fragmentation().classes.iter().filter(|c| c.0 > 0).count(), 1);
        let mut holes = Space::new(0, 64, None);
        (0..64).step_by(2).for_each(|at| assert!(holes.claim((BlockAddr(at), 1))));
        assert_eq!((holes.fragmentation().score(), holes.fragmentation().runs), (31.0 / 31.0, 32));
    }

    #[test]
    fn pages_have_a_region_of_their_own_until_it_is_full() {
        let pages = (256 * 4 + 30, 256 * 6 + 16);
        let mut space = Space::new(16, 256 * 7, Some(pages));
        assert_eq!(space.total(), pages.0 - 16 + 240);
        assert_eq!((space.used_blocks(), space.page_slots()), (0, 120 + 3 * 128));
        let own: Vec<u64> = (0..120).map(|_| space.allocate_page().unwrap().0).collect();
        assert!(own.iter().all(|&at| at >= pages.1));
        let spilled = space.allocate_page().unwrap();
        assert!(spilled.0 < pages.0, "then they go to the data");
        let mut data = 0;
        while let Some(runs) = space.allocate(10, 0) {
            assert!(runs.iter().all(|(at, len)| at.0 + len <= pages.0));
            data += 10;
        }
        assert!(data > 256 * 2, "{data}");
        for at in own {
            let run = space.retire_page(BlockAddr(at));
            space.release(&[run]);
        }
        assert!(space.allocate(10, 0).is_none(), "data never goes there");
    }

    #[test]
    fn counts_stay_true_through_random_use() {
        let (first, end) = (300, 300 + 256 * 20 + 37);
        let mut space = Space::new(first, end, None);
        let total_slots = space.page_slots();
        let total = space.available(0);
        assert_eq!(total, space.total());
        let (mut runs, mut pages): (Vec<Run>, Vec<BlockAddr>) = (Vec::new(), Vec::new());
        let mut seed = 7u64;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let pick = (seed >> 33) as usize;
            match pick % 5 {
                0 | 1 => {
                    if let Some(got) = space.allocate(1 + (pick / 5 % 90) as u64, 2) {
                        assert!(space.commit().is_empty());
                        runs.extend(got);
                    }
                }
                2 if !runs.is_empty() => {
                    space.free(runs.swap_remove(pick / 5 % runs.len()));
                    let freed = space.commit();
                    space.release(&freed);
                }
                3 => pages.extend(space.allocate_page()),
                _ if !pages.is_empty() => {
                    let run = space.retire_page(pages.swap_remove(pick / 5 % pages.len()));
                    space.release(&[run]);
                }
                _ => {
                    let before = (space.available(0), space.page_slots());
                    let _ = space.allocate(13, 0);
                    space.rollback();
                    assert_eq!(before, (space.available(0), space.page_slots()));
                }
            }
            let data: u64 = runs.iter().map(|r| r.1).sum();
            assert_eq!(data, space.data_blocks());
        }
        for run in runs.drain(..) {
            space.free(run);
        }
        let freed = space.commit();
        space.release(&freed);
        for page in pages.drain(..) {
            let run = space.retire_page(page);
            space.release(&[run]);
        }
        assert_eq!((space.available(0), space.page_slots()), (total, total_slots));
        assert_eq!(space.aging_blocks(), 0);
    }
}
