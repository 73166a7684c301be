//! [`Vos`]: the state of one target's store, and what can be read from it.
//!
//! Methods by kind. Reads: `container_exists`, `containers`, `container_stats`, `stats`, `at` (the store at
//! an epoch), and `object_exists`, `fetch`, `array_size`, `extents`, `list_akeys`, `list_objects` for the
//! newest state. Changes: `stage`, `replay`, `collect`
//! (each all or nothing). Pages and space: `location`, `install`, `release`, `evict`. Checkpoints:
//! `begin_checkpoint`, `finish_checkpoint` (in `checkpoint.rs`).
//!
//! Invariants: a failed call changes nothing. What is staged is visible to the next read at once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use crate::active::Active;
use crate::epoch::Epoch;
use crate::item::{Array, Extents, ItemValue, Piece};
use crate::page::CellValue;
use crate::pool::Pool;
use crate::query::Keys;
use crate::record::{
    ContainerRecord, ObjectRecord, TABLE_EXTENT, entry_damaged, extent_key, extent_offset,
    table_key,
};
use crate::space::{CHUNK_BLOCKS, Fragmentation, Run, Space};
use crate::timestamp::Cache;
use crate::tree;
use crate::types::{
    BLOCK_SIZE, BlockAddr, ContainerId, Extent, INLINE_THRESHOLD, ObjectKey, PAGE_SIZE, PageId,
    ReadError,
};
use crate::view::View;

/// What the caller decides about a store in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// Bound of the buffer pool; pages not yet written by a checkpoint may exceed it for a while.
    pub pool_bytes: usize,
    /// Array writes shorter than this stay inline.
    pub inline_threshold: u32,
    /// With a device for pages: blocks between the two are nowhere, from the second on only pages lie.
    pub pages: Option<(u64, u64)>,
}

impl Default for Config {
    fn default() -> Config {
        Config { pool_bytes: 64 << 20, inline_threshold: INLINE_THRESHOLD, pages: None }
    }
}

/// Counters of one container.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ContainerStats {
    /// Objects in it.
    pub objects: u64,
    /// Sum of the sizes of arrays kept in object records.
    pub bytes: u64,
    /// Not a guess, as it is after a split until [`Vos::collect`] has counted.
    pub exact: bool,
}

/// Space and memory of the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Blocks for data and pages.
    pub total_blocks: u64,
    /// Blocks holding data.
    pub data_blocks: u64,
    /// Freed blocks that cannot be reused yet.
    pub aging_blocks: u64,
    /// Metadata pages.
    pub pages: u64,
    /// Metadata pages in memory.
    pub resident_pages: u64,
    /// Metadata pages in memory that differ from the device.
    pub dirty_pages: u64,
    /// Blocks that data can still get.
    pub available_blocks: u64,
    /// Objects in all containers.
    pub objects: u64,
    /// Prepared transactions that have not ended.
    pub prepared: u64,
}

#[derive(Clone)]
pub(crate) struct Container {
    pub(crate) record: ContainerRecord,
    /// The tree's copy of the record is older.
    pub(crate) stale: bool,
}

/// See the module text.
pub struct Vos {
    pub(crate) pool: Pool,
    pub(crate) space: Space,
    pub(crate) root: PageId,
    pub(crate) containers: BTreeMap<ContainerId, Container>,
    pub(crate) container_undo: Vec<(ContainerId, Option<Container>)>,
    /// Next container or tree number.
    pub(crate) next_number: u64,
    /// Number of the last staged transaction.
    pub(crate) seq: u64,
    pub(crate) config: Config,
    /// Page ids below this are the space map's.
    pub(crate) reserved_ids: u64,
    pub(crate) map: crate::checkpoint::MapLocations,
    /// Garbage entries may exist, or uncounted objects.
    pub(crate) garbage: bool,
    /// Blocks may have several names.
    pub(crate) shares: bool,
    /// What prepared transactions hold.
    pub(crate) active: Active,
    /// Pages that held transactions will change.
    pub(crate) held_pages: u64,
    /// The transaction being staged has been held.
    pub(crate) redeems: bool,
    /// Asked about conflicts, if transactions are to be serializable.
    pub(crate) timestamps: Option<RefCell<Cache>>,
}

impl Vos {
    /// Whether the container exists.
    pub fn container_exists(&self, cid: ContainerId) -> bool {
        self.containers.contains_key(&cid)
    }

    /// All containers, in order.
    pub fn containers(&self) -> Vec<ContainerId> {
        self.containers.keys().copied().collect()
    }

    /// Counters of a container.
    pub fn container_stats(&self, cid: ContainerId) -> Option<ContainerStats> {
        let record = &self.containers.get(&cid)?.record;
        let counts = record.counts();
        Some(ContainerStats {
            objects: counts.objects,
            bytes: counts.bytes,
            exact: record.uncounted.is_none(),
        })
    }

    /// The store at an epoch.
    pub fn at(&self, hlc: u64) -> View<'_> {
        self.at_epoch(Epoch::end_of(hlc))
    }

    pub(crate) fn at_epoch(&self, epoch: Epoch) -> View<'_> {
        View::new(self, epoch)
    }

    /// [`View::object_exists`] in the newest state.
    pub fn object_exists(&self, cid: ContainerId, oid: &ObjectKey) -> Result<bool, ReadError> {
        self.at(u64::MAX).object_exists(cid, oid)
    }

    /// [`View::fetch`] in the newest state.
    pub fn fetch(
        &self,
        cid: ContainerId,
        oid: &ObjectKey,
        dkey: &[u8],
        akey: &[u8],
    ) -> Result<Option<Bytes>, ReadError> {
        self.at(u64::MAX).fetch(cid, oid, dkey, akey)
    }

    /// [`View::array_size`] in the newest state.
    pub fn array_size(
        &self,
        cid: ContainerId,
        oid: &ObjectKey,
        dkey: &[u8],
        akey: &[u8],
    ) -> Result<Option<u64>, ReadError> {
        self.at(u64::MAX).array_size(cid, oid, dkey, akey)
    }

    /// [`View::extents`] in the newest state.
    pub fn extents(
        &self,
        cid: ContainerId,
        oid: &ObjectKey,
        dkey: &[u8],
        akey: &[u8],
        offset: u64,
        len: u64,
    ) -> Result<Vec<Extent>, ReadError> {
        self.at(u64::MAX).extents(cid, oid, dkey, akey, offset, len)
    }

    /// [`View::list_akeys`] in the newest state.
    pub fn list_akeys(
        &self,
        cid: ContainerId,
        oid: &ObjectKey,
        dkey: &[u8],
        from: Bound<&[u8]>,
        max: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, ReadError> {
        self.at(u64::MAX).list_akeys(cid, oid, dkey, from, max)
    }

    /// [`View::list_objects`] in the newest state.
    pub fn list_objects(
        &self,
        cid: ContainerId,
        from: Bound<&[u8]>,
        to: Option<&[u8]>,
        max: usize,
    ) -> Result<Vec<ObjectKey>, ReadError> {
        self.at(u64::MAX).list_objects(cid, from, to, max)
    }

    /// Space and memory.
    pub fn stats(&self) -> Stats {
        Stats {
            total_blocks: self.space.total(),
            data_blocks: self.space.data_blocks(),
            aging_blocks: self.space.aging_blocks(),
            pages: self.pool.page_count(),
            resident_pages: self.pool.resident_pages() as u64,
            dirty_pages: self.pool.dirty_pages() as u64,
            available_blocks: self.space.available(self.data_reserve()),
            objects: self.containers.values().map(|c| c.record.counts().objects).sum(),
            prepared: self.active.len() as u64,
        }
    }

    /// Number of the last staged or replayed transaction.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Where a missing page is to be read; `None` if it is in memory or gone by now.
    pub fn location(&self, id: PageId) -> Option<BlockAddr> {
        if self.pool.is_resident(id) { None } else { self.pool.location(id) }
    }

    /// Hands in the [`PAGE_SIZE`] bytes read for a page at `location`.
    pub fn install(
        &mut self,
        id: PageId,
        location: BlockAddr,
        bytes: &[u8],
    ) -> Result<(), crate::types::Damage> {
        self.pool.install(id, location, bytes)
    }

    /// Makes freed blocks available again: [`crate::Staged::freed`] once a WAL batch after the one
    /// with its record is durable, those of [`Vos::finish_checkpoint`] at once, and none of them while a
    /// read that began before is under way.
    pub fn release(&mut self, runs: &[Run]) {
        self.space.release(runs);
    }

    /// Holds blocks that were never written, to be filled with zeros, if the allocator is within
    /// `ahead` blocks of them; give them back with [`Vos::return_unwritten`].
    pub fn take_unwritten(&mut self, ahead: u64) -> Option<Run> {
        self.space.take_unwritten(ahead)
    }

    /// The blocks now hold zeros.
    pub fn return_unwritten(&mut self, run: Run) {
        self.space.return_unwritten(run);
    }

    /// Holds a run of up to `max_bytes` that is free and was written, for the device to be told that
    /// nothing lies there; give it back with [`Vos::return_trimmed`].
    pub fn take_trim(&mut self, max_bytes: u64) -> Option<Run> {
        self.space.take_trim((max_bytes / (CHUNK_BLOCKS * BLOCK_SIZE)) as usize)
    }

    /// The device was told.
    pub fn return_trimmed(&mut self, run: Run) {
        self.space.return_trimmed(run);
    }

    /// How the free space is divided; looks at all of it.
    pub fn fragmentation(&self) -> Fragmentation {
        self.space.fragmentation()
    }

    /// Says up to which block the device was written before: the allocator prefers those.
    pub fn set_written_upto(&mut self, block: u64) {
        self.space.set_written_upto(block);
    }

    /// Drops clean pages down to the bound of the pool.
    pub fn evict(&mut self) {
        self.pool.evict();
    }

    /// Drops every clean page.
    pub fn evict_all(&mut self) {
        self.pool.evict_all();
    }

    /// Whether a checkpoint should be made soon whatever the WAL holds: much memory or space waits
    /// for it.
    pub fn wants_checkpoint(&self) -> bool {
        let dirty = self.pool.dirty_pages();
        dirty * 2 > self.pool.capacity_pages()
            || (dirty > 0
                && self.space.page_slots() < self.pages_needed() + self.headroom() * 3 / 2)
    }

    /// Whether less than an eighth of the space is left: freed blocks should not be kept waiting.
    pub fn is_short_of_space(&self) -> bool {
        self.space.available(self.data_reserve()) < self.space.total() / 8
    }

    /// Whether dirty pages exceed the whole bound of the pool: new work should wait.
    pub fn is_over_bound(&self) -> bool {
        self.pool.dirty_pages() > self.pool.capacity_pages()
    }

    /// Whether punched trees, or objects to be counted, wait for [`Vos::collect`].
    pub fn has_garbage(&self) -> bool {
        self.garbage
    }

    /// The record of an object.
    pub(crate) fn object(
        &self,
        cid: ContainerId,
        oid: &ObjectKey,
    ) -> Result<Option<ObjectRecord>, ReadError> {
        let container = self.containers.get(&cid);
        let Some(key) = container.and_then(|c| c.record.object_key(&oid.0)) else {
            return Ok(None);
        };
        tree::get(&self.pool, self.root, &key)?.map(ObjectRecord::decode).transpose()
    }

    /// The pieces of an array that overlap `[from, to)`, whole and in order.
    pub(crate) fn pieces(
        &self,
        extents: &Extents,
        from: u64,
        to: u64,
    ) -> Result<Vec<Piece>, ReadError> {
        let number = match extents {
            Extents::List(list) => {
                let overlap = list.iter().filter(|p| p.end() > from && p.offset < to);
                return Ok(overlap.cloned().collect());
            }
            Extents::Tree { number, .. } => *number,
        };
        let mut out: Vec<Piece> = Vec::new();
        let decode = |key: &[u8], value: Bytes| {
            let offset = extent_offset(key)?;
            let mut r = crate::codec::Reader::new(value);
            Piece::decode_body(offset, &mut r).map_err(|_| entry_damaged(TABLE_EXTENT))
        };
        if let Some((key, value)) = tree::floor(&self.pool, self.root, &extent_key(number, from))?
            && key.starts_with(&extent_key(number, 0)[..9])
        {
            out.extend(Some(decode(&key, value)?).filter(|p| p.end() > from));
        }
        let covered = out.last().is_some_and(|p| p.end() >= to);
        if from == u64::MAX || to <= from || covered {
            return Ok(out);
        }
        let (start, end) = (extent_key(number, from + 1), extent_key(number, to));
        tree::scan(&self.pool, self.root, &start, Some(&end), &mut |key, cell| {
            out.push(decode(key, tree::load_value(&self.pool, cell)?)?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(out)
    }

    /// Calls `f` with the keys of a table under `number` from `from` on, without their prefix.
    pub(crate) fn scan_table(
        &self,
        table: u8,
        number: u64,
        from: &[u8],
        to: Option<&[u8]>,
        f: &mut dyn FnMut(&[u8], CellValue<'_>) -> Result<ControlFlow<()>, ReadError>,
    ) -> Result<(), ReadError> {
        let start = table_key(table, number, from);
        let end = match to {
            Some(to) => table_key(table, number, to),
            None => table_key(table, number + 1, &[]),
        };
        tree::scan(&self.pool, self.root, &start, Some(&end), &mut |key, cell| f(&key[9..], cell))
    }

    /// As [`Vos::scan_table`], in either order.
    pub(crate) fn scan_keys(
        &self,
        table: u8,
        number: u64,
        keys: &Keys,
        f: &mut dyn FnMut(&[u8], CellValue<'_>) -> Result<ControlFlow<()>, ReadError>,
    ) -> Result<(), ReadError> {
        let start = table_key(table, number, &keys.from);
        let end = match &keys.to {
            Some(to) => table_key(table, number, to),
            None => table_key(table, number + 1, &[]),
        };
        let scan = if keys.reverse { tree::scan_back } else { tree::scan };
        scan(&self.pool, self.root, &start, Some(&end), &mut |key, cell| f(&key[9..], cell))
    }

    /// Pages that the next checkpoint has to place, and those that prepared and held transactions will change.
    pub(crate) fn pages_needed(&self) -> u64 {
        let dirty = self.pool.dirty_pages() as u64;
        let maps = self.map.page_count(self.pool.id_limit());
        let containers = self.containers.len() as u64 / 64;
        let groups = self.space.dirty_group_count() as u64;
        dirty + groups + maps + containers + self.active.pages + self.held_pages + 16
    }

    /// Pages kept back so that deleting, collecting and checkpoints work on a full store.
    pub(crate) fn headroom(&self) -> u64 {
        (self.space.total() * 4096 / PAGE_SIZE as u64 / 64).clamp(64, 4096)
    }

    /// Free chunks that data must leave to pages.
    pub(crate) fn data_reserve(&self) -> u64 {
        let wanted = self.pages_needed() + if self.redeems { 0 } else { self.headroom() };
        wanted.saturating_sub(self.space.open_page_slots()).div_ceil(128)
    }
}

/// Sizes of the arrays in a list of items.
pub(crate) fn array_bytes<'a>(values: impl IntoIterator<Item = &'a ItemValue>) -> u64 {
    values
        .into_iter()
        .map(|v| match v {
            ItemValue::Array(Array { size, .. }) => *size,
            ItemValue::Single(_) => 0,
        })
        .sum()
}
