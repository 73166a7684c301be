//! `BitVector<2>`: the state of each data object of an image in two bits, with checksums.
//!
//! ```text
//!  0  u32 14, then u8 1, u8 1, u32 8, u64 elements
//! 18  elements, four per byte, the first in the highest bits
//!     u32 length of what follows, which is absent where checksums are left out:
//!     u32 CRC of bytes 4 to 18, u32 blocks, u32 CRC of each block of 4096 bytes of elements
//! ```
//!
//! The CRC is CRC-32C with neither start value nor end inverted.

use bytes::Bytes;
use spirula_wire::denc::encode_versioned;
use spirula_wire::{DecodeError, Reader};

pub(super) const HEADER_LEN: u64 = 18;
pub(super) const BLOCK_LEN: u64 = 4096;
const PER_BYTE: u64 = 4;
const MASK: u8 = 3;

/// The whole of it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct BitVector {
    len: u64,
    data: Vec<u8>,
    without_crc: bool,
}

pub(super) fn crc(bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(!0, bytes)
}

/// Bytes that `len` elements take.
pub(super) fn data_len(len: u64) -> u64 {
    len.div_ceil(PER_BYTE)
}

/// Byte of element `i`, and how far it is shifted there.
fn place(i: u64) -> (u64, u32) {
    (i / PER_BYTE, (PER_BYTE - 1 - i % PER_BYTE) as u32 * 2)
}

/// The byte that holds element `i`.
pub(super) fn byte_of(i: u64) -> u64 {
    place(i).0
}

/// Element `i` of elements whose first byte is byte `base` of all.
pub(super) fn get(data: &[u8], base: u64, i: u64) -> u8 {
    let (byte, shift) = place(i);
    data[(byte - base) as usize] >> shift & MASK
}

pub(super) fn set(data: &mut [u8], base: u64, i: u64, value: u8) {
    let (byte, shift) = place(i);
    let at = &mut data[(byte - base) as usize];
    *at = *at & !(MASK << shift) | (value & MASK) << shift;
}

fn header(len: u64) -> Vec<u8> {
    let mut out = Vec::new();
    encode_versioned(&mut out, 1, 1, |out| out.extend_from_slice(&len.to_le_bytes()));
    out
}

/// Reads the header: the number of elements, and the header's CRC.
pub(super) fn read_header(r: &mut Reader<'_>) -> Result<(u64, u32), DecodeError> {
    let header = r.blob("bit vector header")?;
    let len = Reader::new(header).versioned("bit vector", 1, |_, r| r.u64())?;
    Ok((len, crc(header)))
}

/// Compares the checksums of header and data with those of the footer.
fn check(data: &[u8], header_crc: u32, footer: &mut Reader<'_>) -> Result<(), DecodeError> {
    let what = "checksum of a bit vector";
    let mut stored = vec![footer.u32()?];
    // The count says nothing that the length does not.
    footer.u32()?;
    while footer.remaining() >= 4 {
        stored.push(footer.u32()?);
    }
    let blocks = data.chunks(BLOCK_LEN as usize).map(crc);
    if std::iter::once(header_crc).chain(blocks).eq(stored.iter().copied()) {
        Ok(())
    } else {
        Err(DecodeError::Invalid { what, value: stored.len() as u64 })
    }
}

impl BitVector {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn get(&self, i: u64) -> u8 {
        get(&self.data, 0, i)
    }

    pub(super) fn set(&mut self, i: u64, value: u8) {
        set(&mut self.data, 0, i, value);
    }

    pub(super) fn set_crc(&mut self, enabled: bool) {
        self.without_crc = !enabled;
    }

    /// New elements get `value`.
    pub(super) fn resize(&mut self, len: u64, value: u8) {
        let whole = self.len.next_multiple_of(PER_BYTE).min(len);
        (self.len..whole).for_each(|i| self.set(i, value));
        self.data.resize(data_len(len) as usize, (value & MASK) * 0b0101_0101);
        // Unused bits of the last byte are zero when bytes were added.
        if len > whole {
            (len..len.next_multiple_of(PER_BYTE)).for_each(|i| self.set(i, 0));
        }
        self.len = len;
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        const WHAT: &str = "bit vector";
        let mut r = Reader::new(bytes);
        let (len, header_crc) = read_header(&mut r)?;
        let size = usize::try_from(data_len(len)).unwrap_or(usize::MAX);
        let data = r.take(size, WHAT)?;
        let footer = r.blob(WHAT)?;
        if !footer.is_empty() {
            check(data, header_crc, &mut Reader::new(footer))?;
        }
        Ok(Self { len, data: data.to_vec(), without_crc: footer.is_empty() })
    }

    pub(super) fn encode(&self) -> Bytes {
        let header = header(self.len);
        let mut out = Vec::with_capacity(self.data.len() + 64);
        out.extend_from_slice(&(header.len() as u32).to_le_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(&self.data);
        let mut footer = Vec::new();
        if !self.without_crc {
            let blocks = self.data.chunks(BLOCK_LEN as usize);
            footer.extend_from_slice(&crc(&header).to_le_bytes());
            footer.extend_from_slice(&(blocks.len() as u32).to_le_bytes());
            blocks.for_each(|block| footer.extend_from_slice(&crc(block).to_le_bytes()));
        }
        out.extend_from_slice(&(footer.len() as u32).to_le_bytes());
        out.extend_from_slice(&footer);
        out.into()
    }
}
