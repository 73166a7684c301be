//! `osd df` and `osd perf`.

use spirula_mon::json::{self, Json};
use spirula_mon::obj;
use spirula_mon::text::{self, Align, TextTable};
use spirula_wire::types::StoreStatfs;

use super::{Context, EINVAL, Outcome, Shown};

/// One line of `osd df`: an OSD, or a bucket above OSDs.
struct Line {
    id: i32,
    name: String,
    type_name: String,
    type_id: i32,
    class: String,
    weight: f64,
    depth: usize,
    /// Set of OSDs only.
    reweight: Option<f64>,
    pgs: i32,
    status: &'static str,
    space: StoreStatfs,
}

pub(super) fn df(c: &Context<'_>) -> Outcome {
    if c.str("filter").is_some() || c.str("filter_by").is_some() {
        return Err((EINVAL, "filters are not supported; leave filter_by and filter out".into()));
    }
    let is_tree = c.str("output_method") == Some("tree");
    let lines = lines(c, is_tree);
    let osds = || lines.iter().filter(|l| l.reweight.is_some());
    let mut total = StoreStatfs::default();
    osds().for_each(|l| total.add(&l.space));
    let average = percent(total.used_raw(), total.total);
    let var = |l: &Line| {
        if average == 0.0 { 1.0 } else { percent(l.space.used_raw(), l.space.total) / average }
    };
    let weighted: Vec<f64> = osds().filter(|l| l.space.total > 0).map(var).collect();
    let min = weighted.iter().copied().fold(f64::INFINITY, f64::min);
    let max = weighted.iter().copied().fold(0.0, f64::max);
    let (min, max) = if weighted.is_empty() { (1.0, 1.0) } else { (min, max) };
    let dev = deviation(osds().map(|l| percent(l.space.used_raw(), l.space.total)), average);
    let mut plain = table(&lines, is_tree, &total, average, var);
    plain.push_str(&format!("MIN/MAX VAR: {min:.2}/{max:.2}  STDDEV: {dev:.2}\n"));
    let json = obj! {
        "nodes" => lines.iter().map(|l| line_json(l, var(l))).collect::<Vec<_>>(),
        "stray" => Json::Arr(vec![]),
        "summary" => obj! {
            "total_kb" => total.total >> 10,
            "total_kb_used" => total.used_raw() >> 10,
            "total_kb_used_data" => total.allocated >> 10,
            "total_kb_used_omap" => total.omap_allocated >> 10,
            "total_kb_used_meta" => total.internal_metadata >> 10,
            "total_kb_avail" => total.available >> 10,
            "average_utilization" => average,
            "min_var" => min,
            "max_var" => max,
            "dev" => dev,
        },
    };
    Ok(Shown { plain, json: Some(json), status: String::new() })
}

/// Buckets and OSDs depth first in the order of the CRUSH tree, or the OSDs alone by id.
fn lines(c: &Context<'_>, is_tree: bool) -> Vec<Line> {
    let mut out = Vec::new();
    for root in c.osdmap.crush.roots(false) {
        visit(c, root, 0, &mut out);
    }
    if !is_tree {
        out.retain(|l| l.reweight.is_some());
        out.sort_by_key(|l| l.id);
    }
    out
}

/// Appends the item and all below it; returns the space below it.
fn visit(c: &Context<'_>, id: i32, depth: usize, out: &mut Vec<Line>) -> StoreStatfs {
    let crush = &c.osdmap.crush;
    let at = out.len();
    out.push(Line {
        id,
        name: crush.name(id).unwrap_or_default().to_owned(),
        type_name: String::new(),
        type_id: 0,
        class: String::new(),
        weight: 0.0,
        depth,
        reweight: None,
        pgs: 0,
        status: "",
        space: StoreStatfs::default(),
    });
    let mut space = StoreStatfs::default();
    let mut type_id = 0;
    let mut weight = 0;
    if let Some(bucket) = crush.bucket(id) {
        type_id = i32::from(bucket.type_);
        for (child, child_weight) in bucket.items.iter().zip(bucket.weights()) {
            let first = out.len();
            space.add(&visit(c, *child, depth + 1, out));
            out[first].weight = f64::from(child_weight) / 65536.0;
            weight += u64::from(child_weight);
        }
        out[at].weight = weight as f64 / 65536.0;
    } else if let Some(osd) = c.osdmap.osd(id) {
        space = c.pgmap.osds.get(&id).map(|s| s.statfs).unwrap_or_default();
        out[at].class = crush.item_class(id).unwrap_or_default().to_owned();
        out[at].reweight = Some(f64::from(osd.weight) / 65536.0);
        out[at].pgs = c.pgmap.pgs_of(id).0;
        out[at].status = if osd.is_up() { "up" } else { "down" };
    }
    out[at].type_id = type_id;
    out[at].type_name =
        crush.types.get(&type_id).map(String::as_str).unwrap_or_default().to_owned();
    out[at].space = space;
    space
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

fn deviation(values: impl Iterator<Item = f64>, average: f64) -> f64 {
    let (mut n, mut sum) = (0.0, 0.0);
    for v in values {
        n += 1.0;
        sum += (v - average) * (v - average);
    }
    if n == 0.0 { 0.0 } else { f64::sqrt(sum / n) }
}

const HEADINGS: &[&str] = &[
    "ID", "CLASS", "WEIGHT", "REWEIGHT", "SIZE", "RAW USE", "DATA", "OMAP", "META", "AVAIL",
    "%USE", "VAR", "PGS", "STATUS",
];

fn table(
    lines: &[Line],
    is_tree: bool,
    total: &StoreStatfs,
    average: f64,
    var: impl Fn(&Line) -> f64,
) -> String {
    let mut table = TextTable::default();
    for heading in HEADINGS {
        table.column(heading, Align::Left, Align::Right);
    }
    if is_tree {
        table.column("TYPE NAME", Align::Left, Align::Left);
    }
    for line in lines {
        let mut row = vec![
            line.id.to_string(),
            line.class.clone(),
            format!("{:.5}", line.weight),
            line.reweight.map_or("-".into(), |r| format!("{r:.5}")),
        ];
        row.extend(space_cells(&line.space));
        row.push(format!("{:.2}", percent(line.space.used_raw(), line.space.total)));
        row.push(format!("{:.2}", var(line)));
        row.push(if line.reweight.is_some() { line.pgs.to_string() } else { "-".into() });
        row.push(line.status.into());
        if is_tree {
            let kind =
                if line.type_id == 0 { String::new() } else { format!("{} ", line.type_name) };
            row.push(format!("{}{kind}{}", "    ".repeat(line.depth), line.name));
        }
        table.row(row);
    }
    let mut sum: Vec<String> = vec![String::new(), String::new(), String::new(), "TOTAL".into()];
    sum.extend(space_cells(total));
    sum.push(format!("{average:.2}"));
    sum.resize(HEADINGS.len() + usize::from(is_tree), String::new());
    table.row(sum);
    table.render()
}

fn space_cells(s: &StoreStatfs) -> [String; 6] {
    let size = |n: i64| text::bytes_iec(n.max(0) as u64);
    [
        size(s.total as i64),
        size(s.used_raw() as i64),
        size(s.allocated),
        size(s.omap_allocated),
        size(s.internal_metadata),
        size(s.available as i64),
    ]
}

fn line_json(l: &Line, var: f64) -> Json {
    let s = &l.space;
    let mut out = obj! { "id" => l.id };
    if l.reweight.is_some() {
        out = out.with("device_class", l.class.as_str());
    }
    out = out
        .with("name", l.name.as_str())
        .with("type", l.type_name.as_str())
        .with("type_id", l.type_id)
        .with("crush_weight", l.weight)
        .with("depth", l.depth)
        .with("pool_weights", Json::Obj(vec![]))
        .with("reweight", l.reweight.unwrap_or(-1.0))
        .with("kb", s.total >> 10)
        .with("kb_used", s.used_raw() >> 10)
        .with("kb_used_data", s.allocated >> 10)
        .with("kb_used_omap", s.omap_allocated >> 10)
        .with("kb_used_meta", s.internal_metadata >> 10)
        .with("kb_avail", s.available >> 10)
        .with("utilization", percent(s.used_raw(), s.total))
        .with("var", var)
        .with("pgs", l.pgs);
    if l.reweight.is_some() { out.with("status", l.status) } else { out }
}

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
    let json = obj! { "osdstats" => obj! { "osd_perf_infos" => infos } };
    Ok(Shown { plain: table.render(), json: Some(json), status: String::new() })
}
