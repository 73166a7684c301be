//! Which objects of a container an epoch or a later one changed, those that no longer exist included.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::query::Keys;
use crate::record::ObjectRecord;
use crate::tree;
use crate::types::{ContainerId, ObjectKey, ReadError};
use crate::vos::Vos;

impl Vos {
    /// Of the next `max` objects from the key `from` on those changed at or after `epoch`, and the last
    /// one looked at; `None` when there are no more.
    pub fn changed_objects(
        &self,
        cid: ContainerId,
        from: &[u8],
        epoch: u64,
        max: usize,
    ) -> Result<(Option<ObjectKey>, Vec<ObjectKey>), ReadError> {
        let Some(container) = self.containers.get(&cid) else {
            return Ok((None, Vec::new()));
        };
        let (mut found, mut last, mut seen) = (Vec::new(), None, 0);
        let keys = Keys { from: Bytes::copy_from_slice(from), ..Keys::default() };
        self.scan_objects(&container.record, &keys, &mut |oid, cell| {
            let record = ObjectRecord::decode_head(tree::load_value(&self.pool, cell)?)?;
            let oid = ObjectKey::copy_from(oid);
            if record.epoch.hlc >= epoch {
                found.push(oid.clone());
            }
            last = Some(oid);
            seen += 1;
            Ok(if seen < max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        Ok((last.filter(|_| seen >= max), found))
    }
}
