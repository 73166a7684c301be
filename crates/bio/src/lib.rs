//! Block I/O of a store: the device with its lock and superblock, aligned writes, shared flushes, and
//! the WAL ring.
//!
//! Knows where regions lie and what a batch of WAL records looks like; what is in a record or a page is
//! the business of `spirula-vos`. Invariant: at most one flush of a device is in flight.
#![forbid(unsafe_code)]

mod device;
pub mod superblock;
pub mod wal;

pub use device::{Device, DeviceError, Faults};
pub use superblock::{Layout, Superblock, SuperblockError};

/// Fuzz targets.
#[doc(hidden)]
pub mod fuzzing {
    /// Superblock decoding.
    pub fn superblock(data: &[u8]) {
        if let Ok(sb) = crate::Superblock::decode(data) {
            let _ = sb.layout();
        }
    }

    /// WAL batch decoding.
    pub fn wal_batch(data: &[u8]) {
        if let Some(header) = crate::wal::BatchHeader::decode(data) {
            let body = data.get(crate::wal::HEADER_LEN..).unwrap_or_default();
            let _ = header.records(&bytes::Bytes::copy_from_slice(body));
        }
    }
}
