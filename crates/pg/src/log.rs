//! The PG log: the newest entries in version order, and the duplicate table of older ones.
//!
//! A duplicate is what answers a repeated request (version, result, returned data); it outlives the
//! entry it was part of, and follows its object through splits and merges as the log does.
//!
//! Invariants: versions ascend; `tail < entries <= head`, and `head` is the newest entry's version if
//! there is one; a request id is found as long as its record is kept.

use std::collections::VecDeque;

use foldhash::HashMap;
use spirula_wire::types::{EVersion, HObject, PgLogDup, PgLogEntry, PgLogMsg, RequestId};

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// Entries that stay when the log is cut.
    pub entries: usize,
    /// Entries over that which are worth a cut.
    pub batch: usize,
    /// Records, entries and duplicates together, that answer repetitions.
    pub dups: usize,
    /// The store keeps what entries above the horizon replaced, so that they can be undone; else their
    /// objects are fetched anew.
    pub undoes: bool,
}

/// A log of so many times the entries that stay is cut although objects are missing (Ceph's
/// `osd_max_pg_log_entries` is as much over `osd_min_pg_log_entries`).
const HARD_LIMIT: usize = 40;

impl Default for LogLimits {
    fn default() -> Self {
        Self { entries: 250, batch: 250, dups: 3000, undoes: true }
    }
}

#[derive(Clone, Debug, Default)]
pub struct PgLog {
    head: EVersion,
    tail: EVersion,
    entries: VecDeque<PgLogEntry>,
    /// Every acting copy holds the log up to here: it is never undone.
    horizon: EVersion,
    dups: VecDeque<PgLogDup>,
    index: HashMap<RequestId, EVersion>,
    limits: LogLimits,
}

impl PgLog {
    pub fn new(limits: LogLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// As it was sent or stored. Entries out of order end what is taken.
    pub fn from_wire(msg: PgLogMsg, limits: LogLimits) -> Self {
        let mut log = Self { head: msg.tail, tail: msg.tail, ..Self::new(limits) };
        log.horizon = msg.can_rollback_to;
        log.add_dups(msg.dups);
        for entry in msg.entries {
            if entry.version <= log.head {
                break;
            }
            log.append(entry);
        }
        log.head = log.head.max(msg.head);
        log
    }

    // --- getters

    pub fn head(&self) -> EVersion {
        self.head
    }

    pub fn tail(&self) -> EVersion {
        self.tail
    }

    pub fn horizon(&self) -> EVersion {
        self.horizon
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &PgLogEntry> + ExactSizeIterator {
        self.entries.iter()
    }

    pub fn dups(&self) -> impl ExactSizeIterator<Item = &PgLogDup> {
        self.dups.iter()
    }

    /// The entry of exactly this version.
    pub fn get(&self, version: EVersion) -> Option<&PgLogEntry> {
        let at = self.entries.binary_search_by_key(&version, |e| e.version).ok()?;
        self.entries.get(at)
    }

    /// Whether this log's history goes through `version`.
    pub fn passes(&self, version: EVersion) -> bool {
        version == self.tail || self.get(version).is_some()
    }

    /// The entries after `version`, oldest first.
    pub fn after(&self, version: EVersion) -> impl DoubleEndedIterator<Item = &PgLogEntry> {
        let from = self.entries.partition_point(|e| e.version <= version);
        self.entries.range(from..)
    }

    /// The newest version of the log's history before `version`.
    pub fn version_before(&self, version: EVersion) -> EVersion {
        let before = self.entries.partition_point(|e| e.version < version).checked_sub(1);
        before.and_then(|at| self.entries.get(at)).map_or(self.tail, |e| e.version)
    }

    /// The newest entry not after `upto` that changed `object`.
    pub fn last_update_of(&self, object: &HObject, upto: EVersion) -> Option<&PgLogEntry> {
        let until = self.entries.partition_point(|e| e.version <= upto);
        self.entries.range(..until).rev().find(|e| e.is_update() && e.object == *object)
    }

    /// What a request was answered with.
    pub fn find(&self, reqid: &RequestId) -> Option<PgLogDup> {
        let version = *self.index.get(reqid)?;
        if let Some(e) = self.get(version) {
            return Some(dup_of(e, reqid));
        }
        self.dups.iter().rev().find(|d| d.reqid == *reqid).cloned()
    }

    /// The part after `since`, or all of it if it does not reach back so far; the duplicates too
    /// for whom does not have them.
    pub fn to_wire(&self, since: EVersion, with_dups: bool) -> PgLogMsg {
        // A tail that the history went through, so that the receiver's log may connect with it.
        let before = self.entries.partition_point(|e| e.version <= since).checked_sub(1);
        let tail = before.and_then(|at| self.entries.get(at)).map_or(self.tail, |e| e.version);
        PgLogMsg {
            head: self.head,
            tail,
            entries: self.after(tail).cloned().collect(),
            can_rollback_to: self.horizon,
            rollback_info_trimmed_to: self.horizon,
            dups: if with_dups { self.dups.iter().cloned().collect() } else { Vec::new() },
        }
    }

    pub fn limits(&self) -> LogLimits {
        self.limits
    }

    // --- changes

    pub fn set_limits(&mut self, limits: LogLimits) {
        self.limits = limits;
    }

    /// Adds the next entry; one that is not newer is already there.
    pub fn append(&mut self, entry: PgLogEntry) -> bool {
        if entry.version <= self.head {
            return false;
        }
        self.head = entry.version;
        self.index_entry(&entry);
        self.entries.push_back(entry);
        true
    }

    /// Every acting copy holds everything up to `version`.
    pub fn advance_horizon(&mut self, version: EVersion) {
        self.horizon = self.horizon.max(version.min(self.head));
    }

    /// Takes the entries after `version` off, newest first.
    pub(crate) fn rewind(&mut self, version: EVersion) -> Vec<PgLogEntry> {
        let mut gone = Vec::new();
        while self.entries.back().is_some_and(|e| e.version > version) {
            let Some(entry) = self.entries.pop_back() else {
                break;
            };
            self.forget(&entry.reqid, entry.version);
            entry.extra_reqids.iter().for_each(|(r, _)| self.forget(r, entry.version));
            gone.push(entry);
        }
        self.head = self.head.min(version);
        // Only an operator's word about lost OSDs undoes what all had.
        self.horizon = self.horizon.min(self.head);
        gone
    }

    pub(crate) fn set_head(&mut self, head: EVersion) {
        self.head = self.entries.back().map_or(self.tail, |e| e.version).max(head);
    }

    /// Older entries of the same history, before the tail.
    pub(crate) fn extend_back(&mut self, tail: EVersion, older: Vec<PgLogEntry>) {
        for entry in older.into_iter().rev() {
            let first = self.entries.front().map_or(self.head, |e| e.version);
            if entry.version < first || (self.entries.is_empty() && entry.version <= first) {
                self.index_entry(&entry);
                self.entries.push_front(entry);
            }
        }
        self.tail = self.tail.min(tail);
        let oldest = self.tail;
        // They are entries again.
        self.dups.retain(|d| d.version <= oldest);
    }

    /// Where the log should be cut: not beyond what every acting copy has, nor, while it is not too long,
    /// beyond `limit`.
    pub fn due_trim(&self, limit: EVersion) -> Option<EVersion> {
        let excess = self.len().checked_sub(self.limits.entries)?;
        let oldest_kept = self.entries.get(excess.checked_sub(1)?)?.version;
        let cut = self.allowed_trim(oldest_kept.min(self.horizon), limit);
        let gone = self.entries.partition_point(|e| e.version <= cut);
        (gone >= self.limits.batch.max(1)).then_some(cut)
    }

    /// As far of `cut` as `limit` allows, which counts only while the log is not too long.
    pub(crate) fn allowed_trim(&self, cut: EVersion, limit: EVersion) -> EVersion {
        let too_long = self.len() > self.limits.entries.saturating_mul(HARD_LIMIT);
        if too_long { cut } else { cut.min(limit) }
    }

    /// Cuts the entries up to `upto`; what answers repetitions stays in the duplicate table.
    pub fn trim(&mut self, upto: EVersion) {
        let upto = upto.min(self.head);
        while self.entries.front().is_some_and(|e| e.version <= upto) {
            let Some(entry) = self.entries.pop_front() else {
                break;
            };
            let extra = entry.extra_reqids.iter().map(|(r, _)| dup_of(&entry, r));
            self.dups.extend(std::iter::once(dup_of(&entry, &entry.reqid)).chain(extra));
        }
        self.tail = self.tail.max(upto);
        self.bound_dups();
    }

    /// Duplicates of the same history that are older than the log.
    pub(crate) fn add_dups(&mut self, dups: Vec<PgLogDup>) {
        for dup in dups {
            if dup.version <= self.tail && !self.index.contains_key(&dup.reqid) {
                self.index_request(dup.reqid, dup.version);
                self.dups.push_back(dup);
            }
        }
        self.dups.make_contiguous().sort_by_key(|d| d.version);
        self.bound_dups();
    }

    fn bound_dups(&mut self) {
        while self.dups.len() + self.entries.len() > self.limits.dups {
            let Some(old) = self.dups.pop_front() else {
                break;
            };
            self.forget(&old.reqid, old.version);
        }
    }

    fn index_entry(&mut self, entry: &PgLogEntry) {
        self.index_request(entry.reqid, entry.version);
        entry.extra_reqids.iter().for_each(|(r, _)| self.index_request(*r, entry.version));
    }

    fn index_request(&mut self, reqid: RequestId, version: EVersion) {
        if reqid != RequestId::default() {
            self.index.insert(reqid, version);
        }
    }

    fn forget(&mut self, reqid: &RequestId, version: EVersion) {
        // It may have been logged again since.
        if self.index.get(reqid) == Some(&version) {
            self.index.remove(reqid);
        }
    }

    // --- splits and merges of PGs

    /// Takes off what belongs to a child, by its objects. Both logs keep head and tail, so that both
    /// connect with whatever the whole one connected with; both keep all duplicates, which do not
    /// name their object.
    pub fn split(&mut self, in_child: impl Fn(&HObject) -> bool) -> Self {
        let (child, own): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.entries).into_iter().partition(|e| in_child(&e.object));
        let rebuild = |entries: Vec<PgLogEntry>, from: &Self| {
            let mut log = Self { horizon: from.horizon, tail: from.tail, ..Self::new(from.limits) };
            log.add_dups(from.dups.iter().cloned().collect());
            log.head = log.tail;
            entries.into_iter().for_each(|e| {
                log.append(e);
            });
            log.head = from.head;
            log
        };
        let child = rebuild(child, self);
        *self = rebuild(own, self);
        child
    }

    /// Takes over the log of a PG that is merged into this one. Both are clean, so that no entry is
    /// needed to bring a copy on: everything becomes a duplicate.
    pub fn merge(&mut self, mut other: Self) {
        self.trim(self.head);
        other.trim(other.head);
        self.head = self.head.max(other.head);
        self.tail = self.head;
        self.horizon = self.head;
        self.add_dups(other.dups.into());
    }
}

fn dup_of(entry: &PgLogEntry, reqid: &RequestId) -> PgLogDup {
    let extra = entry.extra_reqids.iter().position(|(r, _)| r == reqid);
    let (user_version, result) = match extra {
        Some(at) => {
            let result = u32::try_from(at).ok().and_then(|at| entry.extra_results.get(&at));
            (entry.extra_reqids[at].1, result.copied().unwrap_or(0))
        }
        None => (entry.user_version, entry.result),
    };
    let returns = if extra.is_some() { Vec::new() } else { entry.returns.clone() };
    PgLogDup { reqid: *reqid, version: entry.version, user_version, result, returns }
}

#[cfg(test)]
pub(crate) mod tests {
    use spirula_wire::types::{EntityName, log_op};

    use super::*;

    pub(crate) fn v(epoch: u32, version: u64) -> EVersion {
        EVersion::new(epoch, version)
    }

    pub(crate) fn object(name: &'static str) -> HObject {
        HObject { oid: name.into(), hash: u32::from(name.as_bytes()[0]), pool: 1, ..HObject::min() }
    }

    pub(crate) fn entry(name: &'static str, at: EVersion, prior: EVersion) -> PgLogEntry {
        let reqid =
            RequestId { name: EntityName::client(1), tid: at.version, inc: at.epoch as i32 };
        let mut e = PgLogEntry {
            op: log_op::MODIFY,
            object: object(name),
            version: at,
            prior_version: prior,
            reqid,
            user_version: at.version,
            result: at.version as i32,
            ..Default::default()
        };
        e.set_store_epoch(at.version * 10);
        e
    }

    /// A log of entries `name@epoch'version`, with priors as they follow.
    pub(crate) fn log(tail: EVersion, entries: &[(&'static str, EVersion)]) -> PgLog {
        let mut log = PgLog::from_wire(
            PgLogMsg { tail, head: tail, ..Default::default() },
            LogLimits::default(),
        );
        for &(name, at) in entries {
            let prior =
                log.last_update_of(&object(name), at).map_or(EVersion::default(), |e| e.version);
            log.append(entry(name, at, prior));
        }
        log
    }

    #[test]
    fn duplicates_outlive_the_entries() {
        let mut log = PgLog::new(LogLimits { entries: 4, batch: 3, dups: 10, undoes: true });
        for n in 1..=50 {
            log.append(entry("a", v(1, n), v(1, n - 1)));
            if n == 20 {
                assert_eq!(log.due_trim(log.head()), None, "nothing is known to be everywhere");
            }
            if n >= 20 {
                log.advance_horizon(v(1, n));
            }
            if let Some(cut) = log.due_trim(log.head()) {
                log.trim(cut);
            }
            assert!(n < 20 || log.len() <= 7);
            assert!(log.len() + log.dups().len() >= 10.min(n as usize));
            assert_eq!(log.find(&entry("a", v(1, n), v(0, 0)).reqid).unwrap().result, n as i32);
        }
        let known = (1..=50).filter(|n| log.find(&entry("a", v(1, *n), v(0, 0)).reqid).is_some());
        assert_eq!(known.collect::<Vec<_>>(), (41..=50).collect::<Vec<_>>());
    }

    #[test]
    fn a_missing_object_holds_the_log_up_but_not_for_ever() {
        let mut log = PgLog::new(LogLimits { entries: 4, batch: 3, dups: 10, undoes: true });
        for n in 1..=500 {
            log.append(entry("a", v(1, n), v(1, n - 1)));
            log.advance_horizon(v(1, n));
            if let Some(cut) = log.due_trim(v(0, 0)) {
                log.trim(cut);
            }
            assert_eq!(log.tail() == v(0, 0), n <= 4 * 40, "{n}");
        }
        assert!(log.len() <= 4 * 40);
    }

    #[test]
    fn what_is_sent_is_what_is_there() {
        let mut a = log(v(0, 0), &[("a", v(1, 1)), ("b", v(1, 2)), ("a", v(2, 3))]);
        a.trim(v(1, 1));
        let b = PgLog::from_wire(a.to_wire(v(0, 0), true), LogLimits::default());
        assert_eq!((b.head(), b.tail(), b.len()), (v(2, 3), v(1, 1), 2));
        assert_eq!(b.find(&entry("a", v(1, 1), v(0, 0)).reqid).unwrap().version, v(1, 1));
        assert_eq!(a.to_wire(v(1, 2), false).entries.len(), 1);
        let bad = PgLogMsg {
            entries: vec![entry("a", v(2, 2), v(0, 0)), entry("a", v(1, 1), v(0, 0))],
            ..Default::default()
        };
        assert_eq!(PgLog::from_wire(bad, LogLimits::default()).len(), 1);
    }

    #[test]
    fn an_undone_request_is_forgotten() {
        let mut a = log(v(0, 0), &[("a", v(1, 1)), ("a", v(1, 2))]);
        let gone = a.rewind(v(1, 1));
        assert_eq!((gone.len(), a.head()), (1, v(1, 1)));
        assert_eq!(a.find(&gone[0].reqid), None);
        assert!(a.append(entry("b", v(3, 2), v(0, 0))));
    }

    #[test]
    fn records_follow_splits_and_merges() {
        let mut a = log(v(0, 0), &[("a", v(1, 1)), ("b", v(1, 2)), ("a", v(1, 3)), ("b", v(1, 4))]);
        a.trim(v(1, 2));
        let mut b = a.split(|o| *o == object("b"));
        for (log, own) in [(&a, v(1, 3)), (&b, v(1, 4))] {
            assert_eq!((log.head(), log.tail(), log.len()), (v(1, 4), v(1, 2), 1));
            assert!(log.passes(own));
            assert_eq!(log.dups().len(), 2);
        }
        b.append(entry("b", v(2, 5), v(1, 4)));
        a.merge(b);
        assert_eq!((a.head(), a.tail(), a.len()), (v(2, 5), v(2, 5), 0));
        for (e, n) in [(1, 1), (1, 2), (1, 3), (1, 4), (2, 5)] {
            assert!(a.find(&entry("a", v(e, n), v(0, 0)).reqid).is_some(), "{n}");
        }
    }
}
