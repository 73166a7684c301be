//! Acting sets given beforehand to PGs whose primary would be new to them.
//!
//! Where a change of the map makes an OSD primary that did not act for the PG so far, that OSD would
//! peer, find that it has nothing, and ask for the former acting set: two intervals in which clients
//! wait. So the very change that moves the PG leaves it, for now, to those who have it. Their primary
//! asks for the end of this once the new one is filled, or at once if its log is enough.
//!
//! Which changes count and who is left alone is as in Ceph's `maybe_prime_pg_temp`. Its monitor since
//! Luminous clears such sets again before they leave, and so in effect primes nothing.

use spirula_maps::{Incremental, OsdMap, osd_state, pool_flags};
use spirula_wire::types::PgId;

use crate::options::Settings;

/// PGs that are looked at for each second of `mon_osd_prime_pg_temp_max_time`: far fewer than a core
/// places in that time. A clock would make the change depend on more than its arguments.
const PGS_PER_SECOND: f64 = 20_000.0;

/// Adds acting sets to `inc`, a change of `map`.
pub(crate) fn prime(map: &OsdMap, settings: &Settings, inc: &mut Incremental) {
    if !settings.bool("mon_osd_prime_pg_temp") || !moves_pgs(map, inc) {
        return;
    }
    let mut next = map.clone();
    // What does not apply is refused when the change is sealed.
    if next.apply(inc).is_err() {
        return;
    }
    let max = settings.float("mon_osd_prime_pg_temp_max_time").max(0.0) * PGS_PER_SECOND;
    let left = map
        .pools
        .iter()
        .filter(|(id, pool)| !pool.has_flag(pool_flags::CREATING) && next.pool(**id).is_some());
    let pgs = left.flat_map(|(id, pool)| (0..pool.pg_num).map(|seed| PgId::new(*id, seed)));
    for pg in pgs.take(max as usize) {
        if inc.new_pg_temp.contains_key(&pg) || inc.new_primary_temp.contains_key(&pg) {
            continue;
        }
        if let Some(osds) = better_than(map, &next, inc, pg) {
            inc.new_pg_temp.insert(pg, osds);
        }
    }
}

/// Whether CRUSH may choose others after it: OSDs come, go, or count for more or less.
fn moves_pgs(map: &OsdMap, inc: &Incremental) -> bool {
    let flips_up =
        |(osd, bits): (&i32, &u32)| (*bits == 0 || bits & osd_state::UP != 0) && map.is_up(*osd);
    !map.pools.is_empty()
        && (!inc.crush.is_empty()
            || !inc.new_up_client.is_empty()
            || !inc.new_weight.is_empty()
            || inc.new_state.iter().any(flips_up))
}

/// The present acting set of a PG whose next primary is none of it.
fn better_than(map: &OsdMap, next: &OsdMap, inc: &Incremental, pg: PgId) -> Option<Vec<i32>> {
    let pool = next.pool(pg.pool).filter(|pool| pg.seed < pool.pg_num && pool.can_shift_osds())?;
    let then = next.pg_to_up_acting(pg);
    let primary = then.acting_primary;
    // One that comes up has most likely been here before: its log will tell.
    let is_back = inc.new_up_client.contains_key(&primary);
    if primary < 0 || is_back || then.up != then.acting {
        return None;
    }
    let now = map.pg_to_up_acting(pg);
    if now.acting.contains(&primary) || now.up.contains(&primary) {
        return None;
    }
    let mut osds = now.acting;
    osds.retain(|osd| next.is_up(*osd));
    osds.truncate(pool.size.into());
    // Too few would not serve either.
    (!osds.is_empty() && osds.len() >= usize::from(pool.min_size)).then_some(osds)
}
