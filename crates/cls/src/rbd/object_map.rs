//! Object maps: which data objects of an image, or of a snapshot of it, exist.

use bytes::Bytes;
use spirula_wire::Reader;

use super::bit_vector::{self, BLOCK_LEN, BitVector, HEADER_LEN};
use crate::context::{Context, Outcome, fail};
use crate::errno::{EINVAL, ENOENT, ERANGE, ESTALE};
use crate::input::arguments;
use crate::method::Method;

const EXISTS: u8 = 1;
/// It exists and has not changed since the newest snapshot.
const EXISTS_CLEAN: u8 = 3;

/// A larger map would not fit into an object (`MAX_OBJECT_MAP_OBJECT_COUNT`).
const OBJECTS_MAX: u64 = 256_000_000;

pub(super) const METHODS: &[Method] = &[
    Method::reads("object_map_load", object_map_load),
    Method::both("object_map_save", object_map_save),
    Method::both("object_map_resize", object_map_resize),
    Method::both("object_map_update", object_map_update),
    Method::both("object_map_snap_add", object_map_snap_add),
    Method::both("object_map_snap_remove", object_map_snap_remove),
];

/// The stored map; `ENOENT` when the object is absent or empty.
fn read(ctx: &mut dyn Context) -> Outcome<BitVector> {
    let (size, _) = ctx.stat()?;
    if size == 0 {
        return fail(ENOENT);
    }
    let data = ctx.read(0, size)?;
    BitVector::decode(&data).or_else(|_| fail(EINVAL))
}

fn object_map_load(ctx: &mut dyn Context, _: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let mut map = read(ctx)?;
    map.set_crc(false);
    out.extend_from_slice(&map.encode());
    Ok(())
}

fn object_map_save(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let mut map = BitVector::decode(input).or_else(|_| fail(EINVAL))?;
    map.set_crc(true);
    ctx.write_full(map.encode())
}

fn object_map_resize(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let (count, state) = arguments(input, |r| Ok((r.u64()?, r.u8()?)))?;
    if count > OBJECTS_MAX {
        return fail(EINVAL);
    }
    let mut map = match read(ctx) {
        Err(crate::Halt::Errno(ENOENT)) => BitVector::default(),
        other => other?,
    };
    if (count..map.len()).any(|i| map.get(i) != state) {
        return fail(ESTALE);
    }
    map.resize(count, state);
    ctx.write_full(map.encode())
}

/// Sets the state of a range of objects, where they are in the state that is asked for.
struct Update {
    start: u64,
    end: u64,
    new: u8,
    current: Option<u8>,
}

impl Update {
    /// Whether an object in `state` changes. A new state of more than two bits is not the state that
    /// it becomes, as with Ceph.
    fn applies(&self, state: u8) -> bool {
        let wanted = match self.current {
            None => true,
            Some(EXISTS) => state == EXISTS || state == EXISTS_CLEAN,
            Some(current) => state == current,
        };
        wanted && state != self.new
    }
}

/// The blocks that an update touches, and their checksums: where they are in the object.
struct Blocks {
    /// Offset of the first byte among the elements.
    base: u64,
    len: u64,
    crcs_at: u64,
}

impl Blocks {
    fn of(update: &Update, elements: u64) -> Self {
        let data_len = bit_vector::data_len(elements);
        let first = bit_vector::byte_of(update.start) / BLOCK_LEN;
        let last = bit_vector::byte_of(update.end - 1) / BLOCK_LEN;
        let base = first * BLOCK_LEN;
        // The length of the footer, the header's checksum and the count come before those of data.
        let crcs_at = HEADER_LEN + data_len + 12 + first * 4;
        Self { base, len: ((last + 1) * BLOCK_LEN).min(data_len) - base, crcs_at }
    }

    fn count(&self) -> u64 {
        self.len.div_ceil(BLOCK_LEN)
    }

    /// The elements of these blocks; `EINVAL` when they are not all there or their checksums differ.
    fn read(&self, ctx: &mut dyn Context) -> Outcome<Vec<u8>> {
        let data = ctx.read(HEADER_LEN + self.base, self.len)?;
        let stored = ctx.read(self.crcs_at, self.count() * 4)?;
        if data.len() as u64 != self.len || stored != crcs(&data) {
            return fail(EINVAL);
        }
        Ok(data.into())
    }

    fn write(&self, ctx: &mut dyn Context, data: Vec<u8>) -> Outcome {
        let crcs = crcs(&data);
        ctx.write(HEADER_LEN + self.base, data.into())?;
        ctx.write(self.crcs_at, crcs.into())
    }
}

fn crcs(data: &[u8]) -> Vec<u8> {
    data.chunks(BLOCK_LEN as usize).flat_map(|block| bit_vector::crc(block).to_le_bytes()).collect()
}

fn object_map_update(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let update = arguments(input, |r| {
        let (start, end, new) = (r.u64()?, r.u64()?, r.u8()?);
        let current = if r.u8()? != 0 { Some(r.u8()?) } else { None };
        Ok(Update { start, end, new, current })
    })?;
    ctx.stat()?;
    let header = ctx.read(0, HEADER_LEN)?;
    let (elements, _) =
        bit_vector::read_header(&mut Reader::new(&header)).or_else(|_| fail(EINVAL))?;
    if update.start >= update.end || update.end > elements {
        return fail(ERANGE);
    }
    let blocks = Blocks::of(&update, elements);
    let mut data = blocks.read(ctx)?;
    let mut changed = false;
    for i in update.start..update.end {
        if update.applies(bit_vector::get(&data, blocks.base, i)) {
            bit_vector::set(&mut data, blocks.base, i, update.new);
            changed = true;
        }
    }
    if changed { blocks.write(ctx, data) } else { Ok(()) }
}

/// After a snapshot: nothing has changed yet.
fn object_map_snap_add(ctx: &mut dyn Context, _: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let mut map = read(ctx)?;
    let mut changed = false;
    for i in 0..map.len() {
        if map.get(i) == EXISTS {
            map.set(i, EXISTS_CLEAN);
            changed = true;
        }
    }
    if changed { ctx.write_full(map.encode()) } else { Ok(()) }
}

/// Before a snapshot goes: what has changed since the one before it has changed now.
fn object_map_snap_remove(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let snap = BitVector::decode(input).or_else(|_| fail(EINVAL))?;
    let mut map = read(ctx)?;
    let mut changed = false;
    for i in 0..map.len() {
        let changed_then = i >= snap.len() || snap.get(i) == EXISTS;
        if map.get(i) == EXISTS_CLEAN && changed_then {
            map.set(i, EXISTS);
            changed = true;
        }
    }
    if changed { ctx.write_full(map.encode()) } else { Ok(()) }
}
