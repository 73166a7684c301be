//! Objects: names with their place in a PG's order, locators, snapshots, request ids.

use std::cmp::Ordering;
use std::fmt;

use bytes::Bytes;

use crate::denc::encode_versioned;
use crate::types::EntityName;
use crate::{Decode, DecodeError, Denc, Encode, Features, Reader};

/// `snapid_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Denc)]
pub struct SnapId(pub u64);

impl SnapId {
    /// The live object (`CEPH_NOSNAP`).
    pub const HEAD: Self = Self(u64::MAX - 1);
    /// All clones together (`CEPH_SNAPDIR`).
    pub const DIR: Self = Self(u64::MAX);
}

impl fmt::Display for SnapId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::HEAD => f.write_str("head"),
            Self::DIR => f.write_str("snapdir"),
            Self(id) => write!(f, "{id:x}"),
        }
    }
}

/// `SnapContext`: the newest snapshot id and the existing ones, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default, Denc)]
pub struct SnapContext {
    pub seq: SnapId,
    pub snaps: Vec<SnapId>,
}

impl SnapContext {
    /// Strictly descending and not above `seq`.
    pub fn is_valid(&self) -> bool {
        self.snaps.first().is_none_or(|newest| *newest <= self.seq)
            && self.snaps.windows(2).all(|w| w[0] > w[1])
    }
}

/// `hobject_t`: an object of a pool, in the order in which a PG keeps and lists its objects.
///
/// Names are bytes: clients may use any.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HObject {
    pub key: Bytes,
    pub oid: Bytes,
    pub snap: SnapId,
    pub hash: u32,
    pub max: bool,
    pub nspace: Bytes,
    pub pool: i64,
}

impl HObject {
    /// Before every object.
    pub fn min() -> Self {
        Self {
            key: Bytes::new(),
            oid: Bytes::new(),
            snap: SnapId(0),
            hash: 0,
            max: false,
            nspace: Bytes::new(),
            pool: i64::MIN,
        }
    }

    /// After every object.
    pub fn max() -> Self {
        Self { max: true, ..Self::min() }
    }

    pub fn is_min(&self) -> bool {
        *self == Self::min()
    }

    pub fn is_max(&self) -> bool {
        self.max
    }

    /// The hash as the order uses it: most significant bit last.
    pub fn reversed_hash(&self) -> u32 {
        self.hash.reverse_bits()
    }

    /// What decides placement: the locator key, or the name without one.
    pub fn effective_key(&self) -> &Bytes {
        if self.key.is_empty() { &self.oid } else { &self.key }
    }

    /// The smallest object of the slot with this hash in this pool.
    pub fn at_hash(pool: i64, hash: u32) -> Self {
        Self { pool, hash, ..Self::min() }
    }
}

impl Default for HObject {
    fn default() -> Self {
        Self::min()
    }
}

impl Ord for HObject {
    fn cmp(&self, other: &Self) -> Ordering {
        if self.max || other.max {
            return self.max.cmp(&other.max);
        }
        self.pool
            .cmp(&other.pool)
            .then_with(|| self.reversed_hash().cmp(&other.reversed_hash()))
            .then_with(|| self.nspace.cmp(&other.nspace))
            .then_with(|| self.effective_key().cmp(other.effective_key()))
            .then_with(|| self.oid.cmp(&other.oid))
            .then_with(|| self.snap.cmp(&other.snap))
            // Ceph stops above; a key that repeats the name must still differ from no key, or
            // `Eq` and `Ord` would disagree.
            .then_with(|| self.key.cmp(&other.key))
    }
}

impl PartialOrd for HObject {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Encode for HObject {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        encode_versioned(out, 4, 3, |out| {
            self.key.encode(out, f);
            self.oid.encode(out, f);
            self.snap.encode(out, f);
            self.hash.encode(out, f);
            self.max.encode(out, f);
            self.nspace.encode(out, f);
            self.pool.encode(out, f);
        });
    }
}

impl Decode for HObject {
    const MIN_SIZE: usize = 6;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.versioned("hobject_t", 4, |version, r| {
            if version < 4 {
                return Err(DecodeError::TooOld { what: "hobject_t", version, oldest: 4 });
            }
            let object = Self {
                key: Bytes::decode(r)?,
                oid: Bytes::decode(r)?,
                snap: SnapId::decode(r)?,
                hash: r.u32()?,
                max: bool::decode(r)?,
                nspace: Bytes::decode(r)?,
                pool: r.i64()?,
            };
            // Some old clients send pool -1 for "before everything".
            if object == (Self { pool: -1, ..Self::min() }) {
                return Ok(Self::min());
            }
            Ok(object)
        })
    }
}

/// `pool:reversed-hash:namespace:key:name:snap`, as `ceph pg` commands print it.
impl fmt::Display for HObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.max {
            return f.write_str("MAX");
        }
        if self.is_min() {
            return f.write_str("MIN");
        }
        let text = |b: &Bytes| b.escape_ascii().to_string();
        write!(
            f,
            "{}:{:08x}:{}:{}:{}:{}",
            self.pool,
            self.reversed_hash(),
            text(&self.nspace),
            text(&self.key),
            text(&self.oid),
            self.snap
        )
    }
}

/// `object_locator_t`: the pool and what decides the PG inside it. `hash` is -1 when unset, and
/// excludes a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectLocator {
    pub pool: i64,
    pub key: Bytes,
    pub nspace: Bytes,
    pub hash: i64,
}

impl ObjectLocator {
    pub fn pool(pool: i64) -> Self {
        Self { pool, ..Self::default() }
    }
}

impl Default for ObjectLocator {
    fn default() -> Self {
        Self { pool: -1, key: Bytes::new(), nspace: Bytes::new(), hash: -1 }
    }
}

impl Encode for ObjectLocator {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        let compat = if self.hash == -1 { 3 } else { 6 };
        encode_versioned(out, 6, compat, |out| {
            self.pool.encode(out, f);
            (-1i32).encode(out, f);
            self.key.encode(out, f);
            self.nspace.encode(out, f);
            self.hash.encode(out, f);
        });
    }
}

impl Decode for ObjectLocator {
    const MIN_SIZE: usize = 6;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.versioned("object_locator_t", 6, |version, r| {
            if version < 5 {
                return Err(DecodeError::TooOld { what: "object_locator_t", version, oldest: 5 });
            }
            let pool = r.i64()?;
            r.skip(4, "preferred OSD")?;
            let (key, nspace) = (Bytes::decode(r)?, Bytes::decode(r)?);
            let hash = if version >= 6 { r.i64()? } else { -1 };
            if hash != -1 && !key.is_empty() {
                let what = "object_locator_t with a key and a hash";
                return Err(DecodeError::Invalid { what, value: hash as u64 });
            }
            Ok(Self { pool, key, nspace, hash })
        })
    }
}

/// `osd_reqid_t`: who asked, which request, in which incarnation of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Denc)]
#[denc(version = 2, compat = 2)]
pub struct RequestId {
    pub name: EntityName,
    pub tid: u64,
    pub inc: i32,
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}:{}", self.name, self.inc, self.tid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(hash: u32, name: &'static str) -> HObject {
        HObject { oid: name.into(), hash, snap: SnapId::HEAD, pool: 1, ..HObject::min() }
    }

    #[test]
    fn the_order_is_by_reversed_hash() {
        let (low, high) = (object(0x8000_0000, "z"), object(1, "a"));
        assert!(low < high);
        assert!(HObject::min() < low && high < HObject::max());
        assert!(HObject::at_hash(1, 1) < high);
        let clone = HObject { snap: SnapId(3), ..high.clone() };
        assert!(clone < high);
        assert_eq!(high.to_string(), "1:80000000:::a:head");
    }

    #[test]
    fn objects_and_locators_round_trip() {
        let f = Features::PACIFIC;
        for o in [HObject::min(), HObject::max(), object(7, "x")] {
            assert_eq!(HObject::from_bytes(&o.to_bytes(f)), Ok(o));
        }
        let minus_one = HObject { pool: -1, ..HObject::min() };
        assert_eq!(HObject::from_bytes(&minus_one.to_bytes(f)), Ok(HObject::min()));
        let locator = ObjectLocator { hash: 9, ..ObjectLocator::pool(4) };
        assert_eq!(locator.to_bytes(f)[..2], [6, 6]);
        assert_eq!(ObjectLocator::from_bytes(&locator.to_bytes(f)), Ok(locator));
        let both = ObjectLocator { hash: 9, key: "k".into(), ..ObjectLocator::pool(4) };
        assert!(ObjectLocator::from_bytes(&both.to_bytes(f)).is_err());
    }
}
