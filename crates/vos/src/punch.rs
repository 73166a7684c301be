//! Punches: of objects, dkeys, ranges of akeys, and akeys.
//!
//! When nobody sees what is under a punch, and nothing older can still come, the content is dropped at
//! once and no trace stays. Else the punch is noted and hides whatever was born before it: that costs the
//! same whatever is under it, and aggregation removes it later. Only a punch of an object below the epoch
//! of its newest change looks at what is under it, to learn when the object comes into being again; one
//! with very many akeys has such a punch start again with a later epoch.

use bytes::Bytes;

use crate::epoch::{Epoch, Observers};
use crate::item::ItemValue;
use crate::object::Touch;
use crate::record::{
    Incarnation, IncarnationLog, Item, ObjectRecord, Punch, TABLE_AKEY, table_key,
};
use crate::stage::{Stage, check_keys};
use crate::timestamp::{Cause, Level, Restart};
use crate::tree;
use crate::tx::Tx;
use crate::types::{ReadError, StageError};
use crate::vos::Vos;

/// Akeys that a punch below the newest epoch of an object looks at.
const LATE_AKEYS_MAX: usize = 4096;

impl Stage<'_> {
    /// Removes an object with everything under it.
    pub(crate) fn punch_object(&mut self, tx: &Tx, object: u32) -> Result<(), StageError> {
        let (epoch, observers) = (self.epoch, self.observers(tx, object)?);
        let expects_older = epoch.hlc > observers.horizon;
        let Some(record) = self.found(tx, object)? else {
            if expects_older {
                self.record(tx, object, Touch::Only)?.log.punch(epoch);
            }
            return Ok(());
        };
        let in_order = record.epoch <= epoch;
        let seen = expects_older || observers.see(record.first_epoch(), epoch);
        if in_order && !seen {
            let record = self.record(tx, object, Touch::Only)?;
            let (epoch, horizon) = (record.epoch, record.horizon);
            // The epochs to be retained are the caller's: they stay until it says so.
            let retained = std::mem::take(&mut record.retained);
            let left = ObjectRecord { epoch, horizon, retained, ..ObjectRecord::default() };
            let old = std::mem::replace(record, left);
            return self.drop_record(old);
        }
        let record = self.record(tx, object, Touch::Only)?;
        if in_order && !expects_older && !record.exists() {
            return Ok(());
        }
        record.log.punch(epoch);
        forget_unseen(&mut record.log, &observers);
        if !in_order {
            let record = record.clone();
            if let Some(birth) = self.vos.next_birth(&record, epoch)? {
                self.record(tx, object, Touch::Only)?.log.create(birth, false);
            }
        }
        Ok(())
    }

    /// Removes the akeys of a dkey from `from` up to, not including, `to`.
    pub(crate) fn punch_akeys(
        &mut self,
        tx: &Tx,
        object: u32,
        dkey: &Bytes,
        from: &Bytes,
        to: Option<&Bytes>,
    ) -> Result<(), StageError> {
        check_keys(dkey, from)?;
        let (epoch, observers) = (self.epoch, self.observers(tx, object)?);
        let expects_older = epoch.hlc > observers.horizon;
        let Some(record) = self.found(tx, object)? else {
            if expects_older {
                self.note_punch(tx, object, (dkey, from, to), &observers)?;
            }
            return Ok(());
        };
        let (in_order, first) = (record.epoch <= epoch, record.first_epoch());
        let Some(record) = self.looked_up(object) else {
            return Ok(());
        };
        let empty = self.vos.moved_to(record, dkey)?.is_none()
            && !record.items.iter().any(|i| i.dkey == dkey && inside(&i.akey, from, to));
        if empty && in_order && !expects_older {
            return Ok(());
        }
        if !in_order || expects_older || observers.see(first, epoch) {
            return self.note_punch(tx, object, (dkey, from, to), &observers);
        }
        self.drop_akeys(tx, object, dkey, from, to)
    }

    /// Removes one akey.
    pub(crate) fn punch_akey(
        &mut self,
        tx: &Tx,
        object: u32,
        dkey: &Bytes,
        akey: &Bytes,
    ) -> Result<(), StageError> {
        check_keys(dkey, akey)?;
        let scene = self.scene(tx, object, dkey, akey)?;
        let expects_older = scene.expects_older(self.epoch);
        let item = self.item(tx, object, dkey, akey)?;
        if item.is_none() && !expects_older {
            if self.found(tx, object)?.is_some() {
                self.record(tx, object, Touch::Only)?;
            }
            return Ok(());
        }
        self.keep_creation(object);
        let first = self.record(tx, object, Touch::Only)?.first_epoch();
        let left = match item {
            Some(ItemValue::Array(array)) => {
                let unseen = !expects_older && !scene.observers.see(first, self.epoch);
                if array.epoch > self.epoch || !unseen {
                    let to = Bytes::from([akey, &[0][..]].concat());
                    let keys = (dkey, akey, Some(&to));
                    return self.note_punch(tx, object, keys, &scene.observers);
                }
                self.drop_value(ItemValue::Array(array))?;
                None
            }
            Some(ItemValue::Single(single)) => {
                let single = self.new_version(&scene, single, None)?;
                let bare = single.value.is_none() && single.history == 0 && !expects_older;
                Some(single).filter(|_| !bare)
            }
            None => Some(crate::item::Single { epoch: self.epoch, ..Default::default() }),
        };
        self.set_item(object, dkey, akey, left.map(ItemValue::Single))
    }

    fn note_punch(
        &mut self,
        tx: &Tx,
        object: u32,
        (dkey, from, to): (&Bytes, &Bytes, Option<&Bytes>),
        observers: &Observers,
    ) -> Result<(), StageError> {
        let epoch = self.epoch;
        self.keep_creation(object);
        self.record(tx, object, Touch::Only)?;
        let new = Punch { dkey: dkey.clone(), from: from.clone(), to: to.cloned(), epoch };
        self.forget_before(object, &new, observers)?;
        self.add_punch(object, new)
    }

    fn drop_akeys(
        &mut self,
        tx: &Tx,
        object: u32,
        dkey: &Bytes,
        from: &Bytes,
        to: Option<&Bytes>,
    ) -> Result<(), StageError> {
        self.record(tx, object, Touch::Only)?;
        let Some(Some(record)) = &mut self.loaded[object as usize].record else {
            return Ok(());
        };
        let Some(number) = self.vos.moved_to(record, dkey)? else {
            let (drop, keep) = std::mem::take(&mut record.items)
                .into_iter()
                .partition(|i| i.dkey == dkey && inside(&i.akey, from, to));
            record.items = keep;
            let drop: Vec<Item> = drop;
            return drop.into_iter().try_for_each(|i| self.drop_value(i.value));
        };
        if from.is_empty() && to.is_none() {
            self.forget_dkey(object, dkey)?;
            return self.drop_tree(TABLE_AKEY, number);
        }
        let mut keys = Vec::new();
        let end = to.map(|to| &to[..]);
        self.vos.scan_table(TABLE_AKEY, number, from, end, &mut |akey, _| {
            keys.push(Bytes::copy_from_slice(akey));
            Ok(std::ops::ControlFlow::Continue(()))
        })?;
        for akey in keys {
            if let Some(value) = self.remove_entry(number, &akey)? {
                self.drop_value(value)?;
            }
        }
        self.forget_bare_dkey(object, dkey, number)
    }

    /// Removes an entry of the akey table and returns its value.
    fn remove_entry(&mut self, number: u64, akey: &[u8]) -> Result<Option<ItemValue>, StageError> {
        let key = table_key(TABLE_AKEY, number, akey);
        let vos = &mut *self.vos;
        let Some(value) = tree::get(&vos.pool, vos.root, &key)? else {
            return Ok(None);
        };
        tree::remove(&mut vos.pool, &mut vos.root, &key)?;
        Ok(Some(ItemValue::decode_entry(value)?))
    }
}

impl Vos {
    /// Birth of the oldest version in an object born after `at`, if not too many are to be looked at.
    fn next_birth(&self, record: &ObjectRecord, at: Epoch) -> Result<Option<Epoch>, ReadError> {
        let (mut found, mut seen): (Option<Epoch>, usize) = (None, 0);
        self.scan_akeys(record, &mut |_, _, value| {
            seen += 1;
            if seen > LATE_AKEYS_MAX {
                let (after, cause) = (record.epoch.hlc, Cause::Late);
                return Err(Restart { after, cause, level: Level::Object }.into());
            }
            let birth = self.birth_in(value, at)?;
            found = [found, birth].into_iter().flatten().min();
            Ok(())
        })?;
        Ok(found)
    }

    /// Birth of the oldest version of an akey, punches apart, born after `at`.
    pub(crate) fn birth_in(
        &self,
        value: &ItemValue,
        at: Epoch,
    ) -> Result<Option<Epoch>, ReadError> {
        if value.epoch() <= at {
            return Ok(None);
        }
        let old = match value.history() {
            0 => None,
            number => self.creation_after(number, at)?,
        };
        let punched = matches!(value, ItemValue::Single(s) if s.value.is_none());
        Ok(old.or(Some(value.epoch()).filter(|_| !punched)))
    }
}

fn inside(akey: &Bytes, from: &Bytes, to: Option<&Bytes>) -> bool {
    akey >= from && to.is_none_or(|to| akey < to)
}

/// Removes incarnations that nobody sees: only the punch at their end is needed.
fn forget_unseen(log: &mut IncarnationLog, observers: &Observers) {
    let mut i = 0;
    while i + 1 < log.0.len() {
        let (from, kind) = log.0[i];
        let next_punch = log.0[i + 1..].iter().position(|(_, k)| *k == Incarnation::Punch);
        match next_punch {
            Some(n) if kind == Incarnation::Punch && !observers.see(from, log.0[i + 1 + n].0) => {
                log.0.drain(i..i + 1 + n);
            }
            _ => i += 1,
        }
    }
}
