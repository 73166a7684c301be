//! The namespaces of a pool: object `rbd_namespace`, one empty entry `name_<name>` each.

use bytes::Bytes;
use spirula_wire::Decode;

use super::{key, listing};
use crate::context::{Context, Outcome, fail};
use crate::errno::EEXIST;
use crate::input::{arguments, put};
use crate::method::Method;

const PREFIX: &[u8] = b"name_";

pub(super) const METHODS: &[Method] = &[
    Method::both("namespace_add", add),
    Method::both("namespace_remove", remove),
    Method::reads("namespace_list", list),
];

fn add(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let name: Bytes = arguments(input, Decode::decode)?;
    let key = key::join(PREFIX, &name);
    if key::is_set(ctx, &key)? {
        return fail(EEXIST);
    }
    ctx.set_omap(vec![(key, Bytes::new())])
}

fn remove(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let name: Bytes = arguments(input, Decode::decode)?;
    let key = key::join(PREFIX, &name);
    ctx.omap_value(&key)?;
    ctx.remove_omap_key(&key)
}

fn list(ctx: &mut dyn Context, input: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let (after, max): (Bytes, u64) = arguments(input, Decode::decode)?;
    let after = key::join(PREFIX, &after);
    let names = listing::page(ctx, PREFIX, &after, listing::limit_32(max))?;
    put(out, &names.into_iter().map(|(name, _)| name).collect::<Vec<_>>());
    Ok(())
}
