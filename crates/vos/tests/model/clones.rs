//! Clones of ranges between arrays of two containers, at random epochs, with everything that takes
//! names of shared blocks away; and the check, which counts all names.
//!
//! At the end one of them is exported, with all its versions, and taken in under another name.
//! In the model a clone is a write of what the source showed at its epoch.

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use spirula_vos::{
    Anchor, Config, ContainerId, Cursor, Epoch, Extent, ObjectKey, PAGE_SIZE, Position, StageError,
    Tx,
};

use crate::rig::Rig;

const CIDS: [ContainerId; 2] = [ContainerId([1; 16]), ContainerId([2; 16])];
const ARRAYS: usize = 5;
const DKEY: &[u8] = b"array";
const NEVER: u16 = 0;
const PUNCHED: u16 = 1;
const DATA: u16 = 2;

#[derive(Clone, Debug)]
enum Op {
    Fill(u64, Vec<u16>),
    Truncate(u64),
    PunchRange(u64, u64),
    PunchObject,
}

/// The cells of an array up to its size; `None` if it is not there.
type State = Option<Vec<u16>>;

#[derive(Clone, Default)]
struct Model {
    /// With what is hidden beyond the size dropped: each operation is applied to what it left.
    log: Vec<(Epoch, Op)>,
    horizon: u64,
    retained: BTreeSet<u64>,
}

impl Model {
    fn add(&mut self, epoch: Epoch, op: Op) {
        let at = self.log.partition_point(|(e, _)| *e <= epoch);
        self.log.insert(at, (epoch, op));
    }

    fn at(&self, epoch: Epoch) -> State {
        let (mut size, mut cells, mut there) = (0, Vec::new(), false);
        let resize = |cells: &mut Vec<u16>, end: usize| cells.resize(cells.len().max(end), NEVER);
        for (_, op) in self.log.iter().take_while(|(e, _)| *e <= epoch) {
            there = true;
            match op {
                Op::Fill(at, new) => {
                    let (at, end) = (*at as usize, *at as usize + new.len());
                    resize(&mut cells, end);
                    cells[at..end].copy_from_slice(new);
                    size = size.max(end);
                }
                Op::Truncate(to) => {
                    size = *to as usize;
                    cells.truncate(size);
                }
                Op::PunchRange(at, len) => {
                    let end = (at + len) as usize;
                    resize(&mut cells, end);
                    cells[*at as usize..end].fill(PUNCHED);
                }
                Op::PunchObject => (size, cells, there) = (0, Vec::new(), false),
            }
        }
        cells.resize(size, NEVER);
        there.then_some(cells)
    }

    fn may_read(&self, hlc: u64) -> bool {
        hlc >= self.horizon || self.retained.contains(&hlc)
    }
}

struct World {
    rig: Rig,
    rng: ChaCha8Rng,
    arrays: Vec<Model>,
    used: BTreeSet<u64>,
    now: u64,
    horizon: u64,
}

fn name(i: usize) -> (ContainerId, ObjectKey) {
    (CIDS[i % 2], ObjectKey::copy_from(format!("object{i}").as_bytes()))
}

impl World {
    fn offset(&mut self) -> u64 {
        let at = self.rng.random_range(0..40_000u64);
        if self.rng.random_bool(0.6) { at / 4096 * 4096 } else { at }
    }

    fn step(&mut self) {
        self.now += 100;
        if self.rng.random_bool(0.2) {
            self.horizon = self.rng.random_range(self.horizon..=self.now);
        }
        let i = self.rng.random_range(0..ARRAYS);
        let late = self.rng.random_bool(0.3);
        let lowest = self.horizon.max(self.arrays[i].horizon);
        let hlc = if late { self.rng.random_range(lowest..=self.now) } else { self.now };
        if !self.used.insert(hlc) {
            return;
        }
        let mut tx = Tx::new(hlc);
        let fast = self.rng.random_bool(0.4);
        let horizon = if fast { hlc } else { self.horizon.min(hlc) };
        tx.set_horizon(horizon);
        let mut after = self.arrays.clone();
        let mut wrong = None;
        for minor in 0..self.rng.random_range(1..3) {
            let epoch = Epoch::new(hlc, minor);
            after[i].horizon = after[i].horizon.max(horizon);
            wrong = wrong.or(self.add(&mut tx, &mut after, i, epoch));
        }
        if self.rng.random_bool(0.2) {
            let at = self.rng.random_range(after[i].horizon..=self.now.max(after[i].horizon));
            after[i].retained.retain(|_| self.rng.random_bool(0.5));
            after[i].retained.insert(at);
            let list: Vec<u64> = after[i].retained.iter().copied().collect();
            tx.retain(name(i).0, &name(i).1, &list);
        }
        match (self.rig.submit(&tx), wrong) {
            (Ok(_), None) => self.arrays = after,
            (Err(StageError::NoSpace), _) => self.rig.checkpoint(),
            (Err(e), Some(expected)) if e == expected => {}
            (result, expected) => panic!("{result:?}, not {expected:?}"),
        }
    }

    /// Adds an operation on array `i`; the error it must lead to, if any.
    fn add(
        &mut self,
        tx: &mut Tx,
        arrays: &mut [Model],
        i: usize,
        epoch: Epoch,
    ) -> Option<StageError> {
        let (cid, oid) = name(i);
        let at = self.offset();
        let op = match self.rng.random_range(0..20) {
            0..6 => {
                let len = self.rng.random_range(1..5) * 4096 - self.rng.random_range(0..4095);
                let byte = self.rng.random();
                tx.write(cid, &oid, DKEY, b"", at, Bytes::from(vec![byte; len]), None);
                Op::Fill(at, vec![u16::from(byte) + DATA; len])
            }
            6..8 => {
                tx.truncate(cid, &oid, DKEY, b"", at);
                Op::Truncate(at)
            }
            8..10 => {
                let len = self.rng.random_range(1..16_000);
                tx.punch_range(cid, &oid, DKEY, b"", at, len);
                Op::PunchRange(at, len)
            }
            10 => {
                tx.punch_object(cid, &oid);
                Op::PunchObject
            }
            _ => return self.add_clone(tx, arrays, i, epoch),
        };
        arrays[i].add(epoch, op);
        None
    }

    fn add_clone(
        &mut self,
        tx: &mut Tx,
        arrays: &mut [Model],
        i: usize,
        epoch: Epoch,
    ) -> Option<StageError> {
        let source = self.rng.random_range(0..ARRAYS);
        let from = match self.rng.random_range(0..3) {
            0 => self.used.range(..=epoch.hlc).next_back().copied().unwrap_or(0),
            1 => arrays[source].retained.first().copied().unwrap_or(epoch.hlc),
            _ => u64::MAX,
        };
        let from = from.min(epoch.hlc);
        let (start, len, to) = (self.offset(), self.rng.random_range(1..40_000), self.offset());
        let to = if self.rng.random_bool(0.5) { start } else { to };
        let ((from_cid, from_oid), (cid, oid)) = (name(source), name(i));
        if !arrays[source].may_read(from) {
            tx.truncate(cid, &oid, DKEY, b"", to);
            arrays[i].add(epoch, Op::Truncate(to));
            return None;
        }
        let place = |cid, oid, offset| Position { cid, oid, dkey: DKEY, akey: b"", offset };
        let (a, b) = (place(from_cid, &from_oid, start), place(cid, &oid, to));
        tx.clone_range(a, from, len, b);
        let at = if from == epoch.hlc { epoch } else { Epoch::end_of(from) };
        match arrays[source].at(at) {
            None => Some(StageError::NonExistent),
            Some(cells) => {
                let end = (start + len).min(cells.len() as u64);
                let cells = cells[start.min(end) as usize..end as usize].to_vec();
                arrays[i].add(epoch, Op::Fill(to, cells));
                None
            }
        }
    }

    fn background(&mut self) {
        let i = self.rng.random_range(0..ARRAYS);
        let (cid, oid) = name(i);
        let mut tx = Tx::new(self.arrays[i].horizon.max(self.horizon));
        if self.rng.random_bool(0.6) {
            tx.aggregate(cid, &oid, Cursor::default(), 1000);
            if self.rig.submit(&tx).is_ok() {
                self.arrays[i].horizon = self.arrays[i].horizon.max(self.horizon);
            }
        } else if self.arrays[i].horizon < self.now {
            let from = self.rng.random_range(self.arrays[i].horizon + 1..=self.now);
            let mut tx = Tx::new(self.now);
            tx.discard(cid, &oid, from, u64::MAX);
            if self.rig.submit(&tx).is_ok() {
                self.arrays[i].log.retain(|(e, _)| e.hlc < from);
            }
        }
    }

    /// Exports an array and takes it in under another name, in a container of later epochs.
    fn export(&mut self, i: usize) {
        let ((from_cid, oid), to_cid) = (name(i), CIDS[(i + 1) % 2]);
        let (mut anchor, copy) = (Anchor::default(), ObjectKey::copy_from(b"copy"));
        loop {
            let budget = self.rng.random_range(1..8);
            let rig = &mut self.rig;
            let Some(part) = rig.read(|vos| vos.export(from_cid, &oid, &anchor, budget)) else {
                return;
            };
            let bytes = part.data.into_iter().map(|d| rig.bytes(&Extent::Device(d)).into());
            let mut tx = Tx::new(0);
            tx.import(to_cid, &copy, part.entries, bytes.collect()).unwrap();
            rig.submit(&tx).unwrap();
            match part.next {
                Some(next) => anchor = next,
                None => break,
            }
            assert!(!rig.read(|vos| vos.object_exists(to_cid, &copy)), "not before the last part");
            if self.rng.random_bool(0.1) {
                self.rig.reopen();
            }
        }
        self.rig.reopen();
        self.rig.check();
        let mut epochs = self.arrays[i].retained.clone();
        epochs.extend(self.used.iter().rev().take(4).copied().chain([u64::MAX]));
        epochs.retain(|&e| self.arrays[i].may_read(e));
        for hlc in epochs {
            let want = self.observe((from_cid, &oid), hlc);
            assert!(want == self.observe((to_cid, &copy), hlc), "array {i} at {hlc}");
        }
        let mut tx = Tx::new(self.now + 1);
        tx.punch_object(to_cid, &copy);
        tx.retain(to_cid, &copy, &[]);
        self.rig.submit(&tx).unwrap();
    }

    fn observe(&mut self, (cid, oid): (ContainerId, &ObjectKey), hlc: u64) -> State {
        let rig = &mut self.rig;
        let size = rig.read(|vos| vos.at(hlc).array_size(cid, oid, DKEY, b""))?;
        let extents = rig.read(|vos| vos.at(hlc).extents(cid, oid, DKEY, b"", 0, size));
        let cells = |e: &Extent| match e {
            Extent::Hole { len, punched, .. } => {
                vec![if *punched { PUNCHED } else { NEVER }; *len as usize]
            }
            _ => rig.bytes(e).into_iter().map(|b| u16::from(b) + DATA).collect(),
        };
        Some(extents.iter().flat_map(cells).collect())
    }

    fn verify(&mut self) {
        for i in 0..ARRAYS {
            let mut epochs = self.arrays[i].retained.clone();
            let used = self.used.iter().rev().take(4).copied();
            epochs.extend(used.chain([u64::MAX]));
            epochs.retain(|&e| self.arrays[i].may_read(e));
            for hlc in epochs {
                let want = self.arrays[i].at(Epoch::end_of(hlc));
                let (cid, oid) = name(i);
                let found = self.observe((cid, &oid), hlc);
                let differ = want.iter().flatten().zip(found.iter().flatten());
                let first = differ.clone().position(|(a, b)| a != b);
                assert!(
                    want == found,
                    "array {i} at {hlc}: {:?} cells, found {:?}; first at {first:?}",
                    want.as_ref().map(Vec::len),
                    found.as_ref().map(Vec::len)
                );
            }
        }
    }
}

fn run(seed: u64, steps: usize, pool_pages: usize) {
    let config = Config { pool_bytes: pool_pages * PAGE_SIZE, ..Config::default() };
    let mut world = World {
        rig: Rig::new(config),
        rng: ChaCha8Rng::seed_from_u64(seed),
        arrays: vec![Model::default(); ARRAYS],
        used: BTreeSet::new(),
        now: 1000,
        horizon: 0,
    };
    let mut tx = Tx::new(0);
    CIDS.iter().for_each(|&cid| tx.create_container(cid));
    world.rig.submit(&tx).unwrap();
    for _ in 0..steps {
        world.step();
        match world.rng.random_range(0..40) {
            0..3 => world.rig.checkpoint(),
            3..5 => world.rig.vos.evict_all(),
            5..12 => {
                let budget = world.rng.random_range(1..40);
                world.rig.collect(budget);
            }
            12..14 => world.rig.reopen(),
            14..18 => world.rig.check(),
            18..21 => world.verify(),
            21..26 => world.background(),
            _ => {}
        }
    }
    world.verify();
    world.rig.reopen();
    world.rig.check();
    world.verify();
    world.export(steps % ARRAYS);
    world.rig.drain(&CIDS);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 300, ..ProptestConfig::default() })]
    #[test]
    fn clones_show_what_their_sources_did(
        seed in any::<u64>(),
        steps in 1usize..200,
        pool in prop_oneof![Just(16usize), Just(4096)],
    ) {
        run(seed, steps, pool);
    }
}

#[test]
fn a_clone_copies_no_data() {
    let mut rig = Rig::new(Config::default());
    let ((cid, a), (_, b)) = (name(0), name(2));
    let mut tx = Tx::new(1);
    tx.create_container(cid);
    tx.write(cid, &a, DKEY, b"", 0, Bytes::from(vec![7; 1 << 20]), None);
    rig.submit(&tx).unwrap();
    let blocks = rig.vos.stats().data_blocks;
    let mut tx = Tx::new(2);
    let place = |oid| Position { cid, oid, dkey: DKEY, akey: b"", offset: 0 };
    tx.clone_range(place(&a), 2, 1 << 20, place(&b));
    rig.submit(&tx).unwrap();
    assert_eq!(rig.vos.stats().data_blocks, blocks);
    let mut refused = |from, epoch| {
        let mut tx = Tx::new(2);
        tx.clone_range(from, epoch, 1, place(&b));
        rig.submit(&tx).unwrap_err()
    };
    assert_eq!(refused(place(&a), 0), StageError::EpochTooOld { epoch: 0, horizon: 1 });
    assert_eq!(refused(place(&name(4).1), 2), StageError::NonExistent);
    let mut tx = Tx::new(3);
    tx.punch_object(cid, &a);
    rig.submit(&tx).unwrap();
    assert_eq!(rig.vos.stats().data_blocks, blocks, "the clone has them");
    rig.check();
    let mut tx = Tx::new(4);
    tx.punch_object(cid, &b);
    rig.submit(&tx).unwrap();
    assert_eq!(rig.vos.stats().data_blocks, 0);
    assert_eq!(rig.vos.stats().aging_blocks, blocks, "until a checkpoint");
    rig.drain(&[cid]);
}

#[test]
fn properties_of_containers_last() {
    let mut rig = Rig::new(Config::default());
    let cid = CIDS[0];
    let set = |rig: &mut Rig, name: &[u8], value: Option<&'static [u8]>| {
        let mut tx = Tx::new(1);
        tx.set_container_property(cid, name, value.map(Bytes::from_static));
        rig.submit(&tx).map(|_| ())
    };
    assert_eq!(set(&mut rig, b"a", Some(b"1")), Err(StageError::NoContainer(cid)));
    let mut tx = Tx::new(0);
    tx.create_container(cid);
    rig.submit(&tx).unwrap();
    for (name, value) in [(b"b", Some(&b"1"[..])), (b"a", Some(b"2")), (b"b", Some(b"3"))] {
        set(&mut rig, name, value).unwrap();
    }
    rig.reopen();
    assert_eq!(rig.vos.container_property(cid, b"b"), Some(Bytes::from_static(b"3")));
    set(&mut rig, b"b", None).unwrap();
    rig.reopen();
    rig.reopen();
    let left = [(Bytes::from_static(b"a"), Bytes::from_static(b"2"))];
    assert_eq!(rig.vos.container_properties(cid), left);
    assert_eq!(set(&mut rig, b"", None), Err(StageError::KeyLength(0)));
    rig.check();
    rig.drain(&[cid]);
}
