//! Prepared transactions: checked, durable, and not visible; committed or aborted later.
//!
//! Preparing runs the operations, which tells whether they can be done and where data goes, and takes the
//! changes back; what remains is the record, as the WAL has it, in the table of active transactions, the
//! blocks of its data, and [`crate::active::Active`] that keeps others out of its way. Committing runs
//! the operations again, at the transaction's own epoch and with the decisions of the record, as replay
//! does. Aborting frees the blocks.
//! Invariants: a commit cannot be refused: what it meets is what its preparation met as far as it
//! looks, its data is in place, and the pages it changes are kept back. Records that prepare and end one
//! transaction are in the WAL in their order. How a transaction ended is known until it is forgotten.

use std::ops::ControlFlow;
use std::rc::Rc;

use bytes::Bytes;

use crate::active::ActiveTx;
use crate::codec::{Malformed, Reader, put_u64};
use crate::epoch::Epoch;
use crate::log::{self, Placed, Prepared, Record};
use crate::object::Loaded;
use crate::record::{TABLE_ACTIVE, TABLE_ENDED, entry_damaged};
use crate::stage::{Placer, ReplayError, Stage, Staged, impossible, not_replayed};
use crate::tree;
use crate::tx::{Tx, TxOp};
use crate::types::{ContainerId, ReadError, StageError, TxId, TxState};
use crate::vos::Vos;

/// Key of an ended transaction by its id, and by the epoch of its end.
const BY_ID: u8 = 1;
const BY_EPOCH: u8 = 2;
const ENDED_COMMITTED: u8 = 1;
const ENDED_ABORTED: u8 = 2;

/// A transaction that is prepared and has not ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PreparedTx {
    /// Its id.
    pub id: TxId,
    /// The epoch of what it writes.
    pub epoch: u64,
    /// Containers of the objects it names.
    pub containers: Vec<ContainerId>,
}

/// How a transaction ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ended {
    pub(crate) epoch: u64,
    pub(crate) committed: bool,
}

impl Ended {
    fn encode(self) -> Vec<u8> {
        let mut out = vec![if self.committed { ENDED_COMMITTED } else { ENDED_ABORTED }];
        put_u64(&mut out, self.epoch);
        out
    }

    pub(crate) fn decode(value: Bytes) -> Result<Ended, ReadError> {
        let mut r = Reader::new(value);
        let mut parse = || {
            let committed = match r.u8()? {
                ENDED_COMMITTED => true,
                ENDED_ABORTED => false,
                _ => return Err(Malformed),
            };
            Ok(Ended { committed, epoch: r.u64()? })
        };
        parse().map_err(|_| entry_damaged(TABLE_ENDED))
    }

    fn state(self) -> TxState {
        if self.committed { TxState::Committed(self.epoch) } else { TxState::Aborted }
    }
}

impl Tx {
    /// When it is staged, the transaction is prepared under `id`: all is checked and made durable, but
    /// nothing is visible before [`Tx::commit_prepared`]. Until its end nobody can read at or above its
    /// epoch, or write, where it writes.
    pub fn prepare(&mut self, id: TxId) {
        self.prepare = Some(id);
    }

    /// Makes a prepared transaction visible, at its own epoch. Nothing happens if it is committed.
    pub fn commit_prepared(&mut self, id: TxId) {
        self.ops.push(TxOp::CommitPrepared(id));
    }

    /// Undoes a prepared transaction. If the id is not known nothing can be prepared under it up to this
    /// transaction's epoch. Nothing happens if it is aborted.
    pub fn abort_prepared(&mut self, id: TxId) {
        self.ops.push(TxOp::AbortPrepared(id));
    }
}

impl Vos {
    /// What has become of a transaction.
    pub fn tx_state(&self, id: TxId) -> Result<TxState, ReadError> {
        if self.active.get(id).is_some() {
            return Ok(TxState::Prepared);
        }
        Ok(self.ended(id)?.map_or(TxState::Unknown, Ended::state))
    }

    /// All transactions that are prepared and have not ended, by id.
    pub fn prepared(&self) -> Vec<PreparedTx> {
        let of = |(id, tx): (TxId, &ActiveTx)| PreparedTx {
            id,
            epoch: tx.epoch,
            containers: tx.containers.clone(),
        };
        self.active.iter().map(of).collect()
    }

    /// Up to `max` transactions that ended and are not forgotten, after `after` in the order of their ids.
    pub fn ended_transactions(
        &self,
        after: Option<TxId>,
        max: usize,
    ) -> Result<Vec<(TxId, TxState)>, ReadError> {
        let from = after.map_or(vec![TABLE_ENDED, BY_ID], |id| [&ended_key(id)[..], &[0]].concat());
        let (mut out, to) = (Vec::new(), [TABLE_ENDED, BY_EPOCH]);
        tree::scan(&self.pool, self.root, &from, Some(&to), &mut |key, cell| {
            if out.len() >= max {
                return Ok(ControlFlow::Break(()));
            }
            let ended = Ended::decode(tree::load_value(&self.pool, cell)?)?;
            out.push((ended_of(key)?.0, ended.state()));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(out)
    }

    /// Forgets up to `budget` transactions that ended at epochs below `below`; whether there may be more.
    /// It is not logged: after a crash some may be known again. That hurts nobody: whoever needs one to be
    /// unknown must not have it forgotten, and replay gives what was staged without it precedence.
    pub fn forget_ended(&mut self, below: u64, budget: usize) -> Result<bool, StageError> {
        if self.space.page_slots() < self.pages_needed() + budget as u64 {
            return Err(StageError::NoSpace);
        }
        let (mut keys, budget) = (Vec::new(), budget.max(1));
        let (from, to) = (vec![TABLE_ENDED, BY_EPOCH], epoch_key(below, &[]));
        tree::scan(&self.pool, self.root, &from, Some(&to), &mut |key, _| {
            keys.push(key.to_vec());
            let full = keys.len() >= budget;
            Ok(if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        let tx = Tx::new(0);
        let mut stage = Stage::begin(self, &tx, Placer::Fresh);
        match keys.iter().try_for_each(|key| stage.forget(key)) {
            Ok(()) => {
                self.commit();
                Ok(keys.len() >= budget)
            }
            Err(e) => {
                stage.restore();
                self.rollback();
                Err(e)
            }
        }
    }

    /// Reads the table of active transactions; what it has read when it misses pages stays.
    pub(crate) fn load_active(&mut self) -> Result<(), ReadError> {
        loop {
            let from = self
                .active
                .last()
                .map_or(vec![TABLE_ACTIVE], |id| [&active_key(id)[..], &[0]].concat());
            let mut found = None;
            tree::scan(
                &self.pool,
                self.root,
                &from,
                Some(&[TABLE_ACTIVE + 1]),
                &mut |key, cell| {
                    found = Some((active_id(key)?, tree::load_value(&self.pool, cell)?));
                    Ok(ControlFlow::Break(()))
                },
            )?;
            let Some((id, value)) = found else {
                return Ok(());
            };
            let (record, prepared) = decode_active(id, value)?;
            self.active.insert(id, ActiveTx::new(&record.tx, u64::from(prepared.pages)));
        }
    }

    /// Prepares a transaction.
    pub(crate) fn stage_prepared(&mut self, tx: &Tx, id: TxId) -> Result<Staged, StageError> {
        if tx.objects.is_empty() || !tx.ops.iter().all(may_be_prepared) {
            return Err(StageError::NotPreparable);
        }
        match self.tx_state(id)? {
            TxState::Unknown => {}
            // It may start again, later than what was aborted.
            TxState::Aborted if self.ended(id)?.is_some_and(|e| e.epoch < tx.epoch) => {}
            state => return Err(StageError::WrongState { id, state }),
        }
        self.may_stage(tx)?;
        let mut stage = Stage::begin(self, tx, Placer::Fresh);
        let result = stage.run(tx, None).and_then(|()| stage.may_write(tx));
        let Stage { placed, decisions, writes, .. } = &mut stage;
        let (placed, decisions) = (std::mem::take(placed), std::mem::take(decisions));
        let writes = std::mem::take(writes);
        stage.restore();
        if let Err(e) = result {
            return Err(self.refuse(tx, e));
        }
        let pages = self.pool.changed_pages() * 2 + tx.ops.len() as u64 + 8;
        self.rollback();
        let pages = u32::try_from(pages).map_err(|_| StageError::TooLarge)?;
        let prepared = Prepared { id, pages };
        let record = log::encode(self.seq + 1, tx, &decisions, &placed, Some(prepared));
        let active = ActiveTx::new(tx, u64::from(pages));
        if !self.active.has_room(&active) {
            return Err(StageError::TooManyPrepared);
        }
        let mut stage = Stage::begin(self, tx, Placer::Fresh);
        let result = stage.keep_prepared(prepared, &placed, &record, true);
        if let Err(e) = result {
            stage.restore();
            return Err(self.refuse(tx, e));
        }
        let freed = self.commit();
        self.active.insert(id, active);
        self.note_staged(tx);
        let containers = self.containers_of(tx);
        Ok(Staged { seq: self.seq, record, writes, freed, containers, aggregated: None })
    }

    /// Prepares a transaction as it was logged.
    pub(crate) fn replay_prepared(
        &mut self,
        record: &Record,
        prepared: Prepared,
    ) -> Result<(), ReplayError> {
        let Record { tx, decisions, placed, .. } = record;
        let bytes = log::encode(record.seq, tx, decisions, placed, Some(prepared));
        let sound = !tx.objects.is_empty()
            && tx.ops.iter().all(may_be_prepared)
            && self.active.get(prepared.id).is_none();
        let mut stage = Stage::begin(self, tx, Placer::Fresh);
        let result = match sound {
            true => stage.keep_prepared(prepared, placed, &bytes, false),
            false => Err(StageError::NotPreparable),
        };
        if result.is_err() {
            stage.restore();
            self.rollback();
            return Err(not_replayed(result, record.seq));
        }
        self.commit();
        self.seq = self.seq.max(record.seq);
        self.active.insert(prepared.id, ActiveTx::new(tx, u64::from(prepared.pages)));
        Ok(())
    }

    /// The transactions that `tx` has ended hold nothing any more.
    pub(crate) fn note_ended(&mut self, tx: &Tx) {
        for op in &tx.ops {
            if let TxOp::CommitPrepared(id) | TxOp::AbortPrepared(id) = op {
                self.active.remove(*id);
            }
        }
    }

    /// The record of an active transaction.
    pub(crate) fn active_record(&self, id: TxId) -> Result<Record, ReadError> {
        let value = tree::get(&self.pool, self.root, &active_key(id))?;
        let value = value.ok_or_else(|| entry_damaged(TABLE_ACTIVE))?;
        Ok(decode_active(id, value)?.0)
    }

    fn ended(&self, id: TxId) -> Result<Option<Ended>, ReadError> {
        tree::get(&self.pool, self.root, &ended_key(id))?.map(Ended::decode).transpose()
    }

    /// State of a transaction in the tables, whatever is in memory.
    fn stored_state(&self, id: TxId) -> Result<TxState, ReadError> {
        match tree::get(&self.pool, self.root, &active_key(id))?.is_some() {
            true => Ok(TxState::Prepared),
            false => Ok(self.ended(id)?.map_or(TxState::Unknown, Ended::state)),
        }
    }
}

impl Stage<'_> {
    /// Puts a prepared transaction into its table, and takes the blocks of its data.
    fn keep_prepared(
        &mut self,
        prepared: Prepared,
        placed: &[Placed],
        record: &[u8],
        fresh: bool,
    ) -> Result<(), StageError> {
        if !placed.iter().all(|p| self.vos.space.claim(p.run())) {
            return Err(StageError::NoSpace);
        }
        self.forget_end(prepared.id)?;
        let vos = &mut *self.vos;
        tree::insert(&mut vos.pool, &mut vos.root, &active_key(prepared.id), record)?;
        let needed = vos.pages_needed() + u64::from(prepared.pages);
        if fresh && vos.space.page_slots() < needed {
            return Err(StageError::NoSpace);
        }
        Ok(())
    }

    /// Applies a prepared transaction.
    pub(crate) fn commit_prepared(&mut self, tx: &Tx, id: TxId) -> Result<(), StageError> {
        match self.vos.stored_state(id)? {
            TxState::Prepared => {}
            TxState::Committed(_) => return Ok(()),
            state => return Err(StageError::WrongState { id, state }),
        }
        self.flush(tx)?;
        let record = self.vos.active_record(id)?;
        let placed: Rc<[Placed]> = record.placed.into();
        let outer = (
            std::mem::replace(&mut self.epoch, Epoch::new(record.tx.epoch, 0)),
            std::mem::replace(&mut self.placer, Placer::Prepared(Rc::clone(&placed))),
            std::mem::take(&mut self.placed),
            std::mem::take(&mut self.decisions),
            std::mem::replace(
                &mut self.loaded,
                record.tx.objects.iter().map(|_| Loaded::unknown()).collect(),
            ),
        );
        let result = self.run_ops(&record.tx, Some(&record.decisions));
        let used_up = self.placed.len() == placed.len();
        (self.epoch, self.placer, self.placed, self.decisions, self.loaded) = outer;
        match result {
            Ok(()) if used_up => self.end(id, record.tx.epoch, true),
            Err(e @ (StageError::Missing(_) | StageError::Damaged(_) | StageError::NoSpace)) => {
                Err(e)
            }
            // It could be done when it was prepared.
            _ => Err(impossible(TABLE_ACTIVE)),
        }
    }

    /// Undoes a prepared transaction.
    pub(crate) fn abort_prepared(&mut self, tx: &Tx, id: TxId) -> Result<(), StageError> {
        match self.vos.stored_state(id)? {
            TxState::Prepared => {}
            TxState::Unknown => return self.end(id, tx.epoch, false),
            TxState::Aborted => return Ok(()),
            // It had been forgotten, which is not in the WAL.
            TxState::Committed(_) if matches!(self.placer, Placer::Recorded(_)) => {
                self.forget_end(id)?;
                return self.end(id, tx.epoch, false);
            }
            state @ TxState::Committed(_) => return Err(StageError::WrongState { id, state }),
        }
        let record = self.vos.active_record(id)?;
        for placed in &record.placed {
            self.vos.space.free(placed.run());
        }
        self.end(id, record.tx.epoch, false)
    }

    fn end(&mut self, id: TxId, epoch: u64, committed: bool) -> Result<(), StageError> {
        self.given_back += self.vos.active.get(id).map_or(0, |a| a.pages);
        let vos = &mut *self.vos;
        tree::remove(&mut vos.pool, &mut vos.root, &active_key(id))?;
        let value = Ended { epoch, committed }.encode();
        tree::insert(&mut vos.pool, &mut vos.root, &ended_key(id), &value)?;
        tree::insert(&mut vos.pool, &mut vos.root, &epoch_key(epoch, &id.0), &[])?;
        Ok(())
    }

    /// Forgets that a transaction was aborted: it is prepared again.
    fn forget_end(&mut self, id: TxId) -> Result<(), StageError> {
        match self.vos.ended(id)? {
            Some(ended) => self.forget(&epoch_key(ended.epoch, &id.0)),
            None => Ok(()),
        }
    }

    /// Removes an ended transaction by its key with the epoch.
    fn forget(&mut self, key: &[u8]) -> Result<(), StageError> {
        let id = key.get(10..).and_then(|id| id.try_into().ok()).map(TxId);
        let id = id.ok_or_else(|| impossible(TABLE_ENDED))?;
        let vos = &mut *self.vos;
        tree::remove(&mut vos.pool, &mut vos.root, key)?;
        tree::remove(&mut vos.pool, &mut vos.root, &ended_key(id))?;
        Ok(())
    }
}

/// Whether an operation depends on nothing but what a prepared transaction holds.
fn may_be_prepared(op: &TxOp) -> bool {
    match op {
        TxOp::CreateObject { .. }
        | TxOp::Update { .. }
        | TxOp::Write { .. }
        | TxOp::Truncate { .. }
        | TxOp::PunchRange { .. }
        | TxOp::PunchAkey { .. }
        | TxOp::PunchAkeys { .. }
        | TxOp::PunchDkey { .. }
        | TxOp::PunchObject { .. }
        | TxOp::Retain { .. }
        | TxOp::Require { .. } => true,
        TxOp::CreateContainer(_)
        | TxOp::CreateContainerIn { .. }
        | TxOp::DestroyContainer(_)
        | TxOp::SplitContainer { .. }
        | TxOp::MergeContainer { .. }
        | TxOp::RetainContainer { .. }
        | TxOp::SetProperty { .. }
        | TxOp::Aggregate { .. }
        | TxOp::Merge { .. }
        | TxOp::Discard { .. }
        | TxOp::Clone { .. }
        | TxOp::Import { .. }
        | TxOp::CommitPrepared(_)
        | TxOp::AbortPrepared(_) => false,
    }
}

fn active_key(id: TxId) -> Vec<u8> {
    [&[TABLE_ACTIVE][..], &id.0].concat()
}

/// Id in the key of an active transaction.
pub(crate) fn active_id(key: &[u8]) -> Result<TxId, ReadError> {
    let id = key.get(1..).and_then(|id| id.try_into().ok()).map(TxId);
    id.ok_or_else(|| entry_damaged(TABLE_ACTIVE))
}

fn ended_key(id: TxId) -> Vec<u8> {
    [&[TABLE_ENDED, BY_ID][..], &id.0].concat()
}

fn epoch_key(epoch: u64, id: &[u8]) -> Vec<u8> {
    [&[TABLE_ENDED, BY_EPOCH][..], &epoch.to_be_bytes(), id].concat()
}

/// Decodes an entry of the table of active transactions.
pub(crate) fn decode_active(id: TxId, value: Bytes) -> Result<(Record, Prepared), ReadError> {
    let damaged = || entry_damaged(TABLE_ACTIVE);
    let record = Record::decode(value).map_err(|_| damaged())?;
    let prepared = record.prepared.filter(|p| p.id == id).ok_or_else(damaged)?;
    Ok((record, prepared))
}

/// Id and epoch in the key of an ended transaction; no epoch in that by id.
pub(crate) fn ended_of(key: &[u8]) -> Result<(TxId, Option<u64>), ReadError> {
    let parse = || match key.split_at_checked(2)? {
        ([_, BY_ID], id) => Some((TxId(id.try_into().ok()?), None)),
        ([_, BY_EPOCH], rest) => {
            let (epoch, id) = rest.split_at_checked(8)?;
            let epoch = u64::from_be_bytes(epoch.try_into().ok()?);
            Some((TxId(id.try_into().ok()?), Some(epoch)))
        }
        _ => None,
    };
    parse().ok_or_else(|| entry_damaged(TABLE_ENDED))
}

/// Decodes entries of both tables.
pub(crate) fn fuzz(value: Bytes) {
    if let Ok(ended) = Ended::decode(value.clone()) {
        assert_eq!(Ended::decode(ended.encode().into()), Ok(ended));
    }
    let _ = ended_of(&value);
    let Ok(record) = Record::decode(value) else {
        return;
    };
    if let Some(prepared) = record.prepared {
        let Record { seq, tx, decisions, placed, .. } = &record;
        let again = log::encode(*seq, tx, decisions, placed, Some(prepared));
        assert!(decode_active(prepared.id, again.into()).is_ok());
    }
}
