//! Messages with which the OSDs of a placement group copy whole objects, and list what they hold: of our
//! own, in place of Ceph's `pg_push`, `pg_pull` and `pg_scan` (`docs/protocol-osd.md`).

use bytes::Bytes;

use crate::denc::Features;
use crate::message::check_compat;
use crate::msg::types;
use crate::types::{EVersion, HObject, SpgId};
use crate::{Decode, DecodeError, Denc, Encode, Header, Message, Payload, Reader};

/// `object_push`: a part of an object for the receiver to store, or that it does not exist.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ObjectPush {
    pub spgid: SpgId,
    pub map_epoch: u32,
    /// Older than this receiver's interval: void.
    pub min_epoch: u32,
    pub object: HObject,
    /// What the sender has; zero: the object does not exist, and has no parts.
    pub version: EVersion,
    /// From 0 on.
    pub part: u32,
    pub last: bool,
    /// What `spirula-osd` exported; one buffer when received.
    pub data: Vec<Bytes>,
}

/// What an [`ObjectPush`] has in its front segment.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
struct PushFront {
    spgid: SpgId,
    map_epoch: u32,
    min_epoch: u32,
    object: HObject,
    version: EVersion,
    part: u32,
    last: bool,
}

impl Message for ObjectPush {
    const TYPE: u16 = types::OBJECT_PUSH;
    const VERSION: u16 = 1;
    const COMPAT_VERSION: u16 = 1;

    fn encode_payload(&self, f: Features) -> Payload {
        let front = PushFront {
            spgid: self.spgid,
            map_epoch: self.map_epoch,
            min_epoch: self.min_epoch,
            object: self.object.clone(),
            version: self.version,
            part: self.part,
            last: self.last,
        };
        Payload {
            front: front.to_bytes(f).into(),
            data: self.data.iter().filter(|piece| !piece.is_empty()).cloned().collect(),
            ..Payload::default()
        }
    }

    fn decode_payload(header: &Header, payload: &Payload) -> Result<Self, DecodeError> {
        check_compat::<Self>("ObjectPush", header)?;
        let front = PushFront::decode(&mut Reader::new(&payload.front))?;
        Ok(Self {
            spgid: front.spgid,
            map_epoch: front.map_epoch,
            min_epoch: front.min_epoch,
            object: front.object,
            version: front.version,
            part: front.part,
            last: front.last,
            data: Some(payload.data_bytes()).filter(|data| !data.is_empty()).into_iter().collect(),
        })
    }
}

/// `object_push_reply`: the part, after the last one the whole object, is stored durably, or why not. Also
/// answers a pull that cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::OBJECT_PUSH_REPLY, version = 1, compat = 1)]
pub struct ObjectPushReply {
    pub spgid: SpgId,
    pub map_epoch: u32,
    pub min_epoch: u32,
    pub object: HObject,
    /// That of the push, or what was asked for.
    pub version: EVersion,
    pub part: u32,
    pub last: bool,
    /// 0, or a negative error.
    pub result: i32,
}

/// `object_pull`: the receiver is to push the object as it has it.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::OBJECT_PULL, version = 1, compat = 1)]
pub struct ObjectPull {
    pub spgid: SpgId,
    pub map_epoch: u32,
    pub min_epoch: u32,
    pub object: HObject,
    /// An older one is of no use.
    pub need: EVersion,
}

/// `object_scan`: which objects the receiver has.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::OBJECT_SCAN, version = 1, compat = 1)]
pub struct ObjectScan {
    pub spgid: SpgId,
    pub map_epoch: u32,
    pub min_epoch: u32,
    pub tid: u64,
    /// Those behind this one.
    pub after: HObject,
    /// So many at most.
    pub max: u32,
}

/// `object_scan_reply`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::OBJECT_SCAN_REPLY, version = 1, compat = 1)]
pub struct ObjectScanReply {
    pub spgid: SpgId,
    pub map_epoch: u32,
    pub min_epoch: u32,
    pub tid: u64,
    /// All up to and with this one are there; the largest of all: there are no more.
    pub upto: HObject,
    /// In their order.
    pub objects: Vec<(HObject, EVersion)>,
    /// 0, or a negative error.
    pub result: i32,
}
