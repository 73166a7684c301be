//! Which epochs of the OSD map had snapshots purged, as OSDs ask that missed them.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use spirula_maps::{Incremental, SnapIntervals};
use spirula_wire::Decode;

use super::State;

/// Of a new cluster's map.
const FIRST_EPOCH: u32 = 1;

/// Pool -> snapshots.
type Purged = BTreeMap<i64, SnapIntervals>;

impl State {
    /// By epoch, the snapshots that it found purged. What is older than the oldest epoch that is kept
    /// comes with that one.
    pub fn purged_in(&self, epochs: RangeInclusive<u32>) -> BTreeMap<u32, Purged> {
        let (mut by_epoch, mut rest) = (BTreeMap::new(), self.purged_snaps.clone());
        let oldest = self.osd.oldest();
        for epoch in oldest + 1..=self.osd.epoch() {
            let raw = self.osd.incremental(epoch);
            let Some(inc) = raw.and_then(|raw| Incremental::from_bytes(&raw).ok()) else {
                continue;
            };
            for (pool, snaps) in &inc.new_purged_snaps {
                if let Some(older) = rest.get_mut(pool) {
                    older.subtract(snaps);
                }
            }
            if !inc.new_purged_snaps.is_empty() && epochs.contains(&epoch) {
                by_epoch.insert(epoch, inc.new_purged_snaps);
            }
        }
        rest.retain(|_, snaps| !snaps.is_empty());
        // Else there are only ids that removals took, which no map names.
        let forgot = oldest > FIRST_EPOCH;
        if forgot && !rest.is_empty() && epochs.contains(&oldest) {
            by_epoch.insert(oldest, rest);
        }
        by_epoch
    }
}
