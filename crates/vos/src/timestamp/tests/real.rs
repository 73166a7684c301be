//! The table of pairs on the store itself: what it answers, and when it has somebody wait or start again,
//! is what the naive map with a full history says.

use bytes::Bytes;

use super::ops::{Act, Look, Must, Op};
use super::pairs::{Case, Verdict, named, reads_then_writes, writes_then_uncertain};
use crate::timestamp::{Level, Outcome, Path, TxId, TxStamp};
use crate::tx::Target;
use crate::types::{ContainerId, ObjectKey, ReadError, StageError};
use crate::{Anchor, Config, Keys, Pick, PickRange, Range, Tx, View, Vos};

/// The store, and what the case at hand has done.
struct Real {
    vos: Vos,
    cid: ContainerId,
    /// Akeys hold arrays, not single values.
    arrays: bool,
    writes: u64,
    prepared: Vec<TxId>,
}

fn key(place: &str, level: Level) -> Bytes {
    Bytes::copy_from_slice(&place.as_bytes()[level as usize..=level as usize])
}

fn oid(place: &str) -> ObjectKey {
    ObjectKey(key(place, Level::Object))
}

/// Whether an operation is about arrays only.
fn needs_array(op: &Op) -> bool {
    let names = ["write", "write_ane", "truncate", "punch_range", "array_size", "list_extents"];
    names.contains(&op.name) || matches!(op.look, Some((_, Look::Edge { depth: 5, .. })))
}

impl Real {
    fn new() -> Real {
        let mut vos = Vos::format(Config::default(), 16, 65_536, 0);
        vos.keep_timestamps(0, 1 << 20);
        // The same place in all cases: others could share its marks and seem to have been read.
        let cid = super::naive::cid(b'c');
        Real { vos, cid, arrays: false, writes: 0, prepared: Vec::new() }
    }

    fn begin(&mut self, case: &Case, now: u64) {
        self.arrays = needs_array(case.first) || needs_array(case.second);
        self.writes = 0;
        let mut tx = Tx::new(now);
        tx.create_container(self.cid);
        self.vos.stage(&tx).unwrap();
    }

    fn end(&mut self, now: u64) {
        let mut tx = Tx::new(now);
        tx.destroy_container(self.cid);
        self.vos.stage(&tx).unwrap();
        while self.vos.has_garbage() {
            self.vos.collect(64).unwrap();
        }
        self.vos.forget_ended(u64::MAX, 64).unwrap();
    }

    fn run(&mut self, op: &Op, place: &str, by: TxStamp, commit: bool) -> Verdict {
        match op.act {
            Some((level, act)) => self.write(op, (level, act), place, by, commit),
            None if op.name == "retain_container" => {
                let mut tx = Tx::new(by.epoch);
                tx.stamp(by.id, by.bound);
                tx.retain_container(self.cid, &[by.epoch]);
                verdict(self.vos.stage(&tx).map(|_| String::new()))
            }
            None if op.is_mark() => {
                let level = op.reads().next().unwrap_or(Level::Akey);
                let path = self.path(place).upto(level);
                let cache = self.vos.timestamps.as_ref().unwrap();
                cache.borrow_mut().note_read(&path, &by, Outcome::Found);
                Verdict::Done(String::new())
            }
            None => match self.read(op, place, self.vos.view_of(by)) {
                Ok(verdict) => verdict,
                Err(ReadError::InProgress { .. }) => Verdict::InProgress,
                Err(ReadError::Restart(_)) => Verdict::Restart,
                Err(e) => panic!("{}: {e}", op.name),
            },
        }
    }

    fn path(&self, place: &str) -> Path {
        let (dkey, akey) = (key(place, Level::Dkey), key(place, Level::Akey));
        Path::akey(self.cid, &oid(place).0, &dkey, &akey)
    }

    fn write(
        &mut self,
        op: &Op,
        (level, act): (Level, Act),
        place: &str,
        by: TxStamp,
        commit: bool,
    ) -> Verdict {
        let (cid, oid) = (self.cid, oid(place));
        let (dkey, akey) = (key(place, Level::Dkey), key(place, Level::Akey));
        let mut tx = Tx::new(by.epoch);
        tx.set_horizon(0);
        tx.stamp(by.id, by.bound);
        if let Some((level, must)) = op.must {
            let target = match level {
                Level::Dkey => Target::Dkey(dkey.clone()),
                Level::Akey => Target::Akey(dkey.clone(), akey.clone()),
                _ => Target::Object,
            };
            let must = match must {
                Must::Be => crate::Must::Exist,
                Must::NotBe => crate::Must::NotExist,
            };
            tx.require(cid, &oid, target, must);
        }
        let value = Bytes::copy_from_slice(&self.writes.to_be_bytes());
        match (op.name, act, level) {
            ("truncate", ..) => tx.truncate(cid, &oid, &dkey, &akey, 100 + self.writes),
            ("punch_range", ..) => tx.punch_range(cid, &oid, &dkey, &akey, 0, 4),
            ("punch_akeys", ..) => tx.punch_akeys(cid, &oid, &dkey, b"", None),
            (_, Act::Set, _) if self.arrays => {
                tx.write(cid, &oid, &dkey, &akey, 0, value, None);
            }
            (_, Act::Set, _) => tx.update(cid, &oid, &dkey, &akey, value),
            (_, Act::Clear, Level::Akey) => tx.punch_akey(cid, &oid, &dkey, &akey),
            (_, Act::Clear, Level::Dkey) => tx.punch_dkey(cid, &oid, &dkey),
            (_, Act::Clear, _) => tx.punch_object(cid, &oid),
        }
        if !commit {
            tx.prepare(by.id);
        }
        let result = self.vos.stage(&tx);
        if result.is_ok() {
            self.writes += 1;
            self.prepared.extend((!commit).then_some(by.id));
        }
        verdict(result.map(|_| String::new()))
    }

    fn commit(&mut self) {
        for id in std::mem::take(&mut self.prepared) {
            let mut tx = Tx::new(0);
            tx.commit_prepared(id);
            self.vos.stage(&tx).unwrap();
        }
    }

    fn read(&self, op: &Op, place: &str, view: View<'_>) -> Result<Verdict, ReadError> {
        if let Some((level, must)) = op.must {
            match (must, self.exists(level, place, view)?) {
                (Must::Be, false) => return Ok(Verdict::NonExistent),
                (Must::NotBe, true) => return Ok(Verdict::Exists),
                _ => {}
            }
        }
        let Some((level, look)) = op.look else {
            return Ok(Verdict::Done(String::new()));
        };
        let (cid, oid) = (self.cid, oid(place));
        let (dkey, akey) = (key(place, Level::Dkey), key(place, Level::Akey));
        let answer = match look {
            Look::Nothing => String::new(),
            Look::Exists => self.exists(level, place, view)?.to_string(),
            Look::Keys => format!("{:?}", self.keys(level, place, view)?),
            Look::Value if op.name == "list_extents" => {
                format!("{:?}", view.extents(cid, &oid, &dkey, &akey, 0, 1000)?)
            }
            Look::Value if self.arrays => {
                format!("{:?}", view.array_size(cid, &oid, &dkey, &akey)?)
            }
            Look::Value => {
                let value = view.fetch(cid, &oid, &dkey, &akey)?;
                let number = |v: Bytes| u64::from_be_bytes(v[..].try_into().unwrap());
                format!("{:?}", value.map(number))
            }
            Look::Edge { last, depth } => {
                format!("{:?} None", self.edge((level, last, depth), place, view)?)
            }
        };
        Ok(Verdict::Done(answer))
    }

    fn exists(&self, level: Level, place: &str, view: View<'_>) -> Result<bool, ReadError> {
        let (cid, oid) = (self.cid, oid(place));
        let (dkey, akey) = (key(place, Level::Dkey), key(place, Level::Akey));
        Ok(match level {
            Level::Dkey => !view.akeys(cid, &oid, &dkey, &Keys::default(), 1)?.is_empty(),
            Level::Akey if self.arrays => view.array_size(cid, &oid, &dkey, &akey)?.is_some(),
            Level::Akey => view.fetch(cid, &oid, &dkey, &akey)?.is_some(),
            _ => view.object_exists(cid, &oid)?,
        })
    }

    fn keys(
        &self,
        level: Level,
        place: &str,
        view: View<'_>,
    ) -> Result<std::collections::BTreeSet<String>, ReadError> {
        let (cid, oid, dkey) = (self.cid, oid(place), key(place, Level::Dkey));
        let all = &Keys::default();
        let keys: Vec<Bytes> = match level {
            Level::Container => view.objects(cid, all, 9)?.into_iter().map(|o| o.0).collect(),
            Level::Object => view.dkeys(cid, &oid, all, 9)?,
            _ => view.akeys(cid, &oid, &dkey, all, 9)?.into_iter().map(|(k, _)| k).collect(),
        };
        let name =
            |key: &Bytes| [&place[..=level as usize], &String::from_utf8_lossy(key)].concat();
        Ok(keys.iter().map(name).collect())
    }

    /// The first or last key.
    fn edge(
        &self,
        (level, last, depth): (Level, bool, usize),
        place: &str,
        view: View<'_>,
    ) -> Result<Option<String>, ReadError> {
        let (cid, oid) = (self.cid, oid(place));
        let edge = || if last { Pick::Max } else { Pick::Min };
        let pick = |at| if level >= at { Pick::Is(key(place, at)) } else { edge() };
        let range = if last { PickRange::Max } else { PickRange::Min };
        let range = Some(range).filter(|_| depth == 5);
        let (dkey, akey) = (pick(Level::Dkey), pick(Level::Akey));
        let found = view.query_key(cid, &oid, &dkey, &akey, range)?;
        let text = |key: &Bytes| String::from_utf8_lossy(key).into_owned();
        Ok(found.map(|f| {
            let all = [&place[..2], &text(&f.dkey), &text(&f.akey)].concat();
            all[..depth.min(4)].to_owned()
        }))
    }

    /// As [`Case::play_strictly`].
    fn play(&mut self, case: &Case, number: u64, now: u64) -> Vec<Verdict> {
        self.begin(case, now);
        let id = |n: u8| TxId((u128::from(number) << 8 | u128::from(n)).to_be_bytes());
        if case.filled {
            self.run(named("update"), "coda", TxStamp::certain(id(9), now + 1), true);
        }
        let (first, second, bound) = case.epochs;
        let by = TxStamp::certain(id(1), now + first);
        let mut verdicts = vec![self.run(case.first, "coda", by, case.committed)];
        let other = if case.same_tx { id(1) } else { id(2) };
        let by = TxStamp { id: other, epoch: now + second, bound: now + bound };
        let place = case.second_place();
        verdicts.push(self.run(case.second, &place, by, true));
        self.commit();
        if verdicts[1] == Verdict::InProgress {
            verdicts.push(self.run(case.second, &place, by, true));
        }
        self.end(now + 50);
        verdicts
    }
}

fn verdict(result: Result<String, StageError>) -> Verdict {
    match result {
        Ok(answer) => Verdict::Done(answer),
        Err(StageError::Exists) => Verdict::Exists,
        Err(StageError::NonExistent) => Verdict::NonExistent,
        Err(StageError::InProgress { .. }) => Verdict::InProgress,
        Err(StageError::Restart(_)) => Verdict::Restart,
        Err(e) => panic!("{e}"),
    }
}

/// What one transaction does at its epoch is one [`Tx`], and two have two epochs.
fn may_be_played(case: &Case) -> bool {
    let writes = case.first.act.is_some();
    let one = case.same_tx && !case.committed && writes;
    let (first, second, _) = case.epochs;
    let both = first == second && writes && case.second.act.is_some();
    !one && !both
}

fn play_all(cases: impl Iterator<Item = Case>) -> [usize; 4] {
    let mut real = Real::new();
    let mut counts = [0; 4];
    for (i, case) in cases.filter(may_be_played).enumerate() {
        let number = i as u64 + 1;
        let found = real.play(&case, number, number * 100);
        let mut expected = case.play_strictly(number * 100);
        if real.arrays {
            // The naive map does not know what is in them.
            for (found, expected) in found.iter().zip(&mut expected) {
                if let (Verdict::Done(found), Verdict::Done(expected)) = (found, expected) {
                    expected.clone_from(found);
                }
            }
        }
        assert_eq!(found, expected, "{}", case.describe());
        counts[match found[1] {
            Verdict::Done(_) => 0,
            Verdict::Exists | Verdict::NonExistent => 1,
            Verdict::InProgress => 2,
            Verdict::Restart => 3,
        }] += 1;
    }
    counts
}

#[test]
fn reads_and_writes() {
    let counts = play_all(reads_then_writes());
    assert!(counts.iter().all(|&n| n > 300), "{counts:?}");
}

#[test]
fn uncertain_epochs() {
    let counts = play_all(writes_then_uncertain());
    assert!(counts.iter().all(|&n| n > 300), "{counts:?}");
}

/// Iterating and exporting are reads of all that they go through.
#[test]
fn going_through_versions_is_a_read() {
    let (cid, oid) = (super::naive::cid(b'c'), oid("coda"));
    let stamp = |n: u8, epoch| TxStamp::certain(TxId([n; 16]), epoch);
    let write = |vos: &mut Vos, by: TxStamp, dkey: &[u8]| {
        let mut tx = Tx::new(by.epoch);
        tx.set_horizon(0);
        tx.stamp(by.id, by.bound);
        tx.update(cid, &oid, dkey, b"a", Bytes::new());
        vos.stage(&tx).map(|_| ())
    };
    let range = |dkey: &'static str| Range { from: dkey.into(), ..Range::default() };
    let begin = || {
        let mut vos = Vos::format(Config::default(), 16, 65_536, 0);
        vos.keep_timestamps(0, 1 << 20);
        let mut tx = Tx::new(1);
        tx.create_container(cid);
        vos.stage(&tx).unwrap();
        write(&mut vos, stamp(9, 5), b"d").unwrap();
        vos
    };
    let restarts = |result| matches!(result, Err(StageError::Restart(r)) if r.after == 20);

    let (mut vos, start) = (begin(), Anchor::default());
    let found = vos.view_of(stamp(1, 20)).iterate(cid, &oid, &range(""), &start, 9).unwrap();
    assert_eq!(found.versions.len(), 1);
    assert!(restarts(write(&mut vos, stamp(2, 15), b"e")));
    assert_eq!(write(&mut vos, stamp(1, 20), b"e"), Ok(()), "its own");

    let mut vos = begin();
    let one = Range { to: Some("d\0".into()), epochs: (0, 12), ..range("d") };
    vos.view_of(stamp(1, 20)).iterate(cid, &oid, &one, &start, 9).unwrap();
    assert_eq!(write(&mut vos, stamp(2, 10), b"e"), Ok(()), "another dkey");
    assert_eq!(write(&mut vos, stamp(2, 15), b"d"), Ok(()), "later than what was looked at");
    assert!(write(&mut vos, stamp(3, 11), b"d").is_err());

    let mut vos = begin();
    vos.view_of(stamp(1, 20)).export(cid, &oid, &start, 9).unwrap();
    assert!(restarts(write(&mut vos, stamp(2, 15), b"e")));
}
