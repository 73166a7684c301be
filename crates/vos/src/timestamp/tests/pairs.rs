//! Every operation that reads against every one that writes, in all orders of epochs, by the same
//! or another transaction, on the same place and beside it, before and after the first one's
//! commit.
//!
//! Each pair is played twice, with the cache and with the full history: all outcomes must be equal.
//! And what was answered must be what one transaction after the other, by epoch, would have been
//! answered.

use super::naive::{History, Timestamps, overlap};
use super::ops::{Act, Map, Must, OPS, Op, Write};
use crate::timestamp::{Cache, Level, Outcome, TxId, TxStamp};

/// What became of an operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Done(String),
    Exists,
    NonExistent,
    InProgress,
    Restart,
}

/// A store that decides with `stamps`.
struct Store<'a, T> {
    stamps: &'a mut T,
    map: Map,
    answered: Vec<Answered>,
    /// Nobody writes where a prepared transaction does, or earlier where its conditions looked: these.
    held: Option<Vec<(String, u64)>>,
}

/// What somebody was told.
#[derive(Clone)]
struct Answered {
    op: &'static Op,
    place: String,
    by: TxStamp,
    verdict: Verdict,
    /// What it wrote.
    wrote: Option<Write>,
}

impl<T: Timestamps> Store<'_, T> {
    /// Does the operation by the rules of the cache's documentation.
    fn run(&mut self, op: &'static Op, place: &str, by: TxStamp, commit: bool) -> Verdict {
        let verdict = self.judge(op, place, &by);
        if matches!(verdict, Verdict::Restart | Verdict::InProgress) {
            return verdict;
        }
        self.note(op, place, &by, &verdict);
        let done = matches!(verdict, Verdict::Done(_));
        if let (Some(held), Some(_), true, false) = (&mut self.held, op.act, done, commit) {
            held.extend(op.reads().map(|level| (upto(place, level).to_owned(), by.epoch)));
        }
        let wrote = op.act.filter(|_| done).map(|(level, act)| {
            let (value, place) = (self.map.writes.len(), upto(place, level).to_owned());
            Write { place, act, epoch: by.epoch, id: by.id, value, committed: commit }
        });
        self.map.writes.extend(wrote.clone());
        let (place, answer) = (place.to_owned(), verdict.clone());
        self.answered.push(Answered { op, place, by, verdict: answer, wrote });
        verdict
    }

    fn judge(&self, op: &Op, place: &str, by: &TxStamp) -> Verdict {
        for level in op.reads() {
            let place = upto(place, level);
            if !op.is_mark() && !self.stamps.may_read(place, by) {
                return Verdict::Restart;
            }
            let unresolved = |w: &&Write| !w.committed && w.id != by.id && w.epoch <= by.epoch;
            if self.map.writes.iter().filter(unresolved).any(|w| overlap(&w.place, place)) {
                return Verdict::InProgress;
            }
        }
        if let (Some(held), Some((level, _))) = (&self.held, op.act) {
            let place = upto(place, level);
            let writes = |w: &&Write| !w.committed && overlap(&w.place, place);
            let looked = |(p, epoch): &(String, u64)| *epoch >= by.epoch && overlap(p, place);
            if self.map.writes.iter().any(|w| writes(&w)) || held.iter().any(looked) {
                return Verdict::InProgress;
            }
        }
        let verdict = evaluate(&self.map, op, place, by);
        match (&verdict, op.act) {
            (Verdict::Done(_), Some((level, _)))
                if !self.stamps.may_write(upto(place, level), by) =>
            {
                Verdict::Restart
            }
            _ => verdict,
        }
    }

    fn note(&mut self, op: &Op, place: &str, by: &TxStamp, verdict: &Verdict) {
        // A condition that fails has been read, what it guards has not.
        let count = if matches!(verdict, Verdict::Done(_)) { 2 } else { 1 };
        for level in op.reads().take(count) {
            let place = upto(place, level);
            self.stamps.note(place, by, self.outcome(place, by));
        }
        if let (Verdict::Done(_), Some((level, _))) = (verdict, op.act) {
            self.stamps.wrote(upto(place, level), by);
        }
    }

    fn outcome(&self, place: &str, by: &TxStamp) -> Outcome {
        let levels = Level::ALL.into_iter().zip(1..=place.len()).skip(1);
        let missing = |len: usize| !self.map.exists(&place[..len], by.epoch, by.id);
        let mut missing = levels.filter(|(_, len)| missing(*len));
        missing.next().map_or(Outcome::Found, |(level, _)| Outcome::Missing(level))
    }

    fn commit(&mut self) {
        self.map.writes.iter_mut().for_each(|w| w.committed = true);
        self.held.iter_mut().for_each(Vec::clear);
    }

    /// Whether all that was answered is what it would be with the transactions in the order of
    /// their epochs; those that share one, in the order they came.
    fn is_serializable(&self) -> bool {
        let mut answered = self.answered.clone();
        answered.sort_by_key(|a| a.by.epoch);
        let mut map = Map { writes: Vec::new(), objects_stay: self.map.objects_stay };
        answered.into_iter().all(|a| {
            let same = evaluate(&map, a.op, &a.place, &a.by) == a.verdict;
            map.writes.extend(a.wrote.map(|w| Write { committed: true, ..w }));
            same
        })
    }
}

fn upto(place: &str, level: Level) -> &str {
    &place[..=level as usize]
}

fn evaluate(map: &Map, op: &Op, place: &str, by: &TxStamp) -> Verdict {
    if let Some((level, must)) = op.must {
        match (must, map.exists(upto(place, level), by.epoch, by.id)) {
            (Must::Be, false) => return Verdict::NonExistent,
            (Must::NotBe, true) => return Verdict::Exists,
            _ => {}
        }
    }
    let answer = |(level, look)| map.answer(look, upto(place, level), by.epoch, by.id);
    Verdict::Done(op.look.map(answer).unwrap_or_default())
}

/// The circumstances of two operations, relative to a moment before both.
#[derive(Clone, Copy)]
pub(super) struct Case {
    pub(super) first: &'static Op,
    pub(super) second: &'static Op,
    /// Their epochs, and the end of the second one's uncertainty.
    pub(super) epochs: (u64, u64, u64),
    pub(super) same_tx: bool,
    /// Something was written to the place before both.
    pub(super) filled: bool,
    /// The first one is committed when the second one comes.
    pub(super) committed: bool,
    /// The second one's place differs from this level on.
    beside: Option<Level>,
}

const FILL: TxId = TxId([9; 16]);

impl Case {
    pub(super) fn second_place(&self) -> String {
        let differs = |level: usize| self.beside.is_some_and(|b| b as usize <= level);
        let letter = |(level, c): (usize, char)| match differs(level) {
            true => c.to_ascii_uppercase(),
            false => c,
        };
        "coda".chars().enumerate().map(letter).collect()
    }

    /// The outcomes of the first, of the second, and again of the second if it had to wait.
    fn play<T: Timestamps>(&self, stamps: &mut T, now: u64) -> Vec<Verdict> {
        self.play_on(Store { stamps, map: Map::default(), answered: Vec::new(), held: None }, now)
    }

    /// As the store does it, with a full history.
    pub(super) fn play_strictly(&self, now: u64) -> Vec<Verdict> {
        let map = Map { objects_stay: true, ..Map::default() };
        let stamps = &mut History::default();
        self.play_on(Store { stamps, map, answered: Vec::new(), held: Some(Vec::new()) }, now)
    }

    fn play_on<T: Timestamps>(&self, mut store: Store<'_, T>, now: u64) -> Vec<Verdict> {
        if self.filled {
            let by = TxStamp::certain(FILL, now + 1);
            assert_eq!(store.run(named("update"), "coda", by, true), Verdict::Done(String::new()));
        }
        let (first, second, bound) = self.epochs;
        let other = if self.same_tx { TxId([1; 16]) } else { TxId([2; 16]) };
        let by = TxStamp::certain(TxId([1; 16]), now + first);
        let mut verdicts = vec![store.run(self.first, "coda", by, self.committed)];

        let by = TxStamp { id: other, epoch: now + second, bound: now + bound };
        let place = self.second_place();
        verdicts.push(store.run(self.second, &place, by, true));
        store.commit();
        if verdicts[1] == Verdict::InProgress {
            verdicts.push(store.run(self.second, &place, by, true));
        }
        assert!(store.is_serializable(), "{}: {verdicts:?}", self.describe());
        verdicts
    }

    pub(super) fn describe(&self) -> String {
        format!(
            "{} then {} at {:?}, same tx {}, filled {}, committed {}, beside {:?}",
            self.first.name,
            self.second.name,
            self.epochs,
            self.same_tx,
            self.filled,
            self.committed,
            self.beside
        )
    }
}

pub(super) fn named(name: &str) -> &'static Op {
    OPS.iter().find(|op| op.name == name).unwrap()
}

/// All cases of two operations with these epochs.
pub(super) fn cases(
    first: &'static Op,
    second: &'static Op,
    epochs: &[(u64, u64, u64)],
) -> impl Iterator<Item = Case> {
    let beside = [None, Some(Level::Object), Some(Level::Dkey), Some(Level::Akey)];
    let both = [false, true];
    epochs.iter().copied().flat_map(move |epochs| {
        beside.into_iter().flat_map(move |beside| {
            both.into_iter().flat_map(move |same_tx| {
                both.into_iter().flat_map(move |filled| {
                    both.into_iter().map(move |committed| Case {
                        first,
                        second,
                        epochs,
                        same_tx,
                        filled,
                        committed,
                        beside,
                    })
                })
            })
        })
    })
}

/// Plays all cases with one cache, as time goes on, and counts how the second operation ended:
/// done, condition failed, waited, restarted.
fn play_all(cases: impl Iterator<Item = Case>) -> [usize; 4] {
    let mut cache = Cache::new(0, 1 << 20);
    let mut counts = [0; 4];
    for (i, case) in cases.enumerate() {
        let now = (i as u64 + 1) * 100;
        let verdicts = case.play(&mut cache, now);
        let expected = case.play(&mut History::default(), now);
        assert_eq!(verdicts, expected, "{}", case.describe());
        counts[match verdicts[1] {
            Verdict::Done(_) => 0,
            Verdict::Exists | Verdict::NonExistent => 1,
            Verdict::InProgress => 2,
            Verdict::Restart => 3,
        }] += 1;
    }
    counts
}

/// Everything that reads, then everything that writes.
pub(super) fn reads_then_writes() -> impl Iterator<Item = Case> {
    let epochs = &[(20, 10, 10), (10, 10, 10), (10, 20, 20)];
    let reading = OPS.iter().filter(|op| op.reads().next().is_some());
    let pairs = reading.flat_map(|r| OPS.iter().filter(|w| w.act.is_some()).map(move |w| (r, w)));
    pairs.flat_map(|(r, w)| cases(r, w, epochs))
}

/// Writes, then everything else while the order is uncertain.
pub(super) fn writes_then_uncertain() -> impl Iterator<Item = Case> {
    // The write is at the end of the uncertainty, after it, before it, or the other one is certain.
    let epochs = &[(20, 10, 20), (21, 10, 20), (10, 10, 20), (9, 10, 20), (15, 10, 10)];
    let writing = OPS.iter().filter(|op| op.act.is_some() && op.must.is_none());
    let others = |w| OPS.iter().filter(|op| !op.is_mark()).map(move |op| (w, op));
    writing.flat_map(others).flat_map(|(w, a)| cases(w, a, epochs))
}

#[test]
fn reads_and_writes() {
    let counts = play_all(reads_then_writes());
    assert_eq!(counts.iter().sum::<usize>(), 40 * 18 * 3 * 32);
    assert!(counts.iter().all(|&n| n > 300), "{counts:?}");
}

#[test]
fn uncertain_epochs() {
    let counts = play_all(writes_then_uncertain());
    assert_eq!(counts.iter().sum::<usize>(), 8 * 44 * 5 * 32);
    assert!(counts.iter().all(|&n| n > 300), "{counts:?}");
}

/// Conflicts that come from the rules being about whole subtrees: the answer would have been the
/// same.
#[test]
fn no_more_than_half_of_the_conflicts_are_needless() {
    let reading = OPS.iter().filter(|op| op.reads().next().is_some() && !op.is_mark());
    let writing = || OPS.iter().filter(|op| op.act.is_some() && op.must.is_none());
    let (mut needed, mut needless) = (0, 0);
    for case in reading.flat_map(|r| writing().flat_map(|w| cases(r, w, &[(20, 10, 10)]))) {
        let mut all = Everything;
        let mut store =
            Store { stamps: &mut all, map: Map::default(), answered: Vec::new(), held: None };
        let certain = |id, epoch| TxStamp::certain(TxId([id; 16]), epoch);
        if case.filled {
            store.run(named("update"), "coda", certain(9, 1), true);
        }
        store.run(case.first, "coda", certain(1, 20), true);
        store.run(case.second, &case.second_place(), certain(2, 10), true);
        let restarts = case.play(&mut History::default(), 0)[1] == Verdict::Restart;
        match (restarts, store.is_serializable()) {
            (true, false) => needed += 1,
            (true, true) => needless += 1,
            (false, serializable) => assert!(serializable, "{}", case.describe()),
        }
    }
    assert!(needed > 500 && needless <= needed, "{needed} needed, {needless} not");
}

/// Lets everything through.
struct Everything;

impl Timestamps for Everything {
    fn may_read(&self, _: &str, _: &TxStamp) -> bool {
        true
    }

    fn may_write(&self, _: &str, _: &TxStamp) -> bool {
        true
    }

    fn note(&mut self, _: &str, _: &TxStamp, _: Outcome) {}

    fn wrote(&mut self, _: &str, _: &TxStamp) {}
}

/// A condition that failed is an answer, which a later write at an earlier epoch must not make
/// untrue.
#[test]
fn failed_conditions_are_reads() {
    let by = |id, epoch| TxStamp::certain(TxId([id; 16]), epoch);
    let conditional = OPS.iter().filter(|op| op.must.is_some());
    let mut failed = 0;
    for (i, op) in conditional.enumerate() {
        let now = (i as u64 + 1) * 100;
        let mut cache = Cache::new(now, 1 << 20);
        let mut store =
            Store { stamps: &mut cache, map: Map::default(), answered: Vec::new(), held: None };
        let (must, undo) = match op.must {
            Some((_, Must::NotBe)) => (Verdict::Exists, "punch_object"),
            _ => (Verdict::NonExistent, "update"),
        };
        if must == Verdict::Exists {
            store.run(named("update"), "coda", by(9, now + 1), true);
        }
        assert_eq!(store.run(op, "coda", by(1, now + 20), true), must, "{}", op.name);
        let late = store.run(named(undo), "coda", by(2, now + 10), true);
        assert_eq!(late, Verdict::Restart, "{}", op.name);
        let done = store.run(named(undo), "coda", by(2, now + 21), true);
        assert_eq!(done, Verdict::Done(String::new()), "{}", op.name);
        failed += 1;
    }
    assert_eq!(failed, 13);
}

#[test]
fn the_table_is_complete() {
    let names: std::collections::BTreeSet<&str> = OPS.iter().map(|op| op.name).collect();
    assert_eq!(names.len(), OPS.len());
    let kinds = |act| OPS.iter().filter(move |op| op.act.is_some_and(|a| a.1 == act)).count();
    assert_eq!((kinds(Act::Set), kinds(Act::Clear)), (11, 7));
}
