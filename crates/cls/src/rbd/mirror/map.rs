//! Which mirror daemon has which image: `image_map_<global id>`.

use bytes::Bytes;
use spirula_wire::types::UTime;
use spirula_wire::{Decode, Denc};

use super::{key, listing};
use crate::context::{Context, Outcome};
use crate::input::{arguments, put};
use crate::method::Method;

const PREFIX: &[u8] = b"image_map_";

pub(super) const METHODS: &[Method] = &[
    Method::reads("mirror_image_map_list", list),
    Method::writes("mirror_image_map_update", update),
    Method::writes("mirror_image_map_remove", remove),
];

/// `cls::rbd::MirrorImageMap`.
#[derive(Clone, Debug, PartialEq, Eq, Denc)]
#[denc(version = 1, compat = 1)]
struct Mapping {
    instance_id: Bytes,
    since: UTime,
    data: Bytes,
}

/// A stored value that does not decode is `EINVAL` here.
fn list(ctx: &mut dyn Context, input: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let (after, max): (Bytes, u64) = arguments(input, Decode::decode)?;
    let mapping = |value: &Bytes| arguments(value, Mapping::decode);
    put(out, &listing::named(ctx, PREFIX, (&after, max), mapping)?);
    Ok(())
}

fn update(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let (global_id, mapping): (Bytes, Mapping) = arguments(input, Decode::decode)?;
    key::write(ctx, &key::join(PREFIX, &global_id), &mapping)
}

fn remove(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let global_id: Bytes = arguments(input, Decode::decode)?;
    key::remove(ctx, &key::join(PREFIX, &global_id))
}
