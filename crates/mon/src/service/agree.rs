//! The service and the quorum: what is proposed, what was committed, who leads.

use std::time::Duration;

use bytes::Bytes;
use spirula_wire::{Decode as _, Encode as _, RawMessage};
use tracing::{debug, info, warn};

use super::{Action, F, InFlight, Service, SessionId};
use crate::Now;
use crate::limits::COMPACT_EVERY;
use crate::peer::{PeerMessage, View};
use crate::quorum::{Output, Role};
use crate::state::{Change, Proposal, State};

/// The leader tells its peers of the quorum at least this often.
const VIEW_EVERY: Duration = Duration::from_secs(1);

impl Service {
    /// The term of the quorum's log.
    pub fn term(&self) -> u64 {
        self.quorum.term()
    }

    /// The numbers of those who vote, as of the newest entry.
    pub fn voters(&self) -> &[u64] {
        self.quorum.members()
    }

    /// Write `number` is durable.
    pub fn written(&mut self, now: Now, number: u64) {
        self.quorum.written(number);
        self.settle(now);
    }

    /// Carries out what the quorum wants, and what follows from it.
    pub(super) fn settle(&mut self, now: Now) {
        loop {
            while let Some(output) = self.quorum.poll_output() {
                match output {
                    Output::Write(number, writes) => {
                        self.actions.push_back(Action::Write(number, writes));
                    }
                    Output::Send(to, message) => self.tell(to, &PeerMessage::Quorum(message)),
                    Output::Committed { index, term, data } => {
                        self.committed(now, index, term, &data);
                    }
                    Output::Restore { index, state } => self.restore(now, index, &state),
                    Output::Role(role) => self.role_changed(now, role),
                    Output::Members(members) => {
                        debug!(?members, "members of the quorum");
                        self.view(now, false);
                    }
                }
            }
            if !self.handle_waiting(now) {
                return;
            }
        }
    }

    /// The next entry of the log, this monitor's own or another's.
    fn committed(&mut self, now: Now, index: u64, term: u64, data: &[u8]) {
        if index <= self.applied {
            return;
        }
        self.applied = index;
        let own = self.in_flight.take_if(|f| f.index == index && f.term == term);
        let proposal = match Proposal::from_bytes(data) {
            Ok(proposal) => proposal,
            Err(e) => return warn!(index, error = %e, "a committed proposal does not decode"),
        };
        if let Err(e) = self.state.apply(&proposal) {
            // The proposer checked it against this very state.
            warn!(index, error = %e, "a committed proposal does not apply");
        }
        self.after_apply(now, &proposal);
        for (id, raw) in own.iter().flat_map(|own| own.replies.iter().cloned()) {
            self.send(id, raw);
        }
        self.publish(now);
        if index - self.compacted >= COMPACT_EVERY {
            self.compacted = index;
            self.quorum.compact(now.mono, index, self.state.to_bytes(F).into());
        }
        match own {
            Some(InFlight { origin: Some((id, raw)), again: true, .. }) => {
                self.accept(now, id, raw);
            }
            Some(InFlight { origin: Some((id, raw)), .. }) => self.done(id, &raw),
            _ => {}
        }
        while self.in_flight.is_none()
            && self.quorum.role() == Role::Leads
            && let Some((id, raw)) = self.queue.pop_front()
        {
            // Not without a lease: it may need no proposal after all.
            self.accept(now, id, raw);
        }
    }

    /// Everything up to entry `index` is replaced by this state.
    fn restore(&mut self, now: Now, index: u64, state: &[u8]) {
        match State::from_bytes(state) {
            Ok(state) => self.state = state,
            // The leader that sent it holds it for whole; going on would split the monitors.
            Err(e) => {
                warn!(index, error = %e, "a snapshot does not decode; is the leader of a newer release?");
                return self.actions.push_back(Action::Fail(e.to_string()));
            }
        }
        info!(index, version = self.state.version, "the state was taken over from the leader");
        self.applied = index;
        self.compacted = index;
        self.live.addrs = self.state.monmap.addrs_of(&self.live.name);
        let name = self.live.name.clone();
        self.settings.refresh(&self.state.config, &name);
        self.actions.push_back(Action::OptionsChanged);
        self.note_osds(now);
        self.refresh_health(now);
        self.publish(now);
    }

    pub(super) fn propose(
        &mut self,
        now: Now,
        mut changes: Vec<Change>,
        replies: Vec<(SessionId, RawMessage)>,
        origin: Option<(SessionId, RawMessage)>,
        again: bool,
    ) {
        debug_assert!(self.in_flight.is_none(), "one proposal at a time");
        if !self.pending_log.is_empty() {
            changes.push(Change::Log(self.pending_log.clone()));
        }
        let wanting = self.want_ids.iter();
        let ids = |run: &u64| Change::GlobalIds { run: *run, count: super::GLOBAL_IDS_STEP };
        changes.extend(wanting.map(ids));
        let data: Bytes = Proposal::new(now.wall, changes).to_bytes(F).into();
        match self.quorum.propose(now.mono, data) {
            Ok((index, term)) => {
                self.pending_log.clear();
                self.want_ids.clear();
                self.in_flight = Some(InFlight { index, term, replies, origin, again });
            }
            // Whoever leads next is asked again.
            Err(e) => {
                debug!("not proposed: {e}");
                self.waiting.extend(origin);
            }
        }
    }

    fn role_changed(&mut self, now: Now, role: Role) {
        // What an answer is owed for is asked of the next leader; it may happen twice, as in Ceph.
        let unfinished = self.in_flight.take().and_then(|f| f.origin);
        let sent = std::mem::take(&mut self.forwarded).into_values();
        let queued = std::mem::take(&mut self.queue);
        let again: Vec<_> = sent.chain(unfinished).chain(queued).collect();
        for item in again.into_iter().rev() {
            self.waiting.push_front(item);
        }
        self.waiting.retain(|(id, _)| !self.proxies.contains_key(id));
        self.announced.clear();
        self.caught_up = false;
        for id in self.proxies.keys().copied().collect::<Vec<_>>() {
            self.drop_session(now, id);
        }
        self.proxies.clear();
        self.live.quorum.since = now.mono;
        self.quorum_since = now.mono;
        self.leave_if_removed();
        match role {
            Role::Leads => self.lead(now),
            Role::Follows(leader) => debug!(leader, "follows"),
            Role::Electing => self.lost_quorum(now),
        }
    }

    fn lead(&mut self, now: Now) {
        self.live.leading_since = now.mono;
        self.live.clocks = Default::default();
        self.joining.clear();
        self.live.forget_daemons();
        self.note_osds(now);
        self.view(now, true);
        self.upkeep(now);
    }

    fn lost_quorum(&mut self, now: Now) {
        self.live.quorum.state = crate::live::MonState::Electing;
        self.live.quorum.names.clear();
        self.live.quorum.leader.clear();
        self.live.quorum.since = now.mono;
    }

    /// Looks who answers the leader, and tells everybody.
    pub(super) fn view(&mut self, now: Now, force: bool) {
        if self.quorum.role() != Role::Leads {
            return;
        }
        let quorum = self.quorum.answering(now.mono);
        let changed = quorum != self.quorum_now;
        if changed {
            self.quorum_since = now.mono;
            self.quorum_now.clone_from(&quorum);
            self.restart_clocks(now);
        }
        let due = now.mono >= self.next_view;
        if !changed && !force && !due {
            return;
        }
        self.next_view = now.mono + VIEW_EVERY;
        let age = now.mono.saturating_sub(self.quorum_since);
        let view = View { term: self.quorum.term(), quorum, age, index: self.applied };
        self.take_view(now, self.quorum.id(), &view);
        for peer in self.other_members() {
            self.tell(peer, &PeerMessage::View(view.clone()));
        }
        if changed {
            self.refresh_health(now);
        }
    }

    /// What the leader says of the quorum.
    pub(super) fn take_view(&mut self, now: Now, leader: u64, view: &View) {
        let known = |name: &&String| self.state.monmap.rank_of(name) >= 0;
        let names = |id: &u64| self.state.members.get(id).filter(known).cloned();
        let mut quorum: Vec<String> = view.quorum.iter().filter_map(names).collect();
        quorum.sort_by_key(|name| self.state.monmap.rank_of(name));
        let alone = self.state.monmap.map().ranks.len() == 1;
        self.live.quorum = crate::live::QuorumView {
            state: match self.quorum.role() {
                Role::Leads => crate::live::MonState::Leader,
                _ => crate::live::MonState::Peon,
            },
            // Ceph's are even once an election has ended, but for a lone monitor's first.
            epoch: if alone { 3 } else { (2 * view.term) as u32 },
            leader: names(&leader).unwrap_or_default(),
            names: quorum,
            since: now.mono.saturating_sub(view.age),
        };
        if self.applied >= view.index {
            self.caught_up = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::ServiceConfig;
    use crate::storage::MemoryStorage;
    use crate::{MkfsConfig, mkfs, open};

    /// Lines for the cluster log wait for a proposal that is taken.
    #[test]
    fn a_refused_proposal_loses_nothing() {
        let now = Now::default();
        let mut storage = MemoryStorage::default();
        let config = MkfsConfig {
            fsid: Default::default(),
            mons: ["a", "b", "c"].map(|n| (n.to_owned(), Default::default())).into(),
            hostname: "h".into(),
            admin_key: Default::default(),
            mgrs: vec![],
            osds: vec![],
            device_class: String::new(),
            pools: vec![],
            options: Default::default(),
            seed: [0; 32],
        };
        mkfs(&config, now, &mut storage).unwrap();
        let (state, stored) = open(&mut storage, None).unwrap();
        let config = ServiceConfig { name: "a".into(), ..ServiceConfig::default() };
        let mut service = Service::new(config, state, &stored, now);
        assert_ne!(service.quorum.role(), Role::Leads);
        service.info(now, "a line".into());
        service.want_ids.insert(5);
        service.propose(now, Vec::new(), Vec::new(), None, false);
        assert_eq!(service.pending_log.len(), 1);
        assert_eq!(service.want_ids, [5].into());
    }
}
