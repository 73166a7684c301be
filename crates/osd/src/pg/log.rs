//! The stored records of the PG log and the duplicate table.
//!
//! Every logged request is one log entry in the transaction that it describes. Old entries are cut
//! in batches; of each the part that answers a repetition (request id, version, result, returned
//! data) stays in the duplicate table, stored one akey per batch ([`super::batches`]), in the same
//! transaction.

pub mod wire;

use bytes::Bytes;
use spirula_wire::types::{EVersion, RequestId, UTime};
use spirula_wire::{Decode, DecodeError, Encode, Features, Reader};

use crate::stats::StatSum;

const F: Features = Features::PACIFIC;
/// Of log entries.
const ENTRY_VERSION: u8 = 2;
/// Of batches of the duplicate table.
pub(super) const BATCH_VERSION: u8 = 1;

/// What a logged request did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    Modify,
    Delete,
    /// Failed, or changed nothing; logged for its result only.
    Error,
    /// Given up as lost: it is again what it was at this version.
    LostRevert(EVersion),
    /// Given up as lost: it is gone.
    LostDelete,
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
    /// The newest entry that goes, and how many.
    pub upto: EVersion,
    pub entries: usize,
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
            EntryKind::LostRevert(_) => 5,
            EntryKind::LostDelete => 6,
            EntryKind::Error => 9,
        });
        if let EntryKind::LostRevert(version) = self.kind {
            version.encode(out, f);
        }
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
            5 => EntryKind::LostRevert(EVersion::decode(r)?),
            6 => EntryKind::LostDelete,
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
        let lost = LogEntry { kind: EntryKind::LostRevert(EVersion::new(1, 1)), ..entry.clone() };
        assert_eq!(LogEntry::from_bytes(&entry.to_bytes(F)), Ok(entry));
        assert_eq!(LogEntry::from_bytes(&lost.to_bytes(F)), Ok(lost));
        assert!(LogEntry::from_bytes(&[0; 200]).is_err());
    }

    #[test]
    fn version_keys_sort() {
        assert!(version_key(EVersion::new(1, 300)) < version_key(EVersion::new(2, 1)));
        assert!(version_key(EVersion::new(2, 255)) < version_key(EVersion::new(2, 256)));
    }
}
