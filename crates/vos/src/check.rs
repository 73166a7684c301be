//! Proving a store sound: every page and block is named exactly once, and nothing named is free.
//!
//! [`Checker::step`] walks the tree page by page and may miss pages; the caller loads them, and reads the
//! data of [`Checker::take_extents`] to verify its checksums. The store must not change meanwhile.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bytes::Bytes;

use crate::check_objects::Objects;
use crate::codec::Reader;
use crate::epoch::Epoch;
use crate::garbage::Garbage;
use crate::history::{KEY_PIECE, OldPiece, Version};
use crate::item::{Body, Extents, ItemValue, Piece};
use crate::page::{CellValue, Page, PageKind};
use crate::prepared::{Ended, active_id, decode_active, ended_of};
use crate::record::{
    ContainerRecord, ObjectRecord, TABLE_ACTIVE, TABLE_AKEY, TABLE_CONTAINER, TABLE_DKEY,
    TABLE_ENDED, TABLE_EXTENT, TABLE_GARBAGE, TABLE_HISTORY, TABLE_OBJECT, TABLE_PUNCH,
    TABLE_SHARED, entry_damaged, extent_offset,
};
use crate::share::Shared;
use crate::tree;
use crate::types::{BlockAddr, ContainerId, DeviceExtent, PAGE_BLOCKS, PageId, ReadError, TxId};
use crate::vos::Vos;

/// What is wrong with a store.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CheckError {
    /// Missing pages, or damage.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A page is named twice.
    #[error("page {} is named twice", .0.0)]
    PageShared(PageId),
    /// A page exists that nothing names, or the other way round.
    #[error("page {} is named {named} and exists {exists}", page.0)]
    PageLost {
        /// The page.
        page: PageId,
        /// Whether the tree names it.
        named: bool,
        /// Whether the page map has it.
        exists: bool,
    },
    /// Keys are not in order.
    #[error("keys out of order in page {}", .0.0)]
    Order(PageId),
    /// A block has more names, or fewer, than are counted.
    #[error("block {} has {names} names, {counted} counted", block.0)]
    Names {
        /// The block.
        block: BlockAddr,
        /// Arrays, and places in them, that name it.
        names: u64,
        /// What the table of shared blocks says.
        counted: u64,
    },
    /// The place of a page overlaps another page, data, or the end of the region.
    #[error("block {} of a page is also another page or data, or outside", .0.0)]
    PlaceShared(BlockAddr),
    /// A block is named but free, or allocated and not named.
    #[error("block {} is named {named} and allocated {allocated}", block.0)]
    BlockLost {
        /// The block.
        block: BlockAddr,
        /// Whether an extent names it.
        named: bool,
        /// Whether the space map has it.
        allocated: bool,
    },
    /// Free and used blocks do not add up.
    #[error("{used} blocks are in use, {accounted} are accounted for")]
    Space {
        /// By the bitmap.
        used: u64,
        /// By what was found.
        accounted: u64,
    },
    /// A tree number is used by two owners, or by none.
    #[error("tree {number} has {owners} owners")]
    Owners {
        /// The number.
        number: u64,
        /// How many name it.
        owners: u64,
    },
    /// The tables of transactions and what is in memory contradict each other.
    #[error("transaction {0:?} is noted in one place and not in another, or differently")]
    Transaction(TxId),
    /// A container counts other objects than it has.
    #[error("container {0:?} counts its objects wrong")]
    ObjectCount(ContainerId),
}

/// What a check found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CheckSummary {
    /// Pages of the tree.
    pub pages: u64,
    /// Entries in leaves.
    pub entries: u64,
    /// Objects.
    pub objects: u64,
    /// Extents on the device.
    pub extents: u64,
    /// Blocks they occupy.
    pub blocks: u64,
    /// Blocks that hold pages, those of the maps too.
    pub page_blocks: u64,
    /// Freed blocks that cannot be reused yet.
    pub waiting_blocks: u64,
    /// Free blocks: with the three before it makes up all.
    pub free_blocks: u64,
    /// Blocks of data and pages.
    pub total_blocks: u64,
    /// Bytes of keys, values and slots in leaf pages.
    pub leaf_bytes: u64,
}

/// What names a block: an array, and the place in it.
type Name = (u8, u64, u64);

/// A check under way.
pub struct Checker {
    stack: Vec<PageId>,
    seen: HashSet<PageId>,
    /// Blocks named, by the array that names them.
    blocks: BTreeMap<u64, Name>,
    /// The other names of blocks that have several.
    more_names: BTreeMap<u64, BTreeSet<Name>>,
    shared: Vec<Shared>,
    owners: HashMap<u64, u64>,
    found: HashSet<u64>,
    objects: Objects,
    extents: Vec<DeviceExtent>,
    last_key: Option<Vec<u8>>,
    arrays: u64,
    /// Active transactions found.
    prepared: usize,
    /// Those that ended, by id and by epoch.
    ended: HashSet<(TxId, u64)>,
    ended_at: HashSet<(TxId, u64)>,
    summary: CheckSummary,
}

impl Checker {
    /// Starts at the root.
    pub fn new(vos: &Vos) -> Checker {
        Checker {
            stack: vec![vos.root],
            seen: HashSet::new(),
            blocks: BTreeMap::new(),
            more_names: BTreeMap::new(),
            shared: Vec::new(),
            owners: HashMap::new(),
            found: HashSet::new(),
            objects: Objects::new(),
            extents: Vec::new(),
            last_key: None,
            arrays: 0,
            prepared: 0,
            ended: HashSet::new(),
            ended_at: HashSet::new(),
            summary: CheckSummary::default(),
        }
    }

    /// Looks at the next page; false when all are done. After [`ReadError::Missing`] load and repeat.
    pub fn step(&mut self, vos: &Vos) -> Result<bool, CheckError> {
        if self.objects.step(vos)? {
            return Ok(true);
        }
        let Some(&id) = self.stack.last() else {
            return Ok(false);
        };
        let page = vos.pool.get(id)?;
        // All overflow pages of the leaf are needed: ask for them before anything is noted.
        if page.is_leaf() {
            (0..page.count())
                .try_for_each(|i| tree::load_value(&vos.pool, page.value(i)).map(|_| ()))?;
        }
        self.stack.pop();
        if !self.seen.insert(id) {
            return Err(CheckError::PageShared(id));
        }
        self.summary.pages += 1;
        match page.kind() {
            Some(PageKind::Leaf) => self.leaf(vos, id, page)?,
            Some(PageKind::Interior) => {
                self.stack.extend((0..page.count()).rev().map(|i| page.child(i)));
            }
            _ => return Err(ReadError::Damaged(crate::Damage::Page { page: id }).into()),
        }
        Ok(true)
    }

    /// Device extents found since the last call.
    pub fn take_extents(&mut self) -> Vec<DeviceExtent> {
        std::mem::take(&mut self.extents)
    }

    /// Compares what was found with the page map, the space map and the counters.
    pub fn finish(mut self, vos: &Vos) -> Result<CheckSummary, CheckError> {
        for id in (vos.reserved_ids..vos.pool.id_limit()).map(PageId) {
            let (named, exists) = (self.seen.contains(&id), vos.pool.is_used(id));
            if named != exists {
                return Err(CheckError::PageLost { page: id, named, exists });
            }
        }
        let (first, end) = vos.space.bounds();
        for block in first..end {
            let (named, allocated) = (self.blocks.contains_key(&block), vos.space.is_data(block));
            if named != allocated {
                return Err(CheckError::BlockLost { block: BlockAddr(block), named, allocated });
            }
        }
        self.check_names(end)?;
        self.check_transactions(vos)?;
        let page_blocks = self.page_places(vos)? * PAGE_BLOCKS;
        let waiting_blocks = vos.space.aging_blocks() + vos.space.held_blocks();
        let accounted = self.blocks.len() as u64 + waiting_blocks + page_blocks;
        let (used, total_blocks) = (vos.space.used_blocks(), vos.space.total());
        if used != accounted {
            return Err(CheckError::Space { used, accounted });
        }
        self.objects.numbers().collect::<Vec<_>>().into_iter().for_each(|n| self.own(n));
        let found = self.found.iter().map(|n| (n, self.owners.get(n).copied().unwrap_or(0)));
        for (&number, owners) in found.chain(self.owners.iter().map(|(n, &c)| (n, c))) {
            if owners != 1 {
                return Err(CheckError::Owners { number, owners });
            }
        }
        self.objects.finish(vos)?;
        Ok(CheckSummary {
            blocks: self.blocks.len() as u64,
            page_blocks,
            waiting_blocks,
            free_blocks: total_blocks - used,
            total_blocks,
            ..self.summary
        })
    }

    /// Compares the names of blocks with what is counted.
    fn check_names(&self, end: u64) -> Result<(), CheckError> {
        let mut counted: BTreeMap<u64, u64> = BTreeMap::new();
        for s in &self.shared {
            counted.extend((s.start..s.end.min(end)).map(|block| (block, s.more + 1)));
        }
        for &block in self.more_names.keys().chain(counted.keys()) {
            let first = u64::from(self.blocks.contains_key(&block));
            let names = first + self.more_names.get(&block).map_or(0, |m| m.len() as u64);
            let counted = counted.get(&block).copied().unwrap_or(1);
            if names != counted {
                return Err(CheckError::Names { block: BlockAddr(block), names, counted });
            }
        }
        Ok(())
    }

    /// Counts the places of all pages, which overlap neither each other nor data.
    fn page_places(&self, vos: &Vos) -> Result<u64, CheckError> {
        let ids = (0..vos.pool.id_limit()).map(PageId);
        let mut places: Vec<BlockAddr> = ids.filter_map(|id| vos.pool.location(id)).collect();
        places.extend(vos.map.places());
        places.extend(vos.pool.retired());
        places.sort_unstable();
        let (first, end) = vos.space.bounds();
        let mut free_from = first;
        for &place in &places {
            let after = place.0 + PAGE_BLOCKS;
            let data = (place.0..after).any(|block| self.blocks.contains_key(&block));
            if place.0 < free_from || after > end || data {
                return Err(CheckError::PlaceShared(place));
            }
            free_from = after;
        }
        Ok(places.len() as u64)
    }

    fn leaf(&mut self, vos: &Vos, id: PageId, page: &Page) -> Result<(), CheckError> {
        self.summary.leaf_bytes += page.used() as u64;
        for i in 0..page.count() {
            let (key, cell) = (page.key(i), page.value(i));
            if self.last_key.as_ref().is_some_and(|last| last[..] >= *key) {
                return Err(CheckError::Order(id));
            }
            self.last_key = Some(key.to_vec());
            self.summary.entries += 1;
            if let CellValue::Overflow { .. } = cell {
                for id in cell.overflow_pages().map(PageId) {
                    if !self.seen.insert(id) {
                        return Err(CheckError::PageShared(id));
                    }
                    self.summary.pages += 1;
                }
            }
            self.entry(vos, key, tree::load_value(&vos.pool, cell)?)?;
        }
        Ok(())
    }

    fn entry(&mut self, vos: &Vos, key: &[u8], value: Bytes) -> Result<(), CheckError> {
        let table = key.first().copied().unwrap_or(0);
        let number = key.get(1..9).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes);
        match table {
            TABLE_CONTAINER => {
                let cid = key[1..].try_into().ok().map(ContainerId);
                let parts = ContainerRecord::decode(value)?.parts;
                parts.iter().for_each(|part| self.objects.own(part.clone(), cid));
            }
            TABLE_OBJECT => {
                self.summary.objects += 1;
                let record = ObjectRecord::decode(value)?;
                let oid = key.get(9..).unwrap_or_default();
                self.objects.object(vos, number, oid, record.exists())?;
                record.moved.iter().for_each(|(_, number)| self.own(*number));
                if record.dkeys != 0 {
                    self.own(record.dkeys);
                }
                if record.punched != 0 {
                    self.own(record.punched);
                }
                record.items.iter().try_for_each(|item| self.value(&item.value))?;
            }
            TABLE_PUNCH => {
                self.found.insert(number);
                crate::punches::decode(key.get(9..).unwrap_or_default(), value)?;
            }
            TABLE_DKEY => {
                self.found.insert(number);
                self.own(crate::dkeys::decode_entry(value)?);
            }
            TABLE_AKEY => {
                self.found.insert(number);
                self.value(&ItemValue::decode_entry(value)?)?;
            }
            TABLE_EXTENT => {
                self.found.insert(number);
                let piece = Piece::decode_body(extent_offset(key)?, &mut Reader::new(value));
                let piece = piece.map_err(|_| entry_damaged(TABLE_EXTENT))?;
                self.piece(&piece, (1, number))?;
            }
            TABLE_HISTORY => {
                self.found.insert(number);
                if key.get(9) == Some(&KEY_PIECE) {
                    let old = OldPiece::decode(&key[9..], value)?;
                    self.piece(&old.piece, (1, number))?;
                } else {
                    Version::decode(value)?;
                }
            }
            TABLE_ACTIVE => self.active(vos, active_id(key)?, value)?,
            TABLE_ENDED => match ended_of(key)? {
                (id, None) => drop(self.ended.insert((id, Ended::decode(value)?.epoch))),
                (id, Some(epoch)) => drop(self.ended_at.insert((id, epoch))),
            },
            TABLE_GARBAGE => match Garbage::decode(key, value)? {
                Garbage { table: TABLE_OBJECT, .. } => {}
                garbage => self.own(garbage.number),
            },
            TABLE_SHARED => self.shared.push(Shared::decode(&key[1..], value)?),
            _ => return Err(entry_damaged(table).into()),
        }
        Ok(())
    }

    /// A prepared transaction names the blocks of its data.
    fn active(&mut self, vos: &Vos, id: TxId, value: Bytes) -> Result<(), CheckError> {
        let (record, _) = decode_active(id, value)?;
        if vos.active.get(id).is_none_or(|a| a.epoch != record.tx.epoch) {
            return Err(CheckError::Transaction(id));
        }
        self.prepared += 1;
        let pieces = record.placed.iter().flat_map(|p| p.pieces(0, Epoch::MIN));
        for piece in pieces {
            self.arrays += 1;
            self.piece(&piece, (2, self.arrays))?;
        }
        Ok(())
    }

    /// Compares what is noted of transactions in several places.
    fn check_transactions(&self, vos: &Vos) -> Result<(), CheckError> {
        let differing = self.ended.symmetric_difference(&self.ended_at).next();
        let both = self.ended.iter().find(|(id, _)| vos.active.get(*id).is_some());
        if let Some((id, _)) = differing.or(both) {
            return Err(CheckError::Transaction(*id));
        }
        match vos.active.last() {
            Some(id) if vos.active.len() != self.prepared => Err(CheckError::Transaction(id)),
            _ => Ok(()),
        }
    }

    fn value(&mut self, value: &ItemValue) -> Result<(), CheckError> {
        let array = match value {
            ItemValue::Array(array) => array,
            ItemValue::Single(single) => {
                if single.history != 0 {
                    self.own(single.history);
                }
                return Ok(());
            }
        };
        match &array.extents {
            Extents::Tree { number, .. } => {
                self.own(*number);
                Ok(())
            }
            Extents::List(list) => {
                self.arrays += 1;
                let mut place = (0, self.arrays);
                if array.history != 0 {
                    self.own(array.history);
                    place = (1, array.history);
                }
                list.iter().try_for_each(|piece| self.piece(piece, place))
            }
        }
    }

    /// Notes the blocks of a piece: only pieces of one block's own place in one array may share it.
    fn piece(&mut self, piece: &Piece, array: (u8, u64)) -> Result<(), CheckError> {
        let Body::Device(d) = &piece.body else {
            return Ok(());
        };
        self.summary.extents += 1;
        for i in 0..d.blocks() {
            // The array offset that the block's first byte would have.
            let place = piece
                .offset
                .wrapping_add(i * crate::types::BLOCK_SIZE)
                .wrapping_sub(u64::from(d.skip));
            let name = (array.0, array.1, place);
            if *self.blocks.entry(d.addr + i).or_insert(name) != name {
                self.more_names.entry(d.addr + i).or_default().insert(name);
            }
        }
        self.extents.push(DeviceExtent { offset: piece.offset, ..DeviceExtent::from(d) });
        Ok(())
    }

    fn own(&mut self, number: u64) {
        *self.owners.entry(number).or_default() += 1;
    }
}
