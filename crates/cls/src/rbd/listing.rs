//! Listings that a client reads in pages.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::key;
use crate::context::{Context, Outcome};

/// Up to `max` entries after the key `after` that begin with `prefix`; their keys come without it.
pub(super) fn page(
    ctx: &mut dyn Context,
    prefix: &[u8],
    after: &[u8],
    max: u64,
) -> Outcome<Vec<(Bytes, Bytes)>> {
    let mut items = Vec::new();
    if max > 0 {
        key::scan(ctx, after, prefix, |_, key, value| {
            items.push((key.slice(prefix.len()..), value.clone()));
            Ok((items.len() as u64) < max)
        })?;
    }
    Ok(items)
}

/// As [`page`], after the name `after`, with the values as `read` makes them.
pub(super) fn named<T>(
    ctx: &mut dyn Context,
    prefix: &[u8],
    (after, max): (&[u8], u64),
    read: impl Fn(&Bytes) -> Outcome<T>,
) -> Outcome<BTreeMap<Bytes, T>> {
    let found = page(ctx, prefix, &key::join(prefix, after), max)?;
    found.into_iter().map(|(name, value)| Ok((name, read(&value)?))).collect()
}

/// Every entry whose key begins with `prefix`.
pub(super) fn all(ctx: &mut dyn Context, prefix: &[u8]) -> Outcome<Vec<(Bytes, Bytes)>> {
    page(ctx, prefix, prefix, u64::MAX)
}

/// What some listings make of the client's limit: Ceph counts what is still to come in 32 bits.
pub(super) fn limit_32(max: u64) -> u64 {
    u64::from(max as u32)
}
