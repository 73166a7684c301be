//! The primary makes the PG active: every member gets what it lacks of the log; once all have stored
//! it, the interval counts as started and clients are served. Then copies are made whole, and when
//! they are, past intervals and strays are forgotten.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use spirula_wire::msg::pg::{
    OsdPgBackfill, OsdPgInfo2, OsdPgLease, OsdPgLeaseAck, OsdPgLog, OsdPgRemove, backfill_op,
};
use spirula_wire::types::{EVersion, HObject, PastIntervals, PgInfo, PgLease, pg_query};

use super::{Action, PeerMessage, Peering, Probe, State};
use crate::choose;
use crate::missing::Missing;

/// What is awaited is told apart from what another machine of the same PG awaited, which it replaced
/// after a split or a removal: what it stored may be durable before.
static ACTIVATIONS: AtomicU64 = AtomicU64::new(1);

impl Peering {
    pub(super) fn activate(&mut self) {
        self.state = State::Activating;
        self.lease.check_prior();
        if self.mapping.is_writeable() {
            self.info.last_epoch_started = self.map.epoch;
            self.info.last_interval_started = self.info.history.same_interval_since;
        }
        self.refresh_info();
        self.persist();
        self.await_commit();
        let lease = self.lease.renew(self.now, &self.acting_others());
        for osd in self.members.clone() {
            self.activate_member(osd, lease);
        }
        self.check_activated();
    }

    pub(super) fn await_commit(&mut self) {
        let number = ACTIVATIONS.fetch_add(1, Ordering::Relaxed);
        self.awaiting = Some(number);
        self.out.push_back(Action::AwaitCommit(number));
    }

    /// Sends a member what makes its copy follow from here on.
    fn activate_member(&mut self, osd: i32, lease: PgLease) {
        let (head, tail) = (self.log.head(), self.log.tail());
        let is_target = self.backfill_targets.contains(&osd);
        let (info, past, pgid) = (self.info_now(), self.past.clone(), self.pgid);
        let peer = self.peers.entry(osd).or_default();
        let exists = !peer.info.does_not_exist();
        let starts_over = peer.info.last_update < tail
            || peer.info.last_backfill.is_min()
            || (is_target && !peer.info.is_incomplete());
        let epoch = self.map.epoch;
        let log = |info: PgInfo, log| {
            PeerMessage::Log(Box::new(OsdPgLog {
                epoch,
                query_epoch: epoch,
                info,
                log,
                past_intervals: past,
                lease: Some(lease),
                ..OsdPgLog::default()
            }))
        };
        let message = if starts_over {
            self.backfill_targets.insert(osd);
            peer.info = PgInfo { last_backfill: HObject::min(), ..info };
            peer.missing = Some(Missing::default());
            log(peer.info.clone(), self.log.to_wire(EVersion::default(), true))
        } else {
            let since = peer.info.last_update;
            let missing = peer.missing.get_or_insert_default();
            let reached = &peer.info.last_backfill;
            self.log
                .after(since)
                .filter(|e| e.object <= *reached)
                .for_each(|e| missing.add_event(e));
            peer.info.last_update = head;
            // A young PG's log begins at nothing, as does a copy that does not exist yet.
            log(info, self.log.to_wire(since, !exists))
        };
        peer.info.pgid = pgid;
        self.send(osd, message);
    }

    fn acting_others(&self) -> BTreeSet<i32> {
        let mut others = self.mapping.acting_set();
        others.remove(&self.me);
        others
    }

    /// A member's info: it is active, or has acknowledged a lease.
    pub(super) fn on_member_info(&mut self, from: i32, m: OsdPgInfo2) {
        if let Some(ack) = &m.lease_ack {
            let others = self.acting_others();
            self.lease.acknowledged(from, ack, &others);
        }
        if self.state == State::Activating && self.members.contains(&from) {
            self.member_activated(from);
        }
    }

    pub(super) fn on_lease_ack(&mut self, from: i32, m: &OsdPgLeaseAck) {
        let others = self.acting_others();
        self.lease.acknowledged(from, &m.ack, &others);
    }

    pub(super) fn renew_lease(&mut self) {
        let others = self.acting_others();
        let lease = self.lease.renew(self.now, &others);
        for osd in others {
            let (epoch, spgid) = (self.map.epoch, self.pgid);
            self.send(osd, PeerMessage::Lease(OsdPgLease { epoch, spgid, lease }));
        }
    }

    pub(super) fn member_activated(&mut self, osd: i32) {
        self.activated.insert(osd);
        self.check_activated();
    }

    /// Nobody may be told that the interval started before every member has stored it.
    fn check_activated(&mut self) {
        let all = self.members.is_subset(&self.activated) && self.activated.contains(&self.me);
        if !all || self.state != State::Activating {
            return;
        }
        self.state = State::Active;
        let history = &mut self.info.history;
        history.last_epoch_started = history.last_epoch_started.max(self.info.last_epoch_started);
        history.last_interval_started =
            history.last_interval_started.max(self.info.last_interval_started);
        if self.mapping.is_writeable() {
            // Every acting copy has stored the whole log, and no older one counts any more.
            self.log.advance_horizon(self.info.last_update);
        }
        self.dirty_info = true;
        self.share_info();
        self.out.push_back(Action::Activated);
        self.discover_unfound();
        self.check_recovered();
    }

    /// Tells the members what the PG's history has come to, and what all of them hold (its
    /// `last_complete`).
    pub(super) fn share_info(&mut self) {
        let last_complete = self.log.horizon();
        let info = PgInfo { last_complete, ..self.info_now() };
        let (epoch, spgid) = (self.map.epoch, self.pgid);
        let lease = self.lease.current(self.now);
        for osd in self.members.clone() {
            let message = OsdPgInfo2 {
                spgid,
                epoch_sent: epoch,
                min_epoch: epoch,
                info: info.clone(),
                lease: Some(lease),
                lease_ack: None,
            };
            self.send(osd, PeerMessage::Info(Box::new(message)));
        }
    }

    // --- whole copies

    pub(crate) fn is_recovered(&self) -> bool {
        let whole = |osd: &i32| {
            self.peers.get(osd).is_some_and(|p| {
                p.missing.as_ref().is_some_and(Missing::is_empty) && !p.info.is_incomplete()
            })
        };
        self.missing.is_empty() && self.members.iter().all(whole)
    }

    /// When all members are whole: the acting set becomes that of CRUSH, or the PG is clean.
    pub(crate) fn check_recovered(&mut self) {
        self.follow_reservation();
        if self.state != State::Active || !self.is_recovered() {
            return;
        }
        if let Some(choice) = choose::choose(&self.infos(), self.me, &self.mapping)
            && choice.acting != self.mapping.acting
        {
            return self.want_acting(choice.acting);
        }
        // Past intervals say who may hold an earlier lease.
        if self.lease.waits_for_prior(self.now) {
            return;
        }
        let acting = self.mapping.acting_set();
        if acting.len() < self.mapping.size || !self.mapping.is_writeable() {
            return;
        }
        self.state = State::Clean;
        let history = &mut self.info.history;
        history.last_epoch_clean = self.map.epoch;
        history.last_interval_clean = history.same_interval_since;
        self.past = PastIntervals::default();
        self.refresh_info();
        // What accumulated while objects were missing.
        self.trim_idle();
        self.persist();
        self.share_info();
        self.out.push_back(Action::Clean);
        self.follow_reservation();
        self.purge_strays();
    }

    /// All members are whole: other copies are of no use.
    pub(super) fn purge_strays(&mut self) {
        let is_stray = |osd: &i32| !self.members.contains(osd) && *osd != self.me;
        let strays: Vec<i32> = self.peers.keys().copied().filter(is_stray).collect();
        for osd in strays {
            let known = self.peers.remove(&osd);
            if self.map.is_up(osd) && known.is_some_and(|p| !p.info.does_not_exist()) {
                let (epoch, pgs) = (self.map.epoch, vec![self.pgid]);
                self.send(osd, PeerMessage::Remove(OsdPgRemove { epoch, pgs }));
            }
        }
    }

    /// Asks those who may have objects that nobody is known to have.
    pub(super) fn discover_unfound(&mut self) {
        if self.state != State::Active || self.unfound().is_empty() {
            return;
        }
        // Who came up since may have forgotten that it had a copy.
        let unasked = |(osd, probe): (i32, Probe)| (probe == Probe::NotQueried).then_some(osd);
        for osd in self.might_have_unfound().into_iter().filter_map(unasked) {
            if self.recovery.asked.insert(osd) {
                self.query(osd, pg_query::FULLLOG, EVersion::default());
            }
        }
    }

    pub(super) fn on_backfill_ack(&mut self, from: i32, m: &OsdPgBackfill) {
        if m.op != backfill_op::FINISH_ACK || !self.backfill_targets.contains(&from) {
            return;
        }
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.info.last_backfill = HObject::max();
        }
        self.check_recovered();
    }

    /// Tells a backfill target how far it has come.
    pub(crate) fn send_backfill_progress(&mut self, to: i32, op: u32, reached: HObject) {
        let (map_epoch, pgid) = (self.map.epoch, self.pgid.pgid);
        let message = OsdPgBackfill {
            op,
            map_epoch,
            query_epoch: map_epoch,
            pgid,
            last_backfill: reached,
            stats: self.info.stats.clone(),
            shard: self.pgid.shard,
        };
        self.send(to, PeerMessage::Backfill(Box::new(message)));
    }
}
