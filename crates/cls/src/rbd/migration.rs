//! Migration of an image to another pool or format: the spec in the headers of both images.

use std::collections::BTreeMap;

use bytes::Bytes;
use spirula_wire::denc::encode_versioned;
use spirula_wire::{Decode, DecodeError, Encode, Features, Reader};

use super::{feature, format1, key};
use crate::context::{Context, Outcome, fail};
use crate::errno::{EEXIST, EINVAL};
use crate::input::{arguments, put};
use crate::method::Method;

/// Of an image that others migrate from, and into.
const SOURCE: u8 = 1;
const DESTINATION: u8 = 2;

pub(super) const METHODS: &[Method] = &[
    Method::both("migration_set", migration_set),
    Method::both("migration_set_state", migration_set_state),
    Method::reads("migration_get", migration_get),
    Method::both("migration_remove", migration_remove),
];

/// `cls::rbd::MigrationSpec`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
struct Spec {
    header_type: u8,
    pool: i64,
    namespace: Bytes,
    image_name: Bytes,
    image: Bytes,
    snap_seqs: BTreeMap<u64, u64>,
    overlap: u64,
    flatten: bool,
    mirroring: bool,
    state: u8,
    state_description: Bytes,
    mirror_mode: u8,
    /// Where the data is when it is not in this cluster.
    source: Bytes,
}

impl Encode for Spec {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        let compat = if self.source.is_empty() { 1 } else { 3 };
        encode_versioned(out, 3, compat, |out| {
            self.header_type.encode(out, f);
            self.pool.encode(out, f);
            self.namespace.encode(out, f);
            self.image_name.encode(out, f);
            self.image.encode(out, f);
            self.snap_seqs.encode(out, f);
            self.overlap.encode(out, f);
            self.flatten.encode(out, f);
            self.mirroring.encode(out, f);
            self.state.encode(out, f);
            self.state_description.encode(out, f);
            self.mirror_mode.encode(out, f);
            self.source.encode(out, f);
        });
    }
}
impl Decode for Spec {
    const MIN_SIZE: usize = 6;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.versioned("MigrationSpec", 3, |version, r| {
            Ok(Self {
                header_type: r.u8()?,
                pool: r.i64()?,
                namespace: Bytes::decode(r)?,
                image_name: Bytes::decode(r)?,
                image: Bytes::decode(r)?,
                snap_seqs: BTreeMap::decode(r)?,
                overlap: r.u64()?,
                flatten: bool::decode(r)?,
                mirroring: bool::decode(r)?,
                state: r.u8()?,
                state_description: Bytes::decode(r)?,
                mirror_mode: if version >= 2 { r.u8()? } else { 0 },
                source: if version >= 3 { Bytes::decode(r)? } else { Bytes::new() },
            })
        })
    }
}

fn migration_set(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let spec = arguments(input, Spec::decode)?;
    if key::is_set(ctx, b"migration")? {
        return fail(EEXIST);
    }
    match key::find::<u64>(ctx, b"features")? {
        None => {
            // Format 1 marks its header, so that old clients no longer know it.
            if format1::is_migrating(ctx)? {
                return fail(EEXIST);
            }
            if spec.header_type != SOURCE {
                return fail(EINVAL);
            }
            format1::set_migrating(ctx, true)?;
        }
        Some(features) if features & feature::MIGRATING != 0 => {
            if spec.header_type != DESTINATION {
                return fail(EEXIST);
            }
        }
        Some(features) => key::write(ctx, b"features", &(features | feature::MIGRATING))?,
    }
    key::write(ctx, b"migration", &spec)
}

/// The spec of an image that is migrating, else `EINVAL`.
fn read(ctx: &mut dyn Context) -> Outcome<Spec> {
    let migrating = match key::find::<u64>(ctx, b"features")? {
        None => format1::is_migrating(ctx)?,
        Some(features) => features & feature::MIGRATING != 0,
    };
    if migrating { key::read(ctx, b"migration") } else { fail(EINVAL) }
}

fn migration_set_state(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let (state, description) = arguments(input, |r| Ok((r.u8()?, Bytes::decode(r)?)))?;
    let spec = Spec { state, state_description: description, ..read(ctx)? };
    key::write(ctx, b"migration", &spec)
}

fn migration_get(ctx: &mut dyn Context, _: &Bytes, out: &mut Vec<u8>) -> Outcome {
    put(out, &read(ctx)?);
    Ok(())
}

fn migration_remove(ctx: &mut dyn Context, _: &Bytes, _: &mut Vec<u8>) -> Outcome {
    key::remove(ctx, b"migration")?;
    match key::find::<u64>(ctx, b"features")? {
        None if format1::is_migrating(ctx)? => format1::set_migrating(ctx, false),
        None => fail(EINVAL),
        Some(features) if features & feature::MIGRATING != 0 => {
            key::write(ctx, b"features", &(features & !feature::MIGRATING))
        }
        Some(_) => Ok(()),
    }
}
