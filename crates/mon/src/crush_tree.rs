//! The CRUSH tree in the order in which Ceph prints it, for all commands that show it.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use spirula_maps::OsdMap;

/// An item as it is met going down, with its depth.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    pub id: i32,
    pub depth: usize,
    pub weight: f64,
}

/// Depth first, siblings by class and name as Ceph sorts them; the roots as they are given, which in
/// Ceph is by id: the newest first.
pub fn walk(map: &OsdMap, roots: &[i32], keep: Option<&BTreeSet<i32>>) -> Vec<Node> {
    let crush = &map.crush;
    let mut out = Vec::new();
    let weight = |id: i32| crush.bucket(id).map_or(0.0, |b| f64::from(b.weight) / 65_536.0);
    let mut stack: Vec<Node> =
        roots.iter().rev().map(|id| Node { id: *id, depth: 0, weight: weight(*id) }).collect();
    while let Some(node) = stack.pop() {
        if keep.is_some_and(|k| !k.contains(&node.id)) {
            continue;
        }
        let below = children(map, node.id).into_iter();
        stack.extend(below.map(|(id, weight)| Node { id, depth: node.depth + 1, weight }));
        out.push(node);
    }
    out
}

/// What is directly below a bucket, with its weight: in the order of a stack that is filled, the
/// last one printed first. Ceph's JSON has this order too.
pub fn children(map: &OsdMap, bucket: i32) -> Vec<(i32, f64)> {
    let Some(bucket) = map.crush.bucket(bucket) else {
        return Vec::new();
    };
    let weighted = |(i, &id): (usize, &i32)| (id, f64::from(bucket.item_weight(i)) / 65_536.0);
    let mut children: Vec<(i32, f64)> = bucket.items.iter().enumerate().map(weighted).collect();
    children.sort_by_cached_key(|(id, _)| Reverse(sort_key(map, *id)));
    children
}

fn sort_key(map: &OsdMap, id: i32) -> String {
    if id >= 0 {
        format!("{}_osd.{id:08}", map.crush.item_class(id).unwrap_or_default())
    } else {
        format!("_{}", map.crush.name(id).unwrap_or_default())
    }
}

/// CRUSH and affinity weights: five decimals, and a plain zero.
pub fn weight_text(weight: f64) -> String {
    if weight == 0.0 { "0".into() } else { format!("{weight:.5}") }
}

pub fn status(map: &OsdMap, osd: i32) -> &'static str {
    match map.osd(osd) {
        Some(o) if o.is_up() => "up",
        Some(o) if o.is_destroyed() => "destroyed",
        _ => "down",
    }
}

/// `host`, `rack`, ..; `osd` for a device.
pub fn type_name(map: &OsdMap, id: i32) -> &str {
    let type_ = map.crush.bucket(id).map_or(0, |b| i32::from(b.type_));
    map.crush.types.get(&type_).map_or("", String::as_str)
}
