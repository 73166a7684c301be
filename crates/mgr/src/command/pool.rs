//! `osd pool stats`: what each pool lacks, and its I/O.

use spirula_mon::json::Json;
use spirula_mon::obj;
use spirula_mon::text;
use spirula_wire::types::ObjectStatSum;

use super::{Context, Outcome, Shown};
use crate::pgmap::Rate;

pub(super) fn stats(c: &Context<'_>) -> Outcome {
    let only = c.str("pool_name").map(|_| c.pool("pool_name")).transpose()?;
    let sums = c.pgmap.pool_sums();
    let mut plain = String::new();
    let mut all = Vec::new();
    for (id, name) in &c.osdmap.pool_names {
        if only.is_some_and(|o| o != *id) {
            continue;
        }
        let rate = c.pgmap.rate(Some(*id));
        let sum = sums.get(id).map(|pool| pool.stats.sum).unwrap_or_default();
        let mut lines = shortage(&sum);
        lines.extend(recovery_io(&rate));
        lines.extend(client_io(&rate));
        if lines.is_empty() {
            lines.push("nothing is going on".to_owned());
        }
        plain.push_str(&format!("pool {name} id {id}\n  {}\n\n", lines.join("\n  ")));
        all.push(obj! {
            "pool_name" => name,
            "pool_id" => *id,
            "recovery" => shortage_json(&sum),
            "recovery_rate" => recovery_json(&rate),
            "client_io_rate" => rate_json(&rate),
        });
    }
    Ok(Shown { plain, json: Some(Json::Arr(all)), status: String::new(), errno: 0 })
}

/// Copies that are not there, in the wrong place or nowhere, of how many.
fn parts(sum: &ObjectStatSum) -> impl Iterator<Item = (&'static str, i64, i64)> {
    let copies = sum.num_object_copies;
    [
        ("degraded", sum.num_objects_degraded, copies),
        ("misplaced", sum.num_objects_misplaced, copies),
        ("unfound", sum.num_objects_unfound, sum.num_objects),
    ]
    .into_iter()
    .filter(|(_, n, of)| *n > 0 && *of > 0)
}

fn shortage(sum: &ObjectStatSum) -> Vec<String> {
    let percent = |n: i64, of: i64| 100.0 * n as f64 / of as f64;
    let line = |(word, n, of)| format!("{n}/{of} objects {word} ({:.3}%)", percent(n, of));
    parts(sum).map(line).collect()
}

fn shortage_json(sum: &ObjectStatSum) -> Json {
    parts(sum).fold(Json::Obj(vec![]), |json, (word, n, of)| {
        json.with(&format!("{word}_objects"), n)
            .with(&format!("{word}_total"), of)
            .with(&format!("{word}_ratio"), n as f64 / of as f64)
    })
}

fn has_recovered(rate: &Rate) -> bool {
    rate.delta.num_objects_recovered > 0 || rate.delta.num_bytes_recovered > 0
}

fn recovery_io(rate: &Rate) -> Option<String> {
    let bytes = rate.per_second(rate.delta.num_bytes_recovered) as u64;
    let objects = rate.per_second(rate.delta.num_objects_recovered) as u64;
    has_recovered(rate).then(|| {
        format!("recovery io {}/s, {} objects/s", text::bytes_iec(bytes), text::count_si(objects))
    })
}

fn recovery_json(rate: &Rate) -> Json {
    let out = Json::Obj(vec![]);
    if !has_recovered(rate) {
        return out;
    }
    let d = &rate.delta;
    out.with("recovering_objects_per_sec", rate.per_second(d.num_objects_recovered))
        .with("recovering_bytes_per_sec", rate.per_second(d.num_bytes_recovered))
        .with("recovering_keys_per_sec", rate.per_second(d.num_keys_recovered))
        .with("num_objects_recovered", d.num_objects_recovered)
        .with("num_bytes_recovered", d.num_bytes_recovered)
        .with("num_keys_recovered", d.num_keys_recovered)
}

fn client_io(rate: &Rate) -> Option<String> {
    let mut parts = Vec::new();
    if rate.read_bytes() > 0 {
        parts.push(format!("{}/s rd", text::bytes_iec(rate.read_bytes() as u64)));
    }
    if rate.write_bytes() > 0 {
        parts.push(format!("{}/s wr", text::bytes_iec(rate.write_bytes() as u64)));
    }
    if rate.read_ops() + rate.write_ops() > 0 {
        parts.push(format!("{} op/s rd", text::count_si(rate.read_ops() as u64)));
        parts.push(format!("{} op/s wr", text::count_si(rate.write_ops() as u64)));
    }
    (!parts.is_empty()).then(|| format!("client io {}", parts.join(", ")))
}

fn rate_json(rate: &Rate) -> Json {
    let mut out = Json::Obj(vec![]);
    if rate.read_bytes() > 0 {
        out = out.with("read_bytes_sec", rate.read_bytes());
    }
    if rate.write_bytes() > 0 {
        out = out.with("write_bytes_sec", rate.write_bytes());
    }
    if rate.read_ops() + rate.write_ops() > 0 {
        out = out.with("read_op_per_sec", rate.read_ops());
        out = out.with("write_op_per_sec", rate.write_ops());
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use spirula_maps::{OsdMap, PgPool};
    use spirula_wire::types::{PgId, PgStat};

    use crate::command;
    use crate::pgmap::PgMap;

    /// As a manager of 16.2.15 answered, of a pool one of whose three copies was down.
    #[test]
    fn what_a_pool_lacks_comes_first() {
        let mut pg = PgStat::default();
        let sum = &mut pg.stats.sum;
        (sum.num_objects, sum.num_object_copies, sum.num_objects_degraded) = (2038, 6114, 2038);
        let mut pgmap = PgMap::default();
        pgmap.pgs.insert(PgId { pool: 2, seed: 0 }, pg);
        let mut map = OsdMap::default();
        for (id, name) in [(1, "other"), (2, "t")] {
            map.pools.insert(id, PgPool::replicated(3, 1, 1, 0));
            map.pool_names.insert(id, name.to_owned());
        }
        let plain = command::ask(&json!({ "prefix": "osd pool stats" }), &pgmap, &map).outbl;
        let want = "pool other id 1\n  nothing is going on\n\n\
                    pool t id 2\n  2038/6114 objects degraded (33.333%)\n\n";
        assert_eq!(String::from_utf8_lossy(&plain).trim_end(), want.trim_end());
        let args = json!({ "prefix": "osd pool stats", "pool_name": "t", "format": "json" });
        let json: Value = serde_json::from_slice(&command::ask(&args, &pgmap, &map).outbl).unwrap();
        assert_eq!(json[0]["recovery"]["degraded_total"], 6114);
    }
}
