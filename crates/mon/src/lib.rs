//! The monitor: a deterministic core that keeps the cluster's maps, keys, options and log, and a
//! thin server around it.
//!
//! Entry points: [`State::apply`] (what changes the state), [`Service`] (messages in, messages
//! out), `command/table.rs` (all commands), [`mkfs`] (a new cluster).
//!
//! Invariants: sans-I/O except `storage` and `server`; time and randomness come in as arguments
//! and travel inside proposals.
#![forbid(unsafe_code)]

mod caps;
mod command;
pub mod crush_tree;
mod fullness;
#[doc(hidden)]
pub mod fuzzing;
mod health;
pub mod json;
mod kinds;
pub mod limits;
pub mod live;
mod mkfs;
pub mod options;
mod peer;
mod prime;
pub mod quorum;
pub mod server;
pub mod service;
pub mod state;
pub mod storage;
mod temps;
pub mod text;

use std::time::Duration;

pub use command::{cluster_commands, describe_commands, own_commands};
pub use mkfs::{
    MkfsConfig, MkfsError, NewOsd, NewPoolSpec, addrs_of, mkfs, mkfs_join, mkfs_peer, open,
};
pub use server::{LOG_LEVELS, LogControl, MonServer, MonServerConfig, StartError};
pub use service::{Action, Peer, Service, ServiceConfig, SessionId};
pub use state::{Change, Proposal, State};
pub use storage::{MemoryStorage, RedbStorage, Storage, StorageError, Stored};

/// The release of Ceph whose protocol and commands this is.
pub const CEPH_RELEASE: &str = "16.2.15";

/// What daemons say of their version: of the form that Ceph's tools parse.
pub fn ceph_version() -> String {
    format!("ceph version {CEPH_RELEASE} (spirula-{}) pacific (stable)", env!("CARGO_PKG_VERSION"))
}

/// One moment on two clocks: for intervals, and for what people and peers see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    pub mono: Duration,
    /// Since the Unix epoch.
    pub wall: Duration,
}
