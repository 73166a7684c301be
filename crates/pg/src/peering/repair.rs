//! Copies of objects that turned out to be of no use: they count as missing, and recovery brings whole ones.
//! And what a scrub came to.

use std::collections::BTreeSet;

use spirula_wire::types::{EVersion, HObject, ObjectStatSum, UTime};

use super::{Peering, State};
use crate::missing::MissingObject;

/// What a scrub came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Scrubbed {
    pub deep: bool,
    pub at: UTime,
    /// Errors that are left. Only a deep scrub knows of both kinds.
    pub shallow: u64,
    pub deep_errors: u64,
}

impl Peering {
    /// The primary has the copies of `bad` replaced by one that another copy has at `need`. The members among
    /// them have to be told ([`Peering::found_bad`]) before the object is pushed. False: not now, or nobody
    /// else is known to have it.
    pub fn repair(&mut self, object: &HObject, need: EVersion, bad: &BTreeSet<i32>) -> bool {
        let mut everyone = self.members.clone();
        everyone.insert(self.me);
        let lacks = |osd: &i32| match *osd == self.me {
            true => self.missing.contains(object),
            false => self.peers.get(osd).is_none_or(|peer| {
                let missing = peer.missing.as_ref().is_none_or(|m| m.contains(object));
                missing || *object > peer.info.last_backfill
            }),
        };
        let whole = everyone.iter().filter(|osd| !bad.contains(osd)).any(|osd| !lacks(osd));
        let known = bad.is_subset(&everyone);
        if !self.is_primary() || !self.is_peered() || !whole || !known {
            return false;
        }
        let item = MissingObject { need, have: EVersion::default(), delete: false };
        for osd in bad {
            if *osd == self.me {
                self.missing.set(object.clone(), item);
                self.refresh_info();
            } else if let Some(missing) = self.peers.get_mut(osd).and_then(|p| p.missing.as_mut()) {
                missing.set(object.clone(), item);
            }
        }
        self.state = State::Active;
        self.persist_if_dirty();
        self.follow_reservation();
        true
    }

    /// A copy is told by its primary, in this interval, that what it has of an object is of no use. False: it
    /// does not follow that primary.
    pub fn found_bad(&mut self, from: i32, epoch: u32, object: &HObject, need: EVersion) -> bool {
        let follows = self.state == State::ReplicaActive
            && from == self.mapping.acting_primary
            && self.is_current(epoch);
        if follows {
            let item = MissingObject { need, have: EVersion::default(), delete: false };
            self.missing.set(object.clone(), item);
            self.refresh_info();
            self.persist_if_dirty();
        }
        follows
    }

    /// The primary's copy was compared with the others.
    pub fn scrubbed(&mut self, done: Scrubbed) {
        let last = self.info.last_update;
        let history = &mut self.info.history;
        (history.last_scrub, history.last_scrub_stamp) = (last, done.at);
        if done.deep {
            (history.last_deep_scrub, history.last_deep_scrub_stamp) = (last, done.at);
        }
        if done.shallow == 0 && done.deep_errors == 0 {
            history.last_clean_scrub_stamp = done.at;
        }
        let sum = &mut self.info.stats.stats.sum;
        sum.num_shallow_scrub_errors = done.shallow as i64;
        if done.deep {
            sum.num_deep_scrub_errors = done.deep_errors as i64;
        }
        sum.num_scrub_errors = sum.num_shallow_scrub_errors + sum.num_deep_scrub_errors;
        self.dirty_info = true;
        self.persist_if_dirty();
        if self.is_peered() {
            self.share_info();
        }
    }

    /// A PG that is made counts as scrubbed then; it is stored with what is stored next.
    pub fn begin_scrub_stamps(&mut self, now: UTime) {
        let history = &mut self.info.history;
        if history.last_scrub_stamp == UTime::default() {
            history.last_scrub_stamp = now;
            history.last_deep_scrub_stamp = now;
            history.last_clean_scrub_stamp = now;
        }
    }

    /// What scrubs found is no counter of the driver.
    pub(super) fn keep_scrub_errors(&mut self, of: &ObjectStatSum) {
        let sum = &mut self.info.stats.stats.sum;
        sum.num_scrub_errors = of.num_scrub_errors;
        sum.num_shallow_scrub_errors = of.num_shallow_scrub_errors;
        sum.num_deep_scrub_errors = of.num_deep_scrub_errors;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use spirula_maps::OsdMap;
    use spirula_wire::types::{PgId, SpgId};

    use super::*;
    use crate::interval::Mapping;
    use crate::log::tests::{entry, object, v};
    use crate::missing::Missing;
    use crate::peering::{Action, Config, Peer, Slot};
    use crate::recovery::Recover;

    /// A clean primary, osd.0, with "a" at 1'1, as its member osd.1.
    fn pg(members: &[i32]) -> Peering {
        let spgid = SpgId::whole(PgId::new(1, 0));
        let mut pg = Peering::create(0, spgid, Arc::new(OsdMap::default()), Config::default());
        let acting: Vec<i32> = [0].iter().chain(members).copied().collect();
        pg.mapping = Mapping {
            up: acting.clone(),
            size: acting.len(),
            acting,
            acting_primary: 0,
            ..Mapping::default()
        };
        pg.append(entry("a", v(1, 1), v(0, 0)));
        pg.state = State::Clean;
        pg.members = members.iter().copied().collect();
        for osd in members {
            let peer = Peer { info: pg.info.clone(), missing: Some(Missing::default()) };
            pg.peers.insert(*osd, peer);
        }
        pg
    }

    fn run(pg: &mut Peering) {
        while let Some(action) = pg.poll() {
            if matches!(action, Action::LocalReserve { .. }) {
                pg.reserved(Slot::Local);
            }
        }
    }

    #[test]
    fn bad_copies_are_missing_until_they_are_recovered() {
        for (bad, pulled) in [([0], true), ([1], false)] {
            let mut pg = pg(&[1]);
            assert!(pg.repair(&object("a"), v(1, 1), &bad.into()));
            assert_eq!(pg.state(), State::Active);
            assert_eq!(pg.holds_up_read(&object("a")).is_some(), pulled);
            assert!(pg.holds_up_write(&object("a")).is_some());
            pg.recover_soon(&object("a"));
            let next = pg.recover(1);
            assert_eq!(matches!(next[..], [Recover::Pull { .. }]), pulled, "{next:?}");
            match pulled {
                true => pg.pulled(&object("a"), v(1, 1)),
                false => pg.pushed(1, &object("a")),
            }
            assert!(pg.is_recovered() && pg.holds_up_write(&object("a")).is_none());
            run(&mut pg);
        }
    }

    #[test]
    fn the_last_good_copy_stays() {
        assert!(!pg(&[]).repair(&object("a"), v(1, 1), &[0].into()));
        assert!(!pg(&[1]).repair(&object("a"), v(1, 1), &[0, 1].into()));
        let mut one = pg(&[1]);
        assert!(one.repair(&object("a"), v(1, 1), &[1].into()));
        assert!(!one.repair(&object("a"), v(1, 1), &[0].into()));
        assert!(!pg(&[1]).repair(&object("a"), v(1, 1), &[7].into()), "no member");
        let mut filled = pg(&[1]);
        filled.peers.get_mut(&1).unwrap().info.last_backfill = HObject::min();
        assert!(!filled.repair(&object("a"), v(1, 1), &[0].into()), "backfill has not got there");
    }

    #[test]
    fn counts_of_scrubs_outlive_counters() {
        let mut pg = pg(&[1]);
        let at = UTime { sec: 9, nsec: 0 };
        pg.begin_scrub_stamps(UTime { sec: 3, nsec: 0 });
        pg.begin_scrub_stamps(UTime { sec: 4, nsec: 0 });
        assert_eq!(pg.info().history.last_deep_scrub_stamp.sec, 3);
        let errors = |pg: &Peering| {
            let sum = &pg.info().stats.stats.sum;
            (sum.num_scrub_errors, sum.num_shallow_scrub_errors, sum.num_deep_scrub_errors)
        };
        pg.scrubbed(Scrubbed { deep: true, at, shallow: 1, deep_errors: 2 });
        pg.set_counters(ObjectStatSum::default(), true, at);
        assert_eq!(errors(&pg), (3, 1, 2));
        pg.scrubbed(Scrubbed { deep: false, at, shallow: 0, deep_errors: 0 });
        assert_eq!(errors(&pg), (2, 0, 2), "a light scrub does not look at data");
        pg.scrubbed(Scrubbed { deep: true, at, ..Scrubbed::default() });
        assert_eq!(errors(&pg), (0, 0, 0));
        assert_eq!(pg.info().history.last_deep_scrub, v(1, 1));
        assert_eq!(pg.info().history.last_clean_scrub_stamp, at);
    }
}
