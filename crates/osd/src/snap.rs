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
pub use place::{Place, SnapScope, refuses_context};
pub use ranges::Ranges;
pub use rules::{Write, make_writeable, rolled_back, trimmed};

const SNAPSET_VERSION: u8 = 1;
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

    /// The epochs at which clones are read.
    pub fn epochs(&self) -> Vec<u64> {
        self.clones.iter().map(|c| c.epoch).collect()
    }

    pub fn clone_of(&self, id: SnapId) -> Option<&SnapClone> {
        self.clones.iter().find(|c| c.id == id)
    }
}

/// What happened to a snapset.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SnapChange {
    pub before: SnapSet,
    pub after: SnapSet,
}

impl SnapChange {
    /// A clone that was made is read at `epoch`: nothing of the object was written since.
    pub fn settle(&mut self, epoch: u64) {
        self.after.clones.iter_mut().filter(|c| c.epoch == 0).for_each(|c| c.epoch = epoch);
    }
}

/// A snapshot context without the snapshots that are being removed.
pub fn without_removed(context: &SnapContext, removed: &SnapIntervals) -> SnapContext {
    let snaps = context.snaps.iter().copied().filter(|s| !removed.contains(s.0));
    SnapContext { seq: context.seq, snaps: snaps.collect() }
}

/// The snapset's own record: what belongs to no clone.
pub(crate) fn encode_seq(seq: SnapId) -> Vec<u8> {
    let mut out = vec![SNAPSET_VERSION];
    seq.encode(&mut out, Features::PACIFIC);
    out
}

pub(crate) fn decode_seq(raw: &[u8]) -> Result<SnapId, DecodeError> {
    let mut r = Reader::new(raw);
    check("snapset version", r.u8()?, SNAPSET_VERSION)?;
    SnapId::decode(&mut r)
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
