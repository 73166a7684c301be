//! What an OSD says of itself when it boots.

use std::collections::BTreeMap;

use crate::Denc;
use crate::types::{UTime, Uuid};

/// One third of a [`CompatSet`]: a bit per feature id (bit 0 unused), with names.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
pub struct FeatureSet {
    pub mask: u64,
    pub names: BTreeMap<u64, String>,
}

/// `CompatSet`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
pub struct CompatSet {
    pub compat: FeatureSet,
    pub ro_compat: FeatureSet,
    pub incompat: FeatureSet,
}

/// `OSDSuperblock`. The two `full` fields are leftovers and always zero.
#[derive(Clone, Debug, PartialEq, Default, Denc)]
#[denc(version = 10, compat = 5, oldest = 8)]
pub struct OsdSuperblock {
    pub cluster_fsid: Uuid,
    pub whoami: i32,
    pub current_epoch: u32,
    pub oldest_map: u32,
    pub newest_map: u32,
    pub weight: f64,
    pub compat_features: CompatSet,
    pub clean_thru: u32,
    pub mounted: u32,
    pub osd_fsid: Uuid,
    pub last_epoch_marked_full: u32,
    pub pool_last_epoch_marked_full: BTreeMap<i64, u32>,
    #[denc(since = 9)]
    pub purged_snaps_last: u32,
    #[denc(since = 9)]
    pub last_purged_snaps_scrub: UTime,
    #[denc(since = 10)]
    pub cluster_osdmap_trim_lower_bound: u32,
}
