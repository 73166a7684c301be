//! Statistics: per object set, PG, pool, OSD and store.

use std::collections::{BTreeMap, BTreeSet};

use crate::denc::encode_versioned;
use crate::types::{EVersion, PgId, PgShard, SnapId, UTime};
use crate::{Decode, DecodeError, Denc, Encode, Features, Reader, features};

/// `object_stat_sum_t`: counters over a set of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 20, compat = 14, oldest = 19)]
pub struct ObjectStatSum {
    pub num_bytes: i64,
    pub num_objects: i64,
    pub num_object_clones: i64,
    pub num_object_copies: i64,
    pub num_objects_missing_on_primary: i64,
    pub num_objects_degraded: i64,
    pub num_objects_unfound: i64,
    pub num_rd: i64,
    pub num_rd_kb: i64,
    pub num_wr: i64,
    pub num_wr_kb: i64,
    pub num_scrub_errors: i64,
    pub num_objects_recovered: i64,
    pub num_bytes_recovered: i64,
    pub num_keys_recovered: i64,
    pub num_shallow_scrub_errors: i64,
    pub num_deep_scrub_errors: i64,
    pub num_objects_dirty: i64,
    pub num_whiteouts: i64,
    pub num_objects_omap: i64,
    pub num_objects_hit_set_archive: i64,
    pub num_objects_misplaced: i64,
    pub num_bytes_hit_set_archive: i64,
    pub num_flush: i64,
    pub num_flush_kb: i64,
    pub num_evict: i64,
    pub num_evict_kb: i64,
    pub num_promote: i64,
    pub num_flush_mode_high: i32,
    pub num_flush_mode_low: i32,
    pub num_evict_mode_some: i32,
    pub num_evict_mode_full: i32,
    pub num_objects_pinned: i64,
    pub num_objects_missing: i64,
    pub num_legacy_snapsets: i64,
    pub num_large_omap_objects: i64,
    pub num_objects_manifest: i64,
    pub num_omap_bytes: i64,
    pub num_omap_keys: i64,
    #[denc(since = 20)]
    pub num_objects_repaired: i64,
}

macro_rules! add_fields {
    ($to:expr, $from:expr; $($field:ident)*) => { $($to.$field += $from.$field;)* };
}

impl ObjectStatSum {
    pub fn add(&mut self, o: &Self) {
        add_fields!(self, o; num_bytes num_objects num_object_clones num_object_copies
            num_objects_missing_on_primary num_objects_degraded num_objects_unfound num_rd
            num_rd_kb num_wr num_wr_kb num_scrub_errors num_objects_recovered num_bytes_recovered
            num_keys_recovered num_shallow_scrub_errors num_deep_scrub_errors num_objects_dirty
            num_whiteouts num_objects_omap num_objects_hit_set_archive num_objects_misplaced
            num_bytes_hit_set_archive num_flush num_flush_kb num_evict num_evict_kb num_promote
            num_flush_mode_high num_flush_mode_low num_evict_mode_some num_evict_mode_full
            num_objects_pinned num_objects_missing num_legacy_snapsets num_large_omap_objects
            num_objects_manifest num_omap_bytes num_omap_keys num_objects_repaired);
    }
}

/// `object_stat_collection_t`: the sum, and a map of categories that is always empty now.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 2, compat = 2)]
pub struct ObjectStatCollection {
    pub sum: ObjectStatSum,
    pub categories: BTreeMap<String, ObjectStatSum>,
}

/// `store_statfs_t`: space of a store, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 1, compat = 1)]
pub struct StoreStatfs {
    pub total: u64,
    pub available: u64,
    pub internally_reserved: u64,
    pub allocated: i64,
    pub data_stored: i64,
    pub data_compressed: i64,
    pub data_compressed_allocated: i64,
    pub data_compressed_original: i64,
    pub omap_allocated: i64,
    pub internal_metadata: i64,
}

impl StoreStatfs {
    pub fn add(&mut self, o: &Self) {
        add_fields!(self, o; total available internally_reserved allocated data_stored
            data_compressed data_compressed_allocated data_compressed_original omap_allocated
            internal_metadata);
    }

    /// What is not available, whatever holds it.
    pub fn used_raw(&self) -> u64 {
        self.total.saturating_sub(self.available)
    }
}

/// `pool_stat_t`: the sum over a pool.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 7, compat = 5, oldest = 7)]
pub struct PoolStat {
    pub stats: ObjectStatCollection,
    pub log_size: i64,
    pub ondisk_log_size: i64,
    pub up: i32,
    pub acting: i32,
    pub store_stats: StoreStatfs,
    pub num_store_stats: i32,
}

/// Bits of [`PgStat::state`] (`PG_STATE_*`) with the names that `ceph pg` shows, in its order.
pub mod pg_state {
    pub const CREATING: u64 = 1 << 0;
    pub const ACTIVE: u64 = 1 << 1;
    pub const CLEAN: u64 = 1 << 2;
    pub const DOWN: u64 = 1 << 4;
    pub const RECOVERY_UNFOUND: u64 = 1 << 5;
    pub const BACKFILL_UNFOUND: u64 = 1 << 6;
    pub const PREMERGE: u64 = 1 << 7;
    pub const SCRUBBING: u64 = 1 << 8;
    pub const DEGRADED: u64 = 1 << 10;
    pub const INCONSISTENT: u64 = 1 << 11;
    pub const PEERING: u64 = 1 << 12;
    pub const REPAIR: u64 = 1 << 13;
    pub const RECOVERING: u64 = 1 << 14;
    pub const BACKFILL_WAIT: u64 = 1 << 15;
    pub const INCOMPLETE: u64 = 1 << 16;
    pub const STALE: u64 = 1 << 17;
    pub const REMAPPED: u64 = 1 << 18;
    pub const DEEP_SCRUB: u64 = 1 << 19;
    pub const BACKFILLING: u64 = 1 << 20;
    pub const BACKFILL_TOOFULL: u64 = 1 << 21;
    pub const RECOVERY_WAIT: u64 = 1 << 22;
    pub const UNDERSIZED: u64 = 1 << 23;
    pub const ACTIVATING: u64 = 1 << 24;
    pub const PEERED: u64 = 1 << 25;
    pub const SNAPTRIM: u64 = 1 << 26;
    pub const SNAPTRIM_WAIT: u64 = 1 << 27;
    pub const RECOVERY_TOOFULL: u64 = 1 << 28;
    pub const SNAPTRIM_ERROR: u64 = 1 << 29;
    pub const FORCED_RECOVERY: u64 = 1 << 30;
    pub const FORCED_BACKFILL: u64 = 1 << 31;
    pub const FAILED_REPAIR: u64 = 1 << 32;
    pub const LAGGY: u64 = 1 << 33;
    pub const WAIT: u64 = 1 << 34;

    const NAMES: [(u64, &str); 33] = [
        (STALE, "stale"),
        (CREATING, "creating"),
        (ACTIVE, "active"),
        (ACTIVATING, "activating"),
        (CLEAN, "clean"),
        (RECOVERY_WAIT, "recovery_wait"),
        (RECOVERY_TOOFULL, "recovery_toofull"),
        (RECOVERING, "recovering"),
        (FORCED_RECOVERY, "forced_recovery"),
        (DOWN, "down"),
        (RECOVERY_UNFOUND, "recovery_unfound"),
        (BACKFILL_UNFOUND, "backfill_unfound"),
        (UNDERSIZED, "undersized"),
        (DEGRADED, "degraded"),
        (REMAPPED, "remapped"),
        (PREMERGE, "premerge"),
        (SCRUBBING, "scrubbing"),
        (DEEP_SCRUB, "deep"),
        (INCONSISTENT, "inconsistent"),
        (PEERING, "peering"),
        (REPAIR, "repair"),
        (BACKFILL_WAIT, "backfill_wait"),
        (BACKFILLING, "backfilling"),
        (FORCED_BACKFILL, "forced_backfill"),
        (BACKFILL_TOOFULL, "backfill_toofull"),
        (INCOMPLETE, "incomplete"),
        (PEERED, "peered"),
        (SNAPTRIM, "snaptrim"),
        (SNAPTRIM_WAIT, "snaptrim_wait"),
        (SNAPTRIM_ERROR, "snaptrim_error"),
        (FAILED_REPAIR, "failed_repair"),
        (LAGGY, "laggy"),
        (WAIT, "wait"),
    ];

    /// `active+clean` and so on; `unknown` without a known bit.
    pub fn name(state: u64) -> String {
        let set: Vec<_> = NAMES.iter().filter(|(b, _)| state & b != 0).map(|(_, n)| *n).collect();
        if set.is_empty() { "unknown".to_owned() } else { set.join("+") }
    }

    /// The bit of one state's name; `unknown` is 0.
    pub fn by_name(name: &str) -> Option<u64> {
        match NAMES.iter().find(|(_, n)| *n == name) {
            Some((bit, _)) => Some(*bit),
            None => (name == "unknown").then_some(0),
        }
    }
}

/// `pg_stat_t`: what a primary reports about a PG.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 26, compat = 22, oldest = 24)]
pub struct PgStat {
    pub version: EVersion,
    pub reported_seq: u64,
    pub reported_epoch: u32,
    /// See [`PgStat::state`].
    pub state_low: u32,
    pub log_start: EVersion,
    pub ondisk_log_start: EVersion,
    pub created: u32,
    pub last_epoch_clean: u32,
    pub parent: PgId,
    pub parent_split_bits: u32,
    pub last_scrub: EVersion,
    pub last_scrub_stamp: UTime,
    pub stats: ObjectStatCollection,
    pub log_size: i64,
    pub ondisk_log_size: i64,
    pub up: Vec<i32>,
    pub acting: Vec<i32>,
    pub last_fresh: UTime,
    pub last_change: UTime,
    pub last_active: UTime,
    pub last_clean: UTime,
    pub last_unstale: UTime,
    pub mapping_epoch: u32,
    pub last_deep_scrub: EVersion,
    pub last_deep_scrub_stamp: UTime,
    pub stats_invalid: bool,
    pub last_clean_scrub_stamp: UTime,
    pub last_became_active: UTime,
    pub dirty_stats_invalid: bool,
    pub up_primary: i32,
    pub acting_primary: i32,
    pub omap_stats_invalid: bool,
    pub hitset_stats_invalid: bool,
    pub blocked_by: Vec<i32>,
    pub last_undegraded: UTime,
    pub last_fullsized: UTime,
    pub hitset_bytes_stats_invalid: bool,
    pub last_peered: UTime,
    pub last_became_peered: UTime,
    pub pin_stats_invalid: bool,
    pub snaptrimq_len: u32,
    /// See [`PgStat::state`].
    pub state_high: u32,
    pub purged_snaps: Vec<(SnapId, u64)>,
    #[denc(since = 25)]
    pub manifest_stats_invalid: bool,
    #[denc(since = 26)]
    pub avail_no_missing: Vec<PgShard>,
    #[denc(since = 26)]
    pub object_location_counts: BTreeMap<BTreeSet<PgShard>, i32>,
}

impl PgStat {
    /// The state bits ([`pg_state`]), which travel in two halves.
    pub fn state(&self) -> u64 {
        u64::from(self.state_high) << 32 | u64::from(self.state_low)
    }

    pub fn set_state(&mut self, state: u64) {
        self.state_low = state as u32;
        self.state_high = (state >> 32) as u32;
    }
}

/// A span of time that may be negative, as `std::chrono` durations are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Denc)]
pub struct TimeSpan {
    pub sec: i32,
    pub nsec: i32,
}

/// `pg_history_t`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 10, compat = 4, oldest = 9)]
pub struct PgHistory {
    pub epoch_created: u32,
    pub last_epoch_started: u32,
    pub last_epoch_clean: u32,
    pub last_epoch_split: u32,
    pub same_interval_since: u32,
    pub same_up_since: u32,
    pub same_primary_since: u32,
    pub last_scrub: EVersion,
    pub last_scrub_stamp: UTime,
    pub last_deep_scrub: EVersion,
    pub last_deep_scrub_stamp: UTime,
    pub last_clean_scrub_stamp: UTime,
    pub last_epoch_marked_full: u32,
    pub last_interval_started: u32,
    pub last_interval_clean: u32,
    pub epoch_pool_created: u32,
    #[denc(since = 10)]
    pub prior_readable_until_ub: TimeSpan,
}

/// `objectstore_perf_stat_t`: milliseconds on the wire to a peer without `OS_PERF_STAT_NS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct StorePerfStat {
    pub commit_latency_ns: u64,
    pub apply_latency_ns: u64,
}

const NS_PER_MS: u64 = 1_000_000;

impl Encode for StorePerfStat {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        if f.has(features::OS_PERF_STAT_NS) {
            return encode_versioned(out, 2, 2, |out| {
                self.commit_latency_ns.encode(out, f);
                self.apply_latency_ns.encode(out, f);
            });
        }
        encode_versioned(out, 1, 1, |out| {
            ((self.commit_latency_ns / NS_PER_MS) as u32).encode(out, f);
            ((self.apply_latency_ns / NS_PER_MS) as u32).encode(out, f);
        });
    }
}

impl Decode for StorePerfStat {
    const MIN_SIZE: usize = 6;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.versioned("objectstore_perf_stat_t", 2, |version, r| {
            let mut next = || match version {
                0 | 1 => r.u32().map(|ms| u64::from(ms) * NS_PER_MS),
                _ => r.u64(),
            };
            Ok(Self { commit_latency_ns: next()?, apply_latency_ns: next()? })
        })
    }
}

/// `pow2_hist_t`: counts by power of two.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 1, compat = 1)]
pub struct Pow2Hist {
    pub h: Vec<i32>,
}

/// Heartbeat round trips over one network, in microseconds; the triples are 1, 5, 15 minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Denc)]
pub struct PingTimes {
    pub average: [u32; 3],
    pub min: [u32; 3],
    pub max: [u32; 3],
    pub last: u32,
}

/// Heartbeats with one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Denc)]
pub struct PingInterfaces {
    pub last_update: u32,
    pub back: PingTimes,
    pub front: PingTimes,
}

/// `osd_stat_t`: what an OSD reports about itself. The sizes in KiB that precede `statfs` on the
/// wire follow from it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct OsdStat {
    pub snap_trim_queue_len: i32,
    pub num_snap_trimming: i32,
    pub hb_peers: Vec<i32>,
    pub op_queue_age_hist: Pow2Hist,
    pub os_perf_stat: StorePerfStat,
    pub up_from: u32,
    pub seq: u64,
    pub num_pgs: u32,
    pub statfs: StoreStatfs,
    pub os_alerts: BTreeMap<i32, BTreeMap<String, String>>,
    pub num_shards_repaired: u64,
    pub num_osds: u32,
    pub num_per_pool_osds: u32,
    pub num_per_pool_omap_osds: u32,
    pub hb_pingtime: BTreeMap<i32, PingInterfaces>,
}

impl Encode for OsdStat {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        encode_versioned(out, 14, 2, |out| {
            let statfs = &self.statfs;
            (statfs.total >> 10).encode(out, f);
            (statfs.used_raw() >> 10).encode(out, f);
            (statfs.available >> 10).encode(out, f);
            self.snap_trim_queue_len.encode(out, f);
            self.num_snap_trimming.encode(out, f);
            self.hb_peers.encode(out, f);
            // Peers that do not ping us back: no longer kept.
            0u32.encode(out, f);
            self.op_queue_age_hist.encode(out, f);
            self.os_perf_stat.encode(out, f);
            self.up_from.encode(out, f);
            self.seq.encode(out, f);
            self.num_pgs.encode(out, f);
            (statfs.allocated >> 10).encode(out, f);
            (statfs.omap_allocated >> 10).encode(out, f);
            (statfs.internal_metadata >> 10).encode(out, f);
            statfs.encode(out, f);
            self.os_alerts.encode(out, f);
            self.num_shards_repaired.encode(out, f);
            self.num_osds.encode(out, f);
            self.num_per_pool_osds.encode(out, f);
            self.num_per_pool_omap_osds.encode(out, f);
            self.hb_pingtime.encode(out, f);
        });
    }
}

impl Decode for OsdStat {
    const MIN_SIZE: usize = 6;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.versioned("osd_stat_t", 14, |version, r| {
            if version < 12 {
                return Err(DecodeError::TooOld { what: "osd_stat_t", version, oldest: 12 });
            }
            r.skip(24, "sizes in KiB")?;
            let (snap_trim_queue_len, num_snap_trimming) = (r.i32()?, r.i32()?);
            let hb_peers = Vec::decode(r)?;
            let _out: Vec<i32> = Vec::decode(r)?;
            let op_queue_age_hist = Pow2Hist::decode(r)?;
            let os_perf_stat = StorePerfStat::decode(r)?;
            let (up_from, seq, num_pgs) = (r.u32()?, r.u64()?, r.u32()?);
            r.skip(24, "sizes in KiB")?;
            Ok(Self {
                snap_trim_queue_len,
                num_snap_trimming,
                hb_peers,
                op_queue_age_hist,
                os_perf_stat,
                up_from,
                seq,
                num_pgs,
                statfs: StoreStatfs::decode(r)?,
                os_alerts: BTreeMap::decode(r)?,
                num_shards_repaired: r.u64()?,
                num_osds: r.u32()?,
                num_per_pool_osds: r.u32()?,
                num_per_pool_omap_osds: if version >= 13 { r.u32()? } else { 0 },
                hb_pingtime: if version >= 14 { BTreeMap::decode(r)? } else { BTreeMap::new() },
            })
        })
    }
}
