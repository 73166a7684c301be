//! `osd perf`.

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
    Ok(Shown { plain: table.render(), json: Some(json), status: String::new() })
}
