//! A whole cluster in one thread, from one seed: a monitor, a target and clients on the hosts of a
//! [`SimWorld`](spirula_xstream::sim::SimWorld), with virtual time and every fault it knows.
//!
//! The daemons are the real ones: the monitor's service, the target, the monitor client and the
//! objecter. Only the drivers that tokio has elsewhere are here once more, on simulated xstreams.
//!
//! Invariant: nothing here takes time, randomness or order from anywhere but the world.
#![forbid(unsafe_code)]

pub mod check;
mod client;
mod cluster;
mod copies;
pub mod fault;
pub mod load;
mod mon;
pub mod run;

pub use client::{Client, CommandReply, OpError};
pub use cluster::{Cluster, Spec};
pub use mon::MonConfig;
