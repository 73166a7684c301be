//! Single values: the newest version is the item, older ones that somebody sees are history.

use bytes::Bytes;

use crate::epoch::{Epoch, Scene};
use crate::history::Version;
use crate::item::{ItemValue, Single};
use crate::object::Touch;
use crate::stage::Stage;
use crate::tx::Tx;
use crate::types::{ReadError, StageError};
use crate::vos::Vos;

impl From<Option<Bytes>> for Version {
    fn from(value: Option<Bytes>) -> Version {
        value.map_or(Version::Punched, Version::Value)
    }
}

impl Vos {
    /// The value at an epoch, punches of what is above the akey apart, and when it was born.
    pub(crate) fn single_at(
        &self,
        single: &Single,
        at: Epoch,
    ) -> Result<Option<(Epoch, Bytes)>, ReadError> {
        if single.epoch <= at {
            return Ok(single.value.clone().map(|v| (single.epoch, v)));
        }
        if single.history == 0 {
            return Ok(None);
        }
        match self.version_at(single.history, at)? {
            Some((birth, Version::Value(value))) => Ok(Some((birth, value))),
            _ => Ok(None),
        }
    }
}

impl Stage<'_> {
    /// Sets a single value.
    pub(crate) fn update(
        &mut self,
        tx: &Tx,
        object: u32,
        dkey: &Bytes,
        akey: &Bytes,
        value: &Bytes,
    ) -> Result<(), StageError> {
        self.record(tx, object, Touch::Creates)?;
        let single = match self.item(tx, object, dkey, akey)? {
            Some(ItemValue::Array(_)) => return Err(StageError::WrongKind),
            Some(ItemValue::Single(single)) => {
                let scene = self.scene(tx, object, dkey, akey)?;
                self.new_version(&scene, single, Some(value.clone()))?
            }
            None => Single { epoch: self.epoch, value: Some(value.clone()), history: 0 },
        };
        self.set_item(object, dkey, akey, Some(ItemValue::Single(single)))
    }

    /// Adds a version at the epoch of the operation, whether it is the newest or not.
    pub(crate) fn new_version(
        &mut self,
        scene: &Scene,
        mut single: Single,
        value: Option<Bytes>,
    ) -> Result<Single, StageError> {
        let old = if self.epoch < single.epoch {
            Some((self.epoch, value))
        } else {
            let covered = (single.epoch, std::mem::replace(&mut single.value, value));
            single.epoch = self.epoch;
            Some(covered).filter(|(birth, _)| scene.keeps(*birth, self.epoch))
        };
        if let Some((birth, value)) = old {
            if single.history == 0 {
                single.history = self.vos.take_number();
            }
            self.put_version(single.history, birth, &Version::from(value))?;
        }
        Ok(single)
    }
}
