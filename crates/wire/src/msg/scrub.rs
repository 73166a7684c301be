//! Messages with which the OSDs of a placement group compare their copies: of our own, in place of Ceph's
//! `replica_scrub` and `rep_scrubmap` (`docs/protocol-osd.md`).

use crate::Message;
use crate::msg::types;
use crate::types::{EVersion, HObject, ScrubObject, SpgId};

/// `scrub_reserve`: about the slot of a copy for the scrub of a PG.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::SCRUB_RESERVE, version = 1, compat = 1)]
pub struct ScrubReserve {
    pub spgid: SpgId,
    pub map_epoch: u32,
    /// Older than this receiver's interval: void.
    pub min_epoch: u32,
    /// Of [`scrub_reserve`].
    pub kind: u8,
}

/// What a [`ScrubReserve`] says.
pub mod scrub_reserve {
    pub const REQUEST: u8 = 0;
    pub const GRANT: u8 = 1;
    pub const RELEASE: u8 = 2;
    pub const REJECT: u8 = 3;
}

/// `scrub_request`: what the receiver has of some objects.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::SCRUB_REQUEST, version = 1, compat = 1)]
pub struct ScrubRequest {
    pub spgid: SpgId,
    pub map_epoch: u32,
    pub min_epoch: u32,
    pub tid: u64,
    /// Those behind this one.
    pub after: HObject,
    /// Up to and with this one.
    pub upto: HObject,
    /// With digests of what they hold.
    pub deep: bool,
}

/// `scrub_map`: the answer.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::SCRUB_MAP, version = 1, compat = 1)]
pub struct ScrubMap {
    pub spgid: SpgId,
    pub map_epoch: u32,
    pub min_epoch: u32,
    pub tid: u64,
    /// All up to and with this one are told of.
    pub upto: HObject,
    /// Heads and clones.
    pub objects: Vec<(HObject, ScrubObject)>,
    /// 0, or a negative error.
    pub result: i32,
}

/// `scrub_repair`: the receiver's copy of the object is of no use, a whole one comes.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::SCRUB_REPAIR, version = 1, compat = 1)]
pub struct ScrubRepair {
    pub spgid: SpgId,
    pub map_epoch: u32,
    pub min_epoch: u32,
    pub object: HObject,
    /// At this version.
    pub need: EVersion,
}
