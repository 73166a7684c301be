//! Entry points of the fuzz targets; each must return for any input.

use std::convert::Infallible;

use bytes::Bytes;
use spirula_wire::msg::osd_op::OsdOpMsg;
use spirula_wire::types::HObject;
use spirula_wire::{Decode, Encode, Features, Header, Message, Payload, RawMessage};

use crate::object::{ObjectInfo, cursor_key, object_key, object_of_key};
use crate::op::OpClass;
use crate::pg::log::{DupRecord, LogEntry};
use crate::plan::{Caller, Effect, Request, execute};
use crate::snap::trim::decode_purged;
use crate::snap::{SnapClone, SnapHeader};
use crate::stats::StatDelta;
use crate::view::{ObjectView, Viewed};
use crate::watch::{WatchInfo, WatchKey};

/// Records of the store: what decodes must encode and decode again to the same.
pub fn stored(data: &[u8]) {
    round_trip::<ObjectInfo>(data);
    round_trip::<StatDelta>(data);
    round_trip::<DupRecord>(data);
    round_trip::<LogEntry>(data);
    round_trip::<SnapClone>(data);
    round_trip::<SnapHeader>(data);
    let _ = decode_purged(data);
    if let Some(o) = object_of_key(1, data) {
        let key = object_key(o.hash, &o.nspace, &o.key, &o.oid);
        let again = object_of_key(1, &key).map(|o| object_key(o.hash, &o.nspace, &o.key, &o.oid));
        assert_eq!(again, Some(key));
    }
    if let Ok(cursor) = HObject::from_bytes(data) {
        let _ = cursor_key(&cursor);
    }
}

fn round_trip<T: Decode + Encode + PartialEq + std::fmt::Debug>(data: &[u8]) {
    if let Ok(value) = T::from_bytes(data) {
        let again = T::from_bytes(&value.to_bytes(Features::PACIFIC));
        assert_eq!(again.as_ref(), Ok(&value));
    }
}

/// A request against an object that exists and against none. The framing is that of
/// `spirula_wire::fuzzing::osd_op_messages`, where the first byte says whether the object exists.
pub fn plan(data: &[u8]) {
    let Some((&[exists, version, split_high, split_low], body)) = data.split_first_chunk() else {
        return;
    };
    let split = usize::from(u16::from_be_bytes([split_high, split_low])).min(body.len());
    let (front, data) = body.split_at(split);
    let header = Header { type_: OsdOpMsg::TYPE, version: version.into(), ..Header::default() };
    let payload = Payload {
        front: Bytes::copy_from_slice(front),
        data: vec![Bytes::copy_from_slice(data)],
        ..Payload::default()
    };
    let Ok(msg) = OsdOpMsg::from_raw(&RawMessage { header, payload }) else {
        return;
    };
    let request = Request {
        ops: &msg.ops,
        may_write: OpClass::of(&msg.ops).writes,
        return_vec: exists & 2 != 0,
        mtime: msg.mtime,
        ..Request::default()
    };
    let Ok(done) = execute(&request, &Sample(exists & 1 == 0));
    assert_eq!(done.outputs.len(), msg.ops.len());
    for effect in done.change.iter().flat_map(|c| &c.effects) {
        let end = match effect {
            Effect::Write { offset, data, .. } => offset.saturating_add(data.len() as u64),
            Effect::Truncate(size) => *size,
            Effect::Zero { offset, length } => offset.saturating_add(*length),
            _ => 0,
        };
        assert!(end <= request.limits.max_object_size, "{effect:?}");
    }
}

const SIZE: u64 = 10_000;

/// An object with data, an attribute and an omap; or none.
struct Sample(bool);

impl Sample {
    fn pairs(&self) -> Vec<(Bytes, Bytes)> {
        let name: &[&'static [u8]] = if self.0 { &[b"_a", b"_b"] } else { &[] };
        name.iter().map(|n| (Bytes::from_static(n), Bytes::from_static(b"17"))).collect()
    }
}

impl ObjectView for Sample {
    type Missing = Infallible;

    fn info(&self) -> Viewed<Option<ObjectInfo>, Infallible> {
        Ok(self.0.then(|| ObjectInfo {
            size: SIZE,
            user_version: 3,
            omap: true,
            watchers: [(
                WatchKey { cookie: 1, entity: Caller::default().name },
                WatchInfo::default(),
            )]
            .into(),
            ..ObjectInfo::default()
        }))
    }

    fn xattr(&self, name: &[u8]) -> Viewed<Option<Bytes>, Infallible> {
        Ok(self.pairs().into_iter().find(|p| p.0 == name).map(|p| p.1))
    }

    fn xattrs(&self) -> Viewed<Vec<(Bytes, Bytes)>, Infallible> {
        Ok(self.pairs())
    }

    fn omap_header(&self) -> Viewed<Bytes, Infallible> {
        Ok(Bytes::from_static(b"header"))
    }

    fn omap_value(&self, key: &[u8]) -> Viewed<Option<Bytes>, Infallible> {
        self.xattr(key)
    }

    fn omap_range(
        &self,
        from: &[u8],
        after: bool,
        max: usize,
    ) -> Viewed<Vec<(Bytes, Bytes)>, Infallible> {
        let mut pairs = self.pairs();
        pairs.retain(|(k, _)| &k[..] > from || !after && k == from);
        pairs.truncate(max);
        Ok(pairs)
    }

    fn read(&self, offset: u64, len: u64) -> Viewed<Vec<Bytes>, Infallible> {
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= SIZE),
            "read of {len} bytes at {offset}"
        );
        Ok(vec![Bytes::from(vec![7; len as usize])])
    }

    fn extents(&self, offset: u64, len: u64) -> Viewed<Vec<(u64, u64)>, Infallible> {
        Ok(if len == 0 { Vec::new() } else { vec![(offset, len)] })
    }
}
