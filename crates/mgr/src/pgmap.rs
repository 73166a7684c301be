//! PGMap: the last report of every PG and OSD, and the sums over them.
//!
//! Invariants: sums are computed from the reports when asked for, never kept beside them, so they
//! cannot drift; a PG or OSD that left the OSDMap leaves here too.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use spirula_maps::OsdMap;
use spirula_wire::msg::osd::PgStats;
use spirula_wire::types::{
    ObjectStatSum, OsdStat, PgId, PgStat, PoolStat, StoreStatfs, UTime, pg_state,
};

/// How long ago the oldest sample is that rates are computed from.
const RATE_WINDOW: Duration = Duration::from_secs(15);
/// Samples kept at most; reports come every few seconds.
const SAMPLES_MAX: usize = 32;

/// What daemons reported last.
#[derive(Debug, Default)]
pub struct PgMap {
    /// Grows with every change; shown as `pg dump`'s version.
    pub version: u64,
    /// Wall time of the last change.
    pub stamp: Duration,
    pub pgs: BTreeMap<PgId, PgStat>,
    pub osds: BTreeMap<i32, OsdStat>,
    /// Space by pool and OSD.
    pub pool_statfs: BTreeMap<(i64, i32), StoreStatfs>,
    samples: VecDeque<Sample>,
}

#[derive(Debug)]
struct Sample {
    at: Duration,
    pools: BTreeMap<i64, ObjectStatSum>,
}

/// Change of a pool's counters over [`PgMap::rate`]'s span.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    pub span: Duration,
    pub delta: ObjectStatSum,
}

impl Rate {
    pub(crate) fn per_second(&self, n: i64) -> i64 {
        if self.span.is_zero() { 0 } else { (n.max(0) as f64 / self.span.as_secs_f64()) as i64 }
    }

    pub fn read_bytes(&self) -> i64 {
        self.per_second(self.delta.num_rd_kb << 10)
    }

    pub fn write_bytes(&self) -> i64 {
        self.per_second(self.delta.num_wr_kb << 10)
    }

    pub fn read_ops(&self) -> i64 {
        self.per_second(self.delta.num_rd)
    }

    pub fn write_ops(&self) -> i64 {
        self.per_second(self.delta.num_wr)
    }
}

impl PgMap {
    /// Takes one OSD's report. Of a PG only its primary tells, and an older report (by epoch, then
    /// sequence) is ignored. The space of an OSD that is out does not count.
    pub fn handle_report(&mut self, osd: i32, is_in: bool, report: PgStats, now: Duration) {
        let stat = report.osd_stat;
        let seq = stat.seq;
        self.osds.insert(osd, if is_in { stat } else { OsdStat { seq, ..OsdStat::default() } });
        self.pool_statfs.retain(|(_, o), _| *o != osd);
        for (pool, statfs) in report.pool_stat {
            self.pool_statfs.insert((pool, osd), statfs);
        }
        for (pgid, stat) in report.pg_stat {
            let order = |s: &PgStat| (s.reported_epoch, s.reported_seq);
            if stat.acting_primary == osd
                && self.pgs.get(&pgid).is_none_or(|known| order(known) <= order(&stat))
            {
                self.pgs.insert(pgid, stat);
            }
        }
        self.touch(now);
    }

    /// Forgets PGs and OSDs that the OSDMap no longer has, and shows new PGs as unknown, and those
    /// whose primary is gone as stale.
    pub fn handle_map(&mut self, map: &OsdMap, now: Duration) {
        let there = |pg: &PgId| map.pool(pg.pool).is_some_and(|pool| pg.seed < pool.pg_num);
        self.pgs.retain(|pg, _| there(pg));
        self.osds.retain(|osd, _| map.exists(*osd));
        for (_, stat) in self.osds.iter_mut().filter(|(osd, _)| !map.is_in(**osd)) {
            *stat = OsdStat { seq: stat.seq, ..OsdStat::default() };
        }
        self.pool_statfs.retain(|(pool, osd), _| map.pools.contains_key(pool) && map.exists(*osd));
        for (id, pool) in &map.pools {
            for seed in 0..pool.pg_num {
                self.pgs.entry(PgId::new(*id, seed)).or_insert_with(|| unknown_pg(now));
            }
        }
        let is_stale = |pg: &PgStat| pg.state() & pg_state::STALE != 0;
        let is_gone = |osd: i32| osd != -1 && !map.is_up(osd);
        let left = |pg: &&mut PgStat| !is_stale(pg) && is_gone(pg.acting_primary);
        for pg in self.pgs.values_mut().filter(left) {
            pg.set_state(pg.state() | pg_state::STALE);
            pg.last_unstale = now.into();
        }
        self.touch(now);
    }

    /// Wall time, as of the last change or look.
    pub fn now(&self) -> Duration {
        self.samples.back().map_or(self.stamp, |sample| self.stamp.max(sample.at))
    }

    fn touch(&mut self, now: Duration) {
        self.version += 1;
        self.stamp = now;
    }

    /// Notes the counters, from which rates come; call it once per reporting period.
    pub fn sample(&mut self, now: Duration) {
        let pools = self.pool_sums().into_iter().map(|(id, p)| (id, p.stats.sum)).collect();
        self.samples.push_back(Sample { at: now, pools });
        while self.samples.len() > SAMPLES_MAX
            || self.samples.len() > 2
                && self.samples.get(1).is_some_and(|s| now.saturating_sub(s.at) >= RATE_WINDOW)
        {
            self.samples.pop_front();
        }
    }

    /// The recent rate of one pool, or of all.
    pub fn rate(&self, pool: Option<i64>) -> Rate {
        let (Some(first), Some(last)) = (self.samples.front(), self.samples.back()) else {
            return Rate::default();
        };
        let total = |s: &Sample| {
            let mut sum = ObjectStatSum::default();
            s.pools
                .iter()
                .filter(|(id, _)| pool.is_none_or(|p| p == **id))
                .for_each(|(_, v)| sum.add(v));
            sum
        };
        let (a, b) = (total(first), total(last));
        let delta = ObjectStatSum {
            num_rd: b.num_rd - a.num_rd,
            num_rd_kb: b.num_rd_kb - a.num_rd_kb,
            num_wr: b.num_wr - a.num_wr,
            num_wr_kb: b.num_wr_kb - a.num_wr_kb,
            num_objects_recovered: b.num_objects_recovered - a.num_objects_recovered,
            num_bytes_recovered: b.num_bytes_recovered - a.num_bytes_recovered,
            num_keys_recovered: b.num_keys_recovered - a.num_keys_recovered,
            ..ObjectStatSum::default()
        };
        Rate { span: last.at.saturating_sub(first.at), delta }
    }

    /// The sum over each pool's PGs.
    pub fn pool_sums(&self) -> BTreeMap<i64, PoolStat> {
        let mut out: BTreeMap<i64, PoolStat> = BTreeMap::new();
        for (pgid, pg) in &self.pgs {
            add_pg(out.entry(pgid.pool).or_default(), pg);
        }
        for ((pool, _), statfs) in &self.pool_statfs {
            let sum = out.entry(*pool).or_default();
            sum.store_stats.add(statfs);
            sum.num_store_stats += 1;
        }
        out
    }

    /// The sum over all PGs.
    pub fn pg_sum(&self) -> PoolStat {
        let mut out = PoolStat::default();
        self.pgs.values().for_each(|pg| add_pg(&mut out, pg));
        out
    }

    /// The sum over all OSDs.
    pub fn osd_sum(&self) -> OsdStat {
        let mut out = OsdStat::default();
        for osd in self.osds.values() {
            out.statfs.add(&osd.statfs);
            out.num_pgs += osd.num_pgs;
            out.num_osds += 1;
            out.num_per_pool_osds += osd.num_per_pool_osds;
            out.num_per_pool_omap_osds += osd.num_per_pool_omap_osds;
        }
        out
    }

    /// PGs by state.
    pub fn states(&self) -> BTreeMap<u64, i32> {
        let mut out = BTreeMap::new();
        for pg in self.pgs.values() {
            *out.entry(pg.state()).or_default() += 1;
        }
        out
    }

    /// PGs whose acting set holds `osd`, and those it leads.
    pub fn pgs_of(&self, osd: i32) -> (i32, i32) {
        let acting = self.pgs.values().filter(|pg| pg.acting.contains(&osd)).count();
        let primary = self.pgs.values().filter(|pg| pg.acting_primary == osd).count();
        (acting as i32, primary as i32)
    }

    pub fn count(&self, wanted: impl Fn(u64) -> bool) -> u64 {
        self.pgs.values().filter(|pg| wanted(pg.state())).count() as u64
    }

    pub fn active(&self) -> u64 {
        self.count(|s| s & pg_state::ACTIVE != 0)
    }
}

/// A PG that no OSD has reported yet: no state bit, no OSDs, and well until now.
fn unknown_pg(now: Duration) -> PgStat {
    let now = UTime::from(now);
    PgStat {
        up_primary: -1,
        acting_primary: -1,
        last_fresh: now,
        last_change: now,
        last_active: now,
        last_peered: now,
        last_clean: now,
        last_unstale: now,
        last_undegraded: now,
        last_fullsized: now,
        last_scrub_stamp: now,
        last_deep_scrub_stamp: now,
        last_clean_scrub_stamp: now,
        ..PgStat::default()
    }
}

fn add_pg(sum: &mut PoolStat, pg: &PgStat) {
    sum.stats.sum.add(&pg.stats.sum);
    sum.log_size += pg.log_size;
    sum.ondisk_log_size += pg.ondisk_log_size;
    sum.up += pg.up.len() as i32;
    sum.acting += pg.acting.len() as i32;
}

#[cfg(test)]
mod tests {
    use spirula_maps::{PgPool, WEIGHT_IN, osd_state};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn report(seed: u32, seq: u64, objects: i64, writes: i64) -> PgStats {
        let mut pg = PgStat { reported_seq: seq, reported_epoch: 5, ..unknown_pg(SECOND) };
        pg.set_state(pg_state::ACTIVE | pg_state::CLEAN);
        pg.stats.sum.num_objects = objects;
        pg.stats.sum.num_wr = writes;
        (pg.acting, pg.acting_primary) = (vec![0], 0);
        let mut report =
            PgStats { pg_stat: [(PgId { pool: 1, seed }, pg)].into(), ..PgStats::default() };
        report.osd_stat.statfs.total = 1 << 30;
        report
    }

    /// Pool 1 of two PGs, and these OSDs, of which some are up.
    fn map(osds: usize, up: &[usize]) -> OsdMap {
        let mut map = OsdMap::default();
        map.pools.insert(1, PgPool::replicated(2, 1, 2, 0));
        map.set_max_osd(osds);
        for (id, osd) in map.osds.iter_mut().enumerate() {
            let is_up = if up.contains(&id) { osd_state::UP } else { 0 };
            (osd.state, osd.weight) = (osd_state::EXISTS | is_up, WEIGHT_IN);
        }
        map
    }

    #[test]
    fn reports_are_summed_and_older_ones_ignored() {
        let mut pgs = PgMap::default();
        pgs.handle_map(&map(1, &[0]), SECOND);
        assert_eq!(pgs.states(), [(0, 2)].into());
        pgs.handle_report(0, true, report(0, 2, 7, 0), SECOND);
        pgs.handle_report(0, true, report(0, 1, 3, 0), SECOND);
        assert_eq!(pgs.pool_sums()[&1].stats.sum.num_objects, 7);
        assert_eq!(pgs.active(), 1);
        assert_eq!(pgs.pgs_of(0).0, 1);
    }

    #[test]
    fn only_the_primary_tells_and_its_end_makes_stale() {
        let mut pgs = PgMap::default();
        pgs.handle_map(&map(2, &[0, 1]), SECOND);
        pgs.handle_report(1, true, report(0, 9, 7, 0), SECOND);
        assert_eq!(pgs.active(), 0, "of another OSD");
        pgs.handle_report(0, true, report(0, 9, 7, 0), SECOND);
        pgs.handle_map(&map(2, &[1]), 5 * SECOND);
        let stale = pg_state::STALE | pg_state::ACTIVE | pg_state::CLEAN;
        assert_eq!(pgs.states(), [(0, 1), (stale, 1)].into());
        pgs.handle_map(&map(2, &[1]), 9 * SECOND);
        assert_eq!(pgs.pgs[&PgId::new(1, 0)].last_unstale, UTime::from(5 * SECOND));
        let mut next = report(0, 1, 7, 0);
        next.pg_stat.values_mut().for_each(|pg| (pg.acting_primary, pg.reported_epoch) = (1, 6));
        pgs.handle_report(1, true, next, 9 * SECOND);
        assert_eq!((pgs.active(), pgs.count(|s| s & pg_state::STALE != 0)), (1, 0));
    }

    #[test]
    fn space_counts_while_an_osd_is_in() {
        let mut pgs = PgMap::default();
        let mut map = map(1, &[0]);
        pgs.handle_map(&map, SECOND);
        pgs.handle_report(0, true, report(0, 1, 1, 0), SECOND);
        assert_eq!(pgs.osd_sum().statfs.total, 1 << 30);
        map.osds[0].weight = 0;
        pgs.handle_map(&map, SECOND);
        assert_eq!(pgs.osd_sum().statfs.total, 0);
        pgs.handle_report(0, false, report(0, 2, 1, 0), SECOND);
        assert_eq!((pgs.osd_sum().statfs.total, pgs.osds.len()), (0, 1));
    }

    #[test]
    fn a_removed_pool_and_osd_leave() {
        let mut pgs = PgMap::default();
        pgs.handle_map(&map(1, &[0]), SECOND);
        pgs.handle_report(0, true, report(0, 1, 1, 0), SECOND);
        let mut next = OsdMap::default();
        next.pools.insert(2, PgPool::replicated(1, 1, 1, 0));
        pgs.handle_map(&next, SECOND);
        assert_eq!(pgs.pgs.keys().map(|p| p.pool).collect::<Vec<_>>(), [2]);
        assert!(pgs.osds.is_empty());
    }

    #[test]
    fn rates_are_per_second() {
        let mut pgs = PgMap::default();
        pgs.handle_map(&map(1, &[0]), SECOND);
        pgs.handle_report(0, true, report(0, 1, 1, 100), SECOND);
        pgs.sample(SECOND);
        let mut later = report(0, 2, 1, 300);
        later.pg_stat.values_mut().for_each(|pg| pg.stats.sum.num_objects_recovered = 8);
        pgs.handle_report(0, true, later, 3 * SECOND);
        pgs.sample(3 * SECOND);
        assert_eq!(pgs.rate(Some(1)).write_ops(), 100);
        assert_eq!(pgs.rate(Some(1)).delta.num_objects_recovered, 8);
        assert_eq!(pgs.rate(Some(9)).write_ops(), 0);
    }
}
