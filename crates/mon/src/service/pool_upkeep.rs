//! What the monitor does by itself about pools, from the statistics: full flags by quota, and
//! snapshots that are purged everywhere.

use spirula_maps::{Incremental, PgPool, SnapIntervals, pool_flags};
use spirula_wire::msg::mon::log_priority;
use spirula_wire::types::ObjectStatSum;

use super::Service;
use crate::Now;
use crate::text::bytes_iec;

const FULL_BY_QUOTA: u64 = pool_flags::FULL | pool_flags::FULL_QUOTA;

impl Service {
    /// Sets the full flags of pools that have reached their quota, and clears those of pools that
    /// are below it again.
    pub(super) fn check_quotas(&mut self, now: Now, inc: &mut Incremental) {
        let map = self.state.osd.shared();
        for (&id, pool) in &map.pools {
            let stat = i32::try_from(id).ok().and_then(|id| self.live.digest.pg_pool_sum.get(&id));
            let Some(stat) = stat else { continue };
            let reached = quotas_reached(pool, &stat.stats.sum);
            if reached.is_empty() != pool.has_flag(pool_flags::FULL_QUOTA) {
                continue;
            }
            let name = map.pool_name(id).unwrap_or_default();
            let changed = inc.new_pools.entry(id).or_insert_with(|| pool.clone());
            if reached.is_empty() {
                changed.flags &= !FULL_BY_QUOTA;
                self.info(
                    now,
                    format!("pool '{name}' no longer out of quota; removing NO_QUOTA flag"),
                );
                continue;
            }
            changed.flags |= FULL_BY_QUOTA;
            changed.flags &= !(pool_flags::NEARFULL | pool_flags::BACKFILLFULL);
            for quota in reached {
                let line = format!("pool '{name}' is full (reached quota's {quota})");
                self.clog(now, log_priority::WARN, "cluster", line);
            }
        }
    }

    /// Takes snapshots out of the queue of removed ones when every PG of the pool has purged them,
    /// and everything of pools that are gone.
    pub(super) fn prune_purged_snaps(&self, inc: &mut Incremental) {
        let map = self.osdmap();
        let mut left = match self.settings.int("mon_max_snap_prune_per_epoch") {
            n if n > 0 => n as u64,
            _ => 100_000,
        };
        for (pool, queue) in &map.removed_snaps_queue {
            let purged = match map.pool(*pool) {
                None => queue.clone(),
                Some(_) => self.purged_of(*pool).intersection(queue),
            };
            let purged = purged.first(left);
            left -= purged.count();
            if !purged.is_empty() {
                inc.new_purged_snaps.insert(*pool, purged);
            }
        }
    }

    fn purged_of(&self, pool: i64) -> SnapIntervals {
        self.live.digest.purged_snaps.get(&pool).cloned().unwrap_or_default()
    }
}

fn quotas_reached(pool: &PgPool, sum: &ObjectStatSum) -> Vec<String> {
    let (bytes, objects) = (pool.quota_max_bytes, pool.quota_max_objects);
    let reached = |quota: u64, now: i64| quota > 0 && now.max(0) as u64 >= quota;
    let mut texts = Vec::new();
    if reached(bytes, sum.num_bytes) {
        texts.push(format!("max_bytes: {}", bytes_iec(bytes)));
    }
    if reached(objects, sum.num_objects) {
        texts.push(format!("max_objects: {objects}"));
    }
    texts
}
