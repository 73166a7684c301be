//! The monitor client of every client and daemon, without I/O.
//!
//! It finds a monitor, authenticates, keeps the session and its tickets alive, keeps subscriptions
//! and unanswered requests across sessions, and hands up what the monitors send.
//!
//! Invariants: no socket, no clock, no randomness but the seed; at most one connection is open or
//! being opened; whatever concerns another connection than the current one is ignored; a request
//! is answered exactly once or cancelled.
#![forbid(unsafe_code)]

mod client;
mod config;
mod hunt;
mod requests;
mod subs;
mod tickets;

#[doc(hidden)]
pub mod fuzzing;

#[cfg(test)]
mod tests;

pub use client::{Action, ConnId, Event, MonClient};
pub use config::{Config, Timing};
pub use requests::{PoolRequest, Reply, Request};
pub use spirula_msgr_core::Now;
