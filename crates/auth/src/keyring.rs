//! Keyring files: entities with their key and capabilities, in the ini form that `ceph auth get`,
//! `ceph auth get-or-create` and `ceph-authtool` read and write.
//!
//! Invariants: printing is byte for byte what Ceph prints; what was printed parses back equal,
//! unless a capability holds a backslash (Ceph does not escape it either).

use std::collections::BTreeMap;

use spirula_wire::types::EntityNameStr;

use crate::crypto::CryptoKey;

/// A key and the capabilities by service name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntityAuth {
    pub key: CryptoKey,
    pub caps: BTreeMap<String, String>,
}

impl EntityAuth {
    /// The capability text for `service` (`mon`, `osd`, `mgr`, `mds`); empty when there is none.
    pub fn caps_for(&self, service: &str) -> &str {
        self.caps.get(service).map_or("", String::as_str)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keyring {
    pub entities: BTreeMap<EntityNameStr, EntityAuth>,
}

/// What is wrong with a keyring's text. Lines count from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    #[error("line {line}: not an entity name: [{name}]")]
    Name { line: usize, name: String },
    #[error("line {line}: expected `[entity]` or `name = value`")]
    Syntax { line: usize },
    #[error("line {line}: `{field}` stands before any [entity]")]
    NoSection { line: usize, field: String },
    #[error("line {line}: unknown field `{field}`; expected `key` or `caps <service>`")]
    Field { line: usize, field: String },
    #[error("line {line}: not a base64 cephx key")]
    Key { line: usize },
    #[error("the text is not UTF-8")]
    Utf8,
}

impl Keyring {
    pub fn parse(text: &str) -> Result<Self, KeyringError> {
        let mut keyring = Self::default();
        let mut current: Option<EntityNameStr> = None;
        for (i, raw) in text.lines().enumerate() {
            let line = i + 1;
            let content = strip_comment(raw).trim();
            if content.is_empty() {
                continue;
            }
            if let Some(name) = content.strip_prefix('[') {
                let name = name
                    .strip_suffix(']')
                    .ok_or(KeyringError::Syntax { line })?
                    .trim();
                let name: EntityNameStr = name.parse().map_err(|_| KeyringError::Name {
                    line,
                    name: name.to_owned(),
                })?;
                keyring.entities.entry(name.clone()).or_default();
                current = Some(name);
                continue;
            }
            let (field, value) = content
                .split_once('=')
                .ok_or(KeyringError::Syntax { line })?;
            let field = field
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
                .replace('_', " ");
            let entity = current.as_ref().and_then(|n| keyring.entities.get_mut(n));
            let Some(entity) = entity else {
                return Err(KeyringError::NoSection { line, field });
            };
            set_field(entity, line, field, &unquote(value.trim()))?;
        }
        Ok(keyring)
    }

    pub fn parse_bytes(bytes: &[u8]) -> Result<Self, KeyringError> {
        Self::parse(std::str::from_utf8(bytes).map_err(|_| KeyringError::Utf8)?)
    }

    pub fn get(&self, name: &EntityNameStr) -> Option<&EntityAuth> {
        self.entities.get(name)
    }

    /// The text form of all entities, in Ceph's order.
    pub fn format(&self) -> String {
        self.entities
            .iter()
            .map(|(name, auth)| format_entity(name, auth))
            .collect()
    }
}

/// One section of a keyring, as `ceph auth get` prints it.
pub fn format_entity(name: &EntityNameStr, auth: &EntityAuth) -> String {
    let mut out = format!("[{name}]\n\tkey = {}\n", auth.key.to_base64());
    for (service, caps) in &auth.caps {
        let escaped = caps.replace('"', "\\\"");
        out.push_str(&format!("\tcaps {service} = \"{escaped}\"\n"));
    }
    out
}

fn set_field(
    entity: &mut EntityAuth,
    line: usize,
    field: String,
    value: &str,
) -> Result<(), KeyringError> {
    if field == "key" {
        entity.key = CryptoKey::from_base64(value).map_err(|_| KeyringError::Key { line })?;
    } else if let Some(service) = field.strip_prefix("caps ") {
        entity.caps.insert(service.to_owned(), value.to_owned());
    } else if field != "auid" {
        return Err(KeyringError::Field { line, field });
    }
    Ok(())
}

/// Drops what follows an unquoted `#` or `;`.
fn strip_comment(line: &str) -> &str {
    let mut quoted = false;
    let mut escaped = false;
    for (i, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            '#' | ';' if !quoted => return &line[..i],
            _ => {}
        }
    }
    line
}

/// Removes enclosing double quotes and the backslash before a quote, the only one that Ceph adds.
fn unquote(value: &str) -> String {
    let inner = value
        .strip_prefix('"')
        .and_then(|v| v.strip_suffix('"'))
        .unwrap_or(value);
    inner.replace("\\\"", "\"")
}
