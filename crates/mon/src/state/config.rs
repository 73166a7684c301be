//! The cluster's configuration: option values by section and mask, with their history.

use std::collections::BTreeMap;
use std::time::Duration;

use spirula_wire::types::{EntityNameStr, EntityType};
use spirula_wire::{Decode, DecodeError, Denc, Encode, Features, Reader};

/// History entries kept (`config log`, `config reset`).
const HISTORY_MAX: usize = 128;

/// Where a value applies: `osd/class:hdd` is the section `osd` with a mask.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Denc)]
pub struct Scope {
    /// `global`, a type (`osd`) or an entity (`osd.3`, `client.a.b`).
    pub section: String,
    /// `class:NAME`, `TYPE:NAME` of the CRUSH hierarchy, several joined by `/`, or empty.
    pub mask: String,
}

impl Scope {
    /// Parses `WHO` of `config set`.
    pub fn parse(who: &str) -> Option<Self> {
        let (section, mask) = who.split_once('/').unwrap_or((who, ""));
        let known = section == "global"
            || is_type(section)
            || section.split_once('.').is_some_and(|(t, _)| is_type(t));
        let masks_ok = mask.is_empty() || mask.split('/').all(|m| m.contains(':'));
        (known && masks_ok).then(|| Self { section: section.to_owned(), mask: mask.to_owned() })
    }

    /// `section[/mask]`.
    pub fn who(&self) -> String {
        if self.mask.is_empty() {
            self.section.clone()
        } else {
            format!("{}/{}", self.section, self.mask)
        }
    }

    pub fn device_class(&self) -> Option<&str> {
        self.mask.split('/').find_map(|m| m.strip_prefix("class:"))
    }

    /// `(type, name)` of a CRUSH location in the mask.
    pub fn location(&self) -> Option<(&str, &str)> {
        self.mask.split('/').filter_map(|m| m.split_once(':')).find(|(t, _)| *t != "class")
    }

    fn matches(&self, class: Option<&str>, location: &[(&str, &str)]) -> bool {
        self.device_class().is_none_or(|c| class == Some(c))
            && self.location().is_none_or(|l| location.contains(&l))
    }
}

fn is_type(name: &str) -> bool {
    matches!(name, "mon" | "mgr" | "osd" | "mds" | "client")
}

/// One change, as the log shows it.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
pub struct ConfigEvent {
    pub version: u64,
    pub stamp_nanos: u64,
    pub scope: Scope,
    pub name: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ConfigDb {
    pub version: u64,
    values: BTreeMap<(Scope, String), String>,
    history: Vec<ConfigEvent>,
}

impl ConfigDb {
    pub fn get(&self, scope: &Scope, name: &str) -> Option<&str> {
        self.values.get(&(scope.clone(), name.to_owned())).map(String::as_str)
    }

    /// Every value in Ceph's order of sections, masked ones first within a section.
    pub fn dump(&self) -> Vec<(&Scope, &str, &str)> {
        let mut all: Vec<_> = self
            .values
            .iter()
            .map(|((scope, name), value)| (scope, name.as_str(), value.as_str()))
            .collect();
        let rank = |section: &str| {
            let type_ = section.split('.').next().unwrap_or_default();
            ["global", "mon", "mgr", "osd", "mds", "client"].iter().position(|t| *t == type_)
        };
        all.sort_by(|a, b| {
            let key = |x: &(&Scope, &str, &str)| {
                (
                    rank(&x.0.section),
                    x.0.section.clone(),
                    x.1.to_owned(),
                    x.0.mask.is_empty(),
                    x.0.mask.clone(),
                )
            };
            key(a).cmp(&key(b))
        });
        all
    }

    /// What holds for `entity`: general sections first, then more special ones, and within a
    /// section a masked value over a plain one.
    pub fn effective(
        &self,
        entity: &EntityNameStr,
        class: Option<&str>,
        location: &[(&str, &str)],
    ) -> BTreeMap<String, String> {
        let found = self.effective_with_scope(entity, class, location);
        found.into_iter().map(|(name, (_, value))| (name.to_owned(), value.to_owned())).collect()
    }

    pub fn effective_with_scope(
        &self,
        entity: &EntityNameStr,
        class: Option<&str>,
        location: &[(&str, &str)],
    ) -> BTreeMap<&str, (&Scope, &str)> {
        let mut found = BTreeMap::new();
        for section in sections_of(entity) {
            // An empty mask sorts first, so masked values come later and win.
            for ((scope, name), value) in &self.values {
                if scope.section == section && scope.matches(class, location) {
                    found.insert(name.as_str(), (scope, value.as_str()));
                }
            }
        }
        found
    }

    /// Newest first.
    pub fn history(&self) -> impl Iterator<Item = &ConfigEvent> {
        self.history.iter().rev()
    }

    /// The values in force right after change `version`, or `None` if the history does not reach.
    pub fn undo_to(&self, version: u64) -> Option<Vec<(Scope, String, Option<String>)>> {
        let oldest = self.history.first().map_or(self.version, |e| e.version - 1);
        (oldest <= version && version <= self.version).then(|| {
            let newer = self.history().take_while(|e| e.version > version);
            newer.map(|e| (e.scope.clone(), e.name.clone(), e.before.clone())).collect()
        })
    }

    pub(crate) fn set(&mut self, stamp: Duration, scope: &Scope, name: &str, value: Option<&str>) {
        let key = (scope.clone(), name.to_owned());
        let before = match value {
            Some(v) => self.values.insert(key, v.to_owned()),
            None => self.values.remove(&key),
        };
        if before.as_deref() == value {
            return;
        }
        self.version += 1;
        self.history.push(ConfigEvent {
            version: self.version,
            stamp_nanos: stamp.as_nanos() as u64,
            scope: scope.clone(),
            name: name.to_owned(),
            before,
            after: value.map(str::to_owned),
        });
        if self.history.len() > HISTORY_MAX {
            self.history.remove(0);
        }
    }
}

/// `client.a.b` reads `global`, `client`, `client.a`, `client.a.b`.
fn sections_of(entity: &EntityNameStr) -> Vec<String> {
    let mut sections = vec!["global".to_owned(), EntityType::name(entity.type_).to_owned()];
    for part in entity.id.split('.') {
        let last = sections.last().cloned().unwrap_or_default();
        sections.push(format!("{last}.{part}"));
    }
    sections
}

impl Encode for ConfigDb {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        self.version.encode(out, f);
        self.values.encode(out, f);
        self.history.encode(out, f);
    }
}

impl Decode for ConfigDb {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { version: r.u64()?, values: Decode::decode(r)?, history: Decode::decode(r)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn db(values: &[(&str, &str, &str)]) -> ConfigDb {
        let mut db = ConfigDb::default();
        for (who, name, value) in values {
            db.set(Duration::ZERO, &Scope::parse(who).unwrap(), name, Some(value));
        }
        db
    }

    #[test]
    fn the_most_special_value_holds() {
        let db = db(&[
            ("osd.1", "x", "one"),
            ("osd", "x", "type"),
            ("global", "x", "all"),
            ("osd/class:ssd", "x", "ssd"),
        ]);
        let of = |name: &str, class| db.effective(&name.parse().unwrap(), class, &[])["x"].clone();
        assert_eq!(of("client.admin", None), "all");
        assert_eq!(of("osd.0", None), "type");
        assert_eq!(of("osd.0", Some("ssd")), "ssd");
        assert_eq!(of("osd.1", Some("hdd")), "one");
        let order: Vec<_> = db.dump().iter().map(|(s, ..)| s.who()).collect();
        assert_eq!(order, ["global", "osd/class:ssd", "osd", "osd.1"]);
    }

    #[test]
    fn history_undoes() {
        let mut db = db(&[("global", "x", "1")]);
        let scope = Scope::parse("global").unwrap();
        db.set(Duration::ZERO, &scope, "x", Some("2"));
        db.set(Duration::ZERO, &scope, "x", None);
        assert_eq!(db.version, 3);
        let undo = db.undo_to(1).unwrap();
        assert_eq!(
            undo,
            [(scope.clone(), "x".into(), Some("2".into())), (scope, "x".into(), Some("1".into()))]
        );
        assert_eq!(db.undo_to(9), None);
        assert_eq!(ConfigDb::from_bytes(&db.to_bytes(Features::PACIFIC)), Ok(db));
        assert_eq!(Scope::parse("nobody"), None);
    }
}
