//! Class `numops`: arithmetic on omap values that are decimal text. Source of its behaviour:
//! `src/cls/numops/cls_numops.cc`, with C's reading and C++'s printing of numbers.

use bytes::Bytes;
use spirula_wire::Denc;

use crate::coding::input;
use crate::context::{Context, Halt, Outcome, fail};
use crate::errno::{EBADMSG, EINVAL};
use crate::method::{Class, Method};

pub(crate) const CLASS: Class =
    Class { name: "numops", methods: &[&[Method::both("add", add), Method::both("mul", mul)]] };

/// Significant digits of a result.
const PRECISION: i32 = 10;

#[derive(Denc)]
struct Operand {
    key: Bytes,
    text: Bytes,
}

fn add(object: &mut dyn Context, bytes: &Bytes, _: &mut Vec<u8>) -> Outcome {
    update(object, bytes, |value, operand| value + operand)
}

fn mul(object: &mut dyn Context, bytes: &Bytes, _: &mut Vec<u8>) -> Outcome {
    update(object, bytes, |value, operand| value * operand)
}

fn update(object: &mut dyn Context, bytes: &Bytes, result: fn(f64, f64) -> f64) -> Outcome {
    let op: Operand = input(bytes)?;
    let Some(operand) = number(&op.text) else { return fail(EINVAL) };
    // Whatever the reason for which there is no value, it counts as 0.
    let text = match object.omap_value(&op.key) {
        Err(Halt::Errno(_)) => Bytes::new(),
        other => other?,
    };
    let Some(value) = number(&text) else { return fail(EBADMSG) };
    object.set_omap(vec![(op.key, print(result(value, operand)).into())])
}

/// `strtod` of the text up to a zero byte; nothing may be left over. No text is 0.
fn number(text: &[u8]) -> Option<f64> {
    let text = text.split(|byte| *byte == 0).next()?;
    if text.is_empty() {
        return Some(0.0);
    }
    let text = std::str::from_utf8(text).ok()?;
    let text = text.trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    match unsigned.strip_prefix("0x").or_else(|| unsigned.strip_prefix("0X")) {
        Some(digits) => {
            hexadecimal(digits).map(|value| if text.starts_with('-') { -value } else { value })
        }
        None if is_nan_with_payload(unsigned) => Some(f64::NAN),
        None => text.parse().ok(),
    }
}

/// C's `nan(...)`, whose payload no result shows.
fn is_nan_with_payload(text: &str) -> bool {
    let inner = text.split_once('(').filter(|(nan, _)| nan.eq_ignore_ascii_case("nan"));
    let payload = inner.and_then(|(_, rest)| rest.strip_suffix(')'));
    payload.is_some_and(|p| p.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
}

/// C's hexadecimal form after `0x`: `1.8p3`.
fn hexadecimal(digits: &str) -> Option<f64> {
    let (mantissa, exponent) = digits.split_once(['p', 'P']).unwrap_or((digits, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut value = 0.0;
    let mut count = 0;
    for digit in whole.chars().chain(fraction.chars()) {
        value = value * 16.0 + f64::from(digit.to_digit(16)?);
        count += 1;
    }
    let exponent: i32 = exponent.parse().ok()?;
    let shift = exponent.checked_sub(i32::try_from(fraction.len()).ok()?.checked_mul(4)?)?;
    (count > 0).then(|| value * 2f64.powi(shift))
}

/// As `std::ostream` prints a `double` with that precision (`%.10g`).
fn print(value: f64) -> String {
    if !value.is_finite() {
        let sign = if value.is_sign_negative() { "-" } else { "" };
        return format!("{sign}{}", if value.is_nan() { "nan" } else { "inf" });
    }
    let scientific = format!("{value:.*e}", (PRECISION - 1) as usize);
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..PRECISION).contains(&exponent) {
        return trim(&format!("{value:.*}", (PRECISION - 1 - exponent) as usize)).to_owned();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", trim(mantissa), exponent.unsigned_abs())
}

/// Without zeros at the end of the fraction.
fn trim(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}
