//! The phases: what one operation of each does, and what is counted besides.

use std::cell::{Cell, RefCell};
use std::ops::Bound;
use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use spirula_bio::Device;
use spirula_perf::{KeyName, Keys, Meter, Rng, print};
use spirula_store::{Counters, Store};
use spirula_vos::{BLOCK_SIZE, ObjectKey, PAGE_SIZE, StageError, Tx};
use spirula_xstream::AlignedBuf;

use crate::drive::{Done, Plan, drive};
use crate::session::CONTAINER;
use crate::{Args, Phase};

/// Keys are written first at least at this depth: filling is not what is looked at.
const FILL_DEPTH: u64 = 64;
/// Objects listed by one call.
const LIST_MAX: usize = 256;

/// A store with a load.
#[derive(Clone)]
pub(crate) struct Bench {
    inner: Rc<Inner>,
}

struct Inner {
    args: Args,
    device: Device,
    store: Store,
    epoch: Cell<u64>,
    payload: Bytes,
    keys: RefCell<Keys>,
}

/// Reads of each key on average by `warm`.
const WARM_ROUNDS: u64 = 64;

impl Bench {
    pub(crate) fn new(args: Args, device: Device, store: Store, epoch: u64) -> Bench {
        let payload = AlignedBuf::copy_from(&args.load.payload()).freeze();
        let keys = RefCell::new(args.load.chooser(epoch + 1));
        let epoch = Cell::new(epoch);
        Bench { inner: Rc::new(Inner { args, device, store, epoch, payload, keys }) }
    }

    /// The last epoch given to a transaction.
    pub(crate) fn epoch(&self) -> u64 {
        self.inner.epoch.get()
    }

    /// Runs one phase, cleans up behind it and reports.
    pub(crate) async fn run(&self, phase: Phase) -> Result<()> {
        if phase == Phase::Reopen {
            // Its report comes with the next opening.
            return Ok(());
        }
        let store = &self.inner.store;
        let (before, mut meter) = (store.counters(), Meter::start());
        let done = self.operations(phase).await?;
        meter.operations_done();
        match phase {
            // What a crash should find is what no checkpoint holds.
            Phase::Crash => return Ok(()),
            Phase::Fill | Phase::Update => store.checkpoint().await?,
            Phase::Punch => store.make_room().await?,
            _ => {}
        }
        let writes = matches!(phase, Phase::Fill | Phase::Update);
        let written = if writes { done.ops * self.inner.args.load.size as u64 } else { 0 };
        let mut report = meter.finish(&phase.name(), done.ops, &done.latencies, written);
        let after = store.counters();
        report.device_bytes = device_bytes(&after) - device_bytes(&before);
        report.note = note(&before, &after);
        if writes {
            report.metadata_per_object = store.statfs().metadata_per_object();
        }
        print(&report, self.inner.args.load.json)
    }

    async fn operations(&self, phase: Phase) -> Result<Done> {
        let load = &self.inner.args.load;
        let random = Plan { ops: load.ops, depth: load.depth, timed: true };
        let once = |depth| Plan { ops: load.keys(), depth, timed: false };
        match phase {
            Phase::Fill => {
                let plan = once(load.depth.max(FILL_DEPTH));
                self.drive(plan, |bench, n| async move { bench.write(n).await }).await
            }
            Phase::Update | Phase::Crash => {
                self.drive(random, |bench, _| async move { bench.write(bench.key()).await }).await
            }
            Phase::Warm => {
                let plan = Plan { ops: WARM_ROUNDS * load.keys(), timed: false, ..random };
                self.drive(plan, |bench, _| async move { bench.fetch(bench.key()).await }).await
            }
            Phase::Fetch => {
                self.drive(random, |bench, _| async move { bench.fetch(bench.key()).await }).await
            }
            Phase::Punch => {
                let plan = Plan { timed: true, ..once(load.depth) };
                self.drive(plan, |bench, n| async move { bench.punch(n).await }).await
            }
            Phase::DeviceRead => self.read_device(random).await,
            Phase::Iterate => self.iterate().await,
            Phase::Aggregate | Phase::Reopen | Phase::Bare => unreachable!("no operations"),
        }
    }

    async fn drive<F, Fut>(&self, plan: Plan, op: F) -> Result<Done>
    where
        F: Fn(Bench, u64) -> Fut + 'static,
        Fut: Future<Output = Result<()>> + 'static,
    {
        let bench = self.clone();
        drive(&self.inner.args.load, plan, move |n| op(bench.clone(), n)).await
    }

    fn key(&self) -> u64 {
        self.inner.keys.borrow_mut().next_key()
    }

    fn name(&self, key: u64) -> (ObjectKey, KeyName) {
        let mut name = self.inner.args.load.name(key);
        (ObjectKey(Bytes::from(std::mem::take(&mut name.object))), name)
    }

    fn transaction(&self) -> Tx {
        let epoch = self.inner.epoch.get() + 1;
        self.inner.epoch.set(epoch);
        Tx::new(epoch)
    }

    async fn write(&self, key: u64) -> Result<()> {
        let (oid, name) = self.name(key);
        self.inner.store.admit().await;
        let (mut tx, data) = (self.transaction(), self.inner.payload.clone());
        let (dkey, akey) = (name.dkey.as_bytes(), name.akey.as_bytes());
        match self.inner.args.single {
            true => tx.update(CONTAINER, &oid, dkey, akey, data),
            false => tx.write(CONTAINER, &oid, dkey, akey, 0, data, None),
        }
        self.commit(&tx).await
    }

    async fn punch(&self, key: u64) -> Result<()> {
        let (oid, name) = self.name(key);
        self.inner.store.admit().await;
        let mut tx = self.transaction();
        tx.punch_akey(CONTAINER, &oid, name.dkey.as_bytes(), name.akey.as_bytes());
        self.commit(&tx).await
    }

    async fn commit(&self, tx: &Tx) -> Result<()> {
        let store = &self.inner.store;
        let commit = loop {
            match store.submit(tx) {
                Ok(commit) => break commit,
                Err(StageError::Missing(pages)) => store.load(pages).await?,
                Err(StageError::NoSpace) => {
                    return Err(StageError::NoSpace).context("give more --device-bytes");
                }
                Err(e) => return Err(e.into()),
            }
        };
        Ok(commit.await?)
    }

    async fn fetch(&self, key: u64) -> Result<()> {
        let (oid, name) = self.name(key);
        let (dkey, akey) = (name.dkey.as_bytes(), name.akey.as_bytes());
        let store = &self.inner.store;
        let len = if self.inner.args.single {
            let value = store.read(|vos| vos.fetch(CONTAINER, &oid, dkey, akey)).await?;
            value.map_or(0, |v| v.len())
        } else {
            let extents =
                |vos: &spirula_vos::Vos| vos.extents(CONTAINER, &oid, dkey, akey, 0, u64::MAX);
            let extents = store.read(extents).await?;
            // As the OSD does: what is in memory needs no I/O.
            match store.cached_data(&extents) {
                Some(data) => data.len(),
                None => store.read_data(&extents).await?.len(),
            }
        };
        let size = self.inner.args.load.size;
        ensure!(len == size, "key {key} has {len} bytes instead of {size}: fill first");
        Ok(())
    }

    /// Lists everything, one object after the other; an operation is one object.
    async fn iterate(&self) -> Result<Done> {
        let load = self.inner.args.load.clone();
        let plan = Plan { ops: load.objects, depth: 1, timed: true };
        let listed = Rc::new(RefCell::new(Listed::default()));
        self.drive(plan, move |bench, _| {
            let listed = listed.clone();
            async move {
                let object = bench.next_object(&listed).await?;
                bench.list_akeys(&object).await
            }
        })
        .await
    }

    async fn next_object(&self, listed: &RefCell<Listed>) -> Result<ObjectKey> {
        let known = listed.borrow_mut().ahead.next();
        let object = match known {
            Some(object) => object,
            None => {
                let last = listed.borrow().last.clone();
                let from = match &last {
                    None => Bound::Unbounded,
                    Some(last) => Bound::Excluded(&last.0[..]),
                };
                let list =
                    |vos: &spirula_vos::Vos| vos.list_objects(CONTAINER, from, None, LIST_MAX);
                let mut more = self.inner.store.read(list).await?.into_iter();
                let object =
                    more.next().context("fewer objects than were asked for: fill first")?;
                listed.borrow_mut().ahead = more;
                object
            }
        };
        listed.borrow_mut().last = Some(object.clone());
        Ok(object)
    }

    async fn list_akeys(&self, object: &ObjectKey) -> Result<()> {
        let load = &self.inner.args.load;
        for dkey in 0..load.dkeys {
            let dkey = dkey.to_string();
            let max = load.akeys as usize;
            let list = |vos: &spirula_vos::Vos| {
                vos.list_akeys(CONTAINER, object, dkey.as_bytes(), Bound::Unbounded, max)
            };
            let akeys = self.inner.store.read(list).await?.len();
            ensure!(akeys == max, "{object:?} has {akeys} akeys: fill first");
        }
        Ok(())
    }

    /// Reads where the store has written: what was only reserved costs the device nothing.
    async fn read_device(&self, plan: Plan) -> Result<Done> {
        let device = self.inner.device.clone();
        let len = self.inner.args.read_bytes;
        let first = device.superblock().await?.layout().first_block * BLOCK_SIZE;
        let places = self.inner.store.statfs().used / len as u64;
        ensure!(places > 0, "the store is empty: fill first");
        let rng = RefCell::new(Rng::new(2));
        self.drive(plan, move |_, _| {
            let place = rng.borrow_mut().below(places);
            let read = device.read(first + place * len as u64, len);
            async move {
                read.await?;
                Ok(())
            }
        })
        .await
    }
}

/// Objects that were listed and not looked at yet.
#[derive(Default)]
struct Listed {
    ahead: std::vec::IntoIter<ObjectKey>,
    last: Option<ObjectKey>,
}

/// All that the store wrote: WAL, data, pages, and a root for each checkpoint.
fn device_bytes(counters: &Counters) -> u64 {
    counters.wal_bytes
        + counters.data_bytes
        + counters.pages_written * PAGE_SIZE as u64
        + counters.checkpoints * BLOCK_SIZE
}

fn note(before: &Counters, after: &Counters) -> String {
    let mut parts = Vec::new();
    let batches = after.batches - before.batches;
    if batches > 0 {
        let group = (after.commits - before.commits) as f64 / batches as f64;
        parts.push(format!("{group:.1} commits/batch"));
    }
    let counts = [
        (after.checkpoints - before.checkpoints, "checkpoints"),
        (after.pages_read - before.pages_read, "pages read"),
    ];
    parts.extend(counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")));
    parts.join(", ")
}
