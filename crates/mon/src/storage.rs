//! Where the state machine keeps itself: a log of proposals and a snapshot that it starts from.
//!
//! A Raft library takes the place of `append` later; the snapshot stays.
//!
//! Invariants: when `append` returns, the proposals are durable; a load gives a snapshot and every
//! proposal after it without a gap; storage of another version or cluster is refused untouched.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

/// Version of the store's layout.
pub const STORE_VERSION: u64 = 1;

/// What a store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The state after proposal `.0`.
    pub snapshot: Option<(u64, Bytes)>,
    /// Proposals after it, by number.
    pub log: Vec<(u64, Bytes)>,
}

/// Why a store could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("{path}: there is no monitor store here; create one first (mkfs)")]
    Missing { path: PathBuf },
    #[error("{path}: already holds a monitor store; choose another directory")]
    Exists { path: PathBuf },
    #[error("{path}: the monitor store is open in another process; stop it first")]
    Locked { path: PathBuf },
    #[error(
        "{path}: written in version {found} of the store's format, this release reads {STORE_VERSION}; use the release that wrote it"
    )]
    Version { path: PathBuf, found: u64 },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path}: {source}; the store is damaged or the disk failed")]
    Database { path: PathBuf, source: Box<redb::Error> },
    #[error("proposal {found} follows {last}: the store has a gap")]
    Gap { last: u64, found: u64 },
}

pub trait Storage: Send {
    fn load(&mut self) -> Result<Stored, StorageError>;

    /// Makes proposals durable, numbered from `first`.
    fn append(&mut self, first: u64, proposals: &[Bytes]) -> Result<(), StorageError>;

    /// Replaces the snapshot by the state after proposal `version`, and forgets the log up to it.
    fn compact(&mut self, version: u64, snapshot: &[u8]) -> Result<(), StorageError>;
}

/// Storage in memory that outlives the monitor: clones share one content. For tests and simulation.
#[derive(Clone, Debug, Default)]
pub struct MemoryStorage(Arc<Mutex<Stored>>);

impl Storage for MemoryStorage {
    fn load(&mut self) -> Result<Stored, StorageError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn append(&mut self, first: u64, proposals: &[Bytes]) -> Result<(), StorageError> {
        let mut stored = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stored.log.extend((first..).zip(proposals.iter().cloned()));
        Ok(())
    }

    fn compact(&mut self, version: u64, snapshot: &[u8]) -> Result<(), StorageError> {
        let mut stored = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stored.snapshot = Some((version, Bytes::copy_from_slice(snapshot)));
        stored.log.retain(|(v, _)| *v > version);
        Ok(())
    }
}

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const SNAPSHOT: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("snapshot");
/// Memory that the database may use for its own cache.
const CACHE_BYTES: usize = 1 << 20;

/// Storage in one redb file, `DIR/store.redb`.
#[derive(Debug)]
pub struct RedbStorage {
    db: Database,
    path: PathBuf,
}

impl RedbStorage {
    /// Makes an empty store in `dir`.
    pub fn create(dir: &Path) -> Result<Self, StorageError> {
        let path = dir.join("store.redb");
        let io = |source| StorageError::Io { path: path.clone(), source };
        // It holds every key of the cluster.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
        if path.exists() {
            return Err(StorageError::Exists { path });
        }
        let db = redb::Builder::new()
            .set_cache_size(CACHE_BYTES)
            .create(&path)
            .map_err(|e| open_error(&path, e))?;
        let store = Self { db, path };
        store.write(|tx| {
            tx.open_table(META)?.insert("version", STORE_VERSION)?;
            tx.open_table(LOG)?;
            tx.open_table(SNAPSHOT)?;
            Ok(())
        })?;
        Ok(store)
    }

    /// Opens the store in `dir`.
    pub fn open(dir: &Path) -> Result<Self, StorageError> {
        let path = dir.join("store.redb");
        if !path.exists() {
            return Err(StorageError::Missing { path });
        }
        let db = redb::Builder::new()
            .set_cache_size(CACHE_BYTES)
            .open(&path)
            .map_err(|e| open_error(&path, e))?;
        let store = Self { db, path };
        let found = store.read(|tx| Ok(tx.open_table(META)?.get("version")?.map(|v| v.value())))?;
        match found {
            Some(STORE_VERSION) => Ok(store),
            other => Err(StorageError::Version { path: store.path, found: other.unwrap_or(0) }),
        }
    }

    fn read<T>(
        &self,
        body: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StorageError> {
        let run = || body(&self.db.begin_read()?);
        run().map_err(|e| self.failed(e))
    }

    fn write(
        &self,
        body: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), StorageError> {
        let run = || {
            let tx = self.db.begin_write()?;
            body(&tx)?;
            tx.commit()?;
            Ok(())
        };
        run().map_err(|e: redb::Error| self.failed(e))
    }

    fn failed(&self, source: redb::Error) -> StorageError {
        StorageError::Database { path: self.path.clone(), source: Box::new(source) }
    }
}

impl Storage for RedbStorage {
    fn load(&mut self) -> Result<Stored, StorageError> {
        self.read(|tx| {
            let mut stored = Stored::default();
            if let Some(entry) = tx.open_table(SNAPSHOT)?.last()? {
                stored.snapshot = Some((entry.0.value(), Bytes::copy_from_slice(entry.1.value())));
            }
            let after = stored.snapshot.as_ref().map_or(0, |(v, _)| v + 1);
            for entry in tx.open_table(LOG)?.range(after..)? {
                let (version, bytes) = entry?;
                stored.log.push((version.value(), Bytes::copy_from_slice(bytes.value())));
            }
            Ok(stored)
        })
    }

    fn append(&mut self, first: u64, proposals: &[Bytes]) -> Result<(), StorageError> {
        self.write(|tx| {
            let mut log = tx.open_table(LOG)?;
            for (version, bytes) in (first..).zip(proposals) {
                log.insert(version, bytes.as_ref())?;
            }
            Ok(())
        })
    }

    fn compact(&mut self, version: u64, snapshot: &[u8]) -> Result<(), StorageError> {
        self.write(|tx| {
            let mut table = tx.open_table(SNAPSHOT)?;
            table.retain(|_, _| false)?;
            table.insert(version, snapshot)?;
            tx.open_table(LOG)?.retain(|v, _| v > version)?;
            Ok(())
        })
    }
}

fn open_error(path: &Path, e: redb::DatabaseError) -> StorageError {
    match e {
        redb::DatabaseError::DatabaseAlreadyOpen => StorageError::Locked { path: path.to_owned() },
        other => StorageError::Database { path: path.to_owned(), source: Box::new(other.into()) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mut open: impl FnMut(bool) -> Box<dyn Storage>) {
        let bytes = |s: &'static str| Bytes::from_static(s.as_bytes());
        let mut s = open(true);
        s.compact(0, b"empty").unwrap();
        s.append(1, &[bytes("a"), bytes("b")]).unwrap();
        s.append(3, &[bytes("c")]).unwrap();
        drop(s);
        let mut s = open(false);
        let stored = s.load().unwrap();
        assert_eq!(stored.snapshot, Some((0, bytes("empty"))));
        assert_eq!(stored.log, [(1, bytes("a")), (2, bytes("b")), (3, bytes("c"))]);
        s.compact(2, b"two").unwrap();
        let stored = s.load().unwrap();
        assert_eq!((stored.snapshot, stored.log), (Some((2, bytes("two"))), vec![(3, bytes("c"))]));
    }

    #[test]
    fn both_kinds_keep_what_was_appended() {
        let memory = MemoryStorage::default();
        check(|_| Box::new(memory.clone()));
        let dir = tempfile::tempdir().unwrap();
        check(|new| {
            let open = if new { RedbStorage::create } else { RedbStorage::open };
            Box::new(open(dir.path()).unwrap())
        });
    }

    #[test]
    fn refusals_say_why() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(RedbStorage::open(dir.path()), Err(StorageError::Missing { .. })));
        let store = RedbStorage::create(dir.path()).unwrap();
        assert!(matches!(RedbStorage::open(dir.path()), Err(StorageError::Locked { .. })));
        store.write(|tx| Ok(tx.open_table(META)?.insert("version", 9)?).map(|_| ())).unwrap();
        drop(store);
        assert!(matches!(RedbStorage::create(dir.path()), Err(StorageError::Exists { .. })));
        assert!(matches!(
            RedbStorage::open(dir.path()),
            Err(StorageError::Version { found: 9, .. })
        ));
    }
}
