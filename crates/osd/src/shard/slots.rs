//! Slots for recovery and backfill (`osd_max_backfills`), of the PGs that this target leads and of those
//! that it is a copy of.

use std::cell::RefCell;
use std::rc::Rc;

use spirula_pg::Slot;
use spirula_pg::reserve::{Granted, Reserver};
use spirula_wire::types::PgId;

use super::{Shard, drive};
use crate::target::Target;

/// Who has slots, and who waits.
pub struct Slots {
    local: RefCell<Reserver<PgId>>,
    remote: RefCell<Reserver<PgId>>,
}

impl Default for Slots {
    fn default() -> Self {
        let none = || RefCell::new(Reserver::new(0));
        Self { local: none(), remote: none() }
    }
}

impl Slots {
    fn of(&self, slot: Slot) -> &RefCell<Reserver<PgId>> {
        match slot {
            Slot::Local => &self.local,
            Slot::Remote => &self.remote,
        }
    }
}

/// The machine wants a slot.
pub fn want(target: &Target, shard: &Rc<Shard>, slot: Slot, priority: u32) {
    change(target, slot, |slots| slots.request(shard.pgid.pgid, priority));
}

/// It does not want it any more.
pub fn give_back(target: &Target, shard: &Rc<Shard>, slot: Slot) {
    change(target, slot, |slots| slots.release(&shard.pgid.pgid));
}

/// The PG has no machine any more that had asked.
pub fn forget(target: &Target, pgid: PgId) {
    for slot in [Slot::Local, Slot::Remote] {
        change(target, slot, |slots| slots.release(&pgid));
    }
}

fn change(target: &Target, slot: Slot, f: impl FnOnce(&mut Reserver<PgId>) -> Granted<PgId>) {
    let count = target.option_number("osd_max_backfills").max(1) as usize;
    let changed = {
        let mut slots = target.shards().slots.of(slot).borrow_mut();
        let mut changed = slots.resize(count);
        let more = f(&mut slots);
        changed.granted.extend(more.granted);
        changed.revoked.extend(more.revoked);
        changed
    };
    let shard = |pgid: PgId| target.shards().get(pgid);
    for shard in changed.revoked.into_iter().filter_map(shard) {
        drive::input(target, &shard, |machine| machine.preempted(slot));
    }
    for shard in changed.granted.into_iter().filter_map(shard) {
        drive::input(target, &shard, |machine| machine.reserved(slot));
    }
}
