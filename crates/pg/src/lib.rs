//! Placement groups: peering, the log, missing objects, recovery and its order.
//!
//! Events go in (a map, a message, a commit, the time), actions come out (send, persist, rewind, ask
//! the monitor); the rules are those of Ceph 16 for replicated pools, and so are the messages.
//!
//! Invariants: no clock, no I/O, no randomness; nothing is active before one member of every interval
//! that may have accepted writes was asked; an entry that every acting copy holds is never undone.
#![forbid(unsafe_code)]

pub mod backfill;
pub mod choose;
#[doc(hidden)]
pub mod fuzzing;
pub mod history;
pub mod interval;
pub mod lease;
pub mod log;
pub mod merge;
pub mod missing;
pub mod peering;
pub mod recovery;
pub mod reserve;
pub mod scrub;
pub mod stamps;

pub use interval::{Mapping, PriorSet};
pub use log::{LogLimits, PgLog};
pub use missing::{Missing, MissingObject};
pub use peering::{
    Action, Config, Holdup, PeerMessage, Peering, Probe, ReserveKind, Role, Scrubbed, SendTo,
    Shortage, Slot, State, Stored,
};
pub use recovery::Recover;
pub use stamps::HeartbeatStamps;
