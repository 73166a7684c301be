//! Operations on an object's snapshots.

use bytes::Bytes;
use spirula_maps::SnapIntervals;
use spirula_wire::msg::ops::OpArgs;
use spirula_wire::msg::osd_op::OsdOpResult;
use spirula_wire::types::{CloneInfo, ListSnapsResponse, SnapId};
use spirula_wire::{Encode, Features};

use super::{Effect, Run, Step, err, ok};
use crate::errno::*;
use crate::object::ObjectInfo;
use crate::snap::{Clones, Shown, SnapClone};
use crate::view::{Fault, ObjectView, Past, Viewed};

impl<V: ObjectView> Run<'_, V> {
    /// The clones, oldest first, and the head.
    pub(super) fn list_snaps(&mut self, out: &mut OsdOpResult) -> Step<V::Missing> {
        let set = self.view.snapset(Clones::All)?;
        let mut clones: Vec<CloneInfo> = set
            .clones
            .into_iter()
            .map(|c| CloneInfo {
                cloneid: c.id,
                snaps: c.snaps.into_iter().rev().collect(),
                overlap: c.overlap.as_slice().to_vec(),
                size: c.size,
            })
            .collect();
        if self.exists {
            let head =
                CloneInfo { cloneid: SnapId::HEAD, size: self.info.size, ..Default::default() };
            clones.push(head);
        }
        let raw = ListSnapsResponse { clones, seq: set.seq }.to_bytes(Features::PACIFIC);
        self.delta.num_rd += 1;
        out.outdata = vec![raw.into()];
        ok()
    }

    /// Makes the head what a snapshot shows; where that is nothing, the head goes.
    pub(super) fn rollback(&mut self, out: &OsdOpResult) -> Step<V::Missing> {
        let OpArgs::Snap { snapid } = out.args else {
            return err(EINVAL);
        };
        let none = SnapIntervals::default();
        match self.snapset.shown(snapid, self.snaps.map_or(&none, |s| &s.pool.removed)) {
            Shown::Head if self.exists => {
                self.touched = true;
                ok()
            }
            Shown::Clone(&SnapClone { id, epoch, .. }) => {
                let past = self.view.past(epoch)?.ok_or(Fault::Errno(-EIO))?;
                self.become_past(past, id, epoch)
            }
            _ if !self.exists => ok(),
            _ if !self.info.watchers.is_empty() => err(EBUSY),
            _ => self.delete(),
        }
    }

    fn become_past(&mut self, past: Past, id: SnapId, epoch: u64) -> Step<V::Missing> {
        let patches = self.past_patches(&past)?;
        let (size, now) = (self.info.size, self.present()?);
        self.ensure_exists();
        self.delta.num_bytes += past.info.size as i64 - size as i64;
        self.info = ObjectInfo {
            size: past.info.size,
            omap: past.info.omap,
            ..std::mem::take(&mut self.info)
        };
        let to = Rollback { id, epoch, size: past.info.size, whole: now.is_none() };
        self.effect(Effect::Rollback(to));
        let effects = difference(now.unwrap_or_default(), past);
        effects.into_iter().for_each(|effect| self.effect(effect));
        self.promote_patches(patches);
        ok()
    }

    /// The head, but for its data, as it is at this place of the request; `None` if that is not known,
    /// since operations before have changed it.
    fn present(&self) -> Viewed<Option<Past>, V::Missing> {
        let Some(info) = self.view.info()? else {
            return Ok(self.effects.is_empty().then(Past::default));
        };
        if !self.effects.is_empty() {
            return Ok(None);
        }
        let mut now = Past { info, xattrs: self.view.xattrs()?, ..Past::default() };
        if now.info.omap {
            now.omap_header = self.view.omap_header()?;
            now.omap = self.view.omap_range(b"", false, usize::MAX)?;
        }
        Ok(Some(now))
    }
}

/// What makes `then` of `now`, but for the data.
pub(super) fn difference(now: Past, then: Past) -> Vec<Effect> {
    let mut effects = Vec::new();
    let (gone, set) = compare(now.xattrs, then.xattrs);
    effects.extend(gone.into_iter().map(Effect::RemoveXattr));
    effects.extend(set.into_iter().map(|(name, value)| Effect::SetXattr { name, value }));
    if !then.info.omap {
        effects.extend(now.info.omap.then_some(Effect::ClearOmap));
        return effects;
    }
    if now.omap_header != then.omap_header {
        effects.push(Effect::SetOmapHeader(then.omap_header));
    }
    let (gone, set) = compare(now.omap, then.omap);
    effects.extend((!gone.is_empty()).then_some(Effect::RemoveOmapKeys(gone)));
    effects.extend((!set.is_empty()).then_some(Effect::SetOmap(set)));
    effects
}

type Pairs = Vec<(Bytes, Bytes)>;

/// The keys that only `now` has, and what of `then` is not the same there. Both are in key order.
fn compare(now: Pairs, then: Pairs) -> (Vec<Bytes>, Pairs) {
    let mut now = now.into_iter().peekable();
    let (mut gone, mut set) = (Vec::new(), Vec::new());
    for (key, value) in then {
        while let Some((old, _)) = now.next_if(|(old, _)| *old < key) {
            gone.push(old);
        }
        let same = now.next_if(|(old, _)| *old == key).is_some_and(|(_, old)| old == value);
        set.extend((!same).then_some((key, value)));
    }
    gone.extend(now.map(|(key, _)| key));
    (gone, set)
}

/// The clone that a head becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rollback {
    pub id: SnapId,
    pub epoch: u64,
    pub size: u64,
    /// Xattrs and omap of the head go, and follow as effects; else only what of them differs follows.
    pub whole: bool,
}
