//! Log records as OSDs send them to each other, which is Ceph's form.
//!
//! Invariant: there and back nothing is lost that a record of this log has, but for the counters and
//! the last user version, which are the PG's and travel beside the entries.

use bytes::Bytes;
use spirula_wire::types::{CleanRegions, HObject, PgId, PgLogDup, PgLogEntry, SnapId, log_op};

use super::{DupRecord, EntryKind, LogEntry};
use crate::object::{object_key, object_of_key};
use crate::stats::StatSum;

/// What an entry is about, by its key in the PG's container. The PG's own records have the place before
/// all objects of its lowest hash.
pub fn entry_object(pgid: PgId, key: &[u8]) -> HObject {
    object_of_key(pgid.pool, key).unwrap_or_else(|| HObject::at_hash(pgid.pool, pgid.seed))
}

/// The key of what an entry is about, in a container whose own records are at the key `records`.
pub fn entry_key(object: &HObject, records: &Bytes) -> Bytes {
    match object.snap {
        SnapId::HEAD => object_key(object.hash, &object.nspace, &object.key, &object.oid),
        _ => records.clone(),
    }
}

impl LogEntry {
    /// The entry about `object`, which [`entry_object`] finds for who does not know it.
    pub fn to_wire(&self, object: HObject) -> PgLogEntry {
        let DupRecord { reqid, user_version, result, ref returns, .. } = self.dup;
        let mut entry = PgLogEntry {
            op: match self.kind {
                EntryKind::Modify => log_op::MODIFY,
                EntryKind::Delete => log_op::DELETE,
                EntryKind::Error => log_op::ERROR,
                EntryKind::LostRevert(_) => log_op::LOST_REVERT,
                EntryKind::LostDelete => log_op::LOST_DELETE,
            },
            object,
            version: self.version,
            prior_version: self.prior,
            reqid,
            mtime: self.mtime,
            user_version,
            // Objects are copied as a whole.
            clean_regions: CleanRegions::all_dirty(),
            result,
            returns: returns.clone(),
            ..PgLogEntry::default()
        };
        if let EntryKind::LostRevert(version) = self.kind {
            entry.reverting_to = version;
        }
        entry.set_store_epoch(self.epoch);
        entry
    }

    /// The record of an entry of another OSD; `key` is that of its object ([`entry_key`]). An
    /// entry without an epoch has 0.
    pub fn from_wire(
        entry: &PgLogEntry,
        key: Bytes,
        stats: StatSum,
        last_user_version: u64,
    ) -> Self {
        Self {
            kind: match entry {
                e if e.op == log_op::LOST_REVERT => EntryKind::LostRevert(e.reverting_to),
                e if e.op == log_op::LOST_DELETE => EntryKind::LostDelete,
                e if e.is_delete() => EntryKind::Delete,
                e if e.is_update() => EntryKind::Modify,
                _ => EntryKind::Error,
            },
            version: entry.version,
            prior: entry.prior_version,
            mtime: entry.mtime,
            epoch: entry.store_epoch().unwrap_or(0),
            object: key,
            dup: DupRecord {
                reqid: entry.reqid,
                version: entry.version,
                user_version: entry.user_version,
                result: entry.result,
                returns: entry.returns.clone(),
            },
            stats,
            last_user_version,
        }
    }
}

impl From<DupRecord> for PgLogDup {
    fn from(dup: DupRecord) -> Self {
        let DupRecord { reqid, version, user_version, result, returns } = dup;
        Self { reqid, version, user_version, result, returns }
    }
}

impl From<PgLogDup> for DupRecord {
    fn from(dup: PgLogDup) -> Self {
        let PgLogDup { reqid, version, user_version, result, returns } = dup;
        Self { reqid, version, user_version, result, returns }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use spirula_wire::types::{EVersion, EntityName, RequestId, UTime};
    use spirula_wire::{Decode, Encode, Features};

    use super::*;
    use crate::object::{META_OBJECT, lowest_key};

    const F: Features = Features::PACIFIC;
    const PGID: PgId = PgId { pool: 3, seed: 5 };

    fn versions() -> impl Strategy<Value = EVersion> {
        any::<(u32, u64)>().prop_map(|(epoch, version)| EVersion::new(epoch, version))
    }

    fn keys() -> impl Strategy<Value = Bytes> {
        let name = || "[a-c\0]{1,4}";
        let named = (any::<u32>(), "[a-c\0]{0,3}", proptest::option::of(name()), name());
        let named = named.prop_map(|(hash, nspace, key, name)| {
            let key = key.unwrap_or_default();
            object_key(hash, nspace.as_bytes(), key.as_bytes(), name.as_bytes())
        });
        prop_oneof![9 => named, 1 => Just(lowest_key(PGID.seed))]
    }

    fn dups() -> impl Strategy<Value = DupRecord> {
        let returns = proptest::collection::vec(any::<(i32, Vec<u8>)>(), 0..3);
        let reqid = (any::<(u64, i32)>(), 0..9i64).prop_map(|((tid, inc), client)| RequestId {
            name: EntityName::client(client),
            tid,
            inc,
        });
        (reqid, versions(), any::<(u64, i32)>(), returns).prop_map(
            |(reqid, version, (user_version, result), returns)| {
                let returns = returns.into_iter().map(|(r, out)| (r, out.into())).collect();
                DupRecord { reqid, version, user_version, result, returns }
            },
        )
    }

    fn entries() -> impl Strategy<Value = LogEntry> {
        let lost = EntryKind::LostRevert(EVersion::new(3, 4));
        let kinds = [EntryKind::Modify, EntryKind::Delete, EntryKind::Error];
        let kinds = [&kinds[..], &[lost, EntryKind::LostDelete]].concat();
        let numbers = any::<(u32, u32, u64, i64, u64)>();
        (proptest::sample::select(kinds), versions(), keys(), dups(), numbers).prop_map(
            |(kind, prior, object, dup, (sec, nsec, epoch, num_bytes, last_user_version))| {
                LogEntry {
                    kind,
                    version: dup.version,
                    prior,
                    mtime: UTime { sec, nsec },
                    epoch,
                    object,
                    dup,
                    stats: StatSum { num_bytes, num_wr: 1, ..StatSum::default() },
                    last_user_version,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn entries_come_back_as_they_were(entry in entries()) {
            let sent = entry.to_wire(entry_object(PGID, &entry.object));
            let got = PgLogEntry::from_bytes(&sent.to_bytes(F)).unwrap();
            prop_assert_eq!(&got, &sent);
            let key = entry_key(&got.object, &lowest_key(PGID.seed));
            let back = LogEntry::from_wire(&got, key, entry.stats, entry.last_user_version);
            prop_assert_eq!(back, entry);
        }

        #[test]
        fn duplicates_come_back_as_they_were(dup in dups()) {
            let sent = PgLogDup::from(dup.clone());
            let got = PgLogDup::from_bytes(&sent.to_bytes(F)).unwrap();
            prop_assert_eq!(DupRecord::from(got), dup);
        }

        /// With or without the way through its entry a repetition gets the same answer.
        #[test]
        fn an_entry_answers_as_its_duplicate(entry in entries()) {
            let sent = entry.to_wire(entry_object(PGID, &entry.object));
            let dup = PgLogDup::from(entry.dup);
            let PgLogEntry { reqid, version, user_version, result, returns, .. } = sent;
            prop_assert_eq!(PgLogDup { reqid, version, user_version, result, returns }, dup);
        }
    }

    fn sample() -> LogEntry {
        LogEntry {
            kind: EntryKind::Modify,
            version: EVersion::new(2, 9),
            prior: EVersion::default(),
            mtime: UTime::default(),
            epoch: 77,
            object: object_key(6, b"", b"", b"name"),
            dup: DupRecord { version: EVersion::new(2, 9), ..DupRecord::default() },
            stats: StatSum::default(),
            last_user_version: 0,
        }
    }

    #[test]
    fn it_reads_as_an_entry_of_ceph() {
        let entry = sample();
        let sent = entry.to_wire(entry_object(PGID, &entry.object));
        assert_eq!(sent.to_string(), "2'9 (0'0) op 1 3:60000000:::name:head by unknown.0.0:0");
        assert!(sent.is_update() && !sent.is_delete());
        assert_eq!(sent.store_epoch(), Some(77));
    }

    #[test]
    fn the_own_records_are_where_the_receiver_has_them() {
        for key in [Bytes::from_static(META_OBJECT), lowest_key(PGID.seed)] {
            let object = entry_object(PGID, &key);
            assert_eq!((object.pool, object.hash), (PGID.pool, PGID.seed));
            for records in [Bytes::from_static(META_OBJECT), lowest_key(PGID.seed)] {
                assert_eq!(entry_key(&object, &records), records);
            }
        }
    }

    #[test]
    fn what_was_lost_is_stored_as_such() {
        for (op, kind) in [
            (log_op::LOST_DELETE, EntryKind::LostDelete),
            (log_op::LOST_REVERT, EntryKind::LostRevert(EVersion::default())),
            (log_op::LOST_MARK, EntryKind::Modify),
        ] {
            let entry = PgLogEntry { op, version: EVersion::new(2, 9), ..PgLogEntry::default() };
            let stored = LogEntry::from_wire(&entry, Bytes::new(), StatSum::default(), 7);
            assert_eq!((stored.kind, stored.epoch, stored.last_user_version), (kind, 0, 7));
        }
    }
}
