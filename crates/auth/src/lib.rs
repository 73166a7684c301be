//! Authentication of every Ceph session: cephx and `none`, keyrings and capabilities.
//!
//! Invariants: sans-I/O, no clock and no randomness of its own (time and a seeded generator are
//! arguments), no `unsafe`. A secret never appears in `Debug` output or in an error.
#![forbid(unsafe_code)]

pub mod accept_mon;
pub mod accept_service;
pub mod caps;
#[cfg(test)]
mod captured;
pub mod connect;
pub mod crypto;
mod errno;
#[doc(hidden)]
pub mod fuzzing;
pub mod grant;
pub mod handshake;
pub mod keyring;
pub mod protocol;
pub mod rotating;

pub use accept_mon::{KeyServer, MonAcceptor, MonAuthConfig, handle_auth_message, own_grant};
pub use accept_service::{ServiceAcceptor, ServiceAuthConfig, ServiceSecrets};
pub use caps::{CapError, MgrCap, MonCap, OsdCap};
pub use connect::{MonConnectConfig, MonConnector, ServiceConnector};
pub use crypto::{CryptoError, CryptoKey};
pub use grant::{AuthReplyContent, MonGrant, Principal, Ticket, TicketBlob};
pub use handshake::{
    AcceptAuth, AcceptDone, AcceptStep, AuthError, AuthRequest, AuthenticatedPeer, ConMode,
    ConnectAuth, ConnectDone, METHOD_CEPHX, METHOD_NONE, WallTime,
};
pub use keyring::{EntityAuth, Keyring, KeyringError, format_entity};
pub use rotating::{ExpiringKey, RotatingSecrets, SealingKey};
