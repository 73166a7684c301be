//! The versioned object store: container -> object -> dkey -> akey -> value or array of extents.
//!
//! Pure logic: no I/O, no clock, no randomness, no `unsafe`. A read answers or names the pages it
//! is missing; [`Tx`] is staged all or nothing and gives one WAL record and its data writes; what to
//! write where and when is the caller's part (`spirula-store`).
#![forbid(unsafe_code)]

mod array;
mod check;
mod checkpoint;
mod codec;
mod garbage;
mod log;
mod page;
mod pool;
mod record;
mod space;
mod stage;
mod tree;
mod tx;
mod types;
mod vos;

pub use check::{CheckError, CheckSummary, Checker};
pub use checkpoint::{Checkpoint, Loader, PageWrite, ROOT_LEN, Root, WalStart};
pub use log::{BadRecord, Placed, Record};
pub use space::Run;
pub use stage::{DataWrite, ReplayError, Staged};
pub use tx::Tx;
pub use types::*;
pub use vos::{Config, ContainerStats, Stats, Vos};

/// Fuzz targets.
#[doc(hidden)]
pub mod fuzzing {
    use bytes::Bytes;

    /// WAL record decoding.
    pub fn wal_record(data: &[u8]) {
        let _ = crate::Record::decode(Bytes::copy_from_slice(data));
    }

    /// Page decoding, as if the checksum and id were right, and a walk over what is in it.
    pub fn page(data: &[u8]) {
        crate::page::fuzz(data);
    }

    /// Root record decoding, as if the checksum were right.
    pub fn root(data: &[u8]) {
        let mut block = data.to_vec();
        block.resize(crate::ROOT_LEN - 4, 0);
        let crc = crc32c::crc32c(&block);
        block.extend_from_slice(&crc.to_le_bytes());
        let _ = crate::Root::decode(&block);
    }

    /// Entries of the tree.
    pub fn entry(data: &[u8]) {
        crate::record::fuzz(data);
    }
}
