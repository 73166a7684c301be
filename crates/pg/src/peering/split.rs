//! A PG becomes two: its copy here hands over what belongs to the child. Or it takes others in, whose
//! objects are its own from then on.

use spirula_maps::PgMergeMeta;
use spirula_maps::pool::stable_mod;
use spirula_wire::types::{EVersion, HObject, PgHistory, PgId, PgInfo, SpgId};

use super::{Action, Config, Peering, State, Stored};
use crate::interval::merge_parent;
use crate::merge::Rewind;
use crate::missing::Missing;

impl Peering {
    /// Takes off what is `child`'s, after [`Peering::advance`] to the map in which it first is there. The
    /// driver gives it the objects in the transaction in which it stores both.
    ///
    /// Both keep the history and the intervals of the past, which the child's copies took part in as
    /// this PG, and head and tail of the log: a copy of the child connects with another one if the copies
    /// of the parent did. Where backfill had not come to its end it begins anew.
    ///
    /// Source of the rules: Ceph's `PeeringState::split_into` (v16).
    pub fn split_off(&mut self, child: PgId) -> Self {
        let pg_num = self.mapping.pg_num;
        let in_child = |object: &HObject| stable_mod(object.hash, pg_num) == child.seed;
        let pgid = SpgId { pgid: child, shard: self.pgid.shard };
        let config = Config { lease: self.lease.interval, log: self.log.limits() };
        let mut new = Self::unknown(self.me, pgid, self.map.clone(), config);
        (new.log, new.missing) = (self.log.split(in_child), self.missing.split(in_child));
        let epoch = self.map.epoch;
        self.info.history.last_epoch_split = epoch;
        if self.info.is_incomplete() {
            self.info.last_backfill = HObject::min();
        }
        new.info = PgInfo { pgid, ..self.info.clone() };
        new.info.history.epoch_created = epoch;
        if new.mapping.acting_primary != self.mapping.acting_primary {
            new.info.history.same_primary_since = epoch;
        }
        (new.past, new.lease, new.now) = (self.past.clone(), self.lease.clone(), self.now);
        new.state = self.state;
        for half in [&mut *self, &mut new] {
            half.refresh_info();
            half.dirty_log = true;
        }
        new
    }

    /// Takes what was to be done off, before the driver stores all that is known ([`Peering::stored`]):
    /// what is still to be undone is given back. The rest was of an interval that is over.
    pub fn drain_rewinds(&mut self) -> Vec<Rewind> {
        let rewinds = |action| match action {
            Action::Rewind(rewind) => Some(rewind),
            _ => None,
        };
        self.out.drain(..).filter_map(rewinds).collect()
    }

    /// Takes in the copies here of PGs that are merged into this one (none: there is no copy here), with
    /// the map in which that is first so and before [`Peering::advance`] to it. The driver moves the
    /// objects in the same transaction.
    ///
    /// A copy with everything that `merged` (of the pool, in that map) says the PGs came to is whole; any
    /// other begins anew as a backfill target. The monitor knows that from [`Peering::ready_to_merge`];
    /// where it says nothing, copies at several OSDs are taken for whole though they may differ. A log is
    /// of no use then: all becomes duplicates.
    ///
    /// Source of the rules: Ceph's `PeeringState::merge_from` (v16).
    pub fn merge_in(&mut self, sources: Vec<Option<Stored>>, merged: &PgMergeMeta) {
        let named = merged.source_pgid != PgId::default();
        let is_at = |info: &PgInfo, version: EVersion| {
            let whole = !info.does_not_exist()
                && !info.is_incomplete()
                && info.last_complete == info.last_update;
            whole && (!named || info.last_update == version)
        };
        let here = self.pgid.pgid;
        let mut whole = is_at(&self.info, merged.target_version)
            && (!named || merge_parent(merged.source_pgid) == Some(here));
        let mut found = None;
        self.log.trim(self.log.head());
        for source in sources {
            let Some(source) = source.filter(|s| !s.info.does_not_exist()) else {
                whole = false;
                continue;
            };
            whole &= is_at(&source.info, merged.source_version)
                && source.missing.is_empty()
                && (!named || source.info.pgid.pgid == merged.source_pgid);
            self.take_in(&source);
            found.get_or_insert(source.info.history);
        }
        whole &= self.missing.is_empty();
        self.missing = Missing::default();
        if !whole {
            self.info.last_backfill = HObject::min();
        }
        if let Some(history) = found.filter(|_| self.info.last_epoch_started == 0) {
            self.begin_by_merge(history, merged);
        }
        self.refresh_info();
        self.dirty_log = true;
    }

    /// About to be merged and at rest: the version that every copy has come to, for the monitor, with
    /// the epochs of `history`.
    pub fn ready_to_merge(&self) -> Option<EVersion> {
        let rests = self.state == State::Clean && self.log.horizon() == self.info.last_update;
        let version = self.info.last_update;
        (rests && self.is_primary() && self.is_premerge()).then_some(version)
    }

    fn take_in(&mut self, source: &Stored) {
        self.log.merge(source.log.clone());
        let (info, from) = (&mut self.info, &source.info);
        info.stats.stats.sum.add(&from.stats.stats.sum);
        info.last_user_version = info.last_user_version.max(from.last_user_version);
        // Those who place PGs put these together before they are merged: they had the same OSDs.
        if self.past.is_empty() {
            self.past.clone_from(&source.past);
        }
    }

    /// There was no copy of this PG here: it takes over a source's past, as far as that goes with what
    /// the PG itself reported.
    fn begin_by_merge(&mut self, source: PgHistory, merged: &PgMergeMeta) {
        let started = merged.last_epoch_started;
        let history = &mut self.info.history;
        *history = source;
        history.last_epoch_clean = merged.last_epoch_clean;
        history.last_epoch_started = started;
        if started < history.same_interval_since {
            history.same_interval_since = merged.last_epoch_clean;
            history.same_up_since = history.same_up_since.min(merged.last_epoch_clean);
            history.same_primary_since = history.same_primary_since.min(merged.last_epoch_clean);
        }
        self.info.last_epoch_started = started;
        if !self.past.is_empty() {
            self.past.first = self.past.first.min(merged.last_epoch_clean);
        }
        if self.state == State::Unknown {
            self.state = State::Reset;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use spirula_maps::{OsdMap, PgPool};

    use super::*;
    use crate::log::tests::{entry, object, v};

    #[test]
    fn objects_go_by_their_hash() {
        let pgid = SpgId::whole(PgId::new(1, 0));
        let map = |epoch, pg_num| {
            let pool = PgPool::replicated(2, 1, pg_num, 0);
            Arc::new(OsdMap { epoch, pools: [(1, pool)].into(), ..OsdMap::default() })
        };
        for whole in [true, false] {
            let mut pg = Peering::create(0, pgid, map(1, 1), Config::default());
            for (n, name) in (1..).zip(["a", "b", "c", "d"]) {
                pg.append(entry(name, v(1, n), EVersion::default()));
            }
            pg.missing.add_event(&entry("b", v(1, 2), EVersion::default()));
            pg.refresh_info();
            pg.mapping.acting = vec![0, 1];
            if !whole {
                pg.info.last_backfill = object("a");
            }
            pg.advance(map(2, 2), Duration::ZERO);
            // "a" is 0x61.
            let child = pg.split_off(PgId::new(1, 1));
            let names = |log: &crate::PgLog| -> Vec<u8> {
                log.entries().map(|e| e.object.oid[0]).collect()
            };
            assert_eq!((names(&pg.log), names(&child.log)), (b"bd".to_vec(), b"ac".to_vec()));
            assert_eq!((pg.missing.len(), child.missing.len()), (1, 0));
            assert_eq!((pg.info.last_update, child.info.last_update), (v(1, 4), v(1, 4)));
            assert_eq!((pg.info.last_complete, child.info.last_complete), (v(0, 0), v(1, 4)));
            assert_eq!((child.info.pgid, child.state), (child.pgid, State::Reset));
            assert_eq!(child.pgid.to_string(), "1.1");
            // The child's past is that of the copies that it was part of.
            assert_eq!((child.past.clone(), child.past.last), (pg.past.clone(), 1));
            assert_eq!(child.past.all_participants.len(), 2);
            for half in [&pg, &child] {
                let history = &half.info.history;
                assert_eq!((history.same_interval_since, history.last_epoch_split), (2, 2));
                assert_eq!(half.info.is_incomplete(), !whole);
                assert_eq!(half.info.last_backfill == HObject::min(), !whole);
            }
        }
    }

    fn copy(seed: u32, names: &[&'static str]) -> Peering {
        let map = Arc::new(OsdMap { epoch: 5, ..OsdMap::default() });
        let pgid = SpgId::whole(PgId::new(1, seed));
        let mut pg = Peering::create(0, pgid, map, Config::default());
        for (n, name) in (1..).zip(names) {
            pg.append(entry(name, v(1, n), EVersion::default()));
        }
        pg.info.last_epoch_started = 4;
        pg
    }

    #[test]
    fn a_copy_is_whole_after_a_merge_if_it_has_what_the_pgs_came_to() {
        let merged = PgMergeMeta {
            source_pgid: PgId::new(1, 1),
            source_version: v(1, 3),
            target_version: v(1, 2),
            last_epoch_started: 6,
            last_epoch_clean: 7,
            ..PgMergeMeta::default()
        };
        let source = || copy(1, &["a", "c", "e"]).stored();
        let target = || copy(0, &["b", "d"]);
        let behind = copy(1, &["a", "c"]).stored();
        let mut lacks = source();
        lacks.missing.add_event(&entry("a", v(1, 1), v(0, 0)));
        let mut unfilled = source();
        unfilled.info.last_backfill = HObject::min();
        let other = PgMergeMeta { source_pgid: PgId::new(1, 2), ..merged.clone() };
        let rows: [(&str, Peering, Option<Stored>, &PgMergeMeta, bool); 9] = [
            ("both", target(), Some(source()), &merged, true),
            ("no word", target(), Some(source()), &PgMergeMeta::default(), true),
            ("no source", target(), None, &merged, false),
            ("source behind", target(), Some(behind), &merged, false),
            ("target behind", copy(0, &["b"]), Some(source()), &merged, false),
            ("target ahead", copy(0, &["b", "d", "f"]), Some(source()), &merged, false),
            ("source lacks", target(), Some(lacks), &merged, false),
            ("source unfilled", target(), Some(unfilled), &merged, false),
            ("others", target(), Some(source()), &other, false),
        ];
        for (what, mut pg, source, merged, whole) in rows {
            let had = pg.log.head();
            let head = source.iter().fold(had, |head, s| head.max(s.info.last_update));
            pg.merge_in(vec![source], merged);
            assert_eq!(!pg.info.is_incomplete(), whole, "{what}");
            assert_eq!((pg.info.last_update, pg.info.log_tail), (head, head), "{what}");
            assert_eq!((pg.log.len(), pg.info.last_complete), (0, head), "{what}");
        }
        let mut pg = target();
        pg.merge_in(vec![Some(source())], &merged);
        for name in ["b", "e"] {
            let version = if name == "b" { 1 } else { 3 };
            assert!(pg.log.find(&entry(name, v(1, version), v(0, 0)).reqid).is_some());
        }
        // Without a copy of its own.
        let map = Arc::new(OsdMap { epoch: 5, ..OsdMap::default() });
        let mut pg = Peering::unknown(0, SpgId::whole(PgId::new(1, 0)), map, Config::default());
        pg.merge_in(vec![Some(source())], &merged);
        let history = &pg.info.history;
        assert!(pg.info.is_incomplete() && !pg.info.does_not_exist());
        assert_eq!((history.last_epoch_started, history.last_epoch_clean), (6, 7));
        assert_eq!((pg.info.last_epoch_started, pg.state), (6, State::Reset));
    }
}
