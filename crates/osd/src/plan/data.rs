//! Operations on an object's data, its existence and its size.

use bytes::{Bytes, BytesMut};
use spirula_wire::msg::ops::{OpArgs, OpCode, op_flag};
use spirula_wire::msg::osd_op::OsdOpResult;
use spirula_wire::{Encode, Features};

use super::{Effect, Run, Step, err, kib, ok};
use crate::errno::*;
use crate::object::ObjectInfo;
use crate::op::Extent;
use crate::view::{Fault, ObjectView, Viewed};

impl<V: ObjectView> Run<'_, V> {
    pub(super) fn read(&mut self, out: &mut OsdOpResult) -> Step<V::Missing> {
        let mut e = Extent::of(&out.args);
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
            out.outdata = self.view.read(e.offset, e.length)?;
            let crc = self.view.known_crc(e.offset, e.length);
            self.read_crc = crc.map(|crc| (self.current, crc));
        }
        out.args = e.into();
        self.count_read(e.length);
        ok()
    }

    pub(super) fn sparse_read(&mut self, out: &mut OsdOpResult) -> Step<V::Missing> {
        let e = Extent::of(&out.args);
        if e.truncate_seq != 0 {
            return err(EINVAL);
        }
        let extents = self.written_extents(e.offset, e.length)?;
        let total: u64 = extents.iter().map(|x| x.1).sum();
        let mut head = Vec::new();
        extents.encode(&mut head, Features::PACIFIC);
        (total as u32).encode(&mut head, Features::PACIFIC);
        out.outdata = vec![head.into()];
        for (offset, length) in extents {
            out.outdata.extend(self.view.read(offset, length)?);
        }
        out.args = Extent { length: total, ..e }.into();
        self.count_read(total);
        ok()
    }

    /// The written parts of a range that lie inside the object.
    pub(super) fn written_extents(
        &self,
        offset: u64,
        length: u64,
    ) -> Viewed<Vec<(u64, u64)>, V::Missing> {
        self.require_stored()?;
        self.view.extents(offset, clip(offset, length, self.info.size))
    }

    pub(super) fn mapext(&mut self, out: &mut OsdOpResult) -> Step<V::Missing> {
        let e = Extent::of(&out.args);
        let extents = self.written_extents(e.offset, e.length)?;
        out.outdata = vec![extents.to_bytes(Features::PACIFIC).into()];
        self.count_read(0);
        Ok(None)
    }

    pub(super) fn stat(&mut self, out: &mut OsdOpResult) -> Step<V::Missing> {
        self.delta.num_rd += 1;
        if !self.exists {
            return err(ENOENT);
        }
        let mut raw = self.info.size.to_bytes(Features::PACIFIC);
        self.info.mtime.encode(&mut raw, Features::PACIFIC);
        out.outdata = vec![raw.into()];
        Ok(None)
    }

    /// Compares with what a read returns, zeroes after its end.
    pub(super) fn cmpext(&mut self, input: &Bytes, out: &mut OsdOpResult) -> Step<V::Missing> {
        let mut e = Extent::of(&out.args);
        let size = if self.truncated_by(e) { e.truncate_size } else { self.info.size };
        e.length = clip(e.offset, e.length, size);
        out.args = e.into();
        let stored = if e.length == 0 || !self.exists {
            Vec::new()
        } else {
            let length = clip(e.offset, e.length, self.info.size);
            let stored = self.view.read(e.offset, length)?;
            self.count_read(length);
            stored
        };
        let stored = stored.iter().flatten().copied().chain(std::iter::repeat(0));
        match input.iter().zip(stored).position(|(want, have)| *want != have) {
            None => ok(),
            Some(at) => {
                let at = i32::try_from(at).unwrap_or(i32::MAX - MAX_ERRNO);
                Ok(Some(-(MAX_ERRNO + at)))
            }
        }
    }

    pub(super) fn assert_ver(&self, out: &OsdOpResult) -> Step<V::Missing> {
        let OpArgs::AssertVer { ver } = out.args else {
            return err(EINVAL);
        };
        match ver {
            0 => err(EINVAL),
            v if v < self.info.user_version => err(ERANGE),
            v if v > self.info.user_version => err(EOVERFLOW),
            _ => Ok(None),
        }
    }

    pub(super) fn write(&mut self, input: &Bytes, out: &mut OsdOpResult) -> Step<V::Missing> {
        let e = Extent::of(&out.args);
        if e.length != input.len() as u64 {
            return err(EINVAL);
        }
        let length = self.write_at(e, input.clone())?;
        out.args = Extent { length, ..e }.into();
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
            // Ceph takes any size here; an object of that size could not be read back.
            if e.truncate_size > self.limits.max_object_size {
                return Err(Fault::Errno(-EFBIG));
            }
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
            self.effect(Effect::Write { offset: e.offset, data });
        } else if e.offset > self.info.size {
            self.effect(Effect::Truncate(e.offset));
        }
        self.resize(self.info.size.max(e.offset + length));
        self.count_write(length);
        Ok(length)
    }

    pub(super) fn writefull(&mut self, input: &Bytes, out: &mut OsdOpResult) -> Step<V::Missing> {
        let length = Extent::of(&out.args).length;
        if length != input.len() as u64 {
            return err(EINVAL);
        }
        self.check_range(0, length)?;
        let shrinks = self.exists && length < self.info.size;
        self.ensure_exists();
        if shrinks {
            self.effect(Effect::Truncate(length));
        }
        if length > 0 {
            self.effect(Effect::Write { offset: 0, data: input.clone() });
        }
        self.resize(length);
        self.count_write(length);
        ok()
    }

    pub(super) fn append(&mut self, input: &Bytes, out: &mut OsdOpResult) -> Step<V::Missing> {
        let length = Extent::of(&out.args).length;
        if length != input.len() as u64 {
            return err(EINVAL);
        }
        let at = Extent {
            offset: self.info.size,
            length,
            truncate_seq: self.info.truncate_seq(),
            truncate_size: 0,
        };
        self.write_at(at, input.clone())?;
        ok()
    }

    pub(super) fn writesame(&mut self, input: &Bytes, out: &mut OsdOpResult) -> Step<V::Missing> {
        let OpArgs::WriteSame { offset, length, data_length } = out.args else {
            return err(EINVAL);
        };
        if length == 0 {
            return ok();
        }
        if data_length == 0
            || !length.is_multiple_of(data_length)
            || data_length != input.len() as u64
        {
            return err(EINVAL);
        }
        self.check_range(offset, length)?;
        let mut data = BytesMut::with_capacity(length as usize);
        for _ in 0..length / data_length {
            data.extend_from_slice(input);
        }
        let e = Extent { offset, length, ..Extent::default() };
        self.write_at(e, data.freeze())?;
        ok()
    }

    pub(super) fn truncate(&mut self, out: &mut OsdOpResult) -> Step<V::Missing> {
        let mut e = Extent::of(&out.args);
        if out.code == OpCode::TRIMTRUNC {
            e.offset = e.truncate_size;
            out.args = e.into();
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

    pub(super) fn zero(&mut self, out: &mut OsdOpResult) -> Step<V::Missing> {
        let e = Extent::of(&out.args);
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

    pub(super) fn create(&mut self, input: &Bytes, out: &mut OsdOpResult) -> Step<V::Missing> {
        if self.exists && out.flags & op_flag::EXCL != 0 {
            return err(EEXIST);
        }
        // A category was given here once; it must still be a string.
        if !input.is_empty() {
            super::cut::Cut::new(input).blob()?;
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
        self.drop_watches();
        self.release();
        self.info = ObjectInfo::default();
        self.exists = false;
        ok()
    }

    pub(super) fn set_alloc_hint(&mut self, out: &mut OsdOpResult) -> Step<V::Missing> {
        let OpArgs::AllocHint { expected_object_size, expected_write_size, flags } = out.args
        else {
            return err(EINVAL);
        };
        self.ensure_exists();
        let hint = (expected_object_size, expected_write_size, flags);
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

    pub(super) fn resize(&mut self, size: u64) {
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
