//! Random histories of an object that is copied in the middle: both copies then go on alike.

use bytes::Bytes;
use spirula_osd::copies::{Added, Incoming, Outgoing, read_object, remove};
use spirula_osd::object::ObjectInfo;
use spirula_osd::plan::{Effect, Rollback};
use spirula_osd::snap::{SnapChange, SnapClone, SnapSet};
use spirula_store::Store;
use spirula_wire::types::SnapId;
use spirula_xstream::sim::SimWorld;

use crate::whole_objects::{Site, bytes, cid, oid, version};

const SEEDS: u64 = 40;
const BYTES_MAX: u64 = 300_000;

/// Numbers that look random.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) % n
    }

    fn name(&mut self) -> Bytes {
        format!("n{:02}", self.below(40)).into()
    }

    fn value(&mut self) -> Bytes {
        let len = [0, 9, 700, 5000][self.below(4) as usize];
        bytes(self.below(99), len)
    }
}

/// What one transaction does.
#[derive(Clone, Debug)]
struct Step {
    effects: Vec<Effect>,
    info: Option<ObjectInfo>,
    snaps: Option<SnapChange>,
    aggregates: bool,
}

/// The object as far as the next step depends on it. Epochs are those that [`Site::change`] gives.
struct History {
    random: Random,
    set: SnapSet,
    exists: bool,
    size: u64,
    epoch: u64,
}

impl History {
    fn next(&mut self) -> Step {
        let before = self.epoch;
        self.epoch += 10;
        let mut step = Step {
            effects: Vec::new(),
            info: None,
            snaps: None,
            aggregates: self.random.below(6) == 0,
        };
        match self.random.below(12) {
            0 if !self.set.clones.is_empty() => step.snaps = Some(self.trim()),
            1..=3 if self.exists => step.snaps = Some(self.make_clone(before)),
            _ => {}
        }
        if self.exists && self.random.below(15) == 0 {
            (self.exists, self.size) = (false, 0);
            step.effects.push(Effect::Remove);
            step.snaps.get_or_insert_with(|| SnapChange::of(self.set.clone()));
            return step;
        }
        if step.snaps.is_none() || self.exists {
            self.exists = true;
            for _ in 0..self.random.below(4) + 1 {
                let effect = self.effect();
                step.effects.push(effect);
            }
        }
        // A change of clones alone, of an object without a head, leaves it without one.
        let info = ObjectInfo { size: self.size, omap: true, ..ObjectInfo::default() };
        step.info = self.exists.then_some(info);
        step.snaps.get_or_insert_with(|| SnapChange::of(self.set.clone()));
        step
    }

    fn make_clone(&mut self, before: u64) -> SnapChange {
        let id = SnapId(self.set.seq.0 + 1 + self.random.below(3));
        let clone = SnapClone { id, epoch: before, size: self.size, ..SnapClone::default() };
        self.set.clones.push(SnapClone { snaps: vec![id], omap: true, ..clone });
        self.set.seq = id;
        let set = self.set.clone();
        SnapChange { set, header: true, made: true, changed: vec![id], gone: Vec::new() }
    }

    fn trim(&mut self) -> SnapChange {
        let at = self.random.below(self.set.clones.len() as u64) as usize;
        let gone = vec![self.set.clones.remove(at).id];
        SnapChange { set: self.set.clone(), header: true, gone, ..SnapChange::default() }
    }

    fn effect(&mut self) -> Effect {
        let random = &mut self.random;
        let offset = random.below(BYTES_MAX);
        let length =
            [1 + random.below(300), 4096 * (1 + random.below(20))][random.below(2) as usize];
        match random.below(12) {
            0..=3 => {
                self.size = self.size.max(offset + length);
                Effect::Write { offset, data: bytes(random.below(99), length as usize) }
            }
            4 => Effect::Zero { offset: offset.min(self.size), length: length.min(self.size) },
            5 => {
                self.size = offset;
                Effect::Truncate(offset)
            }
            6 => Effect::SetXattr { name: random.name(), value: random.value() },
            7 => Effect::RemoveXattr(random.name()),
            8 => {
                let pairs = (0..random.below(30)).map(|_| (random.name(), random.value()));
                Effect::SetOmap(pairs.collect())
            }
            9 => Effect::RemoveOmapRange { from: random.name(), to: random.name() },
            10 if random.below(2) == 0 => Effect::ClearOmap,
            11 if !self.set.clones.is_empty() => {
                let at = random.below(self.set.clones.len() as u64) as usize;
                let SnapClone { id, epoch, size, .. } = self.set.clones[at];
                self.size = size;
                Effect::Rollback(Rollback { id, epoch, size, whole: random.below(2) == 0 })
            }
            _ => Effect::SetOmapHeader(random.value()),
        }
    }
}

async fn apply(site: &Site, v: u64, step: &Step) {
    let mut snaps = step.snaps.clone();
    let gone = step.info.is_none() && snaps.as_ref().is_none_or(|s| s.set.clones.is_empty());
    let (effects, info) = (step.effects.clone(), step.info.clone());
    if gone {
        // As the last clone of a deleted object is trimmed.
        let effects = vec![Effect::Remove];
        site.change(&oid(), v, effects, None, snaps.as_mut()).await;
    } else {
        site.change(&oid(), v, effects, info, snaps.as_mut()).await;
    }
    if step.aggregates {
        let horizon = site.last_epoch.get();
        site.store.aggregate_object(cid(), &oid(), horizon).await.unwrap();
    }
}

/// Copies the object in small parts.
async fn copy(from: &Site, to: &Site, entries: usize) -> u32 {
    let out: Option<Outgoing> = read_object(&from.store, cid(), &oid()).await.unwrap();
    let Some(mut out) = out else {
        remove(&to.store, cid(), &oid()).await.unwrap();
        return 0;
    };
    out.set_entries_max(entries);
    let (mut incoming, mut count) = (Incoming::new(&to.store, cid(), &oid()), 0);
    while let Some(part) = out.next().await.unwrap() {
        let last = part.last;
        let added = incoming.add(part, || Some(to.last_epoch.get())).await.unwrap();
        assert_eq!(added == Added::Whole(out.version()), last);
        drop_caches(&[&from.store, &to.store]);
        count += 1;
    }
    count
}

fn drop_caches(stores: &[&Store]) {
    stores.iter().for_each(|store| store.drop_caches());
}

async fn run(seed: u64) -> u32 {
    let (from, to) = (Site::new("/from").await, Site::new("/to").await);
    let mut history = History {
        random: Random(seed),
        set: SnapSet::default(),
        exists: false,
        size: 0,
        epoch: from.last_epoch.get(),
    };
    let (mut parts, mut v) = (0, 0);
    for _ in 0..3 {
        for _ in 0..history.random.below(20) + 1 {
            v += 1;
            apply(&from, v, &history.next()).await;
        }
        let entries = 1 + history.random.below(30) as usize;
        parts += copy(&from, &to, entries).await;
        to.last_epoch.set(from.last_epoch.get());
        assert_eq!(to.digest(&oid()).await, from.digest(&oid()).await, "{seed}: copied");
        for i in 0..history.random.below(10) {
            v += 1;
            let step = history.next();
            apply(&from, v, &step).await;
            apply(&to, v, &step).await;
            let same = to.digest(&oid()).await == from.digest(&oid()).await;
            assert!(same, "{seed}: after {i} more, {step:?}");
        }
        assert_eq!(to.version(&oid()).await, from.version(&oid()).await);
        assert!(from.version(&oid()).await.is_none_or(|found| found == version(v)));
    }
    for site in [from, to] {
        site.store.check().await.unwrap();
        site.store.close().await.unwrap();
    }
    parts
}

#[test]
fn copies_of_random_histories_go_on_as_their_sources_do() {
    let mut parts = 0;
    for seed in 1..=SEEDS {
        let host = SimWorld::new(seed).host("osd");
        host.disk("/from", 64 << 20);
        host.disk("/to", 64 << 20);
        parts += host.block_on(async move { run(seed).await }).unwrap();
    }
    assert!(parts > SEEDS as u32 * 20, "{parts}");
}
