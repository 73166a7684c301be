//! Returning the space of punched trees, a bounded amount at a time; then counting the objects of
//! containers that were split.
//!
//! Collection is not logged: it changes nothing a reader can see, and after a crash it is done again.
//! Invariant: the blocks it frees may be reused only after a checkpoint that was begun later is
//! published, because until then replay may start from a state that still names them.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::codec::Reader;
use crate::history::{KEY_PIECE, OldPiece};
use crate::item::{Body, Extents, ItemValue, Piece};
use crate::record::{
    ObjectRecord, TABLE_AKEY, TABLE_DKEY, TABLE_EXTENT, TABLE_GARBAGE, TABLE_HISTORY, TABLE_OBJECT,
    TABLE_PUNCH, entry_damaged, extent_offset, garbage_key, table_key,
};
use crate::space::Run;
use crate::stage::{Stage, impossible};
use crate::tree;
use crate::tx::Tx;
use crate::types::{BLOCK_SIZE, ReadError, StageError};
use crate::vos::Vos;

impl Vos {
    /// Removes up to `budget` entries of punched trees; the blocks to be given to [`Vos::release`] after
    /// the next checkpoint. [`Vos::has_garbage`] tells when all is done.
    pub fn collect(&mut self, budget: usize) -> Result<Vec<Run>, StageError> {
        if self.space.page_slots() < self.pages_needed() + budget as u64 {
            return Err(StageError::NoSpace);
        }
        let tx = Tx::new(0);
        let mut stage = Stage::for_collection(self, &tx);
        match stage.collect_some(budget).and_then(|()| stage.settle_freed()) {
            Ok(()) => Ok(self.commit()),
            Err(e) => {
                stage.restore();
                self.rollback();
                Err(e)
            }
        }
    }

    fn first_garbage(&self) -> Result<Option<Garbage>, StageError> {
        let mut found = None;
        let end = [TABLE_GARBAGE + 1];
        tree::scan(&self.pool, self.root, &[TABLE_GARBAGE], Some(&end), &mut |key, cell| {
            found = Some(Garbage::decode(key, tree::load_value(&self.pool, cell)?)?);
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }
}

/// A punched tree, or a range of the keys of one.
pub(crate) struct Garbage {
    pub(crate) table: u8,
    pub(crate) number: u64,
    pub(crate) from: Bytes,
    /// `None`: to the end.
    pub(crate) to: Option<Bytes>,
}

impl Garbage {
    /// Decodes an entry.
    pub(crate) fn decode(key: &[u8], value: Bytes) -> Result<Garbage, ReadError> {
        let damaged = || entry_damaged(TABLE_GARBAGE);
        let number = key.get(1..9).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
        let (table, from) = key.get(9..).and_then(<[u8]>::split_first).ok_or_else(damaged)?;
        let from = Bytes::copy_from_slice(from);
        let to = Some(value).filter(|to| !to.is_empty());
        match to.as_ref().is_none_or(|to| from < *to) {
            true => Ok(Garbage { table: *table, number: number.ok_or_else(damaged)?, from, to }),
            false => Err(damaged()),
        }
    }
}

impl Stage<'_> {
    fn collect_some(&mut self, budget: usize) -> Result<(), StageError> {
        let budget = budget.max(1);
        let Some(garbage) = self.vos.first_garbage()? else {
            self.vos.garbage = self.count_some(budget)? > 0;
            return Ok(());
        };
        let mut removed = 0;
        if garbage.table == TABLE_HISTORY {
            // The newest pieces of the array are under the same number.
            let heads = Garbage { table: TABLE_EXTENT, from: Bytes::new(), to: None, ..garbage };
            removed = self.collect_from(&heads, budget)?;
        }
        if removed < budget {
            removed += self.collect_from(&garbage, budget - removed)?;
        }
        if removed < budget {
            let vos = &mut *self.vos;
            let key = garbage_key(garbage.table, garbage.number, &garbage.from);
            tree::remove(&mut vos.pool, &mut vos.root, &key)?;
        }
        Ok(())
    }

    /// Removes up to `budget` entries of a punched tree with what they name; how many it were.
    fn collect_from(&mut self, garbage: &Garbage, budget: usize) -> Result<usize, StageError> {
        let Garbage { table, number, from, to } = garbage;
        let (table, number, to) = (*table, *number, to.as_ref().map(|to| &to[..]));
        let mut entries: Vec<(Bytes, Bytes)> = Vec::new();
        self.vos.scan_table(table, number, from, to, &mut |key, cell| {
            let value = tree::load_value(&self.vos.pool, cell)?;
            entries.push((Bytes::copy_from_slice(key), value));
            let full = entries.len() >= budget;
            Ok(if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        let vos = &mut *self.vos;
        for (key, _) in &entries {
            tree::remove(&mut vos.pool, &mut vos.root, &table_key(table, number, key))?;
        }
        match table {
            TABLE_OBJECT => entries
                .iter()
                .try_for_each(|(_, v)| self.drop_record(ObjectRecord::decode(v.clone())?))?,
            TABLE_DKEY => entries.iter().try_for_each(|(_, v)| {
                self.drop_tree(TABLE_AKEY, crate::dkeys::decode_entry(v.clone())?)
            })?,
            TABLE_AKEY => entries
                .iter()
                .try_for_each(|(_, v)| self.drop_value(ItemValue::decode_entry(v.clone())?))?,
            TABLE_PUNCH => {}
            TABLE_EXTENT | TABLE_HISTORY => self.drop_pieces(table, number, &entries)?,
            _ => return Err(impossible(TABLE_GARBAGE)),
        }
        Ok(entries.len())
    }

    /// Frees the blocks of removed extent or history entries that no other entry names.
    fn drop_pieces(
        &mut self,
        table: u8,
        number: u64,
        entries: &[(Bytes, Bytes)],
    ) -> Result<(), StageError> {
        let mut pieces: Vec<Piece> = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            if table == TABLE_EXTENT {
                let offset = extent_offset(&table_key(TABLE_EXTENT, number, key))?;
                let piece = Piece::decode_body(offset, &mut Reader::new(value.clone()));
                pieces.push(piece.map_err(|_| entry_damaged(TABLE_EXTENT))?);
            } else if key.first() == Some(&KEY_PIECE) {
                pieces.push(OldPiece::decode(key, value.clone())?.piece);
            }
        }
        pieces.retain(|p| matches!(p.body, Body::Device(_)));
        let Some(first) = pieces.iter().map(|p| p.offset).min() else {
            return Ok(());
        };
        let last = pieces.iter().map(Piece::end).max().unwrap_or(first);
        let (lo, hi) = (first.saturating_sub(BLOCK_SIZE), last.saturating_add(BLOCK_SIZE));
        let mut kept = self.vos.pieces(&Extents::Tree { number, count: 0 }, lo, hi)?;
        let old = self.vos.old_pieces(number, lo, hi)?;
        kept.extend(old.into_iter().map(|o| o.piece));
        self.free_difference(&pieces, kept.iter());
        Ok(())
    }
}
