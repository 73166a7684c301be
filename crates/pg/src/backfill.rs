//! Backfill: a copy that the log cannot bring on is compared with the primary's, object by object in
//! their order, and gets what differs.
//!
//! A batch goes: both sides list the next objects (the driver, from where [`Peering::backfill_scans`]
//! says), what differs is copied, then the target's `last_backfill` moves on. Writes to what was passed
//! go to the target whole, to what is being copied they wait, to the rest only their log entries go.
//!
//! Invariant: whatever is not above `passed` and not being copied is the same on the target; what was
//! written while both sides listed their objects is copied, whatever the lists say.

use std::collections::{BTreeMap, BTreeSet};

use spirula_wire::msg::pg::backfill_op;
use spirula_wire::types::{EVersion, HObject};

use crate::peering::{Peering, State};
use crate::recovery::Recover;

/// One target's.
#[derive(Clone, Debug)]
pub(crate) struct Backfill {
    passed: HObject,
    scanning: bool,
    /// Written while the objects were listed.
    touched: BTreeSet<HObject>,
    copying: BTreeSet<HObject>,
}

impl Backfill {
    fn from(last_backfill: HObject) -> Self {
        let (touched, copying) = Default::default();
        Self { passed: last_backfill, scanning: false, touched, copying }
    }

    pub(crate) fn copies(&self, object: &HObject) -> bool {
        self.copying.contains(object)
    }

    pub(crate) fn has_passed(&self, object: &HObject) -> bool {
        *object <= self.passed
    }

    pub(crate) fn touched(&mut self, object: &HObject) {
        if self.scanning {
            self.touched.insert(object.clone());
        }
    }

    /// Both lists are of the objects above `passed` up to `upto`.
    fn compared(&mut self, upto: HObject, ours: &Listing, theirs: &Listing) {
        let differs = |o: &&HObject| ours.get(*o) != theirs.get(*o);
        self.copying.extend(ours.keys().chain(theirs.keys()).filter(differs).cloned());
        self.copying.extend(std::mem::take(&mut self.touched).into_iter().filter(|o| *o <= upto));
        self.copying.retain(|o| *o <= upto);
        self.passed = upto;
        self.scanning = false;
    }
}

/// Objects with their versions: all of which anything is stored, those too of which only clones are left.
pub type Listing = BTreeMap<HObject, EVersion>;

impl Peering {
    /// Targets whose next objects should be listed, and after which object.
    pub fn backfill_scans(&mut self) -> Vec<(i32, HObject)> {
        let mut scans = Vec::new();
        if self.state() != State::Active || self.recovers_by_log() || !self.may_backfill() {
            return scans;
        }
        for osd in self.backfill_targets.clone() {
            let Some(info) = self.peers.get(&osd).map(|p| &p.info) else {
                continue;
            };
            if !info.is_incomplete() {
                continue;
            }
            let from = info.last_backfill.clone();
            let backfill =
                self.recovery.backfills.entry(osd).or_insert_with(|| Backfill::from(from));
            if !backfill.scanning && backfill.copying.is_empty() && !backfill.passed.is_max() {
                backfill.scanning = true;
                backfill.touched.clear();
                scans.push((osd, backfill.passed.clone()));
            }
        }
        scans
    }

    /// Both sides listed their objects up to `upto` ([`HObject::max`]: there are no more).
    pub fn backfill_compared(&mut self, osd: i32, upto: HObject, ours: &Listing, theirs: &Listing) {
        if let Some(backfill) = self.recovery.backfills.get_mut(&osd).filter(|b| b.scanning) {
            backfill.compared(upto, ours, theirs);
            self.backfill_moved(osd);
        }
    }

    /// How far each backfill has come, and what it copies.
    pub fn backfills(&self) -> impl Iterator<Item = (i32, &HObject, &BTreeSet<HObject>)> {
        self.recovery.backfills.iter().map(|(&osd, b)| (osd, &b.passed, &b.copying))
    }

    /// A listing failed: it is asked for again.
    pub fn backfill_scan_failed(&mut self, osd: i32) {
        if let Some(backfill) = self.recovery.backfills.get_mut(&osd) {
            backfill.scanning = false;
        }
    }

    /// Objects of the present batches that nobody copies yet.
    pub(crate) fn backfill_copies(&mut self, max: usize) -> Vec<Recover> {
        let mut found = Vec::new();
        let batches: Vec<(i32, HObject)> = (self.recovery.backfills.iter())
            .flat_map(|(&osd, b)| b.copying.iter().map(move |o| (osd, o.clone())))
            .collect();
        for (osd, object) in batches {
            if found.len() >= max {
                break;
            }
            if !self.recovery.is_busy(&object) {
                self.recovery.push_started(&object, osd);
                found.push(Recover::Push { object, to: vec![osd] });
            }
        }
        found
    }

    pub(crate) fn backfill_pushed(&mut self, osd: i32, object: &HObject) {
        if let Some(backfill) = self.recovery.backfills.get_mut(&osd)
            && backfill.copying.remove(object)
        {
            self.backfill_moved(osd);
        }
    }

    /// A batch is done: the target is told how far it has come.
    fn backfill_moved(&mut self, osd: i32) {
        let Some(backfill) = self.recovery.backfills.get(&osd) else {
            return;
        };
        if !backfill.copying.is_empty() {
            return;
        }
        let reached = backfill.passed.clone();
        let op = if reached.is_max() { backfill_op::FINISH } else { backfill_op::PROGRESS };
        // The end counts once the target has stored it.
        if op == backfill_op::PROGRESS
            && let Some(peer) = self.peers.get_mut(&osd)
        {
            peer.info.last_backfill.clone_from(&reached);
        }
        self.send_backfill_progress(osd, op, reached);
    }

    /// Objects are still recovered by the log, here or at a member: that goes first.
    pub(crate) fn recovers_by_log(&self) -> bool {
        let lacks = |osd: &i32| self.missing_of(*osd).is_some_and(|m| !m.is_empty());
        !self.missing().is_empty() || self.members().iter().any(lacks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::tests::{object, v};

    #[test]
    fn what_differs_is_copied() {
        let mut names = ["a", "b", "c", "d", "e"].map(object);
        names.sort();
        let [a, b, c, d, e] = names;
        let mut backfill = Backfill::from(a.clone());
        backfill.scanning = true;
        backfill.touched(&e);
        let ours = [(b.clone(), v(1, 1)), (c.clone(), v(2, 5))].into();
        let theirs = [(b.clone(), v(1, 1)), (c.clone(), v(1, 3)), (d.clone(), v(1, 2))].into();
        assert!(backfill.has_passed(&a) && !backfill.has_passed(&b));
        backfill.compared(e.clone(), &ours, &theirs);
        assert!(backfill.has_passed(&e) && !backfill.copies(&b));
        assert!([&c, &d, &e].into_iter().all(|o| backfill.copies(o)));
    }
}
