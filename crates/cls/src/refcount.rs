//! Class `refcount`: named references to an object, which goes with the last one.
//!
//! A reference that was put stays known as retired, so that a repeated put changes nothing. Source of
//! its behaviour: `src/cls/refcount/cls_refcount.cc`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use spirula_wire::{Denc, Encode, Features};

use crate::coding::{input, stored};
use crate::context::{Context, Halt, Outcome, fail};
use crate::errno::{EINVAL, ENODATA};
use crate::method::{Class, Method};

pub(crate) const CLASS: Class = Class {
    name: "refcount",
    methods: &[&[
        Method::both("get", get),
        Method::both("put", put),
        Method::both("set", set),
        Method::reads("read", read),
    ]],
};

const XATTR: &str = "refcount";

/// The reference of an object on which none was ever taken, for callers that count it.
const IMPLICIT: Bytes = Bytes::new();

/// `obj_refcount`.
#[derive(Default, Denc)]
#[denc(version = 2, compat = 1)]
struct Refcount {
    /// The value says nothing.
    refs: BTreeMap<Bytes, bool>,
    #[denc(since = 2)]
    retired: BTreeSet<Bytes>,
}

/// `cls_refcount_get_op` and `cls_refcount_put_op`.
#[derive(Denc)]
#[denc(version = 1)]
struct TagOp {
    tag: Bytes,
    implicit: bool,
}

/// `cls_refcount_set_op` and `cls_refcount_read_ret`.
#[derive(Denc)]
#[denc(version = 1)]
struct Tags {
    tags: Vec<Bytes>,
}

/// `cls_refcount_read_op`.
#[derive(Denc)]
#[denc(version = 1)]
struct ReadOp {
    implicit: bool,
}

fn get(object: &mut dyn Context, bytes: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let op: TagOp = input(bytes)?;
    let mut count = load(object, op.implicit)?;
    count.refs.insert(op.tag, true);
    store(object, &count)
}

fn put(object: &mut dyn Context, bytes: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let op: TagOp = input(bytes)?;
    let mut count = load(object, op.implicit)?;
    if count.refs.is_empty() {
        return fail(EINVAL);
    }
    let held = if count.refs.contains_key(&op.tag) {
        op.tag.clone()
    } else if op.implicit && count.refs.contains_key(&IMPLICIT) {
        IMPLICIT
    } else {
        return Ok(());
    };
    if !count.retired.insert(op.tag) {
        return Ok(());
    }
    count.refs.remove(&held);
    if count.refs.is_empty() { object.remove() } else { store(object, &count) }
}

fn set(object: &mut dyn Context, bytes: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let op: Tags = input(bytes)?;
    if op.tags.is_empty() {
        return object.remove();
    }
    let refs = op.tags.into_iter().map(|tag| (tag, true)).collect();
    store(object, &Refcount { refs, ..Refcount::default() })
}

fn read(object: &mut dyn Context, bytes: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let op: ReadOp = input(bytes)?;
    let tags = load(object, op.implicit)?.refs.into_keys().collect();
    Tags { tags }.encode(out, Features::default());
    Ok(())
}

fn load(object: &mut dyn Context, implicit: bool) -> Outcome<Refcount> {
    match object.xattr(XATTR) {
        Ok(bytes) => stored(&bytes),
        Err(Halt::Errno(ENODATA)) => {
            let refs = implicit.then_some((IMPLICIT, true)).into_iter().collect();
            Ok(Refcount { refs, ..Refcount::default() })
        }
        Err(other) => Err(other),
    }
}

fn store(object: &mut dyn Context, count: &Refcount) -> Outcome {
    object.set_xattr(XATTR, count.to_bytes(Features::default()).into())
}
