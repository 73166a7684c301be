//! Kinds of parameters: which words they take, and what becomes of a word.

use serde_json::Value;
use spirula_wire::types::{EntityAddr, PgId, Uuid};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// This very word.
    Prefix(String),
    Int {
        min: Option<i64>,
        max: Option<i64>,
    },
    Float {
        min: Option<f64>,
        max: Option<f64>,
    },
    /// Characters that it may have; any if empty.
    Text {
        chars: Vec<(char, char)>,
    },
    Choices(Vec<String>),
    Bool,
    /// `osd.1`, `mon.a`, or `*`.
    Name,
    /// `1`, `osd.1`, or `*`.
    OsdName,
    Pgid,
    Addr,
    Uuid,
    /// Whatever the daemon makes of it.
    Any,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Prefix,
    Because(String),
}

impl Kind {
    pub(super) fn parse<'a>(type_: &str, attribute: &impl Fn(&str) -> Option<&'a str>) -> Self {
        let range = || attribute("range").unwrap_or_default().split('|');
        match type_ {
            "CephInt" => {
                let mut ends = range().map(|end| end.parse().ok());
                Self::Int { min: ends.next().flatten(), max: ends.next().flatten() }
            }
            "CephFloat" => {
                let mut ends = range().map(|end| end.parse().ok());
                Self::Float { min: ends.next().flatten(), max: ends.next().flatten() }
            }
            "CephString" => {
                Self::Text { chars: char_class(attribute("goodchars").unwrap_or_default()) }
            }
            "CephChoices" => {
                let strings = attribute("strings").unwrap_or_default().split('|');
                Self::Choices(strings.map(str::to_owned).collect())
            }
            "CephBool" => Self::Bool,
            "CephName" => Self::Name,
            "CephOsdName" => Self::OsdName,
            "CephPgid" => Self::Pgid,
            "CephEntityAddr" | "CephIPAddr" => Self::Addr,
            "CephUUID" => Self::Uuid,
            "CephPrefix" => Self::Prefix(attribute("prefix").unwrap_or_default().to_owned()),
            _ => Self::Any,
        }
    }

    pub(super) fn is_prefix(&self) -> bool {
        matches!(self, Self::Prefix(_))
    }

    pub(super) fn is_switch(&self) -> bool {
        matches!(self, Self::Bool)
    }

    pub(super) fn is_string(&self) -> bool {
        matches!(self, Self::Text { .. })
    }

    pub(super) fn is_choices(&self) -> bool {
        matches!(self, Self::Choices(_))
    }

    /// `partial`: a beginning of a fixed word will do.
    pub(super) fn take(&self, word: &str, partial: bool) -> Result<Value, Refused> {
        let because = |reason: String| Refused::Because(reason);
        match self {
            Self::Prefix(fixed) if word == fixed || partial && fixed.starts_with(word) => {
                Ok(word.into())
            }
            Self::Prefix(_) => Err(Refused::Prefix),
            Self::Int { min, max } => {
                let n = parse_int(word)
                    .ok_or_else(|| because(format!("{word} doesn't represent an int")))?;
                match min.is_some_and(|m| n < m) || max.is_some_and(|m| n > m) {
                    true => Err(because(format!("{n} not in range {}", span(*min, *max)))),
                    false => Ok(n.into()),
                }
            }
            Self::Float { min, max } => {
                let x: f64 = word
                    .parse()
                    .map_err(|_| because(format!("{word} doesn't represent a float")))?;
                match min.is_some_and(|m| x < m) || max.is_some_and(|m| x > m) {
                    true => Err(because(format!("{x} not in range {}", span(*min, *max)))),
                    false => Ok(x.into()),
                }
            }
            Self::Text { chars } => {
                let is_good = |c: char| chars.iter().any(|(a, b)| (*a..=*b).contains(&c));
                match word.chars().find(|c| !chars.is_empty() && !is_good(*c)) {
                    Some(bad) => Err(because(format!("invalid chars {bad} in {word}"))),
                    None => Ok(word.into()),
                }
            }
            Self::Choices(choices) => {
                let fits = |c: &String| c == word || partial && c.starts_with(word);
                match choices.iter().any(fits) {
                    true => Ok(word.into()),
                    false => Err(because(format!("{word} not in {}", choices.join("|")))),
                }
            }
            Self::Bool => match word.to_ascii_lowercase().as_str() {
                "true" | "1" => Ok(true.into()),
                "false" | "0" => Ok(false.into()),
                _ => Err(because(format!("{word} not one of 'true', 'false'"))),
            },
            Self::OsdName => match word.strip_prefix("osd.").unwrap_or(word) {
                "*" => Ok("*".into()),
                id => match id.parse::<u32>() {
                    Ok(id) => Ok(id.into()),
                    Err(_) => Err(because(format!("osd id {id} not integer"))),
                },
            },
            Self::Name if is_name(word) => Ok(word.into()),
            Self::Pgid if word.parse::<PgId>().is_ok() => Ok(word.into()),
            Self::Addr if word.parse::<EntityAddr>().is_ok() => Ok(word.into()),
            Self::Uuid if word.parse::<Uuid>().is_ok() => Ok(word.into()),
            Self::Any => Ok(word.into()),
            Self::Name | Self::Pgid | Self::Addr | Self::Uuid => {
                Err(because(format!("{word} is not {}", self.describe())))
            }
        }
    }

    /// In a line of usage.
    pub(super) fn usage(&self, name: &str) -> String {
        match self {
            Self::Prefix(word) => word.clone(),
            Self::Choices(choices) if name == "format" => {
                format!("--{name} {{{}}}", choices.join("|"))
            }
            Self::Choices(choices) => choices.join("|"),
            Self::Bool => format!("--{}", name.replace('_', "-")),
            Self::OsdName => "<id|osd.id>".to_owned(),
            Self::Name => "<type.id>".to_owned(),
            Self::Int { .. } => format!("<{name}:int>"),
            Self::Float { .. } => format!("<{name}:float>"),
            _ => format!("<{name}>"),
        }
    }

    pub(super) fn describe(&self) -> String {
        match self {
            Self::Prefix(word) => word.clone(),
            Self::Int { min, max } => format!("<int{}>", span(*min, *max)),
            Self::Float { min, max } => format!("<float{}>", span(*min, *max)),
            Self::Text { .. } => "<string>".to_owned(),
            Self::Choices(choices) => choices.join("|"),
            Self::Bool => "<bool>".to_owned(),
            Self::Name => "<name (type.id)>".to_owned(),
            Self::OsdName => "<osdname (id|osd.id)>".to_owned(),
            Self::Pgid => "<pgid>".to_owned(),
            Self::Addr => "<address>".to_owned(),
            Self::Uuid => "<uuid>".to_owned(),
            Self::Any => "<value>".to_owned(),
        }
    }
}

fn span<T: std::fmt::Display>(min: Option<T>, max: Option<T>) -> String {
    match (min, max) {
        (None, None) => String::new(),
        (min, max) => {
            let text = |end: Option<T>| end.map(|e| e.to_string()).unwrap_or_default();
            format!("[{}-{}]", text(min), text(max))
        }
    }
}

fn parse_int(word: &str) -> Option<i64> {
    let (negative, digits) = match word.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, word.strip_prefix('+').unwrap_or(word)),
    };
    let n = match digits.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok()?,
        None if digits.starts_with(['+', '-']) => return None,
        None => digits.parse::<i64>().ok()?,
    };
    Some(if negative { -n } else { n })
}

fn is_name(word: &str) -> bool {
    if ["*", "mgr", "mon"].contains(&word) {
        return true;
    }
    match word.split_once('.') {
        Some(("osd", id)) => id == "*" || id.parse::<u32>().is_ok(),
        Some((type_, _)) => ["mon", "client", "mds", "mgr"].contains(&type_),
        None => false,
    }
}

/// The ranges of a class like `[A-Za-z0-9-_.]`.
fn char_class(class: &str) -> Vec<(char, char)> {
    let inner = class.strip_prefix('[').and_then(|c| c.strip_suffix(']'));
    let chars: Vec<char> = inner.unwrap_or_default().chars().collect();
    let mut ranges = Vec::new();
    let mut i = 0;
    while i < chars.len() {
        let escaped = chars[i] == '\\' && i + 1 < chars.len();
        if escaped {
            i += 1;
        }
        match chars.get(i + 1..i + 3) {
            Some(['-', end]) if !escaped && chars[i] <= *end => {
                ranges.push((chars[i], *end));
                i += 3;
            }
            _ => {
                ranges.push((chars[i], chars[i]));
                i += 1;
            }
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_characters() {
        let kind = Kind::Text { chars: char_class("[A-Za-z0-9-_.]") };
        assert!(kind.take("a-Z_0.9", false).is_ok());
        assert!(kind.take("a b", false).is_err());
        assert!(Kind::Text { chars: Vec::new() }.take("ü !", false).is_ok());
    }

    #[test]
    fn numbers_in_ranges() {
        let kind = Kind::parse("CephInt", &|_| Some("0|10"));
        assert_eq!(kind.take("0x0a", false), Ok(10.into()));
        assert!(kind.take("11", false).is_err());
        assert!(kind.take("-1", false).is_err());
        assert!(kind.take("--1", false).is_err());
        let kind = Kind::parse("CephFloat", &|_| Some("0.0"));
        assert_eq!(kind.take("1.5", false), Ok(1.5.into()));
        assert!(kind.take("-0.1", false).is_err());
    }

    #[test]
    fn names() {
        for good in ["*", "osd.1", "mon.a", "client.x.y", "osd.*"] {
            assert!(Kind::Name.take(good, false).is_ok(), "{good}");
        }
        for bad in ["osd.x", "foo", "foo.1"] {
            assert!(Kind::Name.take(bad, false).is_err(), "{bad}");
        }
        assert_eq!(Kind::OsdName.take("osd.3", false), Ok(3.into()));
        assert!(Kind::Pgid.take("1.1f", false).is_ok());
    }
}
