//! Why a connection cannot go on, sorted by who is to blame.

use spirula_auth::AuthError;
use spirula_wire::DecodeError;

use crate::frame::Tag;

/// The end of a connection that the protocol core itself decided.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    #[error("peer broke the protocol: {0}")]
    Peer(#[from] PeerMisbehaved),
    #[error("peer is incompatible: {0}")]
    Incompatible(#[from] PeerIncompatible),
    #[error("authentication failed: {0}")]
    Auth(#[from] AuthFailure),
    #[error("timed out: {0}")]
    Timeout(Timeout),
    #[error("the owner of the connection misused it: {0}")]
    Misuse(ApiMisuse),
}

/// The peer, or the network between, sent what it must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerMisbehaved {
    #[error("bad CRC of a frame preamble")]
    PreambleCrc,
    #[error("bad CRC of frame segment {segment}")]
    SegmentCrc { segment: u8 },
    #[error("a frame has {count} segments")]
    SegmentCount { count: u8 },
    #[error("the last of several segments is empty")]
    EmptySegment,
    #[error("frame segment {segment} has {len} bytes, the limit is {max}")]
    TooLong { segment: u8, len: u32, max: u32 },
    #[error("the handshake exceeds {max} bytes")]
    HandshakeTooLong { max: usize },
    #[error("unknown frame tag {0}")]
    UnknownTag(u8),
    #[error("unknown frame flags {0:#x}")]
    UnknownFlags(u8),
    #[error("frame {0:?} is out of place here")]
    Unexpected(Tag),
    #[error("late status {0:#x} is neither complete nor aborted")]
    LateStatus(u8),
    #[error("a frame does not authenticate")]
    Decryption,
    #[error("the signature of the handshake is wrong")]
    Signature,
    #[error("the session key went through all its nonces")]
    NoncesExhausted,
    #[error("the banner is malformed")]
    Banner,
    #[error("the peer identifies without an address")]
    NoAddress,
    #[error("the peer is a {got}, expected a {expected}")]
    WrongType { got: u8, expected: u8 },
    #[error("the peer identifies as another daemon than it proved to be")]
    WrongIdentity,
    #[error("the peer wanted to reach somebody else")]
    WrongTarget,
    #[error("the server asked to wait")]
    Wait,
    #[error("the server keeps no session")]
    Lossy,
    #[error("too many authentication attempts")]
    AuthAttempts,
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// The peer speaks another protocol, or lacks something we need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerIncompatible {
    #[error("it speaks the legacy messenger v1 (\"ceph v027\"); point it at the v2 port")]
    LegacyMessenger,
    #[error("it does not speak the Ceph messenger")]
    NotCeph,
    #[error("it requires the messenger features {0:#x}")]
    MessengerFeatures(u64),
    #[error("it lacks the required features {0:#x}")]
    MissingFeatures(u64),
    #[error("it requires features {0:#x}, which we lack")]
    RequiredFeatures(u64),
}

/// Authentication did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthFailure {
    /// Our own connector gave up.
    #[error(transparent)]
    Connector(#[from] AuthError),
    #[error("the server chose the unknown connection mode {0}")]
    UnknownMode(u32),
    #[error("the connection secret has {0} bytes, too few for the mode")]
    ShortSecret(usize),
    /// Our own acceptor cannot tell.
    #[error("nobody can be let in yet")]
    NotYet,
}

/// Which wait was too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Timeout {
    #[error("the handshake did not finish")]
    Handshake,
    #[error("nothing was received")]
    Idle,
    #[error("a keepalive was not acknowledged")]
    Keepalive,
}

/// Calls that the caller must not make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiMisuse {
    #[error("a body was handed in when none of that length was wanted")]
    UnwantedBody,
    #[error("the connection has ended already")]
    Closed,
    #[error("an answer that nothing asked for, or that does not fit")]
    UnwantedAnswer,
}

impl From<DecodeError> for ProtocolError {
    fn from(e: DecodeError) -> Self {
        Self::Peer(e.into())
    }
}

impl From<AuthError> for ProtocolError {
    fn from(e: AuthError) -> Self {
        Self::Auth(e.into())
    }
}
