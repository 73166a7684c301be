//! Staging: runs a transaction against the pages in memory, all or nothing.
//!
//! [`Vos::stage`] decides where data goes and gives the WAL record; [`Vos::replay`] runs a record with the
//! decisions it carries. Both end with everything applied or nothing changed.
//! Invariant: what a transaction does to an object depends only on that object's history and the
//! recorded decisions, so records of different containers may be replayed in another order.

use std::rc::Rc;

use bytes::Bytes;

use crate::aggregate::Cursor;
use crate::array::Gather;
use crate::epoch::{Epoch, Scene};
use crate::item::{Array, Body, INLINE_EXTENT_MAX, Piece, SizeOp};
use crate::log::{self, Decision, Placed, Record};
use crate::object::{Loaded, Touch};
use crate::record::TABLE_OBJECT;
use crate::space::Run;
use crate::tx::{Tx, TxOp};
use crate::types::{
    ARRAY_SIZE_MAX, BLOCK_SIZE, BlockAddr, ContainerId, Damage, KEY_LEN_MAX, ObjectKey, PageId,
    StageError, VALUE_LEN_MAX,
};
use crate::vos::{Container, Vos};

/// A clone of more bytes is not looked at for the pages it may need.
const CLONE_ROOM_MAX: u64 = 64 << 20;

/// What the caller must do with a staged transaction.
#[derive(Debug, Default)]
pub struct Staged {
    /// Its number; replay applies records in this order within a container.
    pub seq: u64,
    /// The WAL record. It may be written once all `writes` have completed.
    pub record: Vec<u8>,
    /// Data to be written, in whole blocks (the last one padded with zeros).
    pub writes: Vec<DataWrite>,
    /// Blocks to be given to [`Vos::release`] when that is safe.
    pub freed: Vec<Run>,
    /// Containers it touches: records enter the WAL in staging order within each of them.
    pub containers: Vec<ContainerId>,
    /// Where its aggregation, or its discard, if it had one, is to go on; `None` if that is done.
    pub aggregated: Option<Cursor>,
}

/// One data write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DataWrite {
    /// First block.
    pub addr: BlockAddr,
    /// The bytes.
    pub data: Bytes,
}

/// Why a WAL record could not be applied.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReplayError {
    /// As in [`StageError`].
    #[error(transparent)]
    Stage(#[from] StageError),
    /// The record contradicts the state it is applied to.
    #[error("WAL record {seq} does not fit the store")]
    Contradiction {
        /// Number of the record.
        seq: u64,
    },
}

impl Vos {
    /// Applies `tx` in memory and says what to write; on an error nothing has changed.
    pub fn stage(&mut self, tx: &Tx) -> Result<Staged, StageError> {
        self.check_room(tx)?;
        self.stage_in_room(tx)
    }

    /// As [`Vos::stage`], when its pages are known to find room.
    pub(crate) fn stage_in_room(&mut self, tx: &Tx) -> Result<Staged, StageError> {
        if let Some(id) = tx.prepare {
            return self.stage_prepared(tx, id);
        }
        self.may_stage(tx)?;
        let mut stage = Stage::begin(self, tx, Placer::Fresh);
        match stage.run(tx, None).and_then(|()| stage.may_write(tx)) {
            Ok(()) => {
                let Stage { placed, decisions, writes, aggregated, .. } = stage;
                let freed = self.commit();
                let record = log::encode(self.seq, tx, &decisions, &placed, None);
                let containers = self.containers_of(tx);
                self.note_ended(tx);
                self.note_staged(tx);
                Ok(Staged { seq: self.seq, record, writes, freed, containers, aggregated })
            }
            Err(e) => Err(self.refuse(tx, e)),
        }
    }

    /// Undoes what was staged.
    pub(crate) fn refuse(&mut self, tx: &Tx, e: StageError) -> StageError {
        self.rollback();
        self.note_refused(tx, &e);
        self.more_missing(tx, e)
    }

    /// What a record is in one order with: the containers it is about, and transactions it ends.
    pub(crate) fn containers_of(&self, tx: &Tx) -> Vec<ContainerId> {
        let mut containers: Vec<ContainerId> = tx.objects.iter().map(|o| o.0).collect();
        for op in &tx.ops {
            containers.extend(op.containers().into_iter().flatten());
            if let TxOp::CommitPrepared(id) | TxOp::AbortPrepared(id) = op {
                let active = self.active.get(*id);
                containers.extend(active.map_or(&[][..], |a| &a.containers));
                containers.push(ContainerId(id.0));
            }
        }
        containers.extend(tx.prepare.map(|id| ContainerId(id.0)));
        containers.sort_unstable();
        containers.dedup();
        containers
    }

    /// Applies a record of the WAL that the last checkpoint does not hold.
    pub fn replay(&mut self, record: &Record) -> Result<(), ReplayError> {
        if let Some(prepared) = record.prepared {
            return self.replay_prepared(record, prepared);
        }
        let mut stage = Stage::begin(self, &record.tx, Placer::Recorded(&record.placed));
        let result = stage.run(&record.tx, Some(&record.decisions));
        let used_up = stage.placed.len() == record.placed.len();
        match result {
            Ok(()) if used_up => {
                let freed = self.commit();
                self.seq = self.seq.max(record.seq);
                self.note_ended(&record.tx);
                // Whoever reused these blocks did so after the record was durable: so in later records.
                self.release(&freed);
                Ok(())
            }
            result => {
                self.rollback();
                Err(not_replayed(result, record.seq))
            }
        }
    }

    pub(crate) fn begin(&mut self) {
        self.pool.begin();
        self.container_undo.clear();
    }

    pub(crate) fn commit(&mut self) -> Vec<Run> {
        self.pool.commit();
        self.container_undo.clear();
        self.seq += 1;
        self.space.commit()
    }

    pub(crate) fn set_container(&mut self, cid: ContainerId, container: Option<Container>) {
        let before = match container {
            Some(c) => self.containers.insert(cid, c),
            None => self.containers.remove(&cid),
        };
        self.container_undo.push((cid, before));
    }

    pub(crate) fn take_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number - 1
    }

    /// Undoes everything since `begin` but the three counters that [`Stage::run`] restores.
    pub(crate) fn rollback(&mut self) {
        self.pool.rollback();
        self.space.rollback();
        while let Some((cid, before)) = self.container_undo.pop() {
            match before {
                Some(container) => self.containers.insert(cid, container),
                None => self.containers.remove(&cid),
            };
        }
    }

    /// Refuses what could leave pages without room at the next checkpoint.
    pub(crate) fn check_room(&self, tx: &Tx) -> Result<(), StageError> {
        if !tx.ops.is_empty() && tx.ops.iter().all(TxOp::ends_prepared) {
            // Its pages were kept back.
            return Ok(());
        }
        let bytes: u64 = tx
            .ops
            .iter()
            .map(|op| match op {
                TxOp::Update { value, .. } => value.len() as u64,
                TxOp::Write { len, .. } => {
                    if *len < u64::from(self.config.inline_threshold) {
                        *len
                    } else {
                        len / 256
                    }
                }
                // The source may be shorter.
                TxOp::Clone { clone, .. } => clone.len.min(CLONE_ROOM_MAX) / 256,
                TxOp::Import { import, .. } => import.log_bytes() as u64 * 2,
                _ => 0,
            })
            .sum();
        let pages = bytes / 4096 + tx.ops.len() as u64 + 8;
        let headroom = if tx.reclaims && bytes < 1 << 18 { 0 } else { self.headroom() };
        match self.space.page_slots() >= self.pages_needed() + pages + headroom {
            true => Ok(()),
            false => Err(StageError::NoSpace),
        }
    }

    /// Adds the pages that the other operations are going to miss, so that one load serves all.
    fn more_missing(&self, tx: &Tx, e: StageError) -> StageError {
        let StageError::Missing(mut pages) = e else {
            return e;
        };
        self.add_missing(tx, &mut pages);
        pages.sort_unstable();
        pages.dedup();
        StageError::Missing(pages)
    }

    /// The next pages on the way to the objects of the records that are not in memory, so that one load
    /// serves all.
    pub fn missing_for(&self, records: &[Record]) -> Vec<PageId> {
        let mut pages = Vec::new();
        records.iter().for_each(|record| self.add_missing(&record.tx, &mut pages));
        pages.sort_unstable();
        pages.dedup();
        pages
    }

    fn add_missing(&self, tx: &Tx, pages: &mut Vec<PageId>) {
        let view = self.at(u64::MAX).committed();
        for (cid, oid) in &tx.objects {
            if let Err(crate::ReadError::Missing(more)) = view.object_exists(*cid, oid) {
                pages.extend(more);
            }
        }
    }
}

/// Where data goes: decided now, or as the record says.
pub(crate) enum Placer<'a> {
    Fresh,
    Recorded(&'a [Placed]),
    /// As recorded when it was prepared: the blocks are its own.
    Prepared(Rc<[Placed]>),
}

/// A transaction being applied.
pub(crate) struct Stage<'a> {
    pub(crate) vos: &'a mut Vos,
    /// Of the operation being applied.
    pub(crate) epoch: Epoch,
    pub(crate) placer: Placer<'a>,
    reclaims: bool,
    /// The first object: it stands for all when it comes to where data lies.
    first: Option<&'a ObjectKey>,
    pub(crate) loaded: Vec<Loaded>,
    pub(crate) placed: Vec<Placed>,
    pub(crate) decisions: Vec<Decision>,
    pub(crate) writes: Vec<DataWrite>,
    aggregated: Option<Cursor>,
    /// Its changes will be taken back, and made again later.
    pub(crate) prepares: bool,
    /// Pages that were kept back for what the transaction has committed or aborted.
    pub(crate) given_back: u64,
    saved: (crate::PageId, u64, bool),
}

impl<'a> Stage<'a> {
    pub(crate) fn begin(vos: &'a mut Vos, tx: &'a Tx, placer: Placer<'a>) -> Stage<'a> {
        vos.begin();
        let saved = (vos.root, vos.next_number, vos.garbage);
        let loaded = tx.objects.iter().map(|_| Loaded::unknown()).collect();
        Stage {
            vos,
            epoch: Epoch::new(tx.epoch, 0),
            placer,
            reclaims: tx.reclaims,
            first: tx.objects.first().map(|(_, oid)| oid),
            loaded,
            placed: Vec::new(),
            decisions: Vec::with_capacity(tx.ops.len()),
            writes: Vec::new(),
            aggregated: None,
            prepares: tx.prepare.is_some(),
            given_back: 0,
            saved,
        }
    }

    pub(crate) fn for_collection(vos: &'a mut Vos, tx: &'a Tx) -> Stage<'a> {
        Stage::begin(vos, tx, Placer::Fresh)
    }

    /// Puts the tree's root and the counters back; the pages follow in [`Vos::rollback`].
    pub(crate) fn restore(&mut self) {
        (self.vos.root, self.vos.next_number, self.vos.garbage) = self.saved;
    }

    pub(crate) fn run(
        &mut self,
        tx: &Tx,
        decisions: Option<&[Decision]>,
    ) -> Result<(), StageError> {
        let mut result = self.run_ops(tx, decisions).and_then(|()| self.settle_freed());
        // What it has changed must find room at the next checkpoint, however much that is.
        let needed = self.vos.pages_needed().saturating_sub(self.given_back);
        if decisions.is_none() && self.vos.space.page_slots() < needed {
            result = result.and(Err(StageError::NoSpace));
        }
        if result.is_err() {
            self.restore();
        }
        result
    }

    pub(crate) fn run_ops(
        &mut self,
        tx: &Tx,
        decisions: Option<&[Decision]>,
    ) -> Result<(), StageError> {
        if tx.horizon() > tx.epoch {
            return Err(StageError::EpochTooOld { epoch: tx.epoch, horizon: tx.horizon() });
        }
        for op in &tx.ops {
            let at = self.decisions.len();
            self.epoch.minor = u16::try_from(at).unwrap_or(u16::MAX);
            let recorded = match decisions {
                Some(d) => Some(*d.get(at).ok_or(StageError::TooLarge)?),
                None => None,
            };
            let decision = self.apply(tx, op, recorded)?;
            if op.is_logged() {
                self.decisions.push(decision);
            }
        }
        self.flush(tx)
    }

    fn apply(
        &mut self,
        tx: &Tx,
        op: &TxOp,
        recorded: Option<Decision>,
    ) -> Result<Decision, StageError> {
        match op {
            TxOp::CreateContainer(cid) => {
                self.flush(tx)?;
                self.create_container(*cid, &Bytes::new(), None)?;
            }
            TxOp::CreateContainerIn { cid, from, to } => {
                self.flush(tx)?;
                self.create_container(*cid, from, to.as_ref())?;
            }
            TxOp::DestroyContainer(cid) => {
                self.flush(tx)?;
                self.destroy_container(*cid)?;
            }
            TxOp::SplitContainer { cid, at, upper } => {
                self.flush(tx)?;
                self.split_container(*cid, at, *upper)?;
            }
            TxOp::MergeContainer { cid, upper } => {
                self.flush(tx)?;
                self.merge_container(*cid, *upper)?;
            }
            TxOp::RetainContainer { cid, epochs } => self.retain_container(*cid, epochs)?,
            TxOp::CreateObject { object } => {
                self.record(tx, *object, Touch::CreatesEmpty)?;
            }
            TxOp::Retain { object, epochs } => self.retain(tx, *object, epochs)?,
            TxOp::Aggregate { object, cursor, budget } => {
                self.aggregated = self.aggregate(tx, *object, cursor.clone(), *budget)?;
            }
            TxOp::Merge { object, merge } => return self.merge(tx, *object, merge, recorded),
            TxOp::Discard { object, from, to, cursor, budget } => {
                let step = (cursor.clone(), *budget);
                self.aggregated = self.discard(tx, *object, (*from, *to), step)?;
            }
            TxOp::Require { object, target, must } => self.require(tx, *object, target, *must)?,
            TxOp::CommitPrepared(id) => self.commit_prepared(tx, *id)?,
            TxOp::AbortPrepared(id) => self.abort_prepared(tx, *id)?,
            TxOp::Clone { object, clone } => self.clone_range(tx, *object, clone)?,
            TxOp::Import { object, import } => self.import(tx, *object, import)?,
            TxOp::SetProperty { cid, name, value } => {
                self.set_property(*cid, name, value.as_ref())?;
            }
            TxOp::Update { object, dkey, akey, value } => {
                check_keys(dkey, akey)?;
                if value.len() > VALUE_LEN_MAX {
                    return Err(StageError::TooLarge);
                }
                self.update(tx, *object, dkey, akey, value)?;
            }
            TxOp::Write { .. } | TxOp::Truncate { .. } | TxOp::PunchRange { .. } => {
                return self.apply_to_array(tx, op, recorded);
            }
            TxOp::PunchAkey { object, dkey, akey } => self.punch_akey(tx, *object, dkey, akey)?,
            TxOp::PunchAkeys { object, dkey, from, to } => {
                self.punch_akeys(tx, *object, dkey, from, to.as_ref())?;
            }
            TxOp::PunchDkey { object, dkey } => {
                self.punch_akeys(tx, *object, dkey, &Bytes::new(), None)?;
            }
            TxOp::PunchObject { object } => self.punch_object(tx, *object)?,
        }
        Ok(Decision::default())
    }

    fn apply_to_array(
        &mut self,
        tx: &Tx,
        op: &TxOp,
        recorded: Option<Decision>,
    ) -> Result<Decision, StageError> {
        let (TxOp::Write { object, dkey, akey, .. }
        | TxOp::Truncate { object, dkey, akey, .. }
        | TxOp::PunchRange { object, dkey, akey, .. }) = op
        else {
            return Err(impossible(TABLE_OBJECT));
        };
        check_keys(dkey, akey)?;
        let found = self.take_array(tx, *object, dkey, akey)?;
        let (existed, mut array) = (found.is_some(), found.unwrap_or_default());
        let scene = self.scene(tx, *object, dkey, akey)?;
        let (decision, size) = match op {
            TxOp::Write { .. } => self.write(&mut array, &scene, op, recorded)?,
            TxOp::Truncate { size, .. } => {
                self.truncate(&mut array, &scene, *size)?;
                (Decision::default(), SizeOp::Set(*size))
            }
            TxOp::PunchRange { offset, len, .. } => {
                self.punch_range(&mut array, &scene, *offset, *len)?;
                (Decision::default(), SizeOp::Grow(0))
            }
            _ => return Err(impossible(TABLE_OBJECT)),
        };
        self.resize(&mut array, existed, &scene, size)?;
        self.put_array(*object, dkey, akey, array)?;
        Ok(decision)
    }

    fn write(
        &mut self,
        array: &mut Array,
        scene: &Scene,
        op: &TxOp,
        recorded: Option<Decision>,
    ) -> Result<(Decision, SizeOp), StageError> {
        let TxOp::Write { offset, len, data, crcs, .. } = op else {
            return Err(impossible(TABLE_OBJECT));
        };
        let end = offset.checked_add(*len).filter(|&e| e <= ARRAY_SIZE_MAX);
        let end = end.ok_or(StageError::TooLarge)?;
        if *len == 0 {
            return Ok((Decision::default(), SizeOp::Grow(end)));
        }
        let threshold = u64::from(self.vos.config.inline_threshold);
        let device = recorded.map_or(*len >= threshold, |d| d.device);
        let pieces = match device {
            true => self.place(*offset, *len, data, crcs.as_deref())?,
            false => inline_pieces(*offset, self.epoch, data),
        };
        self.cut(array, scene, (*offset, end), pieces)?;
        let gather = match recorded {
            // What it gathered could be overwritten before it is committed.
            None if self.prepares => Gather::No,
            None => Gather::IfWorthwhile,
            Some(d) if d.gathered => Gather::Yes,
            Some(_) => Gather::No,
        };
        let gathered = !device && self.gather(array, scene, (*offset, end), gather)?;
        Ok((Decision { device, gathered }, SizeOp::Grow(end)))
    }

    fn truncate(&mut self, array: &mut Array, scene: &Scene, size: u64) -> Result<(), StageError> {
        if size > ARRAY_SIZE_MAX {
            return Err(StageError::TooLarge);
        }
        if scene.expects_older(self.epoch) || self.epoch < array.epoch {
            // What is older and still to come must find itself cut off.
            let len = ARRAY_SIZE_MAX - size;
            let body = Body::Hole { len, punched: false };
            let gap = Piece { offset: size, epoch: self.epoch, body };
            self.cut(array, scene, (size, ARRAY_SIZE_MAX), vec![gap])
        } else {
            self.cut(array, scene, (size, ARRAY_SIZE_MAX), Vec::new())
        }
    }

    fn punch_range(
        &mut self,
        array: &mut Array,
        scene: &Scene,
        offset: u64,
        len: u64,
    ) -> Result<(), StageError> {
        let end = offset.saturating_add(len).min(ARRAY_SIZE_MAX);
        if offset >= end {
            return Ok(());
        }
        let body = Body::Hole { len: end - offset, punched: true };
        let hole = Piece { offset, epoch: self.epoch, body };
        self.cut(array, scene, (offset, end), vec![hole])
    }

    /// Puts `len` bytes on the device; the pieces that then hold them.
    pub(crate) fn place(
        &mut self,
        offset: u64,
        len: u64,
        data: &Bytes,
        crcs: Option<&[u32]>,
    ) -> Result<Vec<Piece>, StageError> {
        let first = self.placed.len();
        match &self.placer {
            Placer::Fresh => self.place_fresh(len, data, crcs)?,
            Placer::Recorded(placed) => self.place_recorded(len, placed, true)?,
            Placer::Prepared(placed) => self.place_recorded(len, &Rc::clone(placed), false)?,
        }
        let (mut pieces, mut at) = (Vec::with_capacity(1), offset);
        for placed in &self.placed[first..] {
            pieces.extend(placed.pieces(at, self.epoch));
            at += u64::from(placed.len);
        }
        Ok(pieces)
    }

    fn place_recorded(
        &mut self,
        len: u64,
        placed: &[Placed],
        claim: bool,
    ) -> Result<(), StageError> {
        let mut found = 0;
        while found < len {
            let next = placed.get(self.placed.len()).ok_or(StageError::TooLarge)?;
            if claim && !self.vos.space.claim(next.run()) {
                return Err(StageError::NoSpace);
            }
            found += u64::from(next.len);
            self.placed.push(next.clone());
        }
        if found == len { Ok(()) } else { Err(StageError::TooLarge) }
    }

    fn place_fresh(
        &mut self,
        len: u64,
        data: &Bytes,
        crcs: Option<&[u32]>,
    ) -> Result<(), StageError> {
        let blocks = len.div_ceil(BLOCK_SIZE);
        let reserve = if self.reclaims { 0 } else { self.vos.data_reserve() };
        let hint = self.first.map_or(0, |oid| crc32c::crc32c(&oid.0).into());
        let runs = self.vos.space.allocate(blocks, reserve, hint);
        let runs = runs.ok_or(StageError::NoSpace)?;
        let given = crcs.filter(|c| c.len() as u64 == blocks);
        let mut at = 0;
        for (addr, count) in runs {
            let end = (at + count * BLOCK_SIZE).min(len);
            let piece = data.slice(at as usize..end as usize);
            let first = at / BLOCK_SIZE;
            let crcs = match given {
                Some(crcs) => crcs[first as usize..(first + count) as usize].to_vec(),
                None => piece.chunks(BLOCK_SIZE as usize).map(crc32c::crc32c).collect(),
            };
            debug_assert!(
                crcs.iter()
                    .zip(piece.chunks(BLOCK_SIZE as usize))
                    .all(|(c, p)| *c == crc32c::crc32c(p)),
                "the caller's checksums are those of the data"
            );
            self.placed.push(Placed { addr, len: piece.len() as u32, crcs });
            self.writes.push(DataWrite { addr, data: piece });
            at = end;
        }
        Ok(())
    }
}

/// Why a record was not applied.
pub(crate) fn not_replayed(result: Result<(), StageError>, seq: u64) -> ReplayError {
    match result {
        Err(e @ (StageError::Missing(_) | StageError::Damaged(_))) => e.into(),
        _ => ReplayError::Contradiction { seq },
    }
}

pub(crate) fn inline_pieces(offset: u64, epoch: Epoch, data: &Bytes) -> Vec<Piece> {
    let max = INLINE_EXTENT_MAX;
    let starts = (0..data.len()).step_by(max);
    let piece = |at: usize| Piece {
        offset: offset + at as u64,
        epoch,
        body: Body::Inline(data.slice(at..(at + max).min(data.len()))),
    };
    starts.map(piece).collect()
}

pub(crate) fn check_keys(dkey: &Bytes, akey: &Bytes) -> Result<(), StageError> {
    match dkey.len().max(akey.len()) {
        len if len > KEY_LEN_MAX => Err(StageError::KeyLength(len)),
        _ => Ok(()),
    }
}

/// The damage of a state that no sequence of transactions leads to.
pub(crate) fn impossible(table: u8) -> StageError {
    StageError::Damaged(Damage::Entry { table })
}
