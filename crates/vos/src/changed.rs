//! Which objects of a container a background task must look at, those that no longer exist included: what
//! an epoch or a later one changed, and so on.

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
        let keys = Keys { from: Bytes::copy_from_slice(from), ..Keys::default() };
        self.objects_that(cid, &keys, max, |record| {
            Ok(ObjectRecord::decode_head(record)?.epoch.hlc >= epoch)
        })
    }

    /// Of the next `max` objects of `keys` those whose record is `wanted`, and the last one looked at;
    /// `None` when there are no more.
    pub(crate) fn objects_that(
        &self,
        cid: ContainerId,
        keys: &Keys,
        max: usize,
        wanted: impl Fn(Bytes) -> Result<bool, ReadError>,
    ) -> Result<(Option<ObjectKey>, Vec<ObjectKey>), ReadError> {
        let Some(container) = self.containers.get(&cid) else {
            return Ok((None, Vec::new()));
        };
        let (mut found, mut last, mut seen) = (Vec::new(), None, 0);
        self.scan_objects(&container.record, keys, &mut |oid, cell| {
            let oid = ObjectKey::copy_from(oid);
            if wanted(tree::load_value(&self.pool, cell)?)? {
                found.push(oid.clone());
            }
            last = Some(oid);
            seen += 1;
            Ok(if seen < max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        Ok((last.filter(|_| seen >= max), found))
    }
}
