//! A store looked at offline: recovered in memory, nothing is written to its device.
//!
//! Invariant: the device is as before, so that what is damaged can be looked at again, and a crashed store
//! can be checked without making a checkpoint of it.

use std::future::Future;

use spirula_bio::{Devices, Superblock};
use spirula_vos::{Extent, Fragmentation, ReadError, Vos};

use crate::{CheckFailure, CheckReport, Data, OpenError, Options, Statfs, Store, StoreError};

/// A store opened to be looked at.
pub struct Offline {
    store: Store,
    superblock: Superblock,
    superblock_copies: [bool; 2],
    root: u64,
}

/// What an offline store says about itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OfflineStat {
    /// What it was formatted for.
    pub superblock: Superblock,
    /// Number of the newest checkpoint.
    pub checkpoint: u64,
    /// Number of the last transaction.
    pub seq: u64,
    /// Transactions that only the WAL holds.
    pub replayed: u64,
    /// Space.
    pub space: Statfs,
    /// How the free space is divided.
    pub fragmentation: Fragmentation,
    /// When the last scrub ended, in seconds since 1970, and the errors it found.
    pub scrubbed: (u64, u64),
}

impl Offline {
    /// Recovers the store of a device, which may have been opened for reading only.
    pub async fn open(devices: impl Into<Devices>) -> Result<Offline, OpenError> {
        let (device, superblock) = devices.into().open().await?;
        let mut superblock_copies = [true; 2];
        for (_, device) in device.devices().all() {
            let intact = device.superblock_copies().await?;
            superblock_copies.iter_mut().zip(intact).for_each(|(all, one)| *all &= one);
        }
        let options = Options { zero_ahead: false, ..Options::default() };
        let (store, root) = Store::recover(&device, &superblock, options).await?;
        Ok(Offline { store, superblock, superblock_copies, root })
    }

    /// What the store says about itself.
    pub fn stat(&self) -> OfflineStat {
        OfflineStat {
            superblock: self.superblock.clone(),
            checkpoint: self.root,
            seq: self.store.inner.vos.borrow().seq(),
            replayed: self.store.counters().replayed,
            space: self.store.statfs(),
            fragmentation: self.store.fragmentation(),
            scrubbed: self.store.scrub_status().scrubbed,
        }
    }

    /// As [`Store::read`].
    pub fn read<T>(
        &self,
        f: impl FnMut(&Vos) -> Result<T, ReadError>,
    ) -> impl Future<Output = Result<T, StoreError>> {
        self.store.read(f)
    }

    /// As [`Store::read_data`].
    pub fn read_data(
        &self,
        extents: &[Extent],
    ) -> impl Future<Output = Result<Data, StoreError>> + use<> {
        self.store.read_data(extents)
    }

    /// Checks the whole store.
    pub async fn check(&self) -> Result<CheckReport, CheckFailure> {
        if let Some(copy) = self.superblock_copies.iter().position(|intact| !intact) {
            return Err(CheckFailure::Superblock { copy });
        }
        self.store.walk().await
    }
}
