//! Work that nobody waits for: returning the space of punched trees, aggregation, and writing zeros ahead.
//!
//! The first write to a block of a file that was only reserved costs the file system a transaction of
//! its own; zeros written ahead take that off the path of clients.
//! Invariant: zeros go only where nothing lies and nothing is being written.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use spirula_vos::{BLOCK_SIZE, ContainerId, ObjectKey, StageError};
use spirula_xstream::{AlignedBuf, yield_now};

use crate::limits::{COLLECT_BUDGET, ZERO_AHEAD_BLOCKS, ZERO_BYTES};
use crate::{Store, StoreError};

/// Containers to be aggregated.
#[derive(Default)]
pub(crate) struct Aggregations {
    /// The horizon to use; a later request replaces it.
    wanted: BTreeMap<ContainerId, u64>,
    /// Objects of which it was put off.
    objects: BTreeMap<(ContainerId, ObjectKey), u64>,
    /// The one being aggregated, or the last one that was.
    last: Option<ContainerId>,
    running: bool,
}

impl Aggregations {
    /// An object may be aggregated now.
    pub(crate) fn add_object(&mut self, key: (ContainerId, ObjectKey), horizon: u64) {
        let wanted = self.objects.entry(key).or_insert(horizon);
        *wanted = horizon.max(*wanted);
    }

    fn take_object(&mut self) -> Option<((ContainerId, ObjectKey), u64)> {
        let next = self.objects.pop_first();
        self.running |= next.is_some();
        next
    }

    /// The next container, in turn.
    fn take(&mut self) -> Option<(ContainerId, u64)> {
        let from = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.wanted.range((from, Bound::Unbounded)).next();
        let next =
            next.or_else(|| self.wanted.iter().next()).map(|(cid, horizon)| (*cid, *horizon));
        if let Some((cid, _)) = next {
            self.wanted.remove(&cid);
            self.last = Some(cid);
        }
        self.running = next.is_some();
        next
    }
}

impl Store {
    /// Has a container aggregated in the background, as by [`Store::aggregate_container`]. The request is
    /// not kept over a restart: who moves the horizon asks again.
    pub fn aggregate_later(&self, cid: ContainerId, horizon: u64) {
        {
            let mut aggregations = self.inner.aggregations.borrow_mut();
            let wanted = aggregations.wanted.entry(cid).or_insert(horizon);
            *wanted = horizon.max(*wanted);
        }
        self.inner.aggregation_wanted.notify_one();
    }

    /// Waits until nothing is left of what [`Store::aggregate_later`] was asked for.
    pub async fn aggregated(&self) -> Result<(), StoreError> {
        loop {
            let notified = self.inner.progress.notified();
            if let Some(stopped) = self.stopped() {
                return Err(stopped);
            }
            {
                let aggregations = self.inner.aggregations.borrow();
                let waiting = !aggregations.wanted.is_empty() || !aggregations.objects.is_empty();
                if !waiting && !aggregations.running {
                    return Ok(());
                }
            }
            notified.await;
        }
    }

    /// The aggregation task.
    pub(crate) async fn run_aggregation(self) {
        while self.stopped().is_none() {
            let object = self.inner.aggregations.borrow_mut().take_object();
            let (cid, done) = if let Some(((cid, oid), horizon)) = object {
                (cid, self.aggregate_object(cid, &oid, horizon).await)
            } else {
                let next = self.inner.aggregations.borrow_mut().take();
                let Some((cid, horizon)) = next else {
                    self.inner.progress.notify_all();
                    self.inner.aggregation_wanted.notified().await;
                    continue;
                };
                (cid, self.aggregate_container(cid, horizon).await)
            };
            if let Err(e) = done
                && self.stopped().is_none()
            {
                // What is whole is served as before.
                let device = self.inner.device.path().display();
                tracing::error!(%device, "aggregation of {cid:?} ended early: {e}");
            }
        }
    }

    /// Makes available, as far as possible, everything that was deleted. For callers that were told
    /// there is no space: try again after this.
    pub async fn make_room(&self) -> Result<(), StoreError> {
        self.quiesce().await?;
        self.collect_all().await?;
        self.checkpoint().await?;
        if self.has_aging() {
            self.commit_marker().await?;
        }
        self.release_aged();
        Ok(())
    }

    pub(crate) async fn collect_all(&self) -> Result<(), StoreError> {
        while self.collect_step().await? {}
        Ok(())
    }

    /// The collection task.
    pub(crate) async fn run_collection(self) {
        loop {
            match self.collect_step().await {
                Ok(true) => {
                    if self.give_way().await.is_err() {
                        return;
                    }
                    continue;
                }
                Ok(false) => {}
                Err(e) => return self.stop(e),
            }
            if self.stopped().is_some() {
                return;
            }
            self.inner.garbage.notified().await;
        }
    }

    /// Removes some garbage; whether there may be more that can be removed now.
    async fn collect_step(&self) -> Result<bool, StoreError> {
        let mut budget = COLLECT_BUDGET;
        while self.stopped().is_none() && self.inner.vos.borrow().has_garbage() {
            let collected = self.inner.vos.borrow_mut().collect(budget);
            match collected {
                Ok(freed) => {
                    self.inner.vos.borrow_mut().evict();
                    self.inner.commit.borrow_mut().uncheckpointed.extend(freed);
                    if self.wants_checkpoint() {
                        self.inner.checkpoint_wanted.notify_one();
                    }
                    return Ok(true);
                }
                Err(StageError::Missing(pages)) => self.load_more(pages).await?,
                // Fewer entries change fewer pages. If there is no room even for one, it waits until
                // something else has returned space.
                Err(StageError::NoSpace) if budget > 1 => {
                    self.checkpoint().await?;
                    budget /= 4;
                }
                Err(StageError::Damaged(damage)) => return Err(damage.into()),
                Err(_) => return Ok(false),
            }
        }
        Ok(false)
    }

    fn wants_checkpoint(&self) -> bool {
        let vos = self.inner.vos.borrow();
        vos.wants_checkpoint() || vos.is_short_of_space()
    }

    /// The zeroing task: the WAL once, then the data region ahead of the allocator.
    pub(crate) async fn run_zeroing(self) {
        let zeros = AlignedBuf::zeroed(ZERO_BYTES as usize).freeze();
        if let Err(e) = self.zero_wal(&zeros).await {
            return self.stop(StoreError::Write(e.kind()));
        }
        while self.stopped().is_none() {
            let run = self.inner.vos.borrow_mut().take_unwritten(ZERO_AHEAD_BLOCKS);
            let Some((addr, len)) = run else {
                let notified = self.inner.progress.notified();
                notified.await;
                continue;
            };
            let bytes = zeros.slice(..((len * BLOCK_SIZE).min(ZERO_BYTES)) as usize);
            let result = self.inner.device.write(addr.byte_offset(), bytes).await;
            self.inner.vos.borrow_mut().return_unwritten((addr, len));
            if let Err(e) = result {
                return self.stop(StoreError::Write(e.kind()));
            }
        }
    }

    /// Zeros the part of the WAL that the writer has not reached yet.
    async fn zero_wal(&self, zeros: &Bytes) -> std::io::Result<()> {
        let mut at = 0;
        loop {
            {
                let mut state = self.inner.commit.borrow_mut();
                // Never where a batch is, or may be in flight.
                at = at.max(state.ring.reached()).max(state.wal_written);
                state.wal_written = at;
                if at >= state.ring.bytes() || state.stopped.is_some() {
                    state.zeroing = 0..0;
                    return Ok(());
                }
                state.zeroing = at..(at + ZERO_BYTES).min(state.ring.bytes());
            }
            let len = (self.inner.layout.wal_bytes - at).min(ZERO_BYTES);
            let piece = zeros.slice(..len as usize);
            self.inner.device.write_wal(at, piece).await?;
            self.inner.commit.borrow_mut().zeroing = 0..0;
            self.inner.progress.notify_all();
            at += len;
            yield_now().await;
        }
    }
}
