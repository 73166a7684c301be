//! The groups of a pool: `name_<name>` holds the id, `id_<id>` the name.

use bytes::Bytes;
use spirula_wire::Decode;

use super::{key, listing};
use crate::context::{Context, Halt, Outcome, fail};
use crate::errno::{EBADF, EEXIST, EINVAL, ENOENT, ESTALE};
use crate::input::{arguments, put};
use crate::method::Method;
use crate::rbd::directory;

const NAME: &[u8] = b"name_";
const ID: &[u8] = b"id_";

pub(super) const METHODS: &[Method] = &[
    Method::reads("group_dir_list", list),
    Method::both("group_dir_add", add),
    Method::both("group_dir_remove", remove),
    Method::both("group_dir_rename", rename),
];

fn list(ctx: &mut dyn Context, input: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let (after, max): (Bytes, u64) = arguments(input, Decode::decode)?;
    let groups = listing::named(ctx, NAME, (&after, max), |id| key::stored::<Bytes>(id))?;
    put(out, &groups);
    Ok(())
}

fn add(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    ctx.create(false)?;
    let (name, id): (Bytes, Bytes) = arguments(input, Decode::decode)?;
    check_new(ctx, &name, &id)?;
    if is_taken(ctx, &key::join(ID, &id))? {
        return fail(EBADF);
    }
    insert(ctx, &name, &id)
}

fn remove(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let (name, id): (Bytes, Bytes) = arguments(input, Decode::decode)?;
    check_old(ctx, &name, &id)?;
    ctx.remove_omap_key(&key::join(NAME, &name))?;
    ctx.remove_omap_key(&key::join(ID, &id))
}

/// All checks see the directory as it was, so a group cannot be renamed to its own name.
fn rename(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let (old, (new, id)): (Bytes, (Bytes, Bytes)) = arguments(input, Decode::decode)?;
    check_old(ctx, &old, &id)?;
    check_new(ctx, &new, &id)?;
    ctx.remove_omap_key(&key::join(NAME, &old))?;
    insert(ctx, &new, &id)
}

fn check_new(ctx: &mut dyn Context, name: &[u8], id: &[u8]) -> Outcome {
    if name.is_empty() || !directory::is_valid_id(id) {
        return fail(EINVAL);
    }
    if is_taken(ctx, &key::join(NAME, name))? { fail(EEXIST) } else { Ok(()) }
}

/// The directory has this group under this name and under this id.
fn check_old(ctx: &mut dyn Context, name: &[u8], id: &[u8]) -> Outcome {
    let stored_id: Bytes = key::read(ctx, &key::join(NAME, name))?;
    let stored_name: Bytes = key::read(ctx, &key::join(ID, id))?;
    if stored_name != name || stored_id != id { fail(ESTALE) } else { Ok(()) }
}

/// A value that cannot be read takes its key as well.
fn is_taken(ctx: &mut dyn Context, key: &[u8]) -> Outcome<bool> {
    match ctx.omap_value(key) {
        Err(Halt::Missing) => Err(Halt::Missing),
        found => Ok(found != fail(ENOENT)),
    }
}

fn insert(ctx: &mut dyn Context, name: &[u8], id: &[u8]) -> Outcome {
    let by_name = (key::join(NAME, name), key::encoded(id));
    let by_id = (key::join(ID, id), key::encoded(name));
    ctx.set_omap(vec![by_name, by_id])
}
