//! Formatting and opening: superblock, newest root, its pages, then replay of the WAL.
//!
//! Every opening ends with a checkpoint under a new WAL generation, so that nothing an earlier life left
//! in the WAL can be taken for a record of this one. Opening may be interrupted and repeated at will.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;
use spirula_bio::superblock::{ROOT_OFFSETS, WAL_BYTES, WAL_OFFSET, default_wal_bytes};
use spirula_bio::wal::{BATCH_BYTES_MAX, BatchHeader, HEADER_LEN, Ring};
use spirula_bio::{Device, DeviceSet, Devices, Layout, Role, Superblock, Volume};
use spirula_vos::{
    BLOCK_SIZE, BlockAddr, Config, Damage, Loader, PAGE_SIZE, Placed, ROOT_LEN, Record,
    ReplayError, Root, StageError, Vos, WalStart,
};
use spirula_xstream::sync::Notify;
use spirula_xstream::{AlignedBuf, Class, fill_random, spawn, wall_now};

use crate::cache::Cache;
use crate::commit::State;
use crate::limits::{REPLAY_LEVELS_MAX, REPLAY_WINDOW_BYTES, ZERO_BYTES};
use crate::read::{Reads, missing, read_error};
use crate::scrub;
use crate::{Counters, Inner, OpenError, Options, Store, StoreError};

/// What a device is formatted for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FormatOptions {
    /// Cluster.
    pub fsid: [u8; 16],
    /// OSD.
    pub osd_uuid: [u8; 16],
    /// OSD id.
    pub osd_id: i32,
    /// Bytes of the device to use; all of it if `None`.
    pub device_bytes: Option<u64>,
    /// Bytes of WAL; chosen by the size of the device if `None`.
    pub wal_bytes: Option<u64>,
}

/// Whose store is expected; what is `None` is not checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Expect {
    /// Cluster.
    pub fsid: Option<[u8; 16]>,
    /// OSD id.
    pub osd_id: Option<i32>,
}

impl Store {
    /// Writes an empty store to the device.
    pub async fn format(
        devices: impl Into<Devices>,
        options: &FormatOptions,
    ) -> Result<(), OpenError> {
        let devices = devices.into();
        let device = &devices.main;
        let bytes = device.bytes()?;
        let bytes = options.device_bytes.map_or(bytes, |b| b.min(bytes)) / BLOCK_SIZE * BLOCK_SIZE;
        let sb = Superblock {
            fsid: options.fsid,
            osd_uuid: options.osd_uuid,
            osd_id: options.osd_id,
            compatible: 0,
            device_bytes: bytes,
            wal_bytes: wal_bytes(&devices, options, bytes)? / BLOCK_SIZE * BLOCK_SIZE,
            set: device_set(&devices)?,
        };
        let layout = sb.layout();
        let volume = Volume::new(devices.clone(), &sb);
        let device = &volume;
        let failed = |source| OpenError::Store { path: device.path().into(), source };
        // Numbers go on from whatever store was here: nothing of it can then pass for ours.
        let old = newest_root(device.main()).await.map_err(failed)?.unwrap_or_default();
        let (first, end) = (layout.first_block, layout.end_block);
        let config = Config { pages: layout.pages, ..Config::default() };
        let mut vos = Vos::format(config, first, end, old.number);
        vos.set_written_upto(layout.first_block);
        let generation = old.wal.generation + 1;
        let store = Store::bare(device, layout, Options::default(), vos, generation, 1);
        // The root first: with a superblock the device counts as formatted.
        store.make_checkpoint().await.map_err(failed)?;
        if devices.wal.is_some() {
            store.wipe_wal().await.map_err(failed)?;
        }
        for (role, device) in devices.all() {
            let set = DeviceSet { role, ..sb.set };
            let device_bytes = if role == Role::Main { bytes } else { device.bytes()? };
            device.write_superblock(&Superblock { set, device_bytes, ..sb.clone() }).await?;
        }
        Ok(())
    }

    /// What an earlier store left in a WAL of its own, whose numbers may be any, is no batch of ours.
    async fn wipe_wal(&self) -> Result<(), StoreError> {
        let zeros = AlignedBuf::zeroed(ZERO_BYTES as usize).freeze();
        for at in (0..self.inner.layout.wal_bytes).step_by(ZERO_BYTES as usize) {
            let len = (self.inner.layout.wal_bytes - at).min(ZERO_BYTES) as usize;
            let written = self.inner.device.write_wal(at, zeros.slice(..len)).await;
            written.map_err(|e| StoreError::Write(e.kind()))?;
        }
        Ok(())
    }

    /// Opens the store of a device, replaying what the last checkpoint does not hold.
    pub async fn open(
        devices: impl Into<Devices>,
        expect: Expect,
        options: Options,
    ) -> Result<Store, OpenError> {
        let (volume, sb) = devices.into().open().await?;
        let device = &volume;
        check_owner(device, &sb, expect)?;
        let (store, _) = Store::recover(device, &sb, options).await?;
        let failed = |source| OpenError::Store { path: device.path().into(), source };
        store.inner.scrub.borrow_mut().start(wall_now());
        store.make_checkpoint().await.map_err(failed)?;
        let mut tasks = vec![
            spawn(Class::Client, store.clone().run_commits()),
            spawn(Class::Background, store.clone().run_checkpoints()),
            spawn(Class::Background, store.clone().run_collection()),
            spawn(Class::Background, store.clone().run_aggregation()),
            spawn(Class::Background, store.clone().run_scrub()),
            spawn(Class::Background, store.clone().run_trim()),
        ];
        if options.zero_ahead {
            tasks.push(spawn(Class::Background, store.clone().run_zeroing()));
        }
        store.inner.tasks.replace(tasks);
        Ok(store)
    }

    /// The state that the newest root and the WAL lead to, in memory: nothing is written. Also the
    /// number of the root.
    pub(crate) async fn recover(
        device: &Volume,
        sb: &Superblock,
        options: Options,
    ) -> Result<(Store, u64), OpenError> {
        let layout = sb.layout();
        let failed = |source| OpenError::Store { path: device.path().into(), source };
        let root = newest_root(device.main()).await.map_err(failed)?;
        let root = root.ok_or_else(|| OpenError::NoRoot { path: device.path().into() })?;
        let Options { pool_bytes, inline_threshold, .. } = options;
        let config = Config { pool_bytes, inline_threshold, pages: layout.pages };
        let (wal, number) = (root.wal, root.number);
        let (checkpointed, wal_written, scrubbed) = (root.seq, root.wal_written, root.scrubbed);
        let vos = load(device, layout, config, root).await.map_err(failed)?;
        let store = Store::bare(device, layout, options, vos, wal.generation + 1, 1);
        store.inner.commit.borrow_mut().wal_written = wal_written;
        store.inner.scrub.replace(scrub::State::new(scrubbed));
        if !options.zero_ahead {
            store.inner.vos.borrow_mut().set_written_upto(layout.end_block);
        }
        store.load_containers().await.map_err(failed)?;
        store.replay(wal, checkpointed).await?;
        Ok((store, number))
    }

    fn bare(
        device: &Volume,
        layout: Layout,
        options: Options,
        vos: Vos,
        generation: u64,
        next_batch: u64,
    ) -> Store {
        let ring = Ring::new(layout.wal_bytes, 0);
        let inner = Inner {
            device: device.clone(),
            layout,
            options,
            vos: RefCell::new(vos),
            commit: RefCell::new(State::new(ring, generation, next_batch)),
            reads: RefCell::new(Reads::default()),
            cache: RefCell::new(Cache::new(options.cache_bytes)),
            counters: Cell::new(Counters::default()),
            work: Notify::new(),
            checkpoint_wanted: Notify::new(),
            progress: Notify::new(),
            garbage: Notify::new(),
            aggregations: RefCell::default(),
            aggregation_wanted: Notify::new(),
            stills: RefCell::default(),
            trim: Cell::default(),
            trim_wanted: Notify::new(),
            scrub: RefCell::default(),
            scrub_wanted: Notify::new(),
            tasks: RefCell::default(),
        };
        Store { inner: Rc::new(inner) }
    }

    async fn load_containers(&self) -> Result<(), StoreError> {
        loop {
            let loaded = self.inner.vos.borrow_mut().load_containers();
            match loaded {
                Ok(()) => return Ok(()),
                Err(e) => self.load(missing(e)?).await?,
            }
        }
    }

    /// Applies the batches of the WAL that follow the checkpoint.
    async fn replay(&self, start: WalStart, checkpointed: u64) -> Result<(), OpenError> {
        let path = self.inner.device.path();
        let failed = |source| OpenError::Store { path: path.into(), source };
        let mut wal = WalReader::new(&self.inner.device, self.inner.layout);
        let (mut at, mut number) = (start.offset, start.batch);
        let mut batch = wal.next(at, start.generation, number, true).await.map_err(failed)?;
        while let Some(found) = batch {
            (at, number) = (found.next, number + 1);
            let next = wal.next(at, start.generation, number, found.whole);
            batch = next.await.map_err(failed)?;
            let mut records = Vec::with_capacity(found.records.len());
            for bytes in found.records {
                // Its checksum is right, so a crash did not do this.
                let record = Record::decode(bytes).map_err(|_| OpenError::Replay {
                    path: path.into(),
                    source: ReplayError::Contradiction { seq: self.inner.vos.borrow().seq() + 1 },
                })?;
                if record.seq > checkpointed {
                    records.push(record);
                }
            }
            if batch.is_none() {
                // Only of the last batch it is not known that its data was flushed.
                self.drop_unwritten(&mut records).await.map_err(failed)?;
            }
            self.load_ahead(&records).await.map_err(failed)?;
            for record in &records {
                self.replay_one(record).await.map_err(|source| match source {
                    Replay::Store(source) => failed(source),
                    Replay::Record(source) => OpenError::Replay { path: path.into(), source },
                })?;
            }
            self.count(|c| c.replayed += records.len() as u64);
        }
        Ok(())
    }

    /// Cuts the records off from the first one whose data is not on the device.
    async fn drop_unwritten(&self, records: &mut Vec<Record>) -> Result<(), StoreError> {
        for i in 0..records.len() {
            for placed in &records[i].placed {
                if !self.is_written(placed).await? {
                    records.truncate(i);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn is_written(&self, placed: &Placed) -> Result<bool, StoreError> {
        let blocks = u64::from(placed.len).div_ceil(BLOCK_SIZE);
        let Layout { first_block, end_block, .. } = self.inner.layout;
        let inside = placed.addr.0 >= first_block
            && placed.addr.0.checked_add(blocks).is_some_and(|end| end <= end_block);
        if !inside {
            return Ok(false);
        }
        let (offset, len) = (placed.addr.byte_offset(), (blocks * BLOCK_SIZE) as usize);
        let bytes = self.inner.device.read(offset, len).await;
        let bytes = bytes.map_err(|e| read_error(offset, len as u64, &e))?;
        let data = &bytes[..placed.len as usize];
        let crcs = data.chunks(BLOCK_SIZE as usize).map(crc32c::crc32c);
        Ok(crcs.eq(placed.crcs.iter().copied()))
    }

    /// Loads what a batch will need, level by level of the tree: page after page would take the
    /// device's latency for each record. What it lacks then, its replay asks for.
    async fn load_ahead(&self, records: &[Record]) -> Result<(), StoreError> {
        for _ in 0..REPLAY_LEVELS_MAX {
            let missing = self.inner.vos.borrow().missing_for(records);
            if missing.is_empty() {
                break;
            }
            self.load_more(missing).await?;
        }
        Ok(())
    }

    async fn replay_one(&self, record: &Record) -> Result<(), Replay> {
        loop {
            let result = self.inner.vos.borrow_mut().replay(record);
            match result {
                Ok(()) => {
                    self.inner.vos.borrow_mut().evict();
                    break;
                }
                Err(ReplayError::Stage(StageError::Missing(pages))) => {
                    self.load_more(pages).await.map_err(Replay::Store)?;
                }
                Err(e) => return Err(Replay::Record(e)),
            }
        }
        Ok(())
    }
}

enum Replay {
    Store(StoreError),
    Record(ReplayError),
}

/// Bytes of the WAL: what its device has, if it has one of its own.
fn wal_bytes(
    devices: &Devices,
    options: &FormatOptions,
    main_bytes: u64,
) -> Result<u64, OpenError> {
    let room = match &devices.wal {
        Some(wal) => (wal.bytes()? - WAL_OFFSET).min(WAL_BYTES.1),
        None => default_wal_bytes(main_bytes),
    };
    Ok(options
        .wal_bytes
        .map_or(room, |wish| if devices.wal.is_some() { wish.min(room) } else { wish }))
}

/// What the superblocks say of the set; nothing for a single device.
fn device_set(devices: &Devices) -> Result<DeviceSet, OpenError> {
    let mut set = DeviceSet::default();
    if devices.wal.is_none() && devices.meta.is_none() {
        return Ok(set);
    }
    fill_random(&mut set.uuid);
    set.wal = devices.wal.is_some();
    if let Some(meta) = &devices.meta {
        set.meta_bytes = meta.bytes()? / BLOCK_SIZE * BLOCK_SIZE;
    }
    Ok(set)
}

fn check_owner(device: &Volume, sb: &Superblock, expect: Expect) -> Result<(), OpenError> {
    let path = || device.path().into();
    match (expect.fsid, expect.osd_id) {
        (Some(expected), _) if expected != sb.fsid => {
            Err(OpenError::OtherCluster { path: path(), found: sb.fsid, expected })
        }
        (_, Some(expected)) if expected != sb.osd_id => {
            Err(OpenError::OtherOsd { path: path(), found: sb.osd_id, expected })
        }
        _ => Ok(()),
    }
}

/// The valid root with the highest number.
async fn newest_root(device: &Device) -> Result<Option<Root>, StoreError> {
    let mut newest: Option<Root> = None;
    for offset in ROOT_OFFSETS {
        let block = device.read(offset, ROOT_LEN).await;
        let block = block.map_err(|e| read_error(offset, ROOT_LEN as u64, &e))?;
        if let Some(root) = Root::decode(&block)
            && newest.as_ref().is_none_or(|n| n.number < root.number)
        {
            newest = Some(root);
        }
    }
    Ok(newest)
}

pub(crate) async fn load(
    device: &Volume,
    layout: Layout,
    config: Config,
    root: Root,
) -> Result<Vos, StoreError> {
    let mut loader = Loader::new(config, root, (layout.first_block, layout.end_block))?;
    for (i, addr) in loader.directories().into_iter().enumerate() {
        if let Some(page) = read_page(device, layout, addr).await? {
            loader.directory(i, &page)?;
        }
    }
    for (i, addr) in loader.maps().into_iter().enumerate() {
        let page = read_page(device, layout, addr).await?;
        loader.map(i, page.as_deref())?;
    }
    for (i, addr) in loader.space()?.into_iter().enumerate() {
        if let Some(page) = read_page(device, layout, addr).await? {
            loader.group(i, &page)?;
        }
    }
    Ok(loader.finish())
}

async fn read_page(
    device: &Volume,
    layout: Layout,
    addr: BlockAddr,
) -> Result<Option<Bytes>, StoreError> {
    if addr.0 == 0 {
        return Ok(None);
    }
    if addr.0 < layout.first_block || addr.0 >= layout.end_block {
        return Err(Damage::Data { addr }.into());
    }
    let offset = addr.byte_offset();
    let page = device.read(offset, PAGE_SIZE).await;
    page.map(|p| Some(p.freeze())).map_err(|e| read_error(offset, PAGE_SIZE as u64, &e))
}

/// A batch found in the WAL.
struct Found {
    records: Vec<Bytes>,
    /// Every record is intact.
    whole: bool,
    /// Where the next batch is expected.
    next: u64,
}

/// Reads the WAL region through a window.
struct WalReader<'a> {
    device: &'a Volume,
    layout: Layout,
    window: Bytes,
    window_at: u64,
}

impl<'a> WalReader<'a> {
    fn new(device: &'a Volume, layout: Layout) -> WalReader<'a> {
        WalReader { device, layout, window: Bytes::new(), window_at: 0 }
    }

    /// The batch of this number, unless the one before it is not `whole`. If there is none, there must be no
    /// later one: a batch is written after the one before it was flushed, so only the last can be torn.
    async fn next(
        &mut self,
        at: u64,
        generation: u64,
        number: u64,
        whole: bool,
    ) -> Result<Option<Found>, StoreError> {
        if whole && let Some(found) = self.find(at, generation, number).await? {
            return Ok(Some(found));
        }
        match self.has_later(at, generation, number).await? {
            true => Err(Damage::Wal { batch: number - u64::from(!whole) }.into()),
            false => Ok(None),
        }
    }

    /// Whether a batch of this number or a later one begins where the one after `at` could.
    async fn has_later(
        &mut self,
        at: u64,
        generation: u64,
        number: u64,
    ) -> Result<bool, StoreError> {
        let reach = self.layout.wal_bytes / 4 + 2 * BATCH_BYTES_MAX as u64;
        let end = (at + reach).min(self.layout.wal_bytes);
        let wrapped = if at + reach > end { reach.min(at) } else { 0 };
        let blocks = (at..end).chain(0..wrapped).step_by(BLOCK_SIZE as usize);
        for offset in blocks {
            let header = BatchHeader::decode(&self.bytes(offset, BLOCK_SIZE).await?);
            if header.is_some_and(|h| h.generation == generation && h.number >= number) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The batch of this number, at `at` or at the start of the region.
    async fn find(
        &mut self,
        at: u64,
        generation: u64,
        number: u64,
    ) -> Result<Option<Found>, StoreError> {
        for offset in [at, 0] {
            if offset + BLOCK_SIZE > self.layout.wal_bytes {
                continue;
            }
            let block = self.bytes(offset, BLOCK_SIZE).await?;
            let Some(header) = BatchHeader::decode(&block) else {
                continue;
            };
            let fits = header.batch_len() <= self.layout.wal_bytes - offset;
            if header.generation != generation || header.number != number || !fits {
                continue;
            }
            let batch = self.bytes(offset, header.batch_len()).await?;
            let body = batch.slice(HEADER_LEN..HEADER_LEN + header.body_len as usize);
            let (records, whole) = header.records(&body);
            let end = offset + header.batch_len();
            let next = if end == self.layout.wal_bytes { 0 } else { end };
            return Ok(Some(Found { records, whole, next }));
        }
        Ok(None)
    }

    async fn bytes(&mut self, offset: u64, len: u64) -> Result<Bytes, StoreError> {
        let inside =
            offset >= self.window_at && offset + len <= self.window_at + self.window.len() as u64;
        if !inside {
            let want = len.max(REPLAY_WINDOW_BYTES).min(self.layout.wal_bytes - offset);
            let read = self.device.read_wal(offset, want as usize).await;
            let at = WAL_OFFSET + offset;
            self.window = read.map_err(|e| read_error(at, want, &e))?.freeze();
            self.window_at = offset;
        }
        let start = (offset - self.window_at) as usize;
        Ok(self.window.slice(start..start + len as usize))
    }
}
