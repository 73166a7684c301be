//! The link from a parent to its clones: in the pool's `rbd_children` for clones of protected
//! snapshots, in the parent's header for those of format 2 (`rbd_default_clone_format`).

use std::collections::BTreeSet;

use bytes::Bytes;
use spirula_wire::{Decode, DecodeError, Reader};

use super::feature::{self, op};
use super::types::ChildSpec;
use super::{key, snap};
use crate::context::{Context, Outcome, fail};
use crate::errno::{EEXIST, EINVAL, ENOENT};
use crate::input::{arguments, put};
use crate::method::Method;

pub(super) const METHODS: &[Method] = &[
    Method::both("add_child", add_child),
    Method::both("remove_child", remove_child),
    Method::reads("get_children", get_children),
    Method::both("child_attach", child_attach),
    Method::both("child_detach", child_detach),
    Method::reads("children_list", children_list),
];

/// The key of a parent's snapshot in `rbd_children`: its pool, image and snapshot, encoded.
fn parent_key<'a>(r: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
    let all = r.peek();
    r.u64()?;
    r.blob("image")?;
    r.u64()?;
    Ok(&all[..all.len() - r.remaining()])
}

fn add_child(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let (key, child) = arguments(input, |r| Ok((parent_key(r)?, Bytes::decode(r)?)))?;
    let mut children: BTreeSet<Bytes> = key::find(ctx, key)?.unwrap_or_default();
    if !children.insert(child) {
        return fail(EEXIST);
    }
    key::write(ctx, key, &children)
}

fn remove_child(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let (key, child) = arguments(input, |r| Ok((parent_key(r)?, Bytes::decode(r)?)))?;
    let mut children: BTreeSet<Bytes> = key::read(ctx, key)?;
    if !children.remove(&child) {
        return fail(ENOENT);
    }
    if children.is_empty() { key::remove(ctx, key) } else { key::write(ctx, key, &children) }
}

fn get_children(ctx: &mut dyn Context, input: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let key = arguments(input, parent_key)?;
    put(out, &key::read::<BTreeSet<Bytes>>(ctx, key)?);
    Ok(())
}

fn children_key(snap: u64) -> Bytes {
    format!("snap_children_{snap:016x}").into()
}

fn child_attach(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let (id, child) = arguments(input, |r| Ok((r.u64()?, ChildSpec::decode(r)?)))?;
    let mut entry = snap::read(ctx, id)?;
    if entry.namespace.is_trash() {
        return fail(ENOENT);
    }
    let key = children_key(id);
    let mut children: BTreeSet<ChildSpec> = key::find(ctx, &key)?.unwrap_or_default();
    if !children.insert(child) {
        return fail(EEXIST);
    }
    key::write(ctx, &key, &children)?;
    entry.child_count = entry.child_count.wrapping_add(1);
    snap::write(ctx, id, entry)?;
    feature::set_op(ctx, op::CLONE_PARENT, op::CLONE_PARENT)
}

fn child_detach(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let (id, child) = arguments(input, |r| Ok((r.u64()?, ChildSpec::decode(r)?)))?;
    let mut entry = snap::read(ctx, id)?;
    let key = children_key(id);
    let mut children: BTreeSet<ChildSpec> = key::find(ctx, &key)?.unwrap_or_default();
    if entry.child_count as usize != children.len() {
        return fail(EINVAL);
    }
    if !children.remove(&child) {
        return fail(ENOENT);
    }
    if children.is_empty() {
        key::remove(ctx, &key)?;
    } else {
        key::write(ctx, &key, &children)?;
    }
    entry.child_count -= 1;
    snap::write(ctx, id, entry)?;
    let in_use = !children.is_empty() || snap::any(ctx, |s| s.id != id && s.child_count > 0)?;
    if in_use { Ok(()) } else { feature::set_op(ctx, 0, op::CLONE_PARENT) }
}

fn children_list(ctx: &mut dyn Context, input: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let id = arguments(input, |r| r.u64())?;
    snap::read(ctx, id)?;
    put(out, &key::read::<BTreeSet<ChildSpec>>(ctx, &children_key(id))?);
    Ok(())
}
