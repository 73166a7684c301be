//! The references to a chunk (`chunk_refs_t`), in one of the forms that Ceph knows: exact ones, and
//! three that count them by less and less. New ones are exact; a counted form stays as it is stored
//! until the last reference goes.
//!
//! Source of the format: Ceph's `cls/cas/cls_cas_internal.h`, `include/denc.h`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use spirula_wire::denc::encode_versioned;
use spirula_wire::types::HObject;
use spirula_wire::{Decode, DecodeError, Encode, Features, Reader};

const BY_OBJECT: u8 = 1;
const BY_HASH: u8 = 2;
const BY_POOL: u8 = 4;
const COUNT: u8 = 5;

/// The references to one chunk.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refs {
    /// In order; an object may be there more than once.
    Objects(Vec<HObject>),
    /// How many come from objects of a pool whose hash has these lowest bits.
    Hashes {
        total: u64,
        bits: u32,
        counts: BTreeMap<(i64, u32), u64>,
    },
    Pools {
        total: u64,
        counts: BTreeMap<i64, u64>,
    },
    Count(u64),
}

impl Default for Refs {
    fn default() -> Self {
        Self::Objects(Vec::new())
    }
}

impl Refs {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Objects(objects) => objects.is_empty(),
            Self::Hashes { counts, .. } => counts.is_empty(),
            Self::Pools { counts, .. } => counts.is_empty(),
            Self::Count(total) => *total == 0,
        }
    }

    pub(super) fn get(&mut self, source: HObject) {
        match self {
            Self::Objects(objects) => {
                let at = objects.partition_point(|object| *object <= source);
                objects.insert(at, source);
            }
            Self::Hashes { total, bits, counts } => {
                *total = total.wrapping_add(1);
                raise(counts, (source.pool, source.hash & mask(*bits)));
            }
            Self::Pools { total, counts } => {
                *total = total.wrapping_add(1);
                raise(counts, source.pool);
            }
            Self::Count(total) => *total = total.wrapping_add(1),
        }
    }

    /// Whether there was one.
    pub(super) fn put(&mut self, source: &HObject) -> bool {
        let (found, left) = match self {
            Self::Objects(objects) => {
                let Ok(at) = objects.binary_search(source) else { return false };
                objects.remove(at);
                return true;
            }
            Self::Hashes { total, bits, counts } => {
                (lower(counts, (source.pool, source.hash & mask(*bits))), total)
            }
            Self::Pools { total, counts } => (lower(counts, source.pool), total),
            Self::Count(total) => (*total > 0, total),
        };
        if found {
            *left = left.wrapping_sub(1);
        }
        if *left == 0 {
            *self = Self::default();
        }
        found
    }
}

impl Encode for Refs {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        encode_versioned(out, 1, 1, |out| match self {
            Self::Objects(objects) => {
                out.push(BY_OBJECT);
                encode_versioned(out, 1, 1, |out| objects.encode(out, f));
            }
            Self::Hashes { total, bits, counts } => {
                out.push(BY_HASH);
                encode_versioned(out, 1, 1, |out| put_hashes(out, *total, *bits, counts));
            }
            Self::Pools { total, counts } => {
                out.push(BY_POOL);
                encode_versioned(out, 1, 1, |out| put_pools(out, *total, counts));
            }
            Self::Count(total) => {
                out.push(COUNT);
                encode_versioned(out, 1, 1, |out| total.encode(out, f));
            }
        });
    }
}

impl Decode for Refs {
    const MIN_SIZE: usize = 13;

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.versioned("chunk_refs_t", 1, |_, r| {
            let kind = r.u8()?;
            r.versioned("references", 1, |_, r| match kind {
                BY_OBJECT => Vec::decode(r).map(|mut objects: Vec<HObject>| {
                    objects.sort();
                    Self::Objects(objects)
                }),
                BY_HASH => get_hashes(r),
                BY_POOL => get_pools(r),
                COUNT => r.u64().map(Self::Count),
                other => {
                    Err(DecodeError::Invalid { what: "kind of references", value: other.into() })
                }
            })
        })
    }
}

fn raise<K: Ord>(counts: &mut BTreeMap<K, u64>, key: K) {
    let count = counts.entry(key).or_default();
    *count = count.wrapping_add(1);
}

fn lower<K: Ord>(counts: &mut BTreeMap<K, u64>, key: K) -> bool {
    let Entry::Occupied(mut entry) = counts.entry(key) else { return false };
    *entry.get_mut() = entry.get().wrapping_sub(1);
    if *entry.get() == 0 {
        entry.remove();
    }
    true
}

/// The lowest bits come first in the order of objects, so they are those that are kept.
fn mask(bits: u32) -> u32 {
    u32::MAX >> (32 - bits)
}

fn put_hashes(out: &mut Vec<u8>, total: u64, bits: u32, counts: &BTreeMap<(i64, u32), u64>) {
    put_varint(out, total);
    put_varint(out, bits.into());
    put_varint(out, counts.len() as u64);
    for ((pool, hash), count) in counts {
        put_signed_varint(out, *pool);
        out.extend_from_slice(&hash.to_le_bytes()[..hash_len(bits)]);
        put_varint(out, *count);
    }
}

fn get_hashes(r: &mut Reader<'_>) -> Result<Refs, DecodeError> {
    let total = varint(r)?;
    let bits = varint(r)?;
    let bits = u32::try_from(bits)
        .ok()
        .filter(|bits| (1..=32).contains(bits))
        .ok_or(DecodeError::Invalid { what: "bits of a hash", value: bits })?;
    let mut counts = BTreeMap::new();
    for _ in 0..varint(r)? {
        let pool = signed_varint(r)?;
        let mut hash = [0; 4];
        hash[..hash_len(bits)].copy_from_slice(r.take(hash_len(bits), "hash")?);
        counts.insert((pool, u32::from_le_bytes(hash)), varint(r)?);
    }
    Ok(Refs::Hashes { total, bits, counts })
}

fn put_pools(out: &mut Vec<u8>, total: u64, counts: &BTreeMap<i64, u64>) {
    put_varint(out, total);
    put_varint(out, counts.len() as u64);
    for (pool, count) in counts {
        put_signed_varint(out, *pool);
        put_varint(out, *count);
    }
}

fn get_pools(r: &mut Reader<'_>) -> Result<Refs, DecodeError> {
    let total = varint(r)?;
    let mut counts = BTreeMap::new();
    for _ in 0..varint(r)? {
        counts.insert(signed_varint(r)?, varint(r)?);
    }
    Ok(Refs::Pools { total, counts })
}

/// Bytes that a hash of so many bits takes.
fn hash_len(bits: u32) -> usize {
    bits.div_ceil(8) as usize
}

/// Seven bits in a byte, lowest first; the highest bit says that more follow.
fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint(r: &mut Reader<'_>) -> Result<u64, DecodeError> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = r.u8()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(DecodeError::Invalid { what: "varint", value })
}

/// The sign in the lowest bit.
fn put_signed_varint(out: &mut Vec<u8>, value: i64) {
    put_varint(out, value.unsigned_abs() << 1 | u64::from(value < 0));
}

fn signed_varint(r: &mut Reader<'_>) -> Result<i64, DecodeError> {
    let raw = varint(r)?;
    let magnitude = (raw >> 1) as i64;
    Ok(if raw & 1 == 1 { -magnitude } else { magnitude })
}
