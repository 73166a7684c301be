//! Properties of containers: names with values, for whoever opens them.

use std::rc::Rc;

use bytes::Bytes;

use crate::stage::Stage;
use crate::tx::{Tx, TxOp};
use crate::types::{ContainerId, KEY_LEN_MAX, StageError};
use crate::vos::Vos;

/// All properties of a container come to no more bytes: its record is in memory.
const PROPERTIES_LEN_MAX: usize = 64 << 10;

impl Vos {
    /// A property of a container.
    pub fn container_property(&self, cid: ContainerId, name: &[u8]) -> Option<Bytes> {
        let properties = &self.containers.get(&cid)?.record.properties;
        let at = properties.binary_search_by(|(n, _)| n[..].cmp(name)).ok()?;
        Some(properties[at].1.clone())
    }

    /// All properties of a container, sorted by name.
    pub fn container_properties(&self, cid: ContainerId) -> Vec<(Bytes, Bytes)> {
        self.containers.get(&cid).map_or(Vec::new(), |c| c.record.properties.to_vec())
    }
}

impl Stage<'_> {
    /// Sets a property of a container, or removes it.
    pub(crate) fn set_property(
        &mut self,
        cid: ContainerId,
        name: &Bytes,
        value: Option<&Bytes>,
    ) -> Result<(), StageError> {
        if name.is_empty() || name.len() > KEY_LEN_MAX {
            return Err(StageError::KeyLength(name.len()));
        }
        let Some(mut container) = self.vos.containers.get(&cid).cloned() else {
            return Err(StageError::NoContainer(cid));
        };
        let mut properties = container.record.properties.to_vec();
        properties.retain(|(n, _)| n != name);
        if let Some(value) = value {
            let at = properties.partition_point(|(n, _)| n < name);
            properties.insert(at, (name.clone(), value.clone()));
        }
        let len: usize = properties.iter().map(|(n, v)| n.len() + v.len() + 8).sum();
        if len > PROPERTIES_LEN_MAX {
            return Err(StageError::TooLarge);
        }
        container.record.properties = Rc::from(properties);
        container.stale = true;
        self.vos.set_container(cid, Some(container));
        Ok(())
    }
}

impl Tx {
    /// Sets a property of a container; `None` removes it.
    pub fn set_container_property(&mut self, cid: ContainerId, name: &[u8], value: Option<Bytes>) {
        let name = Bytes::copy_from_slice(name);
        self.ops.push(TxOp::SetProperty { cid, name, value });
    }
}
