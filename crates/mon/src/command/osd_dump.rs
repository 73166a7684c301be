//! `osd dump`, `osd pool ls detail`, `osd info`: the OSD map in text and JSON.

use std::collections::BTreeMap;

use spirula_maps::pool::opts::OptValue;
use spirula_maps::pool::{AUTOSCALE_OFF, AUTOSCALE_ON};
use spirula_maps::{Osd, OsdMap, PgPool, SnapIntervals, flags, osd_state, pool_flags};
use spirula_wire::types::PgId;

use super::bans::shown_range;
use super::release::min_compat_client;
use super::{Answer, Args, Context, Outcome, Refusal, errno, refuse};
use crate::json::{Json, float};
use crate::obj;
use crate::service::{addrs_json, legacy_text, plain_addr};
use crate::text::stamp;

pub(super) fn dump(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let map = map_of(ctx, args)?;
    Ok(ctx.either_nl(|| dump_text(&map), || dump_json(&map)))
}

pub(super) fn info(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let map = ctx.state.osd.map();
    if !args.has("id") {
        return Ok(ctx.either_nl(
            || map.existing_osds().map(|(id, osd)| osd_line(map, id, osd)).collect(),
            || Json::arr(map.existing_osds().map(|(id, osd)| osd_json(map, id, osd))),
        ));
    }
    let id = args.osd("id")?;
    match map.osd(id).filter(|o| o.exists()) {
        Some(osd) => Ok(ctx.either_nl(|| osd_line(map, id, osd), || osd_json(map, id, osd))),
        None => refuse(errno::EINVAL, format!("osd.{id} does not exist")),
    }
}

pub(super) fn pool_ls(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let map = ctx.state.osd.map();
    if args.str_opt("detail")? == Some("detail") {
        return Ok(ctx.either(
            || map.pools.iter().map(|(id, p)| pool_line(map, *id, p)).collect::<String>() + "\n",
            || Json::arr(map.pools.iter().map(|(id, p)| pool_json(map, *id, p, "pool_id"))),
        ));
    }
    let names: Vec<&str> = map.pools.keys().filter_map(|id| map.pool_name(*id)).collect();
    Ok(ctx.either(
        || names.iter().map(|n| format!("{n}\n")).collect(),
        || Json::arr(names.iter().copied()),
    ))
}

/// The current map, or that of the epoch that is asked for.
pub(super) fn map_of(ctx: &Context<'_>, args: &Args) -> Result<OsdMap, Refusal> {
    let osd = &ctx.state.osd;
    let epoch = args.int_opt("epoch")?.filter(|e| *e != 0 && *e != i64::from(osd.epoch()));
    let Some(epoch) = epoch else {
        return Ok(osd.map().clone());
    };
    match u32::try_from(epoch).ok().and_then(|e| osd.map_at(e)) {
        Some(map) => Ok(map),
        None => refuse(errno::ENOENT, format!("there is no map for epoch {epoch}")),
    }
}

fn ratio(value: f32) -> String {
    float(value.into(), 6)
}

fn dump_text(map: &OsdMap) -> String {
    let mut out = format!(
        "epoch {}\nfsid {}\ncreated {}\nmodified {}\nflags {}\ncrush_version {}\nfull_ratio {}\nbackfillfull_ratio {}\nnearfull_ratio {}\n",
        map.epoch,
        map.fsid,
        stamp(map.created.into()),
        stamp(map.modified.into()),
        flags::names(map.flags),
        map.crush_version,
        ratio(map.full_ratio),
        ratio(map.backfillfull_ratio),
        ratio(map.nearfull_ratio),
    );
    out += &format!(
        "require_min_compat_client {}\nmin_compat_client {}\nrequire_osd_release {}\nstretch_mode_enabled {}\n",
        map.require_min_compat_client,
        min_compat_client(map),
        map.require_osd_release,
        map.stretch_mode.enabled
    );
    for (id, pool) in &map.pools {
        out += &pool_line(map, *id, pool);
    }
    out += &format!("max_osd {}\n", map.max_osd());
    for (id, osd) in map.existing_osds() {
        out += &osd_line(map, id, osd);
    }
    for (pg, osds) in &map.pg_upmap {
        out += &format!("pg_upmap {pg} {}\n", ids(osds));
    }
    for (pg, pairs) in &map.pg_upmap_items {
        let flat: Vec<i32> = pairs.iter().flat_map(|(a, b)| [*a, *b]).collect();
        out += &format!("pg_upmap_items {pg} {}\n", ids(&flat));
    }
    for (pg, osds) in &map.pg_temp {
        out += &format!("pg_temp {pg} {}\n", ids(osds));
    }
    for (pg, osd) in &map.primary_temp {
        out += &format!("primary_temp {pg} {osd}\n");
    }
    for (addr, until) in &map.blocklist {
        out += &format!("blocklist {} expires {}\n", plain_addr(addr), stamp((*until).into()));
    }
    for (range, until) in &map.range_blocklist {
        let (range, until) = (shown_range(range), stamp((*until).into()));
        out += &format!("range blocklist {range} expires {until}\n");
    }
    out
}

pub(super) fn ids(osds: &[i32]) -> String {
    let texts: Vec<String> = osds.iter().map(ToString::to_string).collect();
    format!("[{}]", texts.join(","))
}

fn osd_line(map: &OsdMap, id: i32, osd: &Osd) -> String {
    let up = if osd.is_up() { "up  " } else { "down" };
    let in_ = if osd.is_in() { "in " } else { "out" };
    let weight = float(f64::from(osd.weight) / 65_536.0, 6);
    let mut out = format!("osd.{id} {up} {in_} weight {weight}");
    let affinity = map.affinity(id);
    if affinity != spirula_maps::AFFINITY_DEFAULT {
        out += &format!(" primary_affinity {}", float(f64::from(affinity) / 65_536.0, 6));
    }
    let i = &osd.info;
    out += &format!(
        " up_from {} up_thru {} down_at {} last_clean_interval [{},{})",
        i.up_from, i.up_thru, i.down_at, i.last_clean_begin, i.last_clean_end
    );
    out += &format!(" {} {} {}", osd.client_addrs, osd.cluster_addrs, osd_state::names(osd.state));
    if !osd.uuid.is_zero() {
        out += &format!(" {}", osd.uuid);
    }
    out + "\n"
}

fn pool_type(pool: &PgPool) -> &'static str {
    if pool.is_erasure() { "erasure" } else { "replicated" }
}

pub(super) fn autoscale_mode(pool: &PgPool) -> &'static str {
    match pool.pg_autoscale_mode {
        AUTOSCALE_OFF => "off",
        AUTOSCALE_ON => "on",
        _ => "warn",
    }
}

pub(super) fn opt_text(value: &OptValue) -> String {
    match value {
        OptValue::Str(text) => text.clone(),
        OptValue::Int(n) => n.to_string(),
        OptValue::Double(bits) => float(f64::from_bits(*bits), 6),
    }
}

pub(super) fn opt_json(value: &OptValue) -> Json {
    match value {
        OptValue::Str(text) => text.into(),
        OptValue::Int(n) => (*n).into(),
        OptValue::Double(bits) => f64::from_bits(*bits).into(),
    }
}

/// Options by name, as Ceph lists them.
pub(super) fn opts_sorted(pool: &PgPool) -> Vec<(&'static str, &OptValue)> {
    let mut opts: Vec<_> = pool.opts.iter().collect();
    opts.sort_by_key(|(name, _)| *name);
    opts
}

pub(super) fn pool_line(map: &OsdMap, id: i64, pool: &PgPool) -> String {
    let name = map.pool_name(id).unwrap_or_default();
    let mut out = format!("pool {id} '{name}' {}", pool_type(pool));
    if pool.is_erasure() {
        out += &format!(" profile {}", pool.erasure_code_profile);
    }
    out += &format!(
        " size {} min_size {} crush_rule {} object_hash rjenkins pg_num {} pgp_num {}",
        pool.size, pool.min_size, pool.crush_rule, pool.pg_num, pool.pgp_num
    );
    if pool.pg_num_target != pool.pg_num {
        out += &format!(" pg_num_target {}", pool.pg_num_target);
    }
    if pool.pgp_num_target != pool.pgp_num {
        out += &format!(" pgp_num_target {}", pool.pgp_num_target);
    }
    out += &format!(" autoscale_mode {} last_change {}", autoscale_mode(pool), pool.last_change);
    let resend = (
        pool.last_force_op_resend,
        pool.last_force_op_resend_prenautilus,
        pool.last_force_op_resend_preluminous,
    );
    if resend != (0, 0, 0) {
        out += &format!(" lfor {}/{}/{}", resend.0, resend.1, resend.2);
    }
    out += &format!(" flags {}", pool_flags::names(pool.flags));
    if pool.quota_max_bytes > 0 {
        out += &format!(" max_bytes {}", pool.quota_max_bytes);
    }
    if pool.quota_max_objects > 0 {
        out += &format!(" max_objects {}", pool.quota_max_objects);
    }
    out += &format!(" stripe_width {}", pool.stripe_width);
    for (name, value) in opts_sorted(pool) {
        out += &format!(" {name} {}", opt_text(value));
    }
    if !pool.application_metadata.is_empty() {
        let apps: Vec<&str> = pool.application_metadata.keys().map(String::as_str).collect();
        out += &format!(" application {}", apps.join(","));
    }
    out.push('\n');
    for snap in pool.snaps.values() {
        out += &format!("\tsnap {:x} '{}' {}\n", snap.snapid, snap.name, stamp(snap.stamp.into()));
    }
    if let Some(queue) = map.removed_snaps_queue.get(&id) {
        let intervals: Vec<String> =
            queue.iter().map(|(s, len)| format!("{s:x}~{len:x}")).collect();
        out += &format!("\tremoved_snaps_queue [{}]\n", intervals.join(","));
    }
    out
}

fn dump_json(map: &OsdMap) -> Json {
    let mut set: Vec<String> = flags::names(map.flags).split(',').map(str::to_owned).collect();
    set.sort_unstable();
    let head = obj! {
        "epoch" => map.epoch,
        "fsid" => map.fsid.to_string(),
        "created" => stamp(map.created.into()),
        "modified" => stamp(map.modified.into()),
        "last_up_change" => stamp(map.last_up_change.into()),
        "last_in_change" => stamp(map.last_in_change.into()),
        "flags" => flags::names(map.flags),
        "flags_num" => map.flags,
        "flags_set" => set,
        "crush_version" => map.crush_version,
        "full_ratio" => map.full_ratio,
        "backfillfull_ratio" => map.backfillfull_ratio,
        "nearfull_ratio" => map.nearfull_ratio,
        "cluster_snapshot" => &map.cluster_snapshot,
        "pool_max" => map.pool_max,
        "max_osd" => map.max_osd(),
        "require_min_compat_client" => map.require_min_compat_client.name(),
        "min_compat_client" => min_compat_client(map).name(),
        "require_osd_release" => map.require_osd_release.name(),
    };
    let pools = map.pools.iter().map(|(id, p)| pool_json(map, *id, p, "pool"));
    let osds = map.existing_osds().map(|(id, osd)| osd_json(map, id, osd));
    let json = head
        .with("pools", pools.collect::<Vec<_>>())
        .with("osds", osds.collect::<Vec<_>>())
        .with("osd_xinfo", map.existing_osds().map(xinfo_json).collect::<Vec<_>>());
    exceptions_json(map, json)
}

/// The members of `osd dump` behind the OSDs.
fn exceptions_json(map: &OsdMap, json: Json) -> Json {
    let json = mappings_json(map, json);
    let banned = map.blocklist.iter();
    let banned = banned.map(|(a, until)| (plain_addr(a), Json::from(stamp((*until).into()))));
    let ranges = map.range_blocklist.iter();
    let ranges = ranges.map(|(r, until)| (shown_range(r), Json::from(stamp((*until).into()))));
    let profiles = map.erasure_code_profiles.iter().map(|(name, profile)| {
        let pairs = profile.iter().map(|(k, v)| (k.clone(), Json::from(v)));
        (name.clone(), Json::obj(pairs))
    });
    let class_name = |class: &i32| map.crush.class_names.get(class).cloned().unwrap_or_default();
    let classes = map.device_class_flags.iter();
    let classes = classes.map(|(class, bits)| (class_name(class), flags_json(*bits)));
    let node_name = |item: &i32| map.crush.name(*item).unwrap_or_default().to_owned();
    let nodes = map.crush_node_flags.iter();
    let nodes = nodes.map(|(item, bits)| (node_name(item), flags_json(*bits)));
    let mode = &map.stretch_mode;
    let stretch = obj! {
        "stretch_mode_enabled" => mode.enabled,
        "stretch_bucket_count" => mode.bucket_count,
        "degraded_stretch_mode" => mode.degraded,
        "recovering_stretch_mode" => mode.recovering,
        "stretch_mode_bucket" => mode.bucket,
    };
    json.with("blocklist", Json::obj(banned))
        .with("range_blocklist", Json::obj(ranges))
        .with("erasure_code_profiles", Json::obj(profiles))
        .with("removed_snaps_queue", snaps_json(&map.removed_snaps_queue))
        .with("new_removed_snaps", snaps_json(&map.new_removed_snaps))
        .with("new_purged_snaps", snaps_json(&map.new_purged_snaps))
        .with("crush_node_flags", Json::obj(nodes))
        .with("device_class_flags", Json::obj(classes))
        .with("stretch_mode", stretch)
}

/// Exceptions from what CRUSH says.
fn mappings_json(map: &OsdMap, json: Json) -> Json {
    let osds = |(pg, osds): (&PgId, &Vec<i32>)| {
        obj! { "pgid" => pg.to_string(), "osds" => osds.clone() }
    };
    let items = map.pg_upmap_items.iter().map(|(pg, pairs)| {
        let mappings = pairs.iter().map(|(from, to)| obj! { "from" => *from, "to" => *to });
        obj! { "pgid" => pg.to_string(), "mappings" => mappings.collect::<Vec<_>>() }
    });
    let primary = map.primary_temp.iter();
    let primary = primary.map(|(pg, osd)| obj! { "pgid" => pg.to_string(), "osd" => *osd });
    json.with("pg_upmap", map.pg_upmap.iter().map(osds).collect::<Vec<_>>())
        .with("pg_upmap_items", items.collect::<Vec<_>>())
        .with("pg_temp", map.pg_temp.iter().map(osds).collect::<Vec<_>>())
        .with("primary_temp", primary.collect::<Vec<_>>())
}

fn flags_json(bits: u32) -> Json {
    Json::arr(osd_state::names(bits).split(',').filter(|f| !f.is_empty()))
}

fn snaps_json(snaps: &BTreeMap<i64, SnapIntervals>) -> Json {
    Json::arr(snaps.iter().map(|(pool, set)| {
        let intervals = set.iter();
        let intervals =
            intervals.map(|(begin, length)| obj! { "begin" => begin, "length" => length });
        obj! { "pool" => *pool, "snaps" => intervals.collect::<Vec<_>>() }
    }))
}

fn osd_json(map: &OsdMap, id: i32, osd: &Osd) -> Json {
    let i = &osd.info;
    let states: Vec<String> = osd_state::names(osd.state).split(',').map(str::to_owned).collect();
    obj! {
        "osd" => id,
        "uuid" => osd.uuid.to_string(),
        "up" => u32::from(osd.is_up()),
        "in" => u32::from(osd.is_in()),
        "weight" => f64::from(osd.weight) / 65_536.0,
        "primary_affinity" => f64::from(map.affinity(id)) / 65_536.0,
        "last_clean_begin" => i.last_clean_begin,
        "last_clean_end" => i.last_clean_end,
        "up_from" => i.up_from,
        "up_thru" => i.up_thru,
        "down_at" => i.down_at,
        "lost_at" => i.lost_at,
        "public_addrs" => addrs_json(&osd.client_addrs),
        "cluster_addrs" => addrs_json(&osd.cluster_addrs),
        "heartbeat_back_addrs" => addrs_json(&osd.hb_back_addrs),
        "heartbeat_front_addrs" => addrs_json(&osd.hb_front_addrs),
        "public_addr" => legacy_text(&osd.client_addrs),
        "cluster_addr" => legacy_text(&osd.cluster_addrs),
        "heartbeat_back_addr" => legacy_text(&osd.hb_back_addrs),
        "heartbeat_front_addr" => legacy_text(&osd.hb_front_addrs),
        "state" => states,
    }
}

fn xinfo_json((id, osd): (i32, &Osd)) -> Json {
    let x = &osd.xinfo;
    obj! {
        "osd" => id,
        "down_stamp" => stamp(x.down_stamp.into()),
        "laggy_probability" => (f64::from(x.laggy_probability) / f64::from(u32::MAX)) as f32,
        "laggy_interval" => x.laggy_interval,
        "features" => x.features,
        "old_weight" => x.old_weight,
        "last_purged_snaps_scrub" => stamp(x.last_purged_snaps_scrub.into()),
        "dead_epoch" => x.dead_epoch,
    }
}

fn pool_json(map: &OsdMap, id: i64, p: &PgPool, id_key: &str) -> Json {
    let merge = &p.last_pg_merge_meta;
    let snap_mode = if p.has_flag(pool_flags::POOL_SNAPS) { "pool" } else { "selfmanaged" };
    let snaps = p.snaps.values().map(|s| {
        obj! { "snapid" => s.snapid, "stamp" => stamp(s.stamp.into()), "name" => &s.name }
    });
    let head = obj! {
        id_key => id,
        "pool_name" => map.pool_name(id).unwrap_or_default(),
        "create_time" => stamp(p.create_time.into()),
        "flags" => p.flags,
        "flags_names" => pool_flags::names(p.flags),
        "type" => p.type_,
        "size" => p.size,
        "min_size" => p.min_size,
        "crush_rule" => p.crush_rule,
        "peering_crush_bucket_count" => p.stretch.bucket_count,
        "peering_crush_bucket_target" => p.stretch.bucket_target,
        "peering_crush_bucket_barrier" => p.stretch.bucket_barrier,
        "peering_crush_bucket_mandatory_member" => p.stretch.mandatory_member,
        "object_hash" => p.object_hash,
        "pg_autoscale_mode" => autoscale_mode(p),
        "pg_num" => p.pg_num,
        "pg_placement_num" => p.pgp_num,
        "pg_placement_num_target" => p.pgp_num_target,
        "pg_num_target" => p.pg_num_target,
        "pg_num_pending" => p.pg_num_pending,
        "last_pg_merge_meta" => obj! {
            "source_pgid" => merge.source_pgid.to_string(),
            "ready_epoch" => merge.ready_epoch,
            "last_epoch_started" => merge.last_epoch_started,
            "last_epoch_clean" => merge.last_epoch_clean,
            "source_version" => merge.source_version.to_string(),
            "target_version" => merge.target_version.to_string(),
        },
        "last_change" => p.last_change.to_string(),
        "last_force_op_resend" => p.last_force_op_resend.to_string(),
        "last_force_op_resend_prenautilus" => p.last_force_op_resend_prenautilus.to_string(),
        "last_force_op_resend_preluminous" => p.last_force_op_resend_preluminous.to_string(),
        "auid" => p.auid,
        "snap_mode" => snap_mode,
        "snap_seq" => p.snap_seq,
        "snap_epoch" => p.snap_epoch,
        "pool_snaps" => snaps.collect::<Vec<_>>(),
        "removed_snaps" => "[]",
        "quota_max_bytes" => p.quota_max_bytes,
        "quota_max_objects" => p.quota_max_objects,
        "tiers" => Json::arr(p.tiers.iter().copied()),
        "tier_of" => p.tier_of,
        "read_tier" => p.read_tier,
        "write_tier" => p.write_tier,
    };
    pool_json_rest(p, head)
}

/// Cache tiers, hit sets, options, applications.
fn pool_json_rest(p: &PgPool, head: Json) -> Json {
    let apps = p.application_metadata.iter().map(|(app, pairs)| {
        let pairs = pairs.iter().map(|(k, v)| (k.clone(), Json::from(v)));
        (app.clone(), Json::obj(pairs))
    });
    let options = opts_sorted(p).into_iter().map(|(name, value)| (name, opt_json(value)));
    head.with("cache_mode", "none")
        .with("target_max_bytes", p.target_max_bytes)
        .with("target_max_objects", p.target_max_objects)
        .with("cache_target_dirty_ratio_micro", p.cache_target_dirty_ratio_micro)
        .with("cache_target_dirty_high_ratio_micro", p.cache_target_dirty_high_ratio_micro)
        .with("cache_target_full_ratio_micro", p.cache_target_full_ratio_micro)
        .with("cache_min_flush_age", p.cache_min_flush_age)
        .with("cache_min_evict_age", p.cache_min_evict_age)
        .with("erasure_code_profile", &p.erasure_code_profile)
        .with("hit_set_params", obj! { "type" => "none" })
        .with("hit_set_period", p.hit_set_period)
        .with("hit_set_count", p.hit_set_count)
        .with("use_gmt_hitset", p.use_gmt_hitset)
        .with("min_read_recency_for_promote", p.min_read_recency_for_promote)
        .with("min_write_recency_for_promote", p.min_write_recency_for_promote)
        .with("hit_set_grade_decay_rate", p.hit_set_grade_decay_rate)
        .with("hit_set_search_last_n", p.hit_set_search_last_n)
        .with("grade_table", Json::Arr(vec![]))
        .with("stripe_width", p.stripe_width)
        .with("expected_num_objects", p.expected_num_objects)
        .with("fast_read", p.fast_read)
        .with("options", Json::obj(options))
        .with("application_metadata", Json::obj(apps))
}

/// The encoded map of an epoch.
pub(super) fn getmap(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let epoch = args.int_opt("epoch")?.filter(|e| *e != 0).unwrap_or(ctx.state.osd.epoch().into());
    match u32::try_from(epoch).ok().and_then(|e| ctx.state.osd.full_at(e)) {
        Some(bytes) => Ok(Answer::raw(bytes).with_status(format!("got osdmap epoch {epoch}"))),
        None => refuse(errno::ENOENT, format!("there is no map for epoch {epoch}")),
    }
}
