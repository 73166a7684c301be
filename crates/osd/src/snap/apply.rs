//! Turns the change of one object into store operations.

use bytes::Bytes;
use spirula_vos::{ContainerId, ObjectKey, Tx};
use spirula_wire::types::EVersion;
use spirula_wire::{Encode, Features};

use crate::apply::{DataCrcs, apply_effects, meta_object};
use crate::object::{AKEY, ObjectInfo, WHITEOUT, dkey};
use crate::plan::Effect;
use crate::snap::{SnapChange, SnapHeader, clone_akey};

const F: Features = Features::PACIFIC;

/// What happens to one object, head and clones.
#[derive(Debug, Default)]
pub struct ObjectChange<'a> {
    pub effects: Vec<Effect>,
    /// Of the head; `None` if there is none afterwards.
    pub info: Option<&'a ObjectInfo>,
    pub snaps: Option<&'a SnapChange>,
    pub crcs: DataCrcs<'a>,
    /// Of the log entry.
    pub version: EVersion,
}

/// Adds the change to `tx`. Before anything else the epochs are retained that clones are read at.
pub fn apply_object(tx: &mut Tx, cid: ContainerId, oid: &ObjectKey, change: ObjectChange<'_>) {
    let ObjectChange { effects, info, snaps, crcs, version } = change;
    let Some(snaps) = snaps else {
        return apply_effects(tx, cid, oid, effects, info, crcs, false);
    };
    if snaps.made || !snaps.gone.is_empty() {
        tx.retain(cid, oid, &snaps.set.epochs());
    }
    let has_clones = !snaps.set.clones.is_empty();
    let removed = effects.iter().any(|effect| matches!(effect, Effect::Remove));
    apply_effects(tx, cid, oid, effects, info, crcs, has_clones);
    if has_clones || info.is_some() {
        let whole = removed && !has_clones;
        apply_snapset(tx, cid, oid, snaps, whole);
    }
    if has_clones && info.is_none() {
        tx.update(cid, oid, dkey::INFO, WHITEOUT, version.to_bytes(F).into());
    }
}

/// Writes the records that differ; the header too if the object was removed as a `whole`.
fn apply_snapset(tx: &mut Tx, cid: ContainerId, oid: &ObjectKey, change: &SnapChange, whole: bool) {
    if change.header || whole {
        let header = SnapHeader::of(&change.set).to_bytes(F);
        tx.update(cid, oid, dkey::SNAPSET, AKEY, header.into());
    }
    for clone in change.changed.iter().filter_map(|id| change.set.clone_of(*id)) {
        tx.update(cid, oid, dkey::SNAPSET, &clone_akey(clone.id), clone.to_bytes(F).into());
    }
    if let (true, Some(clone)) = (change.made, change.set.clones.last()) {
        let meta = meta_object(cid);
        for snap in &clone.snaps {
            tx.update(cid, &meta, &dkey::snap(*snap), &oid.0, Bytes::new());
        }
    }
    for id in &change.gone {
        tx.punch_akey(cid, oid, dkey::SNAPSET, &clone_akey(*id));
    }
}
