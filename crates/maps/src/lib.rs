//! Cluster maps: who is in the cluster, which data it has, and where an object is.
//!
//! Invariants: pure values; what a Pacific (v16) cluster encoded decodes and encodes to the same
//! bytes; placement equals that of Ceph's clients; hostile bytes give an error, or a map whose
//! every use is bounded.

#![forbid(unsafe_code)]

pub mod digest;
pub mod mgrmap;
pub mod monmap;
pub mod osdmap;
pub mod pool;
pub mod release;
pub mod snaps;

pub use digest::{PgCount, PgMapDigest};
pub use mgrmap::{MgrMap, ModuleInfo, ModuleOption, StandbyInfo};
pub use monmap::{MonInfo, MonMap};
pub use osdmap::build::NewCluster;
pub use osdmap::{
    AFFINITY_DEFAULT, ApplyError, ENCODE_FEATURES, FollowError, Followed, Incremental, Osd,
    OsdInfo, OsdMap, OsdMapFollower, OsdXInfo, UpActing, WEIGHT_IN, flags, osd_state,
};
pub use pool::opts::{OptValue, PoolOpts};
pub use pool::{HitSetParams, PgMergeMeta, PgPool, PoolSnap, flags as pool_flags};
pub use release::Release;
pub use snaps::SnapIntervals;
pub use spirula_crush::{CrushMap, ITEM_NONE};

#[doc(hidden)]
pub mod fuzzing {
    //! Entry points of the fuzz crate, one per target.

    use spirula_wire::types::{ObjectLocator, PgId};
    use spirula_wire::{Decode, Encode, Features};

    use crate::{Incremental, MgrMap, MonMap, OsdMap, PgMapDigest};

    /// What decodes must encode, and decode again to the same.
    fn round_trip<T: Decode + Encode + PartialEq + std::fmt::Debug>(data: &[u8]) -> Option<T> {
        let value = T::from_bytes(data).ok()?;
        let again = T::from_bytes(&value.to_bytes(Features::PACIFIC));
        assert_eq!(again.as_ref(), Ok(&value));
        Some(value)
    }

    /// A full map, and placement of some objects by it.
    pub fn osdmap(data: &[u8]) {
        let Ok(map) = OsdMap::from_bytes_unchecked(data) else {
            return;
        };
        place_some(&map);
    }

    /// An incremental, applied to the map that fits best.
    pub fn incremental(data: &[u8]) {
        let Ok(inc) = Incremental::from_bytes_unchecked(data) else {
            return;
        };
        let epoch = inc.epoch.wrapping_sub(1);
        let mut map = OsdMap { fsid: inc.fsid, epoch, ..OsdMap::default() };
        if map.apply(&inc).is_ok() {
            place_some(&map);
        }
    }

    pub fn monmap(data: &[u8]) {
        round_trip::<MonMap>(data);
    }

    pub fn mgrmap(data: &[u8]) {
        round_trip::<MgrMap>(data);
    }

    pub fn digest(data: &[u8]) {
        round_trip::<PgMapDigest>(data);
    }

    fn place_some(map: &OsdMap) {
        for &pool in map.pools.keys().take(3) {
            if let Some(pg) = map.object_to_pg(&ObjectLocator::pool(pool), b"object") {
                map.pg_to_up_acting_bounded(pg, 20_000);
            }
            map.pg_to_up_acting_bounded(PgId::new(pool, 0), 20_000);
        }
    }
}
