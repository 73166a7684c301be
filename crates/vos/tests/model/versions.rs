//! Every operation at random epochs, at once or prepared first, and reads at every epoch that somebody may
//! still look at.
//!
//! The model is the definition: the state at an epoch is what all operations up to it, sorted by epoch,
//! make of nothing.

mod iterate;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use spirula_vos::{
    Config, ContainerId, Cursor, Epoch, Extent, Found, Keys, Must, ObjectKey, PAGE_SIZE, Pick,
    PickRange, StageError, Target, Tx,
};

use crate::ops::{self, Op};
use crate::prepared::Ledger;
use crate::rig::Rig;

pub(crate) const CID: ContainerId = ContainerId([7; 16]);
const OBJECTS: u8 = 4;
/// Clock of one step; random epochs lie in between.
const TICK: u64 = 1000;
const NEVER: u16 = 0;
const PUNCHED: u16 = 1;
/// Added to bytes.
const DATA: u16 = 2;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Value {
    Single(Bytes),
    Array { size: usize, cells: Vec<u16> },
}

pub(crate) type Items = BTreeMap<(Vec<u8>, Vec<u8>), Value>;

/// Applies one operation to an object; `None` if it does not exist.
fn apply(state: &mut Option<Items>, op: &Op) {
    match op {
        Op::CreateContainer | Op::DestroyContainer => {}
        Op::CreateObject(_) => drop(state.get_or_insert_default()),
        Op::Update(_, d, a, v) => {
            let items = state.get_or_insert_default();
            items.insert((d.clone(), a.clone()), Value::Single(v.clone()));
        }
        Op::Write(_, d, a, at, data) => with_array(state, d, a, |size, cells| {
            let (from, end) = (*at as usize, *at as usize + data.len());
            *size = (*size).max(end);
            cells.resize(cells.len().max(end), NEVER);
            for (cell, byte) in cells[from..end].iter_mut().zip(data) {
                *cell = u16::from(*byte) + DATA;
            }
        }),
        Op::Truncate(_, d, a, to) => with_array(state, d, a, |size, cells| {
            *size = *to as usize;
            cells.truncate(*to as usize);
        }),
        Op::PunchRange(_, d, a, at, len) => with_array(state, d, a, |_, cells| {
            let (from, end) = (*at as usize, (*at + *len) as usize);
            cells.resize(cells.len().max(end), NEVER);
            cells[from..end].fill(PUNCHED);
        }),
        Op::PunchAkey(_, d, a) => {
            state.iter_mut().for_each(|items| drop(items.remove(&(d.clone(), a.clone()))));
        }
        Op::PunchAkeys(_, d, from, to) => state.iter_mut().for_each(|items| {
            items.retain(|(dkey, akey), _| {
                dkey != d || akey < from || to.as_ref().is_some_and(|to| akey >= to)
            });
        }),
        Op::PunchDkey(_, d) => {
            state.iter_mut().for_each(|items| items.retain(|(dkey, _), _| dkey != d));
        }
        Op::PunchObject(_) => *state = None,
    }
}

fn with_array(
    state: &mut Option<Items>,
    d: &[u8],
    a: &[u8],
    f: impl FnOnce(&mut usize, &mut Vec<u16>),
) {
    let items = state.get_or_insert_default();
    let new = || Value::Array { size: 0, cells: Vec::new() };
    if let Value::Array { size, cells } = items.entry((d.to_vec(), a.to_vec())).or_insert_with(new)
    {
        f(size, cells);
    }
}

/// What happened to one object, and who may look at it.
#[derive(Clone, Default)]
pub(crate) struct Object {
    log: Vec<(Epoch, Op)>,
    pub(crate) horizon: u64,
    pub(crate) retained: BTreeSet<u64>,
}

impl Object {
    pub(crate) fn add(&mut self, epoch: Epoch, op: Op) {
        let at = self.log.partition_point(|(e, _)| *e <= epoch);
        self.log.insert(at, (epoch, op));
    }

    fn at(&self, epoch: Epoch) -> Option<Items> {
        let mut state = None;
        self.log.iter().take_while(|(e, _)| *e <= epoch).for_each(|(_, op)| apply(&mut state, op));
        state
    }
}

pub(crate) struct World {
    pub(crate) rig: Rig,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) objects: Vec<Object>,
    /// Of the container.
    retained: BTreeSet<u64>,
    used: BTreeSet<u64>,
    pub(crate) now: u64,
    horizon: u64,
    /// Aggregations under way.
    cursors: Vec<Cursor>,
    pub(crate) prepared: Ledger,
}

pub(crate) fn oid(i: usize) -> ObjectKey {
    ObjectKey::copy_from(format!("object{i}").as_bytes())
}

impl World {
    fn may_read(&self, object: &Object, hlc: u64) -> bool {
        hlc >= object.horizon || object.retained.contains(&hlc) || self.retained.contains(&hlc)
    }

    /// An epoch that no transaction has had.
    fn fresh_epoch(&mut self, from: u64) -> u64 {
        loop {
            let late = self.rng.random_bool(0.5);
            let hlc = match late {
                true => self.rng.random_range(from..=self.now.max(from)),
                false => self.now.max(from) + self.rng.random_range(0..TICK),
            };
            if self.used.insert(hlc) {
                self.now = self.now.max(hlc + 1);
                return hlc;
            }
        }
    }

    fn random_op(&mut self, i: usize) -> Op {
        let rng = &mut self.rng;
        let o = oid(i).0.to_vec();
        let array = (b"array".to_vec(), Vec::new());
        let akey = |rng: &mut ChaCha8Rng| format!("key{:02}", rng.random_range(0..25)).into_bytes();
        let offset = |rng: &mut ChaCha8Rng| {
            let at = rng.random_range(0..24_000u64);
            if rng.random_bool(0.5) { at / 4096 * 4096 } else { at }
        };
        match rng.random_range(0..100) {
            0..30 => {
                let len = match rng.random_range(0..4) {
                    0 => 4096 * rng.random_range(1..5),
                    1 => rng.random_range(4096..12_000),
                    _ => rng.random_range(1..3000),
                };
                let (at, seed) = (offset(rng), rng.random_range(0..251u64));
                let data: Vec<u8> = (0..len).map(|n: u64| ((n + seed) % 251) as u8).collect();
                Op::Write(o, array.0, array.1, at, data.into())
            }
            30..36 => Op::Truncate(o, array.0, array.1, rng.random_range(0..30_000)),
            36..43 => {
                let at = offset(rng);
                Op::PunchRange(o, array.0, array.1, at, rng.random_range(0..16_000))
            }
            43..70 => {
                let len = if rng.random_bool(0.05) { 9000 } else { rng.random_range(0..150) };
                let value = vec![rng.random(); len];
                Op::Update(o, b"omap".to_vec(), akey(rng), value.into())
            }
            70..72 => Op::Update(o, b"attr".to_vec(), b"_".to_vec(), Bytes::from_static(b"x")),
            72..77 => {
                let value = vec![rng.random(); rng.random_range(0..200)];
                Op::Update(o, ops::random_dkey(rng), b"_".to_vec(), value.into())
            }
            77 => Op::PunchDkey(o, ops::random_dkey(rng)),
            78..80 => Op::PunchAkey(o, b"omap".to_vec(), akey(rng)),
            80..84 => {
                let to = rng.random_bool(0.7).then(|| akey(rng));
                Op::PunchAkeys(o, b"omap".to_vec(), akey(rng), to)
            }
            84..88 => {
                let dkey: &[u8] = [&b"array"[..], b"omap", b"attr"][rng.random_range(0..3)];
                Op::PunchDkey(o, dkey.to_vec())
            }
            88..91 => Op::PunchAkey(o, array.0, array.1),
            91..96 => Op::PunchObject(o),
            _ => Op::CreateObject(o),
        }
    }

    /// One transaction with everything that may be in it.
    fn step(&mut self) {
        self.now += self.rng.random_range(0..TICK);
        if self.rng.random_bool(0.1) {
            self.horizon = self.rng.random_range(self.horizon..=self.now);
        }
        let count = self.rng.random_range(1..3);
        let chosen: Vec<usize> =
            (0..count).map(|_| usize::from(self.rng.random_range(0..OBJECTS))).collect();
        let lowest = chosen.iter().map(|&i| self.objects[i].horizon).max().unwrap_or(0);
        let hlc = self.fresh_epoch(lowest.max(self.horizon));
        let mut tx = Tx::new(hlc);
        let horizon = if self.rng.random_bool(0.25) { hlc } else { self.horizon };
        tx.set_horizon(horizon);
        let mut pending = self.prepared.perhaps(&mut self.rng, &mut tx);
        let (mut after, mut refused, mut minor) = (self.objects.clone(), None, 0);
        for &i in &chosen {
            // At first what the object has shown until now can still be retained.
            let early = self.rng.random_bool(0.1);
            if early && after[i].at(Epoch::new(hlc, minor)).is_some() {
                let retained = self.retain_some(&mut tx, &mut after[i], i, hlc);
                pending.retained.push((i, retained));
                after[i].horizon = after[i].horizon.max(horizon);
                minor += 1;
            }
            for _ in 0..self.rng.random_range(1..4) {
                let epoch = Epoch::new(hlc, minor);
                if self.rng.random_bool(0.05) {
                    let state = after[i].at(epoch);
                    refused = refused.or(self.condition(&mut tx, i, &state));
                    pending.conditions.insert(i);
                }
                let op = self.random_op(i);
                ops::add(&mut tx, CID, &op);
                pending.ops.push((i, epoch, op.clone()));
                after[i].add(epoch, op);
                after[i].horizon = after[i].horizon.max(horizon);
                minor += 1;
            }
            if self.rng.random_bool(0.15) {
                let retained = self.retain_some(&mut tx, &mut after[i], i, hlc);
                pending.retained.push((i, retained));
                after[i].horizon = after[i].horizon.max(horizon);
                minor += 1;
            }
        }
        pending.horizon = horizon;
        match (self.rig.submit(&tx), refused) {
            (Ok(_), None) if pending.id.is_some() => self.prepared.add(pending),
            (Ok(_), None) => self.objects = after,
            (Err(StageError::InProgress { id }), _) => {
                let touched = chosen.iter().copied().collect();
                self.prepared.justify(id, &touched);
            }
            (Err(StageError::NoSpace), _) => self.rig.checkpoint(),
            (Err(e), Some(expected)) if e == expected => {}
            (result, expected) => panic!("{result:?}, not {expected:?}"),
        }
    }

    /// Adds a condition; the error it must lead to, if any.
    fn condition(&mut self, tx: &mut Tx, i: usize, state: &Option<Items>) -> Option<StageError> {
        let dkey = b"omap".to_vec();
        let akey = format!("key{:02}", self.rng.random_range(0..25)).into_bytes();
        let has = |f: &dyn Fn(&(Vec<u8>, Vec<u8>)) -> bool| {
            state.as_ref().is_some_and(|items| items.keys().any(f))
        };
        let (target, exists) = match self.rng.random_range(0..3) {
            0 => (Target::Object, state.is_some()),
            1 => (Target::Dkey(dkey.clone().into()), has(&|k| k.0 == dkey)),
            _ => {
                let target = Target::Akey(dkey.clone().into(), akey.clone().into());
                (target, has(&|k| k.0 == dkey && k.1 == akey))
            }
        };
        let right = self.rng.random_bool(0.8);
        let must = if exists == right { Must::Exist } else { Must::NotExist };
        tx.require(CID, &oid(i), target, must);
        let error = if exists { StageError::Exists } else { StageError::NonExistent };
        (!right).then_some(error)
    }

    /// Has other epochs of an object retained.
    fn retain_some(
        &mut self,
        tx: &mut Tx,
        object: &mut Object,
        i: usize,
        hlc: u64,
    ) -> BTreeSet<u64> {
        let retained = self.some_readable(object, hlc);
        tx.retain(CID, &oid(i), &retained.iter().copied().collect::<Vec<u64>>());
        object.retained = retained.clone();
        retained
    }

    /// Epochs of which each may be read now.
    fn some_readable(&mut self, object: &Object, hlc: u64) -> BTreeSet<u64> {
        let old = object.retained.iter().copied().collect::<Vec<u64>>();
        let mut out: BTreeSet<u64> =
            old.into_iter().filter(|_| self.rng.random_bool(0.7)).collect();
        if self.rng.random_bool(0.7) {
            out.insert(self.rng.random_range(object.horizon..=hlc.max(self.now)));
        }
        out
    }

    /// Some of the aggregation of an object.
    fn aggregate(&mut self) {
        let i = usize::from(self.rng.random_range(0..OBJECTS));
        let cursor = std::mem::take(&mut self.cursors[i]);
        let hlc = self.horizon.max(self.objects[i].horizon);
        let mut tx = Tx::new(hlc);
        tx.aggregate(CID, &oid(i), cursor, self.rng.random_range(1..60));
        match self.rig.submit(&tx) {
            Ok(next) => {
                self.cursors[i] = next.unwrap_or_default();
                self.objects[i].horizon = hlc;
            }
            Err(StageError::NoSpace) => self.rig.checkpoint(),
            Err(StageError::InProgress { id }) => self.prepared.justify(id, &[i].into()),
            Err(e) => panic!("{e}"),
        }
    }

    /// Undoes what happened to an object in a range of epochs.
    fn discard(&mut self) {
        let i = usize::from(self.rng.random_range(0..OBJECTS));
        let lowest = self.objects[i].horizon;
        if lowest >= self.now {
            return;
        }
        let from = self.rng.random_range(lowest + 1..=self.now);
        let above = self.rng.random_bool(0.5);
        let to = if above { u64::MAX } else { self.rng.random_range(from..=self.now) };
        let mut next = Some(Cursor::default());
        let budget = if self.rng.random_bool(0.5) { u32::MAX } else { self.rng.random_range(1..9) };
        while let Some(cursor) = next {
            let mut tx = Tx::new(self.now);
            tx.discard_some(CID, &oid(i), (from, to), cursor.clone(), budget);
            next = match self.rig.submit(&tx) {
                Ok(next) => next,
                Err(StageError::NoSpace) if cursor == Cursor::default() => {
                    return self.rig.checkpoint();
                }
                Err(StageError::NoSpace) => {
                    self.rig.checkpoint();
                    Some(cursor)
                }
                Err(StageError::InProgress { id }) => {
                    return self.prepared.justify(id, &[i].into());
                }
                Err(e) => panic!("{e}"),
            };
        }
        self.objects[i].log.retain(|(e, _)| !(from..=to).contains(&e.hlc));
    }

    fn retain_container(&mut self) {
        let lowest = self.objects.iter().map(|o| o.horizon).max().unwrap_or(0).max(self.horizon);
        let mut list: BTreeSet<u64> = self.retained.iter().copied().collect();
        list.retain(|_| self.rng.random_bool(0.6));
        if lowest <= self.now {
            list.insert(self.rng.random_range(lowest..=self.now));
        }
        let mut tx = Tx::new(self.now);
        tx.retain_container(CID, &list.iter().copied().collect::<Vec<u64>>());
        self.rig.submit(&tx).unwrap();
        self.retained = list;
    }

    fn observe(&mut self, i: usize, hlc: u64) -> Option<Items> {
        let (rig, all) = (&mut self.rig, Bound::Unbounded);
        if !rig.read(|vos| vos.at(hlc).committed().object_exists(CID, &oid(i))) {
            return None;
        }
        let mut items = Items::new();
        for dkey in rig
            .read(|vos| vos.at(hlc).committed().dkeys(CID, &oid(i), &Keys::default(), usize::MAX))
        {
            let list = rig.read(|vos| {
                vos.at(hlc).committed().list_akeys(CID, &oid(i), &dkey, all, usize::MAX)
            });
            assert!(!list.is_empty(), "a dkey without akeys");
            for (akey, value) in list {
                let size =
                    rig.read(|vos| vos.at(hlc).committed().array_size(CID, &oid(i), &dkey, &akey));
                let value = match size {
                    None => {
                        let found = rig
                            .read(|vos| vos.at(hlc).committed().fetch(CID, &oid(i), &dkey, &akey));
                        assert_eq!(found.as_ref(), Some(&value));
                        Value::Single(value)
                    }
                    Some(size) => {
                        let found = rig.read(|vos| {
                            vos.at(hlc).committed().extents(CID, &oid(i), &dkey, &akey, 0, u64::MAX)
                        });
                        let cells = found.iter().flat_map(|e| cells(rig, e)).collect();
                        Value::Array { size: size as usize, cells }
                    }
                };
                items.insert((dkey.to_vec(), akey.to_vec()), value);
            }
        }
        Some(items)
    }

    /// First and last keys and ranges, and lists from the end.
    fn query(&mut self, i: usize, hlc: u64, state: &Option<Items>) {
        let empty = Items::new();
        let items = state.as_ref().unwrap_or(&empty);
        let (rig, oid) = (&mut self.rig, oid(i));
        let omap = items.keys().filter(|k| k.0 == b"omap").map(|k| Bytes::from(k.1.clone()));
        let omap: Vec<Bytes> = omap.collect();
        let some = self.rng.random_range(1..30);
        let back = rig
            .read(|vos| vos.at(hlc).committed().akeys(CID, &oid, b"omap", &Keys::reversed(), some));
        let back: Vec<Bytes> = back.into_iter().map(|(k, _)| k).collect();
        assert_eq!(back, omap.iter().rev().take(some).cloned().collect::<Vec<_>>());
        let mut ask = |dkey: &Pick, akey: &Pick, range| {
            rig.read(|vos| vos.at(hlc).committed().query_key(CID, &oid, dkey, akey, range))
        };
        let pair = |f: Option<Found>| f.map(|f| (f.dkey.to_vec(), f.akey.to_vec()));
        assert_eq!(pair(ask(&Pick::Max, &Pick::Max, None)), items.keys().next_back().cloned());
        let dkey = Pick::Is(Bytes::from_static(b"omap"));
        let akey = ask(&dkey, &Pick::Min, None).map(|f| f.akey);
        assert_eq!(akey.as_ref(), omap.first());
        let runs = items.values().find_map(|v| match v {
            Value::Array { cells, .. } => Some(runs(cells)),
            Value::Single(_) => None,
        });
        let runs = runs.unwrap_or_default();
        let first = ask(&Pick::Min, &Pick::Min, Some(PickRange::Min)).and_then(|f| f.range);
        let last = ask(&Pick::Max, &Pick::Max, Some(PickRange::Max)).and_then(|f| f.range);
        assert_eq!((first.as_ref(), last.as_ref()), (runs.first(), runs.last()));
    }

    /// Compares everything that may be read with the model.
    fn verify(&mut self, step: usize) {
        (0..self.objects.len()).for_each(|i| self.iterate(i));
        let mut epochs: BTreeSet<u64> = [self.now, u64::MAX].into();
        epochs.extend(self.retained.iter().copied());
        epochs.extend(self.objects.iter().flat_map(|o| o.retained.iter().copied()));
        let used: Vec<u64> = self.used.iter().copied().collect();
        for _ in 0..6 {
            let near = used.get(self.rng.random_range(0..used.len().max(1)));
            epochs.extend(near.map(|e| e.saturating_sub(self.rng.random_range(0..2))));
        }
        for hlc in epochs {
            let mut names = BTreeSet::new();
            let mut all = true;
            for i in 0..self.objects.len() {
                if !self.may_read(&self.objects[i], hlc) {
                    all = false;
                    continue;
                }
                let mut want = self.objects[i].at(Epoch::end_of(hlc));
                want.iter_mut().for_each(cut_off);
                names.extend(want.iter().map(|_| oid(i)));
                let found = self.observe(i, hlc);
                assert!(
                    want == found,
                    "step {step} object {i} at {hlc}: {}",
                    differs(&want, &found)
                );
                self.query(i, hlc, &want);
            }
            if all {
                let list = |vos: &spirula_vos::Vos| {
                    vos.at(hlc).committed().list_objects(CID, Bound::Unbounded, None, usize::MAX)
                };
                assert_eq!(self.rig.read(list), names.into_iter().collect::<Vec<_>>());
            }
        }
    }
}

/// Offset and length of what was written.
fn runs(cells: &[u16]) -> Vec<(u64, u64)> {
    let mut out: Vec<(u64, u64)> = Vec::new();
    for (at, _) in cells.iter().enumerate().filter(|(_, c)| **c >= DATA) {
        match out.last_mut() {
            Some((from, len)) if *from + *len == at as u64 => *len += 1,
            _ => out.push((at as u64, 1)),
        }
    }
    out
}

/// What is beyond the size cannot be seen.
fn cut_off(items: &mut Items) {
    for value in items.values_mut() {
        if let Value::Array { size, cells } = value {
            cells.resize(*size, NEVER);
        }
    }
}

fn cells(rig: &Rig, extent: &Extent) -> Vec<u16> {
    match extent {
        Extent::Hole { len, punched, .. } => {
            vec![if *punched { PUNCHED } else { NEVER }; *len as usize]
        }
        _ => rig.bytes(extent).into_iter().map(|b| u16::from(b) + DATA).collect(),
    }
}

fn differs(want: &Option<Items>, found: &Option<Items>) -> String {
    let (Some(want), Some(found)) = (want, found) else {
        return format!("exists: {}, found {}", want.is_some(), found.is_some());
    };
    for key in want.keys().chain(found.keys()) {
        let name = String::from_utf8_lossy(&[&key.0[..], b"/", &key.1[..]].concat()).into_owned();
        match (want.get(key), found.get(key)) {
            (
                Some(Value::Array { size: a, cells: x }),
                Some(Value::Array { size: b, cells: y }),
            ) => {
                if let Some(at) = x.iter().zip(y).position(|(x, y)| x != y) {
                    return format!("{name} at {at}: {}, found {}", x[at], y[at]);
                }
                if a != b {
                    return format!("{name}: size {a}, found {b}");
                }
            }
            (a, b) if a != b => return format!("{name}: {}, found {}", a.is_some(), b.is_some()),
            _ => {}
        }
    }
    "none".into()
}

fn run(seed: u64, steps: usize, pool_pages: usize) {
    let config = Config { pool_bytes: pool_pages * PAGE_SIZE, ..Config::default() };
    let mut world = World {
        rig: Rig::new(config),
        rng: ChaCha8Rng::seed_from_u64(seed),
        objects: vec![Object::default(); usize::from(OBJECTS)],
        retained: BTreeSet::new(),
        used: BTreeSet::new(),
        now: TICK,
        horizon: 0,
        cursors: vec![Cursor::default(); usize::from(OBJECTS)],
        prepared: Ledger::default(),
    };
    let mut tx = Tx::new(0);
    tx.create_container(CID);
    world.rig.submit(&tx).unwrap();
    for step in 0..steps {
        world.step();
        match world.rng.random_range(0..60) {
            0..4 => world.rig.checkpoint(),
            4..8 => world.rig.vos.evict_all(),
            8..18 => {
                let budget = world.rng.random_range(1..40);
                world.rig.collect(budget);
            }
            18..20 => world.rig.reopen(),
            20..23 => world.rig.check(),
            23..26 => world.retain_container(),
            26..31 => world.verify(step),
            31..40 => world.aggregate(),
            40..42 => world.discard(),
            42..50 => world.end_one(),
            50..53 => world.verify_prepared(),
            _ => world.rig.vos.evict(),
        }
    }
    world.verify(steps);
    world.rig.reopen();
    world.rig.check();
    world.verify(steps);
    world.end_all();
    world.verify(steps);
    world.rig.drain(&[CID]);
}

/// Set `VOS_CASES` for a longer run.
fn cases() -> u32 {
    std::env::var("VOS_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(32)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 300, ..ProptestConfig::default() })]
    #[test]
    fn any_epoch_is_what_its_operations_make(
        seed in any::<u64>(),
        steps in 1usize..160,
        pool in prop_oneof![Just(16usize), Just(4096)],
    ) {
        run(seed, steps, pool);
    }
}
