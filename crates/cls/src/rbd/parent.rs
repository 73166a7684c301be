//! The link from a clone to its parent, kept in the clone's header.

use bytes::Bytes;
use spirula_wire::Decode;

use super::feature::{self, op};
use super::types::{HEAD, Parent, ParentSpec, Snap};
use super::{key, snap};
use crate::context::{Context, Outcome, fail};
use crate::errno::{EEXIST, EINVAL, ENOENT, ENOEXEC, EXDEV};
use crate::input::{arguments, put};
use crate::method::Method;

pub(super) const METHODS: &[Method] = &[
    Method::reads("get_parent", get_parent),
    Method::both("set_parent", set_parent),
    Method::both("remove_parent", |ctx, _, _| detach(ctx, true)),
    Method::reads("parent_get", parent_get),
    Method::reads("parent_overlap_get", parent_overlap_get),
    Method::both("parent_attach", parent_attach),
    Method::both("parent_detach", |ctx, _, _| detach(ctx, false)),
];

/// The oldest form, which knows no namespaces.
fn get_parent(ctx: &mut dyn Context, input: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let id = arguments(input, |r| r.u64())?;
    key::require_object(ctx)?;
    let mut parent = Parent::default();
    if feature::has(ctx, feature::LAYERING)? {
        parent = key::find(ctx, b"parent")?.unwrap_or_default();
        if !parent.spec.namespace.is_empty() {
            return fail(EXDEV);
        }
        if id != HEAD {
            parent = parent_of_snap(ctx, id, parent)?;
        }
    }
    put(out, &parent.spec.pool);
    put(out, &parent.spec.image);
    put(out, &parent.spec.snap);
    put(out, &parent.head_overlap.unwrap_or(0));
    Ok(())
}

fn parent_of_snap(ctx: &mut dyn Context, id: u64, header: Parent) -> Outcome<Parent> {
    let entry = match snap::read(ctx, id) {
        Err(crate::Halt::Errno(ENOENT)) => return Ok(Parent::default()),
        other => other?,
    };
    if entry.parent.spec.exists() {
        return Ok(entry.parent);
    }
    match entry.parent_overlap {
        None => Ok(Parent::default()),
        Some(_) if !header.spec.exists() => fail(EINVAL),
        overlap => Ok(Parent { head_overlap: overlap, ..header }),
    }
}

fn set_parent(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let (spec, overlap) = arguments(input, |r| {
        let (pool, image, snap) = (r.i64()?, Bytes::decode(r)?, r.u64()?);
        Ok((ParentSpec { pool, namespace: Bytes::new(), image, snap }, r.u64()?))
    })?;
    attach(ctx, spec, overlap, false)
}

fn parent_attach(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let (spec, overlap, again) = arguments(input, |r| {
        Ok((ParentSpec::decode(r)?, r.u64()?, !r.is_empty() && r.u8()? != 0))
    })?;
    attach(ctx, spec, overlap, again)
}

/// Sets the parent. Only with `again` may there be one already, other than what is left for
/// snapshots after a flatten.
fn attach(ctx: &mut dyn Context, spec: ParentSpec, overlap: u64, again: bool) -> Outcome {
    key::require_object(ctx)?;
    feature::require(ctx, feature::LAYERING)?;
    if !spec.exists() || overlap == 0 {
        return fail(EINVAL);
    }
    let old = key::find::<Parent>(ctx, b"parent")?;
    let in_use = |old: &Parent| old.head_overlap.is_some() || old.spec != spec;
    if !again && old.as_ref().is_some_and(in_use) {
        return fail(EEXIST);
    }
    let size: u64 = key::read(ctx, b"size")?;
    key::write(ctx, b"parent", &Parent { spec, head_overlap: Some(overlap.min(size)) })
}

/// Takes the parent from the head, and from the snapshots if the image has feature deep-flatten;
/// else the header keeps it for them.
fn detach(ctx: &mut dyn Context, knows_no_namespaces: bool) -> Outcome {
    key::require_object(ctx)?;
    if !feature::has(ctx, feature::LAYERING)? {
        return fail(ENOEXEC);
    }
    let deep = feature::has(ctx, feature::DEEP_FLATTEN)?;
    let parent: Parent = key::read(ctx, b"parent")?;
    if knows_no_namespaces && !parent.spec.namespace.is_empty() {
        return fail(EXDEV);
    }
    if parent.head_overlap.is_none() {
        return fail(ENOENT);
    }
    if !deep && snap::any(ctx, Snap::has_parent)? {
        return key::write(ctx, b"parent", &Parent { head_overlap: None, ..parent });
    }
    if deep {
        snap::each(ctx, |ctx, mut entry| {
            if entry.has_parent() {
                entry.parent = Parent::default();
                entry.parent_overlap = None;
                snap::write(ctx, entry.id, entry)?;
            }
            Ok(())
        })?;
    }
    key::remove(ctx, b"parent")?;
    feature::set_op(ctx, 0, op::CLONE_CHILD)
}

fn parent_get(ctx: &mut dyn Context, _: &Bytes, out: &mut Vec<u8>) -> Outcome {
    key::require_object(ctx)?;
    let mut spec = ParentSpec::default();
    if feature::has(ctx, feature::LAYERING)? {
        match key::find::<Parent>(ctx, b"parent")? {
            Some(parent) => spec = parent.spec,
            // Entries from before Nautilus name it themselves.
            None => snap::each(ctx, |_, entry| {
                if entry.parent.spec.exists() {
                    spec = entry.parent.spec;
                }
                Ok(())
            })?,
        }
    }
    put(out, &spec);
    Ok(())
}

fn parent_overlap_get(ctx: &mut dyn Context, input: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let id = arguments(input, |r| r.u64())?;
    let overlap = if !feature::has(ctx, feature::LAYERING)? {
        None
    } else if id == HEAD {
        key::find::<Parent>(ctx, b"parent")?.and_then(|parent| parent.head_overlap)
    } else {
        let entry = snap::read(ctx, id)?;
        let named = Some(entry.parent).filter(|parent| parent.spec.exists());
        entry.parent_overlap.or_else(|| named.and_then(|parent| parent.head_overlap))
    };
    put(out, &overlap);
    Ok(())
}
