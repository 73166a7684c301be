//! What a lossless connection and the owner of its session say to each other.
//!
//! A connection knows one socket; the session, with its cookies and its queue, lies with
//! [`Lossless`](crate::Lossless). Where the protocol speaks of the session, the connection asks, reads
//! nothing more, and goes on when it is answered.

use spirula_wire::Features;
use spirula_wire::types::{EntityAddrVec, EntityName};

/// Whom a session is with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionPeer {
    pub entity: EntityName,
    pub addrs: EntityAddrVec,
    /// What both sides support.
    pub features: Features,
}

/// A peer wants its old session back.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SessionReconnect {
    pub client_cookie: u64,
    pub server_cookie: u64,
    pub global_seq: u64,
    pub connect_seq: u64,
    /// The last message that the sender received.
    pub msg_seq: u64,
}

/// What the protocol says about the session. All but `Acked` wait for an [`Answer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// Connecting: the server has proven itself; answered by `Identify` or `Reconnect`.
    Authenticated,
    /// Connecting: a new session; answered by `Open`.
    ServerIdent { peer: SessionPeer, cookie: u64, global_seq: u64 },
    /// Connecting: the old session goes on; answered by `Open`.
    ReconnectOk { msg_seq: u64 },
    /// Connecting: the session is gone; answered by `Identify`.
    Reset { full: bool },
    /// Connecting: the server has seen this `connect_seq`; answered by `Reconnect`.
    Retry { connect_seq: u64 },
    /// Connecting: the server has seen this `global_seq`; answered by `Reconnect`.
    RetryGlobal { global_seq: u64 },
    /// Connecting: the server's own connection wins; the socket is to be closed.
    Wait,
    /// Accepting: answered by `Accept` or `Wait`.
    ClientIdent { peer: SessionPeer, cookie: u64, global_seq: u64 },
    /// Accepting: the entity that was proven, its addresses and its claim; answered by `Resume`,
    /// `Reset`, `Retry`, `RetryGlobal` or `Wait`.
    Reconnect { entity: EntityName, addrs: EntityAddrVec, claim: SessionReconnect },
    /// The peer has all messages up to this one.
    Acked { seq: u64 },
}

/// What the owner of the session has the connection do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Identify {
        cookie: u64,
        global_seq: u64,
    },
    Reconnect(SessionReconnect),
    /// Messages may flow; the last received was `in_seq`.
    Open {
        peer: SessionPeer,
        in_seq: u64,
    },
    Accept {
        cookie: u64,
        global_seq: u64,
    },
    /// The peer's old session goes on; the last message received was `in_seq`.
    Resume {
        peer: SessionPeer,
        in_seq: u64,
    },
    Reset {
        full: bool,
    },
    Retry {
        connect_seq: u64,
    },
    RetryGlobal {
        global_seq: u64,
    },
    Wait,
    /// Not an answer: acknowledge now what has been received.
    Acknowledge,
}

impl Answer {
    /// The last message received, if this opens the connection.
    pub(crate) fn opens_at(&self) -> Option<u64> {
        match self {
            Self::Open { in_seq, .. } | Self::Resume { in_seq, .. } => Some(*in_seq),
            Self::Accept { .. } => Some(0),
            _ => None,
        }
    }
}
