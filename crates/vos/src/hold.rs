//! Holding what a transaction needs, before it is planned to the end.
//!
//! [`Vos::hold`] runs the transaction and takes it back: so it is known which pages it looks at, how many it
//! changes and how many blocks it takes. The pages stay in memory; room for twice the pages, and for the
//! blocks, is kept from everybody else. [`Vos::stage_held`] then finds them.
//!
//! Invariant: space never refuses a held transaction. It may be refused for other reasons, and pages may be
//! missing, if others have changed its objects meanwhile.

use crate::pool::Pin;
use crate::stage::{Placer, Stage, Staged};
use crate::tx::Tx;
use crate::types::StageError;
use crate::vos::Vos;

/// What is held for a transaction; it must be given back, to [`Vos::stage_held`] or [`Vos::let_go`].
#[derive(Debug)]
pub struct Hold {
    blocks: u64,
    pages: u64,
    pin: Pin,
}

impl Hold {
    /// Blocks for its data.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Metadata pages that it may change.
    pub fn pages(&self) -> u64 {
        self.pages
    }
}

impl Vos {
    /// Holds what `tx` needs. Fails as staging it would; nothing else changes.
    pub fn hold(&mut self, tx: &Tx) -> Result<Hold, StageError> {
        self.check_room(tx)?;
        self.may_stage(tx)?;
        self.pool.trace();
        let mut stage = Stage::begin(self, tx, Placer::Fresh);
        let result = stage.run(tx, None);
        let blocks = stage.placed.iter().map(|p| p.run().1).sum();
        stage.restore();
        let seen = self.pool.end_trace();
        if let Err(e) = result {
            return Err(self.refuse(tx, e));
        }
        // As for a prepared transaction: others may split the pages that it changes.
        let mut pages = self.pool.changed_pages() * 2 + tx.ops.len() as u64 + 8;
        if tx.prepare.is_some() {
            // Its record goes into the tree, and as many pages are kept back again.
            let record = tx.log_bytes_max(self.config.inline_threshold) as u64;
            pages = pages * 2 + record / 2048;
        }
        self.rollback();
        let hold = Hold { blocks, pages, pin: self.pool.pin(seen) };
        self.keep(&hold);
        let headroom = if tx.reclaims { 0 } else { self.headroom() };
        let fits = self.space.page_slots() >= self.pages_needed() + headroom;
        if !fits || !self.space.keeps_promises(self.data_reserve()) {
            self.let_go(hold);
            return Err(StageError::NoSpace);
        }
        Ok(hold)
    }

    /// As [`Vos::stage`], with what was held for `tx`, or for more than it. It is used up unless this fails.
    pub fn stage_held(&mut self, tx: &Tx, hold: Hold) -> Result<Staged, (StageError, Hold)> {
        self.give_up(&hold);
        self.redeems = true;
        let result = self.stage_in_room(tx);
        self.redeems = false;
        match result {
            Ok(staged) => {
                self.pool.unpin(&hold.pin);
                Ok(staged)
            }
            Err(e) => {
                self.keep(&hold);
                Err((e, hold))
            }
        }
    }

    /// Ends a hold.
    pub fn let_go(&mut self, hold: Hold) {
        self.give_up(&hold);
        self.pool.unpin(&hold.pin);
    }

    fn keep(&mut self, hold: &Hold) {
        self.space.promise(hold.blocks);
        self.held_pages += hold.pages;
    }

    fn give_up(&mut self, hold: &Hold) {
        self.space.redeem(hold.blocks);
        self.held_pages -= hold.pages;
    }
}
