//! Snapshots of RADOS objects on retained epochs.
//!
//! A head object and its clones are one object of the store. The first write with a newer snapshot
//! context makes a *clone*: it has the store retain the epoch before it, and copies nothing; reads at
//! the snapshot read at that epoch. What clones there are is the *snapset*, under a dkey of its own that
//! the deletion of the head leaves. An object with clones and without a head is a *whiteout*.
//!
//! The rules for contexts, overlaps, rollback and trimming are Ceph's (`PrimaryLogPG`), so that what
//! `list_snaps` shows, and statistics, agree with it.

mod apply;
mod place;
mod ranges;
mod rules;
#[cfg(test)]
mod tests;
pub mod trim;

use spirula_maps::SnapIntervals;
use spirula_wire::types::{SnapContext, SnapId};
use spirula_wire::{Decode, DecodeError, Encode, Features, Reader};

pub use apply::{ObjectChange, apply_object};
pub use place::{NO_CONTEXT, Place, PoolSnaps, SnapScope, refuses_context};
pub use ranges::Ranges;
pub use rules::{Write, make_writeable, rolled_back, trimmed};

/// Version 1 did not tell the newest clone.
const SNAPSET_VERSION: u8 = 2;
const CLONE_VERSION: u8 = 1;
const HAS_OMAP: u8 = 1;

/// The clones of an object, and the newest snapshot context that it was written with.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SnapSet {
    pub seq: SnapId,
    /// Oldest first.
    pub clones: Vec<SnapClone>,
}

/// The object as it was when some snapshots were taken.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SnapClone {
    pub id: SnapId,
    /// The retained epoch at which it is read; 0 until its transaction is made.
    pub epoch: u64,
    pub size: u64,
    pub omap: bool,
    /// The snapshots that show it, newest first.
    pub snaps: Vec<SnapId>,
    /// What it has in common with the next newer clone, or the head.
    pub overlap: Ranges,
}

impl SnapClone {
    /// Bytes that only the clone holds.
    pub fn bytes(&self) -> i64 {
        self.size as i64 - self.overlap.len() as i64
    }
}

/// What a snapshot shows of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown<'a> {
    /// The head, if it exists: it has not been written since.
    Head,
    Clone(&'a SnapClone),
    Nothing,
}

impl SnapSet {
    /// What the snapshot shows, if it is not among the removed ones.
    pub fn shown(&self, snap: SnapId, removed: &SnapIntervals) -> Shown<'_> {
        if snap > self.seq {
            return Shown::Head;
        }
        match self.clones.iter().find(|c| c.id >= snap) {
            Some(c) if c.snaps.contains(&snap) && !removed.contains(snap.0) => Shown::Clone(c),
            _ => Shown::Nothing,
        }
    }

    /// Whether the context has a snapshot that the object has not been written with.
    pub fn is_behind(&self, context: &SnapContext) -> bool {
        context.snaps.first().is_some_and(|newest| *newest > self.seq)
    }

    /// The epochs at which clones are read.
    pub fn epochs(&self) -> Vec<u64> {
        self.clones.iter().map(|c| c.epoch).collect()
    }

    pub fn clone_of(&self, id: SnapId) -> Option<&SnapClone> {
        self.clones.iter().find(|c| c.id == id)
    }
}

/// Which clones of a snapset are asked for; others may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clones {
    All,
    /// What a write changes, unless it makes one.
    Newest,
    /// What may show a snapshot.
    Showing(SnapId),
}

/// A snapset after a change, and what of it has to be stored.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SnapChange {
    /// All clones if one was made or is gone; else perhaps only the newest.
    pub set: SnapSet,
    /// The newest context or clone is another one.
    pub header: bool,
    /// The newest clone is new.
    pub made: bool,
    /// Clones that differ, with the new one.
    pub changed: Vec<SnapId>,
    pub gone: Vec<SnapId>,
}

impl SnapChange {
    /// Nothing has changed yet.
    pub fn of(set: SnapSet) -> Self {
        Self { set, ..Self::default() }
    }

    /// The clone that was made is read at `epoch`: nothing of the object was written since.
    pub fn settle(&mut self, epoch: u64) {
        if let (true, Some(clone)) = (self.made, self.set.clones.last_mut()) {
            clone.epoch = epoch;
        }
    }

    /// Whether nothing has to be stored, nor is there anything that a removal leaves.
    pub fn is_nothing(&self) -> bool {
        let same = !self.header && self.changed.is_empty() && self.gone.is_empty();
        same && self.set == SnapSet::default()
    }
}

/// What of a snapset belongs to no clone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SnapHeader {
    pub(crate) seq: SnapId,
    /// 0 if there is no clone. `None`: an old record, which does not tell.
    pub(crate) newest: Option<SnapId>,
}

impl SnapHeader {
    pub(crate) fn of(set: &SnapSet) -> Self {
        let newest = set.clones.last().map(|c| c.id).unwrap_or_default();
        Self { seq: set.seq, newest: Some(newest) }
    }
}

impl Encode for SnapHeader {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        out.push(if self.newest.is_some() { SNAPSET_VERSION } else { 1 });
        self.seq.encode(out, f);
        self.newest.iter().for_each(|id| id.encode(out, f));
    }
}

impl Decode for SnapHeader {
    const MIN_SIZE: usize = 9;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let version = r.u8()?;
        let seq = SnapId::decode(r)?;
        if version == 1 {
            return Ok(Self { seq, newest: None });
        }
        check("snapset version", version, SNAPSET_VERSION)?;
        Ok(Self { seq, newest: Some(SnapId::decode(r)?) })
    }
}

/// The akey of a clone's record: clones are listed oldest first.
pub(crate) fn clone_akey(id: SnapId) -> [u8; 9] {
    let mut key = [CLONE_MARK; 9];
    key[1..].copy_from_slice(&id.0.to_be_bytes());
    key
}

/// Sorts behind the akey of the snapset's own record.
const CLONE_MARK: u8 = b'c';

/// The clone's id, of its akey.
pub(crate) fn clone_of_akey(akey: &[u8]) -> Option<SnapId> {
    let id = akey.strip_prefix(&[CLONE_MARK])?.try_into().ok()?;
    Some(SnapId(u64::from_be_bytes(id)))
}

/// The record without the id, which its akey tells.
impl Encode for SnapClone {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        out.extend([CLONE_VERSION, if self.omap { HAS_OMAP } else { 0 }]);
        self.epoch.encode(out, f);
        self.size.encode(out, f);
        self.snaps.encode(out, f);
        (self.overlap.as_slice().len() as u32).encode(out, f);
        self.overlap.as_slice().iter().for_each(|range| range.encode(out, f));
    }
}

impl Decode for SnapClone {
    const MIN_SIZE: usize = 26;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        check("clone version", r.u8()?, CLONE_VERSION)?;
        let flags = r.u8()?;
        Ok(Self {
            id: SnapId(0),
            omap: flags & HAS_OMAP != 0,
            epoch: r.u64()?,
            size: r.u64()?,
            snaps: Vec::decode(r)?,
            overlap: Ranges::collect(Vec::<(u64, u64)>::decode(r)?),
        })
    }
}

fn check(what: &'static str, found: u8, known: u8) -> Result<(), DecodeError> {
    if found == known {
        return Ok(());
    }
    Err(DecodeError::Invalid { what, value: found.into() })
}
