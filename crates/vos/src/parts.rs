//! The parts of a container: which object keys it has, and under which number each range of them is kept.
//!
//! Containers that were split keep their objects under the number they had, in ranges of keys that do
//! not overlap; a merged container has the parts of both. So neither moves an object.
//! Invariant: the parts of a container follow each other without a gap, and no key of a number is in
//! two parts or in a part and in garbage.

use std::ops::ControlFlow;
use std::rc::Rc;

use bytes::Bytes;

use crate::codec::{Malformed, Reader, put_bytes, put_u64, put_varint};
use crate::page::CellValue;
use crate::query::Keys;
use crate::record::{ContainerRecord, ObjectRecord, TABLE_OBJECT, table_key};
use crate::types::ReadError;
use crate::vos::Vos;

/// The object keys `from..to` under a number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Part {
    pub(crate) from: Bytes,
    /// `None`: to the end.
    pub(crate) to: Option<Bytes>,
    pub(crate) number: u64,
}

/// The objects that nobody has counted since a split: those with keys from `from` on. The numbers are
/// a guess.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Uncounted {
    pub(crate) from: Bytes,
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
}

/// What a change of an object does to the counters of its container.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
}

impl Part {
    pub(crate) fn has(&self, key: &[u8]) -> bool {
        (self.from.is_empty() || *self.from <= *key)
            && self.to.as_ref().is_none_or(|to| *key < **to)
    }

    /// The keys of the part that are in `keys` too; `None` if there are none.
    fn narrow(&self, keys: &Keys) -> Option<Keys> {
        let from = self.from.clone().max(keys.from.clone());
        let to = match (&self.to, &keys.to) {
            (Some(a), Some(b)) => Some(a.min(b).clone()),
            (a, b) => a.clone().or(b.clone()),
        };
        let some = to.as_ref().is_none_or(|to| from < *to);
        some.then(|| Keys { from, to, ..keys.clone() })
    }

    /// Decodes the parts of a container.
    pub(crate) fn decode_list(r: &mut Reader) -> Result<Vec<Part>, Malformed> {
        let count = r.count(2)?;
        let mut from = r.bytes()?;
        let mut parts = Vec::with_capacity(count);
        for i in 0..count {
            let number = r.varint()?;
            let to = if r.u8()? != 0 { Some(r.bytes()?) } else { None };
            let sound = match &to {
                Some(to) => from < *to,
                None => i + 1 == count,
            };
            if !sound {
                return Err(Malformed);
            }
            let next = to.clone().unwrap_or_default();
            parts.push(Part { from, to, number });
            from = next;
        }
        if parts.is_empty() { Err(Malformed) } else { Ok(parts) }
    }

    pub(crate) fn encode_list(parts: &[Part], out: &mut Vec<u8>) {
        put_varint(out, parts.len() as u64);
        put_bytes(out, parts.first().map_or(&[], |p| &p.from));
        for part in parts {
            put_varint(out, part.number);
            out.push(u8::from(part.to.is_some()));
            part.to.iter().for_each(|to| put_bytes(out, to));
        }
    }
}

impl Uncounted {
    pub(crate) fn decode(r: &mut Reader) -> Result<Option<Uncounted>, Malformed> {
        if r.u8()? == 0 {
            return Ok(None);
        }
        Ok(Some(Uncounted { from: r.bytes()?, objects: r.u64()?, bytes: r.u64()? }))
    }

    pub(crate) fn encode(this: Option<&Uncounted>, out: &mut Vec<u8>) {
        out.push(u8::from(this.is_some()));
        if let Some(Uncounted { from, objects, bytes }) = this {
            put_bytes(out, from);
            put_u64(out, *objects);
            put_u64(out, *bytes);
        }
    }
}

impl Counts {
    /// Of one object.
    pub(crate) fn of(record: &ObjectRecord) -> Counts {
        let bytes = crate::object::record_bytes(record);
        Counts { objects: u64::from(record.exists()), bytes }
    }
}

impl ContainerRecord {
    /// An empty container for the keys `from..to`.
    pub(crate) fn new(number: u64, from: Bytes, to: Option<Bytes>) -> ContainerRecord {
        ContainerRecord { parts: Rc::from([Part { from, to, number }]), ..Default::default() }
    }

    /// Its first key.
    pub(crate) fn from(&self) -> Bytes {
        self.parts.first().map_or(Bytes::new(), |p| p.from.clone())
    }

    /// The key after its last; `None`: to the end.
    pub(crate) fn to(&self) -> Option<Bytes> {
        self.parts.last().and_then(|p| p.to.clone())
    }

    /// Key of an object's entry; `None` if the container does not have that key.
    pub(crate) fn object_key(&self, oid: &[u8]) -> Option<Vec<u8>> {
        let at = self.parts.partition_point(|p| p.to.as_ref().is_some_and(|to| **to <= *oid));
        let part = self.parts.get(at).filter(|p| p.has(oid))?;
        Some(table_key(TABLE_OBJECT, part.number, oid))
    }

    /// The object counts for `after` from now on.
    pub(crate) fn recount(&mut self, oid: &[u8], before: Counts, after: Counts) {
        let change =
            |old: u64, before: u64, after: u64| old.saturating_add(after).saturating_sub(before);
        let (objects, bytes) = match &mut self.uncounted {
            Some(u) if *u.from <= *oid => (&mut u.objects, &mut u.bytes),
            _ => (&mut self.objects, &mut self.bytes),
        };
        *objects = change(*objects, before.objects, after.objects);
        *bytes = change(*bytes, before.bytes, after.bytes);
    }

    /// All objects, those that nobody has counted yet as guessed.
    pub(crate) fn counts(&self) -> Counts {
        let rest = self.uncounted.as_ref().map_or((0, 0), |u| (u.objects, u.bytes));
        Counts {
            objects: self.objects.saturating_add(rest.0),
            bytes: self.bytes.saturating_add(rest.1),
        }
    }
}

impl Vos {
    /// Calls `f` for the objects of a container in the order that `keys` wants.
    pub(crate) fn scan_objects(
        &self,
        container: &ContainerRecord,
        keys: &Keys,
        f: &mut dyn FnMut(&[u8], CellValue<'_>) -> Result<ControlFlow<()>, ReadError>,
    ) -> Result<(), ReadError> {
        let mut parts: Vec<&Part> = container.parts.iter().collect();
        if keys.reverse {
            parts.reverse();
        }
        let mut done = false;
        for part in parts {
            let Some(keys) = part.narrow(keys) else {
                continue;
            };
            self.scan_keys(TABLE_OBJECT, part.number, &keys, &mut |key, cell| {
                let flow = f(key, cell)?;
                done = flow.is_break();
                Ok(flow)
            })?;
            if done {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(from: &'static str, to: Option<&'static str>, number: u64) -> Part {
        Part { from: from.into(), to: to.map(Bytes::from), number }
    }

    #[test]
    fn a_key_is_in_one_part_or_none() {
        let parts = [part("b", Some("d"), 7), part("d", Some("k"), 3), part("k", Some("m"), 7)];
        let record = ContainerRecord { parts: parts.to_vec().into(), ..Default::default() };
        let number = |key: &str| {
            let key = record.object_key(key.as_bytes())?;
            Some(u64::from_be_bytes(key[1..9].try_into().unwrap()))
        };
        let found = ["a", "b", "cz", "d", "jj", "k", "lz", "m"].map(number);
        let want = [None, Some(7), Some(7), Some(3), Some(3), Some(7), Some(7), None];
        assert_eq!(found, want);
    }

    #[test]
    fn lists_with_gaps_do_not_decode() {
        let parts = [part("", Some("d"), 7), part("d", None, 3)];
        let decode = |bytes: &[u8]| Part::decode_list(&mut Reader::new(bytes.to_vec().into()));
        let mut out = Vec::new();
        Part::encode_list(&parts, &mut out);
        assert_eq!(decode(&out), Ok(parts.to_vec()));
        assert_eq!(decode(&[0, 0]), Err(Malformed), "none");
        assert_eq!(decode(&[2, 0, 7, 0, 3, 0]), Err(Malformed), "after the end");
        assert_eq!(decode(&[2, 1, 9, 7, 1, 1, 8, 3, 0]), Err(Malformed), "backwards");
    }
}
