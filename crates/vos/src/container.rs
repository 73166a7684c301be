//! Containers: creation and end, properties, splitting one in two and merging two that follow each other.
//!
//! A container has a range of object keys, all of them unless it was created for a part or split. What
//! is split or merged are the lists of parts ([`crate::parts`]): no object is touched, nothing is
//! counted; [`Vos::collect`] counts the objects afterwards.

use std::ops::ControlFlow;
use std::rc::Rc;

use bytes::Bytes;

use crate::codec::{Malformed, Reader, put_bytes};
use crate::parts::{Counts, Part, Uncounted};
use crate::query::Keys;
use crate::record::{ContainerRecord, ObjectRecord, TABLE_OBJECT, container_key, garbage_key};
use crate::stage::Stage;
use crate::tree;
use crate::tx::{Tx, TxOp};
use crate::types::{ContainerId, KEY_LEN_MAX, ObjectKey, StageError};
use crate::vos::{Container, Vos};

/// All properties of a container come to no more bytes: its record is in memory.
const PROPERTIES_LEN_MAX: usize = 64 << 10;
/// Nor do the keys of its parts.
const PARTS_LEN_MAX: usize = 64 << 10;

const OP_SET_PROPERTY: u8 = 32;
const OP_REMOVE_PROPERTY: u8 = 33;
const OP_CREATE_FROM: u8 = 34;
const OP_CREATE_IN: u8 = 35;
const OP_SPLIT: u8 = 36;
const OP_MERGE: u8 = 37;

impl Vos {
    /// A property of a container.
    pub fn container_property(&self, cid: ContainerId, name: &[u8]) -> Option<Bytes> {
        let properties = &self.containers.get(&cid)?.record.properties;
        let at = properties.binary_search_by(|(n, _)| n[..].cmp(name)).ok()?;
        Some(properties[at].1.clone())
    }

    /// All properties of a container, sorted by name.
    pub fn container_properties(&self, cid: ContainerId) -> Vec<(Bytes, Bytes)> {
        self.containers.get(&cid).map_or(Vec::new(), |c| c.record.properties.to_vec())
    }

    /// The retained epochs of a container.
    pub fn container_retained(&self, cid: ContainerId) -> Vec<u64> {
        self.containers.get(&cid).map_or(Vec::new(), |c| c.record.retained.to_vec())
    }

    /// The object keys of a container: the first, and the one after the last (`None`: to the end).
    pub fn container_range(&self, cid: ContainerId) -> Option<(Bytes, Option<Bytes>)> {
        let record = &self.containers.get(&cid)?.record;
        Some((record.from(), record.to()))
    }
}

impl Stage<'_> {
    /// The record of a container, to be changed.
    pub(crate) fn container(&self, cid: ContainerId) -> Result<ContainerRecord, StageError> {
        let container = self.vos.containers.get(&cid);
        container.map(|c| c.record.clone()).ok_or(StageError::NoContainer(cid))
    }

    /// Writes a container's record.
    pub(crate) fn put_container(
        &mut self,
        cid: ContainerId,
        record: ContainerRecord,
    ) -> Result<(), StageError> {
        let vos = &mut *self.vos;
        tree::insert(&mut vos.pool, &mut vos.root, &container_key(cid), &record.encode())?;
        vos.set_container(cid, Some(Container { record, stale: false }));
        Ok(())
    }

    fn remove_container(&mut self, cid: ContainerId) -> Result<(), StageError> {
        let vos = &mut *self.vos;
        tree::remove(&mut vos.pool, &mut vos.root, &container_key(cid))?;
        vos.set_container(cid, None);
        Ok(())
    }

    /// Makes an empty container for the keys `from..to`.
    pub(crate) fn create_container(
        &mut self,
        cid: ContainerId,
        from: &Bytes,
        to: Option<&Bytes>,
    ) -> Result<(), StageError> {
        if self.vos.containers.contains_key(&cid) {
            return Err(StageError::ContainerExists(cid));
        }
        let longest = from.len().max(to.map_or(0, Bytes::len));
        if longest > KEY_LEN_MAX {
            return Err(StageError::KeyLength(longest));
        }
        if to.is_some_and(|to| to <= from) {
            return Err(StageError::OutOfRange(cid));
        }
        let number = self.vos.take_number();
        self.put_container(cid, ContainerRecord::new(number, from.clone(), to.cloned()))
    }

    /// Removes a container; its objects become garbage.
    pub(crate) fn destroy_container(&mut self, cid: ContainerId) -> Result<(), StageError> {
        let record = self.container(cid)?;
        self.remove_container(cid)?;
        for part in record.parts.iter() {
            let vos = &mut *self.vos;
            let key = garbage_key(TABLE_OBJECT, part.number, &part.from);
            let to = part.to.as_ref().map_or(&[][..], |to| to);
            tree::insert(&mut vos.pool, &mut vos.root, &key, to)?;
            vos.garbage = true;
        }
        Ok(())
    }

    /// Gives the objects of a container from `at` on to a new one.
    pub(crate) fn split_container(
        &mut self,
        cid: ContainerId,
        at: &Bytes,
        upper: ContainerId,
    ) -> Result<(), StageError> {
        if at.is_empty() || at.len() > KEY_LEN_MAX {
            return Err(StageError::KeyLength(at.len()));
        }
        let record = self.container(cid)?;
        if self.vos.containers.contains_key(&upper) {
            return Err(StageError::ContainerExists(upper));
        }
        if *at <= record.from() || record.to().is_some_and(|to| *at >= to) {
            return Err(StageError::OutOfRange(cid));
        }
        let (below, above) = cut_parts(&record.parts, at);
        let (low, high) = cut_counts(&record, at);
        let common = |parts: Vec<Part>, half: Half| {
            let (Counts { objects, bytes }, uncounted) = half;
            ContainerRecord { parts: parts.into(), objects, bytes, uncounted, ..record.clone() }
        };
        self.put_container(cid, common(below, low))?;
        self.vos.garbage = true;
        self.put_container(upper, common(above, high))
    }

    /// Adds the objects of the container `upper`, which then ends, to those of `cid` below them.
    pub(crate) fn merge_container(
        &mut self,
        cid: ContainerId,
        upper: ContainerId,
    ) -> Result<(), StageError> {
        let (mut record, above) = (self.container(cid)?, self.container(upper)?);
        let adjacent = cid != upper && record.to() == Some(above.from());
        if !adjacent || record.retained != above.retained {
            return Err(StageError::NotMergeable(cid, upper));
        }
        let mut parts = record.parts.to_vec();
        for part in above.parts.iter() {
            match parts.last_mut().filter(|last| last.number == part.number) {
                Some(last) => last.to = part.to.clone(),
                None => parts.push(part.clone()),
            }
        }
        let len: usize = parts.iter().map(|p| p.to.as_ref().map_or(0, Bytes::len) + 12).sum();
        if len > PARTS_LEN_MAX {
            return Err(StageError::TooLarge);
        }
        record.parts = parts.into();
        match &mut record.uncounted {
            Some(rest) => {
                let more = above.counts();
                rest.objects = rest.objects.saturating_add(more.objects);
                rest.bytes = rest.bytes.saturating_add(more.bytes);
            }
            None => {
                record.objects = record.objects.saturating_add(above.objects);
                record.bytes = record.bytes.saturating_add(above.bytes);
                record.uncounted = above.uncounted;
            }
        }
        self.remove_container(upper)?;
        self.put_container(cid, record)
    }

    /// Sets a property of a container, or removes it.
    pub(crate) fn set_property(
        &mut self,
        cid: ContainerId,
        name: &Bytes,
        value: Option<&Bytes>,
    ) -> Result<(), StageError> {
        if name.is_empty() || name.len() > KEY_LEN_MAX {
            return Err(StageError::KeyLength(name.len()));
        }
        let mut record = self.container(cid)?;
        let mut properties = record.properties.to_vec();
        properties.retain(|(n, _)| n != name);
        if let Some(value) = value {
            let at = properties.partition_point(|(n, _)| n < name);
            properties.insert(at, (name.clone(), value.clone()));
        }
        let len: usize = properties.iter().map(|(n, v)| n.len() + v.len() + 8).sum();
        if len > PROPERTIES_LEN_MAX {
            return Err(StageError::TooLarge);
        }
        record.properties = Rc::from(properties);
        self.put_container(cid, record)
    }

    /// Counts up to `budget` objects that nobody has counted since a split; how many it were.
    pub(crate) fn count_some(&mut self, budget: usize) -> Result<usize, StageError> {
        let next = self.vos.containers.iter().find(|(_, c)| c.record.uncounted.is_some());
        let Some((&cid, container)) = next else {
            return Ok(0);
        };
        let mut record = container.record.clone();
        let Some(mut rest) = record.uncounted.take() else {
            return Ok(0);
        };
        let keys = Keys { from: rest.from.clone(), ..Keys::default() };
        let (mut seen, mut last, mut found) = (0, None, Counts::default());
        self.vos.scan_objects(&record, &keys, &mut |oid, cell| {
            let value = tree::load_value(&self.vos.pool, cell)?;
            let counts = Counts::of(&ObjectRecord::decode(value)?);
            found.objects += counts.objects;
            found.bytes = found.bytes.saturating_add(counts.bytes);
            (seen, last) = (seen + 1, Some([oid, &[0]].concat()));
            Ok(if seen < budget { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        record.objects = record.objects.saturating_add(found.objects);
        record.bytes = record.bytes.saturating_add(found.bytes);
        if let Some(last) = last.filter(|_| seen >= budget) {
            rest.from = last.into();
            rest.objects = rest.objects.saturating_sub(found.objects);
            rest.bytes = rest.bytes.saturating_sub(found.bytes);
            record.uncounted = Some(rest);
        }
        self.vos.set_container(cid, Some(Container { record, stale: true }));
        Ok(seen.max(1))
    }
}

/// What is counted of one half, and what is not.
type Half = (Counts, Option<Uncounted>);

/// The parts below and from `at` on.
fn cut_parts(parts: &[Part], at: &Bytes) -> (Vec<Part>, Vec<Part>) {
    let (mut below, mut above) = (Vec::new(), Vec::new());
    for part in parts {
        if part.to.as_ref().is_some_and(|to| to <= at) {
            below.push(part.clone());
        } else if part.from >= *at {
            above.push(part.clone());
        } else {
            below.push(Part { to: Some(at.clone()), ..part.clone() });
            above.push(Part { from: at.clone(), ..part.clone() });
        }
    }
    (below, above)
}

/// What the halves of a container count. How many of the counted objects are in which half is not
/// known without looking at all of them: the guess is one half each.
fn cut_counts(record: &ContainerRecord, at: &Bytes) -> (Half, Half) {
    let rest = |from: Bytes, objects: u64, bytes: u64| Some(Uncounted { from, objects, bytes });
    if let Some(u) = record.uncounted.as_ref().filter(|u| u.from <= *at) {
        let (objects, bytes) = (u.objects / 2, u.bytes / 2);
        let low = (
            Counts { objects: record.objects, bytes: record.bytes },
            rest(u.from.clone(), u.objects - objects, u.bytes - bytes).filter(|_| u.from < *at),
        );
        let high = if u.from < *at { (objects, bytes) } else { (u.objects, u.bytes) };
        return (low, (Counts::default(), rest(at.clone(), high.0, high.1)));
    }
    let all = record.counts();
    let (objects, bytes) = (all.objects / 2, all.bytes / 2);
    let low = rest(record.from(), all.objects - objects, all.bytes - bytes);
    ((Counts::default(), low), (Counts::default(), rest(at.clone(), objects, bytes)))
}

pub(crate) fn encode_op(out: &mut Vec<u8>, op: &TxOp) {
    match op {
        TxOp::SetProperty { cid, name, value } => {
            out.push(if value.is_some() { OP_SET_PROPERTY } else { OP_REMOVE_PROPERTY });
            out.extend_from_slice(&cid.0);
            put_bytes(out, name);
            value.iter().for_each(|v| put_bytes(out, v));
        }
        TxOp::CreateContainerIn { cid, from, to } => {
            out.push(if to.is_some() { OP_CREATE_IN } else { OP_CREATE_FROM });
            out.extend_from_slice(&cid.0);
            put_bytes(out, from);
            to.iter().for_each(|to| put_bytes(out, to));
        }
        TxOp::SplitContainer { cid, at, upper } => {
            out.push(OP_SPLIT);
            out.extend_from_slice(&cid.0);
            put_bytes(out, at);
            out.extend_from_slice(&upper.0);
        }
        TxOp::MergeContainer { cid, upper } => {
            out.push(OP_MERGE);
            out.extend_from_slice(&cid.0);
            out.extend_from_slice(&upper.0);
        }
        _ => {}
    }
}

/// Decodes an operation on containers after its code.
pub(crate) fn decode_op(r: &mut Reader, code: u8) -> Result<TxOp, Malformed> {
    let cid = ContainerId(r.array()?);
    Ok(match code {
        OP_SET_PROPERTY => TxOp::SetProperty { cid, name: r.bytes()?, value: Some(r.bytes()?) },
        OP_REMOVE_PROPERTY => TxOp::SetProperty { cid, name: r.bytes()?, value: None },
        OP_CREATE_FROM => TxOp::CreateContainerIn { cid, from: r.bytes()?, to: None },
        OP_CREATE_IN => TxOp::CreateContainerIn { cid, from: r.bytes()?, to: Some(r.bytes()?) },
        OP_SPLIT => TxOp::SplitContainer { cid, at: r.bytes()?, upper: ContainerId(r.array()?) },
        OP_MERGE => TxOp::MergeContainer { cid, upper: ContainerId(r.array()?) },
        _ => return Err(Malformed),
    })
}

impl Tx {
    /// Makes an empty container for the object keys from `from` up to, not including, `to` (`None`: to
    /// the end); it must not exist. Other keys are refused in it with [`StageError::OutOfRange`].
    pub fn create_container_in(&mut self, cid: ContainerId, from: &[u8], to: Option<&[u8]>) {
        let (from, to) = (Bytes::copy_from_slice(from), to.map(Bytes::copy_from_slice));
        self.ops.push(TxOp::CreateContainerIn { cid, from, to });
    }

    /// Gives the objects of a container from the key `at` on to a new container `upper`, with the
    /// properties and retained epochs of the old one. No object is touched, however many there are.
    pub fn split_container(&mut self, cid: ContainerId, at: &ObjectKey, upper: ContainerId) {
        self.ops.push(TxOp::SplitContainer { cid, at: at.0.clone(), upper });
    }

    /// Adds the objects of the container `upper`, whose keys must begin where those of `cid` end, to
    /// those of `cid`; `upper` is no more. Both must retain the same epochs, since what one of them has
    /// given up cannot come back; the properties are those of `cid`.
    pub fn merge_container(&mut self, cid: ContainerId, upper: ContainerId) {
        self.ops.push(TxOp::MergeContainer { cid, upper });
    }

    /// Sets a property of a container; `None` removes it.
    pub fn set_container_property(&mut self, cid: ContainerId, name: &[u8], value: Option<Bytes>) {
        let name = Bytes::copy_from_slice(name);
        self.ops.push(TxOp::SetProperty { cid, name, value });
    }
}
