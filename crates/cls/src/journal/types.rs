//! Clients of a journal, how far they came, and tags. Source of the format: Ceph's
//! `cls/journal/cls_journal_types.cc`.

use bytes::Bytes;
use spirula_wire::Denc;

#[derive(Clone, Debug, PartialEq, Eq, Denc)]
#[denc(version = 1)]
pub(super) struct ObjectPosition {
    pub(super) object_number: u64,
    pub(super) tag_tid: u64,
    pub(super) entry_tid: u64,
}

/// The last entries that a client committed, newest first: one of each active object.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 1)]
pub(super) struct ObjectSetPosition {
    pub(super) object_positions: Vec<ObjectPosition>,
}

impl ObjectSetPosition {
    pub(super) fn oldest_tag(&self) -> Option<u64> {
        self.object_positions.iter().map(|position| position.tag_tid).min()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Denc)]
#[denc(version = 1)]
pub(super) struct Client {
    pub(super) id: Bytes,
    pub(super) data: Bytes,
    pub(super) commit_position: ObjectSetPosition,
    pub(super) state: u8,
}

impl Client {
    pub(super) const CONNECTED: u8 = 0;
    /// It fell behind and keeps no tags from expiry.
    pub(super) const DISCONNECTED: u8 = 1;
}

#[derive(Clone, Debug, PartialEq, Eq, Denc)]
#[denc(version = 1)]
pub(super) struct Tag {
    pub(super) tid: u64,
    pub(super) class: u64,
    pub(super) data: Bytes,
}

impl Tag {
    /// As the class of a tag to be made: one that no tag has yet.
    pub(super) const NEW_CLASS: u64 = u64::MAX;
}
