//! `osd df`: how full OSDs are, alone or under the CRUSH tree.

mod filter;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ops::AddAssign;

use spirula_maps::OsdMap;
use spirula_mon::crush_tree::{self, Node, status, type_name, weight_text};
use spirula_mon::json::Json;
use spirula_mon::obj;
use spirula_mon::text::{self, Align, TextTable};
use spirula_wire::types::StoreStatfs;

use super::{Context, Outcome, Shown};
use filter::Filter;

/// KiB of one or several OSDs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Space {
    total: i64,
    used: i64,
    data: i64,
    omap: i64,
    meta: i64,
    available: i64,
}

impl Space {
    fn percent_used(&self) -> f64 {
        if self.total == 0 { 0.0 } else { self.used as f64 * 100.0 / self.total as f64 }
    }

    /// Each kind with its name in JSON, in the order of the columns.
    fn parts(&self) -> [(&'static str, i64); 6] {
        [
            ("kb", self.total),
            ("kb_used", self.used),
            ("kb_used_data", self.data),
            ("kb_used_omap", self.omap),
            ("kb_used_meta", self.meta),
            ("kb_avail", self.available),
        ]
    }
}

impl From<&StoreStatfs> for Space {
    fn from(s: &StoreStatfs) -> Self {
        Self {
            total: (s.total >> 10) as i64,
            used: (s.used_raw() >> 10) as i64,
            data: s.allocated >> 10,
            omap: s.omap_allocated >> 10,
            meta: s.internal_metadata >> 10,
            available: (s.available >> 10) as i64,
        }
    }
}

impl AddAssign for Space {
    fn add_assign(&mut self, o: Self) {
        self.total += o.total;
        self.used += o.used;
        self.data += o.data;
        self.omap += o.omap;
        self.meta += o.meta;
        self.available += o.available;
    }
}

/// One line: an OSD, or a bucket above OSDs.
struct Line {
    node: Node,
    /// Not in the CRUSH tree.
    is_stray: bool,
    reweight: Option<f64>,
    space: Space,
    var: f64,
    pgs: i32,
}

#[derive(Debug, Default, PartialEq)]
struct Summary {
    total: Space,
    average: f64,
    /// Smallest and largest of the OSDs that are in.
    range: Option<(f64, f64)>,
    deviation: f64,
}

pub(super) fn df(c: &Context<'_>) -> Outcome {
    let filter = Filter::parse(c.osdmap, c.str("filter").unwrap_or_default())?;
    let is_tree = c.str("output_method") == Some("tree");
    let average = average(c, &filter);
    let lines = lines(c, &filter, is_tree, average);
    let summary = summary(c, &filter, &lines, average);
    let rows = |strays: bool| lines.iter().filter(move |l| l.is_stray == strays);
    let json = |strays: bool| -> Vec<Json> { rows(strays).map(|l| line_json(c, l)).collect() };
    Ok(Shown {
        plain: table(c.osdmap, &lines, &summary, is_tree),
        json: Some(obj! {
            "nodes" => json(false),
            "stray" => json(true),
            "summary" => summary_json(&summary),
        }),
        status: String::new(),
        errno: 0,
    })
}

/// What an OSD that is in and passes the filter reported; nothing of others.
fn space_of(c: &Context<'_>, filter: &Filter, osd: i32) -> Space {
    let counts = c.osdmap.is_in(osd) && filter.shows(c.osdmap, osd);
    let stat = c.pgmap.osds.get(&osd).filter(|_| counts);
    stat.map(|s| Space::from(&s.statfs)).unwrap_or_default()
}

fn space_below(c: &Context<'_>, filter: &Filter, item: i32) -> Space {
    let mut space = Space::default();
    let osds = c.osdmap.crush.subtree(item).into_iter().filter(|id| *id >= 0);
    osds.for_each(|osd| space += space_of(c, filter, osd));
    space
}

fn average(c: &Context<'_>, filter: &Filter) -> f64 {
    let mut space = Space::default();
    c.osdmap.existing_osds().for_each(|(osd, _)| space += space_of(c, filter, osd));
    space.percent_used()
}

/// The tree, or its OSDs alone, each once; last the OSDs outside of it.
fn lines(c: &Context<'_>, filter: &Filter, is_tree: bool, average: f64) -> Vec<Line> {
    let map = c.osdmap;
    let nodes = crush_tree::walk(map, &map.crush.roots(false), None);
    let placed: BTreeSet<i32> = nodes.iter().map(|n| n.id).collect();
    let mut shown = BTreeSet::new();
    let mut out: Vec<Line> = Vec::new();
    for node in nodes {
        let wanted = is_tree || (node.id >= 0 && shown.insert(node.id));
        if wanted && filter.shows(map, node.id) {
            out.push(line(c, filter, node, average));
        }
    }
    let outside = map.existing_osds().map(|(id, _)| id).filter(|id| !placed.contains(id));
    for id in outside.filter(|id| filter.shows(map, *id)) {
        let node = Node { id, depth: 0, weight: 0.0 };
        out.push(Line { is_stray: true, ..line(c, filter, node, average) });
    }
    out
}

fn line(c: &Context<'_>, filter: &Filter, node: Node, average: f64) -> Line {
    let is_osd = node.id >= 0;
    let space = space_below(c, filter, node.id);
    let weight = || c.osdmap.osd(node.id).map_or(0.0, |o| f64::from(o.weight) / 65_536.0);
    Line {
        node,
        is_stray: false,
        reweight: is_osd.then(weight),
        space,
        var: if average == 0.0 { 1.0 } else { space.percent_used() / average },
        pgs: if is_osd { c.pgmap.pgs_of(node.id).0 } else { 0 },
    }
}

fn summary(c: &Context<'_>, filter: &Filter, lines: &[Line], average: f64) -> Summary {
    let (mut squares, mut weights) = (0.0, 0.0);
    let mut range: Option<(f64, f64)> = None;
    for line in lines {
        let Some(reweight) = line.reweight.filter(|r| *r > 0.0) else {
            continue;
        };
        let (min, max) = range.unwrap_or((line.var, line.var));
        range = Some((min.min(line.var), max.max(line.var)));
        squares += reweight * (line.space.percent_used() - average).powi(2);
        weights += reweight;
    }
    let deviation = if weights > 0.0 { f64::sqrt(squares / weights) } else { 0.0 };
    // As in Ceph, what leaves no OSD leaves the total alone.
    let everything = Filter::default();
    let leaves_some = c.osdmap.existing_osds().any(|(osd, _)| filter.shows(c.osdmap, osd));
    let counted = if leaves_some { filter } else { &everything };
    let mut total = Space::default();
    c.osdmap.existing_osds().for_each(|(osd, _)| total += space_of(c, counted, osd));
    Summary { total, average, range, deviation }
}

const HEADINGS: &[&str] = &[
    "ID", "CLASS", "WEIGHT", "REWEIGHT", "SIZE", "RAW USE", "DATA", "OMAP", "META", "AVAIL",
    "%USE", "VAR", "PGS", "STATUS",
];

fn table(map: &OsdMap, lines: &[Line], summary: &Summary, is_tree: bool) -> String {
    let mut table = TextTable::default();
    for heading in HEADINGS {
        table.column(heading, Align::Left, Align::Right);
    }
    if is_tree {
        table.column("TYPE NAME", Align::Left, Align::Left);
    }
    for line in lines {
        let mut cells = row(map, line);
        if is_tree {
            cells.push(format!("{}{}", "    ".repeat(line.node.depth), label(map, line.node.id)));
        }
        table.row(cells);
    }
    let mut sum: Vec<String> = vec![String::new(), String::new(), String::new(), "TOTAL".into()];
    sum.extend(space_cells(&summary.total));
    sum.push(low_precision(summary.average));
    sum.resize(HEADINGS.len() + usize::from(is_tree), String::new());
    table.row(sum);
    let range = summary.range.map(|(min, max)| (low_precision(min), low_precision(max)));
    let (min, max) = range.unwrap_or(("-".into(), "-".into()));
    let deviation = low_precision(summary.deviation);
    format!("{}MIN/MAX VAR: {min}/{max}  STDDEV: {deviation}\n", table.render())
}

fn row(map: &OsdMap, line: &Line) -> Vec<String> {
    let id = line.node.id;
    let class = if id >= 0 { map.crush.item_class(id).unwrap_or_default() } else { "" };
    let mut cells = vec![
        id.to_string(),
        class.to_owned(),
        weight_text(line.node.weight),
        line.reweight.map_or("-".into(), weight_text),
    ];
    cells.extend(space_cells(&line.space));
    cells.push(low_precision(line.space.percent_used()));
    cells.push(low_precision(line.var));
    cells.push(if id >= 0 { line.pgs.to_string() } else { "-".into() });
    cells.push(if id >= 0 { status(map, id).into() } else { String::new() });
    cells
}

/// `host a` of a bucket, `osd.0` of an OSD.
fn label(map: &OsdMap, id: i32) -> String {
    match map.crush.name(id) {
        Some(name) if id < 0 => format!("{} {name}", type_name(map, id)),
        _ => format!("osd.{id}"),
    }
}

fn space_cells(space: &Space) -> impl Iterator<Item = String> + use<> {
    space.parts().into_iter().map(|(_, kb)| text::bytes_iec((kb.max(0) as u64) << 10))
}

/// Two decimals, and a plain zero for what is nearly that.
fn low_precision(value: f64) -> String {
    if value < 0.001 { "0".into() } else { format!("{value:.2}") }
}

fn line_json(c: &Context<'_>, line: &Line) -> Json {
    let Line { node, space, .. } = line;
    let (map, id, is_osd) = (c.osdmap, node.id, node.id >= 0);
    let mut out = obj! { "id" => id };
    if let Some(class) = map.crush.item_class(id).filter(|_| is_osd) {
        out = out.with("device_class", class);
    }
    let type_id = map.crush.bucket(id).map_or(0, |b| b.type_);
    let osd_name = || format!("osd.{id}");
    out = out
        .with("name", map.crush.name(id).map_or_else(osd_name, str::to_owned))
        .with("type", type_name(map, id))
        .with("type_id", type_id);
    if is_osd {
        out = out.with("crush_weight", node.weight).with("depth", node.depth);
    }
    if node.depth > 0 {
        out = out.with("pool_weights", Json::Obj(vec![]));
    }
    out = out.with("reweight", line.reweight.unwrap_or(-1.0));
    for (name, kb) in space.parts() {
        out = out.with(name, kb);
    }
    out = out.with("utilization", space.percent_used()).with("var", line.var).with("pgs", line.pgs);
    if is_osd {
        return out.with("status", status(map, id));
    }
    let children: Vec<i32> = crush_tree::children(map, id).into_iter().map(|(id, _)| id).collect();
    out.with("children", children)
}

fn summary_json(summary: &Summary) -> Json {
    let (min, max) = summary.range.unwrap_or((-1.0, -1.0));
    let mut out = Json::Obj(vec![]);
    for (name, kb) in summary.total.parts() {
        out = out.with(&format!("total_{name}"), kb);
    }
    out.with("average_utilization", summary.average)
        .with("min_var", min)
        .with("max_var", max)
        .with("dev", summary.deviation)
}
