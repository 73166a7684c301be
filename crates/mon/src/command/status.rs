//! `status`, `versions`, `features`, `node ls` and other views of the whole cluster.

use std::collections::BTreeMap;

use spirula_maps::{OsdMap, flags};
use spirula_wire::Features;
use spirula_wire::types::{EntityType, ObjectStatSum, PoolStat, pg_state};

use super::health::{health_json, muted_note, status_name, summaries};
use super::{Answer, Args, Context, Format, Outcome, Refusal, errno, refuse};
use crate::json::Json;
use crate::obj;
use crate::service::Skew;
use crate::text::{age, bytes_iec, count_si, recovery_lines, recovery_parts, recovery_rate, stamp};

/// Flags that every cluster has and `status` does not show.
const USUAL_FLAGS: u32 = flags::REQUIRE_JEWEL
    | flags::REQUIRE_KRAKEN
    | flags::REQUIRE_LUMINOUS
    | flags::RECOVERY_DELETES
    | flags::SORTBITWISE
    | flags::PURGED_SNAPDIRS
    | flags::PGLOG_HARDLIMIT;

pub(super) fn fsid(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    let fsid = ctx.state.fsid.to_string();
    Ok(ctx.either(|| format!("{fsid}\n"), || obj! { "fsid" => &fsid }))
}

pub(super) fn status(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    if ctx.format != Format::Plain {
        return Ok(ctx.json_nl(&status_json(ctx)));
    }
    let mut out =
        format!("  cluster:\n    id:     {}\n    health: {}", ctx.state.fsid, status_name(ctx));
    out += &format!("{}\n", muted_note(ctx));
    for summary in summaries(ctx) {
        out += &format!("            {summary}\n");
    }
    out += " \n  services:\n";
    out += &mon_line(ctx);
    out +=
        &format!("    mgr: {}\n    osd: {}", mgr_line(ctx), osd_summary(ctx, "         ", false));
    out += &format!(" \n{}  data:\n{}", progress_text(ctx), data_text(ctx));
    out += " \n";
    let io = io_text(ctx);
    if !io.is_empty() {
        out += &format!("  io:\n{io} \n");
    }
    Ok(Answer::text(out))
}

/// `    mon: 3 daemons, quorum a,b (age 5s), out of quorum: c`
fn mon_line(ctx: &Context<'_>) -> String {
    let (all, quorum) = (&ctx.state.monmap.map().ranks, &ctx.live.quorum.names);
    let out: Vec<&str> = all.iter().filter(|n| !quorum.contains(n)).map(String::as_str).collect();
    let out = match out.as_slice() {
        [] => String::new(),
        names => format!(", out of quorum: {}", names.join(", ")),
    };
    let age = age(super::mon::quorum_age(ctx));
    format!("    mon: {} daemons, quorum {} (age {age}){out}\n", all.len(), quorum.join(","))
}

/// `3 osds: 3 up (since 6m), 3 in (since 6m)`, and a line of unusual flags.
pub(super) fn osd_summary(ctx: &Context<'_>, indent: &str, extra: bool) -> String {
    let map = ctx.state.osd.map();
    let since = |at: spirula_wire::types::UTime| {
        let at: std::time::Duration = at.into();
        if at.is_zero() {
            String::new()
        } else {
            format!(" (since {})", age(ctx.now.wall.saturating_sub(at)))
        }
    };
    let (all, up, in_) = osd_counts(map);
    let mut out = format!(
        "{all} osds: {up} up{}, {in_} in{}",
        since(map.last_up_change),
        since(map.last_in_change)
    );
    if extra {
        out += &format!("; epoch: e{}", map.epoch);
    }
    if !map.pg_temp.is_empty() {
        out += &format!("; {} remapped pgs", map.pg_temp.len());
    }
    out.push('\n');
    let unusual = map.flags & !USUAL_FLAGS;
    if unusual != 0 {
        out += &format!("{indent}flags {}\n", flags::names(unusual));
    }
    out
}

pub(super) fn osd_summary_json(map: &OsdMap) -> Json {
    let (all, up, in_) = osd_counts(map);
    obj! {
        "epoch" => map.epoch,
        "num_osds" => all,
        "num_up_osds" => up,
        "osd_up_since" => map.last_up_change.sec,
        "num_in_osds" => in_,
        "osd_in_since" => map.last_in_change.sec,
        "num_remapped_pgs" => map.pg_temp.len(),
    }
}

pub(super) fn osd_counts(map: &OsdMap) -> (usize, usize, usize) {
    let count = |wanted: fn(&spirula_maps::Osd) -> bool| {
        map.existing_osds().filter(|(_, o)| wanted(o)).count()
    };
    (count(|_| true), count(spirula_maps::Osd::is_up), count(spirula_maps::Osd::is_in))
}

fn mgr_line(ctx: &Context<'_>) -> String {
    let map = ctx.state.mgr.map();
    let since = age(ctx.now.wall.saturating_sub(map.active_change.into()));
    let mut out = match (map.active_gid, map.available) {
        (0, _) if map.epoch > 1 => format!("no daemons active (since {since})"),
        (0, _) => "no daemons active".into(),
        (_, true) => format!("{}(active, since {since})", map.active_name),
        (_, false) => format!("{}(active, starting, since {since})", map.active_name),
    };
    if !map.standbys.is_empty() {
        let names: Vec<&str> = map.standbys.values().map(|s| s.name.as_str()).collect();
        out += &format!(", standbys: {}", names.join(", "));
    }
    out
}

fn progress_text(ctx: &Context<'_>) -> String {
    let shown: Vec<_> = ctx.live.progress.values().filter(|e| e.add_to_ceph_s).collect();
    if shown.is_empty() {
        return String::new();
    }
    let mut out = "  progress:\n".to_owned();
    for event in shown {
        let done = (event.progress.clamp(0.0, 1.0) * 30.0) as usize;
        let bar = "=".repeat(done) + &".".repeat(30 - done);
        out += &format!("    {}\n      [{bar}] \n", event.message);
    }
    out + " \n"
}

fn data_text(ctx: &Context<'_>) -> String {
    let digest = &ctx.live.digest;
    let sum = &digest.pg_sum.stats.sum;
    let statfs = &digest.osd_sum.statfs;
    let mut out = format!(
        "    pools:   {} pools, {} pgs\n    objects: {} objects, {}\n    usage:   {} used, {} / {} avail\n",
        ctx.state.osd.map().pools.len(),
        digest.num_pg,
        count_si(sum.num_objects.max(0) as u64),
        bytes_iec(sum.num_bytes.max(0) as u64),
        bytes_iec(statfs.used_raw()),
        bytes_iec(statfs.available),
        bytes_iec(statfs.total),
    );
    let mut lines = Vec::new();
    let percent = |n: i64, of: i64| 100.0 * n as f64 / of.max(1) as f64;
    if digest.num_pg_unknown > 0 {
        lines.push(format!("{:.3}% pgs unknown", percent(digest.num_pg_unknown, digest.num_pg)));
    }
    let inactive = digest.num_pg - digest.num_pg_active - digest.num_pg_unknown;
    if inactive > 0 {
        lines.push(format!("{:.3}% pgs not active", percent(inactive, digest.num_pg)));
    }
    lines.extend(recovery_lines(sum));
    let states = by_state(ctx);
    let width = states.iter().map(|(_, n)| n.to_string().len()).max().unwrap_or(0);
    lines.extend(states.iter().map(|(name, n)| format!("{n:<width$} {name}")));
    out += &format!("    pgs:     {}\n", lines.join("\n             "));
    out
}

/// PG states by number, most first; PGs that nobody reported are `unknown`.
fn by_state(ctx: &Context<'_>) -> Vec<(String, i64)> {
    let digest = &ctx.live.digest;
    let mut states: Vec<(String, i64)> = digest
        .num_pg_by_state
        .iter()
        .map(|(state, n)| (pg_state::name(*state), i64::from(*n)))
        .filter(|(_, n)| *n > 0)
        .collect();
    states.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    states
}

/// Rates of the last while: per second of `delta`.
struct Rates {
    read_bytes: u64,
    write_bytes: u64,
    reads: u64,
    writes: u64,
    recovered_bytes: u64,
    recovered_objects: u64,
    recovered_keys: u64,
}

impl Rates {
    fn of(delta: &PoolStat, seconds: f64) -> Self {
        let s = &delta.stats.sum;
        let rate = |n: i64| (n.max(0) as f64 / seconds.max(1e-9)) as u64;
        let rate = |n: i64| if seconds > 0.0 { rate(n) } else { 0 };
        Self {
            read_bytes: rate(s.num_rd_kb.saturating_mul(1024)),
            write_bytes: rate(s.num_wr_kb.saturating_mul(1024)),
            reads: rate(s.num_rd),
            writes: rate(s.num_wr),
            recovered_bytes: rate(s.num_bytes_recovered),
            recovered_objects: rate(s.num_objects_recovered),
            recovered_keys: rate(s.num_keys_recovered),
        }
    }
}

fn rates(ctx: &Context<'_>) -> Rates {
    let digest = &ctx.live.digest;
    let span: std::time::Duration = digest.stamp_delta.into();
    Rates::of(&digest.pg_sum_delta, span.as_secs_f64())
}

fn has_recovered(delta: &ObjectStatSum) -> bool {
    delta.num_bytes_recovered > 0 || delta.num_objects_recovered > 0 || delta.num_keys_recovered > 0
}

fn io_text(ctx: &Context<'_>) -> String {
    let delta = &ctx.live.digest.pg_sum_delta.stats.sum;
    let r = rates(ctx);
    let mut out = String::new();
    if delta.num_rd > 0 || delta.num_wr > 0 {
        let mut parts = Vec::new();
        if delta.num_rd > 0 {
            parts.push(format!("{}/s rd", bytes_iec(r.read_bytes)));
        }
        if delta.num_wr > 0 {
            parts.push(format!("{}/s wr", bytes_iec(r.write_bytes)));
        }
        if delta.num_rd > 0 {
            parts.push(format!("{} op/s rd", count_si(r.reads)));
        }
        if delta.num_wr > 0 {
            parts.push(format!("{} op/s wr", count_si(r.writes)));
        }
        out += &format!("    client:   {}\n", parts.join(", "));
    }
    if has_recovered(delta) {
        let keys = (delta.num_keys_recovered > 0).then_some(r.recovered_keys);
        let rate = recovery_rate(r.recovered_bytes, keys, r.recovered_objects);
        out += &format!("    recovery: {rate}\n");
    }
    out
}

fn status_json(ctx: &Context<'_>) -> Json {
    let monmap = ctx.state.monmap.map();
    let mgrmap = ctx.state.mgr.map();
    let services =
        |m: &BTreeMap<String, String>| Json::obj(m.iter().map(|(k, v)| (k.clone(), Json::from(v))));
    obj! {
        "fsid" => ctx.state.fsid.to_string(),
        "health" => health_json(ctx),
        "election_epoch" => ctx.live.quorum.epoch,
        "quorum" => super::mon::quorum_ranks(ctx),
        "quorum_names" => Json::arr(&ctx.live.quorum.names),
        "quorum_age" => super::mon::quorum_age(ctx).as_secs(),
        "monmap" => obj! {
            "epoch" => monmap.epoch,
            "min_mon_release_name" => monmap.min_mon_release.name(),
            "num_mons" => monmap.ranks.len(),
        },
        "osdmap" => osd_summary_json(ctx.state.osd.map()),
        "pgmap" => pgmap_json(ctx),
        "fsmap" => obj! { "epoch" => 1u32, "by_rank" => Json::Arr(vec![]), "up:standby" => 0u32 },
        "mgrmap" => obj! {
            "available" => mgrmap.available,
            "num_standbys" => mgrmap.standbys.len(),
            "modules" => Json::arr(mgrmap.modules.iter()),
            "services" => services(&mgrmap.services),
        },
        "servicemap" => servicemap_json(ctx),
        "progress_events" => Json::obj(ctx.live.progress.iter().map(|(id, e)| {
            (id.clone(), obj! { "message" => &e.message, "progress" => e.progress, "add_to_ceph_s" => e.add_to_ceph_s })
        })),
    }
}

fn pgmap_json(ctx: &Context<'_>) -> Json {
    let digest = &ctx.live.digest;
    let (sum, statfs) = (&digest.pg_sum.stats.sum, &digest.osd_sum.statfs);
    let states =
        by_state(ctx).into_iter().map(|(name, n)| obj! { "state_name" => name, "count" => n });
    let mut json = obj! {
        "pgs_by_state" => states.collect::<Vec<_>>(),
        "num_pgs" => digest.num_pg,
        "num_pools" => ctx.state.osd.map().pools.len(),
        "num_objects" => sum.num_objects,
        "data_bytes" => sum.num_bytes,
        "bytes_used" => statfs.used_raw(),
        "bytes_avail" => statfs.available,
        "bytes_total" => statfs.total,
    };
    let ratio = |n: i64| n as f64 / digest.num_pg.max(1) as f64;
    if digest.num_pg_unknown > 0 {
        json = json.with("unknown_pgs_ratio", ratio(digest.num_pg_unknown));
    }
    let inactive = digest.num_pg - digest.num_pg_active - digest.num_pg_unknown;
    if inactive > 0 {
        json = json.with("inactive_pgs_ratio", ratio(inactive));
    }
    for (word, n, of) in recovery_parts(sum) {
        json = json
            .with(&format!("{word}_objects"), n)
            .with(&format!("{word}_total"), of)
            .with(&format!("{word}_ratio"), n as f64 / of as f64);
    }
    let (delta, r) = (&digest.pg_sum_delta.stats.sum, rates(ctx));
    if has_recovered(delta) {
        json = json
            .with("recovering_objects_per_sec", r.recovered_objects)
            .with("recovering_bytes_per_sec", r.recovered_bytes)
            .with("recovering_keys_per_sec", r.recovered_keys)
            .with("num_objects_recovered", delta.num_objects_recovered)
            .with("num_bytes_recovered", delta.num_bytes_recovered)
            .with("num_keys_recovered", delta.num_keys_recovered);
    }
    if delta.num_rd > 0 || delta.num_wr > 0 {
        json = json
            .with("read_bytes_sec", r.read_bytes)
            .with("write_bytes_sec", r.write_bytes)
            .with("read_op_per_sec", r.reads)
            .with("write_op_per_sec", r.writes);
    }
    json
}

/// Only its head: no service registers yet.
fn servicemap_json(ctx: &Context<'_>) -> Json {
    let modified = stamp(ctx.live.started.wall);
    obj! { "epoch" => 1u32, "modified" => modified, "services" => Json::Obj(vec![]) }
}

pub(super) fn service_dump(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    Ok(ctx.json(&servicemap_json(ctx)))
}

/// Versions by kind of daemon, and over all.
pub(super) fn versions(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    let mut overall: BTreeMap<String, u64> = BTreeMap::new();
    let mut members = Vec::new();
    for kind in ["mon", "mgr", "osd", "mds"] {
        let counts = versions_of(ctx, kind);
        for (version, n) in &counts {
            *overall.entry(version.clone()).or_default() += n;
        }
        members.push((kind, counts_json(&counts)));
    }
    members.push(("overall", counts_json(&overall)));
    Ok(ctx.json(&Json::obj(members)))
}

pub(super) fn osd_versions(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    Ok(ctx.json(&counts_json(&versions_of(ctx, "osd"))))
}

pub(super) fn mgr_versions(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    Ok(ctx.json(&counts_json(&versions_of(ctx, "mgr"))))
}

pub(super) fn mon_versions(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    Ok(ctx.json_nl(&counts_json(&versions_of(ctx, "mon"))))
}

pub(super) fn mds_versions(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    Ok(ctx.json_nl(&Json::Obj(vec![])))
}

fn versions_of(ctx: &Context<'_>, kind: &str) -> BTreeMap<String, u64> {
    count_property(ctx, kind, "ceph_version")
}

/// How many daemons of a kind have which value of a property of their metadata.
pub(super) fn count_property(
    ctx: &Context<'_>,
    kind: &str,
    property: &str,
) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for (_, values) in daemons(ctx, kind) {
        let value = values.get(property).map_or("unknown", String::as_str);
        *counts.entry(value.to_owned()).or_default() += 1;
    }
    counts
}

pub(super) fn counts_json(counts: &BTreeMap<String, u64>) -> Json {
    Json::obj(counts.iter().map(|(k, n)| (k.clone(), Json::from(*n))))
}

/// The daemons of a kind that are there now, with their metadata.
pub(super) fn daemons<'a>(
    ctx: &'a Context<'_>,
    kind: &str,
) -> Vec<(String, &'a BTreeMap<String, String>)> {
    let map = ctx.state.osd.map();
    let mgrmap = ctx.state.mgr.map();
    let of =
        |name: String| Some((name.clone(), ctx.state.metadata.get(&format!("{kind}.{name}"))?));
    match kind {
        "mon" => {
            let own = |name: &String| *name == ctx.live.name;
            let names = ctx.state.monmap.map().ranks.iter();
            let each = names.map(|n| match own(n) {
                true => Some((n.clone(), &ctx.live.metadata)),
                false => of(n.clone()),
            });
            each.flatten().collect()
        }
        "osd" => map.existing_osds().filter_map(|(id, _)| of(id.to_string())).collect(),
        "mgr" => {
            let active = Some(&mgrmap.active_name).filter(|n| !n.is_empty());
            let names = active.into_iter().chain(mgrmap.standbys.values().map(|s| &s.name));
            names.filter_map(|n| of(n.clone())).collect()
        }
        _ => Vec::new(),
    }
}

pub(super) fn features(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    let mons = ctx.live.quorum.names.len().max(1) as u64;
    Ok(ctx.json(&features_json(ctx, mons)))
}

/// Of so many monitors and of the peers that are connected.
pub(super) fn features_json(ctx: &Context<'_>, mons: u64) -> Json {
    let one = |(bits, n): (u64, u64)| obj! { "features" => format!("{bits:#x}"), "release" => "luminous", "num" => n };
    let mut members = vec![("mon", Json::Arr(vec![one((Features::PACIFIC.0, mons))]))];
    for (name, type_) in
        [("osd", EntityType::OSD), ("client", EntityType::CLIENT), ("mgr", EntityType::MGR)]
    {
        let counts = ctx.live.features_of(type_);
        if !counts.is_empty() {
            members.push((name, Json::arr(counts.into_iter().map(one))));
        }
    }
    Json::obj(members)
}

/// Daemons by host.
pub(super) fn node_ls(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let wanted = args.str_opt("type")?.unwrap_or("all");
    if wanted != "all" {
        return Ok(ctx.json_nl(&hosts_json(ctx, wanted)));
    }
    let kinds = ["mon", "osd", "mds", "mgr"].into_iter().map(|kind| (kind, hosts_json(ctx, kind)));
    let there = kinds.filter(|(_, json)| *json != Json::Obj(vec![]));
    Ok(ctx.json_nl(&Json::obj(there.collect::<Vec<_>>())))
}

fn hosts_json(ctx: &Context<'_>, kind: &str) -> Json {
    let mut hosts: BTreeMap<&str, Vec<Json>> = BTreeMap::new();
    for (name, values) in daemons(ctx, kind) {
        let host = values.get("hostname").map_or("unknown", String::as_str);
        let id = if kind == "osd" {
            name.parse::<i64>().map_or(0, |n| n).into()
        } else {
            Json::from(name)
        };
        hosts.entry(host).or_default().push(id);
    }
    Json::obj(hosts.into_iter().map(|(host, ids)| (host, Json::Arr(ids))))
}

/// With one monitor there is nothing to compare clocks with.
pub(super) fn time_sync_status(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    let clocks = &ctx.live.clocks;
    let one = |(name, found): (&String, &Skew)| {
        let bad = crate::health::clock_text(ctx.settings, found);
        let health = if bad.is_some() { "HEALTH_WARN" } else { "HEALTH_OK" };
        let mut json = obj! {
            "skew" => found.skew,
            "latency" => found.latency,
            "health" => health,
        };
        if let Some(text) = bad {
            json = json.with("details", text);
        }
        (name.clone(), json)
    };
    let checks = obj! {
        "epoch" => ctx.live.quorum.epoch,
        "round" => clocks.round,
        "round_status" => if clocks.is_under_way() { "on-going" } else { "finished" },
    };
    let mut members = Vec::new();
    if !clocks.found.is_empty() {
        members.push(("time_skew_status", Json::obj(clocks.found.iter().map(one))));
    }
    members.push(("timechecks", checks));
    Ok(ctx.json(&Json::obj(members)))
}

/// The metadata of one daemon or of all of a kind, under `key` for the name.
pub(super) fn metadata_json(values: &BTreeMap<String, String>, key: &str, name: Json) -> Json {
    let head = std::iter::once((key.to_owned(), name));
    Json::obj(head.chain(values.iter().map(|(k, v)| (k.clone(), Json::from(v)))))
}

/// `CMD ok-to-...` and others that need more monitors than one.
pub(super) fn busy<T>(text: &str) -> Result<T, Refusal> {
    refuse(errno::EBUSY, text)
}
