//! The checksum inside a map's encoding: CRC-32C over all bytes but the checksum's own four.
//!
//! Invariant: a map whose checksum does not fit is never taken.

use spirula_wire::DecodeError;

/// CRC-32C as Ceph computes it: seeded with all ones, not inverted at the end.
pub(crate) fn around(bytes: &[u8], hole: usize) -> u32 {
    let head = crc32c::crc32c(&bytes[..hole]);
    !crc32c::crc32c_append(head, &bytes[hole + 4..])
}

/// Computes the checksum of `bytes`, writes it at `hole` and returns it.
pub(crate) fn fill(bytes: &mut [u8], hole: usize) -> u32 {
    let crc = around(bytes, hole);
    bytes[hole..hole + 4].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// Whether the checksum at `hole` fits.
pub(crate) fn check(bytes: &[u8], hole: usize, what: &'static str) -> Result<(), DecodeError> {
    let (_, rest) = bytes.split_at(hole);
    match rest.first_chunk() {
        Some(stored) if u32::from_le_bytes(*stored) == around(bytes, hole) => Ok(()),
        _ => Err(DecodeError::Invalid { what, value: around(bytes, hole).into() }),
    }
}
