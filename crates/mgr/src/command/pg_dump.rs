//! `pg dump` and the JSON of statistics that other commands share.

use spirula_mon::json::Json;
use spirula_mon::obj;
use spirula_mon::text::{self, Align, TextTable};
use spirula_wire::types::{ObjectStatSum, OsdStat, PgId, PgStat, PoolStat, StoreStatfs, pg_state};

use super::pg::OMAP_NOTE;
use super::{Context, Outcome, Shown, pgid};

/// `all` (also where nothing is asked for) and the sums leave no room for anything else.
pub(super) fn dump(c: &Context<'_>) -> Outcome {
    let mut asked = c.list("dumpcontents");
    if asked.is_empty() {
        asked.push("all");
    }
    asked.sort_unstable();
    asked.dedup();
    let (plain, shown) = if asked.contains(&"all") {
        (all_text(c), obj! { "pg_map" => map_json(c) })
    } else if asked.iter().any(|a| matches!(*a, "sum" | "summary")) {
        let plain = [head_text(c), sum_table(c, true), osd_table(c, false)].concat();
        (plain + OMAP_NOTE, obj! { "pg_map" => basic_json(c) })
    } else {
        parts(c, &asked)
    };
    let json = with_all(obj! { "pg_ready" => true }, shown);
    Ok(Shown { plain, json: Some(json), status: format!("dumped {}", asked.join(",")), errno: 0 })
}

fn all_text(c: &Context<'_>) -> String {
    let tables = [
        pg_table(c.pgmap.pgs.iter().rev(), false),
        pool_table(c, false),
        sum_table(c, false),
        osd_table(c, true),
    ];
    head_text(c) + &tables.concat() + OMAP_NOTE
}

fn head_text(c: &Context<'_>) -> String {
    let (version, stamp) = (c.pgmap.version, text::stamp(c.pgmap.stamp));
    format!("version {version}\nstamp {stamp}\nlast_osdmap_epoch 0\nlast_pg_scan 0\n")
}

fn parts(c: &Context<'_>, asked: &[&str]) -> (String, Json) {
    let wants = |what: &str| asked.contains(&what);
    let (mut plain, mut json) = (String::new(), obj! {});
    if wants("pgs_brief") {
        plain += &pg_table(c.pgmap.pgs.iter().rev(), true);
    }
    if wants("pgs") {
        plain += &pg_table(c.pgmap.pgs.iter().rev(), false);
    }
    if wants("pools") {
        // Behind the PGs, their headings serve.
        plain += &pool_table(c, !wants("pgs"));
        json = with_all(json, obj! { "pool_stats" => pools_json(c) });
    }
    if wants("osds") {
        plain += &osd_table(c, true);
        let shown = obj! { "osd_stats" => osds_json(c), "pool_statfs" => pool_statfs_json(c) };
        json = with_all(json, shown);
    }
    if wants("pgs") {
        json = with_all(json, obj! { "pg_stats" => pgs_json(c) });
    }
    if wants("pgs_brief") {
        let each = c.pgmap.pgs.iter().rev().map(|(pg, s)| brief_json(*pg, s));
        json = with_all(json, obj! { "pg_stats" => each.collect::<Vec<_>>() });
    }
    if wants("delta") {
        let delta = obj! { "pg_stats_delta" => delta_json(c) };
        json = with_all(json, obj! { "delta" => delta });
    }
    if wants("pgs") || wants("pools") {
        plain += OMAP_NOTE;
    }
    (plain, json)
}

const PG_COLUMNS: &[&str] = &[
    "OBJECTS",
    "MISSING_ON_PRIMARY",
    "DEGRADED",
    "MISPLACED",
    "UNFOUND",
    "BYTES",
    "OMAP_BYTES*",
    "OMAP_KEYS*",
    "LOG",
    "DISK_LOG",
];
const PG_STATE_COLUMNS: &[&str] = &[
    "STATE",
    "STATE_STAMP",
    "VERSION",
    "REPORTED",
    "UP",
    "UP_PRIMARY",
    "ACTING",
    "ACTING_PRIMARY",
    "LAST_SCRUB",
    "SCRUB_STAMP",
    "LAST_DEEP_SCRUB",
    "DEEP_SCRUB_STAMP",
    "SNAPTRIMQ_LEN",
];
const BRIEF_COLUMNS: &[&str] = &["STATE", "UP", "UP_PRIMARY", "ACTING", "ACTING_PRIMARY"];

pub(super) fn pg_table<'a>(
    pgs: impl Iterator<Item = (&'a PgId, &'a PgStat)>,
    is_brief: bool,
) -> String {
    let mut table = TextTable::default();
    table.column("PG_STAT", Align::Left, Align::Left);
    let headings: Vec<&str> =
        if is_brief { BRIEF_COLUMNS.to_vec() } else { [PG_COLUMNS, PG_STATE_COLUMNS].concat() };
    headings.iter().for_each(|h| _ = table.column(h, Align::Left, Align::Right));
    for (pg, s) in pgs {
        let mut row = vec![pgid(*pg)];
        let (up, acting) = (format!("{:?}", s.up), format!("{:?}", s.acting));
        let (up, acting) = (up.replace(' ', ""), acting.replace(' ', ""));
        let (up_primary, acting_primary) = (s.up_primary.to_string(), s.acting_primary.to_string());
        let state = pg_state::name(s.state());
        if is_brief {
            row.extend([state, up, up_primary, acting, acting_primary]);
        } else {
            row.extend(sum_cells(&s.stats.sum, s.log_size, s.ondisk_log_size));
            row.extend([
                state,
                text::stamp(s.last_change.into()),
                s.version.to_string(),
                format!("{}:{}", s.reported_epoch, s.reported_seq),
                up,
                up_primary,
                acting,
                acting_primary,
                s.last_scrub.to_string(),
                text::stamp(s.last_scrub_stamp.into()),
                s.last_deep_scrub.to_string(),
                text::stamp(s.last_deep_scrub_stamp.into()),
                s.snaptrimq_len.to_string(),
            ]);
        }
        table.row(row);
    }
    table.render()
}

fn sum_cells(s: &ObjectStatSum, log: i64, disk_log: i64) -> Vec<String> {
    [
        s.num_objects,
        s.num_objects_missing_on_primary,
        s.num_objects_degraded,
        s.num_objects_misplaced,
        s.num_objects_unfound,
        s.num_bytes,
        s.num_omap_bytes,
        s.num_omap_keys,
        log,
        disk_log,
    ]
    .iter()
    .map(i64::to_string)
    .collect()
}

/// A table of sums, whose headings Ceph leaves blank below the table of PGs.
fn sums(heading: &str, with_headings: bool) -> TextTable {
    let mut table = TextTable::default();
    let shown = |heading| if with_headings { heading } else { "" };
    table.column(shown(heading), Align::Left, Align::Left);
    PG_COLUMNS.iter().for_each(|h| _ = table.column(shown(h), Align::Left, Align::Right));
    table
}

fn pool_table(c: &Context<'_>, with_headings: bool) -> String {
    let mut table = sums("POOLID", with_headings);
    for (id, pool) in c.pgmap.pool_sums().iter().rev() {
        let mut row = vec![id.to_string()];
        row.extend(sum_cells(&pool.stats.sum, pool.log_size, pool.ondisk_log_size));
        table.row(row);
    }
    table.render()
}

fn sum_table(c: &Context<'_>, with_headings: bool) -> String {
    let sum = c.pgmap.pg_sum();
    let mut table = sums("PG_STAT", with_headings);
    let mut row = vec!["sum".to_owned()];
    row.extend(sum_cells(&sum.stats.sum, sum.log_size, sum.ondisk_log_size));
    table.row(row);
    table.render()
}

fn osd_table(c: &Context<'_>, with_each: bool) -> String {
    let mut table = TextTable::default();
    table.column("OSD_STAT", Align::Left, Align::Left);
    let extra: &[&str] = if with_each { &["HB_PEERS", "PG_SUM", "PRIMARY_PG_SUM"] } else { &[] };
    for heading in ["USED", "AVAIL", "USED_RAW", "TOTAL"].iter().chain(extra) {
        table.column(heading, Align::Left, Align::Right);
    }
    let cells = |name: String, s: &StoreStatfs| {
        let used = text::bytes_iec(s.used_raw());
        vec![name, used.clone(), text::bytes_iec(s.available), used, text::bytes_iec(s.total)]
    };
    if with_each {
        for (id, osd) in c.pgmap.osds.iter().rev() {
            let mut row = cells(id.to_string(), &osd.statfs);
            let (acting, primary) = c.pgmap.pgs_of(*id);
            row.push(format!("{:?}", osd.hb_peers).replace(' ', ""));
            row.extend([acting.to_string(), primary.to_string()]);
            table.row(row);
        }
    }
    let mut sum = cells("sum".into(), &c.pgmap.osd_sum().statfs);
    sum.resize(5 + extra.len(), String::new());
    table.row(sum);
    table.render()
}

fn map_json(c: &Context<'_>) -> Json {
    let lists = obj! {
        "pg_stats" => pgs_json(c),
        "pool_stats" => pools_json(c),
        "osd_stats" => osds_json(c),
        "pool_statfs" => pool_statfs_json(c),
    };
    with_all(basic_json(c), lists)
}

fn basic_json(c: &Context<'_>) -> Json {
    obj! {
        "version" => c.pgmap.version,
        "stamp" => text::stamp(c.pgmap.stamp),
        "last_osdmap_epoch" => 0u32,
        "last_pg_scan" => 0u32,
        "pg_stats_sum" => pool_json(&c.pgmap.pg_sum()),
        "osd_stats_sum" => osd_json(&c.pgmap.osd_sum()),
        "pg_stats_delta" => delta_json(c),
    }
}

/// What changed in the last seconds, as client I/O.
fn delta_json(c: &Context<'_>) -> Json {
    let rate = c.pgmap.rate(None);
    let mut change = PoolStat::default();
    change.stats.sum = rate.delta;
    let span = format!("{}.{:06}", rate.span.as_secs(), rate.span.subsec_micros());
    with_all(pool_json(&change), obj! { "stamp_delta" => span })
}

fn pgs_json(c: &Context<'_>) -> Vec<Json> {
    c.pgmap.pgs.iter().rev().map(|(pg, s)| pg_json(*pg, s)).collect()
}

fn pools_json(c: &Context<'_>) -> Vec<Json> {
    let num_pg = |pool| c.pgmap.pgs.keys().filter(|pg| pg.pool == pool).count();
    let each = |(id, p): (&i64, &PoolStat)| {
        with_all(obj! { "poolid" => *id, "num_pg" => num_pg(*id) }, pool_json(p))
    };
    c.pgmap.pool_sums().iter().rev().map(each).collect()
}

fn osds_json(c: &Context<'_>) -> Vec<Json> {
    let each = |(id, o): (&i32, &OsdStat)| with_all(obj! { "osd" => *id }, osd_json(o));
    c.pgmap.osds.iter().rev().map(each).collect()
}

fn pool_statfs_json(c: &Context<'_>) -> Vec<Json> {
    let head = |pool: i64, osd: i32| obj! { "poolid" => pool, "osd" => osd };
    let all = c.pgmap.pool_statfs.iter();
    all.map(|((pool, osd), s)| with_all(head(*pool, *osd), statfs_json(s))).collect()
}

fn brief_json(pg: PgId, s: &PgStat) -> Json {
    obj! {
        "pgid" => pgid(pg),
        "state" => pg_state::name(s.state()),
        "up" => s.up.clone(),
        "acting" => s.acting.clone(),
        "up_primary" => s.up_primary,
        "acting_primary" => s.acting_primary,
    }
}

/// The members of `more` behind those of `object`.
fn with_all(object: Json, more: Json) -> Json {
    match (object, more) {
        (Json::Obj(mut a), Json::Obj(b)) => {
            a.extend(b);
            Json::Obj(a)
        }
        (object, _) => object,
    }
}

fn pool_json(p: &PoolStat) -> Json {
    obj! {
        "stat_sum" => stat_sum_json(&p.stats.sum),
        "store_stats" => statfs_json(&p.store_stats),
        "log_size" => p.log_size,
        "ondisk_log_size" => p.ondisk_log_size,
        "up" => p.up,
        "acting" => p.acting,
        "num_store_stats" => p.num_store_stats,
    }
}

fn statfs_json(s: &StoreStatfs) -> Json {
    obj! {
        "total" => s.total,
        "available" => s.available,
        "internally_reserved" => s.internally_reserved,
        "allocated" => s.allocated,
        "data_stored" => s.data_stored,
        "data_compressed" => s.data_compressed,
        "data_compressed_allocated" => s.data_compressed_allocated,
        "data_compressed_original" => s.data_compressed_original,
        "omap_allocated" => s.omap_allocated,
        "internal_metadata" => s.internal_metadata,
    }
}

fn osd_json(o: &OsdStat) -> Json {
    let (commit, apply) = (o.os_perf_stat.commit_latency_ns, o.os_perf_stat.apply_latency_ns);
    obj! {
        "up_from" => o.up_from,
        "seq" => o.seq,
        "num_pgs" => o.num_pgs,
        "num_osds" => o.num_osds,
        "num_per_pool_osds" => o.num_per_pool_osds,
        "num_per_pool_omap_osds" => o.num_per_pool_omap_osds,
        "kb" => o.statfs.total >> 10,
        "kb_used" => o.statfs.used_raw() >> 10,
        "kb_used_data" => o.statfs.allocated >> 10,
        "kb_used_omap" => o.statfs.omap_allocated >> 10,
        "kb_used_meta" => o.statfs.internal_metadata >> 10,
        "kb_avail" => o.statfs.available >> 10,
        "statfs" => statfs_json(&o.statfs),
        "hb_peers" => o.hb_peers.clone(),
        "snap_trim_queue_len" => o.snap_trim_queue_len,
        "num_snap_trimming" => o.num_snap_trimming,
        "num_shards_repaired" => o.num_shards_repaired,
        "op_queue_age_hist" => obj! { "histogram" => o.op_queue_age_hist.h.clone(), "upper_bound" => 1u32 },
        "perf_stat" => obj! {
            "commit_latency_ms" => commit as f64 / 1e6,
            "apply_latency_ms" => apply as f64 / 1e6,
            "commit_latency_ns" => commit,
            "apply_latency_ns" => apply,
        },
        "alerts" => Json::Arr(vec![]),
        "network_ping_times" => Json::Arr(vec![]),
    }
}

/// `pg_stat_t` as `pg ls` and `pg dump` show it.
pub(super) fn pg_json(pg: PgId, s: &PgStat) -> Json {
    let stamp = |t: spirula_wire::types::UTime| text::stamp(t.into());
    let head = obj! {
        "pgid" => pgid(pg),
        "version" => s.version.to_string(),
        "reported_seq" => s.reported_seq,
        "reported_epoch" => s.reported_epoch,
        "state" => pg_state::name(s.state()),
        "last_fresh" => stamp(s.last_fresh),
        "last_change" => stamp(s.last_change),
        "last_active" => stamp(s.last_active),
        "last_peered" => stamp(s.last_peered),
        "last_clean" => stamp(s.last_clean),
        "last_became_active" => stamp(s.last_became_active),
        "last_became_peered" => stamp(s.last_became_peered),
        "last_unstale" => stamp(s.last_unstale),
        "last_undegraded" => stamp(s.last_undegraded),
        "last_fullsized" => stamp(s.last_fullsized),
        "mapping_epoch" => s.mapping_epoch,
        "log_start" => s.log_start.to_string(),
        "ondisk_log_start" => s.ondisk_log_start.to_string(),
        "created" => s.created,
        "last_epoch_clean" => s.last_epoch_clean,
        "parent" => pgid(s.parent),
        "parent_split_bits" => s.parent_split_bits,
        "last_scrub" => s.last_scrub.to_string(),
        "last_scrub_stamp" => stamp(s.last_scrub_stamp),
        "last_deep_scrub" => s.last_deep_scrub.to_string(),
        "last_deep_scrub_stamp" => stamp(s.last_deep_scrub_stamp),
        "last_clean_scrub_stamp" => stamp(s.last_clean_scrub_stamp),
    };
    let tail = obj! {
        "log_size" => s.log_size,
        "ondisk_log_size" => s.ondisk_log_size,
        "stats_invalid" => s.stats_invalid,
        "dirty_stats_invalid" => s.dirty_stats_invalid,
        "omap_stats_invalid" => s.omap_stats_invalid,
        "hitset_stats_invalid" => s.hitset_stats_invalid,
        "hitset_bytes_stats_invalid" => s.hitset_bytes_stats_invalid,
        "pin_stats_invalid" => s.pin_stats_invalid,
        "manifest_stats_invalid" => s.manifest_stats_invalid,
        "snaptrimq_len" => s.snaptrimq_len,
        "stat_sum" => stat_sum_json(&s.stats.sum),
        "up" => s.up.clone(),
        "acting" => s.acting.clone(),
        "avail_no_missing" => Json::Arr(vec![]),
        "object_location_counts" => Json::Arr(vec![]),
        "blocked_by" => s.blocked_by.clone(),
        "up_primary" => s.up_primary,
        "acting_primary" => s.acting_primary,
        "purged_snaps" => Json::arr(s.purged_snaps.iter().map(|(start, length)| {
            obj! { "start" => format!("{:x}", start.0), "length" => format!("{length:x}") }
        })),
    };
    with_all(head, tail)
}

fn stat_sum_json(s: &ObjectStatSum) -> Json {
    macro_rules! members {
        ($($shown:ident = $field:ident),* $(,)?) => {
            obj! { $(stringify!($shown) => s.$field),* }
        };
    }
    members! {
        num_bytes = num_bytes, num_objects = num_objects, num_object_clones = num_object_clones,
        num_object_copies = num_object_copies,
        num_objects_missing_on_primary = num_objects_missing_on_primary,
        num_objects_missing = num_objects_missing, num_objects_degraded = num_objects_degraded,
        num_objects_misplaced = num_objects_misplaced, num_objects_unfound = num_objects_unfound,
        num_objects_dirty = num_objects_dirty, num_whiteouts = num_whiteouts, num_read = num_rd,
        num_read_kb = num_rd_kb, num_write = num_wr, num_write_kb = num_wr_kb,
        num_scrub_errors = num_scrub_errors, num_shallow_scrub_errors = num_shallow_scrub_errors,
        num_deep_scrub_errors = num_deep_scrub_errors,
        num_objects_recovered = num_objects_recovered, num_bytes_recovered = num_bytes_recovered,
        num_keys_recovered = num_keys_recovered, num_objects_omap = num_objects_omap,
        num_objects_hit_set_archive = num_objects_hit_set_archive,
        num_bytes_hit_set_archive = num_bytes_hit_set_archive, num_flush = num_flush,
        num_flush_kb = num_flush_kb, num_evict = num_evict, num_evict_kb = num_evict_kb,
        num_promote = num_promote, num_flush_mode_high = num_flush_mode_high,
        num_flush_mode_low = num_flush_mode_low, num_evict_mode_some = num_evict_mode_some,
        num_evict_mode_full = num_evict_mode_full, num_objects_pinned = num_objects_pinned,
        num_legacy_snapsets = num_legacy_snapsets,
        num_large_omap_objects = num_large_omap_objects,
        num_objects_manifest = num_objects_manifest, num_omap_bytes = num_omap_bytes,
        num_omap_keys = num_omap_keys, num_objects_repaired = num_objects_repaired,
    }
}
