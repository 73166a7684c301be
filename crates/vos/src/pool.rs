//! The buffer pool: which pages exist, where they lie on the device, and which are in memory.
//!
//! A page is changed only inside a transaction ([`Pool::begin`]); what undoes it is kept until
//! [`Pool::commit`], so that [`Pool::rollback`] undoes everything whatever made the transaction fail: the
//! inverse of a change to one leaf entry, the image before of any other change.
//!
//! Pages can be pinned: those that a transaction has looked at, and all that are split off, or joined to,
//! later. So whatever others do to the tree, what it looked at stays in memory.
//!
//! Invariants: a dirty page, and a page whose checkpoint write has not finished, is never evicted. A
//! page that was never written has no location. Ids freed in a transaction are reused after it only.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::hint::Hints;
use crate::page::{CellValue, OVERFLOW_LEN, Page, PageKind, leaf_cell_len};
use crate::types::{BlockAddr, Damage, PageId, ReadError};

const NO_FRAME: u32 = u32::MAX;
/// Free id ranges looked at for a run of ids before new ones are taken.
const ID_SEARCH_MAX: usize = 64;

/// Where a page is. 16 bytes for each page that exists, in memory or not.
#[derive(Clone, Copy)]
struct Slot {
    /// Block address, 0 when never written.
    location: u64,
    frame: u32,
    used: bool,
    /// The transaction under way gives it up.
    given_up: bool,
    /// The location changed since the map page that holds it was written.
    remapped: bool,
}

const FREE_SLOT: Slot =
    Slot { location: 0, frame: NO_FRAME, used: false, given_up: false, remapped: false };

struct Frame {
    page: Rc<Page>,
    id: PageId,
    dirty: bool,
    writing: bool,
    referenced: Cell<bool>,
    /// The transaction that last kept the page's image.
    imaged_in: u64,
}

impl Frame {
    /// Its turn to be evicted is put off. Most are hot: then the line stays clean.
    fn use_again(&self) {
        if !self.referenced.get() {
            self.referenced.set(true);
        }
    }
}

enum Undo {
    Changed { id: PageId, page: Rc<Page>, dirty: bool },
    Entry { id: PageId, index: usize, inverse: Inverse, dirty: bool },
    Allocated { first: PageId, count: u64 },
}

/// What takes back the change of one entry.
enum Inverse {
    Remove,
    Insert(Box<[u8]>),
    Overwrite(Box<[u8]>),
}

impl Inverse {
    fn apply(self, page: &mut Page, index: usize) {
        match self {
            Inverse::Remove => page.remove(index),
            Inverse::Insert(cell) => {
                let fits = page.insert_cell(index, &cell);
                debug_assert!(fits, "it was there before");
            }
            Inverse::Overwrite(value) => page.overwrite_leaf(index, &value),
        }
    }
}

/// See the module text.
pub(crate) struct Pool {
    slots: Vec<Slot>,
    frames: Vec<Option<Frame>>,
    free_frames: Vec<u32>,
    hand: usize,
    resident: usize,
    dirty: usize,
    capacity: usize,
    /// Ids below the high-water mark that are not in use: start -> count.
    free_ids: BTreeMap<u64, u64>,
    undo: Vec<Undo>,
    freed: Vec<PageId>,
    tx: u64,
    /// Locations that the next published checkpoint no longer needs.
    retired: Vec<BlockAddr>,
    remapped: Vec<PageId>,
    pages: u64,
    hints: Hints,
    /// Whether pages that are looked at are noted.
    tracing: Cell<bool>,
    traced: RefCell<BTreeSet<PageId>>,
    /// Pinned pages, each with how many pins name it.
    pinned: BTreeMap<PageId, u32>,
    /// The transactions that pinned them.
    pinned_in: BTreeSet<u64>,
}

/// Pages that stay in memory, until [`Pool::unpin`].
#[derive(Debug)]
pub(crate) struct Pin {
    pages: BTreeSet<PageId>,
    tx: u64,
}

impl Pool {
    /// A pool holding at most `capacity` pages, dirty ones apart. The first `reserved` ids belong to
    /// the space map, which lives elsewhere: only their locations are kept here.
    pub(crate) fn new(capacity: usize, reserved: u64) -> Pool {
        let slot = Slot { used: true, ..FREE_SLOT };
        Pool {
            slots: vec![slot; reserved as usize],
            frames: Vec::new(),
            free_frames: Vec::new(),
            hand: 0,
            resident: 0,
            dirty: 0,
            capacity: capacity.max(16),
            free_ids: BTreeMap::new(),
            undo: Vec::new(),
            freed: Vec::new(),
            tx: 0,
            retired: Vec::new(),
            remapped: Vec::new(),
            pages: 0,
            hints: Hints::new(),
            tracing: Cell::new(false),
            traced: RefCell::default(),
            pinned: BTreeMap::new(),
            pinned_in: BTreeSet::new(),
        }
    }

    /// Notes the pages that are looked at from now on.
    pub(crate) fn trace(&mut self) {
        self.traced.get_mut().clear();
        self.tracing.set(true);
    }

    /// Ends [`Pool::trace`]; the pages it noted.
    pub(crate) fn end_trace(&mut self) -> BTreeSet<PageId> {
        self.tracing.set(false);
        std::mem::take(self.traced.get_mut())
    }

    /// Pins what the last transaction has looked at.
    pub(crate) fn pin(&mut self, pages: BTreeSet<PageId>) -> Pin {
        pages.iter().for_each(|&id| *self.pinned.entry(id).or_default() += 1);
        self.pinned_in.insert(self.tx);
        Pin { pages, tx: self.tx }
    }

    pub(crate) fn unpin(&mut self, pin: &Pin) {
        self.pinned_in.remove(&pin.tx);
        for id in &pin.pages {
            if let Some(pins) = self.pinned.get_mut(id) {
                *pins -= 1;
                if *pins == 0 {
                    self.pinned.remove(id);
                }
            }
        }
    }

    /// Takes over the page map of a checkpoint, `locations[id]`, 0 for ids not in use.
    pub(crate) fn load_map(&mut self, reserved: u64, locations: &[u64]) {
        self.slots.clear();
        self.free_ids.clear();
        for (id, &location) in locations.iter().enumerate() {
            let used = location != 0 || (id as u64) < reserved;
            self.slots.push(Slot { location, used, ..FREE_SLOT });
            if !used {
                add_range(&mut self.free_ids, id as u64, 1);
            }
        }
        self.pages = self.slots.iter().skip(reserved as usize).filter(|s| s.used).count() as u64;
    }

    pub(crate) fn begin(&mut self) {
        debug_assert!(self.undo.is_empty() && self.freed.is_empty());
        self.tx += 1;
    }

    pub(crate) fn commit(&mut self) {
        self.undo.clear();
        for id in std::mem::take(&mut self.freed) {
            self.release(id);
        }
    }

    /// Pages that the transaction under way has changed or allocated.
    pub(crate) fn changed_pages(&self) -> u64 {
        let mut changed = BTreeSet::new();
        let mut allocated = 0;
        for undo in &self.undo {
            match undo {
                Undo::Changed { id, .. } | Undo::Entry { id, .. } => drop(changed.insert(*id)),
                Undo::Allocated { count, .. } => allocated += count,
            }
        }
        changed.len() as u64 + allocated
    }

    pub(crate) fn rollback(&mut self) {
        for id in self.freed.drain(..) {
            self.slots[id.0 as usize].given_up = false;
        }
        while let Some(undo) = self.undo.pop() {
            match undo {
                Undo::Changed { id, page, dirty } => {
                    self.undo_on(id, dirty, |frame| {
                        frame.page = page;
                        frame.imaged_in = 0;
                    });
                }
                Undo::Entry { id, index, inverse, dirty } => {
                    self.undo_on(id, dirty, |frame| {
                        inverse.apply(Rc::make_mut(&mut frame.page), index);
                    });
                }
                Undo::Allocated { first, count } => {
                    for id in first.0..first.0 + count {
                        self.release(PageId(id));
                    }
                }
            }
        }
    }

    /// The page, if it is in memory.
    pub(crate) fn get(&self, id: PageId) -> Result<&Page, ReadError> {
        let frame = self
            .slots
            .get(id.0 as usize)
            .and_then(|s| self.frames.get(s.frame as usize))
            .and_then(Option::as_ref);
        match frame {
            Some(frame) => {
                frame.use_again();
                if self.tracing.get() {
                    self.traced.borrow_mut().insert(id);
                }
                Ok(&frame.page)
            }
            None => Err(self.missing(id)),
        }
    }

    /// The page, to be changed in any way by the transaction that has begun.
    pub(crate) fn get_mut(&mut self, id: PageId) -> Result<&mut Page, ReadError> {
        let tx = self.tx;
        let (frame, undo, dirtied) = self.changing(id)?;
        let dirty = std::mem::replace(&mut frame.dirty, true);
        *dirtied += usize::from(!dirty);
        if frame.imaged_in != tx {
            frame.imaged_in = tx;
            undo.push(Undo::Changed { id, page: Rc::clone(&frame.page), dirty });
        }
        Ok(Rc::make_mut(&mut frame.page))
    }

    /// Puts an entry before entry `i` of a leaf; false when it does not fit.
    pub(crate) fn insert_leaf(
        &mut self,
        id: PageId,
        i: usize,
        key: &[u8],
        value: CellValue<'_>,
    ) -> Result<bool, ReadError> {
        if !self.get(id)?.fits(leaf_cell_len(key.len(), value)) {
            return Ok(false);
        }
        self.edit(id, i, |_| Inverse::Remove)?.insert_leaf(i, key, value);
        Ok(true)
    }

    /// Overwrites the value of entry `i` of a leaf if its length is the same.
    pub(crate) fn overwrite_leaf(
        &mut self,
        id: PageId,
        i: usize,
        value: &[u8],
    ) -> Result<bool, ReadError> {
        if !self.get(id)?.can_overwrite(i, value) {
            return Ok(false);
        }
        let inverse = |page: &Page| Inverse::Overwrite(page.value_bytes(i).into());
        self.edit(id, i, inverse)?.overwrite_leaf(i, value);
        Ok(true)
    }

    /// Removes entry `i` of a leaf.
    pub(crate) fn remove_leaf(&mut self, id: PageId, i: usize) -> Result<(), ReadError> {
        self.edit(id, i, |page| Inverse::Insert(page.cell(i).into()))?.remove(i);
        Ok(())
    }

    /// The leaf, for a change of one entry that `inverse` takes back.
    fn edit(
        &mut self,
        id: PageId,
        index: usize,
        inverse: impl FnOnce(&Page) -> Inverse,
    ) -> Result<&mut Page, ReadError> {
        let tx = self.tx;
        let (frame, undo, dirtied) = self.changing(id)?;
        let dirty = std::mem::replace(&mut frame.dirty, true);
        *dirtied += usize::from(!dirty);
        if frame.imaged_in != tx {
            let inverse = inverse(&frame.page);
            undo.push(Undo::Entry { id, index, inverse, dirty });
        }
        Ok(Rc::make_mut(&mut frame.page))
    }

    fn changing(
        &mut self,
        id: PageId,
    ) -> Result<(&mut Frame, &mut Vec<Undo>, &mut usize), ReadError> {
        let Some(index) = self.frame_of(id) else {
            return Err(self.missing(id));
        };
        let Some(frame) = self.frames[index].as_mut() else {
            return Err(ReadError::Damaged(Damage::Page { page: id }));
        };
        frame.referenced.set(true);
        Ok((frame, &mut self.undo, &mut self.dirty))
    }

    fn undo_on(&mut self, id: PageId, dirty: bool, undo: impl FnOnce(&mut Frame)) {
        if let Some(frame) = self.frame_mut(id) {
            let was = std::mem::replace(&mut frame.dirty, dirty);
            undo(frame);
            self.dirty -= usize::from(was && !dirty);
        }
    }

    /// A new page in memory.
    pub(crate) fn allocate(&mut self, page: Page) -> PageId {
        let id = self.take_ids(1);
        self.undo.push(Undo::Allocated { first: id, count: 1 });
        self.put_new(id, page);
        id
    }

    /// New overflow pages with consecutive ids holding `value`.
    pub(crate) fn allocate_overflow(&mut self, value: &[u8]) -> PageId {
        let count = value.len().div_ceil(OVERFLOW_LEN) as u64;
        let first = self.take_ids(count);
        self.undo.push(Undo::Allocated { first, count });
        for (i, piece) in value.chunks(OVERFLOW_LEN).enumerate() {
            let mut page = Page::new(PageKind::Overflow);
            page.set_count(piece.len());
            page.body_mut()[..piece.len()].copy_from_slice(piece);
            self.put_new(PageId(first.0 + i as u64), page);
        }
        first
    }

    /// Gives the page up when the transaction commits.
    pub(crate) fn free(&mut self, id: PageId) {
        self.slots[id.0 as usize].given_up = true;
        self.freed.push(id);
    }

    /// Where keys were found last.
    pub(crate) fn hints(&self) -> &Hints {
        &self.hints
    }

    /// The page, if it is in memory and what it holds is true: not given up by the transaction under
    /// way. `None` too while all that is looked at is noted: then the way to it counts as well.
    pub(crate) fn peek(&self, id: PageId) -> Option<&Page> {
        if self.tracing.get() || self.slots.get(id.0 as usize)?.given_up {
            return None;
        }
        let frame = self.frames[self.frame_of(id)?].as_ref()?;
        frame.use_again();
        Some(&frame.page)
    }

    /// Takes in a page read from `location`; stale or repeated reads are ignored.
    pub(crate) fn install(
        &mut self,
        id: PageId,
        location: BlockAddr,
        bytes: &[u8],
    ) -> Result<(), Damage> {
        let wanted = self.location(id) == Some(location) && self.frame_of(id).is_none();
        if !wanted {
            return Ok(());
        }
        let page = Page::decode(bytes, id).ok_or(Damage::Page { page: id })?;
        self.put_frame(id, page, false);
        Ok(())
    }

    /// Where the page can be read, if it was ever written.
    pub(crate) fn location(&self, id: PageId) -> Option<BlockAddr> {
        let slot = self.slots.get(id.0 as usize)?;
        (slot.location != 0).then_some(BlockAddr(slot.location))
    }

    pub(crate) fn is_resident(&self, id: PageId) -> bool {
        self.frame_of(id).is_some()
    }

    /// Ids ever used; the page map has this length.
    pub(crate) fn id_limit(&self) -> u64 {
        self.slots.len() as u64
    }

    /// Whether the id names a page.
    pub(crate) fn is_used(&self, id: PageId) -> bool {
        self.slots.get(id.0 as usize).is_some_and(|s| s.used)
    }

    pub(crate) fn dirty_pages(&self) -> usize {
        self.dirty
    }

    pub(crate) fn resident_pages(&self) -> usize {
        self.resident
    }

    pub(crate) fn capacity_pages(&self) -> usize {
        self.capacity
    }

    pub(crate) fn page_count(&self) -> u64 {
        self.pages
    }

    /// Ids of the dirty pages, in order.
    pub(crate) fn dirty_ids(&self) -> Vec<PageId> {
        let dirty = self.frames.iter().flatten().filter(|f| f.dirty).map(|f| f.id);
        let mut ids: Vec<PageId> = dirty.collect();
        ids.sort_unstable();
        ids
    }

    /// Gives a dirty page its next location and returns the image to be written there.
    pub(crate) fn freeze(&mut self, id: PageId, location: BlockAddr) -> Option<Rc<Page>> {
        let frame = self.frame_mut(id)?;
        debug_assert!(frame.dirty);
        frame.dirty = false;
        frame.writing = true;
        let page = Rc::clone(&frame.page);
        self.dirty -= 1;
        self.relocate(id, location);
        Some(page)
    }

    /// Moves a page to a new location; the old one is retired.
    pub(crate) fn relocate(&mut self, id: PageId, location: BlockAddr) {
        let slot = &mut self.slots[id.0 as usize];
        if slot.location != 0 {
            self.retired.push(BlockAddr(slot.location));
        }
        slot.location = location.0;
        if !std::mem::replace(&mut slot.remapped, true) {
            self.remapped.push(id);
        }
    }

    /// Pages whose location changed since the last call, unordered.
    pub(crate) fn take_remapped(&mut self) -> Vec<PageId> {
        let ids = std::mem::take(&mut self.remapped);
        for id in &ids {
            self.slots[id.0 as usize].remapped = false;
        }
        ids
    }

    /// Locations no longer needed once the checkpoint being made is published.
    pub(crate) fn take_retired(&mut self) -> Vec<BlockAddr> {
        std::mem::take(&mut self.retired)
    }

    /// Locations that wait for the next checkpoint.
    pub(crate) fn retired(&self) -> &[BlockAddr] {
        &self.retired
    }

    /// The image of the page has reached the device.
    pub(crate) fn written(&mut self, id: PageId) {
        if let Some(frame) = self.frame_mut(id) {
            frame.writing = false;
        }
    }

    /// Drops clean pages until the pool is within its bound; call between transactions.
    pub(crate) fn evict(&mut self) {
        let mut steps = self.frames.len() * 2;
        while self.resident > self.capacity && steps > 0 {
            steps -= 1;
            self.hand = (self.hand + 1) % self.frames.len();
            let Some(frame) = &self.frames[self.hand] else {
                continue;
            };
            if self.is_kept(frame) || frame.referenced.replace(false) {
                continue;
            }
            self.drop_frame(frame.id);
        }
    }

    /// Drops every clean page: tests use it to make all reads miss.
    pub(crate) fn evict_all(&mut self) {
        for i in 0..self.frames.len() {
            if let Some(frame) = &self.frames[i]
                && !self.is_kept(frame)
            {
                self.drop_frame(frame.id);
            }
        }
    }

    fn is_kept(&self, frame: &Frame) -> bool {
        // A page made, or changed as a whole, since pages were pinned may have taken over what was in one.
        let inherits = self.pinned_in.first().is_some_and(|&tx| frame.imaged_in >= tx);
        frame.dirty || frame.writing || inherits || self.pinned.contains_key(&frame.id)
    }

    fn missing(&self, id: PageId) -> ReadError {
        match self.location(id) {
            Some(_) => ReadError::Missing(vec![id]),
            None => ReadError::Damaged(Damage::Page { page: id }),
        }
    }

    fn frame_of(&self, id: PageId) -> Option<usize> {
        let slot = self.slots.get(id.0 as usize)?;
        (slot.frame != NO_FRAME).then_some(slot.frame as usize)
    }

    fn frame_mut(&mut self, id: PageId) -> Option<&mut Frame> {
        let index = self.frame_of(id)?;
        self.frames[index].as_mut()
    }

    fn put_new(&mut self, id: PageId, page: Page) {
        self.put_frame(id, page, true);
        self.pages += 1;
    }

    fn put_frame(&mut self, id: PageId, page: Page, dirty: bool) {
        let imaged_in = if dirty { self.tx } else { 0 };
        let referenced = Cell::new(true);
        let frame = Frame { page: Rc::new(page), id, dirty, writing: false, referenced, imaged_in };
        let index = match self.free_frames.pop() {
            Some(index) => {
                self.frames[index as usize] = Some(frame);
                index
            }
            None => {
                self.frames.push(Some(frame));
                self.frames.len() as u32 - 1
            }
        };
        self.slots[id.0 as usize].frame = index;
        self.resident += 1;
        self.dirty += usize::from(dirty);
    }

    fn drop_frame(&mut self, id: PageId) {
        let Some(index) = self.frame_of(id) else {
            return;
        };
        self.slots[id.0 as usize].frame = NO_FRAME;
        if let Some(frame) = self.frames[index].take() {
            self.dirty -= usize::from(frame.dirty);
            self.resident -= 1;
            self.free_frames.push(index as u32);
        }
    }

    /// Forgets the page at once.
    fn release(&mut self, id: PageId) {
        self.drop_frame(id);
        let slot = &mut self.slots[id.0 as usize];
        (slot.used, slot.given_up) = (false, false);
        if slot.location != 0 {
            self.retired.push(BlockAddr(slot.location));
            slot.location = 0;
            if !std::mem::replace(&mut slot.remapped, true) {
                self.remapped.push(id);
            }
        }
        self.pages -= 1;
        add_range(&mut self.free_ids, id.0, 1);
    }

    fn take_ids(&mut self, count: u64) -> PageId {
        let found = self
            .free_ids
            .iter()
            .take(ID_SEARCH_MAX)
            .find(|&(_, &len)| len >= count)
            .map(|(&start, &len)| (start, len));
        let first = match found {
            Some((start, len)) => {
                self.free_ids.remove(&start);
                if len > count {
                    self.free_ids.insert(start + count, len - count);
                }
                start
            }
            None => {
                let first = self.slots.len();
                self.slots.resize(first + count as usize, FREE_SLOT);
                first as u64
            }
        };
        for id in first..first + count {
            self.slots[id as usize].used = true;
        }
        PageId(first)
    }
}

/// Adds `[start, start + count)` to a set of ranges, joining neighbours.
fn add_range(ranges: &mut BTreeMap<u64, u64>, mut start: u64, mut count: u64) {
    if let Some((&before, &len)) = ranges.range(..start).next_back()
        && before + len == start
    {
        ranges.remove(&before);
        (start, count) = (before, len + count);
    }
    if let Some(len) = ranges.remove(&(start + count)) {
        count += len;
    }
    ranges.insert(start, count);
}
