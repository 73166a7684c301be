//! Reads: metadata pages on demand, and the data of extents.
//!
//! Invariant: bytes from the device are returned only after their checksum was verified. Blocks are not
//! reused while a read that may look at them is under way: a read counts from its call.

use std::collections::BTreeSet;
use std::future::Future;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::future::join_all;
use spirula_vos::{BLOCK_SIZE, Damage, DeviceExtent, Extent, PAGE_SIZE, PageId, ReadError, Vos};

use crate::limits::{LOAD_ROUNDS_MAX, LOADS_IN_FLIGHT_MAX};
use crate::{Inner, Store, StoreError};

/// Data reads under way.
#[derive(Default)]
pub(crate) struct Reads {
    next: u64,
    running: BTreeSet<u64>,
}

impl Reads {
    /// The number the next read gets.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// The oldest read under way, or the next one.
    pub(crate) fn oldest(&self) -> u64 {
        self.running.first().copied().unwrap_or(self.next)
    }
}

/// Ends a read when dropped.
struct Reading {
    inner: Rc<Inner>,
    number: u64,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.inner.reads.borrow_mut().running.remove(&self.number);
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
                Err(ReadError::Damaged(damage)) => return Err(damage.into()),
                Err(ReadError::Missing(pages)) => self.load(pages).await?,
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
        for some in pages.chunks(LOADS_IN_FLIGHT_MAX) {
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

    /// The bytes of each extent, in order; holes give zeros. Call it with the extents of a read that has
    /// just returned, with no await in between: their blocks stay what they are from the call on.
    pub fn read_data(
        &self,
        extents: &[Extent],
    ) -> impl Future<Output = Result<Vec<Bytes>, StoreError>> + use<> {
        let reading = self.begin_read();
        let parts: Vec<_> = extents.iter().map(|e| self.read_extent(e)).collect();
        async move {
            let mut out = Vec::with_capacity(parts.len());
            for part in parts {
                out.push(match part {
                    Part::Ready(bytes) => bytes,
                    Part::Device(read) => read.await?,
                });
            }
            drop(reading);
            Ok(out)
        }
    }

    fn begin_read(&self) -> Reading {
        let mut reads = self.inner.reads.borrow_mut();
        let number = reads.next;
        reads.next += 1;
        reads.running.insert(number);
        Reading { inner: self.inner.clone(), number }
    }

    fn read_extent(
        &self,
        extent: &Extent,
    ) -> Part<impl Future<Output = Result<Bytes, StoreError>> + use<>> {
        match extent {
            Extent::Hole { len, .. } => Part::Ready(zeros(*len as usize)),
            Extent::Inline { data, .. } => Part::Ready(data.clone()),
            Extent::Device(extent) => {
                let offset = extent.addr.byte_offset();
                let len = (extent.block_count() * BLOCK_SIZE) as usize;
                let (read, extent) = (self.inner.device.read(offset, len), extent.clone());
                Part::Device(async move {
                    let bytes = read.await.map_err(|e| read_error(offset, len as u64, &e))?;
                    verify(&extent, &bytes)?;
                    let start = usize::from(extent.skip);
                    Ok(bytes.freeze().slice(start..start + extent.len as usize))
                })
            }
        }
    }
}

enum Part<F> {
    Ready(Bytes),
    Device(F),
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
