//! Who: entity types, numbered names (`osd.0`) and authentication names (`client.admin`).

use std::fmt;
use std::str::FromStr;

use crate::{Decode, DecodeError, Denc, Encode, Features, Reader};

/// The kind of a daemon or client; also a bit mask of services in cephx.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Denc)]
pub struct EntityType(pub u8);

impl EntityType {
    pub const MON: Self = Self(1);
    pub const MDS: Self = Self(2);
    pub const OSD: Self = Self(4);
    pub const CLIENT: Self = Self(8);
    pub const MGR: Self = Self(16);
    pub const AUTH: Self = Self(32);

    const NAMES: [(Self, &'static str); 6] = [
        (Self::MON, "mon"),
        (Self::MDS, "mds"),
        (Self::OSD, "osd"),
        (Self::CLIENT, "client"),
        (Self::MGR, "mgr"),
        (Self::AUTH, "auth"),
    ];

    /// The name used in keyrings and logs, `unknown` for a value that Ceph does not define.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(t, _)| *t == self).map_or("unknown", |(_, n)| n)
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, n)| *n == name).map(|(t, _)| *t)
    }
}

impl fmt::Display for EntityType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `entity_name_t`: a numbered daemon or client session, such as `osd.0` or `client.4123`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Denc)]
pub struct EntityName {
    pub type_: EntityType,
    pub num: i64,
}

impl EntityName {
    pub fn new(type_: EntityType, num: i64) -> Self {
        Self { type_, num }
    }

    pub fn mon(rank: i64) -> Self {
        Self::new(EntityType::MON, rank)
    }

    pub fn osd(id: i64) -> Self {
        Self::new(EntityType::OSD, id)
    }

    pub fn client(global_id: i64) -> Self {
        Self::new(EntityType::CLIENT, global_id)
    }

    pub fn mgr(global_id: i64) -> Self {
        Self::new(EntityType::MGR, global_id)
    }
}

/// Type 0, number 0: what an unset name encodes as.
impl Default for EntityName {
    fn default() -> Self {
        Self { type_: EntityType(0), num: 0 }
    }
}

impl fmt::Display for EntityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.num < 0 {
            write!(f, "{}.?", self.type_)
        } else {
            write!(f, "{}.{}", self.type_, self.num)
        }
    }
}

/// `EntityName`: the name that authenticates, such as `client.admin`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntityNameStr {
    pub type_: EntityType,
    pub id: String,
}

impl EntityNameStr {
    pub fn new(type_: EntityType, id: impl Into<String>) -> Self {
        Self { type_, id: id.into() }
    }
}

impl Encode for EntityNameStr {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        u32::from(self.type_.0).encode(out, f);
        self.id.encode(out, f);
    }
}

impl Decode for EntityNameStr {
    const MIN_SIZE: usize = 8;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let raw = r.u32()?;
        let type_ = u8::try_from(raw)
            .map_err(|_| DecodeError::Invalid { what: "entity type", value: raw.into() })?;
        Ok(Self { type_: EntityType(type_), id: String::decode(r)? })
    }
}

impl fmt::Display for EntityNameStr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.type_, self.id)
    }
}

/// The text is not `type.id` with a known type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an entity name: {0:?}")]
pub struct NameParseError(pub String);

impl FromStr for EntityNameStr {
    type Err = NameParseError;
    fn from_str(s: &str) -> Result<Self, NameParseError> {
        let parsed = s.split_once('.').and_then(|(t, id)| Some((EntityType::from_name(t)?, id)));
        match parsed {
            Some((type_, id)) if !id.is_empty() => Ok(Self::new(type_, id)),
            // A lone `mon.` is the monitors' shared key.
            Some((EntityType::MON, _)) => Ok(Self::new(EntityType::MON, "")),
            _ => Err(NameParseError(s.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_print_and_parse() {
        assert_eq!(EntityName::osd(3).to_string(), "osd.3");
        assert_eq!(EntityName::client(-1).to_string(), "client.?");
        let admin: EntityNameStr = "client.admin".parse().unwrap();
        assert_eq!(admin, EntityNameStr::new(EntityType::CLIENT, "admin"));
        assert_eq!("client.a.b".parse::<EntityNameStr>().unwrap().id, "a.b");
        assert_eq!("mon.".parse::<EntityNameStr>().unwrap().to_string(), "mon.");
        assert!("admin".parse::<EntityNameStr>().is_err());
        assert!("client.".parse::<EntityNameStr>().is_err());
    }

    #[test]
    fn a_name_takes_nine_bytes() {
        let bytes = EntityName::osd(1).to_bytes(Features::PACIFIC);
        assert_eq!(bytes, [4, 1, 0, 0, 0, 0, 0, 0, 0]);
    }
}
