//! Answers of listing ops: objects of a PG, watchers, snapshots and scrub errors of an object.

use bytes::Bytes;

use crate::Denc;
use crate::types::{EntityAddr, EntityName, HObject, SnapId};

/// One object of a [`PgNlsResponse`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Denc)]
pub struct ListedObject {
    pub nspace: Bytes,
    pub oid: Bytes,
    pub locator: Bytes,
}

/// `pg_nls_response_t`: a page of objects and where the next page begins.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 1, compat = 1)]
pub struct PgNlsResponse {
    pub handle: HObject,
    pub entries: Vec<ListedObject>,
}

/// `watch_item_t`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 2, compat = 1)]
pub struct WatchItem {
    pub name: EntityName,
    pub cookie: u64,
    pub timeout_seconds: u32,
    #[denc(since = 2)]
    pub addr: EntityAddr,
}

/// `obj_list_watch_response_t`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 1, compat = 1)]
pub struct ListWatchResponse {
    pub entries: Vec<WatchItem>,
}

/// `clone_info`: snapshots in rising order, overlap with the next newer clone as (offset, length).
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 1, compat = 1)]
pub struct CloneInfo {
    pub cloneid: SnapId,
    pub snaps: Vec<SnapId>,
    pub overlap: Vec<(u64, u64)>,
    pub size: u64,
}

/// `obj_list_snap_response_t`: clones in rising order, the head last.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 2, compat = 1)]
pub struct ListSnapsResponse {
    pub clones: Vec<CloneInfo>,
    #[denc(since = 2)]
    pub seq: SnapId,
}
