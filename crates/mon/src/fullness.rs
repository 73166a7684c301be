//! What full OSDs do to pools: a pool is as full as the fullest OSD that its rule may choose.

use std::collections::BTreeMap;

use spirula_maps::{Incremental, Osd, OsdMap, osd_state, pool_flags};

/// From less to more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fullness {
    Near,
    Backfill,
    Full,
}

const POOL_BITS: u64 = pool_flags::FULL | pool_flags::NEARFULL | pool_flags::BACKFILLFULL;

/// How full an OSD is; those that are down or out do not count.
pub(crate) fn of(osd: &Osd) -> Option<Fullness> {
    let has = |bit: u32| osd.state & bit != 0;
    match () {
        () if !osd.is_up() || !osd.is_in() => None,
        () if has(osd_state::FULL) => Some(Fullness::Full),
        () if has(osd_state::BACKFILLFULL) => Some(Fullness::Backfill),
        () if has(osd_state::NEARFULL) => Some(Fullness::Near),
        () => None,
    }
}

/// Has `inc` set and clear the full flags of pools as the OSDs of `next`, the map that it leads to,
/// demand. Says whether it changed anything.
pub(crate) fn mark_pools(next: &OsdMap, inc: &mut Incremental) -> bool {
    let osds: Vec<(i32, Fullness)> =
        next.existing_osds().filter_map(|(id, osd)| Some((id, of(osd)?))).collect();
    let mut by_rule: BTreeMap<u8, Option<Fullness>> = BTreeMap::new();
    let mut changed = false;
    for (&id, pool) in &next.pools {
        let level = *by_rule
            .entry(pool.crush_rule)
            .or_insert_with(|| of_rule(next, pool.crush_rule, &osds));
        let flags = pool.flags & !POOL_BITS | wanted(pool.flags, level);
        if flags != pool.flags {
            inc.new_pools.entry(id).or_insert_with(|| pool.clone()).flags = flags;
            changed = true;
        }
    }
    changed
}

fn of_rule(map: &OsdMap, rule: u8, osds: &[(i32, Fullness)]) -> Option<Fullness> {
    if osds.is_empty() {
        return None;
    }
    let below: Vec<Vec<i32>> =
        map.crush.takes_of(rule.into()).map(|take| map.crush.subtree(take)).collect();
    let reached = |osd: &i32| below.iter().any(|items| items.contains(osd));
    osds.iter().filter(|(id, _)| reached(id)).map(|(_, level)| *level).max()
}

/// A pool that has reached its quota is full, whatever its OSDs are.
fn wanted(flags: u64, level: Option<Fullness>) -> u64 {
    match level {
        _ if flags & pool_flags::FULL_QUOTA != 0 => pool_flags::FULL,
        None => 0,
        Some(Fullness::Near) => pool_flags::NEARFULL,
        Some(Fullness::Backfill) => pool_flags::BACKFILLFULL,
        Some(Fullness::Full) => pool_flags::FULL,
    }
}
