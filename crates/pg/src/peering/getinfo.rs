//! The primary's phases until it knows everything: GetInfo, GetLog, GetMissing, WaitUpThru.

use std::collections::BTreeSet;

use spirula_wire::msg::pg::{OsdPgLog, OsdPgNotify2};
use spirula_wire::types::{EVersion, PgInfo, PgLogMsg, PgQuery, pg_query};

use super::{Action, Peer, PeerMessage, Peering, ReserveKind, State};
use crate::choose::{self, Infos};
use crate::interval::PriorSet;
use crate::log::PgLog;
use crate::merge;
use crate::missing::Missing;

impl Peering {
    pub(super) fn handle_as_primary(&mut self, from: i32, message: PeerMessage) {
        match message {
            PeerMessage::Notify(m) => self.on_notify(from, *m),
            PeerMessage::Log(m) => self.on_log(from, *m),
            PeerMessage::Info(m) => self.on_member_info(from, *m),
            PeerMessage::LeaseAck(m) => self.on_lease_ack(from, &m),
            PeerMessage::Backfill(m) => self.on_backfill_ack(from, &m),
            PeerMessage::RecoveryReserve(m) => {
                self.on_reserve_answer(from, ReserveKind::Recovery, m.kind);
            }
            PeerMessage::BackfillReserve(m) => {
                self.on_reserve_answer(from, ReserveKind::Backfill, m.kind);
            }
            // Somebody thinks it is the primary, by an older map.
            PeerMessage::Query(_)
            | PeerMessage::Lease(_)
            | PeerMessage::Trim(_)
            | PeerMessage::Remove(_) => {}
        }
    }

    pub(super) fn enter_get_info(&mut self) {
        self.state = State::GetInfo;
        self.prior = self.build_prior();
        self.lease.set_prior_down(self.prior.down.clone());
        let map = self.map.clone();
        self.lease.drop_dead(|osd| super::is_dead(&map, osd));
        self.need_up_thru = self.up_thru() < self.info.history.same_interval_since;
        if self.need_up_thru {
            self.out.push_back(Action::WantUpThru(self.info.history.same_interval_since));
        }
        self.persist_if_dirty();
        self.ask_for_infos();
        self.check_infos();
    }

    fn ask_for_infos(&mut self) {
        let known = |osd: &i32| self.peers.contains_key(osd) || self.requested.contains(osd);
        let probe: Vec<i32> = self.prior.probe.iter().copied().filter(|o| !known(o)).collect();
        for osd in probe {
            if osd != self.me && self.map.is_up(osd) {
                self.requested.insert(osd);
                self.query(osd, pg_query::INFO, EVersion::default());
            }
        }
    }

    pub(super) fn query(&mut self, osd: i32, kind: i32, since: EVersion) {
        let query = PgQuery {
            kind,
            since,
            history: self.history_now(),
            epoch_sent: self.map.epoch,
            ..PgQuery::default()
        };
        self.send(osd, PeerMessage::query(self.pgid, query));
    }

    fn on_notify(&mut self, from: i32, m: OsdPgNotify2) {
        let notify = m.notify;
        if self.state == State::Unknown {
            if notify.info.does_not_exist() {
                return;
            }
            self.adopt_history(&notify.info.history, &notify.past_intervals);
            return self.enter_get_info();
        }
        let started = self.info.history.last_epoch_started;
        if matches!(self.state, State::GetInfo | State::Down) {
            self.requested.remove(&from);
        }
        self.update_history(&notify.info.history);
        self.peers.entry(from).or_insert(Peer { info: notify.info, missing: None });
        match self.state {
            State::GetInfo | State::Down => {
                if self.info.history.last_epoch_started > started {
                    self.narrow_prior();
                }
                self.check_infos();
            }
            State::Incomplete => self.enter_get_info(),
            State::Active => self.discover_unfound(),
            State::Clean => self.purge_strays(),
            _ => {}
        }
    }

    /// The PG was active later than was known: fewer intervals count.
    fn narrow_prior(&mut self) {
        self.prior = self.build_prior();
        let probe = self.prior.probe.clone();
        self.requested.retain(|osd| probe.contains(osd));
        self.ask_for_infos();
    }

    fn build_prior(&self) -> PriorSet {
        let blank = self.peers.iter().filter(|(_, p)| p.info.does_not_exist());
        let blank: BTreeSet<i32> = blank.map(|(&osd, _)| osd).collect();
        let started = self.info.history.last_epoch_started;
        PriorSet::build(&self.past, started, &self.mapping, &self.map, &blank)
    }

    fn check_infos(&mut self) {
        if self.requested.is_empty() {
            // Now it is known who holds nothing.
            self.prior = self.build_prior();
        }
        if self.prior.pg_down {
            self.state = State::Down;
        } else if self.requested.is_empty() {
            self.enter_get_log();
        } else {
            self.state = State::GetInfo;
        }
    }

    pub(super) fn infos(&self) -> Infos {
        let mut infos: Infos = self.peers.iter().map(|(&osd, p)| (osd, p.info.clone())).collect();
        infos.insert(self.me, self.info.clone());
        infos
    }

    fn enter_get_log(&mut self) {
        self.state = State::GetLog;
        let infos = self.infos();
        let Some(choice) = choose::choose(&infos, self.me, &self.mapping) else {
            self.state = State::Incomplete;
            if self.mapping.up != self.mapping.acting {
                // Whom CRUSH names may know more.
                self.want_acting(self.mapping.up.clone());
            }
            return;
        };
        if choice.acting != self.mapping.acting {
            self.state = State::WaitActingChange;
            return self.want_acting(choice.acting);
        }
        self.best = choice.best;
        self.members = choice.everyone();
        self.members.remove(&self.me);
        self.backfill_targets = choice.backfill.clone();
        if self.best == self.me {
            return self.enter_get_missing();
        }
        // All of it: an activation that was not completed may have left other entries in this log than
        // the best one has, anywhere since the last that was.
        self.requested = BTreeSet::from([self.best]);
        self.query(self.best, pg_query::LOG, EVersion::default());
    }

    /// Asks the monitor, unless it was asked for the same already.
    pub(super) fn want_acting(&mut self, want: Vec<i32>) {
        if self.want_acting.as_ref() == Some(&want) {
            return;
        }
        self.out.push_back(self.pg_temp_for(&want));
        self.want_acting = Some(want);
    }

    fn on_log(&mut self, from: i32, m: OsdPgLog) {
        match self.state {
            State::GetLog if self.requested.remove(&from) => self.take_master_log(from, m),
            State::GetMissing if self.requested.remove(&from) => {
                self.take_peer_log(from, m.info, m.log, m.missing.into());
                self.check_missing();
            }
            State::Active if self.recovery.asked.remove(&from) => {
                self.take_peer_log(from, m.info, m.log, m.missing.into());
                self.check_recovered();
            }
            _ => {}
        }
    }

    fn take_master_log(&mut self, from: i32, m: OsdPgLog) {
        let auth = PgLog::from_wire(m.log, self.log.limits());
        let backfilled = self.info.last_backfill.clone();
        match merge::adopt(&mut self.log, &mut self.missing, &auth, &backfilled) {
            Some(undone) => self.rewound(undone),
            None => {
                self.state = State::Incomplete;
                return;
            }
        }
        self.refresh_info();
        self.info.last_user_version = self.info.last_user_version.max(m.info.last_user_version);
        self.info.purged_snaps.clone_from(&m.info.purged_snaps);
        self.info.stats = m.info.stats.clone();
        self.update_history(&m.info.history);
        self.peers.insert(from, Peer { info: m.info, missing: Some(m.missing.into()) });
        self.persist();
        self.enter_get_missing();
    }

    /// Asks those for their logs of whom it is not plain what they miss.
    fn enter_get_missing(&mut self) {
        self.state = State::GetMissing;
        self.requested.clear();
        for osd in self.members.clone() {
            let Some(peer) = self.peers.get_mut(&osd) else {
                continue;
            };
            let (info, tail) = (&peer.info, self.log.tail());
            let same =
                info.last_update == info.last_complete && info.last_update == self.info.last_update;
            let fills_up = info.last_update < tail || info.last_backfill.is_min();
            if info.is_empty() || same || fills_up {
                peer.missing.get_or_insert_default();
                continue;
            }
            // Of whoever had the best log both are known already.
            if peer.missing.is_none() {
                self.requested.insert(osd);
                self.query(osd, pg_query::LOG, EVersion::default());
            }
        }
        self.check_missing();
    }

    fn take_peer_log(&mut self, from: i32, mut info: PgInfo, log: PgLogMsg, missing: Missing) {
        let (backfilled, whole) = (info.last_backfill.clone(), Missing::default());
        // Members undo what is divergent before they become active, others keep it.
        let kept = (!self.members.contains(&from)).then(|| log.clone());
        match merge::peer_missing(&self.log, log, missing, &backfilled) {
            Some((mut missing, common)) => {
                if let Some(log) = kept {
                    merge::keep_divergent(&self.log, &log, &mut missing);
                }
                info.last_update = common;
                self.peers.insert(from, Peer { info, missing: Some(missing) });
            }
            // It is filled up from nothing, or is no source.
            None => {
                info.last_update = EVersion::default();
                self.peers.insert(from, Peer { info, missing: Some(whole) });
            }
        }
    }

    fn check_missing(&mut self) {
        if self.requested.is_empty() {
            self.enter_wait_up_thru();
        }
    }

    pub(super) fn enter_wait_up_thru(&mut self) {
        self.state = State::WaitUpThru;
        if !self.need_up_thru {
            self.activate();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use spirula_maps::OsdMap;
    use spirula_wire::types::{PgId, SpgId};

    use super::*;
    use crate::log::tests::{entry, log, object, v};
    use crate::peering::Config;

    #[test]
    fn a_stray_is_no_source_of_what_it_wrote_alone() {
        let spgid = SpgId::whole(PgId::new(1, 0));
        let mut pg = Peering::create(0, spgid, Arc::new(OsdMap::default()), Config::default());
        for e in [entry("a", v(1, 1), v(0, 0)), entry("b", v(1, 2), v(0, 0))] {
            pg.append(e.clone());
            pg.missing.add_event(&e);
        }
        pg.state = State::Active;
        let own = [("a", v(1, 1)), ("b", v(1, 2)), ("a", v(1, 3))];
        let theirs = log(v(0, 0), &own);
        let info = PgInfo { last_update: v(1, 3), ..pg.info.clone() };
        for (member, sources) in [(true, [vec![5], vec![5]]), (false, [vec![], vec![5]])] {
            pg.members = if member { BTreeSet::from([5]) } else { BTreeSet::new() };
            let log = theirs.to_wire(EVersion::default(), false);
            pg.take_peer_log(5, info.clone(), log, Missing::default());
            let found =
                [("a", v(1, 1)), ("b", v(1, 2))].map(|(o, need)| pg.sources(&object(o), need));
            assert_eq!(found, sources, "member: {member}");
        }
    }
}
