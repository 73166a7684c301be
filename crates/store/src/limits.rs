//! Every bound of the store, in one place.

use std::time::Duration;

/// WAL records waiting, in bytes, above which [`crate::Store::admit`] waits.
pub(crate) const QUEUED_BYTES_MAX: usize = 32 << 20;
/// Data of a transaction up to this size is written beside its batch: its I/O is shared, and the batch
/// waits little for it.
pub(crate) const HELD_BYTES_MAX: u64 = 64 << 10;
/// Bytes, and pieces, of held data written by one request.
pub(crate) const HELD_RUN_BYTES_MAX: usize = 1 << 20;
pub(crate) const HELD_RUN_PIECES_MAX: usize = 256;
/// Rounds of page loading that one read may need: above this the store is damaged or the pool too small.
pub(crate) const LOAD_ROUNDS_MAX: usize = 10_000;
/// Bytes of pages written by one request of a checkpoint.
pub(crate) const PAGE_RUN_BYTES_MAX: usize = 256 << 10;
/// Such requests in flight.
pub(crate) const PAGE_RUNS_IN_FLIGHT_MAX: usize = 8;
/// Pages loaded at the same time.
pub(crate) const LOADS_IN_FLIGHT_MAX: usize = 64;
/// Data cached if the caller does not say otherwise.
pub(crate) const CACHE_BYTES: usize = 64 << 20;
/// Reads up to this size go through the cache: larger ones would push out many small ones and gain
/// less.
pub(crate) const CACHED_BYTES_MAX: u64 = 64 << 10;
/// The read of a place with which its data is cached, at most the fourth.
pub(crate) const READS_TO_CACHE: u64 = 3;
/// While the cache grows, one in so many that it could take in is taken.
pub(crate) const GROW_EVERY: u64 = 8;
/// Places remembered to count their reads.
pub(crate) const SEEN_PLACES: usize = 1 << 16;
/// Bytes of neighbouring extents read by one request.
pub(crate) const READ_RUN_BYTES_MAX: u64 = 1 << 20;
/// Bytes read at once when the WAL is replayed.
pub(crate) const REPLAY_WINDOW_BYTES: u64 = 1 << 20;
/// Entries of punched trees removed in one step.
pub(crate) const COLLECT_BUDGET: usize = 64;
/// Between two steps of background work while client I/O is under way: several times what a step takes.
pub(crate) const BUSY_PAUSE: Duration = Duration::from_millis(1);
/// Times a discard that found no space makes room and tries again.
pub(crate) const ROOM_TRIES_MAX: usize = 3;
/// Bytes of zeros written by one request.
pub(crate) const ZERO_BYTES: u64 = 1 << 20;
/// How far the data region is zeroed ahead of the allocator, in blocks.
pub(crate) const ZERO_AHEAD_BLOCKS: u64 = (64 << 20) / 4096;
/// History entries looked at in one transaction of an aggregation.
pub(crate) const AGGREGATE_BUDGET: u32 = 256;
/// Akeys, versions and extents looked at in one transaction of a discard.
pub(crate) const DISCARD_BUDGET: u32 = 256;
/// Objects looked at in one go when those that need aggregation are searched.
pub(crate) const AGGREGATE_OBJECTS: usize = 64;
/// Bytes that one request tells the device to be free, and the pause after it.
pub(crate) const TRIM_BYTES: u64 = 16 << 20;
pub(crate) const TRIM_PAUSE: Duration = Duration::from_millis(50);
/// Blocks of extents, and pages, that one step of a scrub reads, and its reads in flight.
pub(crate) const SCRUB_BLOCKS: u64 = 64;
pub(crate) const SCRUB_PAGES: usize = 32;
pub(crate) const SCRUB_READS_IN_FLIGHT: usize = 4;
/// While clients are busy, a scrub pauses this many times as long as its last step took.
pub(crate) const SCRUB_PAUSE_FACTOR: u32 = 4;
/// A scrub that is not due looks at the clock again after this.
pub(crate) const SCRUB_WAKE_MAX: Duration = Duration::from_secs(3600);
/// Entries looked at in one go when the owner of a damaged extent is searched.
pub(crate) const OWNER_SEARCH_ENTRIES: usize = 256;
/// Damaged extents that a check, or a scrub, names; it counts all.
pub(crate) const DAMAGE_NOTED_MAX: usize = 64;
/// Keys listed in one go when arrays to merge are searched.
pub(crate) const MERGE_KEYS: usize = 64;
/// Ended transactions forgotten in one step.
pub(crate) const FORGET_BUDGET: usize = 64;
/// Levels of the tree whose pages replay loads ahead; deeper ones it loads as it meets them.
pub(crate) const REPLAY_LEVELS_MAX: usize = 8;
