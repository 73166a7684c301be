//! A copy that is not the primary: it tells of itself, answers queries, follows the primary's log,
//! and becomes active when told to.

use spirula_wire::msg::pg::{
    OsdPgBackfill, OsdPgInfo2, OsdPgLease, OsdPgLeaseAck, OsdPgLog, OsdPgTrim, backfill_op,
};
use spirula_wire::types::{
    EVersion, PgInfo, PgLease, PgLeaseAck, PgLogMsg, PgNotify, PgQuery, pg_query,
};

use super::{Action, PeerMessage, Peering, ReserveKind, Role, State};
use crate::log::PgLog;
use crate::merge;
use crate::missing::Missing;

impl Peering {
    pub(super) fn handle_as_copy(&mut self, from: i32, message: PeerMessage) {
        if from != self.mapping.acting_primary {
            return;
        }
        match message {
            PeerMessage::Query(m) => self.on_query(from, &m.query),
            PeerMessage::Log(m) => self.on_activating_log(*m),
            PeerMessage::Info(m) => self.on_primary_info(*m),
            PeerMessage::Lease(m) => self.on_lease(from, &m),
            PeerMessage::Backfill(m) => self.on_backfill(from, *m),
            PeerMessage::Trim(m) => self.on_trim(&m),
            PeerMessage::RecoveryReserve(m) => {
                self.on_reserve(ReserveKind::Recovery, m.kind, m.priority);
            }
            PeerMessage::BackfillReserve(m) => {
                self.on_reserve(ReserveKind::Backfill, m.kind, m.priority);
            }
            PeerMessage::Remove(_) => self.on_remove(),
            PeerMessage::Notify(_) | PeerMessage::LeaseAck(_) => {}
        }
    }

    /// Tells the primary that there is a copy here.
    pub(super) fn notify_primary(&mut self) {
        let primary = self.mapping.acting_primary;
        if self.send_notify && primary >= 0 && self.map.is_up(primary) {
            self.answer_with_info(primary, self.map.epoch);
        }
    }

    fn answer_with_info(&mut self, to: i32, query_epoch: u32) {
        let notify = PgNotify {
            query_epoch,
            epoch_sent: self.map.epoch,
            info: self.info_now(),
            past_intervals: self.past.clone(),
            ..PgNotify::default()
        };
        self.send(to, PeerMessage::notify(self.pgid, notify));
    }

    fn on_query(&mut self, from: i32, query: &PgQuery) {
        if self.state != State::Unknown {
            self.update_history(&query.history);
        }
        if query.kind == pg_query::INFO {
            return self.answer_with_info(from, query.epoch_sent);
        }
        let since = if query.kind == pg_query::LOG { query.since } else { EVersion::default() };
        let log = if query.kind == pg_query::MISSING {
            PgLogMsg::default()
        } else {
            // Whoever asks for a part has the rest, duplicates too.
            self.log.to_wire(since, query.kind == pg_query::FULLLOG)
        };
        let message = OsdPgLog {
            epoch: self.map.epoch,
            info: self.info_now(),
            log,
            missing: self.missing.to_wire(),
            query_epoch: query.epoch_sent,
            ..OsdPgLog::default()
        };
        self.send(from, PeerMessage::Log(Box::new(message)));
    }

    fn on_activating_log(&mut self, m: OsdPgLog) {
        if !matches!(self.state, State::Stray | State::Unknown) {
            return;
        }
        if self.state == State::Unknown {
            self.adopt_history(&m.info.history, &m.past_intervals);
        } else {
            self.update_history(&m.info.history);
        }
        let auth = PgLog::from_wire(m.log, self.log.limits());
        if m.info.last_backfill.is_min() {
            self.start_over(&m.info, auth);
        } else {
            let backfilled = self.info.last_backfill.clone();
            match merge::adopt(&mut self.log, &mut self.missing, &auth, &backfilled) {
                Some(undone) => self.rewound(undone),
                // The primary knows this copy by another info: it will be reset, and ask again.
                None => return,
            }
        }
        self.info.last_user_version = self.info.last_user_version.max(m.info.last_user_version);
        self.info.purged_snaps.clone_from(&m.info.purged_snaps);
        self.info.stats = m.info.stats.clone();
        self.become_active(m.info.last_epoch_started, m.lease);
    }

    /// The log does not reach: all objects are compared with the primary's, from the first on.
    fn start_over(&mut self, info: &PgInfo, auth: PgLog) {
        self.info.last_backfill.clone_from(&info.last_backfill);
        self.log = auth;
        self.missing = Missing::default();
        self.dirty_log = true;
    }

    fn on_primary_info(&mut self, m: OsdPgInfo2) {
        if !matches!(self.state, State::ReplicaActivating | State::ReplicaActive) {
            return;
        }
        self.update_history(&m.info.history);
        self.keep_scrub_errors(&m.info.stats.stats.sum);
        self.log.advance_horizon(m.info.last_complete);
        if let Some(lease) = &m.lease {
            self.heard_lease(lease);
        }
    }

    fn become_active(&mut self, started: u32, lease: Option<PgLease>) {
        self.send_notify = false;
        self.refresh_info();
        if self.mapping.is_acting(self.me) && self.info.last_epoch_started < started {
            self.info.last_epoch_started = started;
            self.info.last_interval_started = self.info.history.same_interval_since;
        }
        if let Some(lease) = &lease {
            self.heard_lease(lease);
        }
        self.state = State::ReplicaActivating;
        self.persist();
        self.await_commit();
    }

    pub(super) fn replica_activated(&mut self) {
        self.state = State::ReplicaActive;
        let mut info = self.info_now();
        info.history.last_epoch_started = info.last_epoch_started;
        info.history.last_interval_started = info.last_interval_started;
        let readable_until_ub = self.lease.acknowledgement();
        let epoch = self.map.epoch;
        let message = OsdPgInfo2 {
            spgid: self.pgid,
            epoch_sent: epoch,
            min_epoch: epoch,
            info,
            lease: None,
            lease_ack: Some(PgLeaseAck { readable_until_ub }),
        };
        self.send(self.mapping.acting_primary, PeerMessage::Info(Box::new(message)));
    }

    fn heard_lease(&mut self, lease: &PgLease) -> PgLeaseAck {
        let ahead = self.clock_ahead(self.mapping.acting_primary);
        self.lease.heard(lease, self.now, ahead)
    }

    fn on_lease(&mut self, from: i32, m: &OsdPgLease) {
        if !matches!(self.state, State::ReplicaActivating | State::ReplicaActive) {
            return;
        }
        let ack = self.heard_lease(&m.lease);
        let (epoch, spgid) = (self.map.epoch, self.pgid);
        self.send(from, PeerMessage::LeaseAck(OsdPgLeaseAck { epoch, spgid, ack }));
    }

    fn on_backfill(&mut self, from: i32, m: OsdPgBackfill) {
        if self.state != State::ReplicaActive {
            return;
        }
        if m.last_backfill > self.info.last_backfill {
            self.info.last_backfill.clone_from(&m.last_backfill);
            self.info.stats = m.stats.clone();
            self.dirty_info = true;
        }
        if m.op == backfill_op::FINISH {
            self.persist();
            let (op, map_epoch) = (backfill_op::FINISH_ACK, self.map.epoch);
            let ack = OsdPgBackfill { op, map_epoch, query_epoch: map_epoch, ..m };
            self.send(from, PeerMessage::Backfill(Box::new(ack)));
        }
    }

    fn on_trim(&mut self, m: &OsdPgTrim) {
        if self.state == State::ReplicaActive && self.trim_as_told(m.trim_to).is_some() {
            self.dirty_log = true;
            self.dirty_info = true;
        }
    }

    fn on_remove(&mut self) {
        if self.state == State::Stray && self.role() == Role::Stray && !self.mapping.is_up(self.me)
        {
            self.out.push_back(Action::Remove);
        }
    }
}
