//! The OSDMap: pools, OSDs with their state and addresses, CRUSH and exceptions to it.
//!
//! Invariant: `osds` has `max_osd` entries; every OSD id in the map is looked up with a bound check.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use spirula_crush::CrushMap;
use spirula_wire::types::{EntityAddr, EntityAddrVec, PgId, UTime, Uuid};
use spirula_wire::{Decode, DecodeError, Denc, Encode, Features, Reader, features};

use crate::pool::PgPool;
use crate::release::Release;
use crate::snaps::SnapIntervals;

pub use apply::ApplyError;
pub(crate) use denc::oldest;
pub use follow::{FollowError, Followed, OsdMapFollower};
pub use incremental::Incremental;
pub use placement::UpActing;

mod apply;
pub mod build;
mod crc;
mod denc;
mod follow;
mod incremental;
mod placement;

/// Bits of [`OsdMap::flags`].
pub mod flags {
    pub const NEARFULL: u32 = 1;
    pub const FULL: u32 = 1 << 1;
    pub const PAUSERD: u32 = 1 << 2;
    pub const PAUSEWR: u32 = 1 << 3;
    pub const PAUSEREC: u32 = 1 << 4;
    pub const NOUP: u32 = 1 << 5;
    pub const NODOWN: u32 = 1 << 6;
    pub const NOOUT: u32 = 1 << 7;
    pub const NOIN: u32 = 1 << 8;
    pub const NOBACKFILL: u32 = 1 << 9;
    pub const NORECOVER: u32 = 1 << 10;
    pub const NOSCRUB: u32 = 1 << 11;
    pub const NODEEP_SCRUB: u32 = 1 << 12;
    pub const NOTIERAGENT: u32 = 1 << 13;
    pub const NOREBALANCE: u32 = 1 << 14;
    pub const SORTBITWISE: u32 = 1 << 15;
    pub const REQUIRE_JEWEL: u32 = 1 << 16;
    pub const REQUIRE_KRAKEN: u32 = 1 << 17;
    pub const REQUIRE_LUMINOUS: u32 = 1 << 18;
    pub const RECOVERY_DELETES: u32 = 1 << 19;
    pub const PURGED_SNAPDIRS: u32 = 1 << 20;
    pub const NOSNAPTRIM: u32 = 1 << 21;
    pub const PGLOG_HARDLIMIT: u32 = 1 << 22;

    const NAMES: [&str; 23] = [
        "nearfull",
        "full",
        "pauserd",
        "pausewr",
        "pauserec",
        "noup",
        "nodown",
        "noout",
        "noin",
        "nobackfill",
        "norecover",
        "noscrub",
        "nodeep-scrub",
        "notieragent",
        "norebalance",
        "sortbitwise",
        "require_jewel_osds",
        "require_kraken_osds",
        "require_luminous_osds",
        "recovery_deletes",
        "purged_snapdirs",
        "nosnaptrim",
        "pglog_hardlimit",
    ];

    /// The flags by name, comma-separated, as commands show them.
    pub fn names(flags: u32) -> String {
        let set = NAMES.iter().enumerate().filter(|(bit, _)| flags & (1 << bit) != 0);
        set.map(|(_, &name)| name).collect::<Vec<_>>().join(",")
    }

    /// The flag of this name, as `osd set` takes it.
    pub fn by_name(name: &str) -> Option<u32> {
        NAMES.iter().position(|&n| n == name).map(|bit| 1 << bit)
    }
}

/// Bits of [`Osd::state`].
pub mod osd_state {
    pub const EXISTS: u32 = 1;
    pub const UP: u32 = 1 << 1;
    pub const AUTOOUT: u32 = 1 << 2;
    pub const NEW: u32 = 1 << 3;
    pub const FULL: u32 = 1 << 4;
    pub const NEARFULL: u32 = 1 << 5;
    pub const BACKFILLFULL: u32 = 1 << 6;
    pub const DESTROYED: u32 = 1 << 7;
    pub const NOUP: u32 = 1 << 8;
    pub const NODOWN: u32 = 1 << 9;
    pub const NOIN: u32 = 1 << 10;
    pub const NOOUT: u32 = 1 << 11;
    pub const STOP: u32 = 1 << 12;

    const NAMES: [&str; 13] = [
        "exists",
        "up",
        "autoout",
        "new",
        "full",
        "nearfull",
        "backfillfull",
        "destroyed",
        "noup",
        "nodown",
        "noin",
        "noout",
        "stop",
    ];

    /// How full an OSD is.
    pub const FULLNESS: u32 = FULL | NEARFULL | BACKFILLFULL;

    /// The bits by name, sorted and comma-separated, as commands show them.
    pub fn names(state: u32) -> String {
        let set = NAMES.iter().enumerate().filter(|(bit, _)| state & (1 << bit) != 0);
        let mut set: Vec<&str> = set.map(|(_, &name)| name).collect();
        set.sort_unstable();
        set.join(",")
    }
}

/// [`Osd::weight`] of an OSD that is fully in; 0 is out.
pub const WEIGHT_IN: u32 = 0x1_0000;
/// Primary affinity of an OSD that may be primary as any other.
pub const AFFINITY_DEFAULT: u32 = 0x1_0000;
/// The features that matter to the encoding, of a Pacific cluster: an incremental says them beside
/// its `full_crc`.
pub const ENCODE_FEATURES: Features = Features(0x0f00_0880_1021_2a04);

/// OSD ids are below this (Ceph's mon stops at 10,000). An OSD needs some 350 bytes of every full
/// map.
pub const OSDS_MAX: usize = 1 << 16;

#[derive(Clone, Debug, PartialEq)]
pub struct OsdMap {
    pub fsid: Uuid,
    pub epoch: u32,
    pub created: UTime,
    pub modified: UTime,
    pub pools: BTreeMap<i64, PgPool>,
    pub pool_names: BTreeMap<i64, String>,
    /// Highest pool id ever given.
    pub pool_max: i32,
    pub flags: u32,
    pub osds: Vec<Osd>,
    /// Of every OSD, or empty: all have the default.
    pub primary_affinity: Vec<u32>,
    pub pg_temp: BTreeMap<PgId, Vec<i32>>,
    pub primary_temp: BTreeMap<PgId, i32>,
    pub crush: Arc<CrushMap>,
    pub crush_version: u32,
    pub erasure_code_profiles: BTreeMap<String, BTreeMap<String, String>>,
    pub pg_upmap: BTreeMap<PgId, Vec<i32>>,
    /// Replacements `(from, to)` to make in what CRUSH found.
    pub pg_upmap_items: BTreeMap<PgId, Vec<(i32, i32)>>,
    /// Snapshots removed in this epoch.
    pub new_removed_snaps: BTreeMap<i64, SnapIntervals>,
    /// Snapshots that this epoch knows to be gone from all OSDs.
    pub new_purged_snaps: BTreeMap<i64, SnapIntervals>,
    pub last_up_change: UTime,
    pub last_in_change: UTime,
    /// Address -> when its ban ends.
    pub blocklist: BTreeMap<EntityAddr, UTime>,
    /// Networks: CIDR addresses, whose nonce is the length of the prefix.
    pub range_blocklist: BTreeMap<EntityAddr, UTime>,
    pub cluster_snapshot_epoch: u32,
    pub cluster_snapshot: String,
    pub nearfull_ratio: f32,
    pub full_ratio: f32,
    pub backfillfull_ratio: f32,
    pub require_min_compat_client: Release,
    pub require_osd_release: Release,
    /// Snapshots removed but not yet gone from all OSDs.
    pub removed_snaps_queue: BTreeMap<i64, SnapIntervals>,
    /// CRUSH item -> `osd_state` bits that hold for all below it.
    pub crush_node_flags: BTreeMap<i32, u32>,
    pub device_class_flags: BTreeMap<i32, u32>,
    pub stretch_mode: StretchMode,
    /// CRC of the encoding that this map was decoded from, or was made to match.
    pub crc: Option<u32>,
}

/// Stretch mode of the cluster (two sites and an arbiter).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Denc)]
pub struct StretchMode {
    pub enabled: bool,
    pub bucket_count: u32,
    pub degraded: u32,
    pub recovering: u32,
    pub bucket: i32,
}

/// All that the map says of one OSD.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Osd {
    pub state: u32,
    /// Share of its CRUSH weight that counts: [`WEIGHT_IN`] all, 0 none.
    pub weight: u32,
    pub client_addrs: EntityAddrVec,
    pub cluster_addrs: EntityAddrVec,
    pub hb_back_addrs: EntityAddrVec,
    pub hb_front_addrs: EntityAddrVec,
    pub info: OsdInfo,
    pub xinfo: OsdXInfo,
    pub uuid: Uuid,
}

/// Epochs of an OSD's life (`osd_info_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct OsdInfo {
    pub last_clean_begin: u32,
    pub last_clean_end: u32,
    pub up_from: u32,
    pub up_thru: u32,
    pub down_at: u32,
    pub lost_at: u32,
}

/// More of the same (`osd_xinfo_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct OsdXInfo {
    pub down_stamp: UTime,
    /// Fraction of `u32::MAX`.
    pub laggy_probability: u32,
    pub laggy_interval: u32,
    pub features: u64,
    /// Weight before the mon marked it out by itself.
    pub old_weight: u32,
    pub last_purged_snaps_scrub: UTime,
    pub dead_epoch: u32,
}

impl Default for OsdMap {
    fn default() -> Self {
        Self {
            fsid: Uuid::default(),
            epoch: 0,
            created: UTime::default(),
            modified: UTime::default(),
            pools: BTreeMap::new(),
            pool_names: BTreeMap::new(),
            pool_max: 0,
            flags: 0,
            osds: Vec::new(),
            primary_affinity: Vec::new(),
            pg_temp: BTreeMap::new(),
            primary_temp: BTreeMap::new(),
            crush: Arc::default(),
            crush_version: 1,
            erasure_code_profiles: BTreeMap::new(),
            pg_upmap: BTreeMap::new(),
            pg_upmap_items: BTreeMap::new(),
            new_removed_snaps: BTreeMap::new(),
            new_purged_snaps: BTreeMap::new(),
            last_up_change: UTime::default(),
            last_in_change: UTime::default(),
            blocklist: BTreeMap::new(),
            range_blocklist: BTreeMap::new(),
            cluster_snapshot_epoch: 0,
            cluster_snapshot: String::new(),
            nearfull_ratio: 0.0,
            full_ratio: 0.0,
            backfillfull_ratio: 0.0,
            require_min_compat_client: Release::UNKNOWN,
            require_osd_release: Release::UNKNOWN,
            removed_snaps_queue: BTreeMap::new(),
            crush_node_flags: BTreeMap::new(),
            device_class_flags: BTreeMap::new(),
            stretch_mode: StretchMode::default(),
            crc: None,
        }
    }
}

impl Osd {
    pub fn exists(&self) -> bool {
        self.state & osd_state::EXISTS != 0
    }

    pub fn is_up(&self) -> bool {
        self.exists() && self.state & osd_state::UP != 0
    }

    pub fn is_in(&self) -> bool {
        self.exists() && self.weight != 0
    }

    pub fn is_destroyed(&self) -> bool {
        self.exists() && self.state & osd_state::DESTROYED != 0
    }
}

impl OsdMap {
    pub fn max_osd(&self) -> i32 {
        self.osds.len() as i32
    }

    /// What is known of an OSD, existing or not.
    pub fn osd(&self, id: i32) -> Option<&Osd> {
        self.osds.get(usize::try_from(id).ok()?)
    }

    /// The OSDs that exist, with their ids.
    pub fn existing_osds(&self) -> impl Iterator<Item = (i32, &Osd)> {
        (0..).zip(&self.osds).filter(|(_, osd)| osd.exists())
    }

    pub fn exists(&self, id: i32) -> bool {
        self.osd(id).is_some_and(Osd::exists)
    }

    pub fn is_up(&self, id: i32) -> bool {
        self.osd(id).is_some_and(Osd::is_up)
    }

    pub fn is_in(&self, id: i32) -> bool {
        self.osd(id).is_some_and(Osd::is_in)
    }

    /// Where clients reach an OSD that is up.
    pub fn client_addrs(&self, id: i32) -> Option<&EntityAddrVec> {
        self.osd(id).filter(|osd| osd.is_up()).map(|osd| &osd.client_addrs)
    }

    /// The OSD that calls itself by this uuid.
    pub fn osd_by_uuid(&self, uuid: &Uuid) -> Option<i32> {
        self.existing_osds().find_map(|(id, osd)| (osd.uuid == *uuid).then_some(id))
    }

    pub fn affinity(&self, id: i32) -> u32 {
        let at = usize::try_from(id).ok();
        at.and_then(|at| self.primary_affinity.get(at)).copied().unwrap_or(AFFINITY_DEFAULT)
    }

    pub fn has_flag(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    pub fn pool(&self, id: i64) -> Option<&PgPool> {
        self.pools.get(&id)
    }

    pub fn pool_name(&self, id: i64) -> Option<&str> {
        self.pool_names.get(&id).map(String::as_str)
    }

    pub fn pool_by_name(&self, name: &str) -> Option<i64> {
        self.pool_names.iter().find_map(|(&id, n)| (n == name).then_some(id))
    }

    /// Whether anybody is banned at all.
    pub fn has_bans(&self) -> bool {
        !self.blocklist.is_empty() || !self.range_blocklist.is_empty()
    }

    /// Whether the process at this address may not talk to the cluster. An entry without nonce
    /// bans every process of its host.
    pub fn is_blocklisted(&self, addr: &EntityAddr, now: UTime) -> bool {
        let holds = |end: UTime| (end.sec, end.nsec) > (now.sec, now.nsec);
        let until = |addr: &EntityAddr| self.blocklist.get(addr).is_some_and(|&end| holds(end));
        let any = addr.with_type(spirula_wire::types::AddrType::ANY);
        let host = EntityAddr {
            nonce: 0,
            addr: any.addr.map(|mut socket| {
                socket.set_port(0);
                socket
            }),
            ..any
        };
        let within = |(range, end): (&EntityAddr, &UTime)| holds(*end) && in_range(range, addr);
        until(&any) || until(addr) || until(&host) || self.range_blocklist.iter().any(within)
    }

    /// Ids of the OSDs that a pool may use, by its rule.
    pub fn pool_devices(&self, pool: i64) -> BTreeMap<i32, u32> {
        self.pool(pool).map_or_else(BTreeMap::new, |p| self.crush.rule_devices(p.crush_rule.into()))
    }

    /// Whether a snapshot of a pool is removed, as far as this map knows.
    pub fn is_snap_removed(&self, pool: i64, snap: u64) -> bool {
        self.removed_snaps_queue.get(&pool).is_some_and(|snaps| snaps.contains(snap))
    }

    /// Makes room for OSD ids below `max`, or forgets those from there on.
    pub fn set_max_osd(&mut self, max: usize) {
        self.osds.resize_with(max, Osd::default);
        if !self.primary_affinity.is_empty() {
            self.primary_affinity.resize(max, AFFINITY_DEFAULT);
        }
    }

    pub(crate) fn osd_mut(&mut self, id: i32) -> Option<&mut Osd> {
        self.osds.get_mut(usize::try_from(id).ok()?)
    }
}

impl Encode for OsdInfo {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        out.push(1);
        self.last_clean_begin.encode(out, f);
        self.last_clean_end.encode(out, f);
        self.up_from.encode(out, f);
        self.up_thru.encode(out, f);
        self.down_at.encode(out, f);
        self.lost_at.encode(out, f);
    }
}

impl Decode for OsdInfo {
    const MIN_SIZE: usize = 25;

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let version = r.u8()?;
        if version != 1 {
            return Err(DecodeError::Invalid { what: "osd_info_t", value: version.into() });
        }
        Ok(Self {
            last_clean_begin: r.u32()?,
            last_clean_end: r.u32()?,
            up_from: r.u32()?,
            up_thru: r.u32()?,
            down_at: r.u32()?,
            lost_at: r.u32()?,
        })
    }
}

impl Encode for OsdXInfo {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        let version = if f.has(features::SERVER_OCTOPUS) { 4 } else { 3 };
        spirula_wire::denc::encode_versioned(out, version, 1, |out| {
            self.down_stamp.encode(out, f);
            self.laggy_probability.encode(out, f);
            self.laggy_interval.encode(out, f);
            self.features.encode(out, f);
            self.old_weight.encode(out, f);
            if version >= 4 {
                self.last_purged_snaps_scrub.encode(out, f);
                self.dead_epoch.encode(out, f);
            }
        });
    }
}

impl Decode for OsdXInfo {
    const MIN_SIZE: usize = 34;

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.versioned("osd_xinfo_t", 4, |version, r| {
            if version < 3 {
                return Err(DecodeError::TooOld { what: "osd_xinfo_t", version, oldest: 3 });
            }
            let mut info = Self {
                down_stamp: Decode::decode(r)?,
                laggy_probability: r.u32()?,
                laggy_interval: r.u32()?,
                features: r.u64()?,
                old_weight: r.u32()?,
                ..Self::default()
            };
            if version >= 4 {
                info.last_purged_snaps_scrub = Decode::decode(r)?;
                info.dead_epoch = r.u32()?;
            }
            Ok(info)
        })
    }
}

/// Whether an address is in a network (see [`OsdMap::range_blocklist`]).
fn in_range(range: &EntityAddr, addr: &EntityAddr) -> bool {
    let (Some(net), Some(own)) = (range.addr, addr.addr) else {
        return false;
    };
    let same_front = |a: u128, b: u128, width: u32| {
        let rest = width.saturating_sub(range.nonce);
        (a ^ b).checked_shr(rest).unwrap_or(0) == 0
    };
    match (net.ip(), own.ip()) {
        (IpAddr::V4(net), IpAddr::V4(own)) => {
            same_front(net.to_bits().into(), own.to_bits().into(), 32)
        }
        (IpAddr::V6(net), IpAddr::V6(own)) => same_front(net.to_bits(), own.to_bits(), 128),
        _ => false,
    }
}
