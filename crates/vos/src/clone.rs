//! Cloning a range of an array into another one: the blocks are shared, no data is copied.
//!
//! The range is what the source shows at an epoch, cut off at its size then; what was never written
//! covers the destination all the same. Inline bytes, being metadata, are copied.

use bytes::Bytes;

use crate::array::names_beyond;
use crate::codec::{Malformed, Reader, put_bytes, put_u64, put_varint};
use crate::epoch::{Epoch, Scene};
use crate::item::{Array, Body, Piece, SizeOp};
use crate::stage::{Stage, check_keys};
use crate::tx::Tx;
use crate::types::{ARRAY_SIZE_MAX, BLOCK_SIZE, ContainerId, ObjectKey, StageError};
use crate::view::Visible;

/// A position in an array.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position<'a> {
    /// Container of the object.
    pub cid: ContainerId,
    /// The object.
    pub oid: &'a ObjectKey,
    /// Dkey of the array.
    pub dkey: &'a [u8],
    /// Akey of the array.
    pub akey: &'a [u8],
    /// Offset in the array.
    pub offset: u64,
}

/// The operation; objects are indices into those of the transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct CloneRange {
    pub(crate) source: u32,
    /// Of the source.
    pub(crate) epoch: u64,
    pub(crate) len: u64,
    pub(crate) from: (Bytes, Bytes, u64),
    pub(crate) to: (Bytes, Bytes, u64),
}

impl CloneRange {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, u64::from(self.source));
        put_u64(out, self.epoch);
        put_varint(out, self.len);
        for (dkey, akey, offset) in [&self.from, &self.to] {
            put_bytes(out, dkey);
            put_bytes(out, akey);
            put_varint(out, *offset);
        }
    }

    pub(crate) fn decode(r: &mut Reader, objects: usize) -> Result<CloneRange, Malformed> {
        let source: u32 = r.int()?;
        if source as usize >= objects {
            return Err(Malformed);
        }
        let (epoch, len) = (r.u64()?, r.varint()?);
        let from = (r.bytes()?, r.bytes()?, r.varint()?);
        let to = (r.bytes()?, r.bytes()?, r.varint()?);
        Ok(CloneRange { source, epoch, len, from, to })
    }

    pub(crate) fn key_bytes(&self) -> usize {
        [&self.from, &self.to].iter().map(|(d, a, _)| d.len() + a.len() + 32).sum()
    }
}

impl Stage<'_> {
    /// Makes a range of an array what a range of another one shows.
    pub(crate) fn clone_range(
        &mut self,
        tx: &Tx,
        object: u32,
        clone: &CloneRange,
    ) -> Result<(), StageError> {
        let (dkey, akey, offset) = &clone.to;
        check_keys(&clone.from.0, &clone.from.1)?;
        check_keys(dkey, akey)?;
        let (pieces, len) = self.clone_source(tx, clone)?;
        let end = offset.checked_add(len).filter(|&e| e <= ARRAY_SIZE_MAX);
        let end = end.ok_or(StageError::TooLarge)?;
        let found = self.take_array(tx, object, dkey, akey)?;
        let (existed, mut array) = (found.is_some(), found.unwrap_or_default());
        let scene = self.scene(tx, object, dkey, akey)?;
        let new = self.moved_pieces(pieces, (*offset, end), self.needs_gaps(&array, &scene));
        self.share_pieces(&array, (*offset, end), &new)?;
        self.cut(&mut array, &scene, (*offset, end), new)?;
        self.resize(&mut array, existed, &scene, SizeOp::Grow(end))?;
        self.put_array(object, dkey, akey, array)
    }

    /// The pieces that the source shows, by their distance from the start of the range, and its length.
    fn clone_source(
        &mut self,
        tx: &Tx,
        clone: &CloneRange,
    ) -> Result<(Vec<Piece>, u64), StageError> {
        let (dkey, akey, offset) = &clone.from;
        let at = match clone.epoch < self.epoch.hlc {
            true => Epoch::end_of(clone.epoch),
            false => self.epoch,
        };
        let container = tx.objects.get(clone.source as usize).map(|(cid, _)| *cid);
        let container = container.and_then(|cid| self.vos.containers.get(&cid));
        let mut retained = container.map_or(Vec::new(), |c| c.record.retained.to_vec());
        let Some(record) = self.found(tx, clone.source)? else {
            return Err(StageError::NonExistent);
        };
        retained.extend_from_slice(&record.retained);
        if at.hlc < record.horizon && !retained.contains(&at.hlc) {
            return Err(StageError::EpochTooOld { epoch: at.hlc, horizon: record.horizon });
        }
        if !record.log.exists_at(at) {
            return Err(StageError::NonExistent);
        }
        let item = self.item(tx, clone.source, dkey, akey)?.ok_or(StageError::NonExistent)?;
        let punches = self.punches_of(clone.source, dkey, akey)?;
        let (array, size, punches) = match self.vos.visible_at(item, punches, at)? {
            Some(Visible::Array { array, size, punches }) => (array, size, punches),
            Some(Visible::Single(_)) => return Err(StageError::WrongKind),
            None => return Err(StageError::NonExistent),
        };
        let end = offset.saturating_add(clone.len).min(size);
        if *offset >= end {
            return Ok((Vec::new(), 0));
        }
        let mut pieces = self.vos.pieces_at(&array, &punches, at, (*offset, end))?;
        for piece in &mut pieces {
            *piece = piece.slice(piece.offset.max(*offset), piece.end().min(end));
            piece.offset -= offset;
        }
        Ok((pieces, end - offset))
    }

    /// Whether what is older and still to come must find the gaps of the range.
    fn needs_gaps(&self, array: &Array, scene: &Scene) -> bool {
        scene.expects_older(self.epoch) || self.epoch < array.epoch
    }

    /// The pieces at their new place, with the gaps between them if wanted.
    fn moved_pieces(&self, pieces: Vec<Piece>, (from, to): (u64, u64), gaps: bool) -> Vec<Piece> {
        let (epoch, mut at) = (self.epoch, from);
        let gap = |offset: u64, end: u64| {
            let body = Body::Hole { len: end - offset, punched: false };
            Some(Piece { offset, epoch, body }).filter(|_| gaps && offset < end)
        };
        let mut out = Vec::with_capacity(pieces.len());
        let is_gap = |p: &Piece| matches!(p.body, Body::Hole { punched: false, .. });
        for piece in pieces.into_iter().filter(|p| !is_gap(p)) {
            let piece = Piece { offset: piece.offset + from, epoch, body: piece.body };
            out.extend(gap(at, piece.offset));
            at = piece.end();
            out.push(piece);
        }
        out.extend(gap(at, to));
        out
    }

    /// Counts the names that an array is going to have by `new`, those that it has apart.
    fn share_pieces(
        &mut self,
        array: &Array,
        (from, to): (u64, u64),
        new: &[Piece],
    ) -> Result<(), StageError> {
        let (lo, hi) = (from.saturating_sub(BLOCK_SIZE), to.saturating_add(BLOCK_SIZE));
        let mut named = self.vos.pieces(&array.extents, lo, hi)?;
        if array.history != 0 {
            let old = self.vos.old_pieces(array.history, lo, hi)?;
            named.extend(old.into_iter().map(|o| o.piece));
        }
        names_beyond(new, named.iter()).into_iter().try_for_each(|run| self.share(run))
    }
}

impl Tx {
    /// Makes `len` bytes at `to` what the array at `from` showed at `epoch` (with earlier operations
    /// of this transaction, if that is its own), cut off at the size it had. Blocks are shared.
    pub fn clone_range(&mut self, from: Position<'_>, epoch: u64, len: u64, to: Position<'_>) {
        let source = self.object(from.cid, from.oid);
        let object = self.object(to.cid, to.oid);
        let place = |p: &Position<'_>| {
            (Bytes::copy_from_slice(p.dkey), Bytes::copy_from_slice(p.akey), p.offset)
        };
        let clone = CloneRange { source, epoch, len, from: place(&from), to: place(&to) };
        self.ops.push(crate::tx::TxOp::Clone { object, clone: Box::new(clone) });
    }
}
