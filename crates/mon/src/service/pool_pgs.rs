//! The numbers of PGs follow what they shall be. In Ceph the manager has the monitor make the steps; here
//! the monitor looks at what the manager reports and makes them itself. PGs are split and merged in one
//! step, since every PG is where its other half is. Where there are other copies, halves move to OSDs of their
//! own (`pgp_num`) when all are well again.

use spirula_maps::{Incremental, OsdMap, PgMapDigest, PgPool, pool_flags};
use spirula_wire::types::pg_state;

use super::Service;
use crate::command::stays;

impl Service {
    /// Brings the next pool to its target, when all PGs are well.
    pub(super) fn adjust_pg_nums(&mut self, inc: &mut Incremental) {
        let map = self.state.osd.shared();
        let differs = |pool: &&PgPool| {
            (pool.pg_num, pool.pgp_num) != (pool.pg_num_target, pool.pgp_num_target)
        };
        let due = map.pools.iter().find(|(_, pool)| differs(pool));
        let Some((&id, pool)) = due.filter(|_| all_clean(&self.live.digest, &map.pools)) else {
            return;
        };
        let Some((pg_num, pgp_num)) = next_step(&map, id, pool) else {
            tracing::debug!(pool = id, "its PGs would have to move or be merged");
            return;
        };
        let (epoch, merges) = (inc.epoch, pg_num < pool.pg_num);
        let splits = pg_num > pool.pg_num;
        let changed = inc.new_pools.entry(id).or_insert_with(|| pool.clone());
        (changed.pg_num, changed.pgp_num, changed.pg_num_pending) = (pg_num, pgp_num, pg_num);
        if merges {
            // Clients older than Nautilus do not know that a merge ends an interval.
            changed.last_force_op_resend_prenautilus = epoch;
        }
        if merges || splits {
            changed.last_force_op_resend_preluminous = epoch;
        }
    }
}

/// Of a PG of several copies at once: its copies store a split as one transaction, in which the duplicate
/// table is written for each part.
const PARTS_MAX: u32 = 4;

/// The next `pg_num` and `pgp_num`.
fn next_step(map: &OsdMap, id: i64, pool: &PgPool) -> Option<(u32, u32)> {
    let (pg_num, pgp_num) = (pool.pg_num_target, pool.pgp_num_target);
    match pool.size {
        0 | 1 => stays(map, id, pg_num, pgp_num).then_some((pg_num, pgp_num)),
        // A primary that knows nothing of its PG would take it for one to be made.
        _ if pool.has_flag(pool_flags::CREATING) => None,
        _ if pg_num > pool.pg_num => {
            Some((pg_num.min(pool.pg_num.saturating_mul(PARTS_MAX)), pool.pgp_num))
        }
        _ => (pg_num == pool.pg_num).then_some((pg_num, pgp_num)),
    }
}

/// By what the manager reported last.
fn all_clean(digest: &PgMapDigest, pools: &std::collections::BTreeMap<i64, PgPool>) -> bool {
    let clean = pg_state::ACTIVE | pg_state::CLEAN;
    let states = &digest.num_pg_by_state;
    let pgs: i64 = pools.values().map(|pool| i64::from(pool.pg_num)).sum();
    digest.num_pg == pgs
        && states.keys().all(|state| state & clean == clean)
        && states.values().map(|n| i64::from(*n)).sum::<i64>() == pgs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_several_copies_move_after_they_were_split() {
        let pool = |size, (pg_num, pgp_num), (pg_target, pgp_target), flags| PgPool {
            size,
            pg_num,
            pgp_num,
            pg_num_target: pg_target,
            pgp_num_target: pgp_target,
            flags,
            ..PgPool::default()
        };
        for (pool, want) in [
            (pool(3, (8, 8), (32, 32), 0), Some((32, 8))),
            (pool(3, (32, 8), (32, 32), 0), Some((32, 32))),
            (pool(3, (8, 8), (8, 4), 0), Some((8, 4))),
            (pool(3, (8, 8), (4, 4), 0), None),
            (pool(3, (8, 8), (32, 32), pool_flags::CREATING), None),
            (pool(1, (8, 8), (32, 32), 0), Some((32, 32))),
        ] {
            assert_eq!(next_step(&OsdMap::default(), 1, &pool), want, "{pool:?}");
        }
    }
}
