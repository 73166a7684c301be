//! A store on several devices: what goes where, and that only its own devices are taken.

use bytes::Bytes;
use spirula_bio::{Device, DeviceError, Devices, Role};
use spirula_store::{Expect, FormatOptions, Offline, OpenError, Options, Store};
use spirula_vos::{ObjectKey, Tx};
use spirula_xstream::sim::{SimHost, SimWorld};

use crate::faults::{CID, container, submit};

const BYTES: u64 = 24 << 20;

fn host(disks: &[&str]) -> SimHost {
    let host = SimWorld::new(50).host("osd");
    disks.iter().for_each(|path| drop(host.disk(path, BYTES)));
    host
}

fn devices(main: &str, wal: Option<&str>, meta: Option<&str>) -> Devices {
    let open = |path: &str| Device::open(path).unwrap();
    Devices { main: open(main), wal: wal.map(open), meta: meta.map(open) }
}

async fn open(devices: &Devices) -> Result<Store, OpenError> {
    let options = Options { zero_ahead: false, ..Options::default() };
    Store::open(devices, Expect::default(), options).await
}

/// Blocks of a disk that are not zero, without its first 64 KiB.
fn used(host: &SimHost, path: &str) -> usize {
    let image = host.disk(path, BYTES).peek(64 << 10, BYTES as usize);
    image.chunks(4096).filter(|block| block.iter().any(|&b| b != 0)).count()
}

#[test]
fn wal_pages_and_data_each_go_to_their_device() {
    let host = host(&["/data", "/wal", "/meta"]);
    host.block_on(async {
        let all = devices("/data", Some("/wal"), Some("/meta"));
        Store::format(&all, &FormatOptions::default()).await.unwrap();
        let store = open(&all).await.unwrap();
        container(&store).await;
        for i in 0..400u64 {
            let mut tx = Tx::new(1);
            let oid = ObjectKey(Bytes::from(format!("object{i}")));
            tx.update(CID, &oid, b"d", b"a", Bytes::from(vec![1; 1000]));
            tx.write(CID, &oid, b"d", b"b", 0, Bytes::from(vec![7; 8192]), None);
            submit(&store, &tx).await.unwrap();
        }
        store.check().await.unwrap();
        assert_eq!(store.scrub().await.unwrap().errors, 0);
        store.close().await.unwrap();
        drop(store);
        let offline = Offline::open(&all).await.unwrap();
        offline.check().await.unwrap();
        // Pages go to the data when their device is full.
        let store = open(&all).await.unwrap();
        for i in 0..40u64 {
            let mut tx = Tx::new(2);
            let oid = ObjectKey(Bytes::from(format!("big{i}")));
            tx.update(CID, &oid, b"d", b"a", Bytes::from(vec![1; 900_000]));
            submit(&store, &tx).await.unwrap();
            store.checkpoint().await.unwrap();
        }
        assert!(store.statfs().metadata > BYTES);
        store.check().await.unwrap();
        store.close().await.unwrap();
    })
    .unwrap();
    assert!(used(&host, "/meta") > 3000 && used(&host, "/wal") > 1000);
    let pages = host.disk("/meta", BYTES).peek(0, BYTES as usize);
    assert!(!pages.chunks(4096).any(|b| b.iter().all(|&x| x == 7)), "data among the pages");
}

#[test]
fn devices_that_are_missing_or_swapped_are_refused() {
    let host = host(&["/data", "/wal", "/meta", "/data2", "/wal2", "/one"]);
    host.block_on(async {
        let format = FormatOptions::default();
        for (main, wal, meta) in [
            ("/data", Some("/wal"), Some("/meta")),
            ("/data2", Some("/wal2"), None),
            ("/one", None, None),
        ] {
            Store::format(&devices(main, wal, meta), &format).await.unwrap();
        }
        let refused = async |main, wal, meta| match open(&devices(main, wal, meta)).await {
            Err(OpenError::Device(e)) => e,
            other => panic!("{:?}", other.map(drop)),
        };
        let missing = refused("/data", None, Some("/meta")).await;
        assert!(matches!(missing, DeviceError::Missing { role: Role::Wal, .. }), "{missing}");
        let missing = refused("/data", Some("/wal"), None).await;
        assert!(matches!(missing, DeviceError::Missing { role: Role::Meta, .. }), "{missing}");
        let swapped = refused("/data", Some("/meta"), Some("/wal")).await;
        let DeviceError::Role { found: Role::Meta, expected: Role::Wal, .. } = swapped else {
            panic!("{swapped}")
        };
        let swapped = refused("/wal", Some("/data"), Some("/meta")).await;
        assert!(matches!(swapped, DeviceError::Role { found: Role::Wal, .. }), "{swapped}");
        let other = refused("/data", Some("/wal2"), Some("/meta")).await;
        assert!(matches!(other, DeviceError::NotOfSet { .. }), "{other}");
        let extra = refused("/one", Some("/wal2"), None).await;
        assert!(matches!(extra, DeviceError::NotOfSet { .. }), "{extra}");
        let text = refused("/data", None, None).await.to_string();
        assert!(text.contains("has a WAL device, too"), "{text}");
        open(&devices("/data", Some("/wal"), Some("/meta"))).await.unwrap();
    })
    .unwrap();
}

/// The WAL device may hold batches of another store, whose generation and numbers are ours.
#[test]
fn batches_of_another_store_are_no_batches_of_ours() {
    let host = host(&["/data", "/data2", "/wal"]);
    host.block_on(async {
        let format = FormatOptions::default();
        for main in ["/data", "/data2"] {
            let all = devices(main, Some("/wal"), None);
            Store::format(&all, &format).await.unwrap();
            let store = open(&all).await.unwrap();
            assert_eq!((store.statfs().objects, store.counters().replayed), (0, 0));
            container(&store).await;
            for i in 0..50u64 {
                let mut tx = Tx::new(1);
                let oid = ObjectKey(Bytes::from(format!("object{i}")));
                tx.update(CID, &oid, b"d", b"a", Bytes::from(vec![1; 1000]));
                submit(&store, &tx).await.unwrap();
            }
            store.close().await.unwrap();
        }
    })
    .unwrap();
}
