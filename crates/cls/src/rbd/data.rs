//! Data objects: copy-up from a parent, a guard against late writers, and giving back zeros.

use std::collections::BTreeMap;

use bytes::Bytes;
use spirula_wire::Decode;

use crate::context::{Absent, Context, Outcome, fail};
use crate::errno::{EINVAL, EOPNOTSUPP, ERANGE};
use crate::input::arguments;
use crate::method::Method;

/// Extents that a sparsified object is written in, at most: an input that asks for tiny ones must
/// not make a huge transaction.
const EXTENTS_MAX: usize = 4096;

pub(super) const METHODS: &[Method] = &[
    Method::both("copyup", copyup),
    Method::both("sparse_copyup", sparse_copyup),
    Method::both("assert_snapc_seq", assert_snapc_seq),
    Method::both("sparsify", sparsify),
];

fn exists(ctx: &mut dyn Context) -> Outcome<bool> {
    Ok(ctx.stat().or_absent()?.is_some())
}

/// The input becomes the object, unless there is one: then a writer was faster, with newer data.
fn copyup(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    if exists(ctx)? { Ok(()) } else { ctx.write(0, input.clone()) }
}

fn sparse_copyup(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let (extents, mut data) =
        arguments(input, |r| Ok((BTreeMap::<u64, u64>::decode(r)?, Bytes::decode(r)?)))?;
    if exists(ctx)? {
        return Ok(());
    }
    if extents.is_empty() {
        return ctx.create(true);
    }
    for (offset, length) in extents {
        if length > data.len() as u64 {
            return fail(EINVAL);
        }
        ctx.write(offset, data.split_to(length as usize))?;
    }
    Ok(())
}

/// Compares the snap context of a writer with the newest snapshot of the object.
fn assert_snapc_seq(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let (writer, wanted) = arguments(input, |r| Ok((r.u64()?, r.u8()?)))?;
    let newer = ctx.snapset_seq().or_absent()?.is_none_or(|seq| writer > seq);
    match wanted {
        0 | 1 if newer == (wanted == 0) => Ok(()),
        0 | 1 => fail(ERANGE),
        _ => fail(EOPNOTSUPP),
    }
}

/// Rewrites the object without its chunks of zeros; one of zeros alone becomes empty or goes.
fn sparsify(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let (chunk, remove_empty) = arguments(input, |r| Ok((r.u64()?, r.u8()? != 0)))?;
    let (size, _) = ctx.stat()?;
    // Ceph's would not end with chunks of no bytes.
    if chunk == 0 {
        return fail(EINVAL);
    }
    let data = if size == 0 { Bytes::new() } else { ctx.read(0, size)? };
    let extents = filled(&data, usize::try_from(chunk).unwrap_or(usize::MAX));
    match extents.as_slice() {
        [] if remove_empty => ctx.remove(),
        [] if data.is_empty() => Ok(()),
        [(0, length)] if *length == data.len() => Ok(()),
        extents => {
            ctx.truncate(0)?;
            extents.iter().try_for_each(|(offset, length)| {
                ctx.write(*offset as u64, data.slice(*offset..offset + length))
            })
        }
    }
}

/// The runs of chunks that are not all zeros, as (offset, length).
fn filled(data: &[u8], chunk: usize) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (i, bytes) in data.chunks(chunk).enumerate() {
        if bytes.iter().all(|byte| *byte == 0) {
            continue;
        }
        let offset = i * chunk;
        let full = runs.len() == EXTENTS_MAX;
        match runs.last_mut() {
            Some((start, length)) if *start + *length == offset => *length += bytes.len(),
            Some((start, length)) if full => {
                *length = offset + bytes.len() - *start;
            }
            _ => runs.push((offset, bytes.len())),
        }
    }
    runs
}
