//! Turns the change of one object into store operations.

use bytes::Bytes;
use spirula_vos::{ContainerId, ObjectKey, Tx};
use spirula_wire::{Encode, Features};

use crate::apply::{DataCrcs, apply_effects, meta_object};
use crate::object::{AKEY, ObjectInfo, dkey};
use crate::plan::Effect;
use crate::snap::{SnapChange, clone_akey, encode_seq};

/// What happens to one object, head and clones.
#[derive(Debug, Default)]
pub struct ObjectChange<'a> {
    pub effects: Vec<Effect>,
    /// Of the head; `None` if there is none afterwards.
    pub info: Option<&'a ObjectInfo>,
    pub snaps: Option<&'a SnapChange>,
    pub crcs: DataCrcs<'a>,
}

/// Adds the change to `tx`. Before anything else the epochs are retained that clones are read at.
pub fn apply_object(tx: &mut Tx, cid: ContainerId, oid: &ObjectKey, change: ObjectChange<'_>) {
    let ObjectChange { effects, info, snaps, crcs } = change;
    let Some(snaps) = snaps else {
        return apply_effects(tx, cid, oid, effects, info, crcs, false);
    };
    let epochs = snaps.after.epochs();
    if epochs != snaps.before.epochs() {
        tx.retain(cid, oid, &epochs);
    }
    let has_clones = !epochs.is_empty();
    let removed = effects.contains(&Effect::Remove);
    apply_effects(tx, cid, oid, effects, info, crcs, has_clones);
    if has_clones || info.is_some() {
        let whole = removed && !has_clones;
        apply_snapset(tx, cid, oid, snaps, whole);
    }
}

/// Writes the records that differ; all of them if the object was removed as a `whole`.
fn apply_snapset(
    tx: &mut Tx,
    cid: ContainerId,
    oid: &ObjectKey,
    SnapChange { before, after }: &SnapChange,
    whole: bool,
) {
    let meta = meta_object();
    if after.seq != before.seq || whole {
        tx.update(cid, oid, dkey::SNAPSET, AKEY, encode_seq(after.seq).into());
    }
    for clone in &after.clones {
        let old = before.clone_of(clone.id);
        if old != Some(clone) {
            let record = clone.to_bytes(Features::PACIFIC);
            tx.update(cid, oid, dkey::SNAPSET, &clone_akey(clone.id), record.into());
        }
        if old.is_none() {
            for snap in &clone.snaps {
                tx.update(cid, &meta, &dkey::snap(*snap), &oid.0, Bytes::new());
            }
        }
    }
    let gone = before.clones.iter().filter(|c| after.clone_of(c.id).is_none());
    for clone in gone {
        tx.punch_akey(cid, oid, dkey::SNAPSET, &clone_akey(clone.id));
    }
}
