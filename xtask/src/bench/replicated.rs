//! Pools of two and three copies on three OSDs a side.

mod failure;

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::side::{Shape, Side, wait_quiescent};
use super::{Args, Client, Load, compare, print_header, start_sides};

/// How many times faster, and how many times cheaper in CPU of all daemons, a write is to be than on Ceph.
const BOUND: Option<(f64, f64)> = Some((4.0, 8.0));

const LOADS: &[Load] = &[
    paced("size 2 4K write", "size2"),
    paced("size 3 4K write", "size3"),
    saturating("size 2 4K x128", "size2"),
    saturating("size 3 4K x128", "size3"),
];

/// Name, copies, and copies without which nothing is written: Ceph's defaults for such pools.
const POOLS: &[(&str, &str, &str)] = &[("size2", "2", "1"), ("size3", "3", "2")];

const fn paced(name: &'static str, pool: &'static str) -> Load {
    Load { name, size: 4096, mode: "write", client: Client::RadosBench, pool, bound: BOUND }
}

const fn saturating(name: &'static str, pool: &'static str) -> Load {
    Load { name, size: 4096, mode: "write", client: Client::Saturating, pool, bound: None }
}

pub(super) fn is_wanted(args: &Args) -> bool {
    let failures = [failure::FAILOVER, failure::RECOVERY];
    LOADS.iter().map(|load| load.name).chain(failures).any(|name| args.wants(name))
}

pub(super) fn measure(args: &Args, dir: &Path) -> Result<Value> {
    let mut sides = start_sides(args, dir, Shape::Replicated)?;
    sides.iter().try_for_each(make_pools)?;
    sides.iter().for_each(wait_quiescent);
    let mut rows = Vec::new();
    print_header();
    for load in LOADS {
        if args.wants(load.name) {
            rows.push(compare(load, &sides, args)?);
        }
    }
    let mut report = json!({ "loads": rows });
    if args.wants(failure::FAILOVER) {
        report[failure::FAILOVER] = failure::failover(&mut sides, args.rounds)?;
    }
    if args.wants(failure::RECOVERY) {
        report[failure::RECOVERY] = failure::recovery(&mut sides)?;
    }
    Ok(report)
}

fn make_pools(side: &Side) -> Result<()> {
    for (pool, size, min_size) in POOLS {
        side.tool("ceph", &["osd", "pool", "create", pool, "32"])?;
        side.tool("ceph", &["osd", "pool", "set", pool, "size", size])?;
        side.tool("ceph", &["osd", "pool", "set", pool, "min_size", min_size])?;
        side.tool("ceph", &["osd", "pool", "application", "enable", pool, "bench"])?;
        side.tool("rados", &["-p", pool, "put", "first", "/etc/hostname"])?;
    }
    Ok(())
}
