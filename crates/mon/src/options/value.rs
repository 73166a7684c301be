//! Values of options: what is one, the form in which it is stored, and Ceph's words for what is
//! not. (Measured with 16.2.15; the misspelling is Ceph's too.)

use spirula_wire::types::{AddrType, EntityAddr, EntityAddrVec, Uuid};

use super::{Kind, Opt};
use crate::command::errno;
use crate::text::parse_timespan;

/// Why a text is not a value of an option; both may be in the answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    pub errno: i32,
    pub text: String,
}

impl From<String> for Invalid {
    fn from(text: String) -> Self {
        Self { errno: errno::EINVAL, text }
    }
}

impl From<&str> for Invalid {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

type Checked = Result<String, Invalid>;

/// Checks `text` and brings it into the stored form.
pub(super) fn normalize(opt: &Opt, text: &str) -> Checked {
    let value = match opt.kind {
        Kind::Str => string(opt, text)?,
        Kind::DebugLevel => debug_levels(text)?,
        Kind::Bool => boolean(text)?.to_string(),
        Kind::Int => in_range(opt, si_cast(text, i64::MIN.into(), i64::MAX.into())?)?,
        Kind::Uint => in_range(opt, si_cast(text, 0, u64::MAX.into())?)?,
        Kind::Size => in_range(opt, iec_cast(text)?)?,
        Kind::Secs => in_range(opt, parse_timespan(text)?.into())?,
        Kind::Millisecs => millisecs(opt, text)?,
        Kind::Float => float(opt, text)?,
        Kind::Addr => parse_addr(text).ok_or("")?.to_string(),
        Kind::AddrVec => addrs(text).ok_or("")?.to_string(),
        Kind::Uuid => text.parse::<Uuid>().map_err(|_| "")?.to_string(),
    };
    if !opt.choices.is_empty() && !opt.choices.split('|').any(|c| c == value) {
        let choices = opt.choices.replace('|', ", ");
        return Err(format!("'{value}' is not one of the permitted values: {choices}").into());
    }
    Ok(value)
}

/// Some options of RBD have rules of their own.
fn string(opt: &Opt, text: &str) -> Checked {
    let is_pool = !text.contains(['@', '/']);
    Ok(match opt.name {
        "rbd_default_features" => rbd_features(text).ok_or("")?,
        "rbd_default_pool" if text.is_empty() || !is_pool => opt.default.clone(),
        "rbd_default_data_pool" if !is_pool => opt.default.clone(),
        _ => text.to_owned(),
    })
}

/// Features of images by bit.
const RBD_FEATURES: [&str; 8] = [
    "layering",
    "striping",
    "exclusive-lock",
    "object-map",
    "fast-diff",
    "deep-flatten",
    "journaling",
    "data-pool",
];

/// A mask, or names between commas, as a mask.
fn rbd_features(text: &str) -> Option<String> {
    if let Ok(mask) = text.trim().parse::<u8>() {
        return Some(mask.to_string());
    }
    if text.is_empty() {
        return rbd_features("61");
    }
    let mut mask = 0u8;
    for name in text.split(',').map(str::trim) {
        match RBD_FEATURES.iter().position(|f| *f == name) {
            Some(bit) => mask |= 1 << bit,
            // Librbd keeps these to itself.
            None if matches!(name, "operations" | "migrating") => {}
            None => return None,
        }
    }
    Some(mask.to_string())
}

/// `N` or `N/M`, both 0 to 99; `N` alone, or with anything else behind it, means both.
fn debug_levels(text: &str) -> Checked {
    let Some((log, rest)) = leading_int(text) else {
        return Err("value must take the form N or N/M, where N and M are integers".into());
    };
    let gather = rest.strip_prefix('/').and_then(leading_int).map_or(log, |(gather, _)| gather);
    if [log, gather].iter().any(|level| !(0..=99).contains(level)) {
        let text = "value must be in range [0, 99]".to_owned();
        return Err(Invalid { errno: errno::ERANGE, text });
    }
    Ok(format!("{log}/{gather}"))
}

/// The number that a text begins with, and what is behind it.
fn leading_int(text: &str) -> Option<(i64, &str)> {
    let text = text.trim_start();
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let length = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    if length == 0 {
        return None;
    }
    let (number, rest) = text.split_at(text.len() - digits.len() + length);
    // What does not fit is out of every range.
    Some((number.parse().unwrap_or(i64::MAX), rest))
}

fn boolean(text: &str) -> Result<bool, Invalid> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Ok(integer(text, i32::MIN.into(), i32::MAX.into())? != 0),
    }
}

/// A whole number in decimal.
fn integer(text: &str, min: i128, max: i128) -> Result<i128, Invalid> {
    let number = text.trim_start();
    let digits = number.strip_prefix(['+', '-']).unwrap_or(number);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("Expected option value to be integer, got '{text}'").into());
    }
    let value = number.parse().ok().filter(|n| (min..=max).contains(n));
    value.ok_or_else(|| format!("The option value '{text}' seems to be invalid").into())
}

const PREFIXES: [char; 6] = ['K', 'M', 'G', 'T', 'P', 'E'];

fn is_number_char(c: char) -> bool {
    c.is_ascii_digit() || matches!(c, '+' | '-')
}

/// A number with an optional decimal prefix behind it: `5K` is 5000.
fn si_cast(text: &str, min: i128, max: i128) -> Result<i128, Invalid> {
    let Some(last) = text.chars().last() else {
        return Err("strict_sistrtoll: value not specified".into());
    };
    let (number, factor) = match PREFIXES.iter().position(|p| *p == last) {
        _ if text.chars().all(is_number_char) || last == 'B' => (text, 1),
        Some(power) => (&text[..text.len() - 1], 1000_i128.pow(power as u32 + 1)),
        None => return Err("strict_si_cast: unit prefix not recognized".into()),
    };
    let value = integer(number, i64::MIN.into(), i64::MAX.into())?;
    if value < 0 && min == 0 {
        return Err("strict_sistrtoll: value should not be negative".into());
    }
    let value = value.checked_mul(factor).filter(|v| (min..=max).contains(v));
    value.ok_or_else(|| "strict_sistrtoll: value out of range".into())
}

/// A count with an optional decimal prefix, as quotas of objects are given.
pub(crate) fn si_count(text: &str) -> Result<u64, String> {
    let value = si_cast(text, 0, u64::MAX.into()).map_err(|e| e.text)?;
    Ok(u64::try_from(value).unwrap_or(u64::MAX))
}

/// A number of bytes with an optional binary prefix.
pub(crate) fn iec_bytes(text: &str) -> Result<u64, String> {
    let value = iec_cast(text).map_err(|e| e.text)?;
    Ok(u64::try_from(value).unwrap_or(u64::MAX))
}

/// As [`iec_bytes`], but it may be negative.
pub(crate) fn iec_signed(text: &str) -> Result<i64, String> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) if !rest.starts_with('-') => (-1, rest),
        _ => (1, text),
    };
    match i64::try_from(iec_bytes(rest)?) {
        Ok(value) => Ok(sign * value),
        Err(_) => Err("strict_iecstrtoll: value out of range".to_owned()),
    }
}

/// A number in floating point.
pub(crate) fn strict_float(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => Err(format!("strict_strtod: expected double, got: '{text}'")),
    }
}

/// A number with an optional binary prefix behind it: `5K`, `5Ki` and `5KB` are 5120.
fn iec_cast(text: &str) -> Result<i128, Invalid> {
    if text.is_empty() {
        return Err("strict_iecstrtoll: value not specified".into());
    }
    let (number, unit) = text.split_at(text.find(|c| !is_number_char(c)).unwrap_or(text.len()));
    let mut shift = 0;
    if let Some(first) = unit.chars().next() {
        if first == 'B' && unit.ends_with('i') {
            return Err("strict_iecstrtoll: illegal prefix \"Bi\"".into());
        }
        if unit.len() > 2 {
            return Err("strict_iecstrtoll: illegal prefix (length > 2)".into());
        }
        shift = match PREFIXES.iter().position(|p| *p == first) {
            Some(power) => 10 * (power as u32 + 1),
            None if first == 'B' => 0,
            None => return Err("strict_iecstrtoll: unit prefix not recognized".into()),
        };
    }
    let value = integer(number, i64::MIN.into(), i64::MAX.into())?;
    if value < 0 {
        return Err("strict_iecstrtoll: value should not be negative".into());
    }
    let value = Some(value << shift).filter(|v| *v <= u64::MAX.into());
    value.ok_or_else(|| "strict_iecstrtoll: value seems to be too large".into())
}

fn in_range(opt: &Opt, value: i128) -> Checked {
    let bound = |text: &str| text.parse::<i128>().ok();
    check_range(&value, bound(opt.min), bound(opt.max), i128::to_string)?;
    Ok(value.to_string())
}

fn check_range<T: PartialOrd>(
    value: &T,
    min: Option<T>,
    max: Option<T>,
    show: impl Fn(&T) -> String,
) -> Result<(), Invalid> {
    if let Some(min) = min.filter(|min| value < min) {
        return Err(format!("Value '{}' is below minimum {}", show(value), show(&min)).into());
    }
    if let Some(max) = max.filter(|max| value > max) {
        return Err(format!("Value '{}' exceeds maximum {}", show(value), show(&max)).into());
    }
    Ok(())
}

/// 16.2.15 finds every value below the minimum, and all these options have one.
fn millisecs(opt: &Opt, text: &str) -> Checked {
    const NO_NUMBER: &str =
        "bad lexical cast: source type value could not be interpreted as target";
    // A negative number is the complement, as in C.
    let negative = || text.strip_prefix('-')?.parse::<u64>().ok().map(u64::wrapping_neg);
    let value = text.parse::<u64>().ok().or_else(negative).ok_or(NO_NUMBER)?;
    match opt.min {
        "" => Ok(value.to_string()),
        min => Err(format!("Value '{value}' is below minimum {min}").into()),
    }
}

fn float(opt: &Opt, text: &str) -> Checked {
    let number = text.trim_start();
    let Ok(value) = number.parse::<f64>() else {
        let begins = (1..number.len()).filter_map(|end| number.get(..end));
        let begins_well = begins.rev().any(|begin| begin.parse::<f64>().is_ok());
        let why =
            if begins_well { "garbage at end of string. got" } else { "expected double, got" };
        return Err(format!("strict_strtod: {why}: '{text}'").into());
    };
    let mantissa = number.split(['e', 'E']).next().unwrap_or_default();
    let overflows = value.is_infinite() && mantissa.contains(|c: char| c.is_ascii_digit());
    let underflows = value == 0.0 && mantissa.contains(|c: char| ('1'..='9').contains(&c));
    if overflows || underflows {
        let why = "floating point overflow or underflow parsing";
        return Err(format!("strict_strtod: {why} '{text}'").into());
    }
    let bound = |text: &str| text.parse::<f64>().ok();
    check_range(&value, bound(opt.min), bound(opt.max), |v| six_digits(*v))?;
    Ok(six_digits(value))
}

fn six_digits(value: f64) -> String {
    if value.is_nan() { "nan".to_owned() } else { format!("{value:.6}") }
}

/// A number of the schema in the stored form.
pub(super) fn float_text(text: &str) -> String {
    text.parse().map_or_else(|_| text.to_owned(), six_digits)
}

/// Version 2 of the messenger, unless another one is named.
fn parse_addr(text: &str) -> Option<EntityAddr> {
    let mut addr: EntityAddr = text.parse().ok()?;
    if addr.type_ == AddrType::ANY && !text.starts_with("any:") {
        addr.type_ = AddrType::MSGR2;
    }
    Some(addr)
}

fn addrs(text: &str) -> Option<EntityAddrVec> {
    if let Some(one) = parse_addr(text) {
        return Some(one.into());
    }
    let list = text.strip_prefix('[')?.strip_suffix(']')?;
    list.split(',').map(parse_addr).collect::<Option<Vec<_>>>().map(EntityAddrVec)
}

#[cfg(test)]
mod tests;
