//! The allocator against a naive bitmap, and what it is for: what lies next to what, and which free runs stay.

use proptest::prelude::*;

use super::streams::SMALL_BLOCKS_MAX;
use super::*;

#[test]
fn free_chunks_are_trimmed_once_and_the_runs_are_reported() {
    let mut space = Space::new(300, 256 * 20 + 37, None);
    let whole = space.fragmentation();
    assert_eq!((whole.runs, whole.longest, whole.score()), (1, space.total(), 0.0));
    assert_eq!(space.take_trim(16), None, "nothing was written");
    let runs = space.allocate(256 * 6, 0, 0).unwrap();
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
    while let Some(runs) = space.allocate(10, 0, 0) {
        assert!(runs.iter().all(|(at, len)| at.0 + len <= pages.0));
        data += 10;
    }
    assert!(data > 256 * 2, "{data}");
    for at in own {
        let run = space.retire_page(BlockAddr(at));
        space.release(&[run]);
    }
    assert!(space.allocate(10, 0, 0).is_none(), "data never goes there");
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
                let (count, hint) = (1 + pick / 5 % 90, pick / 450);
                if let Some(got) = space.allocate(count as u64, 2, hint as u64) {
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
                let _ = space.allocate(13, 0, 0);
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

const FIRST: u64 = 300;
const END: u64 = FIRST + 256 * 20 + 37;

/// What a block is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Use {
    Nothing,
    Data,
    Aging,
    Page,
    Held,
}

#[derive(Clone, Debug)]
enum Step {
    Allocate { count: u64, reserve: u64, hint: u64, commits: bool },
    Claim { at: u64, len: u64 },
    Free(prop::sample::Index),
    Release,
    Page,
    Retire(prop::sample::Index),
    Promise(u64),
    Redeem(prop::sample::Index),
    Trim,
    Unwritten(u64),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    let count = prop_oneof![4 => 1..=SMALL_BLOCKS_MAX, 2 => 17..300u64, 1 => 300..3000u64];
    let allocate = (count, 0..4u64, 0..20u64, prop::bool::weighted(0.9)).prop_map(
        |(count, reserve, hint, commits)| Step::Allocate { count, reserve, hint, commits },
    );
    prop_oneof![
        30 => allocate,
        2 => (FIRST..END, 1..80u64).prop_map(|(at, len)| Step::Claim { at, len }),
        25 => index().prop_map(Step::Free),
        10 => Just(Step::Release),
        10 => Just(Step::Page),
        8 => index().prop_map(Step::Retire),
        2 => (1..700u64).prop_map(Step::Promise),
        2 => index().prop_map(Step::Redeem),
        1 => Just(Step::Trim),
        1 => (0..600u64).prop_map(Step::Unwritten),
        1 => Just(Step::Reopen),
    ]
}

struct Model {
    space: Space,
    blocks: Vec<Use>,
    runs: Vec<Run>,
    aging: Vec<Run>,
    pages: Vec<BlockAddr>,
    promises: Vec<u64>,
}

impl Model {
    fn new() -> Model {
        let (space, blocks) = (Space::new(FIRST, END, None), vec![Use::Nothing; END as usize]);
        let (runs, aging, pages, promises) = Default::default();
        Model { space, blocks, runs, aging, pages, promises }
    }

    fn set(&mut self, (addr, len): Run, from: Use, to: Use) {
        assert!(addr.0 >= FIRST && addr.0 + len <= END);
        for block in &mut self.blocks[addr.0 as usize..(addr.0 + len) as usize] {
            assert_eq!(std::mem::replace(block, to), from, "block {}", addr.0);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Allocate { count, reserve, hint, commits } => {
                self.allocate(count, reserve, hint, commits);
            }
            Step::Claim { at, len } if self.space.claim((BlockAddr(at), len)) => {
                self.space.commit();
                self.set((BlockAddr(at), len), Use::Nothing, Use::Data);
                self.runs.push((BlockAddr(at), len));
            }
            Step::Free(index) if !self.runs.is_empty() => {
                let run = self.runs.swap_remove(index.index(self.runs.len()));
                self.space.free(run);
                assert_eq!(self.space.commit(), [run]);
                self.set(run, Use::Data, Use::Aging);
                self.aging.push(run);
            }
            Step::Release => {
                let runs = std::mem::take(&mut self.aging);
                self.space.release(&runs);
                runs.into_iter().for_each(|run| self.set(run, Use::Aging, Use::Nothing));
            }
            Step::Page => {
                let slots = self.space.page_slots();
                let page = self.space.allocate_page();
                assert!(page.is_some() || slots == 0);
                if let Some(addr) = page {
                    self.set((addr, PAGE_BLOCKS), Use::Nothing, Use::Page);
                    self.pages.push(addr);
                }
            }
            Step::Retire(index) if !self.pages.is_empty() => {
                let addr = self.pages.swap_remove(index.index(self.pages.len()));
                let run = self.space.retire_page(addr);
                self.set(run, Use::Page, Use::Aging);
                self.aging.push(run);
            }
            Step::Promise(blocks) => {
                self.space.promise(blocks);
                self.promises.push(blocks);
            }
            Step::Redeem(index) if !self.promises.is_empty() => {
                let blocks = self.promises.swap_remove(index.index(self.promises.len()));
                self.space.redeem(blocks);
            }
            Step::Trim => {
                if let Some(run) = self.space.take_trim(3) {
                    self.set(run, Use::Nothing, Use::Held);
                    self.check();
                    self.space.return_trimmed(run);
                    self.set(run, Use::Held, Use::Nothing);
                }
            }
            Step::Unwritten(ahead) => self.write_ahead(ahead),
            Step::Reopen => self.reopen(),
            _ => {}
        }
    }

    fn allocate(&mut self, count: u64, reserve: u64, hint: u64, commits: bool) {
        let available = self.space.available(reserve);
        let got = self.space.allocate(count, reserve, hint);
        assert_eq!(got.is_some(), available >= count);
        let Some(runs) = got else {
            return;
        };
        assert_eq!(runs.iter().map(|r| r.1).sum::<u64>(), count);
        if !commits {
            self.space.rollback();
            return;
        }
        assert!(self.space.commit().is_empty());
        for &run in &runs {
            self.set(run, Use::Nothing, Use::Data);
        }
        self.runs.extend(runs);
    }

    fn write_ahead(&mut self, ahead: u64) {
        self.space.set_written_upto(FIRST + ahead * 5);
        if let Some(run) = self.space.take_unwritten(ahead) {
            self.set(run, Use::Nothing, Use::Held);
            self.check();
            self.space.return_unwritten(run);
            self.set(run, Use::Held, Use::Nothing);
        }
    }

    /// What a checkpoint keeps is all that is needed.
    fn reopen(&mut self) {
        self.step(Step::Release);
        let mut space = Space::new(FIRST, END, None);
        assert!(self.pages.iter().all(|&addr| space.mark_page(addr)));
        let mut body = vec![0; PAGE_SIZE - HEADER_LEN];
        self.space.store_group(0, &mut body);
        assert!(space.load_group(0, &body));
        self.promises.iter().for_each(|&blocks| space.promise(blocks));
        self.space = space;
    }

    /// Every counter, and every shelf, is what the bitmap says.
    fn check(&self) {
        let count = |what| self.blocks.iter().filter(|u| **u == what).count() as u64;
        let space = &self.space;
        assert_eq!(space.data_blocks(), count(Use::Data));
        assert_eq!(space.aging_blocks(), count(Use::Aging));
        let free = count(Use::Nothing) - FIRST;
        assert_eq!(space.used_blocks() + free, space.total());
        let (mut partial, mut whole, mut slots) = (0, 0, 0);
        for (index, chunk) in space.chunks.iter().enumerate() {
            let start = index as u64 * CHUNK_BLOCKS;
            let inside = start.max(FIRST)..(start + CHUNK_BLOCKS).min(END);
            let uses = inside.map(|block| self.blocks[block as usize]);
            let free = uses.filter(|u| *u == Use::Nothing).count() as u64;
            assert_eq!(free, chunk.free());
            match (chunk.kind, chunk.used) {
                (Kind::Page, _) => slots += free / PAGE_BLOCKS,
                (_, 0) => whole += 1,
                _ => partial += free,
            }
            let on = |shelf: &Shelf| shelf.next(index) == Some(index);
            let shelves: Vec<usize> =
                (0..=PAGES).filter(|&shelf| on(&space.shelves[shelf])).collect();
            assert_eq!(shelves, chunk.shelf().into_iter().collect::<Vec<_>>());
        }
        let promised: u64 = self.promises.iter().sum();
        let available = (partial + whole * CHUNK_BLOCKS).saturating_sub(promised);
        assert_eq!(space.available(0), available);
        let kept = promised.saturating_sub(partial).div_ceil(CHUNK_BLOCKS);
        assert_eq!(space.page_slots(), slots + whole.saturating_sub(kept) * 128);
    }
}

proptest! {
    #[test]
    fn behaves_like_a_bitmap(steps in prop::collection::vec(step(), 1..200)) {
        let mut model = Model::new();
        for step in steps {
            model.step(step);
            model.check();
        }
    }
}

#[test]
fn what_is_promised_is_there_whatever_others_take() {
    let mut space = Space::new(0, 256 * 8, None);
    space.promise(300);
    let slots = space.page_slots();
    assert_eq!((space.available(0), slots), (256 * 8 - 300, 6 * 128));
    let mut taken = 0;
    while space.allocate(7, 0, 0).is_some() {
        taken += 7;
    }
    assert!(taken >= 256 * 8 - 300 - 7);
    space.redeem(300);
    assert!(space.allocate(300, 0, 0).is_some());
}

#[test]
fn streams_lie_apart_and_each_in_one_piece() {
    let mut space = Space::new(16, 256 * 64, None);
    let mut ends: [Option<u64>; 4] = [None; 4];
    let mut broken = [0; 4];
    // Three objects written in pieces of 128 KiB, and small runs between.
    for i in 0..80 {
        let stream = i % 4;
        let count = if stream == 3 { 1 + i as u64 % 5 } else { 32 };
        let runs = space.allocate(count, 2, stream as u64).unwrap();
        space.commit();
        assert_eq!(runs.len(), 1);
        let end = ends[stream].replace(runs[0].0.0 + count);
        broken[stream] += u32::from(end.is_some_and(|end| end != runs[0].0.0));
    }
    // 20 pieces of an object are in 3 chunks; small runs are in one.
    assert!(broken[..3].iter().all(|&n| n <= 2) && broken[3] == 0, "{broken:?}");
}

#[test]
fn a_transaction_that_is_taken_back_leaves_no_gap() {
    let mut space = Space::new(16, 256 * 8, None);
    let first = space.allocate(3, 0, 0).unwrap();
    space.commit();
    space.allocate(2, 0, 0).unwrap();
    space.allocate(1, 0, 0).unwrap();
    space.rollback();
    let next = space.allocate(4, 0, 0).unwrap();
    assert_eq!(next[0].0.0, first[0].0.0 + 3);
}

/// An allocator without classes and streams: from its cursor on, the next run that is long enough.
struct NextFit {
    free: Vec<bool>,
    cursor: usize,
}

impl NextFit {
    fn allocate(&mut self, count: u64) -> Vec<Run> {
        let (n, mut left, mut out) = (self.free.len(), count as usize, Vec::new());
        while left > 0 {
            let ideal = left.min(64);
            let run_at = |at: usize| self.free[at..].iter().take(left).take_while(|f| **f).count();
            let fits = (0..n).map(|i| (self.cursor + i) % n).find(|&at| run_at(at) >= ideal);
            let at = fits.or_else(|| (0..n).find(|&at| self.free[at])).unwrap();
            let len = run_at(at);
            self.free[at..at + len].fill(false);
            (self.cursor, left) = (at + len, left - len);
            out.push((BlockAddr(at as u64), len as u64));
        }
        out
    }

    fn fragmentation(&self) -> Fragmentation {
        let mut out = Fragmentation::default();
        let runs = self.free.chunk_by(|a, b| a == b).filter(|run| run[0]);
        runs.for_each(|run| out.add(run.len() as u64));
        out
    }
}

/// Overwrites small and large values at random, in `allocate`d blocks: half of 64 MiB is large
/// values of 1 MiB, an eighth small ones.
fn churn(mut allocate: impl FnMut(u64, Option<Vec<Run>>) -> Vec<Run>) {
    let sizes = |i: usize| if i < 32 { 256 } else { 1 + (i as u64 * 7) % 4 };
    let mut values: Vec<Vec<Run>> = (0..850).map(|i| allocate(sizes(i), None)).collect();
    let mut seed = 7u64;
    for _ in 0..20_000 {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let pick = (seed >> 33) as usize;
        // One overwrite in 16 is of a large value.
        let i = if pick.is_multiple_of(16) { pick / 16 % 32 } else { 32 + pick / 16 % 818 };
        let old = std::mem::take(&mut values[i]);
        values[i] = allocate(sizes(i), Some(old));
    }
}

/// The share of the free blocks that are in runs of at least 64.
fn in_large_runs(free: &Fragmentation) -> f64 {
    free.classes.iter().skip(6).map(|c| c.1).sum::<u64>() as f64 / free.blocks as f64
}

#[test]
fn mixed_overwrites_leave_large_free_runs() {
    const BLOCKS: u64 = 256 * 64;
    let mut naive = NextFit { free: vec![true; BLOCKS as usize], cursor: 0 };
    churn(|count, old| {
        let new = naive.allocate(count);
        for (addr, len) in old.into_iter().flatten() {
            naive.free[addr.0 as usize..(addr.0 + len) as usize].fill(true);
        }
        new
    });
    let mut space = Space::new(0, BLOCKS, None);
    let (mut small, mut follow, mut end) = (0, 0, 0);
    churn(|count, old| {
        let new = space.allocate(count, 0, count).unwrap();
        if count <= SMALL_BLOCKS_MAX {
            assert_eq!(new.len(), 1);
            small += 1;
            follow += u64::from(new[0].0.0 == end);
            end = new[0].0.0 + new[0].1;
        }
        old.into_iter().flatten().for_each(|run| space.free(run));
        let freed = space.commit();
        space.release(&freed);
        new
    });
    let (before, after) = (naive.fragmentation(), space.fragmentation());
    assert_eq!(before.blocks, after.blocks);
    let report = format!(
        "score {:.4} -> {:.4}, in large runs {:.2} -> {:.2}, longest {} -> {}, {follow} of {small} small runs follow the last one",
        before.score(),
        after.score(),
        in_large_runs(&before),
        in_large_runs(&after),
        before.longest,
        after.longest
    );
    println!("{report}");
    assert!(in_large_runs(&after) > 0.6 && in_large_runs(&before) < 0.4, "{report}");
    assert!(after.score() < before.score() && after.longest > before.longest, "{report}");
    assert!(follow * 2 > small, "{report}");
}
