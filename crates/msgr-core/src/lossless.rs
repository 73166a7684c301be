//! Sessions that outlive their sockets: between two daemons each message arrives once and in order.
//!
//! [`Lossless`] holds all sessions of one messenger. It opens a connection when there is something to
//! send, opens it again when it breaks, sends again what was not acknowledged, and decides between two
//! connections that cross. It knows connections by number only; each asks it by
//! [`SessionEvent`], and what it wants done comes out as [`Action`].
//!
//! The rules are Ceph's. A session is known by the peer's address, by two cookies (one of each side)
//! and by how often it was reconnected (`connect_seq`). `global_seq` grows with every connection of a
//! process, so that one overtaken by a later one is told from it. When both sides connect at once, the
//! connection of the higher address stays.
//!
//! Invariants: no clock and no randomness but what is passed in; a message is kept until the peer has
//! it, or until a reset says that the session is gone; what is kept is bounded by
//! [`Options::queue_bytes_max`].

mod accept;
mod session;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use spirula_wire::types::{EntityAddr, EntityAddrVec};
use spirula_wire::{Header, RawMessage};

use crate::config::Target;
use crate::session::{Answer, SessionEvent, SessionPeer, SessionReconnect};
use session::{Link, Session};

/// A session, whatever connection it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// A connection, as its owner numbers it; never used twice.
pub type ConnId = u64;

/// What happens to sessions that lose their connection or their peer's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Nothing to send: wait for something instead of connecting again.
    pub standby: bool,
    /// A peer that forgot the session makes this side forget its messages, too.
    pub reset_check: bool,
}

impl Policy {
    /// Between OSDs.
    pub const LOSSLESS_PEER: Self = Self { standby: true, reset_check: true };
    /// Between monitors: what was queued goes to the peer's new process.
    pub const LOSSLESS_PEER_REUSE: Self = Self { standby: true, reset_check: false };
    /// Keeps connecting, with nothing to send, too.
    pub const LOSSLESS_CLIENT: Self = Self { standby: false, reset_check: true };
}

#[derive(Clone, Debug)]
pub struct Options {
    /// Our addresses, which peers know our side of their sessions by.
    pub addrs: EntityAddrVec,
    pub policy: Policy,
    /// Payload of messages that one session keeps, sent or not (`spirula_peer_queue_bytes_max`).
    pub queue_bytes_max: u64,
    /// `ms_initial_backoff`.
    pub backoff_initial: Duration,
    /// `ms_max_backoff`.
    pub backoff_max: Duration,
    /// Where cookies come from.
    pub seed: u64,
}

impl Options {
    pub fn new(addrs: EntityAddrVec, seed: u64) -> Self {
        Self {
            addrs,
            policy: Policy::LOSSLESS_PEER,
            queue_bytes_max: 512 << 20,
            backoff_initial: Duration::from_millis(200),
            backoff_max: Duration::from_secs(15),
            seed,
        }
    }
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    #[error("there is no such session")]
    Unknown,
    #[error("the peer takes nothing, and its queue is full")]
    Full,
}

/// What the owner has to do.
#[derive(Debug)]
pub enum Action {
    /// Open a connection and tell its number at once: [`Lossless::dialed`].
    Dial {
        session: SessionId,
        target: Target,
    },
    Answer(ConnId, Answer),
    Transmit(ConnId, RawMessage),
    Close(ConnId),
    /// Messages flow; anew, if they did before.
    Opened(SessionId),
    /// The peer's side of the session is gone: of what was sent before, nothing more arrives.
    Reset(SessionId),
}

/// The lossless sessions of one messenger.
pub struct Lossless {
    options: Options,
    sessions: BTreeMap<SessionId, Session>,
    by_addr: BTreeMap<AddrKey, SessionId>,
    /// The one connection that each session has, if any.
    by_conn: BTreeMap<ConnId, SessionId>,
    actions: VecDeque<Action>,
    last_session: u64,
    global_seq: u64,
    cookies: u64,
}

impl Lossless {
    pub fn new(options: Options) -> Self {
        Self {
            cookies: options.seed,
            options,
            sessions: BTreeMap::new(),
            by_addr: BTreeMap::new(),
            by_conn: BTreeMap::new(),
            actions: VecDeque::new(),
            last_session: 0,
            global_seq: 0,
        }
    }

    /// The session with the process at these addresses. It connects when there is something to send.
    pub fn session(&mut self, peer: SessionPeer) -> Option<SessionId> {
        let addr = peer.addrs.msgr2()?;
        if let Some(id) = self.by_addr.get(&AddrKey::of(&addr)) {
            return Some(*id);
        }
        Some(self.insert(addr, peer))
    }

    fn insert(&mut self, addr: EntityAddr, peer: SessionPeer) -> SessionId {
        self.last_session += 1;
        let id = SessionId(self.last_session);
        self.by_addr.insert(AddrKey::of(&addr), id);
        self.sessions.insert(id, Session::new(addr, peer));
        id
    }

    /// Whom a session is with.
    pub fn peer(&self, id: SessionId) -> Option<&SessionPeer> {
        self.sessions.get(&id).map(|s| &s.peer)
    }

    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, &SessionPeer)> {
        self.sessions.iter().map(|(id, s)| (*id, &s.peer))
    }

    /// Payload bytes that a session keeps.
    pub fn queued_bytes(&self, id: SessionId) -> u64 {
        self.sessions.get(&id).map_or(0, |s| s.bytes)
    }

    /// Queues a message.
    pub fn send(&mut self, id: SessionId, message: RawMessage) -> Result<(), SendError> {
        let max = self.options.queue_bytes_max;
        let session = self.sessions.get_mut(&id).ok_or(SendError::Unknown)?;
        let len = session::payload_len(&message);
        if session.bytes > 0 && session.bytes.saturating_add(len) > max {
            return Err(SendError::Full);
        }
        session.push(message, len);
        match session.link {
            Link::Open(conn) => session.transmit(conn, &mut self.actions),
            Link::Standby => {
                if session.server_cookie != 0 {
                    session.connect_seq = session.connect_seq.saturating_add(1);
                }
                self.dial(id);
            }
            Link::Dialing(_) | Link::Backoff { .. } => {}
        }
        Ok(())
    }

    /// Acknowledges what was received and not acknowledged yet; now and then is enough.
    pub fn acknowledge(&mut self) {
        for session in self.sessions.values() {
            if let Link::Open(conn) = session.link {
                self.actions.push_back(Action::Answer(conn, Answer::Acknowledge));
            }
        }
    }

    /// Forgets a session and what it keeps.
    pub fn close(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.remove(&id) {
            self.by_addr.remove(&AddrKey::of(&session.addr));
            self.drop_conn(&session);
        }
    }

    fn drop_conn(&mut self, session: &Session) {
        if let Some(conn) = session.link.conn() {
            self.by_conn.remove(&conn);
            self.actions.push_back(Action::Close(conn));
        }
    }

    /// The connection that [`Action::Dial`] asked for is on its way.
    pub fn dialed(&mut self, id: SessionId, conn: ConnId) {
        match self.sessions.get_mut(&id) {
            Some(session) if session.link == Link::Dialing(None) => {
                session.link = Link::Dialing(Some(conn));
                self.by_conn.insert(conn, id);
            }
            _ => self.actions.push_back(Action::Close(conn)),
        }
    }

    /// Where a connection that is being opened goes to.
    pub fn dialed_addr(&self, conn: ConnId) -> Option<EntityAddr> {
        let session = self.sessions.get(self.by_conn.get(&conn)?)?;
        matches!(session.link, Link::Dialing(_)).then_some(session.addr)
    }

    /// The connection that [`Action::Dial`] asked for cannot be opened now.
    pub fn not_dialed(&mut self, now: Duration, id: SessionId) {
        let (initial, max) = (self.options.backoff_initial, self.options.backoff_max);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.fall_back(now, initial, max);
        }
    }

    /// A connection asks.
    pub fn asked(&mut self, now: Duration, conn: ConnId, event: SessionEvent) {
        match event {
            SessionEvent::ClientIdent { peer, cookie, global_seq } => {
                self.client_ident(conn, peer, cookie, global_seq);
            }
            SessionEvent::Reconnect { entity, addrs, claim } => {
                self.reconnect(conn, entity, &addrs, &claim);
            }
            SessionEvent::Acked { seq } => {
                if let Some(session) = self.of_conn(conn) {
                    session.acked(seq);
                }
            }
            event => self.answered(now, conn, event),
        }
    }

    fn of_conn(&mut self, conn: ConnId) -> Option<&mut Session> {
        let id = self.by_conn.get(&conn)?;
        self.sessions.get_mut(id)
    }

    /// The server of a connection that we opened has said something.
    fn answered(&mut self, now: Duration, conn: ConnId, event: SessionEvent) {
        let Some(&id) = self.by_conn.get(&conn) else {
            return self.actions.push_back(Action::Close(conn));
        };
        let next_cookie = self.next_cookie();
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        match event {
            SessionEvent::ServerIdent { peer, cookie, global_seq } => {
                session.begin(peer, cookie, global_seq);
                return self.opened(id, conn);
            }
            SessionEvent::ReconnectOk { msg_seq } => {
                session.discard_up_to(msg_seq);
                return self.opened(id, conn);
            }
            SessionEvent::Wait => return self.told_to_wait(now, id, conn),
            SessionEvent::Reset { full: true } => {
                session.reset();
                self.actions.push_back(Action::Reset(id));
            }
            SessionEvent::Reset { full: false } => session.forget_server(),
            SessionEvent::Retry { connect_seq } => {
                session.connect_seq = connect_seq.saturating_add(1);
            }
            SessionEvent::RetryGlobal { global_seq } => {
                self.global_seq = self.global_seq.max(global_seq).saturating_add(1);
                session.global_seq = self.global_seq;
            }
            _ => {}
        }
        let answer = session.introduction(next_cookie);
        self.actions.push_back(Action::Answer(conn, answer));
    }

    /// Our connection loses against the peer's, which should come soon.
    fn told_to_wait(&mut self, now: Duration, id: SessionId, conn: ConnId) {
        self.by_conn.remove(&conn);
        self.actions.push_back(Action::Close(conn));
        let until = now + self.options.backoff_max;
        if let Some(session) = self.sessions.get_mut(&id) {
            session.backoff = self.options.backoff_max;
            session.link = Link::Backoff { until };
        }
    }

    /// Our connection is accepted.
    fn opened(&mut self, id: SessionId, conn: ConnId) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let answer = Answer::Open { peer: session.peer.clone(), in_seq: session.in_seq };
        self.open(id, conn, answer);
    }

    fn open(&mut self, id: SessionId, conn: ConnId, answer: Answer) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.link = Link::Open(conn);
        session.backoff = Duration::ZERO;
        session.wanted = false;
        self.actions.push_back(Action::Answer(conn, answer));
        self.actions.push_back(Action::Opened(id));
        session.transmit(conn, &mut self.actions);
    }

    /// A message came on a connection; the session it is for, if it is new.
    pub fn received(&mut self, conn: ConnId, header: &Header) -> Option<SessionId> {
        let id = *self.by_conn.get(&conn)?;
        let session = self.sessions.get_mut(&id)?;
        session.acked(header.ack_seq);
        if session.link != Link::Open(conn) || header.seq <= session.in_seq {
            return None;
        }
        session.in_seq = header.seq;
        Some(id)
    }

    /// A connection has ended, or could not be opened.
    pub fn closed(&mut self, now: Duration, conn: ConnId) {
        let Some(id) = self.by_conn.remove(&conn) else {
            return;
        };
        let (policy, initial, max) =
            (self.options.policy, self.options.backoff_initial, self.options.backoff_max);
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let was_open = matches!(session.link, Link::Open(_));
        session.requeue();
        if policy.standby && session.queue.is_empty() && !session.wanted {
            session.link = Link::Standby;
            session.backoff = Duration::ZERO;
            return;
        }
        if session.server_cookie != 0 {
            session.connect_seq = session.connect_seq.saturating_add(1);
        }
        if was_open {
            session.backoff = Duration::ZERO;
            self.dial(id);
        } else {
            session.fall_back(now, initial, max);
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.sessions.values().filter_map(|s| s.link.until()).min()
    }

    /// Tries again what waited long enough.
    pub fn handle_timeout(&mut self, now: Duration) {
        let due = |s: &Session| s.link.until().is_some_and(|until| until <= now);
        let due: Vec<SessionId> =
            self.sessions.iter().filter(|(_, s)| due(s)).map(|(id, _)| *id).collect();
        due.into_iter().for_each(|id| self.dial(id));
    }

    fn dial(&mut self, id: SessionId) {
        let global_seq = self.next_global_seq();
        if let Some(session) = self.sessions.get_mut(&id) {
            session.global_seq = global_seq;
            session.link = Link::Dialing(None);
            let target = Target { type_: session.peer.entity.type_, addr: session.addr };
            self.actions.push_back(Action::Dial { session: id, target });
        }
    }

    /// Whether [`Self::poll_action`] would yield anything.
    pub fn has_actions(&self) -> bool {
        !self.actions.is_empty()
    }

    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn next_global_seq(&mut self) -> u64 {
        self.global_seq = self.global_seq.saturating_add(1);
        self.global_seq
    }

    /// Not 0. The sequence is a bijection of a counter (splitmix64), so that no cookie comes twice.
    fn next_cookie(&mut self) -> u64 {
        loop {
            self.cookies = self.cookies.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.cookies;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            if z != 0 {
                return z;
            }
        }
    }
}

/// An address as Ceph compares it: the bytes of its structure in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct AddrKey([u8; 36]);

impl AddrKey {
    fn of(addr: &EntityAddr) -> Self {
        Self(addr.memory_order())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_compare_as_ceph_compares_their_bytes() {
        let less = [
            ("v2:10.0.0.9:6800/256", "v2:10.0.0.1:6800/1"),
            ("v2:10.0.0.1:6800/1", "v2:10.0.0.1:6801/1"),
            ("v2:9.0.0.1:6800/1", "v2:10.0.0.1:6800/1"),
            ("v2:10.0.0.1:6800/1", "v2:[::1]:6800/1"),
        ];
        for (a, b) in less {
            let key = |text: &str| AddrKey::of(&text.parse().unwrap());
            assert!(key(a) < key(b), "{a} < {b}");
        }
    }
}
