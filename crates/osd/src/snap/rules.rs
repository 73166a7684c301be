//! Ceph's rules: what a write, a rollback and a trim do to a snapset and to the counters. Pure.

use spirula_maps::SnapIntervals;
use spirula_wire::types::{SnapContext, SnapId};

use crate::object::ObjectInfo;
use crate::plan::Effect;
use crate::snap::{Ranges, SnapChange, SnapClone, SnapSet};
use crate::stats::StatDelta;

/// A request's work on the head.
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    pub context: &'a SnapContext,
    /// The head before; `None` if there was none.
    pub old: Option<&'a ObjectInfo>,
    pub effects: &'a [Effect],
    /// Whether there is a head afterwards.
    pub exists: bool,
}

/// The snapset after a write: with a new clone if the context has a snapshot that the object has not
/// seen, and less overlap of the newest clone with the head.
pub fn make_writeable(before: SnapSet, write: Write<'_>, delta: &mut StatDelta) -> SnapChange {
    let Write { context, old, effects, exists } = write;
    let makes = old.is_some() && before.is_behind(context);
    let had_clones = !before.clones.is_empty();
    let shares = before.clones.last().is_some_and(|newest| !newest.overlap.is_empty());
    let modified = match makes || shares {
        true => modified(&before, old.map_or(0, |o| o.size), effects),
        false => Ranges::default(),
    };
    let mut change = SnapChange::of(before);
    if let (true, Some(old)) = (makes, old) {
        add_clone(&mut change, context, old, delta);
    }
    if !modified.is_empty() {
        lose_overlap(&mut change, &modified, delta);
    }
    if context.seq > change.set.seq {
        change.set.seq = context.seq;
        change.header = true;
    }
    let whiteouts = i64::from(!exists && !change.set.clones.is_empty())
        - i64::from(old.is_none() && had_clones);
    delta.num_whiteouts += whiteouts;
    delta.num_objects += whiteouts;
    change
}

/// The head, as it was, becomes the newest clone.
fn add_clone(
    change: &mut SnapChange,
    context: &SnapContext,
    old: &ObjectInfo,
    delta: &mut StatDelta,
) {
    let set = &mut change.set;
    set.clones.push(SnapClone {
        id: context.seq,
        epoch: 0,
        size: old.size,
        omap: old.omap,
        snaps: context.snaps.iter().copied().take_while(|s| *s > set.seq).collect(),
        overlap: Ranges::of(0, old.size),
    });
    change.made = true;
    change.header = true;
    change.changed.push(context.seq);
    delta.num_objects += 1;
    delta.num_object_clones += 1;
    delta.num_objects_omap += i64::from(old.omap);
}

/// The newest clone alone has what the head had before it was `modified`.
fn lose_overlap(change: &mut SnapChange, modified: &Ranges, delta: &mut StatDelta) {
    let Some(newest) = change.set.clones.last_mut() else {
        return;
    };
    let lost = modified.intersection(&newest.overlap);
    if lost.is_empty() {
        return;
    }
    delta.num_bytes += lost.len() as i64;
    newest.overlap = newest.overlap.difference(&lost);
    if !change.made {
        change.changed.push(newest.id);
    }
}

/// The bytes of the head, `size` bytes long before, that the effects change.
fn modified(before: &SnapSet, mut size: u64, effects: &[Effect]) -> Ranges {
    let mut ranges = Vec::new();
    for effect in effects {
        match effect {
            Effect::Write { offset, data, .. } => {
                let length = data.len() as u64;
                ranges.push((*offset, length));
                size = size.max(offset + length);
            }
            Effect::Zero { offset, length } => ranges.push((*offset, *length)),
            Effect::Truncate(to) => {
                ranges.push((*to, size.saturating_sub(*to)));
                size = *to;
            }
            Effect::Remove => {
                ranges.push((0, size));
                size = 0;
            }
            Effect::Rollback(to) => {
                let kept = rolled_back(before, to.id).intersection(&Ranges::of(0, size));
                let changed = Ranges::of(0, size).difference(&kept);
                ranges.extend_from_slice(changed.as_slice());
                size = to.size;
            }
            Effect::Clone { length, .. } => {
                ranges.push((0, *length));
                size = size.max(*length);
            }
            Effect::SetXattr { .. }
            | Effect::RemoveXattr(_)
            | Effect::SetOmap(_)
            | Effect::SetOmapHeader(_)
            | Effect::RemoveOmapKeys(_)
            | Effect::RemoveOmapRange { .. }
            | Effect::ClearOmap => {}
        }
    }
    Ranges::collect(ranges)
}

/// What the head still has in common with a clone.
pub fn rolled_back(set: &SnapSet, id: SnapId) -> Ranges {
    let mut newer = set.clones.iter().filter(|c| c.id >= id).map(|c| &c.overlap);
    let first = newer.next().cloned().unwrap_or_default();
    newer.fold(first, |common, overlap| common.intersection(overlap))
}

/// The snapset without the removed snapshots of the clone that shows `snap`, and without that clone
/// if no other shows it. `head`: whether the object has one.
pub fn trimmed(
    before: SnapSet,
    snap: SnapId,
    removed: &SnapIntervals,
    head: bool,
    delta: &mut StatDelta,
) -> Option<SnapChange> {
    let at = before.clones.iter().position(|c| c.snaps.contains(&snap))?;
    let mut change = SnapChange::of(before);
    let clones = &mut change.set.clones;
    clones[at].snaps.retain(|s| *s != snap && !removed.contains(s.0));
    if clones[at].snaps.is_empty() {
        change.header = at + 1 == clones.len();
        let gone = clones.remove(at);
        delta.num_bytes -= gone.bytes();
        delta.num_objects -= 1;
        delta.num_object_clones -= 1;
        delta.num_objects_omap -= i64::from(gone.omap);
        if let Some(older) = at.checked_sub(1).and_then(|i| clones.get_mut(i)) {
            let before = older.overlap.len();
            older.overlap = older.overlap.intersection(&gone.overlap);
            let lost = before - older.overlap.len();
            delta.num_bytes += lost as i64;
            change.changed.extend((lost > 0).then_some(older.id));
        }
        change.gone.push(gone.id);
    } else {
        change.changed.push(clones[at].id);
    }
    if change.set.clones.is_empty() && !head {
        delta.num_whiteouts -= 1;
        delta.num_objects -= 1;
    }
    Some(change)
}
