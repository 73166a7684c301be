//! Finding the first and the last: dkeys, akeys, written ranges of arrays, and lists in either order.
//!
//! Invariant: like every read, a query sees the state of its epoch and nothing else.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::item::{Body, ItemValue, Piece};
use crate::record::{ObjectRecord, TABLE_AKEY};
use crate::timestamp::Path;
use crate::tree;
use crate::types::{ContainerId, ObjectKey, ReadError};
use crate::view::{View, Visible};

/// Keys looked at in one go when the right one is searched.
const BATCH: usize = 16;

/// A part of the keys, `from` included and `to` not, in either order. To go on after a list that was
/// full, `from` is the last key with a zero byte added, or in reverse `to` is the last key.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Keys {
    /// The lowest key.
    pub from: Bytes,
    /// The key after the highest; `None`: to the end.
    pub to: Option<Bytes>,
    /// From the highest to the lowest.
    pub reverse: bool,
    /// Of objects: only those changed at or after this epoch.
    pub changed_from: u64,
}

/// Which key a query wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Pick {
    /// The lowest that has what else is wanted.
    Min,
    /// The highest.
    Max,
    /// This one.
    Is(Bytes),
}

/// What is wanted of an array.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PickRange {
    /// The first range that was written.
    Min,
    /// The last one.
    Max,
}

/// The answer to a query.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// The dkey.
    pub dkey: Bytes,
    /// The akey.
    pub akey: Bytes,
    /// Offset and length of the range, if one was wanted.
    pub range: Option<(u64, u64)>,
}

impl Keys {
    /// All keys from the highest down.
    pub fn reversed() -> Keys {
        Keys { reverse: true, ..Keys::default() }
    }

    pub(crate) fn has(&self, key: &[u8]) -> bool {
        *self.from <= *key && self.to.as_ref().is_none_or(|to| *key < **to)
    }

    /// The keys up to and including `last`, in their order.
    fn upto(&self, last: &ObjectKey) -> Keys {
        match self.reverse {
            true => Keys { from: last.0.clone(), ..self.clone() },
            false => Keys { to: Some([&last.0[..], &[0]].concat().into()), ..self.clone() },
        }
    }

    /// The keys that remain after `last`.
    pub(crate) fn after(&self, last: &Bytes) -> Keys {
        match self.reverse {
            true => Keys { to: Some(last.clone()), ..self.clone() },
            false => Keys { from: [last, &[0][..]].concat().into(), ..self.clone() },
        }
    }
}

impl View<'_> {
    /// Up to `max` objects of a container.
    pub fn objects(
        &self,
        cid: ContainerId,
        keys: &Keys,
        max: usize,
    ) -> Result<Vec<ObjectKey>, ReadError> {
        let read = || {
            let found = self.objects_in(cid, keys, max)?;
            // What is behind a full list does not matter.
            let listed = match found.last() {
                Some(last) if found.len() == max => keys.upto(last),
                _ => keys.clone(),
            };
            let active = self.vos.active.check_list(cid, &listed, self.epoch().hlc);
            match active.filter(|_| self.waits) {
                Some(id) => Err(ReadError::InProgress { id }),
                None => Ok(found),
            }
        };
        self.committed().guarded(|| Path::container(cid), read, |_| None)
    }

    fn objects_in(
        &self,
        cid: ContainerId,
        keys: &Keys,
        max: usize,
    ) -> Result<Vec<ObjectKey>, ReadError> {
        let Some(container) = self.vos.containers.get(&cid) else {
            return Ok(Vec::new());
        };
        let mut out = Vec::new();
        self.vos.scan_objects(&container.record, keys, &mut |oid, cell| {
            if out.len() >= max {
                return Ok(ControlFlow::Break(()));
            }
            let record = ObjectRecord::decode_head(tree::load_value(&self.vos.pool, cell)?)?;
            if record.epoch.hlc >= keys.changed_from && self.exists(container, &record)? {
                out.push(ObjectKey::copy_from(oid));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(out)
    }

    /// Up to `max` dkeys of an object that have akeys.
    pub fn dkeys(
        &self,
        cid: ContainerId,
        oid: &ObjectKey,
        keys: &Keys,
        max: usize,
    ) -> Result<Vec<Bytes>, ReadError> {
        let read = || match self.record(cid, oid)? {
            Some(record) => self.dkeys_of(&record, keys, max),
            None => Ok(Vec::new()),
        };
        self.guarded(|| Path::object(cid, &oid.0), read, |_| None)
    }

    /// Up to `max` akeys of a dkey with their values; arrays come with an empty one.
    pub fn akeys(
        &self,
        cid: ContainerId,
        oid: &ObjectKey,
        dkey: &[u8],
        keys: &Keys,
        max: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, ReadError> {
        let read = || match self.record(cid, oid)? {
            Some(record) => self.akeys_of(&record, dkey, keys, max),
            None => Ok(Vec::new()),
        };
        self.guarded(|| Path::dkey(cid, &oid.0, dkey), read, |_| None)
    }

    /// The first or last dkey, akey in it and range in that, of those that have what is wanted below.
    pub fn query_key(
        &self,
        cid: ContainerId,
        oid: &ObjectKey,
        dkey: &Pick,
        akey: &Pick,
        range: Option<PickRange>,
    ) -> Result<Option<Found>, ReadError> {
        let path = || match (dkey, akey) {
            (Pick::Is(dkey), Pick::Is(akey)) => Path::akey(cid, &oid.0, dkey, akey),
            (Pick::Is(dkey), _) => Path::dkey(cid, &oid.0, dkey),
            _ => Path::object(cid, &oid.0),
        };
        self.guarded(path, || self.query_in(cid, oid, dkey, akey, range), |_| None)
    }

    fn query_in(
        &self,
        cid: ContainerId,
        oid: &ObjectKey,
        dkey: &Pick,
        akey: &Pick,
        range: Option<PickRange>,
    ) -> Result<Option<Found>, ReadError> {
        let Some(record) = self.record(cid, oid)? else {
            return Ok(None);
        };
        let mut keys = keys_of(dkey);
        loop {
            let dkeys = self.dkeys_of(&record, &keys, BATCH)?;
            for dkey in &dkeys {
                if let Some((akey, range)) = self.query_akey(&record, dkey, akey, range)? {
                    return Ok(Some(Found { dkey: dkey.clone(), akey, range }));
                }
            }
            match dkeys.last() {
                Some(last) if dkeys.len() == BATCH => keys = keys.after(last),
                _ => return Ok(None),
            }
        }
    }

    fn query_akey(
        &self,
        record: &ObjectRecord,
        dkey: &[u8],
        akey: &Pick,
        range: Option<PickRange>,
    ) -> Result<Option<(Bytes, Option<(u64, u64)>)>, ReadError> {
        let mut keys = keys_of(akey);
        loop {
            let akeys = self.akeys_of(record, dkey, &keys, BATCH)?;
            for (akey, _) in &akeys {
                let Some(wanted) = range else {
                    return Ok(Some((akey.clone(), None)));
                };
                if let Some(found) = self.query_range(record, dkey, akey, wanted)? {
                    return Ok(Some((akey.clone(), Some(found))));
                }
            }
            match akeys.last() {
                Some((last, _)) if akeys.len() == BATCH => keys = keys.after(last),
                _ => return Ok(None),
            }
        }
    }

    /// The first or last run of bytes in an array, as offset and length.
    fn query_range(
        &self,
        record: &ObjectRecord,
        dkey: &[u8],
        akey: &[u8],
        wanted: PickRange,
    ) -> Result<Option<(u64, u64)>, ReadError> {
        let visible = self.visible_in(record, dkey, akey)?;
        let Some(Visible::Array { array, size, punches }) = visible else {
            return Ok(None);
        };
        let pieces = self.vos.pieces_at(&array, &punches, self.epoch(), (0, size))?;
        let data = |p: &Piece| !matches!(p.body, Body::Hole { .. });
        let mut run: Option<(u64, u64)> = None;
        for piece in pieces.iter().filter(|p| data(p)) {
            let end = piece.end().min(size);
            match &mut run {
                Some((_, last)) if *last == piece.offset => *last = end,
                Some(_) if wanted == PickRange::Min => break,
                _ => run = Some((piece.offset, end)),
            }
        }
        Ok(run.map(|(from, to)| (from, to - from)))
    }

    pub(crate) fn dkeys_of(
        &self,
        record: &ObjectRecord,
        keys: &Keys,
        max: usize,
    ) -> Result<Vec<Bytes>, ReadError> {
        let (mut out, mut keys) = (Vec::new(), keys.clone());
        while out.len() < max
            && let Some((dkey, _)) = self.vos.next_dkey(record, &keys)?
        {
            keys = keys.after(&dkey);
            if !self.akeys_of(record, &dkey, &Keys::default(), 1)?.is_empty() {
                out.push(dkey);
            }
        }
        Ok(out)
    }

    pub(crate) fn akeys_of(
        &self,
        record: &ObjectRecord,
        dkey: &[u8],
        keys: &Keys,
        max: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, ReadError> {
        let mut out: Vec<(Bytes, Bytes)> = Vec::new();
        let mut add = |akey: &[u8], value: ItemValue| -> Result<ControlFlow<()>, ReadError> {
            if out.len() >= max {
                return Ok(ControlFlow::Break(()));
            }
            let punches = self.vos.punches_of(record, dkey, akey)?;
            match self.vos.visible_at(value, punches, self.epoch())? {
                Some(Visible::Single(value)) => out.push((Bytes::copy_from_slice(akey), value)),
                Some(Visible::Array { .. }) => {
                    out.push((Bytes::copy_from_slice(akey), Bytes::new()));
                }
                None => {}
            }
            Ok(if out.len() < max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        };
        if let Some(number) = self.vos.moved_to(record, dkey)? {
            self.vos.scan_keys(TABLE_AKEY, number, keys, &mut |akey, cell| {
                add(akey, ItemValue::decode_entry(tree::load_value(&self.vos.pool, cell)?)?)
            })?;
            return Ok(out);
        }
        let mut items: Vec<_> =
            record.items.iter().filter(|i| i.dkey == dkey && keys.has(&i.akey)).collect();
        if keys.reverse {
            items.reverse();
        }
        for item in items {
            if add(&item.akey, item.value.clone())?.is_break() {
                break;
            }
        }
        Ok(out)
    }
}

fn keys_of(pick: &Pick) -> Keys {
    match pick {
        Pick::Min => Keys::default(),
        Pick::Max => Keys::reversed(),
        Pick::Is(key) => {
            let to = Some([key, &[0][..]].concat().into());
            Keys { from: key.clone(), to, ..Keys::default() }
        }
    }
}
