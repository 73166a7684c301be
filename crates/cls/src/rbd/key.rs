//! Typed values in an object's omap.

use bytes::Bytes;
use spirula_wire::{Decode, Encode, Features};

use crate::context::{Absent, Context, Outcome, fail};
use crate::errno::{EIO, ENOENT};

/// How many entries Ceph's methods take from the store at a time (`RBD_MAX_KEYS_READ`).
pub(super) const PAGE: u64 = 64;

/// The stored value, if there is one; `EIO` when it does not decode.
pub(super) fn find<T: Decode>(ctx: &mut dyn Context, key: &[u8]) -> Outcome<Option<T>> {
    let Some(value) = ctx.omap_value(key).or_absent()? else { return Ok(None) };
    stored(&value).map(Some)
}

/// The stored value; `ENOENT` when there is none.
pub(super) fn read<T: Decode>(ctx: &mut dyn Context, key: &[u8]) -> Outcome<T> {
    find(ctx, key)?.map_or_else(|| fail(ENOENT), Ok)
}

/// Whether the key is there, whatever its value.
pub(super) fn is_set(ctx: &mut dyn Context, key: &[u8]) -> Outcome<bool> {
    Ok(ctx.omap_value(key).or_absent()?.is_some())
}

/// Decodes what a method has read; `EIO` when it does not.
pub(super) fn stored<T: Decode>(value: &[u8]) -> Outcome<T> {
    T::from_bytes(value).or_else(|_| fail(EIO))
}

pub(super) fn write(ctx: &mut dyn Context, key: &[u8], value: &(impl Encode + ?Sized)) -> Outcome {
    ctx.set_omap(vec![(Bytes::copy_from_slice(key), encoded(value))])
}

/// Removes the key; neither an absent key nor an absent object is an error.
pub(super) fn remove(ctx: &mut dyn Context, key: &[u8]) -> Outcome {
    ctx.remove_omap_key(key).or_absent().map(|_| ())
}

pub(super) fn encoded(value: &(impl Encode + ?Sized)) -> Bytes {
    value.to_bytes(Features::PACIFIC).into()
}

/// `prefix` and `name` as one key.
pub(super) fn join(prefix: &[u8], name: &[u8]) -> Bytes {
    [prefix, name].concat().into()
}

/// Calls `entry` with each key after `after` that begins with `prefix`, and with its value, until it
/// says that it has enough. An absent object has none: Ceph lets methods that write see it so.
pub(super) fn scan(
    ctx: &mut dyn Context,
    after: &[u8],
    prefix: &[u8],
    mut entry: impl FnMut(&mut dyn Context, &Bytes, &Bytes) -> Outcome<bool>,
) -> Outcome {
    let mut last = Bytes::copy_from_slice(after);
    loop {
        let page = ctx.omap_values(&last, prefix, PAGE).or_absent()?.unwrap_or_default();
        for (key, value) in &page.items {
            if !entry(ctx, key, value)? {
                return Ok(());
            }
        }
        match page.items.last() {
            Some((key, _)) if page.more => last = key.clone(),
            _ => return Ok(()),
        }
    }
}

/// `ENOENT` when the object is absent.
pub(super) fn require_object(ctx: &mut dyn Context) -> Outcome {
    ctx.stat().map(|_| ())
}
