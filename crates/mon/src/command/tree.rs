//! `osd tree`, `osd crush tree`: the CRUSH hierarchy with its OSDs.

use std::collections::BTreeSet;

use spirula_maps::OsdMap;

use super::osd_dump::map_of;
use super::{Args, Context, Outcome, errno, refuse};
use crate::crush_tree::{Node, children, status, type_name, walk, weight_text};
use crate::json::{Json, float};
use crate::obj;
use crate::text::{Align, TextTable};

pub(super) fn osd_tree(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let map = map_of(ctx, args)?;
    show(ctx, &map, args, None)
}

pub(super) fn osd_tree_from(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let map = map_of(ctx, args)?;
    let name = args.str("bucket")?;
    match map.crush.item_by_name(name).filter(|id| *id < 0) {
        Some(root) => show(ctx, &map, args, Some(root)),
        None => refuse(errno::ENOENT, format!("bucket '{name}' does not exist")),
    }
}

fn show(ctx: &Context<'_>, map: &OsdMap, args: &Args, root: Option<i32>) -> Outcome {
    let states: Vec<&str> = args.strs("states")?;
    let shown = |osd: i32| {
        states.iter().all(|state| match *state {
            "up" => map.is_up(osd),
            "down" => map.exists(osd) && !map.is_up(osd),
            "in" => map.is_in(osd),
            "out" => map.exists(osd) && !map.is_in(osd),
            "destroyed" => map.osd(osd).is_some_and(spirula_maps::Osd::is_destroyed),
            _ => false,
        })
    };
    let roots = root.map_or_else(|| map.crush.roots(false), |r| vec![r]);
    let keep = (!states.is_empty()).then(|| kept(map, shown));
    let nodes = walk(map, &roots, keep.as_ref());
    let placed: BTreeSet<i32> =
        walk(map, &map.crush.roots(false), None).iter().map(|n| n.id).collect();
    let stray =
        map.existing_osds().map(|(id, _)| id).filter(|id| !placed.contains(id) && shown(*id));
    let stray: Vec<i32> = if root.is_some() { Vec::new() } else { stray.collect() };
    Ok(ctx.either_nl(
        || {
            let mut table = table(true);
            for node in &nodes {
                table.row(row(map, node, true));
            }
            for id in &stray {
                table.row(row(map, &Node { id: *id, depth: 0, weight: 0.0 }, true));
            }
            table.render()
        },
        || {
            let stray = stray
                .iter()
                .map(|id| node_json(map, &Node { id: *id, depth: 0, weight: 0.0 }, true));
            obj! {
                "nodes" => nodes.iter().map(|n| node_json(map, n, true)).collect::<Vec<_>>(),
                "stray" => stray.collect::<Vec<_>>(),
            }
        },
    ))
}

pub(super) fn crush_tree(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let map = ctx.state.osd.map();
    let nodes = walk(map, &map.crush.roots(args.has("shadow")), None);
    Ok(ctx.either(
        || {
            let mut table = table(false);
            for node in &nodes {
                table.row(row(map, node, false));
            }
            table.render()
        },
        || {
            obj! {
                "nodes" => nodes.iter().map(|n| node_json(map, n, false)).collect::<Vec<_>>(),
                "stray" => Json::Arr(vec![]),
            }
        },
    ))
}

/// Items that are above an OSD for which `wanted` holds, and those OSDs.
fn kept(map: &OsdMap, wanted: impl Fn(i32) -> bool) -> BTreeSet<i32> {
    let mut keep = BTreeSet::new();
    for (osd, _) in map.existing_osds().filter(|(id, _)| wanted(*id)) {
        let mut at = osd;
        while keep.insert(at) {
            match map.crush.parent(at) {
                Some(parent) => at = parent.id,
                None => break,
            }
        }
    }
    keep
}

fn table(osds: bool) -> TextTable {
    let mut table = TextTable::default();
    table
        .column("ID", Align::Left, Align::Right)
        .column("CLASS", Align::Left, Align::Right)
        .column("WEIGHT", Align::Left, Align::Right)
        .column("TYPE NAME", Align::Left, Align::Left);
    if osds {
        for heading in ["STATUS", "REWEIGHT", "PRI-AFF"] {
            table.column(heading, Align::Left, Align::Right);
        }
    }
    table
}

fn row(map: &OsdMap, node: &Node, osds: bool) -> Vec<String> {
    let class = class_of(map, node.id);
    let name = if node.id >= 0 {
        format!("osd.{}", node.id)
    } else {
        format!("{} {}", type_name(map, node.id), map.crush.name(node.id).unwrap_or_default())
    };
    let mut cells = vec![
        node.id.to_string(),
        class.unwrap_or_default(),
        weight_text(node.weight),
        format!("{}{name}", "    ".repeat(node.depth)),
    ];
    if !osds {
        return cells;
    }
    if node.id < 0 {
        cells.extend([String::new(), String::new(), String::new()]);
    } else if !map.exists(node.id) {
        cells.extend(["DNE".to_owned(), "0".to_owned(), String::new()]);
    } else {
        let weight = map.osd(node.id).map_or(0, |o| o.weight);
        cells.extend([
            status(map, node.id).to_owned(),
            weight_text(f64::from(weight) / 65_536.0),
            weight_text(f64::from(map.affinity(node.id)) / 65_536.0),
        ]);
    }
    cells
}

/// The class of an OSD, or of the shadow tree that a bucket is in.
fn class_of(map: &OsdMap, id: i32) -> Option<String> {
    let of_bucket = || map.crush.name(id)?.split_once('~').map(|(_, class)| class.to_owned());
    if id >= 0 { map.crush.item_class(id).map(str::to_owned) } else { of_bucket() }
}

fn node_json(map: &OsdMap, node: &Node, osds: bool) -> Json {
    let crush = &map.crush;
    if let Some(bucket) = crush.bucket(node.id) {
        let children: Vec<i32> = children(map, node.id).into_iter().map(|(id, _)| id).collect();
        let mut json = obj! { "id" => node.id };
        if let Some(class) = class_of(map, node.id) {
            json = json.with("device_class", class);
        }
        json = json
            .with("name", crush.name(node.id).unwrap_or_default())
            .with("type", type_name(map, node.id))
            .with("type_id", bucket.type_);
        if node.depth > 0 {
            json = json.with("pool_weights", Json::Obj(vec![]));
        }
        return json.with("children", children);
    }
    let mut json = obj! { "id" => node.id };
    if let Some(class) = class_of(map, node.id) {
        json = json.with("device_class", class);
    }
    json = json
        .with("name", format!("osd.{}", node.id))
        .with("type", crush.types.get(&0).map_or("osd", String::as_str))
        .with("type_id", 0u32)
        .with("crush_weight", node.weight)
        .with("depth", node.depth);
    if node.depth > 0 {
        json = json.with("pool_weights", Json::Obj(vec![]));
    }
    if !osds {
        return json;
    }
    let weight = map.osd(node.id).map_or(0, |o| o.weight);
    json.with("exists", u32::from(map.exists(node.id)))
        .with("status", status(map, node.id))
        .with("reweight", f64::from(weight) / 65_536.0)
        .with("primary_affinity", f64::from(map.affinity(node.id)) / 65_536.0)
}

/// The names of what is directly below a bucket.
pub(super) fn crush_ls(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let crush = &ctx.state.osd.map().crush;
    let name = args.str("node")?;
    let Some(id) = crush.item_by_name(name) else {
        return refuse(errno::ENOENT, format!("node '{name}' does not exist"));
    };
    let below: Vec<String> = match crush.bucket(id) {
        None => vec![name.to_owned()],
        Some(bucket) => {
            let names = bucket
                .items
                .iter()
                .map(|i| crush.name(*i).map_or_else(|| float(f64::from(*i), 6), str::to_owned));
            names.collect()
        }
    };
    Ok(ctx.either(|| below.iter().map(|n| format!("{n}\n")).collect(), || Json::arr(below.iter())))
}
