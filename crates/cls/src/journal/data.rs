//! Methods of a journal's data objects: appends stop at a size that the client names.

use bytes::Bytes;
use spirula_wire::Denc;

use crate::coding::input;
use crate::context::{Absent, Context, Outcome, fail};
use crate::errno::{EFBIG, EOVERFLOW};
use crate::method::Method;

pub(super) const METHODS: &[Method] =
    &[Method::both("guard_append", guard_append), Method::both("append", append)];

/// Clients from Octopus on skip the zeros between entries.
const RELEASE_OCTOPUS: u8 = 15;

/// What an append is padded to for them: the smallest unit that a device allocates, as in Ceph.
const PADDED_TO: u64 = 4096;

#[derive(Denc)]
struct AppendOp {
    soft_max_size: u64,
    data: Bytes,
}

/// Fails when the object has its size; the append is an operation of its own after this one.
fn guard_append(object: &mut dyn Context, bytes: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let soft_max_size: u64 = input(bytes)?;
    match object.stat().or_absent()? {
        Some((size, _)) if size >= soft_max_size => fail(EOVERFLOW),
        _ => Ok(()),
    }
}

fn append(object: &mut dyn Context, bytes: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let op: AppendOp = input(bytes)?;
    let (offset, _) = object.stat().or_absent()?.unwrap_or_default();
    if offset >= op.soft_max_size {
        return fail(EOVERFLOW);
    }
    let end = offset.saturating_add(op.data.len() as u64);
    object.write(offset, op.data)?;
    if object.require_min_compat_client() < RELEASE_OCTOPUS || end.is_multiple_of(PADDED_TO) {
        return Ok(());
    }
    match end.checked_next_multiple_of(PADDED_TO) {
        Some(padded) => object.truncate(padded),
        None => fail(EFBIG),
    }
}
