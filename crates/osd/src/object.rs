//! How a RADOS object lies in its PG's container: the ordered object key, the dkeys and akeys of
//! its parts, and the object info record.
//!
//! Key: one byte of kind, the bit-reversed hash (big-endian), namespace, effective locator key,
//! and the name where it differs from the key. Strings are escaped so that byte order is string
//! order; thus a PG lists its objects by walking a key range, and a split is a range too.
//!
//! Ceph orders objects of one hash, namespace and effective key by name; here an object without a
//! locator key comes first of those. Only this order is ever shown to clients, as cursors.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use spirula_wire::Denc;
use spirula_wire::types::{EVersion, HObject, PgId, SnapId, UTime};
use spirula_wire::{Decode, DecodeError, Encode, Features, Reader};

use crate::watch::Watchers;

/// Key of the object that holds the PG's own records (log, duplicates) in old containers.
pub const META_OBJECT: &[u8] = &[0];
const KIND_OBJECT: u8 = 1;

/// dkeys of an object's parts.
pub mod dkey {
    /// Object info (akey [`super::AKEY`]).
    pub const INFO: &[u8] = b"i";
    /// Data: one array (akey [`super::AKEY`]).
    pub const DATA: &[u8] = b"d";
    /// One akey per xattr.
    pub const XATTR: &[u8] = b"x";
    /// Omap header (akey [`super::AKEY`]).
    pub const OMAP_HEADER: &[u8] = b"h";
    /// One akey per omap key.
    pub const OMAP: &[u8] = b"m";
    /// Snapset (akey [`super::AKEY`]), and one akey per clone; stays when the head is deleted.
    pub const SNAPSET: &[u8] = b"s";
    /// What a deletion of the head removes.
    pub const HEAD: [&[u8]; 5] = [INFO, DATA, XATTR, OMAP_HEADER, OMAP];
    /// On the meta object: one akey per log entry.
    pub const LOG: &[u8] = b"l";
    /// On the meta object: one akey per batch of trimmed log entries.
    pub const DUPS: &[u8] = b"u";
    /// On the meta object: the snapshots that are gone from all objects (akey [`super::AKEY`]).
    pub const PURGED: &[u8] = b"p";
    /// On the meta object: what its last split or merge left (akey [`super::AKEY`]).
    pub const BASE: &[u8] = b"b";
    /// On the object of peering: what it knows of this copy (akey [`super::AKEY`]), and the missing objects
    /// (akey [`super::MISSING`]).
    pub const PEERING: &[u8] = b"g";

    /// On the meta object: one akey per object that has, or had, a clone with the snapshot.
    pub fn snap(id: spirula_wire::types::SnapId) -> [u8; 9] {
        let mut dkey = [b's'; 9];
        dkey[1..].copy_from_slice(&id.0.to_be_bytes());
        dkey
    }
}

/// The akey of parts that have one value.
pub const AKEY: &[u8] = b".";

/// The akey of the missing objects.
pub const MISSING: &[u8] = b"m";
/// Under the info of an object of which only clones are left: the version of the change that left them,
/// or of the last one of them.
pub const WHITEOUT: &[u8] = b"w";

/// The key of `o` (a head object) in its PG's container.
pub fn object_key(hash: u32, nspace: &[u8], key: &[u8], name: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(16 + nspace.len() + key.len() + name.len());
    out.put_u8(KIND_OBJECT);
    out.put_u32(hash.reverse_bits());
    put_escaped(&mut out, nspace);
    if key.is_empty() || key == name {
        put_escaped(&mut out, name);
    } else {
        put_escaped(&mut out, key);
        out.put_u8(1);
        out.put_slice(name);
    }
    out.freeze()
}

/// The first key at or after a listing cursor. A cursor without a name stands before all objects
/// of its hash and namespace.
pub fn cursor_key(cursor: &HObject) -> Bytes {
    if cursor.is_max() {
        return Bytes::from_static(&[KIND_OBJECT + 1]);
    }
    if cursor.oid.is_empty() && cursor.key.is_empty() {
        let mut out = BytesMut::with_capacity(8 + cursor.nspace.len());
        out.put_u8(KIND_OBJECT);
        out.put_u32(if cursor.is_min() { 0 } else { cursor.reversed_hash() });
        if !cursor.nspace.is_empty() {
            put_escaped(&mut out, &cursor.nspace);
        }
        return out.freeze();
    }
    object_key(cursor.hash, &cursor.nspace, &cursor.key, &cursor.oid)
}

/// The lowest key that a PG can have, however many PGs its pool has; names no object.
pub fn lowest_key(seed: u32) -> Bytes {
    let mut out = BytesMut::with_capacity(5);
    out.put_u8(KIND_OBJECT);
    out.put_u32(seed.reverse_bits());
    out.freeze()
}

/// The range of keys that a PG of a pool with `pg_num` PGs holds: from (inclusive), to (exclusive).
pub fn pg_bounds(pgid: PgId, pg_num: u32) -> (HObject, HObject) {
    let slot = |hash| HObject { snap: SnapId::HEAD, ..HObject::at_hash(pgid.pool, hash) };
    let reversed = u64::from(pgid.seed.reverse_bits());
    let end = (reversed | (0xffff_ffff_u64 >> split_bits(pgid.seed, pg_num))) + 1;
    let end = match u32::try_from(end) {
        Ok(end) => slot(end.reverse_bits()),
        Err(_) => HObject::max(),
    };
    (slot(pgid.seed), end)
}

/// Whether an object of this hash belongs to the PG.
pub fn pg_contains(pgid: PgId, pg_num: u32, hash: u32) -> bool {
    let mask = low_bits(split_bits(pgid.seed, pg_num));
    hash & mask == pgid.seed & mask
}

/// The head object that a key names; `None` for keys that are no object.
pub fn object_of_key(pool: i64, raw: &[u8]) -> Option<HObject> {
    let (&kind, rest) = raw.split_first()?;
    if kind != KIND_OBJECT {
        return None;
    }
    let (reversed, rest) = rest.split_first_chunk::<4>()?;
    let (nspace, rest) = take_escaped(rest)?;
    let (effective, rest) = take_escaped(rest)?;
    let (key, oid) = match rest.split_first() {
        None => (Bytes::new(), effective),
        Some((1, name)) => (effective, Bytes::copy_from_slice(name)),
        Some(_) => return None,
    };
    Some(HObject {
        key,
        oid,
        snap: SnapId::HEAD,
        hash: u32::from_be_bytes(*reversed).reverse_bits(),
        max: false,
        nspace,
        pool,
    })
}

/// What Ceph keeps in `object_info_t`, as far as a head object without snapshots needs it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ObjectInfo {
    pub version: EVersion,
    pub user_version: u64,
    pub size: u64,
    pub mtime: UTime,
    /// Whether the object ever got an omap value or header since it was made or cleared.
    pub omap: bool,
    /// Newest truncation seen by CephFS-style writes, and its size.
    pub truncate: Option<(u32, u64)>,
    /// Expected object size, expected write size, flags.
    pub alloc_hint: Option<(u64, u64, u32)>,
    /// Not changed since a client said so (UNDIRTY).
    pub clean: bool,
    /// What clients are shown instead of this object.
    pub redirect: Option<Box<Redirect>>,
    /// Parts that other objects have too, by their offset; none of a redirect.
    pub chunks: Chunks,
    pub watchers: Watchers,
}

/// A manifest of the kind `redirect`: requests go to another object.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Redirect {
    pub target: HObject,
    /// The target counts a reference of this object (class `cas`).
    pub referenced: bool,
}

/// A manifest of the kind `chunked`. No two parts overlap.
pub type Chunks = BTreeMap<u64, Chunk>;

/// A part of an object that is also found in another one, which counts a reference of it (class `cas`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Denc)]
pub struct Chunk {
    pub target: HObject,
    /// Where it begins in the target.
    pub offset: u64,
    pub length: u64,
    /// Only there: the object itself gave it up.
    pub missing: bool,
}

impl ObjectInfo {
    pub fn truncate_seq(&self) -> u32 {
        self.truncate.map_or(0, |(seq, _)| seq)
    }
}

const HAS_OMAP: u8 = 1;
const HAS_TRUNCATE: u8 = 2;
const HAS_HINT: u8 = 4;
const HAS_WATCHERS: u8 = 8;
const HAS_REDIRECT: u8 = 16;
const IS_REFERENCED: u8 = 32;
const IS_CLEAN: u8 = 64;
const HAS_CHUNKS: u8 = 128;
/// Version 1 had no watchers, version 2 no redirects, 3 no chunks; otherwise they were the same.
const INFO_VERSION: u8 = 4;

impl Encode for ObjectInfo {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        let flag = |on: bool, bit| if on { bit } else { 0 };
        out.push(INFO_VERSION);
        out.push(
            flag(self.omap, HAS_OMAP)
                | flag(self.truncate.is_some(), HAS_TRUNCATE)
                | flag(self.alloc_hint.is_some(), HAS_HINT)
                | flag(!self.watchers.is_empty(), HAS_WATCHERS)
                | flag(self.redirect.is_some(), HAS_REDIRECT)
                | flag(self.redirect.as_ref().is_some_and(|r| r.referenced), IS_REFERENCED)
                | flag(self.clean, IS_CLEAN)
                | flag(!self.chunks.is_empty(), HAS_CHUNKS),
        );
        self.version.encode(out, f);
        self.user_version.encode(out, f);
        self.size.encode(out, f);
        self.mtime.encode(out, f);
        if let Some((seq, size)) = self.truncate {
            seq.encode(out, f);
            size.encode(out, f);
        }
        if let Some((object, write, flags)) = self.alloc_hint {
            object.encode(out, f);
            write.encode(out, f);
            flags.encode(out, f);
        }
        if !self.watchers.is_empty() {
            self.watchers.encode(out, f);
        }
        if let Some(redirect) = &self.redirect {
            redirect.target.encode(out, f);
        }
        if !self.chunks.is_empty() {
            self.chunks.encode(out, f);
        }
    }
}

impl Decode for ObjectInfo {
    const MIN_SIZE: usize = 38;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let version = r.u8()?;
        if !(1..=INFO_VERSION).contains(&version) {
            let what = "object info version";
            return Err(DecodeError::Invalid { what, value: version.into() });
        }
        let has = r.u8()?;
        Ok(Self {
            omap: has & HAS_OMAP != 0,
            clean: has & IS_CLEAN != 0,
            version: EVersion::decode(r)?,
            user_version: r.u64()?,
            size: r.u64()?,
            mtime: UTime::decode(r)?,
            truncate: if has & HAS_TRUNCATE != 0 { Some((r.u32()?, r.u64()?)) } else { None },
            alloc_hint: if has & HAS_HINT != 0 {
                Some((r.u64()?, r.u64()?, r.u32()?))
            } else {
                None
            },
            watchers: if has & HAS_WATCHERS != 0 { Watchers::decode(r)? } else { Watchers::new() },
            redirect: if has & HAS_REDIRECT != 0 {
                let referenced = has & IS_REFERENCED != 0;
                Some(Box::new(Redirect { target: HObject::decode(r)?, referenced }))
            } else {
                None
            },
            chunks: if has & HAS_CHUNKS != 0 { Chunks::decode(r)? } else { Chunks::new() },
        })
    }
}

fn put_escaped(out: &mut BytesMut, s: &[u8]) {
    if s.contains(&0) {
        for &b in s {
            out.put_u8(b);
            if b == 0 {
                out.put_u8(0xff);
            }
        }
    } else {
        out.put_slice(s);
    }
    out.put_slice(&[0, 1]);
}

fn take_escaped(raw: &[u8]) -> Option<(Bytes, &[u8])> {
    let mut out = Vec::new();
    let mut rest = raw;
    loop {
        let at = rest.iter().position(|&b| b == 0)?;
        out.extend_from_slice(&rest[..at]);
        let after = rest.get(at + 2..)?;
        match rest[at + 1] {
            1 => return Some((out.into(), after)),
            0xff => out.push(0),
            _ => return None,
        }
        rest = after;
    }
}

/// How many low bits of the hash all objects of the PG share.
fn split_bits(seed: u32, pg_num: u32) -> u32 {
    let pg_num = pg_num.max(1);
    let bits = u32::BITS - pg_num.leading_zeros();
    if pg_num.is_power_of_two() {
        return bits - 1;
    }
    // Some PGs of the last round are split already, the others not yet.
    if (seed & low_bits(bits - 1)) < pg_num & low_bits(bits - 1) { bits } else { bits - 1 }
}

fn low_bits(n: u32) -> u32 {
    if n >= 32 { u32::MAX } else { (1 << n) - 1 }
}

#[cfg(test)]
mod tests {
    use spirula_wire::types::EntityName;

    use super::*;
    use crate::watch::{WatchInfo, WatchKey};

    fn object(hash: u32, nspace: &str, key: &str, oid: &str) -> HObject {
        HObject {
            key: key.to_owned().into(),
            oid: oid.to_owned().into(),
            snap: SnapId::HEAD,
            hash,
            max: false,
            nspace: nspace.to_owned().into(),
            pool: 3,
        }
    }

    fn key(o: &HObject) -> Bytes {
        object_key(o.hash, &o.nspace, &o.key, &o.oid)
    }

    #[test]
    fn key_order_is_object_order() {
        let mut objects = vec![];
        for hash in [0, 1, 2, 0x8000_0000, u32::MAX] {
            for nspace in ["", "a", "a\0", "b"] {
                for (k, name) in [("", "x"), ("", "x\0"), ("", "y"), ("xk", "a"), ("xk", "b")] {
                    objects.push(object(hash, nspace, k, name));
                }
            }
        }
        objects.sort();
        let keys: Vec<_> = objects.iter().map(key).collect();
        assert!(keys.windows(2).all(|w| w[0] < w[1]));
        for (o, k) in objects.iter().zip(&keys) {
            assert_eq!(object_of_key(3, k).as_ref(), Some(o));
        }
    }

    #[test]
    fn a_key_equal_to_the_name_is_no_key() {
        assert_eq!(key(&object(5, "", "n", "n")), key(&object(5, "", "", "n")));
    }

    #[test]
    fn cursors_stand_before_their_slot() {
        let o = object(5, "ns", "", "n");
        assert!(cursor_key(&HObject::min()) <= key(&object(0, "", "", "")));
        assert!(cursor_key(&HObject::at_hash(3, 5)) < key(&o));
        assert_eq!(cursor_key(&o), key(&o));
        assert!(cursor_key(&HObject::max()) > key(&object(u32::MAX, "\u{7f}", "", "z")));
        assert!(META_OBJECT < &cursor_key(&HObject::min())[..]);
    }

    #[test]
    fn bounds_of_pgs_meet_and_hold_their_objects() {
        for pg_num in [1u32, 2, 3, 8, 12, 13] {
            let mut bounds: Vec<_> =
                (0..pg_num).map(|seed| (seed, pg_bounds(PgId::new(3, seed), pg_num))).collect();
            bounds.sort_by(|a, b| a.1.0.cmp(&b.1.0));
            assert!(bounds.windows(2).all(|w| w[0].1.1 == w[1].1.0), "{pg_num}");
            assert!(bounds.last().is_some_and(|b| b.1.1.is_max()));
            for hash in (0..2000u32).map(|i| i.wrapping_mul(0x9e37_79b9)) {
                let holders: Vec<_> =
                    (0..pg_num).filter(|s| pg_contains(PgId::new(3, *s), pg_num, hash)).collect();
                assert_eq!(holders.len(), 1);
                let o = HObject { snap: SnapId::HEAD, ..object(hash, "", "", "n") };
                let (from, to) = pg_bounds(PgId::new(3, holders[0]), pg_num);
                assert!(from <= o && o < to);
            }
        }
    }

    #[test]
    fn info_of_the_first_version_is_read() {
        let info = ObjectInfo { size: 7, alloc_hint: Some((1, 2, 3)), ..ObjectInfo::default() };
        let mut raw = info.to_bytes(Features::PACIFIC);
        raw[0] = 1;
        assert_eq!(ObjectInfo::from_bytes(&raw), Ok(info));
        raw[0] = INFO_VERSION + 1;
        assert!(ObjectInfo::from_bytes(&raw).is_err());
    }

    #[test]
    fn info_round_trips_and_stays_small() {
        let plain = ObjectInfo { size: 7, user_version: 3, ..ObjectInfo::default() };
        assert_eq!(plain.to_bytes(Features::PACIFIC).len(), ObjectInfo::MIN_SIZE);
        let full = ObjectInfo {
            omap: true,
            truncate: Some((2, 9)),
            alloc_hint: Some((1, 2, 3)),
            clean: true,
            ..plain.clone()
        };
        let key = |cookie| WatchKey { cookie, entity: EntityName::client(4100) };
        let watch = WatchInfo { timeout_seconds: 30, addr: "127.0.0.1:0/7".parse().unwrap() };
        let watchers = [(key(1), watch), (key(2), WatchInfo::default())].into();
        let watched = ObjectInfo { watchers, ..plain.clone() };
        let redirect = |referenced| {
            let redirect = Redirect { target: object(5, "ns", "k", "n"), referenced };
            ObjectInfo { redirect: Some(Box::new(redirect)), ..watched.clone() }
        };
        let chunk = |offset, missing| Chunk {
            target: object(5, "ns", "k", "n"),
            offset,
            length: 4,
            missing,
        };
        let chunks = [(0, chunk(7, true)), (4, chunk(0, false))].into();
        let chunked = ObjectInfo { chunks, ..watched.clone() };
        for info in [plain, full, redirect(false), redirect(true), watched, chunked] {
            assert_eq!(ObjectInfo::from_bytes(&info.to_bytes(Features::PACIFIC)), Ok(info));
        }
    }
}
