//! What of its object a request is about, and with which snapshot context it writes.

use std::rc::Rc;

use spirula_maps::{OsdMap, SnapIntervals, pool_flags};
use spirula_wire::msg::osd_op::{OsdOpMsg, flag};
use spirula_wire::types::{SnapContext, SnapId};

use crate::errno::ENOENT;
use crate::snap::{Clones, Shown, SnapSet};
use crate::view::{Fault, ObjectView, Viewed};

/// The snapshots of a pool, as a map has them.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PoolSnaps {
    /// What is written with if the pool has snapshots of its own.
    pub context: Option<SnapContext>,
    /// Removed, but perhaps not yet from all objects.
    pub removed: SnapIntervals,
}

impl PoolSnaps {
    pub fn of(map: &OsdMap, id: i64) -> Self {
        let own = map.pool(id).filter(|pool| pool.flags & pool_flags::POOL_SNAPS != 0);
        Self {
            context: own.map(|pool| SnapContext {
                seq: SnapId(pool.snap_seq),
                snaps: pool.snaps.keys().rev().map(|s| SnapId(*s)).collect(),
            }),
            removed: map.removed_snaps_queue.get(&id).cloned().unwrap_or_default(),
        }
    }
}

/// What is written with where nobody has snapshots.
pub static NO_CONTEXT: SnapContext = SnapContext { seq: SnapId(0), snaps: Vec::new() };

/// The snapshots of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapScope {
    /// What it is about: the head, a snapshot, or all clones.
    pub snap: SnapId,
    /// What it writes with, if that is not the pool's context.
    pub own: Option<SnapContext>,
    /// An older context than the object's is refused.
    pub ordered: bool,
    pub pool: Rc<PoolSnaps>,
}

impl Default for SnapScope {
    fn default() -> Self {
        Self { snap: SnapId::HEAD, own: None, ordered: false, pool: Rc::default() }
    }
}

impl SnapScope {
    /// Takes the context out of the request.
    pub fn of(msg: &mut OsdOpMsg, pool: Rc<PoolSnaps>) -> Self {
        let own = (pool.context.is_none() || msg.has_flag(flag::ENFORCE_SNAPC)).then(|| {
            let mut context = std::mem::take(&mut msg.snapc);
            if !pool.removed.is_empty() {
                context.snaps.retain(|snap| !pool.removed.contains(snap.0));
            }
            context
        });
        Self { snap: msg.snap, own, ordered: msg.has_flag(flag::ORDERSNAP), pool }
    }

    /// What the request writes with, without the snapshots that are being removed.
    pub fn context(&self) -> &SnapContext {
        self.own.as_ref().or(self.pool.context.as_ref()).unwrap_or(&NO_CONTEXT)
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
        let set = head.snapset(Clones::Showing(scope.snap))?;
        match set.shown(scope.snap, &scope.pool.removed) {
            Shown::Head => Ok(Self::Head),
            Shown::Clone(clone) => Ok(Self::Past(clone.epoch)),
            Shown::Nothing => Err(Fault::Errno(-ENOENT)),
        }
    }
}

/// Whether the context is older than the object's, and must not be.
pub fn refuses_context(scope: &SnapScope, set: &SnapSet) -> bool {
    scope.ordered && scope.context().seq < set.seq
}
