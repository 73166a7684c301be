//! Times, versions, UUIDs and placement group ids.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::{Decode, DecodeError, Denc, Encode, Features, Reader};

/// `utime_t`: seconds and nanoseconds, of a clock or of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Denc)]
pub struct UTime {
    pub sec: u32,
    pub nsec: u32,
}

impl From<Duration> for UTime {
    fn from(d: Duration) -> Self {
        Self { sec: u32::try_from(d.as_secs()).unwrap_or(u32::MAX), nsec: d.subsec_nanos() }
    }
}

impl From<UTime> for Duration {
    fn from(t: UTime) -> Self {
        Self::new(t.sec.into(), 0) + Self::from_nanos(t.nsec.into())
    }
}

/// A UUID in the order in which it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Denc)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    pub fn is_zero(&self) -> bool {
        self.0 == [0; 16]
    }

    /// A version 4 UUID from 16 random bytes.
    pub fn from_random(mut bytes: [u8; 16]) -> Self {
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(bytes)
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl FromStr for Uuid {
    type Err = DecodeError;
    fn from_str(s: &str) -> Result<Self, DecodeError> {
        let bad = || DecodeError::Invalid { what: "UUID text", value: s.len() as u64 };
        let dashes_ok = s.len() == 36
            && s.bytes().enumerate().all(|(i, b)| (b == b'-') == matches!(i, 8 | 13 | 18 | 23));
        let hex: Vec<u8> = s.bytes().filter(|b| *b != b'-').collect();
        if !dashes_ok || !hex.iter().all(u8::is_ascii_hexdigit) {
            return Err(bad());
        }
        let mut out = [0; 16];
        for (byte, pair) in out.iter_mut().zip(hex.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| bad())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| bad())?;
        }
        Ok(Self(out))
    }
}

/// `eversion_t`: a write's place in its PG. Ordered by epoch, then version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Denc)]
pub struct EVersion {
    pub version: u64,
    pub epoch: u32,
}

impl EVersion {
    pub fn new(epoch: u32, version: u64) -> Self {
        Self { version, epoch }
    }
}

impl Ord for EVersion {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.epoch, self.version).cmp(&(other.epoch, other.version))
    }
}

impl PartialOrd for EVersion {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for EVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}'{}", self.epoch, self.version)
    }
}

/// `pg_t`: a placement group (raw: the seed may be a whole hash).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PgId {
    pub pool: i64,
    pub seed: u32,
}

impl PgId {
    pub fn new(pool: i64, seed: u32) -> Self {
        Self { pool, seed }
    }
}

/// Version byte, pool, seed, and the "preferred OSD" that no release uses any more.
impl Encode for PgId {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        out.push(1);
        self.pool.encode(out, f);
        self.seed.encode(out, f);
        (-1i32).encode(out, f);
    }
}

impl Decode for PgId {
    const MIN_SIZE: usize = 17;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.skip(1, "pg_t version")?;
        let (pool, seed) = (r.i64()?, r.u32()?);
        r.skip(4, "pg_t preferred")?;
        Ok(Self { pool, seed })
    }
}

impl fmt::Display for PgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:x}", self.pool, self.seed)
    }
}

/// The text is not `pool.seed` (seed in hex).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a placement group id: {0:?}")]
pub struct PgParseError(pub String);

impl FromStr for PgId {
    type Err = PgParseError;
    fn from_str(s: &str) -> Result<Self, PgParseError> {
        s.split_once('.')
            .and_then(|(pool, seed)| {
                Some(Self { pool: pool.parse().ok()?, seed: u32::from_str_radix(seed, 16).ok()? })
            })
            .ok_or_else(|| PgParseError(s.to_owned()))
    }
}

/// `shard_id_t`: the position in an erasure-coded PG, or [`ShardId::NONE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Denc)]
pub struct ShardId(pub i8);

impl ShardId {
    pub const NONE: Self = Self(-1);
}

impl Default for ShardId {
    fn default() -> Self {
        Self::NONE
    }
}

/// `spg_t`: a PG and the shard of it that is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Denc)]
#[denc(version = 1, compat = 1)]
pub struct SpgId {
    pub pgid: PgId,
    pub shard: ShardId,
}

impl SpgId {
    /// The only shard of a replicated PG.
    pub fn whole(pgid: PgId) -> Self {
        Self { pgid, shard: ShardId::NONE }
    }
}

impl fmt::Display for SpgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pgid.fmt(f)?;
        if self.shard == ShardId::NONE { Ok(()) } else { write!(f, "s{}", self.shard.0) }
    }
}

/// `pg_shard_t`: which OSD holds which shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Denc)]
#[denc(version = 1, compat = 1)]
pub struct PgShard {
    pub osd: i32,
    pub shard: ShardId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_exact() {
        let f = Features::PACIFIC;
        assert_eq!(EVersion::new(2, 1).to_bytes(f), [1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]);
        let spg = SpgId::whole(PgId::new(3, 7));
        let bytes = spg.to_bytes(f);
        assert_eq!(bytes[..7], [1, 1, 18, 0, 0, 0, 1]);
        assert_eq!(bytes[bytes.len() - 5..], [0xff; 5]);
        assert_eq!(SpgId::from_bytes(&bytes), Ok(spg));
    }

    #[test]
    fn text_forms() {
        assert_eq!("2.1f".parse::<PgId>().unwrap(), PgId::new(2, 0x1f));
        assert_eq!(PgId::new(2, 0x1f).to_string(), "2.1f");
        assert!("2".parse::<PgId>().is_err());
        let text = "00112233-4455-6677-8899-aabbccddeeff";
        assert_eq!(text.parse::<Uuid>().unwrap().to_string(), text);
        assert!("00112233-4455-6677-8899-aabbccddeef".parse::<Uuid>().is_err());
        assert!(EVersion::new(1, 9) < EVersion::new(2, 1));
    }
}
