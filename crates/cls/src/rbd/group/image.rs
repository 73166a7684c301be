//! The images of a group (`image_<pool>_<image id>` in the group's object) and the group of an image
//! (`rbd_group_ref` in the image's header).

use bytes::Bytes;
use spirula_wire::{Decode, Denc};

use super::{key, listing};
use crate::context::{Absent, Context, Outcome, fail};
use crate::errno::{EBADF, EEXIST, EIO};
use crate::input::{arguments, put};
use crate::method::Method;
use crate::rbd::feature::{self, op};

const PREFIX: &[u8] = b"image_";
const REFERENCE: &[u8] = b"rbd_group_ref";

pub(super) const METHODS: &[Method] = &[
    Method::both("group_image_remove", remove),
    Method::reads("group_image_list", list),
    Method::both("group_image_set", set),
    Method::both("image_group_add", join),
    Method::both("image_group_remove", leave),
    Method::reads("image_group_get", group_of),
];

/// `cls::rbd::GroupImageSpec`.
#[derive(Clone, Debug, PartialEq, Eq, Denc)]
#[denc(version = 1, compat = 1)]
struct ImageSpec {
    image_id: Bytes,
    pool: i64,
}

impl ImageSpec {
    /// No pool gives the empty key, which sorts before all.
    fn key(&self) -> Vec<u8> {
        if self.pool == -1 {
            return Vec::new();
        }
        [PREFIX, format!("{:016x}_", self.pool).as_bytes(), &self.image_id].concat()
    }

    /// Reads what follows the prefix as a C++ stream does that meets a space for the first `_`: words end
    /// at white space, a pool ends where its digits do, and a bad pool hides the id.
    fn from_key(rest: &Bytes) -> Outcome<Self> {
        let Some(at) = rest.iter().position(|&b| b == b'_') else { return fail(EIO) };
        let mut text = rest.to_vec();
        text[at] = b' ';
        let text = text.trim_ascii_start();
        let digits = text.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let pool = std::str::from_utf8(&text[..digits]).ok();
        let Some(pool) = pool.and_then(|digits| u64::from_str_radix(digits, 16).ok()) else {
            return Ok(Self { image_id: Bytes::new(), pool: 0 });
        };
        let id = text[digits..].trim_ascii_start();
        let end = id.iter().position(u8::is_ascii_whitespace).unwrap_or(id.len());
        Ok(Self { image_id: Bytes::copy_from_slice(&id[..end]), pool: pool as i64 })
    }
}

/// `cls::rbd::GroupImageStatus`.
#[derive(Clone, Debug, PartialEq, Eq, Denc)]
#[denc(version = 1, compat = 1)]
struct ImageStatus {
    spec: ImageSpec,
    state: u8,
}

/// `cls::rbd::GroupSpec`.
#[derive(Clone, Debug, PartialEq, Eq, Denc)]
#[denc(version = 1, compat = 1)]
struct GroupSpec {
    pool: i64,
    group_id: Bytes,
}

fn set(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let status: ImageStatus = arguments(input, Decode::decode)?;
    key::write(ctx, &status.spec.key(), &status.state)
}

fn remove(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let spec: ImageSpec = arguments(input, Decode::decode)?;
    ctx.remove_omap_key(&spec.key())
}

fn list(ctx: &mut dyn Context, input: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let (after, max): (ImageSpec, u64) = arguments(input, Decode::decode)?;
    let mut images = Vec::new();
    for (key, value) in listing::page(ctx, PREFIX, &after.key(), max)? {
        let state = key::stored(&value)?;
        images.push(ImageStatus { spec: ImageSpec::from_key(&key)?, state });
    }
    put(out, &images);
    Ok(())
}

fn join(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let group: GroupSpec = arguments(input, Decode::decode)?;
    if let Some(current) = current_group(ctx)? {
        return if current == group { Ok(()) } else { fail(EEXIST) };
    }
    feature::set_op(ctx, op::GROUP, op::GROUP)?;
    key::write(ctx, REFERENCE, &group)
}

fn leave(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let group: GroupSpec = arguments(input, Decode::decode)?;
    let reference = ctx.omap_value(REFERENCE)?;
    if decode_reference(&reference)? != group {
        return fail(EBADF);
    }
    ctx.remove_omap_key(REFERENCE)?;
    feature::set_op(ctx, 0, op::GROUP)
}

fn group_of(ctx: &mut dyn Context, _: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let none = GroupSpec { pool: -1, group_id: Bytes::new() };
    put(out, &current_group(ctx)?.unwrap_or(none));
    Ok(())
}

fn current_group(ctx: &mut dyn Context) -> Outcome<Option<GroupSpec>> {
    let reference = ctx.omap_value(REFERENCE).or_absent()?;
    reference.map(|value| decode_reference(&value)).transpose()
}

/// Unlike other stored values, one that does not decode is `EINVAL`.
fn decode_reference(value: &Bytes) -> Outcome<GroupSpec> {
    arguments(value, Decode::decode)
}
