//! Statistics: the manager's report, and what is answered from it.

use std::collections::BTreeMap;

use spirula_maps::PgMapDigest;
use spirula_wire::msg::Paxos;
use spirula_wire::msg::mgr::MonMgrReport;
use spirula_wire::msg::mon::{GetPoolStats, GetPoolStatsReply, Statfs, StatfsReply};
use spirula_wire::{Decode, DecodeError, Message, RawMessage};
use tracing::debug;

use super::{Service, SessionId};
use crate::Now;
use crate::peer::PeerMessage;

impl Service {
    pub(super) fn mgr_report(
        &mut self,
        now: Now,
        id: SessionId,
        raw: &RawMessage,
    ) -> Result<(), DecodeError> {
        let allowed = self.sessions.get(&id).is_some_and(|s| s.caps.may("mgr", "x"));
        if !allowed {
            debug!(session = id, "statistics of a session that may not report");
            return Ok(());
        }
        self.take_report(now, raw)?;
        // Any monitor may be asked for it, and by a manager that is connected there.
        for peer in self.other_members() {
            self.tell(peer, &PeerMessage::Report(raw.clone()));
        }
        Ok(())
    }

    /// Takes the manager's report, which came here or to the leader.
    pub(super) fn take_report(&mut self, now: Now, raw: &RawMessage) -> Result<(), DecodeError> {
        let report = MonMgrReport::from_raw(raw)?;
        let digest = PgMapDigest::from_bytes(&report.digest)?;
        self.live.digest = digest;
        self.live.digest_version += 1;
        self.live.mgr_checks = report.health_checks;
        self.live.progress = report.progress_events;
        if !report.service_map.is_empty() {
            self.live.service_map = report.service_map;
        }
        self.refresh_health(now);
        Ok(())
    }

    /// Space of the cluster, or of the pool that holds a file system's data.
    pub(super) fn statfs(&mut self, id: SessionId, raw: &RawMessage) -> Result<(), DecodeError> {
        let request = Statfs::from_raw(raw)?;
        let fits = request.fsid == self.state.fsid;
        let may = self.sessions.get(&id).is_some_and(|s| s.caps.may("osd", "r"));
        if !fits || !may {
            debug!(session = id, "statfs refused");
            return Ok(());
        }
        let digest = &self.live.digest;
        let mut reply = StatfsReply {
            fsid: self.state.fsid,
            version: self.live.digest_version,
            ..StatfsReply::default()
        };
        let pool = request
            .data_pool
            .and_then(|p| Some((p, digest.pg_pool_sum.get(&i32::try_from(p).ok()?)?)));
        match pool {
            Some((pool, stat)) => {
                let sum = &stat.stats.sum;
                let rule = self.osdmap().pool(pool).map_or(0, |p| i32::from(p.crush_rule));
                let avail = digest.avail_space_by_rule.get(&rule).map_or(0, |b| (*b).max(0) as u64);
                reply.kb_used = sum.num_bytes.max(0) as u64 >> 10;
                reply.kb_avail = avail >> 10;
                reply.kb = reply.kb_used + reply.kb_avail;
                reply.num_objects = sum.num_objects.max(0) as u64;
            }
            None => {
                let statfs = &digest.osd_sum.statfs;
                reply.kb = statfs.total >> 10;
                reply.kb_used = statfs.used_raw() >> 10;
                reply.kb_avail = statfs.available >> 10;
                reply.num_objects = digest.pg_sum.stats.sum.num_objects.max(0) as u64;
            }
        }
        self.reply(id, raw, &reply);
        Ok(())
    }

    pub(super) fn get_pool_stats(
        &mut self,
        id: SessionId,
        raw: &RawMessage,
    ) -> Result<(), DecodeError> {
        let request = GetPoolStats::from_raw(raw)?;
        let may = self.sessions.get(&id).is_some_and(|s| s.caps.may("pg", "r"));
        if request.fsid != self.state.fsid || !may {
            debug!(session = id, "getpoolstats refused");
            return Ok(());
        }
        let found = request.pools.iter().filter_map(|name| {
            let pool = self.osdmap().pool_by_name(name)?;
            let stat =
                self.live.digest.pg_pool_sum.get(&(pool as i32)).cloned().unwrap_or_default();
            Some((name.clone(), stat))
        });
        let reply = GetPoolStatsReply {
            paxos: Paxos::at(self.live.digest_version),
            fsid: self.state.fsid,
            pool_stats: found.collect::<BTreeMap<_, _>>(),
            per_pool: true,
        };
        self.reply(id, raw, &reply);
        Ok(())
    }
}
