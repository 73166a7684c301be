//! The other monitors' clocks, as the leader finds them.
//!
//! As in Ceph the leader asks all of the quorum for the time, in rounds. What the clocks differ by is
//! known but for the time that question and answer took, so only what exceeds that counts. Rounds come
//! rarely while all is well, more often after a difference was found.

use std::collections::BTreeMap;
use std::time::Duration;

use tracing::debug;

use super::Service;
use crate::Now;
use crate::peer::PeerMessage;
use crate::quorum::Role;

/// What the leader knows of the clocks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Clocks {
    /// Odd while one is under way.
    pub round: u64,
    /// Monitor -> what was found last.
    pub found: BTreeMap<String, Skew>,
    started: Duration,
    next: Duration,
    /// Rounds with a difference since the last one without.
    skewed_rounds: u32,
    /// Monitor -> when it was asked, by the own wall clock.
    waiting: BTreeMap<u64, Duration>,
}

/// In seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Skew {
    /// What the other clock is ahead, at least.
    pub skew: f64,
    pub latency: f64,
}

impl Clocks {
    pub fn is_under_way(&self) -> bool {
        !self.round.is_multiple_of(2)
    }

    fn end_round(&mut self) {
        self.round += u64::from(self.is_under_way());
        self.waiting.clear();
    }
}

impl Service {
    /// Another quorum: what was found of those who are still in it holds, and all are asked anew.
    pub(super) fn restart_clocks(&mut self, now: Now) {
        let members = &self.state.members;
        let there = |name: &String| {
            self.quorum_now.iter().any(|id| members.get(id).is_some_and(|n| n == name))
        };
        let clocks = &mut self.live.clocks;
        clocks.found.retain(|name, _| there(name));
        clocks.end_round();
        clocks.next = now.mono;
    }

    /// Begins a round if it is time; one that not all answered ends some time.
    pub(super) fn check_clocks(&mut self, now: Now) {
        let interval = self.settings.secs("mon_timecheck_interval");
        if self.state.monmap.map().ranks.len() < 2 {
            self.live.clocks = Clocks::default();
            return;
        }
        let others: Vec<u64> =
            self.quorum_now.iter().copied().filter(|id| *id != self.quorum.id()).collect();
        let clocks = &mut self.live.clocks;
        if clocks.is_under_way() && now.mono > clocks.started + interval * 3 {
            clocks.end_round();
        }
        if clocks.is_under_way() || now.mono < clocks.next || others.is_empty() {
            return;
        }
        clocks.round += 1;
        clocks.started = now.mono;
        clocks.waiting = others.iter().map(|id| (*id, now.wall)).collect();
        clocks.found.insert(self.live.name.clone(), Skew::default());
        self.schedule_clocks(now);
        let round = self.live.clocks.round;
        for id in others {
            self.tell(id, &PeerMessage::AskTime(round));
        }
    }

    fn schedule_clocks(&mut self, now: Now) {
        let interval = self.settings.secs("mon_timecheck_interval");
        let clocks = &mut self.live.clocks;
        let soon = self.settings.secs("mon_timecheck_skew_interval") * clocks.skewed_rounds;
        let delay = if soon.is_zero() { interval } else { soon.min(interval) };
        clocks.next = now.mono + delay;
    }

    /// The clock of monitor `from` shows `theirs`.
    pub(super) fn take_time(&mut self, now: Now, from: u64, round: u64, theirs: Duration) {
        let Some(name) = self.state.members.get(&from).cloned() else { return };
        let clocks = &mut self.live.clocks;
        if self.quorum.role() != Role::Leads || round != clocks.round {
            return debug!(from, round, "the time for another round");
        }
        let Some(asked) = clocks.waiting.remove(&from) else { return };
        let Some(latency) = now.wall.checked_sub(asked) else {
            debug!("the own clock was set back; the round counts for nothing");
            return clocks.end_round();
        };
        let latency = latency.as_secs_f64();
        let average = clocks.found.get(&name).map(|f| f.latency * 0.8 + latency * 0.2);
        let skew = bounded(theirs.as_secs_f64() - now.wall.as_secs_f64(), latency);
        clocks.found.insert(name, Skew { skew, latency: average.unwrap_or(latency) });
        if clocks.waiting.is_empty() {
            clocks.end_round();
            self.judge_clocks(now);
        }
    }

    /// After a difference the next round comes soon.
    fn judge_clocks(&mut self, now: Now) {
        let allowed = self.settings.float("mon_clock_drift_allowed");
        let clocks = &mut self.live.clocks;
        if clocks.found.values().any(|f| f.skew.abs() > allowed) {
            clocks.skewed_rounds = clocks.skewed_rounds.saturating_add(1);
            self.schedule_clocks(now);
        } else if clocks.skewed_rounds > 0 {
            // Once more soon: it may have been luck.
            clocks.skewed_rounds = 1;
            self.schedule_clocks(now);
            self.live.clocks.skewed_rounds = 0;
        }
        self.refresh_health(now);
    }
}

/// The least that clocks differ by if they seem to by `delta` and finding it out took `latency`.
fn bounded(delta: f64, latency: f64) -> f64 {
    match delta.abs() - latency {
        least if least <= 0.0 => 0.0,
        least => least.copysign(delta),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_way_may_explain_is_no_difference() {
        for (delta, latency, skew) in
            [(0.5, 0.25, 0.25), (-0.5, 0.25, -0.25), (0.25, 0.5, 0.0), (-0.25, 0.5, 0.0)]
        {
            assert_eq!(bounded(delta, latency).to_bits(), f64::to_bits(skew), "{delta}");
        }
    }
}
