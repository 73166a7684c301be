//! The WAL region: a ring of batches, each the records of one group commit, written in one go.
//!
//! A batch begins on a block, does not cross the end of the region (the next one is then at its
//! start), and carries the generation of the opening that wrote it and the next number. The checksum
//! of a record covers both, so that no old block can pass for part of a newer batch.
//! Invariant: a batch is written only after the one before it is durable, so only the last one found
//! can be torn or lack its data.

use bytes::Bytes;

use spirula_xstream::AlignedBuf;

use crate::superblock::BLOCK;

/// Bytes before the first record of a batch.
pub const HEADER_LEN: usize = 64;
/// Bytes before each record.
pub const RECORD_HEADER_LEN: usize = 8;
/// Records beyond this size wait for the next batch.
pub const BATCH_BYTES_MAX: usize = 1 << 20;

const MAGIC: [u8; 4] = *b"SWAL";
const FORMAT: u32 = 1;

/// The header of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchHeader {
    /// Changes at every opening of the store.
    pub generation: u64,
    /// One more than that of the batch before.
    pub number: u64,
    /// Bytes of records after the header.
    pub body_len: u32,
    /// Number of records.
    pub count: u32,
}

impl BatchHeader {
    /// Reads a header; `None` if there is none.
    pub fn decode(bytes: &[u8]) -> Option<BatchHeader> {
        let (body, crc) = bytes.get(..HEADER_LEN)?.split_at(HEADER_LEN - 4);
        let sound = body.starts_with(&MAGIC)
            && body[4..8] == FORMAT.to_le_bytes()
            && crc == crc32c::crc32c(body).to_le_bytes();
        sound.then(|| BatchHeader {
            generation: u64_at(body, 8),
            number: u64_at(body, 16),
            body_len: u32_at(body, 24),
            count: u32_at(body, 28),
        })
    }

    /// Bytes of the whole batch in the region.
    pub fn batch_len(&self) -> u64 {
        (HEADER_LEN as u64 + u64::from(self.body_len)).div_ceil(BLOCK) * BLOCK
    }

    /// The intact records at the front of `body`, and whether that is all of them.
    pub fn records(&self, body: &Bytes) -> (Vec<Bytes>, bool) {
        let seed = record_seed(self.generation, self.number);
        let (mut out, mut at) = (Vec::new(), 0usize);
        for _ in 0..self.count {
            let Some(head) = body.get(at..at + RECORD_HEADER_LEN) else {
                return (out, false);
            };
            let (len, crc) = (u32_at(head, 0) as usize, u32_at(head, 4));
            let start = at + RECORD_HEADER_LEN;
            let Some(end) = start.checked_add(len).filter(|&e| e <= body.len()) else {
                return (out, false);
            };
            if crc32c::crc32c_append(seed, &body[start..end]) != crc {
                return (out, false);
            }
            out.push(body.slice(start..end));
            at = end;
        }
        (out, true)
    }
}

/// Bytes a batch of records of these sizes takes.
pub fn batch_len(records: impl Iterator<Item = usize>) -> u64 {
    let body: usize = records.map(|len| len + RECORD_HEADER_LEN).sum();
    ((HEADER_LEN + body) as u64).div_ceil(BLOCK) * BLOCK
}

/// Puts a batch together; its length is what [`batch_len`] says.
pub fn encode_batch<'a>(
    generation: u64,
    number: u64,
    records: impl Iterator<Item = &'a [u8]> + Clone,
) -> AlignedBuf {
    let total = batch_len(records.clone().map(<[u8]>::len)) as usize;
    let mut out = AlignedBuf::with_capacity(total);
    let (mut body_len, mut count) = (0u32, 0u32);
    for record in records.clone() {
        body_len += (record.len() + RECORD_HEADER_LEN) as u32;
        count += 1;
    }
    let mut header = [0; HEADER_LEN];
    header[..4].copy_from_slice(&MAGIC);
    header[4..8].copy_from_slice(&FORMAT.to_le_bytes());
    header[8..16].copy_from_slice(&generation.to_le_bytes());
    header[16..24].copy_from_slice(&number.to_le_bytes());
    header[24..28].copy_from_slice(&body_len.to_le_bytes());
    header[28..32].copy_from_slice(&count.to_le_bytes());
    let crc = crc32c::crc32c(&header[..HEADER_LEN - 4]);
    header[HEADER_LEN - 4..].copy_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&header);
    let seed = record_seed(generation, number);
    for record in records {
        out.extend_from_slice(&(record.len() as u32).to_le_bytes());
        out.extend_from_slice(&crc32c::crc32c_append(seed, record).to_le_bytes());
        out.extend_from_slice(record);
    }
    out.resize(total, 0);
    out
}

/// Where the writer is in the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ring {
    bytes: u64,
    head: u64,
    used: u64,
    /// End of the highest batch so far.
    reached: u64,
}

impl Ring {
    /// A ring of `bytes` with nothing in it, to be written from `offset` on.
    pub fn new(bytes: u64, offset: u64) -> Ring {
        Ring { bytes, reached: offset, head: offset, used: 0 }
    }

    /// Where the next batch goes if it fits, and the space it takes with what it skips.
    fn fit(&self, len: u64) -> (u64, u64) {
        match self.bytes - self.head >= len {
            true => (self.head, len),
            false => (0, self.bytes - self.head + len),
        }
    }

    /// Whether a batch of `len` bytes has room.
    pub fn has_room(&self, len: u64) -> bool {
        self.used + self.fit(len).1 <= self.bytes
    }

    /// Takes room for a batch; its offset in the region.
    pub fn advance(&mut self, len: u64) -> u64 {
        let (offset, taken) = self.fit(len);
        self.used += taken;
        self.head = offset + len;
        self.reached = self.reached.max(self.head);
        if self.head == self.bytes {
            self.head = 0;
        }
        offset
    }

    /// Where the next batch is expected to begin (a batch that does not fit there is at 0).
    pub fn head(&self) -> u64 {
        self.head
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Size of the ring.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Up to where anything was ever written.
    pub fn reached(&self) -> u64 {
        self.reached
    }

    /// Gives up everything before the head of the moment when `used_then` was in use.
    pub fn trim(&mut self, used_then: u64) {
        self.used -= used_then;
    }
}

fn record_seed(generation: u64, number: u64) -> u32 {
    let crc = crc32c::crc32c(&generation.to_le_bytes());
    crc32c::crc32c_append(crc, &number.to_le_bytes())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut b = [0; 4];
    b.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(b)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut b = [0; 8];
    b.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_gives_its_records_back_and_only_its_own() {
        let records: [&[u8]; 3] = [b"one", b"", &[7; 5000]];
        let batch = encode_batch(3, 9, records.into_iter());
        let header = BatchHeader::decode(&batch).unwrap();
        assert_eq!((header.count, header.batch_len()), (3, batch.len() as u64));
        let body = Bytes::copy_from_slice(&batch[HEADER_LEN..][..header.body_len as usize]);
        let (got, all) = header.records(&body);
        assert!(all && got.iter().zip(records).all(|(a, b)| a == b) && got.len() == 3);
        // The same records under another number are not accepted.
        let other = BatchHeader { number: 10, ..header };
        assert_eq!(other.records(&body), (vec![], false));
        // A damaged record ends the batch.
        let mut bad = body.to_vec();
        bad[4000] ^= 1;
        assert_eq!(header.records(&bad.into()).0.len(), 2);
    }

    #[test]
    fn the_ring_wraps_and_trims() {
        let mut ring = Ring::new(10 * BLOCK, 0);
        assert_eq!(ring.advance(4 * BLOCK), 0);
        let used = ring.used();
        assert_eq!(ring.advance(4 * BLOCK), 4 * BLOCK);
        assert!(!ring.has_room(3 * BLOCK) && ring.has_room(2 * BLOCK));
        ring.trim(used);
        assert!(ring.has_room(3 * BLOCK));
        assert_eq!(ring.advance(3 * BLOCK), 0);
        assert_eq!(ring.used(), 9 * BLOCK);
        assert!(!ring.has_room(2 * BLOCK));
    }
}
