//! Whole objects copied from one store to another, and what a loss of power leaves of them.

use std::cell::Cell;
use std::ops::Bound;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use spirula_bio::Device;
use spirula_osd::apply::{DataCrcs, Layout, container_id, create_container, meta_object};
use spirula_osd::copies::{
    Added, CopyError, Incoming, PART_BYTES, PART_ENTRIES, Part, digest, list_objects, read_object,
    remove, stored_version,
};
use spirula_osd::object::{AKEY, ObjectInfo, dkey, object_key};
use spirula_osd::plan::Effect;
use spirula_osd::snap::{ObjectChange, SnapChange, SnapClone, SnapSet, apply_object};
use spirula_store::{Expect, FormatOptions, Options, Store, StoreError};
use spirula_vos::{ContainerId, Extent, ObjectKey, StageError, Tx, Vos};
use spirula_wire::types::{EVersion, HObject, PgId, SnapId, SpgId};
use spirula_xstream::Class;
use spirula_xstream::sim::{SimDisk, SimHost, SimWorld};

const DISK_BYTES: u64 = 256 << 20;

fn pgid() -> SpgId {
    SpgId::whole(PgId::new(3, 2))
}

pub(crate) fn cid() -> ContainerId {
    container_id(pgid(), Layout::Splittable)
}

pub(crate) fn version(n: u64) -> EVersion {
    EVersion::new(5, n)
}

pub(crate) fn name(hash: u32, oid: &str) -> HObject {
    let oid = oid.to_owned().into();
    HObject { oid, hash, pool: 3, snap: SnapId::HEAD, ..HObject::min() }
}

pub(crate) fn key(o: &HObject) -> ObjectKey {
    ObjectKey(object_key(o.hash, &o.nspace, &o.key, &o.oid))
}

pub(crate) fn oid() -> ObjectKey {
    key(&name(2, "o"))
}

/// A store with one PG.
pub(crate) struct Site {
    pub(crate) store: Store,
    pub(crate) last_epoch: Cell<u64>,
}

impl Site {
    pub(crate) async fn new(path: &str) -> Self {
        let device = Device::open(path).unwrap();
        Store::format(&device, &FormatOptions::default()).await.unwrap();
        drop(device);
        let site = Self::open(path).await;
        let mut tx = Tx::new(1);
        create_container(&mut tx, cid(), 4);
        site.submit(&tx).await.unwrap();
        site
    }

    async fn open(path: &str) -> Self {
        let device = Device::open(path).unwrap();
        let options = Options { zero_ahead: false, ..Options::default() };
        let store = Store::open(&device, Expect::default(), options).await.unwrap();
        Self { store, last_epoch: Cell::new(1) }
    }

    async fn submit(&self, tx: &Tx) -> Result<(), StageError> {
        loop {
            self.store.admit().await;
            match self.store.submit(tx) {
                Ok(commit) => {
                    commit.await.unwrap();
                    return Ok(());
                }
                Err(StageError::Missing(pages)) => self.store.load(pages).await.unwrap(),
                Err(e) => return Err(e),
            }
        }
    }

    /// As a write of version `v` does it; without `info` the head goes.
    pub(crate) async fn change(
        &self,
        oid: &ObjectKey,
        v: u64,
        effects: Vec<Effect>,
        info: Option<ObjectInfo>,
        snaps: Option<&mut SnapChange>,
    ) {
        let before = self.last_epoch.get();
        self.last_epoch.set(before + 10);
        let snaps = snaps.map(|snaps| {
            snaps.settle(before);
            &*snaps
        });
        let info = info.map(|info| ObjectInfo { version: version(v), ..info });
        let (info, crcs) = (info.as_ref(), DataCrcs::default());
        let change = ObjectChange { effects, info, snaps, crcs, version: version(v) };
        let mut tx = Tx::new(self.last_epoch.get());
        apply_object(&mut tx, cid(), oid, change);
        self.submit(&tx).await.unwrap();
    }

    pub(crate) async fn version(&self, oid: &ObjectKey) -> Option<EVersion> {
        self.store.read(|vos: &Vos| stored_version(vos, cid(), oid)).await.unwrap()
    }

    pub(crate) async fn digest(&self, oid: &ObjectKey) -> Option<u64> {
        digest(&self.store, cid(), oid).await.unwrap()
    }

    async fn parts(&self, oid: &ObjectKey) -> Vec<Part> {
        let mut out = read_object(&self.store, cid(), oid).await.unwrap().unwrap();
        let mut parts = Vec::new();
        while let Some(part) = out.next().await.unwrap() {
            assert_eq!(part.number as usize, parts.len());
            parts.push(part);
            self.store.drop_caches();
        }
        assert!(parts.last().unwrap().last);
        parts
    }

    pub(crate) async fn take(
        &self,
        oid: &ObjectKey,
        parts: &[Part],
    ) -> Result<Option<EVersion>, CopyError> {
        let mut incoming = Incoming::new(&self.store, cid(), oid);
        let mut whole = None;
        for part in parts {
            if let Added::Whole(v) =
                incoming.add(part.clone(), || Some(self.last_epoch.get())).await?
            {
                whole = Some(v);
            }
            self.store.drop_caches();
        }
        Ok(whole)
    }

    async fn listed(&self, after: &HObject, max: usize) -> (Vec<(HObject, EVersion)>, HObject) {
        list_objects(&self.store, cid(), after, max).await.unwrap()
    }

    /// Snapshots under which the PG's index names the object.
    async fn indexed(&self, oid: &ObjectKey, snaps: std::ops::Range<u64>) -> Vec<u64> {
        let mut out = Vec::new();
        for snap in snaps {
            let (meta, dkey) = (meta_object(cid()), dkey::snap(SnapId(snap)));
            let list =
                |vos: &Vos| vos.list_akeys(cid(), &meta, &dkey, Bound::Unbounded, usize::MAX);
            let found = self.store.read(list).await.unwrap();
            out.extend(found.iter().any(|(akey, _)| *akey == oid.0).then_some(snap));
        }
        out
    }
}

pub(crate) fn bytes(seed: u64, len: usize) -> Bytes {
    let mut x = seed | 1;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as u8
    };
    (0..len).map(|_| next()).collect()
}

fn write(offset: u64, seed: u64, len: usize) -> Effect {
    Effect::Write { offset, data: bytes(seed, len) }
}

fn info(size: u64) -> Option<ObjectInfo> {
    Some(ObjectInfo { size, omap: true, ..ObjectInfo::default() })
}

/// The change that makes a clone for one snapshot.
fn cloned(set: &SnapSet, id: u64, size: u64) -> SnapChange {
    let mut set = SnapSet { seq: SnapId(id), ..set.clone() };
    let (id, snaps) = (SnapId(id), vec![SnapId(id)]);
    set.clones.push(SnapClone { id, size, omap: true, snaps, ..SnapClone::default() });
    SnapChange { set, header: true, made: true, changed: vec![id], gone: Vec::new() }
}

/// An object with three clones, data with holes, many omap keys, and values of all lengths.
async fn make_rich(site: &Site, oid: &ObjectKey) {
    let pair = |i: u64| (Bytes::from(format!("key{i:05}")), bytes(i, (i as usize * 7) % 500));
    let xattr = |name: &str, value| Effect::SetXattr { name: name.to_owned().into(), value };
    let effects = vec![
        write(0, 1, 9 << 20),
        xattr("small", "v".into()),
        xattr("large", bytes(2, 60_000)),
        xattr("", Bytes::new()),
        Effect::SetOmapHeader("header".into()),
        Effect::SetOmap((0..1000).map(pair).collect()),
    ];
    site.change(oid, 1, effects, info(9 << 20), None).await;
    let mut snaps = cloned(&SnapSet::default(), 3, 9 << 20);
    let effects = vec![
        write(1_000_001, 3, 300),
        write((1 << 20) + 4096, 4, 65536),
        Effect::Zero { offset: 2 << 20, length: 1 << 20 },
        Effect::RemoveOmapRange { from: "key00100".into(), to: "key00200".into() },
        Effect::SetOmap(vec![pair(7), pair(2000)]),
    ];
    site.change(oid, 2, effects, info(9 << 20), Some(&mut snaps)).await;
    let mut snaps = cloned(&snaps.set, 5, 9 << 20);
    let effects = vec![
        Effect::Truncate(5 << 20),
        write(12 << 20, 5, 100_000),
        Effect::RemoveXattr("large".into()),
        xattr("small", "w".into()),
    ];
    site.change(oid, 3, effects, info((12 << 20) + 100_000), Some(&mut snaps)).await;
    let mut snaps = cloned(&snaps.set, 9, (12 << 20) + 100_000);
    let effects = vec![Effect::ClearOmap, write(77, 6, 5)];
    site.change(oid, 4, effects, info((12 << 20) + 100_000), Some(&mut snaps)).await;
    site.change(oid, 5, vec![write(78, 7, 5)], info((12 << 20) + 100_000), None).await;
}

async fn make_old(site: &Site, oid: &ObjectKey) {
    site.change(oid, 1, vec![write(0, 9, 70_000)], info(70_000), None).await;
    let mut snaps = cloned(&SnapSet::default(), 4, 70_000);
    site.change(oid, 2, vec![write(100, 10, 50)], info(70_000), Some(&mut snaps)).await;
}

fn world(seed: u64) -> (SimWorld, SimHost) {
    let world = SimWorld::new(seed);
    let host = world.host("osd");
    for disk in ["/from", "/to"] {
        host.disk(disk, DISK_BYTES);
    }
    (world, host)
}

#[test]
fn objects_are_copied_with_all_that_they_have() {
    let (_world, host) = world(1);
    let done = host.block_on(async {
        let (from, to) = (Site::new("/from").await, Site::new("/to").await);
        make_rich(&from, &oid()).await;
        let parts = from.parts(&oid()).await;
        assert!(parts.len() > 3, "{}", parts.len());
        for part in &parts {
            let len: usize = part.data.iter().map(Bytes::len).sum();
            assert!(len <= PART_BYTES + PART_ENTRIES + 4096, "{len}");
        }
        for older in [false, true] {
            if older {
                remove(&to.store, cid(), &oid()).await.unwrap();
                to.last_epoch.set(1000);
                make_old(&to, &oid()).await;
            }
            assert_eq!(to.take(&oid(), &parts).await, Ok(Some(version(5))));
            let (a, b) = (from.digest(&oid()).await, to.digest(&oid()).await);
            assert!(a.is_some() && a == b, "{a:?} {b:?}");
            let snaps = if older { vec![3, 4, 5, 9] } else { vec![3, 5, 9] };
            assert_eq!(to.indexed(&oid(), 0..12).await, snaps, "4 is one that it had");
        }
        // What was copied is written on, and aggregated, as it would have been where it was.
        for site in [&from, &to] {
            site.last_epoch.set(2000);
            site.change(&oid(), 6, vec![write(4 << 20, 8, 9000)], info(13 << 20), None).await;
            site.store.aggregate_object(cid(), &oid(), 2010).await.unwrap();
        }
        let after = to.digest(&oid()).await;
        assert_eq!(from.digest(&oid()).await, after);
        assert_eq!(from.version(&oid()).await, Some(version(6)));
        for site in [from, to] {
            site.store.check().await.unwrap();
            site.store.close().await.unwrap();
        }
    });
    assert!(done.is_ok());
}

#[test]
fn long_omaps_and_long_values_are_copied_through_a_small_wal() {
    let (_world, host) = world(10);
    host.disk("/tiny", 40 << 20);
    let done = host.block_on(async {
        let (from, to) = (Site::new("/from").await, Site::new("/tiny").await);
        let pair = |i: u64| (Bytes::from(format!("{i:06}")), bytes(i, 2000 + i as usize % 500));
        for batch in 0..3 {
            let effects =
                vec![Effect::SetOmap((batch * 200..(batch + 1) * 200).map(pair).collect())];
            from.change(&oid(), batch + 1, effects, info(0), None).await;
        }
        let long = Effect::SetXattr { name: "long".into(), value: bytes(1, 400_000) };
        from.change(&oid(), 11, vec![long], info(0), None).await;
        let parts = from.parts(&oid()).await;
        let len = |part: &Part| part.data.iter().map(Bytes::len).sum::<usize>();
        assert_eq!(parts.iter().filter(|part| len(part) > PART_ENTRIES + 4096).count(), 1);
        assert_eq!(to.take(&oid(), &parts).await, Ok(Some(version(11))));
        assert_eq!(from.digest(&oid()).await, to.digest(&oid()).await);
    });
    assert!(done.is_ok());
}

#[test]
fn aggregation_waits_for_copies() {
    let (_world, host) = world(9);
    let done = host.block_on(async {
        let (from, to) = (Site::new("/from").await, Site::new("/to").await);
        make_rich(&from, &oid()).await;
        // One of the clones goes: what only it showed may be aggregated.
        let clone = |id, epoch| SnapClone { id: SnapId(id), epoch, ..SnapClone::default() };
        let set = SnapSet { seq: SnapId(9), clones: vec![clone(5, 21), clone(9, 31)] };
        let gone = vec![SnapId(3)];
        let mut snaps = SnapChange { set, gone, ..SnapChange::default() };
        from.change(&oid(), 6, vec![], info(13 << 20), Some(&mut snaps)).await;
        let aggregate = async |site: &Site| {
            site.store.aggregate_container(cid(), 61).await.unwrap();
            site.store.make_room().await.unwrap();
            site.store.statfs().stored
        };
        let mut out = read_object(&from.store, cid(), &oid()).await.unwrap().unwrap();
        let mut incoming = Incoming::new(&to.store, cid(), &oid());
        let before = from.store.statfs().stored;
        while let Some(part) = out.next().await.unwrap() {
            incoming.add(part, || Some(61)).await.unwrap();
            assert_eq!(aggregate(&from).await, before);
            aggregate(&to).await;
        }
        drop((out, incoming));
        for site in [&from, &to] {
            site.store.aggregated().await.unwrap();
            assert!(aggregate(site).await < before);
        }
        assert_eq!(to.version(&oid()).await, Some(version(6)));
        assert_eq!(from.digest(&oid()).await, to.digest(&oid()).await);
    });
    assert!(done.is_ok());
}

#[test]
fn digests_tell_differences_apart() {
    let (_world, host) = world(2);
    let done = host.block_on(async {
        let site = Site::new("/from").await;
        let mut seen = vec![site.digest(&oid()).await];
        assert_eq!(seen, [None]);
        make_old(&site, &oid()).await;
        seen.push(site.digest(&oid()).await);
        let pairs = |v: &str| Effect::SetOmap(vec![("k".into(), v.to_owned().into())]);
        for (v, effects) in [
            vec![write(3, 1, 1)],
            vec![Effect::Zero { offset: 4096, length: 4096 }],
            vec![Effect::SetXattr { name: "n".into(), value: Bytes::new() }],
            vec![pairs("v")],
            vec![pairs("w")],
            vec![],
        ]
        .into_iter()
        .enumerate()
        {
            site.change(&oid(), v as u64 + 10, effects, info(70_000), None).await;
            let digest = site.digest(&oid()).await;
            assert!(!seen.contains(&digest), "{v}");
            seen.push(digest);
        }
    });
    assert!(done.is_ok());
}

#[test]
fn objects_are_listed_in_order_whatever_is_left_of_them() {
    let (_world, host) = world(3);
    let done = host.block_on(async {
        let (from, site) = (Site::new("/from").await, Site::new("/to").await);
        let names = [name(2, "a"), name(2, "b"), name(6, "c"), name(10, "d"), name(3, "e")];
        for (i, o) in names.iter().take(3).enumerate() {
            site.change(&key(o), i as u64 + 1, vec![write(0, 1, 10)], info(10), None).await;
        }
        // Only a clone is left, then part of an object.
        let mut snaps = cloned(&SnapSet::default(), 4, 10);
        site.change(&key(&names[1]), 7, vec![Effect::Remove], None, Some(&mut snaps)).await;
        assert_eq!(site.version(&key(&names[1])).await, Some(version(7)));
        make_rich(&from, &oid()).await;
        let parts = from.parts(&oid()).await;
        site.take(&key(&names[3]), &parts[..1]).await.unwrap();
        site.take(&key(&names[4]), &parts).await.unwrap();
        assert_eq!(site.version(&key(&names[3])).await, None);
        let mut all: Vec<_> = names.into_iter().zip([1, 7, 3, 0, 5].map(version)).collect();
        all[3].1 = EVersion::default();
        all.sort();
        let end = HObject::max();
        assert_eq!(site.listed(&HObject::min(), 99).await, (all.clone(), end.clone()));
        assert_eq!(site.listed(&HObject::min(), 2).await, (all[..2].to_vec(), all[1].0.clone()));
        assert_eq!(site.listed(&all[1].0, 99).await, (all[2..].to_vec(), end.clone()));
        assert_eq!(site.listed(&HObject::at_hash(3, 3), 99).await, (all[4..].to_vec(), end));
        assert_eq!(site.listed(&HObject::max(), 99).await, (vec![], HObject::max()));
        for (o, _) in &all {
            remove(&site.store, cid(), &key(o)).await.unwrap();
            remove(&site.store, cid(), &key(o)).await.unwrap();
        }
        assert_eq!(site.listed(&HObject::min(), 99).await.0, []);
        site.store.make_room().await.unwrap();
        assert_eq!(site.store.statfs().stored, 0);
    });
    assert!(done.is_ok());
}

/// The parts of the rich object, and its digest.
fn rich_parts(host: &SimHost) -> (Vec<Part>, Option<u64>) {
    let made = host.block_on(async {
        let from = Site::new("/from").await;
        make_rich(&from, &oid()).await;
        (from.parts(&oid()).await, from.digest(&oid()).await)
    });
    made.unwrap()
}

/// What may be there after a loss of power; then the copy is made again.
async fn verify(parts: &[Part], old: Option<u64>, new: Option<u64>) -> Option<EVersion> {
    let to = Site::open("/to").await;
    let found = to.version(&oid()).await;
    let here = to.digest(&oid()).await;
    match found {
        None => assert_eq!(here, None),
        Some(v) if v == version(2) => assert_eq!(here, old),
        Some(v) => assert_eq!((v, here), (version(5), new)),
    }
    let listed = to.listed(&HObject::min(), 9).await.0;
    assert!(listed.iter().all(|(_, v)| *v == found.unwrap_or_default()), "{listed:?}");
    to.last_epoch.set(1000);
    assert_eq!(to.take(&oid(), parts).await, Ok(Some(version(5))));
    assert_eq!(to.digest(&oid()).await, new);
    to.store.check().await.unwrap();
    to.store.close().await.unwrap();
    found
}

#[test]
fn an_object_is_old_or_missing_until_its_last_part_is_stored() {
    let (_world, host) = world(4);
    let (parts, new) = rich_parts(&host);
    for count in 0..=parts.len() {
        let some = parts[..count].to_vec();
        let old = host.block_on(async move {
            let to = Site::new("/to").await;
            make_old(&to, &oid()).await;
            let old = to.digest(&oid()).await;
            to.take(&oid(), &some).await.unwrap();
            old
        });
        host.power_loss();
        let (parts, all, old) = (parts.clone(), parts.len(), old.unwrap());
        let found = host.block_on(async move { verify(&parts, old, new).await });
        let expected = match count {
            0 => Some(version(2)),
            n if n == all => Some(version(5)),
            _ => None,
        };
        assert_eq!(found.unwrap(), expected, "{count}");
    }
}

#[test]
fn power_is_lost_at_any_moment_of_a_copy() {
    let (world, host) = world(5);
    let (parts, new) = rich_parts(&host);
    let (mut seen, mut lasts) = (Vec::new(), Duration::ZERO);
    for round in 0..24u64 {
        let old = host.block_on(async {
            let to = Site::new("/to").await;
            make_old(&to, &oid()).await;
            let old = to.digest(&oid()).await;
            to.store.close().await.unwrap();
            old
        });
        // How far it is.
        let step = Rc::new(Cell::new(0));
        let (all, steps) = (parts.clone(), step.clone());
        host.spawn(Class::Client, async move {
            let to = Site::open("/to").await;
            to.last_epoch.set(1000);
            steps.set(1);
            to.take(&oid(), &all).await.unwrap();
            steps.set(2);
        });
        let limit = Duration::from_secs(60);
        assert!(world.run_until(limit, || step.get() == 1));
        let start = world.now();
        if round == 0 {
            assert!(world.run_until(limit, || step.get() == 2));
            lasts = world.now() - start;
        } else {
            world.run_for(Duration::from_nanos(world.random_u64() % lasts.as_nanos() as u64));
        }
        host.power_loss();
        let (parts, old) = (parts.clone(), old.unwrap());
        seen.push(host.block_on(async move { verify(&parts, old, new).await }).unwrap());
    }
    assert!(seen.contains(&None) && seen.iter().any(Option::is_some), "{seen:?}");
}

#[test]
fn parts_out_of_order_and_damaged_ones_are_refused() {
    let (_world, host) = world(6);
    let (parts, _) = rich_parts(&host);
    let done = host.block_on(async move {
        let to = Site::new("/to").await;
        let mut incoming = Incoming::new(&to.store, cid(), &oid());
        let order = |expected, found| Err(CopyError::Order { expected, found });
        assert_eq!(incoming.add(parts[1].clone(), || Some(1)).await, order(0, 1));
        assert_eq!(incoming.add(parts[0].clone(), || Some(1)).await, Ok(Added::Part));
        assert_eq!(incoming.add(parts[2].clone(), || Some(1)).await, order(1, 2));
        let mut bad = parts[0].data.concat();
        *bad.last_mut().unwrap() ^= 1;
        let bad = Part { data: vec![bad.into()], ..parts[0].clone() };
        let refused = incoming.add(bad, || Some(1)).await;
        assert_eq!(refused, Err(CopyError::Malformed("a checksum")));
        let ends = Part { last: true, ..parts[0].clone() };
        let refused = incoming.add(ends, || Some(1)).await;
        assert_eq!(refused, Err(CopyError::Malformed("its end is missing")));
        assert_eq!(to.take(&oid(), &parts).await, Ok(Some(version(5))));
    });
    assert!(done.is_ok());
}

#[test]
fn a_full_store_refuses_copies_and_still_removes_objects() {
    let (_world, host) = world(7);
    let (parts, new) = rich_parts(&host);
    host.disk("/small", 96 << 20);
    let done = host.block_on(async move {
        let to = Site::new("/small").await;
        let mut kept = Vec::new();
        let refused = loop {
            let oid = key(&name(2, &format!("o{}", kept.len())));
            match to.take(&oid, &parts).await {
                Ok(_) => kept.push(oid),
                Err(e) => break (oid, e),
            }
        };
        assert!(kept.len() > 1 && refused.1 == CopyError::NoSpace, "{refused:?}");
        assert_eq!(refused.1.errno(), -28);
        assert_eq!(to.version(&refused.0).await, None);
        assert_eq!(to.listed(&HObject::min(), 99).await.0.len(), kept.len(), "no part is left");
        remove(&to.store, cid(), &kept.pop().unwrap()).await.unwrap();
        assert_eq!(to.take(&refused.0, &parts).await, Ok(Some(version(5))));
        assert_eq!(to.digest(&refused.0).await, new);
        to.store.check().await.unwrap();
    });
    assert!(done.is_ok());
}

/// Where the first data of the object is.
async fn place_of(site: &Site) -> u64 {
    let (cid, oid) = (cid(), oid());
    let find = |vos: &Vos| vos.extents(cid, &oid, dkey::DATA, AKEY, 0, 4096);
    let extents = site.store.read(find).await.unwrap();
    let device = extents.iter().find_map(|extent| match extent {
        Extent::Device(extent) => Some(extent.addr.byte_offset()),
        _ => None,
    });
    device.unwrap()
}

#[test]
fn damage_at_the_source_is_an_error_that_names_its_place() {
    let world = SimWorld::new(8);
    let host = world.host("osd");
    let disk: SimDisk = host.disk("/from", DISK_BYTES);
    let done = host.block_on(async move {
        let from = Site::new("/from").await;
        make_old(&from, &oid()).await;
        from.store.quiesce().await.unwrap();
        let place = place_of(&from).await;
        from.store.drop_caches();
        disk.corrupt(place + 5000, 16);
        let mut out = read_object(&from.store, cid(), &oid()).await.unwrap().unwrap();
        let refused = out.next().await;
        let Err(CopyError::Store(StoreError::Damaged(damage))) = refused else {
            panic!("{refused:?}");
        };
        assert!(damage.to_string().contains(&(place / 4096 + 1).to_string()), "{damage}");
        assert_eq!(out.next().await, Ok(None), "nothing comes behind it");
        assert!(digest(&from.store, cid(), &oid()).await.is_err());
    });
    assert!(done.is_ok());
}
