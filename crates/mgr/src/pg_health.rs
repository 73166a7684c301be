//! Health checks that follow from the states of PGs: which data cannot be reached, has too few copies, is
//! damaged or unfound. Codes, texts and the order of their parts are Ceph's.

use std::collections::BTreeMap;
use std::time::Duration;

use spirula_maps::{ITEM_NONE, OsdMap};
use spirula_mon::text;
use spirula_wire::msg::mgr::{HealthCheck, HealthChecks, health};
use spirula_wire::types::{ObjectStatSum, PgId, PgStat, UTime, pg_state};

use crate::pgmap::PgMap;

/// Lines of detail after which no further PG is described (`mon_health_max_detail`).
const DETAIL_MAX: usize = 50;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Consequence {
    Unavailable,
    Degraded,
    BackfillFull,
    Damaged,
    RecoveryFull,
}

use Consequence::{BackfillFull, Damaged, Degraded, RecoveryFull, Unavailable};

impl Consequence {
    /// Code, severity, and how its summary begins.
    fn words(self) -> (&'static str, u8, &'static str) {
        match self {
            Unavailable => ("PG_AVAILABILITY", health::WARN, "Reduced data availability: "),
            Degraded => ("PG_DEGRADED", health::WARN, "Degraded data redundancy: "),
            BackfillFull => (
                "PG_BACKFILL_FULL",
                health::WARN,
                "Low space hindering backfill (add storage if this doesn't resolve itself): ",
            ),
            Damaged => ("PG_DAMAGED", health::ERR, "Possible data damage: "),
            RecoveryFull => ("PG_RECOVERY_FULL", health::ERR, "Full OSDs blocking recovery: "),
        }
    }
}

/// A state bit and what it means for users.
struct Response {
    bit: u64,
    name: &'static str,
    consequence: Consequence,
    /// Without the bit a PG is unwell, not with it.
    inverted: bool,
    /// When the PG was well last: it counts once that was long ago. Without: at once.
    well: Option<fn(&PgStat) -> UTime>,
}

const fn at_once(bit: u64, name: &'static str, consequence: Consequence) -> Response {
    Response { bit, name, consequence, inverted: false, well: None }
}

const fn when_stuck(
    bit: u64,
    name: &'static str,
    consequence: Consequence,
    well: fn(&PgStat) -> UTime,
) -> Response {
    Response { bit, name, consequence, inverted: false, well: Some(well) }
}

/// By bit, which is the order in texts.
const RESPONSES: &[Response] = &[
    Response {
        inverted: true,
        ..when_stuck(pg_state::ACTIVE, "inactive", Unavailable, last_active)
    },
    at_once(pg_state::DOWN, "down", Unavailable),
    at_once(pg_state::RECOVERY_UNFOUND, "recovery_unfound", Damaged),
    at_once(pg_state::BACKFILL_UNFOUND, "backfill_unfound", Damaged),
    at_once(pg_state::DEGRADED, "degraded", Degraded),
    at_once(pg_state::INCONSISTENT, "inconsistent", Damaged),
    when_stuck(pg_state::PEERING, "peering", Unavailable, last_peered),
    at_once(pg_state::INCOMPLETE, "incomplete", Unavailable),
    when_stuck(pg_state::STALE, "stale", Unavailable, |pg| pg.last_unstale),
    at_once(pg_state::BACKFILL_TOOFULL, "backfill_toofull", BackfillFull),
    when_stuck(pg_state::UNDERSIZED, "undersized", Degraded, |pg| pg.last_fullsized),
    at_once(pg_state::RECOVERY_TOOFULL, "recovery_toofull", RecoveryFull),
    at_once(pg_state::SNAPTRIM_ERROR, "snaptrim_error", Damaged),
];

fn last_active(pg: &PgStat) -> UTime {
    pg.last_active
}

fn last_peered(pg: &PgStat) -> UTime {
    pg.last_active.max(pg.last_peered)
}

/// What is wrong in one way.
#[derive(Default)]
struct Causes {
    /// Index of the response -> PGs.
    counts: BTreeMap<usize, i64>,
    lines: BTreeMap<PgId, String>,
}

/// Adds what the PGs' states as of `now` are about; those that only pass count after `stuck`.
pub(crate) fn check(pgmap: &PgMap, osdmap: &OsdMap, stuck: Duration, found: &mut HealthChecks) {
    let now = pgmap.now();
    let mut detected: BTreeMap<Consequence, Causes> = BTreeMap::new();
    for (pgid, pg) in &pgmap.pgs {
        for (at, response) in RESPONSES.iter().enumerate() {
            if !response.applies(pg, now.saturating_sub(stuck)) {
                continue;
            }
            let causes = detected.entry(response.consequence).or_default();
            *causes.counts.entry(at).or_default() += 1;
            if causes.lines.len() <= DETAIL_MAX {
                let line = response.line(*pgid, pg, now) + &hint(*pgid, pg, osdmap);
                causes.lines.insert(*pgid, line);
            }
        }
    }
    let sum = pgmap.pg_sum().stats.sum;
    for (consequence, causes) in detected {
        let (code, severity, begin) = consequence.words();
        let degraded = degraded_text(&sum).filter(|_| consequence == Degraded);
        let counted = causes.counts.iter().map(|(at, n)| {
            let s = if *n > 1 { "s" } else { "" };
            format!("{n} pg{s} {}", RESPONSES[*at].name)
        });
        let parts: Vec<String> = degraded.into_iter().chain(counted).collect();
        let summary = format!("{begin}{}", parts.join(", "));
        let detail = causes.lines.into_values().collect();
        let count = causes.counts.values().sum();
        found.checks.insert(code.to_owned(), HealthCheck { severity, summary, detail, count });
    }
    unfound(pgmap, &sum, found);
}

impl Response {
    fn applies(&self, pg: &PgStat, cutoff: Duration) -> bool {
        if (pg.state() & self.bit != 0) == self.inverted {
            return false;
        }
        let Some(well) = self.well else { return true };
        match Duration::from(well(pg)) {
            // Never, and it still changes.
            Duration::ZERO => Duration::from(pg.last_change) < cutoff,
            since => since < cutoff,
        }
    }

    fn line(&self, pgid: PgId, pg: &PgStat, now: Duration) -> String {
        let (state, acting) = (pg_state::name(pg.state()), acting_text(&pg.acting));
        let Some(well) = self.well else {
            let unfound = match pg.stats.sum.num_objects_unfound {
                0 => String::new(),
                n => format!(", {n} unfound"),
            };
            return format!("pg {pgid} is {state}, acting {acting}{unfound}");
        };
        let since = match Duration::from(well(pg)) {
            Duration::ZERO => "since forever".to_owned(),
            since => format!("for {}", text::age(now.saturating_sub(since))),
        };
        let name = self.name;
        format!("pg {pgid} is stuck {name} {since}, current state {state}, last acting {acting}")
    }
}

fn acting_text(osds: &[i32]) -> String {
    let name = |osd: &i32| if *osd == ITEM_NONE { "NONE".to_owned() } else { osd.to_string() };
    format!("[{}]", osds.iter().map(name).collect::<Vec<_>>().join(","))
}

fn hint(pgid: PgId, pg: &PgStat, osdmap: &OsdMap) -> String {
    let pool = osdmap.pool(pgid.pool).filter(|pool| pool.min_size > 1);
    match pool.filter(|_| pg.state() & pg_state::INCOMPLETE != 0) {
        None => String::new(),
        Some(pool) => format!(
            " (reducing pool {} min_size from {} may help; search ceph.com/docs for 'incomplete')",
            osdmap.pool_name(pgid.pool).unwrap_or_default(),
            pool.min_size
        ),
    }
}

fn degraded_text(sum: &ObjectStatSum) -> Option<String> {
    let (n, of) = (sum.num_objects_degraded, sum.num_object_copies);
    let percent = 100.0 * n as f64 / of as f64;
    (n != 0 && of > 0).then(|| format!("{n}/{of} objects degraded ({percent:.3}%)"))
}

fn unfound(pgmap: &PgMap, sum: &ObjectStatSum, found: &mut HealthChecks) {
    let (n, of) = (sum.num_objects_unfound, sum.num_objects);
    if n == 0 || of == 0 {
        return;
    }
    let lost = |pg: &PgStat| pg.stats.sum.num_objects_unfound;
    let with = pgmap.pgs.iter().filter(|(_, pg)| lost(pg) != 0).take(DETAIL_MAX);
    let detail = with.map(|(id, pg)| format!("pg {id} has {} unfound objects", lost(pg))).collect();
    let percent = 100.0 * n as f64 / of as f64;
    let summary = format!("{n}/{of} objects unfound ({percent:.3}%)");
    let check = HealthCheck { severity: health::WARN, summary, detail, count: n };
    found.checks.insert("OBJECT_UNFOUND".to_owned(), check);
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(10_000);

    fn pg(state: u64, acting: &[i32], ago: u64) -> PgStat {
        let at = UTime::from(NOW - Duration::from_secs(ago));
        let mut pg = PgStat {
            acting: acting.to_vec(),
            last_active: at,
            last_peered: at,
            last_fullsized: at,
            last_unstale: at,
            last_change: at,
            ..PgStat::default()
        };
        pg.set_state(state);
        pg
    }

    fn found(pgs: Vec<PgStat>) -> Vec<(String, u8, String, Vec<String>)> {
        let pgs = (0..).map(|seed| PgId::new(1, seed)).zip(pgs).collect();
        let mut pgmap = PgMap::default();
        (pgmap.pgs, pgmap.stamp) = (pgs, NOW);
        let mut found = HealthChecks::default();
        check(&pgmap, &OsdMap::default(), Duration::from_secs(60), &mut found);
        let each = found.checks.into_iter();
        each.map(|(code, c)| (code, c.severity, c.summary, c.detail)).collect()
    }

    /// Texts as of 16.2.15 for an OSD that is down and PGs of three copies.
    #[test]
    fn degraded_pgs_are_counted_and_named() {
        let both = pg_state::ACTIVE | pg_state::UNDERSIZED | pg_state::DEGRADED;
        let mut with_objects = pg(both, &[0, 1], 74);
        with_objects.stats.sum.num_objects_degraded = 5;
        with_objects.stats.sum.num_object_copies = 15;
        let fresh = pg(pg_state::ACTIVE | pg_state::UNDERSIZED, &[1], 3);
        let clean = pg(pg_state::ACTIVE | pg_state::CLEAN, &[0, 1, 2], 900);
        let got = found(vec![with_objects, fresh.clone(), clean.clone()]);
        let line = "pg 1.0 is stuck undersized for 74s, current state active+undersized+degraded, last acting [0,1]";
        let summary = "Degraded data redundancy: 5/15 objects degraded (33.333%), 1 pg degraded, 1 pg undersized";
        let want =
            ("PG_DEGRADED".to_owned(), health::WARN, summary.to_owned(), vec![line.to_owned()]);
        assert_eq!(got, [want]);
        assert_eq!(found(vec![fresh, clean]), [], "not for long enough");
    }

    #[test]
    fn unreachable_pgs_are_counted_and_named() {
        let forever = PgStat { last_active: UTime::default(), ..pg(pg_state::DOWN, &[2], 90) };
        let peering = pg(pg_state::PEERING, &[2, ITEM_NONE], 200);
        let stale = pg(pg_state::STALE | pg_state::ACTIVE | pg_state::CLEAN, &[0], 61);
        let got = found(vec![forever, peering, stale, pg(pg_state::PEERING, &[0], 30)]);
        let summary =
            "Reduced data availability: 2 pgs inactive, 1 pg down, 1 pg peering, 1 pg stale";
        let lines = [
            "pg 1.0 is down, acting [2]",
            "pg 1.1 is stuck peering for 3m, current state peering, last acting [2,NONE]",
            "pg 1.2 is stuck stale for 61s, current state stale+active+clean, last acting [0]",
        ];
        let lines = lines.map(str::to_owned).to_vec();
        let want = ("PG_AVAILABILITY".to_owned(), health::WARN, summary.to_owned(), lines);
        assert_eq!(got, [want]);
    }

    #[test]
    fn unfound_objects_and_full_osds_are_told() {
        let state = pg_state::ACTIVE | pg_state::RECOVERY_UNFOUND;
        let mut lost = pg(state, &[0, 2], 0);
        (lost.stats.sum.num_objects_unfound, lost.stats.sum.num_objects) = (1, 8);
        let full = pg(pg_state::ACTIVE | pg_state::BACKFILL_TOOFULL, &[0], 0);
        let worse = pg(pg_state::ACTIVE | pg_state::RECOVERY_TOOFULL, &[0], 0);
        let got = found(vec![lost, full, worse]);
        let summaries: Vec<_> =
            got.iter().map(|(code, _, s, _)| (code.as_str(), s.as_str())).collect();
        let want = [
            ("OBJECT_UNFOUND", "1/8 objects unfound (12.500%)"),
            (
                "PG_BACKFILL_FULL",
                "Low space hindering backfill (add storage if this doesn't resolve itself): 1 pg backfill_toofull",
            ),
            ("PG_DAMAGED", "Possible data damage: 1 pg recovery_unfound"),
            ("PG_RECOVERY_FULL", "Full OSDs blocking recovery: 1 pg recovery_toofull"),
        ];
        assert_eq!(summaries, want);
        assert_eq!(got[0].3, ["pg 1.0 has 1 unfound objects"]);
        assert_eq!(got[2].3, ["pg 1.0 is active+recovery_unfound, acting [0,2], 1 unfound"]);
    }
}
