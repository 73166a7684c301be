//! One VOS target on one xstream: joins the logic of `spirula-vos` with the device of `spirula-bio`.
//!
//! [`Store`] is a handle; clones are the same store. Getters: [`Store::statfs`]. Reads: [`Store::read`]
//! runs a closure until its pages are in memory; [`Store::read_data`] fetches extents. Writes:
//! [`Store::admit`] waits for room, [`Store::reserve`] holds it, [`Store::submit`] stages at once and never waits, [`Commit`] resolves
//! when the transaction is durable. Health: [`Store::scrub_later`], [`Store::scrub_status`]. Life: [`Store::format`], [`Store::open`], [`Store::close`].
//! [`Offline`] looks at a store and writes nothing.
//!
//! Invariants:
//! - A WAL record carries the checksums of the data it names; a flush begins when the batch and all its
//!   data are written, and the next batch after it. One flush is in flight, what becomes ready meanwhile
//!   goes with the next.
//! - Records of one container are in the WAL in the order of their submission.
//! - A failed write or flush stops the store: nothing is acknowledged afterwards.
#![forbid(unsafe_code)]

mod aggregate;
mod background;
mod cache;
mod check;
mod checkpoint;
mod commit;
mod data;
mod discard;
mod error;
mod limits;
mod merge;
mod offline;
mod open;
mod pace;
mod prepared;
mod read;
mod reserve;
mod scrub;
mod still;
mod trim;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use spirula_bio::{Layout, Volume};
use spirula_vos::{BLOCK_SIZE, Config, Fragmentation, PAGE_SIZE, Vos};
use spirula_xstream::JoinHandle;
use spirula_xstream::sync::Notify;

use crate::limits::CACHE_BYTES;

pub use check::{CheckFailure, CheckReport, check};
pub use commit::Commit;
pub use error::{OpenError, ReserveError, StoreError};
pub use offline::{Offline, OfflineStat};
pub use open::{Expect, FormatOptions};
pub use read::Data;
pub use reserve::Reservation;
pub use scrub::{Corruption, ScrubReport, ScrubStatus};
pub use spirula_bio::{Devices, Faults};
pub use still::Still;

/// What the caller decides about an open store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Bound of the metadata buffer pool.
    pub pool_bytes: usize,
    /// Bound of the cache of data.
    pub cache_bytes: usize,
    /// Array writes shorter than this go inline with metadata and WAL.
    pub inline_threshold: u32,
    /// Write zeros ahead of the WAL and the allocator: right for files, useless in memory.
    pub zero_ahead: bool,
}

impl Default for Options {
    fn default() -> Options {
        let Config { pool_bytes, inline_threshold, .. } = Config::default();
        Options { pool_bytes, cache_bytes: CACHE_BYTES, inline_threshold, zero_ahead: true }
    }
}

/// Space of a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Statfs {
    /// Bytes for data and metadata.
    pub total: u64,
    /// Bytes in use.
    pub used: u64,
    /// Bytes that can still be written.
    pub available: u64,
    /// Bytes of data on the device.
    pub stored: u64,
    /// Bytes of metadata on the device.
    pub metadata: u64,
    /// Objects.
    pub objects: u64,
}

/// What the store has done since it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Transactions that became durable.
    pub commits: u64,
    /// WAL batches: commits per batch is the group size.
    pub batches: u64,
    /// Bytes written to the WAL.
    pub wal_bytes: u64,
    /// Bytes written to data blocks.
    pub data_bytes: u64,
    /// Checkpoints.
    pub checkpoints: u64,
    /// Pages written by checkpoints.
    pub pages_written: u64,
    /// Pages read.
    pub pages_read: u64,
    /// Transactions replayed when the store was opened.
    pub replayed: u64,
    /// Bytes that the device was told to be free.
    pub trimmed_bytes: u64,
    /// Scrubs that ended.
    pub scrubs: u64,
    /// Bytes that scrubs read.
    pub scrub_bytes: u64,
    /// Pages and extents that scrubs found to be damaged.
    pub scrub_errors: u64,
}

/// A handle of an open store; see the crate's text.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Rc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) device: Volume,
    pub(crate) layout: Layout,
    pub(crate) options: Options,
    pub(crate) vos: RefCell<Vos>,
    pub(crate) commit: RefCell<commit::State>,
    pub(crate) reads: RefCell<read::Reads>,
    pub(crate) cache: RefCell<cache::Cache>,
    pub(crate) counters: Cell<Counters>,
    /// Something is ready for the WAL, or the commit task should end.
    pub(crate) work: Notify,
    /// A checkpoint is wanted, or its task should end.
    pub(crate) checkpoint_wanted: Notify,
    /// Room, quiet or a checkpoint has come about.
    pub(crate) progress: Notify,
    /// Garbage may have come about.
    pub(crate) garbage: Notify,
    /// Containers to be aggregated.
    pub(crate) aggregations: RefCell<background::Aggregations>,
    /// There are some, or their task should end.
    pub(crate) aggregation_wanted: Notify,
    /// Objects that must not be aggregated now.
    pub(crate) stills: RefCell<still::Stills>,
    /// Whether the device is told of free space.
    pub(crate) trim: Cell<trim::Trim>,
    /// It may be told now, or the task should end.
    pub(crate) trim_wanted: Notify,
    pub(crate) scrub: RefCell<scrub::State>,
    /// A scrub is wanted or its interval has changed, or its task should end.
    pub(crate) scrub_wanted: Notify,
    /// Everything that runs as long as the store is open.
    pub(crate) tasks: RefCell<Vec<JoinHandle<()>>>,
}

impl Statfs {
    /// Bytes of metadata for each object; `None` without objects.
    pub fn metadata_per_object(&self) -> Option<f64> {
        (self.objects > 0).then(|| self.metadata as f64 / self.objects as f64)
    }
}

impl Store {
    /// Space in use and left.
    pub fn statfs(&self) -> Statfs {
        let stats = self.inner.vos.borrow().stats();
        let total = stats.total_blocks * BLOCK_SIZE;
        let metadata = stats.pages * PAGE_SIZE as u64;
        let stored = stats.data_blocks * BLOCK_SIZE;
        let available = (stats.available_blocks + stats.aging_blocks) * BLOCK_SIZE;
        Statfs {
            total,
            used: (stored + metadata).min(total),
            available: available.min(total),
            stored,
            metadata,
            objects: stats.objects,
        }
    }

    /// How the free space is divided; it looks at all of it.
    pub fn fragmentation(&self) -> Fragmentation {
        self.inner.vos.borrow().fragmentation()
    }

    /// What was done since the store was opened.
    pub fn counters(&self) -> Counters {
        self.inner.counters.get()
    }

    /// Waits for what was submitted, makes a checkpoint, and ends the store's tasks.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.quiesce().await?;
        self.checkpoint().await?;
        self.stop(StoreError::Closed);
        let tasks = self.inner.tasks.take();
        for task in tasks {
            // A task that was cancelled has ended, too.
            let _ = task.await;
        }
        Ok(())
    }

    /// Sets the bound of the cache of data.
    pub fn set_cache_bytes(&self, bytes: usize) {
        self.inner.cache.borrow_mut().set_bytes_max(bytes);
    }

    /// Drops every clean page from memory: tests use it to make all reads go to the device.
    pub fn drop_caches(&self) {
        self.inner.vos.borrow_mut().evict_all();
        self.inner.cache.borrow_mut().clear();
    }

    /// Puts faults into the device, for tests that must find them.
    pub fn set_faults(&self, faults: Faults) {
        self.inner.device.set_faults(faults);
    }

    pub(crate) fn count(&self, f: impl FnOnce(&mut Counters)) {
        let mut counters = self.inner.counters.get();
        f(&mut counters);
        self.inner.counters.set(counters);
    }
}
