//! Every bound of this crate in one place.

use std::time::Duration;

/// Requests to OSDs in flight at once (`objecter_inflight_ops`).
pub(crate) const INFLIGHT_OPS_MAX: usize = 1024;
/// Bytes of requests to OSDs in flight at once (`objecter_inflight_op_bytes`).
pub(crate) const INFLIGHT_BYTES_MAX: u64 = 100 << 20;
/// Looks after requests that take long (`objecter_tick_interval`).
pub(crate) const TICK: Duration = Duration::from_secs(5);
/// A request is slow after this long (`objecter_timeout`).
pub(crate) const LAGGY_AFTER: Duration = Duration::from_secs(10);
/// Pauses between attempts to reach one daemon (`ms_initial_backoff`, `ms_max_backoff`).
pub(crate) const BACKOFF_MIN: Duration = Duration::from_millis(200);
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(15);
/// Backoffs that one OSD may have in force on one session.
pub(crate) const BACKOFFS_MAX: usize = 65_536;
/// Objects asked for in one listing request.
pub(crate) const LIST_PAGE: u64 = 1024;
/// Log lines kept for a slow watcher; more are dropped, newest first.
pub(crate) const LOG_LINES_MAX: usize = 4096;
/// Depth of options that refer to options in a configuration file.
pub(crate) const META_DEPTH_MAX: u32 = 8;
