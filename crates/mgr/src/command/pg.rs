//! `pg stat` and the `pg ls` family.

use spirula_mon::json::Json;
use spirula_mon::obj;
use spirula_mon::text::{self, Align, TextTable};
use spirula_wire::types::{PgId, PgStat, pg_state};

use super::pg_dump::pg_json;
use super::{Context, Outcome, Shown, pgid};

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
    plain.push_str(&io_rates(c));
    let states = by_state.iter().map(|(s, n)| obj! { "name" => s, "num" => *n });
    let json = obj! {
        "pg_ready" => true,
        "pg_summary" => obj! {
            "num_pg_by_state" => states.collect::<Vec<Json>>(),
            "num_pgs" => num_pgs,
            "num_bytes" => sum.num_bytes,
            "total_bytes" => statfs.total,
            "total_avail_bytes" => statfs.available,
            "total_used_bytes" => statfs.used_raw(),
            "total_used_raw_bytes" => statfs.used_raw(),
        },
    };
    Ok(Shown { plain: format!("{plain}\n"), json: Some(json), status: String::new() })
}

/// `; 1 MiB/s rd, 2 MiB/s wr, 3 op/s`, or nothing when idle.
fn io_rates(c: &Context<'_>) -> String {
    let rate = c.pgmap.rate(None);
    let (read, write) = (rate.read_bytes() as u64, rate.write_bytes() as u64);
    let mut parts = Vec::new();
    if read > 0 {
        parts.push(format!("{}/s rd", text::bytes_iec(read)));
    }
    if write > 0 {
        parts.push(format!("{}/s wr", text::bytes_iec(write)));
    }
    let ops = (rate.read_ops() + rate.write_ops()) as u64;
    if ops > 0 {
        parts.push(format!("{} op/s", text::count_si(ops)));
    }
    if parts.is_empty() { String::new() } else { format!("; {}", parts.join(", ")) }
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
    let (osd, pool) = (c.osd("osd")?, c.int("pool"));
    list(c, |pg, stat| pool.is_none_or(|p| pg.pool == p) && stat.acting.contains(&osd))
}

pub(super) fn ls_by_primary(c: &Context<'_>) -> Outcome {
    let (osd, pool) = (c.osd("osd")?, c.int("pool"));
    list(c, |pg, stat| pool.is_none_or(|p| pg.pool == p) && stat.acting_primary == osd)
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
    let states = c.list("states");
    let in_state = |stat: &PgStat| {
        let name = pg_state::name(stat.state());
        states.iter().all(|s| *s == "all" || name.split('+').any(|n| n == *s))
    };
    let chosen: Vec<_> =
        c.pgmap.pgs.iter().filter(|(pg, stat)| wanted(**pg, stat) && in_state(stat)).collect();
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
    })
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
