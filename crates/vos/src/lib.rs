//! The versioned object store: container -> object -> dkey -> akey -> value or array of extents.
//!
//! Pure logic: no I/O, no clock, no randomness, no `unsafe`. A read answers or names the pages it
//! is missing; [`Tx`] is staged all or nothing and gives one WAL record and its data writes; what to
//! write where and when is the caller's part (`spirula-store`).
#![forbid(unsafe_code)]

mod active;
mod aggregate;
mod array;
mod changed;
mod check;
mod check_objects;
mod checkpoint;
mod clone;
mod codec;
mod condition;
mod container;
mod discard;
mod dkeys;
mod dump;
mod epoch;
mod export;
#[doc(hidden)]
pub mod fuzzing;
mod garbage;
mod hint;
mod history;
mod hold;
mod item;
mod iterate;
mod log;
mod merge;
mod object;
mod page;
mod parts;
mod plane;
mod pool;
mod prepared;
mod punch;
mod punches;
mod query;
mod record;
mod scrub;
mod serial;
mod share;
mod single;
mod size;
mod space;
mod stage;
pub mod timestamp;
mod tree;
mod tx;
mod tx_wire;
mod types;
mod view;
mod vos;

pub use aggregate::Cursor;
pub use check::{CheckError, CheckSummary, Checker};
pub use checkpoint::{Checkpoint, Loader, PageWrite, ROOT_LEN, Root, WalStart};
pub use clone::Position;
pub use dump::{AkeyDump, ExtentDump, ObjectDump, PlaceDump, PunchDump, TxDump, VersionDump};
pub use epoch::Epoch;
pub use export::{Anchor, Export};
pub use hold::Hold;
pub use iterate::{Iterated, Range, Show, Version, VersionKind};
pub use log::{BadRecord, Placed, Record};
pub use merge::MergeStep;
pub use prepared::PreparedTx;
pub use query::{Found, Keys, Pick, PickRange};
pub use scrub::{Owner, OwnerSearch, PageCursor, PagePlace, ScrubExtent, ScrubStep};
pub use space::{Fragmentation, Run};
pub use stage::{DataWrite, ReplayError, Staged};
pub use tx::{Must, Target, Tx};
pub use tx_wire::{BadTx, Home, NotPortable};
pub use types::*;
pub use view::{OpenObject, View};
pub use vos::{Config, ContainerStats, Stats, Vos};
