//! Reads: metadata pages on demand, and the data of extents.
//!
//! Invariant: bytes from the device are returned only after their checksum was verified. Blocks are not
//! reused while a read that may look at them is under way, however long it takes: a read counts from its
//! call, and what records or checkpoints free meanwhile waits for it.

use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::future::join_all;
use spirula_crc::{CHUNK_LEN, append_chunk};
use spirula_vos::{
    BLOCK_SIZE, Damage, DeviceExtent, Extent, PAGE_SIZE, PageId, ReadError, Run, Vos,
};

use crate::limits::{CACHED_BYTES_MAX, LOAD_ROUNDS_MAX, LOADS_IN_FLIGHT_MAX, READ_RUN_BYTES_MAX};
use crate::{Inner, Store, StoreError};

/// Reads of the device under way.
#[derive(Default)]
pub(crate) struct Reads {
    next: u64,
    running: BTreeSet<u64>,
    /// Blocks that checkpoints freed, each with the read that is the first not to look at them.
    held: VecDeque<(Vec<Run>, u64)>,
}

impl Reads {
    /// The number the next read gets.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    pub(crate) fn is_running(&self) -> bool {
        !self.running.is_empty()
    }

    /// The oldest read under way, or the next one.
    pub(crate) fn oldest(&self) -> u64 {
        self.running.first().copied().unwrap_or(self.next)
    }

    /// Keeps freed blocks until all reads that have begun are done.
    pub(crate) fn hold(&mut self, freed: Vec<Run>) {
        self.held.push_back((freed, self.next));
    }

    pub(crate) fn holds_any(&self) -> bool {
        !self.held.is_empty()
    }

    fn take_unread(&mut self) -> Option<Vec<Run>> {
        let (_, first) = self.held.front()?;
        if *first > self.oldest() {
            return None;
        }
        self.held.pop_front().map(|(runs, _)| runs)
    }
}

impl Inner {
    /// Makes available what checkpoints freed and no read can look at any more.
    pub(crate) fn release_unread(&self, vos: &mut Vos) {
        while let Some(runs) = self.reads.borrow_mut().take_unread() {
            vos.release(&runs);
        }
    }
}

/// Ends a read when dropped.
pub(crate) struct Reading {
    inner: Rc<Inner>,
    number: u64,
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut reads = self.inner.reads.borrow_mut();
        reads.running.remove(&self.number);
        if !reads.holds_any() {
            return;
        }
        drop(reads);
        // Nobody drops a read while the store is borrowed, but if so the next one does this.
        if let Ok(mut vos) = self.inner.vos.try_borrow_mut() {
            self.inner.release_unread(&mut vos);
        }
        self.inner.progress.notify_all();
    }
}

impl Store {
    /// Runs `f` until all pages it asks for are in memory. It may run several times.
    pub async fn read<T>(
        &self,
        mut f: impl FnMut(&Vos) -> Result<T, ReadError>,
    ) -> Result<T, StoreError> {
        for _ in 0..LOAD_ROUNDS_MAX {
            match self.try_read(&mut f) {
                Ok(out) => return Ok(out),
                Err(e) => self.load(missing(e)?).await?,
            }
        }
        Err(StoreError::PoolTooSmall)
    }

    /// Runs `f` once.
    pub fn try_read<T>(
        &self,
        f: impl FnOnce(&Vos) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        f(&self.inner.vos.borrow())
    }

    /// Brings pages into memory.
    pub async fn load(&self, pages: Vec<PageId>) -> Result<(), StoreError> {
        self.inner.vos.borrow_mut().evict();
        self.load_more(pages).await
    }

    /// As [`Store::load`], beyond the bound of the pool: for work that is tried again and again with
    /// more pages each time, which must not lose those it had.
    pub(crate) async fn load_more(&self, pages: Vec<PageId>) -> Result<(), StoreError> {
        for some in pages.chunks(LOADS_IN_FLIGHT_MAX) {
            let _reading = self.begin_read();
            let loads: Vec<_> = {
                let vos = self.inner.vos.borrow();
                let place = |&id: &PageId| Some((id, vos.location(id)?));
                some.iter().filter_map(place).collect()
            };
            let reads = loads.iter().map(|(_, addr)| {
                let offset = addr.byte_offset();
                let read = self.inner.device.read(offset, PAGE_SIZE);
                async move { read.await.map_err(|e| read_error(offset, PAGE_SIZE as u64, &e)) }
            });
            let read = join_all(reads).await;
            self.count(|c| c.pages_read += loads.len() as u64);
            let mut vos = self.inner.vos.borrow_mut();
            for ((id, addr), bytes) in loads.into_iter().zip(read) {
                vos.install(id, addr, &bytes?)?;
            }
        }
        Ok(())
    }

    /// The bytes of the extents, in order; holes give zeros. Call it with the extents of a read that has
    /// just returned, with no await in between: their blocks stay what they are from the call on.
    pub fn read_data(
        &self,
        extents: &[Extent],
    ) -> impl Future<Output = Result<Data, StoreError>> + use<> {
        let reading = self.begin_read();
        let mut parts = Vec::with_capacity(extents.len());
        let mut rest = extents;
        while let Some(first) = rest.first() {
            let run = run_len(rest);
            parts.push(match first {
                Extent::Hole { len, .. } => Part::Ready(zeros(*len as usize)),
                Extent::Inline { data, .. } => Part::Ready(data.clone()),
                Extent::Device(_) => Part::Device(self.read_run(&rest[..run])),
            });
            rest = &rest[run..];
        }
        let store = self.clone();
        async move {
            let mut out = Data::default();
            for part in parts {
                match part {
                    Part::Ready(bytes) => out.push(bytes),
                    Part::Device(read) => {
                        let run = read.await?;
                        store.cache_read(&run);
                        run.into_iter().for_each(|(e, blocks)| out.push_verified(&e, blocks));
                    }
                }
            }
            drop(reading);
            Ok(out)
        }
    }

    /// The bytes of the extents, as [`Store::read_data`] gives them, if no I/O is needed for that.
    pub fn cached_data(&self, extents: &[Extent]) -> Option<Data> {
        let mut cache = self.inner.cache.borrow_mut();
        let mut out = Data::default();
        for extent in extents {
            match extent {
                Extent::Hole { len, .. } => out.push(zeros(*len as usize)),
                Extent::Inline { data, .. } => out.push(data.clone()),
                Extent::Device(extent) => out.push_verified(extent, cache.get(extent)?),
            }
        }
        Some(out)
    }

    /// Only what has a buffer of its own is cached: a part would keep the whole buffer in memory.
    fn cache_read(&self, run: &[(DeviceExtent, Bytes)]) {
        if let [(extent, blocks)] = run
            && blocks.len() as u64 <= CACHED_BYTES_MAX
        {
            self.inner.cache.borrow_mut().offer(extent, blocks);
        }
    }

    pub(crate) fn begin_read(&self) -> Reading {
        let mut reads = self.inner.reads.borrow_mut();
        let number = reads.next;
        reads.next += 1;
        reads.running.insert(number);
        Reading { inner: self.inner.clone(), number }
    }

    /// Reads, and verifies, the blocks of extents that lie one after the other on the device, as one
    /// request.
    fn read_run(
        &self,
        run: &[Extent],
    ) -> impl Future<Output = Result<Vec<(DeviceExtent, Bytes)>, StoreError>> + use<> {
        let run: Vec<DeviceExtent> = run.iter().filter_map(device).cloned().collect();
        let offset = run.first().map_or(0, |e| e.addr.byte_offset());
        let len = run.iter().map(|e| e.block_count() * BLOCK_SIZE).sum::<u64>() as usize;
        let read = self.inner.device.read(offset, len);
        async move {
            let bytes = read.await.map_err(|e| read_error(offset, len as u64, &e))?.freeze();
            let mut at = 0;
            let blocks_of = |extent: DeviceExtent| {
                let len = (extent.block_count() * BLOCK_SIZE) as usize;
                let blocks = bytes.slice(at..at + len);
                at += len;
                verify(&extent, &blocks)?;
                Ok((extent, blocks))
            };
            run.into_iter().map(blocks_of).collect()
        }
    }
}

/// How many extents at the front one request can read: one, or neighbours on the device.
fn run_len(extents: &[Extent]) -> usize {
    let (mut len, mut bytes) = (1, 0);
    for pair in extents.windows(2) {
        let [Extent::Device(a), Extent::Device(b)] = pair else { break };
        bytes += a.block_count() * BLOCK_SIZE;
        let joined = a.addr.0 + a.block_count() == b.addr.0;
        if !joined || bytes + b.block_count() * BLOCK_SIZE > READ_RUN_BYTES_MAX {
            break;
        }
        len += 1;
    }
    len
}

fn device(extent: &Extent) -> Option<&DeviceExtent> {
    match extent {
        Extent::Device(extent) => Some(extent),
        _ => None,
    }
}

enum Part<F> {
    Ready(Bytes),
    Device(F),
}

/// Bytes that were read, and verified if they came from the device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Data {
    /// The bytes, in order.
    pub pieces: Vec<Bytes>,
    /// CRC-32C of all of them.
    pub crc: u32,
}

impl Data {
    /// Adds bytes at the end.
    pub fn push(&mut self, bytes: Bytes) {
        self.crc = crc32c::crc32c_append(self.crc, &bytes);
        self.pieces.push(bytes);
    }

    /// Adds the bytes of an extent whose blocks have been verified.
    fn push_verified(&mut self, extent: &DeviceExtent, blocks: Bytes) {
        let start = usize::from(extent.skip);
        let bytes = blocks.slice(start..start + extent.len as usize);
        let whole = if start == 0 { bytes.len() / CHUNK_LEN } else { 0 };
        for crc in extent.crcs.iter().take(whole) {
            self.crc = append_chunk(self.crc, *crc);
        }
        self.crc = crc32c::crc32c_append(self.crc, &bytes[whole * CHUNK_LEN..]);
        self.pieces.push(bytes);
    }

    /// Bytes in all pieces.
    pub fn len(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All bytes in one piece.
    pub fn concat(&self) -> Vec<u8> {
        self.pieces.concat()
    }
}

/// Checks every block of an extent.
pub(crate) fn verify(extent: &DeviceExtent, bytes: &[u8]) -> Result<(), Damage> {
    let last = extent.crcs.len().saturating_sub(1);
    for (i, block) in bytes.chunks(BLOCK_SIZE as usize).enumerate() {
        let covered = if i == last { usize::from(extent.tail) } else { block.len() };
        if extent.crcs.get(i) != Some(&crc32c::crc32c(&block[..covered])) {
            let addr = spirula_vos::BlockAddr(extent.addr.0 + i as u64);
            return Err(Damage::Data { addr });
        }
    }
    Ok(())
}

/// The pages that would answer a read; the error if that is not what it lacks.
pub(crate) fn missing(e: ReadError) -> Result<Vec<PageId>, StoreError> {
    Err(match e {
        ReadError::Missing(pages) => return Ok(pages),
        ReadError::EpochTooOld { epoch, horizon } => StoreError::EpochTooOld { epoch, horizon },
        ReadError::InProgress { id } => StoreError::InProgress { id },
        ReadError::Restart(restart) => StoreError::Restart(restart),
        ReadError::Damaged(damage) => StoreError::Damaged(damage),
    })
}

pub(crate) fn read_error(offset: u64, len: u64, e: &std::io::Error) -> StoreError {
    StoreError::Read { offset, len, kind: e.kind() }
}

fn zeros(len: usize) -> Bytes {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    match ZEROS.get(..len) {
        Some(zeros) => Bytes::from_static(zeros),
        None => Bytes::from(vec![0; len]),
    }
}
