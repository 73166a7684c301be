//! One session: its cookies and counters, and the messages that the peer may not have.

use std::collections::VecDeque;
use std::time::Duration;

use spirula_wire::RawMessage;
use spirula_wire::types::EntityAddr;

use super::{Action, ConnId};
use crate::session::{Answer, SessionPeer, SessionReconnect};

/// What a session does about its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// Nothing; there is nothing to send.
    Standby,
    /// One is being opened (`None`: is to be opened).
    Dialing(Option<ConnId>),
    Open(ConnId),
    /// It waits before it tries again.
    Backoff {
        until: Duration,
    },
}

impl Link {
    pub(super) fn conn(self) -> Option<ConnId> {
        match self {
            Self::Open(conn) => Some(conn),
            Self::Dialing(conn) => conn,
            Self::Standby | Self::Backoff { .. } => None,
        }
    }

    pub(super) fn until(self) -> Option<Duration> {
        match self {
            Self::Backoff { until } => Some(until),
            _ => None,
        }
    }
}

pub(super) struct Session {
    /// Where we connect to, and what the peer is known by.
    pub(super) addr: EntityAddr,
    pub(super) peer: SessionPeer,
    pub(super) link: Link,
    /// Of the side that opened the session, whoever opens its next connection.
    pub(super) client_cookie: u64,
    pub(super) server_cookie: u64,
    pub(super) connect_seq: u64,
    /// Of our connection on its way.
    pub(super) global_seq: u64,
    pub(super) peer_global_seq: u64,
    /// The last message received.
    pub(super) in_seq: u64,
    /// The last message numbered.
    out_seq: u64,
    /// On a connection, not acknowledged; their numbers end at `out_seq`.
    sent: VecDeque<RawMessage>,
    /// Not on any connection. Those that were have their numbers, which begin after `out_seq`; the
    /// others have 0.
    pub(super) queue: VecDeque<RawMessage>,
    pub(super) bytes: u64,
    pub(super) backoff: Duration,
    /// The peer has something for us and waits for our connection.
    pub(super) wanted: bool,
}

impl Session {
    pub(super) fn new(addr: EntityAddr, peer: SessionPeer) -> Self {
        Self {
            addr,
            peer,
            link: Link::Standby,
            client_cookie: 0,
            server_cookie: 0,
            connect_seq: 0,
            global_seq: 0,
            peer_global_seq: 0,
            in_seq: 0,
            out_seq: 0,
            sent: VecDeque::new(),
            queue: VecDeque::new(),
            bytes: 0,
            backoff: Duration::ZERO,
            wanted: false,
        }
    }

    pub(super) fn push(&mut self, mut message: RawMessage, len: u64) {
        message.header.seq = 0;
        self.bytes += len;
        self.queue.push_back(message);
    }

    /// Sends what is queued. A copy is kept; its payload is shared.
    pub(super) fn transmit(&mut self, conn: ConnId, actions: &mut VecDeque<Action>) {
        while let Some(mut message) = self.queue.pop_front() {
            self.out_seq += 1;
            message.header.seq = self.out_seq;
            self.sent.push_back(message.clone());
            actions.push_back(Action::Transmit(conn, message));
        }
    }

    /// The peer has all up to `seq`.
    pub(super) fn acked(&mut self, seq: u64) {
        while let Some(message) = self.sent.front()
            && message.header.seq <= seq
        {
            self.bytes -= payload_len(message);
            self.sent.pop_front();
        }
    }

    /// The connection is gone: what the peer may not have is sent again, before all else.
    pub(super) fn requeue(&mut self) {
        self.out_seq -= self.sent.len() as u64;
        while let Some(message) = self.sent.pop_back() {
            self.queue.push_front(message);
        }
    }

    /// Of what was requeued, the peer turns out to have all up to `seq`.
    pub(super) fn discard_up_to(&mut self, seq: u64) {
        while let Some(message) = self.queue.front()
            && message.header.seq != 0
            && message.header.seq <= seq
        {
            self.out_seq = message.header.seq;
            self.bytes -= payload_len(message);
            self.queue.pop_front();
        }
    }

    /// A new session begins: both sides count from 1, and what was not acknowledged comes first.
    pub(super) fn begin(&mut self, peer: SessionPeer, server_cookie: u64, global_seq: u64) {
        self.peer = peer;
        self.server_cookie = server_cookie;
        self.peer_global_seq = global_seq;
        self.in_seq = 0;
        self.out_seq = 0;
        self.queue.iter_mut().for_each(|message| message.header.seq = 0);
    }

    /// The peer was never told our cookie: it is a new session with the same messages.
    pub(super) fn forget_server(&mut self) {
        self.server_cookie = 0;
        self.connect_seq = 0;
        self.in_seq = 0;
    }

    /// The peer has forgotten the session.
    pub(super) fn reset(&mut self) {
        self.forget_server();
        self.client_cookie = 0;
        self.peer_global_seq = 0;
        self.out_seq = 0;
        self.sent.clear();
        self.queue.clear();
        self.bytes = 0;
    }

    /// Waits before it connects again, longer each time.
    pub(super) fn fall_back(&mut self, now: Duration, initial: Duration, max: Duration) {
        self.backoff = (self.backoff * 2).clamp(initial, max);
        self.link = Link::Backoff { until: now + self.backoff };
    }

    /// How a connection of ours introduces itself.
    pub(super) fn introduction(&mut self, next_cookie: u64) -> Answer {
        if self.server_cookie != 0 {
            return Answer::Reconnect(SessionReconnect {
                client_cookie: self.client_cookie,
                server_cookie: self.server_cookie,
                global_seq: self.global_seq,
                connect_seq: self.connect_seq,
                msg_seq: self.in_seq,
            });
        }
        if self.client_cookie == 0 {
            self.client_cookie = next_cookie;
        }
        Answer::Identify { cookie: self.client_cookie, global_seq: self.global_seq }
    }
}

pub(super) fn payload_len(message: &RawMessage) -> u64 {
    let p = &message.payload;
    (p.front.len() + p.middle.len() + p.data_len()) as u64
}
