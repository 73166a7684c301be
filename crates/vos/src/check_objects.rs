//! The part of the check that is about objects: each belongs to one container, or to garbage, and
//! containers count theirs right.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::check::CheckError;
use crate::garbage::Garbage;
use crate::parts::Part;
use crate::record::{TABLE_GARBAGE, TABLE_OBJECT};
use crate::tree;
use crate::types::{ContainerId, ReadError};
use crate::vos::Vos;

/// Garbage entries looked at in one go.
const BATCH: usize = 100;

/// Who has a range of keys, up to the one after its last: a container, or garbage.
type Owner = (Option<Bytes>, Option<ContainerId>);

/// What was found of objects and of who has them.
pub(crate) struct Objects {
    /// By number and first key.
    owners: BTreeMap<u64, BTreeMap<Bytes, Owner>>,
    /// Numbers with a range that has two owners.
    disputed: Vec<u64>,
    /// Where to go on with the garbage, which must be known before the objects.
    garbage: Option<Vec<u8>>,
    /// Objects that exist, of those that are counted.
    counted: HashMap<ContainerId, u64>,
}

impl Objects {
    pub(crate) fn new() -> Objects {
        Objects {
            owners: BTreeMap::new(),
            disputed: Vec::new(),
            garbage: Some(vec![TABLE_GARBAGE]),
            counted: HashMap::new(),
        }
    }

    /// Takes in some of the garbage; whether there may be more.
    pub(crate) fn step(&mut self, vos: &Vos) -> Result<bool, ReadError> {
        let Some(from) = self.garbage.clone() else {
            return Ok(false);
        };
        let (mut found, mut next) = (Vec::new(), None);
        tree::scan(&vos.pool, vos.root, &from, Some(&[TABLE_GARBAGE + 1]), &mut |key, cell| {
            if found.len() >= BATCH {
                next = Some(key.to_vec());
                return Ok(ControlFlow::Break(()));
            }
            found.push(Garbage::decode(key, tree::load_value(&vos.pool, cell)?)?);
            Ok(ControlFlow::Continue(()))
        })?;
        for Garbage { number, from, to, .. } in
            found.into_iter().filter(|g| g.table == TABLE_OBJECT)
        {
            self.own(Part { from, to, number }, None);
        }
        self.garbage = next;
        Ok(true)
    }

    /// Takes in a part of a container, or of garbage.
    pub(crate) fn own(&mut self, part: Part, cid: Option<ContainerId>) {
        let ranges = self.owners.entry(part.number).or_default();
        if ranges.insert(part.from, (part.to, cid)).is_some() {
            self.disputed.push(part.number);
        }
    }

    /// Takes in an object; all owners must be known.
    pub(crate) fn object(
        &mut self,
        vos: &Vos,
        number: u64,
        key: &[u8],
        exists: bool,
    ) -> Result<(), CheckError> {
        let ranges = self.owners.get(&number);
        let range = ranges.and_then(|r| r.range(..=Bytes::copy_from_slice(key)).next_back());
        let owner = range.filter(|(_, (to, _))| to.as_ref().is_none_or(|to| *key < **to));
        let Some((_, (_, cid))) = owner else {
            return Err(CheckError::Owners { number, owners: 0 });
        };
        if let Some((cid, container)) = cid.and_then(|cid| vos.containers.get_key_value(&cid)) {
            let rest = container.record.uncounted.as_ref();
            let counted = exists && rest.is_none_or(|u| *key < *u.from);
            *self.counted.entry(*cid).or_default() += u64::from(counted);
        }
        Ok(())
    }

    /// Numbers that objects are under.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u64> {
        self.owners.keys().copied()
    }

    /// Compares the ranges with each other, and what was counted with what containers count.
    pub(crate) fn finish(&self, vos: &Vos) -> Result<(), CheckError> {
        let overlap = |ranges: &BTreeMap<Bytes, Owner>| {
            let ends = ranges.values().map(|(to, _)| to);
            let mut pairs = ends.zip(ranges.keys().skip(1));
            pairs.any(|(to, next)| to.as_ref().is_none_or(|to| to > next))
        };
        let disputed = self.owners.iter().find(|(_, ranges)| overlap(ranges)).map(|(n, _)| *n);
        if let Some(number) = disputed.or(self.disputed.first().copied()) {
            return Err(CheckError::Owners { number, owners: 2 });
        }
        for (cid, container) in &vos.containers {
            if self.counted.get(cid).copied().unwrap_or(0) != container.record.objects {
                return Err(CheckError::ObjectCount(*cid));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::ContainerRecord;
    use crate::vos::{Config, Container};

    const CID: ContainerId = ContainerId([1; 16]);

    fn part(from: &'static str, to: Option<&'static str>, number: u64) -> Part {
        Part { from: from.into(), to: to.map(Bytes::from), number }
    }

    fn owners(result: Result<(), CheckError>) -> Option<(u64, u64)> {
        match result {
            Err(CheckError::Owners { number, owners }) => Some((number, owners)),
            _ => None,
        }
    }

    #[test]
    fn each_key_has_one_owner() {
        let vos = Vos::format(Config::default(), 16, 4096, 0);
        let overlaps = |parts: &[Part]| {
            let mut objects = Objects::new();
            parts.iter().for_each(|p| objects.own(p.clone(), None));
            owners(objects.finish(&vos)).is_some()
        };
        let low = part("", Some("m"), 7);
        assert!(!overlaps(&[low.clone(), part("m", None, 7), part("a", None, 8)]));
        assert!(overlaps(&[low.clone(), part("l", None, 7)]));
        assert!(overlaps(&[low.clone(), part("", Some("a"), 7)]));
        assert!(overlaps(&[part("x", None, 7), part("a", None, 7), low.clone()]));
        let mut objects = Objects::new();
        objects.own(low, None);
        let mut at = |number, key: &str| owners(objects.object(&vos, number, key.as_bytes(), true));
        assert_eq!([at(7, "a"), at(7, "l")], [None, None]);
        assert_eq!([at(7, "m"), at(8, "a")], [Some((7, 0)), Some((8, 0))]);
    }

    #[test]
    fn what_is_counted_is_compared() {
        let mut vos = Vos::format(Config::default(), 16, 4096, 0);
        let rest = crate::parts::Uncounted { from: "k".into(), objects: 99, bytes: 0 };
        let mut record = ContainerRecord::new(7, Bytes::new(), None);
        (record.objects, record.uncounted) = (2, Some(rest));
        let mut check = |count: u64| {
            record.objects = count;
            let container = Container { record: record.clone(), stale: false };
            vos.containers.insert(CID, container);
            let mut objects = Objects::new();
            objects.own(part("", None, 7), Some(CID));
            for (key, exists) in [("a", true), ("b", false), ("c", true), ("k", true), ("x", true)]
            {
                objects.object(&vos, 7, key.as_bytes(), exists).unwrap();
            }
            objects.finish(&vos)
        };
        assert_eq!(check(2), Ok(()));
        assert_eq!(check(3), Err(CheckError::ObjectCount(CID)));
    }
}
