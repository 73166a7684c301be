//! A store filled to the last block with everything that takes space: small and large arrays, values, old
//! versions. Deleting works on the full store, and brings all of its space back, any number of times.

use bytes::Bytes;
use spirula_bio::Device;
use spirula_store::{Expect, FormatOptions, Offline, Options, Store};
use spirula_vos::{ContainerId, ObjectKey, StageError, Tx};
use spirula_xstream::sim::SimWorld;

use crate::faults::{BYTES, PATH, submit};

const CID: ContainerId = ContainerId([1; 16]);
const ROUNDS: u64 = 20;

fn key(i: u64) -> ObjectKey {
    ObjectKey(Bytes::from(format!("object{i:06}")))
}

/// An object's changes at one epoch, the first of which stays visible.
fn change(i: u64, epoch: u64, first: u64) -> Tx {
    let (mut tx, oid) = (Tx::new(epoch), key(i));
    let data = |len: usize| Bytes::from(vec![epoch as u8; len]);
    if epoch == first {
        tx.retain(CID, &oid, &[first]);
    }
    tx.write(CID, &oid, b"d", b"data", 0, data(500 + (i as usize * 7919) % 60_000), None);
    for a in 0..i % 30 {
        tx.update(CID, &oid, b"omap", format!("key{a:02}").as_bytes(), data(100));
    }
    tx
}

/// Fills the store with objects of two versions each; how many there are.
async fn fill(store: &Store, epoch: u64) -> u64 {
    for i in 0.. {
        for at in [epoch, epoch + 1] {
            match submit(store, &change(i, at, epoch)).await {
                Ok(()) => {}
                Err(StageError::NoSpace) => return i + u64::from(at > epoch),
                Err(e) => panic!("{e}"),
            }
        }
    }
    unreachable!("a device is finite")
}

/// Deletes every object, its versions too.
async fn empty(store: &Store, count: u64, epoch: u64) {
    for i in 0..count {
        let mut tx = Tx::new(epoch);
        tx.retain(CID, &key(i), &[]);
        tx.punch_object(CID, &key(i));
        submit(store, &tx).await.unwrap();
    }
    store.make_room().await.unwrap();
}

#[test]
fn space_returns_to_the_baseline() {
    let host = SimWorld::new(30).host("osd");
    host.disk(PATH, BYTES);
    host.block_on(async {
        let device = Device::open(PATH).unwrap();
        let format = FormatOptions { wal_bytes: Some(1 << 20), ..FormatOptions::default() };
        Store::format(&device, &format).await.unwrap();
        let options = Options { zero_ahead: false, ..Options::default() };
        let store = Store::open(&device, Expect::default(), options).await.unwrap();
        let mut tx = Tx::new(1);
        tx.create_container(CID);
        submit(&store, &tx).await.unwrap();
        store.make_room().await.unwrap();
        let baseline = store.statfs();
        let mut capacity = Vec::new();
        for round in 0..ROUNDS {
            let epoch = 10 * (round + 1);
            let count = fill(&store, epoch).await;
            capacity.push(count);
            let full = store.statfs();
            assert!(full.used > full.total * 3 / 4, "round {round}: {full:?}");
            empty(&store, count, epoch + 2).await;
            let now = store.statfs();
            assert_eq!((now.stored, now.objects), (0, 0), "round {round}");
            // One page more or less is where the tree happens to have shrunk to.
            assert!(now.used <= baseline.used + 8192, "round {round}: {now:?}, {baseline:?}");
        }
        let (least, most) = (capacity.iter().min().unwrap(), capacity.iter().max().unwrap());
        assert!(*least > 100 && most - least <= least / 20, "{capacity:?}");
        store.close().await.unwrap();
    })
    .unwrap();
    host.kill();
    host.block_on(async {
        let device = Device::open_read_only(PATH).unwrap();
        let store = Offline::open(&device).await.unwrap();
        let summary = store.check().await.unwrap().summary;
        assert_eq!((summary.blocks, summary.waiting_blocks, summary.objects), (0, 0, 0));
        assert_eq!(summary.page_blocks + summary.free_blocks, summary.total_blocks);
    })
    .unwrap();
}
