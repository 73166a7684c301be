//! `osd pool set` of what is an option of the pool: 0 or `unset` takes it away again.
//!
//! Which values are refused, and with which words, is Ceph's, option by option.

use std::fmt::Display;

use spirula_maps::pool::opts::{self, OptKind, OptValue};
use spirula_maps::{OsdMap, PgPool};

use super::pool_var::integer;
use super::{Refusal, errno, refuse};
use crate::options::{iec_signed, strict_float};

/// What a `set` came to.
pub(super) enum Done {
    Set,
    Unset,
    /// It is so already, which Ceph says nothing about.
    Same,
}

/// Checksums by number, from 1.
const CSUM_TYPES: [&str; 6] = ["none", "xxhash32", "xxhash64", "crc32c", "crc32c_16", "crc32c_8"];
const COMPRESSORS: [&str; 5] = ["none", "snappy", "zlib", "zstd", "lz4"];

/// The name of the checksum that `csum_type` holds by number.
pub(super) fn csum_name(value: &OptValue) -> Option<&'static str> {
    let OptValue::Int(number) = value else {
        return None;
    };
    CSUM_TYPES.get(usize::try_from(number.checked_sub(1)?).ok()?).copied()
}

pub(super) fn set_option(
    map: &OsdMap,
    pool: &mut PgPool,
    var: &str,
    val: &str,
) -> Result<Done, Refusal> {
    let kind = opts::kind(var);
    let named = kind == Some(OptKind::Str) || var == "csum_type";
    if named && val == "unset" {
        pool.opts.set(var, None);
        return Ok(Done::Unset);
    }
    let value = match (var, kind) {
        ("csum_type", _) => csum_type(val)?,
        ("dedup_tier", _) => dedup_tier(map, val)?,
        (_, Some(OptKind::Str)) => word(var, val)?,
        (_, Some(OptKind::Double)) => double(var, val)?,
        _ => int(pool, var, val)?,
    };
    let cleared = match &value {
        OptValue::Str(_) => false,
        OptValue::Int(n) => *n == 0,
        OptValue::Double(bits) => f64::from_bits(*bits) == 0.0,
    };
    pool.opts.set(var, (!cleared).then_some(value));
    Ok(Done::Set)
}

fn invalid<T>(text: impl Display) -> Result<T, Refusal> {
    refuse(errno::EINVAL, text)
}

fn csum_type(val: &str) -> Result<OptValue, Refusal> {
    match CSUM_TYPES.iter().zip(1..).find(|(name, _)| **name == val) {
        Some((_, number)) => Ok(OptValue::Int(number)),
        None => invalid(format!("unrecognized csum_type '{val}'")),
    }
}

fn dedup_tier(map: &OsdMap, val: &str) -> Result<OptValue, Refusal> {
    if val.parse::<i64>().is_ok() {
        return invalid("expecting value 'pool name'");
    }
    match map.pool_by_name(val) {
        Some(id) => Ok(OptValue::Int(id)),
        None => refuse(errno::ENOENT, format!("unrecognized pool '{val}'")),
    }
}

fn word(var: &str, val: &str) -> Result<OptValue, Refusal> {
    let (fits, what) = match var {
        "compression_mode" => {
            (["none", "passive", "aggressive", "force"].contains(&val), "compression mode")
        }
        "compression_algorithm" => (COMPRESSORS.contains(&val), var),
        // Of fingerprints Ceph refuses none but this one.
        _ => (val != "none", "fingerprint_algorithm"),
    };
    if fits {
        Ok(OptValue::Str(val.to_owned()))
    } else {
        invalid(format!("unrecognized {what} '{val}'"))
    }
}

fn double(var: &str, val: &str) -> Result<OptValue, Refusal> {
    let what = if var == "compression_required_ratio" { "float" } else { "floating point" };
    let value = match strict_float(val) {
        Ok(value) => value,
        Err(why) => return invalid(format!("error parsing {what} value '{val}': {why}")),
    };
    match var {
        "compression_required_ratio" if !(0.0..=1.0).contains(&value) => {
            invalid(format!("compression_required_ratio is out of range (0-1): '{val}'"))
        }
        "pg_autoscale_bias" if !(0.0..=1000.0).contains(&value) => {
            invalid("pg_autoscale_bias must be between 0 and 1000")
        }
        "target_size_ratio" if value < 0.0 => invalid("target_size_ratio cannot be negative"),
        _ => Ok(OptValue::double(value)),
    }
}

fn int(pool: &PgPool, var: &str, val: &str) -> Result<OptValue, Refusal> {
    let size = |what: &str| {
        iec_signed(val).or_else(|why| invalid(format!("error parsing {what} value '{val}': {why}")))
    };
    let plain = || {
        val.parse::<i64>().or_else(|_| {
            invalid(format!(
                "error parsing int value '{val}': Expected option value to be integer, got '{val}'"
            ))
        })
    };
    let pg_num = i64::from(pool.pg_num);
    let value = match var {
        "target_size_bytes" => size("unit")?,
        "compression_max_blob_size"
        | "compression_min_blob_size"
        | "csum_max_block"
        | "csum_min_block" => size("int")?,
        "recovery_priority" => match plain()? {
            n if (-10..=10).contains(&n) => n,
            _ => return invalid("pool recovery_priority must be between -10 and 10"),
        },
        "pg_num_min" => match plain()? {
            n if n > pg_num => {
                return invalid(format!("specified pg_num_min {n} > pg_num {pg_num}"));
            }
            n => n,
        },
        "pg_num_max" => match plain()? {
            n if n != 0 && n < pg_num => {
                return invalid(format!("specified pg_num_max {n} < pg_num {pg_num}"));
            }
            n => n,
        },
        "dedup_cdc_chunk_size" => plain()?,
        _ => integer(val)?,
    };
    Ok(OptValue::Int(value))
}
