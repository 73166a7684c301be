//! A placement group shard on this target: its versions, log, locks and counters.
//!
//! Invariants: versions, log and counters change only when a transaction was submitted, in the
//! same turn; so memory is always what the store will hold once everything submitted is durable.

pub mod locks;
pub mod log;
pub mod publish;

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use spirula_maps::SnapIntervals;
use spirula_vos::ContainerId;
use spirula_wire::types::{EVersion, SpgId};

use crate::session::Session;
use crate::snap::PoolSnaps;
use crate::snap::trim::Trimming;
use crate::stats::StatSum;
use locks::ObjectLocks;
use log::{LogEntry, LogLimits, PgLog};
use publish::Publisher;

/// One PG of which this target is the primary.
#[derive(Debug)]
pub struct Pg {
    pub pgid: SpgId,
    pub cid: ContainerId,
    pub locks: Rc<ObjectLocks>,
    pub publisher: Publisher,
    pub state: RefCell<PgState>,
    pub mapping: RefCell<Mapping>,
    /// Those of its pool in the current map, shared by its PGs.
    snaps: RefCell<Rc<PoolSnaps>>,
    /// Log and counters are in memory: requests may run.
    pub active: Cell<bool>,
    /// The pool is gone: nothing may be written any more.
    pub removed: Cell<bool>,
    /// Removed snapshots that objects may still have.
    pub snap_trimq: RefCell<SnapIntervals>,
    pub trimming: Cell<Trimming>,
    /// The state that was reported last, and since when (wall clock) it is that.
    pub reported: Cell<(u64, std::time::Duration)>,
    /// Who was told to wait until it is active.
    pub blocked: RefCell<Vec<Weak<Session>>>,
}

/// What a write continues from.
#[derive(Debug, Default)]
pub struct PgState {
    /// The container exists in the store, or will with what was submitted.
    pub stored: bool,
    pub last_update: EVersion,
    pub last_user_version: u64,
    /// Epoch of the newest transaction.
    pub last_epoch: u64,
    pub log: PgLog,
    pub stats: StatSum,
    /// Removed snapshots that no object has any more.
    pub purged: SnapIntervals,
}

/// The PG in the current OSDMap, with the epochs and times that statistics report.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Mapping {
    pub pg_num: u32,
    pub up: Vec<i32>,
    pub acting: Vec<i32>,
    pub up_primary: i32,
    pub acting_primary: i32,
    /// Epoch in which the pool was made.
    pub created: u32,
    /// First epoch of the current interval, as far as this boot knows.
    pub since: u32,
    pub since_wall: std::time::Duration,
    /// This target is the primary since this epoch (`same_primary_since`), or a later one that it has not
    /// seen: too low a bound only serves what could have been dropped, one too high what nobody repeats.
    pub primary_since: u32,
}

impl Pg {
    pub fn new(pgid: SpgId, cid: ContainerId, limits: LogLimits) -> Self {
        Self {
            pgid,
            cid,
            locks: Rc::default(),
            publisher: Publisher::default(),
            state: RefCell::new(PgState { log: PgLog::new(limits), ..PgState::default() }),
            mapping: RefCell::default(),
            snaps: RefCell::default(),
            active: Cell::new(false),
            removed: Cell::new(false),
            snap_trimq: RefCell::default(),
            trimming: Cell::default(),
            reported: Cell::default(),
            blocked: RefCell::default(),
        }
    }

    /// Takes its place in a new map; a new acting set starts a new interval.
    pub fn remap(&self, new: Mapping, epoch: u32, wall: std::time::Duration) {
        let mut mapping = self.mapping.borrow_mut();
        let same = mapping.acting == new.acting && mapping.up == new.up && mapping.since != 0;
        let (since, since_wall) =
            if same { (mapping.since, mapping.since_wall) } else { (epoch, wall) };
        let created = if mapping.created == 0 { new.created } else { mapping.created };
        let primary_since = mapping.primary_since.max(new.primary_since);
        *mapping = Mapping { since, since_wall, created, primary_since, ..new };
    }

    pub fn snaps(&self) -> Rc<PoolSnaps> {
        self.snaps.borrow().clone()
    }

    pub fn set_snaps(&self, snaps: Rc<PoolSnaps>) {
        self.snaps.replace(snaps);
    }

    /// The OSDs of its up and acting sets.
    pub fn members(&self) -> Vec<i32> {
        let mapping = self.mapping.borrow();
        mapping.up.iter().chain(&mapping.acting).copied().filter(|osd| *osd >= 0).collect()
    }

    /// Version and user version that replies about the PG itself, or an absent object, carry.
    pub fn last_versions(&self) -> (EVersion, u64) {
        let state = self.state.borrow();
        (state.last_update, state.last_user_version)
    }
}

impl PgState {
    /// The version of the next entry, written under map `epoch`.
    pub fn next_version(&self, epoch: u32) -> EVersion {
        EVersion::new(epoch.max(self.last_update.epoch), self.last_update.version + 1)
    }

    /// The store epoch of the next transaction: the hybrid clock, never back and never the same.
    pub fn next_epoch(&self, wall_nanos: u64) -> u64 {
        wall_nanos.max(self.last_epoch + 1)
    }

    /// The transaction of `entry` was submitted under `ticket`.
    pub fn advance(&mut self, entry: LogEntry, trimmed: bool, ticket: u64) {
        self.stored = true;
        self.last_update = entry.version;
        self.last_user_version = entry.last_user_version;
        self.last_epoch = entry.epoch;
        self.stats = entry.stats;
        if trimmed {
            self.log.trimmed();
        }
        self.log.append(entry.dup, ticket);
    }
}
