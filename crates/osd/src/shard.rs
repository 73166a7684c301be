//! Placement group shards: the copies of PGs that this target holds, or shall hold, each with the machine
//! that says what becomes of it ([`Peering`]).
//!
//! A shard is there from the time when the map, the store or another OSD tells of it until it is
//! removed. While this target is its primary, a [`crate::pg::Pg`] serves it, a new one for each interval.
//!
//! Invariants: what machines want done is done in order; a message of theirs leaves when all that was
//! submitted for its PG before is durable; every epoch that this target knows is shown to every machine.

pub mod drive;
pub mod follow;
pub mod lost;
pub mod read;
pub mod recover;
pub mod replica;
pub mod slots;
pub mod split;
pub mod stored;
pub mod submit;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use spirula_maps::OsdMap;
use spirula_pg::merge::Rewind;
use spirula_pg::{PeerMessage, Peering, State};
use spirula_vos::ContainerId;
use spirula_wire::RawMessage;
use spirula_wire::types::{HObject, PgId, SpgId};
use spirula_xstream::sync::Notify;

pub use follow::reload;

use crate::pg::PgState;
use crate::pg::publish::Publisher;
use crate::scrub::Scrubbing;

/// One copy of a PG.
pub struct Shard {
    pub pgid: SpgId,
    pub cid: ContainerId,
    pub machine: RefCell<Peering>,
    pub state: Rc<RefCell<PgState>>,
    /// Everything submitted to the store for this PG, in order.
    pub local: Publisher,
    /// Messages, each after the ticket of `local` that it waits for.
    outbox: RefCell<VecDeque<(u64, i32, RawMessage)>>,
    driving: Cell<bool>,
    /// The lease allowed to serve when it was looked at last.
    serving: Cell<bool>,
    /// It is split, merged, loaded or removed: nothing is done meanwhile.
    held: Cell<bool>,
    /// The maps that its machine was not shown meanwhile.
    unseen: RefCell<Vec<Arc<OsdMap>>>,
    /// Held since it was split: its machine goes on with the map.
    splitting: RefCell<Option<split::Splitting>>,
    /// What came meanwhile.
    backlog: RefCell<Vec<(i32, PeerMessage)>>,
    /// Objects became whole, or the interval ended.
    pub progress: Notify,
    /// Divergent entries that are undone with the next record of what peering knows.
    rewinds: RefCell<Vec<Rewind>>,
    /// What the other copies hold of this interval's writes (primary).
    acked: RefCell<BTreeMap<i32, u64>>,
    /// Writes of the primary that are not in the store's order yet (copy).
    writes: RefCell<VecDeque<replica::Arrived>>,
    applying: Cell<bool>,
    pub copying: recover::Copying,
    pub scrub: Scrubbing,
    times: Cell<StateTimes>,
    /// Objects that are being given up as lost: requests wait for the end of that.
    giving_up: RefCell<BTreeSet<HObject>>,
}

/// Since when (wall clock) the machine has been where it is, for who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct StateTimes {
    state: State,
    interval: u32,
    /// The interval.
    pub started: Duration,
    /// Peering, while it goes on.
    pub peering: Duration,
    /// The state.
    pub entered: Duration,
}

impl StateTimes {
    fn note(&mut self, state: State, interval: u32, now: Duration) {
        let anew = interval != self.interval || self.started.is_zero();
        if anew {
            (self.interval, self.started) = (interval, now);
        }
        // One becomes the other without anything to see of it.
        let same = |a: State| if a == State::Clean { State::Active } else { a };
        if anew || same(self.state) != same(state) {
            self.entered = now;
        }
        if anew || matches!(self.state, State::Unknown | State::Reset) {
            self.peering = now;
        }
        self.state = state;
    }
}

impl Shard {
    pub fn new(cid: ContainerId, machine: Peering) -> Self {
        Self {
            pgid: machine.pgid(),
            cid,
            machine: RefCell::new(machine),
            state: Rc::default(),
            local: Publisher::default(),
            outbox: RefCell::default(),
            driving: Cell::new(false),
            serving: Cell::new(false),
            held: Cell::new(false),
            unseen: RefCell::default(),
            splitting: RefCell::default(),
            backlog: RefCell::default(),
            progress: Notify::new(),
            rewinds: RefCell::default(),
            acked: RefCell::default(),
            writes: RefCell::default(),
            applying: Cell::new(false),
            copying: recover::Copying::default(),
            scrub: Scrubbing::default(),
            times: Cell::default(),
            giving_up: RefCell::default(),
        }
    }

    /// Of a PG of which nothing is known but its name.
    #[cfg(test)]
    pub fn bare(pgid: SpgId, map: OsdMap) -> Rc<Self> {
        let machine = Peering::unknown(0, pgid, Arc::new(map), spirula_pg::Config::default());
        let cid = crate::apply::container_id(pgid, crate::apply::Layout::Splittable);
        Rc::new(Self::new(cid, machine))
    }

    /// Whether requests may be answered now, as far as leases go.
    pub fn may_serve(&self) -> bool {
        let may = self.machine.borrow().may_serve(spirula_xstream::now());
        if !may {
            self.serving.set(false);
        }
        may
    }

    pub fn times(&self) -> StateTimes {
        self.times.get()
    }

    fn note_state(&self) {
        let machine = self.machine.borrow();
        let since = machine.info().history.same_interval_since;
        let mut times = self.times.get();
        times.note(machine.state(), since, spirula_xstream::wall_now());
        self.times.set(times);
    }

    pub fn gives_up_any(&self) -> bool {
        !self.giving_up.borrow().is_empty()
    }

    /// It is not missing any more, but what became of it is not durable yet.
    pub fn gives_up(&self, object: &HObject) -> bool {
        self.giving_up.borrow().contains(object)
    }

    pub fn hold(&self) {
        self.held.set(true);
    }

    /// Whether it is split in memory and not yet in the store.
    pub fn is_splitting(&self) -> bool {
        self.splitting.borrow().is_some()
    }

    pub fn is_held(&self) -> bool {
        self.held.get()
    }
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = self.machine.borrow();
        let (state, epoch, info) = (machine.state(), machine.map().epoch, machine.info());
        let (role, held, since) =
            (machine.role(), self.held.get(), info.history.same_interval_since);
        write!(f, "{} {state:?} {role:?} at {epoch}, since {since}", self.pgid)?;
        write!(f, ", {} missing, last {}", machine.missing().len(), info.last_update)?;
        write!(f, "{}", if held { ", held" } else { "" })?;
        let (writes, outbox) = (self.writes.borrow().len(), self.outbox.borrow().len());
        let (local, acked) = (self.local.is_published(self.local.last()), self.acked.borrow());
        write!(f, ", durable {local}, {writes} to apply, {outbox} to send, acked {acked:?}")?;
        let (tick, serving) = (machine.next_tick(), self.serving.get());
        write!(f, "{}", if self.driving.get() { ", driving" } else { "" })?;
        write!(f, ", serving {serving}, tick {tick:?}")
    }
}

/// The shards of a target.
#[derive(Default)]
pub struct Shards {
    table: RefCell<BTreeMap<PgId, Rc<Shard>>>,
    /// The newest maps; since the oldest pool was made whose PGs are not all made yet, all.
    recent: RefCell<BTreeMap<u32, Arc<OsdMap>>>,
    /// What the store holds of shards whose maps are not here yet.
    dormant: RefCell<BTreeMap<PgId, (ContainerId, stored::Found)>>,
    /// Messages about PGs that are not here, of epochs that are not here either.
    early: RefCell<Vec<(i32, PeerMessage)>>,
    /// The map that was asked for to begin with.
    wanted_map: Cell<u32>,
    slots: slots::Slots,
    /// Reads that were answered here by a copy that is not the primary.
    reads_at_copies: Cell<u64>,
    /// A deadline may have moved.
    stirred: Notify,
    /// The next one.
    armed: Cell<Option<Duration>>,
}

impl Shards {
    pub fn reads_at_copies(&self) -> u64 {
        self.reads_at_copies.get()
    }

    pub fn wanted_map(&self) -> u32 {
        self.wanted_map.get()
    }

    pub fn set_wanted_map(&self, epoch: u32) {
        self.wanted_map.set(epoch);
    }

    pub fn get(&self, pgid: PgId) -> Option<Rc<Shard>> {
        self.table.borrow().get(&pgid).cloned()
    }

    pub fn all(&self) -> Vec<Rc<Shard>> {
        self.table.borrow().values().cloned().collect()
    }

    /// The oldest map that a stored shard needs.
    pub fn oldest_map(&self) -> Option<u32> {
        self.dormant.borrow().values().map(|(_, found)| found.map_epoch).min()
    }

    pub fn insert(&self, shard: Rc<Shard>) {
        self.table.borrow_mut().insert(shard.pgid.pgid, shard);
    }

    pub fn remove(&self, pgid: PgId) -> Option<Rc<Shard>> {
        self.table.borrow_mut().remove(&pgid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_known_since_when_a_pg_is_where_it_is() {
        let mut times = StateTimes::default();
        for (state, interval, now, want) in [
            (State::GetInfo, 5, 1, [1, 1, 1]),
            (State::GetLog, 5, 2, [1, 1, 2]),
            (State::Active, 5, 3, [1, 1, 3]),
            (State::Clean, 5, 4, [1, 1, 3]),
            (State::GetInfo, 9, 5, [5, 5, 5]),
            (State::Down, 9, 6, [5, 5, 6]),
        ] {
            times.note(state, interval, Duration::from_secs(now));
            let seconds = [times.started, times.peering, times.entered].map(|t| t.as_secs());
            assert_eq!(seconds, want, "{state:?}");
        }
    }
}
