//! Where: `entity_addr_t` and `entity_addrvec_t`, in the legacy and the msgr2 form.
//!
//! Source of the format: Ceph's `msg/msg_types.h`. The first byte tells the forms apart: 0 legacy
//! address, 1 typed address, 2 vector of addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::str::FromStr;

use crate::denc::encode_versioned;
use crate::{Decode, DecodeError, Denc, Encode, Features, Reader, features};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
/// `sizeof(sockaddr_in)`, `sizeof(sockaddr_in6)`, `sizeof(sockaddr_storage)`.
const SOCKADDR_IN: usize = 16;
const SOCKADDR_IN6: usize = 28;
const SOCKADDR_STORAGE: usize = 128;

/// Which messenger protocol listens at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Denc)]
pub struct AddrType(pub u32);

impl AddrType {
    pub const NONE: Self = Self(0);
    pub const LEGACY: Self = Self(1);
    pub const MSGR2: Self = Self(2);
    pub const ANY: Self = Self(3);
    pub const CIDR: Self = Self(4);

    /// As every dump shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::NONE => "none",
            Self::LEGACY => "v1",
            Self::MSGR2 => "v2",
            Self::CIDR => "cidr",
            _ => "any",
        }
    }
}

/// `entity_addr_t`: a socket address, the protocol spoken there and the nonce of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntityAddr {
    pub type_: AddrType,
    pub nonce: u32,
    pub addr: Option<SocketAddr>,
}

impl EntityAddr {
    /// The bytes of Ceph's structure in memory, by which it orders addresses: type, nonce, then the socket
    /// address, with family and scope in little, port in big endian.
    pub fn memory_order(&self) -> [u8; 36] {
        let mut key = [0; 36];
        key[..4].copy_from_slice(&self.type_.0.to_le_bytes());
        key[4..8].copy_from_slice(&self.nonce.to_le_bytes());
        match self.addr {
            None => {}
            Some(std::net::SocketAddr::V4(v4)) => {
                key[8] = 2;
                key[10..12].copy_from_slice(&v4.port().to_be_bytes());
                key[12..16].copy_from_slice(&v4.ip().octets());
            }
            Some(std::net::SocketAddr::V6(v6)) => {
                key[8] = 10;
                key[10..12].copy_from_slice(&v6.port().to_be_bytes());
                key[12..16].copy_from_slice(&v6.flowinfo().to_le_bytes());
                key[16..32].copy_from_slice(&v6.ip().octets());
                key[32..].copy_from_slice(&v6.scope_id().to_le_bytes());
            }
        }
        key
    }

    pub fn msgr2(addr: SocketAddr, nonce: u32) -> Self {
        Self { type_: AddrType::MSGR2, nonce, addr: Some(addr) }
    }

    pub fn legacy(addr: SocketAddr, nonce: u32) -> Self {
        Self { type_: AddrType::LEGACY, nonce, addr: Some(addr) }
    }

    pub fn is_blank(&self) -> bool {
        *self == Self::default()
    }

    pub fn with_type(self, type_: AddrType) -> Self {
        Self { type_, ..self }
    }
}

impl Encode for EntityAddr {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        if !f.has(features::MSG_ADDR2) {
            return encode_legacy(self, out, f);
        }
        out.push(1);
        encode_versioned(out, 1, 1, |out| {
            self.type_.encode(out, f);
            self.nonce.encode(out, f);
            // An unset address still takes the room of the largest kind.
            let mut sockaddr = [0; SOCKADDR_IN6];
            let len = put_sockaddr(self.addr, &mut sockaddr);
            sockaddr[..len].encode(out, f);
        });
    }
}

impl Decode for EntityAddr {
    const MIN_SIZE: usize = 10;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match r.u8()? {
            0 => decode_legacy(r),
            1 => decode_typed(r),
            other => Err(DecodeError::Invalid { what: "address marker", value: other.into() }),
        }
    }
}

/// `entity_addrvec_t`: every address of one process, most preferred first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntityAddrVec(pub Vec<EntityAddr>);

impl EntityAddrVec {
    pub fn one(addr: EntityAddr) -> Self {
        Self(vec![addr])
    }

    pub fn msgr2(&self) -> Option<EntityAddr> {
        self.0.iter().find(|a| a.type_ == AddrType::MSGR2).copied()
    }

    /// The msgr1 address, or a blank one: what a peer without `MSG_ADDR2` is told.
    pub fn legacy(&self) -> EntityAddr {
        self.0.iter().find(|a| a.type_ == AddrType::LEGACY).copied().unwrap_or_default()
    }

    /// The address to show and compare when only one fits: msgr2 if there is one.
    pub fn front(&self) -> EntityAddr {
        self.0.first().copied().unwrap_or_default()
    }

    pub fn contains(&self, addr: &EntityAddr) -> bool {
        self.0.contains(addr)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, EntityAddr> {
        self.0.iter()
    }
}

impl From<EntityAddr> for EntityAddrVec {
    fn from(addr: EntityAddr) -> Self {
        Self::one(addr)
    }
}

impl Encode for EntityAddrVec {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        if f.has(features::MSG_ADDR2) {
            out.push(2);
            self.0.encode(out, f);
        } else {
            encode_legacy(&self.legacy(), out, f);
        }
    }
}

impl Decode for EntityAddrVec {
    const MIN_SIZE: usize = 5;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match r.u8()? {
            0 => decode_legacy(r).map(Self::one),
            1 => decode_typed(r).map(Self::one),
            2 => Vec::decode(r).map(Self),
            other => Err(DecodeError::Invalid { what: "addrvec marker", value: other.into() }),
        }
    }
}

impl fmt::Display for EntityAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = match self.type_ {
            AddrType::NONE => return f.write_str("-"),
            AddrType::LEGACY => "v1:",
            AddrType::MSGR2 => "v2:",
            AddrType::CIDR => "cidr:",
            _ => "any:",
        };
        match self.addr {
            Some(addr) => write!(f, "{prefix}{addr}/{}", self.nonce),
            None => write!(f, "{prefix}:/{}", self.nonce),
        }
    }
}

impl fmt::Display for EntityAddrVec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [one] = self.0.as_slice() {
            return one.fmt(f);
        }
        f.write_str("[")?;
        for (i, addr) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            addr.fmt(f)?;
        }
        f.write_str("]")
    }
}

/// The text is not `[v1:|v2:|any:]ip:port[/nonce]`, or a bracketed list of those.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address: {0:?}")]
pub struct AddrParseError(pub String);

/// Without a prefix the type is `any`; without a port, port 0.
impl FromStr for EntityAddr {
    type Err = AddrParseError;
    fn from_str(s: &str) -> Result<Self, AddrParseError> {
        let bad = || AddrParseError(s.to_owned());
        if s == "-" {
            return Ok(Self::default());
        }
        let (type_, rest) =
            [("v1:", AddrType::LEGACY), ("v2:", AddrType::MSGR2), ("any:", AddrType::ANY)]
                .into_iter()
                .find_map(|(prefix, t)| Some((t, s.strip_prefix(prefix)?)))
                .unwrap_or((AddrType::ANY, s));
        let (host, nonce) = match rest.split_once('/') {
            Some((host, nonce)) => (host, nonce.parse().map_err(|_| bad())?),
            None => (rest, 0),
        };
        let bare = || host.trim_matches(['[', ']']).parse().ok().map(|ip| SocketAddr::new(ip, 0));
        let addr = host.parse().ok().or_else(bare).ok_or_else(bad)?;
        Ok(Self { type_, nonce, addr: Some(addr) })
    }
}

impl FromStr for EntityAddrVec {
    type Err = AddrParseError;
    fn from_str(s: &str) -> Result<Self, AddrParseError> {
        // `[::1]:6789` also starts with a bracket; a list ends with one.
        match s.strip_prefix('[').and_then(|s| s.strip_suffix(']')) {
            Some(list) if list.parse::<IpAddr>().is_err() => list
                .split(',')
                .filter(|a| !a.is_empty())
                .map(str::parse)
                .collect::<Result<_, _>>()
                .map(Self),
            _ => s.parse().map(Self::one),
        }
    }
}

/// Writes `addr` as a `sockaddr` with a little-endian family and returns its length.
fn put_sockaddr(addr: Option<SocketAddr>, out: &mut [u8; SOCKADDR_IN6]) -> usize {
    match addr {
        Some(SocketAddr::V4(v4)) => {
            out[..2].copy_from_slice(&AF_INET.to_le_bytes());
            out[2..4].copy_from_slice(&v4.port().to_be_bytes());
            out[4..8].copy_from_slice(&v4.ip().octets());
            SOCKADDR_IN
        }
        Some(SocketAddr::V6(v6)) => {
            out[..2].copy_from_slice(&AF_INET6.to_le_bytes());
            out[2..4].copy_from_slice(&v6.port().to_be_bytes());
            out[4..8].copy_from_slice(&v6.flowinfo().to_be_bytes());
            out[8..24].copy_from_slice(&v6.ip().octets());
            out[24..28].copy_from_slice(&v6.scope_id().to_le_bytes());
            SOCKADDR_IN6
        }
        None => SOCKADDR_IN6,
    }
}

/// Reads what follows the family; `rest` may be longer than the address needs.
fn get_sockaddr(family: u16, rest: &mut Reader<'_>) -> Result<Option<SocketAddr>, DecodeError> {
    let mut port = || rest.array("port").map(u16::from_be_bytes);
    match family {
        0 => Ok(None),
        AF_INET => {
            let port = port()?;
            let ip = Ipv4Addr::from(rest.array::<4>("IPv4 address")?);
            Ok(Some(SocketAddr::new(ip.into(), port)))
        }
        AF_INET6 => {
            let port = port()?;
            let flow = rest.array("flow info").map(u32::from_be_bytes)?;
            let ip = Ipv6Addr::from(rest.array::<16>("IPv6 address")?);
            Ok(Some(SocketAddrV6::new(ip, port, flow, rest.u32()?).into()))
        }
        other => Err(DecodeError::Invalid { what: "address family", value: other.into() }),
    }
}

/// Marker (4 bytes of zero), nonce, and a `sockaddr_storage` whose family is big-endian.
fn encode_legacy(addr: &EntityAddr, out: &mut Vec<u8>, f: Features) {
    0u32.encode(out, f);
    addr.nonce.encode(out, f);
    let mut sockaddr = [0; SOCKADDR_IN6];
    put_sockaddr(addr.addr, &mut sockaddr);
    sockaddr.swap(0, 1);
    out.extend_from_slice(&sockaddr);
    out.extend_from_slice(&[0; SOCKADDR_STORAGE - SOCKADDR_IN6]);
}

fn decode_legacy(r: &mut Reader<'_>) -> Result<EntityAddr, DecodeError> {
    r.skip(3, "legacy address marker")?;
    let nonce = r.u32()?;
    let mut storage = Reader::new(r.take(SOCKADDR_STORAGE, "sockaddr_storage")?);
    let family = u16::from_be_bytes(storage.array("address family")?);
    let addr = get_sockaddr(family, &mut storage)?;
    let type_ = if addr.is_some() { AddrType::LEGACY } else { AddrType::NONE };
    Ok(EntityAddr { type_, nonce, addr })
}

fn decode_typed(r: &mut Reader<'_>) -> Result<EntityAddr, DecodeError> {
    r.versioned("entity_addr_t", 1, |_, r| {
        let (type_, nonce) = (AddrType::decode(r)?, r.u32()?);
        let mut sockaddr = Reader::new(r.blob("sockaddr")?);
        let addr = if sockaddr.is_empty() {
            None
        } else {
            let family = sockaddr.u16()?;
            get_sockaddr(family, &mut sockaddr)?
        };
        Ok(EntityAddr { type_, nonce, addr })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, legacy_text: &str) {
        let addr: EntityAddr = text.parse().unwrap();
        assert_eq!(addr.to_string(), text);
        assert_eq!(EntityAddr::from_bytes(&addr.to_bytes(Features::PACIFIC)), Ok(addr));
        let legacy = addr.to_bytes(Features(0));
        assert_eq!(legacy.len(), 136);
        assert_eq!(EntityAddr::from_bytes(&legacy).unwrap().to_string(), legacy_text);
        let vec = EntityAddrVec(vec![addr, EntityAddr::default()]);
        assert_eq!(EntityAddrVec::from_bytes(&vec.to_bytes(Features::PACIFIC)), Ok(vec.clone()));
        assert_eq!(vec.to_bytes(Features(0)), vec.legacy().to_bytes(Features(0)));
    }

    #[test]
    fn both_forms_round_trip() {
        check("v2:127.0.0.1:3300/7", "v1:127.0.0.1:3300/7");
        check("v1:[fe80::1]:6789/0", "v1:[fe80::1]:6789/0");
        check("any:10.0.0.1:0/42", "v1:10.0.0.1:0/42");
    }

    #[test]
    fn lists_parse() {
        let vec: EntityAddrVec = "[v2:1.2.3.4:3300/0,v1:1.2.3.4:6789/0]".parse().unwrap();
        assert_eq!(vec.to_string(), "[v2:1.2.3.4:3300/0,v1:1.2.3.4:6789/0]");
        assert_eq!(vec.legacy().to_string(), "v1:1.2.3.4:6789/0");
        let bare: EntityAddrVec = "[::1]:40000".parse().unwrap();
        assert_eq!(bare.to_string(), "any:[::1]:40000/0");
        assert!("localhost".parse::<EntityAddrVec>().is_err());
    }

    #[test]
    fn a_foreign_family_is_refused() {
        let mut bytes = "v2:1.2.3.4:1/0".parse::<EntityAddr>().unwrap().to_bytes(Features::PACIFIC);
        bytes[19] = 1;
        assert!(matches!(EntityAddr::from_bytes(&bytes), Err(DecodeError::Invalid { .. })));
    }
}
