//! `mon *`, `quorum_status`: the monitors themselves.

use std::time::Duration;

use spirula_maps::MonMap;
use spirula_maps::monmap::MonInfo;
use spirula_wire::Features;

use super::status::{count_property, counts_json, daemons, metadata_json};
use super::{Answer, Args, Context, Format, Outcome, errno, refuse};
use crate::json::Json;
use crate::live::MonState;
use crate::obj;
use crate::service::{addrs_json, legacy_text};
use crate::text::{stamp, stamp_z};

/// Persistent features of a Pacific quorum, by bit.
const FEATURES: [&str; 8] = [
    "kraken",
    "luminous",
    "mimic",
    "osdmap-prune",
    "nautilus",
    "octopus",
    "pacific",
    "elector-pinging",
];

pub(super) fn dump(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let map = at_epoch(ctx, args)?;
    let answer = ctx.either_nl(
        || {
            let mut out = format!(
                "epoch {}\nfsid {}\nlast_changed {}\ncreated {}\nmin_mon_release {} ({})\nelection_strategy: {}\n",
                map.epoch,
                map.fsid,
                stamp(map.last_changed.into()),
                stamp(map.created.into()),
                map.min_mon_release.0,
                map.min_mon_release.name(),
                map.election_strategy,
            );
            for (rank, mon) in map.by_rank().enumerate() {
                out += &format!("{rank}: {} mon.{}\n", mon.public_addrs, mon.name);
            }
            out
        },
        || {
            monmap_json(map).with("quorum", quorum_ranks(ctx))
        },
    );
    Ok(answer.with_status(format!("dumped monmap epoch {}", map.epoch)))
}

pub(super) fn getmap(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let epoch = at_epoch(ctx, args)?.epoch;
    Ok(Answer::raw(ctx.state.monmap.encoded()).with_status(format!("got monmap epoch {epoch}")))
}

pub(super) fn stat(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    let map = ctx.state.monmap.map();
    let view = &ctx.live.quorum;
    let leader = &view.leader;
    Ok(ctx.either_nl(
        || {
            let mons: Vec<String> =
                map.by_rank().map(|m| format!("{}={}", m.name, m.public_addrs)).collect();
            let ranks: Vec<String> = quorum_ranks(ctx).iter().map(ToString::to_string).collect();
            format!(
                "e{}: {} mons at {{{}}} removed_ranks: {{{}}}, election epoch {}, leader {} {leader}, quorum {} {}\n",
                map.epoch,
                map.ranks.len(),
                mons.join(","),
                removed_ranks(map),
                view.epoch,
                ctx.state.monmap.rank_of(leader),
                ranks.join(","),
                view.names.join(",")
            )
        },
        || {
            let one = |name: &String| {
                obj! { "rank" => ctx.state.monmap.rank_of(name), "name" => name }
            };
            let quorum = view.names.iter().map(one);
            obj! {
                "epoch" => map.epoch,
                "min_mon_release_name" => map.min_mon_release.name(),
                "num_mons" => map.ranks.len(),
                "leader" => leader,
                "quorum" => quorum.collect::<Vec<_>>(),
            }
        },
    ))
}

pub(super) fn quorum_status(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    let map = ctx.state.monmap.map();
    let json = obj! {
        "election_epoch" => ctx.live.quorum.epoch,
        "quorum" => quorum_ranks(ctx),
        "quorum_names" => Json::arr(&ctx.live.quorum.names),
        "quorum_leader_name" => &ctx.live.quorum.leader,
        "quorum_age" => quorum_age(ctx).as_secs(),
        "features" => obj! {
            "quorum_con" => Features::PACIFIC.0.to_string(),
            "quorum_mon" => Json::arr(FEATURES),
        },
        "monmap" => monmap_json(map),
    };
    // Plain is the compact form here.
    Ok(match ctx.format {
        Format::JsonPretty => ctx.json_nl(&json),
        _ => Answer::text(json.compact() + "\n"),
    })
}

/// What `ceph tell mon.a mon_status` answers and a `ping` carries.
pub(crate) fn mon_status_json(ctx: &Context<'_>) -> Json {
    let map = ctx.state.monmap.map();
    obj! {
        "name" => &ctx.live.name,
        "rank" => ctx.state.monmap.rank_of(&ctx.live.name),
        "state" => ctx.live.quorum.state.name(),
        "election_epoch" => ctx.live.quorum.epoch,
        "quorum" => quorum_ranks(ctx),
        "quorum_age" => quorum_age(ctx).as_secs(),
        "features" => obj! {
            "required_con" => "2449958747317026820",
            "required_mon" => Json::arr(FEATURES),
            "quorum_con" => Features::PACIFIC.0.to_string(),
            "quorum_mon" => Json::arr(FEATURES),
        },
        "outside_quorum" => match ctx.live.quorum.state {
            // Whoever looks for a quorum is outside of one.
            MonState::Electing => Json::arr([&ctx.live.name]),
            _ => Json::Arr(vec![]),
        },
        "extra_probe_peers" => Json::Arr(vec![]),
        "sync_provider" => Json::Arr(vec![]),
        "monmap" => monmap_json(map),
        "feature_map" => super::status::features_json(ctx, 1),
        "stretch_mode" => map.stretch_mode_enabled,
    }
}

/// Ranks of the monitors in the quorum.
pub(super) fn quorum_ranks(ctx: &Context<'_>) -> Vec<i64> {
    ctx.live.quorum.names.iter().map(|name| ctx.state.monmap.rank_of(name)).collect()
}

/// For how long these have been the quorum.
pub(super) fn quorum_age(ctx: &Context<'_>) -> Duration {
    ctx.now.mono.saturating_sub(ctx.live.quorum.since)
}

pub(super) fn metadata(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let known = daemons(ctx, "mon");
    let Some(id) = args.str_opt("id")? else {
        let one = |(name, values): (String, _)| metadata_json(values, "name", name.into());
        return Ok(ctx.json_nl(&Json::Arr(known.into_iter().map(one).collect())));
    };
    match known.into_iter().find(|(name, _)| name == id) {
        Some((_, values)) => {
            let values = values.iter().map(|(k, v)| (k.clone(), Json::from(v)));
            Ok(ctx.json_nl(&Json::obj(values)))
        }
        None => refuse(errno::ENOENT, "requested mon not found"),
    }
}

pub(super) fn count_metadata(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let counts = count_property(ctx, "mon", args.str("property")?);
    Ok(ctx.json_nl(&counts_json(&counts)))
}

pub(super) fn feature_ls(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    let all = FEATURES.join(",");
    let epoch = ctx.state.monmap.epoch();
    Ok(ctx.either_nl(
        || {
            format!(
                "all features\n\tsupported: [{all}]\n\tpersistent: [{all}]\non current monmap (epoch {epoch})\n\tpersistent: [{all}]\n\trequired: [{all}]\n"
            )
        },
        || {
            obj! {
                "all" => obj! { "supported" => Json::arr(FEATURES), "persistent" => Json::arr(FEATURES) },
                "monmap" => obj! {
                    "persistent" => Json::arr(FEATURES),
                    "optional" => Json::Arr(vec![]),
                    "required" => Json::arr(FEATURES),
                },
            }
        },
    ))
}

fn location_text(mon: &MonInfo) -> String {
    let pairs: Vec<String> = mon.crush_loc.iter().map(|(t, n)| format!("{t}={n}")).collect();
    format!("{{{}}}", pairs.join(","))
}

fn removed_ranks(map: &MonMap) -> String {
    map.removed_ranks.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

pub(super) fn monmap_json(map: &MonMap) -> Json {
    let mons = map.by_rank().enumerate().map(|(rank, mon)| {
        let addr = legacy_text(&mon.public_addrs);
        obj! {
            "rank" => rank,
            "name" => &mon.name,
            "public_addrs" => addrs_json(&mon.public_addrs),
            "addr" => &addr,
            "public_addr" => &addr,
            "priority" => mon.priority,
            "weight" => mon.weight,
            "crush_location" => location_text(mon),
        }
    });
    obj! {
        "epoch" => map.epoch,
        "fsid" => map.fsid.to_string(),
        "modified" => stamp_z(map.last_changed.into()),
        "created" => stamp_z(map.created.into()),
        "min_mon_release" => map.min_mon_release.0,
        "min_mon_release_name" => map.min_mon_release.name(),
        "election_strategy" => map.election_strategy,
        // The colon and the blank are Ceph's.
        "disallowed_leaders: " => "",
        "stretch_mode" => map.stretch_mode_enabled,
        "tiebreaker_mon" => &map.tiebreaker_mon,
        "removed_ranks: " => removed_ranks(map),
        "features" => obj! { "persistent" => Json::arr(FEATURES), "optional" => Json::Arr(vec![]) },
        "mons" => mons.collect::<Vec<_>>(),
    }
}

/// A monitor's addresses, in brackets also when there is only one.
pub(super) fn bracketed(mon: &MonInfo) -> String {
    let addrs: Vec<String> = mon.public_addrs.iter().map(ToString::to_string).collect();
    format!("[{}]", addrs.join(","))
}

fn at_epoch<'a>(ctx: &Context<'a>, args: &Args) -> Result<&'a MonMap, super::Refusal> {
    let map = ctx.state.monmap.map();
    match args.int_opt("epoch")? {
        Some(epoch) if epoch != 0 && epoch != i64::from(map.epoch) => {
            refuse(errno::ENOENT, format!("there is no map for epoch {epoch}"))
        }
        _ => Ok(map),
    }
}
