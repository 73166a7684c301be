//! Acting sets that primaries ask for while the OSDs that CRUSH chose have no data yet.

use std::collections::BTreeMap;

use spirula_maps::{Incremental, OsdMap};
use spirula_wire::msg::osd::OsdPgTemp;
use spirula_wire::types::PgId;
use spirula_wire::{DecodeError, Message, RawMessage};
use tracing::debug;

use super::{Handled, Service, SessionId};
use crate::Now;

impl Service {
    pub(super) fn osd_pg_temp(
        &mut self,
        now: Now,
        id: SessionId,
        raw: &RawMessage,
    ) -> Result<Handled, DecodeError> {
        let request = OsdPgTemp::from_raw(raw)?;
        let Some(osd) = self.up_osd_session(id) else {
            debug!(session = id, "acting sets asked for by none that is up");
            return Ok(Handled::Done);
        };
        self.live.osd_seen.insert(osd, now.mono);
        let map = self.state.osd.shared();
        let mut wanted = request.pg_temp;
        wanted.retain(|pg, _| map.pool(pg.pool).is_some());
        if !request.forced {
            // Only the primary of this map may: whoever was it before does not know the newest.
            wanted.retain(|pg, _| map.pg_to_up_acting(*pg).acting_primary == osd);
        }
        if wanted.is_empty() {
            return Ok(Handled::Done);
        }
        if !request.forced && wanted.iter().all(|(pg, osds)| is_same(&map, pg, osds)) {
            self.send_osdmaps_unless_subscribed(id, request.map_epoch.saturating_add(1));
            return Ok(Handled::Done);
        }
        let mut inc = self.state.osd.next(now);
        put(&map, &mut inc, wanted);
        // It will ask for it next: it knows of this epoch.
        let up_thru = request.map_epoch.min(map.epoch);
        if map.osd(osd).is_some_and(|known| up_thru > known.info.up_thru) {
            inc.new_up_thru.insert(osd, up_thru);
        }
        Ok(self.sealed(inc, Vec::new()).map_or(Handled::Done, |c| Handled::Propose(c, Vec::new())))
    }
}

fn is_same(map: &OsdMap, pg: &PgId, osds: &[i32]) -> bool {
    let known = map.pg_temp.get(pg).map_or(&[][..], Vec::as_slice);
    known == osds && !map.primary_temp.contains_key(pg)
}

fn put(map: &OsdMap, inc: &mut Incremental, wanted: BTreeMap<PgId, Vec<i32>>) {
    for (pg, osds) in wanted {
        if map.primary_temp.contains_key(&pg) {
            inc.new_primary_temp.insert(pg, -1);
        }
        inc.new_pg_temp.insert(pg, osds);
    }
}
