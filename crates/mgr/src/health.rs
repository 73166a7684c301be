//! Health checks that follow from what PGs report, by Ceph's codes and texts.

use std::time::Duration;

use spirula_maps::{OsdMap, PgPool};
use spirula_mon::text::bytes_iec;
use spirula_wire::msg::mgr::{HealthCheck, HealthChecks, health};
use spirula_wire::types::ObjectStatSum;

use crate::pg_health;
use crate::pgmap::PgMap;

/// Lines of detail in a check (`mon_health_max_detail`).
const DETAIL_MAX: usize = 50;

/// From which percentage of a quota on a pool is in a check; 0: never.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct QuotaThresholds {
    pub(crate) warn: u64,
    pub(crate) critical: u64,
}

/// Options that checks go by.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Thresholds {
    pub(crate) quotas: QuotaThresholds,
    /// For how long a PG may be unwell that only passes through a state (`mon_pg_stuck_threshold`).
    pub(crate) stuck: Duration,
}

pub(crate) fn of(pgmap: &PgMap, osdmap: &OsdMap, thresholds: Thresholds) -> HealthChecks {
    let mut found = HealthChecks::default();
    scrub_errors(pgmap, &mut found);
    pg_health::check(pgmap, osdmap, thresholds.stuck, &mut found);
    near_quotas(pgmap, osdmap, thresholds.quotas, &mut found);
    found
}

fn scrub_errors(pgmap: &PgMap, found: &mut HealthChecks) {
    let count = pgmap.pg_sum().stats.sum.num_scrub_errors;
    if count > 0 {
        let summary = format!("{count} scrub errors");
        let check = HealthCheck { severity: health::ERR, summary, detail: Vec::new(), count };
        found.checks.insert("OSD_SCRUB_ERRORS".to_owned(), check);
    }
}

/// Pools near their quota. Of those that have reached it the monitor warns.
fn near_quotas(
    pgmap: &PgMap,
    osdmap: &OsdMap,
    thresholds: QuotaThresholds,
    found: &mut HealthChecks,
) {
    if thresholds.warn == 0 && thresholds.critical == 0 {
        return;
    }
    let sums = pgmap.pool_sums();
    let (mut full, mut near) = (Listed::default(), Listed::default());
    for (id, pool) in &osdmap.pools {
        let Some(stat) = sums.get(id) else { continue };
        let name = osdmap.pool_name(*id).unwrap_or_default();
        let (mut is_full, mut is_near) = (false, false);
        for (now, max, text) in quotas(pool, &stat.stats.sum) {
            let above = |percent: u64| {
                percent > 0 && u128::from(now) * 100 >= u128::from(max) * u128::from(percent)
            };
            let line = format!("pool '{name}' has {text}");
            if above(thresholds.critical) {
                is_full = true;
                full.detail.push(line);
            } else if above(thresholds.warn) {
                is_near = true;
                near.detail.push(line);
            }
        }
        full.pools += i64::from(is_full);
        near.pools += i64::from(is_near);
    }
    let kinds = [
        ("POOL_FULL", health::ERR, "full", full),
        ("POOL_NEAR_FULL", health::WARN, "nearfull", near),
    ];
    for (code, severity, word, Listed { pools, mut detail }) in kinds {
        if pools > 0 {
            detail.truncate(DETAIL_MAX);
            let summary = format!("{pools} pools {word}");
            let check = HealthCheck { severity, summary, detail, count: pools };
            found.checks.insert(code.to_owned(), check);
        }
    }
}

#[derive(Default)]
struct Listed {
    pools: i64,
    detail: Vec<String>,
}

/// Use, quota and both as text, of each quota that is set and not reached.
fn quotas(pool: &PgPool, sum: &ObjectStatSum) -> impl Iterator<Item = (u64, u64, String)> {
    let (objects, bytes) = (sum.num_objects.max(0) as u64, sum.num_bytes.max(0) as u64);
    let (max_objects, max_bytes) = (pool.quota_max_objects, pool.quota_max_bytes);
    let texts = [
        (objects, max_objects, format!("{objects} objects (max {max_objects})")),
        (bytes, max_bytes, format!("{} (max {})", bytes_iec(bytes), bytes_iec(max_bytes))),
    ];
    texts.into_iter().filter(|(now, max, _)| *max > 0 && now < max)
}

#[cfg(test)]
mod tests {
    use spirula_wire::types::{PgId, PgStat, pg_state};

    use super::*;

    fn of(pgmap: &PgMap) -> HealthChecks {
        super::of(pgmap, &OsdMap::default(), Thresholds::default())
    }

    /// Texts and severities as of 16.2.15 for the same numbers.
    #[test]
    fn pools_near_their_quota_are_named() {
        let mut osdmap = OsdMap::default();
        let pool =
            PgPool { quota_max_objects: 20, quota_max_bytes: 1_000_000, ..PgPool::default() };
        osdmap.pools.insert(1, pool);
        osdmap.pool_names.insert(1, "qq".to_owned());
        let mut pgmap = PgMap::default();
        let mut pg = PgStat::default();
        (pg.stats.sum.num_objects, pg.stats.sum.num_bytes) = (3, 300_000);
        pgmap.pgs.insert(PgId::new(1, 0), pg);
        let found = |warn, critical| {
            let checks = super::of(
                &pgmap,
                &osdmap,
                Thresholds { quotas: QuotaThresholds { warn, critical }, stuck: Duration::MAX },
            )
            .checks;
            let each = checks.into_iter();
            each.map(|(code, c)| (code, c.severity, c.summary, c.detail)).collect::<Vec<_>>()
        };
        assert_eq!(found(0, 0), []);
        let objects = "pool 'qq' has 3 objects (max 20)".to_owned();
        let bytes = "pool 'qq' has 293 KiB (max 977 KiB)".to_owned();
        let near = |detail| {
            ("POOL_NEAR_FULL".to_owned(), health::WARN, "1 pools nearfull".to_owned(), detail)
        };
        assert_eq!(found(10, 0), [near(vec![objects.clone(), bytes.clone()])]);
        let full = ("POOL_FULL".to_owned(), health::ERR, "1 pools full".to_owned(), vec![bytes]);
        assert_eq!(found(10, 20), [full, near(vec![objects])]);
    }

    #[test]
    fn inconsistent_pgs_are_named() {
        let mut pgmap = PgMap::default();
        let mut pg = PgStat { acting: vec![2, 0], ..PgStat::default() };
        pg.set_state(pg_state::ACTIVE | pg_state::CLEAN);
        pgmap.pgs.insert(PgId::new(1, 0), pg.clone());
        assert_eq!(of(&pgmap), HealthChecks::default());
        pg.set_state(pg_state::ACTIVE | pg_state::CLEAN | pg_state::INCONSISTENT);
        pg.stats.sum.num_scrub_errors = 3;
        pgmap.pgs.insert(PgId::new(1, 10), pg);
        let checks = of(&pgmap).checks;
        assert_eq!(checks["OSD_SCRUB_ERRORS"].summary, "3 scrub errors");
        let damaged = &checks["PG_DAMAGED"];
        assert_eq!(damaged.summary, "Possible data damage: 1 pg inconsistent");
        assert_eq!(damaged.detail, ["pg 1.a is active+clean+inconsistent, acting [2,0]"]);
        assert_eq!((damaged.severity, damaged.count), (health::ERR, 1));
    }

    /// As Ceph 16.2 tells of two objects that were damaged in a pool of one copy.
    #[test]
    fn two_damaged_pgs_read_as_on_ceph() {
        let mut pgmap = PgMap::default();
        let mut pg = PgStat { acting: vec![0], ..PgStat::default() };
        pg.set_state(pg_state::ACTIVE | pg_state::CLEAN | pg_state::INCONSISTENT);
        pg.stats.sum.num_scrub_errors = 1;
        [6, 3].into_iter().for_each(|seed| drop(pgmap.pgs.insert(PgId::new(2, seed), pg.clone())));
        let checks = of(&pgmap).checks;
        let check = |summary: &str, detail: &[&str]| HealthCheck {
            severity: health::ERR,
            summary: summary.into(),
            detail: detail.iter().map(|line| (*line).to_owned()).collect(),
            count: 2,
        };
        let lines =
            ["2.3", "2.6"].map(|id| format!("pg {id} is active+clean+inconsistent, acting [0]"));
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        assert_eq!(checks["OSD_SCRUB_ERRORS"], check("2 scrub errors", &[]));
        assert_eq!(checks["PG_DAMAGED"], check("Possible data damage: 2 pgs inconsistent", &lines));
    }
}
