//! Names, addresses and limits shared by every part of the engine.
//!
//! Invariant: sizes that reach the device are fixed-width; `usize` is only for memory.

use std::fmt;

use bytes::Bytes;

use crate::timestamp::Restart;

/// The unit of allocation on the device and of data checksums.
pub const BLOCK_SIZE: u64 = 4096;
/// Size of a metadata page.
pub const PAGE_SIZE: usize = 8192;
/// Device blocks in one metadata page.
pub const PAGE_BLOCKS: u64 = PAGE_SIZE as u64 / BLOCK_SIZE;
/// Longest object key, dkey or akey.
pub const KEY_LEN_MAX: usize = 2560;
/// Longest single value.
pub const VALUE_LEN_MAX: usize = 64 << 20;
/// Largest size of an array (its end offset).
pub const ARRAY_SIZE_MAX: u64 = 1 << 48;
/// Longest extent kept as one index entry.
pub const EXTENT_BLOCKS_MAX: u64 = 64;
/// Array writes shorter than this stay inline in metadata and WAL unless configured otherwise.
pub const INLINE_THRESHOLD: u32 = 4096;

/// A container: the shard of a placement group.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(pub [u8; 16]);

impl fmt::Debug for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("c:")?;
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// An object's name inside its container; containers list objects in the order of these bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(pub Bytes);

impl ObjectKey {
    /// Copies `bytes` into a key.
    pub fn copy_from(bytes: &[u8]) -> ObjectKey {
        ObjectKey(Bytes::copy_from_slice(bytes))
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "o:{}", self.0.escape_ascii())
    }
}

/// Identifies a transaction; it keeps its id when it starts again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxId(pub [u8; 16]);

impl fmt::Debug for TxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("t:")?;
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// What has become of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TxState {
    /// Prepared, and not ended yet.
    Prepared,
    /// Committed at this epoch.
    Committed(u64),
    /// Aborted.
    Aborted,
    /// Never heard of, or forgotten.
    Unknown,
}

impl fmt::Display for TxState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TxState::Prepared => f.write_str("prepared"),
            TxState::Committed(epoch) => write!(f, "committed at epoch {epoch}"),
            TxState::Aborted => f.write_str("aborted"),
            TxState::Unknown => f.write_str("unknown"),
        }
    }
}

/// A metadata page, by its logical number; its place on the device changes at every checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PageId(pub u64);

/// A place on the device, in blocks of [`BLOCK_SIZE`] from its start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BlockAddr(pub u64);

impl BlockAddr {
    /// Byte offset on the device.
    pub fn byte_offset(self) -> u64 {
        self.0 * BLOCK_SIZE
    }
}

/// What was found to be damaged, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Damage {
    /// A page failed its checksum or does not describe a valid page.
    #[error("metadata page {} is damaged", page.0)]
    Page {
        /// The page.
        page: PageId,
    },
    /// An entry in a valid page does not decode.
    #[error("a metadata entry of table {table} is damaged")]
    Entry {
        /// First byte of the entry's key.
        table: u8,
    },
    /// A batch of the WAL cannot be read, and later ones are there: so it had been durable.
    #[error("batch {batch} of the WAL is damaged")]
    Wal {
        /// Its number.
        batch: u64,
    },
    /// A data chunk failed its checksum.
    #[error("data block {} is damaged", addr.0)]
    Data {
        /// The block.
        addr: BlockAddr,
    },
}

/// Why a read cannot be answered now.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReadError {
    /// These pages are not in the buffer pool: load them and ask again.
    #[error("{} metadata pages are not in memory", .0.len())]
    Missing(Vec<PageId>),
    /// The state at this epoch may have been aggregated.
    #[error("epoch {epoch} is neither retained nor at or above the horizon {horizon}")]
    EpochTooOld {
        /// The epoch asked for.
        epoch: u64,
        /// The horizon of the object.
        horizon: u64,
    },
    /// A prepared transaction writes there, at the epoch asked for or before.
    #[error("transaction {id:?} is prepared and not ended")]
    InProgress {
        /// The transaction.
        id: TxId,
    },
    /// The reader's transaction must start again.
    #[error(transparent)]
    Restart(#[from] Restart),
    /// The store is damaged.
    #[error(transparent)]
    Damaged(#[from] Damage),
}

/// Why a transaction was not staged; nothing of it has been applied.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StageError {
    /// These pages are not in the buffer pool: load them and stage again.
    #[error("{} metadata pages are not in memory", .0.len())]
    Missing(Vec<PageId>),
    /// The device has no room for it.
    #[error("no space left on the device")]
    NoSpace,
    /// A container named by the transaction does not exist.
    #[error("container {0:?} does not exist")]
    NoContainer(ContainerId),
    /// A container to be created exists.
    #[error("container {0:?} exists")]
    ContainerExists(ContainerId),
    /// The object's key, or the one to split at, is not among those of the container.
    #[error("the key is out of the range of container {0:?}")]
    OutOfRange(ContainerId),
    /// Containers to be merged do not follow each other, or retain different epochs.
    #[error("container {1:?} cannot be merged into {0:?}")]
    NotMergeable(ContainerId, ContainerId),
    /// A key is empty where it must not be, or longer than [`KEY_LEN_MAX`].
    #[error("key of {0} bytes")]
    KeyLength(usize),
    /// A value or array is larger than its limit.
    #[error("value or array too large")]
    TooLarge,
    /// An array operation met a single value, or the other way round. An akey is of one kind, which
    /// changes when it has been punched and no version of the other kind is kept any more: at once
    /// without history, else when it was aggregated.
    #[error("the akey holds the other kind of value")]
    WrongKind,
    /// What the transaction requires not to exist does.
    #[error("it exists")]
    Exists,
    /// What the transaction requires to exist does not.
    #[error("it does not exist")]
    NonExistent,
    /// A write of the same epoch covers a part of this one, or more than it.
    #[error("a write of the same epoch overlaps it in part")]
    SameEpoch,
    /// The pieces of a range that was to be merged are not, or no more, such that they can be one.
    #[error("the range is not of pieces that can become one")]
    NotTogether,
    /// The epoch is below the horizon of the transaction or of the object.
    #[error("epoch {epoch} is below the horizon {horizon}")]
    EpochTooOld {
        /// The epoch of the transaction, or to be retained.
        epoch: u64,
        /// The horizon.
        horizon: u64,
    },
    /// It must wait for the end of a prepared transaction, which holds a place that it touches.
    #[error("transaction {id:?} is prepared and not ended")]
    InProgress {
        /// The prepared transaction.
        id: TxId,
    },
    /// It must start again, with a later epoch.
    #[error(transparent)]
    Restart(#[from] Restart),
    /// What is asked for does not go with what has become of the transaction.
    #[error("transaction {id:?} is {state}")]
    WrongState {
        /// The transaction.
        id: TxId,
        /// Its state.
        state: TxState,
    },
    /// A transaction to be prepared is empty, or has operations on containers, clones, imports,
    /// aggregation, discards, or the end of other transactions.
    #[error("transactions of this kind cannot be prepared")]
    NotPreparable,
    /// Too much is prepared already.
    #[error("too many transactions are prepared")]
    TooManyPrepared,
    /// The store is damaged.
    #[error(transparent)]
    Damaged(#[from] Damage),
}

impl From<ReadError> for StageError {
    fn from(e: ReadError) -> StageError {
        match e {
            ReadError::Missing(pages) => StageError::Missing(pages),
            ReadError::EpochTooOld { epoch, horizon } => StageError::EpochTooOld { epoch, horizon },
            ReadError::InProgress { id } => StageError::InProgress { id },
            ReadError::Restart(restart) => StageError::Restart(restart),
            ReadError::Damaged(d) => StageError::Damaged(d),
        }
    }
}

/// A piece of an array, as found by a read; pieces come in order and cover the asked range exactly.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Extent {
    /// No bytes: reads as zeros.
    Hole {
        /// Offset in the array.
        offset: u64,
        /// Length in bytes.
        len: u64,
        /// Punched, not never written.
        punched: bool,
    },
    /// Bytes kept in metadata.
    Inline {
        /// Offset in the array.
        offset: u64,
        /// The bytes.
        data: Bytes,
    },
    /// Bytes on the device.
    Device(DeviceExtent),
}

impl Extent {
    /// Length in bytes.
    pub fn byte_len(&self) -> u64 {
        match self {
            Extent::Hole { len, .. } => *len,
            Extent::Inline { data, .. } => data.len() as u64,
            Extent::Device(d) => u64::from(d.len),
        }
    }
}

/// A run of blocks holding bytes of an array, with the checksum of each block's content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceExtent {
    /// Offset in the array.
    pub offset: u64,
    /// First block.
    pub addr: BlockAddr,
    /// Bytes to skip at the start of the first block (below [`BLOCK_SIZE`]).
    pub skip: u16,
    /// Bytes of the array held here, after `skip`.
    pub len: u32,
    /// Bytes covered by the checksum of the last block; all others cover the whole block.
    pub tail: u16,
    /// CRC32C of each block.
    pub crcs: Vec<u32>,
}

impl DeviceExtent {
    /// Blocks the extent touches.
    pub fn block_count(&self) -> u64 {
        (u64::from(self.skip) + u64::from(self.len)).div_ceil(BLOCK_SIZE)
    }
}
