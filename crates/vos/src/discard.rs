//! Discard: undoing all operations on an object in a range of epochs, as if they had never been.
//!
//! Everything above the horizon is kept exactly, so what they covered is still there: older versions get
//! the time back that the removed ones took from them.

use std::ops::ControlFlow;

use crate::aggregate::Cursor;
use crate::epoch::Epoch;
use crate::history::{OldPiece, Version};
use crate::item::{Array, ItemValue, Piece, Single};
use crate::plane::{self, Rect};
use crate::record::{Incarnation, TABLE_OBJECT};
use crate::stage::{Stage, impossible};
use crate::tree;
use crate::tx::Tx;
use crate::types::StageError;

impl Stage<'_> {
    /// Undoes the operations of `range`, both ends included, on some of the akeys; `None` when all is
    /// done. Punches that more than one akey knows of come last.
    pub(crate) fn discard(
        &mut self,
        tx: &Tx,
        object: u32,
        range: (u64, u64),
        (mut cursor, budget): (Cursor, u32),
    ) -> Result<Option<Cursor>, StageError> {
        let Some(record) = self.found(tx, object)? else {
            return Ok(None);
        };
        if range.0 <= record.horizon {
            return Err(StageError::EpochTooOld { epoch: range.0, horizon: record.horizon });
        }
        self.loaded[object as usize].changed = true;
        let mut left = budget.max(1) as usize;
        loop {
            let (dkey, akey) = cursor.place();
            let record = self.looked_up(object).ok_or(impossible(TABLE_OBJECT))?;
            let Some((dkey, akey, value)) = self.vos.akey_from(record, dkey, akey)? else {
                self.discard_punches(tx, object, range)?;
                return Ok(None);
            };
            let mut cost = 1;
            let value = match value {
                ItemValue::Single(single) => {
                    self.discard_single(single, range)?.map(ItemValue::Single)
                }
                ItemValue::Array(array) => {
                    cost += array.extents.count();
                    self.discard_array(array, range)?.map(ItemValue::Array)
                }
            };
            self.set_item(object, &dkey, &akey, value)?;
            cursor = Cursor::at(dkey, [&akey, &[0][..]].concat().into());
            left = left.saturating_sub(cost);
            if left == 0 {
                return Ok(Some(cursor));
            }
        }
    }

    fn discard_single(
        &mut self,
        mut single: Single,
        range: (u64, u64),
    ) -> Result<Option<Single>, StageError> {
        let number = single.history;
        let head = Version::from(single.value.take());
        match self.discard_versions(number, (single.epoch, head), range)? {
            Some((epoch, Version::Value(value))) => {
                Ok(Some(Single { epoch, value: Some(value), history: number }))
            }
            Some((epoch, _)) => Ok(Some(Single { epoch, value: None, history: number })),
            None => Ok(None),
        }
    }

    /// Removes the versions of a range; the newest that is left, taken out of the history.
    fn discard_versions(
        &mut self,
        number: u64,
        head: (Epoch, Version),
        range: (u64, u64),
    ) -> Result<Option<(Epoch, Version)>, StageError> {
        let mut all: Vec<(Epoch, Version)> = Vec::new();
        if number != 0 {
            self.vos.scan_versions(number, Epoch::MIN, &mut |birth, cell| {
                all.push((birth, Version::decode(tree::load_value(&self.vos.pool, cell)?)?));
                Ok(ControlFlow::Continue(()))
            })?;
        }
        let inside = |e: Epoch| (range.0..=range.1).contains(&e.hlc);
        for (birth, _) in all.iter().filter(|(e, _)| inside(*e)) {
            self.remove_version(number, *birth)?;
        }
        if !inside(head.0) {
            return Ok(Some(head));
        }
        all.retain(|(e, _)| !inside(*e));
        let newest = all.pop();
        if let Some((birth, _)) = &newest {
            self.remove_version(number, *birth)?;
        }
        Ok(newest)
    }

    fn discard_array(
        &mut self,
        mut array: Array,
        range: (u64, u64),
    ) -> Result<Option<Array>, StageError> {
        let head = Version::Size { op: array.op, size: array.size };
        let left = self.discard_versions(array.history, (array.epoch, head), range)?;
        let Some((epoch, Version::Size { op, .. })) = left else {
            self.drop_value(ItemValue::Array(array))?;
            return Ok(None);
        };
        (array.epoch, array.op) = (epoch, op);
        array.late |= array.history != 0;
        array.size = self.vos.fold_sizes(&array, None, Epoch::end_of(u64::MAX))?;
        self.discard_pieces(&mut array, range)?;
        Ok(Some(array))
    }

    fn discard_pieces(&mut self, array: &mut Array, range: (u64, u64)) -> Result<(), StageError> {
        let heads = self.vos.pieces(&array.extents, 0, u64::MAX)?;
        let old = match array.history {
            0 => Vec::new(),
            number => self.vos.old_pieces(number, 0, u64::MAX)?,
        };
        let head = |piece: &Piece| Rect { piece: piece.clone(), death: None };
        let mut before: Vec<Rect> = heads.iter().map(head).collect();
        before.extend(old.into_iter().map(|o| Rect { piece: o.piece, death: Some(o.death) }));
        let after = plane::discard(before.clone(), range);
        let gone: Vec<Piece> = before.iter().map(|r| r.piece.clone()).collect();
        self.free_difference(&gone, after.iter().map(|r| &r.piece));
        for rect in before.iter().filter(|r| !after.contains(r)) {
            if let Some(death) = rect.death {
                let old = OldPiece { piece: rect.piece.clone(), death };
                self.remove_old_piece(array.history, &old)?;
            }
        }
        for rect in after.iter().filter(|r| !before.contains(r)) {
            if let Some(death) = rect.death {
                let old = OldPiece { piece: rect.piece.clone(), death };
                self.put_old_piece(array.history, &old)?;
            }
        }
        let alive = after.into_iter().filter(|r| r.death.is_none()).map(|r| r.piece);
        let mut alive: Vec<Piece> = alive.collect();
        alive.sort_unstable_by_key(|p| p.offset);
        self.replace(array, &heads, alive)
    }

    fn discard_punches(
        &mut self,
        tx: &Tx,
        object: u32,
        range: (u64, u64),
    ) -> Result<(), StageError> {
        let inside = |e: Epoch| (range.0..=range.1).contains(&e.hlc);
        self.look_up(tx, object)?;
        let Some(Some(record)) = &mut self.loaded[object as usize].record else {
            return Ok(());
        };
        record.punches.retain(|p| !inside(p.epoch));
        record.log.0.retain(|(e, _)| !inside(*e));
        // A creation that is gone may have stood for later ones that left no entry.
        let punches = record.log.0.iter().filter(|(_, kind)| *kind == Incarnation::Punch);
        let starts: Vec<Epoch> = [Epoch::MIN].into_iter().chain(punches.map(|(e, _)| *e)).collect();
        let record = record.clone();
        for start in starts {
            if let Some(birth) = self.vos.next_birth(&record, start)?
                && let Some(Some(record)) = &mut self.loaded[object as usize].record
            {
                record.log.create(birth, false);
            }
        }
        Ok(())
    }
}
