//! Commit: data and WAL records, then one flush for all that are ready.
//!
//! A submitted transaction waits for the transactions before it in each of its containers, and for its
//! data if that is large; then it is *ready*. The commit task takes all that are ready, writes their
//! records as one batch, with their small data beside it, flushes when both are written, and
//! acknowledges them.
//! Invariants: a flush begins after all data of its batch is written, and the next batch is written
//! after the flush, so only the last batch found can lack data. Blocks freed by a transaction are reused
//! only after a batch later than its own is durable. So when replay checks the data of the last batch,
//! nothing newer can lie in its place.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use foldhash::HashMap;
use spirula_bio::wal::{self, BATCH_BYTES_MAX, RECORD_HEADER_LEN, Ring};
use spirula_vos::{ContainerId, Cursor, DataWrite, Run, StageError, Staged, Tx, Vos};
use spirula_xstream::settle;
use spirula_xstream::sync::{OneshotReceiver, OneshotSender, oneshot};

use crate::limits::{HELD_BYTES_MAX, QUEUED_BYTES_MAX};
use crate::{Store, StoreError};

/// Resolves when the transaction is durable. Dropping it changes nothing.
pub struct Commit {
    wait: OneshotReceiver<Result<(), StoreError>>,
}

impl Future for Commit {
    type Output = Result<(), StoreError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.wait).poll(cx).map(|r| r.unwrap_or(Err(StoreError::Closed)))
    }
}

/// A transaction between submission and durability.
pub(crate) struct Pending {
    pub(crate) seq: u64,
    record: Vec<u8>,
    /// Small data, to be written beside the batch with the record.
    pub(crate) held: Vec<DataWrite>,
    containers: Vec<ContainerId>,
    freed: Vec<Run>,
    /// Large data being written (0 or 1) and transactions before it.
    blockers: usize,
    /// Bytes of the WAL that were reserved for it.
    reserved: u64,
    done: OneshotSender<Result<(), StoreError>>,
}

/// Freed blocks waiting to be reused.
struct Aging {
    runs: Vec<Run>,
    /// The batch with the record that freed them.
    batch: u64,
    /// Reads that began before this one may still look at them.
    reads_before: u64,
}

/// State of the commit side; never borrowed across an await.
pub(crate) struct State {
    pub(crate) ring: Ring,
    pub(crate) generation: u64,
    /// Number of the next batch.
    pub(crate) next_batch: u64,
    pub(crate) stopped: Option<StoreError>,
    pub(crate) pending: HashMap<u64, Pending>,
    chains: HashMap<ContainerId, VecDeque<u64>>,
    ready: VecDeque<u64>,
    pub(crate) queued_bytes: usize,
    /// Bytes of the WAL kept for reservations, and what was submitted with them.
    pub(crate) reserved: u64,
    /// Transactions whose data has not been written, oldest first.
    pub(crate) writing: std::collections::BTreeSet<u64>,
    aging: VecDeque<Aging>,
    /// Freed blocks that wait for the next checkpoint to begin.
    pub(crate) uncheckpointed: Vec<Run>,
    /// Checkpoints begun and finished.
    pub(crate) checkpoints: (u64, u64),
    /// Part of the WAL region being zeroed.
    pub(crate) zeroing: std::ops::Range<u64>,
    /// Bytes of the WAL region that were written at some time.
    pub(crate) wal_written: u64,
    /// A batch without records is wanted, to let freed blocks age.
    marker_wanted: bool,
    batch_in_flight: bool,
}

impl State {
    pub(crate) fn new(ring: Ring, generation: u64, next_batch: u64) -> State {
        State {
            ring,
            generation,
            next_batch,
            stopped: None,
            pending: HashMap::default(),
            chains: HashMap::default(),
            ready: VecDeque::new(),
            queued_bytes: 0,
            reserved: 0,
            writing: Default::default(),
            aging: VecDeque::new(),
            uncheckpointed: Vec::new(),
            checkpoints: (0, 0),
            zeroing: 0..0,
            wal_written: 0,
            marker_wanted: false,
            batch_in_flight: false,
        }
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.pending.is_empty() && !self.batch_in_flight
    }

    /// One blocker less; a transaction without any is ready, and unblocks the next of its containers.
    pub(crate) fn unblock(&mut self, seq: u64) {
        let mut free = vec![seq];
        while let Some(seq) = free.pop() {
            let Some(pending) = self.pending.get_mut(&seq) else {
                continue;
            };
            pending.blockers -= 1;
            if pending.blockers > 0 {
                continue;
            }
            self.ready.push_back(seq);
            for cid in &pending.containers {
                let Some(chain) = self.chains.get_mut(cid) else {
                    continue;
                };
                chain.pop_front();
                match chain.front() {
                    Some(&next) => free.push(next),
                    None => {
                        self.chains.remove(cid);
                    }
                }
            }
        }
    }

    /// Takes the ready transactions that go into one batch.
    fn take_batch(&mut self) -> Vec<Pending> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(seq) = self.ready.front() {
            let Some(pending) = self.pending.get(seq) else {
                self.ready.pop_front();
                continue;
            };
            let len = pending.record.len() + RECORD_HEADER_LEN;
            if !batch.is_empty() && bytes + len > BATCH_BYTES_MAX {
                break;
            }
            bytes += len;
            let seq = *seq;
            self.ready.pop_front();
            batch.extend(self.pending.remove(&seq));
        }
        self.queued_bytes -= batch.iter().map(|p: &Pending| p.record.len()).sum::<usize>();
        batch
    }
}

impl Store {
    /// Stages a transaction: visible to the next read, durable when the [`Commit`] says so. On an error
    /// nothing has happened; after [`StageError::Missing`] load the pages and plan again.
    pub fn submit(&self, tx: &Tx) -> Result<Commit, StageError> {
        self.submit_staged(tx).map(|(commit, _)| commit)
    }

    /// As [`Store::submit`], with where an aggregation in it is to go on.
    pub(crate) fn submit_staged(&self, tx: &Tx) -> Result<(Commit, Option<Cursor>), StageError> {
        if tx.log_bytes_max(self.inner.options.inline_threshold) as u64
            > self.inner.layout.wal_bytes / 4
        {
            return Err(StageError::TooLarge);
        }
        self.submit_by(|vos| vos.stage(tx), 0)
    }

    /// As [`Store::submit_staged`], with a way of staging it and the bytes of the WAL reserved for it.
    pub(crate) fn submit_by<E>(
        &self,
        stage: impl FnOnce(&mut Vos) -> Result<Staged, E>,
        reserved: u64,
    ) -> Result<(Commit, Option<Cursor>), E> {
        let (done, wait) = oneshot();
        if let Some(stopped) = self.stopped() {
            // The receiver is at hand.
            let _ = done.send(Err(stopped));
            return Ok((Commit { wait }, None));
        }
        let mut staged = {
            let mut vos = self.inner.vos.borrow_mut();
            let staged = stage(&mut vos)?;
            if vos.has_garbage() {
                self.inner.garbage.notify_one();
            }
            staged
        };
        let next = staged.aggregated.take();
        self.enqueue(staged, reserved, done);
        Ok((Commit { wait }, next))
    }

    /// Waits while too much is queued or too many pages wait for a checkpoint. Call before planning.
    pub async fn admit(&self) {
        while self.stopped().is_none() {
            let notified = self.inner.progress.notified();
            if self.inner.commit.borrow().queued_bytes > QUEUED_BYTES_MAX {
                self.inner.work.notify_one();
            } else if self.inner.vos.borrow().is_over_bound() {
                self.inner.checkpoint_wanted.notify_one();
            } else {
                return;
            }
            notified.await;
        }
    }

    /// Waits until everything submitted is durable.
    pub async fn quiesce(&self) -> Result<(), StoreError> {
        loop {
            let notified = self.inner.progress.notified();
            if let Some(stopped) = self.stopped() {
                return Err(stopped);
            }
            if self.inner.commit.borrow().is_quiet() {
                return Ok(());
            }
            notified.await;
        }
    }

    /// Why nothing is staged any more: [`Store::submit`] then only says so in its [`Commit`], and reads
    /// show what they did. Whoever tells others of what is staged looks here in the same turn.
    pub fn stopped(&self) -> Option<StoreError> {
        self.inner.commit.borrow().stopped
    }

    /// Ends the store: everything pending fails, tasks end.
    pub(crate) fn stop(&self, why: StoreError) {
        let failed: Vec<Pending> = {
            let mut state = self.inner.commit.borrow_mut();
            if state.stopped.is_some() {
                return;
            }
            state.stopped = Some(why);
            state.ready.clear();
            state.pending.drain().map(|(_, p)| p).collect()
        };
        if why != StoreError::Closed {
            tracing::error!(device = %self.inner.device.path().display(), "{why}");
        }
        for pending in failed {
            // Whoever waited may have gone away.
            let _ = pending.done.send(Err(why));
        }
        let Inner { work, checkpoint_wanted, progress, garbage, .. } = &*self.inner;
        let Inner { aggregation_wanted, scrub_wanted, trim_wanted, .. } = &*self.inner;
        let waited_for = [work, checkpoint_wanted, progress, garbage];
        let others = [aggregation_wanted, scrub_wanted, trim_wanted];
        waited_for.into_iter().chain(others).for_each(|n| n.notify_all());
    }

    fn enqueue(&self, staged: Staged, reserved: u64, done: OneshotSender<Result<(), StoreError>>) {
        let Staged { seq, record, writes, freed, containers, .. } = staged;
        let mut guard = self.inner.commit.borrow_mut();
        let state = &mut *guard;
        state.queued_bytes += record.len();
        // One for large data, or for this function.
        let mut blockers = 1;
        for cid in &containers {
            let chain = state.chains.entry(*cid).or_default();
            blockers += usize::from(!chain.is_empty());
            chain.push_back(seq);
        }
        let bytes: u64 = writes.iter().map(|w| w.data.len() as u64).sum();
        if bytes > 0 {
            state.writing.insert(seq);
        }
        let small = bytes <= HELD_BYTES_MAX;
        let (held, large) = if small { (writes, Vec::new()) } else { (Vec::new(), writes) };
        let pending = Pending { seq, record, held, containers, freed, blockers, reserved, done };
        state.pending.insert(seq, pending);
        if small {
            state.unblock(seq);
            self.inner.work.notify_one();
        }
        drop(guard);
        self.count(|c| c.data_bytes += bytes);
        if !small {
            self.write_large(seq, large);
        }
    }

    /// The commit task: one batch after the other until the store stops.
    pub(crate) async fn run_commits(self) {
        while self.stopped().is_none() {
            let notified = self.inner.work.notified();
            let idle = {
                let state = self.inner.commit.borrow();
                state.ready.is_empty() && !state.marker_wanted
            };
            if idle {
                notified.await;
                continue;
            }
            // Whatever this turn of the loop still makes ready goes along.
            settle().await;
            if let Err(e) = self.commit_batch().await {
                self.stop(StoreError::Write(e.kind()));
            }
        }
    }

    async fn commit_batch(&self) -> io::Result<()> {
        let mut batch = {
            let mut state = self.inner.commit.borrow_mut();
            state.batch_in_flight = true;
            state.take_batch()
        };
        let mut data = Some(self.write_held(&mut batch));
        let len = wal::batch_len(batch.iter().map(|p| p.record.len()));
        let reserved = batch.iter().map(|p| p.reserved).sum();
        let mut room = self.try_wal_room(len, reserved);
        if room.is_none() {
            // Room comes from a checkpoint, and that waits for the data.
            if let Some(data) = data.take()
                && let Err(e) = data.await
            {
                self.stop(StoreError::Write(e.kind()));
                self.fail(batch);
                return Err(e);
            }
            room = self.take_wal_room(len, reserved).await;
        }
        let Some((offset, generation, number)) = room else {
            self.fail(batch);
            return Ok(());
        };
        let records = batch.iter().map(|p| &p.record[..]);
        let bytes = wal::encode_batch(generation, number, records).freeze();
        let written = self.inner.device.write_wal(offset, bytes);
        if let Err(e) = self.make_durable(&batch, data, written).await {
            self.stop(StoreError::Write(e.kind()));
            self.fail(batch);
            return Err(e);
        }
        self.count(|c| {
            c.commits += batch.len() as u64;
            c.batches += 1;
            c.wal_bytes += len;
        });
        self.acknowledge(batch, number);
        Ok(())
    }

    /// Waits for the batch and all its data, and flushes.
    async fn make_durable(
        &self,
        batch: &[Pending],
        data: Option<impl Future<Output = io::Result<()>>>,
        written: impl Future<Output = io::Result<()>>,
    ) -> io::Result<()> {
        if let Some(data) = data {
            data.await?;
        }
        written.await?;
        self.data_written(batch).await;
        self.inner.device.flush_commit().await
    }

    /// Waits for room in the WAL and for its zeroing; `None` when the store stops.
    async fn take_wal_room(&self, len: u64, reserved: u64) -> Option<(u64, u64, u64)> {
        loop {
            let notified = self.inner.progress.notified();
            if self.stopped().is_some() {
                return None;
            }
            if len > self.inner.commit.borrow().ring.bytes() / 2 {
                self.stop(StoreError::NoRoom);
                return None;
            }
            if let Some(room) = self.try_wal_room(len, reserved) {
                return Some(room);
            }
            notified.await;
        }
    }

    /// Room in the WAL, if there is some now: its offset, and the batch's generation and number. It is
    /// taken from what is reserved for the batch, and not from what is reserved for others.
    fn try_wal_room(&self, len: u64, reserved: u64) -> Option<(u64, u64, u64)> {
        let mut state = self.inner.commit.borrow_mut();
        let mut ring = state.ring;
        let at = ring.advance(len);
        let zeroing = at < state.zeroing.end && state.zeroing.start < at + len;
        if state.stopped.is_some() || zeroing || len > ring.bytes() / 2 {
            return None;
        }
        let others = state.reserved - reserved;
        // A ring with nothing in it gets no emptier.
        let kept = state.ring.used() == 0 || ring.used() + others <= ring.bytes();
        if !state.ring.has_room(len) || !kept {
            self.inner.checkpoint_wanted.notify_one();
            return None;
        }
        state.reserved = others;
        state.ring = ring;
        state.next_batch += 1;
        Some((at, state.generation, state.next_batch - 1))
    }

    fn acknowledge(&self, batch: Vec<Pending>, number: u64) {
        let reads_before = self.inner.reads.borrow().next();
        let mut dones = Vec::with_capacity(batch.len());
        let wants_checkpoint = {
            let mut state = self.inner.commit.borrow_mut();
            state.batch_in_flight = false;
            state.marker_wanted = false;
            for pending in batch {
                debug_assert!(!state.writing.contains(&pending.seq));
                if !pending.freed.is_empty() {
                    let runs = pending.freed;
                    state.aging.push_back(Aging { runs, batch: number, reads_before });
                }
                dones.push(pending.done);
            }
            state.ring.used() > state.ring.bytes() / 2
        };
        self.release_aged();
        self.want_marker();
        if wants_checkpoint || self.inner.vos.borrow().wants_checkpoint() {
            self.inner.checkpoint_wanted.notify_one();
        }
        for done in dones {
            // Whoever waited may have gone away.
            let _ = done.send(Ok(()));
        }
        self.inner.progress.notify_all();
    }

    /// Makes available what no reader, and no replay, can look at any more.
    pub(crate) fn release_aged(&self) {
        let mut state = self.inner.commit.borrow_mut();
        if state.aging.is_empty() {
            return;
        }
        let oldest_read = self.inner.reads.borrow().oldest();
        let mut vos = self.inner.vos.borrow_mut();
        while let Some(aging) = state.aging.front() {
            // Batches before `next_batch - 1` have a durable successor.
            let replaced = aging.batch + 2 <= state.next_batch && !state.batch_in_flight
                || aging.batch + 3 <= state.next_batch;
            if !replaced || aging.reads_before > oldest_read {
                break;
            }
            vos.release(&aging.runs);
            state.aging.pop_front();
        }
    }

    /// When space is short and nothing else is going on, an empty batch lets freed blocks age.
    fn want_marker(&self) {
        let mut state = self.inner.commit.borrow_mut();
        let next = state.next_batch;
        let waiting =
            state.ready.is_empty() && state.aging.back().is_some_and(|a| a.batch + 2 > next);
        if waiting && self.inner.vos.borrow().is_short_of_space() {
            state.marker_wanted = true;
            self.inner.work.notify_one();
        }
    }

    /// Blocks freed by records before the last checkpoint's start need no later batch.
    pub(crate) fn mark_checkpointed(&self, start_batch: u64) {
        let mut state = self.inner.commit.borrow_mut();
        for aging in state.aging.iter_mut().filter(|a| a.batch < start_batch) {
            aging.batch = 0;
        }
    }

    /// Asks for an empty batch, and waits for it.
    pub(crate) async fn commit_marker(&self) -> Result<(), StoreError> {
        let before = self.inner.commit.borrow().next_batch;
        self.inner.commit.borrow_mut().marker_wanted = true;
        self.inner.work.notify_one();
        loop {
            let notified = self.inner.progress.notified();
            if let Some(stopped) = self.stopped() {
                return Err(stopped);
            }
            {
                let state = self.inner.commit.borrow();
                if state.next_batch > before && !state.batch_in_flight {
                    return Ok(());
                }
            }
            notified.await;
        }
    }

    /// Whether freed blocks wait for anything.
    pub(crate) fn has_aging(&self) -> bool {
        let state = self.inner.commit.borrow();
        !state.aging.is_empty() || !state.uncheckpointed.is_empty()
    }

    fn fail(&self, batch: Vec<Pending>) {
        let why = self.stopped().unwrap_or(StoreError::Closed);
        for pending in batch {
            // Whoever waited may have gone away.
            let _ = pending.done.send(Err(why));
        }
    }
}

use crate::Inner;
