//! The small encoding used inside entries and records: little-endian integers, varints, byte strings.
//!
//! Invariant: a [`Reader`] never panics and never allocates by a length it has not checked.

use bytes::Bytes;

/// The bytes do not decode.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed entry")]
pub(crate) struct Malformed;

/// Every byte, for keys of one.
static SINGLES: [u8; 256] = {
    let mut all = [0; 256];
    let mut i = 0;
    while i < 256 {
        all[i] = i as u8;
        i += 1;
    }
    all
};

/// A copy of a key. Many dkeys and akeys are one byte: those cost no memory and no counting of references.
pub(crate) fn key_of(key: &[u8]) -> Bytes {
    one_byte(key).unwrap_or_else(|| Bytes::copy_from_slice(key))
}

fn one_byte(key: &[u8]) -> Option<Bytes> {
    match key {
        [byte] => Some(Bytes::from_static(std::slice::from_ref(&SINGLES[usize::from(*byte)]))),
        _ => None,
    }
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push((v & 0x7f) as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

pub(crate) fn put_u64(out: &mut Vec<u8>, v: u64) {
    out.extend_from_slice(&v.to_le_bytes());
}

pub(crate) fn put_u32(out: &mut Vec<u8>, v: u32) {
    out.extend_from_slice(&v.to_le_bytes());
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, b: &[u8]) {
    put_varint(out, b.len() as u64);
    out.extend_from_slice(b);
}

/// Reads from shared bytes; byte strings come out as slices of them.
pub(crate) struct Reader {
    bytes: Bytes,
    at: usize,
}

impl Reader {
    pub(crate) fn new(bytes: Bytes) -> Reader {
        Reader { bytes, at: 0 }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        let b = *self.bytes.get(self.at).ok_or(Malformed)?;
        self.at += 1;
        Ok(b)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let end = self.at.checked_add(N).ok_or(Malformed)?;
        let slice = self.bytes.get(self.at..end).ok_or(Malformed)?;
        self.at = end;
        slice.try_into().map_err(|_| Malformed)
    }

    pub(crate) fn varint(&mut self) -> Result<u64, Malformed> {
        let mut v = 0u64;
        for shift in (0..64).step_by(7) {
            let b = self.u8()?;
            if shift == 63 && b > 1 {
                return Err(Malformed);
            }
            v |= u64::from(b & 0x7f) << shift;
            if b & 0x80 == 0 {
                return Ok(v);
            }
        }
        Err(Malformed)
    }

    /// A varint that must fit `T`.
    pub(crate) fn int<T: TryFrom<u64>>(&mut self) -> Result<T, Malformed> {
        T::try_from(self.varint()?).map_err(|_| Malformed)
    }

    /// A count of things that take at least `each` bytes.
    pub(crate) fn count(&mut self, each: usize) -> Result<usize, Malformed> {
        let n: usize = self.int()?;
        if n.checked_mul(each.max(1)).is_none_or(|total| total > self.remaining()) {
            return Err(Malformed);
        }
        Ok(n)
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<Bytes, Malformed> {
        if len > self.remaining() {
            return Err(Malformed);
        }
        let out = self.bytes.slice(self.at..self.at + len);
        self.at += len;
        Ok(out)
    }

    pub(crate) fn bytes(&mut self) -> Result<Bytes, Malformed> {
        let len: usize = self.int()?;
        let taken = self.take(len)?;
        Ok(one_byte(&taken).unwrap_or(taken))
    }
}
