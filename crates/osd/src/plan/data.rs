//! Operations on an object's data, its existence and its size.

use bytes::{Bytes, BytesMut};
use spirula_wire::{Encode, Features};

use super::{Effect, OpOutput, Run, Step, err, kib, ok};
use crate::errno::*;
use crate::object::ObjectInfo;
use crate::op::{Extent, SubOp, code, op_flag};
use crate::view::{Fault, ObjectView, Viewed};

impl<V: ObjectView> Run<'_, V> {
    pub(super) fn read(&mut self, op: &mut SubOp, out: &mut OpOutput) -> Step<V::Missing> {
        let mut e = op.extent();
        self.data_offset.get_or_insert(e.offset);
        let mut size = self.info.size;
        if self.truncated_by(e) && size > e.truncate_size {
            size = e.truncate_size;
        }
        if e.length == 0 {
            e.length = size;
        }
        e.length = clip(e.offset, e.length, size);
        if e.length > 0 {
            out.data = self.view.read(e.offset, e.length)?;
        }
        op.set_extent_length(e.length);
        self.count_read(e.length);
        ok()
    }

    pub(super) fn sparse_read(&mut self, op: &mut SubOp, out: &mut OpOutput) -> Step<V::Missing> {
        let e = op.extent();
        if e.truncate_seq != 0 {
            return err(EINVAL);
        }
        self.require_stored()?;
        let extents = self.view.extents(e.offset, clip(e.offset, e.length, self.info.size))?;
        let total: u64 = extents.iter().map(|x| x.1).sum();
        let mut head = Vec::new();
        extents.encode(&mut head, Features::PACIFIC);
        (total as u32).encode(&mut head, Features::PACIFIC);
        out.data = vec![head.into()];
        for (offset, length) in extents {
            out.data.extend(self.view.read(offset, length)?);
        }
        op.set_extent_length(total);
        self.count_read(total);
        ok()
    }

    pub(super) fn mapext(&mut self, op: &SubOp, out: &mut OpOutput) -> Step<V::Missing> {
        let e = op.extent();
        self.require_stored()?;
        let extents = self.view.extents(e.offset, clip(e.offset, e.length, self.info.size))?;
        out.data = vec![extents.to_bytes(Features::PACIFIC).into()];
        self.count_read(0);
        Ok(None)
    }

    pub(super) fn stat(&mut self, out: &mut OpOutput) -> Step<V::Missing> {
        self.delta.num_rd += 1;
        if !self.exists {
            return err(ENOENT);
        }
        let mut raw = self.info.size.to_bytes(Features::PACIFIC);
        self.info.mtime.encode(&mut raw, Features::PACIFIC);
        out.data = vec![raw.into()];
        Ok(None)
    }

    /// Compares with what a read returns, zeroes after its end.
    pub(super) fn cmpext(&mut self, op: &mut SubOp) -> Step<V::Missing> {
        let mut e = op.extent();
        let size = if self.truncated_by(e) { e.truncate_size } else { self.info.size };
        e.length = clip(e.offset, e.length, size);
        op.set_extent_length(e.length);
        let stored = if e.length == 0 || !self.exists {
            Vec::new()
        } else {
            let length = clip(e.offset, e.length, self.info.size);
            let stored = self.view.read(e.offset, length)?;
            self.count_read(length);
            stored
        };
        let stored = stored.iter().flatten().copied().chain(std::iter::repeat(0));
        match op.indata.iter().zip(stored).position(|(want, have)| *want != have) {
            None => ok(),
            Some(at) => {
                let at = i32::try_from(at).unwrap_or(i32::MAX - MAX_ERRNO);
                Ok(Some(-(MAX_ERRNO + at)))
            }
        }
    }

    pub(super) fn assert_ver(&self, op: &SubOp) -> Step<V::Missing> {
        match op.assert_ver() {
            0 => err(EINVAL),
            v if v < self.info.user_version => err(ERANGE),
            v if v > self.info.user_version => err(EOVERFLOW),
            _ => Ok(None),
        }
    }

    pub(super) fn write(&mut self, op: &mut SubOp) -> Step<V::Missing> {
        let e = op.extent();
        if e.length != op.indata.len() as u64 {
            return err(EINVAL);
        }
        let length = self.write_at(e, op.indata.clone())?;
        op.set_extent_length(length);
        ok()
    }

    /// Writes `data` by the rules for CephFS truncation; returns the length written.
    fn write_at(&mut self, e: Extent, mut data: Bytes) -> Viewed<u64, V::Missing> {
        let seq = self.info.truncate_seq();
        let end = e.offset.saturating_add(e.length);
        if seq != 0 && seq > e.truncate_seq && end > self.info.size {
            // Sent before a truncation that came first: only what lies inside counts.
            data.truncate(self.info.size.saturating_sub(e.offset) as usize);
        }
        if e.truncate_seq > seq {
            if self.exists {
                self.effect(Effect::Truncate(e.truncate_size));
                self.resize(e.truncate_size);
            }
            self.info.truncate = Some((e.truncate_seq, e.truncate_size));
        }
        let length = data.len() as u64;
        self.check_range(e.offset, length)?;
        self.ensure_exists();
        if length > 0 {
            let op = self.current;
            self.effect(Effect::Write { offset: e.offset, data, op });
        } else if e.offset > self.info.size {
            self.effect(Effect::Truncate(e.offset));
        }
        self.resize(self.info.size.max(e.offset + length));
        self.count_write(length);
        Ok(length)
    }

    pub(super) fn writefull(&mut self, op: &SubOp) -> Step<V::Missing> {
        let length = op.extent().length;
        if length != op.indata.len() as u64 {
            return err(EINVAL);
        }
        self.check_range(0, length)?;
        let shrinks = self.exists && length < self.info.size;
        self.ensure_exists();
        if shrinks {
            self.effect(Effect::Truncate(length));
        }
        if length > 0 {
            let op_index = self.current;
            self.effect(Effect::Write { offset: 0, data: op.indata.clone(), op: op_index });
        }
        self.resize(length);
        self.count_write(length);
        ok()
    }

    pub(super) fn append(&mut self, op: &SubOp) -> Step<V::Missing> {
        let length = op.extent().length;
        if length != op.indata.len() as u64 {
            return err(EINVAL);
        }
        let at = Extent {
            offset: self.info.size,
            length,
            truncate_seq: self.info.truncate_seq(),
            truncate_size: 0,
        };
        self.write_at(at, op.indata.clone())?;
        ok()
    }

    pub(super) fn writesame(&mut self, op: &SubOp) -> Step<V::Missing> {
        let (offset, length, data_length) = op.writesame();
        if length == 0 {
            return ok();
        }
        if data_length == 0
            || !length.is_multiple_of(data_length)
            || data_length != op.indata.len() as u64
        {
            return err(EINVAL);
        }
        self.check_range(offset, length)?;
        let mut data = BytesMut::with_capacity(length as usize);
        for _ in 0..length / data_length {
            data.extend_from_slice(&op.indata);
        }
        let e = Extent { offset, length, ..Extent::default() };
        self.write_at(e, data.freeze())?;
        ok()
    }

    pub(super) fn truncate(&mut self, op: &mut SubOp) -> Step<V::Missing> {
        let mut e = op.extent();
        if op.code == code::TRIMTRUNC {
            e.offset = e.truncate_size;
            op.set_extent(e);
        }
        if !self.exists {
            return ok();
        }
        if e.offset > self.limits.max_object_size {
            return err(EFBIG);
        }
        if e.truncate_seq != 0 {
            if e.offset != e.truncate_size {
                return err(EINVAL);
            }
            if e.truncate_seq <= self.info.truncate_seq() {
                return ok();
            }
            self.info.truncate = Some((e.truncate_seq, e.truncate_size));
        }
        self.effect(Effect::Truncate(e.offset));
        self.resize(e.offset);
        self.delta.num_wr += 1;
        ok()
    }

    pub(super) fn zero(&mut self, op: &SubOp) -> Step<V::Missing> {
        let e = op.extent();
        let max = self.limits.max_object_size;
        let sane = e.offset < max && (1..=max).contains(&e.length);
        if sane && self.exists && e.offset + e.length >= self.info.size {
            // Past the end; what reaches over the end was turned into a truncation.
            return Ok(None);
        }
        self.check_range(e.offset, e.length)?;
        if e.length == 0 {
            return err(EINVAL);
        }
        if self.exists {
            self.effect(Effect::Zero { offset: e.offset, length: e.length });
            self.delta.num_wr += 1;
        }
        ok()
    }

    pub(super) fn create(&mut self, op: &SubOp) -> Step<V::Missing> {
        if self.exists && op.flags & op_flag::EXCL != 0 {
            return err(EEXIST);
        }
        // A category was given here once; it must still be a string.
        if !op.indata.is_empty() {
            super::cut::Cut::new(&op.indata).blob()?;
        }
        self.ensure_exists();
        ok()
    }

    pub(super) fn delete(&mut self) -> Step<V::Missing> {
        if !self.exists {
            return err(ENOENT);
        }
        self.effect(Effect::Remove);
        self.delta.num_wr += 1;
        self.delta.num_objects -= 1;
        self.resize(0);
        self.info = ObjectInfo::default();
        self.exists = false;
        ok()
    }

    pub(super) fn set_alloc_hint(&mut self, op: &SubOp) -> Step<V::Missing> {
        self.ensure_exists();
        let hint = op.alloc_hint();
        self.info.alloc_hint = (hint != (0, 0, 0)).then_some(hint);
        ok()
    }

    fn truncated_by(&self, e: Extent) -> bool {
        self.info.truncate_seq() < e.truncate_seq
            && e.offset.saturating_add(e.length) > e.truncate_size
    }

    fn check_range(&self, offset: u64, length: u64) -> Viewed<(), V::Missing> {
        let max = self.limits.max_object_size;
        if offset >= max || length > max || offset + length > max {
            return Err(Fault::Errno(-EFBIG));
        }
        Ok(())
    }

    fn resize(&mut self, size: u64) {
        self.delta.num_bytes += size as i64 - self.info.size as i64;
        self.info.size = size;
    }

    fn count_write(&mut self, length: u64) {
        self.delta.num_wr += 1;
        self.delta.num_wr_kb += kib(length);
    }
}

/// How much of a range lies below `size`.
fn clip(offset: u64, length: u64, size: u64) -> u64 {
    length.min(size.saturating_sub(offset))
}
