//! Ceph's messenger v2 (revisions 2.0 and 2.1) as a sans-I/O state machine.
//!
//! Bytes, time and messages go in; bytes, messages and deadlines come out. See [`Connection`] for
//! the order of calls, and [`Lossless`] for sessions that outlive their sockets.
//!
//! Invariants: no socket, clock, randomness or task; every length from the peer is bounded by
//! [`Limits`]; corrupted input is an error, never a panic and never a message; nothing but the
//! handshake is looked at before the peer is authenticated.
#![forbid(unsafe_code)]

mod banner;
mod captured;
mod config;
mod connection;
mod control;
mod crc;
mod crypto;
mod error;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
mod lossless;
mod phase;
mod rx;
mod session;
mod tx;
mod wire;

pub use banner::{Banner, FEATURE_REVISION_1, Revision};
pub use config::{Config, Limits, Now, Target, Timeouts};
pub use connection::{Connection, Event, InMessage, Want};
pub use crc::{CHUNK_LEN, ceph_crc32c};
pub use error::{ApiMisuse, AuthFailure, PeerIncompatible, PeerMisbehaved, ProtocolError, Timeout};
pub use frame::Tag;
pub use lossless::{Action, ConnId, Lossless, Options, Policy, SendError, SessionId};
pub use phase::Peer;
pub use session::{Answer, SessionEvent, SessionPeer, SessionReconnect};
