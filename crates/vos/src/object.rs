//! Objects in a transaction: their records are looked up once, changed in memory, and written back when
//! the transaction ends.
//!
//! Invariant: a record that has become too long moves its largest part to entries of their own; which
//! part that is depends on the record alone.

use bytes::Bytes;

use crate::epoch::{Epoch, Observers, Punches, Scene};
use crate::history::Version;
use crate::item::{Array, Extents, ItemValue, Single};
use crate::parts::Counts;
use crate::record::{
    Item, ObjectRecord, Punch, RECORD_LEN_MAX, TABLE_AKEY, TABLE_DKEY, TABLE_OBJECT, TABLE_PUNCH,
    table_key,
};
use crate::stage::Stage;
use crate::tree;
use crate::tx::Tx;
use crate::types::{ContainerId, KEY_LEN_MAX, ReadError, StageError};
use crate::vos::{Vos, array_bytes};

/// An object named by the transaction.
pub(crate) struct Loaded {
    /// `None`: not looked up since the start or the last change of containers.
    pub(crate) record: Option<Option<ObjectRecord>>,
    /// There was a record, though the object may not have existed.
    stored: bool,
    pub(crate) changed: bool,
    /// The last operation of the transaction that made the object exist.
    created: Option<Epoch>,
    /// What it counted for before.
    before: Counts,
}

/// How an operation touches an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Touch {
    /// Nothing comes into being.
    Only,
    /// The object exists afterwards, as its content tells.
    Creates,
    /// The object exists afterwards, even without content.
    CreatesEmpty,
}

impl Stage<'_> {
    /// The record of an object, made to exist and about to be changed.
    pub(crate) fn record(
        &mut self,
        tx: &Tx,
        object: u32,
        touch: Touch,
    ) -> Result<&mut ObjectRecord, StageError> {
        self.look_up(tx, object)?;
        let (epoch, horizon) = (self.epoch, tx.horizon());
        let loaded = &mut self.loaded[object as usize];
        let record = loaded.record.get_or_insert_default().get_or_insert_default();
        if epoch.hlc < record.horizon || epoch.hlc < horizon {
            return Err(StageError::EpochTooOld { epoch: epoch.hlc, horizon: record.horizon });
        }
        loaded.changed = true;
        record.epoch = record.epoch.max(epoch);
        record.horizon = record.horizon.max(horizon);
        if touch != Touch::Only {
            loaded.created = Some(epoch);
            let explicit = touch == Touch::CreatesEmpty && epoch.hlc > record.horizon;
            record.log.create(epoch, explicit);
        }
        Ok(record)
    }

    /// A punch may remove all that earlier operations of the transaction have left, but they made the
    /// object exist, which an older punch of the object that is still to come must not undo.
    pub(crate) fn keep_creation(&mut self, object: u32) {
        let loaded = &mut self.loaded[object as usize];
        if let (Some(created), Some(Some(record))) = (loaded.created, &mut loaded.record)
            && created.hlc > record.horizon
        {
            record.log.create(created, true);
        }
    }

    pub(crate) fn look_up(&mut self, tx: &Tx, object: u32) -> Result<(), StageError> {
        if self.loaded[object as usize].record.is_some() {
            return Ok(());
        }
        let (cid, oid) = &tx.objects[object as usize];
        if oid.0.is_empty() || oid.0.len() > KEY_LEN_MAX {
            return Err(StageError::KeyLength(oid.0.len()));
        }
        let container = self.vos.containers.get(cid).ok_or(StageError::NoContainer(*cid))?;
        let key = container.record.object_key(&oid.0).ok_or(StageError::OutOfRange(*cid))?;
        let record = tree::get(&self.vos.pool, self.vos.root, &key)?;
        let record = record.map(ObjectRecord::decode).transpose()?;
        let loaded = &mut self.loaded[object as usize];
        loaded.stored = record.is_some();
        loaded.before = record.as_ref().map(Counts::of).unwrap_or_default();
        loaded.record = Some(record);
        Ok(())
    }

    /// The record of an object, if there is one.
    pub(crate) fn found(
        &mut self,
        tx: &Tx,
        object: u32,
    ) -> Result<Option<&ObjectRecord>, StageError> {
        self.look_up(tx, object)?;
        Ok(self.loaded[object as usize].record.as_ref().and_then(Option::as_ref))
    }

    /// Who can see an object.
    pub(crate) fn observers(&mut self, tx: &Tx, object: u32) -> Result<Observers, StageError> {
        self.look_up(tx, object)?;
        let cid = tx.objects[object as usize].0;
        Ok(self.vos.observers(cid, self.looked_up(object), tx.horizon()))
    }

    /// Who can see an akey, and what hides its versions.
    pub(crate) fn scene(
        &mut self,
        tx: &Tx,
        object: u32,
        dkey: &[u8],
        akey: &[u8],
    ) -> Result<Scene, StageError> {
        let observers = self.observers(tx, object)?;
        Ok(Scene { observers, punches: self.punches_of(object, dkey, akey)? })
    }

    /// What hides versions of an akey of an object that has been looked up.
    pub(crate) fn punches_of(
        &self,
        object: u32,
        dkey: &[u8],
        akey: &[u8],
    ) -> Result<Punches, ReadError> {
        let record = self.looked_up(object);
        record.map_or(Ok(Punches::default()), |record| self.vos.punches_of(record, dkey, akey))
    }

    /// What an akey holds.
    pub(crate) fn item(
        &mut self,
        tx: &Tx,
        object: u32,
        dkey: &[u8],
        akey: &[u8],
    ) -> Result<Option<ItemValue>, StageError> {
        self.look_up(tx, object)?;
        let record = self.looked_up(object);
        record.map_or(Ok(None), |record| Ok(self.vos.item(record, dkey, akey)?))
    }

    /// Sets what an akey holds, or removes it. The record must have been touched.
    pub(crate) fn set_item(
        &mut self,
        object: u32,
        dkey: &Bytes,
        akey: &Bytes,
        value: Option<ItemValue>,
    ) -> Result<(), StageError> {
        let Some(Some(record)) = &mut self.loaded[object as usize].record else {
            return Err(crate::stage::impossible(TABLE_OBJECT));
        };
        if let Some(number) = self.vos.moved_to(record, dkey)? {
            let key = table_key(TABLE_AKEY, number, akey);
            let vos = &mut *self.vos;
            let Some(value) = value else {
                tree::remove(&mut vos.pool, &mut vos.root, &key)?;
                return self.forget_bare_dkey(object, dkey, number);
            };
            let mut out = Vec::new();
            value.encode(&mut out);
            tree::insert(&mut vos.pool, &mut vos.root, &key, &out)?;
            return Ok(());
        }
        match (record.find(dkey, akey), value) {
            (Ok(i), Some(value)) => record.items[i].value = value,
            (Ok(i), None) => drop(record.items.remove(i)),
            (Err(_), None) => {}
            (Err(i), Some(value)) => {
                record.items.insert(i, Item { dkey: dkey.clone(), akey: akey.clone(), value });
            }
        }
        Ok(())
    }

    /// The array to be changed, until [`Stage::put_array`]; `None` if there is none yet.
    pub(crate) fn take_array(
        &mut self,
        tx: &Tx,
        object: u32,
        dkey: &Bytes,
        akey: &Bytes,
    ) -> Result<Option<Array>, StageError> {
        let record = self.record(tx, object, Touch::Creates)?;
        if let Ok(i) = record.find(dkey, akey)
            && let ItemValue::Array(array) = &mut record.items[i].value
        {
            return Ok(Some(std::mem::take(array)));
        }
        match self.item(tx, object, dkey, akey)? {
            None => Ok(None),
            Some(ItemValue::Array(array)) => Ok(Some(array)),
            Some(ItemValue::Single(single)) => {
                self.untype(tx, object, dkey, akey, single)?;
                Ok(None)
            }
        }
    }

    /// An akey that was only punched may still become an array: its punches move to the record.
    fn untype(
        &mut self,
        tx: &Tx,
        object: u32,
        dkey: &Bytes,
        akey: &Bytes,
        single: Single,
    ) -> Result<(), StageError> {
        let (mut births, mut valued) = (vec![single.epoch], single.value.is_some());
        if single.history != 0 {
            let pool = &self.vos.pool;
            self.vos.scan_versions(single.history, Epoch::MIN, &mut |birth, cell| {
                let version = Version::decode(tree::load_value(pool, cell)?)?;
                valued |= version != Version::Punched;
                births.push(birth);
                Ok(std::ops::ControlFlow::Continue(()))
            })?;
        }
        if valued {
            return Err(StageError::WrongKind);
        }
        self.record(tx, object, Touch::Only)?;
        births
            .into_iter()
            .try_for_each(|e| self.add_punch(object, Punch::of_akey(dkey, akey, e)))?;
        self.drop_value(ItemValue::Single(single))?;
        self.set_item(object, dkey, akey, None)
    }

    pub(crate) fn put_array(
        &mut self,
        object: u32,
        dkey: &Bytes,
        akey: &Bytes,
        mut array: Array,
    ) -> Result<(), StageError> {
        self.bound_list(&mut array)?;
        self.set_item(object, dkey, akey, Some(ItemValue::Array(array)))
    }

    /// Gives up what an object record holds and names.
    pub(crate) fn drop_record(&mut self, record: ObjectRecord) -> Result<(), StageError> {
        for (_, number) in record.moved {
            self.drop_tree(TABLE_AKEY, number)?;
        }
        if record.dkeys != 0 {
            self.drop_tree(TABLE_DKEY, record.dkeys)?;
        }
        if record.punched != 0 {
            self.drop_tree(TABLE_PUNCH, record.punched)?;
        }
        record.items.into_iter().try_for_each(|item| self.drop_value(item.value))
    }

    /// Writes the changed object records back to the tree.
    pub(crate) fn flush(&mut self, tx: &Tx) -> Result<(), StageError> {
        for i in 0..self.loaded.len() {
            let loaded = std::mem::replace(&mut self.loaded[i], Loaded::unknown());
            let Some(record) = loaded.record.filter(|_| loaded.changed) else {
                continue;
            };
            let (cid, oid) = &tx.objects[i];
            let container = self.vos.containers.get(cid).ok_or(StageError::NoContainer(*cid))?;
            let key = container.record.object_key(&oid.0).ok_or(StageError::OutOfRange(*cid))?;
            let mut after = Counts::default();
            let record = record.filter(|r| !r.is_void());
            if let Some(mut record) = record {
                let encoded = self.fit(&mut record)?;
                after = Counts::of(&record);
                let vos = &mut *self.vos;
                tree::insert(&mut vos.pool, &mut vos.root, &key, &encoded)?;
            } else if loaded.stored {
                tree::remove(&mut self.vos.pool, &mut self.vos.root, &key)?;
            }
            if after != loaded.before
                && let Some(mut container) = self.vos.containers.get(cid).cloned()
            {
                container.record.recount(&oid.0, loaded.before, after);
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
                    self.move_dkey(record, dkey, number)?;
                }
            }
        }
    }
}

impl Vos {
    /// Who can see an object, if nobody looks below `horizon` but at retained epochs.
    pub(crate) fn observers(
        &self,
        cid: ContainerId,
        record: Option<&ObjectRecord>,
        mut horizon: u64,
    ) -> Observers {
        let container = self.containers.get(&cid);
        let mut retained = container.map_or(Vec::new(), |c| c.record.retained.to_vec());
        if let Some(record) = record {
            horizon = horizon.max(record.horizon);
            retained.extend_from_slice(&record.retained);
        }
        Observers { horizon, retained }
    }
}

impl Loaded {
    pub(crate) fn unknown() -> Loaded {
        Loaded {
            record: None,
            stored: false,
            changed: false,
            created: None,
            before: Counts::default(),
        }
    }
}

/// Sum of the sizes of arrays, 0 for an object that does not exist.
pub(crate) fn record_bytes(record: &ObjectRecord) -> u64 {
    if !record.exists() {
        return 0;
    }
    array_bytes(record.items.iter().map(|i| &i.value))
}
