//! The timestamp cache: who read and wrote what and when, so that transactions are serializable in
//! the order of their epochs.
//!
//! A transaction does all at one epoch. A write at epoch e must not change what somebody else has
//! read at e or later ([`Cache::check_write`]); and while the epoch is uncertain, because clocks
//! differ, nothing must have been written after it and within the uncertainty
//! ([`Cache::check_read`]). What fails starts again, with the same id, above [`Restart::after`].
//!
//! An operation is one on the whole subtree of its [`Path`]: listing and querying the keys of an
//! object reads the object, punching a range of akeys writes their dkey, writing a part of an array
//! writes its akey. So some pairs conflict that would not have to.
//!
//! # How a transaction calls it
//!
//! [`crate::Vos`] does, if it keeps timestamps ([`crate::Vos::keep_timestamps`]): reads of
//! [`crate::Vos::view_of`], and everything that is staged. Nothing may await between the checks and the notes of one call to the store.
//!
//! A read, with the same epoch: `check_read`; ask the [`crate::Vos`]; `note_read` with what was
//! found. While pages are missing, or a prepared transaction is in the way, nothing is noted.
//!
//! A write with its conditions:
//! 1. `check_read` of each condition, then evaluate it. If it fails, `note_read`: a failed
//!    condition is an answer that must stay true. An answer of a plain read is one, too.
//! 2. `check_write` of each update and punch. After a [`Restart`] nothing is noted.
//! 3. Stage. After an error other than of a condition nothing is noted. (The store evaluates conditions
//!    while it stages, so it does this before 2 and takes it back.)
//! 4. `note_read` of the conditions, `note_write` of the updates and punches: when they are staged
//!    or prepared, not later, for a prepared write counts for the uncertainty of others.
//!
//! Making a retained epoch of a container reads all of it: `note_read` of the container at that
//! epoch; then reads at it need no note. When objects come into a container by a split or a merge:
//! [`Cache::inherit`]. Replay, import and aggregation change nothing that a transaction could have
//! read differently: they call nothing here.
//!
//! Invariants: memory is fixed when the cache is made. What was noted is never forgotten, only
//! blurred: other keys may seem to have been read, too. After a restart of the process everything
//! counts as read when it began.

mod marks;
mod path;
mod table;
#[cfg(test)]
mod tests;

use crate::types::ContainerId;
pub use crate::types::TxId;

use marks::Marks;
pub use path::{Level, Path};
use table::Table;

/// Memory of a target's cache, unless configured otherwise.
pub const CACHE_BYTES: usize = 16 << 20;

/// What the levels get of the memory, from container to akey.
const SHARES: [usize; Level::COUNT] = [1, 7, 8, 16];
const SHARES_SUM: usize = 32;

/// A transaction and its place in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TxStamp {
    /// The transaction.
    pub id: TxId,
    /// The epoch of all that it reads and writes.
    pub epoch: u64,
    /// What was written in `(epoch, bound]` may have been there before the transaction began.
    pub bound: u64,
}

impl TxStamp {
    /// A transaction whose epoch no clock can be ahead of.
    pub fn certain(id: TxId, epoch: u64) -> TxStamp {
        TxStamp { id, epoch, bound: epoch }
    }

    /// A transaction that had epoch `first` when it began, and now has `epoch`, while clocks differ
    /// by at most `uncertainty`: above `first + uncertainty` it is certain.
    pub fn uncertain(id: TxId, epoch: u64, first: u64, uncertainty: u64) -> TxStamp {
        TxStamp { id, epoch, bound: first.saturating_add(uncertainty) }
    }
}

/// What a read found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Everything named by the path exists.
    Found,
    /// This level of the path, and all below, does not. Such reads get no entry of their own, so
    /// that they cannot drive others out.
    Missing(Level),
}

/// The transaction must start again; with an epoch above `after` the same check succeeds, unless
/// others came in between.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("restart above epoch {after}: {cause} ({level:?})")]
pub struct Restart {
    /// The latest epoch in the way.
    pub after: u64,
    /// What is in the way.
    pub cause: Cause,
    /// What it is about: this level of the place that is read or written.
    pub level: Level,
}

/// Why a transaction must start again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Cause {
    /// Another transaction read at the epoch of a write or later.
    #[error("another transaction read what is written")]
    Read,
    /// Something was written after the epoch and within its uncertainty.
    #[error("the order against another write is uncertain")]
    Uncertain,
    /// An object is to be punched before its newest change and has too much in it that may have come
    /// after the punch.
    #[error("a large object has been changed since")]
    Late,
}

/// The timestamp cache of one target. To be asked first ([`Cache::check_read`],
/// [`Cache::check_write`]) and told afterwards ([`Cache::note_read`], [`Cache::note_write`],
/// [`Cache::inherit`]).
pub struct Cache {
    tables: [Table; Level::COUNT],
}

impl Cache {
    /// A cache of at most `bytes` (and a few KiB at least). Up to epoch `start` everything counts
    /// as read and written: the clock when the process began.
    pub fn new(start: u64, bytes: usize) -> Cache {
        let unknown = Marks::unknown(start);
        Cache { tables: SHARES.map(|share| Table::new(bytes / SHARES_SUM * share, unknown)) }
    }

    /// Memory in use, whatever is in the cache.
    pub fn bytes(&self) -> usize {
        self.tables.iter().map(Table::bytes).sum()
    }

    /// Whether `by` may read what is at `path`.
    pub fn check_read(&self, path: &Path, by: &TxStamp) -> Result<(), Restart> {
        self.uncertain(path, by).map_or(Ok(()), Err)
    }

    /// Whether `by` may write what is at `path`.
    pub fn check_write(&self, path: &Path, by: &TxStamp) -> Result<(), Restart> {
        let readers = self.on_way(path).filter_map(|(level, marks)| {
            let after = marks.read_after(level == path.level(), by)?;
            Some(Restart { after, cause: Cause::Read, level })
        });
        let read = readers.max_by_key(|r| r.after);
        let both = [read, self.uncertain(path, by)];
        both.into_iter().flatten().max_by_key(|r| r.after).map_or(Ok(()), Err)
    }

    /// `by` has read what is at `path`.
    pub fn note_read(&mut self, path: &Path, by: &TxStamp, outcome: Outcome) {
        for (level, fingerprint) in path.levels() {
            let exists = match outcome {
                Outcome::Found => true,
                Outcome::Missing(missing) => level < missing,
            };
            let marks = self.tables[level as usize].update(fingerprint, exists);
            marks.note_read(level == path.level(), by);
        }
    }

    /// `by` has written what is at `path`, or is prepared to.
    pub fn note_write(&mut self, path: &Path, by: &TxStamp) {
        for (level, fingerprint) in path.levels() {
            let marks = self.tables[level as usize].update(fingerprint, true);
            marks.note_write(level == path.level(), by.epoch);
        }
    }

    /// Objects of `from` are in `to` from now on: all of `to` counts as read and written when
    /// anything in `from` last was.
    pub fn inherit(&mut self, to: ContainerId, from: ContainerId) {
        let table = &mut self.tables[Level::Container as usize];
        let from = *table.get(Path::container(from).fingerprint());
        table.update(Path::container(to).fingerprint(), true).cover(&from);
    }

    fn uncertain(&self, path: &Path, by: &TxStamp) -> Option<Restart> {
        let writes = self.on_way(path).filter_map(|(level, marks)| {
            let after = marks.written_within(level == path.level(), by)?;
            Some(Restart { after, cause: Cause::Uncertain, level })
        });
        writes.max_by_key(|r| r.after)
    }

    /// What is known of `path` and all above it.
    fn on_way(&self, path: &Path) -> impl Iterator<Item = (Level, &Marks)> {
        path.levels().map(|(level, fp)| (level, self.tables[level as usize].get(fp)))
    }
}
