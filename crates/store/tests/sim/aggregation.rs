//! Aggregation in the background, and discard of a container.

use std::time::Duration;

use bytes::Bytes;
use spirula_bio::Device;
use spirula_store::{Expect, FormatOptions, Options, Store};
use spirula_vos::{ContainerId, Extent, ObjectKey, Tx, Vos};
use spirula_xstream::sim::{SimHost, SimWorld};
use spirula_xstream::timeout;

use crate::faults::submit;
use crate::workload::{DEVICE_BYTES, PATH};

const CID: ContainerId = ContainerId([7; 16]);

async fn open() -> Store {
    let device = Device::open(PATH).unwrap();
    let options = Options { zero_ahead: false, ..Options::default() };
    Store::open(&device, Expect::default(), options).await.unwrap()
}

fn host(seed: u64) -> SimHost {
    let host = SimWorld::new(seed).host("osd");
    host.disk(PATH, DEVICE_BYTES);
    host.block_on(async {
        let device = Device::open(PATH).unwrap();
        let options = FormatOptions { wal_bytes: Some(1 << 20), ..FormatOptions::default() };
        Store::format(&device, &options).await.unwrap();
        drop(device);
        let store = open().await;
        let mut tx = Tx::new(1);
        tx.create_container(CID);
        submit(&store, &tx).await.unwrap();
        store.close().await.unwrap();
    })
    .unwrap();
    host
}

fn object(i: u64) -> ObjectKey {
    ObjectKey(Bytes::from(format!("object{i:04}")))
}

async fn overwrite(store: &Store, rounds: std::ops::Range<u64>) {
    for epoch in rounds {
        for i in 0..20 {
            let mut tx = Tx::new(epoch);
            tx.set_horizon(1);
            tx.write(CID, &object(i), b"d", b"", 0, Bytes::from(vec![epoch as u8; 8192]), None);
            submit(store, &tx).await.unwrap();
        }
    }
}

#[test]
fn what_is_held_still_is_aggregated_when_it_is_let_go() {
    host(4)
        .block_on(async {
            let store = open().await;
            overwrite(&store, 2..7).await;
            let held = [store.hold_still(CID, &object(3)), store.hold_still(CID, &object(3))];
            store.aggregate_container(CID, 6).await.unwrap();
            store.make_room().await.unwrap();
            assert_eq!(store.statfs().stored, (19 + 5) * 8192);
            let [first, second] = held;
            drop(first);
            store.aggregate_object(CID, &object(3), 6).await.unwrap();
            store.make_room().await.unwrap();
            assert_eq!(store.statfs().stored, (19 + 5) * 8192);
            drop(second);
            store.aggregated().await.unwrap();
            store.make_room().await.unwrap();
            assert_eq!(store.statfs().stored, 20 * 8192);
            store.close().await.unwrap();
        })
        .unwrap();
}

#[test]
fn aggregation_in_the_background_returns_space() {
    host(1)
        .block_on(async {
            let store = open().await;
            overwrite(&store, 2..22).await;
            assert_eq!(store.statfs().stored, 20 * 20 * 8192);
            let mut tx = Tx::new(21);
            tx.retain_container(CID, &[10]);
            submit(&store, &tx).await.unwrap();
            store.aggregate_later(CID, 21);
            store.aggregated().await.unwrap();
            store.make_room().await.unwrap();
            assert_eq!(store.statfs().stored, 2 * 20 * 8192);
            for (epoch, byte) in [(10, 10), (21, 21)] {
                let read =
                    store.read(|vos| vos.at(epoch).extents(CID, &object(3), b"d", b"", 0, 8192));
                let data = store.read_data(&read.await.unwrap()).await.unwrap().concat();
                assert_eq!(data, vec![byte; 8192]);
            }
            store.check().await.unwrap();
            store.close().await.unwrap();
        })
        .unwrap();
}

async fn extents(store: &Store, i: u64, at: u64) -> Vec<Extent> {
    let look = |vos: &Vos| vos.at(at).extents(CID, &object(i), b"d", b"", 0, 1 << 20);
    store.read(look).await.unwrap()
}

/// Writes 64 KiB of an object in pieces of 4 KiB, each at an epoch of its own, in a mixed order.
async fn write_pieces(store: &Store, i: u64, epochs: std::ops::Range<u64>) {
    for epoch in epochs {
        let at = epoch * 7 % 16 * 4096;
        let mut tx = Tx::new(epoch);
        tx.set_horizon(1);
        tx.write(CID, &object(i), b"d", b"", at, Bytes::from(vec![epoch as u8; 4096]), None);
        submit(store, &tx).await.unwrap();
    }
}

#[test]
fn aggregation_merges_extents() {
    host(3)
        .block_on(async {
            let store = open().await;
            for i in [0, 1] {
                write_pieces(&store, i, 2..18).await;
            }
            // Of object 1 somebody sees the pieces that came until epoch 9 without the others.
            let mut tx = Tx::new(18);
            tx.set_horizon(1);
            tx.retain(CID, &object(1), &[9]);
            submit(&store, &tx).await.unwrap();
            let mut tx = Tx::new(18);
            // Of object 2 a few bytes are left of a block: they belong into the metadata.
            tx.write(CID, &object(2), b"d", b"", 0, Bytes::from(vec![7; 8192]), None);
            tx.truncate(CID, &object(2), b"d", b"", 100);
            submit(&store, &tx).await.unwrap();
            let mut before = Vec::new();
            for (i, at) in [(0, 18), (1, 18), (1, 9), (2, 18)] {
                let found = extents(&store, i, at).await;
                before.push((i, at, store.read_data(&found).await.unwrap().concat()));
            }
            assert_eq!(extents(&store, 0, 18).await.len(), 16);
            store.aggregate_container(CID, 18).await.unwrap();
            let merged = extents(&store, 0, 18).await;
            assert!(matches!(&merged[..], [Extent::Device(e)] if e.len == 65_536), "{merged:?}");
            assert!(extents(&store, 1, 18).await.len() > 4, "not over the retained epoch");
            let short = extents(&store, 2, 18).await;
            assert!(matches!(&short[..], [Extent::Inline { data, .. }] if data.len() == 100));
            for (i, at, data) in before {
                let found = extents(&store, i, at).await;
                assert_eq!(store.read_data(&found).await.unwrap().concat(), data, "{i} at {at}");
            }
            let again = store.counters().data_bytes;
            store.aggregate_container(CID, 18).await.unwrap();
            assert_eq!(store.counters().data_bytes, again, "there is nothing left to merge");
            store.make_room().await.unwrap();
            assert_eq!(store.statfs().stored, 2 * 65_536);
            store.check().await.unwrap();
            store.close().await.unwrap();
            drop(store);
            let store = open().await;
            assert_eq!(extents(&store, 0, 18).await, merged);
            store.check().await.unwrap();
            store.close().await.unwrap();
        })
        .unwrap();
}

#[test]
fn a_discarded_container_is_as_before() {
    host(2)
        .block_on(async {
            let store = open().await;
            overwrite(&store, 2..6).await;
            let mut tx = Tx::new(6);
            tx.set_horizon(1);
            tx.punch_object(CID, &object(4));
            tx.update(CID, &object(900), b"d", b"a", Bytes::from_static(b"new"));
            submit(&store, &tx).await.unwrap();
            store.discard_container(CID, 4, u64::MAX).await.unwrap();
            let (all, max) = (std::ops::Bound::Unbounded, usize::MAX);
            let objects = store.read(|vos| vos.list_objects(CID, all, None, max)).await.unwrap();
            assert_eq!(objects, (0..20).map(object).collect::<Vec<_>>());
            for i in 0..20 {
                let read = store.read(|vos| vos.extents(CID, &object(i), b"d", b"", 0, 8192));
                let data = store.read_data(&read.await.unwrap()).await.unwrap().concat();
                assert_eq!(data, vec![3; 8192]);
            }
            assert!(store.read(|vos| vos.at(6).object_exists(CID, &object(4))).await.unwrap());
            store.check().await.unwrap();
            store.close().await.unwrap();
        })
        .unwrap();
}

/// A large object is discarded step by step, and may be discarded again after a crash in between.
#[test]
fn a_large_object_is_discarded_in_steps() {
    let host = host(3);
    let fill = async |store: &Store, epoch: u64| {
        for some in 0..30 {
            let mut tx = Tx::new(epoch);
            tx.set_horizon(1);
            for i in 0..100 {
                let akey = format!("key{some:03}{i:03}").into_bytes();
                tx.update(CID, &object(1), b"omap", &akey, Bytes::from(epoch.to_string()));
            }
            submit(store, &tx).await.unwrap();
        }
    };
    let filled = host.block_on(async move {
        let store = open().await;
        fill(&store, 2).await;
        fill(&store, 3).await;
        let before = store.counters().commits;
        let discarded = store.discard_container(CID, 3, u64::MAX);
        let discarded = timeout(Duration::from_millis(4), discarded).await;
        assert!(discarded.is_err(), "it is under way");
        store.counters().commits - before
    });
    assert!((2..12).contains(&filled.unwrap()));
    host.power_loss();
    host.block_on(async {
        let store = open().await;
        store.discard_container(CID, 3, u64::MAX).await.unwrap();
        let list = |vos: &spirula_vos::Vos| {
            vos.list_akeys(CID, &object(1), b"omap", std::ops::Bound::Unbounded, usize::MAX)
        };
        let left = store.read(list).await.unwrap();
        assert_eq!(left.len(), 3000);
        assert!(left.iter().all(|(_, value)| value == "2"));
        store.check().await.unwrap();
        store.close().await.unwrap();
    })
    .unwrap();
}
