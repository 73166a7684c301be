//! Serializable transactions: reads and writes of a [`Vos`] ask and tell the timestamp cache.
//!
//! Only a store that was told to ([`Vos::keep_timestamps`]) does; then every transaction is checked, and
//! every read by a [`View`] of a transaction ([`Vos::view_of`]). What the cache is told when is written
//! in [`crate::timestamp`].

use std::cell::RefCell;

use crate::active::{Touch, Use, touches};
use crate::stage::Stage;
use crate::timestamp::{Cache, Level, Outcome, Path, TxStamp};
use crate::tx::{Tx, TxOp};
use crate::types::{ReadError, StageError, TxId};
use crate::view::View;
use crate::vos::Vos;

/// Of a transaction without an id: it is nobody else's.
const NOBODY: TxId = TxId([u8::MAX; 16]);

impl Tx {
    /// The transaction belongs to `id`, whose own reads are not in the way of its writes; up to `bound`
    /// the order of its epoch against those of others is uncertain.
    pub fn stamp(&mut self, id: TxId, bound: u64) {
        self.stamp = Some((id, bound));
    }

    fn stamped(&self) -> TxStamp {
        let (id, bound) = self.stamp.unwrap_or((self.prepare.unwrap_or(NOBODY), self.epoch));
        TxStamp { id, epoch: self.epoch, bound }
    }
}

impl Vos {
    /// From now on transactions are checked for conflicts, with a cache of `bytes`. Everything counts as
    /// read and written up to epoch `start`: the clock now.
    pub fn keep_timestamps(&mut self, start: u64, bytes: usize) {
        self.timestamps = Some(RefCell::new(Cache::new(start, bytes)));
    }

    /// The store for the reads of a transaction, at its epoch. They are noted: nobody can change what
    /// they have found.
    pub fn view_of(&self, by: TxStamp) -> View<'_> {
        self.at(by.epoch).stamped(by)
    }

    /// Refuses a transaction that must wait, or whose conditions cannot be judged.
    pub(crate) fn may_stage(&self, tx: &Tx) -> Result<(), StageError> {
        if let Some(cache) = &self.timestamps {
            let (cache, by) = (cache.borrow(), tx.stamped());
            for touch in touches(tx).iter().filter(|t| matches!(t.how, Use::Read(_))) {
                cache.check_read(&touch.path, &read_stamp(touch, by))?;
            }
        }
        self.active.check(tx)
    }

    /// What a transaction has read and written.
    pub(crate) fn note_staged(&mut self, tx: &Tx) {
        let Some(cache) = &mut self.timestamps else {
            return;
        };
        let (cache, by) = (cache.get_mut(), tx.stamped());
        for touch in touches(tx) {
            match touch.how {
                Use::Read(_) => {
                    cache.note_read(&touch.path, &read_stamp(&touch, by), Outcome::Found);
                }
                Use::Write => cache.note_write(&touch.path, &by),
                Use::Hold | Use::Sweep => {}
            }
        }
        // Whoever reads at a retained epoch later need not be noted.
        for op in &tx.ops {
            let (path, epochs) = match op {
                TxOp::SplitContainer { cid, upper, .. } => {
                    cache.inherit(*upper, *cid);
                    continue;
                }
                TxOp::MergeContainer { cid, upper } => {
                    cache.inherit(*cid, *upper);
                    continue;
                }
                TxOp::RetainContainer { cid, epochs } => (Path::container(*cid), epochs),
                TxOp::Retain { object, epochs } => {
                    let (cid, oid) = &tx.objects[*object as usize];
                    (Path::object(*cid, &oid.0), epochs)
                }
                _ => continue,
            };
            for &epoch in epochs {
                cache.note_read(&path, &TxStamp::certain(by.id, epoch), Outcome::Found);
            }
        }
    }

    /// A condition that failed is an answer, which must stay true.
    pub(crate) fn note_refused(&mut self, tx: &Tx, e: &StageError) {
        let Some(cache) = &mut self.timestamps else {
            return;
        };
        if !matches!(e, StageError::Exists | StageError::NonExistent) {
            return;
        }
        let (cache, by) = (cache.get_mut(), tx.stamped());
        for touch in touches(tx).iter().filter(|t| matches!(t.how, Use::Read(_))) {
            cache.note_read(&touch.path, &read_stamp(touch, by), Outcome::Found);
        }
    }
}

fn read_stamp(touch: &Touch, by: TxStamp) -> TxStamp {
    match touch.how {
        Use::Read(epoch) if epoch < by.epoch => TxStamp::certain(by.id, epoch),
        _ => by,
    }
}

impl Stage<'_> {
    /// Refuses what would change what others have read; call when all else is done.
    pub(crate) fn may_write(&mut self, tx: &Tx) -> Result<(), StageError> {
        let Some(cache) = &self.vos.timestamps else {
            return Ok(());
        };
        let by = tx.stamped();
        let refused = {
            let cache = cache.borrow();
            let touches = touches(tx);
            let mut writes = touches.iter().filter(|t| t.how == Use::Write);
            writes.find_map(|t| cache.check_write(&t.path, &by).err())
        };
        match refused {
            Some(restart) => {
                self.restore();
                Err(restart.into())
            }
            None => Ok(()),
        }
    }
}

impl View<'_> {
    /// Whether reads may have to wait, or are noted.
    pub(crate) fn is_guarded(&self) -> bool {
        let noted = self.by.is_some() && self.vos.timestamps.is_some();
        noted || (self.waits && !self.vos.active.is_empty())
    }

    /// Runs a read of what is at a path, unless it must wait or start again, and notes it; `missing`
    /// says from which level on nothing was found.
    pub(crate) fn guarded<T>(
        &self,
        path: impl FnOnce() -> Path,
        read: impl FnOnce() -> Result<T, ReadError>,
        missing: impl FnOnce(&T) -> Option<Level>,
    ) -> Result<T, ReadError> {
        if !self.is_guarded() {
            return read();
        }
        let (path, cache) = (path(), self.vos.timestamps.as_ref());
        if let (Some(by), Some(cache)) = (&self.by, cache) {
            cache.borrow().check_read(&path, by)?;
        }
        if self.waits
            && let Some(id) = self.vos.active.check_read(&path, self.epoch().hlc)
        {
            return Err(ReadError::InProgress { id });
        }
        let out = read()?;
        if let (Some(by), Some(cache)) = (&self.by, cache) {
            let outcome = missing(&out).map_or(Outcome::Found, Outcome::Missing);
            cache.borrow_mut().note_read(&path, by, outcome);
        }
        Ok(out)
    }
}
