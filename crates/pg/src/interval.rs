//! Intervals: spans of epochs in which a PG keeps its OSDs, and who must be asked about past ones.
//!
//! An interval may have accepted writes only if its primary had its `up_thru` raised into it, which a
//! primary asks for before it activates. So a short-lived interval that nobody heard of is told from
//! one whose members must be asked.
//!
//! Source of the rules: Ceph's `PastIntervals` (v16), for replicated pools.

use std::collections::{BTreeMap, BTreeSet};

use spirula_maps::{ITEM_NONE, OsdMap, flags, pool};
use spirula_wire::types::{CompactInterval, PastIntervals, PgId, PgShard, ShardId};

/// All that a map says about a PG and that decides whether an interval goes on.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Mapping {
    pub epoch: u32,
    pub up: Vec<i32>,
    pub up_primary: i32,
    pub acting: Vec<i32>,
    pub acting_primary: i32,
    pub size: usize,
    pub min_size: usize,
    pub pg_num: u32,
    pub pg_num_pending: u32,
    /// `sortbitwise` and `recovery_deletes`.
    pub flags: u32,
}

impl Mapping {
    /// `None` if the pool is gone.
    pub fn of(map: &OsdMap, pgid: PgId) -> Option<Self> {
        let pool = map.pool(pgid.pool)?;
        let found = map.pg_to_up_acting(pgid);
        Some(Self {
            epoch: map.epoch,
            up: found.up,
            up_primary: found.up_primary,
            acting: found.acting,
            acting_primary: found.acting_primary,
            size: pool.size.into(),
            min_size: pool.min_size.into(),
            pg_num: pool.pg_num,
            pg_num_pending: pool.pg_num_pending,
            flags: map.flags & (flags::SORTBITWISE | flags::RECOVERY_DELETES),
        })
    }

    /// The acting OSDs, holes apart.
    pub fn acting_set(&self) -> BTreeSet<i32> {
        members(&self.acting).collect()
    }

    pub fn is_up(&self, osd: i32) -> bool {
        self.up.contains(&osd)
    }

    pub fn is_acting(&self, osd: i32) -> bool {
        self.acting.contains(&osd)
    }

    /// Whether enough copies act for writes.
    pub fn is_writeable(&self) -> bool {
        members(&self.acting).count() >= self.min_size.max(1)
    }

    /// `pgid` is about to be merged, or to take others in: it comes to rest before.
    pub fn is_premerge(&self, pgid: PgId) -> bool {
        let (now, soon) = (self.pg_num, self.pg_num_pending);
        is_merge_source(pgid.seed, now, soon) || is_merge_target(pgid.seed, now, soon)
    }

    /// Whether `new` begins a new interval of `pgid`.
    pub fn is_new_interval(&self, new: &Self, pgid: PgId) -> bool {
        let merges =
            |a: u32, b: u32| is_merge_source(pgid.seed, a, b) || is_merge_target(pgid.seed, a, b);
        let (pending, new_pending) = (self.pg_num_pending, new.pg_num_pending);
        self.acting_primary != new.acting_primary
            || self.acting != new.acting
            || self.up_primary != new.up_primary
            || self.up != new.up
            || self.size != new.size
            || self.min_size != new.min_size
            || self.flags != new.flags
            || is_split(pgid.seed, self.pg_num, new.pg_num)
            || merges(self.pg_num, new.pg_num)
            || merges(pending, new_pending)
            || merges(new_pending, pending)
    }
}

fn members(osds: &[i32]) -> impl Iterator<Item = i32> {
    osds.iter().copied().filter(|&osd| osd != ITEM_NONE && osd >= 0)
}

/// The PGs that `seed` is split into when there are `new` instead of `old`, itself apart.
pub fn split_children(seed: u32, old: u32, new: u32) -> Vec<u32> {
    if seed >= old || new <= old {
        return Vec::new();
    }
    (old..new).filter(|&child| parent_of(child, old) == seed).collect()
}

/// Where the objects of `seed` were when there were only `old` PGs.
fn parent_of(seed: u32, old: u32) -> u32 {
    pool::stable_mod(seed, old)
}

fn is_split(seed: u32, old: u32, new: u32) -> bool {
    seed < old && new > old && !split_children(seed, old, new).is_empty()
}

fn is_merge_source(seed: u32, old: u32, new: u32) -> bool {
    seed < old && seed >= new
}

/// Where the objects of `pgid` come to by one step of merging.
pub fn merge_parent(pgid: PgId) -> Option<PgId> {
    let highest = pgid.seed.checked_ilog2()?;
    Some(PgId { seed: pgid.seed & !(1 << highest), ..pgid })
}

fn is_merge_target(seed: u32, old: u32, new: u32) -> bool {
    seed < new && is_split(seed, new, old)
}

/// The interval that ended with `old`.
pub fn maybe_went_rw(
    old: &Mapping,
    old_map: &OsdMap,
    first: u32,
    last: u32,
    last_clean: u32,
) -> bool {
    if old.acting_primary < 0 || !old.is_writeable() {
        return false;
    }
    let was_up = old_map
        .osd(old.acting_primary)
        .is_some_and(|osd| osd.info.up_thru >= first && osd.info.up_from <= first);
    // Where the PG was clean it was recovered, so written to. Its real beginning may be unknown.
    was_up || (first..=last).contains(&last_clean)
}

/// Adds the interval of `first..=last`; members that a later interval covers need not be asked twice.
pub fn add_interval(past: &mut PastIntervals, first: u32, last: u32, acting: &[i32], rw: bool) {
    if past.first == 0 {
        past.first = first;
    }
    past.last = past.last.max(last);
    let acting: BTreeSet<PgShard> = members(acting).map(shard).collect();
    past.all_participants.extend(acting.iter().copied());
    if !rw {
        return;
    }
    past.intervals.retain(|old| !acting.is_subset(&old.acting));
    past.intervals.push(CompactInterval { first, last, acting });
}

/// How a member of a replicated PG is named.
pub fn shard(osd: i32) -> PgShard {
    PgShard { osd, shard: ShardId::NONE }
}

/// Who must be asked before a PG may become active.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PriorSet {
    /// To be asked.
    pub probe: BTreeSet<i32>,
    /// Took part, but are down.
    pub down: BTreeSet<i32>,
    /// Down, and without them writes may be unknown; with the epoch they were declared lost at.
    pub blocked_by: BTreeMap<i32, u32>,
    /// Some interval has nobody left who could be asked.
    pub pg_down: bool,
}

enum Fate {
    Up,
    Gone,
    Lost,
    Down(u32),
}

fn fate(map: &OsdMap, osd: i32, since: u32) -> Fate {
    match map.osd(osd).filter(|o| o.exists()) {
        None => Fate::Gone,
        Some(o) if o.is_up() => Fate::Up,
        Some(o) if o.info.lost_at > since => Fate::Lost,
        Some(o) => Fate::Down(o.info.lost_at),
    }
}

impl PriorSet {
    /// By `past` back to the interval in which the PG was last active, `last_epoch_started`. Those of
    /// whom it is known that they hold nothing (`blank`: new disks) cannot speak for an interval.
    pub fn build(
        past: &PastIntervals,
        last_epoch_started: u32,
        now: &Mapping,
        map: &OsdMap,
        blank: &BTreeSet<i32>,
    ) -> Self {
        let mut prior = Self::default();
        prior.probe.extend(members(&now.acting).chain(members(&now.up)));
        for member in &past.all_participants {
            match fate(map, member.osd, 0) {
                Fate::Up => prior.probe.insert(member.osd),
                _ => prior.down.insert(member.osd),
            };
        }
        for interval in past.intervals.iter().rev() {
            if interval.last < last_epoch_started {
                break;
            }
            prior.consider(interval, map, blank);
        }
        prior
    }

    fn consider(&mut self, interval: &CompactInterval, map: &OsdMap, blank: &BTreeSet<i32>) {
        let (mut survivors, mut blockers) = (0, BTreeMap::new());
        for member in &interval.acting {
            match fate(map, member.osd, interval.first) {
                Fate::Up if blank.contains(&member.osd) => {}
                // Whoever is lost counts as asked: an operator said so.
                Fate::Up | Fate::Lost => survivors += 1,
                Fate::Gone => {}
                Fate::Down(lost_at) => {
                    blockers.insert(member.osd, lost_at);
                }
            }
        }
        if survivors == 0 && !blockers.is_empty() {
            self.pg_down = true;
            self.blocked_by.extend(blockers);
        }
    }

    /// Whether `map` changes who is to be asked.
    pub fn is_affected_by(&self, map: &OsdMap) -> bool {
        self.probe.iter().any(|&osd| !map.is_up(osd))
            || self.down.iter().any(|&osd| map.is_up(osd))
            || self.blocked_by.iter().any(|(&osd, &lost_at)| {
                !map.exists(osd) || map.osd(osd).is_some_and(|o| o.info.lost_at != lost_at)
            })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use spirula_maps::{Osd, OsdInfo, osd_state};

    use super::*;

    fn osd(up: bool, up_from: u32, up_thru: u32, lost_at: u32) -> Osd {
        let state = if up { osd_state::EXISTS | osd_state::UP } else { osd_state::EXISTS };
        let info = OsdInfo { up_from, up_thru, lost_at, ..OsdInfo::default() };
        Osd { state, info, ..Osd::default() }
    }

    fn map(osds: Vec<Osd>) -> Arc<OsdMap> {
        Arc::new(OsdMap { osds, epoch: 50, ..OsdMap::default() })
    }

    fn mapping(acting: &[i32]) -> Mapping {
        Mapping {
            up: acting.into(),
            acting: acting.into(),
            up_primary: acting.first().copied().unwrap_or(-1),
            acting_primary: acting.first().copied().unwrap_or(-1),
            size: 3,
            min_size: 1,
            pg_num: 4,
            pg_num_pending: 4,
            ..Mapping::default()
        }
    }

    #[test]
    fn what_begins_a_new_interval() {
        let (pgid, old) = (PgId::new(1, 1), mapping(&[0, 1]));
        let rows: [(&str, Mapping, bool); 9] = [
            ("an epoch", Mapping { epoch: 9, ..old.clone() }, false),
            ("acting", Mapping { acting: vec![0], ..old.clone() }, true),
            ("order", Mapping { acting: vec![1, 0], ..old.clone() }, true),
            ("up", Mapping { up: vec![0], ..old.clone() }, true),
            ("primary", Mapping { acting_primary: 1, ..old.clone() }, true),
            ("min_size", Mapping { min_size: 2, ..old.clone() }, true),
            ("its own split", Mapping { pg_num: 6, ..old.clone() }, true),
            ("another's split", Mapping { pg_num: 5, ..old.clone() }, false),
            ("its own merge", Mapping { pg_num: 1, ..old.clone() }, true),
        ];
        for (what, new, is_new) in rows {
            assert_eq!(old.is_new_interval(&new, pgid), is_new, "{what}");
        }
        assert_eq!(split_children(1, 4, 12), [5, 9]);
        let merging = Mapping { pg_num_pending: 3, ..old };
        let premerge = |seed| merging.is_premerge(PgId::new(1, seed));
        assert_eq!([0, 1, 2, 3].map(premerge), [false, true, false, true]);
        assert_eq!(
            [0, 1, 3, 6].map(|s| merge_parent(PgId::new(1, s)).map(|p| p.seed)),
            [None, Some(0), Some(1), Some(2)]
        );
    }

    #[test]
    fn whether_an_interval_may_have_been_written_to() {
        let map = map(vec![osd(true, 10, 20, 0), osd(true, 5, 5, 0)]);
        let (a, b) = (mapping(&[0, 1]), mapping(&[1]));
        assert!(maybe_went_rw(&a, &map, 20, 25, 0));
        assert!(!maybe_went_rw(&a, &map, 21, 25, 0), "up_thru never came");
        assert!(!maybe_went_rw(&a, &map, 8, 9, 0), "not up at the beginning");
        assert!(maybe_went_rw(&a, &map, 21, 25, 22), "was clean");
        assert!(!maybe_went_rw(&Mapping { min_size: 2, ..b }, &map, 5, 9, 0), "too few");
        assert!(!maybe_went_rw(&mapping(&[]), &map, 5, 9, 0), "nobody");
    }

    #[test]
    fn intervals_are_kept_while_they_say_something() {
        let mut past = PastIntervals::default();
        add_interval(&mut past, 10, 19, &[0, 1, 2], true);
        add_interval(&mut past, 20, 29, &[1, 2], true);
        add_interval(&mut past, 30, 34, &[3], false);
        add_interval(&mut past, 35, 40, &[0, 2], true);
        let left: Vec<_> = past.intervals.iter().map(|i| (i.first, i.last)).collect();
        assert_eq!(left, [(20, 29), (35, 40)]);
        assert_eq!((past.first, past.last, past.all_participants.len()), (10, 40, 4));
    }

    #[test]
    fn who_must_be_asked() {
        let mut past = PastIntervals::default();
        add_interval(&mut past, 10, 19, &[0, 1], true);
        add_interval(&mut past, 20, 29, &[2], true);
        let (up, down, lost) = (osd(true, 1, 1, 0), osd(false, 1, 1, 0), osd(false, 1, 1, 30));
        let build = |osds: Vec<Osd>, les| {
            PriorSet::build(&past, les, &mapping(&[3]), &map(osds), &[4].into())
        };
        let prior = build(vec![up.clone(), down.clone(), up.clone(), up.clone()], 0);
        assert_eq!((prior.probe, prior.pg_down), ([0, 2, 3].into(), false));
        let prior = build(vec![up.clone(), up.clone(), down.clone(), up.clone()], 0);
        assert_eq!((prior.blocked_by.clone(), prior.pg_down), ([(2, 0)].into(), true));
        let back = map(vec![up.clone(), up.clone(), up.clone(), up.clone()]);
        let same = map(vec![up.clone(), up.clone(), down.clone(), up.clone()]);
        assert!(prior.is_affected_by(&back) && !prior.is_affected_by(&same));
        let prior = build(vec![up.clone(), up.clone(), lost, up.clone()], 0);
        assert!(!prior.pg_down);
        let prior = build(vec![down.clone(), down.clone(), up.clone(), up.clone()], 0);
        assert!(prior.pg_down);
        let prior = build(vec![down.clone(), down.clone(), up.clone(), up.clone()], 20);
        assert!(!prior.pg_down, "the PG was active since");
        let blank = |osds: Vec<Osd>, blank: i32| {
            PriorSet::build(&past, 0, &mapping(&[3]), &map(osds), &[blank].into()).pg_down
        };
        let all = vec![up.clone(), up.clone(), up.clone(), up.clone()];
        let one_down = vec![up.clone(), down.clone(), up.clone(), up.clone()];
        assert!(!blank(all.clone(), 0) && blank(one_down.clone(), 0) && !blank(one_down, 3));
        assert!(!blank(all, 2), "nobody else would know");
    }
}
