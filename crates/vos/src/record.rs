//! Records of containers and objects, and the keys of the tree's tables.
//!
//! A small object is one record with all its items; what grows is moved out to entries of its own under
//! a *tree number*, so that dropping it is one record change and its space returns in the background.
//! Invariant: an encoded object record is at most [`RECORD_LEN_MAX`] bytes, unless its incarnations or
//! retained epochs are many; an item in an entry of its own has at most that many bytes of extents.

use std::rc::Rc;

use bytes::Bytes;

use crate::codec::{Malformed, Reader, put_bytes, put_u64, put_varint};
use crate::epoch::Epoch;
use crate::item::{ItemValue, Piece};
use crate::parts::{Part, Uncounted};
use crate::types::{ContainerId, Damage, ReadError};

/// Largest object record: seven fit a page.
pub(crate) const RECORD_LEN_MAX: usize = 1100;

pub(crate) const TABLE_CONTAINER: u8 = 1;
pub(crate) const TABLE_OBJECT: u8 = 2;
pub(crate) const TABLE_AKEY: u8 = 3;
pub(crate) const TABLE_EXTENT: u8 = 4;
pub(crate) const TABLE_GARBAGE: u8 = 5;
pub(crate) const TABLE_HISTORY: u8 = 6;
pub(crate) const TABLE_DKEY: u8 = 7;
pub(crate) const TABLE_SHARED: u8 = 8;
pub(crate) const TABLE_ACTIVE: u8 = 9;
pub(crate) const TABLE_ENDED: u8 = 10;
pub(crate) const TABLE_PUNCH: u8 = 11;

const OBJECT_RETAINED: u8 = 1;
const OBJECT_PUNCHES: u8 = 2;
const OBJECT_HORIZON: u8 = 4;
/// The whole incarnation log is there, not one creation.
const OBJECT_LOG: u8 = 8;
/// The moved dkeys have a tree.
const OBJECT_DKEYS: u8 = 16;
/// So have the punches.
const OBJECT_PUNCHED: u8 = 32;
const OBJECT_FLAGS: u8 = 63;

/// A container's record.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct ContainerRecord {
    /// Where its objects are, in the order of their keys.
    pub(crate) parts: Rc<[Part]>,
    /// Those that are counted.
    pub(crate) objects: u64,
    /// Sum of the array sizes.
    pub(crate) bytes: u64,
    /// Where the others begin.
    pub(crate) uncounted: Option<Uncounted>,
    /// Retained epochs of all its objects, sorted.
    pub(crate) retained: Rc<[u64]>,
    /// Sorted by name.
    pub(crate) properties: Rc<[(Bytes, Bytes)]>,
}

/// An object: everything, or everything but what was moved out.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct ObjectRecord {
    /// Epoch of the newest change.
    pub(crate) epoch: Epoch,
    /// Largest horizon of a transaction that changed it.
    pub(crate) horizon: u64,
    pub(crate) log: IncarnationLog,
    /// Retained epochs, sorted.
    pub(crate) retained: Vec<u64>,
    /// Punches of akeys that hide versions still there, or to come.
    pub(crate) punches: Vec<Punch>,
    /// Number of the tree of these punches when they have become too many for a list, else 0.
    pub(crate) punched: u64,
    /// Dkeys whose items are entries of their own, with the tree number.
    pub(crate) moved: Vec<(Bytes, u64)>,
    /// Number of the tree of these dkeys when they have become too many for a list, else 0.
    pub(crate) dkeys: u64,
    /// The other items, sorted by dkey and akey.
    pub(crate) items: Vec<Item>,
}

/// When an object came into being and ended, in order: the first creation after each punch, and others.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct IncarnationLog(pub(crate) Vec<(Epoch, Incarnation)>);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Incarnation {
    Create,
    Punch,
}

/// Hides the akeys `from..to` of a dkey that were born up to an epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Punch {
    pub(crate) dkey: Bytes,
    pub(crate) from: Bytes,
    /// `None`: to the end.
    pub(crate) to: Option<Bytes>,
    pub(crate) epoch: Epoch,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Item {
    pub(crate) dkey: Bytes,
    pub(crate) akey: Bytes,
    pub(crate) value: ItemValue,
}

impl IncarnationLog {
    /// Whether the object exists at `at`.
    pub(crate) fn exists_at(&self, at: Epoch) -> bool {
        let last = self.0.iter().rev().find(|(e, _)| *e <= at);
        matches!(last, Some((_, Incarnation::Create)))
    }

    /// Index of the first entry after `at`.
    pub(crate) fn after(&self, at: Epoch) -> usize {
        self.0.partition_point(|(e, _)| *e <= at)
    }

    /// Notes an operation that makes the object exist. `explicit` ones leave a trace although the
    /// object exists, since a punch may still come before them.
    pub(crate) fn create(&mut self, at: Epoch, explicit: bool) {
        let i = self.after(at);
        let exists = i > 0 && self.0[i - 1].1 == Incarnation::Create;
        if exists && !explicit {
            return;
        }
        if i > 0 && self.0[i - 1] == (at, Incarnation::Create) {
            return;
        }
        // A later creation stays: it counts again if a punch comes in between.
        self.0.insert(i, (at, Incarnation::Create));
    }

    /// Notes a punch of the object.
    pub(crate) fn punch(&mut self, at: Epoch) {
        let i = self.after(at);
        self.0.insert(i, (at, Incarnation::Punch));
    }

    fn decode(r: &mut Reader) -> Result<IncarnationLog, Malformed> {
        let count = r.count(9)?;
        let mut log: Vec<(Epoch, Incarnation)> = Vec::with_capacity(count);
        for _ in 0..count {
            let (hlc, minor) = (r.u64()?, r.int::<u32>()?);
            let kind = if minor & 1 == 0 { Incarnation::Create } else { Incarnation::Punch };
            let epoch = Epoch::new(hlc, u16::try_from(minor >> 1).map_err(|_| Malformed)?);
            if log.last().is_some_and(|(last, _)| *last > epoch) {
                return Err(Malformed);
            }
            log.push((epoch, kind));
        }
        Ok(IncarnationLog(log))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.0.len() as u64);
        for (epoch, kind) in &self.0 {
            put_u64(out, epoch.hlc);
            put_varint(out, u64::from(epoch.minor) << 1 | u64::from(*kind == Incarnation::Punch));
        }
    }
}

impl Punch {
    /// The punch of one akey.
    pub(crate) fn of_akey(dkey: &Bytes, akey: &Bytes, epoch: Epoch) -> Punch {
        let to = Some([akey, &[0][..]].concat().into());
        Punch { dkey: dkey.clone(), from: akey.clone(), to, epoch }
    }

    pub(crate) fn covers(&self, dkey: &[u8], akey: &[u8]) -> bool {
        self.dkey == dkey && *self.from <= *akey && self.to.as_ref().is_none_or(|to| *akey < **to)
    }

    pub(crate) fn same_keys(&self, other: &Punch) -> bool {
        self.dkey == other.dkey && self.from == other.from && self.to == other.to
    }

    /// It has no more bytes.
    pub(crate) fn encoded_len(&self) -> usize {
        self.dkey.len() + self.from.len() + self.to.as_ref().map_or(0, Bytes::len) + 18
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, &self.dkey);
        put_bytes(out, &self.from);
        out.push(u8::from(self.to.is_some()));
        self.to.iter().for_each(|to| put_bytes(out, to));
        self.epoch.encode(out);
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Punch, Malformed> {
        let (dkey, from) = (r.bytes()?, r.bytes()?);
        let to = if r.u8()? != 0 { Some(r.bytes()?) } else { None };
        Ok(Punch { dkey, from, to, epoch: Epoch::decode(r)? })
    }
}

impl ObjectRecord {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        let mut flags = if self.retained.is_empty() { 0 } else { OBJECT_RETAINED };
        flags |= if self.punches.is_empty() { 0 } else { OBJECT_PUNCHES };
        flags |= if self.horizon == self.epoch.hlc { 0 } else { OBJECT_HORIZON };
        flags |= if self.dkeys == 0 { 0 } else { OBJECT_DKEYS };
        flags |= if self.punched == 0 { 0 } else { OBJECT_PUNCHED };
        let simple = matches!(self.log.0[..], [(_, Incarnation::Create)]);
        flags |= if simple { 0 } else { OBJECT_LOG };
        out.push(flags);
        self.epoch.encode(&mut out);
        if flags & OBJECT_HORIZON != 0 {
            put_u64(&mut out, self.horizon);
        }
        match &self.log.0[..] {
            [(created, Incarnation::Create)] => created.encode(&mut out),
            _ => self.log.encode(&mut out),
        }
        if flags & OBJECT_RETAINED != 0 {
            put_varint(&mut out, self.retained.len() as u64);
            self.retained.iter().for_each(|&e| put_u64(&mut out, e));
        }
        if flags & OBJECT_PUNCHES != 0 {
            put_varint(&mut out, self.punches.len() as u64);
            self.punches.iter().for_each(|p| p.encode(&mut out));
        }
        if flags & OBJECT_PUNCHED != 0 {
            put_varint(&mut out, self.punched);
        }
        if flags & OBJECT_DKEYS != 0 {
            put_varint(&mut out, self.dkeys);
        }
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

    /// The record without punches, items and what was moved out.
    pub(crate) fn decode_head(value: Bytes) -> Result<ObjectRecord, ReadError> {
        let head = ObjectRecord::parse_head(&mut Reader::new(value));
        head.map(|(_, record)| record).map_err(|_| entry_damaged(TABLE_OBJECT))
    }

    fn parse_head(r: &mut Reader) -> Result<(u8, ObjectRecord), Malformed> {
        let flags = r.u8()?;
        if flags & !OBJECT_FLAGS != 0 {
            return Err(Malformed);
        }
        let epoch = Epoch::decode(r)?;
        let horizon = if flags & OBJECT_HORIZON != 0 { r.u64()? } else { epoch.hlc };
        let log = match flags & OBJECT_LOG {
            0 => IncarnationLog(vec![(Epoch::decode(r)?, Incarnation::Create)]),
            _ => IncarnationLog::decode(r)?,
        };
        let mut retained = Vec::new();
        if flags & OBJECT_RETAINED != 0 {
            let count = r.count(8)?;
            retained = (0..count).map(|_| r.u64()).collect::<Result<_, _>>()?;
        }
        Ok((flags, ObjectRecord { epoch, horizon, log, retained, ..ObjectRecord::default() }))
    }

    fn parse(r: &mut Reader) -> Result<ObjectRecord, Malformed> {
        let (flags, head) = ObjectRecord::parse_head(r)?;
        let mut punches = Vec::new();
        if flags & OBJECT_PUNCHES != 0 {
            let count = r.count(12)?;
            punches = (0..count).map(|_| Punch::decode(r)).collect::<Result<_, _>>()?;
        }
        let punched = if flags & OBJECT_PUNCHED != 0 { r.varint()? } else { 0 };
        let dkeys = if flags & OBJECT_DKEYS != 0 { r.varint()? } else { 0 };
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
        Ok(ObjectRecord { punches, punched, moved, dkeys, items, ..head })
    }

    /// Index of an item, or where it would be.
    pub(crate) fn find(&self, dkey: &[u8], akey: &[u8]) -> Result<usize, usize> {
        self.items.binary_search_by(|i| (&i.dkey[..], &i.akey[..]).cmp(&(dkey, akey)))
    }

    /// Tree number of a dkey that was moved out, if these are in a list.
    pub(crate) fn moved_to(&self, dkey: &[u8]) -> Option<u64> {
        self.moved.iter().find(|(d, _)| d == dkey).map(|&(_, number)| number)
    }

    /// Whether the object exists for who reads the newest state.
    pub(crate) fn exists(&self) -> bool {
        matches!(self.log.0.last(), Some((_, Incarnation::Create)))
    }

    /// Whether it can be forgotten.
    pub(crate) fn is_void(&self) -> bool {
        self.log.0.is_empty()
            && self.retained.is_empty()
            && self.has_no_punches()
            && self.moved.is_empty()
            && self.dkeys == 0
            && self.items.is_empty()
    }

    /// Before this nothing of the object could be seen.
    pub(crate) fn first_epoch(&self) -> Epoch {
        self.log.0.first().map_or(Epoch::end_of(u64::MAX), |(e, _)| *e)
    }

    /// Whether no akeys of it were punched.
    pub(crate) fn has_no_punches(&self) -> bool {
        self.punches.is_empty() && self.punched == 0
    }

    /// When the object itself was punched.
    pub(crate) fn punched_at(&self) -> Vec<Epoch> {
        let punches = self.log.0.iter().filter(|(_, kind)| *kind == Incarnation::Punch);
        punches.map(|(epoch, _)| *epoch).collect()
    }
}

impl ContainerRecord {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        put_u64(&mut out, self.objects);
        put_u64(&mut out, self.bytes);
        Part::encode_list(&self.parts, &mut out);
        Uncounted::encode(self.uncounted.as_ref(), &mut out);
        put_varint(&mut out, self.retained.len() as u64);
        self.retained.iter().for_each(|&e| put_u64(&mut out, e));
        put_varint(&mut out, self.properties.len() as u64);
        for (name, value) in self.properties.iter() {
            put_bytes(&mut out, name);
            put_bytes(&mut out, value);
        }
        out
    }

    pub(crate) fn decode(value: Bytes) -> Result<ContainerRecord, ReadError> {
        let mut r = Reader::new(value);
        let mut parse = || {
            let (objects, bytes) = (r.u64()?, r.u64()?);
            let parts = Part::decode_list(&mut r)?.into();
            let uncounted = Uncounted::decode(&mut r)?;
            let count = r.count(8)?;
            let retained = (0..count).map(|_| r.u64()).collect::<Result<_, Malformed>>()?;
            let count = r.count(2)?;
            let properties = (0..count)
                .map(|_| Ok((r.bytes()?, r.bytes()?)))
                .collect::<Result<_, Malformed>>()?;
            Ok(ContainerRecord { parts, objects, bytes, uncounted, retained, properties })
        };
        parse().map_err(|_: Malformed| entry_damaged(TABLE_CONTAINER))
    }
}

pub(crate) fn entry_damaged(table: u8) -> ReadError {
    ReadError::Damaged(Damage::Entry { table })
}

pub(crate) fn container_key(cid: ContainerId) -> Vec<u8> {
    let mut key = vec![TABLE_CONTAINER];
    key.extend_from_slice(&cid.0);
    key
}

/// Key of an object (number: part of a container), an akey (number: moved dkey), or a piece of history.
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

/// Key of a garbage entry: a dropped part of a container from a key on, akey or extent tree, or history.
pub(crate) fn garbage_key(table: u8, number: u64, from: &[u8]) -> Vec<u8> {
    table_key(TABLE_GARBAGE, number, &[&[table], from].concat())
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
    let _ = crate::dkeys::decode_entry(bytes.clone());
    if let Ok(record) = ContainerRecord::decode(bytes.clone()) {
        assert_eq!(ContainerRecord::decode(record.encode().into()), Ok(record));
    }
    crate::history::fuzz(bytes.clone());
    crate::punches::fuzz(&bytes);
    crate::prepared::fuzz(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hlc: u64) -> Epoch {
        Epoch::new(hlc, 0)
    }

    #[test]
    fn the_log_notes_what_brings_an_object_into_being() {
        let mut log = IncarnationLog::default();
        log.create(at(10), false);
        log.create(at(12), false);
        log.punch(at(20));
        log.create(at(30), false);
        log.create(at(25), false);
        log.create(at(5), false);
        use Incarnation::{Create, Punch};
        assert_eq!(
            log.0,
            [
                (at(5), Create),
                (at(10), Create),
                (at(20), Punch),
                (at(25), Create),
                (at(30), Create)
            ]
        );
        let exists: Vec<bool> =
            [4, 5, 19, 20, 24, 25].into_iter().map(|e| log.exists_at(at(e))).collect();
        assert_eq!(exists, [false, true, true, false, false, true]);
    }
}
