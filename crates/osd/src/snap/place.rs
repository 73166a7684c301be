//! What of its object a request is about, and with which snapshot context it writes.

use spirula_maps::{OsdMap, PgPool, SnapIntervals, pool_flags};
use spirula_wire::msg::osd_op::{OsdOpMsg, flag};
use spirula_wire::types::{SnapContext, SnapId};

use crate::errno::ENOENT;
use crate::snap::{Shown, SnapSet, without_removed};
use crate::view::{Fault, ObjectView, Viewed};

/// The snapshots of a request, as the map has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapScope {
    /// What it is about: the head, a snapshot, or all clones.
    pub snap: SnapId,
    /// What it writes with: the pool's context where the pool has snapshots of its own.
    pub context: SnapContext,
    /// An older context than the object's is refused.
    pub ordered: bool,
    /// Removed, but perhaps not yet from all objects.
    pub removed: SnapIntervals,
}

impl Default for SnapScope {
    fn default() -> Self {
        Self {
            snap: SnapId::HEAD,
            context: SnapContext::default(),
            ordered: false,
            removed: SnapIntervals::default(),
        }
    }
}

impl SnapScope {
    pub fn of(msg: &OsdOpMsg, map: &OsdMap, pool: &PgPool) -> Self {
        let removed = map.removed_snaps_queue.get(&msg.spgid.pgid.pool);
        let removed = removed.cloned().unwrap_or_default();
        let pools = pool.flags & pool_flags::POOL_SNAPS != 0 && !msg.has_flag(flag::ENFORCE_SNAPC);
        let context = match pools {
            true => SnapContext {
                seq: SnapId(pool.snap_seq),
                snaps: pool.snaps.keys().rev().map(|s| SnapId(*s)).collect(),
            },
            false => without_removed(&msg.snapc, &removed),
        };
        Self { snap: msg.snap, context, ordered: msg.has_flag(flag::ORDERSNAP), removed }
    }
}

/// Where a request finds its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Head,
    /// At the retained epoch of a clone.
    Past(u64),
}

impl Place {
    /// ENOENT where the snapshot does not have the object.
    pub fn find<V: ObjectView>(scope: &SnapScope, head: &V) -> Viewed<Self, V::Missing> {
        if scope.snap == SnapId::HEAD || scope.snap == SnapId::DIR {
            return Ok(Self::Head);
        }
        match head.snapset()?.shown(scope.snap, &scope.removed) {
            Shown::Head => Ok(Self::Head),
            Shown::Clone(clone) => Ok(Self::Past(clone.epoch)),
            Shown::Nothing => Err(Fault::Errno(-ENOENT)),
        }
    }
}

/// Whether the context is older than the object's, and must not be.
pub fn refuses_context(scope: &SnapScope, set: &SnapSet) -> bool {
    scope.ordered && scope.context.seq < set.seq
}
