//! Objects whose log entries a copy has, but not (yet) their contents.
//!
//! Invariant: an object is in the set if and only if the copy's state of it is older than the log
//! says; what backfill has not reached is not in the set.

use std::collections::{BTreeMap, BTreeSet};

use spirula_wire::types::{CleanRegions, EVersion, HObject, MissingItem, PgLogEntry, PgMissing};

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MissingObject {
    /// What it should be at.
    pub need: EVersion,
    /// What it is at; zero: it is not there.
    pub have: EVersion,
    /// It should not be there.
    pub delete: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Missing {
    items: BTreeMap<HObject, MissingObject>,
    /// The same by what they need: the order of recovery.
    by_need: BTreeSet<(EVersion, HObject)>,
}

impl Missing {
    pub fn get(&self, object: &HObject) -> Option<&MissingObject> {
        self.items.get(object)
    }

    pub fn contains(&self, object: &HObject) -> bool {
        self.items.contains_key(object)
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&HObject, &MissingObject)> {
        self.items.iter()
    }

    /// Oldest need first.
    pub fn in_order(&self) -> impl Iterator<Item = (&HObject, EVersion)> {
        self.by_need.iter().map(|(need, object)| (object, *need))
    }

    pub fn oldest_need(&self) -> Option<EVersion> {
        self.by_need.first().map(|(need, _)| *need)
    }

    pub fn set(&mut self, object: HObject, item: MissingObject) {
        if let Some(old) = self.items.insert(object.clone(), item) {
            self.by_need.remove(&(old.need, object.clone()));
        }
        self.by_need.insert((item.need, object));
    }

    pub fn remove(&mut self, object: &HObject) -> Option<MissingObject> {
        let old = self.items.remove(object)?;
        self.by_need.remove(&(old.need, object.clone()));
        Some(old)
    }

    /// The object was recovered at `version`; older than needed is not enough.
    pub fn got(&mut self, object: &HObject, version: EVersion) -> bool {
        self.get(object).is_some_and(|i| i.need <= version) && self.remove(object).is_some()
    }

    /// The log got an entry whose transaction was not carried out here.
    pub fn add_event(&mut self, entry: &PgLogEntry) {
        if !entry.is_update() {
            return;
        }
        let have = self.get(&entry.object).map_or(entry.prior_version, |i| i.have);
        let item = MissingObject { need: entry.version, have, delete: entry.is_delete() };
        self.set(entry.object.clone(), item);
    }

    /// Takes off what belongs to a child of a split.
    pub fn split(&mut self, in_child: impl Fn(&HObject) -> bool) -> Self {
        let mut child = Self::default();
        let names: Vec<_> = self.items.keys().filter(|o| in_child(o)).cloned().collect();
        for name in names {
            if let Some(item) = self.remove(&name) {
                child.set(name, item);
            }
        }
        child
    }

    pub fn to_wire(&self) -> PgMissing {
        let item = |i: &MissingObject| MissingItem {
            need: i.need,
            have: i.have,
            flags: if i.delete { MissingItem::DELETE } else { 0 },
            clean_regions: CleanRegions::all_dirty(),
        };
        let items = self.items.iter().map(|(o, i)| (o.clone(), item(i))).collect();
        PgMissing { items, may_include_deletes: true }
    }
}

impl From<PgMissing> for Missing {
    fn from(wire: PgMissing) -> Self {
        let mut missing = Self::default();
        for (object, i) in wire.items {
            let delete = i.flags & MissingItem::DELETE != 0;
            missing.set(object, MissingObject { need: i.need, have: i.have, delete });
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::tests::{entry, object, v};

    #[test]
    fn events_and_recovery() {
        let mut m = Missing::default();
        m.add_event(&entry("a", v(1, 5), v(1, 2)));
        m.add_event(&entry("b", v(1, 6), v(0, 0)));
        m.add_event(&entry("a", v(1, 7), v(1, 5)));
        assert_eq!(
            m.get(&object("a")),
            Some(&MissingObject { need: v(1, 7), have: v(1, 2), delete: false })
        );
        assert_eq!(m.in_order().map(|(_, n)| n).collect::<Vec<_>>(), [v(1, 6), v(1, 7)]);
        assert!(!m.got(&object("a"), v(1, 5)) && m.got(&object("a"), v(1, 7)));
        assert_eq!((m.len(), m.oldest_need()), (1, Some(v(1, 6))));
        assert_eq!(Missing::from(m.to_wire()), m);
        let child = m.split(|o| *o == object("b"));
        assert_eq!((m.is_empty(), child.len()), (true, 1));
    }
}
