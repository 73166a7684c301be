//! Where a monitor keeps the quorum's log, and the state that the log starts from.
//!
//! Invariants: when `write` returns, all of it is durable, and a crash leaves all of it or nothing;
//! a load gives a snapshot and every entry after it without a gap; storage of another version or
//! cluster is refused untouched.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use spirula_wire::denc::encode_versioned;
use spirula_wire::{Decode, DecodeError, Encode, Features, Reader};

/// Version of the store's layout.
pub const STORE_VERSION: u64 = 2;
/// The term that a new cluster's first state belongs to; leaders come after it.
pub const FIRST_TERM: u64 = 1;
/// The number of a new cluster's first monitor.
pub const FIRST_NODE: u64 = 1;

/// What a store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Whose store it is: a number that no other store, past or present, has in this cluster.
    pub node: u64,
    pub term: u64,
    /// The monitor that got this one's vote in `term`.
    pub vote: Option<u64>,
    pub snapshot: Option<Snapshot>,
    /// What follows the snapshot.
    pub log: Vec<Entry>,
}

/// The state after an entry, and what it takes to go on from there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub index: u64,
    pub term: u64,
    /// The monitors of the quorum by number.
    pub members: Vec<u64>,
    pub state: Bytes,
}

/// An entry of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    pub index: u64,
    pub term: u64,
    /// The monitors of the quorum, not a proposal.
    pub config: bool,
    pub data: Bytes,
}

/// A change of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    Node(u64),
    Vote {
        term: u64,
        vote: Option<u64>,
    },
    /// Removes the entries from this index on.
    Truncate(u64),
    Append(Vec<Entry>),
    /// Replaces the snapshot, and removes the entries up to it.
    Snapshot(Snapshot),
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
    #[error("{path}: {source}; the store is damaged")]
    Decode { path: PathBuf, source: DecodeError },
    #[error("entry {found} follows {last}: the store has a gap")]
    Gap { last: u64, found: u64 },
}

pub trait Storage: Send {
    fn load(&mut self) -> Result<Stored, StorageError>;

    /// Makes all of `writes` durable, in this order.
    fn write(&mut self, writes: &[Write]) -> Result<(), StorageError>;
}

/// Storage in memory that outlives the monitor: clones share one content. For tests and simulation.
#[derive(Clone, Debug, Default)]
pub struct MemoryStorage(Arc<Mutex<Stored>>);

impl Storage for MemoryStorage {
    fn load(&mut self) -> Result<Stored, StorageError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn write(&mut self, writes: &[Write]) -> Result<(), StorageError> {
        let mut stored = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for write in writes {
            match write {
                Write::Node(node) => stored.node = *node,
                Write::Vote { term, vote } => (stored.term, stored.vote) = (*term, *vote),
                Write::Truncate(from) => stored.log.retain(|e| e.index < *from),
                Write::Append(entries) => stored.log.extend(entries.iter().cloned()),
                Write::Snapshot(snapshot) => {
                    stored.log.retain(|e| e.index > snapshot.index);
                    stored.snapshot = Some(snapshot.clone());
                }
            }
        }
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
        store.write_with(|tx| {
            tx.open_table(META)?.insert("version", STORE_VERSION)?;
            tx.open_table(LOG)?;
            tx.open_table(SNAPSHOT)?;
            Ok(())
        })?;
        Ok(store)
    }

    /// Opens the store in `dir`; one of version 1 is converted.
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
            Some(1) => store.convert().map(|()| store),
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

    fn write_with(
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

impl RedbStorage {
    /// Makes the store of a lone monitor, whose log was a list of proposals by number, one of a
    /// quorum of one.
    fn convert(&self) -> Result<(), StorageError> {
        self.write_with(|tx| {
            let mut log = tx.open_table(LOG)?;
            let mut rows = Vec::new();
            for row in log.iter()? {
                let (index, data) = row?;
                rows.push((index.value(), Bytes::copy_from_slice(data.value())));
            }
            for (index, data) in rows {
                let entry = Entry { index, term: FIRST_TERM, config: false, data };
                log.insert(index, entry.to_bytes(F).as_slice())?;
            }
            let mut snapshots = tx.open_table(SNAPSHOT)?;
            let last = snapshots.last()?.map(|row| (row.0.value(), row.1.value().to_vec()));
            if let Some((index, state)) = last {
                let (term, members) = (FIRST_TERM, vec![FIRST_NODE]);
                let snapshot = Snapshot { index, term, members, state: state.into() };
                snapshots.insert(index, snapshot.to_bytes(F).as_slice())?;
            }
            let mut meta = tx.open_table(META)?;
            meta.insert("node", FIRST_NODE)?;
            meta.insert("term", FIRST_TERM)?;
            meta.insert("version", STORE_VERSION)?;
            Ok(())
        })
    }
}

impl Storage for RedbStorage {
    fn load(&mut self) -> Result<Stored, StorageError> {
        let (mut stored, rows, snapshot) = self.read(|tx| {
            let meta = tx.open_table(META)?;
            let number = |key: &str| -> Result<u64, redb::Error> {
                Ok(meta.get(key)?.map_or(0, |v| v.value()))
            };
            let vote = Some(number("vote")?).filter(|v| *v != 0);
            let (node, term) = (number("node")?, number("term")?);
            let stored = Stored { node, term, vote, ..Stored::default() };
            let snapshots = tx.open_table(SNAPSHOT)?;
            let snapshot = snapshots.last()?.map(|row| (row.0.value(), row.1.value().to_vec()));
            let mut rows = Vec::new();
            for row in tx.open_table(LOG)?.iter()? {
                let (index, bytes) = row?;
                rows.push((index.value(), bytes.value().to_vec()));
            }
            Ok((stored, rows, snapshot))
        })?;
        let damaged = |source| StorageError::Decode { path: self.path.clone(), source };
        for (index, bytes) in rows {
            let entry = Entry { index, ..Entry::from_bytes(&bytes).map_err(damaged)? };
            stored.log.push(entry);
        }
        if let Some((index, bytes)) = snapshot {
            let snapshot = Snapshot::from_bytes(&bytes).map_err(damaged)?;
            stored.snapshot = Some(Snapshot { index, ..snapshot });
        }
        Ok(stored)
    }

    fn write(&mut self, writes: &[Write]) -> Result<(), StorageError> {
        self.write_with(|tx| {
            for write in writes {
                match write {
                    Write::Node(node) => {
                        tx.open_table(META)?.insert("node", node)?;
                    }
                    Write::Vote { term, vote } => {
                        let mut meta = tx.open_table(META)?;
                        meta.insert("term", term)?;
                        meta.insert("vote", vote.unwrap_or(0))?;
                    }
                    Write::Truncate(from) => tx.open_table(LOG)?.retain(|i, _| i < *from)?,
                    Write::Append(entries) => {
                        let mut log = tx.open_table(LOG)?;
                        for entry in entries {
                            log.insert(entry.index, entry.to_bytes(F).as_slice())?;
                        }
                    }
                    Write::Snapshot(snapshot) => {
                        let mut table = tx.open_table(SNAPSHOT)?;
                        table.retain(|_, _| false)?;
                        table.insert(snapshot.index, snapshot.to_bytes(F).as_slice())?;
                        tx.open_table(LOG)?.retain(|i, _| i > snapshot.index)?;
                    }
                }
            }
            Ok(())
        })
    }
}

const F: Features = Features::PACIFIC;
/// Version of the rows of log and snapshot.
const ROW_VERSION: u8 = 1;

/// Without the index, which is the key.
impl Encode for Entry {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        encode_versioned(out, ROW_VERSION, ROW_VERSION, |out| {
            self.term.encode(out, f);
            self.config.encode(out, f);
            self.data.encode(out, f);
        });
    }
}

impl Decode for Entry {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.versioned("log entry", ROW_VERSION, |_, r| {
            let (term, config) = (r.u64()?, r.u8()? != 0);
            Ok(Self { index: 0, term, config, data: Decode::decode(r)? })
        })
    }
}

/// Without the index, which is the key.
impl Encode for Snapshot {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        encode_versioned(out, ROW_VERSION, ROW_VERSION, |out| {
            self.term.encode(out, f);
            self.members.encode(out, f);
            self.state.encode(out, f);
        });
    }
}

impl Decode for Snapshot {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.versioned("snapshot", ROW_VERSION, |_, r| {
            let (term, members) = (r.u64()?, Decode::decode(r)?);
            Ok(Self { index: 0, term, members, state: Decode::decode(r)? })
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

    fn entry(index: u64, term: u64, data: &'static str) -> Entry {
        Entry { index, term, config: data.is_empty(), data: Bytes::from_static(data.as_bytes()) }
    }

    fn check(mut open: impl FnMut(bool) -> Box<dyn Storage>) {
        let snapshot = |index, state: &'static str| Snapshot {
            index,
            term: 1,
            members: vec![3, 4],
            state: Bytes::from_static(state.as_bytes()),
        };
        let mut s = open(true);
        s.write(&[Write::Node(4), Write::Snapshot(snapshot(1, "one"))]).unwrap();
        s.write(&[
            Write::Vote { term: 7, vote: Some(3) },
            Write::Append(vec![entry(2, 1, "a"), entry(3, 2, "b"), entry(4, 2, "lost")]),
            Write::Truncate(4),
            Write::Append(vec![entry(4, 3, "")]),
        ])
        .unwrap();
        drop(s);
        let mut s = open(false);
        let stored = s.load().unwrap();
        assert_eq!((stored.node, stored.term, stored.vote), (4, 7, Some(3)));
        assert_eq!(stored.snapshot, Some(snapshot(1, "one")));
        assert_eq!(stored.log, [entry(2, 1, "a"), entry(3, 2, "b"), entry(4, 3, "")]);
        s.write(&[Write::Snapshot(snapshot(3, "three")), Write::Vote { term: 8, vote: None }])
            .unwrap();
        let stored = s.load().unwrap();
        assert_eq!((stored.term, stored.vote), (8, None));
        assert_eq!(stored.snapshot, Some(snapshot(3, "three")));
        assert_eq!(stored.log, [entry(4, 3, "")]);
    }

    #[test]
    fn version_1_becomes_a_quorum_of_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = RedbStorage::create(dir.path()).unwrap();
        store
            .write_with(|tx| {
                tx.open_table(META)?.insert("version", 1)?;
                tx.open_table(SNAPSHOT)?.insert(5, b"state".as_slice())?;
                tx.open_table(LOG)?.insert(6, b"six".as_slice())?;
                Ok(())
            })
            .unwrap();
        drop(store);
        for _ in 0..2 {
            let stored = RedbStorage::open(dir.path()).unwrap().load().unwrap();
            let (state, members) = (Bytes::from_static(b"state"), vec![1]);
            let snapshot = Some(Snapshot { index: 5, term: 1, members, state });
            let log = vec![entry(6, 1, "six")];
            assert_eq!(stored, Stored { node: 1, term: 1, vote: None, snapshot, log });
        }
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
        store.write_with(|tx| Ok(tx.open_table(META)?.insert("version", 9)?).map(|_| ())).unwrap();
        drop(store);
        assert!(matches!(RedbStorage::create(dir.path()), Err(StorageError::Exists { .. })));
        assert!(matches!(
            RedbStorage::open(dir.path()),
            Err(StorageError::Version { found: 9, .. })
        ));
    }
}
