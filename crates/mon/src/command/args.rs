//! Arguments of a command: a JSON object, read by name with Ceph's tolerance.
//!
//! Invariant: every access checks the type; a wrong one is EINVAL, never a panic.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Refusal, errno, refuse};

#[derive(Clone, Debug, Default)]
pub(crate) struct Args(Map<String, Value>);

impl Args {
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        match serde_json::from_str(text) {
            Ok(Value::Object(map)) => Ok(Self(map)),
            Ok(_) => refuse(errno::EINVAL, "command is not a JSON object"),
            Err(e) => refuse(errno::EINVAL, format!("unparseable JSON {text}: {e}")),
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(crate) fn str(&self, name: &str) -> Result<&str, Refusal> {
        match self.str_opt(name)? {
            Some(text) => Ok(text),
            None => refuse(errno::EINVAL, format!("missing required parameter {name}")),
        }
    }

    pub(crate) fn str_opt(&self, name: &str) -> Result<Option<&str>, Refusal> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(s)) => Ok(Some(s)),
            Some(_) => {
                refuse(errno::EINVAL, format!("bad type for parameter {name}: expected a string"))
            }
        }
    }

    /// A number, also when it was sent as text.
    pub(crate) fn int_opt(&self, name: &str) -> Result<Option<i64>, Refusal> {
        let number = match self.0.get(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Number(n)) => n.as_i64(),
            Some(Value::String(s)) => s.parse().ok(),
            Some(_) => None,
        };
        match number {
            Some(n) => Ok(Some(n)),
            None => {
                refuse(errno::EINVAL, format!("bad type for parameter {name}: expected an integer"))
            }
        }
    }

    pub(crate) fn int(&self, name: &str) -> Result<i64, Refusal> {
        match self.int_opt(name)? {
            Some(n) => Ok(n),
            None => refuse(errno::EINVAL, format!("missing required parameter {name}")),
        }
    }

    pub(crate) fn float_opt(&self, name: &str) -> Result<Option<f64>, Refusal> {
        let number = match self.0.get(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Number(n)) => n.as_f64(),
            Some(Value::String(s)) => s.parse().ok(),
            Some(_) => None,
        };
        match number.filter(|n| n.is_finite()) {
            Some(n) => Ok(Some(n)),
            None => {
                refuse(errno::EINVAL, format!("bad type for parameter {name}: expected a number"))
            }
        }
    }

    pub(crate) fn float(&self, name: &str) -> Result<f64, Refusal> {
        match self.float_opt(name)? {
            Some(n) => Ok(n),
            None => refuse(errno::EINVAL, format!("missing required parameter {name}")),
        }
    }

    /// A flag: absent is false; older tools send the words of the flag instead of `true`.
    pub(crate) fn flag(&self, name: &str) -> bool {
        match self.0.get(name) {
            Some(Value::Bool(b)) => *b,
            Some(Value::String(s)) => s.starts_with("--") || s == "true",
            _ => false,
        }
    }

    /// A repeated parameter; one string counts as a list of one.
    pub(crate) fn strs(&self, name: &str) -> Result<Vec<&str>, Refusal> {
        let bad =
            || refuse(errno::EINVAL, format!("bad type for parameter {name}: expected strings"));
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::String(s)) => Ok(vec![s]),
            Some(Value::Array(items)) => {
                let texts: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
                texts.map_or_else(bad, Ok)
            }
            Some(_) => bad(),
        }
    }

    /// An OSD id given as `3`, `"3"` or `"osd.3"`.
    pub(crate) fn osd(&self, name: &str) -> Result<i32, Refusal> {
        let id = match self.0.get(name) {
            Some(Value::Number(n)) => n.as_i64().and_then(|n| i32::try_from(n).ok()),
            Some(Value::String(s)) => parse_osd(s),
            _ => None,
        };
        match id.filter(|id| *id >= 0) {
            Some(id) => Ok(id),
            None => {
                refuse(errno::EINVAL, format!("unable to parse osd id value '{}'", self.show(name)))
            }
        }
    }

    /// A repeated parameter of OSD ids, of which there is at least one.
    pub(crate) fn osds(&self, name: &str) -> Result<Vec<i32>, Refusal> {
        let id = |v: &Value| match v {
            Value::Number(n) => n.as_i64().and_then(|n| i32::try_from(n).ok()),
            _ => None,
        };
        let ids = match self.0.get(name) {
            Some(Value::Array(items)) => items.iter().map(id).collect::<Option<Vec<i32>>>(),
            Some(one) => id(one).map(|one| vec![one]),
            None => None,
        };
        match ids.filter(|ids| !ids.is_empty()) {
            Some(ids) => Ok(ids),
            None => refuse(errno::EINVAL, format!("bad or missing field '{name}'")),
        }
    }

    /// A repeated parameter of numbers, of which there is at least one.
    pub(crate) fn floats(&self, name: &str) -> Result<Vec<f64>, Refusal> {
        let number = |v: &Value| match v {
            Value::String(s) => s.parse().ok(),
            other => other.as_f64(),
        };
        let numbers = match self.0.get(name) {
            Some(Value::Array(items)) => items.iter().map(number).collect::<Option<Vec<f64>>>(),
            Some(one) => number(one).map(|one| vec![one]),
            None => None,
        };
        let finite =
            |numbers: &Vec<f64>| !numbers.is_empty() && numbers.iter().all(|n| n.is_finite());
        match numbers.filter(finite) {
            Some(numbers) => Ok(numbers),
            None => refuse(errno::EINVAL, format!("bad or missing field '{name}'")),
        }
    }

    /// A parameter as it was sent, for messages.
    pub(crate) fn show(&self, name: &str) -> String {
        match self.0.get(name) {
            None => String::new(),
            Some(Value::String(s)) => s.clone(),
            Some(other) => other.to_string(),
        }
    }

    /// The members as text, for capability checks.
    pub(crate) fn texts(&self) -> BTreeMap<String, String> {
        let text = |v: &Value| match v {
            Value::String(s) => s.clone(),
            Value::Array(items) => {
                items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
            }
            other => other.to_string(),
        };
        self.0.iter().map(|(k, v)| (k.clone(), text(v))).collect()
    }
}

pub(crate) fn parse_osd(text: &str) -> Option<i32> {
    text.strip_prefix("osd.").unwrap_or(text).parse().ok()
}
