//! Who is in the quorum: monitors with new stores come in, those that left the monitor map go.
//!
//! A monitor whose store was lost does not know how it voted, so it never comes back as who it was:
//! its new store has a new number, and the leader takes the old number out of the quorum before the
//! new one comes in. Each is a change of the membership of its own, by the majority of the time.

use std::collections::BTreeMap;
use std::time::Duration;

use spirula_maps::MonMap;
use spirula_wire::msg::mon::{MonGetMap, MonMapMsg};
use spirula_wire::{Decode as _, Message as _, RawMessage};
use tracing::{debug, info, warn};

use super::{Action, F, Service};
use crate::Now;
use crate::peer::PeerMessage;
use crate::quorum::Role;
use crate::state::Change;

/// Under which name metadata of a monitor is kept.
fn daemon(name: &str) -> String {
    format!("mon.{name}")
}

/// Elections are over long before.
const ASK_MAP_AFTER: Duration = Duration::from_secs(10);
/// Who votes and joins has asked to within this time of a new leader.
const STRAY_AFTER: Duration = Duration::from_secs(5);

impl Service {
    /// A monitor whose number the members' list does not name asks whoever is there. One that votes
    /// already asks too: the leader that let it in may be gone.
    pub(super) fn ask_to_join(&mut self) {
        if !self.is_known() || self.state.members.contains_key(&self.quorum.id()) {
            return;
        }
        for name in self.other_names() {
            self.tell_by_name(name, 0, &PeerMessage::Join);
        }
    }

    /// A follower has the leader keep what it says about itself.
    pub(super) fn tell_metadata(&mut self) {
        let own = &self.live.metadata;
        let kept = self.state.metadata.get(&daemon(&self.live.name));
        if let Role::Follows(leader) = self.quorum.role()
            && !own.is_empty()
            && kept != Some(own)
        {
            self.tell(leader, &PeerMessage::Metadata(own.clone()));
        }
    }

    pub(super) fn take_metadata(&mut self, from: u64, values: BTreeMap<String, String>) {
        if let Some(name) = self.state.members.get(&from) {
            self.told.insert(name.clone(), values);
        }
    }

    /// What the state does not have of it, this monitor's own too.
    pub(super) fn new_metadata(&mut self) -> Vec<Change> {
        let mut told = std::mem::take(&mut self.told);
        if !self.live.metadata.is_empty() {
            told.insert(self.live.name.clone(), self.live.metadata.clone());
        }
        let named = told.into_iter().map(|(name, values)| (daemon(&name), values));
        let news = named.filter(|(name, values)| self.state.metadata.get(name) != Some(values));
        news.map(|(daemon, values)| Change::Metadata { daemon, values }).collect()
    }

    /// After a change of the monitor map.
    pub(super) fn monmap_changed(&mut self) {
        self.live.addrs = self.state.monmap.addrs_of(&self.live.name);
        let map = self.state.monmap.map();
        self.live.quorum.names.retain(|name| map.rank_of(name).is_some());
        self.leave_if_removed();
    }

    /// Stops if the monitor map does not name this monitor any more. A leader takes itself out of the
    /// quorum first: without it the others may have no majority.
    pub(super) fn leave_if_removed(&mut self) {
        let own = self.quorum.id();
        let may_leave = match self.quorum.role() {
            Role::Leads => false,
            Role::Follows(_) => true,
            Role::Electing => !self.quorum.members().contains(&own),
        };
        // One that joins may pass through maps of before it was added.
        let had_joined = self.state.members.contains_key(&own);
        if !self.is_known() && had_joined && may_leave {
            self.leave();
        }
    }

    fn leave(&mut self) {
        if !std::mem::replace(&mut self.removed, true) {
            info!("this monitor was removed");
            self.actions.push_back(Action::Removed);
        }
    }

    /// Who finds no leader for long may have been removed meanwhile; the others' maps tell.
    pub(super) fn ask_for_map(&mut self, now: Now) {
        if self.quorum.role() != Role::Electing || now.mono < self.quorum_since + ASK_MAP_AFTER {
            return;
        }
        for name in self.other_names() {
            self.actions.push_back(Action::Peer(name, MonGetMap {}.to_raw(0, F)));
        }
    }

    /// What another monitor answered on the session that this one opened.
    pub fn peer_answer(&mut self, raw: &RawMessage) {
        if raw.header.type_ != MonMapMsg::TYPE {
            return;
        }
        let Ok(map) = MonMapMsg::from_raw(raw).and_then(|m| MonMap::from_bytes(&m.monmap)) else {
            return warn!("an undecodable monitor map from another monitor");
        };
        let newer = map.fsid == self.state.fsid && map.epoch > self.monmap().epoch;
        let electing = self.quorum.role() == Role::Electing;
        match map.rank_of(&self.live.name) {
            _ if !newer || !electing => {}
            None => self.leave(),
            // One that joins may not know yet of the monitor that leads.
            Some(_) => self.stored_monmap = map,
        }
    }

    fn other_names(&self) -> Vec<String> {
        let names = self.monmap().ranks.iter();
        names.filter(|name| **name != self.live.name).cloned().collect()
    }

    /// Whether the monitor map names this monitor.
    pub(super) fn is_known(&self) -> bool {
        self.state.monmap.rank_of(&self.live.name) >= 0
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
        let (own, name) = (self.quorum.id(), &self.live.name);
        if !self.state.members.contains_key(&own) && self.is_known() {
            // Let in and elected before the leader of the time gave it a name.
            self.joining.insert(name.clone(), own);
        }
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
        if let Some(id) = self.stray_voter(now) {
            info!(id, "a voter that nobody knows leaves the quorum");
            if let Err(e) = self.quorum.remove(now.mono, id) {
                debug!("not yet: {e}");
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

    /// One that was let in, has no name and does not ask for one: its store is lost.
    fn stray_voter(&self, now: Now) -> Option<u64> {
        let known = |id: &u64| {
            self.state.members.contains_key(id) || self.joining.values().any(|joins| joins == id)
        };
        let waited = now.mono >= self.live.leading_since + STRAY_AFTER;
        self.quorum.members().iter().copied().find(|id| waited && !known(id))
    }
}
