//! New maps: following the history, and moving requests where it leads.

use std::collections::BTreeMap;
use std::time::Duration;

use spirula_maps::OsdMap;
use spirula_wire::msg::osd::OsdMapMsg;
use spirula_wire::types::PgId;

use super::op::Work;
use super::{Action, Objecter};

impl Objecter {
    /// Maps from a monitor or an OSD.
    pub fn handle_map(&mut self, now: Duration, message: &OsdMapMsg) {
        let (before, old) = (self.epoch(), self.map().cloned());
        let done = self.maps.handle(message);
        if let Some(error) = done.error {
            tracing::warn!("map not taken: {error}");
        }
        if let Some(start) = done.ask {
            self.actions.push_back(Action::WantMap { start });
        }
        if done.advanced {
            self.map_changed(now, before, old.as_deref());
        }
    }

    fn map_changed(&mut self, now: Duration, before: u32, old: Option<&OsdMap>) {
        self.primaries.clear();
        self.drop_stale_sessions();
        if self.epoch() > before + 1 {
            self.forget_sent_to(|_| true);
        } else if let (Some(old), Some(new)) = (old, self.map().cloned()) {
            let mut known = BTreeMap::new();
            self.forget_sent_to(|pg| *known.entry(pg).or_insert_with(|| moved(old, &new, pg)));
        }
        let tids: Vec<u64> = self.ops.keys().copied().collect();
        for tid in tids {
            self.place(now, tid);
            self.send(now, tid);
        }
        let epoch = self.epoch();
        self.actions.push_back(Action::MapChanged { epoch });
        if epoch < self.newest {
            self.want_newer();
        }
    }

    /// Operations in these PGs go out again. All do where maps were skipped: by one of them a PG may have
    /// left its primary, which then drops what was sent before, and have come back. An operation that was
    /// executed is known by its identity.
    fn forget_sent_to(&mut self, mut pgs: impl FnMut(PgId) -> bool) {
        let ops = self.ops.values_mut().filter(|op| matches!(op.work, Work::Op(_)));
        for op in ops.filter(|op| pgs(op.pg.pgid)) {
            op.sent_at = None;
        }
    }
}

/// Whether a PG's primary has dropped what it has not answered: there is another one, or the PG was split or
/// merged. One that stays the primary while other copies change asks for what it dropped, by a backoff, since
/// librados sends nothing again for that.
fn moved(old: &OsdMap, new: &OsdMap, pg: PgId) -> bool {
    let of_pg = |map: &OsdMap| {
        (map.pool(pg.pool).map(|pool| pool.pg_num), map.pg_to_up_acting(pg).acting_primary)
    };
    of_pg(old) != of_pg(new)
}
