//! Scrub across copies: what the copies of a PG have of its objects is compared, chunk by chunk, and bad
//! copies are replaced by good ones.
//!
//! | module | what it does |
//! | --- | --- |
//! | `map` | what this copy has of a range of objects |
//! | `run` | the scrub of a PG by its primary |
//! | `schedule` | which PGs are scrubbed when; slots (`osd_max_scrubs`) |
//! | `answer` | what a copy does for its primary |
//!
//! Invariants: writes to the chunk that is looked at wait, and those before are published, so that all
//! copies are looked at in the same state; what was begun in an interval has no effect in the next one.

pub mod answer;
pub mod map;
pub mod run;
pub mod schedule;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use spirula_wire::msg::scrub::ScrubMap;
use spirula_wire::types::{HObject, InconsistentObject, pg_state};
use spirula_xstream::sync::Notify;

use crate::pg::Pg;
use crate::shard::Shard;

/// What a scrub does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Kind {
    pub deep: bool,
    pub repair: bool,
}

impl Kind {
    /// As Ceph's logs call it.
    pub fn mode(self) -> &'static str {
        match self {
            Self { repair: true, .. } => "repair",
            Self { deep: true, .. } => "deep-scrub",
            Self { .. } => "scrub",
        }
    }
}

/// What a shard has to do with scrubs.
#[derive(Default)]
pub struct Scrubbing {
    /// Of the interval: tasks of others stop.
    generation: Cell<u64>,
    /// Somebody wants one.
    wanted: Cell<Option<Kind>>,
    running: Cell<Option<Kind>>,
    /// Not before this time of the own clock, since a copy had no slot.
    not_before: Cell<Duration>,
    /// The keys of the chunk: behind the first one, up to and with the second one.
    chunk: RefCell<Option<(Bytes, Bytes)>>,
    /// A write waits for that.
    awaited: Cell<bool>,
    /// The chunk is done with, an answer came, or somebody went.
    arrived: Notify,
    last_tid: Cell<u64>,
    maps: RefCell<BTreeMap<(i32, u64), ScrubMap>>,
    /// Who of the members has given a slot, or not.
    grants: RefCell<BTreeMap<i32, bool>>,
    /// The primary has a slot of this copy.
    gives_slot: Cell<bool>,
    /// What the last one left.
    found: RefCell<Option<BTreeMap<HObject, InconsistentObject>>>,
}

impl Scrubbing {
    /// The interval is over. What was asked for by hand stays.
    pub fn cancel(&self) {
        self.generation.set(self.generation.get() + 1);
        self.running.set(None);
        self.chunk.borrow_mut().take();
        self.maps.borrow_mut().clear();
        self.grants.borrow_mut().clear();
        self.gives_slot.set(false);
        self.arrived.notify_all();
    }

    /// Peers that are waited for may have gone.
    pub fn map_changed(&self) {
        self.arrived.notify_all();
    }

    /// Has a scrub begin soon; a repair is deep.
    pub fn want(&self, kind: Kind) {
        let before = self.wanted.get().unwrap_or_default();
        let repair = kind.repair || before.repair;
        self.wanted.set(Some(Kind { deep: kind.deep || before.deep || repair, repair }));
    }

    /// Whether a write to the object with this key waits.
    pub fn holds_up(&self, key: &[u8]) -> bool {
        let chunk = self.chunk.borrow();
        chunk.as_ref().is_some_and(|(after, upto)| key > &after[..] && key <= &upto[..])
    }

    /// Waits until there may be another chunk.
    pub async fn wait(&self) {
        self.arrived.notified().await;
    }

    /// What the last scrub found to be inconsistent; `None` if there was none yet.
    pub fn found<R>(
        &self,
        f: impl FnOnce(Option<&BTreeMap<HObject, InconsistentObject>>) -> R,
    ) -> R {
        f(self.found.borrow().as_ref())
    }

    /// Bits of the PG's state.
    pub fn state_bits(&self) -> u64 {
        let Some(kind) = self.running.get() else {
            return 0;
        };
        let bit = |on: bool, bit| if on { bit } else { 0 };
        pg_state::SCRUBBING
            | bit(kind.deep, pg_state::DEEP_SCRUB)
            | bit(kind.repair, pg_state::REPAIR)
    }
}

/// Before a write to the object: waits while it is in the chunk of a scrub.
pub async fn wait_for(pg: &Pg, key: &[u8]) {
    while pg.active.get() && pg.shard.scrub.holds_up(key) {
        pg.shard.scrub.awaited.set(true);
        pg.shard.scrub.wait().await;
    }
}

/// The epochs that messages about the shard carry.
fn epochs(shard: &Shard) -> (u32, u32) {
    let machine = shard.machine.borrow();
    (machine.map().epoch, machine.info().history.same_interval_since)
}
