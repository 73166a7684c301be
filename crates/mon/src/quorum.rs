//! The monitors' agreement on one log: the Raft library in the shape that this crate needs.
//!
//! The library is a pure state machine that takes its log's writes for durable at once. Here they
//! are handed out as batches ([`Output::Write`]), and whatever a step asked for waits until the
//! batch that the step wrote to is durable, so one flush serves all that came meanwhile.
//!
//! What this adds to the library, since safety or progress needs it:
//! * a leader first commits an entry of its own term; before that it neither leads in the eyes of
//!   the monitor nor changes the membership (a change on top of an unknown one could end up with
//!   two majorities);
//! * a lease for reads: as long as a majority confirmed the leader less than an election timeout
//!   ago, no other leader can exist. A monitor that restarted does not know what it confirmed, so
//!   it takes no part in elections until that has run out;
//! * a leader that no majority confirms steps down, so a one-way partition ends in an election.
//!
//! Invariants: no clock and no randomness but what comes in; nothing leaves before the writes it
//! depends on are durable; a message of another monitor's than its sender says is dropped.

mod codec;
mod log;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use raft_io::{
    Action, Error, Event, Message, RaftConfig, RaftLog as _, RaftNode, RequestVoteReply,
};
use tracing::{debug, info, warn};

use crate::storage::{Stored, Write};

pub use codec::QuorumMessage;
use log::Log;

/// One step of the library's clock.
const TICK: Duration = Duration::from_millis(50);
/// A leader shows itself this often, in ticks.
const HEARTBEAT: u32 = 2;
/// Followers wait between these many ticks before they look for another leader.
const ELECTION: (u32, u32) = (10, 20);
/// Nobody who heard of a leader elects another one earlier than this.
const ELECTION_MIN: Duration = Duration::from_millis(500);
/// How long a confirmation makes a lease; less than [`ELECTION_MIN`] by what clocks may drift.
const LEASE: Duration = Duration::from_millis(400);
/// A leader whom no majority confirmed for this long is none.
const LOST_AFTER: Duration = Duration::from_millis(1000);
/// A peer that did not answer for this long is out of the quorum.
const SILENT_AFTER: Duration = Duration::from_millis(1500);
/// A fresh cluster's first monitor tries this long to lead without waiting.
const EAGER: Duration = Duration::from_secs(5);
/// How often; time enough for two flushes.
const EAGER_EVERY: Duration = Duration::from_millis(200);
/// A snapshot is not sent to the same peer again within this.
const SNAPSHOT_AGAIN: Duration = Duration::from_secs(2);
/// Entries in one message.
const BATCH: usize = 64;
/// And their bytes, but for a single one: a quarter of what one frame's data holds.
const BATCH_BYTES: usize = 32 << 20;

/// What the owner has to do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Make durable, all or nothing, then call [`Quorum::written`] with the number.
    Write(u64, Vec<Write>),
    Send(u64, QuorumMessage),
    /// Everyone's next entry.
    Committed {
        index: u64,
        term: u64,
        data: Bytes,
    },
    /// Everything up to entry `index` is replaced by this state.
    Restore {
        index: u64,
        state: Bytes,
    },
    Role(Role),
    /// Voters, by number, as of the newest entry.
    Members(Vec<u64>),
}

/// What a monitor is to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Role {
    /// It knows of no leader.
    #[default]
    Electing,
    Follows(u64),
    /// It knows all that was ever committed and may propose.
    Leads,
}

/// Why a change of the membership or a proposal was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("this monitor does not lead")]
    NotLeader,
    #[error("another change of the monitors is under way")]
    Busy,
}

/// What only a leader keeps.
#[derive(Debug)]
struct Leading {
    /// Its first own entry.
    first: u64,
    ready: bool,
    /// Since when a majority has been confirming it.
    confirmed: Duration,
    /// Question to the majority -> when it was asked.
    asked: BTreeMap<u64, Duration>,
    /// Peer -> when it answered last.
    heard: BTreeMap<u64, Duration>,
    /// Peer -> the snapshot that it was sent, and when.
    snapshots: BTreeMap<u64, (u64, Duration)>,
}

pub struct Quorum {
    node: RaftNode<Log>,
    started: Duration,
    /// Up to when the library's clock has run.
    ticked: Duration,
    /// Nothing was ever elected here before this start.
    fresh: bool,
    eager_at: Duration,
    leading: Option<Leading>,
    /// As of the last step, and as of the last output.
    role: Role,
    shown: Role,
    /// The term of that role.
    role_term: u64,
    next_question: u64,
    /// Batches handed out and batches durable.
    handed: u64,
    durable: u64,
    /// What waits for batch `.0`.
    out: VecDeque<(u64, Output)>,
}

impl Quorum {
    /// Goes on from what a store holds; `seed` makes this monitor's timeouts unlike the others'.
    pub fn new(stored: &Stored, seed: u64, now: Duration) -> Self {
        let log = Log::new(stored);
        let fresh = stored.term <= crate::storage::FIRST_TERM && stored.log.is_empty();
        // Who the members are comes with the snapshot. An empty store knows none and must not think
        // itself alone: with nobody beside it, it waits for a leader.
        let nobody = stored.snapshot.as_ref().is_none_or(|s| s.members.is_empty()).then_some(0);
        let config = RaftConfig::new(stored.node, nobody)
            .with_election_timeout(ELECTION.0, ELECTION.1)
            .with_heartbeat_interval(HEARTBEAT)
            .with_max_batch(BATCH)
            .with_seed(seed);
        let mut quorum = Self {
            node: RaftNode::with_log(config, log),
            started: now,
            ticked: now,
            fresh,
            eager_at: now,
            leading: None,
            role: Role::Electing,
            shown: Role::Electing,
            role_term: 0,
            next_question: 0,
            handed: 0,
            durable: 0,
            out: VecDeque::new(),
        };
        if quorum.is_alone() || quorum.is_eager(now) {
            quorum.campaign(now);
        }
        quorum
    }

    pub fn id(&self) -> u64 {
        self.node.id()
    }

    /// Its role, once everything before is known to the owner.
    pub fn role(&self) -> Role {
        if self.shown == self.role { self.role } else { Role::Electing }
    }

    pub fn term(&self) -> u64 {
        self.node.term()
    }

    /// Voters by number.
    pub fn members(&self) -> &[u64] {
        self.node.members()
    }

    /// Whether reads here see everything acknowledged so far.
    pub fn has_lease(&self, now: Duration) -> bool {
        let confirmed = |l: &Leading| self.is_alone() || now < l.confirmed + LEASE;
        self.role() == Role::Leads && self.leading.as_ref().is_some_and(confirmed)
    }

    /// Voters that answer this leader, itself among them.
    pub fn answering(&self, now: Duration) -> Vec<u64> {
        let Some(leading) = &self.leading else { return Vec::new() };
        let heard = |id: &u64| leading.heard.get(id).is_some_and(|at| now < *at + SILENT_AFTER);
        self.members().iter().copied().filter(|id| *id == self.id() || heard(id)).collect()
    }

    /// When [`tick`](Self::tick) is due; a lone monitor has nothing to wait for.
    pub fn poll_timeout(&self) -> Duration {
        if self.is_alone() && self.role == Role::Leads {
            return Duration::MAX;
        }
        self.ticked + TICK
    }

    pub fn tick(&mut self, now: Duration) {
        // After a long pause a few steps say all there is to say.
        let due = (now.saturating_sub(self.ticked).as_millis() / TICK.as_millis()) as u32;
        if due > ELECTION.1 {
            self.ticked = now - TICK * ELECTION.1;
        }
        for _ in 0..due.min(ELECTION.1) {
            self.ticked += TICK;
            self.step(now, Event::Tick);
        }
        if due == 0 {
            return;
        }
        if self.leading.is_some() {
            self.keep_leading(now);
        } else if self.is_eager(now) && now >= self.eager_at && self.node.leader().is_none() {
            self.campaign(now);
        }
    }

    /// A message of monitor `from`.
    pub fn message(&mut self, now: Duration, from: u64, message: QuorumMessage) {
        let message = message.0;
        if codec::sender(&message) != from {
            warn!(from, "a monitor's message names another sender");
            return;
        }
        let election = matches!(message, Message::PreVote(_) | Message::RequestVote(_));
        if election && !self.fresh && now < self.started + ELECTION_MIN {
            return;
        }
        if self.leading.is_none() {
            // Time before it must not count against the leader that it may confirm: the lease relies on that.
            self.ticked = self.ticked.max(now.saturating_sub(TICK));
        }
        let answer = matches!(
            message,
            Message::AppendEntriesReply(_)
                | Message::ReadProbeReply(_)
                | Message::InstallSnapshotReply(_)
        );
        if let Some(leading) = self.leading.as_mut().filter(|_| answer) {
            leading.heard.insert(from, now);
        }
        self.step(now, Event::Message(message));
    }

    /// Proposes an entry; its index and term, by which it is known again when committed.
    pub fn propose(&mut self, now: Duration, data: Bytes) -> Result<(u64, u64), Refused> {
        if self.role() != Role::Leads || data.is_empty() {
            return Err(Refused::NotLeader);
        }
        let at = (self.node.log().last_index() + 1, self.node.term());
        self.try_step(now, Event::Propose(data.into())).map(|()| at)
    }

    /// Adds a voter.
    pub fn add(&mut self, now: Duration, id: u64) -> Result<(), Refused> {
        self.change(now, Event::AddServer(id))
    }

    /// Removes a voter.
    pub fn remove(&mut self, now: Duration, id: u64) -> Result<(), Refused> {
        self.change(now, Event::RemoveServer(id))
    }

    fn change(&mut self, now: Duration, event: Event) -> Result<(), Refused> {
        if self.role() != Role::Leads {
            return Err(Refused::NotLeader);
        }
        self.try_step(now, event)
    }

    /// The state after entry `index`, which has been committed, as the new start of the log.
    pub fn compact(&mut self, now: Duration, index: u64, state: Bytes) {
        self.step(now, Event::Snapshot { index, data: state.into() });
    }

    /// Batch `number` is durable.
    pub fn written(&mut self, number: u64) {
        self.durable = self.durable.max(number);
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        if self.handed == self.durable {
            let batch = self.node.log().take();
            if !batch.is_empty() {
                self.handed += 1;
                return Some(Output::Write(self.handed, batch));
            }
        }
        let (gate, _) = self.out.front()?;
        if *gate > self.durable {
            return None;
        }
        let (_, output) = self.out.pop_front()?;
        if let Output::Role(role) = output {
            self.shown = role;
        }
        Some(output)
    }

    fn is_alone(&self) -> bool {
        self.members() == [self.id()]
    }

    /// The first monitor of a new cluster need not wait for a leader that never was.
    fn is_eager(&self, now: Duration) -> bool {
        let first = self.members().iter().min() == Some(&self.id());
        self.fresh && first && now < self.started + EAGER
    }

    /// Lets the election timeout pass at once.
    fn campaign(&mut self, now: Duration) {
        self.eager_at = now + EAGER_EVERY;
        for _ in 0..=ELECTION.1 {
            let waiting = self.out.len();
            self.step(now, Event::Tick);
            if self.out.len() > waiting || self.node.is_leader() {
                return;
            }
        }
    }

    fn step(&mut self, now: Duration, event: Event) {
        // A refusal only ever answers a proposal or a question.
        _ = self.try_step(now, event);
    }

    fn try_step(&mut self, now: Duration, event: Event) -> Result<(), Refused> {
        let actions = self.node.step(event).map_err(|e| match e {
            Error::ConfigInProgress => Refused::Busy,
            Error::NotLeader { .. } => Refused::NotLeader,
            other => {
                warn!("the quorum's log: {other}");
                Refused::NotLeader
            }
        })?;
        for action in actions {
            self.perform(now, action);
        }
        self.note_role(now);
        Ok(())
    }

    fn perform(&mut self, now: Duration, action: Action) {
        let output = match action {
            Action::Send { to, mut message } => {
                if self.is_repeated(now, to, &message) {
                    return;
                }
                if let Message::AppendEntries(append) = &mut message {
                    shorten(&mut append.entries);
                }
                Output::Send(to, QuorumMessage(message))
            }
            Action::Apply { index, term, command } => {
                if let Some(leading) = &mut self.leading {
                    leading.ready |= term == self.node.term() && index >= leading.first;
                }
                if command.is_empty() {
                    return;
                }
                Output::Committed { index, term, data: command.into() }
            }
            Action::RestoreSnapshot { index, data, .. } => {
                Output::Restore { index, state: data.into() }
            }
            Action::MembershipChanged { members } => Output::Members(members),
            Action::ReadReady { id, .. } => return self.confirmed(id),
            _ => return,
        };
        self.push(output);
    }

    fn push(&mut self, output: Output) {
        let gate = self.handed + u64::from(self.node.log().has_writes());
        self.out.push_back((gate, output));
    }

    /// The library offers a snapshot with every heartbeat.
    fn is_repeated(&mut self, now: Duration, to: u64, message: &Message) -> bool {
        let Message::InstallSnapshot(install) = message else {
            return false;
        };
        let Some(leading) = &mut self.leading else {
            return false;
        };
        let index = install.snapshot.index;
        let sent = leading.snapshots.get(&to);
        if sent.is_some_and(|(i, at)| *i == index && now < *at + SNAPSHOT_AGAIN) {
            return true;
        }
        leading.snapshots.insert(to, (index, now));
        false
    }

    /// Notices that this monitor became leader or ceased to be one, or follows another.
    fn note_role(&mut self, now: Duration) {
        if !self.node.is_leader() {
            self.leading = None;
        } else if self.leading.is_none() {
            debug!(term = self.node.term(), "elected");
            self.leading = Some(Leading {
                first: self.node.log().last_index() + 1,
                ready: false,
                confirmed: now,
                asked: BTreeMap::new(),
                heard: self.members().iter().map(|id| (*id, now)).collect(),
                snapshots: BTreeMap::new(),
            });
            // What tells it when it knows everything; see the head of this file.
            self.step(now, Event::Propose(Vec::new()));
        }
        let role = match &self.leading {
            Some(leading) if leading.ready => Role::Leads,
            Some(_) => Role::Electing,
            None => self.node.leader().map_or(Role::Electing, Role::Follows),
        };
        let term = self.node.term();
        // A leader that was elected again, unnoticed, knows nothing of what it was asked before.
        let again = matches!(role, Role::Follows(_)) && self.role_term != term;
        if self.role != role || again {
            info!(id = self.id(), term, ?role, "quorum");
            (self.role, self.role_term) = (role, term);
            self.push(Output::Role(role));
        }
    }

    /// Asks the majority to confirm this leader, or gives up if it has not for long.
    fn keep_leading(&mut self, now: Duration) {
        let (alone, question) = (self.is_alone(), self.next_question);
        let Some(leading) = &mut self.leading else { return };
        if alone {
            leading.confirmed = now;
            return;
        }
        if now >= leading.confirmed + LOST_AFTER {
            warn!("no majority answers; this monitor leads no more");
            // The library steps down for a later term only.
            let term = self.node.term() + 1;
            let nudge = RequestVoteReply { term, vote_granted: false, from: self.id() };
            return self.step(now, Event::Message(Message::RequestVoteReply(nudge)));
        }
        self.next_question += 1;
        leading.asked.insert(question, now);
        self.step(now, Event::Read { id: question });
    }

    fn confirmed(&mut self, question: u64) {
        let Some(leading) = &mut self.leading else { return };
        if let Some(at) = leading.asked.remove(&question) {
            leading.confirmed = leading.confirmed.max(at);
            leading.asked.retain(|_, asked| *asked > at);
        }
    }
}

/// Takes entries away from the end, which go with a later message, until they fit into one.
fn shorten(entries: &mut Vec<raft_io::LogEntry>) {
    let mut bytes = 0;
    let mut fits = |entry: &raft_io::LogEntry| {
        bytes += entry.command.len();
        bytes <= BATCH_BYTES
    };
    let fit = entries.iter().take_while(|entry| fits(entry)).count();
    entries.truncate(fit.max(1));
}
