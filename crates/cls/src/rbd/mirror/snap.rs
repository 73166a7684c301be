//! The mirror snapshots of an image, in its header: which sites still need one, and how far it is copied.

use bytes::Bytes;
use spirula_wire::Decode;

use crate::context::{Context, Outcome, fail};
use crate::errno::{EINVAL, ENOENT};
use crate::input::arguments;
use crate::method::Method;
use crate::rbd::snap;
use crate::rbd::types::{MirrorSnap, Snap, SnapNamespace};

/// `MIRROR_SNAPSHOT_STATE_NON_PRIMARY` and `_DEMOTED`: copied from another site.
const NON_PRIMARY: [u8; 2] = [2, 3];

pub(super) const METHODS: &[Method] = &[
    Method::both("mirror_image_snapshot_unlink_peer", unlink_peer),
    Method::both("mirror_image_snapshot_set_copy_progress", set_copy_progress),
];

fn unlink_peer(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let (id, peer): (u64, Bytes) = arguments(input, Decode::decode)?;
    let mut snap = snap::read(ctx, id)?;
    if !mirroring(&mut snap)?.peers.remove(&peer) {
        return fail(ENOENT);
    }
    snap::write(ctx, id, snap)
}

fn set_copy_progress(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let (id, (complete, last_copied_object)): (u64, (bool, u64)) =
        arguments(input, Decode::decode)?;
    let mut snap = snap::read(ctx, id)?;
    let mirroring = mirroring(&mut snap)?;
    mirroring.complete = complete;
    if NON_PRIMARY.contains(&mirroring.state) {
        mirroring.last_copied_object = last_copied_object;
    }
    snap::write(ctx, id, snap)
}

fn mirroring(snap: &mut Snap) -> Outcome<&mut MirrorSnap> {
    match &mut snap.namespace {
        SnapNamespace::Mirror(mirroring) => Ok(mirroring),
        _ => fail(EINVAL),
    }
}
