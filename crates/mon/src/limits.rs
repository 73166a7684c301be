//! Bounds of the monitor's queues and tables.

/// Requests that wait for the proposal under way.
pub const QUEUE_MAX: usize = 10_000;
/// Proposals between two snapshots.
pub const COMPACT_EVERY: u64 = 500;
/// Every how many epochs a full map is kept; the others are rebuilt from it.
pub const FULL_MAP_EVERY: u32 = 50;
/// Global ids reserved by one proposal.
pub const GLOBAL_IDS_STEP: u64 = 10_000;
/// Subscriptions of one session.
pub const SUBSCRIPTIONS_MAX: usize = 32;
/// Copies that a pool may keep of its objects: Ceph's bound.
pub const COPIES_MAX: i64 = 10;
/// Bytes of a request that a monitor passes on to the leader: half of what one frame's front holds.
pub const FORWARD_BYTES_MAX: usize = 8 << 20;
