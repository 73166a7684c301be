//! Block I/O of a store: the device with its lock and superblock, aligned writes, shared flushes, and
//! the WAL ring.
//!
//! Knows where regions lie and what a batch of WAL records looks like; what is in a record or a page is
//! the business of `spirula-vos`. Invariant: at most one flush of a device is in flight.
#![forbid(unsafe_code)]

mod device;
pub mod superblock;
mod volume;
pub mod wal;

pub use device::{Device, DeviceError, Faults};
pub use superblock::{DeviceSet, Layout, Role, Superblock, SuperblockError};
pub use volume::{Devices, Volume};

/// Fuzz targets.
#[doc(hidden)]
pub mod fuzzing {
    /// Superblock decoding, as if the checksum were right.
    pub fn superblock(data: &[u8]) {
        let _ = crate::Superblock::decode(data);
        let mut block = data.to_vec();
        block.resize(crate::superblock::SUPERBLOCK_LEN - 4, 0);
        let crc = crc32c::crc32c(&block);
        block.extend_from_slice(&crc.to_le_bytes());
        if let Ok(sb) = crate::Superblock::decode(&block) {
            let layout = sb.layout();
            assert!(layout.first_block <= layout.end_block);
        }
    }

    /// WAL batch decoding, as if the header's checksum were right.
    pub fn wal_batch(data: &[u8]) {
        let Some((mut header, body)) =
            data.split_first_chunk::<{ crate::wal::HEADER_LEN }>().map(|(h, b)| (*h, b))
        else {
            return;
        };
        let crc = crc32c::crc32c(&header[..crate::wal::HEADER_LEN - 4]);
        header[crate::wal::HEADER_LEN - 4..].copy_from_slice(&crc.to_le_bytes());
        if let Some(header) = crate::wal::BatchHeader::decode(&header) {
            let _ = header.batch_len();
            let (records, _) = header.records(&bytes::Bytes::copy_from_slice(body));
            assert!(records.len() <= header.count as usize);
        }
    }
}
