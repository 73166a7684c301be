//! The entries of one level: an array of sets, each with a few entries and a floor.
//!
//! A fingerprint belongs to one set. The least recently used entry of a set makes place for a new
//! one and raises the floor, which stands for everything of the set that has no entry. No links and
//! no index: the memory is exactly that of the array.

use super::marks::Marks;

/// Entries of a set.
pub(super) const WAYS: usize = 8;

const SET_BYTES: usize = size_of::<Set>();
const _: () = assert!(size_of::<Entry>() == 96);

/// All entries of a level.
pub(super) struct Table {
    sets: Vec<Set>,
    /// Counts the updates, to tell which entries were used last.
    clock: u64,
}

#[derive(Clone, Copy)]
struct Set {
    floor: Marks,
    entries: [Entry; WAYS],
}

#[derive(Clone, Copy)]
struct Entry {
    fingerprint: u64,
    /// Zero: the entry is free.
    used: u64,
    marks: Marks,
}

impl Table {
    /// A table of at most `bytes`, but of one set at least, in which everything is `unknown`.
    pub(super) fn new(bytes: usize, unknown: Marks) -> Table {
        let free = Entry { fingerprint: 0, used: 0, marks: unknown };
        let set = Set { floor: unknown, entries: [free; WAYS] };
        Table { sets: vec![set; (bytes / SET_BYTES).max(1)], clock: 0 }
    }

    pub(super) fn bytes(&self) -> usize {
        self.sets.len() * SET_BYTES
    }

    /// What is known of `fingerprint`.
    pub(super) fn get(&self, fingerprint: u64) -> &Marks {
        let set = &self.sets[self.set_of(fingerprint)];
        set.find(fingerprint).map_or(&set.floor, |i| &set.entries[i].marks)
    }

    /// What is known of `fingerprint`, to be added to. Without an entry, and unless `insert`, that
    /// is what the rest of its set shares.
    pub(super) fn update(&mut self, fingerprint: u64, insert: bool) -> &mut Marks {
        self.clock += 1;
        let index = self.set_of(fingerprint);
        let set = &mut self.sets[index];
        let entry = match set.find(fingerprint) {
            Some(entry) => entry,
            None if insert => set.insert(fingerprint),
            None => return &mut set.floor,
        };
        set.entries[entry].used = self.clock;
        &mut set.entries[entry].marks
    }

    pub(super) fn set_of(&self, fingerprint: u64) -> usize {
        ((u128::from(fingerprint) * self.sets.len() as u128) >> 64) as usize
    }
}

impl Set {
    fn find(&self, fingerprint: u64) -> Option<usize> {
        self.entries.iter().position(|e| e.fingerprint == fingerprint && e.used != 0)
    }

    fn insert(&mut self, fingerprint: u64) -> usize {
        // All that was noted of it so far is in the floor; what leaves now is not about it.
        let marks = self.floor;
        let oldest = (0..WAYS).min_by_key(|&i| self.entries[i].used).unwrap_or(0);
        let entry = &mut self.entries[oldest];
        if entry.used != 0 {
            self.floor.merge(&entry.marks);
        }
        *entry = Entry { fingerprint, used: 0, marks };
        oldest
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::super::{TxId, TxStamp};
    use super::*;

    const ME: TxId = TxId([1; 16]);

    /// The epoch up to which a write of the place would be refused.
    fn read_until(table: &Table, fingerprint: u64) -> u64 {
        table.get(fingerprint).read_after(true, &TxStamp::certain(ME, 0)).unwrap_or(0)
    }

    #[test]
    fn misses_share_the_floor_and_take_no_entry() {
        let mut table = Table::new(0, Marks::unknown(0));
        table.update(1, true).note_read(true, &TxStamp::certain(ME, 5));
        for fingerprint in 100..200 {
            table.update(fingerprint, false).note_read(true, &TxStamp::certain(ME, 7));
        }
        assert_eq!(read_until(&table, 1), 5, "has its own entry still");
        assert_eq!(read_until(&table, 200), 7);
        table.update(1, false).note_read(true, &TxStamp::certain(ME, 6));
        assert_eq!(read_until(&table, 1), 6, "a miss of what has an entry is noted there");
    }

    #[test]
    fn a_new_entry_starts_from_the_floor() {
        let mut table = Table::new(0, Marks::unknown(3));
        table.update(1, false).note_read(true, &TxStamp::certain(ME, 9));
        table.update(1, true);
        assert_eq!(read_until(&table, 1), 9);
    }

    #[test]
    fn the_least_recently_used_entry_of_a_set_leaves() {
        let mut table = Table::new(4 * SET_BYTES, Marks::unknown(0));
        let mut used: HashMap<u64, u64> = HashMap::new();
        let mut noted: HashMap<u64, u64> = HashMap::new();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for step in 1..20_000 {
            // Spread over the sets, which take the upper bits.
            let fingerprint = rng.random_range(0..64_u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let epoch = rng.random_range(1..1_000_000);
            let stamp = TxStamp::certain(ME, epoch);
            table.update(fingerprint, true).note_read(true, &stamp);
            used.insert(fingerprint, step);
            let last = noted.entry(fingerprint).or_default();
            *last = epoch.max(*last);

            let mut rivals: Vec<u64> = used.keys().copied().collect();
            rivals.retain(|&f| table.set_of(f) == table.set_of(fingerprint));
            rivals.sort_unstable_by_key(|f| std::cmp::Reverse(used[f]));
            let set = &table.sets[table.set_of(fingerprint)];
            for (age, &rival) in rivals.iter().enumerate() {
                assert_eq!(set.find(rival).is_some(), age < WAYS, "age {age} at step {step}");
                assert!(read_until(&table, rival) >= noted[&rival], "forgotten at step {step}");
            }
        }
    }
}
