//! PGs that are not there although their pool is old: primaries are told to make them until they have.
//!
//! The message is Ceph's `pg_create2`. Who may have the PG after all goes along as past intervals, one for
//! each OSD: peering asks them, waits for those that are down, and takes what it finds.

use std::collections::BTreeMap;
use std::time::Duration;

use spirula_maps::{OsdMap, pool_flags};
use spirula_wire::denc::Opaque;
use spirula_wire::msg::osd::OsdPgCreate2;
use spirula_wire::types::{
    CompactInterval, PastIntervals, PgHistory, PgId, PgShard, ShardId, SpgId, UTime,
};
use spirula_wire::{Decode as _, Encode as _, Message as _};

use super::{F, Service};
use crate::Now;
use crate::kinds::is_ceph;
use crate::state::Creating;

/// Between two messages about the same PGs.
const EVERY: Duration = Duration::from_secs(5);
/// PGs in one round: with those of all OSDs a message is some megabytes at most.
const PGS_MAX: usize = 200;

impl Service {
    /// Tells primaries what is still to be made.
    pub(super) fn tell_creating(&mut self, now: Now) {
        let due = now.mono.saturating_sub(self.live.told_creating) >= EVERY;
        if !due {
            return;
        }
        self.live.told_creating = now.mono;
        let mut told = messages(self.state.osd.map(), &self.state.creating, now);
        self.add_new_pools(now, &mut told);
        for (osd, message) in told {
            let mut sessions = self.sessions.keys().copied();
            if let Some(id) = sessions.find(|id| self.up_osd_session(*id) == Some(osd)) {
                self.send(id, message.to_raw(0, F));
            }
        }
    }
}

impl Service {
    /// Ceph's OSDs make PGs of new pools when they are told to; Spirula's see in the map that a pool is new.
    fn add_new_pools(&self, now: Now, told: &mut BTreeMap<i32, OsdPgCreate2>) {
        let map = self.state.osd.map();
        let new = map.pools.iter().filter(|(_, pool)| pool.has_flag(pool_flags::CREATING));
        for (&id, pool) in new {
            let made = self.live.created.get(&id);
            let missing = (0..pool.pg_num).filter(|seed| made.is_none_or(|m| !m.contains(seed)));
            for pgid in missing.map(|seed| PgId::new(id, seed)).take(PGS_MAX) {
                let primary = map.pg_to_up_acting(pgid).acting_primary;
                let up_from = map.osd(primary).map_or(u32::MAX, |osd| osd.info.up_from);
                // One that came later has not got the map in which the PG begins.
                if up_from > pool.last_change || !is_ceph(&self.state, primary) {
                    continue;
                }
                let message = told.entry(primary).or_default();
                message.epoch = map.epoch;
                let pg = SpgId { pgid, shard: ShardId::NONE };
                message.pgs.insert(pg, (pool.last_change, UTime::from(now.wall)));
            }
        }
    }
}

/// By primary.
fn messages(
    map: &OsdMap,
    creating: &BTreeMap<PgId, Creating>,
    now: Now,
) -> BTreeMap<i32, OsdPgCreate2> {
    let mut messages: BTreeMap<i32, OsdPgCreate2> = BTreeMap::new();
    for (&pgid, how) in creating.iter().take(PGS_MAX) {
        let primary = map.pg_to_up_acting(pgid).acting_primary;
        if primary < 0 {
            continue;
        }
        let pg = SpgId { pgid, shard: ShardId::NONE };
        let message = messages.entry(primary).or_default();
        message.epoch = map.epoch;
        message.pgs.insert(pg, (map.epoch, UTime::from(now.wall)));
        let past = everybody(map, primary).to_bytes(F);
        if let (Creating::Unless, Ok(past)) = (how, Opaque::from_bytes(&past)) {
            let history = PgHistory { epoch_created: map.epoch, ..PgHistory::default() };
            message.pg_extra.insert(pg, (history, past));
        }
    }
    messages
}

/// Any other OSD that exists may have had the PG, alone.
fn everybody(map: &OsdMap, primary: i32) -> PastIntervals {
    let (first, last) = (1, map.epoch.saturating_sub(1));
    let others = map.existing_osds().map(|(osd, _)| osd).filter(|osd| *osd != primary);
    let members = others.map(|osd| PgShard { osd, shard: ShardId::NONE });
    let interval = |member| CompactInterval { first, last, acting: [member].into() };
    let intervals: Vec<CompactInterval> = members.map(interval).collect();
    let all_participants = intervals.iter().flat_map(|i| i.acting.iter().copied()).collect();
    PastIntervals { first, last, all_participants, intervals }
}
