//! `pg dump_stuck`, `pg debug`: PGs that have been unwell for a while, or are at all.

use std::time::Duration;

use spirula_mon::obj;
use spirula_wire::types::{PgStat, UTime, pg_state};

use super::pg_dump::{pg_json, pg_table};
use super::{Context, EINVAL, Outcome, Shown};

/// Ways to be stuck: whether a PG is unwell so, and when it was well last.
type Kind = (fn(u64) -> bool, fn(&PgStat) -> UTime);

fn kind(name: &str) -> Option<Kind> {
    Some(match name {
        "inactive" => (|s| s & pg_state::ACTIVE == 0, |pg| pg.last_active),
        "unclean" => (|s| s & pg_state::CLEAN == 0, |pg| pg.last_clean),
        "degraded" => (|s| s & pg_state::DEGRADED != 0, |pg| pg.last_undegraded),
        "undersized" => (|s| s & pg_state::UNDERSIZED != 0, |pg| pg.last_fullsized),
        "stale" => (|s| s & pg_state::STALE != 0, |pg| pg.last_unstale),
        _ => return None,
    })
}

pub(super) fn dump_stuck(c: &Context<'_>) -> Outcome {
    let mut asked = c.list("stuckops");
    if asked.is_empty() {
        asked.push("unclean");
    }
    let unknown = |name: &str| (EINVAL, format!("'{name}' is no way for PGs to be stuck"));
    let kinds: Vec<Kind> =
        asked.into_iter().map(|n| kind(n).ok_or_else(|| unknown(n))).collect::<Result<_, _>>()?;
    let threshold = match c.int("threshold") {
        Some(seconds) => Duration::from_secs(seconds.max(0) as u64),
        None => c.stuck,
    };
    let cutoff = UTime::from(c.pgmap.now().saturating_sub(threshold));
    let is_stuck =
        |pg: &PgStat| kinds.iter().any(|(unwell, well)| unwell(pg.state()) && well(pg) < cutoff);
    let stuck: Vec<_> = c.pgmap.pgs.iter().filter(|(_, pg)| is_stuck(pg)).collect();
    let plain = match stuck[..] {
        [] => String::new(),
        _ => pg_table(stuck.iter().copied(), true),
    };
    let stats: Vec<_> = stuck.iter().map(|(pgid, pg)| pg_json(**pgid, pg)).collect();
    let json = obj! { "pg_ready" => true, "stuck_pg_stats" => stats };
    Ok(Shown { plain, json: Some(json), status: "ok".to_owned(), errno: 0 })
}

pub(super) fn debug(c: &Context<'_>) -> Outcome {
    let sums = c.pgmap.pgs.values().map(|pg| &pg.stats.sum);
    let exist = match c.str("debugop") {
        Some("unfound_objects_exist") => sums.map(|s| s.num_objects_unfound).any(|n| n > 0),
        Some("degraded_pgs_exist") => sums.map(|s| s.num_objects_degraded).any(|n| n > 0),
        _ => return Err((EINVAL, "debugop not recognized".to_owned())),
    };
    let plain = if exist { "TRUE\n" } else { "FALSE\n" };
    Ok(Shown { plain: plain.to_owned(), json: None, status: String::new(), errno: 0 })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use spirula_maps::OsdMap;
    use spirula_wire::msg::mgr::MgrCommandReply;
    use spirula_wire::types::PgId;

    use crate::command;
    use crate::pgmap::PgMap;

    use super::*;

    /// Of a PG that was degraded 100 seconds ago, one that just became so, and a clean one.
    fn ask(args: Value) -> MgrCommandReply {
        let now = Duration::from_secs(1000);
        let mut pgmap = PgMap::default();
        pgmap.stamp = now;
        let degraded = pg_state::ACTIVE | pg_state::UNDERSIZED | pg_state::DEGRADED;
        for (seed, state, ago) in [(0, degraded, 100), (1, degraded, 9), (2, 6, 900)] {
            let at = UTime::from(now - Duration::from_secs(ago));
            let (up, acting) = (vec![1, 0], vec![1, 0]);
            let mut pg =
                PgStat { up, acting, up_primary: 1, acting_primary: 1, ..PgStat::default() };
            (pg.last_clean, pg.last_undegraded, pg.last_fullsized) = (at, at, at);
            pg.stats.sum.num_objects_degraded = (seed == 0).into();
            pg.set_state(state);
            pgmap.pgs.insert(PgId::new(25, seed), pg);
        }
        let osdmap = OsdMap::default();
        command::ask(&args, &pgmap, &osdmap)
    }

    fn text(args: Value) -> String {
        let reply = ask(args);
        assert_eq!(reply.r, 0, "{}", reply.rs);
        String::from_utf8(reply.outbl.to_vec()).unwrap()
    }

    /// As a manager of 16.2.15 prints it.
    #[test]
    fn what_is_stuck_is_listed() {
        let table = "PG_STAT  STATE                       UP     UP_PRIMARY  ACTING  ACTING_PRIMARY\n\
                     25.0     active+undersized+degraded  [1,0]           1   [1,0]               1\n";
        let stuck = |ops: Value| text(json!({ "prefix": "pg dump_stuck", "stuckops": ops }));
        assert_eq!(text(json!({ "prefix": "pg dump_stuck" })), table);
        assert_eq!(stuck(json!(["undersized"])), table);
        assert_eq!(stuck(json!(["inactive", "degraded"])), table);
        assert_eq!(stuck(json!(["stale"])), "");
        let all = text(json!({ "prefix": "pg dump_stuck", "threshold": 5 }));
        assert_eq!(all.lines().count(), 3);
        let json = text(json!({ "prefix": "pg dump_stuck", "format": "json" }));
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["stuck_pg_stats"][0]["pgid"], "25.0");
        assert_eq!(ask(json!({ "prefix": "pg dump_stuck" })).rs, "ok");
        assert_eq!(ask(json!({ "prefix": "pg dump_stuck", "stuckops": ["odd"] })).r, -EINVAL);
    }

    #[test]
    fn debug_says_what_there_is() {
        let debug = |op: &str| text(json!({ "prefix": "pg debug", "debugop": op }));
        assert_eq!(debug("degraded_pgs_exist"), "TRUE\n");
        assert_eq!(debug("unfound_objects_exist"), "FALSE\n");
    }
}
