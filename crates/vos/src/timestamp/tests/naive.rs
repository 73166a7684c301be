//! The same questions answered from a list of everything that happened.

use crate::timestamp::{Cache, Outcome, Path, TxStamp};
use crate::types::ContainerId;

/// Places are written as one letter for each level: `coda` is an akey, `co` its object.
pub(super) fn path(place: &str) -> Path {
    match place.as_bytes() {
        [c] => Path::container(cid(*c)),
        [c, o] => Path::object(cid(*c), &[*o]),
        [c, o, d] => Path::dkey(cid(*c), &[*o], &[*d]),
        [c, o, d, a] => Path::akey(cid(*c), &[*o], &[*d], &[*a]),
        _ => panic!("{place}"),
    }
}

pub(super) fn cid(letter: u8) -> ContainerId {
    ContainerId([letter; 16])
}

/// Whether one place is the other, or below it.
pub(super) fn overlap(a: &str, b: &str) -> bool {
    a.starts_with(b) || b.starts_with(a)
}

/// What the cache does, and what the history does without its bound.
pub(super) trait Timestamps {
    fn may_read(&self, place: &str, by: &TxStamp) -> bool;
    fn may_write(&self, place: &str, by: &TxStamp) -> bool;
    fn note(&mut self, place: &str, by: &TxStamp, outcome: Outcome);
    fn wrote(&mut self, place: &str, by: &TxStamp);
}

impl Timestamps for Cache {
    fn may_read(&self, place: &str, by: &TxStamp) -> bool {
        self.check_read(&path(place), by).is_ok()
    }

    fn may_write(&self, place: &str, by: &TxStamp) -> bool {
        self.check_write(&path(place), by).is_ok()
    }

    fn note(&mut self, place: &str, by: &TxStamp, outcome: Outcome) {
        self.note_read(&path(place), by, outcome);
    }

    fn wrote(&mut self, place: &str, by: &TxStamp) {
        self.note_write(&path(place), by);
    }
}

/// All reads and writes there were.
#[derive(Clone, Default)]
pub(super) struct History {
    pub(super) reads: Vec<(String, TxStamp)>,
    pub(super) writes: Vec<(String, TxStamp)>,
}

impl Timestamps for History {
    fn may_read(&self, place: &str, by: &TxStamp) -> bool {
        !self
            .writes
            .iter()
            .any(|(other, w)| overlap(other, place) && w.epoch > by.epoch && w.epoch <= by.bound)
    }

    fn may_write(&self, place: &str, by: &TxStamp) -> bool {
        let late = |r: &TxStamp| r.epoch > by.epoch || (r.epoch == by.epoch && r.id != by.id);
        self.may_read(place, by)
            && !self.reads.iter().any(|(other, r)| overlap(other, place) && late(r))
    }

    fn note(&mut self, place: &str, by: &TxStamp, _: Outcome) {
        self.reads.push((place.to_owned(), *by));
    }

    fn wrote(&mut self, place: &str, by: &TxStamp) {
        self.writes.push((place.to_owned(), *by));
    }
}
