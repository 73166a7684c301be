//! A librados-like client, for a Ceph cluster or a Spirula one.
//!
//! [`Cluster::connect`] gives a handle on a cluster; [`Cluster::pool`] one on the objects of a pool.
//! Every call is an `async fn` that ends when the cluster has answered; many may run at once on one
//! handle. A future that is dropped gives its request up; the cluster may still carry it out.
//!
//! Invariants: protocol decisions are in cores without I/O ([`monc`](spirula_monc), `objecter`,
//! `mgrc`); `link` alone joins them with sockets and time.
#![forbid(unsafe_code)]

pub mod argparse;
mod cluster;
pub mod conf;
mod config;
pub mod errno;
mod error;
mod ioctx;
mod limits;
mod link;
mod listing;
mod mgrc;
#[doc(hidden)]
pub mod objecter;
mod ops;

pub use cluster::{Cluster, CommandOutput, Daemon};
pub use config::{ConnectConfig, Overrides, parse_mon_host};
pub use errno::Errno;
pub use error::{Error, SetupError};
pub use ioctx::IoCtx;
pub use listing::{ALL_NAMESPACES, Listed, ObjectList};
pub use ops::{OpOutput, OpResult, ReadOp, Stat, WriteOp};

pub use spirula_maps as maps;
pub use spirula_wire::msg::mon::{GetPoolStatsReply, LogEntry, StatfsReply};
pub use spirula_wire::types::{EntityNameStr, EntityType, PgId, PoolStat, UTime, Uuid};
