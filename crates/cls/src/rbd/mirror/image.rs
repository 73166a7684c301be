//! The mirrored images of a pool: `image_<id>` holds what mirroring knows of it, `global_<global id>` its
//! id; the global id is the same on all sites.

use bytes::Bytes;
use spirula_wire::{Decode, Denc};

use super::{key, listing, status};
use crate::context::{Context, Outcome, fail};
use crate::errno::{EBUSY, EEXIST, EINVAL, ENOENT};
use crate::input::{arguments, put};
use crate::method::Method;

pub(super) const PREFIX: &[u8] = b"image_";
const GLOBAL: &[u8] = b"global_";

const DISABLING: u8 = 0;
const ENABLED: u8 = 1;

pub(super) const METHODS: &[Method] = &[
    Method::reads("mirror_image_list", list),
    Method::reads("mirror_image_get_image_id", image_id),
    Method::reads("mirror_image_get", get),
    Method::both("mirror_image_set", set),
    Method::both("mirror_image_remove", remove),
];

/// `cls::rbd::MirrorImage`.
#[derive(Clone, Debug, PartialEq, Eq, Denc)]
#[denc(version = 2, compat = 1)]
pub(super) struct Image {
    pub(super) global_id: Bytes,
    state: u8,
    #[denc(since = 2)]
    mode: u8,
}

/// Whether this global id belongs to an image that is mirrored and not just being taken out.
pub(super) fn is_enabled(ctx: &mut dyn Context, global_id: &[u8]) -> Outcome<bool> {
    let id: Bytes = key::read(ctx, &key::join(GLOBAL, global_id))?;
    let image: Image = key::read(ctx, &key::join(PREFIX, &id))?;
    Ok(image.state == ENABLED)
}

fn list(ctx: &mut dyn Context, input: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let (after, max): (Bytes, u64) = arguments(input, Decode::decode)?;
    let global_id = |value: &Bytes| Ok(key::stored::<Image>(value)?.global_id);
    put(out, &listing::named(ctx, PREFIX, (&after, max), global_id)?);
    Ok(())
}

fn image_id(ctx: &mut dyn Context, input: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let global_id: Bytes = arguments(input, Decode::decode)?;
    let id: Bytes = key::read(ctx, &key::join(GLOBAL, &global_id))?;
    put(out, &id);
    Ok(())
}

fn get(ctx: &mut dyn Context, input: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let id: Bytes = arguments(input, Decode::decode)?;
    let image: Image = key::read(ctx, &key::join(PREFIX, &id))?;
    put(out, &image);
    Ok(())
}

/// An image keeps its global id, and no two images share one.
fn set(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let (id, image): (Bytes, Image) = arguments(input, Decode::decode)?;
    let (key, global_key) = (key::join(PREFIX, &id), key::join(GLOBAL, &image.global_id));
    match key::find::<Image>(ctx, &key)? {
        Some(old) if old.global_id != image.global_id => return fail(EINVAL),
        Some(_) => {}
        None if key::find::<Bytes>(ctx, &global_key)?.is_some() => return fail(EEXIST),
        // Someone else has disabled it completely in the meantime.
        None if image.state == DISABLING => return fail(ENOENT),
        None => {}
    }
    key::write(ctx, &key, &image)?;
    key::write(ctx, &global_key, &id)
}

fn remove(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let id: Bytes = arguments(input, Decode::decode)?;
    let key = key::join(PREFIX, &id);
    let image: Image = key::read(ctx, &key)?;
    if image.state != DISABLING {
        return fail(EBUSY);
    }
    ctx.remove_omap_key(&key)?;
    key::remove(ctx, &key::join(GLOBAL, &image.global_id))?;
    status::forget(ctx, &image.global_id)
}
