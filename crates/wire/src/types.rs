//! The types that messages and maps are made of, all bit-exact with a Pacific (v16) peer.
//!
//! One file per family, re-exported flat.

mod addr;
mod copy;
mod entity;
mod ids;
mod listing;
mod object;
mod pg;
mod scrub;
mod stats;
mod superblock;

pub use addr::{AddrParseError, AddrType, EntityAddr, EntityAddrVec};
pub use copy::{CopyCursor, CopyData, ScrubList, ScrubListArgs};
pub use entity::{EntityName, EntityNameStr, EntityType, NameParseError};
pub use ids::{EVersion, PgId, PgParseError, PgShard, ShardId, SpgId, UTime, Uuid};
pub use listing::{
    CloneInfo, ListSnapsResponse, ListWatchResponse, ListedObject, PgNlsResponse, WatchItem,
};
pub use object::{HObject, ObjectLocator, RequestId, SnapContext, SnapId};
pub use pg::{
    CleanRegions, CompactInterval, HitSetHistory, HitSetInfo, MissingItem, ModDesc, PastIntervals,
    PgInfo, PgLease, PgLeaseAck, PgLogDup, PgLogEntry, PgLogMsg, PgMissing, PgNotify, PgQuery,
    log_op, pg_query,
};
pub use scrub::{
    INFO_ATTR, InconsistentObject, InconsistentShard, SNAPSET_ATTR, ScrubObject, StoredClone,
    StoredInfo, StoredSnapSet, object_error, shard_error,
};
pub use stats::{
    ObjectStatCollection, ObjectStatSum, OsdStat, PgHistory, PgStat, PingInterfaces, PingTimes,
    PoolStat, Pow2Hist, StorePerfStat, StoreStatfs, TimeSpan, pg_state,
};
pub use superblock::{CompatSet, FeatureSet, OsdSuperblock};
