//! Counters of the monitor: `perf dump` and `perf schema` of its admin socket.

use super::status::osd_counts;
use super::{Args, Context, Outcome};
use crate::json::Json;
use crate::obj;

/// A 64-bit integer that goes up and down, as `perf schema` numbers the kinds.
const GAUGE: u32 = 2;

/// Section, counter, what it counts, its value.
type Counter = (&'static str, &'static str, &'static str, i64);

pub(super) fn dump(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let json = sections(ctx, args, |&(_, _, _, value)| value.into())?;
    Ok(ctx.json(&json))
}

pub(super) fn schema(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let describe = |&(_, name, what, _): &Counter| {
        obj! {
            "type" => GAUGE,
            "metric_type" => "gauge",
            "value_type" => "integer",
            "description" => what,
            "nick" => name,
            "priority" => 8u32,
            "units" => if name.contains("bytes") { "bytes" } else { "none" },
        }
    };
    let json = sections(ctx, args, describe)?;
    Ok(ctx.json(&json))
}

/// The counters by section, or those that `logger` and `counter` name.
fn sections(
    ctx: &Context<'_>,
    args: &Args,
    show: impl Fn(&Counter) -> Json,
) -> Result<Json, super::Refusal> {
    let (logger, counter) = (args.str_opt("logger")?, args.str_opt("counter")?);
    let counters = counters(ctx);
    let mut sections = Vec::new();
    for section in ["cluster", "mon"] {
        if logger.is_some_and(|wanted| wanted != section) {
            continue;
        }
        let wanted = |c: &&Counter| c.0 == section && counter.is_none_or(|name| name == c.1);
        let members: Vec<_> =
            counters.iter().filter(wanted).map(|c| (c.1.to_owned(), show(c))).collect();
        if !members.is_empty() {
            sections.push((section.to_owned(), Json::obj(members)));
        }
    }
    Ok(Json::obj(sections))
}

fn counters(ctx: &Context<'_>) -> Vec<Counter> {
    let map = ctx.state.osd.map();
    let (osds, up, in_) = osd_counts(map);
    let digest = &ctx.live.digest;
    let (sum, statfs) = (&digest.pg_sum.stats.sum, &digest.osd_sum.statfs);
    let mons = ctx.state.monmap.map().ranks.len();
    let c = "cluster";
    vec![
        (c, "num_mon", "Monitors", mons as i64),
        (c, "num_mon_quorum", "Monitors in quorum", mons as i64),
        (c, "num_osd", "OSDs", osds as i64),
        (c, "num_osd_up", "OSDs that are up", up as i64),
        (c, "num_osd_in", "OSD in state \"in\" (they are in cluster)", in_ as i64),
        (c, "osd_epoch", "Current epoch of OSD map", i64::from(map.epoch)),
        (c, "osd_bytes", "Total capacity of cluster", statfs.total as i64),
        (c, "osd_bytes_used", "Used space", statfs.used_raw() as i64),
        (c, "osd_bytes_avail", "Available space", statfs.available as i64),
        (c, "num_pool", "Pools", map.pools.len() as i64),
        (c, "num_pg", "Placement groups", digest.num_pg),
        (c, "num_pg_active", "Placement groups in active state", digest.num_pg_active),
        (c, "num_object", "Objects", sum.num_objects),
        (c, "num_object_degraded", "Degraded (missing replicas) objects", sum.num_objects_degraded),
        (c, "num_object_misplaced", "Misplaced objects", sum.num_objects_misplaced),
        (c, "num_object_unfound", "Unfound objects", sum.num_objects_unfound),
        (c, "num_bytes", "Size of all objects", sum.num_bytes),
        ("mon", "num_sessions", "Open sessions", ctx.live.peers.len() as i64),
    ]
}
