//! CRC-32C as the messenger uses it, and the per-chunk checksums that are computed on the way.
//!
//! Ceph's `ceph_crc32c(seed, data)` is the bare CRC register: no inversion on the way in or out.
//! Frame segments use seed -1, so a segment's frame CRC is the bitwise complement of the standard
//! CRC-32C of its bytes; the preamble uses seed 0.
//!
//! Invariant: the data segment is read once. Its chunk checksums are combined into the frame CRC.

use crc32c::{crc32c, crc32c_append};
pub use spirula_crc::CHUNK_LEN;
use spirula_crc::append_chunk;

/// `ceph_crc32c`.
pub fn ceph_crc32c(seed: u32, data: &[u8]) -> u32 {
    !crc32c_append(!seed, data)
}

/// The CRC of a frame segment.
pub(crate) fn segment_crc(data: &[u8]) -> u32 {
    !crc32c(data)
}

/// The CRC of a frame segment made of several pieces.
pub(crate) fn gather_crc<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    !pieces.into_iter().fold(0, crc32c_append)
}

/// Checksums of a data segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DataCrc {
    /// Standard CRC-32C of each [`CHUNK_LEN`] bytes, the last chunk being the rest.
    pub(crate) chunks: Vec<u32>,
    /// The frame CRC of the whole.
    pub(crate) segment: u32,
}

impl DataCrc {
    pub(crate) fn of(data: &[u8]) -> Self {
        let mut chunks = Vec::with_capacity(data.len().div_ceil(CHUNK_LEN));
        let mut whole = 0;
        for chunk in data.chunks(CHUNK_LEN) {
            let crc = crc32c(chunk);
            whole = match (chunks.is_empty(), chunk.len()) {
                (true, _) => crc,
                (false, CHUNK_LEN) => append_chunk(whole, crc),
                // The rest is shorter than a chunk: reading it again is cheaper than a general
                // combine.
                (false, _) => crc32c_append(whole, chunk),
            };
            chunks.push(crc);
        }
        Self { chunks, segment: !whole }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seedless_vector_of_ceph() {
        // `ceph_crc32c(0, "foo bar baz")` of Ceph's own unit test.
        assert_eq!(ceph_crc32c(0, b"foo bar baz"), 4_119_623_852);
        assert_eq!(ceph_crc32c(1234, b"foo bar baz"), 881_700_046);
    }

    #[test]
    fn chunks_combine_into_the_segment_crc() {
        let data: Vec<u8> = (0..40_000u32).map(|i| ((i * 7) >> 3) as u8).collect();
        for len in [0, 1, 4095, 4096, 4097, 8192, 12_288, 12_289, 40_000] {
            let got = DataCrc::of(&data[..len]);
            assert_eq!(got.segment, ceph_crc32c(u32::MAX, &data[..len]), "{len}");
            let want: Vec<u32> = data[..len].chunks(CHUNK_LEN).map(crc32c).collect();
            assert_eq!(got.chunks, want, "{len}");
        }
    }

    #[test]
    fn a_gather_list_has_the_crc_of_its_concatenation() {
        assert_eq!(gather_crc([&b"foo "[..], b"", b"bar"]), segment_crc(b"foo bar"));
        assert_eq!(gather_crc([]), u32::MAX);
    }
}
