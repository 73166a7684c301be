//! Background work that gives way to clients, and space that waits for readers.

use std::io::ErrorKind;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use spirula_bio::Device;
use spirula_store::{Expect, FormatOptions, Options, Store};
use spirula_vos::{ContainerId, ObjectKey, StageError, Tx};
use spirula_xstream::sim::{DiskConfig, SimWorld};
use spirula_xstream::{now, sleep};

use crate::workload::{DEVICE_BYTES, PATH};

const CID: ContainerId = ContainerId([7; 16]);

async fn formatted() -> Store {
    let device = Device::open(PATH).unwrap();
    let format = FormatOptions { wal_bytes: Some(1 << 20), ..FormatOptions::default() };
    Store::format(&device, &format).await.unwrap();
    let options = Options { zero_ahead: false, ..Options::default() };
    Store::open(&device, Expect::default(), options).await.unwrap()
}

async fn submit(store: &Store, tx: &Tx) {
    loop {
        match store.submit(tx) {
            Ok(commit) => return commit.await.unwrap(),
            Err(StageError::Missing(pages)) => store.load(pages).await.unwrap(),
            Err(e) => panic!("{e}"),
        }
    }
}

/// While a client is busy, garbage goes step by step; it is gone soon after.
#[test]
fn garbage_gives_way_to_clients() {
    let host = SimWorld::new(3).host("osd");
    host.disk(PATH, DEVICE_BYTES);
    let garbage = |store: &Store| store.try_read(|vos| Ok(vos.has_garbage())).unwrap();
    host.block_on(async move {
        let (store, value) = (formatted().await, Bytes::from_static(&[1; 40]));
        let (big, small) = (ObjectKey::copy_from(b"big"), ObjectKey::copy_from(b"small"));
        let mut tx = Tx::new(1);
        tx.create_container(CID);
        submit(&store, &tx).await;
        for some in 0..100 {
            let mut tx = Tx::new(1);
            for i in 0..100 {
                let akey = format!("key{some:03}{i:03}").into_bytes();
                tx.update(CID, &big, b"omap", &akey, value.clone());
            }
            submit(&store, &tx).await;
        }
        let mut tx = Tx::new(2);
        tx.punch_object(CID, &big);
        submit(&store, &tx).await;
        let begin = now();
        while now() - begin < Duration::from_millis(50) {
            let mut tx = Tx::new(3);
            tx.update(CID, &small, b"d", b"a", value.clone());
            submit(&store, &tx).await;
        }
        assert!(garbage(&store), "10,000 entries are more than 50 steps");
        sleep(Duration::from_millis(50)).await;
        assert!(!garbage(&store));
        store.close().await.unwrap();
    })
    .unwrap();
}

/// A read that takes longer than several checkpoints still finds what it was called for: neither
/// collection nor a checkpoint gives its blocks to others before it ends.
#[test]
fn a_read_longer_than_checkpoints_finds_what_was_there() {
    let host = SimWorld::new(4).host("osd");
    let disk = host.disk(PATH, DEVICE_BYTES);
    host.block_on(async move {
        let store = formatted().await;
        let (long, other) = (ObjectKey::copy_from(b"long"), ObjectKey::copy_from(b"other"));
        let mut tx = Tx::new(1);
        tx.create_container(CID);
        // So many extents that they have a tree of their own, which collection takes apart.
        for i in 0..200 {
            tx.write(CID, &long, b"d", b"a", i * 8192, Bytes::from(vec![1; 4096]), None);
        }
        submit(&store, &tx).await;
        let extents = store.read(|vos| vos.extents(CID, &long, b"d", b"a", 0, u64::MAX)).await;
        let second = Duration::from_secs(1);
        disk.set_config(DiskConfig { read: second..2 * second, ..DiskConfig::default() });
        let mut read = pin!(store.read_data(&extents.unwrap()));
        disk.set_config(DiskConfig::default());
        let mut tx = Tx::new(2);
        tx.punch_object(CID, &long);
        submit(&store, &tx).await;
        let began = now();
        store.make_room().await.unwrap();
        // Everything that is free is written.
        let mut written = 0;
        loop {
            let mut tx = Tx::new(3);
            let data = Bytes::from(vec![2; 64 << 10]);
            tx.write(CID, &other, b"d", b"a", written, data, None);
            match store.submit(&tx) {
                Ok(commit) => commit.await.unwrap(),
                Err(StageError::NoSpace) => break,
                Err(e) => panic!("{e}"),
            }
            written += 64 << 10;
        }
        assert!(now() - began < second, "the read is still under way");
        let data = read.as_mut().await.unwrap();
        assert_eq!(data.pieces[0], vec![1; 4096]);
        // Afterwards it is free.
        let mut tx = Tx::new(4);
        tx.write(CID, &other, b"d", b"a", written, Bytes::from(vec![2; 64 << 10]), None);
        submit(&store, &tx).await;
        store.check().await.unwrap();
        store.close().await.unwrap();
    })
    .unwrap();
}

/// What was deleted is trimmed in the background, once a checkpoint has been made; what is there stays.
#[test]
fn large_free_space_is_trimmed() {
    let host = SimWorld::new(5).host("osd");
    let disk = host.disk(PATH, DEVICE_BYTES);
    host.block_on(async move {
        let store = formatted().await;
        let (gone, kept) = (ObjectKey::copy_from(b"gone"), ObjectKey::copy_from(b"kept"));
        let mut tx = Tx::new(1);
        tx.create_container(CID);
        tx.write(CID, &gone, b"d", b"a", 0, Bytes::from(vec![9; 8 << 20]), None);
        tx.write(CID, &kept, b"d", b"a", 0, Bytes::from(vec![7; 1 << 20]), None);
        submit(&store, &tx).await;
        let mut tx = Tx::new(2);
        tx.punch_object(CID, &gone);
        submit(&store, &tx).await;
        let count = |byte: u8| {
            let image = disk.peek(0, DEVICE_BYTES as usize);
            image.chunks(4096).filter(|b| b.iter().all(|&x| x == byte)).count()
        };
        store.make_room().await.unwrap();
        sleep(Duration::from_secs(1)).await;
        assert_eq!((count(9), store.counters().trimmed_bytes), (2048, 0), "it is off");
        store.set_trim(true);
        sleep(Duration::from_secs(1)).await;
        let (left, trimmed) = (count(9) as u64, store.counters().trimmed_bytes);
        assert!(left < 512 && trimmed >= 6 << 20, "{left} blocks left, {trimmed} bytes trimmed");
        assert_eq!(count(7), 256);
        let runs = store.fragmentation();
        assert!(runs.longest * 4096 > 6 << 20 && runs.score() < 0.1, "{runs:?}");
        store.check().await.unwrap();
        store.close().await.unwrap();
    })
    .unwrap();
}

/// A device that cannot trim is asked once, and everything else goes on.
#[test]
fn a_device_that_refuses_trim_is_asked_once() {
    for kind in [ErrorKind::Unsupported, ErrorKind::InvalidInput] {
        let host = SimWorld::new(5).host("osd");
        let disk = host.disk(PATH, DEVICE_BYTES);
        host.block_on(async move {
            let store = formatted().await;
            let (gone, kept) = (ObjectKey::copy_from(b"gone"), ObjectKey::copy_from(b"kept"));
            let mut tx = Tx::new(1);
            tx.create_container(CID);
            tx.write(CID, &kept, b"d", b"a", 0, Bytes::from(vec![7; 1 << 20]), None);
            submit(&store, &tx).await;
            let write_and_delete = async || {
                let mut tx = Tx::new(2);
                tx.write(CID, &gone, b"d", b"a", 0, Bytes::from(vec![9; 8 << 20]), None);
                submit(&store, &tx).await;
                let mut tx = Tx::new(2);
                tx.punch_object(CID, &gone);
                submit(&store, &tx).await;
                store.make_room().await.unwrap();
                // As it is done whenever any option changes.
                store.set_trim(true);
                sleep(Duration::from_secs(1)).await;
            };
            disk.refuse_punches(Some(kind));
            write_and_delete().await;
            assert_eq!((disk.refused_punches(), store.counters().trimmed_bytes), (1, 0));
            let free = store.fragmentation();
            write_and_delete().await;
            assert_eq!((disk.refused_punches(), store.counters().trimmed_bytes), (1, 0));
            assert!(store.fragmentation().blocks + 100 > free.blocks, "no blocks were lost");
            let extents = store.read(|vos| vos.extents(CID, &kept, b"d", b"a", 0, 1 << 20)).await;
            let data = store.read_data(&extents.unwrap()).await.unwrap();
            assert_eq!(data.pieces.concat(), vec![7; 1 << 20]);
            store.check().await.unwrap();
            // The device may be another one by now.
            disk.refuse_punches(None);
            store.set_trim(false);
            store.set_trim(true);
            sleep(Duration::from_secs(1)).await;
            assert!(store.counters().trimmed_bytes >= 6 << 20);
            store.check().await.unwrap();
            store.close().await.unwrap();
        })
        .unwrap();
    }
}
