//! Features of an image: which parts of the format its clients must understand.

use bytes::Bytes;

use super::key;
use super::snap;
use super::types::HEAD;
use crate::context::{Context, Outcome, fail};
use crate::errno::{EINVAL, ENOEXEC};
use crate::input::{arguments, put};
use crate::method::Method;

pub(super) const LAYERING: u64 = 1 << 0;
pub(super) const STRIPING: u64 = 1 << 1;
const EXCLUSIVE_LOCK: u64 = 1 << 2;
const OBJECT_MAP: u64 = 1 << 3;
const FAST_DIFF: u64 = 1 << 4;
pub(super) const DEEP_FLATTEN: u64 = 1 << 5;
const JOURNALING: u64 = 1 << 6;
pub(super) const DATA_POOL: u64 = 1 << 7;
pub(super) const OPERATIONS: u64 = 1 << 8;
pub(super) const MIGRATING: u64 = 1 << 9;
const NON_PRIMARY: u64 = 1 << 10;
const DIRTY_CACHE: u64 = 1 << 11;

/// A client that lacks one of these cannot even read.
const INCOMPATIBLE: u64 = LAYERING | STRIPING | DATA_POOL | DIRTY_CACHE;
/// Those that can change after an image is made.
const MUTABLE: u64 =
    EXCLUSIVE_LOCK | OBJECT_MAP | FAST_DIFF | JOURNALING | NON_PRIMARY | DIRTY_CACHE;
const DISABLE_ONLY: u64 = DEEP_FLATTEN;
/// Set by methods for clients.
const INTERNAL: u64 = OPERATIONS | MIGRATING;
pub(super) const ALL: u64 = INCOMPATIBLE | MUTABLE | DISABLE_ONLY | INTERNAL;

/// By the names that clients give them.
const NAMES: &[(&str, u64)] = &[
    ("layering", LAYERING),
    ("striping", STRIPING),
    ("exclusive-lock", EXCLUSIVE_LOCK),
    ("object-map", OBJECT_MAP),
    ("fast-diff", FAST_DIFF),
    ("deep-flatten", DEEP_FLATTEN),
    ("journaling", JOURNALING),
    ("data-pool", DATA_POOL),
    ("operations", OPERATIONS),
    ("migrating", MIGRATING),
    ("non-primary", NON_PRIMARY),
    ("dirty-cache", DIRTY_CACHE),
];

/// When clients may give a feature to an image, or take it away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settable {
    AtCreation,
    /// Once more away.
    AtCreationAndOff,
    Always,
    /// Methods give it.
    Never,
}

/// The features that images can have, by name.
pub fn image_features() -> impl Iterator<Item = (&'static str, Settable)> {
    NAMES.iter().map(|&(name, bit)| {
        let settable = match bit {
            bit if bit & MUTABLE != 0 => Settable::Always,
            bit if bit & DISABLE_ONLY != 0 => Settable::AtCreationAndOff,
            bit if bit & INTERNAL != 0 => Settable::Never,
            _ => Settable::AtCreation,
        };
        (name, settable)
    })
}

/// What operations have left in an image; together they show as feature `OPERATIONS`.
pub(super) mod op {
    pub(in crate::rbd) const CLONE_PARENT: u64 = 1 << 0;
    pub(in crate::rbd) const CLONE_CHILD: u64 = 1 << 1;
    pub(in crate::rbd) const GROUP: u64 = 1 << 2;
    pub(in crate::rbd) const SNAP_TRASH: u64 = 1 << 3;
    pub(super) const ALL: u64 = CLONE_PARENT | CLONE_CHILD | GROUP | SNAP_TRASH;
}

pub(super) const METHODS: &[Method] = &[
    Method::reads("get_all_features", get_all_features),
    Method::reads("get_features", get_features),
    Method::both("set_features", set_features),
    Method::reads("get_flags", get_flags),
    Method::both("set_flags", set_flags),
    Method::reads("op_features_get", op_features_get),
    Method::both("op_features_set", op_features_set),
];

/// `ENOEXEC` when the image lacks one of `features`; an image of format 1 has none.
pub(super) fn require(ctx: &mut dyn Context, features: u64) -> Outcome {
    let have = key::find::<u64>(ctx, b"features")?.unwrap_or_default();
    if have & features == features { Ok(()) } else { fail(ENOEXEC) }
}

/// Whether it has them: the question of methods that answer something else when it has not.
pub(super) fn has(ctx: &mut dyn Context, features: u64) -> Outcome<bool> {
    let have = match key::find::<u64>(ctx, b"features") {
        Err(crate::Halt::Errno(_)) => None,
        other => other?,
    };
    Ok(have.unwrap_or_default() & features == features)
}

/// Sets the bits of `mask` in the op features, and feature `OPERATIONS` when any remain.
pub(super) fn set_op(ctx: &mut dyn Context, op_features: u64, mask: u64) -> Outcome {
    let features: u64 = key::read(ctx, b"features")?;
    let old = key::find::<u64>(ctx, b"op_features")?.unwrap_or_default();
    let new = old & !mask | op_features & mask;
    if new == old {
        return Ok(());
    }
    if new == 0 {
        key::remove(ctx, b"op_features")?;
    } else {
        key::write(ctx, b"op_features", &new)?;
    }
    let shown = if new == 0 { features & !OPERATIONS } else { features | OPERATIONS };
    if shown == features { Ok(()) } else { key::write(ctx, b"features", &shown) }
}

fn get_all_features(_: &mut dyn Context, _: &Bytes, out: &mut Vec<u8>) -> Outcome {
    put(out, &ALL);
    Ok(())
}

fn get_features(ctx: &mut dyn Context, input: &Bytes, out: &mut Vec<u8>) -> Outcome {
    // The snapshot that older clients ask about does not matter.
    let read_only = arguments(input, |r| r.u64().and_then(|_| Ok(!r.is_empty() && r.u8()? != 0)))?;
    let features: u64 = key::read(ctx, b"features")?;
    // Who writes must understand them all.
    let needed = if read_only { INCOMPATIBLE } else { ALL };
    put(out, &features);
    put(out, &(features & needed));
    Ok(())
}

fn set_features(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let (wanted, mask) = arguments(input, |r| Ok((r.u64()?, r.u64()?)))?;
    let old = key::find::<u64>(ctx, b"features")?.unwrap_or_default();
    if mask & INTERNAL != 0 {
        return fail(EINVAL);
    }
    // A newer client may mask bits that mean nothing here.
    let mask = mask & ALL;
    if wanted & mask & !MUTABLE != 0 || !wanted & mask & !(MUTABLE | DISABLE_ONLY) != 0 {
        return fail(EINVAL);
    }
    key::write(ctx, b"features", &(old & !mask | wanted & mask))
}

fn get_flags(ctx: &mut dyn Context, input: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let id = arguments(input, |r| r.u64())?;
    let flags = if id == HEAD {
        key::find::<u64>(ctx, b"flags")?.unwrap_or_default()
    } else {
        snap::read(ctx, id)?.flags
    };
    put(out, &flags);
    Ok(())
}

fn set_flags(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let (flags, mask, id) =
        arguments(input, |r| Ok((r.u64()?, r.u64()?, if r.is_empty() { HEAD } else { r.u64()? })))?;
    let set = |old: u64| old & !mask | flags & mask;
    if id == HEAD {
        let old = key::find::<u64>(ctx, b"flags")?.unwrap_or_default();
        return key::write(ctx, b"flags", &set(old));
    }
    let mut entry = snap::read(ctx, id)?;
    entry.flags = set(entry.flags);
    snap::write(ctx, id, entry)
}

fn op_features_get(ctx: &mut dyn Context, _: &Bytes, out: &mut Vec<u8>) -> Outcome {
    put(out, &key::find::<u64>(ctx, b"op_features")?.unwrap_or_default());
    Ok(())
}

fn op_features_set(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let (op_features, mask) = arguments(input, |r| Ok((r.u64()?, r.u64()?)))?;
    if mask & !op::ALL != 0 {
        return fail(EINVAL);
    }
    set_op(ctx, op_features, mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_has_a_name() {
        assert_eq!(NAMES.iter().fold(0, |bits, (_, bit)| bits | bit), ALL);
        assert_eq!(NAMES.len(), ALL.count_ones() as usize);
    }
}
