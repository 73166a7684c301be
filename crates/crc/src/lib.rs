//! CRC-32C of data whose 4 KiB chunks have known checksums, without reading the data again.
//!
//! A chunk of data is checksummed once, where it comes in, from the network or the device; the
//! checksum of a whole frame or object is put together from those of its chunks.
//! Invariant: values are standard CRC-32C (Castagnoli, inverted on the way in and out).
#![forbid(unsafe_code)]

/// Bytes that the checksum of a chunk covers.
pub const CHUNK_LEN: usize = 4096;

/// The checksum of some bytes followed by a whole chunk, from the checksums of both. That of no
/// bytes is 0.
pub fn append_chunk(crc: u32, chunk: u32) -> u32 {
    SHIFT_CHUNK.apply(crc) ^ chunk
}

/// The linear operator "append [`CHUNK_LEN`] zero bytes" on a CRC, as four byte-indexed tables.
struct Shift([[u32; 256]; 4]);

static SHIFT_CHUNK: Shift = Shift::by_zeros(CHUNK_LEN);

impl Shift {
    const POLYNOMIAL: u32 = 0x82f6_3b78;

    /// `zeros` is a power of two.
    const fn by_zeros(zeros: usize) -> Self {
        // The operator "append one zero bit" as a matrix of 32 columns.
        let mut matrix = [0u32; 32];
        matrix[0] = Self::POLYNOMIAL;
        let mut i = 1;
        while i < 32 {
            matrix[i] = 1 << (i - 1);
            i += 1;
        }
        // Squaring it doubles the number of bits.
        let mut bits = 1;
        while bits < zeros * 8 {
            let mut square = [0u32; 32];
            let mut i = 0;
            while i < 32 {
                square[i] = Self::times(&matrix, matrix[i]);
                i += 1;
            }
            matrix = square;
            bits *= 2;
        }
        let mut tables = [[0u32; 256]; 4];
        let mut byte = 0;
        while byte < 4 {
            let mut value = 0;
            while value < 256 {
                tables[byte][value] = Self::times(&matrix, (value as u32) << (8 * byte));
                value += 1;
            }
            byte += 1;
        }
        Self(tables)
    }

    const fn times(matrix: &[u32; 32], vector: u32) -> u32 {
        let mut sum = 0;
        let mut i = 0;
        while i < 32 {
            if vector >> i & 1 == 1 {
                sum ^= matrix[i];
            }
            i += 1;
        }
        sum
    }

    fn apply(&self, crc: u32) -> u32 {
        let [a, b, c, d] = crc.to_le_bytes();
        self.0[0][a as usize]
            ^ self.0[1][b as usize]
            ^ self.0[2][c as usize]
            ^ self.0[3][d as usize]
    }
}

#[cfg(test)]
mod tests {
    use crc32c::{crc32c, crc32c_append};

    use super::*;

    #[test]
    fn chunks_combine_into_the_whole() {
        let data: Vec<u8> = (0..40_000u32).map(|i| ((i * 7) >> 3) as u8).collect();
        for chunks in 0..9 {
            let (whole, rest) = data.split_at(chunks * CHUNK_LEN);
            let crc = whole.chunks(CHUNK_LEN).map(crc32c).fold(0, append_chunk);
            assert_eq!(crc, crc32c(whole), "{chunks}");
            assert_eq!(crc32c_append(crc, rest), crc32c(&data), "{chunks}");
        }
    }
}
