//! Temporary acting sets and primaries that no longer mean anything leave the map with the next
//! change, as do exceptions of PGs that are gone.

use spirula_maps::{Incremental, OsdMap};
use spirula_wire::types::PgId;

/// Has `inc` take out of `next`, the map that it leads to from `old`, what no longer counts. Says
/// whether it changed anything.
pub(crate) fn clean(old: &OsdMap, next: &OsdMap, inc: &mut Incremental) -> bool {
    let stale: Vec<PgId> = stale_temps(next).collect();
    let redundant: Vec<PgId> = stale_primaries(next).collect();
    let gone = |pg: &&PgId| !exists(next, **pg);
    let upmaps: Vec<PgId> = next.pg_upmap.keys().filter(gone).copied().collect();
    let items: Vec<PgId> = next.pg_upmap_items.keys().filter(gone).copied().collect();
    let changed =
        [&stale, &redundant, &upmaps, &items].into_iter().any(|pgs: &Vec<PgId>| !pgs.is_empty());
    for pg in stale {
        inc.new_pg_temp.remove(&pg);
        if old.pg_temp.contains_key(&pg) {
            inc.new_pg_temp.insert(pg, Vec::new());
        }
    }
    for pg in redundant {
        inc.new_primary_temp.remove(&pg);
        if old.primary_temp.contains_key(&pg) {
            inc.new_primary_temp.insert(pg, -1);
        }
    }
    inc.old_pg_upmap.extend(upmaps);
    inc.old_pg_upmap_items.extend(items);
    changed
}

/// Of PGs that are gone, of OSDs that are all down, of too many OSDs, or what CRUSH says anyway.
fn stale_temps(map: &OsdMap) -> impl Iterator<Item = PgId> {
    let stale = |(pg, osds): &(&PgId, &Vec<i32>)| {
        let Some(pool) = map.pool(pg.pool) else { return true };
        !exists(map, **pg)
            || !osds.iter().any(|osd| map.is_up(*osd))
            || osds.len() > usize::from(pool.size)
            || map.pg_to_up_acting(**pg).up == **osds
    };
    map.pg_temp.iter().filter(stale).map(|(pg, _)| *pg)
}

fn stale_primaries(map: &OsdMap) -> impl Iterator<Item = PgId> {
    let stale = |(pg, osd): &(&PgId, &i32)| {
        let at = map.pg_to_up_acting(**pg);
        !exists(map, **pg) || !map.is_up(**osd) || at.acting_primary == at.up_primary
    };
    map.primary_temp.iter().filter(stale).map(|(pg, _)| *pg)
}

fn exists(map: &OsdMap, pg: PgId) -> bool {
    map.pool(pg.pool).is_some_and(|pool| pg.seed < pool.pg_num)
}
