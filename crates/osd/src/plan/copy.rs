//! Copying whole objects: COPY_GET hands one out in parts, COPY_FROM makes one what another is.

use bytes::Bytes;
use spirula_maps::SnapIntervals;
use spirula_vos::{ContainerId, ObjectKey};
use spirula_wire::msg::ops::op_flag;
use spirula_wire::msg::osd_op::OsdOpResult;
use spirula_wire::types::{CopyCursor, CopyData, SnapId};
use spirula_wire::{Encode, Features};

use super::cut::Cut;
use super::tier::Errand;
use super::{Effect, Run, Step, err, kib, ok};
use crate::errno::*;
use crate::object::ObjectInfo;
use crate::snap::{Clones, Shown};
use crate::view::{Fault, ObjectView, Viewed};

const F: Features = Features::PACIFIC;
/// Omap entries fetched at a time.
const BATCH: usize = 256;

/// The object that a COPY_FROM names, as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub info: ObjectInfo,
    pub xattrs: Vec<(Bytes, Bytes)>,
    pub omap_header: Bytes,
    pub omap: Vec<(Bytes, Bytes)>,
    pub data: SourceData,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceData {
    /// Of an object in the same store, read at an epoch: the newest for a head.
    Shared { cid: ContainerId, oid: ObjectKey, epoch: u64 },
    /// Pieces by their offsets, in order; nothing between them.
    Bytes(Vec<(u64, Bytes)>),
    /// At other objects, that the source leads to.
    Elsewhere,
}

/// A COPY_FROM of the request: its place, and its source or why there is none (negative).
pub type FoundSource = (usize, Result<Source, i32>);

impl<V: ObjectView> Run<'_, V> {
    pub(super) fn copy_get(&mut self, input: &Bytes, out: &mut OsdOpResult) -> Step<V::Missing> {
        let mut input = Cut::new(input);
        let mut cursor: CopyCursor = input.decoded()?;
        let mut left = input.u64()?;
        self.require_stored()?;
        let (truncate_seq, truncate_size) = self.info.truncate.unwrap_or_default();
        let (snaps, snap_seq) = self.copied_snaps()?;
        let mut data = CopyData {
            size: self.info.size,
            mtime: self.info.mtime,
            snaps,
            snap_seq,
            truncate_seq,
            truncate_size,
            ..CopyData::default()
        };
        if !cursor.attr_complete {
            data.attrs = self.view.xattrs()?.into_iter().collect();
            cursor.attr_complete = true;
        }
        if left > 0 && !cursor.data_complete {
            let length = self.info.size.saturating_sub(cursor.data_offset).min(left);
            if length > 0 {
                data.data = self.view.read(cursor.data_offset, length)?.concat().into();
            }
            if length > 0 && length == self.info.size {
                data.flags |= CopyData::DATA_DIGEST;
                data.data_digest = !crc32c::crc32c(&data.data);
            }
            left -= length;
            cursor.data_offset += length;
            cursor.data_complete = cursor.data_offset >= self.info.size;
        }
        if !self.has_omap()? {
            cursor.omap_complete = true;
        } else if left > 0 && cursor.data_complete && !cursor.omap_complete {
            self.copy_omap(&mut cursor, left, &mut data)?;
        }
        data.cursor = cursor;
        let raw = data.to_bytes(F);
        self.count_read(raw.len() as u64);
        out.outdata = vec![raw.into()];
        ok()
    }

    /// The snapshots of a clone, or the newest context of a head.
    fn copied_snaps(&self) -> Viewed<(Vec<SnapId>, SnapId), V::Missing> {
        let snap = self.snaps.map_or(SnapId::HEAD, |scope| scope.snap);
        let (set, removed) = (self.view.snapset(Clones::Showing(snap))?, SnapIntervals::default());
        Ok(match set.shown(snap, &removed) {
            Shown::Clone(clone) => (clone.snaps.clone(), SnapId(0)),
            Shown::Head | Shown::Nothing => (Vec::new(), set.seq),
        })
    }

    /// As much of the omap as `left` bytes hold, and one entry at least.
    fn copy_omap(
        &mut self,
        cursor: &mut CopyCursor,
        mut left: u64,
        data: &mut CopyData,
    ) -> Viewed<(), V::Missing> {
        if cursor.omap_offset.is_empty() {
            data.omap_header = self.view.omap_header()?;
        }
        let (mut raw, mut count) = (0u32.to_bytes(F), 0u32);
        let mut after = !cursor.omap_offset.is_empty();
        'all: loop {
            let batch = self.view.omap_range(&cursor.omap_offset, after, BATCH)?;
            for (key, value) in &batch {
                key.encode(&mut raw, F);
                value.encode(&mut raw, F);
                count += 1;
                (cursor.omap_offset, after) = (key.clone(), true);
                left = left.saturating_sub((key.len() + value.len() + 8) as u64);
                if left == 0 {
                    break 'all;
                }
            }
            if batch.len() < BATCH {
                cursor.omap_offset = Bytes::new();
                cursor.omap_complete = true;
                break;
            }
        }
        if count > 0 {
            raw[..4].copy_from_slice(&count.to_le_bytes());
            data.omap_data = raw.into();
        }
        Ok(())
    }

    /// The source was looked up before the request ran; when it could not be had, the request fails
    /// even if this operation may. The object takes over its source's user version.
    pub(super) fn copy_from(&mut self, out: &mut OsdOpResult) -> Step<V::Missing> {
        let found = self.sources.iter().find(|(op, _)| *op == self.current);
        let source = match found {
            Some((op, Ok(Source { data: SourceData::Elsewhere, .. }))) => {
                return self.leave(Errand::Follow { op: *op });
            }
            Some((_, Ok(source))) => source.clone(),
            Some((_, Err(errno))) => {
                out.flags &= !op_flag::FAILOK;
                return Err(Fault::Errno(*errno));
            }
            None => return err(EINVAL),
        };
        if self.exists {
            self.effect(Effect::Remove);
        }
        self.take_over(source);
        ok()
    }

    /// The object becomes what `source` is, besides the xattrs that it has.
    pub(super) fn take_over(&mut self, source: Source) {
        self.ensure_exists();
        self.resize(source.info.size);
        self.delta.num_wr += 1;
        self.delta.num_wr_kb += kib(source.info.size);
        self.info.truncate = source.info.truncate;
        self.info.omap = source.info.omap;
        self.info.alloc_hint = None;
        self.copied_version = Some(source.info.user_version);
        for (name, value) in source.xattrs {
            self.effect(Effect::SetXattr { name, value });
        }
        if !source.omap_header.is_empty() {
            self.effect(Effect::SetOmapHeader(source.omap_header));
        }
        if !source.omap.is_empty() {
            self.effect(Effect::SetOmap(source.omap));
        }
        match source.data {
            SourceData::Shared { cid, oid, epoch } => {
                self.effect(Effect::Clone { cid, oid, epoch, length: source.info.size });
            }
            SourceData::Bytes(pieces) => {
                for (offset, data) in pieces {
                    self.effect(Effect::Write { offset, data });
                }
            }
            SourceData::Elsewhere => {}
        }
        if source.info.size > 0 {
            self.effect(Effect::Truncate(source.info.size));
        }
    }
}
