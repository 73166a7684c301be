//! A pool: `pg_pool_t`, and the arithmetic from an object's hash to its placement seed.
//!
//! Source of the format: Ceph's `osd/osd_types.cc`, struct version 29 (30 for stretched pools).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use spirula_crush::hash::{STR_HASH_RJENKINS, hash32_2, str_hash};
use spirula_wire::denc::encode_versioned;
use spirula_wire::types::{EVersion, PgId, UTime};
use spirula_wire::{Decode, DecodeError, Denc, Encode, Features, Reader};

use crate::pool::opts::PoolOpts;
use crate::snaps::SnapIntervals;

pub mod opts;

/// Bits of [`PgPool::flags`].
pub mod flags {
    pub const HASHPSPOOL: u64 = 1;
    pub const FULL: u64 = 1 << 1;
    pub const EC_OVERWRITES: u64 = 1 << 2;
    pub const INCOMPLETE_CLONES: u64 = 1 << 3;
    pub const NODELETE: u64 = 1 << 4;
    pub const NOPGCHANGE: u64 = 1 << 5;
    pub const NOSIZECHANGE: u64 = 1 << 6;
    pub const WRITE_FADVISE_DONTNEED: u64 = 1 << 7;
    pub const NOSCRUB: u64 = 1 << 8;
    pub const NODEEP_SCRUB: u64 = 1 << 9;
    pub const FULL_QUOTA: u64 = 1 << 10;
    pub const NEARFULL: u64 = 1 << 11;
    pub const BACKFILLFULL: u64 = 1 << 12;
    pub const SELFMANAGED_SNAPS: u64 = 1 << 13;
    pub const POOL_SNAPS: u64 = 1 << 14;
    pub const CREATING: u64 = 1 << 15;
    pub const EIO: u64 = 1 << 16;
    pub const BULK: u64 = 1 << 17;

    const NAMES: [&str; 18] = [
        "hashpspool",
        "full",
        "ec_overwrites",
        "incomplete_clones",
        "nodelete",
        "nopgchange",
        "nosizechange",
        "write_fadvise_dontneed",
        "noscrub",
        "nodeep-scrub",
        "full_quota",
        "nearfull",
        "backfillfull",
        "selfmanaged_snaps",
        "pool_snaps",
        "creating",
        "eio",
        "bulk",
    ];

    /// The flags by name, comma-separated, as commands show them.
    pub fn names(flags: u64) -> String {
        let set = NAMES.iter().enumerate().filter(|(bit, _)| flags & (1 << bit) != 0);
        set.map(|(_, &name)| name).collect::<Vec<_>>().join(",")
    }
}

/// [`PgPool::type_`] of a replicated pool.
pub const TYPE_REPLICATED: u8 = 1;
/// [`PgPool::type_`] of an erasure-coded pool.
pub const TYPE_ERASURE: u8 = 3;

/// [`PgPool::pg_autoscale_mode`].
pub const AUTOSCALE_OFF: u8 = 0;
pub const AUTOSCALE_WARN: u8 = 1;
pub const AUTOSCALE_ON: u8 = 2;

/// Application -> key -> value.
pub type ApplicationMetadata = BTreeMap<String, BTreeMap<String, String>>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PgPool {
    pub type_: u8,
    pub size: u8,
    pub crush_rule: u8,
    pub object_hash: u8,
    pub pg_num: u32,
    pub pgp_num: u32,
    pub last_change: u32,
    pub snap_seq: u64,
    pub snap_epoch: u32,
    pub snaps: BTreeMap<u64, PoolSnap>,
    /// Not used since Mimic: see `removed_snaps_queue` of the map.
    pub removed_snaps: SnapIntervals,
    pub auid: u64,
    pub flags: u64,
    pub min_size: u8,
    pub quota_max_bytes: u64,
    pub quota_max_objects: u64,
    pub tiers: BTreeSet<u64>,
    pub tier_of: i64,
    pub cache_mode: u8,
    pub read_tier: i64,
    pub write_tier: i64,
    pub properties: BTreeMap<String, String>,
    pub hit_set_params: HitSetParams,
    pub hit_set_period: u32,
    pub hit_set_count: u32,
    pub stripe_width: u32,
    pub target_max_bytes: u64,
    pub target_max_objects: u64,
    pub cache_target_dirty_ratio_micro: u32,
    pub cache_target_full_ratio_micro: u32,
    pub cache_min_flush_age: u32,
    pub cache_min_evict_age: u32,
    pub erasure_code_profile: String,
    pub last_force_op_resend_preluminous: u32,
    pub min_read_recency_for_promote: i32,
    pub expected_num_objects: u64,
    pub cache_target_dirty_high_ratio_micro: u32,
    pub min_write_recency_for_promote: i32,
    pub use_gmt_hitset: bool,
    pub fast_read: bool,
    pub hit_set_grade_decay_rate: i32,
    pub hit_set_search_last_n: u32,
    pub opts: PoolOpts,
    pub last_force_op_resend_prenautilus: u32,
    pub application_metadata: ApplicationMetadata,
    pub create_time: UTime,
    pub pg_num_target: u32,
    pub pgp_num_target: u32,
    pub pg_num_pending: u32,
    pub last_force_op_resend: u32,
    pub pg_autoscale_mode: u8,
    pub last_pg_merge_meta: PgMergeMeta,
    pub stretch: Stretch,
}

/// Where the copies of a stretched pool must be; zero bucket count: not stretched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Denc)]
pub struct Stretch {
    pub bucket_count: u32,
    pub bucket_target: u32,
    pub bucket_barrier: u32,
    pub mandatory_member: i32,
}

/// `CRUSH_ITEM_NONE`: no member is mandatory.
impl Default for Stretch {
    fn default() -> Self {
        let mandatory_member = spirula_crush::ITEM_NONE;
        Self { bucket_count: 0, bucket_target: 0, bucket_barrier: 0, mandatory_member }
    }
}

/// A pool snapshot (`rados mksnap`).
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 2, compat = 2)]
pub struct PoolSnap {
    pub snapid: u64,
    pub stamp: UTime,
    pub name: String,
}

/// What the last merge of two PGs found.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 1, compat = 1)]
pub struct PgMergeMeta {
    pub source_pgid: PgId,
    pub ready_epoch: u32,
    pub last_epoch_started: u32,
    pub last_epoch_clean: u32,
    pub source_version: EVersion,
    pub target_version: EVersion,
}

/// `HitSet::Params` of a cache tier, kept but not looked into.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct HitSetParams {
    /// 0: none.
    pub kind: u8,
    pub params: Bytes,
}

impl Default for PgPool {
    /// A replicated pool without PGs, with the values that Ceph gives a new pool.
    fn default() -> Self {
        Self {
            type_: TYPE_REPLICATED,
            size: 0,
            crush_rule: 0,
            object_hash: STR_HASH_RJENKINS,
            pg_num: 0,
            pgp_num: 0,
            last_change: 0,
            snap_seq: 0,
            snap_epoch: 0,
            snaps: BTreeMap::new(),
            removed_snaps: SnapIntervals::default(),
            auid: 0,
            flags: flags::HASHPSPOOL,
            min_size: 0,
            quota_max_bytes: 0,
            quota_max_objects: 0,
            tiers: BTreeSet::new(),
            tier_of: -1,
            cache_mode: 0,
            read_tier: -1,
            write_tier: -1,
            properties: BTreeMap::new(),
            hit_set_params: HitSetParams::default(),
            hit_set_period: 0,
            hit_set_count: 0,
            stripe_width: 0,
            target_max_bytes: 0,
            target_max_objects: 0,
            cache_target_dirty_ratio_micro: 400_000,
            cache_target_full_ratio_micro: 800_000,
            cache_min_flush_age: 0,
            cache_min_evict_age: 0,
            erasure_code_profile: String::new(),
            last_force_op_resend_preluminous: 0,
            min_read_recency_for_promote: 0,
            expected_num_objects: 0,
            cache_target_dirty_high_ratio_micro: 600_000,
            min_write_recency_for_promote: 0,
            use_gmt_hitset: true,
            fast_read: false,
            hit_set_grade_decay_rate: 0,
            hit_set_search_last_n: 0,
            opts: PoolOpts::default(),
            last_force_op_resend_prenautilus: 0,
            application_metadata: ApplicationMetadata::new(),
            create_time: UTime::default(),
            pg_num_target: 0,
            pgp_num_target: 0,
            pg_num_pending: 0,
            last_force_op_resend: 0,
            pg_autoscale_mode: AUTOSCALE_OFF,
            last_pg_merge_meta: PgMergeMeta::default(),
            stretch: Stretch::default(),
        }
    }
}

impl PgPool {
    /// A replicated pool as `osd pool create` makes it.
    pub fn replicated(size: u8, min_size: u8, pg_num: u32, crush_rule: u8) -> Self {
        Self { size, min_size, crush_rule, ..Self::default() }.with_pg_num(pg_num)
    }

    /// The pool with this many PGs, all placed by themselves.
    pub fn with_pg_num(self, pg_num: u32) -> Self {
        Self {
            pg_num,
            pgp_num: pg_num,
            pg_num_target: pg_num,
            pgp_num_target: pg_num,
            pg_num_pending: pg_num,
            ..self
        }
    }

    pub fn is_replicated(&self) -> bool {
        self.type_ == TYPE_REPLICATED
    }

    pub fn is_erasure(&self) -> bool {
        self.type_ == TYPE_ERASURE
    }

    /// Whether a missing OSD closes up the list of the others; else it leaves a hole.
    pub fn can_shift_osds(&self) -> bool {
        self.is_replicated()
    }

    pub fn has_flag(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }

    pub fn is_stretched(&self) -> bool {
        self.stretch.bucket_count != 0
    }

    /// Hash of an object's key (its name, if it has no other) within a namespace.
    pub fn hash_key(&self, key: &[u8], nspace: &[u8]) -> u32 {
        if nspace.is_empty() {
            return str_hash(self.object_hash, key);
        }
        str_hash(self.object_hash, &[nspace, b"\x1f", key].concat())
    }

    /// The PG seed of a hash.
    pub fn seed_of(&self, hash: u32) -> u32 {
        stable_mod(hash, self.pg_num)
    }

    /// What CRUSH places a PG by.
    pub fn placement_seed(&self, pg: PgId) -> u32 {
        let seed = stable_mod(pg.seed, self.pgp_num);
        if self.has_flag(flags::HASHPSPOOL) {
            hash32_2(seed, pg.pool as u32)
        } else {
            seed.wrapping_add(pg.pool as u32)
        }
    }

    /// Whether its snapshots are the pool's own; then clients may not manage any themselves.
    pub fn has_pool_snaps(&self) -> bool {
        self.has_flag(flags::POOL_SNAPS)
    }

    /// Whether clients manage its snapshots; then the pool may not have any of its own.
    pub fn has_selfmanaged_snaps(&self) -> bool {
        self.has_flag(flags::SELFMANAGED_SNAPS)
    }

    /// Adds a pool snapshot and returns its id.
    pub fn add_snap(&mut self, name: &str, stamp: UTime) -> u64 {
        self.flags |= flags::POOL_SNAPS;
        self.snap_seq += 1;
        let snapid = self.snap_seq;
        self.snaps.insert(snapid, PoolSnap { snapid, stamp, name: name.to_owned() });
        snapid
    }

    /// Removes the pool snapshot of that name and returns its id. A removal takes an id too, so that
    /// writers with an older snap context can be told from those that know of it.
    pub fn remove_snap(&mut self, name: &str) -> Option<u64> {
        let snapid = self.snap_by_name(name)?.snapid;
        self.snaps.remove(&snapid);
        self.snap_seq += 1;
        Some(snapid)
    }

    /// Hands out the id of a snapshot that a client manages. The first one is 2.
    pub fn add_selfmanaged_snap(&mut self) -> u64 {
        self.flags |= flags::SELFMANAGED_SNAPS;
        self.snap_seq = self.snap_seq.max(1) + 1;
        self.snap_seq
    }

    /// Notes the removal of a client's snapshot and returns the id that the removal took.
    pub fn remove_selfmanaged_snap(&mut self) -> u64 {
        self.snap_seq += 1;
        self.snap_seq
    }

    pub fn snap_by_name(&self, name: &str) -> Option<&PoolSnap> {
        self.snaps.values().find(|snap| snap.name == name)
    }
}

/// `x mod b` that moves only the objects of PGs that split when `b` grows.
pub fn stable_mod(x: u32, b: u32) -> u32 {
    let bits = b.wrapping_sub(1).checked_ilog2().map_or(0, |top| top + 1);
    let mask = 1u64.wrapping_shl(bits).wrapping_sub(1) as u32;
    if x & mask < b { x & mask } else { x & (mask >> 1) }
}

impl Encode for HitSetParams {
    fn encode(&self, out: &mut Vec<u8>, _: Features) {
        encode_versioned(out, 1, 1, |out| {
            out.push(self.kind);
            out.extend_from_slice(&self.params);
        });
    }
}

impl Decode for HitSetParams {
    const MIN_SIZE: usize = 7;

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.versioned("hit set params", 1, |_, r| {
            Ok(Self { kind: r.u8()?, params: Bytes::copy_from_slice(r.peek()) })
        })
    }
}

/// Lists the fields of struct version 29 in wire order, so that both directions agree.
macro_rules! fields_in_order {
    ($do:ident) => {
        $do!(
            [type_ size crush_rule object_hash pg_num pgp_num]
            // Numbers of localized PGs, long gone.
            (0u32 0u32)
            [last_change snap_seq snap_epoch snaps removed_snaps auid flags]
            // Crash replay interval.
            (0u32)
            [min_size quota_max_bytes quota_max_objects tiers tier_of cache_mode read_tier
             write_tier properties hit_set_params hit_set_period hit_set_count stripe_width
             target_max_bytes target_max_objects cache_target_dirty_ratio_micro
             cache_target_full_ratio_micro cache_min_flush_age cache_min_evict_age
             erasure_code_profile last_force_op_resend_preluminous min_read_recency_for_promote
             expected_num_objects cache_target_dirty_high_ratio_micro
             min_write_recency_for_promote use_gmt_hitset fast_read hit_set_grade_decay_rate
             hit_set_search_last_n opts last_force_op_resend_prenautilus application_metadata
             create_time pg_num_target pgp_num_target pg_num_pending]
            // Epochs of the merge protocol of 14.1.
            (0u32 0u32)
            [last_force_op_resend pg_autoscale_mode last_pg_merge_meta]
        )
    };
}

impl Encode for PgPool {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        let version = if self.is_stretched() { 30 } else { 29 };
        encode_versioned(out, version, 5, |out| {
            macro_rules! put {
                ($([$($field:ident)*] $(($($unused:literal)*))?)*) => {
                    $($(self.$field.encode(out, f);)* $($($unused.encode(out, f);)*)?)*
                };
            }
            fields_in_order!(put);
            if version >= 30 {
                self.stretch.encode(out, f);
            }
        });
    }
}

impl Decode for PgPool {
    const MIN_SIZE: usize = 6;

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.versioned("pool", 30, |version, r| {
            if version < 29 {
                return Err(DecodeError::TooOld { what: "pool", version, oldest: 29 });
            }
            let mut pool = Self::default();
            macro_rules! take {
                ($([$($field:ident)*] $(($($unused:literal)*))?)*) => {
                    $($(pool.$field = Decode::decode(r)?;)* $($(r.skip(size_of_val(&$unused), "pool")?;)*)?)*
                };
            }
            fields_in_order!(take);
            if version >= 30 {
                pool.stretch = Decode::decode(r)?;
            }
            Ok(pool)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stable_modulus_only_splits() {
        assert_eq!(stable_mod(7, 0), 7 & (u32::MAX >> 1));
        assert_eq!(stable_mod(5, 1), 0);
        for x in 0..1000 {
            assert_eq!(stable_mod(x, 8), x % 8);
            assert!(stable_mod(x, 12) < 12);
            let (before, after) = (stable_mod(x, 12), stable_mod(x, 13));
            assert!(before == after || after == 12);
        }
    }

    /// The ids are those that a 16.2.15 cluster gave for the same steps.
    #[test]
    fn snapshot_ids_count_removals_too() {
        let mut own = PgPool::default();
        assert_eq!(own.add_snap("a", UTime::default()), 1);
        assert_eq!(own.add_snap("b", UTime::default()), 2);
        assert_eq!((own.remove_snap("a"), own.remove_snap("a")), (Some(1), None));
        assert_eq!((own.snap_seq, own.has_pool_snaps()), (3, true));
        let mut clients = PgPool::default();
        assert_eq!((clients.add_selfmanaged_snap(), clients.add_selfmanaged_snap()), (2, 3));
        assert_eq!((clients.remove_selfmanaged_snap(), clients.add_selfmanaged_snap()), (4, 5));
        assert!(clients.has_selfmanaged_snaps() && !clients.has_pool_snaps());
    }

    #[test]
    fn a_stretched_pool_takes_the_newer_version() {
        let mut pool = PgPool::replicated(4, 2, 32, 0);
        pool.stretch.bucket_count = 2;
        let bytes = pool.to_bytes(Features::PACIFIC);
        assert_eq!(bytes[0], 30);
        assert_eq!(PgPool::from_bytes(&bytes), Ok(pool));
    }
}
