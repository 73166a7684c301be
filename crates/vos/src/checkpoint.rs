//! Checkpoints: every changed page is written to a new place, then one root record makes them all valid.
//!
//! Page ids map to places by map pages, those are found by directory pages, those by the root. The
//! root says which transactions the pages hold; replay adds the others.
//! Invariant: nothing that the last published root can reach is overwritten before the next root is
//! published: new places come from free space, old ones are freed by [`Vos::finish_checkpoint`].

use std::collections::BTreeSet;
use std::rc::Rc;

use bytes::Bytes;

use crate::codec::{Malformed, Reader, put_u32, put_u64};
use crate::page::{HEADER_LEN, Page, PageKind};
use crate::pool::Pool;
use crate::record::{
    ContainerRecord, TABLE_CONTAINER, TABLE_GARBAGE, container_key, entry_damaged,
};
use crate::space::{GROUP_BLOCKS, Run, Space};
use crate::tree;
use crate::types::{
    BLOCK_SIZE, BlockAddr, ContainerId, Damage, PAGE_SIZE, PageId, ReadError, StageError,
};
use crate::vos::{Config, Container, Vos};

/// Size of a root record.
pub const ROOT_LEN: usize = 4096;
/// Places in one map or directory page.
pub(crate) const MAP_FANOUT: usize = (PAGE_SIZE - HEADER_LEN) / 8;

const ROOT_MAGIC: [u8; 8] = *b"SPIRroot";
const ROOT_FORMAT: u32 = 2;
const DIRECTORIES_MAX: usize = 256;
/// Offset of what the last scrub came to; roots of before have zeros there.
const ROOT_SCRUBBED: usize = ROOT_LEN - 20;

/// Where replay starts in the WAL.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WalStart {
    /// Only batches of this generation count.
    pub generation: u64,
    /// Byte offset in the WAL region.
    pub offset: u64,
    /// Number of the batch expected there.
    pub batch: u64,
}

/// The record that makes a checkpoint valid.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Root {
    /// Number of the checkpoint.
    pub number: u64,
    /// The pages hold all transactions up to this one.
    pub seq: u64,
    /// Where replay starts.
    pub wal: WalStart,
    pub(crate) tree: u64,
    pub(crate) ids: u64,
    pub(crate) next_number: u64,
    /// First block of data and pages, and the one after the last.
    pub(crate) blocks: (u64, u64),
    /// Up to which block the device was written before: a hint for the allocator.
    pub(crate) written_upto: u64,
    /// Bytes of the WAL region that were written before: a hint for the store.
    pub wal_written: u64,
    /// When the last scrub ended, in seconds since 1970, 0 for never; and what it found to be damaged.
    pub scrubbed: (u64, u64),
    /// Places of the directory pages.
    pub directories: Vec<u64>,
}

impl Root {
    /// The block to be written.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(ROOT_LEN);
        out.extend_from_slice(&ROOT_MAGIC);
        put_u32(&mut out, ROOT_FORMAT);
        put_u32(&mut out, self.directories.len() as u32);
        let fields = [
            self.number,
            self.seq,
            self.wal.generation,
            self.wal.offset,
            self.wal.batch,
            self.tree,
            self.ids,
            self.next_number,
            self.blocks.0,
            self.blocks.1,
            self.written_upto,
            self.wal_written,
        ];
        fields.iter().chain(&self.directories).for_each(|&v| put_u64(&mut out, v));
        out.resize(ROOT_SCRUBBED, 0);
        put_u64(&mut out, self.scrubbed.0);
        put_u64(&mut out, self.scrubbed.1);
        let crc = crc32c::crc32c(&out);
        put_u32(&mut out, crc);
        out
    }

    /// Reads a root record; `None` if it is not a whole one.
    pub fn decode(bytes: &[u8]) -> Option<Root> {
        let (body, crc) = bytes.split_at_checked(ROOT_LEN - 4)?;
        if bytes.len() != ROOT_LEN || crc != crc32c::crc32c(body).to_le_bytes() {
            return None;
        }
        let mut r = Reader::new(Bytes::copy_from_slice(body));
        let mut parse = || -> Result<Root, Malformed> {
            let sound = r.array()? == ROOT_MAGIC && r.u32()? == ROOT_FORMAT;
            let count = r.u32()? as usize;
            if !sound || count > DIRECTORIES_MAX {
                return Err(Malformed);
            }
            let (number, seq) = (r.u64()?, r.u64()?);
            let wal = WalStart { generation: r.u64()?, offset: r.u64()?, batch: r.u64()? };
            let (tree, ids, next_number) = (r.u64()?, r.u64()?, r.u64()?);
            let blocks = (r.u64()?, r.u64()?);
            let (written_upto, wal_written) = (r.u64()?, r.u64()?);
            let directories = (0..count).map(|_| r.u64()).collect::<Result<_, _>>()?;
            let mut r = Reader::new(Bytes::copy_from_slice(&body[ROOT_SCRUBBED..]));
            let scrubbed = (r.u64()?, r.u64()?);
            Ok(Root {
                number,
                seq,
                wal,
                tree,
                ids,
                next_number,
                blocks,
                written_upto,
                wal_written,
                scrubbed,
                directories,
            })
        };
        parse().ok()
    }
}

/// Places of the map and directory pages.
#[derive(Clone, Default)]
pub(crate) struct MapLocations {
    /// Number of the last checkpoint begun.
    number: u64,
    maps: Vec<u64>,
    directories: Vec<u64>,
}

impl MapLocations {
    /// Places of map and directory pages.
    pub(crate) fn places(&self) -> impl Iterator<Item = BlockAddr> {
        let all = self.maps.iter().chain(&self.directories);
        all.filter(|&&place| place != 0).map(|&place| BlockAddr(place))
    }

    /// Places of the map pages, and of the directory pages, 0 for those without one.
    pub(crate) fn tables(&self) -> (&[u64], &[u64]) {
        (&self.maps, &self.directories)
    }

    /// Map and directory pages for `ids` page ids.
    pub(crate) fn page_count(&self, ids: u64) -> u64 {
        let maps = ids.div_ceil(MAP_FANOUT as u64);
        maps + maps.div_ceil(MAP_FANOUT as u64)
    }
}

/// A page to be written by a checkpoint.
pub struct PageWrite {
    /// First of its two blocks.
    pub addr: BlockAddr,
    id: PageId,
    number: u64,
    page: Rc<Page>,
}

impl PageWrite {
    /// Writes the page's [`PAGE_SIZE`] bytes.
    pub fn seal(&self, out: &mut [u8]) {
        self.page.seal(self.id, self.number, out);
    }
}

/// A checkpoint under way.
pub struct Checkpoint {
    /// Pages to write, in any order; then flush; then publish the root.
    pub writes: Vec<PageWrite>,
    /// The root, but for [`Root::wal`].
    pub root: Root,
    frozen: Vec<PageId>,
    retired: Vec<BlockAddr>,
    waiting: Vec<Run>,
}

impl Vos {
    /// An empty store on blocks `first..end`; nothing is durable before its first checkpoint, whose
    /// number comes after `last`, that of the newest root on the device.
    pub fn format(config: Config, first: u64, end: u64, last: u64) -> Vos {
        let mut vos = Vos::bare(config, first, end);
        vos.map.number = last;
        vos.pool.begin();
        vos.root = tree::create(&mut vos.pool);
        vos.pool.commit();
        vos
    }

    /// Freezes the state: all staged transactions, and no later one. Between this and
    /// [`Vos::finish_checkpoint`] transactions go on; only one checkpoint is under way at a time.
    pub fn begin_checkpoint(&mut self) -> Result<Checkpoint, StageError> {
        self.write_containers()?;
        let maps = self.map.page_count(self.pool.id_limit());
        let dirty = (self.pool.dirty_pages() + self.space.dirty_group_count()) as u64;
        if self.space.page_slots() < dirty + maps {
            return Err(StageError::NoSpace);
        }
        self.map.number += 1;
        let mut writes = Vec::with_capacity(dirty as usize + 8);
        let frozen = self.freeze_pages(&mut writes)?;
        self.freeze_space(&mut writes)?;
        let mut retired = self.pool.take_retired();
        self.freeze_map(&mut writes, &mut retired)?;
        let root = Root {
            number: self.map.number,
            seq: self.seq,
            wal: WalStart::default(),
            tree: self.root.0,
            ids: self.pool.id_limit(),
            next_number: self.next_number,
            blocks: self.space.bounds(),
            written_upto: self.space.written_upto(),
            wal_written: 0,
            scrubbed: (0, 0),
            directories: self.map.directories.clone(),
        };
        writes.sort_unstable_by_key(|w: &PageWrite| w.addr);
        let waiting = self.space.take_waiting();
        Ok(Checkpoint { writes, root, frozen, retired, waiting })
    }

    /// The root is durable. What only the one before it needed is to be given to [`Vos::release`] once
    /// no read that began before is under way.
    #[must_use]
    pub fn finish_checkpoint(&mut self, checkpoint: Checkpoint) -> Vec<Run> {
        checkpoint.frozen.into_iter().for_each(|id| self.pool.written(id));
        let mut freed = checkpoint.waiting;
        freed.extend(checkpoint.retired.into_iter().map(|addr| self.space.retire_page(addr)));
        freed
    }

    fn write_containers(&mut self) -> Result<(), StageError> {
        let stale: Vec<(ContainerId, ContainerRecord)> = self
            .containers
            .iter()
            .filter(|(_, c)| c.stale)
            .map(|(k, c)| (*k, c.record.clone()))
            .collect();
        if stale.is_empty() {
            return Ok(());
        }
        self.begin();
        let root = self.root;
        for (cid, record) in &stale {
            let key = container_key(*cid);
            if let Err(e) = tree::insert(&mut self.pool, &mut self.root, &key, &record.encode()) {
                self.rollback();
                self.root = root;
                return Err(e.into());
            }
        }
        self.commit();
        for (cid, _) in stale {
            if let Some(container) = self.containers.get_mut(&cid) {
                container.stale = false;
            }
        }
        Ok(())
    }

    fn freeze_pages(&mut self, writes: &mut Vec<PageWrite>) -> Result<Vec<PageId>, StageError> {
        let ids = self.pool.dirty_ids();
        for &id in &ids {
            let addr = self.space.allocate_page().ok_or(StageError::NoSpace)?;
            if let Some(page) = self.pool.freeze(id, addr) {
                writes.push(PageWrite { addr, id, number: self.map.number, page });
            }
        }
        Ok(ids)
    }

    fn freeze_space(&mut self, writes: &mut Vec<PageWrite>) -> Result<(), StageError> {
        for group in self.space.take_dirty_groups() {
            let addr = self.space.allocate_page().ok_or(StageError::NoSpace)?;
            let mut page = Page::new(PageKind::Space);
            self.space.store_group(group, page.body_mut());
            self.pool.relocate(PageId(group), addr);
            let (id, number) = (PageId(group), self.map.number);
            writes.push(PageWrite { addr, id, number, page: Rc::new(page) });
        }
        Ok(())
    }

    fn freeze_map(
        &mut self,
        writes: &mut Vec<PageWrite>,
        retired: &mut Vec<BlockAddr>,
    ) -> Result<(), StageError> {
        let remapped = self.pool.take_remapped();
        let fanout = MAP_FANOUT as u64;
        let maps: BTreeSet<usize> = remapped.iter().map(|id| (id.0 / fanout) as usize).collect();
        let directories: BTreeSet<usize> = maps.iter().map(|m| m / MAP_FANOUT).collect();
        let number = self.map.number;
        let mut write = |space: &mut Space,
                         kind,
                         index: usize,
                         places: &[u64],
                         old: &mut Vec<u64>| {
            let addr = space.allocate_page().ok_or(StageError::NoSpace)?;
            let mut page = Page::new(kind);
            for (out, place) in page.body_mut().as_chunks_mut::<8>().0.iter_mut().zip(places) {
                *out = place.to_le_bytes();
            }
            writes.push(PageWrite { addr, id: PageId(index as u64), number, page: Rc::new(page) });
            old.resize(old.len().max(index + 1), 0);
            match std::mem::replace(&mut old[index], addr.0) {
                0 => {}
                was => retired.push(BlockAddr(was)),
            }
            Ok::<(), StageError>(())
        };
        for m in maps {
            let first = m as u64 * fanout;
            let last = (first + fanout).min(self.pool.id_limit());
            let place = |id| self.pool.location(PageId(id)).map_or(0, |a| a.0);
            let places: Vec<u64> = (first..last).map(place).collect();
            write(&mut self.space, PageKind::Map, m, &places, &mut self.map.maps)?;
        }
        for d in directories {
            let end = self.map.maps.len().min((d + 1) * MAP_FANOUT);
            let places = self.map.maps[d * MAP_FANOUT..end].to_vec();
            write(&mut self.space, PageKind::Directory, d, &places, &mut self.map.directories)?;
        }
        match self.map.directories.len() <= DIRECTORIES_MAX {
            true => Ok(()),
            false => Err(StageError::NoSpace),
        }
    }

    fn bare(config: Config, first: u64, end: u64) -> Vos {
        let reserved_ids = Space::group_count(end);
        Vos {
            pool: Pool::new(config.pool_bytes / PAGE_SIZE, reserved_ids),
            space: Space::new(first, end, config.pages),
            root: PageId(reserved_ids),
            containers: Default::default(),
            container_undo: Vec::new(),
            next_number: 1,
            seq: 0,
            config,
            reserved_ids,
            map: MapLocations::default(),
            garbage: true,
            shares: true,
            active: Default::default(),
            held_pages: 0,
            redeems: false,
            timestamps: None,
        }
    }
}

/// Reads a store back, page by page: directories, maps, space map; then [`Loader::finish`], and
/// [`Vos::load_containers`] with ordinary page loads.
pub struct Loader {
    root: Root,
    maps: Vec<u64>,
    locations: Vec<u64>,
    vos: Vos,
}

impl Loader {
    /// Starts from a root; `blocks` is what the superblock says of the device.
    pub fn new(config: Config, root: Root, blocks: (u64, u64)) -> Result<Loader, Damage> {
        let ids_max = (root.directories.len() * MAP_FANOUT * MAP_FANOUT) as u64;
        let sound = root.blocks == blocks
            && blocks.0 <= blocks.1
            && root.ids <= ids_max
            && root.tree < root.ids
            && root.ids >= Space::group_count(blocks.1);
        if !sound {
            return Err(Damage::Page { page: PageId(0) });
        }
        let mut vos = Vos::bare(config, blocks.0, blocks.1);
        vos.root = PageId(root.tree);
        vos.next_number = root.next_number;
        vos.seq = root.seq;
        vos.map.number = root.number;
        vos.map.directories = root.directories.clone();
        vos.space.set_written_upto(root.written_upto);
        vos.space.touch_upto(root.written_upto);
        Ok(Loader { root, maps: Vec::new(), locations: Vec::new(), vos })
    }

    /// Places of the directory pages, to be read and given to [`Loader::directory`] in order.
    pub fn directories(&self) -> Vec<BlockAddr> {
        self.root.directories.iter().map(|&a| BlockAddr(a)).collect()
    }

    /// Takes in directory page `index`.
    pub fn directory(&mut self, index: usize, bytes: &[u8]) -> Result<(), Damage> {
        let maps = decode_places(bytes, PageKind::Directory, index)?;
        self.maps.extend(maps);
        let needed = (self.root.ids as usize).div_ceil(MAP_FANOUT);
        self.maps.truncate(needed);
        Ok(())
    }

    /// Places of the map pages, 0 for maps without a page, to be given to [`Loader::map`] in order.
    pub fn maps(&self) -> Vec<BlockAddr> {
        self.maps.iter().map(|&a| BlockAddr(a)).collect()
    }

    /// Takes in map page `index`; `None` for one without a page.
    pub fn map(&mut self, index: usize, bytes: Option<&[u8]>) -> Result<(), Damage> {
        match bytes {
            Some(bytes) => self.locations.extend(decode_places(bytes, PageKind::Map, index)?),
            None => self.locations.resize(self.locations.len() + MAP_FANOUT, 0),
        }
        self.locations.truncate(self.root.ids as usize);
        Ok(())
    }

    /// Call after the last map: places of the pages of the space map, 0 for groups without data.
    pub fn space(&mut self) -> Result<Vec<BlockAddr>, Damage> {
        if self.locations.len() as u64 != self.root.ids {
            return Err(Damage::Page { page: PageId(self.locations.len() as u64) });
        }
        let vos = &mut self.vos;
        vos.pool.load_map(vos.reserved_ids, &self.locations);
        vos.map.maps = std::mem::take(&mut self.maps);
        let tables = vos.map.maps.iter().chain(&vos.map.directories);
        for (i, &place) in self.locations.iter().chain(tables).enumerate() {
            if place != 0 && !vos.space.mark_page(BlockAddr(place)) {
                return Err(Damage::Page { page: PageId(i as u64) });
            }
        }
        let groups = self.locations.iter().take(vos.reserved_ids as usize);
        Ok(groups.map(|&a| BlockAddr(a)).collect())
    }

    /// Takes in the page of group `index` of the space map.
    pub fn group(&mut self, index: usize, bytes: &[u8]) -> Result<(), Damage> {
        let id = PageId(index as u64);
        let page = Page::decode(bytes, id).filter(|p| p.kind() == Some(PageKind::Space));
        let sound = page.is_some_and(|p| self.vos.space.load_group(index as u64, p.body()));
        if sound { Ok(()) } else { Err(Damage::Page { page: id }) }
    }

    /// The store as the checkpoint left it.
    pub fn finish(self) -> Vos {
        self.vos
    }
}

impl Vos {
    /// Reads the containers and prepared transactions; call until it stops missing pages, before anything else.
    pub fn load_containers(&mut self) -> Result<(), ReadError> {
        let (mut found, mut garbage) = (Vec::new(), false);
        let (start, end) = ([TABLE_CONTAINER], [TABLE_CONTAINER + 1]);
        tree::scan(&self.pool, self.root, &start, Some(&end), &mut |key, cell| {
            let id = key.get(1..).and_then(|k| k.try_into().ok()).map(ContainerId);
            let cid = id.ok_or_else(|| entry_damaged(TABLE_CONTAINER))?;
            let record = ContainerRecord::decode(tree::load_value(&self.pool, cell)?)?;
            found.push((cid, Container { record, stale: false }));
            Ok(std::ops::ControlFlow::Continue(()))
        })?;
        let (start, end) = ([TABLE_GARBAGE], [TABLE_GARBAGE + 1]);
        tree::scan(&self.pool, self.root, &start, Some(&end), &mut |_, _| {
            garbage = true;
            Ok(std::ops::ControlFlow::Break(()))
        })?;
        let uncounted = found.iter().any(|(_, c)| c.record.uncounted.is_some());
        self.containers = found.into_iter().collect();
        self.garbage = garbage || uncounted;
        self.shares = self.finds_shared()?;
        self.load_active()
    }
}

fn decode_places(bytes: &[u8], kind: PageKind, index: usize) -> Result<Vec<u64>, Damage> {
    let id = PageId(index as u64);
    let page = Page::decode(bytes, id).filter(|p| p.kind() == Some(kind));
    let page = page.ok_or(Damage::Page { page: id })?;
    Ok(page.body().as_chunks::<8>().0.iter().map(|c| u64::from_le_bytes(*c)).collect())
}

const _: () = assert!(GROUP_BLOCKS.is_multiple_of(64) && ROOT_LEN as u64 == BLOCK_SIZE);
