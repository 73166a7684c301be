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
                let name = name.strip_suffix(']').ok_or(KeyringError::Syntax { line })?.trim();
                let name: EntityNameStr =
                    name.parse().map_err(|_| KeyringError::Name { line, name: name.to_owned() })?;
                keyring.entities.entry(name.clone()).or_default();
                current = Some(name);
                continue;
            }
            let (field, value) = content.split_once('=').ok_or(KeyringError::Syntax { line })?;
            let field = field.split_whitespace().collect::<Vec<_>>().join(" ").replace('_', " ");
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
        self.entities.iter().map(|(name, auth)| format_entity(name, auth)).collect()
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
    let inner = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
    inner.replace("\\\"", "\"")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// What `ceph auth get` of 16.2.15 printed.
    const REAL: &str = "[client.auth-kat]\n\
        \tkey = AQDAaAJrOhw2IBAAejjImqctIRb/YEem9jxvpQ==\n\
        \tcaps mon = \"allow r, allow command \\\"auth get\\\" with entity=client.foo\"\n\
        \tcaps osd = \"allow rwx pool=auth-kat namespace=\\\"a b\\\"\"\n";

    #[test]
    fn the_text_of_a_real_monitor_survives() {
        let keyring = Keyring::parse(REAL).unwrap();
        let auth = keyring.get(&"client.auth-kat".parse().unwrap()).unwrap();
        assert_eq!(auth.caps_for("osd"), "allow rwx pool=auth-kat namespace=\"a b\"");
        assert_eq!(auth.caps_for("mgr"), "");
        assert_eq!(keyring.format(), REAL);
        let key = CryptoKey::from_base64("AQDAaAJrOhw2IBAAejjImqctIRb/YEem9jxvpQ==").unwrap();
        assert_eq!(auth.key, key);
    }

    #[test]
    fn sections_print_in_order_of_type() {
        let text = "[client.a]\n[mgr.x]\n[osd.10]\n[osd.2]\n[mon.]\n";
        let names: Vec<_> =
            Keyring::parse(text).unwrap().entities.keys().map(ToString::to_string).collect();
        assert_eq!(names, ["mon.", "osd.10", "osd.2", "client.a", "mgr.x"]);
    }

    #[test]
    fn loose_forms_are_read_as_ceph_reads_them() {
        let text = "# head\n[ client.k ]\n key=AQDAaAJrOhw2IBAAejjImqctIRb/YEem9jxvpQ==\n\
            caps_osd = allow rw ; hi\n  caps   mgr = \"allow r\" # foo\n\tauid = 0\n";
        let keyring = Keyring::parse(text).unwrap();
        let auth = keyring.get(&"client.k".parse().unwrap()).unwrap();
        assert_eq!((auth.caps_for("osd"), auth.caps_for("mgr")), ("allow rw", "allow r"));
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        let error = |text| Keyring::parse(text).unwrap_err().to_string();
        assert_eq!(error("\n[admin]\n"), "line 2: not an entity name: [admin]");
        assert_eq!(error("key = x"), "line 1: `key` stands before any [entity]");
        assert_eq!(error("[osd.1]\nkey = x"), "line 2: not a base64 cephx key");
        let field = "line 2: unknown field `keys`; expected `key` or `caps <service>`";
        assert_eq!(error("[osd.1]\nkeys = x"), field);
        assert_eq!(error("[osd.1"), "line 1: expected `[entity]` or `name = value`");
        assert_eq!(Keyring::parse_bytes(&[0xff]), Err(KeyringError::Utf8));
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_back(
            entities in proptest::collection::btree_map(
                ("[a-z0-9._-]{1,9}", any::<[u8; 16]>()),
                proptest::collection::btree_map("mon|osd|mgr|mds", "[ -\\[\\]-~]{1,30}", 0..4),
                0..4,
            )
        ) {
            let mut keyring = Keyring::default();
            for ((id, secret), caps) in entities {
                let key = CryptoKey::from_secret(Duration::from_secs(77), secret);
                let name = format!("client.{id}").parse().unwrap();
                keyring.entities.insert(name, EntityAuth { key, caps });
            }
            prop_assert_eq!(Keyring::parse(&keyring.format()), Ok(keyring));
        }

        #[test]
        fn any_text_is_survived(text in "\\PC{0,80}") {
            let _ = Keyring::parse(&text);
        }
    }
}
