//! Who is in the quorum: monitors with new stores come in, those that left the monitor map go.
//!
//! A monitor whose store was lost does not know how it voted, so it never comes back as who it was:
//! its new store has a new number, and the leader takes the old number out of the quorum before the
//! new one comes in. Each is a change of the membership of its own, by the majority of the time.

use tracing::{debug, info};

use super::Service;
use crate::Now;
use crate::peer::PeerMessage;
use crate::state::Change;

impl Service {
    /// A monitor with an empty store asks whoever is there.
    pub(super) fn ask_to_join(&mut self) {
        if self.applied > 0 {
            return;
        }
        let mut others = self.state.monmap.map().ranks.clone();
        others.retain(|name| *name != self.live.name);
        for name in others {
            self.tell_by_name(name, 0, &PeerMessage::Join);
        }
    }

    /// Monitor `id` says that it has a new store.
    pub(super) fn wants_to_join(&mut self, now: Now, id: u64) {
        let Some(name) = self.names.get(&id).cloned() else { return };
        let known = self.state.monmap.rank_of(&name) >= 0;
        if !known || name == self.live.name {
            return debug!(name, id, "a monitor that may not join");
        }
        if self.state.members.get(&id) != Some(&name) && self.joining.insert(name, id) != Some(id) {
            self.change_members(now);
        }
    }

    /// Does the next step that brings the quorum's members in line with the monitors there are.
    pub(super) fn change_members(&mut self, now: Now) {
        let leaving = self.state.members.iter().find(|(id, name)| {
            let replaced = self.joining.get(*name).is_some_and(|new| new != *id);
            replaced || self.state.monmap.rank_of(name) < 0
        });
        if let Some((id, name)) = leaving.map(|(id, name)| (*id, name.clone())) {
            if self.quorum.members().contains(&id) {
                info!(name, id, "leaves the quorum");
                if let Err(e) = self.quorum.remove(now.mono, id) {
                    debug!("not yet: {e}");
                }
            } else if self.in_flight.is_none() {
                let change = Change::Member { id, name: None };
                self.propose(now, vec![change], Vec::new(), None, false);
            }
            return;
        }
        let Some((name, id)) = self.joining.first_key_value().map(|(n, id)| (n.clone(), *id))
        else {
            return;
        };
        if !self.quorum.members().contains(&id) {
            info!(name, id, "joins the quorum");
            if let Err(e) = self.quorum.add(now.mono, id) {
                debug!("not yet: {e}");
            }
        } else if self.state.members.get(&id) != Some(&name) {
            if self.in_flight.is_none() {
                let change = Change::Member { id, name: Some(name) };
                self.propose(now, vec![change], Vec::new(), None, false);
            }
        } else {
            self.joining.remove(&name);
        }
    }
}
