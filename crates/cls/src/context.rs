//! What a method may see of its object, of its caller and of the cluster, and how it changes the
//! object.
//!
//! The functions are those of Ceph's `objclass/objclass.h`, with the rules and errors of the object
//! operations of the same names. As in Ceph, reads show the object as it was before the request:
//! a method does not see changes that it, or an operation before it, has made; only existence, size
//! and time (`stat`) do.

use std::collections::BTreeMap;

use bytes::Bytes;
use spirula_wire::types::{EntityAddr, EntityName, UTime};
use spirula_wire::{DecodeError, Features};

use crate::errno::{EBADMSG, ENODATA, ENOENT};

/// Why a method stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// A positive error number; the caller gets it negated.
    #[error("errno {0}")]
    Errno(i32),
    /// Something is not in memory, and the context knows what: the request runs again from its
    /// start once it is. Methods only pass it on.
    #[error("not in memory")]
    Missing,
}

pub type Outcome<T = ()> = Result<T, Halt>;

/// Stops with `errno`.
pub fn fail<T>(errno: i32) -> Outcome<T> {
    Err(Halt::Errno(errno))
}

/// Input and stored values that do not decode are `EBADMSG` unless a method says otherwise: most of
/// Ceph's methods return `EINVAL` for a bad input and `EIO` for a bad stored value; map it there.
impl From<DecodeError> for Halt {
    fn from(_: DecodeError) -> Self {
        Self::Errno(EBADMSG)
    }
}

/// `Ok(None)` for what is not there.
pub trait Absent<T> {
    fn or_absent(self) -> Outcome<Option<T>>;
}

impl<T> Absent<T> for Outcome<T> {
    fn or_absent(self) -> Outcome<Option<T>> {
        match self {
            Ok(value) => Ok(Some(value)),
            Err(Halt::Errno(ENOENT | ENODATA)) => Ok(None),
            Err(other) => Err(other),
        }
    }
}

/// Who sent the request (`cls_get_request_origin`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub name: EntityName,
    pub addr: EntityAddr,
}

/// Someone who watches the object (`obj_list_watch_response_t` without the time-out's unit).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watcher {
    pub name: EntityName,
    pub cookie: u64,
    pub timeout_seconds: u32,
    pub addr: EntityAddr,
}

/// A page of a listing, and whether there is more after it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub more: bool,
}

/// One object in the middle of a request. Objects that are absent fail what looks at them with
/// `ENOENT`, unless it says otherwise; writes make them.
pub trait Context {
    fn origin(&self) -> Origin;

    /// What the caller's connection can encode and decode.
    fn client_features(&self) -> Features;

    /// The time of the OSD (`real_clock::now`, `ceph_clock_now`).
    fn now(&self) -> UTime;

    /// Version that clients see, before this request (`cls_current_version`).
    fn user_version(&self) -> u64;

    /// Index of the operation in the request (`cls_current_subop_num`).
    fn subop(&self) -> i32;

    /// Newest snapshot that the object's snapset knows (`cls_get_snapset_seq`): the error is `ENOENT`
    /// when the object is absent.
    fn snapset_seq(&mut self) -> Outcome<u64>;

    /// The oldest release (15 is Octopus) that clients of this cluster must be
    /// (`cls_get_min_compatible_client`).
    fn require_min_compat_client(&self) -> u8;

    /// The oldest release that OSDs of this cluster must be (`cls_get_required_osd_release`).
    fn require_osd_release(&self) -> u8;

    /// `osd_max_object_size` and the like, by the name of the option, where a class asks for one.
    fn max_object_size(&self) -> u64;

    /// Size and time of change.
    fn stat(&mut self) -> Outcome<(u64, UTime)>;

    /// Up to `length` bytes; less at the end of the object, and none of one that is absent.
    fn read(&mut self, offset: u64, length: u64) -> Outcome<Bytes>;

    /// The written parts of a range as (offset, length), as a sparse read tells them, with their data.
    fn sparse_read(&mut self, offset: u64, length: u64) -> Outcome<Vec<(u64, Bytes)>>;

    /// `ENODATA` when there is none of that name.
    fn xattr(&mut self, name: &str) -> Outcome<Bytes>;

    /// All of them in name order.
    fn xattrs(&mut self) -> Outcome<BTreeMap<Bytes, Bytes>>;

    fn omap_header(&mut self) -> Outcome<Bytes>;

    /// `ENOENT` when the key is absent (`cls_cxx_map_get_val`).
    fn omap_value(&mut self, key: &[u8]) -> Outcome<Bytes>;

    /// Up to `max` keys above `after`.
    fn omap_keys(&mut self, after: &[u8], max: u64) -> Outcome<Page<Bytes>> {
        let page = self.omap_values(after, b"", max)?;
        Ok(Page { items: page.items.into_iter().map(|(key, _)| key).collect(), more: page.more })
    }

    /// Up to `max` entries above `after` whose key begins with `prefix`.
    fn omap_values(
        &mut self,
        after: &[u8],
        prefix: &[u8],
        max: u64,
    ) -> Outcome<Page<(Bytes, Bytes)>>;

    fn watchers(&mut self) -> Outcome<Vec<Watcher>>;

    /// `EEXIST` when `exclusive` and there.
    fn create(&mut self, exclusive: bool) -> Outcome;

    fn remove(&mut self) -> Outcome;

    fn write(&mut self, offset: u64, data: Bytes) -> Outcome;

    /// The object's data becomes `data`.
    fn write_full(&mut self, data: Bytes) -> Outcome;

    fn truncate(&mut self, size: u64) -> Outcome;

    fn zero(&mut self, offset: u64, length: u64) -> Outcome;

    fn set_xattr(&mut self, name: &str, value: Bytes) -> Outcome;

    fn remove_xattr(&mut self, name: &str) -> Outcome;

    fn set_omap_header(&mut self, header: Bytes) -> Outcome;

    fn set_omap(&mut self, pairs: Vec<(Bytes, Bytes)>) -> Outcome;

    /// An absent key is no error; an absent object is `ENOENT`.
    fn remove_omap_key(&mut self, key: &[u8]) -> Outcome;

    /// Keys from `from` on, below `to`.
    fn remove_omap_range(&mut self, from: &[u8], to: &[u8]) -> Outcome;

    /// All keys and the header go.
    fn clear_omap(&mut self) -> Outcome;

    /// The object becomes as it was at the snapshot (`cls_cxx_snap_revert`).
    fn snap_revert(&mut self, snapid: u64) -> Outcome;

    /// How many chunks of the object are in an object of that name (`cls_get_manifest_ref_count`).
    fn chunk_references(&mut self, _target: &[u8]) -> u32 {
        0
    }

    /// What the client gets instead of 0 when the method succeeds. Results of writes reach only
    /// clients that asked for them, so a context may ignore it.
    fn set_return_value(&mut self, _value: u32) {}
}
