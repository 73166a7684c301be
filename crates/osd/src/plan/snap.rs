//! Operations on an object's snapshots.

use spirula_maps::SnapIntervals;
use spirula_wire::msg::ops::OpArgs;
use spirula_wire::msg::osd_op::OsdOpResult;
use spirula_wire::types::{CloneInfo, ListSnapsResponse, SnapId};
use spirula_wire::{Encode, Features};

use super::{Effect, Run, Step, err, ok};
use crate::errno::*;
use crate::object::ObjectInfo;
use crate::snap::{Clones, Shown, SnapClone};
use crate::view::{Fault, ObjectView, Past};

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
            Shown::Clone(&SnapClone { id, epoch, size, .. }) => {
                let past = self.view.past(epoch)?.ok_or(Fault::Errno(-EIO))?;
                self.become_past(past, Rollback { id, epoch, size })
            }
            _ if !self.exists => ok(),
            _ if !self.info.watchers.is_empty() => err(EBUSY),
            _ => self.delete(),
        }
    }

    fn become_past(&mut self, past: Past, to: Rollback) -> Step<V::Missing> {
        let size = self.info.size;
        self.ensure_exists();
        self.delta.num_bytes += to.size as i64 - size as i64;
        self.info = ObjectInfo { size: to.size, omap: past.info.omap, ..self.info.clone() };
        self.effect(Effect::Rollback(to));
        for (name, value) in past.xattrs {
            self.effect(Effect::SetXattr { name, value });
        }
        if past.info.omap {
            self.effect(Effect::SetOmapHeader(past.omap_header));
            self.effect(Effect::SetOmap(past.omap));
        }
        ok()
    }
}

/// The clone that a head becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rollback {
    pub id: SnapId,
    pub epoch: u64,
    pub size: u64,
}
