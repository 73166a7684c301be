//! Whose history counts, and who acts on it.
//!
//! Source of the rules: Ceph's `find_best_info` and `calc_replicated_acting` (v16).

use std::collections::{BTreeMap, BTreeSet};

use spirula_wire::types::{EVersion, PgInfo};

use crate::interval::Mapping;

/// The copies that are known, by OSD.
pub type Infos = BTreeMap<i32, PgInfo>;

/// The copy with the authoritative history.
///
/// Only copies that were made active in the last interval in which the PG was active know all of
/// its acknowledged writes; of those the newest, then the one with the longest log, then `me`.
pub fn find_best(infos: &Infos, me: i32) -> Option<i32> {
    let started = |info: &PgInfo| {
        let own = if info.is_incomplete() { 0 } else { info.last_epoch_started };
        own.max(info.history.last_epoch_started)
    };
    let last_started = infos.values().map(started).max()?;
    let knows = |info: &PgInfo| info.last_epoch_started >= last_started;
    let enough = infos.values().filter(|i| knows(i)).map(|i| i.last_update).min()?;
    let candidates =
        infos.iter().filter(|(_, i)| knows(i) && !i.is_incomplete() && i.last_update >= enough);
    let better = |(osd, info): &(&i32, &PgInfo)| {
        let tail = std::cmp::Reverse(info.log_tail);
        (info.last_update, tail, **osd == me, std::cmp::Reverse(**osd))
    };
    candidates.max_by_key(better).map(|(osd, _)| *osd)
}

/// Who should act, and who else is kept up to date.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Choice {
    /// Has the authoritative log.
    pub best: i32,
    /// The acting set that is wanted, primary first.
    pub acting: Vec<i32>,
    /// To be filled by a scan of all objects: the log does not reach them.
    pub backfill: BTreeSet<i32>,
}

impl Choice {
    /// All who get every write.
    pub fn everyone(&self) -> BTreeSet<i32> {
        self.acting.iter().chain(&self.backfill).copied().collect()
    }
}

/// Chooses by what is known; `None` if no copy has the whole history.
pub fn choose(infos: &Infos, me: i32, now: &Mapping) -> Option<Choice> {
    let best = find_best(infos, me)?;
    let best_info = infos.get(&best)?;
    let follows = |osd: i32, tail: EVersion| {
        infos.get(&osd).is_some_and(|i| !i.is_incomplete() && i.last_update >= tail)
    };
    let up_primary = Some(now.up_primary).filter(|&osd| follows(osd, best_info.log_tail));
    let primary = up_primary.unwrap_or(best);
    let primary_tail = infos.get(&primary)?.log_tail;
    let mut choice = Choice { best, acting: vec![primary], ..Choice::default() };
    // The log that is fetched reaches back to whoever of them is oldest.
    let tail = primary_tail.min(best_info.log_tail);
    for &osd in now.up.iter().filter(|&&osd| osd != primary && osd >= 0) {
        if choice.acting.len() >= now.size {
            break;
        }
        if follows(osd, tail) {
            choice.acting.push(osd);
        } else if infos.contains_key(&osd) {
            choice.backfill.insert(osd);
        }
    }
    let others = now.acting.iter().chain(infos.keys());
    for &osd in others.filter(|osd| !now.up.contains(osd)) {
        if choice.acting.len() >= now.size {
            break;
        }
        if !choice.acting.contains(&osd) && follows(osd, primary_tail) {
            choice.acting.push(osd);
        }
    }
    Some(choice)
}

#[cfg(test)]
mod tests {
    use spirula_wire::types::HObject;

    use super::*;
    use crate::log::tests::v;

    fn info(update: EVersion, tail: EVersion, started: u32) -> PgInfo {
        PgInfo {
            last_update: update,
            log_tail: tail,
            last_epoch_started: started,
            ..PgInfo::default()
        }
    }

    fn incomplete(mut info: PgInfo) -> PgInfo {
        info.last_backfill = HObject::min();
        info
    }

    #[test]
    fn the_best_copy() {
        let rows: [(&str, Vec<PgInfo>, Option<i32>); 7] = [
            ("newest", vec![info(v(2, 5), v(0, 0), 3), info(v(2, 6), v(0, 0), 3)], Some(1)),
            ("longest log", vec![info(v(2, 5), v(0, 3), 3), info(v(2, 5), v(0, 1), 3)], Some(1)),
            ("me", vec![info(v(2, 5), v(0, 1), 3), info(v(2, 5), v(0, 1), 3)], Some(0)),
            ("started later", vec![info(v(2, 9), v(0, 0), 2), info(v(2, 6), v(0, 0), 3)], Some(1)),
            (
                "whole",
                vec![incomplete(info(v(2, 9), v(0, 0), 3)), info(v(2, 6), v(0, 0), 3)],
                Some(1),
            ),
            ("nobody whole", vec![incomplete(info(v(2, 9), v(0, 0), 3))], None),
            ("nobody", vec![], None),
        ];
        for (what, infos, best) in rows {
            let infos: Infos = (0..).zip(infos).collect();
            assert_eq!(find_best(&infos, 0), best, "{what}");
        }
        let mut told = info(v(2, 9), v(0, 0), 2);
        told.history.last_epoch_started = 3;
        assert_eq!(
            find_best(&[(0, told)].into(), 0),
            None,
            "the PG was active later than this copy"
        );
    }

    fn mapping(up: &[i32], acting: &[i32]) -> Mapping {
        Mapping {
            up: up.into(),
            acting: acting.into(),
            up_primary: up[0],
            acting_primary: acting[0],
            size: 3,
            min_size: 2,
            ..Mapping::default()
        }
    }

    #[test]
    fn who_acts() {
        let full = info(v(5, 50), v(4, 40), 5);
        let behind = info(v(4, 45), v(4, 30), 4);
        let old = info(v(1, 5), v(0, 0), 1);
        let infos = |list: [&PgInfo; 4]| -> Infos { (0..).zip(list.map(Clone::clone)).collect() };
        let choose_in = |list, up: &[i32], acting: &[i32]| {
            let c = choose(&infos(list), acting[0], &mapping(up, acting)).unwrap();
            (c.acting, c.backfill.into_iter().collect::<Vec<_>>())
        };
        assert_eq!(
            choose_in([&full, &full, &full, &old], &[0, 1, 2], &[0, 1, 2]),
            (vec![0, 1, 2], vec![])
        );
        assert_eq!(
            choose_in([&full, &behind, &full, &old], &[1, 0, 2], &[1, 0, 2]),
            (vec![1, 0, 2], vec![]),
            "the log reaches"
        );
        assert_eq!(
            choose_in([&full, &full, &full, &old], &[3, 0, 1], &[3, 0, 1]),
            (vec![0, 1, 2], vec![3]),
            "a stray helps"
        );
        assert_eq!(
            choose_in([&full, &full, &old, &old], &[0, 1, 3], &[0, 1, 3]),
            (vec![0, 1], vec![3])
        );
        assert_eq!(
            choose_in([&full, &old, &full, &full], &[0, 1, 3], &[0, 2, 3]),
            (vec![0, 3, 2], vec![1])
        );
    }
}
