//! OSDs that come, go and say that they live.

use std::collections::BTreeMap;
use std::time::Duration;

use spirula_maps::{Incremental, OsdMap, OsdXInfo, SnapIntervals, WEIGHT_IN, flags, osd_state};
use spirula_wire::msg::Paxos;
use spirula_wire::msg::mon::log_priority;
use spirula_wire::msg::osd::{
    MonGetPurgedSnaps, MonGetPurgedSnapsReply, OsdAlive, OsdBeacon, OsdBoot, OsdMarkMeDead,
    OsdMarkMeDown, OsdPgCreated,
};
use spirula_wire::types::{EntityAddrVec, PgId};
use spirula_wire::{DecodeError, Message, RawMessage};
use tracing::{debug, warn};

use super::failure::is_held;
use super::{F, Handled, Service, SessionId};
use crate::Now;
use crate::kinds::mixed_by_boot;
use crate::prime::prime;
use crate::state::Change;

impl Service {
    /// An OSD wants to be marked up at its addresses.
    pub(super) fn osd_boot(
        &mut self,
        now: Now,
        id: SessionId,
        raw: &RawMessage,
    ) -> Result<Handled, DecodeError> {
        let boot = OsdBoot::from_raw(raw)?;
        let osd = boot.sb.whoami;
        let Some(addrs) = self.addrs_of_osd(id, osd) else {
            return Ok(Handled::Done);
        };
        if let Some(reason) = self.refuse_boot(osd, &boot) {
            warn!(osd, reason, "boot refused");
            return Ok(Handled::Done);
        }
        if let Some(mix) = mixed_by_boot(&self.state, osd, &boot.metadata) {
            let text = format!("boot of osd.{osd} at {addrs} refused: {mix}");
            self.clog(now, log_priority::ERROR, "cluster", text);
            return Ok(Handled::Done);
        }
        self.live.osd_seen.insert(osd, now.mono);
        let map = self.osdmap();
        if map.is_up(osd) {
            let known = map
                .osd(osd)
                .is_some_and(|o| o.client_addrs == addrs && o.cluster_addrs == boot.cluster_addrs);
            if known {
                let from = boot.sb.current_epoch + 1;
                self.send_osdmaps_unless_subscribed(id, from);
                return Ok(Handled::Done);
            }
            // A new process: its predecessor goes down first, so that the interval ends.
            let mut inc = self.state.osd.next(now);
            self.mark_down(now, &mut inc, osd);
            self.info(
                now,
                format!("osd.{osd} restarted at {addrs}; its former process is marked down"),
            );
            return Ok(self
                .sealed(inc, Vec::new())
                .map_or(Handled::Done, Handled::ProposeAndRetry));
        }
        let inc = self.boot_incremental(now, osd, &boot, &addrs);
        self.info(now, format!("osd.{osd} {addrs} boot"));
        let metadata = Change::Metadata { daemon: format!("osd.{osd}"), values: boot.metadata };
        Ok(match self.sealed(inc, vec![metadata]) {
            Some(changes) => Handled::Propose(changes, Vec::new()),
            None => Handled::Done,
        })
    }

    fn refuse_boot(&self, osd: i32, boot: &OsdBoot) -> Option<&'static str> {
        let map = self.osdmap();
        let known = map.osd(osd).filter(|o| o.exists());
        if boot.sb.cluster_fsid != self.state.fsid {
            return Some("it belongs to another cluster");
        }
        if osd < 0 || i64::from(osd) >= self.settings.int("mon_max_osd") {
            return Some("its id is not below mon_max_osd");
        }
        if known.is_some_and(|o| !o.uuid.is_zero() && o.uuid != boot.sb.osd_fsid) {
            return Some("the map knows another uuid for this id");
        }
        if is_held(map, osd, flags::NOUP, osd_state::NOUP) {
            return Some("noup is set");
        }
        None
    }

    fn boot_incremental(
        &self,
        now: Now,
        osd: i32,
        boot: &OsdBoot,
        addrs: &EntityAddrVec,
    ) -> Incremental {
        let map = self.osdmap();
        let mut inc = self.state.osd.next(now);
        if osd >= map.max_osd() {
            inc.new_max_osd = u32::try_from(osd + 1).ok();
        }
        inc.new_up_client.insert(osd, addrs.clone());
        inc.new_up_cluster.insert(osd, boot.cluster_addrs.clone());
        inc.new_hb_back_up.insert(osd, boot.hb_back_addrs.clone());
        inc.new_hb_front_up.insert(osd, boot.hb_front_addrs.clone());
        let known = map.osd(osd).filter(|o| o.exists()).cloned().unwrap_or_default();
        if known.uuid != boot.sb.osd_fsid {
            inc.new_uuid.insert(osd, boot.sb.osd_fsid);
        }
        let last = (known.info.last_clean_begin, known.info.last_clean_end);
        let clean = (boot.sb.mounted, boot.sb.clean_thru);
        if clean > last {
            inc.new_last_clean_interval.insert(osd, clean);
        }
        let mut xinfo = known.xinfo;
        xinfo.features = boot.osd_features;
        self.judge_lagginess(now, &mut xinfo, boot);
        let new = !known.exists() || known.state & osd_state::NEW != 0;
        let auto_out = known.state & osd_state::AUTOOUT != 0;
        let mark_in = new && self.settings.bool("mon_osd_auto_mark_new_in")
            || auto_out && self.settings.bool("mon_osd_auto_mark_auto_out_in")
            || self.settings.bool("mon_osd_auto_mark_in");
        if mark_in && !is_held(self.osdmap(), osd, flags::NOIN, osd_state::NOIN) {
            let weight = if xinfo.old_weight > 0 { xinfo.old_weight } else { WEIGHT_IN };
            xinfo.old_weight = 0;
            inc.new_weight.insert(osd, weight);
        }
        inc.new_xinfo.insert(osd, xinfo);
        if known.state & osd_state::STOP != 0 {
            *inc.new_state.entry(osd).or_insert(0) |= osd_state::STOP;
        }
        inc
    }

    /// A process that was called dead and comes back was only slow: it gets more time in future. One
    /// that starts afresh is less and less thought to be slow.
    fn judge_lagginess(&self, now: Now, xinfo: &mut OsdXInfo, boot: &OsdBoot) {
        let weight = self.settings.float("mon_osd_laggy_weight");
        let keep = |value: u32| f64::from(value) * (1.0 - weight);
        if boot.boot_epoch == 0 {
            xinfo.laggy_probability = keep(xinfo.laggy_probability) as u32;
            xinfo.laggy_interval = keep(xinfo.laggy_interval) as u32;
            return;
        }
        let down = Duration::from(xinfo.down_stamp);
        if !down.is_zero() {
            let max = u64::try_from(self.settings.int("mon_osd_laggy_max_interval")).unwrap_or(0);
            let gone = now.wall.as_secs().saturating_sub(down.as_secs());
            let gone = if max > 0 { gone.min(max) } else { gone };
            let interval = gone as f64 * weight + keep(xinfo.laggy_interval);
            xinfo.laggy_interval = interval as u32;
        }
        let probability = f64::from(u32::MAX) * weight + keep(xinfo.laggy_probability);
        xinfo.laggy_probability = probability as u32;
    }

    /// Marks an OSD that is up as down in `inc`.
    pub(super) fn mark_down(&self, now: Now, inc: &mut Incremental, osd: i32) {
        *inc.new_state.entry(osd).or_insert(0) |= osd_state::UP;
        if let Some(known) = self.osdmap().osd(osd) {
            let mut xinfo = known.xinfo;
            xinfo.down_stamp = now.wall.into();
            inc.new_xinfo.insert(osd, xinfo);
        }
    }

    /// `changes` with the finished incremental; `None` (and a log line) if it does not apply.
    pub(super) fn sealed(
        &self,
        mut inc: Incremental,
        mut changes: Vec<Change>,
    ) -> Option<Vec<Change>> {
        prime(self.osdmap(), &self.settings, &mut inc);
        match self.state.osd.seal(inc) {
            Ok(change) => {
                changes.insert(0, change);
                Some(changes)
            }
            Err(e) => {
                warn!(error = %e, "an OSD map change does not apply");
                None
            }
        }
    }

    /// An OSD asks for a later `up_thru` before it serves writes in a new interval.
    pub(super) fn osd_alive(
        &mut self,
        now: Now,
        id: SessionId,
        raw: &RawMessage,
    ) -> Result<Handled, DecodeError> {
        let request = OsdAlive::from_raw(raw)?;
        let Some(osd) = self.up_osd_session(id) else {
            return Ok(Handled::Done);
        };
        self.live.osd_seen.insert(osd, now.mono);
        let Some(known) = self.osdmap().osd(osd) else {
            return Ok(Handled::Done);
        };
        if known.info.up_thru >= request.want {
            self.send_osdmaps_unless_subscribed(
                id,
                u32::try_from(request.paxos.version + 1).unwrap_or(0),
            );
            return Ok(Handled::Done);
        }
        let mut inc = self.state.osd.next(now);
        // Grant what the OSD could know of at most.
        let has = u32::try_from(request.paxos.version).unwrap_or(0);
        let epoch = self.osdmap().epoch;
        inc.new_up_thru.insert(osd, request.want.max(has).min(epoch));
        Ok(self.sealed(inc, Vec::new()).map_or(Handled::Done, |c| Handled::Propose(c, Vec::new())))
    }

    pub(super) fn osd_beacon(
        &mut self,
        now: Now,
        id: SessionId,
        raw: &RawMessage,
    ) -> Result<(), DecodeError> {
        let beacon = OsdBeacon::from_raw(raw)?;
        let Some(osd) = self.osd_session(id) else {
            return Ok(());
        };
        self.live.osd_seen.insert(osd, now.mono);
        if self.up_osd_session(id).is_some() {
            self.note_clean(osd, &beacon);
        }
        if !self.osdmap().is_up(osd) {
            // It does not know that it is down: the map tells it.
            self.send_osdmaps_unless_subscribed(id, self.state.osd.epoch());
        }
        Ok(())
    }

    /// An OSD that missed maps asks, before it boots, which snapshots were purged in them. The answer
    /// ends with the newest such epoch, and the OSD asks on until there is none.
    pub(super) fn get_purged_snaps(
        &mut self,
        id: SessionId,
        raw: &RawMessage,
    ) -> Result<(), DecodeError> {
        let MonGetPurgedSnaps { start, last, .. } = MonGetPurgedSnaps::from_raw(raw)?;
        if self.osd_session(id).is_none() {
            return Ok(());
        }
        let purged = self.state.purged_in(start..=last);
        let last = purged.keys().next_back().copied().unwrap_or(last);
        let intervals = |snaps: SnapIntervals| snaps.iter().collect();
        let of_pools = |pools: BTreeMap<i64, SnapIntervals>| {
            pools.into_iter().map(|(pool, snaps)| (pool, intervals(snaps))).collect()
        };
        let purged_snaps = purged.into_iter().map(|(epoch, pools)| (epoch, of_pools(pools)));
        let purged_snaps = purged_snaps.collect();
        let paxos = Paxos::default();
        self.reply(id, raw, &MonGetPurgedSnapsReply { paxos, start, last, purged_snaps });
        Ok(())
    }

    /// An OSD that stops says so, and waits for the answer.
    pub(super) fn osd_mark_me_down(
        &mut self,
        now: Now,
        id: SessionId,
        raw: &RawMessage,
    ) -> Result<Handled, DecodeError> {
        let request = OsdMarkMeDown::from_raw(raw)?;
        let osd = request.target_osd;
        let allowed = self.osd_session(id) == Some(osd) && request.fsid == self.state.fsid;
        if !allowed {
            debug!(osd, "mark-me-down refused");
            return Ok(Handled::Done);
        }
        let ack = OsdMarkMeDown { request_ack: false, ..request.clone() }.to_raw(raw.header.tid, F);
        let replies: Vec<_> = request.request_ack.then_some((id, ack)).into_iter().collect();
        let same = self
            .osdmap()
            .osd(osd)
            .is_some_and(|o| o.is_up() && o.client_addrs == request.target_addrs);
        let nodown = is_held(self.osdmap(), osd, flags::NODOWN, osd_state::NODOWN);
        if !same || nodown {
            for (id, raw) in replies {
                self.send(id, raw);
            }
            return Ok(Handled::Done);
        }
        let mut inc = self.state.osd.next(now);
        if request.down_and_dead {
            // It waits for nobody's lease: it is not slow, and serves nothing any more.
            *inc.new_state.entry(osd).or_insert(0) |= osd_state::UP;
            set_dead(&mut inc, self.osdmap(), osd, request.epoch);
            self.info(now, format!("osd.{osd} marked itself down and dead"));
        } else {
            self.mark_down(now, &mut inc, osd);
            self.info(now, format!("osd.{osd} marked itself down"));
        }
        Ok(self.sealed(inc, Vec::new()).map_or(Handled::Done, |c| Handled::Propose(c, replies)))
    }

    /// An OSD that the map has down says that it serves nothing of before this epoch.
    pub(super) fn osd_mark_me_dead(
        &mut self,
        now: Now,
        id: SessionId,
        raw: &RawMessage,
    ) -> Result<Handled, DecodeError> {
        let request = OsdMarkMeDead::from_raw(raw)?;
        let (osd, epoch) = (request.target_osd, request.epoch);
        let is_down = self.osdmap().exists(osd) && !self.osdmap().is_up(osd);
        let allowed = self.osd_session(id) == Some(osd) && request.fsid == self.state.fsid;
        if !allowed || !is_down || epoch > self.osdmap().epoch {
            debug!(osd, "mark-me-dead refused");
            return Ok(Handled::Done);
        }
        let mut inc = self.state.osd.next(now);
        set_dead(&mut inc, self.osdmap(), osd, epoch);
        self.info(now, format!("osd.{osd} marked itself dead as of e{epoch}"));
        Ok(self.sealed(inc, Vec::new()).map_or(Handled::Done, |c| Handled::Propose(c, Vec::new())))
    }

    /// A PG is active for the first time: once all of a pool are, the pool is no longer "creating".
    pub(super) fn pg_created(
        &mut self,
        now: Now,
        id: SessionId,
        raw: &RawMessage,
    ) -> Result<Handled, DecodeError> {
        let pg = OsdPgCreated::from_raw(raw)?.pgid;
        let PgId { pool: pool_id, seed } = pg;
        if self.state.creating.contains_key(&pg) && self.up_osd_session(id).is_some() {
            let done = Change::CreatePg { pg, how: None };
            return Ok(Handled::Propose(vec![done], Vec::new()));
        }
        let creating = |p: &&spirula_maps::PgPool| p.has_flag(spirula_maps::pool_flags::CREATING);
        let Some(pool) = self.osdmap().pool(pool_id).filter(creating).cloned() else {
            return Ok(Handled::Done);
        };
        if self.osd_session(id).is_none() {
            return Ok(Handled::Done);
        }
        let created = self.live.created.entry(pool_id).or_default();
        created.insert(seed);
        if (0..pool.pg_num).any(|seed| !created.contains(&seed)) {
            return Ok(Handled::Done);
        }
        let mut pool = pool;
        self.live.created.remove(&pool_id);
        pool.flags &= !spirula_maps::pool_flags::CREATING;
        let mut inc = self.state.osd.next(now);
        inc.new_pools.insert(pool_id, pool);
        Ok(self.sealed(inc, Vec::new()).map_or(Handled::Done, |c| Handled::Propose(c, Vec::new())))
    }

    /// The OSD of a session that may act as one.
    pub(super) fn osd_session(&self, id: SessionId) -> Option<i32> {
        let session = self.sessions.get(&id)?;
        session.osd().filter(|_| session.caps.may("osd", "x"))
    }

    /// The OSD of a session that is the very process that the map has up.
    pub(super) fn up_osd_session(&self, id: SessionId) -> Option<i32> {
        let osd = self.osd_session(id)?;
        let addrs = &self.sessions.get(&id)?.peer.addrs;
        let known = self.osdmap().osd(osd)?;
        (known.is_up() && known.client_addrs == *addrs).then_some(osd)
    }

    fn addrs_of_osd(&self, id: SessionId, osd: i32) -> Option<EntityAddrVec> {
        let session = self.sessions.get(&id)?;
        if self.osd_session(id) != Some(osd) {
            warn!(osd, from = %session.name(), "boot of an OSD by another entity refused");
            return None;
        }
        Some(session.peer.addrs.clone())
    }

    /// Sends maps from `from` on to a session that does not get them anyway.
    pub(super) fn send_osdmaps_unless_subscribed(&mut self, id: SessionId, from: u32) {
        let subscribed = self.sessions.get(&id).is_some_and(|s| s.subs.contains_key("osdmap"));
        if !subscribed {
            self.send_osdmaps(id, from.max(1));
        }
    }
}

/// Notes that an OSD's process of before `epoch` serves nothing any more.
fn set_dead(inc: &mut Incremental, map: &OsdMap, osd: i32, epoch: u32) {
    if let Some(known) = map.osd(osd) {
        inc.new_xinfo.entry(osd).or_insert(known.xinfo).dead_epoch = epoch;
    }
}
