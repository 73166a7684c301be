//! The seam between the messenger and authentication: two traits, one per side of a connection.
//!
//! The messenger moves AUTH_REQUEST, AUTH_REPLY_MORE, AUTH_REQUEST_MORE, AUTH_BAD_METHOD and
//! AUTH_DONE frames and knows nothing of what is in their payloads; an implementation of
//! [`AcceptAuth`] or [`ConnectAuth`] knows nothing of frames.
//!
//! Order of calls, connecting side: `request`, then per answer one of `bad_method` (with a new
//! request or the end), `more` (with the next payload), `done`. Accepting side: `request`, then
//! `more` until the step is `Done` or `Bad`. An object serves one connection attempt.

use std::fmt;
use std::time::Duration;

use spirula_wire::DecodeError;
use spirula_wire::types::EntityNameStr;

use crate::crypto::{CryptoError, CryptoKey};
use crate::grant::MonGrant;

/// Time since the Unix epoch, as the caller's clock tells it.
pub type WallTime = Duration;

/// `CEPH_AUTH_NONE`.
pub const METHOD_NONE: u32 = 1;
/// `CEPH_AUTH_CEPHX`.
pub const METHOD_CEPHX: u32 = 2;

/// How the frames after the handshake are protected (`CEPH_CON_MODE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ConMode {
    Crc = 1,
    Secure = 2,
}

impl ConMode {
    pub fn from_wire(value: u32) -> Option<Self> {
        match value {
            1 => Some(Self::Crc),
            2 => Some(Self::Secure),
            _ => None,
        }
    }

    /// The first of the peer's preferences that is allowed here.
    pub fn pick(preferred: &[u32], allowed: &[Self]) -> Option<Self> {
        preferred.iter().filter_map(|&m| Self::from_wire(m)).find(|m| allowed.contains(m))
    }

    /// Bytes of connection secret that the mode needs.
    pub fn secret_len(self) -> usize {
        match self {
            Self::Crc => 0,
            Self::Secure => 64,
        }
    }
}

/// The accepting side of authentication.
pub trait AcceptAuth: Send {
    /// Handles AUTH_REQUEST.
    fn request(&mut self, now: WallTime, method: u32, modes: &[u32], payload: &[u8]) -> AcceptStep;

    /// Handles AUTH_REQUEST_MORE.
    fn more(&mut self, now: WallTime, payload: &[u8]) -> AcceptStep;
}

/// What the accepting side sends next.
#[derive(Debug)]
pub enum AcceptStep {
    /// AUTH_REPLY_MORE with this payload.
    More(Vec<u8>),
    /// AUTH_DONE; the session is authenticated.
    Done(AcceptDone),
    /// AUTH_BAD_METHOD. The peer may try again on the same connection.
    Bad { result: i32, allowed_methods: Vec<u32>, allowed_modes: Vec<u32> },
    /// Nothing: the connection ends. There is no saying yet who may come in, and the peer, which takes
    /// each refusal for the last word, comes again.
    NotYet,
}

/// A finished handshake, accepting side.
pub struct AcceptDone {
    pub global_id: u64,
    pub mode: ConMode,
    /// Payload of AUTH_DONE.
    pub payload: Vec<u8>,
    /// Key of AUTH_SIGNATURE; empty with `none`, where the signature is 32 zero bytes.
    pub session_key: CryptoKey,
    /// [`ConMode::secret_len`] bytes.
    pub connection_secret: Vec<u8>,
    pub peer: AuthenticatedPeer,
}

/// Whom the handshake proved the peer to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthenticatedPeer {
    pub name: EntityNameStr,
    pub global_id: u64,
    /// Capabilities for the accepting service, in the text form of the keyring; may be empty.
    pub caps: String,
    /// All is allowed, whatever `caps` says (auth `none`).
    pub allow_all: bool,
    /// When the ticket that proved it ends.
    pub expires: WallTime,
    /// The challenge of this handshake, for later renewal of the AUTH ticket; 0 but on monitors.
    pub server_challenge: u64,
}

/// The connecting side of authentication.
pub trait ConnectAuth: Send {
    /// The AUTH_REQUEST to open with.
    fn request(&mut self) -> AuthRequest;

    /// Handles AUTH_BAD_METHOD: another request, or the reason to give up.
    fn bad_method(
        &mut self,
        method: u32,
        result: i32,
        allowed_methods: &[u32],
        allowed_modes: &[u32],
    ) -> Result<AuthRequest, AuthError>;

    /// Handles AUTH_REPLY_MORE; returns the payload of AUTH_REQUEST_MORE.
    fn more(&mut self, payload: &[u8]) -> Result<Vec<u8>, AuthError>;

    /// Handles AUTH_DONE.
    fn done(
        &mut self,
        now: WallTime,
        global_id: u64,
        mode: ConMode,
        payload: &[u8],
    ) -> Result<ConnectDone, AuthError>;
}

/// Contents of an AUTH_REQUEST frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthRequest {
    pub method: u32,
    /// Connection modes, preferred first.
    pub modes: Vec<u32>,
    pub payload: Vec<u8>,
}

/// A finished handshake, connecting side.
#[derive(Default)]
pub struct ConnectDone {
    /// Key of AUTH_SIGNATURE; empty with `none`, where the signature is 32 zero bytes.
    pub session_key: CryptoKey,
    /// [`ConMode::secret_len`] bytes.
    pub connection_secret: Vec<u8>,
    /// What a monitor granted. The messenger hands it up with its "ready" event, unopened.
    pub grant: Option<Box<MonGrant>>,
}

/// Why the connecting side gave up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    #[error("the server refused method {method} with {result}; it allows {allowed:?}")]
    Refused { method: u32, result: i32, allowed: Vec<u32> },
    #[error("the server answered with error {0}")]
    Status(i32),
    #[error("the server's proof is wrong: it does not hold the shared key")]
    BadProof,
    #[error("the server chose connection mode {0}, which was not offered")]
    BadMode(u32),
    #[error("no ticket for service {service}")]
    NoTicket { service: u32 },
    #[error("an authentication frame came out of order")]
    OutOfOrder,
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl fmt::Debug for AcceptDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcceptDone")
            .field("mode", &self.mode)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ConnectDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectDone").field("grant", &self.grant).finish_non_exhaustive()
    }
}
