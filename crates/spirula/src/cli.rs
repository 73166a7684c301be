//! The client tools: `spirula rados`, `spirula ceph`, `spirula load`.
//!
//! Invariant: they stand on the client crate alone, so they work against any Ceph cluster; outputs,
//! messages and exit codes follow Ceph's own tools where there is one.

mod bench;
mod ceph;
mod connect;
mod daemon;
mod general;
mod load;
mod progress;
mod rados;
mod report;

pub(crate) use ceph::{Args as CephArgs, run as ceph};
pub(crate) use general::with_ceph_args;
pub(crate) use load::{Args as LoadArgs, run as load};
pub(crate) use rados::{Args as RadosArgs, run as rados};
