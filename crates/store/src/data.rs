//! Data writes: large ones at once, small ones beside the batch with their record.
//!
//! What is staged together lies together as a rule, so the small data of a batch is one request, or few.
//! Invariant: a transaction is in `writing` from its submission until its data is written; so a
//! checkpoint, and the flush of a batch, can wait for exactly that.

use std::future::Future;
use std::io;

use bytes::Bytes;
use futures_util::future::join_all;
use spirula_vos::{BLOCK_SIZE, DataWrite};
use spirula_xstream::{Class, spawn};

use crate::commit::Pending;
use crate::limits::{HELD_RUN_BYTES_MAX, HELD_RUN_PIECES_MAX};
use crate::{Store, StoreError};

impl Store {
    /// Starts writing the data of a transaction, which becomes ready when that is done.
    pub(crate) fn write_large(&self, seq: u64, writes: Vec<DataWrite>) {
        let write = self.start(writes);
        let store = self.clone();
        spawn(Class::Client, async move {
            let done = write.await;
            if store.give_up_on_error(done).is_ok() {
                store.inner.commit.borrow_mut().unblock(seq);
                store.note_written(&[seq]);
                store.inner.work.notify_one();
            }
        });
    }

    /// Starts writing the held data of a batch.
    pub(crate) fn write_held(
        &self,
        batch: &mut [Pending],
    ) -> impl Future<Output = io::Result<()>> + use<> {
        let (mut seqs, mut writes) = (Vec::new(), Vec::new());
        for pending in batch.iter_mut().filter(|p| !p.held.is_empty()) {
            seqs.push(pending.seq);
            writes.append(&mut pending.held);
        }
        let write = self.start(writes);
        let store = self.clone();
        async move {
            write.await?;
            store.note_written(&seqs);
            Ok(())
        }
    }

    /// Writes all data held back up to `seq` now, whatever the commit task waits for.
    pub(crate) fn release_held(&self, seq: u64) {
        let (mut seqs, mut writes) = (Vec::new(), Vec::new());
        let mut state = self.inner.commit.borrow_mut();
        for pending in state.pending.values_mut().filter(|p| p.seq <= seq && !p.held.is_empty()) {
            seqs.push(pending.seq);
            writes.append(&mut pending.held);
        }
        drop(state);
        if seqs.is_empty() {
            return;
        }
        let write = self.start(writes);
        let store = self.clone();
        spawn(Class::Client, async move {
            let done = write.await;
            if store.give_up_on_error(done).is_ok() {
                store.note_written(&seqs);
            }
        });
    }

    /// Waits until no transaction of the batch is being written.
    pub(crate) async fn data_written(&self, batch: &[Pending]) {
        loop {
            let notified = self.inner.progress.notified();
            {
                let state = self.inner.commit.borrow();
                let done = batch.iter().all(|p| !state.writing.contains(&p.seq));
                if done || state.stopped.is_some() {
                    return;
                }
            }
            notified.await;
        }
    }

    pub(crate) fn give_up_on_error(&self, result: io::Result<()>) -> io::Result<()> {
        result.inspect_err(|e| self.stop(StoreError::Write(e.kind())))
    }

    fn note_written(&self, seqs: &[u64]) {
        let mut state = self.inner.commit.borrow_mut();
        for seq in seqs {
            state.writing.remove(seq);
        }
        drop(state);
        self.inner.progress.notify_all();
    }

    /// Submits the writes, neighbours as one.
    fn start(&self, mut writes: Vec<DataWrite>) -> impl Future<Output = io::Result<()>> + use<> {
        writes.sort_unstable_by_key(|w| w.addr.0);
        let mut flying = Vec::new();
        let mut writes = writes.into_iter().peekable();
        while let Some(first) = writes.next() {
            let offset = first.addr.byte_offset();
            let (mut end, mut bytes) = (end_of(&first), first.data.len());
            let mut pieces: Vec<Bytes> = vec![first.data];
            while let Some(next) = writes.next_if(|w| {
                w.addr.0 == end
                    && bytes + w.data.len() <= HELD_RUN_BYTES_MAX
                    && pieces.len() < HELD_RUN_PIECES_MAX
            }) {
                (end, bytes) = (end_of(&next), bytes + next.data.len());
                pieces.push(next.data);
            }
            flying.push(self.inner.device.write_all(offset, pieces));
        }
        async move { join_all(flying).await.into_iter().collect() }
    }
}

/// The block after a write.
fn end_of(write: &DataWrite) -> u64 {
    write.addr.0 + (write.data.len() as u64).div_ceil(BLOCK_SIZE)
}
