//! `osd *` that only look: OSDs, where they are, where objects are.

use spirula_maps::OsdMap;
use spirula_wire::types::{ObjectLocator, PgId};
use spirula_wire::{Encode, Features};

use super::osd_dump::{ids, map_of};
use super::status::{
    count_property, counts_json, daemons, metadata_json, osd_summary, osd_summary_json,
};
use super::{Answer, Args, Context, Outcome, errno, refuse};
use crate::json::{Json, float};
use crate::obj;
use crate::service::addrs_json;
use crate::text::{Align, TextTable};

pub(super) fn stat(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    Ok(ctx.either(|| osd_summary(ctx, "", true), || osd_summary_json(ctx.state.osd.map())))
}

pub(super) fn ls(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let map = map_of(ctx, args)?;
    Ok(list(ctx, map.existing_osds().map(|(id, _)| id).collect()))
}

pub(super) fn ls_tree(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let map = map_of(ctx, args)?;
    let name = args.str("name")?;
    let Some(root) = map.crush.item_by_name(name) else {
        return refuse(errno::ENOENT, format!("\"{name}\" does not exist"));
    };
    let mut osds: Vec<i32> =
        map.crush.subtree(root).into_iter().filter(|i| map.exists(*i)).collect();
    osds.sort_unstable();
    Ok(list(ctx, osds))
}

fn list(ctx: &Context<'_>, osds: Vec<i32>) -> Answer {
    ctx.either_nl(
        || osds.iter().map(|id| format!("{id}\n")).collect(),
        || Json::arr(osds.iter().copied()),
    )
}

pub(super) fn getmaxosd(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    let map = ctx.state.osd.map();
    let (epoch, max) = (map.epoch, map.max_osd());
    Ok(ctx.either(
        || format!("max_osd = {max} in epoch {epoch}\n"),
        || obj! { "epoch" => epoch, "max_osd" => max },
    ))
}

pub(super) fn getcrushmap(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let map = map_of(ctx, args)?;
    let bytes = map.crush.to_bytes(Features::PACIFIC);
    Ok(Answer::raw(bytes.into()).with_status(map.crush_version))
}

pub(super) fn lspools(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    let names = &ctx.state.osd.map().pool_names;
    Ok(ctx.either_nl(
        || names.iter().map(|(id, name)| format!("{id} {name}\n")).collect(),
        || Json::arr(names.iter().map(|(id, name)| obj! { "poolnum" => *id, "poolname" => name })),
    ))
}

pub(super) fn find(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let id = args.osd("id")?;
    let map = ctx.state.osd.map();
    let Some(osd) = map.osd(id).filter(|o| o.exists()) else {
        return refuse(errno::ENOENT, format!("osd.{id} does not exist"));
    };
    let mut json = obj! {
        "osd" => id,
        "addrs" => addrs_json(&osd.client_addrs),
        "osd_fsid" => osd.uuid.to_string(),
    };
    if let Some(values) = ctx.state.metadata.get(&format!("osd.{id}")) {
        let known =
            [("hostname", "host"), ("pod_name", "pod_name"), ("container_name", "container_name")];
        for (key, shown) in known {
            if let Some(value) = values.get(key) {
                json = json.with(shown, value);
            }
        }
    }
    let location = map.crush.full_location(id).into_iter().map(|(t, n)| (t, Json::from(n)));
    Ok(ctx.json(&json.with("crush_location", Json::obj(location))))
}

pub(super) fn metadata(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let json = |id: i64, values| metadata_json(values, "id", id.into());
    if !args.has("id") {
        let all = daemons(ctx, "osd");
        return Ok(
            ctx.json(&Json::arr(all.iter().map(|(id, v)| json(id.parse().unwrap_or(-1), v))))
        );
    }
    let id = args.osd("id")?;
    if !ctx.state.osd.map().exists(id) {
        return refuse(errno::ENOENT, format!("osd.{id} does not exist"));
    }
    match ctx.state.metadata.get(&format!("osd.{id}")) {
        Some(values) => Ok(ctx.json(&json(id.into(), values))),
        None => refuse(errno::ENOENT, format!("osd.{id} has not booted yet")),
    }
}

pub(super) fn count_metadata(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let counts = count_property(ctx, "osd", args.str("property")?);
    Ok(ctx.json(&counts_json(&counts)))
}

pub(super) fn numa_status(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    let hosts: Vec<(String, String)> = daemons(ctx, "osd")
        .into_iter()
        .map(|(id, values)| (id, values.get("hostname").cloned().unwrap_or_default()))
        .collect();
    Ok(ctx.either(
        || {
            let mut table = TextTable::default();
            table.column("OSD", Align::Left, Align::Right).column("HOST", Align::Left, Align::Left);
            for heading in ["NETWORK", "STORAGE", "AFFINITY"] {
                table.column(heading, Align::Right, Align::Right);
            }
            table.column("CPUS", Align::Left, Align::Left);
            for (id, host) in &hosts {
                let mut row = vec![id.clone(), host.clone()];
                row.extend(["-"; 4].map(str::to_owned));
                table.row(row);
            }
            table.render()
        },
        || {
            Json::arr(hosts.iter().map(|(id, host)| {
                obj! { "osd" => id.parse::<i64>().unwrap_or(-1), "host" => host }
            }))
        },
    ))
}

/// The placement of an object, whether or not it exists.
pub(super) fn map(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let (pool_name, object) = (args.str("pool")?, args.str("object")?);
    let nspace = args.str_opt("nspace")?.unwrap_or_default();
    let map = ctx.state.osd.map();
    let Some(pool) = map.pool_by_name(pool_name) else {
        return refuse(errno::ENOENT, format!("pool {pool_name} does not exist"));
    };
    let locator = ObjectLocator { nspace: nspace.to_owned().into(), ..ObjectLocator::pool(pool) };
    let raw = map.object_to_pg(&locator, object.as_bytes()).unwrap_or_default();
    let pg = map.raw_pg_to_pg(raw).unwrap_or_default();
    let at = map.pg_to_up_acting(pg);
    let shown = if nspace.is_empty() { object.to_owned() } else { format!("{nspace}/{object}") };
    Ok(ctx.either(
        || {
            format!(
                "osdmap e{} pool '{pool_name}' ({pool}) object '{shown}' -> pg {raw} ({pg}) -> up ({}, p{}) acting ({}, p{})\n",
                map.epoch,
                ids(&at.up),
                at.up_primary,
                ids(&at.acting),
                at.acting_primary
            )
        },
        || {
            obj! {
                "epoch" => map.epoch,
                "pool" => pool_name,
                "pool_id" => pool,
                "objname" => &shown,
                "raw_pgid" => raw.to_string(),
                "pgid" => pg.to_string(),
                "up" => at.up.clone(),
                "up_primary" => at.up_primary,
                "acting" => at.acting.clone(),
                "acting_primary" => at.acting_primary,
            }
        },
    ))
}

pub(super) fn pg_map(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let text = args.str("pgid")?;
    let map = ctx.state.osd.map();
    let Ok(raw) = text.parse::<PgId>() else {
        return refuse(errno::EINVAL, format!("invalid pgid '{text}'"));
    };
    let Some(pg) = map.raw_pg_to_pg(raw) else {
        return refuse(errno::ENOENT, format!("pg '{raw}' does not exist"));
    };
    let at = map.pg_to_up_acting(pg);
    Ok(ctx.either(
        || {
            format!(
                "osdmap e{} pg {raw} ({pg}) -> up {} acting {}\n",
                map.epoch,
                ids(&at.up),
                ids(&at.acting)
            )
        },
        || {
            obj! {
                "epoch" => map.epoch,
                "raw_pgid" => raw.to_string(),
                "pgid" => pg.to_string(),
                "up" => at.up.clone(),
                "acting" => at.acting.clone(),
            }
        },
    ))
}

pub(super) fn last_stat_seq(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let id = args.osd("id")?;
    let seqs = &ctx.live.digest.osd_last_seq;
    let seq = usize::try_from(id).ok().and_then(|i| seqs.get(i)).copied().unwrap_or(0);
    // Ceph has no other form of this.
    Ok(match ctx.format {
        super::Format::Plain => Answer::text(format!("{seq}\n")),
        _ => Answer::default(),
    })
}

/// How evenly PGs are spread.
pub(super) fn utilization(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    let map = ctx.state.osd.map();
    let counts = pgs_by_osd(map);
    let in_osds = counts.len().max(1) as f64;
    let total: u64 = counts.iter().map(|(_, n)| *n).sum();
    let avg = total as f64 / in_osds;
    let variance = counts.iter().map(|(_, n)| (avg - *n as f64).powi(2)).sum::<f64>() / in_osds;
    // As if every copy were thrown at random.
    let expected = (avg * (1.0 - 1.0 / in_osds)).max(0.0).sqrt();
    let min = counts.iter().min_by_key(|(_, n)| *n).copied().unwrap_or((-1, 0));
    let max = counts.iter().rev().max_by_key(|(_, n)| *n).copied().unwrap_or((-1, 0));
    let of_mean = |n: u64| {
        if avg > 0.0 { float(n as f64 / avg, 6) } else { "0".into() }
    };
    Ok(ctx.either(
        || {
            format!(
                "avg {}\nstddev {} (expected baseline {})\nmin osd.{} with {} pgs ({} * mean)\nmax osd.{} with {} pgs ({} * mean)\n",
                float(avg, 6), float(variance.sqrt(), 6), float(expected, 6),
                min.0, min.1, of_mean(min.1), max.0, max.1, of_mean(max.1)
            )
        },
        || {
            obj! {
                "avg_pgs" => avg as f32,
                "std_dev" => variance.sqrt() as f32,
                "expected_baseline_std_dev" => expected as f32,
                "min_osd" => min.0,
                "min_osd_pgs" => min.1,
                "max_osd" => max.0,
                "max_osd_pgs" => max.1,
            }
        },
    ))
}

/// Up copies by OSD that is in.
fn pgs_by_osd(map: &OsdMap) -> Vec<(i32, u64)> {
    let mut counts: std::collections::BTreeMap<i32, u64> =
        map.existing_osds().filter(|(_, o)| o.is_in()).map(|(id, _)| (id, 0)).collect();
    for (&pool, p) in &map.pools {
        for seed in 0..p.pg_num {
            for osd in map.pg_to_up_acting(PgId::new(pool, seed)).up {
                if let Some(n) = counts.get_mut(&osd) {
                    *n += 1;
                }
            }
        }
    }
    counts.into_iter().collect()
}
