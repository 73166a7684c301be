//! The PGMap digest: what the monitor shows of the statistics.

use std::collections::BTreeMap;

use spirula_maps::digest::{PgCount, PgMapDigest};
use spirula_maps::{OsdMap, SnapIntervals};
use spirula_wire::types::{OsdStat, PoolStat, UTime};

use crate::pgmap::{PgMap, Rate};

pub(crate) fn of(pgmap: &PgMap, osdmap: &OsdMap) -> PgMapDigest {
    let pool_sums = pgmap.pool_sums();
    let total = pgmap.rate(None);
    let pool_rates = osdmap.pools.keys().map(|id| (*id, pgmap.rate(Some(*id))));
    let pool_rates: BTreeMap<i64, Rate> = pool_rates.collect();
    PgMapDigest {
        num_pg: pgmap.pgs.len() as i64,
        num_pg_active: pgmap.active() as i64,
        num_pg_unknown: pgmap.count(|s| s == 0) as i64,
        num_osd: pgmap.osds.len() as i64,
        pg_pool_sum: pool_sums.into_iter().map(|(id, sum)| (id as i32, sum)).collect(),
        pg_sum: pgmap.pg_sum(),
        osd_sum: pgmap.osd_sum(),
        num_pg_by_state: pgmap.states(),
        num_pg_by_osd: pg_counts(pgmap),
        num_pg_by_pool: pg_by_pool(pgmap),
        osd_last_seq: pgmap.osds.values().map(|o| o.seq).collect(),
        per_pool_sum_delta: pool_rates.iter().map(|(id, r)| (*id, (delta(r), span(r)))).collect(),
        per_pool_sum_deltas_stamps: BTreeMap::new(),
        pg_sum_delta: delta(&total),
        stamp_delta: span(&total),
        avail_space_by_rule: avail_by_rule(pgmap, osdmap),
        purged_snaps: purged_snaps(pgmap),
        osd_sum_by_class: by_class(pgmap, osdmap),
    }
}

/// The snapshots that every PG of a pool has purged; nothing of a pool with a PG that did not report.
fn purged_snaps(pgmap: &PgMap) -> BTreeMap<i64, SnapIntervals> {
    let mut out: BTreeMap<i64, SnapIntervals> = BTreeMap::new();
    for (pgid, pg) in &pgmap.pgs {
        let mut purged = SnapIntervals::default();
        if pg.state() != 0 {
            pg.purged_snaps.iter().for_each(|(start, len)| purged.insert(start.0, *len));
        }
        out.entry(pgid.pool).and_modify(|all| *all = all.intersection(&purged)).or_insert(purged);
    }
    out.retain(|_, snaps| !snaps.is_empty());
    out
}

fn delta(rate: &Rate) -> PoolStat {
    let mut out = PoolStat::default();
    out.stats.sum = rate.delta;
    out
}

fn span(rate: &Rate) -> UTime {
    UTime::from(rate.span)
}

fn pg_counts(pgmap: &PgMap) -> BTreeMap<i32, PgCount> {
    let mut out: BTreeMap<i32, PgCount> = BTreeMap::new();
    for pg in pgmap.pgs.values() {
        pg.acting.iter().for_each(|osd| out.entry(*osd).or_default().acting += 1);
        let moved = pg.up.iter().filter(|osd| !pg.acting.contains(osd));
        moved.for_each(|osd| out.entry(*osd).or_default().up_not_acting += 1);
        if pg.acting_primary >= 0 {
            out.entry(pg.acting_primary).or_default().primary += 1;
        }
    }
    out
}

fn pg_by_pool(pgmap: &PgMap) -> BTreeMap<i64, i64> {
    let mut out = BTreeMap::new();
    pgmap.pgs.keys().for_each(|pg| *out.entry(pg.pool).or_default() += 1);
    out
}

/// How much each CRUSH rule can still take: the OSD that fills first decides.
fn avail_by_rule(pgmap: &PgMap, osdmap: &OsdMap) -> BTreeMap<i32, i64> {
    let rules = osdmap.crush.rule_names.keys();
    rules
        .map(|rule| (*rule, avail(pgmap, osdmap, &osdmap.crush.rule_devices(*rule as u32))))
        .collect()
}

fn avail(pgmap: &PgMap, osdmap: &OsdMap, weights: &BTreeMap<i32, u32>) -> i64 {
    let total: f64 = weights.values().map(|w| f64::from(*w)).sum();
    let mut least = f64::INFINITY;
    for (osd, weight) in weights.iter().filter(|(_, w)| **w > 0) {
        let Some(stat) = pgmap.osds.get(osd) else { continue };
        let kept_free = stat.statfs.total as f64 * (1.0 - f64::from(osdmap.full_ratio));
        let free = (stat.statfs.available as f64 - kept_free).max(0.0);
        least = least.min(free * total / f64::from(*weight));
    }
    if least.is_finite() { least as i64 } else { 0 }
}

fn by_class(pgmap: &PgMap, osdmap: &OsdMap) -> BTreeMap<String, OsdStat> {
    let mut out: BTreeMap<String, OsdStat> = BTreeMap::new();
    for (id, osd) in &pgmap.osds {
        let Some(class) = osdmap.crush.item_class(*id) else { continue };
        let sum = out.entry(class.to_owned()).or_default();
        sum.statfs.add(&osd.statfs);
        sum.num_osds += 1;
        sum.num_pgs += osd.num_pgs;
    }
    out
}

#[cfg(test)]
mod tests {
    use spirula_wire::types::{PgId, PgStat, SnapId, pg_state};

    use super::*;

    #[test]
    fn a_snapshot_is_purged_when_no_pg_has_it() {
        let mut pgmap = PgMap::default();
        let pg = |state, purged: &[(u64, u64)]| {
            let purged_snaps = purged.iter().map(|(start, len)| (SnapId(*start), *len)).collect();
            let mut pg = PgStat { purged_snaps, ..PgStat::default() };
            pg.set_state(state);
            pg
        };
        pgmap.pgs.insert(PgId::new(1, 0), pg(pg_state::ACTIVE, &[(1, 5)]));
        assert_eq!(purged_snaps(&pgmap), [(1, SnapIntervals([(1, 5)].into()))].into());
        pgmap.pgs.insert(PgId::new(1, 1), pg(pg_state::ACTIVE, &[(2, 1), (4, 9)]));
        assert_eq!(purged_snaps(&pgmap)[&1].0, [(2, 1), (4, 2)].into());
        pgmap.pgs.insert(PgId::new(1, 2), pg(0, &[(1, 9)]));
        assert_eq!(purged_snaps(&pgmap), BTreeMap::new());
    }
}
