//! An image's header: made once, then its size, striping, times and protection of snapshots.

use bytes::Bytes;
use spirula_wire::Decode;
use spirula_wire::types::UTime;

use super::types::{HEAD, Parent};
use super::{feature, key, snap};
use crate::context::{Context, Outcome, fail};
use crate::errno::{EEXIST, EINVAL, EIO, ENOSYS};
use crate::input::{arguments, put};
use crate::method::Method;

const NO_POOL: i64 = -1;
/// One more than the highest protection status (unprotected, unprotecting, protected).
const PROTECTION_END: u8 = 3;

pub(super) const METHODS: &[Method] = &[
    Method::both("create", create),
    Method::reads("get_size", get_size),
    Method::both("set_size", set_size),
    Method::reads("get_object_prefix", get_object_prefix),
    Method::reads("get_data_pool", get_data_pool),
    Method::reads("get_protection_status", get_protection_status),
    Method::both("set_protection_status", set_protection_status),
    Method::reads("get_stripe_unit_count", get_stripe_unit_count),
    Method::both("set_stripe_unit_count", set_stripe_unit_count),
    Method::reads("get_create_timestamp", |ctx, _, out| get_time(ctx, b"create_timestamp", out)),
    Method::reads("get_access_timestamp", |ctx, _, out| get_time(ctx, b"access_timestamp", out)),
    Method::reads("get_modify_timestamp", |ctx, _, out| get_time(ctx, b"modify_timestamp", out)),
    Method::both("set_access_timestamp", |ctx, _, _| set_time(ctx, b"access_timestamp")),
    Method::both("set_modify_timestamp", |ctx, _, _| set_time(ctx, b"modify_timestamp")),
];

/// The input of `create`.
struct NewImage {
    size: u64,
    order: u8,
    features: u64,
    object_prefix: Bytes,
    data_pool: i64,
}

fn create(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let image = arguments(input, |r| {
        Ok(NewImage {
            size: r.u64()?,
            order: r.u8()?,
            features: r.u64()?,
            object_prefix: Bytes::decode(r)?,
            data_pool: if r.is_empty() { NO_POOL } else { r.i64()? },
        })
    })?;
    if image.features & !feature::ALL != 0 {
        return fail(ENOSYS);
    }
    if image.object_prefix.is_empty() {
        return fail(EINVAL);
    }
    if key::is_set(ctx, b"object_prefix")? {
        return fail(EEXIST);
    }
    let has_pool = image.features & feature::DATA_POOL != 0;
    if image.features & feature::OPERATIONS != 0 || has_pool == (image.data_pool == NO_POOL) {
        return fail(EINVAL);
    }
    let now = key::encoded(&ctx.now());
    let mut pairs = vec![
        ("size", key::encoded(&image.size)),
        ("order", key::encoded(&image.order)),
        ("features", key::encoded(&image.features)),
        ("object_prefix", key::encoded(&image.object_prefix)),
        ("snap_seq", key::encoded(&0u64)),
        ("create_timestamp", now.clone()),
        ("access_timestamp", now.clone()),
        ("modify_timestamp", now),
    ];
    if has_pool {
        pairs.push(("data_pool_id", key::encoded(&image.data_pool)));
    }
    let pairs = pairs.into_iter().map(|(key, value)| (Bytes::from_static(key.as_bytes()), value));
    ctx.set_omap(pairs.collect())
}

fn get_size(ctx: &mut dyn Context, input: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let id = arguments(input, |r| r.u64())?;
    let order: u8 = key::read(ctx, b"order")?;
    let size: u64 =
        if id == HEAD { key::read(ctx, b"size")? } else { snap::read(ctx, id)?.image_size };
    put(out, &order);
    put(out, &size);
    Ok(())
}

fn set_size(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let size = arguments(input, |r| r.u64())?;
    let old: u64 = key::read(ctx, b"size")?;
    key::write(ctx, b"size", &size)?;
    if size >= old {
        return Ok(());
    }
    // What is cut off does not show the parent again when the image grows.
    let Some(mut parent) = key::find::<Parent>(ctx, b"parent")? else { return Ok(()) };
    if !parent.spec.exists() || parent.head_overlap.unwrap_or(0) <= size {
        return Ok(());
    }
    parent.head_overlap = Some(size);
    key::write(ctx, b"parent", &parent)
}

fn get_object_prefix(ctx: &mut dyn Context, _: &Bytes, out: &mut Vec<u8>) -> Outcome {
    put(out, &key::read::<Bytes>(ctx, b"object_prefix")?);
    Ok(())
}

fn get_data_pool(ctx: &mut dyn Context, _: &Bytes, out: &mut Vec<u8>) -> Outcome {
    put(out, &key::find::<i64>(ctx, b"data_pool_id")?.unwrap_or(NO_POOL));
    Ok(())
}

fn get_protection_status(ctx: &mut dyn Context, input: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let id = arguments(input, |r| r.u64())?;
    key::require_object(ctx)?;
    if id == HEAD {
        return fail(EINVAL);
    }
    let status = snap::read(ctx, id)?.protection;
    if status >= PROTECTION_END {
        return fail(EIO);
    }
    put(out, &status);
    Ok(())
}

fn set_protection_status(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let (id, status) = arguments(input, |r| Ok((r.u64()?, r.u8()?)))?;
    key::require_object(ctx)?;
    feature::require(ctx, feature::LAYERING)?;
    if id == HEAD || status >= PROTECTION_END {
        return fail(EINVAL);
    }
    let mut entry = snap::read(ctx, id)?;
    entry.protection = status;
    snap::write(ctx, id, entry)
}

/// Bytes of a data object; an order beyond 63 wraps, as the shift does on Ceph's processors.
fn object_size(order: u8) -> u64 {
    1u64.wrapping_shl(order.into())
}

fn get_stripe_unit_count(ctx: &mut dyn Context, _: &Bytes, out: &mut Vec<u8>) -> Outcome {
    key::require_object(ctx)?;
    feature::require(ctx, feature::STRIPING)?;
    let unit = match key::find::<u64>(ctx, b"stripe_unit")? {
        Some(unit) => unit,
        None => match key::find(ctx, b"order")? {
            Some(order) => object_size(order),
            None => return fail(EIO),
        },
    };
    let count = key::find::<u64>(ctx, b"stripe_count")?.unwrap_or(1);
    put(out, &unit);
    put(out, &count);
    Ok(())
}

fn set_stripe_unit_count(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let (unit, count) = arguments(input, |r| Ok((r.u64()?, r.u64()?)))?;
    if unit == 0 || count == 0 {
        return fail(EINVAL);
    }
    key::require_object(ctx)?;
    feature::require(ctx, feature::STRIPING)?;
    let object = object_size(key::read(ctx, b"order")?);
    if !object.is_multiple_of(unit) {
        return fail(EINVAL);
    }
    key::write(ctx, b"stripe_unit", &unit)?;
    key::write(ctx, b"stripe_count", &count)
}

/// Images of older releases have no times: zero then.
fn get_time(ctx: &mut dyn Context, name: &[u8], out: &mut Vec<u8>) -> Outcome {
    put(out, &key::find::<UTime>(ctx, name)?.unwrap_or_default());
    Ok(())
}

fn set_time(ctx: &mut dyn Context, name: &[u8]) -> Outcome {
    key::require_object(ctx)?;
    let now = ctx.now();
    key::write(ctx, name, &now)
}
