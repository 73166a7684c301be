//! Names and ids of images: the pool's `rbd_directory`, and one `rbd_id.<name>` object per image.

use std::collections::BTreeMap;

use bytes::Bytes;
use spirula_wire::Decode;

use super::key;
use crate::context::{Absent, Context, Outcome, fail};
use crate::errno::{EBADF, EBUSY, EEXIST, EINVAL, ENOENT, ESTALE};
use crate::input::{arguments, put};
use crate::method::Method;

const BY_NAME: &[u8] = b"name_";
const BY_ID: &[u8] = b"id_";

/// States of a directory; one that is about to go away takes no images.
const READY: u8 = 0;
const ADD_DISABLED: u8 = 1;

pub(super) const METHODS: &[Method] = &[
    Method::reads("get_id", get_id),
    Method::both("set_id", set_id),
    Method::reads("dir_get_id", |ctx, input, out| look_up(ctx, BY_NAME, input, out)),
    Method::reads("dir_get_name", |ctx, input, out| look_up(ctx, BY_ID, input, out)),
    Method::reads("dir_list", dir_list),
    Method::both("dir_add_image", dir_add_image),
    Method::both("dir_remove_image", dir_remove_image),
    Method::both("dir_rename_image", dir_rename_image),
    Method::reads("dir_state_assert", dir_state_assert),
    Method::both("dir_state_set", dir_state_set),
];

fn get_id(ctx: &mut dyn Context, _: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let (size, _) = ctx.stat()?;
    if size == 0 {
        return fail(ENOENT);
    }
    let data = ctx.read(0, size)?;
    put(out, &key::stored::<Bytes>(&data)?);
    Ok(())
}

fn set_id(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    key::require_object(ctx)?;
    let id = arguments(input, Bytes::decode)?;
    if !is_valid_id(&id) {
        return fail(EINVAL);
    }
    if ctx.stat()?.0 != 0 {
        return fail(EEXIST);
    }
    ctx.write(0, key::encoded(&id))
}

pub(super) fn is_valid_id(id: &[u8]) -> bool {
    !id.is_empty() && id.iter().all(u8::is_ascii_alphanumeric)
}

fn look_up(ctx: &mut dyn Context, by: &[u8], input: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let what = arguments(input, |r| r.blob("name"))?;
    put(out, &key::read::<Bytes>(ctx, &key::join(by, what))?);
    Ok(())
}

fn dir_list(ctx: &mut dyn Context, input: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let (after, max) = arguments(input, |r| Ok((r.blob("name")?, r.u64()?)))?;
    let mut images = BTreeMap::<Bytes, Bytes>::new();
    if max > 0 {
        key::scan(ctx, &key::join(BY_NAME, after), BY_NAME, |_, key, id| {
            images.insert(key.slice(BY_NAME.len()..), key::stored(id)?);
            Ok((images.len() as u64) < max)
        })?;
    }
    put(out, &images);
    Ok(())
}

/// The two keys of an image.
fn keys(name: &[u8], id: &[u8]) -> (Bytes, Bytes) {
    (key::join(BY_NAME, name), key::join(BY_ID, id))
}

fn dir_add_image(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let (name, id) = arguments(input, |r| Ok((r.blob("name")?, r.blob("id")?)))?;
    check_add(ctx, name, id)?;
    if key::is_set(ctx, &keys(name, id).1)? {
        return fail(EBADF);
    }
    add(ctx, name, id)
}

/// A valid pair whose name is free.
fn check_add(ctx: &mut dyn Context, name: &[u8], id: &[u8]) -> Outcome {
    if name.is_empty() || !is_valid_id(id) {
        return fail(EINVAL);
    }
    if key::is_set(ctx, &keys(name, id).0)? { fail(EEXIST) } else { Ok(()) }
}

fn add(ctx: &mut dyn Context, name: &[u8], id: &[u8]) -> Outcome {
    let (by_name, by_id) = keys(name, id);
    ctx.set_omap(vec![(by_name, key::encoded(id)), (by_id, key::encoded(name))])
}

fn dir_remove_image(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let (name, id) = arguments(input, |r| Ok((r.blob("name")?, r.blob("id")?)))?;
    check_remove(ctx, name, id)?;
    remove(ctx, name, id)
}

/// `ESTALE` when name and id do not belong to each other: a rename came first.
fn check_remove(ctx: &mut dyn Context, name: &[u8], id: &[u8]) -> Outcome {
    let (by_name, by_id) = keys(name, id);
    let stored_id: Bytes = key::read(ctx, &by_name)?;
    let stored_name: Bytes = key::read(ctx, &by_id)?;
    if stored_name != name || stored_id != id { fail(ESTALE) } else { Ok(()) }
}

fn remove(ctx: &mut dyn Context, name: &[u8], id: &[u8]) -> Outcome {
    let (by_name, by_id) = keys(name, id);
    ctx.remove_omap_key(&by_name)?;
    ctx.remove_omap_key(&by_id)
}

fn dir_rename_image(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let (from, to, id) =
        arguments(input, |r| Ok((r.blob("name")?, r.blob("name")?, r.blob("id")?)))?;
    check_remove(ctx, from, id)?;
    check_add(ctx, to, id)?;
    remove(ctx, from, id)?;
    add(ctx, to, id)
}

fn dir_state_assert(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let state = arguments(input, |r| r.u8())?;
    if key::read::<u8>(ctx, b"state")? == state { Ok(()) } else { fail(ENOENT) }
}

fn dir_state_set(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let state = arguments(input, |r| r.u8())?;
    let exists = ctx.stat().or_absent()?.is_some();
    match state {
        READY => {}
        ADD_DISABLED if !exists => return fail(ENOENT),
        ADD_DISABLED => {
            if !ctx.omap_values(BY_NAME, BY_NAME, 1)?.items.is_empty() {
                return fail(EBUSY);
            }
        }
        _ => return fail(EINVAL),
    }
    key::write(ctx, b"state", &state)
}
