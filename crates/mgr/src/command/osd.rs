//! `osd perf`, `osd blocked-by`.

use std::collections::BTreeMap;

use spirula_mon::json;
use spirula_mon::obj;
use spirula_mon::text::{Align, TextTable};

use super::{Context, Outcome, Shown};

pub(super) fn perf(c: &Context<'_>) -> Outcome {
    let mut table = TextTable::default();
    table.column("osd", Align::Left, Align::Right);
    table.column("commit_latency(ms)", Align::Left, Align::Right);
    table.column("apply_latency(ms)", Align::Left, Align::Right);
    let mut infos = Vec::new();
    // Ceph lists the newest first.
    for (id, osd) in c.pgmap.osds.iter().rev() {
        let p = &osd.os_perf_stat;
        let (commit, apply) = (p.commit_latency_ns, p.apply_latency_ns);
        let ms = |ns: u64| json::float(ns as f64 / 1e6, 6);
        table.row(vec![id.to_string(), ms(commit), ms(apply)]);
        infos.push(obj! {
            "id" => *id,
            "perf_stats" => obj! {
                "commit_latency_ms" => commit as f64 / 1e6,
                "apply_latency_ms" => apply as f64 / 1e6,
                "commit_latency_ns" => commit,
                "apply_latency_ns" => apply,
            },
        });
    }
    let json = obj! { "pg_ready" => true, "osdstats" => obj! { "osd_perf_infos" => infos } };
    Ok(Shown { plain: table.render(), json: Some(json), status: String::new(), errno: 0 })
}

/// OSDs without which PGs cannot go on peering.
pub(super) fn blocked_by(c: &Context<'_>) -> Outcome {
    let mut blocked: BTreeMap<i32, u64> = BTreeMap::new();
    let by = c.pgmap.pgs.values().flat_map(|pg| &pg.blocked_by);
    by.for_each(|osd| *blocked.entry(*osd).or_default() += 1);
    let mut table = TextTable::default();
    table.column("osd", Align::Left, Align::Right);
    table.column("num_blocked", Align::Left, Align::Right);
    blocked.iter().for_each(|(osd, n)| table.row(vec![osd.to_string(), n.to_string()]));
    let infos = blocked.iter().map(|(osd, n)| obj! { "id" => *osd, "num_blocked" => *n });
    let infos: Vec<_> = infos.collect();
    let json =
        obj! { "pg_ready" => true, "osd_blocked_by" => obj! { "osd_blocked_by_infos" => infos } };
    Ok(Shown { plain: table.render(), json: Some(json), status: String::new(), errno: 0 })
}
