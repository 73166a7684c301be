//! Noticing that an OSD is gone, and what follows from it: reports of its peers, silence, a lost
//! session; then, after a while, its data goes elsewhere.
//!
//! Ceph's monitor relies on peers and beacons. Here a lost session counts too where an OSD has not
//! enough peers that could report it: in clusters of one host, or of one process.

use std::collections::BTreeSet;
use std::time::Duration;

use spirula_maps::{Incremental, OsdMap, flags, osd_state};
use spirula_wire::msg::mon::log_priority;
use spirula_wire::msg::osd::OsdFailure;
use spirula_wire::types::{EntityAddr, UTime};
use spirula_wire::{DecodeError, Message, RawMessage};
use tracing::debug;

use super::map_trim::is_there;
use super::{Handled, Service, SessionId};
use crate::Now;
use crate::health::location_text;
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
        let map = self.osdmap();
        let is_at = |osd: &spirula_maps::Osd| osd.client_addrs == report.target_addrs;
        if !map.is_up(reporter) || !map.osd(target).is_some_and(|o| o.is_up() && is_at(o)) {
            debug!(target, reporter, "report about a process that is not up, or by one");
            return Ok(Handled::Done);
        }
        if report.flags & OsdFailure::FAILED == 0 {
            self.debug_log(now, format!("osd.{target} failure report canceled by osd.{reporter}"));
            if let Some(reports) = self.live.failures.get_mut(&target) {
                reports.remove(&reporter);
            }
            return Ok(Handled::Done);
        }
        let mut inc = self.state.osd.next(now);
        if report.flags & OsdFailure::IMMEDIATE != 0 {
            let text = format!("osd.{target} reported immediately failed by osd.{reporter}");
            self.debug_log(now, text);
            self.refused(now, &mut inc, target, reporter);
        } else {
            self.debug_log(now, format!("osd.{target} reported failed by osd.{reporter}"));
            let failed_for = Duration::from_secs(report.failed_for.max(0) as u64);
            let since = now.mono.saturating_sub(failed_for);
            let reports = self.live.failures.entry(target).or_default();
            reports.insert(reporter, FailureReport { since });
            if let Some(text) = self.is_failed(now, target) {
                self.fail(now, &mut inc, target, text);
            }
        }
        if inc.is_empty() {
            return Ok(Handled::Done);
        }
        Ok(self.sealed(inc, Vec::new()).map_or(Handled::Done, |c| Handled::Propose(c, Vec::new())))
    }

    /// A peer's address refuses connections: its process is dead as of this very epoch, not slow.
    fn refused(&mut self, now: Now, inc: &mut Incremental, osd: i32, reporter: i32) {
        let map = self.osdmap();
        if !self.can_mark_down(inc, osd) {
            return;
        }
        let at = location_text(map, osd);
        let mut xinfo = map.osd(osd).map(|o| o.xinfo).unwrap_or_default();
        xinfo.dead_epoch = inc.epoch;
        *inc.new_state.entry(osd).or_insert(0) |= osd_state::UP;
        inc.new_xinfo.insert(osd, xinfo);
        self.live.failures.remove(&osd);
        self.live.osd_gone.remove(&osd);
        let text =
            format!("osd.{osd} failed ({at}) (connection refused reported by osd.{reporter})");
        self.info(now, text);
    }

    /// Marks silent OSDs down in `inc`.
    pub(super) fn silent_osds(&mut self, now: Now, inc: &mut Incremental) {
        let timeout = self.settings.secs("mon_osd_report_timeout");
        let grace = self.settings.secs("osd_heartbeat_grace");
        let up: Vec<i32> =
            self.osdmap().existing_osds().filter(|(_, o)| o.is_up()).map(|(osd, _)| osd).collect();
        for osd in up {
            let seen = self.live.osd_seen.get(&osd).copied().unwrap_or(self.live.leading_since);
            let gone = self.live.osd_gone.get(&osd).copied();
            let gone = gone.filter(|since| now.mono.saturating_sub(*since) > grace);
            let silent = now.mono.saturating_sub(seen);
            let text = if silent > timeout {
                let silent = silent.as_secs();
                Some(format!("osd.{osd} marked down after no beacon for {silent} seconds"))
            } else if let Some(since) = gone.filter(|_| !self.has_witnesses(osd)) {
                let lost = (now.mono - since).as_secs();
                Some(format!("osd.{osd} marked down: its session was lost {lost} seconds ago"))
            } else {
                self.is_failed(now, osd)
            };
            if let Some(text) = text {
                self.fail(now, inc, osd, text);
            }
        }
    }

    /// Forgets what no longer matters after the map changed.
    pub(super) fn note_osds(&mut self, now: Now) {
        let map = self.state.osd.shared();
        self.live.failures.retain(|osd, _| map.is_up(*osd));
        self.live.osd_gone.retain(|osd, _| map.is_up(*osd));
        self.live.osd_epochs.retain(|osd, _| map.is_up(*osd));
        self.live.last_clean.retain(|pg, _| is_there(&map, *pg));
        self.live.osd_down.retain(|osd, _| map.is_in(*osd) && !map.is_up(*osd));
        for (osd, _) in map.existing_osds().filter(|(_, o)| o.is_up()) {
            self.live.osd_seen.entry(osd).or_insert(now.mono);
            let connected = self.sessions.values().any(|s| s.osd() == Some(osd));
            if !connected {
                self.live.osd_gone.entry(osd).or_insert(now.mono);
            }
        }
    }

    /// The part of the cluster that an OSD's report speaks for.
    fn subtree(&self, osd: i32) -> String {
        let level = self.settings.str("mon_osd_reporter_subtree_level");
        let above = self.osdmap().crush.full_location(osd);
        let bucket = above.into_iter().find(|(t, _)| *t == level).map(|(_, name)| name.to_owned());
        bucket.unwrap_or_else(|| format!("osd.{osd}"))
    }

    fn reporters_min(&self) -> usize {
        usize::try_from(self.settings.int("mon_osd_min_down_reporters")).unwrap_or(0).max(1)
    }

    /// Whether there are enough OSDs up whose reports about this one would count.
    fn has_witnesses(&self, osd: i32) -> bool {
        let up = self.osdmap().existing_osds().filter(|(id, o)| *id != osd && o.is_up());
        let subtrees: BTreeSet<String> = up.map(|(id, _)| self.subtree(id)).collect();
        subtrees.len() >= self.reporters_min()
    }

    /// How much longer an OSD may be silent that was slow, but alive, before.
    fn laggy_grace(&self, osd: i32, ago: Duration) -> f64 {
        let Some(known) = self.osdmap().osd(osd) else {
            return 0.0;
        };
        let halflife = self.settings.int("mon_osd_laggy_halflife").max(1) as f64;
        let decay = (0.5_f64.ln() / halflife * ago.as_secs_f64()).exp();
        let probability = f64::from(known.xinfo.laggy_probability) / f64::from(u32::MAX);
        decay * f64::from(known.xinfo.laggy_interval) * probability
    }

    /// Whether reporters of enough different subtrees have waited for long enough; then the line for
    /// the log.
    fn is_failed(&self, now: Now, osd: i32) -> Option<String> {
        let reports = self.live.failures.get(&osd)?;
        let failed_for = reports.values().map(|r| now.mono.saturating_sub(r.since)).min()?;
        let mut grace = self.settings.secs("osd_heartbeat_grace").as_secs_f64();
        if self.settings.bool("mon_osd_adjust_heartbeat_grace") {
            // Reporters that are slow themselves count for less.
            let of_peers: f64 = reports
                .keys()
                .filter_map(|peer| Some((*peer, self.osdmap().osd(*peer)?.xinfo.down_stamp)))
                .map(|(peer, at)| self.laggy_grace(peer, now.wall.saturating_sub(at.into())))
                .sum();
            grace += self.laggy_grace(osd, failed_for) + of_peers / reports.len() as f64;
        }
        let subtrees: BTreeSet<String> = reports.keys().map(|r| self.subtree(*r)).collect();
        let failed_for = failed_for.as_secs_f64();
        if failed_for < grace || subtrees.len() < self.reporters_min() {
            return None;
        }
        let at = location_text(self.osdmap(), osd);
        let level = self.settings.str("mon_osd_reporter_subtree_level");
        let n = subtrees.len();
        Some(format!(
            "osd.{osd} failed ({at}) ({n} reporters from different {level} after {failed_for:.6} \
             >= grace {grace:.6})"
        ))
    }

    fn fail(&mut self, now: Now, inc: &mut Incremental, osd: i32, text: String) {
        if !self.can_mark_down(inc, osd) {
            return;
        }
        self.mark_down(now, inc, osd);
        self.live.failures.remove(&osd);
        self.live.osd_gone.remove(&osd);
        self.info(now, text);
    }

    /// Flags do not forbid it, and most OSDs are up: else the fault is rather with who reports.
    fn can_mark_down(&self, inc: &Incremental, osd: i32) -> bool {
        let map = self.osdmap();
        let total = map.existing_osds().count();
        let falls = |id: i32| inc.new_state.get(&id).is_some_and(|bits| bits & osd_state::UP != 0);
        let up = map.existing_osds().filter(|(id, o)| o.is_up() && !falls(*id)).count();
        let ratio = up as f64 / total.max(1) as f64;
        !is_held(map, osd, flags::NODOWN, osd_state::NODOWN)
            && ratio >= self.settings.float("mon_osd_min_up_ratio")
    }

    fn can_mark_out(&self, inc: &Incremental, osd: i32) -> bool {
        let map = self.osdmap();
        let total = map.existing_osds().count();
        let leaves = |id: i32| inc.new_weight.get(&id) == Some(&0);
        let inside = map.existing_osds().filter(|(id, o)| o.is_in() && !leaves(*id)).count();
        let ratio = inside as f64 / total.max(1) as f64;
        !is_held(map, osd, flags::NOOUT, osd_state::NOOUT)
            && ratio >= self.settings.float("mon_osd_min_in_ratio")
    }

    /// Marks OSDs out in `inc` that have been down for long, so that their data goes elsewhere.
    pub(super) fn mark_lost_osds_out(&mut self, now: Now, inc: &mut Incremental) {
        let map = self.state.osd.shared();
        let down: Vec<i32> = map
            .existing_osds()
            .filter(|(_, o)| !o.is_up() && o.is_in())
            .map(|(osd, _)| osd)
            .collect();
        self.live.osd_down.retain(|osd, _| down.contains(osd));
        for osd in down {
            let since = *self.live.osd_down.entry(osd).or_insert(now.mono);
            if !self.can_mark_out(inc, osd) {
                continue;
            }
            if self.is_large_subtree_down(&map, osd) {
                self.live.osd_down.insert(osd, now.mono);
                continue;
            }
            let down_for = now.mono.saturating_sub(since);
            if !self.is_lost(&map, osd, down_for) {
                continue;
            }
            let Some(known) = map.osd(osd) else {
                continue;
            };
            inc.new_weight.insert(osd, 0);
            if known.state & osd_state::AUTOOUT == 0 {
                *inc.new_state.entry(osd).or_insert(0) |= osd_state::AUTOOUT;
            }
            let xinfo = inc.new_xinfo.entry(osd).or_insert(known.xinfo);
            xinfo.old_weight = known.weight;
            let secs = down_for.as_secs();
            self.info(now, format!("Marking osd.{osd} out (has been down for {secs} seconds)"));
        }
    }

    fn is_lost(&self, map: &OsdMap, osd: i32, down_for: Duration) -> bool {
        let destroyed = map.osd(osd).is_some_and(spirula_maps::Osd::is_destroyed);
        let name =
            if destroyed { "mon_osd_destroyed_out_interval" } else { "mon_osd_down_out_interval" };
        let interval = self.settings.int(name);
        let mut grace = interval as f64;
        if !destroyed && self.settings.bool("mon_osd_adjust_down_out_interval") {
            grace += self.laggy_grace(osd, down_for);
        }
        interval > 0 && down_for.as_secs() as f64 >= grace
    }

    /// A whole rack (`mon_osd_down_out_subtree_limit`) that is down comes back rather than being lost.
    fn is_large_subtree_down(&self, map: &OsdMap, osd: i32) -> bool {
        let limit = self.settings.str("mon_osd_down_out_subtree_limit");
        let Some(level) = map.crush.type_by_name(limit).filter(|level| *level > 0) else {
            return false;
        };
        let mut at = osd;
        for _ in 0..=map.crush.iter_buckets().count() {
            let Some(parent) = map.crush.parent(at) else {
                return false;
            };
            let below = map.crush.subtree(parent.id);
            if below.iter().any(|id| map.is_up(*id)) {
                return false;
            }
            if i32::from(parent.type_) >= level {
                return true;
            }
            at = parent.id;
        }
        false
    }

    fn debug_log(&mut self, now: Now, text: String) {
        self.clog(now, log_priority::DEBUG, "cluster", text);
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

/// Whether a flag of the cluster (`flag`), or one of the OSD, a bucket above it or its device class
/// (`bit`), forbids a change of its state.
pub(super) fn is_held(map: &OsdMap, osd: i32, flag: u32, bit: u32) -> bool {
    let crush = &map.crush;
    let mut above = Vec::new();
    let mut at = osd;
    while let Some(parent) = crush.parent(at).filter(|p| !above.contains(&p.id)) {
        above.push(parent.id);
        at = parent.id;
    }
    let nodes = [osd].into_iter().chain(above);
    let on_node =
        nodes.into_iter().any(|id| map.crush_node_flags.get(&id).is_some_and(|f| f & bit != 0));
    let class = crush.item_class(osd).and_then(|name| crush.class_by_name(name));
    let on_class =
        class.is_some_and(|id| map.device_class_flags.get(&id).is_some_and(|f| f & bit != 0));
    map.has_flag(flag) || map.osd(osd).is_some_and(|o| o.state & bit != 0) || on_node || on_class
}
