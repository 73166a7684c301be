//! What the tree's entries hold: object records, items, extents, containers; and their keys.
//!
//! A small object is one record with all its items; what grows is moved out to entries of its own under
//! a *tree number*, so that dropping it is one record change and its space returns in the background.
//! Invariant: an encoded object record is at most [`RECORD_LEN_MAX`] bytes, an item in an entry of
//! its own has at most that many bytes of extents.

use bytes::Bytes;

use crate::codec::{Malformed, Reader, put_bytes, put_u32, put_u64, put_varint};
use crate::types::{BLOCK_SIZE, BlockAddr, ContainerId, Damage, EXTENT_BLOCKS_MAX, ReadError};

/// Largest object record: seven fit a page.
pub(crate) const RECORD_LEN_MAX: usize = 1100;
/// Largest list of extents kept in an item; longer ones get a tree number.
pub(crate) const EXTENT_LIST_MAX: usize = 700;
/// Longest inline extent; longer inline data is several extents.
pub(crate) const INLINE_EXTENT_MAX: usize = 2048;

pub(crate) const TABLE_CONTAINER: u8 = 1;
pub(crate) const TABLE_OBJECT: u8 = 2;
pub(crate) const TABLE_AKEY: u8 = 3;
pub(crate) const TABLE_EXTENT: u8 = 4;
pub(crate) const TABLE_GARBAGE: u8 = 5;

const ITEM_SINGLE: u8 = 1;
const ITEM_ARRAY: u8 = 2;
const ITEM_ARRAY_TREE: u8 = 3;
const EXTENT_INLINE: u8 = 1;
const EXTENT_DEVICE: u8 = 2;

/// A container's record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct ContainerRecord {
    /// Its number: object entries are keyed by it.
    pub(crate) number: u64,
    pub(crate) objects: u64,
    /// Sum of the array sizes.
    pub(crate) bytes: u64,
}

/// An object: everything, or everything but what was moved out.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct ObjectRecord {
    /// Epoch of the last change.
    pub(crate) epoch: u64,
    /// Dkeys whose items are entries of their own, with the tree number.
    pub(crate) moved: Vec<(Bytes, u64)>,
    /// The other items, sorted by dkey and akey.
    pub(crate) items: Vec<Item>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Item {
    pub(crate) dkey: Bytes,
    pub(crate) akey: Bytes,
    pub(crate) value: ItemValue,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ItemValue {
    Single { epoch: u64, value: Bytes },
    Array(Array),
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Array {
    pub(crate) epoch: u64,
    pub(crate) size: u64,
    pub(crate) extents: Extents,
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
    pub(crate) epoch: u64,
    pub(crate) body: Body,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Body {
    Inline(Bytes),
    Device(Device),
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

    /// Without the offset, which is in the key of an extent entry.
    pub(crate) fn encode_body(&self, out: &mut Vec<u8>) {
        match &self.body {
            Body::Inline(b) => {
                out.push(EXTENT_INLINE);
                put_u64(out, self.epoch);
                put_bytes(out, b);
            }
            Body::Device(d) => {
                out.push(EXTENT_DEVICE);
                put_u64(out, self.epoch);
                put_varint(out, d.addr);
                put_varint(out, u64::from(d.skip));
                put_varint(out, u64::from(d.len));
                put_varint(out, u64::from(d.tail));
                out.extend_from_slice(&d.crcs);
            }
        }
    }

    pub(crate) fn decode_body(offset: u64, r: &mut Reader) -> Result<Piece, Malformed> {
        let kind = r.u8()?;
        let epoch = r.u64()?;
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
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            ItemValue::Single { epoch, value } => {
                out.push(ITEM_SINGLE);
                put_u64(out, *epoch);
                put_bytes(out, value);
            }
            ItemValue::Array(Array { epoch, size, extents: Extents::List(list) }) => {
                out.push(ITEM_ARRAY);
                put_u64(out, *epoch);
                put_varint(out, *size);
                put_varint(out, list.len() as u64);
                list.iter().for_each(|p| p.encode(out));
            }
            ItemValue::Array(Array { epoch, size, extents: Extents::Tree { number, count } }) => {
                out.push(ITEM_ARRAY_TREE);
                put_u64(out, *epoch);
                put_varint(out, *size);
                put_varint(out, *number);
                put_varint(out, *count);
            }
        }
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<ItemValue, Malformed> {
        let kind = r.u8()?;
        let epoch = r.u64()?;
        Ok(match kind {
            ITEM_SINGLE => ItemValue::Single { epoch, value: r.bytes()? },
            ITEM_ARRAY => {
                let size = r.varint()?;
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
                ItemValue::Array(Array { epoch, size, extents: Extents::List(list) })
            }
            ITEM_ARRAY_TREE => {
                let (size, number, count) = (r.varint()?, r.varint()?, r.varint()?);
                ItemValue::Array(Array { epoch, size, extents: Extents::Tree { number, count } })
            }
            _ => return Err(Malformed),
        })
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

impl ObjectRecord {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        put_u64(&mut out, self.epoch);
        put_varint(&mut out, self.moved.len() as u64);
        for (dkey, number) in &self.moved {
            put_bytes(&mut out, dkey);
            put_varint(&mut out, *number);
        }
        put_varint(&mut out, self.items.len() as u64);
        for item in &self.items {
            put_bytes(&mut out, &item.dkey);
            put_bytes(&mut out, &item.akey);
            item.value.encode(&mut out);
        }
        out
    }

    pub(crate) fn decode(value: Bytes) -> Result<ObjectRecord, ReadError> {
        ObjectRecord::parse(&mut Reader::new(value)).map_err(|_| entry_damaged(TABLE_OBJECT))
    }

    fn parse(r: &mut Reader) -> Result<ObjectRecord, Malformed> {
        let epoch = r.u64()?;
        let count = r.count(2)?;
        let mut moved = Vec::with_capacity(count);
        for _ in 0..count {
            moved.push((r.bytes()?, r.varint()?));
        }
        let count = r.count(11)?;
        let mut items: Vec<Item> = Vec::with_capacity(count);
        for _ in 0..count {
            let (dkey, akey) = (r.bytes()?, r.bytes()?);
            let value = ItemValue::decode(r)?;
            if items.last().is_some_and(|l| (&l.dkey, &l.akey) >= (&dkey, &akey)) {
                return Err(Malformed);
            }
            items.push(Item { dkey, akey, value });
        }
        Ok(ObjectRecord { epoch, moved, items })
    }

    /// Index of an item, or where it would be.
    pub(crate) fn find(&self, dkey: &[u8], akey: &[u8]) -> Result<usize, usize> {
        self.items.binary_search_by(|i| (&i.dkey[..], &i.akey[..]).cmp(&(dkey, akey)))
    }

    /// Tree number of a dkey that was moved out.
    pub(crate) fn moved_to(&self, dkey: &[u8]) -> Option<u64> {
        self.moved.iter().find(|(d, _)| d == dkey).map(|&(_, number)| number)
    }
}

impl ContainerRecord {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(24);
        put_u64(&mut out, self.number);
        put_u64(&mut out, self.objects);
        put_u64(&mut out, self.bytes);
        out
    }

    pub(crate) fn decode(value: Bytes) -> Result<ContainerRecord, ReadError> {
        let mut r = Reader::new(value);
        let mut parse =
            || Ok(ContainerRecord { number: r.u64()?, objects: r.u64()?, bytes: r.u64()? });
        parse().map_err(|_: Malformed| entry_damaged(TABLE_CONTAINER))
    }
}

/// Copies CRCs to the form extents keep them in.
pub(crate) fn pack_crcs(crcs: &[u32]) -> Bytes {
    let mut out = Vec::with_capacity(crcs.len() * 4);
    crcs.iter().for_each(|&c| put_u32(&mut out, c));
    out.into()
}

pub(crate) fn entry_damaged(table: u8) -> ReadError {
    ReadError::Damaged(Damage::Entry { table })
}

pub(crate) fn container_key(cid: ContainerId) -> Vec<u8> {
    let mut key = vec![TABLE_CONTAINER];
    key.extend_from_slice(&cid.0);
    key
}

/// Key of an object (number: container) or an akey (number: moved dkey).
pub(crate) fn table_key(table: u8, number: u64, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(9 + rest.len());
    key.push(table);
    key.extend_from_slice(&number.to_be_bytes());
    key.extend_from_slice(rest);
    key
}

pub(crate) fn extent_key(number: u64, offset: u64) -> [u8; 17] {
    let mut key = [0; 17];
    key[0] = TABLE_EXTENT;
    key[1..9].copy_from_slice(&number.to_be_bytes());
    key[9..].copy_from_slice(&offset.to_be_bytes());
    key
}

/// Offset in the key of an extent entry.
pub(crate) fn extent_offset(key: &[u8]) -> Result<u64, ReadError> {
    let bytes = key.get(9..17).and_then(|b| b.try_into().ok());
    bytes.map(u64::from_be_bytes).ok_or_else(|| entry_damaged(TABLE_EXTENT))
}

/// Key of a garbage entry: a dropped container, akey or extent tree.
pub(crate) fn garbage_key(table: u8, number: u64) -> Vec<u8> {
    table_key(TABLE_GARBAGE, number, &[table])
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

/// Decodes `data` as each kind of entry; what decodes must encode to what decodes to the same.
pub(crate) fn fuzz(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(record) = ObjectRecord::decode(bytes.clone()) {
        assert_eq!(ObjectRecord::decode(record.encode().into()), Ok(record));
    }
    if let Ok(piece) = Piece::decode_body(0, &mut Reader::new(bytes.clone())) {
        let middle = piece.len() / 2;
        let _ = piece.slice(middle, piece.end());
    }
    let _ = ItemValue::decode_entry(bytes.clone());
    let _ = ContainerRecord::decode(bytes);
}
