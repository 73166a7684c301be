//! Discard: undoing all operations on an object in a range of epochs, as if they had never been.
//!
//! Everything above the horizon is kept exactly, so what they covered is still there: older versions get
//! the time back that the removed ones took from them. That goes version by version and extent by
//! extent, so that it can stop anywhere: of an akey first the versions go, then the extents at the head
//! of its array, then older ones, and at last what ended in the range is looked through once more.
//! Invariant: after each step the extents of an array are still disjoint in offsets and epochs.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::aggregate::{Cursor, KEY_HEAD};
use crate::codec::Reader;
use crate::epoch::{Epoch, Punches};
use crate::history::{KEY_PIECE, OldPiece, Version};
use crate::item::{Array, Body, Extents, ItemValue, Piece, Single};
use crate::plane::{self, Rect};
use crate::record::{Incarnation, TABLE_EXTENT, TABLE_HISTORY, TABLE_OBJECT, entry_damaged};
use crate::size::Fold;
use crate::stage::{Stage, impossible};
use crate::tree;
use crate::tx::Tx;
use crate::types::{ReadError, StageError};
use crate::vos::Vos;

/// After the old pieces born in the range come those that ended in it.
const KEY_ENDED: u8 = 4;
/// Before the extents come the versions, after the sizes that they lead to.
const KEY_SIZES: u8 = 6;
/// Offsets in each class of older extents that what one extent covered is looked for at, in one go.
const COVERED_MAX: usize = 64;

/// The epochs to be discarded, both ends included.
type Range = (u64, u64);

/// Some of an akey: how much was looked at, where to go on, and what it holds.
type Step<T> = (usize, Option<Bytes>, Option<T>);

/// What a search for an extent born in the range has come to.
struct Search {
    looked_at: usize,
    /// The extent, with its place; or where to go on when enough were looked at.
    found: Option<Rect>,
    at: Option<Bytes>,
}

fn inside(range: Range, epoch: Epoch) -> bool {
    (range.0..=range.1).contains(&epoch.hlc)
}

fn head_place(offset: u64) -> Bytes {
    [&[KEY_HEAD][..], &offset.to_be_bytes()].concat().into()
}

impl Stage<'_> {
    /// Undoes the operations of `range` on some of the akeys; `None` when all is done. Punches that more
    /// than one akey knows of come last.
    pub(crate) fn discard(
        &mut self,
        tx: &Tx,
        object: u32,
        range: Range,
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
            let record = self.looked_up(object).ok_or(impossible(TABLE_OBJECT))?;
            let Some((dkey, akey, value)) = self.vos.akey_at(record, &cursor)? else {
                return self.discard_punches(object, range, cursor, left);
            };
            let (inner, before) = (cursor.inner_of(&dkey, &akey), value.clone());
            let punches = self.punches_of(object, &dkey, &akey)?;
            let (cost, more, value) = self.discard_akey(value, &punches, &inner, range, left)?;
            let mut birth = cursor.birth();
            if let Some(value) = value.as_ref().filter(|_| more.is_none() && range.1 < u64::MAX) {
                let next = self.vos.birth_in(value, Epoch::end_of(range.1))?;
                birth = [birth, next].into_iter().flatten().min();
            }
            match value {
                Some(value) if value == before => {}
                Some(ItemValue::Array(array)) => self.put_array(object, &dkey, &akey, array)?,
                value => self.set_item(object, &dkey, &akey, value)?,
            }
            cursor = match more {
                Some(inner) => Cursor::inside((dkey, akey), inner, birth),
                None => {
                    let akey = [&akey, &[0][..]].concat().into();
                    Cursor::inside((dkey, akey), Bytes::new(), birth)
                }
            };
            left = left.saturating_sub(cost.max(1));
            if left == 0 {
                return Ok(Some(cursor));
            }
        }
    }

    fn discard_akey(
        &mut self,
        value: ItemValue,
        punches: &Punches,
        inner: &Bytes,
        range: Range,
        budget: usize,
    ) -> Result<Step<ItemValue>, StageError> {
        Ok(match value {
            ItemValue::Single(single) => {
                let (cost, more, single) = self.discard_single(single, range, budget)?;
                (cost, more, single.map(ItemValue::Single))
            }
            ItemValue::Array(array) => {
                let (cost, more, array) =
                    self.discard_array(array, punches, inner, range, budget)?;
                (cost, more, array.map(ItemValue::Array))
            }
        })
    }

    fn discard_single(
        &mut self,
        mut single: Single,
        range: Range,
        budget: usize,
    ) -> Result<Step<Single>, StageError> {
        let number = single.history;
        let removed = self.discard_versions(number, range, budget)?;
        if removed == budget {
            return Ok((removed, Some(Bytes::new()), Some(single)));
        }
        if inside(range, single.epoch) {
            let Some((epoch, version)) = self.take_newest(number)? else {
                return Ok((removed, None, None));
            };
            single.epoch = epoch;
            single.value = match version {
                Version::Value(value) => Some(value),
                _ => None,
            };
        }
        Ok((removed, None, Some(single)))
    }

    /// Removes older versions of a range, `max` at most; how many.
    fn discard_versions(
        &mut self,
        number: u64,
        range: Range,
        max: usize,
    ) -> Result<usize, StageError> {
        let mut births = Vec::new();
        if number != 0 {
            self.vos.scan_versions(number, Epoch::new(range.0, 0), &mut |birth, _| {
                if birth.hlc > range.1 || births.len() == max {
                    return Ok(ControlFlow::Break(()));
                }
                births.push(birth);
                Ok(ControlFlow::Continue(()))
            })?;
        }
        births.iter().try_for_each(|&birth| self.remove_version(number, birth))?;
        Ok(births.len())
    }

    /// Takes the newest version out of the history.
    fn take_newest(&mut self, number: u64) -> Result<Option<(Epoch, Version)>, StageError> {
        if number == 0 {
            return Ok(None);
        }
        let newest = self.vos.version_at(number, Epoch::end_of(u64::MAX))?;
        if let Some((birth, _)) = &newest {
            self.remove_version(number, *birth)?;
        }
        Ok(newest)
    }

    fn discard_array(
        &mut self,
        mut array: Array,
        punches: &Punches,
        inner: &Bytes,
        range: Range,
        budget: usize,
    ) -> Result<Step<Array>, StageError> {
        let (mut at, mut cost) = (inner.clone(), 0);
        if at.is_empty() || at.first() == Some(&KEY_SIZES) {
            let (done, more, left) = self.discard_sizes(array, punches, inner, range, budget)?;
            match (more, left) {
                (None, Some(left)) => (array, at, cost) = (left, head_place(0), done),
                other => return Ok((done, other.0, other.1)),
            }
        }
        while cost < budget {
            let phase = at.first().copied().unwrap_or(KEY_HEAD);
            let search = match phase {
                KEY_HEAD => self.vos.find_head(&array.extents, &at, range, budget - cost)?,
                _ => self.vos.find_old(array.history, &at, range, budget - cost)?,
            };
            cost += search.looked_at;
            at = match (search.found, search.at) {
                (Some(rect), Some(place)) => {
                    let (covered, back) = match phase {
                        KEY_ENDED => self.revive(&mut array, rect)?,
                        _ => self.discard_rect(&mut array, rect, range)?,
                    };
                    cost += covered;
                    if phase == KEY_HEAD { place } else { place.min(back) }
                }
                (_, Some(next)) => next,
                (_, None) if phase == KEY_ENDED || array.history == 0 => {
                    return Ok((cost, None, Some(array)));
                }
                (_, None) if phase == KEY_HEAD => Bytes::from_static(&[KEY_PIECE]),
                (_, None) => Bytes::from_static(&[KEY_ENDED]),
            };
        }
        Ok((cost, Some(at), Some(array)))
    }

    /// Removes the versions of a range, and at the end those of the newest operation: the size that is left
    /// has been found by then.
    fn discard_sizes(
        &mut self,
        mut array: Array,
        punches: &Punches,
        inner: &Bytes,
        range: Range,
        budget: usize,
    ) -> Result<Step<Array>, StageError> {
        // What is discarded, punches too, had a part in the sizes of later versions.
        if array.late == 0 && array.epoch.hlc > range.1 && array.history != 0 {
            array.mark_late();
        }
        let leaves_out = |epoch| inside(range, epoch);
        let (mut cost, mut more) = (0, false);
        let mut fold = Fold::resume(&array, inner.get(1..).unwrap_or_default());
        if array.late != 0 {
            (cost, more) = self.vos.fold_some(&array, &mut fold, &leaves_out, budget)?;
        }
        if !more && cost < budget {
            cost += self.discard_versions(array.history, range, budget - cost)?;
        }
        if cost >= budget {
            let at = [&[KEY_SIZES][..], &fold.place()].concat();
            return Ok((cost, Some(at.into()), Some(array)));
        }
        if array.late != 0 {
            array.size = fold.end(&array, &leaves_out);
        }
        if inside(range, array.epoch) {
            let Some((epoch, Version::Size { op, size })) = self.take_newest(array.history)? else {
                self.drop_value(ItemValue::Array(array))?;
                return Ok((cost, None, None));
            };
            if array.late == 0 {
                array.size = size;
            }
            // If a punch lies between, later versions that it hid are gone, but they ended older ones.
            if punches.hide(epoch, array.epoch) {
                array.mark_late();
            }
            (array.epoch, array.op) = (epoch, op);
        }
        Ok((cost, None, Some(array)))
    }

    /// Removes an extent, or the first part of one that covered very many others: what it covered lives as
    /// long as it did. How much that was, and the first place at which older extents born in the range
    /// have been put.
    fn discard_rect(
        &mut self,
        array: &mut Array,
        Rect { piece, death }: Rect,
        range: Range,
    ) -> Result<(usize, Bytes), StageError> {
        let number = array.history;
        let (from, mut to) = (piece.offset, piece.end());
        let mut covered: Vec<OldPiece> = Vec::new();
        if number != 0 {
            to = self.vos.old_window(number, (from, to), COVERED_MAX)?;
            // Nobody sees what one transaction covers of its own: it was not kept.
            let before = Epoch::end_of(piece.epoch.hlc.saturating_sub(1));
            covered = self.vos.old_pieces_at(number, before, from, to)?;
            covered.retain(|o| o.death.hlc == piece.epoch.hlc);
        }
        let (mut put, mut alive) = (Vec::new(), Vec::new());
        for old in &covered {
            self.remove_old_piece(number, old)?;
            let (start, end) = (old.piece.offset.max(from), old.piece.end().min(to));
            for (a, b) in [(old.piece.offset, start), (end, old.piece.end())] {
                if a < b {
                    put.push(OldPiece { piece: old.piece.slice(a, b), death: old.death });
                }
            }
            alive.push(old.piece.slice(start, end));
        }
        alive.sort_unstable_by_key(|p| p.offset);
        if to < piece.end() {
            alive.push(piece.slice(to, piece.end()));
        }
        match death {
            Some(death) => {
                self.remove_old_piece(number, &OldPiece { piece: piece.clone(), death })?;
                put.extend(alive.into_iter().map(|piece| OldPiece { piece, death }));
            }
            None => self.replace(array, std::slice::from_ref(&piece), alive)?,
        }
        let mut back = Bytes::from_static(&[u8::MAX]);
        for old in &put {
            self.put_old_piece(number, old)?;
            if inside(range, old.piece.epoch) {
                back = back.min(Bytes::copy_from_slice(&old.key(number)[9..]));
            }
        }
        if matches!(piece.body, Body::Device(_)) {
            self.free_old(number, array, &[piece.slice(from, to)])?;
        }
        Ok((covered.len(), back))
    }

    /// Lets an older extent that ended in the range, where nothing born there took its place (a punch
    /// hid that at once), live on to the next birth. The results are as in [`Stage::discard_rect`].
    fn revive(
        &mut self,
        array: &mut Array,
        Rect { piece, death }: Rect,
    ) -> Result<(usize, Bytes), StageError> {
        let (number, death) = (array.history, death.unwrap_or_default());
        let (from, end) = (piece.offset, piece.end());
        let to = self.vos.old_window(number, (from, end), COVERED_MAX)?;
        let to = self.vos.head_window(&array.extents, (from, to), COVERED_MAX)?;
        let heads = self.vos.pieces(&array.extents, from, to)?.into_iter();
        let old = self.vos.old_pieces_after(number, piece.epoch, from, to)?.into_iter();
        let old = old.map(|o| Rect { piece: o.piece, death: Some(o.death) });
        let mut later: Vec<Rect> =
            heads.map(|piece| Rect { piece, death: None }).chain(old).collect();
        later.retain(|r| r.piece.epoch > piece.epoch);
        self.remove_old_piece(number, &OldPiece { piece: piece.clone(), death })?;
        let mut back = Bytes::from_static(&[u8::MAX]);
        if to < end {
            let rest = OldPiece { piece: piece.slice(to, end), death };
            self.put_old_piece(number, &rest)?;
            back = [&[KEY_ENDED][..], &rest.key(number)[9..]].concat().into();
        }
        for (from, to, death) in plane::lifetimes(&later, from, to, piece.epoch) {
            let piece = piece.slice(from, to);
            match death {
                Some(death) => self.put_old_piece(number, &OldPiece { piece, death })?,
                None => self.replace(array, &[], vec![piece])?,
            }
        }
        Ok((later.len() + 1, back))
    }

    /// Removes the punches of the range; where to go on with that.
    fn discard_punches(
        &mut self,
        object: u32,
        range: Range,
        cursor: Cursor,
        budget: usize,
    ) -> Result<Option<Cursor>, StageError> {
        let from = cursor.punches_from().unwrap_or_default();
        let unwanted = |p: Epoch| inside(range, p);
        if let Some(next) = self.sweep_punches(object, from, budget, &unwanted)? {
            return Ok(Some(cursor.at_punches(&next)));
        }
        let birth = cursor.birth();
        let Some(Some(record)) = &mut self.loaded[object as usize].record else {
            return Ok(None);
        };
        let log = &mut record.log;
        let created = log.0.iter().any(|&(e, k)| inside(range, e) && k == Incarnation::Create);
        log.0.retain(|&(e, _)| !inside(range, e));
        // A creation that is gone may have stood for later ones that left no entry.
        if let Some(birth) = birth.filter(|_| created) {
            log.create(birth, false);
        }
        Ok(None)
    }
}

impl Vos {
    /// `to`, or what is before it of `[from, to)` so that at most `max` extents at the head of an array
    /// begin inside.
    fn head_window(
        &self,
        extents: &Extents,
        (from, to): (u64, u64),
        max: usize,
    ) -> Result<u64, ReadError> {
        let Extents::Tree { number, .. } = extents else {
            return Ok(to);
        };
        let (mut end, mut seen) = (to, 0);
        let (first, last) = (from.saturating_add(1).to_be_bytes(), to.to_be_bytes());
        self.scan_table(TABLE_EXTENT, *number, &first, Some(&last), &mut |key, _| {
            if seen == max {
                let offset = key.try_into().map(u64::from_be_bytes);
                end = offset.map_err(|_| entry_damaged(TABLE_EXTENT))?;
                return Ok(ControlFlow::Break(()));
            }
            seen += 1;
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(end)
    }

    /// The next extent at the head of an array that was born in the range.
    fn find_head(
        &self,
        extents: &Extents,
        at: &Bytes,
        range: Range,
        max: usize,
    ) -> Result<Search, ReadError> {
        let from = at.get(1..).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes);
        let mut search = Search { looked_at: 0, found: None, at: None };
        let mut look = |piece: Piece| {
            if search.looked_at == max {
                search.at = Some(head_place(piece.offset));
                return ControlFlow::Break(());
            }
            search.looked_at += 1;
            if !inside(range, piece.epoch) {
                return ControlFlow::Continue(());
            }
            search.at = Some(head_place(piece.offset));
            search.found = Some(Rect { piece, death: None });
            ControlFlow::Break(())
        };
        match extents {
            Extents::List(list) => {
                let _ = list.iter().filter(|p| p.offset >= from).cloned().try_for_each(look);
            }
            Extents::Tree { number, .. } => {
                let start = from.to_be_bytes();
                self.scan_table(TABLE_EXTENT, *number, &start, None, &mut |key, cell| {
                    let damaged = || entry_damaged(TABLE_EXTENT);
                    let offset = key.try_into().map(u64::from_be_bytes).map_err(|_| damaged())?;
                    let mut r = Reader::new(tree::load_value(&self.pool, cell)?);
                    Ok(look(Piece::decode_body(offset, &mut r).map_err(|_| damaged())?))
                })?;
            }
        }
        Ok(search)
    }

    /// The next older extent of an array that was born in the range, or later that ended there.
    fn find_old(
        &self,
        number: u64,
        at: &Bytes,
        range: Range,
        max: usize,
    ) -> Result<Search, ReadError> {
        let mut search = Search { looked_at: 0, found: None, at: None };
        let ended = at.first() == Some(&KEY_ENDED);
        let place =
            |key: &[u8]| Bytes::from([if ended { &[KEY_ENDED][..] } else { &[] }, key].concat());
        let start = match at.split_first() {
            Some((&KEY_ENDED, [])) => &[KEY_PIECE],
            Some((&KEY_ENDED, key)) => key,
            _ => at,
        };
        self.scan_table(TABLE_HISTORY, number, start, Some(&[KEY_PIECE + 1]), &mut |key, cell| {
            if key.first() != Some(&KEY_PIECE) {
                return Ok(ControlFlow::Continue(()));
            }
            if search.looked_at == max {
                search.at = Some(place(key));
                return Ok(ControlFlow::Break(()));
            }
            search.looked_at += 1;
            let birth = key.get(10..).and_then(Epoch::from_key);
            let born = inside(range, birth.ok_or_else(|| entry_damaged(TABLE_HISTORY))?);
            if !born && !ended {
                return Ok(ControlFlow::Continue(()));
            }
            let OldPiece { piece, death } =
                OldPiece::decode(key, tree::load_value(&self.pool, cell)?)?;
            if ended && (born || !inside(range, death)) {
                return Ok(ControlFlow::Continue(()));
            }
            search.at = Some(place(key));
            search.found = Some(Rect { piece, death: Some(death) });
            Ok(ControlFlow::Break(()))
        })?;
        Ok(search)
    }
}
