//! Snapshots of a group: `snapshot_<id>` in the group's object.

use bytes::Bytes;
use spirula_wire::{Decode, Denc};

use super::{key, listing};
use crate::context::{Context, Outcome, fail};
use crate::errno::{EEXIST, EINVAL};
use crate::input::{arguments, put};
use crate::method::Method;

const PREFIX: &[u8] = b"snapshot_";
/// `GROUP_SNAPSHOT_STATE_INCOMPLETE`: being made.
const INCOMPLETE: u8 = 0;

pub(super) const METHODS: &[Method] = &[
    Method::both("group_snap_set", set),
    Method::both("group_snap_remove", remove),
    Method::reads("group_snap_get_by_id", get),
    Method::reads("group_snap_list", list),
];

/// `cls::rbd::ImageSnapshotSpec`.
#[derive(Clone, Debug, PartialEq, Eq, Denc)]
#[denc(version = 1, compat = 1)]
struct ImageSnap {
    pool: i64,
    image_id: Bytes,
    snap_id: u64,
}

/// `cls::rbd::GroupSnapshot`.
#[derive(Clone, Debug, PartialEq, Eq, Denc)]
#[denc(version = 1, compat = 1)]
struct GroupSnap {
    id: Bytes,
    name: Bytes,
    state: u8,
    snaps: Vec<ImageSnap>,
}

fn set(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let snap: GroupSnap = arguments(input, Decode::decode)?;
    if snap.name.is_empty() || snap.id.is_empty() {
        return fail(EINVAL);
    }
    // All are decoded before any is compared.
    let others = listing::all(ctx, PREFIX)?;
    let others: Vec<GroupSnap> =
        others.iter().map(|(_, value)| key::stored(value)).collect::<Outcome<_>>()?;
    if others.iter().any(|other| other.name == snap.name && other.id != snap.id) {
        return fail(EEXIST);
    }
    let key = key::join(PREFIX, &snap.id);
    if snap.state == INCOMPLETE && key::is_set(ctx, &key)? {
        return fail(EEXIST);
    }
    key::write(ctx, &key, &snap)
}

fn remove(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let id: Bytes = arguments(input, Decode::decode)?;
    ctx.remove_omap_key(&key::join(PREFIX, &id))
}

fn get(ctx: &mut dyn Context, input: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let id: Bytes = arguments(input, Decode::decode)?;
    let snap: GroupSnap = key::read(ctx, &key::join(PREFIX, &id))?;
    put(out, &snap);
    Ok(())
}

/// Gives what it has when it meets a record that does not decode.
fn list(ctx: &mut dyn Context, input: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let (after, max): (GroupSnap, u64) = arguments(input, Decode::decode)?;
    let found = listing::page(ctx, PREFIX, &key::join(PREFIX, &after.id), max)?;
    let decoded = found.iter().map_while(|(_, value)| key::stored(value).ok());
    let snaps: Vec<GroupSnap> = decoded.collect();
    put(out, &snaps);
    Ok(())
}
