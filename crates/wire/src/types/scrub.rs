//! What scrubs see of objects and find wrong (`rados_types.hpp`, `scrub_types.h`), and the attributes of
//! objects as Ceph keeps them, which listings of errors carry.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{EVersion, HObject, ObjectLocator, RequestId, SnapId, UTime};
use crate::denc::encode_versioned;
use crate::{Denc, Encode, Features};

/// The attribute with the [`StoredInfo`] of an object; those of users begin with it.
pub const INFO_ATTR: &[u8] = b"_";
/// The attribute with the [`StoredSnapSet`] of a head.
pub const SNAPSET_ATTR: &[u8] = b"snapset";

/// Errors of one copy (`err_t`).
pub mod shard_error {
    pub const MISSING: u64 = 1 << 1;
    pub const STAT: u64 = 1 << 2;
    pub const READ: u64 = 1 << 3;
    pub const SIZE_MISMATCH_INFO: u64 = 1 << 11;
    pub const INFO_MISSING: u64 = 1 << 14;
    pub const INFO_CORRUPTED: u64 = 1 << 15;
    pub const SNAPSET_CORRUPTED: u64 = 1 << 17;
    pub const OBJ_SIZE_INFO_MISMATCH: u64 = 1 << 18;

    /// Those that only a deep scrub finds.
    pub const DEEP: u64 = READ;
}

/// Differences between copies (`obj_err_t`).
pub mod object_error {
    pub const OBJECT_INFO_INCONSISTENCY: u64 = 1 << 1;
    pub const DATA_DIGEST_MISMATCH: u64 = 1 << 4;
    pub const OMAP_DIGEST_MISMATCH: u64 = 1 << 5;
    pub const SIZE_MISMATCH: u64 = 1 << 6;
    pub const ATTR_VALUE_MISMATCH: u64 = 1 << 7;
    pub const ATTR_NAME_MISMATCH: u64 = 1 << 8;
    pub const SNAPSET_INCONSISTENCY: u64 = 1 << 9;

    /// Those that only a deep scrub finds.
    pub const DEEP: u64 = DATA_DIGEST_MISMATCH | OMAP_DIGEST_MISMATCH;
}

/// A head or a clone as one copy has it: what copies tell each other (`docs/protocol-osd.md`).
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
pub struct ScrubObject {
    /// Of the whole object, head and clones, as recovery asks for it.
    pub stored: EVersion,
    /// What its info says.
    pub version: EVersion,
    pub user_version: u64,
    pub info_size: u64,
    /// What is stored.
    pub size: u64,
    pub attrs: BTreeMap<Bytes, Bytes>,
    /// A checksum of the records that no attribute shows.
    pub records: u32,
    /// Of a deep scrub, where it could be read.
    pub data_digest: Option<u32>,
    pub omap_digest: Option<u32>,
    /// Of [`shard_error`].
    pub errors: u64,
}

/// What a copy has of an object with errors (`shard_info_t`).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct InconsistentShard {
    pub errors: u64,
    pub primary: bool,
    /// Its info is what others are compared with.
    pub selected: bool,
    pub attrs: BTreeMap<Bytes, Bytes>,
    pub size: u64,
    pub omap_digest: Option<u32>,
    pub data_digest: Option<u32>,
}

impl Encode for InconsistentShard {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        encode_versioned(out, 3, 3, |out| {
            self.errors.encode(out, f);
            self.primary.encode(out, f);
            if self.errors & shard_error::MISSING != 0 {
                return;
            }
            self.attrs.encode(out, f);
            self.size.encode(out, f);
            for digest in [self.omap_digest, self.data_digest] {
                digest.is_some().encode(out, f);
                digest.unwrap_or(0).encode(out, f);
            }
            self.selected.encode(out, f);
        });
    }
}

/// An object whose copies differ, or of which one has errors (`inconsistent_obj_t`).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct InconsistentObject {
    /// Of [`object_error`].
    pub errors: u64,
    pub object: HObject,
    /// The user's version of the object.
    pub version: u64,
    /// By OSD.
    pub shards: BTreeMap<i32, InconsistentShard>,
}

impl InconsistentObject {
    /// What any copy has.
    pub fn union(&self) -> u64 {
        self.shards.values().fold(0, |all, shard| all | shard.errors)
    }
}

impl Encode for InconsistentObject {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        encode_versioned(out, 2, 2, |out| {
            self.errors.encode(out, f);
            encode_object_id(&self.object, out, f);
            self.version.encode(out, f);
            (self.shards.len() as u32).encode(out, f);
            for (osd, shard) in &self.shards {
                encode_versioned(out, 1, 1, |out| {
                    osd.encode(out, f);
                    // No part of an erasure code.
                    out.push(0xff);
                });
                shard.encode(out, f);
            }
            self.union().encode(out, f);
        });
    }
}

/// `object_id_t`.
fn encode_object_id(object: &HObject, out: &mut Vec<u8>, f: Features) {
    encode_versioned(out, 1, 1, |out| {
        object.oid.encode(out, f);
        object.nspace.encode(out, f);
        object.key.encode(out, f);
        object.snap.encode(out, f);
    });
}

/// What Ceph keeps of an object in [`INFO_ATTR`] (`object_info_t`), as far as objects here have it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct StoredInfo {
    pub object: HObject,
    pub version: EVersion,
    pub user_version: u64,
    pub size: u64,
    pub mtime: UTime,
    pub truncate: (u32, u64),
    pub dirty: bool,
    pub omap: bool,
    /// Expected object size, expected write size, flags.
    pub alloc_hint: (u64, u64, u32),
}

impl Encode for StoredInfo {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        let o = &self.object;
        let locator = ObjectLocator {
            pool: o.pool,
            key: o.key.clone(),
            nspace: o.nspace.clone(),
            ..ObjectLocator::default()
        };
        let flag = |on: bool, bit: u32| if on { bit } else { 0 };
        let flags = flag(self.dirty, 4) | flag(self.omap, 8);
        encode_versioned(out, 17, 8, |out| {
            o.encode(out, f);
            locator.encode(out, f);
            0u32.encode(out, f);
            self.version.encode(out, f);
            EVersion::default().encode(out, f);
            RequestId::default().encode(out, f);
            self.size.encode(out, f);
            self.mtime.encode(out, f);
            match o.snap == SnapId::HEAD {
                true => RequestId::default().encode(out, f),
                false => 0u32.encode(out, f),
            }
            u64::from(self.truncate.0).encode(out, f);
            self.truncate.1.encode(out, f);
            // Not lost; no watchers of the old kind.
            false.encode(out, f);
            0u32.encode(out, f);
            EVersion { epoch: 0, version: self.user_version }.encode(out, f);
            // No tmap, no watchers.
            false.encode(out, f);
            0u32.encode(out, f);
            flags.encode(out, f);
            self.mtime.encode(out, f);
            // No digests are kept.
            u32::MAX.encode(out, f);
            u32::MAX.encode(out, f);
            self.alloc_hint.0.encode(out, f);
            self.alloc_hint.1.encode(out, f);
            self.alloc_hint.2.encode(out, f);
        });
    }
}

/// What Ceph keeps in [`SNAPSET_ATTR`] (`SnapSet`).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct StoredSnapSet {
    pub seq: SnapId,
    /// Oldest first.
    pub clones: Vec<StoredClone>,
}

/// A clone in it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct StoredClone {
    pub id: SnapId,
    pub size: u64,
    /// Newest first.
    pub snaps: Vec<SnapId>,
    /// Offsets and lengths.
    pub overlap: Vec<(u64, u64)>,
}

impl Encode for StoredSnapSet {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        fn of<T>(set: &StoredSnapSet, value: impl Fn(&StoredClone) -> T) -> BTreeMap<SnapId, T> {
            set.clones.iter().map(|clone| (clone.id, value(clone))).collect()
        }
        encode_versioned(out, 3, 2, |out| {
            self.seq.encode(out, f);
            // There is a head; the snapshots are told by the clones.
            true.encode(out, f);
            Vec::<SnapId>::new().encode(out, f);
            self.clones.iter().map(|clone| clone.id).collect::<Vec<_>>().encode(out, f);
            of(self, |clone| clone.overlap.clone()).encode(out, f);
            of(self, |clone| clone.size).encode(out, f);
            of(self, |clone| clone.snaps.clone()).encode(out, f);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const F: Features = Features::PACIFIC;

    fn length_of(raw: &[u8]) -> usize {
        u32::from_le_bytes([raw[2], raw[3], raw[4], raw[5]]) as usize
    }

    /// Lengths by the fields of Ceph's structures.
    #[test]
    fn errors_are_laid_out_as_by_ceph() {
        let missing = InconsistentShard { errors: shard_error::MISSING, ..Default::default() };
        assert_eq!(missing.to_bytes(F), [&[3, 3, 9, 0, 0, 0, 2][..], &[0; 8]].concat());
        let read = InconsistentShard {
            errors: shard_error::READ,
            primary: true,
            omap_digest: Some(7),
            ..Default::default()
        };
        let raw = read.to_bytes(F);
        assert_eq!(length_of(&raw), 9 + 4 + 8 + 5 + 5 + 1);
        assert_eq!(raw[6 + 9 + 12..], [1, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let object = HObject { oid: "o".into(), snap: SnapId::HEAD, ..HObject::default() };
        let shards = [(0, missing), (2, read)].into();
        let found = InconsistentObject { object, shards, version: 5, ..Default::default() };
        assert_eq!(found.union(), shard_error::MISSING | shard_error::READ);
        let raw = found.to_bytes(F);
        let (id, osd) = (6 + 5 + 4 + 4 + 8, 6 + 5);
        assert_eq!(length_of(&raw), 8 + id + 8 + 4 + (osd + 15) + (osd + 38) + 8);
    }

    #[test]
    fn attributes_are_laid_out_as_by_ceph() {
        let info = StoredInfo { omap: true, ..StoredInfo::default() }.to_bytes(F);
        assert_eq!((info[0], info[1], length_of(&info)), (17, 8, info.len() - 6));
        let clone =
            StoredClone { id: SnapId(3), size: 9, snaps: vec![SnapId(3)], overlap: vec![(0, 4)] };
        let set = StoredSnapSet { seq: SnapId(4), clones: vec![clone] }.to_bytes(F);
        assert_eq!(length_of(&set), 8 + 1 + 4 + 12 + (4 + 8 + 4 + 16) + (4 + 16) + (4 + 8 + 4 + 8));
    }
}
