//! OSDs that say how full they are.

use spirula_maps::osd_state::FULLNESS;
use spirula_wire::msg::osd::OsdFull;
use spirula_wire::{DecodeError, Message, RawMessage};
use tracing::debug;

use super::{Handled, Service, SessionId};
use crate::Now;

impl Service {
    /// An OSD wants the map to say how full it is.
    pub(super) fn osd_full(
        &mut self,
        now: Now,
        id: SessionId,
        raw: &RawMessage,
    ) -> Result<Handled, DecodeError> {
        let told = OsdFull::from_raw(raw)?;
        let Some(osd) = self.osd_session(id) else {
            return Ok(Handled::Done);
        };
        let Some(known) = self.osdmap().osd(osd).filter(|o| o.exists()) else {
            return Ok(Handled::Done);
        };
        let same = self.sessions.get(&id).is_some_and(|s| s.peer.addrs == known.client_addrs);
        if known.is_up() != same {
            debug!(osd, "fullness of a process that has gone");
            return Ok(Handled::Done);
        }
        let changed = (known.state ^ told.state) & FULLNESS;
        if changed == 0 {
            let from = u32::try_from(told.paxos.version + 1).unwrap_or(0);
            self.send_osdmaps_unless_subscribed(id, from);
            return Ok(Handled::Done);
        }
        let mut inc = self.state.osd.next(now);
        inc.new_state.insert(osd, changed);
        Ok(self.sealed(inc, Vec::new()).map_or(Handled::Done, |c| Handled::Propose(c, Vec::new())))
    }
}
