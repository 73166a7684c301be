//! Authentication of every Ceph session: cephx and `none`, keyrings and capabilities.
//!
//! Invariants: sans-I/O, no clock and no randomness of its own (time and a seeded generator are
//! arguments), no `unsafe`. A secret never appears in `Debug` output or in an error.
#![forbid(unsafe_code)]

pub mod crypto;
pub mod grant;
pub mod handshake;

pub use crypto::{CryptoError, CryptoKey};
pub use grant::{MonGrant, Ticket, TicketBlob};
pub use handshake::{
    AcceptAuth, AcceptDone, AcceptStep, AuthError, AuthRequest, AuthenticatedPeer, ConMode,
    ConnectAuth, ConnectDone, METHOD_CEPHX, METHOD_NONE, WallTime,
};
