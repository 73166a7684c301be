//! What changes from one epoch to the next.
//!
//! Source of the format: Ceph's `osd/OSDMap.cc`, struct version 8 with sections 8 and 9 (10 when
//! stretch mode changes).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use spirula_wire::denc::encode_versioned;
use spirula_wire::types::{EntityAddr, EntityAddrVec, PgId, UTime, Uuid};
use spirula_wire::{Decode, DecodeError, Encode, Features, Reader};

use crate::osdmap::denc::{encode_blocklist, oldest};
use crate::osdmap::{ENCODE_FEATURES, OsdXInfo, StretchMode, crc};
use crate::pool::PgPool;
use crate::release::Release;
use crate::snaps::SnapIntervals;

/// `OSDMap::Incremental`. Empty collections and `None` mean no change.
#[derive(Clone, Debug, PartialEq)]
pub struct Incremental {
    pub fsid: Uuid,
    /// The epoch that this leads to.
    pub epoch: u32,
    pub modified: UTime,
    pub new_pool_max: Option<i64>,
    pub new_flags: Option<u32>,
    /// A full map to take instead; then nothing else counts.
    pub fullmap: Bytes,
    /// An encoded CRUSH map.
    pub crush: Bytes,
    pub new_max_osd: Option<u32>,
    pub new_pools: BTreeMap<i64, PgPool>,
    pub new_pool_names: BTreeMap<i64, String>,
    pub old_pools: BTreeSet<i64>,
    /// Client addresses of OSDs that come up.
    pub new_up_client: BTreeMap<i32, EntityAddrVec>,
    /// State bits to flip; 0 flips "up".
    pub new_state: BTreeMap<i32, u32>,
    pub new_weight: BTreeMap<i32, u32>,
    /// An empty list removes the entry.
    pub new_pg_temp: BTreeMap<PgId, Vec<i32>>,
    /// -1 removes the entry.
    pub new_primary_temp: BTreeMap<PgId, i32>,
    pub new_primary_affinity: BTreeMap<i32, u32>,
    pub new_erasure_code_profiles: BTreeMap<String, BTreeMap<String, String>>,
    pub old_erasure_code_profiles: Vec<String>,
    pub new_pg_upmap: BTreeMap<PgId, Vec<i32>>,
    pub old_pg_upmap: BTreeSet<PgId>,
    pub new_pg_upmap_items: BTreeMap<PgId, Vec<(i32, i32)>>,
    pub old_pg_upmap_items: BTreeSet<PgId>,
    pub new_removed_snaps: BTreeMap<i64, SnapIntervals>,
    pub new_purged_snaps: BTreeMap<i64, SnapIntervals>,
    /// Zero: no change.
    pub new_last_up_change: UTime,
    pub new_last_in_change: UTime,
    pub new_hb_back_up: BTreeMap<i32, EntityAddrVec>,
    pub new_up_thru: BTreeMap<i32, u32>,
    /// Begin and end.
    pub new_last_clean_interval: BTreeMap<i32, (u32, u32)>,
    pub new_lost: BTreeMap<i32, u32>,
    pub new_blocklist: BTreeMap<EntityAddr, UTime>,
    pub old_blocklist: Vec<EntityAddr>,
    pub new_range_blocklist: BTreeMap<EntityAddr, UTime>,
    pub old_range_blocklist: Vec<EntityAddr>,
    pub new_up_cluster: BTreeMap<i32, EntityAddrVec>,
    pub cluster_snapshot: String,
    pub new_uuid: BTreeMap<i32, Uuid>,
    pub new_xinfo: BTreeMap<i32, OsdXInfo>,
    pub new_hb_front_up: BTreeMap<i32, EntityAddrVec>,
    /// Features of the encoding whose checksum `full_crc` is.
    pub encode_features: u64,
    /// Below zero: no change.
    pub new_nearfull_ratio: f32,
    pub new_full_ratio: f32,
    pub new_backfillfull_ratio: f32,
    pub new_require_min_compat_client: Release,
    pub new_require_osd_release: Release,
    /// 0 removes the entry.
    pub new_crush_node_flags: BTreeMap<i32, u32>,
    pub new_device_class_flags: BTreeMap<i32, u32>,
    pub new_stretch_mode: Option<StretchMode>,
    /// Checksum of the full map of this epoch, encoded with `encode_features`.
    pub full_crc: u32,
}

impl Default for Incremental {
    fn default() -> Self {
        Self {
            fsid: Uuid::default(),
            epoch: 0,
            modified: UTime::default(),
            new_pool_max: None,
            new_flags: None,
            fullmap: Bytes::new(),
            crush: Bytes::new(),
            new_max_osd: None,
            new_pools: BTreeMap::new(),
            new_pool_names: BTreeMap::new(),
            old_pools: BTreeSet::new(),
            new_up_client: BTreeMap::new(),
            new_state: BTreeMap::new(),
            new_weight: BTreeMap::new(),
            new_pg_temp: BTreeMap::new(),
            new_primary_temp: BTreeMap::new(),
            new_primary_affinity: BTreeMap::new(),
            new_erasure_code_profiles: BTreeMap::new(),
            old_erasure_code_profiles: Vec::new(),
            new_pg_upmap: BTreeMap::new(),
            old_pg_upmap: BTreeSet::new(),
            new_pg_upmap_items: BTreeMap::new(),
            old_pg_upmap_items: BTreeSet::new(),
            new_removed_snaps: BTreeMap::new(),
            new_purged_snaps: BTreeMap::new(),
            new_last_up_change: UTime::default(),
            new_last_in_change: UTime::default(),
            new_hb_back_up: BTreeMap::new(),
            new_up_thru: BTreeMap::new(),
            new_last_clean_interval: BTreeMap::new(),
            new_lost: BTreeMap::new(),
            new_blocklist: BTreeMap::new(),
            old_blocklist: Vec::new(),
            new_range_blocklist: BTreeMap::new(),
            old_range_blocklist: Vec::new(),
            new_up_cluster: BTreeMap::new(),
            cluster_snapshot: String::new(),
            new_uuid: BTreeMap::new(),
            new_xinfo: BTreeMap::new(),
            new_hb_front_up: BTreeMap::new(),
            encode_features: ENCODE_FEATURES.0,
            new_nearfull_ratio: -1.0,
            new_full_ratio: -1.0,
            new_backfillfull_ratio: -1.0,
            new_require_min_compat_client: Release::UNCHANGED,
            new_require_osd_release: Release::UNCHANGED,
            new_crush_node_flags: BTreeMap::new(),
            new_device_class_flags: BTreeMap::new(),
            new_stretch_mode: None,
            full_crc: 0,
        }
    }
}

impl Incremental {
    /// An incremental that changes nothing but the epoch.
    pub fn new(fsid: Uuid, epoch: u32, modified: UTime) -> Self {
        Self { fsid, epoch, modified, ..Self::default() }
    }

    /// Whether anything but epoch and time changes.
    pub fn is_empty(&self) -> bool {
        let mut nothing = Self::new(self.fsid, self.epoch, self.modified);
        nothing.encode_features = self.encode_features;
        nothing.full_crc = self.full_crc;
        nothing == *self
    }

    /// Decodes without looking at the checksum.
    #[doc(hidden)]
    pub fn from_bytes_unchecked(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode_incremental(&mut Reader::new(bytes)).map(|(inc, _)| inc)
    }

    fn encode_client(&self, out: &mut Vec<u8>, f: Features) {
        self.fsid.encode(out, f);
        self.epoch.encode(out, f);
        self.modified.encode(out, f);
        self.new_pool_max.unwrap_or(-1).encode(out, f);
        self.new_flags.unwrap_or(u32::MAX).encode(out, f);
        self.fullmap.encode(out, f);
        self.crush.encode(out, f);
        self.new_max_osd.unwrap_or(u32::MAX).encode(out, f);
        self.new_pools.encode(out, f);
        self.new_pool_names.encode(out, f);
        self.old_pools.encode(out, f);
        self.new_up_client.encode(out, f);
        self.new_state.encode(out, f);
        self.new_weight.encode(out, f);
        self.new_pg_temp.encode(out, f);
        self.new_primary_temp.encode(out, f);
        self.new_primary_affinity.encode(out, f);
        self.new_erasure_code_profiles.encode(out, f);
        self.old_erasure_code_profiles.encode(out, f);
        self.new_pg_upmap.encode(out, f);
        self.old_pg_upmap.encode(out, f);
        self.new_pg_upmap_items.encode(out, f);
        self.old_pg_upmap_items.encode(out, f);
        self.new_removed_snaps.encode(out, f);
        self.new_purged_snaps.encode(out, f);
        self.new_last_up_change.encode(out, f);
        self.new_last_in_change.encode(out, f);
    }

    /// Version of the OSD section: no newer than what is in it.
    fn osd_version(&self) -> u8 {
        if !self.new_range_blocklist.is_empty() || !self.old_range_blocklist.is_empty() {
            11
        } else if self.new_stretch_mode.is_some() {
            10
        } else {
            9
        }
    }

    fn encode_osd(&self, out: &mut Vec<u8>, version: u8, f: Features) {
        self.new_hb_back_up.encode(out, f);
        self.new_up_thru.encode(out, f);
        self.new_last_clean_interval.encode(out, f);
        self.new_lost.encode(out, f);
        encode_blocklist(&self.new_blocklist, out, f);
        self.old_blocklist.encode(out, f);
        self.new_up_cluster.encode(out, f);
        self.cluster_snapshot.encode(out, f);
        self.new_uuid.encode(out, f);
        self.new_xinfo.encode(out, f);
        self.new_hb_front_up.encode(out, f);
        self.encode_features.encode(out, f);
        for ratio in [self.new_nearfull_ratio, self.new_full_ratio, self.new_backfillfull_ratio] {
            ratio.to_bits().encode(out, f);
        }
        self.new_require_min_compat_client.encode(out, f);
        self.new_require_osd_release.encode(out, f);
        self.new_crush_node_flags.encode(out, f);
        self.new_device_class_flags.encode(out, f);
        if version >= 10 {
            self.new_stretch_mode.is_some().encode(out, f);
            let mode = self.new_stretch_mode.unwrap_or_default();
            mode.bucket_count.encode(out, f);
            mode.degraded.encode(out, f);
            mode.recovering.encode(out, f);
            mode.bucket.encode(out, f);
            mode.enabled.encode(out, f);
        }
        if version >= 11 {
            encode_blocklist(&self.new_range_blocklist, out, f);
            self.old_range_blocklist.encode(out, f);
        }
    }

    fn decode_client(&mut self, r: &mut Reader<'_>) -> Result<(), DecodeError> {
        self.fsid = Decode::decode(r)?;
        self.epoch = r.u32()?;
        self.modified = Decode::decode(r)?;
        self.new_pool_max = Some(r.i64()?).filter(|&max| max != -1);
        self.new_flags = Some(r.u32()?).filter(|&flags| flags != u32::MAX);
        self.fullmap = Decode::decode(r)?;
        self.crush = Decode::decode(r)?;
        self.new_max_osd = Some(r.u32()?).filter(|&max| max != u32::MAX);
        self.new_pools = Decode::decode(r)?;
        self.new_pool_names = Decode::decode(r)?;
        self.old_pools = Decode::decode(r)?;
        self.new_up_client = Decode::decode(r)?;
        self.new_state = Decode::decode(r)?;
        self.new_weight = Decode::decode(r)?;
        self.new_pg_temp = Decode::decode(r)?;
        self.new_primary_temp = Decode::decode(r)?;
        self.new_primary_affinity = Decode::decode(r)?;
        self.new_erasure_code_profiles = Decode::decode(r)?;
        self.old_erasure_code_profiles = Decode::decode(r)?;
        self.new_pg_upmap = Decode::decode(r)?;
        self.old_pg_upmap = Decode::decode(r)?;
        self.new_pg_upmap_items = Decode::decode(r)?;
        self.old_pg_upmap_items = Decode::decode(r)?;
        self.new_removed_snaps = Decode::decode(r)?;
        self.new_purged_snaps = Decode::decode(r)?;
        self.new_last_up_change = Decode::decode(r)?;
        self.new_last_in_change = Decode::decode(r)?;
        Ok(())
    }

    fn decode_osd(&mut self, version: u8, r: &mut Reader<'_>) -> Result<(), DecodeError> {
        self.new_hb_back_up = Decode::decode(r)?;
        self.new_up_thru = Decode::decode(r)?;
        self.new_last_clean_interval = Decode::decode(r)?;
        self.new_lost = Decode::decode(r)?;
        self.new_blocklist = Decode::decode(r)?;
        self.old_blocklist = Decode::decode(r)?;
        self.new_up_cluster = Decode::decode(r)?;
        self.cluster_snapshot = Decode::decode(r)?;
        self.new_uuid = Decode::decode(r)?;
        self.new_xinfo = Decode::decode(r)?;
        self.new_hb_front_up = Decode::decode(r)?;
        self.encode_features = r.u64()?;
        self.new_nearfull_ratio = f32::from_bits(r.u32()?);
        self.new_full_ratio = f32::from_bits(r.u32()?);
        self.new_backfillfull_ratio = f32::from_bits(r.u32()?);
        self.new_require_min_compat_client = Decode::decode(r)?;
        self.new_require_osd_release = Decode::decode(r)?;
        self.new_crush_node_flags = Decode::decode(r)?;
        self.new_device_class_flags = Decode::decode(r)?;
        if version >= 10 {
            let changed = bool::decode(r)?;
            let mode = StretchMode {
                bucket_count: r.u32()?,
                degraded: r.u32()?,
                recovering: r.u32()?,
                bucket: r.i32()?,
                enabled: bool::decode(r)?,
            };
            self.new_stretch_mode = changed.then_some(mode);
        }
        if version >= 11 {
            self.new_range_blocklist = Decode::decode(r)?;
            self.old_range_blocklist = Decode::decode(r)?;
        }
        Ok(())
    }
}

impl Encode for Incremental {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        let mut own = Vec::new();
        encode_versioned(&mut own, 8, 7, |out| {
            encode_versioned(out, 8, 1, |out| self.encode_client(out, f));
            let version = self.osd_version();
            encode_versioned(out, version, 1, |out| self.encode_osd(out, version, f));
            out.extend_from_slice(&[0; 4]);
            self.full_crc.encode(out, f);
        });
        let hole = own.len() - 8;
        crc::fill(&mut own, hole);
        out.append(&mut own);
    }
}

impl Decode for Incremental {
    const MIN_SIZE: usize = 6;

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let start = r.peek();
        let (inc, hole) = decode_incremental(r)?;
        crc::check(&start[..start.len() - r.remaining()], hole, "incremental checksum")?;
        Ok(inc)
    }
}

/// Decodes an incremental; returns also where its checksum is.
fn decode_incremental(r: &mut Reader<'_>) -> Result<(Incremental, usize), DecodeError> {
    r.versioned("incremental", 8, |version, r| {
        oldest("incremental", version, 8)?;
        // The envelope's own six bytes are in front of what `r` sees.
        let length = r.remaining() + 6;
        let mut inc = Incremental::default();
        r.versioned("incremental client section", 8, |version, r| {
            oldest("incremental client section", version, 8)?;
            inc.decode_client(r)
        })?;
        r.versioned("incremental osd section", 11, |version, r| {
            oldest("incremental osd section", version, 9)?;
            inc.decode_osd(version, r)
        })?;
        let hole = length - r.remaining();
        r.skip(4, "incremental checksum")?;
        inc.full_crc = r.u32()?;
        Ok((inc, hole))
    })
}
