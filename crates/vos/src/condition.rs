//! What a transaction demands of the state it meets, and the epochs it wants kept.

use crate::epoch::Epoch;
use crate::item::ItemValue;
use crate::object::Touch;
use crate::record::{ObjectRecord, TABLE_AKEY, container_key};
use crate::stage::Stage;
use crate::tree;
use crate::tx::{Must, Target, Tx};
use crate::types::{ContainerId, ReadError, StageError};
use crate::vos::Vos;

impl Stage<'_> {
    /// Fails unless `target` exists, or does not, at the epoch of the operation.
    pub(crate) fn require(
        &mut self,
        tx: &Tx,
        object: u32,
        target: &Target,
        must: Must,
    ) -> Result<(), StageError> {
        let at = self.epoch;
        let record = self.found(tx, object)?.filter(|r| r.log.exists_at(at)).cloned();
        let exists = match (record, target) {
            (None, _) => false,
            (Some(_), Target::Object) => true,
            (Some(record), Target::Dkey(dkey)) => self.vos.dkey_exists(&record, dkey, at)?,
            (Some(record), Target::Akey(dkey, akey)) => {
                let punches = record.punches_of(dkey, akey);
                match self.item(tx, object, dkey, akey)? {
                    Some(value) => self.vos.visible_at(value, punches, at)?.is_some(),
                    None => false,
                }
            }
        };
        match (must, exists) {
            (Must::Exist, false) => Err(StageError::NonExistent),
            (Must::NotExist, true) => Err(StageError::Exists),
            _ => Ok(()),
        }
    }

    /// Sets the retained epochs of an object.
    pub(crate) fn retain(
        &mut self,
        tx: &Tx,
        object: u32,
        epochs: &[u64],
    ) -> Result<(), StageError> {
        let observers = self.observers(tx, object)?;
        if let Some(&epoch) = epochs.iter().find(|&&e| !observers.may_read(e)) {
            return Err(StageError::EpochTooOld { epoch, horizon: observers.horizon });
        }
        self.record(tx, object, Touch::Only)?.retained = sorted(epochs);
        Ok(())
    }

    /// Sets the retained epochs of a container.
    pub(crate) fn retain_container(
        &mut self,
        cid: ContainerId,
        epochs: &[u64],
    ) -> Result<(), StageError> {
        let Some(mut container) = self.vos.containers.get(&cid).cloned() else {
            return Err(StageError::NoContainer(cid));
        };
        container.record.retained = sorted(epochs).into();
        container.stale = false;
        let vos = &mut *self.vos;
        let record = container.record.encode();
        tree::insert(&mut vos.pool, &mut vos.root, &container_key(cid), &record)?;
        vos.set_container(cid, Some(container));
        Ok(())
    }
}

impl Vos {
    /// Whether a dkey of an object has an akey at `at`.
    fn dkey_exists(
        &self,
        record: &ObjectRecord,
        dkey: &[u8],
        at: Epoch,
    ) -> Result<bool, ReadError> {
        let look = |akey: &[u8], value: ItemValue| {
            let punches = record.punches_of(dkey, akey);
            self.visible_at(value, punches, at).map(|v| v.is_some())
        };
        let mut exists = false;
        if let Some(number) = record.moved_to(dkey) {
            self.scan_table(TABLE_AKEY, number, &[], None, &mut |akey, cell| {
                exists = look(akey, ItemValue::decode_entry(tree::load_value(&self.pool, cell)?)?)?;
                Ok(if exists {
                    std::ops::ControlFlow::Break(())
                } else {
                    std::ops::ControlFlow::Continue(())
                })
            })?;
            return Ok(exists);
        }
        for item in record.items.iter().filter(|i| i.dkey == dkey) {
            exists = exists || look(&item.akey, item.value.clone())?;
        }
        Ok(exists)
    }
}

fn sorted(epochs: &[u64]) -> Vec<u64> {
    let mut epochs = epochs.to_vec();
    epochs.sort_unstable();
    epochs.dedup();
    epochs
}
