//! Metadata of an image or pool: names and values that users and librbd set.

use std::collections::BTreeMap;

use bytes::Bytes;
use spirula_wire::Decode;

use super::key;
use crate::context::{Context, Outcome};
use crate::input::{arguments, put};
use crate::method::Method;

const PREFIX: &[u8] = b"metadata_";

pub(super) const METHODS: &[Method] = &[
    Method::reads("metadata_list", metadata_list),
    Method::both("metadata_set", metadata_set),
    Method::both("metadata_remove", metadata_remove),
    Method::reads("metadata_get", metadata_get),
];

fn metadata_list(ctx: &mut dyn Context, input: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let (after, max) = arguments(input, |r| Ok((r.blob("name")?, r.u64()?)))?;
    let max = if max == 0 { key::PAGE } else { max };
    let mut data = BTreeMap::<Bytes, Bytes>::new();
    key::scan(ctx, &key::join(PREFIX, after), PREFIX, |_, key, value| {
        data.insert(key.slice(PREFIX.len()..), value.clone());
        Ok((data.len() as u64) < max)
    })?;
    put(out, &data);
    Ok(())
}

fn metadata_set(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let data = arguments(input, BTreeMap::<Bytes, Bytes>::decode)?;
    let pairs = data.into_iter().map(|(name, value)| (key::join(PREFIX, &name), value));
    ctx.set_omap(pairs.collect())
}

fn metadata_remove(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let name = arguments(input, |r| r.blob("name"))?;
    ctx.remove_omap_key(&key::join(PREFIX, name))
}

fn metadata_get(ctx: &mut dyn Context, input: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let name = arguments(input, |r| r.blob("name"))?;
    put(out, &ctx.omap_value(&key::join(PREFIX, name))?);
    Ok(())
}
