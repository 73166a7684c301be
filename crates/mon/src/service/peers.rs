//! Requests of a peer's sessions at the leader, and this monitor's own on their way there.
//!
//! A monitor that follows answers what needs only the maps; the rest goes to the leader, which
//! keeps a session of its own for each one that sends it something. A request counts as open until
//! the leader says that nothing more will come of it, and goes to the next leader if it does not.

use std::time::Duration;

use spirula_wire::msg::mon::MonPeer;
use spirula_wire::msg::types as msg;
use spirula_wire::types::EntityType;
use spirula_wire::{Decode as _, DecodeError, Encode as _, Message as _, RawMessage};
use tracing::{debug, warn};

use super::{Action, F, Peer, Service, SessionId};
use crate::Now;
use crate::limits::{FORWARD_BYTES_MAX, QUEUE_MAX};
use crate::peer::PeerMessage;
use crate::quorum::Role;

/// As long as Ceph's monitors wait (twice `mon_lease`).
const AWAY_AFTER: Duration = Duration::from_secs(10);
/// Ids of sessions that are a peer's; the driver's are far below.
const PROXY: SessionId = 1 << 63;

impl Service {
    /// A way to monitor `name` is open (again); what it was told before may be lost.
    pub fn peer_connected(&mut self, now: Now, name: &str) {
        let Role::Follows(leader) = self.quorum.role() else { return };
        if self.state.members.get(&leader).is_some_and(|n| n == name) {
            self.begin_anew();
        }
        self.settle(now);
    }

    /// Tells the leader again of the sessions here, and asks again what it has not answered.
    fn begin_anew(&mut self) {
        self.announced.clear();
        let again: Vec<_> = std::mem::take(&mut self.forwarded).into_values().collect();
        for item in again.into_iter().rev() {
            self.waiting.push_front(item);
        }
        self.announce_osds();
    }

    /// Monitor `from` was heard on a session that is not the one before: what it sent on that one may
    /// be lost, and it may be another run of it, which announces its sessions itself.
    fn heard_anew(&mut self, now: Now, from: u64) {
        self.drop_proxies_of(now, from);
        if self.quorum.role() == Role::Follows(from) {
            self.begin_anew();
        }
    }

    /// A session ended: if a monitor spoke on it, its sessions are gone until it opens another one.
    pub(super) fn monitor_left(&mut self, now: Now, id: SessionId) {
        let from = self.speaks.iter().find(|(_, session)| **session == id).map(|(from, _)| *from);
        if let Some(from) = from {
            self.speaks.remove(&from);
            self.drop_proxies_of(now, from);
        }
    }

    fn drop_proxies_of(&mut self, now: Now, from: u64) {
        let its = self.proxies.iter().filter(|(_, (peer, _))| *peer == from);
        for id in its.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.proxies.remove(&id);
            self.drop_session(now, id);
        }
    }

    /// A message of another monitor.
    pub(super) fn peer_message(
        &mut self,
        now: Now,
        id: SessionId,
        raw: &RawMessage,
    ) -> Result<(), DecodeError> {
        let is_mon = |s: &super::Session| s.name().type_ == EntityType::MON;
        if !self.sessions.get(&id).is_some_and(is_mon) {
            debug!(session = id, "a monitor's message from another entity");
            return Ok(());
        }
        let message = MonPeer::from_raw(raw)?;
        let from = message.from;
        let body = PeerMessage::from_bytes(&message.body)?;
        let joins = message.to == 0 && matches!(body, PeerMessage::Join);
        if message.to != self.quorum.id() && !joins {
            // To the store that was here before, or from one that does not know of this yet.
            return Ok(());
        }
        self.names.insert(from, message.name);
        if self.speaks.insert(from, id) != Some(id) {
            self.heard_anew(now, from);
        }
        let leads = self.quorum.role() == Role::Leads;
        let follows = self.quorum.role() == Role::Follows(from);
        match body {
            PeerMessage::Quorum(message) => self.quorum.message(now.mono, from, message),
            // One of an earlier leadership says nothing about this one.
            PeerMessage::View(view) if follows && view.term == self.quorum.term() => {
                self.take_view(now, from, &view);
                self.refresh_health(now);
                self.announce_osds();
                self.ask_for_ids(now);
            }
            PeerMessage::Opened(session, peer) if leads => {
                self.open_proxy(now, from, session, peer)
            }
            PeerMessage::Forward(session, number, raw) if leads => {
                self.proxy_request(now, from, session, number, raw);
            }
            PeerMessage::Gone(session) if leads => {
                if let Some(id) = self.proxy_of(from, session) {
                    self.proxies.remove(&id);
                    self.drop_session(now, id);
                }
            }
            PeerMessage::Route(session, raw) if follows => self.send(session, raw),
            PeerMessage::Done(number) if follows => _ = self.forwarded.remove(&number),
            PeerMessage::Close(session) if follows => {
                self.actions.push_back(Action::Close(session));
            }
            PeerMessage::WantIds(run) if leads => {
                self.want_ids.insert(run);
                if self.in_flight.is_none() {
                    self.propose(now, Vec::new(), Vec::new(), None, false);
                }
            }
            PeerMessage::Metadata(values) if leads => self.take_metadata(from, values),
            PeerMessage::AskTime(round) if follows => {
                self.tell(from, &PeerMessage::Time(round, now.wall));
            }
            PeerMessage::Time(round, wall) if leads => self.take_time(now, from, round, wall),
            PeerMessage::Join if leads => self.wants_to_join(now, from),
            PeerMessage::Report(raw) if follows => self.take_report(now, &raw)?,
            _ => debug!(from, "a message for another role"),
        }
        Ok(())
    }

    pub(super) fn tell(&mut self, to: u64, body: &PeerMessage) {
        // One that just joins is known by what it says only, and so are others to it.
        let name = self.names.get(&to).or_else(|| self.state.members.get(&to)).cloned();
        if let Some(name) = name {
            self.tell_by_name(name, to, body);
        }
    }

    pub(super) fn tell_by_name(&mut self, peer: String, to: u64, body: &PeerMessage) {
        let (from, name) = (self.quorum.id(), self.live.name.clone());
        let message = MonPeer { from, to, name, body: body.to_bytes(F).into() };
        self.actions.push_back(Action::Peer(peer, message.to_raw(0, F)));
    }

    pub(super) fn other_members(&self) -> Vec<u64> {
        let own = self.quorum.id();
        self.quorum.members().iter().copied().filter(|id| *id != own).collect()
    }

    /// Passes a request on.
    pub(super) fn forward(&mut self, leader: u64, id: SessionId, raw: RawMessage) {
        let payload = &raw.payload;
        if payload.front.len() + payload.middle.len() + payload.data_len() > FORWARD_BYTES_MAX {
            warn!(session = id, "a request too large to be passed on; session closed");
            return self.close(id);
        }
        self.announce(leader, id);
        self.next_forward += 1;
        let number = self.next_forward;
        self.tell(leader, &PeerMessage::Forward(id, number, raw.clone()));
        self.forwarded.insert(number, (id, raw));
    }

    /// Tells the leader of a session, once.
    fn announce(&mut self, leader: u64, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else { return };
        if self.announced.insert(id) {
            let peer = session.peer.clone();
            self.tell(leader, &PeerMessage::Opened(id, peer));
        }
    }

    /// The leader takes an OSD for gone that has a session nowhere.
    pub(super) fn announce_osds(&mut self) {
        let Role::Follows(leader) = self.quorum.role() else { return };
        let osds = self.sessions.iter().filter(|(_, s)| s.osd().is_some());
        for id in osds.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.announce(leader, id);
        }
    }

    pub(super) fn session_left(&mut self, id: SessionId) {
        self.forwarded.retain(|_, (session, _)| *session != id);
        if let Role::Follows(leader) = self.quorum.role()
            && self.announced.remove(&id)
        {
            self.tell(leader, &PeerMessage::Gone(id));
        }
    }

    fn proxy_of(&self, peer: u64, session: SessionId) -> Option<SessionId> {
        self.proxies.iter().find(|(_, at)| **at == (peer, session)).map(|(id, _)| *id)
    }

    fn open_proxy(&mut self, now: Now, from: u64, session: SessionId, peer: Peer) {
        if let Some(id) = self.proxy_of(from, session) {
            self.drop_session(now, id);
            self.proxies.remove(&id);
        }
        self.next_proxy += 1;
        let id = PROXY | self.next_proxy;
        self.proxies.insert(id, (from, session));
        self.add_session(now, id, peer);
    }

    fn proxy_request(
        &mut self,
        now: Now,
        from: u64,
        session: SessionId,
        number: u64,
        mut raw: RawMessage,
    ) {
        let Some(id) = self.proxy_of(from, session) else {
            // It was opened before this monitor led; the sender begins anew with the next view.
            return debug!(from, session, "a request of an unknown session");
        };
        // The messenger's number means nothing here; it carries that of the request.
        raw.header.seq = number;
        self.accept(now, id, raw);
    }

    /// Nothing more comes of a request.
    pub(super) fn done(&mut self, id: SessionId, raw: &RawMessage) {
        if let Some((peer, _)) = self.proxies.get(&id).copied() {
            self.tell(peer, &PeerMessage::Done(raw.header.seq));
        }
    }

    pub(super) fn close(&mut self, id: SessionId) {
        match self.proxies.get(&id).copied() {
            Some((peer, session)) => self.tell(peer, &PeerMessage::Close(session)),
            None => self.actions.push_back(Action::Close(id)),
        }
    }

    /// Handles what waited for a leader, a lease or the state to catch up; whether there was any.
    pub(super) fn handle_waiting(&mut self, now: Now) -> bool {
        if self.waiting.is_empty() || !self.is_served(now) {
            return false;
        }
        for (id, raw) in std::mem::take(&mut self.waiting) {
            self.accept(now, id, raw);
        }
        true
    }

    /// Whether requests are taken: this monitor leads and would know if it did not, or follows and
    /// is not behind.
    pub fn is_served(&self, now: Now) -> bool {
        match self.quorum.role() {
            _ if !self.is_known() => false,
            Role::Leads => self.quorum.has_lease(now.mono),
            Role::Follows(_) => self.caught_up,
            Role::Electing => false,
        }
    }

    /// Without a quorum for long, clients had better look for a monitor that has one.
    pub(super) fn send_clients_away(&mut self, now: Now) {
        if self.is_served(now) {
            self.served = now.mono;
        } else if now.mono > self.served + AWAY_AFTER {
            self.served = now.mono;
            let clients = self.sessions.iter().filter(|(_, s)| s.name().type_ != EntityType::MON);
            let away: Vec<SessionId> = clients.map(|(id, _)| *id).collect();
            self.actions.extend(away.into_iter().map(Action::Close));
        }
    }

    /// Takes a request, which is handled here, goes to the leader, or waits.
    pub(super) fn accept(&mut self, now: Now, id: SessionId, raw: RawMessage) {
        if !self.is_served(now) && !is_local(raw.header.type_) {
            if self.waiting.len() >= QUEUE_MAX {
                warn!(session = id, "too many requests wait for a leader; session closed");
                return self.close(id);
            }
            return self.waiting.push_back((id, raw));
        }
        match self.quorum.role() {
            Role::Follows(leader) if is_leaders(raw.header.type_) => self.forward(leader, id, raw),
            _ => self.take(now, id, raw),
        }
    }
}

/// What every monitor answers for itself, in a quorum or not.
fn is_local(type_: u16) -> bool {
    matches!(type_, msg::PING | msg::COMMAND | msg::MON_GETMAP)
}

/// What changes something, or needs what only the leader knows.
fn is_leaders(type_: u16) -> bool {
    super::changes(type_)
        || matches!(
            type_,
            msg::MON_COMMAND
                | msg::MON_GET_VERSION
                | msg::STATFS
                | msg::GET_POOL_STATS
                | msg::OSD_BEACON
                | msg::MON_GET_PURGED_SNAPS
                | msg::MON_MGR_REPORT
        )
}
