//! What the operation interpreter may see of one object, and how it asks for what is not in memory.
//!
//! A view shows the object as it was before the request: as in Ceph, reads inside a compound
//! request do not see the request's own changes, except for existence and object info, which the
//! interpreter keeps itself.

use bytes::Bytes;

use crate::object::ObjectInfo;
use crate::snap::{Clones, SnapSet};

/// Why a step could not answer: an error for the client, or something to load first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault<M> {
    /// A negated error number for the operation.
    Errno(i32),
    /// Not in memory: load it and plan again.
    Missing(M),
}

pub type Viewed<T, M> = Result<T, Fault<M>>;

/// The parts of an object at an earlier epoch that are no data.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Past {
    pub info: ObjectInfo,
    pub xattrs: Vec<(Bytes, Bytes)>,
    pub omap_header: Bytes,
    pub omap: Vec<(Bytes, Bytes)>,
}

/// One object before the request.
pub trait ObjectView {
    /// What has to be loaded before an answer is possible.
    type Missing;

    /// `None` when the object does not exist.
    fn info(&self) -> Viewed<Option<ObjectInfo>, Self::Missing>;

    fn xattr(&self, name: &[u8]) -> Viewed<Option<Bytes>, Self::Missing>;

    /// All xattrs in name order.
    fn xattrs(&self) -> Viewed<Vec<(Bytes, Bytes)>, Self::Missing>;

    fn omap_header(&self) -> Viewed<Bytes, Self::Missing>;

    fn omap_value(&self, key: &[u8]) -> Viewed<Option<Bytes>, Self::Missing>;

    /// Up to `max` omap entries in key order, from `from` on; without it when `after`.
    fn omap_range(
        &self,
        from: &[u8],
        after: bool,
        max: usize,
    ) -> Viewed<Vec<(Bytes, Bytes)>, Self::Missing>;

    /// Exactly `len` bytes of data at `offset`, holes as zeroes.
    fn read(&self, offset: u64, len: u64) -> Viewed<Vec<Bytes>, Self::Missing>;

    /// CRC-32C of what [`Self::read`] of the same range returns, if it is known already.
    fn known_crc(&self, _offset: u64, _len: u64) -> Option<u32> {
        None
    }

    /// The written parts of a range as (offset, length), ascending and merged.
    fn extents(&self, offset: u64, len: u64) -> Viewed<Vec<(u64, u64)>, Self::Missing>;

    /// The object's clones, at least those asked for, whichever of them the view shows.
    fn snapset(&self, _clones: Clones) -> Viewed<SnapSet, Self::Missing> {
        Ok(SnapSet::default())
    }

    /// The object at the retained epoch of a clone; `None` if it did not exist.
    fn past(&self, _epoch: u64) -> Viewed<Option<Past>, Self::Missing> {
        Ok(None)
    }
}
