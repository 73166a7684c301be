//! Returning the space of punched trees, a bounded amount at a time.
//!
//! Collection is not logged: it changes nothing a reader can see, and after a crash it is done again.
//! Invariant: the blocks it frees may be reused only after a checkpoint that was begun later is
//! published, because until then replay may start from a state that still names them.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::codec::Reader;
use crate::record::{
    Extents, ItemValue, ObjectRecord, Piece, TABLE_AKEY, TABLE_EXTENT, TABLE_GARBAGE, TABLE_OBJECT,
    entry_damaged, extent_offset, table_key,
};
use crate::space::Run;
use crate::stage::{Stage, impossible};
use crate::tree;
use crate::tx::Tx;
use crate::types::{BLOCK_SIZE, StageError};
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
        match stage.collect_some(budget) {
            Ok(()) => Ok(self.commit()),
            Err(e) => {
                stage.restore();
                self.rollback();
                Err(e)
            }
        }
    }

    /// The first garbage entry: its table and number.
    fn first_garbage(&self) -> Result<Option<(u8, u64)>, StageError> {
        let mut found = None;
        let end = [TABLE_GARBAGE + 1];
        tree::scan(&self.pool, self.root, &[TABLE_GARBAGE], Some(&end), &mut |key, _| {
            let number = key.get(1..9).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
            found = number.zip(key.get(9).copied());
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found.map(|(number, table)| (table, number)))
    }
}

impl Stage<'_> {
    fn collect_some(&mut self, budget: usize) -> Result<(), StageError> {
        let Some((table, number)) = self.vos.first_garbage()? else {
            self.vos.garbage = false;
            return Ok(());
        };
        let mut entries: Vec<(Bytes, Bytes)> = Vec::new();
        self.vos.scan_table(table, number, &[], None, &mut |key, cell| {
            let value = tree::load_value(&self.vos.pool, cell)?;
            entries.push((Bytes::copy_from_slice(key), value));
            let full = entries.len() >= budget.max(1);
            Ok(if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        let done = entries.len() < budget.max(1);
        match table {
            TABLE_OBJECT => entries
                .iter()
                .try_for_each(|(_, v)| self.drop_record(ObjectRecord::decode(v.clone())?))?,
            TABLE_AKEY => entries
                .iter()
                .try_for_each(|(_, v)| self.drop_value(ItemValue::decode_entry(v.clone())?))?,
            TABLE_EXTENT => self.drop_pieces(number, &entries)?,
            _ => return Err(impossible(TABLE_GARBAGE)),
        }
        let vos = &mut *self.vos;
        for (key, _) in &entries {
            tree::remove(&mut vos.pool, &mut vos.root, &table_key(table, number, key))?;
        }
        if done {
            let key = crate::record::garbage_key(table, number);
            tree::remove(&mut vos.pool, &mut vos.root, &key)?;
        }
        Ok(())
    }

    /// Frees the blocks of extent entries that no later entry of the tree names.
    fn drop_pieces(&mut self, number: u64, entries: &[(Bytes, Bytes)]) -> Result<(), StageError> {
        let mut pieces: Vec<Piece> = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let offset = extent_offset(&table_key(TABLE_EXTENT, number, key))?;
            let piece = Piece::decode_body(offset, &mut Reader::new(value.clone()));
            pieces.push(piece.map_err(|_| entry_damaged(TABLE_EXTENT))?);
        }
        let Some(end) = pieces.last().map(Piece::end) else {
            return Ok(());
        };
        let tree = Extents::Tree { number, count: 0 };
        let kept = self.vos.pieces(&tree, end, end.saturating_add(BLOCK_SIZE))?;
        self.free_difference(&pieces, kept.iter());
        Ok(())
    }
}
