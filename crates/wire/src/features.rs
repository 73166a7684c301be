//! Feature masks that decide a layout, for [`Features::has`](crate::Features::has).
//!
//! A reused bit carries the "incarnation" bits of the release that reused it, as in Ceph's
//! `include/ceph_features.h`; a mask is matched whole.

const INCARNATION_2: u64 = 1 << 57;
const INCARNATION_3: u64 = (1 << 57) | (1 << 28);

pub const SERVER_JEWEL: u64 = 1 << 57;
pub const SERVER_LUMINOUS: u64 = 1 << 21 | INCARNATION_2;
pub const SERVER_MIMIC: u64 = 1 << 28 | INCARNATION_2;
pub const SERVER_NAUTILUS: u64 = 1 << 2 | INCARNATION_3;
pub const SERVER_OCTOPUS: u64 = 1 << 16 | INCARNATION_3;

/// Addresses and address vectors with a type (msgr2).
pub const MSG_ADDR2: u64 = 1 << 59;
/// `MOSDOp` v8 and later.
pub const NEW_OSDOP_ENCODING: u64 = 1 << 56;
/// Commit and apply latencies in nanoseconds; Pacific itself does not announce it.
pub const OS_PERF_STAT_NS: u64 = 1 << 17 | INCARNATION_3;
pub const SERVER_PACIFIC: u64 = 1 << 20 | INCARNATION_3;
/// The client sends the spg and resends when its PG splits.
pub const RESEND_ON_SPLIT: u64 = SERVER_LUMINOUS;
/// The peer understands `MOSDBackoff`.
pub const RADOS_BACKOFF: u64 = SERVER_LUMINOUS;
