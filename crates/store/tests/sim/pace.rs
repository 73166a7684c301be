//! Background work that gives way to clients.

use std::time::Duration;

use bytes::Bytes;
use spirula_bio::Device;
use spirula_store::{Expect, FormatOptions, Options, Store};
use spirula_vos::{ContainerId, ObjectKey, StageError, Tx};
use spirula_xstream::sim::SimWorld;
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
