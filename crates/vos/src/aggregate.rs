//! Aggregation: removing what nobody can see any more, a bounded amount of one object at a time.
//!
//! It is a logged operation like any other: replay must meet the same blocks named as staging did. Akeys
//! are gone through in order; when all have been, the punches under which nothing is left go too.
//! Invariant: nothing changes that is visible at or above the horizon or at a retained epoch. What a
//! pass may forget at its end depends on who could see when it began, as the first akeys did then.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::codec::{Malformed, Reader, put_bytes, put_u64, put_varint};
use crate::epoch::{Epoch, Observers, Scene};
use crate::history::{KEY_VERSION, OldPiece, VERSION_VALUE, Version};
use crate::item::{Array, Extents, ItemValue, Piece, Single, SizeOp};
use crate::merge::may_merge;
use crate::page::CellValue;
use crate::query::Keys;
use crate::record::{Incarnation, Item, ObjectRecord, TABLE_HISTORY, TABLE_OBJECT, table_key};
use crate::stage::{Stage, impossible};
use crate::tree;
use crate::tx::Tx;
use crate::types::{BLOCK_SIZE, ContainerId, ObjectKey, ReadError, StageError};
use crate::vos::Vos;

/// After the history of an array come the pieces at its head, by windows of this length.
pub(crate) const KEY_HEAD: u8 = 3;
/// After all akeys come the punches. (4 and 6 are places of a discard.)
const KEY_PUNCHES: u8 = 5;
const HEAD_WINDOW: u64 = 16 << 20;
const FOREVER: Epoch = Epoch { hlc: u64::MAX, minor: u16::MAX };

/// How far the aggregation, or the discard, of an object has come; the default one begins.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cursor {
    dkey: Bytes,
    akey: Bytes,
    /// Last key done inside the akey; of a discard, where to go on there.
    inner: Bytes,
    began: Option<Began>,
}

/// What held when a pass began.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Began {
    /// Who could see.
    observers: Observers,
    /// Before this nothing could be seen.
    first: Epoch,
}

impl Cursor {
    /// Of a discard: a place inside an akey, and the first birth after its range that was found.
    pub(crate) fn inside(
        (dkey, akey): (Bytes, Bytes),
        inner: Bytes,
        birth: Option<Epoch>,
    ) -> Cursor {
        let began = birth.map(|first| Began { observers: Observers::default(), first });
        Cursor { dkey, akey, inner, began }
    }

    /// Where to go on in this akey.
    pub(crate) fn inner_of(&self, dkey: &[u8], akey: &[u8]) -> Bytes {
        match self.dkey == dkey && self.akey == akey {
            true => self.inner.clone(),
            false => Bytes::new(),
        }
    }

    /// At a place among the punches, which come after all akeys.
    pub(crate) fn at_punches(self, key: &[u8]) -> Cursor {
        Cursor { inner: [&[KEY_PUNCHES], key].concat().into(), ..self }
    }

    pub(crate) fn punches_from(&self) -> Option<&[u8]> {
        self.inner.split_first().filter(|(kind, _)| **kind == KEY_PUNCHES).map(|(_, key)| key)
    }

    /// See [`Cursor::inside`].
    pub(crate) fn birth(&self) -> Option<Epoch> {
        self.began.as_ref().map(|b| b.first)
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        [&self.dkey, &self.akey, &self.inner].into_iter().for_each(|b| put_bytes(out, b));
        out.push(u8::from(self.began.is_some()));
        if let Some(Began { observers, first }) = &self.began {
            first.encode(out);
            put_u64(out, observers.horizon);
            put_varint(out, observers.retained.len() as u64);
            observers.retained.iter().for_each(|&e| put_u64(out, e));
        }
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Cursor, Malformed> {
        let (dkey, akey, inner) = (r.bytes()?, r.bytes()?, r.bytes()?);
        let mut began = None;
        if r.u8()? != 0 {
            let (first, horizon) = (Epoch::decode(r)?, r.u64()?);
            let count = r.count(8)?;
            let retained = (0..count).map(|_| r.u64()).collect::<Result<_, _>>()?;
            began = Some(Began { observers: Observers { horizon, retained }, first });
        }
        Ok(Cursor { dkey, akey, inner, began })
    }

    pub(crate) fn len(&self) -> usize {
        let retained = self.began.as_ref().map_or(0, |b| b.observers.retained.len() * 8);
        self.dkey.len() + self.akey.len() + self.inner.len() + retained + 48
    }
}

/// What was done in an akey.
struct Step {
    /// Entries looked at.
    cost: usize,
    /// Where to go on inside the akey.
    more: Option<Bytes>,
    /// What the akey holds now, if that has changed.
    changed: Option<Option<ItemValue>>,
}

impl Stage<'_> {
    /// Aggregates some of an object; `None` when all is done.
    pub(crate) fn aggregate(
        &mut self,
        tx: &Tx,
        object: u32,
        mut cursor: Cursor,
        budget: u32,
    ) -> Result<Option<Cursor>, StageError> {
        let observers = self.observers(tx, object)?;
        let Some(record) = self.found(tx, object)? else {
            return Ok(None);
        };
        let now = Began { observers, first: record.first_epoch() };
        let began = cursor.began.get_or_insert(now).clone();
        self.raise_horizon(tx, object);
        let mut left = budget.max(1) as usize;
        loop {
            let record = self.looked_up(object).ok_or(impossible(TABLE_OBJECT))?;
            let Some((dkey, akey, _)) = self.vos.akey_at(record, &cursor)? else {
                return self.forget_punches(object, &began, cursor, left);
            };
            let inner = cursor.inner_of(&dkey, &akey);
            let step = self.aggregate_akey(tx, object, (&dkey, &akey), &inner, left)?;
            if let Some(value) = step.changed {
                self.set_item(object, &dkey, &akey, value)?;
            }
            (cursor.dkey, cursor.akey, cursor.inner) = match step.more {
                Some(inner) => (dkey, akey, inner),
                None => (dkey, [&akey, &[0][..]].concat().into(), Bytes::new()),
            };
            left = left.saturating_sub(step.cost.max(1));
            if left == 0 {
                return Ok(Some(cursor));
            }
        }
    }

    /// Nobody may read the object below the horizon of the transaction any more.
    pub(crate) fn raise_horizon(&mut self, tx: &Tx, object: u32) {
        let loaded = &mut self.loaded[object as usize];
        if let Some(Some(record)) = &mut loaded.record {
            record.horizon = record.horizon.max(tx.horizon());
            loaded.changed = true;
        }
    }

    fn aggregate_akey(
        &mut self,
        tx: &Tx,
        object: u32,
        (dkey, akey): (&Bytes, &Bytes),
        inner: &Bytes,
        budget: usize,
    ) -> Result<Step, StageError> {
        let scene = self.scene(tx, object, dkey, akey)?;
        let Some(mut value) = self.item(tx, object, dkey, akey)? else {
            return Ok(Step { cost: 1, more: None, changed: None });
        };
        let before = value.clone();
        let step = |cost, more, value: Option<ItemValue>| {
            let changed = Some(value).filter(|v| v.as_ref() != Some(&before));
            Step { cost, more, changed }
        };
        let (mut cost, number) = (1, value.history());
        if number != 0 && inner.first() != Some(&KEY_HEAD) {
            let (done, more) = self.aggregate_history(&scene, &mut value, inner, budget)?;
            cost += done;
            if more.is_some() {
                return Ok(step(cost, more, Some(value)));
            }
        }
        let bare = number == 0 || self.vos.is_bare(TABLE_HISTORY, number)?;
        match value {
            ItemValue::Single(single) => {
                let left = finish_single(&scene, single, bare).map(ItemValue::Single);
                Ok(step(cost, None, left))
            }
            ItemValue::Array(array) => {
                let (left, more) = self.finish_array(&scene, array, bare, inner)?;
                Ok(step(cost, more, left.map(ItemValue::Array)))
            }
        }
    }

    /// Goes through some of the history; how many entries, and where to go on.
    fn aggregate_history(
        &mut self,
        scene: &Scene,
        value: &mut ItemValue,
        inner: &Bytes,
        budget: usize,
    ) -> Result<(usize, Option<Bytes>), StageError> {
        let (number, newest) = (value.history(), value.epoch());
        let start = [inner, &[0][..]].concat();
        let mut entries: Vec<(Bytes, Bytes)> = Vec::new();
        self.vos.scan_table(TABLE_HISTORY, number, &start, None, &mut |key, cell| {
            // Only values are that long, and what they are does not matter.
            let value = match cell {
                CellValue::Overflow { .. } => Bytes::from_static(&[VERSION_VALUE]),
                _ => tree::load_value(&self.vos.pool, cell)?,
            };
            entries.push((Bytes::copy_from_slice(key), value));
            let full = entries.len() > budget;
            Ok(if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        let births: Vec<Option<Epoch>> =
            entries.iter().map(|(key, _)| version_birth(key)).collect();
        let (mut carry, mut gone): (Option<SizeOp>, Vec<Piece>) = (None, Vec::new());
        let mut first = inner.is_empty();
        for (i, (key, entry)) in entries.iter().take(budget).enumerate() {
            let Some(birth) = births[i] else {
                let old = OldPiece::decode(key, entry.clone())?;
                if !scene.keeps(old.piece.epoch, old.death) {
                    self.remove_old_piece(number, &old)?;
                    gone.push(old.piece);
                }
                continue;
            };
            let next = births.get(i + 1).copied().flatten().unwrap_or(newest);
            let changed = carry.is_some();
            let version = carried(Version::decode(entry.clone())?, &mut carry);
            let needless = first && version == Version::Punched && !scene.expects_older(birth);
            if scene.keeps(birth, next) && !needless {
                if changed {
                    self.put_version(number, birth, &version)?;
                }
                first = false;
                continue;
            }
            let vos = &mut *self.vos;
            tree::remove(&mut vos.pool, &mut vos.root, &table_key(TABLE_HISTORY, number, key))?;
            if let Version::Size { op, .. } = version
                && !scene.punches.hide(birth, next)
            {
                carry = Some(op);
            }
        }
        self.hand_on(number, value, carry, entries.get(budget))?;
        if let ItemValue::Array(array) = value {
            self.free_old(number, array, &gone)?;
        }
        let more = (entries.len() > budget).then(|| entries[budget - 1].0.clone());
        Ok((entries.len().min(budget), more))
    }

    /// Gives what removed versions did to the size to the next one.
    fn hand_on(
        &mut self,
        number: u64,
        value: &mut ItemValue,
        mut carry: Option<SizeOp>,
        next: Option<&(Bytes, Bytes)>,
    ) -> Result<(), StageError> {
        let Some(op) = carry else {
            return Ok(());
        };
        match next.and_then(|(key, entry)| Some((version_birth(key)?, entry))) {
            Some((birth, entry)) => {
                let version = carried(Version::decode(entry.clone())?, &mut carry);
                self.put_version(number, birth, &version)?;
            }
            None => {
                if let ItemValue::Array(array) = value {
                    array.op = op.then(array.op);
                }
            }
        }
        Ok(())
    }

    /// Frees the blocks of removed pieces that no other piece of the array names.
    pub(crate) fn free_old(
        &mut self,
        number: u64,
        array: &Array,
        gone: &[Piece],
    ) -> Result<(), StageError> {
        let Some(lo) = gone.iter().map(|p| p.offset).min() else {
            return Ok(());
        };
        let hi = gone.iter().map(Piece::end).max().unwrap_or(lo).saturating_add(BLOCK_SIZE);
        let lo = lo.saturating_sub(BLOCK_SIZE);
        let heads = self.vos.pieces(&array.extents, lo, hi)?;
        let old = self.vos.old_pieces(number, lo, hi)?;
        self.free_difference(gone, heads.iter().chain(old.iter().map(|o| &o.piece)));
        Ok(())
    }

    /// What is left of an array whose history has been gone through, and where to go on.
    fn finish_array(
        &mut self,
        scene: &Scene,
        mut array: Array,
        bare: bool,
        inner: &Bytes,
    ) -> Result<(Option<Array>, Option<Bytes>), StageError> {
        let head = inner.split_first().filter(|(kind, _)| **kind == KEY_HEAD);
        let from = head.and_then(|(_, at)| at.try_into().ok()).map_or(0, u64::from_be_bytes);
        if !scene.punches.0.is_empty()
            && let Some(next) = self.drop_hidden(scene, &mut array, from)?
        {
            let more = [&[KEY_HEAD][..], &next.to_be_bytes()].concat().into();
            return Ok((Some(array), Some(more)));
        }
        if bare {
            (array.history, array.late, array.size) = (0, 0, array.op.apply(0));
        } else if !scene.punches.0.is_empty() {
            // Punches that are going to be forgotten still count for the sizes.
            let punched = scene.punches.last_until(array.epoch);
            array.size = self.vos.fold_sizes(&array, punched, FOREVER)?;
            array.mark_late();
        }
        let empty = match &array.extents {
            Extents::List(list) => list.is_empty(),
            Extents::Tree { count, .. } => *count == 0,
        };
        let seen = scene.keeps(array.epoch, FOREVER);
        Ok((Some(array).filter(|_| seen || !bare || !empty), None))
    }

    /// Removes pieces of a window that a punch hides from all; where the next window begins.
    fn drop_hidden(
        &mut self,
        scene: &Scene,
        array: &mut Array,
        from: u64,
    ) -> Result<Option<u64>, StageError> {
        let to = from.saturating_add(HEAD_WINDOW);
        let heads = self.vos.pieces(&array.extents, from, to)?;
        let seen = |p: &Piece| scene.keeps(p.epoch, FOREVER);
        let gone: Vec<Piece> = heads.iter().filter(|p| !seen(p)).cloned().collect();
        if !gone.is_empty() {
            let kept = heads.iter().filter(|p| seen(p)).cloned().collect();
            self.replace(array, &heads, kept)?;
            self.free_old(array.history, array, &gone)?;
        }
        let more = self.vos.pieces(&array.extents, to, u64::MAX)?;
        Ok(more.first().map(|p| p.offset.max(to)))
    }

    /// Forgets the punches of an object that hide nothing any more; where to go on with that.
    fn forget_punches(
        &mut self,
        object: u32,
        Began { observers, first }: &Began,
        cursor: Cursor,
        budget: usize,
    ) -> Result<Option<Cursor>, StageError> {
        let idle = |p: Epoch| p.hlc < observers.horizon && !observers.see(*first, p);
        let from = cursor.punches_from().unwrap_or_default();
        if let Some(next) = self.sweep_punches(object, from, budget, &idle)? {
            return Ok(Some(cursor.at_punches(&next)));
        }
        let Some(Some(record)) = &mut self.loaded[object as usize].record else {
            return Ok(None);
        };
        let log = &mut record.log.0;
        let last = log.iter().rposition(|&(e, kind)| kind == Incarnation::Punch && idle(e));
        if let Some(last) = last {
            log.drain(..=last);
        }
        let mut exists = false;
        log.retain(|(epoch, kind)| {
            let again = exists && *kind == Incarnation::Create && epoch.hlc < observers.horizon;
            exists = *kind == Incarnation::Create;
            !again
        });
        Ok(None)
    }
}

impl Vos {
    /// The akey at which a pass goes on.
    pub(crate) fn akey_at(
        &self,
        record: &ObjectRecord,
        cursor: &Cursor,
    ) -> Result<Option<(Bytes, Bytes, ItemValue)>, ReadError> {
        match cursor.punches_from() {
            None => self.akey_from(record, &cursor.dkey, &cursor.akey),
            Some(_) => Ok(None),
        }
    }

    /// Of the next `max` objects from `keys` on those in which aggregation may find something to
    /// remove, and the last one looked at; `None` when there are no more.
    pub fn unaggregated(
        &self,
        cid: ContainerId,
        keys: &Keys,
        max: usize,
    ) -> Result<(Option<ObjectKey>, Vec<ObjectKey>), ReadError> {
        let threshold = self.config.inline_threshold;
        self.objects_that(cid, keys, max, |record| {
            Ok(needs_aggregation(&ObjectRecord::decode(record)?, threshold))
        })
    }
}

fn needs_aggregation(record: &ObjectRecord, inline_threshold: u32) -> bool {
    let needed = |item: &Item| match &item.value {
        ItemValue::Single(single) => single.history != 0 || single.value.is_none(),
        ItemValue::Array(array) => array.history != 0 || may_merge(array, inline_threshold),
    };
    !record.has_no_punches()
        || record.log.0.len() != 1
        || !record.moved.is_empty()
        || record.dkeys != 0
        || record.items.iter().any(needed)
}

/// What is left of a single value whose history has been gone through.
fn finish_single(scene: &Scene, mut single: Single, bare: bool) -> Option<Single> {
    if bare {
        single.history = 0;
    }
    if single.value.is_some() && !scene.keeps(single.epoch, FOREVER) {
        single.value = None;
    }
    let needless = single.value.is_none() && bare && !scene.expects_older(single.epoch);
    Some(single).filter(|_| !needless)
}

/// Birth of the version with this key; `None` for pieces.
fn version_birth(key: &[u8]) -> Option<Epoch> {
    match key.split_first() {
        Some((&KEY_VERSION, birth)) => Epoch::from_key(birth),
        _ => None,
    }
}

/// The version with what removed ones before it did to the size.
fn carried(version: Version, carry: &mut Option<SizeOp>) -> Version {
    match (version, carry.take()) {
        (Version::Size { op, size }, Some(before)) => Version::Size { op: before.then(op), size },
        (version, _) => version,
    }
}
