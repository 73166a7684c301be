//! Chunked objects: parts that other objects hold too. As long as the object has its own data, reads
//! and writes are those of any object; once that was given up (TIER_EVICT), it is brought back from the
//! chunks' targets. A read sees it there ([`Patched`]); a write makes it the object's own first. A chunk
//! that is written over is the object's alone, and its target counts no reference of it any more.
//!
//! A clone shares the references of its head: the chunks that the newest clone has at the same places are
//! not counted anew, and not given back as long as it is there.

use bytes::{Bytes, BytesMut};
use spirula_wire::msg::ops::{OpCode, op_flag};
use spirula_wire::msg::osd_op::{OsdOp, OsdOpResult};
use spirula_wire::types::{HObject, ObjectLocator, SnapId};

use super::cut::Cut;
use super::tier::{Errand, is_about_manifest};
use super::{Effect, Request, Run, Step, err, ok};
use crate::errno::*;
use crate::object::{Chunk, Chunks, ObjectInfo};
use crate::op::Extent;
use crate::snap::{Clones, SnapChange, SnapSet};
use crate::view::{Fault, ObjectView, Past, Viewed};

/// What a chunk holds, or why that is not known (negative).
pub type Filled = (Chunk, Result<Bytes, i32>);

/// Why a chunk's content is not there.
pub(super) enum Unfilled {
    /// It has to be fetched.
    Open(Vec<Chunk>),
    Errno(i32),
}

/// The chunks that have to be brought back for the request.
pub(super) fn wanted(request: &Request<'_>, info: Option<&ObjectInfo>) -> Vec<(u64, Chunk)> {
    let Some(info) = info.filter(|info| !info.chunks.is_empty()) else {
        return Vec::new();
    };
    let about = |op: &OsdOp| is_about_manifest(op.code);
    let goes = request.ops.iter().all(|op| op.code == OpCode::DELETE);
    if request.ignores_redirects || goes || request.ops.iter().any(about) {
        return Vec::new();
    }
    let missing = info.chunks.iter().filter(|(_, chunk)| chunk.missing);
    let reads = |op: &OsdOp| matches!(op.code, OpCode::READ | OpCode::SYNC_READ);
    let read = |start: u64, chunk: &Chunk| {
        let within = |op: &OsdOp| {
            let Extent { offset, length, .. } = Extent::of(&op.args);
            let end = if length == 0 { u64::MAX } else { offset.saturating_add(length) };
            offset < start + chunk.length && start < end
        };
        request.ops.iter().any(within)
    };
    let some = request.ops.iter().all(reads);
    let wanted = missing.filter(|(start, chunk)| !some || read(**start, chunk));
    wanted.map(|(start, chunk)| (*start, chunk.clone())).collect()
}

/// Their contents, by offset.
pub(super) fn patches(
    wanted: &[(u64, Chunk)],
    filled: &[Filled],
) -> Result<Vec<(u64, Bytes)>, Unfilled> {
    let (mut patches, mut open) = (Vec::new(), Vec::new());
    for (start, chunk) in wanted {
        match filled.iter().find(|(other, _)| is_same(other, chunk)) {
            Some((_, Ok(content))) => {
                let length = (chunk.length as usize).min(content.len());
                patches.push((*start, content.slice(..length)));
            }
            Some((_, Err(errno))) => return Err(Unfilled::Errno(*errno)),
            None => open.push(chunk.clone()),
        }
    }
    if open.is_empty() { Ok(patches) } else { Err(Unfilled::Open(open)) }
}

/// The chunks of the newest clone, if references depend on them.
pub(super) fn of_newest_clone<V: ObjectView>(
    request: &Request<'_>,
    view: &V,
    old: Option<&ObjectInfo>,
    set: &SnapSet,
) -> Viewed<Chunks, V::Missing> {
    let sets = request.ops.iter().any(|op| op.code == OpCode::SET_CHUNK);
    let concerns = sets || old.is_some_and(|info| !info.chunks.is_empty());
    match set.clones.last().filter(|_| concerns && request.may_write) {
        Some(newest) => {
            Ok(view.past(newest.epoch)?.map(|past| past.info.chunks).unwrap_or_default())
        }
        None => Ok(Chunks::new()),
    }
}

fn is_same(a: &Chunk, b: &Chunk) -> bool {
    (&a.target, a.offset, a.length) == (&b.target, b.offset, b.length)
}

/// The targets that lose a reference with a clone: those of chunks that neither of its neighbours has, and
/// of chunks that both of them counted because it had others.
pub fn lost_with(gone: &Chunks, older: &Chunks, newer: &Chunks) -> Vec<HObject> {
    let in_ = |chunks: &Chunks, start: &u64, chunk: &Chunk| {
        chunks.get(start).is_some_and(|other| is_same(other, chunk))
    };
    let alone = gone.iter().filter(|(s, c)| !in_(older, s, c) && !in_(newer, s, c));
    let twice = older.iter().filter(|(s, c)| in_(newer, s, c) && !in_(gone, s, c));
    alone.chain(twice).map(|(_, chunk)| chunk.target.clone()).collect()
}

impl<V: ObjectView> Run<'_, V> {
    /// A part of the object is also at the target: at the same length, and with a reference.
    pub(super) fn set_chunk(&mut self, input: &Bytes, out: &OsdOpResult) -> Step<V::Missing> {
        self.require_present()?;
        if self.info.redirect.is_some() {
            return err(EINVAL);
        }
        let mut input = Cut::new(input);
        let (start, length) = (input.u64()?, input.u64()?);
        let locator = input.decoded::<ObjectLocator, _>()?;
        let (name, offset) = (input.blob()?, input.u64()?);
        let end = start.saturating_add(length);
        if length == 0 {
            return err(EINVAL);
        }
        if end > self.info.size {
            return err(ERANGE);
        }
        let overlaps = self.info.chunks.iter().any(|(s, c)| *s < end && start < s + c.length);
        if out.flags & op_flag::WITH_REFERENCE == 0 || overlaps {
            return err(EOPNOTSUPP);
        }
        let op = self.current;
        let target = match self.reached.iter().find(|(at, _)| *at == op) {
            Some((_, Ok(target))) => target.clone(),
            Some((_, Err(errno))) => return Err(Fault::Errno(*errno)),
            None => {
                let shared = self.clone_chunks.get(&start).is_some_and(|chunk| {
                    let target = (&chunk.target.oid, chunk.target.pool);
                    target == (&name, locator.pool)
                        && (chunk.offset, chunk.length) == (offset, length)
                });
                let (snap, counted) = (SnapId::HEAD, !shared);
                return self.leave(Errand::Reach { op, name, locator, snap, counted });
            }
        };
        self.touched = true;
        self.info.chunks.insert(start, Chunk { target, offset, length, missing: false });
        ok()
    }

    /// The object gives up its own data, if chunks have all of it.
    pub(super) fn evict_chunks(&mut self) -> Step<V::Missing> {
        let held: u64 = self.info.chunks.values().map(|chunk| chunk.length).sum();
        if held == self.info.size {
            self.info.chunks.values_mut().for_each(|chunk| chunk.missing = true);
            self.touched = true;
            self.effects.push(Effect::Zero { offset: 0, length: held });
            self.delta.num_wr += 1;
        }
        ok()
    }

    /// What is not clean would be cut anew by the pool's fingerprint algorithm; no pool has one.
    pub(super) fn flush_chunks(&self) -> Step<V::Missing> {
        match () {
            () if self.info.clean => ok(),
            () if !self.snapset.clones.is_empty() => err(EBUSY),
            () if self.info.size == 0 => ok(),
            () => err(EINVAL),
        }
    }

    /// What the chunks hold now becomes the object's own data; they stay.
    pub(super) fn promote_chunks(&mut self) -> Step<V::Missing> {
        let all: Vec<_> = self.info.chunks.iter().map(|(s, chunk)| (*s, chunk.clone())).collect();
        match patches(&all, self.filled) {
            Ok(patches) => {
                self.touched = true;
                self.info.mtime = self.caller.now;
                self.promote_patches(patches);
                ok()
            }
            Err(Unfilled::Open(chunks)) => self.leave(Errand::Fill(chunks)),
            Err(Unfilled::Errno(errno)) => Err(Fault::Errno(errno)),
        }
    }

    /// Chunks become the object's own data. By itself this is no reason to commit anything.
    pub(super) fn promote_patches(&mut self, patches: Vec<(u64, Bytes)>) {
        for (offset, data) in patches {
            if let Some(chunk) = self.info.chunks.get_mut(&offset) {
                chunk.missing = false;
            }
            if !data.is_empty() {
                self.effects.push(Effect::Write { offset, data });
            }
        }
    }

    /// The data that a clone has to have of its own when the head becomes what it is.
    pub(super) fn past_patches(&mut self, past: &Past) -> Viewed<Vec<(u64, Bytes)>, V::Missing> {
        let missing = past.info.chunks.iter().filter(|(_, chunk)| chunk.missing);
        let missing: Vec<_> = missing.map(|(start, chunk)| (*start, chunk.clone())).collect();
        match patches(&missing, self.filled) {
            Ok(patches) => Ok(patches),
            Err(Unfilled::Errno(errno)) => Err(Fault::Errno(errno)),
            Err(Unfilled::Open(chunks)) => {
                self.errand = Some(Errand::Fill(chunks));
                Err(Fault::Errno(-EAGAIN))
            }
        }
    }

    /// What is changed is in no chunk any more.
    pub(super) fn drop_chunks(&mut self, effect: &Effect) {
        if self.info.chunks.is_empty() {
            return;
        }
        let (from, to) = match effect {
            Effect::Remove | Effect::Clone { .. } | Effect::Rollback(_) => (0, u64::MAX),
            Effect::Truncate(size) => (*size, u64::MAX),
            Effect::Write { offset, data } => (*offset, offset + data.len() as u64),
            Effect::Zero { offset, length } => (*offset, offset + length),
            _ => return,
        };
        let changed = |start: u64, chunk: &Chunk| start < to && from < start + chunk.length;
        let gone = self.info.chunks.extract_if(.., |start, chunk| changed(*start, chunk));
        self.dropped.extend(gone);
    }

    /// Whoever counts a reference that neither the object nor its newest clone has is told of it.
    pub(super) fn release_chunks(&mut self, snaps: Option<&SnapChange>, old: Option<&ObjectInfo>) {
        let made = snaps.is_some_and(|snaps| snaps.made);
        let shared = old.filter(|_| made).map_or(&self.clone_chunks, |old| &old.chunks);
        let kept = |start: &u64, chunk: &Chunk| {
            shared.get(start).is_some_and(|other| is_same(other, chunk))
        };
        let gone = self.dropped.drain(..).filter(|(start, chunk)| !kept(start, chunk));
        self.released.extend(gone.map(|(_, chunk)| chunk.target));
    }
}

/// An object with the data that it has not itself.
pub(super) struct Patched<'a, V> {
    pub view: &'a V,
    pub patches: &'a [(u64, Bytes)],
}

impl<V: ObjectView> ObjectView for Patched<'_, V> {
    type Missing = V::Missing;

    fn info(&self) -> Viewed<Option<ObjectInfo>, V::Missing> {
        self.view.info()
    }

    fn xattr(&self, name: &[u8]) -> Viewed<Option<Bytes>, V::Missing> {
        self.view.xattr(name)
    }

    fn xattrs(&self) -> Viewed<Vec<(Bytes, Bytes)>, V::Missing> {
        self.view.xattrs()
    }

    fn omap_header(&self) -> Viewed<Bytes, V::Missing> {
        self.view.omap_header()
    }

    fn omap_value(&self, key: &[u8]) -> Viewed<Option<Bytes>, V::Missing> {
        self.view.omap_value(key)
    }

    fn omap_range(
        &self,
        from: &[u8],
        after: bool,
        max: usize,
    ) -> Viewed<Vec<(Bytes, Bytes)>, V::Missing> {
        self.view.omap_range(from, after, max)
    }

    fn read(&self, offset: u64, len: u64) -> Viewed<Vec<Bytes>, V::Missing> {
        let mut all = BytesMut::with_capacity(len as usize);
        self.view.read(offset, len)?.iter().for_each(|piece| all.extend_from_slice(piece));
        for (start, data) in self.patches {
            let from = offset.max(*start);
            let to = (offset + len).min(start + data.len() as u64);
            if from < to {
                let piece = &data[(from - start) as usize..(to - start) as usize];
                all[(from - offset) as usize..(to - offset) as usize].copy_from_slice(piece);
            }
        }
        Ok(vec![all.freeze()])
    }

    fn extents(&self, offset: u64, len: u64) -> Viewed<Vec<(u64, u64)>, V::Missing> {
        let mut all = self.view.extents(offset, len)?;
        for (start, data) in self.patches {
            let (from, to) = (offset.max(*start), (offset + len).min(start + data.len() as u64));
            all.extend((from < to).then(|| (from, to - from)));
        }
        all.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::with_capacity(all.len());
        for (start, length) in all {
            match merged.last_mut() {
                Some(last) if start <= last.0 + last.1 => {
                    last.1 = last.1.max(start + length - last.0);
                }
                _ => merged.push((start, length)),
            }
        }
        Ok(merged)
    }

    fn snapset(&self, clones: Clones) -> Viewed<SnapSet, V::Missing> {
        self.view.snapset(clones)
    }

    fn past(&self, epoch: u64) -> Viewed<Option<Past>, V::Missing> {
        self.view.past(epoch)
    }
}
