//! Checkpoints in the background, so that the WAL never fills and replay stays short.
//!
//! Order: freeze the state; wait for the data writes of every transaction in it; write the pages; flush;
//! write the root; flush; only then free what the root before needed.
//! Invariant: a checkpoint never waits for the WAL, so a full WAL always gets room.

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use spirula_bio::superblock::ROOT_OFFSETS;
use spirula_vos::{Checkpoint, PAGE_SIZE, PageWrite, Root, Run, StageError, WalStart};
use spirula_xstream::{AlignedBuf, yield_now};

use crate::limits::{PAGE_RUN_BYTES_MAX, PAGE_RUNS_IN_FLIGHT_MAX};
use crate::{Store, StoreError};

impl Store {
    /// Makes a checkpoint that holds everything submitted before the call.
    pub async fn checkpoint(&self) -> Result<(), StoreError> {
        // One under way may have begun earlier: then the one after it is ours.
        let wanted = self.inner.commit.borrow().checkpoints.0 + 1;
        loop {
            let notified = self.inner.progress.notified();
            if let Some(stopped) = self.stopped() {
                return Err(stopped);
            }
            if self.inner.commit.borrow().checkpoints.1 >= wanted {
                return Ok(());
            }
            self.inner.checkpoint_wanted.notify_one();
            notified.await;
        }
    }

    /// The checkpoint task.
    pub(crate) async fn run_checkpoints(self) {
        // The store may stop while a checkpoint is made, too, when nobody waits to be notified.
        while self.stopped().is_none() {
            self.inner.checkpoint_wanted.notified().await;
            if self.stopped().is_some() {
                return;
            }
            if let Err(e) = self.make_checkpoint().await {
                self.stop(e);
                return;
            }
        }
    }

    /// One checkpoint, with the WAL read from here on if all before it is in the checkpoint.
    pub(crate) async fn make_checkpoint(&self) -> Result<(), StoreError> {
        let mut checkpoint = self.begin_checkpoint().await?;
        let (start, used, freed) = {
            let mut state = self.inner.commit.borrow_mut();
            state.checkpoints.0 += 1;
            let generation = state.generation;
            let start = WalStart { generation, offset: state.ring.head(), batch: state.next_batch };
            (start, state.ring.used(), std::mem::take(&mut state.uncheckpointed))
        };
        checkpoint.root.wal = start;
        checkpoint.root.wal_written = self.inner.commit.borrow().wal_written;
        checkpoint.root.scrubbed = self.inner.scrub.borrow().scrubbed();
        self.wait_for_data(checkpoint.root.seq).await?;
        self.write_pages(&checkpoint.writes).await?;
        self.flush().await?;
        self.publish(&checkpoint.root).await?;
        self.count(|c| {
            c.checkpoints += 1;
            c.pages_written += checkpoint.writes.len() as u64;
        });
        self.finish(checkpoint, freed);
        self.inner.commit.borrow_mut().ring.trim(used);
        self.mark_checkpointed(start.batch);
        self.release_aged();
        self.inner.commit.borrow_mut().checkpoints.1 += 1;
        self.inner.trim_wanted.notify_one();
        self.inner.progress.notify_all();
        Ok(())
    }

    /// Writes a root to its slot and makes it durable.
    pub(crate) async fn publish(&self, root: &Root) -> Result<(), StoreError> {
        let slot = ROOT_OFFSETS[(root.number % 2) as usize];
        let block = AlignedBuf::copy_from(&root.encode()).freeze();
        let written = self.inner.device.write(slot, block).await;
        written.map_err(|e| StoreError::Write(e.kind()))?;
        self.flush().await
    }

    pub(crate) async fn write_pages(&self, writes: &[PageWrite]) -> Result<(), StoreError> {
        let mut flying = FuturesUnordered::new();
        let mut rest = writes;
        while !rest.is_empty() {
            let (run, after) = rest.split_at(run_len(rest));
            rest = after;
            if flying.len() >= PAGE_RUNS_IN_FLIGHT_MAX {
                check(flying.next().await)?;
            }
            flying.push(self.inner.device.write(run[0].addr.byte_offset(), seal(run)));
            // Sealing takes time that clients may want.
            yield_now().await;
        }
        while let Some(result) = flying.next().await {
            check(Some(result))?;
        }
        Ok(())
    }

    async fn begin_checkpoint(&self) -> Result<Checkpoint, StoreError> {
        loop {
            let notified = self.inner.progress.notified();
            let begun = self.inner.vos.borrow_mut().begin_checkpoint();
            match begun {
                Ok(checkpoint) => return Ok(checkpoint),
                // Reads end by themselves.
                Err(StageError::NoSpace) if self.inner.reads.borrow().holds_any() => {
                    notified.await;
                }
                Err(StageError::Missing(pages)) => self.load(pages).await?,
                Err(StageError::Damaged(damage)) => return Err(damage.into()),
                Err(_) => return Err(StoreError::NoRoom),
            }
        }
    }

    /// Waits until the data of all transactions up to `seq` has been written.
    pub(crate) async fn wait_for_data(&self, seq: u64) -> Result<(), StoreError> {
        // The commit task may itself be waiting for this checkpoint.
        self.release_held(seq);
        loop {
            let notified = self.inner.progress.notified();
            if let Some(stopped) = self.stopped() {
                return Err(stopped);
            }
            if self.inner.commit.borrow().writing.first().is_none_or(|&first| first > seq) {
                return Ok(());
            }
            notified.await;
        }
    }

    async fn flush(&self) -> Result<(), StoreError> {
        self.inner.device.flush().await.map_err(|e| StoreError::Write(e.kind()))
    }

    fn finish(&self, checkpoint: Checkpoint, mut freed: Vec<Run>) {
        let mut vos = self.inner.vos.borrow_mut();
        freed.extend(vos.finish_checkpoint(checkpoint));
        self.inner.reads.borrow_mut().hold(freed);
        self.inner.release_unread(&mut vos);
        vos.evict();
    }
}

/// How many writes at the front lie one after the other on the device.
fn run_len(writes: &[PageWrite]) -> usize {
    let max = PAGE_RUN_BYTES_MAX / PAGE_SIZE;
    let blocks = (PAGE_SIZE as u64) / spirula_vos::BLOCK_SIZE;
    let next = |(i, w): (usize, &PageWrite)| w.addr.0 == writes[0].addr.0 + i as u64 * blocks;
    writes.iter().take(max).enumerate().take_while(|&w| next(w)).count()
}

fn seal(run: &[PageWrite]) -> Bytes {
    let mut buf = AlignedBuf::zeroed(run.len() * PAGE_SIZE);
    for (page, out) in run.iter().zip(buf.chunks_exact_mut(PAGE_SIZE)) {
        page.seal(out);
    }
    buf.freeze()
}

fn check(result: Option<std::io::Result<()>>) -> Result<(), StoreError> {
    result.unwrap_or(Ok(())).map_err(|e| StoreError::Write(e.kind()))
}
