//! What a scrub looks at: every page by the maps, every extent on the device by the tree.
//!
//! Nothing is read here: a walk names places, the caller reads and verifies them, and asks whose they are
//! only when something is wrong. A walk goes on past a page that cannot be read: [`Vos::scrub_after`].

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::codec::Reader;
use crate::dkeys;
use crate::epoch::Epoch;
use crate::history::{KEY_PIECE, OldPiece};
use crate::item::{Array, Body, Extents, ItemValue, Piece};
use crate::page::{CellValue, Page, PageKind};
use crate::prepared::{active_id, decode_active};
use crate::record::{
    ObjectRecord, TABLE_ACTIVE, TABLE_AKEY, TABLE_DKEY, TABLE_EXTENT, TABLE_HISTORY, TABLE_OBJECT,
    entry_damaged, extent_offset,
};
use crate::tree;
use crate::types::{BlockAddr, ContainerId, Damage, DeviceExtent, ObjectKey, PageId, ReadError};
use crate::vos::{Container, Vos};

/// A page on the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PagePlace {
    /// First of its two blocks.
    pub addr: BlockAddr,
    id: PageId,
    table: PageTable,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum PageTable {
    #[default]
    Tree,
    Space,
    Map,
    Directory,
}

impl PagePlace {
    /// The page as an error names it: those of the maps by their index.
    pub fn damage(&self) -> Damage {
        Damage::Page { page: self.id }
    }

    /// The page, if it is one of the tree.
    pub fn tree_page(&self) -> Option<PageId> {
        (self.table == PageTable::Tree).then_some(self.id)
    }

    /// Whether `bytes`, read from its place, are this page.
    pub fn is_intact(&self, bytes: &[u8]) -> bool {
        let kind = Page::decode(bytes, self.id).and_then(|page| page.kind());
        match self.table {
            PageTable::Tree => {
                matches!(kind, Some(PageKind::Leaf | PageKind::Interior | PageKind::Overflow))
            }
            PageTable::Space => kind == Some(PageKind::Space),
            PageTable::Map => kind == Some(PageKind::Map),
            PageTable::Directory => kind == Some(PageKind::Directory),
        }
    }
}

/// Where a walk over all pages is.
#[derive(Clone, Copy, Debug, Default)]
pub struct PageCursor {
    next: u64,
}

/// An extent on the device, with the key of the entry that names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScrubExtent {
    /// What is to be read.
    pub extent: DeviceExtent,
    key: Bytes,
    /// Its dkey and akey, if the entry is an object's.
    item: Option<(Bytes, Bytes)>,
}

/// What one step of a walk over the extents found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScrubStep {
    /// Extents on the device.
    pub extents: Vec<ScrubExtent>,
    /// Where the next step begins; `None`: this was the last.
    pub next: Option<Bytes>,
}

/// Whose something is, as far as it could be told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    /// The container.
    pub cid: ContainerId,
    /// The object.
    pub object: Option<ObjectKey>,
    /// Its dkey and akey.
    pub item: Option<(Bytes, Bytes)>,
}

/// Where a search for an owner is.
#[derive(Clone, Debug)]
pub struct OwnerSearch {
    /// The tree that is searched: extents or history, or what the search has come to.
    number: u64,
    /// Known once `number` is a dkey's tree.
    akey: Option<Bytes>,
    /// Known once `number` is an object's tree of dkeys.
    dkey: Option<Bytes>,
    from: Bytes,
}

impl OwnerSearch {
    fn new(number: u64, akey: Option<Bytes>, dkey: Option<Bytes>) -> OwnerSearch {
        OwnerSearch { number, akey, dkey, from: Bytes::from_static(&[TABLE_OBJECT]) }
    }
}

impl Vos {
    /// The next up to `max` pages on the device; none when all were named. No checkpoint may be under way,
    /// or their places may not have been written yet.
    pub fn scrub_pages(&self, cursor: &mut PageCursor, max: usize) -> Vec<PagePlace> {
        let (ids, maps) = (self.pool.id_limit(), self.map.tables().0.len() as u64);
        let end = ids + maps + self.map.tables().1.len() as u64;
        let mut out = Vec::new();
        while out.len() < max && cursor.next < end {
            let next = cursor.next;
            cursor.next += 1;
            let (table, index, place) = if next < ids {
                let table = match next < self.reserved_ids {
                    true => PageTable::Space,
                    false => PageTable::Tree,
                };
                (table, next, self.pool.location(PageId(next)).map_or(0, |a| a.0))
            } else if next < ids + maps {
                let index = next - ids;
                (PageTable::Map, index, self.map.tables().0[index as usize])
            } else {
                let index = next - ids - maps;
                (PageTable::Directory, index, self.map.tables().1[index as usize])
            };
            if place != 0 {
                out.push(PagePlace { addr: BlockAddr(place), id: PageId(index), table });
            }
        }
        out
    }

    /// The extents of entries from key `from` on: of one leaf, and no more once they are `blocks_max`
    /// blocks. A walk begins with the empty key.
    pub fn scrub_extents(&self, from: &[u8], blocks_max: u64) -> Result<ScrubStep, ReadError> {
        let (leaf, upper) = self.scrub_leaf(from, None)?;
        let (mut extents, mut blocks): (Vec<ScrubExtent>, u64) = (Vec::new(), 0);
        let first = leaf.search(from).unwrap_or_else(|i| i);
        for i in first..leaf.count() {
            if blocks >= blocks_max {
                return Ok(ScrubStep { extents, next: Some(Bytes::copy_from_slice(leaf.key(i))) });
            }
            let key = leaf.key(i);
            if !matches!(
                key.first(),
                Some(&(TABLE_OBJECT | TABLE_AKEY | TABLE_EXTENT | TABLE_HISTORY | TABLE_ACTIVE))
            ) {
                continue;
            }
            let before = extents.len();
            extents_of(key, tree::load_value(&self.pool, leaf.value(i))?, &mut extents)?;
            blocks += extents[before..].iter().map(|e| e.extent.block_count()).sum::<u64>();
        }
        Ok(ScrubStep { extents, next: upper })
    }

    /// Where the walk goes on when page `bad`, which the step from `from` needs, cannot be read.
    pub fn scrub_after(&self, from: &[u8], bad: PageId) -> Result<Option<Bytes>, ReadError> {
        let (leaf, upper) = match self.scrub_leaf(from, Some(bad)) {
            Ok(found) => found,
            Err(Stuck::At(upper)) => return Ok(upper),
            Err(Stuck::Read(e)) => return Err(e),
        };
        let first = leaf.search(from).unwrap_or_else(|i| i);
        let named = (first..leaf.count()).find(|&i| match leaf.value(i) {
            CellValue::Inline(_) => false,
            value @ CellValue::Overflow { .. } => value.overflow_pages().contains(&bad.0),
        });
        Ok(match named {
            Some(i) => Some([leaf.key(i), &[0]].concat().into()),
            None => upper,
        })
    }

    /// The leaf where `key` belongs, and the key with which the next one begins.
    fn scrub_leaf(&self, key: &[u8], bad: Option<PageId>) -> Result<(&Page, Option<Bytes>), Stuck> {
        let (mut id, mut upper) = (self.root, None);
        for _ in 0..tree::DEPTH_MAX {
            if Some(id) == bad {
                return Err(Stuck::At(upper));
            }
            let page = self.pool.get(id).map_err(Stuck::Read)?;
            if page.is_leaf() {
                return Ok((page, upper));
            }
            let i = page.child_index(key);
            if i + 1 < page.count() {
                upper = Some(Bytes::copy_from_slice(page.key(i + 1)));
            }
            id = page.child(i);
        }
        Err(Stuck::Read(Damage::Page { page: id }.into()))
    }

    /// Begins to search the owner of an extent: its answer, or a search to go on with.
    pub fn scrub_owner(&self, found: &ScrubExtent) -> Result<Option<Owner>, OwnerSearch> {
        self.owner_of_key(&found.key, found.item.clone())
    }

    /// As [`Vos::scrub_owner`] for what lies at and after key `from`, of which only the container or the
    /// tree counts.
    pub fn scrub_owner_near(&self, from: &[u8]) -> Result<Option<Owner>, OwnerSearch> {
        let prefix = from.get(..9).unwrap_or_default();
        let key = if from.first() == Some(&TABLE_OBJECT) { prefix } else { from };
        self.owner_of_key(key, None)
    }

    fn owner_of_key(
        &self,
        key: &[u8],
        item: Option<(Bytes, Bytes)>,
    ) -> Result<Option<Owner>, OwnerSearch> {
        let Some((number, rest)) = split(key) else {
            return Ok(None);
        };
        match key.first() {
            Some(&TABLE_OBJECT) => {
                let object = (!rest.is_empty()).then(|| ObjectKey::copy_from(rest));
                Ok(self.container_of(number, rest).map(|cid| Owner { cid, object, item }))
            }
            Some(&TABLE_AKEY) => {
                let akey = Some(Bytes::copy_from_slice(rest));
                Err(OwnerSearch::new(number, akey, None))
            }
            Some(&(TABLE_EXTENT | TABLE_HISTORY)) => Err(OwnerSearch::new(number, None, None)),
            _ => Ok(None),
        }
    }

    /// Looks at up to `max` more entries; `Ok(Some(None))`: nobody owns it.
    pub fn search_owner(
        &self,
        search: &mut OwnerSearch,
        max: usize,
    ) -> Result<Option<Option<Owner>>, ReadError> {
        let (mut found, mut seen, mut last) = (None, 0, None);
        let in_dkeys = search.from.first() == Some(&TABLE_DKEY);
        let end = [if in_dkeys { TABLE_DKEY } else { TABLE_AKEY } + 1];
        tree::scan(&self.pool, self.root, &search.from, Some(&end), &mut |key, cell| {
            let value = tree::load_value(&self.pool, cell)?;
            found = owns(key, value, search)?;
            last = Some(Bytes::from([key, &[0]].concat()));
            seen += 1;
            let done = found.is_some() || seen >= max;
            Ok(if done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        match found {
            Some(Holder::Object { number, oid, dkey, akey }) => {
                let cid = self.container_of(number, &oid.0);
                let item = Some((dkey, akey));
                return Ok(Some(cid.map(|cid| Owner { cid, object: Some(oid), item })));
            }
            // The tree hangs on an entry that was moved out itself: whose is that?
            Some(Holder::Tree(next)) => *search = next,
            None => match last.filter(|_| seen >= max) {
                Some(last) => search.from = last,
                None if in_dkeys => return Ok(Some(None)),
                None => search.from = Bytes::from_static(&[TABLE_DKEY]),
            },
        }
        Ok(None)
    }

    fn container_of(&self, number: u64, oid: &[u8]) -> Option<ContainerId> {
        let has = |c: &Container| {
            let mut parts = c.record.parts.iter().filter(|p| p.number == number);
            parts.any(|p| oid.is_empty() || p.has(oid))
        };
        self.containers.iter().find(|(_, c)| has(c)).map(|(cid, _)| *cid)
    }
}

/// Why a walk down the tree ended.
enum Stuck {
    /// At the page that cannot be read; the next one begins at this key.
    At(Option<Bytes>),
    Read(ReadError),
}

impl From<Stuck> for ReadError {
    fn from(stuck: Stuck) -> ReadError {
        match stuck {
            Stuck::Read(e) => e,
            Stuck::At(_) => entry_damaged(0),
        }
    }
}

/// Number and the rest of a key.
fn split(key: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = key.get(1..)?.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*number), rest))
}

/// The extents on the device that an entry names.
fn extents_of(key: &[u8], value: Bytes, out: &mut Vec<ScrubExtent>) -> Result<(), ReadError> {
    let entry = Bytes::copy_from_slice(key);
    let mut add = |piece: &Piece, item: Option<(Bytes, Bytes)>| {
        if let Body::Device(d) = &piece.body {
            let extent = DeviceExtent { offset: piece.offset, ..DeviceExtent::from(d) };
            out.push(ScrubExtent { extent, key: entry.clone(), item });
        }
    };
    match key.first() {
        Some(&TABLE_OBJECT) => {
            for item in ObjectRecord::decode(value)?.items {
                let name = Some((item.dkey.clone(), item.akey.clone()));
                listed(&item.value).iter().for_each(|p| add(p, name.clone()));
            }
        }
        Some(&TABLE_AKEY) => {
            listed(&ItemValue::decode_entry(value)?).iter().for_each(|p| add(p, None));
        }
        Some(&TABLE_EXTENT) => {
            let piece = Piece::decode_body(extent_offset(key)?, &mut Reader::new(value));
            add(&piece.map_err(|_| entry_damaged(TABLE_EXTENT))?, None);
        }
        Some(&TABLE_HISTORY) if key.get(9) == Some(&KEY_PIECE) => {
            add(&OldPiece::decode(&key[9..], value)?.piece, None);
        }
        Some(&TABLE_ACTIVE) => {
            let (record, _) = decode_active(active_id(key)?, value)?;
            let pieces = record.placed.iter().flat_map(|p| p.pieces(0, Epoch::MIN));
            pieces.for_each(|piece| add(&piece, None));
        }
        _ => {}
    }
    Ok(())
}

/// The extents that a value holds itself.
fn listed(value: &ItemValue) -> &[Piece] {
    match value {
        ItemValue::Array(array) => match &array.extents {
            Extents::List(list) => list,
            Extents::Tree { .. } => &[],
        },
        ItemValue::Single(_) => &[],
    }
}

/// Whom a tree belongs to.
enum Holder {
    /// An item of an object, which is kept under `number`.
    Object { number: u64, oid: ObjectKey, dkey: Bytes, akey: Bytes },
    /// An entry that was moved out: the tree it is in, to be searched for next.
    Tree(OwnerSearch),
}

/// Whether an entry owns what is searched.
fn owns(key: &[u8], value: Bytes, search: &OwnerSearch) -> Result<Option<Holder>, ReadError> {
    let Some((number, rest)) = split(key) else {
        return Ok(None);
    };
    match key.first() {
        Some(&TABLE_AKEY) => {
            let owns = search.akey.is_none() && has(&ItemValue::decode_entry(value)?, search);
            let akey = Some(Bytes::copy_from_slice(rest));
            Ok(owns.then(|| Holder::Tree(OwnerSearch::new(number, akey, None))))
        }
        Some(&TABLE_DKEY) => {
            let dkeys = search.akey.is_some() && search.dkey.is_none();
            let owns = dkeys && dkeys::decode_entry(value)? == search.number;
            let dkey = Some(Bytes::copy_from_slice(rest));
            Ok(owns.then(|| Holder::Tree(OwnerSearch::new(number, search.akey.clone(), dkey))))
        }
        _ => {
            let item = item_of(&ObjectRecord::decode(value)?, search);
            let oid = ObjectKey::copy_from(rest);
            Ok(item.map(|(dkey, akey)| Holder::Object { number, oid, dkey, akey }))
        }
    }
}

/// The dkey and akey of an object that own what is searched.
fn item_of(record: &ObjectRecord, search: &OwnerSearch) -> Option<(Bytes, Bytes)> {
    match (&search.dkey, &search.akey) {
        (Some(dkey), Some(akey)) => {
            (record.dkeys == search.number).then(|| (dkey.clone(), akey.clone()))
        }
        (_, Some(akey)) => {
            let moved = record.moved.iter().find(|(_, tree)| *tree == search.number);
            moved.map(|(dkey, _)| (dkey.clone(), akey.clone()))
        }
        (_, None) => {
            let item = record.items.iter().find(|item| has(&item.value, search));
            item.map(|item| (item.dkey.clone(), item.akey.clone()))
        }
    }
}

/// Whether the tree searched is that of a value's extents or history.
fn has(value: &ItemValue, search: &OwnerSearch) -> bool {
    let extents = match value {
        ItemValue::Array(Array { extents: Extents::Tree { number, .. }, .. }) => *number,
        _ => 0,
    };
    extents == search.number || value.history() == search.number
}
