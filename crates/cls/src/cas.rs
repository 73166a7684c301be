//! Class `cas`: chunks of deduplicated objects, each with the references that keep it. Source of its
//! behaviour: `src/cls/cas/cls_cas.cc`.

mod refs;

use bytes::Bytes;
use spirula_wire::types::HObject;
use spirula_wire::{Denc, Encode, Features};

use crate::coding::{input, stored};
use crate::context::{Context, Halt, Outcome, fail};
use crate::errno::{ENODATA, ENOENT, ENOLINK, ENOMSG};
use crate::method::{Class, Method};
use refs::Refs;

pub(crate) const CLASS: Class = Class {
    name: "cas",
    methods: &[&[
        Method::both("chunk_create_or_get_ref", chunk_create_or_get_ref),
        Method::both("chunk_get_ref", chunk_get_ref),
        Method::both("chunk_put_ref", chunk_put_ref),
        Method::reads("references_chunk", references_chunk),
    ]],
};

const XATTR: &str = "chunk_refs";

/// An existing chunk must have the data that came along.
const VERIFY: u64 = 1;

/// `cls_cas_chunk_create_or_get_ref_op`.
#[derive(Denc)]
#[denc(version = 1)]
struct CreateOp {
    source: HObject,
    flags: u64,
    data: Bytes,
}

/// `cls_cas_chunk_get_ref_op` and `cls_cas_chunk_put_ref_op`.
#[derive(Denc)]
#[denc(version = 1)]
struct RefOp {
    source: HObject,
}

/// The input of `chunk_get_ref` and `chunk_put_ref` for a reference by `source`.
pub fn chunk_reference(source: HObject) -> Vec<u8> {
    RefOp { source }.to_bytes(Features::default())
}

fn chunk_create_or_get_ref(object: &mut dyn Context, bytes: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let op: CreateOp = input(bytes)?;
    let mut refs = match load(object) {
        Err(Halt::Errno(ENOENT)) => {
            object.write_full(op.data)?;
            Refs::default()
        }
        found => {
            let refs = found?;
            if op.flags & VERIFY != 0 && whole(object)? != op.data {
                return fail(ENOMSG);
            }
            refs
        }
    };
    refs.get(op.source);
    store(object, &refs)
}

fn chunk_get_ref(object: &mut dyn Context, bytes: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let op: RefOp = input(bytes)?;
    let mut refs = load(object)?;
    refs.get(op.source);
    store(object, &refs)
}

fn chunk_put_ref(object: &mut dyn Context, bytes: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let op: RefOp = input(bytes)?;
    let mut refs = load(object)?;
    if !refs.put(&op.source) {
        return fail(ENOLINK);
    }
    if refs.is_empty() { object.remove() } else { store(object, &refs) }
}

/// The number of chunks that the object has in the other one is the result.
fn references_chunk(object: &mut dyn Context, bytes: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let chunk: Bytes = input(bytes)?;
    match object.chunk_references(&chunk) {
        0 => fail(ENOLINK),
        count => {
            object.set_return_value(count);
            Ok(())
        }
    }
}

fn load(object: &mut dyn Context) -> Outcome<Refs> {
    match object.xattr(XATTR) {
        Ok(bytes) => stored(&bytes),
        Err(Halt::Errno(ENODATA)) => Ok(Refs::default()),
        Err(other) => Err(other),
    }
}

fn store(object: &mut dyn Context, refs: &Refs) -> Outcome {
    object.set_xattr(XATTR, refs.to_bytes(Features::default()).into())
}

fn whole(object: &mut dyn Context) -> Outcome<Bytes> {
    let (size, _) = object.stat()?;
    object.read(0, size)
}
