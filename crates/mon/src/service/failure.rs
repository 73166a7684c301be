//! Noticing that an OSD is gone: reports of its peers, silence, and a lost session.
//!
//! Ceph's monitor relies on peers and beacons. Here a lost session counts too, because clusters
//! with one OSD, or one process for all of them, have no peer that could report.

use std::time::Duration;

use spirula_maps::{Incremental, flags, osd_state};
use spirula_wire::msg::osd::OsdFailure;
use spirula_wire::types::{EntityAddr, UTime};
use spirula_wire::{DecodeError, Message, RawMessage};
use tracing::debug;

use super::{Handled, Service, SessionId};
use crate::Now;
use crate::live::FailureReport;

impl Service {
    pub(super) fn osd_failure(
        &mut self,
        now: Now,
        id: SessionId,
        raw: &RawMessage,
    ) -> Result<Handled, DecodeError> {
        let report = OsdFailure::from_raw(raw)?;
        let target = report.target_osd;
        let Some(reporter) = self.osd_session(id).filter(|_| report.fsid == self.state.fsid) else {
            return Ok(Handled::Done);
        };
        let addrs_fit = self
            .osdmap()
            .osd(target)
            .is_some_and(|o| o.is_up() && o.client_addrs == report.target_addrs);
        if !addrs_fit {
            debug!(target, reporter, "report about a process that is not up");
            return Ok(Handled::Done);
        }
        if report.flags & OsdFailure::FAILED == 0 {
            if let Some(reports) = self.live.failures.get_mut(&target) {
                reports.remove(&reporter);
            }
            return Ok(Handled::Done);
        }
        let since = now
            .mono
            .saturating_sub(std::time::Duration::from_secs(report.failed_for.max(0) as u64));
        let immediate = report.flags & OsdFailure::IMMEDIATE != 0;
        let entry = FailureReport { since, immediate };
        self.live.failures.entry(target).or_default().insert(reporter, entry);
        if !self.is_failed(now, target) {
            return Ok(Handled::Done);
        }
        let mut inc = self.state.osd.next(now);
        self.fail(
            now,
            &mut inc,
            target,
            format!("osd.{target} failed (reported by osd.{reporter})"),
        );
        if inc.is_empty() {
            return Ok(Handled::Done);
        }
        Ok(self.sealed(inc, Vec::new()).map_or(Handled::Done, |c| Handled::Propose(c, Vec::new())))
    }

    /// Marks silent OSDs down in `inc`.
    pub(super) fn silent_osds(&mut self, now: Now, inc: &mut Incremental) {
        let timeout = self.settings.secs("mon_osd_report_timeout");
        let grace = self.settings.secs("osd_heartbeat_grace");
        let up: Vec<i32> =
            self.osdmap().existing_osds().filter(|(_, o)| o.is_up()).map(|(osd, _)| osd).collect();
        for osd in up {
            let seen = self.live.osd_seen.get(&osd).copied().unwrap_or(self.live.started.mono);
            let gone = self.live.osd_gone.get(&osd).copied();
            if now.mono.saturating_sub(seen) > timeout {
                let silent = (now.mono - seen).as_secs();
                self.fail(
                    now,
                    inc,
                    osd,
                    format!("osd.{osd} marked down after no beacon for {silent} seconds"),
                );
            } else if let Some(since) = gone.filter(|since| now.mono.saturating_sub(*since) > grace)
            {
                let lost = (now.mono - since).as_secs();
                self.fail(
                    now,
                    inc,
                    osd,
                    format!("osd.{osd} marked down: its session was lost {lost} seconds ago"),
                );
            } else if self.is_failed(now, osd) {
                self.fail(now, inc, osd, format!("osd.{osd} failed (reported by its peers)"));
            }
        }
    }

    /// Forgets what no longer matters after the map changed.
    pub(super) fn note_osds(&mut self, now: Now) {
        let map = self.state.osd.shared();
        self.live.failures.retain(|osd, _| map.is_up(*osd));
        self.live.osd_gone.retain(|osd, _| map.is_up(*osd));
        for (osd, _) in map.existing_osds().filter(|(_, o)| o.is_up()) {
            self.live.osd_seen.entry(osd).or_insert(now.mono);
            let connected = self.sessions.values().any(|s| s.osd() == Some(osd));
            if !connected {
                self.live.osd_gone.entry(osd).or_insert(now.mono);
            }
        }
    }

    /// Enough reporters of different subtrees for long enough, or one who is certain.
    fn is_failed(&self, now: Now, osd: i32) -> bool {
        let Some(reports) = self.live.failures.get(&osd) else {
            return false;
        };
        if reports.values().any(|r| r.immediate) {
            return true;
        }
        let grace = self.settings.secs("osd_heartbeat_grace");
        let level = self.settings.str("mon_osd_reporter_subtree_level");
        let crush = &self.osdmap().crush;
        let subtree = |reporter: i32| {
            let above = crush.full_location(reporter);
            let bucket =
                above.into_iter().find(|(t, _)| *t == level).map(|(_, name)| name.to_owned());
            bucket.unwrap_or_else(|| format!("osd.{reporter}"))
        };
        let lasting = reports.iter().filter(|(_, r)| now.mono.saturating_sub(r.since) >= grace);
        let subtrees: std::collections::BTreeSet<String> =
            lasting.map(|(r, _)| subtree(*r)).collect();
        subtrees.len() as i64 >= self.settings.int("mon_osd_min_down_reporters").max(1)
    }

    fn fail(&mut self, now: Now, inc: &mut Incremental, osd: i32, text: String) {
        let map = self.osdmap();
        let nodown = map.has_flag(flags::NODOWN)
            || map.osd(osd).is_some_and(|o| o.state & osd_state::NODOWN != 0);
        if nodown {
            return;
        }
        self.mark_down(now, inc, osd);
        self.live.failures.remove(&osd);
        self.live.osd_gone.remove(&osd);
        self.info(now, text);
    }

    /// Removes bans that have run out.
    pub(super) fn expired_blocklist(&self, now: Now, inc: &mut Incremental) {
        let is_over = |(addr, until): (&EntityAddr, &UTime)| {
            (Duration::from(*until) < now.wall).then_some(*addr)
        };
        let map = self.osdmap();
        inc.old_blocklist.extend(map.blocklist.iter().filter_map(is_over));
        inc.old_range_blocklist.extend(map.range_blocklist.iter().filter_map(is_over));
    }
}
