//! Whether a pool is mirrored (`mirror_mode`), and the name it has for other sites (`mirror_uuid`, not
//! encoded).

use bytes::Bytes;
use spirula_wire::Decode;

use super::{key, peer};
use crate::context::{Absent, Context, Outcome, fail};
use crate::errno::{EBUSY, EINVAL};
use crate::input::{arguments, put};
use crate::method::Method;

const UUID: &[u8] = b"mirror_uuid";
const MODE: &[u8] = b"mirror_mode";

const DISABLED: u32 = 0;
/// `MIRROR_MODE_IMAGE` and `MIRROR_MODE_POOL`.
const ENABLED: [u32; 2] = [1, 2];

pub(super) const METHODS: &[Method] = &[
    Method::reads("mirror_uuid_get", get_uuid),
    Method::both("mirror_uuid_set", set_uuid),
    Method::reads("mirror_mode_get", get_mode),
    Method::both("mirror_mode_set", set_mode),
];

/// The pool's name for other sites; `ENOENT` when it has none.
pub(super) fn uuid(ctx: &mut dyn Context) -> Outcome<Bytes> {
    ctx.omap_value(UUID)
}

pub(super) fn is_enabled(ctx: &mut dyn Context) -> Outcome<bool> {
    Ok(key::find(ctx, MODE)?.is_some_and(|mode: u32| mode != DISABLED))
}

fn get_uuid(ctx: &mut dyn Context, _: &Bytes, out: &mut Vec<u8>) -> Outcome {
    put(out, &uuid(ctx)?);
    Ok(())
}

fn set_uuid(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let uuid: Bytes = arguments(input, Decode::decode)?;
    if uuid.is_empty() || is_enabled(ctx)? {
        return fail(EINVAL);
    }
    ctx.set_omap(vec![(Bytes::from_static(UUID), uuid)])
}

fn get_mode(ctx: &mut dyn Context, _: &Bytes, out: &mut Vec<u8>) -> Outcome {
    put(out, &key::read::<u32>(ctx, MODE)?);
    Ok(())
}

fn set_mode(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let mode: u32 = arguments(input, Decode::decode)?;
    if ENABLED.contains(&mode) {
        return match uuid(ctx).or_absent()? {
            Some(_) => key::write(ctx, MODE, &mode),
            None => fail(EINVAL),
        };
    }
    if mode != DISABLED {
        return fail(EINVAL);
    }
    if !peer::all(ctx)?.is_empty() {
        return fail(EBUSY);
    }
    key::remove(ctx, MODE)?;
    key::remove(ctx, UUID)
}
