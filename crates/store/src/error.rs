//! What can go wrong with a store, sorted by whose fault it is.

use std::io;
use std::path::PathBuf;

use spirula_bio::DeviceError;
use spirula_bio::superblock::UuidText;
use spirula_vos::timestamp::Restart;
use spirula_vos::{Damage, ReplayError, StageError, TxId};

/// Why a store does not answer or has stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StoreError {
    /// The content of the device is not what was written.
    #[error("the store is damaged: {0}")]
    Damaged(#[from] Damage),
    /// The state at this epoch may have been aggregated.
    #[error("epoch {epoch} is neither retained nor at or above the horizon {horizon}")]
    EpochTooOld {
        /// The epoch asked for.
        epoch: u64,
        /// The horizon of the object.
        horizon: u64,
    },
    /// A prepared transaction writes there: wait for its end.
    #[error("transaction {id:?} is prepared and not ended")]
    InProgress {
        /// The transaction.
        id: TxId,
    },
    /// The reader's transaction must start again.
    #[error(transparent)]
    Restart(Restart),
    /// The device failed to read.
    #[error("reading {len} bytes at {offset} failed: {kind}")]
    Read {
        /// Byte offset on the device.
        offset: u64,
        /// Bytes asked for.
        len: u64,
        /// What the system said.
        kind: io::ErrorKind,
    },
    /// The device failed to write or flush; the store has stopped.
    #[error("the store has stopped, writing its device failed: {0}")]
    Write(io::ErrorKind),
    /// No room for a checkpoint; the store has stopped.
    #[error("the store has stopped, no room for a checkpoint")]
    NoRoom,
    /// Nothing happened, there is no room for it.
    #[error("no space left on the device")]
    NoSpace,
    /// A read needed more pages at a time than the pool keeps.
    #[error("the metadata pool is too small")]
    PoolTooSmall,
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// Why nothing was reserved for a transaction.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReserveError {
    /// It would be refused.
    #[error(transparent)]
    Refused(#[from] StageError),
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a store could not be formatted or opened. The texts say what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// It belongs to another cluster.
    #[error(
        "{}: belongs to cluster {}, not to {}; use the right device or format it anew",
        path.display(), UuidText(*found), UuidText(*expected)
    )]
    OtherCluster {
        /// The device.
        path: PathBuf,
        /// Cluster on the device.
        found: [u8; 16],
        /// Our cluster.
        expected: [u8; 16],
    },
    /// It belongs to another OSD.
    #[error("{}: belongs to osd.{found}, not to osd.{expected}; use the right device", path.display())]
    OtherOsd {
        /// The device.
        path: PathBuf,
        /// OSD on the device.
        found: i32,
        /// Our id.
        expected: i32,
    },
    /// No valid root record.
    #[error("{}: no intact checkpoint; the device is damaged or was never formatted to the end", path.display())]
    NoRoot {
        /// The device.
        path: PathBuf,
    },
    /// The WAL does not fit the checkpoint.
    #[error("{}: replay failed: {source}", path.display())]
    Replay {
        /// The device.
        path: PathBuf,
        /// Why.
        source: ReplayError,
    },
    /// As in [`StoreError`].
    #[error("{}: {source}", path.display())]
    Store {
        /// The device.
        path: PathBuf,
        /// Why.
        source: StoreError,
    },
}
