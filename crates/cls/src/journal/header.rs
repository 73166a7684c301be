//! Methods of the journal's layout and its object sets.

use std::cmp::Ordering;

use bytes::Bytes;
use spirula_wire::{Decode, Denc, Encode};

use super::{
    ACTIVE_SET, MINIMUM_SET, NEXT_TAG_CLASS, NEXT_TAG_TID, ORDER, POOL_ID, SPLAY_WIDTH, is_there,
    load, reply, store,
};
use crate::coding::input;
use crate::context::{Context, Outcome, fail};
use crate::errno::{EEXIST, EINVAL, ESTALE};
use crate::method::Method;

pub(super) const METHODS: &[Method] = &[
    Method::both("create", create),
    Method::reads("get_order", get_order),
    Method::reads("get_splay_width", get_splay_width),
    Method::reads("get_pool_id", get_pool_id),
    Method::reads("get_minimum_set", get_minimum_set),
    Method::both("set_minimum_set", set_minimum_set),
    Method::reads("get_active_set", get_active_set),
    Method::both("set_active_set", set_active_set),
];

#[derive(Denc)]
struct CreateOp {
    order: u8,
    splay_width: u8,
    pool_id: i64,
}

fn create(object: &mut dyn Context, bytes: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let op: CreateOp = input(bytes)?;
    if is_there(object, ORDER.as_bytes())? {
        return fail(EEXIST);
    }
    store(object, ORDER, &op.order)?;
    store(object, SPLAY_WIDTH, &op.splay_width)?;
    store(object, POOL_ID, &op.pool_id)?;
    for key in [ACTIVE_SET, MINIMUM_SET, NEXT_TAG_TID, NEXT_TAG_CLASS] {
        store(object, key, &0u64)?;
    }
    Ok(())
}

fn get_order(object: &mut dyn Context, _: &Bytes, out: &mut Vec<u8>) -> Outcome {
    get::<u8>(object, ORDER, out)
}

fn get_splay_width(object: &mut dyn Context, _: &Bytes, out: &mut Vec<u8>) -> Outcome {
    get::<u8>(object, SPLAY_WIDTH, out)
}

fn get_pool_id(object: &mut dyn Context, _: &Bytes, out: &mut Vec<u8>) -> Outcome {
    get::<i64>(object, POOL_ID, out)
}

fn get_minimum_set(object: &mut dyn Context, _: &Bytes, out: &mut Vec<u8>) -> Outcome {
    get::<u64>(object, MINIMUM_SET, out)
}

fn get_active_set(object: &mut dyn Context, _: &Bytes, out: &mut Vec<u8>) -> Outcome {
    get::<u64>(object, ACTIVE_SET, out)
}

pub(super) fn get<T: Decode + Encode>(
    object: &mut dyn Context,
    key: &str,
    out: &mut Vec<u8>,
) -> Outcome {
    reply(out, &load::<T>(object, key)?);
    Ok(())
}

fn set_minimum_set(object: &mut dyn Context, bytes: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let set: u64 = input(bytes)?;
    if load::<u64>(object, ACTIVE_SET)? < set {
        return fail(EINVAL);
    }
    advance(object, MINIMUM_SET, set)
}

fn set_active_set(object: &mut dyn Context, bytes: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let set: u64 = input(bytes)?;
    if load::<u64>(object, MINIMUM_SET)? > set {
        return fail(EINVAL);
    }
    advance(object, ACTIVE_SET, set)
}

/// Object sets only go forward.
fn advance(object: &mut dyn Context, key: &str, set: u64) -> Outcome {
    match set.cmp(&load::<u64>(object, key)?) {
        Ordering::Less => fail(ESTALE),
        Ordering::Equal => Ok(()),
        Ordering::Greater => store(object, key, &set),
    }
}
