//! The PGMap digest: the sums over all PGs that the manager sends to the monitors.
//!
//! Source of the format: Ceph's `mon/PGMap.cc`, struct version 4.

use std::collections::BTreeMap;

use spirula_wire::Denc;
use spirula_wire::types::{OsdStat, PoolStat, UTime};

use crate::snaps::SnapIntervals;

#[derive(Clone, Debug, PartialEq, Default, Denc)]
#[denc(version = 4, compat = 1, oldest = 4)]
pub struct PgMapDigest {
    pub num_pg: i64,
    pub num_pg_active: i64,
    pub num_pg_unknown: i64,
    pub num_osd: i64,
    pub pg_pool_sum: BTreeMap<i32, PoolStat>,
    pub pg_sum: PoolStat,
    pub osd_sum: OsdStat,
    /// PG state bits -> how many PGs.
    pub num_pg_by_state: BTreeMap<u64, i32>,
    pub num_pg_by_osd: BTreeMap<i32, PgCount>,
    pub num_pg_by_pool: BTreeMap<i64, i64>,
    pub osd_last_seq: Vec<u64>,
    /// Change of a pool over the last while, and the length of that while.
    pub per_pool_sum_delta: BTreeMap<i64, (PoolStat, UTime)>,
    pub per_pool_sum_deltas_stamps: BTreeMap<i64, UTime>,
    pub pg_sum_delta: PoolStat,
    pub stamp_delta: UTime,
    /// CRUSH rule -> bytes.
    pub avail_space_by_rule: BTreeMap<i32, i64>,
    pub purged_snaps: BTreeMap<i64, SnapIntervals>,
    pub osd_sum_by_class: BTreeMap<String, OsdStat>,
}

/// How many PGs an OSD has, by its part in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Denc)]
pub struct PgCount {
    pub acting: i32,
    pub up_not_acting: i32,
    pub primary: i32,
}
