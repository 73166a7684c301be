//! Objects in a transaction: their records are looked up once, changed in memory, and written back when
//! the transaction ends.
//!
//! Invariant: a record that has become too long moves its largest part to entries of their own; which
//! part that is depends on the record alone.

use bytes::Bytes;

use crate::record::{
    Array, Extents, Item, ItemValue, ObjectRecord, RECORD_LEN_MAX, TABLE_AKEY, TABLE_OBJECT,
    table_key,
};
use crate::stage::{Stage, check_keys};
use crate::tree;
use crate::tx::Tx;
use crate::types::{KEY_LEN_MAX, StageError};
use crate::vos::array_bytes;

/// An object named by the transaction.
pub(crate) struct Loaded {
    /// `None`: not looked up since the start or the last change of containers.
    record: Option<Option<ObjectRecord>>,
    existed: bool,
    changed: bool,
    /// Sum of the array sizes before.
    bytes_before: u64,
}

impl Stage<'_> {
    /// The record of an object, made to exist and about to be changed.
    pub(crate) fn record(&mut self, tx: &Tx, object: u32) -> Result<&mut ObjectRecord, StageError> {
        self.look_up(tx, object)?;
        let loaded = &mut self.loaded[object as usize];
        loaded.changed = true;
        let record = loaded.record.get_or_insert_default().get_or_insert_default();
        record.epoch = self.epoch;
        Ok(record)
    }

    pub(crate) fn look_up(&mut self, tx: &Tx, object: u32) -> Result<(), StageError> {
        if self.loaded[object as usize].record.is_some() {
            return Ok(());
        }
        let (cid, oid) = &tx.objects[object as usize];
        if oid.0.is_empty() || oid.0.len() > KEY_LEN_MAX {
            return Err(StageError::KeyLength(oid.0.len()));
        }
        if !self.vos.containers.contains_key(cid) {
            return Err(StageError::NoContainer(*cid));
        }
        let record = self.vos.object(*cid, oid)?;
        let loaded = &mut self.loaded[object as usize];
        loaded.existed = record.is_some();
        loaded.bytes_before = record.as_ref().map_or(0, record_bytes);
        loaded.record = Some(record);
        Ok(())
    }

    /// Removes an object with everything under it.
    pub(crate) fn punch_object(&mut self, tx: &Tx, object: u32) -> Result<(), StageError> {
        self.look_up(tx, object)?;
        let loaded = &mut self.loaded[object as usize];
        loaded.changed = true;
        match loaded.record.replace(None).flatten() {
            Some(record) => self.drop_record(record),
            None => Ok(()),
        }
    }

    /// Gives up what an object record holds and names.
    pub(crate) fn drop_record(&mut self, record: ObjectRecord) -> Result<(), StageError> {
        for (_, number) in record.moved {
            self.drop_tree(TABLE_AKEY, number)?;
        }
        record.items.into_iter().try_for_each(|item| self.drop_value(item.value))
    }

    pub(crate) fn set_item(
        &mut self,
        tx: &Tx,
        object: u32,
        dkey: &Bytes,
        akey: &Bytes,
        value: ItemValue,
    ) -> Result<(), StageError> {
        let record = self.record(tx, object)?;
        if let Some(number) = record.moved_to(dkey) {
            let key = table_key(TABLE_AKEY, number, akey);
            let vos = &mut *self.vos;
            let old = tree::get(&vos.pool, vos.root, &key)?.map(ItemValue::decode_entry);
            same_kind(old.transpose()?.as_ref(), &value)?;
            let mut out = Vec::new();
            value.encode(&mut out);
            tree::insert(&mut vos.pool, &mut vos.root, &key, &out)?;
            return Ok(());
        }
        match record.find(dkey, akey) {
            Ok(i) => {
                same_kind(Some(&record.items[i].value), &value)?;
                record.items[i].value = value;
            }
            Err(i) => {
                record.items.insert(i, Item { dkey: dkey.clone(), akey: akey.clone(), value });
            }
        }
        Ok(())
    }

    /// The array to be changed; a new one if there is none.
    pub(crate) fn take_array(
        &mut self,
        tx: &Tx,
        object: u32,
        dkey: &Bytes,
        akey: &Bytes,
    ) -> Result<Array, StageError> {
        let record = self.record(tx, object)?;
        let value = match record.moved_to(dkey) {
            Some(number) => {
                let key = table_key(TABLE_AKEY, number, akey);
                let value = tree::get(&self.vos.pool, self.vos.root, &key)?;
                value.map(ItemValue::decode_entry).transpose()?
            }
            None => match record.find(dkey, akey) {
                Ok(i) => Some(record.items[i].value.clone()),
                Err(_) => None,
            },
        };
        match value {
            None => Ok(Array::default()),
            Some(ItemValue::Array(array)) => Ok(array),
            Some(ItemValue::Single { .. }) => Err(StageError::WrongKind),
        }
    }

    pub(crate) fn put_array(
        &mut self,
        tx: &Tx,
        object: u32,
        dkey: &Bytes,
        akey: &Bytes,
        mut array: Array,
    ) -> Result<(), StageError> {
        array.epoch = self.epoch;
        self.bound_list(&mut array)?;
        self.set_item(tx, object, dkey, akey, ItemValue::Array(array))
    }

    pub(crate) fn punch_akey(
        &mut self,
        tx: &Tx,
        object: u32,
        dkey: &Bytes,
        akey: &Bytes,
    ) -> Result<(), StageError> {
        check_keys(dkey, akey)?;
        if !self.exists(tx, object)? {
            return Ok(());
        }
        let record = self.record(tx, object)?;
        let value = match record.moved_to(dkey) {
            Some(number) => self.remove_entry(number, akey)?,
            None => match record.find(dkey, akey) {
                Ok(i) => Some(record.items.remove(i).value),
                Err(_) => None,
            },
        };
        value.map_or(Ok(()), |v| self.drop_value(v))
    }

    pub(crate) fn punch_akeys(
        &mut self,
        tx: &Tx,
        object: u32,
        dkey: &Bytes,
        from: &Bytes,
        to: Option<&Bytes>,
    ) -> Result<(), StageError> {
        if !self.exists(tx, object)? {
            return Ok(());
        }
        let record = self.record(tx, object)?;
        let inside = |akey: &Bytes| akey >= from && to.is_none_or(|to| akey < to);
        let Some(number) = record.moved_to(dkey) else {
            let (drop, keep) = std::mem::take(&mut record.items)
                .into_iter()
                .partition(|i| i.dkey == dkey && inside(&i.akey));
            record.items = keep;
            let drop: Vec<Item> = drop;
            return drop.into_iter().try_for_each(|i| self.drop_value(i.value));
        };
        if from.is_empty() && to.is_none() {
            record.moved.retain(|(d, _)| d != dkey);
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
        Ok(())
    }

    /// Removes an entry of the akey table and returns its value.
    pub(crate) fn remove_entry(
        &mut self,
        number: u64,
        akey: &[u8],
    ) -> Result<Option<ItemValue>, StageError> {
        let key = table_key(TABLE_AKEY, number, akey);
        let vos = &mut *self.vos;
        let Some(value) = tree::get(&vos.pool, vos.root, &key)? else {
            return Ok(None);
        };
        tree::remove(&mut vos.pool, &mut vos.root, &key)?;
        Ok(Some(ItemValue::decode_entry(value)?))
    }

    pub(crate) fn exists(&mut self, tx: &Tx, object: u32) -> Result<bool, StageError> {
        self.look_up(tx, object)?;
        Ok(matches!(self.loaded[object as usize].record, Some(Some(_))))
    }

    /// Writes the changed object records back to the tree.
    pub(crate) fn flush(&mut self, tx: &Tx) -> Result<(), StageError> {
        for i in 0..self.loaded.len() {
            let loaded = std::mem::replace(&mut self.loaded[i], Loaded::unknown());
            let Some(record) = loaded.record.filter(|_| loaded.changed) else {
                continue;
            };
            let (cid, oid) = &tx.objects[i];
            let Some(mut container) = self.vos.containers.get(cid).copied() else {
                return Err(StageError::NoContainer(*cid));
            };
            let key = table_key(TABLE_OBJECT, container.record.number, &oid.0);
            let mut bytes_after = 0;
            let exists = record.is_some();
            if let Some(mut record) = record {
                let encoded = self.fit(&mut record)?;
                bytes_after = record_bytes(&record);
                tree::insert(&mut self.vos.pool, &mut self.vos.root, &key, &encoded)?;
            } else if loaded.existed {
                tree::remove(&mut self.vos.pool, &mut self.vos.root, &key)?;
            }
            let counts = &mut container.record;
            let before = (counts.objects, counts.bytes);
            counts.objects =
                counts.objects.saturating_add_signed(i64::from(exists) - i64::from(loaded.existed));
            counts.bytes =
                counts.bytes.saturating_add(bytes_after).saturating_sub(loaded.bytes_before);
            if before != (counts.objects, counts.bytes) {
                container.stale = true;
                self.vos.set_container(*cid, Some(container));
            }
        }
        Ok(())
    }

    /// Encodes a record, moving out its largest part until it is small enough.
    pub(crate) fn fit(&mut self, record: &mut ObjectRecord) -> Result<Vec<u8>, StageError> {
        loop {
            let encoded = record.encode();
            if encoded.len() <= RECORD_LEN_MAX {
                return Ok(encoded);
            }
            let mut sizes: Vec<(usize, Bytes, usize)> = Vec::new();
            for item in &record.items {
                let len = item.akey.len() + item.value.encoded_len();
                match sizes.last_mut().filter(|(_, dkey, _)| *dkey == item.dkey) {
                    Some((size, _, count)) => (*size, *count) = (*size + len, *count + 1),
                    None => sizes.push((len, item.dkey.clone(), 1)),
                }
            }
            let Some((_, dkey, count)) = sizes.into_iter().max_by_key(|s| s.0) else {
                return Ok(encoded);
            };
            let first = record.items.iter().position(|i| i.dkey == dkey).unwrap_or(0);
            match &mut record.items[first].value {
                ItemValue::Array(array)
                    if count == 1 && matches!(array.extents, Extents::List(_)) =>
                {
                    let mut array = std::mem::take(array);
                    self.list_to_tree(&mut array)?;
                    record.items[first].value = ItemValue::Array(array);
                }
                _ => {
                    let number = self.vos.take_number();
                    for item in record.items.drain(first..first + count) {
                        let key = table_key(TABLE_AKEY, number, &item.akey);
                        let mut out = Vec::new();
                        item.value.encode(&mut out);
                        tree::insert(&mut self.vos.pool, &mut self.vos.root, &key, &out)?;
                    }
                    record.moved.push((dkey, number));
                }
            }
        }
    }
}

impl Loaded {
    pub(crate) fn unknown() -> Loaded {
        Loaded { record: None, existed: false, changed: false, bytes_before: 0 }
    }
}

fn record_bytes(record: &ObjectRecord) -> u64 {
    array_bytes(record.items.iter().map(|i| &i.value))
}

fn same_kind(old: Option<&ItemValue>, new: &ItemValue) -> Result<(), StageError> {
    match old {
        Some(old) if std::mem::discriminant(old) != std::mem::discriminant(new) => {
            Err(StageError::WrongKind)
        }
        _ => Ok(()),
    }
}
