//! The manager: gathers what daemons report, answers the commands about it, and tells the monitor.
//!
//! Invariants: never on the data path; what it knows is rebuilt from reports after a restart, so
//! nothing is stored; the clock comes in as an argument.
#![forbid(unsafe_code)]

pub mod admin;
pub mod command;
pub mod daemons;
mod digest;
mod health;
pub mod manager;
mod pg_health;
pub mod pgmap;
pub mod server;
