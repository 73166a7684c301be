//! CHECKSUM: checksums of an object's data in chunks, with the client's start value.

use bytes::Bytes;
use spirula_wire::msg::ops::OpArgs;
use spirula_wire::msg::ops::checksum_type::{CRC32C, XXHASH32, XXHASH64};
use spirula_wire::msg::osd_op::OsdOpResult;
use spirula_wire::{Encode, Features};

use super::cut::Cut;
use super::{Run, Step, err, ok};
use crate::errno::*;
use crate::view::ObjectView;

impl<V: ObjectView> Run<'_, V> {
    pub(super) fn checksum(&mut self, input: &Bytes, out: &mut OsdOpResult) -> Step<V::Missing> {
        let OpArgs::Checksum { offset, length: asked, chunk_size, type_ } = out.args else {
            return err(EINVAL);
        };
        let chunk = u64::from(chunk_size);
        if chunk > 0 && (asked == 0 || !asked.is_multiple_of(chunk)) {
            return err(EINVAL);
        }
        let mut length = asked;
        if offset == 0 && asked == 0 {
            length = self.info.size;
        } else if offset >= self.info.size {
            return ok();
        } else if asked > self.info.size - offset {
            length = self.info.size - offset;
            if chunk > 0 && !length.is_multiple_of(chunk) {
                return err(EINVAL);
            }
        }
        let mut input = Cut::new(input);
        let seed = match type_ {
            XXHASH32 | CRC32C => u64::from(input.u32()?),
            XXHASH64 => input.u64()?,
            _ => return err(EINVAL),
        };
        let data = if length == 0 {
            Bytes::new()
        } else {
            self.view.read(offset, length)?.concat().into()
        };
        self.count_read(length);
        let chunk = if chunk == 0 { data.len() } else { chunk as usize };
        let chunks = data.len().checked_div(chunk).unwrap_or(0);
        let mut raw = (chunks as u32).to_bytes(Features::PACIFIC);
        for piece in data.chunks_exact(chunk.max(1)) {
            match type_ {
                XXHASH32 => raw.extend_from_slice(&xxh32(piece, seed as u32).to_le_bytes()),
                XXHASH64 => raw.extend_from_slice(&xxh64(piece, seed).to_le_bytes()),
                // Ceph's CRC has no inversion before and after.
                _ => {
                    let crc = !crc32c::crc32c_append(!(seed as u32), piece);
                    raw.extend_from_slice(&crc.to_le_bytes());
                }
            }
        }
        out.outdata = vec![raw.into()];
        ok()
    }
}

const P32: [u32; 5] = [0x9e37_79b1, 0x85eb_ca77, 0xc2b2_ae3d, 0x27d4_eb2f, 0x1656_67b1];
const P64: [u64; 5] = [
    0x9e37_79b1_85eb_ca87,
    0xc2b2_ae3d_27d4_eb4f,
    0x1656_67b1_9e37_79f9,
    0x85eb_ca77_c2b2_ae63,
    0x27d4_eb2f_1656_67c5,
];

/// XXH32 as its specification gives it.
fn xxh32(data: &[u8], seed: u32) -> u32 {
    let word = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    let round = |acc: u32, b: &[u8]| {
        acc.wrapping_add(word(b).wrapping_mul(P32[1])).rotate_left(13).wrapping_mul(P32[0])
    };
    let stripes = data.chunks_exact(16);
    let rest = stripes.remainder();
    let mut h = if data.len() < 16 {
        seed.wrapping_add(P32[4])
    } else {
        let start = seed.wrapping_add(P32[0]);
        let mut acc = [
            start.wrapping_add(P32[1]),
            seed.wrapping_add(P32[1]),
            seed,
            seed.wrapping_sub(P32[0]),
        ];
        for stripe in stripes {
            for (acc, lane) in acc.iter_mut().zip(stripe.chunks_exact(4)) {
                *acc = round(*acc, lane);
            }
        }
        let turns = [1, 7, 12, 18];
        acc.iter().zip(turns).fold(0u32, |h, (a, t)| h.wrapping_add(a.rotate_left(t)))
    };
    h = h.wrapping_add(data.len() as u32);
    let words = rest.chunks_exact(4);
    let tail = words.remainder();
    for w in words {
        h = h.wrapping_add(word(w).wrapping_mul(P32[2])).rotate_left(17).wrapping_mul(P32[3]);
    }
    for &b in tail {
        h = h.wrapping_add(u32::from(b).wrapping_mul(P32[4])).rotate_left(11).wrapping_mul(P32[0]);
    }
    h = (h ^ (h >> 15)).wrapping_mul(P32[1]);
    h = (h ^ (h >> 13)).wrapping_mul(P32[2]);
    h ^ (h >> 16)
}

/// XXH64 as its specification gives it.
fn xxh64(data: &[u8], seed: u64) -> u64 {
    let word = |b: &[u8]| u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
    let round = |acc: u64, lane: u64| {
        acc.wrapping_add(lane.wrapping_mul(P64[1])).rotate_left(31).wrapping_mul(P64[0])
    };
    let stripes = data.chunks_exact(32);
    let rest = stripes.remainder();
    let mut h = if data.len() < 32 {
        seed.wrapping_add(P64[4])
    } else {
        let start = seed.wrapping_add(P64[0]);
        let mut acc = [
            start.wrapping_add(P64[1]),
            seed.wrapping_add(P64[1]),
            seed,
            seed.wrapping_sub(P64[0]),
        ];
        for stripe in stripes {
            for (acc, lane) in acc.iter_mut().zip(stripe.chunks_exact(8)) {
                *acc = round(*acc, word(lane));
            }
        }
        let turns = [1, 7, 12, 18];
        let sum = acc.iter().zip(turns).fold(0u64, |h, (a, t)| h.wrapping_add(a.rotate_left(t)));
        acc.iter().fold(sum, |h, a| (h ^ round(0, *a)).wrapping_mul(P64[0]).wrapping_add(P64[3]))
    };
    h = h.wrapping_add(data.len() as u64);
    let words = rest.chunks_exact(8);
    let mut tail = words.remainder();
    for w in words {
        h = (h ^ round(0, word(w))).rotate_left(27).wrapping_mul(P64[0]).wrapping_add(P64[3]);
    }
    if let Some((half, after)) = tail.split_first_chunk::<4>() {
        let half = u64::from(u32::from_le_bytes(*half));
        h = (h ^ half.wrapping_mul(P64[0])).rotate_left(23).wrapping_mul(P64[1]);
        h = h.wrapping_add(P64[2]);
        tail = after;
    }
    for &b in tail {
        h = (h ^ u64::from(b).wrapping_mul(P64[4])).rotate_left(11).wrapping_mul(P64[0]);
    }
    h = (h ^ (h >> 33)).wrapping_mul(P64[1]);
    h = (h ^ (h >> 29)).wrapping_mul(P64[2]);
    h ^ (h >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_match_published_vectors() {
        assert_eq!(xxh32(b"", 0), 0x02cc_5d05);
        assert_eq!(xxh32(b"a", 0), 0x550d_7456);
        assert_eq!(xxh32(b"Nobody inspects the spammish repetition", 0), 0xe229_3b2f);
        assert_eq!(xxh64(b"", 0), 0xef46_db37_51d8_e999);
        assert_eq!(xxh64(b"a", 0), 0xd24e_c4f1_a98c_6e5b);
        assert_eq!(xxh64(b"Nobody inspects the spammish repetition", 0), 0xfbce_a83c_8a37_8bf1);
    }
}
