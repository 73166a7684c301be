//! Options of a pool that only some pools have: a sorted list of typed values.
//!
//! Invariant: options of unknown number are kept.

use std::collections::BTreeMap;

use spirula_wire::denc::encode_versioned;
use spirula_wire::{Decode, DecodeError, Encode, Features, Reader};

/// Option number -> value.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PoolOpts(pub BTreeMap<i32, OptValue>);

/// The number is kept by its bits, so that all values compare and round-trip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptValue {
    Str(String),
    Int(i64),
    /// Bits of an `f64`.
    Double(u64),
}

impl OptValue {
    pub fn double(value: f64) -> Self {
        Self::Double(value.to_bits())
    }

    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Double(bits) => Some(f64::from_bits(*bits)),
            Self::Int(value) => Some(*value as f64),
            Self::Str(_) => None,
        }
    }
}

/// What kind of value an option has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptKind {
    Str,
    Int,
    Double,
}

use OptKind::{Double, Int, Str};

/// Names and kinds by number, as `osd pool set` knows them.
pub const OPTIONS: [(&str, OptKind); 24] = [
    ("scrub_min_interval", Double),
    ("scrub_max_interval", Double),
    ("deep_scrub_interval", Double),
    ("recovery_priority", Int),
    ("recovery_op_priority", Int),
    ("scrub_priority", Int),
    ("compression_mode", Str),
    ("compression_algorithm", Str),
    ("compression_required_ratio", Double),
    ("compression_max_blob_size", Int),
    ("compression_min_blob_size", Int),
    ("csum_type", Int),
    ("csum_max_block", Int),
    ("csum_min_block", Int),
    ("fingerprint_algorithm", Str),
    ("pg_num_min", Int),
    ("target_size_bytes", Int),
    ("target_size_ratio", Double),
    ("pg_autoscale_bias", Double),
    ("read_lease_interval", Double),
    ("dedup_tier", Int),
    ("dedup_chunk_algorithm", Str),
    ("dedup_cdc_chunk_size", Int),
    ("pg_num_max", Int),
];

impl PoolOpts {
    pub fn get(&self, name: &str) -> Option<&OptValue> {
        self.0.get(&number(name)?)
    }

    /// Sets an option, or removes it with `None`. Says whether there is such an option.
    pub fn set(&mut self, name: &str, value: Option<OptValue>) -> bool {
        let Some(number) = number(name) else {
            return false;
        };
        match value {
            Some(value) => _ = self.0.insert(number, value),
            None => _ = self.0.remove(&number),
        }
        true
    }

    /// The known options that are set, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &OptValue)> {
        self.0.iter().filter_map(|(&number, value)| {
            let (name, _) = OPTIONS.get(usize::try_from(number).ok()?)?;
            Some((*name, value))
        })
    }
}

/// The kind of value that an option takes.
pub fn kind(name: &str) -> Option<OptKind> {
    OPTIONS.iter().find(|(n, _)| *n == name).map(|&(_, kind)| kind)
}

fn number(name: &str) -> Option<i32> {
    OPTIONS.iter().zip(0..).find_map(|((n, _), number)| (*n == name).then_some(number))
}

impl Encode for PoolOpts {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        encode_versioned(out, 2, 1, |out| self.0.encode(out, f));
    }
}

impl Decode for PoolOpts {
    const MIN_SIZE: usize = 10;

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.versioned("pool options", 2, |version, r| match version {
            2.. => Decode::decode(r).map(Self),
            _ => Err(DecodeError::TooOld { what: "pool options", version, oldest: 2 }),
        })
    }
}

impl Encode for OptValue {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        match self {
            Self::Str(value) => {
                0i32.encode(out, f);
                value.encode(out, f);
            }
            Self::Int(value) => {
                1i32.encode(out, f);
                value.encode(out, f);
            }
            Self::Double(bits) => {
                2i32.encode(out, f);
                bits.encode(out, f);
            }
        }
    }
}

impl Decode for OptValue {
    const MIN_SIZE: usize = 8;

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match r.u32()? {
            0 => String::decode(r).map(Self::Str),
            1 => r.i64().map(Self::Int),
            2 => r.u64().map(Self::Double),
            value => Err(DecodeError::Invalid { what: "pool option", value: value.into() }),
        }
    }
}
