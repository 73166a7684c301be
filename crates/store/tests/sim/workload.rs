//! Random transactions against a simulated store, and what must hold after it lost power.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use spirula_bio::{Device, DeviceError, Devices};
use spirula_store::{Expect, Faults, FormatOptions, Options, Store, StoreError};
use spirula_vos::{ContainerId, Cursor, Extent, Keys, ObjectKey, StageError, Tx, View, Vos};
use spirula_xstream::sim::{SimHost, SimWorld};
use spirula_xstream::{Class, sleep, spawn};

use crate::exchange;
use crate::ops::{self, Content, Items, Objects, State, Value, random_op, random_pair_op};
use crate::prepared;

pub(crate) const PATH: &str = "/disk";
pub(crate) const DEVICE_BYTES: u64 = 24 << 20;
pub(crate) const CONTAINERS: u8 = 3;
/// Further ones, which only come about when others are split.
const SPARE: u8 = 3;
const WAL_PATH: &str = "/disk.wal";
const META_PATH: &str = "/disk.meta";
const SMALLEST: u64 = 16 << 20;

/// Which regions have a disk of their own.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Set {
    pub(crate) wal: bool,
    pub(crate) meta: bool,
}

impl Set {
    pub(crate) fn make(self, host: &SimHost) {
        host.disk(PATH, DEVICE_BYTES);
        if self.wal {
            host.disk(WAL_PATH, SMALLEST);
        }
        if self.meta {
            host.disk(META_PATH, SMALLEST);
        }
    }

    pub(crate) fn open(self) -> Result<Devices, DeviceError> {
        Ok(Devices {
            main: Device::open(PATH)?,
            wal: self.wal.then(|| Device::open(WAL_PATH)).transpose()?,
            meta: self.meta.then(|| Device::open(META_PATH)).transpose()?,
        })
    }
}

/// What a container went through since it was last read back.
#[derive(Default)]
pub(crate) struct History {
    /// States after each transaction; the first is the starting point.
    pub(crate) states: Vec<(u64, State)>,
    /// Number of the last acknowledged transaction.
    pub(crate) acknowledged: u64,
}

/// What the submitter knows.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) histories: BTreeMap<ContainerId, History>,
    /// Transactions over two containers.
    pub(crate) pairs: Vec<(u64, ContainerId, ContainerId)>,
    pub(crate) next: u64,
    pub(crate) prepared: prepared::Transactions,
    pub(crate) submitted: u64,
    pub(crate) acknowledged: u64,
    pub(crate) refused: u64,
}

pub(crate) type Shared = Rc<RefCell<Ledger>>;

/// One simulated machine with one store.
pub(crate) struct Machine {
    pub(crate) world: SimWorld,
    pub(crate) host: SimHost,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) ledger: Shared,
    pub(crate) faults: Faults,
    pub(crate) options: Options,
    pub(crate) set: Set,
}

impl Machine {
    pub(crate) fn new(seed: u64, faults: Faults) -> Machine {
        let world = SimWorld::new(seed);
        let host = world.host("osd");
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // Each disk loses what it likes.
        let set = Set { wal: rng.random_bool(0.3), meta: rng.random_bool(0.3) };
        set.make(&host);
        let options = Options {
            pool_bytes: if rng.random_bool(0.5) { 256 << 10 } else { 16 << 20 },
            zero_ahead: rng.random_bool(0.2),
            ..Options::default()
        };
        host.block_on(async move {
            let device = set.open().unwrap();
            let format = FormatOptions { wal_bytes: Some(1 << 20), ..FormatOptions::default() };
            Store::format(&device, &format).await.unwrap();
        })
        .unwrap();
        let ledger = Shared::default();
        for i in 0..CONTAINERS + SPARE {
            let history = History { states: vec![(0, None)], acknowledged: 0 };
            ledger.borrow_mut().histories.insert(ContainerId([i; 16]), history);
        }
        Machine { world, host, rng, ledger, faults, options, set }
    }

    /// Random transactions until the power goes.
    pub(crate) fn run_and_lose_power(&mut self) {
        let (ledger, faults, options) = (self.ledger.clone(), self.faults, self.options);
        let rng = ChaCha8Rng::seed_from_u64(self.rng.random());
        let run = submit_forever(ledger, faults, (self.set, options), rng);
        let task = self.host.spawn(Class::Client, run);
        let micros = match self.rng.random_range(0..10) {
            0..4 => 5_000,
            4..9 => 25_000,
            _ => 150_000,
        };
        self.world.run_for(Duration::from_micros(self.rng.random_range(100..micros)));
        self.host.power_loss();
        drop(task);
    }

    /// Opens the store again and compares; the text says what is wrong.
    pub(crate) fn verify(&mut self) -> Result<(), String> {
        // Recovery may be interrupted, too.
        while self.rng.random_bool(0.3) {
            let (set, options) = (self.set, self.options);
            let task = self.host.spawn(Class::Client, async move {
                let device = set.open().unwrap();
                let _ = Store::open(&device, Expect::default(), options).await;
                sleep(Duration::from_secs(1)).await;
            });
            self.world.run_for(Duration::from_micros(self.rng.random_range(50..20_000)));
            self.host.power_loss();
            drop(task);
        }
        let (ledger, set, options) = (self.ledger.clone(), self.set, self.options);
        let verified = self.host.block_on(async move { verify(&ledger, set, options).await });
        verified.map_err(|e| e.to_string())?
    }
}

async fn verify(ledger: &Shared, set: Set, options: Options) -> Result<(), String> {
    let device = set.open().map_err(|e| e.to_string())?;
    let options = Options { zero_ahead: false, ..options };
    let store = Store::open(&device, Expect::default(), options).await;
    let store = store.map_err(|e| e.to_string())?;
    store.check().await.map_err(|e| format!("check: {e}"))?;
    let mut reached = BTreeMap::new();
    let cids: Vec<ContainerId> = ledger.borrow().histories.keys().copied().collect();
    for cid in cids {
        let found = observe(&store, cid).await.map_err(|e| e.to_string())?;
        let mut ledger = ledger.borrow_mut();
        let history = ledger.histories.get_mut(&cid).unwrap();
        let acknowledged = history.acknowledged;
        let candidates = history.states.iter().rev().take_while(|(n, _)| *n >= acknowledged);
        let Some(n) = candidates.clone().find(|(_, s)| *s == found).map(|(n, _)| *n) else {
            let newest = candidates.map(|(n, s)| format!("{n}: {}", ops::difference(s, &found)));
            let all: Vec<String> = newest.collect();
            return Err(format!("{cid:?} is no state since {acknowledged}: {}", all.join("; ")));
        };
        // Equal states have several numbers: this container may be at any of them.
        let alike = history.states.iter().filter(|(_, s)| *s == found).map(|(n, _)| *n);
        reached.insert(cid, (alike.min().unwrap_or(n).max(acknowledged), n));
        history.states = vec![(n, found)];
        history.acknowledged = n;
    }
    let pairs = std::mem::take(&mut ledger.borrow_mut().pairs);
    for (n, a, b) in pairs {
        let (a, b) = (reached[&a], reached[&b]);
        if (a.0 >= n && b.1 < n) || (b.0 >= n && a.1 < n) {
            return Err(format!("transaction {n} is in one of its containers only"));
        }
    }
    prepared::verify(&store, ledger, &reached).await?;
    store.close().await.map_err(|e| e.to_string())
}

async fn submit_forever(
    ledger: Shared,
    faults: Faults,
    (set, options): (Set, Options),
    mut rng: ChaCha8Rng,
) {
    let device = set.open().unwrap();
    let store = Store::open(&device, Expect::default(), options).await.unwrap();
    store.set_faults(faults);
    store.set_trim(rng.random_bool(0.3));
    loop {
        store.admit().await;
        match rng.random_range(0..20) {
            0..2 => prepared::prepare_one(&store, &ledger, &mut rng).await,
            2..4 => prepared::end_one(&store, &ledger, &mut rng).await,
            _ => submit_one(&store, &ledger, &mut rng).await,
        }
        if rng.random_bool(0.3) {
            sleep(Duration::from_micros(rng.random_range(0..400))).await;
        }
        if rng.random_bool(0.02) {
            store.drop_caches();
        }
        if rng.random_bool(0.01) {
            store.scrub_later();
        }
        if rng.random_bool(0.05) {
            let cid = ContainerId([rng.random_range(0..CONTAINERS); 16]);
            store.aggregate_later(cid, ledger.borrow().next);
        }
        assert_eq!(store.counters().scrub_errors, 0, "{:?}", store.scrub_status());
    }
}

async fn submit_one(store: &Store, ledger: &Shared, rng: &mut ChaCha8Rng) {
    let mut cids = choose(ledger, rng);
    let (number, mut states) = {
        let mut ledger = ledger.borrow_mut();
        ledger.next += 1;
        let newest = |cid| ledger.histories[cid].states.last().unwrap().1.clone();
        let states: Vec<State> = cids.iter().map(newest).collect();
        (ledger.next, states)
    };
    let mut tx = Tx::new(number);
    let imports = rng.random_bool(0.04)
        && exchange::import(store, &mut tx, &cids, &mut states, rng).await.unwrap();
    if imports {
        // The other one is not named in it.
        cids.drain(..cids.len() - 1);
        states.drain(..states.len() - 1);
    } else {
        fill(&mut tx, &cids, &mut states, rng);
    }
    let mut reserved = match rng.random_bool(0.1) {
        true => store.reserve(&tx).await.ok(),
        false => None,
    };
    let commit = loop {
        let submitted = match reserved.take() {
            Some(r) => store.submit_reserved(&tx, r).map_err(|(e, r)| (e, Some(r))),
            None => store.submit(&tx).map_err(|e| (e, None)),
        };
        let refused;
        (refused, reserved) = match submitted {
            Ok(commit) => break commit,
            Err((e, r)) => (e, r),
        };
        assert!(reserved.is_none() || refused != StageError::NoSpace, "it was reserved");
        match refused {
            StageError::Missing(pages) => store.load(pages).await.unwrap(),
            StageError::NoSpace | StageError::InProgress { .. } => {
                ledger.borrow_mut().refused += 1;
                return;
            }
            // What was punched may have left versions behind; or it is more than the WAL takes at once.
            StageError::Exists | StageError::TooLarge if imports => return,
            e => panic!("stage: {e}"),
        }
    };
    {
        let mut ledger = ledger.borrow_mut();
        ledger.submitted += 1;
        for (cid, state) in cids.iter().zip(states) {
            ledger.histories.get_mut(cid).unwrap().states.push((number, state));
        }
        if let [a, b] = cids[..] {
            ledger.pairs.push((number, a, b));
        }
    }
    let ledger = ledger.clone();
    spawn(Class::Client, async move {
        commit.await.unwrap();
        let mut ledger = ledger.borrow_mut();
        ledger.acknowledged += 1;
        for cid in cids {
            let history = ledger.histories.get_mut(&cid).unwrap();
            history.acknowledged = history.acknowledged.max(number);
        }
    });
}

/// One container or two.
fn choose(ledger: &Shared, rng: &mut ChaCha8Rng) -> Vec<ContainerId> {
    let [first, second] =
        [(); 2].map(|()| ContainerId([rng.random_range(0..CONTAINERS + SPARE); 16]));
    let ledger = ledger.borrow();
    let state = |cid| &ledger.histories[cid].states.last().unwrap().1;
    if is_spare(first) && state(&first).is_none() {
        return vec![ContainerId([0; 16])];
    }
    // One that is not there is good for a split only.
    let splits = !is_spare(second)
        || state(&second).is_some()
        || state(&first).as_ref().is_some_and(|s| s.names().len() > 1);
    match rng.random_bool(0.15) && first != second && splits {
        true => vec![first, second],
        false => vec![first],
    }
}

fn is_spare(cid: ContainerId) -> bool {
    cid.0[0] >= CONTAINERS
}

/// Random operations on one container or two.
fn fill(tx: &mut Tx, cids: &[ContainerId], states: &mut [State], rng: &mut ChaCha8Rng) {
    if rng.random_bool(0.4) {
        tx.set_horizon(tx.epoch.saturating_sub(rng.random_range(0..20)));
    }
    let pair = match (cids, &*states) {
        ([a, b], [x, y]) => random_pair_op([*a, *b], [x, y], rng),
        _ => None,
    };
    if let (Some(op), [x, y]) = (pair, &mut *states) {
        op.add(tx);
        let mut both = [std::mem::take(x), std::mem::take(y)];
        op.apply(&mut both);
        [*x, *y] = both;
    }
    for (cid, state) in cids.iter().zip(&mut *states) {
        if is_spare(*cid) && state.is_none() {
            continue;
        }
        for _ in 0..rng.random_range(1..5) {
            let op = random_op(state, rng);
            ops::add(tx, *cid, &op);
            ops::apply(state, &op);
        }
        add_history(tx, *cid, state, rng);
    }
    if rng.random_bool(0.1) {
        exchange::clone(tx, cids, states, rng);
    }
}

/// Retained epochs and aggregation: nobody who reads the newest state notices.
fn add_history(tx: &mut Tx, cid: ContainerId, state: &State, rng: &mut ChaCha8Rng) {
    let Some(Content { objects, .. }) = state else {
        return;
    };
    let Some((oid, _)) = objects.iter().nth(rng.random_range(0..objects.len().max(1))) else {
        return;
    };
    match rng.random_range(0..20) {
        0..3 => tx.retain(cid, &ObjectKey::copy_from(oid), &[tx.epoch]),
        3 => tx.retain(cid, &ObjectKey::copy_from(oid), &[]),
        4..8 => tx.aggregate(cid, &ObjectKey::copy_from(oid), Cursor::default(), 60),
        _ => {}
    }
}

/// What is committed.
fn newest(vos: &Vos) -> View<'_> {
    vos.at(u64::MAX).committed()
}

/// Reads a container back from the store.
pub(crate) async fn observe(store: &Store, cid: ContainerId) -> Result<State, StoreError> {
    if !store.read(|vos| Ok(vos.container_exists(cid))).await? {
        return Ok(None);
    }
    let all = std::ops::Bound::Unbounded;
    let mut objects = Objects::new();
    for oid in store.read(|vos| newest(vos).list_objects(cid, all, None, usize::MAX)).await? {
        let mut items = Items::new();
        let every = Keys::default();
        let dkeys = store.read(|vos| newest(vos).dkeys(cid, &oid, &every, usize::MAX)).await?;
        for dkey in dkeys {
            let list =
                store.read(|vos| newest(vos).list_akeys(cid, &oid, &dkey, all, usize::MAX)).await?;
            for (akey, value) in list {
                let size =
                    store.read(|vos| newest(vos).array_size(cid, &oid, &dkey, &akey)).await?;
                let value = match size {
                    None => Value::Single(value),
                    Some(size) => {
                        let bytes = read_array(store, cid, &oid, &dkey, &akey, size).await?;
                        Value::Array(Rc::new(bytes))
                    }
                };
                items.insert((dkey.to_vec(), akey.to_vec()), value);
            }
        }
        objects.insert(oid.0.to_vec(), items);
    }
    let range = store.read(|vos| Ok(vos.container_range(cid))).await?;
    let (from, to) = range.unwrap_or_default();
    Ok(Some(Content { objects, from: from.to_vec(), to: to.map(|to| to.to_vec()) }))
}

async fn read_array(
    store: &Store,
    cid: ContainerId,
    oid: &ObjectKey,
    dkey: &[u8],
    akey: &[u8],
    size: u64,
) -> Result<Vec<u8>, StoreError> {
    let extents = store.read(|vos| newest(vos).extents(cid, oid, dkey, akey, 0, u64::MAX)).await?;
    let total: u64 = extents.iter().map(Extent::byte_len).sum();
    assert_eq!(total, size, "extents cover the array");
    let data = store.read_data(&extents).await?;
    assert_eq!(data.crc, crc32c::crc32c(&data.concat()), "put together from the chunks'");
    Ok(data.concat())
}
