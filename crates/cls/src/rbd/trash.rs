//! The trash of a pool: object `rbd_trash`, one entry `id_<image id>` for each image in it.

use bytes::Bytes;
use spirula_wire::types::UTime;
use spirula_wire::{Decode, Denc};

use super::{directory, key, listing};
use crate::context::{Context, Outcome, fail};
use crate::errno::{EEXIST, EINVAL, ESTALE};
use crate::input::{arguments, put};
use crate::method::Method;

const PREFIX: &[u8] = b"id_";

pub(super) const METHODS: &[Method] = &[
    Method::both("trash_add", add),
    Method::both("trash_remove", remove),
    Method::reads("trash_list", list),
    Method::reads("trash_get", get),
    Method::both("trash_state_set", set_state),
];

/// `cls::rbd::TrashImageSpec`.
#[derive(Clone, Debug, PartialEq, Eq, Denc)]
#[denc(version = 2, compat = 1)]
struct Entry {
    source: u8,
    name: Bytes,
    deleted: UTime,
    kept_until: UTime,
    #[denc(since = 2)]
    state: u8,
}

fn add(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    ctx.create(false)?;
    let (id, entry): (Bytes, Entry) = arguments(input, Decode::decode)?;
    if !directory::is_valid_id(&id) {
        return fail(EINVAL);
    }
    let key = key::join(PREFIX, &id);
    if key::find::<Entry>(ctx, &key)?.is_some() {
        return fail(EEXIST);
    }
    key::write(ctx, &key, &entry)
}

fn remove(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let id: Bytes = arguments(input, Decode::decode)?;
    let key = key::join(PREFIX, &id);
    ctx.omap_value(&key)?;
    ctx.remove_omap_key(&key)
}

fn list(ctx: &mut dyn Context, input: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let (after, max): (Bytes, u64) = arguments(input, Decode::decode)?;
    let from = (&after[..], listing::limit_32(max));
    put(out, &listing::named(ctx, PREFIX, from, |value| key::stored::<Entry>(value))?);
    Ok(())
}

fn get(ctx: &mut dyn Context, input: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let id: Bytes = arguments(input, Decode::decode)?;
    out.extend_from_slice(&ctx.omap_value(&key::join(PREFIX, &id))?);
    Ok(())
}

fn set_state(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let (id, (state, expected)): (Bytes, (u8, u8)) = arguments(input, Decode::decode)?;
    let key = key::join(PREFIX, &id);
    let entry: Entry = key::read(ctx, &key)?;
    if entry.state == expected {
        key::write(ctx, &key, &Entry { state, ..entry })
    } else if entry.state == state {
        Ok(())
    } else {
        fail(ESTALE)
    }
}
