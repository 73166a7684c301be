//! Which OSD maps nobody needs any more: those from before the last epoch at which every PG was clean.
//! A copy that was away since then is brought up to date without knowing what happened before.

use spirula_maps::OsdMap;
use spirula_wire::msg::osd::OsdBeacon;
use spirula_wire::types::PgId;

use super::Service;
use crate::state::Change;

pub(super) fn is_there(map: &OsdMap, pg: PgId) -> bool {
    map.pool(pg.pool).is_some_and(|pool| pg.seed < pool.pg_num)
}

impl Service {
    /// What an OSD that is up says of its PGs.
    pub(super) fn note_clean(&mut self, osd: i32, beacon: &OsdBeacon) {
        let map = self.state.osd.shared();
        let has = u32::try_from(beacon.paxos.version).unwrap_or(u32::MAX);
        self.live.osd_epochs.insert(osd, has);
        for pg in beacon.pgs.iter().filter(|pg| is_there(&map, **pg)) {
            let known = self.live.last_clean.entry(*pg).or_default();
            *known = beacon.min_last_epoch_clean.max(*known);
        }
    }

    /// The change that forgets old maps, once it would forget some.
    pub(super) fn old_osdmaps(&self) -> Option<Change> {
        let first = self.oldest_needed_osdmap()?;
        let osd = &self.state.osd;
        (osd.oldest_from(first) > osd.oldest()).then_some(Change::TrimOsdMaps(first))
    }

    fn oldest_needed_osdmap(&self) -> Option<u32> {
        if self.settings.bool("mon_debug_block_osdmap_trim") {
            return None;
        }
        let kept = self.settings.int("mon_min_osdmap_epochs").clamp(1, u32::MAX.into()) as u32;
        let newest = self.osdmap().epoch;
        let bound = newest.checked_sub(kept).filter(|bound| *bound > self.state.osd.oldest())?;
        let forced = self.settings.int("mon_osd_force_trim_to");
        if forced > 0 {
            return Some(bound.min(u32::try_from(forced).unwrap_or(bound)));
        }
        Some(bound.min(self.oldest_clean()?))
    }

    /// The oldest of the epochs at which PGs were clean last, and of those that OSDs have; `None` until
    /// all PGs are known.
    fn oldest_clean(&self) -> Option<u32> {
        let map = self.osdmap();
        let pgs: usize = map.pools.values().map(|pool| pool.pg_num as usize).sum();
        if self.live.last_clean.len() < pgs {
            return None;
        }
        let clean = self.live.last_clean.values();
        clean.chain(self.live.osd_epochs.values()).copied().min().or(Some(map.epoch))
    }
}
