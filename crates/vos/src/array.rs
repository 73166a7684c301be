//! Arrays: cutting extents out, putting new ones in, and returning the blocks nobody names any more.
//!
//! A write never reads a block: what it covers is cut away in metadata, and a block that still holds
//! visible bytes on either side stays. What it covers and somebody still sees goes to the history.
//! Pieces of one block, old ones too, are at most a block apart in the array, so looking one block to
//! each side of a cut shows every name of every block the cut touches.

use bytes::{Bytes, BytesMut};

use crate::epoch::{Epoch, Scene};
use crate::history::OldPiece;
use crate::item::{Array, Body, EXTENT_LIST_MAX, Extents, INLINE_EXTENT_MAX, ItemValue, Piece};
use crate::plane::{self, Rect, may_replace};
use crate::record::{TABLE_EXTENT, TABLE_HISTORY, extent_key, garbage_key};
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
    /// Covers `[from, to)` at the epoch of the operation with `new`, which must lie inside.
    pub(crate) fn cut(
        &mut self,
        array: &mut Array,
        scene: &Scene,
        (from, to): (u64, u64),
        new: Vec<Piece>,
    ) -> Result<(), StageError> {
        if from >= to {
            return Ok(());
        }
        if self.epoch < array.epoch {
            return self.cut_late(array, scene, (from, to), new);
        }
        let unseen = !scene.observers.see(Epoch::MIN, self.epoch);
        if unseen && self.covers_all(array, (from, to)) {
            let old = std::mem::replace(&mut array.extents, Extents::List(new));
            self.forget_list(&old, &array.extents);
            return Ok(());
        }
        if from == 0 && to >= array.size && unseen && array.history == 0 && is_empty(&new) {
            // What data is beyond the size is hidden by a punch.
            let mut beyond = self.vos.pieces(&array.extents, to, u64::MAX)?;
            beyond.retain(|p| matches!(p.body, Body::Hole { .. }));
            let beyond = beyond.into_iter().map(|p| p.slice(p.offset.max(to), p.end()));
            let left = new.into_iter().chain(beyond).collect();
            let extents = std::mem::take(&mut array.extents);
            self.drop_extents(extents)?;
            return self.replace(array, &[], left);
        }
        let (lo, hi) = (from.saturating_sub(BLOCK_SIZE), to.saturating_add(BLOCK_SIZE));
        let old = self.vos.pieces(&array.extents, lo, hi)?;
        let mut kept: Vec<Piece> = Vec::with_capacity(old.len() + 1);
        let (mut after, mut aged, mut dropped) = (Vec::new(), Vec::new(), false);
        for piece in &old {
            if piece.offset < from {
                kept.push(piece.slice(piece.offset, piece.end().min(from)));
            }
            if piece.end() > to {
                after.push(piece.slice(piece.offset.max(to), piece.end()));
            }
            let (start, end) = (piece.offset.max(from), piece.end().min(to));
            if start >= end {
                continue;
            }
            if !may_replace(piece, self.epoch, from, to) {
                return Err(StageError::SameEpoch);
            }
            if scene.keeps(piece.epoch, self.epoch) {
                aged.push(OldPiece { piece: piece.slice(start, end), death: self.epoch });
            } else {
                dropped |= matches!(piece.body, Body::Device(_));
            }
        }
        let around = match dropped && array.history != 0 {
            true => self.vos.old_pieces(array.history, lo, hi)?,
            false => Vec::new(),
        };
        let old_names = aged.iter().chain(&around).map(|o| &o.piece);
        self.free_difference(&old, kept.iter().chain(&after).chain(&new).chain(old_names));
        self.age(array, &aged)?;
        for piece in new.into_iter().chain(after) {
            if !kept.last_mut().is_some_and(|last| join(last, &piece, scene)) {
                kept.push(piece);
            }
        }
        self.replace(array, &old, kept)
    }

    /// Whether a cut covers all that the array holds, a list which nobody needs any more.
    fn covers_all(&self, array: &Array, (from, to): (u64, u64)) -> bool {
        let gone =
            |p: &Piece| from <= p.offset && p.end() <= to && may_replace(p, self.epoch, from, to);
        match &array.extents {
            Extents::List(list) => array.history == 0 && list.iter().all(gone),
            Extents::Tree { .. } => false,
        }
    }

    fn forget_list(&mut self, old: &Extents, new: &Extents) {
        if let (Extents::List(old), Extents::List(new)) = (old, new) {
            self.free_difference(old, new.iter());
        }
    }

    /// As [`Stage::cut`], when newer operations have been there before.
    fn cut_late(
        &mut self,
        array: &mut Array,
        scene: &Scene,
        (from, to): (u64, u64),
        new: Vec<Piece>,
    ) -> Result<(), StageError> {
        let (lo, hi) = (from.saturating_sub(BLOCK_SIZE), to.saturating_add(BLOCK_SIZE));
        let heads = self.vos.pieces(&array.extents, lo, hi)?;
        let head = |piece: &Piece| Rect { piece: piece.clone(), death: None };
        let mut rects: Vec<Rect> = heads.iter().map(head).collect();
        if array.history != 0 {
            let old = self.vos.old_pieces(array.history, lo, hi)?;
            rects.extend(old.into_iter().map(|o| Rect { piece: o.piece, death: Some(o.death) }));
        }
        let keep = |birth, death| scene.keeps(birth, death);
        let change = plane::insert(&rects, (from, to), self.epoch, &new, &keep)
            .map_err(|plane::SameEpoch| StageError::SameEpoch)?;
        rects.retain(|r| !change.removed.contains(r));
        rects.extend(change.added.iter().cloned());
        let gone: Vec<Piece> = change.removed.iter().map(|r| r.piece.clone()).chain(new).collect();
        self.free_difference(&gone, rects.iter().map(|r| &r.piece));
        for rect in change.removed {
            if let Rect { piece, death: Some(death) } = rect {
                self.remove_old_piece(array.history, &OldPiece { piece, death })?;
            }
        }
        let old = |r: Rect| r.death.map(|death| OldPiece { piece: r.piece, death });
        let aged: Vec<OldPiece> = change.added.into_iter().filter_map(old).collect();
        self.age(array, &aged)?;
        let alive = rects.into_iter().filter(|r| r.death.is_none());
        let mut alive: Vec<Piece> = alive.map(|r| r.piece).collect();
        alive.sort_unstable_by_key(|p| p.offset);
        self.replace(array, &heads, alive)
    }

    /// Puts pieces into the history.
    fn age(&mut self, array: &mut Array, aged: &[OldPiece]) -> Result<(), StageError> {
        for old in aged {
            let number = self.history_of(array);
            self.put_old_piece(number, old)?;
        }
        Ok(())
    }

    /// Number of the array's history, which is made to exist.
    pub(crate) fn history_of(&mut self, array: &mut Array) -> u64 {
        if array.history == 0 {
            array.history = match array.extents {
                Extents::Tree { number, .. } => number,
                Extents::List(_) => self.vos.take_number(),
            };
        }
        array.history
    }

    /// Turns inline pieces that end at `end` into one device extent, if they have become many.
    /// `from` is where the write began: one that fitted its neighbour is not worth a look.
    pub(crate) fn gather(
        &mut self,
        array: &mut Array,
        scene: &Scene,
        (from, end): (u64, u64),
        gather: Gather,
    ) -> Result<bool, StageError> {
        if gather == Gather::No || end < GATHER_LEN || self.epoch < array.epoch {
            return Ok(false);
        }
        let pieces = self.vos.pieces(&array.extents, end - GATHER_LEN, end)?;
        if pieces.last().is_none_or(|p| p.offset < from && gather != Gather::Yes) {
            return Ok(false);
        }
        let (mut start, mut oldest, mut newest) = (end, self.epoch, Epoch::MIN);
        for piece in pieces.iter().rev() {
            let (first, last) = (oldest.min(piece.epoch), newest.max(piece.epoch));
            match &piece.body {
                Body::Inline(_) if piece.end() == start && scene.alike(first, last) => {
                    (start, oldest, newest) = (piece.offset, first, last);
                }
                _ => break,
            }
        }
        if end - start < GATHER_LEN {
            return Ok(false);
        }
        let old: Vec<Piece> = pieces.into_iter().filter(|p| p.offset >= start).collect();
        let mut data = BytesMut::with_capacity((end - start) as usize);
        for piece in &old {
            if let Body::Inline(bytes) = &piece.body {
                data.extend_from_slice(bytes);
            }
        }
        let data = data.freeze();
        match self.place(start, data.len() as u64, &data, None) {
            Ok(mut new) => {
                new.iter_mut().for_each(|p| p.epoch = newest);
                self.replace(array, &old, new).map(|()| true)
            }
            // They can stay where they are.
            Err(StageError::NoSpace) if gather == Gather::IfWorthwhile => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Gives up everything a value holds.
    pub(crate) fn drop_value(&mut self, value: ItemValue) -> Result<(), StageError> {
        match value {
            ItemValue::Single(single) if single.history == 0 => Ok(()),
            ItemValue::Single(single) => self.drop_tree(TABLE_HISTORY, single.history),
            ItemValue::Array(array) if array.history == 0 => self.drop_extents(array.extents),
            ItemValue::Array(array) => {
                // Head and history may name the same blocks: they are collected together.
                if let Extents::List(list) = array.extents {
                    for piece in list {
                        let old = OldPiece { piece, death: self.epoch };
                        self.put_old_piece(array.history, &old)?;
                    }
                }
                self.drop_tree(TABLE_HISTORY, array.history)
            }
        }
    }

    /// Leaves a tree to [`crate::Vos::collect`].
    pub(crate) fn drop_tree(&mut self, table: u8, number: u64) -> Result<(), StageError> {
        let vos = &mut *self.vos;
        tree::insert(&mut vos.pool, &mut vos.root, &garbage_key(table, number, &[]), &[])?;
        vos.garbage = true;
        Ok(())
    }

    /// Moves the extents to a tree if they are too many for a list.
    pub(crate) fn bound_list(&mut self, array: &mut Array) -> Result<(), StageError> {
        let Extents::List(list) = &array.extents else {
            return Ok(());
        };
        if list.iter().map(Piece::encoded_len_max).sum::<usize>() <= EXTENT_LIST_MAX {
            return Ok(());
        }
        let mut out = Vec::new();
        list.iter().for_each(|p| p.encode(&mut out));
        if out.len() > EXTENT_LIST_MAX { self.list_to_tree(array) } else { Ok(()) }
    }

    pub(crate) fn list_to_tree(&mut self, array: &mut Array) -> Result<(), StageError> {
        let Extents::List(list) = std::mem::take(&mut array.extents) else {
            return Err(impossible(TABLE_EXTENT));
        };
        let number = if array.history != 0 { array.history } else { self.vos.take_number() };
        array.extents = Extents::Tree { number, count: 0 };
        self.replace(array, &[], list)
    }

    /// Frees the blocks that `old` names and `kept` does not; [`crate::share`] tells whether another
    /// name is left.
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
        for (_, start, end) in subtract(&before, after) {
            let run: Run = (BlockAddr(start), end - start);
            self.vos.space.free(run);
        }
    }

    pub(crate) fn drop_extents(&mut self, extents: Extents) -> Result<(), StageError> {
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
    pub(crate) fn replace(
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

/// Whether pieces hold no bytes.
fn is_empty(pieces: &[Piece]) -> bool {
    pieces.iter().all(|p| matches!(p.body, Body::Hole { .. }))
}

/// Appends `next` to `last` if they are adjacent, of one kind, short enough, and nobody sees one
/// without the other.
fn join(last: &mut Piece, next: &Piece, scene: &Scene) -> bool {
    if last.end() != next.offset || !scene.alike(last.epoch, next.epoch) {
        return false;
    }
    last.body = match (&last.body, &next.body) {
        (Body::Inline(a), Body::Inline(b)) if a.len() + b.len() <= INLINE_EXTENT_MAX => {
            Body::Inline(Bytes::from([&a[..], &b[..]].concat()))
        }
        (Body::Hole { len: a, punched: p }, Body::Hole { len: b, punched: q }) if p == q => {
            Body::Hole { len: a + b, punched: *p }
        }
        _ => return false,
    };
    last.epoch = last.epoch.max(next.epoch);
    true
}

/// Blocks from the second to the third, with their place: what to add to a block's address to get the
/// offset in the array that its first byte would have.
type Names = (u64, u64, u64);

fn block_ranges<'p>(pieces: impl Iterator<Item = &'p Piece>) -> Vec<Names> {
    pieces
        .filter_map(|p| match &p.body {
            Body::Inline(_) | Body::Hole { .. } => None,
            Body::Device(d) => {
                let first = p.offset.wrapping_sub(u64::from(d.skip));
                let place = first.wrapping_sub(d.addr.wrapping_mul(BLOCK_SIZE));
                Some((place, d.addr, d.addr + d.blocks()))
            }
        })
        .collect()
}

/// The runs of blocks that `new` names at places where `named` does not.
pub(crate) fn names_beyond<'p>(
    new: &[Piece],
    named: impl Iterator<Item = &'p Piece>,
) -> Vec<(u64, u64)> {
    let mut new = block_ranges(new.iter());
    merge_ranges(&mut new);
    subtract(&new, block_ranges(named)).into_iter().map(|(_, start, end)| (start, end)).collect()
}

fn merge_ranges(ranges: &mut Vec<Names>) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, last| {
        let joins = next.0 == last.0 && next.1 <= last.2;
        if joins {
            last.2 = last.2.max(next.2);
        }
        joins
    });
}

/// The parts of the sorted disjoint ranges `a` that no range of `b` at the same place covers.
fn subtract(a: &[Names], mut b: Vec<Names>) -> Vec<Names> {
    merge_ranges(&mut b);
    let mut out = Vec::new();
    for &(place, mut start, end) in a {
        let first = b.partition_point(|&(p, _, to)| (p, to) <= (place, start));
        for &(_, from, to) in b[first..].iter().take_while(|n| n.0 == place && n.1 < end) {
            if from > start {
                out.push((place, start, from));
            }
            start = start.max(to);
        }
        if start < end {
            out.push((place, start, end));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_subtract() {
        let of = |place: u64, r: &[(u64, u64)]| -> Vec<Names> {
            r.iter().map(|&(a, b)| (place, a, b)).collect()
        };
        let left = |a: &[(u64, u64)], b: &[(u64, u64)]| subtract(&of(1, a), of(1, b));
        assert_eq!(left(&[(0, 10)], &[(2, 3), (5, 6)]), of(1, &[(0, 2), (3, 5), (6, 10)]));
        assert_eq!(left(&[(0, 4), (8, 9)], &[(0, 8)]), of(1, &[(8, 9)]));
        assert_eq!(left(&[(0, 4)], &[]), of(1, &[(0, 4)]));
        assert_eq!(left(&[(1, 4)], &[(0, 9)]), []);
        let elsewhere = of(2, &[(0, 9)]);
        assert_eq!(subtract(&of(1, &[(1, 4)]), elsewhere), of(1, &[(1, 4)]));
    }
}
