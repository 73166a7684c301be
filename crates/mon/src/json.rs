//! JSON values as Ceph's formatter prints them: members in the order given, four spaces of
//! indentation in the pretty form, floats with 17 significant digits and no trailing `.0`.

use std::fmt::Write as _;

/// A JSON value. Objects keep the order of insertion.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Str(String),
    Arr(Vec<Json>),
    Obj(Vec<(String, Json)>),
}

impl Json {
    /// An object from its members.
    pub fn obj<K: Into<String>>(members: impl IntoIterator<Item = (K, Json)>) -> Self {
        Self::Obj(members.into_iter().map(|(k, v)| (k.into(), v)).collect())
    }

    pub fn arr<T: Into<Json>>(items: impl IntoIterator<Item = T>) -> Self {
        Self::Arr(items.into_iter().map(Into::into).collect())
    }

    /// Adds a member to an object; anything else is left alone.
    pub fn with(mut self, key: &str, value: impl Into<Json>) -> Self {
        if let Self::Obj(members) = &mut self {
            members.push((key.to_owned(), value.into()));
        }
        self
    }

    pub fn compact(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, None);
        out
    }

    pub fn pretty(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, Some(0));
        out.push('\n');
        out
    }

    fn write(&self, out: &mut String, indent: Option<usize>) {
        match self {
            Self::Bool(v) => out.push_str(if *v { "true" } else { "false" }),
            Self::Int(v) => _ = write!(out, "{v}"),
            Self::Uint(v) => _ = write!(out, "{v}"),
            Self::Float(v) => out.push_str(&float(*v, 17)),
            Self::Str(v) => quote(v, out),
            Self::Arr(items) => {
                let each = items.iter().map(|v| (None, v));
                write_group(out, indent, ['[', ']'], each);
            }
            Self::Obj(members) => {
                let each = members.iter().map(|(k, v)| (Some(k.as_str()), v));
                write_group(out, indent, ['{', '}'], each);
            }
        }
    }
}

macro_rules! from {
    ($($t:ty => $variant:ident as $wide:ty),* $(,)?) => {$(
        impl From<$t> for Json {
            fn from(v: $t) -> Self {
                Self::$variant(v as $wide)
            }
        }
    )*};
}
from!(bool => Bool as bool, i8 => Int as i64, i32 => Int as i64, i64 => Int as i64,
      u8 => Uint as u64, u16 => Uint as u64, u32 => Uint as u64, u64 => Uint as u64,
      usize => Uint as u64, f32 => Float as f64, f64 => Float as f64);

impl From<&str> for Json {
    fn from(v: &str) -> Self {
        Self::Str(v.to_owned())
    }
}
impl From<String> for Json {
    fn from(v: String) -> Self {
        Self::Str(v)
    }
}
impl From<&String> for Json {
    fn from(v: &String) -> Self {
        Self::Str(v.clone())
    }
}
impl<T: Into<Json>> From<Vec<T>> for Json {
    fn from(v: Vec<T>) -> Self {
        Self::arr(v)
    }
}

/// An object literal: `obj! { "epoch" => 3u32, "name" => "a" }`.
#[macro_export]
macro_rules! obj {
    ($($key:expr => $value:expr),* $(,)?) => {
        $crate::json::Json::Obj(vec![$(($key.to_string(), $crate::json::Json::from($value))),*])
    };
}

fn write_group<'a>(
    out: &mut String,
    indent: Option<usize>,
    brackets: [char; 2],
    items: impl ExactSizeIterator<Item = (Option<&'a str>, &'a Json)>,
) {
    let empty = items.len() == 0;
    out.push(brackets[0]);
    for (i, (key, value)) in items.enumerate() {
        if i > 0 {
            out.push(',');
        }
        if let Some(depth) = indent {
            new_line(out, depth + 1);
        }
        if let Some(key) = key {
            quote(key, out);
            out.push_str(if indent.is_some() { ": " } else { ":" });
        }
        value.write(out, indent.map(|d| d + 1));
    }
    if let (Some(depth), false) = (indent, empty) {
        new_line(out, depth);
    }
    out.push(brackets[1]);
}

fn new_line(out: &mut String, depth: usize) {
    out.push('\n');
    for _ in 0..depth {
        out.push_str("    ");
    }
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => _ = write!(out, "\\u{:04x}", c as u32),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// C's `%.{digits}g`.
pub fn float(v: f64, digits: usize) -> String {
    if v == 0.0 || !v.is_finite() {
        return if v.is_nan() { "nan".into() } else { format!("{v}") };
    }
    let scientific = format!("{:.*e}", digits.max(1) - 1, v);
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if exponent < -4 || exponent >= digits as i32 {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trim_zeros(mantissa), exponent.abs());
    }
    let decimals = (digits as i32 - 1 - exponent).max(0) as usize;
    trim_zeros(&format!("{v:.decimals$}")).to_owned()
}

fn trim_zeros(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_print_as_in_ceph() {
        assert_eq!(float(f64::from(0.95f32), 17), "0.94999998807907104");
        assert_eq!(float(1.0, 17), "1");
        assert_eq!(float(0.009796142578125, 17), "0.009796142578125");
        assert_eq!(float(0.95f32.into(), 6), "0.95");
        assert_eq!(float(1e20, 6), "1e+20");
        assert_eq!(float(0.0, 6), "0");
    }

    #[test]
    fn pretty_and_compact() {
        let v = obj! { "a" => Vec::<u32>::new(), "b" => vec![1u32, 2], "c" => "x\"y" };
        assert_eq!(v.compact(), r#"{"a":[],"b":[1,2],"c":"x\"y"}"#);
        assert_eq!(
            v.pretty(),
            "{\n    \"a\": [],\n    \"b\": [\n        1,\n        2\n    ],\n    \"c\": \"x\\\"y\"\n}\n"
        );
    }
}
