//! Damage, a full device, devices of others, and failing I/O: each is a typed error, never wrong data.

use std::time::Duration;

use bytes::Bytes;
use spirula_bio::{Device, DeviceError, SuperblockError};
use spirula_store::{CheckFailure, Expect, FormatOptions, OpenError, Options, Store, StoreError};
use spirula_vos::{ContainerId, Damage, Extent, ObjectKey, ReadError, StageError, Tx};
use spirula_xstream::sim::{SimHost, SimWorld};
use spirula_xstream::{Class, sleep, timeout};

pub(crate) const PATH: &str = "/disk";
pub(crate) const CID: ContainerId = ContainerId([1; 16]);
pub(crate) const BYTES: u64 = 24 << 20;

pub(crate) fn host(seed: u64) -> SimHost {
    let host = SimWorld::new(seed).host("osd");
    host.disk(PATH, BYTES);
    host.block_on(async {
        let device = Device::open(PATH).unwrap();
        let options = FormatOptions {
            fsid: [3; 16],
            osd_id: 4,
            wal_bytes: Some(1 << 20),
            ..FormatOptions::default()
        };
        Store::format(&device, &options).await.unwrap();
    })
    .unwrap();
    host
}

pub(crate) fn key(i: u64) -> ObjectKey {
    ObjectKey(Bytes::from(format!("object{i:06}")))
}

pub(crate) async fn open() -> Store {
    let device = Device::open(PATH).unwrap();
    let options = Options { zero_ahead: false, ..Options::default() };
    Store::open(&device, Expect::default(), options).await.unwrap()
}

/// Submits, with the pages it takes, and waits until it is durable.
pub(crate) async fn submit(store: &Store, tx: &Tx) -> Result<(), StageError> {
    loop {
        match store.submit(tx) {
            Ok(commit) => {
                commit.await.unwrap();
                return Ok(());
            }
            Err(StageError::Missing(pages)) => store.load(pages).await.unwrap(),
            Err(e) => return Err(e),
        }
    }
}

async fn write(store: &Store, i: u64, data: Bytes) -> Result<(), StageError> {
    let mut tx = Tx::new(1);
    tx.write(CID, &key(i), b"d", b"", 0, data, None);
    submit(store, &tx).await
}

async fn read(store: &Store, i: u64) -> Result<Bytes, StoreError> {
    let extents = store.read(|vos| vos.extents(CID, &key(i), b"d", b"", 0, u64::MAX)).await?;
    Ok(store.read_data(&extents).await?.concat().into())
}

pub(crate) async fn container(store: &Store) {
    let mut tx = Tx::new(1);
    tx.create_container(CID);
    submit(store, &tx).await.unwrap();
}

#[test]
fn damaged_data_is_an_error_with_its_place() {
    let host = host(1);
    let disk = host.disk(PATH, BYTES);
    let block = host
        .block_on(async {
            let store = open().await;
            container(&store).await;
            write(&store, 1, Bytes::from(vec![7; 20_000])).await.unwrap();
            let extents = store.try_read(|vos| vos.extents(CID, &key(1), b"d", b"", 0, 20_000));
            let [Extent::Device(extent)] = &extents.unwrap()[..] else { panic!("one extent") };
            store.close().await.unwrap();
            extent.addr
        })
        .unwrap();
    disk.corrupt(block.byte_offset() + 2 * 4096, 512);
    host.block_on(async move {
        let store = open().await;
        let damage = Damage::Data { addr: spirula_vos::BlockAddr(block.0 + 2) };
        assert_eq!(read(&store, 1).await, Err(StoreError::Damaged(damage)));
        // What lies before the damage is still served.
        let front = store.read(|vos| vos.extents(CID, &key(1), b"d", b"", 0, 8192)).await.unwrap();
        assert_eq!(store.read_data(&front).await.unwrap().concat(), vec![7; 8192]);
        let failure = store.check().await.unwrap_err();
        assert!(matches!(failure, CheckFailure::Data(report) if report.damage == [damage]));
    })
    .unwrap();
}

/// Every block of a closed store damaged in turn: an error or the right data.
#[test]
fn damage_anywhere_is_never_wrong_data() {
    let host = host(2);
    let content = |i: u64| Bytes::from(vec![i as u8; 3000 + 500 * i as usize]);
    host.block_on(async move {
        let store = open().await;
        container(&store).await;
        for i in 0..40 {
            write(&store, i, content(i)).await.unwrap();
        }
        store.close().await.unwrap();
    })
    .unwrap();
    host.kill();
    let disk = host.disk(PATH, BYTES);
    let image = disk.peek(0, BYTES as usize);
    let used: Vec<u64> = (0..BYTES / 4096)
        .filter(|b| image[*b as usize * 4096..][..4096].iter().any(|&x| x != 0))
        .collect();
    let mut noticed = 0;
    for block in used {
        disk.corrupt(block * 4096, 4096);
        noticed += host
            .block_on(async move {
                let device = Device::open(PATH).unwrap();
                let options = Options { zero_ahead: false, ..Options::default() };
                let Ok(store) = Store::open(&device, Expect::default(), options).await else {
                    return 1;
                };
                let mut damaged = 0;
                for i in 0..40 {
                    match read(&store, i).await {
                        Ok(data) => assert_eq!(data, content(i), "block {block}"),
                        Err(StoreError::Damaged(_)) => damaged = 1,
                        Err(e) => panic!("{e}"),
                    }
                }
                damaged
            })
            .unwrap();
        host.kill();
        restore(&host, &image);
    }
    assert!(noticed > 40, "{noticed}");
}

/// Puts the disk back to an image.
pub(crate) fn restore(host: &SimHost, image: &[u8]) {
    let now = host.disk(PATH, BYTES).peek(0, BYTES as usize);
    let blocks = image.chunks(4096).zip(now.chunks(4096)).enumerate();
    let changed: Vec<(u64, Bytes)> = blocks
        .filter(|(_, (then, now))| then != now)
        .map(|(i, (then, _))| (i as u64 * 4096, Bytes::copy_from_slice(then)))
        .collect();
    host.block_on(async move {
        let device = Device::open(PATH).unwrap();
        for (offset, block) in changed {
            device.write(offset, block).await.unwrap();
        }
        device.flush().await.unwrap();
    })
    .unwrap();
    host.kill();
}

#[test]
fn a_full_store_deletes_and_fills_again() {
    let host = host(3);
    host.block_on(async {
        let store = open().await;
        container(&store).await;
        let mut capacity = Vec::new();
        for round in 0..20 {
            let mut n = 0;
            let data = Bytes::from(vec![round; 50_000]);
            while write(&store, n, data.clone()).await.is_ok() {
                n += 1;
            }
            assert_eq!(write(&store, n, data.clone()).await, Err(StageError::NoSpace));
            capacity.push(n);
            assert_eq!(read(&store, n / 2).await.unwrap(), data);
            for i in 0..n {
                let mut tx = Tx::new(1);
                tx.punch_object(CID, &key(i));
                submit(&store, &tx).await.unwrap();
            }
            store.make_room().await.unwrap();
            let stats = store.statfs();
            assert_eq!((stats.stored, stats.objects), (0, 0));
        }
        let (least, most) = (capacity.iter().min().unwrap(), capacity.iter().max().unwrap());
        assert!(*least > 300 && most - least < 20, "{capacity:?}");
        store.check().await.unwrap();
    })
    .unwrap();
}

#[test]
fn small_appends_and_values_of_megabytes() {
    let host = host(4);
    host.block_on(async {
        let store = open().await;
        container(&store).await;
        let mut all = Vec::new();
        for i in 0..4000u64 {
            let piece = vec![i as u8; 100];
            let mut tx = Tx::new(i);
            tx.write(CID, &key(1), b"d", b"", all.len() as u64, Bytes::from(piece.clone()), None);
            submit(&store, &tx).await.unwrap();
            all.extend(piece);
        }
        let extents = store.try_read(|vos| vos.extents(CID, &key(1), b"d", b"", 0, u64::MAX));
        assert!(extents.unwrap().len() < 40);
        assert_eq!(read(&store, 1).await.unwrap(), all);

        let store = open_small(store).await;
        let value = Bytes::from(vec![9; 200_000]);
        let mut tx = Tx::new(1);
        tx.update(CID, &key(2), b"omap", b"big", value.clone());
        submit(&store, &tx).await.unwrap();
        store.checkpoint().await.unwrap();
        store.drop_caches();
        let found = store.read(|vos| vos.fetch(CID, &key(2), b"omap", b"big")).await.unwrap();
        assert_eq!(found, Some(value));
        let mut tx = Tx::new(1);
        tx.update(CID, &key(2), b"omap", b"big", Bytes::from(vec![0; 1 << 20]));
        assert!(matches!(store.submit(&tx), Err(StageError::TooLarge)));
        store.check().await.unwrap();
    })
    .unwrap();
}

/// The same store with the smallest pool.
async fn open_small(store: Store) -> Store {
    store.close().await.unwrap();
    drop(store);
    let device = Device::open(PATH).unwrap();
    let options = Options { zero_ahead: false, pool_bytes: 1, ..Options::default() };
    Store::open(&device, Expect::default(), options).await.unwrap()
}

#[test]
fn devices_of_others_are_refused() {
    let host = host(5);
    host.disk("/other", BYTES);
    host.disk("/small", 1 << 20);
    host.block_on(async {
        let device = Device::open(PATH).unwrap();
        assert!(matches!(Device::open(PATH), Err(DeviceError::Locked { .. })));
        let mut expect = Expect { fsid: Some([4; 16]), osd_id: Some(4) };
        let refused = Store::open(&device, expect, Options::default()).await;
        assert!(matches!(refused, Err(OpenError::OtherCluster { found, .. }) if found == [3; 16]));
        expect = Expect { fsid: Some([3; 16]), osd_id: Some(5) };
        let refused = Store::open(&device, expect, Options::default()).await;
        assert!(matches!(refused, Err(OpenError::OtherOsd { found: 4, expected: 5, .. })));
        let other = Device::open("/other").unwrap();
        let refused = Store::open(&other, Expect::default(), Options::default()).await;
        let Err(OpenError::Device(DeviceError::Superblock { reason, .. })) = refused else {
            panic!("an empty device is no store")
        };
        assert_eq!(reason, SuperblockError::NotOurs);
        assert!(matches!(Device::open("/small"), Err(DeviceError::TooSmall { .. })));
        assert!(matches!(Device::open("/none"), Err(DeviceError::Io { .. })));
    })
    .unwrap();
}

#[test]
fn formatting_again_leaves_nothing_behind() {
    let host = host(8);
    for round in 0..6 {
        host.block_on(async move {
            let store = open().await;
            assert_eq!(store.statfs().objects, 0);
            container(&store).await;
            for i in 0..=round * 20 {
                write(&store, i, Bytes::from(vec![1; 5000])).await.unwrap();
            }
        })
        .unwrap();
        // Not closed: its WAL is full of records.
        host.kill();
        host.block_on(async {
            let device = Device::open(PATH).unwrap();
            let wal_bytes = Some(1 << 20);
            let options = FormatOptions { wal_bytes, ..FormatOptions::default() };
            Store::format(&device, &options).await.unwrap();
        })
        .unwrap();
        host.kill();
    }
}

#[test]
fn a_failing_disk_stops_the_store() {
    let host = host(6);
    let disk = host.disk(PATH, BYTES);
    let failing = disk.clone();
    host.block_on(async move {
        let store = open().await;
        container(&store).await;
        failing.fail_after(Some(0));
        let mut tx = Tx::new(1);
        tx.write(CID, &key(1), b"d", b"", 0, Bytes::from(vec![1; 9000]), None);
        let commit = store.submit(&tx).unwrap();
        assert!(matches!(commit.await, Err(StoreError::Write(_))));
        let mut tx = Tx::new(2);
        tx.update(CID, &key(2), b"a", b"b", Bytes::new());
        assert!(matches!(store.submit(&tx).unwrap().await, Err(StoreError::Write(_))));
        assert!(store.close().await.is_err());
        failing.fail_after(None);
    })
    .unwrap();
    host.kill();
    host.block_on(async {
        let store = open().await;
        let exists = store.try_read(|vos| -> Result<_, ReadError> {
            Ok((vos.container_exists(CID), vos.object_exists(CID, &key(2))?))
        });
        assert!(matches!(exists, Ok((true, false)) | Err(_)));
        store.check().await.unwrap();
    })
    .unwrap();
}

/// Overwriting the same objects for long leaves no more space in use than one copy of them.
#[test]
fn steady_overwrites_do_not_grow() {
    let host = host(7);
    host.block_on(async {
        let store = open().await;
        container(&store).await;
        for i in 0..3000u64 {
            write(&store, i % 50, Bytes::from(vec![i as u8; 16_384])).await.unwrap();
        }
        sleep(Duration::from_secs(1)).await;
        let stored = store.statfs().stored;
        assert_eq!(stored, 50 * 16_384);
        assert!(store.counters().checkpoints > 2);
        store.close().await.unwrap();
    })
    .unwrap();
    let closing = host.spawn(Class::Client, async { open().await.check().await.is_ok() });
    host.world().run_for(Duration::from_secs(5));
    assert!(closing.try_take().is_some_and(|r| r == Ok(true)));
}

/// A retained version survives any number of overwrites, and its space comes back when it is let go.
#[test]
fn retained_epochs_hold_one_version_until_they_are_let_go() {
    let host = host(9);
    host.block_on(async {
        let store = open().await;
        container(&store).await;
        for epoch in 10..200 {
            let mut tx = Tx::new(epoch);
            if epoch == 10 {
                tx.retain(CID, &key(1), &[10]);
            }
            let data = Bytes::from(vec![epoch as u8; 40_960]);
            tx.write(CID, &key(1), b"d", b"", 0, data, None);
            submit(&store, &tx).await.unwrap();
        }
        let look = |hlc: u64| {
            let extents = store.try_read(|v| v.at(hlc).extents(CID, &key(1), b"d", b"", 0, 40_960));
            store.read_data(&extents.unwrap())
        };
        assert_eq!(look(10).await.unwrap().concat(), vec![10; 40_960]);
        assert_eq!(look(199).await.unwrap().concat(), vec![199; 40_960]);
        let gone = store.read(|v| v.at(11).object_exists(CID, &key(1))).await;
        assert_eq!(gone, Err(StoreError::EpochTooOld { epoch: 11, horizon: 199 }));
        store.make_room().await.unwrap();
        assert_eq!(store.statfs().stored, 2 * 40_960);
        let mut tx = Tx::new(200);
        tx.retain(CID, &key(1), &[]);
        submit(&store, &tx).await.unwrap();
        store.aggregate_container(CID, 200).await.unwrap();
        store.make_room().await.unwrap();
        assert_eq!(store.statfs().stored, 40_960);
        assert_eq!(look(200).await.unwrap().concat(), vec![199; 40_960]);
        store.check().await.unwrap();
    })
    .unwrap();
}

/// Closing while zeros are written ahead, which wants a checkpoint over and over, ends.
#[test]
fn a_store_closes_at_any_time() {
    for seed in 0..30 {
        let host = SimWorld::new(seed).host("osd");
        host.disk(PATH, 2 * BYTES);
        host.block_on(async move {
            let device = Device::open(PATH).unwrap();
            let options = FormatOptions { wal_bytes: Some(12 << 20), ..FormatOptions::default() };
            Store::format(&device, &options).await.unwrap();
            let store = Store::open(&device, Expect::default(), Options::default()).await.unwrap();
            container(&store).await;
            sleep(Duration::from_micros(seed * 60)).await;
            let closed = timeout(Duration::from_secs(60), store.close()).await;
            assert_eq!(closed, Ok(Ok(())), "seed {seed}");
        })
        .unwrap();
    }
}
