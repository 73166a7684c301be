//! A placement group shard on this target: its versions, log, locks and counters.

pub mod locks;
pub mod log;
pub mod publish;
