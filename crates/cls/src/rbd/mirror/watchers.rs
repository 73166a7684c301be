//! The mirror daemons themselves: those that watch, where an image is worked on, and those that have
//! registered (`instance_<id>`).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use spirula_wire::Decode;

use super::image::{self, Image};
use super::status_types::{Instance, Stored};
use super::{key, listing, status};
use crate::context::{Absent, Context, Halt, Outcome, fail};
use crate::errno::ESTALE;
use crate::input::{arguments, put};
use crate::method::Method;

const PREFIX: &[u8] = b"instance_";

pub(super) const METHODS: &[Method] = &[
    Method::reads("mirror_image_instance_get", image_instance),
    Method::reads("mirror_image_instance_list", image_instances),
    Method::reads("mirror_instances_list", list),
    Method::both("mirror_instances_add", add),
    Method::both("mirror_instances_remove", remove),
];

pub(super) type Watchers = BTreeSet<Instance>;

pub(super) fn all(ctx: &mut dyn Context) -> Outcome<Watchers> {
    let watchers = ctx.watchers().or_absent()?.unwrap_or_default();
    Ok(watchers.into_iter().map(Into::into).collect())
}

fn image_instance(ctx: &mut dyn Context, input: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let global_id: Bytes = arguments(input, Decode::decode)?;
    let watchers = all(ctx)?;
    put(out, &instance_of(ctx, &global_id, &watchers)?);
    Ok(())
}

/// Who works on an image for the pool's own site; `ESTALE` when it is gone.
fn instance_of(ctx: &mut dyn Context, global_id: &[u8], watchers: &Watchers) -> Outcome<Instance> {
    let stored: Stored = key::read(ctx, &status::local_key(global_id))?;
    let instance = stored.origin.0;
    if watchers.contains(&instance) { Ok(instance) } else { fail(ESTALE) }
}

/// Only images that someone works on count for the limit.
fn image_instances(ctx: &mut dyn Context, input: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let (after, max): (Bytes, u64) = arguments(input, Decode::decode)?;
    let watchers = all(ctx)?;
    let mut instances = BTreeMap::<Bytes, Instance>::new();
    let after = key::join(image::PREFIX, &after);
    if max > 0 {
        key::scan(ctx, &after, image::PREFIX, |ctx, key, value| {
            let image: Image = key::stored(value)?;
            match instance_of(ctx, &image.global_id, &watchers) {
                Ok(instance) => drop(instances.insert(key.slice(image::PREFIX.len()..), instance)),
                Err(Halt::Errno(_)) => {}
                Err(Halt::Missing) => return Err(Halt::Missing),
            }
            Ok((instances.len() as u64) < max)
        })?;
    }
    put(out, &instances);
    Ok(())
}

fn list(ctx: &mut dyn Context, _: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let found = listing::all(ctx, PREFIX)?;
    put(out, &found.into_iter().map(|(id, _)| id).collect::<Vec<_>>());
    Ok(())
}

fn add(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let id: Bytes = arguments(input, Decode::decode)?;
    ctx.set_omap(vec![(key::join(PREFIX, &id), Bytes::new())])
}

fn remove(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let id: Bytes = arguments(input, Decode::decode)?;
    ctx.remove_omap_key(&key::join(PREFIX, &id))
}
