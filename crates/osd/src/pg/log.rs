//! The PG log and the duplicate table.
//!
//! Every logged request is one log entry in the transaction that it describes. Old entries are cut
//! in batches; of each the part that answers a repetition (request id, version, result, returned
//! data) stays in the duplicate table, stored one akey per batch, in the same transaction.
//!
//! Invariant: memory and store hold the same records, because both change only with a transaction
//! that was submitted.

pub mod wire;

use std::collections::VecDeque;

use bytes::Bytes;
use foldhash::HashMap;
use spirula_wire::types::{EVersion, RequestId, UTime};
use spirula_wire::{Decode, DecodeError, Encode, Features, Reader};

use crate::stats::StatSum;

const F: Features = Features::PACIFIC;
/// Of log entries.
const ENTRY_VERSION: u8 = 2;
/// Of batches of the duplicate table.
const BATCH_VERSION: u8 = 1;

/// What a logged request did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    Modify,
    Delete,
    /// Failed, or changed nothing; logged for its result only.
    Error,
}

/// One log entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    pub kind: EntryKind,
    pub version: EVersion,
    /// Version of the object before.
    pub prior: EVersion,
    pub mtime: UTime,
    /// Epoch of the transaction in the store.
    pub epoch: u64,
    /// Object key.
    pub object: Bytes,
    pub dup: DupRecord,
    /// The PG's counters after it.
    pub stats: StatSum,
    /// The PG's last user version after it.
    pub last_user_version: u64,
}

/// What answers a repeated request.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct DupRecord {
    pub reqid: RequestId,
    pub version: EVersion,
    pub user_version: u64,
    pub result: i32,
    /// Result and returned data per operation; empty unless the client asked for a return vector.
    pub returns: Vec<(i32, Bytes)>,
}

/// The akey of a version: sorts as versions do.
pub fn version_key(v: EVersion) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&v.epoch.to_be_bytes());
    key[4..].copy_from_slice(&v.version.to_be_bytes());
    key
}

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// Entries that stay after a cut (`osd_min_pg_log_entries`).
    pub entries: usize,
    /// Entries over that which start a cut (`osd_pg_log_trim_min`).
    pub batch: usize,
    /// Records, in log and table together, that answer repetitions (`osd_pg_log_dups_tracked`).
    pub dups: usize,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { entries: 250, batch: 250, dups: 3000 }
    }
}

/// What a cut changes in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trim {
    /// Log akeys below this go.
    pub log_to: [u8; 12],
    /// The batch to add to the duplicate table.
    pub batch_key: [u8; 12],
    pub batch: Bytes,
    /// Duplicate batches below this go, if any.
    pub dups_to: Option<[u8; 12]>,
}

/// Log and duplicates in memory: the records in version order, and an index by request id.
#[derive(Debug, Default)]
pub struct PgLog {
    limits: LogLimits,
    records: VecDeque<Kept>,
    /// Sequence number of the first record.
    first: u64,
    /// How many of the records are only in the duplicate table.
    trimmed: usize,
    /// Last version and length of each batch of the duplicate table.
    batches: VecDeque<(EVersion, usize)>,
    index: HashMap<RequestId, u64>,
}

#[derive(Debug)]
struct Kept {
    dup: DupRecord,
    ticket: u64,
}

impl PgLog {
    pub fn new(limits: LogLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// The record of a request and the publish ticket of its transaction.
    pub fn find(&self, reqid: &RequestId) -> Option<(&DupRecord, u64)> {
        let seq = self.index.get(reqid)?;
        let kept = self.records.get((seq - self.first) as usize)?;
        Some((&kept.dup, kept.ticket))
    }

    /// Entries in the log itself.
    pub fn len(&self) -> usize {
        self.records.len() - self.trimmed
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Version before the oldest entry, as `ceph pg dump` reports it.
    pub fn tail(&self) -> EVersion {
        match self.trimmed.checked_sub(1).and_then(|last| self.records.get(last)) {
            Some(kept) => kept.dup.version,
            None => EVersion::default(),
        }
    }

    /// The cut that should go with the next transaction. Call [`Self::trimmed`] once it is
    /// submitted.
    pub fn due_trim(&self) -> Option<Trim> {
        let excess = self.len().checked_sub(self.limits.entries)?;
        if excess < self.limits.batch.max(1) {
            return None;
        }
        let cut = || self.records.iter().skip(self.trimmed).take(excess).map(|k| &k.dup);
        let last = cut().next_back()?.version;
        let mut batch = vec![BATCH_VERSION];
        (excess as u32).encode(&mut batch, F);
        cut().for_each(|d| d.encode(&mut batch, F));
        let log_to = version_key(EVersion { version: last.version + 1, ..last });
        let dropped = self.batches.iter().take(self.batches_to_drop(excess)).next_back();
        Some(Trim {
            log_to,
            batch_key: version_key(last),
            batch: batch.into(),
            dups_to: dropped.map(|(v, _)| version_key(EVersion { version: v.version + 1, ..*v })),
        })
    }

    /// The transaction with [`Self::due_trim`] was submitted.
    pub fn trimmed(&mut self) {
        let Some(excess) = self.len().checked_sub(self.limits.entries) else {
            return;
        };
        let gone = self.batches_to_drop(excess);
        self.trimmed += excess;
        if let Some(last) = self.trimmed.checked_sub(1).and_then(|l| self.records.get(l)) {
            self.batches.push_back((last.dup.version, excess));
        }
        for _ in 0..gone {
            let Some((_, len)) = self.batches.pop_front() else {
                break;
            };
            for _ in 0..len {
                self.forget_first();
            }
        }
    }

    /// Adds the record of a submitted transaction.
    pub fn append(&mut self, dup: DupRecord, ticket: u64) {
        let seq = self.first + self.records.len() as u64;
        if dup.reqid != RequestId::default() {
            self.index.insert(dup.reqid, seq);
        }
        self.records.push_back(Kept { dup, ticket });
    }

    /// Adds a stored batch of the duplicate table; batches come in order, before the entries.
    pub fn load_batch(&mut self, raw: &[u8]) -> Result<(), DecodeError> {
        let dups = decode_batch(raw)?;
        if let Some(last) = dups.last() {
            self.batches.push_back((last.version, dups.len()));
            self.trimmed += dups.len();
        }
        dups.into_iter().for_each(|d| self.append(d, 0));
        Ok(())
    }

    /// How many of the oldest batches may go once `excess` more records are in the table.
    fn batches_to_drop(&self, excess: usize) -> usize {
        let mut kept = self.records.len();
        let mut droppable = self.trimmed + excess;
        let mut n = 0;
        for (_, len) in &self.batches {
            if kept - len < self.limits.dups || droppable < *len {
                break;
            }
            kept -= len;
            droppable -= len;
            n += 1;
        }
        n
    }

    fn forget_first(&mut self) {
        let Some(kept) = self.records.pop_front() else {
            return;
        };
        // A request id may have been logged again since.
        if self.index.get(&kept.dup.reqid) == Some(&self.first) {
            self.index.remove(&kept.dup.reqid);
        }
        self.first += 1;
        self.trimmed = self.trimmed.saturating_sub(1);
    }
}

/// The records of a batch of the duplicate table.
pub fn decode_batch(raw: &[u8]) -> Result<Vec<DupRecord>, DecodeError> {
    let mut r = Reader::new(raw);
    check_version(r.u8()?, BATCH_VERSION)?;
    Vec::decode(&mut r)
}

/// Batches, with their akeys, of records in the order of versions; versions that are the same, of PGs that
/// are now one, are not parted.
pub fn encode_batches(dups: Vec<DupRecord>) -> Vec<([u8; 12], Bytes)> {
    let (mut out, mut rest) = (Vec::new(), &dups[..]);
    while let Some(last) = rest.get(BATCH_LEN.min(rest.len()).saturating_sub(1)) {
        let (batch, after) = rest.split_at(rest.partition_point(|d| d.version <= last.version));
        let mut raw = vec![BATCH_VERSION];
        (batch.len() as u32).encode(&mut raw, F);
        batch.iter().for_each(|d| d.encode(&mut raw, F));
        out.push((version_key(last.version), raw.into()));
        rest = after;
    }
    out
}

/// Records in a batch that no cut of the log made.
const BATCH_LEN: usize = 250;
/// Records that a merge keeps.
pub const DUPS_KEPT: usize = 6000;

impl Encode for DupRecord {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        self.reqid.name.encode(out, f);
        self.reqid.tid.encode(out, f);
        self.reqid.inc.encode(out, f);
        self.version.encode(out, f);
        self.user_version.encode(out, f);
        self.result.encode(out, f);
        self.returns.encode(out, f);
    }
}

impl Decode for DupRecord {
    const MIN_SIZE: usize = 49;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            reqid: RequestId { name: Decode::decode(r)?, tid: r.u64()?, inc: r.i32()? },
            version: EVersion::decode(r)?,
            user_version: r.u64()?,
            result: r.i32()?,
            returns: Vec::decode(r)?,
        })
    }
}

impl Encode for LogEntry {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        out.push(ENTRY_VERSION);
        out.push(match self.kind {
            EntryKind::Modify => 1,
            EntryKind::Delete => 3,
            EntryKind::Error => 9,
        });
        self.version.encode(out, f);
        self.prior.encode(out, f);
        self.mtime.encode(out, f);
        self.epoch.encode(out, f);
        self.object.encode(out, f);
        self.dup.encode(out, f);
        self.stats.encode(out, f);
        self.last_user_version.encode(out, f);
    }
}

impl Decode for LogEntry {
    const MIN_SIZE: usize = 150;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        check_version(r.u8()?, ENTRY_VERSION)?;
        let kind = match r.u8()? {
            1 => EntryKind::Modify,
            3 => EntryKind::Delete,
            9 => EntryKind::Error,
            value => {
                let what = "log entry kind";
                return Err(DecodeError::Invalid { what, value: value.into() });
            }
        };
        Ok(Self {
            kind,
            version: EVersion::decode(r)?,
            prior: EVersion::decode(r)?,
            mtime: UTime::decode(r)?,
            epoch: r.u64()?,
            object: Bytes::decode(r)?,
            dup: DupRecord::decode(r)?,
            stats: StatSum::decode(r)?,
            last_user_version: r.u64()?,
        })
    }
}

fn check_version(version: u8, known: u8) -> Result<(), DecodeError> {
    if version == known {
        return Ok(());
    }
    Err(DecodeError::Invalid { what: "log record version", value: version.into() })
}

#[cfg(test)]
mod tests {
    use spirula_wire::types::EntityName;

    use super::*;

    const SMALL: LogLimits = LogLimits { entries: 4, batch: 3, dups: 10 };

    fn reqid(tid: u64) -> RequestId {
        RequestId { name: EntityName::client(7), tid, inc: 0 }
    }

    fn dup(tid: u64) -> DupRecord {
        DupRecord {
            reqid: reqid(tid),
            version: EVersion::new(2, tid),
            user_version: tid,
            result: -(tid as i32),
            returns: vec![(0, "out".into())],
        }
    }

    /// The store's side: log akeys and duplicate batches.
    #[derive(Default)]
    struct Stored {
        log: Vec<([u8; 12], DupRecord)>,
        dups: Vec<([u8; 12], Bytes)>,
    }

    fn append(log: &mut PgLog, stored: &mut Stored, tid: u64) {
        let trim = log.due_trim();
        if let Some(trim) = &trim {
            stored.log.retain(|(k, _)| *k >= trim.log_to);
            if let Some(to) = trim.dups_to {
                stored.dups.retain(|(k, _)| *k >= to);
            }
            stored.dups.push((trim.batch_key, trim.batch.clone()));
            log.trimmed();
        }
        let d = dup(tid);
        stored.log.push((version_key(d.version), d.clone()));
        log.append(d, tid);
    }

    #[test]
    fn duplicates_outlive_the_log_and_a_reload() {
        let mut log = PgLog::new(SMALL);
        let mut stored = Stored::default();
        for tid in 1..=100 {
            append(&mut log, &mut stored, tid);
            assert!(log.len() <= 7);
            assert_eq!(log.len(), stored.log.len());
            let known: Vec<_> = (1..=100).filter(|t| log.find(&reqid(*t)).is_some()).collect();
            assert!(known.len() >= 10.min(tid as usize) && known.len() <= 10 + 3 + 7, "{known:?}");
            assert_eq!(known.last(), Some(&tid));
            let mut again = PgLog::new(SMALL);
            for (_, raw) in &stored.dups {
                again.load_batch(raw).unwrap();
            }
            stored.log.iter().for_each(|(_, d)| again.append(d.clone(), 0));
            for t in &known {
                assert_eq!(again.find(&reqid(*t)).unwrap().0, log.find(&reqid(*t)).unwrap().0);
            }
            assert_eq!((again.len(), again.tail()), (log.len(), log.tail()));
            assert_eq!(again.due_trim(), log.due_trim());
        }
        assert_eq!(log.find(&reqid(100)).unwrap().1, 100);
        assert_eq!(log.find(&reqid(1)), None);
    }

    #[test]
    fn entries_round_trip() {
        let entry = LogEntry {
            kind: EntryKind::Delete,
            version: EVersion::new(1, 2),
            prior: EVersion::new(1, 1),
            mtime: UTime { sec: 5, nsec: 6 },
            epoch: 77,
            object: "key".into(),
            dup: dup(4),
            stats: StatSum { num_bytes: -1, num_wr_kb: 9, ..StatSum::default() },
            last_user_version: 4,
        };
        assert_eq!(LogEntry::from_bytes(&entry.to_bytes(F)), Ok(entry));
        assert!(LogEntry::from_bytes(&[0; 200]).is_err());
    }

    #[test]
    fn version_keys_sort() {
        assert!(version_key(EVersion::new(1, 300)) < version_key(EVersion::new(2, 1)));
        assert!(version_key(EVersion::new(2, 255)) < version_key(EVersion::new(2, 256)));
    }
}
