//! `osd pool stats`: client I/O of each pool.

use spirula_mon::json::Json;
use spirula_mon::obj;
use spirula_mon::text;

use super::{Context, Outcome, Shown};
use crate::pgmap::Rate;

pub(super) fn stats(c: &Context<'_>) -> Outcome {
    let only = c.str("pool_name").map(|_| c.pool("pool_name")).transpose()?;
    let mut plain = String::new();
    let mut all = Vec::new();
    for (id, name) in &c.osdmap.pool_names {
        if only.is_some_and(|o| o != *id) {
            continue;
        }
        let rate = c.pgmap.rate(Some(*id));
        plain.push_str(&format!("pool {name} id {id}\n  {}\n\n", client_io(&rate)));
        all.push(obj! {
            "pool_name" => name,
            "pool_id" => *id,
            "recovery" => Json::Obj(vec![]),
            "recovery_rate" => Json::Obj(vec![]),
            "client_io_rate" => rate_json(&rate),
        });
    }
    Ok(Shown { plain, json: Some(Json::Arr(all)), status: String::new(), errno: 0 })
}

fn client_io(rate: &Rate) -> String {
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
    if parts.is_empty() {
        "nothing is going on".into()
    } else {
        format!("client io {}", parts.join(", "))
    }
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
