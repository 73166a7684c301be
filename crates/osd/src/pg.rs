//! A placement group that this target serves as its primary, for one interval: its locks, what waits
//! for it, and the order in which writes are published. What outlives the interval is its [`Shard`].
//!
//! Invariants: versions, log and counters change only when a transaction was submitted, in the
//! same turn; so memory is always what the store will hold once everything submitted is durable.

pub mod batches;
pub mod locks;
pub mod log;
pub mod publish;

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use spirula_maps::SnapIntervals;
use spirula_vos::ContainerId;
use spirula_wire::types::{EVersion, PgLogDup, RequestId, SpgId};

use crate::reshape::Counting;
use crate::session::Session;
use crate::shard::Shard;
use crate::snap::PoolSnaps;
use crate::snap::trim::Trimming;
use crate::stats::{LastWell, StatSum};
use batches::Batches;
use locks::ObjectLocks;
use publish::Publisher;

/// One PG of which this target is the primary.
#[derive(Debug)]
pub struct Pg {
    pub pgid: SpgId,
    pub cid: ContainerId,
    pub shard: Rc<Shard>,
    pub locks: Rc<ObjectLocks>,
    /// Tickets are the versions' numbers.
    pub publisher: Publisher,
    /// That of the shard.
    pub state: Rc<RefCell<PgState>>,
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
    /// When it was last well, as reported.
    pub well: Cell<LastWell>,
    /// Its objects are counted while it serves.
    pub counting: RefCell<Option<Counting>>,
    /// Who was told to wait until it is active.
    pub blocked: RefCell<Vec<Weak<Session>>>,
}

/// What a shard keeps beside what its machine does.
#[derive(Debug, Default)]
pub struct PgState {
    /// The container exists in the store, or will with what was submitted.
    pub stored: bool,
    /// Epoch of the newest transaction.
    pub last_epoch: u64,
    /// Epoch of the newest record of peering.
    pub record_epoch: u64,
    /// The stored set of missing objects is not empty, or may not be.
    pub missing_stored: bool,
    /// The counters are no guess since a split.
    pub counted: bool,
    pub batches: Batches,
    pub stats: StatSum,
    /// Removed snapshots that no object has any more.
    pub purged: SnapIntervals,
}

/// Between the epochs of two transactions of a primary, at least.
const EPOCH_STEP: u64 = 1024;

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
    pub fn new(shard: Rc<Shard>) -> Self {
        Self {
            pgid: shard.pgid,
            cid: shard.cid,
            locks: Rc::default(),
            publisher: Publisher::default(),
            state: shard.state.clone(),
            shard,
            mapping: RefCell::default(),
            snaps: RefCell::default(),
            active: Cell::new(false),
            removed: Cell::new(false),
            snap_trimq: RefCell::default(),
            trimming: Cell::default(),
            reported: Cell::default(),
            well: Cell::default(),
            counting: RefCell::default(),
            blocked: RefCell::default(),
        }
    }

    /// What serves it in the next interval.
    pub fn next(&self) -> Self {
        let next = Self::new(self.shard.clone());
        next.mapping.replace(self.mapping.borrow().clone());
        next.set_snaps(self.snaps());
        next.reported.set(self.reported.get());
        next.well.set(self.well.get());
        next
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
        let machine = self.shard.machine.borrow();
        (machine.info().last_update, machine.info().last_user_version)
    }

    /// What a request was answered with, and the ticket of its transaction.
    pub fn recorded(&self, reqid: &RequestId) -> Option<(PgLogDup, u64)> {
        let dup = self.shard.machine.borrow().log().find(reqid)?;
        let ticket = dup.version.version;
        Some((dup, ticket))
    }

    /// Requests may run from now on: all that is submitted follows what the shard holds.
    pub fn activate(&self) {
        let machine = self.shard.machine.borrow();
        let last = machine.info().last_update.version;
        let limit = if machine.members().is_empty() { u64::MAX } else { last };
        self.publisher.begin(last + 1, limit);
        self.active.set(true);
    }

    /// The interval is over, or the PG gone: nobody gets an answer any more.
    pub fn retire(&self) {
        self.active.set(false);
        self.publisher.fail();
        self.shard.progress.notify_all();
    }
}

/// What a record that was not stored after all must leave as it was.
pub struct Saved {
    last_epoch: u64,
    missing_stored: bool,
    batches: Batches,
}

impl PgState {
    pub fn saved(&self) -> Saved {
        let (last_epoch, missing_stored) = (self.last_epoch, self.missing_stored);
        Saved { last_epoch, missing_stored, batches: self.batches.clone() }
    }

    pub fn restore(&mut self, saved: Saved) {
        self.last_epoch = saved.last_epoch.max(self.last_epoch);
        (self.missing_stored, self.batches) = (saved.missing_stored, saved.batches);
    }

    /// The store epoch of the primary's next transaction: the hybrid clock, never back. What lies between
    /// two transactions is for the own records of copies.
    pub fn next_epoch(&self, wall_nanos: u64) -> u64 {
        wall_nanos.max(self.last_epoch + EPOCH_STEP)
    }

    /// The epoch of a record of this copy alone.
    pub fn own_epoch(&self) -> u64 {
        self.last_epoch.max(self.record_epoch) + 1
    }

    /// Another copy has this epoch: what follows is later.
    pub fn heard_epoch(&mut self, epoch: u64) {
        self.last_epoch = self.last_epoch.max(epoch);
    }
}
