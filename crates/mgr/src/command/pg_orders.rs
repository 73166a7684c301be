//! `pg|osd|osd pool scrub|deep-scrub|repair` and `pg|osd pool force-*`: orders that OSDs carry out.

use std::collections::BTreeMap;

use spirula_wire::msg::osd::{OsdForceRecovery, OsdScrub2};
use spirula_wire::types::{PgId, SpgId, pg_state};

use super::{Context, EAGAIN, EINVAL, ENOENT, Outcome, Shown};

/// The last word of the command: `scrub` of `pg scrub`.
fn order<'a>(c: &'a Context<'_>) -> &'a str {
    c.str("prefix").and_then(|prefix| prefix.rsplit(' ').next()).unwrap_or_default()
}

fn scrub_message(c: &Context<'_>, pgs: impl IntoIterator<Item = PgId>) -> OsdScrub2 {
    OsdScrub2 {
        fsid: c.fsid,
        epoch: c.osdmap.epoch,
        pgs: pgs.into_iter().map(SpgId::whole).collect(),
        repair: order(c) == "repair",
        deep: order(c) == "deep-scrub",
    }
}

pub(super) fn scrub_pg(c: &Context<'_>) -> Outcome {
    let text = c.str("pgid").unwrap_or_default();
    let Ok(pg) = text.parse::<PgId>() else {
        return Err((EINVAL, format!("invalid pgid '{text}'")));
    };
    if c.osdmap.pool(pg.pool).is_none_or(|pool| pg.seed >= pool.pg_num) {
        return Err((ENOENT, format!("pg {pg} does not exist")));
    }
    let primary = c.osdmap.pg_to_up_acting(pg).acting_primary;
    if primary == -1 {
        return Err((EAGAIN, format!("pg {pg} has no primary osd")));
    }
    if !c.connected.contains(&primary) {
        let text = format!("pg {pg} primary osd.{primary} is not currently connected");
        return Err((EAGAIN, text));
    }
    c.tell(primary, &scrub_message(c, [pg]));
    Ok(Shown::status(format!("instructing pg {pg} on osd.{primary} to {}", order(c))))
}

pub(super) fn scrub_osd(c: &Context<'_>) -> Outcome {
    let who = c.str("who").unwrap_or_default();
    let osds: Vec<i32> = if matches!(who, "*" | "any" | "all") {
        c.osdmap.existing_osds().filter(|(_, osd)| osd.is_up()).map(|(id, _)| id).collect()
    } else {
        let Ok(osd) = who.strip_prefix("osd.").unwrap_or(who).parse() else {
            let why = format!("Expected option value to be integer, got '{who}'");
            return Err((EINVAL, format!("{why}invalid osd '{who}'")));
        };
        if !c.osdmap.is_up(osd) {
            return Err((EAGAIN, format!("osd.{osd} is not up")));
        }
        vec![osd]
    };
    for osd in osds.iter().filter(|osd| c.connected.contains(osd)) {
        let led = c.pgmap.pgs.iter().filter(|(_, pg)| pg.acting_primary == *osd);
        c.tell(*osd, &scrub_message(c, led.map(|(pg, _)| *pg)));
    }
    let names: Vec<String> = osds.iter().map(i32::to_string).collect();
    Ok(Shown::status(format!("instructed osd(s) {} to {}", names.join(","), order(c))))
}

/// PGs of the pools in `who`.
fn pgs_of_pools(c: &Context<'_>) -> Result<Vec<PgId>, (i32, String)> {
    let mut pgs = Vec::new();
    for name in c.list("who") {
        let Some(id) = c.osdmap.pool_by_name(name) else {
            return Err((ENOENT, format!("unrecognized pool '{name}'")));
        };
        let pg_num = c.osdmap.pool(id).map_or(0, |pool| pool.pg_num);
        pgs.extend((0..pg_num).map(|seed| PgId::new(id, seed)));
    }
    Ok(pgs)
}

fn by_primary(c: &Context<'_>, pgs: impl IntoIterator<Item = PgId>) -> BTreeMap<i32, Vec<PgId>> {
    let mut led: BTreeMap<i32, Vec<PgId>> = BTreeMap::new();
    for pg in pgs {
        let primary = c.osdmap.pg_to_up_acting(pg).acting_primary;
        led.entry(primary).or_default().push(pg);
    }
    led
}

pub(super) fn scrub_pools(c: &Context<'_>) -> Outcome {
    for (osd, pgs) in by_primary(c, pgs_of_pools(c)?) {
        if c.connected.contains(&osd) {
            c.tell(osd, &scrub_message(c, pgs));
        }
    }
    Ok(Shown::status(""))
}

/// What `force-recovery` and its relatives are about.
struct Force {
    options: u8,
    /// States in which it makes sense, and what is said otherwise.
    needs: u64,
    needless: &'static str,
    /// The state that it leads to, and what is said of one that is there (not there, to cancel).
    forced: u64,
    already: &'static str,
}

fn force_of(order: &str) -> Force {
    let (recovery, backfill) = (OsdForceRecovery::RECOVERY, OsdForceRecovery::BACKFILL);
    let wants_recovery = pg_state::DEGRADED | pg_state::RECOVERY_WAIT | pg_state::RECOVERING;
    let wants_backfill = pg_state::DEGRADED | pg_state::BACKFILL_WAIT | pg_state::BACKFILLING;
    let cancel = order.starts_with("cancel-");
    let of_recovery = order.ends_with("force-recovery");
    let what = if of_recovery { recovery } else { backfill };
    Force {
        options: if cancel { what | OsdForceRecovery::CANCEL } else { what },
        needs: match (cancel, of_recovery) {
            (true, _) => u64::MAX,
            (false, true) => wants_recovery,
            (false, false) => wants_backfill,
        },
        needless: if of_recovery {
            "doesn't require recovery"
        } else {
            "doesn't require backfilling"
        },
        forced: if of_recovery { pg_state::FORCED_RECOVERY } else { pg_state::FORCED_BACKFILL },
        already: match (cancel, of_recovery) {
            (true, true) => "recovery not forced",
            (true, false) => "backfill not forced",
            (false, true) => "recovery already forced",
            (false, false) => "backfill already forced",
        },
    }
}

pub(super) fn force_pgs(c: &Context<'_>) -> Outcome {
    let (mut pgs, mut said, mut errno) = (Vec::new(), String::new(), 0);
    for text in c.list("pgid") {
        match text.parse::<PgId>() {
            Ok(pg) => pgs.push(pg),
            Err(_) => {
                // Spelt as in Ceph 16.2, for who compares.
                said += &format!("invlaid pgid '{text}'; ");
                errno = EINVAL;
            }
        }
    }
    force(c, &pgs, said, errno)
}

pub(super) fn force_pools(c: &Context<'_>) -> Outcome {
    let pgs = pgs_of_pools(c)?;
    force(c, &pgs, String::new(), 0)
}

fn force(c: &Context<'_>, pgs: &[PgId], mut said: String, mut errno: i32) -> Outcome {
    let force = force_of(order(c));
    let mut chosen = Vec::new();
    for pg in pgs {
        let Some(state) = c.pgmap.pgs.get(pg).map(|stat| stat.state()) else {
            said += &format!("pg {pg} does not exist; ");
            errno = ENOENT;
            continue;
        };
        let cancels = force.options & OsdForceRecovery::CANCEL != 0;
        let is_forced = state & force.forced != 0;
        if state & force.needs == 0 && !cancels {
            said += &format!("pg {pg} {}; ", force.needless);
        } else if is_forced != cancels {
            said += &format!("pg {pg} {}; ", force.already);
            // Nothing is wrong where there is nothing to cancel.
            errno = if cancels { errno } else { EINVAL };
        } else {
            chosen.push(*pg);
        }
    }
    if !chosen.is_empty() {
        errno = 0;
    }
    for (osd, pgs) in by_primary(c, chosen) {
        let names: Vec<String> = pgs.iter().map(PgId::to_string).collect();
        if !c.connected.contains(&osd) {
            said += &format!("osd.{osd} is not currently connected");
            errno = EAGAIN;
            continue;
        }
        c.tell(osd, &OsdForceRecovery { fsid: c.fsid, pgs, options: force.options });
        let names = names.join(",");
        said += &format!("instructing pg(s) [{names}] on osd.{osd} to {}; ", order(c));
    }
    Ok(Shown { errno, ..Shown::status(said + "\n") })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};
    use spirula_maps::{NewCluster, OsdMap, PgPool, osd_state};
    use spirula_wire::Message as _;
    use spirula_wire::types::{PgStat, UTime, Uuid};

    use super::*;
    use crate::command::ask_with;
    use crate::pgmap::PgMap;

    /// Pool 1, `r`, of four PGs of two copies; osd.2 is down. PG 1.1 is degraded.
    fn map() -> OsdMap {
        let osds = (1..=3).map(|n| (Uuid([n; 16]), 0x10000)).collect();
        let new = NewCluster {
            osds,
            failure_domain: "osd".to_owned(),
            ..NewCluster::new(Uuid([7; 16]), UTime::default())
        };
        let mut map = new.osdmap().unwrap();
        map.pools.insert(1, PgPool::replicated(2, 1, 4, 0));
        map.pool_names.insert(1, "r".to_owned());
        for (id, osd) in map.osds.iter_mut().enumerate() {
            osd.state = osd_state::EXISTS | if id < 2 { osd_state::UP } else { 0 };
            osd.weight = 0x10000;
        }
        map
    }

    /// Result, status line, and how many PGs which OSD is told of.
    fn ask(args: Value, connected: &[i32]) -> (i32, String, Vec<(i32, usize)>) {
        let map = map();
        let mut pgmap = PgMap::default();
        for seed in 0..4 {
            let pg = PgId::new(1, seed);
            let at = map.pg_to_up_acting(pg);
            let mut stat = PgStat { acting_primary: at.acting_primary, ..PgStat::default() };
            stat.set_state(pg_state::ACTIVE | if seed == 1 { pg_state::DEGRADED } else { 0 });
            pgmap.pgs.insert(pg, stat);
        }
        let connected: BTreeSet<i32> = connected.iter().copied().collect();
        let answered = ask_with(&args, &pgmap, &map, &connected);
        let told = answered.to_osds.iter().map(|(osd, raw)| {
            let n = OsdScrub2::from_raw(raw).map(|m| m.pgs.len());
            (*osd, n.or_else(|_| OsdForceRecovery::from_raw(raw).map(|m| m.pgs.len())).unwrap())
        });
        (answered.reply.r, answered.reply.rs, told.collect())
    }

    /// Results and texts as of a manager of 16.2.15.
    #[test]
    fn orders_go_to_primaries() {
        let primary = |seed| map().pg_to_up_acting(PgId::new(1, seed)).acting_primary;
        let led = |osd| (0..4).filter(|seed| primary(*seed) == osd).count();
        let all = vec![(0, led(0)), (1, led(1))];
        let (first, second) = (primary(0), primary(1));
        let instructing = |what: &str| format!("instructing pg 1.0 on osd.{first} to {what}");
        let none = Vec::new;
        let why = "Expected option value to be integer, got 'y'invalid osd 'y'";
        let force = format!(
            "pg 1.0 doesn't require recovery; instructing pg(s) [1.1] on osd.{second} to force-recovery; \n"
        );
        for (args, code, said, told) in [
            (
                json!({"prefix": "pg scrub", "pgid": "1.0"}),
                0,
                &*instructing("scrub"),
                vec![(first, 1)],
            ),
            (
                json!({"prefix": "pg repair", "pgid": "1.0"}),
                0,
                &instructing("repair"),
                vec![(first, 1)],
            ),
            (json!({"prefix": "pg scrub", "pgid": "1.9"}), -2, "pg 1.9 does not exist", none()),
            (json!({"prefix": "pg scrub", "pgid": "zz"}), -22, "invalid pgid 'zz'", none()),
            (json!({"prefix": "pg scrub"}), -22, "invalid pgid ''", none()),
            (
                json!({"prefix": "osd scrub", "who": "osd.1"}),
                0,
                "instructed osd(s) 1 to scrub",
                vec![(1, led(1))],
            ),
            (
                json!({"prefix": "osd deep-scrub", "who": "all"}),
                0,
                "instructed osd(s) 0,1 to deep-scrub",
                all.clone(),
            ),
            (json!({"prefix": "osd scrub", "who": "2"}), -11, "osd.2 is not up", none()),
            (json!({"prefix": "osd scrub", "who": "y"}), -22, why, none()),
            (json!({"prefix": "osd pool scrub", "who": ["r"]}), 0, "", all),
            (
                json!({"prefix": "osd pool scrub", "who": ["nope"]}),
                -2,
                "unrecognized pool 'nope'",
                none(),
            ),
            (
                json!({"prefix": "pg force-recovery", "pgid": ["1.0"]}),
                0,
                "pg 1.0 doesn't require recovery; \n",
                none(),
            ),
            (
                json!({"prefix": "pg force-recovery", "pgid": ["1.0", "1.1"]}),
                0,
                &force,
                vec![(second, 1)],
            ),
            (
                json!({"prefix": "pg force-recovery", "pgid": ["1.0", "1.9"]}),
                -2,
                "pg 1.0 doesn't require recovery; pg 1.9 does not exist; \n",
                none(),
            ),
            (
                json!({"prefix": "pg force-recovery", "pgid": ["q"]}),
                -22,
                "invlaid pgid 'q'; \n",
                none(),
            ),
            (
                json!({"prefix": "pg force-backfill", "pgid": ["1.0"]}),
                0,
                "pg 1.0 doesn't require backfilling; \n",
                none(),
            ),
            (
                json!({"prefix": "pg cancel-force-recovery", "pgid": ["1.0"]}),
                0,
                "pg 1.0 recovery not forced; \n",
                none(),
            ),
            (
                json!({"prefix": "pg cancel-force-backfill", "pgid": ["1.0"]}),
                0,
                "pg 1.0 backfill not forced; \n",
                none(),
            ),
            (
                json!({"prefix": "osd pool force-recovery", "who": ["nope"]}),
                -2,
                "unrecognized pool 'nope'",
                none(),
            ),
        ] {
            let want = (code, said.to_owned(), told);
            assert_eq!(ask(args.clone(), &[0, 1]), want, "{args}");
        }
        let (code, said, _) = ask(json!({"prefix": "pg scrub", "pgid": "1.0"}), &[]);
        let want = format!("pg 1.0 primary osd.{first} is not currently connected");
        assert_eq!((code, said), (-11, want));
    }
}
