//! Primitive encodings: little-endian integers, length-prefixed strings and containers, and the
//! versioned struct envelope (`u8` version, `u8` compat, `u32` length).
//!
//! Source of the format: Ceph's `include/encoding.h` (`ENCODE_START` and friends).
//!
//! Invariants: a [`Reader`] never reads past its slice; a container allocates only after its count
//! was checked against the bytes that remain.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

/// Feature bits that the receiver of an encoding announced; some layouts depend on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Features(pub u64);

impl Features {
    /// Every bit that a Pacific (v16) daemon sets, as seen in a captured SERVER_IDENT.
    pub const PACIFIC: Self = Self(0x3f01_cfbd_fffd_ffff);

    pub fn has(self, mask: u64) -> bool {
        self.0 & mask == mask
    }
}

/// Why bytes could not be decoded. The sender is always at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("{what}: needs {needed} bytes, {remaining} remain")]
    Truncated { what: &'static str, needed: usize, remaining: usize },
    #[error("{what}: compat version {compat} is above the supported {supported}")]
    Incompatible { what: &'static str, compat: u8, supported: u8 },
    #[error("{what}: version {version} is below the oldest supported {oldest}")]
    TooOld { what: &'static str, version: u8, oldest: u8 },
    #[error("{what}: invalid value {value}")]
    Invalid { what: &'static str, value: u64 },
    #[error("{what}: not valid UTF-8")]
    Utf8 { what: &'static str },
}

/// A value with a Ceph encoding.
pub trait Encode {
    fn encode(&self, out: &mut Vec<u8>, features: Features);

    fn to_bytes(&self, features: Features) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out, features);
        out
    }
}

/// A value that can be read back from its Ceph encoding.
pub trait Decode: Sized {
    /// The fewest bytes an encoding can have: bounds what a hostile count may allocate.
    const MIN_SIZE: usize = 1;

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// Decodes from `bytes`, ignoring what follows.
    fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::decode(&mut Reader::new(bytes))
    }
}

/// A versioned struct whose contents nobody here looks at: kept as bytes, to be sent on unchanged.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Opaque {
    pub version: u8,
    pub compat: u8,
    pub body: Bytes,
}

impl Encode for Opaque {
    fn encode(&self, out: &mut Vec<u8>, _: Features) {
        encode_versioned(out, self.version, self.compat, |out| out.extend_from_slice(&self.body));
    }
}
impl Decode for Opaque {
    const MIN_SIZE: usize = 6;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { version: r.u8()?, compat: r.u8()?, body: Bytes::decode(r)? })
    }
}

/// A cursor over untrusted bytes.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The bytes not read yet, without consuming them.
    pub fn peek(&self) -> &'a [u8] {
        self.rest
    }

    /// Takes `n` bytes.
    pub fn take(&mut self, n: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        match self.rest.split_at_checked(n) {
            Some((head, tail)) => {
                self.rest = tail;
                Ok(head)
            }
            None => Err(DecodeError::Truncated { what, needed: n, remaining: self.rest.len() }),
        }
    }

    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N, what)?);
        Ok(out)
    }

    pub fn skip(&mut self, n: usize, what: &'static str) -> Result<(), DecodeError> {
        self.take(n, what).map(|_| ())
    }

    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>("u8").map(|b| b[0])
    }

    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array("u16").map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array("u32").map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array("u64").map(u64::from_le_bytes)
    }

    pub fn i32(&mut self) -> Result<i32, DecodeError> {
        self.array("i32").map(i32::from_le_bytes)
    }

    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array("i64").map(i64::from_le_bytes)
    }

    /// Reads a `u32` count whose elements take at least `min_size` bytes each.
    pub fn count(&mut self, min_size: usize, what: &'static str) -> Result<usize, DecodeError> {
        let n = self.u32()? as usize;
        let needed = n.saturating_mul(min_size);
        if needed > self.rest.len() {
            return Err(DecodeError::Truncated { what, needed, remaining: self.rest.len() });
        }
        Ok(n)
    }

    /// Reads a `u32` length and that many bytes (Ceph's `bufferlist` and `string`).
    pub fn blob(&mut self, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let n = self.u32()? as usize;
        self.take(n, what)
    }

    /// Reads a versioned struct: `body` gets the struct version and a reader limited to the
    /// struct's length; a tail that a newer sender appended is skipped.
    pub fn versioned<T>(
        &mut self,
        what: &'static str,
        supported: u8,
        body: impl FnOnce(u8, &mut Reader<'a>) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        let version = self.u8()?;
        let compat = self.u8()?;
        if compat > supported {
            return Err(DecodeError::Incompatible { what, compat, supported });
        }
        let mut inner = Reader::new(self.blob(what)?);
        body(version, &mut inner)
    }
}

/// Appends a versioned struct envelope around what `body` writes.
pub fn encode_versioned(
    out: &mut Vec<u8>,
    version: u8,
    compat: u8,
    body: impl FnOnce(&mut Vec<u8>),
) {
    out.push(version);
    out.push(compat);
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let len = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&len.to_le_bytes());
}

macro_rules! int {
    ($($t:ty),*) => {$(
        impl Encode for $t {
            fn encode(&self, out: &mut Vec<u8>, _: Features) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        }
        impl Decode for $t {
            const MIN_SIZE: usize = size_of::<$t>();
            fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
                r.array(stringify!($t)).map(<$t>::from_le_bytes)
            }
        }
    )*};
}
int!(u8, i8, u16, i16, u32, i32, u64, i64, f32, f64);

impl Encode for bool {
    fn encode(&self, out: &mut Vec<u8>, _: Features) {
        out.push(u8::from(*self));
    }
}
impl Decode for bool {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(r.u8()? != 0)
    }
}

impl Encode for str {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        self.as_bytes().encode(out, f);
    }
}
impl Encode for String {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        self.as_bytes().encode(out, f);
    }
}
impl Decode for String {
    const MIN_SIZE: usize = 4;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let raw = r.blob("string")?;
        std::str::from_utf8(raw)
            .map(str::to_owned)
            .map_err(|_| DecodeError::Utf8 { what: "string" })
    }
}

/// A byte string behind its `u32` length.
impl Encode for [u8] {
    fn encode(&self, out: &mut Vec<u8>, _: Features) {
        out.extend_from_slice(&(self.len() as u32).to_le_bytes());
        out.extend_from_slice(self);
    }
}
impl Encode for Bytes {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        self.as_ref().encode(out, f);
    }
}
impl Decode for Bytes {
    const MIN_SIZE: usize = 4;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.blob("bytes").map(Bytes::copy_from_slice)
    }
}

impl<T: Encode + ?Sized> Encode for &T {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        (**self).encode(out, f);
    }
}

/// Arrays of fixed size carry no count.
impl<const N: usize> Encode for [u8; N] {
    fn encode(&self, out: &mut Vec<u8>, _: Features) {
        out.extend_from_slice(self);
    }
}
impl<const N: usize> Decode for [u8; N] {
    const MIN_SIZE: usize = N;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.array("byte array")
    }
}
impl<const N: usize> Encode for [u32; N] {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        self.iter().for_each(|v| v.encode(out, f));
    }
}
impl<const N: usize> Decode for [u32; N] {
    const MIN_SIZE: usize = 4 * N;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut out = [0; N];
        for v in &mut out {
            *v = r.u32()?;
        }
        Ok(out)
    }
}

impl<T: Encode> Encode for Vec<T> {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        (self.len() as u32).encode(out, f);
        self.iter().for_each(|v| v.encode(out, f));
    }
}
impl<T: Decode> Decode for Vec<T> {
    const MIN_SIZE: usize = 4;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let n = r.count(T::MIN_SIZE, "vector")?;
        // `min` because an element in memory may be far larger than on the wire.
        let mut out = Vec::with_capacity(n.min(1024));
        for _ in 0..n {
            out.push(T::decode(r)?);
        }
        Ok(out)
    }
}

/// `std::optional`: a presence byte, then the value.
impl<T: Encode> Encode for Option<T> {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        self.is_some().encode(out, f);
        if let Some(v) = self {
            v.encode(out, f);
        }
    }
}
impl<T: Decode> Decode for Option<T> {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if bool::decode(r)? { T::decode(r).map(Some) } else { Ok(None) }
    }
}

impl<K: Encode, V: Encode> Encode for BTreeMap<K, V> {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        (self.len() as u32).encode(out, f);
        for (k, v) in self {
            k.encode(out, f);
            v.encode(out, f);
        }
    }
}
impl<K: Decode + Ord, V: Decode> Decode for BTreeMap<K, V> {
    const MIN_SIZE: usize = 4;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let n = r.count(K::MIN_SIZE + V::MIN_SIZE, "map")?;
        let mut out = Self::new();
        for _ in 0..n {
            out.insert(K::decode(r)?, V::decode(r)?);
        }
        Ok(out)
    }
}

impl<T: Encode> Encode for BTreeSet<T> {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        (self.len() as u32).encode(out, f);
        self.iter().for_each(|v| v.encode(out, f));
    }
}
impl<T: Decode + Ord> Decode for BTreeSet<T> {
    const MIN_SIZE: usize = 4;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let n = r.count(T::MIN_SIZE, "set")?;
        (0..n).map(|_| T::decode(r)).collect()
    }
}

impl<A: Encode, B: Encode> Encode for (A, B) {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        self.0.encode(out, f);
        self.1.encode(out, f);
    }
}
impl<A: Decode, B: Decode> Decode for (A, B) {
    const MIN_SIZE: usize = A::MIN_SIZE + B::MIN_SIZE;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok((A::decode(r)?, B::decode(r)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const F: Features = Features::PACIFIC;

    #[test]
    fn round_trips() {
        let v: BTreeMap<String, Vec<u32>> =
            [("a".to_owned(), vec![1, 2]), ("b".to_owned(), vec![])].into();
        assert_eq!(BTreeMap::from_bytes(&v.to_bytes(F)), Ok(v));
    }

    #[test]
    fn a_hostile_count_is_refused_before_allocation() {
        let bytes = u32::MAX.to_bytes(F);
        assert!(matches!(Vec::<u64>::from_bytes(&bytes), Err(DecodeError::Truncated { .. })));
    }

    #[test]
    fn a_newer_tail_is_skipped_and_a_newer_compat_refused() {
        let mut out = Vec::new();
        encode_versioned(&mut out, 9, 2, |b| {
            7u32.encode(b, F);
            b.extend_from_slice(b"tail");
        });
        out.push(0xaa);
        let mut r = Reader::new(&out);
        assert_eq!(r.versioned("t", 2, |v, r| Ok((v, r.u32()?))), Ok((9, 7)));
        assert_eq!(r.u8(), Ok(0xaa));
        let refused = Reader::new(&out).versioned("t", 1, |_, r| r.u32());
        assert_eq!(refused, Err(DecodeError::Incompatible { what: "t", compat: 2, supported: 1 }));
    }
}
