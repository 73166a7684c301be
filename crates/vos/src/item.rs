//! What an akey holds: a single value, or an array of pieces; and how they are kept in entries.
//!
//! An item is the newest version; the older ones that somebody can still see are history entries under
//! the item's history number ([`crate::history`]). Pieces of an array at the head have no death.
//! Invariant: decoding is bounded and total.

use bytes::Bytes;

use crate::codec::{Malformed, Reader, put_bytes, put_u32, put_varint};
use crate::epoch::Epoch;
use crate::record::{TABLE_AKEY, entry_damaged};
use crate::types::{BLOCK_SIZE, BlockAddr, EXTENT_BLOCKS_MAX, ReadError};

/// Largest list of extents kept in an item; longer ones get a tree number.
pub(crate) const EXTENT_LIST_MAX: usize = 700;
/// Longest inline extent; longer inline data is several extents.
pub(crate) const INLINE_EXTENT_MAX: usize = 2048;

const ITEM_SINGLE: u8 = 1;
const ITEM_ARRAY: u8 = 2;
const ITEM_ARRAY_TREE: u8 = 3;
const ITEM_PUNCHED: u8 = 4;
const ITEM_KIND: u8 = 0x0f;
/// The newest size operation set the size.
const ITEM_SET: u8 = 0x20;
/// What the newest size operation did by itself follows.
const ITEM_OP: u8 = 0x40;
/// There is history.
const ITEM_HISTORY: u8 = 0x80;
const EXTENT_INLINE: u8 = 1;
const EXTENT_DEVICE: u8 = 2;
const EXTENT_HOLE: u8 = 3;
const EXTENT_GAP: u8 = 4;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ItemValue {
    Single(Single),
    Array(Array),
}

/// A single value; `None` if it was punched, which is kept while anything depends on it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Single {
    pub(crate) epoch: Epoch,
    pub(crate) value: Option<Bytes>,
    /// Number of the history, 0 if there is none.
    pub(crate) history: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Array {
    /// Of the newest operation.
    pub(crate) epoch: Epoch,
    /// Size after the newest operation, punches of what is above the akey apart.
    pub(crate) size: u64,
    /// What the newest operation did to the size, with older ones that nobody can see apart.
    pub(crate) op: SizeOp,
    /// Not 0 if operations came out of order: the sizes in the history are not those of their epochs. It
    /// changes with each, so that who goes through the history in steps notices.
    pub(crate) late: u8,
    /// Number of the history, 0 if there is none; the same as that of the extents' tree.
    pub(crate) history: u64,
    pub(crate) extents: Extents,
}

/// What an operation does to an array's size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SizeOp {
    /// At least this.
    Grow(u64),
    /// Exactly this.
    Set(u64),
}

impl Default for SizeOp {
    fn default() -> SizeOp {
        SizeOp::Grow(0)
    }
}

impl SizeOp {
    pub(crate) fn apply(self, size: u64) -> u64 {
        match self {
            SizeOp::Grow(end) => size.max(end),
            SizeOp::Set(size) => size,
        }
    }

    /// One operation that does what this and then `later` do.
    pub(crate) fn then(self, later: SizeOp) -> SizeOp {
        match (self, later) {
            (_, SizeOp::Set(_)) => later,
            (SizeOp::Grow(a), SizeOp::Grow(b)) => SizeOp::Grow(a.max(b)),
            (SizeOp::Set(a), SizeOp::Grow(b)) => SizeOp::Set(a.max(b)),
        }
    }

    pub(crate) fn value(self) -> u64 {
        match self {
            SizeOp::Grow(v) | SizeOp::Set(v) => v,
        }
    }
}

/// The extents of an array, sorted by offset and disjoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Extents {
    List(Vec<Piece>),
    Tree { number: u64, count: u64 },
}

impl Default for Extents {
    fn default() -> Extents {
        Extents::List(Vec::new())
    }
}

/// One extent as it is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Piece {
    pub(crate) offset: u64,
    pub(crate) epoch: Epoch,
    pub(crate) body: Body,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Body {
    Inline(Bytes),
    Device(Device),
    /// No bytes: punched, or cut off by a truncation.
    Hole {
        len: u64,
        punched: bool,
    },
}

/// See [`crate::types::DeviceExtent`], which has the same fields.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Device {
    pub(crate) addr: u64,
    pub(crate) skip: u16,
    pub(crate) len: u32,
    pub(crate) tail: u16,
    /// Four bytes for each block.
    pub(crate) crcs: Bytes,
}

impl Device {
    pub(crate) fn blocks(&self) -> u64 {
        (u64::from(self.skip) + u64::from(self.len)).div_ceil(BLOCK_SIZE)
    }

    pub(crate) fn crc_list(&self) -> Vec<u32> {
        self.crcs.as_chunks::<4>().0.iter().map(|c| u32::from_le_bytes(*c)).collect()
    }
}

impl Piece {
    pub(crate) fn len(&self) -> u64 {
        match &self.body {
            Body::Inline(b) => b.len() as u64,
            Body::Device(d) => u64::from(d.len),
            Body::Hole { len, .. } => *len,
        }
    }

    pub(crate) fn end(&self) -> u64 {
        self.offset + self.len()
    }

    /// The part of the piece in `[from, to)`, which must not be empty.
    pub(crate) fn slice(&self, from: u64, to: u64) -> Piece {
        debug_assert!(self.offset <= from && from < to && to <= self.end());
        let (start, end) = (from - self.offset, to - self.offset);
        let body = match &self.body {
            Body::Inline(b) => Body::Inline(b.slice(start as usize..end as usize)),
            Body::Hole { punched, .. } => Body::Hole { len: end - start, punched: *punched },
            Body::Device(d) => {
                let first = (u64::from(d.skip) + start) / BLOCK_SIZE;
                let last = (u64::from(d.skip) + end).div_ceil(BLOCK_SIZE);
                let tail = if last == d.blocks() { d.tail } else { BLOCK_SIZE as u16 };
                Body::Device(Device {
                    addr: d.addr + first,
                    skip: ((u64::from(d.skip) + start) % BLOCK_SIZE) as u16,
                    len: (end - start) as u32,
                    tail,
                    crcs: d.crcs.slice(first as usize * 4..last as usize * 4),
                })
            }
        };
        Piece { offset: from, epoch: self.epoch, body }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.offset);
        self.encode_body(out);
    }

    /// What [`Piece::encode`] takes at most: kind, epoch, and up to five varints besides the bytes.
    pub(crate) fn encoded_len_max(&self) -> usize {
        let bytes = match &self.body {
            Body::Inline(b) => b.len(),
            Body::Device(d) => d.crcs.len(),
            Body::Hole { .. } => 0,
        };
        1 + 11 + 5 * 10 + bytes
    }

    /// Without the offset, which is in the key of an extent entry.
    pub(crate) fn encode_body(&self, out: &mut Vec<u8>) {
        out.push(match &self.body {
            Body::Inline(_) => EXTENT_INLINE,
            Body::Device(_) => EXTENT_DEVICE,
            Body::Hole { punched: true, .. } => EXTENT_HOLE,
            Body::Hole { punched: false, .. } => EXTENT_GAP,
        });
        self.epoch.encode(out);
        match &self.body {
            Body::Inline(b) => put_bytes(out, b),
            Body::Device(d) => {
                put_varint(out, d.addr);
                put_varint(out, u64::from(d.skip));
                put_varint(out, u64::from(d.len));
                put_varint(out, u64::from(d.tail));
                out.extend_from_slice(&d.crcs);
            }
            Body::Hole { len, .. } => put_varint(out, *len),
        }
    }

    pub(crate) fn decode_body(offset: u64, r: &mut Reader) -> Result<Piece, Malformed> {
        let kind = r.u8()?;
        let epoch = Epoch::decode(r)?;
        let body = match kind {
            EXTENT_INLINE => Body::Inline(r.bytes()?),
            EXTENT_DEVICE => {
                let (addr, skip, len, tail) = (r.varint()?, r.int()?, r.int()?, r.int()?);
                let mut d = Device { addr, skip, len, tail, crcs: Bytes::new() };
                let sound = u64::from(skip) < BLOCK_SIZE
                    && (1..=BLOCK_SIZE).contains(&u64::from(tail))
                    && d.blocks() <= EXTENT_BLOCKS_MAX + 1
                    && addr.checked_add(d.blocks()).is_some();
                if !sound {
                    return Err(Malformed);
                }
                d.crcs = r.take(d.blocks() as usize * 4)?;
                Body::Device(d)
            }
            EXTENT_HOLE | EXTENT_GAP => {
                Body::Hole { len: r.varint()?, punched: kind == EXTENT_HOLE }
            }
            _ => return Err(Malformed),
        };
        let piece = Piece { offset, epoch, body };
        match piece.len() > 0 && offset.checked_add(piece.len()).is_some() {
            true => Ok(piece),
            false => Err(Malformed),
        }
    }
}

impl ItemValue {
    /// Epoch of the newest version.
    pub(crate) fn epoch(&self) -> Epoch {
        match self {
            ItemValue::Single(single) => single.epoch,
            ItemValue::Array(array) => array.epoch,
        }
    }

    /// Number of the history, 0 if there is none.
    pub(crate) fn history(&self) -> u64 {
        match self {
            ItemValue::Single(single) => single.history,
            ItemValue::Array(array) => array.history,
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let history = if self.history() == 0 { 0 } else { ITEM_HISTORY };
        match self {
            ItemValue::Single(single) => {
                let kind = if single.value.is_some() { ITEM_SINGLE } else { ITEM_PUNCHED };
                out.push(kind | history);
                single.epoch.encode(out);
                if single.history != 0 {
                    put_varint(out, single.history);
                }
                single.value.iter().for_each(|v| put_bytes(out, v));
            }
            ItemValue::Array(array) => array.encode(out, history),
        }
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<ItemValue, Malformed> {
        let kind = r.u8()?;
        let epoch = Epoch::decode(r)?;
        match kind & ITEM_KIND {
            ITEM_SINGLE | ITEM_PUNCHED => {
                let history = if kind & ITEM_HISTORY != 0 { r.varint()? } else { 0 };
                let punched = kind & ITEM_KIND == ITEM_PUNCHED;
                let value = if punched { None } else { Some(r.bytes()?) };
                Ok(ItemValue::Single(Single { epoch, value, history }))
            }
            ITEM_ARRAY | ITEM_ARRAY_TREE => Array::decode(kind, epoch, r).map(ItemValue::Array),
            _ => Err(Malformed),
        }
    }

    /// Decodes the value of an entry of the akey table.
    pub(crate) fn decode_entry(value: Bytes) -> Result<ItemValue, ReadError> {
        ItemValue::decode(&mut Reader::new(value)).map_err(|_| entry_damaged(TABLE_AKEY))
    }

    pub(crate) fn encoded_len(&self) -> usize {
        let mut out = Vec::new();
        self.encode(&mut out);
        out.len()
    }
}

impl Array {
    /// Notes that the sizes in the history are not what they were.
    pub(crate) fn mark_late(&mut self) {
        self.late = self.late.wrapping_add(1).max(1);
    }

    fn encode(&self, out: &mut Vec<u8>, history: u8) {
        let tree = matches!(self.extents, Extents::Tree { .. });
        let set = matches!(self.op, SizeOp::Set(_));
        let own_op = self.late != 0 || self.op.value() != self.size;
        let mut kind = if tree { ITEM_ARRAY_TREE } else { ITEM_ARRAY } | history;
        kind |= if set { ITEM_SET } else { 0 } | if own_op { ITEM_OP } else { 0 };
        out.push(kind);
        self.epoch.encode(out);
        put_varint(out, self.size);
        if own_op {
            put_varint(out, self.op.value());
            out.push(self.late);
        }
        match &self.extents {
            Extents::List(list) => {
                if self.history != 0 {
                    put_varint(out, self.history);
                }
                put_varint(out, list.len() as u64);
                list.iter().for_each(|p| p.encode(out));
            }
            Extents::Tree { number, count } => {
                debug_assert!(self.history == 0 || self.history == *number);
                put_varint(out, *number);
                put_varint(out, *count);
            }
        }
    }

    fn decode(kind: u8, epoch: Epoch, r: &mut Reader) -> Result<Array, Malformed> {
        let size = r.varint()?;
        let own_op = kind & ITEM_OP != 0;
        let (value, late) = if own_op { (r.varint()?, r.u8()?) } else { (size, 0) };
        let op = if kind & ITEM_SET != 0 { SizeOp::Set(value) } else { SizeOp::Grow(value) };
        let has_history = kind & ITEM_HISTORY != 0;
        if kind & ITEM_KIND == ITEM_ARRAY_TREE {
            let (number, count) = (r.varint()?, r.varint()?);
            let history = if has_history { number } else { 0 };
            let extents = Extents::Tree { number, count };
            return Ok(Array { epoch, size, op, late, history, extents });
        }
        let history = if has_history { r.varint()? } else { 0 };
        let count = r.count(11)?;
        let mut list: Vec<Piece> = Vec::with_capacity(count);
        for _ in 0..count {
            let offset = r.varint()?;
            let piece = Piece::decode_body(offset, r)?;
            if list.last().is_some_and(|p| p.end() > offset) {
                return Err(Malformed);
            }
            list.push(piece);
        }
        Ok(Array { epoch, size, op, late, history, extents: Extents::List(list) })
    }
}

/// Copies CRCs to the form extents keep them in.
pub(crate) fn pack_crcs(crcs: &[u32]) -> Bytes {
    let mut out = Vec::with_capacity(crcs.len() * 4);
    crcs.iter().for_each(|&c| put_u32(&mut out, c));
    out.into()
}

impl From<&Device> for crate::types::DeviceExtent {
    fn from(d: &Device) -> Self {
        crate::types::DeviceExtent {
            offset: 0,
            addr: BlockAddr(d.addr),
            skip: d.skip,
            len: d.len,
            tail: d.tail,
            crcs: d.crc_list(),
        }
    }
}
