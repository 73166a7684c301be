//! Reservations: all that a transaction needs is held for it, so that it is not refused late.
//!
//! Who only writes does not need one: [`Store::submit`] does everything or nothing, too, and costs less. It is
//! for callers that promise something, or do something elsewhere, before they submit.
//!
//! Invariant: what is held is given back when the [`Reservation`] is dropped, or used.

use std::rc::Rc;

use spirula_bio::wal;
use spirula_vos::{Hold, StageError, Tx};

use crate::limits::{LOAD_ROUNDS_MAX, QUEUED_BYTES_MAX};
use crate::{Commit, Inner, ReserveError, Store, StoreError};

/// Holds pages, blocks and WAL for one transaction. See [`Store::reserve`].
pub struct Reservation {
    inner: Rc<Inner>,
    hold: Option<Hold>,
    wal_bytes: u64,
}

impl Reservation {
    /// What the store holds, but for the WAL.
    pub fn hold(&self) -> Option<&Hold> {
        self.hold.as_ref()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(hold) = self.hold.take() {
            self.inner.vos.borrow_mut().let_go(hold);
        }
        self.inner.commit.borrow_mut().reserved -= self.wal_bytes;
        self.inner.progress.notify_all();
    }
}

impl Store {
    /// Holds all that `tx` needs: its pages are loaded and stay in memory; blocks, twice the pages it
    /// changes now, and room in the WAL are kept from others. It waits as [`Store::admit`] does, and runs
    /// the transaction once to see what it needs; what would refuse it does so now, lack of space above all.
    /// Estimates are on the safe side: a store that is nearly full may refuse to hold what it could store.
    ///
    /// Until [`Store::submit_reserved`], space and, unless others change the objects of `tx`, missing pages
    /// do not refuse it. Holding one reservation, do not wait for another: the WAL holds a bounded amount.
    pub async fn reserve(&self, tx: &Tx) -> Result<Reservation, ReserveError> {
        let mut reservation = self.reserve_wal(tx).await?;
        for _ in 0..LOAD_ROUNDS_MAX {
            let held = self.inner.vos.borrow_mut().hold(tx);
            match held {
                Ok(hold) => {
                    reservation.hold = Some(hold);
                    return Ok(reservation);
                }
                Err(StageError::Missing(pages)) => self.load_more(pages).await?,
                Err(e) => return Err(e.into()),
            }
        }
        Err(StoreError::PoolTooSmall.into())
    }

    /// As [`Store::submit`], with what was reserved for `tx`; if it is refused, that stays reserved.
    pub fn submit_reserved(
        &self,
        tx: &Tx,
        mut reservation: Reservation,
    ) -> Result<Commit, (StageError, Reservation)> {
        let Some(hold) = reservation.hold.take() else {
            return self.submit(tx).map_err(|e| (e, reservation));
        };
        match self.submit_by(|vos| vos.stage_held(tx, hold), reservation.wal_bytes) {
            Ok((commit, _)) => {
                // The record has it now.
                reservation.wal_bytes = 0;
                Ok(commit)
            }
            Err((e, hold)) => {
                reservation.hold = Some(hold);
                Err((e, reservation))
            }
        }
    }

    /// Waits for room in the WAL, and keeps it.
    async fn reserve_wal(&self, tx: &Tx) -> Result<Reservation, ReserveError> {
        let record = tx.log_bytes_max(self.inner.options.inline_threshold);
        let (wal_bytes, all) = (wal::batch_len([record].into_iter()), self.inner.layout.wal_bytes);
        if record as u64 > all / 4 {
            return Err(StageError::TooLarge.into());
        }
        loop {
            self.admit().await;
            let notified = self.inner.progress.notified();
            if let Some(stopped) = self.stopped() {
                return Err(stopped.into());
            }
            {
                let mut state = self.inner.commit.borrow_mut();
                let reserved = state.reserved + wal_bytes;
                let queued = state.queued_bytes as u64 + reserved > QUEUED_BYTES_MAX as u64;
                if state.reserved > 0 && (queued || reserved > all / 4) {
                    self.inner.work.notify_one();
                } else if state.ring.used() > 0 && state.ring.used() + reserved > all {
                    self.inner.checkpoint_wanted.notify_one();
                } else {
                    state.reserved = reserved;
                    return Ok(Reservation { inner: self.inner.clone(), hold: None, wal_bytes });
                }
            }
            notified.await;
        }
    }
}
