//! Which object is copied from whom to whom, and in which order.
//!
//! What clients wait for goes first; then this copy's own missing objects, oldest need first, since
//! only whole objects can be given to others; then those of the members; backfill last.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use spirula_wire::types::{EVersion, HObject};

use crate::backfill::Backfill;
use crate::missing::Missing;
use crate::peering::{Peering, State};

/// One object to copy. What is not there at its source is removed at its destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recover {
    /// From one of these, in an order that spreads the load.
    Pull { object: HObject, need: EVersion, from: Vec<i32> },
    /// To these, as it is here.
    Push { object: HObject, to: Vec<i32> },
}

impl Recover {
    pub fn object(&self) -> &HObject {
        match self {
            Self::Pull { object, .. } | Self::Push { object, .. } => object,
        }
    }
}

/// What is under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recovery {
    /// Objects being pulled.
    pulls: BTreeMap<HObject, EVersion>,
    /// Objects being pushed, and to whom still.
    pushes: BTreeMap<HObject, BTreeSet<i32>>,
    /// Objects that clients wait for.
    urgent: VecDeque<HObject>,
    /// Copies that failed to give an object: asked last.
    failed: BTreeSet<(HObject, i32)>,
    /// Others whose logs were asked for, to find unfound objects.
    pub(crate) asked: BTreeSet<i32>,
    pub(crate) backfills: BTreeMap<i32, Backfill>,
}

impl Recovery {
    fn under_way(&self) -> (Vec<HObject>, Vec<(HObject, BTreeSet<i32>)>) {
        let pushes = self.pushes.iter().map(|(object, to)| (object.clone(), to.clone()));
        (self.pulls.keys().cloned().collect(), pushes.collect())
    }

    pub(crate) fn is_busy(&self, object: &HObject) -> bool {
        self.pulls.contains_key(object) || self.pushes.contains_key(object)
    }

    /// Backfill is copying the object somewhere.
    pub(crate) fn copies(&self, object: &HObject) -> bool {
        self.backfills.values().any(|b| b.copies(object))
    }

    fn copies_to(&self, osd: i32, object: &HObject) -> bool {
        self.backfills.get(&osd).is_some_and(|b| b.copies(object))
    }

    pub(crate) fn has_passed(&self, osd: i32, object: &HObject) -> bool {
        self.backfills.get(&osd).is_some_and(|b| b.has_passed(object))
    }

    pub(crate) fn touched(&mut self, osd: i32, object: &HObject) {
        if let Some(backfill) = self.backfills.get_mut(&osd) {
            backfill.touched(object);
        }
    }

    pub(crate) fn forget_sources(&mut self, is_up: impl Fn(i32) -> bool) {
        self.asked.retain(|&osd| is_up(osd));
        self.failed.retain(|(_, osd)| is_up(*osd));
    }

    pub(crate) fn push_started(&mut self, object: &HObject, to: i32) {
        self.pushes.entry(object.clone()).or_default().insert(to);
    }
}

impl Peering {
    /// Objects that are being pulled, and those being pushed, with to whom still.
    pub fn recovering(&self) -> (Vec<HObject>, Vec<(HObject, BTreeSet<i32>)>) {
        self.recovery.under_way()
    }

    /// A client waits for this object.
    pub fn recover_soon(&mut self, object: &HObject) {
        if !self.recovery.urgent.contains(object) {
            self.recovery.urgent.push_back(object.clone());
        }
    }

    /// Begins to recover up to `max` more objects.
    pub fn recover(&mut self, max: usize) -> Vec<Recover> {
        let mut found = Vec::new();
        if !self.is_peered() {
            return found;
        }
        let urgent: Vec<HObject> = self.recovery.urgent.drain(..).collect();
        let mut candidates = urgent.clone();
        if self.may_recover() {
            candidates.extend(self.next_missing(max));
        }
        for object in candidates {
            let next = (found.len() < max && !self.recovery.is_busy(&object))
                .then(|| self.recover_object(&object))
                .flatten();
            match next {
                Some(next) => found.push(next),
                // What clients wait for stays first.
                None if urgent.contains(&object) && self.holds_up_write(&object).is_some() => {
                    self.recover_soon(&object);
                }
                None => {}
            }
        }
        if found.is_empty() && !self.recovers_by_log() {
            found = self.backfill_copies(max);
        }
        found
    }

    /// The next objects that can be pulled, and those that can be pushed.
    fn next_missing(&self, max: usize) -> Vec<HObject> {
        let idle = |object: &HObject| !self.recovery.is_busy(object);
        let can_pull = |object: &HObject, need| !self.sources(object, need).is_empty();
        let pulls = self.missing().in_order().filter(|(o, need)| idle(o) && can_pull(o, *need));
        let mut next: Vec<HObject> = pulls.take(max).map(|(o, _)| o.clone()).collect();
        for missing in self.members().iter().filter_map(|&osd| self.missing_of(osd)) {
            let whole = |object: &HObject| idle(object) && !self.missing().contains(object);
            let pushes = missing.in_order().filter(|(o, _)| whole(o));
            next.extend(pushes.take(max).map(|(o, _)| o.clone()));
        }
        next
    }

    /// Something is being recovered, or could be.
    pub(crate) fn can_recover(&self) -> bool {
        let idle = self.recovery.pulls.is_empty() && self.recovery.pushes.is_empty();
        !idle || !self.next_missing(1).is_empty()
    }

    fn recover_object(&mut self, object: &HObject) -> Option<Recover> {
        if let Some(item) = self.missing().get(object) {
            let need = item.need;
            let from = self.sources(object, need);
            if from.is_empty() {
                return None;
            }
            self.recovery.pulls.insert(object.clone(), need);
            return Some(Recover::Pull { object: object.clone(), need, from });
        }
        let lacks = |osd: &&i32| {
            let missing = self.peers.get(osd).and_then(|p| p.missing.as_ref());
            missing.is_some_and(|m| m.contains(object))
        };
        let fills = |osd: &&i32| self.recovery.copies_to(**osd, object);
        let to = self.members().iter().filter(|osd| lacks(osd) || fills(osd));
        let to: Vec<i32> = to.copied().collect();
        if to.is_empty() {
            return None;
        }
        to.iter().for_each(|&osd| self.recovery.push_started(object, osd));
        Some(Recover::Push { object: object.clone(), to })
    }

    /// The other copies that have the object at `need`, those that failed before last.
    pub fn sources(&self, object: &HObject, need: EVersion) -> Vec<i32> {
        let has = |osd: &i32| {
            self.peers.get(osd).is_some_and(|p| {
                let whole = p.missing.as_ref().is_some_and(|m| !m.contains(object));
                whole && p.info.last_update >= need && *object <= p.info.last_backfill
            })
        };
        let mut from: Vec<i32> = self.peers.keys().copied().filter(has).collect();
        from.sort_by_key(|&osd| self.recovery.failed.contains(&(object.clone(), osd)));
        from
    }

    /// Missing objects that no copy is known to have.
    pub fn unfound(&self) -> Vec<HObject> {
        let lost = |(object, item): &(&HObject, &crate::MissingObject)| {
            self.sources(object, item.need).is_empty()
        };
        self.missing().iter().filter(lost).map(|(o, _)| o.clone()).collect()
    }

    /// Whether the object is still waited for at `need`. A source that was given up may answer yet, when
    /// the object came from another one and was written to since.
    pub fn is_pulling(&self, object: &HObject, need: EVersion) -> bool {
        self.recovery.pulls.get(object) == Some(&need)
    }

    /// The object was pulled at `version`, which [`Peering::is_pulling`] was asked for before; it is stored by what is submitted in the same turn.
    pub fn pulled(&mut self, object: &HObject, version: EVersion) {
        self.recovery.pulls.remove(object);
        if self.missing_mut().got(object, version) {
            self.refresh_info();
        }
    }

    /// A copy stored a push of the object as it was when it was read here.
    pub fn pushed(&mut self, osd: i32, object: &HObject) {
        let Some(waiting) = self.recovery.pushes.get_mut(object) else {
            return;
        };
        waiting.remove(&osd);
        if waiting.is_empty() {
            self.recovery.pushes.remove(object);
        }
        if let Some(missing) = self.peers.get_mut(&osd).and_then(|p| p.missing.as_mut()) {
            missing.remove(object);
        }
        self.backfill_pushed(osd, object);
    }

    /// A source could not give the object, or the push did not arrive: it is tried again.
    pub fn recovery_failed(&mut self, object: &HObject, osd: i32) {
        self.recovery.failed.insert((object.clone(), osd));
        self.recovery.pulls.remove(object);
        // Other members may be getting it yet.
        if let Some(to) = self.recovery.pushes.get_mut(object) {
            to.remove(&osd);
            if to.is_empty() {
                self.recovery.pushes.remove(object);
            }
        }
    }

    /// A copy got a push: it is stored by what is submitted in the same turn.
    pub fn got_push(&mut self, object: &HObject) {
        if self.missing_mut().remove(object).is_some() {
            self.refresh_info();
        }
    }

    /// After recovery made progress: whether that was all.
    pub fn check_progress(&mut self) {
        if self.state() == State::Active {
            self.check_recovered();
        }
    }

    pub(crate) fn missing_of(&self, osd: i32) -> Option<&Missing> {
        self.peers.get(&osd).and_then(|p| p.missing.as_ref())
    }
}
