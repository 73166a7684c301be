//! The dkeys of an object: in its record, moved out one by one, or so many that they have a tree.
//!
//! A record lists the dkeys that were moved out with the numbers of their akeys. When that list becomes
//! long it goes to entries of its own, and stays there while there are any.
//! Invariants: all items of a dkey are in one place; a dkey that was moved out has akeys, and a tree of
//! dkeys has dkeys. So the next of each is found without looking at many.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::codec::{Malformed, Reader, put_varint};
use crate::item::ItemValue;
use crate::query::Keys;
use crate::record::{ObjectRecord, TABLE_AKEY, TABLE_DKEY, TABLE_OBJECT, entry_damaged, table_key};
use crate::stage::{Stage, impossible};
use crate::tree;
use crate::types::{ReadError, StageError};
use crate::vos::Vos;

/// Longest list of moved dkeys in a record.
const MOVED_LEN_MAX: usize = 600;

/// Decodes an entry: the number of a dkey's akeys.
pub(crate) fn decode_entry(value: Bytes) -> Result<u64, ReadError> {
    let mut r = Reader::new(value);
    let number = r.varint().and_then(|n| if r.remaining() == 0 { Ok(n) } else { Err(Malformed) });
    number.map_err(|_| entry_damaged(TABLE_DKEY))
}

impl Vos {
    /// Tree number of a dkey that was moved out.
    pub(crate) fn moved_to(
        &self,
        record: &ObjectRecord,
        dkey: &[u8],
    ) -> Result<Option<u64>, ReadError> {
        if record.dkeys == 0 {
            return Ok(record.moved_to(dkey));
        }
        let key = table_key(TABLE_DKEY, record.dkeys, dkey);
        tree::get(&self.pool, self.root, &key)?.map(decode_entry).transpose()
    }

    /// What an akey holds.
    pub(crate) fn item(
        &self,
        record: &ObjectRecord,
        dkey: &[u8],
        akey: &[u8],
    ) -> Result<Option<ItemValue>, ReadError> {
        let Some(number) = self.moved_to(record, dkey)? else {
            return Ok(record.find(dkey, akey).ok().map(|i| record.items[i].value.clone()));
        };
        let key = table_key(TABLE_AKEY, number, akey);
        tree::get(&self.pool, self.root, &key)?.map(ItemValue::decode_entry).transpose()
    }

    /// The first dkey of `keys`, in their order, with its tree number if it was moved out.
    pub(crate) fn next_dkey(
        &self,
        record: &ObjectRecord,
        keys: &Keys,
    ) -> Result<Option<(Bytes, Option<u64>)>, ReadError> {
        let inline = record.items.iter().map(|i| (&i.dkey, None));
        let moved = record.moved.iter().map(|(dkey, number)| (dkey, Some(*number)));
        let here = inline.chain(moved).filter(|(dkey, _)| keys.has(dkey));
        let here = if keys.reverse { here.max() } else { here.min() };
        let mut next = here.map(|(dkey, number)| (dkey.clone(), number));
        if record.dkeys == 0 {
            return Ok(next);
        }
        self.scan_keys(TABLE_DKEY, record.dkeys, keys, &mut |dkey, cell| {
            let nearer = next.as_ref().is_none_or(|(n, _)| (*dkey < **n) != keys.reverse);
            if nearer {
                let number = decode_entry(tree::load_value(&self.pool, cell)?)?;
                next = Some((Bytes::copy_from_slice(dkey), Some(number)));
            }
            Ok(ControlFlow::Break(()))
        })?;
        Ok(next)
    }

    /// The first akey of an object from `dkey` and `akey` on.
    pub(crate) fn akey_from(
        &self,
        record: &ObjectRecord,
        dkey: &Bytes,
        akey: &Bytes,
    ) -> Result<Option<(Bytes, Bytes, ItemValue)>, ReadError> {
        let mut keys = Keys { from: dkey.clone(), ..Keys::default() };
        while let Some((next, number)) = self.next_dkey(record, &keys)? {
            let from = if next == *dkey { akey.clone() } else { Bytes::new() };
            let akeys = Keys { from, ..Keys::default() };
            if let Some((akey, value)) = self.first_akey(record, &next, number, &akeys)? {
                return Ok(Some((next, akey, value)));
            }
            keys = keys.after(&next);
        }
        Ok(None)
    }

    /// The first akey of `keys`, in their order, of a dkey with its tree number if it was moved out.
    pub(crate) fn first_akey(
        &self,
        record: &ObjectRecord,
        dkey: &[u8],
        number: Option<u64>,
        keys: &Keys,
    ) -> Result<Option<(Bytes, ItemValue)>, ReadError> {
        let Some(number) = number else {
            let mut items = record.items.iter().filter(|i| i.dkey == dkey && keys.has(&i.akey));
            let item = if keys.reverse { items.next_back() } else { items.next() };
            return Ok(item.map(|i| (i.akey.clone(), i.value.clone())));
        };
        let mut found = None;
        self.scan_keys(TABLE_AKEY, number, keys, &mut |akey, cell| {
            let value = ItemValue::decode_entry(tree::load_value(&self.pool, cell)?)?;
            found = Some((Bytes::copy_from_slice(akey), value));
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    /// Calls `f` for every akey of an object, those in the record first.
    pub(crate) fn scan_akeys(
        &self,
        record: &ObjectRecord,
        f: &mut dyn FnMut(&Bytes, &[u8], &ItemValue) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        record.items.iter().try_for_each(|i| f(&i.dkey, &i.akey, &i.value))?;
        let mut scan = |dkey: &Bytes, number: u64| {
            self.scan_table(TABLE_AKEY, number, &[], None, &mut |akey, cell| {
                f(dkey, akey, &ItemValue::decode_entry(tree::load_value(&self.pool, cell)?)?)?;
                Ok(ControlFlow::Continue(()))
            })
        };
        record.moved.iter().try_for_each(|(dkey, number)| scan(dkey, *number))?;
        if record.dkeys == 0 {
            return Ok(());
        }
        self.scan_table(TABLE_DKEY, record.dkeys, &[], None, &mut |dkey, cell| {
            let number = decode_entry(tree::load_value(&self.pool, cell)?)?;
            scan(&Bytes::copy_from_slice(dkey), number)?;
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Whether nothing of a table is under a number.
    pub(crate) fn is_bare(&self, table: u8, number: u64) -> Result<bool, ReadError> {
        let mut bare = true;
        self.scan_table(table, number, &[], None, &mut |_, _| {
            bare = false;
            Ok(ControlFlow::Break(()))
        })?;
        Ok(bare)
    }
}

impl Stage<'_> {
    /// The record of an object that has been looked up.
    pub(crate) fn looked_up(&self, object: u32) -> Option<&ObjectRecord> {
        self.loaded[object as usize].record.as_ref().and_then(Option::as_ref)
    }

    /// Notes that the items of a dkey are under a number from now on.
    pub(crate) fn move_dkey(
        &mut self,
        record: &mut ObjectRecord,
        dkey: Bytes,
        number: u64,
    ) -> Result<(), StageError> {
        record.moved.push((dkey, number));
        let len: usize = record.moved.iter().map(|(dkey, _)| dkey.len() + 6).sum();
        if record.dkeys == 0 {
            if len <= MOVED_LEN_MAX {
                return Ok(());
            }
            record.dkeys = self.vos.take_number();
        }
        let vos = &mut *self.vos;
        for (dkey, number) in record.moved.drain(..) {
            let mut entry = Vec::with_capacity(8);
            put_varint(&mut entry, number);
            let key = table_key(TABLE_DKEY, record.dkeys, &dkey);
            tree::insert(&mut vos.pool, &mut vos.root, &key, &entry)?;
        }
        Ok(())
    }

    /// Forgets a dkey that was moved out; its akeys are gone, or garbage.
    pub(crate) fn forget_dkey(&mut self, object: u32, dkey: &[u8]) -> Result<(), StageError> {
        let Some(Some(record)) = &mut self.loaded[object as usize].record else {
            return Err(impossible(TABLE_OBJECT));
        };
        record.moved.retain(|(d, _)| d != dkey);
        if record.dkeys != 0 {
            let vos = &mut *self.vos;
            let key = table_key(TABLE_DKEY, record.dkeys, dkey);
            tree::remove(&mut vos.pool, &mut vos.root, &key)?;
            if vos.is_bare(TABLE_DKEY, record.dkeys)? {
                record.dkeys = 0;
            }
        }
        Ok(())
    }

    /// Forgets a dkey under whose number nothing is left.
    pub(crate) fn forget_bare_dkey(
        &mut self,
        object: u32,
        dkey: &[u8],
        number: u64,
    ) -> Result<(), StageError> {
        match self.vos.is_bare(TABLE_AKEY, number)? {
            true => self.forget_dkey(object, dkey),
            false => Ok(()),
        }
    }
}
