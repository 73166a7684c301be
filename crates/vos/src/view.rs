//! Reads: what is in the store at an epoch.
//!
//! Invariant: an answer is the state that all staged operations up to the epoch lead to, in the order
//! of their epochs. Where that is not known any more the answer is [`ReadError::EpochTooOld`].

use std::ops::Bound;

use bytes::Bytes;

use crate::epoch::{Epoch, Punches};
use crate::item::{Array, Body, ItemValue, Piece};
use crate::query::Keys;
use crate::record::ObjectRecord;
use crate::timestamp::{Level, Path, TxStamp};
use crate::tree;
use crate::types::{ContainerId, DeviceExtent, Extent, ObjectKey, ReadError};
use crate::vos::{Container, Vos};

/// The store at one epoch.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub(crate) vos: &'a Vos,
    epoch: Epoch,
    /// What a prepared transaction writes is not passed over.
    pub(crate) waits: bool,
    /// Whose reads these are.
    pub(crate) by: Option<TxStamp>,
}

/// An object that exists at an epoch, with its record at hand.
#[derive(Clone)]
pub struct OpenObject<'a> {
    view: View<'a>,
    record: ObjectRecord,
    /// If its reads are guarded.
    path: Option<Path>,
}

/// What an akey shows at an epoch.
pub(crate) enum Visible {
    Single(Bytes),
    Array { array: Array, size: u64, punches: Punches },
}

impl<'a> View<'a> {
    pub(crate) fn new(vos: &'a Vos, epoch: Epoch) -> View<'a> {
        View { vos, epoch, waits: true, by: None }
    }

    /// The committed state: prepared transactions are passed over, where others would have to wait for
    /// their end ([`ReadError::InProgress`]).
    pub fn committed(self) -> View<'a> {
        View { waits: false, ..self }
    }

    pub(crate) fn stamped(self, by: TxStamp) -> View<'a> {
        View { by: Some(by), ..self }
    }

    /// Whether the object exists.
    pub fn object_exists(&self, cid: ContainerId, oid: &ObjectKey) -> Result<bool, ReadError> {
        let read = || {
            let Some(container) = self.vos.containers.get(&cid) else {
                return Ok(false);
            };
            let Some(key) = container.record.object_key(&oid.0) else {
                return Ok(false);
            };
            match tree::get(&self.vos.pool, self.vos.root, &key)? {
                Some(value) => self.exists(container, &ObjectRecord::decode_head(value)?),
                None => Ok(false),
            }
        };
        let missing = |exists: &bool| (!exists).then_some(Level::Object);
        self.guarded(|| Path::object(cid, &oid.0), read, missing)
    }

    /// The object, if it exists: for several reads with one lookup.
    pub fn open(
        &self,
        cid: ContainerId,
        oid: &ObjectKey,
    ) -> Result<Option<OpenObject<'a>>, ReadError> {
        let object = self.open_in(cid, oid)?;
        // Whoever finds it waits, if need be, for what is read of it.
        if object.is_none() || self.by.is_some() {
            let missing = |_: &()| object.is_none().then_some(Level::Object);
            self.guarded(|| Path::object(cid, &oid.0), || Ok(()), missing)?;
        }
        Ok(object)
    }

    fn open_in(
        &self,
        cid: ContainerId,
        oid: &ObjectKey,
    ) -> Result<Option<OpenObject<'a>>, ReadError> {
        let path = || self.is_guarded().then(|| Path::object(cid, &oid.0));
        let record = self.record(cid, oid)?;
        Ok(record.map(|record| OpenObject { view: *self, record, path: path() }))
    }

    /// A single value; `None` if there is none (or an array).
    pub fn fetch(
        &self,
        cid: ContainerId,
        oid: &ObjectKey,
        dkey: &[u8],
        akey: &[u8],
    ) -> Result<Option<Bytes>, ReadError> {
        let read = || self.open_in(cid, oid)?.map_or(Ok(None), |o| o.fetch_in(dkey, akey));
        self.guarded(|| Path::akey(cid, &oid.0, dkey, akey), read, no_akey)
    }

    /// Size of an array; `None` if there is none.
    pub fn array_size(
        &self,
        cid: ContainerId,
        oid: &ObjectKey,
        dkey: &[u8],
        akey: &[u8],
    ) -> Result<Option<u64>, ReadError> {
        let read = || self.open_in(cid, oid)?.map_or(Ok(None), |o| o.size_in(dkey, akey));
        self.guarded(|| Path::akey(cid, &oid.0, dkey, akey), read, no_akey)
    }

    /// What holds the bytes `[offset, offset + len)` of an array, cut off at its size.
    pub fn extents(
        &self,
        cid: ContainerId,
        oid: &ObjectKey,
        dkey: &[u8],
        akey: &[u8],
        offset: u64,
        len: u64,
    ) -> Result<Vec<Extent>, ReadError> {
        let read = || {
            let object = self.open_in(cid, oid)?;
            object.map_or(Ok(Vec::new()), |o| o.extents_in(dkey, akey, offset, len))
        };
        self.guarded(|| Path::akey(cid, &oid.0, dkey, akey), read, no_extents)
    }

    /// Up to `max` akeys of a dkey with their values, in order; arrays come with an empty value.
    pub fn list_akeys(
        &self,
        cid: ContainerId,
        oid: &ObjectKey,
        dkey: &[u8],
        from: Bound<&[u8]>,
        max: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, ReadError> {
        self.akeys(cid, oid, dkey, &keys_from(from, None), max)
    }

    /// Up to `max` objects from `from` on, below `to`, in order.
    pub fn list_objects(
        &self,
        cid: ContainerId,
        from: Bound<&[u8]>,
        to: Option<&[u8]>,
        max: usize,
    ) -> Result<Vec<ObjectKey>, ReadError> {
        self.objects(cid, &keys_from(from, to), max)
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The store at `hlc`, if that is before the view's epoch.
    pub(crate) fn upto(self, hlc: u64) -> View<'a> {
        if hlc >= self.epoch.hlc {
            return self;
        }
        let by = self.by.map(|by| TxStamp::certain(by.id, hlc));
        View { epoch: Epoch::end_of(hlc), by, ..self }
    }

    /// Whether an object exists, if that is still known.
    pub(crate) fn exists(
        &self,
        container: &Container,
        record: &ObjectRecord,
    ) -> Result<bool, ReadError> {
        let known = self.epoch.hlc >= record.horizon
            || record.retained.contains(&self.epoch.hlc)
            || container.record.retained.contains(&self.epoch.hlc);
        match known {
            true => Ok(record.log.exists_at(self.epoch())),
            false => Err(ReadError::EpochTooOld { epoch: self.epoch.hlc, horizon: record.horizon }),
        }
    }

    /// The record of an object that exists.
    pub(crate) fn record(
        &self,
        cid: ContainerId,
        oid: &ObjectKey,
    ) -> Result<Option<ObjectRecord>, ReadError> {
        let Some(container) = self.vos.containers.get(&cid) else {
            return Ok(None);
        };
        match self.vos.object(cid, oid)? {
            Some(record) => Ok(self.exists(container, &record)?.then_some(record)),
            None => Ok(None),
        }
    }

    pub(crate) fn visible_in(
        &self,
        record: &ObjectRecord,
        dkey: &[u8],
        akey: &[u8],
    ) -> Result<Option<Visible>, ReadError> {
        let punches = self.vos.punches_of(record, dkey, akey)?;
        let value = self.vos.item(record, dkey, akey)?;
        value.map_or(Ok(None), |value| self.vos.visible_at(value, punches, self.epoch()))
    }
}

impl OpenObject<'_> {
    /// A single value; `None` if there is none (or an array).
    pub fn fetch(&self, dkey: &[u8], akey: &[u8]) -> Result<Option<Bytes>, ReadError> {
        self.guarded(dkey, akey, || self.fetch_in(dkey, akey), no_akey)
    }

    /// Size of an array; `None` if there is none.
    pub fn array_size(&self, dkey: &[u8], akey: &[u8]) -> Result<Option<u64>, ReadError> {
        self.guarded(dkey, akey, || self.size_in(dkey, akey), no_akey)
    }

    /// What holds the bytes `[offset, offset + len)` of an array, cut off at its size.
    pub fn extents(
        &self,
        dkey: &[u8],
        akey: &[u8],
        offset: u64,
        len: u64,
    ) -> Result<Vec<Extent>, ReadError> {
        self.guarded(dkey, akey, || self.extents_in(dkey, akey, offset, len), no_extents)
    }

    fn guarded<T>(
        &self,
        dkey: &[u8],
        akey: &[u8],
        read: impl FnOnce() -> Result<T, ReadError>,
        missing: impl FnOnce(&T) -> Option<Level>,
    ) -> Result<T, ReadError> {
        match &self.path {
            Some(object) => self.view.guarded(|| object.below(dkey, akey), read, missing),
            None => read(),
        }
    }

    fn fetch_in(&self, dkey: &[u8], akey: &[u8]) -> Result<Option<Bytes>, ReadError> {
        match self.visible(dkey, akey)? {
            Some(Visible::Single(value)) => Ok(Some(value)),
            _ => Ok(None),
        }
    }

    fn size_in(&self, dkey: &[u8], akey: &[u8]) -> Result<Option<u64>, ReadError> {
        match self.visible(dkey, akey)? {
            Some(Visible::Array { size, .. }) => Ok(Some(size)),
            _ => Ok(None),
        }
    }

    fn extents_in(
        &self,
        dkey: &[u8],
        akey: &[u8],
        offset: u64,
        len: u64,
    ) -> Result<Vec<Extent>, ReadError> {
        let visible = self.visible(dkey, akey)?;
        let Some(Visible::Array { array, size, punches }) = visible else {
            return Ok(Vec::new());
        };
        let end = offset.saturating_add(len).min(size);
        if offset >= end {
            return Ok(Vec::new());
        }
        let pieces = self.view.vos.pieces_at(&array, &punches, self.view.epoch(), (offset, end))?;
        let (mut out, mut at) = (Vec::with_capacity(pieces.len() + 1), offset);
        for piece in pieces {
            let (from, to) = (piece.offset.max(offset), piece.end().min(end));
            if from > at {
                add_hole(&mut out, at, from - at, false);
            }
            match piece.slice(from, to).body {
                Body::Inline(data) => out.push(Extent::Inline { offset: from, data }),
                Body::Device(d) => {
                    let extent = DeviceExtent { offset: from, ..DeviceExtent::from(&d) };
                    out.push(Extent::Device(extent));
                }
                Body::Hole { len, punched } => add_hole(&mut out, from, len, punched),
            }
            at = to;
        }
        if at < end {
            add_hole(&mut out, at, end - at, false);
        }
        Ok(out)
    }

    fn visible(&self, dkey: &[u8], akey: &[u8]) -> Result<Option<Visible>, ReadError> {
        self.view.visible_in(&self.record, dkey, akey)
    }
}

impl Vos {
    /// What an item shows at an epoch, if the object exists then.
    pub(crate) fn visible_at(
        &self,
        value: ItemValue,
        punches: Punches,
        at: Epoch,
    ) -> Result<Option<Visible>, ReadError> {
        match value {
            ItemValue::Single(single) => {
                let found = self.single_at(&single, at)?;
                let found = found.filter(|(birth, _)| !punches.hide(*birth, at));
                Ok(found.map(|(_, value)| Visible::Single(value)))
            }
            ItemValue::Array(array) => {
                let size = self.size_at(&array, &punches, at)?;
                Ok(size.map(|size| Visible::Array { array, size, punches }))
            }
        }
    }

    /// The pieces of an array that are visible in a range at an epoch, whole and in order.
    pub(crate) fn pieces_at(
        &self,
        array: &Array,
        punches: &Punches,
        at: Epoch,
        (from, to): (u64, u64),
    ) -> Result<Vec<Piece>, ReadError> {
        let mut pieces = self.pieces(&array.extents, from, to)?;
        pieces.retain(|p| p.epoch <= at);
        // Old pieces end with the newest operation, but one that was discarded may have ended them.
        if array.history != 0 && (array.epoch > at || array.late != 0) {
            let old = self.old_pieces_at(array.history, at, from, to)?;
            pieces.extend(old.into_iter().map(|o| o.piece));
            pieces.sort_unstable_by_key(|p| p.offset);
        }
        pieces.retain(|p| !punches.hide(p.epoch, at));
        Ok(pieces)
    }
}

fn no_akey<T>(found: &Option<T>) -> Option<Level> {
    found.is_none().then_some(Level::Akey)
}

fn no_extents<T: AsRef<[Extent]>>(found: &T) -> Option<Level> {
    found.as_ref().is_empty().then_some(Level::Akey)
}

fn keys_from(from: Bound<&[u8]>, to: Option<&[u8]>) -> Keys {
    let from = match from {
        Bound::Unbounded => Bytes::new(),
        Bound::Included(from) => Bytes::copy_from_slice(from),
        Bound::Excluded(from) => [from, &[0]].concat().into(),
    };
    Keys { from, to: to.map(Bytes::copy_from_slice), ..Keys::default() }
}

fn add_hole(out: &mut Vec<Extent>, offset: u64, len: u64, punched: bool) {
    match out.last_mut() {
        Some(Extent::Hole { len: last, punched: p, .. }) if *p == punched => *last += len,
        _ => out.push(Extent::Hole { offset, len, punched }),
    }
}
