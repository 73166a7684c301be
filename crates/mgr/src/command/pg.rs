//! `pg stat` and the `pg ls` family.

use spirula_mon::json::Json;
use spirula_mon::obj;
use spirula_mon::text::{self, Align, TextTable};
use spirula_wire::types::{PgId, PgStat, pg_state};

use super::pg_dump::pg_json;
use super::{Context, EAGAIN, EINVAL, Outcome, Shown, pgid};
use crate::pgmap::Rate;

pub(super) fn stat(c: &Context<'_>) -> Outcome {
    let states = c.pgmap.states();
    let by_state = states.iter().map(|(s, n)| (pg_state::name(*s), *n)).collect::<Vec<_>>();
    let sum = c.pgmap.pg_sum().stats.sum;
    let statfs = c.pgmap.osd_sum().statfs;
    let num_pgs = c.pgmap.pgs.len();
    let listed: Vec<String> = by_state.iter().map(|(s, n)| format!("{n} {s}")).collect();
    let size = |n: u64| text::bytes_iec(n);
    let mut plain = format!(
        "{num_pgs} pgs: {}; {} data, {} used, {} / {} avail",
        listed.join(", "),
        size(sum.num_bytes.max(0) as u64),
        size(statfs.used_raw()),
        size(statfs.available),
        size(statfs.total),
    );
    let states = by_state.iter().map(|(s, n)| obj! { "name" => s, "num" => *n });
    let mut summary = obj! {
        "num_pg_by_state" => states.collect::<Vec<Json>>(),
        "num_pgs" => num_pgs,
        "num_bytes" => sum.num_bytes,
        "total_bytes" => statfs.total,
        "total_avail_bytes" => statfs.available,
        "total_used_bytes" => statfs.used_raw(),
        "total_used_raw_bytes" => statfs.used_raw(),
    };
    if let Some((shown, rates)) = io_rates(&c.pgmap.rate(None)) {
        plain += &shown;
        summary = rates.into_iter().fold(summary, |json, (name, n)| json.with(name, n));
    }
    for (word, n, of) in text::recovery_parts(&sum) {
        summary = summary
            .with(&format!("{word}_objects"), n)
            .with(&format!("{word}_total"), of)
            .with(&format!("{word}_ratio"), n as f64 / of as f64);
    }
    plain.extend(text::recovery_lines(&sum).map(|line| format!("; {line}")));
    if let Some((shown, rates)) = recovery_rates(&c.pgmap.rate(None)) {
        plain += &shown;
        summary = rates.into_iter().fold(summary, |json, (name, n)| json.with(name, n));
    }
    let json = obj! { "pg_ready" => true, "pg_summary" => summary };
    Ok(Shown { plain: format!("{plain}\n"), json: Some(json), status: String::new(), errno: 0 })
}

/// `; 1 MiB/s rd, 2 MiB/s wr, 3 op/s` and the same for JSON; `None` when idle.
fn io_rates(rate: &Rate) -> Option<(String, Vec<(&'static str, i64)>)> {
    let (mut shown, mut rates) = (Vec::new(), Vec::new());
    let directions = [
        (rate.delta.num_rd, rate.read_bytes(), "rd", "read_bytes_sec"),
        (rate.delta.num_wr, rate.write_bytes(), "wr", "write_bytes_sec"),
    ];
    for (ops, bytes, short, name) in directions {
        if ops > 0 {
            shown.push(format!("{}/s {short}", text::bytes_iec(bytes.max(0) as u64)));
            rates.push((name, bytes));
        }
    }
    if rates.is_empty() {
        return None;
    }
    let ops = rate.read_ops() + rate.write_ops();
    shown.push(format!("{} op/s", text::count_si(ops.max(0) as u64)));
    rates.push(("io_sec", ops));
    Some((format!("; {}", shown.join(", ")), rates))
}

/// `; 1 MiB/s, 3 objects/s recovering` and the same for JSON; `None` if nothing was.
fn recovery_rates(rate: &Rate) -> Option<(String, [(&'static str, i64); 6])> {
    let delta = &rate.delta;
    let (objects, bytes, keys) =
        (delta.num_objects_recovered, delta.num_bytes_recovered, delta.num_keys_recovered);
    if objects <= 0 && bytes <= 0 && keys <= 0 {
        return None;
    }
    let per_second = |n: i64| rate.per_second(n).max(0);
    let shown = text::recovery_rate(
        per_second(bytes) as u64,
        (keys > 0).then(|| per_second(keys) as u64),
        per_second(objects) as u64,
    );
    let rates = [
        ("recovering_objects_per_sec", per_second(objects)),
        ("recovering_bytes_per_sec", per_second(bytes)),
        ("recovering_keys_per_sec", per_second(keys)),
        ("num_objects_recovered", objects),
        ("num_bytes_recovered", bytes),
        ("num_keys_recovered", keys),
    ];
    Some((format!("; {shown} recovering"), rates))
}

pub(super) fn ls(c: &Context<'_>) -> Outcome {
    let pool = c.int("pool");
    list(c, |pg, _| pool.is_none_or(|p| pg.pool == p))
}

pub(super) fn ls_by_pool(c: &Context<'_>) -> Outcome {
    let pool = c.pool("poolstr")?;
    list(c, |pg, _| pg.pool == pool)
}

pub(super) fn ls_by_osd(c: &Context<'_>) -> Outcome {
    let (osd, pool) = (up_osd(c)?, c.int("pool"));
    list(c, |pg, stat| pool.is_none_or(|p| pg.pool == p) && stat.acting.contains(&osd))
}

pub(super) fn ls_by_primary(c: &Context<'_>) -> Outcome {
    let (osd, pool) = (up_osd(c)?, c.int("pool"));
    list(c, |pg, stat| pool.is_none_or(|p| pg.pool == p) && stat.acting_primary == osd)
}

/// What is down has no PGs to list, which is not the same as none.
fn up_osd(c: &Context<'_>) -> Result<i32, (i32, String)> {
    let osd = c.osd("osd")?;
    if c.osdmap.is_up(osd) {
        return Ok(osd);
    }
    Err((EAGAIN, format!("osd {osd} is not up")))
}

const COLUMNS: &[(&str, Align)] = &[
    ("PG", Align::Left),
    ("OBJECTS", Align::Right),
    ("DEGRADED", Align::Right),
    ("MISPLACED", Align::Right),
    ("UNFOUND", Align::Right),
    ("BYTES", Align::Right),
    ("OMAP_BYTES*", Align::Right),
    ("OMAP_KEYS*", Align::Right),
    ("LOG", Align::Right),
    ("STATE", Align::Right),
    ("SINCE", Align::Right),
    ("VERSION", Align::Right),
    ("REPORTED", Align::Right),
    ("UP", Align::Right),
    ("ACTING", Align::Right),
    ("SCRUB_STAMP", Align::Right),
    ("DEEP_SCRUB_STAMP", Align::Right),
];

pub(super) const OMAP_NOTE: &str = "\n* NOTE: Omap statistics are gathered during deep scrub and may be inaccurate soon afterwards depending on utilization. See http://docs.ceph.com/en/latest/dev/placement-group/#omap-statistics for further details.\n";

fn list(c: &Context<'_>, wanted: impl Fn(PgId, &PgStat) -> bool) -> Outcome {
    let states = states(&c.list("states"))?;
    let in_state = |stat: &PgStat| match states {
        None => true,
        Some(0) => stat.state() == 0,
        Some(bits) => stat.state() & bits != 0,
    };
    let chosen: Vec<_> =
        c.pgmap.pgs.iter().filter(|(pg, stat)| wanted(**pg, stat) && in_state(stat)).collect();
    if chosen.is_empty() {
        let json = Some(obj! { "pg_ready" => true });
        return Ok(Shown { plain: String::new(), json, status: String::new(), errno: 0 });
    }
    let mut table = TextTable::default();
    for (heading, align) in COLUMNS {
        table.column(heading, Align::Left, *align);
    }
    for (pg, stat) in &chosen {
        table.row(cells(c, **pg, stat));
    }
    let json = obj! {
        "pg_ready" => true,
        "pg_stats" => chosen.iter().map(|(pg, stat)| pg_json(**pg, stat)).collect::<Vec<_>>(),
    };
    Ok(Shown {
        plain: format!("{}{OMAP_NOTE}", table.render()),
        json: Some(json),
        status: String::new(),
        errno: 0,
    })
}

/// The bits of which a PG must have one; `None` if any PG will do. Read from the end, where `all`
/// makes the rest of no account.
fn states(names: &[&str]) -> Result<Option<u64>, (i32, String)> {
    let mut bits = 0;
    for &name in names.iter().rev() {
        if name == "all" {
            return Ok(None);
        }
        bits |= pg_state::by_name(name).ok_or_else(|| {
            let known = pg_state::name(u32::MAX.into());
            let text = format!("'{name}' is not a valid pg state, available choices: {known}");
            (EINVAL, text)
        })?;
    }
    Ok((!names.is_empty()).then_some(bits))
}

fn cells(c: &Context<'_>, pg: PgId, stat: &PgStat) -> Vec<String> {
    let sum = &stat.stats.sum;
    let set = |osds: &[i32], primary: i32| {
        let osds: Vec<String> = osds.iter().map(i32::to_string).collect();
        format!("[{}]p{primary}", osds.join(","))
    };
    vec![
        pgid(pg),
        sum.num_objects.to_string(),
        sum.num_objects_degraded.to_string(),
        sum.num_objects_misplaced.to_string(),
        sum.num_objects_unfound.to_string(),
        sum.num_bytes.to_string(),
        sum.num_omap_bytes.to_string(),
        sum.num_omap_keys.to_string(),
        stat.log_size.to_string(),
        pg_state::name(stat.state()),
        text::age(c.pgmap.stamp.saturating_sub(stat.last_change.into())),
        stat.version.to_string(),
        format!("{}:{}", stat.reported_epoch, stat.reported_seq),
        set(&stat.up, stat.up_primary),
        set(&stat.acting, stat.acting_primary),
        text::stamp(stat.last_scrub_stamp.into()),
        text::stamp(stat.last_deep_scrub_stamp.into()),
    ]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};
    use spirula_maps::OsdMap;
    use spirula_wire::msg::mgr::MgrCommandReply;

    use super::*;
    use crate::command;
    use crate::pgmap::PgMap;

    /// Of two PGs, one active and clean, one not heard of yet.
    fn ask(args: Value) -> MgrCommandReply {
        let mut pgmap = PgMap::default();
        for (seed, state) in [(0, pg_state::ACTIVE | pg_state::CLEAN), (1, 0)] {
            let mut pg = PgStat { up: vec![0], acting: vec![0], ..PgStat::default() };
            pg.set_state(state);
            pgmap.pgs.insert(PgId { pool: 1, seed }, pg);
        }
        let osdmap = OsdMap::default();
        command::ask(&args, &pgmap, &osdmap)
    }

    fn json_of(args: Value) -> Value {
        let reply = ask(args);
        assert_eq!(reply.r, 0, "{}", reply.rs);
        serde_json::from_slice(&reply.outbl).unwrap()
    }

    #[test]
    fn any_of_the_states_will_do() {
        let listed = |states: Value| {
            let args = json!({ "prefix": "pg ls", "states": states, "format": "json" });
            let listed = json_of(args)["pg_stats"].take();
            let ids = listed.as_array().cloned().unwrap_or_default();
            ids.iter().map(|pg| pg["pgid"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(listed(json!([])), ["1.0", "1.1"]);
        assert_eq!(listed(json!(["active", "down"])), ["1.0"]);
        assert_eq!(listed(json!(["unknown"])), ["1.1"]);
        assert_eq!(listed(json!(["nope", "all"])), ["1.0", "1.1"]);
        assert!(listed(json!(["down"])).is_empty());
        let none = ask(json!({ "prefix": "pg ls", "states": ["down"] }));
        assert!(none.outbl.is_empty(), "no headings either");
        let refused = ask(json!({ "prefix": "pg ls", "states": ["all", "nope"] }));
        assert_eq!(refused.r, -EINVAL);
        assert!(
            refused.rs.starts_with("'nope' is not a valid pg state, available choices: stale+")
        );
        assert!(refused.rs.ends_with("+snaptrim_error"));
    }

    #[test]
    fn pgs_are_listed_of_osds_that_are_up() {
        let mut map = OsdMap::default();
        map.set_max_osd(1);
        map.osds[0].state = spirula_maps::osd_state::EXISTS;
        for prefix in ["pg ls-by-osd", "pg ls-by-primary"] {
            let args = json!({ "prefix": prefix, "osd": 0 });
            let down = command::ask(&args, &PgMap::default(), &map);
            assert_eq!((down.r, down.rs.as_str()), (-EAGAIN, "osd 0 is not up"));
        }
    }

    #[test]
    fn recovery_is_shown_while_there_is_any() {
        let mut rate = Rate { span: Duration::from_secs(10), ..Rate::default() };
        assert_eq!(recovery_rates(&rate), None);
        (rate.delta.num_objects_recovered, rate.delta.num_bytes_recovered) = (40, 81_920);
        let (shown, rates) = recovery_rates(&rate).unwrap();
        assert_eq!(shown, "; 8 KiB/s, 4 objects/s recovering");
        assert_eq!(
            rates[..2],
            [("recovering_objects_per_sec", 4), ("recovering_bytes_per_sec", 8192)]
        );
    }

    #[test]
    fn rates_are_shown_once_there_is_any_io() {
        let mut rate = Rate { span: Duration::from_secs(10), ..Rate::default() };
        assert_eq!(io_rates(&rate), None);
        (rate.delta.num_wr, rate.delta.num_wr_kb) = (3, 5);
        let (shown, rates) = io_rates(&rate).unwrap();
        assert_eq!(shown, "; 512 B/s wr, 0 op/s");
        assert_eq!(rates, [("write_bytes_sec", 512), ("io_sec", 0)]);
        (rate.delta.num_rd, rate.delta.num_rd_kb) = (40, 10);
        let (shown, rates) = io_rates(&rate).unwrap();
        assert_eq!(shown, "; 1 KiB/s rd, 512 B/s wr, 4 op/s");
        assert_eq!(rates.len(), 3);
    }

    /// Members and headings are those that a real manager (16.2.15) answered with.
    #[test]
    fn a_dump_has_the_parts_that_were_asked_for() {
        let members = |what: Value| {
            let dump =
                json_of(json!({ "prefix": "pg dump", "dumpcontents": what, "format": "json" }));
            dump.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(members(json!([])), "pg_ready pg_map");
        assert_eq!(members(json!(["summary", "pools"])), "pg_ready pg_map");
        assert_eq!(members(json!(["pools"])), "pg_ready pool_stats");
        assert_eq!(members(json!(["osds"])), "pg_ready osd_stats pool_statfs");
        assert_eq!(members(json!(["pgs", "delta"])), "pg_ready pg_stats delta");
        let brief =
            json_of(json!({ "prefix": "pg dump", "dumpcontents": "pgs_brief", "format": "json" }));
        assert_eq!(brief["pg_stats"][0].as_object().unwrap().len(), 6);
        let sums =
            json_of(json!({ "prefix": "pg dump", "dumpcontents": ["sum"], "format": "json" }));
        assert_eq!(sums["pg_map"].as_object().unwrap().len(), 7);

        let plain = |what: &[&str]| {
            let reply = ask(json!({ "prefix": "pg dump", "dumpcontents": what }));
            let text = String::from_utf8_lossy(&reply.outbl).into_owned();
            (text, reply.rs)
        };
        let (pools, status) = plain(&["pools", "osds"]);
        assert!(pools.starts_with("POOLID  OBJECTS") && pools.ends_with(OMAP_NOTE));
        assert_eq!(status, "dumped osds,pools");
        assert!(plain(&["osds"]).0.starts_with("OSD_STAT"));
        assert!(plain(&["pgs_brief"]).0.ends_with("[0]               0\n"));
        assert!(
            plain(&["pgs", "pools"]).0.contains("\n    "),
            "the pools are below blank headings"
        );
        assert!(plain(&["delta"]).0.is_empty());
        let (sums, _) = plain(&["summary"]);
        assert!(sums.starts_with("version 0\n") && sums.contains("\nOSD_STAT"));
    }
}
