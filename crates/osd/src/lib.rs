//! The object storage target: one OSD id, one xstream, one store.
//!
//! A request goes `front` (decode) -> `route` -> `admit` -> `write` or `read` -> `front` (reply);
//! each stage is one module.
#![forbid(unsafe_code)]
// Some of Ceph's answers are one long `json!`.
#![recursion_limit = "256"]

pub mod admin;
pub mod admit;
pub mod apply;
pub mod backoff;
pub mod boot;
pub mod boot_maps;
pub mod class;
pub mod clog;
pub mod copies;
pub mod copy;
mod devices;
pub mod errno;
pub mod filter;
pub mod front;
pub mod full;
#[doc(hidden)]
pub mod fuzzing;
pub mod heartbeat;
pub mod history;
pub mod life;
pub mod list;
pub mod load;
pub mod manifest;
pub mod mgr;
pub mod mon;
pub mod object;
pub mod op;
pub mod options;
pub mod peers;
pub mod pg;
pub mod plan;
pub mod proxy;
pub mod read;
pub mod remote;
pub mod reshape;
pub mod route;
pub mod scrub;
pub mod serve;
pub mod session;
pub mod shard;
pub mod snap;
pub mod stats;
pub mod target;
pub mod track;
pub mod view;
pub mod watch;
pub mod write;

pub use devices::DevicePaths;
pub use life::{format, run, start};
pub use target::{Target, TargetConfig, TargetError};
