//! One step of the map's history: applying an incremental.
//!
//! Invariant: order and side effects of the changes are Ceph's, so that mon, OSDs and clients that
//! apply the same incrementals hold the same bytes (`full_crc` says so).

use std::sync::Arc;

use spirula_crush::CrushMap;
use spirula_wire::{Decode, DecodeError};

use crate::osdmap::{
    AFFINITY_DEFAULT, Incremental, OSDS_MAX, Osd, OsdMap, StretchMode, flags, osd_state,
};
use crate::release::Release;

/// Why an incremental does not lead on from a map. Whoever sent it is at fault, but for
/// [`ApplyError::Epoch`], where one in between is missing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error("incremental of another cluster")]
    OtherCluster,
    #[error("incremental leads to epoch {to}, the map is at {from}")]
    Epoch { from: u32, to: u32 },
    #[error("incremental names osd.{osd}, beyond the map's {max}")]
    NoSuchOsd { osd: i32, max: i32 },
    #[error("incremental wants {max} OSDs, more than {OSDS_MAX}")]
    TooManyOsds { max: u32 },
    #[error("map inside the incremental: {0}")]
    Decode(#[from] DecodeError),
}

impl OsdMap {
    /// Moves the map to the next epoch. After an error the map is as it was.
    pub fn apply(&mut self, inc: &Incremental) -> Result<(), ApplyError> {
        if inc.epoch != 1 && inc.fsid != self.fsid {
            return Err(ApplyError::OtherCluster);
        }
        if self.epoch.checked_add(1) != Some(inc.epoch) {
            return Err(ApplyError::Epoch { from: self.epoch, to: inc.epoch });
        }
        if !inc.fullmap.is_empty() {
            *self = Self::from_bytes(&inc.fullmap)?;
            return Ok(());
        }
        let max = match inc.new_max_osd {
            Some(max) if max as usize > OSDS_MAX => return Err(ApplyError::TooManyOsds { max }),
            Some(max) => max as usize,
            None => self.osds.len(),
        };
        inc.check_osds(max)?;
        let crush = match &inc.crush {
            crush if crush.is_empty() => None,
            crush => Some(CrushMap::from_bytes(crush)?),
        };

        self.fsid = inc.fsid;
        self.epoch = inc.epoch;
        self.modified = inc.modified;
        self.crc = None;
        if let Some(flags) = inc.new_flags {
            self.flags = flags;
        }
        self.set_max_osd(max);
        self.apply_pools(inc);
        self.apply_snaps(inc);
        self.apply_osds(inc);
        self.apply_mappings(inc);
        self.apply_rest(inc);
        if let Some(crush) = crush {
            self.crush = Arc::new(crush);
            self.crush_version = self.crush_version.wrapping_add(1);
            let classes = &self.crush.class_names;
            self.device_class_flags.retain(|class, _| classes.contains_key(class));
        }
        Ok(())
    }

    fn apply_pools(&mut self, inc: &Incremental) {
        if let Some(max) = inc.new_pool_max {
            self.pool_max = max as i32;
        }
        for (&id, pool) in &inc.new_pools {
            let mut pool = pool.clone();
            pool.last_change = inc.epoch;
            self.pools.insert(id, pool);
        }
        self.pool_names.extend(inc.new_pool_names.clone());
        for pool in &inc.old_pools {
            self.pools.remove(pool);
            self.pool_names.remove(pool);
        }
        for name in &inc.old_erasure_code_profiles {
            self.erasure_code_profiles.remove(name);
        }
        self.erasure_code_profiles.extend(inc.new_erasure_code_profiles.clone());
    }

    fn apply_snaps(&mut self, inc: &Incremental) {
        self.new_removed_snaps = inc.new_removed_snaps.clone();
        self.new_purged_snaps = inc.new_purged_snaps.clone();
        for (&pool, snaps) in &inc.new_removed_snaps {
            self.removed_snaps_queue.entry(pool).or_default().union(snaps);
        }
        for (pool, snaps) in &inc.new_purged_snaps {
            if let Some(queue) = self.removed_snaps_queue.get_mut(pool) {
                queue.subtract(snaps);
                if queue.is_empty() {
                    self.removed_snaps_queue.remove(pool);
                }
            }
        }
    }

    /// Weights, then state flips, then what comes up: an OSD may go down and up in one epoch.
    fn apply_osds(&mut self, inc: &Incremental) {
        for (&id, &weight) in &inc.new_weight {
            let Some(osd) = self.osd_mut(id) else {
                continue;
            };
            osd.weight = weight;
            if weight != 0 {
                osd.state |= osd_state::EXISTS;
                osd.state &= !(osd_state::AUTOOUT | osd_state::NEW);
                osd.xinfo.old_weight = 0;
            }
        }
        for (&id, &affinity) in &inc.new_primary_affinity {
            self.set_affinity(id, affinity);
        }
        for (&id, &bits) in &inc.new_state {
            self.flip_state(id, if bits == 0 { osd_state::UP } else { bits });
        }
        for (&id, addrs) in &inc.new_up_client {
            let epoch = self.epoch;
            let Some(osd) = self.osd_mut(id) else {
                continue;
            };
            osd.state |= osd_state::EXISTS | osd_state::UP;
            osd.state &= !osd_state::STOP;
            osd.client_addrs = addrs.clone();
            osd.hb_back_addrs = inc.new_hb_back_up.get(&id).cloned().unwrap_or_default();
            osd.hb_front_addrs = inc.new_hb_front_up.get(&id).cloned().unwrap_or_default();
            osd.info.up_from = epoch;
        }
        let mut set = |id: i32, change: &dyn Fn(&mut Osd)| {
            if let Some(osd) = self.osd_mut(id) {
                change(osd);
            }
        };
        for (&id, addrs) in &inc.new_up_cluster {
            set(id, &|osd| osd.cluster_addrs = addrs.clone());
        }
        for (&id, &epoch) in &inc.new_up_thru {
            set(id, &|osd| osd.info.up_thru = epoch);
        }
        for (&id, &(begin, end)) in &inc.new_last_clean_interval {
            set(id, &|osd| (osd.info.last_clean_begin, osd.info.last_clean_end) = (begin, end));
        }
        for (&id, &epoch) in &inc.new_lost {
            set(id, &|osd| osd.info.lost_at = epoch);
        }
        for (&id, &xinfo) in &inc.new_xinfo {
            set(id, &|osd| osd.xinfo = xinfo);
        }
        for (&id, &uuid) in &inc.new_uuid {
            set(id, &|osd| osd.uuid = uuid);
        }
    }

    fn flip_state(&mut self, id: i32, bits: u32) {
        let (epoch, modified) = (self.epoch, self.modified);
        let Some(osd) = self.osd_mut(id) else { return };
        let both = osd.state & bits;
        if both & osd_state::UP != 0 {
            osd.info.down_at = epoch;
            osd.xinfo.down_stamp = modified;
        }
        if both & osd_state::EXISTS == 0 {
            osd.state ^= bits;
            return;
        }
        // It ceases to exist; only its weight stays.
        *osd = Osd { weight: osd.weight, ..Osd::default() };
        self.set_affinity(id, AFFINITY_DEFAULT);
    }

    /// The first affinity that is set gives every OSD one.
    fn set_affinity(&mut self, id: i32, affinity: u32) {
        if self.primary_affinity.is_empty() {
            self.primary_affinity = vec![AFFINITY_DEFAULT; self.osds.len()];
        }
        let at = usize::try_from(id).ok();
        if let Some(entry) = at.and_then(|at| self.primary_affinity.get_mut(at)) {
            *entry = affinity;
        }
    }

    fn apply_mappings(&mut self, inc: &Incremental) {
        for (&pg, osds) in &inc.new_pg_temp {
            if osds.is_empty() {
                self.pg_temp.remove(&pg);
            } else {
                self.pg_temp.insert(pg, osds.clone());
            }
        }
        for (&pg, &osd) in &inc.new_primary_temp {
            if osd == -1 {
                self.primary_temp.remove(&pg);
            } else {
                self.primary_temp.insert(pg, osd);
            }
        }
        self.pg_upmap.extend(inc.new_pg_upmap.clone());
        self.pg_upmap.retain(|pg, _| !inc.old_pg_upmap.contains(pg));
        self.pg_upmap_items.extend(inc.new_pg_upmap_items.clone());
        self.pg_upmap_items.retain(|pg, _| !inc.old_pg_upmap_items.contains(pg));
    }

    fn apply_rest(&mut self, inc: &Incremental) {
        let changed = |time: spirula_wire::types::UTime| (time.sec, time.nsec) != (0, 0);
        if changed(inc.new_last_up_change) {
            self.last_up_change = inc.new_last_up_change;
        }
        if changed(inc.new_last_in_change) {
            self.last_in_change = inc.new_last_in_change;
        }
        for (&addr, &until) in &inc.new_blocklist {
            self.blocklist.entry(addr).or_insert(until);
        }
        for addr in &inc.old_blocklist {
            self.blocklist.remove(addr);
        }
        for (&range, &until) in &inc.new_range_blocklist {
            self.range_blocklist.entry(range).or_insert(until);
        }
        for range in &inc.old_range_blocklist {
            self.range_blocklist.remove(range);
        }
        let updates = [
            (&mut self.crush_node_flags, &inc.new_crush_node_flags),
            (&mut self.device_class_flags, &inc.new_device_class_flags),
        ];
        for (current, new) in updates {
            current.extend(new);
            current.retain(|_, flags| *flags != 0);
        }
        self.cluster_snapshot.clone_from(&inc.cluster_snapshot);
        self.cluster_snapshot_epoch = if inc.cluster_snapshot.is_empty() { 0 } else { inc.epoch };
        let ratios = [
            (&mut self.nearfull_ratio, inc.new_nearfull_ratio),
            (&mut self.full_ratio, inc.new_full_ratio),
            (&mut self.backfillfull_ratio, inc.new_backfillfull_ratio),
        ];
        for (current, new) in ratios.into_iter().filter(|(_, new)| *new >= 0.0) {
            *current = new;
        }
        if inc.new_require_min_compat_client != Release::UNCHANGED {
            self.require_min_compat_client = inc.new_require_min_compat_client;
        }
        if inc.new_require_osd_release != Release::UNCHANGED {
            self.require_osd_release = inc.new_require_osd_release;
            if self.require_osd_release >= Release::LUMINOUS {
                self.flags &=
                    !(flags::REQUIRE_JEWEL | flags::REQUIRE_KRAKEN | flags::REQUIRE_LUMINOUS);
                self.flags |= flags::RECOVERY_DELETES;
            }
        }
        if let Some(mode) = inc.new_stretch_mode {
            self.stretch_mode = if mode.enabled { mode } else { StretchMode::default() };
        }
    }
}

impl Incremental {
    /// Whether every OSD that is named is below `max`.
    fn check_osds(&self, max: usize) -> Result<(), ApplyError> {
        let named = [
            self.new_up_client.keys().min(),
            self.new_up_client.keys().max(),
            self.new_state.keys().max(),
            self.new_weight.keys().max(),
            self.new_primary_affinity.keys().max(),
            self.new_up_cluster.keys().max(),
            self.new_up_thru.keys().max(),
            self.new_last_clean_interval.keys().max(),
            self.new_lost.keys().max(),
            self.new_xinfo.keys().max(),
            self.new_uuid.keys().max(),
        ];
        let beyond = |osd: &&i32| usize::try_from(**osd).map_or(true, |osd| osd >= max);
        match named.into_iter().flatten().find(beyond) {
            Some(&osd) => Err(ApplyError::NoSuchOsd { osd, max: max as i32 }),
            None => Ok(()),
        }
    }
}
