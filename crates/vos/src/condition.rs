//! What a transaction demands of the state it meets, and the epochs it wants kept.

use crate::object::Touch;
use crate::query::Keys;
use crate::stage::{Placer, Stage};
use crate::tx::{Must, Target, Tx};
use crate::types::{ContainerId, StageError};

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
            (Some(record), Target::Dkey(dkey)) => {
                !self.vos.at_epoch(at).akeys_of(&record, dkey, &Keys::default(), 1)?.is_empty()
            }
            (Some(record), Target::Akey(dkey, akey)) => {
                self.vos.at_epoch(at).visible_in(&record, dkey, akey)?.is_some()
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
        let mut observers = self.observers(tx, object)?;
        // Nothing is gone yet that the object kept until now, whatever the transaction's horizon.
        if let Some(record) = self.found(tx, object)? {
            observers.horizon = record.horizon;
        }
        // What was readable when it was prepared is still there: the object was held.
        let prepared = matches!(self.placer, Placer::Prepared(_));
        if !prepared && let Some(&epoch) = epochs.iter().find(|&&e| !observers.may_read(e)) {
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
        let mut record = self.container(cid)?;
        record.retained = sorted(epochs).into();
        self.put_container(cid, record)
    }
}

fn sorted(epochs: &[u64]) -> Vec<u64> {
    let mut epochs = epochs.to_vec();
    epochs.sort_unstable();
    epochs.dedup();
    epochs
}
