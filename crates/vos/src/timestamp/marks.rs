//! What is known of one place in the store: when it was last read and written, and by whom.
//!
//! Of each there is a low and a high mark. Low: the place was read as a whole, which is in the way
//! of a write anywhere below. High: it, or anything below, was read, which is in the way of a write
//! of the whole. Invariant: marks only rise.

use super::{TxId, TxStamp};

/// Marks of a place, or of several that are not told apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Marks {
    read_low: Read,
    read_high: Read,
    write_low: Writes,
    write_high: Writes,
}

/// The last read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Read {
    epoch: u64,
    /// Who read at `epoch`; [`MANY`]: more than one, or nobody knows.
    by: TxId,
}

/// No transaction is `MANY`, not even one with this id.
const MANY: TxId = TxId([u8::MAX; 16]);

/// The last write, and a bound for all others. With one epoch alone, a write beyond somebody's
/// uncertainty would hide those within it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Writes {
    newest: u64,
    others_max: u64,
}

impl Marks {
    /// Anything may have happened up to `epoch`.
    pub(super) fn unknown(epoch: u64) -> Marks {
        let read = Read { epoch, by: MANY };
        let write = Writes { newest: epoch, others_max: epoch };
        Marks { read_low: read, read_high: read, write_low: write, write_high: write }
    }

    /// The last read in the way of a write by `by`: of the place itself if it is the end of its
    /// path.
    pub(super) fn read_after(&self, end: bool, by: &TxStamp) -> Option<u64> {
        let read = if end { &self.read_high } else { &self.read_low };
        read.blocks(by).then_some(read.epoch)
    }

    /// Up to where writes make the epoch of `by` uncertain.
    pub(super) fn written_within(&self, end: bool, by: &TxStamp) -> Option<u64> {
        let writes = if end { &self.write_high } else { &self.write_low };
        writes.last_within(by.epoch, by.bound)
    }

    pub(super) fn note_read(&mut self, end: bool, by: &TxStamp) {
        let read = Read { epoch: by.epoch, by: by.id };
        self.read_high.merge(&read);
        if end {
            self.read_low.merge(&read);
        }
    }

    pub(super) fn note_write(&mut self, end: bool, epoch: u64) {
        let write = Writes { newest: epoch, others_max: 0 };
        self.write_high.merge(&write);
        if end {
            self.write_low.merge(&write);
        }
    }

    /// What happened to `other` may have happened here.
    pub(super) fn merge(&mut self, other: &Marks) {
        self.read_low.merge(&other.read_low);
        self.read_high.merge(&other.read_high);
        self.write_low.merge(&other.write_low);
        self.write_high.merge(&other.write_high);
    }

    /// What happened anywhere below `other` may have happened everywhere below this place.
    pub(super) fn cover(&mut self, other: &Marks) {
        let (read, write) = (other.read_high, other.write_high);
        self.merge(&Marks { read_low: read, read_high: read, write_low: write, write_high: write });
    }
}

impl Read {
    fn blocks(&self, by: &TxStamp) -> bool {
        self.epoch > by.epoch || (self.epoch == by.epoch && (self.by == MANY || self.by != by.id))
    }

    fn merge(&mut self, other: &Read) {
        if other.epoch > self.epoch {
            *self = *other;
        } else if other.epoch == self.epoch && other.by != self.by {
            self.by = MANY;
        }
    }
}

impl Writes {
    /// Writes in `(epoch, bound]` may exist up to here.
    fn last_within(&self, epoch: u64, bound: u64) -> Option<u64> {
        if epoch >= bound {
            return None;
        }
        let last = if self.newest <= bound { self.newest } else { self.others_max.min(bound) };
        (last > epoch).then_some(last)
    }

    fn merge(&mut self, other: &Writes) {
        let older = if self.newest == other.newest { 0 } else { self.newest.min(other.newest) };
        self.others_max = self.others_max.max(other.others_max).max(older);
        self.newest = self.newest.max(other.newest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tx(id: u8, epoch: u64) -> TxStamp {
        TxStamp::certain(TxId([id; 16]), epoch)
    }

    #[test]
    fn own_reads_are_not_in_the_way_unless_others_read_too() {
        let mut marks = Marks::unknown(0);
        marks.note_read(true, &tx(1, 10));
        assert_eq!(marks.read_after(true, &tx(1, 10)), None);
        assert_eq!(marks.read_after(true, &tx(2, 10)), Some(10));
        assert_eq!(marks.read_after(true, &tx(1, 9)), Some(10));
        assert_eq!(marks.read_after(true, &tx(2, 11)), None);
        marks.note_read(true, &tx(2, 10));
        assert_eq!(marks.read_after(true, &tx(1, 10)), Some(10));
    }

    #[test]
    fn the_id_that_means_many_is_nobodys() {
        let mut marks = Marks::unknown(0);
        marks.note_read(true, &tx(u8::MAX, 10));
        assert_eq!(marks.read_after(true, &tx(u8::MAX, 10)), Some(10));
    }

    #[test]
    fn a_read_below_is_in_the_way_of_the_whole_only() {
        let mut marks = Marks::unknown(0);
        marks.note_read(false, &tx(1, 10));
        assert_eq!(marks.read_after(true, &tx(2, 5)), Some(10));
        assert_eq!(marks.read_after(false, &tx(2, 5)), None);
    }

    #[test]
    fn a_write_beyond_the_bound_does_not_hide_one_within() {
        let within = |epochs: &[u64], epoch, bound| {
            let mut marks = Marks::unknown(0);
            epochs.iter().for_each(|&e| marks.note_write(true, e));
            marks.written_within(true, &TxStamp { bound, ..tx(1, epoch) })
        };
        assert_eq!(within(&[10], 10, 20), None);
        assert_eq!(within(&[15], 10, 20), Some(15));
        assert_eq!(within(&[20], 10, 20), Some(20));
        assert_eq!(within(&[21], 10, 20), None);
        assert_eq!(within(&[21, 21, 10], 10, 20), None);
        assert_eq!(within(&[11, 21], 10, 20), Some(11));
        assert_eq!(within(&[21, 11], 10, 20), Some(11));
        assert_eq!(within(&[21, 22], 10, 20), Some(20), "there could be more");
        assert_eq!(within(&[11], 20, 20), None, "certain");
    }

    #[test]
    fn merging_keeps_the_bound_for_what_is_unknown() {
        let mut marks = Marks::unknown(0);
        marks.note_write(true, 5);
        marks.merge(&Marks::unknown(10));
        let by = TxStamp { bound: 9, ..tx(1, 6) };
        assert_eq!(marks.written_within(true, &by), Some(9));
    }
}
