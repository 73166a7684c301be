//! Periodic work: health, silent daemons, quotas, rotation of secrets, the manager's digest.

use std::time::Duration;

use spirula_wire::msg::mgr::{HealthChecks, health};
use spirula_wire::msg::mon::log_priority;

use super::{Action, Service};
use crate::Now;
use crate::health as checks;
use crate::quorum::Role;
use crate::state::Change;

/// Between two looks at everything.
const TICK: Duration = Duration::from_secs(1);

impl Service {
    /// Does what is due at `now`. To be called at [`poll_timeout`](Self::poll_timeout).
    pub fn tick(&mut self, now: Now) {
        self.quorum.tick(now.mono);
        self.settle(now);
        self.view(now, false);
        self.send_clients_away(now);
        if now.mono >= self.next_tick {
            self.upkeep(now);
        }
        self.settle(now);
    }

    /// Looks at everything, and as the leader does what is due.
    pub(super) fn upkeep(&mut self, now: Now) {
        self.next_tick = now.mono + TICK;
        if now.mono >= self.next_digest {
            self.next_digest = now.mono + self.settings.secs("mon_mgr_digest_period").max(TICK);
            self.publish_digest(now);
        }
        self.refresh_health(now);
        if self.quorum.role() != Role::Leads {
            self.ask_to_join();
            self.tell_metadata();
            self.ask_for_map(now);
            return self.ask_for_ids(now);
        }
        self.change_members(now);
        self.check_clocks(now);
        self.tell_creating(now);
        if self.in_flight.is_some() {
            return;
        }
        let mut changes = self.auth_upkeep(now);
        changes.extend(self.silent_mgr(now));
        changes.extend(self.ended_mutes(now));
        changes.extend(self.new_metadata());
        let mut inc = self.state.osd.next(now);
        self.silent_osds(now, &mut inc);
        self.mark_lost_osds_out(now, &mut inc);
        self.expired_blocklist(now, &mut inc);
        self.check_quotas(now, &mut inc);
        self.prune_purged_snaps(&mut inc);
        self.adjust_pg_nums(&mut inc);
        changes.extend(self.old_osdmaps());
        if !inc.is_empty() {
            changes = self.sealed(inc, changes).unwrap_or_default();
        }
        if !changes.is_empty() || !self.pending_log.is_empty() {
            self.propose(now, changes, Vec::new(), None, false);
        }
    }

    /// Looks at the cluster's health and notes in the log what has changed.
    pub(super) fn refresh_health(&mut self, now: Now) {
        let found = checks::look(&self.state, &self.live, &self.settings, now);
        let before = std::mem::replace(&mut self.live.checks, found);
        let told = self.quorum.role() == Role::Leads && self.settings.bool("mon_health_to_clog");
        if !told || before == self.live.checks {
            return;
        }
        for (prio, line) in transitions(&before, &self.live.checks) {
            self.clog(now, prio, "cluster", line);
        }
    }

    /// Mutes that have run out, or whose check is gone or has become worse.
    fn ended_mutes(&self, now: Now) -> Vec<Change> {
        let ended = self.state.mutes.iter().filter(|(code, mute)| {
            let expired =
                mute.until_nanos > 0 && u128::from(mute.until_nanos) <= now.wall.as_nanos();
            let check = self.live.checks.checks.get(*code);
            let gone = check.is_none() && !mute.sticky;
            let worse = check.is_some_and(|c| c.count > mute.count as i64) && !mute.sticky;
            expired || gone || worse
        });
        ended.map(|(code, _)| Change::Mute { code: code.clone(), mute: None }).collect()
    }

    /// After a proposal was applied: what follows from it here.
    pub(super) fn after_apply(&mut self, now: Now, proposal: &crate::state::Proposal) {
        let config = proposal.changes.iter().any(|c| matches!(c, Change::Config { .. }));
        if config {
            let name = self.live.name.clone();
            self.settings.refresh(&self.state.config, &name);
            self.actions.push_back(Action::OptionsChanged);
        }
        self.take_ids(proposal);
        if proposal.changes.iter().any(|c| matches!(c, Change::OsdMap(_))) {
            self.note_osds(now);
        }
        if proposal.changes.iter().any(|c| matches!(c, Change::MonMap(_))) {
            self.monmap_changed();
        }
        if proposal.changes.iter().any(|c| !matches!(c, Change::Log(_))) {
            self.refresh_health(now);
        }
    }
}

/// Log lines for the difference between two looks.
fn transitions(before: &HealthChecks, after: &HealthChecks) -> Vec<(u16, String)> {
    let mut lines = Vec::new();
    let prio = |severity: u8| {
        if severity == health::ERR { log_priority::ERROR } else { log_priority::WARN }
    };
    for (code, check) in &after.checks {
        match before.checks.get(code) {
            None => lines.push((
                prio(check.severity),
                format!("Health check failed: {} ({code})", check.summary),
            )),
            Some(old) if old.summary != check.summary => {
                lines.push((
                    prio(check.severity),
                    format!("Health check update: {} ({code})", check.summary),
                ));
            }
            Some(_) => {}
        }
    }
    for (code, check) in &before.checks {
        if !after.checks.contains_key(code) {
            lines.push((
                log_priority::INFO,
                format!("Health check cleared: {code} (was: {})", check.summary),
            ));
        }
    }
    if after.checks.is_empty() && !before.checks.is_empty() {
        lines.push((log_priority::INFO, "Cluster is now healthy".to_owned()));
    }
    lines
}
