//! What operators are shown of a PG: whom it waits for, who may have what nobody has, and how many
//! copies of objects are not there.

use std::collections::{BTreeMap, BTreeSet};

use spirula_wire::types::{EVersion, HObject, PgInfo};

use super::{Peering, State};
use crate::interval::PriorSet;
use crate::missing::{Missing, MissingObject};

/// What is known of an OSD that may have objects that no copy is known to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// What it has is known.
    Probed,
    Querying,
    Down,
    NotQueried,
}

/// Copies of objects that are not there, or not where they belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Shortage {
    pub missing_on_primary: u64,
    pub missing: u64,
    pub degraded: u64,
    pub misplaced: u64,
    pub unfound: u64,
}

impl Peering {
    /// Who had to be asked in this interval.
    pub fn prior(&self) -> &PriorSet {
        &self.prior
    }

    /// Whose answers the present phase waits for.
    pub fn requested(&self) -> &BTreeSet<i32> {
        &self.requested
    }

    /// Who has the history that counts.
    pub fn best(&self) -> i32 {
        self.best
    }

    pub fn peer_infos(&self) -> impl Iterator<Item = (i32, &PgInfo)> {
        self.peers.iter().map(|(&osd, peer)| (osd, &peer.info))
    }

    /// Of another copy, once it is known.
    pub fn peer_missing(&self, osd: i32) -> Option<&Missing> {
        self.missing_of(osd)
    }

    /// The OSDs without whom peering does not go on (`blocked_by`).
    pub fn blocked_by(&self) -> Vec<i32> {
        match self.state {
            State::GetInfo | State::GetLog | State::GetMissing => {
                self.requested.iter().copied().collect()
            }
            State::Down | State::Incomplete => self.prior.down.iter().copied().collect(),
            _ => Vec::new(),
        }
    }

    /// Everything that some member misses, with what the first of them has.
    pub fn needs_recovery(&self) -> BTreeMap<HObject, MissingObject> {
        let of_members = self.members.iter().filter_map(|&osd| self.missing_of(osd));
        let mut all = BTreeMap::new();
        for missing in std::iter::once(&self.missing).chain(of_members) {
            for (object, item) in missing.iter() {
                all.entry(object.clone()).or_insert(*item);
            }
        }
        all
    }

    /// The OSDs that may have what no copy is known to have: those of past intervals, the members and
    /// whoever told of a copy. Nobody, if nothing is missing.
    pub fn might_have_unfound(&self) -> Vec<(i32, Probe)> {
        if !matches!(self.state, State::Activating | State::Active) || !self.recovers_by_log() {
            return Vec::new();
        }
        let past = self.past.all_participants.iter().map(|member| member.osd);
        let mut osds: BTreeSet<i32> = past.chain(self.members.iter().copied()).collect();
        osds.extend(self.peers.keys());
        osds.remove(&self.me);
        osds.into_iter().map(|osd| (osd, self.probe_of(osd))).collect()
    }

    fn probe_of(&self, osd: i32) -> Probe {
        if self.missing_of(osd).is_some() {
            Probe::Probed
        } else if self.recovery.asked.contains(&osd) {
            Probe::Querying
        } else if self.map.is_up(osd) {
            Probe::NotQueried
        } else {
            Probe::Down
        }
    }

    /// Whether nobody is left who may have what no copy is known to have: only then it may be given up.
    pub fn is_unfound_final(&self) -> bool {
        self.might_have_unfound().into_iter().all(|(osd, probe)| {
            let is_blank = |info: &PgInfo| info.is_empty() || info.does_not_exist();
            let known = self.map.osd(osd).filter(|o| o.exists());
            probe == Probe::Probed
                || self.peers.get(&osd).is_some_and(|peer| is_blank(&peer.info))
                || known.is_none_or(|o| o.info.lost_at > o.info.up_from)
        })
    }

    /// The copies that have `object` as it should be, this one included.
    pub fn locations(&self, object: &HObject, need: EVersion) -> Vec<i32> {
        let mut osds = self.sources(object, need);
        if !self.missing.contains(object) {
            osds.push(self.me);
        }
        osds.sort_unstable();
        osds
    }

    /// Of a primary with so many objects.
    pub fn shortage(&self, objects: u64) -> Shortage {
        if !matches!(self.state, State::Activating | State::Active) {
            return Shortage::default();
        }
        let count = |missing: &Missing| missing.len() as u64;
        let own = count(&self.missing);
        let acting = self.mapping.acting_set();
        let absent = self.mapping.size.saturating_sub(acting.len()) as u64;
        let lack = |osd: &i32| self.missing_of(*osd).map_or(0, count);
        let of_members: u64 = self.members.iter().map(lack).sum();
        let unfilled = |osd: &&i32| self.peers.get(*osd).is_some_and(|p| p.info.is_incomplete());
        let filling = self.backfill_targets.iter().filter(unfilled).count() as u64;
        Shortage {
            missing_on_primary: own,
            missing: own,
            degraded: own + of_members + absent * objects,
            // What a target gets for a place that nobody has is not in the wrong place.
            misplaced: filling.saturating_sub(absent) * objects,
            unfound: if own == 0 { 0 } else { self.unfound().len() as u64 },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use spirula_maps::{Osd, OsdInfo, OsdMap, osd_state};
    use spirula_wire::types::{PgId, SpgId};

    use super::*;
    use crate::interval::{Mapping, add_interval};
    use crate::log::tests::{entry, object, v};
    use crate::peering::{Config, Peer};

    fn osd(state: u32, lost_at: u32) -> Osd {
        Osd { state, info: OsdInfo { up_from: 5, lost_at, ..OsdInfo::default() }, ..Osd::default() }
    }

    /// A primary alone without "a", which 1 may have had.
    fn pg(one: Osd) -> Peering {
        let spgid = SpgId::whole(PgId::new(1, 0));
        let up = osd(osd_state::EXISTS | osd_state::UP, 0);
        let map = OsdMap { osds: vec![up.clone(), one, up], ..OsdMap::default() };
        let mut pg = Peering::create(0, spgid, Arc::new(map), Config::default());
        let e = entry("a", v(1, 1), v(0, 0));
        pg.append(e.clone());
        pg.missing.add_event(&e);
        pg.state = State::Active;
        pg.mapping = Mapping { acting: vec![0], size: 2, ..Mapping::default() };
        add_interval(&mut pg.past, 1, 2, &[0, 1], true);
        pg
    }

    #[test]
    fn what_others_may_have_is_not_given_up() {
        let (up, down) = (osd_state::EXISTS | osd_state::UP, osd_state::EXISTS);
        let mut whole = Peer::default();
        (whole.info.last_update, whole.info.history.epoch_created) = (v(1, 1), 1);
        for (what, one, peer, asked, probe, is_final) in [
            ("down", osd(down, 0), None, false, Probe::Down, false),
            ("lost before it came up", osd(down, 5), None, false, Probe::Down, false),
            ("lost", osd(down, 6), None, false, Probe::Down, true),
            ("removed", osd(0, 0), None, false, Probe::Down, true),
            ("up", osd(up, 0), None, false, Probe::NotQueried, false),
            ("up and asked", osd(up, 0), Some(whole), true, Probe::Querying, false),
            ("a new disk", osd(up, 0), Some(Peer::default()), false, Probe::NotQueried, true),
            (
                "it does not have it either",
                osd(up, 0),
                Some(Peer { missing: Some(Missing::default()), ..Peer::default() }),
                false,
                Probe::Probed,
                true,
            ),
        ] {
            let mut pg = pg(one);
            pg.peers.extend(peer.map(|peer| (1, peer)));
            pg.recovery.asked.extend(asked.then_some(1));
            assert_eq!(pg.might_have_unfound(), [(1, probe)], "{what}");
            assert_eq!(pg.is_unfound_final(), is_final, "{what}");
        }
    }

    /// As 16.2.15 counted: a pool of two copies, six objects, three of them unfound, the other OSD down.
    #[test]
    fn copies_that_are_not_there_are_counted() {
        let mut pg = pg(osd(osd_state::EXISTS, 0));
        for (name, n) in [("b", 2), ("c", 3)] {
            pg.missing.add_event(&entry(name, v(1, n), v(0, 0)));
        }
        let lacks =
            Shortage { missing_on_primary: 3, missing: 3, degraded: 9, misplaced: 0, unfound: 3 };
        assert_eq!(pg.shortage(6), lacks);
        assert_eq!(pg.needs_recovery().len(), 3);
        assert!(pg.locations(&object("a"), v(1, 1)).is_empty());
        pg.missing = Missing::default();
        assert_eq!(pg.locations(&object("a"), v(1, 1)), [0]);
        assert_eq!(pg.shortage(6), Shortage { degraded: 6, ..Shortage::default() });
        pg.mapping.acting = vec![0, 1];
        pg.backfill_targets = [2].into();
        let filling = PgInfo { last_backfill: HObject::min(), ..PgInfo::default() };
        pg.peers.insert(2, Peer { info: filling, missing: None });
        assert_eq!(pg.shortage(6), Shortage { misplaced: 6, ..Shortage::default() });
    }

    #[test]
    fn whom_peering_waits_for() {
        let mut pg = pg(osd(osd_state::EXISTS, 0));
        pg.requested = [2].into();
        pg.prior.down = [1].into();
        for (state, want) in [
            (State::GetInfo, vec![2]),
            (State::GetLog, vec![2]),
            (State::GetMissing, vec![2]),
            (State::Down, vec![1]),
            (State::Incomplete, vec![1]),
            (State::WaitUpThru, vec![]),
            (State::Active, vec![]),
        ] {
            pg.state = state;
            assert_eq!(pg.blocked_by(), want, "{state:?}");
        }
    }
}
