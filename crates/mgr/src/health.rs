//! Health checks that follow from what PGs report, by Ceph's codes and texts.

use spirula_wire::msg::mgr::{HealthCheck, HealthChecks, health};
use spirula_wire::types::pg_state;

use crate::pgmap::PgMap;

/// Lines of detail in a check (`mon_health_max_detail`).
const DETAIL_MAX: usize = 50;

pub(crate) fn of(pgmap: &PgMap) -> HealthChecks {
    let mut found = HealthChecks::default();
    let mut add = |code: &str, summary, count, detail| {
        let check = HealthCheck { severity: health::ERR, summary, detail, count };
        found.checks.insert(code.to_owned(), check);
    };
    let errors = pgmap.pg_sum().stats.sum.num_scrub_errors;
    if errors > 0 {
        add("OSD_SCRUB_ERRORS", format!("{errors} scrub errors"), errors, Vec::new());
    }
    let damaged = pgmap.pgs.iter().filter(|(_, pg)| pg.state() & pg_state::INCONSISTENT != 0);
    let mut detail: Vec<String> = damaged
        .map(|(pgid, pg)| {
            let acting: Vec<String> = pg.acting.iter().map(i32::to_string).collect();
            let state = pg_state::name(pg.state());
            format!("pg {pgid} is {state}, acting [{}]", acting.join(","))
        })
        .collect();
    let count = detail.len();
    if count > 0 {
        let s = if count == 1 { "" } else { "s" };
        let summary = format!("Possible data damage: {count} pg{s} inconsistent");
        detail.truncate(DETAIL_MAX);
        add("PG_DAMAGED", summary, count as i64, detail);
    }
    found
}

#[cfg(test)]
mod tests {
    use spirula_wire::types::{PgId, PgStat};

    use super::*;

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
}
