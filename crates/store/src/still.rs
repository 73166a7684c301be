//! Objects that are read, or stored, a part at a time: meanwhile no aggregation touches them.
//!
//! Invariant: aggregation looks here in the same turn in which it submits; what it leaves alone is done
//! in the background when the last holder is gone.

use std::collections::BTreeMap;
use std::rc::Rc;

use spirula_vos::{ContainerId, ObjectKey};

use crate::{Inner, Store};

#[derive(Default)]
pub(crate) struct Stills(BTreeMap<(ContainerId, ObjectKey), Held>);

#[derive(Default)]
struct Held {
    holders: usize,
    /// The horizon of the aggregation that waits.
    waiting: Option<u64>,
}

/// Keeps an object as it is but for what transactions do to it. See [`Store::hold_still`].
pub struct Still {
    inner: Rc<Inner>,
    key: (ContainerId, ObjectKey),
}

impl Drop for Still {
    fn drop(&mut self) {
        let stills = &mut self.inner.stills.borrow_mut().0;
        let Some(held) = stills.get_mut(&self.key) else {
            return;
        };
        held.holders -= 1;
        if held.holders > 0 {
            return;
        }
        if let Some(horizon) = stills.remove(&self.key).and_then(|held| held.waiting) {
            self.inner.aggregations.borrow_mut().add_object(self.key.clone(), horizon);
            self.inner.aggregation_wanted.notify_one();
        }
    }
}

impl Store {
    /// Has aggregation leave an object alone until the result is dropped: for who exports it, or imports
    /// into it, in more than one step.
    pub fn hold_still(&self, cid: ContainerId, oid: &ObjectKey) -> Still {
        let key = (cid, oid.clone());
        self.inner.stills.borrow_mut().0.entry(key.clone()).or_default().holders += 1;
        Still { inner: self.inner.clone(), key }
    }

    /// Whether an object must not be aggregated now; if so that is done later.
    pub(crate) fn puts_off(&self, cid: ContainerId, oid: &ObjectKey, horizon: u64) -> bool {
        let stills = &mut self.inner.stills.borrow_mut().0;
        if stills.is_empty() {
            return false;
        }
        let Some(held) = stills.get_mut(&(cid, oid.clone())) else {
            return false;
        };
        held.waiting = held.waiting.max(Some(horizon));
        true
    }
}
