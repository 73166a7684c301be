//! The handshake as states that are consumed: each takes the one frame it expects and returns the
//! next state, so that a stale state cannot be used.
//!
//! ```text
//! accepting   Hello -> Request <-> More -> Signature -> Ident -> Open
//! connecting  Hello -> Auth               -> Signature -> Ident -> Open
//! ```
//! The banner comes before; it is not a frame. Of a lossless session the owner decides what follows
//! an identification: the state is then `Decide`, and an answer leads on from there.

pub(crate) mod accept;
pub(crate) mod connect;

use spirula_auth::{AcceptAuth, AuthenticatedPeer, ConMode, ConnectAuth, MonGrant};
use spirula_wire::Features;
use spirula_wire::types::{EntityAddr, EntityAddrVec, EntityName};

use crate::banner::Revision;
use crate::config::{Config, Now, Target};
use crate::control::Control;
use crate::error::{ApiMisuse, PeerMisbehaved, ProtocolError};
use crate::session::{Answer, SessionEvent, SessionPeer};
use crate::wire::Wire;

/// A finished handshake: whom we talk to, and how.
#[derive(Debug)]
pub struct Peer {
    /// Type from the HELLO, number from the identification. An accepting side that is told -1
    /// fills in the global id.
    pub entity: EntityName,
    /// What it calls its addresses.
    pub addrs: EntityAddrVec,
    /// Where its socket is: what a capability's `network` means, since a peer may claim any address.
    pub socket_addr: EntityAddr,
    /// What both sides support.
    pub features: Features,
    pub global_id: u64,
    pub global_seq: u64,
    pub mode: ConMode,
    pub revision: Revision,
    /// Our address as the peer sees it.
    pub my_addr: EntityAddr,
    /// Whether the accepting side calls the session lossy.
    pub lossy: bool,
    /// Accepting side: whom the handshake proved the peer to be.
    pub auth: Option<AuthenticatedPeer>,
    /// Connecting side: what a monitor granted.
    pub grant: Option<Box<MonGrant>>,
}

/// What a state may touch.
pub(crate) struct Cx<'a> {
    pub(crate) wire: &'a mut Wire,
    pub(crate) config: &'a Config,
    pub(crate) now: Now,
    /// A question to the owner of the session, which the next state waits for.
    pub(crate) asked: Option<SessionEvent>,
}

pub(crate) enum Phase {
    /// Waits for the banner.
    Banner(Role),
    AcceptHello(accept::Hello),
    AcceptRequest(accept::Request),
    AcceptMore(accept::More),
    AcceptSignature(accept::Signature),
    AcceptIdent(accept::Ident),
    AcceptDecide(accept::Decide),
    ConnectHello(connect::Hello),
    ConnectAuth(connect::Auth),
    ConnectSignature(connect::Signature),
    ConnectIdent(connect::Ident),
    ConnectDecide(connect::Decide),
    /// The handshake just finished.
    Ready(Box<Peer>),
    Open,
    Closed,
}

/// What the two sides bring along.
pub(crate) enum Role {
    Accept { auth: Box<dyn AcceptAuth>, peer_addr: EntityAddr },
    Connect { auth: Box<dyn ConnectAuth>, target: Target },
}

impl Role {
    /// The peer's banner was read: sends HELLO.
    pub(crate) fn hello(self, cx: &mut Cx<'_>) -> Result<Phase, ProtocolError> {
        let (addr, next) = match self {
            Self::Accept { auth, peer_addr } => {
                (peer_addr, Phase::AcceptHello(accept::Hello { auth, peer_addr }))
            }
            Self::Connect { auth, target } => {
                (target.addr, Phase::ConnectHello(connect::Hello { auth, target }))
            }
        };
        cx.wire.send(&Control::Hello { type_: cx.config.name.type_, addr })?;
        Ok(next)
    }
}

impl Phase {
    /// Takes a control frame during the handshake.
    pub(crate) fn step(self, frame: Control, cx: &mut Cx<'_>) -> Result<Self, ProtocolError> {
        match self {
            Self::AcceptHello(s) => s.step(frame, cx),
            Self::AcceptRequest(s) => s.step(frame, cx),
            Self::AcceptMore(s) => s.step(frame, cx),
            Self::AcceptSignature(s) => s.step(frame, cx),
            Self::AcceptIdent(s) => s.step(frame, cx),
            Self::ConnectHello(s) => s.step(frame, cx),
            Self::ConnectAuth(s) => s.step(frame, cx),
            Self::ConnectSignature(s) => s.step(frame, cx),
            Self::ConnectIdent(s) => s.step(frame, cx),
            Self::Banner(_)
            | Self::AcceptDecide(_)
            | Self::ConnectDecide(_)
            | Self::Ready(_)
            | Self::Open
            | Self::Closed => unexpected(&frame),
        }
    }
}

impl Phase {
    /// Takes what the owner of the session decided.
    pub(crate) fn answer(self, answer: Answer, cx: &mut Cx<'_>) -> Result<Self, ProtocolError> {
        match self {
            Self::AcceptDecide(s) => s.answer(answer, cx),
            Self::ConnectDecide(s) => s.answer(answer, cx),
            _ => unwanted(),
        }
    }
}

fn unwanted<T>() -> Result<T, ProtocolError> {
    Err(ProtocolError::Misuse(ApiMisuse::UnwantedAnswer))
}

/// The peer of a session, as a handshake that did not name it is completed.
fn known(peer: SessionPeer) -> (EntityName, EntityAddrVec, Features) {
    (peer.entity, peer.addrs, peer.features)
}

fn unexpected<T>(frame: &Control) -> Result<T, ProtocolError> {
    Err(PeerMisbehaved::Unexpected(frame.tag()).into())
}

/// The same socket address and process; the protocol type may be left open by one side.
fn same_endpoint(a: &EntityAddr, b: &EntityAddr) -> bool {
    a.addr == b.addr && a.nonce == b.nonce
}
