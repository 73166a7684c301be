//! The stored form of the duplicate table: one akey for each cut of the log, so that a cut writes what
//! it takes off the log once, and drops old records by batches.

use std::collections::VecDeque;

use bytes::Bytes;
use spirula_pg::PgLog;
use spirula_wire::Encode;
use spirula_wire::Features;
use spirula_wire::types::EVersion;

use super::log::{BATCH_VERSION, DupRecord, Trim, version_key};

const F: Features = Features::PACIFIC;

/// What the store holds of the duplicate table.
#[derive(Clone, Debug, Default)]
pub struct Batches {
    /// Last version and length of each, oldest first.
    list: VecDeque<(EVersion, usize)>,
}

impl Batches {
    /// What cutting `log` at `upto` changes in the store. Call [`Self::trimmed`] once it is submitted.
    pub fn trim(&self, log: &PgLog, upto: EVersion) -> Trim {
        let cut: Vec<DupRecord> = log
            .entries()
            .take_while(|e| e.version <= upto)
            .map(|e| DupRecord {
                reqid: e.reqid,
                version: e.version,
                user_version: e.user_version,
                result: e.result,
                returns: e.returns.clone(),
            })
            .collect();
        let dropped = self.list.iter().take(self.droppable(log, cut.len())).next_back();
        Trim {
            log_to: after(upto),
            batch_key: version_key(upto),
            batch: encode_batch(&cut),
            dups_to: dropped.map(|(v, _)| after(*v)),
            upto,
            entries: cut.len(),
        }
    }

    /// What [`Self::trim`] gave is submitted, and `log` is not cut yet.
    pub fn trimmed(&mut self, log: &PgLog, trim: &Trim) {
        let gone = self.droppable(log, trim.entries);
        self.list.drain(..gone);
        self.list.push_back((trim.upto, trim.entries));
    }

    /// A batch was found in the store; they come in order.
    pub fn loaded(&mut self, last: EVersion, len: usize) {
        self.list.push_back((last, len));
    }

    pub fn clear(&mut self) {
        self.list.clear();
    }

    /// How many of the oldest batches may go when `cut` more records come into the table.
    fn droppable(&self, log: &PgLog, cut: usize) -> usize {
        let stored: usize = self.list.iter().map(|(_, len)| len).sum();
        let (mut kept, mut n) = (stored + log.len(), 0);
        let mut in_table = stored + cut;
        for (_, len) in &self.list {
            if kept - len < log.limits().dups || in_table < *len {
                break;
            }
            kept -= len;
            in_table -= len;
            n += 1;
        }
        n
    }
}

/// A batch as it is stored.
pub fn encode_batch(dups: &[DupRecord]) -> Bytes {
    let mut batch = vec![BATCH_VERSION];
    (dups.len() as u32).encode(&mut batch, F);
    dups.iter().for_each(|d| d.encode(&mut batch, F));
    batch.into()
}

fn after(v: EVersion) -> [u8; 12] {
    version_key(EVersion { version: v.version + 1, ..v })
}

#[cfg(test)]
mod tests {
    use spirula_pg::LogLimits;
    use spirula_wire::types::{EntityName, PgLogEntry, RequestId};

    use super::*;
    use crate::pg::log::decode_batch;

    const SMALL: LogLimits = LogLimits { entries: 4, batch: 3, dups: 10, undoes: true };

    fn entry(tid: u64) -> PgLogEntry {
        PgLogEntry {
            version: EVersion::new(2, tid),
            reqid: RequestId { name: EntityName::client(7), tid, inc: 0 },
            user_version: tid,
            result: -(tid as i32),
            returns: vec![(0, "out".into())],
            ..PgLogEntry::default()
        }
    }

    #[test]
    fn the_store_keeps_what_memory_does() {
        let (mut log, mut batches) = (PgLog::new(SMALL), Batches::default());
        let (mut entries, mut dups) = (Vec::new(), Vec::<([u8; 12], Bytes)>::new());
        for tid in 1..=100 {
            if let Some(upto) = log.due_trim(log.head()) {
                let trim = batches.trim(&log, upto);
                entries.retain(|v| version_key(*v) >= trim.log_to);
                dups.retain(|(k, _)| trim.dups_to.is_none_or(|to| *k >= to));
                dups.push((trim.batch_key, trim.batch.clone()));
                batches.trimmed(&log, &trim);
                log.trim(upto);
            }
            log.append(entry(tid));
            log.advance_horizon(log.head());
            entries.push(EVersion::new(2, tid));
            assert!(log.len() <= 7 && log.len() == entries.len());
            let stored: Vec<_> =
                dups.iter().flat_map(|(_, raw)| decode_batch(raw).unwrap()).collect();
            let kept = stored.len() + entries.len();
            assert!(kept >= 10.min(tid as usize) && kept <= 10 + 3 + 7, "{kept} at {tid}");
            // What memory answers the store has.
            for dup in log.dups() {
                let found = stored.iter().find(|d| d.reqid == dup.reqid).unwrap();
                assert_eq!(
                    (found.version, found.result, &found.returns),
                    (dup.version, dup.result, &dup.returns)
                );
            }
            let mut again = Batches::default();
            for (_, raw) in &dups {
                let batch = decode_batch(raw).unwrap();
                again.loaded(batch.last().unwrap().version, batch.len());
            }
            assert_eq!(again.list, batches.list);
        }
    }
}
