//! Arrays: cutting extents out, putting new ones in, and returning the blocks nobody names any more.
//!
//! A write never reads a block: what it covers is cut away in metadata, and a block that still holds
//! visible bytes on either side stays. Pieces of one block are at most a block apart in the array, so
//! looking one block to each side of a cut shows every name of every block the cut touches.

use bytes::{Bytes, BytesMut};

use crate::record::{
    Array, Body, EXTENT_LIST_MAX, Extents, INLINE_EXTENT_MAX, ItemValue, Piece, TABLE_EXTENT,
    extent_key, garbage_key,
};
use crate::space::Run;
use crate::stage::{Stage, impossible};
use crate::tree;
use crate::types::{BLOCK_SIZE, BlockAddr, StageError};

/// Adjacent inline pieces are gathered into a device extent when they come to this.
const GATHER_LEN: u64 = 32 << 10;
/// A tree with more extents is dropped in the background.
const DIRECT_DROP_MAX: u64 = 128;

/// Whether to gather inline pieces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Gather {
    IfWorthwhile,
    Yes,
    No,
}

impl Stage<'_> {
    /// Removes `[from, to)` and puts `new` there, which must lie inside.
    pub(crate) fn cut(
        &mut self,
        array: &mut Array,
        from: u64,
        to: u64,
        new: Vec<Piece>,
    ) -> Result<(), StageError> {
        if from >= to {
            return Ok(());
        }
        if from == 0 && to >= array.size && new.is_empty() {
            let extents = std::mem::take(&mut array.extents);
            return self.drop_extents(extents);
        }
        let (lo, hi) = (from.saturating_sub(BLOCK_SIZE), to.saturating_add(BLOCK_SIZE));
        let old = self.vos.pieces(&array.extents, lo, hi)?;
        let mut kept: Vec<Piece> = Vec::with_capacity(old.len() + 1);
        let mut after = Vec::new();
        for piece in &old {
            if piece.offset < from {
                kept.push(piece.slice(piece.offset, piece.end().min(from)));
            }
            if piece.end() > to {
                after.push(piece.slice(piece.offset.max(to), piece.end()));
            }
        }
        self.free_difference(&old, kept.iter().chain(&after));
        for piece in new.into_iter().chain(after) {
            if !kept.last_mut().is_some_and(|last| join(last, &piece)) {
                kept.push(piece);
            }
        }
        self.replace(array, &old, kept)
    }

    /// Turns inline pieces that end at `end` into one device extent, if they have become many.
    /// `from` is where the write began: one that fitted its neighbour is not worth a look.
    pub(crate) fn gather(
        &mut self,
        array: &mut Array,
        from: u64,
        end: u64,
        gather: Gather,
    ) -> Result<bool, StageError> {
        if gather == Gather::No || end < GATHER_LEN {
            return Ok(false);
        }
        let pieces = self.vos.pieces(&array.extents, end - GATHER_LEN, end)?;
        if pieces.last().is_none_or(|p| p.offset < from && gather != Gather::Yes) {
            return Ok(false);
        }
        let mut start = end;
        for piece in pieces.iter().rev() {
            match &piece.body {
                Body::Inline(_) if piece.end() == start => start = piece.offset,
                _ => break,
            }
        }
        if end - start < GATHER_LEN {
            return Ok(false);
        }
        let mut data = BytesMut::with_capacity((end - start) as usize);
        for piece in pieces.iter().filter(|p| p.offset >= start) {
            if let Body::Inline(bytes) = &piece.body {
                data.extend_from_slice(bytes);
            }
        }
        let data = data.freeze();
        match self.place(start, data.len() as u64, &data, None) {
            Ok(new) => self.cut(array, start, end, new).map(|()| true),
            // They can stay where they are.
            Err(StageError::NoSpace) if gather == Gather::IfWorthwhile => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Gives up everything a value holds.
    pub(crate) fn drop_value(&mut self, value: ItemValue) -> Result<(), StageError> {
        match value {
            ItemValue::Single { .. } => Ok(()),
            ItemValue::Array(array) => self.drop_extents(array.extents),
        }
    }

    /// Leaves a tree to [`crate::Vos::collect`].
    pub(crate) fn drop_tree(&mut self, table: u8, number: u64) -> Result<(), StageError> {
        let vos = &mut *self.vos;
        tree::insert(&mut vos.pool, &mut vos.root, &garbage_key(table, number), &[])?;
        vos.garbage = true;
        Ok(())
    }

    /// Moves the extents to a tree if they are too many for a list.
    pub(crate) fn bound_list(&mut self, array: &mut Array) -> Result<(), StageError> {
        let Extents::List(list) = &array.extents else {
            return Ok(());
        };
        let mut out = Vec::new();
        list.iter().for_each(|p| p.encode(&mut out));
        if out.len() > EXTENT_LIST_MAX { self.list_to_tree(array) } else { Ok(()) }
    }

    pub(crate) fn list_to_tree(&mut self, array: &mut Array) -> Result<(), StageError> {
        let Extents::List(list) = std::mem::take(&mut array.extents) else {
            return Err(impossible(TABLE_EXTENT));
        };
        array.extents = Extents::Tree { number: self.vos.take_number(), count: 0 };
        self.replace(array, &[], list)
    }

    /// Frees the blocks that `old` names and `kept` does not.
    pub(crate) fn free_difference<'p>(
        &mut self,
        old: &[Piece],
        kept: impl Iterator<Item = &'p Piece>,
    ) {
        let mut before = block_ranges(old.iter());
        if before.is_empty() {
            return;
        }
        let after = block_ranges(kept);
        merge_ranges(&mut before);
        for (start, end) in subtract(&before, after) {
            let run: Run = (BlockAddr(start), end - start);
            self.vos.space.free(run);
        }
    }

    fn drop_extents(&mut self, extents: Extents) -> Result<(), StageError> {
        match extents {
            Extents::List(list) => {
                self.free_difference(&list, std::iter::empty());
                Ok(())
            }
            Extents::Tree { number, count } if count > DIRECT_DROP_MAX => {
                self.drop_tree(TABLE_EXTENT, number)
            }
            extents @ Extents::Tree { .. } => {
                let old = self.vos.pieces(&extents, 0, u64::MAX)?;
                self.free_difference(&old, std::iter::empty());
                let mut array = Array { extents, ..Array::default() };
                self.replace(&mut array, &old, Vec::new())
            }
        }
    }

    /// Exchanges the pieces `old`, which are consecutive, for `new`.
    fn replace(
        &mut self,
        array: &mut Array,
        old: &[Piece],
        new: Vec<Piece>,
    ) -> Result<(), StageError> {
        match &mut array.extents {
            Extents::List(list) => {
                let at = match (old.first(), new.first()) {
                    (Some(first), _) | (None, Some(first)) => first.offset,
                    (None, None) => return Ok(()),
                };
                let start = list.partition_point(|p| p.offset < at);
                list.splice(start..start + old.len(), new);
            }
            Extents::Tree { number, count } => {
                let vos = &mut *self.vos;
                for piece in old {
                    if !new.iter().any(|n| n.offset == piece.offset) {
                        let key = extent_key(*number, piece.offset);
                        tree::remove(&mut vos.pool, &mut vos.root, &key)?;
                    }
                }
                for piece in &new {
                    if !old.contains(piece) {
                        let mut out = Vec::with_capacity(64);
                        piece.encode_body(&mut out);
                        let key = extent_key(*number, piece.offset);
                        tree::insert(&mut vos.pool, &mut vos.root, &key, &out)?;
                    }
                }
                *count = (*count + new.len() as u64).saturating_sub(old.len() as u64);
            }
        }
        Ok(())
    }
}

/// Appends `next` to `last` if both are inline, adjacent and short enough.
fn join(last: &mut Piece, next: &Piece) -> bool {
    let (Body::Inline(a), Body::Inline(b)) = (&last.body, &next.body) else {
        return false;
    };
    if last.end() != next.offset || a.len() + b.len() > INLINE_EXTENT_MAX {
        return false;
    }
    let both = [&a[..], &b[..]].concat();
    last.epoch = last.epoch.max(next.epoch);
    last.body = Body::Inline(Bytes::from(both));
    true
}

fn block_ranges<'p>(pieces: impl Iterator<Item = &'p Piece>) -> Vec<(u64, u64)> {
    pieces
        .filter_map(|p| match &p.body {
            Body::Inline(_) => None,
            Body::Device(d) => Some((d.addr, d.addr + d.blocks())),
        })
        .collect()
}

fn merge_ranges(ranges: &mut Vec<(u64, u64)>) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, last| {
        let joins = next.0 <= last.1;
        if joins {
            last.1 = last.1.max(next.1);
        }
        joins
    });
}

/// The parts of the sorted disjoint ranges `a` that no range of `b` covers.
fn subtract(a: &[(u64, u64)], mut b: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    merge_ranges(&mut b);
    let mut out = Vec::new();
    for &(mut start, end) in a {
        for &(from, to) in &b {
            if to <= start || from >= end {
                continue;
            }
            if from > start {
                out.push((start, from));
            }
            start = start.max(to);
        }
        if start < end {
            out.push((start, end));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_subtract() {
        assert_eq!(subtract(&[(0, 10)], vec![(2, 3), (5, 6)]), [(0, 2), (3, 5), (6, 10)]);
        assert_eq!(subtract(&[(0, 4), (8, 9)], vec![(0, 8)]), [(8, 9)]);
        assert_eq!(subtract(&[(0, 4)], vec![]), [(0, 4)]);
        assert_eq!(subtract(&[(1, 4)], vec![(0, 9)]), []);
    }
}
